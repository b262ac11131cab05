//! How storage nodes tell MemDS where partitions are.
//!
//! Storage nodes are authoritative. What they announce goes to every MemDS node at once; a push that
//! is lost is made good when they announce the same again, which they do now and then, by MemDS nodes
//! healing each other, and by storage nodes that answer a misrouted call with the newest route they know.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;
use wire::ids::{NodeId, PartitionId};
use wire::peer::{Frame, Kind, Transport};
use wire::service::{Route, RouteVersion};

use crate::message::{ITEMS_MAX, encode_routes};
use crate::route::RouteRef;

/// Announces the routes of one storage node.
pub struct Publisher {
    node: NodeId,
    fleet: Vec<NodeId>,
    transport: Arc<dyn Transport>,
    /// The newest announcement for each partition.
    told: Mutex<HashMap<PartitionId, RouteVersion>>,
}

impl Publisher {
    /// A publisher of storage node `node` for the MemDS nodes `fleet`.
    pub fn new(node: NodeId, fleet: Vec<NodeId>, transport: Arc<dyn Transport>) -> Publisher {
        Publisher { node, fleet, transport, told: Mutex::default() }
    }

    /// Tells all MemDS nodes of routes: a leader was elected, a range or membership changed, or a push may
    /// have been lost. Older ones than already announced are not sent.
    pub fn announce(&self, routes: &[Route]) {
        let mut newer = Vec::with_capacity(routes.len());
        {
            let mut told = self.told.lock();
            for route in routes {
                let known = told.get(&route.partition);
                if known.is_none_or(|known| *known <= route.version) {
                    told.insert(route.partition, route.version);
                    newer.push(RouteRef::from(route));
                }
            }
        }
        self.push(&newer);
    }

    /// Sends outside the lock: the far side may run inside `send`.
    fn push(&self, routes: &[RouteRef<'_>]) {
        for routes in routes.chunks(ITEMS_MAX) {
            let mut body = BytesMut::new();
            encode_routes(routes.iter().copied(), &mut body);
            let frame = Frame::new(Kind::MemdsPush, self.node, NodeId::default(), body.freeze());
            for node in &self.fleet {
                self.transport.send(*node, frame.to_node(*node));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::ids::TableId;
    use wire::placement::PlacementRange;

    use super::*;

    #[derive(Default)]
    struct Sent(Mutex<Vec<NodeId>>);

    impl Transport for Sent {
        fn send(&self, to: NodeId, _: Frame) {
            self.0.lock().push(to);
        }
    }

    #[test]
    fn a_route_that_may_have_been_lost_is_told_again_and_an_older_one_is_not() {
        let sent = Arc::new(Sent::default());
        let publisher = Publisher::new(NodeId(1), vec![NodeId(7), NodeId(8)], sent.clone());
        let route = |ballot| Route {
            partition: PartitionId(1),
            range: PlacementRange::whole(TableId(0)),
            version: RouteVersion { epoch: 1, ballot },
            leader: Some(NodeId(1)),
            members: vec![NodeId(1)],
        };
        for (ballot, frames) in [(5, 2), (5, 4), (4, 4), (6, 6), (5, 6)] {
            publisher.announce(&[route(ballot)]);
            assert_eq!(sent.0.lock().len(), frames, "after ballot {ballot}");
        }
    }
}
