//! Tests of the rows on disk as a whole.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use commands::rows::{data_key, header_key, ttl_key};
use tempfile::TempDir;
use wire::ids::{TableId, Version};
use wire::placement::{Placement, PlacementRange};

use super::*;
use crate::row::seal_row;

const OPTIONS: Options =
    Options { cache_bytes: 1 << 20, level0_runs: 4, table_bytes: 1 << 20, open_tables: 64 };

type Model = BTreeMap<Vec<u8>, Vec<u8>>;
type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Header values of these tests are a log index.
fn header_version(value: &[u8]) -> Option<Version> {
    let index = u64::from_be_bytes(value.try_into().ok()?);
    Some(Version { index, ordinal: 0 })
}

fn open_with(dir: &Path, dead: &Arc<DeadSet>) -> Result<Lsm, LsmError> {
    Lsm::open(dir, OPTIONS, Arc::clone(dead), header_version)
}

fn open(dir: &Path) -> Lsm {
    open_with(dir, &Arc::default()).unwrap()
}

fn put(key: &[u8], body: &[u8]) -> (Bytes, Option<Bytes>) {
    (Bytes::copy_from_slice(key), Some(seal_row(key, body)))
}

fn delete(key: &[u8]) -> (Bytes, Option<Bytes>) {
    (Bytes::copy_from_slice(key), None)
}

fn row_key(i: u32) -> Vec<u8> {
    format!("row{i:06}").into_bytes()
}

fn collect(lsm: &Lsm, from: &[u8], to: &[u8], direction: Direction) -> Result<Rows, LsmError> {
    let mut found = Vec::new();
    lsm.scan(from, to, direction, &mut |key, body| {
        found.push((key.to_vec(), body.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

fn all(lsm: &Lsm) -> Model {
    collect(lsm, &[0], &[0xff; 8], Direction::Forward).unwrap().into_iter().collect()
}

/// The directory as a crash at this moment would leave it, unsynced writes included.
fn copy(from: &Path) -> TempDir {
    fn copy_into(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for file in std::fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            let to = to.join(file.file_name());
            match file.file_type().unwrap().is_dir() {
                true => copy_into(&file.path(), &to),
                false => drop(std::fs::copy(file.path(), to).unwrap()),
            }
        }
    }
    let to = TempDir::new().unwrap();
    copy_into(from, to.path());
    to
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes of the files of tables, replaced ones included.
fn table_bytes(dir: &Path) -> u64 {
    let mut bytes = 0;
    for keyspace in std::fs::read_dir(dir.join("keyspaces")).unwrap() {
        for table in std::fs::read_dir(keyspace.unwrap().path().join("tables")).unwrap() {
            // It may be deleted between the listing and the look.
            bytes += table.unwrap().metadata().map_or(0, |metadata| metadata.len());
        }
    }
    bytes
}

/// Waits until compaction has ended and what it replaced is gone from the disk. (Of a table's file
/// a part is metadata of its own, which the engine does not count.)
fn wait_until_at_rest(lsm: &Lsm, dir: &Path) {
    wait_for("only tables in use", || {
        let stats = lsm.stats();
        let at_rest = stats.level0_runs < 4 && stats.compactions_running == 0;
        let metadata = stats.disk_bytes / 4 + 4_096 * (stats.tables + 1);
        at_rest && table_bytes(dir) < stats.disk_bytes + metadata
    });
}

#[test]
fn runs_lie_over_each_other() {
    let dir = TempDir::new().unwrap();
    let dead = Arc::default();
    let lsm = open_with(dir.path(), &dead).unwrap();
    assert!(matches!(open_with(dir.path(), &dead), Err(LsmError::InUse(_))));
    assert_eq!(lsm.ingest(std::iter::empty::<(Bytes, Option<Bytes>)>()).unwrap(), 0);
    let mut model = Model::new();
    for run in 0..10u32 {
        // Each run changes every third row, deletes every seventh.
        let rows = (0..3000).filter(|i| i % 3 == run % 3).map(|i| {
            let (key, body) = (row_key(i), format!("value {i} of run {run}").into_bytes());
            if (i + run) % 7 == 0 {
                model.remove(&key);
                delete(&key)
            } else {
                model.insert(key.clone(), body.clone());
                put(&key, &body)
            }
        });
        let rows: Vec<_> = rows.collect();
        let count = rows.len() as u64;
        assert_eq!(lsm.ingest(rows.into_iter()).unwrap(), count);
    }
    let check = |lsm: &Lsm| {
        assert_eq!(all(lsm), model);
        for i in (0..3000).step_by(11) {
            let body = lsm.get(&row_key(i)).unwrap();
            assert_eq!(body.as_deref(), model.get(&row_key(i)).map(Vec::as_slice));
        }
        let (from, to) = (row_key(100), row_key(200));
        let mut expected: Vec<_> =
            model.range(from.clone()..to.clone()).map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(collect(lsm, &from, &to, Direction::Forward).unwrap(), expected);
        expected.reverse();
        assert_eq!(collect(lsm, &from, &to, Direction::Backward).unwrap(), expected);
        assert_eq!(collect(lsm, &to, &from, Direction::Forward).unwrap(), []);
        assert_eq!(lsm.get(b"no such row").unwrap(), None);
    };
    check(&lsm);
    // A copy file by file is no moment's image while files come and go.
    wait_until_at_rest(&lsm, dir.path());
    let crashed = copy(dir.path());
    check(&open(crashed.path()));
    lsm.compact_all().unwrap();
    check(&lsm);
    drop(lsm);
    let lsm = open(dir.path());
    check(&lsm);
    // Nothing goes through fjall's journal.
    assert!(lsm.stats().disk_bytes > 10_000);
    let journal = std::fs::metadata(dir.path().join("0.jnl")).unwrap();
    assert!(std::os::unix::fs::MetadataExt::blocks(&journal) * 512 <= 8192);
}

#[test]
fn replaced_tables_leave_the_disk_without_another_run() {
    let dir = TempDir::new().unwrap();
    let lsm = open(dir.path());
    for round in 0..12_u32 {
        // The same rows each time, with bodies that do not compress.
        let mut bits = u64::from(round) + 1;
        let mut body = || {
            bits = bits.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            bits.to_le_bytes().repeat(4)
        };
        lsm.ingest((0..4_000).map(|i| put(&row_key(i), &body()))).unwrap();
    }
    wait_until_at_rest(&lsm, dir.path());
}

#[test]
fn point_reads_do_not_wait_for_a_new_version() {
    let dir = TempDir::new().unwrap();
    let lsm = open(dir.path());
    lsm.ingest([put(b"a", b"1"), put(b"b", b"1")].into_iter()).unwrap();
    lsm.ingest([put(b"a", b"2"), delete(b"b")].into_iter()).unwrap();
    // What fjall holds while it writes a version: a read that needed it would never return.
    let Engine::Tables(tables) = &lsm.engine else { panic!("fjall keeps these rows") };
    let writing = tables.rows.tree.get_version_history_lock();
    assert_eq!(lsm.get(b"a").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!((lsm.get(b"b").unwrap(), lsm.get(b"c").unwrap()), (None, None));
    assert!(lsm.level0_runs() > 0);
    drop(writing);
}

#[test]
fn filters_in_memory_tell_what_is_not_there() {
    const ROWS: u32 = 2_000;
    let dir = TempDir::new().unwrap();
    let lacks =
        |lsm: &Lsm, odd: u32| (0..ROWS).filter(|i| lsm.lacks(&row_key(2 * i + odd))).count() as u32;
    // A filter is wrong about one in some hundred.
    let most = ROWS - ROWS / 20;
    {
        let lsm = open(dir.path());
        assert_eq!(lacks(&lsm, 0), ROWS, "there are no tables");
        lsm.ingest((0..ROWS).map(|i| put(&row_key(2 * i), b"body"))).unwrap();
        // A filter is in memory once it was asked for.
        assert!(lsm.get(&row_key(ROWS + 1)).unwrap().is_none());
        assert_eq!(lacks(&lsm, 0), 0);
        assert!(lacks(&lsm, 1) >= most);
        let deleted = row_key(2);
        lsm.ingest([delete(&deleted)].into_iter()).unwrap();
        assert!(!lsm.lacks(&deleted), "what hides a row is in a filter, too");
        for i in 0..OPTIONS.level0_runs.into() {
            lsm.ingest([put(&row_key(2 * i), b"again")].into_iter()).unwrap();
        }
        wait_until_at_rest(&lsm, dir.path());
        assert!(lsm.get(&row_key(ROWS + 1)).unwrap().is_none());
        assert_eq!(lacks(&lsm, 0), 0);
        assert!(lacks(&lsm, 1) >= most);
    }
    let lsm = open(dir.path());
    assert!(lsm.get(&row_key(ROWS + 1)).unwrap().is_none());
    assert_eq!(lacks(&lsm, 0), 0);
    assert!(lacks(&lsm, 1) >= most);
}

#[test]
fn a_scan_stops_when_told() {
    let dir = TempDir::new().unwrap();
    let lsm = open(dir.path());
    lsm.ingest((0..100).map(|i| put(&row_key(i), b"x"))).unwrap();
    for direction in [Direction::Forward, Direction::Backward] {
        let mut seen = 0;
        lsm.scan_sealed(b"row", b"s", direction, &mut |key, sealed| {
            assert_eq!(sealed, seal_row(&key, b"x"));
            seen += 1;
            if seen == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        assert_eq!(seen, 10);
    }
}

#[test]
fn a_bad_run_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let lsm = open(dir.path());
    let out_of_order = [put(b"b", b"1"), put(b"a", b"2")];
    assert!(matches!(lsm.ingest(out_of_order.into_iter()), Err(LsmError::OutOfOrder)));
    assert!(matches!(
        lsm.ingest([put(b"a", b"1"), put(b"a", b"2")].into_iter()),
        Err(LsmError::OutOfOrder)
    ));
    assert!(matches!(lsm.ingest([put(b"", b"1")].into_iter()), Err(LsmError::BadKey(0))));
    let long = vec![b'k'; ROW_KEY_BYTES_MAX + 1];
    assert!(matches!(
        lsm.ingest([put(b"a", b"1"), put(&long, b"2")].into_iter()),
        Err(LsmError::BadKey(_))
    ));
    assert_eq!(all(&lsm), Model::new());
    lsm.ingest([put(b"a", b"1"), put(&long[1..], b"2")].into_iter()).unwrap();
    assert_eq!(lsm.get(&long[1..]).unwrap().unwrap(), b"2"[..]);
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let dir = TempDir::new().unwrap();
    let lsm = open(dir.path());
    lsm.ingest((0..1000).map(|i| put(&row_key(i), b"old"))).unwrap();
    let snapshot = lsm.snapshot();
    for _ in 0..12 {
        lsm.ingest((0..1000).map(|i| put(&row_key(i), b"new"))).unwrap();
        lsm.ingest((500..1000).map(|i| delete(&row_key(i)))).unwrap();
    }
    lsm.compact_all().unwrap();
    let mut seen = 0;
    snapshot
        .scan_sealed(b"row", b"s", Direction::Backward, &mut |key, sealed| {
            assert_eq!(sealed, seal_row(&key, b"old"));
            seen += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, 1000);
    assert_eq!(snapshot.get(&row_key(700)).unwrap().unwrap(), b"old"[..]);
    assert_eq!(lsm.get(&row_key(700)).unwrap(), None);
    assert_eq!(all(&lsm).len(), 500);
}

#[test]
fn the_compactor_keeps_level_0_low() {
    let dir = TempDir::new().unwrap();
    let lsm = open(dir.path());
    for run in 0..40u32 {
        // Not compressible, overlapping, about 200 KB each.
        let body: Vec<u8> = (0..100u32).map(|i| (i.wrapping_mul(run + 7) >> 3) as u8).collect();
        lsm.ingest((0..2000).map(|i| put(&row_key(i * 40 + run), &body))).unwrap();
    }
    wait_for("level 0 to be merged", || lsm.level0_runs() < 4);
    let stats = lsm.stats();
    assert!(stats.compactions_done > 0 && stats.compaction_error.is_none(), "{stats:?}");
    assert_eq!(all(&lsm).len(), 40 * 2000);
}

/// Keys of headers, data rows and TTL rows in two tables.
fn filter_fixture(lsm: &Lsm) -> Model {
    let mut rows = Model::new();
    for table in [TableId(0), TableId(1)] {
        for i in 0..200u64 {
            let key = format!("key{i}").into_bytes();
            let placement = Placement::of_key(&key);
            rows.insert(header_key(table, &key).to_vec(), i.to_be_bytes().to_vec());
            let generation = Version { index: i, ordinal: 1 };
            for sub in 0..3u8 {
                rows.insert(data_key(table, placement, generation, &[sub]).to_vec(), vec![sub]);
            }
            rows.insert(ttl_key(table, 1000 + i, &key).to_vec(), Vec::new());
        }
    }
    rows.insert(vec![0xff, 0xff, 0xff, 0xff, 1], b"meta".to_vec());
    // Twice, in different runs and levels: an older value must not come back to life.
    for _ in 0..2 {
        lsm.ingest(rows.iter().map(|(key, body)| put(key, body))).unwrap();
        lsm.compact_all().unwrap();
    }
    lsm.ingest(rows.iter().map(|(key, body)| put(key, body))).unwrap();
    rows
}

#[test]
fn compaction_drops_dead_generations_and_fenced_headers() {
    let dir = TempDir::new().unwrap();
    let dead = Arc::new(DeadSet::new());
    let lsm = open_with(dir.path(), &dead).unwrap();
    let mut model = filter_fixture(&lsm);
    // Table 0: generation 7 anywhere, generation 8 only where its key is not.
    let placement = Placement::of_key(b"key8");
    let below = Placement::new(placement.get() - 1).unwrap();
    let whole = PlacementRange::whole(TableId(0));
    dead.add_generations(whole, [Version { index: 7, ordinal: 1 }]);
    let part = PlacementRange { last: below, ..whole };
    dead.add_generations(part, [Version { index: 8, ordinal: 1 }]);
    dead.add_generations(whole, [Version { index: 9, ordinal: 0 }]); // another ordinal: not there
    // Table 1: flushed up to 100, in the lower half of the placements.
    let middle = Placement::new(Placement::MAX.get() / 2).unwrap();
    let half = PlacementRange { last: middle, ..PlacementRange::whole(TableId(1)) };
    dead.set_fence(half, Version { index: 100, ordinal: 0 });
    lsm.compact_all().unwrap();
    let before = model.len();
    model.retain(|key, body| match commands::rows::parse(key).unwrap() {
        commands::rows::RowKind::Data { table: TableId(0), generation, .. } => {
            generation.index != 7
        }
        commands::rows::RowKind::Header { table: TableId(1), placement, .. } => {
            placement > middle || header_version(body).unwrap().index > 100
        }
        commands::rows::RowKind::Data { table: TableId(1), placement, generation, .. } => {
            placement > middle || generation > Version { index: 100, ordinal: 0 }
        }
        _ => true,
    });
    assert!(model.len() < before - 150, "the fence takes about half of 400 rows");
    assert_eq!(all(&lsm), model);
    drop(lsm);
    // Without the dead set nothing comes back: the rows are gone, older values included.
    let lsm = open(dir.path());
    lsm.compact_all().unwrap();
    assert_eq!(all(&lsm), model);
}

#[test]
fn deleted_and_rewritten_rows_survive_the_filter() {
    let dir = TempDir::new().unwrap();
    let dead = Arc::new(DeadSet::new());
    let lsm = open_with(dir.path(), &dead).unwrap();
    let table = TableId(3);
    let (kept, gone, old) =
        (header_key(table, b"kept"), header_key(table, b"gone"), header_key(table, b"old"));
    let run = |rows: &[(&Bytes, Option<u64>)]| {
        let mut rows: Vec<_> = rows
            .iter()
            .map(|(key, version)| match version {
                Some(version) => put(key, &version.to_be_bytes()),
                None => delete(key),
            })
            .collect();
        rows.sort();
        lsm.ingest(rows.into_iter()).unwrap();
    };
    run(&[(&kept, Some(3)), (&gone, Some(4)), (&old, Some(5))]);
    lsm.compact_all().unwrap();
    dead.set_fence(PlacementRange::whole(table), Version { index: 10, ordinal: 0 });
    // Rewritten and deleted behind the fence.
    run(&[(&kept, Some(11)), (&gone, None)]);
    assert_eq!(lsm.get(&old).unwrap().unwrap(), 5u64.to_be_bytes()[..], "not compacted yet");
    lsm.compact_all().unwrap();
    assert_eq!(lsm.get(&kept).unwrap().unwrap(), 11u64.to_be_bytes()[..]);
    assert_eq!((lsm.get(&gone).unwrap(), lsm.get(&old).unwrap()), (None, None));
}

#[test]
fn whole_tables_of_dead_rows_go_at_once() {
    let dir = TempDir::new().unwrap();
    let lsm = open(dir.path());
    let (dead, alive) = (Version { index: 5, ordinal: 0 }, Version { index: 6, ordinal: 0 });
    let placement = Placement::of_key(b"big");
    let key = |generation, i: u32| data_key(TableId(0), placement, generation, &i.to_be_bytes());
    for generation in [dead, alive] {
        lsm.ingest((0..1000).map(|i| put(&key(generation, i), b"body"))).unwrap();
    }
    lsm.drop_tables_within(&key(dead, 0), &key(alive, 0)).unwrap();
    assert_eq!(collect(&lsm, &key(dead, 0), &key(alive, 0), Direction::Forward).unwrap(), []);
    assert_eq!(all(&lsm).len(), 1000);
}

/// The table files of the rows.
fn tables(dir: &Path) -> Vec<PathBuf> {
    let tables = std::fs::read_dir(dir.join("keyspaces/1/tables")).unwrap();
    tables.map(|file| file.unwrap().path()).collect()
}

#[test]
fn a_flipped_byte_is_never_served() {
    let dir = TempDir::new().unwrap();
    let lsm = open(dir.path());
    let model: Model = (0..60).map(|i| (row_key(i), format!("value {i}").into_bytes())).collect();
    lsm.ingest(model.iter().map(|(key, body)| put(key, body))).unwrap();
    drop(lsm);
    let [table] = &tables(dir.path())[..] else { panic!("one table") };
    let bytes = std::fs::read(table).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(table).unwrap();
    let (mut unopened, mut damaged, mut unharmed) = (0, 0, 0);
    for at in (0..bytes.len()).step_by(9) {
        file.write_all_at(&[bytes[at] ^ 0x11], at as u64).unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| read_everything(dir.path(), &model)));
        match outcome {
            Ok(None) => unopened += 1,
            Ok(Some(0)) => unharmed += 1,
            Ok(Some(_)) => damaged += 1,
            Err(_) => panic!("panicked at byte {at} of {}", bytes.len()),
        }
        file.write_all_at(&[bytes[at]], at as u64).unwrap();
    }
    // What is neither noticed nor wrong is what nobody reads: statistics, padding.
    println!("of {}: {unopened} unopened, {damaged} damaged, {unharmed} unharmed", bytes.len());
    assert!(damaged > 50 && unopened > 0, "{unopened} {damaged} {unharmed}");
    assert_eq!(read_everything(dir.path(), &model), Some(0));
}

/// Reads all rows in all ways, checks that no answer is wrong, and counts those refused. `None` if
/// the rows do not open.
fn read_everything(dir: &Path, model: &Model) -> Option<usize> {
    let lsm = match open_with(dir, &Arc::default()) {
        Ok(lsm) => lsm,
        Err(LsmError::Damaged(_)) => return None,
        Err(other) => panic!("{other}"),
    };
    let mut refused = 0;
    for (key, body) in model {
        match lsm.get(key) {
            Ok(found) => assert_eq!(found.as_deref(), Some(&body[..])),
            Err(LsmError::Damaged(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    for direction in [Direction::Forward, Direction::Backward] {
        match collect(&lsm, b"row", b"s", direction) {
            Ok(found) => assert_eq!(found.into_iter().collect::<Model>(), *model),
            Err(LsmError::Damaged(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    Some(refused)
}

#[test]
fn damage_stops_compaction_but_nothing_else() {
    let dir = TempDir::new().unwrap();
    let lsm = open(dir.path());
    lsm.ingest((0..1000).map(|i| put(&row_key(i), b"first"))).unwrap();
    drop(lsm);
    let [table] = &tables(dir.path())[..] else { panic!("one table") };
    let file = std::fs::OpenOptions::new().write(true).open(table).unwrap();
    file.write_all_at(&[0xee; 16], 100).unwrap(); // in the first block
    let lsm = open(dir.path());
    for run in 0..10u32 {
        lsm.ingest((0..1000).map(|i| put(&row_key(i), &run.to_be_bytes()))).unwrap();
    }
    // The newest run hides the damaged block from readers, not from compaction.
    assert_eq!(lsm.get(&row_key(0)).unwrap().unwrap(), 9u32.to_be_bytes()[..]);
    assert!(matches!(lsm.compact_all(), Err(LsmError::Damaged(_))));
    wait_for("compaction to fail", || lsm.stats().compaction_error.is_some());
    lsm.ingest((0..10).map(|i| put(&row_key(i), b"still writing"))).unwrap();
    assert_eq!(lsm.get(&row_key(3)).unwrap().unwrap(), b"still writing"[..]);
}

#[test]
fn a_run_that_takes_long_holds_up_no_other() {
    let dir = TempDir::new().unwrap();
    let lsm = &open(dir.path());
    lsm.ingest([put(b"a1", b"old"), put(b"a3", b"old")].into_iter()).unwrap();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let long = scope.spawn(move || {
            let new = [put(b"a1", b"new"), put(b"a2", b"new")].into_iter().map(|(key, sealed)| {
                let _ = begun.send(());
                // What this waits for comes, or the other side is gone.
                let _ = goes_on.recv_timeout(Duration::from_secs(60));
                Ok::<_, LsmError>((key, sealed.expect("it was put")))
            });
            let ranges = [(Bytes::from("a"), Bytes::from("b"))];
            lsm.replace(&ranges, &|_| false, new, &[put(b"z", b"said")])
        });
        has_begun.recv().unwrap();
        lsm.ingest([put(b"c", b"other")].into_iter()).unwrap();
        assert!(!long.is_finished(), "it waited for the long one");
        let old = [("a1", "old"), ("a3", "old"), ("c", "other")];
        let model = |rows: &[(&str, &str)]| {
            let row =
                |(key, body): &(&str, &str)| (key.as_bytes().to_vec(), body.as_bytes().to_vec());
            rows.iter().map(row).collect::<Model>()
        };
        assert_eq!(all(lsm), model(&old));
        drop(go_on);
        assert_eq!(long.join().unwrap().unwrap(), 2);
        let new = [("a1", "new"), ("a2", "new"), ("c", "other"), ("z", "said")];
        assert_eq!(all(lsm), model(&new));
    });
}

#[test]
fn a_run_that_is_given_up_leaves_no_table() {
    let dir = TempDir::new().unwrap();
    let lsm = open(dir.path());
    lsm.ingest((0..1000).map(|i| put(&row_key(i), b"first"))).unwrap();
    for _ in 0..3 {
        let rows = (0..1000).map(|i| match i {
            // Others write meanwhile.
            500 => {
                lsm.ingest([put(b"other", b"row")].into_iter()).unwrap();
                Err(LsmError::OutOfOrder)
            }
            _ => Ok((Bytes::from(row_key(i)), seal_row(&row_key(i), b"second"))),
        });
        let ranges = [(Bytes::from("row"), Bytes::from("rox"))];
        let done = lsm.replace(&ranges, &|_| false, rows, &[put(b"z", b"said")]);
        assert!(matches!(done, Err(LsmError::OutOfOrder)));
    }
    wait_for("strays to go", || tables(dir.path()).len() as u64 == lsm.stats().tables);
    drop(lsm);
    let lsm = open(dir.path());
    assert_eq!(lsm.get(&row_key(7)).unwrap().unwrap(), b"first"[..]);
    assert_eq!(lsm.get(b"other").unwrap().unwrap(), b"row"[..]);
    assert_eq!(lsm.get(b"z").unwrap(), None);
}

#[test]
fn tables_that_nobody_knows_go_at_a_start_and_their_space_a_little_later() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()));
    let keyspaces = std::fs::read_dir(dir.path().join("keyspaces")).unwrap();
    let tables: Vec<_> = keyspaces.map(|file| file.unwrap().path().join(TABLES_FOLDER)).collect();
    let orphan = tables.last().unwrap().join("999999");
    std::fs::write(&orphan, vec![0; 20 << 20]).unwrap();
    let file = std::fs::File::open(&orphan).unwrap();
    let lsm = open(dir.path());
    assert!(!orphan.exists());
    wait_for("space is given back", || file.metadata().unwrap().len() < 10 << 20);
    drop(lsm);
}
