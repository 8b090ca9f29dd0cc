"""Cancelled asyncio tasks lose no value and send none twice; what is awaited in a wrong way says so."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from goslings import Mutex, RWMutex, Semaphore, aselect, chan, go, recv, send
from helpers import SECONDS, count, results

Run = Callable[[Coroutine[Any, Any, Any]], Any]


async def settle() -> None:
    """Lets every task that is ready go on, until each waits for something."""
    for _ in range(10):
        await asyncio.sleep(0)


# -- after the hand-off ------------------------------------------------------------------------


def test_a_receiver_cancelled_after_the_hand_off_puts_the_value_back_at_the_front(run: Run) -> None:
    async def receive(ch: chan[int]) -> int:
        return await ch.arecv()

    async def main() -> None:
        for capacity in (0, 2):
            ch: chan[int] = chan(capacity)
            task = asyncio.create_task(receive(ch))
            await settle()
            assert ch.try_send(1)  # handed over: the task has not run since
            ch.try_send(2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await ch.arecv() == 1
            assert capacity == 0 or await ch.arecv() == 2

    run(main())


def test_a_value_put_back_goes_to_who_waits_already(run: Run) -> None:
    async def receive(ch: chan[int]) -> int:
        return await ch.arecv()

    async def main() -> int:
        ch: chan[int] = chan()
        first = asyncio.create_task(receive(ch))
        await settle()
        second = asyncio.create_task(receive(ch))
        await settle()
        assert ch.try_send(1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await second

    assert run(main()) == 1


def test_a_value_put_back_into_a_channel_that_was_closed_is_still_received(run: Run) -> None:
    async def receive(ch: chan[int]) -> int:
        return await ch.arecv()

    async def main() -> list[int]:
        ch: chan[int] = chan()
        task = asyncio.create_task(receive(ch))
        await settle()
        assert ch.try_send(1)
        ch.close()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return [value async for value in ch]

    assert run(main()) == [1]


def test_a_sender_cancelled_after_the_hand_off_returns_and_is_cancelled_at_its_next_await(run: Run) -> None:
    async def main() -> None:
        ch: chan[int] = chan()
        seen = []

        async def feed() -> None:
            try:
                await ch.asend(1)
                seen.append("sent")
                await asyncio.sleep(0)
                seen.append("not cancelled")
            except asyncio.CancelledError as error:
                seen.append(error.args)
                raise

        task = asyncio.create_task(feed())
        await settle()
        assert ch.try_recv() == 1
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen == ["sent", ("enough",)]
        assert task.cancelled() and task.cancelling() == 1

    run(main())


def test_a_sender_that_retries_when_cancelled_never_sends_twice(run: Run) -> None:
    async def main() -> None:
        ch: chan[int] = chan()

        tries = []

        async def feed() -> None:
            while True:
                tries.append(1)
                try:
                    await ch.asend(1)
                    break
                except asyncio.CancelledError:
                    continue

        task = asyncio.create_task(feed())
        await settle()
        assert ch.try_recv() == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task  # it had no further await to be cancelled at
        assert tries == [1] and ch.try_recv(None) is None

    run(main())


def test_a_time_limit_that_comes_after_the_hand_off_still_comes(run: Run) -> None:
    async def main() -> str:
        ch: chan[int] = chan()
        try:
            async with asyncio.timeout(None) as limit:
                asyncio.get_running_loop().call_soon(lambda: (ch.try_recv(), limit.reschedule(0)))
                await ch.asend(1)
                await asyncio.sleep(1000)
        except TimeoutError:
            return "timed out"
        return "not"

    assert run(main()) == "timed out"


def test_a_select_cancelled_after_the_hand_off_loses_nothing(run: Run) -> None:
    chosen: list[Any] = []

    async def choose(*cases: Any) -> None:
        chosen.append(await aselect(*cases))

    async def main() -> None:
        a: chan[int] = chan()
        b: chan[int] = chan()
        task = asyncio.create_task(choose(recv(a), send(b, 5)))
        await settle()
        assert a.try_send(1)
        assert b.try_recv(None) is None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await a.arecv() == 1

        task = asyncio.create_task(choose(recv(a), send(b, 5)))
        await settle()
        assert b.try_recv() == 5
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task  # sent; the cancellation came at its next await, or its end
        assert [one.index for one in chosen] == [1]
        assert not a.try_send(1)

    run(main())


@pytest.mark.parametrize("kind", ["mutex", "read", "write", "semaphore"])
def test_a_lock_given_to_a_task_that_is_cancelled_is_given_back(run: Run, kind: str) -> None:
    mutex, rw, places = Mutex(), RWMutex(), Semaphore(1)
    take, give, call, free = {
        "mutex": (mutex.lock, mutex.unlock, mutex.alock, mutex.try_lock),
        "read": (rw.lock, rw.unlock, rw.arlock, rw.try_lock),
        "write": (rw.lock, rw.unlock, rw.alock, rw.try_lock),
        "semaphore": (places.acquire, places.release, places.aacquire, places.try_acquire),
    }[kind]

    async def lock() -> None:
        await call()

    async def main() -> None:
        task = asyncio.create_task(lock())
        await settle()
        give()  # to the task
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    take()
    run(main())
    assert free()


def test_a_cond_cancelled_has_its_mutex_locked(run: Run) -> None:
    from goslings import Cond

    async def main() -> None:
        mutex = Mutex()
        cond = Cond(mutex)

        async def wait() -> None:
            async with cond:
                try:
                    await cond.await_()
                finally:
                    assert not mutex.try_lock()

        task = asyncio.create_task(wait())
        await settle()
        async with cond:
            task.cancel()
            await settle()
            assert not task.done()  # it waits for the mutex
        with pytest.raises(asyncio.CancelledError):
            await task
        assert mutex.try_lock()

    run(main())


# -- storms ------------------------------------------------------------------------------------


class Account:
    """What was sent for certain, what was received for certain: any thread may write."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.received: list[int] = []

    def check(self) -> None:
        doubled = [value for value, times in Counter(self.received).items() if times > 1]
        assert not doubled, f"doubled: {doubled}"
        assert set(self.sent) == set(self.received), (
            f"lost: {set(self.sent) - set(self.received)}, never sent: {set(self.received) - set(self.sent)}"
        )


@pytest.mark.parametrize("capacity", [0, 1, 7])
def test_storms_of_cancellations_lose_and_double_nothing(
    run: Run, capacity: int, rng: random.Random, fast_switching: None
) -> None:
    ch: chan[int] = chan(capacity)
    other: chan[int] = chan(capacity)
    account = Account()
    n = count(150)
    chance = random.Random(rng.random())

    def feed(first: int) -> None:
        for value in range(first, first + n):
            (ch if value % 2 else other).send(value)
            account.sent.append(value)

    async def afeed(first: int) -> None:
        for value in range(first, first + n):
            await (ch if value % 2 else other).asend(value)
            account.sent.append(value)

    def drain() -> None:
        for value in ch:
            account.received.append(value)

    async def sender(value: int) -> None:
        if value % 3:
            await ch.asend(value)
        else:
            await aselect(send(ch, value), send(other, value))
        account.sent.append(value)  # no await in between: it was sent

    async def receiver(kind: int) -> None:
        if kind == 0:
            value = await ch.arecv()
        elif kind == 1:
            value = (await aselect(recv(ch), recv(other))).value
        else:
            value, ok = await other.arecv_ok()
            if not ok:
                return
        if value is not None:
            account.received.append(value)

    async def storm() -> None:
        tasks: list[asyncio.Task[None]] = []
        for number in range(6 * n):
            made = sender(1_000_000 + number) if chance.random() < 0.5 else receiver(chance.randrange(3))
            tasks.append(asyncio.create_task(made))
            if chance.random() < 0.3:
                await asyncio.sleep(0)
            for _ in range(chance.randrange(3)):
                tasks[chance.randrange(max(0, len(tasks) - 20), len(tasks))].cancel()
        for task in tasks:
            if chance.random() < 0.8:
                task.cancel()
        await settle()
        for task in tasks:
            task.cancel()
        for task in tasks:
            try:
                await task
            except asyncio.CancelledError:
                assert task.cancelled()

    feeders: list[Any] = [go(feed, 0), go(afeed, n)]
    thread = threading.Thread(target=feed, args=(2 * n,))
    thread.start()
    drains = [go(drain) for _ in range(2)]
    run(storm())

    async def rest() -> None:
        async for value in other:
            account.received.append(value)

    drains.append(go(rest))
    results(feeders)
    thread.join(SECONDS)
    ch.close()
    other.close()
    results(drains)
    account.check()


def test_storms_of_cancellations_of_async_goroutines_lose_and_double_nothing(
    two_workers: None, rng: random.Random
) -> None:
    from concurrent.futures import CancelledError

    ch: chan[int] = chan()
    other: chan[int] = chan(2)
    account = Account()

    async def sender(value: int) -> None:
        if value % 2:
            await ch.asend(value)
        else:
            await aselect(send(ch, value), send(other, value))
        account.sent.append(value)

    async def receiver(kind: int) -> None:
        value = await ch.arecv() if kind else (await aselect(recv(ch), recv(other))).value
        if value is not None:
            account.received.append(value)

    goroutines = []
    for value in range(count(1500)):
        goroutines.append(go(sender, value) if rng.random() < 0.5 else go(receiver, rng.randrange(2)))
        if rng.random() < 0.5:
            goroutines[rng.randrange(len(goroutines))].cancel()
    for goroutine in goroutines:
        goroutine.cancel()
    for goroutine in goroutines:
        try:
            goroutine.result(SECONDS)
        except CancelledError:
            pass
    while (value := other.try_recv(None)) is not None:
        account.received.append(value)
    account.check()
