//! Bugs planted on purpose, to prove that the simulator and the tests would catch them: one for each safety rule that this crate
//! keeps (docs/internals/safety.md).
//!
//! Without the feature `plant`, which no shipped build has, [`is`] is the constant `false` and the compiler leaves nothing of it. With
//! it, one bug at a time is chosen for the whole process by [`choose`].

macro_rules! bugs {
    ($($bug:ident $name:literal $what:literal),* $(,)?) => {
        /// What is broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($bug),*
        }

        impl Bug {
            pub const ALL: &[Self] = &[$(Self::$bug),*];

            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name),*
                }
            }

            /// In words.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$bug => $what),*
                }
            }
        }
    };
}

bugs! {
    S1NoRound "s1-no-round" "a renewal is answered without a read round",
    S1NotApplied "s1-not-applied" "a grant counts before its index is applied",
    S2FromGrant "s2-from-grant" "the holder counts its lease from the grant's arrival",
    S2ShortWait "s2-short-wait" "the landlord waits half a lease",
    S3NoFloor "s3-no-floor" "a new leader takes it that nothing was granted before it",
    S4AnyLife "s4-any-life" "what is told of an older life counts",
    S5StoppedEarly "s5-stopped-early" "an engine says stopped while the program still runs",
    S6NotFenced "s6-not-fenced" "a candidate that failed is not fenced before the next",
    S7AnyAttempt "s7-any-attempt" "positions of an older attempt count",
    S8OpenEarly "s8-open-early" "a new member opens while routers may still admit for the old one",
    S9NoSuccessor "s9-no-successor" "a live hot member is fenced though nobody can take over",
    S10HotHotStops "s10-hot-hot-stops" "hot-hot groups are held where the lease is over",
    S10PauseIgnored "s10-pause-ignored" "a pause does not suspend promotion",
    S11SameNumber "s11-same-number" "a new directory gets the old one's replica number",
    S12GoesOn "s12-goes-on" "a node goes on with a log that may have lost its end",
    S13NoChecksum "s13-no-checksum" "a record is believed whatever its checksum says",
    S14NeverRewritten "s14-never-rewritten" "an idle log is not written forward",
    S14NoEnd "s14-no-end" "a leader whose disk hangs proposes without end",
    S15LeaseReads "s15-lease-reads" "reads trust the leader's clock instead of a round",
    S16Jitter "s16-jitter" "election timeouts come from the thread's generator",
    S17Differs "s17-differs" "the state depends on the node that applies it",
    S17TooEarly "s17-too-early" "a new behaviour is in force before every node supports it",
    S18OwnClock "s18-own-clock" "the leader stamps inputs by its own clock alone",
    S19WitnessLeads "s19-witness-leads" "a witness keeps the leadership",
    S22NotFenced "s22-not-fenced" "a successor is promoted while the old member may serve",
    P2OneReport "p2-one-report" "one report of a position is enough, whatever W is",
}

#[cfg(feature = "plant")]
static CHOSEN: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(usize::MAX);

/// From now on this process has that bug, or none.
#[cfg(feature = "plant")]
pub fn choose(bug: Option<Bug>) {
    CHOSEN.store(bug.map_or(usize::MAX, |bug| bug as usize), std::sync::atomic::Ordering::SeqCst);
}

/// Whether this process has that bug.
#[cfg(feature = "plant")]
#[must_use]
pub fn is(bug: Bug) -> bool {
    CHOSEN.load(std::sync::atomic::Ordering::Relaxed) == bug as usize
}

/// Whether this process has that bug: never.
#[cfg(not(feature = "plant"))]
#[must_use]
pub const fn is(_bug: Bug) -> bool {
    false
}
