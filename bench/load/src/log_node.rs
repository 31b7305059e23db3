//! One of three processes that keep a replicated log for real: the core's replica, the write-ahead log with its syncs, the transport with
//! its sockets; and nothing above them, so that inputs of a chosen size can be measured.
//!
//! It is driven as the agent's decision thread drives the node: one thread, what has piled up first, then a tick; inputs that come together
//! are one entry of the log. They come over TCP (`log-clients`), many clients to a connection, and are answered when this node has applied
//! them. Main path: [`main`] -> `Driver::run`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Context;
use hotwarm::clock;
use hotwarm::store::Log;
use hotwarm::store::transport::{Inbound, Options as TransportOptions, Security, Transport};
use hotwarm::store::wal::{Callbacks, Wal, end_process};
use hotwarm_core::consensus::{Message, Options, Recovered, Replica};
use hotwarm_core::ids::{Mono, NodeId, RaftId};
use hotwarm_core::wal::{EntryKind, HardState, LogId, Record, Snapshot, Voters};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::args::Args;

const LOG: LogId = LogId(0);
const TICK: Duration = Duration::from_millis(10);
const INBOX_MAX: usize = 8192;
const BURST_MAX: usize = 512;
/// As the node does it: a snapshot after so many entries, and so many kept behind it.
const SNAPSHOT_EVERY: u64 = 10_000;
const KEEP: u64 = 500;
/// As the node does it: inputs of one entry, at most.
const ITEMS_MAX: usize = 512;

/// Before the data of an input: who asks (u32), and how many bytes there are (u32).
pub(crate) const QUESTION_BYTES: usize = 8;
/// Whose input it was (u32), and 1 when it was applied.
pub(crate) const ANSWER_BYTES: usize = 5;
const DATA_MAX: usize = 1 << 20;
const READ_BYTES: usize = 64 << 10;
/// Inputs of one connection that are not answered yet.
const UNDER_WAY_MAX: usize = 1024;

/// Who waits for an input to be applied.
struct Asked {
    client: u32,
    answer: mpsc::Sender<(u32, bool)>,
}

enum Input {
    Message(Vec<u8>),
    Persisted(u64),
    Propose(Vec<u8>, Asked),
}

/// `--id N --dir DIR --peers ADDRESS,ADDRESS,ADDRESS --clients ADDRESS [--act-each 1]`. The first node asks to lead.
pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let (id, dir) = (args.need::<u64>("id")?, args.need::<PathBuf>("dir")?);
    let peers = args.need::<String>("peers")?;
    let peers: Vec<SocketAddr> = peers.split(',').map(str::parse).collect::<Result<_, _>>().context("--peers")?;
    let (inbox, receiver) = sync_channel(INBOX_MAX);
    let persisted = inbox.clone();
    let callbacks = Callbacks {
        persisted: Box::new(move |token| {
            if token != 0 {
                let _ = persisted.send(Input::Persisted(token));
            }
        }),
        fatal: Box::new(end_process),
    };
    let (_, wal) = Wal::open(&dir, callbacks)?;
    let arrived = inbox.clone();
    let options = TransportOptions {
        me: NodeId::new(id.to_string()),
        listen: peers[usize::try_from(id)? - 1],
        peers: peers.iter().zip(1u64..).map(|(address, id)| (NodeId::new(id.to_string()), *address)).collect(),
        cluster: "bench".to_owned(),
        security: Security::Loopback,
        revoked: Vec::new(),
    };
    let inbound = move |told| match told {
        Inbound::Message { bytes, .. } => arrived.try_send(Input::Message(bytes)).is_ok(),
        Inbound::Ended(_) => true,
    };
    let transport = Transport::start(options, Box::new(inbound))?;
    let log = founded(id, peers.len() as u64);
    wal.submit(0, log.1, true)?;
    let replica = Replica::new(Options::new(RaftId(id), LOG, id), log.0, clock::now())?;
    serve_clients(args.need("clients")?, inbox)?;
    let act_each = args.get("act-each", 0u8)? == 1;
    let mut driver =
        Driver { replica, wal, transport, inputs: Vec::new(), waiting: HashMap::new(), snapshot_at: 1, ticked: clock::now(), act_each };
    if id == 1 {
        driver.wait_for_peers(peers.len());
        driver.replica.campaign(clock::now());
    }
    driver.run(&receiver);
    Ok(())
}

/// A log that is born with all its voters, and its records.
fn founded(id: u64, voters: u64) -> (Recovered, Vec<Record>) {
    let voters = Voters { voters: (1..=voters).collect(), ..Voters::default() };
    let snapshot = Snapshot { index: 1, term: 1, voters, data: Vec::new() };
    let hard_state = HardState { term: 1, vote: 0, commit: 1 };
    let records = vec![Record::Birth(LOG, RaftId(id)), Record::Snapshot(LOG, snapshot.clone()), Record::HardState(LOG, hard_state)];
    (Recovered { hard_state, snapshot: Some(snapshot), entries: Vec::new() }, records)
}

struct Driver {
    replica: Replica,
    wal: hotwarm::store::wal::Handle,
    transport: hotwarm::store::transport::Handle,
    /// What came together and is not yet proposed.
    inputs: Vec<(Vec<u8>, Asked)>,
    /// Who waits for the entry at an index, and in which term it was proposed.
    waiting: HashMap<u64, (u64, Vec<Asked>)>,
    snapshot_at: u64,
    ticked: Mono,
    /// Takes the work out after each input rather than after each burst.
    act_each: bool,
}

impl Driver {
    fn wait_for_peers(&self, nodes: usize) {
        let names: Vec<NodeId> = (2..=nodes).map(|id| NodeId::new(id.to_string())).collect();
        while !names.iter().all(|name| self.transport.is_connected(name)) {
            std::thread::sleep(TICK);
        }
    }

    fn run(&mut self, inbox: &Receiver<Input>) {
        loop {
            self.act();
            let wait = self.ticked.plus(TICK).since(clock::now());
            match inbox.recv_timeout(wait) {
                Ok(input) => self.handle(input),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for _ in 0..BURST_MAX {
                let Ok(input) = inbox.try_recv() else { break };
                self.handle(input);
            }
            if clock::now() >= self.ticked.plus(TICK) {
                self.ticked = clock::now();
                self.replica.tick(self.ticked);
            }
        }
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Message(bytes) => match Message::decode(&bytes).map_err(anyhow::Error::from) {
                Ok(message) => {
                    if let Err(refused) = self.replica.handle_message(clock::now(), message) {
                        eprintln!("message refused: {refused}");
                    }
                }
                Err(error) => eprintln!("{error}"),
            },
            Input::Persisted(number) => self.replica.persisted(number),
            Input::Propose(data, answer) => self.inputs.push((data, answer)),
        }
        if self.act_each {
            self.act();
        }
    }

    fn propose(&mut self) {
        while !self.inputs.is_empty() {
            let rest = self.inputs.split_off(self.inputs.len().min(ITEMS_MAX));
            let (items, answers): (Vec<Vec<u8>>, Vec<Asked>) = std::mem::replace(&mut self.inputs, rest).into_iter().unzip();
            match self.replica.propose(postcard::to_allocvec(&items).expect("bytes can be written"), Vec::new()) {
                Ok(at) => drop(self.waiting.insert(at.index, (at.term, answers))),
                Err(_) => answer_all(&answers, false),
            }
        }
    }

    /// Takes all work out of the replica and hands it on.
    fn act(&mut self) {
        self.propose();
        while let Some(ready) = self.replica.poll_ready(clock::now()) {
            if !ready.persist.is_empty() || ready.must_sync {
                let token = if ready.must_sync { ready.number } else { 0 };
                self.wal.submit(token, ready.persist, ready.must_sync).expect("64 inputs at a time never fill the queue");
            }
            for message in ready.messages {
                // Losing one is allowed: it is sent again.
                let _ = self.transport.send(&NodeId::new(message.to.0.to_string()), message.encode());
            }
            if let Some(leadership) = ready.leadership {
                eprintln!("{leadership:?}");
            }
            let last = ready.committed.last().map(|entry| entry.index);
            for entry in ready.committed {
                // Every node reads what it applies.
                let items: Option<Vec<Vec<u8>>> = postcard::from_bytes(&entry.data).ok();
                if let Some((term, answers)) = self.waiting.remove(&entry.index) {
                    let done =
                        term == entry.term && entry.kind == EntryKind::Normal && items.is_some_and(|items| items.len() == answers.len());
                    answer_all(&answers, done);
                }
            }
            if let Some(last) = last {
                self.replica.applied(last);
                self.snapshot(last);
            }
        }
    }

    fn snapshot(&mut self, applied: u64) {
        if applied >= self.snapshot_at + SNAPSHOT_EVERY && self.replica.take_snapshot(applied, Vec::new()).is_ok() {
            self.snapshot_at = applied;
            self.replica.compact(applied.saturating_sub(KEEP));
        }
    }
}

/// Who asked may have gone.
fn answer_all(asked: &[Asked], done: bool) {
    for Asked { client, answer } in asked {
        let _ = answer.try_send((*client, done));
    }
}

/// Takes inputs on a thread of its own.
fn serve_clients(listen: SocketAddr, inbox: SyncSender<Input>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind(listen))?;
    let accept = async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(client(stream, inbox.clone()));
        }
    };
    std::thread::Builder::new().name("clients".into()).spawn(move || runtime.block_on(accept))?;
    Ok(())
}

/// What comes in is put into the inbox as it was read, many at a time; answers that wait for each other are one write.
async fn client(mut stream: TcpStream, inbox: SyncSender<Input>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let (answer, mut answered) = mpsc::channel(UNDER_WAY_MAX);
    let (mut arrived, mut out, mut under_way) = (Vec::with_capacity(READ_BYTES), Vec::new(), 0usize);
    loop {
        tokio::select! {
            read = stream.read_buf(&mut arrived) => {
                anyhow::ensure!(read? > 0, "closed by the clients");
                let mut rest = &arrived[..];
                while let Some(Question { client, data, rest: after }) = question(rest)? {
                    anyhow::ensure!(under_way < UNDER_WAY_MAX, "{UNDER_WAY_MAX} inputs under way on one connection");
                    under_way += 1;
                    let refused = inbox.try_send(Input::Propose(data.to_vec(), Asked { client, answer: answer.clone() })).is_err();
                    if refused {
                        let _ = answer.try_send((client, false));
                    }
                    rest = after;
                }
                let left = rest.len();
                arrived.drain(..arrived.len() - left);
            }
            Some(first) = answered.recv() => {
                put_answer(&mut out, &mut under_way, first);
                while let Ok(next) = answered.try_recv() {
                    put_answer(&mut out, &mut under_way, next);
                }
                stream.write_all(&out).await?;
                out.clear();
            }
        }
    }
}

/// What a client asked, as it arrived.
struct Question<'a> {
    client: u32,
    data: &'a [u8],
    /// What comes after it.
    rest: &'a [u8],
}

/// The first question, if it is whole.
fn question(bytes: &[u8]) -> anyhow::Result<Option<Question<'_>>> {
    let Some((head, rest)) = bytes.split_at_checked(QUESTION_BYTES) else { return Ok(None) };
    let (client, length) = (u32::from_le_bytes(head[..4].try_into()?), u32::from_le_bytes(head[4..].try_into()?) as usize);
    anyhow::ensure!(length <= DATA_MAX, "an input of {length} bytes: {DATA_MAX} at most");
    Ok(rest.split_at_checked(length).map(|(data, rest)| Question { client, data, rest }))
}

fn put_answer(out: &mut Vec<u8>, under_way: &mut usize, (client, done): (u32, bool)) {
    *under_way -= 1;
    out.extend_from_slice(&client.to_le_bytes());
    out.push(u8::from(done));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_that_arrive_in_pieces_are_read_whole() {
        let bytes = [7, 0, 0, 0, 2, 0, 0, 0, b'a', b'b', 8, 0, 0, 0];
        for end in 0..10 {
            assert!(question(&bytes[..end]).expect("no refusal").is_none(), "{end} bytes are no whole question");
        }
        let whole = question(&bytes).expect("no refusal").expect("a whole one");
        assert_eq!((whole.client, whole.data, whole.rest), (7, &b"ab"[..], &[8, 0, 0, 0][..]));
        assert!(question(&[0, 0, 0, 0, 0, 0, 0, 1]).is_err(), "too long an input is refused before it is read");
    }
}
