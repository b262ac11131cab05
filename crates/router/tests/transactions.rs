//! MULTI, EXEC, WATCH over loopback, against storage that does as it is told.

mod fake;

use std::time::Duration;

use fake::client::Client;
use fake::{Gates, Scripted, start};
use wire::ids::TableId;
use wire::placement::Placement;

const MOMENT: Duration = Duration::from_millis(50);
const ACROSS: &str = "EXECABORT Transaction discarded because its keys lie in several tables or \
                      partitions: transactions over several partitions are not supported yet";
const ABORTED: &str = "EXECABORT Transaction discarded because of previous errors.";

/// Runs command lines one after the other, and compares each reply.
async fn expect(client: &mut Client, lines: &[(&str, &str)]) {
    for (line, reply) in lines {
        assert_eq!(client.run(line).await, *reply, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_commands_run_together_in_their_order() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    expect(
        &mut client,
        &[
            ("SET k 1", "OK"),
            ("MULTI", "OK"),
            ("INCR k", "QUEUED"),
            ("PING", "QUEUED"),
            ("LCS k nope", "QUEUED"),
            ("INCRBY k abc", "QUEUED"),
            ("CLIENT SETNAME me", "QUEUED"),
            ("GET k", "QUEUED"),
            ("CLIENT GETNAME", "QUEUED"),
            ("UNWATCH", "QUEUED"),
            ("WAIT 0 0", "QUEUED"),
            ("EXEC", "[2 PONG  ERR value is not an integer or out of range OK 2 me OK 1]"),
            ("MULTI", "OK"),
            ("EXEC", "[]"),
        ],
    )
    .await;
    assert_eq!(running.fake.take_log(), ["set", "(incr lcs incrby get)"]);
    let stats = client.run("INFO commandstats").await;
    for line in ["cmdstat_incr:calls=1", "cmdstat_exec:calls=2", "cmdstat_multi:calls=2"] {
        assert!(stats.contains(line), "{line} in {stats}");
    }
    assert!(stats.contains("cmdstat_incrby:calls=1") && stats.contains("failed_calls=1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_while_queueing_aborts_the_whole() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    let arity = "ERR wrong number of arguments for 'get' command";
    let nested = "ERR MULTI calls can not be nested";
    expect(
        &mut client,
        &[
            ("EXEC", "ERR EXEC without MULTI"),
            ("DISCARD", "ERR DISCARD without MULTI"),
            ("MULTI", "OK"),
            ("SET k 1", "QUEUED"),
            ("GET", arity),
            ("SET k 2", "QUEUED"),
            ("EXEC", ABORTED),
            ("GET k", "(nil)"),
            ("MULTI", "OK"),
            ("SHUTDOWN", "ERR Command not allowed inside a transaction"),
            ("EXEC", ABORTED),
            // These are errors, and abort nothing.
            ("MULTI", "OK"),
            ("MULTI", nested),
            ("WATCH k", "ERR WATCH inside MULTI is not allowed"),
            ("EXEC", "[]"),
            ("MULTI", "OK"),
            (
                "EXEC x",
                "EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' \
                 command",
            ),
            ("EXEC", "ERR EXEC without MULTI"),
            ("MULTI", "OK"),
            ("SET k 1", "QUEUED"),
            ("DISCARD", "OK"),
            ("MULTI", "OK"),
            ("SET k 1", "QUEUED"),
            ("RESET", "RESET"),
            ("GET k", "(nil)"),
            ("MULTI", "OK"),
            ("QUIT", "OK"),
            ("PING", "(closed)"),
        ],
    )
    .await;
    assert!(running.host.shutdowns.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_key_that_changed_stops_exec() {
    let running = start(&[], |_| {}).await;
    let (mut client, mut other) =
        (Client::connect(running.port).await, Client::connect(running.port).await);
    assert_eq!(client.run("SET k 1").await, "OK");
    let changes = [
        ("SET k 1", "(nil)"),
        ("DEL k", "(nil)"),
        ("SET k 2", "(nil)"),
        ("EXPIRE k 1000", "(nil)"),
        ("FLUSHDB", "(nil)"),
        ("FLUSHDB", "[PONG]"),
        ("SET other 1", "[PONG]"),
        ("GET k", "[PONG]"),
    ];
    for (change, reply) in changes {
        expect(&mut client, &[("WATCH k absent k", "OK"), ("WATCH k", "OK")]).await;
        other.run(change).await;
        expect(&mut client, &[("MULTI", "OK"), ("PING", "QUEUED"), ("EXEC", reply)]).await;
    }
    // After EXEC, DISCARD, UNWATCH or RESET nothing is watched; one's own writes count too.
    for forget in ["EXEC", "DISCARD"] {
        expect(&mut client, &[("WATCH k", "OK"), ("SET k 1", "OK"), ("MULTI", "OK")]).await;
        client.run(forget).await;
        expect(&mut client, &[("MULTI", "OK"), ("INCR k", "QUEUED"), ("EXEC", "[2]")]).await;
    }
    for (forget, reply) in [("UNWATCH", "OK"), ("RESET", "RESET")] {
        expect(&mut client, &[("WATCH k", "OK"), ("SET k 1", "OK"), (forget, reply)]).await;
        expect(&mut client, &[("MULTI", "OK"), ("INCR k", "QUEUED"), ("EXEC", "[2]")]).await;
    }
    // An error while queueing is told rather than the change.
    expect(&mut client, &[("WATCH k", "OK"), ("SET k 1", "OK"), ("MULTI", "OK")]).await;
    client.run("nosuch").await;
    assert_eq!(client.run("EXEC").await, ABORTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_list_shows_transactions() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    let mut other = Client::connect(running.port).await;
    let fields = |text: String| {
        let line = text.lines().next().expect("a line").to_owned();
        let field = |name: &str| {
            let value = line.split(' ').find_map(|part| part.strip_prefix(name));
            value.unwrap_or_else(|| panic!("{name} in {line}")).to_owned()
        };
        [field("flags="), field("multi="), field("watch="), field("multi-mem=")]
    };
    assert_eq!(fields(other.run("CLIENT LIST").await), ["N", "-1", "0", "0"]);
    expect(&mut client, &[("WATCH a b", "OK"), ("SELECT 1", "OK"), ("WATCH a", "OK")]).await;
    expect(&mut client, &[("MULTI", "OK"), ("GET a", "QUEUED")]).await;
    let [flags, multi, watch, bytes] = fields(other.run("CLIENT LIST").await);
    assert_eq!((&flags[..], &multi[..], &watch[..]), ("x", "1", "3"));
    assert!(bytes.parse::<usize>().expect("a number") > 4);
    assert_eq!(client.run("DISCARD").await, "OK");
    assert_eq!(fields(other.run("CLIENT LIST").await), ["N", "-1", "0", "0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_one_partition_each_and_several_are_refused() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    assert_eq!(client.run("SET k 1").await, "OK");
    expect(
        &mut client,
        &[
            // A whole table is one partition.
            ("MULTI", "OK"),
            ("SET l 2", "QUEUED"),
            ("DBSIZE", "QUEUED"),
            ("KEYS l*", "QUEUED"),
            ("FLUSHDB", "QUEUED"),
            ("RANDOMKEY", "QUEUED"),
            ("SET k 3", "QUEUED"),
            ("EXEC", "[OK 2 [l] OK (nil) OK]"),
            ("DBSIZE", "1"),
            // SELECT moves what follows it, and stays.
            ("MULTI", "OK"),
            ("SELECT 16", "QUEUED"),
            ("SELECT 1", "QUEUED"),
            ("SET k other", "QUEUED"),
            ("EXEC", "[ERR DB index is out of range OK OK]"),
            ("GET k", "other"),
            // Two tables are refused before anything runs.
            ("MULTI", "OK"),
            ("CLIENT SETNAME nobody", "QUEUED"),
            ("SET k 1", "QUEUED"),
            ("SELECT 0", "QUEUED"),
            ("GET k", "QUEUED"),
            ("EXEC", ACROSS),
            ("GET k", "other"),
            ("CLIENT GETNAME", "(nil)"),
            ("MULTI", "OK"),
            ("COPY k k DB 2", "QUEUED"),
            ("GET k", "QUEUED"),
            ("EXEC", ACROSS),
            ("MULTI", "OK"),
            ("FLUSHALL", "QUEUED"),
            ("SET k 1", "QUEUED"),
            ("EXEC", ACROSS),
            // One command is as atomic as it is outside.
            ("MULTI", "OK"),
            ("COPY k k DB 2", "QUEUED"),
            ("EXEC", "[1]"),
            ("MULTI", "OK"),
            ("PING", "QUEUED"),
            ("FLUSHALL", "QUEUED"),
            ("EXEC", "[PONG OK]"),
            ("DBSIZE", "0"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_watched_elsewhere_are_checked_unless_it_writes() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    let mut other = Client::connect(running.port).await;
    for (change, reply) in [("PING", "[(nil) PONG]"), ("SET k 2", "(nil)")] {
        expect(&mut client, &[("SELECT 5", "OK"), ("WATCH k", "OK"), ("SELECT 1", "OK")]).await;
        expect(&mut other, &[("SELECT 5", "OK")]).await;
        other.run(change).await;
        expect(&mut client, &[("MULTI", "OK"), ("GET k", "QUEUED"), ("PING", "QUEUED")]).await;
        assert_eq!(client.run("EXEC").await, reply);
    }
    expect(&mut client, &[("SELECT 5", "OK"), ("WATCH k", "OK"), ("SELECT 1", "OK")]).await;
    expect(&mut client, &[("MULTI", "OK"), ("SET k 1", "QUEUED"), ("EXEC", ACROSS)]).await;
    expect(&mut client, &[("SELECT 5", "OK"), ("WATCH k", "OK"), ("SELECT 1", "OK")]).await;
    expect(&mut client, &[("WATCH k", "OK"), ("MULTI", "OK"), ("PING", "QUEUED")]).await;
    assert_eq!(client.run("EXEC").await, "[PONG]");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_table_does_what_lies_in_one_partition() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    assert_eq!(client.run("GET warm").await, "(nil)");
    running.fake.split(TableId(0), Placement::first_of_slot(8000));
    expect(
        &mut client,
        &[
            // foo lies in slot 12182, bar in 5061.
            ("MULTI", "OK"),
            ("SET foo 1", "QUEUED"),
            ("SET {foo}2 2", "QUEUED"),
            ("EXEC", "[OK OK]"),
            ("MULTI", "OK"),
            ("SET foo 1", "QUEUED"),
            ("SET bar 2", "QUEUED"),
            ("EXEC", ACROSS),
            ("MULTI", "OK"),
            ("SET foo 3", "QUEUED"),
            ("DBSIZE", "QUEUED"),
            ("EXEC", ACROSS),
            ("MULTI", "OK"),
            ("DBSIZE", "QUEUED"),
            ("EXEC", "[2]"),
            ("WATCH foo bar", "OK"),
            ("MULTI", "OK"),
            ("GET foo", "QUEUED"),
            ("EXEC", "[1]"),
            ("WATCH foo bar", "OK"),
            ("SET bar 1", "OK"),
            ("MULTI", "OK"),
            ("GET foo", "QUEUED"),
            ("EXEC", "(nil)"),
            ("WATCH foo bar", "OK"),
            ("MULTI", "OK"),
            ("SET foo 1", "QUEUED"),
            ("EXEC", ACROSS),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn obstacles_gates_and_pauses_are_those_of_any_call() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    use Scripted::{Busy, Later, NotHere, NotYet};
    running.fake.script([NotYet, Later]);
    assert_eq!(client.run("WATCH k").await, "OK");
    running.fake.script([NotHere, Busy(Duration::from_millis(3)), Later]);
    client.send_lines(&["MULTI", "INCR k", "PING", "EXEC", "GET k"]).await;
    assert_eq!(client.replies(5).await, ["OK", "QUEUED", "QUEUED", "[1 PONG]", "1"]);
    assert_eq!(running.fake.take_log(), ["look", "(incr)", "get"], "evaluated once");

    running.fake.set_gates(Gates::Held);
    client.send_lines(&["MULTI", "INCR k", "EXEC"]).await;
    running.fake.until_logged(1).await;
    assert!(client.is_silent_for(MOMENT).await);
    running.fake.set_gates(Gates::Lost);
    let lost = "TRYAGAIN the command was not executed: the partition's leader changed";
    assert_eq!(client.replies(3).await, ["OK", "QUEUED", lost]);
    running.fake.set_gates(Gates::Open);

    // EXEC writes if what is queued does.
    let mut operator = Client::connect(running.port).await;
    assert_eq!(client.run("MULTI").await, "OK");
    assert_eq!(client.run("INCR k").await, "QUEUED");
    assert_eq!(operator.run("CLIENT PAUSE 100000 WRITE").await, "OK");
    client.send_lines(&["EXEC"]).await;
    assert!(client.is_silent_for(MOMENT).await);
    assert_eq!(operator.run("MULTI").await, "OK");
    assert_eq!(operator.run("GET k").await, "QUEUED");
    assert_eq!(operator.run("EXEC").await, "[2]");
    assert_eq!(operator.run("CLIENT UNPAUSE").await, "OK");
    assert_eq!(client.replies(1).await, ["[3]"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_is_one_routed_call_and_what_is_queued_is_bounded() {
    let running = start(&[("client-query-buffer-limit", "1048576")], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    assert_eq!(client.run("SET k 1").await, "OK");
    client.send_lines(&["WATCH a b c", "MULTI"]).await;
    client.send_lines(&vec!["INCR k"; 100]).await;
    client.send_lines(&["EXEC"]).await;
    client.replies(103).await;
    // INFO is counted behind the replies of the pipeline before it.
    client.run("PING").await;
    assert_eq!(running.router.traffic().routed, 3);
    assert_eq!(running.router.traffic().lookups, 3);

    let filler = "x".repeat(300_000);
    assert_eq!(client.run("MULTI").await, "OK");
    for _ in 0..3 {
        assert_eq!(client.run(&format!("SET k {filler}")).await, "QUEUED");
    }
    assert_eq!(client.run(&format!("SET k {filler}")).await, "(closed)");
}

/// What the router runs in a transaction is noticed by others, so it waits until the rest is sure to stay.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_takes_the_routers_commands_along() {
    let running = start(&[], |_| {}).await;
    let mut client = Client::connect(running.port).await;
    let mut subscriber = Client::connect(running.port).await;
    assert_eq!(subscriber.run("SUBSCRIBE ch").await, "[subscribe ch 1]");
    let lost = "TRYAGAIN the command was not executed: the partition's leader changed";
    let uncertain =
        "UNCERTAIN the write may or may not have happened: its quorum did not answer in time";
    for (gates, answer) in [(Gates::Lost, lost), (Gates::Unknown, uncertain)] {
        running.fake.set_gates(Gates::Held);
        running.fake.take_log();
        let lines =
            ["MULTI", "SELECT 0", "SET k v", "PUBLISH ch x", "CLIENT SETNAME me", "PING", "EXEC"];
        client.send_lines(&lines).await;
        running.fake.until_logged(1).await;
        assert!(client.is_silent_for(MOMENT).await);
        running.fake.set_gates(gates);
        let mut replies = client.replies(7).await;
        assert_eq!(replies.pop().as_deref(), Some(answer));
        running.fake.set_gates(Gates::Open);
        assert_eq!(client.run("CLIENT GETNAME").await, "(nil)");
    }
    // What is durable takes them along, too; and nothing was published before.
    client.send_lines(&["MULTI", "SET k v", "PUBLISH ch y", "CLIENT SETNAME me", "EXEC"]).await;
    assert_eq!(client.replies(5).await[4], "[OK 1 OK]");
    assert_eq!(client.run("CLIENT GETNAME").await, "me");
    assert_eq!(subscriber.replies(1).await, ["[message ch y]"]);
}
