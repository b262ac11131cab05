//! Row keys that compare fast. A memtable's tree compares keys some twenty times for each row; were
//! each comparison a jump to the key's bytes, waiting for memory would be most of the work. So a
//! key carries its first 16 bytes as a number: table and placement, which tell most rows apart.

use std::borrow::Borrow;
use std::cmp::Ordering;

use bytes::Bytes;

/// The first 16 bytes of a row key, zeros where it has fewer. Orders as the bytes do, but for ties.
fn prefix_of(row: &[u8]) -> u128 {
    let mut head = [0; 16];
    let length = row.len().min(16);
    head[..length].copy_from_slice(&row[..length]);
    u128::from_be_bytes(head)
}

/// What both an owned key and a borrowed one can tell: enough to order them by.
pub(crate) trait RowOrder {
    fn prefix(&self) -> u128;
    fn row(&self) -> &[u8];
}

/// A memtable's key.
#[derive(Clone, Debug)]
pub(crate) struct RowKey {
    prefix: u128,
    bytes: Bytes,
}

impl RowKey {
    pub(crate) fn new(bytes: Bytes) -> RowKey {
        RowKey { prefix: prefix_of(&bytes), bytes }
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// A key to look for.
pub(crate) struct Probe<'a> {
    prefix: u128,
    row: &'a [u8],
}

impl<'a> Probe<'a> {
    pub(crate) fn new(row: &'a [u8]) -> Probe<'a> {
        Probe { prefix: prefix_of(row), row }
    }
}

impl RowOrder for RowKey {
    fn prefix(&self) -> u128 {
        self.prefix
    }

    fn row(&self) -> &[u8] {
        &self.bytes
    }
}

impl RowOrder for Probe<'_> {
    fn prefix(&self) -> u128 {
        self.prefix
    }

    fn row(&self) -> &[u8] {
        self.row
    }
}

impl<'a> Borrow<dyn RowOrder + 'a> for RowKey {
    fn borrow(&self) -> &(dyn RowOrder + 'a) {
        self
    }
}

impl Ord for dyn RowOrder + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.prefix().cmp(&other.prefix()).then_with(|| self.row().cmp(other.row()))
    }
}

impl PartialOrd for dyn RowOrder + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn RowOrder + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.row() == other.row()
    }
}

impl Eq for dyn RowOrder + '_ {}

impl Ord for RowKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.prefix.cmp(&other.prefix).then_with(|| self.bytes.cmp(&other.bytes))
    }
}

impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for RowKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for RowKey {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_as_their_bytes() {
        let mut rows: Vec<Vec<u8>> = vec![vec![], vec![0], vec![0; 15], vec![0; 16], vec![0; 17]];
        for tail in [&b"a"[..], b"a\0", b"b"] {
            for head in [&b""[..], b"0123456789abcde", b"0123456789abcdef", b"\xff"] {
                rows.push([head, tail].concat());
            }
        }
        for a in &rows {
            for b in &rows {
                let keys = (RowKey::new(a.clone().into()), RowKey::new(b.clone().into()));
                assert_eq!(keys.0.cmp(&keys.1), a.cmp(b), "{a:?} {b:?}");
                let probes: (&dyn RowOrder, &dyn RowOrder) = (&Probe::new(a), &keys.1);
                assert_eq!(probes.0.cmp(probes.1), a.cmp(b), "{a:?} {b:?}");
            }
        }
    }
}
