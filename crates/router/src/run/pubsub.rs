//! Publishing and subscribing, and MONITOR: the commands.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commands::{CommandError, Session};
use wire::resp::Reply;

use super::{help, word};
use crate::Shared;
use crate::clients::Client;
use crate::connection::Connection;
use crate::monitors::Monitoring;
use crate::pubsub::{PubSub, Subscriptions, Topic};

const HELP: &[&str] = &[
    "CHANNELS [<pattern>]",
    "    Return the channels that have subscribers and match <pattern> (default: '*').",
    "NUMPAT",
    "    Return the number of patterns that have subscribers.",
    "NUMSUB [<channel> ...]",
    "    Return the number of subscribers of channels; those to patterns do not count.",
    "SHARDCHANNELS [<pattern>]",
    "    Return the shard channels that have subscribers and match <pattern> (default: '*').",
    "SHARDNUMSUB [<shardchannel> ...]",
    "    Return the number of subscribers of shard channels.",
];

/// Runs a command of this file, if it is one.
pub(super) fn run(
    what: Session,
    connection: &mut Connection,
    args: &[Bytes],
) -> Option<Result<Reply, CommandError>> {
    Some(match what {
        Session::Subscribe => Ok(subscribe(connection, Topic::Channel, args)),
        Session::Psubscribe => Ok(subscribe(connection, Topic::Pattern, args)),
        Session::Ssubscribe => Ok(subscribe(connection, Topic::Shard, args)),
        Session::Unsubscribe => Ok(unsubscribe(connection, Topic::Channel, args)),
        Session::Punsubscribe => Ok(unsubscribe(connection, Topic::Pattern, args)),
        Session::Sunsubscribe => Ok(unsubscribe(connection, Topic::Shard, args)),
        Session::Publish => Ok(publish(connection, Topic::Channel, args)),
        Session::Spublish => Ok(publish(connection, Topic::Shard, args)),
        Session::Monitor => Ok(monitor(connection)),
        _ => return None,
    })
}

/// PUBSUB, if it is that.
pub(super) fn answer(
    what: Session,
    shared: &Shared,
    args: &[Bytes],
) -> Option<Result<Reply, CommandError>> {
    let pubsub = &shared.hub().pubsub;
    Some(match what {
        Session::PubsubChannels => channels(pubsub, Topic::Channel, args),
        Session::PubsubShardchannels => channels(pubsub, Topic::Shard, args),
        Session::PubsubNumsub => Ok(subscribers(pubsub, Topic::Channel, args)),
        Session::PubsubShardnumsub => Ok(subscribers(pubsub, Topic::Shard, args)),
        Session::PubsubNumpat => Ok(number(pubsub.count(Topic::Pattern))),
        Session::PubsubHelp => Ok(help("PUBSUB", HELP)),
        _ => return None,
    })
}

fn number(count: usize) -> Reply {
    Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

fn subscribe(connection: &mut Connection, topic: Topic, args: &[Bytes]) -> Reply {
    let told = match topic {
        Topic::Channel => "subscribe",
        Topic::Pattern => "psubscribe",
        Topic::Shard => "ssubscribe",
    };
    let client = &connection.session.client;
    client.open_pushes(&connection.shared.config.live);
    let subscriptions = connection.session.subscriptions.get_or_insert_with(|| {
        Box::new(Subscriptions::new(connection.shared.hub().clone(), client.clone()))
    });
    let replies = args[1..].iter().map(|name| {
        subscriptions.add(topic, name);
        let count = number(subscriptions.count(topic));
        Reply::Push(vec![word(told), Reply::Bulk(name.clone()), count])
    });
    let replies = replies.collect();
    leave_if_denied(connection, topic, &args[1..]);
    Reply::Sequence(replies)
}

/// Rules that were changed between the check of a subscription and its beginning: whoever changed them did
/// not see it, so the connection is closed here as it would have been there.
fn leave_if_denied(connection: &mut Connection, topic: Topic, names: &[Bytes]) {
    let session = &mut connection.session;
    if !session.login.account.is_restricted() {
        return;
    }
    let user = session.login.user();
    let is_denied = names.iter().any(|name| match topic {
        Topic::Pattern => !user.may_subscribe_pattern(name),
        Topic::Channel | Topic::Shard => !user.may_subscribe(name),
    });
    if is_denied {
        session.closing = true;
        session.client.closing.store(true, Relaxed);
    }
}

fn unsubscribe(connection: &mut Connection, topic: Topic, args: &[Bytes]) -> Reply {
    let told = match topic {
        Topic::Channel => "unsubscribe",
        Topic::Pattern => "punsubscribe",
        Topic::Shard => "sunsubscribe",
    };
    let tell = |name: Reply, count: usize| Reply::Push(vec![word(told), name, number(count)]);
    let mut subscriptions = connection.session.subscriptions.take();
    let names = match (&args[1..], &subscriptions) {
        ([], Some(subscriptions)) => subscriptions.names(topic),
        (names, _) => names.to_vec(),
    };
    let mut replies = Vec::with_capacity(names.len().max(1));
    let count = |of: &Option<Box<Subscriptions>>| of.as_ref().map_or(0, |of| of.count(topic));
    for name in names {
        if let Some(subscriptions) = &mut subscriptions {
            subscriptions.remove(topic, &name);
        }
        replies.push(tell(Reply::Bulk(name), count(&subscriptions)));
    }
    if replies.is_empty() {
        replies.push(tell(Reply::Null, count(&subscriptions)));
    }
    connection.session.subscriptions = subscriptions.filter(|left| !left.is_empty());
    Reply::Sequence(replies)
}

/// Receivers of a message whose sockets are looked at before it is published: each look is a system call.
const HEARD_MAX: usize = 8;
/// How long a message waits for them: what lies there is read at once, where threads have a turn.
const HEARD_WITHIN: Duration = Duration::from_millis(20);
/// So often it only lets others have the thread; then it rests.
const HEARD_TURNS: u32 = 50;
const HEARD_REST: Duration = Duration::from_millis(1);

/// Connections that would get a message, and have sent something that is not done yet, with how often
/// each was served. They are served side by side with the publisher's: were they not heard first, one
/// that has unsubscribed or left would get what is published, and be counted, afterwards.
pub(crate) fn unheard(
    connection: &Connection,
    what: Session,
    args: &[Bytes],
) -> Vec<(Arc<Client>, u64)> {
    let topic = if matches!(what, Session::Spublish) { Topic::Shard } else { Topic::Channel };
    let own = connection.session.client.id;
    let receivers = connection.shared.hub().pubsub.few_receivers(topic, &args[1], HEARD_MAX);
    let others = receivers.into_iter().filter(|client| client.id != own);
    let rounds = others.map(|client| {
        let rounds = client.rounds.load(Relaxed);
        (client, rounds)
    });
    rounds.filter(|(client, _)| client.is_behind()).collect()
}

/// Waits until these were heard, or are gone; not for long, and not for one that waits here itself.
pub(crate) async fn hear(own: &Client, unheard: &[(Arc<Client>, u64)]) {
    let deadline = Instant::now() + HEARD_WITHIN;
    own.hears.store(true, Relaxed);
    for (client, rounds) in unheard {
        // One that was being served reads what lay there in its next round, and no later: who goes on
        // sending is not waited for again and again.
        let is_due = || match client.rounds.load(Relaxed) - rounds {
            _ if client.hears.load(Relaxed) => false,
            0 => !client.is_blocked(),
            1 => client.is_behind(),
            _ => false,
        };
        let mut turns = 0;
        while is_due() && Instant::now() < deadline {
            turns += 1;
            match turns {
                ..HEARD_TURNS => tokio::task::yield_now().await,
                _ => tokio::time::sleep(HEARD_REST).await,
            }
        }
    }
    own.hears.store(false, Relaxed);
}

fn publish(connection: &Connection, topic: Topic, args: &[Bytes]) -> Reply {
    number(connection.shared.hub().pubsub.publish(topic, &args[1], &args[2]))
}

fn channels(pubsub: &PubSub, topic: Topic, args: &[Bytes]) -> Result<Reply, CommandError> {
    let pattern = match &args[2..] {
        [] => None,
        [pattern] => Some(&pattern[..]),
        _ => return Err(CommandError::SubcommandSyntax(commands::Echo::new(&args[1]), "PUBSUB")),
    };
    let found = pubsub.matching(topic, pattern);
    Ok(Reply::Array(found.into_iter().map(Reply::Bulk).collect()))
}

fn subscribers(pubsub: &PubSub, topic: Topic, args: &[Bytes]) -> Reply {
    let of_channel = |channel: &Bytes| {
        [Reply::Bulk(channel.clone()), number(pubsub.subscribers(topic, channel))]
    };
    Reply::Array(args[2..].iter().flat_map(of_channel).collect())
}

/// MONITOR. Asked again it is not answered, as in Redis.
fn monitor(connection: &mut Connection) -> Reply {
    if connection.session.monitoring.is_some() {
        return Reply::Sequence(Vec::new());
    }
    let client = connection.session.client.clone();
    client.open_pushes(&connection.shared.config.live);
    let monitoring = Monitoring::start(connection.shared.hub().clone(), client);
    connection.session.monitoring = Some(Box::new(monitoring));
    Reply::OK
}
