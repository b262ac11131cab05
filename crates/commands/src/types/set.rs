//! Sets: what a header keeps of one, where its members lie, and how they are read.
//!
//! ```text
//! body of the header = encoding:u8 { length:varint member }     if the set is inline
//!                    | encoding:u8 deleted:varint                if it has rows
//! encoding           = 0 intset, 1 listpack, 2 hashtable
//! data row           = that of types/ring.rs; value empty
//! ```
//!
//! A small set is inline: one row, read and written as a whole. Once it has more than
//! [`INLINE_MEMBERS_MAX`] members or [`INLINE_BYTES_MAX`] bytes its members become rows of a
//! generation, in the order of a hash, which is what SSCAN's stateless cursor and the draws of SPOP
//! and SRANDMEMBER stand on.
//!
//! The encoding has nothing to do with how the set is stored: it remembers which one Redis would
//! name. Members of an intset come in the order of their numbers, as in Redis.
//!
//! `deleted` counts the members deleted since the generation was made (types/set_edit.rs says why).

use bytes::{Bytes, BytesMut};
use wire::placement::Placement;

use crate::args::parse_int;
use crate::error::CommandError;
use crate::types::header::{Header, Kind, Value, put_varint, read_varint};
use crate::types::keyspace;
use crate::types::ring::{self, HASHES, Place, Urn};
use crate::view::{View, ViewError};

/// Most members of a set that lives in its header row.
pub(crate) const INLINE_MEMBERS_MAX: u64 = 64;
/// Most bytes of the entries of a set that lives in its header row.
pub(crate) const INLINE_BYTES_MAX: usize = 1 << 10;
/// Redis's `set-max-intset-entries`.
pub(crate) const INTSET_MEMBERS_MAX: u64 = 512;
/// Redis's `set-max-listpack-entries`.
pub(crate) const LISTPACK_MEMBERS_MAX: u64 = 128;
/// Redis's `set-max-listpack-value`, in bytes.
pub(crate) const LISTPACK_TEXT_BYTES_MAX: usize = 64;

/// The encoding that Redis would have chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Encoding {
    Intset,
    Listpack,
    Table,
}

impl Encoding {
    /// Of a set that is made by adding `first` and others, `count` in all.
    pub(crate) fn for_new(first: &[u8], count: usize) -> Encoding {
        if count as u64 <= INTSET_MEMBERS_MAX && parse_int(first).is_some() {
            Encoding::Intset
        } else if count as u64 <= LISTPACK_MEMBERS_MAX {
            Encoding::Listpack
        } else {
            Encoding::Table
        }
    }

    /// Of a set of `count` members when another one comes.
    pub(crate) fn with(self, count: u64, member: &[u8]) -> Encoding {
        let packs = count < LISTPACK_MEMBERS_MAX && member.len() <= LISTPACK_TEXT_BYTES_MAX;
        match self {
            Encoding::Table => Encoding::Table,
            Encoding::Intset if parse_int(member).is_some() => {
                if count < INTSET_MEMBERS_MAX {
                    Encoding::Intset
                } else {
                    Encoding::Table
                }
            }
            Encoding::Intset | Encoding::Listpack if packs => Encoding::Listpack,
            Encoding::Intset | Encoding::Listpack => Encoding::Table,
        }
    }

    /// Of a set about to be given so many members at once, known ones or not.
    pub(crate) fn before_adding(self, count: usize) -> Encoding {
        let max = match self {
            Encoding::Intset => INTSET_MEMBERS_MAX,
            Encoding::Listpack => LISTPACK_MEMBERS_MAX,
            Encoding::Table => u64::MAX,
        };
        if count as u64 > max { Encoding::Table } else { self }
    }

    /// Of the result of SINTERSTORE.
    pub(crate) fn of_intersection(members: &[Bytes]) -> Encoding {
        let ints = members.iter().all(|member| parse_int(member).is_some());
        if ints && members.len() as u64 <= INTSET_MEMBERS_MAX {
            return Encoding::Intset;
        }
        let packs = members.len() as u64 <= LISTPACK_MEMBERS_MAX
            && members.iter().all(|member| member.len() <= LISTPACK_TEXT_BYTES_MAX);
        if packs { Encoding::Listpack } else { Encoding::Table }
    }

    /// Redis's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Encoding::Intset => "intset",
            Encoding::Listpack => "listpack",
            Encoding::Table => "hashtable",
        }
    }

    fn from_code(code: u8) -> Option<Encoding> {
        [Encoding::Intset, Encoding::Listpack, Encoding::Table].get(usize::from(code)).copied()
    }
}

/// The encoding that a header tells; of what is no set, or damaged, Redis's last resort.
pub(crate) fn encoding_of(value: &Value) -> Encoding {
    let body = match value {
        Value::Inline { body, .. } | Value::Rows { body, .. } => body,
        Value::String { .. } => return Encoding::Table,
    };
    body.first().and_then(|code| Encoding::from_code(*code)).unwrap_or(Encoding::Table)
}

/// Where a set keeps its members.
#[derive(Clone, Debug)]
pub(crate) enum Members {
    /// In the header: the entries.
    Inline(Bytes),
    /// In rows, and how many were deleted since these were begun.
    Rows(Place, u64),
}

impl Members {
    /// The header's body.
    pub(crate) fn body(&self, encoding: Encoding) -> Bytes {
        let mut body = BytesMut::from(&[encoding as u8][..]);
        match self {
            Members::Inline(entries) => body.extend_from_slice(entries),
            Members::Rows(_, deleted) => put_varint(&mut body, *deleted),
        }
        body.freeze()
    }

    /// Whether a member is there.
    pub(crate) fn contain(&self, view: &dyn View, member: &[u8]) -> Result<bool, ViewError> {
        match self {
            Members::Inline(entries) => {
                for entry in inline(entries) {
                    if entry?.1 == member {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Members::Rows(place, _) => Ok(view.get(&place.ring_row(member))?.is_some()),
        }
    }
}

/// The members of inline entries, in their order, each with where its entry begins and ends.
pub(crate) fn inline(
    entries: &Bytes,
) -> impl Iterator<Item = Result<(std::ops::Range<usize>, Bytes), ViewError>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let mut rest = entries.get(at..).filter(|rest| !rest.is_empty())?;
        let length = read_varint(&mut rest).and_then(|length| usize::try_from(length).ok());
        let Some(member) = length.and_then(|length| rest.get(..length)) else {
            at = entries.len();
            return Some(Err(ViewError::Damaged));
        };
        let start = at;
        at = entries.len() - rest.len() + member.len();
        Some(Ok((start..at, entries.slice_ref(member))))
    })
}

/// A set to be read.
pub(crate) struct Set<'v> {
    view: &'v dyn View,
    /// How many members it has.
    pub(crate) count: u64,
    /// Bytes of its members.
    pub(crate) bytes: u64,
    pub(crate) encoding: Encoding,
    pub(crate) members: Members,
}

impl<'v> Set<'v> {
    /// The set at a key; `None` if the key does not exist.
    ///
    /// *Errors*: `WrongType` if it holds something else.
    pub(crate) fn read(view: &'v dyn View, key: &[u8]) -> Result<Option<Set<'v>>, CommandError> {
        let Some(Header { value, .. }) = keyspace::read(view, key)? else { return Ok(None) };
        if value.kind() != Kind::Set {
            return Err(CommandError::WrongType);
        }
        Ok(Some(Set::of(view, key, &value)?))
    }

    /// The set that a header of this key holds.
    pub(crate) fn of(view: &'v dyn View, key: &[u8], value: &Value) -> Result<Set<'v>, ViewError> {
        let (count, bytes, body) = match value {
            Value::Inline { count, body, .. } => (*count, value.bytes(), body),
            Value::Rows { count, bytes, body, .. } => (*count, *bytes, body),
            Value::String { .. } => return Err(ViewError::Damaged),
        };
        let encoding = body.first().and_then(|code| Encoding::from_code(*code));
        let encoding = encoding.ok_or(ViewError::Damaged)?;
        let members = match value.generation() {
            Some(generation) => {
                let (table, placement) = (view.table(), Placement::of_key(key));
                let deleted = read_varint(&mut &body[1..]).ok_or(ViewError::Damaged)?;
                Members::Rows(Place { table, placement, generation }, deleted)
            }
            None => Members::Inline(body.slice(1..)),
        };
        Ok(Set { view, count, bytes, encoding, members })
    }

    /// Whether it has a member.
    pub(crate) fn contains(&self, member: &[u8]) -> Result<bool, ViewError> {
        self.members.contain(self.view, member)
    }

    /// All members; those of an intset in the order of their numbers.
    pub(crate) fn all(&self) -> Result<Vec<Bytes>, ViewError> {
        let mut all = match &self.members {
            Members::Inline(entries) => {
                return inline(entries).map(|entry| entry.map(|(_, member)| member)).collect();
            }
            Members::Rows(place, _) => {
                let mut all = Vec::new();
                place.ring(self.view, (0, HASHES), &mut |_, member, _| {
                    all.push(member);
                    std::ops::ControlFlow::Continue(())
                })?;
                all
            }
        };
        if self.encoding == Encoding::Intset {
            all.sort_by_cached_key(|member| parse_int(member));
        }
        Ok(all)
    }

    /// The next `count` members from a cursor on, and the next cursor; 0 at the end.
    pub(crate) fn scan(&self, cursor: u64, count: usize) -> Result<(Vec<Bytes>, u64), ViewError> {
        let Members::Rows(place, _) = &self.members else {
            // It is small, and has no order to go on in.
            return Ok((self.all()?, 0));
        };
        let (met, next) = ring::scan(place, self.view, cursor, count)?;
        Ok((met.into_iter().map(|(member, _)| member).collect(), next))
    }

    /// So many random members, each drawn from all.
    pub(crate) fn random_repeated(&self, count: usize) -> Result<Vec<Bytes>, ViewError> {
        self.with_urn(|urn| urn.repeated(count))
    }

    /// So many different random members, or all if there are no more.
    pub(crate) fn random_distinct(&self, count: u64) -> Result<Vec<Bytes>, ViewError> {
        self.with_urn(|urn| urn.distinct(count))
    }

    fn with_urn<R>(&self, draw: impl FnOnce(&Urn<'_, Bytes>) -> R) -> R {
        draw(&Urn {
            view: self.view,
            place: match self.members {
                Members::Inline(_) => None,
                Members::Rows(place, _) => Some(place),
            },
            count: self.count,
            bytes: self.bytes,
            read: &|member, _| Ok(Some(member)),
            all: &|| self.all(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn encodings_follow_redis_limits() {
        use Encoding::{Intset, Listpack, Table};
        assert_eq!(Encoding::for_new(b"1", 512), Intset);
        assert_eq!(Encoding::for_new(b"1", 513), Table);
        assert_eq!(Encoding::for_new(b"a", 128), Listpack);
        assert_eq!(Encoding::for_new(b"01", 129), Table);
        assert_eq!((Intset.with(511, b"7"), Intset.with(512, b"7")), (Intset, Table));
        assert_eq!((Intset.with(127, b"a"), Intset.with(128, b"a")), (Listpack, Table));
        assert_eq!(
            (Listpack.with(3, &[b'x'; 64]), Listpack.with(3, &[b'x'; 65])),
            (Listpack, Table)
        );
        assert_eq!((Listpack.with(127, b"1"), Listpack.with(128, b"1")), (Listpack, Table));
        assert_eq!((Intset.before_adding(512), Intset.before_adding(513)), (Intset, Table));
    }

    #[test]
    fn damaged_entries_are_told_once() {
        let entries = Bytes::from_static(b"\x03abc\x01x");
        assert_eq!(inline(&entries).filter_map(Result::ok).count(), 2);
        for length in [1, 2, 3, 5] {
            let told: Vec<_> = inline(&entries.slice(..length)).map(|e| e.is_ok()).collect();
            assert_eq!(told.last(), Some(&false), "{length}");
        }
        let mut random = Random::new(3);
        for _ in 0..50_000 {
            inline(&Bytes::from(random.bytes(40))).for_each(drop);
        }
    }
}
