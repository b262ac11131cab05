"""redis-py's cluster client against a server: python cluster.py PORT. Ends with status 0 and the word "ok"."""

import sys

from redis.cluster import RedisCluster

PORT = int(sys.argv[1])
r = RedisCluster(host="127.0.0.1", port=PORT)
for at in range(200):
    assert r.set(f"k:{at}", at)
assert [int(r.get(f"k:{at}")) for at in range(200)] == list(range(200))
assert r.mset_nonatomic({f"m:{at}": at for at in range(20)})
assert r.mget_nonatomic([f"m:{at}" for at in range(20)]) == [str(at).encode() for at in range(20)]
pipe = r.pipeline()
for at in range(50):
    pipe.incr(f"n:{at % 5}")
assert pipe.execute() == [at // 5 + 1 for at in range(50)]
assert r.dbsize() == 225 and len(list(r.scan_iter("k:*", count=50))) == 200
assert r.delete(*[f"k:{at}" for at in range(10)]) == 10
assert r.cluster_info()["cluster_state"] == "ok"
assert list(r.cluster_nodes()) == [f"127.0.0.1:{PORT}"]
assert r.cluster_keyslot("foo") == 12182
assert r.cluster_countkeysinslot(r.keyslot("m:1")) >= 1
resp3 = RedisCluster(host="127.0.0.1", port=PORT, protocol=3)
assert resp3.get("k:100") == b"100"
print("ok")
