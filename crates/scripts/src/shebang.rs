//! The first line of a script or a library: `#!lua name=… flags=…`.

use bytes::Bytes;
use commands::{CommandError, Echo};
use wire::resp::split_arguments;

/// What a script or a function said of itself.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Flags(u8);

/// Redis's names of the flags, in the order in which FUNCTION LIST tells them.
pub const FLAG_NAMES: &[&str] =
    &["no-writes", "allow-oom", "allow-stale", "no-cluster", "allow-cross-slot-keys"];

impl Flags {
    /// It does not write.
    pub const NO_WRITES: Flags = Flags(1);
    /// It has no shebang: it says nothing, and its commands are looked at one by one.
    pub const UNSAID: Flags = Flags(1 << 7);

    /// Whether all of `other`'s bits are set.
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits.
    pub fn and(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// The flag of this name; `None` if there is none.
    pub fn named(name: &[u8]) -> Option<Flags> {
        let at = FLAG_NAMES.iter().position(|known| known.as_bytes() == name)?;
        Some(Flags(1 << at))
    }

    /// The names of the flags that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let is_set = move |(at, _): &(usize, &&str)| self.0 & 1 << at != 0;
        FLAG_NAMES.iter().enumerate().filter(is_set).map(|(_, name)| *name)
    }
}

/// A script's flags, and how many bytes its shebang has. The line's end stays with the code, so that
/// lines keep their numbers.
pub(crate) fn of_script(text: &[u8]) -> Result<(Flags, usize), CommandError> {
    if !text.starts_with(b"#!") {
        return Ok((Flags::UNSAID, 0));
    }
    let length = line_length(text).ok_or(CommandError::SHEBANG_INVALID)?;
    let parts = parts(&text[..length]).ok_or(CommandError::SHEBANG_NO_ENGINE)?;
    let (engine, options) = parts.split_first().ok_or(CommandError::SHEBANG_NO_ENGINE)?;
    if engine[..] != b"#!lua"[..] {
        return Err(CommandError::ShebangEngine(Echo::new(engine)));
    }
    let mut flags = Flags::default();
    for option in options {
        let names = option
            .strip_prefix(b"flags=")
            .ok_or_else(|| CommandError::ShebangOption(Echo::new(option)))?;
        for name in names.split(|byte| *byte == b',').filter(|_| !names.is_empty()) {
            let flag = Flags::named(name);
            flags = flags.and(flag.ok_or_else(|| CommandError::ShebangFlag(Echo::new(name)))?);
        }
    }
    Ok((flags, length))
}

/// The name that a library's shebang gives it.
///
/// *Errors*: a shebang that says what cannot be.
pub fn library_name(text: &[u8]) -> Result<Bytes, CommandError> {
    of_library(text).map(|(name, _)| name)
}

/// A library's name, and how many bytes its shebang has.
pub(crate) fn of_library(text: &[u8]) -> Result<(Bytes, usize), CommandError> {
    if !text.starts_with(b"#!") {
        return Err(CommandError::LIBRARY_NO_METADATA);
    }
    let length = line_length(text).ok_or(CommandError::LIBRARY_BAD_METADATA)?;
    let parts = parts(&text[..length]).ok_or(CommandError::LIBRARY_BAD_METADATA)?;
    let (engine, options) = parts.split_first().ok_or(CommandError::LIBRARY_BAD_METADATA)?;
    let mut name = None;
    for option in options {
        let is_name = option.len() >= 5 && option[..5].eq_ignore_ascii_case(b"name=");
        if !is_name {
            return Err(CommandError::LibraryMetadata(Echo::new(option)));
        }
        if name.replace(option.slice(5..)).is_some() {
            return Err(CommandError::LIBRARY_TWO_NAMES);
        }
    }
    let name = name.ok_or(CommandError::LIBRARY_NO_NAME)?;
    if !is_name(&name) {
        return Err(CommandError::FUNCTION_NAME);
    }
    let engine = &engine[2..];
    if !engine.eq_ignore_ascii_case(b"lua") {
        return Err(CommandError::EngineUnknown(Echo::new(engine)));
    }
    Ok((name, length))
}

/// Whether a function or a library may have this name.
pub(crate) fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

fn line_length(text: &[u8]) -> Option<usize> {
    text.iter().position(|byte| *byte == b'\n')
}

fn parts(line: &[u8]) -> Option<Vec<Bytes>> {
    let parts = split_arguments(&Bytes::copy_from_slice(line)).ok()?;
    Some(parts.into_vec()).filter(|parts| !parts.is_empty())
}
