//! Storage nodes in one process over real files, and commands run wherever they are taken.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use commands::table;
use storage::{Assignment, Faults, LocalNodes, Node, NodeOptions, NodeSeat, Surroundings};
use wire::ids::{CommandId, NodeId, PartitionId, TableId, Version, Zone};
use wire::peer::{Frame, Kind, LocalTransport, Transport};
use wire::placement::PlacementRange;
use wire::resp::Reply;
use wire::service::{
    Answer, Call, Gate, GateOutcome, Order, Request, StorageService, Transaction, Watched, Work,
    decode_seen,
};

/// The only partition.
pub const PARTITION: PartitionId = PartitionId(1);
/// Nothing takes longer, on however busy a disk: what does, hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The nodes, all of which hold the one partition of table 0.
pub struct Cluster {
    pub nodes: Arc<LocalNodes>,
    pub ids: Vec<NodeId>,
    runtime: tokio::runtime::Runtime,
    pub leader: Mutex<NodeId>,
    pub transport: Arc<LocalTransport>,
    /// What nodes send each other through.
    pub lossy: Arc<Lossy>,
    /// The epochs of the routes that were published, in order.
    pub epochs: Arc<Mutex<Vec<u64>>>,
    /// Threads that sent chosen entries, and how many messages.
    pub chosen_sent_by: Arc<Mutex<BTreeMap<String, usize>>>,
    /// What nodes told each other of replicas of late, the newest last.
    pub told: Arc<Mutex<VecDeque<Frame>>>,
}

/// Tells threads that load something to end, also when the test fails: else its scope waits for them
/// for ever.
pub struct StopsOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopsOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Frames that are kept in [`Cluster::told`].
const TOLD_MAX: usize = 1_000;

/// Notes who sends what.
struct Noting {
    inner: Arc<Lossy>,
    chosen_sent_by: Arc<Mutex<BTreeMap<String, usize>>>,
    told: Arc<Mutex<VecDeque<Frame>>>,
}

impl Transport for Noting {
    fn send(&self, to: NodeId, frame: Frame) {
        /// The number of a message with chosen entries.
        const CHOSEN: u8 = 11;
        if frame.kind == Kind::Paxos && frame.body()[1] == CHOSEN {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("?").to_owned();
            *self.chosen_sent_by.lock().unwrap().entry(name).or_default() += 1;
        }
        /// The number of a part of a snapshot: those are large.
        const CHUNK: u8 = 8;
        if frame.kind == Kind::Replica && frame.body()[1] != CHUNK {
            let mut told = self.told.lock().unwrap();
            told.push_back(frame.clone());
            if told.len() > TOLD_MAX {
                told.pop_front();
            }
        }
        self.inner.send(to, frame);
    }
}

/// A transport that loses what it is told to lose.
#[derive(Default)]
pub struct Lossy {
    inner: Arc<LocalTransport>,
    /// Bytes whose frames get lost.
    pub loses: Mutex<Option<&'static [u8]>>,
    /// Heartbeats between nodes get lost.
    pub loses_beats: AtomicBool,
}

impl Transport for Lossy {
    fn send(&self, to: NodeId, frame: Frame) {
        let is_lost =
            self.loses.lock().unwrap().is_some_and(|bytes| {
                frame.body().windows(bytes.len()).any(|window| window == bytes)
            });
        let loses_beats = self.loses_beats.load(Ordering::Relaxed);
        if !(is_lost || loses_beats && frame.kind == Kind::Heartbeat) {
            self.inner.send(to, frame);
        }
    }
}

impl Cluster {
    /// Opens the nodes. If they are new the first campaigns, and somebody leads from then on.
    pub fn open(dir: &Path, replicas: u32, options: &NodeOptions) -> Cluster {
        Cluster::with_spares(dir, replicas, 0, options)
    }

    /// The same, and so many nodes more that hold nothing at first.
    pub fn with_spares(dir: &Path, replicas: u32, spares: u32, options: &NodeOptions) -> Cluster {
        // RUST_LOG=info shows what the nodes do; each test sets it up, the first one does.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let transport = Arc::new(LocalTransport::default());
        let lossy = Arc::new(Lossy { inner: transport.clone(), ..Lossy::default() });
        let ids: Vec<_> = (1..=replicas + spares).map(NodeId).collect();
        let zone = |id: &NodeId| Zone(format!("zone-{id}"));
        let known = ids.iter().map(|id| (*id, zone(id))).collect();
        let options = NodeOptions { nodes: known, ..options.clone() };
        let assignments: Arc<[_]> = Arc::new([Assignment {
            partition: PARTITION,
            range: PlacementRange::whole(TableId(0)),
            members: ids[..replicas as usize].to_vec(),
        }]);
        let epochs = Arc::new(Mutex::new(Vec::new()));
        let chosen_sent_by = Arc::default();
        let told = Arc::default();
        let noting = Arc::new(Noting {
            inner: lossy.clone(),
            chosen_sent_by: Arc::clone(&chosen_sent_by),
            told: Arc::clone(&told),
        });
        let (scripting, shapes) = (Arc::clone(&options.scripting), Arc::clone(&options.shapes));
        let mut nodes = LocalNodes::new(vec![PARTITION], scripting, shapes);
        for id in ids.clone() {
            let (zone, folder) = (zone(&id), dir.join(format!("node-{id}")));
            let faults = Arc::new(Faults::default());
            let open = {
                let (zone, folder, faults) = (zone.clone(), folder.clone(), faults.clone());
                let (transport, options, epochs) =
                    (transport.clone(), options.clone(), epochs.clone());
                let noting = noting.clone();
                move |assignments: &[Assignment]| {
                    let epochs = epochs.clone();
                    let surroundings = Surroundings {
                        transport: noting.clone() as Arc<dyn Transport>,
                        publish: Arc::new(move |route| {
                            epochs.lock().unwrap().push(route.version.epoch);
                        }),
                        faults: faults.clone(),
                    };
                    let (zone, options) = (zone.clone(), options.clone());
                    let node = Node::open(id, zone, &folder, options, assignments, surroundings)?;
                    transport.register(id, node.frame_handler());
                    Ok(node)
                }
            };
            let (assignments, open) = (assignments.clone(), Box::new(open));
            let seat = NodeSeat { zone, folder, assignments, faults, open };
            nodes.add(id, seat);
        }
        for (id, error) in nodes.open() {
            nodes.start(id).unwrap_or_else(|again| panic!("{error}, and then {again}"));
        }
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (nodes, leader) = (Arc::new(nodes), Mutex::new(NodeId(1)));
        let cluster =
            Cluster { nodes, ids, runtime, leader, transport, lossy, epochs, chosen_sent_by, told };
        cluster.begin();
        cluster
    }

    /// Has the first node of new ones campaign, and waits for its lease: before, a quorum confirms what is
    /// read.
    fn begin(&self) {
        let node = |id: NodeId| self.nodes.node(id);
        let first = node(NodeId(1)).expect("just added");
        if first.is_blank(PARTITION) {
            first.campaign(PARTITION);
            let leads = |id: &NodeId| node(*id).is_some_and(|node| node.leads(PARTITION));
            self.until("somebody leads", || self.ids.iter().any(leads));
        }
    }

    /// Does what an operator wants, and waits until that is done.
    pub fn order(&self, order: Order) -> Result<(), String> {
        self.runtime.block_on(self.nodes.order(order))
    }

    /// Has a node that leads change the members, and waits until that is done.
    pub fn change(&self, node: NodeId, change: storage::Change) -> Result<(), String> {
        let node = self.nodes.node(node).expect("it runs");
        let changed = node.change_members(PARTITION, change);
        drop(node);
        self.runtime.block_on(changed)
    }

    /// The newest thing of a kind that was told of replicas to a node, if any was.
    pub fn last_told(&self, kind: u8, to: NodeId) -> Option<Frame> {
        let told = self.told.lock().unwrap();
        let is_it = |frame: &&Frame| frame.to == to && frame.body()[1] == kind;
        told.iter().rev().find(is_it).cloned()
    }

    /// Waits until a condition holds, looking after the nodes meanwhile.
    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            let status = self.replicas();
            assert!(Instant::now() < deadline, "{what}: not yet, {status:?}");
            self.nodes.tend();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The replicas there are: nodes, kinds, indexes applied.
    pub fn replicas(&self) -> Vec<(NodeId, &'static str, u64)> {
        let nodes = self.nodes.status();
        let all = nodes
            .iter()
            .flat_map(|node| node.replicas.iter().map(|r| (node.node, r.kind, r.applied_index)));
        all.collect()
    }

    /// The nodes that hold storage replicas which have all applied the same, and log replicas; none
    /// as long as storage replicas differ.
    pub fn settled(&self) -> Option<(Vec<u32>, Vec<u32>)> {
        let replicas = self.replicas();
        let of = |kind| {
            let nodes = replicas.iter().filter(move |(_, k, _)| *k == kind);
            nodes.map(|(node, ..)| node.0).collect::<Vec<_>>()
        };
        let applied = || replicas.iter().filter(|(_, kind, _)| *kind == "storage").map(|r| r.2);
        (applied().max() == applied().min()).then(|| (of("storage"), of("log")))
    }

    /// Runs a command wherever it is taken, and waits for its gate.
    pub fn run(&self, words: &[&str]) -> Reply {
        let args = line(words);
        let command = command_of(&args);
        let reply = self.until_taken(&format!("{words:?}"), |node| {
            self.nodes.call(node, call(command, &args, None))
        });
        reply.unfold()
    }

    /// Has the leader evaluate a command; `None` if it does not. Waits for nothing.
    pub fn evaluate(&self, words: &[&str]) -> Option<(Reply, Option<Gate>)> {
        let leader = *self.leader.lock().unwrap();
        self.evaluate_at(leader, words)
    }

    /// The same at a node.
    pub fn evaluate_at(&self, node: NodeId, words: &[&str]) -> Option<(Reply, Option<Gate>)> {
        let args = line(words);
        let command = command_of(&args);
        match self.nodes.call(node, call(command, &args, None)) {
            Answer::Done { reply, gate } => Some((reply, gate)),
            _ => None,
        }
    }

    /// Has a node evaluate command lines as one; `None` if it does not. Waits for nothing.
    pub fn evaluate_together(
        &self,
        node: NodeId,
        lines: &[&[&str]],
    ) -> Option<(Reply, Option<Gate>)> {
        let lines: Vec<_> = lines.iter().map(|words| line(words)).collect();
        let commands = commands_of(&lines);
        let work = Work::Run { watched: &[], commands: &commands };
        match self.nodes.transact(node, transaction(work)) {
            Answer::Done { reply, gate } => Some((reply, gate)),
            _ => None,
        }
    }

    /// Has the leader evaluate a request; `None` if it does not. Waits for nothing.
    pub fn evaluate_request(
        &self,
        words: &[&str],
        request: Request,
    ) -> Option<(Reply, Option<Gate>)> {
        let args = line(words);
        let call = Call { request: Some(request), ..call(command_of(&args), &args, None) };
        match self.nodes.call(*self.leader.lock().unwrap(), call) {
            Answer::Done { reply, gate } => Some((reply, gate)),
            _ => None,
        }
    }

    /// Has whoever leads answer a request, and waits for its gate: the reply, `None` if it was done before
    /// and the reply is not kept; and where it was done.
    pub fn ask(&self, words: &[&str], request: Request) -> (Option<Reply>, Option<Gate>) {
        let args = line(words);
        let command = command_of(&args);
        let mut done_at = None;
        let reply = self.until_taken(&format!("{words:?}"), |node| {
            let call = Call { request: Some(request), ..call(command, &args, None) };
            match self.nodes.call(node, call) {
                Answer::DoneBefore(gate) => {
                    done_at = gate;
                    Answer::Done { reply: Reply::Status(Bytes::from("done before")), gate }
                }
                Answer::Done { reply, gate } => {
                    done_at = gate;
                    Answer::Done { reply, gate }
                }
                other => other,
            }
        });
        let is_known = reply != Reply::Status(Bytes::from("done before"));
        (is_known.then_some(reply), done_at)
    }

    /// Waits for a gate, on a thread of its own.
    pub fn wait(&self, gate: Gate) -> std::sync::mpsc::Receiver<GateOutcome> {
        let (tell, told) = std::sync::mpsc::channel();
        let waiting = self.nodes.wait(gate, PATIENCE);
        self.runtime.spawn(async move {
            // The test may have ended.
            let _ = tell.send(waiting.await);
        });
        told
    }

    /// The version of a key's last write.
    pub fn look(&self, key: &str) -> Option<Version> {
        let keys = [Bytes::copy_from_slice(key.as_bytes())];
        let reply = self.transact(Work::Look(&keys));
        let Reply::Array(seen) = &reply else { panic!("no versions: {reply:?}") };
        decode_seen(&seen[0]).expect("a version")
    }

    /// Runs command lines as one.
    pub fn exec(&self, watched: &[Watched], lines: &[&[&str]]) -> Reply {
        let lines: Vec<_> = lines.iter().map(|words| line(words)).collect();
        self.transact(Work::Run { watched, commands: &commands_of(&lines) })
    }

    fn transact(&self, work: Work<'_>) -> Reply {
        self.until_taken("transaction", |node| self.nodes.transact(node, transaction(work)))
    }

    fn until_taken(&self, what: &str, mut call: impl FnMut(NodeId) -> Answer) -> Reply {
        let deadline = Instant::now() + PATIENCE;
        let mut at = self.ids.iter().position(|id| *id == *self.leader.lock().unwrap()).unwrap();
        while Instant::now() < deadline {
            let node = self.ids[at % self.ids.len()];
            match call(node) {
                Answer::Done { reply, gate } => {
                    *self.leader.lock().unwrap() = node;
                    let Some(gate) = gate else { return reply };
                    match self.runtime.block_on(self.nodes.wait(gate, PATIENCE)) {
                        GateOutcome::Durable => return reply,
                        GateOutcome::Lost => {}
                        GateOutcome::Unknown => panic!("{what}: outcome unknown"),
                    }
                }
                _ => {
                    at += 1;
                    std::thread::yield_now();
                }
            }
        }
        panic!("{what}: nobody took it")
    }

    /// What a key holds.
    pub fn get(&self, key: &str) -> Reply {
        self.run(&["GET", key])
    }
}

/// The row of a command line.
pub fn command_of(args: &[Bytes]) -> CommandId {
    let entry = table::lookup(&args[0]).expect("a command");
    let subcommand = args.get(1).and_then(|name| table::lookup_subcommand(entry, name));
    subcommand.unwrap_or(entry).id
}

/// Command lines with their rows.
fn commands_of(lines: &[Vec<Bytes>]) -> Vec<(CommandId, &[Bytes])> {
    lines.iter().map(|line| (command_of(line), &line[..])).collect()
}

/// A transaction of the partition.
fn transaction(work: Work<'_>) -> Transaction<'_> {
    Transaction {
        table: TableId(0),
        partition: PARTITION,
        epoch: 1,
        work,
        origin: 0,
        request: None,
        client: None,
    }
}

/// A call of the partition, kept if it waits for data and since when it does is given.
pub fn call<'a>(command: CommandId, args: &'a [Bytes], waiting_since: Option<Instant>) -> Call<'a> {
    Call {
        command,
        table: TableId(0),
        partition: PARTITION,
        epoch: 1,
        args,
        waiting_since,
        origin: 0,
        request: None,
        client: None,
    }
}

/// A command line.
fn line(words: &[&str]) -> Vec<Bytes> {
    words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

/// A bulk.
pub fn text(value: &str) -> Reply {
    Reply::Bulk(Bytes::copy_from_slice(value.as_bytes()))
}

/// Options that flush soon.
pub fn small() -> NodeOptions {
    NodeOptions { memtable_bytes: 64 << 10, ..NodeOptions::default() }
}

/// Options with which a leader serves on for as long as a test takes, without followers and on a machine
/// that stands still for a while. Who wants another leader waits as long.
pub fn long_lease() -> NodeOptions {
    let mut options = small();
    options.paxos.lease = 4 * PATIENCE;
    options
}

/// Options with which a leader serves on for a few seconds without followers, and another follows soon
/// enough.
pub fn few_seconds_lease() -> NodeOptions {
    let mut options = NodeOptions::default();
    options.paxos.lease = Duration::from_secs(3);
    options
}
