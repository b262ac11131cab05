//! The storage nodes of one process, as routers see them: a direct call each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use wire::ids::{NodeId, Zone};
use wire::resp::Reply;
use wire::service::{
    Answer, BoxFuture, Call, Evaluated, Gate, GateOutcome, NodeFault, NodeStatus, ScriptControl,
    ScriptCounts, StorageService, Transaction,
};

use crate::node::{Node, OpenError};
use crate::scripting::Scripting;

/// Opens a node again after it was stopped.
pub type OpenNode = Box<dyn Fn() -> Result<Node, OpenError> + Send + Sync>;

struct Seat {
    zone: Zone,
    open: OpenNode,
    node: RwLock<Option<Arc<Node>>>,
}

/// See the module's text. Nodes can be stopped and started one by one (`ADMIN FAULT`).
#[derive(Default)]
pub struct LocalNodes {
    seats: BTreeMap<NodeId, Seat>,
    scripting: Arc<Scripting>,
}

impl LocalNodes {
    /// No nodes yet; those that are added share this, by their options.
    pub fn new(scripting: Arc<Scripting>) -> LocalNodes {
        LocalNodes { seats: BTreeMap::new(), scripting }
    }

    /// Opens a node and keeps it under its id.
    ///
    /// *Errors*: what opening said.
    pub fn add(&mut self, id: NodeId, zone: Zone, open: OpenNode) -> Result<(), OpenError> {
        let node = Arc::new(open()?);
        self.seats.insert(id, Seat { zone, open, node: RwLock::new(Some(node)) });
        Ok(())
    }

    /// The node with this id, if it runs.
    pub fn node(&self, id: NodeId) -> Option<Arc<Node>> {
        self.seats.get(&id)?.node.read().clone()
    }

    /// Stops all nodes and waits until their threads have ended.
    pub fn stop(&self) {
        for seat in self.seats.values() {
            stop_seat(seat);
        }
    }
}

/// Takes the node out of its seat and waits for its end: calls in flight hold it a little longer.
fn stop_seat(seat: &Seat) -> bool {
    let Some(node) = seat.node.write().take() else { return false };
    node.request_stop();
    let mut node = node;
    loop {
        match Arc::try_unwrap(node) {
            Ok(last) => {
                drop(last);
                return true;
            }
            Err(shared) => {
                node = shared;
                std::thread::yield_now();
            }
        }
    }
}

impl StorageService for LocalNodes {
    fn call(&self, node: NodeId, call: Call<'_>) -> Answer {
        match self.seats.get(&node) {
            Some(seat) => match &*seat.node.read() {
                Some(node) => node.call(call),
                None => Answer::NotHere(None),
            },
            None => Answer::NotHere(None),
        }
    }

    fn call_all(
        &self,
        node: NodeId,
        calls: &[Call<'_>],
        done: &mut Vec<Evaluated>,
    ) -> Option<Answer> {
        match self.seats.get(&node) {
            Some(seat) => match &*seat.node.read() {
                Some(node) => node.call_all(calls, done),
                None => Some(Answer::NotHere(None)),
            },
            None => Some(Answer::NotHere(None)),
        }
    }

    fn transact(&self, node: NodeId, transaction: Transaction<'_>) -> Answer {
        match self.seats.get(&node) {
            Some(seat) => match &*seat.node.read() {
                Some(node) => node.transact(transaction),
                None => Answer::NotHere(None),
            },
            None => Answer::NotHere(None),
        }
    }

    fn wait(&self, gate: Gate, timeout: Duration) -> BoxFuture<GateOutcome> {
        match self.node(gate.node) {
            Some(node) => node.wait(gate, timeout),
            None => Box::pin(std::future::ready(GateOutcome::Unknown)),
        }
    }

    fn scripts(&self, control: ScriptControl<'_>) -> Reply {
        self.scripting.control(control)
    }

    fn script_counts(&self) -> ScriptCounts {
        self.scripting.counts()
    }

    fn status(&self) -> Vec<NodeStatus> {
        let status = |(id, seat): (&NodeId, &Seat)| match &*seat.node.read() {
            Some(node) => node.status(),
            None => NodeStatus::stopped(*id, seat.zone.clone()),
        };
        self.seats.iter().map(status).collect()
    }

    fn fault(&self, fault: NodeFault) -> Result<(), String> {
        let (NodeFault::Stop(id) | NodeFault::Start(id)) = fault;
        let seat = self.seats.get(&id).ok_or_else(|| format!("no node {id}"))?;
        match fault {
            NodeFault::Stop(_) if stop_seat(seat) => Ok(()),
            NodeFault::Stop(_) => Err(format!("node {id} is stopped already")),
            NodeFault::Start(_) => {
                if seat.node.read().as_ref().is_some_and(|node| node.is_running()) {
                    return Err(format!("node {id} runs already"));
                }
                // What is left of a node that stopped by itself.
                stop_seat(seat);
                let mut node = seat.node.write();
                *node = Some(Arc::new((seat.open)().map_err(|error| error.to_string())?));
                Ok(())
            }
        }
    }
}
