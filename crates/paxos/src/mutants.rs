//! Bugs put in on purpose, to show that the simulator sees them. Only with the feature `mutants`;
//! without it `mutant!(Name)` is the constant `false` and this module is not there.
//!
//! A bug is switched on for the thread that runs the cluster, so that sweeps of several bugs run
//! side by side.

use std::cell::Cell;

macro_rules! mutants {
    ($($name:ident: $text:literal,)*) => {
        /// A bug by its name.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Mutant {
            $(#[doc = $text] $name,)*
        }

        impl Mutant {
            /// All there are.
            pub const ALL: &[Mutant] = &[$(Mutant::$name,)*];

            /// What is wrong with it, in one line.
            pub const fn text(self) -> &'static str {
                match self { $(Mutant::$name => $text,)* }
            }
        }
    };
}

mutants! {
    AcceptKeepsPromise: "accepting a value does not raise the promise",
    RestartForgetsPromise: "a restarted acceptor forgets what it promised",
    PromiseLowered: "a lower ballot is promised after a higher one",
    PromiseBeforeDurable: "a promise is sent before it is durable",
    AcceptedBeforeDurable: "an acceptance is sent before it is durable",
    OwnVoteBeforeDurable: "a leader counts its own acceptance before it is durable",
    PromiseInPart: "a candidate counts a promise before it has all of it",
    CompletionByIndex: "acceptances are matched by index, whatever their ballot",
    CommitOutOfOrder: "what is chosen is committed past a gap",
    CommitWithoutQuorum: "one acceptance is a quorum",
    SameBallotAgain: "a node campaigns with a ballot it has used",
    InheritNothing: "a new leader proposes no-ops where promises held values",
    InheritOldest: "of two accepted values the one of the lower ballot is kept",
    InheritMoved: "inherited values are proposed without the gaps between them",
    NoOwnNoop: "a new leader proposes no no-op of its own",
    ServeFromFirstInherited: "a new leader serves once the first inherited entry is chosen",
    ServeWithoutLease: "a leader serves without asking for its lease",
    LeaseFromReceipt: "the lease counts from the receipt of an answer",
    LeaseWithoutMargin: "a leader holds its lease as long as followers do",
    LeaseFromOne: "one answer renews the lease",
    CommitUnderOldLease: "a new leader commits while a forgotten lease runs",
    LeaseHidden: "a promise hides the lease given to another",
    RestartForgetsLease: "a restarted acceptor forgets the lease it gave",
    BackedDeposed: "an acceptor promises though it backs a leader",
    WithdrawnEarly: "support is withdrawn before its time",
    WithdrawnReturns: "support that was withdrawn is extended",
    LifeReturns: "a node that starts again has the life it had",
    LearnAnyBallot: "a follower takes what it accepted in any ballot for chosen",
    MarkAnnounced: "the chosen mark covers what is not known to be chosen",
    EvictNotDurable: "entries leave memory before they are durable",
    FlushPastLog: "the state machine is durable beyond its log",
    TruncatePastSlowest: "entries are dropped that a slow member still needs",
    CatchUpIgnored: "a new leader ignores what it learned during phase 1",
    LeaderStays: "a leader nobody answers stays",
    CampaignUnasked: "a follower that misses the leader campaigns without asking",
    CatchUpOnce: "a follower asks once for what it lacks",
    AcceptsNotRepeated: "a lost proposal is not sent again",
    FaultyIsAbsent: "a damaged entry counts as never accepted",
    TransferKeepsLease: "a leader that handed over serves on",
    HalfQuorum: "one of two majorities is enough while members change",
    SingleStepChange: "members change without a joint configuration",
    ChangeBeforeCatchUp: "a change ends before the new members have caught up",
    ConfigWithoutBarrier: "a leader proposes on while a configuration is not chosen",
    InheritPastConfig: "a new leader goes past a configuration it inherits",
    PromiseHidesConfig: "a promise does not tell that members have changed",
    RemovedReturns: "a removed identity may return",
    JoinedBeforeDurable: "a leader counts as caught up with what is not on its disk",
    ConfigForgotten: "a restarted member forgets that members have changed",
    LogReplicaLeads: "a log replica campaigns",
    HelpAwaitedForever: "a leader waits for ever for chosen entries from those who are gone",
}

thread_local! {
    static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Switches a bug on, or the last one off, in this thread.
pub fn activate(mutant: Option<Mutant>) {
    ACTIVE.set(mutant);
}

/// Whether a bug is on in this thread.
pub(crate) fn is_active(mutant: Mutant) -> bool {
    ACTIVE.get() == Some(mutant)
}
