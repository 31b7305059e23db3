//! Tests of the command line: the manual's page, exit codes, and a cluster's files from `init` to a machine that has joined.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Parser;

use super::*;
use crate::config::pki;

fn run(arguments: &[&str]) -> Result<(), Failure> {
    let cli = Cli::try_parse_from([&["hotwarm"], arguments].concat()).unwrap_or_else(|error| panic!("{error}"));
    dispatch(&cli, Wired { run: |_, _| Ok(()), recover_quorum: |_, _, _| unreachable!("no test here recovers") })
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o7777
}

/// A cluster's folder as `init` makes it.
fn initialised(folder: &Path) -> PathBuf {
    let dir = folder.to_str().unwrap();
    run(&["init", "shop", "--nodes", "a=10.0.0.1,b=10.0.0.2,c=10.0.0.3:7500", "--witness", "c", "--dir", dir]).unwrap();
    folder.join("shop")
}

fn join(file: &Path, root: &Path) -> Result<(), Failure> {
    run(&["join", file.to_str().unwrap(), "--root", root.to_str().unwrap()])
}

#[test]
fn the_manual_is_the_help() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
    if std::env::var_os("HOTWARM_REGENERATE").is_some_and(|value| value == "1") {
        fs::write(&path, reference::page()).unwrap();
    }
    assert!(fs::read_to_string(&path).unwrap() == reference::page(), "docs/reference/cli.md differs from --help; run scripts/fix");
}

#[test]
fn the_definition_is_sound() {
    definition().debug_assert();
}

#[test]
fn exit_codes_are_those_of_the_manual() {
    let code = |exit| format!("{:?}", Failure::plain(exit, "x").report(false));
    for (exit, number) in [
        (Exit::Done, 0),
        (Exit::Failed, 1),
        (Exit::Usage, 2),
        (Exit::Refused, 3),
        (Exit::Unreachable, 4),
        (Exit::ObjectiveMissed, 5),
        (Exit::HungUp, 129),
        (Exit::Interrupted, 130),
        (Exit::Terminated, 143),
    ] {
        assert_eq!(code(exit), format!("{:?}", ExitCode::from(number)));
    }
    assert_eq!(Cli::try_parse_from(["hotwarm", "fly"]).unwrap_err().exit_code(), Exit::Usage as i32);
}

/// The last of the demo's ports lies 801 above the first.
#[test]
fn a_demo_beyond_the_last_port_is_wrong_usage() {
    let parse = |port: &str| Cli::try_parse_from(["hotwarm", "demo", "--base-port", port]).map(|_| ()).map_err(|error| error.exit_code());
    assert_eq!(parse("64734"), Ok(()));
    for port in ["64735", "65000", "70000", "0"] {
        assert_eq!(parse(port), Err(Exit::Usage as i32), "{port}");
    }
}

#[test]
fn init_writes_a_whole_folder_with_tight_modes() {
    let temp = tempfile::tempdir().unwrap();
    let shop = initialised(temp.path());
    assert_eq!((mode(&shop), mode(&shop.join("ca.key")), mode(&shop.join("hotwarm.toml"))), (0o700, 0o600, 0o644));
    let mut with_right = Vec::new();
    for node in ["a", "b", "c"] {
        let file = shop.join(format!("{node}.join"));
        assert_eq!(mode(&file), 0o600);
        let read = pki::JoinFile::from_pem(&fs::read_to_string(&file).unwrap(), SystemTime::now()).unwrap();
        assert_eq!((read.cluster.as_str(), read.node.as_str()), ("shop", node));
        with_right.extend(read.bootstrap.map(|_| node));
    }
    assert_eq!(with_right, ["a"]);
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "nothing else is left behind");
    let text = fs::read_to_string(shop.join("hotwarm.toml")).unwrap();
    assert!(text.contains("c = \"10.0.0.3:7500\""));
    // The example becomes a valid group when its hashes are taken away.
    let (head, example) = text.split_once("# An example group").unwrap();
    let example: Vec<&str> = example.lines().skip(1).map(|line| line.trim_start_matches("# ")).collect();
    let config = config::parse(&format!("{head}{}", example.join("\n")), "f", None).unwrap();
    assert_eq!(config.groups.values().next().unwrap().members.len(), 2);
}

#[test]
fn init_refuses_to_overwrite_and_what_cannot_be() {
    let temp = tempfile::tempdir().unwrap();
    let shop = initialised(temp.path());
    let key = fs::read(shop.join("ca.key")).unwrap();
    let dir = temp.path().to_str().unwrap();
    let again = run(&["init", "shop", "--nodes", "a=10.0.0.1", "--dir", dir]).unwrap_err();
    assert_eq!((again.exit, again.code), (Exit::Refused, Some(Code::FILE_EXISTS)));
    assert_eq!(fs::read(shop.join("ca.key")).unwrap(), key);
    let wrong = run(&["init", "Shed", "--nodes", "A=10.0.0.1", "--witness", "x", "--dir", dir]).unwrap_err().to_string();
    for code in [Code::BAD_NAME, Code::UNKNOWN_NODE] {
        assert!(wrong.contains(&code.to_string()), "{wrong}");
    }
    assert!(!temp.path().join("Shed").exists() && !temp.path().join("Shed.partial").exists());
    // Three nodes on one machine get ports of their own.
    run(&["init", "dev", "--nodes", "a=127.0.0.1:7400,b=127.0.0.1:7410,c=127.0.0.1:7420", "--dir", dir]).unwrap();
}

#[test]
fn join_makes_the_machine_that_node() {
    let temp = tempfile::tempdir().unwrap();
    let shop = initialised(temp.path());
    let root = temp.path().join("root-a");
    join(&shop.join("a.join"), &root).unwrap();
    let data = root.join("var/lib/hotwarm");
    for (path, expected) in
        [("", 0o700), ("tls", 0o700), ("tls/ca.pem", 0o644), ("tls/node.pem", 0o644), ("tls/node.key", 0o600), ("bootstrap", 0o600)]
    {
        assert_eq!(mode(&data.join(path)), expected, "{path}");
    }
    let config = root.join("etc/hotwarm/hotwarm.toml");
    assert_eq!(fs::read(&config).unwrap(), fs::read(shop.join("hotwarm.toml")).unwrap());
    let global = Global { config, api: None, api_token: None, api_ca: None, json: false };
    let (_, node) = load(&global, &NodeArg { node: None }).unwrap();
    assert_eq!(node.as_str(), "a");
    // Only one node may bootstrap.
    let root_b = temp.path().join("root-b");
    join(&shop.join("b.join"), &root_b).unwrap();
    assert!(!root_b.join("var/lib/hotwarm/bootstrap").exists());
}

#[test]
fn joining_again_renews_and_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let shop = initialised(temp.path());
    let root = temp.path().join("root");
    let data = root.join("var/lib/hotwarm");
    join(&shop.join("a.join"), &root).unwrap();
    fs::remove_file(data.join("bootstrap")).unwrap();
    fs::create_dir(data.join("wal")).unwrap();
    // The right to bootstrap is not given twice, not even by the first file (S11).
    join(&shop.join("a.join"), &root).unwrap();
    assert!(!data.join("bootstrap").exists());
    let config = root.join("etc/hotwarm/hotwarm.toml");
    fs::write(&config, "# changed since").unwrap();
    let before = fs::read_to_string(data.join("tls/node.pem")).unwrap();
    let (key, renewed) = (shop.join("ca.key"), temp.path().join("renewed"));
    run(&["certs", "renew", "--ca-key", key.to_str().unwrap(), "--dir", renewed.to_str().unwrap(), "--node", "a"]).unwrap();
    assert_eq!((mode(&renewed), mode(&renewed.join("a.join"))), (0o700, 0o600));
    join(&renewed.join("a.join"), &root).unwrap();
    let after = fs::read_to_string(data.join("tls/node.pem")).unwrap();
    assert_ne!(before, after);
    assert_eq!(pki::identity(&after).unwrap().node, Some(NodeId::new("a")));
    assert_eq!(fs::read_to_string(&config).unwrap(), "# changed since");
    assert!(!data.join("bootstrap").exists());
    run(&["certs", "show", data.join("tls/node.pem").to_str().unwrap(), data.join("tls/ca.pem").to_str().unwrap()]).unwrap();
}

#[test]
fn join_refuses_what_belongs_elsewhere_and_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let shop = initialised(temp.path());
    let root = temp.path().join("root");
    join(&shop.join("a.join"), &root).unwrap();
    let key = root.join("var/lib/hotwarm/tls/node.key");
    let before = fs::read(&key).unwrap();
    let other = join(&shop.join("b.join"), &root).unwrap_err();
    assert_eq!((other.exit, other.code), (Exit::Refused, Some(Code::OTHER_CLUSTER)));
    assert_eq!(fs::read(&key).unwrap(), before);
    let damaged = temp.path().join("damaged.join");
    fs::write(&damaged, "nothing").unwrap();
    assert_eq!(join(&damaged, &root).unwrap_err().code, Some(Code::JOIN_FILE));
    let taken = temp.path().join("taken");
    fs::create_dir_all(taken.join("etc/hotwarm")).unwrap();
    fs::write(taken.join("etc/hotwarm/hotwarm.toml"), "# mine").unwrap();
    assert_eq!(join(&shop.join("a.join"), &taken).unwrap_err().code, Some(Code::FILE_EXISTS));
    assert!(!taken.join("var").exists());
}

/// A join file that somebody kept takes no node back to a certificate that was replaced, nor to one that all others refuse.
#[test]
fn a_join_file_that_was_kept_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let shop = initialised(temp.path());
    let root = temp.path().join("root");
    let tls = root.join("var/lib/hotwarm/tls");
    let first = shop.join("a.join");
    let read = |file: &Path| pki::JoinFile::from_pem(&fs::read_to_string(file).unwrap(), SystemTime::now()).unwrap();
    let serial = pki::identity(&read(&first).issued.certificate).unwrap().serial;
    let revoke = |line: &str| fs::write(tls.join("revoked"), line).unwrap();
    let refused = |file: &Path| {
        let installed = fs::read(tls.join("node.pem")).unwrap();
        let failure = join(file, &root).unwrap_err();
        assert_eq!(fs::read(tls.join("node.pem")).unwrap(), installed, "{failure}");
        assert_eq!(failure.code, Some(Code::CERTIFICATE), "{failure}");
        (failure.exit, failure.to_string())
    };
    join(&first, &root).unwrap();
    revoke(&format!("77\nserial=00{}  # stolen\n", serial.to_uppercase()));
    let (exit, told) = refused(&first);
    assert!(exit == Exit::Refused && told.contains(&serial) && told.contains("tls/revoked") && told.contains("certs renew"), "{told}");
    revoke("77\nnode.pem\n");
    let (exit, told) = refused(&first);
    assert!(exit == Exit::Failed && told.contains("line 2 of "), "{told}");
    revoke("77\n");
    // One that is a day newer was installed since.
    let ca = pki::Ca::from_pem(&fs::read_to_string(shop.join("ca.key")).unwrap()).unwrap();
    let later = SystemTime::now() + Duration::from_secs(86_400);
    let next = pki::JoinFile::issue(&ca, &NodeId::new("a"), &read(&first).config, None, later).unwrap();
    let second = temp.path().join("second.join");
    fs::write(&second, next.to_pem().unwrap()).unwrap();
    join(&second, &root).unwrap();
    let (exit, told) = refused(&first);
    assert!(exit == Exit::Refused && told.contains(&serial) && told.contains("is older than the installed one"), "{told}");
    join(&second, &root).unwrap();
}

/// Two authorities of one cluster's name are told apart before anything is written.
#[test]
fn another_authoritys_key_renews_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (first, second) = (temp.path().join("first"), temp.path().join("second"));
    let data = temp.path().join("data/hotwarm");
    let [shop, other] = [&first, &second].map(|folder| {
        let (folder, data) = (folder.to_str().unwrap(), data.to_str().unwrap());
        run(&["init", "shop", "--nodes", "a=10.0.0.1,b=10.0.0.2,c=10.0.0.3", "--dir", folder, "--data", data]).unwrap();
        Path::new(folder).join("shop")
    });
    let config = temp.path().join("etc/hotwarm.toml");
    let with = |arguments: &[&str]| run(&[&["--config", config.to_str().unwrap()], arguments].concat());
    with(&["join", shop.join("a.join").to_str().unwrap()]).unwrap();
    fs::write(data.join("tls/revoked"), "77\n").unwrap();
    let renewed = temp.path().join("renewed");
    let renew = |key: PathBuf| with(&["certs", "renew", "--ca-key", key.to_str().unwrap(), "--dir", renewed.to_str().unwrap()]);
    let prints = [&shop, &other].map(|folder| {
        let ca = pki::Ca::from_pem(&fs::read_to_string(folder.join("ca.key")).unwrap()).unwrap();
        pki::fingerprint(ca.certificate()).unwrap()
    });
    let told = renew(other.join("ca.key")).unwrap_err();
    assert_eq!((told.exit, told.code), (Exit::Failed, Some(Code::CA_KEY)));
    assert!(prints.iter().all(|print| told.to_string().contains(print)) && !renewed.exists(), "{told}");
    let told = with(&["join", other.join("a.join").to_str().unwrap()]).unwrap_err();
    assert_eq!((told.exit, told.code), (Exit::Refused, Some(Code::OTHER_CLUSTER)));
    assert!(prints.iter().all(|print| told.to_string().contains(print)), "{told}");
    let old = fs::read_to_string(data.join("tls/node.pem")).unwrap();
    renew(shop.join("ca.key")).unwrap();
    assert_ne!(fs::read_to_string(data.join("tls/node.pem")).unwrap(), old);
    assert_eq!(fs::read_to_string(data.join("tls/revoked")).unwrap(), "77\n", "what is revoked stays revoked");
    assert!(renewed.join("b.join").exists());
}

#[test]
fn check_tells_good_from_bad() {
    let temp = tempfile::tempdir().unwrap();
    let shop = initialised(temp.path());
    run(&["check", shop.join("hotwarm.toml").to_str().unwrap()]).unwrap();
    run(&["check", shop.join("hotwarm.toml").to_str().unwrap(), "--json"]).unwrap();
    run(&["--config", shop.join("hotwarm.toml").to_str().unwrap(), "check", "--node", "b"]).unwrap();
    let bad = temp.path().join("bad.toml");
    fs::write(&bad, "x = 1\n").unwrap();
    let failure = run(&["check", bad.to_str().unwrap()]).unwrap_err();
    assert_eq!(failure.exit, Exit::Failed);
    assert!(failure.to_string().contains("HW0102"));
    fs::write(&bad, b"[cluster]\nname = \"sh\xf6p\"\n").unwrap();
    let told = run(&["check", bad.to_str().unwrap()]).unwrap_err().to_string();
    assert!(told.contains("HW0101") && told.contains("bad.toml:2:11") && told.contains("0xf6") && told.contains("UTF-8"), "{told}");
    assert_eq!(run(&["check", "/nowhere/hotwarm.toml"]).unwrap_err().code, Some(Code::UNREADABLE_CONFIG));
}

#[test]
fn the_unit_starts_this_program() {
    let temp = tempfile::tempdir().unwrap();
    let shop = initialised(temp.path());
    let root = temp.path().join("root");
    let file = shop.join("a.join");
    run(&["join", file.to_str().unwrap(), "--root", root.to_str().unwrap(), "--unit"]).unwrap();
    let unit = fs::read_to_string(root.join("etc/systemd/system/hotwarm.service")).unwrap();
    assert!(unit.contains(&format!("ExecStart={} run", std::env::current_exe().unwrap().display())));
    assert!(unit.contains("KillMode=process") && !unit.contains("User="));
    // Else it stays down when the cause is gone.
    let (head, service) = unit.split_once("[Service]").unwrap();
    assert!(head.contains("\nStartLimitIntervalSec=0\n") && service.contains("\nRestart=always\n"), "{unit}");
}

/// All that an agent of that user must read is that user's, also after the root that joined it comes again with a new certificate.
#[test]
fn a_unit_of_a_user_comes_with_a_data_directory_of_that_user() {
    let temp = tempfile::tempdir().unwrap();
    let shop = initialised(temp.path());
    let root = temp.path().join("root");
    let (user, uid) = if rustix::process::geteuid().is_root() {
        ("nobody".to_owned(), "65534".to_owned())
    } else {
        let ask =
            |what: &str| String::from_utf8(std::process::Command::new("id").arg(what).output().unwrap().stdout).unwrap().trim().to_owned();
        (ask("-un"), ask("-u"))
    };
    let join = |file: &Path, user: &str| run(&["join", file.to_str().unwrap(), "--root", root.to_str().unwrap(), "--unit", "--user", user]);
    let stranger = join(&shop.join("a.join"), "no-such-user").unwrap_err();
    assert!(stranger.code == Some(Code::NOT_PERMITTED) && stranger.to_string().contains("useradd"), "{stranger}");
    for again in [false, true] {
        join(&shop.join("a.join"), &user).unwrap();
        for name in ["", "tls", "tls/ca.pem", "tls/node.pem", "tls/node.key", "bootstrap"] {
            let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(root.join("var/lib/hotwarm").join(name)).unwrap());
            assert_eq!(owner.to_string(), uid, "{name}, again: {again}");
        }
    }
    let unit = fs::read_to_string(root.join("etc/systemd/system/hotwarm.service")).unwrap();
    assert!(unit.contains(&format!("User={user}\n")) && unit.contains("AmbientCapabilities=CAP_NET_BIND_SERVICE\n"), "{unit}");
}

/// A mistyped data directory costs nothing: no mode is changed, nothing is put there, nothing of the node is written.
#[test]
fn what_is_not_hotwarms_is_no_data_directory() {
    let temp = tempfile::tempdir().unwrap();
    let shop = initialised(temp.path());
    let root = temp.path().join("root");
    let data = root.join("var/lib/hotwarm");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("photo.jpg"), "x").unwrap();
    fs::set_permissions(&data, PermissionsExt::from_mode(0o755)).unwrap();
    let refused = join(&shop.join("a.join"), &root).unwrap_err();
    assert_eq!((refused.exit, refused.code), (Exit::Refused, Some(Code::DATA_DIRECTORY)));
    assert!(refused.to_string().contains("photo.jpg"), "{refused}");
    assert_eq!((mode(&data), fs::read_dir(&data).unwrap().count()), (0o755, 1));
    assert!(!root.join("etc").exists());

    let file = temp.path().join("hotwarm.toml");
    let shown = data.display().to_string();
    let check = |other: &str, node: &str| {
        let text = fs::read_to_string(shop.join("hotwarm.toml")).unwrap();
        let text = text.replace("data = \"/var/lib/hotwarm\"", &format!("data = \"{shown}\"\n[node.b]\ndata = \"{other}\""));
        fs::write(&file, text).unwrap();
        let mut arguments = vec!["check", file.to_str().unwrap()];
        arguments.extend(["--node", node].into_iter().filter(|_| !node.is_empty()));
        run(&arguments)
    };
    let photo = data.join("photo.jpg").display().to_string();
    let told = check(&photo, "").unwrap_err().to_string();
    assert!(
        told.contains("photo.jpg\", which is not hotwarm's") && told.contains("is no directory") && told.contains("2 errors"),
        "{told}"
    );
    // Another node's directory is on another machine.
    assert!(check(&photo, "b").unwrap_err().to_string().contains("1 error"));
    check("/srv/hotwarm-of-b", "b").unwrap();
    fs::write(temp.path().join("node"), "b\n").unwrap();
    check("/srv/hotwarm-of-b", "").unwrap();
    assert!(check("/srv/hotwarm-of-b", "a").is_err());
}
