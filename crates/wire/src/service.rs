//! Where a router meets a storage node. In one process the join is a direct call: no socket, no
//! copy, no task. Between machines the same calls travel as peer frames and the answer is
//! [`Answer::Later`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::ids::{CommandId, NodeId, PartitionId, TableId, Version, Zone};
use crate::placement::PlacementRange;
use crate::resp::Reply;

/// A future on the heap; the seam is crossed by `dyn`, so its futures have no other shape.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// How new a route is. Ordered: a greater one replaces a smaller one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct RouteVersion {
    /// Raised by every change of the partition's range or membership.
    pub epoch: u64,
    /// The leader's ballot, as one ordered number.
    pub ballot: u64,
}

/// Who serves a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// The partition.
    pub partition: PartitionId,
    /// What it holds.
    pub range: PlacementRange,
    /// How new this route is.
    pub version: RouteVersion,
    /// The node that leads the group, if one is known.
    pub leader: Option<NodeId>,
    /// All storage replicas, in ascending order of their ids.
    pub members: Vec<NodeId>,
}

/// Names a request of a router, so that a partition which has done it knows it again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RequestId {
    /// The router's life: another number each time that it starts.
    pub router: u64,
    /// The connection it is made for, by its router's number.
    pub connection: u64,
    /// Ascending there: those of a pipeline follow each other.
    pub sequence: u64,
}

/// What is to be done once, however often it is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Which request it is.
    pub id: RequestId,
    /// It was made before, and became of it nobody knows what: if it was done, then at this log index
    /// or behind. `None`: it is made for the first time.
    pub again: Option<u64>,
}

/// One command for one partition.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The row of the command table.
    pub command: CommandId,
    /// The table the session has selected.
    pub table: TableId,
    /// The partition the router believes holds the keys.
    pub partition: PartitionId,
    /// The epoch of the route the router followed.
    pub epoch: u64,
    /// The command's name and arguments, as the client sent them.
    pub args: &'a [Bytes],
    /// The connection it is made for, by its router's number; 0 if for none.
    pub origin: u64,
    /// What names it, if it writes and may have to be made again.
    pub request: Option<Request>,
    /// Since when the caller waits for data, if it can wait for them; else a command that would wait
    /// answers as if its time were up. (The clock is this process's: between machines, the time waited
    /// so far would travel.)
    pub waiting_since: Option<Instant>,
    /// Whom a script is run for; `None`: whoever may do everything and asks the router for nothing.
    pub client: Option<&'a Arc<dyn ScriptClient>>,
}

/// Several commands for one partition that happen together or not at all (EXEC), or a look at keys
/// that such commands will depend on (WATCH).
#[derive(Clone, Copy, Debug)]
pub struct Transaction<'a> {
    /// The table.
    pub table: TableId,
    /// The partition the router believes holds all the keys.
    pub partition: PartitionId,
    /// The epoch of the route the router followed.
    pub epoch: u64,
    /// What is to be done.
    pub work: Work<'a>,
    /// The connection it is made for, by its router's number; 0 if for none.
    pub origin: u64,
    /// What names it, if it writes and may have to be made again.
    pub request: Option<Request>,
    /// Whom the scripts in it are run for; see [`Call::client`].
    pub client: Option<&'a Arc<dyn ScriptClient>>,
}

/// What a [`Transaction`] does.
#[derive(Clone, Copy, Debug)]
pub enum Work<'a> {
    /// Tells of each key which write it stands at: an array of [`encode_seen`]'s replies.
    Look(&'a [Bytes]),
    /// Runs the commands, unless a watched key has changed: an array of their replies in order, or
    /// [`Reply::NullArray`] and no effect. A command that is refused stops none of the others.
    Run {
        /// The keys that must not have changed.
        watched: &'a [Watched],
        /// The commands, each with its name and arguments.
        commands: &'a [(CommandId, &'a [Bytes])],
    },
    /// The same, and behind the replies of the commands what [`Work::Look`] tells of these keys as
    /// the commands left them.
    RunThenLook {
        /// The keys that must not have changed.
        watched: &'a [Watched],
        /// The commands, each with its name and arguments.
        commands: &'a [(CommandId, &'a [Bytes])],
        /// The keys to be looked at.
        keys: &'a [Bytes],
    },
}

impl<'a> Work<'a> {
    /// The commands that it runs.
    pub fn commands(&self) -> &'a [(CommandId, &'a [Bytes])] {
        match self {
            Work::Look(_) => &[],
            Work::Run { commands, .. } | Work::RunThenLook { commands, .. } => commands,
        }
    }

    /// The keys that it watches.
    pub fn watched(&self) -> &'a [Watched] {
        match self {
            Work::Look(_) => &[],
            Work::Run { watched, .. } | Work::RunThenLook { watched, .. } => watched,
        }
    }
}

/// A key and the write that a client saw it at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watched {
    /// The key.
    pub key: Bytes,
    /// The version of its last write; `None` if there was no such key.
    pub seen: Option<Version>,
}

/// What [`Work::Look`] answers of a key: null, or the two numbers of a version.
pub fn encode_seen(seen: Option<Version>) -> Reply {
    seen.map_or(Reply::Null, |version| {
        let numbers = [version.index as i64, i64::from(version.ordinal)];
        Reply::Array(numbers.map(Reply::Integer).to_vec())
    })
}

/// The inverse of [`encode_seen`]; `None` if the reply is none of its.
pub fn decode_seen(reply: &Reply) -> Option<Option<Version>> {
    match reply {
        Reply::Null => Some(None),
        Reply::Array(numbers) => match numbers[..] {
            [Reply::Integer(index), Reply::Integer(ordinal)] => {
                let ordinal = u32::try_from(ordinal).ok()?;
                Some(Some(Version { index: index as u64, ordinal }))
            }
            _ => None,
        },
        _ => None,
    }
}

/// What became of a [`Call`] or a [`Transaction`].
pub enum Answer {
    /// Evaluated here and now. The reply may be sent once `gate` is open (at once if `None`).
    Done {
        /// The reply.
        reply: Reply,
        /// What must be durable before the reply may leave.
        gate: Option<Gate>,
    },
    /// Done by an earlier attempt ([`Request::again`]), and the reply is not kept. What must be durable
    /// before it may leave.
    DoneBefore(Option<Gate>),
    /// Not evaluated: this node does not lead the partition (or does not hold it). The newest route
    /// that the node knows, if it knows one.
    NotHere(Option<Route>),
    /// Not evaluated: no leader has a live lease yet, or the node is stopping. Try again within
    /// the request's deadline.
    NotYet,
    /// Not evaluated: writes arrive faster than they can be stored; wait this long and try again.
    Busy(Duration),
    /// Evaluated, and there is nothing yet: the leader keeps the call until there is.
    Waits(Box<Waiting>),
    /// The call travels; the answer comes later. Never resolves to another `Later`.
    Later(BoxFuture<Answer>),
}

/// A call that its partition's leader keeps, in line with others that wait for the same keys, until
/// there is something to answer.
///
/// *Exactly once.* Whoever takes `claim` decides: the leader takes it before it serves the call,
/// the caller before it gives up (at the timeout, or because the client has gone). What the leader
/// takes for a call therefore always reaches somebody who still waits for it.
pub struct Waiting {
    /// The line to call with if the wait ends without an answer: what stood for the state of the
    /// moment is filled in.
    pub args: Arc<[Bytes]>,
    /// What must be durable for `args` to be true; until then, the line as it was sent is.
    pub gate: Option<Gate>,
    /// [`Call::waiting_since`] of the call.
    pub since: Instant,
    /// How long the client wants to wait, from then on; `None` is for ever.
    pub timeout: Option<Duration>,
    /// Taken by who ends the wait.
    pub claim: Arc<Claim>,
    /// Resolves to the answer, or to `None` if this leader can keep the call no longer (it lost its
    /// lead, or the node stops): the call is to be made again, somewhere else most likely.
    ///
    /// *Cancel safety*: dropping the future takes the call out of its line.
    pub served: BoxFuture<Option<Served>>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Waiting { gate, timeout, claim, .. } = self;
        f.debug_struct("Waiting")
            .field("gate", gate)
            .field("timeout", timeout)
            .field("claim", claim)
            .finish_non_exhaustive()
    }
}

/// What a call that waited is answered; see [`Answer::Done`].
#[derive(Debug)]
pub struct Served {
    /// The reply.
    pub reply: Reply,
    /// What must be durable before the reply may leave. Should it be lost, the call was not served.
    pub gate: Option<Gate>,
}

/// Something that one of several takes, once.
#[derive(Default, Debug)]
pub struct Claim(AtomicBool);

impl Claim {
    /// True for whoever comes first, and for nobody after.
    pub fn take(&self) -> bool {
        !self.0.swap(true, AcqRel)
    }

    /// Whether somebody has taken it.
    pub fn is_taken(&self) -> bool {
        self.0.load(Acquire)
    }
}

/// A call of several that was done; see [`Answer::Done`].
#[derive(Debug)]
pub struct Evaluated {
    /// The reply.
    pub reply: Reply,
    /// What must be durable before the reply may leave.
    pub gate: Option<Gate>,
    /// How long the evaluation took.
    pub took: Duration,
}

/// A position in a group's log that a reply waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Gate {
    /// The node that evaluated the command.
    pub node: NodeId,
    /// The partition.
    pub partition: PartitionId,
    /// The log index that must be applied.
    pub index: u64,
    /// Identifies the batch proposed at that index, so that another leader's value at the same
    /// index is not taken for it.
    pub batch: u64,
}

/// How a wait for a [`Gate`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GateOutcome {
    /// The batch is chosen: durable on a quorum.
    Durable,
    /// Another value was chosen at this index: the command did not and will not happen.
    Lost,
    /// The deadline passed, or the node stopped, before the outcome was known.
    Unknown,
}

/// The storage nodes as a router sees them.
pub trait StorageService: Send + Sync + 'static {
    /// Has `node` evaluate a command.
    ///
    /// Calls of one connection to one partition are evaluated in the order they are made. One that
    /// waits for data stands behind all that wait for them already, but for those that have waited
    /// a shorter time ([`Call::waiting_since`]).
    fn call(&self, node: NodeId, call: Call<'_>) -> Answer;

    /// Has `node` evaluate commands for one partition, of pipelines, one after the other: what was
    /// done is added to `done`. Returns the first answer that is none of `Done`, as the call after
    /// those got it; the calls behind it are not made. `None`: all made were done; those at the end
    /// may not have been made if replies grew large, at least one was.
    fn call_all(
        &self,
        node: NodeId,
        calls: &[Call<'_>],
        done: &mut Vec<Evaluated>,
    ) -> Option<Answer>;

    /// Has `node` evaluate a transaction: like [`StorageService::call`], and nobody sees a part of it.
    fn transact(&self, node: NodeId, transaction: Transaction<'_>) -> Answer;

    /// Waits until the gate opens, at most until `timeout` has passed (and a tick of the node's clock:
    /// 20 ms).
    ///
    /// *Cancel safety*: dropping the future forgets the wait and changes nothing else.
    fn wait(&self, gate: Gate, timeout: Duration) -> BoxFuture<GateOutcome>;

    /// What became of what a node proposed at a gate, if whoever leads the partition now knows:
    /// chosen, or lost for good.
    fn outcome(&self, gate: Gate) -> Option<GateOutcome>;

    /// Does something about the scripts of all nodes.
    fn scripts(&self, control: ScriptControl<'_>) -> Reply;

    /// The scripts that have run for so long that others are told BUSY, by the table they hold.
    fn busy_scripts(&self) -> Vec<(TableId, BusyScript)> {
        Vec::new()
    }

    /// How many scripts and functions there are.
    fn script_counts(&self) -> ScriptCounts;

    /// Sets how values are kept from now on.
    fn shape(&self, _shapes: ValueShapes) {}

    /// Has what expires stay where it is, though hidden, until a time in ms since the epoch (CLIENT PAUSE).
    fn keep_expired_until(&self, _at_ms: u64) {}

    /// What each storage node says of itself and its partitions, for INFO and ADMIN.
    fn status(&self) -> Vec<NodeStatus>;

    /// How far each replica of a partition has applied its group's log, by node: of the nodes that run.
    fn applied(&self, partition: PartitionId) -> Vec<(NodeId, u64)> {
        let nodes = self.status().into_iter().filter(|node| node.running);
        let replicas = nodes
            .flat_map(|node| node.replicas.into_iter().map(move |replica| (node.node, replica)));
        let of_partition = replicas.filter(|(_, replica)| replica.partition == partition);
        of_partition.map(|(node, replica)| (node, replica.applied_index)).collect()
    }

    /// How many nodes run.
    fn running_nodes(&self) -> usize {
        self.status().iter().filter(|node| node.running).count()
    }

    /// Does what an operator wants of a group, and resolves when that is done. Errors are texts for the
    /// operator.
    fn order(&self, order: Order) -> BoxFuture<Result<(), String>>;

    /// Injects a fault into this process. Errors are texts for the operator.
    fn fault(&self, fault: NodeFault) -> Result<(), String>;
}

/// Whom a script is run for, as the leader that runs it sees them: what their rules allow, and what
/// their router answers. It is a value as of the script's start and keeps no connection busy.
///
/// *A script may be run again from its start*, so nothing here but [`ScriptClient::done`] changes
/// anything that counts. (A key that is noted twice is noted.)
pub trait ScriptClient: Send + Sync + std::fmt::Debug {
    /// Whether the rules let a command line run.
    ///
    /// *Errors*: the refusal that the script is told.
    fn check(&self, command: CommandId, args: &[Bytes]) -> Result<(), Reply>;

    /// The same for who asks without running it (`redis.acl_check_cmd`).
    fn may_run(&self, command: CommandId, args: &[Bytes]) -> bool;

    /// Takes note of a command that is about to read its keys, for a client that caches what it reads.
    fn reads(&self, command: CommandId, args: &[Bytes]);

    /// Whether [`ScriptClient::answer`] asks storage nodes for it: not to be called under a
    /// partition's lock then.
    fn asks_nodes(&self, command: CommandId) -> bool;

    /// Answers a command that no partition has a part in.
    fn answer(&self, command: CommandId, args: &[Bytes]) -> Reply;

    /// The table of a database that SELECT, COPY or MOVE names.
    fn table(&self, database: TableId) -> TableId;

    /// How many would be sent a message on a channel now.
    fn receivers(&self, sharded: bool, channel: &[u8]) -> usize;

    /// Whether somebody is shown each command (MONITOR).
    fn is_watched(&self) -> bool;

    /// Takes account of a script that has ended.
    fn done(&self, account: &ScriptAccount);
}

/// What a script did that its router keeps account of.
#[derive(Clone, Default, Debug)]
pub struct ScriptAccount {
    /// How often it ran which command.
    pub counts: Vec<ScriptCount>,
    /// The lines of errors that its commands were answered, as often as they were; the first ones.
    pub errors: Vec<Bytes>,
    /// The command lines that the rules did not let run; the first ones.
    pub denied: Vec<(CommandId, Vec<Bytes>)>,
    /// The command lines that were run, and on which table, if somebody is shown them; the first ones.
    pub lines: Vec<(TableId, CommandId, Vec<Bytes>)>,
}

/// How often a script ran a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScriptCount {
    /// The command.
    pub command: CommandId,
    /// Times that it was run.
    pub calls: u64,
    /// Of these, those that ended with an error.
    pub failed: u64,
    /// Times that it was refused before it was run.
    pub rejected: u64,
    /// How long it ran in all.
    pub took: Duration,
}

/// What a router asks about the scripts of all nodes.
#[derive(Clone, Copy, Debug)]
pub enum ScriptControl<'a> {
    /// Makes a script known (SCRIPT LOAD): its SHA-1.
    Load(&'a Bytes),
    /// Which of these SHA-1s are known (SCRIPT EXISTS): 1 or 0 each.
    Exists(&'a [Bytes]),
    /// Forgets all scripts (SCRIPT FLUSH).
    Flush,
    /// Ends the scripts (SCRIPT KILL) or the functions (FUNCTION KILL) that run.
    Kill {
        /// Whether functions are meant.
        functions: bool,
    },
    /// Which function runs, and how many there are (FUNCTION STATS).
    FunctionStats,
    /// Whether a script says that it does not write: 1 or 0.
    IsReadOnly(ScriptName<'a>),
    /// Sets what scripts may use.
    Limits(ScriptLimits),
    /// Says whether scripts may run what is not for them, as far as they can (DEBUG); a test's need.
    AllowAll(bool),
}

/// What a script is called by.
#[derive(Clone, Copy, Debug)]
pub enum ScriptName<'a> {
    /// Its text (EVAL).
    Text(&'a [u8]),
    /// Its SHA-1 (EVALSHA).
    Sha(&'a [u8]),
    /// The name of a function (FCALL).
    Function(&'a [u8]),
}

/// What scripts may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScriptLimits {
    /// Milliseconds after which others are told that a script is busy; 0: never.
    pub busy_reply_ms: u64,
    /// Bytes of memory that one Lua state may use.
    pub memory_bytes_max: u64,
    /// How many tables SELECT knows.
    pub tables: u32,
}

impl Default for ScriptLimits {
    fn default() -> ScriptLimits {
        ScriptLimits { busy_reply_ms: 5_000, memory_bytes_max: 256 << 20, tables: 16 }
    }
}

/// What keeps a table busy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BusyScript {
    /// EVAL or its kin.
    Script,
    /// FCALL or its kin.
    Function,
}

/// What may be set of how values are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ValueShapes {
    /// Entries of a stream that trimming with `~` lets go only together (`stream-node-max-entries`); 0:
    /// each goes by itself.
    pub stream_node_entries: u64,
    /// Bytes from which on a HyperLogLog is dense (`hll-sparse-max-bytes`).
    pub sparse_bytes_max: u64,
    /// RESTORE looks at a payload's checksum; DEBUG SET-SKIP-CHECKSUM-VALIDATION has it trust the payload
    /// to be whole, so that what else is checked can be tested.
    pub checks_payloads: bool,
}

impl Default for ValueShapes {
    fn default() -> ValueShapes {
        ValueShapes { stream_node_entries: 100, sparse_bytes_max: 3_000, checks_payloads: true }
    }
}

/// How many scripts and functions there are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ScriptCounts {
    /// Scripts known by their SHA-1.
    pub scripts: u64,
    /// Scripts that had to go since the start, because others came.
    pub evicted_scripts: u64,
    /// Libraries of functions.
    pub libraries: u64,
    /// Functions.
    pub functions: u64,
}

/// A fault to inject into this process (`ADMIN FAULT …`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeFault {
    /// Stop the node as a crash would: nothing is flushed, volatile state is gone.
    Stop(NodeId),
    /// Start a stopped node again from its disk.
    Start(NodeId),
    /// Have the node stand still: nothing of it proceeds, until resumed.
    Pause(NodeId),
    /// Have a paused node go on.
    Resume(NodeId),
    /// Set the node's wall clock ahead by so many milliseconds, or behind if negative.
    Clock(NodeId, i64),
    /// Have the node keep what has expired, hidden as it is, or delete it again.
    KeepExpired(NodeId, bool),
    /// Have the node's disk misbehave, or behave again.
    Disk(NodeId, DiskFault),
    /// Change a byte of the node's log, or of one of its tables; the number chooses which.
    Corrupt(NodeId, Stored, u64),
    /// Stop the node and delete its folder.
    Wipe(NodeId),
    /// Have a thread panic in the middle of a change: the node stops, and is started again soon.
    Panic(NodeId),
    /// Drop all frames between two nodes.
    Cut(NodeId, NodeId),
    /// Let frames pass between all nodes, and at once.
    Join,
    /// Have each frame take so much longer.
    Delay(Duration),
}

/// What a node's disk does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskFault {
    /// What it should.
    None,
    /// It answers writes and syncs with an error.
    Error,
    /// It has no space left.
    Full,
    /// Each sync takes so much longer.
    Slow(Duration),
}

/// What a node has on its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    /// The log.
    Log,
    /// Tables of rows.
    Table,
}

/// What an operator wants of a partition's group (`ADMIN REPLICA …`, `ADMIN TRANSFER …`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// What only the logs hold is to be written to tables, on all nodes.
    Flush,
    /// A replica on another node.
    AddReplica {
        /// The partition.
        partition: PartitionId,
        /// The node.
        node: NodeId,
        /// With a log only.
        log: bool,
    },
    /// A replica goes.
    RemoveReplica {
        /// The partition.
        partition: PartitionId,
        /// The node it is on.
        node: NodeId,
    },
    /// Another node is to lead.
    Transfer {
        /// The partition.
        partition: PartitionId,
        /// The node.
        node: NodeId,
    },
}

/// What a storage node says of itself.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Its zone.
    pub zone: Zone,
    /// False if it is stopped.
    pub running: bool,
    /// Bytes of effects that fjall does not hold yet.
    pub memtable_bytes: u64,
    /// Bytes of records that wait for its disk.
    pub unsynced_bytes: u64,
    /// Proposals and chosen entries of peers that it did not take, since its disk was behind.
    pub frames_refused: u64,
    /// Bytes of its log segments in use.
    pub wal_bytes: u64,
    /// Batches that its log made durable.
    pub wal_syncs: u64,
    /// Entries written to its log.
    pub wal_entries: u64,
    /// Bytes of its LSM on disk.
    pub lsm_bytes: u64,
    /// Memtables frozen but not yet ingested.
    pub frozen_memtables: u64,
    /// Level-0 runs of the LSM.
    pub level0_runs: u64,
    /// It stands still (`ADMIN FAULT PAUSE`).
    pub paused: bool,
    /// A stored row failed its checksum: the node is about to fetch all rows anew.
    pub rows_damaged: bool,
    /// Entries of its log that were damaged when it started; peers repair them.
    pub damaged_entries: u64,
    /// Snapshots it gave to others since it started.
    pub snapshots_given: u64,
    /// Snapshots it took in since it started.
    pub snapshots_installed: u64,
    /// Bytes of snapshots it fetched since it started.
    pub snapshot_bytes: u64,
    /// Frames it sent to other storage nodes since it started.
    pub frames_sent: u64,
    /// Its replicas.
    pub replicas: Vec<ReplicaStatus>,
}

impl NodeStatus {
    /// The status of a node that does not run.
    pub fn stopped(node: NodeId, zone: Zone) -> NodeStatus {
        NodeStatus {
            node,
            zone,
            running: false,
            memtable_bytes: 0,
            unsynced_bytes: 0,
            frames_refused: 0,
            wal_bytes: 0,
            wal_syncs: 0,
            wal_entries: 0,
            lsm_bytes: 0,
            frozen_memtables: 0,
            level0_runs: 0,
            paused: false,
            rows_damaged: false,
            damaged_entries: 0,
            snapshots_given: 0,
            snapshots_installed: 0,
            snapshot_bytes: 0,
            frames_sent: 0,
            replicas: Vec::new(),
        }
    }
}

/// What a replica says of itself.
#[derive(Clone, Debug)]
pub struct ReplicaStatus {
    /// The partition.
    pub partition: PartitionId,
    /// Its range.
    pub range: PlacementRange,
    /// Which of the group's replicas it is: such a number never returns.
    pub identity: u32,
    /// `storage` or `log`.
    pub kind: &'static str,
    /// Its rows are being fetched from another replica.
    pub installing: bool,
    /// `leader`, `follower` or `candidate`.
    pub role: &'static str,
    /// Who leads, as this replica believes.
    pub leader: Option<NodeId>,
    /// The ballot it promised, as one ordered number.
    pub ballot: u64,
    /// The highest index in its log.
    pub last_index: u64,
    /// Entries up to this index are gone from its log.
    pub truncated_index: u64,
    /// The highest index it applied.
    pub applied_index: u64,
    /// The highest index its LSM holds durably.
    pub flushed_index: u64,
    /// Keys, exact at the leader.
    pub keys: u64,
    /// Keys with a time to live.
    pub volatile_keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Keys this replica deleted because their time had come, while it led, since its node
    /// started.
    pub expired_keys: u64,
    /// Fields of hashes likewise.
    pub expired_fields: u64,
    /// Keys that flushes hid and collections that were deleted, by this replica since its node started:
    /// what they take is given back later.
    pub freed_later: u64,
    /// Commands, transactions and scripts that changed something while this replica led, since its node
    /// started.
    pub changes: u64,
    /// Times this replica campaigned since its node started.
    pub elections: u64,
    /// Times it became the leader since then.
    pub leaderships: u64,
    /// Keys that calls wait for at this leader.
    pub awaited_keys: u64,
    /// Of these, those whose disappearance some of the calls wait for, too.
    pub awaited_keys_or_gone: u64,
}
