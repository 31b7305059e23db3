//! What runs members: one engine a kind, all behind [`Engine`], each member in a task of its own.
//!
//! An engine does what it is told and says what became of it; it decides nothing about roles. It must never block the caller, and it
//! must never report `Stopped` while anything of the member is left (S5).

use hotwarm_core::action::{EngineAction, MemberEvent};
use hotwarm_core::ids::MemberId;
use tokio::sync::mpsc;

/// The agent's end of one running member task.
#[derive(Debug)]
pub struct Handle {
    pub member: MemberId,
    pub actions: mpsc::Sender<EngineAction>,
}

/// Where member tasks report; shared by all members of a node.
pub type Events = mpsc::Sender<(MemberId, MemberEvent)>;
