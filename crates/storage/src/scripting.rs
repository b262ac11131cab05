//! What the nodes of a process share about scripts and functions.
//!
//! Functions are rows of the system's own table ([`TableId::SYSTEM`]), one per library: a string under
//! `function:<name>`. Every replica of that partition tells this registry what it applies, so a function
//! is known here before whoever loaded it hears of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use commands::types::header::{Header, Value};
use commands::{CommandError, rows};
use parking_lot::Mutex;
use scripts::{Flags, Library, Script, ScriptCache, Vm};
use wire::ids::TableId;
use wire::resp::Reply;
use wire::service::{BusyScript, ScriptControl, ScriptCounts, ScriptLimits, ScriptName};

use crate::batch::{Batch, BatchError, Effect};
use crate::row;

/// What the keys of libraries begin with.
const LIBRARY_PREFIX: &[u8] = b"function:";
/// Holds what tells one state of all libraries from any other; see `functions`.
pub(crate) const STATE_KEY: &[u8] = b"functions";

/// The key of a library.
pub(crate) fn library_key(name: &[u8]) -> Bytes {
    [LIBRARY_PREFIX, name].concat().into()
}

/// The name of the library of a key; `None` if it is none's.
pub(crate) fn library_name(key: &[u8]) -> Option<Bytes> {
    key.strip_prefix(LIBRARY_PREFIX).map(Bytes::copy_from_slice)
}

/// The library that a row of the system's table holds: its name and its code.
pub(crate) fn library_of(row: &[u8], value: &Bytes) -> Option<(Bytes, Bytes)> {
    let rows::RowKind::Header { table: TableId::SYSTEM, key, .. } = rows::parse(row)? else {
        return None;
    };
    match Header::decode(value.clone()).ok()?.value {
        Value::String { text, .. } => Some((library_name(key)?, text)),
        _ => None,
    }
}

/// The libraries of functions that a batch changes.
pub(crate) fn library_changes(batch: &Batch) -> Result<Vec<(Bytes, Option<Bytes>)>, BatchError> {
    let mut changes = Vec::new();
    batch.for_each(|effect| {
        let Effect::Write { row, sealed } = effect else { return };
        match sealed.map(|sealed| Bytes::copy_from_slice(row::body_of(sealed))) {
            Some(value) => {
                let library = library_of(row, &value);
                changes.extend(library.map(|(name, code)| (name, Some(code))));
            }
            None => {
                if let Some(rows::RowKind::Header { key, .. }) = rows::parse(row)
                    && let Some(name) = library_name(key)
                {
                    changes.push((name, None));
                }
            }
        }
    })?;
    Ok(changes)
}

/// Libraries, loaded.
#[derive(Clone, Debug, Default)]
pub(crate) struct FunctionSet {
    pub(crate) libraries: BTreeMap<Bytes, Arc<Library>>,
    /// By the functions' names in lower case: they are called in any.
    by_function: HashMap<Vec<u8>, Arc<Library>>,
}

impl FunctionSet {
    /// The library that has a function of this name.
    pub(crate) fn library_with(&self, function: &[u8]) -> Option<&Arc<Library>> {
        self.by_function.get(&function.to_ascii_lowercase())
    }

    /// Loads libraries, but for those that `known` has already.
    pub(crate) fn load(
        codes: &BTreeMap<Bytes, Bytes>,
        known: Option<&FunctionSet>,
        vm: &mut Vm,
    ) -> Result<FunctionSet, CommandError> {
        let mut set = FunctionSet::default();
        for (name, code) in codes {
            let known = known.and_then(|set| set.libraries.get(name));
            let library = match known.filter(|library| library.code == *code) {
                Some(library) => Arc::clone(library),
                None => Arc::new(vm.load(code)?),
            };
            set.add(library);
        }
        Ok(set)
    }

    /// Adds a library.
    pub(crate) fn add(&mut self, library: Arc<Library>) {
        for function in &library.functions {
            self.by_function.insert(function.name.to_ascii_lowercase(), Arc::clone(&library));
        }
        self.libraries.insert(library.name.clone(), library);
    }

    /// Takes a library away.
    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<Arc<Library>> {
        let library = self.libraries.remove(name)?;
        for function in &library.functions {
            let name = function.name.to_ascii_lowercase();
            // Another library may have the function by now.
            if self.by_function.get(&name).is_some_and(|of| Arc::ptr_eq(of, &library)) {
                self.by_function.remove(&name);
            }
        }
        Some(library)
    }
}

/// The functions as of a log index of the system's partition.
#[derive(Default)]
struct Functions {
    index: u64,
    codes: BTreeMap<Bytes, Bytes>,
    /// As it was asked for last.
    set: Arc<FunctionSet>,
    /// Libraries that may be others in `codes` than in `set`.
    changed: BTreeSet<Bytes>,
    /// The state that was evaluated last, which may never be durable, and its libraries.
    evaluated: Option<(Bytes, FunctionSet)>,
}

/// A script that runs for so long that it does not hold its partition's lock.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) is_function: bool,
    /// Of the partition that it holds.
    table: TableId,
    name: Bytes,
    command: Vec<Bytes>,
    started: Instant,
    /// Somebody asked for its end.
    pub(crate) killed: AtomicBool,
    /// Its partition is led by another replica now.
    pub(crate) lost: AtomicBool,
}

impl Running {
    pub(crate) fn new(
        (is_function, name): (bool, Bytes),
        table: TableId,
        command: Vec<Bytes>,
    ) -> Running {
        Running {
            is_function,
            table,
            name,
            command,
            started: Instant::now(),
            killed: AtomicBool::new(false),
            lost: AtomicBool::new(false),
        }
    }

    /// For how long it has run.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// What others are told that want the same partition.
    pub(crate) fn busy(&self) -> CommandError {
        if self.is_function { CommandError::BUSY_FUNCTION } else { CommandError::BUSY_SCRIPT }
    }

    fn describe(&self) -> Reply {
        let text = |text: &'static str| Reply::Bulk(Bytes::from_static(text.as_bytes()));
        let command = self.command.iter().cloned().map(Reply::Bulk).collect();
        let duration_ms = i64::try_from(self.elapsed().as_millis()).unwrap_or(i64::MAX);
        Reply::Map(vec![
            (text("name"), Reply::Bulk(self.name.clone())),
            (text("command"), Reply::Array(command)),
            (text("duration_ms"), Reply::Integer(duration_ms)),
        ])
    }
}

/// See the module's text.
pub struct Scripting {
    pub(crate) cache: ScriptCache,
    functions: Mutex<Functions>,
    running: Mutex<Vec<Arc<Running>>>,
    /// How many these are: hardly ever any, and it is asked often.
    running_count: AtomicUsize,
    /// Milliseconds; 0: nobody is ever told that a script is busy.
    busy_reply_ms: AtomicU64,
    memory_bytes_max: AtomicU64,
    tables: AtomicU64,
    /// Scripts may run what is not for them.
    allows_all: AtomicBool,
}

impl Default for Scripting {
    fn default() -> Scripting {
        let limits = ScriptLimits::default();
        Scripting {
            cache: ScriptCache::default(),
            functions: Mutex::default(),
            running: Mutex::default(),
            running_count: AtomicUsize::new(0),
            busy_reply_ms: AtomicU64::new(limits.busy_reply_ms),
            memory_bytes_max: AtomicU64::new(limits.memory_bytes_max),
            tables: AtomicU64::new(u64::from(limits.tables)),
            allows_all: AtomicBool::new(false),
        }
    }
}

impl std::fmt::Debug for Scripting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scripting").field("cache", &self.cache).finish_non_exhaustive()
    }
}

impl Scripting {
    pub(crate) fn limits(&self) -> ScriptLimits {
        ScriptLimits {
            busy_reply_ms: self.busy_reply_ms.load(Relaxed),
            memory_bytes_max: self.memory_bytes_max.load(Relaxed),
            tables: u32::try_from(self.tables.load(Relaxed)).unwrap_or(u32::MAX),
        }
    }

    /// Whether scripts may run what is not for them, too.
    pub(crate) fn allows_all(&self) -> bool {
        self.allows_all.load(Relaxed)
    }

    /// After how long others are told that a script is busy; `None`: never.
    pub(crate) fn busy_after(&self) -> Option<Duration> {
        let ms = self.busy_reply_ms.load(Relaxed);
        (ms > 0).then_some(Duration::from_millis(ms))
    }

    // --- Functions

    /// What a replica of the system's partition recovered: all libraries as of a log index.
    pub(crate) fn recovered(&self, index: u64, codes: BTreeMap<Bytes, Bytes>) {
        let mut functions = self.functions.lock();
        if index > functions.index || functions.index == 0 {
            functions.index = index;
            let before = std::mem::replace(&mut functions.codes, codes);
            let names = functions.codes.keys().cloned().collect::<Vec<_>>();
            functions.changed.extend(before.into_keys().chain(names));
        }
    }

    /// What a replica of the system's partition applied: libraries that changed (`None`: are gone). Each
    /// replica tells the same, and the first to tell is listened to.
    pub(crate) fn applied(&self, index: u64, changes: Vec<(Bytes, Option<Bytes>)>) {
        let mut functions = self.functions.lock();
        if index <= functions.index {
            return;
        }
        functions.index = index;
        for (name, code) in changes {
            if code.is_none() && !functions.set.libraries.contains_key(&name) {
                // Loaded and deleted before anybody asked.
                functions.changed.remove(&name);
            } else {
                functions.changed.insert(name.clone());
            }
            match code {
                Some(code) => functions.codes.insert(name, code),
                None => functions.codes.remove(&name),
            };
        }
    }

    /// All functions that are durable.
    ///
    /// *Errors*: a library that could be loaded once cannot be any more.
    pub(crate) fn functions(&self, vm: &mut Vm) -> Result<Arc<FunctionSet>, CommandError> {
        let mut functions = self.functions.lock();
        let Functions { codes, set, changed, evaluated, .. } = &mut *functions;
        while let Some(name) = changed.first() {
            let (code, known) = (codes.get(name), set.libraries.get(name));
            if code != known.map(|library| &library.code) {
                // Whoever loads a thousand libraries has had each of them compiled already.
                let at_hand = evaluated.as_ref().and_then(|(_, set)| set.libraries.get(name));
                let at_hand = at_hand.filter(|library| Some(&library.code) == code);
                let library = match (at_hand, code) {
                    (Some(library), _) => Some(Arc::clone(library)),
                    (None, code) => code.map(|code| vm.load(code).map(Arc::new)).transpose()?,
                };
                let set = Arc::make_mut(set);
                set.remove(name);
                if let Some(library) = library {
                    set.add(library);
                }
            }
            changed.pop_first();
        }
        Ok(Arc::clone(set))
    }

    /// The libraries of the state that was evaluated last, if it is this one. Whoever takes them gives
    /// them back, as of the state that it leaves.
    pub(crate) fn take_evaluated(&self, state: &Bytes) -> Option<FunctionSet> {
        let (_, set) = self.functions.lock().evaluated.take_if(|(of, _)| of == state)?;
        Some(set)
    }

    /// See [`Scripting::take_evaluated`].
    pub(crate) fn keep_evaluated(&self, state: Bytes, set: FunctionSet) {
        self.functions.lock().evaluated = Some((state, set));
    }

    // --- What runs

    pub(crate) fn began(&self, running: &Arc<Running>) {
        let mut all = self.running.lock();
        all.push(Arc::clone(running));
        self.running_count.store(all.len(), Relaxed);
    }

    pub(crate) fn ended(&self, running: &Arc<Running>) {
        let mut all = self.running.lock();
        all.retain(|other| !Arc::ptr_eq(other, running));
        self.running_count.store(all.len(), Relaxed);
    }

    /// What has run for so long that others are told so, by the table it holds.
    pub(crate) fn busy(&self) -> Vec<(TableId, BusyScript)> {
        if self.running_count.load(Relaxed) == 0 {
            return Vec::new();
        }
        let Some(after) = self.busy_after() else { return Vec::new() };
        let running = self.running.lock();
        let busy = running.iter().filter(|one| one.elapsed() >= after);
        let kind = |is_function| match is_function {
            true => BusyScript::Function,
            false => BusyScript::Script,
        };
        busy.map(|one| (one.table, kind(one.is_function))).collect()
    }

    /// Ends all scripts or all functions that run.
    fn kill(&self, functions: bool) -> Reply {
        let running = self.running.lock();
        let mut killed = false;
        for one in running.iter().filter(|one| one.is_function == functions) {
            one.killed.store(true, Relaxed);
            killed = true;
        }
        match running.first() {
            _ if killed => Reply::OK,
            Some(other) => other.busy().into(),
            None => CommandError::NOTBUSY.into(),
        }
    }

    /// FUNCTION STATS.
    fn stats(&self) -> Reply {
        let text = |text: &'static str| Reply::Bulk(Bytes::from_static(text.as_bytes()));
        let running = self.running.lock();
        let function = running.iter().find(|one| one.is_function);
        let counts = self.counts();
        let engine = Reply::Map(vec![
            (text("libraries_count"), Reply::Integer(counts.libraries as i64)),
            (text("functions_count"), Reply::Integer(counts.functions as i64)),
        ]);
        Reply::Map(vec![
            (text("running_script"), function.map_or(Reply::Null, |one| one.describe())),
            (text("engines"), Reply::Map(vec![(text("LUA"), engine)])),
        ])
    }

    /// How many scripts and functions there are.
    pub(crate) fn counts(&self) -> ScriptCounts {
        let set = crate::script::with_vm(self, |vm| self.functions(vm)).ok();
        let functions = |set: &Arc<FunctionSet>| set.by_function.len() as u64;
        ScriptCounts {
            scripts: self.cache.len() as u64,
            evicted_scripts: self.cache.evicted(),
            libraries: set.as_ref().map_or(0, |set| set.libraries.len() as u64),
            functions: set.as_ref().map_or(0, functions),
        }
    }

    /// Does what a router asks about all scripts; see [`wire::service::StorageService::scripts`].
    pub fn control(&self, control: ScriptControl<'_>) -> Reply {
        match control {
            ScriptControl::Load(text) => self.load(text).unwrap_or_else(Reply::from),
            ScriptControl::Exists(shas) => {
                let exists = |sha: &Bytes| Reply::Integer(i64::from(self.cache.exists(sha)));
                Reply::Array(shas.iter().map(exists).collect())
            }
            ScriptControl::Flush => {
                self.cache.flush();
                Reply::OK
            }
            ScriptControl::Kill { functions } => self.kill(functions),
            ScriptControl::FunctionStats => self.stats(),
            ScriptControl::IsReadOnly(name) => Reply::Integer(i64::from(self.is_read_only(name))),
            ScriptControl::Limits(limits) => {
                self.busy_reply_ms.store(limits.busy_reply_ms, Relaxed);
                self.memory_bytes_max.store(limits.memory_bytes_max, Relaxed);
                self.tables.store(u64::from(limits.tables), Relaxed);
                Reply::OK
            }
            ScriptControl::AllowAll(allows) => {
                self.allows_all.store(allows, Relaxed);
                Reply::OK
            }
        }
    }

    /// Whether a script says that it does not write; one that is not known says nothing.
    fn is_read_only(&self, name: ScriptName<'_>) -> bool {
        let said = match name {
            ScriptName::Text(text) => Script::parse(text).ok().map(|script| script.flags),
            ScriptName::Sha(sha) => self.cache.find(sha).map(|script| script.flags),
            ScriptName::Function(name) => {
                let set = crate::script::with_vm(self, |vm| self.functions(vm)).ok();
                let library = set.as_ref().and_then(|set| set.library_with(name));
                let of_name = |library: &Arc<Library>| {
                    let mut functions = library.functions.iter();
                    functions
                        .find(|function| function.name.eq_ignore_ascii_case(name))
                        .map(|f| f.flags)
                };
                library.and_then(of_name)
            }
        };
        said.is_some_and(|said| !said.has(Flags::UNSAID) && said.has(Flags::NO_WRITES))
    }

    fn load(&self, text: &Bytes) -> Result<Reply, CommandError> {
        let script = self.cache.load(text)?;
        crate::script::with_vm(self, |vm| vm.compile(&script)).inspect_err(|_| {
            self.cache.forget(&script);
        })?;
        Ok(Reply::Bulk(script.sha.clone()))
    }
}
