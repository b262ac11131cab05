//! The ACL file: a user per line, as ACL LIST tells them.
//!
//! ```text
//! file = { line "\n" }
//! line = "" | "user" name { rule }
//! ```
//!
//! A file is taken as a whole or not at all; what is wrong is told for all its lines at once, in
//! Redis's words. Comments are wrong: the file is rewritten by ACL SAVE, which would lose them.

use super::selector::has_spaces;
use super::user::{Defaults, User, joined};
use crate::error::AclRuleError;

/// The users of a file's text, in its order. `name` is the file's, for the complaints.
///
/// *Errors*: all that is wrong, in one line.
pub fn parse_file(text: &[u8], name: &str, defaults: Defaults) -> Result<Vec<User>, String> {
    let mut users: Vec<User> = Vec::new();
    let mut complaints = String::new();
    for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        match parse_line(line, at + 1, name, defaults) {
            Ok(user) if users.iter().any(|known| known.name() == user.name()) => {
                let user = String::from_utf8_lossy(user.name()).into_owned();
                let line = at + 1;
                complaints += &format!("WARNING: Duplicate user '{user}' found on line {line}. ");
            }
            Ok(user) => users.push(user),
            Err(complaint) => complaints += &complaint,
        }
    }
    if complaints.is_empty() { Ok(users) } else { Err(complaints) }
}

fn parse_line(line: &[u8], number: usize, name: &str, defaults: Defaults) -> Result<User, String> {
    // As Redis splits: at each blank, so that two of them hold an empty rule, which means nothing.
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [b"user", user, rules @ ..] = &words[..] else {
        return Err(format!(
            "{name}:{number} should start with user keyword followed by the username. "
        ));
    };
    if has_spaces(user) {
        let user = String::from_utf8_lossy(user);
        return Err(format!("'{name}:{number}: username '{user}' contains invalid characters. "));
    }
    let rules = joined(rules)
        .map_err(|_| format!("{name}:{number}: Unmatched parenthesis in selector definition."))?;
    let mut user = User::new(user, defaults);
    let mut complaints = String::new();
    let mut is_first = true;
    for rule in rules {
        let rule = rule.trim_ascii();
        let Err(why) = user.apply(rule, defaults) else { continue };
        if why == AclRuleError::Unknown {
            let rule = String::from_utf8_lossy(rule);
            complaints +=
                &format!("{name}:{number}: Error in applying operation '{rule}': {why}. ");
        } else if is_first {
            // Only the first, without its text: it may be a password, and others may follow from it.
            is_first = false;
            complaints += &format!("{name}:{number}: {why}. ");
        }
    }
    if complaints.is_empty() { Ok(user) } else { Err(complaints) }
}

/// The text of a file with these users.
pub fn write_file<'a>(users: impl IntoIterator<Item = &'a User>) -> Vec<u8> {
    let mut text = Vec::new();
    for user in users {
        text.extend_from_slice(&user.describe());
        text.push(b'\n');
    }
    text
}
