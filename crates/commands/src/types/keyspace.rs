//! Keys: finding, storing, removing and expiring them, whatever they hold.
//!
//! A key that has expired, or that a FLUSHDB swept away, is hidden at once, while its rows linger
//! until a write meets them. So a write needs to know more than a read does: [`Found`] remembers
//! the row that lies there even when no client may see it, and [`store`] and [`remove`] are the one
//! place that keeps four things in step with it:
//!
//! - the header row;
//! - the row of the TTL index, if the key or fields of its hash have a time to live: one row, at the
//!   soonest of them ([`due_ms`]);
//! - the counters (a hidden *expired* key still counts, as in Redis; a flushed one does not, since
//!   the flush set the counters to zero);
//! - the generation of a collection that ceases to exist.
//!
//! Reads never write: the leader removes what is due by [`expire_due`], and what they met behind
//! them ([`crate::overdue`]).

use std::ops::ControlFlow;

use bytes::Bytes;
use wire::ids::Version;
use wire::placement::Placement;

use crate::error::CommandError;
use crate::notes::Wanted;
use crate::overdue::Overdue;
use crate::rows::{self, RowKind};
use crate::txn::Txn;
use crate::types::hash;
use crate::types::hash_edit::HashEdit;
use crate::types::header::{Header, Kind, Value};
use crate::view::{Direction, View, ViewError};

/// TTL index rows looked at to tell when the next key is due. Rows of other partitions lie between
/// ours, so the answer may be "not before the last row looked at".
const NEXT_DUE_ROWS_MAX: usize = 256;

/// What lies at a key, for a write.
#[derive(Debug)]
pub struct Found {
    row: Bytes,
    stored: Option<Header>,
    live: bool,
}

impl Found {
    /// What is found where nothing lies.
    pub(crate) fn nothing(view: &dyn View, key: &[u8]) -> Found {
        Found { row: rows::header_key(view.table(), key), stored: None, live: false }
    }

    /// The key's header, if the key exists for clients.
    pub fn header(&self) -> Option<&Header> {
        if self.live { self.stored.as_ref() } else { None }
    }

    /// Whether the key exists for clients.
    pub fn exists(&self) -> bool {
        self.live
    }

    /// Whether a key lies here that clients no longer see. A write that meets it ends it, as the
    /// leader's expiry would have: INFO counts both.
    pub(crate) fn has_expired(&self) -> bool {
        self.stored.is_some() && !self.live
    }

    /// The key's time to live, if the key exists and has one.
    pub fn expire_at_ms(&self) -> Option<u64> {
        self.header().and_then(|header| header.expire_at_ms)
    }
}

/// Looks a key up to read it: `None` if it does not exist for clients, which is noted as a miss.
pub fn read(view: &dyn View, key: &[u8]) -> Result<Option<Header>, ViewError> {
    let found = peek(view, key)?;
    if found.is_none() {
        view.notes().note(Wanted::KEY_MISS, "keymiss", key);
    }
    Ok(found)
}

/// The same for those who do not come to read: no miss is noted.
pub fn peek(view: &dyn View, key: &[u8]) -> Result<Option<Header>, ViewError> {
    let row = rows::header_key_on_stack(view.table(), key);
    let Some(header) = stored(view, &row)? else { return Ok(None) };
    if has_expired(view, &header) {
        view.meet_overdue(key, Overdue::Key);
        return Ok(None);
    }
    Ok(Some(header))
}

/// Looks a key up to write it.
pub fn lookup(view: &dyn View, key: &[u8]) -> Result<Found, ViewError> {
    let row = rows::header_key(view.table(), key);
    let stored = stored(view, &row)?;
    let live = stored.as_ref().is_some_and(|header| !has_expired(view, header));
    if stored.is_some() && !live {
        // Unless the command itself ends it.
        view.meet_overdue(key, Overdue::Key);
    }
    Ok(Found { row, stored, live })
}

/// Looks a key up to write a value of this type to it.
///
/// *Errors*: `WrongType` if it holds something else.
pub(crate) fn lookup_of(view: &dyn View, key: &[u8], kind: Kind) -> Result<Found, CommandError> {
    let found = lookup(view, key)?;
    match found.header() {
        Some(header) if header.value.kind() != kind => Err(CommandError::WrongType),
        _ => Ok(found),
    }
}

/// Reads the header of a row that a scan met: `None` if the key does not exist for clients.
pub fn read_row(view: &dyn View, value: &Bytes) -> Result<Option<Header>, ViewError> {
    let header = Header::decode(value.clone())?;
    let visible = !is_flushed(view, header.version) && !has_expired(view, &header);
    Ok(visible.then_some(header))
}

fn stored(view: &dyn View, row: &[u8]) -> Result<Option<Header>, ViewError> {
    let Some(value) = view.get(row)? else { return Ok(None) };
    let header = Header::decode(value)?;
    Ok(if is_flushed(view, header.version) { None } else { Some(header) })
}

fn is_flushed(view: &dyn View, version: Version) -> bool {
    view.flushed_through().is_some_and(|fence| version <= fence)
}

fn has_expired(view: &dyn View, header: &Header) -> bool {
    header.expire_at_ms.is_some_and(|at| view.is_past(at))
}

/// Makes `key` hold `value`, instead of whatever was found there.
///
/// A collection that keeps its generation keeps its data rows; any other generation is dropped.
pub fn store(txn: &mut Txn<'_>, key: &[u8], found: Found, value: Value, expire_at_ms: Option<u64>) {
    note_expired(txn, key, &found);
    if !found.live {
        txn.note(Wanted::NEW, "new", key);
    }
    let old = found.stored.as_ref();
    let old_expire = old.and_then(|header| header.expire_at_ms);
    change_ttl_row(txn, key, old.and_then(due_ms), sooner(expire_at_ms, &value));
    if let Some(Header { value: Value::Rows { generation, count, .. }, .. }) = old
        && value.generation() != Some(*generation)
    {
        txn.drop_generation(*generation, *count);
    }
    let counters = txn.counters_mut();
    match old {
        Some(old) => forget_bytes(&mut counters.bytes, key, old),
        None => counters.keys += 1,
    }
    counters.bytes = counters.bytes.saturating_add(charge(key, &value));
    if old_expire.is_none() && expire_at_ms.is_some() {
        counters.volatile += 1;
    } else if old_expire.is_some() && expire_at_ms.is_none() {
        counters.volatile = counters.volatile.saturating_sub(1);
    }
    let version = txn.new_version();
    txn.put(found.row, Header { version, expire_at_ms, value }.encode());
}

/// A key that has expired ends with the write that meets it, as by the leader's expiry.
fn note_expired(txn: &mut Txn<'_>, key: &[u8], found: &Found) {
    if found.has_expired() {
        txn.count_expired();
        txn.note(Wanted::EXPIRED, "expired", key);
    }
}

/// Removes whatever was found at `key`; true if it existed for clients, which is noted as `del`.
pub fn remove(txn: &mut Txn<'_>, key: &[u8], found: Found) -> bool {
    if found.live {
        txn.note(Wanted::GENERIC, "del", key);
    }
    remove_unnoted(txn, key, found)
}

/// The same, of a key that lives on under another name.
fn remove_unnoted(txn: &mut Txn<'_>, key: &[u8], found: Found) -> bool {
    if let Some(Header { value: Value::Rows { generation, count, .. }, .. }) = &found.stored {
        txn.drop_generation(*generation, *count);
    }
    remove_header(txn, key, found)
}

/// Removes a header, and leaves the data rows it named to whoever names them now.
fn remove_header(txn: &mut Txn<'_>, key: &[u8], found: Found) -> bool {
    note_expired(txn, key, &found);
    let Some(old) = found.stored else { return false };
    change_ttl_row(txn, key, due_ms(&old), None);
    let counters = txn.counters_mut();
    counters.keys = counters.keys.saturating_sub(1);
    if old.expire_at_ms.is_some() {
        counters.volatile = counters.volatile.saturating_sub(1);
    }
    forget_bytes(&mut counters.bytes, key, &old);
    txn.delete(found.row);
    found.live
}

/// Notes the new key of a command that deletes, in Redis's eyes, what lay there before it stores.
pub(crate) fn note_replaced(txn: &Txn<'_>, key: &[u8], found: &Found) {
    if found.live {
        txn.note(Wanted::NEW, "new", key);
    }
}

/// Moves the key found at `from`, which must exist, with its time to live to the other name `to`.
pub fn rename(
    txn: &mut Txn<'_>,
    from: (&[u8], Found),
    to: (&[u8], Found),
) -> Result<(), ViewError> {
    let Some(Header { value, expire_at_ms, .. }) = from.1.header().cloned() else { return Ok(()) };
    note_replaced(txn, to.0, &to.1);
    // Data rows are named by placement and generation: under another placement they must be
    // written anew, under the same they serve the new name as they are.
    if Placement::of_key(from.0) == Placement::of_key(to.0) {
        remove_header(txn, from.0, from.1);
        store(txn, to.0, to.1, value, expire_at_ms);
    } else {
        let value = copy_value(txn, value, from.0, to.0)?;
        remove_unnoted(txn, from.0, from.1);
        store(txn, to.0, to.1, value, expire_at_ms);
    }
    Ok(())
}

/// The value of `from` for the key `to`: data rows are copied under a generation of their own.
pub fn copy_value(
    txn: &mut Txn<'_>,
    value: Value,
    from: &[u8],
    to: &[u8],
) -> Result<Value, ViewError> {
    let Value::Rows { kind, generation: old, count, bytes, body } = value else { return Ok(value) };
    let table = txn.table();
    let (start, end) = rows::generation_range(table, Placement::of_key(from), old);
    let mut copies = Vec::new();
    txn.scan(&start, &end, Direction::Forward, &mut |row, value| {
        copies.push((row.slice(start.len()..), value.clone()));
        ControlFlow::Continue(())
    })?;
    let generation = txn.new_version();
    for (sub, value) in copies {
        txn.put(rows::data_key(table, Placement::of_key(to), generation, &sub), value);
    }
    Ok(Value::Rows { kind, generation, count, bytes, body })
}

/// Gives the key found another time to live, or none. It must exist.
pub fn set_expiry(txn: &mut Txn<'_>, key: &[u8], found: Found, expire_at_ms: Option<u64>) {
    // The value goes back as it came; cloning it copies no text.
    let Some(value) = found.header().map(|header| header.value.clone()) else { return };
    store(txn, key, found, value, expire_at_ms);
}

/// What a key with this value is counted with.
fn charge(key: &[u8], value: &Value) -> u64 {
    key.len() as u64 + value.bytes()
}

fn forget_bytes(bytes: &mut u64, key: &[u8], old: &Header) {
    *bytes = bytes.saturating_sub(charge(key, &old.value));
}

/// When the leader has to look at the key: it ceases to exist, or fields of its hash do.
pub fn due_ms(header: &Header) -> Option<u64> {
    sooner(header.expire_at_ms, &header.value)
}

fn sooner(expire_at_ms: Option<u64>, value: &Value) -> Option<u64> {
    match (expire_at_ms, hash::fields_due_ms(value)) {
        (Some(key), Some(fields)) => Some(key.min(fields)),
        (key, fields) => key.or(fields),
    }
}

fn change_ttl_row(txn: &mut Txn<'_>, key: &[u8], old: Option<u64>, new: Option<u64>) {
    if old == new {
        return;
    }
    let table = txn.table();
    if let Some(at) = old {
        txn.delete(rows::ttl_key(table, at, key));
    }
    if let Some(at) = new {
        txn.put(rows::ttl_key(table, at, key), Bytes::new());
    }
}

/// What [`expire_due`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expired {
    /// Keys removed, those that lost their last field included.
    pub removed: usize,
    /// Fields of hashes removed.
    pub fields: usize,
    /// No key is due before this time, in ms since the epoch; `None` if none has a time to live.
    /// In the past if the limit was reached: call again.
    pub next_due_ms: Option<u64>,
}

/// How far a leader has come with removing what is due. The index rows of what was removed stay
/// behind as deletions until a compaction drops them, so a look that began at the first row of the
/// index would step over all of them again: each look goes on where the last one ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExpiryAgenda {
    /// There is no index row of an earlier time.
    cleared_before_ms: u64,
    /// No key is due before this time; `None`: none has a time to live.
    next_due_ms: Option<u64>,
}

impl ExpiryAgenda {
    /// Nothing is known: the whole index is to be looked at.
    pub const UNKNOWN: ExpiryAgenda = ExpiryAgenda { cleared_before_ms: 0, next_due_ms: Some(0) };

    /// Whether a key may be due.
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.next_due_ms.is_some_and(|due| due <= now_ms)
    }

    /// No key is due before this time; `None`: none has a time to live.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.next_due_ms
    }

    /// Takes note of a new index row.
    pub fn add(&mut self, due_ms: u64) {
        self.next_due_ms = Some(self.next_due_ms.map_or(due_ms, |next| next.min(due_ms)));
        self.cleared_before_ms = self.cleared_before_ms.min(due_ms);
    }

    /// Takes note of what [`expire_due`] did at `now_ms`, if its effects stay.
    pub fn done(&mut self, expired: &Expired, now_ms: u64) {
        self.next_due_ms = expired.next_due_ms;
        let after_now = now_ms.saturating_add(1);
        self.cleared_before_ms = expired.next_due_ms.map_or(after_now, |due| due.min(after_now));
    }
}

/// Removes up to `limit` keys and fields of the partition whose time has come, soonest first.
///
/// An index row whose key has meanwhile another time to live, or went with a FLUSHDB, is stale and
/// is deleted, too; it counts towards the limit. A hash with more due fields than the limit leaves
/// keeps its index row, so that the next call goes on with it.
pub fn expire_due(
    txn: &mut Txn<'_>,
    agenda: &ExpiryAgenda,
    limit: usize,
) -> Result<Expired, ViewError> {
    let now = txn.now_ms();
    let (due, mut rest_due) = due_rows(txn, (agenda.cleared_before_ms, now), limit)?;
    let mut expired = Expired { removed: 0, fields: 0, next_due_ms: None };
    let mut left = limit;
    for (row, at, key) in due {
        if left == 0 {
            rest_due = earlier(rest_due, Some(at));
            break;
        }
        left -= 1;
        let found = lookup(txn, &key)?;
        let agrees = found.stored.as_ref().is_some_and(|header| due_ms(header) == Some(at));
        if !agrees {
            txn.delete(row);
        } else if found.live {
            let mut hash = HashEdit::of(txn, &key, found)?;
            let deleted = hash.delete_due(txn, left + 1)?;
            if deleted > 0 {
                txn.note(Wanted::HASH, "hexpired", &key);
            }
            expired.fields += deleted;
            left = (left + 1).saturating_sub(deleted.max(1));
            let due_again = hash.earliest_ms().filter(|next| *next <= now);
            rest_due = earlier(rest_due, due_again);
            expired.removed += usize::from(hash.finish(txn)?);
        } else {
            remove(txn, &key, found);
            expired.removed += 1;
        }
    }
    expired.next_due_ms = match rest_due {
        Some(at) => Some(at),
        None => next_due(txn, now.saturating_add(1))?,
    };
    Ok(expired)
}

/// The earlier of two times, of which there may be none.
fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

/// A row of the TTL index: its key, when it is due, the client's key.
type DueRow = (Bytes, u64, Bytes);

/// The first `limit` index rows of this partition from `from_ms` to `now`, and when the one after
/// them is due.
fn due_rows(
    view: &dyn View,
    (from_ms, now): (u64, u64),
    limit: usize,
) -> Result<(Vec<DueRow>, Option<u64>), ViewError> {
    let from = rows::ttl_key_at(view.table(), from_ms);
    let to = rows::ttl_key_at(view.table(), now.saturating_add(1));
    let range = view.range();
    let mut due = Vec::new();
    let mut rest = None;
    view.scan(&from, &to, Direction::Forward, &mut |row, _| {
        let Some(RowKind::Ttl { expire_at_ms, placement, key, .. }) = rows::parse(row) else {
            return ControlFlow::Continue(());
        };
        if !range.contains(placement) {
            return ControlFlow::Continue(());
        }
        if due.len() == limit {
            rest = Some(expire_at_ms);
            return ControlFlow::Break(());
        }
        due.push((row.clone(), expire_at_ms, row.slice_ref(key)));
        ControlFlow::Continue(())
    })?;
    Ok((due, rest))
}

/// A time before which no key of this partition is due, looking at index rows from `from_ms` on.
fn next_due(view: &dyn View, from_ms: u64) -> Result<Option<u64>, ViewError> {
    let from = rows::ttl_key_at(view.table(), from_ms);
    let to = rows::ttl_space_end(view.table());
    let range = view.range();
    let (mut next, mut visited) = (None, 0);
    view.scan(&from, &to, Direction::Forward, &mut |row, _| {
        let Some(RowKind::Ttl { expire_at_ms, placement, .. }) = rows::parse(row) else {
            return ControlFlow::Continue(());
        };
        visited += 1;
        if !range.contains(placement) && visited < NEXT_DUE_ROWS_MAX {
            return ControlFlow::Continue(());
        }
        next = Some(expire_at_ms);
        ControlFlow::Break(())
    })?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_for_due_keys_goes_on_where_the_last_one_ended() {
        let mut agenda = ExpiryAgenda::UNKNOWN;
        assert!(agenda.is_due(0));
        let done = |next_due_ms| Expired { removed: 1, fields: 0, next_due_ms };
        agenda.done(&done(Some(500)), 100);
        assert_eq!(agenda, ExpiryAgenda { cleared_before_ms: 101, next_due_ms: Some(500) });
        assert!(!agenda.is_due(499) && agenda.is_due(500));
        agenda.add(300);
        assert_eq!(agenda, ExpiryAgenda { cleared_before_ms: 101, next_due_ms: Some(300) });
        agenda.done(&done(Some(290)), 310);
        assert_eq!(agenda.cleared_before_ms, 290, "the limit was reached at 290");
        agenda.done(&done(None), 310);
        assert!(!agenda.is_due(u64::MAX));
        agenda.add(7);
        assert_eq!(agenda, ExpiryAgenda { cleared_before_ms: 7, next_due_ms: Some(7) });
    }
}
