// BullMQ against a server: node queue_bullmq.mjs PORT. Ends with status 0 and the word "ok".
//
// A worker runs 1,000 jobs; when half of them are done, every other connection to the server is killed.
// Queue, worker and events reconnect by themselves; a job that was taken twice is done once.

import assert from "node:assert/strict";
import { Queue, QueueEvents, Worker } from "bullmq";
import Redis from "ioredis";

const connection = { host: "127.0.0.1", port: Number(process.argv[2]), maxRetriesPerRequest: null };
const JOBS = 1000;
const WITHIN_MS = 120_000;

const queue = new Queue("numbers", { connection });
const events = new QueueEvents("numbers", { connection });
const worker = new Worker("numbers", async (job) => job.data.n + 1, { connection, concurrency: 8 });
const control = new Redis(connection);
// Connections that are killed are told of as errors; only what never recovers fails the run.
for (const part of [queue, events, worker, control]) part.on("error", () => {});

const done = new Map();
worker.on("completed", (job) => done.set(job.data.n, job.returnvalue));

async function run(from, to) {
    const jobs = [];
    for (let n = from; n < to; n += 1) jobs.push({ name: "next", data: { n }, opts: { attempts: 3 } });
    const added = await queue.addBulk(jobs);
    await Promise.all(added.slice(0, 10).map((job) => job.waitUntilFinished(events, WITHIN_MS)));
    const deadline = Date.now() + WITHIN_MS;
    while (done.size < to) {
        assert(Date.now() < deadline, `${done.size} of ${to} jobs done`);
        await new Promise((resolve) => setTimeout(resolve, 10));
    }
}

await events.waitUntilReady();
await run(0, JOBS / 2);
const killed = await control.client("KILL", "TYPE", "normal", "SKIPME", "yes");
assert(killed >= 3, `killed ${killed}`);
await run(JOBS / 2, JOBS);
for (let n = 0; n < JOBS; n += 1) assert.equal(done.get(n), n + 1);
const counts = await queue.getJobCounts("completed", "failed", "active", "waiting", "delayed");
assert.deepEqual(counts, { completed: JOBS, failed: 0, active: 0, waiting: 0, delayed: 0 });
await queue.add("later", { n: JOBS }, { delay: 50 });
const deadline = Date.now() + WITHIN_MS;
while (!done.has(JOBS)) {
    assert(Date.now() < deadline, "the delayed job");
    await new Promise((resolve) => setTimeout(resolve, 10));
}
await worker.close();
await events.close();
await queue.obliterate({ force: true });
await queue.close();
control.disconnect();
console.log("ok");
