//! Servers as processes: launched on a free port in a directory of their own, killed by their id,
//! restarted on the same directory; what they print is kept, and an ERROR or WARN line that the test
//! did not announce fails it.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::resp::{Client, Value};

/// A server that does not answer within this time of its start has failed.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A server that still runs so long after being asked to stop hangs. (It writes down what it holds, beside
/// whoever else uses the disk.)
const STOP_WITHIN: Duration = Duration::from_secs(120);
/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(2);

/// Which program sits in a seat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The binary under test.
    Evenkeel,
    /// Redis without persistence, the measure.
    Redis,
}

/// How to launch a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program.
    pub kind: Kind,
    /// Copies of each partition (Evenkeel only).
    pub replicas: u8,
    /// Whether `ADMIN FAULT` is allowed (Evenkeel only).
    pub faults: bool,
    /// The password clients must give.
    pub password: Option<String>,
    /// The most connections at once.
    pub clients_max: Option<u32>,
    /// Options of the command line besides those above.
    pub extra: Vec<String>,
    /// An ERROR or WARN line that contains one of these is expected.
    pub expected_log: Vec<&'static str>,
}

impl Options {
    /// The binary under test with three replicas, which is its default.
    pub fn evenkeel() -> Options {
        Options {
            kind: Kind::Evenkeel,
            replicas: 3,
            faults: false,
            password: None,
            clients_max: None,
            extra: Vec::new(),
            expected_log: Vec::new(),
        }
    }

    /// Redis.
    pub fn redis() -> Options {
        Options { kind: Kind::Redis, ..Options::evenkeel() }
    }

    /// Whether Redis itself sits in the seat (also when `EVENKEEL_BIN` says so): the tests of what
    /// only Evenkeel has do not apply then.
    pub fn is_redis(&self) -> bool {
        self.kind == Kind::Redis || evenkeel_binary().is_ok_and(is_redis_binary)
    }

    fn command(&self, port: u16, dir: &Path) -> Result<Command> {
        let mut command = match self.kind {
            Kind::Redis => Command::new("redis-server"),
            Kind::Evenkeel => Command::new(evenkeel_binary()?),
        };
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"]).arg(dir);
        if self.kind == Kind::Redis {
            command.args(["--save", "", "--appendonly", "no"]);
        } else if self.is_redis() {
            command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        } else {
            command.args(["--replicas", &self.replicas.to_string()]);
            if self.faults {
                command.arg("--enable-faults");
            }
        }
        if let Some(password) = &self.password {
            command.args(["--requirepass", password]);
        }
        if let Some(clients_max) = self.clients_max {
            command.args(["--maxclients", &clients_max.to_string()]);
        }
        command.args(&self.extra);
        Ok(command)
    }
}

fn is_redis_binary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "redis-server")
}

/// The binary under test: `EVENKEEL_BIN`, or the workspace's own, built first with the profile that
/// this test was built with (a stale binary would test yesterday's code).
pub fn evenkeel_binary() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| find_binary().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow::anyhow!("find the evenkeel binary: {error}"))
}

fn find_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("EVENKEEL_BIN") {
        return Ok(PathBuf::from(path));
    }
    // target/<profile>/deps/<test>: two up is where cargo puts the workspace's binaries.
    let test = std::env::current_exe()?;
    let profile_dir = test.parent().and_then(Path::parent).context("directory of this test")?;
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target_dir = profile_dir.parent().context("target directory")?;
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--package", "server", "--profile", profile, "--target-dir"])
        .arg(target_dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("run cargo build")?;
    ensure!(built.success(), "cargo build --package server failed");
    let path = profile_dir.join("evenkeel");
    ensure!(path.exists(), "no {} after building package server", path.display());
    Ok(path)
}

/// A running server. Dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    options: Options,
    port: u16,
    dir: Arc<tempfile::TempDir>,
    child: Option<Child>,
    log: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Server {
    /// Launches a server in a fresh directory and waits until it answers.
    pub fn start(options: Options) -> Result<Server> {
        let dir = tempfile::Builder::new().prefix("evenkeel-compat-").tempdir()?;
        let mut server = Server {
            options,
            port: free_port()?,
            dir: Arc::new(dir),
            child: None,
            log: Arc::default(),
            readers: Vec::new(),
        };
        server.launch()?;
        Ok(server)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it keeps its data.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process id; 0 while it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// A new connection, authenticated if there is a password.
    pub fn client(&self) -> Result<Client> {
        let mut client = Client::connect(self.port)?;
        if let Some(password) = &self.options.password {
            let reply = client.call(&["AUTH", password])?;
            ensure!(reply == Value::Simple(b"OK".to_vec()), "AUTH: {reply:?}");
        }
        Ok(client)
    }

    /// Launches the process again on the same directory and port. Returns the time from the launch
    /// to the first reply.
    pub fn launch(&mut self) -> Result<Duration> {
        ensure!(self.child.is_none(), "already running");
        // May build the binary first: that is not the server's time.
        let mut command = self.options.command(self.port, self.dir.path())?;
        let start = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("launch {:?}", self.options.kind))?;
        self.readers = vec![
            collect(child.stdout.take().context("stdout")?, Arc::clone(&self.log)),
            collect(child.stderr.take().context("stderr")?, Arc::clone(&self.log)),
        ];
        self.child = Some(child);
        loop {
            if ping(self.port) {
                return Ok(start.elapsed());
            }
            if let Some(status) = self.child.as_mut().context("child")?.try_wait()? {
                bail!("the server ended at its start ({status}):\n{}", self.log_text());
            }
            ensure!(
                start.elapsed() < READY_WITHIN,
                "no answer within {READY_WITHIN:?}:\n{}",
                self.log_text()
            );
            std::thread::sleep(POLL);
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let pid = i32::try_from(self.pid())?;
        ensure!(pid > 0, "not running");
        // SAFETY: kill takes two integers; the pid is that of our own unreaped child.
        let outcome = unsafe { libc::kill(pid, signal) };
        ensure!(outcome == 0, "signal {signal}: {}", std::io::Error::last_os_error());
        Ok(())
    }

    /// Kills it with SIGKILL: no handler of its runs.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("not running")?;
        child.kill()?;
        child.wait()?;
        self.drain();
        Ok(())
    }

    /// Asks it to stop with SIGTERM and waits for a clean end.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(libc::SIGTERM)?;
        self.wait_for_end()
    }

    /// Waits until the process has ended by itself with status 0, and checks its log.
    pub fn wait_for_end(&mut self) -> Result<()> {
        let start = Instant::now();
        let child = self.child.as_mut().context("not running")?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            ensure!(
                start.elapsed() < STOP_WITHIN,
                "still running {STOP_WITHIN:?} after the request"
            );
            std::thread::sleep(POLL);
        };
        self.child = None;
        self.drain();
        ensure!(status.success(), "ended with {status}:\n{}", self.log_text());
        self.check_log()
    }

    /// Everything it has printed so far, all its launches included.
    pub fn log_text(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Fails on an ERROR or WARN line, or a panic, that the options do not announce.
    pub fn check_log(&self) -> Result<()> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let bad = unexpected_lines(&log, &self.options.expected_log);
        ensure!(
            bad.is_empty() || self.options.is_redis(),
            "unexpected log lines:\n{}",
            bad.join("\n")
        );
        Ok(())
    }

    /// Waits for the readers, which end with the process's last byte.
    fn drain(&mut self) {
        for reader in self.readers.drain(..) {
            // A reader only fails by panicking, and then its lines are missing from a log that is
            // printed with the failure anyway.
            let _ = reader.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            // Nothing can be done about a failure here; the kill is also the only way to end it.
            let _ = self.kill();
        }
        if std::thread::panicking() {
            eprintln!("log of {:?} on port {}:\n{}", self.options.kind, self.port, self.log_text());
        } else if let Err(error) = self.check_log() {
            panic!("{error:#}");
        }
    }
}

fn unexpected_lines<'a>(log: &'a [String], expected: &[&str]) -> Vec<&'a str> {
    log.iter()
        .map(String::as_str)
        .filter(|line| {
            line.split([' ', '\t', ':', '[', ']', '\u{1b}']).any(|word| {
                matches!(word, "ERROR" | "WARN")
                    || word.ends_with("mERROR")
                    || word.ends_with("mWARN")
            }) || line.contains("panicked at")
        })
        .filter(|line| !expected.iter().any(|expected| line.contains(expected)))
        .collect()
}

fn collect(stream: impl Read + Send + 'static, log: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}

/// Whether a server answers PING, if only to ask for a password.
fn ping(port: u16) -> bool {
    let answer = Client::connect(port).and_then(|mut client| client.line("PING"));
    match answer {
        Ok(Value::Simple(text)) => text == b"PONG",
        Ok(Value::Error(text)) => text.starts_with(b"NOAUTH"),
        _ => false,
    }
}

/// A port nobody listens on at this moment.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Looks at a condition until it holds; an error when it still does not after `limit`.
pub fn wait_until(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let start = Instant::now();
    while !holds()? {
        ensure!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(POLL);
    }
    Ok(start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_that_nobody_announced_are_found() {
        let log: Vec<String> = [
            "2026-01-01T00:00:00Z  INFO server: ready",
            "2026-01-01T00:00:00Z  WARN storage: slow disk",
            "2026-01-01T00:00:00Z \u{1b}[31mERROR\u{1b}[0m storage: gone",
            "thread 'main' panicked at src/main.rs:1:1:",
            "0 ERRORS and no WARNINGS are not levels",
        ]
        .map(str::to_owned)
        .to_vec();
        assert_eq!(unexpected_lines(&log, &[]).len(), 3);
        assert_eq!(unexpected_lines(&log, &["slow disk", "gone"]).len(), 1);
    }

    #[test]
    fn redis_starts_answers_restarts_and_stops() {
        let mut server = Server::start(Options::redis()).unwrap();
        assert_eq!(server.client().unwrap().line("PING").unwrap(), Value::Simple(b"PONG".to_vec()));
        server.kill().unwrap();
        assert!(server.client().is_err());
        server.launch().unwrap();
        server.stop().unwrap();
    }
}
