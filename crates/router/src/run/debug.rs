//! DEBUG: the parts of it that tools and test suites use. Off unless the server was started with
//! `enable-debug-command`, as in Redis.

use std::time::Duration;

use bytes::Bytes;
use commands::table;
use commands::{CommandError, Echo};
use wire::resp::Reply;

use super::{help, text, verbatim, word};
use crate::connection::{Connection, Done};
use crate::route::{Answered, Routed};

/// Longest DEBUG SLEEP.
const SLEEP_MAX: Duration = Duration::from_secs(3600);
/// Bytes of a DUMP payload that are not the value: its type before it; version and checksum behind.
const DUMP_FRAME_BYTES: usize = 1 + 2 + 8;
/// Longest subcommand that a refusal repeats, in bytes.
const ECHO_BYTES_MAX: usize = 128;

const HELP: &[&str] = &[
    "ERROR <string>",
    "    Return a refusal with <string> as its text.",
    "LOG <message>",
    "    Write <message> to the server's log.",
    "OBJECT <key>",
    "    Return low-level facts about the value of <key>.",
    "PROTOCOL <type>",
    "    Return a reply of this type: string, integer, double, bignum, null, array, set, map, attrib,",
    "    push, verbatim, true or false.",
    "SET-ACTIVE-EXPIRE 1",
    "    Changes nothing: what has expired is always deleted.",
    "SLEEP <seconds>",
    "    Keep this connection waiting. Others are served meanwhile.",
];

/// Runs DEBUG.
pub(crate) async fn run(connection: &mut Connection, args: &[Bytes]) -> Result<Done, CommandError> {
    check_enabled(connection)?;
    let name = args[1].to_ascii_uppercase();
    let reply = match (name.as_slice(), &args[2..]) {
        (b"HELP", []) => help("DEBUG", HELP),
        (b"SLEEP", [seconds]) => {
            sleep(connection, seconds).await?;
            Reply::OK
        }
        (b"OBJECT", [key]) | (b"OBJECT", [key, _]) => return object(connection, key).await,
        (b"PROTOCOL", [kind]) => protocol(kind, connection.session.protocol)?,
        (b"SET-ACTIVE-EXPIRE", [on]) if on == "0" => return Err(CommandError::EXPIRY_STAYS_ON),
        (b"SET-ACTIVE-EXPIRE", [_]) => Reply::OK,
        (b"ERROR", [line]) => Reply::Error(line.clone()),
        (b"LOG", [message]) => {
            let message = String::from_utf8_lossy(message);
            tracing::info!(conn = connection.session.client.id, %message, "DEBUG LOG");
            Reply::OK
        }
        _ => {
            let name = Echo::cut(&args[1], ECHO_BYTES_MAX);
            return Err(CommandError::SubcommandSyntax(name, "DEBUG"));
        }
    };
    Ok(Done::from(reply))
}

fn check_enabled(connection: &Connection) -> Result<(), CommandError> {
    let is_local = connection.session.client.peer.ip().to_canonical().is_loopback();
    match connection.shared.config.get("enable-debug-command").as_str() {
        "yes" => Ok(()),
        "local" if is_local => Ok(()),
        _ => Err(CommandError::DEBUG_DISABLED),
    }
}

/// Waits, but not for a connection that is killed: the caller ends with it.
async fn sleep(connection: &Connection, seconds: &[u8]) -> Result<(), CommandError> {
    let seconds = std::str::from_utf8(seconds).ok().and_then(|text| text.parse::<f64>().ok());
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let duration = duration.ok_or(CommandError::NotFloat)?.min(SLEEP_MAX);
    tracing::debug!(conn = connection.session.client.id, ?duration, "DEBUG SLEEP");
    tokio::time::sleep(duration).await;
    Ok(())
}

/// DEBUG OBJECT, from what OBJECT ENCODING and DUMP tell. Nothing here has an address, an age or more
/// than one reference.
async fn object(connection: &mut Connection, key: &Bytes) -> Result<Done, CommandError> {
    let encoding = ask(connection, &[word_of("OBJECT"), word_of("ENCODING"), key.clone()]).await?;
    let dumped = ask(connection, &[word_of("DUMP"), key.clone()]).await?;
    let gates = encoding.gate.into_iter().chain(dumped.gate).collect();
    let reply = match (encoding.reply, dumped.reply) {
        (Reply::Bulk(encoding), Reply::Bulk(payload)) => {
            let encoding = String::from_utf8_lossy(&encoding).into_owned();
            let length = payload.len().saturating_sub(DUMP_FRAME_BYTES);
            Reply::Status(Bytes::from(format!(
                "Value at:0x0 refcount:1 encoding:{encoding} serializedlength:{length} lru:0 \
                 lru_seconds_idle:0"
            )))
        }
        (Reply::Error(line), _) | (_, Reply::Error(line)) => Reply::Error(line),
        _ => CommandError::NoSuchKey.into(),
    };
    Ok(Done::gated(reply, gates, false))
}

fn word_of(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn ask(connection: &mut Connection, line: &[Bytes]) -> Result<Answered, CommandError> {
    let mut entry = table::lookup(&line[0]).expect("a command of the table");
    if let Some(subcommand) = table::lookup_subcommand(entry, &line[1]) {
        entry = subcommand;
    }
    let routed = Routed::by_keys(entry, connection.session.table, line)?;
    connection.caller.call(&routed).await
}

fn protocol(kind: &[u8], version: u8) -> Result<Reply, CommandError> {
    let numbers = || (0..3).map(Reply::Integer).collect();
    Ok(match kind.to_ascii_lowercase().as_slice() {
        b"string" => word("Hello World"),
        b"integer" => Reply::Integer(12345),
        b"double" => Reply::DoubleText(word_of("3.141")),
        b"bignum" => Reply::BigNumber(word_of("1234567999999999999999999999999999999")),
        b"null" => Reply::Null,
        b"array" => Reply::Array(numbers()),
        b"set" => Reply::Set(numbers()),
        b"map" => Reply::Map((0..3).map(|n| (Reply::Integer(n), Reply::Boolean(n == 1))).collect()),
        b"attrib" => Reply::Sequence(vec![
            Reply::Attributes(vec![(
                word("key-popularity"),
                Reply::Array(vec![word("key:123"), Reply::Integer(90)]),
            )]),
            text("Some real reply following the attribute"),
        ]),
        b"push" if version == 3 => Reply::Sequence(vec![
            Reply::Push(vec![word("server-cpu-usage"), Reply::Integer(42)]),
            text("Some real reply following the push reply"),
        ]),
        b"push" => return Err(CommandError::DEBUG_RESP2),
        b"true" => Reply::Boolean(true),
        b"false" => Reply::Boolean(false),
        b"verbatim" => verbatim("This is a verbatim\nstring".to_owned()),
        _ => return Err(CommandError::DEBUG_PROTOCOL),
    })
}
