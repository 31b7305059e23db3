//! What an operator must hear of and no decision tells: how this node's lease stands, and who leads the log, as this node sees it.
//!
//! It must never flood the log, however fast a lease flaps, and it decides nothing. Main path: [`Notices::look`].

use std::fmt;
use std::time::Duration;

use hotwarm_core::ids::{Mono, NodeId};
use hotwarm_core::node::View;

/// A lease that is renewed within this after its end was a hiccup, and is told as one.
const OUT_AFTER: Duration = Duration::from_secs(1);
/// A node that has held no lease since its start waits for others at first, and that is no news.
const FIRST_WITHIN: Duration = Duration::from_secs(10);
/// So many lines of a kind at once; then one each time that this has passed.
const BURST: u32 = 5;
const ONE_EVERY: Duration = Duration::from_secs(20);

/// One line, and one event of this node's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// No lease for so long; voters heard, voters there are, voters needed, the leader it knows; lines left out before this one.
    Out { lasts: Duration, heard: usize, voters: usize, needed: usize, leader: Option<NodeId>, left_out: u32 },
    /// Its lease ended and was renewed a moment later.
    Hiccup { lasted: Duration, left_out: u32 },
    /// It holds a lease again; `None`: its first.
    Held { after: Option<Duration> },
    /// `ago`: since when it leads, as this node sees it; told late, for there were too many such changes.
    Leader { node: NodeId, term: u64, before: Option<NodeId>, left_out: u32, ago: Duration },
}

impl Notice {
    /// What programs compare.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Out { .. } => "here-no-lease",
            Self::Hiccup { .. } | Self::Held { .. } => "here-leased",
            Self::Leader { .. } => "here-leader",
        }
    }
}

impl Notice {
    /// How long ago it happened: an event bears that time, not the one at which it was told.
    pub(super) const fn ago(&self) -> Duration {
        match self {
            Self::Leader { ago, .. } => *ago,
            Self::Out { .. } | Self::Hiccup { .. } | Self::Held { .. } => Duration::ZERO,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |span: &Duration| format!("{:.1} s", span.as_secs_f64());
        let left_out = match self {
            Self::Out { left_out, .. } | Self::Hiccup { left_out, .. } | Self::Leader { left_out, .. } => *left_out,
            Self::Held { .. } => 0,
        };
        match self {
            Self::Out { lasts, heard, voters, needed, leader, .. } => {
                let quorum = if heard < needed { "the quorum is lost" } else { "a quorum is heard, and no grant comes" };
                let leader = leader.as_ref().map_or_else(|| "no leader".to_owned(), |leader| format!("leader {leader}"));
                write!(
                    f,
                    "this node's lease ended {} ago and is not renewed: {quorum} ({heard} of {voters} voters heard, {needed} needed; {leader}). \
                     Exclusive groups are not served here and their members here are ended, except in a pause or where only a fence command can tell: \
                     those may still answer at their own addresses; hot-hot members go on",
                    seconds(lasts)
                )
            }
            Self::Hiccup { lasted, .. } => {
                write!(f, "this node held no lease for {}: exclusive groups were not served here; it holds one again", seconds(lasted))
            }
            Self::Held { after: Some(after) } => {
                write!(
                    f,
                    "this node holds a lease again, after {}: exclusive groups are served here again, and members start",
                    seconds(after)
                )
            }
            Self::Held { after: None } => f.write_str("this node holds its first lease"),
            Self::Leader { node, term, before: Some(before), .. } if before != node => {
                write!(f, "node {node} leads the log in term {term}, no longer node {before}")
            }
            Self::Leader { node, term, .. } => write!(f, "node {node} leads the log in term {term}"),
        }?;
        if left_out > 0 { write!(f, " ({left_out} more such changes since the last line)") } else { Ok(()) }
    }
}

/// Lines that may still be told.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    counted: Mono,
    pub(super) left_out: u32,
}

impl Budget {
    pub(super) const fn new(now: Mono) -> Self {
        Self { left: BURST, counted: now, left_out: 0 }
    }

    /// How many were left out since the last one, if one may be told now.
    pub(super) fn take(&mut self, now: Mono) -> Option<u32> {
        while self.left < BURST && now.since(self.counted) >= ONE_EVERY {
            self.left += 1;
            self.counted = self.counted.plus(ONE_EVERY);
        }
        if self.left == BURST {
            self.counted = now;
        }
        self.left = self.left.checked_sub(1)?;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// What was seen last, and what was told of it.
#[derive(Debug)]
pub(super) struct Notices {
    until: Mono,
    /// It holds none since then.
    out_since: Option<Mono>,
    /// It has held one.
    held_before: bool,
    told_out: bool,
    lease: Budget,
    leader: Option<(NodeId, u64)>,
    /// The change of the leader that is under way was counted as left out; since when it is.
    missed: Option<((NodeId, u64), Mono)>,
    leaders: Budget,
}

impl Notices {
    pub(super) const fn new(now: Mono) -> Self {
        Self {
            until: Mono(0),
            out_since: Some(now),
            held_before: false,
            told_out: false,
            lease: Budget::new(now),
            leader: None,
            missed: None,
            leaders: Budget::new(now),
        }
    }

    /// The lease's end moved. An end that passed meanwhile is not forgotten, though nobody looked.
    pub(super) fn lease(&mut self, now: Mono, until: Mono) {
        if self.out_since.is_none() && now >= self.until {
            self.out_since = Some(self.until);
        }
        self.until = until;
    }

    /// What is to be told now; asked several times a second.
    pub(super) fn look(&mut self, now: Mono, view: &View) -> Vec<Notice> {
        if !view.cluster.founded() {
            self.out_since = Some(now);
            return Vec::new();
        }
        self.look_at_lease(now, view).into_iter().chain(self.look_at_leader(now, view)).collect()
    }

    fn look_at_lease(&mut self, now: Mono, view: &View) -> Option<Notice> {
        if self.out_since.is_none() && now >= self.until {
            // A session that is over has no moment at which its lease ended.
            self.out_since = Some(if self.until == Mono(0) { now } else { self.until });
        }
        let since = self.out_since?;
        let lasts = now.since(since);
        if now < self.until {
            self.out_since = None;
            let first = !std::mem::replace(&mut self.held_before, true);
            return match (std::mem::take(&mut self.told_out), first) {
                (true, _) => Some(Notice::Held { after: Some(lasts) }),
                (false, true) => Some(Notice::Held { after: None }),
                (false, false) => {
                    let left_out = self.lease.take(now);
                    self.lease.left_out += u32::from(left_out.is_none());
                    left_out.map(|left_out| Notice::Hiccup { lasted: lasts, left_out })
                }
            };
        }
        let patience = if self.held_before { OUT_AFTER } else { FIRST_WITHIN };
        if self.told_out || lasts < patience {
            return None;
        }
        let left_out = self.lease.take(now)?;
        self.told_out = true;
        let (heard, voters, leader) = (view.reached.len(), view.voters.len(), view.leader.clone());
        Some(Notice::Out { lasts, heard, voters, needed: voters / 2 + 1, leader, left_out })
    }

    fn look_at_leader(&mut self, now: Mono, view: &View) -> Option<Notice> {
        let leads = (view.leader.clone()?, view.term);
        if self.leader.as_ref() == Some(&leads) {
            return None;
        }
        let missed = self.missed.take().filter(|(missed, _)| *missed == leads);
        let since = missed.as_ref().map_or(now, |(_, since)| *since);
        let Some(left_out) = self.leaders.take(now) else {
            self.leaders.left_out += u32::from(missed.is_none());
            self.missed = Some((leads, since));
            return None;
        };
        // The one that is told now was counted while it could not be.
        let left_out = left_out.saturating_sub(u32::from(missed.is_some()));
        let before = self.leader.replace(leads.clone()).map(|(node, _)| node);
        Some(Notice::Leader { node: leads.0, term: leads.1, before, left_out, ago: now.since(since) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hotwarm_core::cluster::Cluster;
    use hotwarm_core::detect::Grade;
    use hotwarm_core::ids::{Index, Millis};

    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(ms * 1_000)
    }

    fn view(leader: Option<&str>, term: u64, heard: &[&str]) -> View {
        let mut cluster = Cluster::empty();
        cluster.id = 1;
        View {
            me: "a".into(),
            cluster: Arc::new(cluster),
            leader: leader.map(NodeId::from),
            leads: false,
            term,
            applied: Index(1),
            commit: Index(1),
            log_now: Millis(0),
            lease_left: Duration::ZERO,
            heard: heard.iter().map(|name| NodeId::from(*name)).collect(),
            strangers: Vec::new(),
            grade: Grade::Well,
            ailment: None,
            voters: ["a", "b", "c"].map(NodeId::from).to_vec(),
            reached: ["a"].iter().chain(heard).map(|name| NodeId::from(*name)).collect(),
        }
    }

    fn told(notices: &mut Notices, ms: u64, view: &View) -> Vec<String> {
        notices.look(at(ms), view).iter().map(ToString::to_string).collect()
    }

    /// Holds a lease from the first second to the second one, under leader b.
    fn leased() -> Notices {
        let mut notices = Notices::new(at(0));
        let whole = view(Some("b"), 3, &["b", "c"]);
        notices.lease(at(1_000), at(2_000));
        assert_eq!(told(&mut notices, 1_000, &whole), ["this node holds its first lease", "node b leads the log in term 3"]);
        assert_eq!(told(&mut notices, 1_900, &whole), [""; 0]);
        notices
    }

    #[test]
    fn a_lost_quorum_is_told_once_with_what_it_means_and_so_is_its_end() {
        let mut notices = leased();
        let alone = view(None, 3, &[]);
        assert_eq!(told(&mut notices, 2_500, &alone), [""; 0], "it may be a hiccup");
        let lines = told(&mut notices, 3_100, &alone);
        assert!(
            lines.len() == 1 && lines[0].starts_with("this node's lease ended 1.1 s ago and is not renewed: the quorum is lost (1 of 3"),
            "{lines:?}"
        );
        assert!(lines[0].contains("2 needed; no leader") && lines[0].ends_with("hot-hot members go on"), "{lines:?}");
        assert_eq!(told(&mut notices, 60_000, &alone), [""; 0]);
        notices.lease(at(62_000), at(63_000));
        let lines = told(&mut notices, 62_000, &view(Some("a"), 5, &["b"]));
        assert!(lines[0].starts_with("this node holds a lease again, after 60.0 s: "), "{lines:?}");
        assert_eq!(lines[1], "node a leads the log in term 5, no longer node b");
    }

    #[test]
    fn who_hears_a_quorum_and_has_no_lease_is_told_so() {
        let mut notices = leased();
        let lines = told(&mut notices, 3_500, &view(Some("b"), 3, &["b", "c"]));
        assert!(lines[0].contains("a quorum is heard, and no grant comes (3 of 3 voters heard, 2 needed; leader b)"), "{lines:?}");
    }

    #[test]
    fn an_end_that_nobody_looked_at_is_told_as_a_hiccup() {
        let mut notices = leased();
        notices.lease(at(2_300), at(3_300));
        let lines = told(&mut notices, 2_310, &view(Some("b"), 3, &["b", "c"]));
        assert!(lines[0].starts_with("this node held no lease for 0.3 s"), "{lines:?}");
    }

    #[test]
    fn what_flaps_floods_no_log_and_the_last_state_is_told_in_the_end() {
        let mut notices = leased();
        let (mut lines, mut now) = (Vec::new(), 2_000);
        for term in 4..104 {
            // Half a second without, half a second with; and another leader each time.
            now += 500;
            notices.lease(at(now), at(now + 500));
            lines.extend(told(&mut notices, now, &view(Some(if term % 2 == 0 { "b" } else { "c" }), term, &["b"])));
            now += 500;
            lines.extend(told(&mut notices, now, &view(None, term, &["b"])));
        }
        assert!((10..=20).contains(&lines.len()), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains(" more such changes since the last line)")), "{lines:#?}");
        let after = view(Some("c"), 105, &["b"]);
        let last: Vec<String> = (0..100).flat_map(|tick| told(&mut notices, now + tick * 1_000, &after)).collect();
        assert!(last.iter().any(|line| line.contains("lease ended")), "{last:#?}");
        assert!(last.iter().any(|line| line.starts_with("node c leads the log in term 105")), "{last:#?}");
    }

    /// What is told late says since when it is so; what came and went in between does not make it younger.
    #[test]
    fn a_leader_that_is_told_of_late_is_told_of_with_its_time() {
        let mut notices = leased();
        let mut look = |ms: u64, leader: Option<&str>, term: u64| -> Vec<(u64, String)> {
            let told = notices.look(at(ms), &view(leader, term, &["b", "c"]));
            let leaders = told.iter().filter(|notice| matches!(notice, Notice::Leader { .. }));
            leaders.map(|notice| (ms - notice.ago().as_millis() as u64, notice.to_string())).collect()
        };
        for term in 4..8 {
            let ms = term * 1_000;
            assert_eq!(
                look(ms, Some("c"), term),
                [(ms, format!("node c leads the log in term {term}{}", if term == 4 { ", no longer node b" } else { "" }))]
            );
        }
        assert!(look(8_000, Some("a"), 8).is_empty() && look(9_000, Some("b"), 9).is_empty(), "there were five");
        assert!(look(9_500, None, 9).is_empty() && look(10_000, Some("b"), 9).is_empty());
        let late: Vec<_> = (11..40).flat_map(|s| look(s * 1_000, Some("b"), 9)).collect();
        assert_eq!(
            late,
            [(9_000, "node b leads the log in term 9, no longer node c (1 more such changes since the last line)".to_owned())]
        );
    }
}
