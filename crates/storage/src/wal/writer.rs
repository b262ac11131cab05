//! The single writer: batches, group commit, the change to the next segment, truncation.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use crate::faults::Faults;
use crate::machine::{Blocks, Chance, Extents, File, Part};

use super::format::{
    Header, IDENTITY_BYTES_MAX, Identity, Kind, RECORD_HEADER_BYTES, RECORDS_START, encode_footer,
    put_record, record_bytes,
};
use super::housekeeper::Housekeeper;
use super::index::{SegmentIndex, Slot};
use super::reader::{Log, Shared};
use super::segment::{BlockWriter, Segment};
use super::{ByGroup, Record, VALUE_BYTES_MAX, WalError, io_error};

/// The copies of a promise are at least this far apart: not in one disk block.
const COPY_DISTANCE_BYTES: usize = 4096;
/// Segment offsets are `u32`; a segment stays well below.
const SEGMENT_BYTES_MAX: u64 = 3 << 30;
/// Of a long batch so much is written at once, in whole blocks: what is written is a copy.
const PIECE_BYTES_MAX: usize = 1 << 20;
/// A batch buffer larger than this is not kept for the next batch.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// What a group's records add up to; written at the head of every segment.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Marks {
    pub(super) promise: u64,
    pub(super) chosen: u64,
    pub(super) truncated: u64,
}

/// For each group the newest configuration: its index and bytes.
pub(super) type Configs = ByGroup<(u64, Bytes)>;

/// Where a writer goes on.
pub(super) struct Start {
    pub(super) current: Arc<Segment>,
    pub(super) blocks: BlockWriter,
    /// Behind all records.
    pub(super) position: u32,
    /// What stands in front of it in the same block.
    pub(super) tail: Vec<u8>,
}

/// The log's writing end. There is one; it is not shared.
///
/// ```text
/// append, append, …, sync      everything appended is durable when `sync` returns
/// mark                         once nothing has come for a while
/// ```
///
/// Batches go past the system's cache in whole blocks. So the end of the batch before, where it shares a
/// block with the next one, is written again with it: the same bytes, which no crash can spoil.
///
/// Dropped without a sync it leaves the current batch behind, as a crash would.
pub struct Writer {
    shared: Arc<Shared>,
    /// Keeps other processes (and other writers of this one) out.
    _lock: File,
    housekeeper: Housekeeper,
    current: Arc<Segment>,
    /// Where the current batch begins in the current segment.
    position: u32,
    /// What stands in front of that in the same block.
    tail: Vec<u8>,
    /// The bytes of the current batch.
    buffer: Vec<u8>,
    /// Writes the current segment …
    writer: BlockWriter,
    /// … from here.
    blocks: Blocks,
    /// Where the current segment lay when it was last synced. `None` if no sync has followed on its header yet,
    /// which was written through the cache.
    lay: Option<Extents>,
    /// Where it lies now, seen before the sync that is under way.
    lies: Option<Extents>,
    /// The last batch has no mark behind it.
    owes_mark: bool,
    /// The named records of the current batch.
    batch: Vec<Identity>,
    /// The entries of the current batch: what its readers will find.
    entries: Vec<(u64, Slot)>,
    /// The promises of the current batch, to be copied at its end.
    promises: Vec<(u64, u64)>,
    /// The configurations of the current batch, to be copied at its end.
    changes: Vec<(u64, u64, Bytes)>,
    groups: ByGroup<Marks>,
    configs: Configs,
    /// Groups forgotten in the current batch.
    forgotten: Vec<u64>,
    /// Whether the current batch may have made segments superfluous.
    truncated: bool,
    /// Whether segments that cannot be read may be removed.
    repaired: bool,
    chance: Chance,
    /// Faults to inject.
    faults: Arc<Faults>,
    /// An error was returned: what the disk holds is not known.
    failed: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("segment", &self.current.seq)
            .field("position", &self.position)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// A writer that goes on at `position` of `current`.
    pub(super) fn new(
        shared: Arc<Shared>,
        lock: File,
        housekeeper: Housekeeper,
        start: Start,
        (groups, configs): (ByGroup<Marks>, Configs),
        chance: Chance,
    ) -> Writer {
        let Start { current, blocks: writer, position, tail } = start;
        Writer {
            shared,
            _lock: lock,
            housekeeper,
            current,
            position,
            tail,
            buffer: Vec::new(),
            writer,
            blocks: Blocks::default(),
            lay: None,
            lies: None,
            owes_mark: false,
            batch: Vec::new(),
            entries: Vec::new(),
            promises: Vec::new(),
            changes: Vec::new(),
            groups,
            configs,
            forgotten: Vec::new(),
            truncated: false,
            repaired: false,
            chance,
            faults: Arc::default(),
            failed: false,
        }
    }

    /// Writes the head of a new segment. Durable when it returns.
    pub(super) fn begin_segment(&mut self) -> Result<(), WalError> {
        self.put_state();
        self.sync()
    }

    /// Has syncs fail, or take longer, as these faults say.
    pub(crate) fn set_faults(&mut self, faults: Arc<Faults>) {
        self.faults = faults;
    }

    /// A handle to read with, for any thread.
    pub fn log(&self) -> Log {
        Log::new(Arc::clone(&self.shared))
    }

    /// Adds a record to the current batch. It is durable, and can be read, after [`Writer::sync`].
    ///
    /// Usually copies into memory only. When the segment is full it also makes durable what was
    /// appended before and goes on in the next segment, so it may fail as `sync` does.
    pub fn append(&mut self, record: Record<'_>) -> Result<(), WalError> {
        if self.failed {
            return Err(WalError::Stopped);
        }
        let (kind, group, index, ballot, payload): (_, _, _, _, &[u8]) = match record {
            Record::Accept { group, index, ballot, value: None } => {
                (Kind::Noop, group, index, ballot, &[])
            }
            Record::Accept { group, index, ballot, value: Some(value) } => {
                (Kind::Data, group, index, ballot, value)
            }
            Record::Promise { group, ballot } => (Kind::Promise, group, 0, ballot, &[]),
            Record::Chosen { group, index } => (Kind::Chosen, group, index, 0, &[]),
            Record::Truncate { group, index } => (Kind::Truncate, group, index, 0, &[]),
            Record::Config { group, index, value } => (Kind::Config, group, index, 0, value),
            Record::Forget { group } => (Kind::Forget, group, 0, 0, &[]),
        };
        if payload.len() > VALUE_BYTES_MAX {
            return Err(WalError::TooLarge(payload.len()));
        }
        self.make_room(kind, payload.len())?;
        // A ballot first seen in an accept is a promise too, and gets its two copies.
        let promised = self.groups.get(&group).map_or(0, |marks| marks.promise);
        if kind.is_accept() && ballot > promised {
            self.push(Kind::Promise, group, 0, ballot, &[]);
        }
        self.push(kind, group, index, ballot, payload);
        Ok(())
    }

    /// Tells that whatever damage was found when the log was opened has been made good: faulty
    /// entries were accepted again or learned and applied. Until then a segment of which nothing
    /// can be read is kept, so that a restart in between finds it again.
    pub fn repaired(&mut self) {
        self.repaired = true;
        self.truncated = true;
        if self.buffer.is_empty() {
            // Else what replaces those segments may not be durable yet.
            self.reclaim();
        }
    }

    /// Bytes appended since the last sync.
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Makes everything appended durable: one write and one `fdatasync`, however many groups. Logs of one
    /// process may share even those ([`Writer::begin_sync`]).
    ///
    /// *Errors*: after one, what the disk holds is not known; the writer refuses all further work
    /// and the node must stop. A failed `fdatasync` is never tried again.
    pub fn sync(&mut self) -> Result<(), WalError> {
        if self.failed {
            return Err(WalError::Stopped);
        }
        let result = self.commit();
        self.failed = result.is_err();
        result
    }

    /// Puts a record into the batch and keeps account of what it means.
    fn push(&mut self, kind: Kind, group: u64, index: u64, ballot: u64, payload: &[u8]) {
        let offset = self.position + self.buffer.len() as u32;
        self.put(kind, group, index, ballot, payload);
        self.batch.push(Identity { kind, offset, group, index, ballot });
        let marks = self.groups.entry(group).or_default();
        match kind {
            Kind::Noop | Kind::Data => {
                let (length, noop) = (payload.len() as u32, kind == Kind::Noop);
                self.entries.push((group, Slot { index, ballot, offset, length, noop }));
            }
            Kind::Promise => {
                marks.promise = marks.promise.max(ballot);
                self.promises.push((group, ballot));
            }
            Kind::Chosen => marks.chosen = marks.chosen.max(index),
            Kind::Config => {
                let value = Bytes::copy_from_slice(payload);
                self.changes.push((group, index, value.clone()));
                if self.configs.get(&group).is_none_or(|(held, _)| *held <= index) {
                    self.configs.insert(group, (index, value));
                }
            }
            Kind::Truncate => {
                marks.truncated = marks.truncated.max(index);
                self.truncated = true;
            }
            Kind::Forget => {
                self.groups.remove(&group);
                self.configs.remove(&group);
                // What this batch holds of the group is void as well.
                self.entries.retain(|(other, _)| *other != group);
                self.promises.retain(|(other, _)| *other != group);
                self.changes.retain(|(other, ..)| *other != group);
                self.forgotten.push(group);
                self.truncated = true;
            }
            Kind::State | Kind::Footer | Kind::Pad | Kind::Mark => {}
        }
    }

    fn put(&mut self, kind: Kind, group: u64, index: u64, ballot: u64, payload: &[u8]) {
        let batch_start = self.position;
        let header = Header { kind, length: 0, group, index, ballot, batch_start, payload_crc: 0 };
        put_record(&mut self.buffer, self.position, self.current.salt, header, payload);
    }

    /// Changes to the next segment if a record with this payload, and what ends the batch behind
    /// it, may not fit into the current one.
    fn make_room(&mut self, kind: Kind, payload: usize) -> Result<(), WalError> {
        // The record may bring a promise along, or be a configuration, which is written twice.
        let copy = if kind == Kind::Config { record_bytes(payload) } else { 0 };
        let record = record_bytes(payload) + RECORD_HEADER_BYTES + copy;
        let end = self.position as usize + self.buffer.len() + record + self.ending_bytes(2, 1);
        if end <= self.current.capacity as usize {
            return Ok(());
        }
        let result = self.roll(record);
        self.failed = result.is_err();
        result
    }

    /// An upper bound of the bytes that end a batch with so many more records and promises:
    /// copies of promises, a footer and a mark.
    fn ending_bytes(&self, records: usize, promises: usize) -> usize {
        let promises = self.promises.len() + promises;
        let configs: usize = self.changes.iter().map(|(.., value)| record_bytes(value.len())).sum();
        let copies = COPY_DISTANCE_BYTES + (promises + 1) * RECORD_HEADER_BYTES + configs;
        let identities = self.batch.len() + records + promises + self.changes.len() + 1;
        copies + record_bytes(identities * IDENTITY_BYTES_MAX) + RECORD_HEADER_BYTES
    }

    /// Closes the segment and goes on in the next, with room for a record of so many bytes.
    fn roll(&mut self, record: usize) -> Result<(), WalError> {
        self.commit()?;
        let mut blank = self.housekeeper.take_blank()?;
        let configs: usize =
            self.configs.values().map(|(_, value)| 2 * record_bytes(value.len())).sum();
        let state = self.groups.len() * record_bytes(8) + configs;
        let records = self.groups.len() + 2 * self.configs.len() + 2;
        let ending = self.ending_bytes(records, 1);
        let least = u64::from(RECORDS_START) + (state + record + ending) as u64;
        if least > SEGMENT_BYTES_MAX {
            return Err(WalError::TooLarge(record));
        }
        // Rare: a value larger than a segment, or so many groups that their state would fill most
        // of it, and the next one soon again.
        if u64::from(blank.capacity) < least + state as u64 {
            blank.grow((least as u32).saturating_add(blank.capacity.max(state as u32)))?;
        }
        let (segment, writer) = blank.into_used(self.position, &self.chance)?;
        let segment = Arc::new(segment);
        let closed = std::mem::replace(&mut self.current, Arc::clone(&segment));
        let end = std::mem::replace(&mut self.position, RECORDS_START);
        self.tail.clear();
        // What the new segment's header says of this one's end is worth as much.
        self.owes_mark = false;
        self.lay = None;
        self.writer = writer;
        self.shared.segments.write().insert(segment.seq, Arc::clone(&segment));
        self.housekeeper.write_index(closed, end);
        self.housekeeper.make(segment.seq + 1);
        self.put_state();
        // Not now: until the state is synced, the segments before are all there is of it.
        self.truncated = true;
        Ok(())
    }

    /// Begins a segment with the state of all groups, so that the segments before it can go.
    fn put_state(&mut self) {
        let groups: Vec<(u64, Marks)> = self.groups.iter().map(|(&g, &m)| (g, m)).collect();
        for (group, marks) in groups {
            let chosen = marks.chosen.to_le_bytes();
            self.push(Kind::State, group, marks.truncated, marks.promise, &chosen);
        }
        for (group, (index, value)) in self.configs.clone() {
            self.push(Kind::Config, group, index, 0, &value);
        }
    }

    /// Ends the batch: copies of promises, footer, write, sync; then lets readers see it.
    fn commit(&mut self) -> Result<(), WalError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.end_batch();
        self.write_and_sync()?;
        self.settle();
        Ok(())
    }

    /// Puts what every batch ends with.
    fn end_batch(&mut self) {
        self.put_promise_copies();
        let footer = encode_footer(&self.batch);
        self.put(Kind::Footer, 0, 0, 0, &footer);
        if mutant!(BlockBegunAnew) {
            self.tail.fill(0);
        }
        if self.lay.is_none() {
            self.lies = self.writer.extents(self.current.capacity);
        }
    }

    fn write_and_sync(&mut self) -> Result<(), WalError> {
        self.write_batch()?;
        let (file, path) = (&self.current.file, &self.current.path);
        let synced = self.faults.disk().and_then(|()| file.sync_data());
        if !mutant!(SyncFailureIgnored) {
            synced.map_err(io_error("sync", path))?;
        }
        Ok(())
    }

    /// Whether a sync together with other logs costs less than one by itself.
    pub(crate) fn may_share_syncs(&self) -> bool {
        self.writer.may_share_syncs()
    }

    /// Begins a sync together with other logs: what has to be written and made durable before
    /// [`Writer::end_sync`]. `None` if there is nothing, or only [`Writer::sync`] can do it.
    pub(crate) fn begin_sync(&mut self) -> Option<Part<'_>> {
        let bytes = self.tail.len() + self.buffer.len() + self.ending_bytes(0, 0);
        let is_left = self.failed || self.buffer.is_empty() || self.faults.has_disk_fault();
        if is_left || bytes > PIECE_BYTES_MAX || !self.may_share_syncs() {
            return None;
        }
        self.end_batch();
        self.blocks.fill(&[&self.tail, &self.buffer]);
        let at = u64::from(self.position) - self.tail.len() as u64;
        let (file, blocks) = (self.writer.direct()?, &self.blocks);
        Some(Part { file, blocks, at, lay: self.lay.as_ref() })
    }

    /// Ends what [`Writer::begin_sync`] began.
    ///
    /// *Errors*: as [`Writer::sync`].
    pub(crate) fn end_sync(&mut self, written: io::Result<()>) -> Result<(), WalError> {
        use io::ErrorKind::{InvalidInput, Unsupported};
        let result = match written {
            // Not so in this file system.
            Err(error) if matches!(error.kind(), InvalidInput | Unsupported) => {
                self.write_and_sync()
            }
            written => written.map_err(io_error("write and sync", &self.current.path)),
        };
        match result {
            Ok(()) => self.settle(),
            Err(_) => self.failed = true,
        }
        result
    }

    /// Everything appended is durable: lets readers see it.
    fn settle(&mut self) {
        self.lay = self.lay.take().or(self.lies.take());
        self.position += self.buffer.len() as u32;
        self.tail.clear();
        self.tail.extend_from_slice(self.blocks.tail());
        self.owes_mark = true;
        self.shared.counts.syncs.fetch_add(1, Relaxed);
        self.shared.counts.entries.fetch_add(self.entries.len() as u64, Relaxed);
        self.shared.counts.written_bytes.fetch_add(self.buffer.len() as u64, Relaxed);
        self.publish();
        if self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        self.batch.clear();
        self.promises.clear();
        self.changes.clear();
        if std::mem::take(&mut self.truncated) {
            self.reclaim();
        }
    }

    /// Writes the batch and what stands in front of it in the same block.
    fn write_batch(&mut self) -> Result<(), WalError> {
        let Segment { file, path, .. } = &*self.current;
        let (mut head, mut rest) = (&self.tail[..], &self.buffer[..]);
        let mut at = u64::from(self.position) - head.len() as u64;
        while !rest.is_empty() {
            let piece;
            (piece, rest) = rest.split_at(rest.len().min(PIECE_BYTES_MAX - head.len()));
            self.blocks.fill(&[head, piece]);
            self.writer.write(file, &self.blocks, at).map_err(io_error("append to", path))?;
            at += self.blocks.bytes().len() as u64;
            head = &[];
        }
        Ok(())
    }

    fn put_promise_copies(&mut self) {
        let is_copied =
            |identity: &&Identity| matches!(identity.kind, Kind::Promise | Kind::Config);
        let Some(first) = self.batch.iter().rfind(is_copied) else { return };
        let distance = self.position as usize + self.buffer.len() - first.offset as usize;
        if distance < COPY_DISTANCE_BYTES {
            let pad = (COPY_DISTANCE_BYTES - distance).saturating_sub(RECORD_HEADER_BYTES);
            self.put(Kind::Pad, 0, 0, 0, &vec![0; pad]);
        }
        for (group, ballot) in std::mem::take(&mut self.promises) {
            let offset = self.position + self.buffer.len() as u32;
            self.put(Kind::Promise, group, 0, ballot, &[]);
            let kind = Kind::Promise;
            self.batch.push(Identity { kind, offset, group, index: 0, ballot });
        }
        for (group, index, value) in std::mem::take(&mut self.changes) {
            let offset = self.position + self.buffer.len() as u32;
            self.put(Kind::Config, group, index, 0, &value);
            let kind = Kind::Config;
            self.batch.push(Identity { kind, offset, group, index, ballot: 0 });
        }
    }

    /// Whether the last batch that was synced has no mark behind it.
    pub fn owes_mark(&self) -> bool {
        self.owes_mark && !self.failed
    }

    /// Writes the mark behind the last batch that was synced, unless it has one. It proves that the batch
    /// was durable, as the next batch will, which overwrites it: so it is for who has time. It is not synced
    /// itself.
    ///
    /// *Errors*: as [`Writer::sync`].
    pub fn mark(&mut self) -> Result<(), WalError> {
        if !self.owes_mark() {
            return Ok(());
        }
        self.owes_mark = false;
        let result = self.write_mark();
        self.failed = result.is_err();
        result
    }

    fn write_mark(&mut self) -> Result<(), WalError> {
        let Segment { salt, file, path, capacity, .. } = &*self.current;
        if self.position as usize + RECORD_HEADER_BYTES > *capacity as usize {
            return Ok(());
        }
        let (kind, batch_start) = (Kind::Mark, self.position);
        let payload_crc = crc32c::crc32c(&[]);
        let mark =
            Header { kind, length: 0, group: 0, index: 0, ballot: 0, batch_start, payload_crc };
        self.blocks.fill(&[&self.tail, &mark.encode(*salt, self.position)]);
        let block = self.position as usize - self.tail.len();
        self.writer.write(file, &self.blocks, block as u64).map_err(io_error("mark", path))?;
        self.shared.counts.marks.fetch_add(1, Relaxed);
        Ok(())
    }

    fn publish(&mut self) {
        // The current segment's index is always in memory.
        if let SegmentIndex::Memory(memory) = &mut *self.current.index.write() {
            for &group in &self.forgotten {
                memory.forget(group);
            }
            for (group, slot) in self.entries.drain(..) {
                memory.push(group, slot);
            }
        }
        let mut forgotten = self.shared.forgotten.write();
        forgotten.extend(self.forgotten.drain(..).map(|group| (group, self.current.seq)));
    }

    /// Hands over the oldest segments whose entries are all truncated. Only called when nothing is
    /// appended that is not durable: promises and configurations of the segments that go must stand
    /// in the current one.
    fn reclaim(&mut self) {
        let forgotten = self.shared.forgotten.read().clone();
        let mut segments = self.shared.segments.write();
        while let Some(oldest) = segments.first_entry() {
            let segment = oldest.get();
            let needed = segment.seq == self.current.seq
                || (segment.lost && !self.repaired)
                || segment.index.read().groups().into_iter().any(|(group, _, max)| {
                    let voided = forgotten.get(&group).is_some_and(|&seq| segment.seq < seq);
                    let truncated = self.groups.get(&group).map_or(u64::MAX, |m| m.truncated);
                    !voided && max > truncated
                });
            if needed {
                break;
            }
            let segment = oldest.remove();
            self.shared.forgotten.write().retain(|_, &mut seq| seq > segment.seq);
            self.housekeeper.retire(segment);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Options, open};
    use super::*;
    use crate::machine::Disk;

    #[test]
    fn a_failed_write_stops_the_log_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, log, _) = open(dir.path(), Options::default(), &|_| 0).unwrap();
        let accept = |index| Record::Accept { group: 1, index, ballot: 1, value: Some(b"v") };
        writer.append(accept(1)).unwrap();
        writer.sync().unwrap();
        // A file that cannot be written to, as a disk that went away.
        let Segment { seq, salt, capacity, .. } = *writer.current;
        let path = writer.current.path.clone();
        let file = File::System(std::fs::File::open(&path).unwrap());
        let index = Default::default();
        let broken = Arc::new(Segment { seq, salt, file, path, capacity, index, lost: false });
        let healthy = std::mem::replace(&mut writer.current, broken);
        writer.writer = BlockWriter::open(&Disk::System, Path::new("gone"));
        writer.append(accept(2)).unwrap();
        assert!(matches!(writer.sync(), Err(WalError::Io { .. })));
        // The disk is back, and it is too late: what it holds is not known.
        writer.current = healthy;
        assert!(matches!(writer.sync(), Err(WalError::Stopped)));
        assert!(matches!(writer.append(accept(2)), Err(WalError::Stopped)));
        assert_eq!(log.read(1, 0, 9, 1).unwrap().entries.len(), 1);
    }
}
