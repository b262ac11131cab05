//! A MemDS node: answers lookups from its map, takes pushes, and heals from its peers.
//!
//! Frames are handled on the thread that brings them, and the host calls [`Memds::sync`] every second
//! or so, or has a thread do it ([`Memds::sync_every`]). A node that knows no route for a placement says
//! so; the client asks another. A node that just started knows nothing and harms nobody.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use parking_lot::RwLock;
use wire::ids::{NodeId, PartitionId, TableId};
use wire::peer::{Frame, FrameHandler, FrameKind, Transport};
use wire::placement::Placement;
use wire::service::Route;

use crate::map::{Install, MapRefused, PartitionMap};
use crate::message::{self, Answer, BodyError, Lookup, SyncAnswer};
use crate::perkle::{PartSummary, Perkle, Prefix, SUMMARY_ROUTES_MAX, Summary};
use crate::route::RouteRef;

/// Parts of the map in one question at most: its answer must fit a frame.
const SYNC_PARTS_MAX: usize = 256;
/// How often a part is halved for one answer: 16 parts. Halving once would take a frame each way
/// for every level of the tree.
const SYNC_LEVELS: u32 = 4;

const _: () = assert!(SYNC_PARTS_MAX * SUMMARY_ROUTES_MAX <= message::ROUTES_MAX);
const _: () = assert!(SYNC_PARTS_MAX << SYNC_LEVELS <= message::PARTS_MAX);

/// A node that holds the whole partition map.
pub struct Memds {
    id: NodeId,
    peers: Vec<NodeId>,
    transport: Arc<dyn Transport>,
    next_peer: AtomicUsize,
    map: RwLock<PartitionMap>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    lookups: AtomicU64,
    pushes: AtomicU64,
    installed: AtomicU64,
    stale: AtomicU64,
    refused: AtomicU64,
    malformed: AtomicU64,
}

/// What a MemDS node did since it started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MemdsStats {
    /// Lookups answered, whether a route was known or not.
    pub lookups: u64,
    /// Routes pushed by storage nodes.
    pub pushes: u64,
    /// Routes, pushed or healed, that were newer than what was known.
    pub installed: u64,
    /// Routes that were not.
    pub stale: u64,
    /// Routes and maps that were refused because they would have emptied the map or shrunk it
    /// sharply.
    pub refused: u64,
    /// Frames that were not understood.
    pub malformed: u64,
}

impl Memds {
    /// A node with an empty map.
    pub fn new(id: NodeId, peers: Vec<NodeId>, transport: Arc<dyn Transport>) -> Memds {
        let peers = peers.into_iter().filter(|&peer| peer != id).collect();
        let next_peer = AtomicUsize::new(0);
        let (map, counts) = (RwLock::default(), Counts::default());
        Memds { id, peers, transport, next_peer, map, counts }
    }

    /// The node's address.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The partitions it knows.
    pub fn partitions(&self) -> usize {
        self.map.read().len()
    }

    /// The newest route known for a placement; not counted as a lookup.
    pub fn route_of(&self, table: TableId, placement: Placement) -> Option<Route> {
        self.map.read().route_of(table, placement)
    }

    /// The map's Merkle root: nodes with equal maps have equal roots.
    pub fn root_hash(&self) -> u64 {
        self.map.read().root_hash()
    }

    /// What the node did since it started.
    pub fn stats(&self) -> MemdsStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        MemdsStats {
            lookups: read(&self.counts.lookups),
            pushes: read(&self.counts.pushes),
            installed: read(&self.counts.installed),
            stale: read(&self.counts.stale),
            refused: read(&self.counts.refused),
            malformed: read(&self.counts.malformed),
        }
    }

    /// Replaces the whole map by an authoritative one.
    ///
    /// *Errors*: an empty map, and one that shrank sharply, is refused and nothing changes.
    pub fn replace(&self, routes: &[Route]) -> Result<(), MapRefused> {
        self.map.write().replace(routes).inspect_err(|error| self.refuse(error))
    }

    fn lookup_all(&self, body: &[u8]) -> Result<Bytes, BodyError> {
        let (batch, lookups) = message::decode_lookups(body)?;
        self.count(&self.counts.lookups, "memds_lookups_total", lookups.len());
        Ok(message::encode_answer(&self.answer(batch, &lookups)))
    }

    fn answer(&self, batch: u64, lookups: &[Lookup]) -> Answer {
        let map = self.map.read();
        let mut routes: Vec<RouteRef<'_>> = Vec::new();
        let mut found = Vec::with_capacity(lookups.len());
        map.find_each(lookups, |route| {
            found.push(route.map(|route| {
                // Lookups of one pipeline mostly meet the route of the one before.
                let known = routes.iter().rposition(|known| known.range == route.range);
                let index = known.unwrap_or_else(|| {
                    routes.push(route);
                    routes.len() - 1
                });
                u16::try_from(index).expect("no more routes than lookups")
            }));
        });
        let routes = routes.iter().map(RouteRef::to_route).collect();
        Answer { batch, routes, found }
    }

    fn take_push(&self, body: &[u8]) -> Result<(), BodyError> {
        let routes = message::decode_push(body)?;
        self.count(&self.counts.pushes, "memds_pushes_total", routes.len());
        self.install_all(&routes);
        Ok(())
    }

    /// Installs routes under one lock: lookups see all of them or none.
    fn install_all(&self, routes: &[Route]) {
        let (mut installed, mut stale, mut refused) = (0, 0, 0);
        let mut map = self.map.write();
        for route in routes {
            match map.install(route) {
                Install::Newer => installed += 1,
                Install::Stale => stale += 1,
                Install::Refused => refused += 1,
            }
        }
        drop(map);
        self.count(&self.counts.installed, "memds_installed_total", installed);
        self.count(&self.counts.stale, "memds_stale_total", stale);
        if refused > 0 {
            tracing::warn!(node = %self.id, refused, "routes refused: they would swallow the map");
            self.count(&self.counts.refused, "memds_refused_total", refused);
        }
    }

    /// Compares the map with the next peer's: asks for whatever differs, installs what is newer.
    /// The exchange goes on by itself, each frame of it prompted by the one before; if one is lost,
    /// the next call takes it up where it ended. Does nothing without peers.
    pub fn sync(&self) {
        if self.peers.is_empty() {
            return;
        }
        let turn = self.next_peer.fetch_add(1, Ordering::Relaxed);
        let peer = self.peers[turn % self.peers.len()];
        let whole = self.map.read().tree().part(Prefix::ALL);
        self.send(FrameKind::MemdsSync, peer, message::encode_sync(&[whole]));
    }

    /// Calls [`Memds::sync`] again and again, on a thread of its own, until the result is dropped.
    ///
    /// *Errors*: if the thread cannot be started.
    pub fn sync_every(self: &Arc<Memds>, period: Duration) -> std::io::Result<Healing> {
        let (stop, stopped) = mpsc::channel::<()>();
        let node = Arc::clone(self);
        let run = move || {
            while stopped.recv_timeout(period) == Err(mpsc::RecvTimeoutError::Timeout) {
                node.sync();
            }
        };
        let thread = thread::Builder::new().name("memds-sync".to_owned()).spawn(run)?;
        Ok(Healing { stop: Some(stop), thread: Some(thread) })
    }

    /// Tells a peer what differs in the parts it asks about; `None` if nothing does.
    fn compare(&self, body: &[u8]) -> Result<Option<Bytes>, BodyError> {
        let asked = message::decode_sync(body)?;
        if asked.len() > SYNC_PARTS_MAX {
            return Err(BodyError::TooMany("parts"));
        }
        let map = self.map.read();
        let mut answer = SyncAnswer {
            map_routes: u32::try_from(map.len()).unwrap_or(u32::MAX),
            parts: Vec::new(),
            routes: Vec::new(),
        };
        for theirs in asked {
            if map.tree().part(theirs.prefix) == theirs {
                continue;
            }
            match map.tree().summary(theirs.prefix) {
                Summary::Routes(few) => answer.routes.extend(few.iter().map(RouteRef::to_route)),
                Summary::Parts(halves) => {
                    for half in halves {
                        divide(map.tree(), half, SYNC_LEVELS - 1, &mut answer.parts);
                    }
                }
            }
        }
        let differs = !answer.parts.is_empty() || !answer.routes.is_empty();
        Ok(differs.then(|| message::encode_sync_answer(&answer)))
    }

    /// Takes what a peer has that is newer, and asks on about parts that differ.
    fn heal(&self, peer: NodeId, body: &[u8]) -> Result<(), BodyError> {
        let answer = message::decode_sync_answer(body)?;
        if let Err(error) = self.map.read().check_size(answer.map_routes as usize) {
            self.refuse(&error);
            return Ok(());
        }
        self.install_all(&answer.routes);
        let map = self.map.read();
        let mine = |theirs: PartSummary| {
            let mine = map.tree().part(theirs.prefix);
            (mine != theirs).then_some(mine)
        };
        let differing: Vec<_> = answer.parts.into_iter().filter_map(mine).collect();
        // Sent without the lock: in one process the answer is handled before this returns.
        drop(map);
        for parts in differing.chunks(SYNC_PARTS_MAX) {
            self.send(FrameKind::MemdsSync, peer, message::encode_sync(parts));
        }
        Ok(())
    }

    fn refuse(&self, error: &MapRefused) {
        tracing::warn!(node = %self.id, %error, "map refused");
        self.count(&self.counts.refused, "memds_refused_total", 1);
    }

    fn count(&self, count: &AtomicU64, name: &'static str, by: usize) {
        if by > 0 {
            count.fetch_add(by as u64, Ordering::Relaxed);
            counter!(name).increment(by as u64);
        }
    }

    fn send(&self, kind: FrameKind, to: NodeId, body: Bytes) {
        self.transport.send(Frame::new(kind, self.id, to, PartitionId(0), body));
    }
}

impl FrameHandler for Memds {
    fn handle(&self, frame: Frame) {
        let done = match frame.kind {
            FrameKind::MemdsLookup => self.lookup_all(&frame.body).map(|answer| {
                self.send(FrameKind::MemdsAnswer, frame.from, answer);
            }),
            FrameKind::MemdsPush => self.take_push(&frame.body),
            FrameKind::MemdsSync => self.compare(&frame.body).map(|answer| {
                if let Some(answer) = answer {
                    self.send(FrameKind::MemdsSyncAnswer, frame.from, answer);
                }
            }),
            FrameKind::MemdsSyncAnswer => self.heal(frame.from, &frame.body),
            _ => Err(BodyError::Invalid("frame kind for a MemDS node")),
        };
        if let Err(error) = done {
            tracing::warn!(node = %self.id, from = %frame.from, %error, "frame not understood");
            self.count(&self.counts.malformed, "memds_malformed_total", 1);
        }
    }
}

/// Halves a part as often as it can be, at most `levels` times.
fn divide(tree: &Perkle, part: PartSummary, levels: u32, into: &mut Vec<PartSummary>) {
    if levels > 0
        && let Summary::Parts(halves) = tree.summary(part.prefix)
    {
        for half in halves {
            divide(tree, half, levels - 1, into);
        }
    } else {
        into.push(part);
    }
}

/// A node's thread that heals it; ends when this is dropped.
#[derive(Debug)]
pub struct Healing {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Healing {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that heals a MemDS node panicked");
        }
    }
}
