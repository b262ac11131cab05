//! SORT and SORT_RO. What can be sorted: types/sortable.rs.
//!
//! BY and GET name other keys by patterns whose `*` is the element. They are read like the key itself
//! and so must lie in the same partition.

use std::cmp::Ordering;

use bytes::{BufMut, Bytes, BytesMut};
use wire::placement::Placement;
use wire::resp::Reply;

use crate::args::Args;
use crate::command::{Command, Flags, Keys, at_least, read, write};
use crate::error::CommandError;
use crate::families::string::read_text;
use crate::notes::Wanted;
use crate::txn::Txn;
use crate::types::hash::Hash;
use crate::types::keyspace;
use crate::types::list;
use crate::types::sortable::{self, Elements};
use crate::view::View;

const SORTS: Flags = Flags::DANGEROUS;
const STORES: Flags = Flags::DENYOOM.and(Flags::DANGEROUS);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //     name       arity        flags   keys              handler
    write("SORT",    at_least(2), STORES, Keys::Sort { stores: true },  sort),
    read ("SORT_RO", at_least(2), SORTS,  Keys::Sort { stores: false }, sort_ro),
];

/// What the arguments ask for.
#[derive(Default)]
struct Request<'a> {
    by: Option<&'a Bytes>,
    /// BY named a key without `*`: nothing is to be sorted.
    unsorted: bool,
    get: Vec<&'a Bytes>,
    start: i64,
    count: Option<i64>,
    descending: bool,
    alpha: bool,
    store: Option<&'a Bytes>,
}

impl<'a> Request<'a> {
    fn parse(args: Args<'a>, stores: bool) -> Result<Request<'a>, CommandError> {
        let mut request = Request::default();
        let mut options = args.options(2);
        while let Some(word) = options.word() {
            match word.as_bytes() {
                b"ASC" => request.descending = false,
                b"DESC" => request.descending = true,
                b"ALPHA" => request.alpha = true,
                b"LIMIT" if options.left() >= 2 => {
                    request.start = options.int()?;
                    request.count = Some(options.int()?);
                }
                b"STORE" if stores => request.store = Some(options.value()?),
                b"BY" => {
                    let pattern = options.value()?;
                    request.unsorted |= !pattern.contains(&b'*');
                    request.by = Some(pattern);
                }
                b"GET" => request.get.push(options.value()?),
                _ => return Err(CommandError::Syntax),
            }
        }
        Ok(request)
    }

    /// The elements, sorted and cut.
    fn run(&mut self, view: &dyn View, key: &[u8]) -> Result<Vec<Bytes>, CommandError> {
        let Elements { ordered, mut elements } = sortable::elements(view, key)?;
        // What is stored, or what a script goes by, must not hang on a hash's order.
        if self.unsorted && !ordered && (self.store.is_some() || view.in_script()) {
            (self.unsorted, self.alpha, self.by) = (false, true, None);
        }
        if !self.unsorted {
            elements = self.sorted(view, elements)?;
        } else if ordered && self.descending {
            elements.reverse();
        }
        let length = i64::try_from(elements.len()).unwrap_or(i64::MAX);
        let start = self.start.clamp(0, length);
        let count = match self.count {
            Some(count @ 0..) => count.min(length - start),
            _ => length - start,
        };
        Ok(elements.drain(start as usize..(start + count) as usize).collect())
    }

    fn sorted(&self, view: &dyn View, elements: Vec<Bytes>) -> Result<Vec<Bytes>, CommandError> {
        let mut weighed = Vec::with_capacity(elements.len());
        for element in elements {
            let weight = match self.by {
                Some(pattern) => look_up(view, pattern, &element)?,
                None => Some(element.clone()),
            };
            let weight = match weight {
                text if self.alpha => Weight::Text(text),
                Some(text) => Weight::Number(parse_double(&text).ok_or(CommandError::SORT_NUMBER)?),
                None => Weight::Number(0.0),
            };
            weighed.push((weight, element));
        }
        let with_text = self.alpha;
        weighed.sort_by(|(a, one), (b, other)| {
            let order = match (a, b) {
                (Weight::Text(a), Weight::Text(b)) => a.cmp(b),
                (Weight::Number(a), Weight::Number(b)) => a.total_cmp(&(b + 0.0)),
                _ => Ordering::Equal,
            };
            let order = if with_text { order } else { order.then_with(|| one.cmp(other)) };
            if self.descending { order.reverse() } else { order }
        });
        Ok(weighed.into_iter().map(|(_, element)| element).collect())
    }

    /// What each element gives: itself, or what the GETs say.
    fn results(
        &self,
        view: &dyn View,
        found: &[Bytes],
    ) -> Result<Vec<Option<Bytes>>, CommandError> {
        if self.get.is_empty() {
            return Ok(found.iter().cloned().map(Some).collect());
        }
        let mut results = Vec::with_capacity(found.len() * self.get.len());
        for element in found {
            for pattern in &self.get {
                results.push(look_up(view, pattern, element)?);
            }
        }
        Ok(results)
    }
}

enum Weight {
    Number(f64),
    Text(Option<Bytes>),
}

fn sort_ro(view: &dyn View, args: Args<'_>) -> Result<Reply, CommandError> {
    answer(view, args, Request::parse(args, false)?)
}

fn sort(txn: &mut Txn<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let mut request = Request::parse(args, true)?;
    let Some(target) = request.store else { return answer(txn, args, request) };
    let found = request.run(txn, args.bytes(1)?)?;
    let results = request.results(txn, &found)?;
    let results: Vec<Bytes> = results.into_iter().map(Option::unwrap_or_default).collect();
    let count = results.len() as i64;
    let old = keyspace::lookup(txn, target)?;
    if results.is_empty() {
        keyspace::remove(txn, target, old);
    } else {
        let list = list::build(txn, target, &results)?;
        keyspace::store(txn, target, old, list, None);
        txn.note(Wanted::LIST, "sortstore", target);
    }
    Ok(Reply::Integer(count))
}

fn answer(
    view: &dyn View,
    args: Args<'_>,
    mut request: Request<'_>,
) -> Result<Reply, CommandError> {
    let found = request.run(view, args.bytes(1)?)?;
    let results = request.results(view, &found)?.into_iter();
    Ok(Reply::Array(results.map(|result| result.map_or(Reply::Null, Reply::Bulk)).collect()))
}

/// What a pattern gives for an element: `#` is the element, `*` stands for it in a key's name, and
/// `->` names a field of a hash behind it.
fn look_up(
    view: &dyn View,
    pattern: &[u8],
    element: &Bytes,
) -> Result<Option<Bytes>, CommandError> {
    if pattern == b"#" {
        return Ok(Some(element.clone()));
    }
    let Some(star) = pattern.iter().position(|byte| *byte == b'*') else { return Ok(None) };
    let (prefix, rest) = (&pattern[..star], &pattern[star + 1..]);
    let arrow = rest.windows(2).position(|pair| pair == b"->");
    let arrow = arrow.filter(|at| at + 2 < rest.len());
    let postfix = arrow.map_or(rest, |at| &rest[..at]);
    let mut key = BytesMut::with_capacity(prefix.len() + element.len() + postfix.len());
    for part in [prefix, element, postfix] {
        key.put_slice(part);
    }
    if !view.range().contains(Placement::of_key(&key)) {
        return Err(CommandError::CROSS_PARTITION);
    }
    let found = match arrow {
        Some(at) => Hash::read(view, &key).and_then(|hash| {
            let entry = hash.map(|hash| hash.get(&rest[at + 2..])).transpose()?.flatten();
            Ok(entry.map(|entry| entry.value))
        }),
        None => read_text(view, &key),
    };
    match found {
        Err(CommandError::WrongType) => Ok(None),
        found => found,
    }
}

/// Reads a number as C's `strtod` does, to the end of the text; `None` if it is none, or too large
/// or too small.
fn parse_double(text: &[u8]) -> Option<f64> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(0.0);
    }
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let text = &text[text.iter().take_while(|byte| blank(byte)).count()..];
    let text = std::str::from_utf8(text).ok()?;
    let (sign, magnitude) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if let Some(digits) = magnitude.strip_prefix("0x").or_else(|| magnitude.strip_prefix("0X")) {
        return Some(sign * parse_hexadecimal(digits)?);
    }
    if ["inf", "infinity"].iter().any(|name| magnitude.eq_ignore_ascii_case(name)) {
        return Some(sign * f64::INFINITY);
    }
    // What is left is what Rust reads, too, but for a second sign and its other names.
    if !magnitude.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let value = magnitude.parse::<f64>().ok()?;
    let mantissa = magnitude.split(['e', 'E']).next().unwrap_or_default();
    let is_zero = !mantissa.contains(|c: char| matches!(c, '1'..='9'));
    (is_zero || value.is_normal()).then_some(sign * value)
}

fn parse_hexadecimal(text: &str) -> Option<f64> {
    let (mantissa, exponent) = match text.split_once(['p', 'P']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0.0f64;
    for digit in whole.chars().chain(fraction.chars()) {
        value = value * 16.0 + f64::from(digit.to_digit(16)?);
    }
    let scale = exponent.checked_sub(4 * i32::try_from(fraction.len()).ok()?)?;
    let value = value * 2f64.powi(scale);
    (value == 0.0 || value.is_normal()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_strtod_reads_them() {
        for (text, value) in [
            ("", 0.0),
            ("1", 1.0),
            (" 1.5", 1.5),
            ("-2e3", -2000.0),
            ("+.5", 0.5),
            ("5.", 5.0),
            ("0x10", 16.0),
            ("0x1.8p1", 3.0),
            ("-inf", f64::NEG_INFINITY),
            ("Infinity", f64::INFINITY),
            ("1\0x", 1.0),
            ("0e999", 0.0),
        ] {
            assert_eq!(parse_double(text.as_bytes()), Some(value), "{text}");
        }
        for text in ["x", "1x", "1 ", "nan", "--1", "+-1", ".", "1e400", "1e-400", "0x", " ", "é"]
        {
            assert_eq!(parse_double(text.as_bytes()), None, "{text}");
        }
    }
}
