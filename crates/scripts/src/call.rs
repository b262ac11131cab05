//! `redis.call` and `redis.pcall`, which scripts call more than anything else.
//!
//! ```text
//! arguments on Lua's stack ──▶ words ──▶ host ──▶ outcome ──▶ a plain reply: put on the stack
//!                                                    └──────▶ all else: `finish`
//! ```
//!
//! A function of mlua's own makes a value of each argument and each part of a reply, and guards every
//! allocation by a call of its own: that was half of what a short script cost. So arguments are read
//! and plain replies are written on the stack itself. What is not plain (refusals, replies in replies,
//! the end of the script, a panic) is left to a function of mlua's, which finds it in [`State`].
//!
//! *Safety.* Lua leaves a function by `longjmp` when memory runs out, and drops nothing on the way. So
//! whatever needs to be dropped lies in [`State`] when Lua may be asked to allocate, never in a frame.

use std::any::Any;
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use bytes::Bytes;
use mlua::{Lua, Result, Table, Value, ffi, lua_State};
use wire::resp::Reply;

use crate::convert;
use crate::host::Interrupt;
use crate::raise;
use crate::vm::State;

/// What a command of a script may have in all: what a client may send at once
/// (`client-query-buffer-limit`).
const COMMAND_BYTES_MAX: usize = 128 << 20;
const TOO_LONG: &str = "ERR Lua redis lib command arguments have more than 134217728 bytes";

/// The upvalues of the functions.
const STATE: c_int = ffi::lua_upvalueindex(1);
const FINISH: c_int = ffi::lua_upvalueindex(2);

/// What is under way.
#[derive(Default)]
pub(crate) struct Calling {
    /// Room for a command's words.
    words: Cell<Vec<Bytes>>,
    outcome: Cell<Option<Outcome>>,
    panic: Cell<Option<Panic>>,
}

type Panic = Box<dyn Any + Send>;

impl Calling {
    /// Forgets what a script left that was ended in between.
    pub(crate) fn forget(&self) {
        self.outcome.set(None);
    }

    /// Goes on with a panic of the host, if the script was ended for one.
    pub(crate) fn go_on(&self) {
        if let Some(panic) = self.panic.take() {
            resume_unwind(panic);
        }
    }
}

enum Outcome {
    Reply(Reply),
    Refused(&'static str),
    Interrupted(Interrupt),
    Panicked(Panic),
}

/// Sets `call` or `pcall`.
pub(crate) fn define(lua: &Lua, table: &Table, state: &Rc<State>, raises: bool) -> Result<()> {
    let shared = Rc::clone(state);
    let finish = lua.create_function(move |lua, ()| finish(lua, &shared, raises))?;
    let state = Rc::as_ptr(state).cast_mut().cast::<c_void>();
    // SAFETY: `finish` is what stands on the stack. It keeps `state` for as long as the new function
    // has it as its upvalue.
    let function: Value = unsafe {
        lua.exec_raw(finish, |lua| {
            ffi::lua_pushlightuserdata(lua, state);
            ffi::lua_insert(lua, -2);
            ffi::lua_pushcclosure(lua, run, 2);
        })?
    };
    table.raw_set(if raises { "call" } else { "pcall" }, function)
}

/// The function as Lua calls it.
///
/// # Safety
///
/// Its upvalues are those of [`define`].
unsafe extern "C-unwind" fn run(lua: *mut lua_State) -> c_int {
    // SAFETY: the first upvalue is the state, which the second one keeps. No reference into
    // `outcome` is held while anybody sets it: what Lua does meanwhile calls no function of ours.
    unsafe {
        let state = &*ffi::lua_touserdata(lua, STATE).cast::<State>();
        // A panic must not pass through Lua's frames.
        let outcome = catch_unwind(AssertUnwindSafe(|| ask(lua, state)));
        state.calling.outcome.set(Some(outcome.unwrap_or_else(Outcome::Panicked)));
        let is_done = match &*state.calling.outcome.as_ptr() {
            Some(Outcome::Reply(reply)) => put(lua, reply, state.resp3.get()),
            _ => false,
        };
        if is_done {
            state.calling.outcome.set(None);
        } else {
            ffi::lua_pushvalue(lua, FINISH);
            ffi::lua_call(lua, 0, 1);
        }
    }
    1
}

/// Has the host run the command that stands on the stack.
///
/// # Safety
///
/// `lua` is running a function, of which all that is on the stack are arguments.
unsafe fn ask(lua: *mut lua_State, state: &State) -> Outcome {
    let mut words = state.calling.words.take();
    words.clear();
    // SAFETY: only arguments are looked at, and none is converted.
    let read = unsafe { read_words(lua, &mut words) };
    let outcome = match read {
        Err(refusal) => Outcome::Refused(refusal),
        Ok(()) => match state.with_host(|host| host.call(&words)) {
            Some(Ok(reply)) => Outcome::Reply(reply),
            Some(Err(interrupt)) => Outcome::Interrupted(interrupt),
            None => Outcome::Refused("ERR redis.call can only be used while a script runs"),
        },
    };
    words.clear();
    state.calling.words.set(words);
    outcome
}

/// # Safety
///
/// As [`ask`].
unsafe fn read_words(
    lua: *mut lua_State,
    words: &mut Vec<Bytes>,
) -> std::result::Result<(), &'static str> {
    // SAFETY: the positions are those of arguments. A string is looked at, and not moved by Lua, for
    // as long as it stands on the stack.
    unsafe {
        let count = ffi::lua_gettop(lua);
        if count == 0 {
            return Err(convert::NO_WORDS);
        }
        let mut bytes = 0;
        for at in 1..=count {
            words.push(match ffi::lua_type(lua, at) {
                ffi::LUA_TSTRING => {
                    let mut length = 0;
                    let text = ffi::lua_tolstring(lua, at, &mut length);
                    bytes += length;
                    if bytes > COMMAND_BYTES_MAX {
                        return Err(TOO_LONG);
                    }
                    Bytes::copy_from_slice(std::slice::from_raw_parts(text.cast(), length))
                }
                ffi::LUA_TNUMBER => convert::word_of_number(ffi::lua_tonumber(lua, at)),
                _ => return Err(convert::NO_WORD),
            });
        }
    }
    Ok(())
}

/// Puts a reply on the stack, if it is plain: as [`convert::to_lua`] does, which knows all kinds.
///
/// # Safety
///
/// There are [`ffi::LUA_MINSTACK`] places free on the stack. The caller holds nothing that is to be
/// dropped, and neither do `reply`'s borrowers.
unsafe fn put(lua: *mut lua_State, reply: &Reply, resp3: bool) -> bool {
    // SAFETY: no more than three places are taken, and nothing lives here but references.
    unsafe {
        match reply {
            Reply::Bulks(items) => {
                ffi::lua_createtable(lua, capacity(items.len()), 0);
                for (item, at) in items.iter().zip(1..) {
                    put_text(lua, item);
                    ffi::lua_rawseti(lua, -2, at);
                }
                true
            }
            Reply::Array(items) if items.iter().all(is_single) => {
                ffi::lua_createtable(lua, capacity(items.len()), 0);
                for (item, at) in items.iter().zip(1..) {
                    put_single(lua, item, resp3);
                    ffi::lua_rawseti(lua, -2, at);
                }
                true
            }
            single if is_single(single) => {
                put_single(lua, single, resp3);
                true
            }
            _ => false,
        }
    }
}

fn is_single(reply: &Reply) -> bool {
    matches!(
        reply,
        Reply::Integer(_)
            | Reply::Bulk(_)
            | Reply::Null
            | Reply::NullArray
            | Reply::Simple(_)
            | Reply::Status(_)
    )
}

/// # Safety
///
/// As [`put`].
unsafe fn put_single(lua: *mut lua_State, reply: &Reply, resp3: bool) {
    // SAFETY: as said there.
    unsafe {
        match reply {
            Reply::Integer(number) => ffi::lua_pushnumber(lua, *number as f64),
            Reply::Bulk(text) => put_text(lua, text),
            Reply::Simple(text) => put_status(lua, text.as_bytes()),
            Reply::Status(text) => put_status(lua, text),
            _ if resp3 => ffi::lua_pushnil(lua),
            _ => ffi::lua_pushboolean(lua, 0),
        }
    }
}

/// # Safety
///
/// As [`put`].
unsafe fn put_status(lua: *mut lua_State, text: &[u8]) {
    // SAFETY: as said there.
    unsafe {
        ffi::lua_createtable(lua, 0, 1);
        put_text(lua, b"ok");
        put_text(lua, text);
        ffi::lua_rawset(lua, -3);
    }
}

/// Puts a string on the stack.
///
/// # Safety
///
/// There is a place free on the stack, and the caller holds nothing that is to be dropped.
pub(crate) unsafe fn put_text(lua: *mut lua_State, text: &[u8]) {
    // SAFETY: as said above; Lua copies the text.
    unsafe {
        ffi::lua_pushlstring(lua, text.as_ptr().cast(), text.len());
    }
}

/// Puts a list of strings on the stack.
///
/// # Safety
///
/// There are two places free on the stack, and the caller holds nothing that is to be dropped.
pub(crate) unsafe fn put_list(lua: *mut lua_State, items: &[Bytes]) {
    // SAFETY: as said above.
    unsafe {
        ffi::lua_createtable(lua, capacity(items.len()), 0);
        for (item, at) in items.iter().zip(1..) {
            put_text(lua, item);
            ffi::lua_rawseti(lua, -2, at);
        }
    }
}

fn capacity(items: usize) -> c_int {
    c_int::try_from(items).unwrap_or(c_int::MAX)
}

/// What is left to be done with an outcome.
fn finish(lua: &Lua, state: &State, raises: bool) -> Result<Value> {
    let refused = |line: &[u8]| match raises {
        true => Err(raise::line(line)),
        false => Ok(Value::Table(raise::error_table(lua, line)?)),
    };
    match state.calling.outcome.take() {
        Some(Outcome::Reply(Reply::Error(line))) => refused(&line),
        Some(Outcome::Reply(reply)) => convert::to_lua(lua, &reply, state.resp3.get()),
        Some(Outcome::Refused(line)) => refused(line.as_bytes()),
        Some(Outcome::Interrupted(interrupt)) => Err(state.interrupt(interrupt)),
        Some(Outcome::Panicked(panic)) => {
            // No script shall catch it.
            state.calling.panic.set(Some(panic));
            Err(state.interrupt(Interrupt::Suspended))
        }
        None => unreachable!("it is called with an outcome, and not known to scripts"),
    }
}
