//! The threads that write the logs of a process's nodes.
//!
//! ```text
//! records ──ring──▶ a thread wakes and takes all logs that somebody waits for and no thread has
//!                   ──▶ one call writes and syncs them all ──▶ each partition is told
//! ```
//!
//! Each node brings one thread along, and any of them writes any log. What a leader proposes has reached its
//! followers of this process before a thread is woken for it ([`Hold`]). So one thread is woken instead of
//! three, and waits once for what three would each have written and synced for themselves. A process of one
//! node has one thread and one log.
//!
//! A log whose disk has a fault injected, and that of a node that stands still, is left to its own node's
//! thread: nobody else waits for it. So are all where the system has no [`Ring`], or the file system wants a
//! sync for each file anyhow.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::driver::{self, Item, Shared};
use crate::machine::{PARTS_MAX, Ring};
use crate::wal;

/// For how long nothing has come when a log's last batch gets its mark.
const MARK_AFTER: Duration = Duration::from_millis(5);

/// See the module's text. Nodes that run in one process share one.
#[derive(Default, Debug)]
pub struct Logs {
    seats: Mutex<Vec<Seat>>,
    ready: Condvar,
    /// Each thread writes its own node's log only.
    are_apart: AtomicBool,
}

/// A node's log.
struct Seat {
    node: Arc<Shared>,
    /// `None` while a thread has it.
    log: Option<wal::Writer>,
    /// When it was last given back.
    used: Instant,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").field("node", &self.node.id).field("log", &self.log).finish()
    }
}

impl Seat {
    /// One that stops says nothing any more.
    fn may_be_taken(&self) -> bool {
        self.log.is_some() && !self.node.is_stopping()
    }

    fn is_of(&self, node: &Shared) -> bool {
        std::ptr::eq(&*self.node, node)
    }
}

/// A log that a thread has, and what is to be appended: nothing if it is to get its mark. It goes back to its
/// seat when this is dropped.
struct Taken<'a> {
    logs: &'a Logs,
    node: Arc<Shared>,
    log: Option<wal::Writer>,
    items: Vec<Item>,
}

impl Taken<'_> {
    fn log(&mut self) -> &mut wal::Writer {
        self.log.as_mut().expect("only dropping takes it")
    }

    /// Appends what is to be appended, and tells whether that is to be made durable now. The node stops if its
    /// log fails.
    fn append(&mut self) -> bool {
        let Taken { node, log, items, .. } = self;
        let log = log.as_mut().expect("only dropping takes it");
        if items.is_empty() {
            driver::mark(node, log);
            return false;
        }
        match node.contain("log", || driver::append(log, items)) {
            Some(Ok(_)) => true,
            Some(Err(error)) => {
                driver::fail(node, &error);
                false
            }
            None => false,
        }
    }

    /// Gives the log back; what was to be appended is left.
    fn give_back(mut self) -> (Arc<Shared>, Vec<Item>) {
        (Arc::clone(&self.node), std::mem::take(&mut self.items))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut seats = self.logs.seats.lock();
        if let Some(seat) = seats.iter_mut().find(|seat| seat.is_of(&self.node)) {
            seat.log = self.log.take();
            seat.used = Instant::now();
        }
        // Whoever was woken for what came meanwhile found no log, as did who wants to leave with it.
        if self.node.work.lock().is_urgent() || self.node.is_stopping() {
            self.logs.ready.notify_all();
        }
    }
}

thread_local! {
    /// How many [`Hold`]s this thread has.
    static HOLDS: Cell<u32> = const { Cell::new(0) };
    /// Whose threads are to be woken when it has none any more.
    static RUNG: RefCell<Vec<Arc<Logs>>> = const { RefCell::new(Vec::new()) };
}

/// While a thread has one of these it wakes nobody to write logs; once it has none, it does.
pub(crate) struct Hold(());

impl Hold {
    pub(crate) fn new() -> Hold {
        HOLDS.set(HOLDS.get() + 1);
        Hold(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        HOLDS.set(HOLDS.get() - 1);
        if HOLDS.get() == 0 {
            RUNG.with_borrow_mut(|rung| rung.drain(..).for_each(|logs| logs.wake()));
        }
    }
}

impl Logs {
    /// Some node's log is to be written.
    pub(crate) fn ring(self: &Arc<Logs>) {
        if HOLDS.get() == 0 {
            return self.wake();
        }
        RUNG.with_borrow_mut(|rung| {
            if !rung.iter().any(|other| Arc::ptr_eq(other, self)) {
                rung.push(Arc::clone(self));
            }
        });
    }

    fn wake(&self) {
        // Taken so that no thread is between its check and its wait.
        let seats = self.seats.lock();
        if seats.iter().any(|seat| self.is_alone(seat)) {
            self.ready.notify_all();
        } else {
            self.ready.notify_one();
        }
    }

    /// Has all threads look whether their node stops.
    pub(crate) fn wake_all(&self) {
        drop(self.seats.lock());
        self.ready.notify_all();
    }

    /// Waits until there are logs to be written; none if the node stops first.
    fn take(&self, own: &Shared) -> Vec<Taken<'_>> {
        let mut seats = self.seats.lock();
        loop {
            if own.is_stopping() {
                return Vec::new();
            }
            let taken = self.take_urgent(&mut seats, own);
            if !taken.is_empty() {
                return taken;
            }
            match self.take_unmarked(&mut seats, own) {
                Ok(unmarked) => return vec![unmarked],
                Err(Some(due)) => _ = self.ready.wait_until(&mut seats, due),
                Err(None) => self.ready.wait(&mut seats),
            }
        }
    }

    fn take_urgent(&self, seats: &mut [Seat], own: &Shared) -> Vec<Taken<'_>> {
        let may_be_taken = |seat: &&mut Seat| seat.may_be_taken();
        // First what nobody else takes. It may take long, and so is taken by itself.
        let is_own = |seat: &&mut Seat| seat.is_of(own) && self.is_alone(seat);
        let own_alone = seats.iter_mut().filter(may_be_taken).find(is_own);
        if let Some(taken) = own_alone.and_then(|seat| self.take_from(seat)) {
            return vec![taken];
        }
        let others = seats.iter_mut().filter(may_be_taken).filter(|seat| !self.is_alone(seat));
        others.filter_map(|seat| self.take_from(seat)).take(PARTS_MAX).collect()
    }

    /// The log of a seat, if somebody waits for it.
    fn take_from(&self, seat: &mut Seat) -> Option<Taken<'_>> {
        let work = {
            let mut work = seat.node.work.lock();
            work.is_urgent().then(|| std::mem::take(&mut *work))
        };
        work.map(|work| self.hand_out(seat, work.items))
    }

    /// A log of which the last batch is to get its mark now; else when one is.
    fn take_unmarked(
        &self,
        seats: &mut [Seat],
        own: &Shared,
    ) -> Result<Taken<'_>, Option<Instant>> {
        let owes = |seat: &Seat| {
            seat.may_be_taken() && seat.log.as_ref().is_some_and(wal::Writer::owes_mark)
        };
        let is_taken = |seat: &&mut Seat| owes(seat) && (seat.is_of(own) || !self.is_alone(seat));
        let first = seats.iter_mut().filter(is_taken).min_by_key(|seat| seat.used);
        let Some(seat) = first else { return Err(None) };
        let due = seat.used + MARK_AFTER;
        if due > Instant::now() { Err(Some(due)) } else { Ok(self.hand_out(seat, Vec::new())) }
    }

    fn hand_out<'a>(&'a self, seat: &mut Seat, items: Vec<Item>) -> Taken<'a> {
        Taken { logs: self, node: Arc::clone(&seat.node), log: seat.log.take(), items }
    }

    /// Whether a log is left to its own node's thread, by itself.
    fn is_alone(&self, seat: &Seat) -> bool {
        let faults = &seat.node.faults;
        let shares = seat.log.as_ref().is_none_or(wal::Writer::may_share_syncs);
        self.are_apart.load(Ordering::Relaxed)
            || !shares
            || faults.is_paused()
            || faults.has_disk_fault()
    }

    /// Waits until no thread has the node's log, and takes it away.
    fn leave(&self, own: &Shared) -> Option<wal::Writer> {
        let mut seats = self.seats.lock();
        loop {
            let at = seats.iter().position(|seat| seat.is_of(own))?;
            if seats[at].log.is_some() {
                let log = seats.remove(at).log;
                // This thread may have been woken for another log.
                self.ready.notify_all();
                return log;
            }
            self.ready.wait(&mut seats);
        }
    }
}

/// A node's log thread. Ends when the node stops or its log fails.
pub(crate) fn run(own: &Arc<Shared>, log: wal::Writer) {
    let logs = &*own.options.logs;
    let mut ring = Ring::new();
    if ring.is_none() {
        logs.are_apart.store(true, Ordering::Relaxed);
    }
    logs.seats.lock().push(Seat { node: Arc::clone(own), log: Some(log), used: Instant::now() });
    let _leaves = Leaves(logs, own);
    while !own.is_stopping() {
        let taken = logs.take(own);
        if let [one] = &taken[..]
            && Arc::ptr_eq(&one.node, own)
        {
            own.faults.checkpoint();
        }
        write(ring.as_mut(), taken);
    }
}

/// Takes the node's log away when it is dropped, and marks it.
struct Leaves<'a>(&'a Logs, &'a Shared);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        if let Some(mut log) = self.0.leave(self.1) {
            driver::mark(self.1, &mut log);
        }
    }
}

/// Appends to these logs, makes it durable and tells of it. Nodes stop whose logs fail.
fn write(ring: Option<&mut Ring>, mut taken: Vec<Taken<'_>>) {
    taken.retain_mut(Taken::append);
    let synced = sync_all(ring, taken.iter_mut().map(Taken::log));
    for (one, synced) in taken.into_iter().zip(synced) {
        // Others may write on while the partitions are told.
        let (node, items) = one.give_back();
        match synced {
            Ok(()) => _ = node.contain("log", || driver::tell_persisted(&node, items)),
            Err(error) => driver::fail(&node, &error),
        }
    }
}

/// Makes durable what was appended to these logs.
fn sync_all<'a>(
    ring: Option<&mut Ring>,
    logs: impl Iterator<Item = &'a mut wal::Writer>,
) -> Vec<Result<(), wal::WalError>> {
    let mut logs: Vec<_> = logs.collect();
    let Some(ring) = ring.filter(|_| logs.len() > 1) else {
        return logs.into_iter().map(wal::Writer::sync).collect();
    };
    let parts: Vec<_> = logs.iter_mut().map(|log| log.begin_sync()).collect();
    let begun: Vec<_> = parts.iter().map(Option::is_some).collect();
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    let mut written = ring.write(&parts).into_iter();
    drop(parts);
    let sync = |(log, is_begun): (&mut wal::Writer, bool)| match is_begun {
        true => log.end_sync(written.next().expect("one for each part")),
        false => log.sync(),
    };
    logs.into_iter().zip(begun).map(sync).collect()
}

#[cfg(test)]
mod tests {
    use wire::resp::Reply;
    use wire::service::{Gate, GateOutcome};

    use super::*;
    use crate::alone::Alone;
    use crate::node::NodeOptions;

    /// Two nodes of one process, that write their logs together or apart.
    fn two(are_apart: bool) -> (NodeOptions, [Alone; 2]) {
        let options = NodeOptions::default();
        options.logs.are_apart.store(are_apart, Ordering::Relaxed);
        let nodes = [(), ()].map(|()| Alone::open(options.clone()));
        (options, nodes)
    }

    /// Has a write sealed.
    fn writes(alone: &Alone) -> Gate {
        let gate = alone.begin(&["INCR", "k"]);
        alone.shared().seal(&alone.partition(), gate.batch);
        gate
    }

    fn is_waiting(alone: &Alone) -> bool {
        alone.shared().work.lock().is_urgent()
    }

    #[test]
    fn nobody_is_woken_before_the_last_log_has_its_records() {
        for are_apart in [false, true] {
            let (_, nodes) = two(are_apart);
            for _ in 0..50 {
                let hold = Hold::new();
                let gates = nodes.each_ref().map(writes);
                drop(Hold::new());
                let rung = RUNG.with_borrow(|rung| rung.len());
                assert_eq!((rung, nodes.each_ref().map(is_waiting)), (1, [true, true]));
                drop(hold);
                for (alone, gate) in nodes.iter().zip(gates) {
                    assert_eq!(alone.outcome(gate), GateOutcome::Durable);
                }
            }
        }
    }

    #[test]
    fn each_of_several_processes_logs_is_rung_for() {
        let nodes = [(), ()].map(|()| Alone::open(NodeOptions::default()));
        let hold = Hold::new();
        let gates = nodes.each_ref().map(writes);
        drop(hold);
        for (alone, gate) in nodes.iter().zip(gates) {
            assert_eq!(alone.outcome(gate), GateOutcome::Durable);
        }
    }

    #[test]
    fn a_node_that_stands_still_holds_up_no_other() {
        for are_apart in [false, true] {
            let (_, [still, other]) = two(are_apart);
            let hold = Hold::new();
            let gate = writes(&still);
            still.shared().faults.pause();
            drop(hold);
            for count in 1..=50 {
                assert_eq!(other.run(&["INCR", "k"]), Some(Reply::Integer(count)));
            }
            assert!(still.partition().look().applied().index < gate.index);
            still.shared().faults.resume();
            assert_eq!(still.outcome(gate), GateOutcome::Durable);
        }
    }

    #[test]
    fn nodes_come_and_go_while_others_write() {
        let (options, [one, other]) = two(false);
        let is_done = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            for alone in [one, other] {
                scope.spawn(move || {
                    let mut count = 0;
                    while !is_done.load(Ordering::Relaxed) {
                        count += 1;
                        assert_eq!(alone.run(&["INCR", "k"]), Some(Reply::Integer(count)));
                    }
                });
            }
            for _ in 0..20 {
                let guest = Alone::open(options.clone());
                assert_eq!(guest.run(&["INCR", "k"]), Some(Reply::Integer(1)));
            }
            is_done.store(true, Ordering::Relaxed);
        });
        assert!(options.logs.seats.lock().is_empty(), "who goes takes its log along");
    }
}
