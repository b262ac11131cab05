//! The types over rows: what a header holds, how a value is laid out.

pub(crate) mod bits;
pub(crate) mod dump;
pub(crate) mod encoding;
pub mod header;
pub mod keyspace;
pub(crate) mod lcs;
pub(crate) mod long_double;
pub(crate) mod walk;
