//! The guard by itself, spoken to as an agent does.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use hotwarm::fence::guard::frame::{FromGuard, Inbox, Spec, State, Status, ToGuard, encode};
use hotwarm::fence::guard::{SOCKET_FILE, short_path};
use hotwarm_core::action::StopCause;
use hotwarm_core::ids::{Epoch, Incarnation, Role};
use rustix::process::{Pid, Signal};
use serde::Serialize;

use crate::members::*;

struct Line {
    stream: UnixStream,
    inbox: Inbox,
}

impl Line {
    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, inbox: Inbox::default() }
    }

    fn meet(dir: &Path) -> Self {
        let (_directory, path) = short_path(dir, SOCKET_FILE).unwrap();
        Self::new(UnixStream::connect(path).unwrap())
    }

    fn say(&mut self, message: &impl Serialize) {
        self.stream.write_all(&encode(message)).unwrap();
    }

    /// The next message; `None` when the guard has hung up.
    fn hear(&mut self) -> Option<FromGuard> {
        loop {
            if let Some(message) = self.inbox.take().unwrap() {
                return Some(message);
            }
            let mut chunk = [0; 512];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(read) => self.inbox.push(&chunk[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn status(&mut self) -> Status {
        loop {
            if let FromGuard::Status(status) = self.hear().expect("a guard that lives") {
                return status;
            }
        }
    }

    fn gone(&mut self) -> StopCause {
        loop {
            if let State::Gone(cause) = self.status().state {
                return cause;
            }
        }
    }
}

fn spec(dir: &Path, script: &str) -> Spec {
    Spec {
        member: "web/a".into(),
        incarnation: Incarnation(1),
        role: Role::Warm,
        epoch: Epoch(1),
        deadline: None,
        argv: shell(script),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        directory: None,
        user: None,
        open_files: None,
        memory_bytes: None,
        processes: None,
        grace_ms: 5000,
        run_dir: dir.to_path_buf(),
    }
}

fn guard() -> (Child, Line) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (guard_at(theirs), Line::new(ours))
}

/// A guard that hears its agent there.
fn guard_at(line: UnixStream) -> Child {
    let mut command = Command::new(HOTWARM);
    command.arg("guard").stdin(Stdio::from(OwnedFd::from(line))).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Waits until the guard has ended; one that does not is killed, and its member with it.
fn ended(mut guard: Child, else_what: &str) -> ExitStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = guard.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > until {
            guard.kill().unwrap();
            panic!("{else_what}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn start(spec: Spec) -> (Child, Line, Pid) {
    let (guard, mut line) = guard();
    line.say(&ToGuard::Spec(Box::new(spec)));
    let status = line.status();
    assert_eq!(status.state, State::Running);
    (guard, line, Pid::from_raw(i32::try_from(status.pid).unwrap()).unwrap())
}

fn end(mut guard: Child, mut line: Line) {
    line.say(&ToGuard::Stop { grace_ms: 0 });
    assert_eq!(line.gone(), StopCause::Asked);
    line.say(&ToGuard::Acknowledge);
    assert!(guard.wait().unwrap().success());
}

#[test]
fn garbage_on_the_socket_costs_the_connection_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (guard, _line, pid) = start(spec(dir.path(), "exec sleep 1000"));
    assert_eq!(dir.path().join(SOCKET_FILE).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut rng = hotwarm_core::rng::Rng::new(3);
    for round in 0..50 {
        let mut line = Line::meet(dir.path());
        line.status();
        let garbage: Vec<u8> = match round {
            0 => vec![255; 64],
            1 => encode(&ToGuard::Spec(Box::new(spec(dir.path(), "exit 0")))),
            _ => (0..64).map(|_| u8::try_from(rng.below(256)).unwrap()).collect(),
        };
        line.stream.write_all(&garbage).unwrap();
        // Half a head may look like the beginning of something: say that nothing follows.
        let _ = line.stream.shutdown(std::net::Shutdown::Write);
        while line.hear().is_some() {}
    }
    assert!(is_alive(pid));
    let mut line = Line::meet(dir.path());
    assert_eq!(line.status().state, State::Running);
    end(guard, line);
}

#[test]
fn what_is_not_a_description_is_refused() {
    let (mut guard, mut line) = guard();
    line.say(&ToGuard::Acknowledge);
    assert_eq!(guard.wait().unwrap().code(), Some(2));
    let status = Command::new(HOTWARM).arg("guard").stdin(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn a_new_agent_replaces_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let (guard, mut old, pid) = start(spec(dir.path(), "exec sleep 1000"));
    old.say(&ToGuard::Role { role: Role::Hot, epoch: Epoch(4), signal: None });
    assert_eq!(old.hear(), Some(FromGuard::Told { role: Role::Hot, epoch: Epoch(4), error: None }));
    let mut new = Line::meet(dir.path());
    assert_eq!(old.hear(), None);
    let status = new.status();
    assert_eq!((status.role, status.epoch, status.epoch_started), (Role::Hot, Epoch(4), Epoch(1)));
    assert_eq!(status.pid, u32::try_from(pid.as_raw_nonzero().get()).unwrap());
    new.say(&ToGuard::Role { role: Role::Warm, epoch: Epoch(3), signal: None });
    assert!(matches!(new.hear(), Some(FromGuard::Told { error: Some(why), .. }) if why.contains("older than 4")));
    end(guard, new);
}

#[test]
fn one_member_has_one_guard() {
    let dir = tempfile::tempdir().unwrap();
    let (first, line, pid) = start(spec(dir.path(), "exec sleep 1000"));
    let (mut second, mut other) = guard();
    other.say(&ToGuard::Spec(Box::new(spec(dir.path(), "exec sleep 1000"))));
    assert!(matches!(other.gone(), StopCause::NotStarted(why) if why.contains("another guard")));
    second.wait().unwrap();
    assert!(is_alive(pid));
    end(first, line);
}

/// An agent that hears of the end hangs up at once, while an order of its own may still be on the way: the guard's answer to that finds
/// nobody, and the acknowledgement behind it counts all the same.
#[test]
fn an_acknowledgement_is_heard_from_an_agent_that_has_hung_up() {
    let dir = tempfile::tempdir().unwrap();
    let (guard, mut line, pid) = start(spec(dir.path(), "exec sleep 1000"));
    let guard_pid = Pid::from_child(&guard);
    signal(guard_pid, Signal::STOP);
    signal(pid, Signal::KILL);
    let until = Instant::now() + PATIENCE;
    while is_alive(pid) {
        assert!(Instant::now() < until, "killed");
        std::thread::yield_now();
    }
    line.say(&ToGuard::Stop { grace_ms: 0 });
    line.say(&ToGuard::Acknowledge);
    drop(line);
    signal(guard_pid, Signal::CONT);
    ended(guard, "it still waits for an agent to hear of the end");
}

/// An agent that came before this guard had the lock took it that nobody is being born, and may start the member itself.
#[test]
fn a_guard_whose_agent_is_gone_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let started = dir.path().join("started");
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut line = Line::new(ours);
    line.say(&ToGuard::Spec(Box::new(spec(dir.path(), &format!("echo > {}; exec sleep 1000", started.display())))));
    drop(line);
    assert!(!ended(guard_at(theirs), "it guards a member of which no agent knows").success());
    assert!(!started.exists());
}

#[test]
fn grace_is_given_and_then_ended() {
    let dir = tempfile::tempdir().unwrap();
    let heard = dir.path().join("heard");
    let deaf = format!("trap 'echo term >> {}' TERM; echo up >> {0}; while :; do sleep 0.01; done", heard.display());
    let (mut guard, mut line, pid) = start(spec(dir.path(), &deaf));
    while !std::fs::read_to_string(&heard).is_ok_and(|text| text.contains("up")) {
        std::thread::yield_now();
    }
    line.say(&ToGuard::Stop { grace_ms: 300 });
    assert_eq!(line.gone(), StopCause::Asked);
    assert!(!is_alive(pid));
    assert_eq!(std::fs::read_to_string(&heard).unwrap(), "up\nterm\n");
    line.say(&ToGuard::Acknowledge);
    assert!(guard.wait().unwrap().success());
}

#[test]
fn a_guard_told_to_end_by_the_system_ends_its_member_and_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (mut guard, _line, pid) = start(spec(dir.path(), "exec sleep 1000"));
    signal(Pid::from_child(&guard), Signal::TERM);
    assert!(guard.wait().unwrap().success());
    assert!(!is_alive(pid));
}

#[test]
fn a_killed_guard_takes_its_program_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut guard, _line, pid) = start(spec(dir.path(), "exec sleep 1000"));
    guard.kill().unwrap();
    guard.wait().unwrap();
    let until = Instant::now() + PATIENCE;
    while is_alive(pid) {
        assert!(Instant::now() < until, "it outlives its guard");
        std::thread::yield_now();
    }
}

#[test]
fn the_program_starts_clean() {
    let dir = tempfile::tempdir().unwrap();
    let seen = dir.path().join("seen");
    let mut spec = spec(
        dir.path(),
        &format!(
            "exec >{}; ls /proc/self/fd | wc -l; env; pwd; grep -E 'Sig(Blk|Ign)' /proc/self/status; ulimit -n; cat /proc/self/limits; \
             cat /proc/self/oom_score_adj",
            seen.display()
        ),
    );
    (spec.open_files, spec.memory_bytes, spec.processes) = (Some(99), Some(77 << 20), Some(4321));
    spec.directory = Some("/usr/share".into());
    spec.env.push(("COLOUR".into(), "red".into()));
    // Something to leak, if anything does.
    let _open = std::fs::File::open("/dev/null").unwrap();
    let (mut guard, mut line) = guard();
    line.say(&ToGuard::Spec(Box::new(spec)));
    assert_eq!(line.gone(), StopCause::Exit(0));
    line.say(&ToGuard::Acknowledge);
    guard.wait().unwrap();
    let seen = std::fs::read_to_string(&seen).unwrap();
    // Standard input, output and error, and the directory that `ls` reads.
    assert!(seen.starts_with("4\n"), "{seen}");
    assert!(seen.contains("COLOUR=red") && seen.contains("\n99\n") && seen.contains("\n/usr/share\n"), "{seen}");
    // Soft and hard.
    for (limit, number) in [("Max open files", "99"), ("Max data size", "80740352"), ("Max processes", "4321")] {
        let line = seen.lines().find_map(|line| line.strip_prefix(limit)).unwrap_or_else(|| panic!("{limit}: {seen}"));
        assert_eq!(line.split_whitespace().take(2).collect::<Vec<_>>(), [number, number], "{limit}");
    }
    assert!(seen.contains("SigBlk:\t0000000000000000"), "{seen}");
    // Of the ignored ones the highest belong to the C library.
    let ignored = seen.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 0x7fff_ffff, 0);
    assert!(!seen.contains("CARGO"), "{seen}");
    assert!(!seen.ends_with("-1000\n"), "{seen}");
}
