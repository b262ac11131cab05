//! Constant work in routing: MemDS is asked once per routed command, whether the routers' caches are
//! warm, cold, or flushed again and again under load; and no request notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use compat_tests::admin::info_number;
use compat_tests::process::{Options, Server, wait_until};
use compat_tests::resp::{Client, encode};
use compat_tests::rng::Rng;

const CLIENTS: u64 = 3;
const PIPELINE: usize = 16;
const PHASE: Duration = Duration::from_secs(2);
const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// Lookups per command may be off by so much.
const RATIO_TOLERANCE: f64 = 0.02;
/// Lookups go out in batches behind the commands; they have arrived after this time at the latest.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);

/// The counters of INFO's routing section.
#[derive(Clone, Copy, Debug)]
struct Counters {
    commands: u64,
    hits: u64,
    misses: u64,
    lookups: u64,
}

impl Counters {
    fn read(client: &mut Client) -> Result<Counters> {
        Ok(Counters {
            commands: info_number(client, "routing", "routed_commands")?,
            hits: info_number(client, "routing", "route_cache_hits")?,
            misses: info_number(client, "routing", "route_cache_misses")?,
            lookups: info_number(client, "routing", "memds_lookups")?,
        })
    }

    fn since(self, before: Counters) -> Counters {
        Counters {
            commands: self.commands - before.commands,
            hits: self.hits - before.hits,
            misses: self.misses - before.misses,
            lookups: self.lookups - before.lookups,
        }
    }

    fn ratio(self) -> f64 {
        self.lookups as f64 / self.commands as f64
    }
}

/// Reads and writes single keys; every reply must be in order. Returns the commands sent.
fn client(port: u16, seed: u64, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    let mut client = Client::connect(port)?;
    let mut rng = Rng::new(seed);
    while !stop.load(Ordering::Relaxed) {
        let mut bytes = Vec::new();
        for _ in 0..PIPELINE {
            let key = format!("key:{}", rng.below(10_000));
            match rng.below(3) {
                0 => encode(&["SET", &key, "value"], &mut bytes),
                1 => encode(&["GET", &key], &mut bytes),
                _ => encode(&["STRLEN", &key], &mut bytes),
            }
        }
        client.send_raw(&bytes)?;
        for _ in 0..PIPELINE {
            let reply = client.read()?;
            let fine = reply.as_ref().is_some_and(|reply| !reply.value.is_error());
            ensure!(fine, "a request failed: {reply:?}");
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Runs the load for a phase, with `during` called again and again, and gives what was counted.
fn phase(server: &Server, mut during: impl FnMut(&mut Client)) -> Counters {
    let mut control = server.client().expect("connect");
    let before = Counters::read(&mut control).expect("INFO routing");
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|seed| {
            let (port, stop, sent) = (server.port(), Arc::clone(&stop), Arc::clone(&sent));
            std::thread::spawn(move || client(port, seed, &stop, &sent))
        })
        .collect();
    let start = Instant::now();
    while start.elapsed() < PHASE {
        during(&mut control);
    }
    stop.store(true, Ordering::Relaxed);
    clients
        .into_iter()
        .for_each(|client| client.join().expect("client").expect("no failed request"));
    let sent = sent.load(Ordering::Relaxed);
    let mut counted = before;
    let settled = wait_until("lookups settle", SETTLE_WITHIN, || {
        counted = Counters::read(&mut control)?.since(before);
        Ok((counted.ratio() - 1.0).abs() <= RATIO_TOLERANCE)
    });
    println!("{sent} commands sent; {counted:?}, ratio {:.4}", counted.ratio());
    settled.expect("one lookup per routed command");
    assert_eq!(counted.commands, sent, "each single-key command is routed once");
    assert_eq!(counted.hits + counted.misses, counted.commands, "a command hits or misses");
    counted
}

#[test]
fn memds_sees_one_lookup_per_command_warm_cold_and_while_flushing() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let server = Server::start(Options::evenkeel()).expect("start");
    let pause = |_: &mut Client| std::thread::sleep(FLUSH_EVERY);
    let flush = |client: &mut Client| {
        let reply = client.line("ADMIN CACHE FLUSH").expect("ADMIN CACHE FLUSH");
        assert!(!reply.is_error(), "{reply:?}");
    };
    phase(&server, pause);
    let warm = phase(&server, pause);
    assert!(warm.misses * 100 <= warm.commands, "the cache is warm: {warm:?}");
    flush(&mut server.client().expect("connect"));
    let cold = phase(&server, pause);
    assert!(cold.misses > 0, "the cache was cold: {cold:?}");
    let flushing = phase(&server, |client| {
        flush(client);
        std::thread::sleep(FLUSH_EVERY);
    });
    assert!(flushing.misses > cold.misses, "flushes cost hits: {flushing:?} against {cold:?}");
}
