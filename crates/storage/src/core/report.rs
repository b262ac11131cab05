//! What a partition's core says of itself.

use commands::Counters;

use super::Core;
use crate::meta::Applied;
use crate::resident::Horizon;

impl Core {
    pub(crate) fn flush_epoch(&self) -> u64 {
        self.flush_epoch
    }

    /// How far its batches have come.
    pub(super) fn horizon(&self) -> Horizon {
        let (flushed, frozen) = (self.flushed_index, self.frozen_index);
        Horizon { flushed, frozen, applied: self.applied.index }
    }

    /// Whether memory knows a row.
    pub(crate) fn is_resident(&self, row: &[u8]) -> bool {
        self.resident.as_ref().is_some_and(|resident| resident.get(row).is_some())
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

    /// Campaigns and leaderships of this replica since its node started.
    pub(crate) fn elections(&self) -> (u64, u64) {
        (self.elections, self.leaderships)
    }
}
