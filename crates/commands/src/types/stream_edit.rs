//! Changing a stream: entries one by one, the header once, at the end.
//!
//! [`StreamEdit::finish`] is the one place where a changed stream gets its new header, and so its new
//! version (which WATCH compares) and its part in the counters. A stream without entries is still a
//! key.

use std::ops::ControlFlow;

use bytes::{Buf, Bytes, BytesMut};
use wire::placement::Placement;

use crate::error::CommandError;
use crate::txn::Txn;
use crate::types::header::{Kind, Value};
use crate::types::keyspace::{self, Found};
use crate::types::ring::Place;
use crate::types::stream::{
    Id, Meta, Stream, TAIL_BYTES_MAX, behind_chunk_row, chunk_id, chunk_row, entries, put_entry,
};
use crate::view::{Direction, View, ViewError};

/// What XTRIM and XADD leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keep {
    /// So many of the newest entries.
    Newest(u64),
    /// Those from an ID on.
    From(Id),
}

/// A stream that is being changed.
pub(crate) struct StreamEdit<'k> {
    key: &'k [u8],
    found: Found,
    /// Where its rows are; `None` if there is no stream yet.
    place: Option<Place>,
    count: u64,
    bytes: u64,
    pub(crate) meta: Meta,
    tail: Bytes,
    changed: bool,
}

impl<'k> StreamEdit<'k> {
    /// Begins with the stream at a key, or with none.
    ///
    /// *Errors*: `WrongType` if the key holds something else.
    pub(crate) fn open(view: &dyn View, key: &'k [u8]) -> Result<StreamEdit<'k>, CommandError> {
        let found = keyspace::lookup_of(view, key, Kind::Stream)?;
        Ok(StreamEdit::of(view, key, found)?)
    }

    fn of(view: &dyn View, key: &'k [u8], found: Found) -> Result<StreamEdit<'k>, ViewError> {
        let none = (None, 0, 0, Meta::default(), Bytes::new());
        let (place, count, bytes, meta, tail) = match found.header() {
            Some(header) => {
                let Stream { place, count, bytes, meta, tail, .. } =
                    Stream::of(view, key, &header.value)?;
                (Some(place), count, bytes, meta, tail)
            }
            None => none,
        };
        Ok(StreamEdit { key, found, place, count, bytes, meta, tail, changed: false })
    }

    /// Whether there is a stream.
    pub(crate) fn exists(&self) -> bool {
        self.place.is_some()
    }

    /// How many entries it has.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Where its rows are; a stream that is not there yet is made.
    pub(crate) fn place(&mut self, txn: &mut Txn<'_>) -> Place {
        match self.place {
            Some(place) => place,
            None => {
                let place = Place {
                    table: txn.table(),
                    placement: Placement::of_key(self.key),
                    generation: txn.new_version(),
                };
                (self.place, self.changed) = (Some(place), true);
                place
            }
        }
    }

    /// The stream as it now is, to be read; `None` if there is none.
    pub(crate) fn read<'v>(&self, view: &'v dyn View) -> Result<Option<Stream<'v>>, ViewError> {
        let Some(place) = self.place else { return Ok(None) };
        Stream::of(view, self.key, &self.value(place)).map(Some)
    }

    /// Says that something changed that the header tells, or rows beside the entries.
    pub(crate) fn touch(&mut self) {
        self.changed = true;
    }

    /// Adds an entry whose ID is above all others; its fields are names and values in turns.
    pub(crate) fn append(&mut self, txn: &mut Txn<'_>, id: Id, fields: &[Bytes]) {
        let place = self.place(txn);
        // Of several that are added at once, the first alone copies what was there.
        let tail = std::mem::take(&mut self.tail).try_into_mut();
        let mut tail = tail.unwrap_or_else(|shared| {
            let mut tail = BytesMut::with_capacity(TAIL_BYTES_MAX);
            tail.extend_from_slice(&shared);
            tail
        });
        let before = tail.len();
        put_entry(&mut tail, id, fields);
        let stored = tail.len() - before;
        if tail.len() > TAIL_BYTES_MAX {
            self.put_chunk(txn, &place, &tail[..before]);
            tail.advance(before);
        }
        if stored > TAIL_BYTES_MAX {
            self.put_chunk(txn, &place, &tail);
            tail.clear();
        }
        self.tail = tail.freeze();
        self.count += 1;
        self.bytes += stored as u64;
        self.meta.last_id = id;
        self.meta.entries_added += 1;
        self.changed = true;
    }

    /// Makes a chunk of stored entries, if there are any.
    fn put_chunk(&mut self, txn: &mut Txn<'_>, place: &Place, chunk: &[u8]) {
        let Some(id) = Id::read(&mut &chunk[..]) else { return };
        txn.put(chunk_row(place, id), Bytes::copy_from_slice(chunk));
        if self.meta.chunks == 0 {
            self.meta.first_chunk = id;
        }
        self.meta.last_chunk = id;
        self.meta.chunks += 1;
    }

    /// How many entries are not to be kept, counted up to `limit`.
    pub(crate) fn beyond(&self, view: &dyn View, keep: Keep, limit: u64) -> Result<u64, ViewError> {
        let first = match keep {
            Keep::Newest(count) => return Ok(self.count.saturating_sub(count).min(limit)),
            Keep::From(first) => first,
        };
        let mut found = 0;
        let mut count = |stored: &Bytes| {
            for entry in entries(stored) {
                if found >= limit || entry?.id >= first {
                    return Ok(ControlFlow::Break(()));
                }
                found += 1;
            }
            Ok(ControlFlow::Continue(()))
        };
        let mut outcome = Ok(ControlFlow::Continue(()));
        if let Some(place) = self.place
            && self.meta.chunks > 0
        {
            let from = chunk_row(&place, self.meta.first_chunk);
            let to = behind_chunk_row(&place, self.meta.last_chunk);
            view.scan(&from, &to, Direction::Forward, &mut |_, chunk| {
                outcome = count(chunk);
                outcome.as_ref().map_or(ControlFlow::Break(()), |flow| *flow)
            })?;
        }
        if outcome?.is_continue() {
            let _: ControlFlow<()> = count(&self.tail)?;
        }
        Ok(found)
    }

    /// Deletes the oldest entries, at most `limit`; how many there were.
    pub(crate) fn trim(
        &mut self,
        txn: &mut Txn<'_>,
        keep: Keep,
        limit: u64,
    ) -> Result<u64, ViewError> {
        let mut budget = limit;
        if let Keep::Newest(count) = keep {
            budget = budget.min(self.count.saturating_sub(count));
        }
        let goes = |id: Id| match keep {
            Keep::Newest(_) => true,
            Keep::From(first) => id < first,
        };
        let before = self.count;
        if let Some(place) = self.place
            && self.meta.chunks > 0
        {
            budget = self.trim_chunks(txn, &place, &goes, budget)?;
        }
        if self.meta.chunks == 0 && budget > 0 {
            let tail = self.tail.clone();
            let (_, left) = self.without_first(&tail, &goes, budget)?;
            self.tail = left;
        }
        self.changed |= self.count < before;
        Ok(before - self.count)
    }

    /// Trims chunks from the front; how many entries may still go, 0 if the rest stays.
    fn trim_chunks(
        &mut self,
        txn: &mut Txn<'_>,
        place: &Place,
        goes: &dyn Fn(Id) -> bool,
        mut budget: u64,
    ) -> Result<u64, ViewError> {
        let from = chunk_row(place, self.meta.first_chunk);
        let to = behind_chunk_row(place, self.meta.last_chunk);
        let (mut changes, mut outcome, mut stays) = (Vec::new(), Ok(()), None);
        txn.scan(&from, &to, Direction::Forward, &mut |row, chunk| {
            match self.without_first(chunk, goes, budget) {
                Ok((gone, left)) => {
                    budget -= gone;
                    if left.is_empty() {
                        changes.push((row.clone(), None));
                        return ControlFlow::Continue(());
                    }
                    stays = chunk_id(row);
                    if gone > 0 {
                        changes.push((row.clone(), Some(left)));
                    }
                }
                Err(error) => outcome = Err(error),
            }
            ControlFlow::Break(())
        })?;
        outcome?;
        for (row, left) in changes {
            match left {
                Some(left) => txn.put(row, left),
                None => {
                    txn.delete(row);
                    self.meta.chunks = self.meta.chunks.saturating_sub(1);
                }
            }
        }
        match stays {
            Some(first) => {
                self.meta.first_chunk = first;
                Ok(0)
            }
            None => {
                self.meta.chunks = 0;
                Ok(budget)
            }
        }
    }

    /// Some stored entries without the first that go, at most so many; how many went.
    fn without_first(
        &mut self,
        stored: &Bytes,
        goes: &dyn Fn(Id) -> bool,
        budget: u64,
    ) -> Result<(u64, Bytes), ViewError> {
        let (mut gone, mut left) = (0, BytesMut::new());
        for entry in entries(stored) {
            let entry = entry?;
            if gone < budget && left.is_empty() && goes(entry.id) {
                gone += 1;
            } else {
                entry.put(&mut left);
            }
        }
        self.count = self.count.saturating_sub(gone);
        self.bytes = self.bytes.saturating_sub((stored.len() - left.len()) as u64);
        Ok((gone, left.freeze()))
    }

    /// Deletes an entry; whether it was there.
    pub(crate) fn delete(&mut self, txn: &mut Txn<'_>, id: Id) -> Result<bool, ViewError> {
        let Some(place) = self.place else { return Ok(false) };
        let tail = self.tail.clone();
        if let Some(left) = self.without(&tail, id)? {
            self.tail = left;
            return Ok(true);
        }
        let chunk = self.read(txn)?.map(|stream| stream.chunk_of(id)).transpose()?.flatten();
        let Some(chunk) = chunk else { return Ok(false) };
        let row = chunk_row(&place, chunk);
        let stored = txn.get(&row)?.ok_or(ViewError::Damaged)?;
        let Some(left) = self.without(&stored, id)? else { return Ok(false) };
        if !left.is_empty() {
            txn.put(row, left);
            return Ok(true);
        }
        txn.delete(row);
        self.meta.chunks = self.meta.chunks.saturating_sub(1);
        if self.meta.chunks > 0 {
            self.narrow(txn, &place, chunk)?;
        }
        Ok(true)
    }

    /// Some stored entries without one; `None` if it is not among them.
    fn without(&mut self, stored: &Bytes, id: Id) -> Result<Option<Bytes>, ViewError> {
        let (mut found, mut left) = (false, BytesMut::new());
        for entry in entries(stored) {
            let entry = entry?;
            if entry.id == id {
                found = true;
            } else {
                entry.put(&mut left);
            }
        }
        if !found {
            return Ok(None);
        }
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub((stored.len() - left.len()) as u64);
        self.changed = true;
        Ok(Some(left.freeze()))
    }

    /// Moves the bounds of the chunks when a chunk at one of them is gone.
    fn narrow(&mut self, txn: &Txn<'_>, place: &Place, gone: Id) -> Result<(), ViewError> {
        let from = chunk_row(place, self.meta.first_chunk);
        let to = behind_chunk_row(place, self.meta.last_chunk);
        let edge = |direction| {
            let mut edge = None;
            txn.scan(&from, &to, direction, &mut |row, _| {
                edge = chunk_id(row);
                ControlFlow::Break(())
            })?;
            edge.ok_or(ViewError::Damaged)
        };
        if gone == self.meta.first_chunk {
            self.meta.first_chunk = edge(Direction::Forward)?;
        }
        if gone == self.meta.last_chunk {
            self.meta.last_chunk = edge(Direction::Backward)?;
        }
        Ok(())
    }

    /// Ends the change: writes the header.
    pub(crate) fn finish(self, txn: &mut Txn<'_>) {
        let Some(place) = self.place.filter(|_| self.changed) else { return };
        let value = self.value(place);
        let expire_at_ms = self.found.expire_at_ms();
        keyspace::store(txn, self.key, self.found, value, expire_at_ms);
    }

    /// The stream as a header holds it.
    pub(crate) fn value(&self, place: Place) -> Value {
        Value::Rows {
            kind: Kind::Stream,
            generation: place.generation,
            count: self.count,
            bytes: self.bytes,
            body: self.meta.body(&self.tail),
        }
    }

    /// An empty one, for a key that [`keyspace::store`] puts its value at.
    pub(crate) fn nothing(view: &dyn View, key: &'k [u8]) -> Result<StreamEdit<'k>, ViewError> {
        StreamEdit::of(view, key, Found::nothing(view, key))
    }
}
