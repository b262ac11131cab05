//! Tests of the log as a whole: what it promises through crashes, damage and recycling.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use tempfile::TempDir;

use super::format::{Header, Kind, RECORDS_START, read_kinds};
use super::*;
use crate::machine::{Disk, Ring};

const SMALL: Options = Options { segment_bytes: SEGMENT_BYTES_MIN, recycle_segments: 2 };

/// A directory in memory if there is one: these tests sync thousands of times.
fn temp_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}

fn reopen(dir: &Path) -> (Writer, Log, Recovered) {
    open(dir, SMALL, &|_| 0).unwrap()
}

fn accept(group: u64, index: u64, ballot: u64, value: &[u8]) -> Record<'_> {
    Record::Accept { group, index, ballot, value: Some(value) }
}

fn data(index: u64, ballot: u64, value: &[u8]) -> Entry {
    Entry { index, ballot, value: Value::Data(Bytes::copy_from_slice(value)) }
}

fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("wal-"))
        .collect();
    files.sort();
    files
}

/// The (offset, length, kind) of all records of a segment file, its mark included.
fn records(file: &Path) -> Vec<(u32, u32, Kind)> {
    read_kinds(&std::fs::read(file).unwrap())
}

/// A copy of a log in a directory of its own.
fn copy(dir: &Path) -> TempDir {
    let copy = temp_dir();
    for file in std::fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

/// Overwrites bytes of the copy of a file of the log.
fn overwrite(dir: &Path, file: &Path, at: u64, bytes: &[u8]) {
    let path = dir.join(file.file_name().unwrap());
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

#[test]
fn what_was_synced_is_recovered() {
    let dir = temp_dir();
    let (mut writer, log, recovered) = reopen(dir.path());
    assert_eq!(recovered, Recovered::default());
    // Out of order, with gaps, an index accepted again at a higher and at a lower ballot.
    for (index, ballot, value) in [(5, 1, "e"), (2, 1, "b"), (9, 1, "i"), (5, 3, "E"), (2, 0, "x")]
    {
        writer.append(accept(7, index, ballot, value.as_bytes())).unwrap();
    }
    writer.append(Record::Accept { group: 8, index: 1, ballot: 2, value: None }).unwrap();
    writer.append(Record::Promise { group: 9, ballot: 44 }).unwrap();
    writer.append(Record::Chosen { group: 7, index: 2 }).unwrap();
    assert_eq!(log.read(7, 0, u64::MAX, usize::MAX).unwrap().entries, []);
    assert!(writer.pending_bytes() > 0);
    writer.sync().unwrap();
    let entries = [data(2, 1, b"b"), data(5, 3, b"E"), data(9, 1, b"i")];
    assert_eq!(log.read(7, 0, u64::MAX, usize::MAX).unwrap().entries, entries);
    writer.append(accept(7, 10, 3, b"never synced")).unwrap();
    drop(writer);

    let (writer, log, recovered) = reopen(dir.path());
    assert_eq!(recovered.damage, []);
    assert_eq!(recovered.groups.len(), 3);
    let seven = &recovered.groups[&7];
    assert_eq!((seven.promise, seven.chosen, seven.truncated), (3, 2, 0));
    assert_eq!(seven.entries, entries);
    assert_eq!(recovered.groups[&8].entries[0].value, Value::Noop);
    assert_eq!(recovered.groups[&9].promise, 44);
    assert_eq!(log.read(7, 0, u64::MAX, usize::MAX).unwrap().entries, entries);
    drop(writer);

    // What is applied is not loaded, yet can be read.
    let (_writer, log, recovered) =
        open(dir.path(), SMALL, &|group| if group == 7 { 5 } else { 0 }).unwrap();
    assert_eq!(recovered.groups[&7].entries, [data(9, 1, b"i")]);
    assert_eq!(log.read(7, 3, 5, usize::MAX).unwrap().entries, [data(5, 3, b"E")]);
    assert_eq!(log.range(7), Some((2, 9)));
}

#[test]
fn only_one_writer_at_a_time() {
    let dir = temp_dir();
    let (writer, log, _) = reopen(dir.path());
    assert!(matches!(open(dir.path(), SMALL, &|_| 0), Err(WalError::InUse(_))));
    drop(writer);
    reopen(dir.path());
    drop(log);
    for segment_bytes in [1, SEGMENT_BYTES_MIN + 1] {
        let odd = Options { segment_bytes, ..SMALL };
        assert!(matches!(open(dir.path(), odd, &|_| 0), Err(WalError::BadOptions(_))));
    }
}

/// Batches of all lengths about that of a block, marks between some of them, in folders whose files can and
/// cannot be written past the system's cache.
#[test]
fn batches_that_share_a_block_keep_each_other() {
    let (disk, memory) = (TempDir::new_in(".").unwrap(), temp_dir());
    for dir in [disk, memory] {
        let (mut writer, mut log, _) = reopen(dir.path());
        let mut all = Vec::new();
        for batch in 1..=120u64 {
            let length = [1, 40, 900, 3960, 4000, 4096, 4100, 8150, 9000][batch as usize % 9];
            // One that is written in pieces, into a segment of its own.
            let length = if batch == 62 { 2_500_000 } else { length };
            let value = [batch as u8].repeat(length + batch as usize % 7);
            writer.append(accept(1, batch, 1, &value)).unwrap();
            writer.sync().unwrap();
            all.push(data(batch, 1, &value));
            if batch % 3 == 0 {
                writer.mark().unwrap();
            }
            assert_eq!(log.read(1, 0, u64::MAX, usize::MAX).unwrap().entries, all);
            if batch % 5 == 0 {
                // Goes on in the midst of a block.
                drop(writer);
                let found;
                (writer, log, found) = reopen(dir.path());
                assert_eq!((&found.groups[&1].entries, &found.damage), (&all, &Vec::new()));
            }
        }
    }
}

#[test]
fn logs_that_are_written_at_once_hold_what_each_was_given() {
    let mut ring = Ring::new();
    for round in 0..4 {
        let dirs = [(); 2].map(|()| TempDir::new_in(".").unwrap());
        let mut logs = dirs.each_ref().map(|dir| reopen(dir.path()));
        let mut all = [Vec::new(), Vec::new()];
        let may_share = logs.iter().all(|(writer, ..)| writer.may_share_syncs());
        let mut together = 0;
        for batch in 1..=90u64 {
            let length = [1, 40, 900, 3960, 4000, 4096, 4100, 8150][batch as usize % 8];
            for ((writer, ..), all) in logs.iter_mut().zip(&mut all) {
                let value = [batch as u8].repeat(length + all.len() % 7);
                writer.append(accept(1, batch, 1, &value)).unwrap();
                all.push(data(batch, 1, &value));
            }
            let parts: Vec<_> = logs.iter_mut().map(|(writer, ..)| writer.begin_sync()).collect();
            let begun: Vec<_> = parts.iter().map(Option::is_some).collect();
            let parts: Vec<_> = parts.into_iter().flatten().collect();
            together += usize::from(parts.len() == 2 && parts.iter().all(|it| it.lay.is_some()));
            let mut written = match &mut ring {
                Some(ring) if round % 2 == 0 => ring.write(&parts),
                // As where the file system does not do it.
                _ => parts.iter().map(|_| Err(io::ErrorKind::InvalidInput.into())).collect(),
            }
            .into_iter();
            drop(parts);
            for ((writer, log, _), (is_begun, all)) in logs.iter_mut().zip(begun.iter().zip(&all)) {
                match is_begun {
                    true => writer.end_sync(written.next().unwrap()).unwrap(),
                    false => writer.sync().unwrap(),
                }
                assert_eq!(&log.read(1, 0, u64::MAX, usize::MAX).unwrap().entries, all);
            }
            if batch % 7 == 0 {
                drop(logs);
                logs = dirs.each_ref().map(|dir| reopen(dir.path()));
                for ((.., found), all) in logs.iter().zip(&all) {
                    assert_eq!((&found.groups[&1].entries, &found.damage), (all, &Vec::new()));
                }
            }
        }
        // On ext4, that is.
        assert!(together > 40 || !may_share, "one sync for {together} of 90 batches");
    }
}

/// A log of two groups in three batches, and the file that holds it.
fn small_log() -> (TempDir, PathBuf, Recovered) {
    let dir = temp_dir();
    let (mut writer, ..) = reopen(dir.path());
    for batch in 0..3u64 {
        for i in 0..2 {
            writer.append(accept(1, batch * 2 + i + 1, 5, b"some value")).unwrap();
        }
        writer
            .append(Record::Accept { group: 2, index: batch + 1, ballot: 6, value: None })
            .unwrap();
        writer.append(Record::Chosen { group: 1, index: batch }).unwrap();
        let value = format!("members {batch}");
        let (group, index, value) = (1, batch, value.as_bytes());
        writer.append(Record::Config { group, index, value }).unwrap();
        writer.sync().unwrap();
        writer.mark().unwrap();
    }
    drop(writer);
    let file = segment_files(dir.path())[0].clone();
    let original = reopen(copy(dir.path()).path()).2;
    assert_eq!(original.groups[&1].entries.len(), 6);
    assert_eq!((original.damage.len(), original.groups[&1].promise), (0, 5));
    (dir, file, original)
}

/// Checks that a damaged log says nothing false, and no less than it must.
fn check_damaged(found: &Recovered, original: &Recovered, context: &str) {
    for (group, log) in &found.groups {
        let truth = &original.groups[group];
        for entry in &log.entries {
            assert!(truth.entries.contains(entry), "invented: {entry:?}, {context}");
        }
    }
    for (group, truth) in &original.groups {
        let default = GroupLog::default();
        let log = found.groups.get(group).unwrap_or(&default);
        for entry in &truth.entries {
            let known = log.entries.contains(entry)
                || log.faulty.contains(&(entry.index, entry.ballot))
                || found.is_unnamed();
            assert!(known, "forgotten: group {group} {entry:?}, {context}");
        }
        assert_eq!(log.promise, truth.promise, "promise of group {group}, {context}");
        assert_eq!(log.config, truth.config, "members of group {group}, {context}");
        assert!(!log.config_lost, "members of group {group}, {context}");
    }
}

#[test]
fn a_flipped_byte_anywhere_is_named() {
    let (dir, file, original) = small_log();
    let bytes = std::fs::read(&file).unwrap();
    let records = records(&file);
    let &(mark, length, Kind::Mark) = records.last().unwrap() else { panic!("no mark") };
    let mut faulty = 0;
    let heads = (0..64).chain(4096..4160);
    for at in heads.chain(RECORDS_START as usize..(mark + length) as usize) {
        let damaged = copy(dir.path());
        overwrite(damaged.path(), &file, at as u64, &[bytes[at] ^ 0x41]);
        let (_writer, log, found) = reopen(damaged.path());
        check_damaged(&found, &original, &format!("byte {at}"));
        // One damaged record of a log whose batches all have footers is always named.
        assert!(!found.is_unnamed(), "byte {at}: {:?}", found.damage);
        faulty += found.groups.values().map(|log| log.faulty.len()).sum::<usize>();
        for (group, log_of) in &found.groups {
            let read = log.read(*group, 0, u64::MAX, usize::MAX).unwrap();
            assert_eq!(
                (read.entries, read.faulty),
                (log_of.entries.clone(), log_of.faulty.clone())
            );
        }
        let is_record = at >= RECORDS_START as usize && at < mark as usize;
        let is_pad = records.iter().any(|&(start, length, kind)| {
            let end = start + super::format::RECORD_HEADER_BYTES as u32 + length;
            kind != Kind::Pad && (end..end.next_multiple_of(4)).contains(&(at as u32))
        });
        assert_eq!(found.damage.len(), usize::from(is_record && !is_pad), "byte {at}");
    }
    assert!(faulty >= 9 * 44, "every byte of every entry makes it faulty: {faulty}");
}

#[test]
fn without_a_mark_only_the_last_batch_is_taken_for_torn() {
    let (dir, file, original) = small_log();
    let bytes = std::fs::read(&file).unwrap();
    let records = records(&file);
    let &(mark, ..) = records.last().unwrap();
    let footers: Vec<_> = records.iter().filter(|record| record.2 == Kind::Footer).collect();
    let last_batch = footers[footers.len() - 2].0 + 44; // somewhere in the last footer but one
    for (at, byte) in bytes.iter().enumerate().take(mark as usize).skip(RECORDS_START as usize) {
        let damaged = copy(dir.path());
        overwrite(damaged.path(), &file, mark.into(), &[0; 44]);
        overwrite(damaged.path(), &file, at as u64, &[byte ^ 0x41]);
        let (_writer, _log, found) = reopen(damaged.path());
        if (at as u32) < last_batch {
            check_damaged(&found, &original, &format!("byte {at}"));
        } else {
            for (group, log) in &found.groups {
                let truth = &original.groups[group].entries;
                assert!(truth.starts_with(&log.entries), "byte {at}");
            }
        }
    }
}

#[test]
fn a_tail_torn_at_any_byte_ends_the_log_quietly() {
    let (dir, file, original) = small_log();
    let mut records = records(&file);
    records.pop(); // the mark
    let batch_end = |n: usize| {
        let footers = records.iter().filter(|record| record.2 == Kind::Footer);
        let &(at, length, _) = footers.clone().nth(footers.count() - 1 - n).unwrap();
        super::format::record_bytes(length as usize) as u32 + at
    };
    let (start, end) = (batch_end(1), batch_end(0));
    for at in start..end {
        for garbage in [0, 0xa5] {
            let torn = copy(dir.path());
            // The disk has the batch up to `at`; behind it is what stood there before.
            overwrite(torn.path(), &file, at.into(), &vec![garbage; (end - at) as usize + 44]);
            let (mut writer, _log, found) = reopen(torn.path());
            assert_eq!(found.damage, [], "torn at {at}");
            let entries = &found.groups[&1].entries;
            assert!(entries.len() >= 4 && original.groups[&1].entries.starts_with(entries));
            // The log goes on, and the torn batch never comes back.
            writer.append(accept(1, 77, 9, b"next")).unwrap();
            writer.sync().unwrap();
            let before = entries.len();
            drop(writer);
            let (_, _, again) = reopen(torn.path());
            assert_eq!(again.damage, [], "torn at {at}");
            assert_eq!(again.groups[&1].entries.len(), before + 1);
        }
    }
}

#[test]
fn a_batch_the_disk_never_wrote_is_noticed() {
    // The second of three batches is lost, with the mark of the first still standing before it.
    let (dir, file, original) = small_log();
    let records = records(&file);
    let mut ends = records.iter().filter(|record| record.2 == Kind::Footer);
    let (first, second) = (ends.next().unwrap(), ends.next().unwrap());
    let end = |&(at, length, _): &(u32, u32, Kind)| {
        at + super::format::record_bytes(length as usize) as u32
    };
    let (from, to) = (end(first), end(second));
    let bytes = std::fs::read(&file).unwrap();
    let salt = SegmentSalt::of(&bytes);
    let (kind, batch_start, payload_crc) = (Kind::Mark, from, crc32c::crc32c(&[]));
    let mark = Header { kind, length: 0, group: 0, index: 0, ballot: 0, batch_start, payload_crc };
    let mut stale = vec![0; (to - from) as usize];
    stale[..44].copy_from_slice(&mark.encode(salt.0, from));
    overwrite(dir.path(), &file, from.into(), &stale);
    let (_, _, found) = reopen(dir.path());
    assert!(found.is_unnamed(), "{found:?}");
    assert_eq!(found.groups[&1].entries.last(), original.groups[&1].entries.last());
}

struct SegmentSalt(u64);

impl SegmentSalt {
    fn of(bytes: &[u8]) -> SegmentSalt {
        SegmentSalt(super::format::SegmentHeader::decode(bytes).unwrap().salt)
    }
}

/// Appends entries of many groups until some segments are full; returns what was appended.
fn fill(
    writer: &mut Writer,
    groups: u64,
    indexes: std::ops::Range<u64>,
) -> BTreeMap<u64, Vec<Entry>> {
    let mut all: BTreeMap<u64, Vec<Entry>> = BTreeMap::new();
    for index in indexes {
        for group in 0..groups {
            let value = format!("{group}/{index}").into_bytes();
            writer.append(accept(group, index, 1 + group, &value)).unwrap();
            all.entry(group).or_default().push(data(index, 1 + group, &value));
        }
        writer.sync().unwrap();
    }
    all
}

#[test]
fn segments_roll_over_under_many_groups() {
    let dir = temp_dir();
    let (mut writer, log, _) = reopen(dir.path());
    // The state of so many groups alone is larger than a segment.
    let all = fill(&mut writer, 500, 1..21);
    assert!(log.stats().segments > 3, "{:?}", log.stats());
    let check = |log: &Log| {
        for (&group, entries) in &all {
            let read = log.read(group, 0, u64::MAX, usize::MAX).unwrap();
            assert_eq!(read.entries, *entries);
            let some = log.read(group, 5, 9, usize::MAX).unwrap();
            assert_eq!((some.entries.as_slice(), some.next), (&entries[4..9], 10));
        }
    };
    check(&log);
    drop(writer);
    let (writer, log, recovered) = reopen(dir.path());
    check(&log);
    assert_eq!(recovered.damage, []);
    for (group, entries) in &all {
        assert_eq!(recovered.groups[group].entries, *entries);
        assert_eq!(recovered.groups[group].promise, 1 + group);
    }
    drop(writer);
    // Segments that hold nothing above the applied indexes are not even read.
    let (_writer, log, recovered) = open(dir.path(), SMALL, &|_| 20).unwrap();
    check(&log);
    assert!(recovered.groups.values().all(|log| log.entries.is_empty() && log.promise > 0));
}

#[test]
fn a_read_stops_at_its_limits() {
    let dir = temp_dir();
    let (mut writer, log, _) = reopen(dir.path());
    let all = fill(&mut writer, 2, 1..(READ_ENTRIES_MAX as u64 + 101));
    let read = log.read(1, 0, u64::MAX, usize::MAX).unwrap();
    assert_eq!(read.entries, all[&1][..READ_ENTRIES_MAX]);
    let rest = log.read(1, read.next, u64::MAX, usize::MAX).unwrap();
    assert_eq!(rest.entries, all[&1][READ_ENTRIES_MAX..]);
    assert_eq!(rest.next, u64::MAX);
    let few = log.read(1, 10, 1000, 12).unwrap();
    assert_eq!((few.entries.len(), few.next), (3, 13)); // 4 bytes each
    assert_eq!(log.read(1, 10, 1000, 0).unwrap().entries.len(), 1);
}

#[test]
fn truncated_segments_are_used_again() {
    let dir = temp_dir();
    let (mut writer, log, _) = reopen(dir.path());
    let mut last = BTreeMap::new();
    for round in 0..20u64 {
        last = fill(&mut writer, 3, round * 50 + 1..round * 50 + 51);
        for group in 0..3 {
            writer.append(Record::Truncate { group, index: round * 50 }).unwrap();
        }
        writer.sync().unwrap();
        assert!(log.stats().segments <= 4, "round {round}: {:?}", log.stats());
    }
    drop(writer);
    assert!(segment_files(dir.path()).len() <= 5);
    let (_writer, log, recovered) = reopen(dir.path());
    assert_eq!((recovered.damage.as_slice(), recovered.torn_bytes), (&[][..], 0));
    for (group, entries) in last {
        let found = &recovered.groups[&group];
        assert_eq!((found.truncated, &found.entries), (950, &entries));
        assert_eq!(log.read(group, 951, u64::MAX, usize::MAX).unwrap().entries, entries);
    }
}

/// Has threads that wait for the end of others end, also when those fail.
struct StopsOnDrop<'a>(&'a AtomicBool);

impl Drop for StopsOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_segment_has_its_name_when_it_is_whole() {
    use super::segment::{Blank, Pace, making_path, read_headers};
    let dir = temp_dir();
    // What a crash left of an earlier attempt is no part of the log.
    std::fs::write(making_path(dir.path(), 9), vec![0; 3 << 20]).unwrap();
    drop(reopen(dir.path()));
    assert!(!making_path(dir.path(), 9).exists());
    let done = AtomicBool::new(false);
    let mut seen = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ends = StopsOnDrop(&done);
            for seq in 100..130 {
                Blank::make(&Disk::System, dir.path(), seq, 4 << 20, None, &Pace::full()).unwrap();
            }
        });
        while !done.load(Ordering::Relaxed) {
            // At any moment a process may be killed: what it leaves must be readable.
            for path in segment_files(dir.path()) {
                let file = std::fs::File::open(&path).unwrap();
                let headers = read_headers(&crate::machine::File::System(file), &path).unwrap();
                assert!(headers.iter().any(Option::is_some), "{} has no header", path.display());
                seen += 1;
            }
        }
    });
    assert!(seen > 0);
    let (_, _, recovered) = reopen(dir.path());
    assert!(recovered.damage.is_empty(), "{:?}", recovered.damage);
}

#[test]
fn a_segment_goes_only_once_the_next_one_has_its_promises_durably() {
    for synced in [false, true] {
        let dir = temp_dir();
        let (mut writer, ..) = reopen(dir.path());
        writer.append(accept(1, 1, 4, b"value")).unwrap();
        writer.append(Record::Promise { group: 1, ballot: 9 }).unwrap();
        writer.append(Record::Config { group: 1, index: 1, value: b"members" }).unwrap();
        writer.append(Record::Truncate { group: 1, index: 1 }).unwrap();
        writer.sync().unwrap();
        let first = segment_files(dir.path())[0].clone();
        // It does not fit: the next segment begins. A crash comes before that is synced, or after.
        writer.append(accept(1, 2, 9, &[7; SEGMENT_BYTES_MIN as usize])).unwrap();
        writer.append(Record::Truncate { group: 1, index: 1 }).unwrap();
        if synced {
            writer.sync().unwrap();
        } else {
            writer.repaired();
        }
        drop(writer);
        assert_eq!(
            first.exists(),
            !synced,
            "nothing in it is needed, once it is written elsewhere"
        );
        for _ in 0..2 {
            let (mut writer, _, recovered) = reopen(dir.path());
            assert_eq!(recovered.damage, []);
            let group = &recovered.groups[&1];
            assert_eq!((group.promise, group.truncated), (9, 1));
            assert_eq!(group.config, Some((1, Bytes::from_static(b"members"))));
            writer.append(accept(1, 3, 9, b"next")).unwrap();
            writer.sync().unwrap();
        }
    }
}

#[test]
fn what_was_promised_outlives_crashes_before_the_next_segments_head_is_synced() {
    let dir = temp_dir();
    let (mut writer, ..) = reopen(dir.path());
    writer.append(accept(1, 1, 4, b"value")).unwrap();
    writer.append(Record::Promise { group: 1, ballot: 9 }).unwrap();
    writer.append(Record::Config { group: 1, index: 1, value: b"members" }).unwrap();
    writer.append(Record::Chosen { group: 1, index: 1 }).unwrap();
    writer.sync().unwrap();
    // It does not fit: the next segment begins, and the process dies.
    writer.append(accept(1, 2, 9, &[7; SEGMENT_BYTES_MIN as usize])).unwrap();
    drop(writer);
    let files = segment_files(dir.path());
    let head = |file: &Path| std::fs::read(file).unwrap()[..RECORDS_START as usize].to_vec();
    for round in 0..3 {
        // Everything was applied, so no segment has an entry that is to be loaded.
        let (writer, _, recovered) = open(dir.path(), SMALL, &|_| 1).unwrap();
        assert_eq!(recovered.damage, []);
        let group = recovered.groups.get(&1).cloned().unwrap_or_default();
        assert_eq!((group.promise, group.chosen, round), (9, 1, round));
        assert_eq!(group.config, Some((1, Bytes::from_static(b"members"))), "round {round}");
        drop(writer);
        // The process dies again before the segment that it went on in has a head.
        let newest = segment_files(dir.path());
        for file in newest.iter().filter(|file| !files.contains(file)) {
            let length = std::fs::metadata(file).unwrap().len();
            let bare = [head(file), vec![0; length as usize - RECORDS_START as usize]].concat();
            std::fs::write(file, bare).unwrap();
        }
    }
}

#[test]
fn one_idle_group_keeps_its_segment() {
    let dir = temp_dir();
    let (mut writer, log, _) = reopen(dir.path());
    writer.append(accept(9, 1, 1, b"idle")).unwrap();
    fill(&mut writer, 2, 1..2000);
    for group in 0..2 {
        writer.append(Record::Truncate { group, index: 2000 }).unwrap();
    }
    writer.sync().unwrap();
    assert!(log.stats().segments > 3);
    assert_eq!(log.read(9, 1, 1, 1).unwrap().entries, [data(1, 1, b"idle")]);
    writer.append(Record::Truncate { group: 9, index: 1 }).unwrap();
    writer.sync().unwrap();
    assert_eq!(log.stats().segments, 1);
}

#[test]
fn a_forgotten_group_is_gone_until_it_returns() {
    let dir = temp_dir();
    let (mut writer, log, _) = reopen(dir.path());
    fill(&mut writer, 2, 1..400);
    assert!(log.stats().segments > 2);
    writer.append(accept(1, 500, 2, b"same batch")).unwrap();
    writer.append(Record::Forget { group: 1 }).unwrap();
    writer.append(accept(1, 3, 1, b"new life")).unwrap();
    writer.sync().unwrap();
    let all = |log: &Log| log.read(1, 0, u64::MAX, usize::MAX).unwrap().entries;
    assert_eq!(all(&log), [data(3, 1, b"new life")]);
    drop(writer);
    let (mut writer, log, recovered) = reopen(dir.path());
    assert_eq!(recovered.groups[&1].entries, [data(3, 1, b"new life")]);
    assert_eq!(recovered.groups[&1].promise, 1);
    assert_eq!(all(&log), [data(3, 1, b"new life")]);
    // The segment that says so is read at every start, even if all its entries are applied.
    fill(&mut writer, 1, 400..1200);
    drop((writer, log));
    let applied = |group| if group == 0 { 1200 } else { 2 };
    let (writer, log, recovered) = open(dir.path(), SMALL, &applied).unwrap();
    assert_eq!(recovered.groups[&1].entries, [data(3, 1, b"new life")]);
    assert_eq!(all(&log), [data(3, 1, b"new life")]);
    drop((writer, log));
    let (_, _, recovered) = open(dir.path(), SMALL, &|_| 1200).unwrap();
    assert_eq!((recovered.groups[&1].promise, recovered.groups[&1].entries.len()), (1, 0));
    let (mut writer, log, _) = reopen(dir.path());
    for (group, index) in [(0, 1200), (1, 3)] {
        writer.append(Record::Truncate { group, index }).unwrap();
    }
    writer.sync().unwrap();
    assert_eq!(log.stats().segments, 1);
}

#[test]
fn a_value_larger_than_a_segment_fits() {
    let dir = temp_dir();
    let (mut writer, log, _) = reopen(dir.path());
    let large = vec![7; 5 * SEGMENT_BYTES_MIN as usize];
    fill(&mut writer, 2, 1..10);
    writer.append(accept(1, 10, 2, &large)).unwrap();
    writer.append(accept(1, 11, 2, b"after")).unwrap();
    writer.sync().unwrap();
    assert_eq!(log.read(1, 10, 10, 1).unwrap().entries, [data(10, 2, &large)]);
    drop(writer);
    let (_, _, recovered) = reopen(dir.path());
    assert_eq!(recovered.groups[&1].entries[9], data(10, 2, &large));
    assert_eq!(recovered.groups[&1].entries[10], data(11, 2, b"after"));
}

#[test]
fn damage_to_a_closed_segment_names_what_it_lost() {
    let dir = temp_dir();
    let (mut writer, ..) = reopen(dir.path());
    let all = fill(&mut writer, 5, 1..300);
    drop(writer);
    let files = segment_files(dir.path());
    // A whole disk block, footers and all: only the index file knows.
    let block = copy(dir.path());
    overwrite(block.path(), &files[1], 12288, &[0; 4096]);
    let (mut writer, log, found) = reopen(block.path());
    assert_eq!(found.damage.len(), 1);
    let lost = &found.damage[0].lost;
    assert!(lost.len() > 20);
    for (group, entries) in &all {
        let faulty: Vec<(u64, u64)> =
            lost.iter().filter(|lost| lost.0 == *group).map(|lost| (lost.1, lost.2)).collect();
        let log_of = &found.groups[group];
        assert_eq!(log_of.faulty, faulty);
        assert_eq!(log_of.entries.len() + faulty.len(), entries.len());
        let read = log.read(*group, 0, u64::MAX, usize::MAX).unwrap();
        assert_eq!((&read.entries, &read.faulty), (&log_of.entries, &log_of.faulty));
    }
    // Accepting it again repairs it, for readers and for the next start.
    for (group, entries) in &all {
        for &(_, index, ballot) in lost.iter().filter(|lost| lost.0 == *group) {
            let Value::Data(value) = &entries[index as usize - 1].value else { panic!() };
            writer.append(accept(*group, index, ballot, value)).unwrap();
        }
    }
    writer.sync().unwrap();
    for (group, entries) in &all {
        assert_eq!(log.read(*group, 0, u64::MAX, usize::MAX).unwrap().entries, *entries);
    }
    drop(writer);
    let (_, _, found) = reopen(block.path());
    assert_eq!(found.damage.len(), 1);
    assert!(found.groups.iter().all(|(g, l)| l.faulty.is_empty() && l.entries == all[g]));
}

#[test]
fn a_lost_segment_is_noticed_and_kept_until_repaired() {
    let dir = temp_dir();
    let (mut writer, ..) = reopen(dir.path());
    let all = fill(&mut writer, 5, 1..300);
    drop(writer);
    let files = segment_files(dir.path());
    // Both headers gone: the index file still has what is needed to read it.
    let headless = copy(dir.path());
    overwrite(headless.path(), &files[1], 0, &[0; 8192]);
    let (_, _, found) = reopen(headless.path());
    assert!(found.groups.iter().all(|(group, log)| log.entries == all[group]));
    // The index file gone as well: nothing can be read, and nobody pretends otherwise.
    std::fs::remove_file(headless.path().join(files[1].with_extension("idx").file_name().unwrap()))
        .unwrap();
    let (mut writer, log, found) = reopen(headless.path());
    assert!(found.is_unnamed());
    let segments = log.stats().segments;
    for group in 0..5 {
        writer.append(Record::Truncate { group, index: 1000 }).unwrap();
    }
    writer.sync().unwrap();
    assert_eq!(log.stats().segments, segments - 1);
    writer.repaired();
    assert_eq!(log.stats().segments, 1);
    // The file gone.
    std::fs::remove_file(dir.path().join(&files[1])).unwrap();
    let (_, _, found) = reopen(dir.path());
    assert!(found.is_unnamed() && found.damage[0].length == 0);
}

#[test]
fn readers_keep_up_with_the_writer() {
    let dir = temp_dir();
    let (mut writer, log, _) = reopen(dir.path());
    let (durable, truncated) = (AtomicU64::new(0), AtomicU64::new(0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = StopsOnDrop(&done);
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let last = durable.load(Ordering::SeqCst);
                    let read = log.read(3, 1, last, 1 << 20).unwrap();
                    assert_eq!(read.faulty, []);
                    let gone = truncated.load(Ordering::SeqCst);
                    for entry in &read.entries {
                        let expected = entry.index.to_le_bytes().repeat(20);
                        assert_eq!(*entry, data(entry.index, 1, &expected));
                    }
                    // All that was not truncated meanwhile is there, up to the limits of a read.
                    let seen: Vec<u64> =
                        read.entries.iter().map(|e| e.index).filter(|&i| i > gone).collect();
                    let end = read.next.min(last + 1);
                    assert_eq!(seen, (gone + 1..end.max(gone + 1)).collect::<Vec<_>>());
                }
            });
        }
        for index in 1..3000u64 {
            writer.append(accept(3, index, 1, &index.to_le_bytes().repeat(20))).unwrap();
            writer.append(accept(4, index, 1, b"other")).unwrap();
            writer.sync().unwrap();
            durable.store(index, Ordering::SeqCst);
            if index % 500 == 0 {
                truncated.store(index - 300, Ordering::SeqCst);
                for group in [3, 4] {
                    writer.append(Record::Truncate { group, index: index - 300 }).unwrap();
                }
            }
        }
    });
    assert!(log.stats().segments < 20);
}

#[test]
fn the_newest_members_of_a_group_outlive_segments_and_end_with_it() {
    let dir = temp_dir();
    let (mut writer, ..) = reopen(dir.path());
    let config = |index, value| Record::Config { group: 1, index, value };
    writer.append(config(7, b"new")).unwrap();
    writer.append(config(3, b"old")).unwrap();
    writer.append(Record::Config { group: 2, index: 1, value: b"other" }).unwrap();
    writer.sync().unwrap();
    let first = segment_files(dir.path())[0].clone();
    for index in 1..200 {
        writer.append(accept(1, index, 1, &[7; 1000])).unwrap();
        writer.append(Record::Truncate { group: 1, index }).unwrap();
        writer.sync().unwrap();
    }
    writer.append(Record::Forget { group: 2 }).unwrap();
    writer.sync().unwrap();
    drop(writer);
    assert!(!first.exists(), "the segment of the first record is gone");
    let (.., recovered) = reopen(dir.path());
    assert_eq!(recovered.groups[&1].config, Some((7, Bytes::from_static(b"new"))));
    assert!(recovered.groups.get(&2).is_none_or(|group| group.config.is_none()));
}

#[test]
fn members_that_cannot_be_read_are_told() {
    let dir = temp_dir();
    let (mut writer, ..) = reopen(dir.path());
    for (index, value) in [(1, b"before"), (2, b"behind")] {
        writer.append(Record::Config { group: 1, index, value }).unwrap();
        writer.sync().unwrap();
    }
    writer.mark().unwrap();
    drop(writer);
    let file = segment_files(dir.path())[0].clone();
    let bytes = std::fs::read(&file).unwrap();
    let newest = |window: &[u8]| window == b"behind";
    let copies: Vec<_> = bytes.windows(6).enumerate().filter(|(_, w)| newest(w)).collect();
    assert_eq!(copies.len(), 2);
    assert!(copies[1].0 - copies[0].0 >= 4096, "not in one disk block");
    let damaged = copy(dir.path());
    overwrite(damaged.path(), &file, copies[0].0 as u64, b"x");
    let (.., recovered) = reopen(damaged.path());
    assert_eq!(recovered.groups[&1].config, Some((2, Bytes::from_static(b"behind"))));
    overwrite(dir.path(), &file, copies[0].0 as u64, b"x");
    overwrite(dir.path(), &file, copies[1].0 as u64, b"x");
    let (.., recovered) = reopen(dir.path());
    assert_eq!(recovered.groups[&1].config, Some((1, Bytes::from_static(b"before"))));
    assert!(recovered.groups[&1].config_lost);
}
