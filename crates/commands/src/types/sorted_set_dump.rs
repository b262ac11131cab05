//! Sorted sets as Redis's RDB files write them.
//!
//! ```text
//! 3  table        length { member score_text }             strings of types/dump.rs
//! 5  table        length { member score:f64 }              little-endian
//! 12 ziplist      string: a ziplist of members and scores  (before 7.0)
//! 17 listpack     string: a listpack of members and scores
//! score_text = length:u8 digits | 253 nan | 254 inf | 255 -inf
//! ```
//!
//! Written are 17 and 5: what Redis would keep as a skiplist is written as a table, highest score
//! first.

use std::collections::HashSet;

use bytes::{BufMut, Bytes, BytesMut};

use crate::double::parse_double;
use crate::families::sorted_set::score_text;
use crate::types::dump::{put_length, put_string, read_length, read_string, take};
use crate::types::sorted_set::{Member, SortedSet};
use crate::types::{listpack, ziplist};
use crate::view::{View, ViewError};

const TYPE_TABLE_OF_TEXTS: u8 = 3;
const TYPE_TABLE: u8 = 5;
const TYPE_ZIPLIST: u8 = 12;
const TYPE_LISTPACK: u8 = 17;

const TEXT_INFINITE: u8 = 254;
const TEXT_NEGATIVE_INFINITE: u8 = 255;

/// Whether a type is one of a sorted set.
pub(crate) fn is_type(kind: u8) -> bool {
    matches!(kind, TYPE_TABLE_OF_TEXTS | TYPE_TABLE | TYPE_ZIPLIST | TYPE_LISTPACK)
}

/// Writes type and value.
pub(crate) fn write(view: &dyn View, set: &SortedSet, out: &mut BytesMut) -> Result<(), ViewError> {
    put_set(&set.all(view)?, set.is_skiplist, out);
    Ok(())
}

fn put_set(members: &[Member], is_skiplist: bool, out: &mut BytesMut) {
    if is_skiplist {
        out.put_u8(TYPE_TABLE);
        put_length(out, members.len() as u64);
        for member in members.iter().rev() {
            put_string(out, &member.name);
            out.put_f64_le(member.score);
        }
        return;
    }
    out.put_u8(TYPE_LISTPACK);
    let scored =
        members.iter().flat_map(|Member { name, score }| [name.clone(), score_text(*score)]);
    let texts: Vec<Bytes> = scored.collect();
    put_string(out, &listpack::write(texts.iter().map(|text| &text[..])));
}

/// Reads the value of a type, its members in any order; `None` if that is no sorted set's, or if it
/// is damaged.
pub(crate) fn read(kind: u8, input: &mut &[u8]) -> Option<Vec<Member>> {
    let members = match kind {
        TYPE_TABLE_OF_TEXTS => read_table(input, read_score_text)?,
        TYPE_TABLE => read_table(input, |input| take(input).map(f64::from_le_bytes))?,
        TYPE_ZIPLIST => read_pack(ziplist::read(&read_string(input)?)?)?,
        TYPE_LISTPACK => read_pack(listpack::read(&read_string(input)?)?)?,
        _ => return None,
    };
    let mut seen = HashSet::with_capacity(members.len());
    let sound = members.iter().all(|member| !member.score.is_nan() && seen.insert(&member.name));
    (sound && !members.is_empty()).then_some(members)
}

fn read_table(input: &mut &[u8], read_score: fn(&mut &[u8]) -> Option<f64>) -> Option<Vec<Member>> {
    let mut members = Vec::new();
    for _ in 0..read_length(input)? {
        let name = read_string(input)?;
        members.push(Member { name, score: read_score(input)? });
    }
    Some(members)
}

fn read_score_text(input: &mut &[u8]) -> Option<f64> {
    let [length] = take::<1>(input)?;
    match length {
        TEXT_INFINITE => Some(f64::INFINITY),
        TEXT_NEGATIVE_INFINITE => Some(f64::NEG_INFINITY),
        // 253, not a number, would need more digits than a score has.
        length => parse_double(input.split_off(..usize::from(length))?),
    }
}

fn read_pack(elements: Vec<Bytes>) -> Option<Vec<Member>> {
    let (pairs, rest) = elements.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let member = |[name, score]: &[Bytes; 2]| {
        Some(Member { name: name.clone(), score: parse_double(score)? })
    };
    pairs.iter().map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn some_set(random: &mut Random) -> Vec<Member> {
        let score = |random: &mut Random| match random.below(4) {
            0 => f64::from(random.next() as i32),
            1 => *random.pick(&[f64::INFINITY, f64::NEG_INFINITY, 1e300, -0.1, 5e-324]),
            _ => (random.next() as i32) as f64 / 1_000.0,
        };
        let count = 1 + random.below(200);
        let member =
            |number| Member { name: Bytes::from(format!("member {number}")), score: score(random) };
        (0..count).map(member).collect()
    }

    #[test]
    fn sorted_sets_round_trip() {
        let mut random = Random::new(61);
        for _ in 0..500 {
            let mut set = some_set(&mut random);
            let is_skiplist = random.below(2) == 0;
            let mut out = BytesMut::new();
            put_set(&set, is_skiplist, &mut out);
            let mut input = &out[1..];
            if is_skiplist {
                set.reverse();
            }
            assert_eq!(read(out[0], &mut input), Some(set));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn texts_of_scores_are_read() {
        let members = read(TYPE_TABLE_OF_TEXTS, &mut &b"\x03\x01a\x031.5\x01b\xfe\x01c\xff"[..]);
        let scores: Vec<f64> = members.expect("sound").iter().map(|member| member.score).collect();
        assert_eq!(scores, [1.5, f64::INFINITY, f64::NEG_INFINITY]);
    }

    #[test]
    fn damage_never_panics_and_doubles_are_refused() {
        let mut random = Random::new(62);
        for _ in 0..5_000 {
            let mut out = BytesMut::new();
            put_set(&some_set(&mut random), random.below(2) == 0, &mut out);
            let kind = *random.pick(&[3, 5, 12, 17, out[0]]);
            let at = random.below(out.len().min(40));
            out[at] = random.next() as u8;
            read(kind, &mut &out[1..]);
        }
        assert_eq!(read(TYPE_TABLE_OF_TEXTS, &mut &b"\x02\x01a\x011\x01a\x012"[..]), None);
        assert_eq!(read(TYPE_TABLE_OF_TEXTS, &mut &b"\x01\x01a\xfd"[..]), None);
        assert_eq!(read(TYPE_TABLE, &mut &b"\x00"[..]), None);
    }
}
