//! A segment's file: its making, its header, its place in the directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::format::{SEGMENT_HEADER_AT, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::index::SegmentIndex;
use super::{WalError, io_error};
use crate::machine::{BLOCK_BYTES, Blocks, Chance, DirectFile, Disk, Extents, File, Open};

/// How much of a new segment is written at once, in blocks.
const FILL_CHUNK_BLOCKS: usize = (1 << 20) / BLOCK_BYTES;
/// Rests between two such pieces, in times of what the disk took for one.
const FILL_RESTS: u32 = 3;
/// The longest rest.
const FILL_REST_MAX: Duration = Duration::from_millis(20);

/// A segment in use.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) seq: u64,
    pub(super) salt: u64,
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// Bytes of the file.
    pub(super) capacity: u32,
    /// Where its entries are.
    pub(super) index: RwLock<SegmentIndex>,
    /// Nothing of it can be read: it is kept until what it held is repaired.
    pub(super) lost: bool,
}

/// A segment made ahead of need: all its bytes were written, its header says blank.
#[derive(Debug)]
pub(super) struct Blank {
    pub(super) seq: u64,
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) capacity: u32,
    writer: BlockWriter,
}

/// Writes blocks of a segment: past the system's cache, or through it where that cannot be.
#[derive(Debug)]
pub(super) struct BlockWriter {
    direct: Option<DirectFile>,
}

impl BlockWriter {
    /// Of a segment's file that is there.
    pub(super) fn open(disk: &Disk, path: &Path) -> BlockWriter {
        BlockWriter { direct: disk.open_direct(path) }
    }

    /// What writes past the system's cache, if it does.
    pub(super) fn direct(&self) -> Option<&DirectFile> {
        self.direct.as_ref()
    }

    /// Whether another file's sync may do for this one.
    pub(super) fn may_share_syncs(&self) -> bool {
        self.direct().is_some_and(DirectFile::may_share_syncs)
    }

    /// Where the file lies, so far as that matters.
    pub(super) fn extents(&self, length: u32) -> Option<Extents> {
        let direct = self.direct().filter(|file| file.may_share_syncs())?;
        direct.extents(length.into())
    }

    /// Writes to a multiple of a block's length. Durable after the file's next sync.
    pub(super) fn write(&mut self, file: &File, blocks: &Blocks, at: u64) -> io::Result<()> {
        if let Some(direct) = &self.direct {
            match direct.write_all_at(blocks, at) {
                // This file system wants more than whole blocks of ours.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.direct = None,
                written => return written,
            }
        }
        file.write_all_at(blocks.bytes(), at)
    }
}

/// How fast new segments are filled. All replicas of a group need their next segment at the same time: 64
/// MiB each, written at once, keep every log on that disk from syncing for 50 to 100 ms. So there are
/// rests, until somebody waits for the segment.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    is_awaited: Arc<AtomicBool>,
}

impl Pace {
    /// Without rests for as long as `is_awaited`.
    pub(super) fn new(is_awaited: Arc<AtomicBool>) -> Pace {
        Pace { is_awaited }
    }

    /// Without any rest.
    pub(super) fn full() -> Pace {
        Pace::new(Arc::new(AtomicBool::new(true)))
    }

    /// Called behind each piece, whose writing began then.
    fn rest(&self, file: &File, began: Instant) {
        if self.is_awaited.load(Relaxed) {
            return;
        }
        file.write_back();
        std::thread::sleep((began.elapsed() * FILL_RESTS).min(FILL_REST_MAX));
    }
}

/// The path of a segment.
pub(super) fn segment_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("wal-{seq:016x}.seg"))
}

/// The path of a segment's index.
pub(super) fn index_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("wal-{seq:016x}.idx"))
}

/// The path of a segment that waits to be used again.
pub(super) fn spare_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("spare-{number:016x}.seg"))
}

/// The path of a segment that is being made: a crash leaves it in any state.
pub(super) fn making_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("making-{seq:016x}.seg"))
}

/// The number in a file name made of a prefix, 16 hexadecimal digits and a suffix.
pub(super) fn parse_name(name: &str, prefix: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

impl Blank {
    /// Makes the segment `seq`, out of a spare file if there is one. Durable when it returns.
    ///
    /// It gets its name when it is whole: half of one would look like a segment whose header was
    /// lost, and what that held nobody could tell.
    pub(super) fn make(
        disk: &Disk,
        dir: &Path,
        seq: u64,
        capacity: u32,
        spare: Option<PathBuf>,
        pace: &Pace,
    ) -> Result<Blank, WalError> {
        let path = making_path(dir, seq);
        if let Some(spare) = &spare {
            disk.rename(spare, &path).map_err(io_error("recycle segment", spare))?;
        }
        let file = disk.open(&path, Open::Create).map_err(io_error("create segment", &path))?;
        let length = file.length().map_err(io_error("inspect segment", &path))?;
        let writer = BlockWriter::open(disk, &path);
        let mut blank = Blank { seq, file, path, capacity, writer };
        blank.fill(length.min(capacity.into()) as u32, pace)?;
        blank.file.set_length(capacity.into()).map_err(io_error("size segment", &blank.path))?;
        let header = SegmentHeader { used: false, seq, salt: 0, previous_end: 0 };
        write_header(&blank.file, &blank.path, header)?;
        blank.file.sync_all().map_err(io_error("sync new segment", &blank.path))?;
        let name = segment_path(dir, seq);
        disk.rename(&blank.path, &name).map_err(io_error("name segment", &blank.path))?;
        blank.path = name;
        sync_dir(disk, dir)?;
        Ok(blank)
    }

    /// Enlarges the segment. Durable when it returns.
    pub(super) fn grow(&mut self, capacity: u32) -> Result<(), WalError> {
        let from = self.capacity;
        let whole = capacity.checked_next_multiple_of(BLOCK_BYTES as u32);
        self.capacity = self.capacity.max(whole.unwrap_or(!(BLOCK_BYTES as u32 - 1)));
        self.fill(from, &Pace::full())?;
        self.file.sync_all().map_err(io_error("sync new segment", &self.path))
    }

    /// Writes zeros from an offset to the end. Not `fallocate`: an extent that was allocated but
    /// never written costs a metadata write at the first sync, which is what this is to spare.
    fn fill(&mut self, from: u32, pace: &Pace) -> Result<(), WalError> {
        let mut at = from as usize / BLOCK_BYTES;
        let end = self.capacity as usize / BLOCK_BYTES;
        let mut zeros = Blocks::default();
        while at < end {
            let blocks = FILL_CHUNK_BLOCKS.min(end - at);
            if zeros.bytes().len() != blocks * BLOCK_BYTES {
                zeros = Blocks::zeros(blocks);
            }
            let began = Instant::now();
            self.writer
                .write(&self.file, &zeros, (at * BLOCK_BYTES) as u64)
                .map_err(io_error("fill segment", &self.path))?;
            pace.rest(&self.file, began);
            at += blocks;
        }
        Ok(())
    }

    /// Takes the segment into use. The header becomes durable with the first batch.
    pub(super) fn into_used(
        self,
        previous_end: u32,
        chance: &Chance,
    ) -> Result<(Segment, BlockWriter), WalError> {
        let Blank { seq, file, path, capacity, writer } = self;
        // A salt that no segment had before.
        let salt = chance.draw();
        write_header(&file, &path, SegmentHeader { used: true, seq, salt, previous_end })?;
        let index = RwLock::new(SegmentIndex::default());
        Ok((Segment { seq, salt, file, path, capacity, index, lost: false }, writer))
    }
}

pub(super) fn write_header(
    file: &File,
    path: &Path,
    header: SegmentHeader,
) -> Result<(), WalError> {
    for at in SEGMENT_HEADER_AT {
        file.write_all_at(&header.encode(), at).map_err(io_error("write segment header", path))?;
    }
    Ok(())
}

/// The copies of a segment's header, where they are valid.
pub(super) fn read_headers(
    file: &File,
    path: &Path,
) -> Result<[Option<SegmentHeader>; 2], WalError> {
    let mut headers = [None; 2];
    for (header, at) in headers.iter_mut().zip(SEGMENT_HEADER_AT) {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        match file.read_exact_at(&mut bytes, at) {
            Ok(()) => *header = SegmentHeader::decode(&bytes),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(io_error("read segment header", path)(error)),
        }
    }
    Ok(headers)
}

/// Makes creations, renames and deletions in a directory durable.
pub(super) fn sync_dir(disk: &Disk, dir: &Path) -> Result<(), WalError> {
    disk.sync_folder(dir).map_err(io_error("sync log directory", dir))
}
