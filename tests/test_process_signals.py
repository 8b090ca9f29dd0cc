"""KeyboardInterrupt between any two instructions of the main thread, with channels of workers.

Nobody else is held up, no wait goes on for ever, no value is lost, and each reference is counted once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from goslings import AtomicInt, chan, go, processes, recv, select, send
from goslings.processes import Processes, _select
from helpers import until
from interrupts import everywhere
from test_process_references import Counted

SECONDS = 60.0


class Place:
    """Channels of a worker, as its parent has them."""

    def __init__(self, workers: Processes) -> None:
        self.workers = workers
        self.jobs: Any = workers.go(lambda: chan(4)).result(SECONDS)
        self.idle: Any = workers.go(lambda: chan(4)).result(SECONDS)

    def check(self) -> None:
        """Others can use the same link."""

        def use() -> None:
            assert len(self.idle) == 0
            self.idle.send(chan[int](1))  # one that is lent, and comes home
            assert self.idle.recv().capacity == 1

        go(use).result(SECONDS)

    def drain(self) -> None:
        def empty() -> None:
            while self.jobs.try_recv(None) is not None:
                continue

        go(empty).result(SECONDS)


@pytest.fixture
def place() -> Iterator[Place]:
    with processes.Processes(1) as workers:
        yield Place(workers)


OPERATIONS: dict[str, Callable[[Place], Any]] = {
    "len": lambda place: len(place.jobs),
    "send": lambda place: place.jobs.send(1),
    "try_send": lambda place: place.jobs.try_send(1),
    "send a channel": lambda place: place.jobs.send(chan[int](1)),
    "send a long value": lambda place: place.jobs.send(b"x" * (1 << 16)),
    "timeout": lambda place: place.idle.recv(0),
    "select": lambda place: select(send(place.jobs, chan[int](1)), recv(chan[int]()), timeout=SECONDS),
}

RECEIVES: dict[str, Callable[[Place], Any]] = {
    "try_recv": lambda place: place.jobs.try_recv(None),
    "recv": lambda place: place.jobs.recv(SECONDS),
    "recv without a timeout": lambda place: place.jobs.recv(),
    "select": lambda place: select(recv(place.jobs), recv(chan[int]()), timeout=SECONDS),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_an_interrupt_anywhere_holds_up_nobody(name: str, place: Place) -> None:
    books = Counted(place.workers)

    def operate() -> None:
        try:
            OPERATIONS[name](place)
        except TimeoutError:
            assert name == "timeout"

    # What is cut in a finalizer is told by nobody: that keeps a reference until the link ends.
    for _ in everywhere(operate, ("__del__", "_dropped", "ring")):
        place.check()
        place.drain()
    books.check()


@pytest.mark.parametrize("name", list(RECEIVES))
def test_an_interrupt_anywhere_loses_no_value(name: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either the receive came to its end, though it may have been cut as it returned, or the value is back."""
    jobs, taken = place.jobs, AtomicInt()
    take = _select.Owed.taken
    monkeypatch.setattr(_select.Owed, "taken", lambda owed: (taken.add(1), take(owed)))
    go(jobs.send, 1).result(SECONDS)
    for value in everywhere(lambda: RECEIVES[name](place)):
        until(lambda: go(len, jobs).result(SECONDS) == 1 or taken.load(), SECONDS)
        if value is not None:
            assert taken.load() == 1
        if taken.load():
            go(jobs.try_recv, None).result(SECONDS)  # one that was cut before it had told the other side
            go(jobs.send, 1).result(SECONDS)
            taken.store(0)
