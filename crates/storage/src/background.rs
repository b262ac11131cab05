//! Work that has time. Flushes and compactions keep a core busy for seconds, on each node of a
//! process at once, while a write passes through several threads that each need a core for some
//! microseconds: where those had to take turns with the former, a write took hundreds of
//! milliseconds.

/// Has the system prefer all other threads to this one, for as long as the thread lives. Only for
/// threads that hold no lock of a partition: what waits for such a thread waits long. Where the
/// system does not allow it, things go on as they are.
pub(crate) fn yield_to_foreground() {
    /// The least that Linux knows: some hundredth of the share of others.
    const NICE: libc::c_int = 19;
    // SAFETY: no memory is passed; on Linux 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

/// Does work on a thread that yields to all others, and waits for it. A thread may not raise its
/// priority again, hence one for each piece of work.
pub(crate) fn run<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    #[cfg(feature = "mutants")]
    let bug = crate::mutants::active();
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            // A bug is on in a thread; this one works for that.
            #[cfg(feature = "mutants")]
            crate::mutants::activate(bug);
            yield_to_foreground();
            work()
        });
        done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
