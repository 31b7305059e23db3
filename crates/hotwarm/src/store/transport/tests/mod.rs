//! The transport over real sockets on loopback.

mod tls;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::dial::RETRY_FIRST;
use super::frame::{Kind, Reader, encode};
use super::hello::Hello;
use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

struct Node {
    handle: Handle,
    inbox: Receiver<Inbound>,
}

impl Node {
    fn start(name: &str, cluster: &str, listen: SocketAddr, security: Security) -> Self {
        let (deliver, inbox) = channel();
        let options = Options { me: name.into(), listen, peers: BTreeMap::new(), cluster: cluster.into(), security, revoked: Vec::new() };
        let handle = Transport::start(options, Box::new(move |message| deliver.send(message).is_ok())).unwrap();
        Self { handle, inbox }
    }

    fn plain(name: &str) -> Self {
        Self::start(name, "shop", any_port(), Security::Loopback)
    }

    fn knows(&self, peers: &[(&str, &Self)]) {
        let peers = peers.iter().map(|(name, node)| (NodeId::from(*name), node.handle.local_addr())).collect();
        self.handle.set_peers(&peers).unwrap();
    }

    fn lane(&self, peer: &str, lane: Lane) -> LaneStats {
        self.handle.stats().lanes.remove(&(peer.into(), lane)).unwrap()
    }

    fn problem(&self, peer: &str) -> String {
        self.lane(peer, Lane::Messages).problem.unwrap_or_default()
    }

    fn receive(&self) -> (String, Vec<u8>) {
        loop {
            if let Inbound::Message { from, bytes } = self.inbox.recv_timeout(PATIENCE).expect("a message arrives") {
                return (from.to_string(), bytes);
            }
        }
    }

    /// The messages that are there.
    fn arrived(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
        self.inbox.try_iter().filter_map(|told| match told {
            Inbound::Message { from, bytes } => Some((from.to_string(), bytes)),
            Inbound::Ended(_) => None,
        })
    }

    /// A connected stranger that says hello as `name` and is welcomed.
    fn raw_peer(&self, name: &str) -> TcpStream {
        let mut socket = TcpStream::connect(self.handle.local_addr()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(&frame(Kind::Hello, &hello(name, "a"))).unwrap();
        assert_eq!(read_frame(&mut socket).unwrap().0, Kind::Welcome);
        socket
    }
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn frame(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, kind, body);
    out
}

fn hello(from: &str, to: &str) -> Vec<u8> {
    Hello::new("shop", &from.into(), &to.into(), Lane::Messages).to_bytes()
}

fn read_frame(socket: &mut impl Read) -> Option<(Kind, Vec<u8>)> {
    let mut reader = Reader::new();
    loop {
        if let Some(frame) = reader.next().unwrap() {
            return Some(frame);
        }
        let mut chunk = [0; 4096];
        let read = match socket.read(&mut chunk) {
            Ok(0) => return None,
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => panic!("neither a frame nor an end"),
            Err(_) => return None,
        };
        reader.space().extend_from_slice(&chunk[..read]);
    }
}

#[test]
fn messages_arrive_once_and_in_order() {
    let (a, b, c) = (Node::plain("a"), Node::plain("b"), Node::plain("c"));
    a.knows(&[("a", &a), ("b", &b), ("c", &c)]);
    b.knows(&[("a", &a)]);
    for n in 0..1000u32 {
        a.handle.send(&"b".into(), n.to_le_bytes().to_vec()).unwrap();
        a.handle.send(&"c".into(), vec![7]).unwrap();
    }
    for n in 0..1000u32 {
        assert_eq!(b.receive(), ("a".into(), n.to_le_bytes().to_vec()));
        assert_eq!(c.receive(), ("a".into(), vec![7]));
    }
    b.handle.send(&"a".into(), vec![]).unwrap();
    assert_eq!(a.receive(), ("b".into(), vec![]));
    assert_eq!(a.handle.send(&"a".into(), vec![1]), Err(NotSent::NoPeer), "a node does not dial itself");
    eventually("what is sent is counted", || a.lane("b", Lane::Messages).sent_messages == 1000);
    assert_eq!(a.lane("b", Lane::Messages).connects, 1);
}

#[test]
fn a_peer_whose_process_ended_is_told_of_once_for_each_connection() {
    let (a, b) = (Node::plain("a"), Node::plain("b"));
    let address = b.handle.local_addr();
    a.knows(&[("b", &b)]);
    eventually("a connection", || a.lane("b", Lane::Messages).connected);
    let told = |what: &str| assert_eq!(a.inbox.recv_timeout(PATIENCE).as_ref(), Ok(&Inbound::Ended("b".into())), "{what}");
    b.handle.stop();
    told("it ended");
    // Time enough to be refused again.
    assert!(a.inbox.recv_timeout(RETRY_FIRST * 16).is_err());
    let again = Node::start("b", "shop", address, Security::Loopback);
    eventually("another connection", || a.lane("b", Lane::Messages).connects == 2);
    again.handle.stop();
    told("it ended again");
}

#[test]
fn a_large_message_takes_a_connection_of_its_own() {
    let (a, b) = (Node::plain("a"), Node::plain("b"));
    a.knows(&[("b", &b)]);
    let large: Vec<u8> = (0..MAX_BODY).map(|n| (n % 251) as u8).collect();
    a.handle.send(&"b".into(), large.clone()).unwrap();
    a.handle.send(&"b".into(), vec![1]).unwrap();
    let mut seen = [b.receive().1, b.receive().1];
    seen.sort_by_key(Vec::len);
    assert!(seen == [vec![1], large]);
    assert_eq!((a.lane("b", Lane::Messages).connects, a.lane("b", Lane::Bulk).connects), (1, 1));
    assert_eq!(a.handle.send(&"b".into(), vec![0; MAX_BODY + 1]), Err(NotSent::TooLong));
}

#[test]
fn strangers_are_refused_and_harm_nobody() {
    let (a, b) = (Node::plain("a"), Node::plain("b"));
    b.knows(&[("a", &a)]);
    for garbage in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], &[0; 64], &[0xff; 64], &frame(Kind::Message, b"no hello")] {
        let mut socket = TcpStream::connect(a.handle.local_addr()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(garbage).unwrap();
        let answer = read_frame(&mut socket);
        assert!(matches!(answer, Some((Kind::Refused, _)) | None), "{answer:?}");
    }
    eventually("each is counted", || a.handle.stats().refused == 4);
    b.handle.send(&"a".into(), vec![1]).unwrap();
    assert_eq!(a.receive(), ("b".into(), vec![1]));
    assert!(a.inbox.try_recv().is_err(), "nothing of the strangers was delivered");
}

#[test]
fn a_bad_frame_ends_the_connection() {
    let a = Node::plain("a");
    let mut flipped = frame(Kind::Message, b"two");
    *flipped.last_mut().unwrap() ^= 1;
    let mut newer = frame(Kind::Message, b"two");
    newer[9] = 2;
    let crc = crc32c::crc32c(&newer[8..]);
    newer[4..8].copy_from_slice(&crc.to_le_bytes());
    let mut oversize = frame(Kind::Message, b"two");
    oversize[..4].copy_from_slice(&(MAX_BODY as u32 + 1).to_le_bytes());
    let cases = [(flipped, "checksum"), (newer, "message frame has version 2"), (oversize, "at most 16777216")];
    for (n, (bad, why)) in cases.into_iter().enumerate() {
        let mut socket = a.raw_peer("b");
        socket.write_all(&[frame(Kind::Message, b"one"), bad, frame(Kind::Message, b"three")].concat()).unwrap();
        assert_eq!(a.receive(), ("b".into(), b"one".to_vec()));
        let (kind, text) = read_frame(&mut socket).expect("it says why");
        assert_eq!(kind, Kind::Refused);
        assert!(String::from_utf8(text).unwrap().contains(why));
        eventually("it is counted", || a.handle.stats().bad_connections == n as u64 + 1);
    }
    assert!(a.inbox.try_recv().is_err(), "nothing after the bad frame was delivered");
}

#[test]
fn another_cluster_and_another_node_are_told_what_to_correct() {
    let (a, b) = (Node::plain("a"), Node::plain("b"));
    let other = Node::start("b", "bank", any_port(), Security::Loopback);
    a.knows(&[("b", &other)]);
    eventually("wrong cluster", || a.problem("b").contains("node a of cluster \"shop\" at a node of cluster \"bank\""));
    a.knows(&[("c", &b)]);
    eventually("wrong node", || a.problem("c").contains("correct the address of c"));
    a.knows(&[("b", &a)]);
    eventually("itself", || a.problem("b").contains("wants node b and reached node a"));
    assert!(other.inbox.try_recv().is_err() && b.inbox.try_recv().is_err());
}

#[test]
fn plain_text_stays_on_loopback() {
    let beyond: SocketAddr = "10.0.0.1:7400".parse().unwrap();
    let options = |listen: &str, peer| Options {
        me: "a".into(),
        listen: listen.parse().unwrap(),
        peers: BTreeMap::from([("b".into(), peer)]),
        cluster: "shop".into(),
        security: Security::Loopback,
        revoked: Vec::new(),
    };
    for refused in [options("0.0.0.0:0", any_port()), options("[::]:0", any_port()), options("127.0.0.1:0", beyond)] {
        let error = Transport::start(refused, Box::new(|_| true)).unwrap_err();
        assert!(matches!(error, TransportError::BeyondLoopback { .. }), "{error}");
    }
    let (a, b) = (Node::plain("a"), Node::plain("b"));
    a.knows(&[("b", &b)]);
    assert!(a.handle.set_peers(&BTreeMap::from([("b".into(), beyond)])).is_err());
    a.handle.send(&"b".into(), vec![1]).unwrap();
    assert_eq!(b.receive().1, [1], "a refused list changes nothing");
}

#[test]
fn a_restarted_peer_is_reconnected() {
    let (a, b) = (Node::plain("a"), Node::plain("b"));
    a.knows(&[("b", &b)]);
    a.handle.send(&"b".into(), vec![0]).unwrap();
    assert_eq!(b.receive().1, [0]);
    for life in 1..4u8 {
        let address = b.handle.local_addr();
        b.handle.stop();
        eventually("the loss is noticed without sending", || !a.lane("b", Lane::Messages).connected);
        let again = Node::start("b", "shop", address, Security::Loopback);
        a.handle.send(&"b".into(), vec![life]).unwrap();
        assert_eq!(again.receive(), ("a".into(), vec![life]));
        again.handle.stop();
        eventually("lost again", || !a.lane("b", Lane::Messages).connected);
    }
}

#[test]
fn a_stalled_reader_never_blocks_the_sender() {
    let a = Node::plain("a");
    let stalled = TcpListener::bind(any_port()).unwrap();
    a.handle.set_peers(&BTreeMap::from([("b".into(), stalled.local_addr().unwrap())])).unwrap();
    let (mut socket, _) = stalled.accept().unwrap();
    assert_eq!(read_frame(&mut socket).unwrap(), (Kind::Hello, hello("a", "b")));
    socket.write_all(&frame(Kind::Welcome, &[])).unwrap();
    let (done, wait) = channel();
    let sender = a.handle.clone();
    std::thread::spawn(move || {
        for _ in 0..100_000 {
            sender.send(&"b".into(), vec![0; 1024]).unwrap();
        }
        let bulk = (0..100).map(|_| sender.send(&"b".into(), vec![0; 1024 * 1024])).find_map(Result::err);
        done.send(bulk).unwrap();
    });
    assert_eq!(wait.recv_timeout(PATIENCE), Ok(Some(NotSent::Full)), "the sender got through, and bulk said that it is full");
    let lane = a.lane("b", Lane::Messages);
    assert!(lane.dropped_full > 0 && lane.queued_messages <= 4096, "{lane:?}");
    eventually("the hanging connection is given up", || a.problem("b").contains("progress") || !a.lane("b", Lane::Messages).connected);
}

#[test]
fn a_full_inbound_queue_drops_and_counts() {
    let full = Arc::new(AtomicBool::new(true));
    let (deliver, inbox) = channel();
    let says = Arc::clone(&full);
    let options = Options {
        me: "b".into(),
        listen: any_port(),
        peers: BTreeMap::new(),
        cluster: "shop".into(),
        security: Security::Loopback,
        revoked: Vec::new(),
    };
    let inbound = move |message| !says.load(Ordering::SeqCst) && deliver.send(message).is_ok();
    let b = Node { handle: Transport::start(options, Box::new(inbound)).unwrap(), inbox };
    let a = Node::plain("a");
    a.knows(&[("b", &b)]);
    (0..10).for_each(|_| a.handle.send(&"b".into(), vec![1]).unwrap());
    eventually("ten dropped", || b.handle.stats().inbound_dropped == 10);
    full.store(false, Ordering::SeqCst);
    a.handle.send(&"b".into(), vec![2]).unwrap();
    assert_eq!(b.receive(), ("a".into(), vec![2]));
}

#[test]
fn peers_change_while_running() {
    let (a, b, c) = (Node::plain("a"), Node::plain("b"), Node::plain("c"));
    a.knows(&[("b", &b)]);
    a.handle.send(&"b".into(), vec![1]).unwrap();
    assert_eq!(b.receive().1, [1]);
    a.knows(&[("b", &b), ("c", &c)]);
    a.handle.send(&"c".into(), vec![2]).unwrap();
    assert_eq!(c.receive().1, [2]);
    assert_eq!(a.lane("b", Lane::Messages).connects, 1, "what did not change keeps its connection");
    a.knows(&[("c", &c)]);
    assert_eq!(a.handle.send(&"b".into(), vec![3]), Err(NotSent::NoPeer));
}

#[test]
fn a_removed_peer_is_cut_and_refused_until_it_is_configured_again() {
    let (a, b) = (Node::plain("a"), Node::plain("b"));
    // Not known yet: it may be this node that is behind.
    b.knows(&[("a", &a)]);
    b.handle.send(&"a".into(), vec![1]).unwrap();
    assert_eq!(a.receive().1, [1]);
    a.knows(&[("b", &b)]);
    let mut standing = a.raw_peer("b");
    a.knows(&[]);
    let (kind, why) = read_frame(&mut standing).expect("it says why");
    assert!(kind == Kind::Refused && String::from_utf8(why).unwrap().contains("was removed"));
    eventually("what it dials is refused", || b.problem("a").contains("node b is not in the configuration any more"));
    b.handle.send(&"a".into(), vec![2]).unwrap();
    a.knows(&[("b", &b)]);
    b.handle.send(&"a".into(), vec![3]).unwrap();
    while a.receive().1 != [3] {}
    eventually("connected again", || b.handle.is_connected(&"a".into()));
}

#[test]
fn strangers_do_not_keep_peers_out() {
    let (a, b) = (Node::plain("a"), Node::plain("b"));
    a.knows(&[("b", &b)]);
    let stranger = |n: u8| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 1, n], 0)).into()).unwrap();
        socket.connect(&a.handle.local_addr().into()).unwrap();
        TcpStream::from(socket)
    };
    let silent: Vec<TcpStream> = (0..STRANGERS).map(|n| stranger((n % 20) as u8 + 1)).collect();
    eventually("no place left for one more", || a.handle.stats().refused > 0);
    let mut peer = a.raw_peer("b");
    peer.write_all(&frame(Kind::Message, b"through")).unwrap();
    assert_eq!(a.receive().1, b"through");
    drop(silent);
}

#[test]
fn one_strange_address_takes_less_than_all_places() {
    let a = Node::plain("a");
    let mut strange: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(a.handle.local_addr()).unwrap()).collect();
    eventually("some are closed at once", || a.handle.stats().refused >= 4);
    // The others still have their place, and greet now.
    let welcome = |socket: &mut TcpStream| {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(&frame(Kind::Hello, &hello("b", "a"))).is_ok() && read_frame(socket).is_some_and(|(kind, _)| kind == Kind::Welcome)
    };
    assert_eq!(strange.iter_mut().filter_map(|socket| welcome(socket).then_some(())).count(), 16);
}

const STRANGERS: usize = 100;

#[test]
fn one_peer_cannot_pile_up_connections() {
    let a = Node::plain("a");
    let mut sockets: Vec<TcpStream> = (0..6).map(|_| a.raw_peer("b")).collect();
    let mut last = sockets.pop().unwrap();
    let mut first = sockets.remove(0);
    assert_eq!(read_frame(&mut first), None, "the oldest was closed");
    last.write_all(&frame(Kind::Message, b"newest")).unwrap();
    assert_eq!(a.receive().1, b"newest");
}

/// The body of `a_silent_peer_is_noticed`, in a network namespace of its own: loopback there may go down.
#[test]
fn in_a_namespace() {
    if std::env::var_os("HOTWARM_TEST_NAMESPACE").is_none() {
        return;
    }
    let link = |state: &str| assert!(Command::new("ip").args(["link", "set", "lo", state]).status().unwrap().success());
    link("up");
    let (a, b) = (Node::plain("a"), Node::plain("b"));
    a.knows(&[("b", &b)]);
    a.handle.send(&"b".into(), vec![1]).unwrap();
    assert_eq!(b.receive().1, [1]);
    link("down");
    a.handle.send(&"b".into(), vec![2]).unwrap();
    eventually("a notices without a word from b", || !a.handle.is_connected(&"b".into()));
    eventually("a tries on", || a.problem("b").contains("check that the node runs"));
    link("up");
    eventually("it heals by itself", || a.handle.is_connected(&"b".into()));
    a.handle.send(&"b".into(), vec![3]).unwrap();
    while b.receive().1 != [3] {}
}

#[test]
fn a_silent_peer_is_noticed() {
    let inside = Command::new("unshare")
        .args(["--map-root-user", "--net"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "store::transport::tests::in_a_namespace", "--nocapture"])
        .env("HOTWARM_TEST_NAMESPACE", "1")
        .status()
        .unwrap();
    assert!(inside.success());
}
