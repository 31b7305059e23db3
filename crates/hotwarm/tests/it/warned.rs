//! What is going to be wrong is told before it is: certificates that end, voters that are missing, a group that is not served from here.
//!
//! Main path: each test brings it about on real nodes, and reads what monitoring reads: `/health`, `/metrics`, `status`, the log.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use hotwarm::api::types::{Health, Reloaded, Status};
use hotwarm::config::pki::Ca;
use hotwarm_core::ids::NodeId;

use crate::cluster::{Cluster, PATIENCE, Site, alone, secret};
use crate::netns::join_all;

const TOKEN: &str = "8e0b4d4b6d0c4f3c9a51c7d2a8f37d15";
const DAY: Duration = Duration::from_secs(86_400);

fn text(cluster: &Cluster, node: &str, path: &str) -> String {
    cluster.on(node, || cluster.client(node).get_text(path).unwrap().1)
}

fn warned(cluster: &Cluster, node: &str, of: &str) -> bool {
    let health: Health = serde_json::from_str(&text(cluster, node, "/health")).unwrap();
    health.warnings.iter().any(|warning| warning.contains(of))
}

/// Gives node b a certificate that is valid for so much longer.
fn certify(cluster: &Cluster, ca: &Ca, left: Duration) {
    let issued = ca.issue(&NodeId::from("b"), SystemTime::now() - 365 * DAY + left).unwrap();
    let tls = cluster.machine("b").data.join("tls");
    fs::write(tls.join("node.pem"), issued.certificate).unwrap();
    fs::write(tls.join("node.key"), issued.key).unwrap();
}

#[test]
fn certificates_that_end_voters_that_are_missing_and_groups_not_served_are_told_to_monitoring() {
    let _alone = alone();
    let mut cluster = join_all(Site::in_namespaces(3).web_and_clock());
    let ca = Ca::from_pem(&fs::read_to_string(cluster.file("it/ca.key")).unwrap()).unwrap();
    let seen = |cluster: &Cluster, node: &str, severity: &str| {
        text(cluster, node, "/metrics").contains(&format!("hotwarm_cluster_problem{{code=\"HW0205\",severity=\"{severity}\"}} 1\n"))
    };
    assert!(!warned(&cluster, "a", "certificate"));
    for (left, severity, said) in [(20, "notice", "node b ends in 20 days"), (5, "bare", "node b ends in 5 days")] {
        certify(&cluster, &ca, left * DAY + DAY / 2);
        let reload = || cluster.client("b").post::<Reloaded>("/api/v1/certificates/reload", &serde_json::json!({})).unwrap();
        cluster.on("b", reload);
        // Its own node knows at once, the others as soon as it has shown it to them.
        assert!(warned(&cluster, "b", said) && seen(&cluster, "b", severity), "{}", text(&cluster, "b", "/health"));
        cluster.wait_until("the others to have seen it", || warned(&cluster, "a", said) && seen(&cluster, "c", severity));
        let status = cluster.done("a", &["status"]);
        assert!(status.contains(said) && status.contains("docs/reference/errors/HW0205.md"), "{status}");
    }
    cluster.stop_agent("b");
    cluster.start("b");
    cluster.wait_until("its log to say so", || cluster.log("b").contains("HW0205"));
    cluster.wait_whole();
    tells_of_missing_voters(&mut cluster);
    cluster.finish(&[
        ("HW0205", "the certificate of b ends soon"),
        ("not connected:", "nodes that start one after the other, one that was restarted, and those that are gone"),
        ("lease ended", "the quorum is lost"),
        ("was ended here by its guard", "the quorum is lost"),
        ("HW0509", "the quorum is lost"),
    ]);
}

fn tells_of_missing_voters(cluster: &mut Cluster) {
    let hot = |cluster: &Cluster| text(cluster, "a", "/metrics").contains("hotwarm_group_members{group=\"clock\",role=\"hot\"} 1\n");
    let hot_web = |cluster: &Cluster| text(cluster, "a", "/metrics").contains("hotwarm_group_members{group=\"web\",role=\"hot\"} 0\n");
    let bare = "hotwarm_cluster_problem{code=\"voter-missing\",severity=\"bare\"} 1\n";
    assert!(!text(cluster, "a", "/metrics").contains("hotwarm_cluster_problem{code=\"voter"), "{}", text(cluster, "a", "/metrics"));
    cluster.kill_node("c");
    cluster.wait_until("the loss of a voter to be told", || warned(cluster, "a", "voters not heard by node a: c; the loss of one more"));
    assert!(text(cluster, "a", "/metrics").contains(bare));
    assert!(cluster.done("a", &["status"]).contains("voters not heard by node a: c"));
    cluster.wait_until("clock to be served", || hot(cluster));
    cluster.kill_node("b");
    cluster.wait_status("a", "it to hold no lease", |status| status.node.no_lease_ms.is_some());
    assert!(!hot(cluster) && !hot_web(cluster), "what needs a lease is not served here, the rest goes on");
    assert!(text(cluster, "a", "/metrics").contains("hotwarm_cluster_problem{code=\"no-leader\",severity=\"down\"} 1\n"));
}

fn serves(router: SocketAddr) -> bool {
    let mut told = String::new();
    let asked = TcpStream::connect(router).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        stream.read_to_string(&mut told)
    });
    asked.is_ok() && told.starts_with("HTTP/1.1 200")
}

/// A token that was spoilt while the node ran is told of at once, and takes nothing but the API away from its next life.
#[test]
fn a_node_whose_token_cannot_be_used_runs_without_its_api_until_it_can() {
    let mut cluster = Site::new(1).asking_for(TOKEN).web().start_whole();
    let (token, client, api) = (cluster.site.token.clone().unwrap(), cluster.client("a"), cluster.machine("a").api);
    let (router, pid) = (cluster.listen("web")["a"], cluster.member_pid("web/a").unwrap());
    let second = cluster.run_plain("a", &["run", "--node", "a"]);
    assert!(second.exit == 1 && second.err.contains("error[HW0122]") && second.err.contains("in use by another hotwarm"), "{}", second.err);
    assert!(!warned_by(&client));
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    cluster.wait_until("it to be told", || warned_by(&client));
    let status: Status = client.get("/api/v1/status").unwrap();
    assert!(status.problems.iter().any(|problem| problem.code == "HW0125" && problem.advice.contains("without its API")), "{status:?}");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    cluster.wait_until("it to be over", || !warned_by(&client));
    for spoil in [|path| fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap(), |path| fs::remove_file(path).unwrap()] {
        cluster.stop_agent("a");
        fs::write(&cluster.machine("a").log, "").unwrap();
        spoil(&token);
        cluster.start("a");
        cluster.wait_until("it to run without its API", || {
            let log = cluster.log("a");
            log.contains("runs without its API, no command and no metrics reach it") && log.contains("HW0125") && serves(router)
        });
        assert!(TcpStream::connect(api).is_err(), "nobody may ask");
        secret(&token, TOKEN);
        cluster.wait_until("its API to be open", || client.get::<Status>("/api/v1/status").is_ok());
        assert_eq!(cluster.member_pid("web/a"), Some(pid), "its members went on");
    }
    cluster.finish(&[("HW0125", "the token was spoilt")]);
}

/// Its own log ends before it was removed: only the others can tell it.
#[test]
fn a_node_that_was_removed_and_starts_again_says_so() {
    let mut cluster = Site::new(3).web().start_whole();
    cluster.stop_agent("c");
    cluster.kill_members("c");
    cluster.wait_until("c to leave", || {
        let left = cluster.run("a", &["leave", "c", "--yes"]);
        left.exit == 0 && left.out.contains("is in force") && !cluster.status_of("a").unwrap().nodes.iter().any(|node| node.name == "c")
    });
    cluster.start("c");
    let said = "node c was removed from the cluster, as ";
    cluster.wait_until("c to say so", || {
        let health = cluster.client("c").get_text("/health");
        let status = cluster.run("c", &["status"]);
        health.is_ok_and(|(code, text)| code == 503 && text.contains(said)) && status.out.starts_with(said)
    });
    cluster.kill_members("c");
    cluster.finish(&[
        ("was removed", "c was"),
        ("not connected:", "c was stopped, and is refused then"),
        ("HW0307", "c knocks"),
        ("lease ended", "c holds none"),
        ("ended by", "members of c"),
    ]);
}

fn warned_by(client: &hotwarm::api::client::Client) -> bool {
    let health: Health = serde_json::from_str(&client.get_text("/health").unwrap().1).unwrap();
    assert_eq!(health.status, "UP", "{health:?}");
    health.warnings.iter().any(|warning| warning.contains("(HW0125)"))
}
