//! Client libraries as their users use them: redis-py and the `redis` crate, both protocols.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use compat_tests::process::{Options, Server};
use redis::Commands;

/// The interpreter of a virtual environment with redis-py, which is made once.
fn python() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    let requirements = folder.join("requirements.txt");
    let wanted = std::fs::read_to_string(&requirements)?;
    let venv = std::env::current_exe()?.ancestors().nth(3).context("target")?.join("python-venv");
    let (python, stamp) = (venv.join("bin/python"), venv.join("installed.txt"));
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let run = |command: &mut Command| -> Result<()> {
        let output = command.output().with_context(|| format!("run {command:?}"))?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv)).context("package python3-venv")?;
    run(Command::new(&python).args(["-m", "pip", "install", "-q", "-r"]).arg(&requirements))?;
    std::fs::write(stamp, wanted)?;
    Ok(python)
}

#[test]
fn redis_py_is_content() {
    let server = Server::start(Options::evenkeel()).expect("start");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/client.py");
    let output = Command::new(python().expect("redis-py"))
        .arg(script)
        .arg(server.port().to_string())
        .output()
        .expect("run python");
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.trim() == "ok", "{stdout}\n{stderr}");
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
