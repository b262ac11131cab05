//! A node that is all there is of its cluster, for tests that look inside one: with threads, or without.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commands::table;
use tempfile::TempDir;
use wire::ids::{NodeId, PartitionId, TableId, Zone};
use wire::peer::LocalTransport;
use wire::placement::PlacementRange;
use wire::resp::Reply;
use wire::service::{Answer, Call, Gate, GateOutcome};

use crate::core::Evaluated;
use crate::driver::Shared;
use crate::node::{Node, NodeOptions, Surroundings};
use crate::partition::Partition;
use crate::recover::Assignment;
use crate::stepped::Stepped;

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
        let (id, zone) = (NodeId(1), Zone("zone".into()));
        let transport = Arc::<LocalTransport>::default();
        let (around, assignment) = (surroundings(&transport), assignment(members));
        let node = Node::open(id, zone, dir.path(), options, &[assignment], around);
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
        let args = bytes_of(words.iter().copied());
        let Answer::Done { reply, gate } = self.node.call(call(&args)) else { return None };
        let Some(gate) = gate else { return Some(reply) };
        (self.outcome(gate) == GateOutcome::Durable).then_some(reply)
    }

    /// Evaluates a command that writes.
    pub(crate) fn begin(&self, words: &[&str]) -> Gate {
        let args = bytes_of(words.iter().copied());
        let Answer::Done { gate: Some(gate), .. } = self.node.call(call(&args)) else {
            panic!("it leads, and waits for the disk");
        };
        gate
    }

    /// What becomes of a write.
    pub(crate) fn outcome(&self, gate: Gate) -> GateOutcome {
        self.runtime.block_on(self.node.wait(gate, PATIENCE))
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

/// A node that does nothing of itself, and leads its partition.
pub(crate) fn leading(dir: &Path, options: NodeOptions) -> Stepped {
    let (id, zone) = (NodeId(1), Zone("zone".into()));
    let around = surroundings(&Arc::default());
    let node = Stepped::open(id, zone, dir, options, &[assignment(&[id])], around);
    let mut node = node.expect("an empty folder");
    node.node().campaign(PARTITION);
    sync(&mut node);
    assert!(node.node().leads(PARTITION));
    node
}

/// Brings to the disk what somebody waits for.
pub(crate) fn sync(node: &mut Stepped) {
    while node.wants().log {
        node.begin_sync();
        node.end_sync();
    }
}

/// What a leader makes of a command of words with spaces between, by a client that can wait.
pub(crate) fn evaluate(node: &Stepped, words: &str) -> Evaluated {
    let shared = node.node().shared();
    let partition = shared.replica(PARTITION, paxos::NodeId(1)).expect("it is here");
    let args = bytes_of(words.split(' '));
    let entry = table::lookup(&args[0]).expect("a command");
    let call = Call { waiting_since: Some(Instant::now()), ..call(&args) };
    partition.lock().evaluate(entry, &call, shared.now(), (&shared.lsm, true))
}

fn surroundings(transport: &Arc<LocalTransport>) -> Surroundings {
    let (transport, publish) = (transport.clone(), Arc::new(|_| {}));
    Surroundings { transport, publish, faults: Arc::default() }
}

fn assignment(members: &[NodeId]) -> Assignment {
    let range = PlacementRange::whole(TableId(0));
    Assignment { partition: PARTITION, range, members: members.to_vec() }
}

fn bytes_of<'a>(words: impl Iterator<Item = &'a str>) -> Vec<Bytes> {
    words.map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

fn call(args: &[Bytes]) -> Call<'_> {
    Call {
        command: table::lookup(&args[0]).expect("a command").id,
        table: TableId(0),
        partition: PARTITION,
        epoch: 1,
        args,
        waiting_since: None,
        origin: 0,
        request: None,
        client: None,
    }
}
