//! The line language of the stories: sets up a group, feeds it inputs, prints what was decided. It knows no rule of its own: what is
//! printed is what `step` says.
//!
//! The main path enters at [`Story::run`], one command at a time. `README.md` beside this file lists the commands.

use std::collections::BTreeMap;
use std::fmt::Write;

use hotwarm_core::action::StopCause;
use hotwarm_core::group::input::{Answer, Body, Input, Life as Told, NodeInput, Operator, Testimony};
use hotwarm_core::group::reason::{Evidence, SelfDoubt};
use hotwarm_core::group::spec::{Bounds, Fence, MemberSpec};
use hotwarm_core::group::{Effect, Group, GroupSpec, explain, invariants, problem, step};
use hotwarm_core::ids::{Attempt, Epoch, GroupName, Incarnation, MemberId, Millis, NodeId, Position, Role};

use crate::good;
use crate::show;

/// A story as it is told: the group and what it went through.
pub(crate) struct Story {
    spec: GroupSpec,
    group: Option<Group>,
    now: Millis,
    /// The state before each input, and the input.
    pub(crate) past: Vec<(Group, Input)>,
    /// Codes of the reasons given so far.
    pub(crate) codes: BTreeMap<&'static str, &'static [&'static str]>,
}

/// The words of a command, with `key=value` options apart.
struct Words<'a> {
    rest: Vec<&'a str>,
    options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        let (options, rest): (Vec<_>, Vec<_>) = line.split_whitespace().partition(|word| word.contains('='));
        Self { rest, options: options.into_iter().filter_map(|word| word.split_once('=')).collect() }
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.options.get(key).map(|n| n.parse().unwrap_or_else(|_| panic!("{key} is no number: {n}")))
    }

    fn word(&self, i: usize) -> &'a str {
        self.rest.get(i).unwrap_or_else(|| panic!("a word is missing after {:?}", self.rest))
    }

    fn text(&self, from: usize) -> String {
        self.rest[from..].join(" ")
    }
}

impl Story {
    pub(crate) fn new() -> Self {
        let spec = GroupSpec {
            name: GroupName::new("web"),
            hot: 1,
            warm: 1,
            exclusive: true,
            stateful: true,
            members: BTreeMap::new(),
            routers: vec![],
            fence: Fence::Supervisor,
            positions: false,
            acks: 0,
            bounds: Bounds::default(),
        };
        Self { spec, group: None, now: Millis(0), past: vec![], codes: BTreeMap::new() }
    }

    /// The group as it is now; made of the settings so far when it is first needed.
    pub(crate) fn group(&mut self) -> &Group {
        let spec = &self.spec;
        self.group.get_or_insert_with(|| {
            let nodes = spec.members.values().map(|m| &m.node).chain(&spec.routers);
            Group::new(spec.clone(), nodes.map(|node| (node.clone(), Default::default())).collect(), Epoch(0))
        })
    }

    /// Runs one command and returns what it prints.
    pub(crate) fn run(&mut self, line: &str) -> String {
        let line = self.take_time(line);
        let words = Words::of(line);
        match words.word(0) {
            "group" => self.set_group(&words),
            "member" => self.set_member(&words),
            "routers" => self.spec.routers = words.rest[1..].iter().copied().map(NodeId::new).collect(),
            "serve" => self.serve(),
            "show" => return show::group(self.group()),
            "why" => return show::explanation(&explain::explain(self.group(), explain::Quorum::default())),
            "problems" => {
                let found: Vec<_> = problem::of(self.group()).map(|p| format!("{:?}: {}", p.severity, p.code)).collect();
                return if found.is_empty() { "no problem".to_owned() } else { found.join("\n") };
            }
            "configure" => return self.configure(&words),
            "router-closed" | "router-drained" => return self.routers_say(&words),
            "timer" => {
                self.now = self.group().next_deadline().unwrap_or(self.now);
                let decided = self.feed(Body::Timer);
                return format!("@{}\n{decided}", self.now.0).trim_end().to_owned();
            }
            _ => {
                let body = self.input(&words);
                return self.feed(body);
            }
        }
        String::new()
    }

    /// `@1200` is that moment, `@+100` is so much later.
    fn take_time<'a>(&mut self, line: &'a str) -> &'a str {
        let Some(line) = line.strip_prefix('@') else { return line };
        let (time, rest) = line.split_once(' ').expect("a command follows the time");
        let number = |t: &str| t.parse::<u64>().expect("time is a number of milliseconds");
        self.now = time.strip_prefix('+').map_or_else(|| Millis(number(time)), |later| self.now.plus(number(later)));
        rest
    }

    fn set_group(&mut self, words: &Words<'_>) {
        self.spec.name = GroupName::new(words.word(1));
        set(&mut self.spec, words);
    }

    fn set_member(&mut self, words: &Words<'_>) {
        let id = self.id(words.word(1));
        let number = u16::try_from(self.spec.members.len()).expect("few members");
        let (id, member) = (id, member(words, number));
        if !self.spec.routers.contains(&member.node) {
            self.spec.routers.push(member.node.clone());
        }
        self.spec.members.insert(id, member);
    }

    /// Starts everything and brings the group into service, in priority order.
    fn serve(&mut self) {
        let mut group = self.group().clone();
        for id in group.by_priority() {
            let incarnation = Incarnation(1);
            if group.members[&id].role == Role::Spare {
                continue;
            }
            for told in [Told::Started { member: id.clone(), incarnation }, Told::Ready { member: id.clone(), incarnation }] {
                group = step(group, &Input { at: self.now, body: Body::Life(told) }).0;
            }
        }
        // Without letting time pass.
        for _ in 0..20 {
            for body in good::answers(&group) {
                group = step(group, &Input { at: self.now, body }).0;
            }
        }
        assert!(good::in_service(&group), "the story's group does not come into service: {group:#?}");
        self.group = Some(group);
    }

    /// Feeds one input, checks every invariant, and prints what was decided.
    pub(crate) fn feed(&mut self, body: Body) -> String {
        let before = self.group().clone();
        let input = Input { at: self.now, body };
        let (after, effects) = step(before.clone(), &input);
        if let Some(broken) = invariants::check(&after).or_else(|| invariants::check_effects(&before, &after, &effects)) {
            panic!("{broken}\nafter {input:?}\n{}", show::group(&after));
        }
        self.codes.extend(
            effects.iter().filter_map(|e| if let Effect::Because(reason) = e { Some((reason.code(), reason.rules())) } else { None }),
        );
        self.past.push((before, input));
        self.group = Some(after);
        effects.iter().map(show::effect).collect::<Vec<_>>().join("\n")
    }

    fn routers_say(&mut self, words: &Words<'_>) -> String {
        let mut out = Vec::new();
        for node in words.rest[1..].iter().copied().map(NodeId::new) {
            let group = self.group();
            let epoch = |default: Epoch| words.number("epoch").map_or(default, Epoch);
            let answer = match words.word(0) {
                "router-closed" => Answer::RouterClosed { node, epoch: epoch(group.closed_epoch) },
                _ => Answer::RouterDrained { node, epoch: epoch(group.epoch) },
            };
            out.push(self.feed(Body::Answer(answer)));
        }
        out.retain(|printed| !printed.is_empty());
        out.join("\n")
    }

    fn configure(&mut self, words: &Words<'_>) -> String {
        let mut spec = self.group().spec.clone();
        match words.word(1) {
            "add" => {
                let member = member(words, u16::try_from(spec.members.len()).expect("few members"));
                spec.members.insert(self.id(words.word(2)), member);
            }
            "remove" => {
                spec.members.remove(&self.id(words.word(2)));
            }
            "routers" => spec.routers = words.rest[2..].iter().copied().map(NodeId::new).collect(),
            "set" => set(&mut spec, words),
            other => panic!("configure what? {other}"),
        }
        let mut out = self.group().refuses(&spec).map(|why| format!("refused: {why}\n")).unwrap_or_default();
        let _ = write!(out, "{}", self.feed(Body::Configure(Box::new(spec))));
        out.trim_end().to_owned()
    }

    fn id(&self, name: &str) -> MemberId {
        MemberId::of(&self.spec.name, name)
    }

    /// `a` is the member a in its present life, `a#2` in its second.
    fn life(&mut self, word: &str) -> (MemberId, Incarnation) {
        let (name, incarnation) = word.split_once('#').map_or((word, None), |(name, n)| (name, n.parse().ok()));
        let id = self.id(name);
        let now = self.group().members.get(&id).map(|m| m.incarnation).unwrap_or_default();
        (id, incarnation.map_or(now, Incarnation))
    }

    fn input(&mut self, words: &Words<'_>) -> Body {
        let command = words.word(0);
        if let Some(body) = self.life_input(command, words).or_else(|| self.answer(command, words)) {
            return body;
        }
        let node = || NodeId::new(words.word(1));
        match command {
            "suspect" => {
                let (member, incarnation) = self.life(words.word(1));
                let evidence = match words.word(4) {
                    "refused" => Evidence::Refused,
                    "reset" => Evidence::Reset,
                    _ => Evidence::Silent,
                };
                let epoch = words.number("epoch").map_or(self.group().epoch, Epoch);
                Body::Testimony(Testimony::Suspect { member, incarnation, epoch, witness: NodeId::new(words.word(3)), evidence })
            }
            "clear" => Body::Testimony(Testimony::Clear { member: self.id(words.word(1)), witness: NodeId::new(words.word(3)) }),
            "silent" => Body::Node(NodeInput::Silent { node: node() }),
            "heard" => Body::Node(NodeInput::Heard { node: node() }),
            "lapsed" => Body::Node(NodeInput::Lapsed { node: node() }),
            "back" => Body::Node(NodeInput::Back { node: node() }),
            "node-drain" => Body::Node(NodeInput::Drain { node: node() }),
            "node-undrain" => Body::Node(NodeInput::Undrain { node: node() }),
            "doubts-itself" => {
                let why = match words.word(2) {
                    "stalled" => SelfDoubt::Stalled,
                    "stopping" => SelfDoubt::Stopping,
                    _ => SelfDoubt::LittleRoom,
                };
                Body::Node(NodeInput::SelfDoubt { node: node(), why: Some(why) })
            }
            "doubts-no-longer" => Body::Node(NodeInput::SelfDoubt { node: node(), why: None }),
            "switchover" => Body::Operator(Operator::Switchover { to: words.rest.get(1).map(|name| self.id(name)) }),
            "drain" => Body::Operator(Operator::Drain { member: self.id(words.word(1)) }),
            "undrain" => Body::Operator(Operator::Undrain { member: self.id(words.word(1)) }),
            "restart" => Body::Operator(self.restart(words)),
            "pause" => Body::Operator(Operator::Pause),
            "resume" => Body::Operator(Operator::Resume { force: words.rest.get(1) == Some(&"force") }),
            other => panic!("no such command: {other}"),
        }
    }

    fn restart(&mut self, words: &Words<'_>) -> Operator {
        if words.rest.get(1) == Some(&"cancel") {
            return Operator::EndRestart;
        }
        let all: Vec<String> = self.group().members.keys().map(|id| id.name().to_owned()).collect();
        let named: Vec<String> = words.rest[1..].iter().map(|name| (*name).to_owned()).collect();
        let lives = if named.is_empty() { all } else { named }.iter().map(|name| self.life(name)).collect();
        Operator::Restart { lives }
    }

    fn life_input(&mut self, command: &str, words: &Words<'_>) -> Option<Body> {
        if !["started", "stopped", "ready", "unready"].contains(&command) {
            return None;
        }
        let (member, incarnation) = self.life(words.word(1));
        Some(Body::Life(match command {
            "started" if words.word(1).contains('#') => Told::Started { member, incarnation },
            "started" => Told::Started { member, incarnation: incarnation.next() },
            "stopped" => Told::Stopped { member, incarnation, cause: cause(words) },
            "ready" => Told::Ready { member, incarnation },
            _ => Told::Unready { member, incarnation, why: words.text(2) },
        }))
    }

    fn answer(&mut self, command: &str, words: &Words<'_>) -> Option<Body> {
        if command == "resume-seen" {
            let resume = words.number("resume").unwrap_or(self.group().resumes);
            return Some(Body::Answer(Answer::ResumeSeen { node: NodeId::new(words.word(1)), resume }));
        }
        if !["promoted", "promote-failed", "demoted", "fenced", "position"].contains(&command) {
            return None;
        }
        let (member, incarnation) = self.life(words.word(1));
        let group = self.group();
        let told = group.members.get(&member).and_then(|m| m.may_serve).unwrap_or(group.epoch);
        let epoch = words.number("epoch").map_or(told, Epoch);
        let attempt = words.number("attempt").map_or(group.attempt, Attempt);
        Some(Body::Answer(match command {
            "promoted" => Answer::Promoted { member, incarnation, epoch, attempt },
            "promote-failed" => Answer::PromoteFailed { member, incarnation, epoch, attempt, why: words.text(2) },
            "demoted" => Answer::Demoted { member, incarnation, epoch },
            "fenced" => Answer::Fenced { member, epoch: words.number("epoch").map_or(group.epoch.next(), Epoch) },
            _ => Answer::Position { member, incarnation, attempt, position: Position(words.word(2).parse().expect("a position")) },
        }))
    }
}

fn cause(words: &Words<'_>) -> StopCause {
    let number = || words.word(3).parse().expect("a number");
    match words.word(2) {
        "exit" => StopCause::Exit(number()),
        "signal" => StopCause::Signal(number()),
        "asked" => StopCause::Asked,
        "deadline" => StopCause::Deadline,
        "absent" => StopCause::Absent,
        "renewed" => StopCause::Renewed { role: if words.word(3) == "hot" { Role::Hot } else { Role::Warm } },
        "not-started" => StopCause::NotStarted(words.text(3)),
        other => panic!("no such cause: {other}"),
    }
}

/// Members without a node of their own name live on the node of their name.
fn member(words: &Words<'_>, number: u16) -> MemberSpec {
    let name = if words.word(0) == "configure" { words.word(2) } else { words.word(1) };
    MemberSpec {
        node: NodeId::new(words.options.get("node").unwrap_or(&name)),
        address: std::net::SocketAddr::from(([127, 0, 0, 1], 9000 + number)),
        priority: i32::try_from(words.number("priority").unwrap_or(0)).expect("a small number"),
        weight: 1,
        zone: words.options.get("zone").unwrap_or(&"").to_string(),
    }
}

fn set(spec: &mut GroupSpec, words: &Words<'_>) {
    for (key, value) in &words.options {
        let number = || value.parse::<u64>().expect("a number");
        let small = || value.parse::<u16>().expect("a small number");
        match *key {
            "hot" => spec.hot = small(),
            "warm" => spec.warm = small(),
            "exclusive" => spec.exclusive = *value == "yes",
            "positions" => spec.positions = *value == "yes",
            "acks" => spec.acks = small(),
            "fence" => {
                spec.fence = match *value {
                    "supervisor" => Fence::Supervisor,
                    "hook" => Fence::Hook,
                    _ => Fence::RouterOnly,
                }
            }
            "promote_ms" => spec.bounds.promote_ms = number(),
            "drain_ms" => spec.bounds.drain_ms = number(),
            "positions_ms" => spec.bounds.positions_ms = number(),
            "testimony_ms" => spec.bounds.testimony_ms = number(),
            "hold_down_ms" => spec.bounds.hold_down_ms = number(),
            "failovers_per_hour" => spec.bounds.failovers_per_hour = u32::from(small()),
            "node" | "priority" | "zone" => {}
            other => panic!("no such setting: {other}"),
        }
    }
}
