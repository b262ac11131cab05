//! What must hold of the replicas at every moment, watched from outside.

use std::collections::BTreeMap;

use storage::Stepped;
use wire::ids::PartitionId;

use super::seats::Seat;
use super::world::PARTITIONS;
use crate::checks::{Violation, violation};

/// A replica, in one life of its node.
type Replica = (usize, u64, PartitionId, u32);

/// See the module's text.
#[derive(Default)]
pub(crate) struct Watch {
    /// What was applied at an index of a partition by whoever was first: batch and checksum.
    log: BTreeMap<(PartitionId, u64), (u64, u32)>,
    /// At which index a batch was applied, by its id.
    ids: BTreeMap<(PartitionId, u64), u64>,
    /// The newest time that a group knows to have come.
    told_ms: BTreeMap<PartitionId, u64>,
    /// How far each replica has come.
    applied: BTreeMap<Replica, u64>,
    /// The highest index that was applied anywhere.
    newest: BTreeMap<PartitionId, u64>,
    /// Leaderships, by partition.
    led: BTreeMap<(usize, PartitionId), bool>,
    pub(crate) leaders: u64,
    pub(crate) batches: u64,
}

impl Watch {
    /// Looks at one node.
    pub(crate) fn look(&mut self, at: usize, seat: &Seat) -> Result<(), Violation> {
        let life = seat.life();
        seat.with(|stepped| self.look_at(at, life, stepped)).unwrap_or(Ok(()))
    }

    fn look_at(&mut self, at: usize, life: u64, stepped: &Stepped) -> Result<(), Violation> {
        for seen in stepped.replicas() {
            let led = self.led.insert((at, seen.partition), seen.leads);
            self.leaders += u64::from(seen.leads && led != Some(true));
            let replica = (at, life, seen.partition, seen.identity);
            let before = self.applied.insert(replica, seen.applied).unwrap_or(0);
            if seen.applied < before {
                let text = format!("{replica:?} goes from {before} back to {}", seen.applied);
                return violation("monotone reads per follower", text);
            }
            if seen.is_storage && seen.flushed > seen.flushable {
                let text =
                    format!("{replica:?}: rows to {}, log to {}", seen.flushed, seen.flushable);
                return violation("rows outlive no log", text);
            }
            if !seen.is_storage || seen.applied == before {
                continue;
            }
            let newest = self.newest.entry(seen.partition).or_default();
            *newest = seen.applied.max(*newest);
            let told_ms = self.told_ms.entry(seen.partition).or_default();
            *told_ms = seen.told_ms.max(*told_ms);
            for (index, id, sum) in stepped.applied_after(seen.partition, before) {
                let first = *self.log.entry((seen.partition, index)).or_insert_with(|| {
                    self.batches += 1;
                    (id, sum)
                });
                if first != (id, sum) {
                    let text = format!(
                        "node {} applies {id:x} at {index} of {}, not {:x}",
                        at + 1,
                        seen.partition,
                        first.0
                    );
                    return violation("agreement", text);
                }
                let at = *self.ids.entry((seen.partition, id)).or_insert(index);
                if at != index {
                    let text = format!("{id:x} of {} is at {at} and at {index}", seen.partition);
                    return violation("batch ids never return", text);
                }
            }
        }
        Ok(())
    }

    /// At most one node may answer reads of a partition, and that one has applied what anybody has.
    pub(crate) fn leases(&self, seats: &[Seat], now: u64) -> Result<(), Violation> {
        let mut serving: BTreeMap<PartitionId, (usize, u64)> = BTreeMap::new();
        for (at, seat) in seats.iter().enumerate() {
            if seat.paused_until() > now {
                continue;
            }
            let replicas = seat.with(|stepped| stepped.replicas()).unwrap_or_default();
            for seen in replicas.into_iter().filter(|seen| seen.serves) {
                if let Some((other, _)) = serving.insert(seen.partition, (at, seen.applied)) {
                    let text = format!("{}: nodes {} and {}", seen.partition, other + 1, at + 1);
                    return violation("one lease", text);
                }
                let told_ms = self.told_ms.get(&seen.partition).copied().unwrap_or(0);
                if seen.now_ms < told_ms {
                    let text = format!(
                        "{}: node {} hides what has expired by {}, and {told_ms} was told",
                        seen.partition,
                        at + 1,
                        seen.now_ms
                    );
                    return violation("time never goes back", text);
                }
                let newest = self.newest(seen.partition);
                if seen.applied < newest {
                    let text = format!(
                        "{}: node {} may serve at {}, applied: {newest}",
                        seen.partition,
                        at + 1,
                        seen.applied
                    );
                    return violation("linearizable reads", text);
                }
            }
        }
        Ok(())
    }

    /// The same of all partitions.
    pub(crate) fn newest_of_all(&self) -> Vec<u64> {
        PARTITIONS.map(|partition| self.newest(partition)).to_vec()
    }

    /// The highest index that was applied anywhere.
    pub(crate) fn newest(&self, partition: PartitionId) -> u64 {
        self.newest.get(&partition).copied().unwrap_or(0)
    }
}
