//! Probes against real listeners.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn spec(address: SocketAddr, kind: CheckKind) -> Spec {
    let check = Check { kind, every: Duration::from_millis(100), timeout: Duration::from_millis(300), fall: 2, rise: 1 };
    Spec { check, address, env: vec![("PATH".into(), "/usr/bin:/bin".into())], user: None, local: true, seed: 1 }
}

fn http(status: Vec<u16>, body: Option<&str>) -> CheckKind {
    CheckKind::Http { path: "/healthz".into(), status, body: body.map(str::to_owned) }
}

/// A listener that gives everyone the same answer, after reading the request.
async fn answering(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(answer).await;
            });
        }
    });
    address
}

/// An address on which nobody listens, nor will while the listener is kept.
fn refusing() -> (SocketAddr, socket2::Socket) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    (socket.local_addr().unwrap().as_socket().unwrap(), socket)
}

#[tokio::test]
async fn http_answers_are_judged_by_status_and_body() {
    let ok = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfine\n").await;
    let chunked = answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nfi\r\n2\r\nne\r\n0\r\n\r\n").await;
    let bad = answering(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await;
    let nonsense = answering(b"220 smtp.example ESMTP\r\n").await;
    assert!(once(&spec(ok, http(vec![], None))).await.is_ok());
    assert!(once(&spec(ok, http(vec![200], Some("fine")))).await.is_ok());
    assert!(once(&spec(chunked, http(vec![], Some("fine")))).await.is_ok());
    assert!(once(&spec(bad, http(vec![503], None))).await.is_ok());
    let why = async |spec: Spec| once(&spec).await.unwrap_err().to_string();
    assert_eq!(why(spec(bad, http(vec![], None))).await, "status 503, which the check does not accept");
    assert_eq!(why(spec(ok, http(vec![204], None))).await, "status 200, which the check does not accept");
    assert_eq!(why(spec(ok, http(vec![], Some("good")))).await, "an answer without the text \"good\"");
    assert!(why(spec(nonsense, http(vec![], None))).await.starts_with("no valid answer"));
    assert!(why(spec(ok, http(vec![], None).with_path("no path"))).await.contains("correct the path"));
}

impl CheckKind {
    fn with_path(self, path: &str) -> Self {
        match self {
            Self::Http { status, body, .. } => Self::Http { path: path.into(), status, body },
            other => other,
        }
    }
}

#[tokio::test]
async fn an_endless_answer_is_read_only_so_far() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 1 << 16]).await.is_ok() {}
    });
    let answer = http::request(address, Method::GET, "/", None).await.unwrap();
    assert_eq!(answer.body.len(), http::BODY_BYTES_MAX);
}

#[tokio::test]
async fn one_that_accepts_and_says_nothing_has_failed() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    assert!(matches!(once(&spec(address, http(vec![], None))).await, Err(Failure::Silent(_))));
    assert!(once(&spec(address, CheckKind::Tcp)).await.is_ok());
    let (refusing, _kept) = refusing();
    assert!(matches!(once(&spec(refusing, CheckKind::Tcp)).await, Err(Failure::Refused)));
    assert!(matches!(once(&spec(refusing, http(vec![], None))).await, Err(Failure::Refused)));
}

#[tokio::test]
async fn a_command_is_judged_by_its_exit_and_its_time() {
    let (nowhere, _kept) = refusing();
    let run = async |argv: &[&str]| once(&spec(nowhere, CheckKind::Command(argv.iter().map(|word| (*word).to_owned()).collect()))).await;
    assert!(run(&["true"]).await.is_ok());
    assert!(matches!(run(&["false"]).await, Err(Failure::Command(HookError::Failed { code: 1, .. }))));
    assert!(matches!(run(&["sleep", "100"]).await, Err(Failure::Command(HookError::Overran { .. }) | Failure::Silent(_))));
    assert!(matches!(run(&["no-such-program"]).await, Err(Failure::Command(HookError::Start { .. }))));
}

#[tokio::test]
async fn the_verdict_follows_the_member() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut probe = spawn(spec(address, CheckKind::Tcp), Control::default());
    let verdict = async |probe: &mut Probe| timeout(PATIENCE, probe.changed()).await.expect("a verdict");
    assert_eq!(verdict(&mut probe).await, Verdict::Ready);
    drop(listener);
    assert_eq!(verdict(&mut probe).await, Verdict::Unready("connection refused".into()));
    let _again = std::net::TcpListener::bind(address).unwrap();
    assert_eq!(verdict(&mut probe).await, Verdict::Ready);
}

#[tokio::test]
async fn a_suspicion_probes_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut slow = spec(listener.local_addr().unwrap(), CheckKind::Tcp);
    // Without the suspicion nothing would be asked before this test has failed.
    slow.check.every = PATIENCE * 100;
    // On this machine two refusals settle it, whatever the counts.
    slow.check.fall = u32::MAX;
    let control = Control::default();
    let mut probe = spawn(slow, control.clone());
    assert_eq!(timeout(PATIENCE, probe.changed()).await.expect("a verdict"), Verdict::Ready);
    drop(listener);
    let suspecting = async {
        // Again, for a program that another test is starting may hold a copy of the listener for a moment.
        loop {
            control.probe_now();
            if let Ok(verdict) = timeout(Duration::from_millis(50), probe.changed()).await {
                return verdict;
            }
        }
    };
    assert!(matches!(timeout(PATIENCE, suspecting).await.expect("a verdict"), Verdict::Unready(_)));
}

/// The thread that probes is kept from running while an answer is due: that speaks against this process, not against the member.
#[tokio::test]
async fn who_was_not_there_to_hear_the_answer_asks_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut spec = spec(listener.local_addr().unwrap(), http(vec![], None));
    spec.check.fall = 1;
    let limit = spec.check.timeout;
    let asked = Arc::new(AtomicU8::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut unanswered = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            if count.fetch_add(1, Ordering::SeqCst) == 1 {
                let stalled = clock::now();
                while clock::now().since(stalled) < limit * 2 {
                    std::hint::spin_loop();
                }
                unanswered.push(stream);
            } else {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
        }
    });
    let mut probe = spawn(spec, Control::default());
    assert_eq!(timeout(PATIENCE, probe.changed()).await.expect("a verdict"), Verdict::Ready);
    let asked_again = async {
        while asked.load(Ordering::SeqCst) < 5 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        verdict = probe.changed() => panic!("{verdict:?}"),
        asked = timeout(PATIENCE, asked_again) => asked.expect("it goes on asking"),
    }
}
