//! Multi-Paxos, sans I/O: one group's replica as a function of messages, ticks and persistence
//! completions.
//!
//! This crate reads no clock, socket or file and starts no thread. The host brings the time, writes
//! [`Record`]s, carries [`Message`]s and applies [`Output::Commit`]s.
//!
//! # The protocol
//!
//! ```text
//! follower ──misses the leader──▶ Ask ──a majority misses it too──▶ candidate
//! candidate  Prepare(b) ─────────▶ all;  Promise(b, accepted above chosen) ◀── a quorum
//! leader     re-proposes what the promises hold, no-ops in the gaps, a no-op of its own
//!            Accept(b, i, v) ────▶ all;  Accepted(b, i) ◀── a quorum: chosen, in any order
//!            Commit(i, v) in order; Heartbeat/Accept carry how far the log is chosen
//! lagging    Need(first) ────────▶ leader; Chosen(entries) ◀──
//! ```
//!
//! Phase 1 is done once per ballot for all open indexes; phase 2 is pipelined in a bounded window.
//! A candidate needs no complete log: what it lacks it learns from promises (open indexes) and by
//! catch-up (chosen ones). If those who said that something is chosen are gone before they sent it,
//! the leader runs phase 1 again: what is left of the members then tells all there is to know.
//!
//! # Invariants
//!
//! 1. A node uses a ballot once: it is promised durably before its Prepare leaves.
//! 2. Accepting (ballot, value) raises the promise to that ballot.
//! 3. Promise and Accepted leave only once their records are durable. A completion counts for the
//!    ballot it was made in, not for an index alone.
//! 4. In one ballot one value is proposed for an index. So a follower that accepted an index in the
//!    ballot whose leader says "chosen up to here" holds the chosen value; entries of older
//!    ballots are fetched instead.
//! 5. Commit comes once per index, in order.
//! 6. A chosen value never changes: asserted wherever one is learned again. A chosen entry is kept
//!    and passed on with a ballot at least as high as one it was chosen in, so that for any index
//!    the newest ballot in a log is never older than the truth.
//! 7. What is chosen leaves memory, and enters the durable state machine, only once it is durable in
//!    the node's own log ([`Replica::flushable`]): a member that handed an entry out can always
//!    send it to one that lacks it.
//!
//! # The lease
//!
//! Nodes support each other, pair by pair, for all groups at once ([`Liveness`]). A follower's answer
//! to a heartbeat names the epoch in which its node supports the leader's: as long as that support
//! lasts, the follower *backs* the leader, which means that it promises no other node a ballot. The
//! leader has a lease while the nodes of a quorum that backs it (itself included) support its node.
//! So whoever gets a quorum to promise a ballot has met somebody whose support is over, and of
//! that the leader, which counts less of each support, has known before.
//!
//! A restarted acceptor forgot whom it backs. Its node's epochs have new names, so that what it told
//! leaders is extended no more; its promises say how long it may still be counted on: a new
//! leader accepts and replicates at once and *commits* only when the longest of these times has
//! passed, so that old and new leader never both answer reads.
//!
//! A leader that stops leading releases those who back it; so does its node whenever somebody asks,
//! and before it asks around itself: a `Release` may be lost.
//!
//! Once all members know what is chosen and back the leader, the group is silent and has no deadline:
//! the node's liveness tells when that ends.
//!
//! # More than the happy path
//!
//! Members change by joint quorum (`membership`); a member whose log the others have truncated
//! installs a snapshot; a leader hands over without a pause ([`Replica::transfer`]); damaged entries are
//! told of and repaired. `docs/paxos.md` has the messages, the invariants and what guards each.
//!
//! # What is left out, for now
//!
//! Entries are truncated only when every storage member's state machine holds them. A quorum read is
//! the host's: it proposes something after what it read ([`Replica::may_confirm`]).

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

mod backing;
mod catch_up;
pub mod codec;
mod config;
mod election;
mod leader;
mod liveness;
mod log;
mod membership;
mod message;
#[cfg(feature = "mutants")]
pub mod mutants;
mod replica;
mod support;
mod types;

pub use config::{Config, Member, MemberKind};
pub use leader::TransferError;
pub use liveness::{Beat, Liveness, LivenessOutput};
pub use membership::ChangeError;
pub use message::{Message, Output, Role};
pub use replica::{ProposeError, Replica, Status};
pub use support::{Epoch, Life, Supports};
pub use types::{Ballot, Entry, Index, Instant, NodeId, Options, Record, Recovered, Value};
