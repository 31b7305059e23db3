//! `hotwarm certs`: how long the certificates last, and new ones before they end.
//!
//! Renewing needs the CA key, which is best kept away from the nodes: it writes join files, and `hotwarm join` on each node takes them in
//! while it runs. Where it is run on a node of the cluster, that node's own certificate is installed at once.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, Subcommand};
use hotwarm_core::ids::NodeId;
use serde_json::json;

use super::failure::{Failure, print};
use super::join::{self, InForce, Layout};
use super::{Global, NodeArg, files, load, read_config};
use crate::codes::Code;
use crate::config::{self, pki};

/// Show how long certificates last; make new ones
#[derive(Debug, Args)]
pub struct CertsArgs {
    #[command(subcommand)]
    command: CertsCommand,
}

#[derive(Debug, Subcommand)]
enum CertsCommand {
    /// Show who certificates are for and when they expire
    Show(ShowArgs),
    /// Make new keys and certificates with the CA key: this node's is installed, the others' are written as join files
    Renew(RenewArgs),
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// PEM files [default: this node's own certificate and the CA's]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    node: NodeArg,
}

#[derive(Debug, Args)]
struct RenewArgs {
    /// The CA key that `hotwarm init` wrote
    #[arg(long, value_name = "FILE")]
    ca_key: PathBuf,
    /// Nodes that get a new certificate [default: every node of the configuration]
    #[arg(long, value_delimiter = ',', value_name = "NODE")]
    node: Vec<String>,
    /// Where the join files are written; those that are there are replaced
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

pub(super) fn certs(args: &CertsArgs, global: &Global) -> Result<(), Failure> {
    match &args.command {
        CertsCommand::Show(args) => show(args, global),
        CertsCommand::Renew(args) => renew(args, global),
    }
}

fn show(args: &ShowArgs, global: &Global) -> Result<(), Failure> {
    let paths = if args.files.is_empty() {
        let (config, _) = load(global, &args.node)?;
        let layout = Layout::new(Path::new("/"), &global.config, &config.node.data);
        vec![layout.tls("node.pem"), layout.tls("ca.pem")]
    } else {
        args.files.clone()
    };
    let now = SystemTime::now();
    let (mut rows, mut invalid) = (Vec::new(), false);
    for path in &paths {
        let identity = pki::identity(&files::read(path)?).map_err(|error| failed(path, &error))?;
        let valid = identity.valid_at(now);
        invalid |= valid.is_err();
        rows.push((path, identity, valid));
    }
    if global.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(path, identity, valid)| {
                json!({ "file": path, "identity": identity, "days_left": identity.days_left(now), "valid": valid.is_ok() })
            })
            .collect();
        print(&format!("{:#}\n", json!(rows)))?;
    } else {
        for (path, identity, valid) in &rows {
            let who = identity.node.as_ref().map_or_else(|| "CA".to_owned(), |node| format!("node {node}"));
            let state = valid.as_ref().err().cloned().unwrap_or_else(|| format!("{} days left", identity.days_left(now)));
            print(&format!("{who:<12} of {:<12} {state:<24} {}\n", identity.cluster, path.display()))?;
        }
    }
    if invalid {
        return Err(
            Failure::failed(Code::CERTIFICATE, "a certificate is not valid").hint("make new ones: hotwarm certs renew --ca-key FILE")
        );
    }
    Ok(())
}

fn renew(args: &RenewArgs, global: &Global) -> Result<(), Failure> {
    let now = SystemTime::now();
    let ca = pki::Ca::from_pem(&files::read(&args.ca_key)?)
        .map_err(|error| Failure::failed(Code::CA_KEY, format!("{}: {error}", args.ca_key.display())))?;
    let text = read_config(&config_beside(&args.ca_key, global))?;
    let config = config::parse(&text, &config_beside(&args.ca_key, global).to_string_lossy(), None)?;
    if config.cluster.name != ca.cluster() {
        let message = format!("the CA is of cluster {}, the configuration of {}", ca.cluster(), config.cluster.name);
        return Err(Failure::failed(Code::CA_KEY, message).hint("give the cluster's configuration with --config"));
    }
    let mut nodes: Vec<NodeId> = args.node.iter().map(NodeId::new).collect();
    if let Some(unknown) = nodes.iter().find(|node| !config.cluster.nodes.contains_key(*node)) {
        return Err(Failure::failed(Code::UNKNOWN_NODE, format!("the cluster has no node `{unknown}`")));
    }
    if nodes.is_empty() {
        nodes = config.cluster.nodes.keys().cloned().collect();
    }
    let here = this_machine(global);
    if let Some(layout) = &here {
        belongs(&ca, &args.ca_key, layout)?;
    }
    if !args.dir.is_dir() {
        files::folder(&args.dir, 0o700)?;
    }
    let (mut written, mut own) = (Vec::new(), None);
    for node in &nodes {
        let path = args.dir.join(format!("{node}.join"));
        // Without the right to bootstrap: the cluster was born.
        let join = pki::JoinFile::issue(&ca, node, &text, None, now).map_err(|error| failed(&path, &error))?;
        match &here {
            // What is not this cluster's, or may not be looked at, gets a file like any other.
            Some(layout) if join::renews(layout, &join).unwrap_or(false) => {
                join::install(layout, &join, true)?;
                own = Some((node, join::put_in_force(layout, &join, global)?));
            }
            _ => {
                let pem = join.to_pem().map_err(|error| failed(&path, &error))?;
                files::write(&path, pem.as_bytes(), files::SECRET)?;
                written.push(path);
            }
        }
    }
    if global.json {
        let own = own.map(|(node, in_force)| json!({ "node": node, "in_force": in_force == InForce::Now }));
        return print(&format!("{}\n", json!({ "files": written, "installed": own })));
    }
    if let Some((node, in_force)) = own {
        print(&format!("node {node}, this machine: installed, {}\n", in_force.text()))?;
    }
    for path in &written {
        print(&format!("{}\n", path.display()))?;
    }
    if written.is_empty() {
        return Ok(());
    }
    print(
        "next, for each file: copy it to its node, there `sudo hotwarm join NODE.join`, which installs it in the running node; delete the file\n",
    )
}

/// Refuses a CA key that is not the one that this machine's node trusts: the other nodes would refuse what it signs.
fn belongs(ca: &pki::Ca, key: &Path, layout: &Layout) -> Result<(), Failure> {
    let path = layout.tls("ca.pem");
    // On a machine that is no node, or where it may not be read, nothing is known of it.
    let Ok(Some(trusted)) = files::read_if_there(&path) else { return Ok(()) };
    if trusted == ca.certificate() || !pki::identity(&trusted).is_ok_and(|identity| identity.cluster == ca.cluster()) {
        return Ok(());
    }
    let message = format!(
        "{} is the key of another authority of that name ({}) than {}, which this node trusts ({})",
        key.display(),
        join::authority(Some(ca.certificate())),
        path.display(),
        join::authority(Some(&trusted))
    );
    Err(Failure::failed(Code::CA_KEY, message)
        .hint("give the ca.key that `hotwarm init` wrote for this cluster; nothing was written, and the certificates that are there go on"))
}

/// Where the keys of the node that this machine is would be; `None` on a machine that is no node.
fn this_machine(global: &Global) -> Option<Layout> {
    let text = read_config(&global.config).ok()?;
    let node = std::env::var("HOTWARM_NODE").ok().map(NodeId::new).or_else(|| super::installed_name(&global.config));
    let config = config::parse(&text, "", node.as_ref()).ok()?;
    Some(Layout::new(Path::new("/"), &global.config, &config.node.data))
}

/// The CA key's neighbour, as `init` wrote them, unless the user names another.
fn config_beside(ca_key: &Path, global: &Global) -> PathBuf {
    let beside = ca_key.with_file_name("hotwarm.toml");
    if global.config == Path::new(super::DEFAULT_CONFIG) && beside.exists() { beside } else { global.config.clone() }
}

fn failed(path: &Path, error: &pki::Error) -> Failure {
    Failure::failed(Code::CERTIFICATE, format!("{}: {error}", path.display()))
}
