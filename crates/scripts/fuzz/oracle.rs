//! What must hold at the border of a script's state, whatever crosses it: the fuzzer and the seeded test
//! (`tests/boundary.rs`) ask this.

use bytes::Bytes;
use scripts::{Host, Interrupt, Script, Vm};
use wire::resp::Reply;

/// Memory of the state, in bytes.
const MEMORY_BYTES_MAX: usize = 32 << 20;
/// Looks at whether to go on before a script is ended.
const PATIENCE: u32 = 30;
/// What a script must find as it is, whatever ran before it.
const CANARY: &str = "return {1 + 1, tostring(pcall(function() return unknown end)), #KEYS, #ARGV, \
                      cjson.encode({1, 'x'}), type(redis.call), type(unpack), ('x'):rep(3), \
                      struct.pack('>I2', 258), #cmsgpack.pack({1}), bit.band(12, 10)}";

/// A state, and a host that answers each command with the same reply.
pub(crate) struct Border {
    vm: Vm,
    clean: Reply,
}

struct Answers<'a> {
    reply: &'a Reply,
    asked: Vec<Vec<Bytes>>,
    patience: u32,
}

impl Host for Answers<'_> {
    fn call(&mut self, args: &[Bytes]) -> Result<Reply, Interrupt> {
        self.asked.push(args.to_vec());
        Ok(self.reply.clone())
    }

    fn may_call(&mut self, _args: &[Bytes]) -> Option<bool> {
        Some(true)
    }

    fn log(&mut self, _level: u8, _line: &[u8]) {}

    fn interrupted(&mut self) -> Option<Interrupt> {
        self.patience = self.patience.saturating_sub(1);
        (self.patience == 0).then_some(Interrupt::Killed)
    }

    fn seed(&mut self) -> u64 {
        1
    }
}

impl Border {
    pub(crate) fn new() -> Border {
        let vm = Vm::new(MEMORY_BYTES_MAX).expect("a state");
        let mut border = Border { vm, clean: Reply::Null };
        border.clean = border.run(CANARY.as_bytes(), &[], &Reply::Null).0;
        assert!(matches!(border.clean, Reply::Array(_)), "{:?}", border.clean);
        border
    }

    fn run(&mut self, code: &[u8], args: &[Bytes], reply: &Reply) -> (Reply, Vec<Vec<Bytes>>) {
        let mut host = Answers { reply, asked: Vec::new(), patience: PATIENCE };
        let script = match Script::parse(code) {
            Ok(script) => script,
            Err(error) => return (error.into(), Vec::new()),
        };
        let answered = match self.vm.compile(&script) {
            Ok(compiled) => self.vm.eval(&mut host, (&script, &compiled), args, args),
            Err(error) => Ok(error.into()),
        };
        // A script that is ended, or runs out of memory, has answered with an error by then.
        (answered.unwrap_or(Reply::Null), host.asked)
    }

    fn check_clean(&mut self, what: &dyn std::fmt::Debug) {
        let seen = self.run(CANARY.as_bytes(), &[], &Reply::Null).0;
        assert_eq!(seen, self.clean, "after {what:?}");
    }

    /// Any bytes as a script: it answers or is refused, and leaves the state as it was.
    pub(crate) fn code(&mut self, code: &[u8]) {
        self.run(code, &[Bytes::from_static(b"k")], &Reply::Integer(1));
        self.check_clean(&code.escape_ascii().to_string());
    }

    /// Keys and arguments are what they are, and so are those of a command.
    pub(crate) fn arguments(&mut self, args: &[&[u8]]) {
        let args: Vec<Bytes> = args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect();
        let code = b"if #ARGV > 0 then redis.call(unpack(ARGV)) end return {KEYS, ARGV}";
        let (answered, asked) = self.run(code, &args, &Reply::OK);
        let all = Reply::Array(args.iter().cloned().map(Reply::Bulk).collect());
        assert_eq!(answered, Reply::Array(vec![all.clone(), all]));
        assert_eq!(asked, if args.is_empty() { vec![] } else { vec![args] });
    }

    /// A reply goes in and comes out: by Redis's table of conversions in RESP2, and in RESP3 what has
    /// come out once comes out as it is.
    pub(crate) fn reply(&mut self, reply: &Reply) {
        let answered = self.run(b"return redis.pcall('x')", &[], reply).0;
        assert_eq!(plain(&answered), plain(&in_resp2(reply)), "{reply:?}");
        let code = b"redis.setresp(3) return redis.pcall('x')";
        let once = self.run(code, &[], reply).0;
        let twice = self.run(code, &[], &once).0;
        assert_eq!(plain(&twice), plain(&once), "{reply:?}");
    }

    /// Any bytes for what the libraries take apart: they are refused, or what was made of them can be put
    /// together again and is the same size then.
    pub(crate) fn libraries(&mut self, bytes: &[u8]) {
        let arg = [Bytes::copy_from_slice(bytes)];
        for (pack, unpack) in
            [("cjson.encode", "cjson.decode"), ("cmsgpack.pack", "cmsgpack.unpack")]
        {
            // One value each: behind many results Lua's own pcall pushes without a look at the room,
            // which it has, but which ends a process that is built with Lua's assertions.
            let code = format!(
                "local one = function(text) return ({unpack}(text)) end \
                 local ok, value = pcall(one, ARGV[1]) if not ok then return 'refused' end \
                 local ok, text = pcall({pack}, value) if not ok then return 'refused' end \
                 local again = {pack}(one(text)) \
                 return #again == #text and 'same' or {{text, again}}"
            );
            let answered = self.run(code.as_bytes(), &arg, &Reply::Null).0;
            let fine = [&b"refused"[..], b"same"].map(|text| Reply::Bulk(Bytes::from_static(text)));
            assert!(fine.contains(&answered), "{unpack} {}: {answered:?}", bytes.escape_ascii());
        }
        let half = bytes.len() / 2;
        let args = [&bytes[..half], &bytes[half..]].map(Bytes::copy_from_slice);
        let code = b"pcall(function() return (struct.unpack(ARGV[1], ARGV[2])) end) \
                     return pcall(struct.size, ARGV[1])";
        self.run(code, &args, &Reply::Null);
        self.check_clean(&bytes.escape_ascii().to_string());
    }
}

/// A reply that can be compared: maps and sets have no order, and NaN is NaN.
fn plain(reply: &Reply) -> String {
    let all = |items: &[Reply]| items.iter().map(plain).collect::<Vec<_>>();
    match reply {
        Reply::Simple(text) => plain(&Reply::Status(Bytes::from_static(text.as_bytes()))),
        Reply::NullArray => plain(&Reply::Null),
        Reply::Array(items) => format!("[{}]", all(items).join(" ")),
        Reply::Set(items) => {
            let mut items = all(items);
            items.sort();
            // Integers that are one number to Lua are one member.
            items.dedup();
            format!("set[{}]", items.join(" "))
        }
        Reply::Map(pairs) => {
            let pair = |(key, value): &(Reply, Reply)| format!("{}={}", plain(key), plain(value));
            let mut pairs: Vec<String> = pairs.iter().map(pair).collect();
            pairs.sort();
            format!("map[{}]", pairs.join(" "))
        }
        other => format!("{other:?}"),
    }
}

fn up_to_nul(text: &[u8]) -> Bytes {
    text.iter().copied().take_while(|byte| *byte != 0).collect()
}

/// What a script of RESP2 answers that answers what it was answered.
fn in_resp2(reply: &Reply) -> Reply {
    let all = |items: &[Reply]| Reply::Array(items.iter().map(in_resp2).collect());
    match reply {
        Reply::Simple(text) => Reply::Status(up_to_nul(text.as_bytes())),
        Reply::Status(text) => Reply::Status(up_to_nul(text)),
        Reply::Error(line) => Reply::Error(up_to_nul(line)),
        // A number of Lua's is a double; what fits no integer is the smallest one.
        Reply::Integer(number) => match *number as f64 {
            number if number >= 9_223_372_036_854_775_808.0 => Reply::Integer(i64::MIN),
            number => Reply::Integer(number as i64),
        },
        Reply::Null | Reply::NullArray => Reply::Null,
        Reply::Bulks(_) => reply.clone().unfold(),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => all(items),
        Reply::Map(pairs) | Reply::Pairs(pairs) => {
            let flat = pairs.iter().flat_map(|(key, value)| [key, value]);
            Reply::Array(flat.map(in_resp2).collect())
        }
        Reply::Boolean(value) => Reply::Integer(i64::from(*value)),
        Reply::BigNumber(text) | Reply::Verbatim { text, .. } | Reply::DoubleText(text) => {
            Reply::Bulk(text.clone())
        }
        other => other.clone(),
    }
}
