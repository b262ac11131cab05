//! Consumer groups of streams: their rows stand in families/stream.rs, the layout in
//! types/stream_groups.rs.

use std::ops::ControlFlow;

use bytes::Bytes;
use wire::resp::Reply;

use crate::args::{Args, Word, parse_int};
use crate::error::{CommandError, Echo};
use crate::families::stream::{
    Request, delete_entry, entry_reply, id_reply, no_group, open_group, parse_any_id, parse_end,
    parse_id, parse_start,
};
use crate::txn::Txn;
use crate::types::header::Kind;
use crate::types::ring::Place;
use crate::types::stream::{Id, Stream};
use crate::types::stream_edit::{Keep, StreamEdit};
use crate::types::stream_groups::{Group, GroupEdit, Pending};
use crate::view::{Direction, View};
use crate::wait::Wait;

/// Entries that XAUTOCLAIM claims if no COUNT is given.
const CLAIM_COUNT_DEFAULT: i64 = 100;
/// Redis's bound on its COUNT.
const CLAIM_COUNT_MAX: i64 = i64::MAX / 16;
/// Pending entries that XAUTOCLAIM looks at for each that it may claim.
const CLAIM_ATTEMPTS: i64 = 10;
/// Entries that trimming with an eye on groups reads together.
const TRIM_PAGE: usize = 256;
/// Pending entries looked at together.
const CLAIM_PAGE: usize = 512;
/// Longest name of a subcommand that a refusal repeats, in bytes.
const NAME_ECHO_BYTES: usize = 128;

/// Notes an event of a stream.
fn note(txn: &Txn<'_>, event: &'static str, key: &[u8]) {
    txn.note(crate::notes::Wanted::STREAM, event, key);
}

// --- XREADGROUP

pub(crate) fn xreadgroup(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let request = Request::parse(txn, args, true)?;
    let Some((group_name, consumer)) = request.group else {
        return Err(CommandError::GROUP_MISSING);
    };
    // All are looked at before anything is delivered.
    let mut streams = Vec::with_capacity(request.streams.len());
    for (key, text) in &request.streams {
        let stream = Stream::read(txn, key)?;
        let group = stream.map(|stream| Group::get(txn, &stream.place, group_name)).transpose()?;
        if group.flatten().is_none() {
            let (key, group) = (Echo::new(key), Echo::new(group_name));
            return Err(CommandError::NoGroupToRead(key, group));
        }
        let behind = match &text[..] {
            b"$" => return Err(CommandError::READGROUP_LAST),
            b"+" => return Err(CommandError::READGROUP_TOP),
            b">" => None,
            text => Some(parse_id(text)?),
        };
        streams.push((*key, behind));
    }
    let mut replies = Vec::new();
    // What was delivered once is delivered again: Redis counts no change then.
    let mut is_minor = true;
    for (key, behind) in streams {
        let delivery =
            Delivery { consumer, count: request.count, kept: !request.no_acknowledgement };
        let missing = || no_group(key, group_name);
        let (mut stream, mut group) = open_group(txn, key, group_name, missing)?;
        if group.see(txn, consumer)? {
            note(txn, "xgroup-createconsumer", key);
            is_minor = false;
        }
        let entries = match behind {
            // The highest ID, too, stands for new entries.
            Some(behind) if behind != Id::MAX => {
                Some(delivery.history(txn, &stream, &mut group, behind)?)
            }
            _ => {
                is_minor = false;
                delivery.new_entries(txn, &stream, &mut group)?
            }
        };
        group.finish(txn)?;
        stream.touch();
        stream.finish(txn);
        replies.extend(entries.map(|entries| (Reply::Bulk(key.clone()), Reply::Array(entries))));
    }
    if is_minor {
        txn.is_minor();
    }
    Ok(if replies.is_empty() { Reply::NullArray } else { Reply::Keyed(replies) })
}

/// It waits for new entries, and no longer than the group is there.
pub(crate) fn wait_to_read(view: &dyn View, args: Args<'_>) -> Result<Option<Wait>, CommandError> {
    let request = Request::parse(view, args, true)?;
    let keys = &args.0[args.len() - 2 * request.streams.len()..][..request.streams.len()];
    Ok(request
        .block
        .map(|timeout_ms| Wait { or_gone: true, ..Wait::new(Kind::Stream, keys, timeout_ms) }))
}

/// To whom entries are delivered, how many, and whether they are pending then.
struct Delivery<'a> {
    consumer: &'a Bytes,
    count: usize,
    kept: bool,
}

impl Delivery<'_> {
    /// Delivers what the consumer has pending behind an ID once more.
    fn history(
        &self,
        txn: &mut Txn<'_>,
        stream: &StreamEdit<'_>,
        group: &mut GroupEdit,
        behind: Id,
    ) -> Result<Vec<Reply>, CommandError> {
        let Some(place) = stream.read(txn)?.map(|stream| stream.place) else {
            return Ok(Vec::new());
        };
        let (Some(from), Some(consumer)) =
            (behind.next(), group.consumer(txn, self.consumer)?.cloned())
        else {
            return Ok(Vec::new());
        };
        let mut replies = Vec::new();
        for id in group.group.owned(txn, &place, &consumer, from, self.count)? {
            let entry = stream.read(txn)?.map(|stream| stream.entry(id)).transpose()?.flatten();
            match entry {
                // It was deleted, but not acknowledged.
                None => replies.push(Reply::Array(vec![id_reply(id), Reply::NullArray])),
                Some(entry) => {
                    let pending = group.group.pending(txn, &place, id)?;
                    let deliveries = pending.map_or(0, |pending| pending.deliveries);
                    let delivered = (txn.now_ms(), deliveries.saturating_add(1));
                    group.give(txn, self.consumer, id, delivered)?;
                    replies.push(entry_reply(entry));
                }
            }
        }
        Ok(replies)
    }

    /// Delivers entries that the group has not seen; `None` if there are none.
    fn new_entries(
        &self,
        txn: &mut Txn<'_>,
        edit: &StreamEdit<'_>,
        group: &mut GroupEdit,
    ) -> Result<Option<Vec<Reply>>, CommandError> {
        let from = group.group.last_id.next();
        let (Some(stream), Some(from)) = (edit.read(txn)?, from) else { return Ok(None) };
        let entries = stream.range((from, Id::MAX), self.count, Direction::Forward)?;
        for entry in &entries {
            group.group.entries_read = match group.group.entries_read {
                Some(read) if !stream.has_deleted_from(group.group.last_id) => Some(read + 1),
                _ => stream.entries_up_to(entry.id)?,
            };
            group.group.last_id = entry.id;
        }
        drop(stream);
        let now_ms = txn.now_ms();
        for entry in entries.iter().filter(|_| self.kept) {
            group.give(txn, self.consumer, entry.id, (now_ms, 1))?;
            if let Some(consumer) = group.consumer(txn, self.consumer)? {
                consumer.active_ms = Some(now_ms);
            }
        }
        let replies: Vec<Reply> = entries.into_iter().map(entry_reply).collect();
        Ok(Some(replies).filter(|replies| !replies.is_empty()))
    }
}

// --- XACK and what it became

pub(crate) fn xack(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let none = || CommandError::NoSuchKey;
    let (mut stream, mut group) = match open_group(txn, args.bytes(1)?, args.bytes(2)?, none) {
        Err(CommandError::NoSuchKey) => return Ok(Reply::Integer(0)),
        opened => opened?,
    };
    let ids: Vec<Id> = args.from(3).iter().map(|id| parse_id(id)).collect::<Result<_, _>>()?;
    let mut acknowledged = 0;
    for id in ids {
        acknowledged += i64::from(group.release(txn, id)?);
    }
    if acknowledged > 0 {
        group.finish(txn)?;
        stream.touch();
        stream.finish(txn);
    }
    Ok(Reply::Integer(acknowledged))
}

/// What XDELEX, XACKDEL and trimming do with an entry that groups still know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum References {
    /// It goes, and stays pending where it is.
    Keep,
    /// It goes, and is pending nowhere.
    Delete,
    /// It goes if every group has read and acknowledged it.
    Acknowledged,
}

impl References {
    /// The option of that name.
    pub(super) fn of(word: &[u8]) -> Option<References> {
        Some(match Word::new(word).as_bytes() {
            b"KEEPREF" => References::Keep,
            b"DELREF" => References::Delete,
            b"ACKED" => References::Acknowledged,
            _ => return None,
        })
    }
}

/// Answers of XDELEX and XACKDEL for an ID.
const NO_ENTRY: i64 = -1;
const DELETED: i64 = 1;
const STILL_REFERENCED: i64 = 2;

fn references_and_ids(args: Args<'_>, from: usize) -> Result<(References, Vec<Id>), CommandError> {
    let (mut references, mut ids) = (None, None);
    let mut options = args.options(from);
    while let Some(raw) = options.raw() {
        if let Some(said) = References::of(raw) {
            if references.replace(said).is_some() {
                return Err(CommandError::Syntax);
            }
            continue;
        }
        match Word::new(raw).as_bytes() {
            b"IDS" if options.left() > 0 && ids.is_none() => {
                let count = parse_int(options.value()?).filter(|count| *count > 0);
                let count = count.ok_or(CommandError::IDS_NOT_POSITIVE)?;
                if count != options.left() as i64 {
                    return Err(CommandError::IDS_COUNT);
                }
                let mut parsed = Vec::with_capacity(options.left());
                while let Some(id) = options.raw() {
                    parsed.push(parse_id(id)?);
                }
                ids = Some(parsed);
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok((references.unwrap_or(References::Keep), ids.ok_or(CommandError::Syntax)?))
}

pub(crate) fn xdelex(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (references, ids) = references_and_ids(args, 2)?;
    let mut stream = StreamEdit::open(txn, args.bytes(1)?)?;
    let mut replies = Vec::with_capacity(ids.len());
    for id in ids {
        let answer = delete_referenced(txn, &mut stream, id, references)?;
        replies.push(Reply::Integer(answer));
    }
    stream.finish(txn);
    note_deleted(txn, args.bytes(1)?, &replies);
    Ok(Reply::Array(replies))
}

pub(crate) fn xackdel(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (references, ids) = references_and_ids(args, 3)?;
    let mut stream = StreamEdit::open(txn, args.bytes(1)?)?;
    let mut replies = Vec::with_capacity(ids.len());
    for id in ids {
        let mut acknowledged = false;
        if stream.exists() {
            let place = stream.place(txn);
            if let Some(mut group) = GroupEdit::open(txn, place, args.bytes(2)?)? {
                acknowledged = group.release(txn, id)?;
                group.finish(txn)?;
            }
        }
        replies.push(Reply::Integer(if acknowledged {
            stream.touch();
            delete_referenced(txn, &mut stream, id, references)?
        } else {
            NO_ENTRY
        }));
    }
    stream.finish(txn);
    note_deleted(txn, args.bytes(1)?, &replies);
    Ok(Reply::Array(replies))
}

fn note_deleted(txn: &Txn<'_>, key: &[u8], replies: &[Reply]) {
    if replies.contains(&Reply::Integer(DELETED)) {
        note(txn, "xdel", key);
    }
}

fn delete_referenced(
    txn: &mut Txn<'_>,
    stream: &mut StreamEdit<'_>,
    id: Id,
    references: References,
) -> Result<i64, CommandError> {
    let exists = stream.read(txn)?.map(|stream| stream.entry(id)).transpose()?.flatten().is_some();
    if !stream.exists() {
        return Ok(NO_ENTRY);
    }
    let place = stream.place(txn);
    if references != References::Keep {
        for group in Group::all(txn, &place)? {
            let pending = group.pending(txn, &place, id)?.is_some();
            if references == References::Acknowledged {
                if exists && (pending || group.last_id < id) {
                    return Ok(STILL_REFERENCED);
                }
            } else if pending && let Some(mut group) = GroupEdit::open(txn, place, &group.name)? {
                group.release(txn, id)?;
                group.finish(txn)?;
                stream.touch();
            }
        }
    }
    Ok(if delete_entry(txn, stream, id)? { DELETED } else { NO_ENTRY })
}

/// Trims a stream entry by entry, with an eye on the groups that know them; how many went. `limit` is
/// how many entries are looked at: those that are still referenced stay, and others behind them go.
pub(super) fn trim_referenced(
    txn: &mut Txn<'_>,
    stream: &mut StreamEdit<'_>,
    (keep, limit): (Keep, u64),
    references: References,
) -> Result<u64, CommandError> {
    let (mut trimmed, mut looked_at, mut from) = (0, 0, Some(Id::MIN));
    let max_deleted_id = stream.meta.max_deleted_id;
    while let Some(first) = from
        && looked_at < limit
    {
        let count = usize::try_from(limit - looked_at).unwrap_or(usize::MAX).min(TRIM_PAGE);
        let page = match stream.read(txn)? {
            Some(stream) => stream.range((first, Id::MAX), count, Direction::Forward)?,
            None => Vec::new(),
        };
        for entry in &page {
            let stays = match keep {
                Keep::Newest(count) => stream.count() <= count,
                Keep::From(first) => entry.id >= first,
            };
            if stays {
                return Ok(trimmed);
            }
            looked_at += 1;
            let deleted = delete_referenced(txn, stream, entry.id, references)? == DELETED;
            trimmed += u64::from(deleted);
            if trimmed == looked_at {
                // What goes from the front leaves no hole.
                stream.meta.max_deleted_id = max_deleted_id;
            }
        }
        from = page.last().filter(|_| page.len() == count).and_then(|last| last.id.next());
    }
    Ok(trimmed)
}

// --- XPENDING

pub(crate) fn xpending(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let wanted = match args.len() {
        3 => None,
        6..=9 => Some(Wanted::parse(args)?),
        _ => return Err(CommandError::Syntax),
    };
    let (key, name) = (args.bytes(1)?, args.bytes(2)?);
    let stream = Stream::read(view, key)?;
    let place = stream.map(|stream| stream.place).ok_or_else(|| no_group(key, name))?;
    let group = Group::get(view, &place, name)?.ok_or_else(|| no_group(key, name))?;
    match wanted {
        Some(wanted) => wanted.list(view, &place, &group),
        None => summary(view, &place, &group),
    }
}

fn summary(view: &dyn View, place: &Place, group: &Group) -> Result<Reply, CommandError> {
    let edge = |direction| group.edge(view, place, direction);
    let (first, last) = (edge(Direction::Forward)?, edge(Direction::Backward)?);
    let owners = match first {
        None => Reply::NullArray,
        Some(_) => {
            let consumers = group.all_consumers(view, place)?.into_iter();
            let owners = consumers.filter(|consumer| consumer.pending > 0).map(|consumer| {
                let pending = Bytes::from(consumer.pending.to_string());
                Reply::Array(vec![Reply::Bulk(consumer.name), Reply::Bulk(pending)])
            });
            Reply::Array(owners.collect())
        }
    };
    let id = |id: Option<Id>| id.map_or(Reply::Null, id_reply);
    Ok(Reply::Array(vec![Reply::Integer(group.pending as i64), id(first), id(last), owners]))
}

/// Which pending entries are to be listed.
struct Wanted<'a> {
    idle_min_ms: i64,
    range: (Id, Id),
    count: usize,
    consumer: Option<&'a Bytes>,
}

impl<'a> Wanted<'a> {
    fn parse(args: Args<'a>) -> Result<Wanted<'a>, CommandError> {
        let (mut at, mut idle_min_ms) = (3, 0);
        if Word::new(args.bytes(3)?).as_bytes() == b"IDLE" {
            idle_min_ms = args.int(4)?;
            if args.len() < 8 {
                return Err(CommandError::Syntax);
            }
            at = 5;
        }
        let count = usize::try_from(args.int(at + 2)?).unwrap_or(0);
        let range = (parse_start(args.bytes(at)?)?, parse_end(args.bytes(at + 1)?)?);
        Ok(Wanted { idle_min_ms, range, count, consumer: args.get(at + 3) })
    }

    fn list(&self, view: &dyn View, place: &Place, group: &Group) -> Result<Reply, CommandError> {
        let mut found: Vec<Pending> = Vec::new();
        let idle_enough = |pending: &Pending| {
            self.idle_min_ms == 0 || idle_ms(view, pending.delivered_ms) >= self.idle_min_ms
        };
        if self.count == 0 {
            return Ok(Reply::Array(Vec::new()));
        }
        match self.consumer {
            None => group.visit_pending(view, place, self.range.0, &mut |pending| {
                if pending.id > self.range.1 {
                    return ControlFlow::Break(());
                }
                if idle_enough(&pending) {
                    found.push(pending);
                }
                if found.len() < self.count {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?,
            Some(name) => {
                let consumer = group.consumer(view, place, name)?;
                let mut from = consumer.is_some().then_some(self.range.0);
                while let (Some(consumer), Some(start)) = (&consumer, from) {
                    let ids = group.owned(view, place, consumer, start, CLAIM_PAGE)?;
                    from = ids.last().filter(|_| ids.len() == CLAIM_PAGE).and_then(|id| id.next());
                    for id in ids {
                        if id > self.range.1 || found.len() == self.count {
                            from = None;
                            break;
                        }
                        found.extend(group.pending(view, place, id)?.filter(&idle_enough));
                    }
                }
            }
        }
        let line = |pending: Pending| {
            let idle = idle_ms(view, pending.delivered_ms).max(0);
            Reply::Array(vec![
                id_reply(pending.id),
                Reply::Bulk(pending.consumer),
                Reply::Integer(idle),
                integer(pending.deliveries),
            ])
        };
        Ok(Reply::Array(found.into_iter().map(line).collect()))
    }
}

pub(super) fn idle_ms(view: &dyn View, since_ms: u64) -> i64 {
    i64::try_from(view.now_ms()).unwrap_or(i64::MAX).wrapping_sub(since_ms as i64)
}

pub(super) fn integer(count: u64) -> Reply {
    Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

// --- XCLAIM, XAUTOCLAIM

/// How entries are claimed.
struct Claim<'a> {
    consumer: &'a Bytes,
    idle_min_ms: i64,
    delivered_ms: u64,
    deliveries: Option<u64>,
    force: bool,
    only_ids: bool,
}

impl Claim<'_> {
    /// Claims an entry, if it is pending (or that is forced) and idle for long enough; what is said
    /// of it. The outer `None` if it exists no more: then it is pending no more, either.
    fn claim(
        &self,
        txn: &mut Txn<'_>,
        stream: &StreamEdit<'_>,
        group: &mut GroupEdit,
        id: Id,
    ) -> Result<Option<Option<Reply>>, CommandError> {
        let Some(read) = stream.read(txn)? else { return Ok(None) };
        let pending = group.group.pending(txn, &read.place, id)?;
        let Some(entry) = read.entry(id)? else {
            group.release(txn, id)?;
            return Ok(None);
        };
        let too_fresh = pending.as_ref().is_some_and(|pending| {
            self.idle_min_ms > 0 && idle_ms(txn, pending.delivered_ms) < self.idle_min_ms
        });
        if too_fresh || pending.is_none() && !self.force {
            return Ok(Some(None));
        }
        // One that is forced counts as delivered once before.
        let before = pending.map_or(1, |pending| pending.deliveries);
        let more = u64::from(!self.only_ids);
        let deliveries = self.deliveries.unwrap_or(before.saturating_add(more));
        group.give(txn, self.consumer, id, (self.delivered_ms, deliveries))?;
        let now_ms = txn.now_ms();
        if let Some(consumer) = group.consumer(txn, self.consumer)? {
            consumer.active_ms = Some(now_ms);
        }
        Ok(Some(Some(if self.only_ids { id_reply(id) } else { entry_reply(entry) })))
    }
}

pub(crate) fn xclaim(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (key, name) = (args.bytes(1)?, args.bytes(2)?);
    let (mut stream, mut group) = open_group(txn, key, name, || no_group(key, name))?;
    let idle_min_ms = parse_int(args.bytes(4)?).ok_or(CommandError::XCLAIM_IDLE_MIN)?;
    let ids: Vec<Id> = args.from(5).iter().map_while(|id| parse_id(id).ok()).collect();
    let now_ms = txn.now_ms();
    let mut claim = Claim {
        consumer: args.bytes(3)?,
        idle_min_ms,
        delivered_ms: now_ms,
        deliveries: None,
        force: false,
        only_ids: false,
    };
    let mut options = args.options(5 + ids.len());
    while let Some(raw) = options.raw() {
        let more = options.left() > 0;
        let mut int = |refusal| parse_int(options.value()?).ok_or(refusal);
        // A time that is not in the past is now.
        let past = |at: i64| u64::try_from(at).ok().filter(|at| *at <= now_ms).unwrap_or(now_ms);
        match raw.to_ascii_uppercase().as_slice() {
            b"FORCE" => claim.force = true,
            b"JUSTID" => claim.only_ids = true,
            b"IDLE" if more => {
                let idle = int(CommandError::XCLAIM_IDLE)?;
                claim.delivered_ms = past((now_ms as i64).wrapping_sub(idle));
            }
            b"TIME" if more => claim.delivered_ms = past(int(CommandError::XCLAIM_TIME)?),
            b"RETRYCOUNT" if more => {
                claim.deliveries = u64::try_from(int(CommandError::XCLAIM_RETRYCOUNT)?).ok();
            }
            b"LASTID" if more => {
                let last_id = parse_id(options.value()?)?;
                group.group.last_id = group.group.last_id.max(last_id);
            }
            _ => return Err(CommandError::XclaimOption(Echo::new(raw))),
        }
    }
    if group.see(txn, claim.consumer)? {
        note(txn, "xgroup-createconsumer", key);
    }
    let mut replies = Vec::new();
    for id in ids {
        replies.extend(claim.claim(txn, &stream, &mut group, id)?.flatten());
    }
    group.finish(txn)?;
    stream.touch();
    stream.finish(txn);
    Ok(Reply::Array(replies))
}

pub(crate) fn xautoclaim(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let idle_min_ms = parse_int(args.bytes(4)?).ok_or(CommandError::XAUTOCLAIM_IDLE_MIN)?;
    let start = parse_start(args.bytes(5)?)?;
    let (mut count, mut only_ids) = (CLAIM_COUNT_DEFAULT, false);
    let mut options = args.options(6);
    while let Some(word) = options.word() {
        match word.as_bytes() {
            b"COUNT" if options.left() > 0 => {
                let said = parse_int(options.value()?);
                let said = said.filter(|count| (1..=CLAIM_COUNT_MAX).contains(count));
                count = said.ok_or(CommandError::COUNT_ABOVE_ZERO)?;
            }
            b"JUSTID" => only_ids = true,
            _ => return Err(CommandError::Syntax),
        }
    }
    let (key, name) = (args.bytes(1)?, args.bytes(2)?);
    let (mut stream, mut group) = open_group(txn, key, name, || no_group(key, name))?;
    let claim = Claim {
        consumer: args.bytes(3)?,
        idle_min_ms,
        delivered_ms: txn.now_ms(),
        deliveries: None,
        force: false,
        only_ids,
    };
    if group.see(txn, claim.consumer)? {
        note(txn, "xgroup-createconsumer", key);
    }
    let place = stream.place(txn);
    let mut attempts = count.saturating_mul(CLAIM_ATTEMPTS);
    let (mut claimed, mut deleted, mut next) = (Vec::new(), Vec::new(), Some(start));
    while let Some(from) = next {
        let page = first_pending(txn, &place, &group.group, from)?;
        next = page.last().filter(|_| page.len() == CLAIM_PAGE).and_then(|id| id.next());
        for (at, id) in page.iter().enumerate() {
            if attempts == 0 || count == 0 {
                next = Some(page[at]);
                break;
            }
            attempts -= 1;
            match claim.claim(txn, &stream, &mut group, *id)? {
                None => deleted.push(id_reply(*id)),
                Some(None) => continue,
                Some(Some(reply)) => claimed.push(reply),
            }
            count -= 1;
        }
        if attempts == 0 || count == 0 {
            break;
        }
    }
    // Where to go on: at what is pending there, not merely at an ID.
    let cursor = match next {
        Some(from) => first_pending(txn, &place, &group.group, from)?.first().copied(),
        None => None,
    };
    group.finish(txn)?;
    stream.touch();
    stream.finish(txn);
    let cursor = id_reply(cursor.unwrap_or(Id::MIN));
    Ok(Reply::Array(vec![cursor, Reply::Array(claimed), Reply::Array(deleted)]))
}

/// The IDs of the next pending entries.
fn first_pending(
    view: &dyn View,
    place: &Place,
    group: &Group,
    from: Id,
) -> Result<Vec<Id>, CommandError> {
    let mut ids = Vec::new();
    group.visit_pending(view, place, from, &mut |pending| {
        ids.push(pending.id);
        if ids.len() < CLAIM_PAGE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(ids)
}

// --- XGROUP

/// The refusal of a subcommand's arguments.
pub(super) fn syntax_of(args: Args<'_>, group: &'static str) -> CommandError {
    let name = args.get(1).map_or(&b""[..], |name| name);
    CommandError::SubcommandSyntax(Echo::cut(name, NAME_ECHO_BYTES), group)
}

/// MKSTREAM, and how many entries were read, `None` if that is not known.
fn group_options(args: Args<'_>, creates: bool) -> Result<(bool, Option<u64>), CommandError> {
    let refused = || syntax_of(args, "XGROUP");
    let (mut makes_stream, mut entries_read) = (false, None);
    let mut options = args.options(5);
    while let Some(word) = options.word() {
        match word.as_bytes() {
            b"MKSTREAM" if creates => makes_stream = true,
            b"ENTRIESREAD" if options.left() > 0 => {
                let read = options.int()?;
                if read < -1 {
                    return Err(CommandError::ENTRIESREAD);
                }
                entries_read = u64::try_from(read).ok();
            }
            _ => return Err(refused()),
        }
    }
    let most = if creates { 8 } else { 7 };
    if args.len() > most { Err(refused()) } else { Ok((makes_stream, entries_read)) }
}

pub(crate) fn create(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (makes_stream, entries_read) = group_options(args, true)?;
    let mut stream = StreamEdit::open(txn, args.bytes(2)?)?;
    if !stream.exists() && !makes_stream {
        return Err(CommandError::XGROUP_NO_KEY);
    }
    let last_id = match &args.bytes(4)?[..] {
        b"$" => stream.meta.last_id,
        id => parse_id(id)?,
    };
    let name = args.bytes(3)?;
    let place = stream.place(txn);
    if Group::get(txn, &place, name)?.is_some() {
        return Err(CommandError::BUSYGROUP);
    }
    let number = stream.meta.next_group;
    GroupEdit::create(place, name, number, last_id, entries_read).finish(txn)?;
    stream.meta.next_group += 1;
    stream.meta.groups += 1;
    stream.touch();
    stream.finish(txn);
    note(txn, "xgroup-create", args.bytes(2)?);
    Ok(Reply::OK)
}

/// The stream and the group of an XGROUP subcommand that needs both.
fn existing<'k>(
    txn: &mut Txn<'_>,
    args: Args<'k>,
) -> Result<(StreamEdit<'k>, GroupEdit), CommandError> {
    let (key, name) = (args.bytes(2)?, args.bytes(3)?);
    if Stream::read(txn, key)?.is_none() {
        return Err(CommandError::XGROUP_NO_KEY);
    }
    let missing = || CommandError::NoGroupNamed(Echo::new(name), Echo::new(key));
    open_group(txn, key, name, missing)
}

pub(crate) fn setid(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (_, entries_read) = group_options(args, false)?;
    let (mut stream, mut group) = existing(txn, args)?;
    group.group.last_id = match &args.bytes(4)?[..] {
        b"$" => stream.meta.last_id,
        id => parse_any_id(id, 0)?,
    };
    group.group.entries_read = entries_read;
    group.finish(txn)?;
    stream.touch();
    stream.finish(txn);
    note(txn, "xgroup-setid", args.bytes(2)?);
    Ok(Reply::OK)
}

pub(crate) fn destroy(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (mut stream, group) = match existing(txn, args) {
        Err(CommandError::NoGroupNamed(..)) => return Ok(Reply::Integer(0)),
        opened => opened?,
    };
    group.destroy(txn)?;
    stream.meta.groups = stream.meta.groups.saturating_sub(1);
    stream.touch();
    stream.finish(txn);
    note(txn, "xgroup-destroy", args.bytes(2)?);
    Ok(Reply::Integer(1))
}

pub(crate) fn createconsumer(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (mut stream, mut group) = existing(txn, args)?;
    let created = group.create_consumer(txn, args.bytes(4)?)?;
    if created {
        group.finish(txn)?;
        stream.touch();
        stream.finish(txn);
        note(txn, "xgroup-createconsumer", args.bytes(2)?);
    }
    Ok(Reply::Integer(i64::from(created)))
}

pub(crate) fn delconsumer(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (mut stream, mut group) = existing(txn, args)?;
    let Some(pending) = group.delete_consumer(txn, args.bytes(4)?)? else {
        return Ok(Reply::Integer(0));
    };
    group.finish(txn)?;
    stream.touch();
    stream.finish(txn);
    note(txn, "xgroup-delconsumer", args.bytes(2)?);
    Ok(integer(pending))
}

/// The lines of XGROUP HELP; the router sends it.
pub const XGROUP_HELP: &[&str] = &[
    "CREATE <key> <groupname> <id|$> [option]",
    "    Create a new consumer group. Options are:",
    "    * MKSTREAM",
    "      Create the empty stream if it does not exist.",
    "    * ENTRIESREAD entries_read",
    "      Set the group's entries_read counter (internal use).",
    "CREATECONSUMER <key> <groupname> <consumer>",
    "    Create a new consumer in the specified group.",
    "DELCONSUMER <key> <groupname> <consumer>",
    "    Remove the specified consumer.",
    "DESTROY <key> <groupname>",
    "    Remove the specified group.",
    "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
    "    Set the current group ID and entries_read counter.",
];
