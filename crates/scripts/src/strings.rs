//! Functions of the library `string` that Lua's own would run without end or beyond the stack: what
//! searches for patterns, and `rep`.

use std::cell::Cell;
use std::rc::Rc;

use mlua::{Function, Lua, LuaString, MultiValue, Result, Table, Value};

use crate::arguments::{Arguments, define, one};
use crate::outside::Outside;
use crate::pattern::{Captured, Matcher, until_zero};
use crate::raise::{self, Protected};
use crate::vm::State;

/// What makes a text a pattern.
const SPECIAL: &[u8] = b"^$*+?.([%-";

pub(crate) fn functions(lua: &Lua, state: &Rc<State>) -> Result<Table> {
    let table = lua.create_table()?;
    let with = |run: fn(&Arguments<'_>, &State) -> Result<MultiValue>| {
        let state = Rc::clone(state);
        move |args: Arguments<'_>| run(&args, &state)
    };
    define(lua, &table, "find", with(|args, state| search(args, state, true)))?;
    define(lua, &table, "match", with(|args, state| search(args, state, false)))?;
    let (shared, protected) = (Rc::clone(state), Protected::new(lua)?);
    define(lua, &table, "gsub", move |args| gsub(&args, &shared, &protected))?;
    let shared = Rc::clone(state);
    define(lua, &table, "gmatch", move |args| gmatch(&args, &shared))?;
    let string: Table = lua.globals().raw_get("string")?;
    let rep: Function = string.raw_get("rep")?;
    define(lua, &table, "rep", move |args| {
        let (text, times) = (args.string(1)?, args.integer(2)?);
        // Lua's own would do nothing, that many times.
        if text.as_bytes().is_empty() {
            return one(Value::String(text));
        }
        rep.call((text, times))
    })?;
    Ok(table)
}

/// `find` and `match`.
fn search(args: &Arguments<'_>, state: &State, is_find: bool) -> Result<MultiValue> {
    let (subject, pattern) = (args.string(1)?, args.string(2)?);
    let (subject, pattern) = (&*subject.as_bytes(), &*pattern.as_bytes());
    let first = args.integer_or(3, 1)?;
    let first = if first < 0 { first.saturating_add(subject.len() as i64 + 1) } else { first };
    let mut start = usize::try_from(first - 1).unwrap_or(0).min(subject.len());
    if is_find && (is_true(args.get(4)) || !is_special(pattern)) {
        return one_or_two(find_plain(&subject[start..], pattern).map(|at| {
            let from = start + at;
            (from + 1, from + pattern.len())
        }));
    }
    let (is_anchored, pattern) = anchor(pattern);
    let mut matcher = Matcher::new(subject, pattern, (args, state));
    loop {
        if let Some(end) = matcher.match_at(start)? {
            let mut found = Vec::new();
            if is_find {
                found.push(Value::Integer(start as i64 + 1));
                found.push(Value::Integer(end as i64));
            }
            if !is_find || matcher.has_captures() {
                push_captures(args.lua, &matcher, (start, end), &mut found)?;
            }
            return Ok(MultiValue::from_iter(found));
        }
        start += 1;
        if is_anchored || start > subject.len() {
            return one(Value::Nil);
        }
    }
}

fn one_or_two(found: Option<(usize, usize)>) -> Result<MultiValue> {
    let Some((start, end)) = found else { return one(Value::Nil) };
    Ok(MultiValue::from_iter([start, end].map(|place| Value::Integer(place as i64))))
}

fn is_true(value: Option<&Value>) -> bool {
    !matches!(value, None | Some(Value::Nil | Value::Boolean(false)))
}

fn is_special(pattern: &[u8]) -> bool {
    until_zero(pattern).iter().any(|byte| SPECIAL.contains(byte))
}

fn find_plain(subject: &[u8], text: &[u8]) -> Option<usize> {
    memchr::memmem::find(subject, text)
}

/// Whether a pattern holds at one place only, and the rest of it.
fn anchor(pattern: &[u8]) -> (bool, &[u8]) {
    pattern.strip_prefix(b"^").map_or((false, pattern), |rest| (true, rest))
}

fn value_of(lua: &Lua, captured: &Captured<'_>) -> Result<Value> {
    Ok(match captured {
        Captured::Bytes(bytes) => Value::String(lua.create_string(bytes)?),
        Captured::Position(position) => Value::Integer(*position as i64),
    })
}

fn push_captures(
    lua: &Lua,
    matcher: &Matcher<'_>,
    range: (usize, usize),
    values: &mut Vec<Value>,
) -> Result<()> {
    for at in 0..matcher.count() {
        values.push(value_of(lua, &matcher.captured(at, range)?)?);
    }
    Ok(())
}

/// An iterator over matches. A `^` stands for itself here.
fn gmatch(args: &Arguments<'_>, state: &Rc<State>) -> Result<MultiValue> {
    let (subject, pattern) = (args.string(1)?, args.string(2)?);
    let (state, next) = (Rc::clone(state), Cell::new(0));
    let iterator = args.lua.create_function(move |lua, values: MultiValue| {
        let args = Arguments { lua, function: "for iterator", values: &values };
        let (subject, pattern) = (&*subject.as_bytes(), &*pattern.as_bytes());
        let mut matcher = Matcher::new(subject, pattern, (&args, &state));
        for start in next.get()..=subject.len() {
            if let Some(end) = matcher.match_at(start)? {
                next.set(if end == start { end + 1 } else { end });
                let mut found = Vec::new();
                push_captures(lua, &matcher, (start, end), &mut found)?;
                return Ok(MultiValue::from_iter(found));
            }
        }
        next.set(subject.len() + 1);
        Ok(MultiValue::new())
    })?;
    one(Value::Function(iterator))
}

/// What `gsub` puts in the place of a match.
enum Replacement {
    Text(LuaString),
    Table(Table),
    Function(Function),
}

fn gsub(args: &Arguments<'_>, state: &State, protected: &Protected) -> Result<MultiValue> {
    let (subject, pattern) = (args.string(1)?, args.string(2)?);
    let (subject, pattern) = (&*subject.as_bytes(), &*pattern.as_bytes());
    let replacement = match args.get(3) {
        Some(Value::String(_) | Value::Number(_) | Value::Integer(_)) => {
            Replacement::Text(args.string(3)?)
        }
        Some(Value::Table(table)) => Replacement::Table(table.clone()),
        Some(Value::Function(function)) => Replacement::Function(function.clone()),
        _ => return args.refuse(3, "string/function/table expected"),
    };
    let most = args.integer_or(4, subject.len() as i64 + 1)?;
    let (is_anchored, pattern) = anchor(pattern);
    let mut matcher = Matcher::new(subject, pattern, (args, state));
    let mut outside = Outside::new(state);
    let (mut result, mut at, mut done) = (Vec::with_capacity(subject.len()), 0, 0);
    while done < most {
        let end = matcher.match_at(at)?;
        if let Some(end) = end {
            done += 1;
            replace((args, protected), &matcher, (at, end), &replacement, &mut result)?;
            outside.is_now(result.len())?;
        }
        match end.filter(|end| *end > at) {
            Some(end) => at = end,
            None if at < subject.len() => {
                result.push(subject[at]);
                at += 1;
            }
            None => break,
        }
        if is_anchored {
            break;
        }
    }
    result.extend_from_slice(&subject[at..]);
    let result = Value::String(args.lua.create_string(result)?);
    Ok(MultiValue::from_iter([result, Value::Integer(done)]))
}

fn replace(
    (args, protected): (&Arguments<'_>, &Protected),
    matcher: &Matcher<'_>,
    range: (usize, usize),
    replacement: &Replacement,
    result: &mut Vec<u8>,
) -> Result<()> {
    let lua = args.lua;
    let value = match replacement {
        Replacement::Text(text) => return expand(&text.as_bytes(), matcher, range, result),
        Replacement::Table(table) => table.get(value_of(lua, &matcher.captured(0, range)?)?)?,
        Replacement::Function(function) => {
            let mut captures = Vec::new();
            push_captures(lua, matcher, range, &mut captures)?;
            let values = protected.call(lua, function, MultiValue::from_iter(captures))?;
            values.into_iter().next().unwrap_or(Value::Nil)
        }
    };
    match value {
        Value::Nil | Value::Boolean(false) => {
            result.extend_from_slice(&matcher.subject[range.0..range.1]);
        }
        value @ (Value::String(_) | Value::Number(_) | Value::Integer(_)) => {
            if let Some(text) = lua.coerce_string(value)? {
                result.extend_from_slice(&text.as_bytes());
            }
        }
        other => {
            let name = raise::type_name(&other);
            return Err(raise::text(lua, format_args!("invalid replacement value (a {name})")));
        }
    }
    Ok(())
}

/// A replacement with `%0` to `%9` in it.
fn expand(
    text: &[u8],
    matcher: &Matcher<'_>,
    range: (usize, usize),
    result: &mut Vec<u8>,
) -> Result<()> {
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            result.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'0') => result.extend_from_slice(&matcher.subject[range.0..range.1]),
            Some(digit @ b'1'..=b'9') => {
                match matcher.captured(usize::from(digit - b'1'), range)? {
                    Captured::Bytes(bytes) => result.extend_from_slice(bytes),
                    Captured::Position(position) => {
                        result.extend_from_slice(position.to_string().as_bytes());
                    }
                }
            }
            Some(literal) => result.push(*literal),
            // Lua copies the zero byte that ends its strings.
            None => result.push(0),
        }
    }
    Ok(())
}
