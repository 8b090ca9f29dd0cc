"""blocking: runs a call that would hold a worker on a thread of its own, and parks the caller meanwhile."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from goslings import _threads
from goslings._goslings import Semaphore, _bubble, _can_park, _may_block, _outside_event, _recv_idle, chan, current
from goslings._runtime import setting

__all__ = ["blocking", "offload"]

_IDLE_SECONDS = 10.0
"""A thread without a call ends after so long."""

_THREADS_MAX = setting("GOSLINGS_BLOCKING", 1, 1_000_000) or 512
"""So many calls at once; more wait for a thread."""


class _Call:
    """One call on its way."""

    __slots__ = ("_args", "_context", "_fn", "_kwargs", "done", "failure", "value")

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._context = contextvars.copy_context()
        self._fn, self._args, self._kwargs = fn, args, kwargs
        self.done = _outside_event()
        self.value: Any = None
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self.value = self._context.run(self._fn, *self._args, **self._kwargs)
        except BaseException as error:
            self.failure = error
        finally:
            self.done.set()
            del self  # else the failure's traceback refers to this frame, and this frame to the failure


class _Pool:
    """Threads that take calls from a rendezvous channel, and end when there are none for a while.

    Who brings a call holds a permit, which its thread releases after the call; so with a permit there is a thread
    that waits for a call, or one may be started.
    """

    def __init__(self) -> None:
        self._calls: chan[_Call] = chan()
        self._permits = Semaphore(_THREADS_MAX)

    def submit(self, call: _Call) -> None:
        self._permits.acquire()
        try:
            if not self._calls.try_send(call):
                _threads.start(self._serve, [call], name="goslings-blocking")
        except BaseException:
            self._permits.release()
            raise

    def _serve(self, first: list[_Call]) -> None:
        call: _Call | None = first.pop()  # a thread holds on to its arguments
        while call is not None:
            call.run()
            call = None
            self._permits.release()
            # In a process forked by the call there is another pool.
            if self is _pool:
                with suppress(TimeoutError):
                    call = _recv_idle(self._calls, _IDLE_SECONDS)


_pool = _Pool()


def _forget_threads() -> None:
    global _pool
    _pool = _Pool()


os.register_at_fork(after_in_child=_forget_threads)


def blocking[**P, T](fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Returns `fn(*args, **kwargs)`, called on a pool of OS threads while the calling goroutine is parked.

    For foreign calls that would hold a worker: a C library, `time.sleep`, a synchronous driver. The call sees the
    caller's context variables. On a plain thread it is simply called. At most GOSLINGS_BLOCKING calls (512) run at
    once. Cancelling the goroutine does not stop the call; its result is dropped.
    """
    if current() is None:
        return fn(*args, **kwargs)
    _may_block("go(blocking, fn, ...)")
    return _elsewhere(fn, args, kwargs)


def offload[**P, T](fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """As `blocking`, for patched functions: where that is refused, in coroutines, `fn` is simply called."""
    if not _can_park():
        return fn(*args, **kwargs)
    try:
        _may_block("go(blocking, fn, ...)")
    except RuntimeError:
        return fn(*args, **kwargs)
    return _elsewhere(fn, args, kwargs)


def _elsewhere[T](fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    bubble = _bubble()
    if bubble is not None and bubble.explores:
        raise RuntimeError("blocking in an explored function: what it does on its thread cannot be chosen")
    call = _Call(fn, args, kwargs)
    _pool.submit(call)
    call.done.wait()
    if call.failure is not None:
        try:
            raise call.failure
        finally:
            del call
    value: T = call.value
    return value
