//! Sets as Redis's RDB files write them.
//!
//! ```text
//! 2  table     length { member }                           strings of types/dump.rs
//! 11 intset    string: width:u32 count:u32 { number }      little-endian, `width` bytes each, ascending
//! 20 listpack  string: a listpack of the members           (since 7.2)
//! ```

use std::collections::HashSet;

use bytes::{BufMut, Bytes, BytesMut};

use crate::args::{int_text, parse_int};
use crate::types::dump::{VERSION_OF_7_0, VERSION_OF_7_2};
use crate::types::dump::{put_length, put_string, read_length, read_string, take};
use crate::types::listpack;
use crate::types::set::{Encoding, INTSET_MEMBERS_MAX, LISTPACK_MEMBERS_MAX, Set};
use crate::view::ViewError;

const TYPE_TABLE: u8 = 2;
const TYPE_INTSET: u8 = 11;
const TYPE_LISTPACK: u8 = 20;

/// A set outside the store.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct SetDump {
    pub(crate) members: Vec<Bytes>,
    pub(crate) encoding: Encoding,
}

impl SetDump {
    /// A stored set.
    pub(crate) fn of(set: &Set<'_>) -> Result<SetDump, ViewError> {
        Ok(SetDump { members: set.all()?, encoding: set.encoding })
    }

    /// Writes type and value; the version of the format that has the type.
    pub(crate) fn write(&self, out: &mut BytesMut) -> u16 {
        match self.encoding {
            Encoding::Intset => {
                out.put_u8(TYPE_INTSET);
                put_string(out, &intset(&self.members));
                VERSION_OF_7_0
            }
            Encoding::Listpack => {
                out.put_u8(TYPE_LISTPACK);
                put_string(out, &listpack::write(self.members.iter().map(|member| &member[..])));
                VERSION_OF_7_2
            }
            Encoding::Table => {
                out.put_u8(TYPE_TABLE);
                put_length(out, self.members.len() as u64);
                for member in &self.members {
                    put_string(out, member);
                }
                VERSION_OF_7_0
            }
        }
    }
}

fn intset(members: &[Bytes]) -> BytesMut {
    let numbers: Vec<i64> = members.iter().filter_map(|member| parse_int(member)).collect();
    let fits = |low: i64, high: i64| numbers.iter().all(|number| (low..=high).contains(number));
    let width: usize = match () {
        () if fits(i64::from(i16::MIN), i64::from(i16::MAX)) => 2,
        () if fits(i64::from(i32::MIN), i64::from(i32::MAX)) => 4,
        () => 8,
    };
    let mut out = BytesMut::with_capacity(8 + width * numbers.len());
    out.put_u32_le(width as u32);
    out.put_u32_le(numbers.len() as u32);
    for number in numbers {
        out.put_slice(&number.to_le_bytes()[..width]);
    }
    out
}

/// Whether it is the type of a set.
pub(crate) fn is_type(kind: u8) -> bool {
    matches!(kind, TYPE_TABLE | TYPE_INTSET | TYPE_LISTPACK)
}

/// Reads the value of a type; `None` if that is no set's, or if it is damaged.
pub(crate) fn read(kind: u8, input: &mut &[u8]) -> Option<SetDump> {
    let dump = match kind {
        TYPE_TABLE => read_table(input)?,
        TYPE_INTSET => read_intset(&read_string(input)?)?,
        TYPE_LISTPACK => {
            let members = listpack::read(&read_string(input)?)?;
            let small = members.len() as u64 <= LISTPACK_MEMBERS_MAX;
            let encoding = if small { Encoding::Listpack } else { Encoding::Table };
            SetDump { members, encoding }
        }
        _ => return None,
    };
    let mut seen = HashSet::with_capacity(dump.members.len());
    let distinct = dump.members.iter().all(|member| seen.insert(member));
    (distinct && !dump.members.is_empty()).then_some(dump)
}

fn read_table(input: &mut &[u8]) -> Option<SetDump> {
    let count = read_length(input)?;
    let small = count as u64 <= INTSET_MEMBERS_MAX;
    let mut encoding = if small { Encoding::Intset } else { Encoding::Table };
    let mut members = Vec::new();
    for at in 0..count {
        let member = read_string(input)?;
        encoding = encoding.with(at as u64, &member);
        members.push(member);
    }
    Some(SetDump { members, encoding })
}

fn read_intset(intset: &[u8]) -> Option<SetDump> {
    let mut input = intset;
    let width = u32::from_le_bytes(take(&mut input)?) as usize;
    let count = u32::from_le_bytes(take(&mut input)?) as usize;
    if !matches!(width, 2 | 4 | 8) || input.len() != count.checked_mul(width)? {
        return None;
    }
    let numbers: Vec<i64> = input
        .chunks_exact(width)
        .map(|number| match *number {
            [a, b] => i64::from(i16::from_le_bytes([a, b])),
            [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
            _ => number.try_into().map_or(0, i64::from_le_bytes),
        })
        .collect();
    let small = count as u64 <= INTSET_MEMBERS_MAX;
    let encoding = if small { Encoding::Intset } else { Encoding::Table };
    let ascending = numbers.is_sorted_by(|a, b| a < b);
    let members = numbers.into_iter().map(int_text).collect();
    ascending.then_some(SetDump { members, encoding })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn some_dump(random: &mut Random) -> SetDump {
        let count = 1 + random.below(700);
        let shift = random.below(60);
        let mut members: HashSet<Bytes> = HashSet::new();
        let texts = random.below(2) == 0;
        for _ in 0..count {
            let number = (random.next() as i64) >> shift;
            members.insert(match texts && random.below(3) == 0 {
                true => Bytes::from(random.bytes(70)),
                false => int_text(number),
            });
        }
        let mut members: Vec<Bytes> = members.into_iter().collect();
        let encoding = Encoding::of_intersection(&members);
        if encoding == Encoding::Intset {
            members.sort_by_cached_key(|member| parse_int(member));
        }
        SetDump { members, encoding }
    }

    #[test]
    fn sets_round_trip() {
        let mut random = Random::new(31);
        let mut kinds = HashSet::new();
        for _ in 0..2_000 {
            let dump = some_dump(&mut random);
            let mut out = BytesMut::new();
            dump.write(&mut out);
            let (kind, mut input) = out.split_first().expect("a type");
            kinds.insert(*kind);
            assert_eq!(read(*kind, &mut input), Some(dump));
            assert!(input.is_empty() && is_type(*kind));
        }
        assert_eq!(kinds.len(), 3, "each way of writing was tried");
    }

    #[test]
    fn damage_never_panics_and_doubles_are_refused() {
        let mut random = Random::new(32);
        for _ in 0..20_000 {
            let mut out = BytesMut::new();
            some_dump(&mut random).write(&mut out);
            let kind = *random.pick(&[2, 11, 20, out[0], out[0]]);
            let at = random.below(out.len().min(40));
            out[at] = random.next() as u8;
            let length = out.len() - random.below(out.len().min(4));
            read(kind, &mut &out[1..length]);
        }
        assert_eq!(read(TYPE_TABLE, &mut &b"\x02\x01a\x01a"[..]), None);
        assert_eq!(read(TYPE_TABLE, &mut &b"\x00"[..]), None);
        assert_eq!(read(TYPE_INTSET, &mut &b"\x0c\x02\0\0\0\x02\0\0\0\x01\0\x01\0"[..]), None);
        assert_eq!(read(TYPE_INTSET, &mut &b"\x0a\x02\0\0\0\x02\0\0\0\x01\0"[..]), None);
    }
}
