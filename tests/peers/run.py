"""`make bench-peers`: the same jobs on BullMQ, Celery and Restate, next to `quintet bench`, in one run on one machine.

A number of one system alone means little, a ratio to a known one does not. Three measurements each: a bulk of
empty jobs until the last is done, one submission after the other, and how long jobs wait for their start at a fixed
rate. The systems take turns, one at a time, and the table shows the median of the rounds. What cannot be installed here
is named with its reason and left out.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOOLS = ROOT / ".tools" / "peers"
LOG = TOOLS / "log"
# Longer than any of them takes on a slow machine; a peer that hangs must not hang the rest.
TIMEOUT = 900
COLUMNS = [
    ("drain", "drain, jobs/s"),
    ("submit p50", "submit p50, ms"),
    ("submit p99", "submit p99, ms"),
    ("start p50", "start p50, ms"),
    ("start p99", "start p99, ms"),
]
NOTES = [
    "drain: empty jobs from the first submission in bulk until all are final, 4 workers of 64 slots each.",
    "submit: one submission after the other, each awaited, while the workers run.",
    "start: from the submission to the start of the handler, at 1000 submissions/s. Quintet's own timeline counts "
    "whole ms from the edge's receipt; a peer's time includes its client.",
    "In brackets: quintet / peer. More is better for drain, less for the others.",
    "Durability, one class for all: written to a file, synced in the background. Quintet: NATS file storage, synced "
    "every 2 min. BullMQ and Celery: Redis with appendonly yes and appendfsync everysec. Restate: its log without an "
    "fsync per write (its default syncs each). The rest is as each comes.",
    "BullMQ: addBulk of 1000, 4 at once; 4 processes of concurrency 64. Celery: groups of 1000 from 4 threads; 4 "
    "workers with a pool of 64 threads, results kept. Restate: one-way sends over HTTP, 128 in flight; 4 services, "
    "concurrent-invocations-limit 256. Celery and Restate have no request with many jobs: submitting, by one process, "
    "takes most of their drain.",
]


class Unavailable(Exception):
    """Why a peer cannot be measured here, in one line."""


def run(what, command, **options):
    """Runs a command to its end and gives its output; what it complains about goes to the log."""
    logged = LOG.stat().st_size
    process = None
    try:
        with LOG.open("a") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
                                       **options)
        output, _ = process.communicate(timeout=TIMEOUT)
    except OSError as error:
        raise Unavailable(f"{what}: {error.strerror}: {command[0]}") from error
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{what}: not done after {TIMEOUT} s") from None
    finally:
        if process and process.poll() is None:
            # With its workers: the session is its own.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode != 0:
        complaints = LOG.read_bytes()[logged:].decode(errors="replace").splitlines()
        first = next((line.strip() for line in complaints if "error" in line.lower()), f"status {process.returncode}")
        raise Unavailable(f"{what}: {first[:150]} (see {LOG.relative_to(ROOT)})")
    return output


def need(program):
    path = shutil.which(program)
    if not path:
        raise Unavailable(f"there is no {program} on PATH")
    return path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server(what, command, is_up, **options):
    """A server that runs as long as the block."""
    with LOG.open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **options)
    try:
        began = time.monotonic()
        while not is_up():
            if process.poll() is not None or time.monotonic() - began > 60:
                raise Unavailable(f"{what} does not come up, see {LOG.relative_to(ROOT)}")
            time.sleep(0.1)
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def accepts(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def healthy(url):
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1) as answer:
        return answer.status == 200
    return False


@contextlib.contextmanager
def redis():
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as folder:
        command = [need("redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--dir", folder,
                   "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        with server("redis-server", command, lambda: accepts(port)):
            yield port


def install_redis():
    if shutil.which("redis-server"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Unavailable("there is no redis-server on PATH (sudo apt-get install redis-server)")
    # With a runlevel of 1 the package does not start a server of its own.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    run("apt-get update", ["apt-get", "update"], env=environment)
    run("apt-get install redis-server", ["apt-get", "install", "-y", "--no-install-recommends", "redis-server"],
        env=environment)


def install_node():
    need("node")
    wanted = (HERE / "package.json").read_text()
    installed = TOOLS / "package.json"
    if not (TOOLS / "node_modules").is_dir() or not installed.exists() or installed.read_text() != wanted:
        installed.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=TOOLS) as folder:
            shutil.copy(HERE / "package.json", folder)
            run("npm install", [need("npm"), "install", "--no-audit", "--no-fund", "--no-package-lock"], cwd=folder,
                env={**os.environ, "SCARF_ANALYTICS": "false"})
            shutil.rmtree(TOOLS / "node_modules", ignore_errors=True)
            shutil.move(f"{folder}/node_modules", TOOLS / "node_modules")
        installed.write_text(wanted)
    for script in HERE.glob("*.mjs"):
        # Node looks for modules from the folder of the script.
        shutil.copy(script, TOOLS)


def install_python():
    wanted = (HERE / "requirements.txt").read_text()
    stamp = TOOLS / "venv" / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        run("a virtual environment", [sys.executable, "-m", "venv", "--clear", str(TOOLS / "venv")])
        run("pip install", [str(TOOLS / "venv/bin/pip"), "install", "--quiet", "-r", str(HERE / "requirements.txt")])
        stamp.write_text(wanted)


def install_bullmq():
    install_redis()
    install_node()


def install_celery():
    install_redis()
    install_python()


def answer(output):
    """The last line of a peer's script, in the columns of the table."""
    found = json.loads(output.strip().splitlines()[-1])
    columns = {"drain": found["drain"], "rate reached": found["reached"], "processed": found["processed"]}
    for what in ("submit", "start"):
        for share in ("p50", "p99"):
            columns[f"{what} {share}"] = found[what][share]
    return columns


def node(script, *arguments):
    # The log of each invocation would be a part of what is measured.
    environment = {**os.environ, "NODE_ENV": "production", "RESTATE_LOGGING": "ERROR"}
    return answer(run(script, [need("node"), str(TOOLS / script), *map(str, arguments)], env=environment))


def bullmq(jobs):
    with redis() as port:
        return node("bullmq.mjs", port, jobs)


def celery(jobs):
    with redis() as port:
        python = str(TOOLS / "venv/bin/python")
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        return answer(run("Celery", [python, str(HERE / "celery_app.py"), str(port), str(jobs)], env=environment))


def restate(jobs):
    ingress, admin, fabric = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as folder:
        environment = {
            **os.environ,
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{fabric}",
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
            "RESTATE_WORKER__INVOKER__CONCURRENT_INVOCATIONS_LIMIT": "256",
            "RESTATE_LOG_SERVER__ROCKSDB_DISABLE_WAL_FSYNC": "true",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_LOG_FILTER": "warn",
        }
        command = [str(TOOLS / "node_modules/.bin/restate-server"), "--base-dir", folder, "--node-name", "bench"]
        is_up = lambda: healthy(f"http://127.0.0.1:{admin}/health") and healthy(
            f"http://127.0.0.1:{ingress}/restate/health")
        with server("restate-server", command, is_up, env=environment):
            return node("restate.mjs", ingress, admin, jobs)


def quintet(program, jobs):
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as folder:
        results = Path(folder) / "results.json"
        # By a file: on the output there may be warnings too.
        run("quintet bench", [program, "bench", "--jobs", str(jobs), "--output", "json", "--json", str(results)])
        found = {entry["what"]: entry["value"] for entry in json.loads(results.read_text())}
    starting = lambda what: next(value for key, value in found.items() if key.startswith(what))
    return {
        "drain": starting("noop jobs"),
        "submit p50": starting("single submit over REST, p50"),
        "submit p99": starting("single submit over REST, p99"),
        "start p50": starting("submit to RUNNING at 1000/s, p50"),
        "start p99": starting("submit to RUNNING at 1000/s, p99"),
    }


PEERS = {"BullMQ": (install_bullmq, bullmq), "Celery": (install_celery, celery), "Restate": (install_node, restate)}


def table(medians, processed, rates):
    ours = medians["Quintet"]
    # Below the rate that was asked for, times are those of a full queue, and no ratio is fair.
    behind = {name: rate for name, rate in rates.items() if rate < 970}
    rows = [["", *(title for _, title in COLUMNS), "processed in all"]]
    for name, columns in medians.items():
        cells = []
        for key, _ in COLUMNS:
            comparable = name != "Quintet" and columns[key] and (name not in behind or not key.startswith("start"))
            ratio = f" ({ours[key] / columns[key]:.2f})" if comparable else ""
            cells.append(f"{columns[key]:.{0 if key == 'drain' else 2}f}{ratio}")
        rows.append([name, *cells, str(processed.get(name, "-"))])
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines += [f"{name}: reached only {rate:.0f} submissions/s of the 1000, so its start times have no ratio"
              for name, rate in behind.items()]
    return lines


def versions():
    pinned = json.loads((HERE / "package.json").read_text())["dependencies"]
    pinned |= dict(line.split("==") for line in (HERE / "requirements.txt").read_text().split())
    with contextlib.suppress(Unavailable):
        found = re.search(r"v=(\S+)", run("redis-server", [need("redis-server"), "--version"]))
        pinned["redis-server"] = found[1] if found else "unknown"
    return pinned


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quintet", required=True, help="the program, a release build")
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs of the bulk, in whole thousands (default 20000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of which the median is shown (default 3)")
    arguments = parser.parse_args()
    jobs = max(1, -(-arguments.jobs // 1000)) * 1000
    TOOLS.mkdir(parents=True, exist_ok=True)
    LOG.write_text("")

    absent, measure = {}, {}
    for name, (install, peer) in PEERS.items():
        try:
            install()
            measure[name] = peer
        except Unavailable as why:
            absent[name] = str(why)
    rounds, loads = [], []
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
        loads.append(round(os.getloadavg()[0], 1))
        measured = {"Quintet": quintet(arguments.quintet, jobs)}
        for name in list(measure):
            try:
                measured[name] = measure[name](jobs)
            except Unavailable as why:
                absent[name] = str(why)
                del measure[name]
        rounds.append(measured)

    names = ["Quintet", *measure]
    medians = {name: {key: statistics.median(measured[name][key] for measured in rounds) for key, _ in COLUMNS}
               for name in names}
    processed = {name: sum(measured[name]["processed"] for measured in rounds) for name in measure}
    rates = {name: min(measured[name]["rate reached"] for measured in rounds) for name in measure}
    print("\n".join(table(medians, processed, rates)))
    for name, why in absent.items():
        print(f"{name}: not measured: {why}")
    notes = [
        f"{arguments.rounds} rounds of {jobs} jobs, the median of each number; {os.cpu_count()} CPUs, load average "
        f"before each round {', '.join(map(str, loads))}: with other work on it, all of this is rough.",
        *NOTES,
    ]
    print("\n".join(f"- {note}" for note in notes))
    print("- " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    result = {"jobs": jobs, "cpus": os.cpu_count(), "load_before": loads, "versions": versions(), "median": medians,
              "rounds": rounds, "not_measured": absent, "notes": notes}
    target = ROOT / "target"
    target.mkdir(exist_ok=True)
    (target / "bench-peers.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    # Ends what was started, as after an interrupt.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except Unavailable as why:
        sys.exit(f"bench-peers: {why}")
