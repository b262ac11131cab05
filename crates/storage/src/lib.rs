//! Partition replicas on a node: a Paxos group each, one log and one LSM for all.
//!
//! ```text
//! node      opens the folder, recovers, starts the threads; evaluates calls
//!  driver   log thread (group commit), clock thread, flush thread; frames in and out
//!  core     one replica's state: consensus, rows in memory, open batch, gates; no I/O, no clock
//!   view    what commands see: memory over row cache over fjall
//!   memory  proposed, active and frozen rows
//!   batch   the log's unit: effects as bytes
//! wal       the segmented log of all groups
//! disk      fjall (lsm) behind the row cache
//! ```
//!
//! The memtable holds every effect that fjall does not hold yet, the log is its journal: a replica
//! after a crash is what fjall holds at its applied index plus the log from there.
//!
//! This crate reads clocks and files. It never imports `router`; only it names fjall.

mod batch;
mod core;
mod disk;
mod driver;
mod local;
pub mod lsm;
mod memory;
mod meta;
mod node;
mod partition;
pub mod row;
mod row_order;
mod transaction;
mod view;
pub mod wal;

pub use batch::BatchError;
pub use core::BATCH_BYTES_MAX;
pub use driver::Publish;
pub use local::{LocalNodes, OpenNode};
pub use node::{Assignment, Node, NodeOptions, OpenError, Surroundings};

/// A number that differs between any two starts of nodes: 32 bits of the hasher's random keys.
fn incarnation() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() as u32
}
