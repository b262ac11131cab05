//! Links between nodes: delay, loss, repetition, reordering, and cuts in either direction.

use crate::members::HOSTS_MAX;
use crate::random::Random;

/// What becomes of one message: its copies' delays in microseconds; none if it is lost.
pub(crate) type Fate = [Option<u64>; 2];

/// See the module's text. Delays differ from message to message, so messages overtake each other.
#[derive(Debug)]
pub(crate) struct Network {
    random: Random,
    nodes: usize,
    /// `cut[from * nodes + to]`: nothing gets through in this direction.
    cut: Vec<bool>,
    /// What goes from one node to another arrives so much later.
    pub(crate) held: Option<(usize, usize, u64)>,
    delay_min_us: u64,
    delay_max_us: u64,
    loss_per_mille: u64,
    repeat_per_mille: u64,
    /// Messages that arrive when everybody has forgotten them.
    late_per_mille: u64,
}

/// The longest delay of a late message.
const LATE_MAX_US: u64 = 5_000_000;

impl Network {
    pub(crate) fn new(seed: u64) -> Network {
        let mut random = Random::new(seed, "network");
        let delay_min_us = random.skewed(50, 5_000);
        Network {
            nodes: HOSTS_MAX,
            cut: vec![false; HOSTS_MAX * HOSTS_MAX],
            held: None,
            delay_min_us,
            delay_max_us: random.skewed(delay_min_us, 60_000),
            loss_per_mille: random.pick(&[0, 0, 5, 50, 200]),
            repeat_per_mille: random.pick(&[0, 0, 10, 200]),
            late_per_mille: random.pick(&[0, 0, 2, 20]),
            random,
        }
    }

    pub(crate) fn fate(&mut self, from: usize, to: usize) -> Fate {
        if self.cut[from * self.nodes + to] || self.random.chance(self.loss_per_mille) {
            return [None, None];
        }
        let held = self.held.filter(|held| (held.0, held.1) == (from, to));
        let first = self.delay() + held.map_or(0, |(_, _, late_us)| late_us);
        let second = self.random.chance(self.repeat_per_mille).then(|| self.delay());
        [Some(first), second]
    }

    fn delay(&mut self) -> u64 {
        if self.random.chance(self.late_per_mille) {
            return self.random.between(self.delay_max_us, LATE_MAX_US);
        }
        self.random.skewed(self.delay_min_us, self.delay_max_us)
    }

    /// Whether one direction of a link is cut.
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from * self.nodes + to]
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cut[from * self.nodes + to] = true;
    }

    /// Cuts every link between the nodes of a set (a bit each) and the others.
    pub(crate) fn split(&mut self, set: u64) {
        for from in 0..self.nodes {
            for to in 0..self.nodes {
                if (set >> from) & 1 != (set >> to) & 1 {
                    self.cut(from, to);
                }
            }
        }
    }

    /// Joins all links again.
    pub(crate) fn join(&mut self) {
        self.cut.fill(false);
    }

    /// Joins both directions of one link.
    pub(crate) fn join_link(&mut self, one: usize, other: usize) {
        self.cut[one * self.nodes + other] = false;
        self.cut[other * self.nodes + one] = false;
    }

    /// Joins one node's links.
    pub(crate) fn join_node(&mut self, node: usize) {
        for other in 0..self.nodes {
            self.cut[node * self.nodes + other] = false;
            self.cut[other * self.nodes + node] = false;
        }
    }

    /// Loses nothing from now on.
    pub(crate) fn calm(&mut self) {
        self.join();
        self.held = None;
        self.loss_per_mille = 0;
        self.late_per_mille = 0;
    }
}
