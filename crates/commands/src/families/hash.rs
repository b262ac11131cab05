//! Hash commands. Layout of a hash: types/hash.rs. Times to live of fields: families/hash_expiry.rs.

use bytes::Bytes;
use wire::resp::Reply;

use crate::args::{Args, int_text, parse_cursor, parse_int};
use crate::command::{Command, Flags, KeyFlags, Keys, at_least, exactly, key, read, write};
use crate::cursor::{self, Walk};
use crate::error::CommandError;
use crate::families::hash_expiry;
use crate::notes::Wanted;
use crate::txn::Txn;
use crate::types::hash::{Entry, Hash};
use crate::types::hash_edit::HashEdit;
use crate::types::hash_walk;
use crate::types::long_double::LongDouble;
use crate::view::View;

const FAST: Flags = Flags::FAST;
const GROWS: Flags = Flags::DENYOOM.and(Flags::FAST);
const NONE: Flags = Flags::NONE;

const RO: Keys = key(1, KeyFlags::RO);
const RO_ACCESS: Keys = key(1, KeyFlags(KeyFlags::RO.0 | KeyFlags::ACCESS.0));
const RW_UPDATE: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::UPDATE.0));
const RW_INSERT: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::INSERT.0));
const RW_DELETE: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::DELETE.0));
const RW_ACCESS: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::ACCESS.0 | KeyFlags::UPDATE.0));
const RW_TAKE: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::ACCESS.0 | KeyFlags::DELETE.0));

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //     name             arity        flags  keys       handler
    write("HDEL",          at_least(3), FAST,  RW_DELETE, hdel).element_at(2),
    read ("HEXISTS",       exactly(3),  FAST,  RO,        hexists).element_at(2),
    write("HEXPIRE",       at_least(6), GROWS, RW_UPDATE, hash_expiry::hexpire),
    write("HEXPIREAT",     at_least(6), GROWS, RW_UPDATE, hash_expiry::hexpireat),
    read ("HEXPIRETIME",   at_least(5), FAST,  RO_ACCESS, hash_expiry::hexpiretime),
    read ("HGET",          exactly(3),  FAST,  RO_ACCESS, hget).element_at(2),
    read ("HGETALL",       exactly(2),  NONE,  RO_ACCESS, hgetall),
    write("HGETDEL",       at_least(5), FAST,  RW_TAKE,   hgetdel),
    write("HGETEX",        at_least(5), FAST,  RW_ACCESS, hash_expiry::hgetex),
    write("HINCRBY",       exactly(4),  GROWS, RW_ACCESS, hincrby).element_at(2),
    write("HINCRBYFLOAT",  exactly(4),  GROWS, RW_ACCESS, hincrbyfloat).element_at(2),
    read ("HKEYS",         exactly(2),  NONE,  RO_ACCESS, hkeys),
    read ("HLEN",          exactly(2),  FAST,  RO,        hlen),
    read ("HMGET",         at_least(3), FAST,  RO_ACCESS, hmget).element_at(2),
    write("HMSET",         at_least(4), GROWS, RW_UPDATE, hmset).element_at(2),
    write("HPERSIST",      at_least(5), FAST,  RW_UPDATE, hash_expiry::hpersist),
    write("HPEXPIRE",      at_least(6), GROWS, RW_UPDATE, hash_expiry::hpexpire),
    write("HPEXPIREAT",    at_least(6), GROWS, RW_UPDATE, hash_expiry::hpexpireat),
    read ("HPEXPIRETIME",  at_least(5), FAST,  RO_ACCESS, hash_expiry::hpexpiretime),
    read ("HPTTL",         at_least(5), FAST,  RO_ACCESS, hash_expiry::hpttl),
    read ("HRANDFIELD",    at_least(2), NONE,  RO_ACCESS, hrandfield),
    read ("HSCAN",         at_least(3), NONE,  RO_ACCESS, hscan),
    write("HSET",          at_least(4), GROWS, RW_UPDATE, hset).element_at(2),
    write("HSETEX",        at_least(6), GROWS, RW_UPDATE, hash_expiry::hsetex),
    write("HSETNX",        exactly(4),  GROWS, RW_INSERT, hsetnx).element_at(2),
    read ("HSTRLEN",       exactly(3),  FAST,  RO,        hstrlen).element_at(2),
    read ("HTTL",          at_least(5), FAST,  RO_ACCESS, hash_expiry::httl),
    read ("HVALS",         exactly(2),  NONE,  RO_ACCESS, hvals),
];

/// Fields that HRANDFIELD draws with repetition at most. Redis sets no limit, and fills its memory.
const RANDOM_REPEATED_MAX: u64 = 1 << 16;

// --- Reading fields

fn hget(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    Ok(value_or_null(field_of(view, args)?))
}

fn hexists(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::Integer(i64::from(field_of(view, args)?.is_some())))
}

fn hstrlen(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let entry = field_of(view, args)?;
    Ok(Reply::Integer(entry.map_or(0, |entry| entry.value.len() as i64)))
}

fn hmget(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let hash = Hash::read(view, args.bytes(1)?)?;
    let values = args.from(2).iter().map(|field| match &hash {
        Some(hash) => hash.get(field).map(value_or_null),
        None => Ok(Reply::Null),
    });
    Ok(Reply::Array(values.collect::<Result<_, _>>()?))
}

fn field_of(view: &dyn View, args: Args<'_>) -> Result<Option<Entry>, CommandError> {
    match Hash::read(view, args.bytes(1)?)? {
        Some(hash) => Ok(hash.get(args.bytes(2)?)?),
        None => Ok(None),
    }
}

pub(crate) fn value_or_null(entry: Option<Entry>) -> Reply {
    entry.map_or(Reply::Null, |entry| Reply::Bulk(entry.value))
}

// --- Reading all

fn hlen(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let hash = Hash::read(view, args.bytes(1)?)?;
    Ok(Reply::Integer(hash.map_or(0, |hash| hash.count as i64)))
}

fn hgetall(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let pairs = all(view, args)?.into_iter().map(pair);
    Ok(Reply::Map(pairs.collect()))
}

fn hkeys(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let fields = all(view, args)?.into_iter().map(|entry| Reply::Bulk(entry.field));
    Ok(Reply::Array(fields.collect()))
}

fn hvals(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let values = all(view, args)?.into_iter().map(|entry| Reply::Bulk(entry.value));
    Ok(Reply::Array(values.collect()))
}

fn all(view: &dyn View, args: Args<'_>) -> Result<Vec<Entry>, CommandError> {
    match Hash::read(view, args.bytes(1)?)? {
        Some(hash) => Ok(hash.live()?),
        None => Ok(Vec::new()),
    }
}

fn pair(entry: Entry) -> (Reply, Reply) {
    (Reply::Bulk(entry.field), Reply::Bulk(entry.value))
}

fn hscan(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let cursor = parse_cursor(args.bytes(2)?)?;
    // Redis looks at the options only of a hash that exists.
    let Some(hash) = Hash::read(view, args.bytes(1)?)? else {
        return Ok(cursor::answer(0, Vec::new()));
    };
    let walk = Walk::parse(args.options(3), true)?;
    let (entries, next) = hash_walk::scan(&hash, cursor, walk.count)?;
    let mut items = Vec::with_capacity(2 * entries.len());
    for entry in entries {
        if walk.matches(&entry.field) {
            items.push(Reply::Bulk(entry.field));
            items.extend(walk.values.then_some(Reply::Bulk(entry.value)));
        }
    }
    Ok(cursor::answer(next, items))
}

fn hrandfield(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let Some(count) = args.get(2) else {
        let hash = Hash::read(view, args.bytes(1)?)?;
        let drawn = hash.map_or(Ok(None), |hash| {
            hash.meet_fields();
            hash_walk::random(&hash)
        })?;
        return Ok(drawn.map_or(Reply::Null, |entry| Reply::Bulk(entry.field)));
    };
    let count = parse_int(count).ok_or(CommandError::NotInteger)?;
    if count == i64::MIN {
        return Err(CommandError::RANDOM_COUNT_RANGE);
    }
    let with_values = match args.from(3) {
        [] => false,
        [word] if word.eq_ignore_ascii_case(b"WITHVALUES") => true,
        _ => return Err(CommandError::Syntax),
    };
    if with_values && count.unsigned_abs() > i64::MAX.unsigned_abs() / 2 {
        return Err(CommandError::OUT_OF_RANGE);
    }
    let Some(hash) = Hash::read(view, args.bytes(1)?)? else {
        return Ok(Reply::Array(Vec::new()));
    };
    hash.meet_fields();
    let drawn = if count >= 0 {
        hash_walk::random_distinct(&hash, count.unsigned_abs())?
    } else if count.unsigned_abs() > RANDOM_REPEATED_MAX {
        return Err(CommandError::OUT_OF_RANGE);
    } else {
        hash_walk::random_repeated(&hash, count.unsigned_abs() as usize)?
    };
    Ok(match with_values {
        true => Reply::Pairs(drawn.into_iter().map(pair).collect()),
        false => Reply::Array(drawn.into_iter().map(|entry| Reply::Bulk(entry.field)).collect()),
    })
}

// --- Writing fields

fn hset(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::Integer(put_pairs(txn, args, "hset")?))
}

fn hmset(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    put_pairs(txn, args, "hmset")?;
    Ok(Reply::OK)
}

/// Sets fields in pairs; how many are new.
fn put_pairs(
    txn: &mut Txn<'_>,
    args: Args<'_>,
    command: &'static str,
) -> Result<i64, CommandError> {
    let (pairs, rest) = args.from(2).as_chunks::<2>();
    if !rest.is_empty() {
        return Err(CommandError::Arity(command.into()));
    }
    let mut hash = HashEdit::open(txn, args.bytes(1)?)?;
    hash.will_put(pairs.len());
    let mut created = 0;
    for [field, value] in pairs {
        created += i64::from(hash.put(txn, field, value, None)?);
    }
    hash.finish(txn)?;
    txn.note(Wanted::HASH, "hset", args.bytes(1)?);
    Ok(created)
}

fn hsetnx(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut hash = HashEdit::open(txn, args.bytes(1)?)?;
    let field = args.bytes(2)?;
    if hash.get(txn, field)?.is_some() {
        return Ok(Reply::Integer(0));
    }
    hash.put(txn, field, args.bytes(3)?, None)?;
    hash.finish(txn)?;
    txn.note(Wanted::HASH, "hset", args.bytes(1)?);
    Ok(Reply::Integer(1))
}

fn hdel(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut hash = HashEdit::open(txn, args.bytes(1)?)?;
    let mut deleted = 0;
    for field in args.from(2) {
        deleted += i64::from(hash.delete(txn, field)?.is_some());
    }
    if deleted > 0 {
        txn.note(Wanted::HASH, "hdel", args.bytes(1)?);
    }
    hash.finish(txn)?;
    Ok(Reply::Integer(deleted))
}

fn hgetdel(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut hash = HashEdit::open(txn, args.bytes(1)?)?;
    let fields = hash_expiry::counted_fields(args, 2, CommandError::FIELDS_NOT_POSITIVE)?;
    let mut values = Vec::with_capacity(fields.len());
    let (mut deleted, mut expired) = (false, false);
    for field in fields {
        let was_due = hash.delete_if_due(txn, field)?;
        let old = if was_due { None } else { hash.delete(txn, field)? };
        (deleted, expired) = (deleted || old.is_some(), expired || was_due);
        values.push(value_or_null(old));
    }
    if expired {
        txn.note(Wanted::HASH, "hexpired", args.bytes(1)?);
    }
    if deleted {
        txn.note(Wanted::HASH, "hdel", args.bytes(1)?);
    }
    hash.finish(txn)?;
    Ok(Reply::Array(values))
}

fn hincrby(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let amount = args.int(3)?;
    let mut hash = HashEdit::open(txn, args.bytes(1)?)?;
    let field = args.bytes(2)?;
    let old = hash.get(txn, field)?;
    let number = match &old {
        Some(old) => parse_int(&old.value).ok_or(CommandError::HASH_NOT_INTEGER)?,
        None => 0,
    };
    let sum = number.checked_add(amount).ok_or(CommandError::IncrementOverflow)?;
    let expire_at_ms = old.and_then(|old| old.expire_at_ms);
    hash.put(txn, field, &int_text(sum), expire_at_ms)?;
    hash.finish(txn)?;
    txn.note(Wanted::HASH, "hincrby", args.bytes(1)?);
    Ok(Reply::Integer(sum))
}

fn hincrbyfloat(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let amount = LongDouble::parse(args.bytes(3)?).ok_or(CommandError::NotFloat)?;
    if amount.is_infinite() {
        return Err(CommandError::NAN_OR_INFINITY);
    }
    let mut hash = HashEdit::open(txn, args.bytes(1)?)?;
    let field = args.bytes(2)?;
    let old = hash.get(txn, field)?;
    let number = match &old {
        Some(old) => LongDouble::parse(&old.value).ok_or(CommandError::HASH_NOT_FLOAT)?,
        None => LongDouble::ZERO,
    };
    let sum = number.add(amount).ok_or(CommandError::IncrementNotFinite)?;
    let text = Bytes::from(sum.to_human_text());
    let expire_at_ms = old.and_then(|old| old.expire_at_ms);
    hash.put(txn, field, &text, expire_at_ms)?;
    hash.finish(txn)?;
    txn.note(Wanted::HASH, "hincrbyfloat", args.bytes(1)?);
    Ok(Reply::Bulk(text))
}
