//! Who answers for a group that allows one hot member, as its clients see it: the history by which the promise of one is judged (S22).
//!
//! It asks every router, and every member past the routers, again and again, and keeps who answered when and in which role and epoch. Main
//! path: [`Recorder::watch`], [`Recorder::judge`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cluster::Cluster;

/// Between two questions of one asker.
const PAUSE: Duration = Duration::from_millis(25);
const PATIENCE: Duration = Duration::from_secs(12);

/// What the component `clock` says of itself.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) role: String,
    pub(crate) epoch: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// Only to be shown.
    #[allow(dead_code)]
    asked: SocketAddr,
    pub(crate) through_router: bool,
    pub(crate) sent: Instant,
    pub(crate) done: Instant,
    pub(crate) said: Said,
}

pub(crate) struct Recorder {
    stop: Arc<AtomicBool>,
    replies: Arc<Mutex<Vec<Reply>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { stop: Arc::default(), replies: Arc::default(), threads: Vec::new() }
    }

    /// Asks for `clock` through every router, and every member past the routers.
    pub(crate) fn watch(cluster: &Cluster) -> Self {
        let mut recorder = Self::new();
        let clock = cluster.group("clock");
        recorder.ask(clock.listen.into_values(), true);
        recorder.ask(clock.members.into_iter().map(|member| member.address), false);
        recorder
    }

    /// Two askers for each address, from the network of the calling thread.
    pub(crate) fn ask(&mut self, addresses: impl IntoIterator<Item = SocketAddr>, through_router: bool) {
        let addresses: Vec<SocketAddr> = addresses.into_iter().collect();
        let (stop, replies) = (Arc::clone(&self.stop), Arc::clone(&self.replies));
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            for address in addresses.into_iter().flat_map(|address| [address, address]) {
                runtime.spawn(ask_on(address, through_router, Arc::clone(&replies)));
            }
            runtime.block_on(async {
                while !stop.load(Ordering::Relaxed) {
                    tokio::time::sleep(PAUSE).await;
                }
            });
        };
        self.threads.push(std::thread::spawn(work));
    }

    /// Who answered through routers last.
    pub(crate) fn newest(&self) -> Option<Reply> {
        let replies = self.replies.lock().unwrap();
        replies.iter().filter(|r| r.through_router).max_by_key(|r| r.said.epoch).cloned()
    }

    /// How often routers gave an answer to what was asked after `moment`.
    pub(crate) fn answered_since(&self, moment: Instant) -> usize {
        self.replies.lock().unwrap().iter().filter(|r| r.through_router && r.sent >= moment).count()
    }

    /// Ends it and fails if two members ever served at once. Returns how many replies there were.
    pub(crate) fn judge(mut self) -> usize {
        self.end();
        let replies = std::mem::take(&mut *self.replies.lock().unwrap());
        let hot: Vec<Reply> = replies.into_iter().filter(|r| r.through_router || r.said.role == "hot").collect();
        if let Some(problem) = problem(hot.clone()) {
            panic!("{problem}");
        }
        hot.len()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What is wrong with a history: a member that was not hot answered, an epoch had two members, or an older epoch answered what was asked
/// after a newer one had answered.
fn problem(mut replies: Vec<Reply>) -> Option<String> {
    if let Some(reply) = replies.iter().find(|r| r.said.role != "hot") {
        return Some(format!("a member that is not hot answered through a router: {reply:?}"));
    }
    let mut holders: BTreeMap<u64, &str> = BTreeMap::new();
    for reply in &replies {
        let holder = holders.entry(reply.said.epoch).or_insert(&reply.said.name);
        if *holder != reply.said.name {
            return Some(format!("epoch {} belongs to {holder} and to {}", reply.said.epoch, reply.said.name));
        }
    }
    let mut by_done: Vec<Reply> = replies.clone();
    by_done.sort_by_key(|r| r.done);
    replies.sort_by_key(|r| r.sent);
    let mut finished = by_done.iter().peekable();
    let mut newest: Option<&Reply> = None;
    for reply in &replies {
        while let Some(done) = finished.next_if(|done| done.done <= reply.sent) {
            if newest.is_none_or(|newest| newest.said.epoch < done.said.epoch) {
                newest = Some(done);
            }
        }
        if let Some(newest) = newest.filter(|newest| newest.said.epoch > reply.said.epoch) {
            return Some(format!("the older answered after the newer: {reply:?} after {newest:?}"));
        }
    }
    None
}

async fn ask_on(address: SocketAddr, through_router: bool, replies: Arc<Mutex<Vec<Reply>>>) {
    loop {
        let sent = Instant::now();
        if let Ok(Some(said)) = tokio::time::timeout(PATIENCE, ask(address)).await {
            let reply = Reply { asked: address, through_router, sent, done: Instant::now(), said };
            replies.lock().unwrap().push(reply);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One question; `None` without a whole answer 200.
pub(crate) async fn ask(address: SocketAddr) -> Option<Said> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    if !head.starts_with("HTTP/1.1 200") {
        return None;
    }
    serde_json::from_str(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(start: Instant, sent: u64, done: u64, name: &str, role: &str, epoch: u64) -> Reply {
        let at = |ms| start + Duration::from_millis(ms);
        let said = Said { name: name.into(), pid: 1, role: role.into(), epoch };
        Reply { asked: SocketAddr::from(([127, 0, 0, 1], 1)), through_router: true, sent: at(sent), done: at(done), said }
    }

    #[test]
    fn a_history_with_two_at_once_is_found_out() {
        let now = Instant::now();
        let r = |sent, done, name, role, epoch| reply(now, sent, done, name, role, epoch);
        let good = vec![r(0, 5, "a", "hot", 1), r(4, 9, "b", "hot", 2), r(1, 10, "a", "hot", 1), r(11, 12, "b", "hot", 2)];
        assert_eq!(problem(good), None);
        let late = vec![r(0, 5, "a", "hot", 1), r(4, 9, "b", "hot", 2), r(9, 12, "a", "hot", 1)];
        assert!(problem(late).unwrap().contains("the older answered after the newer"));
        assert!(problem(vec![r(0, 5, "a", "hot", 1), r(0, 5, "b", "hot", 1)]).unwrap().contains("epoch 1 belongs to"));
        assert!(problem(vec![r(0, 5, "a", "warm", 1)]).unwrap().contains("not hot"));
    }
}
