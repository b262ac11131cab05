//! FUNCTION LOAD and its kin, at the leader of the system's partition: libraries are rows.

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

use crate::scripting::{FunctionSet, Scripting, library_key, library_name};
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
    let known = scripting.functions(vm).ok();
    let set = FunctionSet::load(&codes(base)?, known.as_deref(), vm)?;
    let mut change = Change { set, txn: Txn::new(base, next_version) };
    let reply = match what {
        Script::FunctionLoad => change.load(vm, args)?,
        Script::FunctionDelete => change.delete(&args[2])?,
        Script::FunctionFlush => change.flush(args)?,
        Script::FunctionRestore => change.restore(vm, args)?,
        Script::FunctionList => return Ok((list(&change.set, args)?, None)),
        Script::FunctionDump => {
            let codes = change.set.libraries.values().map(|library| &library.code);
            return Ok((Reply::Bulk(payload_of_functions(codes)), None));
        }
        other => {
            let text = format!("{other:?} is not about functions");
            return Err(CommandError::Operator(text));
        }
    };
    Ok((reply, Some(change.txn.into_effects())))
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
        self.set.remove(&name);
        self.check_functions(&library)?;
        self.put(library)?;
        Ok(Reply::Bulk(name))
    }

    /// Refuses a library with a function that another one has.
    fn check_functions(&self, library: &Library) -> Result<(), CommandError> {
        let taken = |name: &Bytes| self.set.library_with(name).is_some();
        match library.functions.iter().find(|function| taken(&function.name)) {
            Some(function) => Err(CommandError::FunctionExists(Echo::new(&function.name))),
            None => Ok(()),
        }
    }

    fn put(&mut self, library: Arc<Library>) -> Result<(), CommandError> {
        self.write("SET", &[library_key(&library.name), library.code.clone()])?;
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
        self.set.remove(name).ok_or(CommandError::LIBRARY_NOT_FOUND)?;
        self.write("DEL", &[library_key(name)])?;
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
