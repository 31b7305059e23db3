//! How the API refuses: one shape of error, its status, and the code whose page says what to do.

use axum::Json;
use axum::response::{IntoResponse, Response};
use hotwarm_core::cluster::{Event, What};
use hotwarm_core::group::{Effect, reason};
use hotwarm_core::node::CommandError;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::{picture, types};
use crate::agent::{ConfigureError, ReloadError};
use crate::codes::Code;

/// A request that was not carried out.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    headers: HeaderMap,
    body: Box<types::Error>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, code: Code, error: impl Into<String>) -> Self {
        let body = types::Error { code: code.to_string(), error: error.into(), page: code.page(), ..types::Error::default() };
        Self { status, headers: HeaderMap::new(), body: Box::new(body) }
    }

    pub(super) fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }

    /// 404
    pub(super) fn not_there(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, Code::NOT_THERE, what).hint("`hotwarm status` lists nodes, groups and members")
    }

    /// 400
    pub(super) fn bad(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::BAD_REQUEST, why).hint("GET /api/v1/openapi.json describes every request")
    }

    /// The refusal among what a command did, if there is one: the log has taken note of the command and not followed it.
    pub(super) fn among(events: &[Event]) -> Option<Self> {
        events.iter().find_map(|event| match &event.what {
            What::Group(Effect::Because(why @ reason::Reason::SwitchoverRefused { .. })) => {
                let mut refused = Self::new(StatusCode::CONFLICT, Code::SWITCHOVER_REFUSED, why.to_string());
                let group = event.group.as_ref().map(ToString::to_string).unwrap_or_default();
                refused.body.hint = Some(format!("`hotwarm why {group}` names what each member lacks"));
                refused.body.reason = Some(picture::reason(why));
                Some(refused)
            }
            What::Group(Effect::Because(why @ reason::Reason::RestartRefused { .. })) => {
                let mut refused = Self::restart(why.to_string());
                refused.body.reason = Some(picture::reason(why));
                Some(refused)
            }
            _ => None,
        })
    }

    /// 409
    pub(super) fn restart(why: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, Code::RESTART_REFUSED, why)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, self.headers, Json(self.body)).into_response()
    }
}

impl From<CommandError> for Refused {
    fn from(error: CommandError) -> Self {
        let (status, code) = match error {
            CommandError::UnknownGroup(_) | CommandError::UnknownNode(_) => (StatusCode::NOT_FOUND, Code::NOT_THERE),
            CommandError::NotYet => (StatusCode::CONFLICT, Code::TOO_OLD),
            CommandError::NoLeader => (StatusCode::SERVICE_UNAVAILABLE, Code::NO_LEADER),
            CommandError::Unconfirmed => (StatusCode::GATEWAY_TIMEOUT, Code::UNCONFIRMED),
            CommandError::Busy | CommandError::DiskBehind => (StatusCode::SERVICE_UNAVAILABLE, Code::BUSY),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<ConfigureError> for Refused {
    fn from(error: ConfigureError) -> Self {
        match error {
            ConfigureError::Command(error) => error.into(),
            ConfigureError::Refused(why) => Self::new(StatusCode::CONFLICT, Code::CONFIGURATION_REFUSED, why.join("; ")),
            ConfigureError::Wrong(errors) => {
                let text = errors.to_string();
                let mut refused = Self::new(StatusCode::UNPROCESSABLE_ENTITY, Code::CONFIGURATION_WRONG, text);
                let value = |diagnostic| serde_json::to_value(diagnostic).unwrap_or_default();
                refused.body.errors = errors.errors.iter().map(value).collect();
                refused.hint("`hotwarm check FILE` says the same without a cluster")
            }
        }
    }
}

impl From<ReloadError> for Refused {
    fn from(error: ReloadError) -> Self {
        Self::new(StatusCode::CONFLICT, Code::CERTIFICATE, error.to_string())
    }
}
