"""Software transactional memory: variables that change together, or not at all.

A transaction is an ordinary function, run by `atomically`. What it reads is a consistent snapshot, what it writes is
seen by others all at once when it ends, and if it raises, nothing has happened. When two conflict, one of them runs
again; so a transaction should have no other effect than on its variables, or leave it to `on_commit`.

    account, other = TVar(100), TVar(0)

    @atomic
    def transfer(amount: int) -> None:
        check(account.get() >= amount)          # waits until that much is there
        account.modify(operator.sub, amount)
        other.modify(operator.add, amount)

Transactions compose: one that is called by another is a part of it, `retry` in any of them waits for a change of
whatever was read, and `or_else` tries the next one instead. Goroutines, async goroutines (`await aatomically(fn)`),
plain threads and asyncio tasks may share variables.

The semantics are Haskell's (Harris, Marlow, Peyton Jones, Herlihy: Composable Memory Transactions, 2005).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from goslings import _goslings
from goslings._async import is_async
from goslings._goslings import TVar as TVar
from goslings._goslings import atomically as atomically
from goslings._goslings import on_commit as on_commit
from goslings._goslings import or_else as or_else

__all__ = [
    "Stats",
    "TMap",
    "TQueue",
    "TVar",
    "aatomically",
    "atomic",
    "atomically",
    "check",
    "on_commit",
    "or_else",
    "retry",
    "stats",
]


def retry() -> NoReturn:
    """Ends this attempt of the transaction; it runs again when something that it has read has changed.

    Until then it waits, without using the processor. Never returns. RuntimeError outside a transaction.
    Haskell: `retry`.
    """
    _goslings._retry()


def check(condition: object) -> None:
    """`retry()` unless `condition` is true: waits for something to become true. Haskell: `check`."""
    if not condition:
        _goslings._retry()


def atomic[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """A decorator: each call of the function is a transaction, as by `atomically`; inside another one, a part of it.

    TypeError for an async function: a transaction may run more than once, and waits in `retry` only.
    """
    if is_async(function):
        raise TypeError("atomic needs an ordinary function: a transaction waits in retry() only, await aatomically(fn)")

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return atomically(function, *args, **kwargs)

    return run


async def aatomically[**P, R](function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """As `atomically`, awaited: in async goroutines and in asyncio tasks.

    `function` is an ordinary function. While it waits in `retry`, others go on. RuntimeError inside a transaction.
    """
    while True:
        committed, outcome = _goslings._attempt(function, args, kwargs)
        if committed:
            return cast(R, outcome)
        await outcome


@dataclass(frozen=True)
class Stats:
    """Counters of the transactions of this process; see `stats`."""

    commits: int
    """Transactions that have committed."""
    conflicts: int
    """Attempts that were lost to others, and run again."""
    retries: int
    """Attempts that ended in `retry`, and waited."""
    turns: int
    """Transactions that had lost so often that nobody else could commit until they had."""


def stats() -> Stats:
    """Reads the counters. They are not of one instant. Never blocks."""
    return Stats(*_goslings._stm_stats())


class _Missing:
    """What a cell holds that has no value."""

    def __repr__(self) -> str:
        return "missing"


_MISSING = _Missing()


class TMap[K: Hashable, V](MutableMapping[K, V]):
    """A mapping whose items change in transactions: conflicts are per key.

    Two transactions conflict if they touch the same key and one of them changes it; or if one looks at the keys as a
    whole (`len`, iteration, `==`) and another adds or removes one. Outside a transaction each call is one of its own.
    A key that was looked at keeps a cell of its own, also after it was removed, until `compact` is called.
    Haskell: `stm-containers`' `Map`.
    """

    def __init__(self, items: Any = (), /) -> None:
        """`items`: a mapping or an iterable of pairs, as for `dict`."""
        self._cells: dict[K, TVar[V | _Missing]] = {key: TVar(value) for key, value in dict(items).items()}
        # Set to something new whenever a key comes or goes. Nobody who does so reads it: so they do not conflict.
        self._keys: TVar[object] = TVar(None)

    def _cell(self, key: K) -> TVar[V | _Missing]:
        cell = self._cells.get(key)
        if cell is None:
            # Not a change that anybody sees: the key is missing before and after.
            cell = self._cells.setdefault(key, TVar(_MISSING))
        return cell

    def __getitem__(self, key: K) -> V:
        """The value. KeyError if there is none; a transaction that has seen that conflicts with one that adds it."""
        value = self._cell(key).get()
        if isinstance(value, _Missing):
            raise KeyError(key)
        return value

    def __setitem__(self, key: K, value: V) -> None:
        """Sets the value."""
        atomically(self._set, key, value)

    def _set(self, key: K, value: V) -> None:
        cell = self._cell(key)
        if isinstance(cell.get(), _Missing):
            self._keys.set(object())
        cell.set(value)

    def __delitem__(self, key: K) -> None:
        """Removes the key. KeyError if it is not there."""
        atomically(self._delete, key)

    def _delete(self, key: K) -> None:
        cell = self._cell(key)
        if isinstance(cell.get(), _Missing):
            raise KeyError(key)
        self._keys.set(object())
        cell.set(_MISSING)

    def _items(self) -> dict[K, V]:
        self._keys.get()
        found = {}
        for key, cell in list(self._cells.items()):
            value = cell.get()
            if not isinstance(value, _Missing):
                found[key] = value
        return found

    def __iter__(self) -> Iterator[K]:
        """Iterates over the keys as they are at this moment."""
        return iter(atomically(self._items))

    def __len__(self) -> int:
        """How many keys there are; looks at all of them."""
        return len(atomically(self._items))

    def __contains__(self, key: object) -> bool:
        """Whether the key is there."""
        return not isinstance(self._cell(cast(K, key)).get(), _Missing)

    def snapshot(self) -> dict[K, V]:
        """All items, of one instant."""
        return atomically(self._items)

    def compact(self) -> int:
        """Forgets the cells of keys that are not there; how many. To be called while nobody else uses the map."""
        gone = [key for key, cell in list(self._cells.items()) if isinstance(cell.get(), _Missing)]
        for key in gone:
            del self._cells[key]
        return len(gone)

    def __repr__(self) -> str:
        return f"TMap({self.snapshot()!r})"


class TQueue[T]:
    """A first-in, first-out queue whose ends change in transactions; unbounded, or of `maxsize` items.

    `put` and `get` conflict only when the queue is empty, or full: each has an end of its own. Outside a transaction
    each call is one of its own. Haskell: `TQueue`, `TBQueue`.
    """

    def __init__(self, maxsize: int = 0) -> None:
        """`maxsize`: how many items it holds at most; 0: any number."""
        if maxsize < 0:
            raise ValueError(f"maxsize must not be negative: {maxsize}")
        self.maxsize = maxsize
        # Pairs (item, rest), newest first; and oldest first, of which `get` takes.
        self._back: TVar[Any] = TVar(None)
        self._front: TVar[Any] = TVar(None)
        # How many may still come in, as far as `put` knows; and how many have gone out since it looked.
        self._room: TVar[int] = TVar(maxsize)
        self._freed: TVar[int] = TVar(0)

    def put(self, item: T) -> None:
        """Adds an item at the back. While the queue is full, retries: waits, in `atomically`."""
        atomically(self._put, item)

    def _put(self, item: T) -> None:
        if self.maxsize:
            room = self._room.get()
            if not room:
                room = self._freed.get()
                check(room)
                self._freed.set(0)
            self._room.set(room - 1)
        self._back.set((item, self._back.get()))

    def get(self) -> T:
        """Takes the item at the front. While the queue is empty, retries: waits, in `atomically`."""
        return atomically(self._get)

    def _get(self) -> T:
        front = self._front.get()
        if front is None:
            front = self._turn_round()
            check(front is not None)
        item, rest = front
        self._front.set(rest)
        if self.maxsize:
            self._freed.set(self._freed.get() + 1)
        return cast(T, item)

    def _turn_round(self) -> Any:
        back: Any = self._back.get()
        front: Any = None
        while back is not None:
            item, back = back
            front = (item, front)
        if front is not None:
            self._back.set(None)
        return front

    def _or[R](self, function: Callable[[], R], default: R) -> R:
        return or_else(function, lambda: default)

    def try_put(self, item: T) -> bool:
        """Adds an item unless the queue is full; whether it did. Never waits."""

        def put() -> bool:
            self._put(item)
            return True

        return atomically(self._or, put, False)

    def try_get(self, default: Any = None) -> Any:
        """Takes the item at the front, or `default` if there is none. Never waits."""
        return atomically(self._or, self._get, default)

    def peek(self) -> T:
        """The item at the front, which stays there. While the queue is empty, retries."""
        return atomically(self._peek)

    def _peek(self) -> T:
        front = self._front.get()
        if front is None:
            front = self._turn_round()
            check(front is not None)
            self._front.set(front)
        return cast(T, front[0])

    def _all(self) -> list[T]:
        items, back = [], []
        pair = self._front.get()
        while pair is not None:
            items.append(pair[0])
            pair = pair[1]
        pair = self._back.get()
        while pair is not None:
            back.append(pair[0])
            pair = pair[1]
        return items + back[::-1]

    def __len__(self) -> int:
        """How many items there are; looks at all of them."""
        return len(atomically(self._all))

    def empty(self) -> bool:
        """Whether there is no item."""
        return atomically(lambda: self._front.get() is None and self._back.get() is None)

    def __repr__(self) -> str:
        return f"TQueue({atomically(self._all)!r})"
