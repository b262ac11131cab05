//! What the router counts: for INFO, LATENCY HISTOGRAM and the metrics recorder.
//!
//! Threads count in different shards of [`Stats`], so no cache line is fought over; readers add the
//! shards up. A connection counts into [`Counters`] of its own while it runs a pipeline and adds them
//! once at the end. CONFIG RESETSTAT keeps what was counted until then and subtracts it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use commands::table;
use parking_lot::Mutex;
use wire::ids::CommandId;
use wire::resp::Reply;
use wire::service::ScriptCount;

/// Shards; a power of two not below the number of worker threads of a usual machine.
const SHARDS: usize = 16;
/// Buckets of a latency histogram: four to each power of two of nanoseconds, up to 2^40 (18 min).
const BUCKETS: usize = 4 * 38;
/// Most error prefixes that are counted apart. Clients cannot make more than the code has, but scripts
/// can, and then no errors are told apart until the next reset.
const ERROR_PREFIXES_MAX: usize = 128;
/// The one prefix that is shown then.
const ERRORS_NOT_COUNTED: &str = "ERRORSTATS_DISABLED";

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Plain counters of one pipeline.
        #[derive(Clone, Default, Debug)]
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: u64,)*
        }

        #[derive(Default, Debug)]
        struct AtomicCounters {
            $($name: AtomicU64,)*
        }

        impl AtomicCounters {
            fn add(&self, counters: &Counters) {
                $(if counters.$name != 0 {
                    self.$name.fetch_add(counters.$name, Relaxed);
                })*
            }

            fn add_to(&self, sum: &mut Counters) {
                $(sum.$name += self.$name.load(Relaxed);)*
            }
        }

        impl Counters {
            /// What was counted since `base`.
            fn since(&self, base: &Counters) -> Counters {
                Counters { $($name: self.$name.saturating_sub(base.$name),)* }
            }
        }
    };
}

counters! {
    /// Commands executed or refused.
    commands,
    /// Bytes read from clients.
    input_bytes,
    /// Bytes written to clients.
    output_bytes,
    /// Reads from sockets.
    reads,
    /// Writes to sockets.
    writes,
    /// Connections accepted.
    connections,
    /// Connections refused for maxclients.
    refused_connections,
    /// Error replies.
    errors,
    /// Connections closed for what they left unread.
    output_limit_disconnections,
    /// Connections closed for what they sent.
    query_limit_disconnections,
    /// Connections closed for what all of them held.
    evicted_clients,
    /// Read commands that found their key.
    keyspace_hits,
    /// Read commands that did not find their key.
    keyspace_misses,
    /// Calls routed to partitions.
    routed,
    /// Of these, those whose route was in the cache.
    cache_hits,
    /// Of these, those whose route was not.
    cache_misses,
    /// Lookups sent to MemDS: one for each routed call.
    lookups,
    /// Lookups sent because a route turned out wrong, above the one of each call.
    corrections,
    /// Calls made again: wrong node, no leader yet, storage busy.
    retries,
    /// Calls made again because a leader was lost with what it had proposed.
    repeated,
    /// Replies whose batch lost its place in the log, and that had to be taken back.
    gates_lost,
    /// Replies whose batch's fate was not known in time.
    gates_unknown,
}

impl Counters {
    /// Counts a read's keys as found or not, as far as its reply tells: nulls are keys that do not
    /// exist. (Reads that answer numbers do not tell.)
    pub(crate) fn count_lookup(&mut self, reply: &Reply) {
        match reply {
            Reply::Null => self.keyspace_misses += 1,
            Reply::Bulk(_) => self.keyspace_hits += 1,
            Reply::Bulks(items) => self.keyspace_hits += u64::from(!items.is_empty()),
            Reply::Array(items) => items.iter().for_each(|item| self.count_lookup(item)),
            _ => {}
        }
    }
}

/// Calls of one command: numbers and the distribution of their durations.
#[derive(Debug)]
struct Cell64 {
    calls: AtomicU64,
    nanoseconds: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    histogram: [AtomicU64; BUCKETS],
}

/// Calls of one command, added up.
#[derive(Clone, Debug)]
pub(crate) struct CommandStats {
    pub(crate) calls: u64,
    pub(crate) nanoseconds: u64,
    pub(crate) rejected: u64,
    pub(crate) failed: u64,
    pub(crate) histogram: Histogram,
}

/// How many durations fell in each bucket.
#[derive(Clone, Debug)]
pub(crate) struct Histogram([u64; BUCKETS]);

#[derive(Debug)]
struct Shard {
    counters: AtomicCounters,
    /// By command id; made when first called, since most commands never are.
    commands: Vec<OnceLock<Box<Cell64>>>,
}

/// Everything the router counts.
#[derive(Debug)]
pub(crate) struct Stats {
    shards: Vec<Shard>,
    errors: Mutex<BTreeMap<String, u64>>,
    base: Mutex<Base>,
    samples: Mutex<Samples>,
}

/// What storage nodes have counted since each was started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Stored {
    /// Keys deleted because their time had come.
    pub(crate) expired_keys: u64,
    /// Fields of hashes likewise.
    pub(crate) expired_fields: u64,
    /// Keys and collections that were deleted, and whose memory is given back later.
    pub(crate) freed_later: u64,
}

/// What CONFIG RESETSTAT subtracts.
#[derive(Default, Debug)]
struct Base {
    counters: Counters,
    stored: Stored,
    commands: BTreeMap<u16, CommandStats>,
}

impl Stats {
    pub(crate) fn new() -> Stats {
        let commands = table::entries().len();
        let shard = || Shard {
            counters: AtomicCounters::default(),
            commands: (0..commands).map(|_| OnceLock::new()).collect(),
        };
        Stats {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            errors: Mutex::new(BTreeMap::new()),
            base: Mutex::new(Base::default()),
            samples: Mutex::new(Samples::default()),
        }
    }

    /// Adds what a connection counted in one pipeline, and empties it.
    pub(crate) fn add(&self, tally: &mut Counters) {
        self.shards[shard_of_thread()].counters.add(tally);
        *tally = Counters::default();
    }

    /// Counts an executed command, among the others of its duration if that is tracked.
    pub(crate) fn call(&self, command: CommandId, took: Duration, tracked: bool, failed: bool) {
        let nanoseconds = took.as_nanos() as u64;
        let cell = self.shards[shard_of_thread()].cell(command);
        cell.calls.fetch_add(1, Relaxed);
        cell.nanoseconds.fetch_add(nanoseconds, Relaxed);
        if tracked {
            cell.histogram[bucket_of(nanoseconds)].fetch_add(1, Relaxed);
        }
        if failed {
            cell.failed.fetch_add(1, Relaxed);
        }
    }

    /// Counts what a script did of one command; each run is told to have taken as long as the others.
    pub(crate) fn count_of_script(&self, count: &ScriptCount, tracked: bool) {
        let ScriptCount { command, calls, failed, rejected, took } = *count;
        let cell = self.shards[shard_of_thread()].cell(command);
        let nanoseconds = took.as_nanos() as u64;
        cell.calls.fetch_add(calls, Relaxed);
        cell.nanoseconds.fetch_add(nanoseconds, Relaxed);
        if tracked && let Some(each) = nanoseconds.checked_div(calls) {
            cell.histogram[bucket_of(each)].fetch_add(calls, Relaxed);
        }
        cell.failed.fetch_add(failed, Relaxed);
        cell.rejected.fetch_add(rejected, Relaxed);
    }

    /// Counts a command that was refused before it was executed.
    pub(crate) fn reject(&self, command: CommandId) {
        self.shards[shard_of_thread()].cell(command).rejected.fetch_add(1, Relaxed);
    }

    /// Counts an error reply by its prefix.
    pub(crate) fn error(&self, line: &[u8]) {
        let prefix = line.split(|&b| b == b' ').next().unwrap_or_default();
        let prefix = String::from_utf8_lossy(prefix);
        let mut errors = self.errors.lock();
        if let Some(count) = errors.get_mut(prefix.as_ref()) {
            *count += 1;
        } else if errors.contains_key(ERRORS_NOT_COUNTED) {
            // Until the next reset.
        } else if errors.len() < ERROR_PREFIXES_MAX {
            errors.insert(prefix.into_owned(), 1);
        } else {
            let prefixes = errors.len();
            tracing::warn!(prefixes, "errors are not told apart any more: too many kinds");
            errors.clear();
            errors.insert(ERRORS_NOT_COUNTED.to_owned(), 1);
        }
    }

    /// Error replies by prefix.
    pub(crate) fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.lock().clone()
    }

    /// The counters since the last reset.
    pub(crate) fn counters(&self) -> Counters {
        self.totals().since(&self.base.lock().counters)
    }

    /// The counters since the start.
    pub(crate) fn totals(&self) -> Counters {
        let mut sum = Counters::default();
        self.shards.iter().for_each(|shard| shard.counters.add_to(&mut sum));
        sum
    }

    /// One command's calls since the last reset; `None` if there are none.
    pub(crate) fn command(&self, command: CommandId) -> Option<CommandStats> {
        let mut sum = self.command_total(command)?;
        if let Some(base) = self.base.lock().commands.get(&command.0) {
            sum.subtract(base);
        }
        (sum.calls + sum.rejected > 0).then_some(sum)
    }

    fn command_total(&self, command: CommandId) -> Option<CommandStats> {
        let at = usize::from(command.0);
        let mut cells = self.shards.iter().filter_map(|shard| shard.commands[at].get()).peekable();
        cells.peek()?;
        let mut sum = CommandStats::default();
        cells.for_each(|cell| sum.add(cell));
        Some(sum)
    }

    /// Of what storage nodes have counted, that since the last reset. (A node that was restarted began
    /// anew, so the sum may be below what it was.)
    pub(crate) fn stored(&self, total: Stored) -> Stored {
        let base = self.base.lock().stored;
        Stored {
            expired_keys: total.expired_keys.saturating_sub(base.expired_keys),
            expired_fields: total.expired_fields.saturating_sub(base.expired_fields),
            freed_later: total.freed_later.saturating_sub(base.freed_later),
        }
    }

    /// Starts counting anew (CONFIG RESETSTAT); storage nodes have counted so much.
    pub(crate) fn reset(&self, stored: Stored) {
        let mut base = self.base.lock();
        base.counters = self.totals();
        base.stored = stored;
        base.commands = table::entries()
            .iter()
            .filter_map(|entry| Some((entry.id.0, self.command_total(entry.id)?)))
            .collect();
        self.errors.lock().clear();
    }

    /// Takes a sample for the per-second figures of INFO.
    pub(crate) fn sample(&self, elapsed: Duration) {
        let totals = self.totals();
        self.samples.lock().push(elapsed, &totals);
    }

    /// Commands, bytes in and bytes out per second, over the last samples.
    pub(crate) fn rates(&self) -> (u64, f64, f64) {
        self.samples.lock().rates()
    }
}

impl Shard {
    fn cell(&self, command: CommandId) -> &Cell64 {
        self.commands[usize::from(command.0)].get_or_init(|| {
            Box::new(Cell64 {
                calls: AtomicU64::new(0),
                nanoseconds: AtomicU64::new(0),
                rejected: AtomicU64::new(0),
                failed: AtomicU64::new(0),
                histogram: std::array::from_fn(|_| AtomicU64::new(0)),
            })
        })
    }
}

/// The shard of this thread: threads take them in turn.
fn shard_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(NEXT.fetch_add(1, Relaxed) % SHARDS);
        }
        shard.get()
    })
}

/// The bucket of a duration: its two highest bits below the leading one choose among four.
fn bucket_of(nanoseconds: u64) -> usize {
    let n = nanoseconds.max(4);
    let octave = 63 - n.leading_zeros() as usize;
    let quarter = (n >> (octave - 2)) as usize & 3;
    ((octave - 2) * 4 + quarter).min(BUCKETS - 1)
}

/// The duration above all of a bucket's.
fn bucket_end(bucket: usize) -> u64 {
    let (octave, quarter) = (bucket / 4 + 2, bucket as u64 % 4);
    (4 + quarter + 1) << (octave - 2)
}

impl Default for CommandStats {
    fn default() -> CommandStats {
        CommandStats {
            calls: 0,
            nanoseconds: 0,
            rejected: 0,
            failed: 0,
            histogram: Histogram([0; BUCKETS]),
        }
    }
}

impl CommandStats {
    fn add(&mut self, cell: &Cell64) {
        self.calls += cell.calls.load(Relaxed);
        self.nanoseconds += cell.nanoseconds.load(Relaxed);
        self.rejected += cell.rejected.load(Relaxed);
        self.failed += cell.failed.load(Relaxed);
        for (sum, count) in self.histogram.0.iter_mut().zip(&cell.histogram) {
            *sum += count.load(Relaxed);
        }
    }

    fn subtract(&mut self, base: &CommandStats) {
        self.calls = self.calls.saturating_sub(base.calls);
        self.nanoseconds = self.nanoseconds.saturating_sub(base.nanoseconds);
        self.rejected = self.rejected.saturating_sub(base.rejected);
        self.failed = self.failed.saturating_sub(base.failed);
        for (sum, count) in self.histogram.0.iter_mut().zip(base.histogram.0) {
            *sum = sum.saturating_sub(count);
        }
    }
}

impl Histogram {
    /// How many durations it holds.
    pub(crate) fn calls(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Microseconds that `percent` of the durations did not exceed.
    pub(crate) fn percentile_us(&self, percent: f64) -> f64 {
        let total = self.calls();
        let wanted = (total as f64 * percent / 100.0).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.0.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                return bucket_end(bucket) as f64 / 1000.0;
            }
        }
        0.0
    }

    /// Points of the distribution as LATENCY HISTOGRAM tells it: microseconds (1,024 ns and its
    /// doubles, rounded down) with the number of durations below; only where that number grows.
    pub(crate) fn cumulative_us(&self) -> Vec<(u64, u64)> {
        let mut points: Vec<(u64, u64)> = Vec::new();
        let (mut seen, mut bucket) = (0, 0);
        for power in 10..=40 {
            let limit_ns = 1u64 << power;
            let before = seen;
            while bucket < BUCKETS && bucket_end(bucket) <= limit_ns {
                seen += self.0[bucket];
                bucket += 1;
            }
            if seen > before {
                points.push((limit_ns / 1000, seen));
            }
        }
        points
    }
}

/// Samples kept for per-second figures.
const SAMPLES: usize = 16;

#[derive(Default, Debug)]
struct Samples {
    last: Option<Counters>,
    /// Commands, bytes in, bytes out per second.
    ring: [(f64, f64, f64); SAMPLES],
    at: usize,
}

impl Samples {
    fn push(&mut self, elapsed: Duration, totals: &Counters) {
        if let Some(last) = &self.last {
            let new = totals.since(last);
            let per_second = |n: u64| n as f64 / elapsed.as_secs_f64().max(0.001);
            self.ring[self.at % SAMPLES] = (
                per_second(new.commands),
                per_second(new.input_bytes),
                per_second(new.output_bytes),
            );
            self.at += 1;
        }
        self.last = Some(totals.clone());
    }

    fn rates(&self) -> (u64, f64, f64) {
        let mean = |of: fn(&(f64, f64, f64)) -> f64| {
            self.ring.iter().map(of).sum::<f64>() / SAMPLES as f64
        };
        (mean(|s| s.0) as u64, mean(|s| s.1), mean(|s| s.2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_their_durations() {
        for n in [0, 1, 5, 7, 8, 999, 1000, 123_456, 10_000_000_000, u64::MAX] {
            let bucket = bucket_of(n);
            assert!(n < bucket_end(bucket) || bucket == BUCKETS - 1, "{n}");
            assert!(bucket == 0 || n >= bucket_end(bucket - 1), "{n}");
        }
    }

    #[test]
    fn calls_add_up_over_threads_and_reset() {
        let stats = Stats::new();
        let get = table::lookup(b"GET").expect("GET").id;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        stats.call(get, Duration::from_micros(3), true, false);
                    }
                    stats.add(&mut Counters { commands: 1000, ..Counters::default() });
                });
            }
        });
        let sum = stats.command(get).expect("called");
        assert_eq!((sum.calls, sum.nanoseconds), (4000, 12_000_000));
        assert_eq!(sum.histogram.cumulative_us(), vec![(4, 4000)]);
        assert!((3.0..4.0).contains(&sum.histogram.percentile_us(50.0)));
        assert_eq!(stats.counters().commands, 4000);
        stats.call(get, Duration::from_micros(3), false, false);
        let sum = stats.command(get).expect("called");
        assert_eq!((sum.calls, sum.histogram.calls()), (4001, 4000));
        let counted = |keys, fields, later| Stored {
            expired_keys: keys,
            expired_fields: fields,
            freed_later: later,
        };
        stats.reset(counted(3, 2, 1));
        assert_eq!(stats.stored(counted(5, 1, 5)), counted(2, 0, 4));
        assert!(stats.command(get).is_none());
        assert_eq!(stats.counters().commands, 0);
        assert_eq!(stats.totals().commands, 4000);
    }

    #[test]
    fn too_many_kinds_of_errors_are_counted_no_more() {
        let stats = Stats::new();
        (0..ERROR_PREFIXES_MAX).for_each(|n| stats.error(format!("{n} text").as_bytes()));
        stats.error(b"7 text");
        assert_eq!((stats.errors().len(), stats.errors()["7"]), (ERROR_PREFIXES_MAX, 2));
        (0..3).for_each(|n| stats.error(format!("other{n} text").as_bytes()));
        assert_eq!(stats.errors(), BTreeMap::from([(ERRORS_NOT_COUNTED.to_owned(), 1)]));
        stats.reset(Stored::default());
        stats.error(b"ERR text");
        assert_eq!(stats.errors(), BTreeMap::from([("ERR".to_owned(), 1)]));
    }
}
