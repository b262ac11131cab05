//! MIGRATE: keys go to another server, by DUMP here and RESTORE there.
//!
//! ```text
//! key ──read, with its version, once durable──→ RESTORE on the other server ──OK──→ COPY: done
//!        ↑                                                                     └──→ DEL at that version → done
//!        └──────────── changed since it was read: sent again, with REPLACE ←──────────┘
//! ```
//!
//! So no write to a key is lost, whoever writes while it is on its way; Redis, which serves nobody
//! meanwhile, has no such case. For a moment a key is on both servers, and it stays so if the router
//! ends in between or what became of the DEL is not known (UNCERTAIN). Keys go in rounds of bounded
//! size, each a pipeline; AUTH and SELECT have to succeed before the first of them.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use commands::table::Entry;
use commands::{CommandError, Echo, parse_int};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use wire::ids::TableId;
use wire::resp::Reply;
use wire::service::{Watched, Work, decode_seen};

use super::copy::{Line, delete_as_seen, is_durable, word};
use crate::connection::{Done, Gates};
use crate::route::Caller;
use crate::run::batch::work_at;

/// The timeout of MIGRATE if it is given none, or less than one millisecond.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);
/// Bytes of values at which a round of keys is sent.
const ROUND_BYTES: usize = 1 << 20;
/// Keys of a round at most.
const ROUND_KEYS_MAX: usize = 256;
/// Longest line that the other server may answer, in bytes.
const LINE_BYTES_MAX: u64 = 16 << 10;
/// Bytes of the other server's answer that a refusal repeats.
const ECHO_BYTES_MAX: usize = 1024;
/// How often a key is sent again because it has changed.
const RESENDS_MAX: usize = 16;

/// What a MIGRATE is told.
struct Order<'a> {
    host: &'a str,
    port: u16,
    database: i64,
    timeout: Duration,
    copies: bool,
    replaces: bool,
    login: Option<Vec<Bytes>>,
    keys: &'a [Bytes],
}

impl<'a> Order<'a> {
    fn parse(args: &'a [Bytes]) -> Result<Order<'a>, CommandError> {
        let (mut copies, mut replaces, mut login) = (false, false, None);
        let mut keys = &args[3..4];
        let mut at = 6;
        while let Some(option) = args.get(at) {
            let value = |nth: usize| args.get(at + nth).cloned().ok_or(CommandError::Syntax);
            match option.to_ascii_lowercase().as_slice() {
                b"copy" => copies = true,
                b"replace" => replaces = true,
                b"auth" => {
                    login = Some(vec![value(1)?]);
                    at += 1;
                }
                b"auth2" => {
                    login = Some(vec![value(1)?, value(2)?]);
                    at += 2;
                }
                b"keys" => {
                    if !args[3].is_empty() {
                        return Err(CommandError::MIGRATE_KEY_AND_KEYS);
                    }
                    keys = &args[at + 1..];
                    at = args.len();
                }
                _ => return Err(CommandError::Syntax),
            }
            at += 1;
        }
        let timeout_ms = parse_int(&args[5]).ok_or(CommandError::NotInteger)?;
        let database = parse_int(&args[4]).ok_or(CommandError::NotInteger)?;
        let timeout = match u64::try_from(timeout_ms) {
            Ok(ms @ 1..) => Duration::from_millis(ms),
            _ => TIMEOUT_DEFAULT,
        };
        let host = std::str::from_utf8(&args[1]).map_err(|_| CommandError::MIGRATE_CONNECT)?;
        let port = std::str::from_utf8(&args[2]).ok().and_then(|port| port.parse().ok());
        let port = port.unwrap_or(0);
        Ok(Order { host, port, database, timeout, copies, replaces, login, keys })
    }
}

/// A key on its way.
struct Parcel<'a> {
    key: &'a Bytes,
    watched: [Watched; 1],
    ttl_ms: i64,
    payload: Bytes,
    replaces: bool,
    /// How often it has been sent.
    sent: usize,
}

/// The other server.
struct Target {
    stream: BufReader<TcpStream>,
    timeout: Duration,
}

impl Target {
    /// Connects, logs in and selects the database.
    async fn connect(order: &Order<'_>) -> Result<Target, CommandError> {
        let connected = timeout(order.timeout, TcpStream::connect((order.host, order.port))).await;
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            // Redis does not wait for its connection, and learns of this when it writes.
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
                return Err(CommandError::MIGRATE_WRITE);
            }
            Ok(Err(_)) | Err(_) => return Err(CommandError::MIGRATE_CONNECT),
        };
        // The delay would only cost time.
        let _ = stream.set_nodelay(true);
        let mut target = Target { stream: BufReader::new(stream), timeout: order.timeout };
        let database = Bytes::from(order.database.to_string());
        let login = order.login.iter().map(|words| [&[word("AUTH")][..], &words[..]].concat());
        let select = (order.database != 0).then(|| vec![word("SELECT"), database]);
        for line in login.chain(select) {
            let mut out = BytesMut::new();
            put_line(&mut out, &line);
            target.write(&out).await?;
            if let Some(refusal) = target.read().await? {
                return Err(refusal);
            }
        }
        Ok(target)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        // As in Redis the time is that of a step, so that much may take long as long as it moves.
        for chunk in bytes.chunks(ROUND_BYTES) {
            match timeout(self.timeout, self.stream.get_mut().write_all(chunk)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(CommandError::MIGRATE_WRITE),
            }
        }
        Ok(())
    }

    /// An answer; `Some` if it is a refusal.
    async fn read(&mut self) -> Result<Option<CommandError>, CommandError> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(LINE_BYTES_MAX);
        let read = timeout(self.timeout, bounded.read_until(b'\n', &mut line)).await;
        match (read, line.strip_suffix(b"\r\n")) {
            (Ok(Ok(_)), Some([b'-', error @ ..])) => {
                Ok(Some(CommandError::MigrateRefused(Echo::cut(error, ECHO_BYTES_MAX))))
            }
            (Ok(Ok(_)), Some(_)) => Ok(None),
            _ => Err(CommandError::MIGRATE_READ),
        }
    }
}

fn put_line(out: &mut BytesMut, words: &[Bytes]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// Runs MIGRATE.
pub(crate) async fn run(
    caller: &mut Caller,
    entry: &'static Entry,
    table: TableId,
    args: &[Bytes],
) -> Result<Done, CommandError> {
    let order = Order::parse(args)?;
    let mut moving = Migration { entry, table, order, target: None, refusal: None };
    let mut found = false;
    let mut round: Vec<Parcel<'_>> = Vec::new();
    let mut bytes = 0;
    for key in moving.order.keys {
        if let Some(parcel) = moving.read(caller, key).await? {
            found = true;
            bytes += parcel.payload.len();
            round.push(parcel);
        }
        if bytes >= ROUND_BYTES || round.len() >= ROUND_KEYS_MAX {
            moving.deliver(caller, std::mem::take(&mut round)).await?;
            bytes = 0;
        }
    }
    if !found {
        return Ok(Done::from(Reply::Simple("NOKEY")));
    }
    moving.deliver(caller, round).await?;
    match moving.refusal {
        Some(refusal) => Err(refusal),
        None => Ok(Done::gated(Reply::OK, Gates::new(), !moving.order.copies)),
    }
}

struct Migration<'a> {
    entry: &'static Entry,
    table: TableId,
    order: Order<'a>,
    /// Connected when there is something to send.
    target: Option<Target>,
    /// The first refusal of the other server.
    refusal: Option<CommandError>,
}

impl<'a> Migration<'a> {
    /// Reads a key at a version that is durable; `None` if there is none.
    async fn read(
        &self,
        caller: &mut Caller,
        key: &'a Bytes,
    ) -> Result<Option<Parcel<'a>>, CommandError> {
        let lines = ["PTTL", "DUMP"].map(|name| Line::new([word(name), key.clone()]));
        let commands = [lines[0].as_command(), lines[1].as_command()];
        let deadline = Instant::now() + caller.shared.options.request_timeout;
        loop {
            let keys = std::slice::from_ref(key);
            let work = Work::RunThenLook { watched: &[], commands: &commands, keys };
            let answered = work_at(caller, (self.entry, self.table, key), work).await?;
            let is_seen = is_durable(caller, answered.gate).await;
            if !is_seen.map_err(|_| CommandError::NOT_EXECUTED)? {
                if Instant::now() >= deadline {
                    return Err(CommandError::NOT_EXECUTED);
                }
                continue;
            }
            let Reply::Array(replies) = answered.reply else {
                return Err(CommandError::Operator("MIGRATE: no replies".to_owned()));
            };
            return match <[Reply; 3]>::try_from(replies) {
                Ok([Reply::Integer(ttl_ms), Reply::Bulk(payload), seen]) => {
                    let seen = decode_seen(&seen).flatten();
                    let watched = [Watched { key: key.clone(), seen }];
                    // Negative: it has no time to live.
                    let ttl_ms = if ttl_ms < 0 { 0 } else { ttl_ms.max(1) };
                    let replaces = self.order.replaces;
                    Ok(Some(Parcel { key, watched, ttl_ms, payload, replaces, sent: 0 }))
                }
                Ok([_, Reply::Null, _]) => Ok(None),
                Ok([Reply::Error(line), ..] | [_, Reply::Error(line), _]) => {
                    Err(CommandError::Text(String::from_utf8_lossy(&line).into_owned().into()))
                }
                _ => Err(CommandError::Operator("MIGRATE: an odd reply".to_owned())),
            };
        }
    }

    /// Sends keys, and deletes here what has arrived.
    async fn deliver(
        &mut self,
        caller: &mut Caller,
        mut round: Vec<Parcel<'a>>,
    ) -> Result<(), CommandError> {
        while !round.is_empty() {
            self.send(caller, &round).await?;
            let mut again = Vec::new();
            for parcel in round {
                let target = self.target.as_mut().expect("it was sent to");
                if let Some(refusal) = target.read().await? {
                    self.refusal.get_or_insert(refusal);
                    continue;
                }
                let at = (self.entry, self.table, parcel.key);
                if self.order.copies || delete_as_seen(caller, at, &parcel.watched).await? {
                    continue;
                }
                if parcel.sent + 1 >= RESENDS_MAX {
                    return Err(CommandError::MIGRATE_CHANGING);
                }
                // What was sent is not what is here any more, and it is this command's own.
                if let Some(newer) = self.read(caller, parcel.key).await? {
                    again.push(Parcel { replaces: true, sent: parcel.sent + 1, ..newer });
                }
            }
            round = again;
        }
        Ok(())
    }

    async fn send(&mut self, caller: &Caller, round: &[Parcel<'_>]) -> Result<(), CommandError> {
        let live = &caller.shared.config.live;
        let is_cluster = live.cluster_enabled.load(std::sync::atomic::Ordering::Relaxed);
        let name = if is_cluster { "RESTORE-ASKING" } else { "RESTORE" };
        let mut out = BytesMut::new();
        for parcel in round {
            let ttl_ms = Bytes::from(parcel.ttl_ms.to_string());
            let mut line = vec![word(name), parcel.key.clone(), ttl_ms, parcel.payload.clone()];
            line.extend(parcel.replaces.then(|| word("REPLACE")));
            put_line(&mut out, &line);
        }
        if self.target.is_none() {
            self.target = Some(Target::connect(&self.order).await?);
        }
        self.target.as_mut().expect("just connected").write(&out).await
    }
}
