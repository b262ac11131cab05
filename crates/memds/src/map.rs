//! The partition map: which partition holds a placement, and who serves it. A Perkle tree filed by
//! first placements, and the rule by which newer routes replace older ones.

use wire::ids::TableId;
use wire::placement::Placement;
use wire::service::Route;

use crate::perkle::Perkle;
use crate::route::{RouteKey, RouteRef};

/// Partitions of all tables. Ranges in it never overlap.
#[derive(Default)]
pub struct PartitionMap {
    tree: Perkle,
}

impl PartitionMap {
    /// The route of the partition that holds a placement.
    pub fn find(&self, table: TableId, placement: Placement) -> Option<RouteRef<'_>> {
        let route = self.tree.floor(RouteKey::new(table, placement))?;
        (route.range.table == table && route.range.contains(placement)).then_some(route)
    }

    /// Puts a route in the place of all it overlaps, if it is newer than each of them. Returns
    /// whether it did.
    pub fn install(&mut self, route: &Route) -> bool {
        let (table, first, last) = (route.range.table, route.range.first, route.range.last);
        let before = self.find(table, first).into_iter();
        let inside = self.tree.range(RouteKey::new(table, first), RouteKey::new(table, last));
        let mut overlapped: Vec<RouteKey> = Vec::new();
        for known in before.chain(inside) {
            if known.version >= route.version {
                return false;
            }
            overlapped.push(known.key());
        }
        overlapped.into_iter().for_each(|key| {
            self.tree.remove(key);
        });
        self.tree.insert(route);
        true
    }

    /// Number of partitions.
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// Whether no partition is known.
    pub fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }

    /// The Merkle root: equal for equal maps, whatever happened before.
    pub fn root_hash(&self) -> u64 {
        self.tree.root_hash()
    }
}

#[cfg(test)]
mod tests {
    use wire::ids::{NodeId, PartitionId};
    use wire::placement::PlacementRange;
    use wire::service::RouteVersion;

    use super::*;

    fn route(partition: u64, first: u64, last: u64, epoch: u64) -> Route {
        let place = |value| Placement::new(value).expect("40 bits");
        Route {
            partition: PartitionId(partition),
            range: PlacementRange { table: TableId(1), first: place(first), last: place(last) },
            version: RouteVersion { epoch, ballot: 0 },
            leader: Some(NodeId(1)),
            members: vec![NodeId(1)],
        }
    }

    fn at(map: &PartitionMap, placement: u64) -> Option<u64> {
        let placement = Placement::new(placement).expect("40 bits");
        map.find(TableId(1), placement).map(|route| route.partition.0)
    }

    #[test]
    fn newer_routes_replace_what_they_overlap() {
        let mut map = PartitionMap::default();
        assert!(map.install(&route(1, 0, 99, 1)));
        assert!(!map.install(&route(1, 0, 99, 1)), "not newer");
        assert_eq!((at(&map, 0), at(&map, 99), at(&map, 100)), (Some(1), Some(1), None));
        assert_eq!(map.find(TableId(0), Placement::MIN), None);

        // A split: the right half first.
        assert!(map.install(&route(2, 50, 99, 2)));
        assert_eq!((at(&map, 10), at(&map, 50)), (None, Some(2)));
        assert!(map.install(&route(1, 0, 49, 2)));
        assert_eq!((at(&map, 10), at(&map, 50)), (Some(1), Some(2)));
        assert!(!map.install(&route(1, 0, 99, 1)), "from before the split");
        assert_eq!(map.len(), 2);
    }
}
