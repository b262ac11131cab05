//! Lua as Redis speaks it: the state that scripts and functions run in.
//!
//! ```text
//! vm         a Lua state: compiles, runs, ends what has to end; driver: one run
//!   bootstrap.lua  locks the globals, catches errors
//!   globals, random  what replaces functions of Lua's own
//!   redis      the table `redis`; call: redis.call
//!   json, msgpack, packing, bit   cjson, cmsgpack, struct, bit
//!   convert    replies to Lua values and back
//!   raise      errors on their way to the script
//!   strings, pattern, tables   functions of Lua's libraries that can be ended, and have bounds
//!   outside    memory beside Lua's
//! host       what a state asks of whoever runs it: commands, the log, whether to go on
//! cache      scripts by their SHA-1
//! library    what FUNCTION LOAD makes of a text
//! shebang    the first line of either
//! ```
//!
//! This crate knows no partition and no client: a command goes to the [`Host`] and comes back as a
//! reply. The one clock it reads ends a library that does not come to the end of being loaded.
//!
//! *Caveat*: a state looks at whether to go on every thousand instructions of Lua, and in what goes over
//! much (`strings`, `tables`); one instruction, or one call of Lua's own functions, may copy a long string.

mod arguments;
mod bit;
mod cache;
mod call;
mod compile;
mod convert;
mod driver;
mod globals;
mod host;
mod json;
mod library;
mod msgpack;
mod outside;
mod packing;
mod pattern;
mod raise;
mod random;
mod redis;
mod shebang;
mod strings;
mod tables;
mod vm;

pub use cache::{EVAL_SCRIPTS_MAX, EVAL_TEXT_BYTES_MAX, SHA_DIGITS, Script, ScriptCache, sha1_hex};
pub use convert::REPLY_DEPTH_MAX;
pub use host::{Host, Interrupt};
pub use library::{FunctionInfo, Library};
pub use redis::REDIS_VERSION;
pub use shebang::{FLAG_NAMES, Flags, library_name};
pub use vm::{Compiled, Vm};
