//! What a command answers, before it is written in a session's RESP version.

use bytes::Bytes;

use super::Bulks;

/// A reply. The encoder writes it once, straight into the connection's buffer, in the RESP version
/// of the session (RESP3 types fall back to their RESP2 forms as Redis does it).
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A fixed simple string: `+OK`.
    Simple(&'static str),
    /// A simple string made at run time; CR and LF are replaced by spaces when it is written.
    Status(Bytes),
    /// An error line without the leading `-`; CR and LF are replaced by spaces when it is written.
    Error(Bytes),
    /// `:n`
    Integer(i64),
    /// `$n` and the bytes.
    Bulk(Bytes),
    /// The null of a bulk: `$-1` in RESP2, `_` in RESP3.
    Null,
    /// The null of an array: `*-1` in RESP2, `_` in RESP3.
    NullArray,
    /// `*n`
    Array(Vec<Reply>),
    /// `*n` of bulk strings that were written already. An array of none is [`Reply::Array`] as well.
    Bulks(Bulks),
    /// `%n` in RESP3, a flat array in RESP2.
    Map(Vec<(Reply, Reply)>),
    /// `*n` of `*2` in RESP3, a flat array in RESP2 (what WITHVALUES asks for).
    Pairs(Vec<(Reply, Reply)>),
    /// `%n` in RESP3, `*n` of `*2` in RESP2 (what XREAD answers).
    Keyed(Vec<(Reply, Reply)>),
    /// `~n` in RESP3, an array in RESP2.
    Set(Vec<Reply>),
    /// `>n` in RESP3, an array in RESP2.
    Push(Vec<Reply>),
    /// `,1.5` in RESP3, a bulk in RESP2, digits as Redis prints them.
    Double(f64),
    /// The same of a double whose digits are given (GEOPOS prints more of them).
    DoubleText(Bytes),
    /// `#t` in RESP3, `:1` in RESP2.
    Boolean(bool),
    /// `(n` in RESP3, a bulk in RESP2.
    BigNumber(Bytes),
    /// `=n` and `txt:` in RESP3, a bulk in RESP2.
    Verbatim {
        /// Three letters: `txt` or `mkd`.
        format: [u8; 3],
        /// The text.
        text: Bytes,
    },
    /// `|n` in RESP3, nothing in RESP2: attributes of the reply behind it in a [`Reply::Sequence`].
    Attributes(Vec<(Reply, Reply)>),
    /// Several replies written one after another: what RESP sends where a command answers more
    /// than once (SUBSCRIBE), or nothing at all (CLIENT REPLY).
    Sequence(Vec<Reply>),
}

impl Reply {
    /// Bytes of the texts in it: about what it takes to hold.
    pub fn text_bytes(&self) -> usize {
        let sum = |replies: &[Reply]| replies.iter().map(Reply::text_bytes).sum();
        match self {
            Reply::Status(text)
            | Reply::Error(text)
            | Reply::Bulk(text)
            | Reply::BigNumber(text)
            | Reply::DoubleText(text)
            | Reply::Verbatim { text, .. } => text.len(),
            Reply::Bulks(bulks) => bulks.text_bytes(),
            Reply::Array(items)
            | Reply::Set(items)
            | Reply::Push(items)
            | Reply::Sequence(items) => sum(items),
            Reply::Map(pairs)
            | Reply::Pairs(pairs)
            | Reply::Keyed(pairs)
            | Reply::Attributes(pairs) => {
                pairs.iter().map(|(k, v)| k.text_bytes() + v.text_bytes()).sum()
            }
            Reply::Simple(_)
            | Reply::Integer(_)
            | Reply::Null
            | Reply::NullArray
            | Reply::Double(_)
            | Reply::Boolean(_) => 0,
        }
    }
}

impl Reply {
    /// The same with an array of bulks for [`Reply::Bulks`], in arrays too: for who looks at items.
    pub fn unfold(self) -> Reply {
        match self {
            Reply::Bulks(bulks) => {
                let items = bulks.iter().map(Bytes::copy_from_slice);
                Reply::Array(items.map(Reply::Bulk).collect())
            }
            Reply::Array(items) => Reply::Array(items.into_iter().map(Reply::unfold).collect()),
            other => other,
        }
    }
}

impl Reply {
    /// `+OK`
    pub const OK: Reply = Reply::Simple("OK");

    /// An empty bulk string.
    pub const EMPTY: Reply = Reply::Bulk(Bytes::new());
}
