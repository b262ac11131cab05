//! Clients at work: what they ask for, what they are told, and what that has to mean.
//!
//! ```text
//! register   SET of a value that nobody else sets, GET        linearizable, by key
//! counter    INCR                                             each is counted once, in the order of time
//! queue      RPUSH of what nobody else pushes, LPOP, BLPOP    each is had once, none is lost
//! pair       MULTI SET SET EXEC, MGET                         both or none
//! mortal     SET PX, GET                                      once gone, gone for good
//! heap       HSET, ZADD, SADD, PEXPIRE, DEL, FLUSHDB …        only that replicas agree
//! ```
//!
//! A reply that a write was not executed is believed: nobody may ever see it. After no reply, or
//! `UNCERTAIN`, it may have happened at any time since, or never.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use router::Router;
use tokio::time::{sleep, timeout};

use super::clock::Now;
use super::talk::{Said, Talk};
use crate::checks::{Violation, violation};
use crate::history::{Operation, What, is_linearizable};
use crate::random::Random;

/// Keys of each kind.
const KEYS: u64 = 3;
/// A client that hears nothing for so long hangs up: longer than any request may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// The longest time that a mortal key lives.
const LIFE_MS_MAX: u64 = 3_000;

/// What a write is known to have done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Done,
    Unknown,
    Never,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    invoked: u64,
    returned: u64,
    value: u64,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    invoked: u64,
    returned: u64,
    there: bool,
}

#[derive(Default, Debug)]
struct Mortal {
    /// When its write was answered.
    written: Option<u64>,
    looks: Vec<Look>,
}

#[derive(Default, Debug)]
struct Queue {
    pushed: BTreeMap<u64, Fate>,
    popped: Vec<u64>,
    /// Pops whose outcome nobody knows: each may have taken one.
    pops_unknown: u64,
}

#[derive(Default, Debug)]
struct Counter {
    done: Vec<Count>,
    unknown: u64,
}

/// All that clients asked and were told.
#[derive(Default, Debug)]
pub(crate) struct Ledger {
    values: u64,
    registers: BTreeMap<String, Vec<Operation>>,
    counters: BTreeMap<String, Counter>,
    queues: BTreeMap<String, Queue>,
    mortals: BTreeMap<String, Mortal>,
    broken: Option<Violation>,
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    pub(crate) uncertain: u64,
    pub(crate) refused: u64,
}

impl Ledger {
    fn break_with(&mut self, check: &'static str, detail: String) {
        self.broken.get_or_insert(Violation { check, detail });
    }

    /// What clients saw at once to be wrong.
    pub(crate) fn broken(&self) -> Result<(), Violation> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Everything that was seen, once all is over. `loose`: what was read may have been old.
    pub(crate) fn check(&self, loose: bool) -> Result<(), Violation> {
        self.broken()?;
        for (key, history) in &self.registers {
            if !loose && !is_linearizable(history) {
                return violation("linearizable histories", format!("{key}: {history:?}"));
            }
        }
        self.counters.iter().try_for_each(|(key, counter)| check_counter(key, counter))?;
        self.queues.iter().try_for_each(|(key, queue)| check_queue(key, queue))?;
        let mut mortals = self.mortals.iter().filter(|_| !loose);
        mortals.try_for_each(|(key, mortal)| check_mortal(key, mortal))
    }
}

fn check_counter(key: &str, counter: &Counter) -> Result<(), Violation> {
    let values: BTreeSet<_> = counter.done.iter().map(|count| count.value).collect();
    if values.len() != counter.done.len() {
        return violation("counted once", format!("{key}: {:?}", counter.done));
    }
    for one in &counter.done {
        let later = counter
            .done
            .iter()
            .find(|other| one.returned < other.invoked && other.value < one.value);
        if let Some(later) = later {
            return violation("counted in order", format!("{key}: {one:?}, then {later:?}"));
        }
    }
    let (highest, done) = (values.last().copied().unwrap_or(0), counter.done.len() as u64);
    if highest > done + counter.unknown {
        let text = format!("{key} is {highest}: {done} and perhaps {}", counter.unknown);
        return violation("counted once", text);
    }
    Ok(())
}

fn check_queue(key: &str, queue: &Queue) -> Result<(), Violation> {
    let mut had = BTreeSet::new();
    for value in &queue.popped {
        let known = queue.pushed.get(value);
        if known.is_none_or(|fate| *fate == Fate::Never) {
            return violation("had what was pushed", format!("{key}: {value}, {known:?}"));
        }
        if !had.insert(*value) {
            return violation("had once", format!("{key}: {value}"));
        }
    }
    let is_lost = |(value, fate): &(&u64, &Fate)| **fate == Fate::Done && !had.contains(*value);
    let lost: Vec<_> = queue.pushed.iter().filter(is_lost).map(|(value, _)| *value).collect();
    if lost.len() as u64 > queue.pops_unknown {
        let text = format!("{key}: {lost:?} with {} pops unknown", queue.pops_unknown);
        return violation("no acknowledged write lost", text);
    }
    Ok(())
}

fn check_mortal(key: &str, mortal: &Mortal) -> Result<(), Violation> {
    let Some(written) = mortal.written else { return Ok(()) };
    let gone = mortal.looks.iter().filter(|look| !look.there && look.invoked >= written);
    let Some(gone) = gone.min_by_key(|look| look.returned) else { return Ok(()) };
    let back = mortal.looks.iter().find(|look| look.there && look.invoked > gone.returned);
    match back {
        Some(back) => violation("time to live never revives", format!("{key}: {gone:?}, {back:?}")),
        None => Ok(()),
    }
}

/// One client.
pub(crate) struct Client {
    pub(crate) number: u64,
    pub(crate) now: Now,
    pub(crate) router: Router,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) random: Random,
    /// No new work from now on.
    pub(crate) is_over: Arc<AtomicBool>,
}

/// Command lines without the filling of values.
fn shown(lines: &[Vec<String>]) -> String {
    let word = |word: &String| word.split('.').next().unwrap_or_default().to_owned();
    let line = |line: &Vec<String>| line.iter().map(word).collect::<Vec<_>>().join(" ");
    lines.iter().map(line).collect::<Vec<_>>().join("; ")
}

fn line(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl Client {
    /// Works until it is over.
    pub(crate) async fn run(mut self) {
        while !self.is_over.load(Relaxed) {
            let mut talk = Talk::new(self.router.attach());
            while !self.is_over.load(Relaxed) {
                let think = self.random.skewed(200, 60_000);
                sleep(Duration::from_micros(think)).await;
                match timeout(PATIENCE, self.ask(&mut talk)).await {
                    // Whoever hangs up does not hear what became of its last request.
                    Ok(Some(())) if !self.random.chance(5) => {}
                    _ => break,
                }
            }
        }
    }

    fn new_value(&mut self) -> u64 {
        let mut ledger = self.ledger.lock();
        ledger.values += 1;
        ledger.values
    }

    /// A value's text: its number and filling.
    fn text(&mut self, value: u64) -> String {
        let filling = self.random.skewed(1, 1_500) as usize;
        format!("{value}.{}", "x".repeat(filling))
    }

    fn key(&mut self, kind: &str) -> String {
        format!("{kind}:{}", self.random.below(KEYS))
    }

    async fn ask(&mut self, talk: &mut Talk) -> Option<()> {
        match self.random.below(100) {
            0..35 => self.registers(talk).await,
            35..45 => self.count(talk).await,
            45..60 => self.queue(talk).await,
            60..70 => self.pair(talk).await,
            70..85 => self.heap(talk).await,
            _ => self.mortal(talk).await,
        }
    }

    /// Sends lines; what was unanswered when the client gave up stays so.
    async fn send(&mut self, talk: &mut Talk, lines: &[Vec<String>]) -> Option<u64> {
        self.ledger.lock().asked += lines.len() as u64;
        let invoked = self.now.get();
        tracing::info!(client = self.number, "asks {}", shown(lines));
        talk.send(lines).await.ok()?;
        Some(invoked)
    }

    async fn hear(&mut self, talk: &mut Talk) -> Option<Said> {
        let said = talk.hear().await.ok()?;
        tracing::info!(client = self.number, "hears {}", said.shown());
        let mut ledger = self.ledger.lock();
        ledger.answered += 1;
        ledger.uncertain += u64::from(said.is_uncertain());
        ledger.refused += u64::from(said.is_error() && !said.is_uncertain());
        Some(said)
    }

    /// Reads and writes registers, some in one pipeline.
    async fn registers(&mut self, talk: &mut Talk) -> Option<()> {
        let mut lines = Vec::new();
        let mut asked = Vec::new();
        for _ in 0..self.random.skewed(1, 8) {
            let key = self.key("register");
            if self.random.chance(450) {
                let value = self.new_value();
                let text = self.text(value);
                lines.push(line(&["SET", &key, &text]));
                asked.push((key, Some(value)));
            } else {
                lines.push(line(&["GET", &key]));
                asked.push((key, None));
            }
        }
        // Noted before they are sent: what is not heard of may happen all the same.
        let invoked = self.now.get();
        for (key, value) in asked.iter().filter_map(|(key, value)| Some((key, (*value)?))) {
            let write = Operation { invoked, returned: None, what: What::Write(value) };
            self.ledger.lock().registers.entry(key.clone()).or_default().push(write);
        }
        let invoked = self.send(talk, &lines).await?;
        for (key, value) in asked {
            let said = self.hear(talk).await?;
            let returned = Some(self.now.get());
            let mut ledger = self.ledger.lock();
            let history = ledger.registers.entry(key).or_default();
            match (value, &said) {
                (Some(value), Said::Error(_)) => {
                    if !said.is_uncertain() {
                        history.retain(|operation| operation.what != What::Write(value));
                    }
                }
                (Some(value), _) => {
                    let same = |it: &&mut Operation| it.what == What::Write(value);
                    history.iter_mut().filter(same).for_each(|it| it.returned = returned);
                }
                (None, Said::Error(_)) => {}
                (None, said) => {
                    let what = What::Read(said.number());
                    history.push(Operation { invoked, returned, what });
                }
            }
        }
        Some(())
    }

    async fn count(&mut self, talk: &mut Talk) -> Option<()> {
        let key = self.key("counter");
        self.ledger.lock().counters.entry(key.clone()).or_default().unknown += 1;
        let invoked = self.send(talk, &[line(&["INCR", &key])]).await?;
        let said = self.hear(talk).await?;
        let returned = self.now.get();
        let mut ledger = self.ledger.lock();
        let counter = ledger.counters.entry(key).or_default();
        counter.unknown -= u64::from(!said.is_uncertain());
        if let Some(value) = said.number() {
            counter.done.push(Count { invoked, returned, value });
        }
        Some(())
    }

    async fn queue(&mut self, talk: &mut Talk) -> Option<()> {
        let key = self.key("queue");
        if self.random.chance(550) {
            let value = self.new_value();
            let text = self.text(value);
            let note = |fate| {
                let mut ledger = self.ledger.lock();
                ledger.queues.entry(key.clone()).or_default().pushed.insert(value, fate);
            };
            note(Fate::Unknown);
            self.send(talk, &[line(&["RPUSH", &key, &text])]).await?;
            let said = self.hear(talk).await?;
            let mut ledger = self.ledger.lock();
            let fate = match &said {
                said if said.is_uncertain() => Fate::Unknown,
                Said::Error(_) => Fate::Never,
                _ => Fate::Done,
            };
            ledger.queues.entry(key).or_default().pushed.insert(value, fate);
            return Some(());
        }
        let blocks = self.random.chance(500);
        let pop = match blocks {
            true => {
                let seconds = self.random.pick(&["0.01", "0.03", "0.1", "1"]);
                line(&["BLPOP", &key, seconds])
            }
            false => line(&["LPOP", &key]),
        };
        self.ledger.lock().queues.entry(key.clone()).or_default().pops_unknown += 1;
        self.send(talk, &[pop]).await?;
        let said = self.hear(talk).await?;
        let mut ledger = self.ledger.lock();
        let queue = ledger.queues.entry(key).or_default();
        queue.pops_unknown -= u64::from(!said.is_uncertain());
        let value = match &said {
            Said::List(items) => items.get(1).and_then(Said::number),
            said => said.number(),
        };
        queue.popped.extend(value);
        Some(())
    }

    async fn pair(&mut self, talk: &mut Talk) -> Option<()> {
        let tag = self.random.below(KEYS);
        let (one, other) = (format!("{{pair{tag}}}:1"), format!("{{pair{tag}}}:2"));
        if self.random.chance(500) {
            let value = self.new_value();
            let text = self.text(value);
            let lines = [
                line(&["MULTI"]),
                line(&["SET", &one, &text]),
                line(&["SET", &other, &text]),
                line(&["EXEC"]),
            ];
            self.send(talk, &lines).await?;
            for _ in &lines {
                self.hear(talk).await?;
            }
            return Some(());
        }
        self.send(talk, &[line(&["MGET", &one, &other])]).await?;
        if let Said::List(items) = self.hear(talk).await?
            && items.first() != items.get(1)
        {
            let text = format!("{:?}", items.iter().map(Said::number).collect::<Vec<_>>());
            self.ledger.lock().break_with("both or none", text);
        }
        Some(())
    }

    /// What grows and shrinks: only that all replicas hold the same in the end is asked of it.
    async fn heap(&mut self, talk: &mut Talk) -> Option<()> {
        let (number, key) = (self.random.below(200).to_string(), self.random.below(KEYS));
        let text = { self.random.next().to_string() };
        let mut lines = Vec::new();
        for _ in 0..self.random.skewed(1, 6) {
            lines.push(match self.random.below(13) {
                0..4 => line(&["HSET", &format!("hash:{key}"), &number, &text]),
                4..7 => line(&["ZADD", &format!("sorted:{key}"), &number, &text]),
                7..9 => line(&["SADD", &format!("set:{key}"), &text]),
                9 => line(&["SPOP", &format!("set:{key}")]),
                10 => line(&["DEL", &format!("hash:{key}"), &format!("sorted:{key}")]),
                11 => {
                    let kind = self.random.pick(&["hash", "sorted", "set"]);
                    let life = self.random.skewed(20, LIFE_MS_MAX).to_string();
                    line(&["PEXPIRE", &format!("{kind}:{key}"), &life])
                }
                _ => line(&["ZREMRANGEBYRANK", &format!("sorted:{key}"), "0", "3"]),
            });
        }
        if self.random.chance(20) {
            lines = vec![line(&["SELECT", "1"]), line(&["FLUSHDB"]), line(&["SELECT", "0"])];
        } else if self.random.chance(200) {
            lines.insert(0, line(&["SELECT", "1"]));
            lines.push(line(&["SELECT", "0"]));
        }
        // A line of another partition is refused: the keys of a DEL need not lie together.
        self.send(talk, &lines).await?;
        for _ in &lines {
            self.hear(talk).await?;
        }
        Some(())
    }

    async fn mortal(&mut self, talk: &mut Talk) -> Option<()> {
        let known: Vec<_> = {
            let ledger = self.ledger.lock();
            ledger.mortals.keys().rev().take(4).cloned().collect()
        };
        if known.is_empty() || self.random.chance(250) {
            let value = self.new_value();
            let key = format!("mortal:{value:08}");
            let life = self.random.skewed(20, LIFE_MS_MAX).to_string();
            self.send(talk, &[line(&["SET", &key, &value.to_string(), "PX", &life])]).await?;
            let said = self.hear(talk).await?;
            let written = (!said.is_error()).then(|| self.now.get());
            self.ledger.lock().mortals.insert(key, Mortal { written, looks: Vec::new() });
            return Some(());
        }
        let key = self.random.below(known.len() as u64) as usize;
        let key = known[key].clone();
        let invoked = self.send(talk, &[line(&["GET", &key])]).await?;
        let said = self.hear(talk).await?;
        let returned = self.now.get();
        if !said.is_error() {
            let look = Look { invoked, returned, there: said != Said::Nothing };
            let mut ledger = self.ledger.lock();
            ledger.mortals.entry(key).or_default().looks.push(look);
        }
        Some(())
    }

    /// When faults are over: reads everything once more, until all of it is answered.
    pub(crate) async fn close(mut self) {
        let registers: Vec<_> = self.ledger.lock().registers.keys().cloned().collect();
        let counters: Vec<_> = self.ledger.lock().counters.keys().cloned().collect();
        let queues: Vec<_> = self.ledger.lock().queues.keys().cloned().collect();
        let mut talk = Talk::new(self.router.attach());
        for key in registers {
            let (invoked, said) = self.insist(&mut talk, line(&["GET", &key])).await;
            let (returned, what) = (Some(self.now.get()), What::Read(said.number()));
            let read = Operation { invoked, returned, what };
            self.ledger.lock().registers.entry(key).or_default().push(read);
        }
        for key in counters {
            let (_, said) = self.insist(&mut talk, line(&["GET", &key])).await;
            let mut ledger = self.ledger.lock();
            let counter = ledger.counters.entry(key.clone()).or_default();
            let (value, done) = (said.number().unwrap_or(0), counter.done.len() as u64);
            let highest = counter.done.iter().map(|count| count.value).max().unwrap_or(0);
            if value < done.max(highest) || value > done + counter.unknown {
                let text = format!(
                    "{key} ends as {value}: {done} done up to {highest}, {} unknown",
                    counter.unknown
                );
                ledger.break_with("counted once", text);
            }
        }
        for key in queues {
            let (_, said) = self.insist(&mut talk, line(&["LRANGE", &key, "0", "-1"])).await;
            if let Said::List(items) = said {
                let left = items.iter().filter_map(Said::number);
                self.ledger.lock().queues.entry(key).or_default().popped.extend(left);
            }
        }
    }

    /// Asks until it is answered; tells when it asked for the last time.
    async fn insist(&mut self, talk: &mut Talk, words: Vec<String>) -> (u64, Said) {
        loop {
            let lines = [words.clone()];
            let asked = async {
                let invoked = self.send(talk, &lines).await?;
                Some((invoked, self.hear(talk).await?))
            };
            match timeout(PATIENCE, asked).await {
                Ok(Some((invoked, said))) if !said.is_error() => return (invoked, said),
                Ok(Some(_)) => {}
                _ => *talk = Talk::new(self.router.attach()),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(invoked: u64, returned: u64, value: u64) -> Count {
        Count { invoked, returned, value }
    }

    #[test]
    fn counters_are_counted_once_and_in_order() {
        let check = |done: &[Count], unknown| {
            check_counter("c", &Counter { done: done.to_vec(), unknown }).is_ok()
        };
        assert!(check(&[count(0, 5, 2), count(1, 4, 1), count(6, 7, 3)], 0));
        assert!(check(&[count(0, 1, 1), count(2, 3, 3)], 1), "one may have been done unheard");
        assert!(!check(&[count(0, 1, 1), count(2, 3, 3)], 0), "counted twice");
        assert!(!check(&[count(0, 1, 1), count(2, 3, 1)], 0), "lost");
        assert!(!check(&[count(0, 1, 2), count(2, 3, 1)], 0), "out of order");
    }

    #[test]
    fn queues_give_what_was_pushed_once() {
        let check = |pushed: &[(u64, Fate)], popped: &[u64], pops_unknown| {
            let pushed = pushed.iter().copied().collect();
            check_queue("q", &Queue { pushed, popped: popped.to_vec(), pops_unknown }).is_ok()
        };
        assert!(check(&[(1, Fate::Done), (2, Fate::Unknown), (3, Fate::Never)], &[1], 0));
        assert!(check(&[(1, Fate::Done), (2, Fate::Unknown)], &[2], 1));
        assert!(!check(&[(1, Fate::Done), (2, Fate::Unknown)], &[2], 0), "lost");
        assert!(!check(&[(1, Fate::Done)], &[1, 1], 5), "twice");
        assert!(!check(&[(3, Fate::Never)], &[3], 0), "it was said not to have happened");
        assert!(!check(&[], &[3], 0), "from nowhere");
    }

    #[test]
    fn what_is_gone_stays_gone() {
        let check = |written, looks: &[(u64, u64, bool)]| {
            let looks =
                looks.iter().map(|&(invoked, returned, there)| Look { invoked, returned, there });
            check_mortal("m", &Mortal { written, looks: looks.collect() }).is_ok()
        };
        assert!(check(Some(1), &[(2, 3, true), (4, 5, false), (6, 7, false)]));
        assert!(check(Some(1), &[(2, 9, false), (4, 5, true)]), "at once");
        assert!(check(None, &[(2, 3, false), (4, 5, true)]), "written later");
        assert!(check(Some(4), &[(2, 3, false), (5, 6, true)]), "written later");
        assert!(!check(Some(1), &[(2, 3, false), (4, 5, true)]));
    }
}
