//! Many changes of a directory whose items have an order, in one walk: each row on the way of several
//! is read once, and written once but for those that are joined.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::link::{Link, links, put_links, seen};
use super::{Directory, End, Order, ROW_BYTES_MAX, content, is_small};
use crate::txn::Txn;
use crate::types::chunk;
use crate::view::{TOUCHED_ELEMENTS_MIN, TOUCHED_ROWS_MAX, View, ViewError};

/// One change of a directory whose items have an order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Edit<'a> {
    /// Takes out an item that is there.
    Remove(&'a [u8]),
    /// Puts in an item that is not there.
    Insert(&'a [u8]),
}

impl<'a> Edit<'a> {
    fn item(self) -> &'a [u8] {
        match self {
            Edit::Remove(item) | Edit::Insert(item) => item,
        }
    }

    fn inserted(self) -> Option<&'a [u8]> {
        match self {
            Edit::Insert(item) => Some(item),
            Edit::Remove(_) => None,
        }
    }
}

/// Edits of the items below one link, and whether these are the first or the last of all.
#[derive(Clone, Copy)]
struct Part<'a> {
    edits: &'a [Edit<'a>],
    is_first: bool,
    is_last: bool,
}

/// A row on the way to what is edited.
struct Step<'a> {
    link: Link,
    /// Which link of its node that is, and where it stands there.
    at: usize,
    span: Range<usize>,
    part: Part<'a>,
    /// What the row holds.
    row: Bytes,
    /// The steps to what is edited below it, among those one level below.
    below: Range<usize>,
}

/// All steps, those of a level together: the root's alone at the end, those to chunks first.
type Way<'a> = Vec<Vec<Step<'a>>>;

/// What the edits below a link came to, beside the links that are there instead of it.
#[derive(Clone, Copy)]
struct Done {
    /// At which end of everything what makes rows larger was, if at one: the last of those that were met.
    end: End,
    /// Whether the one row that is left has become small.
    is_small: bool,
}

impl Directory {
    /// Makes these edits, which come in the order of their items, an item taken out before an equal one
    /// put in.
    ///
    /// *Errors*: `Damaged`, also if an item to be taken out is not there, or one to be put in is.
    pub(crate) fn edit(&mut self, txn: &mut Txn<'_>, edits: &[Edit<'_>]) -> Result<(), ViewError> {
        let Some(order) = self.site.order else {
            unreachable!("only items in an order are edited")
        };
        if edits.is_empty() {
            return Ok(());
        }
        let Some(root) = self.root.take() else {
            let insert = edits.iter().map(|edit| edit.inserted().map(Bytes::copy_from_slice));
            let insert = insert.collect::<Option<Vec<_>>>().ok_or(ViewError::Damaged)?;
            return self.splice(txn, 0..0, &insert);
        };
        let way = self.way(txn, order, root, edits)?;
        let mut top = Vec::new();
        let done = match &way[..] {
            [below @ .., root] => self.edit_row(txn, order, (&root[0], below), &mut top)?,
            [] => unreachable!("there is a root"),
        };
        self.put_root(txn, top, done.end)
    }

    /// The way down to all that is edited. Of each level all rows are looked up together.
    fn way<'a>(
        &self,
        view: &dyn View,
        order: &Order,
        root: Link,
        edits: &'a [Edit<'a>],
    ) -> Result<Way<'a>, ViewError> {
        let is_large = root.count >= TOUCHED_ELEMENTS_MIN;
        let part = Part { edits, is_first: true, is_last: true };
        // Not to be remembered: each is passed once.
        let row = content(self.row(view, root.id)?, self.height)?;
        let root = Step { link: root, at: 0, span: 0..0, part, row, below: 0..0 };
        let mut way = vec![vec![root]];
        for level in (0..self.height).rev() {
            let mut steps = Vec::new();
            for step in way[0].iter_mut() {
                let from = steps.len();
                self.divide(order, step, &mut steps)?;
                step.below = from..steps.len();
            }
            for steps in steps.chunks_mut(TOUCHED_ROWS_MAX) {
                if is_large && steps.len() > 1 {
                    let rows = steps.iter().map(|step: &Step<'_>| self.site.row(step.link.id));
                    view.touch(&rows.collect::<Vec<_>>());
                }
                for step in steps {
                    step.row = content(self.row(view, step.link.id)?, level)?;
                }
            }
            way.insert(0, steps);
        }
        Ok(way)
    }

    /// Divides the edits below a node among its links.
    fn divide<'a>(
        &self,
        order: &Order,
        node: &Step<'a>,
        steps: &mut Vec<Step<'a>>,
    ) -> Result<(), ViewError> {
        let (mut edits, mut all) = (node.part.edits, seen(&node.row, true));
        let mut next = all.next().transpose()?;
        for at in 0.. {
            let Some(link) = next.take().filter(|_| !edits.is_empty()) else { break };
            next = all.next().transpose()?;
            let here = next.as_ref().map_or(edits.len(), |next| {
                let is_before =
                    |edit: &&Edit<'_>| (order.compare)(edit.item(), next.separator).is_lt();
                edits.iter().take_while(is_before).count()
            });
            if here == 0 {
                continue;
            }
            let (these, others) = edits.split_at(here);
            edits = others;
            let part = Part {
                edits: these,
                is_first: node.part.is_first && at == 0,
                is_last: node.part.is_last && next.is_none(),
            };
            let (span, link) = (link.at.clone(), link.owned(&node.row));
            steps.push(Step { link, at, span, part, row: Bytes::new(), below: 0..0 });
        }
        if edits.is_empty() { Ok(()) } else { Err(ViewError::Damaged) }
    }

    /// Edits what is below a link, and appends the links that come instead of it.
    fn edit_row(
        &mut self,
        txn: &mut Txn<'_>,
        order: &Order,
        (step, way): (&Step<'_>, &[Vec<Step<'_>>]),
        made: &mut Vec<Link>,
    ) -> Result<Done, ViewError> {
        let [way @ .., steps] = way else { return self.edit_chunk(txn, order, step, made) };
        let (link, row, level) = (&step.link, &step.row, way.len() as u32 + 1);
        // Mostly the links that are touched alone are other ones then, and the rest of the node is
        // copied as it is.
        let mut new = BytesMut::with_capacity(1 + row.len() + step.part.edits.len());
        new.put_u8(level as u8);
        let (mut copied, mut only_links, mut end) = (0, true, End::Neither);
        let (mut below, mut touched) = (Vec::new(), Vec::new());
        let (mut count, mut bytes) = (link.count, link.bytes);
        for child in &steps[step.below.clone()] {
            let from = below.len();
            let done = self.edit_row(txn, order, (child, way), &mut below)?;
            if done.end != End::Neither {
                end = done.end;
            }
            let instead = &below[from..];
            only_links &= instead.len() == 1 && !done.is_small;
            touched.push((child.at, instead.len()));
            new.put_slice(&row[copied..child.span.start]);
            put_links(&mut new, instead, true);
            copied = child.span.end;
            for link in instead {
                count = count.saturating_add(link.count);
                bytes = bytes.saturating_add(link.bytes);
            }
            count = count.saturating_sub(child.link.count);
            bytes = bytes.saturating_sub(child.link.bytes);
        }
        new.put_slice(&row[copied..]);
        if only_links && new.len() <= ROW_BYTES_MAX {
            self.put_row(txn, link.id, new.freeze());
            let is_first = touched.first().is_some_and(|(at, _)| *at == 0);
            let separator = if is_first { &below[0].separator } else { &link.separator };
            made.push(Link { id: link.id, count, bytes, separator: separator.clone() });
            return Ok(Done { end, is_small: false });
        }
        let links = self.relink(txn, (row, level), &touched, below)?;
        let from = made.len();
        made.extend(self.write_nodes(txn, Some(link.id), links, level, end));
        let is_small = match &made[from..] {
            [only] => self.is_small(txn, only, level)?,
            _ => false,
        };
        Ok(Done { end, is_small })
    }

    /// The links of a node with those that were made in the place of those that were touched (which,
    /// and how many for each), of which the small ones are joined to a neighbour.
    fn relink(
        &mut self,
        txn: &mut Txn<'_>,
        (row, level): (&Bytes, u32),
        touched: &[(usize, usize)],
        made: Vec<Link>,
    ) -> Result<Vec<Link>, ViewError> {
        let (mut all, mut changed) = (Vec::new(), Vec::new());
        let (mut made, mut touched) = (made.into_iter(), touched.iter().peekable());
        for (at, old) in links(row, true).enumerate() {
            match touched.next_if(|(touched, _)| *touched == at) {
                Some((_, count)) => {
                    let from = all.len();
                    all.extend(made.by_ref().take(*count));
                    changed.push(from..all.len());
                }
                None => all.push(old?),
            }
        }
        // From the end: what is joined moves only what is behind it.
        for range in changed.into_iter().rev() {
            self.join_small(txn, &mut all, range, level - 1)?;
        }
        Ok(all)
    }

    fn edit_chunk(
        &mut self,
        txn: &mut Txn<'_>,
        order: &Order,
        Step { link, part, row: old, .. }: &Step<'_>,
        made: &mut Vec<Link>,
    ) -> Result<Done, ViewError> {
        let length = part.edits.iter().fold(1 + old.len(), |length, edit| match edit {
            Edit::Insert(item) => length + chunk::width(item),
            Edit::Remove(item) => length.saturating_sub(chunk::width(item)),
        });
        let mut new = BytesMut::with_capacity(length);
        new.put_u8(0);
        let (mut count, mut bytes) = (link.count, link.bytes);
        // Bytes of the old chunk that are copied, and where the next of its items begins.
        let (mut copied, mut behind) = (0, 0);
        let mut spans = chunk::spans(old);
        let mut span = spans.next().transpose()?;
        let mut is_behind_all = false;
        for (number, edit) in part.edits.iter().enumerate() {
            let mut is_there = false;
            while let Some(at) = &span {
                let met = (order.compare)(&old[at.clone()], edit.item());
                is_there = met.is_eq();
                if met.is_ge() {
                    break;
                }
                behind = at.end;
                span = spans.next().transpose()?;
            }
            is_behind_all |= number == 0 && span.is_none();
            new.put_slice(&old[copied..behind]);
            copied = behind;
            match (edit, &span) {
                (Edit::Insert(item), _) if !is_there => {
                    chunk::put_item(&mut new, item);
                    count = count.saturating_add(1);
                    bytes = bytes.saturating_add(item.len() as u64);
                }
                (Edit::Remove(_), Some(at)) if is_there => {
                    count = count.saturating_sub(1);
                    bytes = bytes.saturating_sub(at.len() as u64);
                    (copied, behind) = (at.end, at.end);
                    span = spans.next().transpose()?;
                }
                _ => return Err(ViewError::Damaged),
            }
        }
        new.put_slice(&old[copied..]);
        let end = match part {
            Part { is_last: true, .. } if is_behind_all => End::Back,
            Part { is_first: true, .. } if behind == 0 => End::Front,
            _ => End::Neither,
        };
        let slots_max = self.site.slots_max(0);
        let fits = count <= slots_max as u64 && new.len() <= ROW_BYTES_MAX;
        if count == 0 || !(fits || count == 1) {
            let items = chunk::items(&new.freeze().slice(1..)).collect::<Result<Vec<_>, _>>()?;
            let place = (Some(link.id), link.separator.clone());
            made.extend(self.write_chunks(txn, place, &items, end));
            return Ok(Done { end, is_small: false });
        }
        let has_shrunk = count < link.count || bytes < link.bytes;
        let is_small = has_shrunk && is_small(count as usize, slots_max, new.len());
        self.put_row(txn, link.id, new.freeze());
        made.push(Link { id: link.id, count, bytes, separator: link.separator.clone() });
        Ok(Done { end, is_small })
    }
}
