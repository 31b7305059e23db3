//! The operator's API with a token: beyond loopback over TLS, and on loopback, on real nodes asked by the program itself and by curl.
//!
//! Clients sit at the switch, on a machine that is no node. Main path: each test is a list of what may be asked, by whom, and what is told.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cluster::{Cluster, PATIENCE, Site, alone, private, secret};
use crate::command::{Ran, STEERING, done, hotwarm, run};
use crate::members::HOTWARM;
use crate::netns::join_all;

const TOKEN: &str = "8e0b4d4b6d0c4f3c9a51c7d2a8f37d15";
const OTHER: &str = "0000000000000000000000000000000000000000";
/// What a node says of whoever tries.
const TRIED: &[(&str, &str)] = &[("HW0425", "wrong tokens are tried")];
const EXPECTED: &[(&str, &str)] = &[
    TRIED[0],
    ("HW0125", "the file held no token for a while"),
    ("not connected:", "nodes that start one after the other, and one whose certificate was renewed"),
];

/// Three machines whose APIs others reach, and what a client has: the token, and a copy of the authority's certificate.
struct Stage {
    cluster: Cluster,
    token: PathBuf,
    authority: PathBuf,
    url: String,
    api: SocketAddr,
}

impl Stage {
    fn set() -> Self {
        let cluster = join_all(Site::in_namespaces(3).exposed().asking_for(TOKEN).web());
        let (token, authority) = (cluster.file("mine.token"), cluster.file("mine.pem"));
        secret(&token, TOKEN);
        fs::copy(cluster.machine("a").data.join("tls/ca.pem"), &authority).unwrap();
        let api = cluster.machine("a").api;
        Self { url: format!("https://{api}"), api, cluster, token, authority }
    }

    /// A command on the machine that is no node.
    fn run(&self, arguments: &[&str]) -> Ran {
        self.cluster.site.lan.as_ref().unwrap().on("switch", || run(arguments))
    }

    /// The same, with all that it needs but what `arguments` say otherwise.
    fn admitted(&self, arguments: &[&str]) -> Ran {
        let [token, authority] = [&self.token, &self.authority].map(|path| path.to_str().unwrap());
        self.run(&[&["--api", &self.url, "--api-token", token, "--api-ca", authority], arguments].concat())
    }

    /// The status and the body of what curl is told, knowing the node by the name that its certificate has for such clients.
    fn curl(&self, path: &str, more: &[&str]) -> (String, String) {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-w", "\n%{http_code}", "--connect-to", &format!("::{}", self.api), "--cacert"]).arg(&self.authority);
        curl.args(more).arg(format!("https://a.it.hotwarm.internal:7401{path}")).stdin(Stdio::null());
        let output = self.cluster.site.lan.as_ref().unwrap().on("switch", || curl.output().unwrap());
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        let (body, status) = text.trim_end().rsplit_once('\n').unwrap_or(("", &text));
        (status.to_owned(), body.to_owned())
    }
}

#[test]
fn beyond_loopback_the_token_opens_and_nothing_else_does() {
    let _alone = alone();
    let stage = Stage::set();
    is_refused_without_its_token(&stage);
    is_asked_with_its_token(&stage);
    speaks_to_nobody_without_tls(&stage);
    is_known_by_its_authority(&stage);
    is_scraped_as_the_page_says(&stage);
    is_drilled(&stage);
    keeps_a_way_in_for_its_own_machine(&stage);
    takes_up_another_token(&stage);
    shows_a_renewed_certificate(&stage);
    for node in ["a", "b", "c"] {
        let log = stage.cluster.log(node);
        assert!(!log.contains(TOKEN) && !log.contains(OTHER), "a token in the log of {node}");
    }
    assert!(stage.cluster.log("a").contains("from=\"10.0.0.254:"), "who tries is told");
    stage.cluster.finish(EXPECTED);
}

fn is_refused_without_its_token(stage: &Stage) {
    let wrong = format!("Authorization: Bearer {OTHER}");
    for path in ["/api/v1/status", "/metrics", "/nothing", "/api/v1/openapi.json", "/health/"] {
        for more in [&[][..], &["-H", &wrong]] {
            let (status, body) = stage.curl(path, more);
            assert!(
                status == "401" && body.contains("\"HW0425\"") && body.contains("docs/reference/errors/HW0425.md"),
                "{path}: {status} {body}"
            );
        }
    }
    let (status, _) = stage.curl("/api/v1/groups/web/pause", &["-X", "POST", "-H", &wrong]);
    assert_eq!(status, "401");
    assert_eq!(stage.cluster.group("web").pause, "no");
    let (_, head) = stage.curl("/api/v1/status", &["-I"]);
    assert!(head.to_lowercase().contains("www-authenticate: bearer"), "{head}");
    let (status, body) = stage.curl("/health", &[]);
    assert!(status == "200" && body.contains("\"UP\""), "who balances load has no token: {status} {body}");
    // The program, with no token and with another's.
    let (authority, other) = (stage.authority.to_str().unwrap(), stage.cluster.file("other.token"));
    secret(&other, OTHER);
    let asked = ["--api", &stage.url, "--api-ca", authority, "status"];
    for more in [&[][..], &["--api-token", other.to_str().unwrap()]] {
        let told = stage.run(&[&asked, more].concat());
        assert!(
            told.exit == 1 && told.err.contains("error[HW0425]") && told.err.contains("--api-token FILE"),
            "{} {}",
            told.exit,
            told.err
        );
    }
}

fn is_asked_with_its_token(stage: &Stage) {
    let header = stage.cluster.file("header");
    secret(&header, &format!("Authorization: Bearer {TOKEN}\n"));
    let header = format!("@{}", header.display());
    let (status, body) = stage.curl("/api/v1/status", &["-H", &header]);
    assert!(status == "200" && body.contains("\"web\""), "{status} {body}");
    let (status, body) = stage.curl("/metrics", &["-H", &header]);
    assert!(status == "200", "{status} {body}");
    let refused = |cause| body.lines().find(|line| line.contains("hotwarm_api_refused_requests_total{") && line.contains(cause));
    for cause in ["without", "wrong"] {
        assert!(refused(cause).is_some_and(|line| !line.ends_with(" 0")), "{cause}: {body}");
    }
    let (status, body) = stage.curl("/api/v1/status", &["-H", &header, "-H", "Origin: https://another-site"]);
    assert!(status == "403", "a page of another site: {status} {body}");
    // The program: a read, a stream, a write, each from elsewhere.
    let told = stage.admitted(&["status"]);
    assert!(told.exit == 0 && told.out.contains("web"), "{} {}", told.exit, told.err);
    let told = stage.admitted(&["pause", "web", "--yes"]);
    assert!(told.exit == 0, "{} {}", told.exit, told.err);
    assert!(stage.cluster.group("web").pause != "no");
    let told = stage.admitted(&["resume", "web"]);
    assert!(told.exit == 0 && stage.cluster.group("web").pause == "no", "{} {}", told.exit, told.err);
    // On the node itself, all that is needed is in its file, also of the other nodes.
    let told = stage.cluster.run_plain("b", &["status"]);
    assert!(told.exit == 0 && told.err.is_empty(), "{} {}", told.exit, told.err);
}

fn speaks_to_nobody_without_tls(stage: &Stage) {
    let told = stage.cluster.site.lan.as_ref().unwrap().on("switch", || {
        let mut plain = TcpStream::connect(stage.api).unwrap();
        let asked = format!("GET /health HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n", stage.api);
        plain.write_all(asked.as_bytes()).unwrap();
        let mut told = Vec::new();
        // A reset says as little.
        let _ = plain.read_to_end(&mut told);
        told
    });
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(!told.contains("HTTP") && !told.contains("UP"), "{told:?}");
    let plain = format!("http://{}", stage.api);
    let token = stage.token.to_str().unwrap();
    let told = stage.run(&["--api", &plain, "status"]);
    assert!(told.exit == 4 && told.err.contains("HW0005") && told.err.contains("https://"), "{} {}", told.exit, told.err);
    let told = stage.run(&["--api", &plain, "--api-token", token, "status"]);
    assert!(told.exit == 1 && told.err.contains("HW0426") && told.err.contains("in plain text"), "{} {}", told.exit, told.err);
}

fn is_known_by_its_authority(stage: &Stage) {
    let dir = stage.cluster.file("another");
    private(&dir);
    // The same names, another authority.
    done(&["init", "it", "--nodes", "a=10.0.0.1,b=10.0.0.2,c=10.0.0.3", "--dir", dir.to_str().unwrap()]);
    let root = dir.join("root");
    done(&["join", dir.join("it/a.join").to_str().unwrap(), "--root", root.to_str().unwrap()]);
    let token = stage.token.to_str().unwrap();
    let asked =
        |authority: &Path| stage.run(&["--api", &stage.url, "--api-token", token, "--api-ca", authority.to_str().unwrap(), "status"]);
    let told = asked(&root.join("var/lib/hotwarm/tls/ca.pem"));
    assert!(told.exit == 1 && told.err.contains("error[HW0426]") && told.err.contains("another authority"), "{} {}", told.exit, told.err);
    let told = asked(&root.join("var/lib/hotwarm/tls/node.pem"));
    assert!(told.exit == 1 && told.err.contains("error[HW0203]") && told.err.contains("a node's"), "{} {}", told.exit, told.err);
    let told = stage.run(&["--config", "/nothing.toml", "--api", &stage.url, "--api-token", token, "status"]);
    assert!(told.exit == 1 && told.err.contains("error[HW0426]") && told.err.contains("--api-ca FILE"), "{} {}", told.exit, told.err);
    let nobody = stage.admitted(&["--api", "https://10.0.0.1:9", "status"]);
    assert_eq!(nobody.exit, 2, "an option twice");
    let authority = stage.authority.to_str().unwrap();
    let nobody = stage.run(&["--api", "https://10.0.0.1:9", "--api-token", token, "--api-ca", authority, "status"]);
    assert!(nobody.exit == 4 && nobody.err.contains("HW0005"), "{} {}", nobody.exit, nobody.err);
}

/// The page's own example, in a real Prometheus.
fn is_scraped_as_the_page_says(stage: &Stage) {
    let page = include_str!("../../../../docs/operating/api-from-elsewhere.md");
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let [token, authority] = [&stage.token, &stage.authority].map(|path| path.to_str().unwrap());
    let ours = [("/etc/prometheus/hotwarm.token", token), ("/etc/prometheus/hotwarm-ca.pem", authority), ("a.shop.", "a.it.")];
    let text = ours.iter().fold(format!("global: {{ scrape_interval: 1s }}\n{example}"), |text, (theirs, ours)| {
        assert!(text.contains(theirs), "{theirs} is not in the page's example");
        text.replace(theirs, ours)
    });
    let (file, data) = (stage.cluster.file("prometheus.yml"), stage.cluster.file("prometheus"));
    fs::write(&file, text).unwrap();
    let lan = stage.cluster.site.lan.as_ref().unwrap();
    let mut prometheus = Command::new("prometheus");
    prometheus.arg(format!("--config.file={}", file.display())).arg(format!("--storage.tsdb.path={}", data.display()));
    prometheus.arg("--web.listen-address=127.0.0.1:9090").stdout(Stdio::null()).stderr(Stdio::null());
    let mut prometheus = lan.on("switch", || prometheus.spawn().unwrap());
    let targets = || {
        let mut curl = Command::new("curl");
        curl.args(["-s", "http://127.0.0.1:9090/api/v1/targets"]).stdin(Stdio::null());
        lan.on("switch", || String::from_utf8(curl.output().unwrap().stdout).unwrap())
    };
    let decided = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        stage.cluster.wait_for("Prometheus to have what it asked for", || {
            let told = targets();
            (!told.contains("\"health\":\"up\"")).then_some(told)
        });
    }));
    let ended = prometheus.kill().and_then(|()| prometheus.wait());
    decided.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    ended.unwrap();
}

/// On the machine of what it strikes, by the API that is in its file. That the others' are reached too is no reason to strike here the number
/// of a process there.
fn is_drilled(stage: &Stage) {
    for target in [["kill", "web/b"], ["node-kill", "b"]] {
        let told = stage.cluster.run_plain("a", &[&["drill"][..], &target, &["--yes"]].concat());
        let is_refused =
            told.exit == 3 && told.err.contains("error[HW0419]") && told.err.contains("its address 10.0.0.2 is not this machine's");
        assert!(is_refused, "{target:?}: {} {}{}", told.exit, told.out, told.err);
    }
    let told = stage.cluster.run_plain("a", &["drill", "kill", "web/a", "--yes", "--objective", "60s"]);
    assert!(told.exit == 0 && told.out.contains("web/a is killed"), "{} {}{}", told.exit, told.out, told.err);
    stage.cluster.wait_whole();
}

/// A stranger takes every connection that there is, before it has said who it is.
fn keeps_a_way_in_for_its_own_machine(stage: &Stage) {
    let mut taken: Vec<TcpStream> = stage.cluster.site.lan.as_ref().unwrap().on("switch", || {
        let taken = (0..100).map(|_| TcpStream::connect(stage.api).unwrap());
        taken.collect()
    });
    // The last of them comes after all that were let in.
    let last = taken.last_mut().unwrap();
    last.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(last.read(&mut [0]).map_or_else(|e| e.kind() == ErrorKind::ConnectionReset, |bytes| bytes == 0), "it was closed");
    let told = stage.cluster.run_plain("a", &["status"]);
    assert!(told.exit == 0, "{} {}", told.exit, told.err);
    drop(taken);
    stage.cluster.wait_until("others to be let in again", || stage.admitted(&["status"]).exit == 0);
}

fn takes_up_another_token(stage: &Stage) {
    let (file, said) = (stage.cluster.site.token.clone().unwrap(), |text: &str| stage.cluster.log("a").contains(text));
    // What is no token changes nothing, and is said.
    secret(&file, "short");
    stage.cluster.wait_until("the node to say what is wrong with the file", || said("HW0125"));
    assert_eq!(stage.admitted(&["status"]).exit, 0);
    secret(&file, OTHER);
    stage.cluster.wait_until("the former token to be refused", || stage.admitted(&["status"]).exit == 1);
    secret(&stage.token, OTHER);
    assert_eq!(stage.admitted(&["status"]).exit, 0);
    secret(&file, TOKEN);
    secret(&stage.token, TOKEN);
    let counts = |node: &str| stage.cluster.run_plain(node, &["status"]).exit == 0;
    stage.cluster.wait_until("the first one to count again, on every node", || ["a", "b", "c"].into_iter().all(counts));
}

fn shows_a_renewed_certificate(stage: &Stage) {
    let serial = |node: &str| {
        let asked = format!("openssl s_client -connect {} | openssl x509 -noout -serial", stage.cluster.machine(node).api);
        let output = stage.cluster.on(node, || Command::new("sh").args(["-c", &asked]).stdin(Stdio::null()).output().unwrap());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let (agent, before) = (stage.cluster.agent("b"), serial("b"));
    assert!(before.starts_with("serial="), "{before}");
    let (key, folder) = (stage.cluster.file("it/ca.key"), stage.cluster.file(""));
    let renew = ["certs", "renew", "--ca-key", key.to_str().unwrap(), "--dir", folder.to_str().unwrap(), "--node", "b"];
    let told = stage.cluster.run_plain("b", &renew);
    assert!(told.exit == 0 && told.out.contains("in force now"), "asked over TLS, with the token: {} {}", told.out, told.err);
    assert_ne!(serial("b"), before);
    assert_eq!(stage.cluster.agent("b"), agent, "without a restart");
}

/// On loopback it speaks plain HTTP as ever, and asks for a token where one is named; the demo and every other test show it without.
#[test]
fn on_loopback_a_token_that_is_named_is_asked_for() {
    let _alone = alone();
    let cluster = Site::new(1).asking_for(TOKEN).web().start_whole();
    let url = cluster.client("a").url().to_owned();
    assert!(url.starts_with("http://"));
    let curl = |path: &str, more: &[&str]| {
        let output =
            Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]).args(more).arg(format!("{url}{path}")).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    for path in ["/api/v1/status", "/metrics"] {
        assert_eq!(curl(path, &[]), "401");
        assert_eq!(curl(path, &["-H", &format!("Authorization: Bearer {OTHER}")]), "401");
        assert_eq!(curl(path, &["-H", &format!("Authorization: Bearer {TOKEN}")]), "200");
    }
    assert_eq!(curl("/health", &[]), "200");
    let told = run(&["--api", &url, "pause", "web", "--yes"]);
    assert!(told.exit == 1 && told.err.contains("HW0425"), "{} {}", told.exit, told.err);
    let mut command = hotwarm();
    command.env("HOTWARM_API", &url).env("HOTWARM_API_TOKEN_FILE", cluster.site.token.as_ref().unwrap()).args(["pause", "web", "--yes"]);
    assert!(command.output().unwrap().status.success());
    assert!(cluster.group("web").pause != "no");
    cluster.finish(TRIED);
}

/// The program, ended after a while: a node that starts where it should not would go on.
fn bounded() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "60", HOTWARM]).stdin(Stdio::null());
    for name in STEERING {
        command.env_remove(name);
    }
    command
}

/// What a node cannot start with, at its place in the file; `check` says the same on the machine itself, and what its API could not open with.
#[test]
fn a_node_does_not_start_with_an_api_that_anybody_could_use() {
    let dir = tempfile::tempdir().unwrap();
    let (file, token, data) = (dir.path().join("hotwarm.toml"), dir.path().join("api.token"), dir.path().join("data"));
    let says = |commands: &[&str], api: &str, more: &str, code: &str, place: &str, said: &str| {
        let text = format!(
            "[cluster]\nname = \"it\"\nnodes = {{ a = \"127.0.0.1:1\" }}\n[node]\nname = \"a\"\ndata = \"{}\"\napi = \"{api}\"\n{more}",
            data.display()
        );
        fs::write(&file, text).unwrap();
        fs::write(dir.path().join("node"), "a\n").unwrap();
        for command in commands {
            let output = bounded().arg("--config").arg(&file).arg(command).output().unwrap();
            let told = String::from_utf8(output.stderr).unwrap();
            let is_it = told.contains(&format!("error[{code}]")) && told.contains(place) && told.contains(said);
            assert!(output.status.code() == Some(1) && is_it, "{command}: {} {told}", output.status);
            assert!(told.contains(&format!("docs/reference/errors/{code}.md")) && !told.contains(TOKEN), "{told}");
        }
        assert!(!data.exists(), "nothing was begun");
    };
    let named = format!("api_token = \"{}\"\n", token.display());
    let local = "127.0.0.1:7401";
    // What may be mended while it runs keeps no node from running, without its API: that is another test.
    let (both, check): (&[&str], &[&str]) = (&["run", "check"], &["check"]);
    says(both, "10.0.0.1:7401", "", "HW0118", "toml:7:7", "would be open to whoever reaches it");
    says(check, local, &named, "HW0125", "toml:8:13", "no file");
    fs::create_dir(&token).unwrap();
    says(check, local, &named, "HW0125", "toml:8:13", "is no file");
    fs::remove_dir(&token).unwrap();
    for (text, said) in [("", "is empty"), ("x", "holds 1 characters"), (&*"x".repeat(5000), "more than 4096 bytes"), ("x\ny", "one line")]
    {
        secret(&token, text);
        says(check, local, &named, "HW0125", "toml:8:13", said);
    }
    secret(&token, TOKEN);
    fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    says(check, local, &named, "HW0125", "toml:8:13", "(mode 0644)");
    secret(&token, TOKEN);
    says(check, "10.0.0.1:7401", &named, "HW0118", "toml:7:7", "no certificate");
    let inside = format!("api_token = \"{}/api.token\"\n", data.display());
    says(both, local, &inside, "HW0125", "toml:8:13", "in its data directory");
}
