//! The command and external engines against real programs and listeners.

use std::net::SocketAddr;
use std::process::{Child, Command};

use hotwarm::config::{Engine, Fence, Hooks};
use hotwarm_core::action::{EngineAction, MemberEvent, StopCause};
use hotwarm_core::ids::{Attempt, Epoch, Position, Role};
use rustix::process::Signal;

use crate::members::*;

fn promote(epoch: u64) -> EngineAction {
    EngineAction::Promote { epoch: Epoch(epoch), attempt: Attempt(1) }
}

/// Hooks for a member that runs as a daemon of its own, and a file in which they leave their marks.
fn daemon(site: &Site) -> Hooks {
    let (pid, marks) = (site.file("pid"), site.file("marks"));
    let mark = |what: &str| shell(&format!("echo {what} $HOTWARM_ROLE $HOTWARM_EPOCH >> {}", marks.display()));
    let stop = format!("test -e {0} && kill -KILL $(cat {0}) && rm {0}; exit 0", pid.display());
    Hooks {
        start: Some(shell(&format!("{HOTWARM} component web & echo $! > {}", pid.display()))),
        stop: Some(shell(&stop)),
        promote: Some(mark("promote")),
        demote: Some(mark("demote")),
        fence: Some(mark("fence")),
        position: Some(shell("echo 4711")),
        ..hooks()
    }
}

fn site_with(change: impl Fn(&Site, &mut Hooks)) -> Site {
    let mut site = Site::new(Engine::External);
    let mut hooks = daemon(&site);
    change(&site, &mut hooks);
    site.group.engine = Engine::Command(hooks);
    site
}

fn marks(site: &Site) -> String {
    std::fs::read_to_string(site.file("marks")).unwrap_or_default()
}

#[tokio::test]
async fn hooks_start_change_locate_fence_and_stop_a_member() {
    let site = site_with(|_, _| {});
    let mut agent = site.agent();
    let incarnation = agent.start().await;
    assert_eq!(incarnation, site.first());
    let pid = pid_in(&site.file("pid")).await;
    agent.tell(promote(2)).await;
    assert_eq!(agent.hear_fact().await, MemberEvent::RoleChanged { incarnation, role: Role::Hot, epoch: Epoch(2) });
    agent.tell(EngineAction::Detach { epoch: Epoch(2), attempt: Attempt(9) }).await;
    assert_eq!(agent.hear_fact().await, MemberEvent::Position { incarnation, attempt: Attempt(9), position: Position(4711) });
    agent.tell(EngineAction::Fence { epoch: Epoch(3) }).await;
    assert_eq!(agent.hear_fact().await, MemberEvent::Fenced { incarnation, epoch: Epoch(3) });
    agent.tell(EngineAction::Demote { epoch: Epoch(2) }).await;
    assert!(matches!(agent.hear_fact().await, MemberEvent::RoleFailed { why, .. } if why.contains("older than 3")));
    agent.tell(EngineAction::Demote { epoch: Epoch(3) }).await;
    assert_eq!(agent.hear_fact().await, MemberEvent::RoleChanged { incarnation, role: Role::Warm, epoch: Epoch(3) });
    assert_eq!(marks(&site), "promote hot 2\nfence hot 3\ndemote warm 3\n");
    agent.tell(EngineAction::Stop { graceful: true }).await;
    assert_eq!(agent.hear_stopped().await, (incarnation, StopCause::Asked));
    wait_for("the member's end", || !is_alive(pid)).await;
}

#[tokio::test]
async fn a_new_agent_finds_what_hooks_started_and_takes_it_for_what_it_was_told_to_be() {
    let site = site_with(|_, _| {});
    let mut first = site.agent();
    let incarnation = first.start().await;
    first.tell(promote(2)).await;
    first.hear_fact().await;
    drop(first);
    let mut second = site.agent();
    assert_eq!(second.hear().await, MemberEvent::Started { incarnation, role: Role::Hot, epoch: Epoch(2) });
    assert_eq!(second.hear_ready().await, incarnation);
    // Its end is seen by the probe, and is no stop until the stop hook has confirmed it.
    signal(pid_in(&site.file("pid")).await, Signal::KILL);
    assert!(matches!(second.hear().await, MemberEvent::Unready { .. }));
    std::fs::remove_file(site.file("pid")).unwrap();
    second.tell(EngineAction::Stop { graceful: false }).await;
    assert_eq!(second.hear_fact().await, MemberEvent::Stopped { incarnation, cause: StopCause::Asked });
}

#[tokio::test]
async fn a_fence_does_not_wait_for_a_promotion_that_hangs() {
    let site = site_with(|site, hooks| {
        hooks.promote = Some(shell(&format!("sleep 1000 & echo $! > {}; wait", site.file("hanging").display())));
    });
    let mut agent = site.agent();
    let incarnation = agent.start().await;
    agent.tell(promote(2)).await;
    let hanging = pid_in(&site.file("hanging")).await;
    agent.tell(EngineAction::Fence { epoch: Epoch(3) }).await;
    assert!(matches!(agent.hear_fact().await, MemberEvent::RoleFailed { role: Role::Hot, epoch: Epoch(2), .. }));
    assert_eq!(agent.hear_fact().await, MemberEvent::Fenced { incarnation, epoch: Epoch(3) });
    wait_for("the hook's whole group to die", || !is_alive(hanging)).await;
    agent.end().await;
}

#[tokio::test]
async fn hooks_that_fail_are_told_with_the_reason() {
    let site = site_with(|_, hooks| {
        hooks.promote = Some(shell("exit 7"));
        hooks.position = Some(shell("echo far"));
        hooks.fence = Some(shell("exit 8"));
    });
    let mut agent = site.agent();
    agent.start().await;
    for (order, reason) in [
        (promote(1), "promote hook /bin/sh failed with exit code 7"),
        (EngineAction::Detach { epoch: Epoch(1), attempt: Attempt(1) }, "position hook: it does not print one whole number"),
        (EngineAction::Fence { epoch: Epoch(1) }, "fence hook /bin/sh failed with exit code 8"),
    ] {
        agent.tell(order).await;
        let event = agent.hear_fact().await;
        assert!(matches!(&event, MemberEvent::RoleFailed { why, .. } if why.contains(reason)), "{event:?}");
    }
    agent.end().await;

    let site = site_with(|site, hooks| {
        hooks.start = Some(shell("exit 9"));
        hooks.stop = Some(shell(&format!("echo cleared > {}", site.file("cleared").display())));
    });
    let mut agent = site.agent();
    agent.hear_stopped().await;
    agent.tell(EngineAction::Start { epoch: Epoch(1) }).await;
    let (_, cause) = agent.hear_stopped().await;
    assert!(matches!(&cause, StopCause::NotStarted(why) if why.contains("start hook /bin/sh failed with exit code 9")), "{cause:?}");
    assert!(site.file("cleared").exists(), "what a failed start may have left is stopped");
}

/// S5: what a failed start may have left, and no hook could stop, runs as far as is known: as this new life, warm, and not ready. It is
/// neither promoted nor started beside itself.
#[tokio::test]
async fn what_a_failed_start_left_and_cannot_be_stopped_is_neither_ready_nor_started_twice() {
    let site = site_with(|site, hooks| {
        let (may, marks) = (site.file("may").display().to_string(), site.file("marks").display().to_string());
        let start = hooks.start.as_ref().unwrap()[2].clone();
        hooks.start = Some(shell(&format!("echo start >> {marks}; {start}; test -e {may} || exit 9")));
        let stop = hooks.stop.as_ref().unwrap()[2].clone();
        hooks.stop = Some(shell(&format!("test -e {may} || exit 8; {stop}")));
    });
    std::fs::write(site.file("may"), "").unwrap();
    let mut agent = site.agent();
    let first = agent.start().await;
    agent.tell(promote(2)).await;
    agent.hear_fact().await;
    agent.tell(EngineAction::Stop { graceful: true }).await;
    agent.hear_stopped().await;
    std::fs::remove_file(site.file("may")).unwrap();

    agent.tell(EngineAction::Start { epoch: Epoch(3) }).await;
    let incarnation = first.next();
    let started = MemberEvent::Started { incarnation, role: Role::Warm, epoch: Epoch(3) };
    assert_eq!(agent.hear().await, started, "a life of its own, which was told nothing yet");
    let left = pid_in(&site.file("pid")).await;
    let unready = |event: &MemberEvent| {
        let expected = ["start hook /bin/sh failed with exit code 9", "could not be stopped", "stop hook /bin/sh failed with exit code 8"];
        matches!(event, MemberEvent::Unready { why, .. } if expected.iter().all(|part| why.contains(part)))
    };
    let event = agent.hear().await;
    assert!(unready(&event), "{event:?}");
    agent.tell(promote(4)).await;
    let event = agent.hear().await;
    assert!(matches!(&event, MemberEvent::RoleFailed { role: Role::Hot, why, .. } if why.contains("did not start")), "{event:?}");
    agent.tell(EngineAction::Start { epoch: Epoch(4) }).await;
    assert_eq!(agent.hear().await, started);
    let event = agent.hear().await;
    assert!(unready(&event), "it answers its check, and is not the member that was to be started: {event:?}");
    assert_eq!(marks(&site), "start\npromote hot 2\nstart\n");
    assert!(is_alive(left));

    std::fs::write(site.file("may"), "").unwrap();
    agent.tell(EngineAction::Stop { graceful: false }).await;
    assert_eq!(agent.hear().await, MemberEvent::Stopped { incarnation, cause: StopCause::Asked });
    wait_for("its end", || !is_alive(left)).await;
    agent.tell(EngineAction::Start { epoch: Epoch(4) }).await;
    assert_eq!(agent.hear_ready().await, incarnation.next());
    agent.end().await;
}

struct Outside(Child);

impl Outside {
    fn run(address: SocketAddr) -> Self {
        let listen = address.to_string();
        Self(Command::new(HOTWARM).args(["component", "web", "--name", "outside", "--listen", &listen]).spawn().unwrap())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn an_external_member_is_probed_gated_and_never_claimed_to_have_stopped() {
    let mut site = Site::new(Engine::External);
    site.group.fence = Fence::RouterOnly;
    let mut agent = site.agent();
    let incarnation = site.first();
    assert_eq!(agent.hear().await, MemberEvent::Started { incarnation, role: Role::Warm, epoch: Epoch(0) });
    let outside = Outside::run(site.address);
    assert_eq!(agent.hear_ready().await, incarnation);
    agent.tell(promote(2)).await;
    assert_eq!(agent.hear_fact().await, MemberEvent::RoleChanged { incarnation, role: Role::Hot, epoch: Epoch(2) });
    agent.tell(EngineAction::Fence { epoch: Epoch(3) }).await;
    assert_eq!(agent.hear_fact().await, MemberEvent::Fenced { incarnation, epoch: Epoch(3) });
    agent.tell(EngineAction::Stop { graceful: true }).await;
    assert!(matches!(agent.hear_fact().await, MemberEvent::RoleFailed { why, .. } if why.contains("no way to stop")));
    drop(outside);
    assert!(matches!(agent.hear().await, MemberEvent::Unready { why, .. } if why == "connection refused"));
    drop(agent);

    let told = site.file("told");
    site.group.fence = Fence::Command(shell(&format!("test -e {}", told.display())));
    let mut agent = site.agent();
    let fence = EngineAction::Fence { epoch: Epoch(4) };
    agent.tell(fence.clone()).await;
    assert!(matches!(agent.hear_fact().await, MemberEvent::Started { .. }));
    assert!(matches!(agent.hear_fact().await, MemberEvent::RoleFailed { epoch: Epoch(4), .. }));
    std::fs::write(&told, "").unwrap();
    agent.tell(fence).await;
    assert!(matches!(agent.hear_fact().await, MemberEvent::Fenced { epoch: Epoch(4), .. }));
}

#[tokio::test]
async fn where_no_hook_steps_down_the_fence_does_and_says_so() {
    let site = site_with(|_, hooks| hooks.demote = None);
    let mut agent = site.agent();
    let incarnation = agent.start().await;
    agent.tell(promote(2)).await;
    agent.hear_fact().await;
    for _ in 0..2 {
        // Told again, it answers without a second fence.
        agent.tell(EngineAction::Demote { epoch: Epoch(2) }).await;
        let mut event = agent.hear_fact().await;
        if event == (MemberEvent::Fenced { incarnation, epoch: Epoch(3) }) {
            event = agent.hear_fact().await;
        }
        assert_eq!(event, MemberEvent::RoleChanged { incarnation, role: Role::Warm, epoch: Epoch(2) });
        assert_eq!(marks(&site), "promote hot 2\nfence hot 3\n");
    }
    agent.end().await;
}

#[tokio::test]
async fn a_demotion_that_is_told_again_while_its_hook_runs_runs_it_once() {
    let site = site_with(|site, hooks| {
        let wait =
            format!("echo demote >> {}; while ! test -e {}; do sleep 0.01; done", site.file("marks").display(), site.file("go").display());
        hooks.demote = Some(shell(&wait));
        hooks.promote = None;
    });
    let mut agent = site.agent();
    let incarnation = agent.start().await;
    agent.tell(promote(2)).await;
    agent.hear_fact().await;
    agent.tell(EngineAction::Demote { epoch: Epoch(2) }).await;
    wait_for("the hook", || marks(&site) == "demote\n").await;
    agent.tell(EngineAction::Demote { epoch: Epoch(2) }).await;
    agent.tell(EngineAction::Detach { epoch: Epoch(2), attempt: Attempt(9) }).await;
    std::fs::write(site.file("go"), "").unwrap();
    assert_eq!(agent.hear_fact().await, MemberEvent::RoleChanged { incarnation, role: Role::Warm, epoch: Epoch(2) });
    assert!(matches!(agent.hear_fact().await, MemberEvent::Position { .. }), "it is told once, and what follows is done");
    assert_eq!(marks(&site), "demote\n");
    agent.end().await;
}

/// S5: what was told to be hot and does not answer a new agent may still serve whoever reaches it in another way.
#[tokio::test]
async fn what_was_hot_and_does_not_answer_a_new_agent_is_stopped_before_it_counts_as_stopped() {
    let site = site_with(|_, _| {});
    let mut first = site.agent();
    let incarnation = first.start().await;
    let pid = pid_in(&site.file("pid")).await;
    first.tell(promote(2)).await;
    first.hear_fact().await;
    drop(first);
    // Its check fails, and it lives.
    let mut site = site;
    site.group.check.kind = hotwarm::config::CheckKind::Command(shell("exit 1"));
    let mut second = site.agent();
    assert_eq!(second.hear_fact().await, MemberEvent::Stopped { incarnation, cause: StopCause::Asked });
    // The hook does not wait for what it killed.
    wait_for("the member's end", || !is_alive(pid)).await;
}

#[tokio::test]
async fn what_was_hot_and_cannot_be_stopped_runs_as_far_as_is_known() {
    let mut site = site_with(|site, hooks| {
        // The first time it is told, it does not work.
        hooks.stop = Some(shell(&format!("test -e {}", site.file("may-stop").display())));
    });
    let mut first = site.agent();
    std::fs::write(site.file("may-stop"), "").unwrap();
    let incarnation = first.start().await;
    std::fs::remove_file(site.file("may-stop")).unwrap();
    let pid = pid_in(&site.file("pid")).await;
    first.tell(promote(2)).await;
    first.hear_fact().await;
    drop(first);
    site.group.check.kind = hotwarm::config::CheckKind::Command(shell("exit 1"));
    let mut second = site.agent();
    assert_eq!(second.hear_fact().await, MemberEvent::Started { incarnation, role: Role::Hot, epoch: Epoch(2) });
    second.tell(EngineAction::Fence { epoch: Epoch(3) }).await;
    assert_eq!(second.hear_fact().await, MemberEvent::Fenced { incarnation, epoch: Epoch(3) });
    signal(pid, Signal::KILL);
}

#[tokio::test]
async fn a_new_agent_knows_an_external_member_by_its_number_and_what_it_was_told() {
    let mut site = Site::new(Engine::External);
    site.group.fence = Fence::Command(shell("true"));
    let mut first = site.agent();
    let incarnation = first.hear_fact().await.incarnation();
    first.tell(promote(2)).await;
    first.hear_fact().await;
    drop(first);
    let mut second = site.agent();
    assert_eq!(second.hear_fact().await, MemberEvent::Started { incarnation, role: Role::Hot, epoch: Epoch(2) });
}

#[tokio::test]
async fn a_start_of_an_older_epoch_is_no_danger_and_is_done() {
    let site = site_with(|_, _| {});
    let mut agent = site.agent();
    agent.hear_stopped().await;
    // What a role change by a restart leaves behind when its second half fails.
    agent.tell(promote(5)).await;
    assert!(matches!(agent.hear_fact().await, MemberEvent::RoleFailed { .. }));
    agent.tell(EngineAction::Start { epoch: Epoch(4) }).await;
    assert!(matches!(agent.hear_fact().await, MemberEvent::Started { role: Role::Warm, epoch: Epoch(4), .. }));
    agent.end().await;
}

/// S8: the node of the hot member dies with its agent; the member itself is not known to be dead, and only the fence can tell.
#[test]
fn the_fence_of_a_lost_nodes_member_is_run_by_another_node_and_waited_for() {
    let mut site = crate::cluster::Site::new(3);
    let addresses: Vec<_> = site.machines.iter().map(|machine| (machine.name, free_address())).collect();
    let listeners: Vec<_> = site.machines.iter().map(|machine| (machine.name, free_address())).collect();
    let table = |all: &[(&str, SocketAddr)]| all.iter().map(|(n, a)| format!("{n} = \"{a}\"")).collect::<Vec<_>>().join(", ");
    let (fences, proof) = (site.dir.path().join("fences"), site.dir.path().join("proof"));
    // It takes a moment: who is asked again meanwhile must not cut it short.
    let (told, proved) = (fences.display(), proof.display());
    let fence = shell(&format!("echo $HOTWARM_MEMBER >> {told}; sleep 0.3; echo ended >> {told}; test -e {proved}"));
    site.groups = format!(
        "[group.db]\nmode = \"hot-warm\"\nprotocol = \"http\"\ncheck = {{ http = \"/healthz\" }}\nengine = \"external\"\n\
         fence = {{ command = {fence:?} }}\nlisten = {{ {} }}\nmembers = {{ {} }}\n",
        table(&listeners),
        table(&addresses)
    );
    let _programs: Vec<Outside> = addresses.iter().map(|(_, address)| Outside::run(*address)).collect();
    let mut cluster = site.start();
    cluster.wait_whole();
    let old = cluster.hot("db", &[]).unwrap();
    let node = cluster.node_of(&old);
    let told = cluster.run(node, &["why", "db"]).out;
    assert!(told.contains(&format!("takes over, once the fence command of {old} has confirmed")), "{told}");
    assert!(!told.contains("nobody serves"), "{told}");
    cluster.kill_node(node);
    let runs = || std::fs::read_to_string(&fences).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    cluster.wait_until("a third try of the fence", || {
        assert_eq!(cluster.hot("db", &[node]).unwrap_or(old.clone()), old, "another serves before the fence has confirmed");
        runs().iter().filter(|line| *line == "ended").count() >= 3
    });
    // It is said what is waited for, where it is run, and there how it fails.
    let why = |name: &str| cluster.run(name, &["why", "db"]).out;
    let failed = |text: &str| text.contains(&format!("down     {old}: fence hook /bin/sh failed with exit code 1"));
    let named = |text: &str| text.contains(&format!("proof that {old} serves no more (its fence command, which node "));
    cluster.wait_until("why to name the hook and its exit code", || cluster.running().any(|name| failed(&why(name)) && named(&why(name))));
    assert!(cluster.running().all(|name| named(&why(name))), "{:?}", cluster.running().map(why).collect::<Vec<_>>());
    let logged = "fence hook /bin/sh failed with exit code 1; its output is in the member's log; run from here, for its node is lost";
    cluster.wait_until("a log to say so", || cluster.names().iter().any(|name| cluster.log(name).contains(logged)));
    std::fs::write(&proof, "").unwrap();
    cluster.wait_until("another to serve", || cluster.hot("db", &[node]).is_some_and(|hot| hot != old));
    let runs = runs();
    assert!(runs.chunks(2).all(|run| run == [old.as_str(), "ended"]), "one after the other, each to its end: {runs:?}");
    // Nobody is sent for output that hotwarm does not have.
    let other = cluster.names().into_iter().find(|name| *name != node).unwrap();
    let told = cluster.run(other, &["logs", &old]);
    assert!(told.exit == 1 && told.err.contains(&format!("hotwarm does not run {old}")), "{}", told.err);
    for asked in ["status", "why db"] {
        let shown = cluster.done(other, &asked.split(' ').collect::<Vec<_>>());
        assert!(shown.contains(&format!("bring node {node} back: it does not answer")) && !shown.contains("hotwarm logs"), "{shown}");
    }
    cluster.finish(&[
        ("not connected:", "the peer was killed"),
        ("fence hook /bin/sh failed with exit code 1", "it is told to, at first"),
        ("reason=\"fence-waits\"", "as long as it fails"),
    ]);
}

/// A database that hotwarm does not start, as its operator describes it by hooks: the position of each member is what a file says.
#[test]
fn a_switchover_among_members_with_positions_never_leaves_the_service_parked() {
    let mut site = crate::cluster::Site::new(3);
    let addresses: Vec<_> = site.machines.iter().map(|machine| (machine.name, free_address())).collect();
    let listeners: Vec<_> = site.machines.iter().map(|machine| (machine.name, free_address())).collect();
    let table = |all: &[(&str, SocketAddr)]| all.iter().map(|(n, a)| format!("{n} = \"{a}\"")).collect::<Vec<_>>().join(", ");
    let positions = site.dir.path().join("positions");
    let position = shell(&format!("cat {}/${{HOTWARM_MEMBER#db/}}", positions.display()));
    let broken = site.dir.path().join("broken");
    let promote = shell(&format!("test ! -e {} || test $HOTWARM_MEMBER != $(cat {0})", broken.display()));
    let hooks = format!("promote = {promote:?}, demote = [\"true\"], fence = [\"true\"], position = {position:?}");
    site.groups = format!(
        "[group.db]\nmode = \"hot-warm\"\nprotocol = \"http\"\ncheck = {{ http = \"/healthz\" }}\nengine = {{ command = {{ {hooks} }} }}\n\
         listen = {{ {} }}\nmembers = {{ {} }}\n",
        table(&listeners),
        table(&addresses)
    );
    let at = |name: &str, position: u64| {
        std::fs::create_dir_all(&positions).unwrap();
        std::fs::write(positions.join(name), format!("{position}\n")).unwrap();
    };
    ["a", "b", "c"].iter().for_each(|name| at(name, 100));
    let _programs: Vec<Outside> = addresses.iter().map(|(_, address)| Outside::run(*address)).collect();
    let cluster = site.start_whole();
    let old = cluster.hot("db", &[]).unwrap();
    let others: Vec<&str> = cluster.names().into_iter().filter(|name| !old.ends_with(&format!("/{name}"))).collect();
    let told = cluster.done(others[0], &["switchover", "db", "--to", others[0], "--yes"]);
    assert!(told.contains(&format!("db/{} serves", others[0])), "{told}");
    cluster.wait_whole();

    // Another than the one that was asked for: it serves, and it is no success.
    std::fs::write(&broken, format!("db/{}", others[1])).unwrap();
    let another = cluster.run("a", &["switchover", "db", "--to", others[1], "--yes"]);
    assert!(another.exit == 1 && another.err.contains("the switchover went another way"), "{} {}", another.exit, another.err);
    std::fs::remove_file(&broken).unwrap();
    cluster.wait_whole();

    // One that is behind is not promoted at the price of data, and whoever asked for it hears of it.
    at(others[1], 7);
    let behind = cluster.run("a", &["switchover", "db", "--to", others[1], "--yes"]);
    assert!(behind.exit == 1 && behind.err.contains("its data is behind (7 of 100)"), "{} {}", behind.exit, behind.err);
    cluster.wait_whole();

    // Nobody can say: the one that stepped down serves again.
    std::fs::remove_dir_all(&positions).unwrap();
    let hot = cluster.hot("db", &[]).unwrap();
    let unknown = cluster.run("a", &["switchover", "db", "--yes"]);
    assert!(unknown.exit == 1 && unknown.err.contains("0 members can tell how far their data reaches"), "{} {}", unknown.exit, unknown.err);
    cluster.wait_whole();
    assert_eq!(cluster.hot("db", &[]).unwrap(), hot);
    let asked = "asked for above";
    let fails = ("position hook /bin/sh failed with exit code 1", "it is told to");
    cluster.finish(&[
        ("not connected:", "the others end"),
        ("promote hook", "it is made to fail"),
        ("too-few-reports", asked),
        ("switchover given up", asked),
        fails,
    ]);
}
