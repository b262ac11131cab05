//! Where the keys of a command line are, and what is done with them.
//!
//! One reading of the table's key specs for routing and for COMMAND GETKEYS, so that the two cannot
//! disagree.

use bytes::Bytes;
use commands::{KeyFlags, Keys, parse_int};

/// Calls `visit` with the position of each key and what is done with it, until it answers false.
pub(crate) fn visit(keys: &Keys, args: &[Bytes], mut visit: impl FnMut(usize, KeyFlags) -> bool) {
    match *keys {
        Keys::None | Keys::Table(_) | Keys::AllTables(_) => {}
        Keys::Range { first, last, step, flags } => {
            let last = match usize::try_from(last) {
                Ok(last) => last,
                Err(_) => args.len().saturating_sub(usize::from(last.unsigned_abs())),
            };
            let mut at = usize::from(first);
            while at <= last && at < args.len() && visit(at, flags) {
                at += usize::from(step);
            }
        }
        Keys::Pair(source, destination) => {
            if args.len() > 2 && visit(1, source) {
                visit(2, destination);
            }
        }
        Keys::Counted { at, flags } => {
            let at = usize::from(at);
            let count = args.get(at).and_then(|arg| parse_int(arg)).unwrap_or(0);
            let count = usize::try_from(count).unwrap_or(0);
            // A count beyond the end is the handler's to refuse: no key is sure then.
            if count <= args.len().saturating_sub(at + 1) {
                let mut positions = at + 1..=at + count;
                let _ = positions.all(|position| visit(position, flags));
            }
        }
        Keys::Find(find, flags) => {
            let _ = find(args).into_iter().all(|position| visit(position, flags));
        }
    }
}

/// The names of key flags, as COMMAND tells them.
pub(crate) fn flag_names(flags: KeyFlags) -> Vec<&'static str> {
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

#[cfg(test)]
mod tests {
    use commands::table;

    use super::*;

    fn positions(line: &str) -> Vec<usize> {
        let args: Vec<Bytes> = line.split(' ').map(|arg| Bytes::from(arg.to_owned())).collect();
        let entry = table::lookup(&args[0]).expect("a command");
        let mut found = Vec::new();
        visit(&entry.command.keys, &args, |at, _| {
            found.push(at);
            true
        });
        found
    }

    #[test]
    fn positions_of_keys() {
        assert_eq!(positions("GET a"), [1]);
        assert_eq!(positions("MSET a 1 b 2"), [1, 3]);
        assert_eq!(positions("DEL a b c"), [1, 2, 3]);
        assert_eq!(positions("COPY a b DB 1"), [1, 2]);
        assert_eq!(positions("PING"), [0; 0]);
        assert_eq!(positions("SCAN 0"), [0; 0]);
    }

    #[test]
    fn counted_keys_stay_inside_the_line() {
        let keys = Keys::Counted { at: 1, flags: KeyFlags::RO };
        let count = |args: &[&str]| {
            let args: Vec<Bytes> = args.iter().map(|a| Bytes::from((*a).to_owned())).collect();
            let mut found = 0;
            visit(&keys, &args, |_, _| {
                found += 1;
                true
            });
            found
        };
        assert_eq!(count(&["X", "2", "a", "b"]), 2);
        assert_eq!(count(&["X", "3", "a", "b"]), 0);
        assert_eq!(count(&["X", "-1", "a"]), 0);
        assert_eq!(count(&["X", "9223372036854775807", "a"]), 0);
        assert_eq!(count(&["X"]), 0);
    }
}
