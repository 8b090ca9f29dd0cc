"""WaitGroup: rows Y09 to Y11 of the table of semantics."""

from __future__ import annotations

from typing import Any

import pytest
from goslings import Event, WaitGroup, go, goexit
from helpers import EVENT, GROUP, SECONDS, count, results, waits


def test_y09_wait_returns_at_zero_and_releases_everybody(start: Any) -> None:
    group = WaitGroup()
    assert group.wait() and group.wait(0)
    for _ in range(2):  # it can be used again
        group.add(2)
        waiters = [start(group.wait) for _ in range(5)]
        goroutines = [waits(go(group.wait), GROUP) for _ in range(100)]
        group.done()
        assert group.count == 1 and not group.wait(0) and not group.wait(0.001)
        group.done()
        assert results(goroutines) == [True] * 100
        assert [waiter() for waiter in waiters] == [True] * 5


def test_y10_a_negative_counter_is_an_error_at_the_culprit() -> None:
    group = WaitGroup()
    for misuse in (group.done, lambda: group.add(-1), lambda: group.add(-(2**40))):
        with pytest.raises(RuntimeError, match="^negative WaitGroup counter$"):
            misuse()
    assert group.count == 0
    group.add(3)
    with pytest.raises(RuntimeError):
        group.add(-4)
    assert group.count == 3
    group.add(-3)
    assert group.wait(0)
    with pytest.raises((OverflowError, RuntimeError)):
        group.add(2**63)


def test_y10_adding_again_when_it_has_come_to_zero_holds_back_nobody_who_waited() -> None:
    for _ in range(count(100)):
        group = WaitGroup()
        group.add()
        waiters = [waits(go(group.wait), GROUP) for _ in range(5)]
        group.done()
        group.add()
        assert results(waiters) == [True] * 5
        assert not group.wait(0)


def test_y11_go_adds_starts_and_marks_done_however_it_ends() -> None:
    group, event = WaitGroup(), Event()

    def fails() -> None:
        event.wait()
        raise KeyError("expected")

    def leaves() -> None:
        event.wait()
        goexit()

    def returns(*args: int, **kwargs: int) -> tuple[tuple[int, ...], dict[str, int]]:
        event.wait()
        return args, kwargs

    failing = group.go(fails)
    returning = group.go(returns, 1, two=2)
    group.go(leaves)
    cancelled = group.go(event.wait)
    assert group.count == 4
    waits(cancelled, EVENT)
    cancelled.cancel()
    assert not group.wait(0)
    event.set()
    assert group.wait(SECONDS)
    assert returning.result(0) == ((1,), {"two": 2})
    assert isinstance(failing.exception(0), KeyError)
    assert cancelled.cancelled()


def test_y11_go_of_no_callable_leaves_the_counter() -> None:
    group = WaitGroup()
    with pytest.raises(TypeError, match="callable"):
        group.go(1)  # type: ignore[arg-type]
    assert group.count == 0
