//! Leaders look after their groups; every node looks after its rows.
//!
//! ```text
//! a member's node is silent for `heal_after` ─▶ a log replica on a spare node in its place: the group
//!                                               has its full quorum again, and nothing had to be copied
//! a log replica has stood in for            ─▶ a storage replica in its place, on another spare node
//! `rebuild_after`                               or on the same: it votes at once, and fetches its rows
//! a node lost the replica it had             ─▶ a new one on the same node, under a new identity
//! this node's rows are damaged               ─▶ it hands its leadership over, asks its groups' leaders
//!                                               whether they can do without it, and begins anew
//! ```
//!
//! Where there is no spare node nothing is done about a silent one; nor about one that has the rows, if
//! fewer than two others were left that have them: whoever is removed deletes its rows when it is back,
//! and a last copy is one failed disk away from none. Members change one at a time, and
//! never their number, but for what an operator orders. A spare node is in a zone that no member is in,
//! if there is one.
//!
//! Only the clock thread acts here; what messages say is noted down, and the replica is woken
//! ([`crate::agenda`]). No message is sent, and no core
//! entered, with the care of a partition locked: whoever answers may come back on the same thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use paxos::{ChangeError, Config, Member, MemberKind};
use tokio::sync::oneshot;
use wire::ids::{NodeId, PartitionId};
use wire::service::BoxFuture;

use crate::core::{Core, Now};
use crate::driver::Shared;
use crate::identity::{next, node_of};
use crate::message::{Host, Message};
use crate::partition::Partition;

/// Why an order is not carried out: another change came first.
const CHANGED_OTHERWISE: &str = "the members changed otherwise";
/// How often a leader looks after a group.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often a node is asked to take a replica in.
const HOST_EVERY: Duration = Duration::from_millis(200);
/// A change that has not happened by now will not.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long after a change that failed, or without a reason for one, a group is left alone.
const REST: Duration = Duration::from_secs(1);
/// How often a node with damaged rows asks whether it may go.
const MAY_DROP_EVERY: Duration = Duration::from_secs(1);
/// How long a permission to go is of use, from when it was asked for.
const PERMISSION: Duration = Duration::from_secs(3);
/// How long no other is given in the group; nor by a leader that does not know what the one before it
/// gave. Longer, since clocks drift.
const NO_OTHER: Duration = Duration::from_secs(5);
const _: () = assert!(NO_OTHER.as_millis() > PERMISSION.as_millis() * 6 / 5);
/// How long what a roll call found is of use: until the next ask, and a little longer.
const ROLL: Duration = Duration::from_secs(2);
const _: () = assert!(ROLL.as_millis() > MAY_DROP_EVERY.as_millis() * 6 / 5);
/// How long the log is kept for a replica that fetches a snapshot and is not heard of any more.
const HOLD: Duration = Duration::from_secs(60);
/// Members that are there and have the rows, at least, for another that has them to be given up.
const COPIES_MIN: usize = 2;

/// A change of a group's members, as an operator orders it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A replica on another node; one with a log only if `log`.
    Add {
        /// The node.
        node: NodeId,
        /// Whether it has a log only.
        log: bool,
    },
    /// The replica on this node goes; the log replica if it has both.
    Remove {
        /// The node.
        node: NodeId,
    },
}

/// What is done about a group, and what was heard of it.
#[derive(Default)]
pub(crate) struct Care {
    order: Option<Order>,
    /// There is an order, here or in the hands of who carries it out.
    is_ordered: bool,
    next_look: Option<Instant>,
    /// Since when this leader sees a log replica where a storage replica should be.
    stood_in: Option<Instant>,
    /// A replica that its node says is not there any more.
    gone: Option<paxos::NodeId>,
    /// The newest replica that a node says it has taken in.
    hosted: Option<paxos::NodeId>,
    /// The highest identity that a node would not take in.
    refused: u32,
    /// The newest replica that this one asked a node to take in, and of which kind.
    host_asked: Option<(paxos::NodeId, MemberKind)>,
    /// Whom this leader let go, and when.
    permitted: Option<(paxos::NodeId, Instant)>,
    /// The ballot in which this leader leads, and when it is first known to have had a lease in it.
    leads_in: Option<(u64, Instant)>,
    /// Members were last asked to tell anew how far they are.
    roll: Option<Roll>,
    /// The last time that the leader was asked to let this replica go, and as which ask.
    asked: Option<(u64, Instant)>,
    /// When the ask was made that it answered, and the ballot it leads in.
    may_go: Option<(Instant, u64)>,
    /// Replicas that are about to need the log behind an index, until then.
    held: BTreeMap<paxos::NodeId, (u64, Instant)>,
}

impl Care {
    /// Whom a permission to go may still be of use to.
    fn going(&self, now: Instant) -> Option<paxos::NodeId> {
        self.permitted.filter(|(_, at)| now - *at <= NO_OTHER).map(|(identity, _)| identity)
    }

    /// Keeps the log behind an index for a while, for a replica that fetches a snapshot.
    pub(crate) fn hold_log(&mut self, taker: paxos::NodeId, index: u64, now: Instant) {
        self.held.insert(taker, (index, now + HOLD));
    }

    /// Since when this leader is known to have had a lease in this ballot: no other gave a permission later.
    fn leads_since(&mut self, ballot: u64, now: Instant) -> Instant {
        let known = self.leads_in.filter(|(of, _)| *of == ballot);
        self.leads_in.insert(known.unwrap_or((ballot, now))).1
    }

    /// The lowest index behind which somebody is about to need the log, and when the first of those
    /// who are ceases to.
    fn held(&mut self, now: Instant) -> Option<(u64, Instant)> {
        self.held.retain(|_, (_, until)| *until > now);
        let index = self.held.values().map(|(index, _)| *index).min()?;
        let until = self.held.values().map(|(_, until)| *until).min()?;
        Some((index, until))
    }
}

/// What a leader asked all members: how far they are.
#[derive(Clone, Copy)]
struct Roll {
    ballot: u64,
    at: Instant,
    /// How far they must be to have everything that was chosen then.
    index: u64,
}

/// A change on its way.
struct Order {
    add: Option<Added>,
    remove: Option<paxos::NodeId>,
    /// The members that were proposed.
    target: Option<Vec<Member>>,
    deadline: Instant,
    /// Who waits for the outcome.
    tell: Option<oneshot::Sender<Result<(), String>>>,
}

struct Added {
    node: NodeId,
    kind: MemberKind,
    identity: Option<paxos::NodeId>,
    /// The life its node was in before this replica was last seen to lead: whatever the node voted for
    /// in an earlier one, this leader knows of.
    life: Option<u32>,
    next_ask: Option<Instant>,
}

impl Order {
    fn new(
        now: Instant,
        add: Option<(NodeId, MemberKind)>,
        remove: Option<paxos::NodeId>,
    ) -> Order {
        let add = add.map(|(node, kind)| Added {
            node,
            kind,
            identity: None,
            life: None,
            next_ask: None,
        });
        let deadline = now + CHANGE_TIMEOUT;
        Order { add, remove, target: None, deadline, tell: None }
    }

    fn end(self, outcome: Result<(), String>) {
        if let Some(tell) = self.tell {
            // Whoever asked may have gone.
            let _ = tell.send(outcome);
        }
    }
}

/// What is to be done about an order next.
enum Next {
    Wait(Order),
    Done(Order, Result<(), String>),
}

/// What a leader knows of its group.
struct View {
    ballot: u64,
    config: Config,
    /// Other members are on their way.
    is_changing: bool,
    members: Vec<MemberView>,
}

struct MemberView {
    member: Member,
    node: NodeId,
    is_heard: bool,
    /// It backs this leader, as the replica that it is and in the life its node is in.
    obeys: bool,
    /// It said how far it is since this replica leads.
    known: u64,
    /// It has the rows: what it lacks of them is in the log.
    has_rows: bool,
}

impl View {
    /// `None` if this replica does not lead with a lease.
    fn of(shared: &Shared, partition: &Partition, now: paxos::Instant) -> Option<View> {
        let core = partition.look();
        core.serves(now).then(|| View::of_core(shared, partition, &core, now))
    }

    /// The same where the lease may be missing for a moment, as just after a start.
    fn of_leader(shared: &Shared, partition: &Partition, now: paxos::Instant) -> Option<View> {
        let core = partition.look();
        core.replica.is_leader().then(|| View::of_core(shared, partition, &core, now))
    }

    fn of_core(shared: &Shared, partition: &Partition, core: &Core, now: paxos::Instant) -> View {
        let config = core.replica.config().clone();
        let is_changing = core.replica.is_changing();
        let status = core.replica.status();
        let (ballot, truncated) = (status.ballot.number, status.truncated.0);
        let view = |member: &Member| {
            let node = node_of(member.id);
            let is_me = member.id == partition.identity;
            let is_silent = shared.peers.is_silent(node, shared.options.heal_after, now);
            let is_heard = is_me || !is_silent;
            let known = core.replica.progress(member.id).map_or(0, |(_, known)| known.0);
            let known = if is_me { core.applied().index } else { known };
            let has_rows = member.kind == MemberKind::Storage && known > 0 && known >= truncated;
            let obeys = is_me || core.replica.is_backed_by(member.id, now);
            MemberView { member: *member, node, is_heard, obeys, known, has_rows }
        };
        let members = config.members.iter().map(view).collect();
        View { ballot, config, is_changing, members }
    }

    fn has_node(&self, node: NodeId) -> bool {
        self.members.iter().any(|member| member.node == node)
    }

    /// Whether the group can do without a member that is silent.
    fn can_give_up(&self, silent: &MemberView) -> bool {
        let is_copy = |other: &&MemberView| {
            other.is_heard && other.has_rows && other.member.id != silent.member.id
        };
        let copies = self.members.iter().filter(is_copy).count();
        silent.member.kind == MemberKind::Log || copies >= COPIES_MIN
    }
}

/// Orders a change of members; see [`crate::Node::change_members`].
pub(crate) fn order(
    shared: &Arc<Shared>,
    partition: PartitionId,
    change: Change,
) -> BoxFuture<Result<(), String>> {
    let outcome = start(shared, partition, change);
    Box::pin(async move {
        match outcome {
            Ok(told) => told.await.unwrap_or_else(|_| Err("the node stopped".into())),
            Err(error) => Err(error),
        }
    })
}

type Told = oneshot::Receiver<Result<(), String>>;

fn start(shared: &Arc<Shared>, id: PartitionId, change: Change) -> Result<Told, String> {
    let partition = find(shared, id)?;
    let view = View::of_leader(shared, &partition, shared.clock.monotonic());
    let view = view.ok_or(format!("node {} does not lead partition {id}", shared.id))?;
    let now = shared.clock.instant();
    let mut order = match change {
        Change::Add { node, log } => {
            let is_known = shared.options.nodes.iter().any(|(known, _)| *known == node);
            if !is_known {
                return Err(format!("no node {node}"));
            }
            if view.has_node(node) {
                return Err(format!("node {node} has a replica of partition {id}"));
            }
            let kind = if log { MemberKind::Log } else { MemberKind::Storage };
            Order::new(now, Some((node, kind)), None)
        }
        Change::Remove { node } => {
            let on_node = view.members.iter().filter(|member| member.node == node);
            let found = on_node.max_by_key(|member| member.member.kind);
            let found = found.ok_or(format!("node {node} has no replica of partition {id}"))?;
            Order::new(now, None, Some(found.member.id))
        }
    };
    let (tell, told) = oneshot::channel();
    order.tell = Some(tell);
    let mut care = partition.care.lock();
    if care.is_ordered {
        return Err("another change is under way".into());
    }
    (care.order, care.is_ordered) = (Some(order), true);
    care.next_look = None;
    drop(care);
    partition.wake();
    Ok(told)
}

fn find(shared: &Shared, id: PartitionId) -> Result<Arc<Partition>, String> {
    let found = shared.partitions.read().get(&id).cloned();
    found.ok_or_else(|| format!("node {} has no partition {id}", shared.id))
}

/// See [`crate::Node::heirs`].
pub(crate) fn heirs(shared: &Shared, id: PartitionId) -> Vec<NodeId> {
    let Ok(partition) = find(shared, id) else { return Vec::new() };
    let Some(view) = View::of_leader(shared, &partition, shared.clock.monotonic()) else {
        return Vec::new();
    };
    let may_lead = |member: &&MemberView| {
        let is_storage = member.member.kind == MemberKind::Storage;
        is_storage && member.is_heard && member.member.id != partition.identity
    };
    let mut heirs: Vec<_> = view.members.iter().filter(may_lead).collect();
    heirs.sort_by_key(|member| {
        (shared.peers.is_damaged(member.node), std::cmp::Reverse(member.known))
    });
    heirs.into_iter().map(|member| member.node).collect()
}

/// See [`crate::Node::hand_over`].
pub(crate) fn hand_over(shared: &Shared, id: PartitionId, to: NodeId) -> Result<(), String> {
    let partition = find(shared, id)?;
    let now = shared.now();
    shared.with(&partition, |core, _| {
        let members = &core.replica.config().members;
        let heir = members.iter().find(|m| m.kind == MemberKind::Storage && node_of(m.id) == to);
        let heir = heir.ok_or(format!("node {to} has no storage replica of partition {id}"))?.id;
        core.begin_hand_over(heir, now).map_err(|error| error.to_string())
    })
}

/// A peer tells of a replica: of its own, but for a leader that lets one of this node go.
pub(crate) fn receive(shared: &Shared, (from, id): (NodeId, PartitionId), message: &Message) {
    let is_own = |identity: &paxos::NodeId| node_of(*identity) == from;
    match *message {
        Message::Gone(identity) if is_own(&identity) => {
            let Ok(partition) = find(shared, id) else { return };
            let mut care = partition.care.lock();
            let asked = care.order.as_ref().and_then(|order| order.add.as_ref());
            if asked.is_some_and(|added| added.identity == Some(identity)) {
                care.refused = care.refused.max(identity.0);
            } else {
                care.gone = Some(identity);
            }
            drop(care);
            partition.wake();
        }
        Message::Hosted(identity) if is_own(&identity) => {
            if let Ok(partition) = find(shared, id) {
                partition.care.lock().hosted = Some(identity);
                partition.wake();
            }
        }
        Message::Fetches { identity, index } if is_own(&identity) => {
            if let Ok(partition) = find(shared, id) {
                partition.care.lock().hold_log(identity, index, shared.clock.instant());
                partition.wake();
            }
        }
        Message::MayDrop { identity, ask } if is_own(&identity) && may_go(shared, id, identity) => {
            shared.tell(from, id, &Message::Drop { identity, ask });
        }
        Message::Drop { identity, ask } => {
            let Some(partition) = shared.replica(id, identity) else { return };
            let status = partition.look().replica.status();
            let mut care = partition.care.lock();
            if status.leader.is_some_and(|leader| is_own(&leader))
                && let Some((_, at)) = care.asked.filter(|(last, _)| *last == ask)
            {
                // However late the answer comes, the leader gave it after the ask.
                care.may_go = Some((at, status.ballot.number));
            }
        }
        _ => {}
    }
}

/// See [`crate::Node::does_without`].
pub(crate) fn does_without(shared: &Shared, id: PartitionId, node: NodeId) -> bool {
    let Ok(partition) = find(shared, id) else { return false };
    let Some(view) = View::of(shared, &partition, shared.clock.monotonic()) else { return false };
    let mut theirs = view.members.iter().filter(|member| member.node == node);
    !view.is_changing && theirs.all(|member| may_go(shared, id, member.member.id))
}

/// Whether the group of a partition that this node leads can do without a replica: all others are
/// there and have everything, members do not change, and nobody else has gone of late.
///
/// Who may go is a moment later gone. So another is let go only when a permission is of no use any more
/// to whoever has one, of an earlier leader too; if it has gone, it does not support this leader any more.
/// What the others had when this leader last happened to hear of it is not enough: their nodes may have
/// lost it since. So they are asked, and the answer to the next ask rests on what they say.
///
/// A replica that is no member any more may not have heard of that: a log replica that missed it asks nobody.
/// Once all members have that change nothing rests on it, and its going keeps nobody else from going.
pub(crate) fn may_go(shared: &Shared, id: PartitionId, identity: paxos::NodeId) -> bool {
    let Ok(partition) = find(shared, id) else { return false };
    let Some(view) = View::of(shared, &partition, shared.clock.monotonic()) else { return false };
    let is_member = view.members.iter().any(|member| member.member.id == identity);
    let others = || view.members.iter().filter(|member| member.member.id != identity);
    let enough = others().count() * 2 > view.members.len();
    // One that is to be a member has a newer identity than all that were.
    let was_member = !is_member && identity <= view.config.newest;
    let is_theirs = is_member || was_member;
    let can_go = enough && is_theirs && identity != partition.identity && !view.is_changing;
    let all_there = others().all(|member| member.is_heard && member.obeys);
    if !can_go || !all_there || shared.lsm.is_damaged() {
        return false;
    }
    let now = shared.clock.instant();
    let is_permitted = {
        let mut care = partition.care.lock();
        let since = care.leads_since(view.ballot, now);
        let is_free = now - since > NO_OTHER
            && !care.is_ordered
            && (was_member || care.going(now).is_none_or(|goes| goes == identity));
        if !is_free {
            return false;
        }
        let is_of_use = |roll: &Roll| roll.ballot == view.ballot && now - roll.at <= ROLL;
        let roll = care.roll.filter(is_of_use);
        let have_all = roll.map(|roll| others().all(|member| member.known >= roll.index));
        match have_all {
            Some(true) => {
                if is_member {
                    care.permitted = Some((identity, now));
                }
                true
            }
            // It is being called.
            Some(false) => return false,
            None => false,
        }
    };
    // For the next ask, also of somebody whom the answer does not reach.
    let index = shared.with(&partition, |core, _| core.replica.call_roll(shared.clock.monotonic()));
    let ballot = view.ballot;
    let roll = index.map(|index| Roll { ballot, at: now, index: index.0 });
    partition.care.lock().roll = roll;
    is_permitted
}

/// What concerns the whole node: it tells the others that it is there, and looks after its rows.
pub(crate) fn look_around(shared: &Shared) {
    if shared.peers.is_ping_due(shared.clock.monotonic()) {
        for node in shared.peers.nodes() {
            let (life, is_damaged) = (shared.incarnation, shared.lsm.is_damaged());
            shared.tell(*node, PartitionId(0), &Message::Ping { life, is_damaged });
        }
    }
    if shared.peers.has_changed(shared.options.heal_after, shared.clock.monotonic()) {
        // Groups may have a member to replace, or a node to do it with.
        shared.all_partitions().iter().for_each(Partition::wake);
    }
    if shared.lsm.is_damaged() {
        look_after_damage(shared);
    }
}

/// Begins anew once all groups can do without this node's damaged rows.
fn look_after_damage(shared: &Shared) {
    // Log replicas go with the folder, so their groups are asked too.
    let replicas = shared.all_replicas();
    let (now, instant) = (shared.clock.monotonic(), shared.clock.instant());
    // The leader calls the roll for each ask: what comes at once with another one finds it unanswered.
    let has_just_asked = |replica: &Arc<Partition>| {
        replica.care.lock().asked.is_some_and(|(_, at)| instant < at + MAY_DROP_EVERY / 2)
    };
    for partition in &replicas {
        let of_other_kind = if partition.is_log() { &shared.partitions } else { &shared.logs };
        let sibling = of_other_kind.read().get(&partition.id).cloned();
        if sibling.as_ref().is_some_and(has_just_asked) {
            continue;
        }
        let ask;
        {
            let mut care = partition.care.lock();
            if care.asked.is_some_and(|(_, at)| instant < at + MAY_DROP_EVERY) {
                continue;
            }
            ask = care.asked.map_or(u64::from(shared.incarnation) << 32, |(ask, _)| ask + 1);
            care.asked = Some((ask, instant));
        }
        let (serves, leader) = {
            let mut core = partition.look();
            core.replica.set_reluctant(true);
            (core.serves(now), core.replica.status().leader)
        };
        if serves {
            let heirs = heirs(shared, partition.id);
            // One whose rows are damaged too would hand over to this node again, for ever.
            let is_sound = |heir: &&NodeId| !shared.peers.is_damaged(**heir);
            if let Some(heir) = heirs.iter().find(is_sound) {
                // It is tried again.
                let _ = hand_over(shared, partition.id, *heir);
            }
        } else if let Some(leader) = leader.filter(|leader| *leader != partition.identity) {
            let may_drop = Message::MayDrop { identity: partition.identity, ask };
            shared.tell(node_of(leader), partition.id, &may_drop);
        }
    }
    let may_go = |partition: &Arc<Partition>| {
        // Another leader would not know of it.
        let ballot = partition.look().replica.status().ballot.number;
        let may_go = partition.care.lock().may_go;
        may_go.is_some_and(|(at, by)| by == ballot && instant - at <= PERMISSION)
    };
    if !replicas.is_empty() && replicas.iter().all(may_go) {
        tracing::error!(node = shared.id.0, "rows are damaged: the node begins anew");
        shared.wants_reopening.store(true, Ordering::Release);
        shared.stop();
    }
}

/// What concerns one replica. Returns in how long it is to be looked after again; `None` if there is
/// nothing to do before something happens to it, or to the nodes around.
pub(crate) fn look_after(
    shared: &Shared,
    partition: &Arc<Partition>,
    now: Now,
) -> Option<Duration> {
    let mut order = {
        let mut care = partition.care.lock();
        let instant = shared.clock.instant();
        if partition.is_log() {
            return None;
        }
        if let Some(rest) = care.next_look.and_then(|at| at.checked_duration_since(instant)) {
            return Some(rest);
        }
        care.next_look = Some(instant + LOOK_EVERY);
        care.order.take()
    };
    if let Some(added) = order.as_mut().and_then(|order| order.add.as_mut()) {
        added.life = shared.peers.life(added.node);
    }
    let Some(view) = View::of(shared, partition, now.monotonic) else {
        let order = order?;
        // A lease may be missing for a moment, as just after a start: nobody else leads because of that.
        let still_leads = partition.look().replica.is_leader();
        if still_leads && shared.clock.instant() <= order.deadline {
            partition.care.lock().order = Some(order);
            return Some(LOOK_EVERY);
        }
        partition.care.lock().is_ordered = false;
        order.end(Err("leadership has moved".into()));
        return None;
    };
    partition.care.lock().leads_since(view.ballot, shared.clock.instant());
    let unheld = bound_log(shared, partition);
    let order = order.or_else(|| {
        let order = heal(shared, partition, &view)?;
        partition.care.lock().is_ordered = true;
        Some(order)
    });
    let Some(order) = order else {
        return unheld.into_iter().chain(stands_in(shared, partition)).min();
    };
    let next = go_on(shared, partition, &view, order);
    let mut care = partition.care.lock();
    match next {
        Next::Wait(order) => {
            // Each look is a step; most have nothing to wait for.
            care.next_look = None;
            care.order = Some(order);
            Some(Duration::ZERO)
        }
        Next::Done(order, outcome) => {
            let mut rest = LOOK_EVERY;
            care.is_ordered = false;
            if let Err(error) = &outcome {
                let (node, partition) = (shared.id.0, partition.id.0);
                tracing::info!(node, partition, error, "members were not changed");
                rest = REST;
                care.next_look = Some(shared.clock.instant() + rest);
            }
            drop(care);
            order.end(outcome);
            Some(rest)
        }
    }
}

/// Returns in how long somebody ceases to need the log, if anybody does.
fn bound_log(shared: &Shared, partition: &Partition) -> Option<Duration> {
    let now = shared.clock.instant();
    let (index, until) = partition.care.lock().held(now).unzip();
    partition.look().bound_log(shared.options.log_bytes, index);
    until.map(|until| until.saturating_duration_since(now))
}

/// In how long a storage replica is to be built in place of a log replica that stands in for one.
fn stands_in(shared: &Shared, partition: &Partition) -> Option<Duration> {
    let since = partition.care.lock().stood_in?;
    let elapsed = shared.clock.instant().saturating_duration_since(since);
    Some(shared.options.rebuild_after.saturating_sub(elapsed))
}

/// Takes the next step of a change.
fn go_on(shared: &Shared, partition: &Arc<Partition>, view: &View, mut order: Order) -> Next {
    let now = shared.clock.instant();
    if now > order.deadline {
        return Next::Done(order, Err("the change did not happen in time".into()));
    }
    if view.config.is_joint() {
        return Next::Wait(order);
    }
    if let Some(target) = &order.target {
        if *target == view.config.members {
            return Next::Done(order, Ok(()));
        }
        let is_old = order.remove.is_none_or(|removed| view.config.kind(removed).is_some())
            && order.added().is_none_or(|added| view.config.kind(added).is_none());
        return match is_old {
            true => Next::Wait(order),
            false => Next::Done(order, Err(CHANGED_OTHERWISE.into())),
        };
    }
    if order.is_overtaken(view) {
        return Next::Done(order, Err(CHANGED_OTHERWISE.into()));
    }
    if partition.care.lock().going(now).is_some_and(|goes| order.remove != Some(goes)) {
        // Who may be gone already is not to be missed in another group than the one that let it go.
        return Next::Wait(order);
    }
    if let Some(added) = &mut order.add {
        let (hosted, refused) = {
            let care = partition.care.lock();
            // Of another kind it may be there, from an order that came to nothing: it is not this one.
            let other = care.host_asked.filter(|(_, kind)| *kind != added.kind);
            (care.hosted, care.refused.max(other.map_or(0, |(identity, _)| identity.0)))
        };
        let above = paxos::NodeId(view.config.newest.0.max(refused));
        let fits = |identity: &paxos::NodeId| *identity > above;
        let Some(identity) = added.identity.filter(fits).or_else(|| next(added.node, above)) else {
            return Next::Done(order, Err("there are no identities left".into()));
        };
        added.identity = Some(identity);
        partition.care.lock().host_asked = Some((identity, added.kind));
        if hosted != Some(identity) {
            if let Some(life) = added.life.filter(|_| added.next_ask.is_none_or(|at| at <= now)) {
                added.next_ask = Some(now + HOST_EVERY);
                let host = Host {
                    life,
                    identity,
                    kind: added.kind,
                    range: partition.range,
                    founders: partition.founders.clone(),
                    config: view.config.clone(),
                };
                let node = added.node;
                shared.tell(node, partition.id, &Message::Host(host));
            }
            return Next::Wait(order);
        }
    }
    propose(shared, partition, view, order)
}

impl Order {
    /// Whether the group has changed since the order was made so that it makes no sense any more: what was
    /// proposed under an order that was given up may be chosen all the same.
    fn is_overtaken(&self, view: &View) -> bool {
        let is_member = |id| view.config.kind(id).is_some();
        let others = || view.members.iter().filter(|member| Some(member.member.id) != self.remove);
        let takes_place = |added: &Added| others().any(|member| member.node == added.node);
        self.remove.is_some_and(|removed| !is_member(removed))
            || self.add.as_ref().is_some_and(takes_place)
    }

    fn added(&self) -> Option<paxos::NodeId> {
        self.add.as_ref().and_then(|added| added.identity)
    }
}

fn propose(shared: &Shared, partition: &Arc<Partition>, view: &View, mut order: Order) -> Next {
    let mut members = view.config.members.clone();
    members.retain(|member| order.remove != Some(member.id));
    if let Some(Added { kind, identity: Some(id), .. }) = order.add {
        members.push(Member { id, kind });
    }
    members.sort_unstable();
    let now = shared.now();
    let proposed =
        shared.with(partition, |core, actions| core.change_members(&members, now, actions));
    match proposed {
        Ok(()) => {
            order.target = Some(members);
            Next::Wait(order)
        }
        Err(ChangeError::Invalid(why)) => Next::Done(order, Err(why.into())),
        Err(ChangeError::NotLeader | ChangeError::InProgress) => Next::Wait(order),
    }
}

/// The change that a group needs, if it needs one.
fn heal(shared: &Shared, partition: &Partition, view: &View) -> Option<Order> {
    if view.config.is_joint() || shared.options.nodes.is_empty() || shared.lsm.is_damaged() {
        return None;
    }
    let now = shared.clock.instant();
    let gone = partition.care.lock().gone;
    if let Some(member) = view.members.iter().find(|member| Some(member.member.id) == gone) {
        let is_other = |other: &&MemberView| other.member.id != member.member.id;
        let others = || view.members.iter().filter(is_other);
        // A node holds one replica of each kind.
        let is_there = others().any(|other| other.node == member.node);
        let again = (member.member.kind == MemberKind::Storage && !is_there)
            .then_some((member.node, MemberKind::Storage));
        tell_healing(shared, partition, member, again);
        return Some(Order::new(now, again, gone));
    }
    let is_given_up = |member: &&MemberView| !member.is_heard && view.can_give_up(member);
    if let Some(silent) = view.members.iter().find(is_given_up) {
        let spare = spare(shared, partition, view)?;
        let add = Some((spare, MemberKind::Log));
        tell_healing(shared, partition, silent, add);
        return Some(Order::new(now, add, Some(silent.member.id)));
    }
    let storage = view.members.iter().filter(|m| m.member.kind == MemberKind::Storage).count();
    let log = view.members.iter().find(|member| member.member.kind == MemberKind::Log);
    // With all its storage replicas, a group has a log replica because somebody ordered it.
    let Some(log) = log.filter(|_| storage < partition.founders.len()) else {
        partition.care.lock().stood_in = None;
        return None;
    };
    let since = *partition.care.lock().stood_in.get_or_insert(now);
    if now - since < shared.options.rebuild_after {
        return None;
    }
    let node = spare(shared, partition, view).unwrap_or(log.node);
    let add = Some((node, MemberKind::Storage));
    tell_healing(shared, partition, log, add);
    Some(Order::new(now, add, Some(log.member.id)))
}

fn tell_healing(
    shared: &Shared,
    partition: &Partition,
    member: &MemberView,
    add: Option<(NodeId, MemberKind)>,
) {
    let (node, partition, of) = (shared.id.0, partition.id.0, member.node.0);
    tracing::info!(node, partition, member = member.member.id.0, of, ?add, "heals its group");
}

/// A node that is there and has no replica of the group, in a zone of its own if possible.
fn spare(shared: &Shared, partition: &Partition, view: &View) -> Option<NodeId> {
    let now = shared.clock.monotonic();
    let zone_of = |node: NodeId| {
        shared.options.nodes.iter().find(|(known, _)| *known == node).map(|(_, zone)| zone)
    };
    let living: Vec<_> = view.members.iter().filter(|member| member.is_heard).collect();
    let taken = |node: NodeId| living.iter().any(|m| zone_of(m.node) == zone_of(node));
    let is_spare = |node: &NodeId| {
        !view.has_node(*node) && shared.peers.is_heard(*node, shared.options.heal_after, now)
    };
    let spares: Vec<_> = shared.peers.nodes().iter().copied().filter(is_spare).collect();
    // Groups spread over the spares of a zone.
    let turn = |node: NodeId| (u64::from(node.0) + partition.id.0) % spares.len().max(1) as u64;
    spares.iter().copied().min_by_key(|node| (taken(*node), turn(*node), *node))
}
