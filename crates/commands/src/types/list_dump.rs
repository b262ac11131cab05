//! Lists as Redis's RDB files write them.
//!
//! ```text
//! 1  list         length { element }                       strings of types/dump.rs
//! 10 ziplist      string: a ziplist of the elements        (before 3.2)
//! 14 quicklist    length { string: a ziplist }             (before 7.0)
//! 18 quicklist    length { 1 element | 2 string: a listpack }
//! ```
//!
//! Written is 18. A node is filled to the size at which Redis would begin another; an element too
//! large for a node is one by itself.

use bytes::{Bytes, BytesMut};

use crate::types::dump::{put_length, put_string, read_length, read_string};
use crate::types::list::{LISTPACK_BYTES_MAX, List};
use crate::types::{listpack, ziplist};
use crate::view::{Direction, View, ViewError};

const TYPE_LIST: u8 = 1;
const TYPE_ZIPLIST: u8 = 10;
const TYPE_QUICKLIST_OF_ZIPLISTS: u8 = 14;
const TYPE_QUICKLIST: u8 = 18;

const NODE_PLAIN: u64 = 1;
const NODE_PACKED: u64 = 2;
/// Bytes of a listpack beside its elements.
const FRAME_BYTES: usize = 7;

/// Whether a type is one of a list.
pub(crate) fn is_type(kind: u8) -> bool {
    matches!(kind, TYPE_LIST | TYPE_ZIPLIST | TYPE_QUICKLIST_OF_ZIPLISTS | TYPE_QUICKLIST)
}

/// Writes type and value.
pub(crate) fn write(view: &dyn View, list: &List, out: &mut BytesMut) -> Result<(), ViewError> {
    let all = list.elements.range(view, 0..list.elements.count(), Direction::Forward)?;
    put_list(&all, out);
    Ok(())
}

fn put_list(elements: &[Bytes], out: &mut BytesMut) {
    let nodes = nodes(elements);
    out.extend_from_slice(&[TYPE_QUICKLIST]);
    put_length(out, nodes.len() as u64);
    for node in nodes {
        match node {
            [plain] if !fits(listpack::element_bytes(plain)) => {
                put_length(out, NODE_PLAIN);
                put_string(out, plain);
            }
            packed => {
                put_length(out, NODE_PACKED);
                put_string(out, &listpack::write(packed.iter().map(|element| &element[..])));
            }
        }
    }
}

fn fits(packed_bytes: usize) -> bool {
    (packed_bytes + FRAME_BYTES) as u64 <= LISTPACK_BYTES_MAX
}

fn nodes(elements: &[Bytes]) -> Vec<&[Bytes]> {
    let (mut nodes, mut rest) = (Vec::new(), elements);
    while !rest.is_empty() {
        let (mut taken, mut bytes) = (0, 0);
        for element in rest {
            bytes += listpack::element_bytes(element);
            if taken > 0 && !fits(bytes) {
                break;
            }
            taken += 1;
        }
        let (node, behind) = rest.split_at(taken);
        nodes.push(node);
        rest = behind;
    }
    nodes
}

/// Reads the value of a type; `None` if that is no list's, or if it is damaged. A list without
/// elements is none.
pub(crate) fn read(kind: u8, input: &mut &[u8]) -> Option<Vec<Bytes>> {
    let mut elements = Vec::new();
    match kind {
        TYPE_LIST => {
            for _ in 0..read_length(input)? {
                elements.push(read_string(input)?);
            }
        }
        TYPE_ZIPLIST => elements = ziplist::read(&read_string(input)?)?,
        TYPE_QUICKLIST_OF_ZIPLISTS => {
            for _ in 0..read_length(input)? {
                elements.extend(ziplist::read(&read_string(input)?)?);
            }
        }
        TYPE_QUICKLIST => {
            for _ in 0..read_length(input)? {
                match read_length(input)? as u64 {
                    // Redis never writes a node of nothing, and reads none.
                    NODE_PLAIN => {
                        elements.push(read_string(input).filter(|text| !text.is_empty())?);
                    }
                    NODE_PACKED => elements.extend(listpack::read(&read_string(input)?)?),
                    _ => return None,
                }
            }
        }
        _ => return None,
    }
    (!elements.is_empty()).then_some(elements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn some_list(random: &mut Random) -> Vec<Bytes> {
        let most = *random.pick(&[3, 300, 3_000]);
        let element = |random: &mut Random| match random.below(400) {
            0 => Bytes::from(vec![b'x'; 8_180 + random.below(20)]),
            1..200 => Bytes::from((random.next() as i32 >> random.below(32)).to_string()),
            _ => Bytes::from(random.bytes(70)),
        };
        (0..1 + random.below(most)).map(|_| element(random)).collect()
    }

    #[test]
    fn lists_round_trip() {
        let mut random = Random::new(51);
        for _ in 0..200 {
            let list = some_list(&mut random);
            let mut out = BytesMut::new();
            put_list(&list, &mut out);
            let mut input = &out[1..];
            assert_eq!(read(out[0], &mut input), Some(list));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn damage_never_panics_and_nothing_is_no_list() {
        let mut random = Random::new(52);
        for _ in 0..2_000 {
            let mut out = BytesMut::new();
            put_list(&some_list(&mut random), &mut out);
            let kind = *random.pick(&[TYPE_LIST, TYPE_ZIPLIST, 14, 18, 18]);
            let at = random.below(out.len().min(40));
            out[at] = random.next() as u8;
            read(kind, &mut &out[1..]);
        }
        assert_eq!(read(TYPE_LIST, &mut &b"\x00"[..]), None);
        assert_eq!(
            read(TYPE_LIST, &mut &b"\x02\x01a\x01b"[..]),
            Some(vec!["a".into(), "b".into()])
        );
        assert_eq!(read(TYPE_QUICKLIST, &mut &b"\x01\x03\x01a"[..]), None);
        assert_eq!(read(TYPE_QUICKLIST, &mut &b"\x01\x01\x01a"[..]), Some(vec!["a".into()]));
        assert_eq!(read(TYPE_QUICKLIST, &mut &b"\x01\x01\x00"[..]), None, "a node of nothing");
    }
}
