//! Collections against models, across flushes, evictions, deletions that are forgotten, and changes
//! of leaders: whatever memory keeps or lets go, clients see the same.

mod cluster;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cluster::{Cluster, small, text};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use storage::{NodeOptions, RowBudget};
use wire::resp::Reply;
use wire::service::{NodeFault, StorageService};

/// What each key should hold.
#[derive(Default)]
struct Model {
    sets: [BTreeSet<String>; 2],
    hash: BTreeMap<String, String>,
    ranked: BTreeMap<String, u32>,
    list: VecDeque<String>,
}

fn texts(reply: &Reply) -> Vec<String> {
    let Reply::Array(items) = reply else { return members(reply) };
    items.iter().map(one).collect()
}

fn members(reply: &Reply) -> Vec<String> {
    match reply {
        Reply::Set(items) => items.iter().map(one).collect(),
        Reply::Map(pairs) => pairs.iter().flat_map(|(key, value)| [one(key), one(value)]).collect(),
        other => panic!("no members: {other:?}"),
    }
}

fn one(reply: &Reply) -> String {
    match reply {
        Reply::Bulk(text) => String::from_utf8_lossy(text).into_owned(),
        other => panic!("no text: {other:?}"),
    }
}

fn count(was: bool) -> Reply {
    Reply::Integer(i64::from(was))
}

impl Model {
    /// One command, done to both.
    fn step(&mut self, cluster: &Cluster, random: &mut StdRng) {
        let name = format!("member:{}", random.random_range(0..150));
        let which = random.random_range(0..2usize);
        let key = &["s:0", "s:1"][which];
        match random.random_range(0..14) {
            0..3 => {
                let reply = cluster.run(&["SADD", key, &name]);
                assert_eq!(reply, count(self.sets[which].insert(name)));
            }
            3 | 4 => {
                let reply = cluster.run(&["SREM", key, &name]);
                assert_eq!(reply, count(self.sets[which].remove(&name)));
            }
            5 => match cluster.run(&["SPOP", key]) {
                Reply::Null => assert!(self.sets[which].is_empty()),
                popped => assert!(self.sets[which].remove(&one(&popped)), "{popped:?}"),
            },
            6 => {
                let reply = cluster.run(&["SISMEMBER", key, &name]);
                assert_eq!(reply, count(self.sets[which].contains(&name)));
            }
            7 => {
                let is_new = self.hash.insert(name.clone(), "value".into()).is_none();
                assert_eq!(cluster.run(&["HSET", "h", &name, "value"]), count(is_new));
            }
            8 => {
                let was = self.hash.remove(&name).is_some();
                assert_eq!(cluster.run(&["HDEL", "h", &name]), count(was));
            }
            9 => {
                let score = random.random_range(0..1_000);
                let reply = cluster.run(&["ZADD", "z", &score.to_string(), &name]);
                assert_eq!(reply, count(self.ranked.insert(name, score).is_none()));
            }
            10 => {
                let was = self.ranked.remove(&name).is_some();
                assert_eq!(cluster.run(&["ZREM", "z", &name]), count(was));
            }
            11 => {
                self.list.push_back(name.clone());
                let length = Reply::Integer(self.list.len() as i64);
                assert_eq!(cluster.run(&["RPUSH", "l", &name]), length);
            }
            12 if self.list.len() > 100 => {
                let expected = self.list.pop_front().expect("not empty");
                assert_eq!(cluster.run(&["LPOP", "l"]), text(&expected));
            }
            _ if random.random_bool(0.02) => {
                cluster.run(&["DEL", key]);
                self.sets[which].clear();
            }
            _ => {}
        }
    }

    /// All there is, compared.
    fn check(&self, cluster: &Cluster) {
        for (key, expected) in ["s:0", "s:1"].into_iter().zip(&self.sets) {
            let found: BTreeSet<String> =
                texts(&cluster.run(&["SMEMBERS", key])).into_iter().collect();
            assert_eq!(found, *expected, "{key}");
            assert_eq!(cluster.run(&["SCARD", key]), Reply::Integer(expected.len() as i64));
        }
        let mut fields = texts(&cluster.run(&["HKEYS", "h"]));
        fields.sort();
        assert_eq!(fields, self.hash.keys().cloned().collect::<Vec<_>>());
        let mut ranked: Vec<_> = self.ranked.iter().map(|(name, score)| (*score, name)).collect();
        ranked.sort();
        let expected: Vec<String> = ranked.iter().map(|(_, name)| (*name).clone()).collect();
        assert_eq!(texts(&cluster.run(&["ZRANGE", "z", "0", "-1"])), expected);
        assert_eq!(texts(&cluster.run(&["LRANGE", "l", "0", "-1"])), Vec::from(self.list.clone()));
    }
}

#[test]
fn what_memory_lets_go_changes_nothing() {
    // Memory for everything, for some of it, and for hardly anything.
    for (seed, rows_bytes) in [(1, u64::MAX), (2, 60_000), (3, 4_000)] {
        let dir = tempfile::tempdir().unwrap();
        let random = &mut StdRng::seed_from_u64(seed);
        let mut model = Model::default();
        for round in 0..3 {
            let options = NodeOptions { rows: RowBudget::new(rows_bytes), ..small() };
            let cluster = Cluster::open(dir.path(), 3, &options);
            model.check(&cluster);
            for step in 0..1_500 {
                model.step(&cluster, random);
                let leader = *cluster.leader.lock().unwrap();
                match random.random_range(0..200) {
                    0..5 => cluster.nodes.node(leader).unwrap().flush().expect("a flush"),
                    5 => model.check(&cluster),
                    _ => {}
                }
                if step == 700 && round == 1 {
                    cluster.nodes.fault(NodeFault::Stop(leader)).expect("it runs");
                    model.check(&cluster);
                    cluster.nodes.fault(NodeFault::Start(leader)).expect("it stopped");
                }
            }
            model.check(&cluster);
        }
    }
}

#[test]
fn a_set_that_is_emptied_and_filled_keeps_no_deletions() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open(dir.path(), 1, &NodeOptions::default());
    let leader = *cluster.leader.lock().unwrap();
    let member = |n: u32| format!("member:{n}");
    let flush = || cluster.nodes.node(leader).unwrap().flush().expect("a flush");
    for n in 0..100 {
        cluster.run(&["SADD", "s", &member(n)]);
    }
    flush();
    let rows_on_disk = cluster.nodes.status()[0].lsm_bytes;
    for n in 100..3_000 {
        cluster.run(&["SADD", "s", &member(n)]);
        cluster.run(&["SREM", "s", &member(n - 100)]);
    }
    flush();
    // 2,900 members came, and as many went: what was there before and what is now are worth writing.
    let written = cluster.nodes.status()[0].lsm_bytes - rows_on_disk;
    assert!(written < 3 * rows_on_disk, "{written} bytes beside {rows_on_disk}");
    assert_eq!(cluster.run(&["SCARD", "s"]), Reply::Integer(100));
    let expected = Reply::Array(vec![Reply::Integer(0), Reply::Integer(1)]);
    assert_eq!(cluster.run(&["SMISMEMBER", "s", &member(0), &member(2_999)]), expected);
}
