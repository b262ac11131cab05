//! A Lua state and what it has compiled.
//!
//! A state belongs to one thread and runs one script at a time. It keeps nothing of a script but its
//! compiled form: the globals are locked (`bootstrap.lua`), what the libraries can be set to is set
//! back, and each run starts from a seed of its own.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commands::{CommandError, Echo};
use mlua::{Function, HookTriggers, Lua, LuaOptions, StdLib, Table, Value, VmState};
use wire::resp::Reply;

use crate::cache::Script;
use crate::call::Calling;
use crate::driver::{Driver, Ended, Parts, Place, Takes};
use crate::host::{Host, Interrupt};
use crate::library::{FunctionInfo, Library};
use crate::outside::Outside;
use crate::random::Random;
use crate::{
    bit, compile, convert, globals, json, msgpack, packing, raise, random, redis, shebang, strings,
    tables,
};

/// Instructions between two looks at whether the script has to end: about 10 µs, unless they copy long
/// strings.
const HOOK_INSTRUCTIONS: u32 = 1_000;
/// Work of our functions between two of these: some 20 µs.
const LOOK_EVERY: usize = 10_000;
/// Compiled scripts that a state keeps; then it starts anew.
const COMPILED_MAX: usize = 1_000;
/// Libraries that a state keeps; then it starts anew.
const LIBRARIES_MAX: usize = 1_000;
/// How long the code of a library may take to register its functions, as in Redis.
const LOAD_TIME_MAX: Duration = Duration::from_millis(500);
/// What remains of the text of an error that is no table, in bytes.
const ODD_ERROR_BYTES_MAX: usize = 100;

/// What the functions of a state share.
#[derive(Default)]
pub(crate) struct State {
    /// Whoever runs the script that runs now.
    host: Cell<Option<NonNull<dyn Host>>>,
    stop: Cell<Option<Interrupt>>,
    pub(crate) resp3: Cell<bool>,
    pub(crate) random: Random,
    json: json::Shared,
    pub(crate) calling: Calling,
    /// Functions of the library that is being loaded.
    pub(crate) loading: RefCell<Option<Vec<Registered>>>,
    /// The stand-ins of shared tables.
    pub(crate) proxied: RefCell<Option<Table>>,
    /// A function that passes by what refuses writes has written to some table.
    pub(crate) wrote_raw: Cell<bool>,
    /// Bytes that the state may use.
    pub(crate) memory_bytes_max: Cell<usize>,
    /// Bytes that functions hold beside it; see `outside.rs`.
    pub(crate) outside_bytes: Cell<usize>,
    /// Work that functions did since the last look at whether the script has to end.
    work: Cell<usize>,
}

/// A function that a library registers.
pub(crate) struct Registered {
    pub(crate) info: FunctionInfo,
    pub(crate) callback: Function,
}

impl State {
    /// Asks the host; `None` if no script runs.
    pub(crate) fn with_host<T>(&self, ask: impl FnOnce(&mut dyn Host) -> T) -> Option<T> {
        let mut host = self.host.take()?;
        // SAFETY: `Running` puts the pointer here for the time of a run, during which it holds the
        // exclusive reference that it was made from. It is taken out above, so that there is no second
        // reference to the host while it is asked.
        let answer = ask(unsafe { host.as_mut() });
        self.host.set(Some(host));
        Some(answer)
    }

    /// Ends the script.
    pub(crate) fn interrupt(&self, interrupt: Interrupt) -> mlua::Error {
        self.stop.set(Some(interrupt));
        raise::stop(interrupt)
    }

    /// Counts work of a function of ours, in bytes or items that it goes over, and looks now and then
    /// whether the script has to end.
    pub(crate) fn work(&self, work: usize) -> mlua::Result<()> {
        let done = self.work.get().saturating_add(work);
        if done < LOOK_EVERY {
            self.work.set(done);
            return Ok(());
        }
        self.work.set(0);
        self.look()
    }

    /// Asks the host whether the script is to end.
    pub(crate) fn look(&self) -> mlua::Result<()> {
        self.check()?;
        match self.with_host(|host| host.interrupted()).flatten() {
            Some(interrupt) => Err(self.interrupt(interrupt)),
            None => Ok(()),
        }
    }

    /// Whether the script is to end, whatever it catches.
    pub(crate) fn check(&self) -> mlua::Result<()> {
        self.stop.get().map_or(Ok(()), |interrupt| Err(raise::stop(interrupt)))
    }
}

/// The time during which a host is lent to the state.
struct Running<'a> {
    state: &'a State,
}

impl<'a> Running<'a> {
    fn new(state: &'a State, host: &'a mut (dyn Host + '_)) -> Running<'a> {
        let seed = host.seed();
        let host: NonNull<dyn Host + '_> = NonNull::from(host);
        // SAFETY: only the lifetime changes. The pointer is taken back when `self` is dropped, and
        // `self` borrows the host's reference for as long.
        let host =
            unsafe { std::mem::transmute::<NonNull<dyn Host + '_>, NonNull<dyn Host>>(host) };
        state.host.set(Some(host));
        state.stop.set(None);
        state.resp3.set(false);
        state.random.seed(seed as u32);
        *state.json.borrow_mut() = json::Settings::default();
        Running { state }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.state.host.set(None);
        self.state.calling.forget();
    }
}

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The functions of a library, compiled.
struct Loaded {
    library: Arc<Library>,
    callbacks: Map<Bytes, Place>,
}

/// A script that a state has compiled: until it compiles another.
#[derive(Clone, Copy, Debug)]
pub struct Compiled(Place);

/// See the module's text.
pub struct Vm {
    lua: Lua,
    state: Rc<State>,
    driver: Driver,
    run_load: Function,
    scripts: Map<Bytes, Compiled>,
    libraries: Map<Bytes, Loaded>,
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vm").field("used_memory", &self.used_memory()).finish_non_exhaustive()
    }
}

impl Vm {
    /// A state that may use so many bytes of memory.
    ///
    /// *Errors*: what Lua says if there is not enough memory.
    pub fn new(memory_bytes_max: usize) -> Result<Vm, CommandError> {
        build(memory_bytes_max).map_err(|error| internal(&error))
    }

    /// Bytes that the state uses.
    pub fn used_memory(&self) -> usize {
        self.lua.used_memory()
    }

    /// Collects all garbage; how many bytes are used then.
    pub fn collect(&mut self) -> usize {
        // An error here is one of a script's finalizers, which scripts cannot have.
        let _ = self.lua.gc_collect();
        self.used_memory()
    }

    /// Sets how many bytes the state may use.
    pub fn set_memory_max(&mut self, bytes: usize) {
        let known = &self.state.memory_bytes_max;
        if known.get() != bytes && self.lua.set_memory_limit(bytes).is_ok() {
            known.set(bytes);
        }
    }

    /// Compiles a script, once.
    ///
    /// *Errors*: it is no Lua.
    pub fn compile(&mut self, script: &Script) -> Result<Compiled, CommandError> {
        if let Some(compiled) = self.scripts.get(&script.sha) {
            return Ok(*compiled);
        }
        let code = &script.text[script.shebang..];
        let function = self
            .function(code, "@user_script")
            .map_err(|why| CommandError::ScriptCompile(Echo::new(&why)))?;
        if self.scripts.len() >= COMPILED_MAX {
            self.scripts.drain().for_each(|(_, Compiled(place))| self.driver.let_go(place));
        }
        let compiled = self.driver.keep(&function).map_err(|error| internal(&error))?;
        self.scripts.insert(script.sha.clone(), Compiled(compiled));
        Ok(Compiled(compiled))
    }

    fn function(&self, code: &[u8], name: &str) -> Result<Function, Vec<u8>> {
        let compiled = compile::compile(&self.lua, code, name.as_bytes());
        compiled.map_err(|error| error.to_string().into_bytes())?
    }

    /// Runs a script.
    ///
    /// *Errors*: [`Interrupt::Suspended`], if the host wanted it to end. Any other end is a reply.
    pub fn eval(
        &mut self,
        host: &mut dyn Host,
        (script, compiled): (&Script, &Compiled),
        keys: &[Bytes],
        args: &[Bytes],
    ) -> Result<Reply, Interrupt> {
        self.run(host, (Takes::Globals, compiled.0), &script.sha, keys, args)
    }

    /// Runs a function of a library.
    ///
    /// *Errors*: as [`Vm::eval`].
    pub fn fcall(
        &mut self,
        host: &mut dyn Host,
        (library, name): (&Arc<Library>, &[u8]),
        keys: &[Bytes],
        args: &[Bytes],
    ) -> Result<Reply, Interrupt> {
        let is_loaded = |loaded: &Loaded| Arc::ptr_eq(&loaded.library, library);
        if !self.libraries.get(&library.name).is_some_and(is_loaded) {
            let callbacks = match self.load_code(&library.code) {
                Ok((_, callbacks)) => callbacks,
                Err(error) => return Ok(error.into()),
            };
            if let Err(error) = self.put_library(library, callbacks) {
                return Ok(internal(&error).into());
            }
        }
        let callbacks = &self.libraries[&library.name].callbacks;
        let Some(callback) = callbacks.get(name) else {
            return Ok(CommandError::FUNCTION_NOT_FOUND.into());
        };
        self.run(host, (Takes::Parameters, *callback), name, keys, args)
    }

    /// Keeps a library's functions, in the place of those of one of the same name.
    fn put_library(
        &mut self,
        library: &Arc<Library>,
        callbacks: Map<Bytes, Function>,
    ) -> mlua::Result<()> {
        let old: Vec<Loaded> = if self.libraries.len() >= LIBRARIES_MAX {
            self.libraries.drain().map(|(_, loaded)| loaded).collect()
        } else {
            self.libraries.remove(&library.name).into_iter().collect()
        };
        let places = old.iter().flat_map(|loaded| loaded.callbacks.values());
        places.for_each(|place| self.driver.let_go(*place));
        let mut loaded = Loaded { library: Arc::clone(library), callbacks: Map::default() };
        for (name, function) in callbacks {
            let kept = self.driver.keep(&function);
            let place = kept.inspect_err(|_| {
                loaded.callbacks.values().for_each(|place| self.driver.let_go(*place));
            })?;
            loaded.callbacks.insert(name, place);
        }
        self.libraries.insert(library.name.clone(), loaded);
        Ok(())
    }

    /// Runs the code of a library and tells what it registers.
    ///
    /// *Errors*: the library is none.
    pub fn load(&mut self, code: &[u8]) -> Result<Library, CommandError> {
        self.load_code(code).map(|(library, _)| library)
    }

    fn load_code(&self, code: &[u8]) -> Result<(Library, Map<Bytes, Function>), CommandError> {
        let (name, shebang) = shebang::of_library(code)?;
        let function = self
            .function(&code[shebang..], "@user_function")
            .map_err(|why| CommandError::LibraryCompile(Echo::new(&why)))?;
        self.state.loading.replace(Some(Vec::new()));
        let mut host = Loader { deadline: Instant::now() + LOAD_TIME_MAX };
        let running = Running::new(&self.state, &mut host);
        let done = self.run_load.call::<(bool, Value)>(function);
        drop(running);
        let registered = self.state.loading.take().unwrap_or_default();
        let refuse = |why: &[u8]| CommandError::LibraryRun(Echo::new(why));
        match done {
            Ok((true, _)) => {}
            Ok((false, reason)) => return Err(refuse(&load_error(&reason))),
            Err(error) => {
                self.clean();
                return Err(refuse(&message(&error)));
            }
        }
        if registered.is_empty() {
            return Err(CommandError::LIBRARY_EMPTY);
        }
        let mut library =
            Library { name, code: Bytes::copy_from_slice(code), functions: Vec::new() };
        let mut callbacks = Map::default();
        for Registered { info, callback } in registered {
            callbacks.insert(info.name.clone(), callback);
            library.functions.push(info);
        }
        Ok((library, callbacks))
    }

    fn run(
        &self,
        host: &mut dyn Host,
        what: (Takes, Place),
        name: &[u8],
        keys: &[Bytes],
        args: &[Bytes],
    ) -> Result<Reply, Interrupt> {
        let running = Running::new(&self.state, host);
        let outcome = self.driver.run(&self.lua, what, (keys, args), &self.state);
        drop(running);
        let stop = self.state.stop.take();
        if let Some(interrupt @ (Interrupt::Suspended | Interrupt::Killed)) = stop {
            // The interrupt may have come between two steps of the end.
            self.clean();
            self.state.calling.go_on();
            if interrupt == Interrupt::Suspended {
                return Err(interrupt);
            }
        }
        let ended = match outcome {
            Ok(Ended::Reply(reply)) => Ok(reply),
            Ok(Ended::Value(value)) => {
                let mut outside = Outside::new(&self.state);
                convert::from_lua(&value, self.state.resp3.get(), 0, &mut outside)
            }
            Ok(Ended::Failed(reason)) => Ok(failed(&reason, name)),
            Err(error) => Err(error),
        };
        let reply = ended.unwrap_or_else(|error| {
            self.clean();
            failed_oddly(&message(&error), name)
        });
        // Lua 5.1 does not collect when memory runs out; the next script shall not pay for this one.
        if self.used_memory() > self.state.memory_bytes_max.get() / 4 {
            let _ = self.lua.gc_collect();
        }
        Ok(reply)
    }

    /// Empties the stand-ins of shared tables after a run that did not come to its end.
    fn clean(&self) {
        // It allocates nothing and runs no script's code.
        let _ = self.driver.tidy.call::<()>(());
    }
}

fn build(memory_bytes_max: usize) -> mlua::Result<Vm> {
    // SAFETY: `debug` is the one unsafe library, and no script gets at it: `bootstrap.lua` keeps
    // `debug.getinfo` to itself and removes the rest.
    let lua = unsafe {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::DEBUG;
        Lua::unsafe_new_with(libraries, LuaOptions::new())
    };
    let state = Rc::new(State::default());
    let native = lua.create_table()?;
    native.raw_set("globals", globals::functions(&lua, &state)?)?;
    native.raw_set("math", random::functions(&lua, &state)?)?;
    native.raw_set("os", globals::os(&lua)?)?;
    native.raw_set("string", strings::functions(&lua, &state)?)?;
    native.raw_set("table", tables::functions(&lua, &state)?)?;
    native.raw_set("redis", redis::library(&lua, &state)?)?;
    native.raw_set("loading", redis::of_loading(&lua, &state)?)?;
    native.raw_set("reason", lua.create_function(raise::reason)?)?;
    let caught = Rc::clone(&state);
    let plain = lua.create_function(move |lua, value: Value| {
        caught.check()?;
        raise::reason(lua, value)
    })?;
    native.raw_set("plain", plain)?;
    let globals = lua.globals();
    globals.raw_set("cjson", json::library(&lua, &state.json, &state)?)?;
    globals.raw_set("cmsgpack", msgpack::library(&lua, &state)?)?;
    globals.raw_set("struct", packing::library(&lua)?)?;
    globals.raw_set("bit", bit::library(&lua)?)?;
    let drivers: Table =
        lua.load(include_str!("bootstrap.lua")).set_name("=evenkeel").call(native)?;
    state.proxied.replace(Some(drivers.raw_get("proxied")?));
    let watched = Rc::clone(&state);
    let every = HookTriggers::new().every_nth_instruction(HOOK_INSTRUCTIONS);
    lua.set_global_hook(every, move |_, _| watched.look().map(|()| VmState::Continue))?;
    lua.set_memory_limit(memory_bytes_max)?;
    state.memory_bytes_max.set(memory_bytes_max);
    let parts = Parts {
        real: drivers.raw_get("real")?,
        handler: drivers.raw_get("handler")?,
        proxies: drivers.raw_get("proxies")?,
        tidy: drivers.raw_get("tidy")?,
    };
    Ok(Vm {
        driver: Driver::new(&lua, parts)?,
        run_load: drivers.raw_get("load")?,
        scripts: Map::default(),
        libraries: Map::default(),
        state,
        lua,
    })
}

fn internal(error: &mlua::Error) -> CommandError {
    CommandError::Operator(format!("Lua: {}", String::from_utf8_lossy(&message(error))))
}

/// The first line of an error's text.
fn message(error: &mlua::Error) -> Vec<u8> {
    match (raise::raised(error), error) {
        (Some(raised), _) => raised.to_string().into_bytes(),
        (None, error) => raise::first_line(error).into_bytes(),
    }
}

/// The reply of a script that an error ended: what the handler in `bootstrap.lua` made of it.
fn failed(reason: &Value, name: &[u8]) -> Reply {
    let Value::Table(table) = reason else {
        let text = match reason {
            Value::String(text) => text.as_bytes().to_vec(),
            Value::Error(error) => message(error),
            _ => b"execution failure".to_vec(),
        };
        return failed_oddly(&text, name);
    };
    let field = |field: &str| match table.raw_get(field) {
        Ok(Value::String(text)) => Some(text.as_bytes().to_vec()),
        Ok(Value::Integer(number)) => Some(number.to_string().into_bytes()),
        Ok(Value::Number(number)) => Some(number.to_string().into_bytes()),
        _ => None,
    };
    let mut line = field("err").unwrap_or_else(|| b"ERR unknown error".to_vec());
    if let (Some(source), Some(at)) = (field("source"), field("line")) {
        for part in [&b" script: "[..], name, b", on ", &source, b":", &at, b"."] {
            line.extend_from_slice(part);
        }
    }
    Reply::Error(line.into())
}

fn failed_oddly(text: &[u8], name: &[u8]) -> Reply {
    let text = &text[..text.len().min(ODD_ERROR_BYTES_MAX)];
    Reply::Error([b"ERR Error running script ", name, b", ", text].concat().into())
}

/// What went wrong when a library registered its functions.
fn load_error(reason: &Value) -> Vec<u8> {
    match reason {
        Value::Table(table) => match table.raw_get("err") {
            Ok(Value::String(text)) => text.as_bytes().to_vec(),
            _ => b"ERR unknown error".to_vec(),
        },
        Value::String(text) => [b"ERR ", &text.as_bytes()[..]].concat(),
        _ => b"ERR unknown error".to_vec(),
    }
}

/// The host of a library that registers its functions: there is nothing it could call.
struct Loader {
    deadline: Instant,
}

impl Host for Loader {
    fn call(&mut self, _args: &[Bytes]) -> Result<Reply, Interrupt> {
        Ok(CommandError::NOT_FROM_SCRIPT.into())
    }

    fn may_call(&mut self, _args: &[Bytes]) -> Option<bool> {
        None
    }

    fn log(&mut self, _level: u8, _line: &[u8]) {}

    fn interrupted(&mut self) -> Option<Interrupt> {
        (Instant::now() > self.deadline).then_some(Interrupt::LoadTimeout)
    }

    fn seed(&mut self) -> u64 {
        0
    }
}
