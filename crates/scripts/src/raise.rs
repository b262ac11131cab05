//! Errors that the functions of a script's state raise, as the script is to see them.
//!
//! A Rust function can only raise an error of Rust's. It reaches the script's `pcall`, or the handler
//! at the script's end, as an opaque value; both ask [`reason`] what it stands for.

use std::fmt;
use std::sync::Arc;

use mlua::{Error, Function, Lua, MultiValue, RegistryKey, Value};

use crate::host::Interrupt;

/// The source of functions that are ours (`bootstrap.lua`).
const OURS: &str = "evenkeel";

/// What an error stands for.
#[derive(Clone, Debug)]
pub(crate) enum Raised {
    /// A text, with the place that caused it.
    Text(Vec<u8>),
    /// A table whose `err` is this line: what `redis.call` raises.
    Line(Vec<u8>),
    /// What a function of the script's raised.
    Value(Arc<RegistryKey>),
    /// The script is to end.
    Stop(Interrupt),
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raised::Text(text) | Raised::Line(text) => f.write_str(&String::from_utf8_lossy(text)),
            Raised::Value(_) => f.write_str("an error of the script's"),
            Raised::Stop(interrupt) => f.write_str(interrupt.text()),
        }
    }
}

impl std::error::Error for Raised {}

/// An error with a text, as `luaL_error` makes it: the place of the caller comes first.
pub(crate) fn text(lua: &Lua, message: impl fmt::Display) -> Error {
    Error::external(Raised::Text(format!("{}{message}", place(lua)).into_bytes()))
}

/// An error about an argument, as `luaL_argerror` words it.
pub(crate) fn argument(lua: &Lua, at: usize, function: &str, message: impl fmt::Display) -> Error {
    text(lua, format_args!("bad argument #{at} to '{function}' ({message})"))
}

/// An argument of the wrong type.
pub(crate) fn wrong_type(
    lua: &Lua,
    at: usize,
    function: &str,
    wanted: &str,
    got: Option<&Value>,
) -> Error {
    let got = got.map_or("no value", type_name);
    argument(lua, at, function, format_args!("{wanted} expected, got {got}"))
}

/// An error as Redis's own functions raise it: a table with a line of RESP in it.
pub(crate) fn line(line: impl Into<Vec<u8>>) -> Error {
    Error::external(Raised::Line(line.into()))
}

/// The error of Lua's when there is no memory left.
pub(crate) fn out_of_memory() -> Error {
    Error::external(Raised::Text(b"not enough memory".to_vec()))
}

/// Ends the script.
pub(crate) fn stop(interrupt: Interrupt) -> Error {
    Error::external(Raised::Stop(interrupt))
}

/// Lua's name of a value's type.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(_) => "boolean",
        Value::Integer(_) | Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Table(_) => "table",
        Value::Function(_) => "function",
        Value::Thread(_) => "thread",
        _ => "userdata",
    }
}

/// What an error that Lua caught stands for; `None` if it is none of ours.
pub(crate) fn raised(error: &Error) -> Option<&Raised> {
    match error {
        Error::CallbackError { cause, .. } => raised(cause),
        Error::WithContext { cause, .. } => raised(cause),
        Error::ExternalError(error) => error.downcast_ref(),
        _ => None,
    }
}

/// The value that a script finds instead of an error of Rust's; any other value stays what it is.
pub(crate) fn reason(lua: &Lua, value: Value) -> mlua::Result<Value> {
    let Value::Error(error) = &value else { return Ok(value) };
    match raised(error) {
        Some(Raised::Text(text)) => Ok(Value::String(lua.create_string(text)?)),
        Some(Raised::Line(line)) => error_table(lua, line).map(Value::Table),
        Some(Raised::Value(key)) => lua.registry_value(key),
        Some(Raised::Stop(interrupt)) => {
            error_table(lua, format!("ERR {}", interrupt.text()).as_bytes()).map(Value::Table)
        }
        None => Ok(Value::String(lua.create_string(first_line(error))?)),
    }
}

/// What Lua says of an error of its own, or the host's library, in one line.
pub(crate) fn first_line(error: &Error) -> String {
    match error {
        Error::CallbackError { cause, .. } | Error::WithContext { cause, .. } => first_line(cause),
        Error::MemoryError(_) => "not enough memory".to_owned(),
        error => error.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}

/// Whether an error is this text of a script's or of Lua's own.
pub(crate) fn is_text(lua: &Lua, error: &Error, text: &str) -> bool {
    let Some(Raised::Value(key)) = raised(error) else { return false };
    let value = lua.registry_value::<Value>(key);
    matches!(value, Ok(Value::String(found)) if found.as_bytes() == text.as_bytes())
}

/// Calls functions of the script's for a function of Rust's: what they raise comes out of it as it was.
pub(crate) struct Protected {
    pcall: Function,
}

impl Protected {
    /// To be made before scripts' own `pcall` takes the place of Lua's.
    pub(crate) fn new(lua: &Lua) -> mlua::Result<Protected> {
        Ok(Protected { pcall: lua.globals().raw_get("pcall")? })
    }

    /// *Errors*: what the function raises.
    pub(crate) fn call(
        &self,
        lua: &Lua,
        function: &Function,
        mut args: MultiValue,
    ) -> mlua::Result<MultiValue> {
        args.push_front(Value::Function(function.clone()));
        let mut values: MultiValue = self.pcall.call(args)?;
        let is_done = values.pop_front() == Some(Value::Boolean(true));
        if is_done {
            return Ok(values);
        }
        match values.pop_front().unwrap_or(Value::Nil) {
            Value::Error(error) => Err(*error),
            value => {
                let key = Arc::new(lua.create_registry_value(value)?);
                Err(Error::external(Raised::Value(key)))
            }
        }
    }
}

/// What `redis.pcall` answers of a refusal.
pub(crate) fn error_table(lua: &Lua, line: &[u8]) -> mlua::Result<mlua::Table> {
    let table = lua.create_table_with_capacity(0, 2)?;
    table.raw_set("err", lua.create_string(line)?)?;
    table.raw_set("ignore_error_stats_update", true)?;
    Ok(table)
}

/// `user_script:1: `, if the caller is a line of a script.
fn place(lua: &Lua) -> String {
    for level in 1.. {
        let found = lua.inspect_stack(level, |debug| {
            let (line, source) = (debug.current_line(), debug.source());
            let name = source.short_src.unwrap_or_default().into_owned();
            (name != OURS).then(|| line.map(|line| format!("{name}:{line}: ")).unwrap_or_default())
        });
        match found {
            // Part of a function of ours.
            Some(None) => {}
            Some(Some(place)) => return place,
            None => break,
        }
    }
    String::new()
}
