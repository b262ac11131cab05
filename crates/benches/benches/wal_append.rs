//! How fast does the write-ahead log make entries durable, and how fast does it come back?
//!
//! `sync`: batches of entries of 100 bytes from eight groups, one `fdatasync` each. `append`: the
//! same without the disk's part, by far too many entries per sync. `recover`: opening a log.
//! Directories are made in the current directory's file system, not in a RAM disk.

use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use storage::wal::{self, Options, Record, Writer};
use tempfile::TempDir;

const VALUE: &[u8] = &[b'v'; 100];
const GROUPS: u64 = 8;
/// Entries of the log that is recovered.
const RECOVERED_ENTRIES: u64 = 1_000_000;
/// Entries per sync while a log is only filled.
const FILL_BATCH: u64 = 10_000;

fn open(dir: &Path) -> Writer {
    wal::open(dir, Options::default(), &|_| 0).expect("open log").0
}

fn temp_dir() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("make directory")
}

/// Appends entries `from..from + count` and truncates what is long past, as a node would.
fn append(writer: &mut Writer, from: u64, count: u64) {
    for i in from..from + count {
        let (group, index) = (i % GROUPS, i / GROUPS + 1);
        let record = Record::Accept { group, index, ballot: 1, value: Some(VALUE) };
        writer.append(record).expect("append");
        if i % 100_000 < GROUPS {
            let index = index.saturating_sub(50_000);
            writer.append(Record::Truncate { group, index }).expect("append");
        }
    }
}

fn sync(c: &mut Criterion) {
    let mut group = c.benchmark_group("wal/sync");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    for batch in [1u64, 16, 256] {
        let dir = temp_dir();
        let mut writer = open(dir.path());
        let mut next = 0;
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(batch), |b| {
            b.iter(|| {
                append(&mut writer, next, batch);
                writer.sync().expect("sync");
                next += batch;
            });
        });
    }
    group.finish();
}

fn bulk(c: &mut Criterion) {
    let dir = temp_dir();
    let mut writer = open(dir.path());
    let mut next = 0;
    let mut group = c.benchmark_group("wal/append");
    group.sample_size(10).throughput(Throughput::Elements(FILL_BATCH));
    group.bench_function(BenchmarkId::from_parameter(FILL_BATCH), |b| {
        b.iter(|| {
            append(&mut writer, next, FILL_BATCH);
            writer.sync().expect("sync");
            next += FILL_BATCH;
        });
    });
    group.finish();
}

fn recover(c: &mut Criterion) {
    let dir = temp_dir();
    let mut writer = open(dir.path());
    for from in (0..RECOVERED_ENTRIES).step_by(FILL_BATCH as usize) {
        for i in from..from + FILL_BATCH {
            let (group, index) = (i % GROUPS, i / GROUPS + 1);
            let record = Record::Accept { group, index, ballot: 1, value: Some(VALUE) };
            writer.append(record).expect("append");
        }
        writer.sync().expect("sync");
    }
    drop(writer);
    let mut group = c.benchmark_group("wal/recover");
    group.sample_size(10).throughput(Throughput::Elements(RECOVERED_ENTRIES));
    group.bench_function(BenchmarkId::from_parameter(RECOVERED_ENTRIES), |b| {
        b.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                let start = Instant::now();
                let opened = wal::open(dir.path(), Options::default(), &|_| 0).expect("open log");
                total += start.elapsed(); // closing the log is not part of it
                let entries: usize = opened.2.groups.values().map(|log| log.entries.len()).sum();
                assert_eq!(entries as u64, RECOVERED_ENTRIES);
            }
            total
        });
    });
    group.finish();
}

criterion_group!(benches, sync, bulk, recover);
criterion_main!(benches);
