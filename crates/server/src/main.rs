//! The `evenkeel` server: reads the command line, starts the embedded cluster and serves clients.

mod config;
mod descriptors;
mod embedded;
mod folder;
mod host;
mod import;
mod links;
mod memory;
mod telemetry;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use router::{Router, RouterOptions};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use config::{Config, Invocation};
use descriptors::Descriptors;
use embedded::Embedded;
use host::ServerHost;

/// Chosen by measurement: SET takes 6 to 7% less CPU time than with the system's allocator or with
/// mimalloc, reads are alike (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What INFO calls it.
const ALLOCATOR_NAME: &str = "jemalloc-5.3.0";

/// How long connections may take to finish what they are doing when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|arg| arg == "import").is_some() {
        return match import::main(args) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("\nevenkeel import: {error:#}");
                ExitCode::from(2)
            }
        };
    }
    let config = match config::parse(args) {
        Ok(Invocation::Run(config)) => *config,
        Ok(Invocation::Help) => {
            print!("{}", config::help());
            return ExitCode::SUCCESS;
        }
        Ok(Invocation::Version) => {
            println!("evenkeel {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("evenkeel: {error}\nTry 'evenkeel --help'.");
            return ExitCode::from(2);
        }
    };
    let logs = telemetry::init(&config.loglevel);
    match run(config, logs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            eprintln!("evenkeel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut config: Config, logs: telemetry::LogLevel) -> anyhow::Result<()> {
    let is_default = config.maxclients == Config::default().maxclients;
    let descriptors = Descriptors::claim(config.maxclients as u64, is_default, config.nodes)?;
    config.maxclients = config.maxclients.min(descriptors.clients_max as usize);
    let config = &config;
    let embedded = Arc::new(Embedded::open(config, descriptors)?);
    let host = Arc::new(ServerHost::new(logs));
    let options = RouterOptions {
        parameters: config.parameters(),
        enable_faults: config.enable_faults,
        executable: std::env::current_exe().unwrap_or_default().display().to_string(),
        hub: embedded.hub(),
        keeps_databases: true,
        clients_max: descriptors.clients_max,
        sockets_below: descriptors.below,
        ..RouterOptions::default()
    };
    let (storage, memds, cache) = (embedded.storage(), embedded.memds(), embedded.cache());
    let router =
        Router::new(options, storage, memds, cache, host.clone()).map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.io_threads)
        .enable_all()
        .build()?;
    let running = Arc::clone(&embedded);
    runtime.spawn(async move { running.run().await });
    let served = runtime.block_on(serve(config, router, &host));
    runtime.shutdown_timeout(STOP_GRACE);
    embedded.stop();
    if served.is_ok() {
        tracing::info!("stopped");
    }
    served
}

async fn serve(config: &Config, router: Router, host: &ServerHost) -> anyhow::Result<()> {
    let mut listeners = Vec::new();
    for address in &config.bind {
        let listener = TcpListener::bind((address.as_str(), config.port)).await;
        listeners.push(listener.with_context(|| format!("listen on {address}:{}", config.port))?);
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    for listener in listeners {
        let router = router.clone();
        tokio::spawn(async move { router.serve(listener).await });
    }
    tracing::info!(port = config.port, replicas = config.replicas, "serving");
    println!("Ready to accept connections tcp");
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        () = host.shutdown_asked() => tracing::info!("SHUTDOWN: stopping"),
    }
    router.stop(STOP_GRACE).await;
    Ok(())
}
