//! Histories of clients, and whether they are linearizable: whether each operation can be thought to
//! have happened at one moment between its call and its return.
//!
//! Keys are registers and independent of each other, so each is checked by itself. Each value is
//! written once. What a client was told did not happen is no part of a history; a write whose outcome
//! is not known may have happened at any moment since its call, or never.
//!
//! *Method* (just-in-time linearization): events are taken in the order of time, and all states are
//! kept that the register may be in, each with the pending operations that have taken effect in it.
//! When an operation returns, only those states stay in which it has taken effect, or can now, after
//! others that are pending. If none is left, no order explains what was seen.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::resp::{Client, Value};
use crate::rng::Rng;

/// Operations of one key that are pending at once, at most: bits of a word.
const PENDING_MAX: usize = 64;
/// States kept at once, at most.
const STATES_MAX: usize = 200_000;
/// How long a client waits before it tries again what was refused.
const RETRY_PAUSE: Duration = Duration::from_millis(2);
/// How long a client waits for a reply before it takes the outcome for unknown.
const PATIENCE: Duration = Duration::from_secs(8);

/// What an operation did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Did {
    /// Wrote this value.
    Write(u64),
    /// Read this value; 0: there was none.
    Read(u64),
}

/// An operation of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    /// The key.
    pub key: usize,
    /// What it did.
    pub did: Did,
    /// When it was called, in microseconds.
    pub called: u64,
    /// When it returned; `None`: its outcome is not known.
    pub returned: Option<u64>,
}

impl Operation {
    fn read(&self) -> Option<u64> {
        match self.did {
            Did::Read(value) => Some(value),
            Did::Write(_) => None,
        }
    }
}

/// Why a history is none of a register.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// No order of the operations of this key explains this one.
    NotLinearizable(usize, Operation),
    /// Too much was pending to be sure.
    Undecided(usize),
}

/// Checks the operations of all keys.
pub fn check(history: &[Operation]) -> Result<(), Fault> {
    let mut keys: BTreeMap<usize, Vec<Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(operation.key).or_default().push(*operation);
    }
    keys.into_iter().try_for_each(|(key, operations)| check_key(key, &operations))
}

/// A state the register may be in: its value, and the pending operations that have taken effect.
type State = (u64, u64);

fn check_key(key: usize, operations: &[Operation]) -> Result<(), Fault> {
    let read: HashSet<u64> = operations.iter().filter_map(|operation| operation.read()).collect();
    let mut events = Vec::with_capacity(operations.len() * 2);
    for (at, operation) in operations.iter().enumerate() {
        // Whose outcome nobody knows and nobody saw may as well never have happened.
        let is_unseen = matches!(operation.did, Did::Write(value) if !read.contains(&value));
        if operation.returned.is_none() && is_unseen {
            continue;
        }
        events.push((operation.called, false, at));
        events.extend(operation.returned.map(|returned| (returned, true, at)));
    }
    // Of one microsecond, calls come first: that allows more orders, never fewer.
    events.sort_unstable();
    let mut slots: [Option<usize>; PENDING_MAX] = [None; PENDING_MAX];
    let mut states: BTreeSet<State> = BTreeSet::from([(0, 0)]);
    for (_, returns, at) in events {
        if !returns {
            let slot = slots.iter().position(Option::is_none).ok_or(Fault::Undecided(key))?;
            slots[slot] = Some(at);
            continue;
        }
        let slot = slots.iter().position(|slot| *slot == Some(at));
        let slot = slot.expect("what returns was called");
        let pending: Vec<(usize, Did)> = slots
            .iter()
            .enumerate()
            .filter_map(|(slot, at)| Some((slot, operations[(*at)?].did)))
            .collect();
        states = after_return(&states, slot, &pending).ok_or(Fault::Undecided(key))?;
        if states.is_empty() {
            return Err(Fault::NotLinearizable(key, operations[at]));
        }
        slots[slot] = None;
    }
    Ok(())
}

/// The states in which the operation of a slot has taken effect, its bit cleared; `None` if there are
/// too many to look at.
fn after_return(
    states: &BTreeSet<State>,
    slot: usize,
    pending: &[(usize, Did)],
) -> Option<BTreeSet<State>> {
    let bit = 1u64 << slot;
    let mut seen = BTreeSet::new();
    let mut left: Vec<State> = states.iter().copied().collect();
    let mut after = BTreeSet::new();
    while let Some((value, done)) = left.pop() {
        if !seen.insert((value, done)) {
            continue;
        }
        if seen.len() > STATES_MAX {
            return None;
        }
        if done & bit != 0 {
            // What else may take effect can do so later, when it has to.
            after.insert((value, done & !bit));
            continue;
        }
        for (slot, did) in pending.iter().filter(|(slot, _)| done & 1 << slot == 0) {
            match did {
                Did::Write(written) => left.push((*written, done | 1 << slot)),
                Did::Read(read) if *read == value => left.push((value, done | 1 << slot)),
                Did::Read(_) => {}
            }
        }
    }
    Some(after)
}

/// Has a client read and write keys until told to stop, whatever happens to the server, and tells its
/// history. `next` gives each value once.
pub fn run_client(
    port: u16,
    (keys, seed): (usize, u64),
    origin: Instant,
    next: &AtomicU64,
    stop: &AtomicBool,
) -> Vec<Operation> {
    let mut rng = Rng::new(seed);
    let mut history = Vec::new();
    let mut client = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(connected) = &mut client else {
            client = Client::connect(port).ok().filter(|c| c.set_read_timeout(PATIENCE).is_ok());
            if client.is_none() {
                std::thread::sleep(RETRY_PAUSE);
            }
            continue;
        };
        let key = rng.below(keys);
        let write = rng.chance(50).then(|| next.fetch_add(1, Ordering::Relaxed));
        let name = format!("register:{key}");
        let called = origin.elapsed().as_micros() as u64;
        let reply = match write {
            Some(value) => connected.call(&["SET", &name, &value.to_string()]),
            None => connected.call(&["GET", &name]),
        };
        let returned = Some(origin.elapsed().as_micros() as u64);
        let mut add = |did, returned| history.push(Operation { key, did, called, returned });
        match (write, reply) {
            (Some(value), Ok(Value::Simple(_))) => add(Did::Write(value), returned),
            (None, Ok(Value::Nil)) => add(Did::Read(0), returned),
            (None, Ok(Value::Bulk(text))) => {
                let value = String::from_utf8_lossy(&text).parse();
                // A value that nobody wrote explains nothing.
                add(Did::Read(value.unwrap_or(u64::MAX)), returned);
            }
            (_, Ok(Value::Error(text))) if is_not_executed(&text) => {
                std::thread::sleep(RETRY_PAUSE);
            }
            (write, reply) => {
                if let Some(value) = write {
                    add(Did::Write(value), None);
                }
                if reply.is_err() {
                    client = None;
                }
            }
        }
    }
    history
}

/// Whether an error says that the command did not happen.
fn is_not_executed(text: &[u8]) -> bool {
    [&b"TRYAGAIN"[..], b"CLUSTERDOWN"].iter().any(|prefix| text.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(did: Did, called: u64, returned: u64) -> Operation {
        let returned = (returned > 0).then_some(returned);
        Operation { key: 1, did, called, returned }
    }

    use Did::{Read, Write};

    #[test]
    fn what_one_client_sees_is_linearizable() {
        let history: Vec<_> = (0..1_000)
            .map(|i| operation(if i % 2 == 0 { Write(i + 1) } else { Read(i) }, 2 * i, 2 * i + 1))
            .collect();
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn what_overlaps_may_happen_in_any_order() {
        let both = [operation(Write(1), 0, 10), operation(Write(2), 1, 9)];
        for last in [1, 2] {
            let history = [&both[..], &[operation(Read(last), 11, 12)]].concat();
            assert_eq!(check(&history), Ok(()), "{last}");
        }
        // A read during a write sees the old or the new value, but not one and then the other again.
        let during = |first, second| {
            let reads = [operation(Read(first), 1, 2), operation(Read(second), 3, 4)];
            check(&[&[operation(Write(7), 0, 10)], &reads[..]].concat())
        };
        assert_eq!((during(0, 0), during(0, 7), during(7, 7)), (Ok(()), Ok(()), Ok(())));
        assert!(during(7, 0).is_err());
    }

    #[test]
    fn stale_lost_and_invented_values_are_found() {
        let written = [operation(Write(1), 0, 1), operation(Write(2), 2, 3)];
        for wrong in [0, 1, 3] {
            let history = [&written[..], &[operation(Read(wrong), 4, 5)]].concat();
            assert!(matches!(check(&history), Err(Fault::NotLinearizable(1, _))), "{wrong}");
        }
        // Another key's value.
        let other = Operation { key: 2, ..operation(Read(2), 4, 5) };
        assert!(check(&[&written[..], &[other]].concat()).is_err());
    }

    #[test]
    fn a_write_of_unknown_outcome_may_happen_late_or_never_but_once() {
        let unknown = operation(Write(9), 0, 0);
        let known = operation(Write(1), 1, 2);
        let reads = |values: &[u64]| {
            let read = |(at, value): (usize, &u64)| {
                operation(Read(*value), 10 + 2 * at as u64, 11 + 2 * at as u64)
            };
            let reads: Vec<_> = values.iter().enumerate().map(read).collect();
            check(&[&[unknown, known], &reads[..]].concat())
        };
        assert_eq!((reads(&[1, 1]), reads(&[1, 9, 9]), reads(&[9])), (Ok(()), Ok(()), Ok(())));
        assert!(reads(&[9, 1]).is_err(), "it happened, and was undone");
        let early = operation(Read(9), 0, 1);
        let later = Operation { called: 2, ..unknown };
        assert!(check(&[later, early]).is_err(), "it was read before it was called");
    }
}
