//! Messages as bytes.
//!
//! ```text
//! message = version:u8 (4) kind:u8 body
//! kind 1 Ask          question:u64 config:u64
//!      2 Answer       question:u64 leader_alive:u8
//!      3 Prepare      ballot:u64 handed:u64 config:u64 first:u64
//!      4 Promise      ballot:u64 chosen:u64 lease_left_us:u64 first:u64 next:u64 (0: that is all) count:u32 entry*
//!                     count:u32 (index:u64 ballot:u64)* config
//!      5 Accept       ballot:u64 chosen:u64 count:u32 (index:u64 value)*
//!      6 Accepted     ballot:u64 count:u32 index:u64*
//!      7 Heartbeat    ballot:u64 chosen:u64 truncate:u64 life:u64
//!      8 HeartbeatAck ballot:u64 flushed:u64 chosen:u64 (0:u8 | 1:u8 life:u64 epoch:u64)
//!      9 Reject       ballot:u64
//!     10 Need         index:u64
//!     11 Chosen       count:u32 entry*
//!     12 TakeOver     ballot:u64 chosen:u64
//!     13 Truncated    first:u64 through:u64 config
//!     14 Config       config
//!     15 Release      ballot:u64
//! entry = index:u64 ballot:u64 value
//! value = 0:u8 (no-op) | 1:u8 length:u32 bytes | 2:u8 length:u32 bytes (a configuration)
//! config = index:u64 length:u32 bytes
//!
//! beat  = version:u8 (4) life:u64 sent:u64 (0:u8 | 1:u8 life:u64 sent:u64)
//!         (0:u8 | 1:u8 epoch:u64 sent:u64)                  heard; supports
//! ```
//!
//! Numbers are big-endian. Data of a decoded message are slices of the bytes it came in. The
//! carrier adds a checksum.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::config::Config;
use crate::liveness::Beat;
use crate::message::Message;
use crate::support::{Epoch, Life};
use crate::types::{Ballot, Entry, Index, Instant, Value};

const FORMAT_VERSION: u8 = 4;

/// Why bytes are no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// A build of another format sent it.
    #[error("message of unknown format version {0}")]
    Version(u8),
    /// It ends too early, goes on too long, or holds a number that means nothing.
    #[error("malformed message")]
    Malformed,
}

/// Writes a message.
pub fn encode(message: &Message) -> BytesMut {
    let mut out = BytesMut::with_capacity(64 + data_bytes(message));
    out.put_u8(FORMAT_VERSION);
    match message {
        Message::Ask { question, config } => put(&mut out, 1, &[*question, config.0]),
        Message::Answer { question, leader_alive } => {
            put(&mut out, 2, &[*question]);
            out.put_u8(u8::from(*leader_alive));
        }
        Message::Prepare { ballot, handed, config, first } => {
            put(&mut out, 3, &[ballot.number, handed.number, config.0, first.0]);
        }
        Message::Promise {
            ballot,
            chosen,
            first,
            accepted,
            faulty,
            next,
            lease_left_us,
            config,
        } => {
            let next = next.unwrap_or_default().0;
            put(&mut out, 4, &[ballot.number, chosen.0, *lease_left_us, first.0, next]);
            put_entries(&mut out, accepted);
            out.put_u32(faulty.len() as u32);
            faulty.iter().for_each(|(at, ballot)| put_numbers(&mut out, &[at.0, ballot.number]));
            put_config(&mut out, config);
        }
        Message::Accept { ballot, values, chosen } => {
            put(&mut out, 5, &[ballot.number, chosen.0]);
            out.put_u32(values.len() as u32);
            for (index, value) in values {
                out.put_u64(index.0);
                put_value(&mut out, value);
            }
        }
        Message::Accepted { ballot, indexes } => {
            put(&mut out, 6, &[ballot.number]);
            out.put_u32(indexes.len() as u32);
            indexes.iter().for_each(|index| out.put_u64(index.0));
        }
        Message::Heartbeat { ballot, chosen, truncate, life } => {
            put(&mut out, 7, &[ballot.number, chosen.0, truncate.0, life.0]);
        }
        Message::HeartbeatAck { ballot, flushed, chosen, support } => {
            put(&mut out, 8, &[ballot.number, flushed.0, chosen.0]);
            put_pair(&mut out, support.map(|epoch| (epoch.supporter.0, epoch.count)));
        }
        Message::Reject { promised } => put(&mut out, 9, &[promised.number]),
        Message::Need { first } => put(&mut out, 10, &[first.0]),
        Message::Chosen { entries } => {
            put(&mut out, 11, &[]);
            put_entries(&mut out, entries);
        }
        Message::TakeOver { ballot, chosen } => put(&mut out, 12, &[ballot.number, chosen.0]),
        Message::Truncated { first, through, config } => {
            put(&mut out, 13, &[first.0, through.0]);
            put_config(&mut out, config);
        }
        Message::Config { config } => {
            put(&mut out, 14, &[]);
            put_config(&mut out, config);
        }
        Message::Release { ballot } => put(&mut out, 15, &[ballot.number]),
    }
    out
}

/// Writes a beat.
pub fn encode_beat(beat: &Beat) -> BytesMut {
    let mut out = BytesMut::with_capacity(64);
    put(&mut out, FORMAT_VERSION, &[beat.life.0, beat.sent.0]);
    put_pair(&mut out, beat.heard.map(|(life, sent)| (life.0, sent.0)));
    put_pair(&mut out, beat.supports.map(|(count, sent)| (count, sent.0)));
    out
}

/// Reads a beat.
///
/// *Errors*: bytes that are no beat of this format, whatever they are.
pub fn decode_beat(bytes: Bytes) -> Result<Beat, DecodeError> {
    let mut rest = bytes;
    take_version(&mut rest)?;
    match take_beat(&mut rest) {
        Some(beat) if rest.is_empty() => Ok(beat),
        _ => Err(DecodeError::Malformed),
    }
}

fn take_beat(rest: &mut Bytes) -> Option<Beat> {
    Some(Beat {
        life: Life(number(rest)?),
        sent: instant(rest)?,
        heard: pair(rest)?.map(|(life, sent)| (Life(life), Instant(sent))),
        supports: pair(rest)?.map(|(count, sent)| (count, Instant(sent))),
    })
}

fn take_version(rest: &mut Bytes) -> Result<(), DecodeError> {
    let version = rest.try_get_u8().map_err(|_| DecodeError::Malformed)?;
    if version == FORMAT_VERSION { Ok(()) } else { Err(DecodeError::Version(version)) }
}

fn data_bytes(message: &Message) -> usize {
    match message {
        Message::Accept { values, .. } => values.iter().map(|(_, value)| 16 + value.len()).sum(),
        Message::Promise { accepted: entries, .. } | Message::Chosen { entries } => {
            entries.iter().map(|entry| 24 + entry.value.len()).sum()
        }
        _ => 0,
    }
}

fn put(out: &mut BytesMut, kind: u8, numbers: &[u64]) {
    out.put_u8(kind);
    put_numbers(out, numbers);
}

fn put_numbers(out: &mut BytesMut, numbers: &[u64]) {
    numbers.iter().for_each(|number| out.put_u64(*number));
}

fn put_pair(out: &mut BytesMut, pair: Option<(u64, u64)>) {
    match pair {
        Some((first, second)) => put(out, 1, &[first, second]),
        None => out.put_u8(0),
    }
}

fn put_entries(out: &mut BytesMut, entries: &[Entry]) {
    out.put_u32(entries.len() as u32);
    for entry in entries {
        out.put_u64(entry.index.0);
        out.put_u64(entry.ballot.number);
        put_value(out, &entry.value);
    }
}

fn put_value(out: &mut BytesMut, value: &Value) {
    match value {
        Value::Noop => out.put_u8(0),
        Value::Data(bytes) | Value::Config(bytes) => {
            out.put_u8(if matches!(value, Value::Data(_)) { 1 } else { 2 });
            out.put_u32(u32::try_from(bytes.len()).expect("values are far below 4 GiB"));
            out.put_slice(bytes);
        }
    }
}

fn put_config(out: &mut BytesMut, config: &Config) {
    let bytes = config.encode();
    out.put_u64(config.index.0);
    out.put_u32(bytes.len() as u32);
    out.put_slice(&bytes);
}

/// Reads a message.
///
/// *Errors*: bytes that are no message of this format, whatever they are.
pub fn decode(bytes: Bytes) -> Result<Message, DecodeError> {
    let mut rest = bytes;
    take_version(&mut rest)?;
    match take_message(&mut rest) {
        Some(message) if rest.is_empty() => Ok(message),
        _ => Err(DecodeError::Malformed),
    }
}

fn take_message(rest: &mut Bytes) -> Option<Message> {
    Some(match rest.try_get_u8().ok()? {
        1 => Message::Ask { question: number(rest)?, config: index(rest)? },
        2 => Message::Answer { question: number(rest)?, leader_alive: flag(rest)? },
        3 => Message::Prepare {
            ballot: ballot(rest)?,
            handed: ballot(rest)?,
            config: index(rest)?,
            first: index(rest)?,
        },
        4 => {
            let (ballot, chosen) = (ballot(rest)?, index(rest)?);
            let (lease_left_us, first, next) = (number(rest)?, index(rest)?, index(rest)?);
            let next = Some(next).filter(|next| *next > Index(0));
            let accepted = entries(rest)?;
            let faulty = list(rest, 16, |rest| Some((index(rest)?, self::ballot(rest)?)))?;
            let config = config(rest)?;
            Message::Promise {
                ballot,
                chosen,
                first,
                accepted,
                faulty,
                next,
                lease_left_us,
                config,
            }
        }
        5 => {
            let (ballot, chosen) = (ballot(rest)?, index(rest)?);
            let values = list(rest, 9, |rest| Some((index(rest)?, value(rest)?)))?;
            Message::Accept { ballot, values, chosen }
        }
        6 => Message::Accepted { ballot: ballot(rest)?, indexes: list(rest, 8, index)? },
        7 => Message::Heartbeat {
            ballot: ballot(rest)?,
            chosen: index(rest)?,
            truncate: index(rest)?,
            life: Life(number(rest)?),
        },
        8 => Message::HeartbeatAck {
            ballot: ballot(rest)?,
            flushed: index(rest)?,
            chosen: index(rest)?,
            support: pair(rest)?.map(|(life, count)| Epoch { supporter: Life(life), count }),
        },
        9 => Message::Reject { promised: ballot(rest)? },
        10 => Message::Need { first: index(rest)? },
        11 => Message::Chosen { entries: entries(rest)? },
        12 => Message::TakeOver { ballot: ballot(rest)?, chosen: index(rest)? },
        13 => {
            Message::Truncated { first: index(rest)?, through: index(rest)?, config: config(rest)? }
        }
        14 => Message::Config { config: config(rest)? },
        15 => Message::Release { ballot: ballot(rest)? },
        _ => return None,
    })
}

/// A counted list whose elements take `element_bytes` or more: what is announced and cannot be there
/// is not reserved for.
fn list<T>(
    rest: &mut Bytes,
    element_bytes: usize,
    mut take: impl FnMut(&mut Bytes) -> Option<T>,
) -> Option<Vec<T>> {
    let count = rest.try_get_u32().ok()? as usize;
    if count > rest.len() / element_bytes {
        return None;
    }
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        elements.push(take(rest)?);
    }
    Some(elements)
}

fn entries(rest: &mut Bytes) -> Option<Vec<Entry>> {
    list(rest, 17, |rest| {
        Some(Entry { index: index(rest)?, ballot: ballot(rest)?, value: value(rest)? })
    })
}

fn value(rest: &mut Bytes) -> Option<Value> {
    let kind = rest.try_get_u8().ok()?;
    match kind {
        0 => Some(Value::Noop),
        1 => Some(Value::Data(counted(rest)?)),
        2 => Some(Value::Config(counted(rest)?)).filter(is_well_formed),
        _ => None,
    }
}

/// Configurations are decoded when they are chosen: none may be there that cannot be.
fn is_well_formed(value: &Value) -> bool {
    match value {
        Value::Config(bytes) => Config::decode(bytes, Index(0)).is_some(),
        Value::Noop | Value::Data(_) => true,
    }
}

fn counted(rest: &mut Bytes) -> Option<Bytes> {
    let length = rest.try_get_u32().ok()? as usize;
    (length <= rest.len()).then(|| rest.split_to(length))
}

fn config(rest: &mut Bytes) -> Option<Config> {
    let at = index(rest)?;
    Config::decode(&counted(rest)?, at)
}

fn flag(rest: &mut Bytes) -> Option<bool> {
    match rest.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn pair(rest: &mut Bytes) -> Option<Option<(u64, u64)>> {
    if flag(rest)? { Some(Some((number(rest)?, number(rest)?))) } else { Some(None) }
}

fn number(rest: &mut Bytes) -> Option<u64> {
    rest.try_get_u64().ok()
}

fn index(rest: &mut Bytes) -> Option<Index> {
    number(rest).map(Index)
}

fn instant(rest: &mut Bytes) -> Option<Instant> {
    number(rest).map(Instant)
}

fn ballot(rest: &mut Bytes) -> Option<Ballot> {
    number(rest).map(Ballot::from_number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeId;

    fn samples() -> Vec<Message> {
        let ballot = Ballot::new(7, NodeId(3));
        let data = Value::Data(Bytes::from_static(b"data"));
        let entry = Entry { index: Index(9), ballot, value: data.clone() };
        let mut config = Config::initial(&[NodeId(1), NodeId(2)]);
        config.index = Index(6);
        let change = Entry { index: Index(11), ballot, value: Value::Config(config.encode()) };
        let gap = Entry { index: Index(10), ballot, value: Value::Noop };
        let (chosen, support) = (Index(8), Some(Epoch { supporter: Life(5), count: 3 }));
        vec![
            Message::Ask { question: 1, config: Index(6) },
            Message::Answer { question: 1, leader_alive: true },
            Message::Prepare {
                ballot,
                handed: Ballot::new(6, NodeId(1)),
                config: Index(6),
                first: Index(13),
            },
            Message::Promise {
                ballot,
                chosen,
                first: Index(0),
                accepted: vec![entry.clone(), gap.clone()],
                faulty: vec![(Index(12), ballot)],
                next: Some(Index(13)),
                lease_left_us: 5,
                config: config.clone(),
            },
            Message::Accept { ballot, values: vec![(Index(9), data)], chosen },
            Message::Accepted { ballot, indexes: vec![Index(9), Index(12)] },
            Message::Heartbeat { ballot, chosen, truncate: Index(2), life: Life(8) },
            Message::HeartbeatAck { ballot, flushed: Index(4), chosen, support },
            Message::HeartbeatAck { ballot, flushed: Index(4), chosen, support: None },
            Message::Release { ballot },
            Message::Reject { promised: ballot },
            Message::Need { first: Index(3) },
            Message::Chosen { entries: vec![entry, gap, change] },
            Message::Truncated { first: Index(2), through: Index(6), config: config.clone() },
            Message::Config { config },
            Message::TakeOver { ballot, chosen },
        ]
    }

    #[test]
    fn every_message_round_trips_and_no_part_of_one_is_a_message() {
        for message in samples() {
            let bytes = encode(&message).freeze();
            assert_eq!(decode(bytes.clone()), Ok(message));
            for cut in 0..bytes.len() {
                assert!(decode(bytes.slice(..cut)).is_err(), "cut at {cut}");
            }
            let mut longer = bytes.to_vec();
            longer.push(0);
            assert!(decode(Bytes::from(longer)).is_err());
        }
    }

    #[test]
    fn beats_round_trip() {
        let (life, sent) = (Life(u64::MAX), Instant(9));
        for heard in [None, Some((Life(3), Instant(4)))] {
            for supports in [None, Some((7, Instant(4)))] {
                let beat = Beat { life, sent, heard, supports };
                let bytes = encode_beat(&beat).freeze();
                assert_eq!(decode_beat(bytes.clone()), Ok(beat));
                for cut in 0..bytes.len() {
                    assert!(decode_beat(bytes.slice(..cut)).is_err(), "cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn changed_bytes_never_panic() {
        for message in samples() {
            let bytes = encode(&message);
            for at in 0..bytes.len() {
                for flip in 1..=255u8 {
                    let mut changed = bytes.to_vec();
                    changed[at] ^= flip;
                    // Any outcome but a panic: the carrier's checksum is what finds the change.
                    let _ = decode(Bytes::from(changed));
                }
            }
        }
    }
}
