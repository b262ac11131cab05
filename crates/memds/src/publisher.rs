//! What a storage node tells MemDS: it pushes what it knows of its own partitions to every node.
//!
//! A push may be lost; MemDS nodes heal each other, and a leader publishes again whenever it likes,
//! since a route that is not newer changes nothing.

use std::sync::Arc;

use wire::ids::{NodeId, PartitionId};
use wire::peer::{Frame, FrameKind, Transport};
use wire::service::Route;

use crate::message::{MEMBERS_MAX, encode_push};

/// Routes in one push. A few hundred are tens of kilobytes.
const PUSH_ROUTES_MAX: usize = 512;

/// Pushes routes to all MemDS nodes.
#[derive(Clone)]
pub struct Publisher {
    from: NodeId,
    nodes: Vec<NodeId>,
    transport: Arc<dyn Transport>,
}

impl Publisher {
    /// A publisher of the node `from`.
    pub fn new(from: NodeId, nodes: Vec<NodeId>, transport: Arc<dyn Transport>) -> Publisher {
        Publisher { from, nodes, transport }
    }

    /// Makes a route known.
    pub fn publish(&self, route: &Route) {
        self.publish_all(std::slice::from_ref(route));
    }

    /// Makes routes known; up to 512 in one frame, so that the halves of a split appear together.
    pub fn publish_all(&self, routes: &[Route]) {
        if let Some(route) = routes.iter().find(|route| route.members.len() > MEMBERS_MAX) {
            tracing::error!(partition = %route.partition, "route with too many members not published");
            return;
        }
        for routes in routes.chunks(PUSH_ROUTES_MAX) {
            let body = encode_push(routes);
            for &to in &self.nodes {
                let kind = FrameKind::MemdsPush;
                self.transport.send(Frame::new(kind, self.from, to, PartitionId(0), body.clone()));
            }
        }
    }
}
