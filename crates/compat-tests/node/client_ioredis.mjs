// ioredis against a server: node client_ioredis.mjs PORT. Ends with status 0 and the word "ok".

import assert from "node:assert/strict";
import Redis from "ioredis";

const port = Number(process.argv[2]);
const redis = new Redis(port, "127.0.0.1", { db: 3 });
const other = new Redis(port, "127.0.0.1", { db: 3 });
await redis.flushdb();

// Strings, binary included, and pipelines.
assert.equal(await redis.set("key", "value", "EX", 100), "OK");
assert.equal(await redis.get("key"), "value");
const binary = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
await redis.set("binary", binary);
assert.deepEqual(await redis.getBuffer("binary"), binary);
const answers = await redis.pipeline().incr("n").incrby("n", 41).get("nosuch").hget("key", "f").exec();
assert.deepEqual(answers.slice(0, 3), [[null, 1], [null, 42], [null, null]]);
assert.match(answers[3][0].message, /^WRONGTYPE /);

// Each type once.
await redis.hset("hash", { a: 1, b: 2 });
assert.deepEqual(await redis.hgetall("hash"), { a: "1", b: "2" });
await redis.rpush("list", "x", "y", "z");
assert.deepEqual(await redis.lrange("list", 0, -1), ["x", "y", "z"]);
await redis.sadd("set", "m", "n");
assert.deepEqual((await redis.smembers("set")).sort(), ["m", "n"]);
await redis.zadd("zset", 1, "one", 2, "two");
assert.deepEqual(await redis.zrange("zset", 0, -1, "WITHSCORES"), ["one", "1", "two", "2"]);
const id = await redis.xadd("stream", "*", "field", "value");
assert.deepEqual(await redis.xrange("stream", "-", "+"), [[id, ["field", "value"]]]);

// Transactions.
await redis.watch("key");
await other.set("key", "changed");
assert.equal(await redis.multi().set("key", "lost").exec(), null);
assert.deepEqual(await redis.multi().set("key", "won").get("key").exec(), [[null, "OK"], [null, "won"]]);

// SCAN as a stream.
const fill = redis.pipeline();
for (let at = 0; at < 500; at += 1) fill.set(`scan:${at}`, at);
await fill.exec();
const found = new Set();
for await (const keys of redis.scanStream({ match: "scan:*", count: 50 })) keys.forEach((key) => found.add(key));
assert.equal(found.size, 500);

// Blocking: handed over by the other connection, and a wait that ends empty-handed.
const popped = redis.blpop("queue", 10);
await other.rpush("queue", "job");
assert.deepEqual(await popped, ["queue", "job"]);
assert.equal(await redis.blpop("queue", 0.01), null);

// Scripts: EVALSHA first, EVAL when the server does not know it.
redis.defineCommand("swap", {
    numberOfKeys: 2,
    lua: `local a, b = redis.call("GET", KEYS[1]), redis.call("GET", KEYS[2])
          redis.call("MSET", KEYS[1], b, KEYS[2], a)
          return {a, b, ARGV[1]}`,
});
await redis.mset("left", "l", "right", "r");
assert.deepEqual(await redis.swap("left", "right", "arg"), ["l", "r", "arg"]);
assert.deepEqual(await redis.swap("left", "right", "arg"), ["r", "l", "arg"]);

// Publish and subscribe.
const heard = new Promise((resolve) => other.on("message", (channel, message) => resolve([channel, message])));
assert.equal(await other.subscribe("news"), 1);
assert.equal(await redis.publish("news", "hello"), 1);
assert.deepEqual(await heard, ["news", "hello"]);

// A connection that is killed comes back, and what it subscribed to with it.
const again = new Promise((resolve) => other.once("ready", resolve));
await redis.client("KILL", "TYPE", "pubsub");
await again;
const heardAgain = new Promise((resolve) => other.on("message", (_, message) => resolve(message)));
while ((await redis.publish("news", "again")) === 0) await new Promise((resolve) => setTimeout(resolve, 5));
assert.equal(await heardAgain, "again");

await redis.flushdb();
redis.disconnect();
other.disconnect();
console.log("ok");
