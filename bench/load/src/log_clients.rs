//! Closed-loop clients of `log-node`: each puts one input into the log, waits until it is applied, and puts the next.
//!
//! Main path: [`main`] -> [`client`].

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::args::Args;
use crate::tally::Tally;

/// `--to ADDRESS --clients N --bytes N --seconds S`.
pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let (to, clients, bytes) = (args.need::<SocketAddr>("to")?, args.get("clients", 64usize)?, args.get("bytes", 256usize)?);
    let seconds = args.get("seconds", 5f64)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tally = runtime.block_on(async {
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        let tasks: Vec<_> = (0..clients).map(|_| tokio::spawn(client(to, bytes, until))).collect();
        let mut tally = Tally::default();
        for task in tasks {
            tally.merge(task.await.context("a client panicked")??);
        }
        anyhow::Ok(tally)
    })?;
    tally.print(seconds);
    Ok(())
}

async fn client(to: SocketAddr, bytes: usize, until: Instant) -> anyhow::Result<Tally> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let mut frame = u32::try_from(bytes)?.to_le_bytes().to_vec();
    frame.resize(4 + bytes, 7);
    let mut tally = Tally::default();
    while Instant::now() < until {
        let begun = Instant::now();
        stream.write_all(&frame).await?;
        if stream.read_u8().await? == 1 {
            tally.add(begun.elapsed());
        } else {
            tally.failed += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(tally)
}
