//! Bodies and queries of requests, refused in the API's own shape where they are not understood.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, Request};
use hyper::StatusCode;
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
        let Json(body) = Json::from_bytes(text).map_err(|rejection| Refused::bad(rejection.body_text()))?;
        Ok(Self(body))
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad(rejection.body_text())
    }
}
