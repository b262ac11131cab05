//! Commands on keys of any type, and times to live. What a key is: types/keyspace.rs.

use std::ops::ControlFlow;

use bytes::Bytes;
use wire::ids::TableId;
use wire::resp::Reply;

use crate::args::{Args, parse_cursor, parse_int32};
use crate::command::{
    Command, Flags, Gather, KeyFlags, Keys, Session, at_least, exactly, group, key, keys_from,
    read, session, write,
};
use crate::error::CommandError;
use crate::expiry::{Condition, TimeForm};
use crate::glob;
use crate::notes::Wanted;
use crate::txn::Txn;
use crate::types::dump;
use crate::types::encoding;
use crate::types::header::Header;
use crate::types::{keyspace, walk};
use crate::view::View;

const FAST: Flags = Flags::FAST;
const NONE: Flags = Flags::NONE;
const DENYOOM: Flags = Flags::DENYOOM;
const DANGEROUS: Flags = Flags::DANGEROUS;
const HELP: Flags = Flags::LOADING.and(Flags::STALE);

const RO: Keys = key(1, KeyFlags::RO);
const RO_ACCESS: Keys = key(1, RO_ACCESS_FLAGS);
const RO_ACCESS_FLAGS: KeyFlags = KeyFlags(KeyFlags::RO.0 | KeyFlags::ACCESS.0);
const RW_UPDATE: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::UPDATE.0));
const OW_UPDATE_FLAGS: KeyFlags = KeyFlags(KeyFlags::OW.0 | KeyFlags::UPDATE.0);
const OW_INSERT_FLAGS: KeyFlags = KeyFlags(KeyFlags::OW.0 | KeyFlags::INSERT.0);
const RW_AWAY_FLAGS: KeyFlags = KeyFlags(KeyFlags::RW.0 | KeyFlags::ACCESS.0 | KeyFlags::DELETE.0);
const RW_MOVED: Keys = key(1, KeyFlags(KeyFlags::RW.0 | KeyFlags::ACCESS.0 | KeyFlags::UPDATE.0));
const OW_UPDATE: Keys = key(1, OW_UPDATE_FLAGS);
const ALL_RO: Keys = keys_from(1, 1, KeyFlags::RO);
const ALL_DELETE: Keys = keys_from(1, 1, KeyFlags(KeyFlags::RM.0 | KeyFlags::DELETE.0));
const COPY_KEYS: Keys = Keys::Pair(RO_ACCESS_FLAGS, OW_UPDATE_FLAGS);
const RENAME_KEYS: Keys = Keys::Pair(RW_AWAY_FLAGS, OW_UPDATE_FLAGS);
const RENAMENX_KEYS: Keys = Keys::Pair(RW_AWAY_FLAGS, OW_INSERT_FLAGS);
const MIGRATED: Keys = Keys::OneOrMany { at: 3, options: 6, flags: RW_AWAY_FLAGS };
const MIGRATE: Flags = Flags(Flags::WRITE.0 | Flags::DANGEROUS.0);
const OBJECT_KEY: Keys = key(2, KeyFlags::RO);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //     name           arity        flags            keys           handler
    write("COPY",        at_least(3), DENYOOM,         COPY_KEYS,     copy),
    read ("DBSIZE",      exactly(1),  FAST,            Keys::Table(Gather::Sum), dbsize),
    write("DEL",         at_least(2), NONE,            ALL_DELETE,    del),
    read ("DUMP",        exactly(2),  NONE,            RO_ACCESS,     dump_key),
    read ("EXISTS",      at_least(2), FAST,            ALL_RO,        exists),
    write("EXPIRE",      at_least(3), FAST,            RW_UPDATE,     expire),
    write("EXPIREAT",    at_least(3), FAST,            RW_UPDATE,     expireat),
    read ("EXPIRETIME",  exactly(2),  FAST,            RO_ACCESS,     expiretime),
    write("FLUSHALL",    at_least(1), DANGEROUS,       Keys::AllTables(Gather::AllOk), flush),
    write("FLUSHDB",     at_least(1), DANGEROUS,       Keys::Table(Gather::AllOk), flush),
    session("MIGRATE",   at_least(6), MIGRATE,         MIGRATED,      Session::Migrate),
    read ("KEYS",        exactly(2),  DANGEROUS,       Keys::Table(Gather::KeysByScan), keys),
    group("OBJECT",      at_least(2), NONE,            OBJECT),
    write("MOVE",        exactly(3), FAST,            RW_MOVED,       move_key),
    write("PERSIST",     exactly(2),  FAST,            RW_UPDATE,     persist),
    write("PEXPIRE",     at_least(3), FAST,            RW_UPDATE,     pexpire),
    write("PEXPIREAT",   at_least(3), FAST,            RW_UPDATE,     pexpireat),
    read ("PEXPIRETIME", exactly(2),  FAST,            RO_ACCESS,     pexpiretime),
    read ("PTTL",        exactly(2),  FAST,            RO_ACCESS,     pttl),
    read ("RANDOMKEY",   exactly(1),  NONE,            Keys::Table(Gather::AnyKey), randomkey),
    write("RENAME",      exactly(3),  NONE,            RENAME_KEYS,   rename),
    write("RENAMENX",    exactly(3),  FAST,            RENAMENX_KEYS, renamenx),
    write("RESTORE",     at_least(4), DENYOOM.and(DANGEROUS), OW_UPDATE, restore),
    // As redis-cli sends it when it moves slots.
    write("RESTORE-ASKING", at_least(4), DENYOOM.and(DANGEROUS).and(Flags::ASKING), OW_UPDATE, restore),
    read ("SCAN",        at_least(2), NONE,            Keys::Table(Gather::Cursor), scan),
    read ("TOUCH",       at_least(2), FAST,            ALL_RO,        exists),
    read ("TTL",         exactly(2),  FAST,            RO_ACCESS,     ttl),
    read ("TYPE",        exactly(2),  FAST,            RO,            type_of),
    write("UNLINK",      at_least(2), FAST,            ALL_DELETE,    del),
];

#[rustfmt::skip]
const OBJECT: &[Command] = &[
    read ("ENCODING",    exactly(3),  NONE,            OBJECT_KEY,    object_encoding),
    read ("FREQ",        exactly(3),  NONE,            OBJECT_KEY,    object_freq),
    session("HELP",      exactly(2),  HELP,            Keys::None,    Session::ObjectHelp),
    read ("IDLETIME",    exactly(3),  NONE,            OBJECT_KEY,    object_idletime),
    read ("REFCOUNT",    exactly(3),  NONE,            OBJECT_KEY,    object_refcount),
];

/// What SCAN visits if no COUNT is given.
const SCAN_COUNT_DEFAULT: usize = 10;
/// What SCAN visits at most, so that one call cannot hold a partition long: COUNT is a hint.
const SCAN_COUNT_MAX: usize = 1 << 16;

// --- Existence

fn exists(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut count = 0;
    for key in args.from(1) {
        count += i64::from(keyspace::read(view, key)?.is_some());
    }
    Ok(Reply::Integer(count))
}

fn type_of(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let header = keyspace::read(view, args.bytes(1)?)?;
    Ok(Reply::Simple(header.map_or("none", |header| header.value.kind().name())))
}

fn del(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut count = 0;
    for key in args.from(1) {
        let found = keyspace::lookup(txn, key)?;
        count += i64::from(keyspace::remove(txn, key, found));
    }
    Ok(Reply::Integer(count))
}

fn dbsize(view: &dyn View, _: Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::Integer(i64::try_from(view.counters().keys).unwrap_or(i64::MAX)))
}

fn flush(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let is_later = match args.from(1) {
        // As Redis since 7.4, which puts it off only where the client can wait for it.
        [] => !txn.is_part(),
        [mode] if mode.eq_ignore_ascii_case(b"ASYNC") => true,
        [mode] if mode.eq_ignore_ascii_case(b"SYNC") => false,
        _ => return Err(CommandError::Syntax),
    };
    txn.flush(is_later);
    Ok(Reply::OK)
}

// --- Times to live

fn ttl(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    time_reply(view, args, |at, now| rounded_seconds(at.saturating_sub(now)))
}

fn pttl(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    time_reply(view, args, |at, now| at.saturating_sub(now))
}

fn expiretime(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    time_reply(view, args, |at, _| rounded_seconds(at))
}

fn pexpiretime(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    time_reply(view, args, |at, _| at)
}

fn rounded_seconds(ms: u64) -> u64 {
    ms.saturating_add(500) / 1000
}

fn time_reply(
    view: &dyn View,
    args: Args<'_>,
    time: fn(u64, u64) -> u64,
) -> Result<Reply, CommandError> {
    Ok(Reply::Integer(match keyspace::read(view, args.bytes(1)?)? {
        None => -2,
        Some(Header { expire_at_ms: None, .. }) => -1,
        Some(Header { expire_at_ms: Some(at), .. }) => {
            i64::try_from(time(at, view.now_ms())).unwrap_or(i64::MAX)
        }
    }))
}

fn expire(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    expire_by(txn, args, TimeForm::EX, "expire")
}

fn pexpire(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    expire_by(txn, args, TimeForm::PX, "pexpire")
}

fn expireat(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    expire_by(txn, args, TimeForm::EXAT, "expireat")
}

fn pexpireat(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    expire_by(txn, args, TimeForm::PXAT, "pexpireat")
}

fn expire_by(
    txn: &mut Txn<'_>,
    args: Args<'_>,
    form: TimeForm,
    command: &'static str,
) -> Result<Reply, CommandError> {
    let condition = Condition::parse(args.options(3))?;
    let deadline = form.deadline_ms(txn, args.int(2)?);
    let deadline = deadline.ok_or(CommandError::InvalidExpireTime(command))?;
    let key = args.bytes(1)?;
    let found = keyspace::lookup(txn, key)?;
    if !found.exists() || !condition.allows(found.expire_at_ms(), deadline) {
        return Ok(Reply::Integer(0));
    }
    // A time that has come, negative ones included, deletes the key here and now.
    match u64::try_from(deadline) {
        Ok(at) if at > txn.now_ms() => {
            keyspace::set_expiry(txn, key, found, Some(at));
            txn.note(Wanted::GENERIC, "expire", key);
        }
        _ => {
            keyspace::remove(txn, key, found);
        }
    }
    Ok(Reply::Integer(1))
}

fn persist(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let key = args.bytes(1)?;
    let found = keyspace::lookup(txn, key)?;
    if found.expire_at_ms().is_none() {
        return Ok(Reply::Integer(0));
    }
    keyspace::set_expiry(txn, key, found, None);
    txn.note(Wanted::GENERIC, "persist", key);
    Ok(Reply::Integer(1))
}

// --- Moving and copying

fn rename(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    rename_key(txn, args, true)?;
    Ok(Reply::OK)
}

fn renamenx(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::Integer(i64::from(rename_key(txn, args, false)?)))
}

/// Renames a key; false if the new name is taken and must not be.
fn rename_key(txn: &mut Txn<'_>, args: Args<'_>, replace: bool) -> Result<bool, CommandError> {
    let (old_key, new_key) = (args.bytes(1)?, args.bytes(2)?);
    let source = keyspace::lookup(txn, old_key)?;
    if !source.exists() {
        return Err(CommandError::NoSuchKey);
    }
    if old_key == new_key {
        return Ok(replace);
    }
    let target = keyspace::lookup(txn, new_key)?;
    if target.exists() && !replace {
        return Ok(false);
    }
    keyspace::rename(txn, (old_key, source), (new_key, target))?;
    txn.note(Wanted::GENERIC, "rename_from", old_key);
    txn.note(Wanted::GENERIC, "rename_to", new_key);
    Ok(true)
}

/// What stands behind the keys of COPY.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyOptions {
    /// Where the copy goes.
    pub table: TableId,
    /// Whether it may take the place of a key.
    pub replace: bool,
}

/// Reads the options of a COPY in the table `selected` of so many tables; the last `DB` counts.
///
/// *Errors*: the options are not those of COPY.
pub fn copy_options(
    args: Args<'_>,
    selected: TableId,
    tables: u32,
) -> Result<CopyOptions, CommandError> {
    let mut parsed = CopyOptions { table: selected, replace: false };
    let mut options = args.options(3);
    while let Some(word) = options.word() {
        match word.as_bytes() {
            b"REPLACE" => parsed.replace = true,
            b"DB" if options.left() > 0 => {
                let table = u32::try_from(parse_int32(options.value()?)?).ok();
                let table = table.filter(|table| *table < tables);
                parsed.table = TableId(table.ok_or(CommandError::DB_OUT_OF_RANGE)?);
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok(parsed)
}

fn copy(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    // Another table is another partition: whoever called knows that the option names this one, and how
    // many there are.
    let CopyOptions { replace, .. } = copy_options(args, txn.table(), u32::MAX)?;
    let (from, to) = (args.bytes(1)?, args.bytes(2)?);
    if from == to {
        return Err(CommandError::SAME_OBJECT);
    }
    let Some(header) = keyspace::read(txn, from)? else { return Ok(Reply::Integer(0)) };
    let target = keyspace::lookup(txn, to)?;
    if target.exists() && !replace {
        return Ok(Reply::Integer(0));
    }
    let value = keyspace::copy_value(txn, header.value, from, to)?;
    keyspace::note_replaced(txn, to, &target);
    keyspace::store(txn, to, target, value, header.expire_at_ms);
    txn.note(Wanted::GENERIC, "copy_to", to);
    Ok(Reply::Integer(1))
}

/// The table that MOVE moves to, of so many.
///
/// *Errors*: it is none.
pub fn move_target(args: Args<'_>, tables: u32) -> Result<TableId, CommandError> {
    let table = u32::try_from(parse_int32(args.bytes(2)?)?).ok().filter(|table| *table < tables);
    Ok(TableId(table.ok_or(CommandError::DB_OUT_OF_RANGE)?))
}

/// MOVE to where the key is; the router moves it elsewhere, as for COPY.
fn move_key(_: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    move_target(args, u32::MAX)?;
    Err(CommandError::SAME_OBJECT)
}

fn dump_key(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    match keyspace::read(view, args.bytes(1)?)? {
        None => Ok(Reply::Null),
        Some(header) => Ok(Reply::Bulk(dump::serialize(view, args.bytes(1)?, &header.value)?)),
    }
}

fn restore(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (mut replace, mut absolute) = (false, false);
    let (mut idle_said, mut frequency_said) = (false, false);
    let mut options = args.options(4);
    while let Some(word) = options.word() {
        match word.as_bytes() {
            b"REPLACE" => replace = true,
            b"ABSTTL" => absolute = true,
            // How recently and how often a key was used is not kept; only the text is checked.
            b"IDLETIME" if options.left() > 0 && !frequency_said => {
                idle_said = true;
                if options.int()? < 0 {
                    return Err(CommandError::RESTORE_IDLETIME);
                }
            }
            b"FREQ" if options.left() > 0 && !idle_said => {
                frequency_said = true;
                if !(0..=255).contains(&options.int()?) {
                    return Err(CommandError::RESTORE_FREQ);
                }
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    let key = args.bytes(1)?;
    let found = keyspace::lookup(txn, key)?;
    if found.exists() && !replace {
        return Err(CommandError::BusyKey);
    }
    let ttl = args.int(2)?;
    if ttl < 0 {
        return Err(CommandError::RESTORE_TTL);
    }
    let restored = dump::deserialize(args.bytes(3)?, txn.shapes().checks_payloads)?;
    let form = if absolute { TimeForm::PXAT } else { TimeForm::PX };
    let deadline = match ttl {
        0 => None,
        ttl => form.deadline_ms(txn, ttl).and_then(|at| u64::try_from(at).ok()),
    };
    if ttl != 0 && deadline.is_none() {
        return Err(CommandError::RESTORE_TTL);
    }
    match deadline {
        Some(at) if at <= txn.now_ms() => {
            keyspace::remove(txn, key, found);
        }
        _ => {
            let value = restored.into_value(txn, key)?;
            keyspace::note_replaced(txn, key, &found);
            keyspace::store(txn, key, found, value, deadline);
            txn.note(Wanted::GENERIC, "restore", key);
        }
    }
    Ok(Reply::OK)
}

// --- Walking

fn scan(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let cursor = parse_cursor(args.bytes(1)?)?;
    let (mut pattern, mut kind, mut count) = (None, None, SCAN_COUNT_DEFAULT);
    let mut options = args.options(2);
    while let Some(word) = options.word() {
        match word.as_bytes() {
            b"MATCH" => pattern = Some(options.value()?),
            b"TYPE" => kind = Some(options.value()?),
            b"COUNT" => {
                let wanted = options.int()?;
                count = usize::try_from(wanted).unwrap_or(0).min(SCAN_COUNT_MAX);
                if wanted < 1 {
                    return Err(CommandError::Syntax);
                }
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    let wanted = |key: &Bytes, header: &Header| {
        pattern.is_none_or(|pattern| matches_all_or(pattern, key))
            && kind
                .is_none_or(|kind| kind.eq_ignore_ascii_case(header.value.kind().name().as_bytes()))
    };
    let (keys, next) = scan_keys(view, cursor, count, &wanted)?;
    let cursor = Reply::Bulk(Bytes::from(next.to_string()));
    Ok(Reply::Array(vec![cursor, Reply::Array(keys)]))
}

/// The keys wanted among the next `count` from a position on, and the position to go on from.
/// Keys that share a position are never torn apart: no cursor could point between them.
fn scan_keys(
    view: &dyn View,
    cursor: u64,
    count: usize,
    wanted: &dyn Fn(&Bytes, &Header) -> bool,
) -> Result<(Vec<Reply>, u64), CommandError> {
    let mut keys = Vec::new();
    let mut next = walk::position_behind(view);
    let (mut visited, mut last) = (0, None);
    walk::keys_from(view, cursor, &mut |met| {
        if visited >= count && last != Some(met.position) {
            next = met.position;
            return Ok(ControlFlow::Break(()));
        }
        (visited, last) = (visited + 1, Some(met.position));
        if let Some(header) = met.read(view)?
            && wanted(&met.key, &header)
        {
            keys.push(Reply::Bulk(met.key));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((keys, next))
}

fn keys(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let pattern = args.bytes(1)?;
    let mut keys = Vec::new();
    walk::keys_from(view, 0, &mut |met| {
        if matches_all_or(pattern, &met.key) && met.header(view)?.is_some() {
            keys.push(Reply::Bulk(met.key));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(Reply::Array(keys))
}

/// `*` alone is no pattern: it matches the empty key, too.
fn matches_all_or(pattern: &[u8], key: &[u8]) -> bool {
    pattern == b"*" || glob::matches(pattern, key)
}

fn randomkey(view: &dyn View, _: Args<'_>) -> Result<Reply, CommandError> {
    Ok(walk::random_key(view)?.map_or(Reply::Null, Reply::Bulk))
}

// --- OBJECT

fn object_encoding(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    object(view, args, |header| {
        Ok(Reply::Bulk(Bytes::from_static(encoding::name(&header.value).as_bytes())))
    })
}

fn object_freq(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    object(view, args, |_| Err(CommandError::NOT_LFU))
}

/// Reads never write, so nobody knows when a key was last read: it is as fresh as can be.
fn object_idletime(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    object(view, args, |_| Ok(Reply::Integer(0)))
}

/// Redis has one object for all values that are the same small number, and says that it is shared.
fn object_refcount(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    object(view, args, |header| {
        let is_shared = encoding::is_shared(&header.value);
        Ok(Reply::Integer(if is_shared { i64::from(i32::MAX) } else { 1 }))
    })
}

fn object(
    view: &dyn View,
    args: Args<'_>,
    answer: fn(Header) -> Result<Reply, CommandError>,
) -> Result<Reply, CommandError> {
    keyspace::peek(view, args.bytes(2)?)?.map_or(Ok(Reply::Null), answer)
}

/// What OBJECT HELP answers; it asks no partition, so the router sends it.
pub fn object_help() -> Reply {
    Reply::Array(OBJECT_HELP.iter().copied().map(Reply::Simple).collect())
}

const OBJECT_HELP: &[&str] = &[
    "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ENCODING <key>",
    "    Return how the value of <key> is represented, in Redis's words for it.",
    "FREQ <key>",
    "    Not available: how often a key is used is not tracked.",
    "IDLETIME <key>",
    "    Return 0 for every <key> that exists: when it was last used is not tracked.",
    "REFCOUNT <key>",
    "    Return 1 for every <key> that exists: values are not shared.",
    "HELP",
    "    Print this help.",
];
