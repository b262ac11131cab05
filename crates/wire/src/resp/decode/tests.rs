//! The decoder against Redis's answers, against itself under every cut, and against
//! `redis-protocol`.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use redis_protocol::resp2::types::BytesFrame;

use super::*;

type Outcome = (Vec<Vec<Vec<u8>>>, Option<DecodeError>);

/// Everything `decoder` makes of the bytes, given in pieces that end at the cuts.
fn decode_pieces(limits: Limits, pieces: &[&[u8]]) -> Outcome {
    let mut decoder = Decoder::new(limits);
    let mut buffer = BytesMut::new();
    let mut commands = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(args)) => commands.push(args.iter().map(|arg| arg.to_vec()).collect()),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.decode(&mut buffer), Err(error), "errors are final");
                    return (commands, Some(error));
                }
            }
        }
    }
    (commands, None)
}

fn decode_whole(input: &[u8]) -> Outcome {
    decode_pieces(Limits::DEFAULT, &[input])
}

fn frame(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend(format!("${}\r\n", arg.len()).bytes());
        bytes.extend_from_slice(arg);
        bytes.extend(b"\r\n");
    }
    bytes
}

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

#[test]
fn refusals_are_those_of_redis() {
    use DecodeError::*;
    // Each input was sent to Redis 7.0.15; where it differs a comment says so.
    let cases: &[(&[u8], DecodeError)] = &[
        (b"*\r\n", InvalidArrayLength),
        (b"*abc\r\n", InvalidArrayLength),
        (b"*01\r\n", InvalidArrayLength),
        (b"*+1\r\n", InvalidArrayLength),
        (b"*1 \r\n", InvalidArrayLength),
        (b"*-0\r\n", InvalidArrayLength),
        (b"*2147483648\r\n", InvalidArrayLength),
        (b"*-9223372036854775809\r\n", InvalidArrayLength),
        (b"*1048577\r\n", InvalidArrayLength), // Redis: its limit is 2^31 - 1.
        (b"*1\r\n:4\r\n", ExpectedBulk(b':')),
        (b"*1\r\n\r\n", ExpectedBulk(b' ')),
        (b"*1\r\n*1\r\n", ExpectedBulk(b'*')),
        (b"*1\r\n\xff\r\n", ExpectedBulk(0xff)),
        (b"*1\r\n$\r\n", InvalidBulkLength),
        (b"*1\r\n$-1\r\n", InvalidBulkLength),
        (b"*1\r\n$04\r\nPING\r\n", InvalidBulkLength),
        (b"*1\r\n$4\nPING\r\n", InvalidBulkLength),
        (b"*1\r\n$9999999999999999999999\r\n", InvalidBulkLength),
        (b"*1\r\n$67108865\r\n", InvalidBulkLength), // Redis: its limit is 512 MB.
        (b"ECHO \"a\"b\r\n", UnbalancedQuotes),
        (b"ECHO 'a\r\n", UnbalancedQuotes),
        (b"ECHO a\0b\r\n", NulInInline), // Redis: waits for ever.
    ];
    for (input, error) in cases {
        let text = input.escape_ascii().to_string();
        assert_eq!(decode_whole(input), (vec![], Some(*error)), "{text}");
        let mut after_ping = PING.to_vec();
        after_ping.extend_from_slice(input);
        let expected = (vec![vec![b"PING".to_vec()]], Some(*error));
        assert_eq!(decode_whole(&after_ping), expected, "what came before counts: {text}");
    }
}

#[test]
fn what_redis_does_not_look_at_is_not_looked_at() {
    for input in [&b"*1\rx$4\r\nPING\r\n"[..], b"*1\r\n$4\rxPING\r\n", b"*1\r\n$4\r\nPINGxx"] {
        assert_eq!(decode_whole(input), (vec![vec![b"PING".to_vec()]], None));
    }
}

#[test]
fn refusals_are_worded_as_redis_words_them() {
    let line = |error: DecodeError| match error.to_reply() {
        Reply::Error(line) => line.escape_ascii().to_string(),
        other => panic!("not an error: {other:?}"),
    };
    assert_eq!(
        line(DecodeError::InvalidArrayLength),
        "ERR Protocol error: invalid multibulk length"
    );
    assert_eq!(line(DecodeError::InvalidBulkLength), "ERR Protocol error: invalid bulk length");
    assert_eq!(
        line(DecodeError::ExpectedBulk(b':')),
        r"ERR Protocol error: expected \'$\', got \':\'"
    );
    assert_eq!(
        line(DecodeError::ExpectedBulk(0xff)),
        r"ERR Protocol error: expected \'$\', got \'\xff\'"
    );
}

#[test]
fn lines_have_a_longest() {
    let limit = Limits::DEFAULT.line_bytes;
    let line = |prefix: &[u8], length: usize, end: &[u8]| {
        let mut bytes = prefix.to_vec();
        bytes.resize(prefix.len() + length, b'1');
        bytes.extend_from_slice(end);
        bytes
    };
    assert_eq!(decode_whole(&line(b"", limit, b"")), (vec![], None));
    assert_eq!(decode_whole(&line(b"", limit, b"\n")).0.len(), 1);
    for end in [&b""[..], b"\n", b"\r\n"] {
        let error = Some(DecodeError::InlineTooLong);
        assert_eq!(decode_whole(&line(b"", limit + 1, end)), (vec![], error));
    }
    let error = Some(DecodeError::ArrayHeaderTooLong);
    assert_eq!(decode_whole(&line(b"*", limit, b"")), (vec![], error));
    let error = Some(DecodeError::BulkHeaderTooLong);
    assert_eq!(decode_whole(&line(b"*1\r\n$", limit, b"")), (vec![], error));
}

#[test]
fn before_auth_little_is_accepted() {
    let decode = |input: &[u8]| decode_pieces(Limits::BEFORE_AUTH, &[input]);
    assert_eq!(decode(b"*11\r\n").1, Some(DecodeError::UnauthenticatedArrayLength));
    assert_eq!(decode(b"*2147483648\r\n").1, Some(DecodeError::InvalidArrayLength));
    assert_eq!(decode(b"*1\r\n$16385\r\n").1, Some(DecodeError::UnauthenticatedBulkLength));
    let largest = vec![b'x'; 16_384];
    assert_eq!(decode(&frame(&[&largest[..]; 10])).0.len(), 1);

    let mut decoder = Decoder::new(Limits::BEFORE_AUTH);
    let mut buffer = BytesMut::from(&frame(&[b"AUTH", b"secret"])[..]);
    buffer.extend_from_slice(&frame(&[&b"x"[..]; 11]));
    assert!(matches!(decoder.decode(&mut buffer), Ok(Some(_))));
    decoder.set_limits(Limits::DEFAULT);
    assert_eq!(decoder.decode(&mut buffer).map(|args| args.map(|args| args.len())), Ok(Some(11)));
}

#[test]
fn the_query_buffer_bounds_one_command() {
    let limits = Limits { query_buffer_bytes: 1000, bulk_bytes: 400, ..Limits::DEFAULT };
    let arg = [b'x'; 300];
    let fits = frame(&[&arg[..]; 3]);
    assert_eq!(decode_pieces(limits, &[&fits, &fits]).0.len(), 2);
    let exceeds = frame(&[&arg[..]; 4]);
    let outcome = decode_pieces(limits, &[&exceeds]);
    assert_eq!(outcome, (vec![], Some(DecodeError::QueryBufferFull)));
    for cut in 1..exceeds.len() {
        let (head, tail) = exceeds.split_at(cut);
        assert_eq!(decode_pieces(limits, &[head, tail]), outcome);
    }
}

#[test]
fn arguments_are_slices_of_the_read_buffer() {
    let mut buffer = BytesMut::from(&frame(&[b"SET", b"key", b"value"])[..]);
    let start = buffer.as_ptr() as usize;
    let range = start..start + buffer.len();
    let args = Decoder::default().decode(&mut buffer).expect("valid").expect("complete");
    assert!(args.iter().all(|arg| range.contains(&(arg.as_ptr() as usize))));
}

#[test]
fn memory_follows_what_was_received() {
    let mut decoder = Decoder::default();
    let mut buffer = BytesMut::from(&b"*1048576\r\n$67108864\r\nabc"[..]);
    assert_eq!(decoder.decode(&mut buffer), Ok(None));
    assert!(decoder.pending_bytes() <= LARGE_BULK_FIRST_BYTES + 1024);
    assert_eq!(decoder.missing_bytes(&buffer), 67_108_866 - 3);
}

#[test]
fn a_large_argument_does_not_grow_the_read_buffer() {
    let value: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut input = frame(&[b"SET", b"key", &value, b"EX", b"10"]);
    input.extend_from_slice(PING);
    let mut decoder = Decoder::default();
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    let mut commands = Vec::new();
    for piece in input.chunks(16 * 1024) {
        buffer.extend_from_slice(piece);
        while let Some(args) = decoder.decode(&mut buffer).expect("valid") {
            commands.push(args);
        }
        assert!(buffer.capacity() <= 64 * 1024, "read buffer of {}", buffer.capacity());
    }
    assert_eq!(commands.len(), 2);
    assert_eq!(commands[0][2], value);
    assert_eq!(commands[0][4], b"10"[..]);
    assert_eq!(commands[1][0], b"PING"[..]);
    assert_eq!(decoder.pending_bytes(), 0);
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
                let garbage: Vec<u8> =
                    (0..rng.random_range(1..8)).map(|_| *pick(rng, b"*$:\r\n01-9a\0\" ")).collect();
                stream.extend(garbage);
            }
            _ => stream.extend(random_frame(rng)),
        }
    }
    stream
}

fn random_frame(rng: &mut StdRng) -> Vec<u8> {
    let args: Vec<Vec<u8>> = (0..rng.random_range(1..5))
        .map(|_| (0..rng.random_range(0..14)).map(|_| *pick(rng, b"ab\r\n$*1\0")).collect())
        .collect();
    frame(&args.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn pick<'a>(rng: &mut StdRng, from: &'a [u8]) -> &'a u8 {
    &from[rng.random_range(0..from.len())]
}

/// Changes, drops, doubles or inserts a few bytes.
fn mutate(rng: &mut StdRng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..4) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..5) {
            0 => bytes[at] = *pick(rng, b"*$:\r\n0129-+ \0\xff"),
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, *pick(rng, b"*$\r\n019")),
            3 => bytes.truncate(at),
            _ => bytes[at] ^= 1 << rng.random_range(0..8),
        }
    }
}

#[test]
fn cuts_never_change_the_result() {
    let mut rng = StdRng::seed_from_u64(1);
    for round in 0..4_000 {
        let mut stream = random_stream(&mut rng);
        if round % 2 == 1 {
            mutate(&mut rng, &mut stream);
        }
        let whole = decode_whole(&stream);
        for cut in 1..stream.len() {
            let (head, tail) = stream.split_at(cut);
            let text = || stream.escape_ascii().to_string();
            assert_eq!(decode_pieces(Limits::DEFAULT, &[head, tail]), whole, "{} {cut}", text());
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(decode_pieces(Limits::DEFAULT, &bytes), whole);
    }
}

#[test]
fn cuts_of_large_arguments_never_change_the_result() {
    let large = vec![b'L'; LARGE_BULK_BYTES + 5];
    let almost = vec![b'A'; LARGE_BULK_BYTES - 1];
    let mut stream = frame(&[b"MSET", b"a", &large, b"b", &almost]);
    stream.extend_from_slice(&frame(&[&large]));
    stream.extend_from_slice(PING);
    let whole = decode_whole(&stream);
    assert_eq!((whole.0.len(), whole.1), (3, None));
    for size in [1, 2, 3, 1000, 4096, 32_767, 32_768, 32_769, 65_536] {
        let pieces: Vec<&[u8]> = stream.chunks(size).collect();
        assert_eq!(decode_pieces(Limits::DEFAULT, &pieces), whole, "pieces of {size}");
    }
}

/// Arguments, and the bytes they took.
type OracleCommand = (Vec<Vec<u8>>, usize);

/// What `redis-protocol` makes of one array of bulk strings at the start of the bytes; `Ok(None)`
/// if it wants more, `Err` if it refuses or reads something that is no request.
fn oracle(bytes: &[u8]) -> Result<Option<OracleCommand>, ()> {
    let bytes = Bytes::copy_from_slice(bytes);
    match redis_protocol::resp2::decode::decode_bytes(&bytes) {
        Ok(Some((BytesFrame::Array(items), used))) => items
            .into_iter()
            .map(|item| match item {
                BytesFrame::BulkString(bytes) => Ok(bytes.to_vec()),
                _ => Err(()),
            })
            .collect::<Result<_, _>>()
            .map(|args| Some((args, used))),
        Ok(Some(_)) | Err(_) => Err(()),
        Ok(None) => Ok(None),
    }
}

#[test]
fn redis_protocol_agrees() {
    let mut rng = StdRng::seed_from_u64(2);
    let (mut accepted, mut refused, mut partial) = (0, 0, 0);
    for round in 0..60_000 {
        let mut bytes = random_frame(&mut rng);
        if round % 3 != 0 {
            mutate(&mut rng, &mut bytes);
        }
        if bytes.first() != Some(&b'*') || bytes.starts_with(b"*0") || bytes.starts_with(b"*-") {
            continue; // Inline commands and empty requests are ours alone.
        }
        let text = bytes.escape_ascii().to_string();
        let mut buffer = BytesMut::from(&bytes[..]);
        let ours = Decoder::default().decode(&mut buffer);
        match (oracle(&bytes), ours) {
            (Ok(Some((args, used))), Ok(Some(ours))) => {
                assert_eq!(ours.iter().map(|arg| arg.to_vec()).collect::<Vec<_>>(), args, "{text}");
                assert_eq!(buffer.len(), bytes.len() - used, "{text}");
                accepted += 1;
            }
            // The oracle looks at bytes in another order, so it may still wait where we refuse
            // already; it must refuse as well, or still wait, never accept.
            (Err(()), Err(_)) => refused += 1,
            (Ok(None), Err(_) | Ok(None)) => partial += 1,
            (oracle, ours) => {
                assert!(known_difference(&bytes), "{text}: oracle {oracle:?}, ours {ours:?}");
            }
        }
    }
    assert!(
        accepted > 10_000 && refused > 1_000 && partial > 1_000,
        "{accepted} {refused} {partial}"
    );
}

/// Whether the two are known to read the bytes differently: `redis-protocol` takes a plus sign,
/// leading zeros and a null argument, which Redis refuses; Redis takes any byte after a header's
/// CR.
fn known_difference(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().filter(|(_, byte)| matches!(byte, b'*' | b'$')).any(|(at, _)| {
        let number = &bytes[at + 1..];
        let digits = number.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let leading_zero = digits > 1 && number[0] == b'0';
        let lonely_cr = matches!(number[digits..], [b'\r', next, ..] if next != b'\n');
        leading_zero || lonely_cr || matches!(number, [b'+' | b'-', ..])
    })
}
