//! ACL: users and their rules, and the file they are kept in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use commands::acl::{
    self, Defaults, GENPASS_BITS_DEFAULT, GENPASS_BITS_MAX, Reason, Selector, User, check_name,
};
use commands::table::{self, Entry};
use commands::{CommandError, Echo, Run, Session, docs, parse_int};
use wire::resp::Reply;

use super::{text, word};
use crate::Shared;
use crate::clients::Client;
use crate::connection::Connection;
use crate::pubsub::Topic;
use crate::users::{self, Account, Changed, Context, Denial, LogEntry};

/// Entries that ACL LOG answers if it is not told how many.
const LOG_DEFAULT: usize = 10;
/// Longest category that a refusal repeats, in bytes.
const ECHO_BYTES_MAX: usize = 128;

pub(super) const HELP: &[&str] = &[
    "CAT [<category>]",
    "    List the categories of commands, or the commands of <category>.",
    "DELUSER <username> [<username> ...]",
    "    Remove users and close their connections.",
    "DRYRUN <username> <command> [<arg> ...]",
    "    Tell whether the user may run the command, without running it.",
    "GETUSER <username>",
    "    Return the rules of a user.",
    "GENPASS [<bits>]",
    "    Make up a password of so many bits (default: 256).",
    "LIST",
    "    Return all users as lines of the ACL file.",
    "LOAD",
    "    Read the ACL file again.",
    "LOG [<count> | RESET]",
    "    Return what was denied of late, or forget it.",
    "SAVE",
    "    Write the ACL file.",
    "SETUSER <username> <attribute> [<attribute> ...]",
    "    Make a user, or change one.",
    "USERS",
    "    Return the names of all users.",
    "WHOAMI",
    "    Return the user of this connection.",
];

/// Runs a command of the group; `None` if it is none of it.
pub(super) fn run(
    what: Session,
    connection: &mut Connection,
    args: &[Bytes],
) -> Option<Result<Reply, CommandError>> {
    Some(match what {
        Session::AclCat => cat(args),
        Session::AclDeluser => deluser(connection, args),
        Session::AclDryrun => dryrun(connection, args),
        Session::AclGenpass => genpass(args),
        Session::AclGetuser => Ok(getuser(connection, args)),
        Session::AclList => Ok(list(connection)),
        Session::AclLoad => load(connection),
        Session::AclLog => log(connection, args),
        Session::AclSave => save(connection),
        Session::AclSetuser => setuser(connection, args),
        Session::AclUsers => Ok(usernames(connection)),
        Session::AclWhoami => Ok(Reply::Bulk(connection.session.login.account.name().clone())),
        _ => return None,
    })
}

fn defaults(shared: &Shared) -> Defaults {
    Defaults { all_channels: shared.config.live.acl_all_channels.load(Relaxed) }
}

fn wrong_form(args: &[Bytes]) -> CommandError {
    CommandError::SubcommandSyntax(Echo::cut(&args[1], ECHO_BYTES_MAX), "ACL")
}

fn cat(args: &[Bytes]) -> Result<Reply, CommandError> {
    let category = match &args[2..] {
        [] => {
            return Ok(Reply::Array(docs::CATEGORIES.iter().map(|name| word(name)).collect()));
        }
        [category] => category,
        _ => return Err(wrong_form(args)),
    };
    let known = docs::CATEGORIES.iter().find(|c| category.eq_ignore_ascii_case(c.as_bytes()));
    let known = known.ok_or(CommandError::AclCategory(Echo::cut(category, ECHO_BYTES_MAX)))?;
    let of_category = |entry: &&Entry| docs::categories(entry).contains(known);
    let names = table::entries().iter().filter(of_category).map(|entry| text(entry.full_name()));
    Ok(Reply::Array(names.collect()))
}

fn deluser(connection: &mut Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    if args[2..].iter().any(|name| name == "default") {
        return Err(CommandError::ACL_DEFAULT_STAYS);
    }
    let users = &connection.shared.users;
    let gone: Vec<Arc<Account>> = args[2..].iter().filter_map(|name| users.remove(name)).collect();
    close(connection, &gone);
    Ok(Reply::Integer(gone.len() as i64))
}

/// Closes the connections of accounts that are gone; this one after its reply.
fn close(connection: &mut Connection, gone: &[Arc<Account>]) {
    let me = connection.session.client.id;
    if users::close_connections(&connection.shared.clients, gone, me) {
        connection.session.closing = true;
        connection.session.client.closing.store(true, Relaxed);
    }
}

fn dryrun(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    let account = connection.shared.users.get(&args[2]);
    let user = account.ok_or(CommandError::AclNoUser(Echo::new(&args[2])))?.user();
    let line = &args[3..];
    let no_command = || CommandError::AclNoCommand(Echo::new(&line[0]));
    let mut entry = table::lookup(&line[0]).ok_or_else(no_command)?;
    if let (Run::Group(_), Some(name)) = (&entry.command.run, line.get(1)) {
        entry = table::lookup_subcommand(entry, name).ok_or_else(no_command)?;
    }
    if !entry.command.arity.accepts(line.len()) {
        return Err(CommandError::Arity(entry.full_name().into()));
    }
    Ok(match user.check(entry, line) {
        Ok(()) => Reply::OK,
        Err(denied) => Reply::Bulk(denied.to_dryrun(user.name(), entry, line)),
    })
}

fn genpass(args: &[Bytes]) -> Result<Reply, CommandError> {
    let bits = match &args[2..] {
        [] => GENPASS_BITS_DEFAULT,
        [bits] => parse_int(bits).ok_or(CommandError::NotInteger)?,
        _ => return Err(wrong_form(args)),
    };
    if !(1..=GENPASS_BITS_MAX).contains(&bits) {
        return Err(CommandError::ACL_GENPASS);
    }
    let digits = usize::try_from((bits + 3) / 4).unwrap_or(0);
    let mut password = String::with_capacity(digits + 16);
    while password.len() < digits {
        // From the thread's generator, which is seeded by the system and made for secrets.
        password += &format!("{:016x}", rand::random::<u64>());
    }
    password.truncate(digits);
    Ok(text(password))
}

fn getuser(connection: &Connection, args: &[Bytes]) -> Reply {
    let Some(account) = connection.shared.users.get(&args[2]) else { return Reply::Null };
    let user = account.user();
    let mut fields = vec![
        (word("flags"), Reply::Set(user.flags().into_iter().map(word).collect())),
        (word("passwords"), Reply::Array(user.password_hashes().into_iter().map(text).collect())),
    ];
    fields.extend(selector(user.root()));
    let selectors = user.selectors().iter().map(|s| Reply::Map(selector(s).to_vec()));
    fields.push((word("selectors"), Reply::Array(selectors.collect())));
    Reply::Map(fields)
}

fn selector(selector: &Selector) -> [(Reply, Reply); 3] {
    let line = |rules: Vec<Vec<u8>>| Reply::Bulk(Bytes::from(rules.join(&b' ')));
    [
        (word("commands"), text(selector.command_rules())),
        (word("keys"), line(selector.key_rules())),
        (word("channels"), line(selector.channel_rules())),
    ]
}

fn list(connection: &Connection) -> Reply {
    let users = connection.shared.users.all();
    let lines = users.iter().map(|user| Reply::Bulk(Bytes::from(user.describe())));
    Reply::Array(lines.collect())
}

fn usernames(connection: &Connection) -> Reply {
    let users = connection.shared.users.all();
    Reply::Array(users.iter().map(|user| Reply::Bulk(user.name().clone())).collect())
}

fn setuser(connection: &mut Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    check_name(&args[2])?;
    let shared = &connection.shared;
    let changed = shared.users.set(&args[2], &args[3..], defaults(shared))?;
    if let Some(changed) = changed {
        channels_changed(connection, &changed);
    }
    Ok(Reply::OK)
}

/// A user's channels may have become fewer: connections that subscribe to one that is gone are closed, as
/// in Redis; this one after its reply.
fn channels_changed(connection: &mut Connection, changed: &Changed) {
    let (user, shared) = (&changed.after, connection.shared.clone());
    let account = shared.users.get(user.name());
    let Some(account) = account.filter(|_| !user.keeps_channels_of(&changed.before)) else {
        return;
    };
    let mut closed: BTreeMap<u64, Arc<Client>> = BTreeMap::new();
    for topic in [Topic::Channel, Topic::Pattern, Topic::Shard] {
        shared.hub().pubsub.each(topic, |name, client| {
            let allowed = match topic {
                Topic::Pattern => user.may_subscribe_pattern(name),
                Topic::Channel | Topic::Shard => user.may_subscribe(name),
            };
            if !allowed && Arc::ptr_eq(&client.account(), &account) {
                closed.insert(client.id, client.clone());
            }
        });
    }
    let me = connection.session.client.id;
    for (id, client) in closed {
        if id == me {
            connection.session.closing = true;
            client.closing.store(true, Relaxed);
        } else {
            client.kill();
        }
    }
}

fn log(connection: &Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    let users = &connection.shared.users;
    let count = match &args[2..] {
        [] => LOG_DEFAULT,
        [reset] if reset.eq_ignore_ascii_case(b"RESET") => {
            users.forget_log();
            return Ok(Reply::OK);
        }
        [count] => {
            let count = parse_int(count).ok_or(CommandError::NotInteger)?;
            usize::try_from(count.max(0)).unwrap_or(usize::MAX)
        }
        _ => return Err(wrong_form(args)),
    };
    let now_ms = connection.shared.now_us() / 1000;
    let entries = users.newest(count);
    Ok(Reply::Array(entries.into_iter().map(|entry| log_entry(entry, now_ms)).collect()))
}

fn log_entry(entry: LogEntry, now_ms: u64) -> Reply {
    let number = |number: u64| Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let reason = match entry.denial {
        Denial::Auth => "auth",
        Denial::Rules(Reason::Command) => "command",
        Denial::Rules(Reason::Key) => "key",
        Denial::Rules(Reason::Channel) => "channel",
    };
    let context = match entry.context {
        Context::Toplevel => "toplevel",
        Context::Multi => "multi",
        Context::Lua => "lua",
    };
    let age_s = now_ms.saturating_sub(entry.updated_ms) as f64 / 1000.0;
    Reply::Map(vec![
        (word("count"), number(entry.count)),
        (word("reason"), word(reason)),
        (word("context"), word(context)),
        (word("object"), Reply::Bulk(entry.object)),
        (word("username"), Reply::Bulk(entry.user)),
        (word("age-seconds"), Reply::Double(age_s)),
        (word("client-info"), text(entry.client)),
        (word("entry-id"), number(entry.id)),
        (word("timestamp-created"), number(entry.created_ms)),
        (word("timestamp-last-updated"), number(entry.updated_ms)),
    ])
}

// --- The file

/// Where the ACL file is, if there is one: seen from the folder of the data, as in Redis.
fn path(shared: &Shared) -> Option<PathBuf> {
    let file = shared.config.get("aclfile");
    let dir = shared.config.get("dir");
    (!file.is_empty()).then(|| Path::new(&dir).join(file))
}

/// The users of the ACL file.
///
/// *Errors*: all that is wrong with it.
fn read(shared: &Shared, path: &Path) -> Result<Vec<User>, String> {
    let path = path.display().to_string();
    let file = shared.host.read_acl_file(&path);
    let file = file.map_err(|why| format!("Error loading ACLs, opening file '{path}': {why}"))?;
    let users = acl::parse_file(&file, &path, defaults(shared)).map_err(|complaints| {
        format!(
            "{complaints}WARNING: ACL errors detected, no change to the previously active ACL rules \
             was performed"
        )
    })?;
    for user in users.iter().filter(|user| !user.is_enabled()) {
        let user = String::from_utf8_lossy(user.name()).into_owned();
        tracing::info!(user, "the user is disabled: the ACL file does not say 'on'");
    }
    Ok(users)
}

/// Loads the ACL file, if there is one, before the first connection comes.
///
/// *Errors*: all that is wrong with it.
pub(crate) fn load_at_start(shared: &Shared) -> Result<(), String> {
    if let Some(path) = path(shared) {
        let users = read(shared, &path);
        shared.users.replace(
            users.map_err(|why| format!("Aborting startup because of ACL errors: {why}"))?,
        );
    }
    Ok(())
}

fn load(connection: &mut Connection) -> Result<Reply, CommandError> {
    let path = path(&connection.shared).ok_or(CommandError::ACL_NO_FILE)?;
    let users = read(&connection.shared, &path).map_err(CommandError::Operator)?;
    let (gone, changed) = connection.shared.users.replace(users);
    for changed in changed {
        channels_changed(connection, &changed);
    }
    close(connection, &gone);
    Ok(Reply::OK)
}

fn save(connection: &Connection) -> Result<Reply, CommandError> {
    let shared = &connection.shared;
    let path = path(shared).ok_or(CommandError::ACL_NO_FILE)?.display().to_string();
    let written = shared.host.write_acl_file(&path, &shared.users.to_file());
    written.map_err(|why| {
        tracing::error!(path, why, "ACL SAVE failed");
        CommandError::ACL_SAVE_FAILED
    })?;
    Ok(Reply::OK)
}
