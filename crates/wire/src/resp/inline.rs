//! Inline commands: a line of words, as a person types them into `telnet`.
//!
//! ```text
//! line  = *( blank ) word *( 1*blank word ) *( blank )
//! word  = *( plain | '"' *( char | escape ) '"' | "'" *( char | "\'" ) "'" )
//! escape = "\x" hex hex | "\n" | "\r" | "\t" | "\b" | "\a" | "\" char
//! ```
//!
//! A closing quote must be followed by a blank or the line's end. Blanks before a word are C's
//! `isspace`; a word ends at space, tab, CR or LF (not at vertical tab or form feed), as in Redis,
//! whose `sdssplitargs` this follows rule by rule.

use bytes::Bytes;
use smallvec::SmallVec;

/// Why a line could not be split: a quote is not closed, or closed in mid-word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unbalanced quotes in request")]
pub struct SplitError;

/// Splits a line into words. Words without quotes are slices of `line`, not copies.
///
/// *Errors*: [`SplitError`] for unbalanced quotes.
pub fn split_arguments(line: &Bytes) -> Result<SmallVec<[Bytes; 4]>, SplitError> {
    let mut words = SmallVec::new();
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(|&byte| is_space(byte)) {
            at += 1;
        }
        if at == line.len() {
            return Ok(words);
        }
        let plain = line[at..].iter().position(|&byte| ends_word(byte) || is_quote(byte));
        let end = plain.map_or(line.len(), |length| at + length);
        if line.get(end).is_some_and(|&byte| is_quote(byte)) {
            let (word, used) = quoted_word(&line[at..])?;
            words.push(word);
            at += used;
        } else {
            words.push(line.slice(at..end));
            at = end;
        }
    }
}

/// Reads a word that has a quote somewhere in it. Returns it and the bytes it took.
fn quoted_word(input: &[u8]) -> Result<(Bytes, usize), SplitError> {
    let mut word = Vec::new();
    let mut at = 0;
    while let Some(&byte) = input.get(at) {
        if ends_word(byte) {
            break;
        }
        at += 1;
        match byte {
            b'"' => at += double_quoted(&input[at..], &mut word)?,
            b'\'' => at += single_quoted(&input[at..], &mut word)?,
            _ => {
                word.push(byte);
                continue;
            }
        }
        // A word ends with its first quoted part: what follows must be a blank.
        match input.get(at) {
            Some(&next) if !is_space(next) => return Err(SplitError),
            _ => break,
        }
    }
    Ok((Bytes::from(word), at))
}

/// Reads after an opening `"` up to and including the closing one.
fn double_quoted(input: &[u8], word: &mut Vec<u8>) -> Result<usize, SplitError> {
    let mut at = 0;
    loop {
        match *input.get(at..).unwrap_or_default() {
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                word.push(hex_digit(high) << 4 | hex_digit(low));
                at += 4;
            }
            [b'\\', escaped, ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => other,
                });
                at += 2;
            }
            [b'"', ..] => return Ok(at + 1),
            [byte, ..] => {
                word.push(byte);
                at += 1;
            }
            [] => return Err(SplitError),
        }
    }
}

/// Reads after an opening `'` up to and including the closing one.
fn single_quoted(input: &[u8], word: &mut Vec<u8>) -> Result<usize, SplitError> {
    let mut at = 0;
    loop {
        match *input.get(at..).unwrap_or_default() {
            [b'\\', b'\'', ..] => {
                word.push(b'\'');
                at += 2;
            }
            [b'\'', ..] => return Ok(at + 1),
            [byte, ..] => {
                word.push(byte);
                at += 1;
            }
            [] => return Err(SplitError),
        }
    }
}

/// C's `isspace`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn ends_word(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'')
}

fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => byte - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, SplitError> {
        let words = split_arguments(&Bytes::copy_from_slice(line))?;
        Ok(words.iter().map(|word| word.to_vec()).collect())
    }

    #[test]
    fn words_are_split_as_redis_splits_them() {
        // Each line was sent to a Redis 7.0.15 server as `ECHO …` or compared with its refusal.
        let cases: &[(&[u8], &[&[u8]])] = &[
            (b"", &[]),
            (b" \t\r\x0b\x0c ", &[]),
            (b"PING", &[b"PING"]),
            (b"  set  a\tb ", &[b"set", b"a", b"b"]),
            (b"\"a b\\x41\\n\\q\"", &[b"a bA\nq"]),
            (b"'a\\'b\\n'", &[b"a'b\\n"]),
            (b"a\"b c\"", &[b"ab c"]),
            (b"\"\" ''", &[b"", b""]),
            (b"\"\\x4\\x4g\"", &[b"x4x4g"]),
            (b"a\x0bb \x0bc", &[b"a\x0bb", b"c"]),
            (b"\"a\rb\"", &[b"a\rb"]),
            (b"a\\\"b\"", &[b"a\\b"]),
            (b"\"a\"\x0bb", &[b"a", b"b"]),
        ];
        for (line, words) in cases {
            let expected: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
            assert_eq!(split(line), Ok(expected), "{:?}", line.escape_ascii().to_string());
        }
        for line in
            [&b"\"a\"b"[..], b"'a'b", b"\"a", b"'a", b"\"", b"\"a\\", b"\"a\\\"", b"\"a\"\"b\""]
        {
            assert_eq!(split(line), Err(SplitError), "{:?}", line.escape_ascii().to_string());
        }
    }

    #[test]
    fn plain_words_are_slices_of_the_line() {
        let line = Bytes::from_static(b"GET key");
        let words = split_arguments(&line).expect("no quotes");
        assert_eq!(words[1].as_ptr(), line[4..].as_ptr());
    }
}
