//! Patterns of Lua 5.1, within bounds. Lua's own matcher goes back over a subject for as long as the
//! pattern makes it, which nobody can interrupt, and uses the thread's stack for each item of it. This
//! one looks now and then whether the script has to end, and refuses what nests too deep.
//!
//! What patterns mean: the reference manual of Lua 5.1, 5.4.1. As there, one ends at its first zero byte.

use mlua::Result;

use crate::arguments::Arguments;
use crate::raise;
use crate::vm::State;

/// Captures in a pattern, as in Lua.
const CAPTURES_MAX: usize = 32;
/// Items of a pattern that may be open at once: each that repeats and each parenthesis is one. Lua 5.1
/// ends the process at some ten thousand, its successors refuse more than 200.
const DEPTH_MAX: usize = 500;

#[derive(Clone, Copy)]
enum Length {
    /// Its end has not been met.
    Open,
    /// `()`: a position.
    Position,
    Bytes(usize),
}

#[derive(Clone, Copy)]
struct Capture {
    start: usize,
    length: Length,
}

/// What a pattern captured.
pub(crate) enum Captured<'a> {
    Bytes(&'a [u8]),
    /// Counted from 1.
    Position(usize),
}

/// Looks for one pattern in one subject.
pub(crate) struct Matcher<'a> {
    pub(crate) subject: &'a [u8],
    pattern: &'a [u8],
    captures: [Capture; CAPTURES_MAX],
    /// Captures of the match.
    level: usize,
    depth: usize,
    args: &'a Arguments<'a>,
    state: &'a State,
}

/// The part of a pattern before its first zero byte.
pub(crate) fn until_zero(pattern: &[u8]) -> &[u8] {
    let end = pattern.iter().position(|byte| *byte == 0).unwrap_or(pattern.len());
    &pattern[..end]
}

impl<'a> Matcher<'a> {
    pub(crate) fn new(
        subject: &'a [u8],
        pattern: &'a [u8],
        (args, state): (&'a Arguments<'a>, &'a State),
    ) -> Matcher<'a> {
        let captures = [Capture { start: 0, length: Length::Open }; CAPTURES_MAX];
        let pattern = until_zero(pattern);
        Matcher { subject, pattern, captures, level: 0, depth: 0, args, state }
    }

    /// The end of the match that begins here, if there is one.
    ///
    /// *Errors*: the pattern is malformed, or the script has to end.
    pub(crate) fn match_at(&mut self, start: usize) -> Result<Option<usize>> {
        (self.level, self.depth) = (0, 0);
        self.rest(start, 0)
    }

    /// Whether the last match has captures.
    pub(crate) fn has_captures(&self) -> bool {
        self.level > 0
    }

    /// How many values the last match has: its captures, or the whole of it if it has none.
    pub(crate) fn count(&self) -> usize {
        self.level.max(1)
    }

    /// A value of the last match, which this range is; 0 is the whole of it if it has no captures.
    pub(crate) fn captured(&self, at: usize, (start, end): (usize, usize)) -> Result<Captured<'a>> {
        if at >= self.level {
            if at == 0 {
                return Ok(Captured::Bytes(&self.subject[start..end]));
            }
            return self.refuse("invalid capture index");
        }
        let Capture { start, length } = self.captures[at];
        match length {
            Length::Open => self.refuse("unfinished capture"),
            Length::Position => Ok(Captured::Position(start + 1)),
            Length::Bytes(length) => Ok(Captured::Bytes(&self.subject[start..start + length])),
        }
    }

    fn refuse<T>(&self, why: &str) -> Result<T> {
        Err(raise::text(self.args.lua, why))
    }

    /// Matches the rest of the pattern; the end of that.
    fn rest(&mut self, at: usize, item: usize) -> Result<Option<usize>> {
        if self.depth == DEPTH_MAX {
            return self.refuse("pattern too complex");
        }
        self.depth += 1;
        let end = self.items(at, item);
        self.depth -= 1;
        end
    }

    fn items(&mut self, mut at: usize, mut item: usize) -> Result<Option<usize>> {
        loop {
            self.state.work(1)?;
            let Some(&first) = self.pattern.get(item) else { return Ok(Some(at)) };
            let second = self.pattern.get(item + 1).copied();
            match (first, second) {
                (b'(', Some(b')')) => return self.open(at, item + 2, Length::Position),
                (b'(', _) => return self.open(at, item + 1, Length::Open),
                (b')', _) => return self.close(at, item + 1),
                (b'$', None) => return Ok((at == self.subject.len()).then_some(at)),
                (b'%', Some(b'b')) => {
                    let Some(end) = self.balanced(at, item + 2)? else { return Ok(None) };
                    (at, item) = (end, item + 4);
                }
                (b'%', Some(b'f')) => {
                    let Some(end) = self.frontier(at, item + 2)? else { return Ok(None) };
                    item = end;
                }
                (b'%', Some(digit @ b'0'..=b'9')) => {
                    let Some(end) = self.again(at, digit)? else { return Ok(None) };
                    (at, item) = (end, item + 2);
                }
                _ => {
                    let end = self.class_end(item)?;
                    self.state.work(2 * (end - item))?;
                    let is_here = self.is_single(at, (item, end));
                    match self.pattern.get(end) {
                        Some(b'?') => {
                            if is_here && let Some(end) = self.rest(at + 1, end + 1)? {
                                return Ok(Some(end));
                            }
                            item = end + 1;
                        }
                        Some(b'*') => return self.most(at, (item, end)),
                        Some(b'+') if is_here => return self.most(at + 1, (item, end)),
                        Some(b'-') => return self.fewest(at, (item, end)),
                        Some(b'+') => return Ok(None),
                        _ if is_here => (at, item) = (at + 1, end),
                        _ => return Ok(None),
                    }
                }
            }
        }
    }

    /// The end of the class that begins here.
    fn class_end(&self, item: usize) -> Result<usize> {
        let mut at = item + 1;
        match self.pattern[item] {
            b'%' if at == self.pattern.len() => self.refuse("malformed pattern (ends with '%')"),
            b'%' => Ok(at + 1),
            b'[' => {
                at += usize::from(self.pattern.get(at) == Some(&b'^'));
                loop {
                    let Some(&byte) = self.pattern.get(at) else {
                        return self.refuse("malformed pattern (missing ']')");
                    };
                    at += 1;
                    at += usize::from(byte == b'%' && at < self.pattern.len());
                    if self.pattern.get(at) == Some(&b']') {
                        return Ok(at + 1);
                    }
                }
            }
            _ => Ok(at),
        }
    }

    /// Whether the byte here is of a class.
    fn is_single(&self, at: usize, (item, end): (usize, usize)) -> bool {
        let Some(&byte) = self.subject.get(at) else { return false };
        match self.pattern[item] {
            b'.' => true,
            b'%' => is_of(byte, self.pattern[item + 1]),
            b'[' => self.is_in_set(byte, (item, end)),
            literal => literal == byte,
        }
    }

    /// Whether a byte is in the set whose brackets are the first and the last of this range.
    fn is_in_set(&self, byte: u8, (item, end): (usize, usize)) -> bool {
        let mut set = &self.pattern[item + 1..end - 1];
        let is_complement = set.first() == Some(&b'^');
        if is_complement {
            set = &set[1..];
        }
        let found = loop {
            let (is_it, width) = match *set {
                [] => break false,
                [b'%', class, ..] => (is_of(byte, class), 2),
                [first, b'-', last, ..] => ((first..=last).contains(&byte), 3),
                [literal, ..] => (literal == byte, 1),
            };
            if is_it {
                break true;
            }
            set = &set[width..];
        };
        found != is_complement
    }

    /// `%bxy`: the end of what begins with x and ends with as many y.
    fn balanced(&mut self, at: usize, item: usize) -> Result<Option<usize>> {
        let Some(&[opens, closes]) = self.pattern.get(item..item + 2) else {
            return self.refuse("unbalanced pattern");
        };
        if self.subject.get(at) != Some(&opens) {
            return Ok(None);
        }
        let mut open = 1;
        for next in at + 1..self.subject.len() {
            self.state.work(1)?;
            let byte = self.subject[next];
            if byte == closes {
                open -= 1;
                if open == 0 {
                    return Ok(Some(next + 1));
                }
            } else if byte == opens {
                open += 1;
            }
        }
        Ok(None)
    }

    /// `%f[set]`: the end of the set, if what is before is not in it and what is here is.
    fn frontier(&mut self, at: usize, item: usize) -> Result<Option<usize>> {
        if self.pattern.get(item) != Some(&b'[') {
            return self.refuse("missing '[' after '%f' in pattern");
        }
        let set = (item, self.class_end(item)?);
        self.state.work(3 * (set.1 - set.0))?;
        let before = at.checked_sub(1).map_or(0, |before| self.subject[before]);
        let here = self.subject.get(at).copied().unwrap_or(0);
        let is_frontier = !self.is_in_set(before, set) && self.is_in_set(here, set);
        Ok(is_frontier.then_some(set.1))
    }

    /// `%1`: the end of the same bytes as a capture's.
    fn again(&self, at: usize, digit: u8) -> Result<Option<usize>> {
        let captures = &self.captures[..self.level];
        let captured = usize::from(digit).checked_sub(usize::from(b'1'));
        match captured.and_then(|index| captures.get(index)) {
            None | Some(Capture { length: Length::Open, .. }) => {
                self.refuse("invalid capture index")
            }
            Some(Capture { length: Length::Position, .. }) => Ok(None),
            Some(Capture { start, length: Length::Bytes(length) }) => {
                self.state.work(*length)?;
                let bytes = &self.subject[*start..start + length];
                Ok(self.subject[at..].starts_with(bytes).then_some(at + length))
            }
        }
    }

    /// As many of a class as there are, or as few less as let the rest match.
    fn most(&mut self, at: usize, class: (usize, usize)) -> Result<Option<usize>> {
        let mut last = at;
        while self.is_single(last, class) {
            self.state.work(class.1 - class.0)?;
            last += 1;
        }
        for next in (at..=last).rev() {
            if let Some(end) = self.rest(next, class.1 + 1)? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    /// As few of a class as let the rest match.
    fn fewest(&mut self, at: usize, class: (usize, usize)) -> Result<Option<usize>> {
        for next in at.. {
            if let Some(end) = self.rest(next, class.1 + 1)? {
                return Ok(Some(end));
            }
            self.state.work(class.1 - class.0)?;
            if !self.is_single(next, class) {
                break;
            }
        }
        Ok(None)
    }

    fn open(&mut self, at: usize, item: usize, length: Length) -> Result<Option<usize>> {
        if self.level == CAPTURES_MAX {
            return self.refuse("too many captures");
        }
        self.captures[self.level] = Capture { start: at, length };
        self.level += 1;
        let end = self.rest(at, item)?;
        if end.is_none() {
            self.level -= 1;
        }
        Ok(end)
    }

    fn close(&mut self, at: usize, item: usize) -> Result<Option<usize>> {
        let open = |capture: &Capture| matches!(capture.length, Length::Open);
        let Some(index) = self.captures[..self.level].iter().rposition(open) else {
            return self.refuse("invalid pattern capture");
        };
        self.captures[index].length = Length::Bytes(at - self.captures[index].start);
        let end = self.rest(at, item)?;
        if end.is_none() {
            self.captures[index].length = Length::Open;
        }
        Ok(end)
    }
}

/// Whether a byte is of a class that one letter names; any other byte stands for itself.
fn is_of(byte: u8, class: u8) -> bool {
    let is_it = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => matches!(byte, b' ' | b'\t'..=b'\r'),
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    is_it != class.is_ascii_uppercase()
}
