"""RWMutex: rows Y06 to Y08 of the table of semantics."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import CancelledError
from typing import Any

import pytest
from goslings import AtomicInt, Barrier, RWMutex, go, gosched
from helpers import LOCK, RLOCK, SECONDS, count, results, waits


def test_y06_many_readers_or_one_writer(two_workers: None, fast_switching: None) -> None:
    rw, n = RWMutex(), count(300)
    readers, writers = AtomicInt(), AtomicInt()
    wrong: list[str] = []

    def reader() -> None:
        for _ in range(n):
            with rw.read():
                readers.add(1)
                if writers.load():
                    wrong.append("a reader beside a writer")
                gosched()
                readers.add(-1)

    def writer() -> None:
        for _ in range(n):
            with rw.write():
                if writers.add(1) != 1 or readers.load():
                    wrong.append("a writer beside somebody")
                gosched()
                writers.add(-1)

    threads = [threading.Thread(target=fn) for fn in (reader, writer)]
    for thread in threads:
        thread.start()
    results([go(reader) for _ in range(4)] + [go(writer) for _ in range(2)])
    for thread in threads:
        thread.join(SECONDS)
    assert wrong == []


def test_y06_readers_read_together(start: Any) -> None:
    rw, barrier = RWMutex(), Barrier(3)

    def reader() -> bool:
        with rw.read():
            barrier.wait(SECONDS)
        return True

    assert [result() for result in [start(reader) for _ in range(3)]] == [True] * 3


def test_y07_new_readers_wait_behind_a_writer_that_waits() -> None:
    rw, order = RWMutex(), []
    rw.rlock()

    def writer() -> None:
        with rw.write():
            order.append("writer")

    def reader() -> None:
        with rw.read():
            order.append("reader")

    w = waits(go(writer), LOCK)
    assert not rw.try_rlock()
    with pytest.raises(TimeoutError, match="^rlock timed out$"):
        rw.rlock(timeout=0.001)
    r = waits(go(reader), RLOCK)
    rw.runlock()
    results([w, r])
    assert order == ["writer", "reader"]


def test_y07_a_writer_that_gives_up_lets_the_readers_behind_it_in() -> None:
    for give_up in ("cancel", "timeout"):
        rw = RWMutex()
        rw.rlock()
        w = waits(go(rw.lock, timeout=None if give_up == "cancel" else 0.05), LOCK)
        r = go(rw.rlock)
        if give_up == "cancel":
            waits(r, RLOCK)
            w.cancel()
        r.result(SECONDS)
        assert w.join(SECONDS)
        with contextlib.suppress(TimeoutError, CancelledError):
            w.result()
        rw.runlock()
        rw.runlock()
        assert rw.try_lock()


def test_y08_readers_that_waited_go_before_the_next_writer() -> None:
    rw, order = RWMutex(), []
    rw.lock()

    def reader(i: int) -> None:
        with rw.read():
            order.append(f"r{i}")

    def writer() -> None:
        with rw.write():
            order.append("w")

    goroutines = [waits(go(reader, i), RLOCK) for i in range(5)]
    goroutines.append(waits(go(writer), LOCK))
    rw.unlock()
    results(goroutines)
    assert sorted(order[:5]) == [f"r{i}" for i in range(5)] and order[5] == "w"
