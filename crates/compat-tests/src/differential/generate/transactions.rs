//! Transactions: MULTI, commands and EXEC in one pipeline, some behind a WATCH and a write.
//!
//! EXEC answers all replies as one, so only commands are queued whose replies both servers give byte
//! for byte. All data is of one table: Evenkeel refuses others, and says so.

use super::{Action, Atom, Generator};

/// Commands queued at most.
const QUEUED_MAX: usize = 8;

/// What may be queued.
#[rustfmt::skip]
pub(super) const QUEUED: &[&str] = &[
    "APPEND <key> <val>", "DECRBY <key> <int>", "GET <key>", "GET <key>", "GETDEL <key>",
    "GETEX <key> [EX <ttl>|PERSIST]", "GETRANGE <key> <idx> <idx>", "GETSET <key> <val>",
    "INCR <key>", "INCRBY <key> <int>", "INCRBYFLOAT <key> <float>", "LCS <key> <key> [LEN|IDX]",
    "MGET <key>+", "MSET (<key> <val>)+", "MSETNX (<key> <val>)+",
    "SET <key> <val> [NX|XX] [GET] [EX <ttl>|KEEPTTL]", "SET <key> <val>", "SETNX <key> <val>",
    "SETRANGE <key> <offset> <val>", "STRLEN <key>", "DEL <key>+", "EXISTS <key>+", "TYPE <key>",
    "EXPIRE <key> <ttl> [NX|XX|GT|LT]", "PERSIST <key>", "RENAME <key> <key>",
    "RENAMENX <key> <key>", "COPY <key> <key> [REPLACE]", "FLUSHDB", "PING [<val>]", "ECHO <val>",
    "CLIENT SETNAME <name>", "CLIENT GETNAME", "UNWATCH", "MULTI", "WATCH <key>", "SETBIT <key> <bit> (0|1)", "BITCOUNT <key>",
    "EVAL <script> 2 <key> <key> <val> <int>", "SCRIPT EXISTS ff",
    "AUTH x", "SELECT (16|abc)", "SET <key> <val> NX XX", "INCRBY <key> abc",
];

/// What is refused at once, and aborts the whole.
const REFUSED: &[&str] = &["nosuch <val>", "GET", "SET <key>", "CLIENT nosuch"];

/// What ends it.
const ENDS: &[&str] =
    &["EXEC", "EXEC", "EXEC", "EXEC", "EXEC", "EXEC", "DISCARD", "RESET", "EXEC x"];

/// What may touch a watched key. Nothing here makes a key and takes it away again.
const TOUCHES: &[&str] = &[
    "SET <key> <val>",
    "APPEND <key> <val>",
    "DEL <key>+",
    "EXPIRE <key> <ttl>",
    "PERSIST <key>",
    "RENAME <key> <key>",
    "GET <key>",
    "FLUSHDB",
    "UNWATCH",
    "PING",
];

impl Generator {
    pub(super) fn transaction(&mut self, atoms: &mut Vec<Atom>) {
        let connection = self.rng.below(2);
        let is_watched = self.rng.chance(40);
        if is_watched {
            self.atom(atoms, connection, false, "WATCH <key>+");
            if self.rng.chance(60) {
                let toucher = self.rng.below(2);
                let touch = *self.rng.pick(TOUCHES);
                self.atom(atoms, toucher, false, touch);
            }
        }
        self.atom(atoms, connection, false, "MULTI");
        if !is_watched && self.rng.chance(15) {
            self.atom(atoms, connection, true, "SELECT (0|1|15)");
        }
        for _ in 0..self.rng.below(QUEUED_MAX + 1) {
            let queued = *self.rng.pick(QUEUED);
            self.atom(atoms, connection, true, queued);
        }
        if self.rng.chance(10) {
            let refused = *self.rng.pick(REFUSED);
            self.atom(atoms, connection, true, refused);
        }
        let end = *self.rng.pick(ENDS);
        self.atom(atoms, connection, true, end);
    }

    fn atom(&mut self, atoms: &mut Vec<Atom>, connection: usize, joined: bool, template: &str) {
        let command = self.expand(template);
        atoms.push(Atom { connection, joined, action: Action::Send(command) });
    }
}
