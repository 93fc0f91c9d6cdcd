// BullMQ: 50 jobs at once in each process, finished jobs not kept. As benchmarks/peers/noop.py:
//   node noop.mjs send SINGLE BULK    prints one line of JSON
//   node noop.mjs work                one worker, until it is told to end
import { openSync, readFileSync, writeSync } from "node:fs";
import { Queue, Worker } from "bullmq";
import { connection, queueName } from "./server.mjs";

const BULK = 100;
const CONCURRENCY = 50;
const now = () => process.hrtime.bigint();

async function rate(count, send) {
  if (count === 0) return null;
  const began = now();
  await send();
  return count / (Number(now() - began) / 1e9);
}

async function send(singles, bulks) {
  const sources = Number(process.env.BENCHMARK_SOURCES);
  const queue = new Queue(queueName, { connection });
  await queue.waitUntilReady();
  const opts = { removeOnComplete: true, removeOnFail: true };
  const job = (at) => ({ name: "event", data: { source: `source-${at % sources}`, ref: `folder/object-${at}` }, opts });
  const single = await rate(singles, async () => {
    for (let at = 0; at < singles; at++) {
      const { name, data } = job(at);
      await queue.add(name, data, opts);
    }
  });
  const bulk = await rate(bulks, async () => {
    for (let at = singles; at < singles + bulks; at += BULK) {
      const size = Math.min(BULK, singles + bulks - at);
      await queue.addBulk(Array.from({ length: size }, (_, more) => job(at + more)));
    }
  });
  await queue.close();
  const { version } = JSON.parse(readFileSync(new URL("node_modules/bullmq/package.json", import.meta.url), "utf8"));
  console.log(JSON.stringify({ version: `${version}, Node ${process.versions.node}`, single, bulk }));
}

// The same three numbers as benchmarks/ledger.py's Tally, in the same clock. Node cannot map a file: they are noted in
// memory and written every 10 ms, so that counting costs no system call per job.
function work() {
  const file = openSync(`${process.env.BENCHMARK_TALLY}/${process.pid}.tally`, "w");
  const entry = Buffer.alloc(24);
  let count = 0, written = 0, began = 0n, ended = 0n;
  new Worker(queueName, async () => {
    if (count === 0) began = now();
    count += 1;
    ended = now();
  }, { connection, concurrency: CONCURRENCY });
  setInterval(() => {
    if (count === written) return;
    written = count;
    entry.writeBigInt64LE(BigInt(count), 0);
    entry.writeBigInt64LE(began, 8);
    entry.writeBigInt64LE(ended, 16);
    writeSync(file, entry, 0, 24, 0);
  }, 10);
  process.on("SIGTERM", () => process.exit(0));
}

const [verb, singles, bulks] = process.argv.slice(2);
if (verb === "work") work();
else await send(Number(singles), Number(bulks));
