"""Once and once_value: row Y12 of the table of semantics."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import Any

import pytest
from goslings import AtomicInt, Event, Once, go, gosched, once_value
from helpers import EVENT, MUTEX, SECONDS, results, until, waits


def test_y12_once_runs_the_first_and_all_wait_for_it(two_workers: None, start: Any) -> None:
    once, event, calls = Once(), Event(), []

    def slow() -> None:
        calls.append(1)
        event.wait()
        calls.append(2)

    def caller() -> int:
        once.do(slow)
        return len(calls)

    callers = [start(caller) for _ in range(5)]
    until(lambda: calls)
    second = waits(go(once.do, lambda: calls.append(3)), MUTEX)
    event.set()
    assert [result() for result in callers] == [2] * 5
    second.result(SECONDS)
    once.do(lambda: calls.append(4))
    assert calls == [1, 2]


def test_y12_a_first_call_that_failed_counts_as_done() -> None:
    once, ran = Once(), []
    with pytest.raises(ZeroDivisionError):
        once.do(lambda: 1 / 0)
    once.do(lambda: ran.append(1))
    assert not ran


def test_y12_once_within_itself_waits_for_itself() -> None:
    once = Once()
    g = waits(go(once.do, lambda: once.do(lambda: None)), MUTEX)
    g.cancel()
    assert g.join(SECONDS) and g.cancelled()


def test_y12_once_value_remembers_the_value() -> None:
    calls = AtomicInt()

    def make() -> object:
        calls.add()
        gosched()
        return object()

    get = once_value(make)
    values = results([go(get) for _ in range(20)]) + [get()]
    assert len(set(values)) == 1 and calls.load() == 1


def test_y12_once_value_repeats_its_failure_with_the_same_traceback() -> None:
    calls = AtomicInt()

    def fail() -> None:
        calls.add()
        raise KeyError("again")

    get, seen = once_value(fail), []
    for _ in range(5):
        with pytest.raises(KeyError, match="again") as caught:
            get()
        seen.append((caught.value, len(caught.traceback)))
    assert len(set(seen)) == 1 and calls.load() == 1


def test_y12_once_value_does_not_hand_on_a_cancellation() -> None:
    event = Event()
    get = once_value(event.wait)
    first = waits(go(get), EVENT)
    second = waits(go(get), MUTEX)
    first.cancel("enough")
    assert first.join(SECONDS) and first.cancelled()
    assert isinstance(second.exception(SECONDS), CancelledError) and not second.cancelled()
    with pytest.raises(CancelledError, match="enough"):
        get()
