//! What clients that know Redis Cluster ask; the router answers (`router::run::cluster`).

use crate::command::{Command, Flags, Keys, Session, at_least, exactly, group, session};

const STALE: Flags = Flags::STALE;
const ANYTIME: Flags = Flags(Flags::LOADING.0 | Flags::STALE.0);
const QUICK: Flags = Flags(ANYTIME.0 | Flags::FAST.0);
const ADMIN: Flags = Flags(Flags::STALE.0 | Flags::ADMIN.0);
/// Of commands that would change which node has what.
const CHANGE: Flags = Flags(ADMIN.0 | Flags::NO_ASYNC_LOADING.0);
const RESET: Flags = Flags(ADMIN.0 | Flags::NOSCRIPT.0);

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Command] = &[
    //       name         arity        flags        keys        what
    session("ASKING",     exactly(1),  Flags::FAST, Keys::None, Session::ClusterMode),
    group(  "CLUSTER",    at_least(2), Flags::NONE, CLUSTER_ROWS),
    session("READONLY",   exactly(1),  QUICK,       Keys::None, Session::ClusterMode),
    session("READWRITE",  exactly(1),  QUICK,       Keys::None, Session::ClusterMode),
];

#[rustfmt::skip]
const CLUSTER_ROWS: &[Command] = &[
    //       name                     arity        flags    keys        what
    session("ADDSLOTS",               at_least(3), CHANGE,  Keys::None, Session::ClusterChange),
    session("ADDSLOTSRANGE",          at_least(4), CHANGE,  Keys::None, Session::ClusterChange),
    session("BUMPEPOCH",              exactly(2),  CHANGE,  Keys::None, Session::ClusterChange),
    session("COUNT-FAILURE-REPORTS",  exactly(3),  ADMIN,   Keys::None, Session::ClusterFailureReports),
    session("COUNTKEYSINSLOT",        exactly(3),  STALE,   Keys::None, Session::ClusterCountkeysinslot),
    session("DELSLOTS",               at_least(3), CHANGE,  Keys::None, Session::ClusterChange),
    session("DELSLOTSRANGE",          at_least(4), CHANGE,  Keys::None, Session::ClusterChange),
    session("FAILOVER",               at_least(2), CHANGE,  Keys::None, Session::ClusterChange),
    session("FLUSHSLOTS",             exactly(2),  CHANGE,  Keys::None, Session::ClusterChange),
    session("FORGET",                 exactly(3),  CHANGE,  Keys::None, Session::ClusterChange),
    session("GETKEYSINSLOT",          exactly(4),  STALE,   Keys::None, Session::ClusterGetkeysinslot),
    session("INFO",                   exactly(2),  STALE,   Keys::None, Session::ClusterInfo),
    session("KEYSLOT",                exactly(3),  STALE,   Keys::None, Session::ClusterKeyslot),
    session("LINKS",                  exactly(2),  STALE,   Keys::None, Session::ClusterLinks),
    session("MEET",                   at_least(4), CHANGE,  Keys::None, Session::ClusterChange),
    session("MYID",                   exactly(2),  STALE,   Keys::None, Session::ClusterMyid),
    session("MYSHARDID",              exactly(2),  STALE,   Keys::None, Session::ClusterMyid),
    session("NODES",                  exactly(2),  STALE,   Keys::None, Session::ClusterNodes),
    session("REPLICAS",               exactly(3),  ADMIN,   Keys::None, Session::ClusterReplicas),
    session("REPLICATE",              exactly(3),  CHANGE,  Keys::None, Session::ClusterChange),
    session("RESET",                  at_least(2), RESET,   Keys::None, Session::ClusterChange),
    session("SAVECONFIG",             exactly(2),  CHANGE,  Keys::None, Session::ClusterChange),
    session("SET-CONFIG-EPOCH",       exactly(3),  CHANGE,  Keys::None, Session::ClusterChange),
    session("SETSLOT",                at_least(4), CHANGE,  Keys::None, Session::ClusterChange),
    session("SHARDS",                 exactly(2),  STALE,   Keys::None, Session::ClusterShards),
    session("SLAVES",                 exactly(3),  ADMIN,   Keys::None, Session::ClusterReplicas),
    session("SLOTS",                  exactly(2),  STALE,   Keys::None, Session::ClusterSlots),
    session("HELP",                   exactly(2),  ANYTIME, Keys::None, Session::ClusterHelp),
];
