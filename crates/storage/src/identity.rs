//! Who a replica is.
//!
//! ```text
//! identity (24 bits) = generation (14) | node (10)
//! group in the log   = generation (16 bits) | partition (48 bits)
//! ```
//!
//! A group's replicas have identities that never return: an acceptor that lost its memory must not
//! vote under the name that once promised. A node may come and go as often as it likes: each time it
//! gets the lowest identity of its own above all that the group ever had. So the node can be read off
//! an identity, and nobody has to keep a table of them; the first replicas (generation 0) are named as
//! their nodes are. In a node's log each identity has a group of its own, so that what a replica of
//! before accepted is never taken for what one of today did.

use wire::ids::{NodeId, PartitionId};

const NODE_BITS: u32 = 10;
const GENERATION_BITS: u32 = 14;
const PARTITION_BITS: u32 = 48;
/// The highest number of a storage node.
pub const NODE_MAX: u32 = (1 << NODE_BITS) - 1;

/// The node that a replica is on.
pub(crate) fn node_of(replica: paxos::NodeId) -> NodeId {
    NodeId(replica.0 & NODE_MAX)
}

/// The identity of a node's first replica of any group.
///
/// *Panics* if the node's number is above [`NODE_MAX`].
pub(crate) fn first(node: NodeId) -> paxos::NodeId {
    assert!(node.0 <= NODE_MAX, "storage nodes have numbers up to {NODE_MAX}");
    paxos::NodeId(node.0)
}

/// The lowest identity of a node above one; `None` if there is none left.
pub(crate) fn next(node: NodeId, above: paxos::NodeId) -> Option<paxos::NodeId> {
    let same = above.0 & !NODE_MAX | node.0;
    let next = if same > above.0 { same } else { same + NODE_MAX + 1 };
    (next >> NODE_BITS < 1 << GENERATION_BITS).then_some(paxos::NodeId(next))
}

/// The group of a replica in its node's log.
pub(crate) fn log_group(partition: PartitionId, replica: paxos::NodeId) -> u64 {
    assert!(partition.0 < 1 << PARTITION_BITS, "partitions have numbers of 48 bits");
    u64::from(replica.0 >> NODE_BITS) << PARTITION_BITS | partition.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_ascend_and_name_their_node() {
        let (one, five) = (NodeId(1), NodeId(5));
        assert_eq!(first(one).0, 1);
        let mut newest = paxos::NodeId(3);
        for node in [five, one, one, five, NodeId(3)] {
            let next = next(node, newest).expect("far from the last");
            assert!(next > newest && node_of(next) == node);
            newest = next;
        }
        assert_eq!(newest.0 >> NODE_BITS, 3, "5; then 1; 1 and 5; 3");
        assert_eq!(next(one, paxos::NodeId((1 << 24) - 1)), None);
        assert_eq!(log_group(PartitionId(7), first(one)), 7);
        assert_ne!(log_group(PartitionId(7), newest), log_group(PartitionId(7), first(five)));
    }
}
