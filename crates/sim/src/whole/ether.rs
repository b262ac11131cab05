//! What carries frames between nodes in virtual time: late, twice, in another order, or not at all.

use std::sync::Arc;

use parking_lot::Mutex;
use wire::ids::NodeId;
use wire::peer::{Frame, Kind, Transport};

use super::clock::Now;
use super::disk::Disk;
use super::{MEMDS, ROUTER};
use crate::network::Network;
use crate::random::Random;

/// See the module's text. Cloning gives another handle to the same one.
#[derive(Clone)]
pub(crate) struct Ether(Arc<Mutex<State>>);

struct State {
    now: Now,
    network: Network,
    random: Random,
    /// The storage nodes' disks: whose disk is off says nothing any more.
    disks: Vec<Disk>,
    /// A node's disk goes off after so many more frames of it.
    fuses: Vec<Option<u64>>,
    /// Frames on their way, with the times at which they arrive.
    under_way: Vec<(u64, Frame)>,
    /// Frames of consensus are damaged on the way, so many of a thousand: the checksum finds them.
    damaged_per_mille: u64,
    sent: u64,
}

/// A node's place among the links: storage nodes first, then MemDS nodes, then routers.
pub(crate) fn place(node: NodeId, storage_nodes: usize) -> usize {
    match node.0 {
        id if id >= ROUTER => storage_nodes + MEMDS.len() + (id - ROUTER) as usize,
        id if id >= MEMDS[0].0 => storage_nodes + (id - MEMDS[0].0) as usize,
        id => id as usize - 1,
    }
}

impl Ether {
    pub(crate) fn new(seed: u64, now: Now, disks: Vec<Disk>) -> Ether {
        let mut random = Random::new(seed, "ether");
        let damaged_per_mille = random.pick(&[0, 0, 5]);
        let fuses = vec![None; disks.len()];
        Ether(Arc::new(Mutex::new(State {
            now,
            network: Network::new(seed),
            random,
            disks,
            fuses,
            under_way: Vec::new(),
            damaged_per_mille,
            sent: 0,
        })))
    }

    /// Changes the links.
    pub(crate) fn network<R>(&self, change: impl FnOnce(&mut Network) -> R) -> R {
        change(&mut self.0.lock().network)
    }

    /// A node dies after so many more frames.
    pub(crate) fn set_fuse(&self, node: usize, frames: Option<u64>) {
        self.0.lock().fuses[node] = frames;
    }

    pub(crate) fn calm(&self) {
        let mut state = self.0.lock();
        state.network.calm();
        state.damaged_per_mille = 0;
        state.fuses.fill(None);
    }

    /// The frames that were sent since this was last called.
    pub(crate) fn take(&self) -> Vec<(u64, Frame)> {
        std::mem::take(&mut self.0.lock().under_way)
    }

    pub(crate) fn sent(&self) -> u64 {
        self.0.lock().sent
    }

    /// Whether a frame gets through at the moment it arrives.
    pub(crate) fn arrives(&self, frame: &Frame) -> bool {
        let state = self.0.lock();
        let nodes = state.disks.len();
        !state.network.is_cut(place(frame.from, nodes), place(frame.to, nodes))
    }

    /// The delays of a call from a router to a storage node and of its answer; `None`: lost.
    pub(crate) fn travel(&self, from: usize, to: usize) -> Option<u64> {
        let mut state = self.0.lock();
        state.network.fate(from, to)[0]
    }
}

impl Transport for Ether {
    fn send(&self, to: NodeId, frame: Frame) {
        let mut state = self.0.lock();
        let state = &mut *state;
        let frame = if frame.to == to { frame } else { frame.to_node(to) };
        let nodes = state.disks.len();
        let (from, to) = (place(frame.from, nodes), place(to, nodes));
        if let Some(disk) = state.disks.get(from) {
            if disk.is_off() {
                return;
            }
            if let Some(left) = &mut state.fuses[from] {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    // Whoever comes next finds the process dead; this frame is its last.
                    state.fuses[from] = None;
                    disk.set_fuse(Some(0));
                }
            }
        }
        state.sent += 1;
        let damaged = frame.kind == Kind::Paxos && state.random.chance(state.damaged_per_mille);
        if damaged {
            // A frame's checksum finds it; it is as good as lost.
            return;
        }
        for delay in state.network.fate(from, to).into_iter().flatten() {
            state.under_way.push((state.now.get() + delay, frame.clone()));
        }
    }
}
