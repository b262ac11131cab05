//! Where a segment's entries are, by (group, index).
//!
//! The current segment's index is in memory; that of a closed segment is a file, of which only the
//! directory of groups is kept in memory (40 bytes a group).
//!
//! ```text
//! index  = header directory block*
//! header = "evenkidx" version:u32 seq:u64 salt:u64 end:u32 groups:u32 entries:u32 forgets:u32
//!          crc:u32
//!   salt, end: of the segment, so that it can be read even if its own header is damaged
//!   forgets: 1 if the segment says that a group was forgotten, so that it must be read at start
//! directory = (group:u64 first_entry:u32 count:u32 min:u64 max:u64)* crc:u32
//! block  = (index:u64 ballot:u64 offset:u32 length:u32 kind:u8 0:[u8;7])* crc:u32   of 64 entries
//! ```
//!
//! Entries stand in the order of their groups, then indexes, then offsets.

use std::collections::BTreeMap;
use std::path::Path;

use super::format::{Identity, Kind, u32_at, u64_at};
use super::segment::{index_path, sync_dir};
use super::{WalError, io_error};
use crate::machine::{Disk, File, Open};

const MAGIC: &[u8; 8] = b"evenkidx";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 48;
const GROUP_BYTES: usize = 32;
const SLOT_BYTES: usize = 32;
const BLOCK_SLOTS: usize = 64;
const BLOCK_BYTES: usize = BLOCK_SLOTS * SLOT_BYTES + 4;

/// Where an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot {
    pub(super) index: u64,
    pub(super) ballot: u64,
    pub(super) offset: u32,
    /// Length of the value.
    pub(super) length: u32,
    pub(super) noop: bool,
}

/// The index of a segment.
#[derive(Debug)]
pub(super) enum SegmentIndex {
    Memory(MemoryIndex),
    Disk(DiskIndex),
}

impl Default for SegmentIndex {
    fn default() -> SegmentIndex {
        SegmentIndex::Memory(MemoryIndex::default())
    }
}

impl SegmentIndex {
    /// The groups in the segment, each with its lowest and highest index.
    pub(super) fn groups(&self) -> Vec<(u64, u64, u64)> {
        match self {
            SegmentIndex::Memory(memory) => memory
                .groups
                .iter()
                .filter_map(|(&group, slots)| {
                    Some((group, slots.first()?.index, slots.last()?.index))
                })
                .collect(),
            SegmentIndex::Disk(disk) => disk.ranges().collect(),
        }
    }

    /// The lowest and highest index of a group.
    pub(super) fn range(&self, group: u64) -> Option<(u64, u64)> {
        match self {
            SegmentIndex::Memory(memory) => {
                let slots = memory.groups.get(&group)?;
                Some((slots.first()?.index, slots.last()?.index))
            }
            SegmentIndex::Disk(disk) => disk.groups.get(&group).map(|g| (g.min, g.max)),
        }
    }

    /// The slots of a group's indexes from `first` to `last`, in ascending order, equal indexes in
    /// the order they were written. `None` if the index file is damaged.
    pub(super) fn slots(&self, group: u64, first: u64, last: u64) -> Option<Vec<Slot>> {
        match self {
            SegmentIndex::Memory(memory) => {
                let Some(slots) = memory.groups.get(&group) else { return Some(Vec::new()) };
                let from = slots.partition_point(|slot| slot.index < first);
                let to = slots.partition_point(|slot| slot.index <= last);
                Some(slots[from..to.max(from)].to_vec())
            }
            SegmentIndex::Disk(disk) => disk.slots(group, first, last),
        }
    }
}

/// The index of the current segment.
#[derive(Debug, Default)]
pub(super) struct MemoryIndex {
    /// Slots in the order of their indexes, equal indexes in the order they were written.
    groups: BTreeMap<u64, Vec<Slot>>,
    /// Where the records end, if a scan made this index.
    pub(super) end: u32,
    /// Whether the segment says that a group was forgotten.
    pub(super) forgets: bool,
}

impl MemoryIndex {
    /// Adds an entry that was written after all that are there.
    pub(super) fn push(&mut self, group: u64, slot: Slot) {
        let slots = self.groups.entry(group).or_default();
        let at = match slots.last() {
            Some(last) if last.index > slot.index => {
                slots.partition_point(|other| other.index <= slot.index)
            }
            _ => slots.len(),
        };
        slots.insert(at, slot);
    }

    /// A group was forgotten: the entries that are there are void.
    pub(super) fn forget(&mut self, group: u64) {
        self.groups.remove(&group);
        self.forgets = true;
    }

    /// Writes the index file of a segment. Durable when it returns.
    pub(super) fn write(
        &self,
        disk: &Disk,
        dir: &Path,
        seq: u64,
        salt: u64,
        end: u32,
    ) -> Result<DiskIndex, WalError> {
        let path = index_path(dir, seq);
        let bytes = self.encode(seq, salt, end);
        let file = disk.open(&path, Open::Truncate).map_err(io_error("create log index", &path))?;
        file.write_all_at(&bytes, 0).map_err(io_error("write log index", &path))?;
        file.sync_all().map_err(io_error("sync log index", &path))?;
        sync_dir(disk, dir)?;
        DiskIndex::open(disk, dir, seq)?.ok_or_else(|| {
            let source = std::io::Error::other("what was written does not read back");
            WalError::Io { action: "verify log index", path, source }
        })
    }

    fn encode(&self, seq: u64, salt: u64, end: u32) -> Vec<u8> {
        let entries: usize = self.groups.values().map(Vec::len).sum();
        let size = HEADER_BYTES + self.groups.len() * GROUP_BYTES + entries * (SLOT_BYTES + 1);
        let mut bytes = Vec::with_capacity(size);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&seq.to_le_bytes());
        bytes.extend_from_slice(&salt.to_le_bytes());
        for number in [end, self.groups.len() as u32, entries as u32, self.forgets.into()] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        push_crc(&mut bytes, 0);
        let directory = bytes.len();
        let mut first_entry = 0u32;
        for (group, slots) in &self.groups {
            bytes.extend_from_slice(&group.to_le_bytes());
            bytes.extend_from_slice(&first_entry.to_le_bytes());
            bytes.extend_from_slice(&(slots.len() as u32).to_le_bytes());
            let (min, max) = (slots.first().map(|s| s.index), slots.last().map(|s| s.index));
            bytes.extend_from_slice(&min.unwrap_or(0).to_le_bytes());
            bytes.extend_from_slice(&max.unwrap_or(0).to_le_bytes());
            first_entry += slots.len() as u32;
        }
        push_crc(&mut bytes, directory);
        let slots: Vec<&Slot> = self.groups.values().flatten().collect();
        for block in slots.chunks(BLOCK_SLOTS) {
            let start = bytes.len();
            for slot in block {
                bytes.extend_from_slice(&slot.index.to_le_bytes());
                bytes.extend_from_slice(&slot.ballot.to_le_bytes());
                bytes.extend_from_slice(&slot.offset.to_le_bytes());
                bytes.extend_from_slice(&slot.length.to_le_bytes());
                bytes.extend_from_slice(&[u8::from(slot.noop), 0, 0, 0, 0, 0, 0, 0]);
            }
            push_crc(&mut bytes, start);
        }
        bytes
    }
}

fn push_crc(bytes: &mut Vec<u8>, from: usize) {
    let crc = crc32c::crc32c(&bytes[from..]);
    bytes.extend_from_slice(&crc.to_le_bytes());
}

/// Splits a checksummed stretch off; `None` if it is too short or damaged.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    (crc32c::crc32c(body) == u32::from_le_bytes(*crc)).then_some(body)
}

#[derive(Clone, Copy, Debug)]
struct GroupRange {
    first_entry: u32,
    count: u32,
    min: u64,
    max: u64,
}

/// The index file of a closed segment.
#[derive(Debug)]
pub(super) struct DiskIndex {
    file: File,
    pub(super) salt: u64,
    pub(super) end: u32,
    pub(super) forgets: bool,
    groups: BTreeMap<u64, GroupRange>,
    entries: u32,
    blocks_at: u64,
}

impl DiskIndex {
    /// Opens the index file of a segment; `None` if there is none or it is damaged.
    pub(super) fn open(disk: &Disk, dir: &Path, seq: u64) -> Result<Option<DiskIndex>, WalError> {
        let path = index_path(dir, seq);
        match disk.open(&path, Open::Read) {
            Ok(file) => Ok(DiskIndex::read(file, seq)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("open log index", &path)(error)),
        }
    }

    fn read(file: File, seq: u64) -> Option<DiskIndex> {
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0).ok()?;
        let header = checked(&header)?;
        if &header[0..8] != MAGIC || u32_at(header, 8) != VERSION || u64_at(header, 12) != seq {
            return None;
        }
        let (group_count, entries) = (u32_at(header, 32), u32_at(header, 36));
        let directory_bytes = group_count as usize * GROUP_BYTES + 4;
        // The length is checked before memory is taken for it.
        let blocks = (entries as usize).div_ceil(BLOCK_SLOTS);
        let blocks_at = (HEADER_BYTES + directory_bytes) as u64;
        let length = blocks_at + entries as u64 * SLOT_BYTES as u64 + blocks as u64 * 4;
        if file.length().ok()? < length {
            return None;
        }
        let mut directory = vec![0; directory_bytes];
        file.read_exact_at(&mut directory, HEADER_BYTES as u64).ok()?;
        let groups = checked(&directory)?
            .chunks_exact(GROUP_BYTES)
            .map(|raw| {
                let (first_entry, count) = (u32_at(raw, 8), u32_at(raw, 12));
                let (min, max) = (u64_at(raw, 16), u64_at(raw, 24));
                (u64_at(raw, 0), GroupRange { first_entry, count, min, max })
            })
            .collect();
        let (salt, end) = (u64_at(header, 20), u32_at(header, 28));
        let forgets = u32_at(header, 40) != 0;
        Some(DiskIndex { file, salt, end, forgets, groups, entries, blocks_at })
    }

    /// The slots of one block.
    fn block(&self, block: u32) -> Option<Vec<Slot>> {
        let first = block as usize * BLOCK_SLOTS;
        let count = BLOCK_SLOTS.min((self.entries as usize).checked_sub(first)?);
        let mut bytes = vec![0; count * SLOT_BYTES + 4];
        let at = self.blocks_at + u64::from(block) * BLOCK_BYTES as u64;
        self.file.read_exact_at(&mut bytes, at).ok()?;
        let slots = checked(&bytes)?.chunks_exact(SLOT_BYTES).map(|raw| Slot {
            index: u64_at(raw, 0),
            ballot: u64_at(raw, 8),
            offset: u32_at(raw, 16),
            length: u32_at(raw, 20),
            noop: raw[24] == 1,
        });
        Some(slots.collect())
    }

    fn slots(&self, group: u64, first: u64, last: u64) -> Option<Vec<Slot>> {
        let Some(range) = self.groups.get(&group) else { return Some(Vec::new()) };
        let (from, to) = (range.first_entry, range.first_entry + range.count);
        // The last block whose first slot of this group is below `first`: search starts there.
        let (mut low, mut high) = (from / BLOCK_SLOTS as u32, (to - 1) / BLOCK_SLOTS as u32);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            let slots = self.block(middle)?;
            if slots.first()?.index < first { low = middle } else { high = middle - 1 }
        }
        let mut found = Vec::new();
        for block in low..=(to - 1) / BLOCK_SLOTS as u32 {
            let number = (block * BLOCK_SLOTS as u32)..;
            for (number, slot) in number.zip(self.block(block)?) {
                if number < from || number >= to || slot.index < first {
                    continue;
                }
                if slot.index > last {
                    return Some(found);
                }
                found.push(slot);
            }
        }
        Some(found)
    }

    /// The groups in the segment, each with its lowest and highest index.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.groups.iter().map(|(&group, range)| (group, range.min, range.max))
    }

    /// All entries, as identities in no order. `None` if the file is damaged.
    pub(super) fn identities(&self) -> Option<Vec<Identity>> {
        let mut identities = Vec::with_capacity(self.entries as usize);
        for (&group, range) in &self.groups {
            for slot in self.slots(group, range.min, range.max)? {
                let kind = if slot.noop { Kind::Noop } else { Kind::Data };
                let Slot { index, ballot, offset, .. } = slot;
                identities.push(Identity { kind, offset, group, index, ballot });
            }
        }
        Some(identities)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> MemoryIndex {
        let mut memory = MemoryIndex::default();
        for i in 0..1000u32 {
            let slot =
                |index| Slot { index, ballot: 7, offset: 8192 + i * 60, length: i, noop: false };
            memory.push(u64::from(i % 3), slot(u64::from(i)));
            if i % 10 == 0 {
                memory.push(9, slot(u64::from(1000 - i))); // descending
                memory.push(9, Slot { ballot: 8, noop: true, ..slot(u64::from(1000 - i)) });
            }
        }
        memory
    }

    #[test]
    fn disk_answers_like_memory() {
        let dir = tempfile::tempdir().unwrap();
        let disk =
            SegmentIndex::Disk(sample().write(&Disk::System, dir.path(), 5, 77, 9000).unwrap());
        let memory = SegmentIndex::Memory(sample());
        assert_eq!(disk.groups(), memory.groups());
        for group in [0, 1, 2, 9, 10] {
            assert_eq!(disk.range(group), memory.range(group));
            for (first, last) in [(0, u64::MAX), (10, 10), (500, 640), (999, 1000), (5, 2)] {
                assert_eq!(disk.slots(group, first, last), memory.slots(group, first, last));
            }
        }
        let found = memory.slots(9, 0, u64::MAX).unwrap();
        assert_eq!(found.len(), 200);
        assert!(found.is_sorted_by_key(|slot| (slot.index, slot.ballot)));
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        sample().write(&Disk::System, dir.path(), 5, 77, 9000).unwrap();
        let path = index_path(dir.path(), 5);
        let bytes = std::fs::read(&path).unwrap();
        let memory = SegmentIndex::Memory(sample());
        for at in (0..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, damaged).unwrap();
            let Some(disk) = DiskIndex::open(&Disk::System, dir.path(), 5).unwrap() else {
                continue;
            };
            assert_eq!(disk.identities(), None, "byte {at}");
            for group in [0, 9] {
                let slots = disk.slots(group, 0, u64::MAX);
                assert!(slots.is_none() || slots == memory.slots(group, 0, u64::MAX), "byte {at}");
            }
        }
    }
}
