"""goslings.aio: what needs an event loop, awaited in goroutines."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from goslings import Event, aio, chan, go
from helpers import SECONDS

Run = Callable[[Coroutine[Any, Any, Any]], Any]

VAR: contextvars.ContextVar[int] = contextvars.ContextVar("VAR", default=0)


async def later(value: int) -> int:
    await asyncio.sleep(0.001)
    if value < 0:
        raise ValueError(value)
    return value + VAR.get()


def test_aio_wait_parks_a_goroutine_and_await_an_async_one() -> None:
    def with_stack(n: int) -> int:
        VAR.set(100)
        return aio.wait(later(n))

    async def without(n: int) -> int:
        VAR.set(200)
        return await aio.await_(later(n))

    goroutines = [go(f, n) for f in (with_stack, without) for n in range(20)]
    assert [g.result(SECONDS) for g in goroutines] == [*range(100, 120), *range(200, 220)]
    assert aio.wait(later(5)) == 5  # a plain thread sleeps
    for f in (with_stack, without):
        with pytest.raises(ValueError, match="-1"):
            go(f, -1).result(SECONDS)


def test_aio_with_a_time_limit_cancels_what_takes_too_long() -> None:
    ended = []

    async def long() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(1)

    async def without() -> None:
        await aio.await_(long(), 0.01)

    for n, call in enumerate((lambda: aio.wait(long(), 0.01), without), 1):
        with pytest.raises(TimeoutError):
            go(call).result(SECONDS)
        assert len(ended) == n


@pytest.mark.parametrize("kind", ["stack", "no stack"])
def test_cancelling_a_goroutine_in_aio_cancels_what_it_awaits(kind: str) -> None:
    begun, ended = Event(), Event()

    async def long() -> None:
        begun.set()
        try:
            await asyncio.sleep(1000)
        finally:
            ended.set()

    async def without() -> None:
        await aio.await_(long())

    g = go(without) if kind == "no stack" else go(lambda: aio.wait(long()))
    assert begun.wait(SECONDS)
    g.cancel()
    assert g.join(SECONDS) and g.cancelled()
    assert ended.wait(SECONDS)


def test_aio_refuses_what_it_cannot_await() -> None:
    loop = asyncio.new_event_loop()
    try:
        future = loop.create_future()
        with pytest.raises(RuntimeError, match="another event loop"):
            aio.wait(future)
        with pytest.raises(TypeError, match="needs an awaitable, not int"):
            aio.wait(3)  # type: ignore[arg-type]
    finally:
        loop.close()


def test_aio_wait_in_a_coroutine_names_its_twin(run: Run) -> None:
    async def work() -> None:
        awaitable = later(1)
        with pytest.raises(RuntimeError, match=r"await goslings\.aio\.await_"):
            aio.wait(awaitable)
        awaitable.close()

    run(work())
    go(work).result(SECONDS)


def test_asyncio_inside_a_task_of_aio_may_use_goroutines() -> None:
    async def both() -> int:
        box: chan[int] = chan()
        go(box.send, 3)
        return await box.arecv() + await go(lambda: aio.wait(later(4)))

    assert go(lambda: aio.wait(both())).result(SECONDS) == 7
