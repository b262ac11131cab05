//! A sequence whose ends are near at hand: items in rows ([`Directory`]), but for the first few and
//! the last few, which the header keeps.
//!
//! ```text
//! end of the header's body = part part directory        head, tail, what is between them
//! part                     = count:varint length:varint chunk          types/chunk.rs
//! ```
//!
//! What pushes to an end or pops from it mostly changes the header alone, which it writes anyway. An
//! end that has more than [`END_ITEMS_MAX`] items or [`END_BYTES_MAX`] bytes gives those that are
//! further in to the directory, at once, until it is half full; one that is empty and popped from
//! takes as many back. So an item costs a sixteenth of a change of the directory on its way in, and
//! on its way out.

use std::cell::Cell;
use std::ops::{ControlFlow, Range};

use bytes::{BufMut, Bytes, BytesMut};

use crate::txn::Txn;
use crate::types::chunk::{self, Item};
use crate::types::directory::{Directory, Site, clip};
use crate::types::header::{put_varint, read_varint};
use crate::view::{Direction, View, ViewError};

/// Most items of an end.
pub(crate) const END_ITEMS_MAX: u64 = 32;
/// Most bytes of the chunk of an end.
pub(crate) const END_BYTES_MAX: usize = 1 << 10;

/// Some items of a sequence.
#[derive(Clone, Default, Debug)]
struct Part {
    chunk: Bytes,
    count: u64,
    /// Bytes of the items alone.
    bytes: u64,
}

impl Part {
    fn read(body: &mut Bytes) -> Option<Part> {
        let mut rest = &body[..];
        let count = read_varint(&mut rest)?;
        let length = usize::try_from(read_varint(&mut rest)?).ok()?;
        let chunk = rest.split_off(..length)?;
        let chunk = if chunk.is_empty() { Bytes::new() } else { body.slice_ref(chunk) };
        *body = body.slice(body.len() - rest.len()..);
        let bytes = chunk::item_bytes(&chunk).ok()?;
        Some(Part { chunk, count, bytes })
    }

    fn of(items: &[Bytes]) -> Part {
        let mut chunk = BytesMut::with_capacity(items.iter().map(|item| chunk::width(item)).sum());
        chunk::put(&mut chunk, items);
        let bytes = items.iter().map(|item| item.len() as u64).sum();
        Part { chunk: chunk.freeze(), count: items.len() as u64, bytes }
    }

    fn write(&self, out: &mut BytesMut) {
        put_varint(out, self.count);
        put_varint(out, self.chunk.len() as u64);
        out.put_slice(&self.chunk);
    }

    fn items(&self) -> Result<Vec<Bytes>, ViewError> {
        chunk::items(&self.chunk).collect()
    }

    fn is_full(&self) -> bool {
        self.count > END_ITEMS_MAX || self.chunk.len() > END_BYTES_MAX
    }

    fn splice(&mut self, positions: &Range<u64>, insert: &[Bytes]) -> Result<(), ViewError> {
        if positions.is_empty() && insert.is_empty() {
            return Ok(());
        }
        let spliced = chunk::splice(&self.chunk, positions, insert, &[])?;
        self.chunk = spliced.chunk;
        let inserted: u64 = insert.iter().map(|item| item.len() as u64).sum();
        self.bytes = (self.bytes + inserted).saturating_sub(spliced.removed_bytes);
        let removed = positions.end - positions.start;
        self.count = (self.count + insert.len() as u64).saturating_sub(removed);
        Ok(())
    }
}

/// How many of these items, from the first on, make half an end.
fn half<'a>(items: impl Iterator<Item = &'a Bytes>) -> usize {
    let (mut bytes, mut count) = (0, 0);
    for item in items.take(END_ITEMS_MAX as usize / 2) {
        bytes += chunk::width(item);
        if bytes > END_BYTES_MAX / 2 {
            break;
        }
        count += 1;
    }
    count
}

/// See the module's text.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    head: Part,
    middle: Directory,
    tail: Part,
}

impl Ended {
    /// A sequence of items that are in a directory.
    pub(crate) fn new(middle: Directory) -> Ended {
        Ended { head: Part::default(), middle, tail: Part::default() }
    }

    /// The sequence that a header tells of, with its items and their bytes; `None` if it is damaged.
    pub(crate) fn read(site: Site, mut body: Bytes, count: u64, bytes: u64) -> Option<Ended> {
        let (head, tail) = (Part::read(&mut body)?, Part::read(&mut body)?);
        let count = count.checked_sub(head.count)?.checked_sub(tail.count)?;
        let bytes = bytes.checked_sub(head.bytes)?.checked_sub(tail.bytes)?;
        let middle = Directory::read(site, &body, count, bytes)?;
        Some(Ended { head, middle, tail })
    }

    /// Appends what the header keeps.
    pub(crate) fn write(&self, out: &mut BytesMut) {
        self.head.write(out);
        self.tail.write(out);
        self.middle.write(out);
    }

    /// Bytes of the ends that the header keeps.
    pub(crate) fn end_bytes(&self) -> usize {
        self.head.chunk.len() + self.tail.chunk.len()
    }

    /// Where its rows lie.
    pub(crate) fn site(&self) -> &Site {
        self.middle.site()
    }

    /// How many items it has.
    pub(crate) fn count(&self) -> u64 {
        self.head.count + self.middle.count() + self.tail.count
    }

    /// Bytes of its items.
    pub(crate) fn bytes(&self) -> u64 {
        self.head.bytes + self.middle.bytes() + self.tail.bytes
    }

    /// The positions of the head, the middle and the tail.
    fn spans(&self) -> [Range<u64>; 3] {
        let (head, middle) = (self.head.count, self.head.count + self.middle.count());
        [0..head, head..middle, middle..middle + self.tail.count]
    }

    /// The item at a position.
    pub(crate) fn get(&self, view: &dyn View, at: u64) -> Result<Option<Bytes>, ViewError> {
        let [head, middle, tail] = self.spans();
        if head.contains(&at) {
            chunk::get(&self.head.chunk, at)
        } else if middle.contains(&at) {
            self.middle.get(view, at - middle.start)
        } else {
            chunk::get(&self.tail.chunk, at - tail.start)
        }
    }

    /// Visits the items at these positions in a direction, until `visit` breaks.
    pub(crate) fn walk(
        &self,
        view: &dyn View,
        positions: &Range<u64>,
        direction: Direction,
        visit: &mut dyn FnMut(Item<'_>) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        let mut places = [0, 1, 2];
        if direction == Direction::Backward {
            places.reverse();
        }
        let stopped = Cell::new(false);
        let visit = &mut |item: Item<'_>| {
            let flow = visit(item);
            stopped.set(flow.is_break());
            flow
        };
        for place in places {
            let span = &self.spans()[place];
            let local = local(positions, span);
            if local.is_empty() {
                continue;
            }
            if place == 1 {
                self.middle.walk(view, local, direction, visit)?;
            } else {
                let part = if place == 0 { &self.head } else { &self.tail };
                let _ = chunk::walk(&part.chunk, &local, direction, visit)?;
            }
            if stopped.get() {
                break;
            }
        }
        Ok(())
    }

    /// Replaces the items at `positions` by others.
    pub(crate) fn splice(
        &mut self,
        txn: &mut Txn<'_>,
        positions: Range<u64>,
        insert: &[Bytes],
    ) -> Result<(), ViewError> {
        let count = self.count();
        if positions.end > count || positions.start > positions.end {
            return Err(ViewError::Damaged);
        }
        if insert.is_empty() && !positions.is_empty() {
            self.refill(txn, &positions)?;
        }
        let spans = self.spans();
        let removed = spans.clone().map(|span| local(&positions, &span));
        // What is inserted goes to one part: an end where it can, so that pushes stay there.
        let [head, middle, _] = &spans;
        let place = match positions.start {
            0 => 0,
            at if at == count => 2,
            at if at <= head.end && head.end > 0 => 0,
            at if at < middle.end => 1,
            _ => 2,
        };
        let into = |part: usize| if part == place { insert } else { &[] };
        let at = |part: usize| {
            // Where nothing is removed an insertion still has its place.
            let Range { start, end } = removed[part];
            if start < end { start..end } else { insertion(&positions, &spans[part]) }
        };
        self.head.splice(&at(0), into(0))?;
        if !removed[1].is_empty() || !into(1).is_empty() {
            self.middle.splice(txn, at(1), into(1))?;
        }
        self.tail.splice(&at(2), into(2))?;
        self.spill(txn)
    }

    /// Moves what is too much for an end into the directory.
    fn spill(&mut self, txn: &mut Txn<'_>) -> Result<(), ViewError> {
        if self.head.is_full() {
            let items = self.head.items()?;
            let (stay, go) = items.split_at(half(items.iter()));
            self.middle.splice(txn, 0..0, go)?;
            self.head = Part::of(stay);
        }
        if self.tail.is_full() {
            let items = self.tail.items()?;
            let (go, stay) = items.split_at(items.len() - half(items.iter().rev()));
            let end = self.middle.count();
            self.middle.splice(txn, end..end, go)?;
            self.tail = Part::of(stay);
        }
        Ok(())
    }

    /// Fetches items for an end that is empty and about to lose a few: the next to go will be those.
    fn refill(&mut self, txn: &mut Txn<'_>, removed: &Range<u64>) -> Result<(), ViewError> {
        let count = self.middle.count();
        let most = END_ITEMS_MAX / 2;
        let few = removed.end - removed.start < most / 2;
        if !few || count == 0 {
            return Ok(());
        }
        if removed.start == 0 && self.head.count == 0 {
            let items = self.some(txn, 0..count.min(most), Direction::Forward)?;
            let items = &items[..half(items.iter())];
            if items.is_empty() {
                return Ok(());
            }
            self.middle.splice(txn, 0..items.len() as u64, &[])?;
            self.head = Part::of(items);
        } else if removed.end == self.count() && self.tail.count == 0 {
            let from = count.saturating_sub(most);
            let mut items = self.some(txn, from..count, Direction::Backward)?;
            items.truncate(half(items.iter()));
            items.reverse();
            if items.is_empty() {
                return Ok(());
            }
            self.middle.splice(txn, count - items.len() as u64..count, &[])?;
            self.tail = Part::of(&items);
        }
        Ok(())
    }

    fn some(
        &self,
        view: &dyn View,
        positions: Range<u64>,
        direction: Direction,
    ) -> Result<Vec<Bytes>, ViewError> {
        let mut items = Vec::new();
        self.middle.walk(view, positions, direction, &mut |item| {
            items.push(item.share());
            ControlFlow::Continue(())
        })?;
        Ok(items)
    }
}

/// The part of `positions` that lies in a span, as positions of the span.
fn local(positions: &Range<u64>, span: &Range<u64>) -> Range<u64> {
    let clipped = clip(positions, span);
    clipped.start.saturating_sub(span.start)..clipped.end.saturating_sub(span.start)
}

/// Where in a span something is inserted that comes at the start of `positions`.
fn insertion(positions: &Range<u64>, span: &Range<u64>) -> Range<u64> {
    let at = positions.start.clamp(span.start, span.end) - span.start;
    at..at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use crate::view::MemoryView;
    use wire::ids::{TableId, Version};
    use wire::placement::Placement;

    const SITE: Site = Site {
        table: TableId(0),
        placement: Placement::MIN,
        generation: Version { index: 1, ordinal: 0 },
        order: None,
    };

    struct Stored {
        view: MemoryView,
        ended: Ended,
    }

    impl Stored {
        fn new() -> Stored {
            Stored { view: MemoryView::new(0), ended: Ended::new(Directory::new(SITE)) }
        }

        /// How many rows it wrote. Each step begins with what a header would have kept.
        fn splice(&mut self, positions: Range<u64>, insert: &[Bytes]) -> usize {
            let mut body = BytesMut::new();
            self.ended.write(&mut body);
            let (count, bytes) = (self.ended.count(), self.ended.bytes());
            self.ended = Ended::read(SITE, body.freeze(), count, bytes).expect("its own body");
            let mut txn = Txn::new(&self.view, Version { index: 2, ordinal: 0 });
            self.ended.splice(&mut txn, positions, insert).expect("sound rows");
            let effects = txn.into_effects();
            let writes = effects.writes.len();
            self.view.apply(effects);
            writes
        }

        fn range(&self, positions: Range<u64>, direction: Direction, most: usize) -> Vec<Bytes> {
            let mut items = Vec::new();
            self.ended
                .walk(&self.view, &positions, direction, &mut |item| {
                    items.push(item.share());
                    if items.len() == most {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                })
                .expect("sound rows");
            items
        }
    }

    fn item(random: &mut Random) -> Bytes {
        let length = match random.below(100) {
            0 => 6_000,
            1..4 => 700,
            _ => 1 + random.below(40),
        };
        Bytes::from(random.bytes(length))
    }

    #[test]
    fn positions_are_those_of_a_vector() {
        let mut random = Random::new(51);
        let mut stored = Stored::new();
        let mut model: Vec<Bytes> = Vec::new();
        let mut shapes = std::collections::BTreeSet::new();
        for step in 0..8_000 {
            let growing = step / 800 % 2 == 0;
            let length = model.len();
            let removed = match random.below(10) {
                0..4 => 0,
                9 => random.below(length.min(80) + 1),
                _ => 1,
            };
            let inserted = match random.below(10) {
                0..5 if !growing => 0,
                0..8 => usize::from(removed == 0 || random.below(2) == 0),
                _ => random.below(60),
            };
            let start = match random.below(5) {
                0 | 1 => 0,
                2 | 3 => length.saturating_sub(removed),
                _ => random.below(length + 1),
            };
            let end = (start + removed).min(length);
            let insert: Vec<Bytes> = (0..inserted).map(|_| item(&mut random)).collect();
            stored.splice(start as u64..end as u64, &insert);
            model.splice(start..end, insert);
            let ended = &stored.ended;
            assert_eq!(ended.count(), model.len() as u64, "step {step}");
            let bytes: usize = model.iter().map(Bytes::len).sum();
            assert_eq!(ended.bytes(), bytes as u64, "step {step}");
            assert!(!ended.head.is_full() && !ended.tail.is_full());
            shapes
                .insert([ended.head.count, ended.middle.count(), ended.tail.count].map(|n| n > 0));
            let at = random.below(model.len() + 2);
            let found = ended.get(&stored.view, at as u64).expect("sound rows");
            assert_eq!(found.as_ref(), model.get(at), "step {step}");
            let (from, most) = (random.below(model.len() + 1), 1 + random.below(100));
            let until = from + random.below(model.len() + 1 - from);
            let positions = from as u64..until as u64;
            let mut expected = model[from..until].to_vec();
            let seen = stored.range(positions.clone(), Direction::Forward, most);
            assert!(seen == expected[..most.min(expected.len())], "step {step}");
            expected.reverse();
            let seen = stored.range(positions, Direction::Backward, most);
            assert!(seen == expected[..most.min(expected.len())], "step {step}");
        }
        assert!(shapes.len() >= 7, "ends and middle with and without items: {shapes:?}");
        let count = stored.ended.count();
        stored.splice(0..count, &[]);
        assert!(stored.view.rows.is_empty());
    }

    #[test]
    fn ends_seldom_touch_a_row() {
        let text = |number: u64| Bytes::from(format!("task {number}"));
        let mut stored = Stored::new();
        let mut writes = 0;
        for number in 0..3_000 {
            let count = stored.ended.count();
            writes += stored.splice(count..count, &[text(number)]);
        }
        assert!(writes <= 3_000 / 16 * 4, "{writes} rows for 3,000 pushes");
        writes = 0;
        for number in 3_000..13_000 {
            let count = stored.ended.count();
            writes += stored.splice(count..count, &[text(number)]);
            assert_eq!(
                stored.ended.get(&stored.view, 0).expect("sound"),
                Some(text(number - 3_000))
            );
            writes += stored.splice(0..1, &[]);
        }
        assert!(writes <= 10_000 / 16 * 10, "{writes} rows for 10,000 pushes and pops");
        writes = 0;
        for _ in 0..1_000 {
            writes += stored.splice(0..0, &[text(0)]);
            writes += stored.splice(0..1, &[]);
        }
        assert!(writes <= 8, "{writes} rows for pushes and pops of one end");
    }

    #[test]
    fn damage_is_told_and_never_a_panic() {
        let mut random = Random::new(52);
        let mut stored = Stored::new();
        for number in 0..100u64 {
            let count = stored.ended.count();
            stored.splice(count / 2..count / 2, &[Bytes::from(number.to_string())]);
            stored.splice(0..0, &[Bytes::from(number.to_string())]);
        }
        let mut body = BytesMut::new();
        stored.ended.write(&mut body);
        let (count, bytes) = (stored.ended.count(), stored.ended.bytes());
        for _ in 0..20_000 {
            let mut damaged = body.to_vec();
            let at = random.below(damaged.len());
            damaged[at] = random.next() as u8;
            damaged.truncate(damaged.len() - random.below(2) * random.below(damaged.len()));
            let Some(mut ended) = Ended::read(SITE, damaged.into(), count, bytes) else { continue };
            let mut txn = Txn::new(&stored.view, Version { index: 3, ordinal: 0 });
            let at = random.next() % count;
            let _ = ended.get(&txn, at);
            let _ = ended.splice(&mut txn, at..at + 1, &[Bytes::from_static(b"x")]);
        }
        assert!(Ended::read(SITE, Bytes::from_static(b"\x01\0\0\0\0\0\0"), 0, 0).is_none());
    }
}
