//! The flush thread: backlogs into fjall, and the dead out of it.
//!
//! ```text
//! freeze all backlogs ─▶ wait until the log holds what they came from ─▶ one sorted run
//! dropped in it       a generation that came since the last flush leaves no row at all; an older one
//!                     is named by a dead row, and dead from then on ([`DeadSet`])
//! many are dead       all tables are rewritten without their rows, in the background; the next run
//!                     deletes the dead rows of before, and the set forgets them
//! ```
//!
//! [`DeadSet`]: crate::lsm::DeadSet

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use commands::Direction;
use wire::ids::{PartitionId, Version};
use wire::placement::PlacementRange;

use crate::background;
use crate::backlog::Run;
use crate::core::Frozen;
use crate::driver::Shared;
use crate::lsm::{Lsm, LsmError};
use crate::meta;
use crate::partition::Partition;

/// How often the flush thread looks at the memtables if nobody wakes it.
const FLUSH_CHECK: Duration = Duration::from_millis(200);
/// How often a flush looks whether the log has caught up with what it is to write.
const FLUSHABLE_CHECK: Duration = Duration::from_millis(1);
/// How soon a flush is tried again for which there was no file descriptor.
const EXHAUSTED_CHECK: Duration = Duration::from_millis(50);
/// Bytes on disk for each dead generation before all is rewritten because of them: one has a kilobyte
/// at least, so that what is rewritten is no more than sixteen times what is won.
const BYTES_PER_DEAD: u64 = 16 << 10;
/// Dead generations at most, whatever is on disk: each takes some 40 bytes of memory.
const DEAD_MAX: u64 = 4_000_000;

/// All tables are being rewritten, without what was dead when that began.
pub(crate) struct Sweep {
    /// What the LSM calls it.
    number: u64,
    /// The dead of then, as far as fjall knew.
    dead: Vec<(PartitionId, PlacementRange, Vec<Version>)>,
    /// [`crate::lsm::DeadSet::clears`] of then.
    clears: u64,
}

/// The thread: writes frozen rows to fjall when the memtables reach their budget.
pub(crate) fn run(shared: &Shared) {
    loop {
        {
            let mut due = shared.flush_due.lock();
            while !*due && !shared.is_stopping() {
                shared.flush_ready.wait_for(&mut due, FLUSH_CHECK);
            }
            *due = false;
        }
        shared.faults.checkpoint();
        if shared.is_stopping() {
            return;
        }
        if let Err(error) = flush(shared) {
            tracing::error!(node = shared.id.0, %error, "flush failed, node stops");
            shared.stop();
            return;
        }
    }
}

/// Freezes all partitions' memtables and writes them to fjall as one sorted run. Whoever calls this
/// while another flush is under way waits for it first.
pub(crate) fn flush(shared: &Shared) -> Result<(), LsmError> {
    let _one_at_a_time = shared.flushing.lock();
    let frozen = freeze(shared);
    if frozen.is_empty() || !wait_flushable(shared, &frozen) {
        return Ok(());
    }
    bring_in(shared, &frozen)
}

/// Frozen memtables, each with its partition.
pub(crate) type FrozenParts = Vec<(Arc<Partition>, Frozen)>;

/// Freezes all partitions' memtables. The caller holds `flushing` until they are brought in.
pub(crate) fn freeze(shared: &Shared) -> FrozenParts {
    let mut frozen = Vec::new();
    let partitions = shared.all_partitions();
    for partition in partitions.into_iter().filter(|partition| !partition.is_replacing()) {
        if let Some(part) = shared.with(&partition, |core, _| core.freeze()) {
            frozen.push((partition, part));
        }
    }
    frozen
}

/// Writes what is frozen to fjall.
pub(crate) fn bring_in(shared: &Shared, frozen: &FrozenParts) -> Result<(), LsmError> {
    let started = shared.clock.instant();
    let swept = swept(shared);
    let Some((rows, dead)) = ingest_patiently(shared, frozen, &swept)? else { return Ok(()) };
    for (partition, frozen) in frozen {
        shared.with(partition, |core, _| core.flushed(frozen.through));
    }
    for (range, generations) in dead {
        shared.dead.add_generations(range, generations);
    }
    for (_, range, generations) in swept {
        shared.dead.remove_generations(range, generations);
    }
    let bytes = frozen.iter().map(|(_, frozen)| frozen.bytes).sum();
    shared.memory_bytes.fetch_sub(bytes, Ordering::Relaxed);
    let took = shared.clock.instant() - started;
    tracing::info!(node = shared.id.0, rows, bytes, ?took, "flushed");
    match begin_sweep(shared) {
        // The next flush asks again.
        Err(LsmError::Exhausted(_)) => Ok(()),
        begun => begun,
    }
}

/// Whether this node's log holds durably what the frozen rows came from: fjall must not outlive the
/// log's tail.
pub(crate) fn is_flushable(frozen: &FrozenParts) -> bool {
    let is_held = |(partition, frozen): &(Arc<Partition>, Frozen)| {
        partition.look().replica.flushable().0 >= frozen.through
    };
    frozen.iter().all(is_held) || mutant!(RowsAheadOfLog)
}

/// Waits until that is so. False if the node stops first.
fn wait_flushable(shared: &Shared, frozen: &FrozenParts) -> bool {
    while !is_flushable(frozen) {
        if shared.is_stopping() {
            return false;
        }
        std::thread::sleep(FLUSHABLE_CHECK);
    }
    true
}

/// Writes frozen batches, however long there is no file descriptor for their table: writers are slowed
/// meanwhile, as by a slow disk. `None` if the node stops first.
fn ingest_patiently(
    shared: &Shared,
    frozen: &FrozenParts,
    swept: &[(PartitionId, PlacementRange, Vec<Version>)],
) -> Result<Option<(u64, Vec<Dead>)>, LsmError> {
    let mut is_told = false;
    loop {
        match background::run(|| ingest(&shared.lsm, frozen, swept)) {
            Err(error @ LsmError::Exhausted(_)) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(node = shared.id.0, %error, "a flush waits");
                }
                if shared.is_stopping() {
                    return Ok(None);
                }
                std::thread::sleep(EXHAUSTED_CHECK);
            }
            done => return done.map(Some),
        }
    }
}

/// Generations of a partition's range.
type Dead = (PlacementRange, Vec<Version>);

/// Writes frozen batches as one sorted run, with the rows that say how far they reach, and without
/// those that name what a sweep has removed. Returns the number of rows, and what is dead from now on.
fn ingest(
    lsm: &Lsm,
    frozen: &[(Arc<Partition>, Frozen)],
    swept: &[(PartitionId, PlacementRange, Vec<Version>)],
) -> Result<(u64, Vec<Dead>), LsmError> {
    let malformed = |error: crate::BatchError| LsmError::Damaged(error.to_string());
    let (mut run, mut dead) = (Run::default(), Vec::new());
    let mut gone: Vec<Bytes> = Vec::new();
    let mut meta = Vec::new();
    for (partition, generations) in swept.iter().map(|(id, _, generations)| (*id, generations)) {
        gone.extend(generations.iter().map(|g| meta::dead_row(partition, *g).0));
    }
    for (partition, frozen) in frozen {
        let dropped = run.add(&frozen.batches).map_err(malformed)?;
        // Of newer ones fjall never had a row, and never will.
        let had = |generation: &Version| generation.index <= frozen.rows_through;
        let dropped: Vec<_> = dropped.into_iter().filter(had).collect();
        meta.extend(frozen.about.iter().cloned());
        meta.extend(dropped.iter().map(|generation| meta::dead_row(partition.id, *generation)));
        dead.push((partition.range, dropped));
    }
    for row in &gone {
        run.add_row(row, None);
    }
    for (row, sealed) in &meta {
        run.add_row(row, Some(sealed));
    }
    let is_absent = |row: &[u8]| matches!(lsm.get(row), Ok(None));
    Ok((lsm.ingest(run.sorted(is_absent).into_iter())?, dead))
}

/// Whether other rows are on their way into fjall in place of some partition's: what is dead there is
/// about to change.
fn is_replacing(shared: &Shared) -> bool {
    shared.partitions.read().values().any(|partition| partition.is_replacing())
}

/// What a sweep that has ended removed: nothing names it any more.
fn swept(shared: &Shared) -> Vec<(PartitionId, PlacementRange, Vec<Version>)> {
    if is_replacing(shared) {
        return Vec::new(); // The next flush asks again.
    }
    let mut sweep = shared.sweep.lock();
    let ended = sweep.take_if(|sweep| shared.lsm.is_swept(sweep.number));
    // A snapshot that came meanwhile may have brought rows of theirs, and names them again.
    ended
        .filter(|sweep| sweep.clears == shared.dead.clears())
        .map_or(Vec::new(), |sweep| sweep.dead)
}

/// Has all tables rewritten if enough is dead. Called by who flushes.
fn begin_sweep(shared: &Shared) -> Result<(), LsmError> {
    let mut sweep = shared.sweep.lock();
    let by_size = (shared.lsm.stats().disk_bytes / BYTES_PER_DEAD).min(DEAD_MAX);
    let limit = by_size.max(shared.options.dead_generations);
    let generations = shared.dead.generations() as u64;
    if sweep.is_some() || generations < limit || is_replacing(shared) {
        return Ok(());
    }
    let clears = shared.dead.clears();
    let mut dead = Vec::new();
    for partition in shared.all_partitions() {
        let (from, to) = meta::dead_range(partition.id);
        let mut named = Vec::new();
        shared.lsm.scan(&from, &to, Direction::Forward, &mut |row, _| {
            named.extend(meta::decode_dead(&row));
            ControlFlow::Continue(())
        })?;
        dead.push((partition.id, partition.range, named));
    }
    tracing::info!(node = shared.id.0, generations, "rewrites all tables without what is dead");
    *sweep = Some(Sweep { number: shared.lsm.begin_sweep(), dead, clears });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::{Alone, PARTITION};
    use crate::node::NodeOptions;

    /// Makes a list that is too large to stand in its header.
    fn push(alone: &Alone, key: &str) {
        let elements: Vec<_> = (0..70).map(|i| format!("element {i}")).collect();
        let words = ["RPUSH", key].into_iter().chain(elements.iter().map(String::as_str));
        alone.run(&words.collect::<Vec<_>>()).expect("it leads");
    }

    /// Rows of collections, and rows that name dead ones, in fjall.
    fn rows(alone: &Alone) -> (usize, usize) {
        let count = |(from, to): (Bytes, Bytes), counts: &dyn Fn(&[u8]) -> bool| {
            let mut rows = 0;
            let scanned = alone.shared().lsm.scan(&from, &to, Direction::Forward, &mut |row, _| {
                rows += usize::from(counts(&row));
                ControlFlow::Continue(())
            });
            scanned.expect("it can be read");
            rows
        };
        let is_data = |row: &[u8]| {
            matches!(commands::rows::parse(row), Some(commands::rows::RowKind::Data { .. }))
        };
        let range = alone.partition().range;
        let ranges = crate::snapshot::row_ranges(PARTITION, range);
        (count(ranges[0].clone(), &is_data), count(meta::dead_range(PARTITION), &|_| true))
    }

    #[test]
    fn what_comes_and_goes_between_two_flushes_leaves_nothing() {
        let alone = Alone::open(NodeOptions::default());
        push(&alone, "old");
        push(&alone, "stays");
        alone.node.flush().expect("a flush");
        let (before, _) = rows(&alone);
        for i in 0..50 {
            push(&alone, "new");
            alone.run(&["DEL", "new"]).expect("it leads");
            push(&alone, &format!("later:{i}"));
        }
        alone.run(&["DEL", "old"]).expect("it leads");
        alone.node.flush().expect("a flush");
        assert_eq!(alone.shared().dead.generations(), 1, "only the old one was ever on disk");
        let (data, named) = rows(&alone);
        assert_eq!((data, named), (before / 2 * 52, 1));
        for i in 0..50 {
            alone.run(&["DEL", &format!("later:{i}")]).expect("it leads");
        }
        alone.node.flush().expect("a flush");
        assert_eq!(alone.shared().dead.generations(), 51);
    }

    #[test]
    fn the_dead_are_forgotten_once_their_rows_are_gone() {
        let alone = Alone::open(NodeOptions { dead_generations: 20, ..NodeOptions::default() });
        push(&alone, "stays");
        alone.node.flush().expect("a flush");
        let (one, _) = rows(&alone);
        let mut most = 0;
        for round in 0..40 {
            for key in ["a", "b", "c"] {
                alone.run(&["DEL", key]).expect("it leads");
                push(&alone, key);
            }
            alone.node.flush().expect("a flush");
            most = most.max(alone.shared().dead.generations());
            if round % 10 == 9 {
                alone.until("the sweep ends", || {
                    let sweep = alone.shared().sweep.lock();
                    sweep.as_ref().is_none_or(|sweep| alone.shared().lsm.is_swept(sweep.number))
                });
            }
        }
        assert!((20..60).contains(&most), "{most} at most");
        // The last of them.
        alone.run(&["SET", "k", "v"]).expect("it leads");
        alone.node.flush().expect("a flush");
        let (left, (data, named)) = (alone.shared().dead.generations(), rows(&alone));
        assert_eq!(left, named, "what the set names is named on disk");
        assert!(left < 30, "{left} are left");
        assert!(data <= one * (4 + left), "{data} rows of {one} each");
        assert_eq!(alone.run(&["LLEN", "a"]), Some(wire::resp::Reply::Integer(70)));
        assert_eq!(alone.run(&["LLEN", "stays"]), Some(wire::resp::Reply::Integer(70)));
        // FLUSHDB is named once, whatever it sweeps away.
        alone.run(&["FLUSHDB"]).expect("it leads");
        assert_eq!(alone.shared().dead.generations(), 0);
    }
}
