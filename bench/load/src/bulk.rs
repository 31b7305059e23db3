//! Bulk over TCP: a server that sends as many bytes as it is asked for, and a client that takes them on several connections at once.
//!
//! Both touch the bytes as little as they can, so that the machine is the proxy's. Main path: [`serve`], [`get`].

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use anyhow::Context;

use crate::args::Args;

const BUFFER_BYTES: usize = 256 * 1024;

/// Sends, on each connection, as many bytes as its first eight say. Runs until it is ended.
pub(crate) fn serve(args: &Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.need::<SocketAddr>("listen")?)?;
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            // A client that went away has had enough.
            let _ = send(stream);
        });
    }
    Ok(())
}

fn send(mut stream: TcpStream) -> std::io::Result<()> {
    let mut wanted = [0; 8];
    stream.read_exact(&mut wanted)?;
    let (mut left, buffer) = (u64::from_le_bytes(wanted), vec![7; BUFFER_BYTES]);
    while left > 0 {
        let piece = left.min(BUFFER_BYTES as u64) as usize;
        stream.write_all(&buffer[..piece])?;
        left -= piece as u64;
    }
    Ok(())
}

/// Takes `--mib` on `--connections` and prints how long it took.
pub(crate) fn get(args: &Args) -> anyhow::Result<()> {
    let (to, mib, connections) = (args.need::<SocketAddr>("to")?, args.need::<u64>("mib")?, args.get("connections", 4u64)?);
    let each = mib * 1024 * 1024 / connections;
    let begun = Instant::now();
    let threads: Vec<_> = (0..connections).map(|_| std::thread::spawn(move || take(to, each))).collect();
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a connection's thread panicked"))??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let line = serde_json::json!({ "bytes": each * connections, "seconds": seconds });
    println!("{line}");
    Ok(())
}

fn take(to: SocketAddr, bytes: u64) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(&bytes.to_le_bytes())?;
    let (mut buffer, mut left) = (vec![0; BUFFER_BYTES], bytes);
    while left > 0 {
        let got = stream.read(&mut buffer).context("reading")? as u64;
        anyhow::ensure!(got > 0, "closed with {left} bytes to come");
        left = left.saturating_sub(got);
    }
    Ok(())
}
