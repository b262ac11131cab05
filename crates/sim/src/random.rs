//! Seeded chance. Our own generator, so that a seed means the same run after any update of a
//! dependency.

/// One stream of random numbers (SplitMix64). Each concern of a run has its own, so that a change
/// in one disturbs the others little.
#[derive(Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// The stream of one concern in the run of a seed.
    pub(crate) fn new(seed: u64, concern: &str) -> Random {
        let mut random = Random { state: seed };
        for byte in concern.bytes() {
            random.state = random.next() ^ u64::from(byte);
        }
        random
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below a bound that is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Between the two, each order of magnitude as likely as another: mostly short, at times long.
    pub(crate) fn skewed(&mut self, low: u64, high: u64) -> u64 {
        let doublings = (high / low.max(1)).max(1).ilog2() as u64 + 1;
        let top = low.max(1) << self.below(doublings + 1);
        self.between(low, top.clamp(low, high))
    }

    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}
