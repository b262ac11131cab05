//! The keeper's thread takes replicas in and lets them go, and fetches rows for those that lack them:
//! all that changes which replicas there are, one after the other.
//!
//! ```text
//! leader's care ──Host──▶ written down (`catalogue`), made ──Hosted──▶ the leader proposes the member
//! consensus: removed ──▶ crossed out, forgotten in the log, rows deleted
//! consensus: the log that is lacking is gone ──▶ `snapshot::take`
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use paxos::MemberKind;
use wire::ids::{NodeId, PartitionId};
use wire::placement::PlacementRange;

use crate::care;
use crate::catalogue::{CatalogueError, Held};
use crate::core::Install;
use crate::driver::{Item, Shared};
use crate::identity::node_of;
use crate::lsm::LsmError;
use crate::message::{Chunk, Host, Message};
use crate::meta;
use crate::partition::Partition;
use crate::recover::Maker;
use crate::snapshot::give::{ASKS_MAX, Asked};
use crate::snapshot::row_ranges;
use crate::snapshot::take::Takes;
use crate::snapshot::taking::TakeError;

/// How often the thread looks around if nothing happens.
const TICK: Duration = Duration::from_millis(500);
/// Messages of peers that wait at most; more are dropped, and sent again.
const MESSAGES_MAX: usize = 256;

/// What the keeper is to do.
pub(crate) enum Job {
    /// Fetch the rows of this replica.
    Install(Arc<Partition>, Install),
    /// Let a replica go.
    Drop(Arc<Partition>),
    /// Delete the rows of a partition that no replica of before left.
    DropRows(PartitionId, PlacementRange),
    /// Take a replica in, and tell this node.
    Host(NodeId, PartitionId, Host),
    /// A part of a snapshot came from a node.
    Chunk(NodeId, PartitionId, Chunk),
    /// A node has no such snapshot.
    NoChunk(NodeId, PartitionId, u64),
    /// A snapshot's rows were taken in, or not.
    Took,
}

/// Why the keeper cannot go on.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("list of replicas: {0}")]
    Catalogue(#[from] CatalogueError),
    #[error("rows: {0}")]
    Lsm(#[from] LsmError),
    #[error("snapshot: {0}")]
    Take(#[from] TakeError),
}

/// Has the keeper do something.
pub(crate) fn ask(shared: &Shared, job: Job) {
    shared.keeper.push(job, usize::MAX);
}

/// A peer tells something of a partition's replicas.
pub(crate) fn receive(shared: &Shared, (from, partition): (NodeId, PartitionId), message: Message) {
    match message {
        Message::Ping { life, is_damaged } => shared.peers.note_life(from, life, is_damaged),
        Message::Host(host) => shared.keeper.push(Job::Host(from, partition, host), MESSAGES_MAX),
        Message::Chunk(chunk) => {
            shared.keeper.push(Job::Chunk(from, partition, chunk), MESSAGES_MAX);
        }
        Message::NoChunk { session, .. } => {
            shared.keeper.push(Job::NoChunk(from, partition, session), MESSAGES_MAX);
        }
        Message::Ask(ask) => shared.giver.push(Asked { from, partition, ask }, ASKS_MAX),
        Message::Hosted(_)
        | Message::Gone(_)
        | Message::MayDrop { .. }
        | Message::Drop { .. }
        | Message::Fetches { .. } => {
            care::receive(shared, (from, partition), &message);
        }
    }
}

/// Finds rows that a crash kept from being deleted. Called before the threads start.
pub(crate) fn tidy_up(shared: &Shared) {
    let catalogue = shared.catalogue.lock();
    for (partition, holding) in catalogue.holdings() {
        if holding.storage.is_none() {
            ask(shared, Job::DropRows(*partition, holding.range));
        }
    }
}

/// The thread.
pub(crate) fn run(shared: &Shared) {
    let mut takes = Takes::default();
    while !shared.is_stopping() {
        let job = shared.keeper.pop(takes.next_due(shared.clock.instant(), TICK));
        shared.faults.checkpoint();
        round(shared, &mut takes, job);
    }
}

/// Does a job, and what is due.
pub(crate) fn round(shared: &Shared, takes: &mut Takes, job: Option<Job>) {
    if shared.is_stopping() {
        return;
    }
    let done = job.map_or(Ok(()), |job| work(shared, takes, job));
    if let Err(error) = done.and_then(|()| Ok(takes.tick(shared)?)) {
        let damaged = matches!(
            &error,
            KeepError::Lsm(LsmError::Damaged(_))
                | KeepError::Take(TakeError::Lsm(LsmError::Damaged(_)))
        );
        if damaged {
            // Whoever looks after the rows does something about it.
            tracing::error!(node = shared.id.0, %error, "replicas cannot be kept");
            return;
        }
        tracing::error!(node = shared.id.0, %error, "replicas cannot be kept, node stops");
        shared.stop();
    }
}

fn work(shared: &Shared, takes: &mut Takes, job: Job) -> Result<(), KeepError> {
    match job {
        Job::Install(partition, install) => {
            if shared.replica(partition.id, partition.identity).is_some() {
                takes.begin(shared, partition, install);
            }
        }
        Job::Drop(partition) => {
            takes.forget(shared, &partition);
            drop_replica(shared, &partition)?;
        }
        Job::DropRows(partition, range) => {
            if !shared.partitions.read().contains_key(&partition) {
                drop_rows(shared, partition, range)?;
            }
        }
        // An order to another life is from before this node lost its folder, perhaps; the sender
        // will learn of this life, and ask again if it still leads.
        Job::Host(from, partition, host) if host.life == shared.incarnation => {
            let answer = take_in(shared, takes, partition, host)?;
            shared.tell(from, partition, &answer);
        }
        Job::Host(..) => {}
        Job::Chunk(from, partition, chunk) => takes.chunk(shared, (from, partition), &chunk)?,
        Job::NoChunk(from, partition, session) => {
            takes.refused(shared, (from, partition), session);
        }
        // The round looks at what came of it.
        Job::Took => {}
    }
    Ok(())
}

/// Takes a replica in. The answer is `Gone` if its identity cannot be used here.
fn take_in(
    shared: &Shared,
    takes: &mut Takes,
    id: PartitionId,
    host: Host,
) -> Result<Message, KeepError> {
    let Host { identity, kind, range, founders, config, .. } = host;
    if shared.replica(id, identity).is_some_and(|replica| replica.kind == kind) {
        return Ok(Message::Hosted(identity));
    }
    let retired = shared.catalogue.lock().holdings().get(&id).map_or(0, |holding| holding.retired);
    let replicas = [&shared.partitions, &shared.logs];
    let held = replicas.map(|replicas| replicas.read().get(&id).cloned());
    let is_used = held.iter().flatten().any(|held| held.identity >= identity);
    if node_of(identity) != shared.id || identity.0 <= retired || is_used || founders.is_empty() {
        return Ok(Message::Gone(identity));
    }
    for old in held.into_iter().flatten().filter(|old| old.kind == kind) {
        if config.kind(old.identity).is_some() {
            // Whoever asks does not know that this one is a member.
            return Ok(Message::Gone(identity));
        }
        takes.forget(shared, &old);
        drop_replica(shared, &old)?;
    }
    let held = Held { identity, founders };
    let written = held.clone();
    shared.catalogue.lock().change(id, range, |holding| *holding.held(kind) = Some(written))?;
    let maker = Maker {
        id: shared.id,
        options: &shared.options,
        dead: &shared.dead,
        supports: shared.pulse.supports(),
        clock: shared.clock.clone(),
        agenda: &shared.agenda,
        // The one that was here before it named its batches by the node's.
        incarnation: shared.options.machine.chance.draw() as u32,
    };
    let replica = Arc::new(maker.new_replica((id, range), kind, held));
    let (node, partition) = (shared.id.0, id.0);
    tracing::info!(node, partition, identity = identity.0, ?kind, "replica taken in");
    match kind {
        MemberKind::Storage => shared.partitions.write().insert(id, Arc::clone(&replica)),
        MemberKind::Log => shared.logs.write().insert(id, Arc::clone(&replica)),
    };
    // Once it can be found: the clock thread passes over what it does not find.
    replica.wake();
    Ok(Message::Hosted(identity))
}

/// Lets a replica go: from here on its identity votes for nothing.
fn drop_replica(shared: &Shared, replica: &Partition) -> Result<(), KeepError> {
    // What is being flushed goes first.
    let no_flush = shared.flushing.lock();
    if shared.replica(replica.id, replica.identity).is_none() {
        return Ok(());
    }
    shared.catalogue.lock().retire(replica.id, replica.kind)?;
    let replicas = if replica.is_log() { &shared.logs } else { &shared.partitions };
    replicas.write().remove(&replica.id);
    let dropped = {
        let mut core = replica.look();
        (core.clear(), core.take_discarded())
    };
    shared.memory_bytes.fetch_sub(dropped.0, Ordering::Relaxed);
    shared.work.lock().push(Item::Forget(replica.log_group));
    shared.options.logs.ring();
    let (node, partition) = (shared.id.0, replica.id.0);
    let (identity, kind) = (replica.identity.0, replica.kind);
    tracing::info!(node, partition, identity, ?kind, "replica let go");
    drop(no_flush);
    if !replica.is_log() {
        drop_rows(shared, replica.id, replica.range)?;
    }
    Ok(())
}

/// Deletes the rows of a partition, those that say how far they reach too.
fn drop_rows(
    shared: &Shared,
    partition: PartitionId,
    range: PlacementRange,
) -> Result<(), LsmError> {
    let ranges = row_ranges(partition, range);
    let says = [meta::applied_key(partition), meta::members_key(partition)];
    let says = [says[0].clone(), says[1].clone(), meta::requests_key(partition)];
    let says = says.map(|key| (key, None));
    let keeps = |row: &[u8]| !crate::snapshot::is_within(range, row);
    crate::background::run(|| {
        let (from, to) = &ranges[0];
        shared.lsm.drop_tables_within(from, to)?;
        shared.lsm.replace::<LsmError>(&ranges, &keeps, std::iter::empty(), &says)
    })?;
    shared.dead.clear(range);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::alone::{Alone, PARTITION};
    use crate::identity::{first, next};
    use crate::node::NodeOptions;

    #[test]
    fn a_replica_that_comes_after_another_has_no_batch_of_its_name() {
        let alone = Alone::open(NodeOptions::default());
        let (shared, old) = (alone.shared(), alone.partition());
        let batches = || {
            alone.run(&["SET", "k", "v"]).expect("it leads");
            let partition = alone.partition();
            let core = partition.look();
            core.unflushed().map(|(_, batch)| batch.id).collect::<BTreeSet<_>>()
        };
        let before = batches();
        let identity = next(shared.id, first(shared.id)).expect("far from the last");
        let host = Host {
            life: shared.incarnation,
            identity,
            kind: MemberKind::Storage,
            range: old.range,
            founders: vec![identity],
            config: paxos::Config::initial(&[identity]),
        };
        shared.keeper.push(Job::Host(shared.id, PARTITION, host), MESSAGES_MAX);
        let is_new = || shared.replica(PARTITION, identity).is_some();
        alone.until("it is taken in", is_new);
        alone.node.campaign(PARTITION);
        alone.until("it leads", || alone.node.leads(PARTITION));
        let after = batches();
        assert!(!before.is_empty() && !after.is_empty());
        assert!(before.is_disjoint(&after), "{before:x?} and {after:x?}");
    }
}
