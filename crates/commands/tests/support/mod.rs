//! A session on one partition in memory, and command lines and replies as redis-cli writes them.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::fmt::Write;

use bytes::Bytes;
use commands::notes::Notice;
use commands::rows::{self, RowKind};
use commands::types::keyspace::{self, Expired, ExpiryAgenda};
use commands::{Args, CommandError, Effects, MemoryView, Run, Txn, table};
use wire::ids::Version;
use wire::resp::{DOUBLE_BYTES_MAX, Reply, format_double};

/// The time at which sessions start, in ms since the epoch.
pub const START_MS: u64 = 1_700_000_000_000;

/// Runs commands as a partition's leader does, each as a batch of its own.
pub struct Session {
    pub view: MemoryView,
    noted: Vec<Notice>,
    expiry: ExpiryAgenda,
}

impl Session {
    pub fn new(now_ms: u64) -> Session {
        Session { view: MemoryView::new(now_ms), noted: Vec::new(), expiry: ExpiryAgenda::UNKNOWN }
    }

    /// Events that commands noted since this was last called.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        let mut notices = std::mem::take(&mut self.noted);
        notices.extend(self.view.notes.take());
        notices
    }

    /// Runs a command as router and leader do: row, arity, handler.
    pub fn run(&mut self, args: &[Bytes]) -> Reply {
        match self.try_run(args) {
            Ok(reply) => reply.unfold(),
            Err(error) => error.into(),
        }
    }

    /// Runs commands on one transaction, as EXEC does.
    pub fn run_together(&mut self, commands: &[Vec<Bytes>]) {
        let mut txn = self.begin();
        for args in commands {
            let mut entry = table::lookup(&args[0]).expect("a command");
            if let (Run::Group(_), Some(sub)) = (&entry.command.run, args.get(1)) {
                entry = table::lookup_subcommand(entry, sub).expect("a subcommand");
            }
            match entry.command.run {
                Run::Write(handler) => {
                    let mut inner = Txn::new(&txn, txn.next_version());
                    let done = handler(&mut inner, Args(args));
                    let effects = inner.into_effects();
                    if done.is_ok() {
                        txn.merge(effects);
                    }
                }
                _ => panic!("only writes run together"),
            }
        }
        let effects = txn.into_effects();
        self.apply(effects);
    }

    /// Runs lines of one command on one key at once, as far as its handler for several goes, and the
    /// rest one by one.
    pub fn run_many(&mut self, lines: &[Vec<Bytes>]) -> Vec<Reply> {
        let mut replies = Vec::new();
        while replies.len() < lines.len() {
            let left: Vec<Args<'_>> = lines[replies.len()..].iter().map(|l| Args(l)).collect();
            let many = table::lookup(&left[0].0[0]).expect("a command").command.many;
            let mut txn = self.begin();
            let ran = many.expect("a handler for several")(&mut txn, &left).expect("no refusal");
            let effects = txn.into_effects();
            assert_eq!(ran.iter().any(|ran| ran.wrote), !effects.is_empty());
            self.apply(effects);
            if ran.is_empty() {
                replies.push(self.run(left[0].0));
            }
            replies.extend(ran.into_iter().map(|ran| ran.reply.unfold()));
        }
        replies
    }

    /// How many of these lines its handler for several would run at once.
    pub fn try_many(&self, lines: &[&str]) -> Result<usize, CommandError> {
        let lines: Vec<_> = lines.iter().map(|line| split(line)).collect();
        let many = table::lookup(&lines[0][0]).expect("a command").command.many;
        let lines: Vec<Args<'_>> = lines.iter().map(|line| Args(line)).collect();
        many.expect("a handler for several")(&mut self.begin(), &lines).map(|ran| ran.len())
    }

    /// All rows of collections, without their generations, which are not the same where less is written.
    pub fn rows_of_collections(&self) -> Vec<(Bytes, Bytes)> {
        let row = |(row, value): (&Bytes, &Bytes)| match rows::parse(row)? {
            RowKind::Data { sub, .. } => Some((Bytes::copy_from_slice(sub), value.clone())),
            _ => None,
        };
        self.view.rows.iter().filter_map(row).collect()
    }

    /// What a write would leave.
    pub fn effects_of(&self, line: &str) -> Effects {
        let args = split(line);
        let entry = table::lookup(&args[0]).expect("a command");
        let Run::Write(handler) = entry.command.run else { panic!("a write") };
        let mut txn = self.begin();
        handler(&mut txn, Args(&args)).expect("no refusal");
        txn.into_effects()
    }

    fn try_run(&mut self, args: &[Bytes]) -> Result<Reply, CommandError> {
        let name = args.first().map(|name| String::from_utf8_lossy(name)).unwrap_or_default();
        let unknown = || CommandError::text("ERR unknown command");
        let mut entry = table::lookup(name.as_bytes()).ok_or_else(unknown)?;
        let mut full_name = name.to_ascii_lowercase();
        if let (Run::Group(_), Some(sub)) = (&entry.command.run, args.get(1)) {
            entry = table::lookup_subcommand(entry, sub).ok_or_else(unknown)?;
            full_name = format!("{full_name}|{}", entry.command.name.to_ascii_lowercase());
        }
        if !entry.command.arity.accepts(args.len()) {
            return Err(CommandError::Arity(full_name.into()));
        }
        match entry.command.run {
            Run::Read(handler) => handler(&self.view, Args(args)),
            Run::Write(handler) => {
                let mut txn = self.begin();
                let reply = handler(&mut txn, Args(args))?;
                let effects = txn.into_effects();
                self.apply(effects);
                Ok(reply)
            }
            _ => Err(CommandError::text("ERR not a partition's command")),
        }
    }

    pub fn run_line(&mut self, line: &str) -> Reply {
        self.run(&split(line))
    }

    /// The leader's expiry task.
    pub fn expire_due(&mut self, limit: usize) -> Expired {
        let mut txn = self.begin();
        let expired = keyspace::expire_due(&mut txn, &self.expiry, limit).expect("sound rows");
        let effects = txn.into_effects();
        self.expiry.done(&expired, self.view.now_ms);
        self.apply(effects);
        expired
    }

    /// Takes effects over, as the leader does.
    pub fn apply(&mut self, mut effects: Effects) {
        self.noted.append(&mut effects.notices);
        for write in effects.writes.iter().filter(|write| write.value.is_some()) {
            if let Some(due) = rows::ttl_due_ms(&write.row) {
                self.expiry.add(due);
            }
        }
        self.view.apply(effects);
    }

    pub fn begin(&self) -> Txn<'_> {
        Txn::new(&self.view, Version { index: self.view.next_index, ordinal: 0 })
    }
}

/// Splits a command line as redis-cli does: blanks, `"…"` with escapes, `'…'`.
pub fn split(line: &str) -> Vec<Bytes> {
    let mut args = Vec::new();
    let mut rest = line.bytes().peekable();
    loop {
        while rest.next_if(u8::is_ascii_whitespace).is_some() {}
        let Some(first) = rest.peek().copied() else { return args };
        let mut arg = Vec::new();
        if matches!(first, b'"' | b'\'') {
            rest.next();
            while let Some(byte) = rest.next_if(|byte| *byte != first) {
                let escape = byte == b'\\' && first == b'"';
                arg.push(if escape { unescape(&mut rest) } else { byte });
            }
            assert_eq!(rest.next(), Some(first), "unclosed quote in {line}");
        } else {
            while let Some(byte) = rest.next_if(|byte| !byte.is_ascii_whitespace()) {
                arg.push(byte);
            }
        }
        args.push(Bytes::from(arg));
    }
}

fn unescape(rest: &mut impl Iterator<Item = u8>) -> u8 {
    match rest.next().expect("an escaped character") {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'x' => {
            let digits = [rest.next(), rest.next()].map(|digit| digit.expect("two digits"));
            let digits = std::str::from_utf8(&digits).expect("ASCII");
            u8::from_str_radix(digits, 16).expect("hexadecimal digits")
        }
        other => other,
    }
}

/// A reply as `redis-cli -3` prints it on a terminal.
pub fn print(reply: &Reply) -> String {
    let mut out = String::new();
    print_at(reply, "", &mut out);
    out
}

fn print_at(reply: &Reply, indent: &str, out: &mut String) {
    match reply {
        Reply::Simple(text) => out.push_str(text),
        Reply::Status(text) => out.push_str(&String::from_utf8_lossy(text)),
        Reply::Error(text) => write!(out, "(error) {}", quoted(text)).expect("a String"),
        Reply::Integer(value) => write!(out, "(integer) {value}").expect("a String"),
        Reply::Bulk(text) => write!(out, "\"{}\"", quoted(text)).expect("a String"),
        Reply::Null | Reply::NullArray => out.push_str("(nil)"),
        Reply::Double(value) => {
            let mut digits = [0; DOUBLE_BYTES_MAX];
            let digits = format_double(*value, &mut digits);
            write!(out, "(double) {}", quoted(digits)).expect("a String")
        }
        Reply::DoubleText(digits) => write!(out, "(double) {}", quoted(digits)).expect("a String"),
        Reply::Boolean(value) => write!(out, "({value})").expect("a String"),
        Reply::Array(items) if items.is_empty() => out.push_str("(empty array)"),
        Reply::Array(items) => print_items(items.iter(), ')', indent, out),
        Reply::Set(items) => print_items(items.iter(), '~', indent, out),
        Reply::Keyed(pairs) => print_at(&Reply::Map(pairs.clone()), indent, out),
        Reply::Map(pairs) => {
            for (number, (key, value)) in pairs.iter().enumerate() {
                let start = if number == 0 { "" } else { indent };
                write!(out, "{start}{}# ", number + 1).expect("a String");
                print_at(key, "", out);
                out.push_str(" => ");
                let deeper = format!("{indent}   ");
                if matches!(value, Reply::Array(items) if !items.is_empty()) {
                    write!(out, "\n{deeper}").expect("a String");
                }
                print_at(value, &deeper, out);
                out.push('\n');
            }
            out.truncate(out.trim_end().len());
        }
        Reply::Pairs(pairs) => {
            let nested: Vec<_> = pairs
                .iter()
                .map(|(key, value)| Reply::Array(vec![key.clone(), value.clone()]))
                .collect();
            print_at(&Reply::Array(nested), indent, out);
        }
        other => write!(out, "{other:?}").expect("a String"),
    }
}

fn quoted(text: &[u8]) -> String {
    text.escape_ascii().to_string().replace("\\'", "'")
}

fn print_items<'a>(
    items: impl Iterator<Item = &'a Reply>,
    mark: char,
    indent: &str,
    out: &mut String,
) {
    for (number, item) in items.enumerate() {
        if number > 0 {
            write!(out, "\n{indent}").expect("a String");
        }
        let label = format!("{}{mark} ", number + 1);
        out.push_str(&label);
        print_at(item, &format!("{indent}{}", " ".repeat(label.len())), out);
    }
}

/// A small seeded generator (xorshift64*), so that a failure repeats.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}
