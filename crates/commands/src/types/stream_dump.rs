//! Streams as Redis's RDB files write them.
//!
//! ```text
//! 21 stream  nodes:length { string: id as 16 bytes, string: listpack }
//!            count last_id [first_id max_deleted_id entries_added]          not in 15
//!            groups:length { string: name, last_id [entries_read]           not in 15
//!              pending:length { id as 16 bytes, delivered_ms:i64, deliveries }
//!              consumers:length { string: name, seen_ms:i64 [active_ms:i64]    only in 21
//!                pending:length { id as 16 bytes } } }
//! 19, 15     as marked
//! id         = ms seq, each written like a length; times are little-endian
//! listpack   = count deleted fields { name } 0 { entry }       numbers as integers
//! entry      = flags ms_after seq_after [fields] { [name] value } elements
//! flags      = DELETED 1 | SAME_FIELDS 2: the names are those in front, and fields is left out
//! ```
//!
//! Written is type 21 (Redis 7.2), read are all three.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};

use crate::args::{int_text, parse_int};
use crate::error::CommandError;
use crate::txn::Txn;
use crate::types::dump::{put_length, put_string, read_length, read_number, read_string, take};
use crate::types::header::Value;
use crate::types::listpack;
use crate::types::stream::{Entry, Id, Stream};
use crate::types::stream_edit::StreamEdit;
use crate::types::stream_groups::{Group, GroupEdit};
use crate::view::{Direction, ViewError};

const TYPE_STREAM_1: u8 = 15;
const TYPE_STREAM_2: u8 = 19;
const TYPE_STREAM_3: u8 = 21;

/// Redis's `stream-node-max-entries`.
const NODE_ENTRIES_MAX: usize = 100;
/// Redis's `stream-node-max-bytes`.
const NODE_BYTES_MAX: usize = 4_096;

const FLAG_DELETED: i64 = 1;
const FLAG_SAME_FIELDS: i64 = 2;

/// What Redis writes for a number of entries read that is not known, and for a time that is none.
const UNKNOWN: u64 = u64::MAX;

/// A stream outside the store.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct StreamDump {
    entries: Vec<Entry>,
    last_id: Id,
    max_deleted_id: Id,
    entries_added: u64,
    groups: Vec<GroupDump>,
}

#[derive(Clone, PartialEq, Debug)]
struct GroupDump {
    name: Bytes,
    last_id: Id,
    entries_read: Option<u64>,
    /// When delivered, how often.
    pending: BTreeMap<Id, (u64, u64)>,
    consumers: Vec<ConsumerDump>,
}

#[derive(Clone, PartialEq, Debug)]
struct ConsumerDump {
    name: Bytes,
    seen_ms: u64,
    active_ms: Option<u64>,
    pending: Vec<Id>,
}

impl StreamDump {
    /// A stored stream.
    pub(crate) fn of(stream: &Stream<'_>) -> Result<StreamDump, ViewError> {
        let (view, place) = (stream.view(), &stream.place);
        let entries = stream.range((Id::MIN, Id::MAX), usize::MAX, Direction::Forward)?;
        let mut groups = Vec::new();
        for group in Group::all(view, place)? {
            let mut pending = BTreeMap::new();
            group.visit_pending(view, place, Id::MIN, &mut |one| {
                pending.insert(one.id, (one.delivered_ms, one.deliveries));
                std::ops::ControlFlow::Continue(())
            })?;
            let mut consumers = Vec::new();
            for consumer in group.all_consumers(view, place)? {
                consumers.push(ConsumerDump {
                    name: consumer.name.clone(),
                    seen_ms: consumer.seen_ms,
                    active_ms: consumer.active_ms,
                    pending: group.owned(view, place, &consumer, Id::MIN, usize::MAX)?,
                });
            }
            let Group { name, last_id, entries_read, .. } = group;
            groups.push(GroupDump { name, last_id, entries_read, pending, consumers });
        }
        Ok(StreamDump {
            entries,
            last_id: stream.meta.last_id,
            max_deleted_id: stream.meta.max_deleted_id,
            entries_added: stream.meta.entries_added,
            groups,
        })
    }

    /// Writes type and value.
    pub(crate) fn write(&self, out: &mut BytesMut) {
        out.put_u8(TYPE_STREAM_3);
        let nodes = self.nodes();
        put_length(out, nodes.len() as u64);
        for node in nodes {
            put_length(out, 16);
            out.put_slice(&node[0].id.to_bytes());
            put_string(out, &write_node(node));
        }
        put_length(out, self.entries.len() as u64);
        put_id(out, self.last_id);
        put_id(out, self.entries.first().map_or(Id::MIN, |entry| entry.id));
        put_id(out, self.max_deleted_id);
        put_length(out, self.entries_added);
        put_length(out, self.groups.len() as u64);
        for group in &self.groups {
            put_string(out, &group.name);
            put_id(out, group.last_id);
            put_length(out, group.entries_read.unwrap_or(UNKNOWN));
            put_length(out, group.pending.len() as u64);
            for (id, (delivered_ms, deliveries)) in &group.pending {
                out.put_slice(&id.to_bytes());
                out.put_u64_le(*delivered_ms);
                put_length(out, *deliveries);
            }
            put_length(out, group.consumers.len() as u64);
            for consumer in &group.consumers {
                put_string(out, &consumer.name);
                out.put_u64_le(consumer.seen_ms);
                out.put_u64_le(consumer.active_ms.unwrap_or(UNKNOWN));
                put_length(out, consumer.pending.len() as u64);
                for id in &consumer.pending {
                    out.put_slice(&id.to_bytes());
                }
            }
        }
    }

    /// The entries as Redis would have spread them over nodes.
    fn nodes(&self) -> Vec<&[Entry]> {
        let (mut nodes, mut start, mut bytes) = (Vec::new(), 0, 0);
        for (at, entry) in self.entries.iter().enumerate() {
            if at > start && (at - start >= NODE_ENTRIES_MAX || bytes >= NODE_BYTES_MAX) {
                nodes.push(&self.entries[start..at]);
                (start, bytes) = (at, 0);
            }
            bytes += entry.fields.iter().map(Bytes::len).sum::<usize>();
        }
        if start < self.entries.len() {
            nodes.push(&self.entries[start..]);
        }
        nodes
    }

    /// The value, for the key at which it is about to be stored.
    pub(crate) fn into_value(self, txn: &mut Txn<'_>, key: &[u8]) -> Result<Value, CommandError> {
        let mut stream = StreamEdit::nothing(txn, key)?;
        let place = stream.place(txn);
        for entry in &self.entries {
            stream.append(txn, entry.id, &entry.fields);
        }
        for (number, dump) in self.groups.iter().enumerate() {
            let read = dump.entries_read;
            let mut group = GroupEdit::create(place, &dump.name, number as u64, dump.last_id, read);
            for consumer in &dump.consumers {
                group.create_consumer(txn, &consumer.name)?;
                if let Some(stored) = group.consumer(txn, &consumer.name)? {
                    (stored.seen_ms, stored.active_ms) = (consumer.seen_ms, consumer.active_ms);
                }
                for id in &consumer.pending {
                    let (delivered_ms, deliveries) = dump.pending[id];
                    group.give(txn, &consumer.name, *id, (delivered_ms, deliveries))?;
                }
            }
            group.finish(txn)?;
        }
        let groups = self.groups.len() as u64;
        stream.meta.last_id = self.last_id;
        stream.meta.max_deleted_id = self.max_deleted_id;
        stream.meta.entries_added = self.entries_added;
        (stream.meta.groups, stream.meta.next_group) = (groups, groups);
        Ok(stream.value(place))
    }
}

fn write_node(entries: &[Entry]) -> BytesMut {
    let names = |entry: &Entry| entry.fields.iter().step_by(2).cloned().collect::<Vec<Bytes>>();
    let number = |value: usize| int_text(i64::try_from(value).unwrap_or(i64::MAX));
    let Some(first) = entries.first() else { return listpack::write(std::iter::empty()) };
    let master = names(first);
    let mut out = vec![number(entries.len()), number(0), number(master.len())];
    out.extend(master.iter().cloned());
    out.push(number(0));
    for entry in entries {
        let count = entry.fields.len() / 2;
        let same = names(entry) == master;
        out.push(int_text(if same { FLAG_SAME_FIELDS } else { 0 }));
        out.push(int_text(entry.id.ms.wrapping_sub(first.id.ms) as i64));
        out.push(int_text(entry.id.seq.wrapping_sub(first.id.seq) as i64));
        if same {
            out.extend(entry.fields.iter().skip(1).step_by(2).cloned());
            out.push(number(count + 3));
        } else {
            out.push(number(count));
            out.extend(entry.fields.iter().cloned());
            out.push(number(2 * count + 4));
        }
    }
    listpack::write(out.iter().map(|element| &element[..]))
}

fn put_id(out: &mut BytesMut, id: Id) {
    put_length(out, id.ms);
    put_length(out, id.seq);
}

/// Whether it is the type of a stream.
pub(crate) fn is_type(kind: u8) -> bool {
    matches!(kind, TYPE_STREAM_1 | TYPE_STREAM_2 | TYPE_STREAM_3)
}

/// Reads the value of a type; `None` if that is no stream's, or if it is damaged.
pub(crate) fn read(kind: u8, input: &mut &[u8]) -> Option<StreamDump> {
    if !is_type(kind) {
        return None;
    }
    let nodes = read_length(input)?;
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..nodes {
        let id = read_string(input)?;
        let first = Id::from_bytes(id.as_ref().try_into().ok()?);
        let before = entries.len();
        read_node(first, listpack::read(&read_string(input)?)?, &mut entries)?;
        // Redis keeps no node without entries.
        if entries.len() == before {
            return None;
        }
    }
    let count = read_number(input)?;
    let last_id = read_id(input)?;
    let top_id = entries.last().map_or(Id::MIN, |entry| entry.id);
    let ascending = entries.is_sorted_by(|a, b| a.id < b.id);
    if !ascending || count != entries.len() as u64 || top_id > last_id {
        return None;
    }
    let (mut max_deleted_id, mut entries_added) = (Id::MIN, count);
    if kind != TYPE_STREAM_1 {
        let _first_id = read_id(input)?;
        max_deleted_id = read_id(input)?;
        entries_added = read_number(input)?;
    }
    let mut groups: Vec<GroupDump> = Vec::new();
    for _ in 0..read_length(input)? {
        groups.push(read_group(kind, input)?);
    }
    if kind == TYPE_STREAM_1 {
        for group in &mut groups {
            group.entries_read = entries_up_to(&entries, last_id, group.last_id);
        }
    }
    let names: BTreeSet<&Bytes> = groups.iter().map(|group| &group.name).collect();
    if names.len() < groups.len() {
        return None;
    }
    Some(StreamDump { entries, last_id, max_deleted_id, entries_added, groups })
}

/// How many entries a group has read of a stream that does not say how many there ever were, if that
/// can be told.
fn entries_up_to(entries: &[Entry], last_id: Id, id: Id) -> Option<u64> {
    let count = entries.len() as u64;
    match entries.first() {
        None => Some(0),
        Some(_) if id == last_id => Some(count),
        Some(first) if id < first.id => Some(0),
        Some(first) if id == first.id => Some(1),
        Some(_) => None,
    }
}

fn read_node(first: Id, elements: Vec<Bytes>, entries: &mut Vec<Entry>) -> Option<()> {
    let mut elements = elements.into_iter();
    let number = |elements: &mut std::vec::IntoIter<Bytes>| parse_int(&elements.next()?);
    let (live, deleted) = (number(&mut elements)?, number(&mut elements)?);
    let fields = usize::try_from(number(&mut elements)?).ok()?;
    if fields > elements.len() {
        return None;
    }
    let master: Vec<Bytes> = elements.by_ref().take(fields).collect();
    if number(&mut elements)? != 0 {
        return None;
    }
    let (mut kept, mut gone) = (0, 0);
    while elements.len() > 0 {
        let flags = number(&mut elements)?;
        let ms = first.ms.wrapping_add(number(&mut elements)? as u64);
        let seq = first.seq.wrapping_add(number(&mut elements)? as u64);
        let mut texts = Vec::new();
        let mut parts = 3;
        if flags & FLAG_SAME_FIELDS != 0 {
            for name in &master {
                texts.extend([name.clone(), elements.next()?]);
            }
            parts += master.len();
        } else {
            let count = usize::try_from(number(&mut elements)?).ok()?;
            let count = count.checked_mul(2).filter(|count| *count <= elements.len())?;
            texts.extend(elements.by_ref().take(count));
            parts += 1 + count;
        }
        if number(&mut elements)? != i64::try_from(parts).ok()? {
            return None;
        }
        if flags & FLAG_DELETED != 0 {
            gone += 1;
        } else {
            kept += 1;
            entries.push(Entry { id: Id { ms, seq }, fields: texts });
        }
    }
    (kept == live && gone == deleted).then_some(())
}

fn read_group(kind: u8, input: &mut &[u8]) -> Option<GroupDump> {
    let name = read_string(input)?;
    let last_id = read_id(input)?;
    let entries_read = match kind {
        TYPE_STREAM_1 => None,
        _ => Some(read_number(input)?).filter(|read| i64::try_from(*read).is_ok()),
    };
    let mut pending = BTreeMap::new();
    for _ in 0..read_length(input)? {
        let id = Id::from_bytes(take(input)?);
        let delivered_ms = u64::from_le_bytes(take(input)?);
        let deliveries = read_number(input)?;
        if pending.insert(id, (delivered_ms, deliveries)).is_some() {
            return None;
        }
    }
    let mut owned = BTreeSet::new();
    let mut consumers: Vec<ConsumerDump> = Vec::new();
    for _ in 0..read_length(input)? {
        let name = read_string(input)?;
        let seen_ms = u64::from_le_bytes(take(input)?);
        let active_ms = match kind {
            // Redis takes the one for the other.
            TYPE_STREAM_3 => Some(u64::from_le_bytes(take(input)?)).filter(|at| *at != UNKNOWN),
            _ => Some(seen_ms),
        };
        let mut ids = Vec::new();
        for _ in 0..read_length(input)? {
            let id = Id::from_bytes(take(input)?);
            if !pending.contains_key(&id) || !owned.insert(id) {
                return None;
            }
            ids.push(id);
        }
        consumers.push(ConsumerDump { name, seen_ms, active_ms, pending: ids });
    }
    let names: BTreeSet<&Bytes> = consumers.iter().map(|consumer| &consumer.name).collect();
    let whole = owned.len() == pending.len() && names.len() == consumers.len();
    whole.then_some(GroupDump { name, last_id, entries_read, pending, consumers })
}

fn read_id(input: &mut &[u8]) -> Option<Id> {
    Some(Id { ms: read_number(input)?, seq: read_number(input)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn some_dump(random: &mut Random) -> StreamDump {
        let mut id = Id { ms: random.next() % 1_000, seq: 0 };
        let mut entries = Vec::new();
        for _ in 0..random.below(300) {
            id = match random.below(3) {
                0 => Id { ms: id.ms + 1 + random.next() % 5_000_000_000, seq: random.next() % 9 },
                _ => id.next().expect("far from the end"),
            };
            let names = if random.below(9) == 0 { ["a", "other"] } else { ["a", "b"] };
            let fields = names.into_iter().flat_map(|name| {
                [Bytes::from(name), Bytes::from((random.next() % 300).to_string())]
            });
            entries.push(Entry { id, fields: fields.collect() });
        }
        let pending: BTreeMap<Id, (u64, u64)> =
            entries.iter().step_by(3).map(|entry| (entry.id, (5, 1))).collect();
        let ids: Vec<Id> = pending.keys().copied().collect();
        let (one, other) = ids.split_at(ids.len() / 2);
        let consumer = |name: &'static str, pending: &[Id], active_ms| ConsumerDump {
            name: Bytes::from(name),
            seen_ms: 7,
            active_ms,
            pending: pending.to_vec(),
        };
        let consumers = vec![consumer("one", one, Some(3)), consumer("other", other, None)];
        let name = Bytes::from_static(b"group");
        let group = GroupDump { name, last_id: id, entries_read: Some(4), pending, consumers };
        let (max_deleted_id, entries_added) = (Id { ms: 1, seq: 1 }, 1_000);
        StreamDump { entries, last_id: id, max_deleted_id, entries_added, groups: vec![group] }
    }

    #[test]
    fn streams_round_trip() {
        let mut random = Random::new(51);
        for _ in 0..500 {
            let dump = some_dump(&mut random);
            let mut out = BytesMut::new();
            dump.write(&mut out);
            let (kind, mut input) = out.split_first().expect("a type");
            assert_eq!(read(*kind, &mut input), Some(dump));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn damage_never_panics() {
        let mut random = Random::new(52);
        for _ in 0..5_000 {
            let mut out = BytesMut::new();
            some_dump(&mut random).write(&mut out);
            let kind = *random.pick(&[15, 19, 21, 21, 21]);
            for _ in 0..1 + random.below(3) {
                let at = random.below(out.len());
                out[at] = random.next() as u8;
            }
            let length = out.len() - random.below(out.len().min(4));
            read(kind, &mut &out[1..length]);
        }
    }
}
