//! The system calls for children that the standard library does not offer safely: another user, the death signal, blocked signals.
//!
//! Nothing here keeps state or decides. Everything inside a `pre_exec` closure allocates nothing and takes no lock, because it runs
//! between fork and exec. Main path: [`User::find`], then [`prepare`] on the command that is about to be spawned.
#![allow(unsafe_code)] // pre_exec, getpwnam_r, getgrouplist, signalfd and close_range have no safe form in std or rustix.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Gid, Pid, Resource, Rlimit, Signal, Uid};

/// A user as the system knows it, with all its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
}

#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("no user named {0:?} on this machine: create it or correct `user`")]
    Unknown(String),
    #[error("the lookup of user {name:?} failed: {source}")]
    Lookup { name: String, source: io::Error },
}

/// `HOME` of a program that is to run as `user`, or as this process's own: what `env` says, then that user's, then this process's own.
#[must_use]
pub fn home<'a>(user: Option<&User>, mut env: impl Iterator<Item = &'a str>) -> Option<(&'static str, String)> {
    if env.any(|name| name == "HOME") {
        return None;
    }
    let other = user.filter(|user| !user.is_current()).map(|user| user.home.clone());
    Some(("HOME", other.or_else(|| std::env::var("HOME").ok())?))
}

impl User {
    /// Asks the system's user database; may do I/O, so never after a guard has started its member.
    pub fn find(name: &str) -> Result<Self, UserError> {
        let lookup = |source| UserError::Lookup { name: name.to_owned(), source };
        let c_name = CString::new(name).map_err(|_| UserError::Unknown(name.to_owned()))?;
        let mut buffer = vec![0_u8; 16 * 1024];
        // SAFETY: passwd is plain data for which all zeroes is valid; it is read only where getpwnam_r says that it filled it.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found: *mut libc::passwd = std::ptr::null_mut();
        // SAFETY: every pointer refers to a live local; the buffer's length is its own.
        let code = unsafe { libc::getpwnam_r(c_name.as_ptr(), &raw mut entry, buffer.as_mut_ptr().cast(), buffer.len(), &raw mut found) };
        if code != 0 {
            return Err(lookup(io::Error::from_raw_os_error(code)));
        }
        if found.is_null() {
            return Err(UserError::Unknown(name.to_owned()));
        }
        let home = if entry.pw_dir.is_null() {
            String::from("/")
        } else {
            // SAFETY: a filled entry's strings are terminated and live in `buffer`, which outlives this line.
            unsafe { CStr::from_ptr(entry.pw_dir) }.to_string_lossy().into_owned()
        };
        let groups = groups_of(&c_name, entry.pw_gid).map_err(lookup)?;
        Ok(Self { name: name.to_owned(), uid: entry.pw_uid, gid: entry.pw_gid, groups, home })
    }

    /// Whether this process already runs as this user.
    #[must_use]
    pub fn is_current(&self) -> bool {
        rustix::process::geteuid().as_raw() == self.uid
    }
}

fn groups_of(name: &CStr, gid: u32) -> io::Result<Vec<u32>> {
    let mut room = 64;
    for _ in 0..4 {
        let mut groups = vec![0_u32; room];
        let mut count = i32::try_from(room).unwrap_or(i32::MAX);
        // SAFETY: `groups` has room for `count` entries; getgrouplist writes no more and says in `count` how many there are.
        let filled = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        if filled >= 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        room = count.max(room * 2);
    }
    Err(io::Error::other("a user in too many groups"))
}

/// What a child is to be before it becomes the program.
#[derive(Clone, Debug, Default)]
pub struct Child {
    /// A session, and so a process group, of its own.
    pub session: bool,
    /// Die when this process, its parent, dies. Only for a parent of one thread: the kernel watches the thread that forked.
    pub die_with: Option<Pid>,
    pub user: Option<User>,
    pub open_files: Option<u64>,
    /// Private writable memory (RLIMIT_DATA): what a program allocates, not the addresses it reserves.
    pub data_bytes: Option<u64>,
    pub processes: Option<u64>,
}

/// Makes `command` apply `child` between fork and exec.
pub fn prepare(command: &mut Command, child: &Child) {
    let limits: Vec<(Resource, Rlimit)> =
        [(Resource::Nofile, child.open_files), (Resource::Data, child.data_bytes), (Resource::Nproc, child.processes)]
            .into_iter()
            .filter_map(|(resource, limit)| limit.map(|limit| (resource, Rlimit { current: Some(limit), maximum: Some(limit) })))
            .collect();
    let user = child.user.as_ref().filter(|user| !user.is_current()).map(|user| {
        // SAFETY: the numbers come from the system's user database, which does not hold the reserved value -1.
        let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        (Uid::from_raw(user.uid), Gid::from_raw(user.gid), groups)
    });
    let (session, die_with) = (child.session, child.die_with);
    let setup = move || -> io::Result<()> {
        reset_signals();
        if session {
            rustix::process::setsid()?;
        }
        for (resource, limit) in &limits {
            rustix::process::setrlimit(*resource, *limit)?;
        }
        if let Some((uid, gid, groups)) = &user {
            // The groups go first: without the user's rights they could not be changed any more.
            rustix::thread::set_thread_groups(groups)?;
            rustix::thread::set_thread_res_gid(*gid, *gid, *gid)?;
            rustix::thread::set_thread_res_uid(*uid, *uid, *uid)?;
        }
        if let Some(parent) = die_with {
            // After the change of user, which clears it. A parent that died before this line is noticed by the next one.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if rustix::process::getppid() != Some(parent) {
                return Err(io::Error::from_raw_os_error(libc::ECANCELED));
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes only system calls; it allocates nothing, takes no lock and touches only what it owns.
    unsafe { command.pre_exec(setup) };
}

/// A program starts with no signal blocked and none ignored, whatever its parent did.
fn reset_signals() {
    // SAFETY: async-signal-safe calls on a local set; every number is a signal whose disposition may be set.
    unsafe {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2, libc::SIGPIPE, libc::SIGCHLD]
        {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Blocks `signals` in this thread and returns a descriptor from which they are read instead.
pub fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: the set is a local; the descriptor is fresh and owned by nobody else.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        let code = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        if code != 0 {
            return Err(io::Error::from_raw_os_error(code));
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The signals waiting in a descriptor of [`signal_fd`].
pub fn read_signals(fd: &OwnedFd) -> Vec<i32> {
    const RECORD: usize = 128; // sizeof(struct signalfd_siginfo), fixed by the kernel's interface; the number is its first word.
    let mut buffer = [0_u8; RECORD * 16];
    let read = rustix::io::read(fd, &mut buffer).unwrap_or(0);
    buffer[..read].chunks_exact(RECORD).map(|record| i32::from_ne_bytes([record[0], record[1], record[2], record[3]])).collect()
}

/// Closes every descriptor after standard error: a guard must hold nothing of the agent that started it.
pub fn close_inherited() {
    // SAFETY: called first in a process of one thread that owns no descriptor above 2 yet.
    unsafe {
        libc::close_range(3, u32::MAX, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_another_user_is_at_home_with_that_user() {
        let uid = rustix::process::geteuid().as_raw() + 1;
        let other = User { name: "x".into(), uid, gid: uid, groups: Vec::new(), home: "/srv/x".into() };
        let none = std::iter::empty::<&str>;
        assert_eq!(home(Some(&other), none()), Some(("HOME", "/srv/x".to_owned())));
        assert_eq!(home(Some(&other), ["A", "HOME"].into_iter()), None, "what the file says counts");
        assert_eq!(home(None, none()).map(|(_, home)| home), std::env::var("HOME").ok());
    }
}
