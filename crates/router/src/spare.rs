//! Memory that pipelines leave behind for the next ones on the same thread. An idle connection keeps none,
//! and without this each pipeline would grow its own anew, step by step.

use std::cell::RefCell;

use memds::Lookup;
use wire::resp::ReplyBuffer;

use crate::again::{Gated, Lines};
use crate::connection::Connection;
use crate::pending::Pending;

/// Pipelines whose memory a thread keeps, at most: as many as run on it at once, on a server that is busy.
const SPARES_MAX: usize = 64;
/// Memory of a pipeline that was larger (bytes), and a reply buffer that was, are given back.
const SPARE_BYTES_MAX: usize = 32 << 10;

/// What a pipeline has of it; all of it empty.
#[derive(Default)]
struct Spare {
    gated: Vec<Gated>,
    lines: Lines,
    pending: Pending,
    mirror: Vec<Lookup>,
    output: ReplyBuffer,
}

thread_local! {
    static SPARES: RefCell<Vec<Spare>> = const { RefCell::new(Vec::new()) };
}

impl Spare {
    /// Bytes it takes, without the buffer of replies.
    fn bytes(&self) -> usize {
        self.gated.capacity() * size_of::<Gated>()
            + self.lines.capacity()
            + self.pending.held_bytes()
            + self.mirror.capacity() * size_of::<Lookup>()
    }
}

impl Connection {
    /// Takes the memory that another pipeline left, if this connection has none of its own.
    pub(crate) fn take_spare(&mut self) {
        let has_own = self.gated.capacity() > 0
            || self.lines.capacity() > 0
            || self.pending.held_bytes() > 0
            || self.caller.mirror.capacity() > 0;
        if has_own {
            return;
        }
        let Some(spare) = SPARES.with_borrow_mut(Vec::pop) else { return };
        let Spare { gated, lines, pending, mirror, output } = spare;
        (self.gated, self.lines, self.pending) = (gated, lines, pending);
        self.caller.mirror = mirror;
        if self.output.is_empty() {
            self.output = output;
        }
    }

    /// Leaves the memory of the pipeline that has ended to the next one.
    pub(crate) fn leave_spare(&mut self) {
        let mut spare = Spare {
            gated: std::mem::take(&mut self.gated),
            lines: std::mem::take(&mut self.lines),
            pending: std::mem::take(&mut self.pending),
            mirror: std::mem::take(&mut self.caller.mirror),
            output: ReplyBuffer::new(),
        };
        spare.gated.clear();
        spare.lines.clear();
        spare.pending.clear();
        spare.mirror.clear();
        if self.output.is_empty() {
            let mut output = std::mem::take(&mut self.output);
            if output.is_small(SPARE_BYTES_MAX) {
                spare.output = output;
            }
        }
        if (1..=SPARE_BYTES_MAX).contains(&spare.bytes()) {
            SPARES.with_borrow_mut(|spares| {
                if spares.len() < SPARES_MAX {
                    spares.push(spare);
                }
            });
        }
    }
}
