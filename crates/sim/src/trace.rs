//! What happened in a run, as text.

use std::collections::VecDeque;

/// Lines kept when only the end of a run is wanted.
const TAIL_LINES: usize = 400;

/// Where the events of a run are written. A sweep writes none; a failing seed is run again.
#[derive(Default, Debug)]
pub struct Trace {
    mode: Mode,
    tail: VecDeque<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Mode {
    #[default]
    Silent,
    Tail,
    Print,
}

impl Trace {
    /// Keeps nothing.
    pub fn silent() -> Trace {
        Trace::default()
    }

    /// Keeps the last few hundred events.
    pub fn tail() -> Trace {
        Trace { mode: Mode::Tail, tail: VecDeque::new() }
    }

    /// Prints every event.
    pub fn print() -> Trace {
        Trace { mode: Mode::Print, tail: VecDeque::new() }
    }

    /// What was kept.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }

    /// Whether anything is kept or printed.
    pub(crate) fn is_kept(&self) -> bool {
        self.mode != Mode::Silent
    }

    pub(crate) fn line(&mut self, now_us: u64, text: impl FnOnce() -> String) {
        if self.mode == Mode::Silent {
            return;
        }
        let line = format!("{:>6}.{:03} ms  {}", now_us / 1000, now_us % 1000, text());
        if self.mode == Mode::Print {
            println!("{line}");
            return;
        }
        self.tail.push_back(line);
        if self.tail.len() > TAIL_LINES {
            self.tail.pop_front();
        }
    }
}
