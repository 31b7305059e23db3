//! A client that sends exactly the bytes it is given and reads one reply at a time.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::stage::PATIENCE;

pub(super) struct Client {
    pub stream: TcpStream,
    pub rest: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|line| line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name))?;
        line[name.len()..].strip_prefix(": ")
    }

    pub(super) fn code(&self) -> &str {
        self.header("x-hotwarm-code").unwrap_or("")
    }
}

/// One request on a connection of its own.
pub(super) async fn ask(address: SocketAddr, request: &str) -> Option<Reply> {
    let mut client = Client::to(address).await;
    client.send(request.as_bytes()).await;
    client.reply().await
}

/// A plain GET.
pub(super) async fn get(address: SocketAddr, path: &str) -> Option<Reply> {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")).await
}

impl Client {
    pub(super) async fn to(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), rest: Vec::new() }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        // The router may have closed already; what it said is in `reply`.
        let _ = self.stream.write_all(bytes).await;
    }

    /// Reads until `rest` is longer; false at the end of the stream.
    pub(super) async fn more(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.rest)).await.expect("a byte in time");
        matches!(read, Ok(n) if n > 0)
    }

    /// The next head, as text with its empty line.
    pub(super) async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.windows(4).position(|w| w == b"\r\n\r\n") {
                return Some(String::from_utf8(self.rest.drain(..end + 4).collect()).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The next reply, interim ones left out; `None` if it broke off.
    pub(super) async fn reply(&mut self) -> Option<Reply> {
        self.reply_to(false).await
    }

    pub(super) async fn reply_to(&mut self, head_only: bool) -> Option<Reply> {
        loop {
            let head = self.head().await?;
            let status: u16 = head[9..12].parse().unwrap();
            let mut reply = Reply { status, head, body: Vec::new() };
            if (100..200).contains(&status) {
                continue;
            }
            if head_only || status == 204 || status == 304 {
                return Some(reply);
            }
            if reply.header("transfer-encoding").is_some() {
                reply.body = self.chunks().await?;
            } else if let Some(length) = reply.header("content-length") {
                let length: usize = length.parse().unwrap();
                while self.rest.len() < length {
                    if !self.more().await {
                        return None;
                    }
                }
                reply.body = self.rest.drain(..length).collect();
            } else {
                loop {
                    match tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.rest)).await.unwrap() {
                        Ok(0) => break,
                        Ok(_) => {}
                        Err(_) => return None,
                    }
                }
                reply.body = std::mem::take(&mut self.rest);
            }
            return Some(reply);
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.rest.drain(..end + 2).collect();
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// A chunked body; trailers are appended as `name: value` after a line feed.
    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(self.line().await?.split(';').next().unwrap(), 16).unwrap();
            if size == 0 {
                loop {
                    let line = self.line().await?;
                    if line.is_empty() {
                        return Some(body);
                    }
                    body.extend_from_slice(format!("\n{line}").as_bytes());
                }
            }
            while self.rest.len() < size + 2 {
                if !self.more().await {
                    return None;
                }
            }
            body.extend(self.rest.drain(..size));
            assert_eq!(self.rest.drain(..2).as_slice(), b"\r\n");
        }
    }

    /// True when the router closes without another byte.
    pub(super) async fn ends(&mut self) -> bool {
        self.rest.is_empty() && !self.more().await
    }
}
