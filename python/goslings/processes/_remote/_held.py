"""Holding a lock for a few moves, where a cancellation must not get in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from goslings._errors import Cancelled
from goslings._goslings import Mutex, current

__all__ = ["held"]


@contextmanager
def held(lock: Mutex) -> Iterator[None]:
    """Locks, also in a coroutine. No cancel point: a request that comes meanwhile is made anew.

    For locks that nobody holds while waiting, and in functions that are `whole` (`_signals.py`).
    """
    late = False
    while not lock.try_lock():
        try:
            lock._lock_here()
            break
        except Cancelled:
            late = True
    try:
        yield
    finally:
        lock.unlock()
        goroutine = current() if late else None
        if goroutine is not None:
            goroutine.cancel()
