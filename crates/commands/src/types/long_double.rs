//! The x87 `long double` that INCRBYFLOAT computes with: 64 bits of mantissa, 15 of exponent.
//!
//! `f64` will not do: its results differ from Redis's in digits that clients compare. Everything
//! here is exact integer arithmetic with one rounding (to nearest, ties to even) at the end, as the
//! hardware and the C library do it:
//!
//! ```text
//! parse   strtold: digits × 10^e (or hex digits × 2^e), rounded once
//! add     the exact sum, rounded once
//! text    printf("%.17Lf") without trailing zeros
//! ```

/// Exponent of the lowest bit that exists, and of the highest bit of the largest number.
const LOWEST_BIT: i32 = -16_445;
const HIGHEST_BIT: i32 = 16_383;

/// Texts from this length on are no numbers, in bytes; Redis's buffer is as long.
const TEXT_BYTES_MAX: usize = 5 * 1024;

/// Beyond these powers of ten every number overflows, or vanishes.
const DECIMAL_EXPONENT_MAX: i64 = 4_940;
const DECIMAL_EXPONENT_MIN: i64 = -4_960;

/// Digits after the point that Redis prints.
const FRACTION_DIGITS: usize = 17;

/// A number, or an infinity; never NaN. Its magnitude is `mantissa × 2^exponent`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LongDouble {
    negative: bool,
    infinite: bool,
    mantissa: u64,
    exponent: i32,
}

impl LongDouble {
    pub(crate) const ZERO: LongDouble =
        LongDouble { negative: false, infinite: false, mantissa: 0, exponent: 0 };

    /// Reads a number as Redis does: all of the text, no blanks, `inf` but not `nan`, hexadecimal
    /// floats; `None` also if it overflows or vanishes.
    pub(crate) fn parse(text: &[u8]) -> Option<LongDouble> {
        if text.len() >= TEXT_BYTES_MAX {
            return None;
        }
        let (negative, unsigned) = match text.split_first()? {
            (b'-', rest) => (true, rest),
            (b'+', rest) => (false, rest),
            _ => (false, text),
        };
        if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
            return Some(LongDouble { negative, infinite: true, ..LongDouble::ZERO });
        }
        let magnitude = match unsigned {
            [b'0', b'x' | b'X', hex @ ..] => parse_hexadecimal(hex)?,
            decimal => parse_decimal(decimal)?,
        };
        Some(LongDouble { negative, ..magnitude })
    }

    /// Whether it is `inf` or `-inf`.
    pub(crate) fn is_infinite(self) -> bool {
        self.infinite
    }

    /// A thousand times it, rounded as a product is, and up to an integer; `None` if that is too
    /// large. What is too small is the smallest integer.
    pub(crate) fn thousandfold_rounded_up(self) -> Option<i64> {
        let too_far = if self.negative { Some(i64::MIN) } else { None };
        let mut digits = Big::from(self.mantissa);
        digits.multiply_add(1000, 0);
        let product = round(&digits, self.exponent, false).filter(|_| !self.infinite);
        let Some(LongDouble { mantissa, exponent, .. }) = product else { return too_far };
        let (whole, rest) = match u32::try_from(-exponent) {
            Ok(down) => {
                let whole = mantissa.checked_shr(down).unwrap_or(0);
                (Some(whole), whole.checked_shl(down).unwrap_or(0) != mantissa)
            }
            Err(_) => {
                let up = exponent.unsigned_abs();
                let fits = up <= mantissa.leading_zeros();
                (fits.then(|| mantissa.checked_shl(up).unwrap_or(0)), false)
            }
        };
        let whole = whole.and_then(|whole| i64::try_from(whole).ok());
        match (whole, self.negative) {
            (None, _) => too_far,
            (Some(whole), true) => Some(-whole),
            (Some(whole), false) => whole.checked_add(i64::from(rest)),
        }
    }

    /// The sum; `None` if it is infinite or NaN.
    pub(crate) fn add(self, other: LongDouble) -> Option<LongDouble> {
        if self.infinite || other.infinite {
            return None;
        }
        let exponent = self.exponent.min(other.exponent);
        let aligned = |number: LongDouble| {
            Big::from(number.mantissa).shifted_left((number.exponent - exponent) as usize)
        };
        let (a, b) = (aligned(self), aligned(other));
        let (negative, sum) = if self.negative == other.negative {
            (self.negative, a.plus(&b))
        } else if a.is_less_than(&b) {
            (other.negative, b.minus(&a))
        } else {
            (self.negative, a.minus(&b))
        };
        let rounded = round(&sum, exponent, false)?;
        Some(LongDouble { negative: negative && rounded.mantissa != 0, ..rounded })
    }

    /// The digits as Redis prints them: 17 after the point at most, no trailing zeros, no exponent.
    pub(crate) fn to_human_text(self) -> String {
        let mut digits = if self.exponent >= 0 {
            let integer = Big::from(self.mantissa).shifted_left(self.exponent as usize);
            integer.to_decimal()
        } else {
            self.fraction_text()
        };
        if self.negative && digits != "0" {
            digits.insert(0, '-');
        }
        digits
    }

    /// The digits of a number that may have bits behind the point.
    fn fraction_text(self) -> String {
        // mantissa × 10^17 is below 2^121, so the rounding is exact in 128 bits; of what is shifted
        // out by more, not even half a unit is left.
        let scaled = u128::from(self.mantissa) * 10u128.pow(FRACTION_DIGITS as u32);
        let shift = self.exponent.unsigned_abs();
        let units = if shift >= u128::BITS {
            0
        } else {
            let (units, rest) = (scaled >> shift, scaled & ((1 << shift) - 1));
            let half = 1 << (shift - 1);
            units + u128::from(rest > half || (rest == half && units & 1 == 1))
        };
        let digits = format!("{units:0width$}", width = FRACTION_DIGITS + 1);
        let (integer, fraction) = digits.split_at(digits.len() - FRACTION_DIGITS);
        match fraction.trim_end_matches('0') {
            "" => integer.to_owned(),
            fraction => format!("{integer}.{fraction}"),
        }
    }
}

/// Digits around a point, and the exponent behind them.
struct Literal<'a> {
    integer: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Literal<'a> {
    fn split(text: &'a [u8], is_digit: fn(&u8) -> bool, mark: u8) -> Option<Literal<'a>> {
        let digits = |text: &'a [u8]| {
            text.split_at(text.iter().position(|byte| !is_digit(byte)).unwrap_or(text.len()))
        };
        let (integer, mut rest) = digits(text);
        let mut fraction = &[][..];
        if let Some(behind) = rest.strip_prefix(b".") {
            (fraction, rest) = digits(behind);
        }
        if integer.is_empty() && fraction.is_empty() {
            return None;
        }
        let exponent = match rest.split_first() {
            None => 0,
            Some((byte, exponent)) if byte.eq_ignore_ascii_case(&mark) => read_exponent(exponent)?,
            Some(_) => return None,
        };
        Some(Literal { integer, fraction, exponent })
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        self.integer.iter().chain(self.fraction).map(|byte| match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        })
    }
}

fn read_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first()? {
        (b'-', digits) => (true, digits),
        (b'+', digits) => (false, digits),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Saturates far outside of every exponent that matters, whatever the digits before it are.
    let magnitude = digits
        .iter()
        .fold(0i64, |value, digit| (value * 10 + i64::from(digit - b'0')).min(1 << 40));
    Some(if negative { -magnitude } else { magnitude })
}

fn parse_decimal(text: &[u8]) -> Option<LongDouble> {
    let literal = Literal::split(text, u8::is_ascii_digit, b'e')?;
    let mut digits = Big::default();
    let mut significant = 0i64;
    for digit in literal.digits() {
        if digit != 0 || significant > 0 {
            digits.multiply_add(10, u64::from(digit));
            significant += 1;
        }
    }
    if significant == 0 {
        return Some(LongDouble::ZERO);
    }
    let exponent = literal.exponent - literal.fraction.len() as i64;
    let magnitude = exponent + significant;
    if !(DECIMAL_EXPONENT_MIN..=DECIMAL_EXPONENT_MAX).contains(&magnitude) {
        return None;
    }
    // 10^e = 5^e × 2^e, and the powers of two go to the exponent.
    let fives = exponent.unsigned_abs() as usize;
    let number = if exponent >= 0 {
        digits.multiply_by_power_of_five(fives);
        round(&digits, exponent as i32, false)
    } else {
        // Enough bits in front that the quotient keeps 66 of them: 5^n has fewer than 2.33n.
        let shift = 67 + fives * 233 / 100;
        let mut quotient = digits.shifted_left(shift);
        let inexact = quotient.divide_by_power_of_five(fives);
        round(&quotient, exponent as i32 - shift as i32, inexact)
    };
    number.filter(|number| number.mantissa != 0)
}

fn parse_hexadecimal(text: &[u8]) -> Option<LongDouble> {
    let literal = Literal::split(text, u8::is_ascii_hexdigit, b'p')?;
    let mut digits = Big::default();
    for digit in literal.digits() {
        digits.multiply_add(16, u64::from(digit));
    }
    if digits.bits() == 0 {
        return Some(LongDouble::ZERO);
    }
    let exponent = literal.exponent - 4 * literal.fraction.len() as i64;
    let highest = exponent + digits.bits() as i64 - 1;
    if !(i64::from(LOWEST_BIT) - 2..=i64::from(HIGHEST_BIT)).contains(&highest) {
        return None;
    }
    round(&digits, exponent as i32, false).filter(|number| number.mantissa != 0)
}

/// `number × 2^exponent` (and a little more if `inexact`) to the nearest that exists, ties to even;
/// `None` if that is infinity.
fn round(number: &Big, exponent: i32, inexact: bool) -> Option<LongDouble> {
    let bits = number.bits() as i32;
    if bits == 0 {
        return Some(LongDouble::ZERO);
    }
    let mut lowest = (exponent + bits - 64).max(LOWEST_BIT);
    let mut mantissa = if lowest <= exponent {
        // Fewer than 65 bits, and all of them exist.
        number.low_bits() << (exponent - lowest)
    } else {
        let cut = (lowest - exponent) as usize;
        let kept = number.shifted_right(cut).low_bits();
        let half = number.bit(cut - 1);
        let more = inexact || number.any_bit_below(cut - 1);
        let up = half && (more || kept & 1 == 1);
        match kept.checked_add(u64::from(up)) {
            Some(mantissa) => mantissa,
            None => {
                lowest += 1;
                1 << 63
            }
        }
    };
    if mantissa == 0 {
        return Some(LongDouble::ZERO);
    }
    // Integers print without a shift if their trailing zeros stay in the exponent only as needed.
    if lowest < 0 {
        let zeros = (mantissa.trailing_zeros() as i32).min(-lowest);
        mantissa >>= zeros;
        lowest += zeros;
    }
    let highest = lowest + 63 - mantissa.leading_zeros() as i32;
    if highest > HIGHEST_BIT {
        return None;
    }
    Some(LongDouble { negative: false, infinite: false, mantissa, exponent: lowest })
}

/// A natural number, its lowest 64 bits first, without zeros at the end.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Big(Vec<u64>);

impl From<u64> for Big {
    fn from(value: u64) -> Big {
        Big(if value == 0 { Vec::new() } else { vec![value] })
    }
}

impl Big {
    fn bits(&self) -> usize {
        self.0.last().map_or(0, |top| self.0.len() * 64 - top.leading_zeros() as usize)
    }

    fn low_bits(&self) -> u64 {
        self.0.first().copied().unwrap_or(0)
    }

    fn bit(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|limb| limb >> (at % 64) & 1 == 1)
    }

    fn any_bit_below(&self, at: usize) -> bool {
        let whole = self.0.iter().take(at / 64).any(|limb| *limb != 0);
        let partial = self.0.get(at / 64).is_some_and(|limb| limb & ((1 << (at % 64)) - 1) != 0);
        whole || partial
    }

    fn is_less_than(&self, other: &Big) -> bool {
        let by_length = self.0.len().cmp(&other.0.len());
        by_length.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev())).is_lt()
    }

    fn shifted_left(&self, by: usize) -> Big {
        if self.0.is_empty() {
            return Big::default();
        }
        let mut limbs = vec![0; by / 64];
        let small = by % 64;
        let mut carry = 0;
        for limb in &self.0 {
            let wide = u128::from(*limb) << small;
            limbs.push(wide as u64 | carry);
            carry = (wide >> 64) as u64;
        }
        limbs.push(carry);
        Big(limbs).trimmed()
    }

    fn shifted_right(&self, by: usize) -> Big {
        let limbs = self.0.get(by / 64..).unwrap_or_default();
        let small = by % 64;
        let high = |at: usize| u128::from(limbs.get(at + 1).copied().unwrap_or(0)) << 64;
        let shifted = limbs
            .iter()
            .enumerate()
            .map(|(at, limb)| ((high(at) | u128::from(*limb)) >> small) as u64);
        Big(shifted.collect()).trimmed()
    }

    fn plus(&self, other: &Big) -> Big {
        let length = self.0.len().max(other.0.len());
        let mut limbs = Vec::with_capacity(length + 1);
        let mut carry = 0u128;
        for at in 0..length {
            let limb = |big: &Big| u128::from(big.0.get(at).copied().unwrap_or(0));
            carry += limb(self) + limb(other);
            limbs.push(carry as u64);
            carry >>= 64;
        }
        limbs.push(carry as u64);
        Big(limbs).trimmed()
    }

    /// `self - other`, which must not be negative.
    fn minus(&self, other: &Big) -> Big {
        let mut limbs = Vec::with_capacity(self.0.len());
        let mut borrow = false;
        for (at, limb) in self.0.iter().enumerate() {
            let (limb, under) = limb.overflowing_sub(other.0.get(at).copied().unwrap_or(0));
            let (limb, under_again) = limb.overflowing_sub(u64::from(borrow));
            borrow = under || under_again;
            limbs.push(limb);
        }
        debug_assert!(!borrow, "the greater number is on the left");
        Big(limbs).trimmed()
    }

    fn multiply_add(&mut self, factor: u64, summand: u64) {
        let mut carry = u128::from(summand);
        for limb in &mut self.0 {
            carry += u128::from(*limb) * u128::from(factor);
            *limb = carry as u64;
            carry >>= 64;
        }
        if carry != 0 {
            self.0.push(carry as u64);
        }
    }

    fn multiply_by_power_of_five(&mut self, mut power: usize) {
        while power > 0 {
            let step = power.min(FIVES_PER_LIMB);
            self.multiply_add(5u64.pow(step as u32), 0);
            power -= step;
        }
    }

    /// Divides, rounding down; true if anything was left.
    fn divide_by_power_of_five(&mut self, mut power: usize) -> bool {
        let mut inexact = false;
        while power > 0 {
            let step = power.min(FIVES_PER_LIMB);
            inexact |= self.divide(5u64.pow(step as u32)) != 0;
            power -= step;
        }
        inexact
    }

    /// Divides, rounding down, and returns the rest.
    fn divide(&mut self, divisor: u64) -> u64 {
        let mut rest = 0u128;
        for limb in self.0.iter_mut().rev() {
            let wide = rest << 64 | u128::from(*limb);
            *limb = (wide / u128::from(divisor)) as u64;
            rest = wide % u128::from(divisor);
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        rest as u64
    }

    fn to_decimal(&self) -> String {
        let mut rest = self.clone();
        let mut groups = Vec::new();
        while !rest.0.is_empty() {
            groups.push(rest.divide(10u64.pow(DIGITS_PER_LIMB)));
        }
        let mut text = groups.pop().unwrap_or(0).to_string();
        for group in groups.iter().rev() {
            text.push_str(&format!("{group:0width$}", width = DIGITS_PER_LIMB as usize));
        }
        text
    }

    fn trimmed(mut self) -> Big {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        self
    }
}

/// 5^27 and 10^19 are the largest powers below 2^64.
const FIVES_PER_LIMB: usize = 27;
const DIGITS_PER_LIMB: u32 = 19;

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> Option<String> {
        let parse = |text: &str| LongDouble::parse(text.as_bytes()).expect("a number");
        parse(a).add(parse(b)).map(LongDouble::to_human_text)
    }

    #[test]
    fn sums_as_a_real_server_prints_them() {
        for (a, b, expected) in [
            ("0.1", "0.2", "0.3"),
            ("3.0e3", "200", "3200"),
            ("5.0e3", "2.0e2", "5200"),
            ("1", "-1", "0"),
            ("-0", "0", "0"),
            ("10.50", "0.1", "10.6"),
            ("1e-17", "0", "0.00000000000000001"),
            ("4e-18", "0", "0"),
            ("-4e-18", "0", "0"),
            ("1.1", "1e18", "1000000000000000001.125"),
            ("0x10", "0x.8p0", "16.5"),
            ("1e40", "1", "9999999999999999999783686092270256259072"),
            ("18446744073709551615", "1", "18446744073709551616"),
            // Halfway between two numbers: to the even one.
            ("18446744073709551617", "0", "18446744073709551616"),
            ("18446744073709551619", "0", "18446744073709551620"),
            ("18446744073709551616", "1", "18446744073709551616"),
            ("18446744073709551616", "-0.5", "18446744073709551616"),
            ("36893488147419103232", "6.0000000001", "36893488147419103240"),
        ] {
            assert_eq!(sum(a, b).as_deref(), Some(expected), "{a} + {b}");
        }
    }

    #[test]
    fn infinities_are_read_but_never_made() {
        assert_eq!(sum("inf", "1"), None);
        assert_eq!(sum("inf", "-Infinity"), None);
        assert_eq!(sum("1.1e4932", "1.1e4932"), None);
    }

    #[test]
    fn what_is_no_number() {
        for text in [
            "", "+", "-", ".", "e1", "1e", "1e+", "1 ", " 1", "1x", "0x", "0xg", "0x1p", "nan",
            "--1", "1..2", "1e1.5", "1e5000", "1e-5000", "infinit", "1\0",
        ] {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
        }
        assert!(LongDouble::parse(&[b'1'; TEXT_BYTES_MAX]).is_none());
    }

    #[test]
    fn the_ends_of_the_range() {
        let largest = "1.18973149535723176502e4932";
        assert!(LongDouble::parse(largest.as_bytes()).is_some());
        assert!(LongDouble::parse(b"1.18973149535723176509e4932").is_none());
        // The smallest number, and what rounds to it or to nothing.
        assert!(LongDouble::parse(b"3.6451995318824746025e-4951").is_some());
        assert!(LongDouble::parse(b"2e-4951").is_some());
        assert!(LongDouble::parse(b"1e-4951").is_none());
        assert!(LongDouble::parse(b"0x1p-16445").is_some());
        assert!(LongDouble::parse(b"0x1p-16447").is_none());
        assert_eq!(LongDouble::parse(b"0e999999999999999999999"), Some(LongDouble::ZERO));
    }
}
