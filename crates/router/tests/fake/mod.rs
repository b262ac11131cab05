//! Storage nodes in memory, which do what a test tells them: lead or not, open gates now, later or
//! never, split. Commands are evaluated by their real handlers, and MemDS is the real one.

#![allow(dead_code, unreachable_pub, reason = "each test and the example use a part of it")]

pub mod client;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use commands::types::keyspace;
use commands::{Args, MemoryView, Run, Txn, View, table};
use memds::{ClientOptions, MemdsClient, MemdsNode};
use parking_lot::Mutex;
use router::{Host, RouteCache, Router, RouterOptions, Shutdown};
use tokio::net::TcpListener;
use tokio::sync::watch;
use wire::ids::{CommandId, NodeId, PartitionId, TableId, Version, Zone};
use wire::peer::LocalTransport;
use wire::placement::{Placement, PlacementRange};
use wire::resp::Reply;
use wire::service::{
    Answer, BoxFuture, Call, Evaluated, Gate, GateOutcome, NodeFault, NodeStatus, Order,
    ReplicaStatus, Route, RouteVersion, ScriptControl, ScriptCounts, StorageService, Transaction,
    Watched, Work, encode_seen,
};

/// The only MemDS node, and the router as MemDS knows it.
const MEMDS: NodeId = NodeId(11);
const ROUTER: NodeId = NodeId(21);

/// What a call is answered instead of being evaluated.
#[derive(Clone, Debug)]
pub enum Scripted {
    /// It is evaluated, as if nothing was scripted.
    Evaluated,
    NotHere,
    NotYet,
    Busy(Duration),
    /// Evaluated, but the answer comes by a future.
    Later,
}

/// How gates open.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Gates {
    /// At once.
    Open,
    /// When [`Fake::set_gates`] says so.
    Held,
    After(Duration),
    Lost,
    Unknown,
}

struct Partition {
    route: Route,
    view: MemoryView,
}

struct State {
    partitions: Vec<Partition>,
    next_partition: u64,
    script: VecDeque<Scripted>,
    stopped: Vec<NodeId>,
    /// Names of commands in the order they were evaluated.
    log: Vec<String>,
    keep_log: bool,
    applied_on_followers: u64,
    expired_keys: u64,
    /// What operators wanted.
    orders: Vec<Order>,
}

/// The nodes 1, 2 and 3, and MemDS.
pub struct Fake {
    state: Mutex<State>,
    gates: watch::Sender<Gates>,
    pub gated: AtomicBool,
    memds: Arc<MemdsNode>,
    transport: Arc<LocalTransport>,
    /// Calls received, evaluated or not.
    pub calls: AtomicU64,
    /// Calls of several connections that were received together.
    pub joint_calls: AtomicU64,
    /// Times that nodes were asked for their status.
    pub status_calls: AtomicU64,
    /// Whether nodes tell the newest route when they are asked in error.
    pub tells_route: AtomicBool,
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

impl Fake {
    pub fn new() -> Arc<Fake> {
        let transport = Arc::new(LocalTransport::new());
        let memds = Arc::new(MemdsNode::new(MEMDS, transport.clone()));
        transport.register(MEMDS, memds.clone());
        let state = State {
            partitions: Vec::new(),
            next_partition: 1,
            script: VecDeque::new(),
            stopped: Vec::new(),
            log: Vec::new(),
            keep_log: true,
            applied_on_followers: 0,
            expired_keys: 0,
            orders: Vec::new(),
        };
        let fake = Fake {
            state: Mutex::new(state),
            gates: watch::Sender::new(Gates::Open),
            gated: AtomicBool::new(true),
            memds,
            transport,
            calls: AtomicU64::new(0),
            joint_calls: AtomicU64::new(0),
            status_calls: AtomicU64::new(0),
            tells_route: AtomicBool::new(true),
        };
        for table in 0..16 {
            fake.add_partition(PlacementRange::whole(TableId(table)));
        }
        Arc::new(fake)
    }

    fn add_partition(&self, range: PlacementRange) {
        let mut state = self.state.lock();
        let partition = PartitionId(state.next_partition);
        state.next_partition += 1;
        let route = Route {
            partition,
            range,
            version: RouteVersion { epoch: 1, ballot: 1 },
            leader: Some(NodeId(1)),
            members: vec![NodeId(1), NodeId(2), NodeId(3)],
        };
        let mut view = MemoryView::new(now_ms());
        view.table = range.table;
        view.range = range;
        self.memds.install(&route);
        state.partitions.push(Partition { route, view });
    }

    /// Divides a table's only partition, which must be empty, at a placement.
    pub fn split(&self, table: TableId, at: Placement) {
        let mut state = self.state.lock();
        let next = PartitionId(state.next_partition);
        state.next_partition += 1;
        let first = state
            .partitions
            .iter_mut()
            .find(|p| p.route.range.table == table)
            .expect("the table has a partition");
        let last = first.route.range.last;
        first.route.range.last = Placement::new(at.get() - 1).expect("not the first placement");
        first.route.version.epoch += 1;
        first.view.range = first.route.range;
        let mut route = first.route.clone();
        route.partition = next;
        route.range.first = at;
        route.range.last = last;
        route.leader = Some(NodeId(2));
        let mut view = MemoryView::new(now_ms());
        view.table = table;
        view.range = route.range;
        state.partitions.push(Partition { route, view });
        for partition in state.partitions.iter().filter(|p| p.route.range.table == table) {
            self.memds.install(&partition.route);
        }
    }

    /// Moves every partition's leadership to a node; MemDS learns it unless `quietly`.
    pub fn lead(&self, node: NodeId, quietly: bool) {
        for partition in &mut self.state.lock().partitions {
            partition.route.leader = Some(node);
            partition.route.version.ballot += 1;
            if !quietly {
                self.memds.install(&partition.route);
            }
        }
    }

    pub fn set_gates(&self, gates: Gates) {
        self.gates.send_replace(gates);
    }

    pub fn script(&self, answers: impl IntoIterator<Item = Scripted>) {
        self.state.lock().script.extend(answers);
    }

    pub fn forget_script(&self) {
        self.state.lock().script.clear();
    }

    pub fn script_left(&self) -> usize {
        self.state.lock().script.len()
    }

    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().log)
    }

    /// Waits until so many commands are in the log.
    pub async fn until_logged(&self, count: usize) {
        let deadline = Instant::now() + client::PATIENCE;
        while self.state.lock().log.len() < count {
            assert!(Instant::now() < deadline, "not yet evaluated: {:?}", self.state.lock().log);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub fn forget_log(&self) {
        self.state.lock().keep_log = false;
    }

    pub fn set_applied_on_followers(&self, index: u64) {
        self.state.lock().applied_on_followers = index;
    }

    /// Has the first partition's leader say that it deleted so many expired keys.
    pub fn set_expired_keys(&self, keys: u64) {
        self.state.lock().expired_keys = keys;
    }

    fn evaluate(&self, node: NodeId, call: Call<'_>) -> Answer {
        let keys = commands::key_positions(table::entry(call.command).command, call.args);
        let placement = keys.ok().and_then(|keys| keys.first().copied());
        let placement = placement.map(|at| Placement::of_key(&call.args[at]));
        let entry = table::entry(call.command);
        let gated = self.gated.load(SeqCst);
        self.at(node, (call.table, call.partition, placement), |partition, log| {
            let is_script = matches!(entry.command.run, Run::Script(_));
            let of_nobody = if is_script && call.client.is_none() { " of nobody" } else { "" };
            log.push(format!("{}{of_nobody}", entry.full_name()));
            partition.evaluate(node, entry, call.args, gated)
        })
    }

    fn evaluate_together(&self, node: NodeId, transaction: Transaction<'_>) -> Answer {
        let gated = self.gated.load(SeqCst);
        let at = (transaction.table, transaction.partition, None);
        let epoch = transaction.epoch;
        self.at(node, at, |partition, log| match transaction.work {
            // Split since: the keys may lie elsewhere now.
            _ if epoch < partition.route.version.epoch => {
                Answer::NotHere(Some(partition.route.clone()))
            }
            Work::Look(keys) => {
                log.push("look".to_owned());
                let seen = keys.iter().map(|key| encode_seen(partition.seen(key)));
                Answer::Done { reply: Reply::Array(seen.collect()), gate: None }
            }
            work @ (Work::Run { watched, commands }
            | Work::RunThenLook { watched, commands, .. }) => {
                let names = commands.iter().map(|(id, _)| table::entry(*id).full_name());
                log.push(format!("({})", names.collect::<Vec<_>>().join(" ")));
                let mut answer = partition.evaluate_together(node, watched, commands, gated);
                if let (Work::RunThenLook { keys, .. }, Answer::Done { reply, .. }) =
                    (work, &mut answer)
                    && let Reply::Array(replies) = reply
                {
                    replies.extend(keys.iter().map(|key| encode_seen(partition.seen(key))));
                }
                answer
            }
        })
    }

    /// Answers as the script says, if it says anything.
    fn scripted(&self, evaluate: impl FnOnce() -> Answer) -> Answer {
        self.calls.fetch_add(1, SeqCst);
        let scripted = self.state.lock().script.pop_front();
        match scripted {
            None | Some(Scripted::Evaluated) => evaluate(),
            Some(Scripted::NotHere) => Answer::NotHere(None),
            Some(Scripted::NotYet) => Answer::NotYet,
            Some(Scripted::Busy(wait)) => Answer::Busy(wait),
            Some(Scripted::Later) => {
                let answer = evaluate();
                Answer::Later(Box::pin(async move {
                    tokio::task::yield_now().await;
                    answer
                }))
            }
        }
    }

    /// Has the partition do something, if it is here.
    fn at(
        &self,
        node: NodeId,
        (table, called, placement): (TableId, PartitionId, Option<Placement>),
        work: impl FnOnce(&mut Partition, &mut Vec<String>) -> Answer,
    ) -> Answer {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.stopped.contains(&node) {
            return Answer::NotYet;
        }
        let holder = state.partitions.iter_mut().find(|p| match placement {
            Some(placement) => p.holds(table, placement),
            None => p.route.partition == called,
        });
        let Some(partition) = holder else { return Answer::NotHere(None) };
        if partition.route.leader != Some(node) || partition.route.partition != called {
            let route = self.tells_route.load(SeqCst).then(|| partition.route.clone());
            return Answer::NotHere(route);
        }
        let answer = work(partition, &mut state.log);
        if !state.keep_log {
            state.log.clear();
        }
        answer
    }
}

impl Partition {
    fn holds(&self, table: TableId, placement: Placement) -> bool {
        self.route.range.table == table && self.route.range.contains(placement)
    }

    fn evaluate(
        &mut self,
        node: NodeId,
        entry: &table::Entry,
        args: &[bytes::Bytes],
        gated: bool,
    ) -> Answer {
        self.view.now_ms = now_ms();
        match entry.command.run {
            Run::Read(handler) => {
                let reply = handler(&self.view, Args(args)).unwrap_or_else(Into::into);
                Answer::Done { reply, gate: None }
            }
            Run::Write(handler) => {
                let version = Version { index: self.view.next_index, ordinal: 0 };
                let mut txn = Txn::new(&self.view, version);
                let outcome = handler(&mut txn, Args(args));
                let effects = txn.into_effects();
                let reply = match outcome {
                    Ok(reply) => reply,
                    Err(error) => return Answer::Done { reply: error.into(), gate: None },
                };
                let index = self.view.next_index;
                self.view.apply(effects);
                let gate = Gate { node, partition: self.route.partition, index, batch: index };
                Answer::Done { reply, gate: gated.then_some(gate) }
            }
            // Whatever it says.
            Run::Script(_) => {
                let index = self.view.next_index;
                let gate = Gate { node, partition: self.route.partition, index, batch: index };
                Answer::Done { reply: Reply::OK, gate: gated.then_some(gate) }
            }
            _ => {
                Answer::Done { reply: Reply::Error("ERR not a storage command".into()), gate: None }
            }
        }
    }
}

impl Partition {
    fn seen(&self, key: &[u8]) -> Option<Version> {
        keyspace::read(&self.view, key).expect("sound rows").map(|header| header.version)
    }

    /// As one: nothing happens if a watched key has changed, and all effects are applied at once.
    fn evaluate_together(
        &mut self,
        node: NodeId,
        watched: &[Watched],
        commands: &[(CommandId, &[bytes::Bytes])],
        gated: bool,
    ) -> Answer {
        self.view.now_ms = now_ms();
        if watched.iter().any(|watched| self.seen(&watched.key) != watched.seen) {
            return Answer::Done { reply: Reply::NullArray, gate: None };
        }
        let index = self.view.next_index;
        let mut txn = Txn::new(&self.view, Version { index, ordinal: 0 });
        let mut replies = Vec::new();
        for (id, args) in commands {
            let done = match table::entry(*id).command.run {
                Run::Read(handler) => handler(&txn, Args(args)),
                Run::Write(handler) => {
                    let mut inner = Txn::new(&txn, txn.next_version());
                    let done = handler(&mut inner, Args(args));
                    let effects = inner.into_effects();
                    if done.is_ok() {
                        txn.merge(effects);
                    }
                    done
                }
                _ => panic!("not a storage command"),
            };
            replies.push(done.unwrap_or_else(Into::into));
        }
        let effects = txn.into_effects();
        let reply = Reply::Array(replies);
        if effects.is_empty() {
            return Answer::Done { reply, gate: None };
        }
        self.view.apply(effects);
        let gate = Gate { node, partition: self.route.partition, index, batch: index };
        Answer::Done { reply, gate: gated.then_some(gate) }
    }
}

impl StorageService for Fake {
    fn call(&self, node: NodeId, call: Call<'_>) -> Answer {
        self.scripted(|| self.evaluate(node, call))
    }

    fn call_all(
        &self,
        node: NodeId,
        calls: &[Call<'_>],
        done: &mut Vec<Evaluated>,
    ) -> Option<Answer> {
        if calls.iter().any(|call| call.origin != calls[0].origin) {
            self.joint_calls.fetch_add(calls.len() as u64, SeqCst);
        }
        for call in calls {
            match self.call(node, *call) {
                Answer::Done { reply, gate } => {
                    let is_large = reply.text_bytes() > 64 << 10;
                    done.push(Evaluated { reply, gate, took: Duration::ZERO });
                    if is_large {
                        return None;
                    }
                }
                answer => return Some(answer),
            }
        }
        None
    }

    fn transact(&self, node: NodeId, transaction: Transaction<'_>) -> Answer {
        self.scripted(|| self.evaluate_together(node, transaction))
    }

    fn scripts(&self, control: ScriptControl<'_>) -> Reply {
        match control {
            ScriptControl::IsReadOnly(_) => Reply::Integer(0),
            ScriptControl::Limits(_) | ScriptControl::AllowAll(_) => Reply::OK,
            _ => Reply::Error("ERR no scripts here".into()),
        }
    }

    fn script_counts(&self) -> ScriptCounts {
        ScriptCounts::default()
    }

    fn outcome(&self, _: Gate) -> Option<GateOutcome> {
        None
    }

    fn wait(&self, _: Gate, timeout: Duration) -> BoxFuture<GateOutcome> {
        let mut gates = self.gates.subscribe();
        Box::pin(async move {
            let decided = gates.wait_for(|gates| *gates != Gates::Held);
            let gates = match tokio::time::timeout(timeout, decided).await {
                Ok(Ok(gates)) => *gates,
                _ => return GateOutcome::Unknown,
            };
            match gates {
                Gates::After(delay) => {
                    tokio::time::sleep(delay).await;
                    GateOutcome::Durable
                }
                Gates::Lost => GateOutcome::Lost,
                Gates::Unknown => GateOutcome::Unknown,
                Gates::Open | Gates::Held => GateOutcome::Durable,
            }
        })
    }

    fn status(&self) -> Vec<NodeStatus> {
        self.status_calls.fetch_add(1, SeqCst);
        let state = self.state.lock();
        let first = state.partitions.first().map(|partition| partition.route.partition);
        let replica = |node: NodeId, partition: &Partition| {
            let leads = partition.route.leader == Some(node);
            let counts = leads && first == Some(partition.route.partition);
            let counters = partition.view.counters();
            let last = partition.view.next_index - 1;
            ReplicaStatus {
                partition: partition.route.partition,
                range: partition.route.range,
                identity: node.0,
                kind: "storage",
                installing: false,
                role: if leads { "leader" } else { "follower" },
                leader: partition.route.leader,
                ballot: partition.route.version.ballot,
                last_index: last,
                truncated_index: 0,
                applied_index: if leads { last } else { state.applied_on_followers },
                flushed_index: 0,
                keys: counters.keys,
                volatile_keys: counters.volatile,
                bytes: counters.bytes,
                expired_keys: if counts { state.expired_keys } else { 0 },
                expired_fields: 0,
                freed_later: 0,
                changes: 0,
                elections: 0,
                leaderships: u64::from(leads),
                awaited_keys: 0,
                awaited_keys_or_gone: 0,
            }
        };
        let node = |id: u32| NodeStatus {
            node: NodeId(id),
            zone: Zone(["a", "b", "c"][id as usize - 1].to_owned()),
            running: !state.stopped.contains(&NodeId(id)),
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
            replicas: state.partitions.iter().map(|p| replica(NodeId(id), p)).collect(),
        };
        (1..=3).map(node).collect()
    }

    fn fault(&self, fault: NodeFault) -> Result<(), String> {
        let mut state = self.state.lock();
        match fault {
            NodeFault::Stop(node) if (1..=3).contains(&node.0) => state.stopped.push(node),
            NodeFault::Start(node) => state.stopped.retain(|stopped| *stopped != node),
            NodeFault::Stop(node) => return Err(format!("there is no node {node}")),
            other => return Err(format!("{other:?} is not among the faults of the fake")),
        }
        Ok(())
    }

    fn order(&self, order: Order) -> BoxFuture<Result<(), String>> {
        let mut state = self.state.lock();
        state.orders.push(order);
        let outcome = match order {
            Order::Transfer { node: NodeId(1..=3), .. } => Ok(()),
            _ => Err("the fake's members do not change".to_owned()),
        };
        Box::pin(std::future::ready(outcome))
    }
}

/// A running client of the fake's MemDS, and the cache it feeds.
pub fn memds_client(fake: &Fake) -> (Arc<MemdsClient>, Arc<RouteCache>) {
    let cache = RouteCache::new(1 << 20);
    let fed = cache.clone();
    let (transport, options) = (fake.transport.clone(), ClientOptions::default());
    let client = MemdsClient::new(ROUTER, vec![MEMDS], transport, options, move |route| {
        fed.learn(route);
    });
    fake.transport.register(ROUTER, client.clone());
    tokio::spawn(client.clone().run());
    (client, cache)
}

/// A process that remembers what it was asked.
#[derive(Default)]
pub struct FakeHost {
    pub shutdowns: Mutex<Vec<Shutdown>>,
    pub config_file: Mutex<Option<String>>,
    pub rewritten: Mutex<Vec<(String, String)>>,
    pub log_levels: Mutex<Vec<String>>,
    pub acl_file: Mutex<Option<Vec<u8>>>,
}

impl Host for FakeHost {
    fn shutdown(&self, how: Shutdown) -> Result<(), String> {
        self.shutdowns.lock().push(how);
        Ok(())
    }

    fn abort_shutdown(&self) -> bool {
        false
    }

    fn config_file(&self) -> Option<String> {
        self.config_file.lock().clone()
    }

    fn rewrite_config(&self, parameters: &[(&str, String)]) -> Result<(), String> {
        let owned = parameters.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        *self.rewritten.lock() = owned.collect();
        Ok(())
    }

    fn read_acl_file(&self, _path: &str) -> Result<Vec<u8>, String> {
        self.acl_file.lock().clone().ok_or_else(|| "No such file or directory".to_owned())
    }

    fn write_acl_file(&self, _path: &str, text: &[u8]) -> Result<(), String> {
        *self.acl_file.lock() = Some(text.to_vec());
        Ok(())
    }

    fn set_log_level(&self, level: &str) {
        self.log_levels.lock().push(level.to_owned());
    }

    fn allocated_bytes(&self) -> Option<u64> {
        None
    }
}

/// A router over a fake, listening on a port of its own.
pub struct Running {
    pub fake: Arc<Fake>,
    pub memds: Arc<MemdsClient>,
    pub host: Arc<FakeHost>,
    pub router: Router,
    pub port: u16,
}

/// Starts a router with these parameters.
pub async fn start(
    parameters: &[(&str, &str)],
    change: impl FnOnce(&mut RouterOptions),
) -> Running {
    let fake = Fake::new();
    let host = Arc::new(FakeHost::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut options = RouterOptions {
        parameters: parameters.iter().map(owned).collect(),
        ..RouterOptions::default()
    };
    options.parameters.push(("port".to_owned(), port.to_string()));
    change(&mut options);
    let (memds, cache) = memds_client(&fake);
    let router =
        Router::new(options, fake.clone(), memds.clone(), cache, host.clone()).expect("options");
    let serving = router.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    Running { fake, memds, host, router, port }
}
