//! Servers to measure: launched on a free port in a directory of their own, killed when dropped.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// A server that does not answer within this time of its start has failed.
const READY_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seat {
    /// Evenkeel with so many replicas of each partition.
    Evenkeel(u8),
    /// Redis that keeps nothing.
    RedisMemory,
    /// Redis that syncs its append-only file before each reply.
    RedisSynced,
}

impl Seat {
    /// For the head of a column.
    pub fn name(self) -> String {
        match self {
            Seat::Evenkeel(replicas) => format!("Evenkeel ×{replicas}"),
            Seat::RedisMemory => "Redis".to_owned(),
            Seat::RedisSynced => "Redis, fsync always".to_owned(),
        }
    }

    fn command(self, port: u16, dir: &Path) -> Result<Command> {
        let (program, own): (PathBuf, &[&str]) = match self {
            Seat::Evenkeel(_) => (evenkeel_binary()?, &[]),
            Seat::RedisMemory => ("redis-server".into(), &["--save", "", "--appendonly", "no"]),
            Seat::RedisSynced => (
                "redis-server".into(),
                &["--save", "", "--appendonly", "yes", "--appendfsync", "always"],
            ),
        };
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"]).arg(dir);
        if let Seat::Evenkeel(replicas) = self {
            command.args(["--replicas", &replicas.to_string()]);
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
    _dir: tempfile::TempDir,
}

impl Server {
    /// Launches a server and waits until it answers.
    pub fn start(seat: Seat) -> Result<Server> {
        let dir = tempfile::Builder::new().prefix("evenkeel-bench-").tempdir()?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let child = seat
            .command(port, dir.path())?
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("launch {}", seat.name()))?;
        let mut server = Server { seat, port, child, _dir: dir };
        let start = Instant::now();
        while server.send(b"PING\r\n", 1).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{} ended at its start: {status}", seat.name());
            }
            ensure!(start.elapsed() < READY_WITHIN, "{} does not answer", seat.name());
            std::thread::sleep(POLL);
        }
        Ok(server)
    }

    /// Sends bytes and waits for so many one-line replies, none of which is an error.
    fn send(&self, bytes: &[u8], replies: usize) -> Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(READY_WITHIN))?;
        stream.write_all(bytes)?;
        let (mut seen, mut line_start) = (0, true);
        let mut buffer = vec![0; 64 * 1024];
        while seen < replies {
            let count = stream.read(&mut buffer)?;
            ensure!(count > 0, "closed after {seen} of {replies} replies");
            for byte in &buffer[..count] {
                ensure!(!line_start || *byte != b'-', "a command failed");
                line_start = *byte == b'\n';
                seen += usize::from(line_start);
            }
        }
        Ok(())
    }

    /// Writes the keys that redis-benchmark reads with `-r keys`, so that every GET hits.
    pub fn load(&self, keys: usize, value_bytes: usize) -> Result<()> {
        const BATCH: usize = 5_000;
        let value = "x".repeat(value_bytes);
        for first in (0..keys).step_by(BATCH) {
            let last = keys.min(first + BATCH);
            let mut bytes = String::new();
            for key in first..last {
                bytes.push_str(&format!(
                    "*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n${value_bytes}\r\n{value}\r\n"
                ));
            }
            self.send(bytes.as_bytes(), last - first).with_context(|| self.seat.name())?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its directory goes with it; a failure to kill can only mean that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
