//! Who may read what: the cores read no clock, socket, file or environment (time and messages come
//! in as values, so that a simulation can drive them), only the server reads configuration, and only
//! storage names the engine.

use super::{File, source};

/// Crates that are functions of their inputs.
const PURE: &[&str] = &["wire", "paxos", "commands"];
/// Crates that may have clocks and sockets, but are configured by values.
const CONFIGURED: &[&str] = &["memds", "storage", "router", "control"];

/// Paths that pure code may not name, and why.
const IMPURE_PATHS: &[(&str, &str)] = &[
    ("Instant::now", "reads a clock"),
    ("SystemTime", "reads a clock"),
    ("UNIX_EPOCH", "reads a clock"),
    ("tokio", "does I/O"),
    ("std::fs", "reads files"),
    ("std::io::stdin", "reads a stream"),
    ("std::thread", "has its own time"),
    ("std::process", "has an outside"),
    ("TcpStream", "opens sockets"),
    ("TcpListener", "opens sockets"),
    ("UdpSocket", "opens sockets"),
    ("thread_rng", "reads randomness"),
    ("rand::rng", "reads randomness"),
    ("getrandom", "reads randomness"),
];
const CONFIGURATION_PATHS: &[(&str, &str)] = &[("std::env", "reads the environment")];
const ENGINE_PATHS: &[(&str, &str)] =
    &[("fjall", "names the engine"), ("lsm_tree", "names the engine")];

/// Complaints about forbidden paths in the code that is shipped.
pub(crate) fn check(sources: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in sources {
        let Some((name, "src")) = crate_and_folder(&file.path) else { continue };
        let code = expand(&source::without_tests(&source::code(&file.text)));
        let mut forbid = |paths: &[(&str, &str)]| {
            for (path, why) in paths {
                if let Some(line) = names(&code, path) {
                    complaints.push(format!("{}:{line}: {path}: {name} never {why}", file.path));
                }
            }
        };
        if PURE.contains(&name) {
            forbid(IMPURE_PATHS);
        }
        if PURE.contains(&name) || CONFIGURED.contains(&name) {
            forbid(CONFIGURATION_PATHS);
        }
        if name != "storage" {
            forbid(ENGINE_PATHS);
        }
    }
    complaints
}

/// `crates/<name>/<folder>/…`
fn crate_and_folder(path: &str) -> Option<(&str, &str)> {
    let mut parts = path.strip_prefix("crates/")?.split('/');
    Some((parts.next()?, parts.next()?))
}

/// The line where the path stands as a whole path of words.
fn names(code: &str, path: &str) -> Option<usize> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(path).find_map(|(at, _)| {
        let before = code[..at].chars().next_back().is_some_and(word);
        let after = code[at + path.len()..].chars().next().is_some_and(word);
        (!before && !after).then(|| source::line_of(code, at))
    })
}

/// Code in which `std::{fs, env::args}` reads `std::fs, std::env::args`: groups under `std` are
/// spelt out, in place and on one line, as far as the rules need.
fn expand(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("std::{") {
        let open = at + "std::".len();
        let close = source::closing(rest, open).unwrap_or(rest.len() - 1);
        out.push_str(&rest[..at]);
        let mut depth = 0usize;
        let mut start = true;
        for character in rest[open + 1..close].chars() {
            if start && (character.is_alphanumeric() || character == '_') {
                out.push_str("std::");
                start = false;
            }
            match character {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => start = true,
                _ => {}
            }
            out.push(character);
        }
        rest = rest.get(close + 1..).unwrap_or_default();
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> usize {
        check(&[File { path: path.to_owned(), text: text.to_owned() }]).len()
    }

    #[test]
    fn a_core_that_reads_is_found() {
        let core = "crates/paxos/src/replica.rs";
        assert_eq!(complaints(core, "let now = std::time::Instant::now();"), 1);
        assert_eq!(complaints(core, "use std::{collections::BTreeMap, fs};"), 1);
        assert_eq!(complaints(core, "use std::{env, thread::sleep, fs::{self, File}};"), 3);
        assert_eq!(complaints(core, "use tokio::sync::mpsc;"), 1);
        assert_eq!(complaints("crates/commands/src/lib.rs", "std::env::var(x)"), 1);
        assert_eq!(complaints("crates/router/src/lib.rs", "use std::env;"), 1);
        assert_eq!(complaints("crates/router/src/lib.rs", "fjall::Keyspace::open()"), 1);
    }

    #[test]
    fn what_is_allowed_passes() {
        let core = "crates/paxos/src/replica.rs";
        assert_eq!(
            complaints(core, "// Instant::now() is never called\nfn tick(now_ms: u64) {}"),
            0
        );
        assert_eq!(complaints(core, "fn step() {}\n#[cfg(test)]\nmod tests { use std::fs; }"), 0);
        assert_eq!(complaints(core, "let my_tokio_name = \"tokio\"; env!(\"X\");"), 0);
        assert_eq!(complaints("crates/paxos/tests/scripts.rs", "std::fs::read(x)"), 0);
        assert_eq!(complaints("crates/storage/src/lib.rs", "fjall::open(Instant::now())"), 0);
        assert_eq!(complaints("crates/server/src/main.rs", "std::env::args()"), 0);
    }
}
