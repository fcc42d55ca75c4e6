"""A run worker in Python: counts to `upTo` of the node's input, with a checkpoint at every step. See services/workers/TASKS.md.

    NATS_URL=nats://127.0.0.1:4222 python3 run_worker.py count         takes tasks of the queue `count`
"""

import asyncio, itertools, json, os, sys, uuid

import nats
from nats.js.api import AckPolicy, ConsumerConfig

QUEUE, WORKER, USER = sys.argv[1], f"python-{uuid.uuid4()}", os.environ.get("NATS_USER")
ACK_WAIT = float(os.environ.get("TASK_ACK_WAIT_S", "10"))  # the same for the runner and every worker of the queue


async def count(task, resume_state, report_event):  # the work itself
    step = first = (resume_state or {"step": 0})["step"]
    while step < task["input"]["upTo"]:
        await asyncio.sleep(task["input"].get("pauseMs", 0) / 1000)
        step += 1
        await report_event(type="checkpoint", data={"step": step})
    await report_event(type="succeeded", output={"steps": step, "from": first})


async def report(bus, task, attempt, seq, **event):
    about = {"runId": task["runId"], "nodeId": task["nodeId"], "worker": WORKER, "attempt": attempt, "seq": seq}
    body = json.dumps({"reports": [{**about, "event": event}]}).encode()
    while True:  # until it is answered: what comes twice counts once
        try:
            answer = json.loads((await bus.request(task["reportTo"], body, timeout=2)).data)
            if "verdicts" in answer:
                return answer["verdicts"][0]
        except (nats.errors.TimeoutError, nats.errors.NoRespondersError):
            pass
        await asyncio.sleep(0.2)


async def serve(bus, message):
    task, numbers = json.loads(message.data), itertools.count(1)
    delivery = message.metadata
    take = {"type": "take", "delivered": delivery.num_delivered, "sequence": delivery.sequence.stream}
    taken = await report(bus, task, 0, 0, **take)
    if taken["type"] == "granted":  # else it is gone: another worker has it, or it was canceled
        attempt, period = taken["attempt"], min(ACK_WAIT, taken.get("heartbeatMs", 10_000) / 1000) / 3
        report_event = lambda **event: report(bus, task, attempt, next(numbers), **event)
        work = asyncio.create_task(count(task, taken.get("resumeState"), report_event))
        while not (await asyncio.wait({work}, timeout=period))[0]:
            await message.in_progress()
            if (await report(bus, task, attempt, 0, type="heartbeat"))["type"] == "gone":
                work.cancel()
        if not work.cancelled() and work.exception():
            await report_event(type="failed", error=f"the worker failed: {work.exception()!r}", retryable=False)
    await message.ack()


async def main():
    inbox = f"_REPLY.{USER}" if USER else "_INBOX"  # where a NATS with users lets us receive replies
    bus = await nats.connect(os.environ["NATS_URL"], user=USER, password=os.environ.get("NATS_PASSWORD"), inbox_prefix=inbox.encode())
    limits = {"max_deliver": -1, "max_ack_pending": -1, "max_waiting": 16384}
    config = ConsumerConfig(durable_name=QUEUE, filter_subject=f"quintet.task.{QUEUE}", ack_policy=AckPolicy.EXPLICIT, ack_wait=ACK_WAIT, **limits)
    await bus.jetstream().add_consumer("quintet_tasks", config)
    tasks = await bus.jetstream().pull_subscribe_bind(QUEUE, "quintet_tasks")
    print("serves", QUEUE, flush=True)
    while True:
        try:
            for message in await tasks.fetch(1, timeout=30):
                await serve(bus, message)
        except nats.errors.TimeoutError:
            pass


asyncio.run(main())
