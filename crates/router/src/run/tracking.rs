//! CLIENT TRACKING and its kin: the commands.

use std::sync::Arc;

use bytes::Bytes;
use commands::{CommandError, Echo, Session, parse_int};
use wire::resp::Reply;

use super::word;
use crate::clients::Client;
use crate::connection::Connection;
use crate::tracking::{Tracked, Tracker, TrackingOptions};

/// The line of a CLIENT TRACKING.
#[derive(Default)]
struct Line {
    redirect: Option<Arc<Client>>,
    options: TrackingOptions,
    prefixes: Vec<Bytes>,
}

/// Runs a command of this file, if it is one.
pub(super) fn run(
    what: Session,
    connection: &mut Connection,
    args: &[Bytes],
) -> Option<Result<Reply, CommandError>> {
    Some(match what {
        Session::ClientTracking => tracking(connection, args),
        Session::ClientCaching => caching(connection, args),
        Session::ClientGetredir => Ok(redirection(connection)),
        Session::ClientTrackinginfo => Ok(trackinginfo(connection)),
        _ => return None,
    })
}

fn tracking(connection: &mut Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    let line = parse(connection, &args[3..])?;
    match args[2].to_ascii_lowercase().as_slice() {
        b"on" => start(connection, line)?,
        b"off" => connection.session.tracked = None,
        _ => return Err(CommandError::Syntax),
    }
    Ok(Reply::OK)
}

fn parse(connection: &Connection, options: &[Bytes]) -> Result<Line, CommandError> {
    let mut line = Line::default();
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match (option.to_ascii_lowercase().as_slice(), options.len() > 0) {
            (b"redirect", true) => {
                if line.redirect.is_some() {
                    return Err(CommandError::REDIRECT_TWICE);
                }
                let id = options.next().and_then(|id| parse_int(id));
                let id = id.ok_or(CommandError::NotInteger)?;
                let target =
                    u64::try_from(id).ok().and_then(|id| connection.shared.clients.get(id));
                line.redirect = Some(target.ok_or(CommandError::REDIRECT_TO_NOBODY)?);
            }
            (b"bcast", _) => line.options.broadcast = true,
            (b"optin", _) => line.options.opt_in = true,
            (b"optout", _) => line.options.opt_out = true,
            (b"noloop", _) => line.options.no_loop = true,
            (b"prefix", true) => line.prefixes.extend(options.next().map(|prefix| {
                // Copied: a slice would keep the whole buffer it was read into.
                Bytes::copy_from_slice(prefix)
            })),
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok(line)
}

fn start(connection: &mut Connection, line: Line) -> Result<(), CommandError> {
    let Line { redirect, options, mut prefixes } = line;
    let before = connection.session.tracked.as_ref().map(|tracked| tracked.tracker.clone());
    check(options, &prefixes, before.as_deref())?;
    if options.broadcast && prefixes.is_empty() {
        prefixes.push(Bytes::new());
    }
    prefixes.extend(before.iter().flat_map(|before| before.prefixes.iter().cloned()));
    prefixes.sort_unstable();
    prefixes.dedup();
    let client = connection.session.client.clone();
    let live = &connection.shared.config.live;
    client.open_pushes(live);
    if let Some(target) = &redirect {
        target.open_pushes(live);
    }
    let tracker = Tracker::new(client, redirect, options, prefixes);
    match &mut connection.session.tracked {
        Some(tracked) => tracked.change(tracker),
        none => {
            let hub = connection.shared.hub().clone();
            *none = Some(Box::new(Tracked::start(hub, tracker)));
        }
    }
    Ok(())
}

/// *Errors*: the options do not go together, or not with what they were before.
fn check(
    options: TrackingOptions,
    prefixes: &[Bytes],
    before: Option<&Tracker>,
) -> Result<(), CommandError> {
    if !options.broadcast && !prefixes.is_empty() {
        return Err(CommandError::PREFIX_WITHOUT_BCAST);
    }
    let old = before.map(|before| before.options);
    if old.is_some_and(|old| old.broadcast != options.broadcast) {
        return Err(CommandError::BCAST_SWITCHED);
    }
    if options.broadcast && (options.opt_in || options.opt_out) {
        return Err(CommandError::BCAST_WITH_OPT);
    }
    if options.opt_in && options.opt_out {
        return Err(CommandError::OPTIN_AND_OPTOUT);
    }
    let switches =
        |old: TrackingOptions| (options.opt_in && old.opt_out) || (options.opt_out && old.opt_in);
    if old.is_some_and(switches) {
        return Err(CommandError::OPT_SWITCHED);
    }
    let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
    for (at, prefix) in prefixes.iter().enumerate() {
        let echo = |text: &[u8]| Echo::new(text);
        let known = before.map_or(&[][..], |before| &before.prefixes);
        if let Some(known) = known.iter().find(|known| overlap(prefix, known)) {
            return Err(CommandError::PrefixKnown(echo(prefix), echo(known)));
        }
        if let Some(other) = prefixes[at + 1..].iter().find(|other| overlap(prefix, other)) {
            return Err(CommandError::PrefixesOverlap(echo(prefix), echo(other)));
        }
    }
    Ok(())
}

fn caching(connection: &mut Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    let Some(tracked) = &mut connection.session.tracked else {
        return Err(CommandError::CACHING_UNTRACKED);
    };
    let options = tracked.tracker.options;
    match args[2].to_ascii_lowercase().as_slice() {
        b"yes" if options.opt_in => {}
        b"yes" => return Err(CommandError::CACHING_YES),
        b"no" if options.opt_out => {}
        b"no" => return Err(CommandError::CACHING_NO),
        _ => return Err(CommandError::Syntax),
    }
    tracked.caching = true;
    Ok(Reply::OK)
}

fn redirection(connection: &Connection) -> Reply {
    let tracked = connection.session.tracked.as_ref();
    Reply::Integer(tracked.map_or(-1, |tracked| {
        tracked.tracker.redirect.as_ref().map_or(0, |target| target.id as i64)
    }))
}

fn trackinginfo(connection: &Connection) -> Reply {
    let tracked = connection.session.tracked.as_ref();
    let mut flags = vec![word(if tracked.is_some() { "on" } else { "off" })];
    let mut prefixes = Vec::new();
    if let Some(tracked) = tracked {
        let options = tracked.tracker.options;
        let flag = |is: bool, name: &'static str| is.then(|| word(name));
        flags.extend(flag(options.broadcast, "bcast"));
        flags.extend(flag(options.opt_in, "optin"));
        flags.extend(flag(options.opt_in && tracked.caching, "caching-yes"));
        flags.extend(flag(options.opt_out, "optout"));
        flags.extend(flag(options.opt_out && tracked.caching, "caching-no"));
        flags.extend(flag(options.no_loop, "noloop"));
        flags.extend(flag(tracked.tracker.is_broken(), "broken_redirect"));
        prefixes.extend(tracked.tracker.prefixes.iter().cloned().map(Reply::Bulk));
    }
    Reply::Map(vec![
        (word("flags"), Reply::Set(flags)),
        (word("redirect"), redirection(connection)),
        (word("prefixes"), Reply::Array(prefixes)),
    ])
}
