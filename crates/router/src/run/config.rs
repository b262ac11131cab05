//! CONFIG: parameters and statistics.

use bytes::Bytes;
use commands::CommandError;
use wire::resp::Reply;

use super::{text, word};
use crate::connection::Connection;

pub(super) const HELP: &[&str] = &[
    "GET <pattern> [<pattern> ...]",
    "    Return parameters that match the patterns, and their values.",
    "SET <parameter> <value> [<parameter> <value> ...]",
    "    Change parameters: all of them or, if one is refused, none.",
    "RESETSTAT",
    "    Start the statistics of INFO anew.",
    "REWRITE",
    "    Write changed parameters to the configuration file.",
];

pub(super) fn get(connection: &Connection, args: &[Bytes]) -> Reply {
    let found = connection.shared.config.matching(&args[2..]).into_iter();
    // A name given in full comes back in the letters it was given in.
    let as_asked = |name: &'static str| {
        let asked = args[2..].iter().find(|asked| asked.eq_ignore_ascii_case(name.as_bytes()));
        asked.map_or(word(name), |asked| Reply::Bulk(asked.clone()))
    };
    Reply::Map(found.map(|(name, value)| (as_asked(name), text(value))).collect())
}

pub(super) fn set(connection: &mut Connection, args: &[Bytes]) -> Result<Reply, CommandError> {
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::Syntax);
    }
    check_clients(connection, &args[2..])?;
    let config = &connection.shared.config;
    let level_before = config.get("loglevel");
    let sets_password = args[2..].iter().step_by(2).any(|n| n.eq_ignore_ascii_case(b"requirepass"));
    config.set(&args[2..])?;
    let level = config.get("loglevel");
    if level != level_before {
        connection.shared.host.set_log_level(&level);
    }
    connection.shared.limit_scripts();
    connection.shared.shape_values();
    connection.shared.configure_hub();
    if sets_password {
        connection.shared.users.set_default_password(&config.get("requirepass"));
    }
    // Other connections take new limits with their next pipeline.
    connection.update_limits();
    Ok(Reply::OK)
}

/// *Errors*: more connections are to be let in than there are file descriptors for.
fn check_clients(connection: &Connection, pairs: &[Bytes]) -> Result<(), CommandError> {
    let room = connection.shared.options.clients_max;
    for pair in pairs.chunks_exact(2).filter(|pair| pair[0].eq_ignore_ascii_case(b"maxclients")) {
        let wanted = std::str::from_utf8(&pair[1]).ok().and_then(|text| text.parse::<u64>().ok());
        if wanted.is_some_and(|wanted| wanted > room) {
            let why = "The operating system is not able to handle the specified number of clients, \
                       try with";
            return Err(CommandError::ConfigRefused("maxclients", format!("{why} {room}")));
        }
    }
    Ok(())
}

pub(super) fn resetstat(connection: &mut Connection) -> Reply {
    connection.caller.count();
    let nodes = connection.shared.storage.status();
    connection.shared.stats.reset(super::info::stored(&nodes));
    Reply::OK
}

pub(super) fn rewrite(connection: &Connection) -> Result<Reply, CommandError> {
    let host = &connection.shared.host;
    if host.config_file().is_none() {
        return Err(CommandError::NO_CONFIG_FILE);
    }
    host.rewrite_config(&connection.shared.config.changed())
        .map_err(|why| CommandError::Operator(format!("Rewriting config file: {why}")))?;
    Ok(Reply::OK)
}
