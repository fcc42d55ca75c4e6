/**
 * Measures Restate as `quintet bench` measures Quintet, and prints one line of JSON.
 *
 *   node restate.mjs INGRESS_PORT ADMIN_PORT JOBS
 *
 * Four processes serve one service each, and one-way sends go round them: of one service, one process would get all.
 * Restate keeps no result of a one-way send, so the handlers keep how long after its submission each began; whether all
 * are completed is asked of the server.
 */
import http from "node:http";
import http2 from "node:http2";
import * as restate from "@restatedev/restate-sdk";
import {
  RATE, SECONDS, SINGLES, WORKERS, atOnce, drain, now, percentiles, singles, startWorkers, steady, until,
} from "./measure.mjs";

/** Requests on their way at once: no request carries more than one send. */
const IN_FLIGHT = 128;
const connections = new http.Agent({ keepAlive: true, maxSockets: IN_FLIGHT });

function post(port, path, body) {
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json", accept: "application/json" };
    const options = { host: "127.0.0.1", port, path, method: "POST", agent: connections, headers };
    const request = http.request(options, async (response) => {
      let text = "";
      for await (const chunk of response) text += chunk;
      if (response.statusCode < 300) resolve(JSON.parse(text));
      else reject(new Error(`${path} answered ${response.statusCode}: ${text}`));
    });
    request.on("error", reject);
    request.end(JSON.stringify(body));
  });
}

// The SDK needs it, and Node has it from version 22 on.
Promise.withResolvers ??= () => {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
};

/** Serves one service; sends its port, then whenever asked how many jobs it began and how late those of `start`. */
async function work(number) {
  const began = { count: 0, late: [] };
  const noop = async (_context, { kind, at }) => {
    began.count += 1;
    if (kind === "start") began.late.push(now() - at);
  };
  const services = [restate.service({ name: `bench${number}`, handlers: { noop } })];
  const server = http2.createServer(restate.createEndpointHandler({ services }));
  server.listen(0, "127.0.0.1", () => process.send({ port: server.address().port }));
  process.on("message", () => process.send(began));
  process.on("disconnect", () => process.exit());
}

async function measure(ingress, admin, jobs) {
  const workers = await startWorkers(import.meta.filename);
  for (const { port } of workers.map((worker) => worker.ready)) {
    await post(admin, "/deployments", { uri: `http://127.0.0.1:${port}` });
  }
  const ask = (worker) => new Promise((answered) => {
    worker.process.once("message", answered);
    worker.process.send("report");
  });
  const reports = () => Promise.all(workers.map(ask));
  const begun = async () => (await reports()).reduce((sum, { count }) => sum + count, 0);
  const completed = async () => {
    const query = "SELECT count(*) AS n FROM sys_invocation WHERE completion_result = 'success'";
    return (await post(admin, "/query", { query })).rows[0].n;
  };
  // The query reads every invocation, so it is only asked once the handlers have seen them all.
  const done = (count) => async () => (await begun()) >= count && (await completed()) >= count;
  let next = 0;
  const send = (kind) => post(ingress, `/bench${next++ % WORKERS}/noop/send`, { kind, at: now() });

  const rate = await drain(jobs, () => atOnce(IN_FLIGHT, jobs, () => send("drain")), done(jobs));
  const submit = await singles(() => send("submit"));
  await until("submit", done(jobs + SINGLES));
  const reached = await steady(() => send("start"));
  const expected = jobs + SINGLES + RATE * SECONDS;
  await until("start", done(expected));

  const [processed, ran, late] = [await completed(), await begun(), (await reports()).flatMap(({ late }) => late)];
  if (processed !== expected || ran !== expected || late.length !== RATE * SECONDS) {
    throw new Error(`not every job was processed once: ${processed} completed, ${ran} ran, ${late.length} starts`);
  }
  console.log(JSON.stringify({ drain: rate, submit, start: percentiles(late), reached, processed }));
  workers.forEach((worker) => worker.process.kill("SIGKILL"));
  connections.destroy();
}

const [role, ...rest] = process.argv.slice(2);
if (role === "worker") await work(rest[0]);
else await measure(Number(role), Number(rest[0]), Number(rest[1]));
