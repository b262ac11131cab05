//! What a server takes of the machine: memory, descriptors and files, as /proc and its folder say.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// A tick of /proc/PID/stat: USER_HZ is 100 on every Linux.
const TICK_MS: u64 = 10;

/// Who writes less in a second does so beside its work: INFO, a heartbeat noted down.
const CALM_BYTES: u64 = 1 << 20;

const POLL: Duration = Duration::from_millis(20);

/// Resident memory of a process, in bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.context("no VmRSS")? * 1024)
}

/// Processor time that a process has used, in user and system mode together.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name in brackets, which may hold anything: state is field 3, utime 14, stime 15.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let (user, system) = ticks(12).zip(ticks(13)).context("no times in stat")?;
    Ok(Duration::from_millis((user + system) * TICK_MS))
}

/// Bytes that a process has had written to disks.
pub fn written_bytes(pid: u32) -> Result<u64> {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).context("no write_bytes")
}

/// Waits until what a load left to do is done: all that was written is on the disk, and the process
/// writes less than [`CALM_BYTES`] in a second.
///
/// *Errors*: it still writes after `limit`.
pub fn until_calm(pid: u32, limit: Duration) -> Result<()> {
    let began = Instant::now();
    loop {
        ensure!(Command::new("sync").status()?.success(), "sync failed");
        let before = written_bytes(pid)?;
        std::thread::sleep(Duration::from_secs(1));
        if written_bytes(pid)? - before < CALM_BYTES {
            return Ok(());
        }
        ensure!(began.elapsed() < limit, "the server still writes after {limit:?}");
    }
}

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Files and bytes of a folder, by the kind that `kind_of` tells of a file's path in it.
pub fn files(
    folder: &Path,
    kind_of: fn(&[String]) -> String,
) -> Result<BTreeMap<String, (u64, u64)>> {
    let mut found = BTreeMap::new();
    walk(folder, &mut Vec::new(), &mut |path, bytes| {
        let (files, sum): &mut (u64, u64) = found.entry(kind_of(path)).or_default();
        *files += 1;
        *sum += bytes;
    })?;
    Ok(found)
}

/// Bytes of all files of a folder.
pub fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    walk(folder, &mut Vec::new(), &mut |_, bytes| sum += bytes)?;
    Ok(sum)
}

fn walk(
    folder: &Path,
    path: &mut Vec<String>,
    visit: &mut dyn FnMut(&[String], u64),
) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // A file may go between its listing and its reading: compaction deletes.
        let Ok(metadata) = entry.metadata() else { continue };
        path.push(entry.file_name().to_string_lossy().into_owned());
        if metadata.is_dir() {
            match walk(&entry.path(), path, visit) {
                Err(error) if entry.path().exists() => return Err(error),
                _ => {}
            }
        } else {
            visit(path, metadata.len());
        }
        path.pop();
    }
    Ok(())
}

/// Resident memory over time, sampled on a thread of its own.
#[derive(Debug)]
pub struct MemoryCurve {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(Duration, u64)>>,
}

impl MemoryCurve {
    /// Samples now and each time `every` has passed, until stopped or the process is gone.
    pub fn start(pid: u32, every: Duration) -> MemoryCurve {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let thread = std::thread::spawn(move || {
            let (start, mut samples) = (Instant::now(), Vec::new());
            while let Ok(bytes) = resident_bytes(pid) {
                samples.push((start.elapsed(), bytes));
                let next = start + every * samples.len() as u32;
                while Instant::now() < next {
                    if asked.load(Ordering::Relaxed) {
                        return samples;
                    }
                    std::thread::sleep(POLL.min(next.saturating_duration_since(Instant::now())));
                }
            }
            samples
        });
        MemoryCurve { stop, thread }
    }

    /// The samples: time since the start, bytes.
    pub fn stop(self) -> Result<Vec<(Duration, u64)>> {
        self.stop.store(true, Ordering::Relaxed);
        let Ok(samples) = self.thread.join() else { bail!("the sampling thread panicked") };
        Ok(samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_measured() {
        let pid = std::process::id();
        assert!(resident_bytes(pid).unwrap() > 1 << 20);
        let (used, began) = (processor_time(pid).unwrap(), Instant::now());
        while processor_time(pid).unwrap() == used {
            assert!(began.elapsed() < Duration::from_secs(10), "this loop takes no time");
        }
        let written = written_bytes(pid).unwrap();
        let mut file = tempfile::tempfile_in(".").unwrap();
        std::io::Write::write_all(&mut file, &[1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        assert!(written_bytes(pid).unwrap() >= written + (1 << 20));
        until_calm(pid, Duration::from_secs(30)).unwrap();
        // Many: other tests of this process close theirs meanwhile.
        let before = descriptors(pid).unwrap();
        let files: Vec<_> = (0..200).map(|_| tempfile::tempfile().unwrap()).collect();
        assert!(descriptors(pid).unwrap() > before + files.len() / 2);
        drop(files);
        let curve = MemoryCurve::start(pid, Duration::from_millis(1));
        let samples = curve.stop().unwrap();
        assert!(!samples.is_empty());
    }

    #[test]
    fn files_are_counted_by_kind() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("node-1/log")).unwrap();
        std::fs::write(dir.path().join("node-1/log/a"), b"123").unwrap();
        std::fs::write(dir.path().join("node-1/log/b"), b"4").unwrap();
        std::fs::write(dir.path().join("lock"), b"").unwrap();
        let found = files(dir.path(), |path| path[..path.len().min(2)].join("/")).unwrap();
        let expected = [("lock".to_owned(), (1, 0)), ("node-1/log".to_owned(), (2, 4))];
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(folder_bytes(dir.path()).unwrap(), 4);
    }
}
