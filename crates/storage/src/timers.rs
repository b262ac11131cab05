//! When each partition next needs the clock thread: a partition that is idle has no entry here, and
//! costs nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use paxos::Instant;
use wire::ids::PartitionId;

use crate::partition::Partition;

/// The time that never comes.
pub(crate) const NEVER: Instant = Instant(u64::MAX);

/// See the module's text. Each partition has one entry at most; its core knows the time of it.
#[derive(Default)]
pub(crate) struct Timers {
    due: Mutex<BTreeMap<(Instant, PartitionId), Arc<Partition>>>,
}

impl Timers {
    /// Moves a partition's entry from one time ([`NEVER`]: it has none) to another.
    pub(crate) fn set(&self, partition: &Arc<Partition>, before: Instant, at: Instant) {
        let mut due = self.due.lock();
        if before != NEVER {
            due.remove(&(before, partition.id));
        }
        if at != NEVER {
            due.insert((at, partition.id), Arc::clone(partition));
        }
    }

    /// Takes out the partitions that are due, with the times of their entries.
    pub(crate) fn take_due(&self, now: Instant) -> Vec<(Instant, Arc<Partition>)> {
        let mut due = self.due.lock();
        let mut taken = Vec::new();
        while let Some(entry) = due.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((at, _), partition) = entry.remove_entry();
            taken.push((at, partition));
        }
        taken
    }
}
