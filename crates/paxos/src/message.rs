//! What members of a group say to each other, and what a replica says to its host.

use crate::config::Config;
use crate::support::{Epoch, Life};
use crate::types::{Ballot, Entry, Index, NodeId, Record, Value};

/// A message between two members of a group. Messages may be lost, repeated, delayed and
/// reordered; none may be changed (the host's frames carry a checksum).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// "I miss the leader: do you hear it?" Asked before a campaign.
    Ask {
        /// Repeated in the answer.
        question: u64,
        /// Where the newest configuration stands that the sender knows.
        config: Index,
    },
    /// The answer to [`Message::Ask`].
    Answer {
        /// The question.
        question: u64,
        /// Whether a leader was heard within the suspicion time.
        leader_alive: bool,
    },
    /// Phase 1a.
    Prepare {
        /// The candidate's ballot.
        ballot: Ballot,
        /// The ballot whose leader gave up its lease to the candidate; zero if none did.
        handed: Ballot,
        /// Where the newest configuration stands that the candidate knows.
        config: Index,
        /// What was accepted below this index was told before; zero: nothing was.
        first: Index,
    },
    /// Phase 1b: no lower ballot will be obeyed. Durable before it is sent. One that has much to tell
    /// does it in parts, each asked for by a [`Message::Prepare`]; it counts with the last of them.
    Promise {
        /// The candidate's ballot.
        ballot: Ballot,
        /// Everything up to here is chosen, and the sender has it.
        chosen: Index,
        /// Where this part begins, as the candidate asked.
        first: Index,
        /// What it accepted above `chosen`, from `first` to before `next`.
        accepted: Vec<Entry>,
        /// Where there it accepted something newer that it cannot read any more.
        faulty: Vec<(Index, Ballot)>,
        /// Where the next part begins; `None` if this is the last.
        next: Option<Index>,
        /// Microseconds for which a leader that the sender has forgotten may still hold a lease from
        /// it.
        lease_left_us: u64,
        /// The newest configuration that the sender knows to be chosen.
        config: Config,
    },
    /// Phase 2a, for several indexes.
    Accept {
        /// The leader's ballot.
        ballot: Ballot,
        /// The values, by ascending index.
        values: Vec<(Index, Value)>,
        /// Everything up to here is chosen.
        chosen: Index,
    },
    /// Phase 2b. Durable before it is sent.
    Accepted {
        /// The leader's ballot.
        ballot: Ballot,
        /// The indexes accepted.
        indexes: Vec<Index>,
    },
    /// "I lead." Sent until the answer shows that there is nothing more to tell.
    Heartbeat {
        /// The leader's ballot.
        ballot: Ballot,
        /// Everything up to here is chosen.
        chosen: Index,
        /// No member needs entries up to here.
        truncate: Index,
        /// The life of the leader's node.
        life: Life,
    },
    /// The answer to [`Message::Heartbeat`]; also sent by itself when a state machine was flushed.
    HeartbeatAck {
        /// The leader's ballot.
        ballot: Ballot,
        /// The sender's state machine holds everything up to here durably.
        flushed: Index,
        /// The sender has handed out everything up to here.
        chosen: Index,
        /// The epoch in which the sender's node supports the leader's: for as long as it does, the
        /// sender promises no other node a ballot, unless this leader gives its lease up.
        support: Option<Epoch>,
    },
    /// "A higher ballot was promised."
    Reject {
        /// That ballot.
        promised: Ballot,
    },
    /// "Send me the chosen entries from here on."
    Need {
        /// The first index missing.
        first: Index,
    },
    /// "Lead in my place": the sender has stopped leading and gives up its lease.
    TakeOver {
        /// The ballot the sender led in.
        ballot: Ballot,
        /// Everything up to here is chosen, and nothing else was proposed.
        chosen: Index,
    },
    /// "I do not lead in this ballot any more": whoever keeps a lease for it need not.
    Release {
        /// The newest ballot the sender led in.
        ballot: Ballot,
    },
    /// "What you ask for is gone": the answer to a [`Message::Need`] that only a snapshot serves.
    Truncated {
        /// What was asked for.
        first: Index,
        /// Entries up to here are gone, or a snapshot at least as new is there.
        through: Index,
        /// The newest configuration that the sender knows.
        config: Config,
    },
    /// "You know an old configuration", which may not name the receiver any more.
    Config {
        /// The newest one that the sender knows to be chosen.
        config: Config,
    },
    /// Chosen entries, by ascending index without gaps.
    Chosen {
        /// The entries.
        entries: Vec<Entry>,
    },
}

impl Message {
    /// Whether this is the proposal that another is, told by where its values lie: false may be wrong.
    /// It need be encoded only once then.
    pub fn is_copy_of(&self, other: &Message) -> bool {
        let is_shared = |one: &Value, other: &Value| match (one, other) {
            (Value::Data(one), Value::Data(other)) => {
                (one.as_ptr(), one.len()) == (other.as_ptr(), other.len())
            }
            _ => false,
        };
        let (
            Message::Accept { ballot, values, chosen },
            Message::Accept { ballot: its_ballot, values: its_values, chosen: its_chosen },
        ) = (self, other)
        else {
            return false;
        };
        (ballot, chosen, values.len()) == (its_ballot, its_chosen, its_values.len())
            && values.iter().zip(its_values).all(|((at, value), (its_at, its_value))| {
                at == its_at && is_shared(value, its_value)
            })
    }

    /// The message that brings a lagging member entries read from the log for
    /// [`Output::ReadLog`].
    pub fn chosen(entries: Vec<Entry>) -> Message {
        Message::Chosen { entries }
    }
}

/// What a replica is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Obeys a leader, or waits for one.
    Follower,
    /// Asks for promises.
    Candidate,
    /// Leads; see [`crate::Replica::may_serve`] for when it may answer.
    Leader,
}

impl Role {
    /// The role's name in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
        }
    }
}

/// What the host has to do, in this order. Everything may be done at once: the replica itself holds
/// back messages that promise what is not durable yet.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Output {
    /// Append a record to the log; call `handle_persisted` with the token once it is durable.
    Persist {
        /// Ascending within a replica.
        token: u64,
        /// What to append.
        record: Record,
    },
    /// Send a message.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Apply a chosen entry. Comes once for each index, in order, from `Recovered::applied` on.
    Commit {
        /// Where.
        index: Index,
        /// What.
        value: Value,
    },
    /// The role changed.
    RoleChanged {
        /// The new one.
        role: Role,
    },
    /// Who is in the group has changed: so far as this replica knows, at the configuration's index.
    ConfigChanged {
        /// The configuration.
        config: Config,
    },
    /// This replica is no member any more, and a majority of those who are know it: the host may drop
    /// it. Before, its promises may still be needed.
    Removed,
    /// The log that this replica needs is gone: fetch the state machine as it is at some index from
    /// another, keep the old one until it is whole, and call [`crate::Replica::installed`] or
    /// [`crate::Replica::install_failed`].
    InstallSnapshot {
        /// A storage replica that has it.
        from: NodeId,
        /// An older one would not help.
        at_least: Index,
    },
    /// Send a member the chosen entries `first..=last` (or as many of the first of them as fit one
    /// message) as [`Message::Chosen`]: only the log on disk has them. If the first cannot be read, call
    /// [`crate::Replica::log_unreadable`].
    ReadLog {
        /// To whom.
        to: NodeId,
        /// The first index.
        first: Index,
        /// The last index.
        last: Index,
    },
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn copies_of_a_proposal_share_its_values() {
        let data = Bytes::from_static(b"data");
        let proposal = |data: &Bytes, index, chosen| Message::Accept {
            ballot: Ballot::default(),
            values: vec![(Index(index), Value::Data(data.clone()))],
            chosen: Index(chosen),
        };
        let one = proposal(&data, 2, 1);
        assert!(one.is_copy_of(&one.clone()));
        assert!(!one.is_copy_of(&proposal(&data, 3, 1)));
        assert!(!one.is_copy_of(&proposal(&data, 2, 0)));
        assert!(!one.is_copy_of(&proposal(&Bytes::copy_from_slice(&data), 2, 1)));
        assert!(!one.is_copy_of(&proposal(&data.slice(..3), 2, 1)));
        assert!(!one.is_copy_of(&Message::Reject { promised: Ballot::default() }));
    }
}
