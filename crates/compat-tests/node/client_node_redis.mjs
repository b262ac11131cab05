// node-redis against a server: node client_node_redis.mjs PORT. Ends with status 0 and the word "ok".
// Once with RESP2 and once with RESP3.

import assert from "node:assert/strict";
import { createClient, defineScript } from "redis";

const port = Number(process.argv[2]);
const scripts = {
    addAll: defineScript({
        NUMBER_OF_KEYS: 1,
        SCRIPT: "local sum = 0 for _, n in ipairs(ARGV) do sum = redis.call('INCRBY', KEYS[1], n) end return sum",
        parseCommand(parser, key, numbers) {
            parser.pushKey(key);
            parser.push(...numbers);
        },
        transformReply: (reply) => reply,
    }),
};

for (const RESP of [2, 3]) {
    const client = createClient({ url: `redis://127.0.0.1:${port}/4`, RESP, scripts });
    await client.connect();
    const other = client.duplicate();
    await other.connect();
    await client.flushDb();

    assert.equal(await client.set("key", "value", { expiration: { type: "EX", value: 100 } }), "OK");
    assert.equal(await client.get("key"), "value");
    assert.deepEqual(await client.mGet(["key", "nosuch"]), ["value", null]);
    await client.hSet("hash", { a: "1", b: "2" });
    assert.deepEqual({ ...(await client.hGetAll("hash")) }, { a: "1", b: "2" });
    await client.zAdd("zset", [{ score: 1, value: "one" }, { score: 2.5, value: "two" }]);
    assert.deepEqual(
        (await client.zRangeWithScores("zset", 0, -1)).map(({ score, value }) => [score, value]),
        [[1, "one"], [2.5, "two"]],
    );
    await client.xAdd("stream", "1-1", { f: "v" });
    const [entry] = await client.xRange("stream", "-", "+");
    assert.deepEqual([entry.id, { ...entry.message }], ["1-1", { f: "v" }]);

    const [, incremented] = await client.multi().set("n", "1").incrBy("n", 4).exec();
    assert.equal(incremented, 5);
    assert.equal(await client.addAll("sum", ["1", "2", "3"]), 6);
    assert.equal(await client.addAll("sum", ["4"]), 10);

    const popped = client.blPop("queue", 10);
    await other.rPush("queue", "job");
    assert.deepEqual({ ...(await popped) }, { key: "queue", element: "job" });

    const keys = Array.from({ length: 300 }, (_, at) => `scan:${at}`);
    await Promise.all(keys.map((key) => client.set(key, "x")));
    const found = new Set();
    for await (const some of client.scanIterator({ MATCH: "scan:*", COUNT: 50 })) [some].flat().forEach((key) => found.add(key));
    assert.equal(found.size, 300);

    const messages = [];
    let arrived;
    const both = new Promise((resolve) => (arrived = resolve));
    const listener = (message, channel) => messages.push([channel, message]) === 2 && arrived();
    await other.subscribe("news", listener);
    await other.pSubscribe("ne*", listener);
    assert.equal(await client.publish("news", "hello"), 2);
    await both;
    assert.deepEqual(messages, [["news", "hello"], ["news", "hello"]]);

    await client.flushDb();
    client.destroy();
    other.destroy();
}
console.log("ok");
