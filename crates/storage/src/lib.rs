//! Partition replicas on a node: a Paxos group each, one log and one LSM for all.
//!
//! ```text
//! node      opens the folder, recovers, starts the threads; evaluates calls
//!  driver   what passes between the threads; frames in and out
//!  logs     log threads (group commit)
//!  clock    clock thread; `agenda` says which replicas it has to look at
//!  pulse    heartbeats between nodes, on which the leases of all partitions rest
//!  core     one replica's state: consensus, rows in memory, open batch, gates; no I/O, no clock
//!   view    what commands see: memory over fjall
//!   cold    rows that are not in memory, read without a partition's lock
//!   resident   a leader's rows in memory, memtable and row cache in one
//!   backlog    every replica's batches that fjall does not hold yet
//!   batch   the log's unit: effects as bytes
//!   requests   what a partition answered of late, for requests that are made again
//! transaction, script, functions   several commands as one; Lua; FUNCTION
//! slow      scripts that take longer than they may hold up a partition
//! scripting, shapes   what the nodes of a process share about scripts, and how values are kept
//! wal       the segmented log of all groups
//! lsm       fjall
//! machine   files, time and chance: the system's, or a simulation's
//! stepped   a node without threads, for a simulation
//! ```
//!
//! The backlog holds every effect that fjall does not hold yet, the log is its journal: a replica
//! after a crash is what fjall holds at its applied index plus the log from there.
//!
//! This crate reads clocks and files. It never imports `router`; only it names fjall.

/// Whether a bug is put in on purpose here: never, without the feature `mutants`.
#[cfg(not(feature = "mutants"))]
macro_rules! mutant {
    ($name:ident) => {
        crate::is_mutated(stringify!($name))
    };
}

#[cfg(not(feature = "mutants"))]
#[inline(always)]
const fn is_mutated(_: &str) -> bool {
    false
}

#[cfg(feature = "mutants")]
macro_rules! mutant {
    ($name:ident) => {
        crate::mutants::is_active(crate::mutants::Mutant::$name)
    };
}

mod agenda;
mod ahead;
#[cfg(test)]
mod alone;
mod background;
mod backlog;
mod batch;
mod care;
mod catalogue;
mod catch_up;
mod clock;
mod cold;
mod containment;
mod core;
mod driver;
mod faults;
mod flush;
mod functions;
mod identity;
mod keeper;
mod local;
mod logs;
pub mod lsm;
pub mod machine;
mod message;
mod meta;
#[cfg(feature = "mutants")]
pub mod mutants;
mod news;
mod node;
mod partition;
mod peers;
mod pulse;
mod queue;
mod recover;
mod requests;
mod resident;
pub mod row;
mod script;
mod scripting;
mod sealing;
mod shapes;
mod slow;
mod snapshot;
mod stepped;
mod transaction;
mod view;
pub mod wal;

pub use batch::BatchError;
pub use care::Change;
pub use catalogue::CatalogueError;
pub use core::BATCH_BYTES_MAX;
pub use driver::Publish;
pub use faults::Faults;
pub use identity::NODE_MAX;
pub use local::{LinkFaults, LocalNodes, NodeSeat, OpenNode};
pub use logs::Logs;
pub use node::{Node, NodeOptions, Surroundings};
pub use recover::{Assignment, OpenError, abandon, abandon_on, damage_a_file};
pub use requests::{DedupLimits, RequestSums};
pub use resident::RowBudget;
pub use scripting::Scripting;
pub use shapes::Shapes;
pub use stepped::{Fetched, Seen, Stepped, StoredRows, Wants};

/// Whether an error says that the process, or the system, is out of file descriptors: it may work when
/// others have been closed.
pub(crate) fn is_exhausted(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}
