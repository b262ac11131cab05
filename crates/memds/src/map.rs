//! The partition map: which partition holds a placement, and who serves it.

use std::collections::BTreeMap;

use wire::ids::TableId;
use wire::placement::Placement;
use wire::service::Route;

/// Partitions of all tables by their first placement. Ranges in it never overlap.
#[derive(Clone, Debug, Default)]
pub struct PartitionMap {
    routes: BTreeMap<(TableId, Placement), Route>,
}

impl PartitionMap {
    /// The route of the partition that holds a placement.
    pub fn find(&self, table: TableId, placement: Placement) -> Option<&Route> {
        let (_, route) = self.routes.range(..=(table, placement)).next_back()?;
        (route.range.table == table && route.range.contains(placement)).then_some(route)
    }

    /// Puts a route in the place of all it overlaps, if it is newer than each of them. Returns
    /// whether it did.
    pub fn install(&mut self, route: Route) -> bool {
        let overlapped: Vec<_> = self.overlapping(&route).map(|known| known.range.first).collect();
        let newer = self.overlapping(&route).all(|known| known.version < route.version);
        if !newer {
            return false;
        }
        for first in overlapped {
            self.routes.remove(&(route.range.table, first));
        }
        self.routes.insert((route.range.table, route.range.first), route);
        true
    }

    fn overlapping(&self, route: &Route) -> impl Iterator<Item = &Route> {
        let range = route.range;
        let before = self
            .routes
            .range(..(range.table, range.first))
            .next_back()
            .filter(|(_, known)| known.range.table == range.table)
            .filter(|(_, known)| known.range.last >= range.first)
            .map(|(_, known)| known);
        let inside = self.routes.range((range.table, range.first)..=(range.table, range.last));
        before.into_iter().chain(inside.map(|(_, known)| known))
    }

    /// All routes, by table and placement.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.values()
    }

    /// Number of partitions.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether no partition is known.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
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
        assert!(map.install(route(1, 0, 99, 1)));
        assert!(!map.install(route(1, 0, 99, 1)), "not newer");
        assert_eq!((at(&map, 0), at(&map, 99), at(&map, 100)), (Some(1), Some(1), None));
        assert_eq!(map.find(TableId(0), Placement::MIN), None);

        // A split: the right half first.
        assert!(map.install(route(2, 50, 99, 2)));
        assert_eq!((at(&map, 10), at(&map, 50)), (None, Some(2)));
        assert!(map.install(route(1, 0, 49, 2)));
        assert_eq!((at(&map, 10), at(&map, 50)), (Some(1), Some(2)));
        assert!(!map.install(route(1, 0, 99, 1)), "from before the split");
        assert_eq!(map.len(), 2);
    }
}
