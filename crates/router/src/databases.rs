//! Which table each database is. A session's table is the number that SELECT was given; [`Caller`] has
//! calls go to the table that is this database now, and SWAPDB makes two databases change tables: no
//! row moves.
//!
//! ```text
//! SWAPDB ─SET─→ a row of the system's own table ─durable─→ the map here, at once for everybody
//! start  ─GET─→ the same row; calls on tables wait until it is known
//! ```
//!
//! *At one moment.* A call holds the map for reading from when it looks its table up until the leader
//! has evaluated it. So nothing is evaluated on what a database was before a swap that has been answered
//! (a script that runs for long holds its partition instead). What a swap may have changed is looked at
//! again: commands that wait for data are called for anew, EXEC compares the tables that were watched
//! ([`crate::run::transaction`]), and client-side caches are emptied.
//!
//! [`Caller`]: crate::route::Caller

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commands::{CommandError, parse_int, table};
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::{Mutex, watch};
use wire::ids::TableId;
use wire::resp::Reply;
use wire::service::GateOutcome;

use crate::Shared;
use crate::route::{Caller, Routed};

/// The key of the map in the system's table.
const KEY: &str = "databases";
/// How long to wait before the map is asked for again.
const REST: Duration = Duration::from_millis(50);
/// Tables at most that a map may name: more than there are, by far.
const TABLES_MAX: usize = 1 << 16;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Databases {
    map: RwLock<Map>,
    /// The same, for those who hold that or a partition's lock: a lock that nobody holds for longer than a
    /// look takes.
    shown: RwLock<Map>,
    /// Held by whoever swaps.
    swapping: Mutex<()>,
    swaps: watch::Sender<u64>,
}

/// The tables of databases.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    /// By the database's number; databases beyond are the tables of their numbers.
    tables: Vec<TableId>,
    is_known: bool,
}

impl Map {
    /// The table of a database.
    pub(crate) fn table(&self, database: TableId) -> TableId {
        self.tables.get(database.0 as usize).copied().unwrap_or(database)
    }

    /// The same; `None` while it is not known.
    pub(crate) fn known_table(&self, database: TableId) -> Option<TableId> {
        (self.is_known || database == TableId::SYSTEM).then(|| self.table(database))
    }
}

impl Default for Databases {
    fn default() -> Databases {
        let map = Map { tables: Vec::new(), is_known: true };
        Databases {
            map: RwLock::new(map.clone()),
            shown: RwLock::new(map),
            swapping: Mutex::default(),
            swaps: watch::Sender::new(0),
        }
    }
}

impl Databases {
    /// The map, to be held until a call is evaluated. Not to be asked for by who holds it already.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Map> {
        self.map.read()
    }

    /// The table of a database. May be asked by who holds the map, or a partition's lock.
    pub(crate) fn table(&self, database: TableId) -> TableId {
        self.shown.read().table(database)
    }

    /// The database of a table; asked like [`Databases::table`].
    pub(crate) fn database(&self, table: TableId) -> TableId {
        let map = self.shown.read();
        let at = map.tables.iter().position(|known| *known == table);
        at.and_then(|at| u32::try_from(at).ok()).map_or(table, TableId)
    }

    /// Hears of swaps from now on.
    pub(crate) fn swaps(&self) -> watch::Receiver<u64> {
        self.swaps.subscribe()
    }

    /// From now on calls wait until the map is known.
    pub(crate) fn forget(&self) {
        self.set(Map { tables: Vec::new(), is_known: false });
    }

    fn set(&self, map: Map) {
        let mut held = self.map.write();
        self.shown.write().clone_from(&map);
        *held = map;
    }

    fn install(&self, tables: Vec<TableId>) {
        self.set(Map { tables, is_known: true });
        self.swaps.send_modify(|swaps| *swaps += 1);
    }

    /// The tables of the first databases; `None` while they are not known.
    fn first(&self, count: usize) -> Option<Vec<TableId>> {
        let map = self.shown.read();
        let count = count.max(map.tables.len());
        let numbers = (0..count).filter_map(|number| u32::try_from(number).ok());
        map.is_known.then(|| numbers.map(|number| map.table(TableId(number))).collect())
    }
}

/// Asks for the map until it is known.
pub(crate) async fn load(shared: Arc<Shared>) {
    let mut caller = Caller::new(Arc::clone(&shared), 0);
    let tables = read_until_known(&mut caller).await;
    shared.hub().databases.install(tables);
}

/// Has two databases change tables, whether or not whoever asked for it waits for the end.
///
/// *Errors*: nothing has changed.
pub(crate) async fn swap(
    shared: &Arc<Shared>,
    first: u32,
    second: u32,
) -> Result<(), CommandError> {
    let task = tokio::spawn(swap_in_turn(Arc::clone(shared), first as usize, second as usize));
    task.await.unwrap_or(Err(CommandError::UNCERTAIN))
}

async fn swap_in_turn(
    shared: Arc<Shared>,
    first: usize,
    second: usize,
) -> Result<(), CommandError> {
    let databases = &shared.hub().databases;
    let _turn = databases.swapping.lock().await;
    let timeout_ms = shared.options.request_timeout.as_millis() as u64;
    let count = shared.databases() as usize;
    let before = databases.first(count).ok_or(CommandError::NoLeader(timeout_ms))?;
    let mut tables = before.clone();
    tables.swap(first, second);
    let mut caller = Caller::new(Arc::clone(&shared), 0);
    match write(&mut caller, &tables).await {
        Err(error) if error == CommandError::UNCERTAIN => {
            tables = read_until_known(&mut caller).await;
        }
        written => written?,
    }
    if tables == before {
        return Err(CommandError::NOT_EXECUTED);
    }
    databases.install(tables);
    shared.hub().tracking.flushed(true);
    Ok(())
}

/// Writes the map, durably.
///
/// *Errors*: it is not written; or, `UNCERTAIN`, it may be.
async fn write(caller: &mut Caller, tables: &[TableId]) -> Result<(), CommandError> {
    let numbers: Vec<String> = tables.iter().map(|table| table.0.to_string()).collect();
    let line = ["SET", KEY, &numbers.join(" ")].map(|word| Bytes::copy_from_slice(word.as_bytes()));
    let written = call(caller, &line).await?;
    if let Reply::Error(line) = written {
        return Err(CommandError::Text(String::from_utf8_lossy(&line).into_owned().into()));
    }
    Ok(())
}

async fn read_until_known(caller: &mut Caller) -> Vec<TableId> {
    let line = ["GET", KEY].map(|word| Bytes::from_static(word.as_bytes()));
    let mut is_told = false;
    loop {
        let refusal = match call(caller, &line).await {
            Ok(Reply::Null) => return Vec::new(),
            Ok(Reply::Bulk(text)) => match parse(&text) {
                Some(tables) => return tables,
                None => format!("it is {}", text.escape_ascii()),
            },
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        };
        if !is_told {
            tracing::info!(refusal, "waits for the map of databases");
            is_told = true;
        }
        tokio::time::sleep(REST).await;
    }
}

/// Makes a call on the system's table; what it answers is durable.
async fn call(caller: &mut Caller, line: &[Bytes]) -> Result<Reply, CommandError> {
    let entry = table::lookup(&line[0]).expect("a command of the table");
    let answered = caller.call(&Routed::by_keys(entry, TableId::SYSTEM, line)?).await?;
    let Some(gate) = answered.gate else { return Ok(answered.reply) };
    match caller.outcome(gate).await {
        GateOutcome::Durable => Ok(answered.reply),
        GateOutcome::Lost => Err(CommandError::NOT_EXECUTED),
        GateOutcome::Unknown => Err(CommandError::UNCERTAIN),
    }
}

/// A permutation of the first numbers.
fn parse(text: &[u8]) -> Option<Vec<TableId>> {
    let numbers = text.split(|byte| *byte == b' ').map(|word| u32::try_from(parse_int(word)?).ok());
    let tables: Vec<u32> = numbers.take(TABLES_MAX).collect::<Option<_>>()?;
    let mut sorted = tables.clone();
    sorted.sort_unstable();
    let is_whole = sorted.iter().zip(0..).all(|(table, number)| *table == number);
    is_whole.then(|| tables.into_iter().map(TableId).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_permutations() {
        let tables = |numbers: &[u32]| Some(numbers.iter().copied().map(TableId).collect());
        assert_eq!(parse(b"1 0 2"), tables(&[1, 0, 2]));
        for wrong in [&b""[..], b"1 2", b"0 0", b"0 x", b"0  1", b"-1 0", b"0 1 4294967296"] {
            assert_eq!(parse(wrong), None, "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn there_and_back() {
        let databases = Databases::default();
        assert_eq!(databases.table(TableId(3)), TableId(3));
        databases.install([0, 3, 2, 1].map(TableId).to_vec());
        assert_eq!(databases.table(TableId(1)), TableId(3));
        assert_eq!(databases.database(TableId(1)), TableId(3));
        assert_eq!(databases.table(TableId(9)), TableId(9));
        assert_eq!(databases.table(TableId::SYSTEM), TableId::SYSTEM);
        assert_eq!(databases.first(5), Some([0, 3, 2, 1, 4].map(TableId).to_vec()));
        databases.forget();
        assert_eq!(databases.first(5), None);
        assert_eq!(databases.read().known_table(TableId(1)), None);
        assert_eq!(databases.read().known_table(TableId::SYSTEM), Some(TableId::SYSTEM));
    }
}
