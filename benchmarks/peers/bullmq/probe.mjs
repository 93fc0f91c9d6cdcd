// BullMQ probed: plain, its four ways of deduplication, and the rate limit and the concurrency that a queue has.
// As benchmarks/peers/probe.py:  node probe.mjs send  and  node probe.mjs work
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { Queue, Worker } from "bullmq";
import { connection, queueName } from "./server.mjs";

const WINDOW_MS = 1000;
const CRASHES_S = 600;
const feature = process.env.BENCHMARK_FEATURE ?? "plain";
const journal = process.env.BENCHMARK_JOURNAL;

// docs.bullmq.io/guide/jobs/deduplication, in its words: simple, throttle, debounce, keep last if active
const jobOptions = (id) => ({
  simple: { deduplication: { id } },
  throttle: { deduplication: { id, ttl: WINDOW_MS } },
  debounce: { deduplication: { id, ttl: WINDOW_MS, extend: true, replace: true }, delay: WINDOW_MS },
  keep_last: { deduplication: { id, keepLastIfActive: true } },
}[feature] ?? {});

// The limiter and the concurrency are the queue's; per key they are a feature of BullMQ Pro ("groups").
const workerOptions = { rate: { concurrency: 10, limiter: { max: 1, duration: WINDOW_MS } } }[feature] ?? { concurrency: 10 };

const note = (what, key) => appendFileSync(journal, `${what} ${key} ${process.hrtime.bigint()}\n`);

async function job({ data: { key, seconds } }) {
  const again = seconds >= CRASHES_S && existsSync(journal) && readFileSync(journal, "ascii").includes(`start ${key} `);
  note("start", key);
  if (!again) await new Promise((done) => setTimeout(done, seconds * 1000));
  note("end", key);
}

if (process.argv[2] === "work") {
  new Worker(queueName, job, { connection, ...workerOptions });
  process.on("SIGTERM", () => process.exit(0));
} else {
  const queue = new Queue(queueName, { connection });
  await queue.waitUntilReady();
  console.log("ready");
  for await (const line of createInterface({ input: process.stdin })) {
    const [key, seconds] = line.split(" ");
    await queue.add("event", { key, seconds: Number(seconds) }, jobOptions(key));
    console.log("sent"); // a deduplicated add answers like any other
  }
  await queue.close();
}
