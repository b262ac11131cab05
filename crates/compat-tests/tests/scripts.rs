//! Lua scripts and functions: what they answer is what Redis answers, and what Redis cannot do: kill
//! a script that has written, serve other data while one runs, keep functions through a crash.

use std::time::{Duration, Instant};

use compat_tests::differential::scripts::CORPUS;
use compat_tests::process::{Options, Server, wait_until};
use compat_tests::resp::{Client, Value, encode};

fn eval(client: &mut Client, command: &str, script: &str) -> Value {
    client.call(&[command, script, "2", "k1", "k2", "a1", "10", ""]).expect("an answer")
}

#[test]
fn scripts_answer_what_they_answer_on_redis() {
    let redis = Server::start(Options::redis()).expect("start Redis");
    let target = Server::start(Options::evenkeel()).expect("start the server under test");
    let mut different = Vec::new();
    for protocol in ["HELLO 2", "HELLO 3"] {
        let (mut theirs, mut ours) = (redis.client().unwrap(), target.client().unwrap());
        theirs.line(protocol).unwrap();
        ours.line(protocol).unwrap();
        for command in ["EVAL", "EVAL_RO"] {
            for script in CORPUS {
                let (expected, answered) =
                    (eval(&mut theirs, command, script), eval(&mut ours, command, script));
                let kept = |client: &mut Client| {
                    let keys = ["k1", "k2"].map(|key| client.call(&["TYPE", key]).unwrap());
                    client.line("FLUSHALL").unwrap();
                    keys
                };
                if (&expected, kept(&mut theirs)) != (&answered, kept(&mut ours)) {
                    let text = format!("{command} {script}\n  {expected:?}\n  {answered:?}");
                    different.push(text);
                }
            }
        }
    }
    let text = different.join("\n");
    assert!(different.is_empty(), "{} replies differ:\n{text}", different.len());
}

/// Commands about scripts and functions, in order, on both servers.
const SESSION: &[&[&str]] = &[
    &["SCRIPT", "LOAD", "return 7"],
    &["EVALSHA", "59b6ab2fbe0ee4b25733de0f62e6cda4899ef8e9", "0"],
    &["EVALSHA", "59B6AB2FBE0EE4B25733DE0F62E6CDA4899EF8E9", "0"],
    &["EVALSHA_RO", "59b6ab2fbe0ee4b25733de0f62e6cda4899ef8e9", "0"],
    &["EVALSHA", "ffffffffffffffffffffffffffffffffffffffff", "0"],
    &["EVALSHA", "ff", "0"],
    &["EVALSHA", "59b6ab2fbe0ee4b25733de0f62e6cda4899ef8e9", "x"],
    &["SCRIPT", "EXISTS", "59b6ab2fbe0ee4b25733de0f62e6cda4899ef8e9", "ff"],
    &["SCRIPT", "LOAD", "x y"],
    &["SCRIPT", "LOAD", "#!js\nreturn 1"],
    &["SCRIPT", "FLUSH", "nosuch"],
    &["SCRIPT", "FLUSH", "ASYNC"],
    &["EVALSHA", "59b6ab2fbe0ee4b25733de0f62e6cda4899ef8e9", "0"],
    &["EVAL", "return 7", "0"],
    &["EVALSHA", "59b6ab2fbe0ee4b25733de0f62e6cda4899ef8e9", "0"],
    &["SCRIPT", "KILL"],
    &["FUNCTION", "KILL"],
    &["SCRIPT", "NOSUCH"],
    &["SCRIPT", "EXISTS"],
    &["SCRIPT", "DEBUG", "no"],
    &["SCRIPT", "DEBUG", "nosuch"],
    // What has no order is given one where a script goes by it, and only there.
    &["SADD", "letters", "m", "aa", "b", "z", "a"],
    &["SADD", "numbers", "10", "2", "1"],
    &["EVAL", "return redis.call('sort',KEYS[1],'by','_')", "1", "letters"],
    &["EVAL", "return redis.call('sort',KEYS[1],'by','_','get','#','get','_:*')", "1", "letters"],
    &["EVAL_RO", "return redis.call('sort_ro',KEYS[1],'by','_','desc')", "1", "letters"],
    &["EVAL", "return redis.call('sort',KEYS[1],'by','_')", "1", "numbers"],
    &["SORT", "numbers", "BY", "_"],
    &["MULTI"],
    &["EVAL", "return redis.call('sort',KEYS[1],'by','_')", "1", "numbers"],
    &["SORT", "numbers", "BY", "_"],
    &["EXEC"],
    &["EVAL", "return 1", "-1"],
    &["EVAL", "return 1", "2", "a"],
    &["EVAL", "return 1", "x"],
    &["EVAL", "return 1"],
    &["COMMAND", "GETKEYS", "EVAL", "return 1", "2", "a", "b", "c"],
    &["MULTI"],
    &["EVAL", "redis.call('set',KEYS[1],ARGV[1]) return redis.call('get',KEYS[1])", "1", "k", "v"],
    &["EVAL", "redis.call('append',KEYS[1],'1') return redis.call('nosuch')", "1", "k"],
    &["GET", "k"],
    &["EXEC"],
    &["GET", "k"],
    &[
        "FUNCTION",
        "LOAD",
        "#!lua name=one\nlocal n = 2\nredis.register_function('f', function(keys, args) return {keys, args, n} end)",
    ],
    &["FUNCTION", "LOAD", "#!lua name=one\nredis.register_function('f', function() end)"],
    &["FUNCTION", "LOAD", "#!lua name=two\nredis.register_function('f', function() end)"],
    &[
        "FUNCTION",
        "LOAD",
        "REPLACE",
        "#!lua name=one\nredis.register_function{function_name='f', callback=function(keys, args) return redis.call('set', keys[1], args[1]) end}",
    ],
    &[
        "FUNCTION",
        "LOAD",
        "#!lua name=two\nredis.register_function{function_name='r', callback=function(keys) return redis.call('get', keys[1]) end, flags={'no-writes', 'allow-stale'}, description='reads'}",
    ],
    &["FCALL", "f", "1", "k", "w"],
    &["FCALL", "r", "1", "k"],
    &["FCALL_RO", "r", "1", "k"],
    &["FCALL_RO", "f", "1", "k", "w"],
    &["FCALL", "nosuch", "0"],
    &["FCALL", "f", "x"],
    &["FCALL", "f", "-1"],
    &["FCALL", "f", "2", "a"],
    &["FCALL", "f", "0"],
    &["FUNCTION", "LIST", "LIBRARYNAME", "o*"],
    &["FUNCTION", "LIST", "WITHCODE", "LIBRARYNAME", "TWO"],
    &["FUNCTION", "LIST", "LIBRARYNAME"],
    &["FUNCTION", "LIST", "nosuch"],
    &["FUNCTION", "STATS"],
    &["FUNCTION", "DELETE", "nosuch"],
    &["FUNCTION", "DELETE", "one"],
    &["FCALL", "f", "0"],
    &["FUNCTION", "LOAD", "redis.register_function('x', function() end)"],
    &["FUNCTION", "LOAD", "#!lua\nreturn 1"],
    &["FUNCTION", "LOAD", "#!lua name=x foo=bar\nreturn 1"],
    &["FUNCTION", "LOAD", "#!lua name=x name=y\nreturn 1"],
    &["FUNCTION", "LOAD", "#!nosuch name=x\nreturn 1"],
    &["FUNCTION", "LOAD", "#!lua name=a.b\nreturn 1"],
    &["FUNCTION", "LOAD", "#!lua name=x\nreturn 1"],
    &["FUNCTION", "LOAD", "#!lua name=x\nx y"],
    &["FUNCTION", "LOAD", "#!lua name=x\nredis.call('ping')"],
    &["FUNCTION", "LOAD", "#!lua name=x\nx = 1"],
    &["FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('a b', function() end)"],
    &["FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('a', 1)"],
    &["FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('a')"],
    &["FUNCTION", "LOAD", "#!lua name=x\nredis.register_function()"],
    &["FUNCTION", "LOAD", "#!lua name=x\nredis.register_function{function_name='a'}"],
    &["FUNCTION", "LOAD", "#!lua name=x\nredis.register_function{callback=function() end}"],
    &[
        "FUNCTION",
        "LOAD",
        "#!lua name=x\nredis.register_function{function_name='a', callback=function() end, flags={'nosuch'}}",
    ],
    &[
        "FUNCTION",
        "LOAD",
        "#!lua name=x\nredis.register_function{function_name='a', callback=function() end, nosuch=1}",
    ],
    &[
        "FUNCTION",
        "LOAD",
        "#!lua name=x\nredis.register_function('a', function() end) redis.register_function('a', function() end)",
    ],
    &["FUNCTION", "LOAD", "NOSUCH", "#!lua name=x\nreturn 1"],
    &["FUNCTION", "RESTORE", "nonsense"],
    &["FUNCTION", "RESTORE", "nonsense", "nosuch"],
    &["FUNCTION", "FLUSH", "nosuch"],
    &["FUNCTION", "FLUSH"],
    &["FUNCTION", "LIST"],
    &["FCALL", "r", "1", "k"],
];

#[test]
fn commands_about_scripts_answer_what_they_answer_on_redis() {
    let redis = Server::start(Options::redis()).expect("start Redis");
    let target = Server::start(Options::evenkeel()).expect("start the server under test");
    let (mut theirs, mut ours) = (redis.client().unwrap(), target.client().unwrap());
    let mut different = Vec::new();
    for protocol in ["HELLO 2", "HELLO 3"] {
        theirs.line(protocol).unwrap();
        ours.line(protocol).unwrap();
        for command in SESSION {
            let (expected, answered) = (theirs.call(command).unwrap(), ours.call(command).unwrap());
            if expected != answered {
                different.push(format!("{command:?}\n  {expected:?}\n  {answered:?}"));
            }
        }
    }
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
}

const LIBRARY: &str = "#!lua name=lib\n\
    redis.register_function('add', function(keys, args) return redis.call('incrby', keys[1], args[1]) end)\n\
    redis.register_function{function_name='look', callback=function(keys) return redis.call('get', keys[1]) end, flags={'no-writes'}}";

#[test]
fn functions_travel_to_redis_and_back() {
    let redis = Server::start(Options::redis()).expect("start Redis");
    let target = Server::start(Options::evenkeel()).expect("start the server under test");
    let (mut theirs, mut ours) = (redis.client().unwrap(), target.client().unwrap());
    let long = format!("{LIBRARY}\n--{}", "compressible ".repeat(100));
    theirs.call(&["FUNCTION", "LOAD", &long]).unwrap();
    let payload = theirs.line("FUNCTION DUMP").unwrap();
    let payload = payload.text().expect("a payload");
    let restore = |policy: &'static str| [b"FUNCTION", &b"RESTORE"[..], payload, policy.as_bytes()];
    assert_eq!(ours.call(&restore("APPEND")).unwrap(), Value::Simple(b"OK".to_vec()));
    assert_eq!(ours.line("FCALL add 1 k 5").unwrap(), Value::Int(5));
    assert!(ours.call(&restore("APPEND")).unwrap().error_text().contains("already exists"));
    assert_eq!(ours.call(&restore("REPLACE")).unwrap(), Value::Simple(b"OK".to_vec()));
    let back = ours.line("FUNCTION DUMP").unwrap();
    let restored = [b"FUNCTION", &b"RESTORE"[..], back.text().expect("a payload"), b"FLUSH"];
    assert_eq!(theirs.call(&restored).unwrap(), Value::Simple(b"OK".to_vec()));
    let with_code = ["FUNCTION", "LIST", "WITHCODE"];
    let code = |list: Value| format!("{:?}", list.items().unwrap()[0].items().unwrap().last());
    assert_eq!(code(theirs.call(&with_code).unwrap()), code(ours.call(&with_code).unwrap()));
    assert_eq!(theirs.line("FCALL add 1 k 5").unwrap(), Value::Int(5));
}

#[test]
fn functions_survive_a_crash_and_scripts_do_not() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let mut server = Server::start(Options::evenkeel()).expect("start");
    let mut client = server.client().unwrap();
    client.call(&["FUNCTION", "LOAD", LIBRARY]).unwrap();
    client
        .call(&[
            "FUNCTION",
            "LOAD",
            "#!lua name=gone\nredis.register_function('gone', function() end)",
        ])
        .unwrap();
    client.line("FUNCTION DELETE gone").unwrap();
    assert_eq!(client.line("FCALL add 1 k 5").unwrap(), Value::Int(5));
    let sha = client.call(&["SCRIPT", "LOAD", "return 7"]).unwrap().to_text();
    for round in 2..4 {
        server.kill().expect("kill");
        server.launch().expect("launch");
        let mut client = server.client().unwrap();
        assert_eq!(client.line("FCALL add 1 k 5").unwrap(), Value::Int(5 * round));
        assert_eq!(client.line("FCALL_RO look 1 k").unwrap().to_text(), (5 * round).to_string());
        assert!(client.line("FCALL gone 0").unwrap().is_error());
        let list = client.line("FUNCTION LIST").unwrap();
        assert_eq!(list.items().map(<[Value]>::len), Some(1), "{list:?}");
        let forgotten = client.call(&["EVALSHA", &sha, "0"]).unwrap();
        assert!(forgotten.error_text().starts_with("NOSCRIPT"), "{forgotten:?}");
    }
}

/// A script runs on its own connection; what it answers comes by the handle.
fn in_background(server: &Server, command: &[&str]) -> std::thread::JoinHandle<Value> {
    let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
    let mut client = server.client().unwrap();
    client.set_read_timeout(Duration::from_secs(60)).unwrap();
    std::thread::spawn(move || client.call(&command).expect("an answer"))
}

#[test]
fn endless_scripts_are_killed_and_leave_nothing() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let server = Server::start(Options::evenkeel()).expect("start");
    let mut client = server.client().unwrap();
    client.line("CONFIG SET lua-time-limit 50").unwrap();
    client.call(&["FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('endless', function(keys) redis.call('set', keys[1], 'f') while true do end end)"]).unwrap();
    client.line("SET before 1").unwrap();
    let endless: &[(&[&str], &str, &str)] = &[
        (&["EVAL", "while true do end", "0"], "SCRIPT", "FUNCTION"),
        (&["EVAL", "redis.call('set','w',1) while true do end", "0"], "SCRIPT", "FUNCTION"),
        (&["EVAL", "while true do redis.call('incr','w') end", "0"], "SCRIPT", "FUNCTION"),
        (
            &[
                "EVAL",
                "redis.call('set','w',1) while true do pcall(function() while true do end end) end",
                "0",
            ],
            "SCRIPT",
            "FUNCTION",
        ),
        (&["FCALL", "endless", "1", "w"], "FUNCTION", "SCRIPT"),
    ];
    for (command, kind, other) in endless {
        let running = in_background(&server, command);
        let busy = |client: &mut Client| client.line("GET before").unwrap().is_error();
        wait_until("the script to be busy", Duration::from_secs(20), || Ok(busy(&mut client)))
            .unwrap();
        let told = client.line("GET before").unwrap();
        assert!(told.error_text().starts_with("BUSY Redis is busy running a script"), "{told:?}");
        // Who has selected the database is told so whatever it says, also when it is to be queued.
        for line in ["PING", "CLIENT ID", "INFO", "SUBSCRIBE c", "FUNCTION LIST", "WATCH k"] {
            assert_eq!(client.line(line).unwrap(), told, "{line}");
        }
        client.line("MULTI").unwrap();
        assert_eq!(client.line("SET w 1").unwrap(), told);
        let ended = client.line("EXEC").unwrap();
        assert!(
            ended.error_text().starts_with("EXECABORT Transaction discarded because of: BUSY ")
        );
        for line in ["MULTI", "DISCARD", "FUNCTION STATS", "ADMIN STATUS", "HELLO 2"] {
            assert!(!client.line(line).unwrap().is_error(), "{line}");
        }
        // What has nothing to do with it goes on, other data too.
        client.line("SELECT 1").unwrap();
        assert_eq!(client.line("PING").unwrap(), Value::Simple(b"PONG".to_vec()));
        let started = Instant::now();
        for _ in 0..20 {
            assert_eq!(client.line("SET elsewhere 1").unwrap(), Value::Simple(b"OK".to_vec()));
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        client.line("SELECT 0").unwrap();
        let refused = client.line(&format!("{other} KILL")).unwrap();
        assert!(refused.error_text().starts_with("BUSY"), "{refused:?}");
        assert_eq!(client.line(&format!("{kind} KILL")).unwrap(), Value::Simple(b"OK".to_vec()));
        let ended = running.join().expect("a thread that ends");
        assert!(ended.error_text().contains("killed by user"), "{command:?}: {ended:?}");
        assert_eq!(client.line("GET before").unwrap(), Value::Bulk(b"1".to_vec()));
        assert_eq!(client.line("GET w").unwrap(), Value::Nil, "{command:?}");
        assert!(client.line("SCRIPT KILL").unwrap().error_text().starts_with("NOTBUSY"));
    }
    server.check_log().unwrap();
}

#[test]
fn scripts_may_debug_if_that_is_allowed() {
    let extra = ["--enable-debug-command", "yes"].map(String::from).to_vec();
    let server = Server::start(Options { extra, ..Options::evenkeel() }).expect("start");
    let mut client = server.client().unwrap();
    client.line("HELLO 3").unwrap();
    let mut eval = |script: &str| client.call(&["EVAL", script, "1", "k"]).unwrap();
    let protocol = "redis.setresp(3) return redis.call('debug', 'protocol', 'map')";
    assert!(eval(protocol).error_text().contains("not allowed from script"));
    let mut other = server.client().unwrap();
    assert_eq!(
        other.line("DEBUG SET-DISABLE-DENY-SCRIPTS 1").unwrap(),
        Value::Simple(b"OK".to_vec())
    );
    assert!(matches!(eval(protocol), Value::Map(pairs) if pairs.len() == 3));
    // Time stands still in a script, however long it takes.
    let slept = "redis.call('set', KEYS[1], 1, 'px', 1) redis.call('debug', 'sleep', 0.02) \
                 return redis.call('exists', KEYS[1])";
    assert_eq!(eval(slept), Value::Int(1));
    assert_eq!(other.line("EXISTS k").unwrap(), Value::Int(0));
    other.line("DEBUG SET-DISABLE-DENY-SCRIPTS 0").unwrap();
    assert!(eval(protocol).error_text().contains("not allowed from script"));
}

#[test]
fn what_a_script_has_written_is_nowhere_else_yet() {
    let server = Server::start(Options::evenkeel()).expect("start");
    let mut client = server.client().unwrap();
    let script = "redis.call('set', KEYS[1], 1) return {redis.call('wait', 1, 0), redis.call('waitaof', 0, 1, 0)}";
    let held = client.call(&["EVAL", script, "1", "k"]).unwrap();
    let none = Value::Int(0);
    let both = Value::Array(vec![none.clone(), none.clone()]);
    assert_eq!(held, Value::Array(vec![none, both]));
    let refused = client.call(&["EVAL", "return redis.call('wait', 'x', 0)", "0"]).unwrap();
    assert!(refused.error_text().starts_with("ERR value is not an integer"), "{refused:?}");
}

#[test]
fn a_long_script_is_atomic_and_comes_to_its_end() {
    let server = Server::start(Options::evenkeel()).expect("start");
    let mut client = server.client().unwrap();
    client.set_read_timeout(Duration::from_secs(60)).unwrap();
    client.line("SET n 0").unwrap();
    let slow = "for i = 1, 3000 do redis.call('incr', KEYS[1]) redis.call('rpush', KEYS[2], i) \
                for j = 1, 2000 do end end return {redis.call('get', KEYS[1]), redis.call('llen', KEYS[2])}";
    let running = in_background(&server, &["EVAL", slow, "2", "n", "list"]);
    // Nobody sees a part of it.
    let mut seen = client.line("GET n").unwrap().to_text();
    while seen == "0" {
        seen = client.line("GET n").unwrap().to_text();
    }
    assert_eq!(seen, "3000");
    let answered = running.join().expect("a thread that ends");
    let text: Vec<String> = answered.items().unwrap().iter().map(|v| format!("{v:?}")).collect();
    assert_eq!(answered.items().unwrap()[0].to_text(), "3000", "{text:?}");
    assert_eq!(answered.items().unwrap()[1], Value::Int(3000));
    // As a part of a transaction, too.
    for line in [&["MULTI"][..], &["INCR", "n"], &["EVAL", slow, "2", "n", "list"], &["INCR", "n"]]
    {
        assert!(!client.call(line).unwrap().is_error());
    }
    let replies = client.line("EXEC").unwrap();
    let items = replies.items().expect("replies");
    assert_eq!((&items[0], &items[2]), (&Value::Int(3001), &Value::Int(6002)), "{replies:?}");
    server.check_log().unwrap();
}

#[test]
fn memory_of_scripts_has_a_limit() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let server = Server::start(Options::evenkeel()).expect("start");
    let mut client = server.client().unwrap();
    client.set_read_timeout(Duration::from_secs(60)).unwrap();
    client.line("CONFIG SET lua-memory-limit 16mb").unwrap();
    let hungry = [
        "EVAL",
        "redis.call('set','w',1) local t={} while true do t[#t+1]=('x'):rep(1000)..#t end",
        "0",
    ];
    let refused = client.call(&hungry).unwrap();
    assert!(refused.error_text().contains("not enough memory"), "{refused:?}");
    assert_eq!(
        client.call(&["EVAL", "return #('x'):rep(1000000)", "0"]).unwrap(),
        Value::Int(1_000_000)
    );
    server.check_log().unwrap();
}

#[test]
fn a_script_makes_no_longer_values_than_a_client_may() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let server = Server::start(Options::evenkeel()).expect("start");
    let mut client = server.client().unwrap();
    client.set_read_timeout(Duration::from_secs(60)).unwrap();
    let script = "return redis.call('SET', KEYS[1], ('x'):rep(ARGV[1]))";
    let refused = client.call(&["EVAL", script, "1", "k", "67108865"]).unwrap();
    assert!(refused.error_text().contains("exceeds maximum allowed size"), "{refused:?}");
    let most = client.call(&["EVAL", script, "1", "k", "67108864"]).unwrap();
    assert!(!most.is_error(), "{most:?}");
    assert_eq!(client.line("STRLEN k").unwrap(), Value::Int(64 << 20));
    server.check_log().unwrap();
}

/// What runs in a library of Lua's can be stopped, and holds up nobody else.
#[test]
fn a_pattern_that_would_never_end_is_killed() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let server = Server::start(Options::evenkeel()).expect("start");
    let (mut busy, mut client) = (server.client().unwrap(), server.client().unwrap());
    client.line("CONFIG SET busy-reply-threshold 10").unwrap();
    let endless = "return ('a'):rep(40):find(('a?'):rep(40) .. ('a'):rep(40))";
    let mut line = Vec::new();
    encode(&["EVAL", endless, "0"], &mut line);
    busy.send_raw(&line).unwrap();
    let seen = wait_until("it is busy", Duration::from_secs(10), || {
        Ok(client.line("GET k")?.error_text().starts_with("BUSY"))
    });
    seen.unwrap();
    let mut other = server.client().unwrap();
    assert!(!other.line("SELECT 1").unwrap().is_error());
    assert!(!other.line("SET k v").unwrap().is_error(), "other databases go on");
    assert!(!client.line("SCRIPT KILL").unwrap().is_error());
    let ended = busy.read().unwrap().expect("an answer").value;
    assert!(ended.error_text().contains("killed"), "{ended:?}");
    let deep = "return ('a'):rep(50000):find(('a?'):rep(50000))";
    let refused = client.call(&["EVAL", deep, "0"]).unwrap();
    assert!(refused.error_text().contains("pattern too complex"), "{refused:?}");
    server.check_log().unwrap();
}

/// A script that tells whether a command is allowed in scripts: a refusal that says so, or anything else.
const MAY: &str = "local r = redis.pcall(unpack(ARGV)) \
                   if type(r) == 'table' and r.err and string.find(r.err, 'not allowed from script') \
                   then return 'refused' else return 'allowed' end";

/// Commands that scripts may use here and not in Redis 7.0, or the other way round, and why.
const ALLOWED_OTHERWISE: &[(&str, &str)] = &[
    ("blmove", "in scripts since 7.2: it does not wait there"),
    ("blpop", "the same"),
    ("brpop", "the same"),
    ("brpoplpush", "the same"),
    ("bzpopmax", "the same"),
    ("bzpopmin", "the same"),
    ("wait", "the same"),
    ("migrate", "it would hold the partition up for as long as another server takes"),
];

#[test]
fn scripts_may_use_what_they_may_use_on_redis() {
    let redis = Server::start(Options::redis()).expect("start Redis");
    let target = Server::start(Options::evenkeel()).expect("start the server under test");
    let (mut theirs, mut ours) = (redis.client().unwrap(), target.client().unwrap());
    let listed = theirs.line("COMMAND LIST").unwrap();
    let names: Vec<String> = listed.items().expect("names").iter().map(Value::to_text).collect();
    assert!(names.len() > 300, "{}", names.len());
    let mut different = Vec::new();
    for name in &names {
        let info = theirs.call(&["COMMAND", "INFO", name]).unwrap();
        let Some(Value::Int(arity)) =
            info.items().and_then(|rows| rows[0].items()?.get(1).cloned())
        else {
            panic!("{name}: {info:?}");
        };
        let mut line = vec!["EVAL", MAY, "0"];
        line.extend(name.split('|'));
        let wanted = 3 + usize::try_from(arity.abs()).expect("an arity");
        // More than the least, so that a group with a wrong subcommand is told from one without.
        line.resize(wanted.max(line.len()), "x");
        let [expected, answered] = [&mut theirs, &mut ours].map(|c| c.call(&line).unwrap());
        let is_listed = ALLOWED_OTHERWISE.iter().any(|(listed, _)| listed == name);
        if (expected == answered) == is_listed && !Options::evenkeel().is_redis() {
            different.push(format!("{name}: {expected:?} {answered:?}"));
        }
    }
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
}

#[test]
fn scripts_ask_the_router() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let server = Server::start(Options::evenkeel()).expect("start");
    let mut client = server.client().unwrap();
    client.line("SET k v").unwrap();
    client.call(&["FUNCTION", "LOAD", LIBRARY]).unwrap();
    let asked = |client: &mut Client, script: &str| client.call(&["EVAL", script, "0"]).unwrap();
    let info = asked(&mut client, "redis.call('set', 'k2', 'v') return redis.call('info')");
    for field in ["redis_version:", "db0:keys=1", "number_of_functions:2"] {
        assert!(info.to_text().contains(field), "{field}: {}", info.to_text());
    }
    for (script, part) in [
        ("return redis.call('memory', 'doctor')", "memory"),
        ("return redis.call('command', 'info', 'get')[1][1]", "get"),
        ("return #redis.call('command') > 200 and 'many' or 'few'", "many"),
        ("return tostring(redis.call('slowlog', 'len') >= 0)", "true"),
        ("return tostring(redis.call('lastsave') > 0)", "true"),
        ("return redis.call('lolwut')", "Redis ver."),
    ] {
        let answered = asked(&mut client, script).to_text();
        assert!(answered.contains(part), "{script}: {answered}");
    }
    // As a part of a transaction, whose locks are the same.
    client.line("MULTI").unwrap();
    client.line("SET k 2").unwrap();
    client.call(&["EVAL", "return redis.call('info', 'keyspace')", "0"]).unwrap();
    let replies = client.line("EXEC").unwrap();
    let told = replies.items().expect("replies")[1].to_text();
    assert!(told.contains("db0:keys="), "{told}");
    server.check_log().unwrap();
}

#[test]
fn what_a_script_publishes_comes_with_what_it_writes() {
    for options in [Options::redis(), Options::evenkeel()] {
        let server = Server::start(options).expect("start");
        let (mut client, mut subscriber) = (server.client().unwrap(), server.client().unwrap());
        for line in ["SUBSCRIBE ch", "PSUBSCRIBE c*", "SSUBSCRIBE shard"] {
            subscriber.line(line).unwrap();
        }
        let mut heard = |count: usize| -> Vec<String> {
            let told = |_| {
                let message = subscriber.read().unwrap().expect("a message").value;
                message.items().unwrap().iter().map(Value::to_text).collect::<Vec<_>>().join(" ")
            };
            (0..count).map(told).collect()
        };
        let publishes = "redis.call('set', 'k', 'v') local n = redis.call('publish', 'ch', 'one') \
                         local m = redis.call('spublish', 'shard', 'two') \
                         return {n, m, redis.call('publish', 'none', 'x')}";
        let counts = client.call(&["EVAL", publishes, "0"]).unwrap();
        assert_eq!(counts, Value::Array(vec![Value::Int(2), Value::Int(1), Value::Int(0)]));
        let told = ["message ch one", "pmessage c* ch one", "smessage shard two"];
        assert_eq!(heard(3), told);
        // Without a write; and in a transaction, with what others of it publish.
        client.call(&["EVAL", "return redis.call('publish', 'ch', 'alone')", "0"]).unwrap();
        assert_eq!(heard(2), ["message ch alone", "pmessage c* ch alone"]);
        for line in [
            &["MULTI"][..],
            &["EVAL", "redis.call('publish', 'ch', 'a') return redis.call('incr', 'n')", "0"],
            &["EVAL", "redis.call('publish', 'ch', 'b') return redis.call('nosuch')", "0"],
            &["EXEC"],
        ] {
            client.call(line).unwrap();
        }
        let (a, b) = ("message ch a", "message ch b");
        assert_eq!(heard(4), [a, "pmessage c* ch a", b, "pmessage c* ch b"]);
        // A script that only reads may not.
        let refused = client.call(&["EVAL_RO", "return redis.call('publish', 'ch', 'x')", "0"]);
        assert!(refused.unwrap().error_text().contains("Write commands are not allowed"));
    }
}

#[test]
fn a_killed_script_publishes_nothing() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let server = Server::start(Options::evenkeel()).expect("start");
    let (mut client, mut subscriber) = (server.client().unwrap(), server.client().unwrap());
    client.line("CONFIG SET lua-time-limit 50").unwrap();
    subscriber.line("SUBSCRIBE ch").unwrap();
    let endless = ["EVAL", "redis.call('publish', 'ch', 'lost') while true do end", "0"];
    let running = in_background(&server, &endless);
    wait_until("the script to be busy", Duration::from_secs(20), || {
        Ok(client.line("GET k")?.is_error())
    })
    .unwrap();
    assert_eq!(client.line("SCRIPT KILL").unwrap(), Value::Simple(b"OK".to_vec()));
    assert!(running.join().expect("a thread that ends").is_error());
    assert_eq!(client.line("PUBLISH ch kept").unwrap(), Value::Int(1));
    let message = subscriber.read().unwrap().expect("a message").value;
    assert_eq!(message.items().unwrap()[2].to_text(), "kept");
}

#[test]
fn functions_change_in_a_transaction() {
    for options in [Options::redis(), Options::evenkeel()] {
        let is_redis = options.is_redis();
        let server = Server::start(options).expect("start");
        let mut client = server.client().unwrap();
        for line in [
            &["MULTI"][..],
            &["FUNCTION", "LOAD", LIBRARY],
            &["FUNCTION", "LOAD", LIBRARY],
            &["PING"],
            &["FUNCTION", "LIST", "LIBRARYNAME", "l*"],
        ] {
            assert!(!client.call(line).unwrap().is_error(), "{line:?}");
        }
        let replies = client.line("EXEC").unwrap();
        let items = replies.items().expect("replies");
        assert_eq!(items[0].to_text(), "lib");
        assert!(items[1].error_text().contains("already exists"), "{replies:?}");
        assert_eq!(items[3].items().map(<[Value]>::len), Some(1), "{replies:?}");
        // Known before the pipeline goes on.
        let line = b"MULTI\r\nFUNCTION FLUSH\r\nEXEC\r\nFCALL add 1 k 5\r\n";
        client.send_raw(line).unwrap();
        let raw: Vec<_> = (0..4).map(|_| client.read().unwrap().unwrap().value).collect();
        assert!(raw[3].error_text().contains("Function not found"), "{raw:?}");
        if !is_redis {
            // Together with data they would be two partitions' work.
            for line in ["MULTI", "SET k v", "FUNCTION FLUSH"] {
                assert!(!client.line(line).unwrap().is_error());
            }
            assert!(client.line("EXEC").unwrap().is_error());
            assert_eq!(client.line("GET k").unwrap(), Value::Nil);
        }
    }
}

#[test]
fn what_scripts_run_is_counted_and_shown() {
    let mut told = Vec::new();
    for options in [Options::redis(), Options::evenkeel()] {
        let server = Server::start(options).expect("start");
        let (mut client, mut monitor) = (server.client().unwrap(), server.client().unwrap());
        monitor.line("MONITOR").unwrap();
        client.line("CONFIG RESETSTAT").unwrap();
        let script = "redis.call('set', KEYS[1], 0) redis.pcall('incr', KEYS[1], 'x') \
                      redis.call('incr', KEYS[1]) redis.pcall('lpush', KEYS[1], 1) \
                      redis.pcall('select', 'x') return redis.call('lpush', KEYS[1], 1)";
        assert!(client.call(&["EVAL", script, "1", "k"]).unwrap().is_error());
        let stats = client.line("INFO stats commandstats errorstats").unwrap().to_text();
        let mut counts: Vec<String> = stats
            .lines()
            .filter(|line| {
                let counted = ["cmdstat_", "errorstat_", "total_error_replies"];
                counted.iter().any(|name| line.starts_with(name))
            })
            .filter(|line| !line.contains("config") && !line.contains("cmdstat_info"))
            .map(|line| {
                let timed = |field: &&str| !field.starts_with("usec");
                line.split(',').filter(timed).collect::<Vec<_>>().join(",")
            })
            .map(|line| line.split("usec=").next().unwrap_or_default().to_owned())
            .collect();
        counts.sort();
        let mut lines = Vec::new();
        while lines.len() < 6 {
            let line = monitor.read().unwrap().expect("a line").value.to_text();
            let shown = line.split_once('[').map_or("", |(_, rest)| rest).to_owned();
            if !shown.contains("\"CONFIG\"") {
                lines.push(shown.replace(|c: char| c.is_ascii_digit(), "#"));
            }
        }
        told.push((counts, lines));
    }
    assert_eq!(told[0].0, told[1].0);
    // Where a client comes from differs; that commands are a script's does not.
    let of_scripts = |lines: &[String]| {
        lines.iter().filter(|line| line.contains("# lua]")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(of_scripts(&told[0].1), of_scripts(&told[1].1));
    assert_eq!(told[0].1.len(), told[1].1.len());
}
