//! The differential test: generated commands go to Redis and to the server under test, and the
//! replies must be the same bytes.
//!
//! A *sequence* starts on two empty servers. Its atoms are commands on one of two connections (one
//! speaks RESP2 at first, one RESP3), pipelined as the generator joined them, and a few steps that
//! need more than one exchange: a whole SCAN, a RANDOMKEY, a pause in which keys expire. At its end the
//! contents of both servers are read out and compared, so that an effect no reply showed is found too.
//!
//! Where the servers may differ is listed in [`differences`], and only there. A sequence that
//! diverges is reduced to the few commands that matter ([`shrink`]) and printed as a script for redis-cli.

pub mod differences;
pub mod generate;
pub mod run;
pub mod scripts;
pub mod shrink;

/// One command: its name and arguments.
pub type Command = Vec<Vec<u8>>;

/// One step of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Atom {
    /// The connection, 0 or 1.
    pub connection: usize,
    /// Whether it is sent together with the atom before it.
    pub joined: bool,
    /// What is done.
    pub action: Action,
}

/// What an atom does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A command is sent.
    Send(Command),
    /// SCAN is called with these options until its cursor is 0; the key sets must be equal.
    ScanAll(Command),
    /// RANDOMKEY must give a key that exists, if there is one.
    RandomKey,
    /// A command that gives a key a few milliseconds to live is sent, and then nothing until they
    /// are over.
    Expire(Command),
}

/// The keys the generator uses: few, so that commands meet; odd ones, so that they hurt. Some
/// share a hash tag, so that multi-key commands fall on one partition as well as on several.
pub const KEYS: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"n",
    b"m",
    b"{t}1",
    b"{t}2",
    b"{t}n",
    b"user:1",
    b"user:2",
    b"",
    b"{}x",
    b"\x00\xff\r\n",
    b"sp ace",
    b"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
];

/// The databases the generator selects.
pub const DATABASES: &[&str] = &["0", "1", "15"];

/// A command as a line that redis-cli reads.
pub fn script_line(command: &[Vec<u8>]) -> String {
    let words: Vec<String> = command
        .iter()
        .map(|arg| {
            let plain = !arg.is_empty()
                && arg.iter().all(|b| b.is_ascii_alphanumeric() || b"{}:.+-_*".contains(b));
            if plain { String::from_utf8_lossy(arg).into_owned() } else { quote(arg) }
        })
        .collect();
    words.join(" ")
}

fn quote(arg: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in arg {
        match byte {
            b'\\' | b'"' => text.extend(['\\', *byte as char]),
            b' '..=b'~' => text.push(*byte as char),
            other => text.push_str(&format!("\\x{other:02x}")),
        }
    }
    text.push('"');
    text
}
