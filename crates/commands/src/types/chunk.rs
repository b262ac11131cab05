//! Items in order, one behind the other: a chunk of a directory (directory.rs), and all of a small
//! list or sorted set, in its header.
//!
//! ```text
//! chunk = { length:varint item }
//! ```
//!
//! A chunk is changed by copying what stands before and behind the change: no item is taken apart
//! that is not touched.

use std::ops::{ControlFlow, Range};

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::header::{put_varint, read_varint};
use crate::view::{Direction, ViewError};

/// Walks over the places of the items in a chunk.
pub(crate) fn spans(chunk: &[u8]) -> impl Iterator<Item = Result<Range<usize>, ViewError>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let mut rest = chunk.get(at..).filter(|rest| !rest.is_empty())?;
        let length = read_varint(&mut rest).and_then(|length| usize::try_from(length).ok());
        let Some(length) = length.filter(|length| *length <= rest.len()) else {
            at = chunk.len();
            return Some(Err(ViewError::Damaged));
        };
        let start = chunk.len() - rest.len();
        at = start + length;
        Some(Ok(start..at))
    })
}

/// The items, as slices of the chunk.
pub(crate) fn items(chunk: &Bytes) -> impl Iterator<Item = Result<Bytes, ViewError>> {
    spans(chunk).map(|span| Ok(chunk.slice(span?)))
}

/// Bytes of the items alone.
pub(crate) fn item_bytes(chunk: &[u8]) -> Result<u64, ViewError> {
    spans(chunk).try_fold(0, |bytes, span| Ok(bytes + span?.len() as u64))
}

/// The item at a position.
pub(crate) fn get(chunk: &Bytes, at: u64) -> Result<Option<Bytes>, ViewError> {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    spans(chunk).nth(at).map(|span| Ok(chunk.slice(span?))).transpose()
}

/// How many items at the start are `before` something; all before them must be, too.
pub(crate) fn rank(chunk: &[u8], before: &dyn Fn(&[u8]) -> bool) -> Result<u64, ViewError> {
    let mut rank = 0;
    for span in spans(chunk) {
        if !before(&chunk[span?]) {
            break;
        }
        rank += 1;
    }
    Ok(rank)
}

/// An item where it lies in its chunk. Most of those who look at items need none of their own, and to
/// share a chunk costs more than to look.
#[derive(Clone, Debug)]
pub(crate) struct Item<'a> {
    chunk: &'a Bytes,
    span: Range<usize>,
}

impl Item<'_> {
    /// The item as a slice of its chunk.
    pub(crate) fn share(&self) -> Bytes {
        self.chunk.slice(self.span.clone())
    }
}

impl std::ops::Deref for Item<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.chunk[self.span.clone()]
    }
}

/// Visits the items at these positions in a direction, until `visit` breaks; whether it did.
pub(crate) fn walk(
    chunk: &Bytes,
    positions: &Range<u64>,
    direction: Direction,
    visit: &mut dyn FnMut(Item<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, ViewError> {
    let skipped = usize::try_from(positions.start).unwrap_or(usize::MAX);
    let wanted = usize::try_from(positions.end - positions.start).unwrap_or(usize::MAX);
    let wanted = spans(chunk).skip(skipped).take(wanted);
    if direction == Direction::Forward {
        for span in wanted {
            if visit(Item { chunk, span: span? }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    } else {
        let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
        for span in wanted.into_iter().rev() {
            if visit(Item { chunk, span }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Bytes an item takes in a chunk.
pub(crate) fn width(item: &[u8]) -> usize {
    let bits = usize::BITS - (item.len() | 1).leading_zeros();
    item.len() + bits.div_ceil(7) as usize
}

/// A chunk of these items.
#[cfg(test)]
pub(crate) fn write(items: &[Bytes]) -> Bytes {
    let mut out = BytesMut::with_capacity(items.iter().map(|item| width(item)).sum());
    put(&mut out, items);
    out.freeze()
}

/// Appends items.
pub(crate) fn put(out: &mut BytesMut, items: &[Bytes]) {
    items.iter().for_each(|item| put_item(out, item));
}

/// Appends an item.
pub(crate) fn put_item(out: &mut BytesMut, item: &[u8]) {
    put_varint(out, item.len() as u64);
    out.put_slice(item);
}

/// What a splice left.
pub(crate) struct Spliced {
    /// The chunk.
    pub(crate) chunk: Bytes,
    /// Bytes of the items taken out.
    pub(crate) removed_bytes: u64,
}

/// The chunk with the items at `positions` replaced by others; `head` stands before it.
///
/// *Errors*: `Damaged`, also if there are no such positions.
pub(crate) fn splice(
    chunk: &[u8],
    positions: &Range<u64>,
    insert: &[Bytes],
    head: &[u8],
) -> Result<Spliced, ViewError> {
    let (mut start, mut end, mut removed_bytes) = (None, None, 0);
    let (mut count, mut behind) = (0, 0);
    for (position, span) in (0..).zip(spans(chunk)) {
        if position == positions.start {
            start = Some(behind);
        }
        if position == positions.end {
            end = Some(behind);
            break;
        }
        let span = span?;
        if position >= positions.start {
            removed_bytes += span.len() as u64;
        }
        (count, behind) = (position + 1, span.end);
    }
    // A position behind the last item is the chunk's end; one further on does not exist.
    let end = match end {
        Some(end) => end,
        None if count == positions.end => chunk.len(),
        None => return Err(ViewError::Damaged),
    };
    let start = start.unwrap_or(end);
    let added: usize = insert.iter().map(|item| width(item)).sum();
    let mut out = BytesMut::with_capacity(head.len() + chunk.len() - (end - start) + added);
    out.put_slice(head);
    out.put_slice(&chunk[..start]);
    put(&mut out, insert);
    out.put_slice(&chunk[end..]);
    Ok(Spliced { chunk: out.freeze(), removed_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn splices_are_those_of_a_vector() {
        let mut random = Random::new(31);
        for _ in 0..2_000 {
            let mut model: Vec<Bytes> =
                (0..random.below(9)).map(|_| Bytes::from(random.bytes(300))).collect();
            let chunk = write(&model);
            assert_eq!(chunk.len(), model.iter().map(|item| width(item)).sum::<usize>());
            let start = random.below(model.len() + 1);
            let end = start + random.below(model.len() - start + 1);
            let insert: Vec<Bytes> =
                (0..random.below(3)).map(|_| Bytes::from(random.bytes(200))).collect();
            let spliced = splice(&chunk, &(start as u64..end as u64), &insert, b"");
            let spliced = spliced.expect("positions that exist");
            let removed: Vec<Bytes> = model.splice(start..end, insert).collect();
            assert_eq!(spliced.chunk, write(&model));
            let bytes: usize = removed.iter().map(Bytes::len).sum();
            assert_eq!(spliced.removed_bytes, bytes as u64);
            let read: Vec<Bytes> = items(&spliced.chunk).map(|item| item.expect("own")).collect();
            assert_eq!(read, model);
            for (at, item) in model.iter().enumerate() {
                assert_eq!(get(&spliced.chunk, at as u64).expect("own").as_ref(), Some(item));
            }
        }
        assert!(splice(&write(&[]), &(0..1), &[], b"").is_err());
        assert!(splice(&write(&[]), &(1..1), &[], b"").is_err());
    }

    #[test]
    fn damage_is_told() {
        for damaged in [&b"\x05abc"[..], b"\x80", b"\x01a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
        {
            let damaged = Bytes::from_static(damaged);
            assert!(items(&damaged).any(|item| item.is_err()));
            assert!(splice(&damaged, &(9..9), &[], b"").is_err());
        }
    }
}
