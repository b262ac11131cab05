//! The decoder's answers one by one. Random requests, every cut of them, and `redis-protocol` beside
//! it: `tests/decode_oracle.rs`; a live Redis beside it: `tests/real_redis.rs`.

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
