//! What does routing a command cost when the cache knows the way? From the key to the leader:
//! placement, then the cache; the placement alone is measured beside it, so that the ratio says
//! what the cache adds.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use router::RouteCache;
use wire::ids::{NodeId, PartitionId, TableId};
use wire::placement::{Placement, PlacementRange};
use wire::service::{Route, RouteVersion};

const KEYS: usize = 100_000;

fn route(criterion: &mut Criterion) {
    let cache = RouteCache::new(1 << 20);
    let keys: Vec<Vec<u8>> = (0..KEYS).map(|n| format!("key:{n:012}").into_bytes()).collect();
    let route = Route {
        partition: PartitionId(1),
        range: PlacementRange::whole(TableId(0)),
        version: RouteVersion { epoch: 1, ballot: 1 },
        leader: Some(NodeId(1)),
        members: vec![NodeId(1), NodeId(2), NodeId(3)],
    };
    for key in &keys {
        cache.install(Placement::of_key(key), &route);
    }
    let mut next = keys.iter().cycle();
    criterion.bench_function("route/placement_alone", |bencher| {
        bencher.iter(|| black_box(Placement::of_key(next.next().expect("cycles"))));
    });
    let mut next = keys.iter().cycle();
    criterion.bench_function("route/cached", |bencher| {
        bencher.iter(|| {
            let placement = Placement::of_key(next.next().expect("cycles"));
            black_box(cache.leader(TableId(0), placement))
        });
    });
}

criterion_group!(benches, route);
criterion_main!(benches);
