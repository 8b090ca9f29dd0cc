"""Once and once_value: things that happen one time, however many ask. Go: `sync.Once`, `sync.OnceValue`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from types import TracebackType
from typing import NoReturn

from goslings._errors import Cancelled
from goslings._goslings import Mutex, _may_block

__all__ = ["Once", "once_value"]


class Once:
    """Runs one function one time.

    `do` from inside `do` waits for itself, as in Go.
    """

    __slots__ = ("__weakref__", "_done", "_mutex")

    def __init__(self) -> None:
        self._done = False
        self._mutex = Mutex()

    def do(self, fn: Callable[[], object], /) -> None:
        """Runs `fn()` if this is the first call; else waits until the first call has ended.

        Blocks as long as the first call runs. If `fn` raises, the exception goes to the first caller, and the call
        counts as done.
        """
        if self._done:
            return
        _may_block("once.ado(fn)")
        with self._mutex:
            if not self._done:
                try:
                    fn()
                finally:
                    self._done = True

    async def ado(self, fn: Callable[[], object], /) -> None:
        """As `do`, awaited. If what `fn()` returns can be awaited, it is, and the call ends when that has ended."""
        if self._done:
            return
        async with self._mutex:
            if not self._done:
                try:
                    answer = fn()
                    if isinstance(answer, Awaitable):
                        await answer
                finally:
                    self._done = True

    def __copy__(self) -> NoReturn:
        raise TypeError("a Once cannot be copied: it is a reference already, pass it on as it is")

    def __deepcopy__(self, _memo: object) -> NoReturn:
        self.__copy__()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Once cannot be pickled: it belongs to this process; pass it to a goroutine instead")


def once_value[T](fn: Callable[[], T], /) -> Callable[[], T]:
    """Returns a function that calls `fn()` the first time and gives what it returned every time.

    If `fn` raised, every call raises the same exception; if the first call was cancelled, later ones raise
    concurrent.futures.CancelledError. Blocks while the first call runs.
    """
    once = Once()
    value: list[T] = []
    failure: list[BaseException] = []
    traceback: list[TracebackType | None] = []

    def run() -> None:
        try:
            value.append(fn())
        except Cancelled as error:
            # Meant for this goroutine alone.
            failure.append(CancelledError(*error.args))
            traceback.append(None)
            raise
        except BaseException as error:
            failure.append(error)
            traceback.append(error.__traceback__)

    def get() -> T:
        once.do(run)
        if failure:
            # With the traceback of the first time: else it would grow with each call.
            raise failure[0].with_traceback(traceback[0])
        return value[0]

    return get
