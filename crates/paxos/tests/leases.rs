//! Who may lead and serve, and for how long: one story each.

mod harness;

use std::time::Duration;

use harness::Group;
use paxos::{Ballot, Index, Instant, Message, NodeId, Options, ProposeError, Role, TransferError};

/// Nodes 2 and 3 forget whom they back: node 1 serves on until what they told it has ended.
#[test]
fn a_new_leader_commits_only_when_a_forgotten_lease_has_ended() {
    let mut group = Group::led_by_first(Options::default());
    group.isolate(1);
    group.restart(2, Index(1));
    group.restart(3, Index(1));
    assert!(group.may_serve(1));
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
fn who_backs_a_leader_promises_nobody_else() {
    let mut group = Group::led_by_first(Options::default());
    let ballot = group.node(1).replica.status().ballot;
    group.campaign(2);
    assert_eq!(group.role(2), Role::Follower, "it backs node 1 itself");
    let other = Ballot::new(9, NodeId(3));
    group.tell(
        3,
        2,
        Message::Prepare { ballot: other, handed: Ballot::ZERO, config: Index(0), first: Index(0) },
    );
    assert_eq!(group.node(2).replica.status().promised, ballot);
    // The leader's own node may, and then nobody backs the old ballot any more.
    group.campaign(1);
    assert!(group.node(2).replica.status().promised > ballot);
    group.heartbeat();
    assert!(group.may_serve(1));
}

#[test]
fn an_idle_group_is_silent_and_has_no_deadline() {
    let mut group = Group::led_by_first(Options::default());
    group.propose(1, "a");
    group.pass(Duration::from_millis(500));
    let sent = group.sent;
    group.pass(Duration::from_secs(60));
    assert_eq!(group.sent, sent);
    for node in 1..=3 {
        assert_eq!(group.node(node).replica.next_deadline(), Instant(u64::MAX), "node {node}");
    }
    assert!(group.may_serve(1));
    // A member that is away costs little, and is not forgotten.
    group.isolate(3);
    group.pass(Duration::from_secs(60));
    assert!(group.sent < sent + 100, "{} messages to nobody", group.sent - sent);
    group.cut.clear();
    group.pass(Duration::from_secs(2));
    assert_eq!(group.role(1), Role::Leader);
    let sent = group.sent;
    group.pass(Duration::from_secs(60));
    assert_eq!(group.sent, sent);
}

/// Whoever is well supported and does not lead says so when somebody else is to lead.
#[test]
fn a_release_that_was_lost_is_repeated_on_demand() {
    let mut group = Group::led_by_first(Options::default());
    group.transfer(1, 2);
    // Node 3 hears nothing of it, and so backs node 1.
    group.cut = vec![(1, 3), (2, 3)];
    group.settle();
    assert_eq!(group.role(2), Role::Leader);
    group.cut.clear();
    group.isolate(2);
    group.pass(Duration::from_secs(4));
    assert!([1, 3].iter().any(|node| group.may_serve(*node)));
}

/// Node 2 follows node 3, which has handed over; node 3 follows node 1, which does not lead any more.
/// All nodes are well, so nobody's support ends: node 1 alone asks, and says why.
#[test]
fn releases_that_were_lost_one_after_the_other_are_repeated() {
    let mut group = Group::led_by_first(Options::default());
    group.transfer(1, 3);
    group.settle();
    group.heartbeat();
    group.transfer(3, 1);
    group.cut = vec![(1, 2), (3, 2)];
    group.settle();
    assert_eq!(group.role(1), Role::Leader);
    group.cut.clear();
    group.transfer(1, 3);
    while group.role(1) == Role::Leader {
        assert!(group.deliver_one(), "it hands over");
    }
    group.isolate(1);
    group.settle();
    group.cut.clear();
    for node in 1..=3 {
        assert_eq!(group.role(node), Role::Follower, "node {node}");
    }
    group.pass(Duration::from_secs(4));
    assert!((1..=3).any(|node| group.may_serve(node)));
}

#[test]
fn a_leader_that_hears_nobody_is_not_supported() {
    let mut group = Group::led_by_first(Options::default());
    group.cut = vec![(2, 1), (3, 1)];
    group.pass(Duration::from_secs(5));
    assert!(!group.may_serve(1));
    assert!([2, 3].iter().any(|node| group.may_serve(*node)));
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
fn leadership_is_handed_over_without_a_pause() {
    let mut group = Group::led_by_first(Options::default());
    group.propose(1, "a");
    let now = group.now;
    assert_eq!(group.node(2).replica.transfer(NodeId(3), now), Err(TransferError::NotLeader));
    assert_eq!(group.node(1).replica.transfer(NodeId(1), now), Err(TransferError::NoCandidate));
    group.transfer(1, 3);
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
    group.transfer(1, 3);
    group.pass(Duration::from_millis(1100));
    assert!(group.may_serve(1));
    assert_eq!(group.propose(1, "a"), Index(2));
}
