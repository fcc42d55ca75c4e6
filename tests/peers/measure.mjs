/**
 * What the Node peers share: the three measurements of `quintet bench`, in the same numbers, for any way of submitting.
 */
import { fork } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";

/** Like the 4 agents of 64 slots of `quintet bench`. */
export const WORKERS = 4;
export const SLOTS = 64;
export const BATCH = 1000;
export const BATCHES_AT_ONCE = 4;
export const SINGLES = 2000;
export const RATE = 1000;
export const SECONDS = 3;
const TIMEOUT_MS = 300_000;

/** Milliseconds that two processes of one machine can compare, finer than Date.now(). */
export const now = () => performance.timeOrigin + performance.now();

export async function until(what, condition) {
  const began = now();
  while (!(await condition())) {
    if (now() - began > TIMEOUT_MS) throw new Error(`${what}: not in time`);
    await sleep(10);
  }
}

/** Runs `file` once more per worker, each a process of its own, and waits for the first message of each. */
export async function startWorkers(file, ...args) {
  return Promise.all(Array.from({ length: WORKERS }, (_, number) => new Promise((resolve, reject) => {
    const worker = fork(file, ["worker", number, ...args]);
    worker.once("message", (ready) => resolve({ process: worker, ready }));
    worker.once("exit", (code) => reject(new Error(`a worker ended with ${code}`)));
  })));
}

/** Calls `work(0..count)`, so many at once. */
export async function atOnce(limit, count, work) {
  let next = 0;
  await Promise.all(Array.from({ length: limit }, async () => {
    while (next < count) await work(next++);
  }));
}

/** Submits everything with `submitAll` and gives jobs per second once `isDone`. */
export async function drain(count, submitAll, isDone) {
  const began = now();
  await submitAll();
  await until("drain", isDone);
  return count / ((now() - began) / 1000);
}

/** One submission after the other. */
export async function singles(submit) {
  const times = [];
  for (let number = 0; number < SINGLES; number++) {
    const began = now();
    await submit();
    times.push(now() - began);
  }
  return percentiles(times);
}

/** Submits at a fixed rate without waiting for answers, and gives the rate that was reached. */
export async function steady(submit) {
  const [count, began, sent] = [RATE * SECONDS, now(), []];
  while (sent.length < count) {
    // As many as are due: what was late is caught up with at once.
    const due = Math.min(count, Math.floor((now() - began) * RATE / 1000) + 1);
    while (sent.length < due) sent.push(submit());
    await sleep(1);
  }
  const seconds = (now() - began) / 1000;
  await Promise.all(sent);
  return count / seconds;
}

/** The same index as in `quintet bench`. */
export function percentiles(times) {
  times.sort((a, b) => a - b);
  const at = (share) => times[Math.min(times.length - 1, Math.floor(times.length * share))];
  return { p50: at(0.5), p99: at(0.99) };
}
