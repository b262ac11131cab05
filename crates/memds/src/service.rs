//! A MemDS node: the whole map in memory, answering whoever asks.
//!
//! **Lookups** are answered from the frame they came in to the frame they leave in, without a copy
//! of a route between. **Pushes** are installed where they are newer than what is there
//! (`map.rs`).
//!
//! **Healing**: nodes compare Merkle hashes from the root down and pull what differs. What is pulled
//! passes the same rules as a push, so both sides end up with the newest of both.
//!
//! **Not believed**: a peer whose map is empty or has far fewer routes than ours is not healed from,
//! and no single route may displace a large part of the map. In the outage that taught this, an old
//! plan emptied the record that a whole region depended on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use metrics::counter;
use parking_lot::{Mutex, RwLock};
use wire::ids::NodeId;
use wire::peer::{Frame, FrameHandler, Kind, Transport};
use wire::service::Route;

use crate::map::{Installed, PartitionMap};
use crate::message::{self, Told};
use crate::perkle::{PartSummary, Prefix, Summary};
use crate::route::RouteKey;

/// A peer with less than this share of our routes has lost some: it is not healed from.
const PEER_SHARE_MIN_PERCENT: usize = 75;

/// Parts asked for in one frame. What a peer answers stays far below the longest frame.
const PARTS_PER_ASK: usize = 256;

/// What a MemDS node did since it started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MemdsStats {
    /// Lookups answered, whether a route was known or not.
    pub lookups: u64,
    /// Routes, pushed or healed, that were newer than what was known.
    pub installed: u64,
    /// Routes that were not.
    pub stale: u64,
    /// Routes and maps not believed, and messages not understood.
    pub refused: u64,
}

#[derive(Default)]
struct Counts {
    lookups: AtomicU64,
    installed: AtomicU64,
    stale: AtomicU64,
    refused: AtomicU64,
}

/// A MemDS node.
pub struct MemdsNode {
    node: NodeId,
    transport: Arc<dyn Transport>,
    map: RwLock<PartitionMap>,
    /// Buffers of lookups being answered; reused.
    keys: Mutex<Vec<Vec<RouteKey>>>,
    counts: Counts,
}

impl MemdsNode {
    /// A node with an empty map. Register it as the handler of [`MemdsNode::KINDS`].
    pub fn new(node: NodeId, transport: Arc<dyn Transport>) -> MemdsNode {
        let (map, keys, counts) = (RwLock::default(), Mutex::default(), Counts::default());
        MemdsNode { node, transport, map, keys, counts }
    }

    /// The frames this role takes.
    pub const KINDS: &[Kind] =
        &[Kind::MemdsLookup, Kind::MemdsPush, Kind::MemdsSyncAsk, Kind::MemdsSyncTell];

    /// The node's id.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Number of routes.
    pub fn len(&self) -> usize {
        self.map.read().tree().len()
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The map's Merkle root.
    pub fn root_hash(&self) -> u64 {
        self.map.read().tree().root_hash()
    }

    /// Bytes the map takes.
    pub fn memory_bytes(&self) -> usize {
        self.map.read().tree().memory_bytes()
    }

    /// The route that serves a position, if any does.
    pub fn lookup(&self, lookup: message::Lookup) -> Option<Route> {
        self.map.read().find(lookup.into()).map(|route| route.to_route())
    }

    /// All routes, in order of table and placement.
    pub fn routes(&self) -> Vec<Route> {
        let map = self.map.read();
        map.tree().range(RouteKey::MIN, RouteKey::MAX).map(|route| route.to_route()).collect()
    }

    /// What the node did since it started.
    pub fn stats(&self) -> MemdsStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        MemdsStats {
            lookups: read(&self.counts.lookups),
            installed: read(&self.counts.installed),
            stale: read(&self.counts.stale),
            refused: read(&self.counts.refused),
        }
    }

    /// Takes a route for those positions for which it is the newest.
    pub fn install(&self, route: &Route) -> Installed {
        self.map.write().install(route)
    }

    /// Starts to pull what `peer` has and this node has not. Goes on by itself as answers come;
    /// to be called now and then for each peer (seconds), and when the node starts.
    pub fn heal_from(&self, peer: NodeId) {
        let whole = self.map.read().tree().part(Prefix::ALL);
        self.ask(peer, &[whole]);
    }

    fn ask(&self, peer: NodeId, parts: &[PartSummary]) {
        for parts in parts.chunks(PARTS_PER_ASK) {
            self.send(Kind::MemdsSyncAsk, peer, message::encode_ask(parts));
        }
    }

    fn send(&self, kind: Kind, to: NodeId, body: bytes::Bytes) {
        self.transport.send(to, Frame::new(kind, self.node, to, body));
    }

    fn answer_lookups(&self, from: NodeId, body: &[u8]) -> Result<(), message::MessageError> {
        let mut keys = self.keys.lock().pop().unwrap_or_default();
        keys.clear();
        let batch = message::decode_lookups(body, &mut keys)?;
        let mut answer = message::start_answer(batch, keys.len());
        self.map.read().find_each(&keys, |route| {
            message::put_answer(route.as_ref(), &mut answer);
        });
        self.counts.lookups.fetch_add(keys.len() as u64, Ordering::Relaxed);
        counter!("memds_lookups_total").increment(keys.len() as u64);
        self.keys.lock().push(keys);
        self.send(Kind::MemdsAnswer, from, answer.freeze());
        Ok(())
    }

    fn take_routes(&self, routes: &[Route]) {
        let mut map = self.map.write();
        for route in routes {
            match map.install(route) {
                Installed::Newer => {
                    self.counts.installed.fetch_add(1, Ordering::Relaxed);
                    counter!("memds_pushes_total").increment(1);
                }
                Installed::Stale => {
                    self.counts.stale.fetch_add(1, Ordering::Relaxed);
                    counter!("memds_pushes_stale_total").increment(1);
                }
                Installed::Refused => {
                    self.count_refused();
                    tracing::warn!(
                        partition = route.partition.0,
                        table = route.range.table.0,
                        "route refused: it would displace too much of the map"
                    );
                }
            }
        }
    }

    fn count_refused(&self) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        counter!("memds_refused_total").increment(1);
    }

    /// Answers a peer that wants to heal from us: for each part that differs, what we have.
    fn tell(&self, peer: NodeId, body: &[u8]) -> Result<(), message::MessageError> {
        let asked = message::decode_ask(body)?;
        let map = self.map.read();
        let mut told = BytesMut::new();
        let mut count = 0;
        for part in asked.iter().filter(|part| map.tree().part(part.prefix).hash != part.hash) {
            count += 1;
            match map.tree().summary(part.prefix) {
                Summary::Routes(routes) => message::put_told_routes(&routes, &mut told),
                Summary::Parts(parts) => message::put_told_parts(&parts, &mut told),
            }
        }
        let whole = map.tree().len();
        drop(map);
        if count > 0 {
            self.send(Kind::MemdsSyncTell, peer, message::finish_tell(whole, count, &told));
        }
        Ok(())
    }

    /// Takes what a peer told: installs routes, asks on for parts that differ.
    fn hear(&self, peer: NodeId, body: &[u8]) -> Result<(), message::MessageError> {
        let (theirs, told) = message::decode_tell(body)?;
        let ours = self.len();
        if theirs * 100 < ours * PEER_SHARE_MIN_PERCENT {
            self.count_refused();
            tracing::warn!(peer = peer.0, ours, theirs, "not healed: the peer's map shrank");
            return Ok(());
        }
        let mut differing = Vec::new();
        for told in told {
            match told {
                Told::Routes(routes) => self.take_routes(&routes),
                Told::Parts(parts) => {
                    let map = self.map.read();
                    let ours = parts.iter().map(|part| (map.tree().part(part.prefix), part.hash));
                    differing.extend(ours.filter(|(ours, theirs)| ours.hash != *theirs));
                }
            }
        }
        let differing: Vec<PartSummary> = differing.into_iter().map(|(ours, _)| ours).collect();
        self.ask(peer, &differing);
        Ok(())
    }
}

impl FrameHandler for MemdsNode {
    fn handle(&self, from: NodeId, frame: Frame) {
        let body = frame.body();
        let outcome = match frame.kind {
            Kind::MemdsLookup => self.answer_lookups(from, body),
            Kind::MemdsPush => message::decode_routes(body).map(|routes| self.take_routes(&routes)),
            Kind::MemdsSyncAsk => self.tell(from, body),
            Kind::MemdsSyncTell => self.hear(from, body),
            _ => Ok(()),
        };
        if let Err(error) = outcome {
            self.count_refused();
            tracing::warn!(peer = from.0, kind = ?frame.kind, %error, "message dropped");
        }
    }
}

#[cfg(test)]
mod tests;
