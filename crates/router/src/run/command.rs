//! COMMAND: the command table, told to clients. Everything here is derived from the table and from
//! `commands::docs`.

use bytes::Bytes;
use commands::docs;
use commands::table::{self, Entry};
use commands::{CommandError, Flags, KeyFlags, Keys, Run, glob, key_flags_of_line, key_positions};
use wire::resp::Reply;

use super::{syntax, text, word};
use crate::dispatch;

pub(super) const HELP: &[&str] = &[
    "(no subcommand)",
    "    Describe all commands.",
    "COUNT",
    "    Return the number of commands.",
    "DOCS [<command-name> ...]",
    "    Document these commands, or all.",
    "GETKEYS <full-command>",
    "    Return the keys of a command line.",
    "GETKEYSANDFLAGS <full-command>",
    "    Return the keys of a command line and what is done with them.",
    "INFO [<command-name> ...]",
    "    Describe these commands, or all.",
    "LIST [FILTERBY (MODULE <name>|ACLCAT <category>|PATTERN <pattern>)]",
    "    Return the names of these commands, or all.",
];

/// COMMAND alone.
pub(crate) fn all() -> Reply {
    Reply::Array(top_level().map(describe).collect())
}

pub(super) fn count() -> Reply {
    Reply::Integer(top_level().count() as i64)
}

pub(super) fn info(args: &[Bytes]) -> Reply {
    match &args[2..] {
        [] => all(),
        names => {
            let one = |name: &Bytes| by_full_name(name).map_or(Reply::NullArray, describe);
            Reply::Array(names.iter().map(one).collect())
        }
    }
}

pub(super) fn docs(args: &[Bytes]) -> Reply {
    let document = |entry: &'static Entry| (text(entry.full_name()), document(entry));
    Reply::Map(match &args[2..] {
        [] => top_level().map(document).collect(),
        names => names.iter().filter_map(|name| by_full_name(name)).map(document).collect(),
    })
}

pub(super) fn list(args: &[Bytes]) -> Result<Reply, CommandError> {
    let chosen: Vec<&Entry> = match &args[2..] {
        [] => table::entries().iter().collect(),
        [filterby, kind, value] if filterby.eq_ignore_ascii_case(b"FILTERBY") => {
            let value = value.to_ascii_lowercase();
            let all = table::entries().iter();
            match kind.to_ascii_lowercase().as_slice() {
                // There are no modules.
                b"module" => Vec::new(),
                b"aclcat" => {
                    let has = |entry: &&Entry| {
                        docs::categories(entry).iter().any(|name| name.as_bytes() == value)
                    };
                    all.filter(has).collect()
                }
                b"pattern" => {
                    let matches =
                        |entry: &&Entry| glob::matches(&value, entry.full_name().as_bytes());
                    all.filter(matches).collect()
                }
                _ => return Err(CommandError::Syntax),
            }
        }
        _ => return Err(CommandError::Syntax),
    };
    Ok(Reply::Array(chosen.into_iter().map(|entry| text(entry.full_name())).collect()))
}

pub(super) fn getkeys(args: &[Bytes]) -> Result<Reply, CommandError> {
    let keys = keys_of(&args[2..])?.into_iter().map(|(key, _)| Reply::Bulk(key));
    Ok(Reply::Array(keys.collect()))
}

pub(super) fn getkeysandflags(args: &[Bytes]) -> Result<Reply, CommandError> {
    let keys = keys_of(&args[2..])?.into_iter().map(|(key, flags)| {
        let flags = flag_names(flags).into_iter().map(Reply::Simple).collect();
        Reply::Array(vec![Reply::Bulk(key), Reply::Set(flags)])
    });
    Ok(Reply::Array(keys.collect()))
}

fn keys_of(line: &[Bytes]) -> Result<Vec<(Bytes, KeyFlags)>, CommandError> {
    let entry = dispatch::find_row(line)?;
    let positions =
        key_positions(entry.command, line).map_err(|_| CommandError::COMMAND_BAD_KEYS)?;
    if positions.is_empty() && !entry.command.flags.has(Flags::NO_MANDATORY_KEYS) {
        return Err(CommandError::COMMAND_NO_KEYS);
    }
    let key = |(nth, at): (usize, &usize)| {
        let flags = key_flags_of_line(entry.command, nth, line).unwrap_or(KeyFlags(0));
        (line[*at].clone(), flags)
    };
    Ok(positions.iter().enumerate().map(key).collect())
}

fn top_level() -> impl Iterator<Item = &'static Entry> {
    table::entries().iter().filter(|entry| entry.group.is_none())
}

/// A command by its name, or a subcommand by `group|name`.
pub(super) fn by_full_name(name: &[u8]) -> Option<&'static Entry> {
    match name.iter().position(|&byte| byte == b'|') {
        None => table::lookup(name),
        Some(bar) => table::lookup_subcommand(table::lookup(&name[..bar])?, &name[bar + 1..]),
    }
}

fn subcommands(entry: &Entry) -> impl Iterator<Item = &'static Entry> {
    entry.subcommands.iter().map(|id| table::entry(*id))
}

/// The ten elements of COMMAND INFO.
fn describe(entry: &Entry) -> Reply {
    let command = entry.command;
    let (first, last, step) = match command.keys {
        Keys::Range { first, last, step, .. } => (i64::from(first), i64::from(last), step),
        Keys::Into { target, .. } => (i64::from(target), -1, 1),
        Keys::Pair(..) => (1, 2, 1),
        Keys::Sort { .. } => (1, 1, 1),
        Keys::CountedInto { target, .. } => (i64::from(target), i64::from(target), 1),
        Keys::AndStore { .. } => (1, 1, 1),
        Keys::OneOrMany { at, .. } => (i64::from(at), i64::from(at), 1),
        _ => (0, 0, 0),
    };
    let categories =
        docs::categories(entry).into_iter().map(|name| text_status(format!("@{name}")));
    let tips = docs::tips(entry).iter().map(|tip| word(tip));
    Reply::Array(vec![
        text(entry.full_name()),
        Reply::Integer(command.arity.as_redis()),
        Reply::Set(
            command_flags(command.flags, command.keys).into_iter().map(Reply::Simple).collect(),
        ),
        Reply::Integer(first),
        Reply::Integer(last),
        Reply::Integer(i64::from(step)),
        Reply::Set(categories.collect()),
        Reply::Set(tips.collect()),
        Reply::Set(key_specs(command.keys)),
        match command.run {
            Run::Group(_) => Reply::Array(subcommands(entry).map(describe).collect()),
            _ => Reply::Set(Vec::new()),
        },
    ])
}

fn text_status(text: String) -> Reply {
    Reply::Status(Bytes::from(text))
}

fn command_flags(flags: Flags, keys: Keys) -> Vec<&'static str> {
    const NAMES: [(Flags, &str); 21] = [
        (Flags::WRITE, "write"),
        (Flags::READONLY, "readonly"),
        (Flags::DENYOOM, "denyoom"),
        (Flags::ADMIN, "admin"),
        (Flags::PUBSUB, "pubsub"),
        (Flags::NOSCRIPT, "noscript"),
        (Flags::BLOCKING, "blocking"),
        (Flags::LOADING, "loading"),
        (Flags::STALE, "stale"),
        (Flags::SKIP_MONITOR, "skip_monitor"),
        (Flags::SKIP_SLOWLOG, "skip_slowlog"),
        (Flags::ASKING, "asking"),
        (Flags::FAST, "fast"),
        (Flags::NO_AUTH, "no_auth"),
        (Flags::MAY_REPLICATE, "may_replicate"),
        (Flags::NO_MANDATORY_KEYS, "no_mandatory_keys"),
        (Flags::PROTECTED, "protected"),
        (Flags::NO_ASYNC_LOADING, "no_async_loading"),
        (Flags::NO_MULTI, "no_multi"),
        (Flags::MOVABLEKEYS, "movablekeys"),
        (Flags::ALLOW_BUSY, "allow_busy"),
    ];
    let movable = matches!(
        keys,
        Keys::Counted { .. }
            | Keys::CountedPairs { .. }
            | Keys::AfterStreams { .. }
            | Keys::Sort { .. }
            | Keys::CountedInto { .. }
            | Keys::AndStore { .. }
            | Keys::OneOrMany { .. }
            | Keys::Find(..)
    );
    let flags = if movable { flags | Flags::MOVABLEKEYS } else { flags };
    NAMES.iter().filter(|(flag, _)| flags.has(*flag)).map(|(_, name)| *name).collect()
}

/// The names of key flags, as COMMAND tells them.
fn flag_names(flags: KeyFlags) -> Vec<&'static str> {
    const NAMES: [(KeyFlags, &str); 11] = [
        (KeyFlags::RO, "RO"),
        (KeyFlags::RW, "RW"),
        (KeyFlags::OW, "OW"),
        (KeyFlags::RM, "RM"),
        (KeyFlags::ACCESS, "access"),
        (KeyFlags::UPDATE, "update"),
        (KeyFlags::INSERT, "insert"),
        (KeyFlags::DELETE, "delete"),
        (KeyFlags::NOT_KEY, "not_key"),
        (KeyFlags::INCOMPLETE, "incomplete"),
        (KeyFlags::VARIABLE_FLAGS, "variable_flags"),
    ];
    NAMES.iter().filter(|(flag, _)| flags.0 & flag.0 != 0).map(|(_, name)| *name).collect()
}

fn key_specs(keys: Keys) -> Vec<Reply> {
    let integers = |fields: [(&'static str, i64); 3]| {
        Reply::Map(fields.map(|(name, value)| (word(name), Reply::Integer(value))).to_vec())
    };
    let at = |index: u16| {
        let spec = Reply::Map(vec![(word("index"), Reply::Integer(i64::from(index)))]);
        ("index", spec)
    };
    let range = |last: i64, step: u16| {
        ("range", integers([("lastkey", last), ("keystep", i64::from(step)), ("limit", 0)]))
    };
    let unknown = || ("unknown", Reply::Map(Vec::new()));
    let counted = || ("keynum", integers([("keynumidx", 0), ("firstkey", 1), ("keystep", 1)]));
    match keys {
        Keys::None | Keys::Table(_) | Keys::AllTables(_) => Vec::new(),
        Keys::Range { first, last, step, flags } => {
            // The spec counts the last key from the first one, unless it counts from the end.
            let last = if last < 0 { last } else { last - first as i16 };
            vec![key_spec(flags, at(first), range(i64::from(last), step))]
        }
        Keys::Into { target, into, from } => {
            vec![
                key_spec(into, at(target), range(0, 1)),
                key_spec(from, at(target + 1), range(-1, 1)),
            ]
        }
        Keys::Pair(first, second) => {
            vec![key_spec(first, at(1), range(0, 1)), key_spec(second, at(2), range(0, 1))]
        }
        Keys::Counted { at: count_at, flags } => {
            vec![key_spec(flags, at(count_at), counted())]
        }
        Keys::CountedInto { target, at: count_at, into, from } => {
            vec![key_spec(into, at(target), range(0, 1)), key_spec(from, at(count_at), counted())]
        }
        Keys::AndStore { from } => {
            let named = |name| ("keyword", keyword(name, i64::from(from)));
            let flags = KeyFlags::OW | KeyFlags::UPDATE;
            vec![
                key_spec(KeyFlags::RO | KeyFlags::ACCESS, at(1), range(0, 1)),
                key_spec(flags, named("STORE"), range(0, 1)),
                key_spec(flags, named("STOREDIST"), range(0, 1)),
            ]
        }
        Keys::CountedPairs { at: count_at, flags } => {
            let counted = integers([("keynumidx", 0), ("firstkey", 1), ("keystep", 2)]);
            vec![key_spec(flags, at(count_at), ("keynum", counted))]
        }
        Keys::AfterStreams { from, flags } => {
            let streams = ("keyword", keyword("STREAMS", i64::from(from)));
            let half = integers([("lastkey", -1), ("keystep", 1), ("limit", 2)]);
            vec![key_spec(flags, streams, ("range", half))]
        }
        Keys::Sort { stores: may_store } => {
            let reads = KeyFlags(KeyFlags::RO.0 | KeyFlags::ACCESS.0);
            let stores = KeyFlags(KeyFlags::OW.0 | KeyFlags::UPDATE.0);
            let mut specs =
                vec![key_spec(reads, at(1), range(0, 1)), key_spec(reads, unknown(), unknown())];
            specs.extend(may_store.then(|| key_spec(stores, unknown(), unknown())));
            specs
        }
        Keys::OneOrMany { at: one, flags, .. } => {
            vec![key_spec(flags, at(one), range(0, 1)), behind_keys(flags, range(-1, 1))]
        }
        Keys::Find(_, flags) => vec![key_spec(flags, unknown(), unknown())],
    }
}

/// The keys behind the word KEYS, if it is there.
fn behind_keys(flags: KeyFlags, find: (&'static str, Reply)) -> Reply {
    key_spec(flags | KeyFlags::INCOMPLETE, ("keyword", keyword("KEYS", -2)), find)
}

/// Where a key stands that a word announces.
fn keyword(name: &'static str, from: i64) -> Reply {
    let from = Reply::Integer(from);
    Reply::Map(vec![(word("keyword"), word(name)), (word("startfrom"), from)])
}

fn key_spec(flags: KeyFlags, begin: (&'static str, Reply), find: (&'static str, Reply)) -> Reply {
    let typed = |(kind, spec): (&'static str, Reply)| {
        Reply::Map(vec![(word("type"), word(kind)), (word("spec"), spec)])
    };
    Reply::Map(vec![
        (word("flags"), Reply::Set(flag_names(flags).into_iter().map(Reply::Simple).collect())),
        (word("begin_search"), typed(begin)),
        (word("find_keys"), typed(find)),
    ])
}

/// The value of a command in COMMAND DOCS.
fn document(entry: &'static Entry) -> Reply {
    let mut fields = Vec::new();
    if let Some((group, doc)) = docs::of(entry) {
        fields.extend([
            (word("summary"), word(doc.summary)),
            (word("since"), word(doc.since)),
            (word("group"), word(group.name)),
            (word("complexity"), word(doc.complexity)),
        ]);
        let arguments = syntax::arguments(doc.syntax);
        if !arguments.is_empty() {
            fields.push((word("arguments"), Reply::Array(arguments)));
        }
    }
    if matches!(entry.command.run, Run::Group(_)) {
        let of_group = subcommands(entry).map(|sub| (text(sub.full_name()), document(sub)));
        fields.push((word("subcommands"), Reply::Map(of_group.collect())));
    }
    Reply::Map(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_documented_and_every_syntax_line_is_understood() {
        for entry in table::entries() {
            let name = entry.full_name();
            let (_, doc) = docs::of(entry).unwrap_or_else(|| panic!("{name} is not documented"));
            let arguments = syntax::arguments(doc.syntax);
            assert_eq!(arguments.is_empty(), doc.syntax.is_empty(), "{name}");
        }
    }

    fn line(text: &str) -> Vec<Bytes> {
        text.split(' ').map(|arg| Bytes::from(arg.to_owned())).collect()
    }

    #[test]
    fn lists_have_the_subcommands() {
        let names = |text: &str| match list(&line(text)) {
            Ok(Reply::Array(names)) => names,
            other => panic!("{other:?}"),
        };
        let all = names("COMMAND LIST");
        assert!(all.contains(&text("set")) && all.contains(&text("client|list")));
        assert_eq!(names("COMMAND LIST FILTERBY PATTERN client|l*"), [text("client|list")]);
    }

    #[test]
    fn keys_of_command_lines() {
        assert_eq!(
            getkeys(&line("COMMAND GETKEYS MSET a 1 b 2")),
            Ok(Reply::Array(vec![text("a"), text("b")]))
        );
        assert_eq!(getkeys(&line("COMMAND GETKEYS x a")), Err(CommandError::COMMAND_UNKNOWN));
        assert_eq!(getkeys(&line("COMMAND GETKEYS PING a")), Err(CommandError::COMMAND_NO_KEYS));
        assert_eq!(getkeys(&line("COMMAND GETKEYS GET")), Err(CommandError::COMMAND_ARITY));
    }
}
