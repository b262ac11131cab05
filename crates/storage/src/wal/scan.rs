//! Reads all records of a segment's bytes, and tells a torn tail from damage. Pure: bytes in,
//! findings out. The reasoning is at the head of the module `wal`.

use super::format::{
    ALIGN, Header, Identity, Kind, RECORD_HEADER_BYTES, RECORDS_START, decode_footer,
    encode_footer, record_bytes,
};

/// A record that counts: read, or lost but named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Scanned {
    pub(super) identity: Identity,
    /// Length of the payload, 0 if lost.
    pub(super) length: u32,
    /// Whether the payload failed its checksum, or the record was only named by another.
    pub(super) lost: bool,
}

/// A stretch that failed its checksums.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Region {
    pub(super) start: u32,
    pub(super) end: u32,
    /// Named records that stood there.
    pub(super) lost: Vec<Identity>,
    /// Whether others may have stood there.
    pub(super) unnamed: bool,
}

/// What a segment holds.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Named records in the order of their offsets.
    pub(super) records: Vec<Scanned>,
    /// Damage in the order of its offsets.
    pub(super) damage: Vec<Region>,
    /// Where the records end.
    pub(super) end: u32,
    /// Bytes of a torn batch behind the end.
    pub(super) torn_bytes: u32,
    /// Whether a mark stands at the end and nothing behind it: the log may go on right there.
    pub(super) clean: bool,
    /// Whether the first batch is there to its end: a segment begins with the state of all groups.
    pub(super) has_head: bool,
}

/// One stretch of the segment, as the walk met it.
#[derive(Clone, Copy, Debug)]
enum Item {
    Valid(u32, Header),
    /// The header is right, the payload is not.
    Faulty(u32, Header),
    /// No header at the first offset; the next one is at the second.
    Unknown(u32, u32),
}

impl Item {
    fn start(&self) -> u32 {
        match *self {
            Item::Valid(at, _) | Item::Faulty(at, _) | Item::Unknown(at, _) => at,
        }
    }

    fn end(&self) -> u32 {
        match *self {
            Item::Valid(at, header) | Item::Faulty(at, header) => {
                at + record_bytes(header.length as usize) as u32
            }
            Item::Unknown(_, end) => end,
        }
    }
}

/// Scans a segment.
///
/// `known_end`: where the records end, if that is known from elsewhere; then nothing is a torn
/// tail. `named`: identities of entries from the segment's index file, if it has a valid one.
pub(super) fn scan(
    bytes: &[u8],
    salt: u64,
    known_end: Option<u32>,
    named: Option<&[Identity]>,
) -> Scan {
    let limit = known_end.map_or(bytes.len(), |end| bytes.len().min(end as usize)) as u32;
    let (mut items, mark) = walk(bytes, limit, salt, known_end.is_some());
    if let Some(end) = known_end
        && limit < end
    {
        items.push(Item::Unknown(limit, end)); // the file is shorter than its records
    }
    // Everything before this offset was synced: a later batch, or a mark, or the next segment
    // exists.
    let synced = known_end.unwrap_or_else(|| {
        let starts = items.iter().filter_map(|item| match item {
            Item::Valid(_, header) | Item::Faulty(_, header) => Some(header.batch_start),
            Item::Unknown(..) => None,
        });
        starts.chain(mark).max().unwrap_or(RECORDS_START)
    });
    let synced = if mutant!(LogCutAtDamage) { RECORDS_START } else { synced };
    let torn = items
        .iter()
        .position(|item| !matches!(item, Item::Valid(..)) && item.end() > synced)
        .map(|first| cut_tail(&mut items, first, synced));
    let end = known_end
        .or(mark)
        .or(torn.map(|(end, _)| end))
        .unwrap_or_else(|| items.last().map_or(RECORDS_START, Item::end));
    let has_head = mark.is_some_and(|mark| mark > RECORDS_START) || items.iter().any(ends_head);
    let mut result = Scan { end, has_head, ..Scan::default() };
    result.torn_bytes = torn.map_or(0, |(_, bytes)| bytes);
    collect(bytes, &items, named, &mut result);
    // What a torn batch left behind the mark would one day stand right behind a new record.
    result.clean = result.damage.is_empty()
        && mark.is_some_and(|mark| next_header(bytes, mark + ALIGN, limit, salt).is_none());
    result
}

/// Whether the first batch ends here, or has ended before.
fn ends_head(item: &Item) -> bool {
    match item {
        Item::Valid(_, header) | Item::Faulty(_, header) => {
            header.kind == Kind::Footer || header.batch_start > RECORDS_START
        }
        Item::Unknown(..) => false,
    }
}

/// All stretches up to the limit or to the mark that ends the log, and that mark's offset.
///
/// A mark that something durable follows ends nothing: there the disk lost the write of a batch.
fn walk(bytes: &[u8], limit: u32, salt: u64, ended: bool) -> (Vec<Item>, Option<u32>) {
    let mut items = Vec::with_capacity((limit.saturating_sub(RECORDS_START) / 256) as usize);
    let mut at = RECORDS_START;
    while at < limit {
        let header = header_at(bytes, at, limit, salt);
        let Some(header) = header.filter(|header| header.kind != Kind::Mark) else {
            let next = next_header(bytes, at + ALIGN, limit, salt);
            let later = next.and_then(|next| header_at(bytes, next, limit, salt));
            if header.is_some() && !ended && later.is_none_or(|later| later.batch_start <= at) {
                return (items, Some(at));
            }
            let next = next.unwrap_or(limit);
            items.push(Item::Unknown(at, next));
            at = next;
            continue;
        };
        let payload = at as usize + RECORD_HEADER_BYTES;
        let payload = &bytes[payload..payload + header.length as usize];
        let item = match crc32c::crc32c(payload) == header.payload_crc {
            true => Item::Valid(at, header),
            false => Item::Faulty(at, header),
        };
        at = item.end();
        items.push(item);
    }
    (items, None)
}

/// The header at an offset, if it is one and its record fits.
fn header_at(bytes: &[u8], at: u32, limit: u32, salt: u64) -> Option<Header> {
    let header = Header::decode(bytes.get(at as usize..limit as usize)?, salt, at)?;
    let end = at as usize + record_bytes(header.length as usize);
    (end <= limit as usize && header.batch_start <= at && header.batch_start >= RECORDS_START)
        .then_some(header)
}

fn next_header(bytes: &[u8], from: u32, limit: u32, salt: u64) -> Option<u32> {
    (from..limit).step_by(ALIGN as usize).find(|&at| header_at(bytes, at, limit, salt).is_some())
}

/// Ends the items where the torn tail begins: at the item `first`, but not before `synced`.
/// Returns the end and how many bytes of the torn batch were recognized behind it.
fn cut_tail(items: &mut Vec<Item>, first: usize, synced: u32) -> (u32, u32) {
    let end = items[first].start().max(synced);
    let recognized = items[first..]
        .iter()
        .filter(|item| !matches!(item, Item::Unknown(..)))
        .map(Item::end)
        .max()
        .unwrap_or(end);
    let damaged = (items[first].start() < synced).then(|| items[first].start());
    items.truncate(first);
    items.extend(damaged.map(|start| Item::Unknown(start, synced)));
    (end, recognized.saturating_sub(end))
}

/// Fills in records and damage.
fn collect(bytes: &[u8], items: &[Item], named: Option<&[Identity]>, result: &mut Scan) {
    let names = if items.iter().all(|item| matches!(item, Item::Valid(..))) {
        Names::default()
    } else {
        Names::read(bytes, items, named)
    };
    for (position, item) in items.iter().enumerate() {
        match *item {
            Item::Valid(at, header) if header.kind.is_named() => {
                let identity = identity(at, &header);
                result.records.push(Scanned { identity, length: header.length, lost: false });
            }
            Item::Valid(..) => {}
            Item::Faulty(at, header) => {
                let identity = identity(at, &header);
                let lost = if header.kind.is_named() { vec![identity] } else { Vec::new() };
                let regions = Region { start: at, end: item.end(), lost, unnamed: false };
                result.damage.push(regions);
            }
            Item::Unknown(start, end) => {
                let unnamed = !names.cover(start, end) && !is_footer(items, position);
                let lost = names.between(start, end);
                result.damage.push(Region { start, end, lost, unnamed });
            }
        }
        if let Some(region) = result.damage.last()
            && region.start == item.start()
        {
            let lost =
                region.lost.iter().map(|&identity| Scanned { identity, length: 0, lost: true });
            result.records.extend(lost);
        }
    }
}

fn identity(offset: u32, header: &Header) -> Identity {
    let Header { kind, group, index, ballot, .. } = *header;
    Identity { kind, offset, group, index, ballot }
}

/// Whether the unknown stretch is nothing but the footer of its batch: it ends where a batch ends
/// and is exactly as long as the footer of the records in front of it. (Had it held a record too,
/// it would be longer.)
fn is_footer(items: &[Item], position: usize) -> bool {
    let Item::Unknown(start, end) = items[position] else { return false };
    let ends_batch = match items.get(position + 1) {
        Some(Item::Valid(at, header) | Item::Faulty(at, header)) => header.batch_start == *at,
        Some(Item::Unknown(..)) => false,
        None => true,
    };
    let before = || {
        items[..position].iter().rev().map_while(|item| match item {
            Item::Valid(at, header) | Item::Faulty(at, header) => Some((*at, header)),
            Item::Unknown(..) => None,
        })
    };
    let Some(batch) = before().next().map(|(_, header)| header.batch_start) else { return false };
    let mut batch: Vec<Identity> = before()
        .take_while(|(_, header)| header.batch_start == batch)
        .filter(|(_, header)| header.kind.is_named())
        .map(|(at, header)| identity(at, header))
        .collect();
    batch.reverse();
    ends_batch && (end - start) as usize == record_bytes(encode_footer(&batch).len())
}

/// Identities written outside of their records.
#[derive(Default)]
struct Names {
    /// In the order of their offsets.
    identities: Vec<Identity>,
    /// Stretches whose records are all named, in order, disjoint.
    covered: Vec<(u32, u32)>,
}

impl Names {
    fn read(bytes: &[u8], items: &[Item], named: Option<&[Identity]>) -> Names {
        let mut names = Names::default();
        for item in items {
            let &Item::Valid(at, header) = item else { continue };
            if header.kind != Kind::Footer {
                continue;
            }
            let payload = at as usize + RECORD_HEADER_BYTES;
            let payload = &bytes[payload..payload + header.length as usize];
            names.identities.extend(decode_footer(payload));
            names.covered.push((header.batch_start, item.end()));
        }
        if let Some(named) = named {
            names.identities.extend_from_slice(named);
        }
        names.identities.sort_unstable_by_key(|identity| identity.offset);
        names.identities.dedup_by_key(|identity| identity.offset);
        names
    }

    fn between(&self, start: u32, end: u32) -> Vec<Identity> {
        let from = self.identities.partition_point(|identity| identity.offset < start);
        let to = self.identities.partition_point(|identity| identity.offset < end);
        self.identities[from..to].to_vec()
    }

    /// Whether footers name all that may stand between two offsets. (An index file names entries,
    /// but not promises.)
    fn cover(&self, start: u32, end: u32) -> bool {
        let mut at = start;
        for &(from, to) in &self.covered {
            if from <= at && at < to {
                at = to;
            }
        }
        at >= end
    }
}
