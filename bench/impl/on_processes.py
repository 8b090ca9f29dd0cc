"""The ceiling of `cpu`: what two processes that share nothing reach on this machine.

Each process has an interpreter of its own and waits for a line before it computes; starting it is
not timed. Two cores give less than twice the speed of one on many machines; no library can do
better than this.
"""

from __future__ import annotations

import subprocess
import sys

from harness import Options, Result, cpu_result, run, spin


class Worker:
    """A process that answers `k` with the results of k calls of spin()."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.ask(1)
        self.answer()

    def ask(self, k: int) -> None:
        assert self.process.stdin
        print(k, file=self.process.stdin, flush=True)

    def answer(self) -> list[int]:
        assert self.process.stdout
        return [int(x) for x in self.process.stdout.readline().split()]


def cpu(n: int, opt: Options) -> Result:
    workers = [Worker(), Worker()]
    shares = [n - n // 2, n // 2]

    def in_turn() -> list[int]:
        workers[0].ask(n)
        return workers[0].answer()

    def together() -> list[int]:
        for worker, share in zip(workers, shares, strict=True):
            worker.ask(share)
        return [x for worker in workers for x in worker.answer()]

    try:
        return cpu_result(n, in_turn, together)
    finally:
        for worker in workers:
            worker.process.kill()


if __name__ == "__main__":
    if sys.argv[1:] == ["--worker"]:
        for line in sys.stdin:
            print(*[spin() for _ in range(int(line))], flush=True)
    else:
        run("processes", "standard library", {"cpu": cpu})
