//! Is a request decoder of our own worth having?
//!
//! The same bytes are decoded by ours and by the `redis-protocol` crate, which builds a tree of
//! frames and starts over on a partial one:
//! - `pipeline`: what `redis-benchmark -P 16 -d 100 -t set` sends, in one read;
//! - `segments`: the same, cut as TCP cuts it;
//! - `large`: a SET of 4 MiB, read 16 KiB at a time.
//!
//! Of `large` ours is not the faster: it copies a value that comes in pieces out of the read buffer,
//! so that the buffer keeps its size. `redis-protocol` leaves a buffer of 4 MiB behind, which each
//! small argument decoded from it afterwards keeps alive.
//!
//! At the end the ratios are printed. They hold the decoding and the dropping of what was decoded;
//! filling the read buffer counts for both where the input comes in pieces.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput};
use redis_protocol::resp2::decode::decode_bytes_mut;
use wire::resp::Decoder;

/// Rounds a ratio is the median of.
const ROUNDS: usize = 15;
/// What one measurement of a round takes at least.
const ROUND_TIME: Duration = Duration::from_millis(20);

/// A stream of commands, and how it is cut into reads.
struct Input {
    name: &'static str,
    commands: usize,
    bytes: Vec<u8>,
    read_bytes: usize,
}

fn inputs() -> Vec<Input> {
    let pipeline: Vec<u8> =
        (0..16).flat_map(|i| set(&format!("key:{i:012}"), &[b'x'; 100])).collect();
    let large = set("key:large", &vec![b'x'; 4 << 20]);
    vec![
        Input {
            name: "pipeline",
            commands: 16,
            read_bytes: pipeline.len(),
            bytes: pipeline.clone(),
        },
        Input { name: "segments", commands: 16, read_bytes: 1448, bytes: pipeline },
        Input { name: "large", commands: 1, read_bytes: 16 << 10, bytes: large },
    ]
}

fn set(key: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), value.len()).into_bytes();
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The first read, made before the clock starts.
fn first_read(input: &Input) -> BytesMut {
    BytesMut::from(&input.bytes[..input.bytes.len().min(input.read_bytes)])
}

fn decode_ours(input: &Input, mut buffer: BytesMut) {
    let mut decoder = Decoder::default();
    let mut commands = 0;
    let mut reads = input.bytes.chunks(input.read_bytes).skip(1);
    loop {
        while let Some(args) = decoder.decode(&mut buffer).expect("valid requests") {
            black_box(args);
            commands += 1;
        }
        let Some(read) = reads.next() else { break };
        buffer.extend_from_slice(read);
    }
    assert_eq!(commands, input.commands);
}

fn decode_theirs(input: &Input, mut buffer: BytesMut) {
    let mut commands = 0;
    let mut reads = input.bytes.chunks(input.read_bytes).skip(1);
    loop {
        while !buffer.is_empty()
            && let Some(frame) = decode_bytes_mut(&mut buffer).expect("valid requests")
        {
            black_box(frame);
            commands += 1;
        }
        let Some(read) = reads.next() else { break };
        buffer.extend_from_slice(read);
    }
    assert_eq!(commands, input.commands);
}

type Decode = fn(&Input, BytesMut);

/// Time per pass over the input.
fn measure(input: &Input, decode: Decode) -> Duration {
    let (mut passes, mut spent) = (0, Duration::ZERO);
    while spent < ROUND_TIME {
        let buffers: Vec<BytesMut> = (0..64).map(|_| first_read(input)).collect();
        passes += buffers.len() as u32;
        let start = Instant::now();
        for buffer in buffers {
            decode(input, buffer);
        }
        spent += start.elapsed();
    }
    spent / passes
}

/// The median of rounds in which the two take turns, so that a busy machine slows both.
fn print_ratio(input: &Input) {
    let mut ratios: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let ours = measure(input, decode_ours);
            measure(input, decode_theirs).as_secs_f64() / ours.as_secs_f64()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let (least, most) = (ratios[0], ratios[ROUNDS - 1]);
    let median = ratios[ROUNDS / 2];
    println!(
        "{}: redis-protocol takes {median:.2} times as long as ours ({least:.2} to {most:.2})",
        input.name
    );
}

fn main() {
    let inputs = inputs();
    let mut criterion = Criterion::default().configure_from_args();
    for input in &inputs {
        let mut group = criterion.benchmark_group(format!("decode/{}", input.name));
        group.throughput(Throughput::Bytes(input.bytes.len() as u64));
        for (name, decode) in
            [("ours", decode_ours as Decode), ("redis-protocol", decode_theirs as Decode)]
        {
            group.bench_function(name, |bencher| {
                bencher.iter_batched(
                    || first_read(input),
                    |buffer| decode(input, buffer),
                    BatchSize::SmallInput,
                );
            });
        }
        group.finish();
    }
    criterion.final_summary();
    // `cargo test` runs each of the above once, and only `cargo bench` measures.
    if std::env::args().any(|arg| arg == "--bench") {
        inputs.iter().for_each(print_ratio);
    }
}
