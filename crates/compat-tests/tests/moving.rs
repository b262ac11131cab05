//! A key that is moved to another database while others write to it: no write gets lost, and none
//! counts twice.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use compat_tests::process::{Options, Server};
use compat_tests::resp::{Client, Value};

const MOVES: usize = 100;
const WRITERS: usize = 3;
/// Something is moved within this time, however busy the machine is.
const WITHIN: Duration = Duration::from_secs(30);
/// Between two writes of a writer. A key that is written to without a pause cannot be moved.
const PACE: Duration = Duration::from_millis(4);

fn number(value: &Value) -> i64 {
    match value {
        Value::Nil => 0,
        Value::Int(number) => *number,
        other => other.to_text().parse().expect("a number"),
    }
}

/// Counts up until told to stop; how often.
fn count_up(server: &Server, stop: &AtomicBool) -> Result<i64> {
    let mut client = server.client()?;
    let mut times = 0;
    while !stop.load(Relaxed) {
        let reply = client.line("INCR counter")?;
        ensure!(matches!(reply, Value::Int(_)), "{reply:?}");
        times += 1;
        std::thread::sleep(PACE);
    }
    Ok(times)
}

/// Moves the key away again and again and takes out what it held; how often, and the sum of that.
fn move_away(client: &mut Client) -> Result<(usize, i64)> {
    let (mut moved, mut taken) = (0, 0);
    let began = Instant::now();
    // On a busy machine the writers may begin when as many moves have found nothing.
    for tries in 0.. {
        if tries >= MOVES && (moved > 0 || began.elapsed() > WITHIN) {
            break;
        }
        client.line("SELECT 0")?;
        let reply = client.line("MOVE counter 1")?;
        match &reply {
            Value::Int(1) => moved += 1,
            // There was none at that moment, or it was written to all the time.
            Value::Int(0) => {}
            other => ensure!(other.error_text().starts_with("TRYAGAIN"), "{other:?}"),
        }
        client.line("SELECT 1")?;
        let value = client.line("GETDEL counter")?;
        ensure!((value == Value::Nil) == (reply != Value::Int(1)), "{reply:?}, then {value:?}");
        taken += number(&value);
    }
    Ok((moved, taken))
}

#[test]
fn no_write_is_lost_or_counted_twice() {
    let server = Server::start(Options::evenkeel()).expect("start");
    let stop = AtomicBool::new(false);
    let mut client = server.client().expect("connect");
    let (counted, (moved, taken)) = std::thread::scope(|scope| {
        let writers: Vec<_> =
            (0..WRITERS).map(|_| scope.spawn(|| count_up(&server, &stop))).collect();
        let moves = move_away(&mut client);
        stop.store(true, Relaxed);
        let counted = writers.into_iter().map(|writer| writer.join().expect("no panic"));
        let counted = counted.sum::<Result<i64>>().expect("writers");
        (counted, moves.expect("moves"))
    });
    client.line("SELECT 0").expect("SELECT");
    let left = number(&client.line("GET counter").expect("GET"));
    println!("{counted} writes, {moved} moves");
    assert_eq!(counted, taken + left);
    assert!(moved > 0, "nothing was moved");
}
