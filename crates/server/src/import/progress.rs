//! How far an import has come, on one line of the terminal; elsewhere a line now and then.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// How often the line is drawn anew on a terminal, and elsewhere.
const DRAW_EVERY: Duration = Duration::from_millis(200);
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Width of the bar, in characters.
const BAR_WIDTH: u64 = 30;

/// See the module's text.
pub(super) struct Progress {
    started: Instant,
    drawn: Instant,
    is_terminal: bool,
}

impl Progress {
    pub(super) fn new() -> Progress {
        let now = Instant::now();
        Progress { started: now, drawn: now, is_terminal: stderr().is_terminal() }
    }

    /// Draws the line if it is time to: so much of `total` is done, and so many keys.
    pub(super) fn show(&mut self, done: u64, total: u64, keys: u64) {
        let every = if self.is_terminal { DRAW_EVERY } else { TELL_EVERY };
        if self.drawn.elapsed() >= every {
            self.drawn = Instant::now();
            self.draw(done, total, keys);
        }
    }

    /// Ends the line.
    pub(super) fn end(&mut self, keys: u64) {
        if self.is_terminal {
            self.draw(1, 1, keys);
            eprintln!();
        }
    }

    fn draw(&self, done: u64, total: u64, keys: u64) {
        let line = line(done, total, keys, self.started.elapsed());
        // Whoever does not look at it need not be told that it cannot be written.
        let _ = if self.is_terminal {
            write!(stderr(), "\r{line}")
        } else {
            writeln!(stderr(), "{line}")
        };
    }
}

fn line(done: u64, total: u64, keys: u64, elapsed: Duration) -> String {
    let share = done.min(total) as f64 / total.max(1) as f64;
    let full = (share * BAR_WIDTH as f64) as usize;
    let bar = format!("{}{}", "#".repeat(full), "-".repeat(BAR_WIDTH as usize - full));
    let rate = keys as f64 / elapsed.as_secs_f64().max(0.001);
    format!("[{bar}] {:3.0}%  {keys} keys  {rate:.0}/s ", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let second = Duration::from_secs(2);
        assert!(line(0, 0, 0, second).contains("[------------------------------]   0%  0 keys"));
        assert!(
            line(5, 10, 8, second).contains("[###############---------------]  50%  8 keys  4/s")
        );
        assert!(line(11, 10, 8, Duration::ZERO).contains("100%"));
    }
}
