//! The links in a node of a directory, as links of their own and as they stand there.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::chunk;
use crate::types::header::{put_varint, read_varint};
use crate::view::ViewError;

/// A link to a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Link {
    pub(super) id: u64,
    /// Items below it.
    pub(super) count: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Above all items before them, and not above the first of them; empty if items have no order. If
    /// these are the first of all it says nothing.
    pub(super) separator: Bytes,
}

impl Link {
    pub(super) fn width(&self) -> usize {
        let numbers = [self.id, self.count, self.bytes];
        let varint = |number: u64| (u64::BITS - (number | 1).leading_zeros()).div_ceil(7) as usize;
        numbers.into_iter().map(varint).sum::<usize>() + chunk::width(&self.separator)
    }
}

/// A link as it stands in its node.
pub(super) struct Seen<'a> {
    pub(super) id: u64,
    pub(super) count: u64,
    pub(super) bytes: u64,
    pub(super) separator: &'a [u8],
    /// Where in the node it stands.
    pub(super) at: Range<usize>,
}

impl Seen<'_> {
    /// As a link of its own; `row` is the node.
    pub(super) fn owned(&self, row: &Bytes) -> Link {
        let Seen { id, count, bytes, separator, .. } = *self;
        // An empty slice need not be one of the row.
        let is_empty = separator.is_empty();
        let separator = if is_empty { Bytes::new() } else { row.slice_ref(separator) };
        Link { id, count, bytes, separator }
    }
}

/// The links in a node, to be looked at.
pub(super) fn seen(row: &[u8], ordered: bool) -> impl Iterator<Item = Result<Seen<'_>, ViewError>> {
    let mut rest = row;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let start = row.len() - rest.len();
        let read = |rest: &mut &'_ [u8]| {
            let (id, count, bytes) = (read_varint(rest)?, read_varint(rest)?, read_varint(rest)?);
            Some((id, count, bytes, if ordered { read_varint(rest)? } else { 0 }))
        };
        let first = read(&mut rest).and_then(|(id, count, bytes, length)| {
            let separator = rest.split_off(..usize::try_from(length).ok()?)?;
            Some(Seen { id, count, bytes, separator, at: start..row.len() - rest.len() })
        });
        if first.is_none() {
            rest = &[];
        }
        Some(first.ok_or(ViewError::Damaged))
    })
}

/// The links in a node.
pub(super) fn links(row: &Bytes, ordered: bool) -> impl Iterator<Item = Result<Link, ViewError>> {
    seen(row, ordered).map(move |link| link.map(|link| link.owned(row)))
}

pub(super) fn put_links(row: &mut BytesMut, links: &[Link], ordered: bool) {
    for link in links {
        put_varint(row, link.id);
        put_varint(row, link.count);
        put_varint(row, link.bytes);
        if ordered {
            put_varint(row, link.separator.len() as u64);
            row.put_slice(&link.separator);
        }
    }
}
