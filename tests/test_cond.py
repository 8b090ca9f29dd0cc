"""Cond: row Y13 of the table of semantics."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from goslings import Cond, Mutex, go
from helpers import COND, MUTEX, SECONDS, count, results, until, waits


def test_y13_cond_wakes_in_order_and_holds_the_mutex() -> None:
    mutex = Mutex()
    cond, order = Cond(mutex), []

    def waiter(i: int) -> None:
        with cond:
            assert cond.wait()
            assert mutex.locked()
            order.append(i)

    goroutines = [waits(go(waiter, i), COND) for i in range(10)]
    assert not mutex.locked()
    for i in range(5):
        cond.notify()
        until(lambda i=i: len(order) == i + 1)
    cond.notify_all()
    results(goroutines)
    assert order[:5] == [0, 1, 2, 3, 4] and sorted(order) == list(range(10))
    assert cond.mutex is mutex


def test_y13_a_notify_without_a_waiter_is_lost() -> None:
    cond = Cond(Mutex())
    cond.notify()
    cond.notify_all()
    with cond:
        assert not cond.wait(0) and not cond.wait(0.001)


def test_y13_a_later_waiter_steals_no_notify() -> None:
    mutex = Mutex()
    cond = Cond(mutex)

    def waiter(timeout: float | None) -> bool:
        with cond:
            return cond.wait(timeout)

    for _ in range(count(200)):
        first = waits(go(waiter, None), COND)
        with mutex:
            cond.notify()
        assert go(waiter, 0).result(SECONDS) is False
        assert first.result(SECONDS)


def test_y13_a_cancelled_waiter_eats_no_notify() -> None:
    mutex = Mutex()
    cond = Cond(mutex)

    def waiter() -> bool:
        with cond:
            return cond.wait()

    first, second = (waits(go(waiter), COND) for _ in range(2))
    with mutex:
        first.cancel()
        cond.notify()
        waits(first, MUTEX)  # it takes the mutex again before it goes
    assert first.join(SECONDS) and first.cancelled()
    assert second.result(SECONDS)
    assert not mutex.locked()


def test_y13_waiting_without_the_mutex_is_an_error() -> None:
    cond = Cond(Mutex())
    with pytest.raises(RuntimeError, match="^Cond.wait with its Mutex unlocked$"):
        cond.wait()
    with pytest.raises(TypeError):
        Cond(threading.Lock())  # type: ignore[arg-type]


def test_y13_cond_between_threads_and_goroutines(start: Any) -> None:
    cond, items = Cond(Mutex()), []

    def consumer() -> int:
        total = 0
        while True:
            with cond:
                while not items:
                    assert cond.wait(SECONDS)
                item = items.pop(0)
            if item is None:
                return total
            total += item

    result, n = start(consumer), count(1000)
    for i in range(n):
        with cond:
            items.append(i)
            cond.notify()
    with cond:
        items.append(None)
        cond.notify()
    assert result() == sum(range(n))
