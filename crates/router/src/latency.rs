//! LATENCY: samples of things that took longer than `latency-monitor-threshold`.
//!
//! Events: `command` and `fast-command` (executions, as in Redis) and `quorum-wait` (the time a
//! pipeline waited until its writes were on a quorum of disks). Of each event 160 samples are kept,
//! at most one a second: the longest.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Samples kept of an event.
const SAMPLES_MAX: usize = 160;

/// A slow moment: seconds since the epoch, and milliseconds it took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sample {
    pub(crate) at_s: i64,
    pub(crate) took_ms: u64,
}

/// The history of an event.
#[derive(Clone, Default, Debug)]
pub(crate) struct History {
    /// Oldest first.
    pub(crate) samples: Vec<Sample>,
    /// The longest of all time.
    pub(crate) longest_ms: u64,
}

/// All events that had a sample.
#[derive(Default, Debug)]
pub(crate) struct Latency {
    events: Mutex<BTreeMap<&'static str, History>>,
}

impl Latency {
    pub(crate) fn add(&self, event: &'static str, sample: Sample) {
        let mut events = self.events.lock();
        let history = events.entry(event).or_default();
        history.longest_ms = history.longest_ms.max(sample.took_ms);
        match history.samples.last_mut() {
            Some(last) if last.at_s == sample.at_s => {
                last.took_ms = last.took_ms.max(sample.took_ms);
            }
            _ => history.samples.push(sample),
        }
        if history.samples.len() > SAMPLES_MAX {
            history.samples.remove(0);
        }
    }

    pub(crate) fn events(&self) -> BTreeMap<&'static str, History> {
        self.events.lock().clone()
    }

    pub(crate) fn history(&self, event: &[u8]) -> Option<History> {
        let events = self.events.lock();
        events.iter().find(|(name, _)| name.as_bytes() == event).map(|(_, h)| h.clone())
    }

    /// Forgets these events, or all if none is named; how many were forgotten.
    pub(crate) fn reset(&self, names: &[bytes::Bytes]) -> usize {
        let mut events = self.events.lock();
        let before = events.len();
        events.retain(|event, _| !names.is_empty() && !names.iter().any(|n| n == event.as_bytes()));
        before - events.len()
    }
}

/// An ASCII drawing of a history: a column per sample, newest at the right, its age below.
pub(crate) fn graph(event: &str, history: &History, now_s: i64) -> String {
    const ROWS: u64 = 4;
    const COLUMNS_MAX: usize = 80;
    let from = history.samples.len().saturating_sub(COLUMNS_MAX);
    let samples = &history.samples[from..];
    let high = samples.iter().map(|s| s.took_ms).max().unwrap_or(0);
    let low = samples.iter().map(|s| s.took_ms).min().unwrap_or(0);
    let mut text = format!(
        "{event} - high {high} ms, low {low} ms (all time high {} ms)\n",
        history.longest_ms
    );
    text.push_str(&"-".repeat(COLUMNS_MAX));
    text.push('\n');
    let level =
        |took: u64| if high == low { ROWS } else { 1 + (took - low) * (ROWS - 1) / (high - low) };
    for row in (1..=ROWS).rev() {
        let column = |s: &Sample| match level(s.took_ms) {
            top if top == row => '#',
            top if top > row => '|',
            _ => '_',
        };
        text.extend(samples.iter().map(column).map(|c| if c == '_' && row > 1 { ' ' } else { c }));
        text.push('\n');
    }
    text.push('\n');
    let ages: Vec<String> = samples.iter().map(|s| age((now_s - s.at_s).max(0))).collect();
    for line in 0..ages.iter().map(String::len).max().unwrap_or(0) {
        text.extend(ages.iter().map(|age| age.chars().nth(line).unwrap_or(' ')));
        text.push('\n');
    }
    text
}

/// Seconds, minutes, hours or days, in two digits and a letter.
fn age(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sample_a_second_and_a_bounded_history() {
        let latency = Latency::default();
        for at_s in 0..200 {
            latency.add("command", Sample { at_s, took_ms: 5 });
            latency.add("command", Sample { at_s, took_ms: 9 });
            latency.add("command", Sample { at_s, took_ms: 1 });
        }
        let history = latency.history(b"command").expect("has samples");
        assert_eq!(history.samples.len(), 160);
        assert!(history.samples.iter().all(|s| s.took_ms == 9));
        assert!(graph("command", &history, 200).contains("high 9 ms, low 9 ms"));
        assert_eq!(latency.reset(&["none".into()]), 0);
        assert_eq!(latency.reset(&[]), 1);
        assert!(latency.history(b"command").is_none());
    }
}
