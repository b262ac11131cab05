//! Counted directories: items in an order, found by their position or by where they stand in the
//! order, in O(log n) rows.
//!
//! Items lie in chunks, chunks hang on nodes, nodes on nodes above them up to one root, all chunks
//! equally deep. A link to a chunk or node says how many items are below it, so a position is found
//! by adding up counts on the way down; where items have an order it also has a separator, the
//! shortest that is found above all items before and not above those below it, so the same way down
//! finds a rank. Every row has an id, and ids are never reused.
//!
//! ```text
//! data row, what follows the generation = 2 id:u64
//! value = 0 chunk                                     types/chunk.rs
//!       | level:u8 { link }                           level: 1 above chunks, 2 above nodes of 1 …
//! link  = id:varint count:varint bytes:varint [length:varint separator]
//!                                                     the separator only where items have an order;
//!                                                     it says nothing in the first link of all
//! body of the header = root:varint height:varint next_id:varint
//! ```
//!
//! A row holds at most so many items or links ([`Site::slots_max`]) and [`ROW_BYTES_MAX`] bytes; only
//! what cannot be divided (an item that is longer, two links whose items are) makes it larger. A
//! change rewrites the chunks it touches and the nodes above them, and what it rewrites is logged and
//! flushed: so rows are small, although a look passes more of them than it would with large ones. A chunk that has become too large is divided in
//! halves; at either end of everything it is left full instead, since what grows there goes on
//! growing there. One that has become small is joined to a neighbour if both fit well into one row.
//! A chunk that has become empty is a row less at once: what pops from an end never meets what was
//! there before.
//!
//! The alternative, a row per item under a key that leaves gaps (as quicksort's fractions do), needs
//! no counts on the way to change an item, and so cannot tell a position.

mod edits;
mod known;
mod link;

use std::cmp::Ordering;
use std::ops::{ControlFlow, Range};

use bytes::{BufMut, Bytes, BytesMut};
use wire::ids::{TableId, Version};
use wire::placement::Placement;

pub(crate) use self::edits::Edit;
use self::known::Known;
use self::link::{Link, Seen, links, put_links, seen};
use crate::rows;
use crate::txn::Txn;
use crate::types::chunk::{self, Item};
use crate::types::header::{put_varint, read_varint};
use crate::view::{Direction, View, ViewError};

/// Most items of a chunk whose items have no order. They are mostly short, and change at the ends.
pub(crate) const ITEMS_MAX: usize = 64;
/// Most links of a node above them.
pub(crate) const LINKS_MAX: usize = 32;
/// Most items of a chunk whose items have an order: they change anywhere.
pub(crate) const ORDERED_ITEMS_MAX: usize = 16;
/// Most bytes of a row's value, if it has more than one item, or more than two links.
pub(crate) const ROW_BYTES_MAX: usize = 4 << 10;
/// A row with fewer slots and fewer bytes than this part of the most is joined to a neighbour …
const SMALL_PART: usize = 4;
/// … if both together have at most so many quarters of the most: else the next insertion would
/// divide them again.
const JOINED_QUARTERS_MAX: usize = 3;
/// Levels that no collection reaches; more are damage.
const HEIGHT_MAX: u32 = 64;

const SUB_NODE: u8 = 2;

/// An order of items, and of separators among them.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) compare: fn(&[u8], &[u8]) -> Ordering,
    /// How many first bytes of the second item it takes to be above the first one; `None` if the whole
    /// of it is not.
    pub(crate) separate: fn(&[u8], &[u8]) -> Option<usize>,
}

/// Where the rows of a directory lie, and whether its items have an order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) table: TableId,
    pub(crate) placement: Placement,
    pub(crate) generation: Version,
    /// The order of the items, if they have one. Links have separators then, so that
    /// [`Directory::rank`] may be asked.
    pub(crate) order: Option<&'static Order>,
}

impl Site {
    fn row(&self, id: u64) -> Bytes {
        let parts = [&[SUB_NODE][..], &id.to_be_bytes()];
        rows::data_key_of(self.table, self.placement, self.generation, parts)
    }

    /// Most items of a chunk (level 0), or links of a node.
    fn slots_max(&self, level: u32) -> usize {
        match level {
            0 if self.is_ordered() => ORDERED_ITEMS_MAX,
            0 => ITEMS_MAX,
            _ => LINKS_MAX,
        }
    }

    fn is_ordered(&self) -> bool {
        self.order.is_some()
    }
}

/// Which end of everything a change is at, if at one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Front,
    Back,
    Neither,
}

/// A change: the items at `positions` are replaced by others.
#[derive(Clone, Debug)]
struct Change<'a> {
    positions: Range<u64>,
    insert: &'a [Bytes],
    end: End,
}

/// Items in an order, in rows.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    site: Site,
    /// Levels of nodes above the chunks.
    height: u32,
    next_id: u64,
    root: Option<Link>,
    known: Known,
}

impl Directory {
    /// A directory without items.
    pub(crate) fn new(site: Site) -> Directory {
        Directory { site, height: 0, next_id: 0, root: None, known: Known::default() }
    }

    /// The directory that a header tells of, with its items and their bytes; `None` if it is damaged.
    pub(crate) fn read(site: Site, mut body: &[u8], count: u64, bytes: u64) -> Option<Directory> {
        let id = read_varint(&mut body)?;
        let height = u32::try_from(read_varint(&mut body)?).ok()?;
        let next_id = read_varint(&mut body)?;
        if !body.is_empty() || height > HEIGHT_MAX || (count == 0 && height > 0) {
            return None;
        }
        let root = Link { id, count, bytes, separator: Bytes::new() };
        let root = Some(root).filter(|root| root.count > 0);
        Some(Directory { site, height, next_id, root, known: Known::default() })
    }

    /// Appends what the header keeps.
    pub(crate) fn write(&self, out: &mut BytesMut) {
        put_varint(out, self.root.as_ref().map_or(0, |root| root.id));
        put_varint(out, u64::from(self.height));
        put_varint(out, self.next_id);
    }

    /// Where its rows lie.
    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    /// How many items it has.
    pub(crate) fn count(&self) -> u64 {
        self.root.as_ref().map_or(0, |root| root.count)
    }

    /// Bytes of its items.
    pub(crate) fn bytes(&self) -> u64 {
        self.root.as_ref().map_or(0, |root| root.bytes)
    }

    /// The item at a position.
    pub(crate) fn get(&self, view: &dyn View, at: u64) -> Result<Option<Bytes>, ViewError> {
        let Some(root) = self.root.as_ref().filter(|root| at < root.count) else {
            return Ok(None);
        };
        let (mut id, mut at) = (root.id, at);
        for level in (1..=self.height).rev() {
            let row = self.node(view, id, level)?;
            let mut below = None;
            for link in seen(&row, self.site.is_ordered()) {
                let link = link?;
                if at < link.count {
                    below = Some(link.id);
                    break;
                }
                at -= link.count;
            }
            id = below.ok_or(ViewError::Damaged)?;
        }
        let item = chunk::get(&self.node(view, id, 0)?, at)?;
        item.ok_or(ViewError::Damaged).map(Some)
    }

    /// How many items are `before` something. They must be the first ones: the items' order decides.
    pub(crate) fn rank(
        &self,
        view: &dyn View,
        before: &dyn Fn(&[u8]) -> bool,
    ) -> Result<u64, ViewError> {
        debug_assert!(self.site.is_ordered(), "links without separators tell no rank");
        let Some(root) = &self.root else { return Ok(0) };
        let (mut id, mut rank) = (root.id, 0);
        for level in (1..=self.height).rev() {
            let row = self.node(view, id, level)?;
            // What is asked for begins in the last row whose separator is still before it.
            let mut candidate: Option<Seen<'_>> = None;
            for link in seen(&row, true) {
                let link = link?;
                if candidate.is_some() && !before(link.separator) {
                    break;
                }
                rank += candidate.map_or(0, |passed| passed.count);
                candidate = Some(link);
            }
            id = candidate.ok_or(ViewError::Damaged)?.id;
        }
        Ok(rank + chunk::rank(&self.node(view, id, 0)?, before)?)
    }

    /// Visits the items at these positions in a direction, until `visit` breaks.
    pub(crate) fn walk(
        &self,
        view: &dyn View,
        positions: Range<u64>,
        direction: Direction,
        visit: &mut dyn FnMut(Item<'_>) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        let Some(root) = &self.root else { return Ok(()) };
        let positions = clip(&positions, &(0..root.count));
        if !positions.is_empty() {
            let _ = self.walk_below(view, (root.id, self.height), &positions, direction, visit)?;
        }
        Ok(())
    }

    fn walk_below(
        &self,
        view: &dyn View,
        (id, level): (u64, u32),
        positions: &Range<u64>,
        direction: Direction,
        visit: &mut dyn FnMut(Item<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ViewError> {
        // Not to be remembered: a walk may pass all rows there are, and none of them again.
        let row = content(self.row(view, id)?, level)?;
        if level == 0 {
            return chunk::walk(&row, positions, direction, visit);
        }
        let mut start = 0;
        let mut touched = Vec::new();
        for link in seen(&row, self.site.is_ordered()) {
            let link = link?;
            let end = start + link.count;
            let local = clip(positions, &(start..end));
            if !local.is_empty() {
                touched.push((link.id, local.start - start..local.end - start));
            }
            if end >= positions.end {
                break;
            }
            start = end;
        }
        if direction == Direction::Backward {
            touched.reverse();
        }
        for (id, local) in touched {
            if self.walk_below(view, (id, level - 1), &local, direction, visit)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Replaces the items at `positions` by others. Where items have an order, others may only come
    /// while there is nothing yet: [`Directory::edit`] finds where they belong.
    pub(crate) fn splice(
        &mut self,
        txn: &mut Txn<'_>,
        positions: Range<u64>,
        insert: &[Bytes],
    ) -> Result<(), ViewError> {
        let count = self.count();
        let is_placed = count == 0 || insert.is_empty() || !self.site.is_ordered();
        debug_assert!(is_placed, "the order says where they belong");
        if positions.end > count {
            return Err(ViewError::Damaged);
        }
        let end = match () {
            () if positions.start == count => End::Back,
            () if positions.end == 0 => End::Front,
            () => End::Neither,
        };
        let change = Change { positions, insert, end };
        let top = match self.root.take() {
            Some(root) => self.splice_below(txn, &root, self.height, &change)?,
            None => self.write_chunks(txn, (None, Bytes::new()), insert, end),
        };
        self.put_root(txn, top, end)
    }

    /// Makes one root of the links that a change has left of it.
    fn put_root(
        &mut self,
        txn: &mut Txn<'_>,
        mut top: Vec<Link>,
        end: End,
    ) -> Result<(), ViewError> {
        while top.len() > 1 {
            self.height += 1;
            top = self.write_nodes(txn, None, top, self.height, end);
        }
        self.root = top.pop();
        self.lower_root(txn)
    }

    /// A root with one link is one row too many.
    fn lower_root(&mut self, txn: &mut Txn<'_>) -> Result<(), ViewError> {
        while self.height > 0 {
            let Some(root) = &self.root else {
                self.height = 0;
                break;
            };
            let row = self.node(txn, root.id, self.height)?;
            let mut below = links(&row, self.site.is_ordered());
            let (first, second) = (below.next(), below.next());
            let (Some(only), None) = (first, second) else { break };
            self.delete_row(txn, root.id);
            self.root = Some(only?);
            self.height -= 1;
        }
        Ok(())
    }

    /// Changes what is below a link; the links that come instead of it.
    fn splice_below(
        &mut self,
        txn: &mut Txn<'_>,
        link: &Link,
        level: u32,
        change: &Change<'_>,
    ) -> Result<Vec<Link>, ViewError> {
        if level == 0 {
            return self.splice_chunk(txn, link, change);
        }
        let row = self.node(txn, link.id, level)?;
        if let Some((child, at)) = self.only_touched(&row, change)? {
            return self.splice_child(txn, (link, &row, level), (child, at), change);
        }
        let old = links(&row, self.site.is_ordered()).collect::<Result<Vec<_>, _>>()?;
        let mut new = Vec::with_capacity(old.len() + 1);
        let mut touched: Option<Range<usize>> = None;
        let mut to_insert = change.insert;
        let (mut start, last) = (0, old.len().saturating_sub(1));
        for (at, below) in old.into_iter().enumerate() {
            let end = start + below.count;
            let local = clip(&change.positions, &(start..end));
            let local = local.start.saturating_sub(start)..local.end.saturating_sub(start);
            let first = change.positions.start;
            let takes = !to_insert.is_empty()
                && (first < end || at == last || (change.positions.is_empty() && first == end));
            let whole = 0..below.count;
            start = end;
            if !takes && local.is_empty() {
                new.push(below);
                continue;
            }
            let from = new.len();
            if takes || local != whole {
                let positions = if takes && local.is_empty() {
                    let at = first.saturating_sub(end - below.count);
                    at..at
                } else {
                    local
                };
                let insert = if takes { std::mem::take(&mut to_insert) } else { &[] };
                let change = Change { positions, insert, end: change.end };
                new.extend(self.splice_below(txn, &below, level - 1, &change)?);
            } else {
                self.delete_below(txn, &below, level - 1)?;
            }
            touched = Some(touched.map_or(from, |touched| touched.start)..new.len());
        }
        if let Some(touched) = touched {
            self.join_small(txn, &mut new, touched, level - 1)?;
        }
        Ok(self.write_nodes(txn, Some(link.id), new, level, change.end))
    }

    /// The one link of a node below which all of a change lies, with the positions of the change
    /// there, if there is one and something of it stays.
    fn only_touched(
        &self,
        row: &Bytes,
        change: &Change<'_>,
    ) -> Result<Option<(usize, Range<u64>)>, ViewError> {
        let Range { start: first, end: last } = change.positions;
        let mut start = 0;
        for (at, link) in seen(row, self.site.is_ordered()).enumerate() {
            let count = link?.count;
            let end = start + count;
            // Between two rows, what comes belongs to either.
            if first < end || (first == last && first == end) {
                let local = first - start..last.saturating_sub(start);
                let stays = last <= end && (local != (0..count) || !change.insert.is_empty());
                return Ok(stays.then_some((at, local)));
            }
            start = end;
        }
        Ok(None)
    }

    /// Changes what is below one link of a node. Mostly that link alone is another one then, and the
    /// rest of the node is copied as it is.
    fn splice_child(
        &mut self,
        txn: &mut Txn<'_>,
        (link, row, level): (&Link, &Bytes, u32),
        (child, positions): (usize, Range<u64>),
        change: &Change<'_>,
    ) -> Result<Vec<Link>, ViewError> {
        let ordered = self.site.is_ordered();
        let seen = seen(row, ordered).nth(child).ok_or(ViewError::Damaged)??;
        let below = seen.owned(row);
        let change = Change { positions, ..change.clone() };
        let made = self.splice_below(txn, &below, level - 1, &change)?;
        if let [only] = &made[..]
            && (only.count >= below.count && only.bytes >= below.bytes
                || !self.is_small(txn, only, level - 1)?)
        {
            let mut new = BytesMut::with_capacity(1 + row.len() + only.width());
            new.put_u8(level as u8);
            new.put_slice(&row[..seen.at.start]);
            put_links(&mut new, &made, ordered);
            new.put_slice(&row[seen.at.end..]);
            if new.len() <= ROW_BYTES_MAX {
                self.put_row(txn, link.id, new.freeze());
                let separator = if child == 0 { &only.separator } else { &link.separator };
                return Ok(vec![Link {
                    id: link.id,
                    count: (link.count + only.count).saturating_sub(below.count),
                    bytes: (link.bytes + only.bytes).saturating_sub(below.bytes),
                    separator: separator.clone(),
                }]);
            }
        }
        let mut new = links(row, ordered).collect::<Result<Vec<_>, _>>()?;
        let touched = child..child + made.len();
        new.splice(child..child + 1, made);
        self.join_small(txn, &mut new, touched, level - 1)?;
        Ok(self.write_nodes(txn, Some(link.id), new, level, change.end))
    }

    fn is_small(&self, view: &dyn View, link: &Link, level: u32) -> Result<bool, ViewError> {
        let row = self.node(view, link.id, level)?;
        let slots = self.slots(&row, link, level)?;
        Ok(is_small(slots, self.site.slots_max(level), row.len()))
    }

    fn splice_chunk(
        &mut self,
        txn: &mut Txn<'_>,
        link: &Link,
        change: &Change<'_>,
    ) -> Result<Vec<Link>, ViewError> {
        let old = self.node(txn, link.id, 0)?;
        let spliced = chunk::splice(&old, &change.positions, change.insert, &[0])?;
        let removed = change.positions.end - change.positions.start;
        let count = (link.count + change.insert.len() as u64).saturating_sub(removed);
        let new = spliced.chunk.slice(1..);
        let fits = count <= self.site.slots_max(0) as u64 && spliced.chunk.len() <= ROW_BYTES_MAX;
        if count == 0 || !(fits || count == 1) {
            let items = chunk::items(&new).collect::<Result<Vec<_>, _>>()?;
            let (id, separator) = (Some(link.id), link.separator.clone());
            return Ok(self.write_chunks(txn, (id, separator), &items, change.end));
        }
        let inserted: u64 = change.insert.iter().map(|item| item.len() as u64).sum();
        let bytes = (link.bytes + inserted).saturating_sub(spliced.removed_bytes);
        self.put_row(txn, link.id, spliced.chunk);
        Ok(vec![Link { id: link.id, count, bytes, separator: link.separator.clone() }])
    }

    /// Writes items as chunks, the first of them under `id` and behind the separator, and returns the
    /// links to them.
    fn write_chunks(
        &mut self,
        txn: &mut Txn<'_>,
        (id, mut separator): (Option<u64>, Bytes),
        items: &[Bytes],
        end: End,
    ) -> Vec<Link> {
        let widths: Vec<usize> = items.iter().map(|item| chunk::width(item)).collect();
        let (mut rest, mut id, mut made) = (items, id, Vec::new());
        for length in cut(&widths, (1, self.site.slots_max(0)), end) {
            let (part, behind) = rest.split_at(length);
            rest = behind;
            let mut row = BytesMut::with_capacity(ROW_BYTES_MAX.min(256));
            row.put_u8(0);
            chunk::put(&mut row, part);
            let id = id.take().unwrap_or_else(|| self.new_id());
            self.put_row(txn, id, row.freeze());
            let bytes = part.iter().map(|item| item.len() as u64).sum();
            let next = self.separator(part, behind);
            let separator = std::mem::replace(&mut separator, next);
            made.push(Link { id, count: length as u64, bytes, separator });
        }
        if let Some(unused) = id {
            self.delete_row(txn, unused);
        }
        made
    }

    /// What stands between items and those behind them.
    fn separator(&self, items: &[Bytes], behind: &[Bytes]) -> Bytes {
        let (Some(order), Some(last), Some(next)) = (self.site.order, items.last(), behind.first())
        else {
            return Bytes::new();
        };
        let length = (order.separate)(last, next).unwrap_or(next.len());
        next.slice(..length.min(next.len()))
    }

    /// Writes links as nodes, the first of them under `id`, and returns the links to them.
    fn write_nodes(
        &mut self,
        txn: &mut Txn<'_>,
        id: Option<u64>,
        below: Vec<Link>,
        level: u32,
        end: End,
    ) -> Vec<Link> {
        let widths: Vec<usize> = below.iter().map(Link::width).collect();
        let (mut rest, mut id, mut made) = (&below[..], id, Vec::new());
        for length in cut(&widths, (2, self.site.slots_max(level)), end) {
            let (part, behind) = rest.split_at(length);
            rest = behind;
            let mut row = BytesMut::with_capacity(ROW_BYTES_MAX.min(16 * length));
            row.put_u8(level as u8);
            put_links(&mut row, part, self.site.is_ordered());
            let id = id.take().unwrap_or_else(|| self.new_id());
            self.put_row(txn, id, row.freeze());
            let (count, bytes) = part
                .iter()
                .fold((0, 0), |(count, bytes), link| (count + link.count, bytes + link.bytes));
            made.push(Link { id, count, bytes, separator: part[0].separator.clone() });
        }
        if let Some(unused) = id {
            self.delete_row(txn, unused);
        }
        made
    }

    /// Joins those of the touched rows that have become small to a neighbour, if both fit well.
    fn join_small(
        &mut self,
        txn: &mut Txn<'_>,
        new: &mut Vec<Link>,
        mut touched: Range<usize>,
        level: u32,
    ) -> Result<(), ViewError> {
        while touched.start < touched.end.min(new.len()) && new.len() > 1 {
            let at = touched.start;
            let joined = match self.is_small(txn, &new[at], level)? {
                // The one behind it first: what is popped from the front becomes small there.
                true if at + 1 < new.len() && self.join(txn, new, at, level)? => Some(at),
                true if at > 0 && self.join(txn, new, at - 1, level)? => Some(at - 1),
                _ => None,
            };
            match joined {
                Some(left) => touched = left..touched.end.saturating_sub(1).max(left + 1),
                None => touched.start += 1,
            }
        }
        Ok(())
    }

    /// Joins the rows of two neighbouring links, if they fit well into one; whether it did.
    fn join(
        &mut self,
        txn: &mut Txn<'_>,
        new: &mut Vec<Link>,
        left: usize,
        level: u32,
    ) -> Result<bool, ViewError> {
        let (one, other) = (new[left].clone(), new[left + 1].clone());
        let slots_max = quarters(self.site.slots_max(level));
        let known_too_many = (one.count + other.count) as usize > slots_max;
        if level == 0 && known_too_many {
            return Ok(false);
        }
        let front = self.node(txn, one.id, level)?;
        let back = self.node(txn, other.id, level)?;
        let slots = self.slots(&front, &one, level)? + self.slots(&back, &other, level)?;
        let width = front.len() + back.len();
        if slots > slots_max || width > quarters(ROW_BYTES_MAX) {
            return Ok(false);
        }
        let mut row = BytesMut::with_capacity(1 + width);
        row.put_u8(level as u8);
        row.put_slice(&front);
        row.put_slice(&back);
        self.put_row(txn, one.id, row.freeze());
        self.delete_row(txn, other.id);
        new[left].count += other.count;
        new[left].bytes += other.bytes;
        new.remove(left + 1);
        Ok(true)
    }

    /// Deletes all rows below a link, its own included. Chunks are not read for it.
    fn delete_below(
        &mut self,
        txn: &mut Txn<'_>,
        link: &Link,
        level: u32,
    ) -> Result<(), ViewError> {
        if level > 0 {
            let row = self.node(txn, link.id, level)?;
            for below in links(&row, self.site.is_ordered()) {
                self.delete_below(txn, &below?, level - 1)?;
            }
        }
        self.delete_row(txn, link.id);
        Ok(())
    }

    /// The chunk or the links in a row.
    fn node(&self, view: &dyn View, id: u64, level: u32) -> Result<Bytes, ViewError> {
        if let Some(row) = self.known.get(id) {
            return content(row, level);
        }
        let row = self.row(view, id)?;
        self.known.put(id, row.clone());
        content(row, level)
    }

    fn row(&self, view: &dyn View, id: u64) -> Result<Bytes, ViewError> {
        view.get(&self.site.row(id))?.ok_or(ViewError::Damaged)
    }

    fn put_row(&self, txn: &mut Txn<'_>, id: u64, row: Bytes) {
        self.known.put(id, row.clone());
        txn.put(self.site.row(id), row);
    }

    fn delete_row(&self, txn: &mut Txn<'_>, id: u64) {
        self.known.forget(id);
        txn.delete(self.site.row(id));
    }

    /// How many slots of a row are taken.
    fn slots(&self, row: &Bytes, link: &Link, level: u32) -> Result<usize, ViewError> {
        if level == 0 {
            return Ok(link.count as usize);
        }
        seen(row, self.site.is_ordered()).try_fold(0, |slots, link| link.map(|_| slots + 1))
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }
}

/// What a row of this level holds.
fn content(row: Bytes, level: u32) -> Result<Bytes, ViewError> {
    match row.first() {
        Some(found) if u32::from(*found) == level => Ok(row.slice(1..)),
        _ => Err(ViewError::Damaged),
    }
}

fn is_small(slots: usize, slots_max: usize, bytes: usize) -> bool {
    slots < slots_max / SMALL_PART && bytes < ROW_BYTES_MAX / SMALL_PART
}

fn quarters(most: usize) -> usize {
    most / 4 * JOINED_QUARTERS_MAX
}

pub(crate) fn clip(positions: &Range<u64>, to: &Range<u64>) -> Range<u64> {
    let start = positions.start.max(to.start);
    start..positions.end.min(to.end).max(start)
}

/// How slots of these widths are divided among rows: the lengths of the parts. A row takes at least
/// `least` slots whatever their widths, and at most `slots_max`.
fn cut(widths: &[usize], (least, slots_max): (usize, usize), end: End) -> Vec<usize> {
    // The byte before the chunk or the links.
    let bytes_max = ROW_BYTES_MAX - 1;
    let total: usize = widths.iter().sum();
    if widths.is_empty() {
        return Vec::new();
    }
    if widths.len() <= slots_max && (total <= bytes_max || widths.len() <= least) {
        return vec![widths.len()];
    }
    let fill = |widths: &mut dyn Iterator<Item = &usize>, most: usize, share: usize| {
        let (mut parts, mut slots, mut bytes) = (Vec::new(), 0, 0);
        for width in widths {
            let full = slots >= most || bytes + width > bytes_max || bytes >= share;
            if full && slots >= least {
                parts.push(slots);
                (slots, bytes) = (0, 0);
            }
            (slots, bytes) = (slots + 1, bytes + width);
        }
        parts.push(slots);
        parts
    };
    match end {
        End::Back => fill(&mut widths.iter(), slots_max, usize::MAX),
        End::Front => {
            let mut parts = fill(&mut widths.iter().rev(), slots_max, usize::MAX);
            parts.reverse();
            parts
        }
        End::Neither => {
            let parts = fill(&mut widths.iter(), slots_max, usize::MAX).len().max(2);
            fill(&mut widths.iter(), widths.len().div_ceil(parts), total.div_ceil(parts))
        }
    }
}

#[cfg(test)]
mod tests;
