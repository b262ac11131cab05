//! Hashes as Redis's RDB files write them.
//!
//! ```text
//! 4  table        length { field value }                            strings of types/dump.rs
//! 13 ziplist      string: a ziplist of fields and values            (before 7.0)
//! 16 listpack     string: a listpack of fields and values
//! 22 timed table  length { expire_at_ms:length field value }        0: none; (before 7.4.0)
//! 23 timed pack   string: a listpack of fields, values and expire_at_ms
//! 24 timed table  earliest_ms:i64 length { time:length field value }
//!                 time: 0 none, else expire_at_ms - earliest_ms + 1
//! 25 timed pack   earliest_ms:i64 string: a listpack as of 23, soonest first, those without last
//! ```
//!
//! What Redis would keep as a table is written as one, so that OBJECT ENCODING survives. A hash
//! whose fields have no times is written in the types of Redis 7.0.

use std::collections::HashSet;

use bytes::{BufMut, Bytes, BytesMut};

use crate::args::{int_text, parse_int};
use crate::types::dump::{put_length, put_string, read_length, read_number, read_string, take};
use crate::types::hash::{Entry, Hash, LISTPACK_FIELDS_MAX, LISTPACK_TEXT_BYTES_MAX};
use crate::types::{listpack, ziplist};
use crate::view::ViewError;

const TYPE_TABLE: u8 = 4;
const TYPE_ZIPLIST: u8 = 13;
const TYPE_LISTPACK: u8 = 16;
const TYPE_TIMED_TABLE_EARLY: u8 = 22;
const TYPE_TIMED_LISTPACK_EARLY: u8 = 23;
const TYPE_TIMED_TABLE: u8 = 24;
const TYPE_TIMED_LISTPACK: u8 = 25;

/// The latest time that Redis can keep of a field, in ms since the epoch.
const EXPIRE_AT_MS_MAX: u64 = (1 << 48) - 1;

/// A hash outside the store.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct HashDump {
    /// Its fields, hidden ones included.
    pub(crate) entries: Vec<Entry>,
    /// As Meta has it (types/hash.rs).
    pub(crate) is_table: bool,
    /// As Meta has it.
    pub(crate) is_timed: bool,
}

impl HashDump {
    /// A stored hash.
    pub(crate) fn of(hash: &Hash<'_>) -> Result<HashDump, ViewError> {
        let mut entries = Vec::new();
        hash.for_each(&mut |entry| {
            entries.push(entry);
            std::ops::ControlFlow::Continue(())
        })?;
        Ok(HashDump { entries, is_table: hash.meta.is_table, is_timed: hash.meta.is_timed })
    }

    /// Writes type and value; whether it took a type of Redis 7.4.
    pub(crate) fn write(mut self, out: &mut BytesMut) -> bool {
        let earliest = self.entries.iter().filter_map(|entry| entry.expire_at_ms).min();
        match (earliest, self.is_table) {
            (None, false) => {
                out.put_u8(TYPE_LISTPACK);
                let texts = self.entries.iter().flat_map(|entry| [&entry.field, &entry.value]);
                put_string(out, &listpack::write(texts.map(|text| &text[..])));
            }
            (None, true) => {
                out.put_u8(TYPE_TABLE);
                put_length(out, self.entries.len() as u64);
                for entry in &self.entries {
                    put_string(out, &entry.field);
                    put_string(out, &entry.value);
                }
            }
            (Some(earliest), false) => {
                self.entries.sort_by_key(|entry| entry.expire_at_ms.unwrap_or(u64::MAX));
                let texts = self.entries.into_iter().flat_map(|entry| {
                    let at = i64::try_from(entry.expire_at_ms.unwrap_or(0)).unwrap_or(i64::MAX);
                    [entry.field, entry.value, int_text(at)]
                });
                let texts: Vec<Bytes> = texts.collect();
                out.put_u8(TYPE_TIMED_LISTPACK);
                out.put_u64_le(earliest);
                put_string(out, &listpack::write(texts.iter().map(|text| &text[..])));
            }
            (Some(earliest), true) => {
                out.put_u8(TYPE_TIMED_TABLE);
                out.put_u64_le(earliest);
                put_length(out, self.entries.len() as u64);
                for entry in &self.entries {
                    let time = entry.expire_at_ms.map_or(0, |at| at - earliest + 1);
                    put_length(out, time);
                    put_string(out, &entry.field);
                    put_string(out, &entry.value);
                }
            }
        }
        earliest.is_some()
    }
}

/// Reads the value of a type; `None` if that is no hash's, or if it is damaged.
pub(crate) fn read(kind: u8, input: &mut &[u8]) -> Option<HashDump> {
    let dump = match kind {
        TYPE_TABLE => read_table(input, &mut |_| Some(None), false),
        TYPE_ZIPLIST => read_pack(ziplist::read(&read_string(input)?)?, false),
        TYPE_LISTPACK => read_pack(listpack::read(&read_string(input)?)?, false),
        TYPE_TIMED_TABLE_EARLY => {
            read_table(input, &mut |input| read_number(input).and_then(time), true)
        }
        TYPE_TIMED_LISTPACK_EARLY => read_pack(listpack::read(&read_string(input)?)?, true),
        TYPE_TIMED_TABLE => {
            let earliest = u64::from_le_bytes(take(input)?);
            let relative = &mut |input: &mut &[u8]| match read_number(input)? {
                0 => Some(None),
                after => time(earliest.checked_add(after - 1)?),
            };
            read_table(input, relative, true)
        }
        TYPE_TIMED_LISTPACK => {
            let _earliest = take::<8>(input)?;
            read_pack(listpack::read(&read_string(input)?)?, true)
        }
        _ => None,
    }?;
    let mut seen = HashSet::with_capacity(dump.entries.len());
    let distinct = dump.entries.iter().all(|entry| seen.insert(&entry.field));
    (distinct && !dump.entries.is_empty()).then_some(dump)
}

/// A time as it is written, 0 being none; the outer `None` if Redis cannot have written it.
fn time(at: u64) -> Option<Option<u64>> {
    (at <= EXPIRE_AT_MS_MAX).then_some(Some(at).filter(|at| *at != 0))
}

type ReadTime<'a> = dyn FnMut(&mut &[u8]) -> Option<Option<u64>> + 'a;

fn read_table(input: &mut &[u8], read_time: &mut ReadTime<'_>, is_timed: bool) -> Option<HashDump> {
    let count = read_length(input)?;
    let mut entries = Vec::new();
    // Two bytes at least are needed for each; nothing is reserved for what is not there.
    for _ in 0..count {
        let expire_at_ms = read_time(input)?;
        let (field, value) = (read_string(input)?, read_string(input)?);
        entries.push(Entry { field, value, expire_at_ms });
    }
    // Redis makes a small hash of it that becomes a table by its size alone.
    let is_large = |text: &Bytes| text.len() > LISTPACK_TEXT_BYTES_MAX;
    let is_table = count as u64 > LISTPACK_FIELDS_MAX
        || entries.iter().any(|entry| is_large(&entry.field) || is_large(&entry.value));
    Some(HashDump { entries, is_table, is_timed })
}

fn read_pack(elements: Vec<Bytes>, is_timed: bool) -> Option<HashDump> {
    let width = if is_timed { 3 } else { 2 };
    if !elements.len().is_multiple_of(width) {
        return None;
    }
    let mut entries = Vec::with_capacity(elements.len() / width);
    for tuple in elements.chunks_exact(width) {
        let expire_at_ms = match tuple.get(2) {
            Some(at) => time(u64::try_from(parse_int(at)?).ok()?)?,
            None => None,
        };
        let (field, value) = (tuple[0].clone(), tuple[1].clone());
        entries.push(Entry { field, value, expire_at_ms });
    }
    // Redis keeps the next to go first, those without a time last, and reads no other order.
    if !entries.is_sorted_by_key(|entry| entry.expire_at_ms.unwrap_or(u64::MAX)) {
        return None;
    }
    let is_table = entries.len() as u64 > LISTPACK_FIELDS_MAX;
    Some(HashDump { entries, is_table, is_timed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn some_dump(random: &mut Random) -> HashDump {
        let count = 1 + random.below(700);
        let timed = random.below(2) == 0;
        let long = random.below(4) == 0;
        let entries: Vec<Entry> = (0..count)
            .map(|number| Entry {
                field: Bytes::from(format!("field {number}")),
                value: match random.below(3) {
                    0 => Bytes::from(random.next().to_string()),
                    1 if long => Bytes::from(vec![b'v'; 65 + random.below(100)]),
                    _ => Bytes::from(random.bytes(65)),
                },
                expire_at_ms: (timed && random.below(2) == 0)
                    .then(|| 1 + random.next() % EXPIRE_AT_MS_MAX),
            })
            .collect();
        let is_table = count > 512 || entries.iter().any(|entry| entry.value.len() > 64);
        let is_timed = entries.iter().any(|entry| entry.expire_at_ms.is_some());
        HashDump { entries, is_table, is_timed }
    }

    #[test]
    fn hashes_round_trip() {
        let mut random = Random::new(21);
        let mut kinds = HashSet::new();
        for _ in 0..2_000 {
            let mut dump = some_dump(&mut random);
            let mut out = BytesMut::new();
            assert_eq!(dump.clone().write(&mut out), dump.is_timed);
            let (kind, mut input) = out.split_first().expect("a type");
            kinds.insert(*kind);
            let read = read(*kind, &mut input);
            if dump.is_timed && !dump.is_table {
                dump.entries.sort_by_key(|entry| entry.expire_at_ms.unwrap_or(u64::MAX));
            }
            assert_eq!(read, Some(dump));
            assert!(input.is_empty());
        }
        assert_eq!(kinds.len(), 4, "each way of writing was tried");
    }

    #[test]
    fn damage_never_panics_and_doubles_are_refused() {
        let mut random = Random::new(22);
        for _ in 0..20_000 {
            let mut out = BytesMut::new();
            some_dump(&mut random).write(&mut out);
            let kind = *random.pick(&[4, 13, 16, 22, 23, 24, 25, out[0], out[0]]);
            let at = random.below(out.len().min(40));
            out[at] = random.next() as u8;
            let length = out.len() - random.below(out.len().min(4));
            read(kind, &mut &out[1..length]);
        }
        assert_eq!(read(TYPE_TABLE, &mut &b"\x02\x01a\x01b\x01a\x01c"[..]), None);
        let pack = |times: [&'static str; 3]| {
            let tuples = times.iter().zip(["a", "b", "c"]).flat_map(|(at, name)| [name, name, at]);
            read_pack(tuples.map(Bytes::from).collect(), true)
        };
        assert!(pack(["5", "5", "0"]).is_some() && pack(["0", "0", "0"]).is_some());
        assert_eq!(pack(["6", "5", "0"]), None, "the next to go comes first");
        assert_eq!(pack(["0", "5", "6"]), None, "those without a time come last");
        assert_eq!(read(TYPE_TABLE, &mut &b"\x00"[..]), None);
        assert_eq!(read(TYPE_TABLE, &mut &b"\x80\xff\xff\xff\xff"[..]), None);
    }
}
