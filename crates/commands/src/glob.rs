//! Glob patterns as KEYS and SCAN match them.
//!
//! ```text
//! pattern = { '*' | '?' | '[' ['^'] { char '-' char | '\' char | char } ']' | '\' char | char }
//! ```
//!
//! Redis's matcher recurses at every `*`. This one remembers only the last `*`: once the part of
//! the pattern between two stars has matched, matching it further right can gain nothing. So the
//! work is at most pattern × text, whatever the pattern.
//!
//! Redis's peculiarities are kept, since patterns in the field rely on them: an unclosed `[` is
//! closed by the end of the pattern, a reversed range is turned round, a final `\` stands for
//! itself, the empty text matches the empty pattern alone, and behind [`STARS_MAX`] stars there is
//! no match any more.

/// Most stars of a pattern that matches anything, runs of them counted once and one at its end not
/// at all. It is how deep Redis recurses (since 7.2.6 and 7.4.1).
const STARS_MAX: usize = 1_000;

/// Whether `text` as a whole matches `pattern`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut at, mut rest) = (0, pattern);
    // Where to resume: behind the last star, one byte further right.
    let mut resume: Option<(usize, &[u8])> = None;
    let mut stars = 0;
    loop {
        if let [b'*', behind @ ..] = rest {
            rest = behind;
            resume = Some((at, rest));
            stars += usize::from(!matches!(rest, [] | [b'*', ..]));
            if stars > STARS_MAX {
                return false;
            }
        } else if at == text.len() {
            // Whatever is left would need a byte, and starting further right leaves fewer.
            return rest.is_empty();
        } else if let Some(behind) = match_one(rest, text[at]) {
            rest = behind;
            at += 1;
        } else {
            let Some((start, behind)) = resume else { return false };
            (at, rest) = (start + 1, behind);
            resume = Some((at, behind));
        }
    }
}

/// Matches the pattern's first element, which is no star, with a byte; what is left of the pattern
/// if it does.
fn match_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (first, rest) = pattern.split_first()?;
    let (matched, rest) = match (first, rest) {
        (b'?', rest) => (true, rest),
        (b'[', rest) => match_class(rest, byte),
        (b'\\', [literal, rest @ ..]) => (*literal == byte, rest),
        (literal, rest) => (*literal == byte, rest),
    };
    matched.then_some(rest)
}

/// Matches a class, of which `[` is already taken, with a byte; also what stands behind the class.
fn match_class(class: &[u8], byte: u8) -> (bool, &[u8]) {
    let (negated, mut rest) = match class {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, class),
    };
    let mut matched = false;
    loop {
        rest = match rest {
            [] => break,
            [b']', behind @ ..] => {
                rest = behind;
                break;
            }
            [b'\\', literal, behind @ ..] => {
                matched |= *literal == byte;
                behind
            }
            [start, b'-', end, behind @ ..] => {
                matched |= (*start.min(end)..=*start.max(end)).contains(&byte);
                behind
            }
            [literal, behind @ ..] => {
                matched |= *literal == byte;
                behind
            }
        };
    }
    (matched != negated, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    /// The same language by plain recursion on the two tails.
    fn oracle(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            _ if text.is_empty() => pattern.iter().all(|byte| *byte == b'*'),
            [b'*', rest @ ..] => oracle(rest, text) || oracle(pattern, &text[1..]),
            _ => match_one(pattern, text[0]).is_some_and(|rest| oracle(rest, &text[1..])),
        }
    }

    #[test]
    fn agrees_with_plain_recursion() {
        let mut random = Random::new(11);
        let mut matched = 0;
        for _ in 0..300_000 {
            let mut some = |alphabet: &[u8], bound: usize| {
                let length = random.below(bound);
                (0..length).map(|_| *random.pick(alphabet)).collect::<Vec<u8>>()
            };
            let (pattern, text) = (some(b"ab*?[]^-\\", 9), some(b"ab-", 7));
            let expected = oracle(&pattern, &text) && (!text.is_empty() || pattern.is_empty());
            assert_eq!(
                matches(&pattern, &text),
                expected,
                "{} against {}",
                pattern.escape_ascii(),
                text.escape_ascii()
            );
            matched += usize::from(expected);
        }
        assert!(matched > 10_000, "only {matched} matches: the test would see nothing");
    }

    #[test]
    fn examples_of_a_real_server() {
        for (pattern, text, expected) in [
            ("h?llo", "hello", true),
            ("h*llo", "heeeello", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("a[", "a", false),
            ("a[b", "ab", true),
            ("a[^", "ab", true),
            ("a\\", "a\\", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("[\\]]", "]", true),
            ("[]a]", "]a]", false),
            ("*", "", false),
            ("", "", true),
            ("a**", "a", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_stay_cheap() {
        // Exponential if every star were tried with every other.
        let pattern = "a*".repeat(STARS_MAX);
        let text = "a".repeat(20_000) + "b";
        assert!(!matches((pattern.clone() + "c").as_bytes(), text.as_bytes()));
        assert!(matches(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn stars_beyond_the_limit_match_nothing() {
        let text = "a".repeat(2 * STARS_MAX + 2);
        let matches = |pattern: String| matches(pattern.as_bytes(), text.as_bytes());
        assert!(matches("*?".repeat(STARS_MAX)) && !matches("*?".repeat(STARS_MAX + 1)));
        assert!(matches("***?".repeat(STARS_MAX) + "**"));
    }
}
