"""SingleFlight: of several calls for one thing at one time, one does it and all get the answer.

Go: `golang.org/x/sync/singleflight`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from goslings._goslings import Event, Mutex

__all__ = ["SingleFlight"]


class _Call:
    """One call that is being made."""

    __slots__ = ("done", "failure", "shared", "value")

    def __init__(self) -> None:
        self.done = Event()
        self.value: Any = None
        self.failure: BaseException | None = None
        self.shared = False

    def answer(self) -> Any:
        if self.failure is not None:
            raise self.failure
        return self.value


class SingleFlight:
    """Joins calls with equal keys that overlap in time. Nothing is remembered after a call has ended."""

    __slots__ = ("__weakref__", "_calls", "_mutex")

    def __init__(self) -> None:
        self._calls: dict[Hashable, _Call] = {}
        self._mutex = Mutex()

    def do[T](self, key: Hashable, fn: Callable[[], T], /, timeout: float | None = None) -> T:
        """Returns `fn()`, or the answer of a call with the same key that is under way.

        Blocks until there is an answer; one who waits for another's at most `timeout` seconds, then raises
        TimeoutError. An exception of `fn` is raised in all who share the call.
        """
        with self._mutex:
            call = self._calls.get(key)
            mine = call is None
            if call is None:
                call = self._calls[key] = _Call()
            else:
                call.shared = True
        if not mine:
            if not call.done.wait(timeout):
                raise TimeoutError("the call under way took too long")
            answer: T = call.answer()
            return answer
        try:
            call.value = fn()
        except BaseException as error:
            call.failure = error
        finally:
            with self._mutex:
                if self._calls.get(key) is call:
                    del self._calls[key]
            call.done.set()
        answer = call.answer()
        return answer

    def forget(self, key: Hashable, /) -> None:
        """Lets the next `do` for `key` start anew, even while a call is under way."""
        with self._mutex:
            self._calls.pop(key, None)
