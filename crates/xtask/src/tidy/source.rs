//! Rust text with what is not code blanked out: comments, strings, characters; on wish also
//! what is compiled for tests only. Lines and columns stay where they are.
//!
//! This is a lexer for a few rules, not a parser: it knows nested comments, raw strings, and a
//! lifetime from a character.

/// The code, with spaces for comments and the insides of literals.
pub(crate) fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = token_end(bytes, at);
        if end > at + 1 {
            let blank = at..end.min(bytes.len());
            out[blank].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
        at = end;
    }
    // Blanked bytes are spaces and the rest stands as it stood, so this is UTF-8 still.
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the comment or literal that begins here ends; the next position if none does.
fn token_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let inside_word = at > 0 && word(&bytes[at - 1]);
    match rest {
        [b'/', b'/', ..] => at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => comment_end(bytes, at),
        [b'"', ..] => string_end(bytes, at + 1),
        [b'b' | b'c', b'"', ..] if !inside_word => string_end(bytes, at + 2),
        [b'r', b'"' | b'#', ..] if !inside_word => raw_end(bytes, at + 1),
        [b'b' | b'c', b'r', b'"' | b'#', ..] if !inside_word => raw_end(bytes, at + 2),
        [b'\'', b'\\', ..] => {
            at + 3 + rest.iter().skip(3).position(|b| *b == b'\'').unwrap_or(rest.len()) + 1
        }
        [b'\'', ..] => {
            // 'x' is a character, 'x a lifetime; a character may be several bytes long.
            let wide = (2..=5).find(|end| rest.get(*end) == Some(&b'\''));
            match wide {
                Some(end) if end == 2 || !rest[1].is_ascii() => at + end + 1,
                _ => at + 1,
            }
        }
        _ => at + 1,
    }
}

fn comment_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// `at` is behind the `r`. A raw identifier (`r#name`) is no literal.
fn raw_end(bytes: &[u8], at: usize) -> usize {
    let hashes = bytes[at..].iter().take_while(|byte| **byte == b'#').count();
    if bytes.get(at + hashes) != Some(&b'"') {
        return at;
    }
    let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
    let body = at + hashes + 1;
    let length = bytes[body..].windows(close.len()).position(|part| part == close);
    length.map_or(bytes.len(), |length| body + length + close.len())
}

/// Code without the items that are marked `#[cfg(test)]`.
pub(crate) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.to_owned();
    while let Some(start) = out.find(MARK) {
        let item = start + MARK.len();
        let open = out[item..].find(['{', ';']).map_or(out.len(), |length| item + length);
        let end = match out.as_bytes().get(open) {
            Some(b'{') => closing(&out, open).map_or(out.len(), |close| close + 1),
            _ => (open + 1).min(out.len()),
        };
        let blank: String =
            out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}

/// The brace that closes the one at `open`.
pub(crate) fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// The line, from 1, of a position.
pub(crate) fn line_of(code: &str, at: usize) -> usize {
    code.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_nothing_else() {
        let text = "let a = \"x // { \\\" \"; // note {\nlet b = 'x'; fn f<'a>(x: &'a str) {} /* /* } */ } */ '{'";
        let code = code(text);
        assert_eq!(code.len(), text.len());
        assert_eq!(code.matches('{').count(), 1);
        assert_eq!(code.matches('}').count(), 1);
        assert!(code.contains("fn f<'a>(x: &'a str)"));
        assert!(!code.contains("note"));
    }

    #[test]
    fn raw_strings_end_where_they_end() {
        let code = code("r#\"a \" { \"# + br\"{\" + b\"\\\"{\" + r#type + b'{' + '\\'' + 'é' + {");
        assert_eq!(code.matches('{').count(), 1);
        assert!(code.contains("r#type"));
    }

    #[test]
    fn test_modules_are_left_out() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { c() } }\nfn d() {}\n#[cfg(test)]\nmod t;\n";
        let left = without_tests(code);
        assert!(left.contains("fn a") && left.contains("fn d"));
        assert!(!left.contains("fn b") && !left.contains("mod t"));
        assert_eq!(left.lines().count(), code.lines().count());
    }
}
