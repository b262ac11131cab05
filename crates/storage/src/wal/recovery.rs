//! Opening a log: what the segments hold, what they lost, and where writing goes on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::RwLock;

use super::format::{Identity, Kind, RECORD_HEADER_BYTES, RECORDS_START, SegmentHeader, u64_at};
use super::housekeeper::Housekeeper;
use super::index::{DiskIndex, SegmentIndex};
use super::reader::{Counts, Log, Shared, memory_index};
use super::scan::{self, Scan};
use super::segment::{
    BlockWriter, Segment, parse_name, read_headers, spare_path, sync_dir, write_header,
};
use super::writer::{Configs, Marks, Start, Writer};
use super::{
    ByGroup, Damage, Entry, GroupLog, Options, Recovered, SEGMENT_BYTES_MIN, Value, WalError,
    io_error,
};
use crate::machine::{BLOCK_BYTES, Disk, File, Machine, Open};

/// What most heads of segments fit into, in bytes: read first when one is looked for.
const HEAD_BYTES: u32 = 256 << 10;
/// Values are copied out of a segment's bytes if less than this part of them is needed, lest a few
/// entries keep a whole segment in memory.
const SPARSE_PART: usize = 4;

/// Opens the log in a directory, creating it if there is none.
///
/// `applied` tells for each group up to which index its entries need not be loaded (they stay
/// readable through [`Log::read`]). Damage is no error: it is in [`Recovered`], and what it lost
/// is named as faulty.
///
/// *Errors*: what the system says of the files; another process has the log open.
pub fn open(
    dir: &Path,
    options: Options,
    applied: &dyn Fn(u64) -> u64,
) -> Result<(Writer, Log, Recovered), WalError> {
    open_on(&Machine::default(), dir, options, applied)
}

/// As [`open`], on another machine.
pub fn open_on(
    machine: &Machine,
    dir: &Path,
    options: Options,
    applied: &dyn Fn(u64) -> u64,
) -> Result<(Writer, Log, Recovered), WalError> {
    let disk = &machine.disk;
    let bytes = options.segment_bytes;
    let is_block_by_block = bytes.is_multiple_of(BLOCK_BYTES as u32);
    if !is_block_by_block || !(SEGMENT_BYTES_MIN..=1 << 30).contains(&bytes) {
        const WHY: &str = "segment_bytes must be from 32 KiB to 1 GiB, a multiple of 4 KiB";
        return Err(WalError::BadOptions(WHY));
    }
    disk.create_folders(dir).map_err(io_error("create log directory", dir))?;
    let lock = lock(disk, dir)?;
    // A rename that was not synced when the process died could still be undone.
    sync_dir(disk, dir)?;
    let files = Files::list(disk, dir)?;
    let mut recovery = Recovery::new(disk, applied);
    let mut last_scan = None;
    let mut segments = Vec::new();
    recovery.state_from = files.last_with_state()?;
    for (position, file) in files.used.iter().enumerate() {
        let next = files.used.get(position + 1);
        if let Some(missing) = files.missing_before(position) {
            recovery.missing(missing);
        }
        let (segment, scan) = recovery.segment(dir, file, next)?;
        segments.push(segment);
        last_scan = scan;
    }
    let shared = Arc::new(Shared {
        dir: dir.to_path_buf(),
        segments: RwLock::new(segments.iter().map(|s| (s.seq, Arc::clone(s))).collect()),
        forgotten: RwLock::new(recovery.forgotten.clone()),
        counts: Counts::default(),
    });
    let spares = files.spares(disk, dir)?;
    let housekeeper = Housekeeper::start(machine, dir.to_path_buf(), options, spares)?;
    let state = (recovery.marks.clone(), recovery.configs.clone());
    let writer = start_writer(&shared, (lock, machine), housekeeper, segments, last_scan, state)?;
    Ok((writer, Log::new(shared), recovery.finish()))
}

fn lock(disk: &Disk, dir: &Path) -> Result<File, WalError> {
    let path = dir.join("lock");
    let file = disk.open(&path, Open::Create).map_err(io_error("open lock file", &path))?;
    match file.try_lock() {
        Ok(true) => Ok(file),
        Ok(false) => Err(WalError::InUse(dir.to_path_buf())),
        Err(error) => Err(io_error("lock", &path)(error)),
    }
}

/// Decides where writing goes on: behind the mark of the last segment if all of it is clean, else
/// in a new segment, so that the remains of a torn batch are never behind new records.
fn start_writer(
    shared: &Arc<Shared>,
    (lock, machine): (File, &Machine),
    housekeeper: Housekeeper,
    mut segments: Vec<Arc<Segment>>,
    last_scan: Option<Ended>,
    state: (ByGroup<Marks>, Configs),
) -> Result<Writer, WalError> {
    let shared = Arc::clone(shared);
    housekeeper.make(segments.last().map_or(0, |segment| segment.seq) + 1);
    let chance = machine.chance.clone();
    if let Some(Ended { scan, tail }) = &last_scan
        && scan.clean
        && let Some(current) = segments.pop()
    {
        write_missing_indexes(&housekeeper, &segments);
        let blocks = BlockWriter::open(&machine.disk, &current.path);
        let start = Start { current, blocks, position: scan.end, tail: tail.to_vec() };
        return Ok(Writer::new(shared, lock, housekeeper, start, state, chance));
    }
    let end = last_scan.map_or(0, |last| last.scan.end);
    let (current, blocks) = housekeeper.take_blank()?.into_used(end, &chance)?;
    let current = Arc::new(current);
    shared.segments.write().insert(current.seq, Arc::clone(&current));
    housekeeper.make(current.seq + 1);
    write_missing_indexes(&housekeeper, &segments);
    let start = Start { current, blocks, position: RECORDS_START, tail: Vec::new() };
    let mut writer = Writer::new(shared, lock, housekeeper, start, state, chance);
    writer.begin_segment()?;
    Ok(writer)
}

fn write_missing_indexes(housekeeper: &Housekeeper, closed: &[Arc<Segment>]) {
    for segment in closed.iter().filter(|segment| !segment.lost) {
        let end = match &*segment.index.read() {
            SegmentIndex::Memory(memory) => memory.end,
            SegmentIndex::Disk(_) => continue,
        };
        housekeeper.write_index(Arc::clone(segment), end);
    }
}

/// A segment file in use.
struct UsedFile {
    seq: u64,
    path: PathBuf,
    file: File,
    /// `None` if no copy of its header is valid.
    header: Option<SegmentHeader>,
}

/// What is in the directory.
struct Files {
    /// In the order of their numbers.
    used: Vec<UsedFile>,
    /// Made ahead of need and not used.
    blank: Vec<(u64, PathBuf)>,
    spares: Vec<PathBuf>,
}

impl Files {
    fn list(disk: &Disk, dir: &Path) -> Result<Files, WalError> {
        let mut files = Files { used: Vec::new(), blank: Vec::new(), spares: Vec::new() };
        let mut indexes = Vec::new();
        for path in disk.list(dir).map_err(io_error("list log directory", dir))? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(seq) = parse_name(name, "wal-", ".seg") {
                files.sort_in(disk, seq, path)?;
            } else if let Some(seq) = parse_name(name, "wal-", ".idx") {
                indexes.push((seq, path));
            } else if parse_name(name, "spare-", ".seg").is_some() {
                files.spares.push(path);
            } else if parse_name(name, "making-", ".seg").is_some() {
                disk.remove_file(&path).map_err(io_error("remove half a segment", &path))?;
            }
        }
        files.used.sort_by_key(|file| file.seq);
        for (seq, path) in indexes {
            if files.used.binary_search_by_key(&seq, |file| file.seq).is_err() {
                disk.remove_file(&path).map_err(io_error("remove stale log index", &path))?;
            }
        }
        Ok(files)
    }

    fn sort_in(&mut self, disk: &Disk, seq: u64, path: PathBuf) -> Result<(), WalError> {
        let file = disk.open(&path, Open::Write).map_err(io_error("open segment", &path))?;
        let headers = read_headers(&file, &path)?;
        let valid = || headers.into_iter().flatten();
        let header = valid().find(|header| header.used && header.seq == seq);
        // A blank header, or one of the segment that the file was before it was recycled. What is
        // too short for a header holds nothing.
        let length = file.length().map_err(io_error("inspect segment", &path))?;
        let is_blank = valid().next().is_some() || length < u64::from(RECORDS_START);
        if header.is_none() && is_blank {
            self.blank.push((seq, path));
        } else {
            self.used.push(UsedFile { seq, path, file, header });
        }
        Ok(())
    }

    /// The files that wait to be used again; blank ones, which wait under a segment's name, are
    /// renamed to be among them.
    fn spares(&self, disk: &Disk, dir: &Path) -> Result<Vec<PathBuf>, WalError> {
        let mut spares = self.spares.clone();
        for (seq, blank) in &self.blank {
            let spare = spare_path(dir, *seq);
            disk.rename(blank, &spare).map_err(io_error("put segment aside", blank))?;
            spares.retain(|other| *other != spare);
            spares.push(spare);
        }
        Ok(spares)
    }

    /// The number of the newest segment that begins with the state of all groups. A crash may have come
    /// before a newer one's head was synced, and again before that of the one behind.
    fn last_with_state(&self) -> Result<u64, WalError> {
        for UsedFile { seq, path, file, header } in self.used.iter().rev() {
            let Some(header) = header else { continue };
            for end in [Some(HEAD_BYTES), None] {
                let bytes = read_segment(file, path, end)?;
                if scan::scan(&bytes, header.salt, None, None).has_head {
                    return Ok(*seq);
                }
            }
        }
        Ok(0)
    }

    /// The number of a segment that should be in front of this one and is not.
    fn missing_before(&self, position: usize) -> Option<u64> {
        let before = self.used[position.checked_sub(1)?].seq;
        (before + 1 < self.used[position].seq).then_some(before + 1)
    }
}

/// Gathers what the segments say, oldest first.
struct Recovery<'a> {
    disk: &'a Disk,
    applied: &'a dyn Fn(u64) -> u64,
    /// What segments before this one say of promises and members is said there again.
    state_from: u64,
    marks: ByGroup<Marks>,
    configs: Configs,
    /// The newest index of a configuration of which a copy could not be read.
    lost_configs: HashMap<u64, u64>,
    entries: HashMap<u64, Vec<Loaded>>,
    forgotten: HashMap<u64, u64>,
    recovered: Recovered,
}

/// What a scan of a segment found, and what stands in front of its end in the same block.
struct Ended {
    scan: Scan,
    tail: Bytes,
}

impl Ended {
    fn new(scan: Scan, bytes: &[u8]) -> Ended {
        let end = bytes.len().min(scan.end as usize);
        let tail = Bytes::copy_from_slice(&bytes[end / BLOCK_BYTES * BLOCK_BYTES..end]);
        Ended { scan, tail }
    }
}

/// An entry as it was met; `None` if it is lost.
struct Loaded {
    index: u64,
    ballot: u64,
    value: Option<Value>,
}

impl<'a> Recovery<'a> {
    fn new(disk: &'a Disk, applied: &'a dyn Fn(u64) -> u64) -> Recovery<'a> {
        Recovery {
            disk,
            applied,
            state_from: 0,
            marks: ByGroup::default(),
            configs: Configs::default(),
            lost_configs: HashMap::new(),
            entries: HashMap::new(),
            forgotten: HashMap::new(),
            recovered: Recovered::default(),
        }
    }

    fn missing(&mut self, seq: u64) {
        self.lose_segment(seq, 0);
    }

    fn lose_segment(&mut self, segment: u64, length: u32) {
        let damage = Damage { segment, offset: 0, length, lost: Vec::new(), unnamed: true };
        self.recovered.damage.push(damage);
    }

    /// Reads one segment, unless all it holds is applied or nothing of it can be read.
    fn segment(
        &mut self,
        dir: &Path,
        used: &UsedFile,
        next: Option<&UsedFile>,
    ) -> Result<(Arc<Segment>, Option<Ended>), WalError> {
        let UsedFile { seq, path, file, header } = used;
        let disk = DiskIndex::open(self.disk, dir, *seq)?;
        let salt = header.map(|header| header.salt).or(disk.as_ref().map(|disk| disk.salt));
        let length = file.length().map_err(io_error("inspect segment", path))?;
        let capacity = length.min(u32::MAX.into()) as u32;
        let segment = |salt: Option<u64>, index| {
            let file = file.try_clone().map_err(io_error("open segment", path))?;
            let (seq, path, index) = (*seq, path.clone(), RwLock::new(index));
            let (lost, salt) = (salt.is_none(), salt.unwrap_or(0));
            Ok(Arc::new(Segment { seq, salt, file, path, capacity, index, lost }))
        };
        let Some(salt) = salt else {
            self.lose_segment(*seq, capacity);
            return Ok((segment(None, SegmentIndex::default())?, None));
        };
        let followed = next.and_then(|next| next.header.filter(|_| next.seq == seq + 1));
        let known_end = followed.map(|header| header.previous_end).filter(|&end| end > 0);
        let known_end = known_end.or(disk.as_ref().filter(|d| d.salt == salt).map(|d| d.end));
        if next.is_some()
            && let Some(disk) = disk
        {
            if *seq < self.state_from && self.is_applied(&disk) {
                return Ok((segment(Some(salt), SegmentIndex::Disk(disk))?, None));
            }
            let bytes = read_segment(file, path, known_end)?;
            let scan = self.scan(*seq, &bytes, salt, known_end, disk.identities().as_deref());
            let ended = Ended::new(scan, &bytes);
            return Ok((segment(Some(salt), SegmentIndex::Disk(disk))?, Some(ended)));
        }
        let bytes = read_segment(file, path, known_end)?;
        let scan = self.scan(*seq, &bytes, salt, known_end, None);
        if let (None, Some(header)) = (known_end, header) {
            write_again(file, path, *header, (&bytes, &scan))?;
        }
        let mut memory = memory_index(&scan.records);
        memory.end = scan.end;
        let ended = Ended::new(scan, &bytes);
        Ok((segment(Some(salt), SegmentIndex::Memory(memory))?, Some(ended)))
    }

    /// Whether none of the segment's entries needs to be loaded. That a group was forgotten is said
    /// nowhere else.
    fn is_applied(&self, disk: &DiskIndex) -> bool {
        !disk.forgets && disk.ranges().all(|(group, _, max)| max <= (self.applied)(group))
    }

    fn scan(
        &mut self,
        seq: u64,
        bytes: &Bytes,
        salt: u64,
        known_end: Option<u32>,
        named: Option<&[Identity]>,
    ) -> Scan {
        let scan = scan::scan(bytes, salt, known_end, named);
        self.recovered.torn_bytes += u64::from(scan.torn_bytes);
        for region in &scan.damage {
            let lost = region.lost.iter().filter(|identity| identity.kind.is_accept());
            self.recovered.damage.push(Damage {
                segment: seq,
                offset: region.start,
                length: region.end - region.start,
                lost: lost.map(|i| (i.group, i.index, i.ballot)).collect(),
                unnamed: region.unnamed,
            });
        }
        self.load(seq, bytes, &scan);
        scan
    }

    /// Takes in the records of a segment.
    fn load(&mut self, seq: u64, bytes: &Bytes, scan: &Scan) {
        let payload = |record: &scan::Scanned| {
            let start = record.identity.offset as usize + RECORD_HEADER_BYTES;
            start..start + record.length as usize
        };
        let mut needed = 0;
        let mut floors: HashMap<u64, u64> = HashMap::new();
        for record in scan.records.iter().filter(|record| record.identity.kind.is_accept()) {
            let group = record.identity.group;
            let floor = *floors.entry(group).or_insert_with(|| (self.applied)(group));
            needed += if record.identity.index > floor { record.length as usize } else { 0 };
        }
        let mut values = Values::new(bytes, needed);
        for record in &scan.records {
            let Identity { kind, group, index, ballot, .. } = record.identity;
            if kind == Kind::Forget {
                self.marks.remove(&group);
                self.configs.remove(&group);
                self.lost_configs.remove(&group);
                self.entries.remove(&group);
                self.forgotten.insert(group, seq);
                continue;
            }
            let marks = self.marks.entry(group).or_default();
            marks.promise = marks.promise.max(ballot);
            match kind {
                Kind::Chosen => marks.chosen = marks.chosen.max(index),
                Kind::Config if record.lost => {
                    let newest = self.lost_configs.entry(group).or_default();
                    *newest = index.max(*newest);
                }
                Kind::Config => {
                    let held = self.configs.get(&group).is_some_and(|(held, _)| *held > index);
                    if !held {
                        let value = Bytes::copy_from_slice(&bytes[payload(record)]);
                        self.configs.insert(group, (index, value));
                    }
                }
                Kind::Truncate => marks.truncated = marks.truncated.max(index),
                Kind::State => {
                    marks.truncated = marks.truncated.max(index);
                    if !record.lost && record.length == 8 {
                        marks.chosen = marks.chosen.max(u64_at(&bytes[payload(record)], 0));
                    }
                }
                Kind::Noop | Kind::Data if index > floors.get(&group).copied().unwrap_or(0) => {
                    let value = match (record.lost, kind) {
                        (true, _) => None,
                        (false, Kind::Noop) => Some(Value::Noop),
                        (false, _) => Some(Value::Data(values.take(payload(record)))),
                    };
                    self.entries.entry(group).or_default().push(Loaded { index, ballot, value });
                }
                _ => {}
            }
        }
    }

    fn finish(mut self) -> Recovered {
        for (group, marks) in self.marks {
            let Marks { promise, chosen, truncated } = marks;
            let config = self.configs.remove(&group);
            let known = config.as_ref().map_or(0, |(index, _)| *index);
            let config_lost = self.lost_configs.get(&group).is_some_and(|lost| *lost > known);
            let log =
                GroupLog { promise, chosen, truncated, config, config_lost, ..GroupLog::default() };
            let log = match self.entries.remove(&group) {
                Some(entries) => settle(log, entries),
                None => log,
            };
            self.recovered.groups.insert(group, log);
        }
        self.recovered
    }
}

/// Keeps, for each index above the truncated ones, what was written last at the highest ballot.
fn settle(mut log: GroupLog, mut entries: Vec<Loaded>) -> GroupLog {
    // Stable, and nearly sorted already. At equal ballots a later copy repairs an earlier one, but
    // damage to a later copy does not undo a valid earlier one.
    entries.sort_by_key(|entry| (entry.index, entry.ballot, entry.value.is_some()));
    let mut entries = entries.into_iter().peekable();
    while let Some(entry) = entries.next() {
        let superseded = entries.peek().is_some_and(|next| next.index == entry.index);
        if superseded || entry.index <= log.truncated {
            continue;
        }
        match entry.value {
            Some(value) => {
                let Loaded { index, ballot, .. } = entry;
                log.entries.push(Entry { index, ballot, value });
            }
            None => log.faulty.push((entry.index, entry.ballot)),
        }
    }
    log
}

/// Hands out values of a segment: slices of its bytes, or of a compact copy if few are needed.
struct Values<'a> {
    bytes: &'a Bytes,
    copy: Option<BytesMut>,
}

impl Values<'_> {
    fn new(bytes: &Bytes, needed: usize) -> Values<'_> {
        let sparse = needed < bytes.len() / SPARSE_PART;
        Values { bytes, copy: sparse.then(|| BytesMut::with_capacity(needed)) }
    }

    fn take(&mut self, range: std::ops::Range<usize>) -> Bytes {
        match &mut self.copy {
            Some(copy) => {
                copy.extend_from_slice(&self.bytes[range]);
                copy.split().freeze() // a slice of the one allocation made for all
            }
            None => self.bytes.slice(range),
        }
    }
}

/// Makes durable what counts as accepted from here on. A killed process may have left it in the system's
/// memory only; and if a sync had failed, the system may count it as written although it is not, so that
/// another sync would do nothing. So it is written once more: the same bytes, which no crash can spoil.
/// What is damaged stays as it is, for it may have been read wrongly.
fn write_again(
    file: &File,
    path: &Path,
    header: SegmentHeader,
    (bytes, scan): (&Bytes, &Scan),
) -> Result<(), WalError> {
    write_header(file, path, header)?;
    let mut at = RECORDS_START;
    let end = scan.end.min(bytes.len() as u32);
    let damage = scan.damage.iter().map(|region| (region.start, region.end));
    for (start, behind) in damage.chain([(end, end)]) {
        if let Some(sound) = bytes.get(at as usize..start as usize) {
            file.write_all_at(sound, at.into()).map_err(io_error("write again", path))?;
        }
        at = behind;
    }
    file.sync_data().map_err(io_error("sync", path))
}

fn read_segment(file: &File, path: &Path, end: Option<u32>) -> Result<Bytes, WalError> {
    let length = u64::from(end.unwrap_or(u32::MAX));
    let bytes = file.read_up_to(0, length).map_err(io_error("read", path))?;
    Ok(bytes.into())
}
