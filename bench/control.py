"""A pure-CPU control on every core: did something else run just now?

Timings are worth little while the machine computes for others. So that this is known, a small loop
runs on all cores at once before and after each timing; where its slowest core took more than
LIMIT times the best it ever took, the timing beside it is not used.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Self

LIMIT = 1.15
LOOP = 150_000
CHILD = f"""
import sys, time
for line in sys.stdin:
    best = 1e9
    for _ in range(3):
        start = time.perf_counter()
        total = 0
        for i in range({LOOP}):
            total += i & 3
        best = min(best, time.perf_counter() - start)
    print(best, flush=True)
"""


class Control:
    """One waiting child per core (at most four: the workloads use two)."""

    def __init__(self) -> None:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
        self.best = float("inf")
        self.hope = 1.0
        self.children = [self._child(core) for core in cores[:4]]
        for _ in range(5):
            self.run()

    def _child(self, core: int) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(child.pid, {core})
        return child

    def run(self) -> float:
        """Seconds of the slowest core."""
        for child in self.children:
            assert child.stdin
            child.stdin.write("\n")
            child.stdin.flush()
        slowest = 0.0
        for child in self.children:
            assert child.stdout
            slowest = max(slowest, float(child.stdout.readline()))
        self.best = min(self.best, slowest)
        return slowest

    def settle(self, seconds: float) -> float:
        """The same, but waits a little for a disturbed machine to calm down.

        Where waiting did not help it waits half as long the next time.
        """
        end = time.monotonic() + seconds * self.hope
        while (took := self.run()) > LIMIT * self.best:
            if time.monotonic() >= end:
                self.hope = max(self.hope / 2, 0.05)
                return took
            time.sleep(0.1)
        self.hope = min(self.hope * 2, 1.0)
        return took

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
