//! The rules about the shape of the code, as a test. Each checker takes what it checks as values and
//! returns complaints, so that each is tested on bad input; this file reads the tree and calls them.
//!
//! | checker | rule |
//! |---|---|
//! | [`graph`] | who may depend on whom |
//! | [`reads`] | who may read clocks, files, sockets, the environment; who may name the engine |
//! | [`lengths`] | files and functions, with a ratchet that only goes down |
//! | [`coverage`] | each row of the command table has its golden script |
//! | [`links`] | what the documents point at exists |
//!
//! and here: no module is named after nothing.

mod coverage;
mod graph;
mod lengths;
mod links;
mod reads;
mod source;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["common", "util", "utils", "helper", "helpers", "misc"];

/// A source file: its path from the root, with `/`, and its text.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Runs all checkers on the workspace.
pub(crate) fn run(root: &Path, tighten: bool) -> Result<()> {
    let sources = read_all(root, "crates", "rs")?;
    let mut documents = read_all(root, "docs", "md")?;
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        if let Ok(text) = std::fs::read_to_string(root.join(name)) {
            documents.push(File { path: name.to_owned(), text });
        }
    }
    let ratchet_path = root.join("crates/xtask/ratchet.txt");
    let ratchet =
        std::fs::read_to_string(&ratchet_path).context("read crates/xtask/ratchet.txt")?;

    let mut complaints = graph::check(&graph::metadata(root)?);
    complaints.extend(reads::check(&sources));
    complaints.extend(names(&sources));
    let scripts = paths_below(&root.join("crates/commands/testscripts"))?;
    complaints.extend(coverage::check(&sources, &scripts));
    complaints.extend(links::check(&documents, &|path| root.join(path).exists()));
    let measured = lengths::measure(&sources);
    if tighten {
        std::fs::write(&ratchet_path, lengths::tightened(&measured, &ratchet)?)?;
    } else {
        complaints.extend(lengths::check(&measured, &ratchet)?);
    }
    ensure!(
        complaints.is_empty(),
        "tidy: {} complaints\n{}",
        complaints.len(),
        complaints.join("\n")
    );
    println!("tidy: {} source files, {} documents, no complaints", sources.len(), documents.len());
    Ok(())
}

fn names(sources: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in sources {
        let stem = file.path.strip_suffix(".rs").unwrap_or(&file.path);
        if let Some(part) = stem.split('/').find(|part| EMPTY_NAMES.contains(part)) {
            complaints.push(format!("{}: nothing is named {part}: say what it holds", file.path));
        }
        let code = source::code(&file.text);
        let words: Vec<&str> = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        for pair in words.windows(2).filter(|pair| pair[0] == "mod") {
            if EMPTY_NAMES.contains(&pair[1]) {
                complaints.push(format!("{}: no module is named {}", file.path, pair[1]));
            }
        }
    }
    complaints
}

/// The files with this extension below a folder, which may be absent.
fn read_all(root: &Path, folder: &str, extension: &str) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for path in paths_below(&root.join(folder))? {
        if path.extension().is_some_and(|found| found == extension) {
            let text =
                std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let path = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            files.push(File { path, text });
        }
    }
    Ok(files)
}

fn paths_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if !folder.exists() {
        return Ok(found);
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            // A package may have been built in place.
            if path.file_name().is_none_or(|name| name != "target") {
                found.extend(paths_below(&path)?);
            }
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_names_are_refused() {
        let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
        assert_eq!(names(&[file("crates/wire/src/util.rs", "")]).len(), 1);
        assert_eq!(names(&[file("crates/common/src/lib.rs", "")]).len(), 1);
        assert_eq!(names(&[file("crates/wire/src/lib.rs", "pub(crate) mod helpers {}")]).len(), 1);
        assert!(names(&[file("crates/wire/src/lib.rs", "// mod helpers\nmod frame;")]).is_empty());
    }

    #[test]
    fn this_tree_is_read() {
        let root = crate::workspace().unwrap();
        let sources = read_all(&root, "crates", "rs").unwrap();
        assert!(sources.iter().any(|file| file.path == "crates/xtask/src/tidy/mod.rs"));
    }
}
