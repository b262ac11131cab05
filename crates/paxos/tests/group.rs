//! Small groups, message by message: the stories that the simulator tells by the thousand, one each.

mod harness;

use std::time::Duration;

use bytes::Bytes;
use harness::Group;
use paxos::{
    Ballot, ChangeError, Entry, Index, Member, MemberKind, Message, NodeId, Options, ProposeError,
    Role, Value,
};

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
    let now = group.now;
    group.node(1).replica.transfer(NodeId(2), now).expect("it serves");
    group.settle();
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
    group.tell(
        3,
        2,
        Message::Prepare { ballot: low, handed: Ballot::ZERO, config: Index(0), first: Index(0) },
    );
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

/// A follower that lacks the first entry, or whose disk stands still, does not take all that comes.
#[test]
fn what_a_member_holds_in_memory_is_bounded() {
    let (value, held) = ("x".repeat(100), 2_000);
    let value: &'static str = value.leak();
    for disk_works in [true, false] {
        let options = Options {
            held_bytes: held,
            catch_up_ahead_bytes: held,
            catch_up_bytes: 500,
            keep_bytes: 0,
            ..Options::default()
        };
        let mut group = Group::led_by_first(options);
        if disk_works {
            group.cut.push((1, 3));
            group.propose(1, "lost");
            group.cut.clear();
            // Nor does it get it when it asks.
            group.cut.push((3, 1));
        } else {
            group.node(3).disk_works = false;
        }
        for _ in 0..100 {
            group.propose(1, value);
        }
        let last = group.node(3).replica.status().last_index;
        assert!(
            last > Index(5) && last < Index(30),
            "{last:?} with a disk that works: {disk_works}"
        );
        group.cut.clear();
        group.node(3).disk_works = true;
        group.settle();
        group.pass(Duration::from_secs(2));
        assert_eq!(group.committed(3), group.committed(1));
        assert!(group.may_serve(1), "others had all they needed");
    }
}

#[test]
fn who_catches_up_waits_for_its_disk() {
    let options = Options {
        catch_up_bytes: 100,
        catch_up_ahead_bytes: 1_000,
        keep_bytes: 0,
        ..Options::default()
    };
    let mut group = Group::led_by_first(options);
    group.isolate(3);
    for _ in 0..100 {
        group.propose(1, "a value of some length");
    }
    group.cut.clear();
    group.node(3).disk_works = false;
    group.pass(Duration::from_secs(2));
    let learned = group.committed(3).len();
    assert!((3..30).contains(&learned), "{learned} learned");
    group.node(3).disk_works = true;
    group.pass(Duration::from_secs(1));
    assert_eq!(group.committed(3), group.committed(1));
}

/// What came while one entry was lacking is not handed out with that one, and nobody is needed for it.
#[test]
fn what_was_held_up_is_handed_out_in_pieces() {
    for has_new_leader in [false, true] {
        let mut group = Group::led_by_first(Options { hand_out_bytes: 0, ..Options::default() });
        group.cut.push((1, 3));
        let index = group.propose(1, "lost");
        // It cannot ask either.
        group.cut = vec![(3, 1)];
        for _ in 0..30 {
            group.propose(1, "value");
        }
        assert_eq!(group.committed(3), ["noop"]);
        group.isolate(3);
        let ballot = group.node(1).replica.status().ballot;
        let value = Value::Data(Bytes::from_static(b"lost"));
        group.tell(1, 3, Message::chosen(vec![Entry { index, ballot, value }]));
        assert_eq!(group.committed(3), ["noop", "lost", "value"], "one more");
        assert!(group.node(3).replica.has_more());
        assert!(group.node(3).replica.next_deadline() <= group.now);
        let known = group.committed(1);
        // The leader told of the last one that it was proposed.
        let known = &known[..known.len() - 1];
        if has_new_leader {
            // Nothing else tells it that what it holds is chosen, should the second lead now.
            let ballot = Ballot::new(ballot.round() + 1, NodeId(2));
            group.tell(2, 3, Message::Accept { ballot, values: Vec::new(), chosen: Index(0) });
            assert_eq!(group.node(3).replica.status().promised, ballot);
        } else {
            group.pass(Duration::from_millis(100));
            assert_eq!(group.committed(3).len(), 13, "one with each tick");
            group.pass(Duration::from_millis(200));
        }
        assert_eq!(group.committed(3), known);
        assert!(!group.node(3).replica.has_more());
        group.cut.clear();
        group.pass(Duration::from_secs(5));
        assert_eq!(group.committed(3), group.committed(1));
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
fn who_starts_again_may_flush_what_it_holds_before_anybody_speaks_to_it() {
    let mut group = Group::led_by_first(Options::default());
    group.propose(1, "a");
    group.heartbeat();
    group.isolate(2);
    group.restart(2, Index(1));
    assert_eq!(group.node(2).replica.status().chosen, Index(2));
    assert_eq!(group.node(2).replica.flushable(), Index(2));
}

#[test]
fn a_roll_that_is_called_counts_only_what_members_say_afterwards() {
    let mut group = Group::led_by_first(Options::default());
    let index = group.propose(1, "a");
    group.heartbeat();
    let known =
        |group: &Group, node| group.nodes[0].replica.progress(NodeId(node)).map(|(_, known)| known);
    assert!([2, 3].iter().all(|node| known(&group, *node) == Some(index)));
    group.isolate(3);
    let now = group.now;
    assert_eq!(group.node(2).replica.call_roll(now), None, "it does not lead");
    assert_eq!(group.node(1).replica.call_roll(now), Some(index));
    assert!([2, 3].iter().all(|node| known(&group, *node) == Some(Index(0))));
    // At once, though there is nothing new to tell.
    group.pass(Duration::from_millis(10));
    assert_eq!((known(&group, 2), known(&group, 3)), (Some(index), Some(Index(0))));
    assert!(group.may_serve(1), "nothing else has changed");
    group.cut.clear();
    group.pass(Duration::from_secs(2));
    assert_eq!(known(&group, 3), Some(index));
}

#[test]
fn members_are_changing_from_the_proposal_to_the_end() {
    let mut group = Group::led_by_first(Options::default());
    group.join(4);
    group.cut = [2, 3].map(|node| (node, 1)).to_vec();
    assert!(!group.node(1).replica.is_changing());
    let now = group.now;
    let changed = group.node(1).replica.change_members(&members(&[1, 2, 4], &[]), now);
    changed.expect("it leads");
    group.settle();
    assert!(!group.node(1).replica.config().is_joint(), "it is not chosen");
    assert!(group.node(1).replica.is_changing());
    group.cut.clear();
    group.pass(Duration::from_secs(1));
    assert_eq!(group.node(1).replica.config().members, members(&[1, 2, 4], &[]));
    assert!(!group.node(1).replica.is_changing());
}

#[test]
fn who_is_reluctant_leads_only_if_nobody_else_does() {
    for reluctant in [2, 3] {
        let mut group = Group::led_by_first(Options::default());
        group.node(reluctant).replica.set_reluctant(true);
        group.isolate(1);
        group.pass(Duration::from_secs(3));
        assert_eq!(group.role(5 - reluctant), Role::Leader);
        assert_eq!(group.role(reluctant), Role::Follower);
        // The other is gone now, and the first is back, which has not forgotten how to.
        group.node(1).replica.set_reluctant(true);
        group.cut.clear();
        group.pass(Duration::from_secs(1));
        group.isolate(5 - reluctant);
        group.pass(Duration::from_secs(6));
        let leads = [1, reluctant].map(|node| group.role(node) == Role::Leader);
        assert!(leads[0] != leads[1], "{leads:?}");
    }
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

/// One that has handed out nothing of what it accepted has much to tell.
#[test]
fn a_promise_comes_in_parts_and_counts_with_the_last() {
    let mut group = Group::led_by_first(Options { catch_up_bytes: 100, ..Options::default() });
    let values = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"].map(|value| value.repeat(40));
    // What node 2 accepts is all there is; it lacks the first entry, and so hands out nothing.
    group.isolate(3);
    group.cut.push((1, 2));
    group.propose(1, "lost");
    group.cut.retain(|link| *link != (1, 2));
    group.cut.push((2, 1));
    let now = group.now;
    for value in &values {
        let data = Bytes::copy_from_slice(value.as_bytes());
        group.node(1).replica.propose(data, now).expect("leads, and has room");
        group.settle();
    }
    group.cut.clear();
    group.isolate(1);
    group.cut.extend([(2, 3), (3, 2)]);
    // Nobody backs node 1 any more, and nobody else leads.
    group.pass(Duration::from_millis(1_200));
    group.cut.retain(|link| *link != (2, 3) && *link != (3, 2));
    group.promised.clear();
    let now = group.now;
    group.node(3).replica.campaign(now);
    while group.promised.len() < 2 {
        assert!(group.deliver_one());
    }
    assert_eq!(group.role(3), Role::Candidate, "there is more to tell");
    // One part is lost, and asked for again.
    group.cut.push((2, 3));
    while group.promised.len() < 3 {
        assert!(group.deliver_one());
    }
    group.settle();
    group.cut.retain(|link| *link != (2, 3));
    group.pass(Duration::from_millis(700));
    assert_eq!(group.role(3), Role::Leader);
    // Three values make 100 bytes.
    assert!(group.promised.iter().all(|entries| *entries <= 3), "{:?}", group.promised);
    assert!(group.promised.iter().sum::<usize>() >= values.len());
    group.heartbeat();
    for node in [2, 3] {
        assert_eq!(group.committed(node)[2..12], values, "node {node}");
    }
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
    let now = group.now;
    group.node(1).replica.campaign(now);
    while group.role(1) != Role::Leader {
        group.deliver_one();
    }
    group.node(3).disk_works = false;
    group.settle();
    let new = group.node(1).replica.status().ballot;
    assert!(new > old);
    group.tell(2, 1, Message::Accepted { ballot: old, indexes: indexes.clone() });
    assert_eq!(group.committed(1), ["noop"]);
    group.tell(2, 1, Message::Accepted { ballot: new, indexes });
    assert_eq!(group.committed(1), ["noop", "a"]);
}

/// On disk the index still holds another value, of an older ballot: memory has to answer.
#[test]
fn what_is_not_durable_is_not_read_from_disk() {
    let mut group = Group::new(3, Options { keep_bytes: 0, ..Options::default() });
    let value = |text: &'static str| Value::Data(Bytes::from_static(text.as_bytes()));
    let chosen = Index(0);
    let ballot = Ballot::new(1, NodeId(1));
    group.tell(1, 2, Message::Accept { ballot, values: vec![(Index(1), value("old"))], chosen });
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
    // It has forgotten whom it backs.
    group.restart(3, Index(1));
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
fn a_state_machine_is_flushed_only_as_far_as_the_members_are_durable() {
    let mut group = Group::led_by_first(Options::default());
    group.join(4);
    let now = group.now;
    let changed = group.node(1).replica.change_members(&members(&[1, 2, 3, 4], &[]), now);
    assert_eq!(changed, Ok(Index(2)));
    while group.node(2).replica.status().last_index < Index(2) {
        assert!(group.deliver_one());
    }
    // The entry of the joint members is durable, what is made of it is not: nor of the ones behind.
    group.drain(1);
    group.node(2).disk_works = false;
    group.pass(Duration::from_secs(1));
    let config = group.node(2).replica.config();
    assert_eq!((config.index, config.is_joint()), (Index(3), false));
    assert_eq!(group.node(2).replica.status().chosen, Index(3));
    assert_eq!(group.node(2).replica.flushable(), Index(1));
    group.node(2).disk_works = true;
    group.settle();
    assert_eq!(group.node(2).replica.flushable(), Index(3));
}

#[test]
fn a_leader_that_learns_of_newer_members_has_been_replaced() {
    let mut group = Group::led_by_first(Options::default());
    group.propose(1, "a");
    let mut config = group.node(1).replica.config().clone();
    config.index = Index(50);
    // The answer to a question of long ago.
    let (first, through) = (Index(1), Index(40));
    group.cut = vec![(1, 2), (1, 3)];
    group.tell(2, 1, Message::Truncated { first, through, config });
    assert_eq!(group.role(1), Role::Follower);
    assert_eq!(group.node(1).replica.config().index, Index(50));
}

/// Three storage members, and the fourth keeps nothing but the log.
fn with_log_replica() -> Group {
    let mut group = Group::led_by_first(Options::default());
    group.join(4);
    let now = group.now;
    let changed = group.node(1).replica.change_members(&members(&[1, 2, 3], &[4]), now);
    changed.expect("it serves");
    group.settle();
    group
}

#[test]
fn a_log_replica_votes_and_never_leads() {
    let mut group = with_log_replica();
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

/// Members count on what it says it has: an end of a change needs it on a majority's disks.
#[test]
fn a_log_replica_goes_on_behind_what_is_gone_durably_before_it_says_so() {
    let mut group = with_log_replica();
    group.pass(Duration::from_secs(1));
    group.isolate(4);
    group.propose(1, "a");
    let index = group.propose(1, "b");
    group.heartbeat();
    for node in 1..=3 {
        group.node(node).replica.set_flushed(index);
    }
    group.pass(Duration::from_secs(1));
    assert_eq!(group.node(1).replica.status().truncated, index);
    group.node(4).disk_works = false;
    group.cut.clear();
    group.pass(Duration::from_secs(2));
    assert_eq!(group.node(4).replica.status().chosen, index, "it is behind what is gone");
    let known =
        |group: &mut Group| group.node(1).replica.progress(NodeId(4)).map(|(_, known)| known);
    assert!(known(&mut group) < Some(index), "a crash now would undo that");
    group.node(4).disk_works = true;
    group.pass(Duration::from_secs(2));
    assert_eq!(known(&mut group), Some(index));
    group.restart(4, index);
    assert_eq!(group.node(4).replica.status().truncated, index);
}

/// It has no state to be replaced, and its host may have another replica that has.
#[test]
fn a_log_replica_that_was_removed_wants_no_snapshot() {
    let mut group = Group::led_by_first(Options::default());
    group.join(4);
    for log in [&[4][..], &[]] {
        let now = group.now;
        let changed = group.node(1).replica.change_members(&members(&[1, 2, 3], log), now);
        changed.expect("it serves");
        group.settle();
        group.pass(Duration::from_secs(1));
    }
    let config = group.node(1).replica.config().clone();
    assert_eq!(group.node(4).replica.config(), &config, "it was told");
    // What it asked for while it was a member is answered late.
    let first = group.node(4).replica.status().chosen.next();
    let through = Index(first.0 + 10);
    group.tell(1, 4, Message::Truncated { first, through, config });
    assert_eq!(group.node(4).snapshot, None);
    assert_eq!(group.node(4).replica.status().chosen.next(), first);
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
