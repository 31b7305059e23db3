//! What an operator asks of a running node beyond a plain command: certificates, a member's output, a new configuration.
//!
//! It judges a configuration whole before anything changes (promise 6). What blocks here says so; the API calls it off its runtime.

use std::collections::BTreeSet;
use std::fmt::Display;

use hotwarm_core::cluster::What;
use hotwarm_core::ids::MemberId;
use hotwarm_core::node::{Command, CommandError};

use super::handle::Handle;
use super::{StartError, read_revoked, read_tls, spec};
use crate::config::pki::{self, Identity};
use crate::config::{self, Config, Errors, Group};
use crate::engine::Place;
use crate::store::transport::TransportError;

/// Why a configuration is not in force.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    #[error("the configuration is wrong")]
    Wrong(Errors),
    /// A rule of the running cluster forbids it.
    #[error("{}", .0.join("; "))]
    Refused(Vec<String>),
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// A configuration that could come into force, or has.
#[derive(Clone, Debug)]
pub struct Planned {
    /// In force now.
    pub revision: u64,
    /// What it does, a sentence each.
    pub changes: Vec<String>,
    pub warnings: Vec<String>,
}

/// Why certificates are not reloaded.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error(transparent)]
    Read(#[from] StartError),
    #[error(transparent)]
    Refused(#[from] TransportError),
    #[error("certificate not readable: {0}")]
    Certificate(#[from] pki::Error),
    #[error("this node uses no certificates (all nodes are on loopback): nothing to reload")]
    None,
}

impl Handle {
    /// Who this node's certificate in force says it is, and until when; `None` without certificates.
    #[must_use]
    pub fn certificate(&self) -> Option<Identity> {
        self.shared.certificate.load_full().as_ref().clone()
    }

    /// Reads the installed certificates again, and which are revoked. Blocks.
    ///
    /// # Errors
    /// They cannot be read or do not fit together; the old ones stay in force.
    pub fn reload_certificates(&self) -> Result<Identity, ReloadError> {
        if self.certificate().is_none() {
            return Err(ReloadError::None);
        }
        let tls = self.shared.data.join("tls");
        // Whatever becomes of the new ones: what is revoked counts no more.
        self.shared.transport.set_revoked(read_revoked(&tls)?);
        let material = read_tls(&tls)?;
        let identity = pki::identity(&material.certificate)?;
        self.reload_tls(&material)?;
        // Told here, and not refused: what is on the disk is in force.
        self.shared.transport.tell_if_revoked();
        self.shared.certificate.store(Some(identity.clone()).into());
        Ok(identity)
    }

    /// Where a member of this node keeps its files; `None` if it runs elsewhere.
    #[must_use]
    pub fn place(&self, member: &MemberId) -> Option<Place> {
        self.shared.members.load().contains_key(member).then(|| Place::of(&self.shared.data, member))
    }

    /// Judges `text` as the successor of configuration `revision`, and puts it into force unless `dry_run`.
    ///
    /// # Errors
    /// All that is wrong with it, or all that the cluster refuses; nothing has changed then.
    pub async fn configure(&self, text: &str, revision: u64, dry_run: bool) -> Result<Planned, ConfigureError> {
        let parsed = config::examine(text, "the new configuration", None);
        let Some(new) = parsed.config else { return Err(ConfigureError::Wrong(parsed.found)) };
        let warnings = parsed.found.warnings.iter().map(|w| format!("{}: {}", w.code, w.message)).collect();
        let spec = Box::new(spec::cluster(&new));
        let view = self.view();
        let why = view.cluster.refuses(&spec, revision);
        if !why.is_empty() {
            return Err(ConfigureError::Refused(why));
        }
        let planned = Planned { revision, changes: changes(&self.config(), &new), warnings };
        if dry_run {
            return Ok(planned);
        }
        let events = self.command(Command::Configure { spec, revision }).await?;
        for event in events {
            match event.what {
                What::Configured { revision } => return Ok(Planned { revision, ..planned }),
                What::ConfigureRefused { why } => return Err(ConfigureError::Refused(vec![why])),
                _ => {}
            }
        }
        Err(ConfigureError::Command(CommandError::Unconfirmed))
    }
}

/// What becomes different, a sentence each; empty if nothing does.
fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut all = Vec::new();
    compare(&mut all, "node", &old.cluster.nodes, &new.cluster.nodes, |a, b| a != b);
    compare(&mut all, "group", &old.groups, &new.groups, |_, _| false);
    let times = |c: &Config| (c.cluster.lease, c.cluster.heartbeat);
    if times(old) != times(new) {
        let [(lease_old, beat_old), (lease, beat)] = [times(old), times(new)];
        all.push(format!("lease {lease_old:?} -> {lease:?}, heartbeat {beat_old:?} -> {beat:?}"));
    }
    let roles = |c: &Config| (c.cluster.witness.clone(), c.cluster.edge.clone(), c.cluster.zones.clone());
    if roles(old) != roles(new) {
        all.push("witness, edge or zones of nodes change".to_owned());
    }
    for (name, group) in &new.groups {
        if let Some(before) = old.groups.get(name) {
            all.extend(group_changes(before, group));
        }
    }
    if all.is_empty() && old.text != new.text {
        all.push("nothing but the text: comments, order, or settings of single nodes, which count from their next start".to_owned());
    }
    all
}

fn group_changes(old: &Group, new: &Group) -> Vec<String> {
    let name = &new.name;
    let mut all = Vec::new();
    compare(&mut all, "member", &old.members, &new.members, |a, b| a.node != b.node || a.address != b.address);
    if old.engine != new.engine {
        all.push(format!("group {name}: the engine changes; a member that runs goes on as it is, and takes it over when it starts next"));
    }
    let mut differs = |what: &str, differs: bool| {
        if differs {
            all.push(format!("group {name}: {what} change{}", if what.ends_with('s') { "" } else { "s" }));
        }
    };
    differs("mode", old.mode != new.mode);
    differs("listen", old.listen != new.listen);
    differs("check", old.check != new.check);
    differs("balance", old.balance != new.balance);
    differs("limits and timeouts", (old.park, old.http, old.timeouts, old.drain) != (new.park, new.http, new.timeouts, new.drain));
    differs("what may be repeated", old.repeat != new.repeat);
    differs("fence", (&old.fence, old.stateful, old.failovers_per_hour) != (&new.fence, new.stateful, new.failovers_per_hour));
    differs("objective", old.objective != new.objective);
    let weights = |g: &Group| g.members.iter().map(|(id, m)| (id.clone(), m.priority, m.weight)).collect::<BTreeSet<_>>();
    let both = |id: &MemberId| old.members.contains_key(id) && new.members.contains_key(id);
    let of_both = |g: &Group| weights(g).into_iter().filter(|(id, ..)| both(id)).collect::<BTreeSet<_>>();
    differs("priorities or weights", of_both(old) != of_both(new));
    all
}

/// What of `kind` was added, removed or moved.
fn compare<K: Ord + Display, V>(
    all: &mut Vec<String>,
    kind: &str,
    old: &std::collections::BTreeMap<K, V>,
    new: &std::collections::BTreeMap<K, V>,
    moved: impl Fn(&V, &V) -> bool,
) {
    all.extend(new.keys().filter(|key| !old.contains_key(key)).map(|key| format!("{kind} {key} is added")));
    all.extend(old.keys().filter(|key| !new.contains_key(key)).map(|key| format!("{kind} {key} is removed")));
    let both = new.iter().filter(|(key, now)| old.get(key).is_some_and(|before| moved(before, now)));
    all.extend(both.map(|(key, _)| format!("{kind} {key} moves to another address")));
}
