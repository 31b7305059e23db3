//! `hotwarm join`: makes this machine the node that a join file is for.
//!
//! It verifies the file whole before it writes anything. On a machine that is this node already it renews key and certificate, which the
//! running node takes up at once, and leaves the rest alone; a machine of another cluster or another node is refused. The right to bootstrap is installed only where nothing ever ran (S11).

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;

use super::failure::{Exit, Failure, print, tell};
use super::{DEFAULT_CONFIG, Global, files, remote, unit};
use crate::api::client::Client;
use crate::api::types::{Reloaded, Status};
use crate::codes::Code;
use crate::config::{self, pki};

/// Make this machine a node: install a join file's key, certificate and configuration
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The join file that `hotwarm init` wrote for this machine
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Install below this directory instead of /
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
    /// Write the systemd unit hotwarm.service even where systemd does not run [default: only where it runs]
    #[arg(long)]
    unit: bool,
    /// Have the unit run as this user, who then owns the data directory: enough where all members run as this user [default: root]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

/// Where a node's own things are, below `root`.
pub(super) struct Layout {
    config: PathBuf,
    pub(super) data: PathBuf,
}

impl Layout {
    pub(super) fn new(root: &Path, config: &Path, data: &Path) -> Self {
        let below = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
        // Absolute: the unit that names it is read elsewhere.
        let given = || std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
        Self { config: if config == Path::new(DEFAULT_CONFIG) { below(config) } else { given() }, data: below(data) }
    }

    pub(super) fn tls(&self, name: &str) -> PathBuf {
        self.data.join("tls").join(name)
    }

    /// True if hotwarm ever ran on this data.
    fn has_lived(&self) -> bool {
        ["VERSION", "cluster", "wal", "snap"].iter().any(|name| self.data.join(name).exists())
    }
}

pub(super) fn join(args: &JoinArgs, global: &Global) -> Result<(), Failure> {
    let text = files::read(&args.file)?;
    let file = pki::JoinFile::from_pem(&text, SystemTime::now())
        .map_err(|error| Failure::failed(Code::JOIN_FILE, format!("{}: {error}", args.file.display())))?;
    let config = config::parse(&file.config, "the join file's configuration", Some(&file.node))?;
    let layout = Layout::new(&args.root, &global.config, &config.node.data);
    let renewal = renews(&layout, &file)?;
    is_newest(&layout, &file)?;
    let old = files::read_if_there(&layout.config)?;
    if !renewal && old.is_some_and(|old| old != file.config) {
        return Err(Failure::refused(Code::FILE_EXISTS, format!("{} is there and says something else", layout.config.display()))
            .hint("move it away; what the cluster runs with is changed by `hotwarm apply`"));
    }
    if !renewal {
        suits(&layout.data)?;
    }
    files::folder(&layout.data, 0o700)?;
    if let Some(user) = args.user.as_deref().filter(|_| !renewal) {
        unit::give(&layout.data, user)?;
    }
    install(&layout, &file, renewal)?;
    let unit = unit::write(&args.root, args.unit, &layout.config, args.user.as_deref())?;
    let in_force = if renewal { Some(put_in_force(&layout, &file, global)?) } else { None };
    report(&layout, &file, in_force, unit.as_deref(), global)
}

/// Refuses a certificate that the other nodes refuse, and one that was replaced already: a join file that somebody kept.
fn is_newest(layout: &Layout, file: &pki::JoinFile) -> Result<(), Failure> {
    let unreadable = |error: pki::Error| Failure::failed(Code::CERTIFICATE, error.to_string());
    let new = pki::identity(&file.issued.certificate).map_err(unreadable)?;
    let list = layout.tls("revoked");
    let revoked = pki::revoked(&files::read_if_there(&list)?.unwrap_or_default()).map_err(|line| {
        let text = format!("line {line} of {} is no certificate's serial number", list.display());
        Failure::failed(Code::CERTIFICATE, text).hint("correct that line, then join again; nothing was installed")
    })?;
    let anew = format!(
        "nothing was installed; where the CA key is, `hotwarm certs renew --ca-key FILE --node {}` makes a new join file; delete this one",
        file.node
    );
    if pki::is_revoked(&revoked, &new.serial) {
        let text = format!("the file's certificate (serial {}) is revoked in {}: no node would let it in", new.serial, list.display());
        return Err(Failure::refused(Code::CERTIFICATE, text).hint(anew));
    }
    let own = layout.tls("node.pem");
    let Some(installed) = files::read_if_there(&own)?.and_then(|pem| pki::identity(&pem).ok()) else { return Ok(()) };
    if (new.not_before, new.not_after) < (installed.not_before, installed.not_after) {
        let text = format!(
            "the file's certificate (serial {}) is older than the installed one (serial {}), which replaced it",
            new.serial, installed.serial
        );
        return Err(Failure::refused(Code::CERTIFICATE, text)
            .hint(format!("{anew}; if it is the installed one that is wrong, move {} away and join again", own.display())));
    }
    Ok(())
}

/// Refuses what is not hotwarm's before its mode, its owner or anything in it is changed.
fn suits(data: &Path) -> Result<(), Failure> {
    config::data::fit(data).map_err(|unfit| match unfit {
        config::data::Unfit::Unreadable { path, source } => files::refused(&path, &source),
        unfit => Failure::refused(Code::DATA_DIRECTORY, unfit.to_string()).hint(
            "nothing was changed; make the files anew with `hotwarm init --data` and a directory of hotwarm's own, or empty this one if nobody needs it",
        ),
    })
}

/// When a renewed certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InForce {
    Now,
    /// The node does not run, or it is not known where it answers.
    NextStart,
}

impl InForce {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Now => "in force now: the running node uses it, and nothing was interrupted",
            Self::NextStart => "in force at the node's next start: it did not answer, so if it runs, `sudo systemctl restart hotwarm`",
        }
    }
}

/// Has the running node take up what was installed.
///
/// # Errors
/// It answers and does not take it; the old certificate goes on.
pub(super) fn put_in_force(layout: &Layout, file: &pki::JoinFile, global: &Global) -> Result<InForce, Failure> {
    let own = || {
        let text = std::fs::read_to_string(&layout.config).ok()?;
        config::parse(&text, "", Some(&file.node)).ok()
    };
    let own = own();
    let api = || own.as_ref().map(|config| Client::at(config.node.api));
    let Some(client) = global.api.as_deref().map_or_else(|| Ok(api()), |url| Client::new(url).map(Some))? else {
        return Ok(InForce::NextStart);
    };
    let client = remote::admitted(client, global, own.as_ref(), || Ok(Some(file.ca.clone()))).map_err(|mut failure| {
        failure.message = format!("installed, and the running node was not asked to take it up: {}", failure.message);
        failure
    })?;
    // Who answers there may be another's program, or a node of another cluster: nothing is asked of it.
    if !client.get::<Status>("/api/v1/status").is_ok_and(|status| is_node(&status, file)) {
        return Ok(InForce::NextStart);
    }
    let installed = pki::identity(&file.issued.certificate).map_err(|error| Failure::failed(Code::CERTIFICATE, error.to_string()))?;
    match client.post::<Reloaded>("/api/v1/certificates/reload", &serde_json::json!({})).map_err(Failure::from) {
        Ok(reloaded) if reloaded.certificate.serial == installed.serial => Ok(InForce::Now),
        Ok(_) => Ok(InForce::NextStart),
        Err(failure) if failure.exit == Exit::Unreachable => Ok(InForce::NextStart),
        Err(mut failure) => {
            failure.message = format!("installed, and the running node does not take it up: {}", failure.message);
            Err(failure.hint("its log says more; a restart reads the files again: sudo systemctl restart hotwarm"))
        }
    }
}

/// True for what the node tells that the file is for. Before it hears of its cluster it knows no name.
fn is_node(status: &Status, file: &pki::JoinFile) -> bool {
    status.node.name == file.node.as_str() && (status.cluster.name.is_empty() || status.cluster.name == file.cluster)
}

/// True if the machine is this node already.
pub(super) fn renews(layout: &Layout, file: &pki::JoinFile) -> Result<bool, Failure> {
    let Some(installed) = files::read_if_there(&layout.tls("node.pem"))? else { return Ok(false) };
    let identity = pki::identity(&installed).map_err(|error| {
        Failure::failed(Code::CERTIFICATE, format!("{}: {error}", layout.tls("node.pem").display())).hint("move it away and join again")
    })?;
    let ca = files::read_if_there(&layout.tls("ca.pem"))?;
    if identity.cluster == file.cluster && identity.node.as_ref() == Some(&file.node) && ca.as_deref() == Some(&file.ca) {
        return Ok(true);
    }
    if identity.cluster == file.cluster && identity.node.as_ref() == Some(&file.node) {
        let message = format!(
            "this machine is node {} of cluster {} and trusts another authority ({}) than the one that signed the file ({})",
            file.node,
            file.cluster,
            authority(ca.as_deref()),
            authority(Some(&file.ca))
        );
        return Err(Failure::refused(Code::OTHER_CLUSTER, message).hint(
            "the file was made with another ca.key: make it with the one that `hotwarm init` wrote for this cluster; two clusters may have one name",
        ));
    }
    let is = identity.node.map_or_else(|| "a CA".to_owned(), |node| format!("node {node}"));
    let message = format!("this machine is {is} of a cluster {}, the file is for node {} of {}", identity.cluster, file.node, file.cluster);
    Err(Failure::refused(Code::OTHER_CLUSTER, message)
        .hint(format!("run `hotwarm leave` first, or move {} away if that cluster is gone", layout.data.display())))
}

/// An authority's certificate as people can compare it.
pub(super) fn authority(certificate: Option<&str>) -> String {
    let shown = certificate.map(|pem| pki::fingerprint(pem).map_or_else(|_| "damaged".to_owned(), |print| format!("SHA-256 {print}...")));
    shown.unwrap_or_else(|| "its ca.pem is missing".to_owned())
}

pub(super) fn install(layout: &Layout, file: &pki::JoinFile, renewal: bool) -> Result<(), Failure> {
    // The name first and the certificate last: until that is there, joining again does everything again.
    if !renewal {
        if let Some(folder) = layout.config.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
            files::folder(folder, 0o755)?;
        }
        files::write(&layout.config, file.config.as_bytes(), files::PUBLIC)?;
        files::write(&files::name_file(&layout.config), format!("{}\n", file.node).as_bytes(), files::PUBLIC)?;
        if let Some(right) = file.bootstrap.as_ref().filter(|_| !layout.has_lived()) {
            files::write(&layout.data.join("bootstrap"), format!("{}\n", right.as_str()).as_bytes(), files::SECRET)?;
        }
    }
    // What an operator revoked stays revoked.
    let revoked = files::read_if_there(&layout.tls("revoked"))?;
    let mut all = vec![
        ("ca.pem", file.ca.as_bytes(), files::PUBLIC),
        ("node.key", file.issued.key.as_bytes(), files::SECRET),
        ("node.pem", file.issued.certificate.as_bytes(), files::PUBLIC),
    ];
    all.extend(revoked.as_ref().map(|list| ("revoked", list.as_bytes(), files::PUBLIC)));
    files::replace_folder(&layout.data.join("tls"), &all)
}

fn report(layout: &Layout, file: &pki::JoinFile, in_force: Option<InForce>, unit: Option<&Path>, global: &Global) -> Result<(), Failure> {
    if global.json {
        let done = serde_json::json!({
            "cluster": file.cluster, "node": file.node, "renewed": in_force.is_some(), "in_force": in_force == Some(InForce::Now), "config": layout.config, "data": layout.data, "unit": unit,
        });
        return print(&format!("{done}\n"));
    }
    if let Some(in_force) = in_force {
        return print(&format!(
            "node {} of {}: key and certificate renewed, {}\nthe configuration was left as it is; the join file holds a private key: delete it\n",
            file.node,
            file.cluster,
            in_force.text()
        ));
    }
    if unit.is_some() && std::env::current_exe().is_ok_and(|program| program.components().any(|part| part.as_os_str() == "target")) {
        tell(
            "warning: the unit starts the program from a build directory, where the next build replaces it: copy it to /usr/local/bin,\n\
              remove the unit and join again from there",
        );
    }
    print(&format!(
        "this machine is node {} of {}\n  {}\n  {}/tls\nnext:\n{}the join file holds a private key: delete it\n",
        file.node,
        file.cluster,
        layout.config.display(),
        layout.data.display(),
        next_steps(&layout.config, unit.is_some(), global)
    ))
}

/// The commands that come next, for the configuration that this machine has.
fn next_steps(config: &Path, unit: bool, global: &Global) -> String {
    let config = match global.config == Path::new(DEFAULT_CONFIG) {
        true => String::new(),
        false => format!(" --config {}", shell_word(&config.display().to_string())),
    };
    let run = if unit { "sudo systemctl enable --now hotwarm".to_owned() } else { format!("hotwarm run{config}") };
    format!("  {run}\n  hotwarm status{config}\n")
}

/// `text` as a shell reads it back.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_commands_name_the_configuration_that_was_installed() {
        let next = |config: &str, unit| {
            let global = Global { config: config.into(), api: None, api_token: None, api_ca: None, json: false };
            next_steps(&Layout::new(Path::new("/"), &global.config, Path::new("/data/x")).config, unit, &global)
        };
        assert_eq!(next(DEFAULT_CONFIG, false), "  hotwarm run\n  hotwarm status\n");
        assert_eq!(next("/srv/a b's.toml", false).lines().next().unwrap(), "  hotwarm run --config '/srv/a b'\\''s.toml'");
        let here = std::env::current_dir().unwrap().join("x.toml");
        let relative = next("x.toml", true);
        assert!(relative.starts_with("  sudo systemctl enable --now hotwarm\n") && relative.contains(here.to_str().unwrap()), "{relative}");
    }
}
