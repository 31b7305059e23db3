//! A data directory whose disk is full, and one whose disk hangs: the node doubts itself, what is hot there moves, the others go on.
//!
//! Full is a small tmpfs that is filled. Hanging is an ext4 in a file, on a loop device, frozen by fsfreeze: whoever writes waits, in the
//! kernel, until it is thawed. (A tmpfs cannot be frozen, and a writer stopped by a signal is another fault: see `faults`.)

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hotwarm::api::types::Done;
use hotwarm::drill::Load;
use rustix::process::Signal;
use serde_json::json;

use crate::cluster::{Cluster, Site, all_answered, alone, private};
use crate::command::{self, Ran};
use crate::faults::EXPECTED as OF_FAULTS;
use crate::members::is_alive;
use crate::recorder::Recorder;

/// A file system at a node's data directory. It must go before the cluster: who waits for a frozen one cannot even be killed.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn tmpfs(at: &Path) -> Self {
        Self::mount(at, &["-t", "tmpfs", "-o", "size=128m", "tmpfs"])
    }

    fn ext4(at: &Path) -> Self {
        let image = at.with_extension("img");
        fs::File::create(&image).unwrap().set_len(192 << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
        Self::mount(at, &["-o", "loop", image.to_str().unwrap()])
    }

    fn mount(at: &Path, what: &[&str]) -> Self {
        private(at);
        run("mount", &[what, &[at.to_str().unwrap()]].concat());
        fs::set_permissions(at, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        Self { at: at.to_owned() }
    }

    fn fill(&self) {
        let zeros = vec![0; 1 << 20];
        let mut file = fs::File::create(self.at.join("full")).unwrap();
        // The last of them is written in part, or not at all.
        while std::io::Write::write(&mut file, &zeros).is_ok_and(|written| written > 0) {}
    }

    fn empty(&self) {
        fs::remove_file(self.at.join("full")).unwrap();
    }

    fn freeze(&self) {
        run("fsfreeze", &["-f", self.at.to_str().unwrap()]);
    }

    fn thaw(&self) {
        run("fsfreeze", &["-u", self.at.to_str().unwrap()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Not frozen is no error; still in use it goes when the last user does.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.at).output();
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}; run ./test"));
    assert!(
        output.status.success(),
        "{program} {arguments:?} (root and loop devices are needed): {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Three nodes, the first on `disk`, `clock` hot there.
fn begin(disk: fn(&Path) -> Disk) -> (Cluster, Disk) {
    let site = Site::new(3).web_and_clock();
    let disk = disk(&site.machines[0].data);
    let cluster = site.start();
    cluster.wait_whole();
    if cluster.hot("clock", &[]).as_deref() != Some("clock/a") {
        let _: Done = cluster.client("b").post("/api/v1/groups/clock/switchover", &json!({ "to": "clock/a" })).unwrap();
        cluster.wait_until("the switchover", || cluster.hot("clock", &[]).as_deref() == Some("clock/a"));
    }
    cluster.wait_whole();
    (cluster, disk)
}

fn watch(cluster: &Cluster) -> (Recorder, [Load; 2]) {
    (Recorder::watch(cluster), cluster.load_but("a"))
}

fn judge(cluster: Cluster, recorder: Recorder, loads: [Load; 2], expected: &[(&str, &str)]) {
    all_answered(loads);
    println!("{} replies recorded", recorder.judge());
    cluster.finish(expected);
}

#[test]
fn on_a_disk_that_hangs_nothing_is_kept_hot() {
    let _alone = alone();
    let (cluster, disk) = begin(Disk::ext4);
    let (recorder, loads) = watch(&cluster);
    let pid = cluster.member_pid("clock/a").unwrap();
    disk.freeze();
    cluster.wait_until("another to serve", || {
        let now = cluster.hot("clock", &["a"]).filter(|now| now != "clock/a");
        // Read in this order: at the latest then it must have been dead, or demoted, which the recorder sees.
        now.is_some() && recorder.newest().is_some_and(|reply| reply.said.name != "clock/a")
    });
    println!("the old member {}", if is_alive(pid) { "has stepped down" } else { "has ended" });
    let doubts = || cluster.status_of("a").is_ok_and(|status| status.node.grade == "stalled" && status.node.ailment.is_some());
    cluster.wait_until("the node to say that its disk hangs", doubts);
    disk.thaw();
    cluster.wait_settled();
    judge(cluster, recorder, loads, OF_FAULTS);
}

#[test]
fn on_a_full_disk_a_member_that_ended_says_why_it_does_not_start() {
    let _alone = alone();
    let (mut cluster, disk) = begin(Disk::tmpfs);
    let (recorder, loads) = watch(&cluster);
    let low = |cluster: &Cluster| cluster.status_of("a").is_ok_and(|status| status.node.disk.is_some_and(|disk| disk.low));
    assert!(!low(&cluster));
    disk.fill();
    cluster.wait_until("little room to be noticed", || low(&cluster));
    let told = |path: &str| cluster.client("a").get_text(path).unwrap().1;
    assert!(told("/health").contains("0 MiB left on the disk of the data directory"), "{}", told("/health"));
    assert!(told("/metrics").contains("\nhotwarm_disk_low 1\n"));
    assert!(cluster.done("a", &["status"]).contains("node a has 0 MiB left"));
    let others_know = |what: &str| cluster.done("b", &["events"]).contains(what);
    cluster.wait_until("the others to know", || others_know("node a doubts itself: little room is left on its disk"));
    let pid = cluster.member_pid("clock/a").unwrap();
    cluster.signal(pid, Signal::KILL);
    cluster.wait_until("another to serve", || cluster.hot("clock", &["a"]).is_some_and(|now| now != "clock/a"));
    cluster.wait_until("its reason to be told", || cluster.log("a").contains("No space left on device"));
    disk.empty();
    cluster.wait_settled();
    cluster.wait_until("room to be noticed", || !low(&cluster));
    cluster.wait_until("the others to know", || cluster.done("b", &["events"]).contains("node a no longer doubts itself"));
    let full = ("No space left on device", "the disk is full: what cannot be written is said, with advice");
    let alarm = ("HW0508", "the disk is full");
    judge(cluster, recorder, loads, &[OF_FAULTS, &[full, alarm]].concat());
}

/// What is configured could keep the objective to the millisecond, and no disk takes no time at all.
#[test]
fn check_judges_an_objective_by_the_disk_of_its_own_machine() {
    let dir = tempfile::tempdir().unwrap();
    let (file, data) = (dir.path().join("hotwarm.toml"), dir.path().join("data"));
    let text = |rto: &str| {
        format!(
            "[cluster]\nname = \"it\"\nnodes = {{ a = \"10.0.0.1:7400\", b = \"10.0.0.2:7400\", c = \"10.0.0.3:7400\" }}\n\
             [node.a]\ndata = \"{}\"\n[group.web]\nmode = \"hot-warm\"\nlisten = \"0.0.0.0:8080\"\nprotocol = \"http\"\n\
             engine = {{ process = [\"/bin/true\"] }}\nmembers = {{ a = \"10.0.0.1:9080\", b = \"10.0.0.2:9080\" }}\n\
             objective = {{ rto = \"{rto}\", false_failovers = \"1 per month\" }}\n",
            data.display()
        )
    };
    let check = |rto: &str| {
        fs::write(&file, text(rto)).unwrap();
        command::run(&["check", file.to_str().unwrap()])
    };
    let is = |told: Ran, exit: i32, parts: &[&str]| {
        let all = told.out + &told.err;
        assert!(told.exit == exit && parts.iter().all(|part| all.contains(part)), "{exit} {parts:?}: {} {all}", told.exit);
    };
    let smallest = "rto 1500ms; the smallest is 1500ms by lease and heartbeat";
    is(check("1500ms"), 0, &[smallest, "the disk was not measured: this machine is no node", "nothing is derived from false_failovers"]);
    fs::write(dir.path().join("node"), "a\n").unwrap();
    is(check("1500ms"), 0, &[smallest, "data is not there yet"]);
    fs::create_dir(&data).unwrap();
    is(check("1500ms"), 1, &["HW0117", "an rto of 1500ms cannot be kept on this machine", "7 syncs of its disk", "ms each as measured"]);
    is(check("1h"), 0, &["1500ms by lease and heartbeat; with the syncs of this machine's disk", "ms each as measured"]);
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "nothing is left");
}
