//! Rows about a replica itself, written in the same sorted run as the data they describe.
//!
//! ```text
//! applied row  META_SPACE:u32 0x01 partition:u64
//!              → index:u64 now_ms:u64 keys:u64 volatile:u64 bytes:u64 has_fence:u8 index:u64 ordinal:u32
//!                batch:u64                        (which rows of before it was there lack)
//! dead row     META_SPACE:u32 0x02 partition:u64 index:u64 ordinal:u32 → (empty)
//! members row  META_SPACE:u32 0x03 partition:u64 → index:u64 configuration
//! requests row META_SPACE:u32 0x04 partition:u64 → table                 (`requests`)
//! ```
//!
//! The members row is written with a snapshot: the log's newest configuration may be older than that.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use commands::{Counters, rows};
use wire::ids::{PartitionId, Version};

use crate::requests::Requests;
use crate::row;

const APPLIED: u8 = 1;
const DEAD: u8 = 2;
const MEMBERS: u8 = 3;
const REQUESTS: u8 = 4;

/// Bytes of what an applied row says.
pub(crate) const APPLIED_BYTES: usize = 61;
/// The same without the batch.
const APPLIED_BYTES_BEFORE: usize = 53;

/// How far a replica's rows reach, and the partition's totals there.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Applied {
    /// All batches up to this log index are in the rows.
    pub(crate) index: u64,
    /// The newest batch's time, ms since the epoch.
    pub(crate) now_ms: u64,
    /// The totals.
    pub(crate) counters: Counters,
    /// The fence of the last FLUSHDB.
    pub(crate) flushed_through: Option<Version>,
    /// The id of the newest batch: one that stands on another follows nothing else.
    pub(crate) batch: u64,
}

fn key(kind: u8, partition: PartitionId) -> BytesMut {
    let mut key = BytesMut::with_capacity(25);
    key.put_u32(rows::META_SPACE);
    key.put_u8(kind);
    key.put_u64(partition.0);
    key
}

/// The key of a partition's applied row.
pub(crate) fn applied_key(partition: PartitionId) -> Bytes {
    key(APPLIED, partition).freeze()
}

/// The applied row, sealed.
pub(crate) fn applied_row(partition: PartitionId, applied: &Applied) -> (Bytes, Bytes) {
    let mut body = BytesMut::with_capacity(APPLIED_BYTES);
    put_applied(&mut body, applied);
    let key = applied_key(partition);
    let sealed = row::seal_row(&key, &body);
    (key, sealed)
}

/// Reads the body of an applied row; `None` if it has another shape.
pub(crate) fn decode_applied(mut body: Bytes) -> Option<Applied> {
    if ![APPLIED_BYTES, APPLIED_BYTES_BEFORE].contains(&body.len()) {
        return None;
    }
    let index = body.get_u64();
    let now_ms = body.get_u64();
    let counters =
        Counters { keys: body.get_u64(), volatile: body.get_u64(), bytes: body.get_u64() };
    let has_fence = body.get_u8() == 1;
    let fence = Version { index: body.get_u64(), ordinal: body.get_u32() };
    let batch = body.try_get_u64().unwrap_or(0);
    let flushed_through = has_fence.then_some(fence);
    Some(Applied { index, now_ms, counters, flushed_through, batch })
}

/// The key of a partition's members row.
pub(crate) fn members_key(partition: PartitionId) -> Bytes {
    key(MEMBERS, partition).freeze()
}

/// The members row, sealed.
pub(crate) fn members_row(partition: PartitionId, config: &paxos::Config) -> (Bytes, Bytes) {
    let mut body = BytesMut::new();
    body.put_u64(config.index.0);
    body.put_slice(&config.encode());
    let key = members_key(partition);
    let sealed = row::seal_row(&key, &body);
    (key, sealed)
}

/// Reads the body of a members row; `None` if it has another shape.
pub(crate) fn decode_members(mut body: Bytes) -> Option<paxos::Config> {
    let index = paxos::Index(body.try_get_u64().ok()?);
    paxos::Config::decode(&body, index)
}

/// Writes what an applied row says, without its key.
pub(crate) fn put_applied(body: &mut BytesMut, applied: &Applied) {
    body.put_u64(applied.index);
    body.put_u64(applied.now_ms);
    body.put_u64(applied.counters.keys);
    body.put_u64(applied.counters.volatile);
    body.put_u64(applied.counters.bytes);
    let fence = applied.flushed_through.unwrap_or_default();
    body.put_u8(u8::from(applied.flushed_through.is_some()));
    body.put_u64(fence.index);
    body.put_u32(fence.ordinal);
    body.put_u64(applied.batch);
}

/// The key of a partition's requests row.
pub(crate) fn requests_key(partition: PartitionId) -> Bytes {
    key(REQUESTS, partition).freeze()
}

/// The requests row, sealed.
pub(crate) fn requests_row(partition: PartitionId, requests: &Requests) -> (Bytes, Bytes) {
    let mut body = BytesMut::new();
    requests.encode(&mut body);
    let key = requests_key(partition);
    let sealed = row::seal_row(&key, &body);
    (key, sealed)
}

/// The row that remembers a dead generation, sealed.
pub(crate) fn dead_row(partition: PartitionId, generation: Version) -> (Bytes, Bytes) {
    let mut key = key(DEAD, partition);
    key.put_u64(generation.index);
    key.put_u32(generation.ordinal);
    let key = key.freeze();
    let sealed = row::seal_row(&key, b"");
    (key, sealed)
}

/// The bounds of a partition's dead rows.
pub(crate) fn dead_range(partition: PartitionId) -> (Bytes, Bytes) {
    let mut end = key(DEAD, partition);
    end.put_bytes(0xff, 13);
    (key(DEAD, partition).freeze(), end.freeze())
}

/// The generation that a row names, if it is a dead row of this partition.
pub(crate) fn generation_of(partition: PartitionId, row: &[u8]) -> Option<Version> {
    row.starts_with(&key(DEAD, partition)).then(|| decode_dead(row)).flatten()
}

/// The generation that a dead row's key names.
pub(crate) fn decode_dead(key: &[u8]) -> Option<Version> {
    let mut rest = key.get(13..25)?;
    Some(Version { index: rest.get_u64(), ordinal: rest.get_u32() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip() {
        let applied = Applied {
            index: 9,
            now_ms: 8,
            counters: Counters { keys: 7, volatile: 6, bytes: 5 },
            flushed_through: Some(Version { index: 4, ordinal: 3 }),
            batch: 2,
        };
        let (key, sealed) = applied_row(PartitionId(2), &applied);
        let body = row::open_row(&key, &sealed).expect("a sound row");
        assert_eq!(decode_applied(body.clone()), Some(applied));
        let before = body.slice(..APPLIED_BYTES_BEFORE);
        assert_eq!(decode_applied(before), Some(Applied { batch: 0, ..applied }));

        let mut config = paxos::Config::initial(&[paxos::NodeId(1), paxos::NodeId(2)]);
        config.index = paxos::Index(12);
        let (key, sealed) = members_row(PartitionId(2), &config);
        let body = row::open_row(&key, &sealed).expect("a sound row");
        assert_eq!(decode_members(body), Some(config));

        let generation = Version { index: 1 << 40, ordinal: 77 };
        let (key, _) = dead_row(PartitionId(2), generation);
        let (from, to) = dead_range(PartitionId(2));
        assert!(from <= key && key < to);
        assert_eq!(decode_dead(&key), Some(generation));
    }
}
