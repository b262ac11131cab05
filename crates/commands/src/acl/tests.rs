//! Rules as Redis reads and tells them, and what they allow.

use bytes::Bytes;

use super::*;
use crate::error::CommandError;
use crate::testing::Random;

fn user(rules: &str) -> User {
    let split: Vec<&str> = rules.split(' ').collect();
    let made = User::new(b"u", Defaults::default()).with_rules(&split, Defaults::default());
    made.unwrap_or_else(|why| panic!("{rules}: {why}"))
}

fn refusal(rules: &str) -> String {
    let split: Vec<&str> = rules.split(' ').collect();
    let refused = User::new(b"u", Defaults::default()).with_rules(&split, Defaults::default());
    refused.expect_err(rules).to_string()
}

fn told(user: &User) -> String {
    String::from_utf8(user.describe()).expect("text")
}

fn line(line: &str) -> (&'static Entry, Vec<Bytes>) {
    let args: Vec<Bytes> =
        line.split(' ').map(|arg| Bytes::copy_from_slice(arg.as_bytes())).collect();
    let entry = table::lookup(&args[0]).expect(line);
    let subcommand = args.get(1).and_then(|name| table::lookup_subcommand(entry, name));
    (subcommand.unwrap_or(entry), args)
}

/// What ACL DRYRUN answers.
fn dryrun(user: &User, text: &str) -> String {
    let (entry, args) = line(text);
    match user.check(entry, &args) {
        Ok(()) => "OK".to_owned(),
        Err(denied) => {
            String::from_utf8_lossy(&denied.to_dryrun(user.name(), entry, &args)).into_owned()
        }
    }
}

#[test]
fn rules_are_told_as_redis_tells_them() {
    for (rules, expected) in [
        ("off", "user u off sanitize-payload resetchannels -@all"),
        (
            "on nopass &foo +@all ~a %R~b %RW~c %W~b",
            "user u on nopass sanitize-payload ~a ~b ~c resetchannels &foo +@all",
        ),
        (
            "(+get ~x) (+set %W~y ) +get -set",
            "user u off sanitize-payload resetchannels -@all +get -set (~x resetchannels -@all +get) (%W~y resetchannels -@all +set)",
        ),
        (
            "+@all -@dangerous +client|list",
            "user u off sanitize-payload resetchannels +@all -@dangerous +client|list",
        ),
        (
            "+@read +get -@write +@all -client +client|id -@all +config -config|set +CONFIG|GET +GET",
            "user u off sanitize-payload resetchannels -@all +config -config|set +config|get +get",
        ),
        (
            "+multi +exec +select|0 +select|1 +SELECT|0",
            "user u off sanitize-payload resetchannels -@all +multi +exec +select|1 +select|0",
        ),
        (
            ">a ~a* skip-sanitize-payload ( )",
            "user u off skip-sanitize-payload #ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb ~a* resetchannels -@all (resetchannels -@all)",
        ),
        ("on >a ~* &* +@all reset", "user u off sanitize-payload resetchannels -@all"),
        (">a nopass", "user u off nopass sanitize-payload resetchannels -@all"),
        (">a <a  on", "user u on sanitize-payload resetchannels -@all"),
        ("+client|list +client", "user u off sanitize-payload resetchannels -@all +client"),
        ("ALLKEYS ALLCHANNELS ALLCOMMANDS ON", "user u on sanitize-payload ~* &* +@all"),
        (
            "allkeys resetkeys ~b (allkeys) clearselectors",
            "user u off sanitize-payload ~b resetchannels -@all",
        ),
    ] {
        assert_eq!(told(&user(rules)), expected, "{rules}");
    }
    assert_eq!(told(&User::default_user()), "user default on nopass sanitize-payload ~* &* +@all");
    let all = Defaults { all_channels: true };
    assert_eq!(told(&User::new(b"u", all)), "user u off sanitize-payload &* -@all");
}

#[test]
fn wrong_rules_are_refused_in_redis_words() {
    let modifier =
        |rule: &str, why: &str| format!("ERR Error in ACL SETUSER modifier '{rule}': {why}");
    for (rules, rule, why) in [
        ("foo", "foo", "Syntax error"),
        ("+foo", "+foo", "Unknown command or category name in ACL"),
        ("+@foo", "+@foo", "Unknown command or category name in ACL"),
        ("-select|0", "-select|0", "Unknown command or category name in ACL"),
        ("+client|foo", "+client|foo", "Unknown command or category name in ACL"),
        ("+client|list|x", "+client|list|x", "Allowing first-arg of a subcommand is not supported"),
        ("+client|", "+client|", "Syntax error"),
        ("%~x", "%~x", "Syntax error"),
        ("%RR~x", "%RR~x", "Syntax error"),
        ("<x", "<x", "The password you are trying to remove from the user does not exist"),
        (
            "#x",
            "#x",
            "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters",
        ),
        (
            "~* ~x",
            "~x",
            "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try 'resetkeys' to start with an empty list of patterns",
        ),
        (
            "&* &x",
            "&x",
            "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. Try 'resetchannels' to start with an empty list of channels",
        ),
        ("(+foo)", "(+foo)", "Unknown command or category name in ACL"),
        ("(~a) (~b))", "(~b))", "Syntax error"),
    ] {
        assert_eq!(refusal(rules), modifier(rule, why), "{rules}");
    }
    assert_eq!(
        refusal("on (+get ~x"),
        "ERR Unmatched parenthesis in acl selector starting at '(+get'."
    );
    assert_eq!(check_name(b"a b"), Err(CommandError::ACL_USERNAME));
    assert_eq!(check_name(b"a\0b"), Err(CommandError::ACL_USERNAME));
    assert_eq!(check_name(b"ab"), Ok(()));
}

#[test]
fn commands_keys_and_channels_are_checked() {
    let reader = user("+@read %R~r:* ~b:* +set +sort");
    for (text, expected) in [
        ("GET r:1", "OK"),
        ("GET w:1", "User u has no permissions to access the 'w:1' key"),
        ("SET r:1 x", "User u has no permissions to access the 'r:1' key"),
        ("SET b:1 x", "OK"),
        ("SET b:1 x GET", "OK"),
        ("MGET r:1 b:1 x:1", "User u has no permissions to access the 'x:1' key"),
        ("DEL r:1", "User u has no permissions to run the 'del' command"),
        ("SORT r:1 STORE b:1", "OK"),
        ("SORT r:1 STORE r:2", "User u has no permissions to access the 'r:2' key"),
        ("CLIENT LIST", "User u has no permissions to run the 'client|list' command"),
        ("AUTH x", "OK"),
        // Its keys cannot be told: nobody with keys of his own gets through.
        ("ZUNION x r:1", "User u has no permissions to access the 'ZUNION' key"),
    ] {
        assert_eq!(dryrun(&reader, text), expected, "{text}");
    }
    // What is written needs no right to read, what is looked at only a pattern.
    let writer = user("+@all %W~w");
    assert_eq!(dryrun(&writer, "SET w 1"), "OK");
    assert_eq!(dryrun(&writer, "EXISTS w"), "OK");
    assert!(dryrun(&writer, "SET w 1 GET").contains("'w' key"));
    assert!(dryrun(&writer, "EXISTS x").contains("'x' key"));
}

#[test]
fn one_selector_must_allow_all_of_a_line() {
    let apart = user("+get ~g (+set ~s) (+mget ~m ~n)");
    assert_eq!(dryrun(&apart, "GET g"), "OK");
    assert_eq!(dryrun(&apart, "SET s 1"), "OK");
    assert!(dryrun(&apart, "GET s").contains("'s' key"));
    assert!(dryrun(&apart, "SET g 1").contains("'g' key"));
    // The refusal is that of the selector which came furthest.
    assert!(dryrun(&apart, "MGET m n o").contains("'o' key"));
    assert!(dryrun(&apart, "DEL s").contains("'del' command"));
}

#[test]
fn first_arguments_and_subcommands() {
    let selects = user("+select|0 +config -config|set +client|id");
    for (text, allowed) in [
        ("SELECT 0", true),
        ("SELECT 1", false),
        ("CONFIG GET x", true),
        ("CONFIG SET x y", false),
        ("CLIENT ID", true),
        ("CLIENT LIST", false),
    ] {
        assert_eq!(dryrun(&selects, text) == "OK", allowed, "{text}");
    }
    let all_but = user("+@all -client|kill ~*");
    assert_eq!(dryrun(&all_but, "CLIENT ID"), "OK");
    assert!(dryrun(&all_but, "CLIENT KILL x").contains("'client|kill' command"));
    assert!(!all_but.is_unrestricted());
    assert!(user("+@all ~* &*").is_unrestricted());
    assert!(!user("+@all ~*").is_unrestricted());
}

#[test]
fn sort_by_and_get_are_for_those_who_read_all() {
    let refused = |user: &User, text: &str| {
        let (entry, args) = line(text);
        user.check_sort(entry, &args).err()
    };
    let some = user("+@all %R~a* %RW~b");
    assert_eq!(refused(&some, "SORT a BY w_*"), Some(CommandError::SORT_BY_DENIED));
    assert_eq!(refused(&some, "SORT a LIMIT 0 1 BY nosort"), None);
    assert_eq!(refused(&some, "SORT_RO a GET x*"), Some(CommandError::SORT_GET_DENIED));
    assert_eq!(refused(&some, "SORT a STORE BY"), None);
    for all in ["+@all %R~*", "+@all ~*", "(+sort allkeys)"] {
        assert_eq!(refused(&user(all), "SORT a BY w_* GET x*"), None, "{all}");
    }
}

#[test]
fn channels() {
    let some = user("+@all resetchannels &news.* &*.log");
    assert!(some.may_subscribe(b"news.a") && some.may_publish(b"x.log"));
    assert!(!some.may_subscribe(b"old.a"));
    // A pattern is allowed as it was given, not because an allowed one would match it.
    assert!(some.may_subscribe_pattern(b"news.*") && !some.may_subscribe_pattern(b"news.a*"));
    assert!(user("allchannels").may_subscribe_pattern(b"*"));
    assert!(user("(&x)").may_subscribe(b"x"));
    let shards = user("+@all resetchannels &c ~k");
    assert_eq!(dryrun(&shards, "SPUBLISH c x"), "OK");
    assert!(dryrun(&shards, "SPUBLISH k x").contains("'k' channel"));
    assert!(dryrun(&shards, "PSUBSCRIBE c *").contains("'*' channel"));
    let more = user("resetchannels &news.* &*.log &x");
    assert!(more.keeps_channels_of(&some) && !some.keeps_channels_of(&more));
    assert!(user("allchannels").keeps_channels_of(&some));
    assert!(!some.keeps_channels_of(&user("allchannels")));
}

#[test]
fn passwords() {
    let two = user("on >one >two");
    assert!(two.accepts(b"one") && two.accepts(b"two") && !two.accepts(b"three"));
    assert!(!user("off >one").accepts(b"one"));
    assert!(user("on nopass").accepts(b"anything"));
    assert!(!user("on nopass resetpass").accepts(b""));
    assert!(!user("on").accepts(b""));
    let hash = &two.password_hashes()[0];
    assert!(user(&format!("on #{hash}")).accepts(b"one"));
    assert!(!user(&format!("on >one !{hash}")).accepts(b"one"));
    assert!(
        two.with_only_password(b"x").accepts(b"x") && !two.with_only_password(b"x").accepts(b"one")
    );
    assert!(two.with_only_password(b"").needs_no_password());
}

#[test]
fn files_are_taken_whole_or_not_at_all() {
    let parse = |text: &str| parse_file(text.as_bytes(), "f.acl", Defaults::default());
    let text = "user default on nopass ~* &* +@all\n\n  user a on >x ~b (+get ~c)  \r\n";
    let users = parse(text).expect("a good file");
    assert_eq!(users.len(), 2);
    assert_eq!(parse(&String::from_utf8(write_file(&users)).expect("text")), Ok(users));
    for (text, complaint) in [
        ("usr a on", "f.acl:1 should start with user keyword followed by the username. "),
        ("\nuser", "f.acl:2 should start with user keyword followed by the username. "),
        ("# no comments", "f.acl:1 should start with user keyword followed by the username. "),
        ("user a\tb on", "'f.acl:1: username 'a\tb' contains invalid characters. "),
        ("user a on\nuser a off", "WARNING: Duplicate user 'a' found on line 2. "),
        ("user a (+get", "f.acl:1: Unmatched parenthesis in selector definition."),
        (
            "user a on +foo #x bar\nuser b %x",
            "f.acl:1: Error in applying operation '+foo': Unknown command or category name in ACL. \
             f.acl:1: The password hash must be exactly 64 characters and contain only lowercase \
             hexadecimal characters. f.acl:2: Syntax error. ",
        ),
    ] {
        assert_eq!(parse(text), Err(complaint.to_owned()), "{text}");
    }
}

/// Words that rules are made of, and what may stand in them.
const WORDS: &[&str] = &[
    "on",
    "off",
    "nopass",
    "resetpass",
    "reset",
    ">p",
    "<p",
    "#",
    "!",
    "~",
    "~*",
    "~a*",
    "%R~",
    "%W~b",
    "%RW~c",
    "%",
    "&",
    "&*",
    "&c",
    "allkeys",
    "resetkeys",
    "allchannels",
    "resetchannels",
    "+@all",
    "-@all",
    "+@read",
    "-@slow",
    "+get",
    "-get",
    "+client",
    "-client|kill",
    "+client|id",
    "+select|0",
    "+select|",
    "+|",
    "-|x",
    "+@",
    "(",
    ")",
    "(+set",
    "~x)",
    "(~y)",
    "(+get ~z)",
    "clearselectors",
    "sanitize-payload",
    "\0",
    "\t",
    "~\\",
    "~[",
    "&[^",
    "|",
];

/// Rules from anywhere do not panic, are taken whole or not at all, and mean the same when they are read
/// back from where they are kept.
#[test]
fn rules_of_any_kind() {
    for seed in 0..2_000 {
        let mut random = Random::new(seed);
        let mut rules: Vec<Vec<u8>> = Vec::new();
        for _ in 0..random.below(9) {
            let mut rule = random.pick(WORDS).as_bytes().to_vec();
            if random.below(4) == 0 {
                rule.extend(random.bytes(6));
            }
            rules.push(rule);
        }
        let mut user = User::new(b"u", Defaults::default());
        for rule in &rules {
            let before = user.clone();
            match user.with_rules(std::slice::from_ref(rule), Defaults::default()) {
                Ok(changed) => user = changed,
                Err(_) => assert_eq!(user, before),
            }
        }
        let _ = User::new(b"u", Defaults::default()).with_rules(&rules, Defaults::default());
        let text = write_file([&user]);
        let read = parse_file(&text, "f", Defaults::default());
        let read = read.unwrap_or_else(|why| panic!("seed {seed}: {why}: {}", text.escape_ascii()));
        assert_eq!(read[0].describe(), user.describe(), "seed {seed}");
        for text in [
            "GET a1",
            "SET b 1",
            "CLIENT ID",
            "CLIENT KILL x",
            "SELECT 0",
            "MGET x c",
            "ZUNION 9 a",
        ] {
            let (entry, args) = line(text);
            assert_eq!(
                user.check(entry, &args),
                read[0].check(entry, &args),
                "seed {seed}: {text}"
            );
        }
        // And a file from anywhere is no more trouble.
        let _ = parse_file(&rules.concat(), "f", Defaults::default());
    }
}
