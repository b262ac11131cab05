//! What a partition's core says of itself.

use std::sync::Arc;

use commands::Counters;
use wire::service::Call;

use super::Core;
use crate::ahead;
use crate::batch::Batch;
use crate::meta::Applied;
use crate::requests::Requests;
use crate::resident::{Horizon, Resident};

impl Core {
    pub(crate) fn flush_epoch(&self) -> u64 {
        self.flush_epoch
    }

    /// How far its batches have come.
    pub(super) fn horizon(&self) -> Horizon {
        let (flushed, frozen) = (self.flushed_index, self.frozen_index);
        Horizon { flushed, frozen, applied: self.applied.index }
    }

    /// Memory for rows, before anything is put there.
    pub(super) fn empty_resident(&self) -> Resident {
        Resident::new(self.range, Arc::clone(&self.budget), self.flushed_index)
    }

    /// Touches what calls with keys at these positions will look up; see [`crate::ahead`].
    pub(crate) fn touch(&self, positions: &[u64], calls: &[Call<'_>]) {
        if let Some(resident) = self.resident.as_ref().filter(|_| !positions.is_empty()) {
            resident.touch(positions);
            resident.touch_rows(&ahead::element_rows(resident, calls));
        }
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

    pub(crate) fn expired_fields(&self) -> u64 {
        self.expired_fields
    }

    pub(crate) fn freed_later(&self) -> u64 {
        self.freed_later
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The batches that are applied and not flushed.
    pub(crate) fn unflushed(&self) -> impl Iterator<Item = &(u64, Batch)> {
        self.backlog.iter()
    }

    /// The time by which it hides what has expired, in ms since the epoch.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// What it knows of requests that may be made again.
    pub(crate) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Campaigns and leaderships of this replica since its node started.
    pub(crate) fn elections(&self) -> (u64, u64) {
        (self.elections, self.leaderships)
    }
}
