//! How connections to members are made, by whoever makes them.
//!
//! It must never take this process's own end of a connection for a member's. The main path: [`connect`].

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

/// Connects to `address`. Where nobody listens on a port of this machine that the kernel hands out to clients, a connection can meet
/// itself (RFC 9293, simultaneous open): that is nobody's answer.
///
/// # Errors
/// The system's, or refused where it met itself.
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    other_end(TcpStream::connect(address).await?)
}

fn other_end(stream: TcpStream) -> io::Result<TcpStream> {
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    #[tokio::test]
    async fn a_connection_that_meets_itself_is_refused() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let own = socket.local_addr().unwrap();
        let met = socket.connect(own).await.unwrap();
        assert_eq!(other_end(met).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        assert!(connect(listener.local_addr().unwrap()).await.is_ok());
    }
}
