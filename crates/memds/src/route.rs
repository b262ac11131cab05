//! A route by reference, and the key it is filed under.

use std::fmt;

use wire::ids::{NodeId, PartitionId, TableId};
use wire::placement::{PLACEMENT_BITS, Placement, PlacementRange};
use wire::service::{Route, RouteVersion};

/// Where a partition begins: `table (32 bits) | first placement (40 bits)`, one 72-bit string.
/// Ordered by table, then placement.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RouteKey(u128);

/// Bits of a [`RouteKey`].
pub const KEY_BITS: u32 = 32 + PLACEMENT_BITS;

impl RouteKey {
    /// The lowest key.
    pub const MIN: RouteKey = RouteKey(0);
    /// The highest key.
    pub const MAX: RouteKey = RouteKey((1 << KEY_BITS) - 1);

    /// The key of a position in a table's placement space.
    pub fn new(table: TableId, placement: Placement) -> RouteKey {
        RouteKey(u128::from(table.0) << PLACEMENT_BITS | u128::from(placement.get()))
    }

    /// The table.
    pub fn table(self) -> TableId {
        TableId((self.0 >> PLACEMENT_BITS) as u32)
    }

    /// The placement.
    pub fn placement(self) -> Placement {
        let low = self.0 as u64 & ((1 << PLACEMENT_BITS) - 1);
        Placement::new(low).expect("masked to the bits of a placement")
    }

    /// The key before this one, if there is one.
    pub fn before(self) -> Option<RouteKey> {
        self.0.checked_sub(1).map(RouteKey)
    }

    /// The key as a number below 2^72.
    pub(crate) fn get(self) -> u128 {
        self.0
    }

    /// The key with this number; bits above the 72nd are dropped.
    pub(crate) fn from_number(number: u128) -> RouteKey {
        RouteKey(number & RouteKey::MAX.0)
    }

    /// The bit at `position`, the most significant one being 0.
    pub(crate) fn bit(self, position: u32) -> bool {
        self.0 >> (KEY_BITS - 1 - position) & 1 == 1
    }

    /// The first position at which the two differ; [`KEY_BITS`] if they are equal.
    pub(crate) fn first_difference(self, other: RouteKey) -> u32 {
        (self.0 ^ other.0).leading_zeros() - (u128::BITS - KEY_BITS)
    }
}

/// A [`RouteKey`] in nine bytes and a word's alignment: what nodes of the tree hold.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct PackedKey {
    low: u64,
    high: u8,
}

impl From<RouteKey> for PackedKey {
    fn from(key: RouteKey) -> PackedKey {
        PackedKey { low: key.0 as u64, high: (key.0 >> 64) as u8 }
    }
}

impl From<PackedKey> for RouteKey {
    fn from(key: PackedKey) -> RouteKey {
        RouteKey(u128::from(key.high) << 64 | u128::from(key.low))
    }
}

impl fmt::Debug for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RouteKey({}/{:010x})", self.table(), self.placement().get())
    }
}

/// A [`Route`] whose members live elsewhere: in a map or in a decoded message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteRef<'a> {
    /// The partition.
    pub partition: PartitionId,
    /// What it holds.
    pub range: PlacementRange,
    /// How new this route is.
    pub version: RouteVersion,
    /// The node that leads the group, if one is known.
    pub leader: Option<NodeId>,
    /// All storage replicas, in ascending order of their ids.
    pub members: &'a [NodeId],
}

impl<'a> RouteRef<'a> {
    /// The key the route is filed under.
    pub fn key(&self) -> RouteKey {
        RouteKey::new(self.range.table, self.range.first)
    }

    /// The route with members of its own.
    pub fn to_route(&self) -> Route {
        Route {
            partition: self.partition,
            range: self.range,
            version: self.version,
            leader: self.leader,
            members: self.members.to_vec(),
        }
    }
}

impl<'a> From<&'a Route> for RouteRef<'a> {
    fn from(route: &'a Route) -> RouteRef<'a> {
        RouteRef {
            partition: route.partition,
            range: route.range,
            version: route.version,
            leader: route.leader,
            members: &route.members,
        }
    }
}
