//! The thread that keeps slow file work off the commit path: it makes the next segment ahead of
//! need, writes the index of a closed one, and puts truncated ones aside to be used again.
//!
//! A process that is out of file descriptors, for connections most likely, gets some back sooner or
//! later: until then the next segment is waited for. Any other error stops the node.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::index::SegmentIndex;
use super::segment::{Blank, Pace, Segment, index_path, spare_path, sync_dir};
use super::{Options, WalError, io_error};
use crate::machine::{Disk, Machine};

/// How soon a segment is tried again for which there was no file descriptor.
const RETRY_AFTER: Duration = Duration::from_millis(20);

enum Task {
    /// Make the blank segment of this number.
    Make(u64),
    /// Write the index of a segment whose records end here.
    Index(Arc<Segment>, u32),
    /// The segment is needed no more.
    Retire(Arc<Segment>),
}

/// Who does the tasks.
enum Tasks {
    /// A thread.
    Sent(Sender<Task>),
    /// The writer's own, at once: in a simulation.
    Own(Box<Mutex<Worker>>),
    /// Nobody: the thread is to end.
    Over,
}

/// The writer's side of the thread.
pub(super) struct Housekeeper {
    tasks: Tasks,
    blanks: Receiver<Result<Blank, WalError>>,
    /// Somebody waits for a blank.
    is_awaited: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Housekeeper {
    /// Starts the thread. `spares`: segment files that wait to be used again.
    pub(super) fn start(
        machine: &Machine,
        dir: PathBuf,
        options: Options,
        spares: Vec<PathBuf>,
    ) -> Result<Housekeeper, WalError> {
        let (tasks, task_queue) = channel();
        let (blank_queue, blanks) = channel();
        let path = dir.clone();
        let stopping = Arc::new(AtomicBool::new(false));
        // Its own thread waits for what it makes, from the beginning.
        let is_awaited = Arc::new(AtomicBool::new(machine.is_simulated()));
        let (disk, until) = (machine.disk.clone(), Arc::clone(&stopping));
        let pace = Pace::new(Arc::clone(&is_awaited));
        let mut worker =
            Worker { disk, dir, options, spares, blanks: blank_queue, pace, stopping: until };
        if machine.is_simulated() {
            let tasks = Tasks::Own(Box::new(Mutex::new(worker)));
            return Ok(Housekeeper { tasks, blanks, is_awaited, stopping, thread: None });
        }
        let thread = std::thread::Builder::new()
            .name("wal-housekeeper".into())
            .spawn(move || task_queue.into_iter().for_each(|task| worker.run(task)))
            .map_err(io_error("start housekeeper of", &path))?;
        let (tasks, thread) = (Tasks::Sent(tasks), Some(thread));
        Ok(Housekeeper { tasks, blanks, is_awaited, stopping, thread })
    }

    /// Has the segment of this number made. To be taken with [`Housekeeper::take_blank`].
    pub(super) fn make(&self, seq: u64) {
        self.send(Task::Make(seq));
    }

    /// The segment that was asked for; waits if it is not ready yet.
    pub(super) fn take_blank(&self) -> Result<Blank, WalError> {
        if let Ok(blank) = self.blanks.try_recv() {
            return blank;
        }
        let was_awaited = self.is_awaited.swap(true, Relaxed);
        let blank = self.blanks.recv().map_err(|_| WalError::Stopped);
        self.is_awaited.store(was_awaited, Relaxed);
        blank?
    }

    /// Has the index of a closed segment written.
    pub(super) fn write_index(&self, segment: Arc<Segment>, end: u32) {
        self.send(Task::Index(segment, end));
    }

    /// Has a segment removed or put aside.
    pub(super) fn retire(&self, segment: Arc<Segment>) {
        self.send(Task::Retire(segment));
    }

    fn send(&self, task: Task) {
        match &self.tasks {
            // The thread ends only when this side does, or by a panic, which `take_blank` reports.
            Tasks::Sent(tasks) => drop(tasks.send(task)),
            Tasks::Own(worker) => worker.lock().run(task),
            Tasks::Over => {}
        }
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        self.stopping.store(true, Relaxed);
        self.is_awaited.store(true, Relaxed);
        self.tasks = Tasks::Over;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    disk: Disk,
    dir: PathBuf,
    options: Options,
    spares: Vec<PathBuf>,
    blanks: Sender<Result<Blank, WalError>>,
    pace: Pace,
    stopping: Arc<AtomicBool>,
}

impl Worker {
    fn run(&mut self, task: Task) {
        match task {
            Task::Make(seq) => {
                let blank = self.make(seq);
                let _ = self.blanks.send(blank); // the writer may be gone
            }
            Task::Index(segment, end) => self.write_index(&segment, end),
            Task::Retire(segment) => {
                if let Err(error) = self.retire(segment) {
                    // The disk is fuller than it should be; nothing that counts is lost.
                    tracing::warn!(%error, "cannot remove a truncated log segment");
                }
            }
        }
    }

    fn make(&mut self, seq: u64) -> Result<Blank, WalError> {
        let capacity = self.options.segment_bytes;
        // Once begun with it is found under the new name.
        let mut spare = self.spares.pop();
        let mut is_told = false;
        loop {
            match Blank::make(&self.disk, &self.dir, seq, capacity, spare.take(), &self.pace) {
                Err(error) if error.is_exhausted() && !self.stopping.load(Relaxed) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(%error, "the next log segment waits for a file descriptor");
                    }
                    std::thread::sleep(RETRY_AFTER);
                }
                made => return made,
            }
        }
    }

    fn write_index(&self, segment: &Segment, end: u32) {
        let written = match &*segment.index.read() {
            SegmentIndex::Memory(memory) => {
                memory.write(&self.disk, &self.dir, segment.seq, segment.salt, end)
            }
            SegmentIndex::Disk(_) => return,
        };
        match written {
            Ok(disk) => *segment.index.write() = SegmentIndex::Disk(disk),
            // The index stays in memory, and is made anew by a scan when the log is opened.
            Err(error) => tracing::warn!(%error, "cannot write the index of a log segment"),
        }
    }

    fn retire(&mut self, segment: Arc<Segment>) -> Result<(), WalError> {
        let seq = segment.seq;
        let path = segment.path.clone();
        // A reader that still has the segment reads on in the unlinked file; one that was to be
        // overwritten under it would look damaged.
        let reusable = segment.capacity == self.options.segment_bytes
            && self.spares.len() < self.options.recycle_segments
            && Arc::try_unwrap(segment).is_ok();
        if reusable {
            let spare = spare_path(&self.dir, seq);
            self.disk.rename(&path, &spare).map_err(io_error("put segment aside", &path))?;
            self.spares.push(spare);
        } else {
            self.disk.remove_file(&path).map_err(io_error("remove segment", &path))?;
        }
        match self.disk.remove_file(&index_path(&self.dir, seq)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("remove log index", &path)(error));
            }
            _ => {}
        }
        // Each removal is durable before the next, so that a crash leaves no hole in the numbers.
        sync_dir(&self.disk, &self.dir)
    }
}
