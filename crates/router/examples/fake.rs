//! A router over storage in memory: `cargo run -p router --example fake -- <port> [gate delay in µs]`.
//!
//! For looking at the router alone: with redis-cli, redis-benchmark, a profiler.

#[path = "../tests/fake/mod.rs"]
mod fake;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use router::{Router, RouterOptions};

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let port: u16 = args.next().and_then(|port| port.parse().ok()).expect("a port");
    let delay_us: Option<u64> = args.next().and_then(|delay| delay.parse().ok());
    let fake = fake::Fake::new();
    fake.forget_log();
    fake.gated.store(delay_us.is_some(), SeqCst);
    if let Some(delay_us) = delay_us.filter(|delay| *delay > 0) {
        fake.set_gates(fake::Gates::After(Duration::from_micros(delay_us)));
    }
    let mut options = RouterOptions { enable_faults: true, ..RouterOptions::default() };
    options.parameters.push(("port".to_owned(), port.to_string()));
    let (memds, cache) = fake::memds_client(&fake);
    let host = Arc::new(fake::FakeHost::default());
    let router = Router::new(options, fake, memds, cache, host).expect("valid options");
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
    println!("Ready to accept connections tcp");
    router.serve(listener).await;
}
