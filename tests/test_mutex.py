"""Mutex: rows Y01 to Y05 of the table of semantics."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest
from goslings import Event, Mutex, RWMutex, go, gosched
from helpers import MUTEX, SECONDS, count, results, waits


def test_y01_a_mutex_is_not_reentrant() -> None:
    mutex = Mutex()
    mutex.lock()
    assert not mutex.try_lock()
    with pytest.raises(TimeoutError, match="^lock timed out$"):
        mutex.lock(timeout=0.01)
    g = waits(go(mutex.lock), MUTEX)
    assert g.cancel()
    assert g.join(SECONDS) and g.cancelled()


def test_y01_anybody_may_unlock_a_mutex(start: Any) -> None:
    mutex = Mutex()
    mutex.lock()
    assert start(mutex.unlock)() is None
    assert not mutex.locked()
    start(mutex.lock)()
    assert mutex.locked()
    mutex.unlock()


def test_y02_unlocking_what_is_not_locked_is_an_error_at_the_culprit() -> None:
    mutex, rw = Mutex(), RWMutex()
    for misuse, text in (
        (mutex.unlock, "unlock of unlocked Mutex"),
        (rw.unlock, "unlock of unlocked RWMutex"),
        (rw.runlock, "runlock of unlocked RWMutex"),
    ):
        with pytest.raises(RuntimeError, match=f"^{text}$"):
            misuse()
        assert isinstance(go(misuse).exception(SECONDS), RuntimeError)
    rw.rlock()
    with pytest.raises(RuntimeError):
        rw.unlock()
    rw.runlock()
    rw.lock()
    with pytest.raises(RuntimeError):
        rw.runlock()
    rw.unlock()
    # and none of it has broken them
    with mutex, rw.write():
        assert mutex.locked() and not rw.try_rlock()
    with pytest.raises(RuntimeError, match="unlock"), mutex:
        mutex.unlock()


def test_y03_waiters_are_served_in_order_when_nobody_barges() -> None:
    mutex, order = Mutex(), []
    mutex.lock()

    def locker(i: int) -> None:
        mutex.lock()
        order.append(i)
        mutex.unlock()

    goroutines = [waits(go(locker, i), MUTEX) for i in range(20)]
    time.sleep(0.002)  # the first has waited for over a millisecond: it is handed over from now on
    mutex.unlock()
    results(goroutines)
    assert order == list(range(20))


def test_y03_a_greedy_locker_starves_nobody(two_workers: None) -> None:
    mutex, stop = Mutex(), Event()

    def greedy() -> None:
        while not stop.is_set():
            with mutex:
                until_ns = time.perf_counter_ns() + 100_000
                while time.perf_counter_ns() < until_ns:
                    pass
            gosched()

    g = go(greedy)
    for _ in range(10):
        mutex.lock(timeout=SECONDS)
        mutex.unlock()
    stop.set()
    g.result(SECONDS)


def test_y04_try_lock_never_waits() -> None:
    mutex = Mutex()
    assert mutex.try_lock()
    assert not mutex.try_lock()
    g = waits(go(mutex.lock), MUTEX)
    assert not mutex.try_lock()
    mutex.unlock()
    g.result(SECONDS)
    assert not mutex.try_lock()
    mutex.unlock()
    assert mutex.try_lock()


def test_y05_a_thousand_waiters_are_no_threads() -> None:
    mutex = Mutex()
    mutex.lock()

    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    results([go(gosched) for _ in range(10)])  # the workers are there
    before = threads()

    def locker() -> None:
        with mutex:
            pass

    goroutines = [go(locker) for _ in range(count(1000))]
    for goroutine in goroutines:
        waits(goroutine, MUTEX)
    assert threads() < before + 10  # clock and monitor may come
    mutex.unlock()
    results(goroutines)


def test_y05_a_mutex_excludes_goroutines_and_threads(two_workers: None, fast_switching: None) -> None:
    mutex, n = Mutex(), count(1000)
    box = {"value": 0}

    def adder() -> None:
        for _ in range(n):
            with mutex:
                value = box["value"]
                if value % 50 == 0:
                    gosched()
                box["value"] = value + 1

    threads = [threading.Thread(target=adder) for _ in range(2)]
    for thread in threads:
        thread.start()
    results([go(adder) for _ in range(4)])
    for thread in threads:
        thread.join(SECONDS)
    assert box["value"] == 6 * n


def test_a_task_cancelled_between_its_wake_and_the_lock_does_not_have_the_lock() -> None:
    import asyncio

    async def main() -> None:
        for _ in range(20):
            mutex = Mutex()
            assert mutex.try_lock()
            task = asyncio.create_task(mutex.alock())
            await asyncio.sleep(0)
            mutex.unlock()  # wakes the task, which cannot run yet
            barged = mutex.try_lock()
            task.cancel()
            await asyncio.sleep(0)  # the cancellation arrives, and the lock is taken
            if barged:
                mutex.unlock()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert mutex.try_lock(), "nobody has it"

    asyncio.run(main())
