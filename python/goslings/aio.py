"""asyncio awaitables in goroutines: `wait` parks a goroutine until one is done, `await_` an async goroutine.

The awaitable runs on an event loop of its own thread, started when it is first needed. The other way round needs
nothing: in an asyncio task, `await goroutine`, `await ch.arecv()` and the other `a…` methods simply work.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Awaitable
from typing import Any

from goslings import _threads
from goslings._errors import Cancelled
from goslings._goslings import Event, _may_block

__all__ = ["await_", "wait"]


class _Background:
    """An event loop on a thread, for the whole program."""

    def __init__(self) -> None:
        self._lock = _threads.lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:  # never held where a goroutine could park
            if self._loop is not None:
                return self._loop
            loop = self._loop = asyncio.new_event_loop()
        _threads.start(self._serve, loop, name="goslings-asyncio")
        return loop

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()


_background = _Background()


def _forget_thread() -> None:
    global _background
    _background = _Background()


os.register_at_fork(after_in_child=_forget_thread)


class _Call[T]:
    """One awaitable on its way through the background loop."""

    def __init__(self, awaitable: Awaitable[T]) -> None:
        self._awaitable = awaitable
        self._task: asyncio.Task[T] | None = None
        self._cancelled = False
        self._loop = _background.loop()
        self.done = Event()
        self._value: list[T] = []
        self._failure: BaseException | None = None
        self._loop.call_soon_threadsafe(self._start, context=contextvars.copy_context())

    def _start(self) -> None:
        if self._cancelled:
            close = getattr(self._awaitable, "close", None)
            if close is not None:
                close()
            self.done.set()
            return
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._end)

    async def _run(self) -> T:
        return await self._awaitable

    def _end(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self._failure = asyncio.CancelledError()
        elif (failure := task.exception()) is not None:
            self._failure = failure
        else:
            self._value.append(task.result())
        self.done.set()

    def cancel(self) -> None:
        """Asks the task to stop. Its end still comes."""
        self._cancelled = True
        self._loop.call_soon_threadsafe(lambda: self._task is not None and self._task.cancel())

    def result(self) -> T:
        if self._failure is not None:
            try:
                raise self._failure
            finally:
                self._failure = None
        return self._value.pop()


def _check(awaitable: object) -> None:
    if not hasattr(awaitable, "__await__"):
        raise TypeError(f"goslings.aio needs an awaitable, not {type(awaitable).__name__}")
    if isinstance(awaitable, asyncio.Future) and awaitable.get_loop() is not _background.loop():
        raise RuntimeError(
            "this future belongs to another event loop, and can only be awaited there: "
            "pass the coroutine that makes it instead"
        )


def wait[T](awaitable: Awaitable[T], timeout: float | None = None) -> T:
    """Runs an asyncio awaitable on a background event loop; returns what it returns, or raises what it raises.

    Blocks at most `timeout` seconds: parks a goroutine, puts a plain thread to sleep. If the time is up (TimeoutError)
    or the goroutine is cancelled, the awaitable is cancelled and its end waited for. Context variables are the
    caller's. Futures of another event loop are refused (RuntimeError). In an async goroutine use `await_`.
    """
    _check(awaitable)
    _may_block("goslings.aio.await_(awaitable)")
    call = _Call(awaitable)
    try:
        in_time = call.done.wait(timeout)
    except BaseException:
        call.cancel()
        _settle(call)
        raise
    if not in_time:
        call.cancel()
        call.done.wait()
        if isinstance(call._failure, asyncio.CancelledError):
            raise TimeoutError("wait for an asyncio awaitable timed out") from call._failure
    return call.result()


def _settle(call: _Call[Any]) -> None:
    """Waits for the end of a call that was cancelled, however often the waiter is cancelled meanwhile."""
    while not call.done.is_set():
        try:
            call.done.wait()
        except Cancelled:
            continue


async def await_[T](awaitable: Awaitable[T], timeout: float | None = None) -> T:
    """As `wait`, awaited: for async goroutines, which cannot await what needs an event loop."""
    _check(awaitable)
    call = _Call(awaitable)
    try:
        in_time = await call.done.await_(timeout)
    except BaseException:
        call.cancel()
        raise
    if not in_time:
        call.cancel()
        await call.done.await_()
        if isinstance(call._failure, asyncio.CancelledError):
            raise TimeoutError("wait for an asyncio awaitable timed out") from call._failure
    return call.result()
