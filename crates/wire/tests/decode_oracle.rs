//! The request decoder under every cut and beside `redis-protocol`, with seeded random requests.
//! What must hold is in `fuzz/oracle.rs`, which the fuzzer shares.

#[path = "../fuzz/oracle.rs"]
mod oracle;
#[path = "../fuzz/plenty.rs"]
mod plenty;

use oracle::{check, decode, frame};
use plenty::{inputs, seed};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use wire::resp::DecodeError;

fn pick(rng: &mut StdRng, from: &[u8]) -> u8 {
    from[rng.random_range(0..from.len())]
}

fn random_args(rng: &mut StdRng) -> Vec<Vec<u8>> {
    (0..rng.random_range(1..5))
        .map(|_| (0..rng.random_range(0..14)).map(|_| pick(rng, b"ab\r\n$*1\0")).collect())
        .collect()
}

/// Requests, emptiness and garbage in a row.
fn random_stream(rng: &mut StdRng) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..rng.random_range(1..6) {
        match rng.random_range(0..12) {
            0 => stream.extend(b"*0\r\n"),
            1 => stream.extend(b"*-1\r\n"),
            2 => stream.extend(b"\r\n"),
            3 => stream.extend(b"  \n"),
            4 => stream.extend(b"SET k \"a\\x00b\" 'c'\r\n"),
            5 => stream.extend(b"get  key\n"),
            6 => {
                for _ in 0..rng.random_range(1..8) {
                    stream.push(pick(rng, b"*$:\r\n01-9a\0\" "));
                }
            }
            _ => stream.extend(frame(&random_args(rng))),
        }
    }
    stream
}

/// Changes, drops, inserts or cuts off a few bytes.
fn mutate(rng: &mut StdRng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..4) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..5) {
            0 => bytes[at] = pick(rng, b"*$:\r\n0129-+ \0\xff"),
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, pick(rng, b"*$\r\n019")),
            3 => bytes.truncate(at),
            _ => bytes[at] ^= 1 << rng.random_range(0..8),
        }
    }
}

#[test]
fn valid_commands_are_read_and_part_of_one_is_waited_for() {
    let mut rng = StdRng::seed_from_u64(seed(1));
    for _ in 0..inputs(2_000) {
        let commands: Vec<_> = (0..3).map(|_| random_args(&mut rng)).collect();
        let frames: Vec<u8> = commands.iter().flat_map(|args| frame(args)).collect();
        assert_eq!(check(&frames, 1), (commands.clone(), None));

        let first = frame(&commands[0]);
        for cut in 0..first.len() {
            assert_eq!(decode([&first[..cut]]), (vec![], None));
        }
    }
}

#[test]
fn cuts_never_change_the_result() {
    let mut rng = StdRng::seed_from_u64(seed(2));
    for round in 0..inputs(4_000) {
        let mut stream = random_stream(&mut rng);
        if round % 2 == 1 {
            mutate(&mut rng, &mut stream);
        }
        let whole = check(&stream, 1);
        for cut in 1..stream.len() {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(decode([head, tail]), whole, "{} at {cut}", stream.escape_ascii());
        }
    }
}

#[test]
fn mutated_commands_are_read_as_redis_protocol_reads_them() {
    let mut rng = StdRng::seed_from_u64(seed(3));
    let (inputs, mut accepted, mut refused) = (inputs(60_000), 0, 0);
    for _ in 0..inputs {
        let mut bytes = frame(&random_args(&mut rng));
        mutate(&mut rng, &mut bytes);
        let (commands, error) = check(&bytes, 7);
        accepted += commands.len();
        refused += usize::from(error.is_some());
    }
    let few = inputs / 6;
    assert!(accepted > few && refused > few, "{accepted} accepted, {refused} refused");
}

#[test]
fn a_nul_is_refused_before_its_line_ends() {
    // The start of a TLS handshake, which never sends a line.
    let hello = b"\x16\x03\x01\x00\xa5\x01\x00";
    assert_eq!(check(hello, 1), (vec![], Some(DecodeError::NulInInline)));
}
