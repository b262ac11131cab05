//! The data of a running Redis, by SCAN, PTTL and DUMP.
//!
//! A key that is there from the beginning to the end arrives; each as it was at one moment, not all at
//! the same. A key that was deleted meanwhile is not there any more, and no refusal.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use wire::resp::Reply;

use super::client::{Client, text};
use super::progress::Progress;
use super::{Address, Entry, PIPELINE_KEYS, Writer};

/// Copies the databases of a server, or one of them.
pub(super) fn import(
    from: &Address,
    only: Option<u32>,
    writer: &mut Writer,
    progress: &mut Progress,
) -> Result<()> {
    let mut source = Client::connect(from).with_context(|| format!("connect to {}", from.place))?;
    let databases = databases(&mut source)?;
    let wanted = databases.into_iter().filter(|(db, _)| only.is_none_or(|only| only == *db));
    let wanted: Vec<(u32, u64)> = wanted.collect();
    let total = wanted.iter().map(|(_, keys)| keys).sum();
    copy_functions(&mut source, writer)?;
    let mut done = 0;
    for (db, _) in wanted {
        copy_database(&mut source, db, writer, |keys, writer| {
            done += keys;
            progress.show(done, total, writer.written);
        })?;
    }
    Ok(())
}

/// The databases that hold keys, and how many, as INFO tells them.
fn databases(source: &mut Client) -> Result<Vec<(u32, u64)>> {
    let reply = source.call(&[b"INFO", b"keyspace"])?;
    let (Reply::Bulk(info) | Reply::Status(info)) = &reply else {
        bail!("INFO at the source: {}", text(&reply));
    };
    let info = String::from_utf8_lossy(info);
    Ok(info.lines().filter_map(database).collect())
}

/// `db0:keys=1,expires=0,…`
fn database(line: &str) -> Option<(u32, u64)> {
    let (db, facts) = line.trim().strip_prefix("db")?.split_once(':')?;
    let keys = facts.split(',').find_map(|fact| fact.strip_prefix("keys="))?;
    Some((db.parse().ok()?, keys.parse().ok()?))
}

/// Function libraries, if both sides know such a thing.
fn copy_functions(source: &mut Client, writer: &mut Writer) -> Result<()> {
    let Reply::Bulk(libraries) = source.call(&[b"FUNCTION", b"DUMP"])? else { return Ok(()) };
    // Of a server without libraries it is nothing but a version and a checksum.
    if libraries.len() <= 10 {
        return Ok(());
    }
    let policy: &[u8] = if writer.replace { b"REPLACE" } else { b"APPEND" };
    let reply = writer.call(&[b"FUNCTION", b"RESTORE", &libraries, policy])?;
    if matches!(reply, Reply::Error(_)) {
        writer.refuse_functions(&reply);
    }
    Ok(())
}

fn copy_database(
    source: &mut Client,
    db: u32,
    writer: &mut Writer,
    mut copied: impl FnMut(u64, &Writer),
) -> Result<()> {
    let reply = source.call(&[b"SELECT", db.to_string().as_bytes()])?;
    ensure!(!matches!(reply, Reply::Error(_)), "SELECT {db} at the source: {}", text(&reply));
    let count = PIPELINE_KEYS.to_string();
    let mut cursor = Bytes::from_static(b"0");
    loop {
        let reply = source.call(&[b"SCAN", &cursor, b"COUNT", count.as_bytes()])?;
        let Reply::Array(parts) = &reply else { bail!("SCAN at the source: {}", text(&reply)) };
        let [Reply::Bulk(next), Reply::Array(keys)] = &parts[..] else {
            bail!("SCAN at the source: {reply:?}");
        };
        let keys: Vec<Bytes> = keys
            .iter()
            .filter_map(|key| match key {
                Reply::Bulk(key) => Some(key.clone()),
                _ => None,
            })
            .collect();
        for keys in keys.chunks(PIPELINE_KEYS) {
            copy_keys(source, db, keys, writer)?;
            copied(keys.len() as u64, writer);
        }
        cursor = next.clone();
        if cursor == "0" {
            return Ok(());
        }
    }
}

fn copy_keys(source: &mut Client, db: u32, keys: &[Bytes], writer: &mut Writer) -> Result<()> {
    for key in keys {
        source.queue(&[b"PTTL", key]);
        source.queue(&[b"DUMP", key]);
    }
    source.send().context("write to the source")?;
    for key in keys {
        let (ttl, dumped) = (source.reply()?, source.reply()?);
        let payload = match dumped {
            Reply::Bulk(payload) => payload.to_vec(),
            // It is gone since.
            Reply::Null => continue,
            other => {
                writer.refuse((db, key), &format!("DUMP at the source: {}", text(&other)));
                continue;
            }
        };
        let ttl_ms = match ttl {
            Reply::Integer(-1) => 0,
            // 0 is about to expire; for RESTORE it would be none.
            Reply::Integer(ttl) => u64::try_from(ttl).unwrap_or(0).max(1),
            other => bail!("PTTL at the source: {}", text(&other)),
        };
        writer.put(Entry { db, key: key.clone(), ttl_ms, is_absolute: false, payload })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_of_info() {
        assert_eq!(database("db3:keys=12,expires=0,avg_ttl=0,subexpiry=0\r"), Some((3, 12)));
        assert_eq!(database("# Keyspace"), None);
        assert_eq!(database("dbx:keys=1"), None);
        assert_eq!(database("db1:expires=1"), None);
    }
}
