//! The way out of a lost quorum, on the data directory of a stopped node: a new cluster of one voter from the state on its disk.
//!
//! The new log is whole beside the old one before the two change places; the old one is kept. It must never run beside the node itself:
//! the directory's lock sees to that. Main path: [`Recovery::read`] -> a person decides -> [`Recovery::carry_out`].

use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hotwarm_core::ids::NodeId;
use hotwarm_core::node::Stored;
use hotwarm_core::node::recover::{self, RecoverError};
use hotwarm_core::wal::Cut;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::store::Log;
use crate::store::dir::{self, DataDir, DirError};
use crate::store::wal::{Callbacks, Wal, WalError};

/// A disk that takes longer is broken.
const PERSISTED_WITHIN: Duration = Duration::from_secs(30);

/// Why there is no new cluster; the old state is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no data directory of hotwarm in {}: give the configuration and node that it belongs to", .0.display())]
    NoData(PathBuf),
    /// Its own kind, since the way on is another.
    #[error("{}: {source}", .path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Dir(#[from] DirError),
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error(transparent)]
    State(#[from] RecoverError),
    #[error("new log not written to {}: check the disk", .0.display())]
    NotPersisted(PathBuf),
    #[error("random numbers not given by the system ({0}): try again")]
    Random(std::io::Error),
    #[error("log in {} not replaced ({source}): check the disk, then try again", .path.display())]
    Replace { path: PathBuf, source: std::io::Error },
}

/// What a recovery would be made from. The directory stays locked while this lives.
#[derive(Debug)]
pub struct Recovery {
    dir: DataDir,
    pub plan: recover::Recovery,
    /// Where the log had to be cut, if what was cut may have been acknowledged (S12).
    pub cut: Option<String>,
}

impl Recovery {
    /// Reads the state of node `me` from its data directory, whose log it does not touch: others look at it too before one is chosen.
    ///
    /// # Errors
    /// There is none, the node runs, or it cannot be read.
    pub fn read(data: &Path, me: &NodeId) -> Result<Self, Error> {
        for name in ["VERSION", "wal"] {
            let path = data.join(name);
            match path.try_exists() {
                Ok(true) => {}
                Ok(false) => return Err(Error::NoData(data.to_owned())),
                Err(source) => return Err(Error::Unreadable { path, source }),
            }
        }
        let dir = DataDir::open(data)?;
        let recovered = Wal::read(&dir.path().join("wal"))?;
        let cut = match recovered.cut {
            Cut::None | Cut::Torn { .. } => None,
            Cut::MaybeSynced { file, offset } => Some(format!("cut in {file} at byte {offset}")),
        };
        let stored = Stored::to_recover_from(recovered.logs);
        let plan = recover::recover(&stored, me, dir.incarnation(), random()?)?;
        Ok(Self { dir, plan, cut })
    }

    /// Makes it so; tells where the old log is kept.
    ///
    /// # Errors
    /// The disk fails. Until the logs have changed places, the old state is in force.
    pub fn carry_out(self) -> Result<PathBuf, Error> {
        let Self { mut dir, plan, .. } = self;
        let (old, new) = (dir.path().join("wal"), dir.path().join("wal.new"));
        // What an interrupted attempt has left.
        match std::fs::remove_dir_all(&new) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(Error::Replace { path: new, source }),
            _ => {}
        }
        let new = dir.subdir("wal.new")?;
        write(&new, plan.records)?;
        let quarantine = quarantine(&dir)?;
        let failed = |source: std::io::Error| Error::Replace { path: old.clone(), source };
        // At any instant there is one whole log under the name that a start reads.
        renameat_with(CWD, &old, CWD, &new, RenameFlags::EXCHANGE).map_err(|error| failed(error.into()))?;
        dir::sync_dir(dir.path())?;
        std::fs::rename(&new, &quarantine).map_err(failed)?;
        dir::sync_dir(dir.path())?;
        dir.replace_cluster(&format!("{:032x}", plan.identity.cluster))?;
        Ok(quarantine)
    }
}

/// A new log of these records, durable when this returns.
fn write(path: &Path, records: Vec<hotwarm_core::wal::Record>) -> Result<(), Error> {
    let (told, persisted) = sync_channel(1);
    let failed = told.clone();
    let callbacks = Callbacks {
        // The other end waits for one word; a second finds it gone.
        persisted: Box::new(move |_| {
            let _ = told.try_send(true);
        }),
        fatal: Box::new(move |_| {
            let _ = failed.try_send(false);
        }),
    };
    let (_, log) = Wal::open(path, callbacks)?;
    let submitted = log.submit(1, records, true).is_ok();
    let durable = submitted && persisted.recv_timeout(PERSISTED_WITHIN).unwrap_or(false);
    log.stop();
    if durable { Ok(()) } else { Err(Error::NotPersisted(path.to_owned())) }
}

fn quarantine(dir: &DataDir) -> Result<PathBuf, Error> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(dir.subdir("quarantine")?.join(format!("wal-{seconds}")))
}

fn random() -> Result<u128, Error> {
    let mut bytes = [0; 16];
    getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|error| Error::Random(error.into()))?;
    // 0 means "no cluster".
    Ok(u128::from_le_bytes(bytes) | 1)
}
