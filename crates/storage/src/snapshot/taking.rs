//! What was fetched of a snapshot, into fjall, while the rest is still on its way.
//!
//! ```text
//! keeper   spools chunk after chunk, tells who leads to keep the log
//! taker    reads the spool as it grows, no faster than the rate allows ─▶ one run, visible to nobody
//!          the last chunk is there ─▶ the run is ended: from then on its rows count, all at once
//! ```
//!
//! A run of all rows at the end, as fast as the disk takes it, had the disk busy for seconds in which no
//! log synced. So it grows as the spool does, and little is left to do at the end. A fetch that is broken
//! off, and a crash, leave the rows that there were. One snapshot is taken in at a time: those behind it
//! wait in their spools.
//!
//! While rows are taken in no flush brings fjall the partition's older ones: they would come last, or stay
//! although the snapshot lacks them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use wire::ids::Version;

use super::spool::{Reader, Spool, SpoolError};
use super::{Head, is_within, row_ranges};
use crate::background;
use crate::driver::Shared;
use crate::flush;
use crate::keeper::{self, Job};
use crate::lsm::LsmError;
use crate::meta;
use crate::partition::Partition;

/// How often the thread looks around if nothing is to be taken in.
const TICK: Duration = Duration::from_millis(500);

/// Why rows were not taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    /// What was fetched cannot be read back.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The rows here cannot be read, or new ones not be written.
    #[error(transparent)]
    Lsm(#[from] LsmError),
}

impl TakeError {
    /// Whether there was no file descriptor for it: nothing has changed, and it may work later.
    pub(super) fn is_exhausted(&self) -> bool {
        match self {
            TakeError::Spool(SpoolError::Io(error)) => crate::is_exhausted(error),
            TakeError::Lsm(LsmError::Exhausted(_)) => true,
            TakeError::Spool(_) | TakeError::Lsm(_) => false,
        }
    }
}

/// A snapshot that fjall takes in. Made by the keeper, worked on by the taker.
pub(crate) struct Taking {
    partition: Arc<Partition>,
    head: Head,
    spool: Reader,
    stage: Mutex<Stage>,
    ended: Condvar,
}

enum Stage {
    /// In line.
    Waits,
    /// Flushes pass over the partition.
    Begun,
    /// Somebody writes rows.
    Works,
    Ended(Result<(), TakeError>),
    /// The outcome is known, or of no interest any more.
    Over,
}

/// The thread.
pub(crate) fn run(shared: &Shared) {
    while !shared.is_stopping() {
        let Some(taking) = shared.taker.pop(TICK) else { continue };
        shared.faults.checkpoint();
        match taking.flush(shared) {
            Ok(()) => {
                taking.begin(shared);
                taking.finish(shared);
            }
            Err(error) => taking.end_with(shared, Err(error.into())),
        }
    }
}

impl Taking {
    /// Has the taker take in what there is, and will be, in a spool; `None` if it does not know yet how
    /// far the snapshot reaches.
    pub(super) fn order(
        shared: &Shared,
        partition: &Arc<Partition>,
        spool: &Spool,
    ) -> Option<Arc<Taking>> {
        let taking = Arc::new(Taking {
            partition: Arc::clone(partition),
            head: spool.head.clone()?,
            spool: spool.reader(),
            stage: Mutex::new(Stage::Waits),
            ended: Condvar::new(),
        });
        shared.taker.push(Arc::clone(&taking), usize::MAX);
        Some(taking)
    }

    /// Brings in what memory holds of the partition: it could not be flushed for long, and counts against
    /// the budget of all.
    fn flush(&self, shared: &Shared) -> Result<(), LsmError> {
        let is_flushed = {
            let core = self.partition.look();
            core.flushed_index() == core.applied().index
        };
        if is_flushed { Ok(()) } else { flush::flush(shared) }
    }

    /// Has flushes pass over the partition from now on.
    pub(crate) fn begin(&self, shared: &Shared) {
        // What is being flushed is older than the snapshot, and must not come after it.
        let _no_flush = shared.flushing.lock();
        let mut stage = self.stage.lock();
        if matches!(*stage, Stage::Waits) {
            *stage = Stage::Begun;
            self.partition.set_replacing(true);
        }
    }

    /// Whether [`Taking::finish`] would have to wait for nothing.
    pub(crate) fn is_ready(&self) -> bool {
        self.spool.is_ready()
    }

    /// Brings the rows in, in the place of the partition's, and has the replica go on from there. Waits
    /// for those that are still to come. Flushes of the node's other partitions go on meanwhile.
    pub(crate) fn finish(&self, shared: &Shared) {
        {
            let mut stage = self.stage.lock();
            if !matches!(*stage, Stage::Begun) {
                return;
            }
            *stage = Stage::Works;
        }
        let _working = Working(self);
        let outcome = self.install(shared);
        self.end_with(shared, outcome);
    }

    fn end_with(&self, shared: &Shared, outcome: Result<(), TakeError>) {
        let mut stage = self.stage.lock();
        if !matches!(*stage, Stage::Over) {
            *stage = Stage::Ended(outcome);
        }
        drop(stage);
        self.ended.notify_all();
        keeper::ask(shared, Job::Took);
    }

    /// What came of it, once it has ended: told once.
    pub(super) fn outcome(&self) -> Option<Result<(), TakeError>> {
        let mut stage = self.stage.lock();
        if !matches!(*stage, Stage::Ended(_)) {
            return None;
        }
        match std::mem::replace(&mut *stage, Stage::Over) {
            Stage::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// Whether rows are being written.
    pub(super) fn is_worked_on(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Works)
    }

    /// Has it end soon, as broken off unless it was done already.
    pub(super) fn break_off(&self) {
        self.spool.break_off();
    }

    /// Ends it, whatever has come of it; returns once nobody works on it.
    pub(super) fn end(&self, shared: &Shared) {
        self.break_off();
        let mut stage = self.stage.lock();
        while matches!(*stage, Stage::Works) {
            self.ended.wait(&mut stage);
        }
        let before = std::mem::replace(&mut *stage, Stage::Over);
        drop(stage);
        if matches!(before, Stage::Begun) {
            let _no_flush = shared.flushing.lock();
            self.partition.set_replacing(false);
        }
    }

    fn install(&self, shared: &Shared) -> Result<(), TakeError> {
        let (partition, Head { applied, requests, config }) = (&self.partition, self.head.clone());
        let (started, index) = (shared.clock.instant(), applied.index);
        // What came through the log meanwhile is newer, and on disk already.
        let is_old = partition.look().flushed_index() >= index;
        let replaced = if is_old { Ok(None) } else { self.replace(shared).map(Some) };
        let _no_flush = shared.flushing.lock();
        partition.set_replacing(false);
        let Some((rows, generations)) = replaced? else {
            let now = shared.now();
            shared.with(partition, |core, _| core.installed((applied, requests), config, now));
            return Ok(());
        };
        shared.dead.clear(partition.range);
        if let Some(fence) = applied.flushed_through {
            shared.dead.set_fence(partition.range, fence);
        }
        shared.dead.add_generations(partition.range, generations);
        let now = shared.now();
        let dropped =
            shared.with(partition, |core, _| core.installed((applied, requests), config, now));
        shared.memory_bytes.fetch_sub(dropped, Ordering::Relaxed);
        shared.counts.snapshots_installed.fetch_add(1, Ordering::Relaxed);
        let took = shared.clock.instant() - started;
        let (node, partition, bytes) = (shared.id.0, partition.id.0, self.spool.bytes());
        tracing::info!(node, partition, index, rows, bytes, ?took, "snapshot installed");
        Ok(())
    }

    /// Puts the rows of the spool in the place of the partition's. Returns how many there are, and which
    /// generations they say are dead.
    fn replace(&self, shared: &Shared) -> Result<(u64, Vec<Version>), TakeError> {
        let (partition, Head { applied, requests, config }) = (&self.partition, &self.head);
        let options = &shared.options;
        // In a simulation all of it is there.
        let limit = (!options.machine.is_simulated()).then(|| shared.clock.clone());
        let limit = limit.map(|clock| (options.snapshot_rate, clock));
        let mut generations = Vec::new();
        let rows = self.spool.rows(limit).map_err(SpoolError::from)?;
        let rows = rows.map(|row| {
            if let Ok((row, _)) = &row
                && let Some(generation) = meta::generation_of(partition.id, row)
            {
                generations.push(generation);
            }
            row.map_err(TakeError::from)
        });
        let rows = background::run(|| {
            let says = [
                meta::applied_row(partition.id, applied),
                meta::members_row(partition.id, config),
                meta::requests_row(partition.id, requests),
            ];
            let says = says.map(|(row, sealed)| (row, Some(sealed)));
            let ranges = row_ranges(partition.id, partition.range);
            let keeps = |row: &[u8]| !is_within(partition.range, row);
            shared.lsm.replace(&ranges, &keeps, rows, &says)
        })?;
        Ok((rows, generations))
    }
}

/// Somebody works on it. After a panic nobody need wait for the outcome.
struct Working<'a>(&'a Taking);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let mut stage = self.0.stage.lock();
        if matches!(*stage, Stage::Works) {
            *stage = Stage::Over;
        }
        drop(stage);
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Instant;

    use bytes::{Bytes, BytesMut};
    use commands::rows;
    use wire::ids::TableId;

    use super::super::take::spool_path;
    use super::super::{put_head, put_row};
    use super::*;
    use crate::alone::Alone;
    use crate::machine::Disk;
    use crate::message::Chunk;
    use crate::meta::Applied;
    use crate::node::NodeOptions;
    use crate::row::seal_row;

    /// The log index that a snapshot reaches.
    pub(crate) const INDEX: u64 = 7;

    /// A spool with nothing in it.
    pub(crate) fn spool(disk: &Disk, alone: &Alone) -> Spool {
        let (shared, partition) = (alone.shared(), alone.partition());
        let path = spool_path(shared, &partition);
        Spool::create(disk, &path, partition.identity, 1).expect("a spool")
    }

    /// A part of a snapshot: the header rows of keys, in any order.
    pub(crate) fn chunk(alone: &Alone, number: u32, keys: &[&str], last: bool) -> Chunk {
        let partition = alone.partition();
        let mut bytes = BytesMut::new();
        if number == 0 {
            let config = partition.look().replica.config().clone();
            let applied = Applied { index: INDEX, ..Applied::default() };
            put_head(&mut bytes, &Head { applied, requests: Default::default(), config });
        }
        let mut rows: Vec<_> = keys.iter().map(|key| row(key)).collect();
        rows.sort();
        for row in rows {
            put_row(&mut bytes, &row, &seal_row(&row, b"new"));
        }
        let (bytes, identity) = (bytes.freeze(), partition.identity);
        let crc = crc32c::crc32c(&bytes);
        Chunk { identity, session: 1, number, last, crc, bytes }
    }

    fn row(key: &str) -> Bytes {
        rows::header_key(TableId(0), key.as_bytes())
    }

    /// Two keys, the one whose row comes first first.
    fn two_keys() -> [&'static str; 2] {
        let mut keys = ["a", "b"];
        keys.sort_by_key(|key| row(key));
        keys
    }

    fn put_old(alone: &Alone, key: &str) {
        let sealed = seal_row(&row(key), b"old");
        alone.shared().lsm.ingest([(row(key), Some(sealed))].into_iter()).expect("a run");
    }

    fn get(alone: &Alone, key: &str) -> Option<Bytes> {
        alone.shared().lsm.get(&row(key)).expect("it can be read")
    }

    #[test]
    fn rows_count_all_at_once_when_the_last_came() {
        let alone = Alone::unheard(NodeOptions::default());
        let (shared, partition) = (alone.shared(), alone.partition());
        let [first, second] = two_keys();
        put_old(&alone, first);
        put_old(&alone, "gone");
        let mut spool = spool(&Disk::System, &alone);
        spool.push(&chunk(&alone, 0, &[first], false)).expect("a chunk");
        let taking = Taking::order(shared, &partition, &spool).expect("there is a head");
        alone.until("rows are written", || taking.is_worked_on());
        assert!(partition.is_replacing() && taking.outcome().is_none());
        let old = Some(Bytes::from_static(b"old"));
        assert_eq!((get(&alone, first), get(&alone, second)), (old.clone(), None));
        assert_eq!((get(&alone, "gone"), partition.look().applied().index), (old, 0));
        spool.push(&chunk(&alone, 1, &[second], true)).expect("a chunk");
        let mut outcome = None;
        alone.until("it ends", || {
            outcome = taking.outcome();
            outcome.is_some()
        });
        outcome.expect("it ended").expect("nothing is wrong with it");
        let new = Some(Bytes::from_static(b"new"));
        assert_eq!((get(&alone, first), get(&alone, second)), (new.clone(), new));
        assert_eq!((get(&alone, "gone"), partition.look().applied().index), (None, INDEX));
        assert!(!partition.is_replacing());
    }

    #[test]
    fn what_is_broken_off_leaves_the_old_rows() {
        let alone = Alone::unheard(NodeOptions::default());
        let (shared, partition) = (alone.shared(), alone.partition());
        let [first, second] = two_keys();
        put_old(&alone, first);
        let mut spool = spool(&Disk::System, &alone);
        spool.push(&chunk(&alone, 0, &[first], false)).expect("a chunk");
        let taking = Taking::order(shared, &partition, &spool).expect("there is a head");
        // Another waits behind it.
        let behind = Taking::order(shared, &partition, &spool).expect("there is a head");
        alone.until("rows are written", || taking.is_worked_on());
        behind.end(shared);
        taking.end(shared);
        assert!(!partition.is_replacing() && taking.outcome().is_none());
        spool.push(&chunk(&alone, 1, &[second], true)).expect("a chunk");
        assert_eq!(get(&alone, first), Some(Bytes::from_static(b"old")));
        assert_eq!((get(&alone, second), partition.look().applied().index), (None, 0));
    }

    #[test]
    fn rows_are_written_no_faster_than_they_may_be_fetched() {
        let alone =
            Alone::unheard(NodeOptions { snapshot_rate: 1 << 10, ..NodeOptions::default() });
        let mut spool = spool(&Disk::System, &alone);
        let keys: Vec<_> = (0..8).map(|key| format!("key {key}")).collect();
        let mut keys: Vec<_> = keys.iter().map(String::as_str).collect();
        keys.sort_by_key(|key| row(key));
        for (number, key) in (0..).zip(&keys) {
            spool.push(&chunk(&alone, number, &[key], number == 7)).expect("a chunk");
        }
        let (began, bytes) = (Instant::now(), spool.reader().bytes());
        let taking = Taking::order(alone.shared(), &alone.partition(), &spool);
        let taking = taking.expect("there is a head");
        alone.until("it ends", || taking.outcome().is_some_and(|outcome| outcome.is_ok()));
        // For what comes with the last chunk nothing has to wait, and the file has heads.
        let at_least = Duration::from_secs_f64((bytes / 2) as f64 / 1024.0);
        assert!(began.elapsed() > at_least, "{:?} for {bytes} bytes", began.elapsed());
    }

    #[test]
    fn a_snapshot_older_than_the_rows_changes_nothing() {
        let alone = Alone::open(NodeOptions::default());
        for _ in 0..INDEX {
            alone.run(&["SET", "k", "v"]).expect("it leads");
        }
        alone.node.flush().expect("a flush");
        let (shared, partition) = (alone.shared(), alone.partition());
        let flushed = partition.look().flushed_index();
        let before = get(&alone, "k");
        assert!(before.is_some() && flushed >= INDEX);
        let mut spool = spool(&Disk::System, &alone);
        spool.push(&chunk(&alone, 0, &["other"], true)).expect("a chunk");
        let taking = Taking::order(shared, &partition, &spool).expect("there is a head");
        alone.until("it ends", || taking.outcome().is_some_and(|outcome| outcome.is_ok()));
        assert_eq!((get(&alone, "k"), get(&alone, "other")), (before, None));
        let row = shared.lsm.get(&meta::applied_key(partition.id)).expect("it can be read");
        let row = meta::decode_applied(row.expect("it is there")).expect("an applied row");
        assert_eq!(row.index, flushed);
    }
}
