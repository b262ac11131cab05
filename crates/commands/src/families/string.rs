//! String commands. A string is the body of its header row: types/header.rs.

use bytes::{BufMut, Bytes, BytesMut};
use wire::resp::Reply;

use crate::args::{Args, VALUE_BYTES_MAX, int_text, parse_int};
use crate::command::{
    Command, Flags, KeyFlags, Keys, at_least, exactly, key, keys_from, read, write,
};
use crate::error::CommandError;
use crate::expiry::TimeForm;
use crate::notes::Wanted;
use crate::txn::Txn;
use crate::types::header::{Header, TextForm, Value};
use crate::types::keyspace::{self, Found};
use crate::types::lcs;
use crate::types::long_double::LongDouble;
use crate::view::View;

const FAST: Flags = Flags::FAST;
const DENYOOM: Flags = Flags::DENYOOM;
const NONE: Flags = Flags::NONE;

const RO: Keys = key(1, KeyFlags::RO);
const RO_ACCESS: Keys = key(1, KeyFlags(KeyFlags::RO.0 | KeyFlags::ACCESS.0));
const RW_UPDATE: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::UPDATE.0));
const RW_INSERT: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::INSERT.0));
const RW_ACCESS: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::ACCESS.0 | KeyFlags::UPDATE.0));
const RW_DELETE: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::ACCESS.0 | KeyFlags::DELETE.0));
const OW_UPDATE: Keys = key(1, KeyFlags(KeyFlags::OW.0 | KeyFlags::UPDATE.0));
const OW_INSERT: Keys = key(1, KeyFlags(KeyFlags::OW.0 | KeyFlags::INSERT.0));
const SET_KEY: Keys = key(
    1,
    KeyFlags(KeyFlags::RW.0 | KeyFlags::ACCESS.0 | KeyFlags::UPDATE.0 | KeyFlags::VARIABLE_FLAGS.0),
);
const DELEX_KEY: Keys =
    key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::DELETE.0 | KeyFlags::VARIABLE_FLAGS.0));
const COUNTED: Keys =
    Keys::CountedPairs { at: 1, flags: KeyFlags(KeyFlags::OW.0 | KeyFlags::UPDATE.0) };
const RO_ALL: Keys = keys_from(1, 1, KeyFlags(KeyFlags::RO.0 | KeyFlags::ACCESS.0));
const RO_BOTH: Keys = Keys::Range {
    first: 1,
    last: 2,
    step: 1,
    flags: KeyFlags(KeyFlags::RO.0 | KeyFlags::ACCESS.0),
};
const PAIRS_UPDATE: Keys = keys_from(1, 2, KeyFlags(KeyFlags::OW.0 | KeyFlags::UPDATE.0));
const PAIRS_INSERT: Keys = keys_from(1, 2, KeyFlags(KeyFlags::OW.0 | KeyFlags::INSERT.0));

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //     name           arity        flags            keys          handler
    write("APPEND",      exactly(3),  DENYOOM.and(FAST), RW_INSERT,    append),
    write("DECR",        exactly(2),  DENYOOM.and(FAST), RW_ACCESS,    decr),
    write("DECRBY",      exactly(3),  DENYOOM.and(FAST), RW_ACCESS,    decrby),
    write("DELEX",       at_least(2), FAST,              DELEX_KEY,    delex),
    read ("DIGEST",      exactly(2),  FAST,              RO,           digest),
    read ("GET",         exactly(2),  FAST,              RO_ACCESS,    get),
    write("GETDEL",      exactly(2),  FAST,              RW_DELETE,    getdel),
    write("GETEX",       at_least(2), FAST,              RW_ACCESS,    getex),
    read ("GETRANGE",    exactly(4),  NONE,              RO_ACCESS,    getrange),
    write("GETSET",      exactly(3),  DENYOOM.and(FAST), RW_ACCESS,    getset),
    write("INCR",        exactly(2),  DENYOOM.and(FAST), RW_ACCESS,    incr),
    write("INCRBY",      exactly(3),  DENYOOM.and(FAST), RW_ACCESS,    incrby),
    write("INCRBYFLOAT", exactly(3),  DENYOOM.and(FAST), RW_ACCESS,    incrbyfloat),
    read ("LCS",         at_least(3), NONE,              RO_BOTH,      longest_common_subsequence),
    read ("MGET",        at_least(2), FAST,              RO_ALL,       mget),
    write("MSET",        at_least(3), DENYOOM,           PAIRS_UPDATE, mset),
    write("MSETEX",      at_least(4), DENYOOM,           COUNTED,      msetex),
    write("MSETNX",      at_least(3), DENYOOM,           PAIRS_INSERT, msetnx),
    write("PSETEX",      exactly(4),  DENYOOM,           OW_UPDATE,    psetex),
    write("SET",         at_least(3), DENYOOM,           SET_KEY,      set),
    write("SETEX",       exactly(4),  DENYOOM,           OW_UPDATE,    setex),
    write("SETNX",       exactly(3),  DENYOOM.and(FAST), OW_INSERT,    setnx),
    write("SETRANGE",    exactly(4),  DENYOOM,           RW_UPDATE,    setrange),
    read ("STRLEN",      exactly(2),  FAST,              RO,           strlen),
    read ("SUBSTR",      exactly(4),  NONE,              RO_ACCESS,    getrange),
];

// --- Reading

fn get(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    Ok(bulk_or_null(read_text(view, args.bytes(1)?)?))
}

fn mget(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let texts = args.from(1).iter().map(|key| match read_text(view, key) {
        // MGET never fails by type: what is no string is no value.
        Err(CommandError::WrongType) => Ok(Reply::Null),
        text => text.map(bulk_or_null),
    });
    Ok(Reply::Array(texts.collect::<Result<_, _>>()?))
}

fn strlen(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let text = read_text(view, args.bytes(1)?)?;
    Ok(length(text.map_or(0, |text| text.len())))
}

/// Redis's digest of a string: XXH3, as 16 hexadecimal digits.
fn digest_of(text: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text))
}

fn digest(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let text = read_text(view, args.bytes(1)?)?;
    Ok(bulk_or_null(text.map(|text| Bytes::from(digest_of(&text)))))
}

fn getrange(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let (start, end) = (args.int(2)?, args.int(3)?);
    let text = read_text(view, args.bytes(1)?)?.unwrap_or_default();
    Ok(Reply::Bulk(text.slice(byte_range(text.len(), start, end))))
}

/// The bytes that inclusive bounds name, negative ones counted from the end.
fn byte_range(length: usize, start: i64, end: i64) -> std::ops::Range<usize> {
    // Redis answers so before it clamps; after clamping, both bounds would be 0.
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let from_end = |at: i64| if at < 0 { at.saturating_add(length).max(0) } else { at };
    let (start, end) = (from_end(start), from_end(end).min(length - 1));
    if start > end { 0..0 } else { start as usize..end as usize + 1 }
}

fn longest_common_subsequence(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let not_strings = |error| match error {
        CommandError::WrongType => CommandError::LCS_NOT_STRINGS,
        error => error,
    };
    let a = read_text(view, args.bytes(1)?).map_err(not_strings)?.unwrap_or_default();
    let b = read_text(view, args.bytes(2)?).map_err(not_strings)?.unwrap_or_default();
    let (mut want_length, mut want_matches, mut with_lengths) = (false, false, false);
    let mut shortest = 0;
    let mut options = args.options(3);
    while let Some(word) = options.word() {
        match word.as_bytes() {
            b"LEN" => want_length = true,
            b"IDX" => want_matches = true,
            b"WITHMATCHLEN" => with_lengths = true,
            b"MINMATCHLEN" if options.left() > 0 => shortest = options.int()?.max(0),
            _ => return Err(CommandError::Syntax),
        }
    }
    if want_length && want_matches {
        return Err(CommandError::LCS_LEN_AND_IDX);
    }
    let found = lcs::find(&a, &b).ok_or(CommandError::LCS_TOO_BIG)?;
    if want_length {
        return Ok(length(found.text.len()));
    }
    if !want_matches {
        return Ok(Reply::Bulk(found.text));
    }
    let matches = found.matches.iter().filter(|m| m.length as i64 >= shortest);
    let matches = matches.map(|m| match_reply(m, with_lengths)).collect();
    Ok(Reply::Map(vec![
        (Reply::Bulk(Bytes::from_static(b"matches")), Reply::Array(matches)),
        (Reply::Bulk(Bytes::from_static(b"len")), length(found.text.len())),
    ]))
}

fn match_reply(found: &lcs::Match, with_length: bool) -> Reply {
    let span = |start: usize| Reply::Array(vec![length(start), length(start + found.length - 1)]);
    let mut reply = vec![span(found.a), span(found.b)];
    if with_length {
        reply.push(length(found.length));
    }
    Reply::Array(reply)
}

// --- SET and its like

/// What a key must hold for SET and DELEX to act.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition<'a> {
    Any,
    Absent,
    Present,
    /// A string: this one.
    Equal(&'a Bytes),
    /// No string, or not this one.
    Unequal(&'a Bytes),
    /// A string with this digest.
    Digest(&'a Bytes),
    /// No string, or one with another digest.
    NotDigest(&'a Bytes),
}

impl<'a> Condition<'a> {
    /// The condition on a string that an option announces.
    fn of_option(word: &[u8], value: &'a Bytes) -> Option<Condition<'a>> {
        Some(match word {
            b"IFEQ" => Condition::Equal(value),
            b"IFNE" => Condition::Unequal(value),
            b"IFDEQ" => Condition::Digest(value),
            b"IFDNE" => Condition::NotDigest(value),
            _ => return None,
        })
    }

    /// Whether the key found is as wanted.
    ///
    /// *Errors*: it holds no string, but the condition is on one; or a digest that can be none.
    fn holds(self, found: &Found) -> Result<bool, CommandError> {
        let has_digest =
            |text: &Bytes, digest: &Bytes| digest_of(text).as_bytes().eq_ignore_ascii_case(digest);
        if let Condition::Digest(digest) | Condition::NotDigest(digest) = self
            && digest.len() != DIGEST_DIGITS
        {
            return Err(CommandError::DIGEST_LENGTH);
        }
        Ok(match self {
            Condition::Any => true,
            Condition::Absent => !found.exists(),
            Condition::Present => found.exists(),
            Condition::Equal(value) => text_of(found)? == Some(value),
            Condition::Unequal(value) => text_of(found)? != Some(value),
            Condition::Digest(digest) => text_of(found)?.is_some_and(|t| has_digest(t, digest)),
            Condition::NotDigest(digest) => text_of(found)?.is_none_or(|t| !has_digest(t, digest)),
        })
    }
}

/// Digits of a digest.
const DIGEST_DIGITS: usize = 16;

/// What a command says about the key's time to live.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lifetime<'a> {
    Unsaid,
    Keep,
    Persist,
    Until(TimeForm, &'a Bytes),
}

impl<'a> Lifetime<'a> {
    /// Takes `form` as the next option. A form may be repeated, but not joined with another.
    fn timed(self, form: TimeForm, amount: &'a Bytes) -> Result<Lifetime<'a>, CommandError> {
        match self {
            Lifetime::Unsaid => {}
            Lifetime::Until(present, _) if present == form => {}
            _ => return Err(CommandError::Syntax),
        }
        Ok(Lifetime::Until(form, amount))
    }

    fn or_same(self, new: Lifetime<'a>) -> Result<Lifetime<'a>, CommandError> {
        if self == Lifetime::Unsaid || self == new { Ok(new) } else { Err(CommandError::Syntax) }
    }

    fn deadline_ms(
        self,
        view: &dyn View,
        command: &'static str,
    ) -> Result<Option<u64>, CommandError> {
        let Lifetime::Until(form, amount) = self else { return Ok(None) };
        let amount = parse_int(amount).ok_or(CommandError::NotInteger)?;
        form.positive_deadline_ms(view, amount, command).map(Some)
    }
}

fn set(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (mut condition, mut lifetime, mut want_old) = (Condition::Any, Lifetime::Unsaid, false);
    let mut options = args.options(3);
    while let Some(word) = options.word() {
        match word.as_bytes() {
            b"NX" if matches!(condition, Condition::Any | Condition::Absent) => {
                condition = Condition::Absent;
            }
            b"XX" if matches!(condition, Condition::Any | Condition::Present) => {
                condition = Condition::Present;
            }
            b"IFEQ" | b"IFNE" | b"IFDEQ" | b"IFDNE" if condition == Condition::Any => {
                let of_string = Condition::of_option(word.as_bytes(), options.value()?);
                condition = of_string.unwrap_or(Condition::Any);
            }
            b"GET" => want_old = true,
            b"KEEPTTL" => lifetime = lifetime.or_same(Lifetime::Keep)?,
            other => {
                let form = TimeForm::of_option(other).ok_or(CommandError::Syntax)?;
                lifetime = lifetime.timed(form, options.value()?)?;
            }
        }
    }
    let deadline = lifetime.deadline_ms(txn, "set")?;
    let key = args.bytes(1)?;
    let found = keyspace::lookup(txn, key)?;
    let old = if want_old { Some(bulk_or_null(text_to_read(txn, key, &found)?)) } else { None };
    if !condition.holds(&found)? {
        return Ok(old.unwrap_or(Reply::Null));
    }
    let expire_at_ms = if lifetime == Lifetime::Keep { found.expire_at_ms() } else { deadline };
    keyspace::store(txn, key, found, Value::string(args.bytes(2)?.clone()), expire_at_ms);
    note_set(txn, key, deadline);
    Ok(old.unwrap_or(Reply::OK))
}

fn setnx(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let key = args.bytes(1)?;
    let found = keyspace::lookup(txn, key)?;
    if found.exists() {
        return Ok(Reply::Integer(0));
    }
    keyspace::store(txn, key, found, Value::string(args.bytes(2)?.clone()), None);
    note_set(txn, key, None);
    Ok(Reply::Integer(1))
}

fn setex(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    set_until(txn, args, TimeForm::EX, "setex")
}

fn psetex(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    set_until(txn, args, TimeForm::PX, "psetex")
}

fn set_until(
    txn: &mut Txn<'_>,
    args: Args<'_>,
    form: TimeForm,
    command: &'static str,
) -> Result<Reply, CommandError> {
    let deadline = form.positive_deadline_ms(txn, args.int(2)?, command)?;
    let key = args.bytes(1)?;
    let found = keyspace::lookup(txn, key)?;
    keyspace::store(txn, key, found, Value::string(args.bytes(3)?.clone()), Some(deadline));
    note_set(txn, key, Some(deadline));
    Ok(Reply::OK)
}

/// Notes that a string was set, and its time to live if it was given one.
fn note_set(txn: &Txn<'_>, key: &[u8], deadline: Option<u64>) {
    txn.note(Wanted::STRING, "set", key);
    if deadline.is_some() {
        txn.note(Wanted::GENERIC, "expire", key);
    }
}

fn mset(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    set_pairs(txn, pairs(args, "mset")?)?;
    Ok(Reply::OK)
}

fn msetnx(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let pairs = pairs(args, "msetnx")?;
    for [key, _] in pairs {
        if keyspace::peek(txn, key)?.is_some() {
            return Ok(Reply::Integer(0));
        }
    }
    set_pairs(txn, pairs)?;
    Ok(Reply::Integer(1))
}

fn msetex(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let count = parse_int(args.bytes(1)?).and_then(|count| u32::try_from(count).ok());
    let count = count.filter(|count| *count > 0 && *count <= i32::MAX as u32);
    let count = count.ok_or(CommandError::MSETEX_NUMKEYS)? as usize;
    let (pairs, _) = args.from(2).as_chunks::<2>();
    let pairs = pairs.get(..count).ok_or(CommandError::MSETEX_PAIRS)?;
    let (mut condition, mut lifetime) = (Condition::Any, Lifetime::Unsaid);
    let mut options = args.options(2 + 2 * count);
    while let Some(word) = options.word() {
        match word.as_bytes() {
            b"NX" if condition != Condition::Present => condition = Condition::Absent,
            b"XX" if condition != Condition::Absent => condition = Condition::Present,
            b"KEEPTTL" => lifetime = lifetime.or_same(Lifetime::Keep)?,
            other => {
                let form = TimeForm::of_option(other).ok_or(CommandError::Syntax)?;
                lifetime = lifetime.timed(form, options.value()?)?;
            }
        }
    }
    let deadline = lifetime.deadline_ms(txn, "msetex")?;
    for [key, _] in pairs {
        if !condition.holds(&keyspace::lookup(txn, key)?)? {
            return Ok(Reply::Integer(0));
        }
    }
    for [key, value] in pairs {
        let found = keyspace::lookup(txn, key)?;
        let keeps = lifetime == Lifetime::Keep;
        let expire_at_ms = if keeps { found.expire_at_ms() } else { deadline };
        keyspace::store(txn, key, found, Value::string(value.clone()), expire_at_ms);
        note_set(txn, key, deadline);
    }
    Ok(Reply::Integer(1))
}

/// The keys and values of MSET, which arity cannot tell to be pairs.
fn pairs<'a>(args: Args<'a>, command: &'static str) -> Result<&'a [[Bytes; 2]], CommandError> {
    let (pairs, odd) = args.from(1).as_chunks();
    if odd.is_empty() { Ok(pairs) } else { Err(CommandError::Arity(command.into())) }
}

fn set_pairs(txn: &mut Txn<'_>, pairs: &[[Bytes; 2]]) -> Result<(), CommandError> {
    for [key, value] in pairs {
        // One by one: a key that comes twice must find what its first pair left.
        let found = keyspace::lookup(txn, key)?;
        keyspace::store(txn, key, found, Value::string(value.clone()), None);
        note_set(txn, key, None);
    }
    Ok(())
}

// --- Reading and writing

fn getset(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let key = args.bytes(1)?;
    let found = keyspace::lookup(txn, key)?;
    let old = text_to_read(txn, key, &found)?;
    keyspace::store(txn, key, found, Value::string(args.bytes(2)?.clone()), None);
    note_set(txn, key, None);
    Ok(bulk_or_null(old))
}

fn getdel(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let key = args.bytes(1)?;
    let found = keyspace::lookup(txn, key)?;
    let Some(old) = text_to_read(txn, key, &found)? else { return Ok(Reply::Null) };
    keyspace::remove(txn, key, found);
    Ok(Reply::Bulk(old))
}

fn delex(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let key = args.bytes(1)?;
    let found = keyspace::lookup(txn, key)?;
    let condition = match args.from(2) {
        [] => Condition::Any,
        [_, _] if !found.exists() => return Ok(Reply::Integer(0)),
        [word, value] => Condition::of_option(&word.to_ascii_uppercase(), value)
            .ok_or(CommandError::DELEX_CONDITION)?,
        _ => return Err(CommandError::Arity("delex".into())),
    };
    let deletes = condition.holds(&found)? && keyspace::remove(txn, key, found);
    Ok(Reply::Integer(i64::from(deletes)))
}

fn getex(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut lifetime = Lifetime::Unsaid;
    let mut options = args.options(2);
    while let Some(word) = options.word() {
        match word.as_bytes() {
            b"PERSIST" => lifetime = lifetime.or_same(Lifetime::Persist)?,
            other => {
                let form = TimeForm::of_option(other).ok_or(CommandError::Syntax)?;
                lifetime = lifetime.timed(form, options.value()?)?;
            }
        }
    }
    let key = args.bytes(1)?;
    let found = keyspace::lookup(txn, key)?;
    let Some(text) = text_to_read(txn, key, &found)? else { return Ok(Reply::Null) };
    // Only a key that exists has its new time looked at: Redis answers null before it complains.
    let deadline = lifetime.deadline_ms(txn, "getex")?;
    match deadline {
        Some(at) if at <= txn.now_ms() => {
            keyspace::remove(txn, key, found);
        }
        Some(at) => {
            keyspace::set_expiry(txn, key, found, Some(at));
            txn.note(Wanted::GENERIC, "expire", key);
        }
        None if lifetime == Lifetime::Persist && found.expire_at_ms().is_some() => {
            keyspace::set_expiry(txn, key, found, None);
            txn.note(Wanted::GENERIC, "persist", key);
        }
        None => {}
    }
    Ok(Reply::Bulk(text))
}

fn append(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (key, more) = (args.bytes(1)?, args.bytes(2)?);
    let found = keyspace::lookup(txn, key)?;
    let Some(old) = text_of(&found)? else {
        keyspace::store(txn, key, found, Value::string(more.clone()), None);
        txn.note(Wanted::STRING, "append", key);
        return Ok(length(more.len()));
    };
    let total = checked_length(old.len(), more.len())?;
    let mut text = BytesMut::with_capacity(total);
    text.put_slice(old);
    text.put_slice(more);
    let value = Value::String { text: text.freeze(), form: TextForm::Raw };
    let expire_at_ms = found.expire_at_ms();
    keyspace::store(txn, key, found, value, expire_at_ms);
    txn.note(Wanted::STRING, "append", key);
    Ok(length(total))
}

fn setrange(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let offset = args.int(2)?;
    let offset = usize::try_from(offset).map_err(|_| CommandError::OffsetOutOfRange)?;
    let (key, patch) = (args.bytes(1)?, args.bytes(3)?);
    let found = keyspace::lookup(txn, key)?;
    let old = text_of(&found)?.cloned().unwrap_or_default();
    if patch.is_empty() {
        return Ok(length(old.len()));
    }
    let total = checked_length(offset, patch.len())?.max(old.len());
    let mut text = BytesMut::with_capacity(total);
    text.put_slice(&old);
    text.resize(total, 0);
    text[offset..offset + patch.len()].copy_from_slice(patch);
    let value = Value::String { text: text.freeze(), form: TextForm::Raw };
    let expire_at_ms = found.expire_at_ms();
    keyspace::store(txn, key, found, value, expire_at_ms);
    txn.note(Wanted::STRING, "setrange", key);
    Ok(length(total))
}

fn checked_length(a: usize, b: usize) -> Result<usize, CommandError> {
    let total = a.checked_add(b).filter(|total| *total <= VALUE_BYTES_MAX);
    total.ok_or(CommandError::StringTooLong)
}

// --- Counting

fn incr(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    add(txn, args, 1)
}

fn decr(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    add(txn, args, -1)
}

fn incrby(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    add(txn, args, args.int(2)?)
}

fn decrby(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let amount = args.int(2)?.checked_neg().ok_or(CommandError::DecrementOverflow)?;
    add(txn, args, amount)
}

fn add(txn: &mut Txn<'_>, args: Args<'_>, amount: i64) -> Result<Reply, CommandError> {
    let key = args.bytes(1)?;
    let found = keyspace::lookup(txn, key)?;
    let old = match text_of(&found)? {
        Some(text) => parse_int(text).ok_or(CommandError::NotInteger)?,
        None => 0,
    };
    let new = old.checked_add(amount).ok_or(CommandError::IncrementOverflow)?;
    let expire_at_ms = found.expire_at_ms();
    keyspace::store(txn, key, found, Value::string(int_text(new)), expire_at_ms);
    txn.note(Wanted::STRING, "incrby", key);
    Ok(Reply::Integer(new))
}

fn incrbyfloat(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let key = args.bytes(1)?;
    let found = keyspace::lookup(txn, key)?;
    let old = match text_of(&found)? {
        Some(text) => LongDouble::parse(text).ok_or(CommandError::NotFloat)?,
        None => LongDouble::ZERO,
    };
    let amount = LongDouble::parse(args.bytes(2)?).ok_or(CommandError::NotFloat)?;
    let new = old.add(amount).ok_or(CommandError::IncrementNotFinite)?;
    let text = Bytes::from(new.to_human_text());
    let value = Value::String { text: text.clone(), form: TextForm::Text };
    let expire_at_ms = found.expire_at_ms();
    keyspace::store(txn, key, found, value, expire_at_ms);
    txn.note(Wanted::STRING, "incrbyfloat", key);
    Ok(Reply::Bulk(text))
}

// --- Shared

pub(super) fn read_text(view: &dyn View, key: &[u8]) -> Result<Option<Bytes>, CommandError> {
    match keyspace::read(view, key)? {
        None => Ok(None),
        Some(Header { value: Value::String { text, .. }, .. }) => Ok(Some(text)),
        Some(_) => Err(CommandError::WrongType),
    }
}

pub(super) fn text_of(found: &Found) -> Result<Option<&Bytes>, CommandError> {
    match found.header().map(|header| &header.value) {
        None => Ok(None),
        Some(Value::String { text, .. }) => Ok(Some(text)),
        Some(_) => Err(CommandError::WrongType),
    }
}

/// The string of a key that is written and read at once: a miss is a reader's, too.
fn text_to_read(txn: &Txn<'_>, key: &[u8], found: &Found) -> Result<Option<Bytes>, CommandError> {
    if !found.exists() {
        txn.note(Wanted::KEY_MISS, "keymiss", key);
    }
    Ok(text_of(found)?.cloned())
}

fn bulk_or_null(text: Option<Bytes>) -> Reply {
    text.map_or(Reply::Null, Reply::Bulk)
}

fn length(bytes: usize) -> Reply {
    Reply::Integer(bytes as i64)
}
