//! Runs sequences on both servers and compares.
//!
//! Behind every pipeline the runner sends `CLIENT REPLY ON` and an ECHO of a marker, and reads
//! replies until the marker or the end of the connection: so it need not know how many replies a
//! command has. To say *which* command a reply belongs to it models CLIENT REPLY, the only thing
//! that suppresses replies.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::differences::{self, Exchange, Ledger};
use super::generate::is;
use super::{Action, Atom, Command, DATABASES, KEYS, script_line};
use crate::resp::{Client, Reply, Value, encode, show};

/// The pause after a command that gives a key at most 5 ms to live.
const EXPIRY_PAUSE: Duration = Duration::from_millis(12);
/// A server that counts expired keys longer than this is wrong, and how often it is asked.
const EXPIRED_COUNT_MAX: Duration = Duration::from_secs(2);
const EXPIRED_POLL: Duration = Duration::from_millis(2);
/// As many databases as Redis has by default.
const DATABASE_COUNT: usize = 16;
/// A SCAN that needs more calls than this does not end.
const SCAN_CALLS_MAX: usize = 10_000;
/// What is set back before each sequence, as it would outlive FLUSHALL.
const RESETS: &[&str] = &[
    "CONFIG SET slowlog-log-slower-than 10000",
    "CONFIG SET slowlog-max-len 128",
    "CONFIG SET latency-monitor-threshold 0",
    "SLOWLOG RESET",
    "LATENCY RESET",
    "CLIENT UNPAUSE",
    "FLUSHALL",
];

/// Where two servers differ.
#[derive(Clone, Debug)]
pub struct Divergence {
    /// Index of the atom; the sequence's length if its audit found it.
    pub atom: usize,
    /// The command.
    pub command: String,
    /// What Redis said.
    pub reference: String,
    /// What the server under test said.
    pub target: String,
}

/// Changes a command on its way to the server under test: plants a difference.
pub type Tamper = fn(&mut Command);

/// One server and the connections to it.
struct Seat {
    port: u16,
    control: Client,
    connections: [Option<Client>; 2],
}

/// How a pipeline ended on one server.
#[derive(PartialEq, Debug)]
enum End {
    Marker,
    Closed,
    Broken(String),
}

/// Runs sequences.
pub struct Runner {
    reference: Seat,
    target: Seat,
    tamper: Option<Tamper>,
    /// Whether the present sequence has a COPY to another database.
    copies_across: bool,
    /// Whether the servers have parted in the present sequence.
    parted: bool,
    /// Commands sent so far.
    pub commands: usize,
    /// How often each listed difference was needed.
    pub ledger: Ledger,
}

impl Runner {
    /// A runner for the servers on these ports, which it owns from now on.
    pub fn new(reference: u16, target: u16) -> Result<Runner> {
        Ok(Runner {
            reference: Seat::new(reference)?,
            target: Seat::new(target)?,
            tamper: None,
            copies_across: false,
            parted: false,
            commands: 0,
            ledger: Ledger::default(),
        })
    }

    /// Plants a difference, to see that it is found.
    pub fn plant(&mut self, tamper: Tamper) {
        self.tamper = Some(tamper);
    }

    /// Runs a sequence on empty servers; the first divergence, if there is one.
    ///
    /// *Errors* when a server cannot be reached at all.
    pub fn run(&mut self, atoms: &[Atom]) -> Result<Option<Divergence>> {
        self.reference.reset().context("reset Redis")?;
        self.target.reset().context("reset the server under test")?;
        self.parted = false;
        self.copies_across = atoms.iter().any(copies_across);
        let mut at = 0;
        while at < atoms.len() {
            let group = at + 1 + joined_after(&atoms[at..]);
            let found = match &atoms[at].action {
                Action::Send(_) => self.pipeline(&atoms[at..group])?,
                Action::Expire(_) => {
                    let found = self.pipeline(&atoms[at..group])?;
                    std::thread::sleep(EXPIRY_PAUSE);
                    found
                }
                Action::ScanAll(options) => self.scan_all(atoms[at].connection, options)?,
                Action::RandomKey => self.random_key(atoms[at].connection)?,
            };
            if let Some((offset, mut divergence)) = found {
                divergence.atom = at + offset;
                return Ok(Some(divergence));
            }
            if self.parted {
                return Ok(None);
            }
            at = group;
        }
        let found = self.audit()?;
        Ok(found.map(|divergence| Divergence { atom: atoms.len(), ..divergence }))
    }

    /// Sends the atoms' commands together on their connection.
    fn pipeline(&mut self, atoms: &[Atom]) -> Result<Option<(usize, Divergence)>> {
        let connection = atoms[0].connection;
        let commands: Vec<&Command> = atoms
            .iter()
            .filter_map(|atom| match &atom.action {
                Action::Send(command) | Action::Expire(command) => Some(command),
                _ => None,
            })
            .collect();
        self.commands += commands.len();
        if ["DBSIZE", "INFO"].iter().any(|name| is(commands[0], name)) {
            self.reference.meet_expired()?;
            self.target.meet_expired()?;
        }
        let answered = answered(&commands);
        let ping = vec![b"PING".to_vec()];
        let commands = without_silent_quit(&commands, &answered, &ping);
        self.reference.send(connection, &commands, None)?;
        self.target.send(connection, &commands, self.tamper)?;
        let (expected, expected_end) = self.reference.receive(connection);
        let (replies, end) = self.target.receive(connection);
        for (index, pair) in expected.iter().zip(&replies).enumerate() {
            let at = *answered.get(index).unwrap_or(&(commands.len() - 1));
            let exchange = Exchange {
                command: commands[at],
                reference: pair.0,
                target: pair.1,
                copies_across: self.copies_across,
            };
            if !self.ledger.same(&exchange) {
                return Ok(Some((at, divergence(&exchange))));
            }
            if Ledger::parts(&exchange) {
                self.parted = true;
                return Ok(None);
            }
        }
        if expected.len() != replies.len() || expected_end != end {
            let at = *answered.get(expected.len().min(replies.len())).unwrap_or(&0);
            let text = |replies: &[Reply], end| format!("{} replies, then {end:?}", replies.len());
            return Ok(Some((
                at,
                Divergence {
                    atom: 0,
                    command: script_line(commands[at]),
                    reference: text(&expected, expected_end),
                    target: text(&replies, end),
                },
            )));
        }
        Ok(None)
    }

    fn scan_all(
        &mut self,
        connection: usize,
        options: &Command,
    ) -> Result<Option<(usize, Divergence)>> {
        let expected = self.reference.scan(connection, options)?;
        let got = self.target.scan(connection, options)?;
        Ok((expected != got).then(|| {
            let text = |keys: &BTreeSet<Vec<u8>>| {
                keys.iter().map(|key| show(key)).collect::<Vec<_>>().join(", ")
            };
            let command = format!("SCAN … {}", script_line(options));
            (0, Divergence { atom: 0, command, reference: text(&expected), target: text(&got) })
        }))
    }

    fn random_key(&mut self, connection: usize) -> Result<Option<(usize, Divergence)>> {
        let keys = self.reference.scan(connection, &Vec::new())?;
        let reply = self.target.open(connection)?.line("RANDOMKEY")?;
        let right = match reply.text() {
            Some(key) => keys.contains(key),
            None => keys.is_empty() && reply == Value::Nil,
        };
        Ok((!right).then(|| {
            let reference = format!("one of {} keys", keys.len());
            let target = format!("{reply:?}");
            (0, Divergence { atom: 0, command: "RANDOMKEY".to_owned(), reference, target })
        }))
    }

    /// Reads out what the servers hold.
    fn audit(&mut self) -> Result<Option<Divergence>> {
        self.reference.meet_expired()?;
        self.target.meet_expired()?;
        let mut lines: Vec<Command> = Vec::new();
        for database in DATABASES {
            lines.push(vec![b"SELECT".to_vec(), database.as_bytes().to_vec()]);
            for key in KEYS {
                lines.push(vec![b"GET".to_vec(), key.to_vec()]);
                lines.push(vec![b"HGETALL".to_vec(), key.to_vec()]);
                let elements: [&[u8]; 4] = [b"LRANGE", key, b"0", b"-1"];
                lines.push(elements.map(<[u8]>::to_vec).to_vec());
                let scored: [&[u8]; 5] = [b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"];
                lines.push(scored.map(<[u8]>::to_vec).to_vec());
                lines.push(vec![b"PTTL".to_vec(), key.to_vec()]);
                lines.push(vec![b"OBJECT".to_vec(), b"ENCODING".to_vec(), key.to_vec()]);
            }
            lines.push(vec![b"KEYS".to_vec(), b"*".to_vec()]);
            lines.push(vec![b"DBSIZE".to_vec()]);
        }
        let mut bytes = Vec::new();
        lines.iter().for_each(|line| encode(line, &mut bytes));
        self.reference.control.send_raw(&bytes)?;
        self.target.control.send_raw(&bytes)?;
        let mut found = None;
        let mut database = String::new();
        for line in &lines {
            let reference = self.reference.control.read()?.context("Redis closed")?;
            let target = self.target.control.read()?.context("the server under test closed")?;
            if is(line, "SELECT") {
                database = script_line(line);
            }
            let exchange = Exchange {
                command: line,
                reference: &reference,
                target: &target,
                copies_across: self.copies_across,
            };
            if found.is_none() && !self.ledger.same(&exchange) {
                let divergence = divergence(&exchange);
                let command = format!("{} (after {database})", divergence.command);
                found = Some(Divergence { command, ..divergence });
            }
        }
        Ok(found)
    }
}

fn copies_across(atom: &Atom) -> bool {
    let Action::Send(command) = &atom.action else { return false };
    let to_a_database = || command.iter().skip(3).any(|arg| arg.eq_ignore_ascii_case(b"DB"));
    is(command, "MOVE") || is(command, "COPY") && to_a_database()
}

/// How many atoms after the first go out in the same write.
fn joined_after(atoms: &[Atom]) -> usize {
    let sends = |atom: &Atom| matches!(atom.action, Action::Send(_));
    if !sends(&atoms[0]) {
        return 0;
    }
    atoms[1..]
        .iter()
        .take_while(|atom| atom.joined && sends(atom) && atom.connection == atoms[0].connection)
        .count()
}

fn divergence(exchange: &Exchange<'_>) -> Divergence {
    Divergence {
        atom: 0,
        command: script_line(exchange.command),
        reference: show(&exchange.reference.raw),
        target: show(&exchange.target.raw),
    }
}

/// The commands, with a PING for each QUIT whose reply is suppressed: Redis never closes then, as it
/// waits for the reply to be written.
fn without_silent_quit<'a>(
    commands: &[&'a Command],
    answered: &[usize],
    ping: &'a Command,
) -> Vec<&'a Command> {
    let silent_quit = |at: usize, command: &Command| is(command, "QUIT") && !answered.contains(&at);
    let replaced = commands.iter().enumerate();
    replaced.map(|(at, command)| if silent_quit(at, command) { ping } else { *command }).collect()
}

/// The indexes of the commands that have a reply, when sent on a connection that replies.
fn answered(commands: &[&Command]) -> Vec<usize> {
    enum Mode {
        On,
        Off,
        SkipNext,
    }
    let mut mode = Mode::On;
    let mut indexes = Vec::new();
    for (index, command) in commands.iter().enumerate() {
        let reply_mode = differences::named(command, "CLIENT REPLY") && command.len() == 3;
        let wanted = if reply_mode { command[2].to_ascii_uppercase() } else { Vec::new() };
        match (wanted.as_slice(), &mode) {
            (b"ON", _) => {
                mode = Mode::On;
                indexes.push(index);
            }
            (b"OFF", _) => mode = Mode::Off,
            (b"SKIP", Mode::On | Mode::SkipNext) => mode = Mode::SkipNext,
            (_, Mode::SkipNext) => mode = Mode::On,
            (_, Mode::Off) if is(command, "RESET") && command.len() == 1 => {
                mode = Mode::On;
                indexes.push(index);
            }
            (_, Mode::Off) => {}
            (_, Mode::On) => indexes.push(index),
        }
    }
    indexes
}

const MARKER: &[u8] = b"--- end of pipeline ---";

impl Seat {
    fn new(port: u16) -> Result<Seat> {
        Ok(Seat { port, control: Client::connect(port)?, connections: [None, None] })
    }

    /// An empty server and new connections.
    fn reset(&mut self) -> Result<()> {
        self.connections = [None, None];
        for line in RESETS {
            self.control.line(line)?;
        }
        Ok(())
    }

    /// The connection; the second one speaks RESP3 at first.
    fn open(&mut self, connection: usize) -> Result<&mut Client> {
        let slot = &mut self.connections[connection];
        if slot.is_none() {
            let mut client = Client::connect(self.port)?;
            if connection == 1 {
                let reply = client.line("HELLO 3")?;
                ensure!(!reply.is_error(), "HELLO 3: {reply:?}");
            }
            *slot = Some(client);
        }
        slot.as_mut().context("just opened")
    }

    /// Waits until expired keys are not counted any more: Redis deletes one when a command meets it,
    /// Evenkeel's leaders delete what is due in the background, and DBSIZE and INFO count it until
    /// then. A server that never stops counting is left to the comparison that follows.
    fn meet_expired(&mut self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < EXPIRED_COUNT_MAX && self.counts_expired()? {
            std::thread::sleep(EXPIRED_POLL);
        }
        Ok(())
    }

    /// Meets all keys; whether a database counts more than it then shows.
    fn counts_expired(&mut self) -> Result<bool> {
        let mut exists: Vec<&[u8]> = vec![b"EXISTS"];
        exists.extend(KEYS);
        let mut bytes = Vec::new();
        for database in 0..DATABASE_COUNT {
            encode(&["SELECT", &database.to_string()], &mut bytes);
            encode(&exists, &mut bytes);
            encode(&["KEYS", "*"], &mut bytes);
            encode(&["DBSIZE"], &mut bytes);
        }
        self.control.send_raw(&bytes)?;
        let mut more = false;
        for _ in 0..DATABASE_COUNT {
            let mut replies = Vec::new();
            for _ in 0..4 {
                replies.push(self.control.read()?.context("closed")?.value);
            }
            let shown = replies[2].items().map_or(0, <[Value]>::len);
            more |= matches!(replies[3], Value::Int(count) if count != shown as i64);
        }
        Ok(more)
    }

    fn send(
        &mut self,
        connection: usize,
        commands: &[&Command],
        tamper: Option<Tamper>,
    ) -> Result<()> {
        let mut bytes = Vec::new();
        for command in commands {
            let mut command = (*command).clone();
            if let Some(tamper) = tamper {
                tamper(&mut command);
            }
            encode(&command, &mut bytes);
        }
        if commands.iter().any(|command| is(command, "MULTI")) {
            // A transaction that was cut short would queue the marker.
            encode(&["DISCARD"], &mut bytes);
        }
        encode(&[&b"CLIENT"[..], b"REPLY", b"ON"], &mut bytes);
        encode(&[b"ECHO", MARKER], &mut bytes);
        self.open(connection)?.send_raw(&bytes)
    }

    /// The replies to a pipeline, without those to the runner's own two commands.
    fn receive(&mut self, connection: usize) -> (Vec<Reply>, End) {
        let mut replies: Vec<Reply> = Vec::new();
        let Some(client) = self.connections[connection].as_mut() else {
            return (replies, End::Broken("not connected".to_owned()));
        };
        let end = loop {
            match client.read() {
                Ok(Some(reply)) if reply.value == Value::Bulk(MARKER.to_vec()) => {
                    replies.pop();
                    break End::Marker;
                }
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break End::Closed,
                Err(error) => break End::Broken(format!("{error:#}")),
            }
        };
        if end != End::Marker {
            self.connections[connection] = None;
        }
        (replies, end)
    }

    /// All keys that SCAN gives with these options.
    fn scan(&mut self, connection: usize, options: &Command) -> Result<BTreeSet<Vec<u8>>> {
        let mut keys = BTreeSet::new();
        let mut cursor = b"0".to_vec();
        for _ in 0..SCAN_CALLS_MAX {
            let mut command = vec![b"SCAN".to_vec(), cursor];
            command.extend(options.iter().cloned());
            let reply = self.open(connection)?.call(&command)?;
            let (next, found) = match reply.items() {
                Some([next, found]) => (next.text(), found.items()),
                _ => (None, None),
            };
            let (Some(next), Some(found)) = (next, found) else {
                anyhow::bail!("SCAN answered {reply:?}");
            };
            keys.extend(found.iter().filter_map(|key| key.text().map(<[u8]>::to_vec)));
            if next == b"0" {
                return Ok(keys);
            }
            cursor = next.to_vec();
        }
        anyhow::bail!("SCAN has not ended after {SCAN_CALLS_MAX} calls")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Command {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn suppressed_replies_are_known() {
        let lines = [
            "GET a",
            "CLIENT REPLY SKIP",
            "GET b",
            "GET c",
            "client reply off",
            "GET d",
            "CLIENT REPLY maybe",
            "CLIENT REPLY ON",
            "GET e",
            "CLIENT REPLY OFF",
            "RESET",
        ];
        let commands: Vec<Command> = lines.iter().map(|line| command(line)).collect();
        let commands: Vec<&Command> = commands.iter().collect();
        assert_eq!(answered(&commands), [0, 3, 7, 8, 10]);
    }
}
