//! Who is in a group, and which of them make a quorum.
//!
//! ```text
//! configuration = magic:[u8;4] newest:u32 members members     the second: the old ones, if joint
//! members       = count:u8 (id:u32 kind:u8)*                  kind 1: storage, 2: log
//! ```
//!
//! A configuration is an entry of the log and rules over all indexes after its own. It changes by
//! two of them: a joint one, under which a majority of the old and one of the new members are needed,
//! then the new one alone. Nothing is proposed between a configuration and its being chosen, so
//! that whoever proposes at an index knows who rules there; see `docs/paxos.md`.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::types::{Index, Instant, NodeId};

/// Members of a group at most, old and new ones together: votes are bits of a word.
pub(crate) const MEMBERS_MAX: usize = 64;
/// What a logged configuration begins with: no host's data does.
const MAGIC: &[u8; 4] = b"\xffcfg";

/// What a member is there for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MemberKind {
    /// Has the log and the state machine; may lead.
    Storage,
    /// Has the log only: votes, and tells what it accepted. Never leads.
    Log,
}

/// A member of a group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Member {
    /// Its identity, which no other replica of the group ever had or will have.
    pub id: NodeId,
    /// What it is there for.
    pub kind: MemberKind,
}

/// A configuration.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// The log index it stands at; 0 for the one a group began with.
    pub index: Index,
    /// The highest identity that ever was a member: new ones are above it.
    pub newest: NodeId,
    /// The members, ascending.
    pub members: Vec<Member>,
    /// While a change is under way, the members before it; else empty.
    pub old: Vec<Member>,
}

impl Config {
    /// The configuration a group begins with: storage members only.
    pub fn initial(ids: &[NodeId]) -> Config {
        let mut members: Vec<_> =
            ids.iter().map(|id| Member { id: *id, kind: MemberKind::Storage }).collect();
        members.sort_unstable();
        let newest = members.last().map_or(NodeId(0), |member| member.id);
        Config { index: Index(0), newest, members, old: Vec::new() }
    }

    /// Whether two majorities are needed.
    pub fn is_joint(&self) -> bool {
        !self.old.is_empty()
    }

    /// What a member is there for; `None` if it is none.
    pub fn kind(&self, id: NodeId) -> Option<MemberKind> {
        let mut all = self.members.iter().chain(&self.old);
        all.find(|member| member.id == id).map(|member| member.kind)
    }

    /// All members, old and new ones, ascending.
    pub fn all(&self) -> Vec<NodeId> {
        let mut all: Vec<_> = self.members.iter().chain(&self.old).map(|m| m.id).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The joint configuration that leads from this one to other members.
    ///
    /// *Errors*: why these members cannot follow.
    pub(crate) fn joint(&self, members: &[Member]) -> Result<Config, &'static str> {
        let mut members = members.to_vec();
        members.sort_unstable();
        let is_new = |member: &&Member| !self.members.contains(member);
        let added: Vec<_> = members.iter().filter(is_new).collect();
        let removed = self.members.iter().filter(|member| !members.contains(member)).count();
        if members.windows(2).any(|pair| pair[0].id == pair[1].id) {
            return Err("a member is named twice");
        }
        if !members.iter().any(|member| member.kind == MemberKind::Storage) {
            return Err("a storage replica is needed");
        }
        if added.len() > 1 || removed > 1 || added.len() + removed == 0 {
            return Err("one replica is added, removed or replaced at a time");
        }
        if added.iter().any(|member| member.id <= self.newest) && !mutant!(RemovedReturns) {
            return Err("a new replica has a new identity, above all there were");
        }
        let newest = members.iter().map(|member| member.id).fold(self.newest, NodeId::max);
        let joint = Config { index: Index(0), newest, members, old: self.members.clone() };
        if joint.all().len() > MEMBERS_MAX {
            return Err("too many members");
        }
        Ok(joint)
    }

    /// The configuration a joint one ends in.
    pub(crate) fn settled(&self) -> Config {
        Config { old: Vec::new(), ..self.clone() }
    }

    /// Its bytes as a log entry, without its index.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_slice(MAGIC);
        out.put_u32(self.newest.0);
        for members in [&self.members, &self.old] {
            out.put_u8(members.len() as u8);
            for member in members {
                out.put_u32(member.id.0);
                out.put_u8(match member.kind {
                    MemberKind::Storage => 1,
                    MemberKind::Log => 2,
                });
            }
        }
        out.freeze()
    }

    /// Reads what [`Config::encode`] wrote; it stands at `index`.
    pub fn decode(bytes: &Bytes, index: Index) -> Option<Config> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let newest = NodeId(rest.try_get_u32().ok()?);
        let members = take_members(&mut rest)?;
        let old = take_members(&mut rest)?;
        rest.is_empty().then_some(Config { index, newest, members, old })
    }

    /// Whether a log entry's bytes are a configuration's.
    pub fn is_encoded(bytes: &Bytes) -> bool {
        bytes.starts_with(MAGIC)
    }
}

fn take_members(rest: &mut &[u8]) -> Option<Vec<Member>> {
    let count = rest.try_get_u8().ok()?;
    let member = |rest: &mut &[u8]| {
        let id = NodeId(rest.try_get_u32().ok()?);
        let kind = match rest.try_get_u8().ok()? {
            1 => MemberKind::Storage,
            2 => MemberKind::Log,
            _ => return None,
        };
        Some(Member { id, kind })
    };
    (0..count).map(|_| member(rest)).collect()
}

/// Which sets of members, as bits by position among all members, are a quorum.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Quorums {
    /// The new members and the old ones; the same if there is no change.
    halves: [u64; 2],
}

impl Quorums {
    pub(crate) fn of(config: &Config) -> Quorums {
        let all = config.all();
        let mask = |members: &[Member]| {
            let bit = |member: &Member| all.iter().position(|id| *id == member.id).unwrap_or(63);
            members.iter().fold(0, |mask, member| mask | 1u64 << bit(member))
        };
        let members = mask(&config.members);
        let old = if config.is_joint() { mask(&config.old) } else { members };
        Quorums { halves: [members, old] }
    }

    /// Whether these are a majority of each half.
    pub(crate) fn is_met_by(&self, set: u64) -> bool {
        let is_majority =
            |half: &u64| (set & half).count_ones() * 2 > half.count_ones() || mutant!(HalfQuorum);
        self.halves.iter().all(is_majority)
    }

    /// The latest time that a quorum's times reach; `heard` by position. Whoever asks counts as one
    /// that always does.
    pub(crate) fn newest_common(
        &self,
        heard: impl Fn(usize) -> Option<Instant>,
        me: Option<usize>,
    ) -> Option<Instant> {
        const NOW: u64 = u64::MAX / 2 + 1;
        // Asked before and after every read: no allocation, and 0 for never, else one more than the time.
        let mut newest = u64::MAX;
        let [new, old] = &self.halves;
        let halves = if new == old { &self.halves[..1] } else { &self.halves };
        for members in halves {
            // The latest first.
            let mut times = [0; MEMBERS_MAX];
            let mut count = 0;
            let mut left = *members;
            while left != 0 {
                let at = left.trailing_zeros() as usize;
                left &= left - 1;
                let time = if Some(at) == me {
                    NOW
                } else {
                    heard(at).map_or(0, |time| time.0.saturating_add(1))
                };
                let mut place = count;
                while place > 0 && times[place - 1] < time {
                    times[place] = times[place - 1];
                    place -= 1;
                }
                times[place] = time;
                count += 1;
            }
            newest = newest.min(times[count / 2]);
        }
        newest.checked_sub(1).map(Instant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u32, kind: MemberKind) -> Member {
        Member { id: NodeId(id), kind }
    }

    #[test]
    fn a_change_needs_both_majorities() {
        let config = Config::initial(&[NodeId(1), NodeId(2), NodeId(3)]);
        let storage = |id| member(id, MemberKind::Storage);
        let joint = config.joint(&[storage(1), storage(2), storage(4)]).expect("one is replaced");
        let quorums = Quorums::of(&joint);
        assert!(quorums.is_met_by(0b0011) && quorums.is_met_by(0b1101));
        assert!(!quorums.is_met_by(0b1001) && !quorums.is_met_by(0b0110 & 0b0101));
        let at = |us| Some(Instant(us));
        let heard = [None, at(5), at(7), at(1)];
        assert_eq!(quorums.newest_common(|at| heard[at], Some(0)), at(5));
        let heard = [None, None, at(7), None];
        assert_eq!(quorums.newest_common(|at| heard[at], Some(0)), None);
        let bytes = joint.encode();
        assert_eq!(Config::decode(&bytes, Index(0)), Some(joint.clone()));
        for cut in 0..bytes.len() {
            assert_eq!(Config::decode(&bytes.slice(..cut), Index(0)), None);
        }
        assert!(!joint.settled().is_joint());
    }

    #[test]
    fn impossible_changes_are_refused() {
        let config = Config::initial(&[NodeId(1), NodeId(2), NodeId(3)]);
        let storage = |id| member(id, MemberKind::Storage);
        for members in [
            vec![storage(1), storage(2), storage(3)],
            vec![storage(1), storage(4), storage(5)],
            vec![storage(1), storage(2), storage(2)],
            vec![storage(1), storage(2), storage(3), member(3, MemberKind::Log)],
            vec![storage(1), storage(2), storage(3), member(0, MemberKind::Log)],
            vec![],
        ] {
            assert!(config.joint(&members).is_err(), "{members:?}");
        }
        let log = vec![storage(1), storage(2), storage(3), member(4, MemberKind::Log)];
        let config = config.joint(&log).expect("a log replica is added").settled();
        let without = config.joint(&log[..3]).expect("and removed").settled();
        assert!(without.joint(&log).is_err(), "an identity never returns");
    }
}
