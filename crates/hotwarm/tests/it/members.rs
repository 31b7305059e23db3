//! What the tests of engines and guards share: a group in a directory of its own, and waiting for conditions.
//!
//! Nothing here waits for a time: every wait is for a condition, with a bound that only a failure reaches.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hotwarm::config::*;
use hotwarm::engine::failures::Failures;
use hotwarm::engine::logs::Outputs;
use hotwarm::engine::{self, Handle, Lives, Place, SpawnSpec};
use hotwarm::fence::guard::frame::{ToGuard, encode};
use hotwarm::fence::guard::{SOCKET_FILE, short_path};
use hotwarm_core::action::{EngineAction, MemberEvent, StopCause};
use hotwarm_core::ids::{GroupName, Incarnation, MemberId, NodeId};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

pub(crate) const HOTWARM: &str = env!("CARGO_BIN_EXE_hotwarm");
/// Reached only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

pub(crate) fn shell(script: &str) -> Vec<String> {
    vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()]
}

/// An address on which nobody listens, from below the ports that the kernel gives to clients: one of those might be taken by a probe's
/// own connection before the member listens.
pub(crate) fn free_address() -> SocketAddr {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(61).wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let address = SocketAddr::from(([127, 0, 0, 1], 10_000 + u16::try_from(number).unwrap()));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

pub(crate) fn process(argv: Vec<String>) -> Process {
    Process {
        argv,
        user: None,
        directory: None,
        env: BTreeMap::new(),
        on_role_change: RoleChange::Gate,
        grace: Duration::from_secs(5),
        start_timeout: PATIENCE,
        limits: Limits::default(),
        restart: Restart { delay: Duration::ZERO, delay_max: Duration::ZERO },
    }
}

pub(crate) fn component(kind: &str) -> Process {
    process(vec![HOTWARM.to_owned(), "component".to_owned(), kind.to_owned()])
}

pub(crate) fn hooks() -> Hooks {
    Hooks { start: None, stop: None, promote: None, demote: None, fence: None, position: None, user: None, timeout: PATIENCE * 100 }
}

/// A directory, an address and a configuration for one member `web/a`.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) group: Group,
    pub(crate) prefix: u32,
}

impl Site {
    pub(crate) fn new(engine: Engine) -> Self {
        let http = CheckKind::Http { path: "/healthz".into(), status: vec![200], body: None };
        let check = Check { kind: http, every: Duration::from_millis(200), timeout: Duration::from_millis(500), fall: 2, rise: 1 };
        let address = free_address();
        let group = Group {
            name: GroupName::new("web"),
            mode: Mode { hot: 1, warm: 1, spare: 0, exclusive: true },
            listen: BTreeMap::new(),
            protocol: Protocol::Http,
            engine,
            members: BTreeMap::new(),
            check,
            balance: Balance::LeastLoaded,
            park: Park { time: Duration::from_secs(1), requests: 1, bytes: 1 },
            http: HttpLimits { head_bytes: 1, headers: 1, connections: 1 },
            repeat: Vec::new(),
            timeouts: Timeouts { connect: PATIENCE, first_byte: PATIENCE, idle: PATIENCE },
            fence: Fence::Supervisor,
            objective: Objective::default(),
            drain: Duration::from_secs(1),
            stateful: true,
            failovers_per_hour: 10,
        };
        // As a data directory has one of its own: by it the processes of this site are told from others'.
        let prefix = std::process::id() << 15 | u32::from(address.port());
        Self { dir: tempfile::tempdir().unwrap(), address, group, prefix }
    }

    /// The incarnation that the member's first life has.
    pub(crate) fn first(&self) -> Incarnation {
        Incarnation((u64::from(self.prefix) << 32) | 1)
    }

    pub(crate) fn member(&self) -> MemberId {
        MemberId::new("web/a")
    }

    pub(crate) fn place(&self) -> Place {
        Place::of(self.dir.path(), &self.member())
    }

    /// A file in the site's directory, for programs to leave marks in.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new agent's engine task for the member.
    pub(crate) fn agent(&self) -> Agent {
        let (events, heard) = mpsc::channel(64);
        Agent { handle: engine::spawn(self.spec(), events), heard }
    }

    /// The member as an agent leaves it that starts it and goes: its life, and its program.
    pub(crate) async fn left_running(&self) -> (Incarnation, Pid) {
        let mut agent = self.agent();
        (agent.start().await, agent.pid())
    }

    /// The same agent's next task for the member, as when the group's configuration changes.
    pub(crate) fn agent_after(&self, before: Agent) -> Agent {
        let (events, heard) = mpsc::channel(64);
        Agent { handle: engine::spawn_after(self.spec(), events, before.handle), heard }
    }

    fn spec(&self) -> SpawnSpec {
        let config = Member { node: NodeId::new("n1"), address: self.address, priority: 0, weight: 100 };
        SpawnSpec {
            member: self.member(),
            group: Arc::new(self.group.clone()),
            config,
            data: self.dir.path().to_path_buf(),
            exe: PathBuf::from(HOTWARM),
            lives: Lives { prefix: self.prefix, known: Incarnation(0) },
            failures: Failures::default(),
            outputs: Outputs::default(),
        }
    }
}

impl Drop for Site {
    /// A test that failed leaves nothing running.
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok((_directory, path)) = short_path(&self.place().dir, SOCKET_FILE)
            && let Ok(mut guard) = UnixStream::connect(path)
        {
            let _ = guard.write_all(&encode(&ToGuard::Stop { grace_ms: 0 }));
        }
    }
}

/// The test in the place of an agent: it gives orders and hears events.
pub(crate) struct Agent {
    pub(crate) handle: Handle,
    heard: mpsc::Receiver<(MemberId, MemberEvent)>,
}

impl Agent {
    pub(crate) async fn tell(&self, action: EngineAction) {
        timeout(PATIENCE, self.handle.actions.send(action)).await.expect("a task that takes actions").unwrap();
    }

    pub(crate) async fn hear(&mut self) -> MemberEvent {
        timeout(PATIENCE, self.heard.recv()).await.expect("an event").expect("a task that lives").1
    }

    /// The next event that is not a verdict of the probe.
    pub(crate) async fn hear_fact(&mut self) -> MemberEvent {
        loop {
            match self.hear().await {
                MemberEvent::Ready { .. } | MemberEvent::Unready { .. } => {}
                event => return event,
            }
        }
    }

    /// Everything heard until `wanted` is, and it.
    pub(crate) async fn hear_until(&mut self, wanted: impl Fn(&MemberEvent) -> bool) -> Vec<MemberEvent> {
        let mut all = Vec::new();
        loop {
            let event = self.hear().await;
            let found = wanted(&event);
            all.push(event);
            if found {
                return all;
            }
        }
    }

    pub(crate) async fn hear_stopped(&mut self) -> (Incarnation, StopCause) {
        match self.hear_until(|event| matches!(event, MemberEvent::Stopped { .. })).await.pop() {
            Some(MemberEvent::Stopped { incarnation, cause }) => (incarnation, cause),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn hear_ready(&mut self) -> Incarnation {
        self.hear_until(|event| matches!(event, MemberEvent::Ready { .. })).await.pop().unwrap().incarnation()
    }

    /// Hears that nothing runs, starts it, and waits until it answers.
    pub(crate) async fn start(&mut self) -> Incarnation {
        self.hear_stopped().await;
        self.tell(EngineAction::Start { epoch: hotwarm_core::ids::Epoch(1) }).await;
        self.hear_ready().await
    }

    /// The member's program, as the engine knows it.
    pub(crate) fn pid(&self) -> Pid {
        let pid = self.handle.view.borrow().pid.expect("a member that runs");
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
    }

    pub(crate) async fn end(mut self) {
        self.tell(EngineAction::Stop { graceful: false }).await;
        self.hear_stopped().await;
    }
}

pub(crate) fn is_alive(pid: Pid) -> bool {
    let zombie = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')));
    test_kill_process(pid).is_ok() && !zombie
}

pub(crate) fn signal(pid: Pid, signal: Signal) {
    kill_process(pid, signal).unwrap();
}

/// The parent of a process: the guard, for a member's program.
pub(crate) fn parent(pid: Pid) -> Pid {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    let parent = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap();
    Pid::from_raw(parent).unwrap()
}

/// Waits until `condition` holds.
pub(crate) async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The number that a program has written to a file.
pub(crate) async fn pid_in(path: &Path) -> Pid {
    let read = || std::fs::read_to_string(path).ok().filter(|text| text.ends_with('\n')).and_then(|text| text.trim().parse().ok());
    wait_for(&format!("a pid in {}", path.display()), || read().is_some()).await;
    Pid::from_raw(read().unwrap()).unwrap()
}
