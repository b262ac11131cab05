//! What is encoded reads back as the same reply by `redis-protocol`, in both RESP versions.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use wire::resp::{
    BulksBuilder, Reply, ReplyBuffer, ReplyDecoder, RespVersion, SHARED_BULK_BYTES, encode,
};

fn random_bytes(rng: &mut StdRng) -> Bytes {
    let length = match rng.random_range(0..20) {
        0 => SHARED_BULK_BYTES + rng.random_range(0..100),
        _ => rng.random_range(0..20),
    };
    (0..length).map(|_| rng.random()).collect()
}

fn random_text(rng: &mut StdRng) -> Bytes {
    let length = rng.random_range(0..20);
    (0..length).map(|_| b"ab \r\n$*"[rng.random_range(0..7)]).collect()
}

fn random_double(rng: &mut StdRng) -> f64 {
    match rng.random_range(0..6) {
        0 => f64::INFINITY,
        1 => f64::NEG_INFINITY,
        2 => -0.0,
        3 => f64::from(rng.random_range(-1000..1000)),
        4 => f64::from(rng.random_range(-1000..1000)) / 64.0,
        _ => Some(f64::from_bits(rng.random())).filter(|value| !value.is_nan()).unwrap_or(1.5),
    }
}

fn random_reply(rng: &mut StdRng, depth: usize) -> Reply {
    // What the decoder takes as a key of a map comes first.
    let kinds = if depth == 0 { 11 } else { 17 };
    match rng.random_range(0..kinds) {
        0 => Reply::OK,
        1 => Reply::Status(random_text(rng)),
        2 => Reply::Error(random_text(rng)),
        3 => Reply::Integer(rng.random()),
        4 => Reply::Integer(rng.random_range(-20..20)),
        5 => Reply::Bulk(random_bytes(rng)),
        6 => Reply::Null,
        7 => Reply::NullArray,
        8 => Reply::Double(random_double(rng)),
        9 => Reply::Boolean(rng.random()),
        10 => Reply::Verbatim { format: *b"txt", text: random_text(rng) },
        11 => random_bulks(rng),
        12 => Reply::Array(random_replies(rng, depth - 1)),
        13 => Reply::Set(vec![random_reply(rng, 0)]),
        14 => Reply::Map(vec![(random_reply(rng, 0), random_reply(rng, depth - 1))]),
        15 => Reply::Pairs(vec![(random_reply(rng, 0), random_reply(rng, depth - 1))]),
        _ => Reply::BigNumber(Bytes::from(rng.random::<u128>().to_string())),
    }
}

fn random_bulks(rng: &mut StdRng) -> Reply {
    let mut bulks = BulksBuilder::with_capacity(rng.random_range(0..3), 0);
    for _ in 0..rng.random_range(0..5) {
        bulks.push(&random_bytes(rng));
    }
    bulks.finish()
}

fn random_replies(rng: &mut StdRng, depth: usize) -> Vec<Reply> {
    (0..rng.random_range(0..5)).map(|_| random_reply(rng, depth)).collect()
}

/// What a client can tell of a reply.
fn as_read(reply: &Reply, version: RespVersion) -> Reply {
    let resp2 = version == RespVersion::Resp2;
    let all = |items: &[Reply]| items.iter().map(|item| as_read(item, version)).collect();
    let line = |text: &[u8]| -> Bytes {
        text.iter().map(|byte| if b"\r\n".contains(byte) { b' ' } else { *byte }).collect()
    };
    match reply {
        Reply::Simple(text) => Reply::Status(Bytes::from_static(text.as_bytes())),
        Reply::Status(text) => Reply::Status(line(text)),
        Reply::Error(text) => Reply::Error(line(text)),
        Reply::NullArray => Reply::Null,
        Reply::Bulks(_) => reply.clone().unfold(),
        Reply::Array(items) => Reply::Array(all(items)),
        Reply::Set(items) if resp2 => Reply::Array(all(items)),
        Reply::Set(items) => Reply::Set(all(items)),
        Reply::Push(items) if resp2 => Reply::Array(all(items)),
        Reply::Push(items) => Reply::Push(all(items)),
        Reply::Map(pairs) | Reply::Pairs(pairs) if resp2 => {
            let flat = pairs.iter().flat_map(|(key, value)| [key, value]);
            Reply::Array(flat.map(|item| as_read(item, version)).collect())
        }
        Reply::Pairs(pairs) => {
            let read = |(key, value): &(Reply, Reply)| {
                Reply::Array(vec![as_read(key, version), as_read(value, version)])
            };
            Reply::Array(pairs.iter().map(read).collect())
        }
        Reply::Map(pairs) => {
            let read = |(key, value)| (as_read(key, version), as_read(value, version));
            Reply::Map(pairs.iter().map(|(key, value)| (key, value)).map(read).collect())
        }
        Reply::Boolean(value) if resp2 => Reply::Integer(i64::from(*value)),
        Reply::BigNumber(digits) if resp2 => Reply::Bulk(digits.clone()),
        Reply::Verbatim { text, .. } if resp2 => Reply::Bulk(text.clone()),
        other => other.clone(),
    }
}

/// Doubles are bulks in RESP2: read back as numbers, they must be the same ones.
fn same(read: &Reply, expected: &Reply) -> bool {
    match (read, expected) {
        (Reply::Bulk(digits), Reply::Double(value)) => std::str::from_utf8(digits)
            .is_ok_and(|digits| digits.parse().map(f64::to_bits) == Ok(value.to_bits())),
        (Reply::Double(read), Reply::Double(value)) => read.to_bits() == value.to_bits(),
        (Reply::Array(read), Reply::Array(items)) | (Reply::Set(read), Reply::Set(items)) => {
            read.len() == items.len() && read.iter().zip(items).all(|(read, item)| same(read, item))
        }
        (Reply::Map(read), Reply::Map(pairs)) => {
            read.len() == pairs.len()
                && read.iter().zip(pairs).all(|((read_key, read_value), (key, value))| {
                    same(read_key, key) && same(read_value, value)
                })
        }
        (read, expected) => read == expected,
    }
}

#[test]
fn replies_read_back_as_they_were() {
    for version in [RespVersion::Resp2, RespVersion::Resp3] {
        let mut rng = StdRng::seed_from_u64(1);
        let mut out = ReplyBuffer::new();
        let mut received = BytesMut::new();
        let decoder = ReplyDecoder::new(version);
        for _ in 0..2_000 {
            let replies: Vec<Reply> = (0..4).map(|_| random_reply(&mut rng, 3)).collect();
            replies.iter().for_each(|reply| encode(reply, version, &mut out));

            // Written in pieces of any size, as a socket takes them.
            let total = out.len();
            while out.has_remaining() {
                let piece = rng.random_range(1..=out.remaining());
                received.put(out.copy_to_bytes(piece));
            }
            assert_eq!(received.len(), total, "len() counts what is written");
            for reply in &replies {
                let read = decoder.decode(&mut received).expect("valid").expect("complete");
                let expected = as_read(reply, version);
                assert!(same(&read, &expected), "{reply:?} read as {read:?}");
            }
            assert!(received.is_empty());
        }
    }
}

#[test]
fn pushes_read_back() {
    let push = Reply::Push(vec![Reply::Bulk(Bytes::from_static(b"message")), Reply::Integer(1)]);
    for version in [RespVersion::Resp2, RespVersion::Resp3] {
        let mut out = ReplyBuffer::new();
        encode(&push, version, &mut out);
        let mut received = BytesMut::from(&out.copy_to_bytes(out.len())[..]);
        let read = ReplyDecoder::new(version).decode(&mut received).expect("valid");
        assert_eq!(read, Some(as_read(&push, version)));
    }
}
