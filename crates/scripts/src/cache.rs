//! The scripts known by their SHA-1. Those of SCRIPT LOAD stay until SCRIPT FLUSH; of those that came
//! with EVAL the least recently used go, as in Redis since 7.4. Nothing of it survives a restart:
//! NOSCRIPT is the contract, and a client sends the text again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use commands::CommandError;
use parking_lot::Mutex;
use sha1::{Digest, Sha1};

use crate::shebang::{self, Flags};

/// Scripts of EVAL that are kept.
pub const EVAL_SCRIPTS_MAX: usize = 500;
/// Bytes of text of EVAL's scripts that are kept.
pub const EVAL_TEXT_BYTES_MAX: usize = 64 << 20;
/// Digits of a SHA-1.
pub const SHA_DIGITS: usize = 40;

type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// A script.
#[derive(Debug)]
pub struct Script {
    /// Its SHA-1 in hexadecimal digits.
    pub sha: Bytes,
    /// Its text, shebang included.
    pub text: Bytes,
    /// What its shebang says.
    pub flags: Flags,
    /// Bytes of the shebang.
    pub(crate) shebang: usize,
}

impl Script {
    /// Reads a script's shebang. The code itself is looked at when it is compiled.
    ///
    /// *Errors*: a shebang that says what cannot be.
    pub fn parse(text: &[u8]) -> Result<Script, CommandError> {
        let (flags, shebang) = shebang::of_script(text)?;
        Ok(Script { sha: sha1_hex(text), text: Bytes::copy_from_slice(text), flags, shebang })
    }
}

/// The SHA-1 of a text in hexadecimal digits.
pub fn sha1_hex(text: &[u8]) -> Bytes {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    Sha1::digest(text).iter().flat_map(|byte| digits(*byte)).collect()
}

struct Known {
    script: Arc<Script>,
    /// Came with SCRIPT LOAD.
    is_loaded: bool,
    last_used: u64,
}

#[derive(Default)]
struct Scripts {
    by_sha: Map<Bytes, Known>,
    /// Texts as EVAL sends them, to spare their SHA-1.
    by_text: Map<Bytes, Bytes>,
    eval_count: usize,
    eval_bytes: usize,
    uses: u64,
}

/// See the module's text.
#[derive(Default)]
pub struct ScriptCache {
    scripts: Mutex<Scripts>,
    evicted: AtomicU64,
}

impl std::fmt::Debug for ScriptCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScriptCache").field("scripts", &self.len()).finish()
    }
}

impl ScriptCache {
    /// The script of this text, made known if it was not.
    ///
    /// *Errors*: a wrong shebang.
    pub fn eval(&self, text: &[u8]) -> Result<Arc<Script>, CommandError> {
        self.of_text(text, false)
    }

    /// The same, to stay until all are forgotten.
    ///
    /// *Errors*: a wrong shebang.
    pub fn load(&self, text: &[u8]) -> Result<Arc<Script>, CommandError> {
        self.of_text(text, true)
    }

    fn of_text(&self, text: &[u8], loads: bool) -> Result<Arc<Script>, CommandError> {
        let mut scripts = self.scripts.lock();
        if let Some(sha) = scripts.by_text.get(text).cloned()
            && let Some(script) = scripts.touch(&sha)
        {
            if loads {
                scripts.keep(&sha);
            }
            return Ok(script);
        }
        drop(scripts);
        let script = Arc::new(Script::parse(text)?);
        let evicted = self.scripts.lock().add(&script, loads);
        self.evicted.fetch_add(evicted, Relaxed);
        Ok(script)
    }

    /// Forgets a script that does not compile.
    pub fn forget(&self, script: &Script) {
        self.scripts.lock().remove(&script.sha);
    }

    /// The script of a SHA-1, in digits of either case.
    pub fn find(&self, sha: &[u8]) -> Option<Arc<Script>> {
        if sha.len() != SHA_DIGITS {
            return None;
        }
        self.scripts.lock().touch(&sha.to_ascii_lowercase())
    }

    /// Whether a script is known by this SHA-1, in digits of either case.
    pub fn exists(&self, sha: &[u8]) -> bool {
        self.scripts.lock().by_sha.contains_key(&sha.to_ascii_lowercase()[..])
    }

    /// Forgets all.
    pub fn flush(&self) {
        *self.scripts.lock() = Scripts::default();
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.scripts.lock().by_sha.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many had to go since the start.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }
}

impl Scripts {
    fn touch(&mut self, sha: &[u8]) -> Option<Arc<Script>> {
        self.uses += 1;
        let known = self.by_sha.get_mut(sha)?;
        known.last_used = self.uses;
        Some(Arc::clone(&known.script))
    }

    fn keep(&mut self, sha: &[u8]) {
        let Some(known) = self.by_sha.get_mut(sha).filter(|known| !known.is_loaded) else { return };
        known.is_loaded = true;
        self.eval_count -= 1;
        self.eval_bytes -= known.script.text.len();
    }

    /// Adds a script; how many others had to go.
    fn add(&mut self, script: &Arc<Script>, is_loaded: bool) -> u64 {
        self.remove(&script.sha);
        let mut evicted = 0;
        if !is_loaded {
            let bytes = script.text.len();
            while self.eval_count >= EVAL_SCRIPTS_MAX
                || (self.eval_count > 0 && self.eval_bytes + bytes > EVAL_TEXT_BYTES_MAX)
            {
                let of_eval = self.by_sha.values().filter(|known| !known.is_loaded);
                let oldest = of_eval.min_by_key(|known| known.last_used);
                let Some(sha) = oldest.map(|known| known.script.sha.clone()) else { break };
                self.remove(&sha);
                evicted += 1;
            }
            self.eval_count += 1;
            self.eval_bytes += bytes;
        }
        self.uses += 1;
        let last_used = self.uses;
        self.by_text.insert(script.text.clone(), script.sha.clone());
        let known = Known { script: Arc::clone(script), is_loaded, last_used };
        self.by_sha.insert(script.sha.clone(), known);
        evicted
    }

    fn remove(&mut self, sha: &[u8]) {
        let Some(known) = self.by_sha.remove(sha) else { return };
        self.by_text.remove(&known.script.text);
        if !known.is_loaded {
            self.eval_count -= 1;
            self.eval_bytes -= known.script.text.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_redis() {
        assert_eq!(sha1_hex(b"return 1"), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        let cache = ScriptCache::default();
        cache.load(b"return 1").expect("a script");
        let upper = b"E0E1F9FABFC9D4800C877A703B823AC0578FF8DB";
        assert!(cache.exists(upper) && cache.find(upper).is_some());
    }

    #[test]
    fn scripts_of_eval_go_and_loaded_ones_stay() {
        let cache = ScriptCache::default();
        let loaded = cache.load(b"return 'loaded'").expect("a script");
        let first = cache.eval(b"return 'first'").expect("a script");
        let second = cache.eval(b"return 'second'").expect("a script");
        for number in 0..EVAL_SCRIPTS_MAX - 2 {
            cache.eval(format!("return {number}").as_bytes()).expect("a script");
        }
        assert_eq!((cache.len(), cache.evicted()), (EVAL_SCRIPTS_MAX + 1, 0));
        assert!(cache.find(&first.sha).is_some());
        cache.eval(b"return 'one more'").expect("a script");
        assert_eq!((cache.len(), cache.evicted()), (EVAL_SCRIPTS_MAX + 1, 1));
        assert!(cache.exists(&loaded.sha) && cache.exists(&first.sha));
        assert!(!cache.exists(&second.sha));
        cache.load(b"return 'first'").expect("a script");
        for number in 0..EVAL_SCRIPTS_MAX {
            cache.eval(format!("return -{number}").as_bytes()).expect("a script");
        }
        assert!(cache.exists(&first.sha), "SCRIPT LOAD keeps what EVAL brought");
        cache.flush();
        assert!(cache.is_empty());
    }

    #[test]
    fn large_texts_take_the_place_of_several() {
        let cache = ScriptCache::default();
        let text =
            |letter: char| format!("--{}", letter.to_string().repeat(EVAL_TEXT_BYTES_MAX / 2));
        for letter in ['a', 'b', 'c'] {
            cache.eval(text(letter).as_bytes()).expect("a script");
        }
        assert_eq!((cache.len(), cache.evicted()), (1, 2));
    }
}
