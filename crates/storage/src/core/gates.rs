//! What replies wait for: an index of the log, and that the group knows what time it is.

use wire::ids::Version;
use wire::service::Gate;

use super::{Core, OpenBatch, Sealer};
use crate::batch::BatchBuilder;
use crate::view::Seen;
use wire::notice::News;

impl Core {
    /// The open batch; a new one if there is none.
    pub(super) fn open_batch(&mut self) -> &mut OpenBatch {
        // Versions of the effects name the index: no configuration may come in between.
        self.replica.reserve_next();
        self.open.get_or_insert_with(|| {
            let id = self.next_batch_id;
            self.next_batch_id += 1;
            let index = self.replica.next_index().0;
            let next_version = Version { index, ordinal: 0 };
            let sealer = Sealer::None;
            // It stands on what is on its way, and must not happen without that.
            let after = self.in_flight.back().map(|batch| batch.batch);
            let (builder, news) = (BatchBuilder::new(id, after), News::default());
            OpenBatch { builder, index, next_version, writes: 0, sealer, news }
        })
    }

    /// The gate of a reply that rests on this.
    pub(super) fn gate_of(&mut self, seen: Seen) -> Option<Gate> {
        let told = match seen.unleased {
            // What is proposed from here on, chosen, says so: if with no other effect.
            true => self.open_batch().index,
            false => self.time_told(seen.hidden_ms),
        };
        self.gate_at(seen.index.max(told))
    }

    /// The proposed index by which the group knows that a time has come, so that the next leader,
    /// whose clock may be behind, hides what this one has hidden; 0 if it is applied.
    fn time_told(&mut self, time_ms: u64) -> u64 {
        if time_ms <= self.applied.now_ms {
            return 0;
        }
        let told = self.in_flight.iter().find(|batch| batch.now_ms >= time_ms);
        match told {
            Some(batch) => batch.index,
            // Stamped when it is closed, if with no other effect.
            None => self.open_batch().index,
        }
    }

    /// The gate of a reply that depends on a proposed index.
    pub(super) fn gate_at(&self, index: u64) -> Option<Gate> {
        if index <= self.applied.index || mutant!(ProposedIsRead) {
            return None;
        }
        let batch = match &self.open {
            Some(open) if open.index == index => open.builder.id(),
            _ => {
                let at = self.in_flight.binary_search_by_key(&index, |batch| batch.index);
                self.in_flight[at.expect("what is proposed is open or in flight")].batch
            }
        };
        Some(Gate { node: self.node, partition: self.partition, index, batch })
    }
}
