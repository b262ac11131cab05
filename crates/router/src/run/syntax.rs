//! The `arguments` of COMMAND DOCS, made from the syntax lines of `commands::docs` (grammar there).

use bytes::Bytes;
use wire::resp::Reply;

use super::{text, word};

/// The arguments of a syntax line; empty if there are none.
pub(super) fn arguments(line: &'static str) -> Vec<Reply> {
    let mut parser = Parser { tokens: tokens(line), at: 0, keys: 0 };
    parser.sequence().into_iter().map(Argument::into_reply).collect()
}

/// Words and the signs `[ ] < > | ...`.
fn tokens(line: &'static str) -> Vec<&'static str> {
    let mut tokens = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let length = match rest.as_bytes()[0] {
            b'[' | b']' | b'<' | b'>' | b'|' => 1,
            b'.' => 3.min(rest.len()),
            _ => rest.find(|c: char| " []<>|.".contains(c)).unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

#[derive(Default)]
struct Argument {
    name: String,
    kind: &'static str,
    key_spec: Option<i64>,
    token: Option<&'static str>,
    optional: bool,
    multiple: bool,
    parts: Vec<Argument>,
}

struct Parser {
    tokens: Vec<&'static str>,
    at: usize,
    /// Keys met so far: each has a key spec of its own, in order.
    keys: i64,
}

impl Parser {
    fn peek(&self) -> Option<&'static str> {
        self.tokens.get(self.at).copied()
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.peek() == Some(sign);
        self.at += usize::from(found);
        found
    }

    /// Terms up to the end or to what closes or divides a group.
    fn sequence(&mut self) -> Vec<Argument> {
        let mut terms = Vec::new();
        while let Some(token) = self.peek() {
            if matches!(token, "]" | ">" | "|") {
                break;
            }
            self.at += 1;
            let mut term = match token {
                "[" => Argument { optional: true, ..self.group("]") },
                "<" => self.group(">"),
                name => self.argument(name),
            };
            term.multiple |= self.take("...");
            terms.push(term);
        }
        terms
    }

    /// What stands between brackets: one argument, a block of several, or one of several choices.
    fn group(&mut self, close: &str) -> Argument {
        let mut choices = vec![self.sequence()];
        while self.take("|") {
            choices.push(self.sequence());
        }
        self.take(close);
        let mut choices: Vec<Argument> = choices.into_iter().map(block).collect();
        if choices.len() == 1 {
            return choices.remove(0);
        }
        let name = choices.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join("-or-");
        Argument { name, kind: "oneof", parts: choices, ..Argument::default() }
    }

    fn argument(&mut self, name: &'static str) -> Argument {
        let is_token = |word: &str| word.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        if !is_token(name) {
            return self.value(name);
        }
        // A token with a value behind it introduces the value; alone it is an argument itself.
        match self.peek() {
            Some(value) if value.starts_with(|c: char| c.is_ascii_lowercase()) => {
                self.at += 1;
                Argument { token: Some(name), ..self.value(value) }
            }
            _ => {
                let lower = name.to_ascii_lowercase();
                Argument {
                    name: lower,
                    kind: "pure-token",
                    token: Some(name),
                    ..Argument::default()
                }
            }
        }
    }

    fn value(&mut self, name: &'static str) -> Argument {
        let (name, kind) = match name.split_once(':') {
            Some((name, kind)) => (name, kind),
            None => (name, kind_of(name)),
        };
        let mut argument = Argument { name: name.to_owned(), kind, ..Argument::default() };
        if kind == "key" {
            argument.key_spec = Some(self.keys);
            self.keys += 1;
        }
        argument
    }
}

/// Several terms in one place are a block.
fn block(mut terms: Vec<Argument>) -> Argument {
    if terms.len() == 1 {
        return terms.remove(0);
    }
    let name = terms.iter().map(|term| term.name.as_str()).collect::<Vec<_>>().join("-");
    Argument { name, kind: "block", parts: terms, ..Argument::default() }
}

/// The type that a name tells.
fn kind_of(name: &str) -> &'static str {
    match name {
        "key" => "key",
        "pattern" => "pattern",
        "seconds" | "milliseconds" | "count" | "client-id" => "integer",
        _ if name.starts_with("unix-time") => "unix-time",
        _ => "string",
    }
}

impl Argument {
    fn into_reply(self) -> Reply {
        let mut fields = vec![(word("name"), text(self.name)), (word("type"), word(self.kind))];
        if let Some(spec) = self.key_spec {
            fields.push((word("key_spec_index"), Reply::Integer(spec)));
        }
        if let Some(token) = self.token {
            fields.push((word("token"), Reply::Bulk(Bytes::from_static(token.as_bytes()))));
        }
        let flags = [("optional", self.optional), ("multiple", self.multiple)];
        let flags: Vec<Reply> =
            flags.iter().filter(|(_, on)| *on).map(|(flag, _)| Reply::Simple(flag)).collect();
        if !flags.is_empty() {
            fields.push((word("flags"), Reply::Set(flags)));
        }
        if !self.parts.is_empty() {
            let parts = self.parts.into_iter().map(Argument::into_reply).collect();
            fields.push((word("arguments"), Reply::Array(parts)));
        }
        Reply::Map(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(argument: &Argument) -> String {
        let parts: Vec<String> = argument.parts.iter().map(outline).collect();
        let signs = [(argument.optional, "?"), (argument.multiple, "*")];
        let signs: String = signs.iter().filter(|(on, _)| *on).map(|(_, sign)| *sign).collect();
        let token = argument.token.map(|token| format!("{token} ")).unwrap_or_default();
        let parts = if parts.is_empty() { String::new() } else { format!("({})", parts.join(" ")) };
        format!("{token}{}:{}{signs}{parts}", argument.name, argument.kind)
    }

    fn outlines(line: &'static str) -> String {
        let mut parser = Parser { tokens: tokens(line), at: 0, keys: 0 };
        let arguments = parser.sequence();
        assert_eq!(parser.at, parser.tokens.len(), "{line}");
        arguments.iter().map(outline).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn lines() {
        assert_eq!(
            outlines("key value [NX | XX] [GET] [EX seconds | KEEPTTL]"),
            "key:key, value:string, nx-or-xx:oneof?(NX nx:pure-token XX xx:pure-token), \
             GET get:pure-token?, seconds-or-keepttl:oneof?(EX seconds:integer KEEPTTL \
             keepttl:pure-token)"
        );
        assert_eq!(outlines("<key value>..."), "key-value:block*(key:key value:string)");
        assert_eq!(outlines("[ID client-id...]"), "ID client-id:integer?*");
        assert_eq!(outlines("source:key destination:key"), "source:key, destination:key");
    }
}
