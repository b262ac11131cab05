//! Small groups, message by message: the stories that the simulator tells by the thousand, one each.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use paxos::{
    Ballot, ChangeError, Entry, Index, Instant, Member, MemberKind, Message, NodeId, Options,
    Output, ProposeError, Record, Recovered, Replica, Role, TransferError, Value,
};

struct Node {
    id: NodeId,
    replica: Replica,
    /// Everything ever written; what is beyond `durable` would be lost.
    disk: Vec<Record>,
    durable: usize,
    /// While false, nothing becomes durable.
    disk_works: bool,
    newest_token: u64,
    committed: Vec<Value>,
    /// Whose snapshot the replica asked for, and of which index at least.
    snapshot: Option<(NodeId, Index)>,
    /// Entries that a restart finds damaged.
    damaged: Vec<Index>,
}

/// A group whose messages are carried when a test says so.
struct Group {
    nodes: Vec<Node>,
    mail: VecDeque<(NodeId, NodeId, Message)>,
    /// Links that carry nothing, (from, to).
    cut: Vec<(u32, u32)>,
    now: Instant,
    options: Options,
}

impl Group {
    fn new(size: u32, options: Options) -> Group {
        let mut group = Group {
            nodes: Vec::new(),
            mail: VecDeque::new(),
            cut: Vec::new(),
            now: Instant(1_000_000),
            options,
        };
        let members: Vec<_> = (1..=size).map(NodeId).collect();
        for id in &members {
            let replica = group.replica(*id, &members, Recovered::default());
            group.nodes.push(Node {
                id: *id,
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
    fn join(&mut self, node: u32) {
        let id = NodeId(node);
        let members: Vec<_> = (1..=3).map(NodeId).collect();
        let replica = self.replica(id, &members, Recovered::default());
        self.nodes.push(Node {
            id,
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
    fn led_by_first(options: Options) -> Group {
        let mut group = Group::new(3, options);
        group.campaign(1);
        group.heartbeat();
        assert_eq!(group.role(1), Role::Leader);
        assert!((1..=3).all(|node| group.committed(node) == ["noop"]));
        group
    }

    fn replica(&self, id: NodeId, members: &[NodeId], recovered: Recovered) -> Replica {
        let seed = u64::from(id.0);
        Replica::new(id, members, self.options.clone(), recovered, self.now, seed)
    }

    fn node(&mut self, node: u32) -> &mut Node {
        &mut self.nodes[node as usize - 1]
    }

    fn role(&self, node: u32) -> Role {
        self.nodes[node as usize - 1].replica.status().role
    }

    fn may_serve(&self, node: u32) -> bool {
        self.nodes[node as usize - 1].replica.may_serve(self.now)
    }

    fn committed(&self, node: u32) -> Vec<String> {
        self.nodes[node as usize - 1].committed.iter().map(text).collect()
    }

    fn campaign(&mut self, node: u32) {
        let now = self.now;
        self.node(node).replica.campaign(now);
        self.settle();
    }

    fn propose(&mut self, node: u32, value: &'static str) -> Index {
        let now = self.now;
        let data = Bytes::from_static(value.as_bytes());
        let index = self.node(node).replica.propose(data, now).expect("leads, and has room");
        self.settle();
        index
    }

    /// Hands a node a message as if another one had sent it.
    fn tell(&mut self, from: u32, to: u32, message: Message) {
        let now = self.now;
        self.node(to).replica.handle_message(NodeId(from), message, now);
        self.settle();
    }

    /// Cuts a node off, both ways.
    fn isolate(&mut self, node: u32) {
        for other in (1..=self.nodes.len() as u32).filter(|other| *other != node) {
            self.cut.extend([(node, other), (other, node)]);
        }
    }

    /// Lets time pass in steps of 10 ms.
    fn pass(&mut self, length: Duration) {
        let end = self.now.after(length);
        while self.now < end {
            self.now = self.now.after(Duration::from_millis(10));
            for node in 0..self.nodes.len() {
                if self.nodes[node].replica.next_deadline() <= self.now {
                    self.nodes[node].replica.handle_tick(self.now);
                }
            }
            self.settle();
        }
    }

    fn heartbeat(&mut self) {
        self.pass(self.options.heartbeat);
    }

    /// Carries out everything until nobody wants anything more.
    fn settle(&mut self) {
        while self.deliver_one() {}
    }

    /// Carries one message. False if there is none.
    fn deliver_one(&mut self) -> bool {
        for node in 0..self.nodes.len() {
            self.drain(node);
        }
        let Some((from, to, message)) = self.mail.pop_front() else { return false };
        let is_there = to.0 as usize <= self.nodes.len();
        if is_there && !self.cut.contains(&(from.0, to.0)) {
            let now = self.now;
            self.node(to.0).replica.handle_message(from, message, now);
        }
        true
    }

    fn drain(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        loop {
            while let Some(output) = node.replica.poll_output() {
                match output {
                    Output::Persist { token, record } => {
                        node.disk.push(record);
                        node.newest_token = token;
                    }
                    Output::Send { to, message } => self.mail.push_back((node.id, to, message)),
                    Output::Commit { index, value } => {
                        assert_eq!(index.0, node.committed.len() as u64 + 1);
                        node.committed.push(value);
                    }
                    Output::ReadLog { to, first, last } => {
                        let entries = read(&node.disk[..node.durable], first, last);
                        self.mail.push_back((node.id, to, Message::chosen(entries)));
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
    fn restart(&mut self, node: u32, applied: Index) {
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
                Record::Truncate(index) => recovered.truncated = *index,
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
        let replica = self.replica(id, &members, recovered);
        self.node(id.0).replica = replica;
        self.settle();
    }
}

/// The newest accepted entries of a range, ascending.
fn read(disk: &[Record], first: Index, last: Index) -> Vec<Entry> {
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

fn text(value: &Value) -> String {
    match value {
        Value::Noop => "noop".to_owned(),
        Value::Data(data) => String::from_utf8_lossy(data).into_owned(),
        Value::Config(_) => "config".to_owned(),
    }
}

#[test]
fn what_is_proposed_is_committed_everywhere_in_order() {
    let mut group = Group::led_by_first(Options::default());
    assert_eq!(group.propose(1, "a"), Index(2));
    assert_eq!(group.propose(1, "b"), Index(3));
    // The leader knows first; followers learn with the next message.
    assert_eq!(group.committed(1), ["noop", "a", "b"]);
    assert_eq!(group.committed(2), ["noop", "a"]);
    group.heartbeat();
    assert!((1..=3).all(|node| group.committed(node) == ["noop", "a", "b"]));
    assert!(group.may_serve(1) && !group.may_serve(2) && !group.may_serve(3));
    let now = group.now;
    let refused = group.node(2).replica.propose(Bytes::from_static(b"c"), now);
    assert_eq!(refused, Err(ProposeError::NotLeader));
}

#[test]
fn a_group_of_one_needs_nobody() {
    let mut group = Group::new(1, Options::default());
    group.campaign(1);
    group.propose(1, "a");
    assert_eq!(group.committed(1), ["noop", "a"]);
    assert!(group.may_serve(1));
    group.restart(1, Index(1));
    group.pass(Duration::from_secs(3));
    assert_eq!(group.committed(1), ["noop", "a", "noop"]);
}

#[test]
fn a_new_leader_recovers_what_one_member_accepted() {
    let mut group = Group::led_by_first(Options::default());
    // Only node 2 hears of "a", and its answer is lost.
    group.cut = vec![(1, 3), (2, 1)];
    group.propose(1, "a");
    assert_eq!(group.committed(1), ["noop"]);
    group.cut.clear();
    group.isolate(1);
    group.pass(Duration::from_secs(3));
    for node in [2, 3] {
        assert_eq!(group.committed(node), ["noop", "a", "noop"], "node {node}");
    }
    // The deposed leader learns what became of its proposal.
    group.cut.clear();
    group.pass(Duration::from_secs(1));
    assert_eq!(group.role(1), Role::Follower);
    assert_eq!(group.committed(1), ["noop", "a", "noop"]);
}

#[test]
fn gaps_are_filled_with_noops() {
    let mut group = Group::led_by_first(Options::default());
    group.isolate(1);
    group.propose(1, "lost");
    group.cut = vec![(1, 3), (2, 1)];
    group.propose(1, "kept");
    group.cut.clear();
    group.isolate(1);
    group.pass(Duration::from_secs(3));
    let expected = ["noop", "noop", "kept", "noop"];
    assert!([2, 3].iter().all(|node| group.committed(*node) == expected));
    group.cut.clear();
    group.pass(Duration::from_secs(1));
    assert_eq!(group.committed(1), expected);
}

#[test]
fn nothing_is_promised_or_counted_before_it_is_durable() {
    let mut group = Group::led_by_first(Options::default());
    for node in [2, 3] {
        group.node(node).disk_works = false;
    }
    group.propose(1, "a");
    assert_eq!(group.committed(1), ["noop"], "the leader alone is no quorum");
    group.node(2).disk_works = true;
    group.settle();
    assert_eq!(group.committed(1), ["noop", "a"]);

    // The leader's own acceptance is held back in the same way.
    group.node(1).disk_works = false;
    group.propose(1, "b");
    assert_eq!(group.committed(1), ["noop", "a"], "node 2 alone is no quorum");
    group.node(1).disk_works = true;
    group.settle();
    assert_eq!(group.committed(1), ["noop", "a", "b"]);

    // A promise too: the candidate waits for it.
    group.node(1).disk_works = false;
    group.campaign(2);
    assert_eq!(group.role(2), Role::Candidate);
    group.node(1).disk_works = true;
    group.settle();
    assert_eq!(group.role(2), Role::Leader);
}

#[test]
fn a_restarted_member_keeps_its_promise_and_what_it_accepted() {
    let mut group = Group::led_by_first(Options::default());
    group.propose(1, "a");
    group.propose(1, "b");
    group.restart(2, Index(1));
    // The mark says how far what is in its log was chosen.
    assert_eq!(group.committed(2), ["noop", "a"]);
    let low = Ballot::new(0, NodeId(3));
    group.cut = vec![(2, 3)];
    group.tell(3, 2, Message::Prepare { ballot: low, handed: Ballot::ZERO, config: Index(0) });
    assert_eq!(group.node(2).replica.status().promised, Ballot::new(1, NodeId(1)));
    group.cut.clear();
    group.heartbeat();
    assert_eq!(group.committed(2), ["noop", "a", "b"]);
}

#[test]
fn a_member_that_was_away_catches_up_from_memory_or_from_disk() {
    for keep_bytes in [0, 1 << 20] {
        let mut group = Group::led_by_first(Options { keep_bytes, ..Options::default() });
        group.isolate(3);
        for value in ["a", "b", "c"] {
            group.propose(1, value);
        }
        group.cut.clear();
        group.heartbeat();
        assert_eq!(group.committed(3), ["noop", "a", "b", "c"], "keeping {keep_bytes}");
    }
}

#[test]
fn entries_are_dropped_once_every_state_machine_holds_them() {
    let mut group = Group::led_by_first(Options::default());
    group.propose(1, "a");
    group.heartbeat();
    for node in [1, 2] {
        group.node(node).replica.set_flushed(Index(2));
    }
    group.heartbeat();
    group.heartbeat();
    assert_eq!(group.node(1).replica.status().truncated, Index(0), "node 3 has flushed nothing");
    group.node(3).replica.set_flushed(Index(1));
    group.heartbeat();
    group.heartbeat();
    assert!((1..=3).all(|node| group.node(node).replica.status().truncated == Index(1)));
}

#[test]
fn a_state_machine_is_flushed_only_as_far_as_the_log_is_durable() {
    let mut group = Group::led_by_first(Options::default());
    group.node(1).disk_works = false;
    group.propose(1, "a");
    assert_eq!(group.committed(1), ["noop", "a"], "nodes 2 and 3 are a quorum");
    assert_eq!(group.node(1).replica.flushable(), Index(1));
    group.node(1).disk_works = true;
    group.settle();
    assert_eq!(group.node(1).replica.flushable(), Index(2));
}

#[test]
fn a_new_leader_commits_only_when_the_old_lease_has_ended() {
    let mut group = Group::led_by_first(Options::default());
    group.isolate(1);
    // Nothing is wrong with node 1 but its links: it may serve until its lease ends.
    group.campaign(2);
    assert_eq!(group.role(2), Role::Leader);
    group.propose(2, "a");
    let mut deferred_ms = 0;
    while group.committed(2).len() == 1 {
        assert!(!group.may_serve(2));
        group.pass(Duration::from_millis(10));
        deferred_ms += 10;
    }
    assert!(!group.may_serve(1));
    assert_eq!(group.committed(2), ["noop", "noop", "a"]);
    assert!((850..=1000).contains(&deferred_ms), "{deferred_ms} ms");
    group.heartbeat();
    assert!(group.may_serve(2));
}

#[test]
fn a_leader_nobody_answers_stops_serving_and_then_leading() {
    let mut group = Group::led_by_first(Options::default());
    group.isolate(1);
    group.pass(Duration::from_millis(600));
    assert!(group.may_serve(1));
    group.pass(Duration::from_millis(250));
    assert!(!group.may_serve(1));
    assert_eq!(group.role(1), Role::Leader);
    group.pass(Duration::from_millis(1200));
    assert_ne!(group.role(1), Role::Leader);
}

#[test]
fn a_broken_link_to_the_leader_deposes_nobody() {
    let mut group = Group::led_by_first(Options::default());
    let ballot = group.node(1).replica.status().ballot;
    group.cut = vec![(1, 3), (3, 1)];
    group.pass(Duration::from_secs(5));
    for node in [1, 2] {
        assert_eq!(group.node(node).replica.status().ballot, ballot);
    }
    assert_eq!(group.role(3), Role::Follower);
    // Once the leader is gone for all, somebody else leads.
    group.isolate(1);
    group.pass(Duration::from_secs(4));
    assert!([2, 3].iter().any(|node| group.may_serve(*node)));
}

#[test]
fn a_full_window_refuses_and_moves_on() {
    let options = Options { window_entries: 2, window_bytes: 100, ..Options::default() };
    let mut group = Group::led_by_first(options);
    group.isolate(1);
    group.propose(1, "a");
    group.propose(1, "b");
    let now = group.now;
    let leader = &mut group.node(1).replica;
    assert_eq!(leader.may_propose(1), Err(ProposeError::WindowFull));
    assert_eq!(leader.propose(Bytes::new(), now), Err(ProposeError::WindowFull));
    group.cut.clear();
    group.pass(Duration::from_millis(600));
    assert_eq!(group.committed(1), ["noop", "a", "b"]);
    // One value may be larger than the window, but not together with others.
    assert_eq!(group.node(1).replica.may_propose(1000), Ok(()));
    group.isolate(1);
    group.propose(1, "c");
    assert_eq!(group.node(1).replica.may_propose(100), Err(ProposeError::WindowFull));
}

/// Members hold what came to nothing, or what is chosen now but of a ballot in which it was not: the
/// entry learned from any of them replaces all that, on disk too.
#[test]
fn a_chosen_entry_replaces_what_was_accepted_of_older_ballots() {
    let mut group = Group::new(5, Options::default());
    let accept = |round, node, text: &'static str| Message::Accept {
        ballot: Ballot::new(round, NodeId(node)),
        values: vec![(Index(1), Value::Data(Bytes::from_static(text.as_bytes())))],
        chosen: Index(0),
        sent: Instant(0),
    };
    group.tell(1, 2, accept(1, 1, "x"));
    group.tell(3, 4, accept(2, 3, "y"));
    // Ballot 3 chose "x" with nodes 1, 3 and 5.
    let (ballot, value) = (Ballot::new(3, NodeId(1)), Value::Data(Bytes::from_static(b"x")));
    let entries = vec![Entry { index: Index(1), ballot, value }];
    group.tell(5, 2, Message::Chosen { entries });
    assert_eq!(group.committed(2), ["x"]);
    group.tell(4, 2, Message::Need { first: Index(1) });
    assert_eq!(group.committed(4), ["x"]);
    group.restart(4, Index(0));
    assert_eq!(group.committed(4), ["x"]);
}

#[test]
fn an_answer_to_an_older_ballot_counts_for_nothing() {
    let mut group = Group::led_by_first(Options::default());
    group.isolate(1);
    let indexes = vec![group.propose(1, "a")];
    let old = group.node(1).replica.status().ballot;
    // Node 1 leads again, by the promise of node 3, whose disk then stops.
    group.cut = vec![(1, 2), (2, 1)];
    let sent = group.now;
    group.node(1).replica.campaign(sent);
    while group.role(1) != Role::Leader {
        group.deliver_one();
    }
    group.node(3).disk_works = false;
    group.settle();
    let new = group.node(1).replica.status().ballot;
    assert!(new > old);
    group.tell(2, 1, Message::Accepted { ballot: old, indexes: indexes.clone(), sent });
    assert_eq!(group.committed(1), ["noop"]);
    group.tell(2, 1, Message::Accepted { ballot: new, indexes, sent });
    assert_eq!(group.committed(1), ["noop", "a"]);
}

/// On disk the index still holds another value, of an older ballot: memory has to answer.
#[test]
fn what_is_not_durable_is_not_read_from_disk() {
    let mut group = Group::new(3, Options { keep_bytes: 0, ..Options::default() });
    let value = |text: &'static str| Value::Data(Bytes::from_static(text.as_bytes()));
    let (chosen, sent) = (Index(0), Instant(0));
    let ballot = Ballot::new(1, NodeId(1));
    group.tell(
        1,
        2,
        Message::Accept { ballot, values: vec![(Index(1), value("old"))], chosen, sent },
    );
    group.node(2).disk_works = false;
    let entry = Entry { index: Index(1), ballot: Ballot::new(2, NodeId(3)), value: value("new") };
    group.tell(3, 2, Message::Chosen { entries: vec![entry] });
    assert_eq!(group.committed(2), ["new"]);
    group.tell(3, 2, Message::Need { first: Index(1) });
    assert_eq!(group.committed(3), ["new"]);
}

/// Whoever said that an entry is chosen is gone: the others know enough without it.
#[test]
fn a_leader_that_gets_no_catch_up_asks_the_living() {
    let mut group = Group::led_by_first(Options::default());
    // Node 1 commits "a"; nodes 2 and 3 accepted it and do not know.
    group.propose(1, "a");
    // Node 2's promises are lost: node 3 leads with node 1's, which says that "a" is chosen.
    group.cut = vec![(2, 3)];
    group.cut.push((1, 2));
    let now = group.now;
    group.node(3).replica.campaign(now);
    while group.role(3) != Role::Leader {
        group.deliver_one();
    }
    group.cut.clear();
    group.isolate(1);
    group.pass(Duration::from_secs(4));
    for node in [2, 3] {
        assert_eq!(group.committed(node)[..2], ["noop", "a"], "node {node}");
    }
    assert!(group.may_serve(3));
}

#[test]
fn leadership_is_handed_over_without_a_pause() {
    let mut group = Group::led_by_first(Options::default());
    group.propose(1, "a");
    let now = group.now;
    assert_eq!(group.node(2).replica.transfer(NodeId(3), now), Err(TransferError::NotLeader));
    assert_eq!(group.node(1).replica.transfer(NodeId(1), now), Err(TransferError::NoCandidate));
    group.node(1).replica.transfer(NodeId(3), now).expect("it serves");
    // Until it is done nothing new may come in between.
    assert_eq!(group.node(1).replica.may_propose(1), Err(ProposeError::WindowFull));
    group.settle();
    assert_eq!((group.role(1), group.role(3)), (Role::Follower, Role::Leader));
    assert_eq!(group.committed(3), ["noop", "a", "noop"]);
    assert!(group.may_serve(3) && !group.may_serve(1));
}

#[test]
fn a_transfer_to_nobody_ends_and_the_leader_leads_on() {
    let mut group = Group::led_by_first(Options::default());
    group.isolate(3);
    let now = group.now;
    group.node(1).replica.transfer(NodeId(3), now).expect("it serves");
    group.pass(Duration::from_millis(1100));
    assert!(group.may_serve(1));
    assert_eq!(group.propose(1, "a"), Index(2));
}

/// A member that lost what it accepted says so, and then it takes the others to know what there was.
#[test]
fn a_damaged_entry_is_neither_missing_nor_there() {
    let mut group = Group::led_by_first(Options::default());
    group.cut = vec![(1, 3)];
    group.propose(1, "a");
    assert_eq!(group.committed(1), ["noop", "a"]);
    // Node 2's copy is damaged; node 1, which has the other, is away.
    group.node(2).damaged = vec![Index(2)];
    group.restart(2, Index(1));
    group.cut.clear();
    group.isolate(1);
    group.pass(Duration::from_secs(5));
    assert!([2, 3].iter().all(|node| group.role(*node) != Role::Leader));
    group.cut.clear();
    group.pass(Duration::from_secs(5));
    for node in 1..=3 {
        assert_eq!(group.committed(node)[..2], ["noop", "a"], "node {node}");
    }
    // It is repaired on disk too.
    group.node(2).damaged.clear();
    group.restart(2, Index(1));
    assert_eq!(group.committed(2)[..2], ["noop", "a"]);
}

fn members(storage: &[u32], log: &[u32]) -> Vec<Member> {
    let of = |ids: &[u32], kind| {
        ids.iter().map(|id| Member { id: NodeId(*id), kind }).collect::<Vec<_>>()
    };
    [of(storage, MemberKind::Storage), of(log, MemberKind::Log)].concat()
}

#[test]
fn a_member_is_replaced_and_an_identity_never_returns() {
    let mut group = Group::led_by_first(Options::default());
    group.propose(1, "a");
    // Node 4 is not there yet: two of the new members are enough.
    let now = group.now;
    let changed = group.node(1).replica.change_members(&members(&[1, 2, 4], &[]), now);
    assert_eq!(changed, Ok(Index(3)));
    assert_eq!(group.node(1).replica.may_propose(1), Err(ProposeError::WindowFull));
    group.settle();
    group.heartbeat();
    let config = group.node(1).replica.config().clone();
    assert!(!config.is_joint() && config.kind(NodeId(3)).is_none(), "{config:?}");
    assert_eq!(group.node(3).replica.config(), &config, "who was removed is told");
    group.pass(Duration::from_secs(4));
    assert_eq!(group.role(1), Role::Leader, "and disturbs nobody");
    let now = group.now;
    let back = group.node(1).replica.change_members(&members(&[1, 2, 3], &[]), now);
    assert!(matches!(back, Err(ChangeError::Invalid(_))), "{back:?}");
    let on_follower = group.node(2).replica.change_members(&members(&[1, 2, 5], &[]), now);
    assert_eq!(on_follower, Err(ChangeError::NotLeader));
}

#[test]
fn a_log_replica_votes_and_never_leads() {
    let mut group = Group::led_by_first(Options::default());
    group.join(4);
    let now = group.now;
    let changed = group.node(1).replica.change_members(&members(&[1, 2, 3], &[4]), now);
    changed.expect("it serves");
    group.settle();
    group.heartbeat();
    group.heartbeat();
    assert_eq!(group.node(4).replica.config().kind(NodeId(4)), Some(MemberKind::Log));
    // Three of four: without its vote nothing would be chosen now.
    group.isolate(3);
    let index = group.propose(1, "a");
    assert_eq!(group.node(1).replica.status().chosen, index);
    group.isolate(1);
    group.isolate(2);
    group.pass(Duration::from_secs(6));
    assert_eq!(group.role(4), Role::Follower);
}

/// A member that joins late needs the state machine, and the log from there on.
#[test]
fn a_late_member_installs_a_snapshot() {
    let mut group = Group::led_by_first(Options::default());
    group.propose(1, "a");
    group.heartbeat();
    for node in 1..=3 {
        group.node(node).replica.set_flushed(Index(2));
    }
    group.heartbeat();
    group.heartbeat();
    assert_eq!(group.node(1).replica.status().truncated, Index(2));
    group.join(4);
    let now = group.now;
    let changed = group.node(1).replica.change_members(&members(&[1, 2, 4], &[]), now);
    changed.expect("it serves");
    group.settle();
    group.heartbeat();
    group.heartbeat();
    assert_eq!(group.node(4).snapshot, Some((NodeId(1), Index(2))));
    let config = group.node(1).replica.config().clone();
    let values = group.node(1).committed[..2].to_vec();
    let now = group.now;
    group.node(4).committed = values;
    group.node(4).replica.installed(Index(2), config, now);
    group.propose(1, "b");
    group.pass(Duration::from_secs(1));
    let all = group.committed(1);
    assert_eq!(group.committed(4), all);
}
