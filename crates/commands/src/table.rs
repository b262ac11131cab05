//! The command table: every family's rows in one list, and the map from names to rows.

use std::collections::HashMap;
use std::sync::OnceLock;

use wire::ids::CommandId;

use crate::command::{Command, Run};
use crate::families;

/// Every family's rows.
static FAMILIES: &[&[Command]] = &[
    families::string::COMMANDS,
    families::generic::COMMANDS,
    families::connection::COMMANDS,
    families::server::COMMANDS,
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
    by_name: HashMap<&'static str, CommandId>,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(build)
}

fn build() -> Table {
    let mut table = Table { entries: Vec::new(), by_name: HashMap::new() };
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
