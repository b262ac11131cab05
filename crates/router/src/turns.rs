//! Turns of a thread that serves many connections: when replies leave.
//!
//! ```text
//! ready: c1 c2 c3 … ── each reads, and is evaluated ──▶ each sends its replies ──▶ who is ready now?
//! ```
//!
//! A client that gets one reply is awake, at work and asleep again before the next, and to wake it costs more
//! than a reply. So replies of connections that are ready at once leave one after the other, as Redis's do. Of
//! a few connections they leave at once: there clients and server had else to wait for each other in turns.

use std::cell::Cell;

/// So many connections that are ready besides make it worth to let them come first.
const MANY: u64 = 8;
/// So many times in vain in a row, and a thing is left …
const TIMES_IN_VAIN: u32 = 4;
/// … but for one time of so many.
const TRIED_ONE_OF: u32 = 16;

/// Whether something is worth doing, judging by what came of it the last times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial {
    /// Times in a row that were in vain, and those that it was left since.
    in_vain: u32,
}

impl Trial {
    /// Of what is worth doing until it shows that it is not.
    pub(crate) const HOPEFUL: Trial = Trial { in_vain: 0 };
    /// Of what is to be left until a trial shows that it is worth doing.
    pub(crate) const DOUBTFUL: Trial = Trial { in_vain: TIMES_IN_VAIN };

    /// Whether it is to be done this time.
    pub(crate) fn is_due(&mut self) -> bool {
        if self.in_vain < TIMES_IN_VAIN {
            return true;
        }
        self.in_vain += 1;
        self.in_vain >= TIMES_IN_VAIN + TRIED_ONE_OF
    }

    /// Notes what came of it.
    pub(crate) fn note(&mut self, was_worth_it: bool) {
        self.in_vain = if was_worth_it { 0 } else { self.in_vain.min(TIMES_IN_VAIN - 1) + 1 };
    }
}

thread_local! {
    /// Pipelines that this thread has run.
    static PIPELINES: Cell<u64> = const { Cell::new(0) };
    /// Of letting others come first.
    static OTHERS: Cell<Trial> = const { Cell::new(Trial::HOPEFUL) };
}

/// A pipeline's replies, which wait for nothing, are about to leave: lets the other connections of this thread
/// that are ready run theirs, if there are many.
pub(crate) async fn let_others_come() {
    let before = PIPELINES.get() + 1;
    PIPELINES.set(before);
    let mut others = OTHERS.get();
    let is_due = others.is_due();
    OTHERS.set(others);
    if is_due {
        let here = thread();
        tokio::task::yield_now().await;
        // Another thread that has taken the connection over knows nothing of this trial.
        if thread() == here {
            others = OTHERS.get();
            others.note(PIPELINES.get() - before >= MANY);
            OTHERS.set(others);
        }
    }
}

/// What tells this thread from the others that run.
fn thread() -> usize {
    PIPELINES.with(|pipelines| std::ptr::from_ref(pipelines).addr())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::task::JoinSet;

    use super::*;

    /// On a thread of its own: so many connections run a pipeline in so many rounds, in which each says when
    /// it ran and when its reply left.
    fn rounds(connections: usize, rounds: usize) -> Vec<Vec<&'static str>> {
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("starts");
            let round = || async {
                let said = Arc::new(Mutex::new(Vec::new()));
                let mut all = JoinSet::new();
                for _ in 0..connections {
                    let said = Arc::clone(&said);
                    all.spawn(async move {
                        said.lock().push("ran");
                        let_others_come().await;
                        said.lock().push("left");
                    });
                }
                all.join_all().await;
                std::mem::take(&mut *said.lock())
            };
            (0..rounds).map(|_| runtime.block_on(round())).collect()
        };
        std::thread::spawn(run).join().expect("no panic")
    }

    #[test]
    fn replies_of_many_leave_once_all_have_run() {
        let together = [vec!["ran"; 20], vec!["left"; 20]].concat();
        rounds(20, 50).iter().for_each(|said| assert_eq!(*said, together));
    }

    #[test]
    fn replies_of_few_leave_at_once_but_for_a_trial() {
        let rounds = rounds(3, 50);
        let at_once = ["ran", "left"].repeat(3);
        let count = rounds.iter().filter(|said| **said == at_once).count();
        // Each trial is one connection's of one round.
        assert!((30..50).contains(&count), "{count}");
    }

    #[test]
    fn what_is_in_vain_is_tried_seldom() {
        let mut trial = Trial::HOPEFUL;
        let mut due = |came: bool| {
            let is_due = trial.is_due();
            if is_due {
                trial.note(came);
            }
            is_due
        };
        assert_eq!((0..100).filter(|_| due(false)).count(), 4 + 96 / 16);
        assert!((0..16).any(|_| due(true)));
        assert_eq!((0..100).filter(|_| due(true)).count(), 100);
        let mut doubtful = Trial::DOUBTFUL;
        assert!(!doubtful.is_due());
    }
}
