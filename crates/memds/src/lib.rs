//! MemDS: every table's partition map in memory, on every node of a small fleet, and the client
//! that routers ask it by.
//!
//! Storage nodes know the truth about their own partitions, and their [`Publisher`] pushes it to
//! every MemDS node. Each [`Memds`] node holds the whole map and answers lookups from it alone. A
//! router's [`Client`] makes one lookup per routed command, whether its cache knew the route or
//! not, so the load on the fleet says nothing about how warm the caches are, and flushing them all
//! changes nothing. *Source*: DynamoDB (ATC'22), "Metadata availability".
//!
//! ```text
//!   storage leader ── push ──▶ Memds ◀── sync ──▶ Memds        equal Merkle roots: nothing to do
//!                               ▲ │
//!                       lookups │ ▼ routes
//!   router cache ◀── on_route ── Client
//! ```
//!
//! Nothing here is durable: a node starts empty and learns from its peers and from pushes. This
//! crate never imports `storage` or `router`.

mod client;
mod map;
mod message;
mod perkle;
mod publisher;
mod route;
mod service;

pub use client::{Client, ClientOptions, ClientStats};
pub use map::{Install, MapRefused, PartitionMap};
pub use message::Lookup;
pub use perkle::{Difference, PartSummary, Perkle, Prefix, Routes, SUMMARY_ROUTES_MAX, Summary};
pub use publisher::Publisher;
pub use route::{KEY_BITS, RouteKey, RouteRef};
pub use service::{Healing, Memds, MemdsStats};
