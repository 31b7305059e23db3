//! Closed-loop clients of etcd over gRPC: each puts one key, waits for the answer, and puts the next.
//!
//! The only message sent is `etcdserverpb.PutRequest` (fields 1 `key` and 2 `value`, both bytes), so it is written here by hand and no
//! generated code is needed. Main path: [`main`] -> `client`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request};
use tokio::net::TcpStream;

use crate::args::Args;
use crate::tally::Tally;

/// `--to ADDRESS --clients N --connections N --bytes N --seconds S`.
pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let (to, clients, bytes) = (args.need::<SocketAddr>("to")?, args.get("clients", 64usize)?, args.get("bytes", 256usize)?);
    let (connections, seconds) = (args.get("connections", 8usize)?, args.get("seconds", 5f64)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tally = runtime.block_on(async {
        let mut senders = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = h2::client::handshake(stream).await?;
            tokio::spawn(connection);
            senders.push(sender);
        }
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        let one = |number: usize| client(senders[number % connections].clone(), to, put(number, bytes), until);
        let tasks: Vec<_> = (0..clients).map(|number| tokio::spawn(one(number))).collect();
        let mut tally = Tally::default();
        for task in tasks {
            tally.merge(task.await.context("a client panicked")??);
        }
        anyhow::Ok(tally)
    })?;
    tally.print(seconds);
    Ok(())
}

/// A `PutRequest` as a gRPC frame.
fn put(number: usize, bytes: usize) -> Bytes {
    let (key, value) = (format!("bench/{number}"), vec![b'v'; bytes]);
    let mut message = Vec::new();
    for (field, data) in [(1u8, key.as_bytes()), (2, &value)] {
        message.push(field << 3 | 2);
        varint(&mut message, data.len());
        message.extend_from_slice(data);
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

fn varint(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

async fn client(sender: SendRequest<Bytes>, to: SocketAddr, frame: Bytes, until: Instant) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let mut sender = sender;
    while Instant::now() < until {
        let begun = Instant::now();
        sender = sender.ready().await?;
        if one(&mut sender, to, frame.clone()).await? {
            tally.add(begun.elapsed());
        } else {
            tally.failed += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(tally)
}

/// One put; true if etcd says OK.
async fn one(sender: &mut SendRequest<Bytes>, to: SocketAddr, frame: Bytes) -> anyhow::Result<bool> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{to}/etcdserverpb.KV/Put"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut stream) = sender.send_request(request, false)?;
    stream.send_data(frame, true)?;
    let mut body = response.await?.into_body();
    while let Some(data) = body.data().await {
        let length = data?.len();
        body.flow_control().release_capacity(length)?;
    }
    let trailers = body.trailers().await?;
    Ok(trailers.and_then(|t| t.get("grpc-status").cloned()).is_some_and(|status| status == "0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_framed_as_grpc_wants_it() {
        let frame = put(7, 200);
        assert_eq!(frame[..5], [0, 0, 0, 0, (2 + 7 + 3 + 200) as u8]);
        assert_eq!(&frame[5..14], b"\x0a\x07bench/7");
        assert_eq!(frame[14..17], [0x12, 0xc8, 0x01]);
        assert_eq!(frame.len(), 17 + 200);
    }
}
