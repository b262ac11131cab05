//! Reading entries back, from any thread, while the writer goes on.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::RwLock;

use super::format::{Header, Kind, RECORD_HEADER_BYTES};
use super::index::{DiskIndex, MemoryIndex, SegmentIndex, Slot};
use super::scan::{self, Scanned};
use super::segment::Segment;
use super::{Entry, READ_ENTRIES_MAX, Value, WalError, io_error};

/// What the writer and its readers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    /// All segments in use, by their numbers.
    pub(super) segments: RwLock<BTreeMap<u64, Arc<Segment>>>,
    /// In which segment a group was forgotten: its entries in segments before are void.
    pub(super) forgotten: RwLock<HashMap<u64, u64>>,
    pub(super) counts: Counts,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) syncs: AtomicU64,
    pub(super) marks: AtomicU64,
    pub(super) entries: AtomicU64,
    pub(super) written_bytes: AtomicU64,
}

/// Counts since the log was opened, and its size now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stats {
    /// Batches that were made durable.
    pub syncs: u64,
    /// Times that the last batch was said to be durable; see [`super::Writer::mark`].
    pub marks: u64,
    /// Entries made durable.
    pub entries: u64,
    /// Bytes written, all records and footers.
    pub written_bytes: u64,
    /// Segments in use.
    pub segments: u64,
    /// Bytes of the segments in use.
    pub segment_bytes: u64,
}

/// What [`Log::read`] found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Read {
    /// Entries in ascending order of their indexes, for each index the one with the highest
    /// ballot. There may be gaps.
    pub entries: Vec<Entry>,
    /// Entries (index, ballot) that are damaged, in ascending order; not in `entries`.
    pub faulty: Vec<(u64, u64)>,
    /// All indexes below this one were looked at: ask for the rest from here.
    pub next: u64,
}

/// The log's reading end; cheap to clone.
#[derive(Clone, Debug)]
pub struct Log {
    shared: Arc<Shared>,
}

impl Log {
    pub(super) fn new(shared: Arc<Shared>) -> Log {
        Log { shared }
    }

    /// The durable entries of a group with indexes from `first` to `last`.
    ///
    /// Stops after [`READ_ENTRIES_MAX`] entries or the first entry that brings the values to
    /// `bytes_max`; [`Read::next`] tells where to go on (`last + 1` at the end). Checksums and
    /// identities are checked at every read.
    ///
    /// *Errors*: only what the system says of a file; a damaged entry is no error but faulty.
    pub fn read(
        &self,
        group: u64,
        first: u64,
        last: u64,
        bytes_max: usize,
    ) -> Result<Read, WalError> {
        let segments: Vec<Arc<Segment>> = self.shared.segments.read().values().cloned().collect();
        let voided = self.shared.forgotten.read().get(&group).copied().unwrap_or(0);
        let end = last.saturating_add(1);
        let mut newest: BTreeMap<u64, (Slot, &Segment)> = BTreeMap::new();
        let mut window_end = end;
        for segment in segments.iter().filter(|segment| segment.seq >= voided) {
            for slot in slots_of(segment, group, first, last)? {
                if slot.index >= window_end {
                    continue;
                }
                // A later segment, or a later slot of the same, wins at equal ballots: it is the
                // copy that repaired a damaged one.
                match newest.get(&slot.index) {
                    Some((other, _)) if other.ballot > slot.ballot => {}
                    _ => {
                        newest.insert(slot.index, (slot, segment));
                    }
                }
                if newest.len() > READ_ENTRIES_MAX {
                    window_end = newest.pop_last().map_or(window_end, |(index, _)| index);
                }
            }
        }
        let mut read = Read { next: window_end, ..Read::default() };
        let mut bytes = 0;
        for (index, (slot, segment)) in newest {
            if bytes >= bytes_max && bytes > 0 {
                read.next = index;
                break;
            }
            match read_any(segment, &segments, group, slot)? {
                Some(value) => {
                    bytes += slot.length as usize;
                    read.entries.push(Entry { index, ballot: slot.ballot, value });
                }
                None => read.faulty.push((index, slot.ballot)),
            }
        }
        Ok(read)
    }

    /// The lowest and highest index of a group that the log still holds, truncated or not.
    pub fn range(&self, group: u64) -> Option<(u64, u64)> {
        let segments = self.shared.segments.read();
        let voided = self.shared.forgotten.read().get(&group).copied().unwrap_or(0);
        segments
            .range(voided..)
            .filter_map(|(_, segment)| segment.index.read().range(group))
            .reduce(|(min, max), (other_min, other_max)| (min.min(other_min), max.max(other_max)))
    }

    /// The directory of the log.
    pub fn dir(&self) -> &std::path::Path {
        &self.shared.dir
    }

    /// Counts since the log was opened, and its size now.
    pub fn stats(&self) -> Stats {
        let segments = self.shared.segments.read();
        Stats {
            syncs: self.shared.counts.syncs.load(Relaxed),
            marks: self.shared.counts.marks.load(Relaxed),
            entries: self.shared.counts.entries.load(Relaxed),
            written_bytes: self.shared.counts.written_bytes.load(Relaxed),
            segments: segments.len() as u64,
            segment_bytes: segments.values().map(|s| u64::from(s.capacity)).sum(),
        }
    }
}

/// The value of an entry, from another copy of the same ballot if the newest is damaged; `None` if
/// all are.
fn read_any(
    newest: &Segment,
    segments: &[Arc<Segment>],
    group: u64,
    slot: Slot,
) -> Result<Option<Value>, WalError> {
    if let Some(value) = read_slot(newest, group, slot)? {
        return Ok(Some(value));
    }
    for segment in segments {
        for copy in slots_of(segment, group, slot.index, slot.index)? {
            if copy.ballot == slot.ballot
                && let Some(value) = read_slot(segment, group, copy)?
            {
                return Ok(Some(value));
            }
        }
    }
    Ok(None)
}

/// A group's slots in a segment; makes the index anew if its file turns out damaged.
fn slots_of(segment: &Segment, group: u64, first: u64, last: u64) -> Result<Vec<Slot>, WalError> {
    if let Some(slots) = segment.index.read().slots(group, first, last) {
        return Ok(slots);
    }
    let mut index = segment.index.write();
    if let SegmentIndex::Disk(disk) = &*index {
        tracing::warn!(segment = segment.seq, "the index of a log segment is damaged");
        *index = SegmentIndex::Memory(rebuild(segment, disk)?);
    }
    Ok(index.slots(group, first, last).unwrap_or_default())
}

fn rebuild(segment: &Segment, disk: &DiskIndex) -> Result<MemoryIndex, WalError> {
    let mut bytes = vec![0; disk.end.min(segment.capacity) as usize];
    segment.file.read_exact_at(&mut bytes, 0).map_err(io_error("read", &segment.path))?;
    Ok(memory_index(&scan::scan(&bytes, segment.salt, Some(disk.end), None).records))
}

/// The index of what a scan found, lost entries included: a read of those fails its checksum.
pub(super) fn memory_index(records: &[Scanned]) -> MemoryIndex {
    let mut memory = MemoryIndex::default();
    for record in records {
        let identity = record.identity;
        if identity.kind == Kind::Forget {
            memory.forget(identity.group);
        }
        if !identity.kind.is_accept() {
            continue;
        }
        let slot = Slot {
            index: identity.index,
            ballot: identity.ballot,
            offset: identity.offset,
            length: record.length,
            noop: identity.kind == Kind::Noop,
        };
        memory.push(identity.group, slot);
    }
    memory
}

/// The value of an entry; `None` if it is damaged.
fn read_slot(segment: &Segment, group: u64, slot: Slot) -> Result<Option<Value>, WalError> {
    let mut bytes = vec![0; RECORD_HEADER_BYTES + slot.length as usize];
    match segment.file.read_exact_at(&mut bytes, slot.offset.into()) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(io_error("read", &segment.path)(error)),
    }
    if mutant!(MisreadTaken) && !slot.noop {
        return Ok(Some(Value::Data(Bytes::from(bytes).slice(RECORD_HEADER_BYTES..))));
    }
    let Some(header) = Header::decode(&bytes, segment.salt, slot.offset) else { return Ok(None) };
    let kind = if slot.noop { Kind::Noop } else { Kind::Data };
    let is_it = header.kind == kind
        && (header.group, header.index, header.ballot) == (group, slot.index, slot.ballot)
        && header.length == slot.length
        && crc32c::crc32c(&bytes[RECORD_HEADER_BYTES..]) == header.payload_crc;
    Ok(is_it.then(|| match kind {
        Kind::Noop => Value::Noop,
        _ => Value::Data(Bytes::from(bytes).slice(RECORD_HEADER_BYTES..)),
    }))
}
