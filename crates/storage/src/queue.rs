//! A queue of jobs for one thread.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    jobs: Mutex<VecDeque<T>>,
    ready: Condvar,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { jobs: Mutex::default(), ready: Condvar::new() }
    }
}

impl<T> Queue<T> {
    /// Adds a job, unless as many wait as may: then it is dropped, as a frame may be.
    pub(crate) fn push(&self, job: T, waiting_max: usize) {
        let mut jobs = self.jobs.lock();
        if jobs.len() < waiting_max {
            jobs.push_back(job);
            drop(jobs);
            self.ready.notify_one();
        }
    }

    /// The same, in the place of one that is like it, if such a one waits.
    pub(crate) fn push_instead(&self, job: T, waiting_max: usize, is_like: impl Fn(&T) -> bool) {
        let mut jobs = self.jobs.lock();
        match jobs.iter_mut().find(|waiting| is_like(waiting)) {
            Some(waiting) => *waiting = job,
            None => {
                drop(jobs);
                self.push(job, waiting_max);
            }
        }
    }

    /// Adds a job before all others, in the stead of those that are like it.
    pub(crate) fn push_first(&self, job: T, is_like: impl Fn(&T) -> bool) {
        let mut jobs = self.jobs.lock();
        jobs.retain(|waiting| !is_like(waiting));
        jobs.push_front(job);
        drop(jobs);
        self.ready.notify_one();
    }

    /// Waits for so long, or until the next job is one that ends the wait.
    pub(crate) fn rest(&self, time: Duration, ends: impl Fn(&T) -> bool) {
        let until = Instant::now() + time;
        let mut jobs = self.jobs.lock();
        while !jobs.front().is_some_and(&ends) {
            if self.ready.wait_until(&mut jobs, until).timed_out() {
                return;
            }
        }
    }

    /// The next job; waits for one, but not for longer than this.
    pub(crate) fn pop(&self, timeout: Duration) -> Option<T> {
        let mut jobs = self.jobs.lock();
        if jobs.is_empty() {
            self.ready.wait_for(&mut jobs, timeout);
        }
        jobs.pop_front()
    }

    /// The next job, if one waits.
    pub(crate) fn try_pop(&self) -> Option<T> {
        self.jobs.lock().pop_front()
    }

    /// Whether no job waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.lock().is_empty()
    }

    /// Wakes the thread.
    pub(crate) fn wake(&self) {
        drop(self.jobs.lock());
        self.ready.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn what_cannot_wait_comes_first_and_ends_a_rest() {
        let queue = Queue::default();
        queue.push(10, 8);
        queue.push(21, 8);
        std::thread::scope(|scope| {
            let rests = scope.spawn(|| queue.rest(LONG, |job| job % 10 == 1 && *job < 20));
            queue.push_first(11, |job| *job == 21);
            rests.join().expect("it rests");
        });
        assert_eq!([queue.try_pop(), queue.try_pop(), queue.try_pop()], [Some(11), Some(10), None]);
        queue.rest(Duration::from_millis(1), |_| true);
    }
}
