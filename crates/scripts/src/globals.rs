//! Functions of Lua's base library that work around what a script must not do: change a shared
//! table, or load what is compiled already (nobody checks bytecode).

use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, Result, Table, Value};

use crate::arguments::{Arguments, define, one};
use crate::outside::Outside;
use crate::vm::State;
use crate::{compile, raise};

/// What a binary chunk begins with.
const BYTECODE_MARK: u8 = 0x1b;
const READ_ONLY: &[u8] = b"ERR Attempt to modify a readonly table";

pub(crate) fn functions(lua: &Lua, state: &Rc<State>) -> Result<Table> {
    let table = lua.create_table()?;
    let next: Function = lua.globals().raw_get("next")?;
    let with = |run: fn(&Arguments<'_>, &State) -> Result<MultiValue>| {
        let state = Rc::clone(state);
        move |args: Arguments<'_>| run(&args, &state)
    };
    let state = Rc::clone(state);
    define(lua, &table, "rawset", with_state(&state, rawset))?;
    define(lua, &table, "setmetatable", with_state(&state, setmetatable))?;
    define(lua, &table, "collectgarbage", with(collect))?;
    define(lua, &table, "loadstring", |args| loadstring(&args))?;
    define(lua, &table, "load", with(load))?;
    define(lua, &table, "setfenv", {
        let setfenv: Function = lua.globals().raw_get("setfenv")?;
        move |args| {
            // Level 0 is the whole state.
            if matches!(args.get(1), Some(Value::Integer(0))) {
                return args.refuse(1, "level must be positive");
            }
            // Levels are counted from here, where Lua counts them from its own function.
            let mut values = args.values.clone();
            if let Some(Value::Integer(level)) = values.front_mut() {
                *level += 1;
            }
            setfenv.call(values)
        }
    })?;
    define(lua, &table, "pairs", move |args| {
        let Some(Value::Table(given)) = args.get(1) else {
            return Err(raise::wrong_type(args.lua, 1, "pairs", "table", args.get(1)));
        };
        let shown = match real(&state, given)? {
            Some(real) => copy(args.lua, &real)?,
            None => given.clone(),
        };
        let values = [Value::Function(next.clone()), Value::Table(shown), Value::Nil];
        Ok(MultiValue::from_iter(values))
    })?;
    Ok(table)
}

fn with_state(
    state: &Rc<State>,
    run: fn(&Arguments<'_>, &State) -> Result<MultiValue>,
) -> impl Fn(Arguments<'_>) -> Result<MultiValue> + 'static {
    let state = Rc::clone(state);
    move |args| run(&args, &state)
}

/// The table behind a stand-in.
fn real(state: &State, table: &Table) -> Result<Option<Table>> {
    match &*state.proxied.borrow() {
        Some(proxied) => proxied.raw_get(table),
        None => Ok(None),
    }
}

fn copy(lua: &Lua, table: &Table) -> Result<Table> {
    let copy = lua.create_table()?;
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        copy.raw_set(key, value)?;
    }
    Ok(copy)
}

fn table_at<'a>(args: &'a Arguments<'_>, at: usize) -> Result<&'a Table> {
    match args.get(at) {
        Some(Value::Table(table)) => Ok(table),
        other => Err(raise::wrong_type(args.lua, at, args.function, "table", other)),
    }
}

fn rawset(args: &Arguments<'_>, state: &State) -> Result<MultiValue> {
    let table = table_at(args, 1)?;
    let (Some(key), Some(value)) = (args.get(2), args.get(3)) else {
        let at = args.values.len() + 1;
        return args.refuse(at, "value expected");
    };
    if real(state, table)?.is_some() {
        return Err(raise::line(READ_ONLY));
    }
    match key {
        Value::Nil => return Err(raise::text(args.lua, "table index is nil")),
        Value::Number(number) if number.is_nan() => {
            return Err(raise::text(args.lua, "table index is NaN"));
        }
        key => table.raw_set(key.clone(), value.clone())?,
    }
    one(Value::Table(table.clone()))
}

fn setmetatable(args: &Arguments<'_>, state: &State) -> Result<MultiValue> {
    let table = table_at(args, 1)?;
    let metatable = match args.get(2) {
        Some(Value::Nil) => None,
        Some(Value::Table(metatable)) => Some(metatable.clone()),
        _ => return args.refuse(2, "nil or table expected"),
    };
    if real(state, table)?.is_some() {
        return Err(raise::line(READ_ONLY));
    }
    if let Some(present) = table.metatable()
        && !present.raw_get::<Value>("__metatable")?.is_nil()
    {
        return Err(raise::text(args.lua, "cannot change a protected metatable"));
    }
    table.set_metatable(metatable)?;
    one(Value::Table(table.clone()))
}

/// Collecting is the state's own business: a script must not switch it off for those after it.
fn collect(args: &Arguments<'_>, _: &State) -> Result<MultiValue> {
    let what = match args.get(1) {
        None | Some(Value::Nil) => "collect".to_owned(),
        Some(_) => args.string(1)?.to_string_lossy(),
    };
    one(match what.as_str() {
        "count" => Value::Number(args.lua.used_memory() as f64 / 1024.0),
        "collect" => {
            args.lua.gc_collect()?;
            Value::Integer(0)
        }
        "step" => Value::Boolean(args.lua.gc_step()?),
        "stop" | "restart" | "setpause" | "setstepmul" => Value::Integer(0),
        other => return args.refuse(1, format_args!("invalid option '{other}'")),
    })
}

fn loadstring(args: &Arguments<'_>) -> Result<MultiValue> {
    let code = args.string(1)?;
    let code = code.as_bytes();
    let name = match args.get(2) {
        None | Some(Value::Nil) => code.to_vec(),
        Some(_) => args.string(2)?.as_bytes().to_vec(),
    };
    compile(args.lua, &code, &name)
}

fn load(args: &Arguments<'_>, state: &State) -> Result<MultiValue> {
    let Some(Value::Function(reader)) = args.get(1) else {
        return Err(raise::wrong_type(args.lua, 1, "load", "function", args.get(1)));
    };
    let name = match args.get(2) {
        None | Some(Value::Nil) => b"=(load)".to_vec(),
        Some(_) => args.string(2)?.as_bytes().to_vec(),
    };
    let (mut code, mut outside) = (Vec::new(), Outside::new(state));
    loop {
        outside.is_now(code.len())?;
        match reader.call::<Value>(())? {
            Value::Nil => break,
            Value::String(part) if part.as_bytes().is_empty() => break,
            Value::String(part) => code.extend_from_slice(&part.as_bytes()),
            _ => return Err(raise::text(args.lua, "reader function must return a string")),
        }
    }
    compile(args.lua, &code, &name)
}

fn compile(lua: &Lua, code: &[u8], name: &[u8]) -> Result<MultiValue> {
    let refused = if code.first() == Some(&BYTECODE_MARK) {
        b"bytecode is not loaded".to_vec()
    } else {
        match compile::compile(lua, code, name)? {
            Ok(function) => return one(Value::Function(function)),
            Err(why) => why,
        }
    };
    Ok(MultiValue::from_iter([Value::Nil, Value::String(lua.create_string(refused)?)]))
}

/// `os`, of which there is only the clock.
pub(crate) fn os(lua: &Lua) -> Result<Table> {
    let table = lua.create_table()?;
    let started = std::time::Instant::now();
    define(lua, &table, "clock", move |_| one(Value::Number(started.elapsed().as_secs_f64())))?;
    Ok(table)
}
