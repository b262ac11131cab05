//! Changing a set: members one by one, the header once, at the end.
//!
//! [`SetEdit::finish`] is the one place where a changed set gets its new header, and so its new
//! version (which WATCH compares) and its part in the counters. A set that lost its last member is
//! no key any more.
//!
//! A set that is emptied by SPOP leaves deleted rows behind, over which every draw from the few that
//! are left would have to step. So a set that has shrunk is written anew, under another generation
//! (or inline), once it is small enough to do that within one command: the old generation vanishes as
//! a whole. The deletions before paid for it: there were at least [`SHRINK_FACTOR`] for each row.

use bytes::{BufMut, Bytes, BytesMut};
use wire::placement::Placement;

use crate::args::parse_int;
use crate::error::CommandError;
use crate::txn::Txn;
use crate::types::header::{Kind, Value, put_varint};
use crate::types::keyspace::{self, Found};
use crate::types::ring::Place;
use crate::types::set::{Encoding, INLINE_BYTES_MAX, INLINE_MEMBERS_MAX, Members, Set, inline};
use crate::view::{View, ViewError};

/// Rows deleted for each that is left, before these are written anew.
const SHRINK_FACTOR: u64 = 4;
/// Most members that are written anew.
const SHRINK_MEMBERS_MAX: u64 = 4_096;
/// Most bytes that are written anew.
const SHRINK_BYTES_MAX: u64 = 256 << 10;

/// A set that is being changed.
pub(crate) struct SetEdit<'k> {
    key: &'k [u8],
    found: Found,
    members: Members,
    count: u64,
    /// Of members in rows; inline, the entries tell.
    bytes: u64,
    /// `None` until the first member of a new set comes.
    encoding: Option<Encoding>,
    changed: bool,
}

impl<'k> SetEdit<'k> {
    /// Begins with the set at a key, or with an empty one.
    ///
    /// *Errors*: `WrongType` if the key holds something else.
    pub(crate) fn open(view: &dyn View, key: &'k [u8]) -> Result<SetEdit<'k>, CommandError> {
        let found = keyspace::lookup_of(view, key, Kind::Set)?;
        Ok(SetEdit::of(view, key, found)?)
    }

    fn of(view: &dyn View, key: &'k [u8], found: Found) -> Result<SetEdit<'k>, ViewError> {
        let (members, count, bytes, encoding) = match found.header() {
            Some(header) => {
                let Set { members, count, bytes, encoding, .. } =
                    Set::of(view, key, &header.value)?;
                (members, count, bytes, Some(encoding))
            }
            None => (Members::Inline(Bytes::new()), 0, 0, None),
        };
        Ok(SetEdit { key, found, members, count, bytes, encoding, changed: false })
    }

    /// How many members it has.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// So many different random members, or all if there are no more.
    pub(crate) fn draw(&self, view: &dyn View, count: u64) -> Result<Vec<Bytes>, ViewError> {
        if self.count == 0 {
            return Ok(Vec::new());
        }
        Set::of(view, self.key, &self.value())?.random_distinct(count)
    }

    /// The encoding that Redis gives to what a large SPOP leaves, which it puts into a new set.
    pub(crate) fn encoding_of_rest(&self, rest: &[Bytes]) -> Encoding {
        match self.encoding.unwrap_or(Encoding::Table) {
            Encoding::Table => (rest.iter().zip(0..))
                .fold(Encoding::Listpack, |encoding, (member, at)| encoding.with(at, member)),
            other => other,
        }
    }

    /// Makes these the members.
    pub(crate) fn replace(&mut self, txn: &mut Txn<'_>, members: Vec<Bytes>, encoding: Encoding) {
        (self.encoding, self.changed) = (Some(encoding), true);
        self.write(txn, &members);
    }

    /// Says how many members are about to be added at once, from which Redis chooses an encoding.
    pub(crate) fn will_add(&mut self, first: &[u8], count: usize) {
        self.encoding = Some(match self.encoding {
            Some(encoding) => encoding.before_adding(count),
            None => Encoding::for_new(first, count),
        });
    }

    /// Whether a member is there.
    pub(crate) fn contains(&self, view: &dyn View, member: &[u8]) -> Result<bool, ViewError> {
        self.members.contain(view, member)
    }

    /// Adds a member; whether it is new.
    pub(crate) fn add(&mut self, txn: &mut Txn<'_>, member: &[u8]) -> Result<bool, ViewError> {
        if self.members.contain(txn, member)? {
            return Ok(false);
        }
        let encoding = self.encoding.unwrap_or_else(|| Encoding::for_new(member, 1));
        let encoding = encoding.with(self.count, member);
        self.encoding = Some(encoding);
        self.changed = true;
        match &mut self.members {
            Members::Inline(entries) => *entries = with(entries, member, encoding)?,
            Members::Rows(place, _) => {
                txn.put(place.ring_row(member), Bytes::new());
                self.bytes += member.len() as u64;
            }
        }
        self.count += 1;
        if let Members::Inline(entries) = &self.members
            && is_large(self.count, entries.len())
        {
            let members = inline(entries).map(|entry| entry.map(|(_, member)| member));
            let members = members.collect::<Result<Vec<_>, _>>()?;
            self.write_rows(txn, &members);
        }
        Ok(true)
    }

    /// Deletes a member; whether it was there.
    pub(crate) fn remove(&mut self, txn: &mut Txn<'_>, member: &[u8]) -> Result<bool, ViewError> {
        if let Members::Rows(place, _) = &self.members
            && txn.get(&place.ring_row(member))?.is_none()
        {
            return Ok(false);
        }
        self.remove_known(txn, member)
    }

    /// The same for one that was just met; where it has a row, that is not looked at again.
    pub(crate) fn remove_known(
        &mut self,
        txn: &mut Txn<'_>,
        member: &[u8],
    ) -> Result<bool, ViewError> {
        match &mut self.members {
            Members::Inline(entries) => {
                let mut span = None;
                for entry in inline(entries) {
                    let (at, other) = entry?;
                    if other == member {
                        span = Some(at);
                        break;
                    }
                }
                let Some(span) = span else { return Ok(false) };
                let mut left = BytesMut::with_capacity(entries.len() - span.len());
                left.put_slice(&entries[..span.start]);
                left.put_slice(&entries[span.end..]);
                *entries = left.freeze();
            }
            Members::Rows(place, deleted) => {
                txn.delete(place.ring_row(member));
                *deleted += 1;
                self.bytes = self.bytes.saturating_sub(member.len() as u64);
            }
        }
        self.count = self.count.saturating_sub(1);
        self.changed = true;
        Ok(true)
    }

    /// Ends the change: writes the header, or removes the key if no member is left.
    pub(crate) fn finish(mut self, txn: &mut Txn<'_>) -> Result<(), ViewError> {
        if !self.changed {
            return Ok(());
        }
        if self.count == 0 {
            keyspace::remove(txn, self.key, self.found);
            return Ok(());
        }
        self.shrink(txn)?;
        let expire_at_ms = self.found.expire_at_ms();
        let value = self.value();
        keyspace::store(txn, self.key, self.found, value, expire_at_ms);
        Ok(())
    }

    /// The set as a header holds it.
    fn value(&self) -> Value {
        let (kind, count) = (Kind::Set, self.count);
        let body = self.members.body(self.encoding.unwrap_or(Encoding::Table));
        match &self.members {
            Members::Inline(_) => Value::Inline { kind, count, body },
            Members::Rows(Place { generation, .. }, _) => {
                let (generation, bytes) = (*generation, self.bytes);
                Value::Rows { kind, generation, count, bytes, body }
            }
        }
    }

    /// Leaves deleted rows behind, if there are far more of them than of others.
    fn shrink(&mut self, txn: &mut Txn<'_>) -> Result<(), ViewError> {
        let Members::Rows(_, deleted) = self.members else { return Ok(()) };
        let small = self.count <= SHRINK_MEMBERS_MAX && self.bytes <= SHRINK_BYTES_MAX;
        if !small || deleted < self.count.max(INLINE_MEMBERS_MAX) * SHRINK_FACTOR {
            return Ok(());
        }
        let (key, value) = (self.key, self.value());
        let members = Set::of(txn, key, &value)?.all()?;
        self.write(txn, &members);
        Ok(())
    }

    /// Makes these the members, wherever they were.
    fn write(&mut self, txn: &mut Txn<'_>, members: &[Bytes]) {
        let mut entries = BytesMut::new();
        for member in members {
            if is_large(members.len() as u64, entries.len()) {
                break;
            }
            put_entry(&mut entries, member);
        }
        if is_large(members.len() as u64, entries.len()) {
            self.write_rows(txn, members);
        } else {
            (self.members, self.count) = (Members::Inline(entries.freeze()), members.len() as u64);
        }
    }

    fn write_rows(&mut self, txn: &mut Txn<'_>, members: &[Bytes]) {
        let place = Place {
            table: txn.table(),
            placement: Placement::of_key(self.key),
            generation: txn.new_version(),
        };
        (self.count, self.bytes) = (members.len() as u64, 0);
        for member in members {
            self.bytes += member.len() as u64;
            txn.put(place.ring_row(member), Bytes::new());
        }
        self.members = Members::Rows(place, 0);
    }
}

/// A set of these members, all different and at least one, for a key that [`keyspace::store`] puts
/// it at.
pub(crate) fn build(
    txn: &mut Txn<'_>,
    key: &[u8],
    mut members: Vec<Bytes>,
    encoding: Encoding,
) -> Result<Value, ViewError> {
    if encoding == Encoding::Intset {
        members.sort_by_cached_key(|member| parse_int(member));
    }
    let found = Found::nothing(txn, key);
    let mut edit = SetEdit::of(txn, key, found)?;
    edit.replace(txn, members, encoding);
    Ok(edit.value())
}

fn is_large(count: u64, bytes: usize) -> bool {
    count > INLINE_MEMBERS_MAX || bytes > INLINE_BYTES_MAX
}

fn put_entry(out: &mut BytesMut, member: &[u8]) {
    put_varint(out, member.len() as u64);
    out.put_slice(member);
}

/// The entries with one more: in an intset where its number belongs, else behind the others.
fn with(entries: &Bytes, member: &[u8], encoding: Encoding) -> Result<Bytes, ViewError> {
    let mut at = entries.len();
    if encoding == Encoding::Intset {
        let number = parse_int(member);
        for entry in inline(entries) {
            let (span, other) = entry?;
            if parse_int(&other) > number {
                at = span.start;
                break;
            }
        }
    }
    let mut out = BytesMut::with_capacity(entries.len() + member.len() + 2);
    out.put_slice(&entries[..at]);
    put_entry(&mut out, member);
    out.put_slice(&entries[at..]);
    Ok(out.freeze())
}
