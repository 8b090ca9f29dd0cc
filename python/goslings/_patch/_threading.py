"""threading and _thread: locks park, threads that goroutines start are goroutines, and each goroutine is somebody.

What is written in Python in `threading` (Thread, Condition, Event, Semaphore, Barrier, Timer …) stays as it is and
follows, objects that exist included: only what it is made of is exchanged, which are names of the module that it looks
up at each call. Thread-local data is exchanged below Python, by the runtime, so that every `threading.local` follows.
"""

from __future__ import annotations

import _thread
import contextvars
import errno
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from goslings._blocking import offload
from goslings._goslings import Goroutine, _can_park, _can_preempt, _own_locals, _unraisable, current, get_ident, go
from goslings._goslings import RLock as RLock
from goslings._goslings import lock as Lock
from goslings._patch import _locks
from goslings._patch._change import Change, Unit, call, method, swap
from goslings._threads import HANDLE, are_everywhere

__all__ = ["unit"]

_private: Any = threading
_private_c: Any = _thread
"""Both with the names that type checkers do not know."""

_start_joinable = _thread.start_joinable_thread
_start_new = _thread.start_new_thread
_shutdown = _private_c._shutdown
_count = _thread._count
_make_handle = _private_c._make_thread_handle
_excepthook = threading.excepthook
_set_name = getattr(_thread, "set_name", None)
_real_ident = _thread.get_ident
_RealHandle = _thread._ThreadHandle

_living: set[ThreadHandle] = set()
"""Those of goroutines that run as threads."""


def _as_goroutine() -> bool:
    return _can_park() or are_everywhere()


def thread_of(ident: int) -> int:
    """The number that the system knows the thread by on which `get_ident` says `ident`.

    Raises ProcessLookupError for a goroutine of which that is not known.
    """
    if ident % 2 == 0:
        return ident
    if ident == get_ident():
        return _real_ident()
    for handle in list(_living):
        if handle.ident == ident and handle.worker:
            return handle.worker
    raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


def ident_of(goroutine: Goroutine[Any]) -> int:
    """What `get_ident` says in it."""
    return 2 * goroutine.id + 1


class ThreadHandle:
    """As `_thread._ThreadHandle`: what a Thread waits for, be it a goroutine or a thread of the system."""

    __slots__ = ("__weakref__", "_begun", "_ended", "_ident", "_is_done", "_real", "daemon", "worker")

    def __init__(self) -> None:
        self._begun = Lock()  # locked by who starts it
        self._ended = Lock()  # locked until its end
        self._ident = 0
        self._is_done = False
        self._real: Any = None
        self.daemon = True
        self.worker = 0
        """The thread of the system that the goroutine runs on, by its own number; 0: not known."""

    @property
    def ident(self) -> int:
        """What `get_ident` says there; 0: not started."""
        return self._ident if self._real is None else self._real.ident

    def start(self, function: Callable[[], object], daemon: bool) -> None:
        """Starts it, once."""
        if not self._begun.acquire(False):
            raise RuntimeError("thread already started")
        self.daemon = daemon
        if not _as_goroutine():
            self._real = _RealHandle()
            _start_joinable(function, handle=self._real, daemon=daemon)
            return
        self._ended.acquire()
        _living.add(self)
        try:
            goroutine = go(self._run, function)
        except BaseException:
            self._end()
            raise
        thread = getattr(function, "__self__", None)
        if isinstance(thread, threading.Thread):
            goroutine.name = thread.name
        goroutine.add_done_callback(self._end)

    def _run(self, function: Callable[[], object]) -> None:
        self._ident = get_ident()
        self.worker = _real_ident()
        _run(function)

    def _end(self, _goroutine: Goroutine[Any] | None = None) -> None:
        self._is_done = True
        _living.discard(self)
        self._ended.release()

    def adopt(self, real: Any) -> ThreadHandle:
        """Is that of a thread of the system that runs already."""
        self._begun.acquire(False)
        self._real = real
        return self

    def adopt_goroutine(self, ident: int) -> ThreadHandle:
        """Is that of a goroutine that runs already, and that nobody waits for."""
        self._begun.acquire(False)
        self._ended.acquire(False)
        self._ident = ident
        return self

    def join(self, timeout: float | None = None, /) -> None:
        """Waits for its end."""
        if self._real is not None:
            if _can_park() and not self._real.is_done():
                offload(self._real.join, timeout)
            else:
                self._real.join(timeout)
            return
        if not self._begun.locked():
            raise RuntimeError("thread not started")
        if self._is_done:
            return
        if self._ident == get_ident():
            raise RuntimeError("Cannot join current thread")
        if sys.is_finalizing():
            raise PythonFinalizationError("cannot join thread at interpreter shutdown")
        if self._ended.acquire(True, -1 if timeout is None else max(0.0, timeout)):
            self._ended.release()

    def is_done(self) -> bool:
        """Whether it has come to its end."""
        return self._is_done if self._real is None else self._real.is_done()

    def _set_done(self) -> None:
        """Nobody waits for it any more."""
        if self._real is not None:
            self._real._set_done()
        elif not self._begun.locked():
            raise RuntimeError("thread not started")
        elif not self._is_done:
            self._end()

    def forget(self) -> None:
        """In a forked child: it does not run here."""
        self._is_done = True
        self._ended._at_fork_reinit()

    def __repr__(self) -> str:
        return f"<_thread._ThreadHandle object: ident={self.ident}>"


def _run(function: Callable[..., object], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> None:
    """What a goroutine does that is a thread: no context variables of who started it, and exceptions as in threads."""
    try:
        contextvars.Context().run(function, *args, **(kwargs or {}))
    except SystemExit:
        pass
    except Exception as error:
        _unraisable(error, function)


def start_joinable_thread(function: Callable[[], object], handle: Any = None, daemon: bool = True) -> Any:
    """As `_thread.start_joinable_thread`."""
    if not callable(function):
        raise TypeError("thread function must be callable")
    if isinstance(handle, _RealHandle):
        return _start_joinable(function, handle=handle, daemon=daemon)
    if handle is None:
        handle = ThreadHandle()
    elif not isinstance(handle, ThreadHandle):
        raise TypeError("'handle' must be a _ThreadHandle")
    handle.start(function, bool(daemon))
    return handle


def start_new_thread(function: Callable[..., object], args: Any, kwargs: Any = None, /) -> int:
    """As `_thread.start_new_thread`."""
    if not _as_goroutine():
        return _start_new(function, args) if kwargs is None else _start_new(function, args, kwargs)
    if not callable(function):
        raise TypeError("first arg must be callable")
    if not isinstance(args, tuple):
        raise TypeError("2nd arg must be a tuple")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise TypeError("optional 3rd arg must be a dictionary")
    sys.audit("_thread.start_new_thread", function, args, kwargs)
    handle = ThreadHandle()
    handle._ended.acquire()
    _living.add(handle)
    goroutine = go(_run, function, args, kwargs)
    goroutine.add_done_callback(handle._end)
    return ident_of(goroutine)


def make_thread_handle(ident: int) -> Any:
    """As `_thread._make_thread_handle`: for whoever runs here."""
    if current() is None:
        return ThreadHandle().adopt(_make_handle(ident))
    return ThreadHandle().adopt_goroutine(ident)


def excepthook(args: Any, /) -> None:
    """As `threading.excepthook`; without a Thread it tells the goroutine's number, not that of its worker's thread."""
    if args.thread is not None or args.exc_type is SystemExit or sys.stderr is None:
        _excepthook(args)
        return
    text = "".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback))
    sys.stderr.write(f"Exception in thread {get_ident()}:\n{text}")
    sys.stderr.flush()


def count() -> int:
    """As `_thread._count`."""
    return _count() + len(_living)


def shutdown() -> None:
    """As `_thread._shutdown`: waits for all threads that are not daemons, whatever they are."""
    while True:
        _shutdown()
        waiting = [handle for handle in list(_living) if not handle.daemon]
        if not waiting:
            return
        for handle in waiting:
            handle.join()


def set_name(name: str) -> None:
    """As `_thread.set_name`; a goroutine has the name already."""
    if current() is None and _set_name is not None:
        _set_name(name)


def dummy_init(self: Any) -> None:
    """The Thread object of a goroutine that is no Thread: named after it, and the threads it starts are no daemons."""
    _dummy_init(self)
    goroutine = current()
    if goroutine is not None:
        self._name = goroutine.name
        self._daemonic = False


_dummy_init = threading._DummyThread.__init__


_main_ident = _private_c._get_main_thread_ident
_pid = os.getpid()
"""Of this process, once its modules know that it was forked."""


def main_thread_ident() -> int:
    """As `_thread._get_main_thread_ident`. While a forked child is being set up, a goroutine still has its own."""
    ident: int = _main_ident()
    return ident if os.getpid() == _pid else get_ident()


def _after_fork_in_child() -> None:
    """The child has one thread. If a goroutine has forked, it is the main thread now, and is called so."""
    global _pid
    _pid = os.getpid()
    for handle in list(_living):
        handle.forget()
    _living.clear()
    main = threading.main_thread()
    ident = get_ident()
    if main.ident != ident:
        _private._active.pop(main.ident, None)
        _private._active[ident] = main
        # Not public, and so unknown to the types: what `threading` itself does in a forked child.
        main._ident = ident  # type: ignore[attr-defined]
        setattr(main, HANDLE, ThreadHandle().adopt(_make_handle(ident)))


def _finish() -> list[str]:
    """Makes what exists follow."""
    _own_locals()
    os.register_at_fork(after_in_child=_after_fork_in_child)
    with _private._active_limbo_lock:
        for thread in _private._active.values():
            real = getattr(thread, HANDLE)
            if isinstance(real, _RealHandle):
                setattr(thread, HANDLE, ThreadHandle().adopt(real))
    _locks.exchange_in_threading()
    return _locks.exchange_all()


def unit() -> Unit:
    get_ident.__module__ = "_thread"
    _can_preempt()  # so that it has learnt of the real locks
    changes: list[Change] = []
    for name, new in {
        "allocate_lock": Lock,
        "allocate": Lock,
        "lock": Lock,
        "LockType": Lock,
        "RLock": RLock,
        "get_ident": get_ident,
        "start_new_thread": start_new_thread,
        "start_new": start_new_thread,
        "start_joinable_thread": start_joinable_thread,
        "_ThreadHandle": ThreadHandle,
        "_make_thread_handle": make_thread_handle,
        "_count": count,
        "_shutdown": shutdown,
    }.items():
        if hasattr(_thread, name):
            changes.append(swap(_thread, name, new))
    for name, new in {
        "Lock": Lock,
        "_allocate_lock": Lock,
        "_LockType": Lock,
        "_CRLock": RLock,
        "get_ident": get_ident,
        "_start_joinable_thread": start_joinable_thread,
        "_ThreadHandle": ThreadHandle,
        "_make_thread_handle": make_thread_handle,
        "_thread_shutdown": shutdown,
        "_get_main_thread_ident": main_thread_ident,
        "_set_name": set_name,
    }.items():
        if getattr(threading, name, None) is not None:
            changes.append(swap(threading, name, new))
    hook = call(threading, "excepthook", excepthook)
    changes += [hook, swap(threading, "__excepthook__", hook.new)]
    changes.append(method(threading._DummyThread, "__init__", dummy_init))
    return Unit(
        "threading",
        changes,
        follows=[
            f"threading.{name}"
            for name in (
                *("RLock", "Event", "Condition", "Semaphore", "BoundedSemaphore", "Barrier", "Timer", "Thread"),
                *("local", "current_thread", "enumerate", "active_count"),
            )
        ],
        cannot={
            "threading.stack_size": "goroutines have stacks of their own size: GOSLINGS_STACK_KB",
            "multiprocessing": "its locks and queues are those of processes: they block the thread",
        },
        finish=_finish,
    )
