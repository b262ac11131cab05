//! Rows that a command needs and that are not in memory: read without the partition's lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::containment::CoreGuard;
use crate::driver::Shared;
use crate::faults::blocking;
use crate::lsm;
use crate::partition::{Clock, Partition};
use crate::view::Cold;

/// Evaluations of one command that may each find one cold row before the next one reads the disk
/// under the partition's lock.
const COLD_ROUNDS_MAX: usize = 4;
/// To have another thread serve this one's other connections meanwhile costs some 15 µs: what takes fewer
/// nanoseconds is not worth it.
const LONG_NS: u64 = 40_000;
/// One read weighs so little in the mean of the latest.
const WEIGHT_OF: u64 = 8;

/// How long reads of rows take of late: with what the system keeps of the files in its memory a read takes
/// a few microseconds, from the disk it may take a thousand times as many.
#[derive(Default, Debug)]
pub(crate) struct Pace {
    mean_ns: AtomicU64,
}

impl Pace {
    /// Reads so many rows. If that takes long, judging by the latest, others go on with what this thread was
    /// to do besides: a connection that reads the disk keeps none waiting but itself.
    fn read<T>(&self, clock: &Clock, rows: usize, work: impl FnOnce() -> T) -> T {
        let began = clock.instant();
        let mean = self.mean_ns.load(Ordering::Relaxed);
        let is_short = mean.saturating_mul(rows as u64) < LONG_NS;
        let done = if is_short { work() } else { blocking(work) };
        let took = clock.instant().saturating_duration_since(began).as_nanos() as u64;
        let each = took / rows as u64;
        // Of two that end at once one may go unnoticed.
        self.mean_ns.store(mean - mean / WEIGHT_OF + each / WEIGHT_OF, Ordering::Relaxed);
        done
    }
}

/// What evaluating one thing needed from the disk so far.
#[derive(Default)]
pub(crate) struct ColdRows {
    rounds: usize,
    /// The next evaluation may read the disk under the lock.
    pub(crate) may_block: bool,
}

impl ColdRows {
    /// Fetches what was cold, without the lock, and those of `rows` that are cold as well, so that a
    /// pipeline or a command of many cold keys is not evaluated once for each.
    pub(crate) fn fetch<'p>(
        &mut self,
        shared: &Shared,
        partition: &'p Arc<Partition>,
        (core, cold): (CoreGuard<'p>, Cold),
        rows: impl Fn() -> Vec<Bytes>,
    ) -> CoreGuard<'p> {
        assert!(!self.may_block, "a view that may block is never cold");
        let Cold::Row(row) = cold else {
            self.may_block = true;
            return core;
        };
        let mut cold = if self.rounds == 0 { rows() } else { Vec::new() };
        cold.retain(|other| {
            *other != row && other.len() <= lsm::ROW_KEY_BYTES_MAX && !core.is_resident(other)
        });
        cold.push(row);
        let epoch = core.flush_epoch();
        drop(core);
        // An error shows again, as the command's own, once the view may block.
        let read = |row: Bytes| shared.lsm.get(&row).ok().map(|value| (row, value));
        let rows = cold.len();
        let read_all = || cold.into_iter().filter_map(read).collect::<Vec<_>>();
        let fetched = shared.pace.read(&shared.clock, rows, read_all);
        self.rounds += 1;
        self.may_block = self.rounds >= COLD_ROUNDS_MAX;
        let mut core = partition.lock();
        core.fill(epoch, &fetched);
        core
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::machine::Time;

    /// Reads so many rows on the only thread for connections, and tells whether another task of it was run
    /// meanwhile.
    fn is_other_run(pace: &Arc<Pace>, rows: usize) -> bool {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        let runtime = runtime.expect("starts");
        let pace = Arc::clone(pace);
        let reads = runtime.spawn(async move {
            let (done, is_done) = mpsc::channel();
            tokio::spawn(async move { done.send(()) });
            let work = || is_done.recv_timeout(Duration::from_millis(200)).is_ok();
            pace.read(&Clock::new(Time::default()), rows, work)
        });
        runtime.block_on(reads).expect("no panic")
    }

    #[test]
    fn who_reads_the_disk_leaves_the_other_connections_to_another_thread() {
        let pace = Arc::default();
        assert!(!is_other_run(&pace, 1), "nothing is known yet");
        assert!(is_other_run(&pace, 1), "that took long");
        let clock = Clock::new(Time::default());
        (0..200).for_each(|_| pace.read(&clock, 1, || ()));
        assert!(!is_other_run(&pace, 1), "reads are quick again");
    }

    #[test]
    fn many_rows_take_long_though_each_is_quick() {
        let pace = Arc::new(Pace { mean_ns: AtomicU64::new(LONG_NS / 100) });
        assert!(is_other_run(&pace, 101));
    }
}
