"""What a call of a served object costs: `python bench/remote.py`, beside `multiprocessing.managers` in the same run.

    one      one caller, one call after the other
    many     16 callers at once: goroutines over one connection; threads with a connection each, as managers have it
    64 KiB   one caller, with an argument and a result of that size

The object is in another process in each case, behind a TCP socket of this machine. Rounds take turns; medians, calls
per second. Both authenticate; goslings seals each message as well.
"""

from __future__ import annotations

import argparse
import secrets
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.managers import BaseManager
from typing import Any

from goslings import go
from goslings.processes import connect, serve

CALLERS = 16


class Echo:
    def echo(self, value: Any) -> Any:
        return value


class Manager(BaseManager):
    pass


ECHO = Echo()
Manager.register("echo", callable=lambda: ECHO)


def be_served(kind: str, key: bytes) -> None:
    """The process with the object."""
    if kind == "goslings":
        served = serve(ECHO, ("127.0.0.1", 0), key)
        print(served.address[1], flush=True)
        sys.stdin.read()
    else:
        server = Manager(("127.0.0.1", 0), key).get_server()
        print(server.address[1], flush=True)
        server.serve_forever()


@contextmanager
def process(kind: str) -> Iterator[tuple[int, bytes]]:
    key = secrets.token_bytes(32)
    command = [sys.executable, __file__, "--be", kind, key.hex()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield int(child.stdout.readline()), key
        finally:
            child.kill()


def one_after_the_other(echo: Callable[[Any], Any], calls: int, value: Any) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        echo(value)
    return calls / (time.perf_counter() - begin)


def by_goroutines(echo: Callable[[Any], Any], calls: int) -> float:
    begin = time.perf_counter()
    for each in [go(one_after_the_other, echo, calls // CALLERS, 1) for _ in range(CALLERS)]:
        each.result()
    return calls / (time.perf_counter() - begin)


def by_threads(echo: Callable[[Any], Any], calls: int) -> float:
    echoes = [threading.Thread(target=one_after_the_other, args=(echo, calls // CALLERS, 1)) for _ in range(CALLERS)]
    begin = time.perf_counter()
    for thread in echoes:
        thread.start()
    for thread in echoes:
        thread.join()
    return calls / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--be", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be:
        be_served(options.be[0], bytes.fromhex(options.be[1]))
        return
    with process("goslings") as (port, key), process("manager") as (other_port, other_key):
        ours = connect(("127.0.0.1", port), key)
        manager = Manager(("127.0.0.1", other_port), other_key)
        manager.connect()
        theirs: Any = manager.echo()  # type: ignore[attr-defined]  # registered by name
        calls, big = options.calls, bytes(64 * 1024)

        def of_goroutine(value: Any, calls: int) -> Callable[[], float]:
            return lambda: go(one_after_the_other, ours.echo, calls, value).result()

        pairs: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
            "one": (of_goroutine(1, calls), lambda: one_after_the_other(theirs.echo, calls, 1)),
            "many": (lambda: by_goroutines(ours.echo, calls), lambda: by_threads(theirs.echo, calls)),
            "64 KiB": (of_goroutine(big, calls // 4), lambda: one_after_the_other(theirs.echo, calls // 4, big)),
        }
        print(f"Python {sys.version.split()[0]}, {'with' if sys._is_gil_enabled() else 'without'} a GIL")
        print(f"{'calls/s':8}{'goslings':>12}{'managers':>12}{'ratio':>8}")
        for name, (mine, other) in pairs.items():
            found: tuple[list[float], list[float]] = ([], [])
            for _ in range(options.rounds):
                found[0].append(mine())
                found[1].append(other())
            a, b = (statistics.median(each) for each in found)
            print(f"{name:8}{a:12,.0f}{b:12,.0f}{a / b:8.2f}", flush=True)


if __name__ == "__main__":
    main()
