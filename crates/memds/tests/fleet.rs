//! A fleet, its publisher and a client over the in-process transport.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use memds::{Client, ClientOptions, Memds, Publisher};
use wire::ids::{NodeId, PartitionId, TableId};
use wire::peer::{LocalTransport, Transport};
use wire::placement::{Placement, PlacementRange};
use wire::service::{Route, RouteVersion};

const CLIENT: NodeId = NodeId(200);

struct Fleet {
    transport: Arc<LocalTransport>,
    nodes: Vec<Arc<Memds>>,
    client: Client,
    publisher: Publisher,
    told: Arc<Mutex<Vec<Route>>>,
}

fn fleet() -> Fleet {
    let transport = Arc::new(LocalTransport::default());
    let ids = vec![NodeId(101), NodeId(102), NodeId(103)];
    let shared: Arc<dyn Transport> = transport.clone();
    let nodes: Vec<_> =
        ids.iter().map(|id| Arc::new(Memds::new(*id, Arc::clone(&shared)))).collect();
    for (id, node) in ids.iter().zip(&nodes) {
        transport.connect(*id, node.clone());
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let on_route = Arc::clone(&told);
    let options = ClientOptions::new(CLIENT, ids.clone());
    let client = Client::new(options, Arc::clone(&shared), move |_, route| {
        on_route.lock().unwrap().push(route.clone());
    })
    .unwrap();
    transport.connect(CLIENT, client.frame_handler());
    let publisher = Publisher::new(NodeId(1), ids, shared);
    Fleet { transport, nodes, client, publisher, told }
}

fn route(ballot: u64, leader: u32) -> Route {
    Route {
        partition: PartitionId(1),
        range: PlacementRange::whole(TableId(0)),
        version: RouteVersion { epoch: 1, ballot },
        leader: Some(NodeId(leader)),
        members: vec![NodeId(1), NodeId(2)],
    }
}

fn lookups(fleet: &Fleet) -> u64 {
    fleet.nodes.iter().map(|node| node.stats().lookups).sum()
}

#[tokio::test]
async fn the_newest_route_is_found_also_when_a_node_is_gone() {
    let fleet = fleet();
    assert_eq!(fleet.client.lookup(TableId(0), Placement::MIN).await, None);
    fleet.publisher.publish(&route(2, 2));
    fleet.publisher.publish(&route(1, 1));
    for stopped in [NodeId(101), NodeId(103)] {
        fleet.transport.disconnect(stopped);
        for _ in 0..6 {
            assert_eq!(fleet.client.lookup(TableId(0), Placement::MAX).await, Some(route(2, 2)));
        }
    }
    assert_eq!(fleet.client.lookup(TableId(1), Placement::MIN).await, None);
}

#[tokio::test]
async fn every_mirrored_lookup_is_made_once_and_its_route_told() {
    let fleet = fleet();
    fleet.publisher.publish(&route(3, 1));
    let batch = vec![(TableId(0), Placement::MIN); 37];
    for _ in 0..1_000 {
        fleet.client.mirror(&batch);
        if fleet.client.is_full() {
            fleet.client.mirror_room().await;
        }
    }
    settle(&fleet);
    assert_eq!(lookups(&fleet), 37_000);
    assert_eq!(fleet.client.stats().answered, 37_000);
    assert!(fleet.told.lock().unwrap().iter().all(|told| *told == route(3, 1)));
    let spread: Vec<_> = fleet.nodes.iter().map(|node| node.stats().lookups).collect();
    assert!(spread.iter().all(|count| *count > 0), "all nodes share the load: {spread:?}");
}

#[test]
fn mirrored_lookups_survive_a_lost_node() {
    let fleet = fleet();
    fleet.publisher.publish(&route(3, 1));
    fleet.transport.disconnect(NodeId(102));
    for _ in 0..100 {
        fleet.client.mirror(&[(TableId(0), Placement::MIN); 10]);
        std::thread::yield_now();
    }
    settle(&fleet);
    assert_eq!(fleet.client.stats().answered, 1_000);
}

fn settle(fleet: &Fleet) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while fleet.client.stats().pending > 0 {
        assert!(Instant::now() < deadline, "lookups stay unanswered: {:?}", fleet.client.stats());
        std::thread::yield_now();
    }
}
