//! Changing a hash: fields one by one, the header once, at the end.
//!
//! [`HashEdit::finish`] is the one place where a changed hash gets its new header, and so its new
//! version (which WATCH compares), its place in the TTL index and its part in the counters. A hash
//! that lost its last field is no key any more.

use bytes::Bytes;
use wire::placement::Placement;

use crate::error::CommandError;
use crate::txn::Txn;
use crate::types::hash::{
    Entry, Fields, Hash, INLINE_BYTES_MAX, INLINE_FIELDS_MAX, LISTPACK_FIELDS_MAX,
    LISTPACK_TEXT_BYTES_MAX, Meta, field_value, get_row,
};
use crate::types::hash_inline;
use crate::types::header::{Kind, Value};
use crate::types::keyspace::{self, Found};
use crate::types::ring::Place;
use crate::view::{View, ViewError};

/// A hash that is being changed.
pub(crate) struct HashEdit<'k> {
    key: &'k [u8],
    found: Found,
    fields: Fields,
    count: u64,
    /// Of fields in rows; inline, the entries tell.
    bytes: u64,
    meta: Meta,
    changed: bool,
}

impl<'k> HashEdit<'k> {
    /// Begins with the hash at a key, or with an empty one.
    ///
    /// *Errors*: `WrongType` if the key holds something else.
    pub(crate) fn open(view: &dyn View, key: &'k [u8]) -> Result<HashEdit<'k>, CommandError> {
        let found = keyspace::lookup_of(view, key, Kind::Hash)?;
        Ok(HashEdit::of(view, key, found)?)
    }

    /// Begins with what was found, which is a hash or nothing.
    pub(crate) fn of(
        view: &dyn View,
        key: &'k [u8],
        found: Found,
    ) -> Result<HashEdit<'k>, ViewError> {
        let (fields, count, bytes, meta) = match found.header() {
            Some(header) => {
                let Hash { fields, count, bytes, meta, .. } = Hash::of(view, key, &header.value)?;
                (fields, count, bytes, meta)
            }
            None => (Fields::Inline(Bytes::new()), 0, 0, Meta::default()),
        };
        Ok(HashEdit { key, found, fields, count, bytes, meta, changed: false })
    }

    /// Redis makes a table of a hash that is given so many fields at once, known ones or not.
    pub(crate) fn will_put(&mut self, fields: usize) {
        self.meta.is_table |= fields as u64 > LISTPACK_FIELDS_MAX;
    }

    /// A field, if it exists for clients.
    pub(crate) fn get(&self, view: &dyn View, field: &[u8]) -> Result<Option<Entry>, ViewError> {
        Ok(self.stored(view, field)?.filter(|entry| entry.is_live(view)))
    }

    /// A field, hidden or not.
    fn stored(&self, view: &dyn View, field: &[u8]) -> Result<Option<Entry>, ViewError> {
        Ok(match &self.fields {
            Fields::Inline(entries) => {
                hash_inline::find(entries, field)?.map(|span| span.entry(entries))
            }
            Fields::Rows(place) => get_row(view, place, field)?,
        })
    }

    /// Sets a field and its time to live; whether it is new to clients.
    pub(crate) fn put(
        &mut self,
        txn: &mut Txn<'_>,
        field: &[u8],
        value: &[u8],
        expire_at_ms: Option<u64>,
    ) -> Result<bool, ViewError> {
        let now_ms = txn.now_ms();
        self.changed = true;
        self.meta.is_timed |= expire_at_ms.is_some();
        self.meta.is_table |= field.len().max(value.len()) > LISTPACK_TEXT_BYTES_MAX;
        if let Some(at) = expire_at_ms {
            self.meta.earliest_ms = Some(self.meta.earliest_ms.map_or(at, |old| old.min(at)));
        }
        let created = match &mut self.fields {
            Fields::Inline(entries) => {
                let old = hash_inline::find(entries, field)?;
                let old_at = old.as_ref().map(|span| span.whole.clone());
                *entries = hash_inline::with(entries, old_at, (field, value), expire_at_ms);
                self.count += u64::from(old.is_none());
                let is_due = |at| at <= now_ms;
                let expired =
                    old.as_ref().is_some_and(|span| span.expire_at_ms.is_some_and(is_due));
                txn.count_expired_fields(u64::from(expired));
                old.is_none() || expired
            }
            Fields::Rows(place) => {
                let place = *place;
                let old = get_row(txn, &place, field)?;
                let expired = old.as_ref().is_some_and(|old| !old.is_live(txn));
                txn.count_expired_fields(u64::from(expired));
                let created = old.is_none() || expired;
                self.put_row(txn, &place, old, (field, value), expire_at_ms);
                created
            }
        };
        self.meta.is_table |= self.count > LISTPACK_FIELDS_MAX;
        self.promote_if_large(txn)?;
        Ok(created)
    }

    /// Deletes a field; what it was, hidden or not.
    pub(crate) fn delete(
        &mut self,
        txn: &mut Txn<'_>,
        field: &[u8],
    ) -> Result<Option<Entry>, ViewError> {
        let old = match &mut self.fields {
            Fields::Inline(entries) => {
                let Some(span) = hash_inline::find(entries, field)? else { return Ok(None) };
                let old = span.entry(entries);
                *entries = hash_inline::without(entries, span.whole);
                self.count = self.count.saturating_sub(1);
                old
            }
            Fields::Rows(place) => {
                let place = *place;
                let Some(old) = get_row(txn, &place, field)? else { return Ok(None) };
                self.delete_row(txn, &place, &old);
                old
            }
        };
        self.changed = true;
        Ok(Some(old))
    }

    /// Deletes a field if its time has come; whether it did.
    pub(crate) fn delete_if_due(
        &mut self,
        txn: &mut Txn<'_>,
        field: &[u8],
    ) -> Result<bool, ViewError> {
        let is_due = self.stored(txn, field)?.is_some_and(|entry| !entry.is_live(txn));
        if is_due {
            self.delete(txn, field)?;
            txn.count_expired_fields(1);
        }
        Ok(is_due)
    }

    /// Gives the hash the encoding it had elsewhere, whatever its fields say.
    pub(crate) fn set_encoding(&mut self, is_table: bool, is_timed: bool) {
        (self.meta.is_table, self.meta.is_timed) = (is_table, is_timed);
    }

    /// Deletes fields whose time has come, at most `limit`; how many there were.
    /// Finds out when the next one is due.
    pub(crate) fn delete_due(
        &mut self,
        txn: &mut Txn<'_>,
        limit: usize,
    ) -> Result<usize, ViewError> {
        let now_ms = txn.now_ms();
        self.changed = true;
        let place = match &mut self.fields {
            Fields::Inline(_) => {
                let deleted = self.delete_due_inline(now_ms, limit)?;
                txn.count_expired_fields(deleted as u64);
                return Ok(deleted);
            }
            Fields::Rows(place) => *place,
        };
        let (mut due, mut next) = (Vec::new(), None);
        place.times(txn, self.meta.earliest_ms.unwrap_or(0), &mut |row, at, field| {
            if at > now_ms || due.len() == limit {
                next = Some(at);
                return std::ops::ControlFlow::Break(());
            }
            due.push((row.clone(), at, field));
            std::ops::ControlFlow::Continue(())
        })?;
        for (row, at, field) in &due {
            match get_row(txn, &place, field)? {
                Some(entry) if entry.expire_at_ms == Some(*at) => {
                    self.delete_row(txn, &place, &entry);
                }
                // Times and fields change together; should one be left over, it goes.
                _ => txn.delete(row.clone()),
            }
        }
        self.meta.earliest_ms = next;
        txn.count_expired_fields(due.len() as u64);
        Ok(due.len())
    }

    fn delete_due_inline(&mut self, now_ms: u64, limit: usize) -> Result<usize, ViewError> {
        let mut deleted = 0;
        while deleted < limit {
            let Fields::Inline(entries) = &mut self.fields else { break };
            let mut due = None;
            for span in hash_inline::spans(entries) {
                let span = span?;
                if span.expire_at_ms.is_some_and(|at| at <= now_ms) {
                    due = Some(span.whole);
                    break;
                }
            }
            let Some(due) = due else { break };
            *entries = hash_inline::without(entries, due);
            self.count = self.count.saturating_sub(1);
            deleted += 1;
        }
        if let Fields::Inline(entries) = &self.fields {
            self.meta.earliest_ms = earliest(entries)?;
        }
        Ok(deleted)
    }

    /// No field's time comes before this; `None`: no field has one.
    pub(crate) fn earliest_ms(&self) -> Option<u64> {
        self.meta.earliest_ms
    }

    /// Ends the change: writes the header, or removes the key if no field is left. Whether it did.
    pub(crate) fn finish(mut self, txn: &mut Txn<'_>) -> Result<bool, ViewError> {
        if !self.changed {
            return Ok(false);
        }
        if self.count == 0 {
            return Ok(keyspace::remove(txn, self.key, self.found));
        }
        let expire_at_ms = self.found.expire_at_ms();
        let value = self.value()?;
        keyspace::store(txn, self.key, self.found, value, expire_at_ms);
        Ok(false)
    }

    /// The hash as a header holds it.
    fn value(&mut self) -> Result<Value, ViewError> {
        let (kind, count) = (Kind::Hash, self.count);
        Ok(match &self.fields {
            Fields::Inline(entries) => {
                if self.meta.earliest_ms.is_some() {
                    self.meta.earliest_ms = earliest(entries)?;
                }
                Value::Inline { kind, count, body: self.meta.body(entries) }
            }
            Fields::Rows(Place { generation, .. }) => {
                let (generation, bytes) = (*generation, self.bytes);
                Value::Rows { kind, generation, count, bytes, body: self.meta.body(b"") }
            }
        })
    }

    fn put_row(
        &mut self,
        txn: &mut Txn<'_>,
        place: &Place,
        old: Option<Entry>,
        (field, value): (&[u8], &[u8]),
        expire_at_ms: Option<u64>,
    ) {
        match &old {
            Some(old) => self.bytes = self.bytes.saturating_sub(old.value.len() as u64),
            None => {
                self.count += 1;
                self.bytes += field.len() as u64;
            }
        }
        self.bytes += value.len() as u64;
        let old_at = old.and_then(|old| old.expire_at_ms);
        if old_at != expire_at_ms {
            if let Some(at) = old_at {
                txn.delete(place.time_row(at, field));
            }
            if let Some(at) = expire_at_ms {
                txn.put(place.time_row(at, field), Bytes::new());
            }
        }
        txn.put(place.ring_row(field), field_value(value, expire_at_ms));
    }

    fn delete_row(&mut self, txn: &mut Txn<'_>, place: &Place, old: &Entry) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub((old.field.len() + old.value.len()) as u64);
        if let Some(at) = old.expire_at_ms {
            txn.delete(place.time_row(at, &old.field));
        }
        txn.delete(place.ring_row(&old.field));
    }

    /// Moves the fields into rows once they are too many or too large for the header.
    fn promote_if_large(&mut self, txn: &mut Txn<'_>) -> Result<(), ViewError> {
        let Fields::Inline(entries) = &self.fields else { return Ok(()) };
        if self.count <= INLINE_FIELDS_MAX && entries.len() <= INLINE_BYTES_MAX {
            return Ok(());
        }
        let entries = entries.clone();
        let place = Place {
            table: txn.table(),
            placement: Placement::of_key(self.key),
            generation: txn.new_version(),
        };
        (self.count, self.bytes) = (0, 0);
        for span in hash_inline::spans(&entries) {
            let Entry { field, value, expire_at_ms } = span?.entry(&entries);
            self.put_row(txn, &place, None, (&field, &value), expire_at_ms);
        }
        self.fields = Fields::Rows(place);
        Ok(())
    }
}

/// A hash made of these fields, for a key that [`keyspace::store`] puts it at.
pub(crate) fn build(
    txn: &mut Txn<'_>,
    key: &[u8],
    entries: &[Entry],
    (is_table, is_timed): (bool, bool),
) -> Result<Value, ViewError> {
    let found = Found::nothing(txn, key);
    let mut edit = HashEdit::of(txn, key, found)?;
    for entry in entries {
        edit.put(txn, &entry.field, &entry.value, entry.expire_at_ms)?;
    }
    edit.set_encoding(is_table, is_timed);
    edit.value()
}

fn earliest(entries: &[u8]) -> Result<Option<u64>, ViewError> {
    let mut earliest = None;
    for span in hash_inline::spans(entries) {
        let at = span?.expire_at_ms;
        earliest = match (earliest, at) {
            (Some(one), Some(other)) => Some(u64::min(one, other)),
            (one, other) => one.or(other),
        };
    }
    Ok(earliest)
}
