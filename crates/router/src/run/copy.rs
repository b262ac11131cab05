//! COPY to another table: DUMP and PEXPIRETIME where the key is, RESTORE where it shall be.
//!
//! A table is its own set of partitions, so no partition can do this alone. The two sides are not one
//! transaction: the copy is of the value as it was when it was read. A time to live travels as the
//! moment it ends.

use bytes::Bytes;
use commands::table::{self, Entry};
use commands::{Args, CommandError, CopyOptions, copy_options};
use wire::ids::TableId;
use wire::resp::Reply;

use crate::connection::{Done, Gates};
use crate::route::{Answered, Caller, Routed};

/// Whether this is a COPY to another table than the selected one.
///
/// *Errors*: its options are not those of COPY.
pub(crate) fn is_across(
    entry: &Entry,
    args: &[Bytes],
    selected: TableId,
    tables: u32,
) -> Result<bool, CommandError> {
    // Without options it stays where it is; and no other command gets further than this.
    if args.len() <= 3 || entry.command.name != "COPY" {
        return Ok(false);
    }
    Ok(copy_options(Args(args), selected, tables)?.table != selected)
}

/// Runs a COPY to another table.
pub(crate) async fn run(
    caller: &mut Caller,
    selected: TableId,
    args: &[Bytes],
) -> Result<Done, CommandError> {
    let tables = caller.shared.databases();
    let CopyOptions { table: destination, replace } = copy_options(Args(args), selected, tables)?;
    let (from, to) = (&args[1], &args[2]);
    let mut gates = Gates::new();
    let expire_at = call(caller, selected, &[word("PEXPIRETIME"), from.clone()]).await?;
    let dumped = call(caller, selected, &[word("DUMP"), from.clone()]).await?;
    gates.extend(expire_at.gate.into_iter().chain(dumped.gate));
    let payload = match dumped.reply {
        Reply::Bulk(payload) => payload,
        Reply::Null => return Ok(Done { reply: Reply::Integer(0), gates, writes: false }),
        refusal => return Ok(Done { reply: refusal, gates, writes: false }),
    };
    // Negative: no time to live (or no key any more, which DUMP would have told).
    let expire_at_ms = match expire_at.reply {
        Reply::Integer(at) => at.max(0),
        refusal => return Ok(Done { reply: refusal, gates, writes: false }),
    };
    let expire_at_ms = Bytes::from(expire_at_ms.to_string());
    let mut restore = vec![word("RESTORE"), to.clone(), expire_at_ms, payload, word("ABSTTL")];
    if replace {
        restore.push(word("REPLACE"));
    }
    let restored = call(caller, destination, &restore).await?;
    gates.extend(restored.gate);
    let reply = match restored.reply {
        Reply::Simple("OK") => Reply::Integer(1),
        Reply::Error(line) if line.starts_with(b"BUSYKEY") => Reply::Integer(0),
        other => other,
    };
    Ok(Done { reply, gates, writes: true })
}

fn word(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn call(
    caller: &mut Caller,
    table: TableId,
    line: &[Bytes],
) -> Result<Answered, CommandError> {
    let entry = table::lookup(&line[0]).expect("a command of the table");
    caller.call(&Routed::by_keys(entry, table, line)?).await
}
