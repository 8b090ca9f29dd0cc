"""leaks: goroutines without a stack are found as others are, and what holds their objects saves them."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import goslings
import goslings.aio
import pytest
from goslings import (
    Barrier,
    Cond,
    Event,
    Goroutine,
    Mutex,
    RWMutex,
    Semaphore,
    WaitGroup,
    agosched,
    aselect,
    asleep,
    chan,
    go,
    recv,
    send,
)
from helpers import SECONDS, until
from test_leaks import lost, settled, started

Work = Callable[[], Coroutine[Any, Any, None]]


async def by_send() -> None:
    await chan[int]().asend(42)


async def by_receive() -> None:
    await chan[int]().arecv()


async def by_receive_ok() -> None:
    await chan[int]().arecv_ok()


async def by_view() -> None:
    view = chan[int]().receiver()
    await view.arecv()


async def by_iteration() -> None:
    async for _ in chan[int]():
        pass


async def by_mutex() -> None:
    mutex = Mutex()
    await mutex.alock()
    await mutex.alock()


async def by_mutex_block() -> None:
    mutex = Mutex()
    async with mutex, mutex:
        pass


async def by_rw_mutex() -> None:
    rw = RWMutex()
    await rw.alock()
    await rw.arlock()


async def by_group() -> None:
    group = WaitGroup()
    group.add(1)
    await group


async def by_cond() -> None:
    cond = Cond(Mutex())
    async with cond:
        await cond.await_()


async def by_semaphore() -> None:
    permits = Semaphore(1)
    async with permits, permits:
        pass


async def by_event() -> None:
    await Event()


async def by_barrier() -> None:
    await Barrier(2).await_()


async def by_select() -> None:
    first, second = chan[int](), chan[int]()
    await aselect(recv(first), send(second, 1))


async def by_select_of_one_twice() -> None:
    ch: chan[Any] = chan()
    await aselect(recv(ch), recv(ch), recv(None))


async def by_select_of_many() -> None:
    a, b, c, d, e = (chan[Any]() for _ in range(5))
    await aselect(recv(a), recv(b), recv(c), recv(d), send(e, [a, b]))


async def by_what_it_sends() -> None:
    ch: chan[Any] = chan()
    await ch.asend([ch])


async def by_depth() -> None:
    async def inner(ch: chan[int], more: int) -> int:
        return await ch.arecv() if more == 0 else 1 + await inner(ch, more - 1) * 2

    await inner(chan(), 5)


async def by_generator() -> None:
    async def numbers() -> AsyncIterator[int]:
        ch: chan[int] = chan()
        yield 1
        yield await ch.arecv()

    async for _ in numbers():
        pass


async def by_own_awaitable() -> None:
    class Own:
        def __await__(self) -> Iterator[Any]:
            yield from chan[int]().arecv().__await__()

    await Own()


async def by_awaiting_a_coroutine_object() -> None:
    async def inner() -> None:
        await chan[int]().arecv()

    class Own:
        def __await__(self) -> Any:
            return inner().__await__()

    await Own()


async def by_exception_handler() -> None:
    ch: chan[int] = chan()
    try:
        raise ValueError(ch)
    except ValueError as error:
        kept = error
        await ch.arecv()
        del kept


async def by_own_suspended_generator() -> None:
    """What a generator holds that only this goroutine has is no way to wake it."""
    ch: chan[int] = chan()

    def numbers() -> Iterator[chan[int]]:
        own = ch
        yield own
        own.send(1)

    generator = numbers()
    next(generator)
    await ch.arecv()
    next(generator)


async def by_call_that_has_not_begun() -> None:
    ch: chan[int] = chan()
    later = ch.asend(1)
    await ch.arecv()
    await later


LOST: dict[Work, str] = {
    by_send: "chan send",
    by_receive: "chan receive",
    by_receive_ok: "chan receive",
    by_view: "chan receive",
    by_iteration: "chan receive",
    by_mutex: "sync.Mutex.Lock",
    by_mutex_block: "sync.Mutex.Lock",
    by_rw_mutex: "sync.RWMutex.RLock",
    by_group: "sync.WaitGroup.Wait",
    by_cond: "sync.Cond.Wait",
    by_semaphore: "semacquire",
    by_event: "event wait",
    by_barrier: "barrier wait",
    by_select: "select",
    by_select_of_one_twice: "select",
    by_select_of_many: "select",
    by_what_it_sends: "chan send",
    by_depth: "chan receive",
    by_generator: "chan receive",
    by_own_awaitable: "chan receive",
    by_awaiting_a_coroutine_object: "chan receive",
    by_exception_handler: "chan receive",
    by_own_suspended_generator: "chan receive",
    by_call_that_has_not_begun: "chan receive",
}


@pytest.mark.parametrize("work", LOST, ids=lambda work: work.__name__)
def test_o03_an_async_goroutine_that_nobody_can_wake_is_found(work: Work) -> None:
    number = started(functools.partial(go, work))
    assert lost()[number] == f"{LOST[work]} (leaked)"
    assert lost()[number] == f"{LOST[work]} (leaked)"  # looking changes nothing


def test_o03_one_with_a_stack_that_only_its_own_generator_could_wake() -> None:
    def start() -> None:
        ch: chan[int] = chan()

        def numbers() -> Iterator[None]:
            yield
            ch.send(1)

        def work() -> None:
            generator = numbers()
            next(generator)
            ch.recv()
            next(generator)

        go(work)

    number = started(start)
    assert number in lost()


def test_o03_both_kinds_that_wait_for_each_other_only() -> None:
    numbers: list[int] = []

    def start() -> None:
        a, b = Mutex(), Mutex()
        met = WaitGroup()
        met.add(2)

        async def stackless(mine: Mutex, other: Mutex) -> None:
            async with mine:
                met.done()
                await met
                async with other:
                    pass

        def stackful(mine: Mutex, other: Mutex) -> None:
            mine.lock()
            met.done()
            met.wait()
            other.lock()

        numbers.extend(g.id for g in (go(stackless, a, b), go(stackful, b, a)))

    start()
    for number in numbers:
        until(lambda number=number: any(o.id == number and o.state == "sync.Mutex.Lock" for o in goslings.stacks()))
    assert set(numbers) <= set(lost())


def test_o03_who_awaits_a_lost_one_is_lost_too() -> None:
    numbers: list[int] = []

    async def wait_for(g: Goroutine[Any]) -> None:
        await g

    async def join(g: Goroutine[Any]) -> None:
        await g.ajoin()

    def start() -> None:
        stuck = go(by_receive)
        numbers.extend([stuck.id, go(wait_for, stuck).id, go(join, stuck).id, go(stuck.result).id])

    start()
    for number in numbers:
        settled(number)
    assert set(numbers) <= set(lost())


def test_o03_a_kept_handle_of_an_async_goroutine_does_not_save_it() -> None:
    kept = go(by_receive)
    settled(kept.id)
    assert kept.id in lost()
    kept.cancel()
    assert kept.join(SECONDS)
    assert kept.id not in lost()


GLOBAL: dict[str, Any] = {}


async def receive(ch: chan[int]) -> None:
    await ch.arecv()


def kept_by_global() -> Goroutine[Any]:
    GLOBAL["channel"] = ch = chan[int]()
    return go(receive, ch)


def kept_by_view() -> Goroutine[Any]:
    ch: chan[int] = chan()
    GLOBAL["view"] = ch.sender()
    return go(receive, ch)


def kept_by_async_goroutine() -> Goroutine[Any]:
    """A local of another one, which can be woken."""
    ch: chan[int] = chan()

    async def work() -> None:
        own = ch
        await GLOBAL["forever"].arecv()
        await own.asend(1)

    GLOBAL["other"] = other = go(work)
    settled(other.id)
    return go(receive, ch)


def kept_by_async_goroutine_that_sleeps() -> Goroutine[Any]:
    ch: chan[int] = chan()

    async def work() -> None:
        own = ch
        await asleep(1000)
        await own.asend(1)

    GLOBAL["other"] = other = go(work)
    settled(other.id)
    return go(receive, ch)


def kept_by_async_goroutine_that_goes_on() -> Goroutine[Any]:
    ch: chan[int] = chan()

    async def work() -> None:
        own = ch
        while not GLOBAL["blocking"].is_set():
            await agosched()
        del own

    GLOBAL["other"] = go(work)
    return go(receive, ch)


def kept_by_goroutine_with_a_stack() -> Goroutine[Any]:
    ch: chan[int] = chan()

    def work() -> None:
        own = ch
        GLOBAL["forever"].recv()
        own.send(1)

    GLOBAL["other"] = other = go(work)
    settled(other.id)
    return go(receive, ch)


def kept_by_task() -> Goroutine[Any]:
    """An asyncio task that waits elsewhere has it."""
    ch: chan[int] = chan()
    ready = threading.Event()

    async def work() -> None:
        own = ch
        ready.set()
        await GLOBAL["forever"].arecv_ok()
        del own

    def run() -> None:
        asyncio.run(work())

    GLOBAL["thread"] = thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(SECONDS)
    return go(receive, ch)


def kept_by_task_that_sleeps() -> Goroutine[Any]:
    ch: chan[int] = chan()
    ready = threading.Event()

    async def work() -> None:
        own = ch
        ready.set()
        while not GLOBAL["blocking"].is_set():
            await asyncio.sleep(0.01)
        del own

    GLOBAL["thread"] = thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    assert ready.wait(SECONDS)
    return go(receive, ch)


def kept_by_task_that_waits_there() -> Goroutine[Any]:
    """It may be cancelled when it was given a value, and put that back."""
    ch: chan[int] = chan()
    loops: list[asyncio.AbstractEventLoop] = []

    async def work() -> None:
        loops.append(asyncio.get_running_loop())
        GLOBAL["task"] = asyncio.current_task()
        await ch.arecv()

    def run() -> None:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(work())

    GLOBAL["thread"] = thread = threading.Thread(target=run)
    thread.start()
    until(lambda: any(one.id is None and "chan receive" in one.state for one in goslings.stacks()) or "task" in GLOBAL)
    GLOBAL["stop"] = lambda: loops[0].call_soon_threadsafe(GLOBAL["task"].cancel)
    return go(receive, ch)


def kept_by_coroutine_that_has_not_begun() -> Goroutine[Any]:
    ch: chan[int] = chan()
    GLOBAL["coroutine"] = coroutine = receive(ch)
    GLOBAL["stop"] = coroutine.close
    return go(receive, ch)


def kept_by_coroutine_of_its_own() -> Goroutine[Any]:
    """Whoever has the call in which it waits can throw something at it."""
    ch: chan[int] = chan()

    async def work() -> None:
        GLOBAL["call"] = call = ch.arecv()
        await call

    return go(work)


def kept_by_call_that_has_not_begun() -> Goroutine[Any]:
    ch: chan[int] = chan()
    GLOBAL["call"] = ch.asend(1)
    return go(receive, ch)


def kept_by_generator() -> Goroutine[Any]:
    ch: chan[int] = chan()

    def numbers() -> Iterator[None]:
        own = ch
        yield
        own.send(1)

    GLOBAL["generator"] = generator = numbers()
    next(generator)
    return go(receive, ch)


def kept_by_generator_that_has_not_begun() -> Goroutine[Any]:
    ch: chan[int] = chan()

    def numbers(own: chan[int]) -> Iterator[None]:
        yield
        own.send(1)

    GLOBAL["generator"] = numbers(ch)
    return go(receive, ch)


def kept_by_generator_that_runs() -> Goroutine[Any]:
    ch: chan[int] = chan()
    ready = threading.Event()

    def numbers() -> Iterator[None]:
        own = ch
        ready.set()
        GLOBAL["blocking"].wait()
        del own
        yield

    GLOBAL["thread"] = thread = threading.Thread(target=lambda: list(numbers()))
    thread.start()
    assert ready.wait(SECONDS)
    return go(receive, ch)


def kept_by_weak_reference_to_its_holder() -> Goroutine[Any]:
    """The object that has the channel can be had by who knows it weakly."""

    class Holder:
        pass

    async def work() -> None:
        holder: Any = Holder()
        holder.channel = chan()
        GLOBAL["weak"] = weakref.ref(holder)
        await holder.channel.arecv()

    return go(work)


def kept_by_sleep() -> Goroutine[Any]:
    async def work() -> None:
        await asleep(1000)

    return go(work)


def kept_by_endless_sleep() -> Goroutine[Any]:
    async def work() -> None:
        await asleep(float("inf"))

    return go(work)


def kept_by_endless_sleep_with_a_stack() -> Goroutine[Any]:
    return go(goslings.sleep, float("inf"))


def kept_by_time_limit() -> Goroutine[Any]:
    async def work() -> None:
        await chan[int]().arecv(1000)

    return go(work)


def kept_by_timer() -> Goroutine[Any]:
    async def work() -> None:
        await goslings.after(1000).arecv()

    return go(work)


def kept_by_awaited_goroutine() -> Goroutine[Any]:
    GLOBAL["other"] = other = go(GLOBAL["forever"].recv)
    settled(other.id)

    async def work() -> None:
        await other

    return go(work)


def kept_by_select() -> Goroutine[Any]:
    GLOBAL["one"] = one = chan[int]()

    async def work() -> None:
        await aselect(recv(chan()), recv(one))

    return go(work)


def kept_by_asyncio() -> Goroutine[Any]:
    """What runs on the loop in the background sets it free."""

    async def work() -> None:
        await goslings.aio.await_(asyncio.sleep(1000))

    return go(work)


SAFE = [function for name, function in list(globals().items()) if name.startswith("kept_by_")]


@pytest.mark.parametrize("start", SAFE, ids=lambda start: start.__name__)
def test_o03_what_can_be_reached_is_not_reported(start: Callable[[], Goroutine[Any]], two_workers: None) -> None:
    GLOBAL["forever"] = forever = chan[int]()
    GLOBAL["blocking"] = blocking = threading.Event()
    before = set(lost())
    g = start()
    settled(g.id)
    assert not set(lost()) - before
    blocking.set()
    GLOBAL.get("stop", int)()
    g.cancel()
    assert g.join(SECONDS)
    if "other" in GLOBAL:
        GLOBAL["other"].cancel()
        assert GLOBAL["other"].join(SECONDS)
    forever.close()
    if "thread" in GLOBAL:
        GLOBAL["thread"].join(SECONDS)
        assert not GLOBAL["thread"].is_alive()
    GLOBAL.clear()


def test_async_goroutines_that_work_are_not_lost(two_workers: None) -> None:
    """While they run, wait and wake each other on all workers."""
    stop: list[int] = []

    async def work() -> None:
        ping: chan[list[Any]] = chan()
        pong: chan[int] = chan(1)

        async def echo() -> None:
            async for value in ping:
                value.append([ping])
                await pong.asend(1)

        g = go(echo)
        while not stop:
            await ping.asend([1, {2: 3}])
            await aselect(recv(pong), recv(chan()))
        ping.close()
        await g

    goroutines = [go(work) for _ in range(4)]
    numbers = {g.id for g in goroutines}
    try:
        known = set(lost())
        for _ in range(3):
            found = go(lost).result(SECONDS)
            assert not numbers & set(found)
            assert not set(found) - known
    finally:
        stop.append(1)
    for g in goroutines:
        g.result(SECONDS)


def test_nothing_is_kept_by_looking_at_async_goroutines(collect: None) -> None:
    class Value:
        pass

    value = Value()
    watch = weakref.ref(value)

    async def work(value: Value) -> None:
        await chan[Value]().asend(value)

    g = go(work, value)
    settled(g.id)
    # The weak reference is a way to the value, and not to the channel.
    assert g.id in lost()
    del value
    g.cancel()
    assert g.join(SECONDS)
    del g
    gc.collect()
    until(lambda: watch() is None)
