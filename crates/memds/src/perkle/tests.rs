//! The tree against a `BTreeMap`.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use wire::ids::{NodeId, PartitionId, TableId};
use wire::placement::{Placement, PlacementRange};
use wire::service::RouteVersion;

use super::*;

type Model = BTreeMap<RouteKey, Route>;

/// A placement from few or from all, so that maps are dense, sparse and in between.
fn random_placement(rng: &mut StdRng) -> Placement {
    let bits = *pick(rng, &[3, 10, 40]);
    let number = rng.random_range(0..1u64 << bits) << *pick(rng, &[0, 40 - bits]);
    Placement::new(number).expect("at most 40 bits")
}

fn random_route(rng: &mut StdRng) -> Route {
    let first = random_placement(rng);
    let last = random_placement(rng).max(first);
    let members: Vec<NodeId> =
        (0..rng.random_range(0..4)).map(|i| NodeId(i * 10 + rng.random_range(0..3))).collect();
    let leader = match rng.random_range(0..4) {
        0 => None,
        1 => Some(NodeId(rng.random_range(100..103))),
        _ => members.first().copied(),
    };
    Route {
        partition: PartitionId(*pick(rng, &[0, 1, 70_000, u64::MAX])),
        range: PlacementRange { table: TableId(*pick(rng, &[0, 1, 2, u32::MAX])), first, last },
        version: RouteVersion {
            epoch: rng.random_range(0..300),
            ballot: *pick(rng, &[0, 7, 1 << 40, u64::MAX]),
        },
        leader,
        members,
    }
}

fn pick<'a, T>(rng: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}

fn random_key(rng: &mut StdRng) -> RouteKey {
    RouteRef::from(&random_route(rng)).key()
}

fn key_of(route: &Route) -> RouteKey {
    RouteRef::from(route).key()
}

fn owned<'a>(routes: impl Iterator<Item = RouteRef<'a>>) -> Vec<Route> {
    routes.map(|route| route.to_route()).collect()
}

fn check_lookups(map: &Perkle, model: &Model, rng: &mut StdRng) {
    let keys: Vec<RouteKey> = (0..rng.random_range(0..40)).map(|_| random_key(rng)).collect();
    let mut expected = keys.iter();
    map.floor_each(&keys, |key, found| {
        assert_eq!(Some(&key), expected.next());
        assert_eq!(found, map.floor(key));
    });
    assert_eq!(expected.next(), None);
    for _ in 0..20 {
        let key = random_key(rng);
        let expect = |found: Option<RouteRef<'_>>, expected: Option<&Route>| {
            assert_eq!(found.map(|route| route.to_route()).as_ref(), expected, "{key:?}");
        };
        expect(map.get(key), model.get(&key));
        expect(map.floor(key), model.range(..=key).next_back().map(|(_, route)| route));
        expect(map.ceiling(key), model.range(key..).next().map(|(_, route)| route));
        let other = random_key(rng);
        let (low, high) = (key.min(other), key.max(other));
        let expected: Vec<Route> =
            model.range(low..=high).map(|(_, route)| route.clone()).collect();
        assert_eq!(owned(map.range(low, high)), expected);
        let prefix = Prefix::of(key, rng.random_range(0..=72)).expect("at most 72 bits");
        let expected: Vec<Route> =
            model.range(prefix.first..=prefix.last()).map(|(_, route)| route.clone()).collect();
        assert_eq!(owned(map.prefix(prefix)), expected);
        let part = map.part(prefix);
        let alone: Perkle = expected.iter().cloned().collect();
        assert_eq!((part.count as usize, part.hash), (expected.len(), alone.root_hash()));
    }
}

#[test]
fn behaves_like_a_sorted_map() {
    for seed in 0..12 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut map, mut model) = (Perkle::new(), Model::new());
        for step in 0..3_000 {
            // Grow, then shrink to nothing.
            let insert = rng.random_range(0..10) < if step < 1_800 { 8 } else { 1 };
            if insert {
                let route = random_route(&mut rng);
                let replaced = model.insert(key_of(&route), route.clone()).is_some();
                assert_eq!(map.insert(&route), replaced);
            } else {
                let near = random_key(&mut rng);
                let key = model.range(near..).next().map_or(near, |(key, _)| *key);
                assert_eq!(map.remove(key), model.remove(&key).is_some());
            }
            assert_eq!(map.len(), model.len());
            if step % 50 == 0 {
                check_lookups(&map, &model, &mut rng);
                let rebuilt: Perkle = model.values().cloned().collect();
                assert_eq!(map.root_hash(), rebuilt.root_hash(), "seed {seed} step {step}");
            }
        }
        for key in model.keys() {
            assert!(map.remove(*key));
        }
        assert_eq!((map.len(), map.root_hash()), (0, 0));
        assert_eq!(map.free_leaves.len(), map.leaves.len(), "every leaf is free again");
        assert_eq!(map.free_inners.len(), map.inners.len());
        assert_eq!(map.sets.in_use(), 0, "every replica set is forgotten");
    }
}

#[test]
fn roots_do_not_depend_on_history() {
    let mut rng = StdRng::seed_from_u64(99);
    let routes: Vec<Route> = (0..1_000).map(|_| random_route(&mut rng)).collect();
    let unique: Model = routes.iter().map(|route| (key_of(route), route.clone())).collect();
    let mut shuffled: Vec<&Route> = unique.values().collect();
    let mut map = Perkle::new();
    for index in (0..shuffled.len()).rev() {
        shuffled.swap(index, rng.random_range(0..=index));
        map.insert(shuffled[index]);
        // A detour that ends where it began.
        let visitor = random_route(&mut rng);
        if !unique.contains_key(&key_of(&visitor)) {
            map.insert(&visitor);
            assert!(map.remove(key_of(&visitor)));
        }
    }
    let built: Perkle = unique.values().cloned().collect();
    assert_eq!(map.root_hash(), built.root_hash());
    assert_eq!(map.differences(&built), []);
}

#[test]
fn any_change_changes_the_root() {
    let mut rng = StdRng::seed_from_u64(5);
    let mut map: Perkle = (0..500).map(|_| random_route(&mut rng)).collect();
    let mut seen = std::collections::HashSet::from([map.root_hash()]);
    let route = map.ceiling(RouteKey::MIN).expect("not empty").to_route();
    let changes: [fn(&mut Route); 6] = [
        |route| route.partition.0 ^= 1,
        |route| route.version.epoch += 1,
        |route| route.version.ballot ^= 1,
        |route| route.leader = Some(NodeId(999)),
        |route| route.members.push(NodeId(1000)),
        |route| route.range.last = Placement::new(route.range.last.get() ^ 1).expect("40 bits"),
    ];
    for change in changes {
        let mut changed = route.clone();
        change(&mut changed);
        map.insert(&changed);
        assert!(seen.insert(map.root_hash()), "{changed:?}");
    }
    assert!(map.remove(key_of(&route)));
    assert!(seen.insert(map.root_hash()));
}

#[test]
fn differences_are_exactly_those() {
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let size = *pick(&mut rng, &[0, 1, 60, 70, 3_000]);
        let mut ours: Model = Model::new();
        for _ in 0..size {
            let route = random_route(&mut rng);
            ours.insert(key_of(&route), route);
        }
        let mut theirs = ours.clone();
        for _ in 0..*pick(&mut rng, &[0, 1, 10, 400]) {
            let route = random_route(&mut rng);
            match rng.random_range(0..3) {
                0 => theirs.insert(key_of(&route), route),
                1 => ours.insert(key_of(&route), route),
                _ => {
                    let key = ours.range(key_of(&route)..).next().map(|(key, _)| *key);
                    key.and_then(|key| theirs.remove(&key))
                }
            };
        }
        let [x, y] = [&ours, &theirs].map(|model| model.values().cloned().collect::<Perkle>());
        let keys: std::collections::BTreeSet<RouteKey> =
            ours.keys().chain(theirs.keys()).copied().collect();
        let expected: Vec<_> = keys
            .into_iter()
            .filter(|key| ours.get(key) != theirs.get(key))
            .map(|key| (key, ours.get(&key).cloned(), theirs.get(&key).cloned()))
            .collect();
        let found: Vec<_> = x
            .differences(&y)
            .into_iter()
            .map(|found| {
                let owned = |route: Option<RouteRef<'_>>| route.map(|route| route.to_route());
                (found.key, owned(found.ours), owned(found.theirs))
            })
            .collect();
        assert_eq!(found, expected, "seed {seed}");
    }
}

#[test]
fn summaries_cover_the_whole_map() {
    let mut rng = StdRng::seed_from_u64(7);
    let map: Perkle = (0..5_000).map(|_| random_route(&mut rng)).collect();
    let (mut parts, mut routes) = (vec![map.part(Prefix::ALL)], Vec::new());
    while let Some(part) = parts.pop() {
        assert_eq!(map.part(part.prefix), part);
        match map.summary(part.prefix) {
            Summary::Routes(few) => routes.extend(owned(few.into_iter())),
            Summary::Parts([zero, one]) => {
                assert_eq!(zero.count + one.count, part.count);
                parts.extend([one, zero]);
            }
        }
    }
    assert_eq!(routes, owned(map.range(RouteKey::MIN, RouteKey::MAX)));
}

#[test]
fn a_partition_costs_few_bytes() {
    let map: Perkle = contiguous_table(50_000).collect();
    let bytes = map.memory_bytes() as f64 / map.len() as f64;
    assert!(bytes <= 24.0, "{bytes:.1} bytes a partition");
}

/// A table divided at random places, its replicas spread over 15 nodes in three zones (125 replica
/// sets: their cost is shared by as many partitions as a larger map would have for more).
fn contiguous_table(partitions: usize) -> impl Iterator<Item = Route> {
    let mut rng = StdRng::seed_from_u64(3);
    let mut firsts: Vec<u64> = (0..partitions).map(|_| rng.random_range(0..1 << 40)).collect();
    firsts.sort_unstable();
    firsts.dedup();
    firsts[0] = 0;
    (0..firsts.len()).map(move |index| {
        let placement = |number| Placement::new(number).expect("40 bits");
        let zone = |zone: u32, rng: &mut StdRng| NodeId(zone * 5 + rng.random_range(0..5));
        let members = vec![zone(0, &mut rng), zone(1, &mut rng), zone(2, &mut rng)];
        Route {
            partition: PartitionId(rng.random_range(0..1 << 20)),
            range: PlacementRange {
                table: TableId(0),
                first: placement(firsts[index]),
                last: firsts.get(index + 1).map_or(Placement::MAX, |next| placement(next - 1)),
            },
            version: RouteVersion {
                epoch: rng.random_range(1..40),
                ballot: rng.random_range(1..1000) << 32 | u64::from(members[0].0),
            },
            leader: Some(members[0]),
            members,
        }
    })
}
