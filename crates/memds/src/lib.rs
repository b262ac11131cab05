//! MemDS: every table's partition map in memory, on every node of a small fleet, and the client
//! that routers ask it by.
//!
//! The fleet is asked once per routed command, whether the router's cache knew the route or not, so
//! that its load never depends on the caches (DynamoDB, ATC'22: "the cache mirrors every lookup").
//!
//! ```text
//! storage nodes ──Publisher: MemdsPush──▶ MemDS nodes ◀──MemdsSync──▶ each other
//! routers ──Client: MemdsLookup (foreground, mirrored)──▶ MemDS nodes ──MemdsAnswer──▶ routers
//! ```
//!
//! Storage nodes are authoritative; a newer (epoch, ballot) replaces an older one, whatever way it
//! comes. This crate never imports `storage` or `router`.

mod client;
mod map;
mod message;
mod perkle;
mod publisher;
mod route;
mod service;

pub use client::{Client, ClientOptions, ClientStats, Lookup};
pub use map::PartitionMap;
pub use perkle::{Difference, PartSummary, Perkle, Prefix, Routes, SUMMARY_ROUTES_MAX, Summary};
pub use publisher::Publisher;
pub use route::{KEY_BITS, RouteKey, RouteRef};
pub use service::{Memds, MemdsStats};
