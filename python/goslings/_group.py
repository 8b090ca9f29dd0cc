"""Group: goroutines that end before the block does in which they were started. Go: `golang.org/x/sync/errgroup`.

Invariants:
* A goroutine is on the runtime's count from the moment its handle exists until its end, so no exception, not even
  that of a signal handler, makes the count wrong.
* The runtime tells `_ended` of an end before it takes the goroutine off the count, and before anybody else hears of
  it: when the count is zero all failures are known.
* `_placed` holds those that have one of the `limit` places. Who takes a handle out of it gives the place back.
* Who stops the group ends its context and then cancels the members; who adds one puts it among the members and then
  looks at the context. So one of them sees the other. Nothing locks, as in `_context`.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, NoReturn, Self, SupportsIndex, overload

from goslings._context import Context, background
from goslings._goslings import Goroutine, Semaphore, WaitGroup, _failure, _may_block, _prepare, _start

__all__ = ["Group"]


class Group:
    """Group(limit=None): goroutines that have all ended when the `with` block ends; at most `limit` run at once.

    The first failure cancels the others. At the end of the block all failures are raised as an ExceptionGroup, or a
    BaseExceptionGroup if one of them is no Exception. An exception of the block itself cancels the goroutines, too,
    and is among the failures; KeyboardInterrupt and others that are no Exception go on alone instead, and what else
    failed is left to `goslings.excepthook`. A failure does not interrupt the block: see `context`.

    In an async goroutine and in an asyncio task it is `async with`. Raises ValueError for a limit below 1.
    """

    __slots__ = (
        *("__weakref__", "_context", "_count", "_failures", "_going_on", "_members"),
        *("_open", "_placed", "_places", "_queue"),
    )

    def __init__(self, limit: SupportsIndex | None = None) -> None:
        limit = None if limit is None else operator.index(limit)
        if limit is not None and limit < 1:
            raise ValueError(f"a Group's limit must be at least 1, not {limit}")
        self._places = None if limit is None else Semaphore(limit)
        self._placed: dict[Goroutine[Any], bool] = {}
        self._queue: deque[Goroutine[Any]] = deque()
        self._members: dict[Goroutine[Any], None] = {}
        self._count = WaitGroup()
        self._failures: list[Goroutine[Any] | Exception] = []
        self._context = background().with_cancel()
        self._going_on = [True]  # taken by whoever is the first to stop the group
        self._open: bool | None = None  # None before the block, False after

    @property
    def context(self) -> Context:
        """A context that ends at the first failure, which is its cause, at `cancel()`, or when all have ended."""
        return self._context

    @overload
    def go[**P, T](
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Goroutine[T]: ...

    @overload
    def go[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Goroutine[T]: ...

    def go(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Goroutine[Any]:
        """Starts `fn(*args, **kwargs)` as a goroutine, or queues it while `limit` others run. Returns its handle.

        Never blocks. After a failure or `cancel()` the handle is that of a cancelled goroutine. Raises RuntimeError
        before the block and after it.
        """
        if self._open is None:
            raise RuntimeError("a Group starts goroutines in its `with` block only")
        goroutine = _prepare(self._count, self._ended, fn, args, kwargs)
        self._members[goroutine] = None
        if not self._open:
            goroutine.cancel()
            raise RuntimeError("this Group is over: its `with` block has ended")
        if self._context.err() is not None:
            goroutine.cancel()
        elif self._places is None:
            _start(goroutine)
        else:
            self._queue.append(goroutine)
            self._fill(self._places)
        return goroutine

    def cancel(self) -> None:
        """Cancels all goroutines of the group, and those still to come. Never blocks.

        A group of cancelled goroutines ends without an error.
        """
        self._stop(None, again=True)

    def _stop(self, cause: BaseException | None, again: bool) -> None:
        """Cancels everybody; `again`: also those whom that would interrupt in cleaning up."""
        try:
            self._going_on.pop()
        except IndexError:
            if not again:
                return
        self._context.cancel(cause)
        for goroutine in list(self._members):
            goroutine.cancel()
        self._queue.clear()

    def _fill(self, places: Semaphore) -> None:
        """Starts goroutines of the queue while there are places."""
        while self._queue and places.try_acquire():
            try:
                goroutine = self._queue.popleft()
            except IndexError:
                # Another was quicker. But somebody may have come since, and found the place taken.
                places.release()
                continue
            self._placed[goroutine] = True
            if not _start(goroutine):
                self._leave(goroutine, places)

    def _leave(self, goroutine: Goroutine[Any], places: Semaphore) -> None:
        if self._placed.pop(goroutine, False):
            places.release()

    def _ended(self, goroutine: Goroutine[Any]) -> None:
        self._members.pop(goroutine, None)
        failure = _failure(goroutine)
        if failure is not None:
            self._failures.append(goroutine)
            self._stop(failure, again=False)
        if self._places is not None:
            self._leave(goroutine, self._places)
            self._fill(self._places)

    def _begin(self) -> None:
        if self._open is not None:
            raise RuntimeError("a Group is for one `with` block: make another one")
        self._open = True

    def __enter__(self) -> Self:
        _may_block("async with Group()")
        self._begin()
        return self

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, value: BaseException | None, _tb: TracebackType | None
    ) -> None:
        alone = self._note(value, None)
        while self._open:
            try:
                self._count.wait()
                self._close()
            except BaseException as error:
                alone = self._note(error, alone)
        self._raise(value, alone)

    async def __aexit__(
        self, _type: type[BaseException] | None, value: BaseException | None, _tb: TracebackType | None
    ) -> None:
        alone = self._note(value, None)
        while self._open:
            try:
                await self._count.await_()
                self._close()
            except BaseException as error:
                alone = self._note(error, alone)
        self._raise(value, alone)

    def _close(self) -> None:
        """Nobody is left: takes nobody any more, unless somebody was quicker."""
        self._open = False
        # Who was counted before this is seen here; who is counted after it sees that the group is closed.
        self._count.add(0)
        self._open = self._count.count > 0

    def _raise(self, value: BaseException | None, alone: BaseException | None) -> None:
        """Raises what there is to raise, but for the block's own exception, which goes on by itself."""
        self._context.cancel()
        failures, self._failures = self._failures, []
        if alone is not None:
            failures.clear()
            if alone is not value:
                raise alone
        elif failures:
            raise BaseExceptionGroup("errors in a Group", [_read(failure) for failure in failures]) from None

    def _note(self, error: BaseException | None, alone: BaseException | None) -> BaseException | None:
        """Stops the group because of an error of its block, or of its wait; returns what is to go on alone."""
        if error is not None:
            if isinstance(error, Exception):
                self._failures.append(error)
            elif alone is None:
                alone = error
            self._stop(error, again=not isinstance(error, Exception))
        return alone

    def __copy__(self) -> NoReturn:
        raise TypeError("a Group cannot be copied: it is a reference already, pass it on as it is")

    def __deepcopy__(self, _memo: object) -> NoReturn:
        self.__copy__()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Group cannot be pickled: it belongs to this process; pass it to a goroutine instead")


def _read(failure: Goroutine[Any] | Exception) -> BaseException:
    if isinstance(failure, Exception):
        return failure
    error = failure.exception(0)
    assert error is not None
    return error
