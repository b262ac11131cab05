//! The catch-up thread: reads the log for members that lack entries. A member asks for the next part as
//! soon as it has one, so a whole catch-up is one long exchange; on this thread it keeps nobody waiting
//! who brought a frame.

use std::sync::Arc;
use std::time::Duration;

use crate::core::LogRead;
use crate::driver::Shared;
use crate::partition::Partition;

/// Parts that are asked for and not read yet, at most: what is dropped is asked for again.
const READS_MAX: usize = 256;
/// How often the thread looks around without being asked.
const TICK: Duration = Duration::from_millis(500);

/// Entries that somebody lacks, of a replica's log.
pub(crate) type Asked = (Arc<Partition>, LogRead);

/// Has entries read and sent.
pub(crate) fn ask(shared: &Shared, partition: &Arc<Partition>, read: LogRead) {
    shared.log_reads.push((Arc::clone(partition), read), READS_MAX);
}

/// The thread.
pub(crate) fn run(shared: &Shared) {
    while !shared.is_stopping() {
        let asked = shared.log_reads.pop(TICK);
        shared.faults.checkpoint();
        if let Some(asked) = asked
            && !shared.is_stopping()
        {
            answer(shared, &asked);
        }
    }
}

/// Sends a lagging member what only the log on disk holds.
pub(crate) fn answer(shared: &Shared, (partition, read): &Asked) {
    let bytes_max = shared.options.paxos.catch_up_bytes;
    match shared.log.read(partition.log_group, read.first, read.last, bytes_max) {
        Ok(found) => {
            // What follows a gap or a damaged entry waits until a peer sends that.
            let whole: Vec<_> = (read.first..)
                .zip(found.entries)
                .take_while(|(index, entry)| entry.index == *index)
                .map(|(_, entry)| crate::recover::to_entry(entry))
                .collect();
            if whole.is_empty() {
                let first = paxos::Index(read.first);
                shared.step(partition, |core, _| core.replica.log_unreadable(read.to, first));
                return;
            }
            shared.send(partition, read.to, &paxos::Message::chosen(whole));
        }
        Err(error) => {
            let (node, partition) = (shared.id.0, partition.id.0);
            tracing::warn!(node, partition, %error, "log read failed");
        }
    }
}
