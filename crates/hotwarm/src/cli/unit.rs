//! The systemd unit that `hotwarm join` installs, and whose data directory it is: root's, or a user's of its own (`--user`).
//!
//! It never replaces a unit that is there. Members are children of the service and get no right that it has not: what is closed here is
//! closed to them. docs/operating/privileges.md tells which of the two units is enough. Main path: [`write`].

use std::path::{Path, PathBuf};
use std::process::Command;

use super::failure::Failure;
use super::files;
use crate::codes::Code;

/// Where systemd looks for the administrator's units.
const UNIT: &str = "etc/systemd/system/hotwarm.service";

/// Writes the unit below `root` where systemd runs, or where it is `asked` for.
pub(super) fn write(root: &Path, asked: bool, config: &Path, user: Option<&str>) -> Result<Option<PathBuf>, Failure> {
    let here = root == Path::new("/") && Path::new("/run/systemd/system").is_dir();
    if !here && !asked {
        return Ok(None);
    }
    let path = root.join(UNIT);
    if !path.exists() {
        let program = std::env::current_exe().map_err(|error| files::refused(Path::new("/proc/self/exe"), &error))?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| files::refused(folder, &error))?;
        }
        files::write(&path, text(&program, config, user).as_bytes(), files::PUBLIC)?;
    }
    Ok(Some(path))
}

/// Gives the data directory to the user whose agent will run there. What is written into it later belongs to whom the directory belongs.
pub(super) fn give(data: &Path, user: &str) -> Result<(), Failure> {
    let output = Command::new("chown").args(["--no-dereference", "--", &format!("{user}:")]).arg(data).output();
    let output = output.map_err(|error| files::refused(Path::new("chown"), &error))?;
    if output.status.success() {
        return Ok(());
    }
    let text = format!("{} not given to user {user}: {}", data.display(), String::from_utf8_lossy(&output.stderr).trim());
    Err(Failure::failed(Code::NOT_PERMITTED, text)
        .hint(format!("use sudo, and make the user first: sudo useradd --system --no-create-home --shell /usr/sbin/nologin {user}")))
}

/// The agent alone is ended and started again: members outlive it and are adopted. systemd tries for as long as it takes, for what ended the
/// agent may be over at any time, as a full disk is, and nobody may be there to start it then. The guards lock themselves into memory, for which the
/// usual limit is too small.
fn text(program: &Path, config: &Path, user: Option<&str>) -> String {
    let rights = match user {
        // What changing user, ending members of other users, low ports and limits take, and what a member that starts as root needs before
        // it changes user itself.
        None => "CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL CAP_NET_BIND_SERVICE CAP_CHOWN CAP_DAC_OVERRIDE CAP_SYS_RESOURCE\n"
            .to_owned(),
        Some(user) => format!(
            "User={user}\nAmbientCapabilities=CAP_NET_BIND_SERVICE\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\nNoNewPrivileges=yes\n"
        ),
    };
    format!(
        "[Unit]\nDescription=hotwarm: keeps services answering while machines fail\nWants=network-online.target\nAfter=network-online.target\n\
         StartLimitIntervalSec=0\n\n\
         [Service]\nExecStart={} run --config {}\n{rights}Restart=always\nRestartSec=1\nKillMode=process\nDelegate=yes\n\
         LimitNOFILE=1048576\nLimitMEMLOCK=infinity\nOOMScoreAdjust=-900\n\n\
         [Install]\nWantedBy=multi-user.target\n",
        program.display(),
        config.display()
    )
}
