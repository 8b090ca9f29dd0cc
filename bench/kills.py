"""Rounds of randomly killed workers, with the books: what was lost, doubled or left behind, and how long a round took.

python bench/kills.py [--rounds N] [--workers N] [--seed N] [--start forkserver|spawn]

A kill is a round. Workers of one pool are killed at random moments, whatever they do: start, run their initializer,
idle, compute, wait for a channel of the parent, send or receive a stream, hold a large array.

The books: numbered values go through two channels by way of the workers. Each comes out exactly once, or it was in the
hands of a goroutine whose WorkerDied was reported; so no more are missing than have died. Values that are sent to
a worker before its death and not received go on to another. A stream from a worker comes in order and without gaps.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import goslings
from goslings import chan, go
from goslings.processes import Processes, WorkerDied

SECONDS = 300.0
LARGE = 1 << 20
SUM = sum(number % 7 for number in range(200_000))
BATCH = 50
"""Kills between two looks at the books."""


def warm(least: float, most: float) -> None:
    """The initializer: takes a moment, in which the worker may be killed."""
    time.sleep(random.uniform(least, most))


class Books:
    """One set of channels, who works on them, and what must come out."""

    def __init__(self, workers: Processes, rng: random.Random) -> None:
        self.workers = workers
        self.died: Counter[str] = Counter()
        self.over = False
        self.sent = 0
        self.got: list[int] = []
        self.buffered = rng.choice([0, 1, 4, 16, 64]), rng.choice([0, 1, 4, 16, 64])
        self.source, self.sink = chan[Any](self.buffered[0]), chan[Any](self.buffered[1])
        self.never = chan[int]()
        self.streamed: dict[int, int] = {}
        self.streams = 0
        self.stream = chan[tuple[int, int]](rng.choice([1, 8, 64, 512]))
        self.roles = [
            *(go(self.keep, self.move) for _ in range(3)),
            go(self.keep, self.move_large),
            go(self.keep, self.compute),
            go(self.keep, self.wait),
            go(self.keep, self.produce),
        ]
        self.producer = go(self.feed)
        self.consumer = go(self.drain)
        self.stream_consumer = go(self.drain_stream)

    # What runs in workers: each until it is told to stop, or dies.

    def keep(self, role: Any) -> None:
        """Runs a role in some worker again and again. Movers end when there is nothing left to move."""
        moves = role.__name__.startswith("move")
        while moves or not self.over:
            try:
                role()
                if moves:
                    return
            except WorkerDied:
                self.died[role.__name__] += 1

    def move(self) -> None:
        source, sink = self.source, self.sink

        def run() -> None:
            for value in source:
                sink.send(value)

        self.workers.go(run).result()

    def move_large(self) -> None:
        source, sink = self.source, self.sink

        def run() -> None:
            for value in source:
                sink.send((value, bytearray(LARGE)))

        self.workers.go(run).result()

    def compute(self) -> None:
        def run() -> int:
            return sum(number % 7 for number in range(200_000))

        assert self.workers.go(run).result() == SUM, "a wrong answer"

    def wait(self) -> None:
        never = self.never

        def run() -> None:
            never.recv_ok()

        self.workers.go(run).result()

    def produce(self) -> None:
        """A stream to the parent: each has a number, so that what comes is without gaps and in order."""
        self.streams += 1
        stream, name = self.stream, self.streams

        def run() -> None:
            for number in range(200):
                stream.send((name, number))

        self.workers.go(run).result()
        assert self.streamed_fully(name), f"stream {name} has ended well, and not all has come"

    def streamed_fully(self, name: int) -> bool:
        deadline = time.monotonic() + SECONDS
        while self.streamed.get(name) != 199 and time.monotonic() < deadline:
            goslings.sleep(0.001)
        return self.streamed.pop(name, None) == 199

    # What runs here

    def feed(self) -> None:
        while not self.over:
            self.source.send(self.sent)
            self.sent += 1
        self.source.close()

    def drain(self) -> None:
        for value in self.sink:
            if type(value) is tuple:
                value, large = value
                assert len(large) == LARGE, "a large value is cut"
            self.got.append(value)

    def drain_stream(self) -> None:
        for name, number in self.stream:
            assert number == self.streamed.get(name, -1) + 1, ("a stream with a gap", name, number, self.streamed)
            self.streamed[name] = number

    def balance(self) -> tuple[int, int, int]:
        """Ends everything; how many values have come, are missing, and how many goroutines have died."""
        self.over = True
        self.producer.result(SECONDS)
        self.never.close()
        for role in self.roles:
            role.result(SECONDS)
        self.sink.close()
        self.stream.close()
        self.consumer.result(SECONDS)
        self.stream_consumer.result(SECONDS)
        counts = Counter(self.got)
        doubled = [value for value, count in counts.items() if count > 1]
        assert not doubled, f"doubled: {doubled}"
        assert not counts or max(counts) < self.sent, "from nowhere"
        missing = self.sent - len(counts)
        movers = self.died["move"] + self.died["move_large"]
        assert missing <= movers, f"{missing} values are missing, and {movers} movers have died"
        return len(counts), missing, sum(self.died.values())


def left_behind() -> Counter[str]:
    """What this process has open and mapped, and its children."""
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        try:
            found[os.readlink(f"/proc/self/fd/{name}").partition(":")[0]] += 1
        except OSError:
            continue
    with open("/proc/self/maps") as lines:
        found["mapped"] = sum("memfd:" in line for line in lines)
    found["children"] = sum(
        len(Path(f"/proc/self/task/{task}/children").read_text().split()) for task in os.listdir("/proc/self/task")
    )
    return found


def run(rounds: int, n: int, rng: random.Random, start: Any) -> None:
    begin = time.monotonic()
    totals: Counter[str] = Counter()
    states: Counter[str] = Counter()
    recent: collections.deque[str] = collections.deque(maxlen=20)
    with Processes(n, start=start, initializer=warm, initargs=(0.0, 0.01)) as workers:
        workers.go(abs, 1).result(SECONDS)
        killed = 0
        while killed < rounds:
            books = Books(workers, rng)
            for _ in range(min(BATCH, rounds - killed)):
                goslings.sleep(rng.choice([0.0, 0.001, rng.random() * 0.02, rng.random() * 0.05]))
                deadline = time.monotonic() + SECONDS
                while True:
                    # Three that die before they are ready, one after another, would break the pool: one at a time.
                    found = [worker for worker in list(workers._all) if worker.fate is None]
                    early = [worker for worker in found if not worker.ready]
                    if workers._bad_starts or any(worker.fate and not worker.ready for worker in list(workers._all)):
                        found = [worker for worker in found if worker.ready]
                    elif early and rng.random() < 0.3:
                        found = early
                    if found:
                        break
                    assert time.monotonic() < deadline, "no worker comes back"
                    goslings.sleep(0.001)
                victim = rng.choice(found)
                states["starting" if not victim.ready else "busy" if victim.calls else "idle"] += 1
                recent.append(f"{victim.process.pid} {victim.ready} {len(victim.calls)}")
                victim.fate = "by the test"
                victim.process.kill()
                killed += 1
            came, missing, died = books.balance()
            totals.update(came=came, missing=missing, died=died, **books.died)
            print(f"{killed} rounds, {(time.monotonic() - begin) / killed * 1e3:.1f} ms each", flush=True)
    print(f"{killed} kills: {dict(states)}")
    print(f"values: {totals['came']} came once, {totals['missing']} lost with their goroutine; died: {dict(totals)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 2**32))
    parser.add_argument("--start", choices=["spawn", "forkserver"], default="forkserver")
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, GIL {'on' if sys._is_gil_enabled() else 'off'}, --seed {options.seed}")
    # What the runtime itself has open once it has run.
    with Processes(1, start=options.start) as workers:
        workers.go(abs, 1).result(SECONDS)
    goslings.sleep(0.1)
    before = left_behind()
    run(options.rounds, options.workers, random.Random(options.seed), options.start)
    goslings.sleep(0.1)
    after = left_behind()
    print(f"before {dict(before)}\nafter  {dict(after)}")
    for what in ("socket", "/memfd", "mapped", "children", "pipe"):
        assert after[what] <= before[what], f"left behind: {what}"


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, lambda *_: goslings.dump())
    main()
