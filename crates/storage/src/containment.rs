//! Panics stay within the node that they happen in: it stops at once, as after a failed disk, and the
//! others take over.
//!
//! ```text
//! evaluation of a command    changes nothing: its caller gets an error, and the node goes on
//! anything else that works   the node stops: its threads end, its heartbeat too, it takes no calls and
//! for a node                 no frames any more ([`Shared::contain`])
//! a core, half changed       nobody looks at it again ([`CoreLock`]): what was to be written or said
//!                            of that step is lost, as in a crash
//! ```
//!
//! A process that aborts would be as safe and stop all nodes of it. What makes this safe is that a node
//! that stopped says nothing new: what other threads of it still send was durable, or will be, and a
//! lease ends by itself.

use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::core::Core;
use crate::driver::Shared;

/// Does what changes nothing outside of it; `None` if it panicked, which is logged.
pub(crate) fn contained<T>(what: &str, work: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => Some(done),
        Err(panic) => {
            tracing::error!(what, panic = text(&*panic), "panicked");
            None
        }
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

impl Shared {
    /// Does something for the node. If that panics the node stops; then, `None`.
    pub(crate) fn contain<T>(&self, what: &str, work: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(done) => Some(done),
            Err(panic) => {
                tracing::error!(node = self.id.0, what, panic = text(&*panic), "node stops");
                self.panicked.store(true, Ordering::Release);
                self.stop();
                None
            }
        }
    }
}

/// A partition's core behind its lock.
pub(crate) struct CoreLock {
    core: Mutex<Core>,
    /// A panic left it half changed.
    broken: AtomicBool,
}

/// What has the lock.
pub(crate) struct CoreGuard<'a> {
    core: MutexGuard<'a, Core>,
    broken: &'a AtomicBool,
    was_panicking: bool,
}

impl CoreLock {
    pub(crate) fn new(core: Core) -> CoreLock {
        CoreLock { core: Mutex::new(core), broken: AtomicBool::new(false) }
    }

    /// Waits for the lock.
    ///
    /// *Panics* if somebody panicked who had it: whoever comes by stops the node.
    pub(crate) fn lock(&self) -> CoreGuard<'_> {
        let core = self.core.lock();
        assert!(!self.is_broken(), "a panic left this replica half changed");
        CoreGuard { core, broken: &self.broken, was_panicking: std::thread::panicking() }
    }

    /// The same, whatever a panic left: for what only ends something, or tells an operator.
    pub(crate) fn lock_anyway(&self) -> MutexGuard<'_, Core> {
        self.core.lock()
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

impl Deref for CoreGuard<'_> {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl DerefMut for CoreGuard<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        &mut self.core
    }
}

impl Drop for CoreGuard<'_> {
    fn drop(&mut self) {
        // Still under the lock: it is seen by whoever has it next.
        if std::thread::panicking() && !self.was_panicking {
            self.broken.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::resp::Reply;
    use wire::service::Answer;

    use super::*;
    use crate::alone::{Alone, PARTITION};
    use crate::core::About;
    use crate::lsm::Lsm;
    use crate::node::NodeOptions;
    use crate::slow::Job;

    fn evaluate(
        alone: &Alone,
        work: impl Fn(&mut Core, crate::core::Now, (&Lsm, bool)) -> crate::core::Evaluated,
    ) -> Answer {
        let job = || -> Job { unreachable!("nothing is slow here") };
        alone.node.evaluate(PARTITION, false, work, (Vec::new, job))
    }

    #[test]
    fn a_command_that_panics_gets_an_error_and_the_node_goes_on() {
        let alone = Alone::open(NodeOptions::default());
        let answer = evaluate(&alone, |core, now, from| {
            let about = About { is_write: true, epoch: 1, origin: 0, request: None };
            core.evaluate_work(about, now, from, |_, _| panic!("on purpose"))
        });
        let Answer::Done { reply: Reply::Error(text), gate: None } = answer else {
            panic!("no error")
        };
        assert!(text.starts_with(b"ERR internal error"), "{text:?}");
        assert_eq!(alone.run(&["SET", "k", "v"]), Some(Reply::OK));
        assert!(alone.node.is_running());
    }

    #[test]
    fn a_core_that_a_panic_left_is_never_asked_again() {
        let alone = Alone::open(NodeOptions::default());
        assert_eq!(alone.run(&["SET", "k", "v"]), Some(Reply::OK));
        let answer = evaluate(&alone, |_, _, _| panic!("on purpose, with the lock"));
        assert!(matches!(answer, Answer::NotHere(None)));
        assert!(!alone.node.is_running() && alone.node.panicked());
        assert_eq!(alone.run(&["GET", "k"]), None);
        assert!(!alone.node.leads(PARTITION));
        assert_eq!(alone.node.status().replicas.len(), 1, "an operator still sees it");
        // All threads end.
        drop(alone);
    }

    #[test]
    fn a_panic_while_a_core_is_free_breaks_nothing() {
        let alone = Alone::open(NodeOptions::default());
        let partition = alone.partition();
        assert!(contained::<()>("test", || panic!("on purpose")).is_none());
        assert!(!partition.look().has_frozen());
        assert!(
            contained::<()>("test", || {
                let _core = partition.lock();
                panic!("on purpose, with the lock")
            })
            .is_none()
        );
        assert!(contained("test", || partition.look().has_frozen()).is_none());
        // The clock comes by, and stops the node.
        alone.until("it stops", || !alone.node.is_running());
    }
}
