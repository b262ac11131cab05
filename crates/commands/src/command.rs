//! The vocabulary of the command table. Six const constructors make its rows; the READ and WRITE
//! flags come from the constructor and the handler's type with them, so a row cannot lie.

use bytes::Bytes;
use wire::resp::Reply;

use crate::args::Args;
use crate::error::CommandError;
use crate::txn::Txn;
use crate::view::View;
use crate::wait::WaitHandler;

/// A handler that only reads.
pub type ReadHandler = fn(&dyn View, Args<'_>) -> Result<Reply, CommandError>;
/// A handler that may write.
pub type WriteHandler = fn(&mut Txn<'_>, Args<'_>) -> Result<Reply, CommandError>;
/// A handler for several lines of a command that write to the same key: what comes of them is what would
/// come of one after the other, but what they share, a collection's header, say, is read and written
/// once. It answers the first of them, as many as it likes; none if the first is for the command's other handler.
///
/// *Errors*: one of them is to be refused. What is in the transaction is of no use then.
pub type ManyHandler = fn(&mut Txn<'_>, &[Args<'_>]) -> Result<Vec<Ran>, CommandError>;

/// What one of several lines came to.
#[derive(Debug)]
pub struct Ran {
    /// Its reply.
    pub reply: Reply,
    /// Whether it wrote something.
    pub wrote: bool,
}

/// A row of the command table.
#[derive(Debug)]
pub struct Command {
    /// Upper case; a subcommand's name stands alone (`GETNAME`, not `CLIENT|GETNAME`).
    pub name: &'static str,
    /// How many arguments, the name included.
    pub arity: Arity,
    /// Redis's command flags.
    pub flags: Flags,
    /// Where the keys stand.
    pub keys: Keys,
    /// What runs it.
    pub run: Run,
    /// What it waits for if its handler found nothing, which is to say answered a null; see
    /// [`crate::wait`].
    pub waits: Option<WaitHandler>,
    /// Where an element of the collection whose key is the first argument is named, if one is. A hint of
    /// what will be looked up ([`crate::element_row`]): options may have moved it.
    pub element: Option<u16>,
    /// What runs several lines of it on one key, if that is less work than one after the other.
    pub many: Option<ManyHandler>,
}

impl Command {
    /// The same command, which names an element at this position.
    pub(crate) const fn element_at(self, at: u16) -> Command {
        Command { element: Some(at), ..self }
    }

    /// The same command, of which several lines on one key may be run at once.
    pub(crate) const fn or_many(self, many: ManyHandler) -> Command {
        Command { many: Some(many), ..self }
    }

    /// The same command, which waits if there is nothing for it yet.
    pub(crate) const fn or_waits(self, wait: WaitHandler) -> Command {
        Command { flags: self.flags.and(Flags::BLOCKING), waits: Some(wait), ..self }
    }
}

/// How many arguments a command takes, its name included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arity {
    /// Just so many.
    Exactly(u16),
    /// So many or more.
    AtLeast(u16),
}

impl Arity {
    /// Whether a command line of `count` arguments, name included, fits.
    pub const fn accepts(self, count: usize) -> bool {
        match self {
            Arity::Exactly(n) => count == n as usize,
            Arity::AtLeast(n) => count >= n as usize,
        }
    }

    /// As COMMAND INFO tells it: negative for "at least".
    pub const fn as_redis(self) -> i64 {
        match self {
            Arity::Exactly(n) => n as i64,
            Arity::AtLeast(n) => -(n as i64),
        }
    }
}

/// What runs a command.
pub enum Run {
    /// The partition's leader, on a view.
    Read(ReadHandler),
    /// The partition's leader, on a transaction.
    Write(WriteHandler),
    /// The partition's leader, in Lua (or about what runs in Lua).
    Script(Script),
    /// The router, on the session.
    Session(Session),
    /// One of these, by the second argument.
    Group(&'static [Command]),
}

impl Command {
    /// Whether a line of this command may change rows.
    pub const fn may_write(&self) -> bool {
        match self.run {
            Run::Write(_) => true,
            Run::Script(what) => !what.is_read_only(),
            Run::Read(_) | Run::Session(_) | Run::Group(_) => false,
        }
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Run::Read(_) => "Read",
            Run::Write(_) => "Write",
            Run::Script(_) => "Script",
            Run::Session(_) => "Session",
            Run::Group(_) => "Group",
        })
    }
}

/// Where a command's keys stand among its arguments (position 0 is the name).
#[derive(Clone, Copy, Debug)]
pub enum Keys {
    /// It has none.
    None,
    /// From `first` to `last` (negative: from the end), every `step`.
    Range {
        /// Position of the first key.
        first: u16,
        /// Position of the last key; negative counts from the end.
        last: i16,
        /// Distance between keys.
        step: u16,
        /// What is done with them.
        flags: KeyFlags,
    },
    /// Two keys, at positions 1 and 2, of which different things become (RENAME, COPY).
    Pair(KeyFlags, KeyFlags),
    /// A target at `target`, and from there to the end the keys that it is made of (BITOP).
    Into {
        /// Position of the target.
        target: u16,
        /// What becomes of it.
        into: KeyFlags,
        /// What is done with the others.
        from: KeyFlags,
    },
    /// A number at `at` says how many keys follow it.
    Counted {
        /// Position of the number.
        at: u16,
        /// What is done with them.
        flags: KeyFlags,
    },
    /// A number at `at` says how many pairs of a key and a value follow it (MSETEX).
    CountedPairs {
        /// Position of the number.
        at: u16,
        /// What is done with the keys.
        flags: KeyFlags,
    },
    /// Behind the word STREAMS, the first half of what is left (XREAD).
    AfterStreams {
        /// Where the word stands at the earliest.
        from: u16,
        /// What is done with the keys.
        flags: KeyFlags,
    },
    /// One at position 1, and if SORT may store, the target of the last STORE.
    Sort {
        /// Whether it may.
        stores: bool,
    },
    /// A target at `target`, and a number at `at` that says how many keys it is made of follow it.
    CountedInto {
        /// Position of the target.
        target: u16,
        /// Position of the number.
        at: u16,
        /// What becomes of the target.
        into: KeyFlags,
        /// What is done with the others.
        from: KeyFlags,
    },
    /// One key at position 1 that is read, and one that the last STORE or STOREDIST names, looked for
    /// from `from` on (GEORADIUS).
    AndStore {
        /// Where options begin.
        from: u16,
    },
    /// None, and every partition of the session's table is asked.
    Table(Gather),
    /// None, and every partition of every table is asked.
    AllTables(Gather),
    /// One at `at`, unless that is empty: then all behind the word KEYS, options that begin at `options`
    /// before it (MIGRATE).
    OneOrMany {
        /// Position of the one.
        at: u16,
        /// Where options begin.
        options: u16,
        /// What is done with the keys.
        flags: KeyFlags,
    },
    /// A function finds the positions.
    Find(fn(&[Bytes]) -> Vec<usize>, KeyFlags),
}

/// How the answers of several partitions become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gather {
    /// Integers are added (DBSIZE).
    Sum,
    /// All must be OK (FLUSHDB).
    AllOk,
    /// The partition that the cursor in argument 1 lies in answers alone (SCAN).
    Cursor,
    /// The router asks by SCAN in steps and joins the keys (KEYS), so that no partition is held long.
    KeysByScan,
    /// Partitions are asked in a random order until one has a key (RANDOMKEY).
    AnyKey,
}

/// Redis's key spec flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyFlags(pub u16);

/// Redis's command flags, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags(pub u32);

impl Flags {
    /// Whether all of `other`'s bits are set.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits.
    pub const fn and(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

#[allow(missing_docs, reason = "each is Redis's command flag of that name")]
impl Flags {
    pub const NONE: Flags = Flags(0);
    pub const WRITE: Flags = Flags(1);
    pub const READONLY: Flags = Flags(1 << 1);
    pub const DENYOOM: Flags = Flags(1 << 2);
    pub const ADMIN: Flags = Flags(1 << 3);
    pub const PUBSUB: Flags = Flags(1 << 4);
    pub const NOSCRIPT: Flags = Flags(1 << 5);
    pub const BLOCKING: Flags = Flags(1 << 6);
    pub const LOADING: Flags = Flags(1 << 7);
    pub const STALE: Flags = Flags(1 << 8);
    pub const SKIP_MONITOR: Flags = Flags(1 << 9);
    pub const SKIP_SLOWLOG: Flags = Flags(1 << 10);
    pub const ASKING: Flags = Flags(1 << 11);
    pub const FAST: Flags = Flags(1 << 12);
    pub const NO_AUTH: Flags = Flags(1 << 13);
    pub const MAY_REPLICATE: Flags = Flags(1 << 14);
    pub const NO_MULTI: Flags = Flags(1 << 15);
    pub const MOVABLEKEYS: Flags = Flags(1 << 16);
    pub const ALLOW_BUSY: Flags = Flags(1 << 17);
    pub const NO_ASYNC_LOADING: Flags = Flags(1 << 18);
    pub const NO_MANDATORY_KEYS: Flags = Flags(1 << 19);
    pub const PROTECTED: Flags = Flags(1 << 20);
    /// Not Redis's: belongs to the ACL category `dangerous` although not ADMIN.
    pub const DANGEROUS: Flags = Flags(1 << 21);
    /// Not Redis's: belongs to the ACL categories `admin` and `dangerous` although not ADMIN.
    pub const ADMIN_CATEGORY: Flags = Flags(1 << 22);
}

#[allow(missing_docs, reason = "each is Redis's key spec flag of that name")]
impl KeyFlags {
    pub const RO: KeyFlags = KeyFlags(1);
    pub const RW: KeyFlags = KeyFlags(1 << 1);
    pub const OW: KeyFlags = KeyFlags(1 << 2);
    pub const RM: KeyFlags = KeyFlags(1 << 3);
    pub const ACCESS: KeyFlags = KeyFlags(1 << 4);
    pub const UPDATE: KeyFlags = KeyFlags(1 << 5);
    pub const INSERT: KeyFlags = KeyFlags(1 << 6);
    pub const DELETE: KeyFlags = KeyFlags(1 << 7);
    pub const NOT_KEY: KeyFlags = KeyFlags(1 << 8);
    pub const INCOMPLETE: KeyFlags = KeyFlags(1 << 9);
    pub const VARIABLE_FLAGS: KeyFlags = KeyFlags(1 << 10);
}

impl std::ops::BitOr for KeyFlags {
    type Output = KeyFlags;

    fn bitor(self, other: KeyFlags) -> KeyFlags {
        KeyFlags(self.0 | other.0)
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        self.and(other)
    }
}

/// The commands that a leader runs with a Lua state: this crate only names them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "each is the command of that name")]
pub enum Script {
    Eval,
    EvalRo,
    EvalSha,
    EvalShaRo,
    Fcall,
    FcallRo,
    FunctionLoad,
    FunctionList,
    FunctionDelete,
    FunctionDump,
    FunctionRestore,
    FunctionFlush,
}

impl Script {
    /// Whether it must not write, whatever the script wants.
    pub const fn is_read_only(self) -> bool {
        use Script::{EvalRo, EvalShaRo, FcallRo, FunctionDump, FunctionList};
        matches!(self, EvalRo | EvalShaRo | FcallRo | FunctionList | FunctionDump)
    }

    /// Whether it is about the functions themselves, which are in the system's own table.
    pub const fn is_about_functions(self) -> bool {
        use Script::{
            FunctionDelete, FunctionDump, FunctionFlush, FunctionList, FunctionLoad,
            FunctionRestore,
        };
        matches!(
            self,
            FunctionLoad
                | FunctionList
                | FunctionDelete
                | FunctionDump
                | FunctionRestore
                | FunctionFlush
        )
    }
}

/// The commands that the router runs itself, on the session or the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is the command of that name")]
pub enum Session {
    Ping,
    Echo,
    Hello,
    Auth,
    Select,
    Quit,
    Reset,
    Copy,
    Wait,
    Waitaof,
    Time,
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    Shutdown,
    Swapdb,
    Migrate,
    Monitor,
    Subscribe,
    Unsubscribe,
    Psubscribe,
    Punsubscribe,
    Ssubscribe,
    Sunsubscribe,
    Publish,
    Spublish,
    PubsubChannels,
    PubsubNumsub,
    PubsubNumpat,
    PubsubShardchannels,
    PubsubShardnumsub,
    PubsubHelp,
    ClientId,
    ClientInfo,
    ClientList,
    ClientSetname,
    ClientGetname,
    ClientSetinfo,
    ClientKill,
    ClientReply,
    ClientPause,
    ClientUnpause,
    ClientUnblock,
    ClientGetredir,
    ClientTracking,
    ClientCaching,
    ClientTrackinginfo,
    ClientNoEvict,
    ClientNoTouch,
    ClientCapa,
    ClientMaintNotifications,
    ClientHelp,
    Info,
    CommandAll,
    CommandCount,
    CommandDocs,
    CommandInfo,
    CommandList,
    CommandGetkeys,
    CommandGetkeysandflags,
    CommandHelp,
    ConfigGet,
    ConfigSet,
    ConfigResetstat,
    ConfigRewrite,
    ConfigHelp,
    SlowlogGet,
    SlowlogLen,
    SlowlogReset,
    SlowlogHelp,
    LatencyLatest,
    LatencyHistory,
    LatencyReset,
    LatencyHistogram,
    LatencyGraph,
    LatencyDoctor,
    LatencyHelp,
    ObjectHelp,
    PfSelftest,
    XgroupHelp,
    XinfoHelp,
    MemoryDoctor,
    MemoryStats,
    MemoryHelp,
    ScriptLoad,
    ScriptExists,
    ScriptFlush,
    ScriptKill,
    ScriptDebug,
    ScriptHelp,
    FunctionStats,
    FunctionKill,
    FunctionHelp,
    MemoryMallocStats,
    MemoryPurge,
    Debug,
    Lolwut,
    AclCat,
    AclDeluser,
    AclDryrun,
    AclGenpass,
    AclGetuser,
    AclList,
    AclLoad,
    AclLog,
    AclSave,
    AclSetuser,
    AclUsers,
    AclWhoami,
    AclHelp,
    ClusterChange,
    ClusterCountkeysinslot,
    ClusterFailureReports,
    ClusterGetkeysinslot,
    ClusterInfo,
    ClusterKeyslot,
    ClusterLinks,
    /// READONLY, READWRITE and ASKING.
    ClusterMode,
    ClusterMyid,
    ClusterNodes,
    ClusterReplicas,
    ClusterShards,
    ClusterSlots,
    ClusterHelp,
    Lastsave,
    ModuleList,
    ModuleHelp,
    /// Refused: there are no modules.
    NoModules,
    /// Refused: there is no replication stream.
    NoReplication,
    /// Refused: there are no snapshots.
    NoSnapshots,
    Bgrewriteaof,
    Replicaof,
    Role,
    AdminStatus,
    AdminPartitions,
    AdminCacheFlush,
    AdminFault,
    AdminReplica,
    AdminTransfer,
    AdminHelp,
}

/// A command that only reads.
pub(crate) const fn read(
    name: &'static str,
    arity: Arity,
    flags: Flags,
    keys: Keys,
    handler: ReadHandler,
) -> Command {
    plain(name, arity, flags.and(Flags::READONLY), keys, Run::Read(handler))
}

/// A command that may write.
pub(crate) const fn write(
    name: &'static str,
    arity: Arity,
    flags: Flags,
    keys: Keys,
    handler: WriteHandler,
) -> Command {
    plain(name, arity, flags.and(Flags::WRITE), keys, Run::Write(handler))
}

/// A command that a leader runs with a Lua state.
pub(crate) const fn script(
    name: &'static str,
    arity: Arity,
    flags: Flags,
    keys: Keys,
    what: Script,
) -> Command {
    plain(name, arity, flags, keys, Run::Script(what))
}

/// A command that the router runs.
pub(crate) const fn session(
    name: &'static str,
    arity: Arity,
    flags: Flags,
    keys: Keys,
    what: Session,
) -> Command {
    plain(name, arity, flags, keys, Run::Session(what))
}

/// A command with subcommands.
pub(crate) const fn group(
    name: &'static str,
    arity: Arity,
    flags: Flags,
    rows: &'static [Command],
) -> Command {
    plain(name, arity, flags, Keys::None, Run::Group(rows))
}

const fn plain(name: &'static str, arity: Arity, flags: Flags, keys: Keys, run: Run) -> Command {
    Command { name, arity, flags, keys, run, waits: None, element: None, many: None }
}

/// `exactly(2)`: a name and one argument.
pub(crate) const fn exactly(n: u16) -> Arity {
    Arity::Exactly(n)
}

/// `at_least(2)`: a name and one argument or more.
pub(crate) const fn at_least(n: u16) -> Arity {
    Arity::AtLeast(n)
}

/// One key at a position.
pub(crate) const fn key(at: u16, flags: KeyFlags) -> Keys {
    Keys::Range { first: at, last: at as i16, step: 1, flags }
}

/// Keys from a position to the end, every `step`.
pub(crate) const fn keys_from(first: u16, step: u16, flags: KeyFlags) -> Keys {
    Keys::Range { first, last: -1, step, flags }
}
