//! Hashes: what a header keeps of one, where its fields lie, and how they are read.
//!
//! ```text
//! body of the header = marks:u8 [earliest_ms:varint] { entry }     entries if the hash is inline
//! marks              = TABLE 1 | TIMED 2 | DUE 4
//! entry              = types/hash_inline.rs
//!
//! data rows, what follows the generation:
//!   0 hash32(field):u32 field       the field (types/ring.rs); value = expire_at_ms:varint (0: none) value
//!   1 expire_at_ms:u64 field        a field's time to live; value empty
//! ```
//!
//! A small hash is inline: one row, read and written as a whole. Once it has more than
//! [`INLINE_FIELDS_MAX`] fields or [`INLINE_BYTES_MAX`] bytes its fields become rows of a generation,
//! ordered by a hash of the field, which is what HSCAN's stateless cursor and HRANDFIELD's draws
//! stand on. It never goes back: DEL and a new HSET do that.
//!
//! DUE says that `earliest_ms` follows: no field's time comes before it. It may be too early (its
//! field was deleted, and looking for the next one would cost a seek in every HDEL), never too late.
//! The key's row in the TTL index stands at it (keyspace.rs), so that the leader deletes in time what
//! reads already hide.
//!
//! TABLE and TIMED have nothing to do with how the hash is stored. They remember which encoding Redis
//! would name: like its own, they are never taken back.

use std::ops::ControlFlow;

use bytes::{BufMut, Bytes, BytesMut};
use wire::placement::Placement;

use crate::error::CommandError;
use crate::overdue::Overdue;
use crate::types::hash_inline;
use crate::types::header::{Header, Kind, Value, put_varint, read_varint};
use crate::types::keyspace;
use crate::types::ring::{HASHES, Place};
use crate::view::{Direction, View, ViewError};

/// Most fields of a hash that lives in its header row.
pub(crate) const INLINE_FIELDS_MAX: u64 = 64;
/// Most bytes of the entries of a hash that lives in its header row.
pub(crate) const INLINE_BYTES_MAX: usize = 1 << 10;
/// Redis's `hash-max-listpack-entries`: with more fields it answers `hashtable`.
pub(crate) const LISTPACK_FIELDS_MAX: u64 = 512;
/// Redis's `hash-max-listpack-value`, in bytes: with a longer field or value likewise.
pub(crate) const LISTPACK_TEXT_BYTES_MAX: usize = 64;

const MARK_TABLE: u8 = 1;
const MARK_TIMED: u8 = 1 << 1;
const MARK_DUE: u8 = 1 << 2;

const SUB_TIME: u8 = 1;
/// Bytes before the field in the row of its time to live, behind the generation.
const TIME_PREFIX_BYTES: usize = 9;

/// A field as it is stored, hidden ones included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) field: Bytes,
    pub(crate) value: Bytes,
    /// When the field ceases to exist, in ms since the epoch.
    pub(crate) expire_at_ms: Option<u64>,
}

impl Entry {
    /// Whether the field exists for clients.
    pub(crate) fn is_live(&self, view: &dyn View) -> bool {
        self.expire_at_ms.is_none_or(|at| !view.is_past(at))
    }
}

/// What the header's body says before the entries.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Meta {
    /// Redis would have turned it into a hash table.
    pub(crate) is_table: bool,
    /// A field was given a time to live.
    pub(crate) is_timed: bool,
    /// No field's time comes before this; `None`: no field has one.
    pub(crate) earliest_ms: Option<u64>,
}

impl Meta {
    /// Reads it and moves `body` to the entries; `None` if it is damaged.
    pub(crate) fn read(body: &mut &[u8]) -> Option<Meta> {
        let (marks, rest) = body.split_first()?;
        *body = rest;
        if marks & !(MARK_TABLE | MARK_TIMED | MARK_DUE) != 0 {
            return None;
        }
        let earliest_ms = if marks & MARK_DUE != 0 { Some(read_varint(body)?) } else { None };
        Some(Meta {
            is_table: marks & MARK_TABLE != 0,
            is_timed: marks & MARK_TIMED != 0,
            earliest_ms,
        })
    }

    /// The header's body: this, then the entries.
    pub(crate) fn body(&self, entries: &[u8]) -> Bytes {
        let mut body = BytesMut::with_capacity(11 + entries.len());
        let due = if self.earliest_ms.is_some() { MARK_DUE } else { 0 };
        let table = if self.is_table { MARK_TABLE } else { 0 };
        let timed = if self.is_timed { MARK_TIMED } else { 0 };
        body.put_u8(due | table | timed);
        if let Some(at) = self.earliest_ms {
            put_varint(&mut body, at);
        }
        body.put_slice(entries);
        body.freeze()
    }

    /// Redis's name of the encoding.
    pub(crate) fn encoding(&self) -> &'static str {
        match (self.is_table, self.is_timed) {
            (true, _) => "hashtable",
            (false, true) => "listpackex",
            (false, false) => "listpack",
        }
    }
}

/// When the leader has to look at a hash for fields whose time has come; `None` for anything else.
pub(crate) fn fields_due_ms(value: &Value) -> Option<u64> {
    meta_of(value)?.earliest_ms
}

/// What the header of a hash says; `None` if it is none, or damaged.
pub(crate) fn meta_of(value: &Value) -> Option<Meta> {
    match value {
        Value::Inline { kind: Kind::Hash, body, .. }
        | Value::Rows { kind: Kind::Hash, body, .. } => Meta::read(&mut &body[..]),
        _ => None,
    }
}

/// The rows that only a hash has.
impl Place {
    /// The row of a field's time to live.
    pub(crate) fn time_row(&self, expire_at_ms: u64, field: &[u8]) -> Bytes {
        let mut sub = BytesMut::with_capacity(TIME_PREFIX_BYTES + field.len());
        sub.put_u8(SUB_TIME);
        sub.put_u64(expire_at_ms);
        sub.put_slice(field);
        self.row(&sub)
    }

    /// Visits the fields in the order of their hashes.
    pub(crate) fn fields(
        &self,
        view: &dyn View,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        let mut outcome = Ok(());
        self.ring(view, (0, HASHES), &mut |_, field, value| match read_field(field, value) {
            Some(entry) => visit(entry),
            None => {
                outcome = Err(ViewError::Damaged);
                ControlFlow::Break(())
            }
        })?;
        outcome
    }

    /// Visits the times to live from one on, soonest first, with their rows and fields.
    pub(crate) fn times(
        &self,
        view: &dyn View,
        from_ms: u64,
        visit: &mut dyn FnMut(&Bytes, u64, Bytes) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        let prefix = self.row(&[]).len();
        let (from, to) = (self.time_row(from_ms, b""), self.row(&[SUB_TIME + 1]));
        let mut outcome = Ok(());
        view.scan(&from, &to, Direction::Forward, &mut |row, _| {
            let time = row.get(prefix + 1..prefix + TIME_PREFIX_BYTES);
            let Some(time) = time.and_then(|time| <[u8; 8]>::try_from(time).ok()) else {
                outcome = Err(ViewError::Damaged);
                return ControlFlow::Break(());
            };
            visit(row, u64::from_be_bytes(time), row.slice(prefix + TIME_PREFIX_BYTES..))
        })?;
        outcome
    }
}

/// The value of a field's row.
pub(crate) fn field_value(value: &[u8], expire_at_ms: Option<u64>) -> Bytes {
    let mut row = BytesMut::with_capacity(value.len() + 1);
    put_varint(&mut row, expire_at_ms.unwrap_or(0));
    row.put_slice(value);
    row.freeze()
}

/// The entry in a field's row; `None` if it is damaged.
pub(crate) fn read_field(field: Bytes, row: &Bytes) -> Option<Entry> {
    let mut rest = &row[..];
    let expire_at_ms = match read_varint(&mut rest)? {
        0 => None,
        at => Some(at),
    };
    Some(Entry { field, value: row.slice(row.len() - rest.len()..), expire_at_ms })
}

/// Where a hash keeps its fields.
#[derive(Clone, Debug)]
pub(crate) enum Fields {
    /// In the header: the entries.
    Inline(Bytes),
    /// In rows.
    Rows(Place),
}

/// A hash to be read.
pub(crate) struct Hash<'v> {
    view: &'v dyn View,
    key: &'v [u8],
    /// How many fields it has, those hidden and not yet deleted included, as HLEN tells it.
    pub(crate) count: u64,
    /// Bytes of its fields and values.
    pub(crate) bytes: u64,
    pub(crate) meta: Meta,
    pub(crate) fields: Fields,
}

impl<'v> Hash<'v> {
    /// The hash at a key; `None` if the key does not exist.
    ///
    /// *Errors*: `WrongType` if it holds something else.
    pub(crate) fn read(
        view: &'v dyn View,
        key: &'v [u8],
    ) -> Result<Option<Hash<'v>>, CommandError> {
        let Some(Header { value, .. }) = keyspace::read(view, key)? else { return Ok(None) };
        if value.kind() != Kind::Hash {
            return Err(CommandError::WrongType);
        }
        Ok(Some(Hash::of(view, key, &value)?))
    }

    /// The hash that a header of this key holds.
    pub(crate) fn of(
        view: &'v dyn View,
        key: &'v [u8],
        value: &Value,
    ) -> Result<Hash<'v>, ViewError> {
        let (count, bytes, body) = match value {
            Value::Inline { count, body, .. } => (*count, value.bytes(), body),
            Value::Rows { count, bytes, body, .. } => (*count, *bytes, body),
            Value::String { .. } => return Err(ViewError::Damaged),
        };
        let mut rest = &body[..];
        let meta = Meta::read(&mut rest).ok_or(ViewError::Damaged)?;
        let fields = match value.generation() {
            Some(generation) => Fields::Rows(Place {
                table: view.table(),
                placement: Placement::of_key(key),
                generation,
            }),
            None => Fields::Inline(body.slice(body.len() - rest.len()..)),
        };
        Ok(Hash { view, key, count, bytes, meta, fields })
    }

    /// A field, if it exists for clients.
    pub(crate) fn get(&self, field: &[u8]) -> Result<Option<Entry>, ViewError> {
        let entry = match &self.fields {
            Fields::Inline(entries) => {
                hash_inline::find(entries, field)?.map(|span| span.entry(entries))
            }
            Fields::Rows(place) => get_row(self.view, place, field)?,
        };
        match entry {
            Some(entry) if !entry.is_live(self.view) => {
                self.view.meet_overdue(self.key, Overdue::Field(entry.field));
                Ok(None)
            }
            entry => Ok(entry),
        }
    }

    /// Has whatever fields have expired deleted behind the command.
    pub(crate) fn meet_fields(&self) {
        if self.meta.earliest_ms.is_some_and(|at| self.view.is_past(at)) {
            self.view.meet_overdue(self.key, Overdue::Fields);
        }
    }

    /// Visits all fields, hidden ones too.
    pub(crate) fn for_each(
        &self,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        match &self.fields {
            Fields::Inline(entries) => {
                for span in hash_inline::spans(entries) {
                    if visit(span?.entry(entries)).is_break() {
                        break;
                    }
                }
                Ok(())
            }
            Fields::Rows(place) => place.fields(self.view, visit),
        }
    }

    /// All fields that exist for clients.
    pub(crate) fn live(&self) -> Result<Vec<Entry>, ViewError> {
        let mut live = Vec::new();
        self.for_each(&mut |entry| {
            if entry.is_live(self.view) {
                live.push(entry);
            }
            ControlFlow::Continue(())
        })?;
        Ok(live)
    }

    /// The view it is read from.
    pub(crate) fn view(&self) -> &'v dyn View {
        self.view
    }
}

/// The row of a field, hidden or not.
pub(crate) fn get_row(
    view: &dyn View,
    place: &Place,
    field: &[u8],
) -> Result<Option<Entry>, ViewError> {
    let Some(row) = view.get(&place.ring_row(field))? else { return Ok(None) };
    read_field(Bytes::copy_from_slice(field), &row).ok_or(ViewError::Damaged).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_header_says_reads_back() {
        for is_table in [false, true] {
            for earliest_ms in [None, Some(0), Some(u64::MAX)] {
                let meta = Meta { is_table, is_timed: !is_table, earliest_ms };
                let body = meta.body(b"entries");
                let mut rest = &body[..];
                assert_eq!(Meta::read(&mut rest), Some(meta));
                assert_eq!(rest, b"entries");
                let value = Value::Inline { kind: Kind::Hash, count: 1, body };
                assert_eq!(fields_due_ms(&value), earliest_ms);
            }
        }
        for damaged in [&b""[..], b"\x08", b"\x04", b"\x04\x80"] {
            assert_eq!(Meta::read(&mut &damaged[..]), None);
        }
        assert_eq!(fields_due_ms(&Value::string(Bytes::from_static(b"\x04\x01"))), None);
    }

    #[test]
    fn times_stand_behind_the_fields_in_their_order() {
        let generation = wire::ids::Version { index: 1, ordinal: 2 };
        let place = Place { table: wire::ids::TableId(0), placement: Placement::MIN, generation };
        for field in [&b""[..], b"a", b"field", &[0xff; 40]] {
            assert!(place.ring_row(field) < place.time_row(0, b""));
            assert!(place.time_row(5, field) < place.time_row(6, b""));
        }
    }

    #[test]
    fn values_of_fields_read_back() {
        for expire_at_ms in [None, Some(1), Some(u64::MAX)] {
            let row = field_value(b"value", expire_at_ms);
            let entry = read_field(Bytes::from_static(b"f"), &row).expect("own encoding");
            assert_eq!((&entry.value[..], entry.expire_at_ms), (&b"value"[..], expire_at_ms));
        }
        assert_eq!(read_field(Bytes::new(), &Bytes::new()), None);
    }
}
