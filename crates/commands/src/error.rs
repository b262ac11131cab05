//! The sole home of texts a client can see when something is refused.

mod scripts;
mod sessions;

use std::borrow::Cow;

use bytes::Bytes;
use wire::resp::Reply;

use crate::view::ViewError;

/// A refusal. Its `Display` is the line after `-`, prefix included.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The key holds another type.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// A number was expected.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// A floating-point number was expected.
    #[error("ERR value is not a valid float")]
    NotFloat,
    /// An option is unknown or misplaced.
    #[error("ERR syntax error")]
    Syntax,
    /// Too few or too many arguments for the command of this lower-case name.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(Cow<'static, str>),
    /// The command ran into an assertion: nothing of it was done.
    #[error("ERR internal error: the command was given up, and nothing was changed; see the log")]
    Panicked,
    /// The key of RENAME and its like does not exist.
    #[error("ERR no such key")]
    NoSuchKey,
    /// An integer would leave its range.
    #[error("ERR increment or decrement would overflow")]
    IncrementOverflow,
    /// DECRBY by the one number that has no negative.
    #[error("ERR decrement would overflow")]
    DecrementOverflow,
    /// INCRBYFLOAT would leave the numbers.
    #[error("ERR increment would produce NaN or Infinity")]
    IncrementNotFinite,
    /// The resulting string would be too long.
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    StringTooLong,
    /// A negative offset into a string.
    #[error("ERR offset is out of range")]
    OffsetOutOfRange,
    /// A time to live that is not positive or too far away, for the command of this lower-case
    /// name.
    #[error("ERR invalid expire time in '{0}' command")]
    InvalidExpireTime(&'static str),
    /// EXPIRE was given an option it does not know.
    #[error("ERR Unsupported option {0}")]
    UnsupportedOption(Echo),
    /// HSETEX was given an option it does not know.
    #[error("ERR unknown argument: {0}")]
    UnknownArgument(Echo),
    /// SCAN was given no cursor.
    #[error("ERR invalid cursor")]
    InvalidCursor,
    /// RESTORE met a key without REPLACE.
    #[error("BUSYKEY Target key name already exists.")]
    BusyKey,
    /// RESTORE was given something that DUMP never made.
    #[error("ERR Bad data format")]
    BadDataFormat,
    /// A place that cannot be named: longitude and latitude.
    #[error("ERR invalid longitude,latitude pair {0:.6},{1:.6}")]
    InvalidPlace(f64, f64),
    /// GEOSEARCH was given no centre, or two; the command's name as it came.
    #[error("ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {0}")]
    GeoOneCentre(Echo),
    /// GEOSEARCH was given no shape, or two; the command's name as it came.
    #[error("ERR exactly one of BYRADIUS and BYBOX can be specified for {0}")]
    GeoOneShape(Echo),
    /// A command over several sorted sets was given none; its lower-case name.
    #[error("ERR at least 1 input key is needed for '{0}' command")]
    AtLeastOneKey(&'static str),
    /// A key (or what becomes part of a row's key) is longer than a stored row can name.
    #[error("ERR key is too long: at most 65,000 bytes can be stored")]
    KeyTooLong,
    /// There is no command of this name; its name and its first arguments.
    #[error("ERR unknown command '{0}', with args beginning with: {1}")]
    UnknownCommand(Echo, Echo),
    /// A group has no subcommand of this name; the group's name in upper case.
    #[error("ERR unknown subcommand '{0}'. Try {1} HELP.")]
    UnknownSubcommand(Echo, &'static str),
    /// A subcommand that takes several forms was given none of them; its name and the group's.
    #[error("ERR unknown subcommand or wrong number of arguments for '{0}'. Try {1} HELP.")]
    SubcommandSyntax(Echo, &'static str),
    /// CONFIG SET was given a parameter that does not exist.
    #[error("ERR Unknown option or number of arguments for CONFIG SET - '{0}'")]
    ConfigUnknown(Echo),
    /// CONFIG SET was given a value that this parameter cannot have, and why.
    #[error("ERR CONFIG SET failed (possibly related to argument '{0}') - {1}")]
    ConfigRefused(&'static str, String),
    /// HELLO met an option it does not know.
    #[error("ERR Syntax error in HELLO option '{0}'")]
    HelloOption(Echo),
    /// CLIENT SETINFO met an attribute it does not know.
    #[error("ERR Unrecognized option '{0}'")]
    SetinfoOption(Echo),
    /// CLIENT SETINFO met a value with blanks or unprintable characters.
    #[error("ERR {0} cannot contain spaces, newlines or special characters.")]
    SetinfoValue(Echo),
    /// A connection of RESP2 that subscribes was given another command; its name in lower case.
    #[error(
        "ERR Can't execute '{0}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
         allowed in this context"
    )]
    Subscribed(String),
    /// CLIENT TRACKING was given a prefix that overlaps with one that it knows already.
    #[error(
        "ERR Prefix '{0}' overlaps with an existing prefix '{1}'. Prefixes for a single client must \
         not overlap."
    )]
    PrefixKnown(Echo, Echo),
    /// CLIENT TRACKING was given two prefixes that overlap.
    #[error(
        "ERR Prefix '{0}' overlaps with another provided prefix '{1}'. Prefixes for a single client \
         must not overlap."
    )]
    PrefixesOverlap(Echo, Echo),
    /// CLIENT LIST or KILL met a type of connection that does not exist.
    #[error("ERR Unknown client type '{0}'")]
    ClientType(Echo),
    /// CLIENT KILL names a user that does not exist.
    #[error("ERR No such user '{0}'")]
    NoSuchUser(Echo),
    /// LATENCY GRAPH asks for an event without samples.
    #[error("ERR No samples available for event '{0}'")]
    NoLatencySamples(Echo),
    /// PFDEBUG was given a subcommand that it does not know.
    #[error("ERR Unknown PFDEBUG subcommand '{0}'")]
    PfdebugUnknown(Echo),
    /// PFSELFTEST found something wrong.
    #[error("ERR TESTFAILED {0}")]
    SelfTestFailed(String),
    /// MIGRATE: the other server refused something, in these words.
    #[error("ERR Target instance replied with error: {0}")]
    MigrateRefused(Echo),
    /// What a user's rules refuse.
    #[error("NOPERM {0}")]
    NoPermission(Echo),
    /// The same of a command that a script runs.
    #[error("ERR ACL failure in script: {0}")]
    ScriptNoPermission(Echo),
    /// A user may no longer run a command that EXEC would run; why.
    #[error(
        "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC \
         call. This command is no longer allowed for the following reason: {0}"
    )]
    NoPermissionAtExec(&'static str),
    /// ACL SETUSER met a rule that is wrong.
    #[error("ERR Error in ACL SETUSER modifier '{0}': {1}")]
    AclModifier(Echo, AclRuleError),
    /// ACL SETUSER met a selector without an end.
    #[error("ERR Unmatched parenthesis in acl selector starting at '{0}'.")]
    AclUnmatched(Echo),
    /// ACL CAT was asked for a category that does not exist.
    #[error("ERR Unknown category '{0}'")]
    AclCategory(Echo),
    /// ACL DRYRUN names a user that does not exist.
    #[error("ERR User '{0}' not found")]
    AclNoUser(Echo),
    /// ACL DRYRUN names a command that does not exist.
    #[error("ERR Command '{0}' not found")]
    AclNoCommand(Echo),
    /// CLUSTER names a node that does not exist.
    #[error("ERR Unknown node {0}")]
    ClusterUnknownNode(Echo),
    /// There is no such stream, or no such group of it: the key and the group.
    #[error("NOGROUP No such key '{0}' or consumer group '{1}'")]
    NoGroup(Echo, Echo),
    /// The same of XREADGROUP.
    #[error("NOGROUP No such key '{0}' or consumer group '{1}' in XREADGROUP with GROUP option")]
    NoGroupToRead(Echo, Echo),
    /// The stream has no such group: the group and the key.
    #[error("NOGROUP No such consumer group '{0}' for key name '{1}'")]
    NoGroupNamed(Echo, Echo),
    /// XREAD was not given an ID for each key; the command, and what an ID may be.
    #[error("ERR Unbalanced '{0}' list of streams: for each stream key an {1} must be specified.")]
    StreamsUnbalanced(&'static str, &'static str),
    /// XCLAIM was given an option that it does not know.
    #[error("ERR Unrecognized XCLAIM option '{0}'")]
    XclaimOption(Echo),
    /// A script's shebang names another language.
    #[error("ERR Unexpected engine in script shebang: {0}")]
    ShebangEngine(Echo),
    /// A script's shebang has an option that is none.
    #[error("ERR Unknown lua shebang option: {0}")]
    ShebangOption(Echo),
    /// A script's shebang has a flag that is none.
    #[error("ERR Unexpected flag in script shebang: {0}")]
    ShebangFlag(Echo),
    /// A script is no Lua; what the compiler says.
    #[error("ERR Error compiling script (new function): {0}")]
    ScriptCompile(Echo),
    /// A library's shebang has an option that is none.
    #[error("ERR Invalid metadata value given: {0}")]
    LibraryMetadata(Echo),
    /// A library is in another language.
    #[error("ERR Engine '{0}' not found")]
    EngineUnknown(Echo),
    /// A library is no Lua; what the compiler says.
    #[error("ERR Error compiling function: {0}")]
    LibraryCompile(Echo),
    /// A library's code failed.
    #[error("ERR Error registering functions: {0}")]
    LibraryRun(Echo),
    /// FUNCTION LOAD met a library of this name.
    #[error("ERR Library '{0}' already exists")]
    LibraryExists(Echo),
    /// FUNCTION RESTORE met a library of this name.
    #[error("ERR Library {0} already exists")]
    RestoredLibraryExists(Echo),
    /// Another library has a function of this name.
    #[error("ERR Function {0} already exists")]
    FunctionExists(Echo),
    /// FUNCTION LOAD was given an option that it does not know.
    #[error("ERR Unknown option given: {0}")]
    FunctionLoadOption(Echo),
    /// FUNCTION LIST was given an option that it does not know.
    #[error("ERR Unknown argument {0}")]
    FunctionListArgument(Echo),
    /// A script calls for what a user may not do; why.
    #[error("ERR ACL failure in script: {0}")]
    ScriptPermission(String),
    /// EXEC itself was refused, and the transaction with it; why, without the prefix.
    #[error("EXECABORT Transaction discarded because of: {0}")]
    ExecRefused(String),
    /// One command, or one transaction, would change more than this many bytes of rows.
    #[error("ERR too much to write at once: at most {0} bytes of rows can be changed together")]
    TooMuchToWrite(usize),
    /// The request was not framed as RESP; the connection is closed.
    #[error("ERR Protocol error: {0}")]
    Protocol(String),
    /// Nobody could execute the command within this many milliseconds: nothing was executed.
    #[error("CLUSTERDOWN no leader with a quorum answered for the partition within {0} ms")]
    NoLeader(u64),
    /// An operator command failed; why.
    #[error("ERR {0}")]
    Operator(String),
    /// Any other fixed text, with its prefix; the constants below are such.
    #[error("{0}")]
    Text(Cow<'static, str>),
    /// A stored row could not be read.
    #[error("ERR {0}")]
    Storage(String),
}

/// What is wrong with a rule of ACL SETUSER, or of a line of the ACL file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the text says it")]
pub enum AclRuleError {
    #[error("Unknown command or category name in ACL")]
    Unknown,
    #[error("Syntax error")]
    Syntax,
    #[error(
        "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have \
         any effect. Try 'resetkeys' to start with an empty list of patterns"
    )]
    AfterAllKeys,
    #[error(
        "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not \
         have any effect. Try 'resetchannels' to start with an empty list of channels"
    )]
    AfterAllChannels,
    #[error("The password you are trying to remove from the user does not exist")]
    NoSuchPassword,
    #[error(
        "The password hash must be exactly 64 characters and contain only lowercase hexadecimal \
         characters"
    )]
    NoHash,
    #[error("Allowing first-arg of a subcommand is not supported")]
    ArgumentOfSubcommand,
}

#[allow(missing_docs, reason = "the text says it")]
impl CommandError {
    pub const KEYS_UNKNOWN: CommandError =
        CommandError::text("ERR Invalid arguments specified for command");
    pub const BIT_OFFSET: CommandError =
        CommandError::text("ERR bit offset is not an integer or out of range");
    pub const BIT_VALUE: CommandError =
        CommandError::text("ERR bit is not an integer or out of range");
    pub const BIT_WANTED: CommandError = CommandError::text("ERR The bit argument must be 1 or 0.");
    pub const BITOP_NOT: CommandError =
        CommandError::text("ERR BITOP NOT must be called with a single source key.");
    pub const BITFIELD_TYPE: CommandError = CommandError::text(
        "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but \
         i64 is.",
    );
    pub const BITFIELD_OVERFLOW: CommandError =
        CommandError::text("ERR Invalid OVERFLOW type specified");
    pub const BITFIELD_RO: CommandError =
        CommandError::text("ERR BITFIELD_RO only supports the GET subcommand");
    pub const EXPIRE_NX_CONFLICT: CommandError =
        CommandError::text("ERR NX and XX, GT or LT options at the same time are not compatible");
    pub const EXPIRE_GT_LT_CONFLICT: CommandError =
        CommandError::text("ERR GT and LT options at the same time are not compatible");
    pub const DB_OUT_OF_RANGE: CommandError = CommandError::text("ERR DB index is out of range");
    pub const INT32_RANGE: CommandError = CommandError::text(
        "ERR value is out of range, value must between -2147483648 and 2147483647",
    );
    pub const SAME_OBJECT: CommandError =
        CommandError::text("ERR source and destination objects are the same");
    pub const LCS_NOT_STRINGS: CommandError =
        CommandError::text("ERR The specified keys must contain string values");
    pub const LCS_LEN_AND_IDX: CommandError =
        CommandError::text("ERR If you want both the length and indexes, please just use IDX.");
    pub const LCS_TOO_BIG: CommandError = CommandError::text(
        "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
    );
    pub const NOT_LFU: CommandError = CommandError::text(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note \
         that when switching between policies at runtime LRU and LFU data will take some time to \
         adjust.",
    );
    pub const NOT_DUMPABLE: CommandError =
        CommandError::text("ERR DUMP does not know the type of this value");
    pub const RESTORE_TTL: CommandError = CommandError::text("ERR Invalid TTL value, must be >= 0");
    pub const RESTORE_IDLETIME: CommandError =
        CommandError::text("ERR Invalid IDLETIME value, must be >= 0");
    pub const RESTORE_FREQ: CommandError =
        CommandError::text("ERR Invalid FREQ value, must be >= 0 and <= 255");
    pub const RESTORE_CHECKSUM: CommandError =
        CommandError::text("ERR DUMP payload version or checksum are wrong");

    pub const HASH_NOT_INTEGER: CommandError =
        CommandError::text("ERR hash value is not an integer");
    pub const HASH_NOT_FLOAT: CommandError = CommandError::text("ERR hash value is not a float");
    pub const NAN_OR_INFINITY: CommandError = CommandError::text("ERR value is NaN or Infinity");
    pub const OUT_OF_RANGE: CommandError = CommandError::text("ERR value is out of range");
    pub const RANDOM_COUNT_RANGE: CommandError = CommandError::text(
        "ERR value is out of range, value must between -9223372036854775807 and \
         9223372036854775807",
    );
    pub const FIELDS_MISSING: CommandError =
        CommandError::text("ERR Mandatory argument FIELDS is missing or not at the right position");
    pub const FIELDS_NOT_POSITIVE: CommandError =
        CommandError::text("ERR Number of fields must be a positive integer");
    pub const FIELDS_NOT_ABOVE_ZERO: CommandError =
        CommandError::text("ERR Parameter `numFields` should be greater than 0");
    pub const FIELDS_INVALID: CommandError = CommandError::text("ERR invalid number of fields");
    pub const FIELDS_COUNT: CommandError =
        CommandError::text("ERR The `numfields` parameter must match the number of arguments");
    pub const FIELD_TIME_NEGATIVE: CommandError =
        CommandError::text("ERR invalid expire time, must be >= 0");
    pub const EXPIRE_TIME_MISSING: CommandError = CommandError::text("ERR missing expire time");
    pub const HSETEX_ONE_CONDITION: CommandError =
        CommandError::text("ERR Only one of FXX or FNX arguments can be specified");
    pub const HSETEX_ONE_TIME: CommandError = CommandError::text(
        "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified",
    );

    pub const SORT_NUMBER: CommandError =
        CommandError::text("ERR One or more scores can't be converted into double");
    pub const DIGEST_LENGTH: CommandError =
        CommandError::text("ERR must be exactly 16 hexadecimal characters");
    pub const DELEX_CONDITION: CommandError =
        CommandError::text("ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE");
    pub const MSETEX_NUMKEYS: CommandError = CommandError::text("ERR invalid numkeys value");
    pub const MSETEX_PAIRS: CommandError =
        CommandError::text("ERR wrong number of key-value pairs");
    pub const NOT_HLL: CommandError =
        CommandError::text("WRONGTYPE Key is not a valid HyperLogLog string value.");
    pub const CORRUPTED_HLL: CommandError =
        CommandError::text("INVALIDOBJ Corrupted HLL object detected");
    pub const PFDEBUG_NO_KEY: CommandError =
        CommandError::text("ERR The specified key does not exist");
    pub const PFDEBUG_NOT_SPARSE: CommandError =
        CommandError::text("ERR HLL encoding is not sparse");
    pub const NOT_POSITIVE: CommandError =
        CommandError::text("ERR value is out of range, must be positive");
    pub const NUMKEYS_NOT_POSITIVE: CommandError =
        CommandError::text("ERR numkeys should be greater than 0");
    pub const NUMKEYS_TOO_MANY: CommandError =
        CommandError::text("ERR Number of keys can't be greater than number of args");
    pub const LIMIT_NEGATIVE: CommandError = CommandError::text("ERR LIMIT can't be negative");

    pub const STREAM_ID: CommandError =
        CommandError::text("ERR Invalid stream ID specified as stream command argument");
    pub const RANGE_START: CommandError =
        CommandError::text("ERR invalid start ID for the interval");
    pub const RANGE_END: CommandError = CommandError::text("ERR invalid end ID for the interval");
    pub const TRIM_BOTH: CommandError = CommandError::text(
        "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
    );
    pub const MAXLEN_RANGE: CommandError =
        CommandError::text("ERR The MAXLEN argument must be >= 0.");
    pub const LIMIT_RANGE: CommandError =
        CommandError::text("ERR The LIMIT argument must be >= 0.");
    pub const LIMIT_ALONE: CommandError = CommandError::text(
        "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
    );
    pub const XTRIM_ALONE: CommandError =
        CommandError::text("ERR syntax error, XTRIM must be called with a trimming strategy");
    pub const LIMIT_EXACT: CommandError =
        CommandError::text("ERR syntax error, LIMIT cannot be used without the special ~ option");
    pub const XADD_ZERO: CommandError =
        CommandError::text("ERR The ID specified in XADD must be greater than 0-0");
    pub const XADD_EXHAUSTED: CommandError = CommandError::text(
        "ERR The stream has exhausted the last possible ID, unable to add more items",
    );
    pub const XADD_SMALL: CommandError = CommandError::text(
        "ERR The ID specified in XADD is equal or smaller than the target stream top item",
    );
    pub const ADDED_NEGATIVE: CommandError =
        CommandError::text("ERR entries_added must be positive");
    pub const XSETID_DELETED_GIVEN: CommandError = CommandError::text(
        "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
    );
    pub const XSETID_DELETED: CommandError = CommandError::text(
        "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id",
    );
    pub const XSETID_TOP: CommandError = CommandError::text(
        "ERR The ID specified in XSETID is smaller than the target stream top item",
    );
    pub const XSETID_ADDED: CommandError = CommandError::text(
        "ERR The entries_added specified in XSETID is smaller than the target stream length",
    );
    pub const GROUP_MISSING: CommandError =
        CommandError::text("ERR Missing GROUP option for XREADGROUP");
    pub const XREAD_GROUP: CommandError = CommandError::text(
        "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
    );
    pub const XREAD_NOACK: CommandError = CommandError::text(
        "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
    );
    pub const XREAD_EMPTY: CommandError =
        CommandError::text("ERR the stream last element ID is 0-0");
    pub const XREAD_NEW: CommandError = CommandError::text(
        "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> \
         <consumer> option.",
    );
    pub const READGROUP_LAST: CommandError = CommandError::text(
        "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the \
         history of this consumer by specifying a proper ID, or use the > ID to get new \
         messages. The $ ID would just return an empty result set.",
    );
    pub const READGROUP_TOP: CommandError = CommandError::text(
        "ERR The + ID is meaningless in the context of XREADGROUP: you want to read the \
         history of this consumer by specifying a proper ID, or use the > ID to get new \
         messages. The + ID would just return an empty result set.",
    );
    pub const IDS_NOT_POSITIVE: CommandError =
        CommandError::text("ERR Number of IDs must be a positive integer");
    pub const IDS_COUNT: CommandError =
        CommandError::text("ERR The `numids` parameter must match the number of arguments");
    pub const XCLAIM_IDLE_MIN: CommandError =
        CommandError::text("ERR Invalid min-idle-time argument for XCLAIM");
    pub const XCLAIM_IDLE: CommandError =
        CommandError::text("ERR Invalid IDLE option argument for XCLAIM");
    pub const XCLAIM_TIME: CommandError =
        CommandError::text("ERR Invalid TIME option argument for XCLAIM");
    pub const XCLAIM_RETRYCOUNT: CommandError =
        CommandError::text("ERR Invalid RETRYCOUNT option argument for XCLAIM");
    pub const XAUTOCLAIM_IDLE_MIN: CommandError =
        CommandError::text("ERR Invalid min-idle-time argument for XAUTOCLAIM");
    pub const ENTRIESREAD: CommandError =
        CommandError::text("ERR value for ENTRIESREAD must be positive or -1");
    pub const XGROUP_NO_KEY: CommandError = CommandError::text(
        "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may \
         want to use the MKSTREAM option to create an empty stream automatically.",
    );
    pub const BUSYGROUP: CommandError =
        CommandError::text("BUSYGROUP Consumer Group name already exists");
    pub const COUNT_NOT_POSITIVE: CommandError =
        CommandError::text("ERR count should be greater than 0");
    pub const INDEX_OUT_OF_RANGE: CommandError = CommandError::text("ERR index out of range");
    pub const LPOS_RANK: CommandError = CommandError::text(
        "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use \
         negative to start from the end of the list",
    );
    pub const LPOS_COUNT: CommandError = CommandError::text("ERR COUNT can't be negative");
    pub const SCORE_NAN: CommandError =
        CommandError::text("ERR resulting score is not a number (NaN)");
    pub const ZADD_NX_XX: CommandError =
        CommandError::text("ERR XX and NX options at the same time are not compatible");
    pub const ZADD_GT_LT_NX: CommandError =
        CommandError::text("ERR GT, LT, and/or NX options at the same time are not compatible");
    pub const ZADD_INCR_PAIR: CommandError =
        CommandError::text("ERR INCR option supports a single increment-element pair");
    pub const MIN_OR_MAX_NOT_FLOAT: CommandError =
        CommandError::text("ERR min or max is not a float");
    pub const MIN_OR_MAX_NOT_LEX: CommandError =
        CommandError::text("ERR min or max not valid string range item");
    pub const LIMIT_OF_RANKS: CommandError = CommandError::text(
        "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
    );
    pub const SCORES_BY_LEX: CommandError =
        CommandError::text("ERR syntax error, WITHSCORES not supported in combination with BYLEX");
    pub const WEIGHT_NOT_FLOAT: CommandError =
        CommandError::text("ERR weight value is not a float");
    pub const COUNT_ABOVE_ZERO: CommandError = CommandError::text("ERR COUNT must be > 0");
    pub const GEO_ANY: CommandError =
        CommandError::text("ERR the ANY argument requires COUNT argument");
    pub const GEO_MEMBER: CommandError =
        CommandError::text("ERR could not decode requested zset member");
    pub const GEO_RADIUS: CommandError = CommandError::text("ERR need numeric radius");
    pub const GEO_RADIUS_NEGATIVE: CommandError =
        CommandError::text("ERR radius cannot be negative");
    pub const GEO_WIDTH: CommandError = CommandError::text("ERR need numeric width");
    pub const GEO_HEIGHT: CommandError = CommandError::text("ERR need numeric height");
    pub const GEO_BOX_NEGATIVE: CommandError =
        CommandError::text("ERR height or width cannot be negative");
    pub const GEO_UNIT: CommandError =
        CommandError::text("ERR unsupported unit provided. please use M, KM, FT, MI");
    pub const GEOSEARCHSTORE_WITH: CommandError = CommandError::text(
        "ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD options",
    );
    pub const GEORADIUS_STORE_WITH: CommandError = CommandError::text(
        "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD \
         options",
    );
    pub const LPOS_MAXLEN: CommandError = CommandError::text("ERR MAXLEN can't be negative");

    pub const SORT_BY_DENIED: CommandError =
        CommandError::text("ERR BY option of SORT denied due to insufficient ACL permissions.");
    pub const SORT_GET_DENIED: CommandError =
        CommandError::text("ERR GET option of SORT denied due to insufficient ACL permissions.");
    pub const ACL_USERNAME: CommandError =
        CommandError::text("ERR Usernames can't contain spaces or null characters");
    pub const ACL_DEFAULT_STAYS: CommandError =
        CommandError::text("ERR The 'default' user cannot be removed");
    pub const ACL_GENPASS: CommandError = CommandError::text(
        "ERR ACL GENPASS argument must be the number of bits for the output password, a positive \
         number up to 4096",
    );
    pub const ACL_NO_FILE: CommandError = CommandError::text(
        "ERR This Redis instance is not configured to use an ACL file. You may want to specify users \
         via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis \
         configuration file set) in order to store users in the Redis configuration.",
    );
    pub const ACL_SAVE_FAILED: CommandError = CommandError::text(
        "ERR There was an error trying to save the ACLs. Please check the server logs for more \
         information",
    );
    pub const NOAUTH: CommandError = CommandError::text("NOAUTH Authentication required.");
    pub const NOAUTH_HELLO: CommandError = CommandError::text(
        "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
         <proto> AUTH <user> <pass> option can be used to authenticate the client and select the \
         RESP protocol version at the same time",
    );
    pub const NOPROTO: CommandError = CommandError::text("NOPROTO unsupported protocol version");
    pub const PROTOVER_NOT_INTEGER: CommandError =
        CommandError::text("ERR Protocol version is not an integer or out of range");
    pub const WRONGPASS: CommandError =
        CommandError::text("WRONGPASS invalid username-password pair or user is disabled.");
    pub const AUTH_WITHOUT_PASSWORD: CommandError = CommandError::text(
        "ERR AUTH <password> called without any password configured for the default user. Are you \
         sure your configuration is correct?",
    );
    pub const CLIENT_NAME: CommandError = CommandError::text(
        "ERR Client names cannot contain spaces, newlines or special characters.",
    );
    pub const CLIENT_ID: CommandError = CommandError::text("ERR Invalid client ID");
    pub const CLIENT_ID_RANGE: CommandError =
        CommandError::text("ERR client-id should be greater than 0");
    pub const MAXAGE: CommandError =
        CommandError::text("ERR maxage is not an integer or out of range");
    pub const MAXAGE_ZERO: CommandError = CommandError::text("ERR maxage should be greater than 0");
    pub const UNBLOCK_REASON: CommandError =
        CommandError::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
    pub const UNBLOCKED: CommandError =
        CommandError::text("UNBLOCKED client unblocked via CLIENT UNBLOCK");
    pub const NO_SUCH_CLIENT: CommandError = CommandError::text("ERR No such client");
    pub const MAX_CLIENTS: CommandError = CommandError::text("ERR max number of clients reached");
    pub const PAUSE_NOT_INTEGER: CommandError =
        CommandError::text("ERR timeout is not an integer or out of range");
    pub const TIMEOUT_NOT_FLOAT: CommandError =
        CommandError::text("ERR timeout is not a float or out of range");
    pub const TIMEOUT_RANGE: CommandError = CommandError::text("ERR timeout is out of range");
    pub const PAUSE_MODE: CommandError =
        CommandError::text("ERR CLIENT PAUSE mode must be WRITE or ALL");
    pub const PAUSE_NEGATIVE: CommandError = CommandError::text("ERR timeout is negative");
    pub const COUNT_NOT_INTEGER: CommandError =
        CommandError::text("ERR count should be greater than or equal to -1");
    pub const NO_CONFIG_FILE: CommandError =
        CommandError::text("ERR The server is running without a config file");
    pub const COMMAND_UNKNOWN: CommandError = CommandError::text("ERR Invalid command specified");
    pub const COMMAND_ARITY: CommandError =
        CommandError::text("ERR Invalid number of arguments specified for command");
    pub const COMMAND_NO_KEYS: CommandError =
        CommandError::text("ERR The command has no key arguments");
    pub const COMMAND_BAD_KEYS: CommandError =
        CommandError::text("ERR Invalid arguments specified for command");
    pub const NO_SHUTDOWN: CommandError = CommandError::text("ERR No shutdown in progress.");
    pub const SHUTDOWN_FAILED: CommandError =
        CommandError::text("ERR Errors trying to SHUTDOWN. Check logs.");
    pub const CROSS_PARTITION: CommandError = CommandError::text(
        "CROSSSLOT the keys lie in different partitions; give them one {tag} to use them together",
    );
    pub const MONITOR_IN_MULTI: CommandError =
        CommandError::text("ERR MONITOR isn't allowed for DENY BLOCKING client");
    pub const SSUBSCRIBE_IN_MULTI: CommandError =
        CommandError::text("ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client");
    pub const MONITORS: CommandError =
        CommandError::text("ERR Replica can't interact with the keyspace");
    pub const CACHING_UNTRACKED: CommandError = CommandError::text(
        "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT \
         mode enabled",
    );
    pub const CACHING_YES: CommandError = CommandError::text(
        "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
    );
    pub const CACHING_NO: CommandError = CommandError::text(
        "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
    );
    pub const REDIRECT_TWICE: CommandError =
        CommandError::text("ERR A client can only redirect to a single other client");
    pub const REDIRECT_TO_NOBODY: CommandError =
        CommandError::text("ERR The client ID you want redirect to does not exist");
    pub const PREFIX_WITHOUT_BCAST: CommandError =
        CommandError::text("ERR PREFIX option requires BCAST mode to be enabled");
    pub const BCAST_SWITCHED: CommandError = CommandError::text(
        "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then \
         re-enabling it with a different mode.",
    );
    pub const BCAST_WITH_OPT: CommandError =
        CommandError::text("ERR OPTIN and OPTOUT are not compatible with BCAST");
    pub const OPTIN_AND_OPTOUT: CommandError =
        CommandError::text("ERR You can't specify both OPTIN mode and OPTOUT mode");
    pub const OPT_SWITCHED: CommandError = CommandError::text(
        "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then \
         re-enabling it with a different mode.",
    );
    pub const MULTI_NESTED: CommandError = CommandError::text("ERR MULTI calls can not be nested");
    pub const EXEC_WITHOUT_MULTI: CommandError = CommandError::text("ERR EXEC without MULTI");
    pub const DISCARD_WITHOUT_MULTI: CommandError = CommandError::text("ERR DISCARD without MULTI");
    pub const WATCH_IN_MULTI: CommandError =
        CommandError::text("ERR WATCH inside MULTI is not allowed");
    pub const NOT_IN_MULTI: CommandError =
        CommandError::text("ERR Command not allowed inside a transaction");
    pub const EXEC_ABORTED: CommandError =
        CommandError::text("EXECABORT Transaction discarded because of previous errors.");
    pub const EXEC_ACROSS: CommandError = CommandError::text(
        "EXECABORT Transaction discarded because its keys lie in several tables or partitions: \
         transactions over several partitions are not supported yet",
    );
    pub const NOT_EXECUTED: CommandError =
        CommandError::text("TRYAGAIN the command was not executed: the partition's leader changed");
    pub const MOVE_CHANGING: CommandError = CommandError::text(
        "TRYAGAIN the key was not moved: it was changed again and again meanwhile",
    );
    pub const MIGRATE_KEY_AND_KEYS: CommandError = CommandError::text(
        "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
    );
    pub const MIGRATE_CONNECT: CommandError =
        CommandError::text("IOERR error or timeout connecting to the client");
    pub const MIGRATE_WRITE: CommandError =
        CommandError::text("IOERR error or timeout writing to target instance");
    pub const MIGRATE_READ: CommandError =
        CommandError::text("IOERR error or timeout reading to target instance");
    pub const MIGRATE_CHANGING: CommandError = CommandError::text(
        "TRYAGAIN the key was copied and not deleted: it was changed again and again meanwhile",
    );
    pub const MIGRATE_IN_MULTI: CommandError = CommandError::text(
        "ERR MIGRATE isn't allowed in a transaction: it waits for another server",
    );
    pub const DEBUG_RELOAD_OPTION: CommandError =
        CommandError::text("ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.");
    pub const RELOAD_OVER: CommandError =
        CommandError::text("ERR Error trying to load the RDB dump, check server logs.");
    pub const DEBUG_IN_MULTI: CommandError = CommandError::text(
        "ERR DEBUG OBJECT, RELOAD and LOADAOF aren't allowed in a transaction: they wait",
    );
    pub const SWAPDB_IN_MULTI: CommandError = CommandError::text(
        "ERR SWAPDB isn't allowed in a transaction: it is one of its own, and on all databases",
    );
    pub const SWAPDB_FIRST: CommandError = CommandError::text("ERR invalid first DB index");
    pub const SWAPDB_SECOND: CommandError = CommandError::text("ERR invalid second DB index");
    pub const UNCERTAIN: CommandError = CommandError::text(
        "UNCERTAIN the write may or may not have happened: its quorum did not answer in time",
    );
    pub const NO_SNAPSHOTS: CommandError = CommandError::text(
        "ERR there are no snapshot files and no append-only file to write: every acknowledged write \
         is on a quorum of disks already",
    );
    pub const NO_REPLICATION: CommandError = CommandError::text(
        "ERR there is no replication stream: partitions replicate themselves and elect their leaders; \
         to copy the data elsewhere use SCAN, DUMP and RESTORE",
    );
    pub const NO_REPLICAOF: CommandError = CommandError::text(
        "ERR this server cannot follow another one; to copy its data use 'evenkeel import --from \
         host:port'",
    );
    pub const NO_MODULES: CommandError = CommandError::text(
        "ERR MODULE command not allowed: there are no modules, and none can be loaded",
    );
    pub const CLUSTER_DISABLED: CommandError =
        CommandError::text("ERR This instance has cluster support disabled");
    pub const CLUSTER_CHANGE: CommandError = CommandError::text(
        "ERR slots and nodes are not changed by CLUSTER: partitions are placed, moved and healed behind \
         the routers; see ADMIN HELP and ADMIN PARTITIONS",
    );
    pub const CLUSTER_SLOT: CommandError = CommandError::text("ERR Invalid slot");
    pub const CLUSTER_KEYS: CommandError = CommandError::text("ERR Invalid slot or number of keys");
    pub const WAITAOF_LOCAL: CommandError =
        CommandError::text("ERR value is out of range, value must between 0 and 1");
    pub const DEBUG_DISABLED: CommandError = CommandError::text(
        "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you \
         can run it from a local connection, otherwise you need to set this option in the \
         configuration file, and then restart the server.",
    );
    pub const DEBUG_RESP2: CommandError =
        CommandError::text("ERR RESP2 is not supported by this command");
    pub const DEBUG_PROTOCOL: CommandError = CommandError::text(
        "ERR Wrong protocol type name. Please use one of the following: \
         string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
    );
    pub const FAULTS_DISABLED: CommandError =
        CommandError::text("ERR ADMIN FAULT is off; start the server with faults enabled");

    /// A fixed text, prefix included.
    pub const fn text(text: &'static str) -> CommandError {
        CommandError::Text(Cow::Borrowed(text))
    }
}

impl From<ViewError> for CommandError {
    fn from(error: ViewError) -> CommandError {
        CommandError::Storage(error.to_string())
    }
}

impl From<CommandError> for Reply {
    fn from(error: CommandError) -> Reply {
        let line = error.to_string();
        let byte = |c: char| u8::try_from(c).unwrap_or(b'?');
        Reply::Error(match error {
            // No client's bytes, and their own text may be of any script.
            CommandError::Storage(_) | CommandError::Operator(_) => Bytes::from(line),
            // As Redis does: a line's end at the end goes, one within becomes blanks when written.
            _ => line.trim_end_matches(['\r', '\n']).chars().map(byte).collect(),
        })
    }
}

/// What a client sent, as a refusal repeats it: up to a NUL, as C prints it, and otherwise every
/// byte, UTF-8 or not, as Redis does. Displayed, a byte is the character of its number; the line of
/// an error becomes bytes again when it becomes a [`Reply`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Echo(String);

impl Echo {
    /// The first bytes, at most so many.
    pub fn cut(bytes: &[u8], length_max: usize) -> Echo {
        let bytes = bytes.iter().take(length_max).take_while(|byte| **byte != 0);
        Echo(bytes.map(|byte| char::from(*byte)).collect())
    }

    /// All bytes.
    pub fn new(bytes: &[u8]) -> Echo {
        Echo::cut(bytes, bytes.len())
    }
}

impl std::fmt::Display for Echo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_gives_back_the_bytes() {
        let error = CommandError::NoSuchUser(Echo::new(b"\xff\xc3\xa9x\0y"));
        assert_eq!(
            Reply::from(error),
            Reply::Error(Bytes::from_static(b"ERR No such user '\xff\xc3\xa9x'"))
        );
        let error = CommandError::UnknownArgument(Echo::new(b"a\rb\r\n"));
        let trimmed = Bytes::from_static(b"ERR unknown argument: a\rb");
        assert_eq!(Reply::from(error), Reply::Error(trimmed));
        let error = CommandError::Operator("caf\u{e9}".to_owned());
        assert_eq!(Reply::from(error), Reply::Error(Bytes::from("ERR caf\u{e9}")));
    }
}
