//! A node's rows below memory: the LSM with the row cache in front.

use bytes::Bytes;
use commands::Direction;

use crate::lsm::{Lsm, LsmError, RowCache, Visit};

/// See the module's text.
pub(crate) struct Disk {
    pub(crate) lsm: Lsm,
    pub(crate) cache: RowCache,
}

impl Disk {
    /// The row if the cache has it: never waits for a disk.
    pub(crate) fn cached(&self, row: &[u8]) -> Option<Bytes> {
        self.cache.get(row)
    }

    /// The row from the cache, else from the LSM.
    pub(crate) fn get(&self, row: &[u8]) -> Result<Option<Bytes>, LsmError> {
        self.cache.get_or_read(row, || self.lsm.get(row))
    }

    /// Visits rows of the LSM; they do not enter the cache, lest a scan empties it.
    pub(crate) fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), LsmError> {
        self.lsm.scan(from, to, direction, visit)
    }

    /// Writes a sorted run. When this returns the rows are durable here and the memtables that held
    /// them may go.
    pub(crate) fn ingest<'a>(
        &self,
        rows: impl Iterator<Item = (Bytes, Option<Bytes>)>,
        keys: impl Iterator<Item = &'a Bytes>,
    ) -> Result<u64, LsmError> {
        let count = self.lsm.ingest(rows)?;
        self.cache.flushed(keys.map(|key| &key[..]));
        Ok(count)
    }
}
