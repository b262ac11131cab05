//! Nodes, clients and publishers joined by a transport inside the process.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use memds::{Client, ClientOptions, Memds, Publisher};
use wire::ids::{NodeId, PartitionId, TableId};
use wire::peer::{Frame, FrameHandler, FrameKind, LocalTransport, Transport};
use wire::placement::{Placement, PlacementRange};
use wire::service::{Route, RouteVersion};

const TABLE: TableId = TableId(0);
const STORAGE: NodeId = NodeId(1);
const ROUTER: NodeId = NodeId(100);

struct Fleet {
    transport: Arc<LocalTransport>,
    nodes: Vec<Arc<Memds>>,
    ids: Vec<NodeId>,
}

impl Fleet {
    fn new(count: u32) -> Fleet {
        let transport = Arc::new(LocalTransport::default());
        let ids: Vec<NodeId> = (10..10 + count).map(NodeId).collect();
        let start = |&id: &NodeId| {
            let node = Arc::new(Memds::new(id, ids.clone(), transport.clone()));
            transport.connect(id, node.clone());
            node
        };
        let nodes = ids.iter().map(start).collect();
        Fleet { transport, nodes, ids }
    }

    fn stop(&self, node: usize) {
        self.transport.disconnect(self.ids[node]);
    }

    fn start(&self, node: usize) {
        self.transport.connect(self.ids[node], self.nodes[node].clone());
    }

    fn publisher(&self) -> Publisher {
        Publisher::new(STORAGE, self.ids.clone(), self.transport.clone())
    }

    fn client(&self, timeout: Duration) -> (Arc<Client>, Arc<Mutex<Vec<Route>>>) {
        let seen: Arc<Mutex<Vec<Route>>> = Arc::default();
        let options = ClientOptions { timeout, ..ClientOptions::new(ROUTER, self.ids.clone()) };
        let push = {
            let seen = seen.clone();
            move |_, route: &Route| seen.lock().expect("not poisoned").push(route.clone())
        };
        let client = Client::new(options, self.transport.clone(), push);
        let client = Arc::new(client.expect("a thread can be started"));
        self.transport.connect(ROUTER, client.frame_handler());
        (client, seen)
    }

    fn lookups(&self) -> u64 {
        self.nodes.iter().map(|node| node.stats().lookups).sum()
    }
}

fn at(value: u64) -> Placement {
    Placement::new(value).expect("below 2^40")
}

fn route(partition: u64, first: u64, last: u64, epoch: u64, ballot: u64) -> Route {
    Route {
        partition: PartitionId(partition),
        range: PlacementRange { table: TABLE, first: at(first), last: at(last) },
        version: RouteVersion { epoch, ballot },
        leader: Some(NodeId(1)),
        members: vec![NodeId(1), NodeId(2), NodeId(3)],
    }
}

/// `count` partitions of 100 placements each.
fn partitions(count: u64, epoch: u64) -> Vec<Route> {
    (0..count).map(|i| route(i + 1, i * 100, i * 100 + 99, epoch, 1)).collect()
}

/// Waits until a condition holds; fails if it does not within ten seconds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn a_pushed_route_is_looked_up_and_handed_on() {
    let fleet = Fleet::new(3);
    let (client, seen) = fleet.client(Duration::from_secs(5));
    let wanted = route(7, 100, 200, 3, 9);
    fleet.publisher().publish(&wanted);
    for placement in [100, 150, 200] {
        assert_eq!(client.lookup(TABLE, at(placement)).await, Some(wanted.clone()));
    }
    assert_eq!(*seen.lock().expect("not poisoned"), vec![wanted; 3]);
    assert_eq!((fleet.lookups(), client.stats().foreground), (3, 3));
    // Where nobody has a route, each node is asked once.
    assert_eq!(client.lookup(TABLE, at(99)).await, None);
    assert_eq!(client.lookup(TableId(1), at(150)).await, None);
    assert_eq!((fleet.lookups(), client.stats().foreground), (9, 9));
    assert_eq!(client.stats().answered, 9);
    assert_eq!(client.stats().timeouts, 0);
}

#[tokio::test]
async fn a_node_that_knows_nothing_does_not_hide_what_others_know() {
    let fleet = Fleet::new(3);
    let (client, _) = fleet.client(Duration::from_secs(5));
    let wanted = route(7, 0, 10, 1, 1);
    Publisher::new(STORAGE, vec![fleet.ids[2]], fleet.transport.clone()).publish(&wanted);
    for _ in 0..6 {
        assert_eq!(client.lookup(TABLE, at(5)).await, Some(wanted.clone()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopped_node_costs_one_timeout_and_is_then_passed_over() {
    let fleet = Fleet::new(3);
    let (client, _) = fleet.client(Duration::from_millis(50));
    fleet.publisher().publish(&route(7, 0, 10, 1, 1));
    fleet.stop(1);
    for _ in 0..20 {
        assert!(client.lookup(TABLE, at(5)).await.is_some());
    }
    assert_eq!(client.stats().timeouts, 1);
    fleet.stop(0);
    fleet.stop(2);
    assert_eq!(client.lookup(TABLE, at(5)).await, None);
    assert_eq!(client.stats().timeouts, 1 + 6, "six tries at most");
}

#[test]
fn mirrored_lookups_are_counted_exactly() {
    let fleet = Fleet::new(3);
    let (client, seen) = fleet.client(Duration::from_secs(5));
    fleet.publisher().publish_all(&partitions(10, 1));
    let threads: Vec<_> = (0..4_u64)
        .map(|thread| {
            let client = client.clone();
            std::thread::spawn(move || {
                for i in 0..5000 {
                    // All alike in many batches: still as many lookups.
                    let lookup = (TABLE, at((thread * i) % 1000));
                    client.mirror(&[lookup; 3][..1 + (i as usize % 3)]);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
    let wanted = 4 * (0..5000).map(|i| 1 + i % 3).sum::<u64>();
    until("all lookups are answered", || client.stats().answered == wanted);
    assert_eq!(fleet.lookups(), wanted);
    assert_eq!(client.stats().mirrored, wanted);
    assert_eq!((client.stats().repeated, client.stats().timeouts), (0, 0));
    assert!(fleet.nodes.iter().all(|node| node.stats().lookups > 0), "all nodes take their part");
    assert!(!seen.lock().expect("not poisoned").is_empty());
}

#[test]
fn mirrored_lookups_tell_only_news() {
    let fleet = Fleet::new(1);
    let (client, seen) = fleet.client(Duration::from_secs(5));
    let publisher = fleet.publisher();
    let mut answered = 0;
    for epoch in [1, 2] {
        publisher.publish_all(&partitions(3, epoch));
        for _ in 0..4 {
            client.mirror(&[(TABLE, at(50)), (TABLE, at(150)), (TABLE, at(1000))]);
            answered += 3;
            until("all are answered", || client.stats().answered == answered);
        }
    }
    let told = seen.lock().expect("not poisoned");
    let told: Vec<_> = told.iter().map(|r| (r.partition.0, r.version.epoch)).collect();
    assert_eq!(told, [(1, 1), (2, 1), (1, 2), (2, 2)]);
}

#[test]
fn a_lone_mirrored_lookup_is_sent_even_after_the_thread_fell_asleep() {
    let fleet = Fleet::new(1);
    let (client, _) = fleet.client(Duration::from_secs(5));
    for sent in 1..=3 {
        client.mirror(&[(TABLE, at(1))]);
        until("the lookup is answered", || client.stats().answered == sent);
        // Longer than the thread stays awake without work; what is tested holds in either case.
        std::thread::sleep(Duration::from_millis(60));
    }
    assert_eq!(fleet.lookups(), 3);
}

#[test]
fn what_is_queued_is_sent_before_the_client_goes() {
    let fleet = Fleet::new(1);
    let (client, _) = fleet.client(Duration::from_secs(5));
    client.mirror(&[(TABLE, at(1)); 10]);
    drop(client);
    assert_eq!(fleet.lookups(), 10);
}

#[test]
fn an_unanswered_batch_goes_to_another_node_once() {
    let fleet = Fleet::new(2);
    let (client, seen) = fleet.client(Duration::from_millis(20));
    let wanted = route(7, 0, 10, 1, 1);
    fleet.publisher().publish(&wanted);
    fleet.stop(0);
    let batch = [(TABLE, at(5)); 64];
    for sent in 1..=4 {
        client.mirror(&batch);
        until("the batch is answered", || client.stats().answered == sent * 64);
    }
    let stats = client.stats();
    assert_eq!((fleet.lookups(), stats.mirrored), (4 * 64, 4 * 64));
    assert!(stats.repeated >= 64, "a batch went to the stopped node first");
    assert!(seen.lock().expect("not poisoned").iter().all(|route| *route == wanted));

    fleet.stop(1);
    let before = client.stats();
    client.mirror(&batch);
    until("the batch is given up", || client.stats().timeouts >= before.timeouts + 2);
    std::thread::sleep(Duration::from_millis(100));
    let after = client.stats();
    assert_eq!(after.repeated, before.repeated + 64);
    assert_eq!(after.timeouts, before.timeouts + 2, "given up after the second timeout");
}

/// Holds frames back until it is opened.
struct Gate {
    inner: Arc<LocalTransport>,
    open: Mutex<bool>,
    opened: std::sync::Condvar,
}

impl Transport for Gate {
    fn send(&self, frame: Frame) {
        let mut open = self.open.lock().expect("not poisoned");
        while !*open {
            open = self.opened.wait(open).expect("not poisoned");
        }
        drop(open);
        self.inner.send(frame);
    }
}

#[tokio::test]
async fn a_full_queue_holds_callers_up_and_loses_nothing() {
    let fleet = Fleet::new(1);
    let gate = Arc::new(Gate {
        inner: fleet.transport.clone(),
        open: Mutex::new(false),
        opened: std::sync::Condvar::new(),
    });
    let options = ClientOptions {
        mirror_lookups_max: 100,
        timeout: Duration::from_secs(60),
        ..ClientOptions::new(ROUTER, fleet.ids.clone())
    };
    let client = Client::new(options, gate.clone(), |_, _| ()).expect("a thread starts");
    let client = Arc::new(client);
    fleet.transport.connect(ROUTER, client.frame_handler());
    let lookups = [(TABLE, at(1)); 99];
    client.mirror(&lookups);
    client.mirror_ready().await;
    client.mirror(&lookups);
    let ready = tokio::time::timeout(Duration::from_millis(50), client.mirror_ready());
    assert!(ready.await.is_err(), "198 of 100 lookups are queued");
    *gate.open.lock().expect("not poisoned") = true;
    gate.opened.notify_all();
    client.mirror_ready().await;
    until("all are answered", || client.stats().answered == 198);
    assert_eq!(fleet.lookups(), 198);
}

#[test]
fn stale_pushes_change_nothing() {
    let fleet = Fleet::new(1);
    let (publisher, node) = (fleet.publisher(), &fleet.nodes[0]);
    let newest = route(7, 0, 99, 5, 8);
    publisher.publish(&newest);
    for (epoch, ballot) in [(5, 8), (5, 7), (4, 900), (0, 0)] {
        publisher.publish(&route(7, 0, 99, epoch, ballot));
        publisher.publish(&route(6, 50, 70, epoch, ballot - ballot % 2));
    }
    assert_eq!(node.route_of(TABLE, at(60)), Some(newest));
    let stats = node.stats();
    assert_eq!((stats.pushes, stats.installed, stats.stale, stats.refused), (9, 1, 8, 0));
    let moved = Route { leader: Some(NodeId(2)), ..route(7, 0, 99, 5, 9) };
    publisher.publish(&moved);
    assert_eq!(node.route_of(TABLE, at(60)), Some(moved));
}

/// Has every node compare itself with its peers until nothing is sent any more.
fn sync_all(fleet: &Fleet) {
    for _ in 0..fleet.nodes.len() {
        fleet.nodes.iter().for_each(|node| node.sync());
    }
}

fn root(node: &Memds) -> u64 {
    node.root_hash()
}

#[test]
fn a_node_that_missed_pushes_heals() {
    let fleet = Fleet::new(3);
    let publisher = fleet.publisher();
    publisher.publish_all(&partitions(3000, 1));
    fleet.stop(2);
    publisher.publish_all(&partitions(3000, 2)[500..700]);
    publisher.publish(&route(9000, 0, 49, 3, 1));
    publisher.publish(&route(9001, 50, 99, 3, 1));
    fleet.start(2);
    assert_ne!(root(&fleet.nodes[2]), root(&fleet.nodes[0]));
    let before = fleet.nodes[2].stats();
    fleet.nodes[2].sync();
    assert_eq!(root(&fleet.nodes[2]), root(&fleet.nodes[0]));
    assert_eq!(fleet.nodes[2].route_of(TABLE, at(50)), Some(route(9001, 50, 99, 3, 1)));
    let after = fleet.nodes[2].stats();
    assert_eq!(after.installed - before.installed, 202);
    // What is equal is not sent: at most the pages around what differs.
    assert!(after.stale - before.stale < 400, "{} routes sent in vain", after.stale - before.stale);
    let quiet: Vec<_> = fleet.nodes.iter().map(|node| node.stats()).collect();
    sync_all(&fleet);
    assert_eq!(quiet, fleet.nodes.iter().map(|node| node.stats()).collect::<Vec<_>>());
}

#[test]
fn an_empty_node_learns_everything_and_peers_exchange_both_ways() {
    let fleet = Fleet::new(3);
    // Each node knows another part, and some know parts better.
    for (i, &id) in fleet.ids.iter().enumerate() {
        let publisher = Publisher::new(STORAGE, vec![id], fleet.transport.clone());
        let some = |route: &Route| (route.partition.0 as usize).is_multiple_of(i + 2);
        let mut routes = partitions(5000, i as u64);
        routes.retain(some);
        publisher.publish_all(&routes);
    }
    sync_all(&fleet);
    assert_eq!(root(&fleet.nodes[0]), root(&fleet.nodes[1]));
    assert_eq!(root(&fleet.nodes[0]), root(&fleet.nodes[2]));
    for node in &fleet.nodes {
        assert_eq!(node.route_of(TABLE, at(1150)).map(|r| r.version.epoch), Some(2), "12: by all");
        assert_eq!(node.route_of(TABLE, at(150)).map(|r| r.version.epoch), Some(0), "2: by one");
        assert_eq!(node.route_of(TABLE, at(50)), None, "1: by none");
    }
    let fresh = Arc::new(Memds::new(NodeId(50), fleet.ids.clone(), fleet.transport.clone()));
    fleet.transport.connect(NodeId(50), fresh.clone());
    fresh.sync();
    assert_eq!(root(&fresh), root(&fleet.nodes[0]));
}

#[test]
fn what_would_empty_the_map_is_refused() {
    let fleet = Fleet::new(2);
    fleet.publisher().publish_all(&partitions(100, 1));
    let node = &fleet.nodes[0];
    let before = root(node);
    // One partition that claims all of the table, however new.
    fleet.publisher().publish(&route(1, 0, Placement::MAX.get(), 1000, 1));
    assert_eq!((root(node), node.stats().refused), (before, 1));
    // A whole map that is empty, or has less than half of the entries.
    assert!(node.replace(&[]).is_err());
    assert!(node.replace(&partitions(49, 9)).is_err());
    assert_eq!((root(node), node.stats().refused), (before, 3));
    // A peer that says its map is empty, or lost most of it, is not healed from.
    for entries in [0_u8, 49] {
        let body = Bytes::from(vec![0, 0, 0, entries, 0, 0, 0, 0]);
        let kind = FrameKind::MemdsSyncAnswer;
        node.handle(Frame::new(kind, fleet.ids[1], fleet.ids[0], PartitionId(0), body));
    }
    assert_eq!((root(node), node.stats().refused), (before, 5));
    node.replace(&partitions(60, 9)).expect("more than half of it");
    assert_eq!(node.partitions(), 60);
    assert_eq!(fleet.nodes[1].stats().refused, 1);
}

#[test]
fn frames_that_make_no_sense_are_counted_and_dropped() {
    let fleet = Fleet::new(1);
    let (client, _) = fleet.client(Duration::from_secs(5));
    let frame = |kind, body: &'static [u8]| {
        Frame::new(kind, ROUTER, fleet.ids[0], PartitionId(0), Bytes::from_static(body))
    };
    let kinds = [
        FrameKind::Paxos,
        FrameKind::MemdsLookup,
        FrameKind::MemdsAnswer,
        FrameKind::MemdsPush,
        FrameKind::MemdsSync,
        FrameKind::MemdsSyncAnswer,
    ];
    for kind in kinds {
        fleet.nodes[0].handle(frame(kind, b"?"));
        client.frame_handler().handle(frame(kind, b"?"));
    }
    assert_eq!(fleet.nodes[0].stats().malformed, 6);
    assert_eq!(client.stats().malformed, 6);
}

#[tokio::test]
async fn a_late_answer_of_one_node_ends_the_wait_for_another() {
    /// Passes a lookup on only when the next one comes.
    struct Late {
        node: Arc<Memds>,
        held: Mutex<Option<Frame>>,
    }
    impl FrameHandler for Late {
        fn handle(&self, frame: Frame) {
            let held = self.held.lock().expect("not poisoned").replace(frame);
            held.into_iter().for_each(|held| self.node.handle(held));
        }
    }
    let fleet = Fleet::new(2);
    let wanted = route(7, 0, 10, 1, 1);
    fleet.publisher().publish(&wanted);
    let late = Arc::new(Late { node: fleet.nodes[0].clone(), held: Mutex::default() });
    fleet.transport.connect(fleet.ids[0], late.clone());
    fleet.transport.connect(fleet.ids[1], late);
    let (client, seen) = fleet.client(Duration::from_millis(30));
    assert_eq!(client.lookup(TABLE, at(5)).await, Some(wanted.clone()));
    let stats = client.stats();
    assert_eq!((stats.foreground, stats.timeouts, stats.answered), (2, 1, 1));
    assert_eq!(*seen.lock().expect("not poisoned"), [wanted]);
}

#[test]
fn a_thread_heals_until_it_is_told_to_stop() {
    let fleet = Fleet::new(2);
    let publisher = Publisher::new(STORAGE, vec![fleet.ids[0]], fleet.transport.clone());
    publisher.publish_all(&partitions(200, 1));
    let healing = fleet.nodes[1].sync_every(Duration::from_millis(1)).expect("a thread starts");
    until("the other node knows as much", || root(&fleet.nodes[0]) == root(&fleet.nodes[1]));
    drop(healing);
    publisher.publish_all(&partitions(200, 2));
    assert_ne!(root(&fleet.nodes[0]), root(&fleet.nodes[1]));
}
