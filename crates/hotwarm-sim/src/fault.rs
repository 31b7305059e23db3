//! The kinds of faults, when they strike and whom.

use crate::event::{M, N};

macro_rules! kinds {
    ($($kind:ident $text:literal),* $(,)?) => {
        /// What happens.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($kind),*
        }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$kind => $text),*
                }
            }
        }
    };
}

kinds! {
    AgentKilled "agent killed",
    MachineCrashed "machine crashed",
    AgentStopped "agent stopped (SIGSTOP)",
    MachineStopped "machine suspended",
    NodeSlow "node slow",
    PairCrashed "hot and another machine crash together",
    CutOff "node cut off",
    CutLate "node cut off, its last messages late",
    CutOneWay "link cut one way",
    CutPartial "link cut, third node sees both",
    Split "network split",
    Lossy "messages lost, late, doubled",
    Swizzle "nodes cut and mended one by one",
    DiskSlow "disk slow",
    DiskStalled "disk stalled",
    DiskFull "disk full",
    DiskTorn "write torn at a crash",
    DiskRotten "synced records rotten",
    Wiped "directory wiped",
    MemberKilled "member killed",
    MemberExits "member exits",
    MemberHangs "member hangs",
    StartFails "start fails",
    StartSlow "start slow",
    PromoteFails "promotion fails",
    PromoteHangs "promotion never ends",
    Drained "hot member or node drained",
    AutomationPaused "automation paused",
}

/// Where the exclusive group stands when a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Steady,
    Draining,
    Fencing,
    Choosing,
    Promoting,
    /// A new hot member has just been opened.
    Opened,
    Vacant,
}

impl Stage {
    pub const ALL: &[Self] = &[Self::Steady, Self::Draining, Self::Fencing, Self::Choosing, Self::Promoting, Self::Opened, Self::Vacant];

    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Draining => "draining",
            Self::Fencing => "fencing",
            Self::Choosing => "choosing",
            Self::Promoting => "promoting",
            Self::Opened => "opened",
            Self::Vacant => "vacant",
        }
    }
}

/// Whom it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Anyone,
    Leader,
    /// The node of the hot member.
    Hot,
    /// The node of the member that is being promoted.
    Candidate,
}

/// One fault of a plan.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: Kind,
    /// Not before.
    pub at: u64,
    /// It waits for the group to be in this stage, until its patience ends.
    pub stage: Option<Stage>,
    pub target: Target,
    pub lasts_us: u64,
    /// What a person or a program asks for first, to bring the stage about.
    pub begin: Option<Begin>,
}

/// What brings a stage about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    Switchover,
    KillHot,
    HangHot,
    /// All members of the group end, and none can be started for a while.
    KillAll,
    /// A switchover while the victim's disk lags behind what it has seen.
    SwitchoverSlowDisk,
}

/// The end of a fault.
#[derive(Clone, Debug)]
pub enum Healing {
    Boot(N),
    Resume(N),
    Speed(N),
    Links(Vec<(N, N)>),
    /// The second half of a fault.
    Crash(N, u64),
    CutOut(N, u64),
    Quality,
    DiskSpeed(N),
    DiskSpace(N),
    Stall(N),
    Unhang(M, u64),
    Well(M),
    /// Its program is replaced by the newer one.
    Upgrade(N),
    /// A person ends what was asked of automation.
    Operator(Undo),
    /// A person restarts the members of a group.
    Restart(usize),
}

/// What a person takes back.
#[derive(Clone, Copy, Debug)]
pub enum Undo {
    Drain(M),
    DrainNode(N),
    Pause(usize),
}
