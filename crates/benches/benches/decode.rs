//! Question: is a decoder of our own for requests worth its lines? Each case decodes the same
//! pipeline of command arrays with `wire::resp::Decoder` and with `redis-protocol`'s zero-copy
//! decoder, in one run, and prints how many times as long the latter takes. Answer so far: yes,
//! 2.0 to 3.3 times as long (53 against 176 ns for a GET), whether a pipeline comes in one read or
//! cut as TCP cuts it. A value of many reads costs both about the same: copying it is all there is.

use std::cell::Cell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use wire::resp::Decoder;

fn frame(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend(format!("${}\r\n", arg.len()).bytes());
        bytes.extend_from_slice(arg);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// Runs one side and returns its best nanoseconds per round. What is read after decoding has begun
/// is on the clock: so is a read buffer's growth.
fn side(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    reads: &[&[u8]],
    commands: usize,
    mut decode: impl FnMut(&mut BytesMut) -> bool,
) -> f64 {
    let best = Cell::new(f64::INFINITY);
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            // As a connection does it: one buffer, refilled once everything in it was handled.
            let mut buffer = BytesMut::with_capacity(64 * 1024);
            for _ in 0..rounds {
                buffer.extend_from_slice(reads[0]);
                let start = Instant::now();
                let mut decoded = 0;
                for (at, read) in reads.iter().enumerate() {
                    if at > 0 {
                        buffer.extend_from_slice(read);
                    }
                    while decode(&mut buffer) {
                        decoded += 1;
                    }
                }
                spent += start.elapsed();
                assert_eq!(decoded, commands);
            }
            best.set(best.get().min(spent.as_nanos() as f64 / rounds as f64));
            spent
        });
    });
    best.get()
}

/// The pipeline in one read.
fn compare(criterion: &mut Criterion, name: &str, command: &[&[u8]], commands: usize) {
    compare_reads(criterion, name, command, commands, usize::MAX);
}

/// The pipeline in reads of at most so many bytes.
fn compare_reads(
    criterion: &mut Criterion,
    name: &str,
    command: &[&[u8]],
    commands: usize,
    read_bytes: usize,
) {
    let input = frame(command).repeat(commands);
    let reads: Vec<&[u8]> = input.chunks(read_bytes).collect();
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(commands as u64));
    let mut decoder = Decoder::default();
    let ours = side(&mut group, "wire", &reads, commands, |buffer| {
        black_box(decoder.decode(buffer).expect("valid")).is_some()
    });
    let theirs = side(&mut group, "redis-protocol", &reads, commands, |buffer| {
        let frame = redis_protocol::resp2::decode::decode_bytes_mut(buffer).expect("valid");
        black_box(frame).is_some()
    });
    group.finish();
    println!(
        "{name}: wire {:.1} ns, redis-protocol {:.1} ns a command: ratio {:.2}\n",
        ours / commands as f64,
        theirs / commands as f64,
        theirs / ours
    );
}

fn decode(criterion: &mut Criterion) {
    let value = [b'v'; 100];
    compare(criterion, "decode/get_x50", &[b"GET", b"user:1000:name"], 50);
    compare(criterion, "decode/set100_x50", &[b"SET", b"user:1000:name", &value], 50);
    compare(criterion, "decode/set100_x1", &[b"SET", b"user:1000:name", &value], 1);
    let args: Vec<&[u8]> = std::iter::once(&b"MSET"[..]).chain([&value[..10]; 100]).collect();
    compare(criterion, "decode/mset_101_args", &args, 1);
    // What a pipelining client sends, cut as TCP cuts it, and a value of many reads.
    compare_reads(criterion, "decode/set100_x16_cut", &[b"SET", b"key", &value], 16, 1448);
    let large = vec![b'v'; 4 << 20];
    compare_reads(criterion, "decode/set4m", &[b"SET", b"key", &large], 1, 16 << 10);
}

criterion_group!(benches, decode);
criterion_main!(benches);
