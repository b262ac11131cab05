//! Numbers as C prints and reads them.

/// A number with so many significant digits at most, as `%.<digits>g` prints it.
pub(super) fn print(number: f64, digits: usize) -> String {
    if number.is_nan() {
        return if number.is_sign_negative() { "-nan" } else { "nan" }.to_owned();
    }
    if number.is_infinite() {
        return if number < 0.0 { "-inf" } else { "inf" }.to_owned();
    }
    let scientific = format!("{number:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').expect("as Rust prints it");
    let exponent: i32 = exponent.parse().expect("as Rust prints it");
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", without_zeros(mantissa), exponent.unsigned_abs());
    }
    let decimals = usize::try_from(digits as i32 - 1 - exponent).unwrap_or(0);
    without_zeros(&format!("{number:.decimals$}")).to_owned()
}

fn without_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// The number that a text begins with and the bytes it takes, as `strtod` reads it: decimal,
/// hexadecimal, an infinity or NaN. 0 bytes: it begins with none.
pub(super) fn read(text: &[u8]) -> (f64, usize) {
    let signed = usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let sign = if text.first() == Some(&b'-') { -1.0 } else { 1.0 };
    let rest = &text[signed..];
    let starts =
        |word: &[u8]| rest.len() >= word.len() && rest[..word.len()].eq_ignore_ascii_case(word);
    if starts(b"infinity") {
        return (sign * f64::INFINITY, signed + 8);
    }
    if starts(b"inf") {
        return (sign * f64::INFINITY, signed + 3);
    }
    if starts(b"nan") {
        return (f64::NAN, signed + 3);
    }
    if starts(b"0x") {
        let (number, length) = hexadecimal(&rest[2..]);
        if length > 0 {
            return (sign * number, signed + 2 + length);
        }
    }
    let length = decimal_length(rest);
    let digits = std::str::from_utf8(&rest[..length]).ok();
    match digits.and_then(|digits| digits.parse::<f64>().ok()) {
        Some(number) if length > 0 => (sign * number, signed + length),
        _ => (0.0, 0),
    }
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn decimal_length(text: &[u8]) -> usize {
    let whole = digits(text);
    let mut length = whole;
    if text.get(length) == Some(&b'.') {
        let fraction = digits(&text[length + 1..]);
        if whole + fraction == 0 {
            return 0;
        }
        length += 1 + fraction;
    }
    if length > 0 && matches!(text.get(length), Some(b'e' | b'E')) {
        let signed = usize::from(matches!(text.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(text.get(length + 1 + signed..).unwrap_or_default());
        if exponent > 0 {
            length += 1 + signed + exponent;
        }
    }
    length
}

fn hexadecimal(text: &[u8]) -> (f64, usize) {
    let value = |byte: &u8| char::from(*byte).to_digit(16).map(f64::from);
    let (mut number, mut length) = (0.0, 0);
    while let Some(digit) = text.get(length).and_then(value) {
        number = number * 16.0 + digit;
        length += 1;
    }
    if length > 0 && text.get(length) == Some(&b'.') {
        let (mut place, mut end) = (1.0 / 16.0, length + 1);
        while let Some(digit) = text.get(end).and_then(value) {
            number += digit * place;
            place /= 16.0;
            end += 1;
        }
        length = end;
    }
    if length > 0 && matches!(text.get(length), Some(b'p' | b'P')) {
        let rest = &text[length + 1..];
        let signed = usize::from(matches!(rest.first(), Some(b'+' | b'-')));
        let exponent = digits(&rest[signed..]);
        let power = std::str::from_utf8(&rest[..signed + exponent]).ok();
        if let Some(power) = power.and_then(|power| power.parse::<i32>().ok()) {
            number *= 2f64.powi(power);
            length += 1 + signed + exponent;
        }
    }
    (number, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_as_c_prints_them() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (1e14, "1e+14"),
            (99_999_999_999_999.0, "99999999999999"),
            (123_456_789_012_345_678.0, "1.2345678901235e+17"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (2.0 / 3.0, "0.66666666666667"),
            (1e100, "1e+100"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(print(number, 14), text);
        }
        assert_eq!(print(0.5, 1), "0.5");
        assert_eq!(print(12.0, 1), "1e+01");
    }

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        for (text, number, length) in [
            ("1", 1.0, 1),
            ("-1.5e3x", -1500.0, 6),
            ("1e", 1.0, 1),
            ("1.", 1.0, 2),
            (".5", 0.5, 2),
            ("0x10", 16.0, 4),
            ("0x1.8p1", 3.0, 7),
            ("0xg", 0.0, 1),
            ("-inf", f64::NEG_INFINITY, 4),
            ("Infinity,", f64::INFINITY, 8),
            ("01", 1.0, 2),
        ] {
            assert_eq!(read(text.as_bytes()), (number, length), "{text}");
        }
        assert_eq!(read(b"."), (0.0, 0));
        assert_eq!(read(b"-"), (0.0, 0));
        assert!(read(b"nan").0.is_nan());
    }
}
