//! What a node does while the process is out of file descriptors: it waits for some. Alone in its file,
//! as the limit is that of the whole process.

use std::fs::File;
use std::sync::Arc;
use std::thread;

use storage::lsm::{DeadSet, Lsm, LsmError};
use storage::{lsm, wal};

/// Descriptors that the process may have in this test.
const LIMIT: libc::rlim_t = 128;

/// Takes all file descriptors that are left.
fn take_all() -> Vec<File> {
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    assert!(!taken.is_empty());
    taken
}

#[test]
fn a_log_and_a_flush_wait_for_descriptors() {
    let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
    // SAFETY: the structure lives through the call, and is only read.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    let dir = tempfile::tempdir().expect("a folder");

    // A run of rows is refused as a whole, and goes in later.
    let options = lsm::Options { open_tables: 10, ..lsm::Options::default() };
    let dead = Arc::new(DeadSet::default());
    let rows = Lsm::open(&dir.path().join("rows"), options, dead, |_| None).expect("open rows");
    let row = || {
        let value = storage::row::seal_row(b"key", b"value");
        [(bytes::Bytes::from_static(b"key"), Some(value))].into_iter()
    };
    let taken = take_all();
    assert!(matches!(rows.ingest(row()), Err(LsmError::Exhausted(_))));
    drop(taken);
    assert_eq!(rows.ingest(row()).expect("a run"), 1);
    assert_eq!(rows.get(b"key").expect("read").as_deref(), Some(&b"value"[..]));

    // The log goes on in the segment that is ready, and waits for the one behind it.
    let options = wal::Options { segment_bytes: wal::SEGMENT_BYTES_MIN, recycle_segments: 1 };
    let (mut writer, log, _) =
        wal::open(&dir.path().join("log"), options, &|_| 0).expect("open the log");
    let value = vec![7u8; wal::SEGMENT_BYTES_MIN as usize / 4];
    let taken = take_all();
    let appends = thread::spawn(move || {
        for index in 1..=40 {
            let record = wal::Record::Accept { group: 1, index, ballot: 1, value: Some(&value) };
            writer.append(record)?;
            writer.sync()?;
        }
        Ok::<_, wal::WalError>(writer)
    });
    // It cannot get far without a file.
    let is_stuck = || log.stats().entries < 40 && log.stats().entries > 0;
    while !is_stuck() && !appends.is_finished() {
        thread::yield_now();
    }
    drop(taken);
    let writer = appends.join().expect("no panic").expect("it waited");
    assert_eq!(log.read(1, 0, 40, usize::MAX).expect("read").entries.len(), 40);
    drop(writer);
}
