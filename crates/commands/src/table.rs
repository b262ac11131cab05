//! The command table: every family's rows in one list, and the map from names to rows.

use std::collections::HashMap;
use std::sync::OnceLock;

use wire::ids::CommandId;

use crate::command::{Command, Run};
use crate::families;

/// Every family's rows.
static FAMILIES: &[&[Command]] = &[
    families::string::COMMANDS,
    families::bitmap::COMMANDS,
    families::hash::COMMANDS,
    families::set::COMMANDS,
    families::sort::COMMANDS,
    families::stream::COMMANDS,
    families::hyperloglog::COMMANDS,
    families::list::COMMANDS,
    families::sorted_set::COMMANDS,
    families::geo::COMMANDS,
    families::generic::COMMANDS,
    families::transactions::COMMANDS,
    families::scripting::COMMANDS,
    families::pubsub::COMMANDS,
    families::connection::COMMANDS,
    families::server::COMMANDS,
    families::acl::COMMANDS,
    families::cluster::COMMANDS,
    families::absent::COMMANDS,
    families::admin::COMMANDS,
];

/// Names longer than this are of no command.
const NAME_LENGTH_MAX: usize = 32;

/// A row that can be called: a command, or one subcommand of a group.
#[derive(Debug)]
pub struct Entry {
    /// Its number, valid inside one build.
    pub id: CommandId,
    /// The row.
    pub command: &'static Command,
    /// The group it belongs to, if it is a subcommand.
    pub group: Option<&'static Command>,
    /// Subcommands, if it is a group: ids of their entries.
    pub subcommands: Vec<CommandId>,
}

impl Entry {
    /// The name as Redis tells it in statistics and errors: `get`, `client|id`.
    pub fn full_name(&self) -> String {
        let name = self.command.name.to_ascii_lowercase();
        match self.group {
            Some(group) => format!("{}|{name}", group.name.to_ascii_lowercase()),
            None => name,
        }
    }
}

struct Table {
    entries: Vec<Entry>,
    by_name: HashMap<&'static str, CommandId, foldhash::fast::RandomState>,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(build)
}

fn build() -> Table {
    let mut table = Table { entries: Vec::new(), by_name: HashMap::default() };
    for command in FAMILIES.iter().copied().flatten() {
        let id = add(&mut table, command, None);
        table.by_name.insert(command.name, id);
        if let Run::Group(rows) = command.run {
            let subcommands =
                rows.iter().map(|row| add(&mut table, row, Some(command))).collect::<Vec<_>>();
            table.entries[usize::from(id.0)].subcommands = subcommands;
        }
    }
    table
}

fn add(table: &mut Table, command: &'static Command, group: Option<&'static Command>) -> CommandId {
    let id = CommandId(u16::try_from(table.entries.len()).expect("fewer than 65,536 commands"));
    table.entries.push(Entry { id, command, group, subcommands: Vec::new() });
    id
}

/// All rows, groups and their subcommands included.
pub fn entries() -> &'static [Entry] {
    &table().entries
}

/// The row with this number.
///
/// *Panics* if no row has it: a number is only ever taken from this table.
pub fn entry(id: CommandId) -> &'static Entry {
    &table().entries[usize::from(id.0)]
}

/// The top-level command of this name, in any case.
pub fn lookup(name: &[u8]) -> Option<&'static Entry> {
    let mut upper = [0u8; NAME_LENGTH_MAX];
    let upper = upper.get_mut(..name.len())?;
    upper.copy_from_slice(name);
    upper.make_ascii_uppercase();
    let name = std::str::from_utf8(upper).ok()?;
    table().by_name.get(name).map(|id| entry(*id))
}

/// The subcommand of a group by this name, in any case.
pub fn lookup_subcommand(group: &Entry, name: &[u8]) -> Option<&'static Entry> {
    let name = std::str::from_utf8(name).ok()?;
    group
        .subcommands
        .iter()
        .map(|id| entry(*id))
        .find(|e| e.command.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::command::{Arity, Flags, KeyFlags, Keys, Session};

    #[test]
    fn names_are_unique_and_upper_case() {
        let mut seen = BTreeSet::new();
        for entry in entries() {
            let name = (entry.group.map(|group| group.name), entry.command.name);
            assert!(seen.insert(name), "{name:?} twice");
            assert_eq!(name.1, name.1.to_ascii_uppercase());
            assert!(name.1.len() <= NAME_LENGTH_MAX);
        }
    }

    #[test]
    fn every_row_is_found_by_its_name_in_any_case() {
        for row in entries() {
            let name = row.command.name.to_ascii_lowercase();
            let found = match row.group {
                None => lookup(name.as_bytes()),
                Some(group) => lookup(group.name.as_bytes())
                    .and_then(|group| lookup_subcommand(group, name.as_bytes())),
            };
            assert_eq!(found.map(|found| found.id), Some(row.id), "{name}");
            assert_eq!(entry(row.id).id, row.id);
        }
        assert!(lookup(&[b'X'; 100]).is_none());
        assert!(lookup(b"\xff").is_none());
    }

    #[test]
    fn keys_stand_inside_the_arity() {
        for entry in entries() {
            let name = entry.command.name;
            let least = match entry.command.arity {
                Arity::Exactly(count) | Arity::AtLeast(count) => i64::from(count),
            };
            match entry.command.keys {
                // Channels, of which SUNSUBSCRIBE needs none.
                Keys::Range { flags: KeyFlags::NOT_KEY, .. } => {}
                Keys::Range { first, last, step, .. } => {
                    assert!(first >= 1 && step >= 1, "{name}");
                    assert!(i64::from(first) < least && i64::from(last) < least, "{name}");
                }
                Keys::Into { target, .. } => {
                    // PFMERGE may come with its target alone.
                    assert!(target >= 1 && i64::from(target) < least, "{name}");
                }
                Keys::CountedInto { target, at, .. } => {
                    assert!(target >= 1 && target < at && i64::from(at) < least, "{name}");
                }
                Keys::AndStore { from } => assert!(i64::from(from) <= least, "{name}"),
                Keys::Pair(..) => assert!(least >= 3, "{name}"),
                Keys::Counted { at, .. } => assert!(at >= 1 && i64::from(at) < least, "{name}"),
                Keys::CountedPairs { at, .. } => {
                    assert!(at >= 1 && i64::from(at) + 2 < least, "{name}");
                }
                Keys::Sort { .. } => assert!(least >= 2, "{name}"),
                Keys::None
                | Keys::Table(_)
                | Keys::AllTables(_)
                | Keys::AfterStreams { .. }
                | Keys::OneOrMany { .. }
                | Keys::Find(..) => {}
            }
        }
    }

    #[test]
    fn flags_follow_what_runs_the_row() {
        for entry in entries() {
            let flags = entry.command.flags;
            // These write by commands of their own.
            let writes = matches!(
                entry.command.run,
                Run::Write(_) | Run::Session(Session::Migrate | Session::Swapdb)
            );
            let reads = matches!(entry.command.run, Run::Read(_));
            if let Run::Script(what) = entry.command.run {
                // A script says by itself what it does.
                assert!(!(flags.has(Flags::WRITE) && what.is_read_only()));
                continue;
            }
            assert_eq!(flags.has(Flags::WRITE), writes, "{}", entry.command.name);
            assert!(!reads || flags.has(Flags::READONLY), "{}", entry.command.name);
        }
    }
}
