//! `hotwarm init`: a new cluster's folder, with configuration, CA key and one join file a node.
//!
//! Everything is made in a folder of another name first and renamed at the end: the folder is whole or absent. It never overwrites.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use hotwarm_core::ids::NodeId;

use super::failure::{Failure, print};
use super::{Global, files};
use crate::codes::Code;
use crate::config::{self, pki};

/// Make a new cluster: configuration, CA key, and a join file for each node
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Name of the cluster: 1 to 32 of a-z, 0-9, -
    #[arg(value_name = "NAME")]
    name: String,
    /// Every node and its IP address; without a port, 7400
    #[arg(long, required = true, value_delimiter = ',', value_name = "NAME=IP[:PORT]", value_parser = node)]
    nodes: Vec<(String, SocketAddr)>,
    /// Nodes that vote and host nothing
    #[arg(long, value_delimiter = ',', value_name = "NODE")]
    witness: Vec<String>,
    /// Nodes that route and do not vote
    #[arg(long, value_delimiter = ',', value_name = "NODE")]
    edge: Vec<String>,
    /// Where the folder NAME is made
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// The data directory on the nodes; nodes that share a machine add -NODE to it
    #[arg(long, value_name = "DIR", default_value = "/var/lib/hotwarm")]
    data: PathBuf,
}

const PEER_PORT: u16 = 7400;

fn node(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("write NAME=IP, such as a=10.0.0.1")?;
    let parsed = address.parse::<SocketAddr>().or_else(|_| address.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PEER_PORT)));
    parsed.map(|address| (name.to_owned(), address)).map_err(|_| format!("`{address}` is not an IP address with or without a port"))
}

pub(super) fn init(args: &InitArgs, global: &Global) -> Result<(), Failure> {
    let folder = args.dir.join(&args.name);
    let text = template(args);
    let parsed = config::examine(&text, &folder.join("hotwarm.toml").to_string_lossy(), None);
    let Some(config) = parsed.config else { return Err(Failure::from(parsed.found)) };
    if folder.exists() {
        return Err(Failure::refused(Code::FILE_EXISTS, format!("{} is already there", folder.display()))
            .hint("give another name or --dir; a second CA for a running cluster would lock its nodes out"));
    }
    write(&folder, &text, &config)?;
    for warning in &parsed.found.warnings {
        super::failure::tell(&warning.to_string());
    }
    if global.json {
        let nodes: Vec<_> = config.cluster.nodes.keys().collect();
        return print(&format!("{}\n", serde_json::json!({ "folder": folder, "nodes": nodes, "bootstraps": bootstrapper(&config) })));
    }
    print(&next_steps(&folder, &config))
}

/// The node that gets the right to bootstrap: one that holds data if there is one.
fn bootstrapper(config: &config::Config) -> Option<&NodeId> {
    let cluster = &config.cluster;
    let mut voters = cluster.nodes.keys().filter(|node| !cluster.edge.contains(*node));
    let first = voters.clone().next();
    voters.find(|node| !cluster.witness.contains(*node)).or(first)
}

fn write(folder: &Path, text: &str, config: &config::Config) -> Result<(), Failure> {
    let mut partial = folder.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(|error| files::refused(&partial, &error))?;
    }
    files::folder(&partial, 0o700)?;
    let now = SystemTime::now();
    let make = |error: pki::Error| Failure::failed(Code::CERTIFICATE, error.to_string());
    let ca = pki::Ca::create(&config.cluster.name, now).map_err(make)?;
    files::write(&partial.join("hotwarm.toml"), text.as_bytes(), files::PUBLIC)?;
    files::write(&partial.join("ca.key"), ca.to_pem().as_bytes(), files::SECRET)?;
    for node in config.cluster.nodes.keys() {
        let right = if bootstrapper(config) == Some(node) { Some(pki::Bootstrap::new().map_err(make)?) } else { None };
        let join = pki::JoinFile::issue(&ca, node, text, right, now).and_then(|join| join.to_pem()).map_err(make)?;
        files::write(&partial.join(format!("{node}.join")), join.as_bytes(), files::SECRET)?;
    }
    fs::rename(&partial, folder).map_err(|error| files::refused(folder, &error))
}

fn next_steps(folder: &Path, config: &config::Config) -> String {
    let at = folder.display();
    let mut text = format!(
        "{at}/hotwarm.toml  the configuration, with an example group\n{at}/ca.key        signs certificates: keep it offline, `hotwarm certs renew` needs it\n"
    );
    for node in config.cluster.nodes.keys() {
        let right = if bootstrapper(config) == Some(node) { "; may bootstrap the cluster, once" } else { "" };
        text.push_str(&format!("{at}/{node}.join  for node {node}{right}\n"));
    }
    text.push_str(&format!(
        "on each node hotwarm keeps its data in {} (`data` in the file; --data chooses another)\n",
        config.node.data.display()
    ));
    text.push_str("\nnext, for each node:\n");
    for (node, address) in &config.cluster.nodes {
        let ip = address.ip();
        let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        text.push_str(&format!("  scp {at}/{node}.join {host}: && ssh {ip} sudo hotwarm join {node}.join\n"));
    }
    text.push_str(&format!("then add your groups to {at}/hotwarm.toml and bring them in: hotwarm apply {at}/hotwarm.toml\n"));
    text
}

fn template(args: &InitArgs) -> String {
    let quoted = |names: &[String]| names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let nodes: Vec<String> = args.nodes.iter().map(|(name, address)| format!("{} = \"{address}\"", key(name))).collect();
    let mut text = format!(
        "# The configuration of the cluster {name}: the same file on every node.\n\
         # `hotwarm check FILE` tells all that is wrong with it; `hotwarm apply FILE` brings a change into the running cluster.\n\
         # Every key is described in docs/reference/configuration.md.\n\n\
         [cluster]\nname  = \"{name}\"\nnodes = {{ {} }}\n",
        nodes.join(", "),
        name = args.name,
    );
    if !args.witness.is_empty() {
        text.push_str(&format!("witness = [{}]    # votes, hosts no member, opens no group's listener\n", quoted(&args.witness)));
    }
    if !args.edge.is_empty() {
        text.push_str(&format!("edge = [{}]    # routes, does not vote\n", quoted(&args.edge)));
    }
    text.push_str("# zones = { a = \"room-1\", b = \"room-2\" }    # which nodes fail together\n");
    let data = args.data.display().to_string();
    text.push_str(&format!("\n[node]\ndata = {data:?}\napi  = \"127.0.0.1:7401\"    # for operators, on the machine itself\n"));
    text.push_str(&shared_machines(args));
    text.push_str(&example(args));
    text
}

/// Nodes on one machine get ports and folders of their own.
fn shared_machines(args: &InitArgs) -> String {
    let mut text = String::new();
    for (name, address) in &args.nodes {
        if args.nodes.iter().filter(|(_, other)| other.ip() == address.ip()).count() > 1 {
            let api = address.port().saturating_add(1);
            let data = format!("{}-{name}", args.data.display());
            text.push_str(&format!("\n[node.{}]\ndata = {data:?}\napi  = \"127.0.0.1:{api}\"\n", key(name)));
        }
    }
    text
}

/// What is no bare key is quoted, so that the error about the name can point to it.
fn key(name: &str) -> String {
    if config::is_name(name) { name.to_owned() } else { format!("\"{}\"", name.escape_default()) }
}

fn example(args: &InitArgs) -> String {
    let hosts: Vec<_> = args.nodes.iter().filter(|(name, _)| !args.witness.contains(name) && !args.edge.contains(name)).collect();
    let member = |((name, address), n): (&&(String, SocketAddr), u16)| {
        let port = if shared(&hosts) { 9080 + n } else { 9080 };
        format!("{} = \"{}\"", key(name), SocketAddr::new(address.ip(), port))
    };
    let members: Vec<String> = hosts.iter().zip(0..1_000).map(member).collect();
    format!(
        "\n# An example group: nginx on every node, one address for clients. Take the hashes away and make it yours.\n\
         # [group.web]\n\
         # mode     = \"hot-hot\"       # all serve; \"hot-warm\": one serves, the others wait\n\
         # listen   = {}  # where clients come, on every node but witnesses\n\
         # protocol = \"http\"          # or \"tcp\"\n\
         # engine   = {{ process = [\"nginx\", \"-g\", \"daemon off;\", \"-c\", \"/etc/nginx/web.conf\"] }}\n\
         # members  = {{ {} }}\n\
         # check    = {{ http = \"/\" }}\n",
        listen(&hosts),
        members.join(", ")
    )
}

/// True if several of the nodes are on one machine.
fn shared(hosts: &[&(String, SocketAddr)]) -> bool {
    hosts.iter().any(|(name, address)| hosts.iter().any(|(other, second)| other != name && second.ip() == address.ip()))
}

fn listen(hosts: &[&(String, SocketAddr)]) -> String {
    if !shared(hosts) {
        return "\"0.0.0.0:8080\"".into();
    }
    let each: Vec<String> = hosts.iter().zip(8080_u16..).map(|((name, _), port)| format!("{} = \"0.0.0.0:{port}\"", key(name))).collect();
    format!("{{ {} }}", each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_goes_to_an_ipv6_address_in_brackets() {
        let text = "[cluster]\nname = \"x\"\nnodes = { a = \"[2001:db8::1]:7400\" }\n";
        let told = next_steps(Path::new("x"), &config::parse(text, "f", None).unwrap());
        assert!(told.contains("scp x/a.join [2001:db8::1]: && ssh 2001:db8::1 sudo hotwarm join a.join\n"), "{told}");
    }
}
