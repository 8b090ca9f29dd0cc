"""asyncio tasks that use goroutines and channels, on the loop of asyncio and on uvloop."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any

import pytest
from goslings import (
    Barrier,
    Closed,
    Cond,
    Event,
    Mutex,
    RWMutex,
    Semaphore,
    Ticker,
    WaitGroup,
    WouldBlock,
    after,
    agosched,
    aselect,
    asleep,
    chan,
    current,
    go,
    recv,
    send,
    sleep,
)
from helpers import SECONDS, count, start_child

Run = Callable[[Coroutine[Any, Any, Any]], Any]


async def settle() -> None:
    """Lets every task that is ready go on, until each waits for something."""
    for _ in range(10):
        await asyncio.sleep(0)


# -- goroutines --------------------------------------------------------------------------------


def test_a_task_awaits_goroutines_of_both_kinds(run: Run) -> None:
    def with_stack(n: int) -> int:
        sleep(0.001)
        return n

    async def without(n: int) -> int:
        await asleep(0.001)
        return n

    async def fails() -> None:
        raise ValueError("x")

    async def main() -> list[int]:
        assert current() is None
        with pytest.raises(ValueError, match="x"):
            await go(fails)
        assert isinstance(await go(fails).aexception(), ValueError)
        answers = await asyncio.gather(*[go(f, n).aresult() for f in (with_stack, without) for n in range(20)])
        return [*answers, await go(with_stack, 7)]

    assert run(main()) == [*range(20), *range(20), 7]


def test_a_cancelled_goroutine_raises_what_is_not_the_tasks_own_cancellation(run: Run) -> None:
    async def main() -> bool:
        g = go(chan[int]().recv)
        g.cancel("enough")
        with pytest.raises(CancelledError, match="enough") as caught:
            await g
        assert not isinstance(caught.value, asyncio.CancelledError)
        return await g.ajoin()

    assert run(main())


def test_cancelling_a_task_that_awaits_a_goroutine_does_not_cancel_it(run: Run) -> None:
    ch: chan[int] = chan()

    async def main() -> int:
        g = go(ch.recv)
        for _ in range(3):
            task = asyncio.ensure_future(g.aresult())
            await settle()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not g.done()
        await ch.asend(3)
        return await g

    assert run(main()) == 3


def test_a_time_limit_of_a_wait_and_one_of_asyncio(run: Run) -> None:
    ch: chan[int] = chan()

    async def main() -> None:
        start = time.monotonic()
        for call in (ch.arecv, ch.arecv_ok, lambda limit: ch.asend(1, limit), go(chan[int]().recv).aresult):
            with pytest.raises(TimeoutError):
                await call(0.01)  # type: ignore[operator]
        assert await Event().await_(0.01) is False
        assert await aselect(recv(ch), timeout=0.01) is None
        assert time.monotonic() - start >= 0.06
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await ch.arecv()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ch.arecv(), 0.01)
        # None of them is still in the queue.
        assert not ch.try_send(1)
        with pytest.raises(WouldBlock):
            ch.try_recv()

    run(main())


def test_a_task_group_with_goroutines_and_channels(run: Run) -> None:
    async def main() -> int:
        ch: chan[int] = chan()
        async with asyncio.TaskGroup() as group:
            for n in range(10):
                group.create_task(put(ch, n))
            total = group.create_task(take(ch, 10))
        return total.result()

    async def put(ch: chan[int], n: int) -> None:
        await ch.asend(n)

    async def take(ch: chan[int], n: int) -> int:
        return sum([await ch.arecv() for _ in range(n)])

    assert run(main()) == 45


def test_a_failure_in_a_task_group_withdraws_the_others_waits(run: Run) -> None:
    ch: chan[int] = chan()

    async def fails() -> None:
        await settle()
        raise ValueError("x")

    async def waits() -> None:
        await ch.arecv()

    async def main() -> None:
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                for _ in range(5):
                    group.create_task(waits())
                group.create_task(fails())

    run(main())
    assert not ch.try_send(1)


# -- channels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, 3])
def test_values_between_tasks_goroutines_and_threads(run: Run, capacity: int) -> None:
    n = count(200)
    ch: chan[tuple[str, int]] = chan(capacity)

    def feed(name: str) -> None:
        for i in range(n):
            ch.send((name, i))

    async def afeed(name: str) -> None:
        for i in range(n):
            await ch.asend((name, i))

    async def main() -> list[tuple[str, int]]:
        threading.Thread(target=feed, args=("thread",)).start()
        go(feed, "goroutine")
        go(afeed, "async goroutine")
        task = asyncio.create_task(afeed("task"))
        got = [await ch.arecv() for _ in range(4 * n)]
        await task
        return got

    got = run(main())
    for name in ("thread", "goroutine", "async goroutine", "task"):
        assert [i for who, i in got if who == name] == list(range(n))


def test_async_for_ends_with_the_channel_and_works_on_tickers(run: Run) -> None:
    async def main() -> list[int]:
        ch: chan[int] = chan(2)

        def feed() -> None:
            with ch:
                for n in range(5):
                    ch.send(n)

        go(feed)
        got = [value async for value in ch]
        ticks = 0
        async for _ in Ticker(0.001):
            ticks += 1
            if ticks == 3:
                break
        assert await ch.arecv_ok() == (None, False)
        with pytest.raises(Closed):
            await ch.arecv()
        assert await after(0.001).arecv() > 0
        return got

    assert run(main()) == [0, 1, 2, 3, 4]


def test_aselect_chooses_what_is_ready_and_waits_for_what_is_not(run: Run) -> None:
    async def main() -> None:
        a: chan[int] = chan()
        b: chan[str] = chan(1)
        chosen = await aselect(recv(a), send(b, "x"))
        assert chosen.index == 1 and len(b) == 1
        go(a.send, 4)
        chosen = await aselect(recv(a), send(b, "y"))
        assert (chosen.index, chosen.value, chosen.ok) == (0, 4, True)
        assert await aselect(recv(a), timeout=0) is None
        a.close()
        chosen = await aselect(recv(a))
        assert (chosen.index, chosen.ok) == (0, False)
        with pytest.raises(Closed):
            await aselect(send(a, 1))

    run(main())


def test_the_locks_hold_between_tasks_and_goroutines(run: Run) -> None:
    mutex, rw, places = Mutex(), RWMutex(), Semaphore(2)
    held = {"mutex": 0, "write": 0, "places": 0}
    worst = dict(held)

    async def use(n: int) -> None:
        for _ in range(10):
            for name, lock in (("mutex", mutex), ("write", rw.write()), ("places", places)):
                async with lock:
                    held[name] += 1
                    worst[name] = max(worst[name], held[name])
                    await (asyncio.sleep(0) if n % 2 else agosched())
                    held[name] -= 1
            async with rw.read():
                await agosched()

    def block() -> None:
        for _ in range(10):
            with mutex, rw.write():
                assert held["mutex"] == 0 and held["write"] == 0
            with rw.read():
                assert held["write"] == 0

    async def main() -> None:
        others = [go(block) for _ in range(4)]
        await asyncio.gather(*[use(n) for n in range(6)])
        for other in others:
            await other

    run(main())
    assert worst["mutex"] == worst["write"] == 1 and worst["places"] <= 2


def test_the_other_things_to_wait_for(run: Run) -> None:
    async def main() -> None:
        group, event, barrier, mutex = WaitGroup(), Event(), Barrier(2), Mutex()
        cond, ready = Cond(mutex), []
        for _ in range(3):
            group.go(sleep, 0.001)
        assert await group
        go(event.set)
        assert await event
        other = go(barrier.wait)
        assert {await barrier.await_(), await other} == {0, 1}

        def tell() -> None:
            with mutex:
                ready.append(1)
                cond.notify()

        async with cond:
            go(tell)
            while not ready:
                assert await cond.await_()
        assert mutex.try_lock()

    run(main())


# -- loops -------------------------------------------------------------------------------------


def test_two_loops_on_two_threads_talk_over_one_channel(run: Run) -> None:
    there: chan[int] = chan()
    back: chan[int] = chan(4)
    n = count(300)

    async def answer() -> None:
        async for value in there:
            await back.asend(value + 1)
        back.close()

    async def ask() -> list[int]:
        async def feed() -> None:
            for value in range(n):
                await there.asend(value)
            there.close()

        task = asyncio.create_task(feed())
        got = [value async for value in back]
        await task
        return got

    thread = threading.Thread(target=lambda: run(answer()))
    thread.start()
    assert run(ask()) == list(range(1, n + 1))
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_a_loop_closed_with_waiters_leaves_nothing_behind(run: Run) -> None:
    ch: chan[int] = chan()

    async def waits() -> None:
        await ch.arecv()

    async def main() -> list[Any]:
        tasks = [asyncio.ensure_future(waits()) for _ in range(5)]
        await settle()
        return tasks  # whoever closes the loop cancels them

    tasks = run(main())
    assert all(task.cancelled() for task in tasks)
    assert not ch.try_send(1)


def test_a_loop_closed_without_a_word_to_its_tasks_loses_no_value() -> None:
    ch: chan[int] = chan(1)
    loop = asyncio.new_event_loop()

    async def waits() -> None:
        await ch.arecv()

    task = loop.create_task(waits())
    for _ in range(5):
        loop.call_soon(loop.stop)
        loop.run_forever()
    loop.close()
    ch.send(1)  # delivered to one who will never look
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        del task
        gc.collect()
    assert ch.recv(SECONDS) == 1


def test_interrupting_a_program_while_goroutines_run() -> None:
    process = start_child("""
        import asyncio, sys
        from goslings import *
        ch = chan()

        async def ticks():
            async for _ in Ticker(0.001):
                pass

        async def main():
            go(ticks)
            go(lambda: [None for _ in Ticker(0.001)])
            print("ready", flush=True)
            try:
                await ch.arecv()
            finally:
                print("cleaned", flush=True)

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print(ch.try_send(1))
            sys.exit(5)
    """)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err) == (5, "cleaned\nFalse\n", "")
