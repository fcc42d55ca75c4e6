"""Looks at a running Quintet with the plain NATS client and prints what it sees as JSON.

    NATS_URL=nats://127.0.0.1:4222 python3 look.py JOB_ID

What it does is what `nats micro ls`, `nats micro info`, `nats kv ls` and `nats request` do.
"""

import asyncio
import json
import os
import sys

import nats


async def services(client):
    """Every service and endpoint that answers within half a second."""
    names, subjects = set(), set()
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    await client.publish("$SRV.INFO", b"", reply=inbox)
    while True:
        try:
            answer = await answers.next_msg(timeout=0.5)
        except nats.errors.TimeoutError:
            return sorted(names), sorted(subjects)
        info = json.loads(answer.data)
        names.add(info["name"])
        subjects.update(endpoint["subject"] for endpoint in info["endpoints"])


async def main(job):
    client = await nats.connect(
        os.environ["NATS_URL"], user=os.environ.get("NATS_USER"), password=os.environ.get("NATS_PASSWORD")
    )

    async def ask(operation, body):
        answer = await client.request(f"quintet.svc.jobs.{operation}", body.encode(), timeout=10)
        return json.loads(answer.data)

    stream = client.jetstream()
    names, endpoints = await services(client)
    streams = await stream.streams_info()
    jobs = await stream.key_value("quintet_jobs")
    print(
        json.dumps(
            {
                "services": names,
                "endpoints": endpoints,
                "buckets": sorted(
                    found.config.name.removeprefix("KV_") for found in streams if found.config.name.startswith("KV_")
                ),
                "keys": await jobs.keys(),
                "got": await ask("get", json.dumps({"id": job})),
                "submitted": await ask("submit", json.dumps({"inlineConfig": {"durationMs": 1}})),
                "missing": await ask("get", json.dumps({"id": "unknown"})),
                "malformed": await ask("get", "{nonsense"),
            }
        )
    )
    await client.close()


asyncio.run(main(sys.argv[1]))
