"""Map: a dict whose operations are each one indivisible step. Go: `sync.Map`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn, overload

from goslings._goslings import Mutex

__all__ = ["Map"]


class Map[K, V]:
    """A dict for many goroutines and threads.

    Keys must be hashable. Operations block only for as long as another one takes (and its keys' `__eq__`).
    """

    __slots__ = ("__weakref__", "_dict", "_mutex")

    def __init__(self) -> None:
        self._dict: dict[K, V] = {}
        self._mutex = Mutex()

    @overload
    def load(self, key: K, /) -> V | None: ...
    @overload
    def load[D](self, key: K, default: D, /) -> V | D: ...
    def load(self, key: K, default: object = None, /) -> object:
        """The value of `key`, or `default`."""
        return self._dict.get(key, default)

    def store(self, key: K, value: V, /) -> None:
        """Sets the value of `key`."""
        with self._mutex:
            self._dict[key] = value

    def load_or_store(self, key: K, value: V, /) -> tuple[V, bool]:
        """`(value there, True)` if `key` is there; else stores `value` and returns `(value, False)`."""
        with self._mutex:
            if key in self._dict:
                return self._dict[key], True
            self._dict[key] = value
            return value, False

    def load_and_delete(self, key: K, /) -> tuple[V | None, bool]:
        """Takes `key` out: `(value, True)`, or `(None, False)` if it was not there."""
        with self._mutex:
            if key in self._dict:
                return self._dict.pop(key), True
            return None, False

    def swap(self, key: K, value: V, /) -> tuple[V | None, bool]:
        """Sets the value of `key`: `(value before, True)`, or `(None, False)` if there was none."""
        with self._mutex:
            found = (self._dict[key], True) if key in self._dict else (None, False)
            self._dict[key] = value
            return found

    def compare_and_swap(self, key: K, old: V, new: V, /) -> bool:
        """Sets the value of `key` to `new` if it is there and equals `old`; returns whether it did."""
        with self._mutex:
            if key not in self._dict or not _same(self._dict[key], old):
                return False
            self._dict[key] = new
            return True

    def compare_and_delete(self, key: K, old: V, /) -> bool:
        """Takes `key` out if its value equals `old`; returns whether it did."""
        with self._mutex:
            if key not in self._dict or not _same(self._dict[key], old):
                return False
            del self._dict[key]
            return True

    def delete(self, key: K, /) -> None:
        """Takes `key` out, if it is there."""
        with self._mutex:
            self._dict.pop(key, None)

    def clear(self) -> None:
        """Takes everything out."""
        with self._mutex:
            self._dict.clear()

    def range(self) -> Iterator[tuple[K, V]]:
        """Pairs of key and value; no key twice. No snapshot: what changes meanwhile may show or not.

        The map may be used and changed between two pairs.
        """
        with self._mutex:
            keys = list(self._dict)
        missing: Any = object()
        for key in keys:
            value = self._dict.get(key, missing)
            if value is not missing:
                yield key, value

    def __contains__(self, key: object, /) -> bool:
        return key in self._dict

    def __len__(self) -> int:
        return len(self._dict)

    def __bool__(self) -> bool:
        return True

    def __copy__(self) -> NoReturn:
        raise TypeError("a Map cannot be copied: use dict(m.range())")

    def __deepcopy__(self, _memo: object) -> NoReturn:
        self.__copy__()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Map cannot be pickled: use dict(m.range())")


def _same(a: object, b: object) -> bool:
    return a is b or a == b
