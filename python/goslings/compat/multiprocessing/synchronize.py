"""Locks and semaphores between processes: the standard library's classes, on a semaphore that parks goroutines.

`SemLock` has the interface of `_multiprocessing.SemLock`, and is an eventfd in semaphore mode: reading takes one,
writing gives one, and whoever has to wait waits for a descriptor, which a goroutine does parked. It has no name, so
nothing is left behind by processes that are killed, and no tracker is needed. What is made of it (`Condition`, `Event`,
`Barrier`) is the standard library's code as it is: it asks its context for locks, and gets these.

The count of a semaphore is asked for in /proc, which only `get_value`, `repr` and bounded semaphores do.
"""

from __future__ import annotations

import os
import select
import time
from multiprocessing import context as _context
from multiprocessing import reduction as _reduction
from multiprocessing import synchronize as _std
from multiprocessing import util as _util
from multiprocessing.synchronize import RECURSIVE_MUTEX as RECURSIVE_MUTEX  # type: ignore[attr-defined]  # no stub
from multiprocessing.synchronize import SEM_VALUE_MAX as SEM_VALUE_MAX  # type: ignore[attr-defined]  # no stub
from multiprocessing.synchronize import SEMAPHORE as SEMAPHORE  # type: ignore[attr-defined]  # no stub
from multiprocessing.synchronize import Barrier as Barrier
from multiprocessing.synchronize import Condition as Condition
from multiprocessing.synchronize import Event as Event
from types import TracebackType
from typing import Any

from goslings._goslings import get_ident
from goslings.compat.multiprocessing._ready import ready

__all__ = ["BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"]


class Counter:
    """A semaphore for goroutines, threads and processes; shaped as `_multiprocessing.SemLock`."""

    __slots__ = ("__weakref__", "_depth", "_owner", "handle", "kind", "maxvalue")
    SEM_VALUE_MAX = SEM_VALUE_MAX
    name = None

    def __init__(self, kind: int, value: int, maxvalue: int, handle: int | None = None) -> None:
        self.handle = -1
        if handle is None:
            if not 0 <= value <= maxvalue <= SEM_VALUE_MAX:
                raise ValueError("invalid value")
            handle = os.eventfd(value, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.handle, self.kind, self.maxvalue = handle, kind, maxvalue
        self._depth = self._owner = 0

    def __del__(self, _close: Any = os.close) -> None:
        if self.handle >= 0:
            try:
                _close(self.handle)
            except OSError:
                pass

    def _take(self) -> bool:
        try:
            os.eventfd_read(self.handle)
        except BlockingIOError:
            return False
        return True

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Takes one; waits for it, at most `timeout` seconds. Parks the goroutine, or blocks the thread."""
        if self.kind == RECURSIVE_MUTEX and self._is_mine():
            self._depth += 1
            return True
        if not self._take() and not (block and self._wait(timeout)):
            return False
        # In this order: who had it before would else find itself the owner of what another one holds.
        self._owner = get_ident()
        self._depth += 1
        return True

    def _wait(self, timeout: float | None) -> bool:
        end = None if timeout is None else time.monotonic() + max(0.0, timeout)
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not ready(self.handle, False, left):
                return False
            if self._take():
                return True

    def release(self) -> None:
        """Gives one back. Raises ValueError if that is more than there may be, AssertionError for another's RLock."""
        if self.kind == RECURSIVE_MUTEX:
            if not self._is_mine():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            if self._depth > 1:
                self._depth -= 1
                return
        elif self.maxvalue == 1 and self._take():
            os.eventfd_write(self.handle, 1)
            raise ValueError("semaphore or lock released too many times")
        elif 1 < self.maxvalue < SEM_VALUE_MAX and self._get_value() >= self.maxvalue:
            raise ValueError("semaphore or lock released too many times")
        # First the count: whoever is let in sets it anew.
        self._depth -= 1
        os.eventfd_write(self.handle, 1)

    def _count(self) -> int:
        return self._depth

    def _is_mine(self) -> bool:
        return self._depth > 0 and self._owner == get_ident()

    def _get_value(self) -> int:
        with open(f"/proc/self/fdinfo/{self.handle}", encoding="ascii") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name == "eventfd-count":
                    return int(value, 16)
        raise NotImplementedError("this system does not tell the count of an eventfd")

    def _is_zero(self) -> bool:
        poll = select.poll()
        poll.register(self.handle, select.POLLIN)
        return not poll.poll(0)

    def _after_fork(self) -> None:
        self._depth = 0

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.release()


class SemLock(_std.SemLock):
    """What the classes below share: the standard library's, on a `Counter`."""

    def __init__(self, kind: int, value: int, maxvalue: int, *, ctx: Any = None) -> None:
        self._semlock: Any = Counter(kind, value, maxvalue)
        self._prepare()

    def _prepare(self) -> None:
        self._is_fork_ctx = False
        self._make_methods()  # type: ignore[attr-defined]  # private: no stub
        _util.register_after_fork(self, lambda lock: lock._semlock._after_fork())

    def __getstate__(self) -> Any:
        _context.assert_spawning(self)
        lock = self._semlock
        return _reduction.DupFd(lock.handle), lock.kind, lock.maxvalue

    def __setstate__(self, state: Any) -> None:
        handle, kind, maxvalue = state
        self._semlock = Counter(kind, 0, maxvalue, handle.detach())
        self._prepare()

    def locked(self) -> bool:
        """Whether somebody has it."""
        zero: bool = self._semlock._is_zero()
        return zero


class Semaphore(SemLock, _std.Semaphore):
    """As `multiprocessing.Semaphore`."""

    def __init__(self, value: int = 1, *, ctx: Any = None) -> None:
        SemLock.__init__(self, SEMAPHORE, value, SEM_VALUE_MAX, ctx=ctx)


class BoundedSemaphore(SemLock, _std.BoundedSemaphore):
    """As `multiprocessing.BoundedSemaphore`."""

    def __init__(self, value: int = 1, *, ctx: Any = None) -> None:
        SemLock.__init__(self, SEMAPHORE, value, value, ctx=ctx)


class Lock(SemLock, _std.Lock):
    """As `multiprocessing.Lock`."""

    def __init__(self, *, ctx: Any = None) -> None:
        SemLock.__init__(self, SEMAPHORE, 1, 1, ctx=ctx)


class RLock(SemLock, _std.RLock):
    """As `multiprocessing.RLock`; a goroutine has it as a thread has."""

    def __init__(self, *, ctx: Any = None) -> None:
        SemLock.__init__(self, RECURSIVE_MUTEX, 1, 1, ctx=ctx)
