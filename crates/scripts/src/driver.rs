//! One run of a script or a function, over Lua's stack.
//!
//! ```text
//! KEYS and ARGV set ──▶ script, its errors caught by the handler of `bootstrap.lua`
//!    ──▶ stand-ins of shared tables looked through ──▶ whether it ended well, and its result
//! ```
//!
//! It could be written in Lua, and was; most scripts are so short that it took longer than they do. For the
//! same reason it is called as Lua's own functions are, and a result that is plain is read where Lua left it:
//! mlua makes two functions for each call, and a value of each thing that it takes or gives.
//!
//! *Safety.* Lua leaves a function by `longjmp` when memory runs out or a script is interrupted, and drops
//! nothing on the way. So nothing in here is to be dropped while Lua may allocate, and Lua allocates nothing
//! outside of a protected call.

use std::cell::Cell;
use std::ffi::{c_int, c_void};

use bytes::Bytes;
use mlua::{Function, Lua, Table, Value, ffi, lua_State};
use wire::resp::Reply;

use crate::call::{put_list, put_text};
use crate::convert;
use crate::vm::State;

/// What `bootstrap.lua` made for it.
pub(crate) struct Parts {
    /// The globals that scripts see.
    pub(crate) real: Table,
    pub(crate) handler: Function,
    /// The stand-ins of shared tables, a list.
    pub(crate) proxies: Table,
    /// Empties them.
    pub(crate) tidy: Function,
}

/// See the module's text.
pub(crate) struct Driver {
    /// The state, as long as its [`Lua`] lives.
    raw: *mut lua_State,
    /// Where the registry has [`begin`], and what is to be handed to mlua.
    begin: c_int,
    handed: c_int,
    /// Empties the stand-ins of shared tables.
    pub(crate) tidy: Function,
    /// What may be run, by its place.
    functions: Table,
    free: Vec<i64>,
    places: i64,
}

/// Where a driver keeps a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place(i64);

/// Where the keys and arguments are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Takes {
    /// In `KEYS` and `ARGV`: by a script.
    Globals,
    /// In its two parameters: by a function, which has no such globals.
    Parameters,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Well, with something plain.
    Reply(Reply),
    /// Well, with this.
    Value(Value),
    /// Not well: what the handler made of its error.
    Failed(Value),
}

/// What is asked of [`begin`], and what it found.
struct Ask<'a> {
    takes: Takes,
    place: Place,
    keys: &'a [Bytes],
    args: &'a [Bytes],
    wrote_raw: &'a Cell<bool>,
    found: Cell<Found>,
}

/// What lies on the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    Result,
    /// The text of a result that is a status.
    Status,
    Error,
}

/// A longer string is no plain result: whether there is room for it is to be asked first.
const PLAIN_BYTES_MAX: usize = 64 << 10;

/// The upvalues of [`begin`].
const REAL: c_int = ffi::lua_upvalueindex(1);
const HANDLER: c_int = ffi::lua_upvalueindex(2);
const PROXIES: c_int = ffi::lua_upvalueindex(3);
const TIDY: c_int = ffi::lua_upvalueindex(4);
const FUNCTIONS: c_int = ffi::lua_upvalueindex(5);
const KEYS: c_int = ffi::lua_upvalueindex(6);
const ARGV: c_int = ffi::lua_upvalueindex(7);
const ERR: c_int = ffi::lua_upvalueindex(8);
const OK: c_int = ffi::lua_upvalueindex(9);

impl Driver {
    /// A driver of this state, which it must not outlive.
    ///
    /// *Errors*: there is not enough memory.
    pub(crate) fn new(lua: &Lua, parts: Parts) -> mlua::Result<Driver> {
        let Parts { real, handler, proxies, tidy } = parts;
        let functions = lua.create_table()?;
        let (mut begin_at, mut handed, mut raw) = (0, 0, std::ptr::null_mut());
        let upvalues = (real, handler, proxies, &tidy, &functions);
        // SAFETY: the upvalues are on the stack, and nothing is to be dropped.
        unsafe {
            lua.exec_raw::<()>(upvalues, |lua| {
                for name in [&b"KEYS"[..], b"ARGV", b"err", b"ok"] {
                    put_text(lua, name);
                }
                ffi::lua_pushcclosure(lua, begin, 9);
                begin_at = ffi::luaL_ref(lua, ffi::LUA_REGISTRYINDEX);
                ffi::lua_pushboolean(lua, 0);
                handed = ffi::luaL_ref(lua, ffi::LUA_REGISTRYINDEX);
                raw = lua;
            })?;
        }
        Ok(Driver { raw, begin: begin_at, handed, tidy, functions, free: Vec::new(), places: 0 })
    }

    /// Keeps a function, to be run.
    ///
    /// *Errors*: there is not enough memory.
    pub(crate) fn keep(&mut self, function: &Function) -> mlua::Result<Place> {
        let at = self.free.last().copied().unwrap_or(self.places + 1);
        self.functions.raw_set(at, function)?;
        if self.free.pop().is_none() {
            self.places = at;
        }
        Ok(Place(at))
    }

    /// Keeps it no longer.
    pub(crate) fn let_go(&mut self, Place(at): Place) {
        // To set what is there already takes no memory.
        let _ = self.functions.raw_set(at, Value::Nil);
        self.free.push(at);
    }

    /// Runs what is kept at a place.
    ///
    /// *Errors*: there is not enough memory to begin, or the run was interrupted at its end.
    pub(crate) fn run(
        &self,
        lua: &Lua,
        (takes, place): (Takes, Place),
        (keys, args): (&[Bytes], &[Bytes]),
        state: &State,
    ) -> mlua::Result<Ended> {
        let (wrote_raw, found) = (&state.wrote_raw, Cell::new(Found::Error));
        let ask = Ask { takes, place, keys, args, wrote_raw, found };
        let raw = self.raw;
        // SAFETY: `lua` keeps the state, which runs nothing now and so has room for three values. What is
        // called here outside of `lua_pcall` allocates nothing: it puts down what is there already.
        unsafe {
            ffi::lua_rawgeti(raw, ffi::LUA_REGISTRYINDEX, self.begin.into());
            ffi::lua_pushlightuserdata(raw, std::ptr::from_ref(&ask).cast_mut().cast::<c_void>());
            let status = ffi::lua_pcall(raw, 1, 1, 0);
            if status == ffi::LUA_OK
                && let Some(reply) = plain(raw, ask.found.get(), state)
            {
                ffi::lua_settop(raw, -2);
                return Ok(Ended::Reply(reply));
            }
            ffi::lua_rawseti(raw, ffi::LUA_REGISTRYINDEX, self.handed.into());
            let value = self.take_handed(lua, status)?;
            Ok(if ask.found.get() == Found::Error {
                Ended::Failed(value)
            } else {
                Ended::Value(value)
            })
        }
    }

    /// What was handed to mlua, or the error that it is.
    ///
    /// # Safety
    ///
    /// The status is one of `lua_pcall`, of which that is the result.
    unsafe fn take_handed(&self, lua: &Lua, status: c_int) -> mlua::Result<Value> {
        let handed = self.handed.into();
        if status == ffi::LUA_ERRMEM {
            return Err(mlua::Error::MemoryError("not enough memory".to_owned()));
        }
        // SAFETY: nothing is to be dropped, and the place in the registry is there already.
        unsafe {
            lua.exec_raw((), |lua| {
                ffi::lua_rawgeti(lua, ffi::LUA_REGISTRYINDEX, handed);
                ffi::lua_pushboolean(lua, 0);
                ffi::lua_rawseti(lua, ffi::LUA_REGISTRYINDEX, handed);
                if status != ffi::LUA_OK {
                    ffi::lua_error(lua);
                }
            })
        }
    }
}

/// The reply that is on top of the stack, if it is plain: as [`convert::from_lua`] has it, which knows all
/// kinds.
///
/// # Safety
///
/// There is something on the stack.
unsafe fn plain(lua: *mut lua_State, found: Found, state: &State) -> Option<Reply> {
    if found == Found::Error {
        return None;
    }
    // SAFETY: nothing is converted. A string stays where it is as long as it is on the stack.
    unsafe {
        Some(match ffi::lua_type(lua, -1) {
            ffi::LUA_TNIL => Reply::Null,
            ffi::LUA_TBOOLEAN => match ffi::lua_toboolean(lua, -1) != 0 {
                value if state.resp3.get() => Reply::Boolean(value),
                true => Reply::Integer(1),
                false => Reply::Null,
            },
            ffi::LUA_TNUMBER => Reply::Integer(convert::truncated(ffi::lua_tonumber(lua, -1))),
            ffi::LUA_TSTRING => {
                let mut length = 0;
                let text = ffi::lua_tolstring(lua, -1, &mut length);
                let text = std::slice::from_raw_parts(text.cast(), length);
                match found {
                    Found::Status => Reply::Status(convert::up_to_nul(text)),
                    _ if length > PLAIN_BYTES_MAX => return None,
                    _ => Reply::Bulk(Bytes::copy_from_slice(text)),
                }
            }
            _ => return None,
        })
    }
}

/// The function that is called for a run: takes an [`Ask`], and leaves the result.
///
/// # Safety
///
/// Its upvalues are those of [`Driver::new`], and the ask outlives the call.
unsafe extern "C-unwind" fn begin(lua: *mut lua_State) -> c_int {
    // SAFETY: as said above. No more than five places are taken.
    unsafe {
        let ask = &*ffi::lua_touserdata(lua, 1).cast::<Ask<'_>>();
        let Ask { takes, place: Place(place), keys, args, .. } = *ask;
        let is_function = takes == Takes::Parameters;
        set_globals(lua, (!is_function).then_some((keys, args)));
        ffi::lua_settop(lua, 0);
        ffi::lua_pushvalue(lua, HANDLER);
        ffi::lua_rawgeti(lua, FUNCTIONS, place);
        if is_function {
            put_list(lua, keys);
            put_list(lua, args);
        }
        let status = ffi::lua_pcall(lua, if is_function { 2 } else { 0 }, 1, 1);
        if ask.wrote_raw.take() && is_dirty(lua) {
            ffi::lua_pushvalue(lua, TIDY);
            ffi::lua_call(lua, 0, 0);
        }
        ask.found.set(if status == ffi::LUA_OK { look(lua) } else { Found::Error });
    }
    1
}

/// Looks at a result. Of a status, its text is put in its place.
///
/// # Safety
///
/// It is on top of the stack of [`begin`].
unsafe fn look(lua: *mut lua_State) -> Found {
    // SAFETY: two places are taken, and only fields that are there are looked at.
    unsafe {
        if ffi::lua_type(lua, -1) != ffi::LUA_TTABLE {
            return Found::Result;
        }
        for (name, found) in [(ERR, Found::Result), (OK, Found::Status)] {
            ffi::lua_pushvalue(lua, name);
            ffi::lua_rawget(lua, -2);
            if ffi::lua_type(lua, -1) == ffi::LUA_TSTRING {
                if found == Found::Status {
                    ffi::lua_replace(lua, -2);
                } else {
                    ffi::lua_settop(lua, -2);
                }
                return found;
            }
            ffi::lua_settop(lua, -2);
        }
    }
    Found::Result
}

/// Sets `KEYS` and `ARGV`, or takes them away.
///
/// # Safety
///
/// The upvalues are those of [`begin`], and the caller holds nothing that is to be dropped.
unsafe fn set_globals(lua: *mut lua_State, globals: Option<(&[Bytes], &[Bytes])>) {
    let (keys, args) = globals.unzip();
    // SAFETY: as said above. Three places are taken.
    unsafe {
        for (name, list) in [(KEYS, keys), (ARGV, args)] {
            ffi::lua_pushvalue(lua, name);
            match list {
                Some(list) => put_list(lua, list),
                None => ffi::lua_pushnil(lua),
            }
            ffi::lua_rawset(lua, REAL);
        }
    }
}

/// Whether there is anything in a stand-in: `table.insert` passes by what refuses writes.
///
/// # Safety
///
/// As [`set_globals`].
unsafe fn is_dirty(lua: *mut lua_State) -> bool {
    // SAFETY: as said there. `lua_next` finds the key nil in any table.
    unsafe {
        for at in 1.. {
            ffi::lua_rawgeti(lua, PROXIES, at);
            if ffi::lua_type(lua, -1) == ffi::LUA_TNIL {
                ffi::lua_pop(lua, 1);
                return false;
            }
            ffi::lua_pushnil(lua);
            let filled = ffi::lua_next(lua, -2) != 0;
            ffi::lua_pop(lua, if filled { 3 } else { 1 });
            if filled {
                return true;
            }
        }
    }
    unreachable!("a list ends")
}
