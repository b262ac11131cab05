//! Rows in one file, read into memory as a whole: for a simulation, whose nodes hold few rows and
//! whose disks lose, tear and change what no table of fjall's could be made to.
//!
//! ```text
//! file = "evenkrow" count:u32 (key_length:u32 value_length:u32 key value)* crc32c:u32
//! ```
//!
//! Numbers are big-endian, values sealed. A run makes another file, which is synced and then takes
//! the name of the one before.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use commands::Direction;
use parking_lot::RwLock;

use super::{LsmError, Visit};
use crate::machine::{Disk, Open};
use crate::row::verify_row;

const MAGIC: &[u8; 8] = b"evenkrow";
const NAME: &str = "rows";

/// Rows by their keys, sealed.
pub(super) type Rows = BTreeMap<Bytes, Bytes>;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Plain {
    disk: Disk,
    folder: PathBuf,
    rows: RwLock<Arc<Rows>>,
}

impl Plain {
    pub(super) fn open(disk: &Disk, folder: &Path) -> Result<Plain, LsmError> {
        let io =
            |action| move |error: std::io::Error| LsmError::Io { action, what: error.to_string() };
        disk.create_folders(folder).map_err(io("make the folder of rows"))?;
        // A rename that was not synced when the process died could still be undone.
        disk.sync_folder(folder).map_err(io("sync the folder of rows"))?;
        let path = folder.join(NAME);
        let rows = match disk.exists(&path) {
            false => Rows::new(),
            true => {
                let bytes = disk.read(&path).map_err(io("read rows"))?;
                let damaged = || LsmError::Damaged("the file of rows".to_owned());
                decode(&bytes).ok_or_else(damaged)?
            }
        };
        let rows = RwLock::new(Arc::new(rows));
        Ok(Plain { disk: disk.clone(), folder: folder.to_owned(), rows })
    }

    /// The rows of this moment.
    pub(super) fn now(&self) -> Arc<Rows> {
        Arc::clone(&self.rows.read())
    }

    /// Writes a run. Durable, and visible, when it returns.
    pub(super) fn ingest(
        &self,
        run: impl Iterator<Item = (Bytes, Option<Bytes>)>,
    ) -> Result<(), LsmError> {
        let mut rows = Rows::clone(&self.now());
        for (key, value) in run {
            match value {
                Some(value) => drop(rows.insert(key, value)),
                None => drop(rows.remove(&key)),
            }
        }
        self.write(rows)
    }

    /// Puts these rows in the place of all.
    pub(super) fn write(&self, rows: Rows) -> Result<(), LsmError> {
        let (path, new) = (self.folder.join(NAME), self.folder.join("rows.new"));
        let written = self.disk.open(&new, Open::Truncate).and_then(|file| {
            file.write_all_at(&encode(&rows), 0)?;
            if !mutant!(RowsUnsynced) {
                file.sync_all()?;
            }
            self.disk.rename(&new, &path)?;
            self.disk.sync_folder(&self.folder)
        });
        let io =
            |error: std::io::Error| LsmError::Io { action: "write rows", what: error.to_string() };
        written.map_err(io)?;
        *self.rows.write() = Arc::new(rows);
        Ok(())
    }

    /// Changes a bit of a row in memory, as if it had been read so; false if there is none.
    pub(super) fn damage(&self, at: u64) -> bool {
        let mut rows = Rows::clone(&self.now());
        let count = rows.len() as u64;
        let Some((key, sealed)) = rows.iter().nth((at % count.max(1)) as usize) else {
            return false;
        };
        let (key, mut sealed) = (key.clone(), sealed.to_vec());
        let bit = (at / count) as usize % (sealed.len() * 8);
        sealed[bit / 8] ^= 1 << (bit % 8);
        rows.insert(key, sealed.into());
        *self.rows.write() = Arc::new(rows);
        true
    }
}

/// Visits rows in `[from, to)`, values opened or verified.
pub(super) fn walk(
    rows: &Rows,
    (from, to): (&[u8], &[u8]),
    direction: Direction,
    open: bool,
    visit: &mut Visit<'_>,
) -> Result<(), LsmError> {
    let bounds = (Bound::Included(from), Bound::Excluded(to));
    let mut range = rows.range::<[u8], _>(bounds);
    let mut next = || match direction {
        Direction::Forward => range.next(),
        Direction::Backward => range.next_back(),
    };
    while let Some((key, sealed)) = next() {
        let body = verify_row(key, sealed)?.len();
        let value = if open { sealed.slice(..body) } else { sealed.clone() };
        if visit(key.clone(), value) == ControlFlow::Break(()) {
            break;
        }
    }
    Ok(())
}

fn encode(rows: &Rows) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_slice(MAGIC);
    out.put_u32(rows.len() as u32);
    for (key, value) in rows {
        out.put_u32(key.len() as u32);
        out.put_u32(value.len() as u32);
        out.put_slice(key);
        out.put_slice(value);
    }
    let crc = crc32c::crc32c(&out);
    out.put_u32(crc);
    out
}

fn decode(bytes: &[u8]) -> Option<Rows> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    let mut rest = body.strip_prefix(MAGIC)?;
    if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
        return None;
    }
    let mut rows = Rows::new();
    for _ in 0..rest.try_get_u32().ok()? {
        let (key, value) = (rest.try_get_u32().ok()?, rest.try_get_u32().ok()?);
        let key = Bytes::copy_from_slice(rest.split_off(..key as usize)?);
        rows.insert(key, Bytes::copy_from_slice(rest.split_off(..value as usize)?));
    }
    rest.is_empty().then_some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::seal_row;

    #[test]
    fn what_is_written_is_read_and_no_byte_may_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let plain = Plain::open(&Disk::System, folder.path()).expect("empty");
        let row = |key: &'static str| {
            let key = Bytes::from_static(key.as_bytes());
            let sealed = seal_row(&key, b"value");
            (key, Some(sealed))
        };
        plain.ingest([row("a"), row("b")].into_iter()).expect("written");
        plain.ingest([(Bytes::from_static(b"a"), None), row("c")].into_iter()).expect("written");
        let again = Plain::open(&Disk::System, folder.path()).expect("the same");
        assert_eq!(again.now(), plain.now());
        let keys: Vec<_> = again.now().keys().cloned().collect();
        assert_eq!(keys, ["b", "c"]);

        let path = folder.path().join(NAME);
        let good = std::fs::read(&path).expect("a file");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, bad).expect("written");
            let opened = Plain::open(&Disk::System, folder.path());
            assert!(matches!(opened, Err(LsmError::Damaged(_))), "byte {at}");
        }
    }

    #[test]
    fn a_damaged_row_is_never_handed_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let plain = Plain::open(&Disk::System, folder.path()).expect("empty");
        assert!(!plain.damage(7));
        let key = Bytes::from_static(b"key");
        let sealed = seal_row(&key, b"value");
        plain.ingest([(key, Some(sealed))].into_iter()).expect("written");
        for at in 0..72 {
            assert!(plain.damage(at));
            let walked = walk(&plain.now(), (b"a", b"z"), Direction::Forward, true, &mut |_, _| {
                panic!("nothing is sound")
            });
            assert!(matches!(walked, Err(LsmError::Damaged(_))), "bit {at}");
            assert!(plain.damage(at), "and back");
        }
    }
}
