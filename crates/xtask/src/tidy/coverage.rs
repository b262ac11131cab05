//! Each row of the command table that a partition runs has its golden script,
//! `crates/commands/testscripts/<family>/<name>`; a subcommand's is `<group>-<name>`.

use std::path::PathBuf;

use super::File;

const FAMILIES: &str = "crates/commands/src/families/";

/// Complaints about rows without a script, and about scripts without a row.
pub(crate) fn check(sources: &[File], scripts: &[PathBuf]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut wanted = Vec::new();
    for file in sources {
        let Some(family) = file.path.strip_prefix(FAMILIES).and_then(|n| n.strip_suffix(".rs"))
        else {
            continue;
        };
        for name in names(&file.text) {
            let script = format!("testscripts/{family}/{}", name.to_lowercase());
            if !scripts.iter().any(|path| path.ends_with(&script)) {
                complaints.push(format!("{}: {name} has no crates/commands/{script}", file.path));
            }
            wanted.push(script);
        }
    }
    for script in scripts.iter().filter(|path| !wanted.iter().any(|script| path.ends_with(script)))
    {
        complaints.push(format!("{}: no row of the command table", script.display()));
    }
    complaints
}

/// The names that need a script: of `read` and `write` rows; rows of a group stand in a list named
/// after it (`const OBJECT: …`).
fn names(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut list = String::new();
    for line in text.lines() {
        let line = line.trim_start();
        if let Some((_, rest)) =
            line.split_once("const ").filter(|(_, rest)| rest.contains("&[Command]"))
        {
            list = rest.split(':').next().unwrap_or_default().to_owned();
        }
        let row = ["read", "write"].iter().find_map(|kind| {
            line.strip_prefix(kind)?.trim_start().strip_prefix('(')?.trim_start().strip_prefix('"')
        });
        let Some(name) = row.and_then(|rest| rest.split('"').next()) else { continue };
        let group = list.trim_end_matches("_ROWS");
        let name = if list == "COMMANDS" { name.to_owned() } else { format!("{group}-{name}") };
        names.push(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
pub(crate) const COMMANDS: &[Command] = &[
    read ("GET",    exactly(2), FAST, RO, get),
    write("SET",    at_least(3), NONE, OW, set),
    group("OBJECT", at_least(2), NONE, OBJECT),
    session("PING", at_least(1), FAST, Keys::None, Session::Ping),
];
const OBJECT: &[Command] = &[
    read ("FREQ", exactly(3), NONE, RO, freq),
];
"#;

    #[test]
    fn rows_and_scripts_are_matched_both_ways() {
        let path = "crates/commands/src/families/string.rs".to_owned();
        let sources = [File { path, text: TEXT.to_owned() }];
        let script =
            |name: &str| PathBuf::from(format!("/x/crates/commands/testscripts/string/{name}"));
        assert!(check(&sources, &[script("get"), script("set"), script("object-freq")]).is_empty());
        let complaints = check(&sources, &[script("get"), script("object-freq"), script("gone")]);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].contains("SET") && complaints[1].contains("gone"));
    }
}
