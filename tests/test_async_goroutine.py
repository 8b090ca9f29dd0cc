"""Goroutines that run `async def` functions: stepped by whichever worker is free, without a stack of their own."""

from __future__ import annotations

import functools
import gc
import traceback
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import CancelledError
from typing import Any

import pytest
from goslings import (
    Barrier,
    Cancelled,
    Closed,
    Event,
    ExceptHookArgs,
    Mutex,
    Semaphore,
    WaitGroup,
    agosched,
    aselect,
    asleep,
    chan,
    current,
    go,
    goexit,
    recv,
    send,
    stacks,
)
from helpers import SECONDS, parked, until

Unread = list[ExceptHookArgs]


async def receive(ch: chan[Any]) -> Any:
    return await ch.arecv()


async def through(ch: chan[Any]) -> Any:
    return await receive(ch)


# -- what can be one ---------------------------------------------------------------------------


class Greeter:
    async def greet(self, name: str) -> str:
        await agosched()
        return f"hello {name}"

    @classmethod
    async def made(cls) -> str:
        return cls.__name__

    async def __call__(self, name: str) -> str:
        return await self.greet(name)


async def plus(a: int, b: int = 0) -> int:
    await agosched()
    return a + b


@pytest.mark.parametrize(
    ("function", "args", "answer"),
    [
        (plus, (1, 2), 3),
        (functools.partial(plus, 1, b=4), (), 5),
        (functools.partial(functools.partial(plus, 1), 6), (), 7),
        (Greeter().greet, ("you",), "hello you"),
        (Greeter.made, (), "Greeter"),
        (Greeter(), ("you",), "hello you"),
        (functools.partial(Greeter(), "you"), (), "hello you"),
        (lambda: plus(1, 2), (), 3),  # driven on a stack
        (lambda: (lambda: plus(2, 2))(), (), 4),
    ],
)
def test_whatever_gives_a_coroutine_is_run_to_its_end(
    function: Callable[..., Any], args: tuple[Any, ...], answer: object
) -> None:
    assert go(function, *args).result(SECONDS) == answer


def test_it_takes_keyword_arguments_and_a_wrong_call_is_its_failure() -> None:
    assert go(plus, 1, b=2).result(SECONDS) == 3
    with pytest.raises(TypeError, match="unexpected keyword"):
        go(plus, 1, c=2).result(SECONDS)


def test_a_coroutine_instead_of_its_function_is_refused_with_advice() -> None:
    coroutine = plus(1)
    with pytest.raises(TypeError, match="async def function and its arguments"):
        go(coroutine)  # type: ignore[arg-type]
    coroutine.close()


def test_what_a_plain_function_returns_is_given_on_unless_it_is_a_coroutine() -> None:
    def generator() -> Generator[int]:
        yield 1

    async def agen() -> AsyncIterator[int]:
        yield 1

    assert list(go(generator).result(SECONDS)) == [1]
    assert isinstance(go(agen).result(SECONDS), types.AsyncGeneratorType)


def test_generators_and_async_generators_help() -> None:
    ch: chan[int] = chan()

    async def numbers() -> AsyncIterator[int]:
        async for value in ch:
            yield value * 2

    class Twice:
        def __await__(self) -> Generator[Any, Any, int]:
            first = yield from ch.arecv().__await__()
            second = yield from ch.arecv().__await__()
            return first + second

    @types.coroutine
    def old() -> Generator[Any, Any, int]:
        return (yield from Twice().__await__())

    async def work() -> tuple[int, int, list[int]]:
        return await Twice(), await old(), [value async for value in numbers()]

    g = go(work)
    for value in range(7):
        ch.send(value)
    ch.close()
    assert g.result(SECONDS) == (1, 5, [8, 10, 12])


def test_context_managers_around_and_within_it() -> None:
    order = []

    class Resource:
        async def __aenter__(self) -> Resource:
            await agosched()
            order.append("in")
            return self

        async def __aexit__(self, *_: object) -> None:
            await asleep(0.001)
            order.append("out")

    async def work() -> None:
        async with Resource(), Mutex(), Semaphore(2):
            order.append("body")
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        go(work).result(SECONDS)
    assert order == ["in", "body", "out"]


# -- how it ends -------------------------------------------------------------------------------


def test_an_exception_keeps_its_traceback_through_the_await_chain() -> None:
    ch: chan[int] = chan()

    async def fails() -> None:
        await ch.arecv()
        raise ValueError("deep")

    async def outer() -> None:
        await fails()

    g = go(outer)
    ch.send(1)
    error = g.exception(SECONDS)
    assert isinstance(error, ValueError)
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == ["outer", "fails"]
    with pytest.raises(ValueError) as caught:
        g.result(SECONDS)
    assert caught.value is error


def test_an_exception_that_nobody_reads_is_reported(unread: Unread) -> None:
    async def fails() -> None:
        await agosched()
        raise ValueError("alone")

    go(fails)
    until(lambda: unread)
    (args,) = unread
    assert isinstance(args.exc_value, ValueError)
    unread.clear()


def test_what_an_await_raises_can_be_caught_where_it_is() -> None:
    ch: chan[int] = chan()
    ch.close()

    async def work() -> list[str]:
        seen = []
        for call in (ch.arecv, lambda: ch.asend(1), lambda: chan[int]().arecv(0.001), lambda: chan[int]().asend(1, 0)):
            try:
                await call()
            except (Closed, TimeoutError) as error:
                seen.append(type(error).__name__)
        return seen

    assert go(work).result(SECONDS) == ["Closed", "Closed", "TimeoutError", "TimeoutError"]


def test_goexit_runs_finally_blocks_which_may_await() -> None:
    done = []

    async def inner() -> None:
        try:
            goexit()
        finally:
            await asleep(0.001)
            done.append("cleaned")

    async def outer() -> None:
        await inner()
        done.append("never")

    g = go(outer)
    assert g.result(SECONDS) is None
    assert done == ["cleaned"] and not g.cancelled()


def test_current_is_itself_on_every_step() -> None:
    async def work() -> list[Any]:
        seen = [current()]
        for _ in range(3):
            await agosched()
            seen.append(current())
        await asleep(0.001)
        return [*seen, current()]

    g = go(work)
    assert set(g.result(SECONDS)) == {g}
    assert current() is None


def test_stop_iteration_and_exits_come_out_as_elsewhere() -> None:
    async def stops() -> None:
        raise StopIteration(1)

    async def leaves() -> None:
        raise SystemExit(3)

    assert isinstance(go(stops).exception(SECONDS), RuntimeError)
    assert isinstance(go(leaves).exception(SECONDS), SystemExit)


def test_what_is_no_call_of_ours_is_thrown_back_at_who_awaits_it() -> None:
    @types.coroutine
    def foreign() -> Generator[Any]:
        yield "something"

    async def work() -> str:
        try:
            await foreign()
        except RuntimeError as error:
            return str(error)
        return ""

    assert "yields a str" in go(work).result(SECONDS)


def test_an_asyncio_future_is_refused_with_advice() -> None:
    import asyncio

    async def work() -> None:
        loop = asyncio.new_event_loop()
        try:
            await loop.create_future()
        finally:
            loop.close()

    with pytest.raises(RuntimeError, match=r"goslings\.aio\.await_"):
        go(work).result(SECONDS)


# -- cancelling --------------------------------------------------------------------------------


def test_cancel_at_an_await_runs_finally_blocks_that_await_again() -> None:
    ch: chan[int] = chan()
    seen = []

    async def work() -> None:
        try:
            await through(ch)
        except Cancelled as error:
            seen.append(error.args)
            raise
        finally:
            await asleep(0.001)
            seen.append("slept")

    g = go(work)
    parked(g)
    assert g.cancel("enough")
    with pytest.raises(CancelledError, match="enough"):
        g.result(SECONDS)
    assert g.cancelled() and seen == [("enough",), "slept"]
    assert not g.cancel()
    assert not ch.try_send(1)  # nobody is left in the queue


PARKS: dict[str, Callable[[], Awaitable[Any]]] = {
    "arecv": lambda: chan[int]().arecv(),
    "asend": lambda: chan[int]().asend(1),
    "aselect": lambda: aselect(recv(chan[int]()), send(chan[int](), 1)),
    "no case": lambda: aselect(),
    "asleep": lambda: asleep(1000),
    "event": lambda: Event().await_(),
    "semaphore": lambda: taken.aacquire(),
    "lock": lambda: locked.alock(),
    "group": lambda: busy.await_(),
    "barrier": lambda: Barrier(2).await_(),
}
taken, locked, busy = Semaphore(1), Mutex(), WaitGroup()
taken.acquire()
locked.lock()
busy.add(1)


@pytest.mark.parametrize("name", PARKS)
def test_cancel_ends_every_kind_of_wait(name: str) -> None:
    async def work() -> None:
        await PARKS[name]()

    g = go(work)
    until(lambda: next(one for one in stacks() if one.id == g.id).waiting is not None)
    assert g.cancel()
    assert g.join(SECONDS) and g.cancelled()


def test_who_swallows_cancelled_goes_on_and_is_cancelled_anew() -> None:
    ch: chan[int] = chan()
    told: chan[str] = chan(9)

    async def work() -> int:
        for _ in range(3):
            try:
                await ch.arecv()
            except Cancelled as error:
                await told.asend(str(error))
        return await ch.arecv()

    g = go(work)
    for message in "abc":
        parked(g)
        g.cancel(message)
        assert told.recv(SECONDS) == message
    ch.send(7)
    assert g.result(SECONDS) == 7 and not g.cancelled()


def test_cancelled_before_it_starts_it_never_runs_and_nothing_warns(one_worker: None) -> None:
    ran = []

    async def work() -> None:
        ran.append(1)

    def starter() -> Any:
        g = go(work)  # the only worker is busy here
        assert g.cancel("early")
        return g

    g = go(starter).result(SECONDS)
    with pytest.raises(CancelledError, match="early"):
        g.result(SECONDS)
    gc.collect()
    assert not ran


def test_a_cancel_while_it_runs_comes_at_its_next_call() -> None:
    async def work() -> str:
        me = current()
        assert me is not None
        me.cancel()
        try:
            await chan[int](1).asend(1)  # would not wait
        except Cancelled:
            return "at the call"
        return "not at all"

    assert go(work).result(SECONDS) == "at the call"
