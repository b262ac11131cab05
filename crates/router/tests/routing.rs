//! Pipelines, gates, routes and retries, over loopback against storage that does as it is told.

mod fake;

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use fake::client::Client;
use fake::{Gates, Scripted, start};
use wire::ids::{NodeId, TableId};
use wire::placement::Placement;
use wire::service::{NodeFault, StorageService};

const MOMENT: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_answered_in_order() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    let lines: Vec<String> = (0..5000).map(|n| format!("ECHO {n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    client.send_lines(&lines).await;
    for n in 0..5000 {
        assert_eq!(client.replies(1).await, [n.to_string()]);
    }
    client.send_lines(&["SET k 1", "INCR k", "GET k", "nope", "GET", "SELECT 3", "GET k"]).await;
    assert_eq!(
        client.replies(7).await,
        [
            "OK",
            "2",
            "2",
            "ERR unknown command 'nope', with args beginning with: ",
            "ERR wrong number of arguments for 'get' command",
            "OK",
            "(nil)",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_split_at_every_byte_are_understood() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    for byte in b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\nGET k\r\n" {
        client.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.replies(2).await, ["OK", "value"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_pass() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    let value = "v".repeat(3 << 20);
    client.send_lines(&[&format!("SET k {value}"), "GET k", "STRLEN k", "MGET k k"]).await;
    let replies = client.replies(4).await;
    assert!(replies[0] == "OK" && replies[1] == value && replies[2] == "3145728");
    assert!(replies[3] == format!("[{value} {value}]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_wait_for_their_gate() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    assert_eq!(client.run("SET k 0").await, "OK");
    running.fake.set_gates(Gates::Held);
    client.send_lines(&["SET k 1", "PING", "GET k"]).await;
    running.fake.until_logged(3).await;
    assert!(client.is_silent_for(MOMENT).await);
    assert_eq!(running.fake.take_log(), ["set", "set", "get"], "evaluated back to back");
    // Others are not held up.
    assert_eq!(Client::connect(running.port).await.run("PING").await, "PONG");
    running.fake.set_gates(Gates::Open);
    assert_eq!(client.replies(3).await, ["OK", "PONG", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_made_durable_is_never_acknowledged() {
    let timeout = Duration::from_millis(300);
    let running = start(&[], |options| options.request_timeout = timeout).await;
    let mut client = Client::connect(running.port).await;
    running.fake.set_gates(Gates::Lost);
    let started = Instant::now();
    client.send_lines(&["PING", "SET k 1", "ECHO between", "INCR n"]).await;
    let lost = "TRYAGAIN the command was not executed: the partition's leader changed";
    assert_eq!(client.replies(4).await, ["PONG", lost, "between", lost]);
    assert!(started.elapsed() + MOMENT > timeout, "made again until the deadline");
    running.fake.set_gates(Gates::Unknown);
    client.send_lines(&["SET k 1", "PING"]).await;
    let replies = client.replies(2).await;
    assert!(replies[0].starts_with("UNCERTAIN "), "{}", replies[0]);
    assert_eq!(replies[1], "PONG");
    let stats = client.run("INFO errorstats").await;
    assert!(stats.contains("errorstat_TRYAGAIN:count=2"), "{stats}");
    assert!(stats.contains("errorstat_UNCERTAIN:count=1"), "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_is_made_again_in_its_order() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    for gates in [Gates::Lost, Gates::Unknown] {
        running.fake.set_gates(gates);
        running.fake.take_log();
        let long = format!("SET k {}", "v".repeat(20_000));
        client.send_lines(&["PING", "SET k 1", "ECHO between", "SET k 2", &long, "GET k"]).await;
        // All of it was evaluated, and some of it again.
        running.fake.until_logged(5).await;
        assert!(client.is_silent_for(MOMENT).await);
        running.fake.set_gates(Gates::Open);
        let replies = client.replies(6).await;
        assert_eq!(replies[..5], ["PONG", "OK", "between", "OK", "OK"], "{gates:?}");
        assert_eq!(replies[5].len(), 20_000, "{gates:?}");
        assert_eq!(client.run("GET k").await.len(), 20_000, "{gates:?}");
    }
    let again = client.run("INFO routing").await;
    assert!(!again.contains("calls_made_again:0"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_made_again_for_whom_it_was_made() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    running.fake.take_log();
    running.fake.set_gates(Gates::Lost);
    client.send_lines(&["EVAL return 0"]).await;
    running.fake.until_logged(2).await;
    assert!(client.is_silent_for(MOMENT).await);
    running.fake.set_gates(Gates::Open);
    assert_eq!(client.replies(1).await, ["OK"]);
    let log = running.fake.take_log();
    assert!(log.len() > 1 && log.iter().all(|name| name == "eval"), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_would_know_of_is_not_made_again() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    running.fake.set_gates(Gates::Unknown);
    client.send_lines(&["SET k 1"]).await;
    running.fake.until_logged(1).await;
    assert!(client.is_silent_for(MOMENT).await);
    // Its keys are another partition's now, which does not know the names of the requests of before.
    running.fake.split(TableId(0), Placement::of_key(b"k"));
    let replies = client.replies(1).await;
    assert!(replies[0].starts_with("UNCERTAIN "), "{}", replies[0]);
    assert_eq!(client.run("GET k").await, "(nil)", "it was not made there");
}

#[tokio::test(flavor = "multi_thread")]
async fn obstacles_are_invisible_until_the_deadline() {
    // Longer than a busy machine stands still.
    let timeout = Duration::from_secs(3);
    let running = start(&[], |options| options.request_timeout = timeout).await;
    let mut client = Client::connect(running.port).await;
    use Scripted::{Busy, Later, NotHere, NotYet};
    running.fake.script([NotYet, NotHere, Busy(Duration::from_millis(3)), Later, NotYet, Later]);
    client.send_lines(&["SET k 1", "GET k"]).await;
    assert_eq!(client.replies(2).await, ["OK", "1"]);
    assert_eq!(running.fake.script_left(), 0);
    assert_eq!(running.fake.take_log(), ["set", "get"], "each evaluated once, in order");

    for node in 1..=3 {
        running.fake.fault(NodeFault::Stop(NodeId(node))).expect("a node");
    }
    let started = Instant::now();
    client.send_lines(&["PING", "SET k 2", "PING"]).await;
    assert_eq!(client.replies(1).await, ["PONG"], "earlier replies do not wait with it");
    assert!(started.elapsed() < timeout);
    let replies = client.replies(2).await;
    assert_eq!(
        replies,
        ["CLUSTERDOWN no leader with a quorum answered for the partition within 3000 ms", "PONG"]
    );
    assert!(started.elapsed() >= timeout);
    assert!(running.fake.take_log().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_is_found() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    assert_eq!(client.run("SET k 1").await, "OK");
    // The old leader tells the newest route; MemDS does not know it yet.
    running.fake.lead(NodeId(2), true);
    assert_eq!(client.run("INCR k").await, "2");
    assert_eq!(running.router.traffic().corrections, 0);
    // The old leader knows nothing: MemDS is asked, unless its answer to an earlier mirrored lookup
    // came first.
    running.fake.tells_route.store(false, SeqCst);
    running.fake.lead(NodeId(3), false);
    assert_eq!(client.run("INCR k").await, "3");
    assert!(running.router.traffic().corrections <= 1);
    assert_eq!(running.fake.take_log(), ["set", "incr", "incr"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn memds_sees_one_lookup_per_call_hot_cold_and_flushed() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    let lookups = || running.memds.stats().foreground + running.memds.stats().mirrored;
    let lines: Vec<String> = (0..2000).map(|n| format!("INCR key{}", n % 700)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut hits = Vec::new();
    for round in 0..3 {
        if round == 2 {
            assert_eq!(client.run("ADMIN CACHE FLUSH").await, "OK");
        }
        let (lookups_before, hits_before) = (lookups(), running.router.traffic().cache_hits);
        client.send_lines(&lines).await;
        client.replies(lines.len()).await;
        assert_eq!(lookups() - lookups_before, 2000, "round {round}");
        hits.push(running.router.traffic().cache_hits - hits_before);
    }
    assert!(hits[0] < 2000 && hits[1] == 2000 && hits[2] < 2000, "{hits:?}");
    // INFO counts what MemDS answered, which comes behind the replies.
    let answered = async {
        while !client.run("INFO routing").await.contains("memds_lookups_per_command:1.0000") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), answered).await.expect("one lookup per command");
    assert_eq!(running.router.traffic().corrections, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_table_answers_as_one() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    assert_eq!(client.run("GET warm").await, "(nil)");
    running.fake.split(TableId(0), Placement::first_of_slot(8000));
    let lines: Vec<String> = (0..300).map(|n| format!("SET key{n} {n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    client.send_lines(&lines).await;
    assert!(client.replies(300).await.iter().all(|reply| reply == "OK"));
    assert_eq!(client.run("DBSIZE").await, "300");
    let count = |reply: String| reply.split(' ').filter(|word| word.contains("key")).count();
    assert_eq!(count(client.run("KEYS *").await), 300);
    assert_eq!(count(client.run("KEYS key1?").await), 10);
    assert_eq!(count(client.run("RANDOMKEY").await), 1);
    let (mut cursor, mut seen) = ("0".to_owned(), 0);
    loop {
        let reply = client.run(&format!("SCAN {cursor} COUNT 7")).await;
        let (next, keys) = reply[1..].split_once(' ').expect("a cursor and keys");
        seen += count(keys.to_owned());
        cursor = next.to_owned();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen, 300);
    // foo is in slot 12182, bar in 5061.
    let refusal = client.run("MSET foo 1 bar 2").await;
    assert!(refusal.starts_with("CROSSSLOT "), "{refusal}");
    assert_eq!(client.run("MSET {foo}1 1 {foo}2 2").await, "OK");
    assert_eq!(client.run("FLUSHDB").await, "OK");
    assert_eq!(client.run("DBSIZE").await, "0");
    assert_eq!(client.run("RANDOMKEY").await, "(nil)");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_apart_and_keys_can_be_copied_between_them() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    assert_eq!(client.run("SET k v PX 100000").await, "OK");
    assert_eq!(client.run("COPY k k2 DB 3").await, "1");
    assert_eq!(client.run("COPY k k2 DB 3").await, "0");
    assert_eq!(client.run("COPY k k2 DB 3 REPLACE").await, "1");
    assert_eq!(client.run("COPY none k2 DB 3").await, "0");
    assert_eq!(client.run("COPY k k DB 16").await, "ERR DB index is out of range");
    assert_eq!(
        client.run("COPY k k DB 0").await,
        "ERR source and destination objects are the same"
    );
    assert_eq!(client.run("COPY k k DB 1").await, "1", "the same name in another table");
    assert_eq!(client.run("GET k2").await, "(nil)");
    assert_eq!(client.run("SELECT 3").await, "OK");
    assert_eq!(client.run("GET k2").await, "v");
    let left: i64 = client.run("PTTL k2").await.parse().expect("a number");
    assert!((1..=100_000).contains(&left), "{left}");
    let keyspace = client.run("INFO keyspace").await;
    assert!(keyspace.contains("db3:keys=1,expires=1"), "{keyspace}");
    assert_eq!(client.run("FLUSHALL").await, "OK");
    assert_eq!(client.run("SELECT 0").await, "OK");
    assert_eq!(client.run("DBSIZE").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_is_honest() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    assert_eq!(client.run("SET k 1").await, "OK");
    assert_eq!(client.run("WAIT 1 0").await, "1", "a quorum of three is the leader and one more");
    assert_eq!(client.run("WAIT 2 20").await, "1", "the third has not applied it");
    client.send_lines(&["WAIT 2 0"]).await;
    assert!(client.is_silent_for(MOMENT).await);
    running.fake.set_applied_on_followers(1);
    assert_eq!(client.replies(1).await, ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_unblock_ends_a_wait() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    let mut operator = Client::connect(running.port).await;
    assert_eq!(client.run("SET k 1").await, "OK");
    let id = client.run("CLIENT ID").await;
    for how in ["", " TIMEOUT", " error"] {
        let unblock = format!("CLIENT UNBLOCK {id}{how}");
        assert_eq!(operator.run(&unblock).await, "0", "nothing blocks it yet");
        client.send_lines(&["WAIT 3 0"]).await;
        while operator.run(&unblock).await == "0" {
            tokio::task::yield_now().await;
        }
        let reply = client.replies(1).await.remove(0);
        let expected =
            if how == " error" { "UNBLOCKED client unblocked via CLIENT UNBLOCK" } else { "1" };
        assert_eq!(reply, expected);
        assert!(!client.run("CLIENT INFO").await.contains("flags=b"));
    }
    client.send_lines(&["WAIT 3 0"]).await;
    while !operator.run("CLIENT LIST").await.contains(" flags=b ") {
        tokio::task::yield_now().await;
    }
    assert!(operator.run("INFO clients").await.contains("blocked_clients:1"));
    assert_eq!(operator.run(&format!("CLIENT UNBLOCK {id}")).await, "1");
    assert_eq!(operator.run("CLIENT UNBLOCK 99999").await, "0");
    assert_eq!(operator.run("CLIENT UNBLOCK -1").await, "0");
    assert_eq!(
        operator.run("CLIENT UNBLOCK x").await,
        "ERR value is not an integer or out of range"
    );
    let reason = "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR";
    assert_eq!(operator.run("CLIENT UNBLOCK 1 maybe").await, reason);
    assert_eq!(operator.run("CLIENT GETREDIR").await, "-1");
}

/// However many connections wait, the nodes are asked as for one.
#[tokio::test(flavor = "multi_thread")]
async fn many_who_wait_ask_as_one() {
    const CLIENTS: usize = 200;
    let running = start(&[], |_| {}).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::connect(running.port).await;
        assert_eq!(client.run("SET k 1").await, "OK");
        clients.push(client);
    }
    let (before, started) = (running.fake.status_calls.load(SeqCst), Instant::now());
    for client in &mut clients {
        client.send_lines(&["WAIT 9 300"]).await;
    }
    for client in &mut clients {
        assert_eq!(client.replies(1).await, ["1"]);
    }
    let asked = u128::from(running.fake.status_calls.load(SeqCst) - before);
    let took_ms = started.elapsed().as_millis();
    assert!(asked <= took_ms + 2, "{asked} times in {took_ms} ms");
}

/// Tables that are flushed when another has no leader stay so, and that is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_is_done_in_part_says_so() {
    let soon = Duration::from_millis(200);
    let running = start(&[], |options| options.request_timeout = soon).await;
    let mut client = Client::connect(running.port).await;
    for (done, answer) in [(2, "UNCERTAIN the command was executed in some"), (0, "CLUSTERDOWN ")] {
        assert_eq!(client.run("SET k 1").await, "OK");
        let script = (0..done).map(|_| Scripted::Evaluated);
        running.fake.script(script.chain((0..100_000).map(|_| Scripted::NotYet)));
        let told = client.run("FLUSHALL").await;
        running.fake.forget_script();
        assert!(told.starts_with(answer), "{told}");
        assert_eq!(client.run("GET k").await, if done > 0 { "(nil)" } else { "1" });
    }
}
