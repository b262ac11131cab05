//! A MemDS node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use wire::ids::{NodeId, PartitionId};
use wire::peer::{Frame, FrameHandler, FrameKind, Transport};

use crate::map::PartitionMap;
use crate::message::{self, Answer, Place};
use crate::route::RouteRef;

/// What a MemDS node counted since its start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MemdsStats {
    /// Lookups answered.
    pub lookups: u64,
    /// Routes pushed that were newer than what was known.
    pub installed: u64,
    /// Frames that could not be read.
    pub malformed: u64,
}

/// A MemDS node: answers lookups from memory, takes pushes. It can be lost at any time: what it
/// knows is told to it again.
pub struct Memds {
    id: NodeId,
    transport: Arc<dyn Transport>,
    map: RwLock<PartitionMap>,
    lookups: AtomicU64,
    installed: AtomicU64,
    malformed: AtomicU64,
}

impl Memds {
    /// A node that knows nothing yet. Connect it to its transport under `id`.
    pub fn new(id: NodeId, transport: Arc<dyn Transport>) -> Memds {
        Memds {
            id,
            transport,
            map: RwLock::new(PartitionMap::default()),
            lookups: AtomicU64::new(0),
            installed: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
        }
    }

    /// What it counted.
    pub fn stats(&self) -> MemdsStats {
        MemdsStats {
            lookups: self.lookups.load(Ordering::Relaxed),
            installed: self.installed.load(Ordering::Relaxed),
            malformed: self.malformed.load(Ordering::Relaxed),
        }
    }

    /// The Merkle root of its map: two nodes that know the same have the same.
    pub fn root_hash(&self) -> u64 {
        self.map.read().root_hash()
    }

    /// The partitions it knows.
    pub fn partitions(&self) -> usize {
        self.map.read().len()
    }

    fn answer(&self, batch: u64, places: &[Place]) -> Answer {
        let map = self.map.read();
        let mut routes: Vec<RouteRef<'_>> = Vec::new();
        let found = places.iter().map(|(table, placement)| {
            let route = map.find(*table, *placement)?;
            // Lookups of one pipeline mostly meet the route of the one before.
            let known = routes.iter().rposition(|known| known.partition == route.partition);
            let index = known.unwrap_or_else(|| {
                routes.push(route);
                routes.len() - 1
            });
            Some(index as u16)
        });
        let found = found.collect();
        self.lookups.fetch_add(places.len() as u64, Ordering::Relaxed);
        Answer { batch, routes: routes.iter().map(RouteRef::to_route).collect(), found }
    }
}

impl FrameHandler for Memds {
    fn handle(&self, frame: Frame) {
        match frame.kind {
            FrameKind::MemdsLookup => {
                if let Some((batch, places)) = message::decode_lookup(frame.body) {
                    let body = message::encode_answer(&self.answer(batch, &places));
                    let kind = FrameKind::MemdsAnswer;
                    self.transport.send(Frame::new(
                        kind,
                        self.id,
                        frame.from,
                        PartitionId(0),
                        body,
                    ));
                    return;
                }
            }
            FrameKind::MemdsPush => {
                if let Some(routes) = message::decode_push(frame.body) {
                    let mut map = self.map.write();
                    let installed = routes.iter().filter(|route| map.install(route));
                    let installed = installed.count() as u64;
                    self.installed.fetch_add(installed, Ordering::Relaxed);
                    return;
                }
            }
            _ => {}
        }
        self.malformed.fetch_add(1, Ordering::Relaxed);
    }
}
