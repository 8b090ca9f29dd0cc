"""Processes that run out of descriptors or memory: what cannot be done is told, and nothing else is lost."""

from __future__ import annotations

import errno
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from goslings import chan, go
from goslings.processes import Processes
from helpers import check_child, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes share Linux's memory files")

SECONDS = 60.0
LONG = 200_000


def fill(names: dict[str, Any], room: int = 20) -> None:
    """Takes all descriptors of the process that runs this but none, and holds them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, highest + room), hard))
    names["limits"], names["held"] = (soft, hard), []
    try:
        while True:
            names["held"].append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        assert error.errno == errno.EMFILE


def empty(names: dict[str, Any]) -> None:
    """Gives them back."""
    for fd in names.pop("held"):
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, names.pop("limits"))


@contextmanager
def no_descriptors(room: int = 20) -> Iterator[list[int]]:
    """Gives the descriptors that are held."""
    names: dict[str, Any] = {}
    fill(names, room)
    try:
        yield names["held"]
    finally:
        empty(names)


@pytest.fixture(params=["spawn", "forkserver"])
def workers(request: pytest.FixtureRequest) -> Iterator[Processes]:
    with Processes(1, start=request.param) as pool:
        pool.go(abs, 1).result(SECONDS)
        yield pool


def test_a_parent_without_descriptors_gets_long_results(workers: Processes) -> None:
    (worker,) = workers._workers
    with no_descriptors():
        for size in (10, LONG, LONG * 2):
            assert workers.go(bytearray, size).result(SECONDS) == bytearray(size)
    assert workers._workers == [worker]


def test_a_worker_without_descriptors_gets_long_arguments_and_values(workers: Processes) -> None:
    (worker,) = workers._workers
    names: dict[str, Any] = {}
    values, asked = chan[Any](4), chan[str]()
    told = chan[Any](4)

    def serve() -> None:
        for word in asked:
            if word == "fill":
                fill(names)
            elif word == "empty":
                empty(names)
            else:
                told.send(len(values.recv()))
                continue
            told.send(word)

    def ask(word: str) -> Any:
        asked.send(word)
        return told.recv(SECONDS)

    crew = workers.go(serve)
    assert ask("fill") == "fill"
    for size in (10, LONG, LONG * 2):
        values.send(bytearray(size))
        assert ask("len") == size
        assert workers.go(len, bytearray(size)).result(SECONDS) == size
    assert ask("empty") == "empty"
    asked.close()
    crew.result(SECONDS)
    assert workers._workers == [worker]


def test_what_needs_more_descriptors_waits_for_them(workers: Processes) -> None:
    """Many pieces of shared memory in one value: it comes when there are descriptors again."""
    from goslings._goslings import Segment

    (worker,) = workers._workers
    home = chan[Any](1)
    ready = chan[int](1)

    def make() -> None:
        ready.recv()
        home.send([Segment(4096) for _ in range(30)])

    crew = workers.go(make)
    value = go(home.recv)
    with no_descriptors():
        ready.send(1)
        until(lambda: is_stuck(workers), SECONDS)
    assert len(value.result(SECONDS)) == 30
    crew.result(SECONDS)
    assert workers.go(abs, -1).result(SECONDS) == 1
    assert workers._workers == [worker]


def test_as_many_descriptors_as_a_value_has_are_enough(workers: Processes) -> None:
    from goslings._goslings import Segment

    home = chan[Any](1)
    ready = chan[int](1)

    def make() -> None:
        ready.recv()
        home.send([Segment(4096) for _ in range(30)])

    crew = workers.go(make)
    value = go(home.recv)
    with no_descriptors(80) as held:
        ready.send(1)
        until(lambda: is_stuck(workers), SECONDS)
        for _ in range(34):  # and a few that the runtime has in use for a moment
            os.close(held.pop())
        assert len(value.result(SECONDS)) == 30
    crew.result(SECONDS)


def is_stuck(workers: Processes) -> bool:
    """Whether who reads the link of the worker waits for descriptors."""
    (worker,) = workers._workers
    return repr(worker.goroutine).endswith("(sleep)>")


def test_descriptors_that_never_come_end_the_link_and_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from goslings._goslings import Segment
    from goslings.processes import WorkerDied

    monkeypatch.setattr("goslings.processes._peer._ROOM_SECONDS", 0.3)
    with Processes(1) as workers:
        workers.go(abs, 1).result(SECONDS)
        ready = chan[int](1)
        goroutine = workers.go(lambda: [Segment(4096) for _ in range(30 * ready.recv())])
        with no_descriptors(), pytest.raises(WorkerDied, match=r"no descriptor is left \(RLIMIT_NOFILE, ulimit -n\)"):
            ready.send(1)
            goroutine.result(SECONDS)
        assert workers.go(abs, -1).result(SECONDS) == 1


def test_more_large_values_than_descriptors_can_be_kept() -> None:
    out = check_child("""
        import resource
        from goslings.processes import Processes
        with Processes(1) as workers:
            workers.go(abs, 1).result(30)
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
            kept = [workers.go(bytearray, 100_000).result(30) for _ in range(100)]
            import pickle
            class Large:
                def __init__(self, buffer): self.buffer = buffer
                def __reduce_ex__(self, protocol): return Large, (pickle.PickleBuffer(self.buffer),)
            def make(): return Large(bytearray(100_000))
            kept = [workers.go(make).result(30) for _ in range(100)]
            print(sum(len(each.buffer) for each in kept))
    """)
    assert out.strip() == "10000000"
