//! Hostile input in seeded plenty: payloads of RESTORE with a right checksum, patterns, ACL rules. What must
//! hold is in `fuzz/oracle.rs`, which the fuzzers share.

#[path = "../fuzz/oracle.rs"]
mod oracle;
#[path = "../../wire/fuzz/plenty.rs"]
mod plenty;
mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use commands::MemoryView;
use plenty::{inputs, seed};
use support::Random;
use wire::resp::Reply;

/// Payloads of a real Redis 7.0.15 in encodings that DUMP here does not write, without version and
/// checksum: a list of two nodes, hash, set and sorted set as tables of strings.
const FOREIGN: &[&[u8]] = &[
    b"\x0e\x01\x11\x11\x00\x00\x00\x0d\x00\x00\x00\x02\x00\x00\x01a\x03\x01b\xff",
    b"\x0a\x11\x11\x00\x00\x00\x0d\x00\x00\x00\x02\x00\x00\x01a\x03\x01b\xff",
    b"\x0d\x11\x11\x00\x00\x00\x0d\x00\x00\x00\x02\x00\x00\x01f\x03\x01v\xff",
    b"\x0c\x10\x10\x00\x00\x00\x0d\x00\x00\x00\x02\x00\x00\x01m\x03\xf2\xff",
    b"\x04\x02\x01a\x01b\x01c\xc0\x05",
    b"\x02\x02\x01a\xc0\x05",
    b"\x05\x01\x01a\x00\x00\x00\x00\x00\x00\xf8\x3f",
    b"\x03\x02\x01a\x031.5\x01b\xff",
    b"\x0b\x0c\x02\x00\x00\x00\x02\x00\x00\x00\x01\x00\x02\x00",
];

/// Contents of payloads of every type, small and large.
fn contents() -> Vec<Vec<u8>> {
    let view = &mut MemoryView::new(1_700_000_000_000);
    let mut run = |line: String| {
        let args: Vec<Bytes> =
            line.split(' ').map(|a| Bytes::copy_from_slice(a.as_bytes())).collect();
        oracle::run(view, &args)
    };
    run("SET text hello".into());
    run("SET int 12345".into());
    run("PFADD hll a b c d e f".into());
    for (name, count) in [("s", 4), ("l", 150)] {
        for at in 0..count {
            run(format!("RPUSH {name}list element{at} {at}"));
            run(format!("SADD {name}set member{at}"));
            run(format!("SADD {name}ints {}", at * 1000));
            run(format!("HSET {name}hash field{at} {at}"));
            run(format!("ZADD {name}zset {at}.5 member{at}"));
            run(format!("XADD {name}stream {}-1 field{} value{at}", at + 1, at % 3));
        }
        run(format!("HPEXPIRE {name}hash 100000 FIELDS 1 field1"));
        run(format!("XGROUP CREATE {name}stream group 0"));
        run(format!("XREADGROUP GROUP group one COUNT 3 STREAMS {name}stream >"));
    }
    let Reply::Array(keys) = run("SCAN 0 COUNT 1000".into()) else { panic!("a scan") };
    let Reply::Array(keys) = &keys[1] else { panic!("keys") };
    let mut all: Vec<Vec<u8>> = FOREIGN.iter().map(|content| content.to_vec()).collect();
    for key in keys {
        let Reply::Bulk(key) = key else { panic!("a key") };
        let Reply::Bulk(payload) = oracle::run(view, &[Bytes::from_static(b"DUMP"), key.clone()])
        else {
            panic!("a payload")
        };
        all.push(payload[..payload.len() - 10].to_vec());
    }
    all
}

fn mutated(random: &mut Random, content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    for _ in 0..1 + random.below(3) {
        let at = random.below(bytes.len().max(1));
        match random.below(7) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at.min(bytes.len()), random.next() as u8),
            2 if !bytes.is_empty() => drop(bytes.remove(at)),
            3 if !bytes.is_empty() => {
                bytes[at] =
                    [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0x81, 0xc0, 0xc3, 0xfe, 0xff][random.below(11)]
            }
            4 if !bytes.is_empty() => bytes[at] = bytes[at].wrapping_add(1),
            5 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            6 if !bytes.is_empty() => {
                let end = (at + random.below(16)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => {}
        }
    }
    bytes
}

#[test]
fn payloads_with_a_right_checksum() {
    let contents = contents();
    assert!(contents.len() >= 20, "{}", contents.len());
    for content in &contents {
        assert!(oracle::restore(content), "{}", content.escape_ascii());
    }
    let mut random = Random::new(seed(7));
    let (inputs, mut taken) = (inputs(30_000), 0);
    for round in 0..inputs {
        let content = mutated(&mut random, &contents[round % contents.len()]);
        taken += usize::from(oracle::restore(&content));
    }
    let few = inputs / 300;
    assert!((few..inputs - few).contains(&taken), "{taken} were taken: the test would see nothing");
}

#[test]
fn patterns_of_any_bytes() {
    let mut random = Random::new(seed(8));
    let (inputs, mut matched) = (inputs(100_000), 0);
    for _ in 0..inputs {
        let mut some = |alphabet: &[u8], bound: usize| -> Vec<u8> {
            (0..random.below(bound)).map(|_| alphabet[random.below(alphabet.len())]).collect()
        };
        let (pattern, text) = (some(b"ab*?[]^-\\\0\xff", 12), some(b"ab-\0\xff", 12));
        matched += usize::from(oracle::glob(&pattern, &text));
    }
    assert!(matched > inputs / 100, "{matched}");
    // The patterns that took exponential time in others.
    let started = Instant::now();
    for unit in ["a*", "*a", "a?*", "[a-z]*", "\\a*", "**?"] {
        let pattern = unit.repeat(900) + "b";
        oracle::glob(pattern.as_bytes(), "a".repeat(20_000).as_bytes());
    }
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[test]
fn rules_of_any_bytes() {
    const WORDS: &[&str] = &[
        "on",
        "off",
        ">",
        "#",
        "~",
        "~*",
        "%R~",
        "%",
        "&",
        "allkeys",
        "resetkeys",
        "+@all",
        "-@all",
        "+@",
        "+get",
        "-client|kill",
        "+select|",
        "(",
        ")",
        "(+get ~a)",
        "clearselectors",
        "reset",
        "nopass",
        "\0",
        " ",
        "(~a",
    ];
    let mut random = Random::new(seed(9));
    let (inputs, mut taken) = (inputs(3_000), 0);
    for _ in 0..inputs {
        let mut rules = Vec::new();
        for _ in 0..random.below(7) {
            let mut rule = Vec::new();
            for _ in 0..1 + random.below(2) {
                rule.extend_from_slice(WORDS[random.below(WORDS.len())].as_bytes());
            }
            if random.below(3) == 0 {
                rule.push(random.next() as u8);
            }
            rules.push(rule);
        }
        taken += oracle::acl_rules(&rules);
    }
    assert!(taken > inputs / 3, "{taken}");
}
