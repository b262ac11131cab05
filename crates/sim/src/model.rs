//! Every run there is, within small bounds: three replicas of the real core, two of which campaign,
//! and a log replica that joins them if members change.
//!
//! ```text
//! state   = the replicas, what their disks hold, every message ever sent, what is committed
//! actions = deliver any message (again), campaign, propose, crash and restart, add the log replica,
//!           let a leader tell what is new
//! ```
//!
//! A message may be delivered any time later, a bounded number of times or never: loss, repetition
//! and any order are all in it. A disk syncs as soon as it is written to: what else happens before a
//! sync ends is what happens if the message came later. Or the node dies between the two, and what
//! it said before the sync is said. Time stands still: there are no leases here, and nothing is repeated but by the
//! network. What this shows is that no order of events makes two replicas commit different values.
//!
//! What makes no difference makes no other state: records are counted anew after each action, a crash
//! that changes nothing is none. Only the node that acts is copied, and hashed.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use paxos::{
    Index, Instant, Member, MemberKind, Message, NodeId, Options, Output, ProposeError, Replica,
    Role, Supports, Value, codec,
};
use stateright::{Checker, Expectation, Model, Property};

use crate::host::Disk;

/// How much may happen in one run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Campaigns of the two proposers, together.
    pub campaigns: u8,
    /// Values proposed besides the one that each leader proposes as it begins to lead.
    pub values: u8,
    /// Crashes of any node; what was not synced is lost.
    pub crashes: u8,
    /// How often one message is delivered at most.
    pub deliveries: u8,
    /// Storage members at the beginning.
    pub members: u8,
    /// Changes of members: there is one, which adds a log replica.
    pub changes: u8,
    /// Whether the first member leads already, and all know it: 1 or 0.
    pub led: u8,
}

impl Bounds {
    /// Ends within seconds, unoptimised.
    pub const SMALL: Bounds = Bounds {
        campaigns: 2,
        values: 0,
        crashes: 0,
        deliveries: 1,
        members: 3,
        changes: 0,
        led: 0,
    };
    /// Ends within minutes, optimised.
    pub const LARGE: Bounds = Bounds {
        campaigns: 2,
        values: 0,
        crashes: 1,
        deliveries: 1,
        members: 3,
        changes: 0,
        led: 0,
    };
    /// Three members and a leader, a fourth that is added, crashes at any moments of that. Ends within
    /// seconds, optimised; with one crash, unoptimised.
    pub const CHANGE_OF_THREE: Bounds = Bounds {
        campaigns: 0,
        values: 0,
        crashes: 3,
        deliveries: 1,
        members: 3,
        changes: 1,
        led: 1,
    };
    /// A change of two members to three under one leader. Ends within seconds, unoptimised.
    pub const CHANGE: Bounds = Bounds {
        campaigns: 1,
        values: 0,
        crashes: 1,
        deliveries: 1,
        members: 2,
        changes: 1,
        led: 0,
    };
}

const PROPOSERS: usize = 2;
const NOW: Instant = Instant(1_000_000);

/// One replica and what it stands on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Node {
    replica: Replica,
    disk: Disk,
    applied: u64,
}

/// See the module's text.
#[derive(Clone, Debug)]
struct State {
    nodes: Vec<Arc<Node>>,
    /// Of each node.
    hashes: Vec<u64>,
    /// Sender, receiver (by position) and bytes; how often each may still be delivered.
    mail: BTreeMap<(usize, usize, Bytes), u8>,
    /// What was committed at index 1, 2, … by whoever was first.
    committed: Vec<Value>,
    disagreed: bool,
    /// A node crashed while members changed.
    crashed_in_change: bool,
    members: u8,
    /// Each leader proposes a value as it begins to lead: not where a change of members is enough.
    proposes_data: bool,
    left: Left,
}

impl State {
    /// All that makes one state differ from another; a node's hash stands for it.
    fn parts(&self) -> impl PartialEq + Hash + '_ {
        let State { hashes, mail, committed, disagreed, crashed_in_change, left, .. } = self;
        (hashes, mail, committed, disagreed, crashed_in_change, left)
    }
}

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for State {}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.parts().hash(hasher);
    }
}

/// What may still happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Left {
    campaigns: u8,
    values: u8,
    crashes: u8,
    deliveries: u8,
    changes: u8,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Action {
    Deliver(usize, usize, Bytes),
    /// The same, and the node dies before its disk has synced.
    DeliverAndDie(usize, usize, Bytes),
    Campaign(usize),
    Propose(usize),
    Crash(usize),
    /// A leader adds the log replica.
    Change(usize),
    /// A leader tells others what they do not know.
    Tell(usize),
}

struct Group(Bounds);

fn options() -> Options {
    Options { lease: Duration::ZERO, suspicion: Duration::ZERO, ..Options::default() }
}

fn replica(at: usize, members: u8, disk: &Disk) -> Replica {
    let members: Vec<_> = (1..=u32::from(members)).map(NodeId).collect();
    // Nobody supports anybody.
    let supports = Supports::default();
    let me = NodeId(at as u32 + 1);
    Replica::new(me, &members, options(), disk.recover(Index(0)), supports, NOW, 1)
}

impl State {
    fn node(&mut self, at: usize) -> &mut Node {
        Arc::make_mut(&mut self.nodes[at])
    }

    /// Forgets what makes no difference to a node that has acted.
    fn count_anew(&mut self, at: usize) {
        let node = self.node(at);
        node.disk.count_anew();
        node.replica.count_anew();
        self.hashes[at] = hash_of(node);
    }

    /// Does what a replica wants done, and tells it that all it wrote is durable.
    fn settle(&mut self, at: usize) {
        self.drain(at);
        while let Some((token, _)) = self.node(at).disk.synced() {
            self.node(at).replica.handle_persisted(token, NOW);
            self.drain(at);
        }
    }

    fn crash(&mut self, at: usize) {
        self.left.crashes -= 1;
        self.crashed_in_change |= self.nodes.iter().any(|node| node.replica.config().is_joint());
        let members = self.members;
        let node = self.node(at);
        node.disk.lose_unsynced();
        node.replica = replica(at, members, &node.disk);
        node.applied = 0;
        self.settle(at);
    }

    fn has_changed(&self) -> bool {
        let config = self.nodes[0].replica.config();
        !config.is_joint() && config.members.len() > usize::from(self.members)
    }

    fn deliver(&mut self, from: usize, to: usize, bytes: Bytes) {
        let message = codec::decode(bytes).expect("it was encoded here");
        self.node(to).replica.handle_message(NodeId(from as u32 + 1), message, NOW);
    }

    fn drain(&mut self, at: usize) {
        while let Some(output) = self.node(at).replica.poll_output() {
            match output {
                Output::Persist { token, record } => {
                    self.node(at).disk.append(token, record);
                }
                // It matters to leases.
                Output::Send { message: Message::Release { .. }, .. } => {}
                // Accepts tell what is chosen as well. But a change waits to hear who knows of it.
                Output::Send { message: Message::Heartbeat { .. }, .. }
                | Output::Send { message: Message::HeartbeatAck { .. }, .. }
                    if !self.nodes[at].replica.config().is_joint() => {}
                Output::Send { to, message } => {
                    let bytes = codec::encode(&message).freeze();
                    let deliveries = self.left.deliveries;
                    self.mail.entry((at, to.0 as usize - 1, bytes)).or_insert(deliveries);
                }
                Output::Commit { index, value } => self.commit(at, index, value),
                Output::RoleChanged { role: Role::Leader } if self.proposes_data => {
                    // A value that no other leader proposes, in one message with what it inherited.
                    let ballot = self.nodes[at].replica.status().ballot;
                    let data = Bytes::from(ballot.number.to_be_bytes().to_vec());
                    let proposed = self.node(at).replica.propose(data, NOW);
                    let inherits_change = proposed == Err(ProposeError::WindowFull);
                    assert!(proposed.is_ok() || inherits_change, "the window is wide");
                }
                _ => {}
            }
        }
    }

    fn commit(&mut self, at: usize, index: Index, value: Value) {
        self.node(at).applied += 1;
        self.disagreed |= self.nodes[at].applied != index.0;
        match self.committed.get(index.0 as usize - 1) {
            Some(first) => self.disagreed |= *first != value,
            None => self.committed.push(value),
        }
    }

    /// The first member campaigns, and all that follows is delivered as it comes: it leads, all know it.
    fn elect(&mut self) {
        self.left.campaigns += 1;
        self.act(Action::Campaign(0));
        while let Some(((from, to, bytes), _)) = self.mail.iter().find(|(_, left)| **left > 0) {
            let (from, to, bytes) = (*from, *to, bytes.clone());
            self.mail.insert((from, to, bytes.clone()), 0);
            self.act(Action::Deliver(from, to, bytes));
        }
        self.mail.clear();
        assert!(self.nodes[0].replica.may_serve(NOW), "nothing was lost");
    }

    fn act(&mut self, action: Action) {
        let acting = match &action {
            Action::Deliver(_, at, _) | Action::DeliverAndDie(_, at, _) => *at,
            Action::Campaign(at)
            | Action::Propose(at)
            | Action::Crash(at)
            | Action::Change(at)
            | Action::Tell(at) => *at,
        };
        self.run(action);
        self.count_anew(acting);
    }

    fn run(&mut self, action: Action) {
        match action {
            Action::Deliver(from, to, bytes) => {
                self.deliver(from, to, bytes);
                self.settle(to);
            }
            Action::DeliverAndDie(from, to, bytes) => {
                self.deliver(from, to, bytes);
                self.drain(to);
                self.crash(to);
            }
            Action::Campaign(at) => {
                self.left.campaigns -= 1;
                self.node(at).replica.campaign(NOW);
                self.settle(at);
            }
            Action::Propose(at) => {
                self.left.values -= 1;
                let data = Bytes::from(vec![self.left.values]);
                self.node(at).replica.propose(data, NOW).expect("it was asked before");
                self.settle(at);
            }
            Action::Crash(at) => self.crash(at),
            Action::Change(at) => {
                self.left.changes -= 1;
                let log = NodeId(u32::from(self.members) + 1);
                let replica = &mut self.node(at).replica;
                let mut members = replica.config().members.clone();
                members.push(Member { id: log, kind: MemberKind::Log });
                // Refused before it has chosen anything of its own: then nothing happened.
                let _ = replica.change_members(&members, NOW);
                self.settle(at);
            }
            Action::Tell(at) => {
                self.node(at).replica.handle_tick(NOW);
                self.settle(at);
            }
        }
    }
}

impl Model for Group {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let Bounds { campaigns, values, crashes, deliveries, members, changes, led } = self.0;
        let nodes = usize::from(members) + usize::from(changes > 0);
        let new = |at| {
            let replica = replica(at, members, &Disk::default());
            Arc::new(Node { replica, disk: Disk::default(), applied: 0 })
        };
        let nodes: Vec<_> = (0..nodes).map(new).collect();
        let mut first = State {
            hashes: nodes.iter().map(|node| hash_of(node)).collect(),
            nodes,
            mail: BTreeMap::new(),
            committed: Vec::new(),
            disagreed: false,
            crashed_in_change: false,
            members,
            proposes_data: changes == 0,
            left: Left { campaigns, values, crashes, deliveries, changes },
        };
        if led > 0 {
            first.elect();
        }
        vec![first]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for ((from, to, bytes), left) in &state.mail {
            if *left > 0 {
                actions.push(Action::Deliver(*from, *to, bytes.clone()));
                if state.left.crashes > 0 {
                    actions.push(Action::DeliverAndDie(*from, *to, bytes.clone()));
                }
            }
        }
        for (at, node) in state.nodes.iter().enumerate() {
            if at < PROPOSERS && state.left.campaigns > 0 {
                actions.push(Action::Campaign(at));
            }
            if node.replica.may_propose(1).is_ok() && state.left.values > 0 {
                actions.push(Action::Propose(at));
            }
            if state.left.crashes > 0 {
                actions.push(Action::Crash(at));
            }
            if node.replica.may_serve(NOW) && state.left.changes > 0 {
                actions.push(Action::Change(at));
            }
            if node.replica.config().is_joint()
                && node.replica.is_leader()
                && node.replica.next_deadline() <= NOW
            {
                actions.push(Action::Tell(at));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = last.clone();
        let delivered = match &action {
            Action::Deliver(from, to, bytes) | Action::DeliverAndDie(from, to, bytes) => {
                Some((*from, *to, bytes.clone()))
            }
            _ => None,
        };
        next.act(action);
        let is_same = next.hashes == last.hashes && next.mail == last.mail;
        if is_same && next.disagreed == last.disagreed {
            // Like most repetitions: that it came does not make another state. Nor does that a node has
            // died which forgot nothing by it.
            return None;
        }
        if let Some(left) = delivered.and_then(|key| next.mail.get_mut(&key)) {
            *left -= 1;
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Group>> {
        let always = Property::always("agreement", |_, state: &State| !state.disagreed);
        if self.0.changes > 0 {
            let mut properties = vec![
                always,
                Property::sometimes("members have changed", |_, state: &State| state.has_changed()),
            ];
            if self.0.crashes > 0 {
                let in_spite =
                    |_: &Group, state: &State| state.crashed_in_change && state.has_changed();
                properties.push(Property::sometimes("in spite of a crash meanwhile", in_spite));
            }
            return properties;
        }
        vec![
            always,
            Property::sometimes("a value is committed", |_, state: &State| {
                state.committed.iter().any(|value| matches!(value, Value::Data(_)))
            }),
            Property::sometimes("two replicas lead", |_, state: &State| {
                state.nodes.iter().filter(|node| node.replica.is_leader()).count() == 2
            }),
            Property::sometimes("all have committed two entries", |_, state: &State| {
                state.nodes.iter().all(|node| node.applied >= 2)
            }),
        ]
    }
}

/// Stands for a node's whole state.
fn hash_of(node: &Node) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    node.hash(&mut hasher);
    hasher.finish()
}

/// What a check found.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Different states.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// The longest run.
    pub depth: usize,
    /// Properties that do not hold, each with the actions that show it.
    pub failed: Vec<String>,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Checked { states, steps, depth, failed } = self;
        write!(f, "{states} states, {steps} steps, runs of up to {depth} actions")?;
        failed.iter().try_for_each(|failed| write!(f, "\nFAILED: {failed}"))
    }
}

/// Goes through every run within these bounds.
pub fn check(bounds: Bounds, threads: usize) -> Checked {
    let checker = Group(bounds).checker().threads(threads).spawn_dfs().join();
    let found = checker.discoveries();
    let failed = Group(bounds).properties().into_iter().filter_map(|property| {
        let path = found.get(property.name);
        match (property.expectation, path) {
            (Expectation::Sometimes, None) => Some(format!("never: {}", property.name)),
            (Expectation::Always, Some(path)) => Some(format!(
                "not always: {} after {:?}",
                property.name,
                path.clone().into_actions()
            )),
            _ => None,
        }
    });
    Checked {
        failed: failed.collect(),
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
    }
}
