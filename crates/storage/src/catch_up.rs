//! The catch-up thread: sends parts of the log to members that lack them. A member asks for the next part
//! as soon as it has one, so a whole catch-up is one long exchange; on this thread it keeps nobody waiting
//! who brought a frame.
//!
//! What a member of a leader's lacks it can do without for a while: it votes on what is new all the
//! same. As fast as it takes them, its log would have the disk write older entries, and clients wait for
//! theirs. So the thread rests after each part ([`Pace`]), unless the member gains nothing so, and parts are
//! small: while a member takes one in, whoever has something new for it waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use wire::ids::PartitionId;

use crate::driver::Shared;
use crate::partition::Partition;

/// Parts that are asked for and not sent yet, at most: what is dropped is asked for again.
const PARTS_MAX: usize = 256;
/// How often the thread looks around without being asked.
const TICK: Duration = Duration::from_millis(500);
/// What is smaller, in bytes, is sent at once.
const PART_BYTES_MIN: usize = 64 << 10;
/// A part for a member that has time holds so many bytes at most, or one entry.
const PART_BYTES_MAX: usize = 128 << 10;
/// It holds so many entries at most: no more of the log's index is looked at for a part.
const PART_ENTRIES_MAX: u64 = 1024;
/// The longest rest after a part.
const REST_MAX: Duration = Duration::from_millis(200);
/// Members whose progress is known at most; one that is forgotten begins anew.
const MEMBERS_MAX: usize = 4_096;

/// A part of the log for a member that lacks it.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) to: paxos::NodeId,
    pub(crate) entries: Entries,
    /// Nobody waits for it: this replica leads.
    pub(crate) has_time: bool,
}

/// What a part consists of.
#[derive(Debug)]
pub(crate) enum Entries {
    /// These, from memory.
    Held(Vec<paxos::Entry>),
    /// What the log on disk holds of these indexes, as much as fits in a part.
    Logged { first: u64, last: u64 },
}

/// A part and the replica that has it.
pub(crate) type Asked = (Arc<Partition>, Part);

/// Whether so much is sent by the thread.
pub(crate) fn is_part(entries: &[paxos::Entry]) -> bool {
    bytes_of(entries) >= PART_BYTES_MIN as u64
}

fn bytes_of(entries: &[paxos::Entry]) -> u64 {
    entries.iter().map(|entry| entry.value.len() as u64).sum()
}

/// Has a part sent, and not what the member asked for before: it asks again if it takes long. A part that
/// somebody waits for comes before those that have time.
pub(crate) fn ask(shared: &Shared, partition: &Arc<Partition>, part: Part) {
    let (to, has_time) = (part.to, part.has_time);
    let is_same = |(of, part): &Asked| part.to == to && Arc::ptr_eq(of, partition);
    let asked = (Arc::clone(partition), part);
    match has_time {
        true => shared.catch_ups.push_instead(asked, PARTS_MAX, is_same),
        false => shared.catch_ups.push_first(asked, is_same),
    }
}

/// The thread.
pub(crate) fn run(shared: &Shared) {
    let mut pace = Pace::default();
    while !shared.is_stopping() {
        let Some((partition, part)) = shared.catch_ups.pop(TICK) else { continue };
        shared.faults.checkpoint();
        if shared.is_stopping() {
            return;
        }
        let (to, has_time) = (part.to, part.has_time);
        let sent = answer(shared, (&partition, part));
        if let Some(sent) = sent.filter(|_| has_time) {
            let chosen = partition.look().replica.status().chosen.0;
            let rest = pace.rest((partition.id, to), &sent, chosen, shared.options.catch_up_rate);
            shared.catch_ups.rest(rest, |(_, next)| !next.has_time);
        }
    }
}

/// What was sent.
pub(crate) struct Sent {
    entries: u64,
    bytes: u64,
    last: u64,
}

/// Sends a part; `None` if it cannot be had.
pub(crate) fn answer(shared: &Shared, (partition, part): (&Arc<Partition>, Part)) -> Option<Sent> {
    let catch_up_bytes = shared.options.paxos.catch_up_bytes;
    let (entries_max, bytes_max) = match part.has_time {
        true => (PART_ENTRIES_MAX, PART_BYTES_MAX.min(catch_up_bytes)),
        false => (u64::MAX, catch_up_bytes),
    };
    let entries = match part.entries {
        Entries::Held(entries) => within(entries, bytes_max),
        Entries::Logged { first, last } => {
            let last = last.min(first.saturating_add(entries_max - 1));
            read(shared, (partition, part.to), (first, last), bytes_max)?
        }
    };
    let last = entries.last()?.index.0;
    let sent = Sent { entries: entries.len() as u64, bytes: bytes_of(&entries), last };
    shared.send(partition, &[(part.to, paxos::Message::chosen(entries))]);
    Some(sent)
}

/// The first of them, until they are so many bytes: what follows is asked for.
fn within(mut entries: Vec<paxos::Entry>, bytes_max: usize) -> Vec<paxos::Entry> {
    let mut bytes = 0;
    let is_enough = |entry: &paxos::Entry| {
        bytes += entry.value.len();
        bytes >= bytes_max
    };
    if let Some(last) = entries.iter().position(is_enough) {
        entries.truncate(last + 1);
    }
    entries
}

/// Reads what only the log on disk holds.
fn read(
    shared: &Shared,
    (partition, to): (&Arc<Partition>, paxos::NodeId),
    (first, last): (u64, u64),
    bytes_max: usize,
) -> Option<Vec<paxos::Entry>> {
    match shared.log.read(partition.log_group, first, last, bytes_max) {
        Ok(found) => {
            // What follows a gap or a damaged entry waits until a peer sends that.
            let whole: Vec<_> = (first..)
                .zip(found.entries)
                .take_while(|(index, entry)| entry.index == *index)
                .map(|(_, entry)| crate::recover::to_entry(entry))
                .collect();
            if whole.is_empty() {
                let first = paxos::Index(first);
                shared.step(partition, |core, _| core.replica.log_unreadable(to, first));
            }
            Some(whole)
        }
        Err(error) => {
            let (node, partition) = (shared.id.0, partition.id.0);
            tracing::warn!(node, partition, %error, "log read failed");
            None
        }
    }
}

/// How long the thread rests after a part. The longer the more was sent, but not at all while a member
/// does not come nearer by half of what it is sent: others write so much that it never had all.
#[derive(Default)]
struct Pace {
    /// By how many entries a member lagged behind its last part.
    lags: BTreeMap<(PartitionId, paxos::NodeId), u64>,
}

impl Pace {
    fn rest(
        &mut self,
        member: (PartitionId, paxos::NodeId),
        sent: &Sent,
        chosen: u64,
        bytes_per_second: u64,
    ) -> Duration {
        if self.lags.len() >= MEMBERS_MAX {
            self.lags.clear();
        }
        let lag = chosen.saturating_sub(sent.last);
        let before = self.lags.insert(member, lag);
        let comes_nearer = before.is_none_or(|before| lag + sent.entries / 2 <= before);
        if !comes_nearer {
            return Duration::ZERO;
        }
        let rest = sent.bytes as f64 / bytes_per_second.max(1) as f64;
        Duration::from_secs_f64(rest).min(REST_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_ends_with_the_entry_that_fills_it() {
        let entry = |index| paxos::Entry {
            index: paxos::Index(index),
            ballot: paxos::Ballot::ZERO,
            value: paxos::Value::Data(vec![0; 10].into()),
        };
        for (bytes_max, count) in [(0, 1), (10, 1), (11, 2), (30, 3), (31, 4), (usize::MAX, 5)] {
            assert_eq!(within((1..=5).map(entry).collect(), bytes_max).len(), count, "{bytes_max}");
        }
        assert!(within(Vec::new(), 0).is_empty());
    }

    #[test]
    fn a_member_that_gains_nothing_is_not_kept_waiting() {
        let (mut pace, rate) = (Pace::default(), 10_000);
        let member = |node| (PartitionId(1), paxos::NodeId(node));
        let sent = |last| Sent { entries: 10, bytes: 1_000, last };
        let rest = Duration::from_millis(100);
        assert_eq!(pace.rest(member(1), &sent(10), 1_000, rate), rest);
        assert_eq!(pace.rest(member(1), &sent(20), 1_000, rate), rest);
        // Five were chosen meanwhile, then six.
        assert_eq!(pace.rest(member(1), &sent(30), 1_005, rate), rest);
        assert_eq!(pace.rest(member(1), &sent(40), 1_011, rate), Duration::ZERO);
        assert_eq!(pace.rest(member(2), &sent(40), 1_011, rate), rest, "another");
        assert_eq!(pace.rest(member(1), &sent(50), 1_011, rate), rest);
        assert_eq!(pace.rest(member(1), &sent(60), 1_011, 1), REST_MAX);
    }
}
