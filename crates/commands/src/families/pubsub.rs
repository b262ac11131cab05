//! Publishing and subscribing; the router runs these commands (`router::run`). Channels have nothing to
//! do with keys: no partition is asked. Those of SSUBSCRIBE and its kin stand where keys do, so that
//! cluster-aware clients send a command for them where they would send one for a key.

use crate::command::{
    Command, Flags, KeyFlags, Keys, Session, at_least, exactly, group, key, keys_from, session,
};

const PUBSUB: Flags = Flags(Flags::PUBSUB.0 | Flags::LOADING.0 | Flags::STALE.0);
const SUBSCRIBE: Flags = Flags(PUBSUB.0 | Flags::NOSCRIPT.0);
const PUBLISH: Flags = Flags(PUBSUB.0 | Flags::FAST.0 | Flags::MAY_REPLICATE.0);
const HELP: Flags = Flags(Flags::LOADING.0 | Flags::STALE.0);

const CHANNEL: Keys = key(1, KeyFlags::NOT_KEY);
const CHANNELS: Keys = keys_from(1, 1, KeyFlags::NOT_KEY);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //       name            arity        flags        keys        what
    session("SUBSCRIBE",    at_least(2), SUBSCRIBE,   Keys::None, Session::Subscribe),
    session("UNSUBSCRIBE",  at_least(1), SUBSCRIBE,   Keys::None, Session::Unsubscribe),
    session("PSUBSCRIBE",   at_least(2), SUBSCRIBE,   Keys::None, Session::Psubscribe),
    session("PUNSUBSCRIBE", at_least(1), SUBSCRIBE,   Keys::None, Session::Punsubscribe),
    session("SSUBSCRIBE",   at_least(2), SUBSCRIBE,   CHANNELS,   Session::Ssubscribe),
    session("SUNSUBSCRIBE", at_least(1), SUBSCRIBE,   CHANNELS,   Session::Sunsubscribe),
    session("PUBLISH",      exactly(3),  PUBLISH,     Keys::None, Session::Publish),
    session("SPUBLISH",     exactly(3),  PUBLISH,     CHANNEL,    Session::Spublish),
    group(  "PUBSUB",       at_least(2), Flags::NONE, PUBSUB_ROWS),
];

#[rustfmt::skip]
const PUBSUB_ROWS: &[Command] = &[
    session("CHANNELS",      at_least(2), PUBSUB, Keys::None, Session::PubsubChannels),
    session("NUMSUB",        at_least(2), PUBSUB, Keys::None, Session::PubsubNumsub),
    session("NUMPAT",        exactly(2),  PUBSUB, Keys::None, Session::PubsubNumpat),
    session("SHARDCHANNELS", at_least(2), PUBSUB, Keys::None, Session::PubsubShardchannels),
    session("SHARDNUMSUB",   at_least(2), PUBSUB, Keys::None, Session::PubsubShardnumsub),
    session("HELP",          exactly(2),  HELP,   Keys::None, Session::PubsubHelp),
];
