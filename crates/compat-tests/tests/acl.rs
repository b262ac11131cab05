//! Users and their rules: told, refused and enforced as Redis does it, and kept in the ACL file.

use std::time::Duration;

use compat_tests::differential::differences::in_later_words;
use compat_tests::process::{Options, Server, wait_until};
use compat_tests::resp::{Client, Value, encode, show};

/// The two servers: Redis, and the one under test.
fn both() -> [Server; 2] {
    [Options::redis(), Options::evenkeel()].map(|options| Server::start(options).expect("start"))
}

fn clients(servers: &[Server; 2]) -> [Client; 2] {
    servers.each_ref().map(|server| server.client().expect("connect"))
}

/// The bytes that each answers to a line; of one that begins with `|`, that stands between arguments.
fn answers(clients: &mut [Client; 2], line: &str) -> [String; 2] {
    let words: Vec<&str> = match line.strip_prefix('|') {
        Some(line) => line.split('|').collect(),
        None => line.split(' ').collect(),
    };
    let [theirs, ours] = clients.each_mut().map(|client| {
        let mut bytes = Vec::new();
        encode(&words, &mut bytes);
        client.send_raw(&bytes).expect("send");
        client
            .read()
            .expect("a reply")
            .map_or("closed".to_owned(), |reply| String::from_utf8_lossy(&reply.raw).into_owned())
    });
    [in_later_words(&theirs), ours].map(|reply| alike(line, &reply))
}

/// A reply without what 7.0 does not say: that every user's payloads are checked, unless a rule says
/// otherwise, and whom a refusal is about.
fn alike(line: &str, reply: &str) -> String {
    let mut text = String::new();
    for (at, part) in reply.split("ser ").enumerate() {
        let refused = part.split_once(" has no permissions to ").filter(|_| at > 0);
        match refused {
            Some((_, rest)) => text.push_str(&format!("ser has no permissions to {rest}")),
            None => text.push_str(&format!("{}{part}", if at > 0 { "ser " } else { "" })),
        }
    }
    let text = text.replace("This user has", "User has").replace("this user has", "User has");
    let text = match text.split_once("ACL failure in script: User has no permissions to run the '")
    {
        Some((before, rest)) => {
            let (_, behind) = rest.split_once("' command").expect("the command's name");
            format!(
                "{before}The user executing the script can't run this command or subcommand{behind}"
            )
        }
        None => text,
    };
    let tells_users = line.contains("EVAL")
        || ["ACL LIST", "ACL GETUSER", "ACL DRYRUN"].iter().any(|it| line.starts_with(it));
    if !tells_users {
        return text;
    }
    // Lengths and counts go with the word.
    let is_kept = |part: &&str| !part.starts_with('$') && *part != "sanitize-payload";
    let parts = text.split("\r\n").filter(is_kept).map(|part| match part.as_bytes() {
        [first @ (b'*' | b'~' | b'%'), b'0'..=b'9', ..] => char::from(*first).to_string(),
        _ => part.replace(" sanitize-payload", ""),
    });
    parts.collect::<Vec<_>>().join("\r\n")
}

fn same(clients: &mut [Client; 2], lines: &[&str]) {
    for line in lines {
        let [theirs, ours] = answers(clients, line);
        assert_eq!(theirs, ours, "{line} (of {lines:?})");
    }
}

/// Users made, told and removed; what is refused of it.
const TOLD: &[&str] = &[
    "ACL WHOAMI",
    "ACL LIST",
    "ACL SETUSER alice",
    "ACL GETUSER alice",
    "ACL SETUSER alice on nopass +@all -@dangerous ~a* %R~b %W~c &news.*",
    "ACL GETUSER alice",
    "ACL SETUSER alice %W~b &news.* &x -client +client|id",
    "ACL GETUSER alice",
    "ACL SETUSER bob >secret >other #34344e4d60c2b6d639b7bd22e18f2b0b91bc34bf0ac5f9952744435093cfb4e6",
    "ACL GETUSER bob",
    "ACL SETUSER bob <secret !34344e4d60c2b6d639b7bd22e18f2b0b91bc34bf0ac5f9952744435093cfb4e6",
    "ACL SETUSER carol on (+get ~x) (+set %W~y ) +get",
    "ACL GETUSER carol",
    "ACL SETUSER carol clearselectors allkeys allchannels allcommands skip-sanitize-payload",
    "ACL GETUSER carol",
    "ACL SETUSER dave reset",
    "ACL SETUSER dave +select|0 nocommands resetkeys sanitize-payload",
    "ACL LIST",
    "ACL USERS",
    "ACL GETUSER nobody",
    "ACL SETUSER alice foo",
    "ACL SETUSER alice +foo",
    "ACL SETUSER alice +@foo",
    "ACL SETUSER alice -select|0",
    "ACL SETUSER alice +client|nosuch",
    "ACL SETUSER alice +client|list|x",
    "ACL SETUSER alice +client|",
    "ACL SETUSER alice %~x",
    "ACL SETUSER alice <nosuch",
    "ACL SETUSER alice !x",
    "ACL SETUSER alice #ABCDEF4d60c2b6d639b7bd22e18f2b0b91bc34bf0ac5f9952744435093cfb4e6",
    "ACL SETUSER carol ~x",
    "ACL SETUSER carol &x",
    "ACL SETUSER alice (+get",
    "ACL SETUSER alice (+foo)",
    "|ACL|SETUSER|a b|on x",
    "ACL SETUSER alice on foo",
    "ACL DRYRUN alice GET a1",
    "ACL DRYRUN alice GET z",
    "ACL DRYRUN alice SET c v",
    "ACL DRYRUN alice SET c v GET",
    "ACL DRYRUN alice CLIENT LIST",
    "ACL DRYRUN alice CLIENT ID",
    "ACL DRYRUN alice FLUSHALL",
    "ACL DRYRUN alice COPY a b",
    "ACL DRYRUN nobody GET a",
    "ACL DRYRUN alice nosuch a",
    "ACL DRYRUN alice GET",
    "ACL CAT",
    "ACL CAT nosuch",
    "ACL CAT a b",
    "ACL GENPASS 0",
    "ACL GENPASS 4097",
    "ACL GENPASS x",
    "ACL LOAD",
    "ACL SAVE",
    "ACL LOG x",
    "ACL LOG RESET",
    "ACL LOG",
    "ACL nosuch",
    "ACL",
    "ACL DELUSER default",
    "ACL DELUSER alice bob carol dave nobody",
    "ACL USERS",
];

#[test]
fn users_are_told_as_redis_tells_them() {
    let servers = both();
    for protocol in ["HELLO 2", "HELLO 3"] {
        let mut clients = clients(&servers);
        answers(&mut clients, protocol);
        same(&mut clients, TOLD);
        for (bits, digits) in [("", 64), (" 5", 2), (" 4096", 1024)] {
            for client in &mut clients {
                let password = client.line(&format!("ACL GENPASS{bits}")).unwrap().to_text();
                assert_eq!(password.len(), digits);
                assert!(password.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
            }
        }
    }
}

#[test]
fn categories_hold_the_same_commands() {
    let servers = both();
    let mut clients = clients(&servers);
    let lists = |client: &mut Client, line: &str| -> Vec<String> {
        let reply = client.line(line).expect("a list");
        let mut names: Vec<String> =
            reply.items().expect(line).iter().map(Value::to_text).collect();
        names.sort();
        names
    };
    let [theirs, ours] = clients.each_mut().map(|client| lists(client, "COMMAND LIST"));
    let shared: Vec<&String> = theirs.iter().filter(|name| ours.contains(name)).collect();
    assert!(shared.len() > 200, "{}", shared.len());
    for category in lists(&mut clients[0], "ACL CAT") {
        let of = |client: &mut Client| {
            let mut names = lists(client, &format!("ACL CAT {category}"));
            names.retain(|name| shared.contains(&name));
            names
        };
        let [theirs, ours] = clients.each_mut().map(of);
        assert_eq!(theirs, ours, "{category}");
    }
}

#[test]
fn rules_hold() {
    let servers = both();
    let mut clients = clients(&servers);
    same(
        &mut clients,
        &[
            "ACL SETUSER u on >p +@all -@dangerous +sort -config|set +config|get ~k* %R~r* &ch*",
            "ACL SETUSER off off >p +@all",
            "AUTH off p",
            "AUTH u wrong",
            "AUTH nobody p",
            "AUTH p",
            "AUTH u p",
            "ACL WHOAMI",
            "SET k1 v",
            "GET r1",
            "SET r1 v",
            "GET x",
            "MSET k1 v x v",
            "MGET k1 x",
            "KEYS *",
            "FLUSHALL",
            "CONFIG SET maxclients 10",
            "ACL LIST",
            "SORT k1 BY w_*",
            "SORT k1 GET x",
            "MULTI",
            "SET k1 v",
            "SET x v",
            "EXEC",
            "MULTI",
            "INCR knum",
            "EXEC",
            "RESET",
            "ACL WHOAMI",
            "GET x",
            "HELLO 3 AUTH u p",
            "HELLO 2 AUTH u wrong",
            "GET x",
        ]
        .into_iter()
        // HELLO's answer has a number of the connection and a version.
        .filter(|line| *line != "HELLO 3 AUTH u p")
        .collect::<Vec<_>>(),
    );
    let mut inline = clients.each_mut();
    for client in &mut inline {
        assert!(!client.line("HELLO 2 AUTH u p").unwrap().is_error());
    }
    // A pipeline: what may run runs, what may not is refused, each in its place.
    for client in &mut inline {
        client
            .send_raw(b"SET k1 a\r\nGET k1\r\nGET x\r\nGET k1\r\nSET r1 b\r\nGET r1\r\n")
            .unwrap();
        let replies: Vec<String> =
            (0..6).map(|_| show(&client.read().unwrap().unwrap().raw)).collect();
        assert!(replies[0].contains("OK") && replies[1] == replies[3], "{replies:?}");
        assert!(replies[2].contains("NOPERM") && replies[4].contains("NOPERM"), "{replies:?}");
    }
}

#[test]
fn what_changes_holds_for_the_next_command() {
    let servers = both();
    let (mut admin, mut user) = (clients(&servers), clients(&servers));
    same(&mut admin, &["ACL SETUSER u on nopass +@all allkeys"]);
    same(&mut user, &["AUTH u x", "SET a 1", "MULTI", "SET a 2", "GET a"]);
    same(&mut admin, &["ACL SETUSER u -set resetkeys ~b"]);
    same(&mut user, &["EXEC", "GET a", "GET b", "SET b 1"]);
    same(&mut admin, &["GET a", "ACL SETUSER u allkeys +@all"]);
    same(&mut user, &["SET a 3", "GET a"]);
    same(&mut admin, &["ACL SETUSER default -get", "GET a", "ACL SETUSER default +@all", "GET a"]);
}

#[test]
fn connections_are_their_users() {
    let servers = both();
    for server in &servers {
        let (mut admin, mut user) = (server.client().unwrap(), server.client().unwrap());
        admin.line("ACL SETUSER u on nopass +@all allkeys allchannels").unwrap();
        assert_eq!(user.line("AUTH u x").unwrap(), Value::Simple(b"OK".into()));
        let listed = |client: &mut Client| client.line("CLIENT LIST").unwrap().to_text();
        assert!(
            listed(&mut admin).contains(" user=u ")
                && listed(&mut admin).contains(" user=default ")
        );
        assert_eq!(admin.line("CLIENT KILL USER u").unwrap(), Value::Int(1));
        assert!(matches!(user.read(), Ok(None)), "closed");
        assert!(admin.line("CLIENT KILL USER nobody").unwrap().is_error());
        let (mut first, mut second) = (server.client().unwrap(), server.client().unwrap());
        first.line("AUTH u x").unwrap();
        second.line("AUTH u x").unwrap();
        // A user who removes himself is answered first.
        assert_eq!(first.line("ACL DELUSER u").unwrap(), Value::Int(1));
        assert!(matches!(first.read(), Ok(None)), "closed");
        assert!(matches!(second.read(), Ok(None)), "closed");
        wait_until("all are gone", Duration::from_secs(5), || {
            Ok(!admin.line("CLIENT LIST")?.to_text().contains(" user=u "))
        })
        .unwrap();
    }
}

#[test]
fn what_was_denied_is_logged() {
    let servers = both();
    let mut fields = Vec::new();
    for server in &servers {
        let (mut admin, mut user) = (server.client().unwrap(), server.client().unwrap());
        for line in ["ACL SETUSER u on nopass +get +multi ~k", "ACL LOG RESET"] {
            assert_eq!(admin.line(line).unwrap(), Value::Simple(b"OK".into()));
        }
        for line in [
            "AUTH nobody x",
            "AUTH u x",
            "SET k v",
            "SET k v",
            "GET k",
            "GET secret",
            "MULTI",
            "GET secret",
        ] {
            user.line(line).unwrap();
        }
        let log = admin.line("ACL LOG").unwrap();
        let entries: Vec<String> = log
            .items()
            .expect("entries")
            .iter()
            .map(|entry| {
                let pairs = entry.pairs().unwrap_or_default();
                let of = |wanted: &str| {
                    pairs.iter().find(|(n, _)| n.to_text() == wanted).map(|(_, v)| (*v).clone())
                };
                let text = |wanted: &str| {
                    of(wanted).map_or_else(String::new, |v| match v {
                        Value::Int(number) => number.to_string(),
                        other => other.to_text(),
                    })
                };
                assert!(text("client-info").contains(" addr=127.0.0.1:"), "{entry:?}");
                let age: f64 = text("age-seconds").parse().expect("an age");
                assert!((0.0..60.0).contains(&age));
                ["count", "reason", "context", "object", "username"].map(text).join(" ")
            })
            .collect();
        fields.push(entries);
        let info = admin.line("INFO stats").unwrap().to_text();
        if !server_is_old(&mut admin) {
            for line in
                ["acl_access_denied_auth:1", "acl_access_denied_cmd:2", "acl_access_denied_key:2"]
            {
                assert!(info.contains(line), "{line}: {info}");
            }
        }
        assert_eq!(admin.line("CONFIG SET acllog-max-len 1").unwrap(), Value::Simple(b"OK".into()));
        user.line("SET k v").unwrap();
        assert_eq!(admin.line("ACL LOG").unwrap().items().expect("entries").len(), 1);
    }
    assert_eq!(fields[0], fields[1]);
    assert_eq!(fields[1].len(), 4, "{:?}", fields[1]);
}

/// Whether it is a Redis that does not count denials in INFO yet.
fn server_is_old(client: &mut Client) -> bool {
    client.line("INFO server").unwrap().to_text().contains("redis_version:7.0")
}

#[test]
fn the_acl_file_is_read_written_and_refused_by_its_lines() {
    if Options::evenkeel().is_redis() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("users.acl");
    let extra = vec!["--aclfile".to_owned(), path.display().to_string()];
    let expected_log = vec!["ACL errors"];
    let options = Options { extra, expected_log, ..Options::evenkeel() };
    let start = || Server::start(options.clone());
    let refused = |why: &str| {
        let error = format!("{:#}", start().expect_err("it must not start"));
        assert!(error.contains(why), "{error}");
    };
    refused("opening file");
    std::fs::write(&path, "user a on\n\nuser b on +foo\nusr c\n").expect("write");
    refused(
        "users.acl:3: Error in applying operation '+foo': Unknown command or category name in ACL.",
    );
    refused("users.acl:4 should start with user keyword followed by the username.");

    let text = "user default on >secret ~* &* +@all\nuser reader on >r %R~* +@read +acl|whoami\n";
    std::fs::write(&path, text).expect("write");
    let mut server = start().expect("a good file");
    let mut admin = server.client().unwrap();
    assert!(admin.line("PING").unwrap().error_text().contains("NOAUTH"));
    assert_eq!(admin.line("AUTH secret").unwrap(), Value::Simple(b"OK".into()));
    let mut reader = server.client().unwrap();
    assert_eq!(reader.line("AUTH reader r").unwrap(), Value::Simple(b"OK".into()));
    assert_eq!(reader.line("GET a").unwrap(), Value::Nil);
    assert!(reader.line("SET a 1").unwrap().error_text().contains("NOPERM"));

    // Saved, and there again after a restart.
    for line in ["ACL SETUSER extra on >e +ping", "ACL SAVE"] {
        assert_eq!(admin.line(line).unwrap(), Value::Simple(b"OK".into()));
    }
    server.kill().expect("kill");
    server.launch().expect("launch");
    let mut extra = server.client().unwrap();
    assert_eq!(extra.line("AUTH extra e").unwrap(), Value::Simple(b"OK".into()));

    // Loaded: all or nothing; users who are gone lose their connections.
    let mut admin = server.client().unwrap();
    admin.line("AUTH secret").unwrap();
    std::fs::write(&path, "user default on nopass ~* &* +@all\nuser x %y\n").expect("write");
    let refusal = admin.line("ACL LOAD").unwrap();
    assert!(refusal.error_text().contains("users.acl:2: Syntax error."), "{refusal:?}");
    assert_eq!(extra.line("PING").unwrap(), Value::Simple(b"PONG".into()));
    std::fs::write(&path, "user default on nopass ~* &* +@all\n").expect("write");
    assert_eq!(admin.line("ACL LOAD").unwrap(), Value::Simple(b"OK".into()));
    assert!(matches!(extra.read(), Ok(None)), "closed");
    assert_eq!(
        server.client().unwrap().line("ACL USERS").unwrap().items().map(<[_]>::len),
        Some(1)
    );
}

#[test]
fn requirepass_is_the_default_users_password() {
    let servers = both();
    let mut clients = clients(&servers);
    same(
        &mut clients,
        &[
            "CONFIG SET requirepass secret",
            "ACL LIST",
            "PING",
            "CONFIG GET requirepass",
            "ACL SETUSER default >other",
            "CONFIG GET requirepass",
            "AUTH other",
            "AUTH secret",
        ],
    );
    let mut strangers = self::clients(&servers);
    same(&mut strangers, &["PING", "AUTH wrong", "PING"]);
    same(&mut clients, &["|CONFIG|SET|requirepass|"]);
    same(&mut strangers, &["PING", "ACL WHOAMI"]);
}

#[test]
fn subscriptions_end_when_their_channels_are_taken_away() {
    let servers = both();
    for server in &servers {
        let mut admin = server.client().unwrap();
        admin.line("ACL SETUSER u on nopass +@all allkeys &news.* &log").unwrap();
        let subscribed = |line: &str| {
            let mut client = server.client().unwrap();
            assert_eq!(client.line("AUTH u x").unwrap(), Value::Simple(b"OK".into()));
            let reply = client.line(line).unwrap();
            assert!(!reply.is_error(), "{line}: {reply:?}");
            client
        };
        let mut refused = server.client().unwrap();
        refused.line("AUTH u x").unwrap();
        for line in ["SUBSCRIBE other", "PSUBSCRIBE news.a*", "PUBLISH other x", "SSUBSCRIBE other"]
        {
            let text = refused.line(line).unwrap().error_text().into_owned();
            let text = in_later_words(&text);
            assert!(text.contains("No permissions to access a channel"), "{line}: {text}");
        }
        assert_eq!(refused.line("PUBLISH news.a x").unwrap(), Value::Int(0));
        let mut channel = subscribed("SUBSCRIBE news.a");
        let mut pattern = subscribed("PSUBSCRIBE news.*");
        let mut kept = subscribed("SUBSCRIBE log");
        // More is no reason to close anything.
        admin.line("ACL SETUSER u &more").unwrap();
        assert_eq!(admin.line("PUBLISH news.a x").unwrap(), Value::Int(2));
        channel.read().unwrap().expect("the message");
        pattern.read().unwrap().expect("the message");
        admin.line("ACL SETUSER u resetchannels &log").unwrap();
        assert!(matches!(channel.read(), Ok(None)), "closed");
        assert!(matches!(pattern.read(), Ok(None)), "closed");
        assert_eq!(admin.line("PUBLISH log x").unwrap(), Value::Int(1));
        kept.read().unwrap().expect("the message");
    }
}

/// A script of a user with rules, and another one that looks at what `redis.pcall` answers.
fn by_script(words: &str, calls: &str) -> String {
    let quoted: Vec<String> = words.split(' ').map(|word| format!("'{word}'")).collect();
    let call = format!("redis.{calls}({})", quoted.join(","));
    let script = match calls {
        "pcall" => format!("local r = {call} return type(r) == 'table' and r.err or r"),
        "acl_check_cmd" => format!("return tostring({call})"),
        _ => format!("return {call}"),
    };
    format!("|EVAL|{script}|0")
}

/// What a user with rules has scripts run.
const IN_SCRIPTS: &[&str] = &[
    "SET k1 v",
    "GET k1",
    "GET r1",
    "SET r1 v",
    "SET w1 v",
    "GET w1",
    "APPEND w1 v",
    "GET x",
    "MGET k1 x",
    "MGET k1 r1",
    "COPY r1 k2",
    "COPY k1 r2",
    "DEL k2",
    "DEL x",
    "EXISTS x",
    "TYPE k1",
    "RENAME k1 k3",
    "RENAME k3 x",
    "INCR k1",
    "HSET k4 f v",
    "HGETALL k4",
    "HDEL k4 f",
    "LPUSH x 1",
    "SORT k5 BY w_* GET x_*",
    "SORT r1 BY nosort",
    "ZUNIONSTORE k6 1 x",
    "ZUNIONSTORE x 1 k6",
    "PUBLISH ch1 m",
    "PUBLISH other m",
    "SPUBLISH ch1 m",
    "SPUBLISH other m",
    "PING",
    "ECHO x",
    "CONFIG GET x",
    "OBJECT ENCODING k1",
    "OBJECT ENCODING x",
    "SELECT 0",
    "SELECT 1",
    "DBSIZE",
    "FLUSHALL",
    "KEYS *",
    "nosuch k1",
    "GET",
    "DEBUG x",
    "ACL WHOAMI",
];

#[test]
fn what_scripts_run_is_checked() {
    let servers = both();
    let mut admin = clients(&servers);
    same(
        &mut admin,
        &[
            "ACL SETUSER u on nopass +@all -@dangerous -hdel -select +select|0 ~k* %R~r* %W~w* &ch*",
            "ACL SETUSER two on nopass (+eval +get ~a*) (+eval +set ~b*)",
            "ACL SETUSER none on nopass +@all -@scripting ~* &*",
            "ACL SETUSER few on nopass +eval +fcall +eval_ro",
            "|FUNCTION|LOAD|#!lua name=l\nredis.register_function('f', function(keys, args) return redis.call(unpack(args)) end)",
        ],
    );
    for protocol in ["HELLO 2", "HELLO 3"] {
        let mut user = clients(&servers);
        answers(&mut user, protocol);
        same(&mut user, &["AUTH u x"]);
        for words in IN_SCRIPTS {
            for calls in ["call", "pcall", "acl_check_cmd"] {
                same(&mut user, &[&by_script(words, calls)]);
            }
        }
        // Declared keys are checked before anything runs; functions and transactions are no way around.
        same(
            &mut user,
            &[
                "|EVAL|return 1|1|x",
                "|EVAL|return 1|-1|x",
                "|EVAL|return 1|3|x|x",
                "|EVAL|return 1|x|x",
                "|EVAL|return 1|1|r1",
                "|EVAL_RO|return redis.call('get', KEYS[1])|1|r1",
                "|EVAL_RO|return redis.call('get', KEYS[1])|1|w1",
                "|FCALL|f|0|set|k1|v",
                "|FCALL|f|0|set|x|v",
                "|FCALL|f|0|hdel|k1|v",
                "MULTI",
                "SET k1 a",
                "|EVAL|return redis.pcall('get', 'x')|0",
                "|EVAL|redis.call('set', 'k1', 'b') return redis.call('set', 'x', 'b')|0",
                "GET k1",
                "EXEC",
            ],
        );
        same(&mut user, &["AUTH two x"]);
        for words in ["GET a", "SET a 1", "GET b", "SET b 1", "EVAL x 0"] {
            same(&mut user, &[&by_script(words, "call"), &by_script(words, "acl_check_cmd")]);
        }
        same(&mut user, &["AUTH none x", "|EVAL|return 1|0", "FCALL f 0 ping", "SCRIPT EXISTS x"]);
        same(
            &mut user,
            &["AUTH few x", "|EVAL|return redis.call('ping')|0", "|EVAL_RO|return 1|0"],
        );
        same(&mut user, &["|FCALL|f|0|ping"]);
    }
}

#[test]
fn what_slow_scripts_run_is_checked() {
    let servers = both();
    let (mut admin, mut user) = (clients(&servers), clients(&servers));
    same(&mut admin, &["ACL SETUSER u on nopass +@all ~k* &*"]);
    let slow = "|EVAL|for i = 1, 20000 do redis.call('incr', 'k') end return redis.call('get', ARGV[1])|0|";
    let in_user = ["AUTH u x".to_owned(), format!("{slow}k"), format!("{slow}x")];
    for line in &in_user {
        same(&mut user, &[line]);
    }
    same(&mut admin, &["GET k"]);
    // The rules are those of the call.
    same(&mut admin, &["ACL SETUSER u resetkeys ~x"]);
    same(&mut user, &[&in_user[1], &in_user[2]]);
}

#[test]
fn what_scripts_were_denied_is_logged() {
    let servers = both();
    let mut logs = Vec::new();
    for server in &servers {
        let (mut admin, mut user) = (server.client().unwrap(), server.client().unwrap());
        admin.line("ACL SETUSER u on nopass +@all -lpush ~k* &ch").unwrap();
        admin.line("ACL LOG RESET").unwrap();
        user.line("AUTH u x").unwrap();
        let script = "redis.pcall('get', 'x') redis.pcall('get', 'x') redis.pcall('lpush', 'k', 'v') \
                      redis.pcall('publish', 'other', 'm') redis.acl_check_cmd('get', 'y') return 1";
        assert_eq!(user.call(&["EVAL", script, "0"]).unwrap(), Value::Int(1));
        for line in [&["MULTI"][..], &["EVAL", script, "0"], &["EXEC"]] {
            assert!(!user.call(line).unwrap().is_error());
        }
        let log = admin.line("ACL LOG").unwrap();
        let told = log.items().expect("entries").iter().map(|entry| {
            let pairs = entry.pairs().unwrap_or_default();
            let of = |wanted: &str| {
                let found = pairs.iter().find(|(name, _)| name.to_text() == wanted);
                found.map_or(String::new(), |(_, value)| match value {
                    Value::Int(number) => number.to_string(),
                    other => other.to_text(),
                })
            };
            ["count", "reason", "context", "object", "username"].map(of).join(" ")
        });
        logs.push(told.collect::<Vec<_>>());
    }
    assert_eq!(logs[0], logs[1]);
    assert!(logs[1].iter().any(|entry| entry == "4 key lua x u"), "{logs:?}");
}
