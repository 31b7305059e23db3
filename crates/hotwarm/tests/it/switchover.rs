//! A switchover as clients see it, on a real cluster with the defaults.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use hotwarm::drill::Load;

use crate::cluster::{PATIENCE, Site, all_answered, engine};
use crate::faults::EXPECTED;
use crate::members::HOTWARM;

const RATE: u32 = 50;

/// A connection that was upgraded as a browser's WebSocket is, to a member that sends back what comes.
struct Socket(TcpStream);

impl Socket {
    fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        Self(stream)
    }

    fn echoes(&mut self) {
        self.0.write_all(b"word").unwrap();
        let mut word = [0; 4];
        self.0.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"word");
    }

    /// The router ended it, and did not merely keep silent.
    fn ends(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// Whoever keeps a WebSocket open keeps nobody else waiting; it is closed, and opened again leads to the new hot member.
#[test]
fn an_open_websocket_costs_nobody_a_request() {
    let chat = engine(&[HOTWARM, "component", "web"], "");
    let cluster =
        Site::new(3).group("chat", "hot-warm", &format!("protocol = \"http\"\ncheck = {{ http = \"/healthz\" }}\n{chat}")).start_whole();
    let listen = cluster.listen("chat");
    let load = Load::start(listen.values().copied().collect(), RATE).unwrap();
    let mut sockets: Vec<Socket> = listen.values().map(|address| Socket::open(*address)).collect();
    sockets.iter_mut().for_each(Socket::echoes);
    let hot = cluster.hot("chat", &[]).unwrap();
    let told = cluster.done("a", &["switchover", "chat", "--yes"]);
    assert!(cluster.hot("chat", &[]).is_some_and(|now| now != hot), "{told}");
    let events = cluster.done("a", &["events", "chat"]);
    assert!(events.contains("switchover-asked") && !events.contains("drain-timed-out"), "{events}");
    assert!(sockets.iter_mut().all(Socket::ends));
    listen.values().for_each(|address| Socket::open(*address).echoes());
    all_answered([load]);
    cluster.finish(&[EXPECTED[0]]);
}
