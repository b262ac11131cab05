//! Does the Perkle tree hold a million partitions in 24 bytes each and answer five million floor
//! lookups per second on a core, and what does mirroring a lookup cost the router?
//!
//! The tree is measured beside an ordered map of the same routes, in turns within one run, and the
//! ratio is printed. With `--test` all of it runs on a small map and measures nothing.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use memds::{Client, ClientOptions, Lookup, Memds, PartitionMap, Perkle, Publisher};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use wire::ids::{NodeId, PartitionId, TableId};
use wire::peer::LocalTransport;
use wire::placement::{Placement, PlacementRange};
use wire::service::{Route, RouteVersion};

type Ordered = BTreeMap<(TableId, Placement), Route>;

/// Rounds in which the two maps take turns.
const ROUNDS: usize = 7;
/// Nodes of the cluster whose map this is; replica sets come from a few permutations of them.
const NODES: u32 = 999;
const PERMUTATIONS: u32 = 3;

fn tiny() -> bool {
    std::env::args().any(|arg| arg == "--test")
}

fn partition_count() -> usize {
    if tiny() { 5_000 } else { 1_000_000 }
}

/// A cluster's routes: one table of half of the partitions, the rest in tables of 1 to 2,000; split
/// where the load was, so at random; partition ids in the order in which splits happened, epochs by
/// how often; any ballot round up to 1,000.
fn routes(count: usize) -> Vec<Route> {
    let rng = &mut StdRng::seed_from_u64(1);
    let sets = replica_sets(rng);
    let mut ids: Vec<u64> = (1..=count as u64).collect();
    ids.shuffle(rng);
    let mut routes = Vec::with_capacity(count);
    let mut table = 0;
    while routes.len() < count {
        let left = count - routes.len();
        let wanted = if table == 0 { count / 2 } else { rng.random_range(1..=2000).min(left) };
        let mut starts: Vec<u64> =
            (0..wanted - 1).map(|_| rng.random_range(1..1_u64 << 40)).collect();
        starts.push(0);
        starts.sort_unstable();
        starts.dedup();
        for (i, &first) in starts.iter().enumerate() {
            let last = starts.get(i + 1).map_or(Placement::MAX.get(), |next| next - 1);
            let members = sets[rng.random_range(0..sets.len())].clone();
            let leader = members[rng.random_range(0..3)];
            let ballot = u64::from(rng.random_range(1..1000_u32)) << 32 | u64::from(leader.0);
            routes.push(Route {
                partition: PartitionId(ids[routes.len()]),
                range: PlacementRange {
                    table: TableId(table),
                    first: placement(first),
                    last: placement(last),
                },
                version: RouteVersion { epoch: rng.random_range(1..40), ballot },
                leader: Some(leader),
                members,
            });
        }
        table += 1;
    }
    routes
}

/// Each permutation of the nodes is cut into sets of three, as copysets are.
fn replica_sets(rng: &mut StdRng) -> Vec<Vec<NodeId>> {
    let mut sets = Vec::new();
    for _ in 0..PERMUTATIONS {
        let mut nodes: Vec<NodeId> = (1..=NODES).map(NodeId).collect();
        nodes.shuffle(rng);
        sets.extend(nodes.chunks(3).map(|set| {
            let mut set = set.to_vec();
            set.sort_unstable();
            set
        }));
    }
    sets
}

fn placement(value: u64) -> Placement {
    Placement::new(value).expect("below 2^40")
}

/// Placements to look up: of a random partition, at random in it.
fn questions(routes: &[Route]) -> Vec<Lookup> {
    let rng = &mut StdRng::seed_from_u64(2);
    let count = if tiny() { 1 << 10 } else { 1 << 20 };
    (0..count)
        .map(|_| {
            let range = routes[rng.random_range(0..routes.len())].range;
            let value = rng.random_range(range.first.get()..=range.last.get());
            Lookup { table: range.table, placement: placement(value) }
        })
        .collect()
}

fn floor_tree(tree: &Perkle, questions: &[Lookup]) -> u64 {
    let floor = |l: &Lookup| tree.floor(l.table, l.placement).map_or(0, |r| r.partition.0);
    questions.iter().map(floor).fold(0, u64::wrapping_add)
}

fn floor_ordered(map: &Ordered, questions: &[Lookup]) -> u64 {
    let floor = |l: &Lookup| {
        let last = map.range(..=(l.table, l.placement)).next_back();
        last.map_or(0, |(_, route)| route.partition.0)
    };
    questions.iter().map(floor).fold(0, u64::wrapping_add)
}

/// Resident memory of this process in bytes, if the system tells.
fn resident_bytes() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split_whitespace().nth(1)?.parse::<usize>().ok()? * 4096)
}

/// Builds something, and says by how much the process grew.
fn weighed<T>(build: impl FnOnce() -> T) -> (T, f64, Duration) {
    let (before, start) = (resident_bytes(), Instant::now());
    let built = build();
    let grown = resident_bytes().zip(before).map_or(f64::NAN, |(a, b)| a as f64 - b as f64);
    (built, grown, start.elapsed())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn floor_lookups(c: &mut Criterion) {
    let routes = routes(partition_count());
    let questions = questions(&routes);
    let count = routes.len() as f64;
    let (map, map_grown, built) = weighed(|| {
        let mut map = PartitionMap::new();
        routes.iter().for_each(|route| {
            map.install(route);
        });
        map
    });
    let tree = map.tree();
    let (ordered, ordered_grown, _) = weighed(|| -> Ordered {
        routes.iter().map(|r| ((r.range.table, r.range.first), r.clone())).collect()
    });
    assert_eq!(tree.len(), ordered.len());
    assert_eq!(floor_tree(tree, &questions), floor_ordered(&ordered, &questions));

    let took = tree.footprint();
    println!("partitions: {}; installed in {built:.2?}", tree.len());
    println!(
        "bytes per partition: {:.2} = pages (key, range, id, version, replica set) {:.2} + inner \
         nodes, hashes and page list {:.2} + {} replica sets with leaders {:.2}",
        took.bytes() as f64 / count,
        took.pages as f64 / count,
        took.nodes as f64 / count,
        took.group_count,
        took.groups as f64 / count,
    );
    println!(
        "resident memory grew, allocator and all, by {:.1} bytes per partition; by {:.1} for the \
         ordered map",
        map_grown / count,
        ordered_grown / count,
    );
    let (mut tree_ns, mut ordered_ns) = (Vec::new(), Vec::new());
    let each = |start: Instant| start.elapsed().as_nanos() as f64 / questions.len() as f64;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        black_box(floor_tree(tree, &questions));
        tree_ns.push(each(start));
        let start = Instant::now();
        black_box(floor_ordered(&ordered, &questions));
        ordered_ns.push(each(start));
    }
    let (tree_ns, ordered_ns) = (median(tree_ns), median(ordered_ns));
    println!(
        "floor: {tree_ns:.0} ns, {:.2} M/s; ordered map {ordered_ns:.0} ns, {:.2} M/s; ratio {:.2}",
        1e3 / tree_ns,
        1e3 / ordered_ns,
        ordered_ns / tree_ns
    );

    let mut group = c.benchmark_group("floor");
    group.throughput(Throughput::Elements(questions.len() as u64)).sample_size(10);
    group.bench_function("perkle", |b| b.iter(|| floor_tree(tree, &questions)));
    group.bench_function("btreemap", |b| b.iter(|| floor_ordered(&ordered, &questions)));
    group.finish();
    change_and_compare(c, map, &routes);
}

fn change_and_compare(c: &mut Criterion, mut map: PartitionMap, routes: &[Route]) {
    let mut group = c.benchmark_group("change");
    group.throughput(Throughput::Elements(1));
    let mut next = routes.iter().cycle().step_by(7919).cloned();
    let mut epoch = 1000;
    group.bench_function("install a newer leader", |b| {
        b.iter(|| {
            let mut route = next.next().expect("goes round");
            epoch += 1;
            route.version.epoch = epoch;
            map.install(&route)
        });
    });
    group.finish();
}

/// The router's side: what a mirrored lookup costs its caller, with the fleet in the same process.
fn mirror(c: &mut Criterion) {
    let transport = Arc::new(LocalTransport::default());
    let nodes: Vec<NodeId> = (10..13).map(NodeId).collect();
    for &id in &nodes {
        let node = Memds::new(id, nodes.clone(), transport.clone());
        transport.connect(id, Arc::new(node));
    }
    let routes = routes(if tiny() { 100 } else { 1000 });
    Publisher::new(NodeId(1), nodes.clone(), transport.clone()).publish_all(&routes);
    let questions = questions(&routes);
    let options = ClientOptions::new(NodeId(100), nodes);
    let client = Client::new(
        options,
        transport.clone(),
        Arc::new(|route| {
            black_box(route);
        }),
    );
    let client = Arc::new(client.expect("a thread starts"));
    transport.connect(NodeId(100), client.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime starts");

    let started = Instant::now();
    let total = if tiny() { 1 << 10 } else { 4_000_000 };
    runtime.block_on(async {
        for lookup in questions.iter().cycle().take(total) {
            client.mirror(std::slice::from_ref(lookup));
            client.mirror_ready().await;
        }
    });
    let sent = started.elapsed();
    while client.stats().answered < total as u64 {
        std::thread::yield_now();
    }
    println!(
        "mirror, as fast as it goes: {:.0} ns per lookup for the caller, {:.0} ns until all are \
         answered by the same process; {:?}",
        sent.as_nanos() as f64 / total as f64,
        started.elapsed().as_nanos() as f64 / total as f64,
        client.stats(),
    );
    paced(&client, &questions);

    let mut group = c.benchmark_group("mirror");
    group.throughput(Throughput::Elements(16));
    let mut at = 0;
    group.bench_function("16 lookups of a pipeline", |b| {
        b.iter(|| {
            at = (at + 16) % (questions.len() - 16);
            client.mirror(&questions[at..at + 16]);
            runtime.block_on(client.mirror_ready());
        });
    });
    group.finish();
}

/// What one call costs at the rate of a busy router, where the thread sleeps between batches.
fn paced(client: &Client, questions: &[Lookup]) {
    const EVERY: Duration = Duration::from_micros(4);
    let count = if tiny() { 100 } else { 250_000 };
    let mut spent = Duration::ZERO;
    let start = Instant::now();
    for (i, lookup) in (0..count).zip(questions.iter().cycle()) {
        while start.elapsed() < EVERY * i {
            std::hint::spin_loop();
        }
        let call = Instant::now();
        client.mirror(std::slice::from_ref(lookup));
        spent += call.elapsed();
    }
    println!(
        "mirror, one every {EVERY:?}: {:.0} ns per lookup for the caller, the clock's reading \
         included",
        spent.as_nanos() as f64 / f64::from(count)
    );
}

criterion_group!(benches, floor_lookups, mirror);
criterion_main!(benches);
