//! The types over rows: what a header holds, how a value is laid out.

pub(crate) mod bits;
pub(crate) mod dump;
pub(crate) mod encoding;
pub(crate) mod hash;
pub(crate) mod hash_dump;
pub(crate) mod hash_edit;
pub(crate) mod hash_inline;
pub(crate) mod hash_walk;
pub mod header;
pub(crate) mod hyperloglog;
pub mod keyspace;
pub(crate) mod lcs;
pub(crate) mod listpack;
pub(crate) mod long_double;
pub(crate) mod ring;
pub(crate) mod set;
pub(crate) mod set_dump;
pub(crate) mod set_edit;
pub(crate) mod sortable;
pub(crate) mod stream;
pub(crate) mod stream_dump;
pub(crate) mod stream_edit;
pub(crate) mod stream_groups;
pub(crate) mod walk;
pub(crate) mod ziplist;
