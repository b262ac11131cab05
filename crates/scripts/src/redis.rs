//! The table `redis`, by which a script speaks to whoever runs it.

use std::rc::Rc;

use bytes::Bytes;
use mlua::{Lua, MultiValue, Result, Table, Value};

use crate::arguments::{Arguments, define, one};
use crate::cache::sha1_hex;
use crate::call;
use crate::convert;
use crate::library::FunctionInfo;
use crate::raise;
use crate::shebang::{Flags, is_name};
use crate::vm::{Registered, State};

/// The version of Redis that scripts are told of.
pub const REDIS_VERSION: &str = "7.4.0";
const REDIS_VERSION_NUMBER: i64 = 0x0007_0400;

const LOG_LEVELS: [(&str, u8); 4] =
    [("LOG_DEBUG", 0), ("LOG_VERBOSE", 1), ("LOG_NOTICE", 2), ("LOG_WARNING", 3)];
const REPLICATION: [(&str, i64); 5] =
    [("REPL_NONE", 0), ("REPL_AOF", 1), ("REPL_SLAVE", 2), ("REPL_REPLICA", 2), ("REPL_ALL", 3)];

type Run = fn(&Arguments<'_>, &State) -> Result<MultiValue>;

/// `redis` as scripts and functions see it.
pub(crate) fn library(lua: &Lua, state: &Rc<State>) -> Result<Table> {
    let table = basic(lua, state)?;
    call::define(lua, &table, state, true)?;
    call::define(lua, &table, state, false)?;
    let runs: [(&'static str, Run); 8] = [
        ("error_reply", error_reply),
        ("status_reply", status_reply),
        ("sha1hex", sha1hex),
        ("setresp", setresp),
        ("set_repl", set_repl),
        ("acl_check_cmd", acl_check_cmd),
        ("breakpoint", |_, _| one(Value::Boolean(false))),
        ("debug", |_, _| Ok(MultiValue::new())),
    ];
    for (name, run) in runs {
        let state = Rc::clone(state);
        define(lua, &table, name, move |args| run(&args, &state))?;
    }
    // What a script did is replicated as effects, always.
    define(lua, &table, "replicate_commands", |_| one(Value::Boolean(true)))?;
    for (name, value) in REPLICATION {
        table.raw_set(name, value)?;
    }
    Ok(table)
}

/// `redis` as the code of a library sees it while it is loaded.
pub(crate) fn of_loading(lua: &Lua, state: &Rc<State>) -> Result<Table> {
    let table = basic(lua, state)?;
    let state = Rc::clone(state);
    define(lua, &table, "register_function", move |args| {
        let registered = register_function(&args)?;
        let mut loading = state.loading.borrow_mut();
        let Some(functions) = &mut *loading else {
            return Err(raise::line(
                "ERR redis.register_function can only be called on FUNCTION LOAD command",
            ));
        };
        if !is_name(&registered.info.name) {
            return Err(raise::line(commands::CommandError::FUNCTION_NAME.to_string()));
        }
        if functions.iter().any(|known| known.info.name == registered.info.name) {
            return Err(raise::line("ERR Function already exists in the library"));
        }
        functions.push(registered);
        Ok(MultiValue::new())
    })?;
    Ok(table)
}

fn basic(lua: &Lua, state: &Rc<State>) -> Result<Table> {
    let table = lua.create_table()?;
    let state = Rc::clone(state);
    define(lua, &table, "log", move |args| log(&args, &state))?;
    for (name, level) in LOG_LEVELS {
        table.raw_set(name, level)?;
    }
    table.raw_set("REDIS_VERSION", REDIS_VERSION)?;
    table.raw_set("REDIS_VERSION_NUM", REDIS_VERSION_NUMBER)?;
    Ok(table)
}

/// The words of a command.
fn command(args: &Arguments<'_>) -> std::result::Result<Vec<Bytes>, &'static str> {
    if args.values.is_empty() {
        return Err(convert::NO_WORDS);
    }
    let words: Option<Vec<Bytes>> = args.values.iter().map(convert::argument).collect();
    words.ok_or(convert::NO_WORD)
}

/// A string in a table of one field; what is no string is refused by the same shape.
fn single(
    args: &Arguments<'_>,
    field: &str,
    text: impl Fn(&[u8]) -> Vec<u8>,
) -> Result<MultiValue> {
    let (Some(Value::String(given)), 1) = (args.get(1), args.values.len()) else {
        let line = b"ERR wrong number or type of arguments";
        return one(Value::Table(raise::error_table(args.lua, line)?));
    };
    let table = args.lua.create_table_with_capacity(0, 1)?;
    table.raw_set(field, args.lua.create_string(text(&given.as_bytes()))?)?;
    one(Value::Table(table))
}

fn error_reply(args: &Arguments<'_>, _: &State) -> Result<MultiValue> {
    single(args, "err", |given| {
        let text = given.strip_prefix(b"-").unwrap_or(given);
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let (code, message) = match text.iter().position(|byte| *byte == b' ') {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (&b"ERR"[..], text),
        };
        let is_line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let start = message.iter().take_while(|byte| is_line_end(byte)).count();
        let message = &message[start..];
        let end = message.iter().rposition(|byte| !is_line_end(byte)).map_or(0, |at| at + 1);
        [code, b" ", &message[..end]].concat()
    })
}

fn status_reply(args: &Arguments<'_>, _: &State) -> Result<MultiValue> {
    single(args, "ok", <[u8]>::to_vec)
}

fn sha1hex(args: &Arguments<'_>, _: &State) -> Result<MultiValue> {
    if args.values.len() != 1 {
        return Err(raise::line("ERR wrong number of arguments"));
    }
    let text = match args.get(1) {
        Some(Value::String(_) | Value::Number(_) | Value::Integer(_)) => {
            args.string(1)?.as_bytes().to_vec()
        }
        _ => Vec::new(),
    };
    one(Value::String(args.lua.create_string(sha1_hex(&text))?))
}

/// A number as `lua_tonumber` reads it: what is none is 0.
fn number(args: &Arguments<'_>, at: usize) -> i64 {
    args.integer(at).unwrap_or(0)
}

fn setresp(args: &Arguments<'_>, state: &State) -> Result<MultiValue> {
    if args.values.len() != 1 {
        return Err(raise::line("ERR redis.setresp() requires one argument."));
    }
    match number(args, 1) {
        version @ (2 | 3) => state.resp3.set(version == 3),
        _ => return Err(raise::line("ERR RESP version must be 2 or 3.")),
    }
    Ok(MultiValue::new())
}

/// Checked, and without effect: there is nothing that could be left out.
fn set_repl(args: &Arguments<'_>, _: &State) -> Result<MultiValue> {
    if args.values.len() != 1 {
        return Err(raise::line("ERR redis.set_repl() requires one argument."));
    }
    if number(args, 1) & !3 != 0 {
        return Err(raise::line(
            "ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.",
        ));
    }
    Ok(MultiValue::new())
}

fn acl_check_cmd(args: &Arguments<'_>, state: &State) -> Result<MultiValue> {
    let words = command(args).map_err(raise::line)?;
    match state.with_host(|host| host.may_call(&words)).flatten() {
        Some(may) => one(Value::Boolean(may)),
        None => Err(raise::line("ERR Invalid command passed to redis.acl_check_cmd()")),
    }
}

fn log(args: &Arguments<'_>, state: &State) -> Result<MultiValue> {
    if args.values.len() < 2 {
        return Err(raise::line("ERR redis.log() requires two arguments or more."));
    }
    let Ok(level) = args.integer(1) else {
        return Err(raise::line("ERR First argument must be a number (log level)."));
    };
    let Some(level) = u8::try_from(level).ok().filter(|level| *level <= 3) else {
        return Err(raise::line("ERR Invalid log level."));
    };
    let mut line = Vec::new();
    for at in 2..=args.values.len() {
        if let Ok(text) = args.string(at) {
            if at > 2 {
                line.push(b' ');
            }
            line.extend_from_slice(&text.as_bytes());
        }
    }
    state.with_host(|host| host.log(level, &line));
    Ok(MultiValue::new())
}

fn register_function(args: &Arguments<'_>) -> Result<Registered> {
    let refuse = |text: &str| Err(raise::line(format!("ERR {text}")));
    match (args.get(1), args.values.len()) {
        (Some(Value::Table(named)), 1) => register_named(args, named),
        (_, 1) => refuse(
            "calling redis.register_function with a single argument is only applicable to Lua \
             table (representing named arguments).",
        ),
        (Some(name), 2) => {
            let Some(name) = convert::argument(name) else {
                return refuse("first argument to redis.register_function must be a string");
            };
            let Some(Value::Function(callback)) = args.get(2) else {
                return refuse("second argument to redis.register_function must be a function");
            };
            let info = FunctionInfo { name, description: None, flags: Flags::default() };
            Ok(Registered { info, callback: callback.clone() })
        }
        _ => refuse("wrong number of arguments to redis.register_function"),
    }
}

fn register_named(args: &Arguments<'_>, named: &Table) -> Result<Registered> {
    let refuse = |text: &str| Err(raise::line(format!("ERR {text}")));
    let (mut name, mut description, mut callback) = (None, None, None);
    let mut flags = Flags::default();
    for pair in named.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let Some(key) = convert::argument(&key) else {
            return refuse("named argument key given to redis.register_function is not a string");
        };
        match key.to_ascii_lowercase().as_slice() {
            b"function_name" => match convert::argument(&value) {
                Some(text) => name = Some(text),
                None => {
                    return refuse(
                        "function_name argument given to redis.register_function must be a string",
                    );
                }
            },
            b"description" => match convert::argument(&value) {
                Some(text) => description = Some(text),
                None => {
                    return refuse(
                        "description argument given to redis.register_function must be a string",
                    );
                }
            },
            b"callback" => match value {
                Value::Function(function) => callback = Some(function),
                _ => {
                    return refuse(
                        "callback argument given to redis.register_function must be a function",
                    );
                }
            },
            b"flags" => match value {
                Value::Table(list) => flags = read_flags(args, &list)?,
                _ => {
                    return refuse(
                        "flags argument to redis.register_function must be a table representing \
                         function flags",
                    );
                }
            },
            _ => return refuse("unknown argument given to redis.register_function"),
        }
    }
    let Some(name) = name else {
        return refuse("redis.register_function must get a function name argument");
    };
    let Some(callback) = callback else {
        return refuse("redis.register_function must get a callback argument");
    };
    Ok(Registered { info: FunctionInfo { name, description, flags }, callback })
}

fn read_flags(_: &Arguments<'_>, list: &Table) -> Result<Flags> {
    let mut flags = Flags::default();
    for at in 1.. {
        let value: Value = list.raw_get(at)?;
        if value.is_nil() {
            break;
        }
        let flag = match &value {
            Value::String(name) => Flags::named(&name.as_bytes().to_ascii_lowercase()),
            _ => None,
        };
        flags = flags.and(flag.ok_or_else(|| raise::line("ERR unknown flag given"))?);
    }
    Ok(flags)
}
