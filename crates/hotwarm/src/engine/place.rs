//! Where a member's files are, what its environment holds, and the number of its next life.
//!
//! The number of a life is on disk before the life begins (S4). Main path: [`Place::of`], [`next_incarnation`], [`environment`].

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use hotwarm_core::ids::{Epoch, Incarnation, MemberId, Role};

use crate::fence::guard::OUTPUT_FILE;

const INCARNATION_FILE: &str = "incarnation";
const ROLE_FILE: &str = "role";

/// The directory of one member: `DATA/run/GROUP/MEMBER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub dir: PathBuf,
}

impl Place {
    #[must_use]
    pub fn of(data: &Path, member: &MemberId) -> Self {
        Self { dir: data.join("run").join(member.group().as_str()).join(member.name()) }
    }

    /// What the member printed; older output in the same path with `.1` and `.2`.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        self.dir.join(OUTPUT_FILE)
    }

    pub(super) fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)
    }
}

/// The number of the member's latest life; 0 if it had none here, or if the file does not hold a number.
pub(super) fn last_incarnation(place: &Place) -> Incarnation {
    let text = fs::read_to_string(place.dir.join(INCARNATION_FILE)).unwrap_or_default();
    Incarnation(text.trim().parse().unwrap_or(0))
}

/// What the numbers of a member's lives are made of.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    /// The upper half of each, this node's own.
    pub prefix: u32,
    /// The latest that the log knew of when this member's engine began; 0 for none.
    pub known: Incarnation,
}

/// More lives than the log can have heard of since an engine began.
const LIVES_UNHEARD: u64 = 1 << 10;

/// The number of a new life, on disk when this returns (S4). It has the node's prefix above and a counter below, which goes on from the
/// latest one whatever its prefix: so it is new also after the data directory was wiped or restored; and also where the log knows more of it
/// than the disk does.
pub(super) fn next_incarnation(place: &Place, lives: Lives) -> io::Result<Incarnation> {
    place.make()?;
    let [here, known] = [last_incarnation(place), lives.known].map(|life| life.0 & u64::from(u32::MAX));
    let last = if here < known { known + LIVES_UNHEARD } else { here };
    let next = Incarnation((u64::from(lives.prefix) << 32) | ((last + 1) & u64::from(u32::MAX)));
    store(place, INCARNATION_FILE, &next.to_string())?;
    Ok(next)
}

/// What a member without a guard was last told to be: durable before it is told (S6). Warm at epoch 0 if it was told nothing.
pub(super) fn told_role(place: &Place) -> (Role, Epoch) {
    let text = fs::read_to_string(place.dir.join(ROLE_FILE)).unwrap_or_default();
    let mut words = text.split_whitespace();
    let role = if words.next() == Some("hot") { Role::Hot } else { Role::Warm };
    (role, Epoch(words.next().and_then(|epoch| epoch.parse().ok()).unwrap_or(0)))
}

pub(super) fn store_told_role(place: &Place, role: Role, epoch: Epoch) -> io::Result<()> {
    place.make()?;
    store(place, ROLE_FILE, &format!("{role} {epoch}"))
}

/// Replaces a small file as a whole; on disk when this returns.
fn store(place: &Place, name: &str, line: &str) -> io::Result<()> {
    let (path, temporary) = (place.dir.join(name), place.dir.join(format!("{name}.new")));
    let mut file = File::create(&temporary)?;
    writeln!(file, "{line}")?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    File::open(&place.dir)?.sync_all()
}

/// What a member and its hooks find in their environment: a few of the agent's own variables, the user's, and hotwarm's, which win. The
/// agent's environment as a whole is not handed down: it may hold its secrets. `HOME` is added by whoever starts the program, and knows its user.
pub(super) fn environment(member: &MemberId, address: SocketAddr, life: Life, user: &BTreeMap<String, String>) -> Vec<(String, String)> {
    const INHERITED: [&str; 5] = ["PATH", "LANG", "LC_ALL", "TZ", "TMPDIR"];
    let mut all: BTreeMap<String, String> =
        INHERITED.into_iter().filter_map(|key| std::env::var(key).ok().map(|value| (key.to_owned(), value))).collect();
    all.entry("PATH".to_owned()).or_insert_with(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    all.extend(user.iter().map(|(key, value)| (key.clone(), value.clone())));
    let own = [
        ("HOTWARM_GROUP", member.group().to_string()),
        (MEMBER_VARIABLE, member.to_string()),
        ("HOTWARM_ROLE", life.role.to_string()),
        ("HOTWARM_EPOCH", life.epoch.to_string()),
        (ADDRESS_VARIABLE, address.to_string()),
        (INCARNATION_VARIABLE, life.incarnation.to_string()),
    ];
    all.extend(own.map(|(key, value)| (key.to_owned(), value)));
    all.into_iter().collect()
}

/// With [`INCARNATION_VARIABLE`], marks every process of one life: children inherit it.
pub(super) const MEMBER_VARIABLE: &str = "HOTWARM_MEMBER";
pub(super) const ADDRESS_VARIABLE: &str = "HOTWARM_LISTEN";
pub(super) const INCARNATION_VARIABLE: &str = "HOTWARM_INCARNATION";

/// A member's life as its environment tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) incarnation: Incarnation,
    pub(super) role: Role,
    pub(super) epoch: Epoch,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_life_has_a_new_number_that_is_on_disk() {
        let data = tempfile::tempdir().unwrap();
        let place = Place::of(data.path(), &MemberId::new("web/a"));
        assert_eq!(last_incarnation(&place), Incarnation(0));
        let of = |prefix| Lives { prefix, known: Incarnation(0) };
        let first = next_incarnation(&place, of(7)).unwrap();
        assert_eq!(first, Incarnation((7 << 32) | 1));
        assert_eq!(last_incarnation(&place), first);
        assert_eq!(next_incarnation(&place, of(7)).unwrap(), Incarnation((7 << 32) | 2));
        assert_eq!(next_incarnation(&place, of(9)).unwrap(), Incarnation((9 << 32) | 3));
        fs::write(place.dir.join(INCARNATION_FILE), "torn").unwrap();
        assert_eq!(next_incarnation(&place, of(11)).unwrap(), Incarnation((11 << 32) | 1));
    }

    #[test]
    fn where_the_numbers_were_deleted_those_that_the_log_knows_are_not_used_again() {
        let data = tempfile::tempdir().unwrap();
        let place = Place::of(data.path(), &MemberId::new("web/a"));
        let lives = Lives { prefix: 7, known: Incarnation((7 << 32) | 40) };
        let next = next_incarnation(&place, lives).unwrap();
        assert!(next > lives.known, "{next}");
        assert_eq!(next_incarnation(&place, lives).unwrap(), Incarnation(next.0 + 1), "once, then it counts as ever");
    }

    #[test]
    fn the_manual_names_every_variable() {
        let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/configuration.md")).unwrap();
        let page = page.split("## Environment of members and hooks").nth(1).expect("the section");
        let life = Life { incarnation: Incarnation(5), role: Role::Warm, epoch: Epoch(2) };
        for (name, _) in environment(&MemberId::new("web/a"), "127.0.0.1:80".parse().unwrap(), life, &BTreeMap::new()) {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn hotwarm_own_variables_win() {
        let user = BTreeMap::from([("HOTWARM_ROLE".to_owned(), "king".to_owned()), ("COLOUR".to_owned(), "red".to_owned())]);
        let life = Life { incarnation: Incarnation(5), role: Role::Warm, epoch: Epoch(2) };
        let environment = environment(&MemberId::new("web/a"), "127.0.0.1:80".parse().unwrap(), life, &user);
        let value = |key: &str| environment.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        assert_eq!(value("HOTWARM_ROLE"), Some("warm"));
        assert_eq!(value("HOTWARM_GROUP"), Some("web"));
        assert_eq!(value("HOTWARM_LISTEN"), Some("127.0.0.1:80"));
        assert_eq!(value("COLOUR"), Some("red"));
        assert!(value("PATH").is_some());
    }
}
