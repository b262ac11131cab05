//! Connections as their clients and their operator see them.

mod fake;

use std::time::{Duration, Instant};

use fake::client::Client;
use fake::{Gates, start};
use tokio::io::AsyncReadExt;

const MOMENT: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread")]
async fn hello_speaks_both_versions() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    assert!(client.run("HELLO 2").await.starts_with("[server redis version 7.4.0 proto 2 id "));
    client.resp3();
    let hello = client.run("HELLO 3 SETNAME me").await;
    assert!(hello.starts_with('{') && hello.contains("proto=3"), "{hello}");
    assert_eq!(client.run("CLIENT GETNAME").await, "me");
    assert_eq!(client.run("GET none").await, "(nil)");
    assert_eq!(client.run("HELLO 4").await, "NOPROTO unsupported protocol version");
    assert_eq!(client.run("RESET").await, "RESET");
    assert_eq!(client.run("CLIENT SETINFO LIB-NAME x").await, "OK");
    assert_eq!(
        client.run("CLIENT SETINFO LIB-NAME a\nb").await,
        "ERR LIB-NAME cannot contain spaces, newlines or special characters."
    );
    assert_eq!(client.run("CLIENT MAINT_NOTIFICATIONS ON").await, "OK");
    let info = client.run("CLIENT INFO").await;
    assert!(info.contains(" resp=2 lib-name=x ") && info.contains(" name= "), "{info}");
    assert_eq!(client.run("QUIT").await, "OK");
    assert_eq!(client.run("PING").await, "(closed)");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_before_auth() {
    let running = start(&[("requirepass", "secret")], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    let noauth = "NOAUTH Authentication required.";
    for line in ["GET k", "PING", "CONFIG GET *", "SHUTDOWN", "INFO", "CLIENT LIST", "SELECT 1"] {
        assert_eq!(client.run(line).await, noauth, "{line}");
    }
    assert!(client.run("HELLO 3").await.starts_with("NOAUTH HELLO must be called"));
    let wrong = "WRONGPASS invalid username-password pair or user is disabled.";
    assert_eq!(client.run("AUTH wrong").await, wrong);
    assert_eq!(client.run("AUTH other secret").await, wrong);
    assert_eq!(client.run("HELLO 3 AUTH default nope").await, wrong);
    assert_eq!(client.run("AUTH secret").await, "OK");
    assert_eq!(client.run("PING").await, "PONG");
    assert_eq!(client.run("RESET").await, "RESET");
    assert_eq!(client.run("PING").await, noauth);
    assert!(client.run("HELLO 2 AUTH default secret").await.starts_with("[server redis"));
    // Tight limits until then.
    let mut stranger = Client::connect(running.port).await;
    stranger.send("*11\r\n").await;
    assert_eq!(
        stranger.replies(2).await,
        ["ERR Protocol error: unauthenticated multibulk length", "(closed)"]
    );
    let mut stranger = Client::connect(running.port).await;
    stranger.send("*2\r\n$4\r\nAUTH\r\n$16385\r\n").await;
    assert_eq!(
        stranger.replies(2).await,
        ["ERR Protocol error: unauthenticated bulk length", "(closed)"]
    );
    // The password is in no log.
    assert_eq!(client.run("CONFIG SET slowlog-log-slower-than 0").await, "OK");
    assert_eq!(client.run("AUTH secret").await, "OK");
    let slow = client.run("SLOWLOG GET").await;
    assert!(slow.contains("[AUTH (redacted)]") && !slow.contains("secret"), "{slow}");
}

#[tokio::test(flavor = "multi_thread")]
async fn client_kill_reaches_whatever_a_connection_does() {
    let running = start(&[], |_| {}).await;
    let mut operator = Client::connect(running.port).await;
    let mut idle = Client::connect(running.port).await;
    let mut waiting = Client::connect(running.port).await;
    let mut paused = Client::connect(running.port).await;
    let mut ids = Vec::new();
    for client in [&mut idle, &mut waiting, &mut paused] {
        ids.push(client.run("CLIENT ID").await);
    }
    running.fake.set_gates(Gates::Held);
    waiting.send_lines(&["SET k 1"]).await;
    running.fake.until_logged(1).await;
    assert!(waiting.is_silent_for(MOMENT).await);
    assert_eq!(operator.run("CLIENT PAUSE 60000 WRITE").await, "OK");
    paused.send_lines(&["SET k 2"]).await;
    assert!(paused.is_silent_for(MOMENT).await);
    for id in &ids {
        assert_eq!(operator.run(&format!("CLIENT KILL ID {id}")).await, "1");
    }
    for client in [&mut idle, &mut waiting, &mut paused] {
        assert_eq!(client.replies(1).await, ["(closed)"]);
    }
    assert_eq!(operator.run(&format!("CLIENT KILL ID {}", ids[0])).await, "0");
    assert_eq!(operator.run("CLIENT KILL 1.2.3.4:5").await, "ERR No such client");
    assert_eq!(operator.run("CLIENT KILL TYPE normal").await, "0", "it spares itself");
    assert_eq!(operator.run("CLIENT KILL TYPE normal SKIPME no").await, "1");
    assert_eq!(operator.run("PING").await, "(closed)");
}

#[tokio::test(flavor = "multi_thread")]
async fn client_pause_holds_commands_back() {
    let running = start(&[], |_| {}).await;
    let mut operator = Client::connect(running.port).await;
    let mut client = Client::connect(running.port).await;
    assert_eq!(operator.run("CLIENT PAUSE 60000 WRITE").await, "OK");
    client.send_lines(&["GET k", "SET k 1", "GET k"]).await;
    assert_eq!(client.replies(1).await, ["(nil)"]);
    assert!(client.is_silent_for(MOMENT).await);
    assert_eq!(running.fake.take_log(), ["get"]);
    assert_eq!(operator.run("CLIENT UNPAUSE").await, "OK");
    assert_eq!(client.replies(2).await, ["OK", "1"]);

    let started = Instant::now();
    assert_eq!(operator.run("CLIENT PAUSE 100").await, "OK");
    assert_eq!(client.run("PING").await, "PONG");
    assert!(started.elapsed() >= Duration::from_millis(100));
    assert_eq!(client.run("SET k 2").await, "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn client_reply_silences_a_connection() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    client
        .send_lines(&[
            "CLIENT REPLY SKIP",
            "SET k 1",
            "GET k",
            "CLIENT REPLY OFF",
            "SET k 2",
            "nope",
            "CLIENT REPLY SKIP",
            "CLIENT REPLY ON",
            "GET k",
            // A SKIP that is skipped skips again; and so is a RESET.
            "CLIENT REPLY SKIP",
            "CLIENT REPLY SKIP",
            "GET k",
            "CLIENT REPLY SKIP",
            "RESET",
            "PING",
        ])
        .await;
    assert_eq!(client.replies(4).await, ["1", "OK", "2", "PONG"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted_and_limited() {
    let running = start(&[("maxclients", "3")], |_| {}).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(running.port).await;
        assert_eq!(client.run("PING").await, "PONG");
        clients.push(client);
    }
    let mut refused = Client::connect(running.port).await;
    assert_eq!(refused.replies(2).await, ["ERR max number of clients reached", "(closed)"]);
    let mut first = clients.remove(0);
    let info = first.run("INFO").await;
    assert!(info.contains("connected_clients:3\r\n"), "{info}");
    assert!(info.contains("rejected_connections:1\r\n"), "{info}");
    let id = clients[0].run("CLIENT ID").await;
    assert!(first.run(&format!("CLIENT LIST ID {id} 999")).await.contains(&format!("id={id} ")));
    assert_eq!(first.run("CLIENT LIST").await.lines().count(), 3);
    assert_eq!(first.run("CLIENT LIST TYPE pubsub").await, "");
    drop(clients);
    // The places are free again.
    let mut client = Client::connect(running.port).await;
    while client.run("PING").await != "PONG" {
        client = Client::connect(running.port).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_closed_if_so_configured() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    assert_eq!(client.run("CONFIG SET timeout 1").await, "OK");
    let mut byte = [0u8];
    let read = tokio::time::timeout(Duration::from_secs(10), client.stream.read(&mut byte)).await;
    assert_eq!(read.expect("closed in time").expect("closed cleanly"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_tell_what_happened() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    for line in ["SET k v", "GET k", "GET none", "INCR k", "GET", "CLIENT ID", "nope"] {
        client.run(line).await;
    }
    running.fake.set_expired_keys(7);
    let info = client.run("INFO everything").await;
    for expected in [
        "cmdstat_get:calls=2,",
        "rejected_calls=1,failed_calls=0",
        "cmdstat_incr:calls=1,",
        "failed_calls=1",
        "cmdstat_client|id:calls=1,",
        "errorstat_ERR:count=3",
        "keyspace_hits:1",
        "keyspace_misses:1",
        "latency_percentiles_usec_get:p50=",
        "redis_version:7.4.0",
        "aof_enabled:1",
        "maxmemory_policy:noeviction",
        "expired_keys:7\r\n",
        "db0:keys=1,expires=0",
    ] {
        assert!(info.contains(expected), "{expected} is not in\n{info}");
    }
    assert!(client.run("LATENCY HISTOGRAM get").await.contains("get [calls 2 histogram_usec"));
    assert_eq!(client.run("CONFIG RESETSTAT").await, "OK");
    let info = client.run("INFO everything").await;
    assert!(!info.contains("cmdstat_get") && !info.contains("errorstat_"), "{info}");
    assert!(info.contains("total_error_replies:0"), "{info}");
    assert!(info.contains("expired_keys:0\r\n"), "{info}");
    running.fake.set_expired_keys(9);
    assert!(client.run("INFO stats").await.contains("expired_keys:2\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_commands_and_latency_events_are_kept() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    assert_eq!(client.run("CONFIG SET slowlog-log-slower-than 0 slowlog-max-len 2").await, "OK");
    assert_eq!(client.run("CLIENT SETNAME me").await, "OK");
    for n in 0..3 {
        client.run(&format!("SET k {n}")).await;
    }
    assert_eq!(client.run("SLOWLOG LEN").await, "2");
    assert_eq!(client.run("CONFIG SET slowlog-log-slower-than -1").await, "OK");
    let slow = client.run("SLOWLOG GET -1").await;
    assert!(slow.starts_with("[[5 ") && slow.contains(" [SLOWLOG LEN] 127.0.0.1:"), "{slow}");
    assert!(slow.contains("[SET k 2]") && slow.ends_with(" me]]"), "{slow}");
    assert_eq!(client.run("SLOWLOG RESET").await, "OK");
    assert_eq!(client.run("SLOWLOG LEN").await, "0");

    assert_eq!(client.run("LATENCY LATEST").await, "[]");
    assert_eq!(client.run("CONFIG SET latency-monitor-threshold 5").await, "OK");
    running.fake.set_gates(Gates::After(Duration::from_millis(20)));
    assert_eq!(client.run("SET k 1").await, "OK");
    let latest = client.run("LATENCY LATEST").await;
    // Other commands may have been slow, too, on a busy machine.
    assert!(latest.contains("[quorum-wait "), "{latest}");
    assert!(client.run("LATENCY DOCTOR").await.contains("quorum-wait: 1 samples"));
    assert!(client.run("LATENCY GRAPH quorum-wait").await.contains("all time high"));
    assert_eq!(client.run("LATENCY RESET quorum-wait").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_commands_reach_the_process_and_the_nodes() {
    let running = start(&[], |options| options.enable_faults = true).await;
    let mut client = Client::connect(running.port).await;
    assert_eq!(
        client.run("CONFIG REWRITE").await,
        "ERR The server is running without a config file"
    );
    *running.host.config_file.lock() = Some("x.conf".to_owned());
    assert_eq!(client.run("CONFIG SET timeout 77 loglevel debug").await, "OK");
    assert_eq!(client.run("CONFIG REWRITE").await, "OK");
    let rewritten = running.host.rewritten.lock().clone();
    assert!(rewritten.contains(&("timeout".to_owned(), "77".to_owned())), "{rewritten:?}");
    assert_eq!(*running.host.log_levels.lock(), ["debug"]);
    assert!(client.run("ADMIN STATUS").await.contains("zone b running yes"));
    assert_eq!(client.run("ADMIN FAULT STOP 2").await, "OK");
    assert!(client.run("ADMIN STATUS").await.contains("zone b running no"));
    assert_eq!(client.run("ADMIN FAULT STOP 9").await, "ERR there is no node 9");
    assert!(client.run("ADMIN PARTITIONS").await.contains("role leader"));
    assert_eq!(client.run("SHUTDOWN ABORT").await, "ERR No shutdown in progress.");
    assert_eq!(client.run("SHUTDOWN NOSAVE NOW").await, "(closed)");
    assert!(running.host.shutdowns.lock()[0].now);

    let safe = start(&[], |_| {}).await;
    let mut client = Client::connect(safe.port).await;
    assert!(client.run("ADMIN FAULT STOP 2").await.starts_with("ERR ADMIN FAULT is off"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_stops_when_its_connections_are_done() {
    let running = start(&[], |_| {}).await;
    let mut idle = Client::connect(running.port).await;
    let mut busy = Client::connect(running.port).await;
    assert_eq!(idle.run("PING").await, "PONG");
    running.fake.set_gates(Gates::Held);
    busy.send_lines(&["SET k 1"]).await;
    running.fake.until_logged(1).await;
    assert!(busy.is_silent_for(MOMENT).await);
    let router = running.router.clone();
    let stopping = tokio::spawn(async move { router.stop(Duration::from_secs(10)).await });
    assert_eq!(idle.replies(1).await, ["(closed)"]);
    running.fake.set_gates(Gates::Open);
    assert_eq!(busy.replies(2).await, ["OK", "(closed)"], "it got its answer first");
    stopping.await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_of_storage_are_not_for_connections() {
    let running = start(&[], |options| options.clients_max = 500).await;
    let mut client = Client::connect(running.port).await;
    assert_eq!(client.run("CONFIG SET maxclients 500").await, "OK");
    assert_eq!(
        client.run("CONFIG SET maxclients 501").await,
        "ERR CONFIG SET failed (possibly related to argument 'maxclients') - The operating system \
         is not able to handle the specified number of clients, try with 500"
    );
    assert_eq!(client.run("CONFIG GET maxclients").await, "[maxclients 500]");
    // The lowest that is free is above this already.
    let running = start(&[], |options| options.sockets_below = 3).await;
    let mut refused = Client::connect(running.port).await;
    assert_eq!(refused.replies(2).await, ["ERR max number of clients reached", "(closed)"]);
}
