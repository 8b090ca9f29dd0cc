"""What each side of a connection refers to of the other: objects of ours that were lent, and proxies of theirs.

Invariants:

* An object that the other side refers to is in `_lent`, with the number of references that were sent and not yet given
  back by DROP. So an object that is sent while its last proxy dies is not lost.
* A reference that came is counted before what names it is unpickled (`arrived`). It is given back when there is no
  proxy for it: after that one has died, or after unpickling, which may have failed before it made one (`settle`).
  What is never unpickled is refused instead.
* That a proxy is gone is told by the callback of a weak reference, not by a finalizer: while a finalizer runs, weak
  references still find the object, and who gets it so has one that will not be finalized again.
* `_lock` is held for moves of dictionaries alone.
"""

from __future__ import annotations

import functools
import pickle
import sys
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from goslings._goslings import Mutex, go
from goslings.processes._remote._held import held
from goslings.processes._remote._shared import Exposed
from goslings.processes._signals import whole

__all__ = ["References"]


class _Lent:
    """An object of ours that the other side refers to."""

    __slots__ = ("count", "exposed")

    def __init__(self, exposed: Exposed, count: int) -> None:
        self.exposed, self.count = exposed, count


class References:
    """Those of one connection. `tell_drop(number, count)` gives references back to the other side; it never blocks."""

    def __init__(self, root: Exposed | None, tell_drop: Callable[[int, int], None]) -> None:
        self._tell_drop = tell_drop
        self._lock = Mutex()
        self._lent: dict[int, _Lent] = {}
        self._lent_by_key: dict[Any, int] = {}
        self._next_lent = 1
        self._borrowed: dict[int, weakref.ref[Any]] = {}
        self._borrow_count: dict[int, int] = {}
        if root is not None:
            self._lent[0] = _Lent(root, 1)
            self._lent_by_key[root.key] = 0

    # Ours

    @whole
    def lend(self, exposed: Exposed) -> int:
        """Counts one more reference that the other side gets to an object of ours; returns its number."""
        with held(self._lock):
            number = self._lent_by_key.get(exposed.key)
            entry = None if number is None else self._lent.get(number)
            if number is not None and entry is not None and entry.exposed.allowed == exposed.allowed:
                entry.count += 1
                return number
            number, self._next_lent = self._next_lent, self._next_lent + 1
            self._lent[number] = _Lent(exposed, 1)
            self._lent_by_key[exposed.key] = number
            return number

    @whole
    def lend_again(self, lent: tuple[tuple[int, Exposed], ...]) -> None:
        """Counts one more reference for objects that were lent under these numbers before."""
        with held(self._lock):
            for number, exposed in lent:
                entry = self._lent.get(number)
                if entry is None:
                    entry = self._lent[number] = _Lent(exposed, 0)
                    self._lent_by_key.setdefault(exposed.key, number)
                entry.count += 1

    def exposed(self, lent: Iterable[int]) -> tuple[tuple[int, Exposed], ...]:
        """What is lent under these numbers, to be lent again."""
        return tuple((number, self._lent[number].exposed) for number in lent)

    def entry(self, number: int) -> Exposed | None:
        """What the other side may use under a number."""
        entry = self._lent.get(number)
        return None if entry is None else entry.exposed

    def own(self, number: int) -> Any:
        """The object of ours that a message names. Raises UnpicklingError."""
        entry = self._lent.get(number)
        if entry is None:
            raise pickle.UnpicklingError("a reference to an object that is not there any more")
        return entry.exposed.obj

    def take_back(self, lent: Iterable[int]) -> None:
        """References that were counted and not sent."""
        for number in lent:
            self.drop(number, 1)

    @whole
    def drop(self, number: int, references: int) -> None:
        """The other side gives up so many references."""
        with held(self._lock):
            entry = self._lent.get(number)
            if entry is None or number == 0:
                return
            entry.count -= references
            if entry.count > 0:
                return
            del self._lent[number]
            if self._lent_by_key.get(entry.exposed.key) == number:
                del self._lent_by_key[entry.exposed.key]
        del entry  # outside of the lock: it may be the last reference

    # Theirs

    @whole
    def arrived(self, lent: Iterable[int]) -> None:
        """A message that names these is about to be unpickled."""
        with held(self._lock):
            for number in lent:
                self._borrow_count[number] = self._borrow_count.get(number, 0) + 1

    @whole
    def borrow(self, number: int, make: Callable[[], Any]) -> Any:
        """The proxy of an object of the other side that has arrived."""
        with held(self._lock):
            known = self._borrowed.get(number)
            proxy = None if known is None else known()
            if proxy is None:
                proxy = make()
                gone = functools.partial(_gone, weakref.ref(self), number)
                self._borrowed[number] = weakref.ref(proxy, gone)
            return proxy

    def settle(self, lent: Iterable[int]) -> None:
        """It was unpickled, or could not be: what has no proxy is given back."""
        for number in lent:
            self._give_back(number)

    def refuse(self, lent: Iterable[int]) -> None:
        """Gives back what a message names that nobody will unpickle."""
        for number in lent:
            self._tell_drop(number, 1)

    @whole
    def _give_back(self, number: int) -> None:
        with held(self._lock):
            known = self._borrowed.get(number)
            if known is not None and known() is not None:
                return
            self._borrowed.pop(number, None)
            references = self._borrow_count.pop(number, 0)
        if references:
            self._tell_drop(number, references)

    def clear(self) -> None:
        """The connection is over. Takes no lock: it may be a finalizer that ends it, in the middle of anything."""
        self._lent, self._lent_by_key = {}, {}
        self._borrowed, self._borrow_count = {}, {}


def _gone(
    ref: weakref.ref[References],
    number: int,
    _proxy: object,
    _is_finalizing: Callable[[], bool] = sys.is_finalizing,
) -> None:
    """A proxy is gone. Called anywhere."""
    references = None if _is_finalizing() else ref()
    if references is not None:
        go(references._give_back, number)
