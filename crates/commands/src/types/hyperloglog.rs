//! HyperLogLogs: strings in Redis's own format, so that what one server's GET gives another's SET takes.
//!
//! ```text
//! string   = "HYLL" form:u8 0 0 0 count:u64 registers      count little-endian
//! form     = 0 dense, 1 sparse
//! count    = what PFCOUNT last answered; not valid if its highest bit is set
//! dense    = 16,384 registers of 6 bits, the first in the low bits of the first byte
//! sparse   = { 00 and 6 bits: one more than that many registers are 0
//!            | 01 and 14 bits: likewise
//!            | 1, 5 bits, 2 bits: one more than the 2 bits say have one more than the 5 bits say }
//! ```
//!
//! Redis answers by writing the count into the string; reads here never write, so it is computed each
//! time, unless the string brought it.
//!
//! A sparse string is changed where it stands, by the same steps as Redis takes, since the same
//! registers can be written in many ways and the bytes shall be the same.
//!
//! Source: Heule et al., HyperLogLog in Practice; Ertl, arXiv:1702.01284, for the estimate.

/// Registers of one.
pub(crate) const REGISTERS: usize = 1 << INDEX_BITS;
/// Longest sparse string, in bytes: Redis's `hll-sparse-max-bytes`.
pub(crate) const SPARSE_BYTES_MAX: u64 = 3_000;

/// Bits of a hash that choose the register.
const INDEX_BITS: u32 = 14;
/// Bits of a hash that are looked at for the run of zeros.
const RUN_BITS: u32 = 64 - INDEX_BITS;
const REGISTER_BITS: usize = 6;
const REGISTER_MAX: u8 = (1 << REGISTER_BITS) - 1;
const HASH_SEED: u64 = 0xadc8_3b19;
const ALPHA_INFINITE: f64 = 0.721_347_520_444_481_7;

const MAGIC: &[u8] = b"HYLL";
const FORM_AT: usize = 4;
const COUNT_AT: usize = 8;
/// Where the registers begin.
const HEADER_BYTES: usize = 16;
const DENSE_BYTES: usize = HEADER_BYTES + (REGISTERS * REGISTER_BITS).div_ceil(8);
const FORM_DENSE: u8 = 0;
const FORM_SPARSE: u8 = 1;
const COUNT_INVALID: u8 = 1 << 7;

const SPARSE_VALUE_MAX: u8 = 32;
const SPARSE_VALUE_RUN_MAX: usize = 4;
const SPARSE_ZERO_RUN_MAX: usize = 64;
/// Opcodes looked at for neighbours that can be joined after a change.
const JOIN_OPCODES: usize = 5;

/// The registers, one a byte.
pub(crate) type Registers = [u8; REGISTERS];

/// A string that has the right shape, but does not tell all registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Corrupted;

/// A HyperLogLog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HyperLogLog(Vec<u8>);

/// What stands at a place of a sparse string.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Opcode {
    /// So many registers are 0; one byte.
    Zeros(usize),
    /// So many registers are 0; two bytes.
    ManyZeros(usize),
    /// So many registers have this value.
    Value(u8, usize),
}

impl Opcode {
    fn run(self) -> usize {
        match self {
            Opcode::Zeros(run) | Opcode::ManyZeros(run) | Opcode::Value(_, run) => run,
        }
    }

    fn bytes(self) -> usize {
        if matches!(self, Opcode::ManyZeros(_)) { 2 } else { 1 }
    }

    fn value(self) -> u8 {
        if let Opcode::Value(value, _) = self { value } else { 0 }
    }

    fn zeros(run: usize) -> Opcode {
        if run > SPARSE_ZERO_RUN_MAX { Opcode::ManyZeros(run) } else { Opcode::Zeros(run) }
    }

    fn put(self, out: &mut Vec<u8>) {
        match self {
            Opcode::Zeros(run) => out.push((run - 1) as u8),
            Opcode::ManyZeros(run) => {
                out.push(((run - 1) >> 8) as u8 | 0x40);
                out.push((run - 1) as u8);
            }
            Opcode::Value(value, run) => out.push((value - 1) << 2 | (run - 1) as u8 | 0x80),
        }
    }

    /// The opcode that these bytes begin with.
    fn read(bytes: &[u8]) -> Option<Opcode> {
        let first = *bytes.first()?;
        Some(match first >> 6 {
            0 => Opcode::Zeros(usize::from(first & 0x3f) + 1),
            1 => {
                let second = *bytes.get(1)?;
                Opcode::ManyZeros((usize::from(first & 0x3f) << 8 | usize::from(second)) + 1)
            }
            _ => Opcode::Value((first >> 2 & 0x1f) + 1, usize::from(first & 0x03) + 1),
        })
    }
}

impl HyperLogLog {
    /// One that nothing was added to.
    pub(crate) fn new() -> HyperLogLog {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        bytes[FORM_AT] = FORM_SPARSE;
        Opcode::ManyZeros(REGISTERS).put(&mut bytes);
        HyperLogLog(bytes)
    }

    /// The one that a string holds; `None` if it holds none.
    pub(crate) fn read(text: &[u8]) -> Option<HyperLogLog> {
        let form = *text.get(..HEADER_BYTES)?.get(FORM_AT)?;
        let known = form == FORM_SPARSE || form == FORM_DENSE && text.len() == DENSE_BYTES;
        (text.starts_with(MAGIC) && known).then(|| HyperLogLog(text.to_vec()))
    }

    /// The string.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Whether it is sparse.
    pub(crate) fn is_sparse(&self) -> bool {
        self.0[FORM_AT] == FORM_SPARSE
    }

    /// Adds an element; whether a register changed. A sparse one becomes dense when it grows beyond so many
    /// bytes.
    pub(crate) fn add(&mut self, element: &[u8], sparse_max: u64) -> Result<bool, Corrupted> {
        let (index, value) = place_of(element);
        self.raise(index, value, sparse_max)
    }

    /// Raises a register to a value; whether it was lower. A sparse one becomes dense likewise.
    pub(crate) fn raise(
        &mut self,
        index: usize,
        value: u8,
        sparse_max: u64,
    ) -> Result<bool, Corrupted> {
        if self.is_sparse() {
            self.raise_sparse(index, value, sparse_max)
        } else {
            Ok(self.raise_dense(index, value))
        }
    }

    /// Makes it dense; whether it was sparse.
    pub(crate) fn make_dense(&mut self) -> Result<bool, Corrupted> {
        if !self.is_sparse() {
            return Ok(false);
        }
        let mut registers = [0; REGISTERS];
        self.merge_into(&mut registers)?;
        self.0.resize(HEADER_BYTES, 0);
        self.0[FORM_AT] = FORM_DENSE;
        self.0.resize(DENSE_BYTES, 0);
        for (index, value) in registers.into_iter().enumerate().filter(|(_, value)| *value > 0) {
            self.raise_dense(index, value);
        }
        Ok(true)
    }

    /// Raises each register to that of this one.
    pub(crate) fn merge_into(&self, registers: &mut Registers) -> Result<(), Corrupted> {
        if !self.is_sparse() {
            for (index, register) in registers.iter_mut().enumerate() {
                *register = u8::max(*register, self.dense(index));
            }
            return Ok(());
        }
        let mut index = 0;
        for opcode in self.opcodes() {
            let opcode = opcode?;
            let run = registers.get_mut(index..index + opcode.run()).ok_or(Corrupted)?;
            for register in run {
                *register = u8::max(*register, opcode.value());
            }
            index += opcode.run();
        }
        if index == REGISTERS { Ok(()) } else { Err(Corrupted) }
    }

    /// The count that stands in the string, unless it was forgotten.
    pub(crate) fn known_count(&self) -> Option<u64> {
        let known = &self.0[COUNT_AT..HEADER_BYTES];
        let number = || known.iter().rev().fold(0, |count, byte| count << 8 | u64::from(*byte));
        (known[7] & COUNT_INVALID == 0).then(number)
    }

    /// Puts the count into the string.
    pub(crate) fn remember_count(&mut self) -> Result<(), Corrupted> {
        let count = self.count()?;
        self.0[COUNT_AT..HEADER_BYTES].copy_from_slice(&count.to_le_bytes());
        Ok(())
    }

    /// About how many different elements were added.
    pub(crate) fn count(&self) -> Result<u64, Corrupted> {
        if let Some(count) = self.known_count() {
            return Ok(count);
        }
        let mut registers = [0; REGISTERS];
        self.merge_into(&mut registers)?;
        Ok(estimate(&registers))
    }

    /// Forgets the count that stands in the string.
    pub(crate) fn forget_count(&mut self) {
        self.0[HEADER_BYTES - 1] |= COUNT_INVALID;
    }

    /// What a sparse one is made of, from first to last.
    pub(crate) fn opcodes(&self) -> impl Iterator<Item = Result<Opcode, Corrupted>> + '_ {
        let mut rest = &self.0[HEADER_BYTES..];
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let opcode = Opcode::read(rest).ok_or(Corrupted);
            rest = rest.get(opcode.map_or(rest.len(), Opcode::bytes)..).unwrap_or_default();
            Some(opcode)
        })
    }

    fn dense(&self, index: usize) -> u8 {
        let bit = index * REGISTER_BITS;
        let at = HEADER_BYTES + bit / 8;
        let high = self.0.get(at + 1).copied().unwrap_or(0);
        (u16::from_le_bytes([self.0[at], high]) >> (bit % 8)) as u8 & REGISTER_MAX
    }

    fn raise_dense(&mut self, index: usize, value: u8) -> bool {
        if self.dense(index) >= value {
            return false;
        }
        let bit = index * REGISTER_BITS;
        let at = HEADER_BYTES + bit / 8;
        let mask = u16::from(REGISTER_MAX) << (bit % 8);
        let [low, high] = (u16::from(value) << (bit % 8)).to_le_bytes();
        let [mask_low, mask_high] = mask.to_le_bytes();
        self.0[at] = self.0[at] & !mask_low | low;
        if let Some(byte) = self.0.get_mut(at + 1) {
            *byte = *byte & !mask_high | high;
        }
        true
    }

    fn raise_sparse(
        &mut self,
        index: usize,
        value: u8,
        sparse_max: u64,
    ) -> Result<bool, Corrupted> {
        if value > SPARSE_VALUE_MAX {
            return self.raise_by_making_dense(index, value);
        }
        let (mut at, mut first, mut before) = (HEADER_BYTES, 0, None);
        let opcode = loop {
            let opcode = Opcode::read(&self.0[at..]).ok_or(Corrupted)?;
            if index < first + opcode.run() {
                break opcode;
            }
            before = Some(at);
            first += opcode.run();
            at += opcode.bytes();
        };
        if opcode.value() >= value {
            return Ok(false);
        }
        // The run is split around the register: what is before it, itself, what is behind it.
        let part = |run: usize| match opcode {
            Opcode::Value(value, _) => Opcode::Value(value, run),
            _ => Opcode::zeros(run),
        };
        let (left, right) = (index - first, first + opcode.run() - 1 - index);
        let mut split = Vec::with_capacity(5);
        if left > 0 {
            part(left).put(&mut split);
        }
        Opcode::Value(value, 1).put(&mut split);
        if right > 0 {
            part(right).put(&mut split);
        }
        let grown = self.0.len() + split.len() - opcode.bytes();
        if split.len() > opcode.bytes() && grown as u64 > sparse_max {
            return self.raise_by_making_dense(index, value);
        }
        self.0.splice(at..at + opcode.bytes(), split);
        self.join_values(before.unwrap_or(HEADER_BYTES));
        self.forget_count();
        Ok(true)
    }

    fn raise_by_making_dense(&mut self, index: usize, value: u8) -> Result<bool, Corrupted> {
        let mut dense = self.clone();
        dense.make_dense()?;
        let raised = dense.raise_dense(index, value);
        if raised {
            *self = dense;
        }
        Ok(raised)
    }

    /// Joins neighbours of the same value, beginning at `at`.
    fn join_values(&mut self, mut at: usize) {
        for _ in 0..JOIN_OPCODES {
            let Some(opcode) = Opcode::read(&self.0[at..]) else { return };
            let next = self.0.get(at + opcode.bytes()..).and_then(Opcode::read);
            match (opcode, next) {
                (Opcode::Value(value, run), Some(Opcode::Value(other, more)))
                    if value == other && run + more <= SPARSE_VALUE_RUN_MAX =>
                {
                    let mut joined = Vec::with_capacity(1);
                    Opcode::Value(value, run + more).put(&mut joined);
                    self.0.splice(at..at + 2, joined);
                }
                _ => at += opcode.bytes(),
            }
        }
    }
}

/// About how many different elements gave these registers.
pub(crate) fn estimate(registers: &Registers) -> u64 {
    let mut histogram = [0u32; REGISTER_MAX as usize + 1];
    for register in registers {
        histogram[usize::from(*register)] += 1;
    }
    let m = REGISTERS as f64;
    let top = RUN_BITS as usize;
    let mut z = m * tau((m - f64::from(histogram[top + 1])) / m);
    for j in (1..=top).rev() {
        z = (z + f64::from(histogram[j])) * 0.5;
    }
    z += m * sigma(f64::from(histogram[0]) / m);
    (ALPHA_INFINITE * m * m / z).round() as u64
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if before == z {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if before == z {
            return z / 3.0;
        }
    }
}

/// The register of an element, and how long its run of zeros is, the one that ends it included.
pub(crate) fn place_of(element: &[u8]) -> (usize, u8) {
    let hash = murmur64a(element, HASH_SEED);
    let run = hash >> INDEX_BITS | 1 << RUN_BITS;
    ((hash as usize) & (REGISTERS - 1), run.trailing_zeros() as u8 + 1)
}

/// MurmurHash2, 64 bits, as for little-endian machines.
fn murmur64a(bytes: &[u8], seed: u64) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const R: u32 = 47;
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(M);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ k >> R).wrapping_mul(M);
        hash = (hash ^ k).wrapping_mul(M);
    }
    if !tail.is_empty() {
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(M);
    }
    hash = (hash ^ hash >> R).wrapping_mul(M);
    hash ^ hash >> R
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn sparse_and_dense_hold_the_same_registers() {
        let mut random = Random::new(41);
        for _ in 0..20 {
            let (mut sparse, mut dense) = (HyperLogLog::new(), HyperLogLog::new());
            assert_eq!(dense.make_dense(), Ok(true));
            let mut model = [0; REGISTERS];
            for _ in 0..random.below(3_000) {
                let element = random.bytes(20);
                let (index, value) = place_of(&element);
                let raised = model[index] < value;
                model[index] = u8::max(model[index], value);
                assert_eq!(sparse.add(&element, SPARSE_BYTES_MAX), Ok(raised));
                assert_eq!(dense.add(&element, SPARSE_BYTES_MAX), Ok(raised));
                assert!(!sparse.is_sparse() || sparse.0.len() as u64 <= SPARSE_BYTES_MAX);
            }
            for one in [&sparse, &dense] {
                let mut registers = [0; REGISTERS];
                one.merge_into(&mut registers).expect("sound");
                assert!(registers == model);
                assert_eq!(HyperLogLog::read(&one.0).as_ref(), Some(one));
            }
        }
    }

    #[test]
    fn counts_are_about_right() {
        let (mut one, mut expected) = (HyperLogLog::new(), 0u32);
        assert_eq!(one.count(), Ok(0));
        for number in 0..200_000u64 {
            one.add(&number.to_le_bytes(), SPARSE_BYTES_MAX).expect("sound");
            expected += 1;
            if [1, 10, 100, 1_000, 10_000, 100_000, 200_000].contains(&expected) {
                one.forget_count();
                let apart = one.count().expect("sound").abs_diff(u64::from(expected));
                assert!(apart as f64 <= f64::from(expected) * 0.05, "{expected}: {apart} apart");
            }
        }
    }

    #[test]
    fn damage_never_panics() {
        let mut random = Random::new(42);
        let mut refused = 0;
        for _ in 0..3_000 {
            let mut one = HyperLogLog::new();
            for _ in 0..random.below(300) {
                one.add(&random.bytes(8), SPARSE_BYTES_MAX).expect("sound");
            }
            let mut bytes = one.into_bytes();
            for _ in 0..1 + random.below(3) {
                let at = random.below(bytes.len());
                bytes[at] = random.next() as u8;
            }
            bytes.truncate(bytes.len() - random.below(3));
            let Some(mut damaged) = HyperLogLog::read(&bytes) else { continue };
            damaged.forget_count();
            refused += usize::from(damaged.count().is_err());
            for _ in 0..50 {
                let _ = damaged.add(&random.bytes(8), SPARSE_BYTES_MAX);
            }
            let _ = damaged.raise(random.below(REGISTERS), 51, SPARSE_BYTES_MAX);
            damaged.opcodes().for_each(drop);
        }
        assert!(refused > 100, "only {refused} were found out");
    }
}
