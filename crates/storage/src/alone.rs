//! A node that is all there is of its cluster, for tests that look inside one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commands::table;
use tempfile::TempDir;
use wire::ids::{NodeId, PartitionId, TableId, Zone};
use wire::peer::LocalTransport;
use wire::placement::PlacementRange;
use wire::resp::Reply;
use wire::service::{Answer, Call, GateOutcome};

use crate::driver::Shared;
use crate::node::{Node, NodeOptions, Surroundings};
use crate::partition::Partition;
use crate::recover::Assignment;

/// The only partition.
pub(crate) const PARTITION: PartitionId = PartitionId(1);
/// Nothing takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// See the module's text.
pub(crate) struct Alone {
    pub(crate) node: Node,
    /// What it sends goes through this.
    pub(crate) transport: Arc<LocalTransport>,
    runtime: tokio::runtime::Runtime,
    /// Goes last.
    _dir: TempDir,
}

impl Alone {
    /// A new node, which leads its partition.
    pub(crate) fn open(options: NodeOptions) -> Alone {
        let alone = Alone::among(options, &[NodeId(1)]);
        alone.node.campaign(PARTITION);
        alone.until("it leads", || alone.node.leads(PARTITION));
        alone
    }

    /// A new node that hears of nobody: it leads nothing and applies nothing.
    pub(crate) fn unheard(options: NodeOptions) -> Alone {
        Alone::among(options, &[1, 2, 3].map(NodeId))
    }

    fn among(options: NodeOptions, members: &[NodeId]) -> Alone {
        let dir = tempfile::tempdir().expect("a folder");
        let id = NodeId(1);
        let transport = Arc::<LocalTransport>::default();
        let surroundings = Surroundings {
            transport: transport.clone(),
            publish: Arc::new(|_| {}),
            faults: Arc::default(),
        };
        let range = PlacementRange::whole(TableId(0));
        let assignment = Assignment { partition: PARTITION, range, members: members.to_vec() };
        let zone = Zone("zone".into());
        let node = Node::open(id, zone, dir.path(), options, &[assignment], surroundings);
        let node = node.expect("an empty folder");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        Alone { node, transport, runtime: runtime.expect("a runtime"), _dir: dir }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        self.node.shared()
    }

    pub(crate) fn partition(&self) -> Arc<Partition> {
        let partitions = self.shared().partitions.read();
        Arc::clone(partitions.get(&PARTITION).expect("it holds the partition"))
    }

    /// What the node answers to a command, its gate waited for; `None` if it does not take it.
    pub(crate) fn run(&self, words: &[&str]) -> Option<Reply> {
        let args: Vec<_> =
            words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        let command = table::lookup(&args[0]).expect("a command").id;
        let (table, partition, args) = (TableId(0), PARTITION, &args[..]);
        let call = Call {
            command,
            table,
            partition,
            epoch: 1,
            args,
            waiting_since: None,
            origin: 0,
            request: None,
            client: None,
        };
        let Answer::Done { reply, gate } = self.node.call(call) else { return None };
        let Some(gate) = gate else { return Some(reply) };
        let outcome = self.runtime.block_on(self.node.wait(gate, PATIENCE));
        (outcome == GateOutcome::Durable).then_some(reply)
    }

    /// Waits until a condition holds.
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "not yet: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
