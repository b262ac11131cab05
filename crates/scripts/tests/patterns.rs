//! Patterns of scripts beside those of Lua's own library, in seeded plenty.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scripts::{Host, Interrupt, Script, Vm};
use wire::resp::Reply;

struct Nobody;

impl Host for Nobody {
    fn call(&mut self, _args: &[Bytes]) -> Result<Reply, Interrupt> {
        Ok(Reply::Null)
    }

    fn may_call(&mut self, _args: &[Bytes]) -> Option<bool> {
        None
    }

    fn log(&mut self, _level: u8, _line: &[u8]) {}

    fn interrupted(&mut self) -> Option<Interrupt> {
        None
    }

    fn seed(&mut self) -> u64 {
        7
    }
}

const ITEMS: &[&str] = &[
    "a", "b", "1", ".", "%a", "%d", "%s", "%S", "%w", "%p", "%c", "%x", "%z", "%l", "%U", "[ab]",
    "[^a]", "[a-c]", "[%a_]", "[%d-]", "[]a]", "[^]a]", "[a-]", "()", "(", ")", "(a*)", "(.-)",
    "%1", "%2", "%0", "%b()", "%bab", "%b", "%f[%w]", "%f[^a]", "%fa", "^", "$", "*", "+", "-",
    "?", "%", "[", "]", "%%", "%(", "\0", "_",
];
const REPLACEMENTS: &[&str] = &["", "<%0>", "%1", "%2", "%%", "x%", "%a", "\0"];

fn literal(text: &str) -> String {
    let bytes = text.bytes().map(|byte| format!("\\{byte:03}"));
    format!("'{}'", bytes.collect::<String>())
}

/// A call whose result is written out, errors too.
fn call(random: &mut StdRng) -> String {
    let subject: String = (0..random.random_range(0..9))
        .map(|_| {
            ["a", "b", "c", "1", "(", ")", " ", "_", "%", "\0", "\t"][random.random_range(0..11)]
        })
        .collect();
    let pattern: String = (0..random.random_range(0..6))
        .map(|_| ITEMS[random.random_range(0..ITEMS.len())])
        .collect();
    let (subject, pattern) = (literal(&subject), literal(&pattern));
    let from = random.random_range(-10..12);
    let with = literal(REPLACEMENTS[random.random_range(0..REPLACEMENTS.len())]);
    match random.random_range(0..7) {
        0 => format!("string.find, {subject}, {pattern}"),
        1 => format!("string.find, {subject}, {pattern}, {from}, {}", random.random::<bool>()),
        2 => format!("string.match, {subject}, {pattern}, {from}"),
        3 => format!("string.gsub, {subject}, {pattern}, {with}"),
        4 => format!("string.gsub, {subject}, {pattern}, {with}, {from}"),
        5 => format!("string.gsub, {subject}, {pattern}, function(x, y) return y or x end"),
        _ => format!("all, {subject}, {pattern}"),
    }
}

fn chunk(calls: &[String]) -> String {
    let mut code = String::from(
        "local out = {}
        local function put(...)
          local line = {}
          for i = 1, select('#', ...) do line[i] = type((select(i, ...))) .. ':' .. tostring((select(i, ...))) end
          out[#out + 1] = table.concat(line, '|')
        end
        local function all(s, p)
          local found = {}
          for x, y in string.gmatch(s, p) do found[#found + 1] = tostring(x) .. ',' .. tostring(y) end
          return table.concat(found, ';')
        end
        ",
    );
    for call in calls {
        code.push_str(&format!("put(pcall({call}))\n"));
    }
    code.push_str("return table.concat(out, '\\n')");
    code
}

#[test]
fn patterns_match_what_they_match_in_lua() {
    let lua = mlua::Lua::new();
    let mut vm = Vm::new(64 << 20).expect("a state");
    for seed in 0..150 {
        let mut random = StdRng::seed_from_u64(seed);
        let calls: Vec<String> = (0..100).map(|_| call(&mut random)).collect();
        let code = chunk(&calls);
        let wanted: mlua::LuaString =
            lua.load(&code[..]).set_name("@user_script").eval().expect("Lua runs it");
        let script = Script::parse(code.as_bytes()).expect("a script");
        let compiled = vm.compile(&script).expect("it is Lua");
        let got = vm.eval(&mut Nobody, (&script, &compiled), &[], &[]).expect("not ended");
        let Reply::Bulk(got) = got else { panic!("{got:?}") };
        let wanted = wanted.as_bytes();
        let lines = wanted.split(|byte| *byte == b'\n').zip(got.split(|byte| *byte == b'\n'));
        for ((wanted, got), call) in lines.zip(&calls) {
            let (wanted, got) = (String::from_utf8_lossy(wanted), String::from_utf8_lossy(got));
            assert_eq!(wanted, got, "seed {seed}: {call}");
        }
        assert_eq!(wanted.len(), got.len(), "seed {seed}");
    }
}
