//! Redis's commands: one declarative table, a file per family, types over a key-value [`View`].
//!
//! Everything here is a function of its inputs: handlers get a [`View`] (or a [`Txn`] over one) and
//! arguments, and answer a reply. This crate reads no clock, socket, file or environment; time and
//! randomness come in through the view. Nothing here is async.
//!
//! To add a command: write its row in its family file, the handler under it, and a golden script
//! `testscripts/<family>/<command>`; touch `types/` only for new storage behaviour.

pub mod acl;
mod args;
mod command;
mod cursor;
pub mod docs;
mod double;
mod error;
mod expiry;
mod families;
pub mod glob;
mod keys;
pub mod notes;
pub mod overdue;
pub mod rows;
pub mod table;
#[cfg(test)]
mod testing;
mod txn;
pub mod types;
mod view;
mod wait;

pub use args::{Args, VALUE_BYTES_MAX, parse_cursor, parse_int, parse_int32};
pub use command::{
    Arity, Command, Flags, Gather, KeyFlags, Keys, ManyHandler, Ran, ReadHandler, Run, Script,
    Session, WriteHandler,
};
pub use error::{AclRuleError, CommandError, Echo};
pub use families::generic::{CopyOptions, copy_options, move_target, object_help};
pub use families::hyperloglog::hyperloglog_self_test;
pub use families::stream_group::XGROUP_HELP;
pub use families::stream_info::XINFO_HELP;
pub use keys::{key_flags, key_flags_of_line, key_positions};
pub use txn::{Counters, Effects, RowWrite, Txn};
pub use types::dump::{functions_of_payload, payload_of_functions};
pub use types::dump::{rdb_checksum, unpack_lzf};
pub use types::ring::element_row;
pub use view::{Direction, MemoryView, Row, Skim, TOUCHED_ELEMENTS_MIN, View, ViewError};
pub use wait::{Wait, WaitHandler, is_nothing};
