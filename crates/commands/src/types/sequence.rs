//! Sequences: items in an order, in the header while they are few and small, else in a directory.
//! What lists and sorted sets are made of.
//!
//! ```text
//! end of the header's body = chunk             inline (types/chunk.rs)
//!                          | directory         rows (types/directory.rs), if the items have an order
//!                          | ended             rows and ends (types/ended.rs), if they have none
//! ```
//!
//! A sequence that has outgrown the header never goes back: DEL and a new one do that.

use std::ops::{ControlFlow, Range};

use bytes::{Bytes, BytesMut};
use wire::placement::Placement;

use crate::txn::Txn;
use crate::types::chunk::{self, Item};
use crate::types::directory::{Directory, Edit, Order, Site};
use crate::types::ended::Ended;
use crate::types::header::{Kind, Value};
use crate::view::{Direction, View, ViewError};

/// Most items of a sequence that lives in its header row.
pub(crate) const INLINE_ITEMS_MAX: u64 = 64;
/// Most bytes of the chunk of a sequence that lives in its header row.
pub(crate) const INLINE_BYTES_MAX: usize = 1 << 10;

/// Bytes that a header mostly needs for a directory at most.
const DIRECTORY_BYTES: usize = 16;

/// Where the items are.
#[derive(Clone, Debug)]
pub(crate) enum Items {
    /// In the header, and how many.
    Inline(Bytes, u64),
    /// In rows; they have an order.
    Rows(Directory),
    /// In rows, but for the ends; they have none.
    Ended(Ended),
}

/// Items in an order.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    /// The order of the items, if they have one: then ranks may be asked for.
    order: Option<&'static Order>,
    pub(crate) items: Items,
}

impl Sequence {
    /// A sequence without items.
    pub(crate) fn empty(order: Option<&'static Order>) -> Sequence {
        Sequence { order, items: Items::Inline(Bytes::new(), 0) }
    }

    /// The sequence that a key's value holds, with the end of the header's body.
    pub(crate) fn read(
        view: &dyn View,
        key: &[u8],
        (value, rest): (&Value, Bytes),
        order: Option<&'static Order>,
    ) -> Result<Sequence, ViewError> {
        let items = match value {
            Value::Inline { count, .. } => Items::Inline(rest, *count),
            Value::Rows { generation, count, bytes, .. } => {
                let placement = Placement::of_key(key);
                let site = Site { table: view.table(), placement, generation: *generation, order };
                let items = match order {
                    Some(_) => Directory::read(site, &rest, *count, *bytes).map(Items::Rows),
                    None => Ended::read(site, rest, *count, *bytes).map(Items::Ended),
                };
                items.ok_or(ViewError::Damaged)?
            }
            Value::String { .. } => return Err(ViewError::Damaged),
        };
        Ok(Sequence { order, items })
    }

    /// Bytes that its part of the header's body takes, or a few more or less.
    pub(crate) fn header_bytes(&self) -> usize {
        match &self.items {
            Items::Inline(chunk, _) => chunk.len(),
            Items::Rows(_) => DIRECTORY_BYTES,
            Items::Ended(ended) => ended.end_bytes() + 2 * DIRECTORY_BYTES,
        }
    }

    /// The value for the header, whose body begins with `head`.
    pub(crate) fn value(&self, kind: Kind, mut head: BytesMut) -> Value {
        let generation = match &self.items {
            Items::Inline(chunk, count) => {
                head.extend_from_slice(chunk);
                return Value::Inline { kind, count: *count, body: head.freeze() };
            }
            Items::Rows(directory) => {
                directory.write(&mut head);
                directory.site().generation
            }
            Items::Ended(ended) => {
                ended.write(&mut head);
                ended.site().generation
            }
        };
        let (count, bytes) = (self.count(), self.bytes());
        Value::Rows { kind, generation, count, bytes, body: head.freeze() }
    }

    /// How many items it has.
    pub(crate) fn count(&self) -> u64 {
        match &self.items {
            Items::Inline(_, count) => *count,
            Items::Rows(directory) => directory.count(),
            Items::Ended(ended) => ended.count(),
        }
    }

    /// Bytes of its items; inline, of the chunk.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.items {
            Items::Inline(chunk, _) => chunk.len() as u64,
            Items::Rows(directory) => directory.bytes(),
            Items::Ended(ended) => ended.bytes(),
        }
    }

    /// The item at a position.
    pub(crate) fn get(&self, view: &dyn View, at: u64) -> Result<Option<Bytes>, ViewError> {
        match &self.items {
            Items::Inline(chunk, _) => chunk::get(chunk, at),
            Items::Rows(directory) => directory.get(view, at),
            Items::Ended(ended) => ended.get(view, at),
        }
    }

    /// How many items are `before` something. They must be the first ones: the items' order decides.
    pub(crate) fn rank(
        &self,
        view: &dyn View,
        before: &dyn Fn(&[u8]) -> bool,
    ) -> Result<u64, ViewError> {
        match &self.items {
            Items::Inline(chunk, _) => chunk::rank(chunk, before),
            Items::Rows(directory) => directory.rank(view, before),
            Items::Ended(_) => unreachable!("only items that have an order have ranks"),
        }
    }

    /// Visits the items at these positions in a direction, until `visit` breaks.
    pub(crate) fn walk(
        &self,
        view: &dyn View,
        positions: Range<u64>,
        direction: Direction,
        visit: &mut dyn FnMut(Item<'_>) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        let positions = positions.start..positions.end.min(self.count());
        if positions.is_empty() {
            return Ok(());
        }
        match &self.items {
            Items::Inline(chunk, _) => {
                chunk::walk(chunk, &positions, direction, visit).map(|_flow| ())
            }
            Items::Rows(directory) => directory.walk(view, positions, direction, visit),
            Items::Ended(ended) => ended.walk(view, &positions, direction, visit),
        }
    }

    /// The items at these positions.
    pub(crate) fn range(
        &self,
        view: &dyn View,
        positions: Range<u64>,
        direction: Direction,
    ) -> Result<Vec<Bytes>, ViewError> {
        let mut items = Vec::new();
        self.walk(view, positions, direction, &mut |item| {
            items.push(item.share());
            ControlFlow::Continue(())
        })?;
        Ok(items)
    }

    /// Takes items out of rows whose items have an order, and puts others in; see
    /// [`Directory::edit`].
    pub(crate) fn edit(&mut self, txn: &mut Txn<'_>, edits: &[Edit<'_>]) -> Result<(), ViewError> {
        match &mut self.items {
            Items::Rows(directory) => directory.edit(txn, edits),
            Items::Inline(..) | Items::Ended(_) => unreachable!("only rows in an order are edited"),
        }
    }

    /// Replaces the items at `positions` by others, in the sequence of this key. Whether it has
    /// moved from the header into rows. In rows whose items have an order only the empty replacement
    /// is possible: [`Sequence::edit`].
    pub(crate) fn splice(
        &mut self,
        txn: &mut Txn<'_>,
        key: &[u8],
        positions: Range<u64>,
        insert: &[Bytes],
    ) -> Result<bool, ViewError> {
        let (chunk, count) = match &mut self.items {
            Items::Rows(directory) => {
                directory.splice(txn, positions, insert)?;
                return Ok(false);
            }
            Items::Ended(ended) => {
                ended.splice(txn, positions, insert)?;
                return Ok(false);
            }
            Items::Inline(chunk, count) => (chunk, count),
        };
        let removed = positions.end - positions.start;
        *chunk = chunk::splice(chunk, &positions, insert, &[])?.chunk;
        *count = (*count + insert.len() as u64).saturating_sub(removed);
        if *count <= INLINE_ITEMS_MAX && chunk.len() <= INLINE_BYTES_MAX {
            return Ok(false);
        }
        let items = chunk::items(chunk).collect::<Result<Vec<_>, _>>()?;
        let mut directory = Directory::new(Site {
            table: txn.table(),
            placement: Placement::of_key(key),
            generation: txn.new_version(),
            order: self.order,
        });
        directory.splice(txn, 0..0, &items)?;
        self.items = match self.order {
            Some(_) => Items::Rows(directory),
            None => Items::Ended(Ended::new(directory)),
        };
        Ok(true)
    }
}
