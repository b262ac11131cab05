//! The partition map: for every placement of every table, the newest route known.
//!
//! Each placement keeps the route that takes precedence among all that were ever installed for it,
//! so the map is the same whatever the order in which pushes arrive, are lost and are healed. Of a
//! route that is overlapped by a newer one the rest stays: when only one half of a split is known
//! yet, the other half still leads to the old leader, who knows better, instead of nowhere.
//!
//! An entry is a maximal run of placements with the same route. A route without members says that
//! nobody serves the range (its table was dropped): it is remembered, and looked up as no route.
//!
//! ```text
//!   before      [        7 @ epoch 4        ]
//!   install     [  7 @ 5  ]
//!   after       [  7 @ 5  ][    7 @ 4       ]        then 8 @ 5 replaces what is left
//! ```

use std::cmp::Ordering;

use wire::ids::TableId;
use wire::placement::{Placement, PlacementRange};
use wire::service::Route;

use crate::message::{Lookup, MEMBERS_MAX};
use crate::perkle::Perkle;
use crate::route::{RouteKey, RouteRef};

/// Maps below this many entries may change in any way: a few merges halve them.
const GUARDED_ENTRIES_MIN: usize = 16;

/// What became of a route handed to the map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Install {
    /// It is the newest known for at least a part of its range.
    Newer,
    /// Nothing new in it.
    Stale,
    /// It cannot be right, and was not taken: it would replace more than half of the map by one
    /// partition, or names more members than a partition can have.
    Refused,
}

/// Why a whole map was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MapRefused {
    /// It has no entries.
    #[error("the map is empty")]
    Empty,
    /// It has less than half of the entries of the one it would replace.
    #[error("the map shrank from {from} to {to} entries")]
    Shrank {
        /// Entries held.
        from: usize,
        /// Entries offered.
        to: usize,
    },
}

/// The newest route of every placement.
#[derive(Default)]
pub struct PartitionMap {
    tree: Perkle,
}

impl PartitionMap {
    /// A map without entries.
    pub fn new() -> PartitionMap {
        PartitionMap::default()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The newest route known for this placement, if anybody serves it.
    pub fn route_of(&self, table: TableId, placement: Placement) -> Option<Route> {
        self.find(table, placement).map(|route| route.to_route())
    }

    /// The same, without a copy.
    pub fn find(&self, table: TableId, placement: Placement) -> Option<RouteRef<'_>> {
        let route = self.tree.floor(RouteKey::new(table, placement))?;
        serves(&route, table, placement).then_some(route)
    }

    /// [`PartitionMap::find`] for each lookup, in order. Many are faster together than one by one.
    pub fn find_each<'a>(
        &'a self,
        lookups: &[Lookup],
        mut found: impl FnMut(Option<RouteRef<'a>>),
    ) {
        let keys: Vec<_> = lookups.iter().map(|&(table, at)| RouteKey::new(table, at)).collect();
        self.tree.floor_each(&keys, |key, route| {
            found(route.filter(|route| serves(route, key.table(), key.placement())));
        });
    }

    /// The Merkle root: equal for equal maps, whatever happened before.
    pub fn root_hash(&self) -> u64 {
        self.tree.root_hash()
    }

    /// The tree below.
    pub fn tree(&self) -> &Perkle {
        &self.tree
    }

    /// Takes the route for those placements of its range for which it is the newest.
    pub fn install(&mut self, route: &Route) -> Install {
        if route.members.len() > MEMBERS_MAX || route.range.first > route.range.last {
            return Install::Refused;
        }
        let overlapped = self.overlapping(&route.range);
        let loses = |old: &&Route| precedence(route, old) == Ordering::Greater;
        let swallowed = overlapped.iter().filter(loses).filter(|old| covers(route, old)).count();
        if swallowed >= GUARDED_ENTRIES_MIN && swallowed * 2 > self.len() {
            return Install::Refused;
        }
        let pieces = pieces_to_take(route, &overlapped);
        for old in overlapped.iter().filter(loses) {
            self.cut(old, &route.range);
        }
        for &(first, last) in &pieces {
            self.put_joined(with_range(route, first, last));
        }
        if pieces.is_empty() { Install::Stale } else { Install::Newer }
    }

    /// Replaces the whole map, for instance by what the storage nodes say of themselves at start.
    ///
    /// *Errors*: an empty map, and one that shrank sharply, is refused and nothing changes.
    pub fn replace(&mut self, routes: &[Route]) -> Result<(), MapRefused> {
        let mut map = PartitionMap::new();
        for route in routes {
            map.install(route);
        }
        self.check_size(map.len())?;
        *self = map;
        Ok(())
    }

    /// Whether a map of this many entries may stand in for this one.
    pub(crate) fn check_size(&self, entries: usize) -> Result<(), MapRefused> {
        if entries == 0 {
            return Err(MapRefused::Empty);
        }
        if self.len() >= GUARDED_ENTRIES_MIN && entries * 2 < self.len() {
            return Err(MapRefused::Shrank { from: self.len(), to: entries });
        }
        Ok(())
    }

    /// The entries that share placements with the range, in order.
    fn overlapping(&self, range: &PlacementRange) -> Vec<Route> {
        let before =
            before(range.first).and_then(|placement| self.entry_at(range.table, placement));
        let before = before.filter(|route| route.range.last >= range.first);
        let key = |placement| RouteKey::new(range.table, placement);
        let starting = self.tree.range(key(range.first), key(range.last));
        before.into_iter().chain(starting).map(|route| route.to_route()).collect()
    }

    /// The entry that holds this placement.
    fn entry_at(&self, table: TableId, placement: Placement) -> Option<RouteRef<'_>> {
        let route = self.tree.floor(RouteKey::new(table, placement))?;
        holds(&route, table, placement).then_some(route)
    }

    /// Removes those placements of an entry that lie in the range.
    fn cut(&mut self, old: &Route, range: &PlacementRange) {
        self.remove(&old.range);
        if let Some(last) = before(range.first).filter(|&last| old.range.first <= last) {
            self.put(&with_range(old, old.range.first, last));
        }
        if let Some(first) = after(range.last).filter(|&first| first <= old.range.last) {
            self.put(&with_range(old, first, old.range.last));
        }
    }

    /// Puts an entry where no placement is taken, joined with neighbours that say the same.
    fn put_joined(&mut self, mut entry: Route) {
        if let Some(left) = self.neighbour(&entry, before(entry.range.first)) {
            self.remove(&left.range);
            entry.range.first = left.range.first;
        }
        if let Some(right) = self.neighbour(&entry, after(entry.range.last)) {
            self.remove(&right.range);
            entry.range.last = right.range.last;
        }
        self.put(&entry);
    }

    fn neighbour(&self, entry: &Route, placement: Option<Placement>) -> Option<Route> {
        let neighbour = self.entry_at(entry.range.table, placement?)?.to_route();
        (precedence(&neighbour, entry) == Ordering::Equal).then_some(neighbour)
    }

    fn put(&mut self, route: &Route) {
        self.tree.insert(route);
    }

    fn remove(&mut self, range: &PlacementRange) {
        self.tree.remove(RouteKey::new(range.table, range.first));
    }
}

/// Which of two routes for the same placement stands. Versions decide; the rest is there so that
/// any two nodes decide alike when a version was published with two contents.
fn precedence(a: &Route, b: &Route) -> Ordering {
    let rank = |r: &Route| (r.version, r.leader.is_some(), r.partition, r.leader);
    rank(a).cmp(&rank(b)).then_with(|| a.members.cmp(&b.members))
}

/// The runs of the route's range that no entry holds that stands against it.
fn pieces_to_take(route: &Route, overlapped: &[Route]) -> Vec<(Placement, Placement)> {
    let mut pieces = Vec::new();
    let mut next = Some(route.range.first);
    for old in overlapped.iter().filter(|old| precedence(route, old) != Ordering::Greater) {
        let Some(first) = next else { break };
        if let Some(last) = before(old.range.first).filter(|&last| first <= last) {
            pieces.push((first, last));
        }
        next = after(old.range.last);
    }
    if let Some(first) = next.filter(|&first| first <= route.range.last) {
        pieces.push((first, route.range.last));
    }
    pieces
}

fn holds(route: &RouteRef<'_>, table: TableId, placement: Placement) -> bool {
    route.range.table == table && route.range.contains(placement)
}

/// Whether somebody serves the placement, and this route says who.
fn serves(route: &RouteRef<'_>, table: TableId, placement: Placement) -> bool {
    holds(route, table, placement) && !route.members.is_empty()
}

fn covers(route: &Route, old: &Route) -> bool {
    route.range.contains(old.range.first) && route.range.contains(old.range.last)
}

fn with_range(route: &Route, first: Placement, last: Placement) -> Route {
    let range = PlacementRange { table: route.range.table, first, last };
    Route { range, ..route.clone() }
}

fn before(placement: Placement) -> Option<Placement> {
    placement.get().checked_sub(1).and_then(Placement::new)
}

fn after(placement: Placement) -> Option<Placement> {
    Placement::new(placement.get() + 1)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{RngExt, SeedableRng};
    use wire::ids::{NodeId, PartitionId};
    use wire::service::RouteVersion;

    use super::*;

    fn at(value: u64) -> Placement {
        Placement::new(value).expect("below 2^40")
    }

    fn route(partition: u64, first: u64, last: u64, epoch: u64) -> Route {
        Route {
            partition: PartitionId(partition),
            range: PlacementRange { table: TableId(1), first: at(first), last: at(last) },
            version: RouteVersion { epoch, ballot: 0 },
            leader: Some(NodeId(1)),
            members: vec![NodeId(1)],
        }
    }

    fn found(map: &PartitionMap, placement: u64) -> Option<(u64, u64)> {
        let route = map.route_of(TableId(1), at(placement))?;
        Some((route.partition.0, route.version.epoch))
    }

    #[test]
    fn half_of_a_split_hides_nothing_of_the_other() {
        let mut map = PartitionMap::new();
        assert_eq!(map.install(&route(1, 0, 99, 1)), Install::Newer);
        assert_eq!(map.install(&route(1, 0, 99, 1)), Install::Stale);
        assert_eq!((found(&map, 99), found(&map, 100)), (Some((1, 1)), None));
        assert_eq!(map.route_of(TableId(0), at(5)), None);
        assert_eq!(map.route_of(TableId(2), at(5)), None);

        assert_eq!(map.install(&route(2, 50, 99, 2)), Install::Newer);
        assert_eq!((found(&map, 49), found(&map, 50)), (Some((1, 1)), Some((2, 2))));
        assert_eq!(map.install(&route(1, 0, 99, 1)), Install::Stale, "from before the split");
        assert_eq!(map.install(&route(1, 0, 49, 2)), Install::Newer);
        assert_eq!((found(&map, 0), found(&map, 99), map.len()), (Some((1, 2)), Some((2, 2)), 2));

        // A merge, and a table that is dropped.
        assert_eq!(map.install(&route(1, 0, 99, 3)), Install::Newer);
        assert_eq!((found(&map, 80), map.len()), (Some((1, 3)), 1));
        let nobody = Route { members: Vec::new(), leader: None, ..route(1, 0, 99, 4) };
        assert_eq!(map.install(&nobody), Install::Newer);
        assert_eq!(found(&map, 80), None);
        assert_eq!(map.install(&route(1, 0, 99, 3)), Install::Stale, "the drop is remembered");
    }

    #[test]
    fn a_newer_route_inside_an_older_one_leaves_both_its_ends() {
        let mut map = PartitionMap::new();
        let whole = route(1, 0, Placement::MAX.get(), 1);
        map.install(&whole);
        map.install(&route(2, 40, 59, 2));
        let ranges: Vec<_> = map.tree().range(RouteKey::MIN, RouteKey::MAX).collect();
        let ranges: Vec<_> =
            ranges.iter().map(|r| (r.partition.0, r.range.first.get(), r.range.last)).collect();
        assert_eq!(ranges, [(1, 0, at(39)), (2, 40, at(59)), (1, 60, Placement::MAX)]);
        assert_eq!(map.install(&whole), Install::Stale);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut map = PartitionMap::new();
        let crowd = Route { members: vec![NodeId(1); MEMBERS_MAX + 1], ..route(1, 0, 9, 1) };
        assert_eq!(map.install(&crowd), Install::Refused);
        assert_eq!(map.install(&route(1, 9, 0, 1)), Install::Refused);
        assert!(map.is_empty());
        (0..40).for_each(|i| assert_eq!(map.install(&route(i, i, i, 1)), Install::Newer));
        assert_eq!(map.install(&route(99, 0, 39, 2)), Install::Refused);
        assert_eq!(map.install(&route(99, 0, 19, 2)), Install::Newer, "half of it may be merged");
        assert_eq!(map.replace(&[]), Err(MapRefused::Empty));
        let few = [route(1, 0, 9, 1)];
        assert_eq!(map.replace(&few), Err(MapRefused::Shrank { from: 21, to: 1 }));
    }

    /// Whatever routes there are, in whatever order and however often they come, each placement
    /// has the one that takes precedence, and the maps are equal to the last bit.
    #[test]
    fn the_order_of_arrival_does_not_matter() {
        for seed in 0..60 {
            let rng = &mut StdRng::seed_from_u64(seed);
            // Few enough that no route replaces more than may be replaced at once.
            let mut routes: Vec<Route> = (0..rng.random_range(1..GUARDED_ENTRIES_MIN / 2))
                .map(|_| {
                    let (a, b) = (rng.random_range(0..40), rng.random_range(0..40));
                    let epoch = rng.random_range(0..4);
                    let leader = rng.random::<bool>().then_some(NodeId(1));
                    let partition = rng.random_range(0..3);
                    Route { leader, ..route(partition, a.min(b), a.max(b), epoch) }
                })
                .collect();
            let mut first: Option<PartitionMap> = None;
            for _ in 0..6 {
                routes.shuffle(rng);
                let mut map = PartitionMap::new();
                for _ in 0..2 {
                    for route in &routes {
                        assert_ne!(map.install(route), Install::Refused);
                    }
                }
                for placement in 0..42 {
                    let here = |route: &&Route| route.range.contains(at(placement));
                    let want = routes.iter().filter(here).max_by(|a, b| precedence(a, b));
                    let got = map.route_of(TableId(1), at(placement));
                    let content = |r: &Route| (r.partition, r.version, r.leader);
                    assert_eq!(got.as_ref().map(content), want.map(content), "seed {seed}");
                }
                let first = first.get_or_insert(map);
                let mut again = PartitionMap::new();
                routes.iter().for_each(|route| {
                    again.install(route);
                });
                assert_eq!(first.root_hash(), again.root_hash(), "seed {seed}");
            }
        }
    }
}
