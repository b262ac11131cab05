//! What crosses a boundary: the RESP codec, peer frames, the ids everything is named by, and the
//! trait at which routers meet storage nodes.
//!
//! This crate reads no socket, clock, file or environment. It imports no other crate of ours.

pub mod ids;
pub mod notice;
pub mod peer;
pub mod placement;
pub mod resp;
pub mod service;
