//! The data directory: one owner at a time, a version, the node's incarnation, the cluster it belongs to, the right to bootstrap (S11).
//!
//! Must never leave a half-written file behind a valid name, nor open a directory that is not hotwarm's or that another process uses, nor
//! change anything about one before it is known to be hotwarm's. The main path enters at [`DataDir::open`]; [`write_atomic`] serves everyone who keeps a small file.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::rand::{GetRandomFlags, getrandom};
use tracing::{info, warn};

use crate::config::data::{Unfit, fit};

/// What the VERSION file says.
const VERSION: &str = "hotwarm data 1";
/// Ends the name of a file that is being written.
const TMP: &str = ".tmp";

/// Why a data directory is not opened, or a file in it not kept.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    #[error("data directory {} in use by another hotwarm ({holder}): stop it, or give each node its own [node] data", .path.display())]
    InUse { path: PathBuf, holder: String },
    #[error("{0}: give [node] data a directory that is new or empty; nothing was changed")]
    NotOurs(#[from] Unfit),
    #[error("data directory {} of version \"{found}\", this hotwarm reads \"{VERSION}\": run the hotwarm that wrote it", .path.display())]
    Version { path: PathBuf, found: String },
    #[error("data directory {} of user {owner}, hotwarm runs as user {me}: chown it, or run as that user", .path.display())]
    Owner { path: PathBuf, owner: u32, me: u32 },
    #[error("unreadable {}: wipe the data directory and join the node again; its peers have the data", .path.display())]
    Corrupt { path: PathBuf },
    #[error("data directory of cluster {ours}, peers are of cluster {theirs}: a node changes its cluster only with an empty directory")]
    OtherCluster { ours: String, theirs: String },
    #[error("{doing} {} failed ({source}): check the disk, its space and its permissions", .path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

/// Names the file and what was being done to it.
pub(super) fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DirError + 'a {
    move |source| DirError::Io { doing, path: path.to_owned(), source }
}

/// An open data directory. The lock is held until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    incarnation: u128,
    cluster: Option<String>,
    _lock: File,
}

impl DataDir {
    /// Opens the directory, and makes it on the first start, durably: a directory that has a VERSION has an incarnation.
    ///
    /// # Errors
    /// When another process has it, it is not hotwarm's, of another version, or the disk fails.
    pub fn open(path: &Path) -> Result<Self, DirError> {
        fit(path).map_err(|unfit| match (owned_by_another(path), unfit) {
            (Some(error), Unfit::Unreadable { .. }) => error,
            (_, unfit) => unfit.into(),
        })?;
        create_private(path)?;
        let lock = lock(path)?;
        clear_unfinished(path)?;
        match read_line(&path.join("VERSION"))? {
            None => first_start(path)?,
            Some(found) if found == VERSION => {}
            Some(found) => return Err(DirError::Version { path: path.to_owned(), found }),
        }
        let kept = path.join("incarnation");
        let incarnation = read_line(&kept)?.and_then(|line| u128::from_str_radix(&line, 16).ok());
        let incarnation = incarnation.ok_or(DirError::Corrupt { path: kept })?;
        let cluster = read_line(&path.join("cluster"))?;
        Ok(Self { path: path.to_owned(), incarnation, cluster, _lock: lock })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The random number born with the directory: with the node's name it makes the voter (S11).
    #[must_use]
    pub const fn incarnation(&self) -> u128 {
        self.incarnation
    }

    /// The cluster this node belongs to; `None` before it was told.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
    }

    /// Remembers the cluster's id for good (S11); a second call with the same id does nothing.
    ///
    /// # Errors
    /// When the directory belongs to another cluster, or the disk fails.
    pub fn remember_cluster(&mut self, id: &str) -> Result<(), DirError> {
        match self.cluster() {
            Some(ours) if ours == id => Ok(()),
            Some(ours) => Err(DirError::OtherCluster { ours: ours.to_owned(), theirs: id.to_owned() }),
            None => self.replace_cluster(id),
        }
    }

    /// Gives the directory to another cluster: only for the guided way out of a lost quorum, which makes a new identity.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn replace_cluster(&mut self, id: &str) -> Result<(), DirError> {
        debug_assert!(!id.trim().is_empty() && id.lines().count() == 1, "a cluster id is one line");
        write_atomic(&self.path.join("cluster"), format!("{id}\n").as_bytes())?;
        self.cluster = Some(id.to_owned());
        Ok(())
    }

    /// Puts the one-use right to bootstrap into the directory (`join` of the first node's file).
    ///
    /// # Errors
    /// When the disk fails.
    pub fn grant_bootstrap_right(&self) -> Result<(), DirError> {
        write_atomic(&self.path.join("bootstrap"), b"this node may bootstrap the cluster, once\n")
    }

    /// Takes the right to bootstrap, if it is there: true at most once, and only after its end is durable. Who crashes between this and
    /// the first record has lost it: birth happens at most once (S11).
    ///
    /// # Errors
    /// When the disk fails: then it is not known to be taken, and nothing may be bootstrapped.
    pub fn take_bootstrap_right(&self) -> Result<bool, DirError> {
        let (right, used) = (self.path.join("bootstrap"), self.path.join("bootstrap.used"));
        match fs::rename(&right, &used) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(failed("taking", &right)(e)),
            Ok(()) => sync_dir(&self.path).map(|()| true),
        }
    }

    /// A private directory inside, made if it is missing.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn subdir(&self, name: &str) -> Result<PathBuf, DirError> {
        let path = self.path.join(name);
        create_private(&path)?;
        Ok(path)
    }
}

fn create_private(path: &Path) -> Result<(), DirError> {
    let existed = path.exists();
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("creating", path))?;
    if !existed && let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_dir(parent)?;
    }
    let metadata = fs::metadata(path).map_err(failed("reading", path))?;
    if let Some(error) = owned_by_another(path) {
        return Err(error);
    }
    if metadata.mode() & 0o077 != 0 {
        info!("closing {} to other users (mode 0700)", path.display());
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed("changing the mode of", path))?;
    }
    Ok(())
}

fn owned_by_another(path: &Path) -> Option<DirError> {
    let (owner, me) = (fs::metadata(path).ok()?.uid(), rustix::process::geteuid().as_raw());
    (owner != me).then(|| DirError::Owner { path: path.to_owned(), owner, me })
}

fn lock(path: &Path) -> Result<File, DirError> {
    let name = path.join("lock");
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&name).map_err(failed("opening", &name))?;
    if let Err(e) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if e != rustix::io::Errno::WOULDBLOCK {
            return Err(failed("locking", &name)(e.into()));
        }
        let mut holder = String::new();
        let read = file.take(64).read_to_string(&mut holder).ok().filter(|_| !holder.is_empty());
        let holder = read.map_or_else(|| "its process is not known".into(), |_| format!("process {}", holder.trim()));
        return Err(DirError::InUse { path: path.to_owned(), holder });
    }
    // For the message above only; the lock is the kernel's.
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(failed("writing", &name))?;
    Ok(file)
}

fn first_start(path: &Path) -> Result<(), DirError> {
    let mut random = [0; 16];
    // Blocks until the kernel's generator is seeded: two machines cloned from one image must not be born equal.
    let filled = getrandom(&mut random, GetRandomFlags::empty()).map_err(|e| failed("drawing an incarnation for", path)(e.into()))?;
    assert_eq!(filled, random.len(), "the kernel fills requests of up to 256 bytes whole");
    write_atomic(&path.join("incarnation"), format!("{:032x}\n", u128::from_le_bytes(random)).as_bytes())?;
    write_atomic(&path.join("VERSION"), format!("{VERSION}\n").as_bytes())
}

/// Removes what a crash left half written.
fn clear_unfinished(path: &Path) -> Result<(), DirError> {
    for entry in fs::read_dir(path).map_err(failed("reading", path))? {
        let entry = entry.map_err(failed("reading", path))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') && name.ends_with(TMP) {
            warn!("removing {}, left half written by a crash", entry.path().display());
            fs::remove_file(entry.path()).map_err(failed("removing", &entry.path()))?;
        }
    }
    Ok(())
}

fn read_line(path: &Path) -> Result<Option<String>, DirError> {
    match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("reading", path)(e)),
        Ok(bytes) => {
            // Written whole with its newline, or damaged.
            let text = String::from_utf8(bytes).ok().and_then(|text| text.strip_suffix('\n').map(str::to_owned));
            text.map(Some).ok_or_else(|| DirError::Corrupt { path: path.to_owned() })
        }
    }
}

/// Replaces a small file so that after a crash it is the old or the new one, whole (mode 0600). Durable when it returns.
///
/// # Errors
/// When the disk fails; the old file is then still there, or the new one is.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), DirError> {
    let name = path.file_name().expect("the caller names a file").to_string_lossy();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let tmp = parent.join(format!(".{name}{TMP}"));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&tmp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&tmp, path)
    };
    write().map_err(failed("writing", path))?;
    sync_dir(parent)
}

/// Makes creations, renames and removals in a directory durable.
///
/// # Errors
/// When the disk fails.
pub fn sync_dir(path: &Path) -> Result<(), DirError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(failed("syncing", path))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_is_kept_outlives_a_restart() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("deep/data");
        let mut dir = DataDir::open(&path).unwrap();
        let born = dir.incarnation();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert_eq!(dir.cluster(), None);
        dir.remember_cluster("c1").unwrap();
        dir.remember_cluster("c1").unwrap();
        assert!(matches!(dir.remember_cluster("c2"), Err(DirError::OtherCluster { .. })));
        assert_eq!(dir.subdir("wal").unwrap(), path.join("wal"));
        drop(dir);
        let again = DataDir::open(&path).unwrap();
        assert_eq!((again.incarnation(), again.cluster()), (born, Some("c1")));
        let other = DataDir::open(&tmp.path().join("other")).unwrap();
        assert_ne!(other.incarnation(), born);
    }

    #[test]
    fn the_right_to_bootstrap_is_used_once() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(tmp.path()).unwrap();
        assert!(!dir.take_bootstrap_right().unwrap(), "nobody granted it");
        dir.grant_bootstrap_right().unwrap();
        drop(dir);
        let dir = DataDir::open(tmp.path()).unwrap();
        assert!(dir.take_bootstrap_right().unwrap());
        assert!(!dir.take_bootstrap_right().unwrap());
        drop(dir);
        assert!(!DataDir::open(tmp.path()).unwrap().take_bootstrap_right().unwrap());
    }

    #[test]
    fn an_interrupted_first_start_goes_on() {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir(tmp.path().join("tls")).unwrap();
        fs::write(tmp.path().join("bootstrap"), "x\n").unwrap();
        fs::write(tmp.path().join(".VERSION.tmp"), "half").unwrap();
        fs::write(tmp.path().join("incarnation"), "2a\n").unwrap();
        let dir = DataDir::open(tmp.path()).unwrap();
        assert!(dir.take_bootstrap_right().unwrap());
        assert!(!tmp.path().join(".VERSION.tmp").exists());
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join("photo.jpg"), "x").unwrap();
        fs::set_permissions(tmp.path(), Permissions::from_mode(0o755)).unwrap();
        assert!(DataDir::open(tmp.path()).unwrap_err().to_string().contains("photo.jpg"));
        assert_eq!(fs::metadata(tmp.path()).unwrap().mode() & 0o777, 0o755, "another's directory stays as open as it was");
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 1, "and nothing is put into it");
        fs::remove_file(tmp.path().join("photo.jpg")).unwrap();
        drop(DataDir::open(tmp.path()).unwrap());
        assert_eq!(fs::metadata(tmp.path()).unwrap().mode() & 0o777, 0o700, "hotwarm's own is closed to others");
        fs::write(tmp.path().join("VERSION"), "hotwarm data 2\n").unwrap();
        assert!(DataDir::open(tmp.path()).unwrap_err().to_string().contains("\"hotwarm data 2\""));
        fs::write(tmp.path().join("VERSION"), format!("{VERSION}\n")).unwrap();
        for damaged in ["", "not hexadecimal\n", "12"] {
            fs::write(tmp.path().join("incarnation"), damaged).unwrap();
            assert!(matches!(DataDir::open(tmp.path()), Err(DirError::Corrupt { .. })), "{damaged:?}");
        }
        fs::remove_file(tmp.path().join("incarnation")).unwrap();
        assert!(matches!(DataDir::open(tmp.path()), Err(DirError::Corrupt { .. })), "a node never changes its incarnation in silence");
    }

    /// Not a test of its own: the other process of `two_processes_cannot_open_one_directory`.
    #[test]
    fn second_process() {
        if let Ok(path) = std::env::var("HOTWARM_TEST_SECOND_PROCESS") {
            let error = DataDir::open(Path::new(&path)).unwrap_err();
            println!("second process saw: {error}");
        }
    }

    #[test]
    fn two_processes_cannot_open_one_directory() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(tmp.path()).unwrap();
        assert!(matches!(DataDir::open(tmp.path()), Err(DirError::InUse { .. })));
        let second = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::dir::tests::second_process", "--nocapture"])
            .env("HOTWARM_TEST_SECOND_PROCESS", tmp.path())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        let said = String::from_utf8(second.stdout).unwrap();
        assert!(said.contains(&format!("in use by another hotwarm (process {})", std::process::id())), "{said}");
        drop(dir);
        DataDir::open(tmp.path()).unwrap();
    }
}
