"""Contexts: the standard library's start methods, and what goes between the processes from here.

A process is started, and its arguments are pickled, by the standard library (`fork`, `spawn`, `forkserver`). What is
ours is that `join` parks a goroutine, and everything that the context makes: queues, pipes, locks, pools, managers.

The start method is one for both: to set it here sets it for `multiprocessing` as well, since a child learns it from
there.
"""

from __future__ import annotations

import multiprocessing as _std
import os
import time
from multiprocessing import context as _context
from multiprocessing import process as _process
from multiprocessing.context import AuthenticationError as AuthenticationError
from multiprocessing.context import BufferTooShort as BufferTooShort
from multiprocessing.context import ProcessError as ProcessError
from multiprocessing.context import TimeoutError as TimeoutError
from multiprocessing.context import assert_spawning as assert_spawning
from multiprocessing.context import get_spawning_popen as get_spawning_popen
from multiprocessing.context import reduction as reduction  # type: ignore[attr-defined]  # no stub
from multiprocessing.context import set_spawning_popen as set_spawning_popen
from typing import Any

from goslings._goslings import _can_park, wait_fd

__all__ = [
    "BaseContext",
    "DefaultContext",
    "ForkContext",
    "ForkProcess",
    "ForkServerContext",
    "ForkServerProcess",
    "Process",
    "SpawnContext",
    "SpawnProcess",
]


class _Joins(_process.BaseProcess):
    """A process that a goroutine can wait for."""

    def join(self, timeout: float | None = None) -> None:
        """As `multiprocessing.Process.join`. Parks the goroutine."""
        end = None if timeout is None else time.monotonic() + max(0.0, timeout)
        if _can_park() and self._wait_for_end(timeout):
            # It has ended; who else may wait for it is told by `waitpid`.
            timeout = None
        elif end is not None:
            timeout = max(0.0, end - time.monotonic())
        super().join(timeout)

    def _wait_for_end(self, timeout: float | None) -> bool:
        """Waits for the end of a child of ours that runs; returns whether it came."""
        popen: Any = getattr(self, "_popen", None)
        if popen is None or popen.returncode is not None:
            return False
        if self._parent_pid != os.getpid():  # type: ignore[attr-defined]  # private: no stub
            return False
        if popen.method == "forkserver":
            return wait_fd(popen.sentinel, False, timeout)
        try:
            fd = os.pidfd_open(popen.pid)
        except OSError:
            return True  # somebody has seen its end already
        try:
            return wait_fd(fd, False, timeout)
        finally:
            os.close(fd)


class Process(_Joins):
    """As `multiprocessing.Process`, by the default start method."""

    _start_method = None

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        return default_context.get_context().Process._Popen(process_obj)

    @staticmethod
    def _after_fork() -> Any:
        return default_context.get_context().Process._after_fork()


class ForkProcess(_Joins, _context.ForkProcess):
    """As `multiprocessing.context.ForkProcess`."""


class SpawnProcess(_Joins, _context.SpawnProcess):
    """As `multiprocessing.context.SpawnProcess`."""


class ForkServerProcess(_Joins, _context.ForkServerProcess):
    """As `multiprocessing.context.ForkServerProcess`."""


class BaseContext(_context.BaseContext):
    """What every context makes."""

    def get_context(self, method: str | None = None) -> Any:
        """The context of a start method; None: this one."""
        if method is None:
            return self
        found = _contexts.get(method)
        if found is None:
            # What somebody has added to the library's table, as loky does, is as it was made.
            added: dict[str, Any] = _context._concrete_contexts  # type: ignore[attr-defined]  # private: no stub
            found = added.get(method)
        if found is None:
            raise ValueError(f"cannot find context for {method!r}")
        found._check_available()
        return found

    def Manager(self) -> Any:
        """A process with objects that others use by proxies."""
        from goslings.compat.multiprocessing.managers import SyncManager

        manager = SyncManager(ctx=self.get_context())
        manager.start()
        return manager

    def Pipe(self, duplex: bool = True) -> Any:
        """Two connections."""
        from goslings.compat.multiprocessing.connection import Pipe

        return Pipe(duplex)

    def Queue(self, maxsize: int = 0) -> Any:
        """A queue between processes."""
        from goslings.compat.multiprocessing.queues import Queue

        return Queue(maxsize, ctx=self.get_context())

    def JoinableQueue(self, maxsize: int = 0) -> Any:
        """A queue whose items are accounted for."""
        from goslings.compat.multiprocessing.queues import JoinableQueue

        return JoinableQueue(maxsize, ctx=self.get_context())

    def SimpleQueue(self) -> Any:
        """A queue that blocks when the system has no room."""
        from goslings.compat.multiprocessing.queues import SimpleQueue

        return SimpleQueue(ctx=self.get_context())

    def Lock(self) -> Any:
        """A lock between processes."""
        from goslings.compat.multiprocessing.synchronize import Lock

        return Lock(ctx=self.get_context())

    def RLock(self) -> Any:
        """A lock that its owner may take again."""
        from goslings.compat.multiprocessing.synchronize import RLock

        return RLock(ctx=self.get_context())

    def Semaphore(self, value: int = 1) -> Any:
        """A semaphore."""
        from goslings.compat.multiprocessing.synchronize import Semaphore

        return Semaphore(value, ctx=self.get_context())

    def BoundedSemaphore(self, value: int = 1) -> Any:
        """A semaphore that knows how many there may be."""
        from goslings.compat.multiprocessing.synchronize import BoundedSemaphore

        return BoundedSemaphore(value, ctx=self.get_context())

    def Pool(
        self,
        processes: int | None = None,
        initializer: Any = None,
        initargs: Any = (),
        maxtasksperchild: int | None = None,
    ) -> Any:
        """A pool of processes."""
        from goslings.compat.multiprocessing.pool import Pool

        return Pool(processes, initializer, initargs, maxtasksperchild, context=self.get_context())


class ForkContext(BaseContext, _context.ForkContext):
    """The start method "fork"."""

    Process = ForkProcess


class SpawnContext(BaseContext, _context.SpawnContext):
    """The start method "spawn"."""

    Process = SpawnProcess


class ForkServerContext(BaseContext, _context.ForkServerContext):
    """The start method "forkserver"."""

    Process = ForkServerProcess


_contexts: dict[str, Any] = {
    "fork": ForkContext(),
    "spawn": SpawnContext(),
    "forkserver": ForkServerContext(),
}


class DefaultContext(BaseContext):
    """The context whose start method can be set: what the package's own functions belong to."""

    Process = Process

    def get_context(self, method: str | None = None) -> Any:
        """The context of a start method; None: of the one that is set, or the system's usual one."""
        return super().get_context(_std.get_start_method() if method is None else method)

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """As `multiprocessing.set_start_method`, which it sets, too."""
        _std.set_start_method(method, force)

    def get_start_method(self, allow_none: bool = False) -> Any:
        """As `multiprocessing.get_start_method`."""
        return _std.get_start_method(allow_none)

    def get_all_start_methods(self) -> list[str]:
        """As `multiprocessing.get_all_start_methods`."""
        return _std.get_all_start_methods()


default_context = DefaultContext()
_default_context = default_context


def __getattr__(name: str) -> Any:
    return getattr(_context, name)
