//! Servers to measure: launched on a free port in a directory of their own, killed when dropped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::client::Client;
use crate::driver::{self, Outcome, Until};
use crate::keys;

/// A server that does not answer within this time of its start has failed.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Loading keys before a measurement may take so long.
const LOAD_WITHIN: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(5);

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seat {
    /// Evenkeel with so many replicas of each partition.
    Evenkeel(u8),
    /// The same, with so many MiB of memory to use.
    EvenkeelWithin(u8, u32),
    /// Three replicas on so many storage nodes, with faults to inject and one table.
    EvenkeelNodes(u8),
    /// Three replicas of so many tables, each a group of its own, with faults to inject.
    EvenkeelGroups(u32),
    /// Redis that keeps nothing.
    RedisMemory,
    /// Redis that syncs its append-only file before each reply.
    RedisSynced,
}

impl Seat {
    /// For the head of a column.
    pub fn name(self) -> String {
        match self {
            Seat::Evenkeel(replicas) | Seat::EvenkeelWithin(replicas, _) => {
                format!("Evenkeel ×{replicas}")
            }
            Seat::EvenkeelNodes(nodes) => format!("Evenkeel on {nodes} nodes"),
            Seat::EvenkeelGroups(groups) => format!("Evenkeel with {groups} groups"),
            Seat::RedisMemory => "Redis".to_owned(),
            Seat::RedisSynced => "Redis, fsync always".to_owned(),
        }
    }

    fn command(self, port: u16, dir: &Path) -> Result<Command> {
        let (program, own): (PathBuf, &[&str]) = match self {
            Seat::Evenkeel(_) | Seat::EvenkeelWithin(..) => (evenkeel_binary()?, &[]),
            Seat::EvenkeelNodes(_) => (
                evenkeel_binary()?,
                &["--enable-faults", "--databases", "1", "--loglevel", "error"],
            ),
            Seat::EvenkeelGroups(_) => {
                (evenkeel_binary()?, &["--enable-faults", "--loglevel", "error"])
            }
            Seat::RedisMemory => ("redis-server".into(), &["--save", "", "--appendonly", "no"]),
            Seat::RedisSynced => (
                "redis-server".into(),
                &["--save", "", "--appendonly", "yes", "--appendfsync", "always"],
            ),
        };
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"]).arg(dir);
        if let Seat::Evenkeel(replicas) | Seat::EvenkeelWithin(replicas, _) = self {
            command.args(["--replicas", &replicas.to_string(), "--loglevel", "warn"]);
        }
        if let Seat::EvenkeelNodes(nodes) = self {
            command.args(["--nodes", &nodes.to_string()]);
        }
        if let Seat::EvenkeelGroups(groups) = self {
            command.args(["--databases", &groups.to_string()]);
        }
        if let Seat::EvenkeelWithin(_, memory_mb) = self {
            command.arg(format!("--memory={memory_mb}mb"));
        }
        command.args(own);
        Ok(command)
    }
}

/// `EVENKEEL_BIN`, or the workspace's own, built first.
fn evenkeel_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("EVENKEEL_BIN") {
        return Ok(PathBuf::from(path));
    }
    let exe = std::env::current_exe()?;
    let folder = exe.parent().context("folder of this program")?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let target = folder.parent().context("target folder")?;
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--package", "server", "--profile", profile, "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("run cargo build")?;
    ensure!(built.success(), "cargo build --package server failed");
    Ok(folder.join("evenkeel"))
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// What it is.
    pub seat: Seat,
    /// Where it listens.
    pub port: u16,
    child: Child,
    dir: tempfile::TempDir,
}

impl Server {
    /// Launches a server and waits until it answers.
    pub fn start(seat: Seat) -> Result<Server> {
        let dir = tempfile::Builder::new().prefix("evenkeel-bench-").tempdir()?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let child = launch(seat, port, dir.path())?;
        let mut server = Server { seat, port, child, dir };
        server.wait_ready()?;
        Ok(server)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its data is.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A connection for commands around the measurement.
    pub fn client(&self) -> Result<Client> {
        Client::connect(self.port).with_context(|| self.seat.name())
    }

    /// Kills it (SIGKILL), starts it again on its data, and returns how long it took from the start
    /// to the first reply that is no error to a read.
    pub fn kill_and_restart(&mut self) -> Result<Duration> {
        self.child.kill()?;
        self.child.wait()?;
        let start = Instant::now();
        self.child = launch(self.seat, self.port, self.dir.path())?;
        self.wait_ready()?;
        Ok(start.elapsed())
    }

    fn wait_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        while self.client().and_then(|mut client| client.call("EXISTS ready")).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at its start: {status}", self.seat.name());
            }
            ensure!(start.elapsed() < READY_WITHIN, "{} does not answer", self.seat.name());
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Writes the keys that redis-benchmark reads with `-r keys`, so that every GET hits.
    pub fn load(&self, keys: u64, value_bytes: usize) -> Result<()> {
        const CONNECTIONS: usize = 4;
        const PIPELINE: usize = 250;
        let generators = keys::fill(keys, value_bytes, CONNECTIONS);
        let until = Until { steps: keys, elapsed: LOAD_WITHIN };
        let outcome = driver::closed(self.port, generators, PIPELINE, until, 1)
            .and_then(Outcome::without_errors)
            .with_context(|| format!("load {}", self.seat.name()))?;
        ensure!(outcome.done == keys, "{} of {keys} keys loaded in time", outcome.done);
        Ok(())
    }
}

fn launch(seat: Seat, port: u16, dir: &Path) -> Result<Child> {
    seat.command(port, dir)?
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("launch {}", seat.name()))
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its directory goes with it; a failure to kill can only mean that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
