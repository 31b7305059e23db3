//! Bodies and queries of requests, refused in the API's own shape where they are not understood.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, Request};
use hyper::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::Refused;
use crate::codes::Code;

/// A JSON body; an empty one is the type's default, so that `curl -X POST` is enough where nothing need be said.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let bytes = bytes::Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Refused::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                Code::BAD_REQUEST,
                format!("a body of more than {} bytes", super::BODY_BYTES_MAX),
            ),
            _ => Refused::bad(rejection.body_text()),
        })?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        // A list would be taken for the fields in their order, and an empty one for a request without any.
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(Refused::bad("a body that is no JSON object: an object with the fields described, such as {}, was expected"));
        }
        let Json(body) = Json::from_bytes(text).map_err(|rejection| Refused::bad(rejection.body_text()))?;
        Ok(Self(body))
    }
}

/// The body of a request that says everything in its path: none, or an object without fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// A count that a query asks for.
///
/// # Errors
/// It is more than one answer holds.
pub(super) fn at_most(name: &str, asked: Option<usize>, default: usize, max: usize) -> Result<usize, Refused> {
    match asked.unwrap_or(default) {
        asked if asked > max => Err(Refused::bad(format!("`{name}` is {asked}, and one answer holds {max} at most"))),
        asked => Ok(asked),
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad(rejection.body_text())
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::super::types::{Apply, Resume, Switchover};
    use super::*;

    async fn read<T: DeserializeOwned>(body: &'static str) -> Result<T, String> {
        let request = Request::post("/").body(axum::body::Body::from(body)).unwrap();
        match Body::<T>::from_request(request, &()).await {
            Ok(Body(read)) => Ok(read),
            Err(refused) => {
                let response = refused.into_response();
                assert_eq!(response.status(), StatusCode::BAD_REQUEST);
                let text = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
                Err(String::from_utf8(text.to_vec()).unwrap())
            }
        }
    }

    /// What is not understood is refused with what was expected; nothing is done that nobody asked for.
    #[tokio::test]
    async fn bodies_are_read_strictly() {
        for good in ["", "{}", " {\n}\n"] {
            read::<Nothing>(good).await.unwrap();
            assert_eq!(read::<Switchover>(good).await.unwrap().to, None);
            assert!(!read::<Resume>(good).await.unwrap().force);
        }
        for bad in ["[]", "null", "\"x\"", "1", "[\"web/a\"]"] {
            assert!(read::<Switchover>(bad).await.unwrap_err().contains("object"), "{bad}");
            assert!(read::<Nothing>(bad).await.unwrap_err().contains("object"), "{bad}");
        }
        assert!(read::<Nothing>("{\"force\": true}").await.unwrap_err().contains("unknown field `force`"));
        assert!(read::<Switchover>("{\"too\": \"web/a\"}").await.unwrap_err().contains("expected `to`"));
        assert!(read::<Switchover>("{\"to\": \"web/a\"} {}").await.is_err());
        assert!(read::<Resume>("{\"force\": \"yes\"}").await.is_err());
        assert!(read::<Apply>("").await.unwrap_err().contains("missing field `text`"));
    }

    #[test]
    fn a_count_that_no_answer_holds_is_refused() {
        assert_eq!(at_most("limit", None, 50, 1000).unwrap(), 50);
        assert_eq!(at_most("limit", Some(1000), 50, 1000).unwrap(), 1000);
        assert!(format!("{:?}", at_most("limit", Some(1001), 50, 1000)).contains("`limit` is 1001, and one answer holds 1000 at most"));
    }
}
