//! Whether a path can be a node's data directory: for `check` and `join` before anything is written, and for the store before it opens one.
//!
//! It only looks. It must never take for hotwarm's what might be another's: who goes on from here changes the directory's mode and its files.
//! The main path enters at [`fit`].

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// How the VERSION file of every data directory begins.
pub const MARK: &str = "hotwarm data ";
/// What may be in a directory that is not yet hotwarm's: what `join` and an interrupted first start leave.
const BEFORE_FIRST_START: [&str; 7] = ["lock", "tls", "tls.new", "run", "bootstrap", "incarnation", "lost+found"];
/// What `join` and operators write into `tls`.
const TLS: [&str; 4] = ["ca.pem", "node.key", "node.pem", "revoked"];

/// Why a path is no place for a data directory.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("{} is for more than hotwarm, and a data directory is closed to everyone else", .path.display())]
    System { path: PathBuf },
    #[error("{} is no directory", .path.display())]
    NotADirectory { path: PathBuf },
    #[error("directory {} holds \"{found}\", which is not hotwarm's", .path.display())]
    Foreign { path: PathBuf, found: String },
    #[error("{} not readable ({source})", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
}

/// What lies in the root by the Filesystem Hierarchy Standard 3.0, and is the system's or everyone's.
const OF_THE_SYSTEM: [&str; 22] = [
    "bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "media", "mnt", "nix", "opt", "proc", "root", "run", "sbin",
    "srv", "sys", "tmp", "usr", "var",
];

/// True for a path that cannot be hotwarm's own wherever it is: the root, what the system has there, and what climbs with `..`. A disk of
/// its own may be mounted at any other name in the root.
#[must_use]
pub fn is_system(path: &Path) -> bool {
    let named: Vec<_> =
        path.components().filter(|part| matches!(part, Component::Normal(_))).map(|part| part.as_os_str().to_string_lossy()).collect();
    let climbs = path.components().any(|part| part == Component::ParentDir);
    climbs || matches!(&named[..], []) || matches!(&named[..], [one] if OF_THE_SYSTEM.contains(&one.as_ref()))
}

/// Looks whether the directory can be a node's: missing, empty, or hotwarm's already. It changes nothing.
///
/// # Errors
/// Why it cannot.
pub fn fit(path: &Path) -> Result<(), Unfit> {
    let owned = || path.to_owned();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_system(path) => return Err(Unfit::System { path: owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(Unfit::NotADirectory { path: owned() }),
        Err(source) => return Err(Unfit::Unreadable { path: owned(), source }),
    };
    if !metadata.is_dir() {
        return Err(Unfit::NotADirectory { path: owned() });
    }
    let unreadable = |source| Unfit::Unreadable { path: owned(), source };
    if is_marked(path).map_err(unreadable)? {
        return Ok(());
    }
    // Sticky: everyone's, as /var/tmp is, also while nobody has anything there.
    if is_system(path) || metadata.mode() & 0o1000 != 0 {
        return Err(Unfit::System { path: owned() });
    }
    match foreign(path).map_err(unreadable)? {
        None => Ok(()),
        Some(found) => Err(Unfit::Foreign { path: owned(), found }),
    }
}

/// True for a directory that hotwarm ran on, whole or damaged.
fn is_marked(path: &Path) -> io::Result<bool> {
    let mut text = Vec::new();
    match File::open(path.join("VERSION")) {
        Ok(file) => {
            // A directory of that name is nobody's mark.
            let _ = file.take(MARK.len() as u64).read_to_end(&mut text);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(text == MARK.as_bytes() || (path.join("incarnation").is_file() && path.join("wal").is_dir()))
}

/// The first thing there that neither `join` nor an interrupted first start left.
fn foreign(path: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("tls") && entry.file_type()?.is_dir() {
            for inside in fs::read_dir(entry.path())? {
                let inside = inside?.file_name().to_string_lossy().into_owned();
                if !TLS.contains(&inside.trim_end_matches(".partial")) {
                    return Ok(Some(format!("{name}/{inside}")));
                }
            }
        }
        let whole = name.trim_end_matches(".partial");
        let unfinished = name.strip_prefix('.').and_then(|rest| rest.strip_suffix(".tmp"));
        let whole = unfinished.unwrap_or(whole);
        if !BEFORE_FIRST_START.contains(&whole) && (whole != "VERSION" || unfinished.is_none()) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hotwarms_own_empty_and_missing_directories_fit() {
        let tmp = tempfile::tempdir().unwrap();
        let here = |name: &str| tmp.path().join(name);
        let file = |name: &str, text: &str| {
            fs::create_dir_all(here(name).parent().unwrap()).unwrap();
            fs::write(here(name), text).unwrap();
        };
        fs::create_dir(here("empty")).unwrap();
        file("joined/tls/node.key", "x");
        file("joined/bootstrap", "x");
        file("begun/.VERSION.tmp", "half");
        file("begun/incarnation", "2a\n");
        file("ours/VERSION", "hotwarm data 1\n");
        file("ours/anything", "x");
        file("damaged/VERSION", "");
        file("damaged/incarnation", "2a\n");
        fs::create_dir(here("damaged/wal")).unwrap();
        for good in ["missing/deep", "empty", "joined", "begun", "ours", "damaged"] {
            fit(&here(good)).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        file("photos/photo.jpg", "x");
        file("program/VERSION", "1.2.3\n");
        file("keys/tls/shop.pem", "x");
        for (foreign, found) in [("photos", "\"photo.jpg\""), ("program", "\"VERSION\""), ("keys", "\"tls/shop.pem\"")] {
            let said = fit(&here(foreign)).unwrap_err().to_string();
            assert!(said.contains(found), "{foreign}: {said}");
        }
        for file in ["photos/photo.jpg", "photos/photo.jpg/below"] {
            assert!(matches!(fit(&here(file)), Err(Unfit::NotADirectory { .. })), "{file}");
        }
    }

    #[test]
    fn what_is_everyones_does_not_fit() {
        for system in ["/", "/srv", "/var", "/etc/..", "/var/lib/x/../..", "/./usr/"] {
            assert!(is_system(Path::new(system)), "{system}");
            assert!(matches!(fit(Path::new(system)), Err(Unfit::System { .. })), "{system}");
        }
        for own in ["/data", "/data/hotwarm", "/srv/hotwarm"] {
            assert!(!is_system(Path::new(own)), "{own}");
        }
        let tmp = tempfile::tempdir().unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        fs::set_permissions(tmp.path(), mode).unwrap();
        assert!(matches!(fit(tmp.path()), Err(Unfit::System { .. })), "sticky, as /var/tmp");
    }
}
