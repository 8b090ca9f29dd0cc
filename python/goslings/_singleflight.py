"""SingleFlight: of several calls for one thing at one time, one does it and all get the answer.

Go: `golang.org/x/sync/singleflight`.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import CancelledError
from typing import Any, NoReturn, cast

from goslings._errors import Cancelled
from goslings._goslings import Event, Mutex, _may_block, current

__all__ = ["SingleFlight"]


class _Call:
    """One call that is being made."""

    __slots__ = ("done", "failure", "value")

    def __init__(self) -> None:
        self.done = Event()
        self.value: Any = None
        self.failure: BaseException | None = None

    def answer(self, mine: bool) -> Any:
        """Its value, or raises its failure; for the one who made the call, and for those who share it."""
        if self.failure is None:
            return self.value
        try:
            if not mine and _is_cancellation(self.failure):
                # Meant for the one who made the call alone.
                raise CancelledError(*self.failure.args)
            raise self.failure
        finally:
            del self  # else the exception's traceback refers to this frame, and this frame to it


def _is_cancellation(error: BaseException) -> bool:
    asyncio = sys.modules.get("asyncio")
    return isinstance(error, Cancelled) or (asyncio is not None and isinstance(error, asyncio.CancelledError))


class SingleFlight:
    """Joins calls with equal keys that overlap in time. Nothing is remembered after a call has ended."""

    __slots__ = ("__weakref__", "_calls", "_mutex")

    def __init__(self) -> None:
        self._calls: dict[Hashable, _Call] = {}
        self._mutex = Mutex()

    def do[T](self, key: Hashable, fn: Callable[[], T], /, timeout: float | None = None) -> T:
        """Returns `fn()`, or the answer of a call with the same key that is under way.

        Blocks until there is an answer; one who waits for another's at most `timeout` seconds, then raises
        TimeoutError. An exception of `fn` is raised in all who share the call; if the one who made it was
        cancelled, the others get concurrent.futures.CancelledError.
        """
        _may_block("flight.ado(key, fn)")
        with self._mutex:
            call, mine = self._join(key)
        if mine:
            self._make(key, call, fn)
        elif not call.done.wait(timeout):
            raise TimeoutError("the call under way took too long")
        try:
            return cast(T, call.answer(mine))
        finally:
            del call  # as above

    async def ado[T](self, key: Hashable, fn: Callable[[], Awaitable[T] | T], /, timeout: float | None = None) -> T:
        """As `do`, awaited. If what `fn()` returns can be awaited, it is, and the answer is what that brings.

        Shares its calls with `do`. If the one who made the call is cancelled, so is the call.
        """
        async with self._mutex:
            call, mine = self._join(key)
        if mine:
            await self._amake(key, call, fn)
        elif not await call.done.await_(timeout):
            raise TimeoutError("the call under way took too long")
        try:
            return cast(T, call.answer(mine))
        finally:
            del call  # as above

    def _join(self, key: Hashable) -> tuple[_Call, bool]:
        """The call under way, or a new one, to be made by the caller. The mutex is held."""
        call = self._calls.get(key)
        if call is not None:
            return call, False
        call = self._calls[key] = _Call()
        return call, True

    def _make(self, key: Hashable, call: _Call, fn: Callable[[], object]) -> None:
        try:
            call.value = fn()
        except BaseException as error:
            call.failure = error
        try:
            self._remove(key, call)
        finally:
            call.done.set()
            del call

    def _remove(self, key: Hashable, call: _Call) -> None:
        try:
            with self._mutex:
                if self._calls.get(key) is call:
                    del self._calls[key]
        except Cancelled as error:
            self._remove(key, call)
            # This is not the place to be cancelled: the next wait is.
            if goroutine := current():
                goroutine.cancel(*error.args)

    async def _amake(self, key: Hashable, call: _Call, fn: Callable[[], object]) -> None:
        try:
            answer = fn()
            call.value = await answer if isinstance(answer, Awaitable) else answer
        except BaseException as error:
            call.failure = error
        try:
            await self._aremove(key, call)
        finally:
            call.done.set()
            del call

    async def _aremove(self, key: Hashable, call: _Call) -> None:
        try:
            async with self._mutex:
                if self._calls.get(key) is call:
                    del self._calls[key]
        except BaseException as error:
            if _is_cancellation(error):
                await self._aremove(key, call)
            raise

    def forget(self, key: Hashable, /) -> None:
        """Lets the next `do` for `key` start anew, even while a call is under way."""
        _may_block("flight.aforget(key)")
        with self._mutex:
            self._calls.pop(key, None)

    async def aforget(self, key: Hashable, /) -> None:
        """As `forget`, awaited."""
        async with self._mutex:
            self._calls.pop(key, None)

    def __copy__(self) -> NoReturn:
        raise TypeError("a SingleFlight cannot be copied: it is a reference already, pass it on as it is")

    def __deepcopy__(self, _memo: object) -> NoReturn:
        self.__copy__()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SingleFlight cannot be pickled: it belongs to this process; pass it to a goroutine instead")
