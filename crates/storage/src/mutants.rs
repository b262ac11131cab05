//! Bugs put in on purpose, to show that the simulator sees them. Only with the feature `mutants`;
//! without it `mutant!(Name)` is the constant `false` and this module is not there.
//!
//! A bug is switched on for the thread that runs the store, so that sweeps of several bugs run side by
//! side.

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
    AnsweredBeforeApplied: "a write is answered before it is chosen and applied",
    ProposedIsRead: "a read of what is not chosen yet is answered at once",
    AnyBatchWillDo: "a write counts as done though another batch was chosen at its index",
    BatchIdsReturn: "batches of another life have the same ids",
    RepliesSwapped: "the replies of a pipeline come in another order",
    ServedUnclaimed: "a waiting call is served though its caller has given up",
    AnswersWithoutLease: "a leader answers without asking for its lease",
    ExpiryByOwnClock: "expiry is compared with the node's own clock alone",
    SyncFailureIgnored: "the log goes on after a failed sync",
    ToldBeforeSynced: "records count as durable before they are",
    BlockBegunAnew: "what stands in the same block before a batch is written over",
    LogCutAtDamage: "the log ends at the first checksum that fails",
    MisreadTaken: "what is read of the log is not checked",
    RowsAheadOfLog: "rows are made durable beyond the node's log",
    RowsUnsynced: "rows take the place of the old ones before they are synced",
    OldRowsStay: "rows that a snapshot lacks stay",
    FetchUntold: "who fetches a snapshot tells nobody, so that the log behind it is let go",
    RequestsLeftBehind: "a snapshot brings nothing of what was answered",
    AnothersReply: "a request made again gets what another connection was answered",
}

thread_local! {
    static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Switches a bug on, or the last one off, in this thread.
pub fn activate(mutant: Option<Mutant>) {
    ACTIVE.set(mutant);
}

/// The bug that is on in this thread.
pub(crate) fn active() -> Option<Mutant> {
    ACTIVE.get()
}

/// Whether a bug is on in this thread.
pub(crate) fn is_active(mutant: Mutant) -> bool {
    ACTIVE.get() == Some(mutant)
}
