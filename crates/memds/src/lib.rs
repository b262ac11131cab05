//! Where everything is: the partition maps of all tables, the service that answers for them and its
//! clients.
//!
//! ```text
//!   storage node ── Publisher ──► MemDS node ◄── heal ──► MemDS node
//!                                    ▲  │
//!                            lookups │  │ answers
//!                                    │  ▼
//!                                 MemdsClient (router)
//! ```
//!
//! [`Perkle`] is the map. All traffic is peer frames over a `wire::peer::Transport`; nothing here
//! knows whether the other side is in this process.

mod client;
mod map;
mod message;
mod perkle;
mod publisher;
mod route;
mod service;

pub use client::{Asked, ClientOptions, ClientStats, MemdsClient};
pub use map::Installed;
pub use message::{Lookup, MEMBERS_MAX, MessageError};
pub use perkle::{Difference, PartSummary, Perkle, Prefix, Routes, SUMMARY_ROUTES_MAX, Summary};
pub use publisher::Publisher;
pub use route::{KEY_BITS, RouteKey, RouteRef};
pub use service::{MemdsNode, MemdsStats};
