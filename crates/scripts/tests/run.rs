//! Scripts on a host that answers what it is asked.

use bytes::Bytes;
use scripts::{Host, Interrupt, Script, Vm};
use wire::resp::{BulksBuilder, Reply};

struct Mirror {
    /// Looks at whether to go on, until it says no.
    patience: u32,
    end: Interrupt,
}

impl Default for Mirror {
    fn default() -> Mirror {
        Mirror { patience: u32::MAX, end: Interrupt::Killed }
    }
}

impl Host for Mirror {
    fn call(&mut self, args: &[Bytes]) -> Result<Reply, Interrupt> {
        Ok(match &args[0][..] {
            b"fail" => Reply::Error(Bytes::from_static(b"WRONGTYPE no")),
            b"map" => Reply::Map(vec![(Reply::Bulk("k".into()), Reply::Double(1.5))]),
            b"null" => Reply::Null,
            b"ok" => Reply::OK,
            b"panic" => panic!("it was asked to"),
            b"nested" => Reply::Array(vec![Reply::Integer(1), Reply::Array(vec![Reply::OK])]),
            b"many" => {
                let mut many = BulksBuilder::with_capacity(1_000, 1_000_000);
                (0..1_000).for_each(|_| many.push(&[b'x'; 1_000]));
                many.finish()
            }
            _ => Reply::Array(args.iter().cloned().map(Reply::Bulk).collect()),
        })
    }

    fn may_call(&mut self, args: &[Bytes]) -> Option<bool> {
        (args[0] != "nosuch").then_some(true)
    }

    fn log(&mut self, _level: u8, _line: &[u8]) {}

    fn interrupted(&mut self) -> Option<Interrupt> {
        self.patience -= 1;
        (self.patience == 0).then_some(self.end)
    }

    fn seed(&mut self) -> u64 {
        7
    }
}

fn vm() -> Vm {
    Vm::new(64 << 20).expect("a state")
}

fn run_with(vm: &mut Vm, host: &mut Mirror, code: &str) -> Result<Reply, Interrupt> {
    let script = match Script::parse(code.as_bytes()) {
        Ok(script) => script,
        Err(error) => return Ok(error.into()),
    };
    match vm.compile(&script) {
        Ok(compiled) => {
            vm.eval(host, (&script, &compiled), &["k".into()], &["a".into(), "b".into()])
        }
        Err(error) => Ok(error.into()),
    }
}

fn show(reply: &Reply) -> String {
    match reply {
        Reply::Error(line) => {
            let line = String::from_utf8_lossy(line).into_owned();
            match (line.find(" script: "), line.find(", on ")) {
                (Some(from), Some(to)) => format!("-{}{}", &line[..from], &line[to..]),
                _ => format!("-{line}"),
            }
        }
        Reply::Status(text) => format!("+{}", String::from_utf8_lossy(text)),
        Reply::Integer(number) => number.to_string(),
        Reply::Bulk(text) => format!("{:?}", String::from_utf8_lossy(text)),
        Reply::Null => "null".to_owned(),
        Reply::Array(items) => {
            format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", "))
        }
        other => format!("{other:?}"),
    }
}

fn run(code: &str) -> String {
    show(&run_with(&mut vm(), &mut Mirror::default(), code).expect("not suspended"))
}

/// A script with a table that passes for one with 2^30 elements: Lua doubles an index as long as it finds
/// something there.
macro_rules! holes {
    ($code:literal) => {
        concat!(
            "local t = {1, 1, 1, 1, 1, 1, 1, 1} for i = 1, 26 do t[9 * 2 ^ i] = 1 end t[9] = 1 ",
            $code
        )
    };
}

const TOO_MANY: &str = "-ERR user_script:1: too many elements, on @user_script:1.";

/// Scripts, and what Redis answers to them.
const ANSWERS: &[(&str, &str)] = &[
    ("return 1", "1"),
    ("return {ok='a\\0b'}", "+a"),
    ("return {ok='x', err=1}", "+x"),
    ("return {ok='x', err='ERR y'}", "-ERR y"),
    ("return {ok=1, 2}", "[2]"),
    ("return setmetatable({}, {__index = function() return 'ok' end})", "[]"),
    ("redis.setresp(3) return false", "Boolean(false)"),
    ("return {KEYS[1], ARGV[1], #ARGV}", "[\"k\", \"a\", 2]"),
    ("return {1, nil, 3}", "[1]"),
    ("return 3.9", "3"),
    ("return false", "null"),
    ("return {ok='fine'}", "+fine"),
    ("return redis.error_reply('x')", "-ERR x"),
    ("return redis.error_reply('MY x')", "-MY x"),
    ("return redis.call('echo', 1, 1.5, 1e20)", "[\"echo\", \"1\", \"1.5\", \"1e+20\"]"),
    ("return redis.call('map')", "[\"k\", \"1.5\"]"),
    ("redis.setresp(3) return redis.call('map').map.k.double == 1.5", "Boolean(true)"),
    ("return redis.call('null') == false", "1"),
    ("redis.setresp(3) return redis.call('null') == nil", "Boolean(true)"),
    ("return redis.call('ok')", "+OK"),
    ("return redis.call('nested')", "[1, [+OK]]"),
    (
        "local m = redis.call('many') return {#m, #m[1], #m[1000], m[1001] == nil}",
        "[1000, 1000, 1000, 1]",
    ),
    ("return redis.pcall('fail').err", "\"WRONGTYPE no\""),
    (
        "redis.call()",
        "-ERR Please specify at least one argument for this redis lib call, on @user_script:1.",
    ),
    (
        "return redis.pcall('echo', {}).err",
        "\"ERR Lua redis lib command arguments must be strings or integers\"",
    ),
    (
        "return coroutine.wrap(function() return redis.call('echo', 'in') end)()",
        "[\"echo\", \"in\"]",
    ),
    ("return {pcall(redis.call, 'fail')}", "[null, \"WRONGTYPE no\"]"),
    ("return redis.call('fail')", "-WRONGTYPE no, on @user_script:1."),
    ("\nredis.call('fail')", "-WRONGTYPE no, on @user_script:2."),
    ("error('x')", "-ERR user_script:1: x, on @user_script:1."),
    ("error({err='My err'})", "-My err, on @user_script:1."),
    ("error({})", "-ERR unknown error, on @user_script:1."),
    ("local function f() error('in') end f()", "-ERR user_script:1: in, on @user_script:1."),
    // A finalizer would run in the script of another client.
    (
        "return {pcall(function() return newproxy(true) end)}",
        "[null, \"user_script:1: Script \
         attempted to access nonexistent global variable 'newproxy'\"]",
    ),
    (
        "return foo",
        "-ERR user_script:1: Script attempted to access nonexistent global variable 'foo', on \
             @user_script:1.",
    ),
    ("foo = 1", "-ERR user_script:1: Attempt to modify a readonly table, on @user_script:1."),
    (
        "redis.call = 1",
        "-ERR user_script:1: Attempt to modify a readonly table, on @user_script:1.",
    ),
    ("rawset(_G, 'a', 1)", "-ERR Attempt to modify a readonly table, on @user_script:1."),
    ("setmetatable(_G, {})", "-ERR Attempt to modify a readonly table, on @user_script:1."),
    (
        "getmetatable('').__index.upper = 1",
        "-ERR user_script:1: Attempt to modify a readonly table, on @user_script:1.",
    ),
    (
        "return cjson.decode('{')",
        "-ERR user_script:1: Expected object key string but found T_END at character 2, on \
             @user_script:1.",
    ),
    (
        "return bit.band('x')",
        "-ERR user_script:1: bad argument #1 to 'band' (number expected, got string), on \
             @user_script:1.",
    ),
    ("x y", "-ERR Error compiling script (new function): user_script:1: '=' expected near 'y'"),
    ("return loadstring(string.dump(function() return 1 end)) == nil", "1"),
    ("return loadstring('return 7')()", "7"),
    // The byte that the refusal quotes, before a quotation mark.
    ("return string.byte(select(2, loadstring('\\217')), -2)", "217"),
    ("local n = 0 for _ in pairs(redis) do n = n + 1 end return n > 10", "1"),
    ("return type(next(redis))", "\"nil\""),
    ("return #tostring(cjson.null)", "15"),
    (
        "return cjson.encode({a={1,2,{}}, b=cjson.null and true})",
        "\"{\\\"a\\\":[1,2,{}],\\\"b\\\":true}\"",
    ),
    ("return cjson.encode({1, nil, 3})", "\"[1,null,3]\""),
    (
        "local t = cjson.decode('[1,2,{\"a\":null}]') return tostring(t[3].a == cjson.null)",
        "\"true\"",
    ),
    ("return {struct.unpack('>HbI', struct.pack('>HbI', 258, -1, 7))}", "[258, -1, 7, 8]"),
    ("return ({cmsgpack.unpack(cmsgpack.pack({1,2,a=3}, 'x'))})[2]", "\"x\""),
    ("return {string.find('a.b', '.', 1, true)}", "[2, 2]"),
    ("return {('key:12:x'):match('^(%a+):(%d+)')}", "[\"key\", \"12\"]"),
    ("return {string.gsub('abc', '%w', {a = '1', b = true and 2})}", "[\"12c\", 3]"),
    (
        "string.find('a', '%')",
        "-ERR user_script:1: malformed pattern (ends with '%'), on @user_script:1.",
    ),
    (
        "string.gsub('a', 'a', true)",
        "-ERR user_script:1: bad argument #3 to 'gsub' (string/function/table expected), on \
             @user_script:1.",
    ),
    (
        "string.gsub('a', 'a', function() return {} end)",
        "-ERR user_script:1: invalid replacement value (a table), on @user_script:1.",
    ),
    // What a function that is called raises stays what it is.
    (
        "local t = setmetatable({}, {__index = function() error({err = 'My z'}) end}) \
         string.gsub('a', 'a', t)",
        "-My z, on @user_script:1.",
    ),
    ("return {pcall(string.rep, 'x', 2 ^ 30)}", "[null, \"not enough memory\"]"),
    (
        "local r = {} for k, v in ('a=1,b=2'):gmatch('(%w)=(%w)') do r[#r + 1] = k .. v end return r",
        "[\"a1\", \"b2\"]",
    ),
    ("local r = {} for k in ('ab'):gfind('.') do r[#r + 1] = k end return r", "[\"a\", \"b\"]"),
    (
        "for _ in ('a'):gmatch('%') do end",
        "-ERR user_script:1: malformed pattern (ends with '%'), on @user_script:1.",
    ),
    (
        "string.gmatch('a')",
        "-ERR user_script:1: bad argument #2 to 'gmatch' (string expected, got no value), on \
             @user_script:1.",
    ),
    ("return string.step == nil", "1"),
    (
        "local t = {} for i = 1, 1500 do t[i] = (i * 7) % 1500 end table.sort(t) return {t[1], t[2], t[1500]}",
        "[0, 1, 1499]",
    ),
    (
        "local t = {} for i = 1, 1500 do t[i] = i end table.sort(t, function(a, b) return a > b end) \
         return {t[1], t[1500]}",
        "[1500, 1]",
    ),
    ("string.gsub('a', 'a', function() error({err = 'My x'}) end)", "-My x, on @user_script:1."),
    (
        "string.gsub('a', 'a', function() redis.call('fail') end)",
        "-WRONGTYPE no, on @user_script:1.",
    ),
    (
        "return {pcall(string.gsub, 'a', 'a', function() error('x') end)}",
        "[null, \"user_script:1: x\"]",
    ),
    (
        "return {pcall(table.sort, {1, 2, 3}, function() error({err = 'My y'}) end)}",
        "[null, \"My y\"]",
    ),
    ("local t = {3, 1, 2} table.sort(t, function(a, b) return a > b end) return t", "[3, 2, 1]"),
    (
        "table.sort({1, 2, 3, 4, 5}, function() return true end)",
        "-ERR user_script:1: invalid order function for sorting, on @user_script:1.",
    ),
    ("table.sort({1, 'x'})", "-ERR attempt to compare string with number, on @user_script:1."),
    (
        "local t = {1, 2} table.insert(t, 1, 0) table.insert(t, 4) table.insert(t, 9, 9) \
         return {t[1], t[2], t[4], t[9], table.remove(t, 1), table.remove(t), #t, table.remove({})}",
        "[0, 1, 4, 9, 0, 4, 2]",
    ),
    (
        "table.insert({}, 1, 2, 3)",
        "-ERR user_script:1: wrong number of arguments to 'insert', on @user_script:1.",
    ),
    (
        "table.insert(nil, 1)",
        "-ERR user_script:1: bad argument #1 to 'insert' (table expected, got nil), on \
             @user_script:1.",
    ),
    ("return #string.rep('', 2147483647)", "0"),
    // These would go over 2^30 elements.
    ("table.insert({}, -2147483648, 1)", TOO_MANY),
    (holes!("table.insert(t, 1, 1)"), TOO_MANY),
    (holes!("table.remove(t, 1)"), TOO_MANY),
    (holes!("table.sort(t, rawequal)"), TOO_MANY),
    (holes!("table.foreachi(t, rawequal)"), TOO_MANY),
    ("return bit.tohex(255, 4)", "\"00ff\""),
    (
        "math.randomseed(1) local a = math.random() math.randomseed(1) return a == math.random()",
        "1",
    ),
    ("return redis.sha1hex('')", "\"da39a3ee5e6b4b0d3255bfef95601890afd80709\""),
    ("local t = {} t[1] = t return #redis.pcall('x', cjson.encode({}))", "2"),
    ("return {pcall(function() error({err='E x'}) end)}", "[null, \"E x\"]"),
    (
        "return {xpcall(function() redis.call('fail') end, function(e) return e.err end)}",
        "[null, \"WRONGTYPE no\"]",
    ),
    (
        "local co = coroutine.create(function() redis.call('fail') end) local _, e = coroutine.resume(co) return e.err",
        "\"WRONGTYPE no\"",
    ),
    ("return table.concat({1, 2}, ',')", "\"1,2\""),
    ("return tostring(os.clock() >= 0)", "\"true\""),
];

#[test]
fn what_redis_answers() {
    for (code, expected) in ANSWERS {
        assert_eq!(run(code), *expected, "{code}");
    }
}

#[test]
fn nothing_is_left_for_the_next_script() {
    let mut vm = vm();
    let mut show_of =
        |code: &str| show(&run_with(&mut vm, &mut Mirror::default(), code).expect("not suspended"));
    show_of("table.insert(redis, 'left') table.insert(_G, 'left') return 1");
    assert_eq!(show_of("return {redis[1] == nil, rawget(_G, 1) == nil}"), "[1, 1]");
    show_of("cjson.encode_max_depth(1) return 1");
    assert_eq!(show_of("return cjson.encode({{{1}}})"), "\"[[[1]]]\"");
    show_of("redis.setresp(3) return 1");
    assert_eq!(show_of("return redis.call('null') == false"), "1");
    show_of("setfenv(pcall, {}) return 1");
    assert_eq!(show_of("return {pcall(error, 'x')}"), "[null, \"x\"]");
    show_of("setfenv(1, {}) x = 1 return x");
    assert_eq!(show_of("return pcall ~= nil"), "1");
    show_of("collectgarbage('stop') return 1");
    assert_eq!(show_of("return math.random(1000000)"), show_of("return math.random(1000000)"));
}

#[test]
fn an_endless_loop_ends_whatever_it_catches() {
    for code in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "while true do xpcall(function() while true do end end, function(e) return e end) end",
        "while true do local c = coroutine.create(function() while true do end end) \
         coroutine.resume(c) end",
        "local c = coroutine.wrap(function() while true do end end) while true do pcall(c) end",
        "while true do pcall(loadstring, 'x') end",
        // In functions that run no Lua meanwhile.
        "return string.find(string.rep('a', 40), string.rep('a?', 40) .. string.rep('a', 40))",
        "return string.match(string.rep('a', 50000), '.-.-.-b')",
        "return string.gsub(string.rep('a', 50000), '.-.-b', '')",
        "for _ in string.gmatch(string.rep('(', 50000), '%b()') do end",
        "for _ in string.gfind(string.rep('(', 50000), '%b()') do end",
        "local s = string.rep('x', 1000) return string.rep('a', 1e5):find('[' .. s .. ']*[' .. s .. ']')",
        "local s, t = string.rep('a?', 200) .. 'b', {} for i = 1, 1000 do t[i] = s end \
         table.foreachi(t, string.find)",
        "local t = {} for i = 1, 2000 do t[i] = i % 7 end table.sort(t)",
        "local t = {} for i = 1, 2000 do t[i] = i % 7 end table.sort(t, rawequal)",
    ] {
        let mut vm = vm();
        let mut host = Mirror { patience: 3, end: Interrupt::Killed };
        let reply = run_with(&mut vm, &mut host, code).expect("an end that is told");
        let text = show(&reply);
        assert!(text.starts_with("-ERR Script killed by user with SCRIPT KILL"), "{code}: {text}");
        let mut host = Mirror { patience: 3, end: Interrupt::Suspended };
        assert_eq!(run_with(&mut vm, &mut host, code), Err(Interrupt::Suspended), "{code}");
        assert_eq!(run_with(&mut vm, &mut Mirror::default(), "return 1"), Ok(Reply::Integer(1)));
    }
}

/// Iterators keep nothing of the host's, and do not wait for the collector to make room.
#[test]
fn any_number_of_iterators_may_be_alive() {
    let code = "local t = {} for i = 1, 20000 do t[i] = string.gmatch('a', 'a') end
        for i = 1, 20000 do assert(t[i]() == 'a') end return #t";
    assert_eq!(run(code), "20000");
}

/// Those that are not ours are known to come to an end soon, and to need little of the stack.
#[test]
fn each_function_of_strings_and_tables_is_ours_or_known() {
    let code = "local names = {} for name, f in pairs(...) do names[#names + 1] = name end
        table.sort(names) return table.concat(names, ' ')";
    let names = |library: &str| run(&code.replace("...", library));
    assert_eq!(
        names("string"),
        "\"byte char dump find format gfind gmatch gsub len lower match rep reverse sub upper\""
    );
    assert_eq!(names("table"), "\"concat foreach foreachi getn insert maxn remove setn sort\"");
}

/// Lua's own matcher uses the stack for each item and ended the process at some ten thousand.
#[test]
fn patterns_and_callbacks_nest_only_so_deep() {
    let deep = "return {pcall(string.find, string.rep('a', 50000), string.rep('a?', 50000))}";
    assert_eq!(run(deep), "[null, \"pattern too complex\"]");
    let most = "return {string.find(string.rep('a', 499), string.rep('a?', 499))}";
    assert_eq!(run(most), "[1, 499]");
    let nested =
        "local function f(n) return (string.gsub('a', 'a', function() return f(n + 1) end)) end
        return {pcall(f, 1)}";
    assert!(run(nested).contains("overflow"), "{}", run(nested));
}

#[test]
fn memory_has_an_end() {
    for code in [
        "local t = {} while true do t[#t + 1] = string.rep('x', 1000) .. #t end",
        "return string.rep('x', 1000000000)",
        "local s = 'x' while true do s = s .. s end",
        "local t = {} for i = 1, 1e9 do t[i] = i end",
        // While a reply is put on the stack, and while an argument is.
        "local t = {} while true do t[#t + 1] = redis.call('many') end",
        "local t = {} while true do t[#t + 1] = redis.call('echo', #t .. string.rep('x', 9000)) end",
        "local t = {} while true do t[#t + 1] = redis.call('ok') end",
        // What is put together beside Lua's memory: one string many times over, one table in another.
        "local s, t = string.rep('x', 90000), {} for i = 1, 1000 do t[i] = s end return t",
        "local s, t = string.rep('x', 90000), {} for i = 1, 1000 do t[i] = s end return #cjson.encode(t)",
        "local s, t = string.rep('x', 90000), {} for i = 1, 1000 do t[i] = s end return #cmsgpack.pack(t)",
        "local t = {} for i = 1, 40 do t = {t, t} end return t",
        "local t = string.rep('x', 999) for i = 1, 40 do t = {t, t} end return #cjson.encode(t)",
        "local s, f = string.rep('x', 5000000) \
         f = function(c) if c == 'b' then string.gsub('ab', '.', f) end return s end \
         return #string.gsub('ab', '.', f)",
        // While a result is put together.
        "return #string.gsub(string.rep('a', 9000), 'a', string.rep('x', 9000))",
        "return #string.gsub(string.rep('a', 100000), '.*', string.rep('%0', 100000))",
        "local s = string.rep('x', 1000000) return load(function() return s end)",
    ] {
        let mut vm = Vm::new(16 << 20).expect("a state");
        let reply = run_with(&mut vm, &mut Mirror::default(), code).expect("not suspended");
        assert!(show(&reply).contains("not enough memory"), "{code}: {}", show(&reply));
        assert_eq!(run_with(&mut vm, &mut Mirror::default(), "return 1"), Ok(Reply::Integer(1)));
        assert!(vm.collect() < 2 << 20, "{code}: {}", vm.used_memory());
    }
}

#[test]
fn what_scripts_drop_is_collected() {
    let mut vm = Vm::new(16 << 20).expect("a state");
    for code in [
        "for i = 1, 100000 do local s = string.rep('x', 1000) .. i end return 1",
        "for i = 1, 100 do local m = redis.call('many') end return 1",
        "return 1",
    ] {
        for _ in 0..3 {
            let reply = run_with(&mut vm, &mut Mirror::default(), code);
            assert_eq!(reply, Ok(Reply::Integer(1)), "{code}");
        }
    }
    for _ in 0..100_000 {
        run_with(&mut vm, &mut Mirror::default(), "return redis.call('echo', ARGV[1])")
            .expect("not suspended");
    }
    assert!(vm.used_memory() < 8 << 20, "{}", vm.used_memory());
}

#[test]
fn a_panic_of_the_host_ends_the_script_and_not_the_state() {
    let mut vm = vm();
    for code in ["redis.call('panic')", "coroutine.wrap(function() redis.call('panic') end)()"] {
        let run = || run_with(&mut vm, &mut Mirror::default(), code);
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        let panic = panic.expect_err("it passes through the script");
        assert_eq!(panic.downcast_ref(), Some(&"it was asked to"), "{code}");
        assert_eq!(
            run_with(&mut vm, &mut Mirror::default(), "return redis.call('ok')"),
            Ok(Reply::Status("OK".into()))
        );
    }
}

#[test]
fn what_is_nested_without_end_is_refused() {
    let text = run("local t = {} t[1] = t return cjson.encode(t)");
    assert!(text.contains("excessive nesting"), "{text}");
    let text = run("return cjson.decode(string.rep('[', 100000))");
    assert!(text.contains("too many nested data structures"), "{text}");
    let text = run("return cmsgpack.unpack(string.rep(string.char(0x91), 100000))");
    assert!(text.contains("too many nested"), "{text}");
    assert!(run("local t = {} t[1] = t return #cmsgpack.pack(t)").parse::<u64>().is_ok());
    let mut reply = run_with(&mut vm(), &mut Mirror::default(), "local t = {} t[1] = t return t")
        .expect("told");
    let mut depth = 0;
    while let Reply::Array(mut items) = reply {
        reply = items.pop().expect("one item");
        depth += 1;
    }
    assert_eq!(depth, scripts::REPLY_DEPTH_MAX + 1);
    assert_eq!(show(&reply), "-ERR reached lua stack limit");
}

#[test]
fn libraries() {
    let mut vm = vm();
    let mut show_of = |code: &str| match vm.load(code.as_bytes()) {
        Ok(library) => {
            let names =
                library.functions.iter().map(|f| String::from_utf8_lossy(&f.name).into_owned());
            names.collect::<Vec<_>>().join(",")
        }
        Err(error) => error.to_string(),
    };
    for (code, expected) in [
        ("#!lua name=x\nredis.register_function('f', function() end)", "f"),
        (
            "#!lua name=x\nredis.register_function{function_name='f', callback=function() end, \
             flags={'no-writes'}} redis.register_function('g', function() end)",
            "f,g",
        ),
        ("redis.register_function('f', function() end)", "ERR Missing library metadata"),
        ("#!lua\nx", "ERR Library name was not given"),
        ("#!lua name=a b\nx", "ERR Invalid metadata value given: b"),
        (
            "#!lua name=x-y\nx",
            "ERR Library names can only contain letters, numbers, or \
          underscores(_) and must be at least one character long",
        ),
        ("#!js name=x\nx", "ERR Engine 'js' not found"),
        ("#!lua name=x\nlocal x = 1", "ERR No functions registered"),
        (
            "#!lua name=x\nx y",
            "ERR Error compiling function: user_function:2: '=' expected near 'y'",
        ),
        (
            "#!lua name=x\nmath.abs(1)",
            "ERR Error registering functions: ERR user_function:2: Script attempted to access \
             nonexistent global variable 'math'",
        ),
        (
            "#!lua name=x\nredis.call('x')",
            "ERR Error registering functions: ERR user_function:2: Script attempted to access \
             nonexistent global variable 'call'",
        ),
        (
            "#!lua name=x\nredis.register_function(1)",
            "ERR Error registering functions: ERR calling redis.register_function with a single \
             argument is only applicable to Lua table (representing named arguments).",
        ),
        (
            "#!lua name=x\nwhile true do end",
            "ERR Error registering functions: ERR FUNCTION LOAD timeout",
        ),
    ] {
        assert_eq!(show_of(code), expected, "{code}");
    }
}

#[test]
fn functions_run() {
    let mut vm = vm();
    let code = "#!lua name=lib\nlocal function twice(x) return x * 2 end\n\
                redis.register_function('f', function(keys, args) return {keys[1], args[1], \
                twice(4), math.abs(-1)} end)\n\
                redis.register_function('g', function() return KEYS end)\n\
                redis.register_function('h', function() redis.call('fail') end)";
    let library = std::sync::Arc::new(vm.load(code.as_bytes()).expect("a library"));
    let mut call = |name: &str| {
        let mut host = Mirror::default();
        let reply = vm.fcall(&mut host, (&library, name.as_bytes()), &["k".into()], &["a".into()]);
        show(&reply.expect("not suspended"))
    };
    assert_eq!(call("f"), "[\"k\", \"a\", 8, 1]");
    assert_eq!(call("f"), "[\"k\", \"a\", 8, 1]");
    assert!(call("g").contains("nonexistent global variable 'KEYS'"), "{}", call("g"));
    assert_eq!(call("h"), "-WRONGTYPE no, on @user_function:5.");
    assert_eq!(call("nosuch"), "-ERR Function not found");
}

#[test]
fn more_scripts_than_a_state_keeps() {
    let mut vm = Vm::new(16 << 20).expect("a state");
    for round in 0..3 {
        for number in 0..1_500 {
            let padding = "x".repeat(1_000);
            let code = format!("local s = '{padding}' return {number}");
            let reply = run_with(&mut vm, &mut Mirror::default(), &code);
            assert_eq!(reply, Ok(Reply::Integer(number)), "{round}");
        }
    }
    assert!(vm.collect() < 4 << 20, "{}", vm.used_memory());
}

#[test]
fn a_library_takes_the_place_of_the_one_before() {
    let mut vm = Vm::new(16 << 20).expect("a state");
    let padding = "x".repeat(10_000);
    for number in 0..1_000 {
        let code = format!(
            "#!lua name=lib\nlocal s = '{number}{padding}'\n\
             redis.register_function('f', function() return #s * 0 + {number} end)\n\
             redis.register_function('g{number}', function() return s end)"
        );
        let library = std::sync::Arc::new(vm.load(code.as_bytes()).expect("a library"));
        let mut call =
            |name: &str| vm.fcall(&mut Mirror::default(), (&library, name.as_bytes()), &[], &[]);
        assert_eq!(call("f"), Ok(Reply::Integer(number)));
        assert!(matches!(call(&format!("g{number}")), Ok(Reply::Bulk(_))));
    }
    assert!(vm.collect() < 2 << 20, "{}", vm.used_memory());
}

#[test]
fn what_there_is_no_room_to_begin_with() {
    let mut vm = Vm::new(2 << 20).expect("a state");
    let script = Script::parse(b"return #ARGV").expect("a script");
    let compiled = vm.compile(&script).expect("it is Lua");
    let mut count = |args: &[Bytes]| {
        let reply = vm.eval(&mut Mirror::default(), (&script, &compiled), &[], args);
        show(&reply.expect("not suspended"))
    };
    let large = vec![Bytes::from(vec![b'x'; 3 << 20])];
    assert!(count(&large).contains("not enough memory"), "{}", count(&large));
    assert_eq!(count(&vec![Bytes::from_static(b"a"); 5_000]), "5000");
    assert_eq!(count(&[]), "0");
}

#[test]
fn results_of_any_length() {
    let mut vm = vm();
    for length in [0, 1, 65_536, 65_537, 1_000_000] {
        let text = Bytes::from(vec![b'x'; length]);
        for (code, expected) in [
            (format!("return string.rep('x', {length})"), Reply::Bulk(text.clone())),
            (format!("return {{ok = string.rep('x', {length})}}"), Reply::Status(text.clone())),
        ] {
            assert_eq!(run_with(&mut vm, &mut Mirror::default(), &code), Ok(expected), "{code}");
        }
    }
}
