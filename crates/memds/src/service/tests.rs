//! Nodes, clients and publishers joined in one process.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use wire::ids::{NodeId, PartitionId, TableId};
use wire::peer::LocalTransport;
use wire::placement::{Placement, PlacementRange};
use wire::service::RouteVersion;

use super::*;
use crate::client::{ClientOptions, MemdsClient};
use crate::message::Lookup;
use crate::publisher::Publisher;
use crate::route::RouteRef;

fn placement(number: u64) -> Placement {
    Placement::new(number).expect("40 bits")
}

/// A route for `first..=last` of table 0 at an epoch.
fn route(partition: u64, first: u64, last: u64, epoch: u64) -> Route {
    Route {
        partition: PartitionId(partition),
        range: PlacementRange { table: TableId(0), first: placement(first), last: placement(last) },
        version: RouteVersion { epoch, ballot: 1 },
        leader: Some(NodeId(1)),
        members: vec![NodeId(1), NodeId(2), NodeId(3)],
    }
}

fn lookup(number: u64) -> Lookup {
    Lookup { table: TableId(0), placement: placement(number) }
}

/// `count` routes of 1,000 placements each.
fn contiguous(count: u64, epoch: u64) -> Vec<Route> {
    (0..count).map(|i| route(i, i * 1_000, i * 1_000 + 999, epoch)).collect()
}

struct Fleet {
    transport: Arc<LocalTransport>,
    nodes: Vec<Arc<MemdsNode>>,
}

const FLEET: [NodeId; 3] = [NodeId(101), NodeId(102), NodeId(103)];
const ROUTER: NodeId = NodeId(50);
const STORAGE: NodeId = NodeId(1);

fn fleet() -> Fleet {
    let transport = Arc::new(LocalTransport::new());
    let nodes = FLEET.map(|id| {
        let node = Arc::new(MemdsNode::new(id, transport.clone()));
        transport.register(id, node.clone());
        node
    });
    Fleet { transport, nodes: nodes.to_vec() }
}

impl Fleet {
    fn publisher(&self) -> Publisher {
        Publisher::new(STORAGE, FLEET.to_vec(), self.transport.clone())
    }

    /// A client and the partitions it was told of.
    fn client(&self, options: ClientOptions) -> (Arc<MemdsClient>, Arc<Mutex<Vec<u64>>>) {
        let answers = Arc::new(Mutex::new(Vec::new()));
        let seen = answers.clone();
        let on_answer = move |route: &RouteRef<'_>| seen.lock().push(route.partition.0);
        let transport = self.transport.clone();
        let client = MemdsClient::new(ROUTER, FLEET.to_vec(), transport, options, on_answer);
        self.transport.register(ROUTER, client.clone());
        (client, answers)
    }
}

fn options() -> ClientOptions {
    ClientOptions { answer_timeout: Duration::from_millis(20), ..ClientOptions::default() }
}

/// Waits for a condition, in virtual time.
async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it becomes true");
}

#[test]
fn newer_routes_replace_what_they_overlap() {
    let node = fleet().nodes.remove(0);
    let at = |number| node.lookup(lookup(number)).map(|route| route.partition.0);
    assert_eq!(node.install(&route(1, 0, 99, 1)), Installed::Newer);
    assert_eq!(node.install(&route(1, 0, 99, 1)), Installed::Stale, "the same again");
    assert_eq!(at(100), None);

    // A split, its upper half first.
    assert_eq!(node.install(&route(2, 50, 99, 2)), Installed::Newer);
    assert_eq!((at(49), at(50)), (Some(1), Some(2)), "no position is without a route meanwhile");
    assert_eq!(node.install(&route(1, 0, 99, 1)), Installed::Stale, "from before the split");
    assert_eq!(node.install(&route(1, 0, 49, 2)), Installed::Newer);
    let elected = Route {
        version: RouteVersion { epoch: 2, ballot: 9 },
        leader: Some(NodeId(3)),
        ..route(2, 50, 99, 2)
    };
    assert_eq!(node.install(&elected), Installed::Newer);
    assert_eq!(node.lookup(lookup(60)), Some(elected));

    // A merge, and a late word from one of the merged.
    assert_eq!(node.install(&route(1, 0, 99, 3)), Installed::Newer);
    assert_eq!((node.len(), at(60)), (1, Some(1)));
    assert_eq!(node.install(&route(2, 50, 99, 2)), Installed::Stale);
    assert_eq!(at(60), Some(1));
}

#[test]
fn one_route_cannot_displace_a_large_part() {
    let node = fleet().nodes.remove(0);
    for route in contiguous(1_000, 1) {
        assert_eq!(node.install(&route), Installed::Newer);
    }
    let root = node.root_hash();
    assert_eq!(node.install(&route(9, 0, 999_999, 99)), Installed::Refused);
    assert_eq!(node.root_hash(), root);
    assert_eq!(node.install(&route(9, 0, 9_999, 99)), Installed::Newer, "a small part it may");
    assert_eq!(node.len(), 991);
}

#[test]
fn pushes_reach_the_whole_fleet() {
    let fleet = fleet();
    let publisher = fleet.publisher();
    fleet.transport.disconnect(FLEET[2]);
    publisher.announce(&contiguous(5_000, 1));
    assert_eq!(fleet.nodes[0].len(), 5_000);
    assert_eq!(fleet.nodes[0].root_hash(), fleet.nodes[1].root_hash());
    assert!(fleet.nodes[2].is_empty());

    fleet.transport.connect(FLEET[2]);
    publisher.announce(&contiguous(5_000, 0));
    assert!(fleet.nodes[2].is_empty(), "what is older than what was told is not sent");
    publisher.announce(&contiguous(2_000, 1));
    assert_eq!(fleet.nodes[2].len(), 2_000, "the same again makes good what was lost");
    publisher.announce(&contiguous(5_000, 1));
    assert_eq!(fleet.nodes[2].len(), 5_000);
}

#[test]
fn nodes_heal_each_other() {
    let fleet = fleet();
    let [a, b, c] = &fleet.nodes[..] else { panic!("three nodes") };
    for route in contiguous(20_000, 1) {
        a.install(&route);
        b.install(&route);
    }
    // Each learns what the other misses: changes, a split, a merge.
    a.install(&route(3, 3_000, 3_999, 5));
    a.install(&route(40_000, 500_500, 500_999, 2));
    a.install(&route(500, 500_000, 500_499, 2));
    b.install(&route(7_000, 7_000_000, 7_001_999, 2));
    assert_ne!(a.root_hash(), b.root_hash());
    a.heal_from(b.node());
    b.heal_from(a.node());
    assert_eq!(a.root_hash(), b.root_hash());
    assert_eq!(a.len(), 20_000);
    assert_eq!(a.lookup(lookup(7_001_500)).map(|route| route.partition.0), Some(7_000));

    // A new node gets everything; an empty one gives nothing and takes nothing away.
    a.heal_from(c.node());
    assert_eq!(a.len(), 20_000);
    c.heal_from(a.node());
    assert_eq!(c.root_hash(), a.root_hash());
}

#[test]
fn a_map_that_shrank_heals_nobody() {
    let fleet = fleet();
    let [a, b, _] = &fleet.nodes[..] else { panic!("three nodes") };
    for route in contiguous(1_000, 1) {
        a.install(&route);
    }
    for route in contiguous(700, 9) {
        b.install(&route);
    }
    let root = a.root_hash();
    a.heal_from(b.node());
    assert_eq!(a.root_hash(), root, "700 of 1,000: not believed");
    for route in contiguous(760, 9) {
        b.install(&route);
    }
    a.heal_from(b.node());
    assert_ne!(a.root_hash(), root, "760 of 1,000: believed");
}

#[tokio::test(start_paused = true)]
async fn every_lookup_is_answered_and_spread_over_the_fleet() {
    let fleet = fleet();
    fleet.publisher().announce(&contiguous(1_000, 1));
    let (client, answers) = fleet.client(options());
    tokio::spawn(client.clone().run());
    assert_eq!(client.lookup(lookup(5_500)).await.map(|route| route.partition.0), Some(5));
    assert_eq!(client.lookup(lookup(5_000_000)).await, None);
    answers.lock().clear();

    // Twice the same ones: nothing is coalesced.
    let batch: Vec<Lookup> = (0..1_000).map(|i| lookup(i * 1_000 + 1)).collect();
    client.mirror(&batch).await;
    client.mirror(&batch).await;
    until(|| client.stats().answered == 2_000).await;
    assert_eq!(answers.lock().len(), 2_000);
    assert_eq!(answers.lock().iter().collect::<HashSet<_>>().len(), 1_000);
    assert_eq!((client.stats().retries, client.stats().abandoned), (2, 0), "2: the unknown one");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_there_is_taken_without_a_wait_and_any_other_waited_for() {
    let fleet = fleet();
    fleet.publisher().announce(&contiguous(10, 1));
    let (client, _) = fleet.client(options());
    let at_once = client.ask(lookup(5_500)).take_route();
    assert_eq!(at_once.map(|route| route.partition.0).ok(), Some(5));
    // No node knows it: that is not known before each was asked.
    let Err(unknown) = client.ask(lookup(5_000_000)).take_route() else { panic!("no such route") };
    assert_eq!(client.answer(unknown).await, None);
    assert_eq!(client.stats().foreground, 2);
    assert_eq!(client.stats().retries, 2, "the other two nodes");

    // The node whose turn it is does not answer.
    FLEET.iter().for_each(|node| fleet.transport.disconnect(*node));
    let Err(silent) = client.ask(lookup(5_500)).take_route() else { panic!("nobody can answer") };
    fleet.transport.connect(FLEET[0]);
    fleet.transport.connect(FLEET[1]);
    fleet.transport.connect(FLEET[2]);
    assert_eq!(client.answer(silent).await.map(|route| route.partition.0), Some(5));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_node_costs_a_retry_and_loses_nothing() {
    let fleet = fleet();
    fleet.publisher().announce(&contiguous(100, 1));
    fleet.transport.disconnect(FLEET[1]);
    let (client, answers) = fleet.client(options());
    tokio::spawn(client.clone().run());
    for number in 0..30 {
        let found = client.lookup(lookup(number * 1_000)).await;
        assert_eq!(found.map(|route| route.partition.0), Some(number));
    }
    answers.lock().clear();
    for batch in 1..=30 {
        client.mirror(&(0..100).map(|i| lookup(i * 1_000)).collect::<Vec<_>>()).await;
        until(|| client.stats().answered == batch * 100).await;
    }
    assert_eq!(answers.lock().len(), 3_000);
    assert!(client.stats().retries > 0);
    assert_eq!(client.stats().abandoned, 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_passed_over_and_asked_again_later() {
    let fleet = fleet();
    fleet.publisher().announce(&contiguous(100, 1));
    fleet.transport.disconnect(FLEET[1]);
    let (client, _) = fleet.client(options());
    tokio::spawn(client.clone().run());
    for second in 1..4 {
        for number in 0..90 {
            assert!(client.lookup(lookup(number * 1_000)).await.is_some());
        }
        client.mirror(&[lookup(1); 100]).await;
        until(|| client.stats().answered == second * 100).await;
        assert!(client.stats().retries <= second, "one lookup a second pays: {:?}", client.stats());
        // The time after which it may be asked again is the subject; it is virtual.
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    fleet.transport.connect(FLEET[1]);
    let before = fleet.nodes[1].stats().lookups;
    for number in 0..90 {
        client.lookup(lookup(number * 1_000)).await;
    }
    assert!(fleet.nodes[1].stats().lookups > before + 20, "it takes its part again");
}

#[tokio::test(start_paused = true)]
async fn a_lookup_whose_caller_is_gone_is_forgotten() {
    let fleet = fleet();
    FLEET.iter().for_each(|node| fleet.transport.disconnect(*node));
    let (client, _) = fleet.client(options());
    tokio::spawn(client.clone().run());
    for _ in 0..50 {
        let asked = tokio::time::timeout(Duration::from_millis(5), client.lookup(lookup(1)));
        assert!(asked.await.is_err());
    }
    client.mirror(&[lookup(1)]).await;
    until(|| client.stats().abandoned == 1).await;
    assert_eq!(client.under_way(), 0);
}

#[tokio::test(start_paused = true)]
async fn every_lookup_is_counted_exactly_once() {
    let fleet = fleet();
    let publisher = fleet.publisher();
    publisher.announce(&contiguous(100, 1));
    let (client, _) = fleet.client(options());
    tokio::spawn(client.clone().run());
    let mut mirrored = 0;
    for size in 1..200_u64 {
        client.mirror(&vec![lookup(size * 13); size as usize]).await;
        mirrored += size;
        assert!(client.lookup(lookup(size)).await.is_some());
    }
    until(|| client.stats().answered == mirrored).await;
    let served: u64 = fleet.nodes.iter().map(|node| node.stats().lookups).sum();
    let stats = client.stats();
    assert_eq!((served, stats.mirrored, stats.foreground), (mirrored + 199, mirrored, 199));
    publisher.announce(&contiguous(50, 0));
    let stats = fleet.nodes[0].stats();
    assert_eq!((stats.installed, stats.stale, stats.refused), (100, 0, 0));
    publisher.announce(&contiguous(50, 1));
    assert_eq!(fleet.nodes[0].stats().stale, 50);
}

#[test]
fn a_healed_split_leaves_no_hole_and_equal_roots() {
    let fleet = fleet();
    let [a, b, c] = &fleet.nodes[..] else { panic!("three nodes") };
    // Each missed something else: the parent comes late, or one half not at all.
    let (parent, lower, upper) = (route(1, 0, 99, 1), route(1, 0, 49, 2), route(2, 50, 99, 2));
    for (node, route) in [(a, &parent), (a, &lower), (b, &upper), (b, &parent)] {
        node.install(route);
    }
    c.install(&upper);
    for node in [a, b] {
        assert!((0..100).all(|number| node.lookup(lookup(number)).is_some()));
    }
    for _ in 0..2 {
        for (node, peer) in [(a, b), (b, c), (c, a)] {
            node.heal_from(peer.node());
        }
    }
    assert_eq!((a.root_hash(), b.root_hash()), (b.root_hash(), c.root_hash()));
    assert_eq!(a.routes(), [lower, upper]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_makes_the_caller_wait() {
    let fleet = fleet();
    fleet.publisher().announce(&contiguous(100, 1));
    let (client, _) = fleet.client(ClientOptions { queue_lookups: 100, ..options() });
    let batch: Vec<Lookup> = (0..100).map(|i| lookup(i * 1_000)).collect();
    assert!(client.try_mirror(&batch));
    assert!(!client.try_mirror(&batch[..1]), "nobody empties the queue yet");
    let mut waiting = pin!(client.mirror(&batch));
    let polled = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context))).await;
    assert!(polled.is_pending(), "and it waits, without a task that could be late");
    tokio::spawn(client.clone().run());
    waiting.await;
    until(|| client.stats().answered == 200).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_fleet_does_not_stop_what_is_cached() {
    let fleet = fleet();
    FLEET.iter().for_each(|node| fleet.transport.disconnect(*node));
    let options = ClientOptions { queue_lookups: 100, batches_in_flight: 2, ..options() };
    let (client, answers) = fleet.client(options);
    tokio::spawn(client.clone().run());
    let batch: Vec<Lookup> = (0..100).map(|i| lookup(i * 1_000)).collect();
    for _ in 0..10 {
        let sent = tokio::time::timeout(Duration::from_secs(1), client.mirror(&batch)).await;
        assert!(sent.is_ok(), "the queue empties although nobody answers");
    }
    until(|| client.stats().abandoned == 1_000).await;
    assert!(answers.lock().is_empty());
    assert_eq!(client.lookup(lookup(0)).await, None);

    // It comes back.
    FLEET.iter().for_each(|node| fleet.transport.connect(*node));
    fleet.publisher().announce(&contiguous(100, 1));
    assert!(client.lookup(lookup(0)).await.is_some());
}

#[test]
fn malformed_bodies_are_dropped() {
    let fleet = fleet();
    for kind in MemdsNode::KINDS {
        let garbage = bytes::Bytes::from_static(b"garbage");
        fleet.transport.send(FLEET[0], Frame::new(*kind, ROUTER, FLEET[0], garbage));
    }
    assert!(fleet.nodes[0].is_empty());
    assert_eq!(fleet.nodes[0].stats().refused, MemdsNode::KINDS.len() as u64);
}
