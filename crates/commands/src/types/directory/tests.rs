//! Directories against a vector and a set, and how many rows a change or a look costs.

use std::cell::Cell;
use std::collections::BTreeSet;

use super::*;
use crate::testing::Random;
use crate::txn::Counters;
use crate::view::MemoryView;
use wire::placement::PlacementRange;

const SITE: Site = Site {
    table: TableId(0),
    placement: Placement::MIN,
    generation: Version { index: 1, ordinal: 0 },
    order: None,
};

/// The order of bytes.
static BYTES: Order = Order { compare: <[u8]>::cmp, separate };

fn separate(low: &[u8], high: &[u8]) -> Option<usize> {
    let alike = low.iter().zip(high).take_while(|(low, high)| low == high).count();
    (low < high).then_some(alike + 1)
}

/// Counts the rows that are read.
struct Counting<'a> {
    view: &'a dyn View,
    reads: Cell<usize>,
}

impl View for Counting<'_> {
    fn now_ms(&self) -> u64 {
        self.view.now_ms()
    }

    fn table(&self) -> TableId {
        self.view.table()
    }

    fn range(&self) -> PlacementRange {
        self.view.range()
    }

    fn get(&self, row: &[u8]) -> Result<Option<Bytes>, ViewError> {
        self.reads.set(self.reads.get() + 1);
        self.view.get(row)
    }

    fn scan(
        &self,
        _: &[u8],
        _: &[u8],
        _: Direction,
        _: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        panic!("a directory finds its rows by their ids");
    }

    fn counters(&self) -> Counters {
        self.view.counters()
    }

    fn flushed_through(&self) -> Option<Version> {
        self.view.flushed_through()
    }

    fn random(&self) -> u64 {
        self.view.random()
    }

    fn notes(&self) -> &crate::notes::Notes {
        self.view.notes()
    }
}

/// A directory and the rows it lies in.
struct Stored {
    view: MemoryView,
    directory: Directory,
}

/// What a step cost.
#[derive(Clone, Copy, Default, Debug)]
struct Cost {
    reads: usize,
    writes: usize,
    bytes: usize,
}

impl Stored {
    fn new(ordered: bool) -> Stored {
        let order = ordered.then_some(&BYTES);
        let directory = Directory::new(Site { order, ..SITE });
        Stored { view: MemoryView::new(0), directory }
    }

    fn splice(&mut self, positions: Range<u64>, insert: &[Bytes]) -> Cost {
        self.change(|directory, txn| directory.splice(txn, positions, insert))
    }

    fn edit(&mut self, edits: &[Edit<'_>]) -> Cost {
        self.change(|directory, txn| directory.edit(txn, edits))
    }

    fn change(
        &mut self,
        change: impl FnOnce(&mut Directory, &mut Txn<'_>) -> Result<(), ViewError>,
    ) -> Cost {
        let counting = Counting { view: &self.view, reads: Cell::new(0) };
        let mut txn = Txn::new(&counting, Version { index: 2, ordinal: 0 });
        change(&mut self.directory, &mut txn).expect("sound rows");
        let effects = txn.into_effects();
        let bytes = |write: &crate::txn::RowWrite| write.value.as_ref().map_or(0, Bytes::len);
        let cost = Cost {
            reads: counting.reads.get(),
            writes: effects.writes.len(),
            bytes: effects.writes.iter().map(bytes).sum(),
        };
        self.view.apply(effects);
        cost
    }

    /// As a header would have kept it.
    fn reopen(&mut self) {
        let mut body = BytesMut::new();
        self.directory.write(&mut body);
        let (count, bytes) = (self.directory.count(), self.directory.bytes());
        if count > 0 {
            let read = Directory::read(self.directory.site, &body, count, bytes);
            self.directory = read.expect("its own body");
        }
    }

    /// Every row compared with what is said of it above; all items.
    fn check(&self) -> Vec<Bytes> {
        let (mut rows, mut items) = (0, Vec::new());
        if let Some(root) = &self.directory.root {
            check(
                &self.directory,
                &self.view,
                (root, self.directory.height),
                (&mut rows, &mut items),
            );
        }
        assert_eq!(self.view.rows.len(), rows, "rows that nothing links to");
        items
    }

    fn reads(&self, look: impl FnOnce(&Directory, &dyn View)) -> usize {
        let counting = Counting { view: &self.view, reads: Cell::new(0) };
        look(&self.directory, &counting);
        counting.reads.get()
    }
}

fn check(
    directory: &Directory,
    view: &dyn View,
    (link, level): (&Link, u32),
    (rows, items): (&mut usize, &mut Vec<Bytes>),
) {
    *rows += 1;
    assert!(link.id < directory.next_id);
    let is_root = directory.root.as_ref() == Some(link);
    let row = directory.node(view, link.id, level).expect("a row");
    let from = items.len();
    let slots = if level == 0 {
        items.extend(chunk::items(&row).map(|item| item.expect("an item")));
        items.len() - from
    } else {
        let below = links(&row, directory.site.is_ordered());
        let below: Vec<Link> = below.map(|link| link.expect("a link")).collect();
        for link in &below {
            check(directory, view, (link, level - 1), (rows, items));
        }
        below.len()
    };
    assert!(
        (1..=directory.site.slots_max(level)).contains(&slots),
        "{slots} slots at level {level}"
    );
    let undividable = if level == 0 { 1 } else { 2 };
    assert!(slots <= undividable || row.len() < ROW_BYTES_MAX, "{} bytes", row.len());
    assert!(!is_root || level == 0 || slots > 1, "a root with one link");
    let below = &items[from..];
    assert_eq!(link.count, below.len() as u64);
    assert_eq!(link.bytes, below.iter().map(|item| item.len() as u64).sum::<u64>());
    // Of the first of all it says nothing.
    if directory.site.is_ordered() && from > 0 {
        assert!(link.separator <= below[0], "above an item that is behind it");
        let before = items[..from].last();
        assert!(before.is_none_or(|item| item < &link.separator), "not above what is before it");
    }
}

fn item(random: &mut Random) -> Bytes {
    let length = match random.below(200) {
        0 => 20_000,
        1..4 => 3_000,
        _ => 40,
    };
    Bytes::from(random.bytes(length))
}

#[test]
fn positions_are_those_of_a_vector() {
    let mut random = Random::new(41);
    let mut stored = Stored::new(false);
    let mut model: Vec<Bytes> = Vec::new();
    let (mut highest, mut emptied) = (0, 0);
    for step in 0..100_000 {
        // Grows, shrinks and grows again; by one, or by many.
        let growing = step / 12_500 % 2 == 0;
        let start = match random.below(6) {
            0 | 1 => 0,
            2 | 3 => model.len(),
            _ => random.below(model.len() + 1),
        };
        let most = if random.below(2_000) == 0 { 1_500 } else { 3 };
        let (removed, inserted) = match (growing, random.below(4)) {
            (_, 0) => (1, 1),
            (true, 1..) => (0, 1 + random.below(most)),
            (false, _) => (1 + random.below(most), 0),
        };
        // Once in a while nothing is left.
        let all = !growing && random.below(5_000) == 0;
        let start = if removed > 0 { start.min(model.len().saturating_sub(1)) } else { start };
        let (start, removed) = if all { (0, model.len()) } else { (start, removed) };
        let end = (start + removed).min(model.len());
        let insert: Vec<Bytes> = (0..inserted).map(|_| item(&mut random)).collect();
        stored.splice(start as u64..end as u64, &insert);
        model.splice(start..end, insert);
        assert_eq!(stored.directory.count(), model.len() as u64);
        highest = highest.max(stored.directory.height);
        emptied += usize::from(model.is_empty());
        if step % 16 == 0 {
            stored.reopen();
            let at = random.below(model.len() + 2);
            let found = stored.directory.get(&stored.view, at as u64).expect("sound rows");
            assert_eq!(found.as_ref(), model.get(at), "step {step}");
        }
        if step % 2_999 == 0 {
            assert!(stored.check() == model, "step {step}");
            assert_walks(&stored, &model, &mut random);
        }
    }
    assert!(highest >= 2 && emptied > 0, "{highest} levels, empty {emptied} times");
    let count = stored.directory.count();
    stored.splice(0..count, &[]);
    assert!(stored.view.rows.is_empty());
}

fn assert_walks(stored: &Stored, model: &[Bytes], random: &mut Random) {
    let start = random.below(model.len() + 1);
    let end = start + random.below(model.len() + 10 - start);
    for direction in [Direction::Forward, Direction::Backward] {
        let mut seen = Vec::new();
        let limit = 1 + random.below(1_000);
        let walked =
            stored.directory.walk(&stored.view, start as u64..end as u64, direction, &mut |item| {
                seen.push(item.share());
                if seen.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        walked.expect("sound rows");
        let mut expected = model[start..end.min(model.len())].to_vec();
        if direction == Direction::Backward {
            expected.reverse();
        }
        expected.truncate(limit);
        assert_eq!(seen, expected);
    }
}

#[test]
fn ranks_are_those_of_a_set() {
    let mut random = Random::new(42);
    let mut stored = Stored::new(true);
    let mut model: BTreeSet<Bytes> = BTreeSet::new();
    let mut sorted: Vec<Bytes> = Vec::new();
    for step in 0..100_000 {
        let growing = step / 25_000 % 2 == 0;
        let key = match random.below(300) {
            0 => Bytes::from([b"long".as_slice(), &vec![b'x'; 5_000], &random.bytes(4)].concat()),
            _ => Bytes::from((random.next() % 60_000).to_be_bytes().to_vec()),
        };
        let rank = stored.directory.rank(&stored.view, &|item| item < &key[..]);
        let rank = rank.expect("sound rows");
        let at = stored.directory.get(&stored.view, rank).expect("sound rows");
        assert_eq!(at.as_ref() == Some(&key), model.contains(&key), "step {step}");
        if at.as_ref() == Some(&key) {
            if !growing || random.below(4) == 0 {
                stored.splice(rank..rank + 1, &[]);
                model.remove(&key);
            }
        } else if growing || random.below(4) == 0 {
            stored.edit(&[Edit::Insert(&key)]);
            model.insert(key.clone());
        } else if rank < stored.directory.count() {
            // In the place of the next one it stands between the same neighbours.
            let next = at.expect("an item at a rank");
            let edits = [Edit::Insert(&key), Edit::Remove(&next)];
            let edits = if random.below(2) == 0 { &edits[..] } else { &edits[1..] };
            stored.edit(edits);
            model.remove(&next);
            model.extend((edits.len() > 1).then(|| key.clone()));
        }
        if step % 2_999 == 0 {
            stored.reopen();
            sorted = model.iter().cloned().collect();
            assert!(stored.check() == sorted, "step {step}");
        }
        if step % 2_999 < 40 {
            let probe = random.pick(&sorted).clone();
            let rank = stored.directory.rank(&stored.view, &|item| item < &probe[..]);
            let expected = model.range::<Bytes, _>(..&probe).count() as u64;
            assert_eq!(rank.expect("sound rows"), expected);
        }
    }
    assert!(stored.directory.height >= 1);
}

/// Many edits at once, of one place or of all, at the ends too; what was removed may be the whole.
#[test]
fn edits_made_together_are_those_of_a_set() {
    let mut random = Random::new(45);
    let mut stored = Stored::new(true);
    let mut model: BTreeSet<Bytes> = BTreeSet::new();
    let (mut highest, mut emptied, mut ends) = (0, 0, [0; 2]);
    for step in 0..6_000 {
        let growing = step / 750 % 2 == 0;
        let (from, width) = match random.below(6) {
            0 => (0, 100),
            1 => (u64::from(u32::MAX) + step, 100),
            2 => (random.next() % 200_000, 400),
            _ => (0, 200_000),
        };
        ends[usize::from(from > 0)] += u64::from(width == 100);
        let mut edits = std::collections::BTreeMap::new();
        let most = if random.below(4) == 0 { 400 } else { 8 };
        for _ in 0..1 + random.below(most) {
            let number = (from + random.next() % width).to_be_bytes();
            let item = match random.below(300) {
                0 => Bytes::from([&number[..], &vec![b'x'; 3_000]].concat()),
                _ => Bytes::from(number.to_vec()),
            };
            // Of two that are near, one may go and the other come.
            let near = model.range(item.clone()..).next().filter(|_| random.below(3) > 0);
            let item = near.cloned().filter(|_| !growing || random.below(3) == 0).unwrap_or(item);
            edits.insert(item.clone(), model.contains(&item));
        }
        if !growing && random.below(200) == 0 {
            edits = model.iter().map(|item| (item.clone(), true)).collect();
        }
        let list: Vec<Edit<'_>> = edits
            .iter()
            .map(|(item, is_there)| if *is_there { Edit::Remove(item) } else { Edit::Insert(item) })
            .collect();
        let cost = stored.edit(&list);
        // Each row is read once, but for those that are joined to a neighbour.
        assert!(cost.reads <= 3 * (cost.writes + 2), "{cost:?}");
        for (item, is_there) in &edits {
            if *is_there {
                model.remove(item)
            } else {
                model.insert(item.clone())
            };
        }
        assert_eq!(stored.directory.count(), model.len() as u64, "step {step}");
        highest = highest.max(stored.directory.height);
        emptied += usize::from(model.is_empty());
        if step % 16 == 0 {
            stored.reopen();
        }
        if step % 97 == 0 || model.is_empty() {
            assert!(stored.check().iter().eq(&model), "step {step}");
        }
    }
    assert!(highest >= 2 && emptied > 0, "{highest} levels, empty {emptied} times");
    assert!(ends[0] > 0 && ends[1] > 0, "{ends:?}");
}

#[test]
fn what_grows_at_an_end_leaves_full_rows_behind() {
    let number = |number: u64| Bytes::from(number.to_be_bytes().to_vec());
    for backward in [false, true] {
        let mut stored = Stored::new(true);
        for batch in 0..400 {
            let numbers = (0..25).map(|at| batch * 25 + at);
            let mut items: Vec<Bytes> = match backward {
                false => numbers.map(number).collect(),
                true => numbers.map(|at| number(100_000 - at)).collect(),
            };
            items.sort();
            let edits: Vec<Edit<'_>> = items.iter().map(|item| Edit::Insert(item)).collect();
            stored.edit(&edits);
        }
        assert_eq!(stored.check().len(), 10_000);
        let full = 10_000 / ORDERED_ITEMS_MAX * (LINKS_MAX + 1) / LINKS_MAX;
        let rows = stored.view.rows.len();
        assert!(rows <= full * 21 / 20 + 4, "{rows} rows, full ones were {full}");
    }
}

/// What begins a row that has lost its first items may be below where that row is said to begin.
#[test]
fn the_first_items_may_go_and_lower_ones_come() {
    let number = |number: u32| Bytes::from(number.to_be_bytes().to_vec());
    let items: Vec<Bytes> = (100..2_100).map(number).collect();
    for removed in [1, 16, 500, 1_999] {
        let mut stored = Stored::new(true);
        stored.splice(0..0, &items);
        let edits: Vec<Edit<'_>> = items[..removed].iter().map(|item| Edit::Remove(item)).collect();
        stored.edit(&edits);
        let low: Vec<Bytes> = (0..40).map(number).collect();
        let edits: Vec<Edit<'_>> = low.iter().map(|item| Edit::Insert(item)).collect();
        stored.edit(&edits);
        assert!(stored.check().iter().eq(low.iter().chain(&items[removed..])), "{removed} removed");
        assert_eq!(stored.edit(&[]).writes, 0, "nothing is written anew for nothing");
    }
}

#[test]
fn edits_that_cannot_be_made_are_damage() {
    let items: Vec<Bytes> = (0..1_000u32).map(|n| Bytes::from(n.to_be_bytes().to_vec())).collect();
    for count in [0, 1, 1_000] {
        let mut stored = Stored::new(true);
        stored.splice(0..0, &items[..count]);
        let refused = |edit| {
            let mut txn = Txn::new(&stored.view, Version { index: 2, ordinal: 0 });
            stored.directory.clone().edit(&mut txn, &[edit]).is_err()
        };
        assert!(refused(Edit::Remove(b"not there")));
        assert!(refused(Edit::Remove(b"")));
        assert_eq!(refused(Edit::Insert(&items[0])), count > 0);
        assert_eq!(refused(Edit::Remove(&items[0])), count == 0);
    }
}

/// What one step costs at most, over some steps at all places.
fn highest_cost(stored: &mut Stored, random: &mut Random) -> (Cost, usize) {
    let (mut most, mut looks) = (Cost::default(), 0);
    for _ in 0..2_000 {
        let count = stored.directory.count();
        let at = match random.below(3) {
            0 => 0,
            1 => count - 1,
            _ => random.next() % count,
        };
        // Each is a command of its own, which remembers no row.
        for (positions, insert) in
            [(at..at, &[Bytes::from_static(b"some text")][..]), (at..at + 1, &[])]
        {
            stored.reopen();
            let cost = stored.splice(positions, insert);
            most.reads = most.reads.max(cost.reads);
            most.writes = most.writes.max(cost.writes);
            most.bytes = most.bytes.max(cost.bytes);
        }
        stored.reopen();
        let look = stored.reads(|directory, view| {
            directory.get(view, at).expect("sound rows");
        });
        looks = looks.max(look);
    }
    (most, looks)
}

#[test]
fn costs_grow_with_the_logarithm() {
    let mut random = Random::new(43);
    let mut stored = Stored::new(false);
    for count in [1_000u64, 10_000, 100_000, 300_000] {
        let more = count - stored.directory.count();
        for _ in 0..more / 1_000 {
            let texts: Vec<Bytes> = (0..1_000)
                .map(|_| Bytes::from(format!("{:09}", random.next() % 1_000_000_000)))
                .collect();
            let at = random.next() % (stored.directory.count() + 1);
            stored.splice(at..at, &texts);
        }
        let levels = stored.directory.height as usize + 1;
        // A half-full node has 16 links at least, but for few that are smaller.
        let logarithm = (count as f64).log(13.0).ceil() as usize;
        assert!(levels <= logarithm, "{levels} levels for {count} items");
        let (cost, looks) = highest_cost(&mut stored, &mut random);
        assert_eq!(looks, levels, "a row a level");
        assert!(cost.reads <= 6 * levels, "{cost:?} at {count}");
        assert!(cost.writes <= 2 * levels + 1, "{cost:?} at {count}");
        assert!(cost.bytes <= 2 * levels * ROW_BYTES_MAX, "{cost:?} at {count}");
    }
    stored.check();
}

#[test]
fn a_queue_costs_the_same_however_much_went_through_it() {
    let mut stored = Stored::new(false);
    let text = |number: u64| Bytes::from(format!("task {number}"));
    let mut most = Cost::default();
    for number in 0..100_000 {
        let count = stored.directory.count();
        let cost = stored.splice(count..count, &[text(number)]);
        most.reads = most.reads.max(cost.reads);
        if count >= 500 {
            let mut head = None;
            let reads =
                stored.reads(|directory, view| head = directory.get(view, 0).expect("sound"));
            assert_eq!(head, Some(text(number - 500)));
            most.reads = most.reads.max(reads + stored.splice(0..1, &[]).reads);
        }
        assert!(stored.view.rows.len() <= 12, "{} rows for 501 items", stored.view.rows.len());
    }
    assert!(most.reads <= 12, "{most:?}");
}

#[test]
fn damage_is_told_and_never_a_panic() {
    let mut random = Random::new(44);
    let mut stored = Stored::new(true);
    let texts: Vec<Bytes> =
        (0..20_000).map(|n: u32| Bytes::from(n.to_be_bytes().to_vec())).collect();
    stored.splice(0..0, &texts);
    let keys: Vec<Bytes> = stored.view.rows.keys().cloned().collect();
    for _ in 0..3_000 {
        let key = random.pick(&keys).clone();
        let sound = stored.view.rows[&key].clone();
        let mut damaged = sound.to_vec();
        let at = random.below(damaged.len());
        damaged[at] = random.next() as u8;
        stored.view.rows.insert(key.clone(), Bytes::from(damaged));
        let mut txn = Txn::new(&stored.view, Version { index: 3, ordinal: 0 });
        let at = random.next() % 20_000;
        let mut directory = stored.directory.clone();
        let _ = directory.get(&txn, at);
        let _ = directory.rank(&txn, &|item| item < &at.to_be_bytes()[..]);
        let _ = directory.splice(&mut txn, at..at + 1, &[]);
        let mut txn = Txn::new(&stored.view, Version { index: 3, ordinal: 0 });
        let item = (random.next() as u32 % 20_000).to_be_bytes();
        let more = [&item[..], b"more"].concat();
        let edits = [Edit::Remove(&item), Edit::Insert(&more), Edit::Insert(b"\xff\xff")];
        let edits = if random.below(2) == 0 { &edits[..1] } else { &edits[..] };
        let _ = stored.directory.clone().edit(&mut txn, edits);
        stored.view.rows.insert(key, sound);
    }
    let site = stored.directory.site;
    assert!(Directory::read(site, b"\0\0", 1, 1).is_none());
    assert!(Directory::read(site, b"\0\x41\0", 1, 1).is_none());
    assert!(Directory::read(site, b"\0\0\0\0", 1, 1).is_none());
}
