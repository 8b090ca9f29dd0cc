"""AtomicInt: row Y17 of the table of semantics."""

from __future__ import annotations

import threading

import pytest
from goslings import AtomicInt, Barrier, go
from helpers import SECONDS, count, results


def test_y17_each_operation_of_an_atomic_int() -> None:
    a = AtomicInt()
    assert (a.load(), int(a), repr(a)) == (0, 0, "AtomicInt(0)")
    a.store(5)
    assert (a.add(), a.add(2), a.add(-10), a.swap(7), a.load()) == (6, 8, -2, -2, 7)
    assert a.compare_and_swap(7, 8) and not a.compare_and_swap(7, 9) and a.load() == 8
    assert AtomicInt(3).load() == 3


def test_y17_it_wraps_at_64_bits_and_refuses_what_does_not_fit() -> None:
    a = AtomicInt(2**63 - 1)
    assert a.add(1) == -(2**63)
    assert a.add(-1) == 2**63 - 1
    for misuse in (lambda: a.store(2**63), lambda: a.add(-(2**63) - 1), lambda: AtomicInt(2**64)):
        with pytest.raises(OverflowError):
            misuse()
    with pytest.raises(TypeError):
        a.store(1.5)  # type: ignore[arg-type]
    assert a.load() == 2**63 - 1


def test_y17_counting_together_loses_nothing(two_workers: None, fast_switching: None) -> None:
    a, n = AtomicInt(), count(5000)

    def adder() -> None:
        for _ in range(n):
            a.add()

    threads = [threading.Thread(target=adder) for _ in range(2)]
    for thread in threads:
        thread.start()
    results([go(adder) for _ in range(4)])
    for thread in threads:
        thread.join(SECONDS)
    assert a.load() == 6 * n


def test_y17_stores_are_seen_in_one_order(two_workers: None) -> None:
    # Store buffering: at least one of the two sees the other's store.
    for _ in range(count(300)):
        x, y, ready = AtomicInt(), AtomicInt(), Barrier(2)

        def one(mine: AtomicInt, other: AtomicInt, ready: Barrier = ready) -> int:
            ready.wait(SECONDS)
            mine.store(1)
            return other.load()

        assert 1 in results([go(one, x, y), go(one, y, x)])
