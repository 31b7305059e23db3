//! Pipes for splice(2): bytes go from one socket to another without a copy into this process.
//!
//! A pipe that still holds bytes must never be used for another connection: it is closed instead. Per thread, bounded. The main path:
//! [`Pipe::take`], `splice_in`, `splice_out`.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// What one pipe holds at most, and what one call moves at most.
pub(super) const SIZE: usize = 256 * 1024;
/// Pipes in use and kept, per thread: each takes two descriptors.
const IN_USE: usize = 256;
const KEPT: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<(OwnedFd, OwnedFd)>> = const { RefCell::new(Vec::new()) };
    static USED: Cell<usize> = const { Cell::new(0) };
}

/// A pipe and how many bytes it holds.
pub(super) struct Pipe {
    ends: Option<(OwnedFd, OwnedFd)>,
    held: usize,
}

impl Pipe {
    /// An empty pipe; `None` when too many are in use or the system has none: the caller goes on copying.
    pub(super) fn take() -> Option<Self> {
        if USED.get() >= IN_USE {
            return None;
        }
        let ends = match FREE.with_borrow_mut(Vec::pop) {
            Some(ends) => ends,
            None => {
                let ends = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
                // A smaller pipe works too: the user's limit for pipes may be reached.
                let _ = fcntl_setpipe_size(&ends.1, SIZE);
                ends
            }
        };
        USED.set(USED.get() + 1);
        Some(Self { ends: Some(ends), held: 0 })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.held == 0
    }

    fn ends(&self) -> &(OwnedFd, OwnedFd) {
        self.ends.as_ref().expect("taken only by drop")
    }

    /// Moves what the socket has into the empty pipe. 0 is the end of the stream.
    pub(super) fn splice_in(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let n = splice(socket, None, &self.ends().1, None, SIZE, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?;
        self.held += n;
        Ok(n)
    }

    /// Moves what the pipe holds into the socket.
    pub(super) fn splice_out(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let n = splice(&self.ends().0, None, socket, None, self.held, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?;
        self.held -= n;
        Ok(n)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        USED.set(USED.get() - 1);
        let ends = self.ends.take();
        if self.held == 0
            && let Some(ends) = ends
        {
            FREE.with_borrow_mut(|free| {
                if free.len() < KEPT {
                    free.push(ends);
                }
            });
        }
    }
}
