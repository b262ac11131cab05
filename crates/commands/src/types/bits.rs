//! Bits of a text: counting, finding, and integers of any width at any bit.
//!
//! Bit 0 is the highest bit of the first byte. A text is zero behind its end. Ranges of bits are
//! inclusive, as the commands write them.

/// Bits of a `u64`, and of the eight bytes that are looked at together.
const WORD_BYTES: usize = size_of::<u64>();
/// A field of 64 bits touches at most so many bytes.
const FIELD_BYTES_MAX: usize = 9;

/// The bit at an offset.
pub(crate) fn get(text: &[u8], offset: u64) -> bool {
    let byte = usize::try_from(offset >> 3).ok().and_then(|at| text.get(at));
    byte.is_some_and(|byte| byte & mask(offset) != 0)
}

/// Sets the bit at an offset, which must lie in the text; the bit before.
pub(crate) fn set(text: &mut [u8], offset: u64, on: bool) -> bool {
    let byte = &mut text[(offset >> 3) as usize];
    let before = *byte & mask(offset) != 0;
    if on {
        *byte |= mask(offset);
    } else {
        *byte &= !mask(offset);
    }
    before
}

fn mask(offset: u64) -> u8 {
    0x80 >> (offset & 7)
}

/// The bits of byte `at` that lie in `first..=last`.
fn inside(at: usize, (first, last): (u64, u64)) -> u8 {
    let start = at as u64 * 8;
    let from = if first > start { 0xff >> (first - start) } else { 0xff };
    let to = if last < start + 7 { 0xff << (start + 7 - last) } else { 0xff };
    from & to
}

/// The set bits from `first` to `last`, both in the text.
pub(crate) fn count(text: &[u8], first: u64, last: u64) -> u64 {
    let (start, end) = ((first >> 3) as usize, (last >> 3) as usize);
    let edge = |at: usize| u64::from((text[at] & inside(at, (first, last))).count_ones());
    if start == end {
        return edge(start);
    }
    let (words, rest) = text[start + 1..end].as_chunks::<WORD_BYTES>();
    let words = words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones()));
    let rest = rest.iter().map(|byte| u64::from(byte.count_ones()));
    edge(start) + words.sum::<u64>() + rest.sum::<u64>() + edge(end)
}

/// The first bit from `first` to `last`, both in the text, that is `wanted`.
pub(crate) fn find(text: &[u8], first: u64, last: u64, wanted: bool) -> Option<u64> {
    let (start, end) = ((first >> 3) as usize, (last >> 3) as usize);
    // What is looked for is a set bit of the text or of its complement.
    let flip = if wanted { 0 } else { 0xff };
    let in_byte = |at: usize| {
        let found = (text[at] ^ flip) & inside(at, (first, last));
        (found != 0).then(|| at as u64 * 8 + u64::from(found.leading_zeros()))
    };
    let mut at = start;
    while at <= end {
        if let Some(found) = in_byte(at) {
            return Some(found);
        }
        at += 1;
        // Whole words without a bit are leapt over; the last byte is always looked at by itself.
        let words = text[at.min(end)..end].as_chunks::<WORD_BYTES>().0;
        let none = [flip; WORD_BYTES];
        at += words.iter().take_while(|word| **word == none).count() * WORD_BYTES;
    }
    None
}

/// How bytes are joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    And,
    Or,
    Xor,
}

/// Joins another text to the result so far, which is at least as long.
pub(crate) fn join(result: &mut [u8], operation: Operation, other: &[u8]) {
    let (common, beyond) = result.split_at_mut(other.len());
    let pairs = common.iter_mut().zip(other);
    match operation {
        Operation::And => {
            pairs.for_each(|(byte, other)| *byte &= other);
            beyond.fill(0);
        }
        Operation::Or => pairs.for_each(|(byte, other)| *byte |= other),
        Operation::Xor => pairs.for_each(|(byte, other)| *byte ^= other),
    }
}

/// An integer somewhere in a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Field {
    /// Its first bit.
    pub(crate) offset: u64,
    /// Its width: 1 to 64, and to 63 without a sign.
    pub(crate) bits: u32,
    pub(crate) signed: bool,
}

/// What becomes of a number that its field cannot hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Overflow {
    /// Its lowest bits are kept.
    Wrap,
    /// The nearest number that fits is taken.
    Saturate,
    /// Nothing is written.
    Fail,
}

impl Field {
    /// Bytes a text must have to hold it.
    pub(crate) fn end_bytes(self) -> u64 {
        (self.offset + u64::from(self.bits)).div_ceil(8)
    }

    /// Its value in a text.
    pub(crate) fn get(self, text: &[u8]) -> i64 {
        let start = usize::try_from(self.offset >> 3).unwrap_or(usize::MAX);
        let mut window = [0; 16];
        let there = text.get(start..).unwrap_or_default();
        let length = there.len().min(FIELD_BYTES_MAX);
        window[..length].copy_from_slice(&there[..length]);
        let aligned = u128::from_be_bytes(window) << (self.offset & 7);
        if self.signed {
            (aligned.cast_signed() >> (128 - self.bits)) as i64
        } else {
            (aligned >> (128 - self.bits)) as i64
        }
    }

    /// Writes a value, of which the lowest bits count, into a text that holds the field.
    pub(crate) fn set(self, text: &mut [u8], value: i64) {
        for bit in 0..self.bits {
            let on = value >> (self.bits - 1 - bit) & 1 == 1;
            set(text, self.offset + u64::from(bit), on);
        }
    }

    /// The number as the field holds it; `None` if it cannot and `Overflow::Fail` is asked for.
    pub(crate) fn fit(self, number: i128, overflow: Overflow) -> Option<i64> {
        let (min, max) = if self.signed {
            (-(1i128 << (self.bits - 1)), (1i128 << (self.bits - 1)) - 1)
        } else {
            (0, (1i128 << self.bits) - 1)
        };
        if (min..=max).contains(&number) {
            return Some(number as i64);
        }
        match overflow {
            Overflow::Fail => None,
            Overflow::Saturate => Some(number.clamp(min, max) as i64),
            Overflow::Wrap => {
                let low = number << (128 - self.bits);
                let shift = 128 - self.bits;
                let wrapped =
                    if self.signed { low >> shift } else { (low.cast_unsigned() >> shift) as i128 };
                Some(wrapped as i64)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small seeded generator (xorshift), so that a failure repeats.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn counts_and_finds_as_bit_by_bit() {
        let mut state = 7;
        for round in 0..3_000 {
            let length = 1 + random(&mut state) as usize % 40;
            // Mostly long runs of one bit, so that words are leapt over.
            let fill = if round % 2 == 0 { 0 } else { 0xff };
            let mut text = vec![fill; length];
            for _ in 0..random(&mut state) % 3 {
                let at = random(&mut state) as usize % length;
                text[at] = random(&mut state) as u8;
            }
            let bits = length as u64 * 8;
            let (a, b) = (random(&mut state) % bits, random(&mut state) % bits);
            let (first, last) = (a.min(b), a.max(b));
            let set = (first..=last).filter(|at| get(&text, *at)).count() as u64;
            assert_eq!(count(&text, first, last), set, "{text:?} {first} {last}");
            for wanted in [false, true] {
                let found = (first..=last).find(|at| get(&text, *at) == wanted);
                assert_eq!(find(&text, first, last, wanted), found, "{text:?} {first} {last}");
            }
        }
    }

    #[test]
    fn fields_keep_their_values_and_leave_the_rest() {
        let mut state = 3;
        for _ in 0..3_000 {
            let signed = random(&mut state).is_multiple_of(2);
            let bits = 1 + random(&mut state) as u32 % if signed { 64 } else { 63 };
            let field = Field { offset: random(&mut state) % 100, bits, signed };
            let mut text: Vec<u8> = (0..field.end_bytes() + random(&mut state) % 3)
                .map(|_| random(&mut state) as u8)
                .collect();
            let before = text.clone();
            let number = i128::from(random(&mut state).cast_signed());
            let value = field.fit(number, Overflow::Wrap).expect("wrapped");
            field.set(&mut text, value);
            assert_eq!(field.get(&text), value, "{field:?}");
            let inside = field.offset..field.offset + u64::from(bits);
            for at in (0..text.len() as u64 * 8).filter(|at| !inside.contains(at)) {
                assert_eq!(get(&text, at), get(&before, at), "{field:?} {at}");
            }
        }
        let beyond = Field { offset: 12, bits: 8, signed: false };
        assert_eq!(beyond.get(b"\xff\xff"), 0xf0, "zero behind the end");
        assert_eq!(beyond.get(b""), 0);
    }

    #[test]
    fn numbers_that_do_not_fit() {
        let field = |bits, signed| Field { offset: 0, bits, signed };
        let cases = [
            (field(8, true), 128, -128, 127),
            (field(8, true), -129, 127, -128),
            (field(8, false), 256, 0, 255),
            (field(8, false), -1, 255, 0),
            (field(1, true), 1, -1, 0),
            (field(64, true), i128::from(i64::MAX) + 1, i64::MIN, i64::MAX),
            (field(64, true), i128::from(i64::MIN) - 1, i64::MAX, i64::MIN),
            (field(63, false), 1 << 63, 0, i64::MAX),
        ];
        for (field, number, wrapped, saturated) in cases {
            assert_eq!(field.fit(number, Overflow::Wrap), Some(wrapped), "{field:?} {number}");
            assert_eq!(field.fit(number, Overflow::Saturate), Some(saturated));
            assert_eq!(field.fit(number, Overflow::Fail), None);
            assert_eq!(field.fit(0, Overflow::Fail), Some(0));
        }
    }
}
