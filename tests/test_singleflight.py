"""SingleFlight: rows E05 and E06 of the table of semantics."""

from __future__ import annotations

import contextlib
import weakref
from concurrent.futures import CancelledError
from typing import Any

import goslings
import pytest
from goslings import AtomicInt, Event, SingleFlight, current, go
from helpers import EVENT, SECONDS, results, waits


def test_e05_of_calls_at_one_time_one_is_made_and_all_get_its_answer(start: Any) -> None:
    flight, event, calls = SingleFlight(), Event(), AtomicInt()

    def fetch() -> object:
        calls.add()
        event.wait()
        return object()

    first = waits(go(flight.do, "key", fetch), EVENT)
    others = [start(lambda: flight.do("key", fetch)) for _ in range(3)]
    goroutines = [waits(go(flight.do, "key", fetch), EVENT) for _ in range(5)]
    assert flight.do("other key", lambda: 5) == 5
    with pytest.raises(TimeoutError, match="under way"):
        flight.do("key", fetch, timeout=0.001)
    event.set()
    answers = {first.result(SECONDS), *results(goroutines), *(other() for other in others)}
    assert calls.load() == len(answers)
    # A thread may have come late, and made a call of its own; the goroutines had not.
    assert len({first.result(), *results(goroutines)}) == 1
    assert flight.do("key", lambda: 7) == 7  # nothing is remembered


def test_e05_forget_lets_the_next_call_start_anew() -> None:
    flight, event, calls = SingleFlight(), Event(), AtomicInt()

    def fetch() -> int:
        event.wait()
        return calls.add()

    first = waits(go(flight.do, "key", fetch), EVENT)
    flight.forget("key")
    flight.forget("never heard of")
    second = waits(go(flight.do, "key", fetch), EVENT)
    third = waits(go(flight.do, "key", fetch), EVENT)
    event.set()
    assert sorted(results([first, second])) == [1, 2]
    assert third.result(SECONDS) == second.result(SECONDS)


def test_e06_a_failure_reaches_all_who_share_the_call() -> None:
    flight, event = SingleFlight(), Event()

    def fail() -> None:
        event.wait()
        raise KeyError("shared")

    goroutines = [waits(go(flight.do, 1, fail), EVENT) for _ in range(3)]
    event.set()
    errors = {goroutine.exception(SECONDS) for goroutine in goroutines}
    assert len(errors) == 1 and isinstance(errors.pop(), KeyError)


def test_e06_a_cancelled_caller_cancels_nobody_else() -> None:
    flight, event = SingleFlight(), Event()
    first = waits(go(flight.do, 1, event.wait), EVENT)
    second = waits(go(flight.do, 1, event.wait), EVENT)
    first.cancel("enough")
    assert first.join(SECONDS) and first.cancelled()
    assert isinstance(second.exception(SECONDS), CancelledError) and not second.cancelled()
    assert flight.do(1, lambda: 5) == 5


def test_e06_a_cancellation_that_comes_when_the_answer_is_there_waits_its_turn() -> None:
    flight, event, told = SingleFlight(), Event(), []

    def fetch() -> int:
        event.wait()
        me = current()
        assert me is not None
        me.cancel("later")
        return 5

    def first() -> None:
        told.append(flight.do(1, fetch))
        goslings.sleep(0)

    one = waits(go(first), EVENT)
    two = waits(go(flight.do, 1, fetch), EVENT)
    event.set()
    assert two.result(SECONDS) == 5
    assert one.join(SECONDS) and one.cancelled() and told == [5]


def test_e06_a_failed_call_leaves_no_cycle(collect: None) -> None:
    class Mark:
        pass

    flight, marks = SingleFlight(), []

    def fail() -> None:
        mark = Mark()
        marks.append(weakref.ref(mark))
        raise KeyError

    with contextlib.suppress(KeyError):
        flight.do(1, fail)
    assert marks[0]() is None
