//! Stream commands. Layout of a stream: types/stream.rs. Consumer groups: families/stream_group.rs.

use bytes::Bytes;
use wire::resp::Reply;

use crate::args::{Args, Options, parse_int};
use crate::command::{
    Command, Flags, KeyFlags, Keys, Ran, Session, at_least, exactly, group, key, read, session,
    write,
};
use crate::error::{CommandError, Echo};
use crate::families::stream_group::{self, References};
use crate::families::stream_info;
use crate::notes::Wanted;
use crate::txn::Txn;
use crate::types::header::Kind;
use crate::types::stream::{Entry, Id, Stream};
use crate::types::stream_edit::{Keep, StreamEdit};
use crate::types::stream_groups::GroupEdit;
use crate::view::{Direction, View};
use crate::wait::{Wait, timeout_of_ms};

const FAST: Flags = Flags::FAST;
const NONE: Flags = Flags::NONE;
const GROWS: Flags = Flags::DENYOOM.and(Flags::FAST);
const DENYOOM: Flags = Flags::DENYOOM;
const HELP: Flags = Flags::LOADING.and(Flags::STALE);

const RO: Keys = key(1, KeyFlags::RO);
const ACCESS: KeyFlags = KeyFlags(KeyFlags::RO.0 | KeyFlags::ACCESS.0);
const UPDATE: KeyFlags = KeyFlags(KeyFlags::RW.0 | KeyFlags::UPDATE.0);
const DELETE: KeyFlags = KeyFlags(KeyFlags::RW.0 | KeyFlags::DELETE.0);
const INSERT: KeyFlags = KeyFlags(KeyFlags::RW.0 | KeyFlags::INSERT.0);

const fn streams_from(from: u16) -> Keys {
    Keys::AfterStreams { from, flags: ACCESS }
}

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //     name           arity        flags   keys                        handler
    write("XACK",        at_least(4), FAST,   key(1, UPDATE),             stream_group::xack),
    write("XACKDEL",     at_least(6), FAST,   key(1, DELETE),             stream_group::xackdel),
    write("XADD",        at_least(5), GROWS,  key(1, UPDATE),             xadd).or_many(xadd_many),
    write("XAUTOCLAIM",  at_least(6), FAST,   key(1, DELETE),             stream_group::xautoclaim),
    write("XCLAIM",      at_least(6), FAST,   key(1, UPDATE),             stream_group::xclaim),
    write("XDEL",        at_least(3), FAST,   key(1, DELETE),             xdel),
    write("XDELEX",      at_least(5), FAST,   key(1, DELETE),             stream_group::xdelex),
    group("XGROUP",      at_least(2), NONE,   XGROUP),
    group("XINFO",       at_least(2), NONE,   XINFO),
    read ("XLEN",        exactly(2),  FAST,   RO,                         xlen),
    read ("XPENDING",    at_least(3), NONE,   key(1, ACCESS),             stream_group::xpending),
    read ("XRANGE",      at_least(4), NONE,   key(1, ACCESS),             xrange),
    read ("XREAD",       at_least(4), NONE,   streams_from(1),            xread).or_waits(wait_to_read),
    write("XREADGROUP",  at_least(7), NONE,   streams_from(4),            stream_group::xreadgroup)
        .or_waits(stream_group::wait_to_read),
    read ("XREVRANGE",   at_least(4), NONE,   key(1, ACCESS),             xrevrange),
    write("XSETID",      at_least(3), GROWS,  key(1, UPDATE),             xsetid),
    write("XTRIM",       at_least(4), NONE,   key(1, DELETE),             xtrim),
];

#[rustfmt::skip]
const XGROUP: &[Command] = &[
    write("CREATE",         at_least(5), DENYOOM, key(2, INSERT), stream_group::create),
    write("CREATECONSUMER", exactly(5),  DENYOOM, key(2, INSERT), stream_group::createconsumer),
    write("DELCONSUMER",    exactly(5),  NONE,    key(2, DELETE), stream_group::delconsumer),
    write("DESTROY",        exactly(4),  NONE,    key(2, DELETE), stream_group::destroy),
    session("HELP",         exactly(2),  HELP,    Keys::None,     Session::XgroupHelp),
    write("SETID",          at_least(5), NONE,    key(2, UPDATE), stream_group::setid),
];

#[rustfmt::skip]
const XINFO: &[Command] = &[
    read ("CONSUMERS", exactly(4),  NONE, key(2, ACCESS), stream_info::info_consumers),
    read ("GROUPS",    exactly(3),  NONE, key(2, ACCESS), stream_info::info_groups),
    session("HELP",    exactly(2),  HELP, Keys::None,     Session::XinfoHelp),
    read ("STREAM",    at_least(3), NONE, key(2, ACCESS), stream_info::info_stream),
];

/// Nodes that `~` trims at most without LIMIT, and what it trims where nodes have no size of their own.
const APPROXIMATE_NODES: u64 = 100;
const APPROXIMATE_LIMIT: u64 = 10_000;
/// Longest text of an ID, in bytes.
const ID_TEXT_BYTES_MAX: usize = 127;

// --- IDs

/// Reads a number as C's `strtoull` does, which Redis falls back to.
fn parse_unsigned(text: &[u8]) -> Option<u64> {
    let blank = |byte: &&u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let text = &text[text.iter().take_while(blank).count()..];
    let (negative, digits) = match text.split_first()? {
        (b'-', digits) => (true, digits),
        (b'+', digits) => (false, digits),
        _ => (false, text),
    };
    let magnitude = digits.iter().try_fold(0u64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })?;
    let value = if negative { magnitude.wrapping_neg() } else { magnitude };
    (!digits.is_empty()).then_some(value)
}

/// Reads an ID that may leave the second number to the server: `ms`, `ms-seq`, `ms-*`.
/// The number is 0 then, and the flag false.
fn parse_open_id(text: &[u8], missing_seq: u64) -> Option<(Id, bool)> {
    if text.len() > ID_TEXT_BYTES_MAX {
        return None;
    }
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let (ms, seq) = match text.iter().position(|byte| *byte == b'-') {
        Some(dash) => (&text[..dash], Some(&text[dash + 1..])),
        None => (text, None),
    };
    let ms = parse_unsigned(ms)?;
    Some(match seq {
        Some(b"*") => (Id { ms, seq: 0 }, false),
        Some(seq) => (Id { ms, seq: parse_unsigned(seq)? }, true),
        None => (Id { ms, seq: missing_seq }, true),
    })
}

/// Reads an ID that must be one: `-` and `+` are none.
pub(super) fn parse_id(text: &[u8]) -> Result<Id, CommandError> {
    parse_id_or(text, 0)
}

fn parse_id_or(text: &[u8], missing_seq: u64) -> Result<Id, CommandError> {
    match parse_open_id(text, missing_seq) {
        Some((id, true)) => Ok(id),
        _ => Err(CommandError::STREAM_ID),
    }
}

/// Reads an ID, the lowest one (`-`) or the highest one (`+`).
pub(super) fn parse_any_id(text: &[u8], missing_seq: u64) -> Result<Id, CommandError> {
    match text {
        b"-" => Ok(Id::MIN),
        b"+" => Ok(Id::MAX),
        text => parse_id_or(text, missing_seq),
    }
}

/// Reads where a range starts: an ID, after which if it stands behind `(`.
pub(super) fn parse_start(text: &[u8]) -> Result<Id, CommandError> {
    match text {
        [b'(', id @ ..] if !id.is_empty() => parse_id(id)?.next().ok_or(CommandError::RANGE_START),
        text => parse_any_id(text, 0),
    }
}

/// Reads where a range ends.
pub(super) fn parse_end(text: &[u8]) -> Result<Id, CommandError> {
    match text {
        [b'(', id @ ..] if !id.is_empty() => {
            parse_id_or(id, u64::MAX)?.previous().ok_or(CommandError::RANGE_END)
        }
        text => parse_any_id(text, u64::MAX),
    }
}

pub(super) fn id_reply(id: Id) -> Reply {
    Reply::Bulk(id.text())
}

pub(super) fn entry_reply(entry: Entry) -> Reply {
    let fields = entry.fields.into_iter().map(Reply::Bulk).collect();
    Reply::Array(vec![id_reply(entry.id), Reply::Array(fields)])
}

// --- Adding and trimming

/// What to keep, and how many entries may go at most.
#[derive(Clone, Copy)]
struct Trim {
    keep: Keep,
    /// With `~`: whole nodes go, or nothing.
    approximate: bool,
    limit: Option<u64>,
    references: References,
}

impl Trim {
    /// Trims a stream; how many entries went.
    fn run(self, txn: &mut Txn<'_>, stream: &mut StreamEdit<'_>) -> Result<u64, CommandError> {
        let limit = if self.approximate { self.of_nodes(txn, stream)? } else { u64::MAX };
        match self.references {
            References::Keep => Ok(stream.trim(txn, self.keep, limit)?),
            references => {
                stream_group::trim_referenced(txn, stream, (self.keep, limit), references)
            }
        }
    }

    /// How many entries whole nodes have of those that may go. A node ends where the number of entries
    /// that the stream has ever had is a multiple of its size: so nothing need be kept about nodes, and
    /// what goes is mostly whole rows. (Redis's nodes end at 4 KiB, too, and begin anew after deletions.)
    fn of_nodes(self, txn: &Txn<'_>, stream: &StreamEdit<'_>) -> Result<u64, CommandError> {
        let node = txn.shapes().stream_node_entries;
        let by_default = if node == 0 { APPROXIMATE_LIMIT } else { node * APPROXIMATE_NODES };
        let limit =
            self.limit.map_or(by_default, |limit| if limit == 0 { u64::MAX } else { limit });
        if node == 0 {
            return Ok(limit);
        }
        let may_go = stream.beyond(txn, self.keep, limit)?;
        let first = stream.meta.entries_added.saturating_sub(stream.count());
        Ok(((first + may_go) / node * node).saturating_sub(first))
    }
}

/// What stands before the fields of XADD, or behind the key of XTRIM.
#[derive(Default)]
struct AddOrTrim {
    trim: Option<Trim>,
    no_stream: bool,
    /// The ID, and whether its second number was given; `None` for `*`.
    id: Option<(Id, bool)>,
}

impl AddOrTrim {
    /// Reads options; of XADD up to and with the ID.
    fn parse(options: &mut Options<'_>, adds: bool) -> Result<AddOrTrim, CommandError> {
        let mut parsed = AddOrTrim::default();
        let (mut keep, mut approximate, mut limit, mut references) = (None, false, None, None);
        while let Some(raw) = options.raw() {
            if adds && raw == "*" {
                break;
            }
            let more = options.left();
            if let Some(said) = References::of(raw) {
                if references.replace(said).is_some() {
                    return Err(CommandError::Syntax);
                }
                continue;
            }
            match raw.to_ascii_uppercase().as_slice() {
                name @ (b"MAXLEN" | b"MINID") if more > 0 => {
                    if keep.is_some() {
                        return Err(CommandError::TRIM_BOTH);
                    }
                    let mut value = options.value()?;
                    approximate = value == "~" && more >= 2;
                    if approximate || value == "=" && more >= 2 {
                        value = options.value()?;
                    }
                    keep = Some(if name == b"MAXLEN" {
                        let count = parse_int(value).ok_or(CommandError::NotInteger)?;
                        Keep::Newest(u64::try_from(count).map_err(|_| CommandError::MAXLEN_RANGE)?)
                    } else {
                        Keep::From(parse_id(value)?)
                    });
                }
                b"LIMIT" if more > 0 => {
                    let count = options.int()?;
                    limit = Some(u64::try_from(count).map_err(|_| CommandError::LIMIT_RANGE)?);
                }
                b"NOMKSTREAM" if adds => parsed.no_stream = true,
                _ if adds => {
                    let id = parse_open_id(raw, 0).ok_or(CommandError::STREAM_ID)?;
                    parsed.id = Some(id);
                    break;
                }
                _ => return Err(CommandError::Syntax),
            }
        }
        parsed.trim = match (keep, limit) {
            (None, Some(1..)) => return Err(CommandError::LIMIT_ALONE),
            (None, _) if !adds => return Err(CommandError::XTRIM_ALONE),
            (_, Some(_)) if !approximate => return Err(CommandError::LIMIT_EXACT),
            (None, _) => None,
            (Some(keep), limit) => {
                let references = references.unwrap_or(References::Keep);
                Some(Trim { keep, approximate, limit, references })
            }
        };
        Ok(parsed)
    }
}

/// A line of XADD.
struct Addition<'a> {
    options: AddOrTrim,
    fields: &'a [Bytes],
}

/// What an XADD did.
struct Added {
    id: Id,
    trimmed: u64,
}

impl<'a> Addition<'a> {
    fn parse(args: Args<'a>) -> Result<Addition<'a>, CommandError> {
        let mut left = args.options(2);
        let options = AddOrTrim::parse(&mut left, true)?;
        let fields = args.from(args.len() - left.left());
        if fields.is_empty() || !fields.len().is_multiple_of(2) {
            return Err(CommandError::Arity("xadd".into()));
        }
        if options.id == Some((Id::MIN, true)) {
            return Err(CommandError::XADD_ZERO);
        }
        Ok(Addition { options, fields })
    }

    /// Adds the entry; `None` if there is no stream and none is to be made.
    ///
    /// *Errors*: the stream is of no use then.
    fn run(
        &self,
        txn: &mut Txn<'_>,
        stream: &mut StreamEdit<'_>,
    ) -> Result<Option<Added>, CommandError> {
        if self.options.no_stream && !stream.exists() {
            return Ok(None);
        }
        let last = stream.meta.last_id;
        if last == Id::MAX {
            return Err(CommandError::XADD_EXHAUSTED);
        }
        let id = match self.options.id {
            None if txn.now_ms() > last.ms => Some(Id { ms: txn.now_ms(), seq: 0 }),
            None => last.next(),
            Some((id, false)) if id.ms == last.ms => last.next().filter(|next| next.ms == id.ms),
            Some((id, _)) => Some(id),
        };
        let id = id.filter(|id| *id > last).ok_or(CommandError::XADD_SMALL)?;
        stream.append(txn, id, self.fields);
        let trimmed = match self.options.trim {
            Some(trim) => trim.run(txn, stream)?,
            None => 0,
        };
        Ok(Some(Added { id, trimmed }))
    }
}

impl Added {
    /// Tells who listens; the reply.
    fn told(&self, txn: &Txn<'_>, key: &[u8]) -> Reply {
        txn.note(Wanted::STREAM, "xadd", key);
        if self.trimmed > 0 {
            txn.note(Wanted::STREAM, "xtrim", key);
        }
        id_reply(self.id)
    }
}

fn xadd(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (key, addition) = (args.bytes(1)?, Addition::parse(args)?);
    let mut stream = StreamEdit::open(txn, key)?;
    let added = addition.run(txn, &mut stream)?;
    stream.finish(txn);
    Ok(added.map_or(Reply::Null, |added| added.told(txn, key)))
}

fn xadd_many(txn: &mut Txn<'_>, lines: &[Args<'_>]) -> Result<Vec<Ran>, CommandError> {
    let [first, ..] = lines else { return Ok(Vec::new()) };
    let key = first.bytes(1)?;
    let mut stream = StreamEdit::open(txn, key)?;
    let mut all = Vec::with_capacity(lines.len());
    for line in lines {
        all.push(Addition::parse(*line)?.run(txn, &mut stream)?);
    }
    stream.finish(txn);
    let ran = all.into_iter().map(|added| Ran {
        wrote: added.is_some(),
        reply: added.map_or(Reply::Null, |added| added.told(txn, key)),
    });
    Ok(ran.collect())
}

fn xtrim(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let parsed = AddOrTrim::parse(&mut args.options(2), false)?;
    let mut stream = StreamEdit::open(txn, args.bytes(1)?)?;
    let mut trimmed = 0;
    if let Some(trim) = parsed.trim {
        trimmed = trim.run(txn, &mut stream)?;
    }
    stream.finish(txn);
    if trimmed > 0 {
        txn.note(Wanted::STREAM, "xtrim", args.bytes(1)?);
    }
    Ok(Reply::Integer(trimmed as i64))
}

fn xdel(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut stream = StreamEdit::open(txn, args.bytes(1)?)?;
    if !stream.exists() {
        return Ok(Reply::Integer(0));
    }
    let ids: Vec<Id> = args.from(2).iter().map(|id| parse_id(id)).collect::<Result<_, _>>()?;
    let mut deleted = 0;
    for id in ids {
        deleted += i64::from(delete_entry(txn, &mut stream, id)?);
    }
    stream.finish(txn);
    if deleted > 0 {
        txn.note(Wanted::STREAM, "xdel", args.bytes(1)?);
    }
    Ok(Reply::Integer(deleted))
}

/// Deletes an entry for good; whether it was there.
pub(super) fn delete_entry(
    txn: &mut Txn<'_>,
    stream: &mut StreamEdit<'_>,
    id: Id,
) -> Result<bool, CommandError> {
    let deleted = stream.delete(txn, id)?;
    if deleted {
        stream.meta.max_deleted_id = stream.meta.max_deleted_id.max(id);
    }
    Ok(deleted)
}

fn xsetid(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let id = parse_id(args.bytes(2)?)?;
    let (mut added, mut max_deleted) = (None, None);
    let mut options = args.options(3);
    while let Some(word) = options.word() {
        match word.as_bytes() {
            b"ENTRIESADDED" if options.left() > 0 => {
                let count = options.int()?;
                added = Some(u64::try_from(count).map_err(|_| CommandError::ADDED_NEGATIVE)?);
            }
            b"MAXDELETEDID" if options.left() > 0 => {
                let deleted = parse_id(options.value()?)?;
                if id < deleted {
                    return Err(CommandError::XSETID_DELETED_GIVEN);
                }
                max_deleted = Some(deleted).filter(|deleted| *deleted != Id::MIN);
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    let mut stream = StreamEdit::open(txn, args.bytes(1)?)?;
    let top = match stream.read(txn)? {
        Some(stream) => stream.top_id()?,
        None => return Err(CommandError::NoSuchKey),
    };
    if id < stream.meta.max_deleted_id {
        return Err(CommandError::XSETID_DELETED);
    }
    if stream.count() > 0 && id < top {
        return Err(CommandError::XSETID_TOP);
    }
    if stream.count() > 0 && added.is_some_and(|added| stream.count() > added) {
        return Err(CommandError::XSETID_ADDED);
    }
    stream.meta.last_id = id;
    stream.meta.entries_added = added.unwrap_or(stream.meta.entries_added);
    stream.meta.max_deleted_id = max_deleted.unwrap_or(stream.meta.max_deleted_id);
    stream.touch();
    stream.finish(txn);
    txn.note(Wanted::STREAM, "xsetid", args.bytes(1)?);
    Ok(Reply::OK)
}

// --- Reading

fn xlen(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let stream = Stream::read(view, args.bytes(1)?)?;
    Ok(Reply::Integer(stream.map_or(0, |stream| stream.count as i64)))
}

fn xrange(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    range(view, args, (2, 3), Direction::Forward)
}

fn xrevrange(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    range(view, args, (3, 2), Direction::Backward)
}

fn range(
    view: &dyn View,
    args: Args<'_>,
    (start, end): (usize, usize),
    direction: Direction,
) -> Result<Reply, CommandError> {
    let ids = (parse_start(args.bytes(start)?)?, parse_end(args.bytes(end)?)?);
    let mut count = None;
    let mut options = args.options(4);
    while let Some(word) = options.word() {
        match word.as_bytes() {
            b"COUNT" if options.left() > 0 => count = Some(options.int()?),
            _ => return Err(CommandError::Syntax),
        }
    }
    let Some(stream) = Stream::read(view, args.bytes(1)?)? else {
        return Ok(Reply::Array(Vec::new()));
    };
    let count = match count {
        // That nothing is wanted Redis answers by a null; less than nothing, too.
        Some(..=0) => return Ok(Reply::NullArray),
        count => count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX)),
    };
    let entries = stream.range(ids, count, direction)?;
    Ok(Reply::Array(entries.into_iter().map(entry_reply).collect()))
}

/// What XREAD and XREADGROUP ask for.
pub(super) struct Request<'a> {
    pub(super) count: usize,
    /// Whether it waits if nothing is there, and how long, in ms; see [`Wait::timeout_ms`].
    pub(super) block: Option<Option<u64>>,
    pub(super) no_acknowledgement: bool,
    pub(super) group: Option<(&'a Bytes, &'a Bytes)>,
    /// Keys, and behind which ID of each, as it was written.
    pub(super) streams: Vec<(&'a Bytes, &'a Bytes)>,
}

impl<'a> Request<'a> {
    pub(super) fn parse(
        view: &dyn View,
        args: Args<'a>,
        of_group: bool,
    ) -> Result<Request<'a>, CommandError> {
        let (mut count, mut block, mut no_acknowledgement, mut group) = (0, None, false, None);
        let mut options = args.options(1);
        while let Some(word) = options.word() {
            match word.as_bytes() {
                b"BLOCK" if options.left() > 0 => {
                    block = Some(timeout_of_ms(options.value()?, view.now_ms())?);
                }
                b"COUNT" if options.left() > 0 => count = options.int()?.max(0),
                b"STREAMS" if options.left() > 0 => {
                    let rest = args.from(args.len() - options.left());
                    if !rest.len().is_multiple_of(2) {
                        return Err(if of_group {
                            CommandError::StreamsUnbalanced("xreadgroup", "ID or '>'")
                        } else {
                            CommandError::StreamsUnbalanced("xread", "ID or '$'")
                        });
                    }
                    let (keys, ids) = rest.split_at(rest.len() / 2);
                    if of_group && group.is_none() {
                        return Err(CommandError::GROUP_MISSING);
                    }
                    let count = if count == 0 { i64::MAX } else { count };
                    return Ok(Request {
                        count: usize::try_from(count).unwrap_or(usize::MAX),
                        block,
                        no_acknowledgement,
                        group,
                        streams: keys.iter().zip(ids).collect(),
                    });
                }
                b"GROUP" if options.left() > 1 => {
                    if !of_group {
                        return Err(CommandError::XREAD_GROUP);
                    }
                    group = Some((options.value()?, options.value()?));
                }
                b"NOACK" if !of_group => return Err(CommandError::XREAD_NOACK),
                b"NOACK" => no_acknowledgement = true,
                _ => return Err(CommandError::Syntax),
            }
        }
        Err(CommandError::Syntax)
    }
}

fn xread(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let request = Request::parse(view, args, false)?;
    let mut streams = Vec::with_capacity(request.streams.len());
    for (key, text) in &request.streams {
        let stream = Stream::read(view, key)?;
        let last = stream.as_ref().map_or(Id::MIN, |stream| stream.meta.last_id);
        let behind = match &text[..] {
            b"$" => last,
            b"+" if stream.is_none() => Id::MIN,
            b"+" => last.previous().ok_or(CommandError::XREAD_EMPTY)?,
            b">" => return Err(CommandError::XREAD_NEW),
            text => parse_id(text)?,
        };
        streams.push((*key, stream, behind));
    }
    let mut replies = Vec::new();
    for (key, stream, behind) in streams {
        let (Some(stream), Some(from)) = (stream, behind.next()) else { continue };
        let entries = stream.range((from, Id::MAX), request.count, Direction::Forward)?;
        if !entries.is_empty() {
            let entries = entries.into_iter().map(entry_reply).collect();
            replies.push((Reply::Bulk(key.clone()), Reply::Array(entries)));
        }
    }
    Ok(if replies.is_empty() { Reply::NullArray } else { Reply::Keyed(replies) })
}

/// `$` stands for the last entry that there is now: the line that is tried again says which.
fn wait_to_read(view: &dyn View, args: Args<'_>) -> Result<Option<Wait>, CommandError> {
    let request = Request::parse(view, args, false)?;
    let Some(timeout_ms) = request.block else { return Ok(None) };
    let keys = &args.0[args.len() - 2 * request.streams.len()..][..request.streams.len()];
    let mut wait = Wait::new(Kind::Stream, keys, timeout_ms);
    if request.streams.iter().any(|(_, id)| *id == "$") {
        let mut line = args.0.to_vec();
        let first_id = line.len() - keys.len();
        for (key, id) in keys.iter().zip(&mut line[first_id..]) {
            if id == "$" {
                let stream = Stream::read(view, key)?;
                *id = stream.map_or(Id::MIN, |stream| stream.meta.last_id).text();
            }
        }
        wait.args = Some(line);
    }
    Ok(Some(wait))
}

/// A group of a stream that is being changed.
///
/// *Errors*: `missing`, if there is no such group, or no stream.
pub(super) fn open_group<'k>(
    txn: &mut Txn<'_>,
    key: &'k [u8],
    name: &[u8],
    missing: impl FnOnce() -> CommandError,
) -> Result<(StreamEdit<'k>, GroupEdit), CommandError> {
    let mut stream = StreamEdit::open(txn, key)?;
    if !stream.exists() {
        return Err(missing());
    }
    let place = stream.place(txn);
    let group = GroupEdit::open(txn, place, name)?;
    Ok((stream, group.ok_or_else(missing)?))
}

/// The refusal of most commands on a group that is not there.
pub(super) fn no_group(key: &[u8], group: &[u8]) -> CommandError {
    CommandError::NoGroup(Echo::new(key), Echo::new(group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_as_redis_reads_them() {
        let id = |ms, seq| Ok(Id { ms, seq });
        for (text, expected) in [
            ("5", id(5, 0)),
            ("5-3", id(5, 3)),
            ("0-0", id(0, 0)),
            ("007-01", id(7, 1)),
            (" 1-+2", id(1, 2)),
            ("1--1", id(1, u64::MAX)),
            ("18446744073709551615-18446744073709551615", Ok(Id::MAX)),
            ("1\0x", id(1, 0)),
        ] {
            assert_eq!(parse_id(text.as_bytes()), expected, "{text}");
        }
        for text in ["", "-", "+", "x", "1-", "-1", "1-x", "1-2-3", "18446744073709551616", "1-*"] {
            assert!(parse_id(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(parse_open_id(b"5-*", 0), Some((Id { ms: 5, seq: 0 }, false)));
        assert_eq!((parse_start(b"-"), parse_end(b"+")), (Ok(Id::MIN), Ok(Id::MAX)));
        assert_eq!((parse_start(b"(5"), parse_end(b"(5")), (id(5, 1), id(5, u64::MAX - 1)));
        assert_eq!(parse_end(b"(0-0"), Err(CommandError::RANGE_END));
        assert!(parse_start(b"(-").is_err() && parse_start(b"(").is_err());
    }
}
