"""Pool: objects kept for reuse until the garbage collector wants the memory. Go: `sync.Pool`."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import NoReturn

__all__ = ["Pool"]


class Pool[T]:
    """Pool(new=None): keeps objects that are expensive to make; `new()` makes one when none is there.

    What is put back may be gone after two full garbage collections. No order is promised.
    """

    __slots__ = ("__weakref__", "_collections", "_items", "_new", "_old")

    def __init__(self, new: Callable[[], T] | None = None) -> None:
        self._new = new
        self._items: list[T] = []
        self._old: list[T] = []
        self._collections = _full_collections()

    def get(self) -> T | None:
        """An object that was put back, else a new one, else None. Blocks only if `new` does."""
        self._age()
        for items in (self._items, self._old):
            try:
                return items.pop()
            except IndexError:
                continue
        return None if self._new is None else self._new()

    def put(self, item: T | None, /) -> None:
        """Gives an object back for reuse; None is ignored. Never blocks."""
        if item is not None:
            self._age()
            self._items.append(item)

    def _age(self) -> None:
        # Asked at each use rather than told by gc.callbacks: a callback of ours would run, and could fail, in the
        # middle of any code whatsoever.
        collections = _full_collections()
        passed = collections - self._collections
        if passed:
            self._collections = collections
            self._items, self._old = [], self._items if passed == 1 else []

    def __copy__(self) -> NoReturn:
        raise TypeError("a Pool cannot be copied: it is a reference already, pass it on as it is")

    def __deepcopy__(self, _memo: object) -> NoReturn:
        self.__copy__()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Pool cannot be pickled: it belongs to this process; pass it to a goroutine instead")


_FULL = 0 if "t" in sys.abiflags else 2
"""From this generation on a collection is a full one: on free-threaded builds each is."""


def _full_collections() -> int:
    return sum(int(generation["collections"]) for generation in gc.get_stats()[_FULL:])
