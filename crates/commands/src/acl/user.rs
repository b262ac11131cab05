//! Users: who may log in with what, and the selectors that say what they may do.

use std::fmt::Write;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Channels;
use super::selector::{Denied, KeysOfLine, Reason, Selector, has_spaces, refused};
use crate::error::{AclRuleError, CommandError, Echo};
use crate::table::Entry;

/// Bits of a password that ACL GENPASS makes if it is not told how many.
pub const GENPASS_BITS_DEFAULT: i64 = 256;
/// Most bits that ACL GENPASS makes.
pub const GENPASS_BITS_MAX: i64 = 4096;

/// What a new user may do that no rule speaks of.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Defaults {
    /// All channels are allowed (`acl-pubsub-default`).
    pub all_channels: bool,
}

/// A password's SHA-256.
type Hash = [u8; 32];

/// See the module's text.
#[derive(Clone, PartialEq, Debug)]
pub struct User {
    name: Bytes,
    enabled: bool,
    no_password: bool,
    /// Whether it is told that payloads are checked. They always are.
    sanitize: bool,
    passwords: Vec<Hash>,
    root: Selector,
    selectors: Vec<Selector>,
}

/// *Errors*: the name has blanks or NULs.
pub fn check_name(name: &[u8]) -> Result<(), CommandError> {
    if has_spaces(name) { Err(CommandError::ACL_USERNAME) } else { Ok(()) }
}

impl User {
    /// A user who cannot log in and may do nothing.
    pub fn new(name: &[u8], defaults: Defaults) -> User {
        User {
            name: Bytes::copy_from_slice(name),
            enabled: false,
            no_password: false,
            sanitize: true,
            passwords: Vec::new(),
            root: Selector::new(defaults.all_channels),
            selectors: Vec::new(),
        }
    }

    /// The user of connections that have not said otherwise: may do everything.
    pub fn default_user() -> User {
        let mut user = User::new(b"default", Defaults::default());
        for rule in ["+@all", "~*", "&*", "on", "nopass"] {
            let applied = user.apply(rule.as_bytes(), Defaults::default());
            applied.expect("a rule of this module's own");
        }
        user
    }

    /// The user's name.
    pub fn name(&self) -> &Bytes {
        &self.name
    }

    /// Whether the user may log in.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether any password is right.
    pub fn needs_no_password(&self) -> bool {
        self.no_password
    }

    /// Whether nothing that the user sends has to be checked.
    pub fn is_unrestricted(&self) -> bool {
        self.root.is_unrestricted()
    }

    /// The selector that rules outside of parentheses go to.
    pub fn root(&self) -> &Selector {
        &self.root
    }

    /// The others.
    pub fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    /// The words of the user's flags, as ACL GETUSER tells them.
    pub fn flags(&self) -> Vec<&'static str> {
        let flags = [
            ("on", self.enabled),
            ("off", !self.enabled),
            ("nopass", self.no_password),
            ("skip-sanitize-payload", !self.sanitize),
            ("sanitize-payload", self.sanitize),
        ];
        flags.into_iter().filter(|(_, is)| *is).map(|(word, _)| word).collect()
    }

    /// The hashes of the user's passwords, in hexadecimal.
    pub fn password_hashes(&self) -> Vec<String> {
        self.passwords.iter().map(hex).collect()
    }

    /// Whether the user may log in with this password. Takes as long for a wrong one as for a right one.
    pub fn accepts(&self, password: &[u8]) -> bool {
        let hash: Hash = Sha256::digest(password).into();
        let right = self.passwords.iter().fold(subtle::Choice::from(0), |right, known| {
            right | known.as_slice().ct_eq(hash.as_slice())
        });
        self.enabled && (self.no_password || bool::from(right))
    }

    /// The user after these rules, all of them or none.
    ///
    /// *Errors*: the first that is wrong, and why.
    pub fn with_rules<R: AsRef<[u8]>>(
        &self,
        rules: &[R],
        defaults: Defaults,
    ) -> Result<User, CommandError> {
        let mut user = self.clone();
        for rule in joined(rules)? {
            user.apply(&rule, defaults).map_err(|why| refused(&rule, why))?;
        }
        Ok(user)
    }

    /// The user with this password alone, or none (`requirepass`).
    pub fn with_only_password(&self, password: &[u8]) -> User {
        let mut user = self.clone();
        user.no_password = password.is_empty();
        user.passwords.clear();
        if !password.is_empty() {
            user.passwords.push(Sha256::digest(password).into());
        }
        user
    }

    /// Applies a rule.
    ///
    /// *Errors*: what is wrong with it.
    pub(super) fn apply(&mut self, rule: &[u8], defaults: Defaults) -> Result<(), AclRuleError> {
        match rule.to_ascii_lowercase().as_slice() {
            b"" => {}
            b"on" => self.enabled = true,
            b"off" => self.enabled = false,
            b"skip-sanitize-payload" => self.sanitize = false,
            b"sanitize-payload" => self.sanitize = true,
            b"nopass" => {
                self.no_password = true;
                self.passwords.clear();
            }
            b"resetpass" => {
                self.no_password = false;
                self.passwords.clear();
            }
            b"clearselectors" => self.selectors.clear(),
            b"reset" => *self = User::new(&self.name.clone(), defaults),
            _ => self.apply_with_text(rule, defaults)?,
        }
        Ok(())
    }

    fn apply_with_text(&mut self, rule: &[u8], defaults: Defaults) -> Result<(), AclRuleError> {
        match rule {
            [b'>', password @ ..] => self.add_password(Sha256::digest(password).into()),
            [b'#', hash @ ..] => self.add_password(unhex(hash)?),
            [b'<', password @ ..] => self.remove_password(&Sha256::digest(password).into())?,
            [b'!', hash @ ..] => self.remove_password(&unhex(hash)?)?,
            [b'(', rules @ .., b')'] => {
                let mut selector = Selector::new(defaults.all_channels);
                for rule in words(rules) {
                    // Read back from a line, it would be the end of the selector.
                    if rule.ends_with(b")") {
                        return Err(AclRuleError::Syntax);
                    }
                    selector.apply(rule)?;
                }
                self.selectors.push(selector);
            }
            _ => self.root.apply(rule)?,
        }
        Ok(())
    }

    fn add_password(&mut self, hash: Hash) {
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
        self.no_password = false;
    }

    fn remove_password(&mut self, hash: &Hash) -> Result<(), AclRuleError> {
        let at = self.passwords.iter().position(|known| known == hash);
        self.passwords.remove(at.ok_or(AclRuleError::NoSuchPassword)?);
        Ok(())
    }

    fn all_selectors(&self) -> impl Iterator<Item = &Selector> {
        std::iter::once(&self.root).chain(&self.selectors)
    }

    /// Whether a command line may run; arguments as they came, the name first.
    ///
    /// *Errors*: the refusal of the selector that came furthest.
    pub fn check(&self, entry: &Entry, args: &[Bytes]) -> Result<(), Denied> {
        let mut keys: KeysOfLine = None;
        let mut furthest = Denied { reason: Reason::Command, at: 0 };
        for selector in self.all_selectors() {
            match selector.check(entry, args, &mut keys) {
                Ok(()) => return Ok(()),
                Err(denied) => furthest = furthest.max(denied),
            }
        }
        Err(furthest)
    }

    /// Which option of a SORT is refused, if one is: BY and GET read keys that no row knows, so they
    /// are for those who may read all.
    ///
    /// *Errors*: the refusal.
    pub fn check_sort(&self, entry: &Entry, args: &[Bytes]) -> Result<(), CommandError> {
        if !matches!(entry.command.name, "SORT" | "SORT_RO") {
            return Ok(());
        }
        let reads_all = self.all_selectors().any(|selector| {
            selector.reads_all_keys() && selector.check(entry, args, &mut None).is_ok()
        });
        if reads_all {
            return Ok(());
        }
        let mut at = 2;
        while let Some(word) = args.get(at) {
            let value = args.get(at + 1);
            at += match word.to_ascii_uppercase().as_slice() {
                b"LIMIT" => 3,
                b"STORE" => 2,
                b"BY" => {
                    if value.is_some_and(|pattern| pattern.contains(&b'*')) {
                        return Err(CommandError::SORT_BY_DENIED);
                    }
                    2
                }
                b"GET" if value.is_some() => return Err(CommandError::SORT_GET_DENIED),
                _ => 1,
            };
        }
        Ok(())
    }

    /// Whether the user may subscribe to a channel.
    pub fn may_subscribe(&self, channel: &[u8]) -> bool {
        self.all_selectors().any(|selector| selector.allows_channel(channel, Channels::Named))
    }

    /// Whether the user may subscribe to a pattern of channels.
    pub fn may_subscribe_pattern(&self, pattern: &[u8]) -> bool {
        self.all_selectors().any(|selector| selector.allows_channel(pattern, Channels::Patterns))
    }

    /// Whether the user may publish to a channel.
    pub fn may_publish(&self, channel: &[u8]) -> bool {
        self.may_subscribe(channel)
    }

    /// Whether this user keeps every channel that `before` allowed, so that no subscription has to be
    /// looked at: allowed patterns are compared letter by letter.
    pub fn keeps_channels_of(&self, before: &User) -> bool {
        if self.all_selectors().any(Selector::allows_all_channels) {
            return true;
        }
        let now: Vec<&Bytes> = self.all_selectors().flat_map(Selector::channel_patterns).collect();
        before.all_selectors().all(|selector| {
            !selector.allows_all_channels()
                && selector.channel_patterns().iter().all(|pattern| now.contains(&pattern))
        })
    }

    /// The user as a line of ACL LIST and of the ACL file.
    pub fn describe(&self) -> Vec<u8> {
        let mut out = [b"user ", &self.name[..], b" "].concat();
        for flag in self.flags() {
            out.extend_from_slice(flag.as_bytes());
            out.push(b' ');
        }
        for hash in self.password_hashes() {
            out.extend_from_slice(format!("#{hash} ").as_bytes());
        }
        self.root.describe(&mut out);
        for selector in &self.selectors {
            out.extend_from_slice(b" (");
            selector.describe(&mut out);
            out.push(b')');
        }
        out
    }
}

/// The words of a selector's text.
fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty())
}

/// Rules, those of a selector that was spread over several arguments put together.
///
/// *Errors*: a parenthesis that is not closed.
pub(super) fn joined<R: AsRef<[u8]>>(rules: &[R]) -> Result<Vec<Vec<u8>>, CommandError> {
    let mut all: Vec<Vec<u8>> = Vec::with_capacity(rules.len());
    let mut open: Option<(usize, Vec<u8>)> = None;
    for (at, rule) in rules.iter().map(AsRef::as_ref).enumerate() {
        let closes = rule.last() == Some(&b')');
        match &mut open {
            Some((_, selector)) => {
                selector.push(b' ');
                selector.extend_from_slice(rule);
                if closes {
                    all.extend(open.take().map(|(_, selector)| selector));
                }
            }
            None if rule.first() == Some(&b'(') && !closes => open = Some((at, rule.to_vec())),
            None => all.push(rule.to_vec()),
        }
    }
    match open {
        Some((at, _)) => Err(CommandError::AclUnmatched(Echo::new(rules[at].as_ref()))),
        None => Ok(all),
    }
}

fn hex(hash: &Hash) -> String {
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &[u8]) -> Result<Hash, AclRuleError> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(AclRuleError::NoHash),
    };
    let mut hash = [0; 32];
    if text.len() != 2 * hash.len() {
        return Err(AclRuleError::NoHash);
    }
    for (byte, pair) in hash.iter_mut().zip(text.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Ok(hash)
}
