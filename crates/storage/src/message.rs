//! What storage nodes tell each other of replicas: bodies of frames of kind `Replica`, whose group is
//! the partition.
//!
//! ```text
//! message = version:u8 (1) kind:u8 body                numbers are big-endian
//! kind 1 Ping     life:u32 is_damaged:u8
//!      2 Host     life:u32 identity:u32 kind:u8 table:u32 first:u64 last:u64 count:u8 (founder:u32)* config
//!      3 Hosted   identity:u32
//!      4 Gone     identity:u32
//!      5 MayDrop  identity:u32 ask:u64
//!      6 Drop     identity:u32 ask:u64
//!      7 Ask      identity:u32 at_least:u64 session:u64 number:u32 length:u32 row
//!      8 Chunk    identity:u32 session:u64 number:u32 last:u8 crc:u32 length:u32 bytes
//!      9 NoChunk  identity:u32 session:u64
//!     10 Fetches  identity:u32 index:u64
//! config = index:u64 length:u32 bytes
//! ```
//!
//! Each may be lost, and is then sent again by whoever waits for its effect.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use paxos::{Config, Index, MemberKind};
use wire::ids::TableId;
use wire::placement::{Placement, PlacementRange};

const VERSION: u8 = 1;

/// See the module's text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    /// "This node is there, in this life."
    Ping {
        /// Differs between any two starts of a node.
        life: u32,
        /// It has met rows that fail their checksum: it is not to lead.
        is_damaged: bool,
    },
    /// "Take in a replica, which is about to become a member."
    Host(Host),
    /// "It is taken in."
    Hosted(paxos::NodeId),
    /// "No replica of this identity is here, and none will be."
    Gone(paxos::NodeId),
    /// "My rows are damaged: can the group do without this replica?"
    MayDrop {
        /// The replica.
        identity: paxos::NodeId,
        /// Repeated in the answer.
        ask: u64,
    },
    /// "It can."
    Drop {
        /// The replica.
        identity: paxos::NodeId,
        /// What is answered.
        ask: u64,
    },
    /// "Send a part of a snapshot."
    Ask(Ask),
    /// A part of a snapshot.
    Chunk(Chunk),
    /// "There is no such snapshot any more."
    NoChunk {
        /// Who asked.
        identity: paxos::NodeId,
        /// Which one; 0: there is none here, and will be none.
        session: u64,
    },
    /// "I fetch a snapshot as of this log index": to all members, of whom whoever leads keeps the log
    /// behind it.
    Fetches {
        /// Who fetches.
        identity: paxos::NodeId,
        /// Of which index.
        index: u64,
    },
}

/// A replica to take in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Host {
    /// The life of the node that is asked: one that has lost its folder since does not know any more
    /// which identities it had.
    pub(crate) life: u32,
    pub(crate) identity: paxos::NodeId,
    pub(crate) kind: MemberKind,
    pub(crate) range: PlacementRange,
    /// The members that the group began with.
    pub(crate) founders: Vec<paxos::NodeId>,
    /// The newest configuration that the sender knows: a replica it does not name may be let go.
    pub(crate) config: Config,
}

/// What is asked of the source of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ask {
    /// Who asks.
    pub(crate) identity: paxos::NodeId,
    /// An older snapshot would not help.
    pub(crate) at_least: u64,
    /// The snapshot that is being fetched; 0: a new one.
    pub(crate) session: u64,
    /// The chunk's number, from 0.
    pub(crate) number: u32,
    /// The last row of the chunk before it.
    pub(crate) after: Bytes,
}

/// A part of a snapshot; what its bytes are says `snapshot`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Chunk {
    /// Who asked.
    pub(crate) identity: paxos::NodeId,
    pub(crate) session: u64,
    pub(crate) number: u32,
    /// There are no more.
    pub(crate) last: bool,
    /// CRC-32C of the bytes: the chunk is kept with it on disk.
    pub(crate) crc: u32,
    pub(crate) bytes: Bytes,
}

impl Message {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        out.put_u8(VERSION);
        let simple = |out: &mut BytesMut, kind: u8, identity: &paxos::NodeId| {
            out.put_u8(kind);
            out.put_u32(identity.0);
        };
        match self {
            Message::Ping { life, is_damaged } => {
                out.put_u8(1);
                out.put_u32(*life);
                out.put_u8(u8::from(*is_damaged));
            }
            Message::Host(host) => put_host(&mut out, host),
            Message::Hosted(identity) => simple(&mut out, 3, identity),
            Message::Gone(identity) => simple(&mut out, 4, identity),
            Message::MayDrop { identity, ask } => {
                simple(&mut out, 5, identity);
                out.put_u64(*ask);
            }
            Message::Drop { identity, ask } => {
                simple(&mut out, 6, identity);
                out.put_u64(*ask);
            }
            Message::Ask(ask) => {
                simple(&mut out, 7, &ask.identity);
                out.put_u64(ask.at_least);
                out.put_u64(ask.session);
                out.put_u32(ask.number);
                put_counted(&mut out, &ask.after);
            }
            Message::Chunk(chunk) => {
                out.reserve(chunk.bytes.len());
                simple(&mut out, 8, &chunk.identity);
                out.put_u64(chunk.session);
                out.put_u32(chunk.number);
                out.put_u8(u8::from(chunk.last));
                out.put_u32(chunk.crc);
                put_counted(&mut out, &chunk.bytes);
            }
            Message::NoChunk { identity, session } => {
                simple(&mut out, 9, identity);
                out.put_u64(*session);
            }
            Message::Fetches { identity, index } => {
                simple(&mut out, 10, identity);
                out.put_u64(*index);
            }
        }
        out.freeze()
    }

    /// Reads a message; `None` of bytes that are none.
    pub(crate) fn decode(mut rest: Bytes) -> Option<Message> {
        if rest.try_get_u8().ok()? != VERSION {
            return None;
        }
        let kind = rest.try_get_u8().ok()?;
        let message = match kind {
            1 => Message::Ping {
                life: rest.try_get_u32().ok()?,
                is_damaged: rest.try_get_u8().ok()? != 0,
            },
            2 => Message::Host(take_host(&mut rest)?),
            3 => Message::Hosted(identity(&mut rest)?),
            4 => Message::Gone(identity(&mut rest)?),
            5 => Message::MayDrop { identity: identity(&mut rest)?, ask: rest.try_get_u64().ok()? },
            6 => Message::Drop { identity: identity(&mut rest)?, ask: rest.try_get_u64().ok()? },
            7 => Message::Ask(Ask {
                identity: identity(&mut rest)?,
                at_least: rest.try_get_u64().ok()?,
                session: rest.try_get_u64().ok()?,
                number: rest.try_get_u32().ok()?,
                after: counted(&mut rest)?,
            }),
            8 => Message::Chunk(Chunk {
                identity: identity(&mut rest)?,
                session: rest.try_get_u64().ok()?,
                number: rest.try_get_u32().ok()?,
                last: rest.try_get_u8().ok()? == 1,
                crc: rest.try_get_u32().ok()?,
                bytes: counted(&mut rest)?,
            }),
            9 => Message::NoChunk {
                identity: identity(&mut rest)?,
                session: rest.try_get_u64().ok()?,
            },
            10 => {
                Message::Fetches { identity: identity(&mut rest)?, index: rest.try_get_u64().ok()? }
            }
            _ => return None,
        };
        rest.is_empty().then_some(message)
    }
}

fn put_host(out: &mut BytesMut, host: &Host) {
    out.put_u8(2);
    out.put_u32(host.life);
    out.put_u32(host.identity.0);
    out.put_u8(match host.kind {
        MemberKind::Storage => 1,
        MemberKind::Log => 2,
    });
    out.put_u32(host.range.table.0);
    out.put_u64(host.range.first.get());
    out.put_u64(host.range.last.get());
    out.put_u8(host.founders.len() as u8);
    host.founders.iter().for_each(|founder| out.put_u32(founder.0));
    put_config(out, &host.config);
}

fn take_host(rest: &mut Bytes) -> Option<Host> {
    let life = rest.try_get_u32().ok()?;
    let identity = identity(rest)?;
    let kind = match rest.try_get_u8().ok()? {
        1 => MemberKind::Storage,
        2 => MemberKind::Log,
        _ => return None,
    };
    let table = TableId(rest.try_get_u32().ok()?);
    let first = Placement::new(rest.try_get_u64().ok()?)?;
    let last = Placement::new(rest.try_get_u64().ok()?)?;
    let range = PlacementRange { table, first, last };
    let count = rest.try_get_u8().ok()?;
    let founders = (0..count).map(|_| self::identity(rest)).collect::<Option<Vec<_>>>()?;
    Some(Host { life, identity, kind, range, founders, config: take_config(rest)? })
}

/// Writes a configuration with its index.
pub(crate) fn put_config(out: &mut BytesMut, config: &Config) {
    out.put_u64(config.index.0);
    put_counted(out, &config.encode());
}

/// Reads what [`put_config`] wrote.
pub(crate) fn take_config(rest: &mut Bytes) -> Option<Config> {
    let index = Index(rest.try_get_u64().ok()?);
    Config::decode(&counted(rest)?, index)
}

fn identity(rest: &mut Bytes) -> Option<paxos::NodeId> {
    rest.try_get_u32().ok().map(paxos::NodeId)
}

fn put_counted(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

fn counted(rest: &mut Bytes) -> Option<Bytes> {
    let length = rest.try_get_u32().ok()? as usize;
    (length <= rest.len()).then(|| rest.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_round_trip_and_no_part_of_one_is_a_message() {
        let id = paxos::NodeId(1025);
        let mut config = Config::initial(&[paxos::NodeId(1), id]);
        config.index = Index(9);
        let host = Host {
            life: 3,
            identity: id,
            kind: MemberKind::Log,
            range: PlacementRange::whole(TableId(7)),
            founders: vec![paxos::NodeId(1), paxos::NodeId(2)],
            config,
        };
        let after = Bytes::from_static(b"row");
        let ask = Ask { identity: id, at_least: 5, session: 6, number: 7, after };
        let bytes = Bytes::from_static(b"rows");
        let chunk = Chunk { identity: id, session: 6, number: 7, last: true, crc: 8, bytes };
        for message in [
            Message::Ping { life: 4, is_damaged: true },
            Message::Host(host),
            Message::Hosted(id),
            Message::Gone(id),
            Message::MayDrop { identity: id, ask: 5 },
            Message::Drop { identity: id, ask: 6 },
            Message::Ask(ask),
            Message::Chunk(chunk),
            Message::NoChunk { identity: id, session: 6 },
            Message::Fetches { identity: id, index: 7 },
        ] {
            let bytes = message.encode();
            assert_eq!(Message::decode(bytes.clone()), Some(message));
            for cut in 0..bytes.len() {
                assert_eq!(Message::decode(bytes.slice(..cut)), None, "cut at {cut}");
            }
        }
    }
}
