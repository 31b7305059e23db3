//! nginx, as Debian brings it, as the members of a group in which all serve; real load by wrk; members killed and reloaded under it.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, test_kill_process};

use crate::cluster::{Cluster, Site, alone, engine};
use crate::faults::EXPECTED;
use crate::members::is_alive;

const MEMBER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/web-nginx/member");

/// Load on one router for so many seconds.
struct Wrk(Child);

impl Wrk {
    fn start(address: SocketAddr, seconds: u32) -> Self {
        let mut command = Command::new("wrk");
        command.args(["-t1", "-c8", "--timeout", "10s", &format!("-d{seconds}s"), &format!("http://{address}/")]);
        Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("wrk: run ./test, which installs it"))
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// What it printed; fails if a request did.
    fn judge(self) -> String {
        let output = self.0.wait_with_output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && told.contains("requests in"), "{told}");
        assert!(!told.contains("Socket errors") && !told.contains("Non-2xx"), "requests failed: {told}");
        told
    }
}

fn begin(seconds: u32) -> (Cluster, Vec<Wrk>) {
    let site = Site::new(3);
    let work = site.dir.path().join("nginx");
    let engine = engine(&[MEMBER, work.to_str().unwrap()], "");
    let cluster = site.group("web", "hot-hot", &format!("protocol = \"http\"\ncheck = {{ http = \"/healthz\" }}\n{engine}")).start();
    cluster.wait_whole();
    let loads: Vec<Wrk> = cluster.listen("web").into_values().map(|address| Wrk::start(address, seconds)).collect();
    cluster.wait_until("every member to get requests", || members_asked(&cluster) == 3);
    (cluster, loads)
}

/// How many members the first node's router has sent something.
fn members_asked(cluster: &Cluster) -> usize {
    let traffic: hotwarm::api::types::Traffic = cluster.client("a").get("/api/v1/traffic").unwrap();
    traffic.groups[0].members.iter().filter(|m| m.requests > 100).count()
}

#[test]
fn nginx_killed_under_load_fails_no_request() {
    let _alone = alone();
    let (mut cluster, mut loads) = begin(8);
    for member in ["web/a", "web/b"] {
        let before = cluster.member_pid(member).unwrap();
        cluster.signal(before, Signal::KILL);
        cluster.wait_until("another life of it", || cluster.member_pid(member).is_some_and(|now| now != before && is_alive(now)));
        cluster.wait_settled();
    }
    assert!(loads.iter_mut().all(Wrk::runs), "the load outlasts the faults, or it shows nothing");
    for load in loads {
        println!("{}", load.judge());
    }
    cluster.finish(EXPECTED);
}

#[test]
fn nginx_reloaded_under_load_fails_no_request() {
    let _alone = alone();
    let (mut cluster, mut loads) = begin(5);
    for node in cluster.names() {
        let member = format!("web/{node}");
        let master = cluster.member_pid(&member).unwrap();
        let workers = hotwarm::drill::fault::tree(u32::try_from(master.as_raw_nonzero().get()).unwrap());
        cluster.signal(master, Signal::HUP);
        // The old workers end, the new ones serve; the master stays.
        let gone =
            || workers[1..].iter().all(|pid| rustix::process::Pid::from_raw(*pid as i32).is_none_or(|pid| test_kill_process(pid).is_err()));
        cluster.wait_until("new workers", gone);
        assert_eq!(cluster.member_pid(&member), Some(master));
    }
    assert!(loads.iter_mut().all(Wrk::runs), "the load outlasts the reloads, or it shows nothing");
    for load in loads {
        println!("{}", load.judge());
    }
    cluster.finish(EXPECTED);
}
