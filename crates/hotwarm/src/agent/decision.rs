//! The decision thread: everything that happens on this node passes through it, one after the other, into `core::node`.
//!
//! It shares its thread with nobody and calls nothing that may block: what it decides is handed to other threads by bounded queues. A
//! full queue loses only what is derived again (S1: the lease is renewed by this very thread, so it vouches for it).

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use hotwarm_core::action::MemberEvent;
use hotwarm_core::ids::{MemberId, NodeId};
use hotwarm_core::node::{Command, Node};

use super::act::{Hands, wall_ms};
use crate::{clock, router};

/// Inputs that may wait.
const INBOX_MAX: usize = 8192;
/// Inputs handled together, at most: what follows from all of them is done once.
const BURST_MAX: usize = 512;
/// So long a node that stops waits until the others know; they find out soon enough without.
const TELL_STOP_WITHIN: Duration = Duration::from_millis(300);

/// What happens on a node.
#[derive(Debug)]
pub(super) enum Input {
    Message {
        from: NodeId,
        bytes: Vec<u8>,
    },
    /// A peer's process.
    Ended(NodeId),
    Persisted(u64),
    Member(MemberId, MemberEvent),
    Router(router::Event),
    Disk(Option<bool>),
    /// Whether little room is left on that disk; told with each probe.
    Room {
        little: bool,
    },
    Command {
        ticket: u64,
        command: Command,
    },
    Stop,
}

/// Where inputs go. Clones are the same inbox.
#[derive(Clone, Debug)]
pub(super) struct Inbox(SyncSender<Input>);

impl Inbox {
    pub(super) fn new() -> (Self, Receiver<Input>) {
        let (sender, receiver) = sync_channel(INBOX_MAX);
        (Self(sender), receiver)
    }

    /// Puts it in if there is room: for what is repeated or may be refused.
    pub(super) fn offer(&self, input: Input) -> bool {
        match self.0.try_send(input) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// Waits for room: for what must not be lost. The decision thread waits for nobody, so this ends.
    pub(super) fn put(&self, input: Input) {
        // A disconnected inbox means that the agent has ended.
        let _ = self.0.send(input);
    }
}

/// Runs until it is told to stop.
pub(super) fn run(mut node: Node, inbox: Receiver<Input>, mut hands: Hands) {
    node.set_wall(clock::now(), wall_ms());
    hands.act(&mut node);
    loop {
        let wait = node.next_deadline().since(clock::now());
        let first = match inbox.recv_timeout(wait) {
            Ok(input) => Some(input),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        // S16: after a stall what has piled up comes first, then one tick is counted.
        if !take_burst(&mut node, &mut hands, first, &inbox) {
            break;
        }
        hands.watch_disk(&mut node);
        node.handle_deadline(clock::now());
        hands.act(&mut node);
    }
    tell_stop(&mut node, &inbox, &mut hands);
    node.handle_stop(clock::now());
    hands.act(&mut node);
    // Threads that are waited for now may wait for room in the inbox themselves.
    drop(inbox);
    hands.stop();
}

/// Goes on until the others know that this node stops, so that members which live on are not replaced at once; for a moment at most.
fn tell_stop(node: &mut Node, inbox: &Receiver<Input>, hands: &mut Hands) {
    let last = clock::now().plus(TELL_STOP_WITHIN);
    node.handle_stopping(clock::now());
    hands.act(node);
    while !node.stop_is_told() && clock::now() < last {
        let wait = node.next_deadline().min(last).since(clock::now());
        let first = match inbox.recv_timeout(wait) {
            Ok(input) => Some(input),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        take_burst(node, hands, first, inbox);
        node.handle_deadline(clock::now());
        hands.act(node);
    }
}

/// Gives the node what has piled up; false if it is to stop. A lone input waits for nothing.
fn take_burst(node: &mut Node, hands: &mut Hands, first: Option<Input>, inbox: &Receiver<Input>) -> bool {
    first.into_iter().chain(inbox.try_iter()).take(BURST_MAX).all(|input| handle(node, hands, input))
}

/// False if the node is to stop.
fn handle(node: &mut Node, hands: &mut Hands, input: Input) -> bool {
    let now = clock::now();
    match input {
        Input::Message { from, bytes } => node.handle_message(now, &from, &bytes),
        Input::Ended(peer) => node.handle_ended(now, &peer),
        Input::Persisted(token) => node.handle_persisted(now, token),
        Input::Member(member, event) => {
            node.handle_member(now, &member, event.clone());
            hands.member_event(&member, &event);
        }
        Input::Router(event) => {
            if let Some(event) = hands.router_event(event) {
                node.handle_router(now, event);
            }
        }
        Input::Disk(ended) => node.handle_disk(now, ended),
        Input::Room { little } => node.handle_room(little),
        Input::Command { ticket, command } => node.handle_command(now, ticket, command),
        Input::Stop => return false,
    }
    true
}
