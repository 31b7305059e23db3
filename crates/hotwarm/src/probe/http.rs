//! A small HTTP/1.1 client for health checks and role changes: one request on one connection, a bounded answer.
//!
//! It follows no redirect, keeps no connection and reads at most 64 KiB. Time limits are the caller's. Main path: [`request`].

use std::io;
use std::net::SocketAddr;

use crate::net;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;

/// How much of an answer's body is read, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The body's beginning.
    pub body: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("connection not made: {0}")]
    Connect(io::Error),
    #[error("no valid answer: {0}")]
    Exchange(#[from] hyper::Error),
    #[error("a request that cannot be written: {0}; correct the path")]
    Request(#[from] hyper::http::Error),
}

/// Sends one request to `address`, with `json` as its body if there is one, and reads the beginning of the answer.
pub async fn request(address: SocketAddr, method: Method, path: &str, json: Option<String>) -> Result<Answer, HttpError> {
    let mut builder = Request::builder().method(method).uri(path).header(HOST, address.to_string());
    builder = builder.header(USER_AGENT, "hotwarm").header(CONNECTION, "close");
    if json.is_some() {
        builder = builder.header(CONTENT_TYPE, "application/json");
    }
    let request = builder.body(Full::new(Bytes::from(json.unwrap_or_default())))?;
    let stream = net::connect(address).await.map_err(HttpError::Connect)?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = std::pin::pin!(connection);
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let (mut incoming, mut body) = (answer.into_body(), Vec::new());
        while body.len() < BODY_BYTES_MAX {
            let Some(frame) = incoming.frame().await else { break };
            if let Ok(data) = frame?.into_data() {
                body.extend_from_slice(&data[..data.len().min(BODY_BYTES_MAX - body.len())]);
            }
        }
        Ok(Answer { status, body })
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection may end before the answer's body has been read here.
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error.into()),
        },
    }
}
