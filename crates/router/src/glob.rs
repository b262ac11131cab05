//! Redis's glob patterns on short names (parameters, commands); keys are matched where they are.
//!
//! `*`, `?`, `[a-c]`, `[^a]`, `\x`. Linear in memory and quadratic at worst in time: of two stars only
//! the last is ever tried again, so no pattern makes it exponential.

/// Whether `text` matches `pattern`, letters in any case.
pub(crate) fn matches_ignoring_case(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on if what follows the last star fails: the pattern after it, the text it reached.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        if let Some(next) = match_one(pattern, p, text[t]) {
            p = next;
            t += 1;
            continue;
        }
        let Some((after_star, reached)) = retry else { return false };
        retry = Some((after_star, reached + 1));
        (p, t) = (after_star, reached + 1);
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// Matches one byte at a position of the pattern; the position after it.
fn match_one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    let same = |a: u8, b: u8| a.eq_ignore_ascii_case(&b);
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'\\' if p + 1 < pattern.len() => same(pattern[p + 1], byte).then_some(p + 2),
        b'[' => {
            let (matched, next) = match_class(pattern, p + 1, byte.to_ascii_lowercase());
            matched.then_some(next)
        }
        literal => same(literal, byte).then_some(p + 1),
    }
}

fn match_class(pattern: &[u8], mut p: usize, byte: u8) -> (bool, usize) {
    let negated = pattern.get(p) == Some(&b'^');
    p += usize::from(negated);
    let mut matched = false;
    while let Some(&c) = pattern.get(p) {
        match c {
            b']' => break,
            b'\\' if p + 1 < pattern.len() => {
                p += 1;
                matched |= pattern[p].eq_ignore_ascii_case(&byte);
            }
            from if pattern.get(p + 1) == Some(&b'-') && p + 2 < pattern.len() => {
                let (a, b) = (from.to_ascii_lowercase(), pattern[p + 2].to_ascii_lowercase());
                matched |= (a.min(b)..=a.max(b)).contains(&byte);
                p += 2;
            }
            literal => matched |= literal.eq_ignore_ascii_case(&byte),
        }
        p += 1;
    }
    (matched != negated, (p + 1).min(pattern.len()))
}

#[cfg(test)]
mod tests {
    use super::matches_ignoring_case as m;

    #[test]
    fn patterns() {
        assert!(m(b"*", b""));
        assert!(m(b"max*", b"maxclients"));
        assert!(m(b"MAX*S", b"maxclients"));
        assert!(m(b"h?llo", b"hello"));
        assert!(!m(b"h?llo", b"hllo"));
        assert!(m(b"h[a-e]llo", b"hello"));
        assert!(!m(b"h[^e]llo", b"hello"));
        assert!(m(b"a\\*b", b"a*b"));
        assert!(!m(b"a\\*b", b"axb"));
        assert!(m(b"*a*a*a*b", b"aaaaaaaaaaaaaaaaab"));
        assert!(!m(b"*a*a*a*a*a*a*a*a*c", &[b'a'; 4000]));
        assert!(!m(b"", b"x"));
        assert!(!m(b"[", b"x"));
    }
}
