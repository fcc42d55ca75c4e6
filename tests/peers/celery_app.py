"""Measures Celery on Redis as `quintet bench` measures Quintet, and prints one line of JSON.

    python celery_app.py REDIS_PORT JOBS

Each task returns how long after its submission it began; Celery keeps that as the result, so the count and the times
are read back from where a user would look for them.
"""

import contextlib
import json
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import redis
from celery import Celery, group

# Like the 4 agents of 64 slots of `quintet bench`, and what it submits.
WORKERS, SLOTS = 4, 64
BATCH, BATCHES_AT_ONCE = 1000, 4
SINGLES, RATE, SECONDS = 2000, 1000, 3
TIMEOUT = 300

PORT = os.environ.get("BENCH_REDIS_PORT") or sys.argv[1]
# Results have a database of their own: its size is the number of finished tasks, cheap to ask for.
app = Celery("celery_app", broker=f"redis://127.0.0.1:{PORT}/0", backend=f"redis://127.0.0.1:{PORT}/1")


@app.task
def noop(at):
    return time.time() - at


def until(what, condition):
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > TIMEOUT:
            raise TimeoutError(f"{what}: not in time")
        time.sleep(0.01)


def percentiles(times):
    """In milliseconds; the same index as in `quintet bench`."""
    times = sorted(times)
    at = lambda share: times[min(len(times) - 1, math.floor(len(times) * share))] * 1000
    return {"p50": at(0.50), "p99": at(0.99)}


@contextlib.contextmanager
def running_workers():
    # Threads: with processes, 256 of them, it does about a third of the work.
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--pool", "threads",
               "--concurrency", str(SLOTS), "--loglevel", "WARNING"]
    workers = []
    try:
        for number in range(WORKERS):
            workers.append(subprocess.Popen([*command, "--hostname", f"bench-{number}@%h"], stdout=sys.stderr,
                                            env={**os.environ, "BENCH_REDIS_PORT": PORT}, cwd=Path(__file__).parent))
        until("workers", lambda: len(app.control.ping(timeout=1) or []) == WORKERS)
        yield
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def drain(jobs, finished):
    def submit(_):
        group(noop.s(time.time()) for _ in range(BATCH)).apply_async()

    began = time.monotonic()
    with ThreadPoolExecutor(BATCHES_AT_ONCE) as pool:
        list(pool.map(submit, range(jobs // BATCH)))
    until("drain", lambda: finished() >= jobs)
    return jobs / (time.monotonic() - began)


def singles():
    times = []
    for _ in range(SINGLES):
        began = time.monotonic()
        noop.delay(time.time())
        times.append(time.monotonic() - began)
    return percentiles(times)


def steady():
    """Submits at a fixed rate; gives the rate that was reached and the results' keys."""
    def submit():
        return noop.delay(time.time()).id

    count, sent, began = RATE * SECONDS, [], time.monotonic()
    # `delay` waits for Redis, so more than one thread is needed to keep the rate.
    with ThreadPoolExecutor(16) as pool:
        while len(sent) < count:
            due = min(count, math.floor((time.monotonic() - began) * RATE) + 1)
            sent += [pool.submit(submit) for _ in range(due - len(sent))]
            time.sleep(0.001)
    return count / (time.monotonic() - began), [future.result() for future in sent]


def measure(jobs):
    results = redis.Redis(port=int(PORT), db=1)
    with running_workers():
        rate = drain(jobs, results.dbsize)
        submit = singles()
        until("submit", lambda: results.dbsize() >= jobs + SINGLES)
        reached, ids = steady()
        expected = jobs + SINGLES + RATE * SECONDS
        until("start", lambda: results.dbsize() >= expected)
    read = lambda keys: [json.loads(value) for value in results.mget(keys)]
    succeeded = sum(result["status"] == "SUCCESS" for result in read(results.keys("celery-task-meta-*")))
    if succeeded != expected:
        raise RuntimeError(f"not every job was processed: {succeeded} of {expected}")
    starts = [result["result"] for result in read([f"celery-task-meta-{id}" for id in ids])]
    print(json.dumps({"drain": rate, "submit": submit, "start": percentiles(starts), "reached": reached,
                      "processed": succeeded}))


if __name__ == "__main__":
    measure(int(sys.argv[2]))
