//! How storage nodes make routes known.

use std::sync::Arc;

use wire::ids::{NodeId, PartitionId};
use wire::peer::{Frame, FrameKind, Transport};
use wire::service::Route;

use crate::message;

/// Pushes routes to every MemDS node. A push that is lost is made good by the next one: storage
/// nodes tell their routes again from time to time.
pub struct Publisher {
    from: NodeId,
    nodes: Vec<NodeId>,
    transport: Arc<dyn Transport>,
}

impl Publisher {
    /// A publisher that sends as `from` to these MemDS nodes.
    pub fn new(from: NodeId, nodes: Vec<NodeId>, transport: Arc<dyn Transport>) -> Publisher {
        Publisher { from, nodes, transport }
    }

    /// Tells every MemDS node a route.
    pub fn publish(&self, route: &Route) {
        let body = message::encode_push(std::slice::from_ref(route));
        for node in &self.nodes {
            let (kind, partition) = (FrameKind::MemdsPush, PartitionId(0));
            self.transport.send(Frame::new(kind, self.from, *node, partition, body.clone()));
        }
    }
}
