//! What does evaluating a command cost, without routing, log and disk? Handlers run on a view in
//! memory, as a leader runs them on a partition; the map alone is measured beside them, so that
//! the ratio says what the command layer adds to it.

use std::hint::black_box;

use bytes::Bytes;
use commands::{Args, MemoryView, Run, Txn, View, rows, table};
use criterion::{Criterion, criterion_group, criterion_main};
use wire::ids::{TableId, Version};

const KEYS: usize = 100_000;

fn words(words: &[&str]) -> Vec<Bytes> {
    words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

fn write(view: &MemoryView, args: &[Bytes]) -> commands::Effects {
    let Run::Write(handler) = table::lookup(&args[0]).expect("a command").command.run else {
        panic!("a write")
    };
    let mut txn = Txn::new(view, Version { index: view.next_index, ordinal: 0 });
    black_box(handler(&mut txn, Args(args)).expect("a reply"));
    txn.into_effects()
}

fn evaluate(criterion: &mut Criterion) {
    let mut view = MemoryView::new(1_000);
    let value = "x".repeat(100);
    let keys: Vec<String> = (0..KEYS).map(|n| format!("key:{n:012}")).collect();
    for key in &keys {
        let effects = write(&view, &words(&["SET", key, &value]));
        view.apply(effects);
    }
    let gets: Vec<_> = keys.iter().map(|key| words(&["GET", key])).collect();
    let sets: Vec<_> = keys.iter().map(|key| words(&["SET", key, &value])).collect();
    let row_keys: Vec<_> =
        keys.iter().map(|key| rows::header_key(TableId(0), key.as_bytes())).collect();
    let Run::Read(get) = table::lookup(b"GET").expect("a command").command.run else {
        panic!("a read")
    };

    let mut next = row_keys.iter().cycle();
    criterion.bench_function("evaluate/map_alone", |bencher| {
        bencher.iter(|| black_box(view.get(next.next().expect("cycles"))));
    });
    let mut next = gets.iter().cycle();
    criterion.bench_function("evaluate/get", |bencher| {
        bencher.iter(|| black_box(get(&view, Args(next.next().expect("cycles")))));
    });
    let mut next = sets.iter().cycle();
    criterion.bench_function("evaluate/set", |bencher| {
        bencher.iter(|| black_box(write(&view, next.next().expect("cycles"))));
    });
}

criterion_group!(benches, evaluate);
criterion_main!(benches);
