//! Requests: no input panics, and no cut into reads changes what is decoded.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use wire::resp::{Arguments, DecodeError, Decoder, Limits};

fn decode<'a>(
    limits: Limits,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Arguments>, Option<DecodeError>) {
    let mut decoder = Decoder::new(limits);
    let mut buffer = BytesMut::new();
    let mut commands = Vec::new();
    let mut received = 0;
    for piece in pieces {
        received += piece.len();
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(args)) => commands.push(args),
                Ok(None) => break,
                Err(error) => return (commands, Some(error)),
            }
        }
        // Memory follows what was received, whatever was declared.
        assert!(decoder.pending_bytes() <= 70_000 + 8 * received);
    }
    (commands, None)
}

fuzz_target!(|input: (u8, bool, &[u8])| {
    let (size, before_auth, bytes) = input;
    let limits = if before_auth { Limits::BEFORE_AUTH } else { Limits::DEFAULT };
    let whole = decode(limits, std::iter::once(bytes));
    let pieces = decode(limits, bytes.chunks(usize::from(size).max(1)));
    assert_eq!(whole, pieces);
    if let Some(error) = whole.1 {
        let _ = error.to_reply();
    }
});
