//! Lua text to functions.
//!
//! mlua makes UTF-8 of what Lua says against a text, and so loses the bytes that it quotes. Clients get them as
//! they are, as from Redis. So the text is loaded on the stack itself.

use std::ffi::{CString, c_int};

use mlua::{Function, Lua, Result, Value, ffi};

/// Compiles a text; the inner error is what Lua says against it. A name ends at its first NUL.
///
/// *Errors*: mlua's own.
pub(crate) fn compile(
    lua: &Lua,
    code: &[u8],
    name: &[u8],
) -> Result<std::result::Result<Function, Vec<u8>>> {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = CString::new(name).expect("it ends before its first NUL");
    // SAFETY: the code and the name outlive the call. Should memory run out, nothing in here is to be
    // dropped.
    let (loaded, is_function): (Value, bool) = unsafe {
        lua.exec_raw((), |lua| {
            let (text, mode) = (code.as_ptr().cast(), c"t".as_ptr());
            let status = ffi::luaL_loadbufferx(lua, text, code.len(), name.as_ptr(), mode);
            ffi::lua_pushboolean(lua, c_int::from(status == ffi::LUA_OK));
        })?
    };
    debug_assert_eq!(is_function, matches!(loaded, Value::Function(_)));
    Ok(match loaded {
        Value::Function(function) => Ok(function),
        Value::String(why) => Err(why.as_bytes().to_vec()),
        _ => Err(b"it is no text".to_vec()),
    })
}
