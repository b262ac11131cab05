//! The node's heartbeat: what its thread sends other nodes, what they answer, and what follows when
//! support between nodes begins or ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use paxos::{Instant, Liveness, LivenessOutput};
use wire::ids::NodeId;
use wire::peer::{Frame, Kind};

use crate::driver::Shared;

/// The longest and the shortest rest of the heartbeat's thread.
const REST_MAX: Duration = Duration::from_millis(20);
const REST_MIN: Duration = Duration::from_millis(1);

/// See the module's text.
pub(crate) struct Pulse {
    /// Locked for moments, never together with a core.
    liveness: Mutex<Liveness>,
    /// The replicas have not been told yet that support began or ended.
    has_changed: AtomicBool,
}

impl Pulse {
    /// The heartbeat of another life of a node.
    pub(crate) fn new(
        id: NodeId,
        life: paxos::Life,
        options: &paxos::Options,
        now: Instant,
    ) -> Pulse {
        let liveness = Liveness::new(paxos::NodeId(id.0), life, options.clone(), now);
        Pulse { liveness: Mutex::new(liveness), has_changed: AtomicBool::new(false) }
    }

    /// What the node's replicas rest on.
    pub(crate) fn supports(&self) -> paxos::Supports {
        self.liveness.lock().supports()
    }

    /// Exchanges heartbeats with a node from now on.
    pub(crate) fn add_peer(&self, node: NodeId, now: Instant) {
        self.liveness.lock().add_peer(paxos::NodeId(node.0), now);
    }
}

/// A heartbeat of another node.
pub(crate) fn receive(shared: &Shared, frame: &Frame) {
    match paxos::codec::decode_beat(frame.body().clone()) {
        Ok(beat) => {
            let (from, now) = (paxos::NodeId(frame.from.0), shared.clock.monotonic());
            step(shared, |liveness| liveness.handle_beat(from, beat, now));
        }
        Err(error) => {
            tracing::warn!(node = shared.id.0, from = frame.from.0, %error, "bad heartbeat");
        }
    }
}

/// The heartbeat's thread. It does nothing that could take long: other nodes wait to hear from it.
pub(crate) fn run(shared: &Shared) {
    while !shared.is_stopping() {
        shared.faults.checkpoint();
        std::thread::park_timeout(beat(shared));
    }
}

/// Does what is due, and tells how long to rest.
pub(crate) fn beat(shared: &Shared) -> Duration {
    let now = shared.clock.monotonic();
    let deadline = step(shared, |liveness| {
        if liveness.next_deadline() <= now {
            liveness.handle_tick(now);
        }
        liveness.next_deadline()
    });
    now.until(deadline).clamp(REST_MIN, REST_MAX)
}

/// Tells all replicas that support between nodes began or ended, if it did.
pub(crate) fn tell_replicas(shared: &Shared) {
    if shared.pulse.has_changed.swap(false, Ordering::AcqRel) {
        for partition in shared.all_replicas() {
            let now = shared.clock.monotonic();
            shared.with(&partition, |core, _| core.replica.handle_liveness(now));
        }
    }
}

/// Runs `act` on the node's liveness and carries out what it leaves.
fn step<R>(shared: &Shared, act: impl FnOnce(&mut Liveness) -> R) -> R {
    let mut beats = Vec::new();
    let result = {
        let mut liveness = shared.pulse.liveness.lock();
        let result = act(&mut liveness);
        while let Some(output) = liveness.poll_output() {
            match output {
                LivenessOutput::Send { to, beat } => beats.push((NodeId(to.0), beat)),
                LivenessOutput::Changed => shared.pulse.has_changed.store(true, Ordering::Release),
            }
        }
        result
    };
    for (to, beat) in beats {
        let body = paxos::codec::encode_beat(&beat).freeze();
        shared.transport.send(to, Frame::new(Kind::Heartbeat, shared.id, to, body));
    }
    result
}
