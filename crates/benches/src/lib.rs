//! Measurements. Each states the question it answers and runs in a small form in `cargo xtask check`,
//! so that it cannot rot.
//!
//! - `benches/*.rs`: Criterion, one file per layer: `cargo bench -p benches --bench decode`.
//! - `cargo run -p benches --release -- side-by-side`: the whole server beside Redis.
//!
//! | bench | question |
//! |---|---|
//! | side-by-side | What does a client see of throughput and latency, on this machine, next to Redis without persistence and next to Redis that syncs each write? |

pub mod servers;
pub mod side_by_side;
