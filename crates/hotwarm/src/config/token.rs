//! The secret that the operator's API asks for: the one line of a file that the configuration names, so that the text all nodes share holds
//! none.
//!
//! It must never show the secret: not in `Debug`, not in an error. Main path: [`Token::read`] -> [`Token::is`] where it is asked for,
//! [`Token::header`] where it is given.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use subtle::ConstantTimeEq;

/// 128 bits in hexadecimal: nobody tries them all.
const CHARACTERS_MIN: usize = 32;
const BYTES_MAX: u64 = 4 << 10;
/// Others have no right to it, and its group may only read: that is how operators get it who are not root.
const MODE_NEVER: u32 = 0o027;

/// A secret that may be asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Why a file holds no token that counts.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("no file {}", .path.display())]
    Missing { path: PathBuf },
    #[error("{} is no file", .path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is open to others (mode {mode:04o})", .path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("{} has more than {BYTES_MAX} bytes", .path.display())]
    TooLarge { path: PathBuf },
    #[error("{} is empty", .path.display())]
    Empty { path: PathBuf },
    #[error("{} holds {characters} characters, and fewer than {CHARACTERS_MIN} can be guessed", .path.display())]
    Short { path: PathBuf, characters: usize },
    #[error("{} holds more than one line, or characters that a request cannot carry", .path.display())]
    NotOneWord { path: PathBuf },
    #[error("{} not readable ({source})", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
}

impl Unfit {
    /// What a file is that can be used.
    pub const EXPECTED: &'static str = "a file of mode 0600 or 0640 with one line of at least 32 letters, digits or signs";

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Missing { path } | Self::Empty { path } | Self::Short { path, .. } | Self::NotOneWord { path } => {
                format!("make one: sudo sh -c 'umask 077; openssl rand -hex 32 > {}'", path.display())
            }
            Self::Open { path, .. } => {
                format!("chmod 0600 {0}, or 0640 for a group that may read it; then put a new token there", path.display())
            }
            Self::NotAFile { .. } | Self::TooLarge { .. } => "name the file that holds the token and nothing else".to_owned(),
            Self::Unreadable { .. } => {
                "hotwarm's own user must be able to read it; on the command line, use sudo or --api-token FILE".to_owned()
            }
        }
    }
}

impl Token {
    /// The token in the file at `path`.
    ///
    /// # Errors
    /// Why there is none that counts.
    pub fn read(path: &Path) -> Result<Self, Unfit> {
        let path = path.to_owned();
        // A pipe there must not hold anybody up.
        let opened = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(Unfit::Missing { path });
            }
            Err(source) => return Err(Unfit::Unreadable { path, source }),
        };
        let metadata = match file.metadata() {
            Ok(metadata) => metadata,
            Err(source) => return Err(Unfit::Unreadable { path, source }),
        };
        if !metadata.is_file() {
            return Err(Unfit::NotAFile { path });
        }
        if metadata.mode() & MODE_NEVER != 0 {
            return Err(Unfit::Open { path, mode: metadata.mode() & 0o7777 });
        }
        let mut bytes = Vec::new();
        if let Err(source) = file.take(BYTES_MAX + 1).read_to_end(&mut bytes) {
            return Err(Unfit::Unreadable { path, source });
        }
        let word = bytes.trim_ascii();
        match word {
            _ if bytes.len() as u64 > BYTES_MAX => Err(Unfit::TooLarge { path }),
            [] => Err(Unfit::Empty { path }),
            _ if !word.iter().all(u8::is_ascii_graphic) => Err(Unfit::NotOneWord { path }),
            _ if word.len() < CHARACTERS_MIN => Err(Unfit::Short { path, characters: word.len() }),
            _ => Ok(Self(word.iter().copied().map(char::from).collect())),
        }
    }

    /// Compares in a time that tells nothing of how much of `said` is right; it may tell the length.
    #[must_use]
    pub fn is(&self, said: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(said).into()
    }

    /// The value of a request's header `Authorization` (RFC 6750, 2.1).
    #[must_use]
    pub fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const GOOD: &str = "0123456789abcdef0123456789abcdef";

    fn file(text: impl AsRef<[u8]>, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_token_is_the_one_line_of_a_closed_file() {
        for (text, mode) in [(GOOD.to_owned(), 0o600), (format!("{GOOD}\n"), 0o400), (format!(" {GOOD}\r\n\n"), 0o640)] {
            let (_dir, path) = file(&text, mode);
            let token = Token::read(&path).unwrap();
            assert!(token.is(GOOD.as_bytes()) && token.header() == format!("Bearer {GOOD}"));
            for wrong in ["", &GOOD[1..], &format!("{GOOD}0"), &GOOD.to_uppercase()] {
                assert!(!token.is(wrong.as_bytes()), "{wrong}");
            }
            assert!(!format!("{token:?}").contains("0123"));
        }
    }

    #[test]
    fn what_is_no_token_is_said_and_never_shown() {
        let long = "x".repeat(4097);
        let two = format!("{GOOD}\n{GOOD}\n");
        let spaced = format!("{GOOD} {GOOD}");
        let bad: [(&[u8], u32, &str); 10] = [
            (b"", 0o600, "is empty"),
            (b" \n", 0o600, "is empty"),
            (&GOOD.as_bytes()[1..], 0o600, "holds 31 characters"),
            (two.as_bytes(), 0o600, "more than one line"),
            (spaced.as_bytes(), 0o600, "cannot carry"),
            (b"0123456789abcdef0123456789abcde\xff", 0o600, "cannot carry"),
            (long.as_bytes(), 0o600, "more than 4096 bytes"),
            (GOOD.as_bytes(), 0o604, "(mode 0604)"),
            (GOOD.as_bytes(), 0o602, "(mode 0602)"),
            (GOOD.as_bytes(), 0o660, "(mode 0660)"),
        ];
        for (text, mode, said) in bad {
            let (_dir, path) = file(text, mode);
            let unfit = Token::read(&path).unwrap_err();
            let told = format!("{unfit} {unfit:?} {}", unfit.hint());
            assert!(unfit.to_string().contains(said), "{told}");
            assert!(!told.contains("abcdef"), "{told}");
        }
        let (dir, path) = file(GOOD, 0o600);
        for missing in [dir.path().join("nothing"), path.join("below")] {
            assert!(Token::read(&missing).unwrap_err().to_string().starts_with("no file "));
        }
        assert!(Token::read(dir.path()).unwrap_err().to_string().ends_with("is no file"));
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        assert!(Token::read(&pipe).unwrap_err().to_string().ends_with("is no file"));
    }
}
