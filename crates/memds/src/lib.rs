//! The partition map: who serves which range of which table, its service and its client.
//!
//! Storage nodes know the truth about their own partitions and [`Publisher`] pushes it to every
//! MemDS node. Each [`Memds`] node holds the whole map in memory and answers lookups from it alone.
//! A router's [`Client`] sends one lookup per routed command whether its cache had the route or
//! not, so the load on MemDS says nothing about how warm the caches are, and flushing them all
//! changes nothing.
//!
//! ```text
//!   storage leader ── push ──▶ Memds ◀── sync ──▶ Memds        (equal Merkle roots: nothing to do)
//!                               ▲ │
//!                       lookups │ ▼ routes
//!   router cache ◀── on_route ── Client
//! ```
//!
//! Nothing here is durable: a MemDS node starts empty and heals from its peers and from pushes.

mod client;
mod frames;
mod groups;
mod map;
mod page;
mod perkle;
mod publisher;
mod region;
mod service;

pub use client::{Client, ClientOptions, ClientStats};
pub use frames::{BodyError, Lookup};
pub use map::{Install, MapRefused, PartitionMap};
pub use perkle::{Difference, Footprint, Perkle, RouteRef};
pub use publisher::Publisher;
pub use service::{Memds, MemdsStats};
