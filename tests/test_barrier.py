"""Barrier: what is not in Go, by the same rules."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from goslings import AtomicInt, Barrier, go
from helpers import BARRIER, SECONDS, count, results, waits


def test_a_barrier_lets_all_pass_together_again_and_again(two_workers: None, start: Any) -> None:
    parties, rounds = 4, count(50)
    barrier, arrived = Barrier(parties), [AtomicInt() for _ in range(rounds)]
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (parties, 0, False)

    def party() -> list[int]:
        numbers = []
        for i in range(rounds):
            arrived[i].add()
            numbers.append(barrier.wait(SECONDS))
            assert arrived[i].load() == parties
        return numbers

    numbers = [result() for result in [start(party) for _ in range(parties)]]
    for each in zip(*numbers, strict=True):
        assert sorted(each) == list(range(parties))


def test_a_barrier_that_somebody_leaves_is_broken_for_all() -> None:
    for leave in ("cancel", "timeout", "abort"):
        barrier = Barrier(3)
        first = waits(go(barrier.wait), BARRIER)
        if leave == "abort":
            barrier.abort()
        elif leave == "cancel":
            second = waits(go(barrier.wait), BARRIER)
            assert barrier.n_waiting == 2
            second.cancel()
            assert second.join(SECONDS)
        else:
            with pytest.raises(TimeoutError, match="^barrier wait timed out$"):
                barrier.wait(0.001)
        assert isinstance(first.exception(SECONDS), threading.BrokenBarrierError)
        assert barrier.broken
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait()
        barrier.reset()
        assert not barrier.broken
        assert sorted(results([go(barrier.wait) for _ in range(3)])) == [0, 1, 2]


def test_a_barrier_that_is_reset_tells_those_who_wait() -> None:
    barrier = Barrier(2)
    first = waits(go(barrier.wait), BARRIER)
    barrier.reset()
    assert isinstance(first.exception(SECONDS), threading.BrokenBarrierError)
    assert not barrier.broken


def test_a_barrier_needs_somebody() -> None:
    for n in (0, -1):
        with pytest.raises(ValueError, match="positive"):
            Barrier(n)
    assert Barrier(1).wait() == 0
