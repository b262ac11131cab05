//! Routers: what clients talk to. Any router serves any key.
//!
//! ```text
//! connection.rs  reads, decodes, waits for what was written, answers
//! dispatch.rs    command table, checks, who runs it
//! route.rs       keys → placement → cache → leader; one MemDS lookup per routed call
//! pending.rs     calls of a pipeline to one partition, made together
//! joint.rs       those of several connections that write to one key
//! turns.rs       when replies leave
//! cache.rs       the routes known
//! gather.rs      commands about whole tables
//! run/           the commands a router runs itself
//! hub.rs         who is told what unasked: pubsub.rs, monitors.rs, tracking.rs
//! pushes.rs      the queue of what a connection is told so
//! ```
//!
//! A router keeps nothing that cannot be lost: it can be stopped at any time, and any number of them
//! work side by side. It meets storage nodes at `wire::service::StorageService` and never imports
//! `storage`; it reads no configuration file: parameters come in as [`RouterOptions`].

mod again;
mod cache;
mod clients;
mod config;
mod connection;
mod databases;
mod dispatch;
mod gather;
mod host;
mod hub;
mod joint;
mod latency;
mod listener;
mod monitors;
mod parameters;
mod pending;
mod pubsub;
mod pushes;
mod route;
mod run;
mod script_client;
mod session;
mod shared;
mod slowlog;
mod spare;
mod stats;
mod stream;
mod tracking;
mod turns;
mod users;

pub use cache::RouteCache;
pub use host::{Host, RouterOptions, Shutdown};
pub use hub::Hub;
pub use listener::Router;
pub(crate) use shared::Shared;
pub use shared::Traffic;
