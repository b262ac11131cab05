//! A snapshot on its way, on disk: the chunks as they came.
//!
//! ```text
//! file  = "evenksnp" source:u32 session:u64 crc32c:u32 chunk*      numbers are big-endian
//! chunk = number:u32 last:u8 length:u32 crc32c:u32 bytes           the sum is over the bytes
//! ```
//!
//! Nothing is synced: what a crash leaves is read again and checked, and ends where it is damaged.
//!
//! It is read while it grows: [`Progress`] tells the reader how far it has got.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use parking_lot::{Condvar, Mutex};

use super::{Head, take_head, take_row};
use crate::machine::{Disk, File, Open};
use crate::message::Chunk;
use crate::partition::Clock;
use crate::row::verify_row;

const MAGIC: &[u8; 8] = b"evenksnp";
const HEAD_BYTES: u64 = 8 + 4 + 8 + 4;
const CHUNK_HEAD_BYTES: usize = 4 + 1 + 4 + 4;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Spool {
    disk: Disk,
    path: PathBuf,
    file: File,
    pub(super) source: paxos::NodeId,
    pub(super) session: u64,
    /// What chunk 0 said.
    pub(super) head: Option<Head>,
    /// The number of the next chunk.
    pub(super) next: u32,
    /// The last row there is.
    pub(super) last_row: Bytes,
    /// The last chunk is there.
    pub(super) is_whole: bool,
    end: u64,
    progress: Arc<Progress>,
}

/// Why a chunk was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    /// It is damaged, or not the one that was asked for.
    #[error("a part of a snapshot is damaged")]
    Damaged,
    /// Nobody wants it any more.
    #[error("a snapshot was broken off")]
    BrokenOff,
    /// The disk refused.
    #[error("spool of a snapshot: {0}")]
    Io(#[from] io::Error),
}

impl Spool {
    /// Begins a spool; what stood at the path is gone.
    pub(super) fn create(
        disk: &Disk,
        path: &Path,
        source: paxos::NodeId,
        session: u64,
    ) -> io::Result<Spool> {
        if let Some(folder) = path.parent() {
            disk.create_folders(folder)?;
        }
        let file = disk.open(path, Open::Truncate)?;
        let mut head = Vec::with_capacity(HEAD_BYTES as usize);
        head.put_slice(MAGIC);
        head.put_u32(source.0);
        head.put_u64(session);
        let crc = crc32c::crc32c(&head);
        head.put_u32(crc);
        file.write_all_at(&head, 0)?;
        Ok(Spool::new((disk, path), file, source, session))
    }

    fn new((disk, path): (&Disk, &Path), file: File, source: paxos::NodeId, session: u64) -> Spool {
        Spool {
            disk: disk.clone(),
            path: path.to_owned(),
            file,
            source,
            session,
            head: None,
            next: 0,
            last_row: Bytes::new(),
            is_whole: false,
            end: HEAD_BYTES,
            progress: Arc::default(),
        }
    }

    /// Opens what a life before left at the path; `None` if that is of no use.
    pub(super) fn open(disk: &Disk, path: &Path) -> Option<Spool> {
        let file = disk.open(path, Open::Write).ok()?;
        let mut head = [0; HEAD_BYTES as usize];
        file.read_exact_at(&mut head, 0).ok()?;
        let (body, mut crc) = head.split_at(HEAD_BYTES as usize - 4);
        if crc32c::crc32c(body) != crc.get_u32() {
            return None;
        }
        let mut rest = body.strip_prefix(MAGIC)?;
        let (source, session) = (paxos::NodeId(rest.get_u32()), rest.get_u64());
        let mut spool = Spool::new((disk, path), file, source, session);
        while !spool.is_whole {
            let Ok(Some(chunk)) = read_chunk(&spool.file, spool.end) else { break };
            if spool.check(&chunk).is_err() {
                break;
            }
            spool.end += (CHUNK_HEAD_BYTES + chunk.bytes.len()) as u64;
        }
        spool.file.set_length(spool.end).ok()?;
        spool.progress.reach(spool.end, spool.is_whole);
        (spool.next > 0).then_some(spool)
    }

    /// Takes a chunk.
    pub(super) fn push(&mut self, chunk: &Chunk) -> Result<(), SpoolError> {
        self.check(chunk)?;
        let mut head = Vec::with_capacity(CHUNK_HEAD_BYTES + chunk.bytes.len());
        head.put_u32(chunk.number);
        head.put_u8(u8::from(chunk.last));
        head.put_u32(chunk.bytes.len() as u32);
        head.put_u32(chunk.crc);
        head.put_slice(&chunk.bytes);
        self.file.write_all_at(&head, self.end)?;
        self.end += head.len() as u64;
        self.progress.reach(self.end, self.is_whole);
        Ok(())
    }

    /// Looks whether a chunk is the next one and all of its rows are sound, and takes note of it.
    fn check(&mut self, chunk: &Chunk) -> Result<(), SpoolError> {
        if chunk.number != self.next || crc32c::crc32c(&chunk.bytes) != chunk.crc {
            return Err(SpoolError::Damaged);
        }
        let mut rest = chunk.bytes.clone();
        if chunk.number == 0 {
            self.head = Some(take_head(&mut rest).ok_or(SpoolError::Damaged)?);
        }
        let mut last = self.last_row.clone();
        while let Some((row, sealed)) = take_row(&mut rest) {
            if row <= last || verify_row(&row, &sealed).is_err() {
                return Err(SpoolError::Damaged);
            }
            last = row;
        }
        if !rest.is_empty() {
            return Err(SpoolError::Damaged);
        }
        // Not a slice of the chunk: that would be kept whole.
        self.last_row = Bytes::copy_from_slice(&last);
        self.next += 1;
        self.is_whole = chunk.last;
        Ok(())
    }

    /// What reads it while it grows.
    pub(super) fn reader(&self) -> Reader {
        let progress = Arc::clone(&self.progress);
        Reader { disk: self.disk.clone(), path: self.path.clone(), progress }
    }

    /// Removes the file; whoever reads it is to have ended.
    pub(super) fn remove(self) {
        // One that stays is found to be of no use.
        let _ = self.disk.remove_file(&self.path);
    }
}

impl Drop for Spool {
    /// What has not come by now never will.
    fn drop(&mut self) {
        self.progress.break_off();
    }
}

/// `None` at the end.
fn read_chunk(file: &File, at: u64) -> io::Result<Option<Chunk>> {
    let mut head = [0; CHUNK_HEAD_BYTES];
    match file.read_exact_at(&mut head, at) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut rest = &head[..];
    let (number, last) = (rest.get_u32(), rest.get_u8() == 1);
    let (length, crc) = (rest.get_u32() as usize, rest.get_u32());
    if length > wire::peer::BODY_BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at + CHUNK_HEAD_BYTES as u64)?;
    let (identity, session) = (paxos::NodeId(0), 0);
    Ok(Some(Chunk { identity, session, number, last, crc, bytes: bytes.into() }))
}

/// How far a spool has got.
#[derive(Default, Debug)]
struct Progress {
    reached: Mutex<Reached>,
    changed: Condvar,
}

#[derive(Default, Debug)]
struct Reached {
    end: u64,
    is_whole: bool,
    is_broken_off: bool,
}

impl Progress {
    fn reach(&self, end: u64, is_whole: bool) {
        let mut reached = self.reached.lock();
        (reached.end, reached.is_whole) = (end, is_whole);
        self.changed.notify_all();
    }

    fn break_off(&self) {
        self.reached.lock().is_broken_off = true;
        self.changed.notify_all();
    }

    /// Waits until there is more than so many bytes, and until then. False if it is broken off.
    fn wait_for(&self, at: u64, then: Option<Instant>) -> bool {
        let mut reached = self.reached.lock();
        loop {
            if reached.is_broken_off {
                return false;
            }
            if reached.end <= at && !reached.is_whole {
                self.changed.wait(&mut reached);
                continue;
            }
            let Some(then) = then else { return true };
            if self.changed.wait_until(&mut reached, then).timed_out() {
                return !reached.is_broken_off;
            }
        }
    }
}

/// Reads a spool while it grows.
#[derive(Debug)]
pub(super) struct Reader {
    disk: Disk,
    path: PathBuf,
    progress: Arc<Progress>,
}

impl Reader {
    /// The rows, in order, each chunk read when it is come to: it is waited for if it is not there yet,
    /// and none is read sooner than so many bytes a second by this clock allow, if there is such a limit.
    pub(super) fn rows(&self, limit: Option<(u64, Clock)>) -> io::Result<Rows> {
        let (file, progress) = (self.disk.open(&self.path, Open::Read)?, self.progress.clone());
        let (at, rest) = (HEAD_BYTES, Bytes::new());
        Ok(Rows { file, progress, limit, not_before: None, at, rest, is_over: false })
    }

    /// Whether nothing has to be waited for: all of it is there, or it is broken off.
    pub(super) fn is_ready(&self) -> bool {
        let reached = self.progress.reached.lock();
        reached.is_whole || reached.is_broken_off
    }

    /// Ends all reading.
    pub(super) fn break_off(&self) {
        self.progress.break_off();
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.progress.reached.lock().end
    }
}

/// The rows of a spool.
pub(super) struct Rows {
    file: File,
    progress: Arc<Progress>,
    limit: Option<(u64, Clock)>,
    /// When the next chunk may be read.
    not_before: Option<Instant>,
    at: u64,
    rest: Bytes,
    is_over: bool,
}

impl Rows {
    fn read_on(&mut self) -> Result<(), SpoolError> {
        if !self.progress.wait_for(self.at, self.not_before) {
            return Err(SpoolError::BrokenOff);
        }
        let chunk = read_chunk(&self.file, self.at)?.ok_or(SpoolError::Damaged)?;
        // Checked again: what is installed is what was sent.
        if crc32c::crc32c(&chunk.bytes) != chunk.crc {
            return Err(SpoolError::Damaged);
        }
        self.not_before = self.limit.as_ref().map(|(rate, clock)| {
            let pause = chunk.bytes.len() as f64 / (*rate).max(1) as f64;
            clock.instant() + Duration::from_secs_f64(pause)
        });
        self.at += (CHUNK_HEAD_BYTES + chunk.bytes.len()) as u64;
        (self.rest, self.is_over) = (chunk.bytes, chunk.last);
        if chunk.number == 0 && take_head(&mut self.rest).is_none() {
            return Err(SpoolError::Damaged);
        }
        Ok(())
    }
}

impl Iterator for Rows {
    type Item = Result<(Bytes, Bytes), SpoolError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = take_row(&mut self.rest) {
                return Some(Ok(row));
            }
            if self.is_over {
                return None;
            }
            if let Err(error) = self.read_on() {
                return Some(Err(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::{put_head, put_row};
    use super::*;
    use crate::row::seal_row;

    fn chunk(number: u32, rows: std::ops::Range<u32>, last: bool) -> Chunk {
        let mut bytes = BytesMut::new();
        if number == 0 {
            let config = paxos::Config::initial(&[paxos::NodeId(1)]);
            put_head(
                &mut bytes,
                &Head { applied: Default::default(), requests: Default::default(), config },
            );
        }
        for row in rows {
            let key = format!("row{row:04}");
            put_row(&mut bytes, key.as_bytes(), &seal_row(key.as_bytes(), b"value"));
        }
        let (bytes, identity) = (bytes.freeze(), paxos::NodeId(1));
        let crc = crc32c::crc32c(&bytes);
        Chunk { identity, session: 7, number, last, crc, bytes }
    }

    #[test]
    fn a_spool_goes_on_where_a_crash_left_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("incoming").join("1");
        let mut spool =
            Spool::create(&Disk::System, &path, paxos::NodeId(3), 7).expect("a new spool");
        spool.push(&chunk(0, 0..10, false)).expect("the first");
        assert!(spool.push(&chunk(2, 20..30, true)).is_err(), "one is missing");
        let mut damaged = chunk(1, 10..20, false);
        damaged.crc ^= 1;
        assert!(spool.push(&damaged).is_err());
        assert!(spool.push(&chunk(1, 5..8, false)).is_err(), "rows ascend");
        spool.push(&chunk(1, 10..20, false)).expect("the second");
        let whole = std::fs::read(&path).expect("a file");
        let first_end = HEAD_BYTES as usize + CHUNK_HEAD_BYTES + chunk(0, 0..10, false).bytes.len();
        // However much of the second chunk got there, the first one counts.
        for cut in [first_end, first_end + 3, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).expect("cut");
            let spool = Spool::open(&Disk::System, &path).expect("the first chunk is there");
            assert_eq!((spool.next, spool.source.0, spool.session), (1, 3, 7));
            assert_eq!(spool.last_row, "row0009");
        }
        std::fs::write(&path, &whole[..first_end - 1]).expect("cut");
        assert!(Spool::open(&Disk::System, &path).is_none());
        std::fs::write(&path, &whole).expect("whole");
        let mut spool = Spool::open(&Disk::System, &path).expect("both are there");
        spool.push(&chunk(2, 20..30, true)).expect("the last");
        assert!(spool.is_whole && spool.head.is_some());
        let rows: Vec<_> =
            spool.reader().rows(None).expect("a file").map(|row| row.expect("sound").0).collect();
        assert_eq!(rows.len(), 30);
        assert_eq!(rows[29], "row0029");
        spool.remove();
        assert!(!path.exists());
    }
}
