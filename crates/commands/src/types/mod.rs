//! The types over rows: what a header holds, how a value is laid out.

pub(crate) mod bits;
pub(crate) mod chunk;
pub(crate) mod directory;
pub(crate) mod dump;
pub(crate) mod encoding;
pub(crate) mod geohash;
pub(crate) mod hash;
pub(crate) mod hash_dump;
pub(crate) mod hash_edit;
pub(crate) mod hash_inline;
pub(crate) mod hash_walk;
pub mod header;
pub mod keyspace;
pub(crate) mod lcs;
pub(crate) mod list;
pub(crate) mod list_dump;
pub(crate) mod listpack;
pub(crate) mod long_double;
pub(crate) mod sequence;
pub(crate) mod sorted_set;
pub(crate) mod sorted_set_dump;
pub(crate) mod walk;
pub(crate) mod ziplist;
