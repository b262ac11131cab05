//! The route cache: where a router remembers who leads which partition.
//!
//! ```text
//! (table, slot)  →  the partitions that hold parts of the slot          moka, bounded
//! partition      →  its newest known route                              shared by all its slots
//! ```
//!
//! A slot names its partitions through shared cells, so one answer about a new leader corrects every
//! slot of the partition at once. A split changes ranges: a placement that no cell of its slot holds
//! any more is simply a miss. Only a newer (epoch, ballot) replaces a route.
//!
//! The cache makes requests fast, never cheap: each routed call costs MemDS one lookup whether the
//! cache knew the route or not (`route.rs`).

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use foldhash::fast::RandomState;
use memds::RouteRef;
use parking_lot::RwLock;
use wire::ids::{NodeId, PartitionId, TableId};
use wire::placement::{Placement, PlacementRange, SLOTS};
use wire::service::{Route, RouteVersion};

/// A partition's newest known route.
#[derive(Debug)]
struct Cell(RwLock<Arc<Route>>);

/// What is known of a slot.
#[derive(Clone, Debug)]
struct Slot {
    /// It is forgotten if the cache was emptied since.
    epoch: u64,
    cells: Arc<[Arc<Cell>]>,
}

/// The cache. The process makes it first, and gives it to the MemDS client (which feeds it with every
/// answer, [`RouteCache::learn`]) and to the router.
#[derive(Debug)]
pub struct RouteCache {
    slots: moka::sync::Cache<(TableId, u16), Slot, RandomState>,
    /// Weak, so that a partition that left all slots leaves this map too.
    partitions: DashMap<PartitionId, Weak<Cell>>,
    /// Raised whenever a placement may have got another route: whoever remembers a route asks
    /// whether it is still current.
    generation: AtomicU64,
    /// Raised when the cache is emptied: emptying costs nothing, and nobody waits for it.
    epoch: AtomicU64,
}

/// What a call needs of a route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) partition: PartitionId,
    pub(crate) range: PlacementRange,
    pub(crate) version: RouteVersion,
    pub(crate) leader: Option<NodeId>,
    /// Replicas besides the leader that are sure to hold what a quorum holds.
    pub(crate) sure_replicas: usize,
}

impl Target {
    fn of(route: &Route) -> Target {
        Target {
            partition: route.partition,
            range: route.range,
            version: route.version,
            leader: route.leader,
            sure_replicas: route.members.len() / 2,
        }
    }
}

/// A target remembered outside the cache, good as long as the cache did not change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memo {
    generation: u64,
    target: Target,
}

impl RouteCache {
    /// An empty cache of at most so many (table, slot) pairs.
    pub fn new(slots_max: u64) -> Arc<RouteCache> {
        Arc::new(RouteCache {
            slots: moka::sync::Cache::builder()
                .max_capacity(slots_max)
                .build_with_hasher(RandomState::default()),
            partitions: DashMap::new(),
            generation: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
        })
    }

    /// Takes MemDS's answer: replaces the route of a partition that is remembered, if this one is
    /// newer. Partitions nobody here asked for are left alone: the cache holds what is used.
    pub fn learn(&self, route: &RouteRef<'_>) {
        let known = self.partitions.get(&route.partition).and_then(|cell| cell.upgrade());
        let Some(cell) = known else { return };
        // Nearly always the answer is what is known already; that takes no write lock.
        if route.version <= cell.0.read().version {
            return;
        }
        let mut current = cell.0.write();
        if route.version > current.version {
            *current = Arc::new(route.to_route());
            self.generation.fetch_add(1, Release);
        }
    }

    /// The route of a placement, if it is known. `memo` is the caller's last answer; it spares the
    /// search when the same partition is asked for again.
    pub(crate) fn get(
        &self,
        table: TableId,
        placement: Placement,
        memo: &mut Option<Memo>,
    ) -> Option<Target> {
        let generation = self.generation.load(Acquire);
        if let Some(Memo { generation: seen, target }) = *memo
            && seen == generation
            && target.range.table == table
            && target.range.contains(placement)
        {
            return Some(target);
        }
        let slot = self.slot(&(table, placement.slot()))?;
        let routes = slot.cells.iter().map(|cell| cell.0.read().clone());
        let route = routes
            .filter(|route| route.range.contains(placement))
            .max_by_key(|route| route.version)?;
        let target = Target::of(&route);
        *memo = Some(Memo { generation, target });
        Some(target)
    }

    /// Remembers a route, for the slot of this placement, unless a newer one is known.
    pub fn install(&self, placement: Placement, route: Route) {
        let table = route.range.table;
        let (cell, newest) = self.newest(route);
        let key = (table, placement.slot());
        let epoch = self.epoch.load(Acquire);
        let known = self.slot(&key);
        let known = known.as_ref().map_or(&[][..], |slot| &slot.cells);
        if known.iter().any(|other| Arc::ptr_eq(other, &cell)) {
            return;
        }
        let others = known.iter().filter(|other| {
            let route = other.0.read();
            touches(&route, placement.slot()) && !superseded(&route, &newest)
        });
        let cells = others.cloned().chain([cell]).collect();
        let is_first = known.is_empty();
        self.slots.insert(key, Slot { epoch, cells });
        if !is_first {
            self.generation.fetch_add(1, Release);
        }
    }

    fn slot(&self, key: &(TableId, u16)) -> Option<Slot> {
        self.slots.get(key).filter(|slot| slot.epoch == self.epoch.load(Acquire))
    }

    /// The partition's cell, with this route in it unless it had a newer one.
    fn newest(&self, route: Route) -> (Arc<Cell>, Arc<Route>) {
        let mut entry = self.partitions.entry(route.partition).or_default();
        let Some(cell) = entry.upgrade() else {
            let route = Arc::new(route);
            let cell = Arc::new(Cell(RwLock::new(route.clone())));
            *entry = Arc::downgrade(&cell);
            self.generation.fetch_add(1, Release);
            return (cell, route);
        };
        drop(entry);
        let mut current = cell.0.write();
        if route.version > current.version {
            *current = Arc::new(route);
            self.generation.fetch_add(1, Release);
        }
        let newest = current.clone();
        drop(current);
        (cell, newest)
    }

    /// Who leads the partition that holds a placement, if that is remembered.
    pub fn leader(&self, table: TableId, placement: Placement) -> Option<NodeId> {
        self.get(table, placement, &mut None).and_then(|target| target.leader)
    }

    /// Forgets everything.
    pub(crate) fn flush(&self) {
        self.epoch.fetch_add(1, Release);
        self.partitions.clear();
        self.generation.fetch_add(1, Release);
    }

    /// Slots and partitions remembered.
    pub(crate) fn len(&self) -> (u64, usize) {
        let epoch = self.epoch.load(Acquire);
        let slots = self.slots.iter().filter(|(_, slot)| slot.epoch == epoch).count();
        self.partitions.retain(|_, cell| cell.strong_count() > 0);
        (slots as u64, self.partitions.len())
    }
}

fn touches(route: &Route, slot: u16) -> bool {
    let first = Placement::first_of_slot(slot);
    let after = if slot + 1 < SLOTS { Some(Placement::first_of_slot(slot + 1)) } else { None };
    route.range.last >= first && after.is_none_or(|after| route.range.first < after)
}

/// Whether a newer route covers all of an older one: the older partition was merged away.
fn superseded(older: &Route, newer: &Route) -> bool {
    older.version < newer.version
        && newer.range.first <= older.range.first
        && older.range.last <= newer.range.last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(partition: u64, first: u64, last: u64, epoch: u64, ballot: u64, leader: u32) -> Route {
        let placement = |n| Placement::new(n).expect("40 bits");
        Route {
            partition: PartitionId(partition),
            range: PlacementRange {
                table: TableId(0),
                first: placement(first),
                last: placement(last),
            },
            version: RouteVersion { epoch, ballot },
            leader: Some(NodeId(leader)),
            members: vec![NodeId(1), NodeId(2), NodeId(3)],
        }
    }

    const LAST: u64 = Placement::MAX.get();

    fn leader(cache: &RouteCache, at: u64, memo: &mut Option<Memo>) -> Option<u32> {
        let placement = Placement::new(at).expect("40 bits");
        cache.get(TableId(0), placement, memo).and_then(|target| target.leader).map(|node| node.0)
    }

    #[test]
    fn one_answer_corrects_all_slots_and_old_news_is_ignored() {
        let cache = RouteCache::new(100);
        let (a, b) = (Placement::first_of_slot(1), Placement::first_of_slot(9));
        let mut memo = None;
        assert_eq!(leader(&cache, a.get(), &mut memo), None);
        cache.install(a, route(1, 0, LAST, 1, 1, 1));
        cache.install(b, route(1, 0, LAST, 1, 1, 1));
        assert_eq!(leader(&cache, a.get(), &mut memo), Some(1));
        cache.install(b, route(1, 0, LAST, 1, 2, 2));
        assert_eq!(leader(&cache, a.get(), &mut memo), Some(2), "the memo is not stale");
        cache.install(b, route(1, 0, LAST, 1, 1, 1));
        assert_eq!(leader(&cache, b.get(), &mut memo), Some(2));
        cache.flush();
        assert_eq!(leader(&cache, a.get(), &mut memo), None);
    }

    #[test]
    fn a_split_inside_a_slot_is_a_miss_for_the_part_that_left() {
        let cache = RouteCache::new(100);
        let mut memo = None;
        let slot = Placement::first_of_slot(5);
        let (low, high) = (slot.get() + 1, slot.get() + 1000);
        let placement = |n| Placement::new(n).expect("40 bits");
        cache.install(slot, route(1, 0, LAST, 1, 1, 1));
        assert_eq!(leader(&cache, high, &mut memo), Some(1));
        cache.install(placement(low), route(1, 0, high - 1, 2, 1, 1));
        assert_eq!(leader(&cache, high, &mut memo), None);
        cache.install(placement(high), route(2, high, LAST, 2, 1, 3));
        assert_eq!(leader(&cache, high, &mut memo), Some(3));
        assert_eq!(leader(&cache, low, &mut memo), Some(1));
        // Merged again into 1: the cell of 2 leaves the slot.
        cache.install(placement(high), route(1, 0, LAST, 3, 1, 1));
        assert_eq!(leader(&cache, high, &mut memo), Some(1));
    }
}
