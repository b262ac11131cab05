//! Questions: how many bytes does the Perkle tree spend on a partition, and how many floor lookups
//! a second does one core answer, for a map of a million partitions? `BTreeMap` answers the same
//! lookups in the same run. Bytes are counted by the allocator, not estimated. And what does mirroring
//! one lookup cost a router that puts 16 on the queue at a time: for the connection alone, and for all
//! that follows (frame, MemDS node, answer, callback) on the same core?
//!
//! Times are of the processor, so other work on the machine does not count, though it disturbs caches.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use memds::{ClientOptions, Lookup, MemdsClient, MemdsNode, Perkle, RouteKey, RouteRef};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use wire::ids::{NodeId, PartitionId, TableId};
use wire::peer::LocalTransport;
use wire::placement::{Placement, PlacementRange};
use wire::service::{Route, RouteVersion};

/// Partitions in the map; few when the bench only has to show that it runs (`--test`).
fn partitions() -> usize {
    if std::env::args().any(|arg| arg == "--test") { 10_000 } else { 1_000_000 }
}
const NODES_PER_ZONE: u32 = 20;
const LOOKUPS: usize = 1 << 20;
/// Lookups in a frame from a router.
const BATCH: usize = 256;
const CHANGES: usize = 200_000;

struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

/// What glibc spends on a block: a word of its own, in steps of 16 bytes.
fn block_bytes(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16)
}

// SAFETY: every call goes to the system's allocator unchanged; counting has no other effect.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(block_bytes(layout), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(block_bytes(layout), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One table divided at random places. Partition ids are in the order in which splits would have
/// made them, i.e. random; epochs and ballots are those of a cluster that has lived for a while.
fn routes(rng: &mut StdRng) -> Vec<Route> {
    let mut firsts: Vec<u64> = (0..partitions()).map(|_| rng.random_range(1..1 << 40)).collect();
    firsts.push(0);
    firsts.sort_unstable();
    firsts.dedup();
    let placement = |number| Placement::new(number).expect("40 bits");
    (0..firsts.len())
        .map(|index| {
            let members: Vec<NodeId> = (0..3)
                .map(|zone| NodeId(zone * NODES_PER_ZONE + rng.random_range(0..NODES_PER_ZONE)))
                .collect();
            let leader = members[rng.random_range(0..3)];
            Route {
                partition: PartitionId(rng.random_range(0..partitions() as u64)),
                range: PlacementRange {
                    table: TableId(0),
                    first: placement(firsts[index]),
                    last: firsts.get(index + 1).map_or(Placement::MAX, |next| placement(next - 1)),
                },
                version: RouteVersion {
                    epoch: rng.random_range(1..100),
                    ballot: rng.random_range(1..1000) << 32 | u64::from(leader.0),
                },
                leader: Some(leader),
                members,
            }
        })
        .collect()
}

fn random_keys(rng: &mut StdRng) -> Vec<RouteKey> {
    let random = |_| {
        let placement = Placement::new(rng.random_range(0..1 << 40)).expect("40 bits");
        RouteKey::new(TableId(0), placement)
    };
    (0..LOOKUPS).map(random).collect()
}

/// Nanoseconds this thread has run: what a core spent, whatever else the machine was doing.
fn cpu_nanos() -> u64 {
    let text =
        std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with schedstat");
    text.split_whitespace().next().and_then(|field| field.parse().ok()).expect("a number")
}

/// Best of five rounds, in nanoseconds a step.
fn best(steps: usize, mut round: impl FnMut()) -> f64 {
    let one = |_| {
        let start = cpu_nanos();
        round();
        (cpu_nanos() - start) as f64 / steps as f64
    };
    (0..5).map(one).fold(f64::INFINITY, f64::min)
}

/// Nanoseconds a mirrored lookup costs the connection, and in all.
fn mirror_cost(routes: impl Iterator<Item = Route>, keys: &[RouteKey]) -> (f64, f64) {
    /// What a connection's pipeline holds at a time.
    const PIPELINE: usize = 16;
    let transport = Arc::new(LocalTransport::new());
    let node = Arc::new(MemdsNode::new(NodeId(1), transport.clone()));
    for route in routes {
        node.install(&route);
    }
    transport.register(NodeId(1), node);
    let newest = AtomicU64::new(0);
    let on_answer = move |route: &RouteRef<'_>| {
        newest.fetch_max(route.version.epoch, Ordering::Relaxed);
    };
    let options = ClientOptions::default();
    let client =
        MemdsClient::new(NodeId(2), vec![NodeId(1)], transport.clone(), options, on_answer);
    transport.register(NodeId(2), client.clone());
    let lookups: Vec<Lookup> =
        keys.iter().map(|key| Lookup { table: key.table(), placement: key.placement() }).collect();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(async {
        tokio::spawn(client.clone().run());
        // A burst takes too short a time for the processor's clock; the best one was not disturbed.
        let (start, mut submitting) = (cpu_nanos(), Duration::MAX);
        for burst in lookups.chunks(options.queue_lookups) {
            let before = Instant::now();
            for pipeline in burst.chunks(PIPELINE) {
                assert!(client.try_mirror(pipeline), "a burst fits the queue");
            }
            submitting = submitting.min(before.elapsed());
            while client.stats().answered < client.stats().mirrored {
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
        }
        let count = lookups.len() as f64;
        let burst = options.queue_lookups.min(lookups.len()) as f64;
        (submitting.as_nanos() as f64 / burst, (cpu_nanos() - start) as f64 / count)
    })
}

fn lookups(map: &Perkle, routes: &[Route], keys: &[RouteKey]) {
    let floor = best(LOOKUPS, || {
        for key in keys {
            black_box(map.floor(*key));
        }
    });
    let batched = best(LOOKUPS, || {
        for batch in keys.chunks(BATCH) {
            map.floor_each(batch, |_, route| {
                black_box(route);
            });
        }
    });
    let sorted: BTreeMap<RouteKey, &Route> =
        routes.iter().map(|route| (RouteKey::new(TableId(0), route.range.first), route)).collect();
    let btree = best(LOOKUPS, || {
        for key in keys {
            let found = sorted.range(..=*key).next_back();
            // Read the route, as the Perkle tree does: a lookup that reads nothing answers nothing.
            black_box(found.map(|(_, route)| (route.version, route.leader, route.members[0])));
        }
    });
    for (how, time) in [("one by one", floor), ("in batches", batched)] {
        println!(
            "floor lookups {how}, 1 core: Perkle {time:.0} ns = {:.2} M/s; BTreeMap {btree:.0} ns; \
             ratio {:.2}",
            1e3 / time,
            btree / time
        );
    }
}

fn changes(map: &mut Perkle, routes: &[Route]) {
    let start = cpu_nanos();
    for index in 0..CHANGES {
        let mut route = routes[(index * 7919) % routes.len()].clone();
        route.version.ballot += 1 << 32;
        map.insert(&route);
    }
    let change = (cpu_nanos() - start) as f64 / CHANGES as f64;
    println!("change of one route: {:.2} µs, Merkle root included", change / 1e3);
    let old: Perkle = routes.iter().cloned().collect();
    let start = cpu_nanos();
    let found = old.differences(map).len();
    println!("diff of {found} routes: {:.1} ms", (cpu_nanos() - start) as f64 / 1e6);
}

fn growth(routes: &[Route]) {
    let before = ALLOCATED.load(Ordering::Relaxed);
    let mut grown = Perkle::new();
    for index in 0..routes.len() {
        grown.insert(&routes[(index * 7919) % routes.len()]);
    }
    let bytes = ALLOCATED.load(Ordering::Relaxed) - before;
    println!(
        "bytes a partition, one by one in random order: {:.2}",
        bytes as f64 / grown.len() as f64
    );
}

fn perkle(criterion: &mut Criterion) {
    let mut rng = StdRng::seed_from_u64(1);
    let routes = routes(&mut rng);
    let keys = random_keys(&mut rng);

    let before = ALLOCATED.load(Ordering::Relaxed);
    let mut map: Perkle = routes.iter().cloned().collect();
    let built = ALLOCATED.load(Ordering::Relaxed) - before;
    let count = map.len() as f64;
    println!("bytes a partition, built at once: {:.2}", built as f64 / count);
    println!("  as the map itself estimates:    {:.2}", map.memory_bytes() as f64 / count);

    lookups(&map, &routes, &keys);
    changes(&mut map, &routes);
    growth(&routes);
    for partitions in [12, partitions()] {
        let step = routes.len() / partitions;
        let some = routes.iter().step_by(step).cloned();
        let (submit, all) = mirror_cost(some, &keys);
        println!(
            "mirrored lookup, {partitions} partitions: connection {submit:.1} ns, in all {all:.0} ns"
        );
    }

    let mut next = keys.iter().cycle();
    criterion.bench_function("perkle/floor_1m", |bencher| {
        bencher.iter(|| black_box(map.floor(*next.next().expect("cycles"))));
    });
}

criterion_group!(benches, perkle);
criterion_main!(benches);
