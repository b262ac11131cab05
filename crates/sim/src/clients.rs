//! Clients that write and read a few keys, and remember what they were told.
//!
//! A value's number says which key it is written to. A read looks at the state machine of a replica
//! that may serve, some time passes, and it is answered if that replica may serve then too: what a
//! host does, however long it was held up in between.

use std::collections::BTreeMap;

use paxos::Value;

use crate::checks::{Violation, number_of, violation};
use crate::cluster::{Cluster, Event};
use crate::history::{Operation, What, is_linearizable};

/// Keys of a run.
const KEYS: u64 = 5;

/// A read under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    key: u64,
    invoked: u64,
    seen: Option<u64>,
}

/// What clients know.
#[derive(Default, Debug)]
pub(crate) struct Clients {
    keys: BTreeMap<u64, Vec<Operation>>,
}

impl Clients {
    /// A value is proposed.
    pub(crate) fn write(&mut self, number: u64, now: u64) {
        let what = What::Write(number);
        self.note(number % KEYS, Operation { invoked: now, returned: None, what });
    }

    /// The proposer saw it committed.
    pub(crate) fn written(&mut self, number: u64, now: u64) {
        let operations = self.keys.entry(number % KEYS).or_default();
        if let Some(write) = operations.iter_mut().find(|it| it.what == What::Write(number)) {
            write.returned = write.returned.or(Some(now));
        }
    }

    fn note(&mut self, key: u64, operation: Operation) {
        self.keys.entry(key).or_default().push(operation);
    }

    /// At the end.
    pub(crate) fn check(&self) -> Result<(), Violation> {
        for (key, history) in &self.keys {
            if !is_linearizable(history) {
                return violation("linearizable histories", format!("key {key}: {history:?}"));
            }
        }
        Ok(())
    }
}

impl Cluster<'_> {
    /// A client reads wherever it is served.
    pub(crate) fn read(&mut self) {
        if self.calm {
            return;
        }
        let key = self.random.below(KEYS);
        for node in 0..self.hosts.len() {
            let host = &self.hosts[node];
            if host.paused_until.is_some() || host.serves_from(self.now).is_none() {
                continue;
            }
            let newest = host.machine.values.iter().rev().find_map(|value| match value {
                Value::Data(data) => number_of(data).filter(|number| number % KEYS == key),
                Value::Noop | Value::Config(_) => None,
            });
            let (life, read) = (host.life, Read { key, invoked: self.now, seen: newest });
            let took = self.random.skewed(1, 50_000);
            self.after(took, Event::ReadDone { node, life, read });
        }
        let gap = self.random.skewed(5_000, 300_000);
        self.after(gap, Event::Read);
    }

    /// The read is answered, if the replica may serve still.
    pub(crate) fn read_done(&mut self, node: usize, life: u64, read: Read) {
        let host = &self.hosts[node];
        if host.life == life && host.serves_from(self.now).is_some() {
            let what = What::Read(read.seen);
            let operation = Operation { invoked: read.invoked, returned: Some(self.now), what };
            self.clients.note(read.key, operation);
            self.summary.reads += 1;
        }
    }
}
