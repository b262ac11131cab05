//! Whether the machine gave a test what it takes: a promise about time is one about a server that has
//! two cores and a disk, and says nothing while others have them.
//!
//! What is late on a machine that nobody else uses counts at once. What is late while others took the
//! cores, or while even a thread that does next to nothing stood still, is tried again, a few times: a
//! server that cannot keep its promise is late each time.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How often a thing is tried that is late on a machine that others use.
const TRIES: usize = 4;
/// How often the watching thread looks at the time.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A thread that hardly does anything is late by less than this on a machine that has room for it.
const STALL_MAX: Duration = Duration::from_millis(100);
/// Others take less of one core than this on such a machine.
const OTHERS_MAX: f64 = 0.25;

/// Does something that is to take no longer than it may, and gives how long it took. What takes longer
/// while the machine is not calm is done again.
///
/// *Errors* of what is done; and if it takes longer each time, or on a calm machine.
pub fn within(
    what: &str,
    limit: Duration,
    dir: &Path,
    mut act: impl FnMut() -> Result<Duration>,
) -> Result<Duration> {
    for _ in 0..TRIES {
        let watch = Watch::start(dir)?;
        let took = act()?;
        let trouble = watch.end()?;
        if took <= limit {
            return Ok(took);
        }
        println!("{what} took {took:?} of {limit:?}; {trouble:?}");
        if trouble.is_none() {
            break;
        }
    }
    bail!("{what} takes longer than {limit:?}")
}

/// Looks at the machine while something is done on it.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Duration>>,
    began: Instant,
    others: Duration,
}

impl Watch {
    fn start(dir: &Path) -> Result<Watch> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut file = tempfile::tempfile_in(dir).context("a file to write to")?;
        let over = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                std::thread::sleep(LOOK_EVERY);
                file.write_all(b"x")?;
                file.sync_data()?;
                longest = longest.max(began.elapsed().saturating_sub(LOOK_EVERY));
            }
            Ok(longest)
        });
        Ok(Watch { stop, thread, began: Instant::now(), others: others()? })
    }

    /// What was wrong with the machine meanwhile, if anything was.
    fn end(self) -> Result<Option<String>> {
        self.stop.store(true, Ordering::Relaxed);
        let stall = self.thread.join().ok().context("the watching thread")??;
        let others = others()?.saturating_sub(self.others).as_secs_f64();
        let share = others / self.began.elapsed().as_secs_f64();
        let text = format!("others took {share:.2} cores, a thread stood still for {stall:?}");
        Ok((share > OTHERS_MAX || stall > STALL_MAX).then_some(text))
    }
}

/// The CPU time that all have used but this process and its children.
fn others() -> Result<Duration> {
    let all = std::fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let all = all.lines().next().context("a line of all cores")?;
    let all: Vec<u64> = all.split(' ').filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; see proc_stat(5).
    ensure!(all.len() >= 8, "fields of /proc/stat: {all:?}");
    let busy: u64 = [0, 1, 2, 5, 6, 7].map(|field| all[field]).iter().sum();
    let own = ticks(&std::fs::read_to_string("/proc/self/stat")?).context("/proc/self/stat")?.own;
    let mut living = 0;
    for process in std::fs::read_dir("/proc")? {
        // It may end meanwhile: then it is counted with the children of whom waits for it.
        let stat = std::fs::read_to_string(process?.path().join("stat"));
        let ticks = stat.ok().and_then(|stat| ticks(&stat));
        let child = ticks.filter(|ticks| ticks.parent == std::process::id());
        living += child.map_or(0, |child| child.own);
    }
    // SAFETY: it takes an integer and looks at nothing of this process.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let per_second = u64::try_from(per_second).ok().filter(|ticks| *ticks > 0);
    let millis = busy.saturating_sub(own + living) * 1_000 / per_second.context("a tick")?;
    Ok(Duration::from_millis(millis))
}

/// What a line of `/proc/<pid>/stat` says of a process.
struct Ticks {
    parent: u32,
    /// What it has used, and its children that have ended.
    own: u64,
}

fn ticks(stat: &str) -> Option<Ticks> {
    // The name before may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let used = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok());
    Some(Ticks { parent: fields.get(1)?.parse().ok()?, own: used.sum::<Option<u64>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_those_of_a_process_and_its_children() {
        let stat = "7 (a ) b) S 3 1 1 0 -1 0 0 0 0 0 10 20 300 4000 20 0 1 0 5 6";
        let ticks = ticks(stat).expect("a line");
        assert_eq!((ticks.parent, ticks.own), (3, 4_330));
    }

    #[test]
    fn what_is_late_each_time_is_late() {
        let dir = tempfile::tempdir().unwrap();
        let limit = Duration::from_secs(1);
        let mut times = 0;
        let late = within("it", limit, dir.path(), || {
            times += 1;
            Ok(2 * limit)
        });
        assert!(late.is_err() && (1..=TRIES).contains(&times), "{late:?} in {times}");
        assert_eq!(within("it", limit, dir.path(), || Ok(limit)).unwrap(), limit);
    }

    #[test]
    fn who_else_uses_the_cores_is_seen() {
        let before = others().unwrap();
        let began = Instant::now();
        let spun = Duration::from_millis(200);
        // Of this process: none of the others.
        while began.elapsed() < spun {
            std::hint::spin_loop();
        }
        let own = ticks(&std::fs::read_to_string("/proc/self/stat").unwrap()).unwrap().own;
        // The kernel measures what a process uses, and samples what all use: the difference may go back by
        // some ticks, but not by what this one used.
        assert!(own > 0 && others().unwrap() + spun / 2 >= before);
    }
}
