//! What must hold of the request decoder for any bytes. Driven by the fuzzer with its own inputs
//! and by `tests/decode_oracle.rs` with seeded ones.

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::{decode::decode_bytes, types::BytesFrame};
use wire::resp::{DecodeError, Decoder, Limits};

/// Commands up to the first error, and that error.
pub(crate) type Outcome = (Vec<Vec<Vec<u8>>>, Option<DecodeError>);

/// `redis-protocol` recurses into nested arrays; deeper input than this would overflow its stack.
const STARS_MAX: usize = 200;

/// Checks the decoder with `input`, whole and in pieces of so many bytes. Returns what it made of
/// it.
///
/// *Panics* if the decoder is wrong.
pub(crate) fn check(input: &[u8], piece_bytes: usize) -> Outcome {
    let whole = decode([input]);
    let pieces = decode(input.chunks(piece_bytes));
    assert_eq!(pieces, whole, "{} in pieces of {piece_bytes}", input.escape_ascii());
    if input.iter().filter(|byte| **byte == b'*').count() <= STARS_MAX {
        compare(input, &whole.0);
    }
    whole
}

/// Everything the decoder makes of the pieces.
pub(crate) fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = Decoder::new(Limits::default());
    let mut buffer = BytesMut::new();
    let mut commands = Vec::new();
    let mut received = 0;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        received += piece.len();
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(args)) => {
                    assert!(!args.is_empty(), "a command has a name");
                    commands.push(args.iter().map(|arg| arg.to_vec()).collect());
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.decode(&mut buffer), Err(error), "errors are final");
                    return (commands, Some(error));
                }
            }
        }
        // An empty argument takes 6 bytes on the wire and 32 here.
        let bound = 8 * received + (64 << 10);
        assert!(decoder.pending_bytes() <= bound, "memory for what was only declared");
    }
    (commands, None)
}

/// A command as clients write it.
pub(crate) fn frame<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.as_ref().len()).as_bytes());
        bytes.extend_from_slice(arg.as_ref());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// As long as the input is commands as clients write them, both decoders read the same ones.
/// Beyond that they may differ: `redis-protocol` takes a plus sign, leading zeros and null
/// arguments, which Redis refuses, and Redis takes any two bytes after an argument.
fn compare(mut input: &[u8], commands: &[Vec<Vec<u8>>]) {
    let mut commands = commands.iter();
    loop {
        let ours = commands.next();
        let theirs = redis_protocol_command(input);
        let expected = match (ours, &theirs) {
            (Some(args), _) if input.starts_with(&frame(args)) => args,
            (_, Some(args)) if !args.is_empty() && input.starts_with(&frame(args)) => args,
            _ => return,
        };
        assert_eq!(ours, Some(expected), "ours: {}", input.escape_ascii());
        assert_eq!(theirs.as_ref(), Some(expected), "redis-protocol: {}", input.escape_ascii());
        input = &input[frame(expected).len()..];
    }
}

/// The command at the start of the input, if `redis-protocol` sees one.
fn redis_protocol_command(input: &[u8]) -> Option<Vec<Vec<u8>>> {
    let Ok(Some((BytesFrame::Array(items), _))) = decode_bytes(&Bytes::copy_from_slice(input))
    else {
        return None;
    };
    let argument = |item| match item {
        BytesFrame::BulkString(bytes) => Some(Vec::from(bytes)),
        _ => None,
    };
    items.into_iter().map(argument).collect()
}
