//! One run of a script or a function, over Lua's stack.
//!
//! ```text
//! KEYS and ARGV set ──▶ script, its errors caught by the handler of `bootstrap.lua`
//!    ──▶ stand-ins of shared tables looked through ──▶ whether it ended well, and its result
//! ```
//!
//! It could be written in Lua, and was; most scripts are so short that it took longer than they do.

use std::cell::Cell;
use std::ffi::c_int;

use bytes::Bytes;
use mlua::{Function, Lua, Table, Value, ffi, lua_State};

use crate::call::{put_list, put_text};

/// What `bootstrap.lua` made for it.
pub(crate) struct Driver {
    /// The globals that scripts see.
    pub(crate) real: Table,
    pub(crate) handler: Function,
    /// The stand-ins of shared tables, a list.
    pub(crate) proxies: Table,
    /// Empties them.
    pub(crate) tidy: Function,
}

/// Where the keys and arguments are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Takes {
    /// In `KEYS` and `ARGV`: by a script.
    Globals,
    /// In its two parameters: by a function, which has no such globals.
    Parameters,
}

/// Where on the stack they are.
const REAL: c_int = 1;
const HANDLER: c_int = 2;
const PROXIES: c_int = 3;
const TIDY: c_int = 4;
const FUNCTION: c_int = 5;

impl Driver {
    /// Whether it ended well, and its result, or what the handler made of its error.
    ///
    /// *Errors*: there is not enough memory to begin, or the run was interrupted at its end.
    pub(crate) fn run(
        &self,
        lua: &Lua,
        (takes, function): (Takes, &Function),
        (keys, args): (&[Bytes], &[Bytes]),
        wrote_raw: &Cell<bool>,
    ) -> mlua::Result<(bool, Value)> {
        let Driver { real, handler, proxies, tidy } = self;
        // SAFETY: what is said above is what stands on the stack. Should memory run out, or the script
        // be interrupted, nothing in here is to be dropped.
        unsafe {
            lua.exec_raw((real, handler, proxies, tidy, function), |lua| {
                let is_function = takes == Takes::Parameters;
                set_globals(lua, (!is_function).then_some((keys, args)));
                ffi::lua_pushvalue(lua, FUNCTION);
                if is_function {
                    put_list(lua, keys);
                    put_list(lua, args);
                }
                let taken = if is_function { 2 } else { 0 };
                let status = ffi::lua_pcall(lua, taken, 1, HANDLER);
                if wrote_raw.take() && is_dirty(lua) {
                    ffi::lua_pushvalue(lua, TIDY);
                    ffi::lua_call(lua, 0, 0);
                }
                ffi::lua_pushboolean(lua, c_int::from(status == ffi::LUA_OK));
                ffi::lua_replace(lua, REAL);
                ffi::lua_replace(lua, HANDLER);
                ffi::lua_settop(lua, HANDLER);
            })
        }
    }
}

/// Sets `KEYS` and `ARGV`, or takes them away.
///
/// # Safety
///
/// The stack is that of [`Driver::run`], and the caller holds nothing that is to be dropped.
unsafe fn set_globals(lua: *mut lua_State, globals: Option<(&[Bytes], &[Bytes])>) {
    let (keys, args) = globals.unzip();
    // SAFETY: as said above. Three places are taken.
    unsafe {
        for (name, list) in [(&b"KEYS"[..], keys), (b"ARGV", args)] {
            put_text(lua, name);
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
