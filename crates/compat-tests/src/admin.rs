//! Answers of ADMIN and INFO as records of fields, whatever their outer shape: text of `name:value`
//! or `name=value` parts, a record per line, or (RESP3) arrays and maps.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::resp::{Client, Value};

/// Fields by name.
pub type Record = BTreeMap<String, String>;

/// The records of an answer.
///
/// *Errors* if it is an error or holds no fields.
pub fn records(reply: &Value) -> Result<Vec<Record>> {
    ensure!(!reply.is_error(), "{reply:?}");
    let mut found = Vec::new();
    collect(reply, &mut found);
    ensure!(!found.is_empty(), "no fields in {reply:?}");
    Ok(found)
}

fn collect(value: &Value, found: &mut Vec<Record>) {
    if let Some(text) = value.text() {
        found.extend(String::from_utf8_lossy(text).lines().filter_map(line));
        return;
    }
    let flat =
        |value: &Value| value.text().is_some() || matches!(value, Value::Int(_) | Value::Nil);
    match (value, value.items()) {
        // A record in RESP2: names and plain values in turn.
        (_, Some(items))
            if items.len() % 2 == 0
                && items.iter().all(flat)
                && items.iter().step_by(2).all(|name| line(&name.to_text()).is_none()) =>
        {
            found.push(items.chunks(2).map(|pair| (pair[0].to_text(), plain(&pair[1]))).collect());
        }
        (_, Some(items)) => items.iter().for_each(|item| collect(item, found)),
        (Value::Map(pairs), _) => {
            let fields = pairs.iter().filter(|(_, value)| flat(value));
            found.push(fields.map(|(name, value)| (name.to_text(), plain(value))).collect());
            pairs.iter().filter(|(_, value)| !flat(value)).for_each(|(_, v)| collect(v, found));
        }
        _ => {}
    }
}

/// A value as text; of one that is unknown, the empty text.
fn plain(value: &Value) -> String {
    match value {
        Value::Int(number) => number.to_string(),
        Value::Nil => String::new(),
        other => other.to_text(),
    }
}

/// The fields of a line; `None` if there are none.
fn line(text: &str) -> Option<Record> {
    let mut fields = Record::new();
    for part in text.split([' ', ',', '\t']).filter(|part| !part.is_empty()) {
        if let Some((name, value)) = part.split_once(['=', ':']) {
            fields.insert(name.to_owned(), value.to_owned());
        }
    }
    (!fields.is_empty()).then_some(fields)
}

/// The replicas of all partitions that have a leader, as ADMIN PARTITIONS tells them.
pub fn partitions(client: &mut Client) -> Result<Vec<Record>> {
    let rows = records(&client.line("ADMIN PARTITIONS")?)?;
    Ok(rows.into_iter().filter(|row| row.contains_key("leader")).collect())
}

/// The node that leads the most partitions.
pub fn leading_node(client: &mut Client) -> Result<String> {
    let leaders: Vec<String> = partitions(client)?
        .iter()
        .filter_map(|row| row.get("leader").filter(|leader| !leader.is_empty()).cloned())
        .collect();
    let count = |node: &String| leaders.iter().filter(|leader| *leader == node).count();
    leaders.iter().max_by_key(|node| count(node)).cloned().context("no partition has a leader")
}

/// A number in the named section of INFO.
pub fn info_number(client: &mut Client, section: &str, field: &str) -> Result<u64> {
    let reply = client.call(&["INFO", section])?;
    let text = reply.to_text();
    let prefix = format!("{field}:");
    let value = text.lines().find_map(|line| line.strip_prefix(&prefix));
    let value = value.with_context(|| format!("no {field} in INFO {section}:\n{text}"))?;
    value.trim().parse().with_context(|| format!("{field} is {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shape_gives_the_same_records() {
        let text =
            Value::Bulk(b"partition=1 leader=2 applied=7\npartition=2 leader=3 applied=8".into());
        let lines = Value::Array(vec![
            Value::Bulk(b"partition=1 leader=2 applied=7".into()),
            Value::Bulk(b"partition=2 leader=3 applied=8".into()),
        ]);
        let field = |name: &str, number| (Value::Bulk(name.into()), Value::Int(number));
        let maps = Value::Array(vec![
            Value::Map(vec![field("partition", 1), field("leader", 2), field("applied", 7)]),
            Value::Map(vec![field("partition", 2), field("leader", 3), field("applied", 8)]),
        ]);
        let unknown = Value::Array(vec![
            Value::Bulk(b"leader".into()),
            Value::Nil,
            Value::Bulk(b"applied".into()),
            Value::Int(7),
        ]);
        assert_eq!(records(&unknown).unwrap()[0]["leader"], "");
        let expected = records(&text).unwrap();
        assert_eq!(expected[1]["leader"], "3");
        assert_eq!(records(&lines).unwrap(), expected);
        assert_eq!(records(&maps).unwrap(), expected);
        assert!(records(&Value::Error(b"ERR no".into())).is_err());
    }
}
