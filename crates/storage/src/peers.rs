//! Which storage nodes there are, and when each was last heard.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use wire::ids::NodeId;

use crate::identity::NODE_MAX;

/// See the module's text. Frames of any group count, and pings of nodes that share none.
#[derive(Debug)]
pub(crate) struct Peers {
    /// The others, ascending.
    nodes: Vec<NodeId>,
    /// By node: microseconds of this node's clock; 0: never.
    heard: Box<[AtomicU64]>,
    /// By node: the newest life it told, [`TOLD`], and [`DAMAGED`] if its rows are; 0: none yet.
    lives: Box<[AtomicU64]>,
    started: paxos::Instant,
    /// When the others are next to be told that this node is there.
    next_ping: AtomicU64,
    /// Of each node, ascending, what [`Peers::has_changed`] last found.
    known: Mutex<Vec<(bool, bool)>>,
}

/// Stands beside a life that was told.
const TOLD: u64 = 1 << 32;
/// Stands beside the life of a node that said that its rows are damaged.
const DAMAGED: u64 = 1 << 33;
/// How long after a start a node that was not heard yet may still be starting.
const START_GRACE: Duration = Duration::from_secs(30);
/// How often nodes tell each other that they are there: groups may be quiet, or share no node.
const PING_EVERY: Duration = Duration::from_millis(250);

impl Peers {
    /// The nodes but for this one, which starts now.
    pub(crate) fn new(
        nodes: impl Iterator<Item = NodeId>,
        me: NodeId,
        now: paxos::Instant,
    ) -> Peers {
        let mut nodes: Vec<_> = nodes.filter(|node| *node != me).collect();
        nodes.sort_unstable();
        let none = || (0..=NODE_MAX).map(|_| AtomicU64::new(0)).collect();
        let (heard, lives) = (none(), none());
        Peers {
            nodes,
            heard,
            lives,
            started: now,
            next_ping: AtomicU64::new(0),
            known: Mutex::default(),
        }
    }

    /// All other nodes.
    pub(crate) fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// Whether it is time to ping; then the next time is set.
    pub(crate) fn is_ping_due(&self, now: paxos::Instant) -> bool {
        let due = now.0 >= self.next_ping.load(Ordering::Relaxed);
        if due {
            self.next_ping.store(now.after(PING_EVERY).0, Ordering::Relaxed);
        }
        due
    }

    /// Whether any node has become silent, or is heard again, since this was last asked.
    pub(crate) fn has_changed(&self, longer: Duration, now: paxos::Instant) -> bool {
        let of =
            |node: &NodeId| (self.is_silent(*node, longer, now), self.is_heard(*node, longer, now));
        let mut known = self.known.lock();
        if self.nodes.iter().map(of).eq(known.iter().copied()) {
            return false;
        }
        *known = self.nodes.iter().map(of).collect();
        true
    }

    /// A frame came from a node.
    pub(crate) fn hear(&self, node: NodeId, now: paxos::Instant) {
        if let Some(heard) = self.heard.get(node.0 as usize) {
            heard.store(now.0.max(1), Ordering::Relaxed);
        }
    }

    /// A node told which of its lives it is in, and whether it has met damaged rows.
    pub(crate) fn note_life(&self, node: NodeId, life: u32, is_damaged: bool) {
        if let Some(known) = self.lives.get(node.0 as usize) {
            let damaged = if is_damaged { DAMAGED } else { 0 };
            known.store(TOLD | damaged | u64::from(life), Ordering::Relaxed);
        }
    }

    /// Whether a node said last that its rows are damaged.
    pub(crate) fn is_damaged(&self, node: NodeId) -> bool {
        let life = self.lives.get(node.0 as usize);
        life.is_some_and(|life| life.load(Ordering::Relaxed) & DAMAGED != 0)
    }

    /// The life that a node was in when it last told.
    pub(crate) fn life(&self, node: NodeId) -> Option<u32> {
        let life = self.lives.get(node.0 as usize)?.load(Ordering::Relaxed);
        (life & TOLD != 0).then_some(life as u32)
    }

    /// How long ago a node was heard; `None`: never.
    fn silence(&self, node: NodeId, now: paxos::Instant) -> Option<Duration> {
        let heard = self.heard.get(node.0 as usize)?.load(Ordering::Relaxed);
        (heard > 0).then(|| paxos::Instant(heard).until(now))
    }

    /// Whether a node was heard within a time.
    pub(crate) fn is_heard(&self, node: NodeId, within: Duration, now: paxos::Instant) -> bool {
        self.silence(node, now).is_some_and(|silence| silence <= within)
    }

    /// Whether a node has been silent for longer than this. Nodes that start together do not take each
    /// other for lost while they read their logs.
    pub(crate) fn is_silent(&self, node: NodeId, longer: Duration, now: paxos::Instant) -> bool {
        match self.silence(node, now) {
            Some(silence) => silence > longer,
            None => self.started.until(now) > START_GRACE.max(longer),
        }
    }
}
