//! Which requests of routers a partition did of late, and what it answered: a request that is made again,
//! because its answer was lost with a leader, is answered again and not done again.
//!
//! ```text
//! section = run*                                       what one batch answers, in its order
//! run     = router:u64 connection:varint first:varint count:varint length:varint reply*
//! reply   = 0x00 times:varint                          OK, so many times
//!         | 0x01 integer:i64                           an integer
//!         | 0x02 length:u8 bytes                       a bulk of at most REPLY_BYTES_MAX bytes
//!         | 0x03                                       null
//!         | 0x04                                       another one: that it was answered is kept, not how
//!         | 0x05 integer:varint                        an integer from 0 to SMALL_MAX
//! table   = forgotten:u64 part*
//! part    = index:u64 now_ms:u64 length:u32 section    in the order of the log
//! ```
//!
//! A request is named by its router's life, its connection and a number that ascends there. The requests
//! of a pipeline have numbers in a row, so that most cost a byte or two of the log.
//!
//! *Bounded.* A partition's table holds the newest parts: at most so many bytes, none older than an age
//! counted by the log's own time. It says how far it has forgotten. Whoever makes a request again says
//! behind which index the first attempt must stand; if the table reaches back that far, what is not
//! in it was not done and never will be, for the leader has applied all that its predecessors could
//! propose. If not, nobody knows ([`Found::Forgotten`]).
//!
//! The table is replicated state: each replica makes it of the same batches; it is written with what a
//! flush writes, and given with a snapshot. Where it is cut follows from the same batches too.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use wire::resp::Reply;
use wire::service::RequestId;

/// The longest bulk that is kept.
const REPLY_BYTES_MAX: usize = 64;
/// What a part costs beside its section, about.
const PART_BYTES: usize = 48;

const OK: u8 = 0;
const INTEGER: u8 = 1;
const BULK: u8 = 2;
const NULL: u8 = 3;
const OTHER: u8 = 4;
const SMALL: u8 = 5;
/// Counters and lengths are written short: an INCR would take a fifth more of the log else.
const SMALL_MAX: i64 = 1 << 42;

/// How much of the past a partition keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DedupLimits {
    /// Bytes of a partition's table. Default 1 MiB: the requests of some seconds at full speed.
    pub bytes: usize,
    /// How long a request is remembered. Default 60 s.
    pub age: Duration,
}

impl Default for DedupLimits {
    fn default() -> DedupLimits {
        DedupLimits { bytes: 1 << 20, age: Duration::from_secs(60) }
    }
}

/// The requests of a batch that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Section {
    /// The runs that are closed.
    bytes: Vec<u8>,
    run: Option<Run>,
}

#[derive(Debug)]
struct Run {
    first: RequestId,
    count: u64,
    replies: Vec<u8>,
    /// OKs at the end that are not in `replies` yet.
    oks: u64,
}

impl Section {
    /// Bytes that it takes, no fewer.
    pub(crate) fn len(&self) -> usize {
        /// A run's head and its last OKs.
        const RUN_BYTES: usize = 64;
        let run = self.run.as_ref().map_or(0, |run| RUN_BYTES + run.replies.len());
        self.bytes.len() + run
    }

    /// Adds a request that the batch answers.
    pub(crate) fn add(&mut self, id: RequestId, reply: &Reply) {
        let goes_on = |run: &Run| {
            let RequestId { router, connection, sequence } = run.first;
            let next = RequestId { router, connection, sequence: sequence + run.count };
            next == id
        };
        if !self.run.as_ref().is_some_and(goes_on) {
            self.close();
            self.run = Some(Run { first: id, count: 0, replies: Vec::new(), oks: 0 });
        }
        let Some(run) = &mut self.run else { return };
        run.count += 1;
        match reply {
            Reply::Simple("OK") => {
                run.oks += 1;
                return;
            }
            _ => run.put_oks(),
        }
        match reply {
            Reply::Integer(number @ 0..=SMALL_MAX) => {
                run.replies.push(SMALL);
                put_varint(&mut run.replies, *number as u64);
            }
            Reply::Integer(number) => {
                run.replies.push(INTEGER);
                run.replies.extend_from_slice(&number.to_be_bytes());
            }
            Reply::Bulk(bytes) if bytes.len() <= REPLY_BYTES_MAX => {
                run.replies.push(BULK);
                run.replies.push(bytes.len() as u8);
                run.replies.extend_from_slice(bytes);
            }
            Reply::Null => run.replies.push(NULL),
            _ => run.replies.push(OTHER),
        }
    }

    fn close(&mut self) {
        let Some(mut run) = self.run.take() else { return };
        run.put_oks();
        self.bytes.extend_from_slice(&run.first.router.to_be_bytes());
        let numbers = [run.first.connection, run.first.sequence, run.count];
        numbers.into_iter().for_each(|number| put_varint(&mut self.bytes, number));
        put_varint(&mut self.bytes, run.replies.len() as u64);
        self.bytes.extend_from_slice(&run.replies);
    }

    /// The section.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.close();
        self.bytes
    }

    /// What was answered to a request.
    pub(crate) fn find(&mut self, id: RequestId) -> Option<Option<Reply>> {
        self.close();
        find(&self.bytes, id)
    }
}

impl Run {
    fn put_oks(&mut self) {
        if self.oks > 0 {
            self.replies.push(OK);
            put_varint(&mut self.replies, std::mem::take(&mut self.oks));
        }
    }
}

/// What a section says was answered to a request: `None` if it was not among these, `Some(None)` if its
/// reply was not kept. A section that is malformed says nothing of what is behind that.
pub(crate) fn find(mut section: &[u8], id: RequestId) -> Option<Option<Reply>> {
    while !section.is_empty() {
        let router = section.try_get_u64().ok()?;
        let connection = take_varint(&mut section)?;
        let first = take_varint(&mut section)?;
        let count = take_varint(&mut section)?;
        let length = usize::try_from(take_varint(&mut section)?).ok()?;
        let replies = section.split_off(..length)?;
        let nth = id.sequence.checked_sub(first).filter(|nth| *nth < count);
        let is_its = (router, connection) == (id.router, id.connection) || mutant!(AnothersReply);
        if let Some(nth) = nth.filter(|_| is_its) {
            return nth_reply(replies, nth);
        }
    }
    None
}

fn nth_reply(mut replies: &[u8], mut nth: u64) -> Option<Option<Reply>> {
    loop {
        let (times, reply) = match replies.try_get_u8().ok()? {
            OK => (take_varint(&mut replies)?, Some(Reply::OK)),
            INTEGER => (1, Some(Reply::Integer(replies.try_get_i64().ok()?))),
            SMALL => (1, Some(Reply::Integer(take_varint(&mut replies)? as i64))),
            BULK => {
                let length = usize::from(replies.try_get_u8().ok()?);
                let bytes = replies.split_off(..length)?;
                (1, Some(Reply::Bulk(Bytes::copy_from_slice(bytes))))
            }
            NULL => (1, Some(Reply::Null)),
            OTHER => (1, None),
            _ => return None,
        };
        match nth.checked_sub(times) {
            Some(left) => nth = left,
            None => return Some(reply),
        }
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.try_get_u8().ok()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// What is known of a request.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Found {
    /// It was done, by the batch of this index. The reply, if it is kept.
    Done(u64, Option<Reply>),
    /// It was not, and will not be.
    Not,
    /// It may have been: the table does not reach back that far.
    Forgotten,
}

/// See [`Requests::sums`].
pub type RequestSums = (u64, Vec<(u64, u32)>);

/// The requests of one batch.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Part {
    index: u64,
    now_ms: u64,
    section: Box<[u8]>,
}

/// See the module's text.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Requests {
    /// By ascending index.
    parts: VecDeque<Part>,
    bytes: usize,
    /// Requests of batches up to this index may be missing.
    forgotten: u64,
}

impl Requests {
    /// Adds what a batch answered, and forgets what is too old or too much.
    pub(crate) fn push(
        &mut self,
        (index, now_ms): (u64, u64),
        section: &[u8],
        limits: DedupLimits,
    ) {
        self.bytes += PART_BYTES + section.len();
        self.parts.push_back(Part { index, now_ms, section: section.into() });
        self.forget(now_ms, limits);
    }

    /// Forgets what is too old at a time, or too much.
    pub(crate) fn forget(&mut self, now_ms: u64, limits: DedupLimits) {
        let age_ms = limits.age.as_millis() as u64;
        while self.parts.len() > 1
            && let Some(oldest) = self.parts.front()
            && (self.bytes > limits.bytes || oldest.now_ms.saturating_add(age_ms) < now_ms)
        {
            self.bytes -= PART_BYTES + oldest.section.len();
            self.forgotten = oldest.index;
            self.parts.pop_front();
        }
    }

    /// What is known of a request whose first attempt stands at `from` or behind, if anywhere.
    pub(crate) fn find(&self, id: RequestId, from: u64) -> Found {
        let first = self.parts.partition_point(|part| part.index < from);
        let found = self
            .parts
            .range(first..)
            .find_map(|part| find(&part.section, id).map(|reply| Found::Done(part.index, reply)));
        let unknown = if from > self.forgotten { Found::Not } else { Found::Forgotten };
        found.unwrap_or(unknown)
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.reserve(self.bytes + 8);
        out.put_u64(self.forgotten);
        for Part { index, now_ms, section } in &self.parts {
            out.put_u64(*index);
            out.put_u64(*now_ms);
            out.put_u32(section.len() as u32);
            out.put_slice(section);
        }
    }

    /// Reads what [`Requests::encode`] wrote; `None` if it has another shape.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Requests> {
        let mut requests = Requests { forgotten: bytes.try_get_u64().ok()?, ..Requests::default() };
        while !bytes.is_empty() {
            let (index, now_ms) = (bytes.try_get_u64().ok()?, bytes.try_get_u64().ok()?);
            let length = bytes.try_get_u32().ok()? as usize;
            let section: Box<[u8]> = bytes.split_off(..length)?.into();
            requests.bytes += PART_BYTES + section.len();
            requests.parts.push_back(Part { index, now_ms, section });
        }
        Some(requests)
    }

    /// Of a replica that knows nothing of what was done up to an index.
    pub(crate) fn unknown_through(index: u64) -> Requests {
        Requests { forgotten: index, ..Requests::default() }
    }

    /// The index up to which it is forgotten, and each part behind: its index, and a checksum.
    pub(crate) fn sums(&self) -> RequestSums {
        let sum = |part: &Part| (part.index, crc32c::crc32c(&part.section));
        (self.forgotten, self.parts.iter().map(sum).collect())
    }

    /// Whether there is nothing to keep.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.forgotten == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(connection: u64, sequence: u64) -> RequestId {
        RequestId { router: 7 << 60, connection, sequence }
    }

    fn text(text: &'static str) -> Reply {
        Reply::Bulk(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn each_request_of_a_section_is_found_with_its_reply() {
        let long = Reply::Bulk(Bytes::from(vec![1; REPLY_BYTES_MAX + 1]));
        let replies = [
            Reply::OK,
            Reply::OK,
            Reply::Integer(-5),
            Reply::Integer(0),
            Reply::Integer(SMALL_MAX),
            Reply::Integer(SMALL_MAX + 1),
            Reply::OK,
            text("a bulk"),
            Reply::Null,
            long.clone(),
            Reply::OK,
        ];
        let mut section = Section::default();
        let mut expected = Vec::new();
        // Two connections in turns; numbers in a row, then a gap.
        for (turn, connection) in [3, 200_000, 3].into_iter().enumerate() {
            for (nth, reply) in replies.iter().enumerate() {
                let id = id(connection, 1_000 * turn as u64 + nth as u64);
                section.add(id, reply);
                let kept = Some(reply.clone()).filter(|reply| *reply != long);
                expected.push((id, kept));
            }
        }
        let bytes = section.finish();
        for (id, reply) in &expected {
            assert_eq!(find(&bytes, *id), Some(reply.clone()), "{id:?}");
        }
        for absent in
            [id(3, 11), id(3, 999), id(4, 1), id(200_000, 0), RequestId { router: 1, ..id(3, 0) }]
        {
            assert_eq!(find(&bytes, absent), None, "{absent:?}");
        }
        for cut in 0..bytes.len() {
            // What is cut off is not found; nothing else is made of it.
            for (id, reply) in &expected {
                let found = find(&bytes[..cut], *id);
                assert!(found.is_none() || found == Some(reply.clone()));
            }
        }
    }

    #[test]
    fn a_pipeline_of_writes_costs_little() {
        let mut section = Section::default();
        for sequence in 0..16 {
            section.add(id(50_000, 1_000_000 + sequence), &Reply::OK);
        }
        assert!(section.len() >= section.bytes.len());
        assert!(section.finish().len() <= 24);
    }

    #[test]
    fn what_is_forgotten_is_not_denied() {
        let limits = DedupLimits { bytes: 10 * (PART_BYTES + 20), age: Duration::from_secs(10) };
        let mut requests = Requests::default();
        for index in 1..=100 {
            let mut section = Section::default();
            section.add(id(1, index), &Reply::Integer(index as i64));
            requests.push((index, 1_000 + index), &section.finish(), limits);
            assert!(requests.bytes <= limits.bytes);
        }
        let oldest = requests.forgotten + 1;
        assert!(oldest > 80 && oldest < 100, "about ten are kept");
        for index in 1..=100 {
            let found = requests.find(id(1, index), index);
            match index < oldest {
                true => assert_eq!(found, Found::Forgotten),
                false => assert_eq!(found, Found::Done(index, Some(Reply::Integer(index as i64)))),
            }
        }
        assert_eq!(requests.find(id(1, 101), 95), Found::Not);
        assert_eq!(requests.find(id(1, 101), 5), Found::Forgotten);
        assert_eq!(requests.find(id(1, 100), 5), Found::Done(100, Some(Reply::Integer(100))));
        let mut bytes = BytesMut::new();
        requests.encode(&mut bytes);
        assert_eq!(Requests::decode(&bytes), Some(requests.clone()));
        assert_eq!(Requests::decode(&bytes[..bytes.len() - 1]), None);
        // Time passes: only the newest part is never too old.
        requests.push((101, 100_000), &[], limits);
        assert_eq!((requests.parts.len(), requests.forgotten), (1, 100));
    }
}
