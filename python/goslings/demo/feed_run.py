"""Measures the ways of reading: each in a fresh process, one after the other, in turn per round."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .feed_memory import MemoryPeak
from .feed_page import FeedError, Web

MODES = ("sequential", "threading", "multiprocessing", "goslings", "processes")
"""`processes` is goslings with worker processes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to one feed."""

    url: str
    state: str
    note: str
    found: int
    added: int
    seconds: float


@dataclass(slots=True)
class Run:
    """One way of reading, over all rounds."""

    mode: str
    width: int
    walls: list[float] = field(default_factory=list)
    cpus: list[float] = field(default_factory=list)  # CPU time, of all its processes
    memory: int | None = None
    digest: str = ""
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def wall(self) -> float:
        return statistics.median(self.walls)

    def speedup(self, sequential: Run) -> float:
        """The median of the rounds' ratios: the machine may drift from round to round."""
        pairs = zip(sequential.walls, self.walls, strict=True)
        return statistics.median(slow / fast for slow, fast in pairs)


@dataclass(frozen=True, slots=True)
class Plan:
    """What every run has in common."""

    feeds: Sequence[str]
    web: Web
    goroutines: int
    stores: Path  # the folder for the runs' stores

    def width(self, mode: str) -> int:
        """How many at once: goroutines as asked for, the others as their documentation advises."""
        cpus = usable_cpus()
        widths = {"sequential": 1, "threading": min(32, cpus + 4), "multiprocessing": cpus}
        return widths.get(mode, self.goroutines)


def usable_cpus() -> int:
    return os.process_cpu_count() or 1


def refresh_once(plan: Plan, mode: str, store: Path) -> Run:
    """One refresh of all feeds into the store."""
    run = Run(mode, plan.width(mode))
    with _Child(plan, mode, plan.feeds, store, bar=True) as child:
        _collect(child, run)
    return run


def measure(plan: Plan, modes: Sequence[str], rounds: int) -> tuple[list[Run], Run | None]:
    """Runs every mode in every round, with an empty store each time; and the ceiling with them.

    The ceiling can be told only beside a sequential run; without one it is None.
    """
    runs = [Run(mode, plan.width(mode)) for mode in modes]
    sequential = next((run for run in runs if run.mode == "sequential"), None)
    ceiling = Run("ceiling", usable_cpus()) if sequential and usable_cpus() > 1 else None
    for number in range(rounds):
        # Rotated, so that no mode always follows the same one.
        for run in runs[number % len(runs) :] + runs[: number % len(runs)]:
            with (
                tempfile.TemporaryDirectory(dir=plan.stores) as folder,
                _Child(plan, run.mode, plan.feeds, Path(folder, "feeds.db"), bar=True) as child,
            ):
                _collect(child, run)
        if sequential and ceiling:
            ceiling.walls.append(_ceiling(plan, sequential))
    return runs, ceiling


def _ceiling(plan: Plan, sequential: Run) -> float:
    """The time of as many independent processes as there are CPUs, each reading its share.

    No way of reading can be expected to be faster on this machine: these share nothing, not even
    a store. The shares are balanced by the time that each feed took sequentially.
    """
    shares: list[list[str]] = [[] for _ in range(usable_cpus())]
    loads = [0.0] * len(shares)
    for outcome in sorted(sequential.outcomes, key=lambda o: o.seconds, reverse=True):
        lightest = loads.index(min(loads))
        shares[lightest].append(outcome.url)
        loads[lightest] += outcome.seconds
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=plan.stores)))
        children = [
            stack.enter_context(_Child(plan, "sequential", share, folder / f"{number}.db"))
            for number, share in enumerate(shares)
            if share
        ]
        for child in children:
            child.start()
        return max(float(child.finish()["wall"]) for child in children)


def _collect(child: _Child, run: Run) -> None:
    with MemoryPeak(child.pid) as memory:
        child.start()
        answer = child.finish()
    run.walls.append(answer["wall"])
    run.cpus.append(answer["cpu"])
    run.outcomes = [Outcome(**outcome) for outcome in answer["outcomes"]]
    if memory.bytes is not None:
        run.memory = max(run.memory or 0, memory.bytes)
    if run.digest and answer["digest"] != run.digest:
        raise FeedError(f"{run.mode}: the store came out differently in another round")
    run.digest = answer["digest"]


@contextmanager
def _held_back(signum: signal.Signals) -> Iterator[None]:
    """Keeps a signal waiting, also in processes that are started meanwhile, until they let it in themselves."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signum])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Child:
    """A `feed_child` process, imported and waiting once constructed."""

    def __init__(self, plan: Plan, mode: str, feeds: Sequence[str], store: Path, bar: bool = False) -> None:
        self._mode = mode
        with _held_back(signal.SIGINT):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "goslings.demo.feed_child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        self.pid = self._process.pid
        task = {
            "mode": mode,
            "feeds": list(feeds),
            "timeout": plan.web.timeout,
            "proxy": plan.web.proxy,
            "store": str(store),
            "width": plan.width(mode),
            "bar": bar,
        }
        try:
            self._say(json.dumps(task))
            self._hear()
        except BaseException:
            self._end()
            raise

    def start(self) -> None:
        self._say("go")

    def finish(self) -> dict[str, Any]:
        return self._hear()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            raise FeedError(f"{self._mode}: the run ended with status {status}; its error is above")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise FeedError(f"{self._mode}: {answer['error']}")
        return answer

    def _end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            # As if by Ctrl-C, so that it can end processes of its own.
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()
