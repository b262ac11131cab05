//! Scripts: what is sent is a call made from Lua, so that arguments and replies go through it both ways.
//! Here, too, what concerns whole databases and other servers.

use super::transactions::QUEUED;
use super::{Action, Atom, Generator};

/// Weight and form, as of the other families.
#[rustfmt::skip]
pub(super) const TEMPLATES: &[(usize, &str)] = &[
    (8, "EVAL <script> 2 <key> <key> <val> <int>"),
    (2, "EVAL <script> (0|1 <key>|3 <key> <key>|-1|abc) <val> <int>"),
    (3, "EVAL_RO <script> 2 <key> <key> <val> <int>"),
    (2, "EVALSHA (59b6ab2fbe0ee4b25733de0f62e6cda4899ef8e9|ffffffffffffffffffffffffffffffffffffffff|ff) (0|1 <key>|x)"),
    (1, "EVALSHA_RO (59b6ab2fbe0ee4b25733de0f62e6cda4899ef8e9|ff) 0"),
    (2, "SCRIPT (LOAD <seven>|EXISTS 59b6ab2fbe0ee4b25733de0f62e6cda4899ef8e9 ff|EXISTS|LOAD|FLUSH [SYNC|ASYNC|x]|KILL|nosuch)"),
    // Nobody listens on the first port. Not mutated: another host might not even refuse.
    (2, "!MIGRATE 127.0.0.1 1 (<key>|<key>|<empty>) (0|15|abc) (100|abc|-1) [COPY] [REPLACE] [AUTH x|AUTH2 a b|AUTH|AUTH2 a|x]"),
    (1, "!MIGRATE 127.0.0.1 1 (<empty>|<empty>|<key>) 0 100 [REPLACE] KEYS <key>+"),
    (2, "SWAPDB (<db>|<db>|x) <db>"),
];

/// Scripts of one line that are told two keys, a value and a number.
pub(super) const SCRIPTS: &[&str] = &[
    "return 7",
    "return {KEYS,ARGV}",
    "return redis.call('get',KEYS[1])",
    "return redis.call('set',KEYS[1],ARGV[1])",
    "return redis.call('incrby',KEYS[1],ARGV[2])",
    "redis.call('incr',KEYS[1]) return redis.call('incrby',KEYS[2],ARGV[2])",
    "local old=redis.call('get',KEYS[1]) redis.call('set',KEYS[2],old or ARGV[1]) return old",
    "redis.call('rpush',KEYS[1],ARGV[1],ARGV[2]) return redis.call('lrange',KEYS[1],0,-1)",
    "return redis.call('lmove',KEYS[1],KEYS[2],'left','right')",
    "redis.call('hset',KEYS[1],'a',ARGV[1]) redis.setresp(3) return redis.call('hmget',KEYS[1],'a','b')",
    "return redis.call('zadd',KEYS[1],ARGV[2],ARGV[1])",
    "redis.setresp(3) return redis.call('zrange',KEYS[1],0,-1,'withscores')",
    "return redis.call('zrange',KEYS[1],0,-1)",
    "redis.call('sadd',KEYS[1],ARGV[1]) return redis.call('sismember',KEYS[1],ARGV[2])",
    "redis.call('del',KEYS[1]) return {redis.call('exists',KEYS[1],KEYS[2]),redis.call('type',KEYS[2])}",
    "redis.call('set',KEYS[1],ARGV[1]) error('after a write')",
    "redis.call('set',KEYS[1],ARGV[1]) return redis.pcall('lpush',KEYS[1],1)",
    "return redis.call('rename',KEYS[1],KEYS[2])",
    "return redis.call('expire',KEYS[1],ARGV[2])",
    "return cjson.encode({KEYS[1],ARGV[2]})",
    "#!lua flags=no-writes\nreturn redis.call('strlen',KEYS[1])",
    "#!lua flags=no-writes\nreturn redis.call('append',KEYS[1],ARGV[1])",
    "return tonumber(ARGV[2])",
    "return {redis.pcall('incrby',KEYS[1],ARGV[2]),redis.pcall('getrange',KEYS[1],0,3)}",
];

/// Scripts that run the command they are told.
const CALLS: &[&str] = &[
    "return redis.call(unpack(ARGV))",
    "return redis.call(unpack(ARGV))",
    "return redis.pcall(unpack(ARGV))",
    "redis.setresp(3) return redis.call(unpack(ARGV))",
    "local reply=redis.pcall(unpack(ARGV)) if type(reply)=='table' then return {#reply,reply.ok,reply.err} end return reply",
    "redis.call('incr','n') return redis.call(unpack(ARGV))",
    "redis.pcall(unpack(ARGV)) return redis.pcall(unpack(ARGV))",
];

/// Calls of one pipeline at most.
const CALLS_MAX: usize = 6;

impl Generator {
    /// Some calls that scripts make.
    pub(super) fn scripted(&mut self, atoms: &mut Vec<Atom>) {
        let connection = self.rng.below(2);
        for at in 0..1 + self.rng.below(CALLS_MAX) {
            let queued = *self.rng.pick(QUEUED);
            let called = self.expand(queued);
            let name = if self.rng.chance(85) { "EVAL" } else { "EVAL_RO" };
            let head = [name, *self.rng.pick(CALLS), "0"].map(|word| word.as_bytes().to_vec());
            let command = head.into_iter().chain(called).collect();
            atoms.push(Atom { connection, joined: at > 0, action: Action::Send(command) });
        }
    }
}
