//! A selector: a set of commands, keys and channels that go together.

use std::collections::BTreeMap;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Channels, channels_of, lookup};
use crate::command::{Flags, KeyFlags, Run};
use crate::docs;
use crate::error::{AclRuleError, CommandError, Echo};
use crate::glob;
use crate::keys::{key_flags_of_line, key_positions};
use crate::table::{self, Entry};

/// What a key pattern allows; bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Access(u8);

impl Access {
    const READ: Access = Access(1);
    const WRITE: Access = Access(2);
    const BOTH: Access = Access(3);

    /// What a command needs that does this with a key. Looking at metadata (TYPE, EXISTS) needs
    /// nothing but a pattern that matches.
    fn needed(flags: KeyFlags) -> Access {
        let has = |flag: KeyFlags| flags.0 & flag.0 != 0;
        let writes = has(KeyFlags::INSERT) || has(KeyFlags::DELETE) || has(KeyFlags::UPDATE);
        Access(u8::from(has(KeyFlags::ACCESS)) | (u8::from(writes) << 1))
    }

    fn covers(self, needed: Access) -> bool {
        self.0 & needed.0 == needed.0
    }

    fn prefix(self) -> &'static [u8] {
        match self {
            Access::READ => b"%R~",
            Access::WRITE => b"%W~",
            _ => b"~",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct KeyPattern {
    pattern: Bytes,
    access: Access,
}

/// What keeps a user from running a command line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// The command.
    Command,
    /// A key.
    Key,
    /// A channel.
    Channel,
}

/// A refusal: why, and the position of the argument that it is about (0: the command itself).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Denied {
    /// Why.
    pub reason: Reason,
    /// Which argument.
    pub at: usize,
}

impl Denied {
    /// The refusal as the client that sent the line gets it: it names no key.
    pub fn to_error(self, user: &[u8], entry: &Entry) -> CommandError {
        CommandError::NoPermission(self.in_words(user, entry))
    }

    /// The refusal of a command that a script runs.
    pub fn to_error_of_script(self, user: &[u8], entry: &Entry) -> CommandError {
        CommandError::ScriptNoPermission(self.in_words(user, entry))
    }

    fn in_words(self, user: &[u8], entry: &Entry) -> Echo {
        match self.reason {
            Reason::Command => Echo::new(&self.to_dryrun(user, entry, &[])),
            Reason::Key => Echo::new(b"No permissions to access a key"),
            Reason::Channel => Echo::new(b"No permissions to access a channel"),
        }
    }

    /// The refusal of a queued command, as EXEC tells it.
    pub fn to_error_of_exec(self) -> CommandError {
        CommandError::NoPermissionAtExec(match self.reason {
            Reason::Command => "no permission to execute the command or subcommand",
            Reason::Key => "no permission to touch the specified keys",
            Reason::Channel => {
                "no permission to access one of the channels used as arguments to the command"
            }
        })
    }

    /// The refusal as ACL DRYRUN tells it.
    pub fn to_dryrun(self, user: &[u8], entry: &Entry, args: &[Bytes]) -> Bytes {
        let named = args.get(self.at).cloned().unwrap_or_default();
        let (does, object, kind) = match self.reason {
            Reason::Command => ("run", Bytes::from(entry.full_name()), "command"),
            Reason::Key => ("access", named, "key"),
            Reason::Channel => ("access", named, "channel"),
        };
        let does = format!(" has no permissions to {does} the '");
        let text = [b"User ", user, does.as_bytes(), &object, b"' ", kind.as_bytes()];
        Bytes::from(text.concat())
    }

    /// What ACL LOG calls the object of the refusal.
    pub fn object(self, entry: &Entry, args: &[Bytes]) -> Bytes {
        match (self.reason, args.get(self.at)) {
            (Reason::Key | Reason::Channel, Some(arg)) => Bytes::copy_from_slice(arg),
            _ => Bytes::from(entry.full_name()),
        }
    }
}

/// See the module's text.
#[derive(Clone, PartialEq, Debug)]
pub struct Selector {
    commands: CommandSet,
    all_keys: bool,
    keys: Vec<KeyPattern>,
    all_channels: bool,
    channels: Vec<Bytes>,
}

/// The keys of a command line and what is done with them, found at most once for all selectors.
pub(super) type KeysOfLine = Option<Result<SmallVec<[(usize, Access); 4]>, ()>>;

impl Selector {
    /// A selector that allows nothing, but for channels if that is the default.
    pub(super) fn new(all_channels: bool) -> Selector {
        Selector {
            commands: CommandSet::nothing(),
            all_keys: false,
            keys: Vec::new(),
            all_channels,
            channels: Vec::new(),
        }
    }

    /// Whether nothing has to be checked: every command, key and channel is allowed.
    pub(super) fn is_unrestricted(&self) -> bool {
        self.commands.is_unchecked && self.all_keys && self.all_channels
    }

    /// Whether every channel is allowed.
    pub fn allows_all_channels(&self) -> bool {
        self.all_channels
    }

    /// The patterns of channels, if not all are allowed.
    pub fn channel_patterns(&self) -> &[Bytes] {
        &self.channels
    }

    /// Applies a rule.
    ///
    /// *Errors*: what is wrong with it; nothing has changed then.
    pub(super) fn apply(&mut self, rule: &[u8]) -> Result<(), AclRuleError> {
        let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
        if is("allkeys") || is("~*") {
            (self.all_keys, self.keys) = (true, Vec::new());
        } else if is("resetkeys") {
            (self.all_keys, self.keys) = (false, Vec::new());
        } else if is("allchannels") || is("&*") {
            (self.all_channels, self.channels) = (true, Vec::new());
        } else if is("resetchannels") {
            (self.all_channels, self.channels) = (false, Vec::new());
        } else if is("allcommands") || is("+@all") {
            self.commands = CommandSet::everything();
        } else if is("nocommands") || is("-@all") {
            self.commands = CommandSet::nothing();
        } else {
            match rule {
                [b'~', pattern @ ..] => self.add_keys(Access::BOTH, pattern)?,
                [b'%', rest @ ..] => {
                    if self.all_keys {
                        return Err(AclRuleError::AfterAllKeys);
                    }
                    let (access, pattern) = access_of(rest)?;
                    self.add_keys(access, pattern)?;
                }
                [b'&', pattern @ ..] => self.add_channels(pattern)?,
                [sign @ (b'+' | b'-'), b'@', category @ ..] => {
                    self.commands.apply_category(category, *sign == b'+')?;
                }
                [b'+', name @ ..] => self.commands.allow(name)?,
                [b'-', name @ ..] => self.commands.deny(name)?,
                _ => return Err(AclRuleError::Syntax),
            }
        }
        Ok(())
    }

    fn add_keys(&mut self, access: Access, pattern: &[u8]) -> Result<(), AclRuleError> {
        if self.all_keys {
            return Err(AclRuleError::AfterAllKeys);
        }
        if has_spaces(pattern) {
            return Err(AclRuleError::Syntax);
        }
        match self.keys.iter_mut().find(|known| known.pattern == pattern) {
            Some(known) => known.access = Access(known.access.0 | access.0),
            None => {
                self.keys.push(KeyPattern { pattern: Bytes::copy_from_slice(pattern), access });
            }
        }
        Ok(())
    }

    fn add_channels(&mut self, pattern: &[u8]) -> Result<(), AclRuleError> {
        if self.all_channels {
            return Err(AclRuleError::AfterAllChannels);
        }
        if has_spaces(pattern) {
            return Err(AclRuleError::Syntax);
        }
        if !self.channels.iter().any(|known| known == pattern) {
            self.channels.push(Bytes::copy_from_slice(pattern));
        }
        Ok(())
    }

    /// Whether a command line may run.
    pub(super) fn check(
        &self,
        entry: &Entry,
        args: &[Bytes],
        keys: &mut KeysOfLine,
    ) -> Result<(), Denied> {
        // What may be said before AUTH may be said by anybody.
        if !entry.command.flags.has(Flags::NO_AUTH) && !self.commands.has(entry, args) {
            return Err(Denied { reason: Reason::Command, at: 0 });
        }
        if !self.all_keys {
            let found = keys.get_or_insert_with(|| keys_of(entry, args));
            let Ok(found) = found else { return Err(Denied { reason: Reason::Key, at: 0 }) };
            for (at, needed) in found {
                if !self.allows_key(&args[*at], *needed) {
                    return Err(Denied { reason: Reason::Key, at: *at });
                }
            }
        }
        if !self.all_channels
            && let Some((positions, kind)) = channels_of(entry, args.len())
        {
            for at in positions {
                if !self.allows_channel(&args[at], kind) {
                    return Err(Denied { reason: Reason::Channel, at });
                }
            }
        }
        Ok(())
    }

    fn allows_key(&self, key: &[u8], needed: Access) -> bool {
        self.all_keys
            || self
                .keys
                .iter()
                .any(|known| known.access.covers(needed) && glob::matches(&known.pattern, key))
    }

    /// Whether every key may be read.
    pub(super) fn reads_all_keys(&self) -> bool {
        let all = |known: &KeyPattern| known.access.covers(Access::READ) && known.pattern == "*";
        self.all_keys || self.keys.iter().any(all)
    }

    /// Whether a channel, or a pattern of channels, may be used.
    pub(super) fn allows_channel(&self, channel: &[u8], kind: Channels) -> bool {
        self.all_channels
            || self.channels.iter().any(|known| match kind {
                Channels::Named => glob::matches(known, channel),
                Channels::Patterns => known == channel,
            })
    }

    /// The rules of keys, channels and commands, as ACL LIST tells them.
    pub(super) fn describe(&self, out: &mut Vec<u8>) {
        for keys in self.key_rules() {
            out.extend_from_slice(&keys);
            out.push(b' ');
        }
        if !self.all_channels {
            out.extend_from_slice(b"resetchannels ");
        }
        for channels in self.channel_rules() {
            out.extend_from_slice(&channels);
            out.push(b' ');
        }
        out.extend_from_slice(self.command_rules().as_bytes());
    }

    /// The rules of keys.
    pub fn key_rules(&self) -> Vec<Vec<u8>> {
        if self.all_keys {
            return vec![b"~*".to_vec()];
        }
        self.keys.iter().map(|known| [known.access.prefix(), &known.pattern].concat()).collect()
    }

    /// The rules of channels.
    pub fn channel_rules(&self) -> Vec<Vec<u8>> {
        if self.all_channels {
            return vec![b"&*".to_vec()];
        }
        self.channels.iter().map(|known| [&b"&"[..], known].concat()).collect()
    }

    /// The rules of commands, which begin with all or none.
    pub fn command_rules(&self) -> String {
        let first = if self.commands.is_from_all { "+@all" } else { "-@all" };
        let rules = self.commands.rules.iter().map(String::as_str);
        std::iter::once(first).chain(rules).collect::<Vec<_>>().join(" ")
    }
}

/// The letters before the pattern of a `%` rule, and the pattern.
fn access_of(rest: &[u8]) -> Result<(Access, &[u8]), AclRuleError> {
    let mut access = Access(0);
    for (at, letter) in rest.iter().enumerate() {
        let more = match letter.to_ascii_uppercase() {
            b'R' => Access::READ,
            b'W' => Access::WRITE,
            b'~' if access.0 != 0 => return Ok((access, &rest[at + 1..])),
            _ => return Err(AclRuleError::Syntax),
        };
        if access.covers(more) {
            return Err(AclRuleError::Syntax);
        }
        access = Access(access.0 | more.0);
    }
    Err(AclRuleError::Syntax)
}

/// Blanks and NULs would make the rule another one when it is read back.
pub(super) fn has_spaces(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, 0 | 9..=13 | b' '))
}

fn keys_of(entry: &Entry, args: &[Bytes]) -> Result<SmallVec<[(usize, Access); 4]>, ()> {
    let positions = match key_positions(entry.command, args) {
        Ok(positions) => positions,
        // A script is refused for it before it begins, and what it runs is checked by itself.
        Err(_) if entry.command.flags.has(Flags::NO_MANDATORY_KEYS) => SmallVec::new(),
        Err(_) => return Err(()),
    };
    let needed = |(nth, at): (usize, &usize)| {
        let flags = key_flags_of_line(entry.command, nth, args).unwrap_or(KeyFlags(0));
        // What only routes like a key (a shard channel) is none.
        (flags.0 & KeyFlags::NOT_KEY.0 == 0).then(|| (*at, Access::needed(flags)))
    };
    Ok(positions.iter().enumerate().filter_map(needed).collect())
}

/// A set of commands, and the rules that made it.
#[derive(Clone, PartialEq, Debug)]
struct CommandSet {
    /// All commands, those of later versions included: nothing has to be looked up.
    is_unchecked: bool,
    /// The rules began with `+@all`.
    is_from_all: bool,
    /// A bit for each row of the table.
    bits: Vec<u64>,
    /// Of commands that are not allowed, the first arguments with which they are, in lower case.
    first_args: BTreeMap<u16, Vec<Vec<u8>>>,
    /// After the first, which is all or none; in the order they were given.
    rules: Vec<String>,
}

const WORD_BITS: usize = u64::BITS as usize;

impl CommandSet {
    fn nothing() -> CommandSet {
        let words = table::entries().len().div_ceil(WORD_BITS);
        CommandSet {
            is_unchecked: false,
            is_from_all: false,
            bits: vec![0; words],
            first_args: BTreeMap::new(),
            rules: Vec::new(),
        }
    }

    fn everything() -> CommandSet {
        let mut all = CommandSet::nothing();
        (all.is_unchecked, all.is_from_all) = (true, true);
        all.bits.fill(u64::MAX);
        all
    }

    fn has(&self, entry: &Entry, args: &[Bytes]) -> bool {
        if self.is_unchecked || self.bit(entry.id.0) {
            return true;
        }
        let at = if entry.group.is_some() { 2 } else { 1 };
        match (self.first_args.get(&entry.id.0), args.get(at)) {
            (Some(allowed), Some(arg)) => allowed.iter().any(|word| arg.eq_ignore_ascii_case(word)),
            _ => false,
        }
    }

    fn bit(&self, id: u16) -> bool {
        let id = usize::from(id);
        self.bits[id / WORD_BITS] >> (id % WORD_BITS) & 1 == 1
    }

    /// Changes a command, and the subcommands of a group.
    fn set(&mut self, entry: &Entry, allow: bool) {
        self.first_args.remove(&entry.id.0);
        for id in std::iter::once(entry.id).chain(entry.subcommands.iter().copied()) {
            let id = usize::from(id.0);
            if allow {
                self.bits[id / WORD_BITS] |= 1 << (id % WORD_BITS);
            } else {
                self.bits[id / WORD_BITS] &= !(1 << (id % WORD_BITS));
                self.is_unchecked = false;
            }
        }
    }

    /// Notes a rule in place of an older one of the same command, or of a subcommand of it.
    fn note(&mut self, name: &str, allow: bool) {
        let name = name.to_ascii_lowercase();
        let is_older = |rule: &String| {
            rule[1..]
                .strip_prefix(&name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('|'))
        };
        self.rules.retain(|rule| !is_older(rule));
        self.rules.push(format!("{}{name}", if allow { '+' } else { '-' }));
    }

    fn apply_category(&mut self, name: &[u8], allow: bool) -> Result<(), AclRuleError> {
        let category = docs::CATEGORIES
            .iter()
            .find(|known| name.eq_ignore_ascii_case(known.as_bytes()))
            .ok_or(AclRuleError::Unknown)?;
        self.note(&format!("@{category}"), allow);
        for entry in table::entries() {
            if docs::categories(entry).contains(category) {
                self.set(entry, allow);
            }
        }
        Ok(())
    }

    fn allow(&mut self, name: &[u8]) -> Result<(), AclRuleError> {
        let Some(bar) = name.iter().rposition(|byte| *byte == b'|') else {
            let entry = lookup(name).ok_or(AclRuleError::Unknown)?;
            self.set(entry, true);
            self.note(&entry.full_name(), true);
            return Ok(());
        };
        let (group, argument) = (&name[..bar], &name[bar + 1..]);
        let entry = lookup(group).ok_or(AclRuleError::Unknown)?;
        if entry.group.is_some() {
            return Err(AclRuleError::ArgumentOfSubcommand);
        }
        if argument.is_empty() {
            return Err(AclRuleError::Syntax);
        }
        if matches!(entry.command.run, Run::Group(_)) {
            let entry = lookup(name).ok_or(AclRuleError::Unknown)?;
            self.set(entry, true);
            self.note(&entry.full_name(), true);
            return Ok(());
        }
        // An argument goes into a line of words, and back out of it.
        let text = std::str::from_utf8(argument).map_err(|_| AclRuleError::Syntax)?;
        if has_spaces(argument) || argument.contains(&b')') {
            return Err(AclRuleError::Syntax);
        }
        let word = argument.to_ascii_lowercase();
        let allowed = self.first_args.entry(entry.id.0).or_default();
        if !allowed.contains(&word) {
            allowed.push(word);
        }
        let rule = format!("{}|{}", entry.full_name(), text);
        // Not [`Self::note`]: other arguments of the command stay allowed.
        let rule = format!("+{}", rule.to_ascii_lowercase());
        self.rules.retain(|known| *known != rule);
        self.rules.push(rule);
        Ok(())
    }

    fn deny(&mut self, name: &[u8]) -> Result<(), AclRuleError> {
        let entry = lookup(name).ok_or(AclRuleError::Unknown)?;
        self.set(entry, false);
        self.note(&entry.full_name(), false);
        Ok(())
    }
}

/// The refusal of a rule of ACL SETUSER.
pub(super) fn refused(rule: &[u8], why: AclRuleError) -> CommandError {
    CommandError::AclModifier(Echo::new(rule), why)
}
