/**
 * Measures BullMQ on Redis as `quintet bench` measures Quintet, and prints one line of JSON.
 *
 *   node bullmq.mjs REDIS_PORT JOBS
 *
 * Each handler returns how long after its submission it began; BullMQ keeps that with the completed job, so the count
 * and the times are read back from where a user would look for them.
 */
import { Queue, Worker } from "bullmq";
import {
  BATCH, BATCHES_AT_ONCE, RATE, SECONDS, SINGLES, SLOTS, atOnce, drain, now, percentiles, singles, startWorkers, steady,
  until,
} from "./measure.mjs";

const QUEUE = "bench";

async function work(port) {
  const worker = new Worker(QUEUE, async (job) => now() - job.data.at, {
    connection: { host: "127.0.0.1", port, maxRetriesPerRequest: null },
    concurrency: SLOTS,
  });
  await worker.waitUntilReady();
  process.on("disconnect", () => process.exit());
  process.send("ready");
}

async function measure(port, jobs) {
  const workers = await startWorkers(import.meta.filename, port);
  const queue = new Queue(QUEUE, { connection: { host: "127.0.0.1", port } });
  const completed = (count) => async () => (await queue.getCompletedCount()) >= count;
  const batch = () => Array.from({ length: BATCH }, () => ({ name: "drain", data: { at: now() } }));

  const rate = await drain(
    jobs,
    () => atOnce(BATCHES_AT_ONCE, jobs / BATCH, () => queue.addBulk(batch())),
    completed(jobs),
  );
  const submit = await singles(() => queue.add("submit", { at: now() }));
  await until("submit", completed(jobs + SINGLES));
  const reached = await steady(() => queue.add("start", { at: now() }));
  const expected = jobs + SINGLES + RATE * SECONDS;
  await until("start", completed(expected));

  const counts = await queue.getJobCounts();
  const starts = (await queue.getCompleted(0, RATE * SECONDS - 1)).filter((job) => job.name === "start");
  const left = counts.waiting + counts.active + counts.delayed + counts.failed;
  if (counts.completed !== expected || left !== 0 || starts.length !== RATE * SECONDS) {
    throw new Error(`not every job was processed once: ${JSON.stringify(counts)}, ${starts.length} starts`);
  }
  const start = percentiles(starts.map((job) => job.returnvalue));
  console.log(JSON.stringify({ drain: rate, submit, start, reached, processed: counts.completed }));
  workers.forEach((worker) => worker.process.kill("SIGKILL"));
  await queue.close();
}

const [role, ...rest] = process.argv.slice(2);
if (role === "worker") await work(Number(rest[1]));
else await measure(Number(role), Number(rest[0]));
