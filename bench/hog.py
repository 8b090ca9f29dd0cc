"""How long sleepers wait beside a goroutine that computes without end, on one worker: `python bench/hog.py`.

Twenty goroutines in turn sleep 1 ms each while another computes. Printed are the median and the worst of these waits,
for a loop, a generator expression and a recursion, in so many rounds; the time that is owed is 60 ms for the worst.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import goslings
from goslings import go, sleep

SLEEPERS = 20
OWED_MS = 60


def loop(stop: list[int]) -> None:
    while not stop:
        pass


def expression(stop: list[int]) -> None:
    while not stop:
        sum(n for n in range(10_000_000) if not stop)


def recursion(stop: list[int]) -> None:
    def fib(n: int) -> int:
        return n if n < 2 or stop else fib(n - 1) + fib(n - 2)

    while not stop:
        fib(30)


def nap() -> float:
    begin = time.perf_counter()
    sleep(0.001)
    return time.perf_counter() - begin


def waits(hog: Callable[[list[int]], None]) -> list[float]:
    """The waits of one round, in milliseconds."""
    stop: list[int] = []
    computing = go(hog, stop)
    times = [go(nap).result() * 1000 for _ in range(SLEEPERS)]
    stop.append(1)
    computing.result()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of %(default)s rounds (default) each")
    rounds = parser.parse_args().rounds
    goslings.gomaxprocs(1)
    kind = "GIL" if sys._is_gil_enabled() else "free-threaded"
    print(f"CPython {sys.version.split()[0]}, {kind}, one worker, {rounds} rounds of {SLEEPERS} sleepers of 1 ms")
    for hog in (loop, expression, recursion):
        times = [wait for _ in range(rounds) for wait in waits(hog)]
        print(f"{hog.__name__:>10}: median {statistics.median(times):5.1f} ms, worst {max(times):5.1f} ms", flush=True)
    print(f"owed: the worst below {OWED_MS} ms")


if __name__ == "__main__":
    main()
