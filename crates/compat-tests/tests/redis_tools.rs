//! Redis's own tools against the server: redis-cli in its several ways of use, redis-benchmark.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use compat_tests::process::{Options, Server};
use compat_tests::resp::encode;

fn start() -> Server {
    Server::start(Options::evenkeel()).expect("start the server under test")
}

fn run(program: &str, server: &Server, args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(["-h", "127.0.0.1", "-p", &server.port().to_string()])
        .args(args)
        .env_remove("REDISCLI_AUTH")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("run {program} (package redis-tools): {error}"));
    let mut stdin = child.stdin.take().expect("stdin");
    let input = input.to_vec();
    // By a thread: the tool may answer before it has read all.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("output");
    writer.join().expect("writer").expect("the tool reads its input");
    output
}

/// Runs redis-cli; it must end well and say nothing on stderr.
fn cli(server: &Server, args: &[&str], input: &str) -> String {
    let output = run("redis-cli", server, args, input.as_bytes());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "redis-cli {args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_script_gives_the_same_text_as_on_redis() {
    const SCRIPT: &str = "\
SET greeting \"hello world\"
GET greeting
GET nosuch
INCR counter
INCRBYFLOAT float 10.5
MSET a 1 b 2 c 3
MGET a b nosuch
SET a x NX
GETRANGE greeting 0 4
EXISTS a b nosuch
EXPIRE a 100
TTL b
TYPE a
OBJECT ENCODING counter
LCS a b
SET s1 ohmytext
SET s2 mynewtext
LCS s1 s2 IDX MINMATCHLEN 4 WITHMATCHLEN
COMMAND GETKEYS MSET a 1 b 2
RENAME nosuch x
GET
nosuch command
SELECT 3
DBSIZE
CLIENT GETNAME
CLIENT SETNAME tester
CLIENT GETNAME
CONFIG GET slowlog-max-len
COMMAND INFO get nosuch
PING
ECHO \"\\x00\\xff\"
";
    let redis = Server::start(Options::redis()).expect("start Redis");
    let target = start();
    for args in
        [&[][..], &["-3"], &["--raw"], &["--no-raw"], &["--csv"], &["--json"], &["-2", "-n", "1"]]
    {
        assert_eq!(cli(&redis, args, SCRIPT), cli(&target, args, SCRIPT), "redis-cli {args:?}");
    }
}

#[test]
fn one_command_per_call_works() {
    let server = start();
    assert_eq!(cli(&server, &["SET", "k", "v"], ""), "OK\n");
    assert_eq!(cli(&server, &["GET", "k"], ""), "v\n");
    assert_eq!(cli(&server, &["-x", "SET", "k"], "from stdin"), "OK\n");
    assert_eq!(cli(&server, &["-3", "GET", "k"], ""), "from stdin\n");
    assert_eq!(cli(&server, &["-r", "3", "INCR", "n"], ""), "1\n2\n3\n");
    assert!(cli(&server, &["INFO", "server"], "").contains("redis_version:"));
}

#[test]
fn mass_insertion_by_pipe_is_complete() {
    const COUNT: usize = 50_000;
    let server = start();
    let mut bytes = Vec::new();
    for at in 0..COUNT {
        encode(&["SET".to_owned(), format!("key:{at}"), format!("value:{at}")], &mut bytes);
    }
    let output = run("redis-cli", &server, &["--pipe"], &bytes);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains(&format!("errors: 0, replies: {COUNT}")),
        "{text}"
    );
    assert_eq!(cli(&server, &["DBSIZE"], ""), format!("{COUNT}\n"));
    assert_eq!(cli(&server, &["GET", "key:49999"], ""), "value:49999\n");
}

#[test]
fn scan_and_bigkeys_see_every_key() {
    const COUNT: usize = 3_000;
    let server = start();
    let mut bytes = Vec::new();
    for at in 0..COUNT {
        encode(&["SET".to_owned(), format!("scan:{at}"), "v".repeat(at % 50)], &mut bytes);
    }
    encode(&["SET", "biggest", &"x".repeat(5_000)], &mut bytes);
    let output = run("redis-cli", &server, &["--pipe"], &bytes);
    assert!(output.status.success());
    let mut keys: Vec<String> =
        cli(&server, &["--scan", "--pattern", "scan:*"], "").lines().map(str::to_owned).collect();
    keys.sort();
    let mut expected: Vec<String> = (0..COUNT).map(|at| format!("scan:{at}")).collect();
    expected.sort();
    assert_eq!(keys, expected);
    let report = cli(&server, &["--bigkeys"], "");
    assert!(report.contains(&format!("Sampled {} keys", COUNT + 1)), "{report}");
    assert!(report.contains("Biggest string found '\"biggest\"' has 5000 bytes"), "{report}");
}

#[test]
fn shutdown_by_redis_cli_ends_the_server_and_keeps_the_data() {
    let mut server = start();
    assert_eq!(cli(&server, &["SET", "kept", "yes"], ""), "OK\n");
    // The connection closes without a reply, which redis-cli takes for success.
    run("redis-cli", &server, &["SHUTDOWN"], b"");
    server.wait_for_end().expect("a clean end");
    server.launch().expect("start again");
    assert_eq!(cli(&server, &["GET", "kept"], ""), "yes\n");
    server.stop().expect("stop");
}

#[test]
fn redis_benchmark_runs_without_a_word_of_complaint() {
    let server = start();
    for args in [
        &["-q", "-t", "ping,set,get,incr,mset", "-n", "20000"][..],
        &["-q", "-t", "set,get", "-n", "50000", "-P", "16", "-r", "10000", "-d", "100"],
        &["-q", "-t", "set,get", "-n", "2000", "-c", "1"],
        &["-q", "-3", "-t", "set,get,incr", "-n", "10000"],
    ] {
        let output = run("redis-benchmark", &server, args, b"");
        let stdout = String::from_utf8_lossy(&output.stdout).replace('\r', "\n");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{args:?}: {stderr}\n{stdout}");
        let lower = stdout.to_lowercase();
        assert!(!lower.contains("error") && !lower.contains("warning"), "{args:?}: {stdout}");
        let results = stdout.lines().filter(|line| line.contains("requests per second")).count();
        let tests = args.iter().find(|arg| arg.contains("set")).map_or(0, |t| t.split(',').count());
        assert!(results >= tests, "{args:?}: {stdout}");
    }
}
