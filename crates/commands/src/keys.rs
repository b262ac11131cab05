//! Where a command line's keys stand: one answer for routing, access control and COMMAND GETKEYS.

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use crate::args::parse_int;
use crate::command::{Command, Flags, KeyFlags, Keys};
use crate::error::CommandError;

/// The positions of the keys among `args` (name at position 0), in ascending order for all but
/// [`Keys::Find`]; empty if the command has none, or asks whole tables.
///
/// *Errors*: `KEYS_UNKNOWN` if the arguments do not say where the keys are (a count that is no
/// number, or greater than what follows). The command's handler refuses it then, without a look at
/// any key.
pub fn key_positions(
    command: &Command,
    args: &[Bytes],
) -> Result<SmallVec<[usize; 4]>, CommandError> {
    Ok(match command.keys {
        Keys::None | Keys::Table(_) | Keys::AllTables(_) => SmallVec::new(),
        Keys::Range { first, last, step, .. } => {
            let first = usize::from(first);
            let end = match usize::try_from(last) {
                Ok(last) => (last + 1).min(args.len()),
                // -1 is the last argument.
                Err(_) => (args.len() + 1).saturating_sub(usize::from(last.unsigned_abs())),
            };
            if end == first + 1 {
                smallvec![first]
            } else {
                (first..end).step_by(usize::from(step).max(1)).collect()
            }
        }
        Keys::Into { target, .. } => (usize::from(target)..args.len()).collect(),
        Keys::Pair(..) => (1..args.len().min(3)).collect(),
        Keys::Counted { at, .. } if counts_none(command, args, at) => SmallVec::new(),
        Keys::Counted { at, .. } => counted(args, at)?.collect(),
        Keys::CountedInto { target, at, .. } => {
            std::iter::once(usize::from(target)).chain(counted(args, at)?).collect()
        }
        Keys::CountedPairs { at, .. } => {
            let at = usize::from(at);
            let count = args.get(at).and_then(|count| usize::try_from(parse_int(count)?).ok());
            let count = count.filter(|count| *count > 0 && *count <= (args.len() - at - 1) / 2);
            let count = count.ok_or(CommandError::KEYS_UNKNOWN)?;
            (at + 1..at + 1 + 2 * count).step_by(2).collect()
        }
        Keys::AfterStreams { .. } => {
            let first = streams_word(args).ok_or(CommandError::KEYS_UNKNOWN)? + 1;
            let behind = args.len() - first;
            if behind == 0 || !behind.is_multiple_of(2) {
                return Err(CommandError::KEYS_UNKNOWN);
            }
            (first..first + behind / 2).collect()
        }
        Keys::Sort { stores: true } => (1..args.len().min(2)).chain(sort_target(args)).collect(),
        Keys::Sort { stores: false } => (1..args.len().min(2)).collect(),
        Keys::AndStore { from } => (1..args.len().min(2)).chain(stored(args, from)).collect(),
        Keys::OneOrMany { at, options, .. } => {
            let at = usize::from(at);
            match args.get(at) {
                Some(one) if one.is_empty() => behind_keys(args, at, options),
                _ => (at..args.len().min(at + 1)).collect(),
            }
        }
        Keys::Find(find, _) => {
            let found = find(args);
            if found.iter().any(|at| *at >= args.len()) {
                return Err(CommandError::KEYS_UNKNOWN);
            }
            SmallVec::from_vec(found)
        }
    })
}

/// Where the key stands that the last STORE of a SORT names.
fn sort_target(args: &[Bytes]) -> Option<usize> {
    let mut target = None;
    let mut at = 2;
    while let Some(word) = args.get(at) {
        let values = match word.to_ascii_uppercase().as_slice() {
            b"LIMIT" => 2,
            b"BY" | b"GET" => 1,
            b"STORE" => {
                target = Some(at + 1).filter(|at| *at < args.len());
                1
            }
            _ => 0,
        };
        at += 1 + values;
    }
    target
}

/// Whether a command that needs no keys (EVAL) says that it has none.
fn counts_none(command: &Command, args: &[Bytes], at: u16) -> bool {
    command.flags.has(Flags::NO_MANDATORY_KEYS)
        && args.get(usize::from(at)).is_some_and(|count| parse_int(count) == Some(0))
}

/// Where the word STREAMS stands: not as the value of another option, like a group of that name.
fn streams_word(args: &[Bytes]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += match args.get(at)?.to_ascii_uppercase().as_slice() {
            b"STREAMS" => return Some(at),
            b"GROUP" => 3,
            b"COUNT" | b"BLOCK" => 2,
            _ => 1,
        };
    }
}

/// The positions that a number at a position announces.
fn counted(args: &[Bytes], at: u16) -> Result<std::ops::Range<usize>, CommandError> {
    let at = usize::from(at);
    let count = args.get(at).and_then(|count| usize::try_from(parse_int(count)?).ok());
    let count = count.filter(|count| *count > 0 && *count < args.len() - at);
    let count = count.ok_or(CommandError::KEYS_UNKNOWN)?;
    Ok(at + 1..at + 1 + count)
}

/// The positions behind the word KEYS of a MIGRATE, or that of the empty key if the word is not there.
fn behind_keys(args: &[Bytes], one: usize, options: u16) -> SmallVec<[usize; 4]> {
    let mut at = usize::from(options);
    while let Some(option) = args.get(at) {
        at += match option.to_ascii_uppercase().as_slice() {
            b"KEYS" => return (at + 1..args.len()).collect(),
            b"AUTH" => 2,
            b"AUTH2" => 3,
            _ => 1,
        };
    }
    smallvec![one]
}

/// The position behind the last STORE or STOREDIST.
fn stored(args: &[Bytes], from: u16) -> Option<usize> {
    let (mut at, mut found) = (usize::from(from), None);
    while at + 1 < args.len() {
        let stores = [&b"STORE"[..], b"STOREDIST"].iter().any(|w| args[at].eq_ignore_ascii_case(w));
        found = if stores { Some(at + 1) } else { found };
        at += if stores { 2 } else { 1 };
    }
    found
}

/// What is done with the `nth` key (from 0) of a command; `None` if it takes no keys.
pub fn key_flags(command: &Command, nth: usize) -> Option<KeyFlags> {
    match command.keys {
        Keys::None | Keys::Table(_) | Keys::AllTables(_) => None,
        Keys::Range { flags, .. } | Keys::Counted { flags, .. } | Keys::Find(_, flags) => {
            Some(flags)
        }
        Keys::CountedPairs { flags, .. }
        | Keys::AfterStreams { flags, .. }
        | Keys::OneOrMany { flags, .. } => Some(flags),
        Keys::Sort { .. } if nth == 0 => Some(KeyFlags(KeyFlags::RO.0 | KeyFlags::ACCESS.0)),
        Keys::Sort { .. } => Some(KeyFlags(KeyFlags::OW.0 | KeyFlags::UPDATE.0)),
        Keys::Into { into, from, .. } | Keys::CountedInto { into, from, .. } => {
            Some(if nth == 0 { into } else { from })
        }
        Keys::AndStore { .. } if nth == 0 => Some(KeyFlags::RO | KeyFlags::ACCESS),
        Keys::AndStore { .. } => Some(KeyFlags::OW | KeyFlags::UPDATE),
        Keys::Pair(first, second) => Some(if nth == 0 { first } else { second }),
    }
}

/// What this command line does with its `nth` key. The row of a command with `VARIABLE_FLAGS` says
/// the most that a line may do; this says what it does.
pub fn key_flags_of_line(command: &Command, nth: usize, args: &[Bytes]) -> Option<KeyFlags> {
    let flags = key_flags(command, nth)?;
    if flags.0 & KeyFlags::VARIABLE_FLAGS.0 == 0 {
        return Some(flags);
    }
    let says = |from: usize, words: &[&[u8]]| {
        let mut options = args.iter().skip(from);
        options.any(|option| words.iter().any(|word| option.eq_ignore_ascii_case(word)))
    };
    Some(match command.name {
        "SET" if !says(3, &[b"GET"]) && !says(3, CONDITIONS) => {
            KeyFlags(KeyFlags::OW.0 | KeyFlags::UPDATE.0)
        }
        // Who may not read must not learn by trying, either.
        "DELEX" if says(2, CONDITIONS) => {
            KeyFlags((flags.0 & !KeyFlags::VARIABLE_FLAGS.0) | KeyFlags::ACCESS.0)
        }
        "BITFIELD" if only_reads_fields(args) => KeyFlags(KeyFlags::RO.0 | KeyFlags::ACCESS.0),
        _ => KeyFlags(flags.0 & !KeyFlags::VARIABLE_FLAGS.0),
    })
}

/// Options that tell whether a value is the one that was expected.
const CONDITIONS: &[&[u8]] = &[b"IFEQ", b"IFNE", b"IFDEQ", b"IFDNE"];

/// Whether all subcommands of a BITFIELD are GET; what is no subcommand counts as a write.
fn only_reads_fields(args: &[Bytes]) -> bool {
    let mut rest = args.get(2..).unwrap_or_default();
    loop {
        rest = match rest {
            [] => return true,
            [name, _, _, behind @ ..] if name.eq_ignore_ascii_case(b"GET") => behind,
            [name, _, behind @ ..] if name.eq_ignore_ascii_case(b"OVERFLOW") => behind,
            _ => return false,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Arity, Run};

    fn positions(keys: Keys, line: &str) -> Result<Vec<usize>, CommandError> {
        let args: Vec<Bytes> =
            line.split(' ').map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect();
        let (arity, flags) = (Arity::AtLeast(1), Flags::NONE);
        let command = Command {
            name: "X",
            arity,
            flags,
            keys,
            run: Run::Group(&[]),
            waits: None,
            element: None,
            many: None,
        };
        key_positions(&command, &args).map(|found| found.to_vec())
    }

    #[test]
    fn of_fixed_ranges() {
        let range = |first, last, step| Keys::Range { first, last, step, flags: KeyFlags::RO };
        assert_eq!(positions(range(1, 1, 1), "GET a"), Ok(vec![1]));
        assert_eq!(positions(range(2, 2, 1), "OBJECT ENCODING a"), Ok(vec![2]));
        assert_eq!(positions(range(1, 2, 1), "LCS a b LEN"), Ok(vec![1, 2]));
        assert_eq!(positions(range(1, -1, 1), "DEL a b c"), Ok(vec![1, 2, 3]));
        assert_eq!(positions(range(1, -1, 2), "MSET a 1 b 2"), Ok(vec![1, 3]));
        assert_eq!(positions(range(1, -2, 1), "BLPOP a b 0"), Ok(vec![1, 2]));
        let into = Keys::Into { target: 2, into: KeyFlags::OW, from: KeyFlags::RO };
        assert_eq!(positions(into, "BITOP AND to a b"), Ok(vec![2, 3, 4]));
        // Arity forbids these; they must not panic all the same.
        assert_eq!(positions(range(1, 1, 1), "GET"), Ok(vec![]));
        assert_eq!(positions(range(1, -2, 1), "BLPOP"), Ok(vec![]));
        assert_eq!(positions(Keys::Pair(KeyFlags::RO, KeyFlags::OW), "RENAME a"), Ok(vec![1]));
        assert_eq!(positions(Keys::Sort { stores: true }, "SORT"), Ok(vec![]));
        assert_eq!(positions(Keys::Sort { stores: false }, "SORT_RO"), Ok(vec![]));
    }

    #[test]
    fn of_counts() {
        let counted = Keys::Counted { at: 1, flags: KeyFlags::RO };
        assert_eq!(positions(counted, "ZUNION 2 a b WITHSCORES"), Ok(vec![2, 3]));
        for line in ["ZUNION", "ZUNION 0 a", "ZUNION -1 a", "ZUNION 3 a b", "ZUNION x a"] {
            assert_eq!(positions(counted, line), Err(CommandError::KEYS_UNKNOWN), "{line}");
        }
        let huge = "ZUNION 9223372036854775807 a";
        assert_eq!(positions(counted, huge), Err(CommandError::KEYS_UNKNOWN));
    }

    #[test]
    fn of_pairs_streams_and_sort() {
        let pairs = Keys::CountedPairs { at: 1, flags: KeyFlags::OW };
        assert_eq!(positions(pairs, "MSETEX 2 a 1 b 2 NX"), Ok(vec![2, 4]));
        for line in ["MSETEX 2 a 1 b", "MSETEX 0 a 1", "MSETEX x a 1", "MSETEX -1 a 1"] {
            assert_eq!(positions(pairs, line), Err(CommandError::KEYS_UNKNOWN), "{line}");
        }
        let streams = Keys::AfterStreams { from: 1, flags: KeyFlags::RO };
        assert_eq!(positions(streams, "XREAD COUNT 2 streams a b 0 0"), Ok(vec![4, 5]));
        let grouped = Keys::AfterStreams { from: 4, flags: KeyFlags::RO };
        assert_eq!(
            positions(grouped, "XREADGROUP COUNT 1 GROUP STREAMS streams STREAMS k >"),
            Ok(vec![7])
        );
        assert_eq!(positions(grouped, "XREADGROUP GROUP g c STREAMS a b > 0"), Ok(vec![5, 6]));
        assert_eq!(positions(streams, "XREAD COUNT streams"), Err(CommandError::KEYS_UNKNOWN));
        for line in ["XREAD STREAMS", "XREAD STREAMS a", "XREAD a b", "XREAD STREAMS a b 0"] {
            assert_eq!(positions(streams, line), Err(CommandError::KEYS_UNKNOWN), "{line}");
        }
        assert_eq!(positions(Keys::Sort { stores: true }, "SORT a"), Ok(vec![1]));
        assert_eq!(
            positions(Keys::Sort { stores: true }, "SORT a BY store GET x store b STORE c"),
            Ok(vec![1, 9])
        );
        assert_eq!(positions(Keys::Sort { stores: true }, "SORT a STORE"), Ok(vec![1]));
    }

    #[test]
    fn of_counts_with_a_target() {
        let flags = KeyFlags::RO;
        let keys = Keys::CountedInto { target: 1, at: 2, into: KeyFlags::OW, from: flags };
        assert_eq!(positions(keys, "ZUNIONSTORE to 2 a b WEIGHTS 1 2"), Ok(vec![1, 3, 4]));
        assert_eq!(positions(keys, "ZUNIONSTORE to 3 a b"), Err(CommandError::KEYS_UNKNOWN));
    }

    #[test]
    fn of_what_may_be_stored() {
        let keys = Keys::AndStore { from: 6 };
        assert_eq!(positions(keys, "GEORADIUS k 1 2 3 m"), Ok(vec![1]));
        assert_eq!(positions(keys, "GEORADIUS k 1 2 3 m store a ASC STOREDIST b"), Ok(vec![1, 10]));
        assert_eq!(positions(keys, "GEORADIUS k 1 2 3 m STORE store x"), Ok(vec![1, 7]));
        assert_eq!(positions(keys, "GEORADIUS k 1 2 3 m STORE"), Ok(vec![1]));
        assert_eq!(positions(keys, "GEORADIUS"), Ok(vec![]));
    }

    #[test]
    fn of_one_or_many() {
        let keys = Keys::OneOrMany { at: 3, options: 6, flags: KeyFlags::RW };
        assert_eq!(positions(keys, "MIGRATE h 1 k 0 9 COPY KEYS"), Ok(vec![3]));
        assert_eq!(positions(keys, "MIGRATE h 1  0 9 AUTH keys KEYS a b"), Ok(vec![9, 10]));
        assert_eq!(
            positions(keys, "MIGRATE h 1  0 9 AUTH2 keys keys REPLACE keys a"),
            Ok(vec![11])
        );
        assert_eq!(positions(keys, "MIGRATE h 1  0 9 COPY"), Ok(vec![3]));
        assert_eq!(positions(keys, "MIGRATE h 1  0 9 KEYS"), Ok(vec![]));
        assert_eq!(positions(keys, "MIGRATE"), Ok(vec![]));
    }

    #[test]
    fn flags_of_a_line() {
        let flags = |line: &str| {
            let args: Vec<Bytes> =
                line.split(' ').map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect();
            let entry = crate::table::lookup(&args[0]).expect("a command");
            key_flags_of_line(entry.command, 0, &args).expect("has a key")
        };
        let reads = KeyFlags(KeyFlags::RO.0 | KeyFlags::ACCESS.0);
        let overwrites = KeyFlags(KeyFlags::OW.0 | KeyFlags::UPDATE.0);
        let changes = KeyFlags(KeyFlags::RW.0 | KeyFlags::ACCESS.0 | KeyFlags::UPDATE.0);
        for (line, expected) in [
            ("GET k", reads),
            ("SET k get", overwrites),
            ("SET k v EX 1", overwrites),
            ("SET k v NX GEt", changes),
            ("SET k v ifeq x", changes),
            ("DELEX k", KeyFlags(KeyFlags::RW.0 | KeyFlags::DELETE.0)),
            ("DELEX k IFDNE x", KeyFlags(KeyFlags::RW.0 | KeyFlags::DELETE.0 | KeyFlags::ACCESS.0)),
            ("BITFIELD k", reads),
            ("BITFIELD k get u8 0 overflow wrap GET u8 8", reads),
            ("BITFIELD k GET u8 0 SET u8 0 1", changes),
            ("BITFIELD k foo", changes),
        ] {
            assert_eq!(flags(line), expected, "{line}");
        }
    }

    #[test]
    fn found_by_a_function() {
        let find = Keys::Find(|args| vec![args.len() - 1], KeyFlags::RW);
        assert_eq!(positions(find, "SORT x y"), Ok(vec![2]));
        let beyond = Keys::Find(|args| vec![args.len()], KeyFlags::RW);
        assert_eq!(positions(beyond, "SORT x"), Err(CommandError::KEYS_UNKNOWN));
    }
}
