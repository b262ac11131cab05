//! Streams: what a header keeps of one, where its entries lie, and how they are read.
//!
//! ```text
//! body of the header = last_id max_deleted_id entries_added:varint
//!                      groups:varint next_group:varint
//!                      chunks:varint first_chunk last_chunk { entry }     the newest entries
//! entry              = id count:varint { length:varint text }             names and values in turns
//! id                 = ms:varint seq:varint
//!
//! data rows, what follows the generation (ids big-endian):
//!   0 ms:u64 seq:u64          a chunk: { entry }; named by the first it had, entries in order
//!   1 … 4                     groups and what they have pending: types/stream_groups.rs
//! ```
//!
//! New entries gather in the header, so that a small stream is one row and an XADD writes no more than
//! that. At [`TAIL_BYTES_MAX`] they become a chunk, which is only touched again to delete from it: an
//! entry is written about twice. An entry that is larger is a chunk of its own.
//!
//! `first_chunk` and `last_chunk` bound every scan: rows that trimming deleted lie before the first.

use std::ops::ControlFlow;

use bytes::{BufMut, Bytes, BytesMut};
use wire::placement::Placement;

use crate::error::CommandError;
use crate::types::header::{Header, Kind, Value, put_varint, read_varint};
use crate::types::keyspace;
use crate::types::ring::Place;
use crate::view::{Direction, View, ViewError};

/// Most bytes of entries that gather in the header.
pub(crate) const TAIL_BYTES_MAX: usize = 1 << 10;

const SUB_CHUNK: u8 = 0;
const ID_BYTES: usize = 16;

/// An entry's ID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) struct Id {
    pub(crate) ms: u64,
    pub(crate) seq: u64,
}

impl Id {
    pub(crate) const MIN: Id = Id { ms: 0, seq: 0 };
    pub(crate) const MAX: Id = Id { ms: u64::MAX, seq: u64::MAX };

    /// The ID after this one, if there is one.
    pub(crate) fn next(self) -> Option<Id> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Id { seq, ..self }),
            None => Some(Id { ms: self.ms.checked_add(1)?, seq: 0 }),
        }
    }

    /// The ID before this one, if there is one.
    pub(crate) fn previous(self) -> Option<Id> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(Id { seq, ..self }),
            None => Some(Id { ms: self.ms.checked_sub(1)?, seq: u64::MAX }),
        }
    }

    /// As clients see it.
    pub(crate) fn text(self) -> Bytes {
        let (mut ms, mut seq) = (itoa::Buffer::new(), itoa::Buffer::new());
        [ms.format(self.ms), "-", seq.format(self.seq)].concat().into()
    }

    /// Big-endian, so that bytes sort as IDs do.
    pub(crate) fn to_bytes(self) -> [u8; ID_BYTES] {
        ((u128::from(self.ms) << 64) | u128::from(self.seq)).to_be_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; ID_BYTES]) -> Id {
        let number = u128::from_be_bytes(bytes);
        Id { ms: (number >> 64) as u64, seq: number as u64 }
    }

    pub(crate) fn put(self, out: &mut BytesMut) {
        put_varint(out, self.ms);
        put_varint(out, self.seq);
    }

    pub(crate) fn read(input: &mut &[u8]) -> Option<Id> {
        Some(Id { ms: read_varint(input)?, seq: read_varint(input)? })
    }
}

/// An entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) id: Id,
    /// Names and values in turns.
    pub(crate) fields: Vec<Bytes>,
}

impl Entry {
    /// Appends the entry as it is stored.
    pub(crate) fn put(&self, out: &mut BytesMut) {
        put_entry(out, self.id, &self.fields);
    }
}

/// Appends an entry as it is stored; its fields are names and values in turns.
pub(crate) fn put_entry(out: &mut BytesMut, id: Id, fields: &[Bytes]) {
    id.put(out);
    put_varint(out, fields.len() as u64);
    for text in fields {
        put_varint(out, text.len() as u64);
        out.put_slice(text);
    }
}

/// The entries stored one behind the other.
pub(crate) fn entries(stored: &Bytes) -> impl Iterator<Item = Result<Entry, ViewError>> + '_ {
    let mut rest = &stored[..];
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let entry = read_entry(stored, &mut rest);
        if entry.is_none() {
            rest = &[];
        }
        Some(entry.ok_or(ViewError::Damaged))
    })
}

fn read_entry(stored: &Bytes, rest: &mut &[u8]) -> Option<Entry> {
    let id = Id::read(rest)?;
    let count = read_varint(rest)?;
    let mut fields = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(read_varint(rest)?).ok()?;
        fields.push(stored.slice_ref(rest.split_off(..length)?));
    }
    Some(Entry { id, fields })
}

/// What the header's body says before the newest entries.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Meta {
    /// The highest ID that was ever given.
    pub(crate) last_id: Id,
    /// The highest ID that XDEL deleted.
    pub(crate) max_deleted_id: Id,
    /// Entries ever added.
    pub(crate) entries_added: u64,
    /// Consumer groups.
    pub(crate) groups: u64,
    /// The number of the next group.
    pub(crate) next_group: u64,
    /// Chunks.
    pub(crate) chunks: u64,
    /// No chunk is named by less.
    pub(crate) first_chunk: Id,
    /// No chunk is named by more.
    pub(crate) last_chunk: Id,
}

impl Meta {
    fn read(body: &mut &[u8]) -> Option<Meta> {
        Some(Meta {
            last_id: Id::read(body)?,
            max_deleted_id: Id::read(body)?,
            entries_added: read_varint(body)?,
            groups: read_varint(body)?,
            next_group: read_varint(body)?,
            chunks: read_varint(body)?,
            first_chunk: Id::read(body)?,
            last_chunk: Id::read(body)?,
        })
    }

    /// The header's body.
    pub(crate) fn body(&self, tail: &[u8]) -> Bytes {
        let mut body = BytesMut::with_capacity(64 + tail.len());
        self.last_id.put(&mut body);
        self.max_deleted_id.put(&mut body);
        put_varint(&mut body, self.entries_added);
        put_varint(&mut body, self.groups);
        put_varint(&mut body, self.next_group);
        put_varint(&mut body, self.chunks);
        self.first_chunk.put(&mut body);
        self.last_chunk.put(&mut body);
        body.put_slice(tail);
        body.freeze()
    }
}

/// The row of a chunk.
pub(crate) fn chunk_row(place: &Place, id: Id) -> Bytes {
    let mut sub = [SUB_CHUNK; 1 + ID_BYTES];
    sub[1..].copy_from_slice(&id.to_bytes());
    place.row(&sub)
}

/// Just above the row of a chunk.
pub(crate) fn behind_chunk_row(place: &Place, id: Id) -> Bytes {
    match id.next() {
        Some(next) => chunk_row(place, next),
        None => place.row(&[SUB_CHUNK + 1]),
    }
}

/// The ID that names a chunk's row.
pub(crate) fn chunk_id(row: &[u8]) -> Option<Id> {
    row.last_chunk::<ID_BYTES>().map(|id| Id::from_bytes(*id))
}

/// A stream to be read.
pub(crate) struct Stream<'v> {
    view: &'v dyn View,
    pub(crate) place: Place,
    /// How many entries it has.
    pub(crate) count: u64,
    /// Bytes of its entries.
    pub(crate) bytes: u64,
    pub(crate) meta: Meta,
    /// The newest entries, as they are stored.
    pub(crate) tail: Bytes,
}

impl<'v> Stream<'v> {
    /// The stream at a key; `None` if the key does not exist.
    ///
    /// *Errors*: `WrongType` if it holds something else.
    pub(crate) fn read(view: &'v dyn View, key: &[u8]) -> Result<Option<Stream<'v>>, CommandError> {
        let Some(Header { value, .. }) = keyspace::read(view, key)? else { return Ok(None) };
        if value.kind() != Kind::Stream {
            return Err(CommandError::WrongType);
        }
        Ok(Some(Stream::of(view, key, &value)?))
    }

    /// The stream that a header of this key holds.
    pub(crate) fn of(
        view: &'v dyn View,
        key: &[u8],
        value: &Value,
    ) -> Result<Stream<'v>, ViewError> {
        let Value::Rows { generation, count, bytes, body, .. } = value else {
            return Err(ViewError::Damaged);
        };
        let mut rest = &body[..];
        let meta = Meta::read(&mut rest).ok_or(ViewError::Damaged)?;
        let tail = body.slice_ref(rest);
        let (table, placement) = (view.table(), Placement::of_key(key));
        let place = Place { table, placement, generation: *generation };
        Ok(Stream { view, place, count: *count, bytes: *bytes, meta, tail })
    }

    /// The view it is read from.
    pub(crate) fn view(&self) -> &'v dyn View {
        self.view
    }

    /// The first `count` entries of a range of IDs, or the last ones.
    pub(crate) fn range(
        &self,
        (start, end): (Id, Id),
        count: usize,
        direction: Direction,
    ) -> Result<Vec<Entry>, ViewError> {
        let mut found = Found { range: (start, end), count, direction, entries: Vec::new() };
        if start > end || count == 0 {
            return Ok(found.entries);
        }
        let forward = direction == Direction::Forward;
        let mut flow = ControlFlow::Continue(());
        if !forward {
            flow = found.take(&self.tail)?;
        }
        if flow.is_continue() && self.meta.chunks > 0 {
            flow = self.visit_chunks(&mut found)?;
        }
        if forward && flow.is_continue() {
            let _ = found.take(&self.tail)?;
        }
        Ok(found.entries)
    }

    fn visit_chunks(&self, found: &mut Found) -> Result<ControlFlow<()>, ViewError> {
        let (start, end) = found.range;
        let first = self.chunk_of(start)?.unwrap_or(self.meta.first_chunk);
        let from = chunk_row(&self.place, first);
        let to = behind_chunk_row(&self.place, end.min(self.meta.last_chunk));
        let (mut outcome, mut flow) = (Ok(()), ControlFlow::Continue(()));
        self.view.scan(&from, &to, found.direction, &mut |_, chunk| {
            match found.take(chunk) {
                Ok(taken) => flow = taken,
                Err(error) => {
                    outcome = Err(error);
                    flow = ControlFlow::Break(());
                }
            }
            flow
        })?;
        outcome?;
        Ok(flow)
    }

    /// The chunk that an entry of this ID is in, if it is in one: the last one that begins no later.
    pub(crate) fn chunk_of(&self, id: Id) -> Result<Option<Id>, ViewError> {
        if self.meta.chunks == 0 || id < self.meta.first_chunk {
            return Ok(None);
        }
        let from = chunk_row(&self.place, self.meta.first_chunk);
        let to = behind_chunk_row(&self.place, id.min(self.meta.last_chunk));
        let mut chunk = None;
        self.view.scan(&from, &to, Direction::Backward, &mut |row, _| {
            chunk = chunk_id(row);
            ControlFlow::Break(())
        })?;
        Ok(chunk)
    }

    /// An entry.
    pub(crate) fn entry(&self, id: Id) -> Result<Option<Entry>, ViewError> {
        Ok(self.range((id, id), 1, Direction::Forward)?.pop())
    }

    /// The ID of the first entry; 0-0 if there is none.
    pub(crate) fn first_id(&self) -> Result<Id, ViewError> {
        self.edge_id(Direction::Forward)
    }

    /// The ID of the last entry that is still there; 0-0 if there is none.
    pub(crate) fn top_id(&self) -> Result<Id, ViewError> {
        self.edge_id(Direction::Backward)
    }

    fn edge_id(&self, direction: Direction) -> Result<Id, ViewError> {
        let edge = self.range((Id::MIN, Id::MAX), 1, direction)?.pop();
        Ok(edge.map_or(Id::MIN, |entry| entry.id))
    }

    /// Whether XDEL may have deleted behind this ID.
    pub(crate) fn has_deleted_from(&self, id: Id) -> bool {
        self.count > 0 && self.meta.max_deleted_id != Id::MIN && id <= self.meta.max_deleted_id
    }

    /// How many entries were ever added up to this ID, if that can be told.
    pub(crate) fn entries_up_to(&self, id: Id) -> Result<Option<u64>, ViewError> {
        let Meta { last_id, max_deleted_id, entries_added, .. } = self.meta;
        if entries_added == 0 {
            return Ok(Some(0));
        }
        if self.count == 0 && id <= last_id {
            return Ok(Some(entries_added));
        }
        if id != Id::MIN && id < max_deleted_id {
            return Ok(None);
        }
        if id == last_id {
            return Ok(Some(entries_added));
        }
        if id > last_id {
            return Ok(None);
        }
        let first = self.first_id()?;
        let whole_behind_first = max_deleted_id == Id::MIN || max_deleted_id < first;
        let before = entries_added.saturating_sub(self.count);
        Ok(match id.cmp(&first) {
            std::cmp::Ordering::Less if whole_behind_first => Some(before),
            std::cmp::Ordering::Equal if whole_behind_first => Some(before + 1),
            _ => None,
        })
    }
}

/// Entries gathered from a range.
struct Found {
    range: (Id, Id),
    count: usize,
    direction: Direction,
    entries: Vec<Entry>,
}

impl Found {
    /// Takes what is wanted of some stored entries; breaks when there is enough.
    fn take(&mut self, stored: &Bytes) -> Result<ControlFlow<()>, ViewError> {
        let mut wanted = Vec::new();
        for entry in entries(stored) {
            let entry = entry?;
            if self.range.0 <= entry.id && entry.id <= self.range.1 {
                wanted.push(entry);
                if self.direction == Direction::Forward
                    && self.entries.len() + wanted.len() >= self.count
                {
                    break;
                }
            }
        }
        if self.direction == Direction::Backward {
            wanted.reverse();
        }
        wanted.truncate(self.count - self.entries.len());
        self.entries.append(&mut wanted);
        let enough = self.entries.len() >= self.count;
        Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn ids_follow_each_other() {
        let id = |ms, seq| Id { ms, seq };
        assert_eq!(id(1, u64::MAX).next(), Some(id(2, 0)));
        assert_eq!(id(2, 0).previous(), Some(id(1, u64::MAX)));
        assert_eq!((Id::MAX.next(), Id::MIN.previous()), (None, None));
        for one in [Id::MIN, id(1, 2), id(u64::MAX, 0), Id::MAX] {
            assert_eq!(Id::from_bytes(one.to_bytes()), one);
        }
        assert!(id(1, u64::MAX).to_bytes() < id(2, 0).to_bytes());
    }

    #[test]
    fn what_a_header_says_reads_back() {
        let id = |ms, seq| Id { ms, seq };
        let meta = Meta {
            last_id: Id::MAX,
            max_deleted_id: id(3, 0),
            entries_added: u64::MAX,
            groups: 2,
            next_group: 7,
            chunks: 1,
            first_chunk: id(1, 1),
            last_chunk: id(2, 2),
        };
        let body = meta.body(b"tail");
        let mut rest = &body[..];
        assert_eq!(Meta::read(&mut rest), Some(meta));
        assert_eq!(rest, b"tail");
        for length in 0..body.len() - 4 {
            assert_eq!(Meta::read(&mut &body[..length]), None);
        }
    }

    #[test]
    fn damaged_entries_are_told_once() {
        let fields = vec![Bytes::from_static(b"name"), Bytes::from_static(b"value")];
        let mut out = BytesMut::new();
        Entry { id: Id { ms: 5, seq: 300 }, fields }.put(&mut out);
        let stored = out.freeze();
        assert_eq!(entries(&stored).filter_map(Result::ok).count(), 1);
        for length in 1..stored.len() {
            let told: Vec<_> = entries(&stored.slice(..length)).map(|e| e.is_ok()).collect();
            assert_eq!(told, [false], "{length}");
        }
        let mut random = Random::new(3);
        for _ in 0..50_000 {
            entries(&Bytes::from(random.bytes(40))).for_each(drop);
        }
    }
}
