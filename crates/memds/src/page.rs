//! A leaf of the Perkle tree: up to 128 entries in order of their keys, in packed columns.
//!
//! ```text
//! page    = hash:u64 count:u8 (width:u8)*6 last_length:u40
//!           key_base:u72 gap_base:u80 partition_base:u64 epoch_base:u64 ballot_base:u64 group_base:u32
//!           column*6 padding:16 bytes
//! column  = (value - base) * count, each in `width` bits, the lowest bits first
//! columns = key, gap, partition, epoch, ballot, group
//! ```
//!
//! Numbers are little-endian. A base is the column's least value and the width what its greatest
//! needs, so a column whose values are equal takes no bits. Widths are fixed inside a page: a key is
//! found by bisection, and of its entry only what is asked for is unpacked.
//!
//! An entry's end is kept as the gap to the next key, which is 0 all along a map without holes; the
//! last entry's length stands in the head. Gaps are kept 2^40 greater than they are, since the tree
//! does not forbid that entries overlap.
//!
//! Rejected: varints, a byte smaller per entry but read one after the other; a node per entry, 40
//! bytes of links and hashes beside 20 of content.

use xxhash_rust::xxh3::xxh3_64;

use crate::region::Key;

/// Entries in a page at most.
pub(crate) const PAGE_ENTRIES_MAX: usize = 128;

const COLUMNS: usize = 6;
const KEY: usize = 0;
const GAP: usize = 1;
const PARTITION: usize = 2;
const EPOCH: usize = 3;
const BALLOT: usize = 4;
const GROUP: usize = 5;

const COUNT_AT: usize = 8;
const WIDTHS_AT: usize = 9;
const LAST_LENGTH_AT: usize = WIDTHS_AT + COLUMNS;
const LAST_LENGTH_BYTES: usize = 5;
/// Bytes of each column's base.
const BASE_BYTES: [usize; COLUMNS] = [9, 10, 8, 8, 8, 4];
const BASES_AT: [usize; COLUMNS] = [20, 29, 39, 47, 55, 63];
const HEAD_BYTES: usize = 67;
/// What a 16-byte load may reach over the end: it may start there, for a column without bits.
const PADDING_BYTES: usize = 16;
/// Added to gaps, so that none is negative.
const GAP_BIAS: Key = 1 << 40;

const _: () = assert!(LAST_LENGTH_AT + LAST_LENGTH_BYTES == BASES_AT[KEY]);
const _: () = assert!(BASES_AT[GROUP] + BASE_BYTES[GROUP] == HEAD_BYTES);

/// An entry of the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    /// The last placement less the first.
    pub(crate) length: u64,
    pub(crate) partition: u64,
    pub(crate) epoch: u64,
    pub(crate) ballot: u64,
    /// Which members and leader, as a position in the tree's list of them.
    pub(crate) group: u32,
}

/// A page; never empty.
pub(crate) struct Page(Box<[u8]>);

impl Page {
    /// The page of these entries, with what they hash to.
    ///
    /// *Panics*: without entries, with more than [`PAGE_ENTRIES_MAX`], or if they are out of order.
    pub(crate) fn new(entries: &[Entry], hash: u64) -> Page {
        assert!(!entries.is_empty() && entries.len() <= PAGE_ENTRIES_MAX);
        assert!(entries.is_sorted_by(|a, b| a.key < b.key));
        let mut bases = [Key::MAX; COLUMNS];
        let mut greatest = [0; COLUMNS];
        each_value(entries, |_, column, value| {
            bases[column] = bases[column].min(value);
            greatest[column] = greatest[column].max(value);
        });
        if entries.len() == 1 {
            bases[GAP] = 0;
        }
        let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
            (Key::BITS - greatest[column].saturating_sub(bases[column]).leading_zeros()) as usize
        });
        let bits = entries.len() * widths.iter().sum::<usize>();
        let mut bytes = vec![0; HEAD_BYTES + bits.div_ceil(8) + PADDING_BYTES];
        bytes[..COUNT_AT].copy_from_slice(&hash.to_le_bytes());
        bytes[COUNT_AT] = entries.len() as u8;
        for column in 0..COLUMNS {
            bytes[WIDTHS_AT + column] = widths[column] as u8;
            put(&mut bytes, BASES_AT[column], BASE_BYTES[column], bases[column]);
        }
        let last_length = Key::from(entries[entries.len() - 1].length);
        put(&mut bytes, LAST_LENGTH_AT, LAST_LENGTH_BYTES, last_length);
        let starts = starts(entries.len(), widths);
        each_value(entries, |index, column, value| {
            pack(&mut bytes, starts[column] + index * widths[column], value - bases[column]);
        });
        Page(bytes.into_boxed_slice())
    }

    /// What the entries hash to.
    pub(crate) fn hash(&self) -> u64 {
        self.base(0, 8) as u64
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.0[COUNT_AT])
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.0.len()
    }

    /// The least key.
    pub(crate) fn first_key(&self) -> Key {
        self.base(BASES_AT[KEY], BASE_BYTES[KEY])
    }

    /// How many keys are at most `key`.
    pub(crate) fn rank(&self, key: Key) -> usize {
        let base = self.first_key();
        if key < base {
            return 0;
        }
        let offset = key - base;
        let width = self.width(KEY);
        if offset >> width != 0 {
            return self.len();
        }
        // The first key is known to be at most `key`.
        let (mut low, mut left) = (0, self.len());
        if width <= 56 {
            let offset = offset as u64;
            let mask = (1 << width) - 1;
            while left > 1 {
                let half = left / 2;
                let key = self.load_short((low + half) * width) & mask;
                low += if key <= offset { half } else { 0 };
                left -= half;
            }
        } else {
            while left > 1 {
                let half = left / 2;
                low += if self.load(0, low + half, width) <= offset { half } else { 0 };
                left -= half;
            }
        }
        low + 1
    }

    /// The key of an entry.
    pub(crate) fn key(&self, index: usize) -> Key {
        self.first_key() + self.load(0, index, self.width(KEY))
    }

    /// An entry.
    pub(crate) fn entry(&self, index: usize) -> Entry {
        let widths: [usize; COLUMNS] = std::array::from_fn(|column| self.width(column));
        let starts = starts(self.len(), widths);
        let value = |column: usize| {
            let start = starts[column] - HEAD_BYTES * 8;
            self.base(BASES_AT[column], BASE_BYTES[column])
                + self.load(start, index, widths[column])
        };
        let key = value(KEY);
        let length = if index + 1 == self.len() {
            self.base(LAST_LENGTH_AT, LAST_LENGTH_BYTES)
        } else {
            (self.key(index + 1) + GAP_BIAS) - key - 1 - value(GAP)
        };
        Entry {
            key,
            length: length as u64,
            partition: value(PARTITION) as u64,
            epoch: value(EPOCH) as u64,
            ballot: value(BALLOT) as u64,
            group: value(GROUP) as u32,
        }
    }

    /// All entries.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..self.len()).map(|index| self.entry(index))
    }

    fn width(&self, column: usize) -> usize {
        usize::from(self.0[WIDTHS_AT + column])
    }

    fn base(&self, at: usize, length: usize) -> Key {
        // All of the head lies before the columns, so 16 bytes can be loaded anywhere in it.
        let bytes = self.0[at..at + 16].try_into().expect("16 bytes");
        Key::from_le_bytes(bytes) & ((1 << (length * 8)) - 1)
    }

    fn load(&self, start: usize, index: usize, width: usize) -> Key {
        let bit = start + index * width;
        let at = HEAD_BYTES + bit / 8;
        let bytes = self.0[at..at + 16].try_into().expect("16 bytes");
        (Key::from_le_bytes(bytes) >> (bit % 8)) & ((1 << width) - 1)
    }

    fn load_short(&self, bit: usize) -> u64 {
        let at = HEAD_BYTES + bit / 8;
        let bytes = self.0[at..at + 8].try_into().expect("8 bytes");
        u64::from_le_bytes(bytes) >> (bit % 8)
    }
}

/// What a sequence of entries hashes to, given what each of them hashes to.
pub(crate) fn hash_of_entries(hashes: impl Iterator<Item = u64>) -> u64 {
    let mut bytes = [0; PAGE_ENTRIES_MAX * 8];
    let mut length = 0;
    for hash in hashes {
        bytes[length..length + 8].copy_from_slice(&hash.to_le_bytes());
        length += 8;
    }
    xxh3_64(&bytes[..length])
}

/// Where each column starts, in bits from the start of the page.
fn starts(count: usize, widths: [usize; COLUMNS]) -> [usize; COLUMNS] {
    let mut next = HEAD_BYTES * 8;
    widths.map(|width| {
        let start = next;
        next += count * width;
        start
    })
}

/// Calls `f` with (position, column, value) for every value of every column.
fn each_value(entries: &[Entry], mut f: impl FnMut(usize, usize, Key)) {
    for (index, entry) in entries.iter().enumerate() {
        f(index, KEY, entry.key);
        if let Some(next) = entries.get(index + 1) {
            f(index, GAP, next.key + GAP_BIAS - entry.key - 1 - Key::from(entry.length));
        }
        f(index, PARTITION, Key::from(entry.partition));
        f(index, EPOCH, Key::from(entry.epoch));
        f(index, BALLOT, Key::from(entry.ballot));
        f(index, GROUP, Key::from(entry.group));
    }
}

fn put(bytes: &mut [u8], at: usize, length: usize, value: Key) {
    bytes[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
}

/// Adds a value at a bit position where nothing is yet.
fn pack(bytes: &mut [u8], bit: usize, value: Key) {
    let at = bit / 8;
    let window: &mut [u8; 16] = (&mut bytes[at..at + 16]).try_into().expect("16 bytes");
    *window = (Key::from_le_bytes(*window) | value << (bit % 8)).to_le_bytes();
}
