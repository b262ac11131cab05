//! XINFO: what a stream and its groups are like. Its rows stand in families/stream.rs.

use std::ops::ControlFlow;

use bytes::Bytes;
use wire::resp::Reply;

use crate::args::{Args, parse_int};
use crate::error::{CommandError, Echo};
use crate::families::stream::{entry_reply, id_reply};
use crate::families::stream_group::{idle_ms, integer, syntax_of};
use crate::types::stream::{Id, Stream};
use crate::types::stream_groups::{Consumer, Group};
use crate::view::{Direction, View};

/// What XINFO STREAM FULL lists of each kind if no COUNT is given.
const FULL_COUNT_DEFAULT: usize = 10;

fn named(fields: Vec<(&'static str, Reply)>) -> Reply {
    let name = |name: &'static str| Reply::Bulk(Bytes::from_static(name.as_bytes()));
    Reply::Map(fields.into_iter().map(|(field, value)| (name(field), value)).collect())
}

fn existing_stream<'v>(view: &'v dyn View, args: Args<'_>) -> Result<Stream<'v>, CommandError> {
    Stream::read(view, args.bytes(2)?)?.ok_or(CommandError::NoSuchKey)
}

pub(crate) fn info_groups(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let stream = existing_stream(view, args)?;
    let mut replies = Vec::new();
    for group in Group::all(view, &stream.place)? {
        replies.push(named(vec![
            ("name", Reply::Bulk(group.name.clone())),
            ("consumers", integer(group.consumers)),
            ("pending", integer(group.pending)),
            ("last-delivered-id", id_reply(group.last_id)),
            ("entries-read", group.entries_read.map_or(Reply::Null, integer)),
            ("lag", lag(&stream, &group)?),
        ]));
    }
    Ok(Reply::Array(replies))
}

pub(crate) fn info_consumers(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let stream = existing_stream(view, args)?;
    let (key, name) = (args.bytes(2)?, args.bytes(3)?);
    let group = Group::get(view, &stream.place, name)?
        .ok_or_else(|| CommandError::NoGroupNamed(Echo::new(name), Echo::new(key)))?;
    let consumer = |consumer: Consumer| {
        let inactive = consumer.active_ms.map_or(-1, |at| idle_ms(view, at));
        named(vec![
            ("name", Reply::Bulk(consumer.name)),
            ("pending", integer(consumer.pending)),
            ("idle", Reply::Integer(idle_ms(view, consumer.seen_ms).max(0))),
            ("inactive", Reply::Integer(inactive)),
        ])
    };
    let consumers = group.all_consumers(view, &stream.place)?;
    Ok(Reply::Array(consumers.into_iter().map(consumer).collect()))
}

/// How many entries the group has not read yet; null if that cannot be told.
fn lag(stream: &Stream<'_>, group: &Group) -> Result<Reply, CommandError> {
    let added = stream.meta.entries_added;
    let behind_all = |first: Id| group.last_id < first && stream.meta.max_deleted_id < first;
    let read = if added == 0 || stream.count == 0 {
        Some(added)
    } else if behind_all(stream.first_id()?) {
        return Ok(integer(stream.count));
    } else if group.entries_read.is_some() && !stream.has_deleted_from(group.last_id) {
        group.entries_read
    } else {
        stream.entries_up_to(group.last_id)?
    };
    let lag = read.map(|read| Reply::Integer((added as i64).wrapping_sub(read as i64)));
    Ok(lag.unwrap_or(Reply::Null))
}

pub(crate) fn info_stream(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    let stream = existing_stream(view, args)?;
    let refused = || syntax_of(args, "XINFO");
    let full = match args.from(3) {
        [] => None,
        [full, rest @ ..] if full.eq_ignore_ascii_case(b"FULL") => match rest {
            [] => Some(FULL_COUNT_DEFAULT),
            [word, count] if word.eq_ignore_ascii_case(b"COUNT") => {
                let count = parse_int(count).ok_or(CommandError::NotInteger)?;
                // None is all, and less than none the default.
                Some(match usize::try_from(count) {
                    Ok(0) => usize::MAX,
                    Ok(count) => count,
                    Err(_) => FULL_COUNT_DEFAULT,
                })
            }
            _ => return Err(refused()),
        },
        _ => return Err(refused()),
    };
    let chunks = stream.meta.chunks + u64::from(!stream.tail.is_empty());
    let mut fields = vec![
        ("length", integer(stream.count)),
        // Redis's words for where entries lie: chunks here, and the header.
        ("radix-tree-keys", integer(chunks)),
        ("radix-tree-nodes", integer(chunks + 1)),
        ("last-generated-id", id_reply(stream.meta.last_id)),
        ("max-deleted-entry-id", id_reply(stream.meta.max_deleted_id)),
        ("entries-added", integer(stream.meta.entries_added)),
        ("recorded-first-entry-id", id_reply(stream.first_id()?)),
    ];
    let all = (Id::MIN, Id::MAX);
    match full {
        None => {
            let edge = |direction| -> Result<Reply, CommandError> {
                let entry = stream.range(all, 1, direction)?.pop();
                Ok(entry.map_or(Reply::Null, entry_reply))
            };
            fields.push(("groups", integer(stream.meta.groups)));
            fields.push(("first-entry", edge(Direction::Forward)?));
            fields.push(("last-entry", edge(Direction::Backward)?));
        }
        Some(count) => {
            let entries = stream.range(all, count, Direction::Forward)?;
            let entries = entries.into_iter().map(entry_reply).collect();
            fields.push(("entries", Reply::Array(entries)));
            let groups = Group::all(view, &stream.place)?;
            let groups = groups.iter().map(|group| full_group(&stream, group, count));
            fields.push(("groups", Reply::Array(groups.collect::<Result<_, _>>()?)));
        }
    }
    Ok(named(fields))
}

fn full_group(stream: &Stream<'_>, group: &Group, count: usize) -> Result<Reply, CommandError> {
    let (view, place) = (stream.view(), &stream.place);
    let mut pending = Vec::new();
    group.visit_pending(view, place, Id::MIN, &mut |one| {
        pending.push(Reply::Array(vec![
            id_reply(one.id),
            Reply::Bulk(one.consumer),
            integer(one.delivered_ms),
            integer(one.deliveries),
        ]));
        if pending.len() < count { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    let mut consumers = Vec::new();
    for consumer in group.all_consumers(view, place)? {
        let mut owned = Vec::new();
        for id in group.owned(view, place, &consumer, Id::MIN, count)? {
            let Some(one) = group.pending(view, place, id)? else { continue };
            let line = [id_reply(id), integer(one.delivered_ms), integer(one.deliveries)];
            owned.push(Reply::Array(line.to_vec()));
        }
        let active = consumer.active_ms.map_or(Reply::Integer(-1), integer);
        consumers.push(named(vec![
            ("name", Reply::Bulk(consumer.name)),
            ("seen-time", integer(consumer.seen_ms)),
            ("active-time", active),
            ("pel-count", integer(consumer.pending)),
            ("pending", Reply::Array(owned)),
        ]));
    }
    Ok(named(vec![
        ("name", Reply::Bulk(group.name.clone())),
        ("last-delivered-id", id_reply(group.last_id)),
        ("entries-read", group.entries_read.map_or(Reply::Null, integer)),
        ("lag", lag(stream, group)?),
        ("pel-count", integer(group.pending)),
        ("pending", Reply::Array(pending)),
        ("consumers", Reply::Array(consumers)),
    ]))
}

/// The lines of XINFO HELP; the router sends it.
pub const XINFO_HELP: &[&str] = &[
    "CONSUMERS <key> <groupname>",
    "    Show consumers of <groupname>.",
    "GROUPS <key>",
    "    Show the stream consumer groups.",
    "STREAM <key> [FULL [COUNT <count>]",
    "    Show information about the stream.",
];
