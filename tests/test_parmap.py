"""parmap: results in order or as they are ready, back-pressure, failures, and what stops it."""

from __future__ import annotations

import asyncio
import copy
import gc
import io
import itertools
import pickle
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest
from goslings import (
    AtomicInt,
    Cancelled,
    Event,
    agosched,
    chan,
    current,
    go,
    goexit,
    gomaxprocs,
    gosched,
    num_goroutine,
    parmap,
    sleep,
)
from helpers import SECONDS, count, parked, results, until

ORDERS = pytest.mark.parametrize("ordered", [True, False])


class Source:
    """Numbers, and how many of them were pulled."""

    def __init__(self, numbers: Any = None) -> None:
        self.numbers = itertools.count() if numbers is None else iter(numbers)
        self.pulled = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        value = next(self.numbers)
        self.pulled += 1
        return value


@ORDERS
@pytest.mark.parametrize("limit", [None, 1, 3, 50])
def test_it_gives_what_map_gives(ordered: bool, limit: int | None, two_workers: None) -> None:
    def square(n: int) -> int:
        for _ in range(n % 4):
            gosched()
        return n * n

    got = list(parmap(square, range(200), limit=limit, ordered=ordered))
    expected = [n * n for n in range(200)]
    assert got == expected if ordered else sorted(got) == expected
    assert list(parmap(square, [], limit=limit, ordered=ordered)) == []


def test_ordered_results_wait_for_their_turn_and_others_do_not() -> None:
    def work(n: int) -> int:
        events[n].wait()
        return n

    for ordered, first, rest in ((True, 0, [1, 2]), (False, 2, [])):
        events = [Event() for _ in range(3)]
        mapped = parmap(work, range(3), limit=3, ordered=ordered)
        asking = go(next, mapped)
        parked(asking)
        events[2].set()
        if ordered:
            assert not asking.join(0.001)
        else:
            assert asking.result(SECONDS) == 2
        for n in (0, 1) if ordered else (1, 0):
            events[n].set()
            if not ordered:
                assert next(mapped) == n
        assert asking.result(SECONDS) == first
        assert list(mapped) == rest


@ORDERS
def test_so_many_run_at_once_and_no_more(ordered: bool, two_workers: None, fast_switching: None) -> None:
    running, peak = AtomicInt(), [0]

    def work(n: int) -> int:
        peak[0] = max(peak[0], running.add(1))
        for _ in range(3):
            gosched()
        running.add(-1)
        return n

    assert sorted(parmap(work, range(100), limit=4, ordered=ordered)) == list(range(100))
    assert peak[0] <= 4


def test_the_default_limit_is_gomaxprocs() -> None:
    before = gomaxprocs(3)
    try:
        source, event = Source(), Event()
        mapped = parmap(lambda n: event.wait() and n, source)
        g = go(next, mapped)
        until(lambda: source.pulled == 3)
        event.set()
        assert g.result(SECONDS) == 0
        mapped.close()
    finally:
        gomaxprocs(before)


# Back-pressure


@ORDERS
def test_an_infinite_iterable_is_pulled_at_most_limit_ahead(ordered: bool) -> None:
    source = Source()
    with parmap(lambda n: n, source, limit=5, ordered=ordered) as mapped:
        assert source.pulled == 0  # nothing happens before it is asked for
        for taken in range(1, 40):
            next(mapped)
            assert taken <= source.pulled <= taken + 5
        until(lambda: source.pulled == taken + 5)
        before = source.pulled
        for _ in range(10):
            gosched()
        assert source.pulled == before


def test_an_iterable_that_blocks_holds_up_no_result() -> None:
    numbers = chan[int]()
    mapped = parmap(lambda n: n + 1, numbers, limit=4)
    got = chan[int](10)

    def take() -> None:
        for value in mapped:
            got.send(value)

    g = go(take)
    for n in range(5):
        numbers.send(n)
        assert got.recv(SECONDS) == n + 1  # though the next item is not there yet
    numbers.close()
    g.result(SECONDS)


def test_it_may_be_nested_and_fed_by_itself() -> None:
    inner = parmap(lambda n: n * 2, range(20), limit=2)
    outer = parmap(lambda n: sum(parmap(int, range(n), limit=2)), inner, limit=3)
    assert list(outer) == [sum(range(2 * n)) for n in range(20)]


# Failures


def test_the_first_failure_is_raised_at_its_place_and_cancels_the_rest() -> None:
    event, ended = Event(), chan(10)

    def work(n: int) -> int:
        if n == 3:
            raise ValueError(n)
        if n > 3:
            try:
                event.wait()
            finally:
                ended.send(n)
        return n

    source = Source()
    mapped = parmap(work, source, limit=6)
    got = []
    with pytest.raises(ValueError, match="3") as caught:
        for value in mapped:
            got.append(value)
    assert got == [0, 1, 2] and caught.traceback[-1].name == "work"
    begun = source.pulled - 4
    until(lambda: len(ended) <= begun)
    assert list(mapped) == [] and next(mapped, "over") == "over"


def test_without_order_a_failure_is_raised_when_it_is_known() -> None:
    event = Event()

    def work(n: int) -> int:
        if n == 3:
            raise ValueError(n)
        event.wait()
        return n

    mapped = parmap(work, itertools.count(), limit=6, ordered=False)
    with pytest.raises(ValueError, match="3"):
        next(mapped)
    assert list(mapped) == []


@ORDERS
def test_further_failures_are_dropped(ordered: bool) -> None:
    before = num_goroutine()

    def work(n: int) -> int:
        raise ValueError(n)

    for _ in range(20):
        with pytest.raises(ValueError):
            list(parmap(work, range(30), limit=8, ordered=ordered))
    until(lambda: num_goroutine() <= before)
    gc.collect()


@ORDERS
def test_what_the_iterable_raises_comes_after_the_results_before_it(ordered: bool) -> None:
    error = OSError("mine")

    def source() -> Iterator[int]:
        yield from range(10)
        raise error

    got = []
    mapped = parmap(lambda n: (sleep(0.001 * (n % 3)), n)[1], source(), limit=4, ordered=ordered)
    with pytest.raises(OSError) as caught:
        for value in mapped:
            got.append(value)
    assert caught.value is error and sorted(got) == list(range(10))
    assert list(mapped) == []


def test_a_stop_iteration_of_the_function_is_an_error() -> None:
    def work(n: int) -> int:
        raise StopIteration(n)

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(parmap(work, range(3)))


def test_ends_of_a_special_kind() -> None:
    def leaves(n: int) -> int:
        return goexit() if n == 1 else n

    assert list(parmap(leaves, range(3))) == [0, None, 2]

    def is_cancelled(n: int) -> int:
        me = current()
        assert me is not None
        me.cancel("by itself")
        gosched()
        return n

    with pytest.raises(CancelledError, match="by itself"):
        list(parmap(is_cancelled, range(3)))

    def items_leave() -> Iterator[int]:
        yield 1
        goexit()

    assert list(parmap(int, items_leave())) == [1]

    def items_are_cancelled() -> Iterator[int]:
        yield 1
        is_cancelled(1)

    with pytest.raises(CancelledError, match="by itself"):
        list(parmap(int, items_are_cancelled()))

    def exits(n: int) -> int:
        raise SystemExit(n)

    with pytest.raises(SystemExit):
        list(parmap(exits, [5]))


@pytest.mark.parametrize("limit", [0, -3])
def test_bad_arguments_are_refused_at_once(limit: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        parmap(int, [], limit=limit)
    for wrong in ((None, []), (int, 5)):
        with pytest.raises(TypeError):
            parmap(*wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        parmap(int, [], limit=1.5)  # type: ignore[arg-type]


# Stopping


def unending() -> tuple[Any, Any, AtomicInt]:
    """A parmap whose calls wait for ever but for the first, the channel of those that begin, the ended."""
    begun, ended = chan(100), AtomicInt()

    def work(n: int) -> int:
        begun.send(n)
        if n:
            try:
                Event().wait()
            finally:
                ended.add(1)
        return n

    return parmap(work, itertools.count(), limit=4), begun, ended


@ORDERS
def test_closing_cancels_the_rest(ordered: bool) -> None:
    before = num_goroutine()
    mapped, begun, ended = unending()
    assert next(mapped) == 0
    for _ in range(5):
        begun.recv(SECONDS)
    mapped.close()
    until(lambda: ended.load() == 4)
    assert list(mapped) == []
    mapped.close()
    until(lambda: num_goroutine() <= before)


def test_leaving_its_block_closes_it() -> None:
    mapped, begun, ended = unending()
    with pytest.raises(KeyError), mapped:
        next(mapped)
        for _ in range(5):
            begun.recv(SECONDS)
        raise KeyError
    until(lambda: ended.load() == 4)


def test_dropping_it_cancels_the_rest() -> None:
    before = num_goroutine()
    for value in unending()[0]:
        assert value == 0
        break
    until(lambda: gc.collect() is not None and num_goroutine() <= before)


def test_closing_wakes_who_waits_for_it_and_ends_the_pulling() -> None:
    before = num_goroutine()
    closed: list[str] = []

    def items() -> Iterator[int]:
        try:
            yield 1
            chan().recv()
        finally:
            closed.append("items")

    mapped = parmap(lambda n: n, items(), limit=2)
    assert next(mapped) == 1
    waiting = [go(next, mapped, "over") for _ in range(3)]
    parked(*waiting)
    mapped.close()
    assert results(waiting) == ["over"] * 3
    until(lambda: closed)
    until(lambda: num_goroutine() <= before)
    unused = parmap(int, items())
    unused.close()
    assert list(unused) == []


def test_who_is_cancelled_while_waiting_for_a_result_loses_none() -> None:
    event = Event()
    mapped = parmap(lambda n: event.wait() and n, range(5), limit=2)
    g = go(next, mapped)
    parked(g)
    g.cancel()
    assert g.join(SECONDS) and g.cancelled()

    def goes_on() -> list[int]:
        try:
            next(mapped)
        except Cancelled:
            event.set()
        return list(mapped)

    g = go(goes_on)
    parked(g)
    g.cancel()
    assert g.result(SECONDS) == [0, 1, 2, 3, 4]


@ORDERS
def test_many_may_take_from_one(ordered: bool, two_workers: None, fast_switching: None) -> None:
    for _ in range(count(20)):
        mapped = parmap(lambda n: n, range(200), limit=5, ordered=ordered)
        takers = [go(list, mapped) for _ in range(4)]
        taken: list[int] = []
        thread = threading.Thread(target=lambda taken=taken, mapped=mapped: taken.extend(mapped))
        thread.start()
        for g in takers:
            taken += g.result(SECONDS)
        thread.join(SECONDS)
        assert Counter(taken) == Counter(range(200))


def test_items_and_results_are_not_kept(collect: None) -> None:
    import weakref

    class Thing:
        pass

    seen: list[Any] = []

    def items() -> Iterator[Any]:
        for _ in range(10):
            thing = Thing()
            seen.append(weakref.ref(thing))
            yield thing
            del thing

    mapped = parmap(lambda thing: Thing(), items(), limit=2)
    for result in mapped:
        seen.append(weakref.ref(result))
        del result
    until(lambda: gc.collect() is not None and not any(ref() for ref in seen))


# In async code


def test_async_functions_and_async_for() -> None:
    async def double(n: int) -> int:
        await agosched()
        if n == 30:
            raise ValueError(n)
        return 2 * n

    async def main() -> Any:
        got = [result async for result in parmap(double, range(10), limit=3)]
        got += sorted([result async for result in parmap(lambda n: n, range(10), limit=3, ordered=False)])
        with pytest.raises(ValueError, match="30"):
            async for result in parmap(double, itertools.count(25), limit=3):
                got.append(result)
        with pytest.raises(RuntimeError, match="use `async for"):
            list(parmap(double, [1]))
        return got

    expected = [2 * n for n in range(10)] + list(range(10)) + [2 * n for n in range(25, 30)]
    assert go(main).result(SECONDS) == expected == asyncio.run(main())
    assert list(parmap(double, range(5))) == [0, 2, 4, 6, 8]


# Progress


def test_progress_draws_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    assert list(parmap(lambda n: n, range(25), progress=True)) == list(range(25))
    assert "25/25" in screen.getvalue()
    screen.truncate(0)
    numbers = chan[int](3)
    numbers.send(1)
    numbers.close()
    assert list(parmap(lambda n: n, numbers, progress=True)) == [1]
    assert "1it" in screen.getvalue(), "the length of a channel is no total"
    screen.truncate(0)
    assert next(parmap(lambda n: n, range(25), progress=True)) == 0
    assert "/25" in screen.getvalue()


def test_progress_without_tqdm_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match="pip install tqdm"):
        parmap(int, [], progress=True)


def test_it_is_not_copied() -> None:
    for call in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="ParMap cannot be"):
            call(parmap(int, []))
