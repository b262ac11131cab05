//! DEBUG: the parts of it that tools and test suites use. Off unless the server was started with
//! `enable-debug-command`, as in Redis.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commands::table;
use commands::{CommandError, Echo};
use tokio::runtime::{Handle, RuntimeFlavor};
use wire::resp::Reply;
use wire::service::{NodeFault, NodeStatus, ScriptControl};

use super::{Asker, help, text, verbatim, word};
use crate::connection::{Connection, Done};
use crate::route::{Answered, Routed};

/// Longest DEBUG SLEEP.
const SLEEP_MAX: Duration = Duration::from_secs(3600);
/// How long DEBUG RELOAD waits for leaders once a node runs again, and how often it looks.
const LEADERS_MAX: Duration = Duration::from_secs(30);
const LEADERS_POLL: Duration = Duration::from_millis(5);
/// Bytes of a DUMP payload that are not the value: its type before it; version and checksum behind.
const DUMP_FRAME_BYTES: usize = 1 + 2 + 8;
/// Longest subcommand that a refusal repeats, in bytes.
const ECHO_BYTES_MAX: usize = 128;

/// What sets up a part of Redis that is not here.
const KNOBS: &[&[u8]] =
    &[b"DICT-RESIZING", b"LISTPACK", b"PAUSE-CRON", b"QUICKLIST-PACKED-THRESHOLD", b"REPLYBUFFER"];

const HELP: &[&str] = &[
    "DICT-RESIZING|LISTPACK|PAUSE-CRON|QUICKLIST-PACKED-THRESHOLD|REPLYBUFFER <value> [<value> ...]",
    "    Change nothing: what they set in Redis is not here.",
    "ERROR <string>",
    "    Return a refusal with <string> as its text.",
    "LOADAOF",
    "    The same as RELOAD.",
    "LOG <message>",
    "    Write <message> to the server's log.",
    "OBJECT <key>",
    "    Return low-level facts about the value of <key>.",
    "PROTOCOL <type>",
    "    Return a reply of this type: string, integer, double, bignum, null, array, set, map, attrib,",
    "    push, verbatim, true or false.",
    "RELOAD [MERGE] [NOFLUSH] [NOSAVE]",
    "    Stop each storage node as a crash would and open it from its disk, one after the other.",
    "SET-ACTIVE-EXPIRE (0|1)",
    "    Say whether what has expired is deleted. Until it is, it is hidden, and counted.",
    "SET-DISABLE-DENY-SCRIPTS (0|1)",
    "    Say whether scripts may run DEBUG.",
    "SET-SKIP-CHECKSUM-VALIDATION (0|1)",
    "    Say whether RESTORE trusts a payload without a look at its checksum. What is in it is checked.",
    "SLEEP <seconds>",
    "    Keep this connection waiting. Others are served meanwhile.",
];

/// Runs DEBUG.
pub(crate) async fn run(connection: &mut Connection, args: &[Bytes]) -> Result<Done, CommandError> {
    check_enabled(connection.asker())?;
    let name = args[1].to_ascii_uppercase();
    match (name.as_slice(), &args[2..]) {
        (b"SLEEP", [seconds]) => {
            // Not for a connection that is killed: the caller ends with it.
            tokio::time::sleep(duration(seconds)?).await;
            Ok(Done::from(Reply::OK))
        }
        (b"OBJECT", [key]) | (b"OBJECT", [key, _]) => object(connection, key).await,
        (b"RELOAD", options) if loads_over(options)? => Err(CommandError::RELOAD_OVER),
        (b"RELOAD", [..]) | (b"LOADAOF", []) => {
            reload(connection).await?;
            Ok(Done::from(Reply::OK))
        }
        _ => {
            let version = connection.session.protocol;
            without_waiting(connection.asker(), args, version).map(Done::from)
        }
    }
}

/// Runs DEBUG inside a transaction, which waits for nothing: DEBUG SLEEP keeps a thread there.
pub(crate) fn now(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    check_enabled(connection.asker())?;
    match (args[1].to_ascii_uppercase().as_slice(), &args[2..]) {
        (b"SLEEP", [seconds]) => {
            let duration = duration(seconds)?;
            let several = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
            let sleep = || std::thread::sleep(duration);
            if several {
                tokio::task::block_in_place(sleep)
            } else {
                sleep()
            }
            Ok(Reply::OK)
        }
        (b"OBJECT" | b"RELOAD" | b"LOADAOF", _) => Err(CommandError::DEBUG_IN_MULTI),
        _ => without_waiting(connection.asker(), args, connection.session.protocol),
    }
}

/// Runs DEBUG for a script, if scripts may do everything (SET-DISABLE-DENY-SCRIPTS). Nothing is pushed to
/// them.
pub(crate) fn in_script(asker: Asker<'_>, args: &[Bytes]) -> Result<Reply, CommandError> {
    check_enabled(asker)?;
    match (args[1].to_ascii_uppercase().as_slice(), &args[2..]) {
        (b"SLEEP", [seconds]) => {
            std::thread::sleep(duration(seconds)?);
            Ok(Reply::OK)
        }
        (b"OBJECT" | b"RELOAD" | b"LOADAOF", _) => Err(CommandError::NOT_FROM_SCRIPT),
        _ => without_waiting(asker, args, 2),
    }
}

fn without_waiting(asker: Asker<'_>, args: &[Bytes], version: u8) -> Result<Reply, CommandError> {
    let storage = &asker.shared.storage;
    let name = args[1].to_ascii_uppercase();
    Ok(match (name.as_slice(), &args[2..]) {
        (b"HELP", []) => help("DEBUG", HELP),
        (b"PROTOCOL", [kind]) => protocol(kind, version)?,
        (b"SET-DISABLE-DENY-SCRIPTS", [allows]) => {
            storage.scripts(ScriptControl::AllowAll(allows != "0"))
        }
        (b"SET-SKIP-CHECKSUM-VALIDATION", [skips]) => {
            asker.shared.config.live.trusts_payloads.store(skips != "0", Relaxed);
            asker.shared.shape_values();
            Reply::OK
        }
        (b"SET-ACTIVE-EXPIRE", [is_active]) => {
            for node in storage.status() {
                let fault = NodeFault::KeepExpired(node.node, is_active == "0");
                storage.fault(fault).map_err(CommandError::Operator)?;
            }
            Reply::OK
        }
        (b"ERROR", [line]) => Reply::Error(line.clone()),
        (b"LOG", [message]) => {
            let message = String::from_utf8_lossy(message);
            tracing::info!(conn = asker.client.id, %message, "DEBUG LOG");
            Reply::OK
        }
        (knob, [_, ..]) if KNOBS.contains(&knob) => Reply::OK,
        _ => {
            let name = Echo::cut(&args[1], ECHO_BYTES_MAX);
            return Err(CommandError::SubcommandSyntax(name, "DEBUG"));
        }
    })
}

fn check_enabled(asker: Asker<'_>) -> Result<(), CommandError> {
    let is_local = asker.client.peer.ip().to_canonical().is_loopback();
    match asker.shared.config.get("enable-debug-command").as_str() {
        "yes" => Ok(()),
        "local" if is_local => Ok(()),
        _ => Err(CommandError::DEBUG_DISABLED),
    }
}

/// Whether what is on disk is to be loaded over what there is. (What there is was saved, and what is loaded
/// is the same, so the other options say nothing.)
///
/// *Errors*: one of the options is none.
fn loads_over(options: &[Bytes]) -> Result<bool, CommandError> {
    let has = |name: &[u8]| options.iter().any(|option| option.eq_ignore_ascii_case(name));
    let is_known = |option: &Bytes| {
        let names: [&[u8]; 3] = [b"MERGE", b"NOFLUSH", b"NOSAVE"];
        names.iter().any(|name| option.eq_ignore_ascii_case(name))
    };
    if !options.iter().all(is_known) {
        return Err(CommandError::DEBUG_RELOAD_OPTION);
    }
    Ok(has(b"NOFLUSH") && !has(b"MERGE"))
}

fn duration(seconds: &[u8]) -> Result<Duration, CommandError> {
    let seconds = std::str::from_utf8(seconds).ok().and_then(|text| text.parse::<f64>().ok());
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Ok(duration.ok_or(CommandError::NotFloat)?.min(SLEEP_MAX))
}

/// Has what is served from now on come from the disks. The nodes go one after the other, each when all
/// partitions have a leader again, so that nobody is refused meanwhile.
async fn reload(connection: &Connection) -> Result<(), CommandError> {
    let storage = &connection.shared.storage;
    let running = storage.status().into_iter().filter(|node| node.running);
    let running: Vec<_> = running.map(|node| node.node).collect();
    tracing::info!(conn = connection.session.client.id, "DEBUG RELOAD");
    for node in running {
        for fault in [NodeFault::Stop(node), NodeFault::Start(node)] {
            storage.fault(fault).map_err(CommandError::Operator)?;
        }
        let deadline = Instant::now() + LEADERS_MAX;
        while !are_led(&storage.status()) {
            if Instant::now() > deadline {
                let why = format!("node {node} runs again, and a partition has no leader");
                return Err(CommandError::Operator(why));
            }
            tokio::time::sleep(LEADERS_POLL).await;
        }
    }
    Ok(())
}

/// Whether every partition has a leader.
fn are_led(nodes: &[NodeStatus]) -> bool {
    let replicas = || nodes.iter().flat_map(|node| &node.replicas);
    let led: HashSet<_> = replicas()
        .filter(|replica| replica.role == "leader")
        .map(|replica| replica.partition)
        .collect();
    replicas().all(|replica| led.contains(&replica.partition))
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
