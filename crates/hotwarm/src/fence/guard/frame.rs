//! What an agent and a guard say to each other: small frames of bounded size, each with its version.
//!
//! A guard outlives the agent that started it and meets newer ones, so these bytes are frozen (see the golden test): a change needs a
//! new version, and an unknown version is refused by name. No bytes from the socket may panic. Main path: [`encode`] and [`Inbox`].

use std::fmt;
use std::path::PathBuf;

use hotwarm_core::action::StopCause;
use hotwarm_core::ids::{Epoch, Incarnation, Mono, Role};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of everything in this file.
pub const VERSION: u8 = 1;
/// Longest body of a frame, in bytes: a member's arguments and environment fit.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Length of a frame's head: body length u32 little-endian, version u8.
const HEAD_BYTES: usize = 5;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    #[error("a frame of version {0}, where version {VERSION} is spoken: the guard and the agent are of different releases")]
    Version(u8),
    #[error("a frame of {0} bytes, over the limit of {BODY_BYTES_MAX}")]
    Length(usize),
    #[error("a frame that does not decode")]
    Body,
}

/// What a guard is to run; the first frame on the socket that it inherits, and valid nowhere else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub member: String,
    pub incarnation: Incarnation,
    pub role: Role,
    pub epoch: Epoch,
    pub deadline: Option<Mono>,
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    pub directory: Option<PathBuf>,
    pub user: Option<String>,
    pub open_files: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub processes: Option<u64>,
    /// From SIGTERM to SIGKILL when the guard itself is told to end.
    pub grace_ms: u64,
    /// Where the socket, the lock and the member's output are.
    pub run_dir: PathBuf,
}

impl fmt::Debug for Spec {
    /// Without arguments and environment: they may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spec").field("member", &self.member).field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

/// From the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuard {
    Spec(Box<Spec>),
    /// Kill the tree when this moment of CLOCK_BOOTTIME passes; `None` lifts it. No answer.
    Deadline(Option<Mono>),
    /// Remember the role, for the agent that adopts the member; send the program `signal`, if any. Answer: [`FromGuard::Told`].
    Role {
        role: Role,
        epoch: Epoch,
        signal: Option<i32>,
    },
    /// SIGTERM to the member's process group, then SIGKILL to its tree after `grace_ms`; 0 kills at once. Answer: a status.
    Stop {
        grace_ms: u64,
    },
    /// The agent has noted that the member is gone: the guard may end.
    Acknowledge,
}

/// From the guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGuard {
    /// Everything the guard knows: sent on every connection first, and whenever `state` changes.
    Status(Status),
    /// The answer to [`ToGuard::Role`]; `error` says why the signal could not be sent.
    Told { role: Role, epoch: Epoch, error: Option<String> },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub incarnation: Incarnation,
    /// Of the program itself; 0 if it could not be started.
    pub pid: u32,
    pub role: Role,
    pub epoch: Epoch,
    /// The epoch under which this incarnation was started.
    pub epoch_started: Epoch,
    pub deadline: Option<Mono>,
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    Running,
    /// Told to end, or its program ended and left others behind.
    Stopping,
    /// Nothing of it is left (S5).
    Gone(StopCause),
}

/// One frame.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let body = postcard::to_stdvec(message).expect("postcard encodes every type of this file: none has an unsized sequence or a map");
    let mut frame = Vec::with_capacity(HEAD_BYTES + body.len());
    frame.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    frame.push(VERSION);
    frame.extend_from_slice(&body);
    frame
}

/// Bytes that have come from the other side and are not yet read as frames.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
}

impl Inbox {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// How many bytes at least are missing until the next frame is whole.
    #[must_use]
    pub fn missing(&self) -> usize {
        let whole = self.bytes.first_chunk::<4>().map_or(HEAD_BYTES, |length| HEAD_BYTES + u32::from_le_bytes(*length) as usize);
        whole.saturating_sub(self.bytes.len()).max(1)
    }

    /// The next whole frame, if there is one. After an error the stream has no next frame: close it.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some(head) = self.bytes.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        // The version is judged first: another version may give the rest another meaning.
        if head[4] != VERSION {
            return Err(FrameError::Version(head[4]));
        }
        if length > BODY_BYTES_MAX {
            return Err(FrameError::Length(length));
        }
        let Some(body) = self.bytes.get(HEAD_BYTES..HEAD_BYTES + length) else { return Ok(None) };
        let message = match postcard::take_from_bytes(body) {
            Ok((message, [])) => message,
            Ok(_) | Err(_) => return Err(FrameError::Body),
        };
        self.bytes.drain(..HEAD_BYTES + length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<Option<T>, FrameError> {
        let mut inbox = Inbox::default();
        inbox.push(bytes);
        inbox.take()
    }

    #[test]
    fn frames_are_frozen() {
        let told = ToGuard::Role { role: Role::Hot, epoch: Epoch(7), signal: Some(10) };
        assert_eq!(encode(&told), [5, 0, 0, 0, 1, 2, 0, 7, 1, 20]);
        assert_eq!(encode(&ToGuard::Deadline(Some(Mono(300)))), [4, 0, 0, 0, 1, 1, 1, 172, 2]);
        assert_eq!(encode(&ToGuard::Stop { grace_ms: 5000 }), [3, 0, 0, 0, 1, 3, 136, 39]);
        assert_eq!(encode(&ToGuard::Acknowledge), [1, 0, 0, 0, 1, 4]);
        let status = Status {
            incarnation: Incarnation(9),
            pid: 300,
            role: Role::Warm,
            epoch: Epoch(3),
            epoch_started: Epoch(2),
            deadline: None,
            state: State::Gone(StopCause::Exit(1)),
        };
        assert_eq!(encode(&FromGuard::Status(status)), [11, 0, 0, 0, 1, 0, 9, 172, 2, 1, 3, 2, 0, 2, 0, 2]);
    }

    #[test]
    fn a_frame_in_pieces_is_read_when_it_is_whole() {
        let message = ToGuard::Stop { grace_ms: 1 };
        let mut inbox = Inbox::default();
        let frame = encode(&message);
        for byte in &frame[..frame.len() - 1] {
            inbox.push(&[*byte]);
            assert_eq!(inbox.take::<ToGuard>(), Ok(None));
        }
        inbox.push(&frame[frame.len() - 1..]);
        inbox.push(&frame);
        assert_eq!(inbox.take(), Ok(Some(message.clone())));
        assert_eq!(inbox.take(), Ok(Some(message)));
        assert_eq!(inbox.take::<ToGuard>(), Ok(None));
    }

    #[test]
    fn garbage_is_refused_and_never_panics() {
        assert_eq!(read::<ToGuard>(&[1, 0, 0, 0, 2, 4]), Err(FrameError::Version(2)));
        assert_eq!(read::<ToGuard>(&[255, 255, 255, 255, 1, 4]), Err(FrameError::Length(u32::MAX as usize)));
        assert_eq!(read::<ToGuard>(&[1, 0, 0, 0, 1, 99]), Err(FrameError::Body));
        assert_eq!(read::<ToGuard>(&[2, 0, 0, 0, 1, 4, 4]), Err(FrameError::Body));
        let mut rng = hotwarm_core::rng::Rng::new(1);
        for _ in 0..20_000 {
            let mut bytes = vec![u8::try_from(rng.below(40)).unwrap(), 0, 0, 0, 1];
            bytes.extend((0..rng.below(64)).map(|_| u8::try_from(rng.below(256)).unwrap()));
            let _ = read::<ToGuard>(&bytes);
            let _ = read::<FromGuard>(&bytes);
        }
    }
}
