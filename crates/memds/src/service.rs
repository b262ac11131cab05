//! A MemDS node: the whole map in memory, answering whoever asks.
//!
//! **Lookups** are answered from the frame they came in to the frame they leave in, without a copy
//! of a route between. **Pushes** are installed if they are newer than all they overlap:
//!
//! - a route with the same first placement is replaced by a newer `(epoch, ballot)`;
//! - routes that begin inside the new one's range are removed (they were merged into it);
//! - a route that overlaps any newer one is refused (a late message from before a split or merge).
//!
//! **Healing**: nodes compare Merkle hashes from the root down and pull what differs. What is pulled
//! passes the same rules as a push, so both sides end up with the newest of both.
//!
//! **Not believed**: a peer whose map is empty or has far fewer routes than ours is not healed from,
//! and no single route may displace a large part of the map. In the outage that taught this, an old
//! plan emptied the record that a whole region depended on.

use std::sync::Arc;

use bytes::BytesMut;
use metrics::counter;
use parking_lot::{Mutex, RwLock};
use wire::ids::NodeId;
use wire::peer::{Frame, FrameHandler, Kind, Transport};
use wire::service::Route;

use crate::message::{self, Told};
use crate::perkle::{PartSummary, Perkle, Prefix, Summary};
use crate::route::{RouteKey, RouteRef};

/// A peer with less than this share of our routes has lost some: it is not healed from.
const PEER_SHARE_MIN_PERCENT: usize = 75;

/// One route may always displace so many others: merges of what a node slept through.
const DISPLACED_MAX: usize = 64;

/// Beyond [`DISPLACED_MAX`], one route may displace at most this share of the map.
const DISPLACED_MAX_PERCENT: usize = 5;

/// Parts asked for in one frame. What a peer answers stays far below the longest frame.
const PARTS_PER_ASK: usize = 256;

/// What became of a pushed route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Installed {
    /// It is in the map now.
    Newer,
    /// The map already has it, or something newer.
    Stale,
    /// It would displace too much of the map to be believed.
    Refused,
}

/// A MemDS node.
pub struct MemdsNode {
    node: NodeId,
    transport: Arc<dyn Transport>,
    map: RwLock<Perkle>,
    /// Buffers of lookups being answered; reused.
    keys: Mutex<Vec<Vec<RouteKey>>>,
}

impl MemdsNode {
    /// A node with an empty map. Register it as the handler of [`MemdsNode::KINDS`].
    pub fn new(node: NodeId, transport: Arc<dyn Transport>) -> MemdsNode {
        MemdsNode { node, transport, map: RwLock::new(Perkle::new()), keys: Mutex::default() }
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
        self.map.read().len()
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The map's Merkle root.
    pub fn root_hash(&self) -> u64 {
        self.map.read().root_hash()
    }

    /// Bytes the map takes.
    pub fn memory_bytes(&self) -> usize {
        self.map.read().memory_bytes()
    }

    /// The route that serves a position, if any does.
    pub fn lookup(&self, lookup: message::Lookup) -> Option<Route> {
        let map = self.map.read();
        covering(lookup.into(), map.floor(lookup.into())).map(|route| route.to_route())
    }

    /// All routes, in order of table and placement.
    pub fn routes(&self) -> Vec<Route> {
        let map = self.map.read();
        map.range(RouteKey::MIN, RouteKey::MAX).map(|route| route.to_route()).collect()
    }

    /// Installs a route if it is newer than all it overlaps.
    pub fn install(&self, route: &Route) -> Installed {
        install(&mut self.map.write(), route)
    }

    /// Starts to pull what `peer` has and this node has not. Goes on by itself as answers come;
    /// to be called now and then for each peer (seconds), and when the node starts.
    pub fn heal_from(&self, peer: NodeId) {
        let whole = self.map.read().part(Prefix::ALL);
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
        self.map.read().floor_each(&keys, |key, route| {
            message::put_answer(covering(key, route).as_ref(), &mut answer);
        });
        counter!("memds_lookups_total").increment(keys.len() as u64);
        self.keys.lock().push(keys);
        self.send(Kind::MemdsAnswer, from, answer.freeze());
        Ok(())
    }

    fn take_routes(&self, routes: &[Route]) {
        let mut map = self.map.write();
        for route in routes {
            match install(&mut map, route) {
                Installed::Newer => counter!("memds_pushes_total").increment(1),
                Installed::Stale => counter!("memds_pushes_stale_total").increment(1),
                Installed::Refused => {
                    counter!("memds_refused_total").increment(1);
                    tracing::warn!(
                        partition = route.partition.0,
                        table = route.range.table.0,
                        "route refused: it would displace too much of the map"
                    );
                }
            }
        }
    }

    /// Answers a peer that wants to heal from us: for each part that differs, what we have.
    fn tell(&self, peer: NodeId, body: &[u8]) -> Result<(), message::MessageError> {
        let asked = message::decode_ask(body)?;
        let map = self.map.read();
        let mut told = BytesMut::new();
        let mut count = 0;
        for part in asked.iter().filter(|part| map.part(part.prefix).hash != part.hash) {
            count += 1;
            match map.summary(part.prefix) {
                Summary::Routes(routes) => message::put_told_routes(&routes, &mut told),
                Summary::Parts(parts) => message::put_told_parts(&parts, &mut told),
            }
        }
        let whole = map.len();
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
            counter!("memds_refused_total").increment(1);
            tracing::warn!(peer = peer.0, ours, theirs, "not healed: the peer's map shrank");
            return Ok(());
        }
        let mut differing = Vec::new();
        for told in told {
            match told {
                Told::Routes(routes) => self.take_routes(&routes),
                Told::Parts(parts) => {
                    let map = self.map.read();
                    let ours = parts.iter().map(|part| (map.part(part.prefix), part.hash));
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
            counter!("memds_refused_total").increment(1);
            tracing::warn!(peer = from.0, kind = ?frame.kind, %error, "message dropped");
        }
    }
}

/// The route, if it holds the position: a floor may lie before a gap or in another table.
fn covering<'a>(key: RouteKey, floor: Option<RouteRef<'a>>) -> Option<RouteRef<'a>> {
    floor.filter(|route| route.range.table == key.table() && route.range.contains(key.placement()))
}

fn install(map: &mut Perkle, route: &Route) -> Installed {
    let key = RouteKey::new(route.range.table, route.range.first);
    let last = RouteKey::new(route.range.table, route.range.last);
    // What reaches into the range from before it.
    if let Some(before) = key.before().and_then(|before| map.floor(before))
        && covering(key, Some(before)).is_some()
        && before.version >= route.version
    {
        return Installed::Stale;
    }
    let mut displaced = Vec::new();
    for other in map.range(key, last) {
        if other.version >= route.version {
            return Installed::Stale;
        }
        displaced.push(other.key());
    }
    if displaced.len() > DISPLACED_MAX.max(map.len() * DISPLACED_MAX_PERCENT / 100) {
        return Installed::Refused;
    }
    for other in displaced.into_iter().filter(|other| *other != key) {
        map.remove(other);
    }
    map.insert(route);
    Installed::Newer
}

#[cfg(test)]
mod tests;
