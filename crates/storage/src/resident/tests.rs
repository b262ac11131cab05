use commands::rows;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use wire::ids::{TableId, Version};
use wire::placement::Placement;

use std::collections::BTreeMap;

use super::*;
use crate::resident::row::ROW_BYTES;

const TABLE: TableId = TableId(3);

fn resident(max_bytes: u64) -> Resident {
    Resident::new(PlacementRange::whole(TABLE), RowBudget::new(max_bytes), 0)
}

/// Everything up to an index is flushed, and nothing else is applied.
fn flushed(index: u64) -> Horizon {
    Horizon { flushed: index, frozen: index, applied: index }
}

/// A row key of any kind, of few enough that they meet again. Those of collections are of different
/// lengths, some the beginnings of others.
fn some_key(random: &mut StdRng) -> Bytes {
    let n: u32 = random.random_range(0..4000);
    match random.random_range(0..10) {
        0..5 => rows::header_key(TABLE, format!("key:{n}").as_bytes()),
        5..7 => rows::header_key(TABLE, format!("{{tag}}{n}").as_bytes()),
        7 | 8 => {
            let generation = Version { index: 7, ordinal: n % 3 };
            let sub = &[&n.to_be_bytes()[..], &[0; 12]].concat()[..4 + n as usize % 12];
            rows::data_key(TABLE, Placement::of_key(b"tag"), generation, sub)
        }
        _ => rows::ttl_key(TABLE, u64::from(n % 50), format!("key:{n}").as_bytes()),
    }
}

fn known(resident: &Resident, from: &[u8], to: &[u8], direction: Direction) -> Vec<(Bytes, u64)> {
    resident
        .scan(from, to, direction)
        .map(|row| (Bytes::copy_from_slice(row.key()), row.index))
        .collect()
}

#[test]
fn it_is_an_ordered_map() {
    for seed in 0..4 {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut resident = resident(u64::MAX);
        let mut model = BTreeMap::new();
        for index in 1..20_000 {
            let key = some_key(random);
            // Deletions of a collection's rows leave, of which another test tells.
            let stays = rows::generation(&key).is_some() || random.random_bool(0.8);
            let value = stays.then(|| Bytes::from(vec![1; index as usize % 9 * 200]));
            resident.put(&key, value.as_ref(), index);
            model.insert(key, (value, index));
            let sought = some_key(random);
            let found = resident.get(&sought).map(|row| (row.value(), row.index));
            assert_eq!(found, model.get(&sought).cloned());
        }
        for _ in 0..200 {
            let (mut from, mut to) = (some_key(random), some_key(random));
            if from.starts_with(&TABLE.0.to_be_bytes()) != to.starts_with(&TABLE.0.to_be_bytes()) {
                continue;
            }
            if from > to {
                std::mem::swap(&mut from, &mut to);
            }
            let range = model.range(from.clone()..to.clone());
            let mut expected: Vec<_> =
                range.map(|(key, (_, index))| (key.clone(), *index)).collect();
            assert_eq!(known(&resident, &from, &to, Direction::Forward), expected);
            expected.reverse();
            assert_eq!(known(&resident, &from, &to, Direction::Backward), expected);
        }
        for _ in 0..2_000 {
            let key = some_key(random);
            if key.starts_with(&TABLE.0.to_be_bytes()) {
                resident.remove(&key);
                model.remove(&key);
                assert!(resident.get(&key).is_none());
            }
        }
        let (from, to) = (rows::header_key_at(TABLE, 0), rows::headers_end(TABLE, Placement::MAX));
        let all = model.range(from.clone()..to.clone()).count();
        assert_eq!(known(&resident, &from, &to, Direction::Forward).len(), all);
        assert_eq!(known(&resident, &from, &to, Direction::Backward).len(), all);
        let of_row = |(key, (value, _)): (&Bytes, &(Option<Bytes>, u64))| {
            ROW_BYTES + (key.len() + value.as_ref().map_or(0, Bytes::len)) as u64
        };
        let bytes: u64 = model.iter().map(of_row).sum();
        assert_eq!((resident.bytes, resident.budget.used_bytes()), (bytes, bytes));
    }
}

#[test]
fn few_rows_are_an_ordered_map_until_they_are_many() {
    let mut were_single = 0;
    for seed in 0..20 {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut resident = resident(u64::MAX);
        let mut model = BTreeMap::new();
        for index in 1..2 * SINGLE_ROWS_MAX as u64 {
            let key = some_key(random);
            resident.put(&key, None, index);
            model.insert(key, index);
            let (from, to) =
                (rows::header_key_at(TABLE, 0), rows::headers_end(TABLE, Placement::MAX));
            let middle = rows::header_key(TABLE, format!("key:{index}").as_bytes());
            for (from, to) in [(&from, &middle), (&middle, &to), (&from, &to)] {
                let range =
                    model.range::<[u8], _>((Bound::Included(&from[..]), Bound::Excluded(&to[..])));
                let mut expected: Vec<_> =
                    range.map(|(key, index)| (key.clone(), *index)).collect();
                assert_eq!(known(&resident, from, to, Direction::Forward), expected);
                expected.reverse();
                assert_eq!(known(&resident, from, to, Direction::Backward), expected);
            }
            were_single += usize::from(resident.segments.len() == 1);
        }
        assert_eq!(resident.segments.len(), 1 << SEGMENT_BITS);
        assert!(model.iter().all(|(key, i)| resident.get(key).is_some_and(|row| row.index == *i)));
    }
    assert!(were_single > 20 * 50);
}

#[test]
fn a_part_of_the_placements_spreads_over_the_segments() {
    let placement = |n| Placement::new(n).expect("40 bits");
    let (first, last) = (placement(5 << 30), placement((6 << 30) - 1));
    let range = PlacementRange { table: TABLE, first, last };
    let mut resident = Resident::new(range, RowBudget::new(u64::MAX), 0);
    let mut keys: Vec<_> = (0..4096)
        .map(|n| {
            let at = placement(first.get() + (n << 18));
            rows::data_key(TABLE, at, Version::default(), b"")
        })
        .collect();
    for key in &keys {
        resident.put(key, None, 1);
    }
    let used = resident.segments.iter().filter(|segment| segment.few > 0).count();
    assert_eq!(used, resident.segments.len());
    let scanned = |direction| -> Vec<_> {
        let (from, to) = (&keys[0], &rows::headers_end(TABLE, last)[..]);
        resident.scan(from, to, direction).map(|row| Bytes::copy_from_slice(row.key())).collect()
    };
    let backward = scanned(Direction::Backward);
    assert_eq!(scanned(Direction::Forward), keys);
    keys.reverse();
    assert_eq!(backward, keys);
}

#[test]
fn only_clean_and_cold_rows_are_evicted() {
    let mut resident = resident(13_000);
    let key = |n: u64| rows::header_key(TABLE, format!("k{n}").as_bytes());
    let tagged = |n: u64| rows::header_key(TABLE, format!("{{t}}{n}").as_bytes());
    for n in 0..2000 {
        resident.put(&key(n), Some(&Bytes::from("v")), n + 1);
        resident.put(&tagged(n), Some(&Bytes::from("v")), n + 1);
    }
    while resident.make_room(flushed(0)) {
        if resident.hand.segment == 0 && resident.hand.bucket == 0 && resident.bytes > 0 {
            break;
        }
    }
    assert!(
        (0..2000).all(|n| resident.get(&key(n)).is_some() && resident.get(&tagged(n)).is_some())
    );
    // Everything up to 1000 is in fjall now.
    for _ in 0..10_000 {
        resident.get(&key(7));
        resident.make_room(flushed(1000));
    }
    assert!((1000..2000).all(|n| resident.get(&key(n)).is_some()));
    assert!((1000..2000).all(|n| resident.get(&tagged(n)).is_some()));
    assert!(resident.get(&key(7)).is_some(), "it is read again and again");
    let left = (0..1000).filter(|n| resident.get(&key(*n)).is_some()).count();
    let left_tagged = (0..1000).filter(|n| resident.get(&tagged(*n)).is_some()).count();
    assert_eq!((left, left_tagged), (1, 0));
    for _ in 0..10_000 {
        resident.make_room(flushed(2000));
    }
    assert!(!resident.budget.is_exceeded() && resident.bytes > 0);
    let budget = Arc::clone(&resident.budget);
    drop(resident);
    assert_eq!(budget.used_bytes(), 0);
}

#[test]
fn the_hand_leaves_a_tree_that_is_no_more() {
    let mut resident = resident(50_000);
    let tagged = |n: u64| rows::header_key(TABLE, format!("{{t}}{n}").as_bytes());
    for n in 0..5_000 {
        resident.put(&tagged(n), Some(&Bytes::from("v")), 1);
    }
    while resident.hand.inside.is_none() {
        resident.evict_bucket(0);
    }
    // The tree's segment doubles while the hand is inside the tree: whatever has the bucket's number
    // now, the hand must get on.
    let tree = resident.hand.segment;
    for n in 0..400_000u64 {
        let key = rows::header_key(TABLE, format!("k{n}").as_bytes());
        if resident.segment_of(resident.scaled(&key)) == tree {
            resident.put(&key, Some(&Bytes::from("v")), 1);
        }
    }
    for _ in 0..40_000 {
        resident.make_room(flushed(1));
    }
    assert!(!resident.budget.is_exceeded());
}

#[test]
fn what_is_known_is_not_overwritten_by_what_was_read() {
    let mut resident = resident(u64::MAX);
    let key = rows::header_key(TABLE, b"k");
    resident.fill(&key, None);
    assert_eq!(resident.get(&key).map(|row| (row.index, row.value())), Some((0, None)));
    resident.put(&key, Some(&Bytes::from("new")), 5);
    resident.fill(&key, Some(&Bytes::from("old")));
    let row = resident.get(&key).expect("known");
    assert_eq!((row.index, row.value()), (5, Some(Bytes::from("new"))));
}

#[test]
fn index_rows_that_fjall_holds_go_a_few_at_a_time() {
    let mut resident = resident(u64::MAX);
    let row = |n: u64| rows::ttl_key(TABLE, n, b"k");
    for n in 0..100 {
        resident.put(&row(n), Some(&Bytes::new()), n);
    }
    let left = |resident: &Resident| (0..100).filter(|n| resident.get(&row(*n)).is_some()).count();
    assert!(!resident.make_room(flushed(49)), "nothing was flushed: nothing to do");
    resident.flushed(49);
    assert!(resident.make_room(flushed(49)));
    assert_eq!(left(&resident), 100 - INDEX_ROWS);
    while resident.make_room(flushed(49)) {}
    assert_eq!(left(&resident), 50);
    assert!((50..100).all(|n| resident.get(&row(n)).is_some()));
    // What comes in behind the sweep's place stays; the next sweep begins anew.
    resident.flushed(99);
    while resident.make_room(flushed(99)) {}
    assert_eq!((left(&resident), resident.bytes), (0, 0));
}

/// A partition's rows in memory over those of an LSM, beside a model of both.
struct World {
    resident: Resident,
    lsm: BTreeMap<Bytes, u64>,
    model: BTreeMap<Bytes, u64>,
    /// Writes that the LSM does not hold.
    log: Vec<(u64, Bytes, Option<u64>)>,
    horizon: Horizon,
    tip: u64,
}

impl World {
    fn new() -> World {
        let (lsm, model, log) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        World { resident: resident(u64::MAX), lsm, model, log, horizon: flushed(0), tip: 0 }
    }

    /// Reads as a command does: what only the LSM knows is fetched first.
    fn read(&mut self, key: &Bytes) -> Option<u64> {
        let number = |value: Bytes| u64::from_be_bytes(value[..].try_into().expect("eight bytes"));
        if let Some(row) = self.resident.get(key) {
            return row.value().map(number);
        }
        if self.resident.holds_all_of(key) {
            return None;
        }
        let found = self.lsm.get(key).copied();
        let value = found.map(|value| Bytes::copy_from_slice(&value.to_be_bytes()));
        self.resident.fill(key, value.as_ref());
        found
    }

    fn write(&mut self, key: &Bytes, value: Option<u64>) {
        let bytes = value.map(|value| Bytes::copy_from_slice(&value.to_be_bytes()));
        self.resident.put(key, bytes.as_ref(), self.tip);
        self.log.push((self.tip, key.clone(), value));
        match value {
            Some(value) => self.model.insert(key.clone(), value),
            None => self.model.remove(key),
        };
    }

    fn freeze(&mut self) {
        self.horizon.frozen = self.horizon.applied;
    }

    fn flush(&mut self) {
        for (index, key, value) in &self.log {
            match value {
                _ if *index > self.horizon.frozen => {}
                Some(value) => drop(self.lsm.insert(key.clone(), *value)),
                None => drop(self.lsm.remove(key)),
            }
        }
        self.log.retain(|(index, ..)| *index > self.horizon.frozen);
        self.horizon.flushed = self.horizon.frozen;
        self.resident.flushed(self.horizon.flushed);
    }

    fn settle(&mut self) {
        while self.resident.make_room(self.horizon) {}
    }

    /// Rows that memory knows not to be there.
    fn deleted(&self) -> usize {
        let (from, to) = (rows::header_key_at(TABLE, 0), rows::headers_end(TABLE, Placement::MAX));
        let all = self.resident.scan(&from, &to, Direction::Forward);
        all.filter(|row| !row.exists() && row.index > 0).count()
    }
}

#[test]
fn forgotten_deletions_hid_nothing() {
    for seed in 0..30 {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut world = World::new();
        let mut generations = vec![0];
        for step in 0..4_000 {
            match random.random_range(0..40) {
                0 => generations.push(world.tip + 1),
                // The newest batch is still open.
                1..4 if world.tip > world.horizon.applied => {
                    world.horizon.applied = random.random_range(world.horizon.applied..world.tip);
                }
                4 if world.horizon.frozen == world.horizon.flushed => world.freeze(),
                5 => world.flush(),
                6..9 => drop(world.resident.make_room(world.horizon)),
                _ => {}
            }
            if random.random_bool(0.5) {
                world.tip += 1;
            }
            let generation = generations[random.random_range(0..generations.len())];
            if generation > world.tip {
                continue;
            }
            let name = random.random_range(0..80u8);
            let version = Version { index: generation, ordinal: 0 };
            let key = rows::data_key(TABLE, Placement::of_key(b"t"), version, &[name]);
            let expected = world.model.get(&key).copied();
            if random.random_bool(0.7) {
                assert_eq!(world.read(&key), expected, "seed {seed}, step {step}");
            }
            match expected {
                Some(_) if random.random_bool(0.7) => world.write(&key, None),
                _ => world.write(&key, Some(step)),
            }
        }
        world.horizon.applied = world.tip;
        world.settle();
        world.flush();
        world.freeze();
        world.flush();
        world.settle();
        assert_eq!((world.deleted(), &world.lsm), (0, &world.model), "seed {seed}");
        let keys: Vec<Bytes> = world.model.keys().cloned().collect();
        for key in keys {
            assert_eq!(world.read(&key), world.model.get(&key).copied(), "seed {seed}");
        }
    }
}

#[test]
fn a_set_that_is_emptied_and_filled_leaves_nothing_behind() {
    let mut world = World::new();
    let key = |name: u64| {
        let version = Version { index: 0, ordinal: 7 };
        rows::data_key(TABLE, Placement::of_key(b"t"), version, &name.to_be_bytes())
    };
    for name in 0..10_000 {
        world.tip += 1;
        let new = key(name);
        assert_eq!(world.read(&new), None);
        world.write(&new, Some(name));
        if name >= 100 {
            world.write(&key(name - 100), None);
        }
        world.horizon.applied = world.tip;
        world.resident.make_room(world.horizon);
    }
    assert!(world.deleted() < 10, "{} deletions without a flush", world.deleted());
    let rows = 100 * 2 * (ROW_BYTES + 64);
    assert!(world.resident.bytes < rows, "{} bytes", world.resident.bytes);
}

#[test]
fn what_is_touched_is_what_will_be_looked_at() {
    let mut resident = resident(u64::MAX);
    let key = |n: u64| format!("key:{n}");
    for n in 0..10_000 {
        resident.put(
            &rows::header_key(TABLE, key(n).as_bytes()),
            Some(&Bytes::from_static(b"v")),
            n,
        );
    }
    let position = |n| rows::position(Placement::of_key(key(n).as_bytes()), key(n).as_bytes());
    for n in (0..10_000).step_by(97) {
        let near = resident.near(&[position(n), position(n + 50_000)]);
        assert_eq!(near[0].key(), rows::header_key(TABLE, key(n).as_bytes()), "key {n}");
        resident.touch(&[position(n), position(n + 50_000)]);
    }
    assert!(
        Resident::new(PlacementRange::whole(TABLE), RowBudget::new(1), 0).near(&[0]).is_empty()
    );
}

#[test]
fn data_rows_that_are_touched_are_those_that_will_be_looked_at() {
    let generation = Version { index: 1, ordinal: 0 };
    let row = |of: &str, n: u64| {
        commands::element_row(TABLE, Placement::of_key(of.as_bytes()), generation, &n.to_be_bytes())
    };
    let mut resident = resident(u64::MAX);
    resident.touch_rows(&[row("large", 0)]);
    for n in 0..5_000 {
        resident.put(&row("large", n), Some(&Bytes::new()), n + 1);
    }
    // Beside those in the leaves of a tree there are some in buckets.
    for n in 0..300 {
        resident.put(&row(&n.to_string(), n), Some(&Bytes::new()), 5_001);
    }
    for n in 0..300 {
        let keys = [row("large", n * 16), row(&n.to_string(), n), row("large", n + 9_000)];
        let near = resident.near_rows(&keys);
        assert_eq!(near[0].key(), keys[0], "row {n} of a tree");
        assert_eq!(near[1].key(), keys[1], "row {n} of a bucket");
        resident.touch_rows(&keys);
    }
}
