"""A worker of frames over HTTP, with nothing but the standard library: a bar that runs over the display. Its
setting `width` is its width. See services/workers/FRAMES.md.

    python3 frame_worker_http.py http://127.0.0.1:8080 bar
"""

import json, struct, sys, time, urllib.request

URL, ID = sys.argv[1].rstrip("/"), sys.argv[2]


def ask(path, body=None):
    return urllib.request.urlopen(urllib.request.Request(URL + path, body), timeout=5).read()


canvas = json.loads(ask("/config"))["canvas"]
width, height = canvas["width"], canvas["height"]
row_bytes, settings, fetched_at, seq = (width + 7) // 8, {}, 0, 0
while True:
    try:
        if time.monotonic() - fetched_at > 1:
            settings, fetched_at = json.loads(ask(f"/workers/{ID}/config")), time.monotonic()
        lit = {(seq + step) % width for step in range(settings.get("width", 1))}
        row = sum(1 << (8 * row_bytes - 1 - x) for x in lit).to_bytes(row_bytes, "big")  # the leftmost pixel is the highest bit
        header = struct.pack(">2sBBHHIHH", b"RB", 1, 0, width, height, seq % 2**32, 0, 0)
        ask(f"/workers/{ID}/frame", header + row * height)
    except OSError as error:  # refused, in words, or not reachable: the next frame may be taken
        print(error, error.read().decode() if hasattr(error, "read") else "", flush=True)
    seq += 1
    time.sleep(1 / 10)
