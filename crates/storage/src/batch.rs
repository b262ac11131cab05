//! Batches: the unit of the log. A batch holds the effects of one or more commands; the leader
//! writes it, the log keeps it, every replica applies the same bytes.
//!
//! ```text
//! batch    = version:u8 (1) id:u64 now_ms:u64 counters effect* crc32c:u32 (of all before it)
//! counters = keys:u64 volatile:u64 bytes:u64            of the partition after this batch
//! effect   = 0x01 row_len:u32 value_len:u32 row value   put; value ends in its row checksum
//!          | 0x02 row_len:u32 row                       delete
//!          | 0x03 index:u64 ordinal:u32                 drop a collection's generation
//!          | 0x04 index:u64 ordinal:u32                 flush: drop headers up to this version
//!          | 0x05 id:u64                                the batch before it, which it stands on; only
//!                                                       the first effect is one
//!          | 0x06 length:u32 section                    the requests it answers (`requests`)
//! ```
//!
//! A batch whose effects were computed from a batch that was not chosen yet names it. Should a new leader
//! fill that one's place with nothing, having heard of its successor alone, then the successor is no
//! batch either: all replicas pass over it ([`Batch::after`]).
//!
//! Numbers are big-endian. Effects are absolute and idempotent: applying a batch twice is applying
//! it once. A decoded batch keeps its bytes as they came: one buffer serves the log, the peers and
//! the backlog ([`crate::backlog`]).

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use commands::types::header;
use commands::{Counters, Effects, RowWrite, rows};
use foldhash::fast::RandomState;
use wire::ids::Version;

use crate::requests::Section;
use crate::row;

const FORMAT_VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 8 + 8 + 24;
const COUNTERS_OFFSET: usize = 1 + 8 + 8;
const NOW_OFFSET: usize = 1 + 8;
/// Bytes of memory that the processor fetches at once.
const LINE_BYTES: usize = 64;
const CHECKSUM_BYTES: usize = 4;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DROP: u8 = 3;
const FLUSH: u8 = 4;
const AFTER: u8 = 5;
const REQUESTS: u8 = 6;

/// Why bytes are no batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BatchError {
    /// The checksum does not fit the bytes.
    #[error("batch checksum mismatch")]
    Checksum,
    /// The checksum fits, yet the content has another shape than this build knows.
    #[error("batch malformed")]
    Malformed,
}

/// A header of so many bytes or more may be replaced in an open batch. Below, looking for an older value
/// costs more than it saves.
const REPLACEABLE_BYTES_MIN: usize = 256;
/// The same of a data row: a list or sorted set that many commands of one batch change writes the rows
/// above its items again with each of them, and only the last of these is worth logging.
const REPLACEABLE_DATA_BYTES_MIN: usize = 96;

/// Whether the value of a row may be replaced in an open batch. A collection that has data rows has many
/// elements: each command that changes one writes its header again.
fn is_replaceable(row: &[u8], value: &[u8]) -> bool {
    match rows::generation(row) {
        Some(_) => value.len() >= REPLACEABLE_DATA_BYTES_MIN,
        None => value.len() >= REPLACEABLE_BYTES_MIN || header::is_of_rows(value),
    }
}

/// A batch being filled by its leader.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    buffer: BytesMut,
    /// Values that may be replaced, by their rows: written behind all others when the batch is closed. No row in
    /// here is written again in `buffer` after it came here.
    replaceable: HashMap<Bytes, Bytes, RandomState>,
    /// What those will take.
    replaceable_bytes: usize,
    /// The requests it answers.
    requests: Section,
    id: u64,
}

impl BatchBuilder {
    /// A batch that stands on another, if that is not chosen yet.
    pub(crate) fn new(id: u64, after: Option<u64>) -> BatchBuilder {
        let mut buffer = BytesMut::with_capacity(1024);
        buffer.put_u8(FORMAT_VERSION);
        buffer.put_u64(id);
        buffer.put_bytes(0, HEAD_BYTES - NOW_OFFSET);
        if let Some(after) = after {
            buffer.put_u8(AFTER);
            buffer.put_u64(after);
        }
        let (replaceable, requests) = (HashMap::default(), Section::default());
        BatchBuilder { buffer, replaceable, replaceable_bytes: 0, requests, id }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Bytes of the batch if it were closed now, but for its checksum.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len() + self.replaceable_bytes + self.requests.len()
    }

    /// The requests it answers.
    pub(crate) fn requests(&mut self) -> &mut Section {
        &mut self.requests
    }

    /// Bytes of the batch if it were closed now.
    pub(crate) fn closed_len(&self) -> usize {
        self.len() + CHECKSUM_BYTES
    }

    /// Adds what a transaction left.
    pub(crate) fn push(&mut self, effects: &Effects) {
        if effects.flushed_through.is_some() {
            // What was written before is behind the fence, and must not be written behind it here.
            self.replaceable.clear();
            self.replaceable_bytes = 0;
        }
        for RowWrite { row, value } in &effects.writes {
            match value {
                Some(value) if is_replaceable(row, value) => {
                    self.replaceable_bytes += put_bytes(row, value);
                    if let Some(old) = self.replaceable.insert(row.clone(), value.clone()) {
                        self.replaceable_bytes -= put_bytes(row, &old);
                    }
                    continue;
                }
                _ if self.replaceable.is_empty() => {}
                _ => {
                    if let Some(old) = self.replaceable.remove(row) {
                        self.replaceable_bytes -= put_bytes(row, &old);
                    }
                }
            }
            match value {
                Some(value) => {
                    self.buffer.reserve(put_bytes(row, value));
                    put(&mut self.buffer, row, value);
                }
                None => {
                    self.buffer.put_u8(DELETE);
                    self.buffer.put_u32(length(row));
                    self.buffer.put_slice(row);
                }
            }
        }
        for generation in &effects.dropped {
            self.put_version(DROP, *generation);
        }
        if let Some(fence) = effects.flushed_through {
            self.put_version(FLUSH, fence);
        }
    }

    fn put_version(&mut self, kind: u8, version: Version) {
        self.buffer.put_u8(kind);
        self.buffer.put_u64(version.index);
        self.buffer.put_u32(version.ordinal);
    }

    /// Closes the batch: stamps it and seals it with its checksum.
    ///
    /// All is copied into memory of just the right size: a batch stays there until it is flushed, and to let
    /// the buffer grow by what is written last copies more.
    pub(crate) fn finish(self, now_ms: u64, counters: Counters) -> Bytes {
        let BatchBuilder { buffer, replaceable, replaceable_bytes, requests, .. } = self;
        let section = requests.finish();
        let mut bytes = buffer.len() + replaceable_bytes + CHECKSUM_BYTES;
        if !section.is_empty() {
            bytes += 1 + 4 + section.len();
        }
        let mut out = BytesMut::with_capacity(bytes);
        out.put_slice(&buffer);
        for (row, value) in &replaceable {
            put(&mut out, row, value);
        }
        if !section.is_empty() {
            out.put_u8(REQUESTS);
            out.put_u32(u32::try_from(section.len()).expect("bounded like a batch"));
            out.put_slice(&section);
        }
        out[NOW_OFFSET..COUNTERS_OFFSET].copy_from_slice(&now_ms.to_be_bytes());
        let numbers = [counters.keys, counters.volatile, counters.bytes];
        for (slot, number) in out[COUNTERS_OFFSET..HEAD_BYTES].chunks_exact_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_be_bytes());
        }
        let checksum = crc32c::crc32c(&out);
        out.put_u32(checksum);
        debug_assert_eq!(out.len(), bytes, "the size was reckoned well");
        out.freeze()
    }
}

/// Appends the effect that puts a row.
fn put(out: &mut BytesMut, row: &Bytes, value: &Bytes) {
    out.put_u8(PUT);
    out.put_u32(length(row));
    out.put_u32(length(value) + row::SEAL_BYTES as u32);
    out.put_slice(row);
    out.put_slice(value);
    out.put_u32_le(row::checksum(row, value));
}

/// Bytes of the effect that puts a row.
fn put_bytes(row: &Bytes, value: &Bytes) -> usize {
    9 + row.len() + value.len() + row::SEAL_BYTES
}

fn length(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).expect("rows are bounded far below 4 GiB")
}

/// One effect of a batch, its bytes borrowed from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect<'a> {
    /// A row's new value (sealed: it ends in its checksum), or `None` where it is deleted.
    Write { row: &'a [u8], sealed: Option<&'a [u8]> },
    /// A collection's data rows are dead.
    Drop(Version),
    /// Headers up to this version are dead.
    Flush(Version),
    /// The batch that this one stands on.
    After(u64),
    /// The requests that it answers.
    Requests(&'a [u8]),
}

/// A batch read from the log or a peer.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) id: u64,
    pub(crate) now_ms: u64,
    pub(crate) counters: Counters,
    effects: Bytes,
}

impl Batch {
    /// Reads a batch.
    ///
    /// *Errors*: bytes that are no batch, or damaged.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Batch, BatchError> {
        if bytes.len() < HEAD_BYTES + CHECKSUM_BYTES {
            return Err(BatchError::Malformed);
        }
        let (body, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        if crc32c::crc32c(body).to_be_bytes() != checksum {
            return Err(BatchError::Checksum);
        }
        let mut head = &body[..HEAD_BYTES];
        if head.get_u8() != FORMAT_VERSION {
            return Err(BatchError::Malformed);
        }
        Ok(Batch {
            id: head.get_u64(),
            now_ms: head.get_u64(),
            counters: Counters {
                keys: head.get_u64(),
                volatile: head.get_u64(),
                bytes: head.get_u64(),
            },
            effects: bytes.slice(HEAD_BYTES..body.len()),
        })
    }

    /// Bytes that an effect borrowed, as a share of the batch's own.
    pub(crate) fn slice(&self, part: &[u8]) -> Bytes {
        self.effects.slice_ref(part)
    }

    /// The batch that this one stands on: it counts only if that was the last one that counted.
    pub(crate) fn after(&self) -> Option<u64> {
        let mut rest = &self.effects[..];
        match take_effect(&mut rest) {
            Some(Effect::After(id)) => Some(id),
            _ => None,
        }
    }

    /// A checksum of the effects.
    pub(crate) fn sum(&self) -> u32 {
        crc32c::crc32c(&self.effects)
    }

    /// Bytes of memory that the batch keeps.
    pub(crate) fn bytes(&self) -> u64 {
        (HEAD_BYTES + self.effects.len() + CHECKSUM_BYTES) as u64
    }

    /// Reads all of its memory once, in order: far faster than what walks over effects does, which has to
    /// wait for each before it knows where the next one is.
    pub(crate) fn touch(&self) {
        let lines = self.effects.iter().step_by(LINE_BYTES);
        std::hint::black_box(lines.fold(0, |sum, byte| sum ^ byte));
    }

    /// Hands the effects to `visit`, in order.
    ///
    /// *Errors*: [`BatchError::Malformed`]; effects before the malformed one were visited.
    pub(crate) fn for_each<'a>(
        &'a self,
        mut visit: impl FnMut(Effect<'a>),
    ) -> Result<(), BatchError> {
        let mut rest = &self.effects[..];
        while !rest.is_empty() {
            visit(take_effect(&mut rest).ok_or(BatchError::Malformed)?);
        }
        Ok(())
    }
}

fn take_effect<'a>(rest: &mut &'a [u8]) -> Option<Effect<'a>> {
    match rest.try_get_u8().ok()? {
        PUT => {
            let row_bytes = rest.try_get_u32().ok()? as usize;
            let value_bytes = rest.try_get_u32().ok()? as usize;
            let row = rest.split_off(..row_bytes)?;
            Some(Effect::Write { row, sealed: Some(rest.split_off(..value_bytes)?) })
        }
        DELETE => {
            let row_bytes = rest.try_get_u32().ok()? as usize;
            Some(Effect::Write { row: rest.split_off(..row_bytes)?, sealed: None })
        }
        DROP => take_version(rest).map(Effect::Drop),
        FLUSH => take_version(rest).map(Effect::Flush),
        AFTER => rest.try_get_u64().ok().map(Effect::After),
        REQUESTS => {
            let length = rest.try_get_u32().ok()? as usize;
            rest.split_off(..length).map(Effect::Requests)
        }
        _ => None,
    }
}

fn take_version(rest: &mut &[u8]) -> Option<Version> {
    let index = rest.try_get_u64().ok()?;
    Some(Version { index, ordinal: rest.try_get_u32().ok()? })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sample() -> Bytes {
        let mut builder = BatchBuilder::new(7, Some(6));
        builder.push(&Effects {
            writes: vec![
                RowWrite { row: Bytes::from("a"), value: Some(Bytes::from("one")) },
                RowWrite { row: Bytes::from("b"), value: None },
            ],
            dropped: vec![Version { index: 3, ordinal: 1 }],
            flushed_through: Some(Version { index: 4, ordinal: 0 }),
            ..Effects::default()
        });
        builder.finish(99, Counters { keys: 1, volatile: 2, bytes: 3 })
    }

    #[test]
    fn round_trip() {
        let batch = Batch::decode(&sample()).expect("a sound batch");
        assert_eq!((batch.id, batch.now_ms, batch.after()), (7, 99, Some(6)));
        assert_eq!(batch.counters, Counters { keys: 1, volatile: 2, bytes: 3 });
        let mut effects = Vec::new();
        batch.for_each(|effect| effects.push(effect)).expect("sound effects");
        assert_eq!(effects.remove(0), Effect::After(6));
        let Effect::Write { row, sealed: Some(sealed) } = &effects[0] else {
            panic!("a put first, not {:?}", effects[0])
        };
        assert_eq!(row::verify_row(row, sealed).expect("a sound row"), b"one");
        assert_eq!(effects[1], Effect::Write { row: b"b", sealed: None });
        assert_eq!(effects[2], Effect::Drop(Version { index: 3, ordinal: 1 }));
        assert_eq!(effects[3], Effect::Flush(Version { index: 4, ordinal: 0 }));
    }

    #[test]
    fn what_each_change_of_a_collection_writes_again_is_logged_once() {
        use commands::types::header::{Header, Kind, Value};
        use wire::ids::TableId;
        use wire::placement::Placement;

        let (table, generation) = (TableId(0), Version { index: 3, ordinal: 1 });
        let header = |ordinal| {
            let body = Bytes::from_static(b"body");
            let value = Value::Rows { kind: Kind::Set, generation, count: 9, bytes: 9, body };
            Header { version: Version { index: 4, ordinal }, expire_at_ms: None, value }.encode()
        };
        let node = rows::data_key(table, Placement::of_key(b"key"), generation, b"\x02node");
        let values: [&dyn Fn(u32) -> Bytes; 2] =
            [&header, &|ordinal| Bytes::from(vec![ordinal as u8; REPLACEABLE_DATA_BYTES_MIN])];
        for (row, value) in [rows::header_key(table, b"key"), node].into_iter().zip(values) {
            let mut builder = BatchBuilder::new(1, None);
            for ordinal in 0..5 {
                let writes = vec![RowWrite { row: row.clone(), value: Some(value(ordinal)) }];
                builder.push(&Effects { writes, ..Effects::default() });
            }
            let batch = Batch::decode(&builder.finish(0, Counters::default())).expect("sound");
            let mut logged = Vec::new();
            let visited = batch.for_each(|effect| {
                let Effect::Write { sealed: Some(sealed), .. } = effect else { panic!("a put") };
                logged.push(row::verify_row(&row, sealed).expect("a sound row").to_vec());
            });
            visited.expect("sound effects");
            assert_eq!(logged, [value(4).to_vec()], "the last alone");
        }
    }

    /// A value of so many bytes that all are `byte`.
    fn value(length: usize, byte: u8) -> Option<Bytes> {
        Some(Bytes::from(vec![byte; length]))
    }

    #[test]
    fn of_the_large_values_of_a_row_only_the_last_is_kept_and_no_row_ends_otherwise() {
        const LARGE: usize = REPLACEABLE_BYTES_MIN;
        let lengths = [None, Some(0), Some(LARGE - 1), Some(LARGE), Some(3 * LARGE)];
        // All sequences of five writes to two rows, as digits of a number.
        for case in 0..10_usize.pow(5) {
            let mut builder = BatchBuilder::new(1, None);
            let mut expected = BTreeMap::new();
            for (step, digit) in (0..5_u32).map(|at| (at as u8, case / 10_usize.pow(at) % 10)) {
                let row = Bytes::from(if digit < 5 { "a" } else { "b" });
                let value = lengths[digit % 5].and_then(|length| value(length, step));
                let write = RowWrite { row: row.clone(), value: value.clone() };
                builder.push(&Effects { writes: vec![write], ..Effects::default() });
                expected.insert(row, value);
            }
            let length = builder.len();
            let bytes = builder.finish(0, Counters::default());
            assert_eq!(bytes.len(), length + CHECKSUM_BYTES, "case {case}");
            let batch = Batch::decode(&bytes).expect("a sound batch");
            let (mut rows, mut large) = (BTreeMap::new(), 0);
            batch
                .for_each(|effect| {
                    let Effect::Write { row, sealed } = effect else { panic!("{effect:?}") };
                    let value = sealed.map(|sealed| row::verify_row(row, sealed).expect("sound"));
                    large += usize::from(value.is_some_and(|value| value.len() >= LARGE));
                    rows.insert(batch.slice(row), value.map(Bytes::copy_from_slice));
                })
                .expect("sound effects");
            assert_eq!(rows, expected, "case {case}");
            assert!(large <= 2, "case {case}: at most one a row");
        }
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_found() {
        let good = sample();
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 0x10;
            assert!(Batch::decode(&Bytes::from(bad)).is_err(), "flip at {at}");
            assert!(Batch::decode(&good.slice(..at)).is_err(), "cut at {at}");
        }
    }
}
