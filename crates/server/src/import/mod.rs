//! `evenkeel import`: brings the data of a Redis into a running Evenkeel, from its RDB file or from the
//! server itself.
//!
//! ```text
//! dump.rdb ──rdb.rs: finds where each value ends──┐
//!                                                 ├─→ RESTORE key ttl payload ─→ any router
//! Redis ──live.rs: SCAN, PTTL, DUMP───────────────┘
//! ```
//!
//! Values are not decoded on the way: what RDB files hold is what RESTORE takes, so a value of any type
//! and encoding travels as it is, and is checked where it arrives. Keys are written in pipelines and
//! each answer is looked at. What could not be written is told, counted, and makes the command fail.

mod client;
mod live;
mod progress;
mod rdb;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use wire::resp::Reply;

use client::{Client, text};
use progress::Progress;

/// Keys written or read in one pipeline, at most.
const PIPELINE_KEYS: usize = 256;
/// Bytes written in one pipeline, about: a pipeline ends with the value that reaches it.
const PIPELINE_BYTES: usize = 4 << 20;
/// The longest value as RESTORE takes it: an argument of the target (`proto-max-bulk-len`), in bytes.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// Refusals that are told in full; the others are only counted.
const REFUSALS_TOLD_MAX: u64 = 20;

const HELP: &str = "\
evenkeel import: copy the data of a Redis into a running Evenkeel

usage: evenkeel import FILE [options]               from an RDB file of Redis 2.6 to 8
       evenkeel import --from HOST:PORT [options]   from a running Redis, while it runs

  --to HOST:PORT         where to write (default 127.0.0.1:6379)
  --to-user NAME         user to write as
  --to-password SECRET   password to write with
  --replace              overwrite keys that exist; without it they are kept and counted as refused
  --db NUMBER            this database only (default: all)
  --user NAME            user to read as, with --from
  --password SECRET      password to read with, with --from

What is written to the source while it is copied may or may not arrive. The exit code is 0 if every key
was written.
";

/// What is to be copied where.
#[derive(Clone, Debug, PartialEq)]
struct Job {
    source: Source,
    to: Address,
    replace: bool,
    db: Option<u32>,
}

#[derive(Clone, Debug, PartialEq)]
enum Source {
    File(PathBuf),
    Server(Address),
}

/// A server and how to log in there.
#[derive(Clone, Debug, PartialEq)]
struct Address {
    place: String,
    user: Option<String>,
    password: Option<String>,
}

/// Runs `evenkeel import` with these arguments; whether every key was written.
///
/// *Errors*: a text for the user; what was written until then stays.
pub(crate) fn main(args: impl IntoIterator<Item = String>) -> Result<bool> {
    let Some(job) = parse(args)? else {
        print!("{HELP}");
        return Ok(true);
    };
    let target =
        Client::connect(&job.to).with_context(|| format!("connect to {}", job.to.place))?;
    let mut writer = Writer::new(target, job.replace);
    let mut progress = Progress::new();
    match &job.source {
        Source::File(path) => rdb::import(path, job.db, &mut writer, &mut progress)?,
        Source::Server(address) => live::import(address, job.db, &mut writer, &mut progress)?,
    }
    writer.flush()?;
    progress.end(writer.written);
    println!("{} keys written, {} refused", writer.written, writer.refused);
    Ok(writer.refused == 0)
}

/// Reads the arguments; `None` if help is wanted.
fn parse(args: impl IntoIterator<Item = String>) -> Result<Option<Job>> {
    let none = |place: &str| Address { place: place.to_owned(), user: None, password: None };
    let (mut file, mut from) = (None, None);
    let (mut source, mut to) = (none(""), none("127.0.0.1:6379"));
    let (mut replace, mut db) = (false, None);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => {
                (name.to_owned(), Some(value.to_owned()))
            }
            _ => (arg, None),
        };
        let mut value = || {
            let value = inline.clone().or_else(|| args.next());
            value.with_context(|| format!("{name} wants a value"))
        };
        match name.as_str() {
            "--help" | "-h" => return Ok(None),
            "--replace" => replace = true,
            "--from" => from = Some(value()?),
            "--user" => source.user = Some(value()?),
            "--password" => source.password = Some(value()?),
            "--to" => to.place = value()?,
            "--to-user" => to.user = Some(value()?),
            "--to-password" => to.password = Some(value()?),
            "--db" => {
                let text = value()?;
                db = Some(text.parse().with_context(|| format!("--db {text}"))?);
            }
            option if option.starts_with('-') => bail!("unknown option '{option}'"),
            path if file.is_none() => file = Some(PathBuf::from(path)),
            other => bail!("unexpected argument '{other}'"),
        }
    }
    for address in [&source, &to] {
        let alone = address.user.is_some() && address.password.is_none();
        ensure!(!alone, "a user logs in with a password");
    }
    let source = match (file, from) {
        (Some(path), None) => Source::File(path),
        (None, Some(place)) => Source::Server(Address { place, ..source }),
        (Some(_), Some(_)) => bail!("either a file or --from, not both"),
        (None, None) => bail!("wants an RDB file or --from HOST:PORT; see evenkeel import --help"),
    };
    Ok(Some(Job { source, to, replace, db }))
}

/// A key on its way.
struct Entry {
    db: u32,
    key: Bytes,
    /// The time to live or, if `is_absolute`, the moment it ends, in milliseconds; 0: none.
    ttl_ms: u64,
    is_absolute: bool,
    payload: Vec<u8>,
}

/// Writes keys to the target, a pipeline at a time.
struct Writer {
    target: Client,
    replace: bool,
    /// The database selected there.
    db: u32,
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
    written: u64,
    refused: u64,
}

impl Writer {
    fn new(target: Client, replace: bool) -> Writer {
        let (waiting, waiting_bytes) = (Vec::new(), 0);
        Writer { target, replace, db: 0, waiting, waiting_bytes, written: 0, refused: 0 }
    }

    /// Puts a key into the pipeline.
    fn put(&mut self, entry: Entry) -> Result<()> {
        let bytes = entry.payload.len().max(entry.key.len());
        if bytes > PAYLOAD_BYTES_MAX {
            let why = format!("{bytes} bytes are more than an argument may have");
            self.refuse((entry.db, &entry.key), &why);
            return Ok(());
        }
        if entry.db != self.db {
            self.flush()?;
            let index = entry.db.to_string();
            let reply = self.target.call(&[b"SELECT", index.as_bytes()])?;
            ensure!(!matches!(reply, Reply::Error(_)), "SELECT {index} at the target: {reply:?}");
            self.db = entry.db;
        }
        let ttl = entry.ttl_ms.to_string();
        let mut line: Vec<&[u8]> = vec![b"RESTORE", &entry.key, ttl.as_bytes(), &entry.payload];
        if entry.is_absolute && entry.ttl_ms > 0 {
            line.push(b"ABSTTL");
        }
        if self.replace {
            line.push(b"REPLACE");
        }
        self.target.queue(&line);
        self.waiting_bytes += entry.payload.len();
        self.waiting.push(entry.key);
        if self.waiting.len() >= PIPELINE_KEYS || self.waiting_bytes >= PIPELINE_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Sends what waits and looks at the answers.
    fn flush(&mut self) -> Result<()> {
        self.target.send().context("write to the target")?;
        self.waiting_bytes = 0;
        for key in std::mem::take(&mut self.waiting) {
            match self.target.reply().context("read the target's answer")? {
                Reply::Error(why) => self.refuse((self.db, &key), &String::from_utf8_lossy(&why)),
                _ => self.written += 1,
            }
        }
        Ok(())
    }

    /// Tells that a key was not written.
    fn refuse(&mut self, (db, key): (u32, &[u8]), why: &str) {
        self.refused += 1;
        if self.refused <= REFUSALS_TOLD_MAX {
            eprintln!("\ndatabase {db}, key '{}': {why}", key.escape_ascii());
        }
    }

    /// Tells that libraries of functions were not loaded, which counts like a key.
    fn refuse_functions(&mut self, why: &Reply) {
        self.refused += 1;
        eprintln!("\nfunctions are not loaded: {}", text(why));
    }

    /// Has the target run a line that is no key's; its answer.
    fn call(&mut self, line: &[&[u8]]) -> Result<Reply> {
        self.flush()?;
        self.target.call(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Option<Job>> {
        parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn command_lines() {
        let job = read("a.rdb --to=h:1 --to-password x --replace --db 3").unwrap().expect("a job");
        assert_eq!(job.source, Source::File(PathBuf::from("a.rdb")));
        assert_eq!((job.to.place.as_str(), job.to.password.as_deref()), ("h:1", Some("x")));
        assert_eq!((job.replace, job.db), (true, Some(3)));
        let job = read("--from h:2 --user u --password p").unwrap().expect("a job");
        let Source::Server(from) = job.source else { panic!("a server") };
        assert_eq!((from.place.as_str(), from.user.as_deref()), ("h:2", Some("u")));
        assert_eq!(job.to.place, "127.0.0.1:6379");
        assert_eq!(read("--help").unwrap(), None);
        for (line, why) in [
            ("--replace", "wants an RDB file"),
            ("a.rdb --from h:1", "not both"),
            ("a.rdb b.rdb", "unexpected argument"),
            ("a.rdb --db x", "--db x"),
            ("a.rdb --to", "wants a value"),
            ("a.rdb --foo", "unknown option"),
            ("a.rdb --to-user u", "with a password"),
        ] {
            let error = format!("{:#}", read(line).expect_err(line));
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
