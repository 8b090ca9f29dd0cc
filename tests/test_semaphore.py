"""Semaphore: rows E07 and E08 of the table of semantics."""

from __future__ import annotations

import threading

import pytest
from goslings import AtomicInt, Semaphore, go, gosched
from helpers import ACQUIRE, SECONDS, count, results, waits


def test_e07_a_semaphore_is_first_in_first_out_and_a_large_wish_holds_back_small_ones() -> None:
    semaphore, order = Semaphore(3), []
    semaphore.acquire(2)

    def taker(n: int) -> None:
        semaphore.acquire(n)
        order.append(n)
        semaphore.release(n)

    large = waits(go(taker, 3), ACQUIRE)
    assert not semaphore.try_acquire(1)
    small = waits(go(taker, 1), ACQUIRE)
    with pytest.raises(TimeoutError, match="^acquire timed out$"):
        semaphore.acquire(1, timeout=0.001)
    semaphore.release(2)
    results([large, small])
    assert order == [3, 1]
    assert semaphore.try_acquire(3) and not semaphore.try_acquire()


def test_e08_a_wait_that_was_cancelled_lets_the_next_in() -> None:
    semaphore = Semaphore(3)
    semaphore.acquire(2)
    large = waits(go(semaphore.acquire, 3), ACQUIRE)
    small = waits(go(semaphore.acquire, 1), ACQUIRE)
    large.cancel()
    assert small.result(SECONDS) is None
    assert large.join(SECONDS) and large.cancelled()
    semaphore.release(3)
    assert semaphore.try_acquire(3)


def test_e08_misuse_is_an_error_at_the_culprit() -> None:
    semaphore = Semaphore(3)
    for release in (1, 4, 2**62):
        with pytest.raises(RuntimeError, match="^release of more permits than were acquired$"):
            semaphore.release(release)
    with pytest.raises(ValueError, match="^cannot acquire 4 of 3 permits$"):
        semaphore.acquire(4)
    assert not semaphore.try_acquire(4)
    for misuse in (lambda: Semaphore(-1), lambda: semaphore.acquire(-1), lambda: semaphore.release(-1)):
        with pytest.raises(ValueError, match="negative"):
            misuse()
    semaphore.acquire(0)
    semaphore.release(0)
    with semaphore:
        assert not semaphore.try_acquire(3)
    assert semaphore.try_acquire(3)


def test_a_semaphore_bounds_who_is_inside(two_workers: None, fast_switching: None) -> None:
    semaphore, inside, most = Semaphore(3), AtomicInt(), []

    def worker() -> None:
        for _ in range(count(100)):
            with semaphore:
                most.append(inside.add())
                gosched()
                inside.add(-1)

    threads = [threading.Thread(target=worker) for _ in range(2)]
    for thread in threads:
        thread.start()
    results([go(worker) for _ in range(6)])
    for thread in threads:
        thread.join(SECONDS)
    assert 1 <= max(most) <= 3
