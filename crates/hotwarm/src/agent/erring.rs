//! Members that answer with errors (5xx) while their checks pass, as this node's router sees it: for people, with a beginning and an end.
//!
//! It must never decide anything, nor flood the log however fast a member flaps. 5xx alone replaces nobody: what makes an application fail
//! travels with its data, and the next hot member would fail alike. Main path: [`Watch::look`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use hotwarm_core::ids::{MemberId, Mono, NodeId};

use super::notice::Budget;
use crate::router::Answers;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What counts as recent, where one member is hot. Fewer answers in that time show nothing.
const WINDOW: Duration = Duration::from_secs(10);
const ANSWERS_MIN: u64 = 20;
/// The same for one of several: the balance keeps away from who errs, so that it gets a request now and then.
const WINDOW_OF_SEVERAL: Duration = Duration::from_secs(60);
const ERRORS_MIN: u64 = 3;

const fn window(exclusive: bool) -> Duration {
    if exclusive { WINDOW } else { WINDOW_OF_SEVERAL }
}

/// Kinds of events, which programs compare.
pub(super) const BEGUN: &str = "here-5xx";
pub(super) const OVER: &str = "here-5xx-over";

/// How a member answers that answers with errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erring {
    /// The router leaves it out, or did within the window and tries it again.
    LeftOut { now: bool },
    /// Most of its answers within the window are 5xx, and it is not left out.
    Most { errors: u64, replies: u64, exclusive: bool },
}

impl Erring {
    /// What is seen of `member`, and by whose router.
    #[must_use]
    pub fn text(&self, node: &NodeId, member: &MemberId) -> String {
        match self {
            Self::LeftOut { now: true } => format!("the router of {node} leaves out {member}: it answers 5xx"),
            Self::LeftOut { now: false } => format!("the router of {node} left out {member}, which answered 5xx, and tries it again"),
            Self::Most { errors, replies, exclusive } => {
                let (hot, so) = match exclusive {
                    true => ("the hot member ", "its check passes, so it is not replaced"),
                    false => ("", "its check passes, so it stays hot; that router prefers others"),
                };
                format!(
                    "{hot}{member} answers most requests with 5xx ({errors} of {replies} in the last {} s, by the router of {node}): {so}",
                    window(*exclusive).as_secs()
                )
            }
        }
    }

    const fn is_left_out(&self) -> bool {
        matches!(self, Self::LeftOut { .. })
    }
}

/// One line, and one event of this node's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) member: MemberId,
    what: What,
    /// Such changes that were not told before this one.
    left_out: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Begun(Erring),
    /// Why it is told no more: it is not left out, so many of its answers are errors, or it gets no requests.
    TakenBack,
    Fewer {
        errors: u64,
        replies: u64,
        exclusive: bool,
    },
    NotAsked,
}

impl Line {
    /// What programs compare.
    pub(super) const fn kind(&self) -> &'static str {
        match self.what {
            What::Begun(_) => BEGUN,
            What::TakenBack | What::Fewer { .. } | What::NotAsked => OVER,
        }
    }

    pub(super) fn text(&self, node: &NodeId) -> String {
        let member = &self.member;
        let mut text = match self.what {
            What::Begun(erring) => format!("{}; see its log: hotwarm logs {member}", erring.text(node, member)),
            What::TakenBack => format!(
                "the router of {node} leaves out {member} no more: it has not answered 5xx again and again for {} s",
                WINDOW.as_secs()
            ),
            What::Fewer { errors, replies, exclusive } => format!(
                "{member} answers most requests without 5xx again ({errors} of {replies} in the last {} s, by the router of {node})",
                window(exclusive).as_secs()
            ),
            What::NotAsked => format!("{member} gets no requests from the router of {node} any more: whether it answers 5xx is not known"),
        };
        if self.left_out > 0 {
            text.push_str(&format!(" ({} more such changes since the last line)", self.left_out));
        }
        text
    }
}

/// What is known of one member that requests go to.
#[derive(Debug)]
struct Watched {
    /// All that were counted, and of those 5xx, when last looked at.
    counted: (u64, u64),
    /// What came within each turn of the window, by its end.
    recent: VecDeque<(Mono, u64, u64)>,
    left_out_until: Option<Mono>,
    /// What was told of it and is not over.
    told: Option<Erring>,
    /// What is to be told now was counted as left out.
    missed: bool,
}

impl Watched {
    const fn new(seen: &Answers) -> Self {
        let counted = (seen.replies, seen.errors);
        Self { counted, recent: VecDeque::new(), left_out_until: None, told: None, missed: false }
    }

    fn note(&mut self, now: Mono, seen: &Answers) {
        let (replies, errors) = (seen.replies.saturating_sub(self.counted.0), seen.errors.saturating_sub(self.counted.1));
        self.counted = (seen.replies, seen.errors);
        self.recent.push_back((now, replies, errors));
        while self.recent.front().is_some_and(|(at, ..)| now.since(*at) >= WINDOW_OF_SEVERAL) {
            self.recent.pop_front();
        }
        // One that has passed long ago is no news.
        let until = seen.left_out_until.filter(|until| now.since(*until) < WINDOW);
        self.left_out_until = self.left_out_until.max(until);
    }

    /// Answers within the window, and how many of them are 5xx.
    fn sums(&self, now: Mono, exclusive: bool) -> (u64, u64) {
        let recent = self.recent.iter().filter(|(at, ..)| now.since(*at) < window(exclusive));
        recent.fold((0, 0), |(replies, errors), (_, r, e)| (replies + r, errors + e))
    }

    /// Few answers say nothing by themselves, and nor do they take back what many have said.
    fn judge(&mut self, now: Mono, exclusive: bool) -> Option<Erring> {
        if let Some(until) = self.left_out_until {
            if now.since(until) < WINDOW {
                return Some(Erring::LeftOut { now: now < until });
            }
            // That story is over, and what it consisted of is not the beginning of another.
            self.left_out_until = None;
            self.recent.clear();
        }
        let (replies, errors) = self.sums(now, exclusive);
        let stands = matches!(self.told, Some(Erring::Most { .. }));
        let enough = if exclusive { replies >= ANSWERS_MIN } else { errors >= ERRORS_MIN };
        (errors * 2 > replies && (stands || enough)).then_some(Erring::Most { errors, replies, exclusive })
    }

    fn over(&self, now: Mono, exclusive: bool) -> What {
        let (replies, errors) = self.sums(now, exclusive);
        match self.told {
            Some(Erring::LeftOut { .. }) => What::TakenBack,
            _ if replies == 0 => What::NotAsked,
            _ => What::Fewer { errors, replies, exclusive },
        }
    }
}

/// What was seen lately, and what was told of it.
#[derive(Debug)]
pub(super) struct Watch {
    looked: Mono,
    members: BTreeMap<MemberId, Watched>,
    lines: Budget,
}

impl Watch {
    pub(super) const fn new(now: Mono) -> Self {
        Self { looked: now, members: BTreeMap::new(), lines: Budget::new(now) }
    }

    /// Who answers with errors now, and what is to be told; `None` if it was asked a moment ago. `answers` is asked only if it is due.
    pub(super) fn look(&mut self, now: Mono, answers: impl FnOnce() -> Vec<Answers>) -> Option<(BTreeMap<MemberId, Erring>, Vec<Line>)> {
        if now.since(self.looked) < LOOK_EVERY {
            return None;
        }
        self.looked = now;
        let answers = answers();
        let mut lines = self.forget_all_but(now, &answers);
        let mut erring = BTreeMap::new();
        for seen in &answers {
            let watched = self.members.entry(seen.member.clone()).or_insert_with(|| Watched::new(seen));
            watched.note(now, seen);
            let judged = watched.judge(now, seen.exclusive);
            erring.extend(judged.map(|judged| (seen.member.clone(), judged)));
            if judged.map(|judged| judged.is_left_out()) == watched.told.map(|told| told.is_left_out()) {
                watched.missed = false;
                continue;
            }
            let what = judged.map_or_else(|| watched.over(now, seen.exclusive), What::Begun);
            match self.lines.take(now) {
                Some(left_out) => {
                    let left_out = left_out.saturating_sub(u32::from(std::mem::take(&mut watched.missed)));
                    watched.told = judged;
                    lines.push(Line { member: seen.member.clone(), what, left_out });
                }
                None => self.lines.left_out += u32::from(!std::mem::replace(&mut watched.missed, true)),
            }
        }
        Some((erring, lines))
    }

    /// Members that requests no longer go to: nothing more will be known of them here.
    fn forget_all_but(&mut self, now: Mono, answers: &[Answers]) -> Vec<Line> {
        let asked: BTreeSet<&MemberId> = answers.iter().map(|seen| &seen.member).collect();
        let gone: Vec<MemberId> = self.members.keys().filter(|member| !asked.contains(member)).cloned().collect();
        let mut lines = Vec::new();
        for member in gone {
            if self.members.remove(&member).is_none_or(|watched| watched.told.is_none()) {
                continue;
            }
            match self.lines.take(now) {
                Some(left_out) => lines.push(Line { member, what: What::NotAsked, left_out }),
                None => self.lines.left_out += 1,
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "clk/a";

    fn at(s: u64) -> Mono {
        Mono(s * 1_000_000)
    }

    fn seen(replies: u64, errors: u64, left_out_until: Option<u64>) -> Answers {
        Answers { member: A.into(), exclusive: true, replies, errors, left_out_until: left_out_until.map(at) }
    }

    /// What is shown and told at second `s`.
    fn look(watch: &mut Watch, s: u64, answers: Vec<Answers>) -> (Vec<String>, Vec<String>) {
        let (erring, lines) = watch.look(at(s), || answers).expect("due");
        let node = "n".into();
        (
            erring.iter().map(|(member, erring)| erring.text(&node, member)).collect(),
            lines.iter().map(|line| format!("{} {}", line.kind(), line.text(&node))).collect(),
        )
    }

    #[test]
    fn most_answers_of_a_number_that_means_something_are_errors_and_later_are_not() {
        let mut watch = Watch::new(at(0));
        assert_eq!(look(&mut watch, 1, vec![seen(1_000, 1_000, None)]), (vec![], vec![]), "of what was before it knows no time");
        assert_eq!(look(&mut watch, 2, vec![seen(1_019, 1_019, None)]), (vec![], vec![]), "too few");
        let title = "the hot member clk/a answers most requests with 5xx (20 of 39 in the last 10 s, by the router of n): its check passes, so it \
                     is not replaced";
        let (shown, told) = look(&mut watch, 3, vec![seen(1_039, 1_020, None)]);
        assert_eq!((shown, told), (vec![title.into()], vec![format!("here-5xx {title}; see its log: hotwarm logs clk/a")]));
        assert_eq!(look(&mut watch, 4, vec![seen(1_040, 1_021, None)]).1, [""; 0], "told once");
        // The many that showed it have passed, and those since then are no better.
        assert_eq!(look(&mut watch, 13, vec![seen(1_041, 1_022, None)]).0.len(), 1);
        assert_eq!(
            look(&mut watch, 14, vec![seen(1_051, 1_022, None)]).1,
            ["here-5xx-over clk/a answers most requests without 5xx again (1 of 11 in the last 10 s, by the router of n)"]
        );
    }

    /// The balance prefers others to one that errs: it may never err often enough in a row to be left out.
    #[test]
    fn of_one_of_several_a_few_errors_are_enough() {
        let mut watch = Watch::new(at(0));
        let seen = |replies, errors| vec![Answers { exclusive: false, ..seen(replies, errors, None) }];
        look(&mut watch, 1, seen(0, 0));
        assert_eq!(look(&mut watch, 2, seen(2, 2)).1, [""; 0]);
        let (_, told) = look(&mut watch, 40, seen(3, 3));
        assert!(
            told[0].starts_with("here-5xx clk/a answers most requests with 5xx (3 of 3 in the last 60 s, by the router of n): its"),
            "{told:?}"
        );
    }

    #[test]
    fn who_is_asked_no_more_is_told_so_and_forgotten() {
        for asked in [true, false] {
            let mut watch = Watch::new(at(0));
            look(&mut watch, 1, vec![seen(0, 0, None)]);
            assert_eq!(look(&mut watch, 2, vec![seen(30, 30, None)]).1.len(), 1);
            let (shown, told) = look(&mut watch, 12, if asked { vec![seen(30, 30, None)] } else { vec![] });
            assert_eq!(shown, [""; 0]);
            assert!(told[0].starts_with("here-5xx-over clk/a gets no requests from the router of n any more"), "{told:?}");
            assert_eq!(watch.members.is_empty(), !asked);
        }
    }

    /// It is left out longer each time, and tried in between: that is one story.
    #[test]
    fn who_is_left_out_again_and_again_is_told_once() {
        let mut watch = Watch::new(at(0));
        look(&mut watch, 1, vec![seen(0, 0, None)]);
        let (shown, told) = look(&mut watch, 2, vec![seen(5, 5, Some(3))]);
        assert_eq!(shown, ["the router of n leaves out clk/a: it answers 5xx"]);
        assert_eq!(told.len(), 1);
        let (shown, told) = look(&mut watch, 4, vec![seen(9, 9, Some(3))]);
        assert_eq!(shown, ["the router of n left out clk/a, which answered 5xx, and tries it again"]);
        assert_eq!(told, [""; 0]);
        assert_eq!(look(&mut watch, 5, vec![seen(10, 10, Some(7))]).1, [""; 0]);
        // What lies before the last look counts too.
        assert_eq!(look(&mut watch, 16, vec![seen(10, 10, Some(7))]).0.len(), 1);
        let (shown, told) = look(&mut watch, 17, vec![seen(60, 10, Some(7))]);
        assert_eq!(shown, [""; 0]);
        assert!(told.len() == 1 && told[0].starts_with("here-5xx-over the router of n leaves out clk/a no more"), "{told:?}");
    }

    #[test]
    fn what_flaps_floods_no_log_and_is_shown_all_the_same() {
        let mut watch = Watch::new(at(0));
        let (mut lines, mut shown) = (Vec::new(), 0);
        for turn in 0..100 {
            let (s, replies) = (1 + 3 * turn, 30 * turn);
            lines.extend(look(&mut watch, s, vec![seen(replies, replies, None)]).1);
            let now = look(&mut watch, s + 1, vec![seen(replies + 30, replies + 30, None)]);
            shown += now.0.len();
            lines.extend(now.1);
            lines.extend(look(&mut watch, s + 2, vec![]).1);
        }
        assert_eq!(shown, 100);
        assert!((10..=20).contains(&lines.len()), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains(" more such changes since the last line)")), "{lines:#?}");
    }
}
