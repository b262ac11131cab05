//! The fields of a small hash, one behind the other in its header row, oldest first.
//!
//! ```text
//! entry = (field length << 1 | TIMED):varint field value_length:varint value [expire_at_ms:varint]
//! ```
//!
//! Nothing is built from the entries to change one of them: it is found by walking, and what stands
//! before and behind it is copied once.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::hash::Entry;
use crate::types::header::{put_varint, read_varint};
use crate::view::ViewError;

/// Where an entry stands among the entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    /// The whole of it.
    pub(crate) whole: Range<usize>,
    field: Range<usize>,
    value: Range<usize>,
    /// When the field ceases to exist, in ms since the epoch.
    pub(crate) expire_at_ms: Option<u64>,
}

impl Span {
    /// The entry, as slices of the entries.
    pub(crate) fn entry(&self, entries: &Bytes) -> Entry {
        Entry {
            field: entries.slice(self.field.clone()),
            value: entries.slice(self.value.clone()),
            expire_at_ms: self.expire_at_ms,
        }
    }
}

/// Walks over the entries.
pub(crate) fn spans(entries: &[u8]) -> impl Iterator<Item = Result<Span, ViewError>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = entries.get(at..).filter(|rest| !rest.is_empty())?;
        let Some(span) = read(rest, at) else {
            at = entries.len();
            return Some(Err(ViewError::Damaged));
        };
        at = span.whole.end;
        Some(Ok(span))
    })
}

/// The entry of a field, hidden or not.
pub(crate) fn find(entries: &[u8], field: &[u8]) -> Result<Option<Span>, ViewError> {
    for span in spans(entries) {
        let span = span?;
        if &entries[span.field.clone()] == field {
            return Ok(Some(span));
        }
    }
    Ok(None)
}

/// The entries with `at` replaced by an entry; without `at`, with the entry behind the others.
pub(crate) fn with(
    entries: &[u8],
    at: Option<Range<usize>>,
    (field, value): (&[u8], &[u8]),
    expire_at_ms: Option<u64>,
) -> Bytes {
    let Range { start, end } = at.unwrap_or(entries.len()..entries.len());
    let mut out = BytesMut::with_capacity(entries.len() + field.len() + value.len() + 16);
    out.put_slice(&entries[..start]);
    put_varint(&mut out, (field.len() as u64) << 1 | u64::from(expire_at_ms.is_some()));
    out.put_slice(field);
    put_varint(&mut out, value.len() as u64);
    out.put_slice(value);
    if let Some(at) = expire_at_ms {
        put_varint(&mut out, at);
    }
    out.put_slice(&entries[end..]);
    out.freeze()
}

/// The entries without one of them.
pub(crate) fn without(entries: &[u8], at: Range<usize>) -> Bytes {
    let mut out = BytesMut::with_capacity(entries.len() - at.len());
    out.put_slice(&entries[..at.start]);
    out.put_slice(&entries[at.end..]);
    out.freeze()
}

/// Reads the entry that `rest` begins with; it stands at `start`.
fn read(rest: &[u8], start: usize) -> Option<Span> {
    let mut input = rest;
    let text = |input: &mut &[u8], length: u64| {
        let from = start + (rest.len() - input.len());
        let length = usize::try_from(length).ok()?;
        input.split_off(..length).map(|_| from..from + length)
    };
    let shape = read_varint(&mut input)?;
    let field = text(&mut input, shape >> 1)?;
    let length = read_varint(&mut input)?;
    let value = text(&mut input, length)?;
    let expire_at_ms = if shape & 1 == 1 { Some(read_varint(&mut input)?) } else { None };
    let whole = start..start + (rest.len() - input.len());
    Some(Span { whole, field, value, expire_at_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn entries_are_added_replaced_and_removed() {
        let mut random = Random::new(11);
        let mut entries = Bytes::new();
        let mut model: Vec<(Vec<u8>, Vec<u8>, Option<u64>)> = Vec::new();
        for _ in 0..5_000 {
            let field = vec![b'f'; random.below(20)];
            let span = find(&entries, &field).expect("own encoding");
            let known = model.iter().position(|(other, _, _)| *other == field);
            assert_eq!(span.is_some(), known.is_some());
            if random.below(3) == 0 {
                if let (Some(span), Some(at)) = (span, known) {
                    entries = without(&entries, span.whole);
                    model.remove(at);
                }
            } else {
                let (value, time) =
                    (random.bytes(300), [None, Some(random.next())][random.below(2)]);
                entries = with(&entries, span.map(|span| span.whole), (&field, &value), time);
                match known {
                    Some(at) => model[at] = (field, value, time),
                    None => model.push((field, value, time)),
                }
            }
            let read: Vec<_> = spans(&entries)
                .map(|span| span.expect("own encoding").entry(&entries))
                .map(|entry| (entry.field.to_vec(), entry.value.to_vec(), entry.expire_at_ms))
                .collect();
            assert_eq!(read, model);
        }
    }

    #[test]
    fn damage_is_told_once() {
        let entries = with(b"", None, (b"field", b"value"), Some(7));
        for length in 1..entries.len() {
            let read: Vec<_> = spans(&entries[..length]).collect();
            assert!(matches!(read[..], [Err(ViewError::Damaged)]), "{length}");
        }
        let mut random = Random::new(3);
        for _ in 0..100_000 {
            spans(&random.bytes(40)).for_each(drop);
        }
    }
}
