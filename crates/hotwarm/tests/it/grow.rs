//! A cluster grows by a node of a new name and shrinks again, as docs/operating/day-two.md says, while clients are served.

use std::collections::BTreeMap;
use std::fs;

use hotwarm::drill::Load;
use rustix::process::Pid;

use crate::cluster::{Cluster, Site, all_answered, alone, is_whole, private};
use crate::command::done;
use crate::members::is_alive;

const RATE: u32 = 40;

/// `text` without the node's entry in each map of names, and without its own table.
fn without(text: &str, node: &str) -> String {
    let table = format!("[node.{node}]");
    let (mut lines, mut skipped) = (Vec::new(), false);
    for line in text.lines() {
        if line.starts_with('[') {
            skipped = line == table;
        }
        let Some(from) = line.find(&format!(", {node} = \"")).filter(|_| !skipped) else {
            if !skipped {
                lines.push(line.to_owned());
            }
            continue;
        };
        let rest = &line[from..];
        let end = from + rest.match_indices('"').nth(1).expect("an address in quotes").0 + 1;
        lines.push(format!("{}{}", &line[..from], &line[end..]));
    }
    lines.join("\n") + "\n"
}

/// Three nodes of a site of four, whose last machine knows nothing of hotwarm yet.
fn three_of_four(site: Site) -> Cluster {
    let dir = site.dir.path().to_owned();
    let nodes: Vec<String> = site.machines[..3].iter().map(|m| format!("{}={}", m.name, m.peer.ip())).collect();
    done(&["init", "it", "--nodes", &nodes.join(","), "--dir", dir.to_str().unwrap()]);
    let (mut configs, more) = (BTreeMap::new(), without(&(site.machines_text() + &site.groups), "d"));
    for machine in &site.machines {
        let root = dir.join(machine.name);
        private(&root);
        let file = root.join("etc/hotwarm/hotwarm.toml");
        if machine.name != "d" {
            done(&["join", dir.join(format!("it/{}.join", machine.name)).to_str().unwrap(), "--root", root.to_str().unwrap()]);
            fs::write(&file, fs::read_to_string(&file).unwrap() + &more).unwrap();
        }
        configs.insert(machine.name, file);
    }
    let shop = dir.join("it/hotwarm.toml");
    fs::write(&shop, fs::read_to_string(&shop).unwrap() + &more).unwrap();
    let mut cluster = Cluster::new(site, configs);
    for name in ["a", "b", "c"] {
        cluster.start(name);
    }
    cluster.wait_all("three that serve", |status| votes(&status.cluster.quorum.voters, "abc") && status.groups.iter().all(is_whole));
    cluster
}

/// In any order: they are told in that of their coming.
fn votes(voters: &[String], names: &str) -> bool {
    let mut voters = voters.to_vec();
    voters.sort();
    voters.concat() == names
}

/// The commands of the manual about a node of a new name, as it has them.
fn commands() -> Vec<&'static str> {
    let page = include_str!("../../../../docs/operating/day-two.md");
    let (_, section) = page.split_once("\n### Another name\n").expect("a section about a node of another name");
    let section = section.split("\n#").next().unwrap();
    section.split("```sh\n").skip(1).flat_map(|block| block.split("```").next().unwrap().lines()).collect()
}

#[test]
fn a_node_of_a_new_name_comes_and_goes_while_clients_are_served() {
    let _alone = alone();
    let site = Site::in_namespaces(4).web_and_clock();
    let (nodes, more) = (site.machines.iter().map(|m| format!("{} = \"{}\"", m.name, m.peer)).collect::<Vec<_>>(), site.groups.clone());
    let machines = site.machines_text();
    let mut cluster = three_of_four(site);
    let loads = ["web", "clock"].map(|group| {
        let routers = cluster.listen(group).into_values().collect();
        cluster.site.lan.as_ref().unwrap().on("switch", || Load::start(routers, RATE)).unwrap()
    });
    let mut told = commands().into_iter();
    let mut next = |expected: &str| assert_eq!(told.next(), Some(expected), "the manual says otherwise: bring them together");

    // Beside the CA key, the file gets the node, its part of each group, and where its machine keeps things.
    let file = cluster.file("it/hotwarm.toml");
    let text = fs::read_to_string(&file).unwrap();
    let (head, _) = text.split_once("[node.a]").unwrap();
    let from = head.find("nodes = {").unwrap();
    let to = from + head[from..].find('}').unwrap() + 1;
    let text = format!("{}nodes = {{ {} }}{}{machines}{more}", &head[..from], nodes.join(", "), &head[to..]);
    fs::write(&file, text).unwrap();
    let (file, key, folder) = (file.to_str().unwrap().to_owned(), cluster.file("it/ca.key"), cluster.file("it"));
    next("hotwarm apply shop/hotwarm.toml");
    cluster.done("a", &["apply", &file, "--yes"]);
    next("hotwarm certs renew --ca-key shop/ca.key --node d");
    done(&["certs", "renew", "--ca-key", key.to_str().unwrap(), "--node", "d", "--dir", folder.to_str().unwrap()]);
    next("sudo hotwarm join d.join");
    let (join, root) = (cluster.file("it/d.join"), cluster.file("d"));
    cluster.on("d", || done(&["join", join.to_str().unwrap(), "--root", root.to_str().unwrap()]));
    // Its file names the whole path, which `--root` puts below the machine's own directory once more.
    let data = &cluster.machine("d").data;
    fs::create_dir_all(data.parent().unwrap()).unwrap();
    fs::rename(root.join(data.strip_prefix("/").unwrap()), data).unwrap();
    next("sudo systemctl enable --now hotwarm");
    cluster.start("d");
    cluster.wait_whole();
    assert!(votes(&cluster.status_of("d").unwrap().cluster.quorum.voters, "abcd"));
    let members = ["web/d", "clock/d"].map(|member| cluster.member_pid(member).expect("a member that runs on d"));
    let beside = cluster.listen("web")["d"];
    let through_d = cluster.site.lan.as_ref().unwrap().on("switch", || Load::start(vec![beside], RATE)).unwrap();
    let since = std::time::Instant::now();
    cluster.wait_until("an answer through d", || through_d.answered_since(since) > 0);
    all_answered([through_d]);

    goes(&mut cluster, &mut next, members);
    assert_eq!(told.next(), None);
    all_answered(loads);
    cluster.finish(EXPECTED);
}

fn goes(cluster: &mut Cluster, next: &mut impl FnMut(&str), members: [Pid; 2]) {
    next("hotwarm drain d");
    cluster.done("a", &["drain", "d", "--yes"]);
    next("hotwarm leave d");
    cluster.done("a", &["leave", "d", "--yes"]);
    cluster.wait_until("its members to end", || members.iter().all(|pid| !is_alive(*pid)));
    next("sudo systemctl disable --now hotwarm");
    cluster.stop_agent("d");
    cluster.wait_status("b", "its lease over", |status| status.nodes.iter().any(|node| node.name == "d" && !node.leased));
    next("hotwarm leave d");
    cluster.done("b", &["leave", "d", "--yes"]);
    cluster.wait_all("three that serve", |status| votes(&status.cluster.quorum.voters, "abc") && status.groups.iter().all(is_whole));
}

/// What is said, and why that is right.
const EXPECTED: &[(&str, &str)] =
    &[("not connected:", "node d is applied before it is there, and stopped before it is taken away"), ("peer=d", "the same")];
