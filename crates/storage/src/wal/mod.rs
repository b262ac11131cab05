//! The write-ahead log: one per node, for all its groups.
//!
//! A directory of *segments*, each a preallocated file that has been written in full before its
//! first record, so that `fdatasync` has no metadata to write. One [`Writer`] appends records of
//! all groups and makes them durable together ([`Writer::sync`]: group commit); any thread reads
//! entries back by (group, index) through a [`Log`]. Batches are written past the system's cache, in whole
//! blocks, where the file system lets us; they are hardly ever read again.
//!
//! ```text
//!  wal-…07.seg  closed   wal-…07.idx     \
//!  wal-…08.seg  closed   wal-…08.idx      } entries by (group, index), without a scan
//!  wal-…09.seg  current  index in memory /
//!  wal-…0a.seg  blank, made ahead of need by the housekeeper thread
//!  spare-….seg  truncated segments that wait to be used again
//! ```
//!
//! # What damage means here
//!
//! A record that fails its checksum is either the tail that a crash tore or a disk that lies. A
//! replica that takes the second for the first forgets what it accepted, and a majority that
//! forgets loses acknowledged writes. So the two are told apart:
//!
//! - Records are written in *batches*, one per sync, and each names the offset where its batch
//!   began. A batch is written only after the one before it was synced, so a valid record proves
//!   that everything in front of its batch was durable: an invalid record there is **damage**.
//!   Once nothing has come for a while a *mark* is written (not synced) behind the last batch, which
//!   proves the same of that one ([`Writer::mark`]).
//! - What is invalid at or behind the start of the last batch of the last segment, with no mark
//!   behind it, is a **torn tail**: the log ends there. Its sync never returned and nobody was told. (Unless
//!   the process died under load, before the mark, and the disk spoiled just this batch before the log was
//!   opened again.)
//! - Every segment header says where the segment before it ended: only the last can have a tail.
//!
//! Damage never ends the log and never hides what follows. An entry's identity (group, index,
//! ballot) has its own checksum, is repeated in the footer of its batch, and again in the `.idx`
//! file of its segment, so that damage names what it lost: such an entry is *faulty*
//! ([`GroupLog::faulty`]), neither there nor absent, until it is accepted again.
//!
//! Promises and configurations cannot be repaired by peers. Each is written twice, at least a disk
//! block apart, and every new segment starts with the state of all groups.
//!
//! A failed write or sync stops the node: after it the kernel may have dropped the pages and call
//! the next sync a success, so the writer refuses all further work ([`WalError::Stopped`]).
//!
//! Nothing here knows Paxos: groups, indexes and ballots are numbers; the newest ballot wins.

mod format;
mod housekeeper;
mod index;
mod reader;
mod recovery;
mod scan;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;

pub use reader::{Log, Read, Stats};
pub use recovery::{open, open_on};
pub use writer::Writer;

/// The longest value of one record, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 30;
/// The smallest segment, in bytes.
pub const SEGMENT_BYTES_MIN: u32 = 32 << 10;
/// Where in a segment its records begin, in bytes.
pub(crate) const FIRST_RECORD_AT: usize = format::RECORDS_START as usize;
/// The most entries that one [`Log::read`] returns.
pub const READ_ENTRIES_MAX: usize = 4096;

/// Something of each group. The groups are the node's own numbers; walked through, they come in an
/// order that is the same in every run.
pub(crate) type ByGroup<T> = HashMap<u64, T, foldhash::fast::FixedState>;

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Size of a segment, in bytes. A record (or the state of many groups) that does not fit gets
    /// a larger segment of its own.
    pub segment_bytes: u32,
    /// How many truncated segments are kept to be used again; more are deleted.
    pub recycle_segments: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_bytes: 64 << 20, recycle_segments: 4 }
    }
}

/// What can be appended.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// The replica of `group` accepted a value at `index`. Also raises the group's promise.
    Accept {
        /// The group.
        group: u64,
        /// Position in the group's log.
        index: u64,
        /// The ballot it was accepted at.
        ballot: u64,
        /// The value; `None` is a no-op.
        value: Option<&'a [u8]>,
    },
    /// The replica of `group` promised `ballot`.
    Promise {
        /// The group.
        group: u64,
        /// The ballot.
        ballot: u64,
    },
    /// All indexes up to `index` are chosen. A hint: losing it costs a question to the leader.
    Chosen {
        /// The group.
        group: u64,
        /// The highest chosen index.
        index: u64,
    },
    /// Entries up to `index` are needed no more.
    Truncate {
        /// The group.
        group: u64,
        /// The highest index that may go.
        index: u64,
    },
    /// The members of `group` are these, since `index`: of several the highest index counts.
    Config {
        /// The group.
        group: u64,
        /// Where the configuration stands in the group's log.
        index: u64,
        /// Its bytes.
        value: &'a [u8],
    },
    /// The replica of `group` left this node: nothing appended before counts any more.
    Forget {
        /// The group.
        group: u64,
    },
}

/// The value of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// Fills a gap.
    Noop,
    /// The bytes that were appended.
    Data(Bytes),
}

/// An accepted entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Position in the group's log.
    pub index: u64,
    /// The ballot it was accepted at.
    pub ballot: u64,
    /// Its value.
    pub value: Value,
}

/// What a log holds of one group.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct GroupLog {
    /// The highest ballot promised or accepted.
    pub promise: u64,
    /// All indexes up to here are chosen (a lower bound).
    pub chosen: u64,
    /// Entries up to here were truncated.
    pub truncated: u64,
    /// The entries above what the group had applied and truncated, in ascending order of their
    /// indexes, for each index the one with the highest ballot.
    pub entries: Vec<Entry>,
    /// Entries (index, ballot) that were accepted and are damaged, in ascending order. An index is
    /// never in `entries` too: an older ballot's value must not stand in for the lost one.
    pub faulty: Vec<(u64, u64)>,
    /// The newest configuration that can be read: its index and bytes.
    pub config: Option<(u64, Bytes)>,
    /// A newer configuration was there and both its copies are damaged.
    pub config_lost: bool,
}

/// What [`open`] found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Recovered {
    /// All groups with state in the log.
    pub groups: ByGroup<GroupLog>,
    /// Everything that failed its checksum and is not the torn tail.
    pub damage: Vec<Damage>,
    /// Bytes of the torn tail that were dropped, if there was one.
    pub torn_bytes: u64,
}

impl Recovered {
    /// Whether damage may have hidden entries of groups that it does not name: then an index that
    /// is absent is not known to be absent, in any group.
    pub fn is_unnamed(&self) -> bool {
        self.damage.iter().any(|damage| damage.unnamed)
    }
}

/// A stretch of a segment that failed its checksums.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The segment's number.
    pub segment: u64,
    /// Offset in the segment.
    pub offset: u32,
    /// Length in bytes; 0 if the whole segment is missing.
    pub length: u32,
    /// The accepted entries it lost, as (group, index, ballot). Empty if it hit only what is
    /// written elsewhere too.
    pub lost: Vec<(u64, u64, u64)>,
    /// Whether it may have lost more than it could name.
    pub unnamed: bool,
}

/// Why the log cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The disk refused. After an error of the writer, stop the node.
    #[error("log {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An earlier write failed; what the disk holds is not known.
    #[error("the log stopped after a failed write")]
    Stopped,
    /// The value does not fit into a record.
    #[error("a value of {0} bytes is more than a log record holds")]
    TooLarge(usize),
    /// Another process has the log open.
    #[error("the log directory {0} is in use by another process")]
    InUse(PathBuf),
    /// The options contradict each other.
    #[error("log options: {0}")]
    BadOptions(&'static str),
}

impl WalError {
    /// Whether there was no file descriptor for it. Nothing else is wrong then.
    pub fn is_exhausted(&self) -> bool {
        matches!(self, WalError::Io { source, .. } if crate::is_exhausted(source))
    }
}

/// Turns an I/O error into a [`WalError`] that says what was tried.
fn io_error(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> WalError {
    let path = path.to_path_buf();
    move |source| WalError::Io { action, path, source }
}
