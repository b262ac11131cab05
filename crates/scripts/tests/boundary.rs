//! The border of a script's state, crossed in seeded plenty: replies, arguments, code, and what the
//! libraries take apart. What must hold is in `fuzz/oracle.rs`, which the fuzzer shares.

#[path = "../fuzz/oracle.rs"]
mod oracle;
#[path = "../../wire/fuzz/plenty.rs"]
mod plenty;

use bytes::Bytes;
use oracle::Border;
use plenty::{inputs, seed};
use wire::resp::{BulksBuilder, Reply};

struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn bytes(&mut self, length_max: usize) -> Vec<u8> {
        (0..self.below(length_max + 1)).map(|_| self.next() as u8).collect()
    }

    fn text(&mut self) -> Bytes {
        self.bytes(12).into()
    }

    fn integer(&mut self) -> i64 {
        let edges = [0, 1, -1, i64::MAX, i64::MIN, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1];
        if self.below(2) == 0 { *self.pick(&edges) } else { self.next() as i64 }
    }

    fn reply(&mut self, depth: usize) -> Reply {
        let kinds = if depth == 0 { 11 } else { 16 };
        let doubles = [0.0, -0.0, 1.5, 1e300, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
        let items = |random: &mut Random| {
            (0..random.below(5)).map(|_| random.reply(depth - 1)).collect::<Vec<_>>()
        };
        let pairs = |random: &mut Random| {
            let pair = |_| (random.reply(depth - 1), random.reply(depth - 1));
            (0..3).map(pair).collect::<Vec<_>>()
        };
        match self.below(kinds) {
            0 => Reply::Integer(self.integer()),
            1 => Reply::Bulk(self.text()),
            2 => Reply::Null,
            3 => Reply::NullArray,
            4 => Reply::Status(self.text()),
            5 => Reply::Error([b"ERR ", &self.text()[..]].concat().into()),
            6 => Reply::Boolean(self.below(2) == 0),
            7 => Reply::BigNumber(self.integer().to_string().into()),
            8 => Reply::Verbatim { format: *b"txt", text: self.text() },
            9 => Reply::Simple("OK"),
            10 => {
                let mut bulks = BulksBuilder::with_capacity(0, 0);
                (0..self.below(5)).for_each(|_| bulks.push(&self.text()));
                bulks.finish()
            }
            11 => Reply::Array(items(self)),
            12 => Reply::Set(items(self)),
            13 => Reply::Map(pairs(self)),
            14 => Reply::Push(items(self)),
            // In RESP2 a double is a text, whose digits are tested elsewhere.
            _ => Reply::Array(vec![Reply::DoubleText(self.pick(&doubles).to_string().into())]),
        }
    }
}

#[test]
fn replies_come_out_as_they_went_in() {
    let mut border = Border::new();
    for at in 0..inputs(4_000) as u64 {
        let reply = Random::new(seed(at)).reply(4);
        border.reply(&reply);
    }
}

#[test]
fn arguments_are_what_they_are() {
    let mut border = Border::new();
    for at in 0..inputs(1_000) as u64 {
        let mut random = Random::new(seed(at));
        let args: Vec<Vec<u8>> = (0..random.below(20)).map(|_| random.bytes(40)).collect();
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        border.arguments(&args);
    }
}

/// What scripts are made of, and what breaks out of less careful ones.
const WORDS: &[&str] = &[
    "local",
    "x",
    "y",
    "=",
    "1",
    "'a'",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ",",
    ";",
    "..",
    "#",
    "nil",
    "true",
    "function",
    "end",
    "return",
    "if",
    "then",
    "else",
    "while",
    "do",
    "for",
    "in",
    "repeat",
    "until",
    "break",
    "not",
    "and",
    "or",
    "==",
    "~=",
    "<",
    "redis",
    ".",
    "call",
    "pcall",
    "error",
    "redis.call('x')",
    "redis.pcall('x')",
    "redis.error_reply('x')",
    "redis.setresp(3)",
    "setmetatable(x, {__index=x})",
    "setmetatable(_G, {})",
    "getmetatable('')",
    "_G",
    "rawset(_G, 'x', 1)",
    "rawset(string, 'rep', nil)",
    "string.rep('x', 1e9)",
    "('x'):rep(1e8)",
    "table.concat(KEYS)",
    "table.insert(KEYS, 1)",
    "unpack(KEYS)",
    "unpack({}, 1, 1e8)",
    "pairs(_G)",
    "next(_G)",
    "select('#', 1)",
    "loadstring('return 1')()",
    "loadstring('\\27Lua')",
    "load(function() end)",
    "coroutine",
    "getfenv(1)",
    "setfenv(1, {})",
    "debug",
    "io",
    "os.clock()",
    "os.exit()",
    "require('x')",
    "dofile('x')",
    "print(1)",
    "collectgarbage()",
    "newproxy()",
    "cjson.encode(x)",
    "cjson.decode('[')",
    "cjson.encode_max_depth(1)",
    "cjson.decode_invalid_numbers(true)",
    "cmsgpack.pack(x)",
    "cmsgpack.unpack('\\255')",
    "struct.pack('!99i', 1)",
    "struct.unpack('s', 'x')",
    "bit.lshift(1, 99)",
    "math.random(0)",
    "math.randomseed(1)",
    "tostring(redis)",
    "error({err='x'})",
    "error({})",
    "error(nil)",
    "pcall(error)",
    "xpcall(error, error)",
    "string.dump(function() end)",
    "string.format('%q', x)",
    "string.format('%99999d', 1)",
    "('x'):find(('(a*'):rep(40))",
    "for i = 1, 1e9 do",
    "while true do",
];

#[test]
fn code_of_any_kind() {
    let mut border = Border::new();
    for at in 0..inputs(3_000) as u64 {
        let mut random = Random::new(seed(at));
        let mut code = Vec::new();
        for _ in 0..random.below(25) {
            code.extend_from_slice(random.pick(WORDS).as_bytes());
            code.push(*random.pick(b"  \n"));
            if random.below(40) == 0 {
                code.extend(random.bytes(4));
            }
        }
        border.code(&code);
    }
    // Whole statements, which do compile.
    for (at, word) in WORDS.iter().enumerate() {
        border.code(format!("local x = {{}} x[1] = x return {word}").as_bytes());
        border.code(format!("x = {word}").as_bytes());
        border.code(format!("return pcall(function() return {word} end)").as_bytes());
        border.code(format!("{word} = {at}").as_bytes());
    }
}

const PIECES: &[&[u8]] = &[
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b"\"a\"",
    b"\"\\u0000\"",
    b"\"\\ud800\"",
    b"1",
    b"-1.5e3",
    b"1e999",
    b"null",
    b"true",
    b"NaN",
    b" ",
    b"\x80",
    b"\x90",
    b"\x91",
    b"\xdc\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xcb",
    b"\xc0",
    b"\xc3",
    b"\xa1a",
    b"\xd9\x05ab",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"i",
    b"!16",
    b"s",
    b"c0",
    b"c999999999",
    b">I8",
    b"x",
];

#[test]
fn bytes_of_any_kind_for_the_libraries() {
    let mut border = Border::new();
    for at in 0..inputs(3_000) as u64 {
        let mut random = Random::new(seed(at));
        let mut bytes = Vec::new();
        for _ in 0..random.below(30) {
            let piece: &&[u8] = random.pick(PIECES);
            bytes.extend_from_slice(piece);
            if random.below(10) == 0 {
                bytes.extend(random.bytes(3));
            }
        }
        border.libraries(&bytes);
    }
    border.libraries(&b"[".repeat(100_000));
    border.libraries(&b"\x91".repeat(100_000));
    border.libraries(&["[".repeat(1_500), "]".repeat(1_500)].concat().into_bytes());
}
