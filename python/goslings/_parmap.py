"""parmap: `map`, with a goroutine for each call.

Invariants:
* `permits` has `limit` permits. An item holds one from before it is pulled until its result is taken, so never more
  than `limit` are pulled ahead, and what goes into `ready` always finds room.
* The goroutine that pulls refers to the `_Flow` only, never to the `ParMap` that the user has: when that goes away, all
  is cancelled.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn, Self, SupportsIndex

from goslings._errors import Cancelled, Closed, GoExit
from goslings._goslings import Goroutine, RecvChan, Semaphore, WaitGroup, _may_block, chan, go, gomaxprocs

__all__ = ["ParMap", "parmap"]


def parmap[S, T](
    fn: Callable[[S], T],
    iterable: Iterable[S],
    *,
    limit: SupportsIndex | None = None,
    ordered: bool = True,
    progress: bool = False,
) -> ParMap[T]:
    """An iterator over `fn(item)` for the items of `iterable`, at most `limit` of which are worked on at a time.

    Results come in the order of the items, or with `ordered=False` as they are ready. `limit` is `gomaxprocs()` unless
    given. Nothing happens before the first result is asked for; from then on a goroutine pulls items, at most `limit`
    more than results were taken, so the iterable may be infinite, and may block. What it raises is raised after the
    results of the items before. The first failure of a call is raised at its place (or when it is known, if not
    ordered) and cancels the rest; so does closing the iterator, or dropping it.

    `progress=True` draws a bar with tqdm, which is to be installed: else ImportError. Raises ValueError for a limit
    below 1.
    """
    if not callable(fn):
        raise TypeError(f"parmap needs a callable, not {type(fn).__name__}")
    limit = gomaxprocs() if limit is None else operator.index(limit)
    if limit < 1:
        raise ValueError(f"parmap's limit must be at least 1, not {limit}")
    items = iter(iterable)
    bar = _bar(_length(iterable)) if progress else None
    return ParMap(_Flow(fn, items, limit, bool(ordered)), bar)


class _Flow[S, T]:
    """The items on their way. Outlives the ParMap until all is cancelled."""

    __slots__ = ("_fn", "_items", "_left", "_ordered", "_puller", "_taken", "errors", "permits", "ready", "stopped")

    def __init__(self, fn: Callable[[S], T], items: Iterator[S], limit: int, ordered: bool) -> None:
        self._fn, self._ordered = fn, ordered
        self._items: list[Iterator[S]] = [items]  # taken by whoever starts the pulling
        self._puller: Goroutine[None] | None = None
        self._left = WaitGroup()
        self._taken: dict[Goroutine[T], None] = {}
        self.permits = Semaphore(limit)
        self.ready: chan[Goroutine[T]] = chan(limit)
        self.errors: list[BaseException] = []
        self.stopped = False

    def start(self) -> None:
        """Starts the pulling, the first time."""
        try:
            items = self._items.pop()
        except IndexError:
            return
        self._puller = go(self._pull, items)
        if self.stopped:
            self._puller.cancel()

    def _pull(self, items: Iterator[S]) -> None:
        try:
            while not self.stopped:
                self.permits.acquire()
                try:
                    item = next(items)
                except StopIteration:
                    break
                self._call(item)
                del item
        except GoExit:
            pass  # of the iterable: there is no more
        except BaseException as error:
            # A cancellation was meant for this goroutine alone.
            self.errors.append(CancelledError(*error.args) if isinstance(error, Cancelled) else error)
        try:
            self._left.wait()
        finally:
            with suppress(Closed):
                self.ready.close()

    def _call(self, item: S) -> None:
        goroutine = go(self._fn, item)
        self._taken[goroutine] = None
        if self.stopped:
            self._drop(goroutine)
        if self._ordered:
            self.ready.try_send(goroutine)
        else:
            self._left.add()
            goroutine.add_done_callback(self._ended)

    def _ended(self, goroutine: Goroutine[T]) -> None:
        try:
            with suppress(Closed):
                self.ready.try_send(goroutine)
        finally:
            self._left.done()

    def take(self, goroutine: Goroutine[T]) -> None:
        """The result is in its user's hands: another item may be pulled."""
        self._taken.pop(goroutine, None)
        self.permits.release()

    def stop(self) -> None:
        """Cancels everything."""
        self.stopped = True
        self._items.clear()
        if self._puller is not None:
            self._puller.cancel()
        with suppress(Closed):
            self.ready.close()
        for goroutine in list(self._taken):
            self._drop(goroutine)

    def _drop(self, goroutine: Goroutine[T]) -> None:
        goroutine.cancel()
        # Its failure, if it is one, comes after the one that was raised.
        goroutine.add_done_callback(_read)


class ParMap[T]:
    """The iterator that `parmap` returns. As a context manager it is closed at the end of the block."""

    __slots__ = ("__weakref__", "_bar", "_flow", "_waited_for")

    def __init__(self, flow: _Flow[Any, T], bar: Any) -> None:
        self._flow, self._bar = flow, bar
        self._waited_for: list[Goroutine[T]] = []  # when the wait was interrupted

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        """The next result. Blocks until there is one."""
        _may_block("async for result in parmap(...)")
        goroutine = self._begin()
        if goroutine is None:
            goroutine, _ = self._flow.ready.recv_ok()
        if goroutine is None or self._flow.stopped:
            self._end(StopIteration)
        try:
            goroutine.join()
        except BaseException:
            self._waited_for.append(goroutine)
            raise
        return self._take(goroutine, StopIteration)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """As `next`, awaited."""
        goroutine = self._begin()
        if goroutine is None:
            goroutine, _ = await self._flow.ready.arecv_ok()
        if goroutine is None or self._flow.stopped:
            self._end(StopAsyncIteration)
        try:
            await goroutine.ajoin()
        except BaseException:
            self._waited_for.append(goroutine)
            raise
        return self._take(goroutine, StopAsyncIteration)

    def _begin(self) -> Goroutine[T] | None:
        """Starts the pulling; returns the goroutine that is next, if it is known."""
        self._flow.start()
        try:
            return self._waited_for.pop()
        except IndexError:
            return None

    def _take(self, goroutine: Goroutine[T], stop: type[Exception]) -> T:
        """The result of a goroutine that has ended."""
        flow = self._flow
        flow.take(goroutine)
        try:
            value = goroutine.result(0)
        except BaseException as error:
            if flow.stopped:
                raise stop from None
            self.close()
            if isinstance(error, StopIteration | StopAsyncIteration):
                raise RuntimeError(f"the function called by parmap raised {type(error).__name__}") from error
            raise
        if self._bar is not None:
            self._bar.update()
        return value

    def _end(self, stop: type[Exception]) -> NoReturn:
        """There is no result any more."""
        self._close_bar()
        if self._flow.stopped:
            raise stop
        try:
            failure = self._flow.errors.pop()
        except IndexError:
            raise stop from None
        try:
            raise failure
        finally:
            del failure  # else its traceback refers to this frame, and this frame to it

    def close(self) -> None:
        """Cancels what has not been taken, and pulls no more; there are no further results. Never blocks."""
        self._flow.stop()
        self._close_bar()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __copy__(self) -> NoReturn:
        raise TypeError("a ParMap cannot be copied: its results are taken once")

    def __deepcopy__(self, _memo: object) -> NoReturn:
        self.__copy__()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a ParMap cannot be pickled: it belongs to this process")


def _read(goroutine: Goroutine[Any]) -> None:
    if not goroutine.cancelled():
        goroutine.exception(0)


def _length(iterable: Iterable[object]) -> int | None:
    if isinstance(iterable, chan | RecvChan):
        return None  # its length is what is buffered now
    try:
        return len(iterable)  # type: ignore[arg-type]  # whoever has no length is caught below
    except TypeError:
        return None


def _bar(total: int | None) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("parmap(progress=True) draws with tqdm, which is missing: pip install tqdm") from error
    return tqdm(total=total)
