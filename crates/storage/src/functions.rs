//! FUNCTION LOAD and its kin, at the leader of the system's partition: libraries are rows.
//!
//! To be refused what another library has, a library is compared with all that there are, also those that
//! are proposed. So that a thousand libraries are not read for each that is added, the row
//! [`STATE_KEY`] tells one state of them from any other: it is a digest of the state before and of the
//! command that changed it. The libraries of the state that was evaluated last are at hand.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use commands::types::header::Value;
use commands::types::keyspace;
use commands::{
    CommandError, Direction, Echo, Effects, Script, Txn, View, functions_of_payload, glob,
    payload_of_functions, rows, table,
};
use scripts::{Library, Vm};
use wire::ids::{TableId, Version};
use wire::placement::Placement;
use wire::resp::Reply;

use crate::scripting::{FunctionSet, STATE_KEY, Scripting, library_key, library_name};
use crate::transaction;

/// Runs a command about functions on the system's partition.
///
/// *Errors*: the refusal; nothing is changed then.
pub(crate) fn run(
    scripting: &Scripting,
    vm: &mut Vm,
    base: &dyn View,
    next_version: Version,
    what: Script,
    args: &[Bytes],
) -> Result<(Reply, Option<Effects>), CommandError> {
    let state = state(base)?;
    let set = match state.as_ref().and_then(|state| scripting.take_evaluated(state)) {
        Some(set) => set,
        None => {
            let known = scripting.functions(vm).ok();
            FunctionSet::load(&codes(base)?, known.as_deref(), vm)?
        }
    };
    let mut change = Change { set, txn: Txn::new(base, next_version) };
    let reply = change.run(vm, what, args);
    let changes = change.txn.changes() > 0;
    let mut now = state.clone();
    if changes && reply.is_ok() {
        let new = state_after(state.as_ref(), args);
        change.write("SET", &[Bytes::from_static(STATE_KEY), new.clone()])?;
        now = Some(new);
    } else if changes || (reply.is_err() && what == Script::FunctionRestore) {
        // It may have stopped half way.
        now = None;
    }
    if let Some(now) = now {
        scripting.keep_evaluated(now, change.set);
    }
    Ok((reply?, changes.then(|| change.txn.into_effects())))
}

/// What tells the state of all libraries from any other; `None`: they never changed since there is such
/// a row.
fn state(view: &dyn View) -> Result<Option<Bytes>, CommandError> {
    let found = keyspace::lookup(view, STATE_KEY)?;
    Ok(match found.header().map(|header| &header.value) {
        Some(Value::String { text, .. }) => Some(text.clone()),
        _ => None,
    })
}

fn state_after(before: Option<&Bytes>, command: &[Bytes]) -> Bytes {
    let mut text = before.map_or(Vec::new(), |before| before.to_vec());
    for arg in command {
        text.extend_from_slice(&(arg.len() as u64).to_le_bytes());
        text.extend_from_slice(arg);
    }
    scripts::sha1_hex(&text)
}

/// All libraries, as of the newest proposed batch.
fn codes(view: &dyn View) -> Result<BTreeMap<Bytes, Bytes>, CommandError> {
    let from = rows::header_key_at(TableId::SYSTEM, 0);
    let to = rows::headers_end(TableId::SYSTEM, Placement::MAX);
    let mut headers = Vec::new();
    view.scan(&from, &to, Direction::Forward, &mut |row, value| {
        headers.push((row.clone(), value.clone()));
        ControlFlow::Continue(())
    })?;
    let mut codes = BTreeMap::new();
    for (row, value) in headers {
        if let Some(rows::RowKind::Header { key, .. }) = rows::parse(&row)
            && let Some(name) = library_name(key)
            && let Some(header) = keyspace::read_row(view, &value)?
            && let Value::String { text, .. } = header.value
        {
            codes.insert(name, text);
        }
    }
    Ok(codes)
}

/// Libraries that are being changed.
struct Change<'a> {
    set: FunctionSet,
    txn: Txn<'a>,
}

impl Change<'_> {
    fn run(&mut self, vm: &mut Vm, what: Script, args: &[Bytes]) -> Result<Reply, CommandError> {
        match what {
            Script::FunctionLoad => self.load(vm, args),
            Script::FunctionDelete => self.delete(&args[2]),
            Script::FunctionFlush => self.flush(args),
            Script::FunctionRestore => self.restore(vm, args),
            Script::FunctionList => list(&self.set, args),
            Script::FunctionDump => {
                let codes = self.set.libraries.values().map(|library| &library.code);
                Ok(Reply::Bulk(payload_of_functions(codes)))
            }
            other => Err(CommandError::Operator(format!("{other:?} is not about functions"))),
        }
    }

    fn load(&mut self, vm: &mut Vm, args: &[Bytes]) -> Result<Reply, CommandError> {
        let (code, options) = args[2..].split_last().ok_or(CommandError::FUNCTION_NO_CODE)?;
        let mut replaces = false;
        for option in options {
            if !option.eq_ignore_ascii_case(b"REPLACE") {
                return Err(CommandError::FunctionLoadOption(Echo::new(option)));
            }
            replaces = true;
        }
        let name = scripts::library_name(code)?;
        if !replaces && self.set.libraries.contains_key(&name) {
            return Err(CommandError::LibraryExists(Echo::new(&name)));
        }
        let library = Arc::new(vm.load(code)?);
        self.check_functions(&library)?;
        self.put(library)?;
        Ok(Reply::Bulk(name))
    }

    /// Refuses a library with a function that another one has.
    fn check_functions(&self, library: &Library) -> Result<(), CommandError> {
        let taken = |name: &Bytes| {
            self.set.library_with(name).is_some_and(|other| other.name != library.name)
        };
        match library.functions.iter().find(|function| taken(&function.name)) {
            Some(function) => Err(CommandError::FunctionExists(Echo::new(&function.name))),
            None => Ok(()),
        }
    }

    fn put(&mut self, library: Arc<Library>) -> Result<(), CommandError> {
        self.write("SET", &[library_key(&library.name), library.code.clone()])?;
        self.set.remove(&library.name);
        self.set.add(library);
        Ok(())
    }

    /// Runs a command on the rows of the system's table.
    fn write(&mut self, name: &'static str, args: &[Bytes]) -> Result<(), CommandError> {
        let entry = table::lookup(name.as_bytes()).expect("a command of the table");
        let mut line = vec![Bytes::from_static(name.as_bytes())];
        line.extend_from_slice(args);
        match transaction::run_write(&self.txn, entry, &line) {
            (_, Some(effects)) => {
                self.txn.merge(effects);
                Ok(())
            }
            (Reply::Error(line), None) => {
                Err(CommandError::Text(String::from_utf8_lossy(&line).into_owned().into()))
            }
            (_, None) => Ok(()),
        }
    }

    fn delete(&mut self, name: &Bytes) -> Result<Reply, CommandError> {
        if !self.set.libraries.contains_key(name) {
            return Err(CommandError::LIBRARY_NOT_FOUND);
        }
        self.write("DEL", &[library_key(name)])?;
        self.set.remove(name);
        Ok(Reply::OK)
    }

    fn flush(&mut self, args: &[Bytes]) -> Result<Reply, CommandError> {
        match &args[2..] {
            [] => {}
            [how] if how.eq_ignore_ascii_case(b"SYNC") || how.eq_ignore_ascii_case(b"ASYNC") => {}
            [_] => return Err(CommandError::FUNCTION_FLUSH_OPTION),
            _ => return Err(CommandError::SubcommandSyntax(Echo::new(&args[1]), "FUNCTION")),
        }
        self.clear()?;
        Ok(Reply::OK)
    }

    fn clear(&mut self) -> Result<(), CommandError> {
        let names: Vec<Bytes> = self.set.libraries.keys().cloned().collect();
        for name in names {
            self.delete(&name)?;
        }
        Ok(())
    }

    fn restore(&mut self, vm: &mut Vm, args: &[Bytes]) -> Result<Reply, CommandError> {
        let policy = match &args[3..] {
            [] => b"APPEND".to_vec(),
            [policy] => policy.to_ascii_uppercase(),
            _ => return Err(CommandError::SubcommandSyntax(Echo::new(&args[1]), "FUNCTION")),
        };
        if !matches!(&policy[..], b"APPEND" | b"REPLACE" | b"FLUSH") {
            return Err(CommandError::FUNCTION_RESTORE_POLICY);
        }
        let mut restored = FunctionSet::default();
        for code in functions_of_payload(&args[2])? {
            let library = Arc::new(vm.load(&code)?);
            if restored.libraries.contains_key(&library.name) {
                return Err(CommandError::LibraryExists(Echo::new(&library.name)));
            }
            restored.add(library);
        }
        if policy == b"FLUSH" {
            self.clear()?;
        }
        for name in restored.libraries.keys() {
            if self.set.libraries.contains_key(name) {
                if policy != b"REPLACE" {
                    return Err(CommandError::RestoredLibraryExists(Echo::new(name)));
                }
                self.set.remove(name);
            }
        }
        for library in restored.libraries.into_values() {
            self.check_functions(&library)?;
            self.put(library)?;
        }
        Ok(Reply::OK)
    }
}

fn list(set: &FunctionSet, args: &[Bytes]) -> Result<Reply, CommandError> {
    let (mut pattern, mut with_code) = (None, false);
    let mut options = args[2..].iter();
    while let Some(option) = options.next() {
        if !with_code && option.eq_ignore_ascii_case(b"WITHCODE") {
            with_code = true;
        } else if pattern.is_none() && option.eq_ignore_ascii_case(b"LIBRARYNAME") {
            let given = options.next().ok_or(CommandError::FUNCTION_LIST_NAME)?;
            pattern = Some(given.to_ascii_lowercase());
        } else {
            return Err(CommandError::FunctionListArgument(Echo::new(option)));
        }
    }
    let matches = |library: &&Arc<Library>| {
        let name = library.name.to_ascii_lowercase();
        pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, &name))
    };
    let libraries = set.libraries.values().filter(matches);
    Ok(Reply::Array(libraries.map(|library| describe(library, with_code)).collect()))
}

fn describe(library: &Library, with_code: bool) -> Reply {
    let text = |text: &'static str| Reply::Bulk(Bytes::from_static(text.as_bytes()));
    let functions = library.functions.iter().map(|function| {
        let description = function.description.clone().map_or(Reply::Null, Reply::Bulk);
        let flags = function.flags.names().map(Reply::Simple).collect();
        Reply::Map(vec![
            (text("name"), Reply::Bulk(function.name.clone())),
            (text("description"), description),
            (text("flags"), Reply::Set(flags)),
        ])
    });
    let mut fields = vec![
        (text("library_name"), Reply::Bulk(library.name.clone())),
        (text("engine"), text("LUA")),
        (text("functions"), Reply::Array(functions.collect())),
    ];
    if with_code {
        fields.push((text("library_code"), Reply::Bulk(library.code.clone())));
    }
    Reply::Map(fields)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use commands::notes::Notes;
    use commands::{Counters, MemoryView, ViewError};
    use wire::placement::PlacementRange;

    use super::*;

    /// Counts how often somebody goes through rows.
    struct Counting {
        rows: MemoryView,
        scans: Cell<u64>,
    }

    impl View for Counting {
        fn now_ms(&self) -> u64 {
            self.rows.now_ms()
        }
        fn table(&self) -> TableId {
            TableId::SYSTEM
        }
        fn range(&self) -> PlacementRange {
            PlacementRange::whole(TableId::SYSTEM)
        }
        fn get(&self, row: &[u8]) -> Result<Option<Bytes>, ViewError> {
            self.rows.get(row)
        }
        fn scan(
            &self,
            from: &[u8],
            to: &[u8],
            direction: Direction,
            visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
        ) -> Result<(), ViewError> {
            self.scans.set(self.scans.get() + 1);
            self.rows.scan(from, to, direction, visit)
        }
        fn counters(&self) -> Counters {
            self.rows.counters()
        }
        fn flushed_through(&self) -> Option<Version> {
            None
        }
        fn random(&self) -> u64 {
            self.rows.random()
        }
        fn notes(&self) -> &Notes {
            self.rows.notes()
        }
    }

    struct Leader {
        view: Counting,
        scripting: Scripting,
        vm: Vm,
    }

    impl Leader {
        fn new() -> Leader {
            let view = Counting { rows: MemoryView::new(1), scans: Cell::new(0) };
            Leader { view, scripting: Scripting::default(), vm: Vm::new(1 << 26).expect("a VM") }
        }

        fn evaluate(&mut self, what: Script, line: &[&str]) -> Result<Option<Effects>, String> {
            let args: Vec<Bytes> = line.iter().map(|arg| arg.to_string().into()).collect();
            let version = Version { index: self.view.rows.next_index, ordinal: 0 };
            let done = run(&self.scripting, &mut self.vm, &self.view, version, what, &args);
            done.map(|(_, effects)| effects).map_err(|error| format!("{error:?}"))
        }

        /// Evaluates, and keeps what that leaves.
        fn run(&mut self, what: Script, line: &[&str]) -> Result<(), String> {
            if let Some(effects) = self.evaluate(what, line)? {
                self.view.rows.apply(effects);
            }
            Ok(())
        }

        fn load(&mut self, library: &str, functions: &[&str]) -> Result<(), String> {
            let code = code(library, functions);
            self.run(Script::FunctionLoad, &["FUNCTION", "LOAD", &code])
        }
    }

    fn code(library: &str, functions: &[&str]) -> String {
        let register = |name| format!("redis.register_function('{name}', function() end)\n");
        let functions: String = functions.iter().map(register).collect();
        format!("#!lua name={library}\n{functions}")
    }

    #[test]
    fn libraries_are_not_read_for_each_that_is_added() {
        let mut leader = Leader::new();
        for number in 0..20 {
            leader.load(&format!("l{number}"), &[&format!("f{number}")]).expect("new names");
        }
        assert!(leader.load("l20", &["F3"]).is_err(), "another library has it");
        assert!(leader.load("l3", &["f3"]).is_err(), "the library is there");
        leader.run(Script::FunctionDelete, &["FUNCTION", "DELETE", "l3"]).expect("there is one");
        leader.load("l20", &["f3"]).expect("nobody has it any more");
        assert_eq!(leader.view.scans.get(), 1, "of an empty table");
    }

    #[test]
    fn what_was_compiled_to_be_loaded_is_not_compiled_to_be_called() {
        let mut leader = Leader::new();
        for name in ["a", "b", "gone"] {
            leader.load(name, &[&format!("f_{name}")]).expect("new names");
        }
        leader.run(Script::FunctionDelete, &["FUNCTION", "DELETE", "gone"]).expect("there is one");
        let changes = |names: &[&str]| {
            let code = |name: &str| Bytes::from(code(name, &[&format!("f_{name}")]));
            names.iter().map(|name| (name.to_string().into(), Some(code(name)))).collect()
        };
        leader.scripting.applied(1, changes(&["a", "b", "gone"]));
        leader.scripting.applied(2, vec![("gone".into(), None)]);
        let called = leader.scripting.functions(&mut leader.vm).expect("they could be loaded");
        let state = state(&leader.view).expect("readable").expect("they changed");
        let loaded = leader.scripting.take_evaluated(&state).expect("evaluated last");
        assert_eq!(called.libraries.len(), 2);
        for (name, library) in &called.libraries {
            assert!(Arc::ptr_eq(library, &loaded.libraries[name]), "{name:?}");
        }
    }

    #[test]
    fn what_was_evaluated_and_never_kept_is_forgotten() {
        let mut leader = Leader::new();
        leader.load("a", &["f"]).expect("new names");
        let lost = ["FUNCTION", "LOAD", &code("b", &["g"])];
        for _ in 0..2 {
            let effects = leader.evaluate(Script::FunctionLoad, &lost).expect("new names");
            assert!(effects.is_some());
        }
        leader.load("c", &["g"]).expect("nobody has it");
        assert!(leader.load("d", &["f"]).is_err(), "a has it");
    }
}
