"""An agent on the bus, in Python: takes jobs, pretends to run them, and reports.

    NATS_URL=nats://127.0.0.1:4222 AGENT_ID=me python3 agent_nats.py --jobs 2
"""

import argparse
import asyncio
import json
import os
import uuid

import nats

AGENT = os.environ.get("AGENT_ID", "python")


async def main(jobs):
    bus = await nats.connect(os.environ["NATS_URL"], user=os.environ.get("NATS_USER"), password=os.environ.get("NATS_PASSWORD"))
    session, clock, mine, done = str(uuid.uuid4()), 0, {}, asyncio.Event()

    async def send(kind, **fields):  # every message of a session counts its clock up, and is repeated until it is answered
        nonlocal clock
        while True:
            clock += 1
            try:
                body = json.dumps({"session": session, "clock": clock, **fields}).encode()
                return json.loads((await bus.request(f"quintet.{kind}.agent.{AGENT}", body, timeout=3)).data)
            except (nats.errors.TimeoutError, nats.errors.NoRespondersError):
                await asyncio.sleep(0.2)

    async def report(kind, **fields):
        return await send("report", reports=[{"type": kind, **fields}])

    async def run(offer):
        job = {"jobId": offer["jobId"], "attempt": offer["attempt"]}
        mine[offer["jobId"]] = {**job, "status": "ACCEPTED"}
        reply = await report("assignAck", **job, accepted=True)
        if job in reply.get("start", []):  # start nothing before the acceptance is stored
            await report("jobUpdate", **job, status="RUNNING")
            print("ran", offer["config"], flush=True)
            await report("jobStopped", **job, status="STOPPED")
        mine.pop(offer["jobId"])
        if len(offers_seen) == jobs and not mine:
            done.set()

    offers_seen = set()

    async def offered(message):
        offer = json.loads(message.data) if message.data[:1] == b"{" else decode(message.data)
        if (offer["jobId"], offer["attempt"]) not in offers_seen:
            offers_seen.add((offer["jobId"], offer["attempt"]))
            asyncio.create_task(run(offer))

    await bus.subscribe(f"quintet.assigned.{AGENT}", cb=offered)
    hello = {"name": AGENT, "version": "1.0", "capabilities": {"slots": 1}, "activeJobs": []}
    welcome = await report("hello", hello=hello)
    while not done.is_set():
        reply = await send("hb", jobs=list(mine.values()))
        if reply["standing"] == "helloRequired":
            session, clock = str(uuid.uuid4()), 0
            await report("hello", hello={**hello, "activeJobs": list(mine.values())})
        try:
            await asyncio.wait_for(done.wait(), welcome["settings"]["heartbeatIntervalMs"] / 1000)
        except asyncio.TimeoutError:
            pass
    await report("goodbye", reason="done")
    await bus.close()


def decode(data):
    import msgpack  # what services send each other; agents may send JSON

    return msgpack.unpackb(data)


parser = argparse.ArgumentParser()
parser.add_argument("--jobs", type=int, default=1, help="leave after so many")
asyncio.run(main(parser.parse_args().jobs))
