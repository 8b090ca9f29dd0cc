"""Event: what is not in Go, by the same rules."""

from __future__ import annotations

from typing import Any

from goslings import Event, go
from helpers import EVENT, results, waits


def test_an_event_releases_all_and_can_be_cleared(start: Any) -> None:
    event = Event()
    assert not event.is_set() and not event.wait(0)
    waiters = [start(event.wait) for _ in range(3)]
    goroutines = [waits(go(event.wait), EVENT) for _ in range(3)]
    event.set()
    event.set()
    assert event.is_set() and event.wait(0)
    assert results(goroutines) == [True] * 3
    assert [waiter() for waiter in waiters] == [True] * 3
    event.clear()
    assert not event.is_set() and not event.wait(0)


def test_an_event_that_is_cleared_at_once_has_released_those_who_waited() -> None:
    event = Event()
    goroutines = [waits(go(event.wait), EVENT) for _ in range(10)]
    event.set()
    event.clear()
    assert results(goroutines) == [True] * 10
