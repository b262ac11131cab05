//! The Perkle tree against an ordered map, and its Merkle hashes against their promises.

use std::collections::BTreeMap;

use memds::{Perkle, RouteRef};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use wire::ids::{NodeId, PartitionId, TableId};
use wire::placement::{Placement, PlacementRange};
use wire::service::{Route, RouteVersion};

type Model = BTreeMap<(TableId, Placement), Route>;

fn placement(value: u64) -> Placement {
    Placement::new(value & Placement::MAX.get()).expect("masked")
}

/// Keys as they come: dense, clustered under a few long prefixes, or spread over all bits.
#[derive(Clone, Copy, Debug)]
enum Spread {
    Dense,
    Clustered,
    Wide,
}

fn random_key(rng: &mut StdRng, spread: Spread) -> (TableId, Placement) {
    match spread {
        Spread::Dense => (TableId(rng.random_range(0..3)), placement(rng.random_range(0..700))),
        Spread::Clustered => {
            let table = [0, 1, 1 << 31, u32::MAX][rng.random_range(0..4)];
            let high = [0, 1 << 39, 0x5a_5a5a_0000][rng.random_range(0..3)];
            (TableId(table), placement(high | rng.random_range(0..200)))
        }
        Spread::Wide => (TableId(rng.random_range(0..9)), placement(rng.random())),
    }
}

fn random_route(rng: &mut StdRng, (table, first): (TableId, Placement)) -> Route {
    let bits = rng.random_range(1..40);
    let length = rng.random_range(0..1_u64 << bits);
    let last = placement((first.get() + length).min(Placement::MAX.get()));
    let members: Vec<NodeId> = (0..rng.random_range(0..4)).map(|i| NodeId(i * 7)).collect();
    Route {
        partition: PartitionId(rng.random::<u64>() >> rng.random_range(0..64)),
        range: PlacementRange { table, first, last },
        version: RouteVersion { epoch: rng.random_range(0..9), ballot: rng.random() },
        leader: members.first().copied().filter(|_| rng.random()),
        members,
    }
}

fn key_of(route: &Route) -> (TableId, Placement) {
    (route.range.table, route.range.first)
}

fn check_reads(rng: &mut StdRng, tree: &Perkle, model: &Model, spread: Spread) {
    let key = random_key(rng, spread);
    let (table, at) = key;
    assert_eq!(tree.len(), model.len());
    assert_eq!(tree.get(table, at).map(RouteRef::to_route).as_ref(), model.get(&key));
    let floor = model.range(..=key).next_back().map(|(_, route)| route);
    assert_eq!(tree.floor(table, at).map(RouteRef::to_route).as_ref(), floor, "floor {key:?}");
    let ceiling = model.range(key..).next().map(|(_, route)| route);
    assert_eq!(tree.ceiling(table, at).map(RouteRef::to_route).as_ref(), ceiling, "from {key:?}");
    let end =
        placement(at.get().saturating_add(rng.random_range(0..100)).min(Placement::MAX.get()));
    let got: Vec<Route> = tree.range(table, at..=end).map(RouteRef::to_route).collect();
    let want: Vec<Route> = model.range(key..=(table, end)).map(|(_, r)| r.clone()).collect();
    assert_eq!(got, want);
}

fn check_prefix(rng: &mut StdRng, tree: &Perkle, model: &Model, spread: Spread) {
    let number =
        |(table, at): (TableId, Placement)| (u128::from(table.0) << 40) | u128::from(at.get());
    let key = random_key(rng, spread);
    let bits = rng.random_range(0..=72);
    let got: Vec<_> =
        tree.prefix(key.0, key.1, bits).map(|r| (r.range.table, r.range.first)).collect();
    let shares = |&&other: &&(TableId, Placement)| {
        bits == 0 || (number(key) ^ number(other)) >> (72 - bits) == 0
    };
    let want: Vec<_> = model.keys().filter(shares).copied().collect();
    assert_eq!(got, want, "{bits} bits of {key:?}");
}

#[test]
fn behaves_as_an_ordered_map() {
    for (seed, spread) in [(1, Spread::Dense), (2, Spread::Clustered), (3, Spread::Wide)] {
        let rng = &mut StdRng::seed_from_u64(seed);
        let (mut tree, mut model) = (Perkle::new(), Model::new());
        // Grows, shrinks to nothing, grows again: pages split, join and vanish.
        for removals in [2, 8, 3, 9] {
            for step in 0..1000 {
                let known = model.keys().nth(rng.random_range(0..model.len().max(1)));
                let key = match known {
                    Some(&known) if rng.random_bool(0.3) => known,
                    _ => random_key(rng, spread),
                };
                if rng.random_range(0..10) < removals {
                    let key =
                        if rng.random_bool(0.9) { known.copied().unwrap_or(key) } else { key };
                    assert_eq!(tree.remove(key.0, key.1), model.remove(&key));
                } else {
                    let route = random_route(rng, key);
                    assert_eq!(tree.insert(&route), model.insert(key, route));
                }
                check_reads(rng, &tree, &model, spread);
                if step % 100 == 0 {
                    check_prefix(rng, &tree, &model, spread);
                    assert!(tree.iter().map(RouteRef::to_route).eq(model.values().cloned()));
                }
            }
        }
        let keys: Vec<_> = model.keys().copied().collect();
        for key in keys {
            assert_eq!(tree.remove(key.0, key.1), model.remove(&key));
        }
        assert!(tree.is_empty() && tree.merkle_root() == Perkle::new().merkle_root());
    }
}

#[test]
fn the_root_depends_on_the_entries_alone() {
    for (seed, spread) in [(1, Spread::Dense), (2, Spread::Clustered), (3, Spread::Wide)] {
        let rng = &mut StdRng::seed_from_u64(seed);
        let mut routes: Vec<Route> = Vec::new();
        let mut detours: Vec<Route> = Vec::new();
        let mut keys = std::collections::BTreeSet::new();
        for _ in 0..3000 {
            let key = random_key(rng, spread);
            if keys.insert(key) {
                let kept = if rng.random() { &mut routes } else { &mut detours };
                kept.push(random_route(rng, key));
            }
        }
        let mut straight = Perkle::new();
        routes.iter().for_each(|route| {
            straight.insert(route);
        });
        for _ in 0..3 {
            routes.shuffle(rng);
            detours.shuffle(rng);
            let mut other = Perkle::new();
            for (i, route) in routes.iter().enumerate() {
                detours.get(i).map(|detour| other.insert(detour));
                // First under another value, then as it is.
                other.insert(&random_route(rng, key_of(route)));
                other.insert(route);
            }
            for detour in &detours {
                other.remove(detour.range.table, detour.range.first);
            }
            assert_eq!(other.len(), straight.len());
            assert_eq!(other.merkle_root(), straight.merkle_root());
            assert!(straight.diff(&other).keys.is_empty());
        }
    }
}

#[test]
fn every_change_changes_the_root() {
    let rng = &mut StdRng::seed_from_u64(7);
    let mut tree = Perkle::new();
    let mut routes = Vec::new();
    for _ in 0..1000 {
        let key = random_key(rng, Spread::Wide);
        let mut route = random_route(rng, key);
        (route.members, route.leader) = (vec![NodeId(1), NodeId(2)], Some(NodeId(1)));
        route.range.last = placement((key.1.get() + 5).min(Placement::MAX.get()));
        tree.insert(&route);
        routes.push(route);
    }
    let root = tree.merkle_root();
    let changes: [fn(&mut Route); 8] = [
        |r| r.partition.0 ^= 1,
        |r| r.range.last = r.range.first,
        |r| r.version.epoch ^= 1 << 63,
        |r| r.version.ballot ^= 1,
        |r| r.leader = None,
        |r| r.leader = Some(NodeId(2)),
        |r| r.members.reverse(),
        |r| r.members.truncate(1),
    ];
    for _ in 0..60 {
        let route = &routes[rng.random_range(0..routes.len())];
        for change in changes {
            let mut changed = route.clone();
            change(&mut changed);
            tree.insert(&changed);
            assert_ne!(tree.merkle_root(), root, "{changed:?}");
            tree.insert(route);
            assert_eq!(tree.merkle_root(), root);
        }
        tree.remove(route.range.table, route.range.first);
        assert_ne!(tree.merkle_root(), root);
        tree.insert(route);
    }
    assert_eq!(tree.merkle_root(), root);
}

#[test]
fn differences_are_found_where_they_are() {
    for (seed, spread) in [(1, Spread::Dense), (2, Spread::Clustered), (3, Spread::Wide)] {
        let rng = &mut StdRng::seed_from_u64(seed);
        for changes in [0, 1, 5, 200, 2000] {
            let (mut a, mut b) = (Model::new(), Model::new());
            for _ in 0..1500 {
                let key = random_key(rng, spread);
                let route = random_route(rng, key);
                a.insert(key, route.clone());
                b.insert(key, route);
            }
            for _ in 0..changes {
                let key = random_key(rng, spread);
                let side = if rng.random() { &mut a } else { &mut b };
                if rng.random() {
                    side.remove(&key);
                } else {
                    side.insert(key, random_route(rng, key));
                }
            }
            let want: Vec<_> = a
                .keys()
                .chain(b.keys())
                .copied()
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .filter(|key| a.get(key) != b.get(key))
                .collect();
            let tree_of = |model: &Model| {
                let mut tree = Perkle::new();
                model.values().for_each(|route| {
                    tree.insert(route);
                });
                tree
            };
            let (a, b) = (tree_of(&a), tree_of(&b));
            assert_eq!(a.diff(&b).keys, want);
            assert_eq!(b.diff(&a).keys, want);
            assert_eq!(a.merkle_root() == b.merkle_root(), want.is_empty());
        }
    }
}

#[test]
fn a_small_difference_is_found_without_looking_at_the_rest() {
    let rng = &mut StdRng::seed_from_u64(5);
    let (mut a, mut b) = (Perkle::new(), Perkle::new());
    for _ in 0..20_000 {
        let key = random_key(rng, Spread::Wide);
        let route = random_route(rng, key);
        a.insert(&route);
        b.insert(&route);
    }
    assert_eq!(a.diff(&b).compared, 1);
    let key = random_key(rng, Spread::Wide);
    b.insert(&random_route(rng, key));
    let difference = a.diff(&b);
    assert_eq!(difference.keys, [key]);
    // Two per level; 20,000 random keys in pages of at most 128 make about ten levels.
    assert!(difference.compared <= 40, "{} pairs compared", difference.compared);
}
