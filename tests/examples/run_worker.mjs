// A run worker in JavaScript: counts to `upTo` of the node's input, with a checkpoint at every step. See
// services/workers/TASKS.md.
//
//     NATS_URL=nats://127.0.0.1:4222 node run_worker.mjs count         takes tasks of the queue `count`

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";

const { NATS_URL: servers, NATS_USER: user, NATS_PASSWORD: pass, TASK_ACK_WAIT_S = "10" } = process.env;
const [queue, worker] = [process.argv[2], `javascript-${randomUUID()}`];
const ackWaitMs = 1000 * Number(TASK_ACK_WAIT_S); // the same for the runner and every worker of the queue

async function count(task, resumeState, reportEvent) { // the work itself
  const from = resumeState?.step ?? 0;
  for (let step = from + 1; step <= task.input.upTo; step += 1) {
    await sleep(task.input.pauseMs ?? 0);
    await reportEvent({ type: "checkpoint", data: { step } });
  }
  await reportEvent({ type: "succeeded", output: { steps: task.input.upTo, from } });
}

async function report(task, attempt, seq, event) {
  const about = { runId: task.runId, nodeId: task.nodeId, worker, attempt, seq };
  const body = JSON.stringify({ reports: [{ ...about, event }] });
  for (;;) { // until it is answered: what comes twice counts once
    const answer = await bus.request(task.reportTo, body, { timeout: 2000 }).then((m) => m.json(), () => ({}));
    if (answer.verdicts) return answer.verdicts[0];
    await sleep(200);
  }
}

async function serve(message) {
  const task = message.json();
  const taken = await report(task, 0, 0, {
    type: "take",
    delivered: message.info.deliveryCount,
    sequence: message.seq,
  });
  if (taken.type === "granted") { // else it is gone: another worker has it, or it was canceled
    const { attempt, resumeState, heartbeatMs = 10_000 } = taken;
    let [seq, gone] = [0, false];
    const processVerdict = (verdict) => { gone ||= verdict.type === "gone"; };
    const reportEvent = async (event) => gone || processVerdict(await report(task, attempt, ++seq, event));
    const alive = setInterval(() => {
      message.working();
      report(task, attempt, 0, { type: "heartbeat" }).then(processVerdict);
    }, Math.min(ackWaitMs, heartbeatMs) / 3);
    const step = async (event) => { await reportEvent(event); if (gone) throw new Error("this is no longer ours"); };
    await count(task, resumeState, step).catch((error) => reportEvent({ type: "failed", error: String(error) }));
    clearInterval(alive);
  }
  message.ack();
}

const inboxPrefix = user ? `_REPLY.${user}` : "_INBOX"; // where a NATS with users lets us receive replies
const bus = await connect({ servers, user, pass, inboxPrefix });
await (await jetstreamManager(bus, { checkAPI: false })).consumers.add("quintet_tasks", {
  durable_name: queue, filter_subject: `quintet.task.${queue}`, ack_policy: "explicit", ack_wait: ackWaitMs * 1e6,
  max_deliver: -1, max_ack_pending: -1, max_waiting: 16384,
});
const tasks = await jetstream(bus, { checkAPI: false }).consumers.get("quintet_tasks", queue);
console.log("serves", queue);
for (;;) {
  const message = await tasks.next({ expires: 30_000 });
  if (message) await serve(message);
}
