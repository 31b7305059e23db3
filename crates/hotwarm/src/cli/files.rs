//! Writing files so that they are whole or absent, with the mode that they should have from the first byte.
//!
//! It must never leave a key readable by others, not even for a moment.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::failure::Failure;
use crate::codes::Code;

/// For keys and whatever leads to them.
pub(super) const SECRET: u32 = 0o600;
/// For what anybody may read.
pub(super) const PUBLIC: u32 = 0o644;

/// Where `join` writes which node this machine is: beside the configuration, which is the same everywhere.
pub(super) fn name_file(config: &Path) -> PathBuf {
    config.with_file_name("node")
}

/// Writes `bytes` to a file that is then durable under its name, replacing what was there.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = write_partial(&partial, bytes, mode).and_then(|()| fs::rename(&partial, path)).and_then(|()| match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    });
    written.map_err(|error| {
        // Best effort: what matters is told below.
        let _ = fs::remove_file(&partial);
        refused(path, &error)
    })
}

/// Replaces the named files of a folder, all at once: whoever reads it, also after a crash, finds all old or all new ones. Other files in it
/// stay (which certificates are revoked is told in one); folders go.
pub(super) fn replace_folder(path: &Path, files: &[(&str, &[u8], u32)]) -> Result<(), Failure> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let remove = || match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(refused(&new, &error)),
        _ => Ok(()),
    };
    // Left by a crash.
    remove()?;
    folder(&new, 0o700)?;
    for (name, bytes, mode) in files {
        write(&new.join(name), bytes, *mode)?;
    }
    keep_others(path, &new)?;
    let swapped = if path.exists() {
        rustix::fs::renameat_with(rustix::fs::CWD, &new, rustix::fs::CWD, path, rustix::fs::RenameFlags::EXCHANGE)
    } else {
        rustix::fs::rename(&new, path)
    };
    match swapped {
        Ok(()) => {}
        // A file system that cannot exchange two names: one file after the other, then.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::XDEV | rustix::io::Errno::OPNOTSUPP) => {
            files.iter().try_for_each(|(name, bytes, mode)| write(&path.join(name), bytes, *mode))?;
        }
        Err(error) => return Err(refused(path, &error.into())),
    }
    path.parent().map_or(Ok(()), |above| File::open(above)?.sync_all()).map_err(|error| refused(path, &error))?;
    // What was replaced: an old key.
    remove()
}

/// Gives the new folder what only the old one has.
fn keep_others(old: &Path, new: &Path) -> Result<(), Failure> {
    if !old.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(old).map_err(|error| refused(old, &error))? {
        let entry = entry.map_err(|error| refused(old, &error))?;
        let (from, to) = (entry.path(), new.join(entry.file_name()));
        let is_folder = entry.file_type().map_err(|error| refused(&from, &error))?.is_dir();
        // Half of what a crash left is nobody's.
        if !is_folder && !to.exists() && from.extension().is_none_or(|end| end != "partial") {
            fs::hard_link(&from, &to).map_err(|error| refused(&from, &error))?;
        }
    }
    Ok(())
}

fn write_partial(partial: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    match fs::remove_file(partial) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(partial)?;
    // The mode of `open` is cut by the umask.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    if let Some((uid, gid)) = owner_above(partial) {
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

/// Whose the folder is that a path lies in, where root writes what an agent of another user is to read.
fn owner_above(path: &Path) -> Option<(u32, u32)> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty())?;
    let owner = fs::metadata(above).ok()?;
    (rustix::process::geteuid().is_root() && owner.uid() != 0).then(|| (owner.uid(), owner.gid()))
}

/// Makes a folder and those above it; the last gets `mode`.
pub(super) fn folder(path: &Path, mode: u32) -> Result<(), Failure> {
    let above = path.parent().map_or(Ok(()), |above| DirBuilder::new().recursive(true).mode(0o755).create(above));
    let made = above.and_then(|()| match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Ok(()) => owner_above(path).map_or(Ok(()), |(uid, gid)| std::os::unix::fs::lchown(path, Some(uid), Some(gid))),
        other => other,
    });
    made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode))).map_err(|error| refused(path, &error))
}

pub(super) fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| refused(path, &error))
}

/// The text of a file that may not be there.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refused(path, &error)),
    }
}

/// What the file system said, and what to do about it.
#[must_use]
pub fn refused(path: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::failed(Code::NOT_PERMITTED, format!("{}: {error}", path.display()));
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => failure.hint("try again with sudo"),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_replaced_and_keeps_what_is_not_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("tls");
        let replaced = |key: &[u8]| replace_folder(&at, &[("node.key", key, SECRET)]).unwrap_or_else(|failure| panic!("{failure}"));
        replaced(b"old");
        fs::write(at.join("revoked"), "0A:1B\n").unwrap();
        fs::set_permissions(at.join("revoked"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(at.join("node.key.partial"), "ol").unwrap();
        for key in [&b"new"[..], b"newer"] {
            replaced(key);
            assert_eq!(fs::read(at.join("node.key")).unwrap(), key);
            assert_eq!(fs::read_to_string(at.join("revoked")).unwrap(), "0A:1B\n");
        }
        assert_eq!(fs::metadata(at.join("revoked")).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(&at).unwrap().count(), 2, "nothing half written is kept");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
