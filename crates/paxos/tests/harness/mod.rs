//! A group of nodes whose messages are carried when a test says so.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use paxos::{
    Beat, Entry, Index, Instant, Life, Liveness, LivenessOutput, Message, NodeId, Options, Output,
    Record, Recovered, Replica, Role, Value,
};

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) liveness: Liveness,
    pub(crate) replica: Replica,
    /// Everything ever written; what is beyond `durable` would be lost.
    pub(crate) disk: Vec<Record>,
    pub(crate) durable: usize,
    /// While false, nothing becomes durable.
    pub(crate) disk_works: bool,
    pub(crate) newest_token: u64,
    pub(crate) committed: Vec<Value>,
    /// Whose snapshot the replica asked for, and of which index at least.
    pub(crate) snapshot: Option<(NodeId, Index)>,
    /// Entries that a restart finds damaged.
    pub(crate) damaged: Vec<Index>,
}

/// What nodes send each other.
pub(crate) enum Mail {
    Group(Message),
    Beat(Beat),
}

/// A group whose messages are carried when a test says so.
pub(crate) struct Group {
    pub(crate) nodes: Vec<Node>,
    pub(crate) mail: VecDeque<(NodeId, NodeId, Mail)>,
    /// Messages of the group sent so far.
    pub(crate) sent: usize,
    /// How many entries each promise told.
    pub(crate) promised: Vec<usize>,
    pub(crate) lives: u64,
    /// Links that carry nothing, (from, to).
    pub(crate) cut: Vec<(u32, u32)>,
    pub(crate) now: Instant,
    pub(crate) options: Options,
}

impl Group {
    pub(crate) fn new(size: u32, options: Options) -> Group {
        let mut group = Group {
            nodes: Vec::new(),
            mail: VecDeque::new(),
            sent: 0,
            promised: Vec::new(),
            lives: 0,
            cut: Vec::new(),
            now: Instant(1_000_000),
            options,
        };
        let members: Vec<_> = (1..=size).map(NodeId).collect();
        for id in &members {
            let (liveness, replica) = group.start(*id, &members, Recovered::default());
            group.nodes.push(Node {
                id: *id,
                liveness,
                replica,
                disk: Vec::new(),
                durable: 0,
                disk_works: true,
                newest_token: 0,
                committed: Vec::new(),
                snapshot: None,
                damaged: Vec::new(),
            });
        }
        group
    }

    /// Starts a node that is no member yet.
    pub(crate) fn join(&mut self, node: u32) {
        let id = NodeId(node);
        let members: Vec<_> = (1..=3).map(NodeId).collect();
        let (liveness, replica) = self.start(id, &members, Recovered::default());
        self.nodes.push(Node {
            id,
            liveness,
            replica,
            disk: Vec::new(),
            durable: 0,
            disk_works: true,
            newest_token: 0,
            committed: Vec::new(),
            snapshot: None,
            damaged: Vec::new(),
        });
    }

    /// Three nodes; the first leads, and its no-op is committed everywhere.
    pub(crate) fn led_by_first(options: Options) -> Group {
        let mut group = Group::new(3, options);
        group.beat();
        group.campaign(1);
        group.heartbeat();
        assert_eq!(group.role(1), Role::Leader);
        assert!((1..=3).all(|node| group.committed(node) == ["noop"]));
        group
    }

    /// Another life of a node, and its replica.
    pub(crate) fn start(
        &mut self,
        id: NodeId,
        members: &[NodeId],
        recovered: Recovered,
    ) -> (Liveness, Replica) {
        self.lives += 1;
        let (options, now, seed) = (self.options.clone(), self.now, u64::from(id.0));
        let mut liveness = Liveness::new(id, Life(self.lives), options.clone(), now);
        members.iter().for_each(|peer| liveness.add_peer(*peer, now));
        let supports = liveness.supports();
        (liveness, Replica::new(id, members, options, recovered, supports, now, seed))
    }

    pub(crate) fn node(&mut self, node: u32) -> &mut Node {
        &mut self.nodes[node as usize - 1]
    }

    pub(crate) fn role(&self, node: u32) -> Role {
        self.nodes[node as usize - 1].replica.status().role
    }

    pub(crate) fn may_serve(&self, node: u32) -> bool {
        self.nodes[node as usize - 1].replica.may_serve(self.now)
    }

    pub(crate) fn committed(&self, node: u32) -> Vec<String> {
        self.nodes[node as usize - 1].committed.iter().map(text).collect()
    }

    pub(crate) fn campaign(&mut self, node: u32) {
        let now = self.now;
        self.node(node).replica.campaign(now);
        self.settle();
    }

    /// Has a leader that serves begin to hand over.
    pub(crate) fn transfer(&mut self, from: u32, to: u32) {
        let now = self.now;
        self.node(from).replica.transfer(NodeId(to), now).expect("it serves");
    }

    pub(crate) fn propose(&mut self, node: u32, value: &'static str) -> Index {
        let now = self.now;
        let data = Bytes::from_static(value.as_bytes());
        let index = self.node(node).replica.propose(data, now).expect("leads, and has room");
        self.settle();
        index
    }

    /// Hands a node a message as if another one had sent it.
    pub(crate) fn tell(&mut self, from: u32, to: u32, message: Message) {
        let now = self.now;
        self.node(to).replica.handle_message(NodeId(from), message, now);
        self.settle();
    }

    /// Cuts a node off, both ways.
    pub(crate) fn isolate(&mut self, node: u32) {
        for other in (1..=self.nodes.len() as u32).filter(|other| *other != node) {
            self.cut.extend([(node, other), (other, node)]);
        }
    }

    /// Lets time pass in steps of 10 ms.
    pub(crate) fn pass(&mut self, length: Duration) {
        let end = self.now.after(length);
        while self.now < end {
            self.now = self.now.after(Duration::from_millis(10));
            for node in 0..self.nodes.len() {
                if self.nodes[node].liveness.next_deadline() <= self.now {
                    self.nodes[node].liveness.handle_tick(self.now);
                }
                if self.nodes[node].replica.next_deadline() <= self.now {
                    self.nodes[node].replica.handle_tick(self.now);
                }
            }
            self.settle();
        }
    }

    /// Lets the nodes, but not the group, know that they are there.
    pub(crate) fn beat(&mut self) {
        for node in 0..self.nodes.len() {
            self.nodes[node].liveness.handle_tick(self.now);
        }
        self.settle();
    }

    pub(crate) fn heartbeat(&mut self) {
        self.pass(self.options.heartbeat);
    }

    /// Carries out everything until nobody wants anything more.
    pub(crate) fn settle(&mut self) {
        while self.deliver_one() {}
    }

    /// Carries one message. False if there is none.
    pub(crate) fn deliver_one(&mut self) -> bool {
        for node in 0..self.nodes.len() {
            self.drain(node);
        }
        let Some((from, to, message)) = self.mail.pop_front() else { return false };
        let is_there = to.0 as usize <= self.nodes.len();
        if is_there && !self.cut.contains(&(from.0, to.0)) {
            let now = self.now;
            match message {
                Mail::Group(message) => self.node(to.0).replica.handle_message(from, message, now),
                Mail::Beat(beat) => self.node(to.0).liveness.handle_beat(from, beat, now),
            }
        }
        true
    }

    pub(crate) fn drain(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        while let Some(output) = node.liveness.poll_output() {
            match output {
                LivenessOutput::Send { to, beat } => {
                    self.mail.push_back((node.id, to, Mail::Beat(beat)));
                }
                LivenessOutput::Changed => node.replica.handle_liveness(self.now),
            }
        }
        loop {
            while let Some(output) = node.replica.poll_output() {
                match output {
                    Output::Persist { token, record } => {
                        node.disk.push(record);
                        node.newest_token = token;
                    }
                    Output::Send { to, message } => {
                        self.sent += 1;
                        if let Message::Promise { accepted, .. } = &message {
                            self.promised.push(accepted.len());
                        }
                        self.mail.push_back((node.id, to, Mail::Group(message)));
                    }
                    Output::Commit { index, value } => {
                        assert_eq!(index.0, node.committed.len() as u64 + 1);
                        node.committed.push(value);
                    }
                    Output::ReadLog { to, first, last } => {
                        let mut entries = read(&node.disk[..node.durable], first, last);
                        let (mut bytes, bytes_max) = (0, node.replica.options().catch_up_bytes);
                        let mut fits = |entry: &Entry| {
                            let has_room = bytes < bytes_max;
                            bytes += entry.value.len();
                            has_room
                        };
                        entries.retain(|entry| fits(entry));
                        let message = Mail::Group(Message::chosen(entries));
                        self.mail.push_back((node.id, to, message));
                    }
                    Output::RoleChanged { .. } | Output::ConfigChanged { .. } | Output::Removed => {
                    }
                    Output::InstallSnapshot { from, at_least } => {
                        node.snapshot = Some((from, at_least));
                    }
                }
            }
            if !node.disk_works || node.durable == node.disk.len() {
                return;
            }
            node.durable = node.disk.len();
            node.replica.handle_persisted(node.newest_token, self.now);
        }
    }

    /// The process dies and starts again; its state machine was flushed up to `applied`.
    pub(crate) fn restart(&mut self, node: u32, applied: Index) {
        let members: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
        let node = self.node(node);
        node.disk.truncate(node.durable);
        node.committed.truncate(applied.0 as usize);
        node.disk_works = true;
        let mut recovered = Recovered { applied, ..Recovered::default() };
        for record in &node.disk {
            match record {
                Record::Promise(ballot) => recovered.promised = *ballot,
                Record::Chosen(index) => recovered.chosen = *index,
                Record::Truncate(index) | Record::Skip(index) => recovered.truncated = *index,
                Record::Config(config) => recovered.config = Some(config.clone()),
                Record::Accept(_) => {}
            }
        }
        recovered.entries = read(&node.disk, applied.next(), Index(u64::MAX));
        let (lost, left): (Vec<_>, _) =
            recovered.entries.into_iter().partition(|entry| node.damaged.contains(&entry.index));
        recovered.entries = left;
        recovered.faulty = lost.iter().map(|entry| (entry.index, entry.ballot)).collect();
        let id = node.id;
        let (liveness, replica) = self.start(id, &members, recovered);
        self.node(id.0).liveness = liveness;
        self.node(id.0).replica = replica;
        self.settle();
    }
}

/// The newest accepted entries of a range, ascending.
pub(crate) fn read(disk: &[Record], first: Index, last: Index) -> Vec<Entry> {
    let mut entries = std::collections::BTreeMap::new();
    for record in disk {
        if let Record::Accept(entry) = record
            && (first..=last).contains(&entry.index)
        {
            entries.insert(entry.index, entry.clone());
        }
    }
    entries.into_values().collect()
}

pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Noop => "noop".to_owned(),
        Value::Data(data) => String::from_utf8_lossy(data).into_owned(),
        Value::Config(_) => "config".to_owned(),
    }
}
