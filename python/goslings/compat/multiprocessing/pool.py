"""Pools of processes: the standard library's, on queues that need no locks, and with results that park who waits.

The code that hands out tasks is the standard library's. Its results are made of locks of threads; ours are `Event` and
`Cond` of goslings, so that any number of goroutines can wait for results of one pool, and no worker is held meanwhile.
"""

from __future__ import annotations

import types
from multiprocessing import pool as _std
from multiprocessing.pool import MaybeEncodingError as MaybeEncodingError  # type: ignore[attr-defined]  # no stub
from multiprocessing.pool import ThreadPool as ThreadPool
from typing import Any

from goslings._goslings import Cond, Mutex, _outside_event

__all__ = ["Pool", "ThreadPool"]


class _Waits:
    """A result whose `wait` parks."""

    _event: Any

    def _park(self) -> None:
        before, self._event = self._event, _outside_event()
        if before.is_set():
            self._event.set()


class ApplyResult(_Waits, _std.ApplyResult):  # type: ignore[type-arg]  # generic in the stub only
    """What `Pool.apply_async` returns."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._park()


class MapResult(_Waits, _std.MapResult):  # type: ignore[type-arg]  # generic in the stub only
    """What `Pool.map_async` returns."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._park()


class IMapIterator(_std.IMapIterator):  # type: ignore[type-arg]  # generic in the stub only
    """What `Pool.imap` returns."""

    def __init__(self, pool: Any) -> None:
        super().__init__(pool)
        self._cond: Any = Cond(Mutex())


class IMapUnorderedIterator(IMapIterator, _std.IMapUnorderedIterator):  # type: ignore[type-arg]  # generic in the stub only
    """What `Pool.imap_unordered` returns."""


_RESULTS = {
    "ApplyResult": ApplyResult,
    "MapResult": MapResult,
    "IMapIterator": IMapIterator,
    "IMapUnorderedIterator": IMapUnorderedIterator,
}


def _with_our_results(function: Any) -> Any:
    """The same function of the standard library, making results of ours."""
    names = {**vars(_std), **_RESULTS}
    made = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__doc__ = function.__doc__
    return made


class Pool(_std.Pool):
    """As `multiprocessing.pool.Pool`."""

    apply_async = _with_our_results(_std.Pool.apply_async)
    _map_async = _with_our_results(_std.Pool._map_async)  # type: ignore[attr-defined]  # private: no stub
    imap = _with_our_results(_std.Pool.imap)
    imap_unordered = _with_our_results(_std.Pool.imap_unordered)

    def __init__(
        self,
        processes: int | None = None,
        initializer: Any = None,
        initargs: Any = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        if context is None:
            from goslings.compat.multiprocessing.context import default_context

            context = default_context.get_context()
        super().__init__(processes, initializer, initargs, maxtasksperchild, context)


def __getattr__(name: str) -> Any:
    return getattr(_std, name)
