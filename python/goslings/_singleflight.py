"""SingleFlight: of several calls for one thing at one time, one does it and all get the answer.

Go: `golang.org/x/sync/singleflight`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError
from typing import Any, NoReturn

from goslings._errors import Cancelled
from goslings._goslings import Event, Mutex, current

__all__ = ["SingleFlight"]


class _Call:
    """One call that is being made."""

    __slots__ = ("done", "failure", "value")

    def __init__(self) -> None:
        self.done = Event()
        self.value: Any = None
        self.failure: BaseException | None = None


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
        with self._mutex:
            call = self._calls.get(key)
            mine = call is None
            if call is None:
                call = self._calls[key] = _Call()
        if mine:
            self._make(key, call, fn)
        elif not call.done.wait(timeout):
            raise TimeoutError("the call under way took too long")
        if call.failure is None:
            value: T = call.value
            return value
        try:
            if not mine and isinstance(call.failure, Cancelled):
                # Meant for the one who made the call alone.
                raise CancelledError(*call.failure.args)
            raise call.failure
        finally:
            del call  # else the exception's traceback refers to this frame, and this frame to it

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

    def forget(self, key: Hashable, /) -> None:
        """Lets the next `do` for `key` start anew, even while a call is under way."""
        with self._mutex:
            self._calls.pop(key, None)

    def __copy__(self) -> NoReturn:
        raise TypeError("a SingleFlight cannot be copied: it is a reference already, pass it on as it is")

    def __deepcopy__(self, _memo: object) -> NoReturn:
        self.__copy__()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SingleFlight cannot be pickled: it belongs to this process; pass it to a goroutine instead")
