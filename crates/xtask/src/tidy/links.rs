//! What the documents point at exists: files behind relative links and paths in backticks, headings
//! behind anchors.

use super::File;

/// Complaints about links; `exists` tells of a path from the root.
pub(crate) fn check(documents: &[File], exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    for document in documents {
        let text = prose(&document.text);
        let folder = document.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { document.path.clone() } else { join(folder, path) };
            if !exists(&target) {
                complaints.push(format!("{}: link to {link}: no such file", document.path));
                continue;
            }
            let linked = documents.iter().find(|other| other.path == target);
            if let Some(linked) = linked.filter(|_| !anchor.is_empty())
                && !anchors(&linked.text).iter().any(|found| found == anchor)
            {
                complaints.push(format!("{}: link to {link}: no such heading", document.path));
            }
        }
        for path in text.split('`').skip(1).step_by(2) {
            let place = path.starts_with("crates/") || path.starts_with("docs/");
            let plain = !path.contains([' ', '<', '*', '{', '…']);
            if place && plain && !exists(path.split(':').next().unwrap_or_default()) {
                complaints.push(format!("{}: `{path}`: no such file", document.path));
            }
        }
    }
    complaints
}

/// The text without fenced blocks.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let keep = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    };
    text.lines().filter(keep).map(|line| format!("{line}\n")).collect()
}

/// The targets of `[text](target)`.
fn links(text: &str) -> Vec<&str> {
    text.match_indices("](")
        .filter_map(|(at, _)| text[at + 2..].split([')', ' ', '\n']).next())
        .filter(|target| !target.is_empty())
        .collect()
}

/// Headings as GitHub makes anchors of them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let keep = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            title.chars().filter(keep).map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// A path from the root for one from a folder.
fn join(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str) -> Vec<String> {
        let exists =
            |path: &str| ["docs/a.md", "README.md", "crates/wire/src/lib.rs"].contains(&path);
        check(&[File { path: "docs/a.md".to_owned(), text: text.to_owned() }], &exists)
    }

    #[test]
    fn dead_links_are_found() {
        assert_eq!(complaints("[x](gone.md)").len(), 1);
        assert_eq!(complaints("[x](../docs/gone.md) and `crates/gone/src/lib.rs`").len(), 2);
        assert_eq!(complaints("# Some Heading\n[x](#another)").len(), 1);
    }

    #[test]
    fn live_ones_pass() {
        let text = "# The life of a `write`, 1.0\n[x](../README.md) [y](#the-life-of-a-write-10) [z](https://a.b/c)\n\
                    `crates/wire/src/lib.rs` `crates/<name>/src`\n```\n[x](gone.md)\n```\n";
        assert_eq!(complaints(text), Vec::<String>::new());
    }
}
