//! How many entries a second do three replicas decide in one thread, with no disk and no network?
//!
//! The host here hands messages over at once and calls every record durable as soon as it is
//! written, so what is measured is the core alone.
//!
//! `cargo run -p paxos --release --example throughput [seconds [entries per round]]`

use std::collections::VecDeque;
use std::time::{Duration, Instant as Real};

use bytes::Bytes;
use paxos::{
    Beat, Instant, Life, Liveness, LivenessOutput, Message, NodeId, Options, Output, Recovered,
    Replica,
};

const VALUE_BYTES: usize = 100;
/// Entries proposed before the messages are carried.
const ROUNDS: [usize; 3] = [1, 16, 128];

struct Cluster {
    replicas: Vec<Replica>,
    nodes: Vec<Liveness>,
    mail: VecDeque<(usize, NodeId, Message)>,
    /// Entries that the first replica, the leader, has committed.
    decided: u64,
    start: Real,
}

impl Cluster {
    fn new() -> Cluster {
        let members: Vec<_> = (1..=3).map(NodeId).collect();
        let node = |id: &NodeId| {
            let life = Life(u64::from(id.0));
            let mut node = Liveness::new(*id, life, Options::default(), Instant(0));
            members.iter().for_each(|peer| node.add_peer(*peer, Instant(0)));
            node
        };
        let nodes: Vec<_> = members.iter().map(node).collect();
        let new = |(id, node): (&NodeId, &Liveness)| {
            let (recovered, supports) = (Recovered::default(), node.supports());
            Replica::new(*id, &members, Options::default(), recovered, supports, Instant(0), 7)
        };
        let replicas = members.iter().zip(&nodes).map(new).collect();
        Cluster { replicas, nodes, mail: VecDeque::new(), decided: 0, start: Real::now() }
    }

    fn now(&self) -> Instant {
        Instant(self.start.elapsed().as_micros() as u64)
    }

    /// Does what a replica wants done until it wants nothing more.
    fn drain(&mut self, at: usize, now: Instant) {
        loop {
            let mut durable = None;
            while let Some(output) = self.replicas[at].poll_output() {
                match output {
                    Output::Persist { token, .. } => durable = Some(token),
                    Output::Send { to, message } => {
                        self.mail.push_back((to.0 as usize - 1, NodeId(at as u32 + 1), message));
                    }
                    Output::Commit { .. } => self.decided += u64::from(at == 0),
                    Output::RoleChanged { .. }
                    | Output::ReadLog { .. }
                    | Output::ConfigChanged { .. }
                    | Output::Removed
                    | Output::InstallSnapshot { .. } => {}
                }
            }
            let Some(token) = durable else { return };
            self.replicas[at].handle_persisted(token, now);
        }
    }

    /// Carries messages until there are none.
    fn settle(&mut self, now: Instant) {
        (0..self.replicas.len()).for_each(|at| self.drain(at, now));
        while let Some((to, from, message)) = self.mail.pop_front() {
            self.replicas[to].handle_message(from, message, now);
            self.drain(to, now);
        }
    }

    fn tick(&mut self, now: Instant) {
        let mut beats: Vec<(NodeId, NodeId, Beat)> = Vec::new();
        for node in &mut self.nodes {
            if node.next_deadline() <= now {
                node.handle_tick(now);
            }
        }
        loop {
            for (at, node) in self.nodes.iter_mut().enumerate() {
                while let Some(output) = node.poll_output() {
                    match output {
                        LivenessOutput::Send { to, beat } => {
                            beats.push((NodeId(at as u32 + 1), to, beat));
                        }
                        LivenessOutput::Changed => self.replicas[at].handle_liveness(now),
                    }
                }
            }
            let Some((from, to, beat)) = beats.pop() else { break };
            self.nodes[to.0 as usize - 1].handle_beat(from, beat, now);
        }
        for replica in &mut self.replicas {
            if replica.next_deadline() <= now {
                replica.handle_tick(now);
            }
        }
    }
}

/// Decided entries a second, `round` of them proposed at a time.
fn measure(round: usize, length: Duration) -> f64 {
    let mut cluster = Cluster::new();
    let value = Bytes::from(vec![7; VALUE_BYTES]);
    let now = cluster.now();
    cluster.replicas[0].campaign(now);
    cluster.settle(now);
    assert!(cluster.replicas[0].is_leader(), "nobody else campaigns");
    let (start, before) = (Real::now(), cluster.decided);
    while start.elapsed() < length {
        let now = cluster.now();
        cluster.tick(now);
        // The clock is read once for some rounds, as a host would for a batch of messages.
        for _ in 0..256 / round {
            for _ in 0..round {
                cluster.replicas[0].propose(value.clone(), now).expect("the window is empty");
            }
            cluster.settle(now);
        }
    }
    (cluster.decided - before) as f64 / start.elapsed().as_secs_f64()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let round = arguments.next().and_then(|text| text.parse().ok());
    let rounds = round.map_or(ROUNDS.to_vec(), |round: usize| vec![round.clamp(1, 256)]);
    for round in rounds {
        let rate = measure(round, Duration::from_secs_f64(seconds));
        println!("{round:>4} per round: {:.2} M entries/s", rate / 1e6);
    }
}
