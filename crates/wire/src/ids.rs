//! The names of things, as distinct types, so that one cannot be passed for another.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A table: a named keyspace with its own capacity. `SELECT 0` is table 0.
    TableId(u32)
);
id!(
    /// A partition: a contiguous range of one table's placement space, one Paxos group.
    PartitionId(u64)
);
id!(
    /// A node (process or in-process role holder) of the cluster. Never reused.
    NodeId(u32)
);
id!(
    /// A row of the command table: its position in `commands::table`. Valid inside one build only.
    CommandId(u16)
);

impl TableId {
    /// The system's own table: above all that clients can select. What every router has to know lies
    /// there (functions), in one partition.
    pub const SYSTEM: TableId = TableId(0x7fff_fff0);
}

/// What fails together: an availability zone, named by a short label (`a`, `b`, `c`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Zone(pub String);

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where in a group's log something happened: the log index of the batch and the position inside
/// it. Totally ordered along the log, the same on all replicas, never a clock, never reused.
///
/// A header row carries the version of its last write; a collection's data rows are named by the
/// version that made the collection (its *generation*).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Version {
    /// Log index of the batch.
    pub index: u64,
    /// Position inside the batch.
    pub ordinal: u32,
}
