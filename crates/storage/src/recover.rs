//! What a node's folder holds, and whether it may be used.
//!
//! ```text
//! REPLICAS       which replicas there are (`catalogue`)
//! log/           what each accepted and promised
//! lsm/           the rows of those that have any
//! incoming/      snapshots on their way (`snapshot`)
//! *.damaged/     put aside by [`abandon`], for a person to look at
//! ```
//!
//! Damage that the log can name is handed to consensus, which has peers repair it. Where it is not
//! known what was lost (a promise, a whole segment, the rows), the replicas of this node must not
//! vote as if nothing had been: [`OpenError::Damaged`]. Then the node may be abandoned, if the others
//! can do without: its replicas are crossed out, and those who lead replace each by a new one, under
//! a new identity, which fetches a snapshot.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use commands::rows;
use paxos::MemberKind;
use wire::ids::{NodeId, PartitionId, TableId};
use wire::placement::{Placement, PlacementRange};

use crate::agenda::Agenda;
use crate::catalogue::{Catalogue, CatalogueError, Held, Holding};
use crate::core::{Core, Start};
use crate::identity::{first, log_group};
use crate::lsm::{self, DeadSet, Lsm, LsmError};
use crate::machine::Disk;
use crate::meta::{self, Applied};
use crate::node::NodeOptions;
use crate::partition::{Clock, Partition};
use crate::pulse::Pulse;
use crate::requests::Requests;
use crate::scripting::library_of;
use crate::wal;

/// A partition that a node is to hold a storage replica of from the beginning.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// The partition.
    pub partition: PartitionId,
    /// Its range.
    pub range: PlacementRange,
    /// The nodes that have a replica at first, ascending.
    pub members: Vec<NodeId>,
}

/// Why a node could not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder could not be used.
    #[error("data folder {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The list of replicas could not be read or written.
    #[error("list of replicas: {0}")]
    Catalogue(CatalogueError),
    /// The log could not be opened.
    #[error("open log: {0}")]
    Log(#[from] wal::WalError),
    /// The LSM could not be opened or read.
    #[error("open LSM: {0}")]
    Lsm(LsmError),
    /// It is not known what the node had promised to keep, and lost; see [`abandon`].
    #[error("damaged: {0}")]
    Damaged(String),
}

impl From<LsmError> for OpenError {
    fn from(error: LsmError) -> OpenError {
        match error {
            LsmError::Damaged(what) => OpenError::Damaged(format!("rows: {what}")),
            other => OpenError::Lsm(other),
        }
    }
}

impl From<CatalogueError> for OpenError {
    fn from(error: CatalogueError) -> OpenError {
        match error {
            CatalogueError::Damaged(_) => OpenError::Damaged(error.to_string()),
            other => OpenError::Catalogue(other),
        }
    }
}

/// What [`open`] found.
pub(crate) struct Opened {
    pub(crate) catalogue: Catalogue,
    pub(crate) lsm: Lsm,
    pub(crate) dead: Arc<DeadSet>,
    pub(crate) writer: wal::Writer,
    pub(crate) log: wal::Log,
    pub(crate) clock: Clock,
    pub(crate) incarnation: u32,
    pub(crate) pulse: Pulse,
    pub(crate) agenda: Arc<Agenda>,
    pub(crate) replicas: Vec<Partition>,
    /// Groups in the log that no replica has any more.
    pub(crate) forgotten: Vec<u64>,
    /// Entries that peers are to repair.
    pub(crate) damaged: u64,
}

/// Opens a node's folder. Partitions among the assignments that the folder never held are begun.
///
/// What is found by its name is acted upon from here on, but a process that died between a rename and
/// the sync of its folder left a name that the next loss of power takes back. So whoever reads a folder
/// syncs it first: the catalogue this one, the log and the rows theirs.
pub(crate) fn open(
    id: NodeId,
    dir: &Path,
    options: &NodeOptions,
    assignments: &[Assignment],
) -> Result<Opened, OpenError> {
    let machine = &options.machine;
    let made = machine.disk.create_folders(dir);
    made.map_err(|source| OpenError::Folder { path: dir.to_owned(), source })?;
    let mut catalogue = Catalogue::open(&machine.disk, dir)?;
    begin(id, &mut catalogue, assignments)?;
    let dead = Arc::new(DeadSet::default());
    let header_version = commands::types::header::version_of;
    let folder = dir.join("lsm");
    let lsm = Lsm::open_on(machine, &folder, options.lsm, Arc::clone(&dead), header_version)?;
    let held = held(&catalogue);
    let mut states = BTreeMap::new();
    for replica in held.iter().filter(|replica| replica.kind == MemberKind::Storage) {
        let state = recover_rows(&lsm, &dead, replica)?;
        if replica.range.table == TableId::SYSTEM {
            options.scripting.recovered(state.applied.index, recover_libraries(&lsm)?);
        }
        states.insert(replica.log_group(), state);
    }
    let through = |group: u64| states.get(&group).map_or(0, |state: &Rows| state.applied.index);
    let (writer, log, mut recovered) =
        wal::open_on(machine, &dir.join("log"), options.log, &through)?;
    let synced = sync_names(&machine.disk, dir);
    synced.map_err(|source| OpenError::Folder { path: dir.to_owned(), source })?;
    let damaged = check_damage(id, &recovered)?;
    let clock = Clock::new(machine.time.clone());
    // Differs between any two starts of nodes.
    let incarnation = if mutant!(BatchIdsReturn) { 1 } else { machine.chance.draw() as u32 };
    let life = paxos::Life(machine.chance.draw());
    let pulse = Pulse::new(id, life, &options.paxos, clock.monotonic());
    let others = assignments.iter().flat_map(|assignment| assignment.members.iter());
    for node in options.nodes.iter().map(|(node, _)| node).chain(others) {
        pulse.add_peer(*node, clock.monotonic());
    }
    let agenda = Arc::new(Agenda::default());
    let mut replicas = Vec::new();
    for replica in held {
        let group = recovered.groups.remove(&replica.log_group()).unwrap_or_default();
        let rows = states.remove(&replica.log_group()).unwrap_or_default();
        let supports = pulse.supports();
        let clock = clock.clone();
        let maker =
            Maker { id, options, dead: &dead, supports, clock, agenda: &agenda, incarnation };
        replicas.push(maker.recover(replica, rows, group)?);
    }
    let forgotten = recovered.groups.into_keys().collect();
    let (dead, damaged) = (Arc::clone(&dead), damaged as u64);
    Ok(Opened {
        catalogue,
        lsm,
        dead,
        writer,
        log,
        clock,
        incarnation,
        pulse,
        agenda,
        replicas,
        forgotten,
        damaged,
    })
}

/// Makes the names of a node's folder and of those in it durable: they may be new.
fn sync_names(disk: &Disk, dir: &Path) -> std::io::Result<()> {
    disk.sync_folder(dir)?;
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => disk.sync_folder(parent),
        None => Ok(()),
    }
}

/// Writes down the replicas of partitions that this folder never held.
fn begin(
    id: NodeId,
    catalogue: &mut Catalogue,
    assignments: &[Assignment],
) -> Result<(), CatalogueError> {
    let new = |assignment: &&Assignment| {
        let is_held = catalogue.holdings().contains_key(&assignment.partition);
        assignment.members.contains(&id) && !is_held
    };
    let new: Vec<_> = assignments.iter().filter(new).collect();
    let held = |assignment: &Assignment| {
        let founders = assignment.members.iter().map(|node| first(*node)).collect();
        (assignment.partition, assignment.range, Held { identity: first(id), founders })
    };
    match new.is_empty() {
        true => Ok(()),
        false => catalogue.begin(new.into_iter().map(held)),
    }
}

/// A replica that is written down.
struct Replica {
    partition: PartitionId,
    range: PlacementRange,
    kind: MemberKind,
    held: Held,
}

impl Replica {
    fn log_group(&self) -> u64 {
        log_group(self.partition, self.held.identity)
    }
}

fn held(catalogue: &Catalogue) -> Vec<Replica> {
    let of = |(partition, holding): (&PartitionId, &Holding)| {
        let (partition, range) = (*partition, holding.range);
        let replica = |kind, held: &Option<Held>| {
            held.clone().map(|held| Replica { partition, range, kind, held })
        };
        let storage = replica(MemberKind::Storage, &holding.storage);
        storage.into_iter().chain(replica(MemberKind::Log, &holding.log))
    };
    catalogue.holdings().iter().flat_map(of).collect()
}

/// What the LSM holds of a partition.
#[derive(Default)]
struct Rows {
    applied: Applied,
    requests: Requests,
    /// What a snapshot came with.
    config: Option<paxos::Config>,
}

fn recover_rows(lsm: &Lsm, dead: &DeadSet, replica: &Replica) -> Result<Rows, OpenError> {
    let (partition, range) = (replica.partition, replica.range);
    let Some(body) = lsm.get(&meta::applied_key(partition))? else {
        return Ok(Rows::default());
    };
    let malformed = |what| OpenError::Damaged(format!("partition {partition}: its {what} row"));
    let applied = meta::decode_applied(body).ok_or(malformed("applied"))?;
    let config = match lsm.get(&meta::members_key(partition))? {
        Some(body) => Some(meta::decode_members(body).ok_or(malformed("members"))?),
        None => None,
    };
    let requests = match lsm.get(&meta::requests_key(partition))? {
        Some(body) => Requests::decode(&body).ok_or(malformed("requests"))?,
        None => Requests::unknown_through(applied.index),
    };
    if let Some(fence) = applied.flushed_through {
        dead.set_fence(range, fence);
    }
    let (from, to) = meta::dead_range(partition);
    let mut generations = Vec::new();
    lsm.scan(&from, &to, commands::Direction::Forward, &mut |row, _| {
        generations.extend(meta::decode_dead(&row));
        std::ops::ControlFlow::Continue(())
    })?;
    generations
        .retain(|generation| applied.flushed_through.is_none_or(|fence| *generation > fence));
    dead.add_generations(range, generations);
    Ok(Rows { applied, requests, config })
}

/// The libraries of functions that the rows hold.
fn recover_libraries(lsm: &Lsm) -> Result<BTreeMap<Bytes, Bytes>, OpenError> {
    let from = rows::header_key_at(TableId::SYSTEM, 0);
    let to = rows::headers_end(TableId::SYSTEM, Placement::MAX);
    let mut libraries = BTreeMap::new();
    lsm.scan(&from, &to, commands::Direction::Forward, &mut |row, value| {
        libraries.extend(library_of(&row, &value));
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(libraries)
}

/// How many entries of the log are damaged and named.
///
/// *Errors*: something is lost that cannot be named.
fn check_damage(id: NodeId, recovered: &wal::Recovered) -> Result<usize, OpenError> {
    for damage in &recovered.damage {
        tracing::error!(node = id.0, ?damage, "log damaged");
    }
    if recovered.is_unnamed() {
        return Err(OpenError::Damaged("the log lost what it cannot name".into()));
    }
    let faulty = recovered.groups.values().map(|group| group.faulty.len()).sum();
    if faulty > 0 {
        tracing::error!(node = id.0, entries = faulty, "damaged entries: peers repair them");
    }
    Ok(faulty)
}

/// Makes replicas of a node.
pub(crate) struct Maker<'a> {
    pub(crate) id: NodeId,
    pub(crate) options: &'a NodeOptions,
    pub(crate) dead: &'a Arc<DeadSet>,
    pub(crate) supports: paxos::Supports,
    pub(crate) clock: Clock,
    pub(crate) agenda: &'a Arc<Agenda>,
    pub(crate) incarnation: u32,
}

impl Maker<'_> {
    /// A replica that holds nothing yet.
    pub(crate) fn new_replica(
        &self,
        (partition, range): (PartitionId, PlacementRange),
        kind: MemberKind,
        held: Held,
    ) -> Partition {
        let replica = Replica { partition, range, kind, held };
        let (rows, group) = (Rows::default(), wal::GroupLog::default());
        self.recover(replica, rows, group).expect("nothing cannot be damaged")
    }

    fn recover(
        &self,
        replica: Replica,
        rows: Rows,
        group: wal::GroupLog,
    ) -> Result<Partition, OpenError> {
        let Replica { partition, range, kind, held } = replica;
        let lost = |what| OpenError::Damaged(format!("partition {partition}: {what}"));
        let mut applied = rows.applied;
        if kind == MemberKind::Log {
            applied.index = group.truncated;
        } else if group.truncated > applied.index {
            return Err(lost("the rows are gone that its log was cut behind"));
        }
        if group.config_lost {
            return Err(lost("its log lost who the members are"));
        }
        let recovered = recovered(group, &applied, rows.config).ok_or(lost("its members"))?;
        // Each replica of a group, and each group of a node, waits another time before it campaigns.
        let seed = partition.0 << 32 | u64::from(held.identity.0);
        let core = Core::new(Start {
            partition,
            range,
            node: self.id,
            kind,
            replica: paxos::Replica::new(
                held.identity,
                &held.founders,
                self.options.paxos.clone(),
                recovered,
                self.supports.clone(),
                self.clock.monotonic(),
                seed,
            ),
            applied,
            requests: rows.requests,
            dedup: self.options.dedup,
            incarnation: self.incarnation,
            dead: Arc::clone(self.dead),
            budget: Arc::clone(&self.options.rows),
            scripting: Arc::clone(&self.options.scripting),
            shapes: Arc::clone(&self.options.shapes),
            listener: self.options.listener.0.clone(),
        });
        let who = (held.identity, kind);
        let core = (core, Arc::clone(self.agenda));
        Ok(Partition::new((partition, range), who, held.founders, core))
    }
}

/// What consensus starts from; `None` if the log's configuration is none.
fn recovered(
    group: wal::GroupLog,
    applied: &Applied,
    installed: Option<paxos::Config>,
) -> Option<paxos::Recovered> {
    let logged = match group.config {
        Some((index, bytes)) => Some(paxos::Config::decode(&bytes, paxos::Index(index))?),
        None => None,
    };
    Some(paxos::Recovered {
        promised: paxos::Ballot::from_number(group.promise),
        chosen: paxos::Index(group.chosen.max(applied.index)),
        applied: paxos::Index(applied.index),
        truncated: paxos::Index(group.truncated),
        entries: group.entries.into_iter().map(to_entry).collect(),
        faulty: group.faulty.into_iter().map(to_faulty).collect(),
        config: logged.into_iter().chain(installed).max_by_key(|config| config.index),
    })
}

/// An entry whose bytes are damaged: its index and ballot.
fn to_faulty((index, ballot): (u64, u64)) -> (paxos::Index, paxos::Ballot) {
    (paxos::Index(index), paxos::Ballot::from_number(ballot))
}

/// A log entry as consensus knows it.
pub(crate) fn to_entry(entry: wal::Entry) -> paxos::Entry {
    paxos::Entry {
        index: paxos::Index(entry.index),
        ballot: paxos::Ballot::from_number(entry.ballot),
        value: match entry.value {
            wal::Value::Noop => paxos::Value::Noop,
            wal::Value::Data(bytes) => paxos::Value::from_log(bytes),
        },
    }
}

/// Gives up what a stopped node holds, because it is damaged: crosses out all its replicas and puts
/// log and rows aside. Only if the other members of its groups can do without them, and will take in
/// new ones. `assignments` are those it was opened with.
///
/// *Errors*: the folder cannot be changed. Called again it goes on.
pub fn abandon(id: NodeId, dir: &Path, assignments: &[Assignment]) -> Result<(), OpenError> {
    abandon_on(&Disk::System, id, dir, assignments)
}

/// As [`abandon`], on another disk.
pub fn abandon_on(
    disk: &Disk,
    id: NodeId,
    dir: &Path,
    assignments: &[Assignment],
) -> Result<(), OpenError> {
    let mut catalogue = match Catalogue::open(disk, dir) {
        Ok(catalogue) => catalogue,
        Err(CatalogueError::Damaged(path)) => {
            disk.remove_file(&path).map_err(|source| OpenError::Folder { path, source })?;
            Catalogue::open(disk, dir)?
        }
        Err(error) => return Err(error.into()),
    };
    // A partition that is not written down would be begun anew, under an identity that has voted.
    begin(id, &mut catalogue, assignments)?;
    catalogue.retire_all()?;
    for name in ["log", "lsm", "incoming"] {
        let (from, to) = (dir.join(name), dir.join(format!("{name}.damaged")));
        if !disk.exists(&from) {
            continue;
        }
        let aside = || {
            if disk.exists(&to) {
                disk.remove_folder(&to)?;
            }
            disk.rename(&from, &to)
        };
        aside().map_err(|source| OpenError::Folder { path: from.clone(), source })?;
    }
    // Else a new log could be taken for the old one's folder after a loss of power.
    let synced = disk.sync_folder(dir);
    synced.map_err(|source| OpenError::Folder { path: dir.to_owned(), source })?;
    tracing::warn!(node = id.0, "abandoned what the node held; others will give it replicas anew");
    Ok(())
}

/// Changes a byte of a node's log or of one of its tables, as a failing disk would (`ADMIN FAULT
/// CORRUPT`): one that is in use. `at` chooses which. Tells the file and the offset.
///
/// *Errors*: there is no file, or it cannot be written.
pub fn damage_a_file(dir: &Path, table: bool, at: u64) -> std::io::Result<(PathBuf, u64)> {
    use std::os::unix::fs::FileExt;
    let none = || std::io::Error::other("there is nothing to damage yet");
    let (folder, is_one): (PathBuf, fn(&str) -> bool) = match table {
        true => (lsm::tables_folder(&dir.join("lsm")).ok_or_else(none)?, |_| true),
        false => (dir.join("log"), |name| name.starts_with("wal-") && name.ends_with(".seg")),
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(is_one) {
            files.push(path);
        }
    }
    files.sort();
    let count = files.len().max(1);
    files.rotate_left(at as usize % count);
    for path in files {
        let bytes = std::fs::read(&path)?;
        // Of a log: where records are, which the header's two copies precede. A segment made ahead
        // of need has none.
        let first = if table { 0 } else { wal::FIRST_RECORD_AT };
        let used = || (first..bytes.len()).filter(|at| bytes[*at] != 0);
        if let Some(offset) = used().nth(at as usize % used().count().max(1)) {
            let file = std::fs::OpenOptions::new().write(true).open(&path)?;
            file.write_all_at(&[bytes[offset] ^ 0x41], offset as u64)?;
            file.sync_all()?;
            return Ok((path, offset as u64));
        }
    }
    Err(none())
}
