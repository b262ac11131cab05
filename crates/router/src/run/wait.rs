//! WAIT: until this connection's writes are on so many replicas.
//!
//! When WAIT runs, all earlier replies of the connection have been written, so its writes are on a
//! quorum: half of the replicas besides the leader hold them for sure. Whoever asks for more waits
//! until that many replicas *applied* the newest write of each partition, which the storage nodes tell,
//! or until the timeout. As in Redis the answer is how many there are then, enough or not.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commands::{CommandError, parse_int};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use wire::ids::{NodeId, PartitionId};
use wire::resp::Reply;
use wire::service::{Gate, StorageService};

use crate::Shared;
use crate::clients::Unblock;
use crate::connection::{Closed, Connection};

/// How often storage nodes are asked, at first and at most.
const ASK_EVERY_MIN: Duration = Duration::from_millis(1);
const ASK_EVERY_MAX: Duration = Duration::from_millis(50);

/// How many replicas are wanted and how long they are waited for.
fn parse(args: &[Bytes]) -> Result<(i64, u64), CommandError> {
    let wanted = parse_int(&args[1]).ok_or(CommandError::NotInteger)?;
    let timeout_ms = parse_int(&args[2]).ok_or(CommandError::PAUSE_NOT_INTEGER)?;
    let timeout_ms = u64::try_from(timeout_ms).map_err(|_| CommandError::PAUSE_NEGATIVE)?;
    Ok((wanted, timeout_ms))
}

/// WAIT inside a transaction: how many there are now.
pub(super) fn now(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    parse(args)?;
    Ok(Reply::Integer(replicas_holding(&connection.shared, &connection.session.written)))
}

/// WAIT in a script: what a script has written is nowhere else before it has ended.
pub(crate) fn in_script(args: &[Bytes]) -> Result<Reply, CommandError> {
    parse(args).map(|_| Reply::Integer(0))
}

/// WAITAOF in a script.
pub(crate) fn aof_in_script(args: &[Bytes]) -> Result<Reply, CommandError> {
    parse_aof(args).map(|_| Reply::Array(vec![Reply::Integer(0), Reply::Integer(0)]))
}

/// How many replicas WAITAOF wants. What a replica holds of a write is on its disk, and what was
/// answered is on this side's disk, so it asks for nothing but what WAIT asks for.
fn parse_aof(args: &[Bytes]) -> Result<(i64, u64), CommandError> {
    let local = parse_int(&args[1]).ok_or(CommandError::NotInteger)?;
    if !(0..=1).contains(&local) {
        return Err(CommandError::WAITAOF_LOCAL);
    }
    let wanted = parse_int(&args[2]).ok_or(CommandError::NotInteger)?;
    if wanted < 0 {
        return Err(CommandError::NOT_POSITIVE);
    }
    let (_, timeout_ms) = parse(&args[1..])?;
    Ok((wanted, timeout_ms))
}

/// WAITAOF inside a transaction.
pub(super) fn aof_now(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    parse_aof(args)?;
    let held = replicas_holding(&connection.shared, &connection.session.written);
    Ok(Reply::Array(vec![Reply::Integer(1), Reply::Integer(held)]))
}

/// Runs WAITAOF: the writes are on this side's disk already.
pub(crate) async fn aof(
    connection: &mut Connection,
    args: &[Bytes],
) -> Result<Result<Reply, CommandError>, Closed> {
    let (wanted, timeout_ms) = match parse_aof(args) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(Err(error)),
    };
    let held = wait_for(connection, wanted, timeout_ms).await?;
    Ok(held.map(|held| Reply::Array(vec![Reply::Integer(1), Reply::Integer(held)])))
}

/// Runs WAIT.
pub(crate) async fn run(
    connection: &mut Connection,
    args: &[Bytes],
) -> Result<Result<Reply, CommandError>, Closed> {
    let (wanted, timeout_ms) = match parse(args) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(Err(error)),
    };
    Ok(wait_for(connection, wanted, timeout_ms).await?.map(Reply::Integer))
}

/// Waits for so many replicas, or the time, as long as the client is there.
async fn wait_for(
    connection: &mut Connection,
    wanted: i64,
    timeout_ms: u64,
) -> Result<Result<i64, CommandError>, Closed> {
    // 0 waits for ever, as in Redis.
    let deadline = (timeout_ms > 0)
        .then(|| Instant::now().checked_add(Duration::from_millis(timeout_ms)))
        .flatten();
    let client = connection.session.client.clone();
    let blocked = client.block(Arc::default());
    let mut is_over = false;
    let mut every = ASK_EVERY_MIN;
    loop {
        let held = replicas_holding(&connection.shared, &connection.session.written);
        is_over |= deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if held >= wanted || is_over {
            return Ok(Ok(held));
        }
        let left = deadline.map_or(every, |d| d.saturating_duration_since(Instant::now()));
        tokio::select! {
            () = sleep(every.min(left)) => {}
            how = blocked.unblocked() => match how {
                Unblock::Timeout => is_over = true,
                Unblock::Error => return Ok(Err(CommandError::UNBLOCKED)),
            },
            closed = connection.gone() => return Err(closed),
        }
        every = (every * 2).min(ASK_EVERY_MAX);
    }
}

/// The replicas besides the leader that hold all these writes: the fewest over the partitions. A
/// connection that wrote nothing asks about nothing: then it is the fewest that any partition has.
fn replicas_holding(shared: &Shared, written: &[(Gate, usize)]) -> i64 {
    if written.is_empty() {
        return shared.storage.running_nodes().saturating_sub(1) as i64;
    }
    let holding = written.iter().map(|(gate, sure)| {
        let applied = shared.applied.of(&*shared.storage, gate.partition);
        let holds = |(node, index): &&(NodeId, u64)| *node != gate.node && *index >= gate.index;
        applied.iter().filter(holds).count().max(*sure)
    });
    holding.min().unwrap_or(0) as i64
}

/// How far replicas have applied, as storage nodes told last: however many connections wait for the same
/// partitions, the nodes are asked as seldom as for one.
#[derive(Default)]
pub(crate) struct Applied(Mutex<HashMap<PartitionId, Told>>);

/// What was told, and when.
type Told = (Instant, Arc<[(NodeId, u64)]>);

impl Applied {
    fn of(&self, storage: &dyn StorageService, partition: PartitionId) -> Arc<[(NodeId, u64)]> {
        let mut known = self.0.lock();
        let now = Instant::now();
        if let Some((at, told)) = known.get(&partition)
            && now - *at < ASK_EVERY_MIN
        {
            return Arc::clone(told);
        }
        // Partitions that nobody waits for any more.
        known.retain(|_, (at, _)| now - *at < ASK_EVERY_MAX);
        let told: Arc<[_]> = storage.applied(partition).into();
        known.insert(partition, (now, Arc::clone(&told)));
        told
    }
}
