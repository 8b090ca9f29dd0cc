"""Servers beside each other: `python bench/net`, with the interpreter that is to be measured.

`echo`: 1,000 connections over TCP on loopback send 64 bytes each, wait for them to come back, and send the next. The
load comes from a program in C (load.c, compiled here with `cc`), in a process of its own, the same for all. Printed
are the medians of requests a second over the rounds, in which the servers take turns, the processor time of the
server for a request, and the ratio of goslings.net to each rival. Two workers are compared with two processes of one
worker each that share the port: what the machine can do beside the load.

`idle`: so many connections that do nothing; how many bytes of memory the server's process has more for each. What the
kernel keeps for a socket is not in that.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BYTES = 64
OWED_RATIO, OWED_CEILING, OWED_IDLE = 1.5, 0.8, 16 * 1024

ONE = {"GOSLINGS_PROCS": "1"}
SERVERS: dict[str, tuple[list[str], dict[str, str], int]] = {
    "goslings.net": (["on_goslings.py", "{}"], ONE, 1),
    "patched sockets": (["on_patched.py", "{}"], ONE, 1),
    "gevent": (["on_gevent.py", "{}"], {}, 1),
    "asyncio streams": (["on_asyncio.py", "{}", "streams"], {}, 1),
    "asyncio protocols": (["on_asyncio.py", "{}", "protocols"], {}, 1),
    "uvloop streams": (["on_asyncio.py", "{}", "streams", "uvloop"], {}, 1),
    "uvloop protocols": (["on_asyncio.py", "{}", "protocols", "uvloop"], {}, 1),
    "goslings.net, 2 workers": (["on_goslings.py", "{}"], {"GOSLINGS_PROCS": "2"}, 1),
    "goslings.net, 2 processes": (["on_goslings.py", "{}"], ONE, 2),
}
"""What is run, with which environment, in how many processes."""
NEEDS = {"gevent": "gevent", "uvloop streams": "uvloop", "uvloop protocols": "uvloop"}


def missing(name: str) -> str:
    """Why this one cannot be measured; "" if it can."""
    module = NEEDS.get(name)
    return f"{module} is not installed" if module and importlib.util.find_spec(module) is None else ""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """The processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """The bytes that a process has in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def running(name: str) -> Iterator[tuple[int, list[subprocess.Popen[str]]]]:
    """A server, ready: its port and processes."""
    (program, *args), env, processes = SERVERS[name]
    port = free_port()
    command = [sys.executable, "-W", "ignore", str(HERE / program), *(arg.format(port) for arg in args)]
    started: list[subprocess.Popen[str]] = []
    try:
        for _ in range(processes):
            child = subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.PIPE, text=True)
            started.append(child)
        for child in started:
            assert child.stdout
            if child.stdout.readline() != "ready\n":
                raise RuntimeError(f"{name} did not start")
        yield port, started
    finally:
        for child in started:
            child.kill()
            child.communicate()


def load(program: str, port: int, connections: int, seconds: float) -> subprocess.Popen[str]:
    command = [program, str(port), str(connections), str(seconds), str(BYTES)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def echo(program: str, name: str, connections: int, seconds: float) -> dict[str, float]:
    """One run: requests a second, and the server's processor time for one, in microseconds."""
    with running(name) as (port, servers):
        before = sum(cpu_seconds(child.pid) for child in servers)
        with load(program, port, connections, seconds) as child:
            out, _ = child.communicate(timeout=60 + 3 * seconds)
        if child.returncode:
            raise RuntimeError(f"{name}: the load failed")
        used = sum(cpu_seconds(child.pid) for child in servers) - before
    line: dict[str, Any] = json.loads(out)
    # The load begins to count after a quarter of its time.
    return {
        "rate": line["requests"] / line["seconds"],
        "cpu_us": used / (line["requests"] * 1.25) * 1e6,
        "p50_us": line["p50_us"],
        "p99_us": line["p99_us"],
    }


def idle(program: str, name: str, connections: int) -> float:
    """Bytes of the server for each connection that does nothing."""
    with running(name) as (port, (server, *_)):
        with load(program, port, 200, 0) as first:
            # What the first connections bring about once and for all.
            assert first.stdout
            first.stdout.readline()
            before = resident(server.pid)
            with load(program, port, connections, 0) as child:
                assert child.stdout
                json.loads(child.stdout.readline())
                time.sleep(0.2)
                grown = resident(server.pid) - before
    return grown / connections


def measure_echo(program: str, args: argparse.Namespace) -> None:
    names = [name for name in SERVERS if not missing(name) and (not args.only or any(o in name for o in args.only))]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name in names:
            runs[name].append(echo(program, name, args.connections, args.seconds))
    middle = {
        name: {key: statistics.median(run[key] for run in of) for key in of[0]} for name, of in runs.items() if of
    }
    ours = middle.get("goslings.net", {}).get("rate", 0.0)
    print(f"echo: {args.connections} connections, {BYTES} bytes, {args.rounds} rounds, {sys.version.split()[0]}")
    print(f"{'':28} {'req/s':>9} {'least..most':>17} {'cpu us':>7} {'p50 ms':>7} {'p99 ms':>7}  goslings.net is")
    for name in SERVERS:
        if why := missing(name):
            print(f"{name:28} {why}")
        if name not in middle:
            continue
        rates = [run["rate"] for run in runs[name]]
        found = middle[name]
        ratio = f"{ours / found['rate']:.2f} times as fast" if ours and runs[name] is not runs["goslings.net"] else ""
        print(
            f"{name:28} {found['rate']:9.0f} {min(rates):8.0f}..{max(rates):<8.0f}{found['cpu_us']:7.1f}"
            f" {found['p50_us'] / 1000:7.1f} {found['p99_us'] / 1000:7.1f}  {ratio}"
        )
    two, ceiling = middle.get("goslings.net, 2 workers"), middle.get("goslings.net, 2 processes")
    if two and ceiling:
        share = two["rate"] / ceiling["rate"]
        print(f"two workers have {share:.0%} of the rate of two processes; {OWED_CEILING:.0%} are owed without a GIL")
    print(f"owed to gevent and asyncio: {OWED_RATIO} times as fast")


def measure_idle(program: str, args: argparse.Namespace) -> None:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = args.idle if files == resource.RLIM_INFINITY else min(args.idle, files - 500)
    print(f"idle: {most} connections; at most {OWED_IDLE} bytes each are owed")
    for name in SERVERS:
        if SERVERS[name][2] > 1 or missing(name) or (args.only and not any(o in name for o in args.only)):
            continue
        print(f"{name:28} {idle(program, name, most):9.0f} bytes each")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench/net", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=["echo", "idle", []], help="default: both")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one run")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--idle", type=int, default=10_000, help="connections that do nothing")
    parser.add_argument("--only", nargs="*", help="servers whose names contain one of these")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "load")
        subprocess.run(["cc", "-O2", "-o", program, str(HERE / "load.c")], check=True)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        if not args.what or "echo" in args.what:
            measure_echo(program, args)
        if not args.what or "idle" in args.what:
            measure_idle(program, args)


if __name__ == "__main__":
    main()
