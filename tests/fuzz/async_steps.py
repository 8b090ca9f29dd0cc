"""The steps that wait, for those who must not block: async goroutines and asyncio tasks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from goslings import Cancelled, Closed, Event, Group, Ticker, agosched, aselect, asleep, go
from goslings._errors import GoExit

from fuzz.ledger import Ledger, Token
from fuzz.machine import Failure, Machine
from fuzz.program import ASYNC, TASK, Actor, Step

try:
    import uvloop
except ImportError:
    uvloop = None  # not for every interpreter; see `python -m fuzz`

CANCELLED = (Cancelled, asyncio.CancelledError)


class AsyncMachine(Machine):
    """A machine that also knows async actors. A step that is not defined here takes no time, and is as for others."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.loop: Loop | None = None

    def start(self, number: int) -> None:
        kind = self.program.actors[number].kind
        if kind == TASK:
            assert self.loop is not None
            self.handles[number] = Task(self.loop, self.act_async, number)
        elif kind == ASYNC:
            self.handles[number] = go(self.act_async, number)
        else:
            super().start(number)

    def run(self) -> Any:
        if any(actor.kind == TASK for actor in self.program.actors):
            self.loop = Loop(self.program.uvloop)
        try:
            return super().run()
        finally:
            if self.loop is not None:
                self.loop.stop()

    def function(self, number: int) -> Callable[[int], Any]:
        return self.act_async if self.program.actors[number].kind == ASYNC else self.act

    async def act_async(self, number: int) -> None:
        """What an async actor does."""
        actor, ledger = self.program.actors[number], self.ledgers[number]
        try:
            for step in actor.steps:
                if self.ending:
                    break
                await self.atake(actor, ledger, step)
                self.steps[number] += 1
        except CANCELLED:
            ledger.events["ended by cancellation"] += 1
            raise
        except GoExit:
            raise
        except BaseException as error:
            self.problems.append(f"actor {number}, step {self.steps[number]} ({actor.kind}): {error!r}")

    async def atake(self, actor: Actor, ledger: Ledger, step: Step) -> None:
        name, *args = step
        ledger.operations += 1
        try:
            twin = getattr(self, "a" + name, None)
            if twin is None:
                getattr(self, name)(actor, ledger, *args)
            else:
                await twin(actor, ledger, *args)
        except CANCELLED as error:
            ledger.events["cancelled"] += 1
            if isinstance(error, Cancelled) != (actor.kind == ASYNC):
                raise Failure(f"{error!r} in {actor.kind}") from None
            if actor.stops:
                raise

    async def abody(self, actor: Actor, ledger: Ledger, steps: list[Step]) -> None:
        for step in steps:
            await self.atake(actor, ledger, step)

    # Channels

    async def asending(self, ledger: Ledger, number: int, operation: Callable[[Token], Awaitable[object]]) -> None:
        token, was_closed = ledger.token(), self.closed[number]
        value, sent = token.number, False
        try:
            await operation(token)
            sent = True
        except Closed:
            ledger.events["closed"] += 1
            if not self.channels[number].closed:
                raise Failure(f"channel {number} is not closed") from None
        finally:
            if sent:
                ledger.sent.append((number, value))
            else:
                ledger.kept.append(value)
        if sent and was_closed:
            raise Failure(f"sent on channel {number} after it was closed")

    async def areceiving(self, ledger: Ledger, number: int, operation: Awaitable[Token | None]) -> None:
        was_closed = self.closed[number]
        try:
            token = await operation
        except Closed:
            token = None
            ledger.events["closed"] += 1
            if not self.channels[number].closed:
                raise Failure(f"channel {number} is not closed") from None
        except TimeoutError:
            if was_closed:
                raise Failure(f"channel {number} was closed, and a receive found nothing to say") from None
            raise
        except asyncio.CancelledError:
            self.put_back.add(number)
            raise
        if token is not None:
            ledger.received.append((number, token.number))

    async def asend(self, actor: Actor, ledger: Ledger, number: int, limit: float | None) -> None:
        with self.timed(ledger, limit):
            await self.asending(ledger, number, lambda token: self.channels[number].asend(token, limit))

    async def aburst(self, actor: Actor, ledger: Ledger, number: int, times: int, limit: float | None) -> None:
        for _ in range(times):
            if self.ending:
                return
            ledger.operations += 1
            await self.asend(actor, ledger, number, limit)

    async def arecv(self, actor: Actor, ledger: Ledger, number: int, limit: float | None) -> None:
        with self.timed(ledger, limit):
            await self.areceiving(ledger, number, self.channels[number].arecv(limit))

    async def agulp(self, actor: Actor, ledger: Ledger, number: int, times: int, limit: float | None) -> None:
        for _ in range(times):
            if self.ending:
                return
            ledger.operations += 1
            await self.arecv(actor, ledger, number, limit)

    async def arecv_ok(self, actor: Actor, ledger: Ledger, number: int, limit: float | None) -> None:
        async def operation() -> Token | None:
            token, ok = await self.channels[number].arecv_ok(limit)
            if not ok and (token is not None or not self.channels[number].closed):
                raise Failure(f"channel {number} gave {token} and said it was closed")
            return token

        with self.timed(ledger, limit):
            await self.areceiving(ledger, number, operation())

    async def aiterate(self, actor: Actor, ledger: Ledger, number: int, times: int) -> None:
        if times == 0:
            return
        try:
            async for token in self.channels[number]:
                ledger.received.append((number, token.number))
                ledger.operations += 1
                times -= 1
                if times == 0:
                    return
        except asyncio.CancelledError:
            self.put_back.add(number)
            raise

    async def aselect(self, actor: Actor, ledger: Ledger, cases: list[Step], limit: float | None, times: int) -> None:
        for _ in range(times):
            if self.ending:
                return
            ledger.operations += 1
            await self.achoose(ledger, cases, limit)

    async def acontext(self, actor: Actor, ledger: Ledger, seconds: float, cases: list[Step]) -> None:
        with self.with_context(seconds) as context:
            await self.achoose(ledger, [*cases, ("done", context)], None)

    async def achoose(self, ledger: Ledger, cases: list[Step], limit: float | None) -> None:
        choice = self.choice(ledger, cases, limit)
        with choice:
            try:
                choice.picked = await aselect(*choice.made, timeout=limit)
            except asyncio.CancelledError:
                self.put_back.update(what for kind, what in cases if kind == "recv" and what is not None)
                raise
        choice.note()

    # Synchronisation

    async def amutex(self, actor: Actor, ledger: Ledger, number: int, limit: float | None, steps: list[Step]) -> None:
        with self.timed(ledger, limit):
            await self.mutexes[number].alock(limit)
            with self.holding_mutex(actor, ledger, number):
                await self.abody(actor, ledger, steps)

    async def aread(self, actor: Actor, ledger: Ledger, number: int, limit: float | None, steps: list[Step]) -> None:
        with self.timed(ledger, limit):
            await self.rwmutexes[number].arlock(limit)
            with self.reading(number):
                await self.abody(actor, ledger, steps)

    async def awrite(self, actor: Actor, ledger: Ledger, number: int, limit: float | None, steps: list[Step]) -> None:
        with self.timed(ledger, limit):
            await self.rwmutexes[number].alock(limit)
            with self.writing(ledger, number):
                await self.abody(actor, ledger, steps)

    async def aacquire(
        self, actor: Actor, ledger: Ledger, number: int, permits: int, limit: float | None, steps: list[Step]
    ) -> None:
        with self.timed(ledger, limit):
            await self.semaphores[number].aacquire(permits, limit)
            with self.having(number, permits):
                await self.abody(actor, ledger, steps)

    async def aproduce(self, actor: Actor, ledger: Ledger, for_all: bool) -> None:
        async with self.cond:
            self.goods += 1
            ledger.events["produced"] += 1
            self.cond.notify_all() if for_all else self.cond.notify()

    async def aconsume(self, actor: Actor, ledger: Ledger, limit: float | None) -> None:
        async with self.cond:
            while self.goods == 0 and not self.ending:
                if not await self.cond.await_(limit):
                    return
            if self.goods > 0:
                self.goods -= 1
                ledger.events["consumed"] += 1

    async def await_event(self, actor: Actor, ledger: Ledger, limit: float | None) -> None:
        if not await self.event.await_(limit) and limit is None:
            raise Failure("an event that nobody waits for was not set")

    async def ameet(self, actor: Actor, ledger: Ledger, number: int, limit: float | None) -> None:
        try:
            with self.timed(ledger, limit):
                if not 0 <= await self.barriers[number].await_(limit) < self.program.barriers[number]:
                    raise Failure("a barrier counts wrong")
        except threading.BrokenBarrierError:
            if not self.ending:
                self.barriers[number].reset()

    # Time and the runtime

    async def agosched(self, actor: Actor, ledger: Ledger) -> None:
        await agosched()

    async def asleep(self, actor: Actor, ledger: Ledger, seconds: float) -> None:
        before = time.monotonic()
        await asleep(seconds)
        self.check_sleep(seconds, time.monotonic() - before)

    async def atimer(self, actor: Actor, ledger: Ledger, seconds: float, stop: bool) -> None:
        await asleep(seconds)

    async def aticks(self, actor: Actor, ledger: Ledger, times: int, seconds: float) -> None:
        with Ticker(seconds) as ticker:
            for _ in range(times):
                await ticker.c.arecv()

    async def ain_thread(self, actor: Actor, ledger: Ledger, seconds: float) -> None:
        await asleep(seconds)

    async def aonce(self, actor: Actor, ledger: Ledger, number: int) -> None:
        await agosched()

    # Families

    async def ajoin(self, actor: Actor, ledger: Ledger, number: int, limit: float | None) -> None:
        handle = self.handles[number] if actor.number < number < len(self.handles) else None
        if handle is None:
            return
        if not await handle.ajoin(limit) and limit is None:
            raise Failure("a join without a limit ended too early")

    async def agroup(self, actor: Actor, ledger: Ledger, numbers: list[int], limit: int | None, cancel: bool) -> None:
        try:
            async with Group(limit) as group:
                for number in numbers:
                    self.handles[number] = group.go(self.function(number), number)
                if cancel:
                    group.cancel()
        finally:
            self.all_ended(numbers, "a Group has ended before its goroutines")

    async def await_group(self, actor: Actor, ledger: Ledger, numbers: list[int], limit: float | None) -> None:
        group = self.start_group(numbers)
        if await group.await_(limit):
            self.all_ended(numbers, "a WaitGroup is done before its goroutines")
        elif limit is None:
            raise Failure("a WaitGroup's wait without a limit ended too early")

    async def aparmap(self, actor: Actor, ledger: Ledger, items: int, limit: int, ordered: bool) -> None:
        async def work(n: int) -> int:
            await agosched()
            return n

        # Closed at once: a task that is cancelled keeps its frames, and what they refer to, as long as itself.
        with self.mapped(work, items, limit, ordered) as mapped:
            got = [n async for n in mapped]
        self.check_mapped(got, items, ordered)


class Loop:
    """An event loop on a thread of its own."""

    def __init__(self, of_uvloop: bool) -> None:
        self.asyncio = uvloop.new_event_loop() if of_uvloop and uvloop else asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="loop")
        self._thread.start()

    def _serve(self) -> None:
        try:
            self.asyncio.run_forever()
        finally:
            self.asyncio.close()

    def stop(self) -> None:
        """Ends it, and waits for that."""
        self.asyncio.call_soon_threadsafe(self.asyncio.stop)
        self._thread.join()


class Task:
    """An asyncio task, with the handle that goroutines have."""

    def __init__(self, loop: Loop, fn: Callable[[int], Any], number: int) -> None:
        self._ended, self._loop = Event(), loop.asyncio
        self._task: asyncio.Task[None] | None = None
        self._fn, self._number = fn, number
        self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        self._task = self._loop.create_task(self._fn(self._number))
        self._task.add_done_callback(lambda _: self._ended.set())

    def done(self) -> bool:
        return self._ended.is_set()

    def join(self, timeout: float | None) -> bool:
        return self._ended.wait(timeout)

    def ajoin(self, timeout: float | None) -> Awaitable[bool]:
        return self._ended.await_(timeout)

    def cancel(self, _message: object) -> bool:
        if self._ended.is_set():
            return False
        self._loop.call_soon_threadsafe(lambda: self._task is not None and self._task.cancel())
        return True
