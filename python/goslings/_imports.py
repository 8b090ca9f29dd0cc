"""Makes the import system see goroutines.

importlib's per-module locks belong to OS threads. Two goroutines of one worker are one thread to them: the second
would be let into a module that the first is still executing (and has parked in), and a goroutine that waits for such a
lock would hold the worker that has to release it. So importlib is given a `_thread` whose idents tell goroutines apart
and whose locks park them.

A goroutine without a stack cannot park in the middle of an import. If the module that it wants is being imported by a
goroutine that waits on the same worker, that one could never go on: so this is an ImportError that says so.
"""

from __future__ import annotations

import _thread
import importlib._bootstrap as bootstrap
import types
from time import sleep

from goslings._goslings import Mutex, _can_park, current

__all__ = ["install"]


class _Lock:
    """The part of `_thread.lock` that importlib uses."""

    __slots__ = ("_mutex",)

    def __init__(self) -> None:
        self._mutex = Mutex()

    def acquire(self, blocking: bool = True) -> bool:
        if not blocking:
            return self._mutex.try_lock()
        self._mutex._lock_here()
        return True

    def release(self) -> None:
        self._mutex.unlock()


def _ident() -> int:
    """Tells goroutines and threads apart: threads have even idents (addresses), goroutines odd ones here."""
    goroutine = current()
    return _thread.get_ident() if goroutine is None else 2 * goroutine.id + 1


# The published types of importlib do not know this class.
class _ModuleLock(bootstrap._ModuleLock):  # type: ignore[name-defined,misc]
    """The lock of a module that is being imported; it knows the thread of whoever holds it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.thread = 0

    def acquire(self) -> bool:
        goroutine = current()
        if goroutine is not None and not _can_park():
            self._let_others(_ident())
        taken: bool = super().acquire()
        self.thread = _thread.get_ident()
        return taken

    def _let_others(self, me: int) -> None:
        while True:
            with self.lock:
                held = bool(self.count) and self.owner != me
                stuck = held and self.thread == _thread.get_ident()
            if not held:
                return
            if stuck:
                raise ImportError(
                    f"{self.name} is being imported by a goroutine that waits on the same worker, and an async "
                    "goroutine cannot wait for it in the middle of an import: import it at the top of your program",
                    name=self.name,
                )
            sleep(0.001)


def install() -> None:
    """Replaces `_thread` inside importlib. Locks that exist keep working: they are held by plain threads."""
    ours = types.ModuleType("_thread", "The _thread that importlib uses: see goslings._imports.")
    ours.__dict__.update(vars(_thread))
    ours.__dict__.update(allocate_lock=_Lock, get_ident=_ident)
    vars(bootstrap)["_thread"] = ours
    vars(bootstrap)["_ModuleLock"] = _ModuleLock
