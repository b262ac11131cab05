//! A partition's part in a flush: what is applied and not in fjall yet, and what is done once it is.

use std::sync::Arc;

use commands::types::keyspace::ExpiryAgenda;

use super::Core;
use crate::backlog::{Batches, MetaRow};
use crate::meta;

impl Core {
    /// Freezes the applied batches for a flush, with the rows that say how far they reach. `None`
    /// if nothing was applied since the last one.
    pub(crate) fn freeze(&mut self) -> Option<Frozen> {
        if self.is_log || self.applied.index == self.flushed_index {
            return None;
        }
        let (batches, bytes) = self.backlog.freeze();
        let rows_through = self.rows_through;
        self.frozen_index = self.applied.index;
        let mut about = vec![meta::applied_row(self.partition, &self.applied)];
        self.requests.forget(self.now_ms, self.dedup);
        if !self.requests.is_empty() {
            about.push(meta::requests_row(self.partition, &self.requests));
        }
        let through = self.applied.index;
        Some(Frozen { batches, about, through, rows_through, bytes })
    }

    /// The frozen batches are durable in fjall: forget them here.
    pub(crate) fn flushed(&mut self, through: u64) {
        self.backlog.drop_frozen();
        self.flush_epoch += 1;
        let before = std::mem::replace(&mut self.flushed_index, through);
        self.rows_through = self.rows_through.max(through);
        if let Some(resident) = &mut self.resident {
            resident.flushed(through);
            if self.applied.flushed_through.is_some_and(|fence| fence.index > before) {
                // Rows of the TTL index that a FLUSHDB hid in memory can be met again.
                self.expiry = ExpiryAgenda::UNKNOWN;
            }
        }
        self.replica.set_flushed(paxos::Index(through));
    }
}

/// What a flush writes of a partition.
pub(crate) struct Frozen {
    pub(crate) batches: Arc<Batches>,
    /// Rows about the replica itself.
    pub(crate) about: Vec<MetaRow>,
    pub(crate) through: u64,
    /// What fjall held before.
    pub(crate) rows_through: u64,
    pub(crate) bytes: u64,
}
