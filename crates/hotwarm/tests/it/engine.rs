//! The engines against real programs: what an agent hears, and what is left of a member when it hears it.

use std::path::Path;
use std::time::Duration;

use hotwarm::clock;
use hotwarm::config::{CheckKind, Engine, RoleChange};
use hotwarm_core::action::{EngineAction, MemberEvent, StopCause};
use hotwarm_core::ids::{Attempt, Epoch, Incarnation, Role};
use rustix::process::Signal;

use crate::members::*;

fn promote(epoch: u64) -> EngineAction {
    EngineAction::Promote { epoch: Epoch(epoch), attempt: Attempt(1) }
}

#[tokio::test]
async fn starts_answers_changes_role_and_stops() {
    let site = Site::new(Engine::Process(component("web")));
    let first = site.first();
    let mut agent = site.agent();
    assert_eq!(agent.hear().await, MemberEvent::Stopped { incarnation: Incarnation(0), cause: StopCause::Absent });
    agent.tell(EngineAction::Start { epoch: Epoch(1) }).await;
    let started = MemberEvent::Started { incarnation: first, role: Role::Warm, epoch: Epoch(1) };
    assert_eq!(agent.hear().await, started);
    assert_eq!(agent.hear().await, MemberEvent::Ready { incarnation: first });
    // Told twice, confirmed twice.
    agent.tell(EngineAction::Start { epoch: Epoch(1) }).await;
    assert_eq!(agent.hear().await, started);
    assert_eq!(agent.hear().await, MemberEvent::Ready { incarnation: first });

    let changed = MemberEvent::RoleChanged { incarnation: first, role: Role::Hot, epoch: Epoch(2) };
    for _ in 0..2 {
        agent.tell(promote(2)).await;
        assert_eq!(agent.hear_fact().await, changed);
    }
    agent.tell(EngineAction::Demote { epoch: Epoch(1) }).await;
    let refused = agent.hear_fact().await;
    assert!(matches!(&refused, MemberEvent::RoleFailed { why, .. } if why.contains("older than 2")), "{refused:?}");

    let pid = agent.pid();
    for _ in 0..2 {
        agent.tell(EngineAction::Stop { graceful: true }).await;
        assert_eq!(agent.hear_stopped().await, (first, StopCause::Asked));
    }
    assert!(!is_alive(pid));
    agent.tell(EngineAction::Start { epoch: Epoch(2) }).await;
    assert_eq!(agent.hear_fact().await.incarnation(), first.next());
    agent.end().await;
}

#[tokio::test]
async fn the_end_of_a_program_is_told_with_its_cause() {
    for (sig, number) in [(Signal::USR1, 10), (Signal::KILL, 9)] {
        let site = Site::new(Engine::Process(component("web")));
        let mut agent = site.agent();
        let incarnation = agent.start().await;
        signal(agent.pid(), sig);
        assert_eq!(agent.hear_stopped().await, (incarnation, StopCause::Signal(number)));
    }
}

#[tokio::test]
async fn a_program_that_ends_before_it_answers_did_not_start_and_its_last_line_is_told() {
    for (script, why) in [
        (
            "echo one; echo bind: address in use >&2; exit 3",
            "exit code 3 before it answered its check; it last printed: bind: address in use",
        ),
        ("kill -USR1 $$", "signal 10 before it answered its check; it printed nothing"),
    ] {
        let site = Site::new(Engine::Process(process(shell(script))));
        let mut agent = site.agent();
        agent.hear_stopped().await;
        agent.tell(EngineAction::Start { epoch: Epoch(1) }).await;
        assert_eq!(agent.hear_stopped().await, (site.first(), StopCause::NotStarted(why.to_owned())));
    }
}

#[tokio::test]
async fn a_member_that_is_ended_because_it_hangs_says_so() {
    let site = Site::new(Engine::Process(component("web")));
    let mut agent = site.agent();
    let incarnation = agent.start().await;
    signal(agent.pid(), Signal::STOP);
    agent.hear_until(|event| matches!(event, MemberEvent::Unready { .. })).await;
    agent.tell(EngineAction::Stop { graceful: false }).await;
    let (ended, cause) = agent.hear_stopped().await;
    assert!(ended == incarnation && matches!(&cause, StopCause::Hung(why) if why.contains("no answer within")), "{cause:?}");
}

#[tokio::test]
async fn what_cannot_start_says_what_to_do() {
    let mut nobody = process(words("/bin/true"));
    nobody.user = Some("nobody-of-this-name".into());
    let mut nowhere = process(words("/bin/true"));
    nowhere.directory = Some("/no/such/directory".into());
    for (process, advice) in [
        (process(words("no-such-program")), "install it or write its full path"),
        (process(words("/no/such/program")), "install it or correct"),
        (process(words("/etc/passwd")), "make it executable"),
        (nobody, "create it or correct `user`"),
        (nowhere, "create it or correct `directory`"),
    ] {
        let site = Site::new(Engine::Process(process));
        let mut agent = site.agent();
        agent.hear_stopped().await;
        agent.tell(EngineAction::Start { epoch: Epoch(1) }).await;
        let (_, cause) = agent.hear_stopped().await;
        assert!(matches!(&cause, StopCause::NotStarted(why) if why.contains(advice)), "{cause:?}");
    }
}

#[tokio::test]
async fn a_new_agent_adopts_a_member_that_never_stopped_serving() {
    let site = Site::new(Engine::Process(component("clock")));
    let mut first = site.agent();
    let incarnation = first.start().await;
    first.tell(promote(3)).await;
    first.hear_fact().await;
    let pid = first.pid();
    drop(first);

    let mut second = site.agent();
    assert_eq!(second.hear().await, MemberEvent::Started { incarnation, role: Role::Hot, epoch: Epoch(3) });
    assert_eq!(second.hear_ready().await, incarnation);
    assert_eq!(second.pid(), pid);
    // The adopted member's epoch still binds.
    second.tell(promote(2)).await;
    assert!(matches!(second.hear_fact().await, MemberEvent::RoleFailed { .. }));
    second.end().await;
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn an_end_while_no_agent_was_there_is_told_to_the_next() {
    let site = Site::new(Engine::Process(component("web")));
    let (incarnation, pid) = site.left_running().await;
    signal(pid, Signal::KILL);
    wait_for("the member's end", || !is_alive(pid)).await;
    let mut second = site.agent();
    assert_eq!(second.hear_stopped().await, (incarnation, StopCause::Signal(9)));
}

/// A script that starts `sleep` as a daemon: in a session of its own, forked twice, deaf to SIGTERM; it then waits until the daemon has
/// written its pid to `mark`.
fn daemonise(mark: &Path) -> String {
    let daemon = format!("trap \"\" TERM; echo \\$\\$ > {}; exec sleep 1000", mark.display());
    format!("setsid sh -c 'sh -c \"{}\" &' & while ! test -s {}; do sleep 0.01; done", daemon.replace('"', "\\\""), mark.display())
}

#[tokio::test]
async fn stopped_is_not_said_while_a_daemon_of_it_lives() {
    let mut site = Site::new(Engine::External);
    let mark = site.file("daemon");
    site.group.engine = Engine::Process(process(shell(&format!("{}; exit 3", daemonise(&mark)))));
    let mut agent = site.agent();
    agent.hear_stopped().await;
    agent.tell(EngineAction::Start { epoch: Epoch(1) }).await;
    let (_, cause) = agent.hear_stopped().await;
    assert!(matches!(&cause, StopCause::NotStarted(why) if why.starts_with("exit code 3 ")), "{cause:?}");
    assert!(!is_alive(pid_in(&mark).await));
    assert_eq!(marked(&site), 0);
}

/// Processes whose environment names the site's directory or member life.
fn marked(site: &Site) -> usize {
    let incarnation = std::fs::read_to_string(site.place().dir.join("incarnation")).unwrap();
    let mark = format!("HOTWARM_INCARNATION={}", incarnation.trim());
    let dir = format!("HOTWARM_LISTEN={}", site.address);
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let environments = processes.filter_map(|process| std::fs::read(process.path().join("environ")).ok());
    let has = |environment: &[u8], mark: &str| environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
    environments.filter(|environment| has(environment, &mark) && has(environment, &dir)).count()
}

#[tokio::test]
async fn the_whole_tree_dies_at_the_deadline_while_the_agent_is_frozen() {
    let mut site = Site::new(Engine::External);
    let mark = site.file("daemon");
    let script = format!("{}; exec {HOTWARM} component web", daemonise(&mark));
    site.group.engine = Engine::Process(process(shell(&script)));
    let mut agent = site.agent();
    agent.start().await;
    let (pid, daemon) = (agent.pid(), pid_in(&mark).await);
    let deadline = clock::now().plus(Duration::from_millis(200));
    agent.tell(EngineAction::Deadline { until: Some(deadline) }).await;
    agent.tell(promote(1)).await;
    agent.hear_fact().await;
    // No agent runs from here on: this test's only thread does not return to the runtime.
    let until = std::time::Instant::now() + PATIENCE;
    while is_alive(pid) || is_alive(daemon) || marked(&site) > 0 {
        assert!(std::time::Instant::now() < until, "alive after its deadline");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(clock::now() >= deadline);
    assert_eq!(agent.hear_stopped().await.1, StopCause::Deadline);
}

#[tokio::test]
async fn a_deadline_is_fed_past_a_hook_that_hangs() {
    let mut component = component("web");
    component.on_role_change = RoleChange::Command(words("sleep 1000"));
    let site = Site::new(Engine::Process(component));
    let mut agent = site.agent();
    agent.start().await;
    agent.tell(promote(2)).await;
    wait_for("the guard to know the new role", || agent.handle.view.borrow().role == Role::Hot).await;
    // Soon; then renewed, again and again, past the first; then let go.
    let first = clock::now().plus(Duration::from_millis(400));
    while clock::now() < first.plus(Duration::from_millis(400)) {
        agent.tell(EngineAction::Deadline { until: Some(clock::now().plus(Duration::from_millis(400))) }).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(is_alive(agent.pid()), "renewed in time");
    let events = agent.hear_until(|event| matches!(event, MemberEvent::Stopped { .. })).await;
    assert!(matches!(events.last(), Some(MemberEvent::Stopped { cause: StopCause::Deadline, .. })), "{events:?}");
    assert!(events.iter().any(|event| matches!(event, MemberEvent::RoleFailed { .. })), "{events:?}");
}

#[tokio::test]
async fn a_guard_that_was_frozen_past_its_deadline_makes_room_for_the_next_life() {
    let site = Site::new(Engine::Process(component("web")));
    let mut agent = site.agent();
    let first = agent.start().await;
    let guard = parent(agent.pid());
    agent.tell(promote(1)).await;
    agent.hear_fact().await;
    let soon = || EngineAction::Deadline { until: Some(clock::now().plus(Duration::from_millis(200))) };
    agent.tell(soon()).await;
    signal(guard, Signal::STOP);
    let thaw = clock::now().plus(Duration::from_millis(400));
    while clock::now() < thaw {
        agent.tell(soon()).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    signal(guard, Signal::CONT);
    assert_eq!(agent.hear_stopped().await, (first, StopCause::Deadline));
    agent.tell(EngineAction::Start { epoch: Epoch(2) }).await;
    assert!(matches!(agent.hear_fact().await, MemberEvent::Started { .. }), "the old guard is in the way");
    agent.end().await;
}

#[tokio::test]
async fn a_promote_hook_that_overruns_is_killed_with_its_group_and_fails_the_promotion() {
    let mut component = component("web");
    component.start_timeout = Duration::from_secs(1);
    let mut site = Site::new(Engine::Process(component.clone()));
    let mark = site.file("hook");
    component.on_role_change = RoleChange::Command(shell(&format!("sleep 1000 & echo $! > {}; wait", mark.display())));
    site.group.engine = Engine::Process(component);
    let mut agent = site.agent();
    agent.start().await;
    agent.tell(promote(2)).await;
    let failed = agent.hear_fact().await;
    assert!(matches!(&failed, MemberEvent::RoleFailed { role: Role::Hot, epoch: Epoch(2), .. }), "{failed:?}");
    let child = pid_in(&mark).await;
    wait_for("the hook's child to die", || !is_alive(child)).await;
    agent.end().await;
}

#[tokio::test]
async fn a_role_change_by_command_signal_and_restart() {
    let mut component = component("clock");
    let mut site = Site::new(Engine::Process(component.clone()));
    let mark = site.file("told");
    component.on_role_change = RoleChange::Command(shell(&format!("echo $HOTWARM_ROLE $HOTWARM_EPOCH >> {}", mark.display())));
    site.group.engine = Engine::Process(component.clone());
    let mut agent = site.agent();
    agent.start().await;
    agent.tell(promote(2)).await;
    agent.tell(EngineAction::Demote { epoch: Epoch(3) }).await;
    assert!(matches!(agent.hear_fact().await, MemberEvent::RoleChanged { role: Role::Hot, epoch: Epoch(2), .. }));
    assert!(matches!(agent.hear_fact().await, MemberEvent::RoleChanged { role: Role::Warm, epoch: Epoch(3), .. }));
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "hot 2\nwarm 3\n");
    agent.end().await;

    component.on_role_change = RoleChange::Signal(10);
    site.group.engine = Engine::Process(component.clone());
    let mut agent = site.agent();
    agent.start().await;
    agent.tell(promote(4)).await;
    assert!(matches!(agent.hear_fact().await, MemberEvent::RoleChanged { role: Role::Hot, epoch: Epoch(4), .. }));
    // This program does not handle it: that it was ended by it shows that it got it.
    assert_eq!(agent.hear_stopped().await.1, StopCause::Signal(10));

    component.on_role_change = RoleChange::Restart;
    site.group.engine = Engine::Process(component);
    agent = site.agent();
    let before = agent.start().await;
    agent.tell(promote(5)).await;
    assert_eq!(agent.hear_fact().await, MemberEvent::Stopped { incarnation: before, cause: StopCause::Renewed { role: Role::Hot } });
    let after = before.next();
    assert_eq!(agent.hear_fact().await, MemberEvent::Started { incarnation: after, role: Role::Hot, epoch: Epoch(5) });
    assert_eq!(agent.hear_fact().await, MemberEvent::RoleChanged { incarnation: after, role: Role::Hot, epoch: Epoch(5) });
    agent.end().await;
}

#[tokio::test]
async fn a_fence_ends_what_served_before_and_spares_what_began_after() {
    let site = Site::new(Engine::Process(component("web")));
    let mut agent = site.agent();
    let first = agent.start().await;
    signal(agent.pid(), Signal::STOP);
    agent.tell(EngineAction::Fence { epoch: Epoch(5) }).await;
    assert_eq!(agent.hear_stopped().await, (first, StopCause::Asked));
    agent.tell(EngineAction::Start { epoch: Epoch(5) }).await;
    let second = agent.hear_ready().await;
    agent.tell(EngineAction::Fence { epoch: Epoch(5) }).await;
    assert_eq!(agent.hear_fact().await, MemberEvent::Fenced { incarnation: second, epoch: Epoch(5) });
    agent.end().await;
}

#[tokio::test]
async fn a_frozen_member_is_unready_and_a_thawed_one_ready_again() {
    let site = Site::new(Engine::Process(component("web")));
    let mut agent = site.agent();
    let incarnation = agent.start().await;
    signal(agent.pid(), Signal::STOP);
    let unready = agent.hear().await;
    assert!(matches!(&unready, MemberEvent::Unready { why, .. } if why.contains("no answer within")), "{unready:?}");
    signal(agent.pid(), Signal::CONT);
    assert_eq!(agent.hear().await, MemberEvent::Ready { incarnation });
    agent.end().await;
}

#[tokio::test]
async fn when_the_guard_is_killed_nothing_of_the_member_is_left_when_stopped_is_said() {
    let mut site = Site::new(Engine::External);
    let mark = site.file("worker");
    let script = format!("{}; exec {HOTWARM} component web", daemonise(&mark));
    site.group.engine = Engine::Process(process(shell(&script)));
    let mut agent = site.agent();
    let incarnation = agent.start().await;
    let (pid, worker) = (agent.pid(), pid_in(&mark).await);
    signal(parent(pid), Signal::KILL);
    assert_eq!(agent.hear_stopped().await, (incarnation, StopCause::Signal(9)));
    assert!(!is_alive(pid) && !is_alive(worker));
    assert_eq!(marked(&site), 0);
}

#[tokio::test]
async fn output_is_kept_over_restarts() {
    let site = Site::new(Engine::Process(process(shell("echo hello from $HOTWARM_INCARNATION; echo trouble >&2"))));
    let mut agent = site.agent();
    agent.hear_stopped().await;
    for _ in 0..2 {
        agent.tell(EngineAction::Start { epoch: Epoch(1) }).await;
        agent.hear_stopped().await;
    }
    let lines = hotwarm::engine::logs::tail(&site.place(), 10).unwrap();
    assert_eq!(
        lines,
        [format!("hello from {}", site.first()), "trouble".into(), format!("hello from {}", site.first().next()), "trouble".into()]
    );
}

#[tokio::test]
async fn another_user_is_become_whole_or_refused_with_advice() {
    let mut process = process(shell("id -u; id -G; grep -E '^(Uid|Gid):' /proc/self/status"));
    process.user = Some("daemon".into());
    let site = Site::new(Engine::Process(process));
    let mut agent = site.agent();
    agent.hear_stopped().await;
    agent.tell(EngineAction::Start { epoch: Epoch(1) }).await;
    let (_, cause) = agent.hear_stopped().await;
    if rustix::process::geteuid().is_root() {
        assert!(matches!(&cause, StopCause::NotStarted(why) if why.starts_with("exit code 0 ")), "{cause:?}");
        let user = hotwarm::child::sys::User::find("daemon").unwrap();
        let lines = hotwarm::engine::logs::tail(&site.place(), 10).unwrap();
        let groups: Vec<String> = user.groups.iter().map(u32::to_string).collect();
        assert_eq!(lines[..2], [user.uid.to_string(), groups.join(" ")]);
        // Real, effective, saved and of the file system: no way back.
        assert!(lines[2..].iter().all(|line| !line.split_whitespace().any(|id| id == "0")), "{lines:?}");
    } else {
        assert!(matches!(&cause, StopCause::NotStarted(why) if why.contains("run hotwarm as root")), "{cause:?}");
    }
}

/// The directory is emptied under a member that lives: its number is lost, and with it the guard's lock and socket.
#[tokio::test]
async fn nothing_is_started_beside_what_a_wiped_directory_has_forgotten() {
    let site = Site::new(Engine::Process(component("web")));
    let (_, pid) = site.left_running().await;
    std::fs::remove_dir_all(site.place().dir).unwrap();
    let mut second = site.agent();
    assert_eq!(second.hear_stopped().await, (Incarnation(0), StopCause::Absent));
    assert!(!is_alive(pid), "it is said to be absent, and lives");
    second.tell(EngineAction::Start { epoch: Epoch(1) }).await;
    second.hear_ready().await;
    second.end().await;
}

/// An agent that gives its member to a new task, as when its check is changed, in every moment of the guard's birth.
#[tokio::test]
async fn a_member_whose_guard_is_being_born_is_handed_over_whole() {
    let site = Site::new(Engine::Process(component("web")));
    let mut agent = site.agent();
    agent.hear_stopped().await;
    for round in 0..40_u64 {
        agent.tell(EngineAction::Start { epoch: Epoch(round + 1) }).await;
        // As far as the guard's process, in some rounds; then the old task is let go.
        for _ in 0..round * 8 {
            tokio::task::yield_now().await;
        }
        agent = site.agent_after(agent);
        let first = agent.hear_fact().await;
        let incarnation = first.incarnation();
        match first {
            MemberEvent::Started { .. } => {}
            MemberEvent::Stopped { .. } => {
                agent.tell(EngineAction::Start { epoch: Epoch(round + 1) }).await;
                let next = agent.hear_fact().await;
                assert!(matches!(next, MemberEvent::Started { .. }) && next.incarnation() > incarnation, "round {round}: {next:?}");
            }
            other => panic!("round {round}: {other:?}"),
        }
        assert_eq!(agent.hear_ready().await.0 >> 32, u64::from(site.prefix));
        assert_eq!(marked(&site), 1, "round {round}");
        agent.tell(EngineAction::Stop { graceful: false }).await;
        agent.hear_stopped().await;
        assert_eq!(marked(&site), 0, "round {round}");
    }
}

/// People and the agent look at it at any moment: one that only changes hands is not to be missed.
#[tokio::test]
async fn a_member_that_is_handed_over_is_seen_to_run_all_the_while() {
    for engine in [Engine::Process(component("web")), Engine::Command(hooks())] {
        let is_process = matches!(engine, Engine::Process(_));
        let mut site = Site::new(engine);
        if !is_process {
            site.group.check.kind = CheckKind::Command(words("true"));
        }
        let mut agent = site.agent();
        if is_process {
            agent.start().await;
        } else {
            agent.hear_fact().await;
        }
        let known = agent.handle.view.borrow().clone();
        agent = site.agent_after(agent);
        let mut view = agent.handle.view.clone();
        assert_eq!(*view.borrow_and_update(), known);
        // Something to do before it has been found.
        agent.tell(EngineAction::Deadline { until: None }).await;
        loop {
            tokio::select! {
                biased;
                _ = view.changed() => assert!(view.borrow_and_update().running),
                event = agent.hear_fact() => break assert_eq!(event.incarnation(), known.incarnation),
            }
        }
        if is_process {
            agent.end().await;
        }
    }
}

/// A member that was given to another node while no agent was here: whoever comes next ends the old copy.
#[tokio::test]
async fn a_member_that_is_this_nodes_no_more_is_found_and_ended() {
    let site = Site::new(Engine::Process(component("web")));
    let (_, pid) = site.left_running().await;
    let found = hotwarm::engine::stray::find(site.dir.path());
    assert_eq!(found, [site.member()]);
    let _ending = hotwarm::engine::stray::end(site.dir.path(), site.member());
    wait_for("the old copy's end", || !is_alive(pid)).await;
}

/// One that is frozen ends nothing, not even at its deadline; and nobody else here may end its member before it.
#[tokio::test]
async fn a_member_that_is_this_nodes_no_more_is_ended_although_its_guard_is_frozen() {
    let site = Site::new(Engine::Process(component("web")));
    let (_, pid) = site.left_running().await;
    signal(parent(pid), Signal::STOP);
    let _ending = hotwarm::engine::stray::end(site.dir.path(), site.member());
    wait_for("the old copy's end", || !is_alive(pid)).await;
}

/// Whoever hears that it does not answer would end it at once after a while, and with it what is to follow.
#[tokio::test]
async fn a_member_that_takes_its_time_to_end_for_a_restart_is_not_said_to_hang() {
    let mut slow = process(shell(&format!("trap 'sleep 1; exit 0' TERM; {HOTWARM} component web & while :; do wait; done")));
    slow.on_role_change = RoleChange::Restart;
    let site = Site::new(Engine::Process(slow));
    let mut agent = site.agent();
    let before = agent.start().await;
    agent.tell(promote(2)).await;
    assert_eq!(agent.hear().await, MemberEvent::Stopped { incarnation: before, cause: StopCause::Renewed { role: Role::Hot } });
    let changed = MemberEvent::RoleChanged { incarnation: before.next(), role: Role::Hot, epoch: Epoch(2) };
    agent.hear_until(|event| *event == changed).await;
    agent.end().await;
}
