"""Async goroutines and what is around them: contexts, workers, the collector."""

from __future__ import annotations

import contextvars
import gc
import threading
import time
import warnings
import weakref
from typing import Any

import pytest
from goslings import (
    Cancelled,
    agosched,
    asleep,
    chan,
    current,
    go,
    gosched,
)
from helpers import EVENT, FREE_THREADED, SECONDS, count, parked, results, until, waits

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="unset")


# -- context variables -------------------------------------------------------------------------


def test_the_context_is_that_of_go_and_stays_its_own() -> None:
    async def work(name: str) -> list[str]:
        seen = [VAR.get()]
        VAR.set(name)
        for _ in range(20):
            await agosched()
            seen.append(VAR.get())
        return seen

    def starter() -> list[list[str]]:
        VAR.set("starter")
        answers = results([go(work, str(n)) for n in range(50)])
        assert VAR.get() == "starter"
        return answers

    for n, seen in enumerate(go(starter).result(SECONDS)):
        assert seen == ["starter", *[str(n)] * 20]
    assert VAR.get() == "unset"


def test_the_context_goes_along_from_worker_to_worker(two_workers: None) -> None:
    token_error = []

    async def work(name: str) -> None:
        token = VAR.set(name)
        for _ in range(count(200)):
            await agosched()
            assert VAR.get() == name
            context = contextvars.copy_context()
            assert context[VAR] == name
        try:
            VAR.reset(token)  # of this context, though perhaps made on another thread
        except ValueError as error:
            token_error.append(error)

    results([go(work, str(n)) for n in range(8)])
    assert not token_error


def test_a_goroutine_started_inside_gets_what_was_set_inside() -> None:
    async def child() -> str:
        await agosched()
        return VAR.get()

    async def parent() -> list[str]:
        VAR.set("parent")
        a, b = go(child), go(VAR.get)
        VAR.set("later")
        return [await a, await b]

    assert go(parent).result(SECONDS) == ["parent", "parent"]


# -- workers -----------------------------------------------------------------------------------


@pytest.mark.skipif(not FREE_THREADED, reason="with a GIL only one computes at a time")
def test_steps_that_compute_are_run_by_two_workers_at_once(two_workers: None) -> None:
    here: dict[int, int] = {}

    async def work(n: int, other: int) -> set[int]:
        threads = set()
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            # One step: computes until the other was seen to run on another thread in the meantime.
            here[n] = threading.get_ident()
            for _ in range(2000):
                if here.get(other, here[n]) != here[n]:
                    threads.add(here[other])
            if threads:
                return threads
            await agosched()
        return threads

    assert all(results([go(work, 0, 1), go(work, 1, 0)]))


def test_goroutines_with_and_without_stacks_take_turns_on_one_worker(one_worker: None) -> None:
    order: list[str] = []

    async def stackless() -> None:
        for _ in range(3):
            order.append("a")
            await agosched()

    def stackful() -> None:
        for _ in range(3):
            order.append("b")
            gosched()

    def both() -> None:
        results([go(stackless), go(stackful)])

    go(both).result(SECONDS)
    assert sorted(order) == ["a"] * 3 + ["b"] * 3
    assert "aaa" not in "".join(order) and "bbb" not in "".join(order)


def test_one_starts_another_kind_and_waits_for_it() -> None:
    def with_stack(depth: int) -> int:
        return go(without, depth - 1).result() + 1 if depth else 0

    async def without(depth: int) -> int:
        return await go(with_stack, depth - 1) + 1 if depth else 0

    assert go(without, 40).result(SECONDS) == 40
    assert with_stack(41) == 41


def test_a_coroutine_driven_on_a_stack_parks_its_goroutine_and_is_cancelled_where_it_waits() -> None:
    ch: chan[int] = chan()

    async def work() -> int:
        try:
            return await ch.arecv()
        except Cancelled:
            return -1

    first, second = go(lambda: work()), go(lambda: work())
    waits(first, EVENT)
    waits(second, EVENT)
    second.cancel()
    assert second.result(SECONDS) == -1
    ch.send(5)
    assert first.result(SECONDS) == 5


# -- memory ------------------------------------------------------------------------------------


class Thing:
    pass


def test_a_collection_while_many_are_parked_takes_nothing_they_need() -> None:
    ch: chan[int] = chan()

    async def work(thing: Thing, n: int) -> tuple[Thing, int]:
        local = [n, {"n": n}]
        local.append(local)
        value = await ch.arecv()
        assert local[0] == n and local[2] is local
        return thing, value

    things = [Thing() for _ in range(200)]
    goroutines = [go(work, thing, n) for n, thing in enumerate(things)]
    parked(*goroutines)
    for _ in range(3):
        gc.collect()
    for n in range(200):
        ch.send(n)
    answers = results(goroutines)
    assert [thing for thing, _ in answers] == things
    assert sorted(value for _, value in answers) == list(range(200))


def test_nothing_is_kept_after_the_end(collect: None) -> None:
    ch: chan[Any] = chan()

    async def work(thing: Thing) -> None:
        inside = Thing()
        refs.append(weakref.ref(inside))
        await ch.arecv()

    refs: list[Any] = []
    thing = Thing()
    refs.append(weakref.ref(thing))
    g = go(work, thing)
    del thing
    parked(g)
    assert refs[0]() is not None and refs[1]() is not None
    ch.send(None)
    assert g.join(SECONDS)
    gone = weakref.ref(g)
    del g
    until(lambda: (gc.collect(), all(ref() is None for ref in [*refs, gone]))[1])


def test_a_cycle_through_a_coroutine_that_ended_is_collected(collect: None) -> None:
    async def work(box: list[Any]) -> Any:
        box.append(current())
        await agosched()
        return box

    box: list[Any] = []
    g = go(work, box)
    assert g.join(SECONDS)
    gone = weakref.ref(g)
    del g, box
    until(lambda: (gc.collect(), gone() is None)[1])


def test_a_call_that_is_never_awaited_does_nothing_and_warns_of_nothing() -> None:
    ch: chan[int] = chan(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ch.asend(1)
        ch.arecv()
        asleep(0.0)
        gc.collect()
    assert len(ch) == 0


def test_gosched_in_an_async_goroutine_names_its_twin() -> None:
    def helper() -> None:
        gosched()

    async def work() -> None:
        with pytest.raises(RuntimeError, match=r"use `await agosched\(\)`"):
            gosched()
        with pytest.raises(RuntimeError, match="agosched"):
            helper()
        await agosched()

    go(work).result(SECONDS)
    go(helper).result(SECONDS)  # with a stack it may
    helper()  # and so may a plain thread
