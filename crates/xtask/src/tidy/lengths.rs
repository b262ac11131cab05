//! Files and functions have a length that one can hold in one's head. What is longer today stands in
//! the ratchet with its length; it may shrink, never grow, and the ratchet follows it down.
//!
//! ```text
//! ratchet = (comment | entry)*
//! comment = "#" text
//! entry   = path ["::" function] " " lines
//! ```

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::{File, source};

/// A file's lines: beyond the first only by the ratchet, beyond the second never.
const FILE_LINES: usize = 800;
const FILE_LINES_MAX: usize = 1_200;
/// A function's lines, from `fn` to its closing brace.
const FUNCTION_LINES: usize = 70;

const HEADER: &str = "\
# What is longer than the rules allow, and how long it is. Numbers only go down: after shortening
# something run `cargo xtask tidy --tighten`.
";

/// What is too long: its place and its lines. Functions of one name in a file count as the longest.
pub(crate) fn measure(sources: &[File]) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for file in sources {
        let lines = file.text.lines().count();
        if lines > FILE_LINES {
            found.insert(file.path.clone(), lines);
        }
        for (name, lines) in functions(&source::code(&file.text)) {
            if lines > FUNCTION_LINES {
                let longest = found.entry(format!("{}::{name}", file.path)).or_default();
                *longest = lines.max(*longest);
            }
        }
    }
    found
}

/// Complaints about what has grown, and about a ratchet that lags behind.
pub(crate) fn check(measured: &BTreeMap<String, usize>, ratchet: &str) -> Result<Vec<String>> {
    let allowed = parse(ratchet)?;
    let mut complaints = Vec::new();
    for (place, lines) in measured {
        let function = place.contains("::");
        let limit = if function { FUNCTION_LINES } else { FILE_LINES };
        let allowed = allowed.get(place).copied().unwrap_or(limit);
        if !function && *lines > FILE_LINES_MAX {
            complaints.push(format!("{place}: {lines} lines; {FILE_LINES_MAX} are never exceeded"));
        } else if *lines > allowed {
            complaints.push(format!("{place}: {lines} lines, allowed are {allowed}"));
        }
    }
    for (place, allowed) in &allowed {
        let lines = measured.get(place).copied().unwrap_or(0);
        if lines < *allowed {
            complaints.push(format!(
                "{place}: the ratchet says {allowed} lines and it has become shorter: \
                 run `cargo xtask tidy --tighten`"
            ));
        }
    }
    Ok(complaints)
}

/// The ratchet with each entry at what is measured now; entries are never raised or added.
pub(crate) fn tightened(measured: &BTreeMap<String, usize>, ratchet: &str) -> Result<String> {
    let mut text = HEADER.to_owned();
    for (place, allowed) in parse(ratchet)? {
        if let Some(lines) = measured.get(&place) {
            text.push_str(&format!("{place} {}\n", allowed.min(*lines)));
        }
    }
    Ok(text)
}

fn parse(ratchet: &str) -> Result<BTreeMap<String, usize>> {
    let entries = ratchet.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    entries
        .map(|line| {
            let (place, lines) =
                line.rsplit_once(' ').with_context(|| format!("ratchet: {line}"))?;
            Ok((place.to_owned(), lines.parse().with_context(|| format!("ratchet: {line}"))?))
        })
        .collect()
}

/// The functions of some code and their lines.
fn functions(code: &str) -> Vec<(&str, usize)> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].chars().next_back().is_some_and(word) {
            continue;
        }
        let name = code[at + 3..].split(|c| !word(c)).next().unwrap_or_default();
        // A pointer type (`fn (x)`) has no name, a declaration without a body no brace.
        let open = code[at..].find(['{', ';']).map(|length| at + length);
        let Some(open) = open.filter(|open| !name.is_empty() && code.as_bytes()[*open] == b'{')
        else {
            continue;
        };
        if let Some(close) = source::closing(code, open) {
            found.push((name, source::line_of(code, close) - source::line_of(code, at) + 1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: String) -> Vec<File> {
        vec![File { path: "crates/a/src/b.rs".to_owned(), text }]
    }

    fn function(lines: usize) -> String {
        format!(
            "impl X {{\n    fn long<T: Fn()>(f: fn(u8)) -> u8 {{\n{}    }}\n}}\n",
            "x;\n".repeat(lines - 2)
        )
    }

    #[test]
    fn lengths_are_measured_from_fn_to_brace() {
        let code = source::code(&function(10));
        assert_eq!(functions(&code), [("long", 10)]);
        assert!(functions("trait T { fn a(); } type F = fn(u8) -> u8;").is_empty());
    }

    #[test]
    fn too_long_is_refused() {
        assert!(measure(&file(function(70))).is_empty());
        let measured = measure(&file(function(71)));
        assert_eq!(check(&measured, "").unwrap().len(), 1);
        assert!(check(&measured, "crates/a/src/b.rs::long 71\n").unwrap().is_empty());
        assert_eq!(check(&measured, "crates/a/src/b.rs::long 70\n").unwrap().len(), 1);
        let measured = measure(&file("x\n".repeat(801)));
        assert_eq!(check(&measured, "").unwrap().len(), 1);
        assert!(check(&measured, "crates/a/src/b.rs 801\n").unwrap().is_empty());
        let measured = measure(&file("x\n".repeat(1_201)));
        assert_eq!(check(&measured, "crates/a/src/b.rs 1201\n").unwrap().len(), 1);
    }

    #[test]
    fn the_ratchet_only_goes_down() {
        let ratchet = "# note\ncrates/a/src/b.rs 900\n";
        let measured = measure(&file("x\n".repeat(850)));
        assert_eq!(check(&measured, ratchet).unwrap().len(), 1, "it lags behind");
        assert!(tightened(&measured, ratchet).unwrap().ends_with("crates/a/src/b.rs 850\n"));
        let grown = measure(&file("x\n".repeat(950)));
        assert!(tightened(&grown, ratchet).unwrap().ends_with("crates/a/src/b.rs 900\n"));
        let gone = measure(&file(String::new()));
        assert!(!tightened(&gone, ratchet).unwrap().contains("crates"));
        assert!(check(&gone, "crates/a/src/b.rs many\n").is_err());
    }
}
