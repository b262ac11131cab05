//! Access control: what a user may run, on which keys and channels.
//!
//! ```text
//! User ── on/off, password hashes
//!   ├── root selector      the rules given to SETUSER itself
//!   └── selectors          the rules given in parentheses
//! Selector ── commands     a bit per row of the table, first arguments, the rules as they came
//!          ├── keys        patterns, each for reading, writing or both
//!          └── channels    patterns
//! ```
//!
//! A command line is allowed if *one* selector allows all of it: the command, each key for what the
//! row's key flags say is done with it, each channel. Keys come from the row ([`crate::key_positions`]),
//! the same as for routing; a line whose keys cannot be told apart is refused, since whoever
//! understands it otherwise than this module would go around it.
//!
//! Everything here is a value: a changed user is a new [`User`]. Who holds the newest, who is logged
//! in and what was denied is the router's to know. Passwords are kept as SHA-256 and compared in
//! constant time.
//!
//! *Source*: Redis's ACL documentation, rules and refusals as of 7.0; the rules of commands are told
//! in the order in which they were given, as since 7.2 (7.0 derives another list of the same effect).

mod file;
mod selector;
mod user;

pub use file::{parse_file, write_file};
pub use selector::{Denied, Reason, Selector};
pub use user::{Defaults, GENPASS_BITS_DEFAULT, GENPASS_BITS_MAX, User, check_name};

use crate::table::{self, Entry};

/// What is done with the channels of a command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channels {
    /// It publishes or subscribes to the channels it names.
    Named,
    /// It subscribes to patterns, which must be allowed letter by letter.
    Patterns,
}

/// The positions of a command line's channels, and what is done with them; `None` if it has none that
/// need a permission (nobody is kept from unsubscribing).
fn channels_of(entry: &Entry, count: usize) -> Option<(std::ops::Range<usize>, Channels)> {
    if entry.group.is_some() {
        return None;
    }
    match entry.command.name {
        "SUBSCRIBE" | "SSUBSCRIBE" => Some((1..count, Channels::Named)),
        "PSUBSCRIBE" => Some((1..count, Channels::Patterns)),
        "PUBLISH" | "SPUBLISH" => Some((1..count.min(2), Channels::Named)),
        _ => None,
    }
}

/// The row that a rule or ACL DRYRUN names: `get`, `client|list`.
pub fn lookup(name: &[u8]) -> Option<&'static Entry> {
    match name.iter().position(|byte| *byte == b'|') {
        None => table::lookup(name),
        Some(bar) => table::lookup_subcommand(table::lookup(&name[..bar])?, &name[bar + 1..]),
    }
}

#[cfg(test)]
mod tests;
