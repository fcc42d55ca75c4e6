"""A worker of frames on the bus: fills the display from the left, column by column, at the rate of its setting `pps`.
See services/workers/FRAMES.md.

    NATS_URL=nats://127.0.0.1:4222 python3 frame_worker_nats.py fill
"""

import asyncio, json, os, struct, sys, time

import nats

ID, USER, SESSION = sys.argv[1], os.environ.get("NATS_USER"), str(time.time_ns())


def frame(canvas, columns, seq):
    width, height = canvas["width"], canvas["height"]
    row_bytes = (width + 7) // 8
    row = (((1 << columns) - 1) << (8 * row_bytes - columns)).to_bytes(row_bytes, "big")  # the leftmost pixel is the highest bit
    return struct.pack(">2sBBHHIHH", b"RB", 1, 0, width, height, seq % 2**32, 0, 0) + row * height


async def main():
    bus = await nats.connect(os.environ["NATS_URL"], user=USER, password=os.environ.get("NATS_PASSWORD"))
    mine = {"running": False, "canvas": None, "settings": {}, "seq": 0}

    async def on_message(message):
        payload = json.loads(message.data)
        if payload["type"] == "hello":
            mine["canvas"] = payload["canvas"]
        elif payload["type"] == "config":
            mine["settings"] = payload["data"]
        elif payload["type"] in ("start", "stop"):
            mine["running"] = payload["type"] == "start"
            await beat()
        elif payload["type"] == "tick" and mine["running"] and mine["canvas"]:
            columns = int(payload["t"] * mine["settings"].get("pps", 20)) % (mine["canvas"]["width"] + 1)
            await bus.publish(f"quintet.frame.{ID}", frame(mine["canvas"], columns, mine["seq"]))
            mine["seq"] += 1

    async def beat():
        await bus.publish(f"quintet.hb.frames.{ID}", json.dumps({"session": SESSION, "running": mine["running"]}).encode())

    await bus.subscribe(f"quintet.tick.{ID}", cb=on_message)
    while True:
        await beat()
        await asyncio.sleep(1)


asyncio.run(main())
