//! One file per family: rows first, handlers below.

pub(crate) mod admin;
pub(crate) mod bitmap;
pub(crate) mod connection;
pub(crate) mod generic;
pub(crate) mod geo;
pub(crate) mod hash;
pub(crate) mod hash_expiry;
pub(crate) mod list;
pub(crate) mod server;
pub(crate) mod sorted_set;
pub(crate) mod sorted_set_algebra;
pub(crate) mod sorted_set_range;
pub(crate) mod string;
pub(crate) mod transactions;
