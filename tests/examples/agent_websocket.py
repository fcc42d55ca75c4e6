"""An agent on a WebSocket, in Python: takes jobs, pretends to run them, and reports.

    QUINTET_URL=http://127.0.0.1:8080 AGENT_TOKEN=dev-shared-token AGENT_ID=me python3 agent_websocket.py --jobs 2
"""

import argparse
import asyncio
import json
import os
import uuid
from datetime import datetime, timezone

import websockets

URL = os.environ.get("QUINTET_URL", "http://127.0.0.1:8080").replace("http", "ws", 1).rstrip("/") + "/agent"
AGENT = os.environ.get("AGENT_ID", "python")
TOKEN = os.environ.get("AGENT_TOKEN", "dev-shared-token")


async def main(jobs):
    async with websockets.connect(URL) as socket:

        async def send(kind, payload, answers=None):
            now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            envelope = {"type": kind, "msgId": str(uuid.uuid4()), "ts": now, "correlationId": answers, "payload": payload}
            await socket.send(json.dumps(envelope))

        async def live(interval):
            while True:
                await asyncio.sleep(interval)
                await send("agent.heartbeat", {"metrics": {"ok": True}})

        await send("agent.hello", {"agentId": AGENT, "name": AGENT, "version": "1.0", "capabilities": {"slots": 1},
                                  "drain": False, "activeJob": None, "auth": {"token": TOKEN}})
        heart, done = None, 0
        async for text in socket:
            frame = json.loads(text)
            payload = frame["payload"]
            if frame["type"] == "orchestrator.hello.ok":
                heart = asyncio.create_task(live(payload["heartbeatIntervalMs"] / 1000))
            elif frame["type"] == "orchestrator.assign.start":
                job = payload["jobId"]
                await send("agent.assign.ack", {"jobId": job, "accepted": True}, answers=frame["msgId"])
                await send("agent.job.update", {"jobId": job, "status": "RUNNING"})
                await send("agent.job.log", {"jobId": job, "line": f"ran {payload['config']}", "stream": "stdout"})
                await send("agent.job.stopped", {"jobId": job, "status": "STOPPED"})
                done += 1
                if done == jobs:
                    break
        if heart:
            heart.cancel()


parser = argparse.ArgumentParser()
parser.add_argument("--jobs", type=int, default=1, help="leave after so many")
asyncio.run(main(parser.parse_args().jobs))
