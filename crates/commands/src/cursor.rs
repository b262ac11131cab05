//! What HSCAN, SSCAN and their like take and answer: MATCH, COUNT, and a cursor with items.

use bytes::Bytes;
use wire::resp::Reply;

use crate::args::Options;
use crate::error::CommandError;
use crate::glob;

/// What is visited if no COUNT is given.
const COUNT_DEFAULT: usize = 10;
/// What is visited at most, so that one call cannot hold a partition long: COUNT is a hint.
const COUNT_MAX: usize = 1 << 16;

/// The options of a walk over a collection.
pub(crate) struct Walk<'a> {
    pattern: Option<&'a Bytes>,
    /// How many to visit.
    pub(crate) count: usize,
    /// Whether NOVALUES was not said.
    pub(crate) values: bool,
}

impl<'a> Walk<'a> {
    /// Reads the options to the end of the arguments; only HSCAN takes NOVALUES.
    pub(crate) fn parse(
        mut options: Options<'a>,
        takes_novalues: bool,
    ) -> Result<Walk<'a>, CommandError> {
        let mut walk = Walk { pattern: None, count: COUNT_DEFAULT, values: true };
        while let Some(word) = options.word() {
            match word.as_bytes() {
                b"MATCH" => walk.pattern = Some(options.value()?),
                b"COUNT" => {
                    let wanted = options.int()?;
                    walk.count = usize::try_from(wanted).unwrap_or(0).min(COUNT_MAX);
                    if wanted < 1 {
                        return Err(CommandError::Syntax);
                    }
                }
                b"NOVALUES" if takes_novalues => walk.values = false,
                _ => return Err(CommandError::Syntax),
            }
        }
        Ok(walk)
    }

    /// Whether a name is asked for.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        // `*` alone is no pattern: it matches the empty name, too.
        self.pattern.is_none_or(|p| *p == b"*"[..] || glob::matches(p, name))
    }
}

/// A walk's answer.
pub(crate) fn answer(next: u64, items: Vec<Reply>) -> Reply {
    let cursor = Reply::Bulk(Bytes::from(next.to_string()));
    Reply::Array(vec![cursor, Reply::Array(items)])
}
