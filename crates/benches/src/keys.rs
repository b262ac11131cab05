//! Which keys a load asks for, and what it writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;

use crate::client::encode;
use crate::driver::{Generator, Step};

/// Skew of YCSB's zipfian distribution.
pub const ZIPFIAN_THETA: f64 = 0.99;

/// A small generator of random numbers (SplitMix64): runs with one seed ask for the same keys.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// A number in `0.0..1.0`.
    pub fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// How often each of so many keys is asked for.
#[derive(Clone, Debug)]
pub enum Choice {
    /// All alike.
    Uniform(u64),
    /// The k-th most popular in proportion to `1 / k^0.99`.
    Zipfian(Zipfian),
}

impl Choice {
    /// The next key's number.
    pub fn next(&self, random: &mut Random) -> u64 {
        match self {
            Choice::Uniform(keys) => random.below(*keys),
            Choice::Zipfian(zipfian) => zipfian.next(random),
        }
    }
}

/// YCSB's scrambled zipfian generator (Gray et al., "Quickly generating billion-record synthetic
/// databases", 1994): the popular keys lie anywhere in the key space.
#[derive(Clone, Debug)]
pub struct Zipfian {
    keys: u64,
    alpha: f64,
    eta: f64,
    zeta: f64,
    second: f64,
}

impl Zipfian {
    /// Over so many keys; takes O(keys) once.
    pub fn new(keys: u64) -> Zipfian {
        let theta = ZIPFIAN_THETA;
        let zeta = |n: u64| (1..=n).map(|k| (k as f64).powf(-theta)).sum::<f64>();
        let zeta_keys = zeta(keys);
        let eta = (1.0 - (2.0 / keys as f64).powf(1.0 - theta)) / (1.0 - zeta(2) / zeta_keys);
        let second = 1.0 + 0.5f64.powf(theta);
        Zipfian { keys, alpha: 1.0 / (1.0 - theta), eta, zeta: zeta_keys, second }
    }

    fn rank(&self, random: &mut Random) -> u64 {
        let u = random.fraction();
        let scaled = u * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < self.second {
            return 1;
        }
        let rank = self.keys as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.keys - 1)
    }

    fn next(&self, random: &mut Random) -> u64 {
        mix(self.rank(random)) % self.keys
    }
}

/// The key that redis-benchmark makes of `key:__rand_int__`.
pub fn key(number: u64) -> String {
    format!("key:{number:012}")
}

/// A value of so many bytes. Half of it is random, for an LSM compresses what repeats.
pub fn value(random: &mut Random, bytes: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(bytes + 8);
    while value.len() < bytes / 2 {
        value.extend_from_slice(&random.bits().to_le_bytes());
    }
    value.resize(bytes, b'x');
    value
}

/// Values for a load: one that is cut anew out of a larger text each time, which is cheaper than
/// random bytes and repeats as little.
#[derive(Debug)]
pub struct Values {
    text: Vec<u8>,
    bytes: usize,
}

impl Values {
    /// Values of so many bytes.
    pub fn new(random: &mut Random, bytes: usize) -> Values {
        const CUTS: usize = 4096;
        let mut text = Vec::with_capacity(bytes + CUTS);
        while text.len() < bytes + CUTS {
            text.extend_from_slice(&value(random, 64));
        }
        Values { text, bytes }
    }

    /// The next value.
    pub fn next(&self, random: &mut Random) -> &[u8] {
        let at = random.below((self.text.len() - self.bytes) as u64) as usize;
        &self.text[at..at + self.bytes]
    }
}

/// Generators that together SET the keys `0..keys` in turn, each once in `keys` steps.
pub fn fill(keys: u64, value_bytes: usize, connections: usize) -> Vec<Generator> {
    let next = Arc::new(AtomicU64::new(0));
    let fill = |connection: usize| -> Generator {
        let mut random = Random::new(connection as u64);
        let values = Values::new(&mut random, value_bytes);
        let next = next.clone();
        Box::new(move |out: &mut BytesMut| {
            let number = next.fetch_add(1, Ordering::Relaxed) % keys;
            encode(&[b"SET", key(number).as_bytes(), values.next(&mut random)], out);
            Step::ONE
        })
    };
    (0..connections).map(fill).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipfian_ranks_are_as_popular_as_they_should_be() {
        const DRAWS: usize = 200_000;
        let zipfian = Zipfian::new(1_000);
        let mut random = Random::new(1);
        let mut counts = vec![0u32; 1_000];
        (0..DRAWS).for_each(|_| counts[zipfian.rank(&mut random) as usize] += 1);
        let share = |rank: usize| f64::from(counts[rank]) / DRAWS as f64;
        let expected = |rank: usize| ((rank + 1) as f64).powf(-ZIPFIAN_THETA) / zipfian.zeta;
        for rank in [0, 1] {
            assert!((share(rank) / expected(rank) - 1.0).abs() < 0.05, "rank {rank}");
        }
        let tail: f64 = (100..1_000).map(share).sum();
        let expected_tail: f64 = (100..1_000).map(expected).sum();
        assert!((tail / expected_tail - 1.0).abs() < 0.1, "{tail} against {expected_tail}");
    }

    #[test]
    fn fill_names_each_key_once() {
        let mut seen = std::collections::BTreeSet::new();
        let mut out = BytesMut::new();
        for mut generator in fill(90, 4, 3) {
            for _ in 0..if seen.is_empty() { 50 } else { 20 } {
                generator(&mut out);
                let text = String::from_utf8_lossy(&out).into_owned();
                let at = text.find("key:").expect("a key");
                seen.insert(text[at..at + 16].to_owned());
                out.clear();
            }
        }
        assert_eq!(seen.len(), 90);
    }
}
