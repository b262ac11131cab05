//! What a partition's core says of itself.

use commands::Counters;

use super::Core;
use crate::batch::Batch;
use crate::meta::Applied;

impl Core {
    pub(crate) fn flush_epoch(&self) -> u64 {
        self.flush_epoch
    }

    pub(crate) fn applied(&self) -> &Applied {
        &self.applied
    }

    pub(crate) fn flushed_index(&self) -> u64 {
        self.flushed_index
    }

    pub(crate) fn tip_counters(&self) -> Counters {
        self.tip.counters
    }

    pub(crate) fn expired_keys(&self) -> u64 {
        self.expired_keys
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The batches that are applied and not flushed.
    pub(crate) fn unflushed(&self) -> impl Iterator<Item = &(u64, Batch)> {
        self.backlog.iter()
    }

    /// Campaigns and leaderships of this replica since its node started.
    pub(crate) fn elections(&self) -> (u64, u64) {
        (self.elections, self.leaderships)
    }
}
