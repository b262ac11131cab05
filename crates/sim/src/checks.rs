//! What must hold in every run, watched from outside the cluster.

use std::fmt;

use bytes::Bytes;
use paxos::{Index, Value};

/// A broken promise: the check that failed, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The name of the check.
    pub check: &'static str,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.detail)
    }
}

/// Fails a check.
pub(crate) fn violation<T>(check: &'static str, detail: String) -> Result<T, Violation> {
    Err(Violation { check, detail })
}

/// A value that was proposed, by its number.
#[derive(Debug)]
struct Proposal {
    bytes: usize,
    committed: Option<Index>,
    acknowledged: bool,
}

/// Knows every proposal and the one log that all nodes must agree on.
#[derive(Default, Debug)]
pub(crate) struct Checks {
    proposals: Vec<Proposal>,
    /// What was committed at index 1, 2, … by whoever was first.
    log: Vec<Value>,
    acknowledged: u64,
}

impl Checks {
    /// A value that nobody proposed before.
    pub(crate) fn new_value(&mut self, bytes: usize) -> (u64, Bytes) {
        let number = self.proposals.len() as u64;
        let bytes = bytes.max(8);
        self.proposals.push(Proposal { bytes, committed: None, acknowledged: false });
        (number, content(number, bytes))
    }

    /// The newest index that anybody handed out.
    pub(crate) fn newest(&self) -> Index {
        Index(self.log.len() as u64)
    }

    pub(crate) fn proposals(&self) -> u64 {
        self.proposals.len() as u64
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Where a proposal was committed.
    pub(crate) fn committed_at(&self, number: u64) -> Option<Index> {
        self.proposals[number as usize].committed
    }

    /// A node that held all entries up to `before` commits.
    pub(crate) fn commit(
        &mut self,
        node: usize,
        before: Index,
        index: Index,
        value: &Value,
    ) -> Result<(), Violation> {
        if index != before.next() {
            let text = format!("node {node} commits {index:?} after {before:?}");
            return violation("commits in order", text);
        }
        if let Some(first) = self.log.get(index.0 as usize - 1) {
            if first == value {
                return Ok(());
            }
            let text = format!("node {node} commits {value:?} at {index:?}, not {first:?}");
            return violation("agreement", text);
        }
        if index != self.newest().next() {
            let text =
                format!("node {node} commits {index:?}, the log ends at {:?}", self.newest());
            return violation("commits in order", text);
        }
        if let Value::Data(data) = value {
            self.commit_proposal(node, index, data)?;
        }
        self.log.push(value.clone());
        Ok(())
    }

    fn commit_proposal(
        &mut self,
        node: usize,
        index: Index,
        data: &Bytes,
    ) -> Result<(), Violation> {
        let Some(number) = number_of(data) else {
            return violation("validity", format!("node {node} commits foreign data at {index:?}"));
        };
        match self.proposals.get_mut(number as usize) {
            Some(proposal) if *data == content(number, proposal.bytes) => {
                if let Some(other) = proposal.committed.replace(index) {
                    let text = format!("value {number} is at {other:?} and at {index:?}");
                    return violation("committed once", text);
                }
                Ok(())
            }
            _ => violation("validity", format!("value {number} at {index:?} was never proposed")),
        }
    }

    /// Whether a state is what was committed, from the first entry on.
    pub(crate) fn is_prefix(&self, values: &[Value]) -> bool {
        self.log.starts_with(values)
    }

    /// The proposer saw its own proposal committed: its client is told.
    pub(crate) fn acknowledge(&mut self, number: u64) {
        let proposal = &mut self.proposals[number as usize];
        if !proposal.acknowledged {
            proposal.acknowledged = true;
            self.acknowledged += 1;
        }
    }

    /// All nodes that may serve at this moment, and how far each has handed out.
    pub(crate) fn serving(&self, nodes: &[(usize, Index)]) -> Result<(), Violation> {
        if nodes.len() > 1 {
            return violation("one lease", format!("(node, applied) that may serve: {nodes:?}"));
        }
        match nodes {
            [(node, applied)] if *applied < self.newest() => {
                let newest = self.newest();
                let text = format!("node {node} may serve at {applied:?}; committed: {newest:?}");
                violation("linearizable reads", text)
            }
            _ => Ok(()),
        }
    }

    /// At the end, what a node's state machine holds.
    pub(crate) fn finish(&self, node: usize, machine: &[Value]) -> Result<(), Violation> {
        let common = machine.len().min(self.log.len());
        if machine[..common] != self.log[..common] || machine.len() > self.log.len() {
            return violation("agreement", format!("node {node} ends with another log"));
        }
        for (number, proposal) in self.proposals.iter().enumerate() {
            let held = proposal.committed.is_some_and(|index| {
                machine.get(index.0 as usize - 1).is_some_and(|value| match value {
                    Value::Data(data) => number_of(data) == Some(number as u64),
                    Value::Noop | Value::Config(_) => false,
                })
            });
            if proposal.acknowledged && !held {
                let text = format!("node {node} ends without acknowledged value {number}");
                return violation("no acknowledged write lost", text);
            }
        }
        Ok(())
    }
}

/// A proposal's bytes: its number, then filling that depends on it.
fn content(number: u64, bytes: usize) -> Bytes {
    let mut data = vec![number as u8; bytes];
    data[..8].copy_from_slice(&number.to_be_bytes());
    Bytes::from(data)
}

/// Which proposal a value is.
pub(crate) fn number_of(data: &Bytes) -> Option<u64> {
    Some(u64::from_be_bytes(data.get(..8)?.try_into().ok()?))
}
