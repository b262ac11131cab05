//! Scores and coordinates: doubles as C's `strtod` reads them, and Redis with it.
//!
//! ```text
//! double  = sign? ( "inf" "inity"? | "nan" | decimal | "0x" hexadecimal )        in any case
//! decimal = digits [ "." digits ] [ "e" sign? digits ]       a digit before or behind the point
//! ```

/// Reads a double as Redis reads a score: the whole text, no blank before it, no NaN, and neither
/// so large nor so small that it would be lost.
pub(crate) fn parse_double(text: &[u8]) -> Option<f64> {
    if text.first()?.is_ascii_whitespace() {
        return None;
    }
    let read = read_start(text);
    let whole = read.length == text.len() && !read.value.is_nan();
    (whole && !read.lost).then_some(read.value)
}

/// Reads a double as Redis reads the end of a range: up to a NUL, nothing at all is 0, and what is
/// too large is infinite.
pub(crate) fn parse_bound(text: &[u8]) -> Option<f64> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let read = read_start(text);
    (read.length == text.len() && !read.value.is_nan()).then_some(read.value)
}

/// What stands at the start of a text.
struct Read {
    value: f64,
    /// Bytes it takes; 0 if there is no number.
    length: usize,
    /// It is out of the range of doubles: infinite, or zero although its digits are not.
    lost: bool,
}

fn read_start(text: &[u8]) -> Read {
    // C's blanks: Rust's have no vertical tab.
    let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let blanks = text.iter().take_while(|byte| blank(byte)).count();
    let rest = &text[blanks..];
    let negative = rest.first() == Some(&b'-');
    let signed = usize::from(matches!(rest.first(), Some(b'-' | b'+')));
    let rest = &rest[signed..];
    let word = |word: &[u8]| rest.get(..word.len()).is_some_and(|r| r.eq_ignore_ascii_case(word));
    let (value, length, lost) = if word(b"infinity") {
        (f64::INFINITY, 8, false)
    } else if word(b"inf") {
        (f64::INFINITY, 3, false)
    } else if word(b"nan") {
        (f64::NAN, 3, false)
    } else if let Some(read) = hexadecimal(rest) {
        read
    } else {
        decimal(rest)
    };
    if length == 0 {
        return Read { value: 0.0, length: 0, lost: false };
    }
    let value = if negative { -value } else { value };
    Read { value, length: blanks + signed + length, lost }
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn decimal(text: &[u8]) -> (f64, usize, bool) {
    let whole = digits(text);
    let mut length = whole;
    let mut fraction = 0;
    if text.get(whole) == Some(&b'.') {
        fraction = digits(&text[whole + 1..]);
        length += usize::from(whole + fraction > 0) * (1 + fraction);
    }
    if whole + fraction == 0 {
        return (0.0, 0, false);
    }
    let mantissa = &text[..length];
    if let Some(b'e' | b'E') = text.get(length) {
        let signed = usize::from(matches!(text.get(length + 1), Some(b'-' | b'+')));
        let exponent = digits(&text[(length + 1 + signed).min(text.len())..]);
        length += usize::from(exponent > 0) * (1 + signed + exponent);
    }
    let number = std::str::from_utf8(&text[..length]).ok().and_then(|text| text.parse().ok());
    let value: f64 = number.unwrap_or(0.0);
    let is_zero = mantissa.iter().all(|byte| !(b'1'..=b'9').contains(byte));
    (value, length, value.is_infinite() || (value == 0.0 && !is_zero))
}

fn hexadecimal(text: &[u8]) -> Option<(f64, usize, bool)> {
    if !text.get(..2)?.eq_ignore_ascii_case(b"0x") {
        return None;
    }
    let (mut mantissa, mut exponent, mut seen) = (0u64, 0i64, 0);
    let (mut behind_point, mut at) = (false, 2);
    while let Some(byte) = text.get(at) {
        match char::from(*byte).to_digit(16) {
            Some(digit) => {
                seen += 1;
                if mantissa >> 59 == 0 {
                    mantissa = mantissa << 4 | u64::from(digit);
                    exponent -= if behind_point { 4 } else { 0 };
                } else {
                    // What no longer fits still decides how the last bit is rounded.
                    mantissa |= u64::from(digit != 0);
                    exponent += if behind_point { 0 } else { 4 };
                }
            }
            None if *byte == b'.' && !behind_point => behind_point = true,
            None => break,
        }
        at += 1;
    }
    if seen == 0 {
        // Only the zero is a number.
        return Some((0.0, 1, false));
    }
    if let Some(b'p' | b'P') = text.get(at) {
        let signed = usize::from(matches!(text.get(at + 1), Some(b'-' | b'+')));
        let length = digits(&text[(at + 1 + signed).min(text.len())..]);
        if length > 0 {
            let said = std::str::from_utf8(&text[at + 1..at + 1 + signed + length]).ok()?;
            exponent += said.trim_start_matches('+').parse::<i64>().unwrap_or(match signed {
                1 if text[at + 1] == b'-' => -1 << 32,
                _ => 1 << 32,
            });
            at += 1 + signed + length;
        }
    }
    // In steps that no double leaves: 2^-1074 is below what one power can say.
    let mut value = mantissa as f64;
    let mut left = exponent.clamp(-5_000, 5_000);
    while left != 0 && value != 0.0 && value.is_finite() {
        let step = left.clamp(-1_000, 1_000);
        value *= 2f64.powi(step as i32);
        left -= step;
    }
    Some((value, at, value.is_infinite() || (value == 0.0 && mantissa != 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_as_redis_reads_them() {
        for (text, value) in [
            ("0", 0.0),
            ("-0", -0.0),
            ("1.5", 1.5),
            ("+1.5", 1.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e3", 1e3),
            ("1E-3", 1e-3),
            ("inf", f64::INFINITY),
            ("-INFinity", f64::NEG_INFINITY),
            ("0x10", 16.0),
            ("-0x1.8p1", -3.0),
            ("0x1p-1074", 5e-324),
            ("5e-324", 5e-324),
            ("1.7976931348623157e308", f64::MAX),
            ("0e999", 0.0),
        ] {
            let read = parse_double(text.as_bytes());
            assert_eq!(read.map(f64::to_bits), Some(value.to_bits()), "{text}");
            assert_eq!(parse_bound(text.as_bytes()), read, "{text}");
        }
        for text in [
            "", " 1", "1 ", "nan", "-nan", "x", "1x", ".", "-", "e5", "1e", "0x", "1e400", "1e-400",
        ] {
            assert_eq!(parse_double(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn ends_of_ranges_as_redis_reads_them() {
        for (text, value) in
            [("", 0.0), (" 1", 1.0), ("1\0x", 1.0), ("1e400", f64::INFINITY), ("-1e-400", 0.0)]
        {
            assert_eq!(parse_bound(text.as_bytes()), Some(value), "{text}");
        }
        for text in ["1 ", "nan", "x", " ", "-"] {
            assert_eq!(parse_bound(text.as_bytes()), None, "{text}");
        }
    }
}
