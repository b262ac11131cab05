//! The partition map: for every position of every table, the newest route known.
//!
//! Each position keeps the route that takes precedence among all that were ever installed for it.
//! So the map is the same whatever the order in which routes arrive, are lost and are healed, and
//! two nodes that were told the same have the same Merkle root. Of a route that is overlapped by a
//! newer one the rest stays: when only one half of a split is known yet, positions of the other half
//! still lead to the old leader, who knows better, instead of nowhere.
//!
//! ```text
//!   before      [          7 at epoch 4          ]
//!   install     [ 7 at 5  ]
//!   after       [ 7 at 5  ][       7 at 4        ]        then 8 at epoch 5 replaces the rest
//! ```
//!
//! An entry is the longest run of positions with the same route, and entries never overlap. The
//! rejected rule, "a route is taken or refused as a whole", loses the upper half of a partition when
//! the lower half of its split comes first, and a late parent that is refused here and was accepted
//! there keeps two Merkle roots apart.

use std::cmp::Ordering;

use wire::placement::{Placement, PlacementRange};
use wire::service::Route;

use crate::perkle::Perkle;
use crate::route::{RouteKey, RouteRef};

/// One route may always displace so many others: merges of what a node slept through.
const DISPLACED_MAX: usize = 64;

/// Beyond [`DISPLACED_MAX`], one route may displace at most this share of the map.
const DISPLACED_MAX_PERCENT: usize = 5;

/// What became of a route handed to the map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Installed {
    /// It is the newest for at least a part of its range.
    Newer,
    /// The map already has it, or something newer, for all of its range.
    Stale,
    /// It would displace too much of the map to be believed, or its range ends before it begins.
    Refused,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct PartitionMap {
    tree: Perkle,
}

impl PartitionMap {
    /// The entries.
    pub(crate) fn tree(&self) -> &Perkle {
        &self.tree
    }

    /// The route that serves a position, if any does.
    pub(crate) fn find(&self, key: RouteKey) -> Option<RouteRef<'_>> {
        covering(key, self.tree.floor(key))
    }

    /// [`PartitionMap::find`] of each key, in order.
    pub(crate) fn find_each<'a>(
        &'a self,
        keys: &[RouteKey],
        mut found: impl FnMut(Option<RouteRef<'a>>),
    ) {
        self.tree.floor_each(keys, |key, route| found(covering(key, route)));
    }

    /// Takes the route for those positions of its range for which it is the newest.
    pub(crate) fn install(&mut self, route: &Route) -> Installed {
        if route.range.first > route.range.last {
            return Installed::Refused;
        }
        let overlapped = self.overlapped(&route.range);
        let pieces = pieces_to_take(route, &overlapped);
        let loses = |old: &&Route| precedence(route, old) == Ordering::Greater;
        let inside = |old: &&Route| covers(&route.range, &old.range);
        let displaced = overlapped.iter().filter(loses).filter(inside).count();
        if displaced > DISPLACED_MAX.max(self.tree.len() * DISPLACED_MAX_PERCENT / 100) {
            return Installed::Refused;
        }
        for old in overlapped.iter().filter(loses) {
            self.cut(old, &route.range);
        }
        for &(first, last) in &pieces {
            self.put_joined(within(route, first, last));
        }
        if pieces.is_empty() { Installed::Stale } else { Installed::Newer }
    }

    /// The entries that share positions with the range, in order.
    fn overlapped(&self, range: &PlacementRange) -> Vec<Route> {
        let key = |placement| RouteKey::new(range.table, placement);
        let before = range.first.before().and_then(|placement| self.find(key(placement)));
        let before = before.filter(|route| route.range.last >= range.first);
        let starting = self.tree.range(key(range.first), key(range.last));
        before.into_iter().chain(starting).map(|route| route.to_route()).collect()
    }

    /// Removes those positions of an entry that lie in the range.
    fn cut(&mut self, old: &Route, range: &PlacementRange) {
        self.tree.remove(RouteRef::from(old).key());
        if let Some(last) = range.first.before().filter(|last| *last >= old.range.first) {
            self.tree.insert(&within(old, old.range.first, last));
        }
        if let Some(first) = range.last.after().filter(|first| *first <= old.range.last) {
            self.tree.insert(&within(old, first, old.range.last));
        }
    }

    /// Puts an entry where no position is taken, joined with neighbours that say the same.
    fn put_joined(&mut self, mut entry: Route) {
        if let Some(left) = self.alike(&entry, entry.range.first.before()) {
            self.tree.remove(RouteKey::new(entry.range.table, left.first));
            entry.range.first = left.first;
        }
        if let Some(right) = self.alike(&entry, entry.range.last.after()) {
            self.tree.remove(RouteKey::new(entry.range.table, right.first));
            entry.range.last = right.last;
        }
        self.tree.insert(&entry);
    }

    /// The range of the entry that holds a position, if it says the same as this one.
    fn alike(&self, entry: &Route, placement: Option<Placement>) -> Option<PlacementRange> {
        let other = self.find(RouteKey::new(entry.range.table, placement?))?;
        (precedence(&other.to_route(), entry) == Ordering::Equal).then_some(other.range)
    }
}

/// The route, if it holds the position: a floor may lie before a gap or in another table.
fn covering<'a>(key: RouteKey, floor: Option<RouteRef<'a>>) -> Option<RouteRef<'a>> {
    floor.filter(|route| route.range.table == key.table() && route.range.contains(key.placement()))
}

/// Which of two routes for one position stands. Versions decide; the rest is there so that any two
/// nodes decide alike if one version was announced with two contents.
fn precedence(a: &Route, b: &Route) -> Ordering {
    let rank =
        |route: &Route| (route.version, route.leader.is_some(), route.partition, route.leader);
    rank(a).cmp(&rank(b)).then_with(|| a.members.cmp(&b.members))
}

/// The runs of the route's range in which no entry stands against it.
fn pieces_to_take(route: &Route, overlapped: &[Route]) -> Vec<(Placement, Placement)> {
    let mut pieces = Vec::new();
    let mut next = Some(route.range.first);
    for old in overlapped.iter().filter(|old| precedence(route, old) != Ordering::Greater) {
        let Some(first) = next else { break };
        if let Some(last) = old.range.first.before().filter(|last| *last >= first) {
            pieces.push((first, last));
        }
        next = old.range.last.after();
    }
    if let Some(first) = next.filter(|first| *first <= route.range.last) {
        pieces.push((first, route.range.last));
    }
    pieces
}

fn covers(range: &PlacementRange, other: &PlacementRange) -> bool {
    range.contains(other.first) && range.contains(other.last)
}

fn within(route: &Route, first: Placement, last: Placement) -> Route {
    let range = PlacementRange { table: route.range.table, first, last };
    Route { range, ..route.clone() }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{RngExt, SeedableRng};
    use wire::ids::{NodeId, PartitionId, TableId};
    use wire::service::RouteVersion;

    use super::*;

    const TABLE: TableId = TableId(1);

    fn at(number: u64) -> Placement {
        Placement::new(number).expect("40 bits")
    }

    fn route(partition: u64, first: u64, last: u64, epoch: u64) -> Route {
        Route {
            partition: PartitionId(partition),
            range: PlacementRange { table: TABLE, first: at(first), last: at(last) },
            version: RouteVersion { epoch, ballot: 0 },
            leader: Some(NodeId(1)),
            members: vec![NodeId(1)],
        }
    }

    fn found(map: &PartitionMap, number: u64) -> Option<(u64, u64)> {
        let route = map.find(RouteKey::new(TABLE, at(number)))?;
        Some((route.partition.0, route.version.epoch))
    }

    #[test]
    fn half_of_a_split_hides_nothing_of_the_other() {
        let (lower, upper) = (route(1, 0, 49, 2), route(2, 50, 99, 2));
        for halves in [[&lower, &upper], [&upper, &lower]] {
            let mut map = PartitionMap::default();
            assert_eq!(map.install(&route(1, 0, 99, 1)), Installed::Newer);
            assert_eq!((found(&map, 99), found(&map, 100)), (Some((1, 1)), None));
            assert_eq!(map.find(RouteKey::new(TableId(0), at(5))), None);
            assert_eq!(map.find(RouteKey::new(TableId(2), at(5))), None);
            for half in halves {
                assert_eq!(map.install(half), Installed::Newer);
                assert!((0..100).all(|number| found(&map, number).is_some()), "no hole");
                assert_eq!(map.install(&route(1, 0, 99, 1)), Installed::Stale);
            }
            assert_eq!((found(&map, 49), found(&map, 50)), (Some((1, 2)), Some((2, 2))));
            assert_eq!(map.tree().len(), 2);
        }
    }

    #[test]
    fn a_newer_route_inside_an_older_one_leaves_both_its_ends() {
        let whole = route(1, 0, Placement::MAX.get(), 1);
        let mut map = PartitionMap::default();
        map.install(&whole);
        map.install(&route(2, 40, 59, 2));
        let entries: Vec<_> = map
            .tree()
            .range(RouteKey::MIN, RouteKey::MAX)
            .map(|entry| (entry.partition.0, entry.range.first.get(), entry.range.last))
            .collect();
        assert_eq!(entries, [(1, 0, at(39)), (2, 40, at(59)), (1, 60, Placement::MAX)]);
        assert_eq!(map.install(&whole), Installed::Stale);
        assert_eq!(map.install(&route(3, 9, 0, 9)), Installed::Refused, "it ends before it begins");
    }

    /// Whatever routes there are, in whatever order and however often they come: each position has
    /// the one that takes precedence, and the maps are equal to the last bit.
    #[test]
    fn the_order_of_arrival_does_not_matter() {
        for seed in 0..60 {
            let rng = &mut StdRng::seed_from_u64(seed);
            let mut routes: Vec<Route> = (0..rng.random_range(1..30))
                .map(|_| {
                    let (a, b) = (rng.random_range(0..60), rng.random_range(0..60));
                    let leader = rng.random::<bool>().then_some(NodeId(1));
                    let (partition, epoch) = (rng.random_range(0..4), rng.random_range(0..5));
                    Route { leader, ..route(partition, a.min(b), a.max(b), epoch) }
                })
                .collect();
            let mut roots = Vec::new();
            for _ in 0..5 {
                let mut map = PartitionMap::default();
                for _ in 0..rng.random_range(1..3) {
                    routes.shuffle(rng);
                    for route in &routes {
                        assert_ne!(map.install(route), Installed::Refused);
                    }
                }
                for number in 0..62 {
                    let here = |route: &&Route| route.range.contains(at(number));
                    let want = routes.iter().filter(here).max_by(|a, b| precedence(a, b));
                    let want = want.map(|route| (route.partition, route.version, route.leader));
                    let got = map.find(RouteKey::new(TABLE, at(number)));
                    let got = got.map(|route| (route.partition, route.version, route.leader));
                    assert_eq!(got, want, "seed {seed}, position {number}");
                }
                roots.push(map.tree().root_hash());
            }
            assert!(roots.iter().all(|root| *root == roots[0]), "seed {seed}");
        }
    }
}
