//! The agent: one node of hotwarm, running. It wires the core's node to disk, network, engines and router, and decides nothing.
//!
//! The one place where adapters meet: it owns their channels and threads. The main path: [`Agent::start`] -> `decision::run`.

mod act;
mod decision;
mod erring;
pub mod expiry;
mod handle;
mod notice;
mod operate;
mod record;
pub mod recover;
pub mod spec;
mod toll;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use hotwarm_core::ids::{Index, Mono, NodeId};
use hotwarm_core::node::{Node, Options, Stored};
use tokio::sync::mpsc;
use tracing::{error, info};

pub use erring::Erring;
pub use handle::Handle;
pub use operate::{ConfigureError, Planned, ReloadError};
pub use record::{Noted, Recorded, Records, UNPLANNED};

/// What the API shows of other rooms, which it may not enter.
pub mod seen {
    pub use crate::config::Errors;
    pub use crate::config::pki::Identity;
    pub use crate::engine::Place;
    pub use crate::engine::failures::Failure;
    pub use crate::engine::logs::{Follower, tail};
    pub use crate::router::{CLASSES, GroupStats, MemberStats};
    pub use crate::store::disk::Room;
    pub use crate::store::transport::Lane;
}

use crate::codes::Code;
use crate::config::{Config, pki};
use crate::store::dir::{DataDir, DirError};
use crate::store::transport::{Security, TlsMaterial, Transport, TransportError};
use crate::store::wal::{Callbacks, Wal, WalError};
use crate::store::{disk, transport};
use crate::{clock, engine, router};
use decision::{Inbox, Input};
use handle::{Shared, Tickets};

/// Events of members that may wait.
const MEMBER_EVENTS_MAX: usize = 1024;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Dir(#[from] DirError),
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Router(#[from] router::RouterError),
    #[error("state on disk not usable: {0}; move all but tls out of the data directory, and the node joins anew")]
    Node(#[from] hotwarm_core::node::StartError),
    #[error("data directory {} belongs to a cluster and its log is gone: move all but tls out of it, and the node joins anew", .path.display())]
    LogGone { path: PathBuf },
    #[error(transparent)]
    LogCut(#[from] hotwarm_core::node::LogCut),
    #[error("no certificates in {}: run `hotwarm join` with this node's join file ({source})", .path.display())]
    NoCertificates { path: PathBuf, source: std::io::Error },
    #[error("list of revoked certificates {} not readable ({source}): correct its permissions, or remove it if none is revoked", .path.display())]
    Revoked { path: PathBuf, source: std::io::Error },
    #[error(
        "line {line} of {} is no certificate's serial number: write one a line, as `openssl x509 -noout -serial` prints it (serial=6593AB) or as 6593AB or 65:93:AB, and what else there is to say after a #",
        .path.display()
    )]
    RevokedLine { path: PathBuf, line: usize },
    #[error("no thread ({0}): raise the limits on threads")]
    Thread(std::io::Error),
    #[error("node {0} is not in [cluster] nodes: correct the name or the file")]
    UnknownNode(NodeId),
}

impl StartError {
    /// Where to read on; `None` where the sentence is all there is to say.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        Some(match self {
            Self::Dir(DirError::InUse { .. } | DirError::NotOurs(_)) => Code::DATA_DIRECTORY,
            Self::Dir(DirError::OtherCluster { .. }) => Code::OTHER_CLUSTER,
            Self::Dir(DirError::Version { .. }) => Code::TOO_OLD,
            Self::Wal(WalError::Disk { .. }) => Code::DISK_FAILED,
            Self::Transport(TransportError::Listen { .. }) => Code::ADDRESS_IN_USE,
            Self::Transport(TransportError::Tls(_)) | Self::NoCertificates { .. } | Self::Revoked { .. } | Self::RevokedLine { .. } => {
                Code::CERTIFICATE
            }
            Self::Node(_) => Code::REPLICA_NOT_STARTED,
            Self::LogGone { .. } | Self::LogCut(_) => Code::LOST_RECORDS,
            Self::UnknownNode(_) => Code::NODE_UNKNOWN,
            _ => return None,
        })
    }

    /// True if another user could start it.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        let chain = std::iter::successors(Some(self as &dyn std::error::Error), |error| error.source());
        let denied = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
        matches!(self, Self::Dir(DirError::Owner { .. })) || chain.filter_map(|error| error.downcast_ref()).any(denied)
    }
}

/// What an agent is started with.
#[derive(Debug)]
pub struct Start {
    pub config: Config,
    pub node: NodeId,
    /// The program that guards are started from.
    pub exe: PathBuf,
    /// Where engines, probes and the API run.
    pub runtime: tokio::runtime::Handle,
}

/// A running node.
#[derive(Debug)]
pub struct Agent {
    handle: Handle,
    thread: JoinHandle<()>,
    /// Held until the agent ends: it locks the data directory.
    _dir: DataDir,
}

impl Agent {
    /// Starts everything; returns when the node takes part.
    ///
    /// # Errors
    /// What is in the way, and what to do about it.
    pub fn start(start: Start) -> Result<Self, StartError> {
        let Start { config, node: me, exe, runtime } = start;
        let address = *config.cluster.nodes.get(&me).ok_or_else(|| StartError::UnknownNode(me.clone()))?;
        let dir = DataDir::open(&config.node.data)?;
        let (inbox, receiver) = Inbox::new();
        let transport = start_transport(&config, &me, address, dir.path(), &inbox)?;
        let (stored, wal) = open_wal(&dir, &inbox)?;
        let router = start_router(&me, &inbox)?;
        let node = Node::new(options(&config, &me, &dir, &stored)?, stored, clock::now())?;
        let room = Arc::new(ArcSwap::from_pointee(None));
        let disk = disk::DiskProbe::start(&dir.subdir("run")?.join("probe"), disk::EVERY, disk_told(&inbox, Arc::clone(&room)))?;
        let certificate = read_tls(&dir.path().join("tls")).ok().and_then(|material| pki::identity(&material.certificate).ok());
        let shared = Arc::new(Shared {
            me: me.clone(),
            data: dir.path().to_owned(),
            certificate: ArcSwap::from_pointee(certificate),
            view: ArcSwap::from_pointee(node.view()),
            leased: clock::now().0.into(),
            // Nothing is in force before the log says so; what is not about groups is the file's.
            config: ArcSwap::from_pointee(Config { groups: BTreeMap::new(), ..config }),
            members: ArcSwap::default(),
            room,
            former: std::sync::Mutex::default(),
            records: Records::default(),
            failures: engine::failures::Failures::default(),
            outputs: engine::logs::Outputs::default(),
            unopened: ArcSwap::default(),
            erring: ArcSwap::default(),
            router,
            transport,
            wal,
            tickets: std::sync::Mutex::new(Tickets::default()),
        });
        let hands = act::Hands {
            me,
            shared: Arc::clone(&shared),
            engines: BTreeMap::new(),
            foreign: BTreeMap::new(),
            strays: None,
            engine_events: engine_events(&runtime, &inbox),
            runtime,
            data: dir.path().to_owned(),
            exe,
            disk,
            disk_late: false,
            remembered: dir.cluster().is_some(),
            listeners: act::Listeners::default(),
            published: (Mono(0), Index(0)),
            notices: notice::Notices::new(clock::now()),
            erring: erring::Watch::new(clock::now()),
        };
        hands.runtime.spawn(expiry::watch(Arc::downgrade(&shared)));
        let decide = move || decision::run(node, receiver, hands);
        let thread = std::thread::Builder::new().name("decision".into()).spawn(decide).map_err(StartError::Thread)?;
        Ok(Self { handle: Handle { shared, inbox }, thread, _dir: dir })
    }

    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Ends the agent; members live on (the next agent adopts them, a guard ends those that must not outlive the lease).
    pub fn stop(self) {
        self.handle.inbox.put(Input::Stop);
        // A decision thread that panicked has said so; the process ends either way.
        let _ = self.thread.join();
    }
}

fn start_transport(
    config: &Config,
    me: &NodeId,
    listen: std::net::SocketAddr,
    data: &Path,
    inbox: &Inbox,
) -> Result<transport::Handle, StartError> {
    let options = transport::Options {
        me: me.clone(),
        listen,
        peers: config.cluster.nodes.clone(),
        cluster: config.cluster.name.clone(),
        security: security(config, &data.join("tls"))?,
        revoked: read_revoked(&data.join("tls"))?,
    };
    let inbox = inbox.clone();
    let inbound = move |told| {
        inbox.offer(match told {
            transport::Inbound::Message { from, bytes } => Input::Message { from, bytes },
            transport::Inbound::Ended(peer) => Input::Ended(peer),
        })
    };
    Ok(Transport::start(options, Box::new(inbound))?)
}

/// The serial numbers in the file `revoked` beside the certificates, in lower-case hexadecimal: one a line, `#` begins a comment. No file: none.
///
/// # Errors
/// It is there and cannot be read, or a line is no serial number: whoever wrote it believes a certificate revoked that is not.
pub fn read_revoked(tls: &Path) -> Result<Vec<String>, StartError> {
    let path = tls.join("revoked");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(StartError::Revoked { path, source }),
    };
    pki::revoked(&text).map_err(|line| StartError::RevokedLine { path, line })
}

/// Certificates where there are any; without them nothing but loopback, which the transport enforces.
fn security(config: &Config, tls: &Path) -> Result<Security, StartError> {
    let loopback = config.cluster.nodes.values().all(|address| address.ip().is_loopback());
    if loopback && !tls.join("node.pem").exists() {
        return Ok(Security::Loopback);
    }
    read_tls(tls).map(Security::Tls)
}

/// The installed certificates.
///
/// # Errors
/// One of the files cannot be read.
pub fn read_tls(tls: &Path) -> Result<TlsMaterial, StartError> {
    let read = |name: &str| {
        let path = tls.join(name);
        std::fs::read_to_string(&path).map_err(|source| StartError::NoCertificates { path, source })
    };
    Ok(TlsMaterial { ca: read("ca.pem")?, certificate: read("node.pem")?, key: read("node.key")? })
}

fn open_wal(dir: &DataDir, inbox: &Inbox) -> Result<(Stored, crate::store::wal::Handle), StartError> {
    let inbox = inbox.clone();
    let persisted = move |token| {
        if token != 0 {
            inbox.put(Input::Persisted(token));
        }
    };
    let callbacks = Callbacks { persisted: Box::new(persisted), fatal: Box::new(crate::store::wal::end_process) };
    let (recovered, wal) = Wal::open(&dir.subdir("wal")?, callbacks)?;
    if recovered.fresh && dir.cluster().is_some() {
        return Err(StartError::LogGone { path: dir.path().to_owned() });
    }
    let cluster = dir.cluster().and_then(|id| u128::from_str_radix(id, 16).ok());
    Ok((Stored::from_logs(recovered.logs, cluster)?, wal))
}

fn start_router(me: &NodeId, inbox: &Inbox) -> Result<router::Handle, StartError> {
    let inbox = inbox.clone();
    let options = router::Options {
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        node: me.clone(),
        events: Arc::new(move |event| match event {
            // Bad testimony is repeated; what takes it back is not, nor what a failover waits for.
            router::Event::Evidence { kind, .. } if kind != router::Kind::Ok => drop(inbox.offer(Input::Router(event))),
            router::Event::Evidence { .. } | router::Event::Closed { .. } | router::Event::Drained { .. } => {
                inbox.put(Input::Router(event));
            }
        }),
    };
    Ok(router::Router::start(options)?)
}

fn options(config: &Config, me: &NodeId, dir: &DataDir, stored: &Stored) -> Result<Options, StartError> {
    let seed = dir.incarnation() as u64 ^ clock::now().0;
    // S12: whose log was cut comes back as somebody else.
    let anew = stored.rejoins.map_or(0, |_| u128::from(clock::now().0) << 32);
    let mut options = Options::new(me.clone(), &config.cluster.name, dir.incarnation() ^ anew, seed);
    options.peers = config.cluster.nodes.keys().cloned().collect();
    options.heartbeat = config.cluster.heartbeat;
    // Larger than any number of an earlier life, unless the wall clock went back by more than it ran; then the core goes on above those.
    options.command_base = act::wall_ms() << 16;
    if stored.identity.is_none() && stored.rejoins.is_none() && dir.take_bootstrap_right()? {
        // Another random number than the directory's: the cluster's id is public.
        let id = (u128::from(clock::now().0) << 64) ^ dir.incarnation().rotate_left(61) | 1;
        options.found = Some((id, spec::cluster(config)));
    }
    Ok(options)
}

fn disk_told(inbox: &Inbox, room: Arc<ArcSwap<Option<disk::Room>>>) -> disk::ProbedFn {
    let inbox = inbox.clone();
    Box::new(move |probed| {
        let Ok(now) = probed.outcome else {
            inbox.offer(Input::Disk(Some(false)));
            return;
        };
        inbox.offer(Input::Disk(None));
        inbox.offer(Input::Disk(Some(true)));
        inbox.offer(Input::Room { little: now.low });
        let was_low = room.swap(Arc::new(Some(now))).is_some_and(|before| before.low);
        let (free, floor) = (now.free_bytes >> 20, now.floor_bytes >> 20);
        if now.low && !was_low {
            error!(code = "HW0508", "{free} MiB left on the disk of the data directory, below {floor}: make room before it is full");
        } else if was_low && !now.low {
            info!("{free} MiB left on the disk of the data directory: enough again");
        }
    })
}

/// Member tasks report asynchronously; the decision thread's inbox is not.
fn engine_events(runtime: &tokio::runtime::Handle, inbox: &Inbox) -> engine::Events {
    let (sender, mut receiver) = mpsc::channel(MEMBER_EVENTS_MAX);
    let inbox = inbox.clone();
    runtime.spawn_blocking(move || {
        while let Some((member, event)) = receiver.blocking_recv() {
            inbox.put(Input::Member(member, event));
        }
    });
    sender
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_start_it_is_told_so_and_nobody_else() {
        let denied = |kind| DirError::Io { doing: "opening", path: "/x".into(), source: kind };
        let error = |kind: std::io::ErrorKind| StartError::from(denied(kind.into()));
        assert!(error(std::io::ErrorKind::PermissionDenied).is_permission());
        assert!(StartError::from(DirError::Owner { path: "/x".into(), owner: 0, me: 1 }).is_permission());
        assert!(!error(std::io::ErrorKind::StorageFull).is_permission());
        assert!(!StartError::LogGone { path: "/x".into() }.is_permission());
    }

    #[test]
    fn the_list_of_revoked_certificates_may_be_absent_but_not_unreadable() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_revoked(dir.path()).unwrap().is_empty());
        let file = dir.path().join("revoked");
        std::fs::write(&file, "# lost in the move\n0A:1B  # node c\n\n  77\n").unwrap();
        assert_eq!(read_revoked(dir.path()).unwrap(), ["0a1b", "77"]);
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert!(matches!(read_revoked(dir.path()), Err(StartError::Revoked { .. })));
    }

    #[test]
    fn a_revoked_certificate_is_named_as_programs_print_it_and_by_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let read = |line: &str| {
            std::fs::write(dir.path().join("revoked"), format!("77\n{line}\n\n78")).unwrap();
            read_revoked(dir.path())
        };
        let longest = format!("00{}", "fe".repeat(20));
        for (line, serial) in [
            ("serial=6593EA", "6593ea"),
            ("Serial=65:93:ea  # stolen", "6593ea"),
            ("\t65:93:EA\r", "6593ea"),
            ("6593eA", "6593ea"),
            ("0", "0"),
            (&longest, &longest),
        ] {
            assert_eq!(read(line).unwrap(), ["77", serial, "78"], "{line}");
        }
        let fingerprint = ["ab"; 32].join(":");
        for line in [
            "serial=",
            "serial",
            "serial 6593",
            "serial: 6593",
            "number=6593",
            "6593 EA",
            "0x6593",
            "6593EG",
            "65:9:3E",
            "65::93",
            ":65",
            "65:",
            "6593:EA",
            "-6593",
            "6593,EA",
            "node.pem",
            &fingerprint,
        ] {
            match read(line) {
                Err(StartError::RevokedLine { line: 2, .. }) => {}
                other => panic!("{line}: {other:?}"),
            }
        }
        let told = read("node.pem").unwrap_err().to_string();
        assert!(told.contains("line 2 of ") && told.contains("revoked is no certificate's serial number"), "{told}");
    }
}
