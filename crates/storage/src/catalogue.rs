//! The replicas that a node has and those it had: the file `REPLICAS` of its folder.
//!
//! ```text
//! file    = "evenkrep" version:u32 count:u32 entry* crc32c:u32         numbers are big-endian
//! entry   = partition:u64 table:u32 first:u64 last:u64 retired:u32 held storage held log
//! held    = identity:u32 (0: none) count:u8 member:u32*
//! member  = an identity that the group began with
//! ```
//!
//! It is written whole, under another name, synced and renamed: small, and changed only when a replica
//! comes or goes. A replica is written down before it votes and crossed out before its log is dropped;
//! `retired` is the highest identity that was crossed out, and none up to it is taken in again.
//!
//! A node without the file is a new one, or one that lost its folder: it holds nothing and votes for
//! nothing until it is asked to hold a replica under a new identity.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut};
use wire::ids::{PartitionId, TableId};
use wire::placement::{Placement, PlacementRange};

use crate::machine::{Disk, Open};

const MAGIC: &[u8; 8] = b"evenkrep";
const VERSION: u32 = 1;
const NAME: &str = "REPLICAS";

/// A replica as it is written down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) identity: paxos::NodeId,
    /// The members that the group began with.
    pub(crate) founders: Vec<paxos::NodeId>,
}

/// What a node has of a partition: at most one replica of each kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Holding {
    pub(crate) range: PlacementRange,
    pub(crate) retired: u32,
    pub(crate) storage: Option<Held>,
    pub(crate) log: Option<Held>,
}

impl Holding {
    /// Nothing yet.
    pub(crate) fn new(range: PlacementRange) -> Holding {
        Holding { range, retired: 0, storage: None, log: None }
    }

    pub(crate) fn held(&mut self, kind: paxos::MemberKind) -> &mut Option<Held> {
        match kind {
            paxos::MemberKind::Storage => &mut self.storage,
            paxos::MemberKind::Log => &mut self.log,
        }
    }

    fn retire(&mut self, kind: paxos::MemberKind) {
        if let Some(held) = self.held(kind).take() {
            self.retired = self.retired.max(held.identity.0);
        }
    }
}

/// Why the catalogue could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The system refused.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what was written.
    #[error("{0} is damaged")]
    Damaged(PathBuf),
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Catalogue {
    disk: Disk,
    folder: PathBuf,
    holdings: BTreeMap<PartitionId, Holding>,
}

impl Catalogue {
    /// Reads the catalogue of a node's folder; an empty one if there is none.
    pub(crate) fn open(disk: &Disk, folder: &Path) -> Result<Catalogue, CatalogueError> {
        let path = folder.join(NAME);
        let (disk, folder) = (disk.clone(), folder.to_owned());
        // A rename that was not synced when the process died could still be undone.
        if let Err(source) = disk.sync_folder(&folder) {
            return Err(CatalogueError::Io { action: "sync", path: folder, source });
        }
        let bytes = match disk.read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Catalogue { disk, folder, holdings: BTreeMap::new() });
            }
            Err(source) => return Err(CatalogueError::Io { action: "read", path, source }),
        };
        let holdings = decode(&bytes).ok_or(CatalogueError::Damaged(path))?;
        Ok(Catalogue { disk, folder, holdings })
    }

    pub(crate) fn holdings(&self) -> &BTreeMap<PartitionId, Holding> {
        &self.holdings
    }

    /// Changes what is held of a partition. Durable when it returns.
    pub(crate) fn change(
        &mut self,
        partition: PartitionId,
        range: PlacementRange,
        change: impl FnOnce(&mut Holding),
    ) -> Result<(), CatalogueError> {
        change(self.holdings.entry(partition).or_insert_with(|| Holding::new(range)));
        self.write()
    }

    /// Writes down storage replicas of partitions of which nothing is held yet: all at once, as a node may
    /// begin with thousands. Durable when it returns.
    pub(crate) fn begin(
        &mut self,
        replicas: impl Iterator<Item = (PartitionId, PlacementRange, Held)>,
    ) -> Result<(), CatalogueError> {
        for (partition, range, held) in replicas {
            let holding = Holding { storage: Some(held), ..Holding::new(range) };
            self.holdings.insert(partition, holding);
        }
        self.write()
    }

    /// Crosses out a replica. Durable when it returns.
    pub(crate) fn retire(
        &mut self,
        partition: PartitionId,
        kind: paxos::MemberKind,
    ) -> Result<(), CatalogueError> {
        if let Some(holding) = self.holdings.get_mut(&partition) {
            holding.retire(kind);
        }
        self.write()
    }

    /// Crosses out all replicas. Durable when it returns.
    pub(crate) fn retire_all(&mut self) -> Result<(), CatalogueError> {
        for holding in self.holdings.values_mut() {
            holding.retire(paxos::MemberKind::Storage);
            holding.retire(paxos::MemberKind::Log);
        }
        self.write()
    }

    /// Writes the file. Durable when it returns.
    pub(crate) fn write(&self) -> Result<(), CatalogueError> {
        let (path, new) = (self.folder.join(NAME), self.folder.join("REPLICAS.new"));
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| CatalogueError::Io { action, path, source }
        };
        let file = self.disk.open(&new, Open::Truncate).map_err(io("create", &new))?;
        file.write_all_at(&encode(&self.holdings), 0).map_err(io("write", &new))?;
        file.sync_all().map_err(io("sync", &new))?;
        self.disk.rename(&new, &path).map_err(io("rename", &new))?;
        self.disk.sync_folder(&self.folder).map_err(io("sync", &self.folder))
    }
}

fn encode(holdings: &BTreeMap<PartitionId, Holding>) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_slice(MAGIC);
    out.put_u32(VERSION);
    out.put_u32(holdings.len() as u32);
    for (partition, holding) in holdings {
        out.put_u64(partition.0);
        out.put_u32(holding.range.table.0);
        out.put_u64(holding.range.first.get());
        out.put_u64(holding.range.last.get());
        out.put_u32(holding.retired);
        for held in [&holding.storage, &holding.log] {
            out.put_u32(held.as_ref().map_or(0, |held| held.identity.0));
            let founders = held.as_ref().map_or(&[][..], |held| &held.founders);
            out.put_u8(founders.len() as u8);
            founders.iter().for_each(|founder| out.put_u32(founder.0));
        }
    }
    let crc = crc32c::crc32c(&out);
    out.put_u32(crc);
    out
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<PartitionId, Holding>> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    if rest.try_get_u32().ok()? != VERSION {
        return None;
    }
    let count = rest.try_get_u32().ok()?;
    let mut holdings = BTreeMap::new();
    for _ in 0..count {
        let partition = PartitionId(rest.try_get_u64().ok()?);
        let table = TableId(rest.try_get_u32().ok()?);
        let first = Placement::new(rest.try_get_u64().ok()?)?;
        let last = Placement::new(rest.try_get_u64().ok()?)?;
        let mut holding = Holding::new(PlacementRange { table, first, last });
        holding.retired = rest.try_get_u32().ok()?;
        holding.storage = take_held(&mut rest)?;
        holding.log = take_held(&mut rest)?;
        holdings.insert(partition, holding);
    }
    rest.is_empty().then_some(holdings)
}

/// `None`: malformed; `Some(None)`: no replica.
fn take_held(rest: &mut &[u8]) -> Option<Option<Held>> {
    let identity = paxos::NodeId(rest.try_get_u32().ok()?);
    let count = rest.try_get_u8().ok()?;
    let founder = |rest: &mut &[u8]| rest.try_get_u32().ok().map(paxos::NodeId);
    let founders = (0..count).map(|_| founder(rest)).collect::<Option<Vec<_>>>()?;
    Some((identity.0 != 0).then_some(Held { identity, founders }))
}

#[cfg(test)]
mod tests {
    use paxos::MemberKind;

    use super::*;

    #[test]
    fn what_is_held_is_read_back_and_no_byte_may_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut catalogue = Catalogue::open(&Disk::System, folder.path()).expect("an empty one");
        let range = PlacementRange::whole(TableId(3));
        let held = |identity| {
            let founders = vec![paxos::NodeId(1), paxos::NodeId(2)];
            Some(Held { identity: paxos::NodeId(identity), founders })
        };
        let (one, two) = (PartitionId(1), PartitionId(2));
        catalogue.change(one, range, |h| h.storage = held(1)).expect("written");
        catalogue.change(two, range, |h| h.storage = held(1025)).expect("written");
        catalogue.change(two, range, |h| h.log = held(2049)).expect("written");
        catalogue.retire(two, MemberKind::Storage).expect("written");
        let again = Catalogue::open(&Disk::System, folder.path()).expect("the same");
        assert_eq!(again.holdings(), catalogue.holdings());
        let holding = &again.holdings()[&two];
        assert_eq!((holding.retired, &holding.storage), (1025, &None));
        assert_eq!(holding.log, held(2049));
        catalogue.retire_all().expect("written");
        assert_eq!(catalogue.holdings()[&two].retired, 2049);

        let path = folder.path().join(NAME);
        let good = std::fs::read(&path).expect("a file");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            std::fs::write(&path, bad).expect("written");
            let opened = Catalogue::open(&Disk::System, folder.path());
            assert!(matches!(opened, Err(CatalogueError::Damaged(_))), "byte {at}");
        }
    }
}
