//! What a dead guard may have left: finding and killing the processes of a life whose guard is gone (S5).
//!
//! The program itself died with its guard (death signal); what it had started did not. Every process of a life carries the life's number
//! in its environment, by which it is found here. Where the number was lost with the directory the member's address is as good: nobody
//! else in this network can have it. The limit, which no parent can close: a process that wiped its environment, or one
//! that another user owns while the agent is not root, is not found. It never signals a process whose mark it has not just read through
//! a descriptor that holds the process's identity. Main path: [`clear`].

use std::fs::{self, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hotwarm_core::ids::{Incarnation, MemberId};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::place::{ADDRESS_VARIABLE, INCARNATION_VARIABLE, MEMBER_VARIABLE, Place};
use crate::fence::guard::LOCK_FILE;

const AGAIN: Duration = Duration::from_millis(10);
const AGAIN_SLOWLY: Duration = Duration::from_millis(500);

/// Returns once no guard of the member lives and nothing that carries `mark` is left; kills what is. It does not give up: "stopped" must
/// not be said before it is true, and the caller drops it if it must go on.
pub(super) async fn clear(place: &Place, mark: &Mark) {
    for round in 0_u32.. {
        let (its, dir) = (mark.clone(), place.dir.clone());
        // Reads other processes' memory and a lock file: either may wait for a disk.
        let empty = tokio::task::spawn_blocking(move || is_unlocked(&dir) && its.kill_all() == 0).await.unwrap_or(false);
        if empty {
            return;
        }
        if round == 1_000 {
            tracing::warn!(mark = %mark.name, "processes of an earlier life cannot be killed; the member is not started again until they are gone");
        }
        tokio::time::sleep(if round < 100 { AGAIN } else { AGAIN_SLOWLY }).await;
    }
}

/// A guard holds its lock as long as it lives. Looked up beside everything else: a disk may hang.
pub(super) async fn guard_is_dead(dir: &Path) -> bool {
    let dir = dir.to_owned();
    tokio::task::spawn_blocking(move || is_unlocked(&dir)).await.unwrap_or(false)
}

fn is_unlocked(dir: &Path) -> bool {
    match OpenOptions::new().write(true).mode(0o600).open(dir.join(LOCK_FILE)) {
        Ok(file) => flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// By what the processes of a member are known.
#[derive(Clone)]
pub(super) struct Mark {
    name: String,
    member: Vec<u8>,
    incarnation: Vec<u8>,
    /// Its address, which in this network is its alone.
    address: Option<(Vec<u8>, PathBuf)>,
}

impl Mark {
    /// The life `incarnation`; with `address` also any other life of the member there.
    pub(super) fn new(member: &MemberId, incarnation: Incarnation, address: Option<SocketAddr>) -> Self {
        // Members of two clusters may have the same names and addresses, in two network namespaces of one machine.
        let network = fs::read_link("/proc/self/ns/net").ok();
        let address = address.map(|address| format!("{ADDRESS_VARIABLE}={address}").into_bytes()).zip(network);
        Self {
            name: format!("{member}, life {incarnation}"),
            member: format!("{MEMBER_VARIABLE}={member}").into_bytes(),
            incarnation: format!("{INCARNATION_VARIABLE}={incarnation}").into_bytes(),
            address,
        }
    }

    /// Signals everything that bears the mark; how many that were.
    fn kill_all(&self) -> usize {
        let Ok(processes) = fs::read_dir("/proc") else { return 0 };
        let pids = processes.flatten().filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
        pids.filter(|pid| self.kill(*pid)).count()
    }

    fn kill(&self, pid: Pid) -> bool {
        if !self.is_on(pid) {
            return false;
        }
        let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        // Read again: the descriptor now says whose mark this is.
        let marked = self.is_on(pid);
        if marked {
            // Counted also if it may not be killed: it is there, and so the member has not stopped.
            let _ = pidfd_send_signal(&fd, Signal::KILL);
        }
        marked
    }

    fn is_on(&self, pid: Pid) -> bool {
        let Ok(environment) = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())) else { return false };
        let has = |mark: &[u8]| environment.split(|byte| *byte == 0).any(|variable| variable == mark);
        if pid == rustix::process::getpid() || !has(&self.member) {
            return false;
        }
        let here = |network: &Path| fs::read_link(format!("/proc/{}/ns/net", pid.as_raw_nonzero())).is_ok_and(|its| its == *network);
        has(&self.incarnation) || self.address.as_ref().is_some_and(|(address, network)| has(address) && here(network))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// A member's task has deadlines to pass on, and shares its thread with those of all others.
    #[tokio::test]
    async fn a_disk_that_hangs_holds_up_no_task() {
        let dir = tempfile::tempdir().unwrap();
        // To open it for writing takes until somebody reads.
        let lock = dir.path().join(LOCK_FILE);
        mknodat(CWD, &lock, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let (go_on, hung) = mpsc::channel::<()>();
        let disk = std::thread::spawn(move || {
            // What waits for this disk alone is let go at last.
            let _ = hung.recv_timeout(Duration::from_secs(5));
            drop(fs::File::open(lock));
        });
        let mut looking = std::pin::pin!(guard_is_dead(dir.path()));
        let held_up = tokio::select! {
            biased;
            _ = &mut looking => true,
            () = tokio::task::yield_now() => false,
        };
        go_on.send(()).unwrap_or_default();
        disk.join().unwrap();
        assert!(!held_up);
        looking.await;
    }
}
