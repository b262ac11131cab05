"""redis-py against a server: python client.py PORT. Ends with status 0 and the word "ok"."""

import sys
import threading
import time

import redis

PORT = int(sys.argv[1])


def check_strings(r):
    assert r.set("s", "v") is True
    assert r.get("s") == b"v"
    assert r.get("nosuch") is None
    assert r.set("s", "w", nx=True) is None
    assert r.set("s", "w", xx=True, get=True) == b"v"
    assert r.append("s", "x") == 2
    assert r.setrange("s", 1, "yz") == 3
    assert r.getrange("s", 0, 1) == b"wy"
    assert r.strlen("s") == 3
    assert r.mset({"{t}a": 1, "b": 2, "c": 3}) is True
    assert r.mget("{t}a", "b", "nosuch", "c") == [b"1", b"2", None, b"3"]
    assert r.msetnx({"c": 0, "d": 0}) is False
    assert r.incr("n") == 1 and r.incrby("n", 41) == 42 and r.decrby("n", 2) == 40
    assert r.incrbyfloat("f", 10.5) == 10.5
    assert r.getset("s", "old") == b"wyz"
    assert r.getdel("s") == b"old" and r.exists("s") == 0
    r.set("k1", "ohmytext"), r.set("k2", "mynewtext")
    assert r.lcs("k1", "k2") == b"mytext"
    assert r.lcs("k1", "k2", len=True) == 6


def check_keys(r):
    r.set("e", 1, ex=100)
    assert 98 <= r.ttl("e") <= 100 and r.pttl("e") > 98_000
    assert r.expire("e", 50, gt=True) is False and r.expire("e", 50, lt=True) is True
    assert r.persist("e") is True and r.ttl("e") == -1 and r.ttl("nosuch") == -2
    assert abs(r.expireat("e", int(time.time()) + 100) and r.expiretime("e") - time.time() - 100) < 3
    assert r.rename("e", "e2") is True and r.renamenx("e2", "n") is False
    assert r.copy("e2", "e3") is True and r.copy("e2", "e3") is False
    assert r.copy("e2", "e3", replace=True) is True
    assert r.type("e2") == b"string" and r.object("encoding", "n") == b"int"
    assert r.touch("e2", "e3", "nosuch") == 2 and r.unlink("e3", "nosuch") == 1
    payload = r.dump("e2")
    assert r.restore("e4", 0, payload) and r.get("e4") == b"1"
    for i in range(500):
        r.set(f"scan:{i}", i)
    assert len(set(r.scan_iter("scan:*", count=50))) == 500
    assert len(r.keys("scan:1??")) == 100
    assert r.randomkey() is not None
    r.set("short", 1, px=20)
    deadline = time.monotonic() + 5
    while r.get("short") is not None:
        assert time.monotonic() < deadline, "a key outlives its time"
    assert r.exists("short") == 0


def check_server(r):
    assert r.ping() is True and r.echo("hi") == b"hi"
    info = r.info()
    assert info["redis_version"] and info["redis_mode"] == "standalone" and info["loading"] == 0
    assert int(info["redis_version"].split(".")[0]) >= 7
    assert r.dbsize() > 500
    assert r.config_get("slowlog-max-len") == {"slowlog-max-len": "128"}
    assert r.config_set("slowlog-max-len", 64) is True
    assert abs(r.time()[0] - time.time()) < 5
    assert r.client_setname("py") and r.client_getname() in ("py", b"py")
    assert any(c["name"] == "py" for c in r.client_list()) and r.client_id() > 0
    assert r.slowlog_reset() is True and isinstance(r.slowlog_get(), list)
    assert r.command_count() > 60 and "get" in {name.lower() for name in r.command()}
    for wrong in (("NOSUCH",), ("GET",), ("SET", "a", "b", "EX", "0"), ("CLIENT", "NOSUCH")):
        try:
            r.execute_command(*wrong)
        except redis.ResponseError:
            continue
        raise AssertionError(f"{wrong} was accepted")
    assert r.ping()


def check_pipelines(r):
    with r.pipeline(transaction=False) as pipe:
        for i in range(2_000):
            pipe.set(f"p:{i}", i).get(f"p:{i}")
        results = pipe.execute()
    assert results == [x for i in range(2_000) for x in (True, str(i).encode())]


def check_transactions(r):
    with r.pipeline() as pipe:
        assert pipe.set("t", 1).incr("t").get("t").execute() == [True, 2, b"2"]
        results = pipe.set("t", "x").incr("t").get("t").execute(raise_on_error=False)
        assert results[0] is True and results[2] == b"x"
        assert isinstance(results[1], redis.ResponseError)
        pipe.watch("t")
        r.set("t", 5)
        pipe.multi()
        pipe.incr("t")
        try:
            pipe.execute()
            raise AssertionError("a changed key was not noticed")
        except redis.WatchError:
            pass
        pipe.execute_command("nosuch")
        try:
            pipe.execute()
            raise AssertionError("an unknown command was executed")
        except redis.exceptions.ResponseError:
            pass
    assert r.transaction(lambda pipe: pipe.multi() or pipe.incr("t"), "t") == [6]


def check_threads(pool):
    def add():
        mine = redis.Redis(connection_pool=pool)
        for _ in range(200):
            mine.incr("threads")

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert redis.Redis(connection_pool=pool).get("threads") == b"1600"


for protocol in (2, 3):
    client = redis.Redis(host="127.0.0.1", port=PORT, protocol=protocol, client_name="check")
    client.flushall()
    for check in (check_strings, check_keys, check_server, check_pipelines, check_transactions):
        check(client)
    check_threads(client.connection_pool)
    other = redis.Redis(host="127.0.0.1", port=PORT, db=5, protocol=protocol, decode_responses=True)
    assert other.get("n") is None
    other.set("n", "five")
    assert other.get("n") == "five" and client.get("n") == b"40"
    assert other.flushdb() is True and client.dbsize() > 0
    client.config_set("slowlog-max-len", 128)
print("ok")
