//! What must not hurt others: bytes that are no RESP, promises not kept, replies not read.

mod fake;

use std::time::Duration;

use fake::client::Client;
use fake::start;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nothing in these tests takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends bytes and reads until the router closes; what it said.
async fn say(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    stream.write_all(bytes).await.expect("it reads");
    let mut said = Vec::new();
    let reading = stream.read_to_end(&mut said);
    // A reset counts as closed; what was said before is kept.
    let _ = tokio::time::timeout(PATIENCE, reading).await.expect("it closes");
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_resp_is_refused_and_closed() {
    let running = start(&[], |_| {}).await;
    for (bytes, expected) in [
        (&b"*a\r\n"[..], "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*2147483648\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
        (b"*1\r\n+PING\r\n", "-ERR Protocol error: expected '$', got '+'\r\n"),
        (b"*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"*1\r\n$99999999999\r\n", "-ERR Protocol error: invalid bulk length\r\n"),
        (b"GET \"a\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
        (b"PING\r\n*1\r\n$x\r\n", "+PONG\r\n-ERR Protocol error: invalid bulk length\r\n"),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET k 1\r\n", ""),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ""),
    ] {
        let said = say(running.port, bytes).await;
        assert_eq!(said, expected, "{:?}", String::from_utf8_lossy(bytes));
    }
    assert!(running.fake.take_log().is_empty());
    assert_eq!(Client::connect(running.port).await.run("PING").await, "PONG");
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_requests_ask_for_nothing() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    client.send("*0\r\n\r\n*-1\r\n   \r\nPING\r\n\r\n").await;
    assert_eq!(client.replies(1).await, ["PONG"]);
    assert_eq!(client.run("ECHO x").await, "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn line_breaks_cannot_forge_replies() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    for line in ["x\r\n+OK", "CONFIG x\r\n+OK", "HELLO 3 x\r\n+OK", "CLIENT KILL USER x\r\n+OK"] {
        let reply = client.run(line).await;
        assert!(reply.contains("x  +OK"), "{reply:?}");
        assert_eq!(client.run("PING").await, "PONG");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_cost_no_memory() {
    let running = start(&[], |_| {}).await;
    let mut promisers = Vec::new();
    for _ in 0..200 {
        let mut client = Client::connect(running.port).await;
        client.send("*1000000\r\n$60000000\r\nabc").await;
        promisers.push(client);
    }
    let mut client = Client::connect(running.port).await;
    let info = client.run("INFO clients").await;
    let most = info.lines().find_map(|line| line.strip_prefix("client_recent_max_input_buffer:"));
    let most: u64 = most.and_then(|n| n.trim().parse().ok()).expect("a number");
    assert!(most < 100_000, "{most} bytes held for 3 received");
}

/// Waits for a condition that the router tells of, with a bound.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// How many bytes wait for a connection, by CLIENT LIST; `None` if it is gone.
async fn waiting(operator: &mut Client, id: &str) -> Option<u64> {
    let line = operator.run(&format!("CLIENT LIST ID {id}")).await;
    let field = line.split(' ').find_map(|field| field.strip_prefix("obl="))?;
    Some(field.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_stops_itself_alone() {
    let running = start(&[], |_| {}).await;
    let mut operator = Client::connect(running.port).await;
    assert_eq!(operator.run(&format!("SET big {}", "x".repeat(1 << 20))).await, "OK");
    let mut glutton = Client::connect(running.port).await;
    let id = glutton.run("CLIENT ID").await;
    // Four gigabytes of replies are asked for, and none read.
    glutton.send("GET big\r\n".repeat(4000)).await;
    until("replies wait", async || waiting(&mut operator, &id).await != Some(0)).await;
    for _ in 0..100 {
        let held = waiting(&mut operator, &id).await.expect("it is not cut off");
        assert!(held < 2 << 20, "{held} bytes are held for it");
    }
    drop(glutton);
    until("it is gone", async || waiting(&mut operator, &id).await.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_replies_must_be_read_in_time() {
    // More than the kernel's socket buffers take.
    let mget = format!("MGET{}", " big".repeat(32));
    for limits in ["normal 8mb 0 0", "normal 0 1mb 1"] {
        let running = start(&[("client-output-buffer-limit", limits)], |_| {}).await;
        let mut operator = Client::connect(running.port).await;
        assert_eq!(operator.run(&format!("SET big {}", "x".repeat(1 << 20))).await, "OK");
        let mut slow = Client::connect(running.port).await;
        let id = slow.run("CLIENT ID").await;
        slow.send_lines(&[&mget]).await;
        until("it is cut off", async || waiting(&mut operator, &id).await.is_none()).await;
        let reader = async { while slow.reply().await.is_some() {} };
        tokio::time::timeout(PATIENCE, reader).await.expect("cut off");
        let stats = operator.run("INFO stats").await;
        assert!(stats.contains("client_output_buffer_limit_disconnections:1\r\n"), "{stats}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_beyond_the_limit_is_not_begun() {
    let running = start(&[("client-output-buffer-limit", "normal 100000 0 0")], |_| {}).await;
    let mut operator = Client::connect(running.port).await;
    assert_eq!(operator.run(&format!("SET big {}", "x".repeat(101_000))).await, "OK");
    assert_eq!(operator.run(&format!("SET fits {}", "x".repeat(99_000))).await, "OK");
    let mut client = Client::connect(running.port).await;
    assert_eq!(client.run("GET fits").await.len(), 99_000);
    client.send_lines(&["SET done 1", "GET big"]).await;
    assert!(tokio::time::timeout(PATIENCE, client.reply()).await.expect("closed").is_none());
    assert_eq!(operator.run("GET done").await, "1");
    let stats = operator.run("INFO stats").await;
    assert!(stats.contains("client_output_buffer_limit_disconnections:1\r\n"), "{stats}");
    assert!(stats.contains("client_query_buffer_limit_disconnections:0\r\n"), "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_connection_has_room_for_is_below_every_limit() {
    let running = start(&[("client-output-buffer-limit", "normal 10 0 0")], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    assert_eq!(client.run(&format!("SET k {}", "x".repeat(16_000))).await, "OK");
    assert_eq!(client.run("GET k").await.len(), 16_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_a_request_is_counted_and_not_answered() {
    let running = start(&[("client-query-buffer-limit", "1mb")], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    client.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", 1 << 20)).await;
    assert!(tokio::time::timeout(PATIENCE, client.reply()).await.expect("closed").is_none());
    let mut operator = Client::connect(running.port).await;
    let stats = operator.run("INFO stats").await;
    assert!(stats.contains("client_query_buffer_limit_disconnections:1\r\n"), "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_connections_leave_nothing_behind() {
    let running = start(&[], |_| {}).await;
    for round in 0..200 {
        let mut stream = TcpStream::connect(("127.0.0.1", running.port)).await.expect("listens");
        let bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n";
        stream.write_all(&bytes[..round % bytes.len()]).await.expect("it reads");
    }
    let mut client = Client::connect(running.port).await;
    until("all are gone", async || client.run("CLIENT LIST").await.lines().count() == 1).await;
}
