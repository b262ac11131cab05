//! Hash commands on the times to live of fields: their rows stand in families/hash.rs.
//!
//! Redis parses each of these in its own way and refuses in its own words; where two of them differ
//! here, they do there.

use bytes::Bytes;
use wire::resp::Reply;

use crate::args::{Args, Word, parse_int};
use crate::error::{CommandError, Echo};
use crate::expiry::{TimeForm, now_ms};
use crate::families::hash::value_or_null;
use crate::notes::Wanted;
use crate::txn::Txn;
use crate::types::hash::{Entry, Hash};
use crate::types::hash_edit::HashEdit;
use crate::view::View;

/// The latest time that Redis lets a field live to, in ms since the epoch: 2^46 - 1.
const DEADLINE_MS_MAX: i64 = (1 << 46) - 1;

const NO_FIELD: i64 = -2;
const NO_TIME: i64 = -1;
const CONDITION_NOT_MET: i64 = 0;
const DONE: i64 = 1;
const DELETED: i64 = 2;

// --- Reading times

pub(crate) fn httl(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    times(view, args, |at, now| rounded_up(at - now))
}

pub(crate) fn hpttl(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    times(view, args, |at, now| at - now)
}

pub(crate) fn hexpiretime(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    times(view, args, |at, _| rounded_up(at))
}

pub(crate) fn hpexpiretime(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    times(view, args, |at, _| at)
}

fn rounded_up(ms: u64) -> u64 {
    ms.saturating_add(999) / 1000
}

fn times(
    view: &dyn View,
    args: Args<'_>,
    time: fn(u64, u64) -> u64,
) -> Result<Reply, CommandError> {
    let hash = Hash::read(view, args.bytes(1)?)?;
    let fields = counted_fields(args, 2, CommandError::FIELDS_NOT_POSITIVE)?;
    let mut replies = Vec::with_capacity(fields.len());
    for field in fields {
        let entry = hash.as_ref().map_or(Ok(None), |hash| hash.get(field))?;
        replies.push(Reply::Integer(match entry {
            None => NO_FIELD,
            Some(Entry { expire_at_ms: None, .. }) => NO_TIME,
            Some(Entry { expire_at_ms: Some(at), .. }) => {
                i64::try_from(time(at, view.now_ms())).unwrap_or(i64::MAX)
            }
        }));
    }
    Ok(Reply::Array(replies))
}

/// The fields of `FIELDS count field …` that stands at a position.
pub(crate) fn counted_fields(
    args: Args<'_>,
    at: usize,
    not_positive: CommandError,
) -> Result<&[Bytes], CommandError> {
    if !args.get(at).is_some_and(|word| word.eq_ignore_ascii_case(b"FIELDS")) {
        return Err(CommandError::FIELDS_MISSING);
    }
    let count = args.get(at + 1).and_then(|count| parse_int(count));
    let count = count.filter(|count| *count > 0).ok_or(not_positive)?;
    let fields = args.from(at + 2);
    if i64::try_from(fields.len()) != Ok(count) {
        return Err(CommandError::FIELDS_COUNT);
    }
    Ok(fields)
}

// --- Setting times

pub(crate) fn hexpire(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    expire_by(txn, args, TimeForm::EX, "hexpire")
}

pub(crate) fn hpexpire(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    expire_by(txn, args, TimeForm::PX, "hpexpire")
}

pub(crate) fn hexpireat(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    expire_by(txn, args, TimeForm::EXAT, "hexpireat")
}

pub(crate) fn hpexpireat(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    expire_by(txn, args, TimeForm::PXAT, "hpexpireat")
}

/// When a field's time to live may change. No time counts as forever, but XX and GT want one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    NoTime,
    HasTime,
    Later,
    Sooner,
}

impl Condition {
    fn of_option(word: &[u8]) -> Option<Condition> {
        Some(match word {
            b"NX" => Condition::NoTime,
            b"XX" => Condition::HasTime,
            b"GT" => Condition::Later,
            b"LT" => Condition::Sooner,
            _ => return None,
        })
    }

    fn allows(self, present_ms: Option<u64>, new_ms: u64) -> bool {
        match (self, present_ms) {
            (Condition::Always, _) => true,
            (Condition::NoTime | Condition::Sooner, None) => true,
            (Condition::HasTime | Condition::Later, None) => false,
            (Condition::NoTime, Some(_)) => false,
            (Condition::HasTime, Some(_)) => true,
            (Condition::Later, Some(present)) => new_ms > present,
            (Condition::Sooner, Some(present)) => new_ms < present,
        }
    }
}

fn expire_by(
    txn: &mut Txn<'_>,
    args: Args<'_>,
    form: TimeForm,
    command: &'static str,
) -> Result<Reply, CommandError> {
    let mut hash = HashEdit::open(txn, args.bytes(1)?)?;
    let deadline = deadline_ms(txn, form, args.bytes(2)?, command)?;
    let (condition, fields_at) = match Condition::of_option(Word::new(args.bytes(3)?).as_bytes()) {
        Some(condition) => (condition, 4),
        None => (Condition::Always, 3),
    };
    let fields = counted_fields(args, fields_at, CommandError::FIELDS_NOT_ABOVE_ZERO)?;
    let mut replies = Vec::with_capacity(fields.len());
    let mut changed = false;
    for field in fields {
        replies.push(Reply::Integer(match hash.get(txn, field)? {
            None => NO_FIELD,
            Some(entry) if !condition.allows(entry.expire_at_ms, deadline) => CONDITION_NOT_MET,
            Some(entry) => {
                changed = true;
                set_deadline(txn, &mut hash, &entry, deadline)?
            }
        }));
    }
    if changed {
        note_deadline(txn, args.bytes(1)?, deadline);
    }
    hash.finish(txn)?;
    Ok(Reply::Array(replies))
}

/// Notes that fields were given a time to live, or were deleted as it has come.
fn note_deadline(txn: &Txn<'_>, key: &[u8], deadline_ms: u64) {
    let event = if deadline_ms <= txn.now_ms() { "hdel" } else { "hexpire" };
    txn.note(Wanted::HASH, event, key);
}

/// Gives a field another time to live; one that has come deletes it here and now.
fn set_deadline(
    txn: &mut Txn<'_>,
    hash: &mut HashEdit<'_>,
    entry: &Entry,
    deadline_ms: u64,
) -> Result<i64, CommandError> {
    if deadline_ms <= txn.now_ms() {
        hash.delete(txn, &entry.field)?;
        return Ok(DELETED);
    }
    hash.put(txn, &entry.field, &entry.value, Some(deadline_ms))?;
    Ok(DONE)
}

/// When a field with this time to live ceases to exist, in ms since the epoch.
fn deadline_ms(
    view: &dyn View,
    form: TimeForm,
    text: &[u8],
    command: &'static str,
) -> Result<u64, CommandError> {
    let amount = parse_int(text).ok_or(CommandError::NotInteger)?;
    if amount < 0 {
        return Err(CommandError::FIELD_TIME_NEGATIVE);
    }
    let start = if form.absolute { 0 } else { now_ms(view) };
    let ms = if form.seconds { amount.checked_mul(1000) } else { Some(amount) };
    // Compared before it is added, as Redis does, lest the sum wraps.
    let ms = ms.filter(|ms| *ms <= DEADLINE_MS_MAX.saturating_sub(start));
    let at = ms.and_then(|ms| u64::try_from(ms.saturating_add(start)).ok());
    at.ok_or(CommandError::InvalidExpireTime(command))
}

pub(crate) fn hpersist(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut hash = HashEdit::open(txn, args.bytes(1)?)?;
    let fields = counted_fields(args, 2, CommandError::FIELDS_NOT_POSITIVE)?;
    let mut replies = Vec::with_capacity(fields.len());
    let mut changed = false;
    for field in fields {
        replies.push(Reply::Integer(match hash.get(txn, field)? {
            None => NO_FIELD,
            Some(Entry { expire_at_ms: None, .. }) => NO_TIME,
            Some(entry) => {
                hash.put(txn, field, &entry.value, None)?;
                changed = true;
                DONE
            }
        }));
    }
    hash.finish(txn)?;
    if changed {
        txn.note(Wanted::HASH, "hpersist", args.bytes(1)?);
    }
    Ok(Reply::Array(replies))
}

// --- Values and times together

/// What HGETEX does with the fields' times to live.
enum Change {
    None,
    Persist,
    Deadline(u64),
}

pub(crate) fn hgetex(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut hash = HashEdit::open(txn, args.bytes(1)?)?;
    let word = Word::new(args.bytes(2)?);
    let (change, fields_at) = match (word.as_bytes(), TimeForm::of_option(word.as_bytes())) {
        (b"PERSIST", _) => (Change::Persist, 3),
        (_, Some(form)) => (Change::Deadline(deadline_ms(txn, form, args.bytes(3)?, "hgetex")?), 4),
        _ => (Change::None, 2),
    };
    let fields = counted_fields(args, fields_at, CommandError::FIELDS_NOT_POSITIVE)?;
    let mut values = Vec::with_capacity(fields.len());
    let mut changed = false;
    for field in fields {
        let entry = hash.get(txn, field)?;
        match (&change, &entry) {
            (Change::Deadline(at), Some(entry)) => {
                set_deadline(txn, &mut hash, entry, *at)?;
                changed = true;
            }
            (Change::Persist, Some(entry)) if entry.expire_at_ms.is_some() => {
                hash.put(txn, field, &entry.value, None)?;
                changed = true;
            }
            _ => {}
        }
        values.push(value_or_null(entry));
    }
    match change {
        Change::Deadline(at) if changed => note_deadline(txn, args.bytes(1)?, at),
        Change::Persist if changed => txn.note(Wanted::HASH, "hpersist", args.bytes(1)?),
        _ => {}
    }
    hash.finish(txn)?;
    Ok(Reply::Array(values))
}

/// The line of an HSETEX.
struct SetEx<'a> {
    /// All fields must exist (`true`), or none (`false`).
    want_existing: Option<bool>,
    keep_times: bool,
    deadline_ms: Option<u64>,
    pairs: &'a [[Bytes; 2]],
}

pub(crate) fn hsetex(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let line = parse_setex(txn, args)?;
    let mut hash = HashEdit::open(txn, args.bytes(1)?)?;
    if let Some(want_existing) = line.want_existing {
        for [field, _] in line.pairs {
            if hash.get(txn, field)?.is_some() != want_existing {
                return Ok(Reply::Integer(0));
            }
        }
    }
    hash.will_put(line.pairs.len());
    for [field, value] in line.pairs {
        let expire_at_ms = match line.deadline_ms {
            None if line.keep_times => hash.get(txn, field)?.and_then(|old| old.expire_at_ms),
            deadline => deadline,
        };
        // A time that has come leaves no field, neither the new one nor the old.
        if expire_at_ms.is_some_and(|at| at <= txn.now_ms()) {
            hash.delete(txn, field)?;
        } else {
            hash.put(txn, field, value, expire_at_ms)?;
        }
    }
    hash.finish(txn)?;
    txn.note(Wanted::HASH, "hset", args.bytes(1)?);
    if let Some(deadline) = line.deadline_ms {
        note_deadline(txn, args.bytes(1)?, deadline);
    }
    Ok(Reply::Integer(1))
}

fn parse_setex<'a>(view: &dyn View, args: Args<'a>) -> Result<SetEx<'a>, CommandError> {
    let arity = || CommandError::Arity("hsetex".into());
    let mut line = SetEx { want_existing: None, keep_times: false, deadline_ms: None, pairs: &[] };
    let mut options = args.options(2);
    while let Some(raw) = options.raw() {
        let word = Word::new(raw);
        let timed = line.keep_times || line.deadline_ms.is_some();
        match word.as_bytes() {
            b"FIELDS" => {
                if options.left() < 3 {
                    return Err(arity());
                }
                let count = parse_int(options.value()?).filter(|count| *count > 0);
                let count = count.and_then(|count| i32::try_from(count).ok());
                let count = count.ok_or(CommandError::FIELDS_INVALID)?;
                let (pairs, rest) = args.from(args.len() - options.left()).as_chunks::<2>();
                if !rest.is_empty() || i32::try_from(pairs.len()) != Ok(count) {
                    return Err(arity());
                }
                return Ok(SetEx { pairs, ..line });
            }
            b"KEEPTTL" if !timed => line.keep_times = true,
            b"FXX" | b"FNX" if line.want_existing.is_none() => {
                line.want_existing = Some(word.as_bytes() == b"FXX");
            }
            b"FXX" | b"FNX" => return Err(CommandError::HSETEX_ONE_CONDITION),
            word => match TimeForm::of_option(word) {
                Some(_) if timed => return Err(CommandError::HSETEX_ONE_TIME),
                None if word == b"KEEPTTL" => return Err(CommandError::HSETEX_ONE_TIME),
                None => return Err(CommandError::UnknownArgument(Echo::new(raw))),
                Some(form) => {
                    let text = options.raw().ok_or(CommandError::EXPIRE_TIME_MISSING)?;
                    line.deadline_ms = Some(deadline_ms(view, form, text, "hsetex")?);
                }
            },
        }
    }
    // Not reached: options alone do not make the six arguments that the row wants.
    Err(arity())
}
