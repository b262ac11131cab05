//! A row in memory.

use std::borrow::Borrow;
use std::cell::Cell;
use std::cmp::Ordering as Order;

use bytes::Bytes;

/// What a row costs beside its bytes, about: its entry, its share of a bucket's free space, and
/// what the allocator adds.
pub(super) const ROW_BYTES: u64 = 96;
/// A value of more bytes is shared with whoever reads it; a smaller one is copied.
pub(super) const SMALL_VALUE_BYTES: usize = 1024;
/// Instead of an age: the LSM may hold a value of the row.
const AGE_UNKNOWN: u32 = u32::MAX;

/// A row in memory.
#[derive(Debug)]
pub(crate) struct Row {
    /// The key, and behind it the value if it is small.
    data: Box<[u8]>,
    large: Option<Box<Bytes>>,
    /// The log index of the batch that made it so; 0 if fjall said it.
    pub(crate) index: u64,
    /// How many indexes before this one the row came to be; see [`Row::born`].
    age: u32,
    key_bytes: u16,
    /// False: the row does not exist.
    exists: bool,
    /// Read since the hand last passed.
    pub(super) warm: Cell<bool>,
}

impl Row {
    /// A row as the batch of `index` makes it. `born`: see [`Row::born`].
    pub(super) fn new(key: &[u8], value: Option<&Bytes>, index: u64, born: Option<u64>) -> Row {
        let small = value.filter(|value| value.len() <= SMALL_VALUE_BYTES);
        let mut data = Vec::with_capacity(key.len() + small.map_or(0, Bytes::len));
        data.extend_from_slice(key);
        data.extend_from_slice(small.map_or(&[][..], |value| value));
        let large = value.filter(|_| small.is_none());
        Row {
            data: data.into_boxed_slice(),
            large: large.map(|value| Box::new(value.clone())),
            index,
            age: age(index, born),
            key_bytes: u16::try_from(key.len()).expect("row keys are bounded"),
            exists: value.is_some(),
            warm: Cell::new(true),
        }
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.data[..usize::from(self.key_bytes)]
    }

    /// The opened value; `None`: the row does not exist.
    pub(crate) fn value(&self) -> Option<Bytes> {
        match &self.large {
            Some(value) => Some(Bytes::clone(value)),
            None if self.exists => {
                Some(Bytes::copy_from_slice(&self.data[usize::from(self.key_bytes)..]))
            }
            None => None,
        }
    }

    /// The opened value where it lies; `None`: the row does not exist.
    pub(crate) fn value_here(&self) -> Option<&[u8]> {
        match &self.large {
            Some(value) => Some(value),
            None => self.exists.then(|| &self.data[usize::from(self.key_bytes)..]),
        }
    }

    /// The last byte of its key and value, if it has any.
    pub(super) fn last_byte(&self) -> u8 {
        self.data.last().copied().unwrap_or_default()
    }

    pub(crate) fn exists(&self) -> bool {
        self.exists
    }

    /// The log index of the batch that put the row where there was none: no batch before it, as far
    /// as the LSM holds them, left a value of the row. `None` if that is not known.
    pub(super) fn born(&self) -> Option<u64> {
        (self.age != AGE_UNKNOWN).then(|| self.index - u64::from(self.age))
    }

    /// Takes the place of `old`. The LSM holds all batches up to `flushed`.
    pub(super) fn follow(&mut self, old: &Row, flushed: u64) {
        let is_clean_absence = !old.exists && old.index <= flushed;
        let born = if is_clean_absence { Some(self.index) } else { old.born() };
        self.age = age(self.index, born);
    }

    pub(super) fn bytes(&self) -> u64 {
        ROW_BYTES + (self.data.len() + self.large.as_ref().map_or(0, |value| value.len())) as u64
    }
}

fn age(index: u64, born: Option<u64>) -> u32 {
    let age = born.and_then(|born| u32::try_from(index.checked_sub(born)?).ok());
    age.unwrap_or(AGE_UNKNOWN)
}

/// Rows in a set are found by their keys.
impl Borrow<[u8]> for Row {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl Ord for Row {
    fn cmp(&self, other: &Row) -> Order {
        self.key().cmp(other.key())
    }
}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Row) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Row) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Row {}
