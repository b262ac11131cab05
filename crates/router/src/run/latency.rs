//! LATENCY: events and histograms.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use commands::table::{self, Entry};
use commands::{CommandError, Echo};
use wire::resp::Reply;

use super::{command, text, verbatim, word};
use crate::connection::Connection;
use crate::latency::{self as events, History, Sample};

pub(super) const HELP: &[&str] = &[
    "DOCTOR",
    "    Explain the events in plain words.",
    "GRAPH <event>",
    "    Draw the history of an event.",
    "HISTOGRAM [<command> ...]",
    "    Return how long these commands took, or all: a cumulative histogram each.",
    "HISTORY <event>",
    "    Return the samples of an event.",
    "LATEST",
    "    Return the newest sample of each event.",
    "RESET [<event> ...]",
    "    Forget these events, or all.",
];

pub(super) fn latest(connection: &Connection) -> Reply {
    let events = connection.shared.latency.events();
    let newest = events.into_iter().filter_map(|(event, history)| {
        let Sample { at_s, took_ms } = *history.samples.last()?;
        Some(Reply::Array(vec![
            word(event),
            Reply::Integer(at_s),
            Reply::Integer(took_ms as i64),
            Reply::Integer(history.longest_ms as i64),
        ]))
    });
    Reply::Array(newest.collect())
}

pub(super) fn history(connection: &Connection, args: &[Bytes]) -> Reply {
    let history = connection.shared.latency.history(&args[2]).unwrap_or_default();
    let samples = history.samples.into_iter().map(|Sample { at_s, took_ms }| {
        Reply::Array(vec![Reply::Integer(at_s), Reply::Integer(took_ms as i64)])
    });
    Reply::Array(samples.collect())
}

pub(super) fn reset(connection: &Connection, args: &[Bytes]) -> Reply {
    Reply::Integer(connection.shared.latency.reset(&args[2..]) as i64)
}

pub(super) fn graph(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    let event = String::from_utf8_lossy(&args[2]).into_owned();
    match connection.shared.latency.history(&args[2]) {
        Some(history) => Ok(verbatim(events::graph(&event, &history, connection.shared.now_s()))),
        None => Err(CommandError::NoLatencySamples(Echo::new(&args[2]))),
    }
}

pub(super) fn histogram(connection: &Connection, args: &[Bytes]) -> Reply {
    let named: Vec<&Entry> = match &args[2..] {
        [] => table::entries().iter().collect(),
        // A group stands for its subcommands, as in Redis.
        names => names
            .iter()
            .filter_map(|name| command::by_full_name(name))
            .flat_map(|entry| {
                let subcommands = entry.subcommands.iter().map(|id| table::entry(*id));
                std::iter::once(entry).chain(subcommands)
            })
            .collect(),
    };
    let of = |entry: &Entry| {
        let stats = connection.shared.stats.command(entry.id)?;
        let calls = stats.histogram.calls();
        if calls == 0 {
            return None;
        }
        let points = stats.histogram.cumulative_us().into_iter();
        let points = points
            .map(|(us, calls)| (Reply::Integer(us as i64), Reply::Integer(calls as i64)))
            .collect();
        let fields = vec![
            (word("calls"), Reply::Integer(calls as i64)),
            (word("histogram_usec"), Reply::Map(points)),
        ];
        Some((text(entry.full_name()), Reply::Map(fields)))
    };
    Reply::Map(named.into_iter().filter_map(of).collect())
}

pub(super) fn doctor(connection: &Connection) -> Reply {
    let threshold_ms = connection.shared.config.live.latency_threshold_ms.load(Relaxed);
    if threshold_ms == 0 {
        return verbatim(
            "Latency monitoring is off. CONFIG SET latency-monitor-threshold <milliseconds> turns \
             it on.\n"
                .to_owned(),
        );
    }
    let events = connection.shared.latency.events();
    if events.is_empty() {
        return verbatim(format!("Nothing took {threshold_ms} ms or longer.\n"));
    }
    let lines: Vec<String> =
        events.iter().map(|(event, history)| diagnosis(event, history)).collect();
    verbatim(lines.concat())
}

fn diagnosis(event: &str, history: &History) -> String {
    let count = history.samples.len();
    let total: u64 = history.samples.iter().map(|sample| sample.took_ms).sum();
    let advice = match event {
        "quorum-wait" => {
            "Writes waited for the disks of a quorum: look at ADMIN STATUS for a slow or missing \
             node."
        }
        "fast-command" => {
            "Commands that should be fast were not: the machine is short of CPU, or disks answer \
             reads slowly."
        }
        _ => "Look at SLOWLOG GET for the commands, and ask for less at a time.",
    };
    format!(
        "{event}: {count} samples, average {} ms, longest {} ms. {advice}\n",
        total / count.max(1) as u64,
        history.longest_ms
    )
}
