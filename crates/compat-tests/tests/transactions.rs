//! Money that moves between accounts while nodes stop and the server is killed: whoever looks sees all
//! of it, no transfer is half done, none that was acknowledged is lost and none is done twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use compat_tests::admin::leading_node;
use compat_tests::process::{Options, Server, wait_until};
use compat_tests::rng::Rng;
use redis::{Connection, ConnectionLike, Pipeline, RedisError, RedisResult, Value, cmd};

const ACCOUNTS: usize = 8;
const OPENING_BALANCE: i64 = 1_000;
const MOVERS: usize = 3;
const READERS: usize = 2;
const STOPS: usize = 3;
const KILLS: usize = 4;
/// Transfers and looks before each fault and after it.
const PROGRESS: u64 = 200;
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);
const REPLY_WITHIN: Duration = Duration::from_secs(20);

/// What all threads share.
#[derive(Default)]
struct Bank {
    port: u16,
    stop: AtomicBool,
    moves: AtomicU64,
    looks: AtomicU64,
    /// Transfers that met another one at a watched account.
    conflicts: AtomicU64,
    /// What a client is told when a fault hits its transfer.
    refusals: AtomicU64,
}

/// A mover's transfers, acknowledged and sent.
#[derive(Clone, Copy, Default, Debug)]
struct Moves {
    acknowledged: i64,
    sent: i64,
}

fn account(index: usize) -> String {
    format!("account:{index}")
}

fn connect(bank: &Bank) -> RedisResult<Connection> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{}/", bank.port))?;
    let connection = client.get_connection_with_timeout(REPLY_WITHIN)?;
    connection.set_read_timeout(Some(REPLY_WITHIN))?;
    Ok(connection)
}

/// Whether a client has to expect this while nodes stop or the server is away.
fn is_expected(error: &RedisError) -> bool {
    let known = ["TRYAGAIN", "CLUSTERDOWN", "UNCERTAIN"];
    let refused = error.code().is_some_and(|code| known.contains(&code));
    refused || error.is_io_error() || error.is_connection_dropped() || error.is_timeout()
}

/// Runs MULTI, so many commands and EXEC. (The crate's own `query` hides what error EXEC answered.)
fn exec(connection: &mut Connection, pipe: &Pipeline, commands: usize) -> RedisResult<Value> {
    let packed = pipe.get_packed_pipeline();
    match connection.req_packed_commands(&packed, 1 + commands, 1)?.pop() {
        Some(reply) => reply.extract_error(),
        None => panic!("EXEC was not answered"),
    }
}

/// Runs `work` on connections until told to stop; a new one after each failure.
fn until_stopped(bank: &Bank, mut work: impl FnMut(&mut Connection) -> RedisResult<()>) {
    let mut connection = None;
    while !bank.stop.load(Relaxed) {
        let done = match &mut connection {
            Some(open) => work(open),
            None => connect(bank).map(|fresh| connection = Some(fresh)),
        };
        if let Err(error) = done {
            assert!(is_expected(&error), "{error}");
            bank.refusals.fetch_add(1, Relaxed);
            // A refused EXEC leaves nothing behind, a WATCH before it might.
            connection = None;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Moves money by WATCH, GET and SET, or by INCRBY alone.
fn move_money(bank: &Bank, id: usize) -> Moves {
    let mut rng = Rng::new(id as u64 + 1);
    let mut moves = Moves::default();
    let counter = format!("moves:{id}");
    until_stopped(bank, |connection| {
        let from = rng.below(ACCOUNTS);
        let to = (from + 1 + rng.below(ACCOUNTS - 1)) % ACCOUNTS;
        let (from, to, amount) = (account(from), account(to), 1 + rng.below(20) as i64);
        let mut pipe = redis::pipe();
        pipe.atomic();
        if rng.chance(70) {
            cmd("WATCH").arg(&from).arg(&to).exec(connection)?;
            let rich: i64 = cmd("GET").arg(&from).query(connection)?;
            let poor: i64 = cmd("GET").arg(&to).query(connection)?;
            pipe.set(&from, rich - amount).set(&to, poor + amount);
        } else {
            pipe.decr(&from, amount).incr(&to, amount);
        }
        pipe.incr(&counter, 1);
        moves.sent += 1;
        match exec(connection, &pipe, 3)? {
            Value::Nil => {
                moves.sent -= 1;
                bank.conflicts.fetch_add(1, Relaxed);
            }
            Value::Array(replies) => {
                let Some(Value::Int(count)) = replies.last() else { panic!("{replies:?}") };
                let Moves { acknowledged, sent } = moves;
                assert!(acknowledged < *count && *count <= sent, "{count} after {moves:?}");
                moves.acknowledged = *count;
                bank.moves.fetch_add(1, Relaxed);
            }
            other => panic!("EXEC answered {other:?}"),
        }
        Ok(())
    });
    moves
}

/// Counts the money, again and again.
fn look(bank: &Bank) {
    let mut pipe = redis::pipe();
    pipe.atomic();
    (0..ACCOUNTS).for_each(|index| {
        pipe.get(account(index));
    });
    until_stopped(bank, |connection| {
        let balances: Vec<i64> = redis::from_redis_value(exec(connection, &pipe, ACCOUNTS)?)?;
        assert_eq!(balances.iter().sum::<i64>(), ACCOUNTS as i64 * OPENING_BALANCE, "{balances:?}");
        bank.looks.fetch_add(1, Relaxed);
        Ok(())
    });
}

fn progress(bank: &Bank) {
    let (moves, looks) = (bank.moves.load(Relaxed), bank.looks.load(Relaxed));
    wait_until("transfers and looks go on", PROGRESS_WITHIN, || {
        let moved = bank.moves.load(Relaxed) >= moves + PROGRESS;
        Ok(moved && bank.looks.load(Relaxed) >= looks + PROGRESS)
    })
    .unwrap();
}

#[test]
fn no_transfer_is_half_done_whatever_fails() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let options = Options { faults: true, ..Options::evenkeel() };
    let mut server = Server::start(options).expect("start");
    let bank = Arc::new(Bank { port: server.port(), ..Bank::default() });
    let mut control = connect(&bank).expect("connect");
    for index in 0..ACCOUNTS {
        cmd("SET").arg(account(index)).arg(OPENING_BALANCE).exec(&mut control).expect("SET");
    }
    let shared = || Arc::clone(&bank);
    let movers: Vec<JoinHandle<Moves>> = (0..MOVERS)
        .map(|id| {
            let bank = shared();
            std::thread::spawn(move || move_money(&bank, id))
        })
        .collect();
    let readers: Vec<JoinHandle<()>> = (0..READERS)
        .map(|_| {
            let bank = shared();
            std::thread::spawn(move || look(&bank))
        })
        .collect();
    let mut rng = Rng::new(5);
    progress(&bank);
    for _ in 0..STOPS {
        let mut client = server.client().expect("connect");
        let node = leading_node(&mut client).expect("a leader");
        for fault in ["STOP", "START"] {
            let line = format!("ADMIN FAULT {fault} {node}");
            assert!(!client.line(&line).expect("an answer").is_error(), "{line}");
            progress(&bank);
        }
    }
    for _ in 0..KILLS {
        // When the kill comes is left to chance.
        std::thread::sleep(Duration::from_millis(rng.below(200) as u64));
        server.kill().expect("kill");
        server.launch().expect("restart");
        progress(&bank);
    }
    bank.stop.store(true, Relaxed);
    readers.into_iter().for_each(|reader| reader.join().expect("a reader"));
    let moves: Vec<Moves> =
        movers.into_iter().map(|mover| mover.join().expect("a mover")).collect();
    let mut control = connect(&bank).expect("connect");
    let mut sum = 0;
    for index in 0..ACCOUNTS {
        sum += cmd("GET").arg(account(index)).query::<i64>(&mut control).expect("GET");
    }
    assert_eq!(sum, ACCOUNTS as i64 * OPENING_BALANCE);
    for (id, moves) in moves.iter().enumerate() {
        let count: i64 = cmd("GET").arg(format!("moves:{id}")).query(&mut control).expect("GET");
        let Moves { acknowledged, sent } = *moves;
        assert!(acknowledged <= count && count <= sent, "mover {id}: {count}, {moves:?}");
    }
    let of = |counter: &AtomicU64| counter.load(Relaxed);
    let [conflicts, refusals] = [of(&bank.conflicts), of(&bank.refusals)];
    println!(
        "{} transfers, {} looks, {conflicts} conflicts, {refusals} refusals",
        of(&bank.moves),
        of(&bank.looks)
    );
    assert!(conflicts > 0, "no two transfers ever met: nothing was shown about WATCH");
    server.stop().expect("stop");
}
