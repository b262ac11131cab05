//! How fast do frozen memtables become rows on disk, and how fast are rows read back?
//!
//! `flush`: a sorted run of rows with 100-byte values, ingested durably over what is there, while
//! the compactor works. `get`: a row from the block cache, and one that is not there.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commands::rows::header_key;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use storage::lsm::{DeadSet, Lsm, Options};
use storage::row::seal_row;
use tempfile::TempDir;
use wire::ids::TableId;

const BODY: &[u8] = &[b'v'; 100];
/// Rows that the benchmark of reads reads from.
const READ_ROWS: u64 = 200_000;

fn open(dir: &Path) -> Lsm {
    let dead = Arc::new(DeadSet::new());
    Lsm::open(dir, Options::default(), dead, |_| None).expect("open rows")
}

fn temp_dir() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("make directory")
}

/// A sorted run of so many rows, other keys for each `salt`.
fn run(count: u64, salt: u64) -> Vec<(Bytes, Option<Bytes>)> {
    let mut rows: Vec<(Bytes, Option<Bytes>)> = (0..count)
        .map(|i| {
            let key = header_key(TableId(0), format!("key:{:012}", i * 7919 + salt).as_bytes());
            let sealed = seal_row(&key, BODY);
            (key, Some(sealed))
        })
        .collect();
    rows.sort();
    rows
}

fn flush(c: &mut Criterion) {
    let mut group = c.benchmark_group("flush");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    for count in [10_000u64, 100_000, 200_000] {
        let dir = temp_dir();
        let lsm = open(dir.path());
        let runs: Vec<_> = (0..4).map(|salt| run(count, salt)).collect();
        let mut turn = 0;
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                turn += 1;
                lsm.ingest(runs[turn % runs.len()].iter().cloned()).expect("ingest")
            });
        });
    }
    group.finish();
}

fn get(c: &mut Criterion) {
    let dir = temp_dir();
    let lsm = open(dir.path());
    let rows = run(READ_ROWS, 0);
    lsm.ingest(rows.iter().cloned()).expect("ingest");
    lsm.compact_all().expect("compact");
    let key = |turn: u64| &rows[(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) % READ_ROWS) as usize].0;
    for turn in 0..READ_ROWS {
        // Fills the cache.
        lsm.get(key(turn)).expect("read");
    }
    let mut group = c.benchmark_group("get");
    let mut turn = 0u64;
    group.bench_function("block_cache", |b| {
        b.iter(|| {
            turn += 1;
            black_box(lsm.get(key(turn)).expect("read"))
        });
    });
    group.bench_function("absent", |b| {
        b.iter(|| {
            turn += 1;
            let absent = header_key(TableId(0), &turn.to_be_bytes());
            black_box(lsm.get(&absent).expect("read"))
        });
    });
    group.finish();
}

criterion_group!(benches, flush, get);
criterion_main!(benches);
