//! Commands about a whole table: every partition is asked, in the order of placements, and the
//! answers become one. Each call is routed by itself: its own lookup, its own retries.

use bytes::Bytes;
use commands::rows::KEY_HASH_BITS;
use commands::table::{self, Entry};
use commands::{CommandError, Flags, Gather, parse_cursor};
use wire::ids::TableId;
use wire::placement::Placement;
use wire::resp::Reply;

use crate::connection::{Done, Gates};
use crate::dispatch::Tables;
use crate::route::{Answered, Caller, Routed};

/// Keys that one step of KEYS visits in a partition before others get their turn.
const KEYS_STEP: &str = "512";

/// Runs a whole-table command.
pub(crate) async fn run(
    caller: &mut Caller,
    entry: &'static Entry,
    gather: Gather,
    (tables, selected): (Tables, TableId),
    args: &[Bytes],
) -> Result<Done, CommandError> {
    match gather {
        Gather::Cursor => cursor(caller, entry, selected, args).await,
        Gather::KeysByScan => keys_by_scan(caller, selected, args).await,
        Gather::AnyKey => any_key(caller, entry, selected, args).await,
        Gather::Sum | Gather::AllOk => {
            let tables = match tables {
                Tables::Selected => selected.0..selected.0 + 1,
                Tables::All => 0..caller.shared.databases(),
            };
            let writes = entry.command.flags.has(Flags::WRITE);
            let mut answers: Vec<Answered> = Vec::new();
            for table in tables {
                let routed = Routed::by_placement(entry, TableId(table), args, Placement::MIN);
                let asked = each_partition(caller, routed, |answered| {
                    answers.push(answered);
                    true
                });
                if let Err(error) = asked.await {
                    let wrote = writes && answers.iter().any(|answered| answered.gate.is_some());
                    return Err(if wrote { CommandError::DONE_IN_PART } else { error });
                }
            }
            Ok(joined(gather, answers, writes))
        }
    }
}

/// Asks the partitions of a table from a placement on, until `visit` answers false.
async fn each_partition(
    caller: &mut Caller,
    mut routed: Routed<'_>,
    mut visit: impl FnMut(Answered) -> bool,
) -> Result<(), CommandError> {
    loop {
        let answered = caller.call(&routed).await?;
        let last = answered.target.range.last;
        if !visit(answered) {
            return Ok(());
        }
        match Placement::new(last.get() + 1) {
            Some(next) => routed.placement = next,
            None => return Ok(()),
        }
    }
}

fn joined(gather: Gather, answers: Vec<Answered>, writes: bool) -> Done {
    let mut gates = Gates::new();
    let mut sum = 0i64;
    let mut refusal = None;
    for answered in answers {
        gates.extend(answered.gate);
        match answered.reply {
            Reply::Integer(n) => sum = sum.saturating_add(n),
            error @ Reply::Error(_) => refusal = refusal.or(Some(error)),
            _ => {}
        }
    }
    let whole = if gather == Gather::Sum { Reply::Integer(sum) } else { Reply::OK };
    Done { reply: refusal.unwrap_or(whole), gates, writes }
}

/// SCAN: the partition that holds the cursor's position answers, and points behind itself.
async fn cursor(
    caller: &mut Caller,
    entry: &'static Entry,
    table: TableId,
    args: &[Bytes],
) -> Result<Done, CommandError> {
    // What is no cursor is the handler's to refuse.
    let position = args.get(1).and_then(|arg| parse_cursor(arg).ok()).unwrap_or(0);
    let placement = Placement::new(position >> KEY_HASH_BITS).unwrap_or(Placement::MAX);
    let answered = caller.call(&Routed::by_placement(entry, table, args, placement)).await?;
    Ok(Done::new(answered, false))
}

/// KEYS, by SCAN: a partition is never held longer than a step takes.
async fn keys_by_scan(
    caller: &mut Caller,
    table: TableId,
    args: &[Bytes],
) -> Result<Done, CommandError> {
    let mut all = Vec::new();
    let gates = scan_from(caller, table, 0, Some(&args[1]), |keys, _| {
        all.extend(keys);
        true
    })
    .await?;
    Ok(Done { reply: Reply::Array(all), gates, writes: false })
}

/// Visits the keys of a table in steps of SCAN, from a cursor on, in the order of placements; `visit`
/// gets the keys of a step and the next cursor, and answers whether to go on.
///
/// *Errors*: SCAN's refusal.
pub(crate) async fn scan_from(
    caller: &mut Caller,
    table: TableId,
    from: u64,
    pattern: Option<&Bytes>,
    mut visit: impl FnMut(Vec<Reply>, u64) -> bool,
) -> Result<Gates, CommandError> {
    let scan = table::lookup(b"SCAN").expect("SCAN is in the table");
    let word = |text: &'static str| Bytes::from_static(text.as_bytes());
    let cursor_at = |position: u64| Bytes::from(position.to_string());
    let mut line = vec![word("SCAN"), cursor_at(from), word("COUNT"), word(KEYS_STEP)];
    if let Some(pattern) = pattern {
        line.extend([word("MATCH"), pattern.clone()]);
    }
    let mut gates = Gates::new();
    loop {
        let done = cursor(caller, scan, table, &line).await?;
        for gate in done.gates {
            if !gates.contains(&gate) {
                gates.push(gate);
            }
        }
        let mut parts = match done.reply {
            Reply::Array(parts) => parts,
            Reply::Error(why) => {
                let why = String::from_utf8_lossy(&why);
                let why = why.strip_prefix("ERR ").unwrap_or(&why).to_owned();
                return Err(CommandError::Operator(why));
            }
            _ => Vec::new(),
        };
        let (Some(Reply::Array(found)), Some(Reply::Bulk(next))) = (parts.pop(), parts.pop())
        else {
            return Err(CommandError::Operator("SCAN answered no cursor and keys".to_owned()));
        };
        let position = parse_cursor(&next)?;
        let goes_on = visit(found, position);
        if position == 0 || !goes_on {
            return Ok(gates);
        }
        line[1] = next;
        tokio::task::yield_now().await;
    }
}

/// RANDOMKEY: from a random placement on, then from the start, the first partition that has a key.
async fn any_key(
    caller: &mut Caller,
    entry: &'static Entry,
    table: TableId,
    args: &[Bytes],
) -> Result<Done, CommandError> {
    let random = caller.shared.random() & Placement::MAX.get();
    let mut found = None;
    for start in [Placement::new(random).unwrap_or(Placement::MIN), Placement::MIN] {
        let routed = Routed::by_placement(entry, table, args, start);
        each_partition(caller, routed, |answered| {
            let is_none = answered.reply == Reply::Null;
            found = Some(answered);
            is_none
        })
        .await?;
        if start == Placement::MIN || found.as_ref().is_some_and(|a| a.reply != Reply::Null) {
            break;
        }
    }
    let answered = found.expect("a table has at least one partition, and it was asked");
    Ok(Done::new(answered, false))
}
