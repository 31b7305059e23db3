//! Listening sockets: one per thread on one address, so that the kernel spreads connections.
//!
//! The main path: [`bind_all`].

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

const BACKLOG: i32 = 4096;

/// `count` listeners on the same address, and that address with its real port.
pub(super) fn bind_all(address: SocketAddr, count: usize) -> io::Result<(Vec<TcpListener>, SocketAddr)> {
    let first = bind(address)?;
    let real = first.local_addr()?;
    let mut all = vec![first];
    for _ in 1..count {
        all.push(bind(real)?);
    }
    Ok((all, real))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Inherited by what is accepted: one system call less per connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
