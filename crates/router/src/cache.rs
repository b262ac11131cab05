//! The route cache: where a router remembers who leads which partition.
//!
//! ```text
//! (table, first placement)  →  last placement, newest known route      ordered, bounded
//! ```
//!
//! Ranges do not overlap. One answer serves all placements of its partition, so whoever finds the cache
//! empty pays one miss a partition, not one a key. A newer route, by (epoch, ballot), takes the place of
//! those whose ranges it touches: they were split or merged, and what else they held is simply a miss. An
//! older route gets what no newer one holds.
//!
//! The cache makes requests fast, never cheap: each routed call costs MemDS one lookup whether the
//! cache knew the route or not (`route.rs`).

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};

use memds::RouteRef;
use parking_lot::{RwLock, RwLockWriteGuard};
use smallvec::SmallVec;
use wire::ids::{NodeId, PartitionId, TableId};
use wire::placement::{Placement, PlacementRange};
use wire::service::{Route, RouteVersion};

/// The cache. The process makes it first, and gives it to the MemDS client (which feeds it with every
/// answer, [`RouteCache::learn`]) and to the router.
#[derive(Debug)]
pub struct RouteCache {
    routes: RwLock<Routes>,
    /// Raised behind every change of `routes`: whoever remembers a target asks whether it is still current.
    generation: AtomicU64,
    routes_max: usize,
}

/// What a call needs of a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) partition: PartitionId,
    /// That part of the partition's range for which no newer route is known.
    pub(crate) range: PlacementRange,
    pub(crate) version: RouteVersion,
    pub(crate) leader: Option<NodeId>,
    /// Replicas besides the leader that are sure to hold what a quorum holds.
    pub(crate) sure_replicas: usize,
}

impl Target {
    /// Whether calls to both may be made together.
    pub(crate) fn is_same(&self, other: &Target) -> bool {
        (self.partition, self.leader, self.version)
            == (other.partition, other.leader, other.version)
    }

    fn of(route: &RouteRef<'_>) -> Target {
        Target {
            partition: route.partition,
            range: route.range,
            version: route.version,
            leader: route.leader,
            sure_replicas: route.members.len() / 2,
        }
    }

    /// Whether this one stays where both claim a placement. Of one partition's equals the later told
    /// range counts.
    fn stays_beside(&self, other: &Target) -> bool {
        self.version > other.version
            || (self.version == other.version && self.partition != other.partition)
    }
}

/// A target remembered outside the cache, good as long as the cache did not change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memo {
    generation: u64,
    target: Target,
}

impl RouteCache {
    /// An empty cache of at most so many routes, at least one; what is too many is forgotten in turn.
    pub fn new(routes_max: usize) -> Arc<RouteCache> {
        Arc::new(RouteCache {
            routes: RwLock::default(),
            generation: AtomicU64::new(0),
            routes_max: routes_max.max(1),
        })
    }

    /// Takes MemDS's answer where it is newer than what is remembered. Where nothing is remembered it is
    /// left alone: the cache holds what is used.
    pub fn learn(&self, route: &RouteRef<'_>) {
        let target = Target::of(route);
        // Nearly always the answer is what is known already; that takes no write lock.
        let known = self.routes.read();
        let older = known.overlapping(&route.range).find(|known| known.version < target.version);
        let Some(at) = older.map(|older| older.range.first.max(target.range.first)) else { return };
        drop(known);
        self.put(self.routes.write(), target, at);
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
        let target = *self.routes.read().at(table, placement)?;
        *memo = Some(Memo { generation, target });
        Some(target)
    }

    /// Remembers the route that serves a placement, unless a newer one is known. A route that does not
    /// cover the placement tells what its partition no longer holds: what led there is forgotten.
    pub fn install(&self, placement: Placement, route: &Route) {
        let target = Target::of(&route.into());
        let mut routes = self.routes.write();
        if target.range.contains(placement) {
            return self.put(routes, target, placement);
        }
        let table = target.range.table;
        let led_there = routes.at(table, placement).filter(|led| led.version < target.version);
        if let Some(first) = led_there.map(|led| led.range.first) {
            routes.by_first.remove(&(table, first));
            self.generation.fetch_add(1, Release);
        }
        self.put(routes, target, target.range.first);
    }

    fn put(&self, mut routes: RwLockWriteGuard<'_, Routes>, target: Target, at: Placement) {
        let Some(filed) = routes.put(target, at) else { return };
        routes.forget_beyond(self.routes_max, filed);
        drop(routes);
        self.generation.fetch_add(1, Release);
    }

    /// Who leads the partition that holds a placement, if that is remembered.
    pub fn leader(&self, table: TableId, placement: Placement) -> Option<NodeId> {
        self.get(table, placement, &mut None).and_then(|target| target.leader)
    }

    /// Forgets everything.
    pub(crate) fn flush(&self) {
        // Freed when nobody waits for the lock.
        let forgotten = std::mem::take(&mut *self.routes.write());
        self.generation.fetch_add(1, Release);
        drop(forgotten);
    }

    /// Routes remembered.
    pub(crate) fn len(&self) -> usize {
        self.routes.read().by_first.len()
    }
}

/// Where a route is filed.
type Key = (TableId, Placement);

/// See the module's text.
#[derive(Default, Debug)]
struct Routes {
    by_first: BTreeMap<Key, Target>,
    /// The last one forgotten for want of room.
    hand: Option<Key>,
}

impl Routes {
    fn at(&self, table: TableId, placement: Placement) -> Option<&Target> {
        let (_, target) = self.by_first.range(..=(table, placement)).next_back()?;
        (target.range.table == table && target.range.contains(placement)).then_some(target)
    }

    /// Those that share placements with a range, in order.
    fn overlapping(&self, range: &PlacementRange) -> impl Iterator<Item = &Target> {
        let PlacementRange { table, first, last } = *range;
        let before = self.at(table, first).filter(|known| known.range.first < first);
        // A range that ends before it begins holds nothing.
        let starting = self.by_first.range((table, first)..=(table, last.max(first)));
        before.into_iter().chain(starting.map(|(_, target)| target))
    }

    /// Takes a target for what lies around `at` and no newer one holds. Where it is filed now, if that
    /// changed anything.
    fn put(&mut self, target: Target, at: Placement) -> Option<Key> {
        let range = self.left_to(&target, at)?;
        let target = Target { range, ..target };
        let older: SmallVec<[Target; 4]> = self.overlapping(&range).copied().collect();
        let is_known = |known: &Target| {
            (known.partition, known.version, known.range)
                == (target.partition, target.version, target.range)
        };
        if older.first().is_some_and(is_known) {
            return None;
        }
        for old in older {
            self.by_first.remove(&(range.table, old.range.first));
        }
        let key = (range.table, range.first);
        self.by_first.insert(key, target);
        Some(key)
    }

    /// What no newer target holds of a target's range, around `at`.
    fn left_to(&self, target: &Target, at: Placement) -> Option<PlacementRange> {
        let mut left = target.range;
        if !left.contains(at) {
            return None;
        }
        for newer in self.overlapping(&target.range).filter(|known| known.stays_beside(target)) {
            if newer.range.last < at {
                left.first = newer.range.last.after()?;
            } else if newer.range.first > at {
                left.last = left.last.min(newer.range.first.before()?);
            } else {
                return None;
            }
        }
        Some(left)
    }

    /// Forgets routes in the order of their ranges, round and round, until there are not too many, but
    /// not the one that was put last.
    fn forget_beyond(&mut self, routes_max: usize, kept: Key) {
        while self.by_first.len() > routes_max {
            let behind = (self.hand.map_or(Unbounded, Excluded), Unbounded);
            let mut round = self.by_first.range(behind).chain(&self.by_first);
            let Some((&next, _)) = round.find(|(key, _)| **key != kept) else { return };
            self.by_first.remove(&next);
            self.hand = Some(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn placement(n: u64) -> Placement {
        Placement::new(n).expect("40 bits")
    }

    fn route(partition: u64, first: u64, last: u64, epoch: u64, ballot: u64, leader: u32) -> Route {
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
        let target = cache.get(TableId(0), placement(at), memo);
        target.and_then(|target| target.leader).map(|node| node.0)
    }

    #[test]
    fn one_answer_serves_and_corrects_a_whole_partition_and_old_news_is_ignored() {
        let cache = RouteCache::new(100);
        let mut memo = None;
        assert_eq!(leader(&cache, 7, &mut memo), None);
        cache.install(placement(7), &route(1, 0, LAST, 1, 1, 1));
        assert_eq!(leader(&cache, LAST, &mut memo), Some(1));
        cache.install(placement(9), &route(1, 0, LAST, 1, 2, 2));
        assert_eq!(leader(&cache, 7, &mut memo), Some(2), "the memo is not stale");
        cache.install(placement(9), &route(1, 0, LAST, 1, 1, 1));
        assert_eq!(leader(&cache, 9, &mut memo), Some(2));
        cache.flush();
        assert_eq!(leader(&cache, 7, &mut memo), None);
    }

    #[test]
    fn an_answer_of_memds_counts_where_something_is_remembered() {
        let cache = RouteCache::new(100);
        let mut memo = None;
        cache.learn(&RouteRef::from(&route(1, 0, 9, 1, 1, 1)));
        assert_eq!(leader(&cache, 5, &mut memo), None);
        cache.install(placement(5), &route(1, 0, 9, 1, 1, 1));
        assert_eq!(leader(&cache, 5, &mut memo), Some(1));
        cache.learn(&RouteRef::from(&route(1, 0, 9, 1, 2, 2)));
        assert_eq!(leader(&cache, 5, &mut memo), Some(2));
        cache.learn(&RouteRef::from(&route(1, 0, 9, 1, 1, 1)));
        assert_eq!(leader(&cache, 5, &mut memo), Some(2));
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn a_split_is_a_miss_for_the_part_that_left() {
        let cache = RouteCache::new(100);
        let mut memo = None;
        let (low, high) = (1_000, 2_000);
        cache.install(placement(low), &route(1, 0, LAST, 1, 1, 1));
        assert_eq!(leader(&cache, high, &mut memo), Some(1));
        // The old leader refuses a key of the part that left, and tells what is left to it.
        cache.install(placement(high), &route(1, 0, high - 1, 2, 1, 1));
        assert_eq!(leader(&cache, high, &mut memo), None);
        cache.install(placement(high), &route(2, high, LAST, 2, 1, 3));
        assert_eq!(leader(&cache, high, &mut memo), Some(3));
        assert_eq!(leader(&cache, low, &mut memo), Some(1));
        // Merged again into 1.
        cache.install(placement(high), &route(1, 0, LAST, 3, 1, 1));
        assert_eq!(leader(&cache, high, &mut memo), Some(1));
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn an_older_route_gets_what_no_newer_one_holds() {
        let cache = RouteCache::new(100);
        let mut memo = None;
        cache.install(placement(50), &route(2, 40, 60, 2, 1, 2));
        cache.install(placement(50), &route(1, 0, 99, 1, 1, 1));
        assert_eq!(cache.len(), 1);
        cache.install(placement(10), &route(1, 0, 99, 1, 1, 1));
        let leaders = |memo: &mut _| [39, 40, 60, 61].map(|at| leader(&cache, at, memo));
        assert_eq!(leaders(&mut memo), [Some(1), Some(2), Some(2), None]);
        cache.install(placement(99), &route(1, 0, 99, 1, 1, 1));
        assert_eq!(leaders(&mut memo), [Some(1), Some(2), Some(2), Some(1)]);
        // Whom a newer one has touched was split.
        cache.install(placement(5), &route(3, 4, 6, 3, 1, 3));
        let leaders = [3, 4, 6, 7, 50].map(|at| leader(&cache, at, &mut memo));
        assert_eq!(leaders, [None, Some(3), Some(3), None, Some(2)]);
    }

    #[test]
    fn who_refuses_a_placement_is_not_led_to_again() {
        let cache = RouteCache::new(100);
        let mut memo = None;
        // Two ends of a partition that was divided twice since.
        for (at, first, last) in [(10, 0, 39), (70, 61, 99)] {
            cache.install(placement(at), &route(1, first, last, 1, 1, 1));
        }
        assert_eq!(leader(&cache, 70, &mut memo), Some(1));
        cache.install(placement(70), &route(1, 0, 39, 2, 1, 1));
        assert_eq!(leader(&cache, 70, &mut memo), None);
        assert_eq!(leader(&cache, 10, &mut memo), Some(1));
        // Also if where the refusing partition begins somebody newer is known.
        cache.install(placement(70), &route(1, 61, 99, 1, 1, 1));
        cache.install(placement(0), &route(4, 0, 5, 9, 1, 4));
        cache.install(placement(70), &route(1, 0, 39, 2, 1, 1));
        assert_eq!(leader(&cache, 70, &mut memo), None);
    }

    #[test]
    fn what_is_too_much_is_forgotten_in_turn() {
        let cache = RouteCache::new(3);
        for n in 0..10 {
            cache.install(placement(n), &route(n, n, n, 1, 1, 1));
            assert_eq!(cache.len(), 3.min(n as usize + 1));
            assert_eq!(leader(&cache, n, &mut None), Some(1), "the newest is there");
        }
    }

    #[test]
    fn whatever_comes_in_ranges_do_not_overlap_and_nothing_grows_older() {
        const PLACEMENTS: u64 = 32;
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..500 {
            let mut routes = Routes::default();
            let mut newest = [RouteVersion::default(); PLACEMENTS as usize];
            for _ in 0..40 {
                let (a, b) =
                    (random.random_range(0..PLACEMENTS), random.random_range(0..PLACEMENTS));
                let (epoch, ballot) = (random.random_range(1..5), random.random_range(1..3));
                let partition = random.random_range(1..5);
                let told = route(partition, a.min(b), a.max(b), epoch, ballot, 1);
                let at = random.random_range(a.min(b)..=a.max(b));
                routes.put(Target::of(&(&told).into()), placement(at));
                let held = routes.at(TableId(0), placement(at)).expect("a route, this or a newer");
                assert!(held.version >= told.version);
                let mut end = None;
                for ((table, first), held) in &routes.by_first {
                    assert_eq!((*table, *first), (TableId(0), held.range.first));
                    assert!(end < Some(*first) && held.range.first <= held.range.last);
                    end = Some(held.range.last);
                }
                for (at, newest) in newest.iter_mut().enumerate() {
                    let Some(held) = routes.at(TableId(0), placement(at as u64)) else {
                        // Left by its partition; who held it before is not known any more.
                        *newest = RouteVersion::default();
                        continue;
                    };
                    assert!(held.version >= *newest);
                    *newest = held.version;
                }
            }
        }
    }
}
