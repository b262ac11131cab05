//! One file per family: rows first, handlers below.

pub(crate) mod absent;
pub(crate) mod acl;
pub(crate) mod admin;
pub(crate) mod bitmap;
pub(crate) mod cluster;
pub(crate) mod connection;
pub(crate) mod generic;
pub(crate) mod geo;
pub(crate) mod hash;
pub(crate) mod hash_expiry;
pub(crate) mod hyperloglog;
pub(crate) mod list;
pub(crate) mod pubsub;
pub(crate) mod server;
pub(crate) mod set;
pub(crate) mod sort;
pub(crate) mod sorted_set;
pub(crate) mod sorted_set_algebra;
pub(crate) mod sorted_set_range;
pub(crate) mod stream;
pub(crate) mod stream_group;
pub(crate) mod stream_info;
pub(crate) mod string;
pub(crate) mod transactions;
