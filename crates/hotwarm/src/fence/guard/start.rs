//! Starting the member's program: the last moment at which a guard may touch a disk.
//!
//! Every failure becomes a sentence that says what to do. Main path: [`start`].

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};

use crate::child::sys::{self, User};

use super::frame::Spec;

/// Starts the program of `spec` as a child that dies with this process. The error is meant for people.
pub(super) fn start(spec: &Spec) -> Result<Child, String> {
    let user = spec.user.as_deref().map(User::find).transpose().map_err(|e| e.to_string())?;
    let (program, arguments) = spec.argv.split_first().ok_or("no program to run: give one in the group's `engine`")?;
    if let Some(directory) = spec.directory.as_deref().filter(|directory| !directory.is_dir()) {
        return Err(format!("no directory {}: create it or correct `directory`", directory.display()));
    }
    let output = open_output(spec)?;
    let error_output = output.try_clone().map_err(|e| format!("no descriptor left for the member's output: {e}"))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(spec.env.iter().map(|(key, value)| (OsStr::new(key), OsStr::new(value))));
    command.envs(sys::home(user.as_ref(), spec.env.iter().map(|(name, _)| name.as_str())));
    command.current_dir(spec.directory.as_deref().unwrap_or(std::path::Path::new("/")));
    command.stdin(Stdio::null()).stdout(output).stderr(error_output);
    let child = sys::Child {
        session: true,
        die_with: Some(rustix::process::getpid()),
        user,
        open_files: spec.open_files,
        data_bytes: spec.memory_bytes,
        processes: spec.processes,
    };
    sys::prepare(&mut command, &child);
    command.spawn().map_err(|e| explain(&e, spec, program))
}

fn open_output(spec: &Spec) -> Result<File, String> {
    let path = spec.run_dir.join(super::OUTPUT_FILE);
    let opened = OpenOptions::new().append(true).create(true).mode(0o640).open(&path);
    opened.map_err(|e| format!("no output file {}: {e}; check the space and the rights of the data directory", path.display()))
}

fn explain(error: &io::Error, spec: &Spec, program: &str) -> String {
    match (error.kind(), &spec.user) {
        (io::ErrorKind::NotFound, _) if program.contains('/') => {
            format!("no program {program}, or not the interpreter it names: install it or correct `engine`")
        }
        // Also where a directory of PATH may not be searched, or a file by this name there may not be executed.
        (io::ErrorKind::NotFound, _) | (io::ErrorKind::PermissionDenied, None) if !program.contains('/') => {
            let path = spec.env.iter().find(|(key, _)| key == "PATH").map_or("", |(_, value)| value.as_str());
            format!("no program {program} that may be executed in PATH ({path}): install it or write its full path in `engine`")
        }
        (io::ErrorKind::PermissionDenied, Some(user)) if error.raw_os_error() == Some(libc::EPERM) => format!(
            "no right to run {program} as user {user}: run hotwarm as root, or with CAP_SETUID, CAP_SETGID and CAP_KILL, or leave out `user`"
        ),
        (io::ErrorKind::PermissionDenied, user) => format!(
            "no right to execute {program}{}: make it executable, also the directories above it",
            user.as_ref().map(|user| format!(" as user {user}")).unwrap_or_default()
        ),
        _ => format!("{program} could not be started: {error}"),
    }
}
