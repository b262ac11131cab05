//! The side that has the rows: a thread that answers asks, chunk by chunk.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use commands::Direction;
use wire::ids::{NodeId, PartitionId};
use wire::placement::PlacementRange;

use super::{Head, is_within, put_head, put_row, row_ranges};
use crate::backlog;
use crate::batch::Effect;
use crate::core::Captured;
use crate::driver::Shared;
use crate::flush;
use crate::lsm::LsmError;
use crate::message::{Ask, Chunk, Message};
use crate::meta;
use crate::partition::Partition;
use crate::stepped::StoredRows;

/// Snapshots given at once at most: each keeps tables from being deleted.
const SESSIONS_MAX: usize = 8;
/// A snapshot that nobody asks for is kept so long.
const SESSION_IDLE_MAX: Duration = Duration::from_secs(60);
/// Asks that wait at most; an older ask is repeated by whoever sent it.
pub(crate) const ASKS_MAX: usize = 256;
/// How often the thread looks around without being asked.
const TICK: Duration = Duration::from_millis(500);

/// An ask and where it came from.
pub(crate) struct Asked {
    pub(crate) from: NodeId,
    pub(crate) partition: PartitionId,
    pub(crate) ask: Ask,
}

struct Session {
    partition: Arc<Partition>,
    taker: paxos::NodeId,
    head: Head,
    captured: Captured,
    /// Rows that memory held, ascending: what they say counts.
    over: Vec<(Bytes, Option<Bytes>)>,
    asked: Instant,
    /// A chunk behind the first was asked for.
    has_begun: bool,
}

/// The thread.
pub(crate) fn run(shared: &Shared) {
    let mut giver = Giver::default();
    while !shared.is_stopping() {
        let asked = shared.giver.pop(TICK);
        shared.faults.checkpoint();
        giver.answer(shared, asked);
    }
}

/// The snapshots that are being given.
#[derive(Default)]
pub(crate) struct Giver {
    sessions: HashMap<u64, Session>,
    /// Sessions begun in this life.
    begun: u32,
    /// Partitions some of whose rows could not be read: there is no snapshot of them here any more.
    unreadable: BTreeSet<PartitionId>,
}

impl Giver {
    /// Forgets sessions that nobody asks for, and answers an ask.
    pub(crate) fn answer(&mut self, shared: &Shared, asked: Option<Asked>) {
        let Giver { sessions, begun, unreadable } = self;
        let now = shared.clock.instant();
        sessions.retain(|_, session| now - session.asked < SESSION_IDLE_MAX);
        let Some(Asked { from, partition, ask }) = asked else { return };
        let refuse = |session| {
            let no = Message::NoChunk { identity: ask.identity, session };
            shared.tell(from, partition, &no);
        };
        let mut id = ask.session;
        if id == 0 {
            // Asked again because the first answer took long: that is the same snapshot.
            let is_same = |session: &Session| {
                session.taker == ask.identity
                    && session.partition.id == partition
                    && !session.has_begun
                    && session.head.applied.index >= ask.at_least
            };
            let same = sessions.iter().find(|(_, session)| is_same(session));
            id = same.map_or(0, |(id, _)| *id);
        }
        if id == 0 {
            // Replicas of several partitions on one node may have the same identity.
            let is_old = |s: &Session| s.taker == ask.identity && s.partition.id == partition;
            sessions.retain(|_, session| !is_old(session));
            if sessions.len() >= SESSIONS_MAX {
                return; // It asks again.
            }
            let is_readable = !unreadable.contains(&partition);
            let begin = || is_readable.then(|| begin(shared, partition, &ask)).flatten();
            let Some(session) = begin() else {
                refuse(id);
                return;
            };
            *begun += 1;
            id = u64::from(shared.incarnation) << 32 | u64::from(*begun);
            sessions.insert(id, session);
        }
        let Some(session) = sessions.get_mut(&id) else {
            refuse(id);
            return;
        };
        session.asked = now;
        session.has_begun |= ask.number > 0;
        // At once, should this be the leader; the other side tells the others.
        session.partition.care.lock().hold_log(session.taker, session.head.applied.index, now);
        session.partition.wake();
        match session.chunk(&ask, shared.options.snapshot_chunk_bytes) {
            Ok((bytes, last)) => {
                let crc = crc32c::crc32c(&bytes);
                let (identity, number) = (ask.identity, ask.number);
                let chunk = Chunk { identity, session: id, number, last, crc, bytes };
                shared.tell(from, partition, &Message::Chunk(chunk));
                shared.counts.snapshots_given.fetch_add(u64::from(last), Ordering::Relaxed);
            }
            Err(error) => {
                if matches!(error, LsmError::Damaged(_)) {
                    unreadable.insert(partition);
                }
                let (node, partition) = (shared.id.0, partition.0);
                tracing::error!(node, partition, %error, "rows of a snapshot could not be read");
                sessions.remove(&id);
                // Not that this session is over: another one here would end no better.
                refuse(0);
            }
        }
    }
}

/// Captures the rows of a partition; `None` if they are not here, or not new enough.
fn begin(shared: &Shared, partition: PartitionId, ask: &Ask) -> Option<Session> {
    let partition = shared.partitions.read().get(&partition).cloned()?;
    if partition.is_installing() {
        return None;
    }
    // What memory holds is captured too; little of it is quickly sorted.
    if let Err(error) = flush::flush(shared) {
        tracing::error!(node = shared.id.0, %error, "flush for a snapshot failed");
        return None;
    }
    let mut captured = partition.look().capture(&shared.lsm);
    if captured.applied.index < ask.at_least {
        return None;
    }
    let requests = std::mem::take(&mut captured.requests);
    let requests = if mutant!(RequestsLeftBehind) { Default::default() } else { requests };
    let head = Head { applied: captured.applied, requests, config: captured.config.clone() };
    let over = over(partition.id, &captured);
    let (node, index) = (shared.id.0, head.applied.index);
    tracing::info!(
        node,
        partition = partition.id.0,
        to = ask.identity.0,
        index,
        "gives a snapshot"
    );
    let (asked, taker) = (shared.clock.instant(), ask.identity);
    Some(Session { partition, taker, head, captured, over, asked, has_begun: false })
}

/// The rows that the captured batches write, each with its newest value.
fn over(partition: PartitionId, captured: &Captured) -> Vec<(Bytes, Option<Bytes>)> {
    let mut rows = std::collections::BTreeMap::new();
    for (_, batch) in captured.batches.iter().flat_map(|batches| batches.iter()) {
        let visited = batch.for_each(|effect| match effect {
            Effect::Write { row, sealed } => {
                let sealed = sealed.map(|sealed| batch.slice(sealed));
                rows.insert(batch.slice(row), sealed);
            }
            Effect::Drop(generation) => {
                let (row, sealed) = meta::dead_row(partition, generation);
                rows.insert(row, Some(sealed));
            }
            Effect::Flush(_) | Effect::After(_) | Effect::Requests(_) => {}
        });
        visited.expect("it was well-formed when applied");
    }
    rows.into_iter().collect()
}

/// All rows of what was captured.
pub(crate) fn all_rows(
    partition: PartitionId,
    range: PlacementRange,
    captured: &Captured,
) -> Result<StoredRows, LsmError> {
    let mut rows = StoredRows::new();
    for (from, to) in row_ranges(partition, range) {
        captured.rows.scan_sealed(&from, &to, Direction::Forward, &mut |row, sealed| {
            if is_within(range, &row) {
                rows.insert(row, sealed);
            }
            std::ops::ControlFlow::Continue(())
        })?;
    }
    for (row, sealed) in over(partition, captured) {
        match sealed {
            Some(sealed) => drop(rows.insert(row, sealed)),
            None => drop(rows.remove(&row)),
        }
    }
    // What is dropped is named on disk with the next flush only.
    for batches in &captured.batches {
        let dropped = backlog::dropped(batches).expect("it was well-formed when applied");
        rows.retain(|row, _| !backlog::is_of(row, &dropped));
    }
    Ok(rows)
}

impl Session {
    /// The chunk that is asked for, and whether it is the last one.
    fn chunk(&self, ask: &Ask, bytes_max: usize) -> Result<(Bytes, bool), LsmError> {
        let mut out = BytesMut::with_capacity(bytes_max + bytes_max / 8);
        if ask.number == 0 {
            put_head(&mut out, &self.head);
        }
        let mut is_full = false;
        for (from, to) in row_ranges(self.partition.id, self.partition.range) {
            // Just above the last row that the other side has.
            let from = match ask.number > 0 && ask.after >= from {
                true => Bytes::from([&ask.after[..], &[0]].concat()),
                false => from,
            };
            if from >= to {
                continue;
            }
            self.put_range(&mut out, (&from, &to), bytes_max, &mut is_full)?;
            if is_full {
                break;
            }
        }
        Ok((out.freeze(), !is_full))
    }

    /// Adds the rows of a range until the chunk is full.
    fn put_range(
        &self,
        out: &mut BytesMut,
        (from, to): (&Bytes, &Bytes),
        bytes_max: usize,
        is_full: &mut bool,
    ) -> Result<(), LsmError> {
        let range = self.partition.range;
        let first = self.over.partition_point(|(row, _)| row < from);
        let mut over = self.over[first..].iter().take_while(|(row, _)| row < to).peekable();
        let mut put = |row: &[u8], sealed: Option<&[u8]>| {
            if *is_full {
                return true;
            }
            if let Some(sealed) = sealed.filter(|_| is_within(range, row)) {
                put_row(out, row, sealed);
                *is_full = out.len() >= bytes_max;
            }
            *is_full
        };
        use std::ops::ControlFlow::{Break, Continue};
        self.captured.rows.scan_sealed(from, to, Direction::Forward, &mut |row, sealed| {
            while let Some((above, value)) = over.peek() {
                if *above > row {
                    break;
                }
                let shadows = *above == row;
                if put(above, value.as_deref()) {
                    return Break(());
                }
                over.next();
                if shadows {
                    return Continue(());
                }
            }
            if put(&row, Some(&sealed)) { Break(()) } else { Continue(()) }
        })?;
        for (row, sealed) in over {
            if put(row, sealed.as_deref()) {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use wire::peer::{Frame, FrameHandler};

    use super::*;
    use crate::alone::{Alone, PARTITION};
    use crate::lsm;
    use crate::node::NodeOptions;

    /// What a node was told.
    #[derive(Default)]
    struct Heard(Mutex<Vec<Message>>);

    impl FrameHandler for Heard {
        fn handle(&self, _: NodeId, frame: Frame) {
            self.0.lock().extend(Message::decode(frame.body().clone()));
        }
    }

    #[test]
    fn a_source_that_cannot_read_its_rows_breaks_the_snapshot_off() {
        let options = NodeOptions {
            lsm: lsm::Options { cache_bytes: 1 << 10, ..lsm::Options::default() },
            snapshot_chunk_bytes: 1 << 10,
            ..NodeOptions::default()
        };
        let alone = Alone::open(options);
        let value = "v".repeat(500);
        for i in 0..200 {
            alone.run(&["SET", &format!("key:{i}"), &value]).expect("it leads");
        }
        alone.node.flush().expect("a flush");
        let (taker, heard) = (NodeId(2), Arc::new(Heard::default()));
        alone.transport.register(taker, heard.clone());
        let (shared, mut giver) = (alone.shared(), Giver::default());
        let identity = paxos::NodeId(taker.0);
        let mut ask = |session, number, after| {
            let ask = Ask { identity, at_least: 1, session, number, after };
            giver.answer(shared, Some(Asked { from: taker, partition: PARTITION, ask }));
            heard.0.lock().pop().expect("an answer")
        };
        let Message::Chunk(first) = ask(0, 0, Bytes::new()) else { panic!("it can be read") };
        let tables = lsm::tables_folder(&shared.dir.join("lsm")).expect("there are tables");
        for table in std::fs::read_dir(tables).expect("a folder") {
            let path = table.expect("a table").path();
            let mut bytes = std::fs::read(&path).expect("read");
            bytes.iter_mut().skip(50).step_by(100).for_each(|byte| *byte ^= 0x41);
            std::fs::write(&path, bytes).expect("written");
        }
        // Chunk after chunk, until it comes to what is damaged: then there is no snapshot here at all, and
        // whoever fetches it has to look elsewhere.
        let none = Message::NoChunk { identity, session: 0 };
        assert_eq!(ask(first.session, 1, Bytes::from_static(&[0])), none);
        assert_eq!(ask(0, 0, Bytes::new()), none);
    }
}
