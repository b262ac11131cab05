//! A partition's rows from one node to another, while both go on.
//!
//! ```text
//! take (lacks the rows)              give (has them)
//!   Ask{at_least, session 0} ───────▶  flushes, then captures the rows at one log index: a snapshot of
//!                                      fjall and what memory holds over it; keeps both as a session
//!   Chunk 0: head, rows      ◀───────
//!   spools it on disk, has fjall write it
//!   Ask{session, 1, last row} ──────▶  goes on behind that row
//!   …                        ◀───────  Chunk n, the last
//!   it was one sorted run: the new rows, deletions of old ones that are not among them, and the row that
//!   says which log index the replica has reached. fjall takes it in as a whole or not at all
//! ```
//!
//! ```text
//! chunk 0 = head row*        others: row*
//! head    = applied length:u32 requests configuration    `meta`, `requests`, `message`
//! row     = key_length:u32 value_length:u32 key value   the value is sealed; numbers big-endian
//! ```
//!
//! The old rows stay until the run is there, and the spool outlives a crash: after one the replica has
//! the old rows or the new ones, and goes on fetching where it stopped, as long as the session lives. Rows
//! come in the order of their keys: first the partition's, then those of its TTL index, then its dead
//! generations. What a chunk holds is bounded, one is on its way at a time, and none is asked for
//! sooner than the rate allows.
//!
//! A session that is lost (its node stopped, or nobody asked for long) cannot be continued by another
//! node: rows at *that* log index are nowhere else. It is begun anew. A source that cannot read its rows
//! says that it has no snapshot at all: then the fetch is broken off, and consensus finds another source.

pub(crate) mod give;
mod spool;
pub(crate) mod take;
pub(crate) mod taking;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use commands::rows;
use wire::ids::PartitionId;
use wire::placement::{Placement, PlacementRange};

use crate::message::{put_config, take_config};
use crate::meta::{self, APPLIED_BYTES, Applied};
use crate::requests::Requests;

/// Where in a TTL index row's key the placement stands, in bytes.
const TTL_PLACEMENT_AT: usize = 12;
/// Bytes of a placement.
const PLACEMENT_BYTES: usize = 5;

/// The ranges of keys, ascending, in which the rows of a partition are: `[from, to)` each. That of the
/// TTL index holds rows of the table's other partitions too; see [`is_within`].
pub(crate) fn row_ranges(partition: PartitionId, range: PlacementRange) -> [(Bytes, Bytes); 3] {
    let at = |table: u32, placement: Option<Placement>| {
        let mut key = BytesMut::with_capacity(9);
        key.put_u32(table);
        key.put_slice(&placement.map_or([0; PLACEMENT_BYTES], Placement::to_bytes));
        key.freeze()
    };
    let table = range.table.0;
    let end = match Placement::new(range.last.get() + 1) {
        Some(after) => at(table, Some(after)),
        None => at(table + 1, None),
    };
    let ttl = |table: u32| Bytes::copy_from_slice(&(rows::TTL_SPACE | table).to_be_bytes());
    let data = (at(table, Some(range.first)), end);
    [data, (ttl(table), ttl(table + 1)), meta::dead_range(partition)]
}

/// Whether a row in one of the ranges is the partition's.
pub(crate) fn is_within(range: PlacementRange, row: &[u8]) -> bool {
    let is_ttl = row.first_chunk::<4>().is_some_and(|space| {
        let space = u32::from_be_bytes(*space);
        space & rows::TTL_SPACE != 0 && space != rows::META_SPACE
    });
    if !is_ttl {
        return true;
    }
    let placement = row.get(TTL_PLACEMENT_AT..).and_then(|rest| rest.first_chunk());
    placement.is_some_and(|bytes| range.contains(Placement::from_bytes(*bytes)))
}

/// What stands at the head of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) applied: Applied,
    pub(crate) requests: Requests,
    pub(crate) config: paxos::Config,
}

fn put_head(out: &mut BytesMut, head: &Head) {
    meta::put_applied(out, &head.applied);
    let mut requests = BytesMut::new();
    head.requests.encode(&mut requests);
    out.put_u32(u32::try_from(requests.len()).expect("the table is bounded"));
    out.put_slice(&requests);
    put_config(out, &head.config);
}

fn take_head(rest: &mut Bytes) -> Option<Head> {
    if rest.len() < APPLIED_BYTES {
        return None;
    }
    let applied = meta::decode_applied(rest.split_to(APPLIED_BYTES))?;
    let length = rest.try_get_u32().ok()? as usize;
    if rest.len() < length {
        return None;
    }
    let requests = Requests::decode(&rest.split_to(length))?;
    Some(Head { applied, requests, config: take_config(rest)? })
}

fn put_row(out: &mut BytesMut, row: &[u8], sealed: &[u8]) {
    out.reserve(8 + row.len() + sealed.len());
    out.put_u32(row.len() as u32);
    out.put_u32(sealed.len() as u32);
    out.put_slice(row);
    out.put_slice(sealed);
}

/// `None` at the end, or if the bytes are malformed: then some are left.
fn take_row(rest: &mut Bytes) -> Option<(Bytes, Bytes)> {
    let mut lengths = rest.get(..8)?;
    let (row, sealed) = (lengths.get_u32() as usize, lengths.get_u32() as usize);
    if rest.len() - 8 < row + sealed {
        return None;
    }
    rest.advance(8);
    Some((rest.split_to(row), rest.split_to(sealed)))
}

#[cfg(test)]
mod tests {
    use wire::ids::TableId;

    use super::*;

    #[test]
    fn a_partitions_rows_are_in_its_ranges() {
        let half = Placement::new(1 << 39).expect("40 bits");
        let whole = PlacementRange::whole(TableId(3));
        let upper = PlacementRange { first: half, ..whole };
        let partition = PartitionId(9);
        let (dead, _) = meta::dead_row(partition, Default::default());
        for key in [&b"a"[..], b"b", b"some other key", b"{tag}1"] {
            let is_upper = Placement::of_key(key) >= half;
            let header = rows::header_key(TableId(3), key);
            let data = rows::data_key(TableId(3), Placement::of_key(key), Default::default(), b"");
            let ttl = rows::ttl_key(TableId(3), 1 << 40, key);
            for (at, row) in [(0, &header), (0, &data), (1, &ttl), (2, &dead)] {
                for (range, belongs) in [(whole, true), (upper, is_upper || at == 2)] {
                    let ranges = row_ranges(partition, range);
                    let found = |(from, to): &(Bytes, Bytes)| from <= row && row < to;
                    let place = ranges.iter().position(found).filter(|_| is_within(range, row));
                    assert_eq!(place, belongs.then_some(at), "{row:?} in {range:?}");
                }
            }
            let other = rows::header_key(TableId(4), key);
            let found = |(from, to): &(Bytes, Bytes)| *from <= other && other < *to;
            assert!(!row_ranges(partition, whole).iter().any(found));
        }
        assert!(row_ranges(partition, upper).is_sorted());
    }
}
