//! Functions of the library `string` that Lua's own would run without end or beyond the stack: what
//! searches for patterns, and `rep`. `gmatch` and `gfind` are put together in `bootstrap.lua`.

use std::rc::Rc;

use mlua::{Function, Lua, LuaString, MultiValue, Result, Table, Value};

use crate::arguments::{Arguments, define, one};
use crate::outside::Outside;
use crate::pattern::{Captured, Matcher, until_zero};
use crate::raise::{self, Protected};
use crate::vm::State;

/// The work of a call that does hardly anything.
const CALL_WORK: usize = 20;
/// Bytes that are searched for a plain text in the time of one of a pattern's.
const PLAIN_BYTES_PER_WORK: usize = 16;
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
    let (shared, caller) = (Rc::clone(state), Caller::new(lua)?);
    define(lua, &table, "gsub", move |args| gsub(&args, &shared, &caller))?;
    define(lua, &table, "gmatch", |args| {
        let values = [args.string(1)?, args.string(2)?].map(Value::String);
        Ok(MultiValue::from_iter(values))
    })?;
    define(lua, &table, "step", with(step))?;
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
    state.work(CALL_WORK)?;
    let first = args.integer_or(3, 1)?;
    let first = if first < 0 { first.saturating_add(subject.len() as i64 + 1) } else { first };
    let mut start = usize::try_from(first - 1).unwrap_or(0).min(subject.len());
    if is_find && (is_true(args.get(4)) || !is_special(pattern)) {
        state.work((subject.len() - start) / PLAIN_BYTES_PER_WORK)?;
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

/// A step of the iterator that `gmatch` makes (`bootstrap.lua`): the next match of a pattern from a place
/// on, behind the place to go on from. A `^` stands for itself here.
fn step(args: &Arguments<'_>, state: &State) -> Result<MultiValue> {
    let (subject, pattern) = (args.string(1)?, args.string(2)?);
    let (subject, pattern) = (&*subject.as_bytes(), &*pattern.as_bytes());
    let from = usize::try_from(args.integer(3)?).unwrap_or(0);
    let mut matcher = Matcher::new(subject, pattern, (args, state));
    for start in from..=subject.len() {
        if let Some(end) = matcher.match_at(start)? {
            let next = if end == start { end + 1 } else { end };
            let mut found = vec![Value::Integer(next as i64)];
            push_captures(args.lua, &matcher, (start, end), &mut found)?;
            return Ok(MultiValue::from_iter(found));
        }
    }
    one(Value::Integer(subject.len() as i64 + 1))
}

/// What `gsub` puts in the place of a match.
enum Replacement {
    Text(LuaString),
    Table(Table),
    Function(Function),
}

/// What `gsub` calls for a replacement.
struct Caller {
    protected: Protected,
    /// Looks an index up, `__index` and all.
    index: Function,
}

impl Caller {
    fn new(lua: &Lua) -> Result<Caller> {
        let index = lua.load("local table, key = ... return table[key]").set_name("=evenkeel");
        Ok(Caller { protected: Protected::new(lua)?, index: index.into_function()? })
    }

    fn get(&self, lua: &Lua, table: &Table, key: Value) -> Result<Value> {
        if table.metatable().is_none() {
            return table.raw_get(key);
        }
        let args = MultiValue::from_iter([Value::Table(table.clone()), key]);
        let values = self.protected.call(lua, &self.index, args)?;
        Ok(values.into_iter().next().unwrap_or(Value::Nil))
    }
}

fn gsub(args: &Arguments<'_>, state: &State, caller: &Caller) -> Result<MultiValue> {
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
            let to = (&mut result, &mut outside);
            replace((args, caller), &matcher, (at, end), &replacement, to)?;
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
    (args, caller): (&Arguments<'_>, &Caller),
    matcher: &Matcher<'_>,
    range: (usize, usize),
    replacement: &Replacement,
    (result, outside): (&mut Vec<u8>, &mut Outside<'_>),
) -> Result<()> {
    let lua = args.lua;
    let value = match replacement {
        Replacement::Text(text) => {
            return expand(&text.as_bytes(), matcher, range, (result, outside));
        }
        Replacement::Table(table) => {
            caller.get(lua, table, value_of(lua, &matcher.captured(0, range)?)?)?
        }
        Replacement::Function(function) => {
            let mut captures = Vec::new();
            push_captures(lua, matcher, range, &mut captures)?;
            let values = caller.protected.call(lua, function, MultiValue::from_iter(captures))?;
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
    (result, outside): (&mut Vec<u8>, &mut Outside<'_>),
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
        outside.is_now(result.len())?;
    }
    Ok(())
}
