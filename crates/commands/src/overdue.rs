//! What commands meet that somebody ought to put right, for their leader to do behind them.
//!
//! Reads never write. But what has expired is dead weight that counts (DBSIZE, HLEN) until somebody
//! deletes it, and the leader's own expiry may be far from done; and a HyperLogLog that does not hold its
//! count has it computed by every PFCOUNT. So a view takes note of what is met, and the leader sees to it
//! behind the command: what Redis calls lazy expiry. As there, looking up a key or a field meets it; what
//! lists all fields of a hash, or all keys by KEYS, only hides them.

use bytes::Bytes;

use crate::error::CommandError;
use crate::families::hyperloglog;
use crate::notes::Wanted;
use crate::txn::Txn;
use crate::types::hash_edit::HashEdit;
use crate::types::header::Kind;
use crate::types::keyspace;

/// What one command may leave to be done behind it, in keys and fields. What has expired beyond that is
/// left to the leader's expiry.
pub const MET_MAX: usize = 1_000;

/// What is to be done about a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Overdue {
    /// It has expired.
    Key,
    /// A field of its hash has.
    Field(Bytes),
    /// Whatever fields of its hash have.
    Fields,
    /// Its HyperLogLog does not hold its count.
    Count,
}

/// Sees to what was met, where it is still so: no more than [`MET_MAX`] keys and fields.
pub fn settle(txn: &mut Txn<'_>, met: &[(Bytes, Overdue)]) -> Result<(), CommandError> {
    let mut left = MET_MAX;
    for of_key in met.chunk_by(|(one, _), (other, _)| one == other) {
        let key = &of_key[0].0;
        let found = keyspace::lookup(txn, key)?;
        if found.has_expired() {
            keyspace::remove(txn, key, found);
            continue;
        }
        match found.header().map(|header| header.value.kind()) {
            Some(Kind::Hash) => {
                let mut hash = HashEdit::of(txn, key, found)?;
                let mut deleted = 0;
                for (_, what) in of_key {
                    deleted += match what {
                        Overdue::Field(field) => usize::from(hash.delete_if_due(txn, field)?),
                        Overdue::Fields => hash.delete_due(txn, left.saturating_sub(deleted))?,
                        Overdue::Key | Overdue::Count => 0,
                    };
                }
                left = left.saturating_sub(deleted);
                if deleted > 0 {
                    txn.note(Wanted::HASH, "hexpired", key);
                    hash.finish(txn)?;
                }
            }
            Some(Kind::String) if of_key.iter().any(|(_, what)| *what == Overdue::Count) => {
                hyperloglog::remember_count(txn, key, found)?;
            }
            _ => {}
        }
    }
    Ok(())
}
