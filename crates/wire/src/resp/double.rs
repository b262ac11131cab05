//! Doubles as digits, as Redis 7.2 and later print them.
//!
//! ```text
//! nan, inf, -inf, 0, -0
//! whole numbers within ±2^62     all digits                           1e18 → 1000000000000000000
//! other whole numbers            all digits if fewer than 8 zeros follow the shortest digits
//! with K the exponent of the last digit: K > -7, or the first digit's exponent within ±3
//!                                plain                                0.001, 123.456
//! everything else                d.ddde±x                             1.5e-7, 1e+300
//! ```
//!
//! The digits are the shortest that read back as the same double. (Redis's Grisu2 now and then
//! prints one digit more than needed; those extra digits are not imitated.)

use std::io::Write;

/// Bytes of the longest text of a double.
pub const DOUBLE_BYTES_MAX: usize = 32;

/// Writes the double as Redis prints it into `out` and returns the part that holds it.
pub fn format_double(value: f64, out: &mut [u8; DOUBLE_BYTES_MAX]) -> &[u8] {
    /// Whole numbers up to here are printed as integers.
    const INTEGER_MAX: f64 = (i64::MAX / 2) as f64;
    if value.is_nan() {
        return b"nan";
    }
    if value.is_infinite() {
        return if value < 0.0 { b"-inf" } else { b"inf" };
    }
    if value == 0.0 {
        return if value.is_sign_negative() { b"-0" } else { b"0" };
    }
    let length = if value.abs() <= INTEGER_MAX && value == value.trunc() {
        written(out, format_args!("{}", value as i64))
    } else {
        format_shortest(value, out)
    };
    &out[..length]
}

/// Lays out the shortest digits. The value is finite and not zero.
fn format_shortest(value: f64, out: &mut [u8; DOUBLE_BYTES_MAX]) -> usize {
    // `d[.ddd]e[-]x`: Rust's shortest round-trip digits.
    let mut scientific = [0u8; DOUBLE_BYTES_MAX];
    let length = written(&mut scientific, format_args!("{:e}", value.abs()));
    let text = &scientific[..length];
    let e = text.iter().position(|&byte| byte == b'e').expect("{:e} prints an exponent");
    let exponent: i32 = std::str::from_utf8(&text[e + 1..])
        .ok()
        .and_then(|digits| digits.parse().ok())
        .expect("{:e} prints a number after the e");
    let mut digits = [0u8; DOUBLE_BYTES_MAX];
    let mut count = 0;
    for &byte in text[..e].iter().filter(|byte| byte.is_ascii_digit()) {
        digits[count] = byte;
        count += 1;
    }
    let digits = std::str::from_utf8(&digits[..count]).expect("ASCII digits");
    let sign = if value < 0.0 { "-" } else { "" };

    let last = exponent - (count as i32 - 1);
    if last >= 0 && exponent.unsigned_abs() < count as u32 + 7 {
        written(out, format_args!("{sign}{digits}{:0<width$}", "", width = last as usize))
    } else if last < 0 && (last > -7 || exponent.abs() < 4) {
        match usize::try_from(exponent) {
            Ok(exponent) => {
                let (whole, fraction) = digits.split_at(exponent + 1);
                written(out, format_args!("{sign}{whole}.{fraction}"))
            }
            Err(_) => {
                let zeros = (-exponent - 1) as usize;
                written(out, format_args!("{sign}0.{:0<zeros$}{digits}", ""))
            }
        }
    } else {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        written(out, format_args!("{sign}{first}{point}{rest}e{exponent:+}"))
    }
}

fn written(mut out: &mut [u8], text: std::fmt::Arguments<'_>) -> usize {
    let room = out.len();
    out.write_fmt(text).expect("no double has a text longer than DOUBLE_BYTES_MAX");
    room - out.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_printed_as_redis_prints_them() {
        let cases: &[(f64, &str)] = &[
            (f64::NAN, "nan"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-3.0, "-3"),
            (1.5, "1.5"),
            (0.1, "0.1"),
            (2.71, "2.71"),
            (-123.456, "-123.456"),
            (0.001, "0.001"),
            (0.000001, "0.000001"),
            (0.0000015, "1.5e-6"),
            (1e-7, "1e-7"),
            (1.5e-7, "1.5e-7"),
            (1.2345678901234, "1.2345678901234"),
            (0.30000000000000004, "0.30000000000000004"),
            (1e18, "1000000000000000000"),
            (4611686018427387904.0, "4611686018427387904"),
            (1e19, "1e+19"),
            (1.2345678901234567e19, "12345678901234567000"),
            (1e300, "1e+300"),
            (-1.7976931348623157e308, "-1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (-2.2250738585072014e-308, "-2.2250738585072014e-308"),
            (9007199254740993.0, "9007199254740992"),
            (1234567890.12345, "1234567890.12345"),
        ];
        for &(value, text) in cases {
            let mut out = [0; DOUBLE_BYTES_MAX];
            let printed = format_double(value, &mut out);
            assert_eq!(std::str::from_utf8(printed), Ok(text), "{value:e}");
        }
    }

    #[test]
    fn every_finite_double_fits_and_reads_back() {
        // A fixed walk over the bit patterns: all exponents, many mantissas.
        let mut bits = 0x0123_4567_89ab_cdefu64;
        for _ in 0..200_000 {
            bits = bits
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let value = f64::from_bits(bits);
            if !value.is_finite() {
                continue;
            }
            let mut out = [0; DOUBLE_BYTES_MAX];
            let printed = std::str::from_utf8(format_double(value, &mut out)).expect("ASCII");
            assert_eq!(printed.parse::<f64>().map(f64::to_bits), Ok(bits), "{printed}");
        }
    }
}
