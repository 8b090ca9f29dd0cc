#!/usr/bin/env python3
"""A job board served to several processes: each takes jobs from a channel and reports to an object, both of this
process.

python examples/jobboard.py [workers]
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from typing import Any

from goslings import Barrier, Mutex, chan
from goslings.processes import connect, serve

JOBS = 200


class Board:
    """What the workers see of it. Calls come from many goroutines at once, hence the lock."""

    def __init__(self, workers: int) -> None:
        self._all_there = Barrier(workers)
        self._jobs: chan[int] = chan(10)
        self._lock = Mutex()
        self._sheet: dict[int, int] = {}
        self._by: dict[int, int] = {}

    def jobs(self) -> chan[int]:
        return self._jobs

    def arrive(self) -> None:
        """Waits for the other workers: a goroutine of this process parks for each of them."""
        self._all_there.wait()

    def report(self, worker: int, job: int, answer: int) -> None:
        with self._lock:
            self._sheet[job] = answer
            self._by[worker] = self._by.get(worker, 0) + 1

    def sheet(self) -> tuple[dict[int, int], dict[int, int]]:
        with self._lock:
            return dict(self._sheet), dict(self._by)


def work(address: Any, key: bytes) -> None:
    """A worker process: the length of the Collatz sequence of each number that comes."""
    with connect(address, key) as board:
        board.arrive()
        for n in board.jobs():
            steps, m = 0, n
            while m != 1:
                m, steps = (3 * m + 1 if m % 2 else m // 2), steps + 1
            board.report(os.getpid(), n, steps)


def main(workers: int) -> None:
    board, key = Board(workers), secrets.token_bytes(32)
    with serve(board, ("127.0.0.1", 0), key) as server:
        command = [sys.executable, __file__, "--work", str(server.address[1])]
        children = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(workers)]
        for child in children:
            assert child.stdin is not None
            child.stdin.write(key)  # not in the arguments, where everybody on this machine could read it
            child.stdin.close()
        for n in range(1, JOBS + 1):
            board.jobs().send(n)
        board.jobs().close()
        status = [child.wait() for child in children]
    sheet, by = board.sheet()
    longest = max(sheet, key=sheet.__getitem__)
    print(f"{len(sheet)} jobs by {len(by)} of {workers} processes; the longest: {longest} with {sheet[longest]} steps")
    assert status == [0] * workers and sum(by.values()) == JOBS


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(("127.0.0.1", int(sys.argv[2])), sys.stdin.buffer.read())
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
