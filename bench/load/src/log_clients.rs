//! Closed-loop clients of `log-node`: each puts one input into the log, waits until it is applied, and puts the next.
//!
//! They share connections, as those of etcd do: what several of them ask at one moment is one write. Main path: [`main`] ->
//! [`connection`].

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::args::Args;
use crate::log_node::{ANSWER_BYTES, QUESTION_BYTES};
use crate::tally::Tally;

/// `--to ADDRESS --clients N --connections N --bytes N --seconds S`.
pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let (to, clients, bytes) = (args.need::<SocketAddr>("to")?, args.get("clients", 64usize)?, args.get("bytes", 256usize)?);
    let (connections, seconds) = (args.get("connections", 8usize)?.max(1), args.get("seconds", 5f64)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tally = runtime.block_on(async {
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        let share = |number: usize| clients / connections + usize::from(number < clients % connections);
        let tasks: Vec<_> = (0..connections).map(|number| tokio::spawn(connection(to, share(number), bytes, until))).collect();
        let mut tally = Tally::default();
        for task in tasks {
            tally.merge(task.await.context("a connection panicked")??);
        }
        anyhow::Ok(tally)
    })?;
    tally.print(seconds);
    Ok(())
}

/// The clients of one connection, each with one input under way at a time.
async fn connection(to: SocketAddr, clients: usize, bytes: usize, until: Instant) -> anyhow::Result<Tally> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let data = vec![7; bytes];
    let mut begun = vec![Instant::now(); clients];
    let (mut tally, mut out, mut arrived) = (Tally::default(), Vec::new(), Vec::new());
    (0..clients).for_each(|client| put(&mut out, client, &data));
    let mut under_way = clients;
    while under_way > 0 {
        stream.write_all(&out).await?;
        out.clear();
        anyhow::ensure!(stream.read_buf(&mut arrived).await? > 0, "the node closed the connection");
        let now = Instant::now();
        let whole = arrived.len() / ANSWER_BYTES * ANSWER_BYTES;
        for answer in arrived.drain(..whole).as_slice().chunks_exact(ANSWER_BYTES) {
            let client = u32::from_le_bytes(answer[..4].try_into()?) as usize;
            match answer[4] {
                1 => tally.add(now.duration_since(begun[client])),
                _ => tally.failed += 1,
            }
            if now < until {
                begun[client] = now;
                put(&mut out, client, &data);
            } else {
                under_way -= 1;
            }
        }
    }
    Ok(tally)
}

fn put(out: &mut Vec<u8>, client: usize, data: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&(client as u32).to_le_bytes());
    out.extend_from_slice(&(data.len() as u32).to_le_bytes());
    debug_assert_eq!(out.len() - start, QUESTION_BYTES, "what the node reads first");
    out.extend_from_slice(data);
}
