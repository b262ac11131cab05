//! A router to clients of Redis Cluster: a cluster of one node that has all slots.

use std::process::Command;

use compat_tests::process::{Options, Server};
use compat_tests::resp::{Client, Value};

fn clustered() -> Server {
    let extra = vec!["--cluster-enabled".to_owned(), "yes".to_owned()];
    Server::start(Options { extra, ..Options::evenkeel() }).expect("start")
}

fn text(client: &mut Client, line: &str) -> String {
    client.line(line).expect(line).to_text()
}

#[test]
fn without_cluster_enabled_it_is_refused_as_redis_refuses_it() {
    let server = Server::start(Options::evenkeel()).expect("start");
    let mut client = server.client().unwrap();
    for line in ["CLUSTER INFO", "CLUSTER SLOTS", "CLUSTER COUNTKEYSINSLOT 0", "READONLY", "ASKING"]
    {
        let refusal = client.line(line).unwrap();
        assert_eq!(
            refusal.error_text(),
            "ERR This instance has cluster support disabled",
            "{line}"
        );
    }
    assert!(text(&mut client, "INFO cluster").contains("cluster_enabled:0"));
    assert!(text(&mut client, "INFO server").contains("redis_mode:standalone"));
}

#[test]
fn slots_nodes_and_shards_name_this_router() {
    let server = clustered();
    let mut client = server.client().unwrap();
    let id = text(&mut client, "CLUSTER MYID");
    assert_eq!(id.len(), 40);
    let port = i64::from(server.port());
    let slots = client.line("CLUSTER SLOTS").unwrap();
    let range = slots.items().unwrap()[0].items().unwrap();
    assert_eq!((&range[0], &range[1]), (&Value::Int(0), &Value::Int(16383)));
    let node = range[2].items().unwrap();
    assert_eq!((node[0].to_text().as_str(), &node[1]), ("127.0.0.1", &Value::Int(port)));
    assert_eq!(node[2].to_text(), id);
    let nodes = text(&mut client, "CLUSTER NODES");
    assert_eq!(nodes, format!("{id} 127.0.0.1:{port}@0 myself,master - 0 0 1 connected 0-16383\n"));
    let info = text(&mut client, "CLUSTER INFO");
    assert!(info.contains("cluster_state:ok\r\n") && info.contains("cluster_slots_ok:16384\r\n"));
    assert!(text(&mut client, "INFO cluster").contains("cluster_enabled:1"));
    assert!(format!("{:?}", client.line("HELLO 3").unwrap()).contains("cluster"));
    let shards = client.line("CLUSTER SHARDS").unwrap();
    let shard = shards.items().unwrap()[0].pairs().unwrap();
    assert_eq!(shard[0].0.to_text(), "slots");
    assert_eq!(client.line("CLUSTER LINKS").unwrap().items().map(<[_]>::len), Some(0));
    assert_eq!(
        client.line(&format!("CLUSTER REPLICAS {id}")).unwrap().items().map(<[_]>::len),
        Some(0)
    );
    assert!(client.line("CLUSTER REPLICAS x").unwrap().error_text().contains("Unknown node x"));
    for line in ["READONLY", "READWRITE", "ASKING"] {
        assert_eq!(client.line(line).unwrap(), Value::Simple(b"OK".into()), "{line}");
    }
    for line in
        ["CLUSTER ADDSLOTS 1", "CLUSTER MEET 127.0.0.1 1", "CLUSTER RESET", "CLUSTER FAILOVER X"]
    {
        let refusal = client.line(line).unwrap();
        assert!(refusal.error_text().contains("ADMIN"), "{line}: {refusal:?}");
    }
    client.line("CONFIG SET cluster-announce-ip 10.1.2.3 cluster-announce-port 7").unwrap();
    assert!(text(&mut client, "CLUSTER NODES").contains(" 10.1.2.3:7@0 "));
}

#[test]
fn keys_of_a_slot_are_counted_and_told() {
    let server = clustered();
    let mut client = server.client().unwrap();
    assert_eq!(client.line("CLUSTER KEYSLOT foo").unwrap(), Value::Int(12182));
    assert_eq!(client.line("CLUSTER KEYSLOT {user1000}.following").unwrap(), Value::Int(3443));
    assert_eq!(client.line("CLUSTER COUNTKEYSINSLOT 12182").unwrap(), Value::Int(0));
    let mut counts = std::collections::BTreeMap::<i64, i64>::new();
    for at in 0..3_000 {
        // A third in one slot, more than a step of SCAN takes.
        let key = if at % 3 == 0 { format!("{{foo}}{at}") } else { format!("key:{at}") };
        client.call(&["SET", &key, "v"]).unwrap();
        let Value::Int(slot) = client.call(&["CLUSTER", "KEYSLOT", &key]).unwrap() else {
            panic!("a slot")
        };
        *counts.entry(slot).or_default() += 1;
    }
    let slots = [0, 1, 12181, 12182, 12183, 16382, 16383]
        .into_iter()
        .chain(counts.keys().copied().take(50));
    for slot in slots {
        let expected = counts.get(&slot).copied().unwrap_or(0);
        let counted = client.line(&format!("CLUSTER COUNTKEYSINSLOT {slot}")).unwrap();
        assert_eq!(counted, Value::Int(expected), "{slot}");
        let keys = client.line(&format!("CLUSTER GETKEYSINSLOT {slot} 2000")).unwrap();
        assert_eq!(keys.items().unwrap().len() as i64, expected, "{slot}");
    }
    let some = client.line("CLUSTER GETKEYSINSLOT 12182 7").unwrap();
    let some = some.items().unwrap();
    assert_eq!(some.len(), 7);
    assert!(some.iter().all(|key| key.to_text().starts_with("{foo}")));
    for line in [
        "CLUSTER COUNTKEYSINSLOT 16384",
        "CLUSTER COUNTKEYSINSLOT -1",
        "CLUSTER GETKEYSINSLOT 0 -1",
    ] {
        assert!(client.line(line).unwrap().error_text().starts_with("ERR Invalid slot"), "{line}");
    }
    client.line("SELECT 1").unwrap();
    assert_eq!(client.line("CLUSTER COUNTKEYSINSLOT 12182").unwrap(), Value::Int(0));
}

#[test]
fn redis_cli_follows_a_cluster_of_one() {
    let server = clustered();
    let output = Command::new("redis-cli")
        .args(["-c", "-p", &server.port().to_string(), "SET", "key", "value"])
        .output()
        .expect("run redis-cli");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "OK");
    let output = Command::new("redis-cli")
        .args(["--cluster", "check", &format!("127.0.0.1:{}", server.port())])
        .output()
        .expect("run redis-cli");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("All 16384 slots covered"), "{said}");
}
