"""A WSGI hello world under wrk: `goslings serve` beside gunicorn (gevent, threads) and waitress: `bench/serve.py`.

The same application and the same load for each server, one after another, in rounds; shown are medians. The rivals get
as many processes as goslings has workers. wrk runs on the same CPUs as the servers, in one thread. gevent turns the GIL
of a free-threaded interpreter on, in each of its processes; --gil names a GIL build of the same version to run it on,
with gunicorn and gevent installed, beside that. wrk is taken from $GOSLINGS_WRK or PATH (Debian: apt install wrk).
"""

from __future__ import annotations

import argparse
import importlib.util
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
from pathlib import Path
from typing import NamedTuple

APP = """\
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello, world\\n"]
"""
TARGET = 2.0
"""At least so many times the rate of gunicorn with gevent."""
BASE = "gunicorn gevent"


class Server(NamedTuple):
    name: str
    command: list[str]


class Load(NamedTuple):
    """What wrk says. Times in milliseconds."""

    rate: float
    p50: float
    p99: float
    errors: int


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def servers(workers: int, gil: str | None) -> tuple[list[Server], list[str]]:
    """Those that can run here, with PORT in their commands, and why others cannot."""
    python, count = sys.executable, str(workers)
    at = "127.0.0.1:PORT"
    gunicorn = ["-m", "gunicorn", "-w", count, "-b", at, "--log-level", "error", "hello:app"]
    found = [
        Server(
            "goslings", [python, "-m", "goslings", "serve", "hello:app", "-b", at, "--access-log", "off", "-w", count]
        )
    ]
    missing = []
    rivals = [
        (BASE, ["gunicorn", "gevent"], [python, *gunicorn, "-k", "gevent"]),
        ("gunicorn gthread", ["gunicorn"], [python, *gunicorn, "-k", "gthread", "--threads", "16"]),
        ("waitress", ["waitress"], [python, "-m", "waitress", "--listen", at, "--threads", "16", "hello:app"]),
    ]
    for name, modules, command in rivals:
        absent = [module for module in modules if importlib.util.find_spec(module) is None]
        if absent:
            missing.append(f"{name}: {' and '.join(absent)} not installed for {python}")
        else:
            found.append(Server(name, command))
    if gil:
        found.append(Server(f"{BASE}, GIL", [gil, *gunicorn, "-k", "gevent"]))
    return found, missing


def wait_until_it_serves(port: int, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                if sock.recv(100).startswith(b"HTTP/1.1 200"):
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"this server does not serve: {process.args}")


def load(server: Server, wrk: str, connections: int, seconds: int, folder: Path) -> Load:
    """Starts the server, loads it, and stops it."""
    port = free_port()
    command = [part.replace("PORT", str(port)) for part in server.command]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until_it_serves(port, process)
        url = f"http://127.0.0.1:{port}/"
        for length in (1, seconds):  # the first warms up
            done = subprocess.run(
                [wrk, "-t1", f"-c{connections}", f"-d{length}", "--latency", url],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
        return parse(done.stdout)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def parse(text: str) -> Load:
    units = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}

    def latency(percent: str) -> float:
        found = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s|m)\b", text)
        return float(found[1]) * units[found[2]] if found else float("nan")

    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if rate is None:
        raise SystemExit(f"wrk says something else:\n{text}")
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    other = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = sum(map(int, sockets.groups())) if sockets else 0
    return Load(float(rate[1]), latency("50"), latency("99"), errors + (int(other[1]) if other else 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=os.process_cpu_count() or 1, help="and processes (usable CPUs)")
    parser.add_argument("--connections", type=int, default=64, help="kept by wrk (%(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="of load in each round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--gil", metavar="PATH", help="a python with the GIL, for gunicorn with gevent on it")
    args = parser.parse_args()
    wrk = os.environ.get("GOSLINGS_WRK") or shutil.which("wrk")
    if wrk is None:
        print("skipped: there is no wrk; install it (Debian: apt install wrk), or name it in GOSLINGS_WRK")
        return
    found, missing = servers(args.workers, args.gil)
    for text in missing:
        print(f"missing: {text}")
    loads: dict[str, list[Load]] = {server.name: [] for server in found}
    with tempfile.TemporaryDirectory(prefix="goslings-serve-") as name:
        (Path(name) / "hello.py").write_text(APP)
        for _ in range(args.rounds):
            for server in found:
                loads[server.name].append(load(server, wrk, args.connections, args.seconds, Path(name)))
    kind = "GIL" if sys._is_gil_enabled() else "free-threaded"
    print(
        f"CPython {sys.version.split()[0]}, {kind}, {args.workers} workers or processes, "
        f"{args.connections} connections,"
    )
    print(f"medians of {args.rounds} rounds of {args.seconds} s; ratios to {BASE}, round by round")
    print(f"{'':22} {'req/s':>9} {'ratio':>7} {'p50':>9} {'p99':>9} {'errors':>7}")
    for name, each in loads.items():
        ratio = [mine.rate / base.rate for mine, base in zip(each, loads.get(BASE, []), strict=False)]
        shown = f"{statistics.median(ratio):.2f}x" if ratio else "-"
        print(
            f"{name:22} {statistics.median(x.rate for x in each):9,.0f} {shown:>7} "
            f"{statistics.median(x.p50 for x in each):6.2f} ms {statistics.median(x.p99 for x in each):6.1f} ms "
            f"{sum(x.errors for x in each):7}"
        )
    if BASE in loads:
        ratio = [mine.rate / base.rate for mine, base in zip(loads["goslings"], loads[BASE], strict=True)]
        reached = statistics.median(ratio) >= TARGET
        print(
            f"target: at least {TARGET:.0f}x {BASE}: {'reached' if reached else 'MISSED'} "
            f"({min(ratio):.2f} to {max(ratio):.2f})"
        )


if __name__ == "__main__":
    main()
