//! Client libraries and job queues as their users use them: of Python, Node.js and Rust.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use compat_tests::process::{Options, Server};
use fred::interfaces::{
    ClientLike, EventInterface, KeysInterface, ListInterface, PubsubInterface, TransactionInterface,
};
use fred::types::RespVersion;
use redis::Commands;

/// A folder of scripts in this crate.
fn scripts(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

/// A folder below `target` that is made once by `make`, and again when what it is made from changes.
fn made_once(name: &str, wanted: &str, make: impl Fn(&Path) -> Result<()>) -> Result<PathBuf> {
    let dir = std::env::current_exe()?.ancestors().nth(3).context("target")?.join(name);
    let stamp = dir.join("installed.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(dir);
    }
    std::fs::create_dir_all(&dir)?;
    make(&dir)?;
    std::fs::write(stamp, wanted)?;
    Ok(dir)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The interpreter of a virtual environment with what the Python scripts need.
fn python() -> Result<PathBuf> {
    let requirements = scripts("python").join("requirements.txt");
    let wanted = std::fs::read_to_string(&requirements)?;
    let venv = made_once("python-venv", &wanted, |venv| {
        run(Command::new("python3").args(["-m", "venv"]).arg(venv))
            .context("package python3-venv")?;
        let pip = ["-m", "pip", "install", "-q", "-r"];
        run(Command::new(venv.join("bin/python")).args(pip).arg(&requirements))
    })?;
    Ok(venv.join("bin/python"))
}

/// A folder with the packages that the Node.js scripts need; a script must lie in it to find them.
fn node_folder() -> Result<PathBuf> {
    let wanted = std::fs::read_to_string(scripts("node").join("package.json"))?;
    made_once("node-clients", &wanted, |dir| {
        std::fs::write(dir.join("package.json"), &wanted)?;
        let npm = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"];
        run(Command::new("npm").args(npm).current_dir(dir)).context("package npm")
    })
}

/// Runs a script with the port of a fresh server; it must end well and say `ok`.
fn run_script(interpreter: &Path, script: &Path, options: Options) {
    let server = Server::start(options).expect("start");
    let mut command = Command::new(interpreter);
    let output = command.arg(script).arg(server.port().to_string()).output().expect("run it");
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let is_ok = output.status.success() && stdout.trim() == "ok";
    assert!(is_ok, "{}: {stdout}\n{stderr}", script.display());
}

fn run_python(script: &str) {
    run_python_on(script, Options::evenkeel());
}

fn run_python_on(script: &str, options: Options) {
    run_script(&python().expect("packages of Python"), &scripts("python").join(script), options);
}

fn run_node(script: &str) {
    let folder = node_folder().expect("packages of Node.js");
    let copy = folder.join(script);
    std::fs::copy(scripts("node").join(script), &copy).expect("copy the script");
    run_script(Path::new("node"), &copy, Options::evenkeel());
}

#[test]
fn redis_py_is_content() {
    run_python("client.py");
}

#[test]
fn cluster_clients_are_content() {
    if Options::evenkeel().is_redis() {
        // A cluster of Redis would have to be made first.
        return;
    }
    let extra = vec!["--cluster-enabled".to_owned(), "yes".to_owned()];
    let options = Options { extra, ..Options::evenkeel() };
    run_python_on("cluster.py", options.clone());
    let server = Server::start(options).expect("start");
    let url = format!("redis://127.0.0.1:{}", server.port());
    let client = redis::cluster::ClusterClient::new(vec![url]).expect("a URL");
    let mut connection = client.get_connection().expect("connect");
    for at in 0..100 {
        let () = connection.set(format!("k:{at}"), at).expect("set");
    }
    for at in 0..100 {
        let value: i64 = connection.get(format!("k:{at}")).expect("get");
        assert_eq!(value, at);
    }
    let added: i64 = connection.incr("n", 5).expect("incr");
    assert_eq!(added, 5);
}

#[test]
fn ioredis_is_content() {
    run_node("client_ioredis.mjs");
}

#[test]
fn node_redis_is_content() {
    run_node("client_node_redis.mjs");
}

#[test]
fn celery_runs_its_jobs_though_its_connections_are_killed() {
    run_python("queue_celery.py");
}

#[test]
fn rq_runs_its_jobs_though_its_connections_are_killed() {
    run_python("queue_rq.py");
}

#[test]
fn bullmq_runs_its_jobs_though_its_connections_are_killed() {
    run_node("queue_bullmq.mjs");
}

#[test]
fn the_redis_crate_is_content() {
    let server = Server::start(Options::evenkeel()).expect("start");
    for protocol in ["resp2", "resp3"] {
        let url = format!("redis://127.0.0.1:{}/2?protocol={protocol}", server.port());
        let client = redis::Client::open(url).expect("a URL");
        let mut connection = client.get_connection().expect("connect");
        dialogue(&mut connection).unwrap_or_else(|error| panic!("{protocol}: {error}"));
    }
}

fn dialogue(connection: &mut redis::Connection) -> redis::RedisResult<()> {
    redis::cmd("FLUSHDB").exec(connection)?;
    let () = connection.set("key", "value")?;
    let value: String = connection.get("key")?;
    assert_eq!(value, "value");
    let missing: Option<String> = connection.get("nosuch")?;
    assert_eq!(missing, None);
    let added: i64 = connection.incr("n", 5)?;
    assert_eq!(added, 5);
    let () = connection.mset(&[("a", "1"), ("b", "2"), ("{t}c", "3")])?;
    let values: Vec<Option<i64>> = connection.mget(&["a", "b", "nosuch", "{t}c"])?;
    assert_eq!(values, [Some(1), Some(2), None, Some(3)]);
    let set: bool = connection.set_nx("a", "x")?;
    assert!(!set);
    let () = connection.set_ex("e", "1", 100)?;
    let ttl: i64 = connection.ttl("e")?;
    assert!((98..=100).contains(&ttl), "{ttl}");
    let deleted: i64 = connection.del(&["e", "nosuch"])?;
    assert_eq!(deleted, 1);
    let (first, second): (String, i64) = redis::pipe()
        .cmd("SET")
        .arg("p")
        .arg("q")
        .ignore()
        .cmd("GET")
        .arg("p")
        .cmd("STRLEN")
        .arg("p")
        .query(connection)?;
    assert_eq!((first.as_str(), second), ("q", 1));
    for at in 0..300 {
        let () = connection.set(format!("scan:{at}"), at)?;
    }
    let keys: redis::RedisResult<BTreeSet<String>> = connection.scan_match("scan:*")?.collect();
    assert_eq!(keys?.len(), 300);
    let error = redis::cmd("GET").query::<String>(connection).expect_err("wrong arity");
    assert!(error.to_string().contains("wrong number of arguments"), "{error}");
    let binary: Vec<u8> = (0..=255).collect();
    let () = connection.set("binary", &binary)?;
    let back: Vec<u8> = connection.get("binary")?;
    assert_eq!(back, binary);
    let info: redis::InfoDict = redis::cmd("INFO").query(connection)?;
    assert!(info.get::<String>("redis_version").is_some());
    Ok(())
}

#[tokio::test]
async fn the_fred_crate_is_content() {
    let server = Server::start(Options::evenkeel()).expect("start");
    for version in [RespVersion::RESP2, RespVersion::RESP3] {
        fred_dialogue(server.port(), &version)
            .await
            .unwrap_or_else(|error| panic!("{version:?}: {error}"));
    }
}

async fn fred_dialogue(port: u16, version: &RespVersion) -> Result<(), fred::error::Error> {
    let connect = async || {
        let mut config = fred::prelude::Config::from_url(&format!("redis://127.0.0.1:{port}/5"))?;
        config.version = version.clone();
        let client = fred::prelude::Builder::from_config(config).build()?;
        client.init().await?;
        Ok::<_, fred::error::Error>(client)
    };
    let (client, other) = (connect().await?, connect().await?);
    client.flushall::<()>(false).await?;
    client.set::<(), _, _>("key", "value", None, None, false).await?;
    assert_eq!(client.get::<Option<String>, _>("key").await?.as_deref(), Some("value"));
    assert_eq!(client.get::<Option<String>, _>("nosuch").await?, None);

    let pipeline = client.pipeline();
    pipeline.incr::<(), _>("n").await?;
    pipeline.incr_by::<(), _>("n", 41).await?;
    assert_eq!(pipeline.all::<Vec<i64>>().await?, [1, 42]);
    let transaction = client.multi();
    transaction.rpush::<(), _, _>("list", vec!["a", "b"]).await?;
    transaction.lrange::<(), _>("list", 0, -1).await?;
    let (length, items): (i64, Vec<String>) = transaction.exec(true).await?;
    assert_eq!((length, items), (2, vec!["a".to_owned(), "b".to_owned()]));

    // One waits, the other brings.
    let waits = tokio::spawn({
        let client = client.clone();
        async move { client.blpop::<(String, String), _>("queue", 10.0).await }
    });
    other.rpush::<(), _, _>("queue", "job").await?;
    let popped = waits.await.expect("the waiting task")?;
    assert_eq!(popped, ("queue".to_owned(), "job".to_owned()));

    let mut messages = other.message_rx();
    other.subscribe("news").await?;
    // fred goes on once the subscription is sent: the first messages may come before it.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while client.publish::<i64, _, _>("news", "hello").await? == 0 {
        assert!(std::time::Instant::now() < deadline, "nobody subscribes");
    }
    let message = messages.recv().await.expect("a message");
    assert_eq!((&*message.channel, message.value.as_str().as_deref()), ("news", Some("hello")));
    client.quit().await?;
    other.quit().await
}
