//! The demo leaves nothing behind, however it ends: no process that knows its directory, and no directory.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal};

use crate::cluster::{PATIENCE, alone};
use crate::command::hotwarm;

/// A demo and what it says while it runs.
struct Demo {
    child: Child,
    said: BufReader<ChildStderr>,
    dir: PathBuf,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut command = hotwarm();
        let mut child = command.arg("demo").args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let dir = std::env::temp_dir().join(format!("hotwarm-demo-{}", child.id()));
        Self { child, said, dir }
    }

    fn wait_for(&mut self, text: &str) {
        let mut all = String::new();
        while !all.contains(text) {
            assert!(self.said.read_line(&mut all).unwrap() > 0, "it ended without `{text}`: {all}");
        }
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; the code, and what it said last.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut last = String::new();
        // What holds standard error open has not ended.
        self.said.read_to_string(&mut last).unwrap();
        (self.child.wait().unwrap().code(), last)
    }

    fn assert_nothing_left(&self, when: &str) {
        assert_eq!(processes_of(&self.dir), Vec::<String>::new(), "{when}");
        assert!(!self.dir.exists(), "{when}: {} is there", self.dir.display());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processes that name the directory: in their arguments, their environment, or by an open file below it.
fn processes_of(dir: &Path) -> Vec<String> {
    let needle = dir.to_str().unwrap().as_bytes();
    let names = |bytes: Vec<u8>| bytes.windows(needle.len()).any(|part| part == needle);
    let is_of = |process: &Path| {
        let text = ["cmdline", "environ"].iter().any(|file| fs::read(process.join(file)).is_ok_and(names));
        let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        text || files.filter_map(|file| fs::read_link(file.path()).ok()).any(|file| file.starts_with(dir))
    };
    let numbered = fs::read_dir("/proc").unwrap().flatten().filter(|p| p.file_name().to_str().is_some_and(|n| n.parse::<u32>().is_ok()));
    numbered.map(|p| p.path()).filter(|p| is_of(p)).map(|p| fs::read_to_string(p.join("comm")).unwrap_or_default()).collect()
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing_behind() {
    let _alone = alone();
    let rounds = [
        ("three nodes start", Signal::INT, 130, "interrupted"),
        ("they serve", Signal::TERM, 143, "terminated"),
        ("is frozen", Signal::INT, 130, "interrupted"),
    ];
    for (moment, signal, code, how) in rounds {
        let mut demo = Demo::start(&[]);
        demo.wait_for(moment);
        if moment != "three nodes start" {
            assert!(processes_of(&demo.dir).len() > 10, "agents, guards and members are found: {:?}", processes_of(&demo.dir));
        }
        demo.signal(signal);
        let (exit, said) = demo.end();
        assert!(exit == Some(code) && said.contains(how) && said.contains("is removed"), "{moment}: {exit:?} {said}");
        demo.assert_nothing_left(moment);
    }
}

#[test]
fn a_demo_that_is_killed_leaves_nothing_behind() {
    let _alone = alone();
    let mut demo = Demo::start(&[]);
    demo.wait_for("they serve");
    demo.signal(Signal::KILL);
    let (exit, _) = demo.end();
    assert_eq!(exit, None, "a signal ended it");
    let until = Instant::now() + PATIENCE;
    while demo.dir.exists() || !processes_of(&demo.dir).is_empty() {
        assert!(Instant::now() < until, "left: {:?}", processes_of(&demo.dir));
        std::thread::yield_now();
    }
}

/// What it is for: five incidents, each with its phases and what clients saw, and a verdict that is the exit code too.
#[test]
fn a_demo_tells_each_incident_and_its_exit_code_is_the_verdict() {
    let _alone = alone();
    let ran = hotwarm().arg("demo").stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    let told: Vec<&str> = out.split("\n\n").collect();
    let of = |what: &str| *told.iter().find(|part| part.contains(what)).unwrap_or_else(|| panic!("{what}: {out}{err}"));
    for (incident, phases) in [
        ("is killed (SIGKILL)\n  web", &["fault", "detected", "serves"][..]),
        ("is frozen (SIGSTOP)\n  web", &["fault"]),
        ("is killed (SIGKILL)\n  clock", &["fault", "detected", "fenced", "promoted", "serves", "back as warm"]),
        ("is frozen (SIGSTOP)\n  clock", &["fault", "detected", "fenced", "promoted", "serves", "back as warm"]),
        ("and its members at once\n  clock", &["fault", "fenced", "promoted", "serves", "first answer", "back as warm"]),
    ] {
        let part = of(incident);
        assert!(part.contains(" requests, ") && part.contains(" parked; outage "), "{part}");
        let missing: Vec<_> = phases.iter().filter(|phase| !part.contains(&format!(" ms  {phase}"))).collect();
        assert!(missing.is_empty(), "{missing:?} of {part}");
    }
    assert!(err.contains("incident 1 of 5") && err.contains("incident 5 of 5"), "progress: {err}");
    let missed = of("incident ").contains("MISSED");
    let (code, verdict) = if missed { (5, "an objective was missed") } else { (0, "every objective was met") };
    assert!(ran.status.code() == Some(code) && out.ends_with(&format!("verdict: {verdict}\n")), "{} {out}{err}", ran.status);
}

#[test]
fn a_demo_ends_well_and_one_that_is_kept_ends_when_asked() {
    let _alone = alone();
    let mut demo = Demo::start(&["--keep", "--load", "50"]);
    demo.wait_for("left running until Ctrl-C");
    demo.signal(Signal::INT);
    let (exit, said) = demo.end();
    assert!(exit == Some(130) && said.contains("interrupted"), "{exit:?} {said}");
    demo.assert_nothing_left("after --keep");
}
