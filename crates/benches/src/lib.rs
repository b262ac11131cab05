//! Measurements. Each states the question it answers and runs in a small form in `cargo xtask check`,
//! so that it cannot rot.
//!
//! - `benches/*.rs`: Criterion, one file per layer: `cargo bench -p benches --bench decode`.
//! - `cargo run -p benches --release -- <name>`: the whole server, over its socket.
//!
//! | name | question |
//! |---|---|
//! | side-by-side | What does a client see of throughput and latency, on this machine, next to Redis without persistence and next to Redis that syncs each write? |
//! | cold-cache | Does emptying every route cache at load change what clients see, or what MemDS sees? |
//! | load | Can a large amount be written at a steady rate without a stall, what does it cost in memory, and how long is the way back after a crash? |
//! | ycsb | How do latencies grow with the load, up to and beyond what the server can do? |
//! | scaling | Does the cost of a command grow with what is asked for, or with what is stored? |
//! | failover | For how long can nobody write when a node is lost, stands still or hands over, and how soon does a group have its full quorum again? |
//! | idle-groups | What do thousands of groups cost that have nothing to do, and how soon does each have a leader again when a node is lost or comes back? |
//! | soak | Does anything grow that should not, or get slower, under full load for a long time? |

pub mod chart;
pub mod client;
pub mod cold_cache;
pub mod driver;
pub mod failover;
pub mod idle_groups;
pub mod keys;
pub mod load;
pub mod process;
pub mod scaling;
pub mod servers;
pub mod side_by_side;
pub mod soak;
pub mod ycsb;
