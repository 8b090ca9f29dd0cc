"""The client of `goslings demo fib`: `python -m goslings.demo.fib_client PORT SECONDS` measures one server.

First one connection asks for fib(1) again and again; then it does so while another asks for fib(30). What it measured
is printed as a line of JSON.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

__all__ = ["LONG"]

LONG = 30
_LONG_ANSWER = 832040
_WARM_UP = 0.3


class Wrong(Exception):
    """A server that answers wrongly, or not at all."""


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def short(sock: socket.socket, seconds: float) -> list[float]:
    """The time of each request for fib(1) within `seconds`."""
    times = []
    now = time.perf_counter()
    end = now + seconds
    while now < end:
        sock.sendall(b"1\n")
        if sock.recv(100) != b"1\n":
            raise Wrong("fib(1) is 1")
        before, now = now, time.perf_counter()
        times.append(now - before)
    return times


def long(sock: socket.socket, stop: threading.Event, answers: list[bytes]) -> None:
    """Asks for fib(30) until it is told to stop."""
    while not stop.is_set():
        sock.sendall(b"%d\n" % LONG)
        answers.append(sock.recv(100))


def figures(times: list[float], seconds: float) -> dict[str, float]:
    times = sorted(times)
    last = len(times) - 1
    p50, p99 = (times[min(last, int(part * len(times)))] for part in (0.5, 0.99))
    return {"rate": len(times) / seconds, "p50": p50, "p99": p99, "worst": times[last]}


def measure(port: int, seconds: float) -> dict[str, dict[str, float]]:
    with connect(port) as sock:
        short(sock, _WARM_UP)
        alone = figures(short(sock, seconds), seconds)
        stop = threading.Event()
        answers: list[bytes] = []
        with connect(port) as other:
            busy = threading.Thread(target=long, args=(other, stop, answers))
            busy.start()
            time.sleep(_WARM_UP)
            done = len(answers)
            start = time.perf_counter()
            times = short(sock, seconds)
            seconds = time.perf_counter() - start  # the last one may have taken long
            done = len(answers) - done
            stop.set()
            busy.join()
        if set(answers) != {b"%d\n" % _LONG_ANSWER}:
            raise Wrong(f"fib({LONG}) is {_LONG_ANSWER}")
        return {"alone": alone, "beside": {**figures(times, seconds), "long": done / seconds}}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), float(sys.argv[2]))))
