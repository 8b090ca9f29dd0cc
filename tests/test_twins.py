"""What blocks says so inside a coroutine and names its twin; what is awaited in a wrong way says so, too."""

from __future__ import annotations

import asyncio
import time
import types
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any

import pytest
from goslings import (
    Barrier,
    Cond,
    Event,
    Mutex,
    Once,
    RWMutex,
    Semaphore,
    SingleFlight,
    Ticker,
    Timer,
    WaitGroup,
    after,
    agosched,
    asleep,
    blocking,
    chan,
    go,
    recv,
    select,
    sleep,
)
from helpers import EVENT, SECONDS, parked, waits

Run = Callable[[Coroutine[Any, Any, Any]], Any]

ch: chan[int] = chan()
never: chan[int] = chan()

BLOCKING: dict[str, tuple[Callable[[], object], str]] = {
    "send": (lambda: ch.send(1), "await ch.asend(value)"),
    "recv": (lambda: ch.recv(), "await ch.arecv()"),
    "recv_ok": (lambda: ch.recv_ok(), "await ch.arecv_ok()"),
    "view send": (lambda: ch.sender().send(1), "await ch.asend(value)"),
    "view recv": (lambda: ch.receiver().recv(), "await ch.arecv()"),
    "for": (lambda: list(ch), "async for"),
    "select": (lambda: select(recv(ch)), "await aselect(...)"),
    "sleep": (lambda: sleep(1), "await asleep(seconds)"),
    "after": (lambda: after(0).recv(), "await ch.arecv()"),
    "Timer": (lambda: Timer(1).c.recv(), "await ch.arecv()"),
    "Ticker": (lambda: next(iter(Ticker(1))), "async for"),
    "Mutex": (lambda: Mutex().lock(), "await mutex.alock()"),
    "with Mutex": (lambda: Mutex().__enter__(), "alock()"),
    "read": (lambda: RWMutex().rlock(), "await rw.arlock()"),
    "write": (lambda: RWMutex().lock(), "await rw.alock()"),
    "with read": (lambda: RWMutex().read().__enter__(), "async with rw.read()"),
    "with write": (lambda: RWMutex().write().__enter__(), "async with rw.write()"),
    "WaitGroup": (lambda: busy.wait(), "await group.await_()"),
    "Event": (lambda: Event().wait(), "await event.await_()"),
    "Semaphore": (lambda: Semaphore(1).acquire(), "await semaphore.aacquire()"),
    "Barrier": (lambda: Barrier(2).wait(), "await barrier.await_()"),
    "Cond": (lambda: Cond(Mutex()).wait(), "await cond.await_()"),
    "result": (lambda: go(never.recv_ok).result(), "await goroutine"),
    "exception": (lambda: go(never.recv_ok).exception(), "await goroutine"),
    "blocking": (lambda: blocking(time.sleep, 0), "await go(blocking, fn, ...)"),
    "join": (lambda: go(never.recv_ok).join(), "goroutine.ajoin()"),
}
busy = WaitGroup()
busy.add(1)


async def call(name: str) -> str:
    await agosched()
    with pytest.raises(RuntimeError, match="this call blocks") as caught:
        BLOCKING[name][0]()
    return str(caught.value)


@pytest.mark.parametrize("name", BLOCKING)
def test_what_blocks_names_its_twin_in_an_async_goroutine(name: str, unread: list[Any]) -> None:
    assert BLOCKING[name][1] in go(call, name).result(SECONDS)


@pytest.mark.parametrize("name", sorted(set(BLOCKING) - {"blocking"}))  # which only calls the function, as on a thread
def test_what_blocks_names_its_twin_in_a_task(name: str, unread: list[Any]) -> None:
    assert BLOCKING[name][1] in asyncio.run(call(name))


def test_what_does_not_block_works_there(run: Run) -> None:
    async def work() -> None:
        box: chan[int] = chan(1)
        assert box.try_send(1) and box.try_recv() == 1
        mutex, group, event = Mutex(), WaitGroup(), Event()
        assert mutex.try_lock()
        mutex.unlock()
        group.add(1)
        group.done()
        event.set()
        box.close()
        done = go(int)
        await done
        assert done.result() == 0 and done.exception() is None and done.join()  # ended: nothing to wait for

    run(work())
    go(work).result(SECONDS)


def test_a_thread_or_goroutine_beside_a_loop_may_block(run: Run) -> None:
    async def main() -> int:
        box: chan[int] = chan()
        go(box.send, 3)
        first = await asyncio.to_thread(box.recv)
        go(box.send, 4)
        return first + await go(box.recv)

    assert run(main()) == 7


def test_a_notebook_cell_inside_a_loop_may_block() -> None:
    """As ipykernel does it: the cell's code is run by a coroutine of its own files, or is one named <module>."""
    seen: dict[str, Any] = {"chan": chan, "go": go}
    plain = compile("box = chan()\ngo(box.send, 3)\nanswer = box.recv()\n", "<cell 1>", "exec")
    awaiting = compile(
        "import asyncio\nawait asyncio.sleep(0)\nbox = chan()\ngo(box.send, 4)\nawaited = box.recv()\n",
        *("<cell 2>", "exec", 0x2000),  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    )
    names: dict[str, Any] = {"exec": exec, "plain": plain, "seen": seen}
    source = "async def run_cell():\n    exec(plain, seen)\n"
    exec(compile(source, "/usr/lib/python3/IPython/core/interactiveshell.py", "exec"), names)
    asyncio.run(names["run_cell"]())
    assert seen["answer"] == 3
    asyncio.run(types.FunctionType(awaiting, seen)())
    assert seen["awaited"] == 4


# -- awaited in a wrong way --------------------------------------------------------------------


def test_a_call_awaited_twice_says_so(run: Run) -> None:
    async def work() -> str:
        box: chan[int] = chan(2)
        sending = box.asend(1)
        await sending
        with pytest.raises(RuntimeError, match="awaited once") as caught:
            await sending
        assert len(box) == 1
        return str(caught.value)

    assert run(work()) == go(work).result(SECONDS)


def test_a_call_awaited_by_two_tasks_says_so_to_the_second(run: Run) -> None:
    async def wait(receiving: Any) -> Any:
        return await receiving

    async def main() -> None:
        box: chan[int] = chan()
        receiving = box.arecv()
        first = asyncio.create_task(wait(receiving))
        await asyncio.sleep(0)
        second = asyncio.create_task(wait(receiving))
        with pytest.raises(RuntimeError):
            await second
        await box.asend(1)
        assert await first == 1

    run(main())


def test_a_call_awaited_by_two_goroutines_says_so_to_one() -> None:
    box: chan[int] = chan()
    receiving = box.arecv()

    async def wait() -> Any:
        return await receiving

    first = go(wait)
    parked(first)
    second = go(wait)
    with pytest.raises(RuntimeError):
        second.result(SECONDS)
    box.send(1)
    assert first.result(SECONDS) == 1


def test_a_call_is_made_for_whoever_awaits_it_wherever_it_came_from(run: Run) -> None:
    box: chan[int] = chan(2)
    made: list[Any] = []

    async def make() -> None:
        made.extend([box.asend(1), box.arecv()])

    async def use() -> Any:
        await made.pop(0)
        return await made.pop(0)

    run(make())
    assert run(use()) == 1  # another loop
    go(make).result(SECONDS)
    assert go(use).result(SECONDS) == 1


def test_a_wait_begun_in_one_loop_is_refused_in_another() -> None:
    box: chan[int] = chan()
    loops = [asyncio.new_event_loop() for _ in range(2)]

    async def wait(receiving: Any) -> Any:
        return await receiving

    try:
        receiving = box.arecv()
        first = loops[0].create_task(wait(receiving))
        loops[0].run_until_complete(asyncio.sleep(0.001))
        with pytest.raises(RuntimeError):
            loops[1].run_until_complete(wait(receiving))
        go(box.send, 1)
        assert loops[0].run_until_complete(first) == 1
    finally:
        for loop in loops:
            loop.close()


def test_awaited_by_a_coroutine_that_nobody_runs_properly_it_says_where_to() -> None:
    coroutine = ch.arecv().__await__()
    with pytest.raises(RuntimeError, match="in an async goroutine"):
        next(coroutine)  # type: ignore[call-overload]


# -- ado ---------------------------------------------------------------------------------------


def test_once_ado_awaits_the_first_call_and_the_others_wait_for_it(run: Run) -> None:
    async def main() -> None:
        once, calls = Once(), []

        async def first() -> None:
            calls.append(1)
            await asleep(0.001)
            calls.append(2)

        async def ask() -> list[int]:
            await once.ado(first)
            return list(calls)

        goroutines = [go(ask) for _ in range(5)]
        assert await asyncio.gather(*[ask() for _ in range(5)]) == [[1, 2]] * 5
        assert [await g for g in goroutines] == [[1, 2]] * 5
        once.do(first)  # done: nothing to wait for
        other = Once()
        with pytest.raises(ZeroDivisionError):
            await other.ado(lambda: 1 / 0)
        await other.ado(lambda: calls.append(3))
        assert calls == [1, 2]
        with pytest.raises(RuntimeError, match=r"await once\.ado\(fn\)"):
            Once().do(int)

    run(main())


def test_singleflight_ado_shares_one_call_among_all_kinds(run: Run) -> None:
    async def main() -> None:
        flight, calls, begun, gate = SingleFlight(), [], Event(), chan[int]()

        async def call() -> int:
            calls.append(1)
            begun.set()
            return await gate.arecv()

        first = go(lambda: flight.ado("k", call))
        await begun
        with pytest.raises(TimeoutError):
            await flight.ado("k", call, 0.001)
        with_stack = go(flight.do, "k", lambda: -1)
        task = asyncio.create_task(flight.ado("k", call))
        await asyncio.to_thread(waits, with_stack, EVENT)
        await asyncio.sleep(0)
        await gate.asend(5)
        assert (await first, await with_stack, await task) == (5, 5, 5)
        assert calls == [1]
        assert await flight.ado("k", lambda: 6) == 6
        with pytest.raises(ZeroDivisionError):
            await flight.ado("k", lambda: 1 / 0)
        with pytest.raises(RuntimeError, match=r"await flight\.ado\(key, fn\)"):
            flight.do("k", int)

    run(main())


def test_a_cancelled_singleflight_call_is_no_cancellation_for_those_who_share_it(run: Run) -> None:
    async def main() -> None:
        flight = SingleFlight()
        maker = asyncio.create_task(flight.ado("k", never.arecv))
        await asyncio.sleep(0)
        other = asyncio.create_task(flight.ado("k", never.arecv))
        for _ in range(10):
            await asyncio.sleep(0)
        maker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await maker
        with pytest.raises(CancelledError) as caught:
            await other
        assert not isinstance(caught.value, asyncio.CancelledError)
        await flight.aforget("k")
        assert await flight.ado("k", lambda: 1) == 1

    run(main())
