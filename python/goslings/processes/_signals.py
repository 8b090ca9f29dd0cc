"""What a signal must not cut in two: a handler runs on the main thread, between any two instructions, and may raise.

Goroutines are never on that thread, so what must be whole is done by one.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from goslings._errors import Cancelled
from goslings._goslings import _recv_outside, chan, current, go

__all__ = ["Told", "again", "is_interruptible", "shielded", "whole"]


def is_interruptible() -> bool:
    """Whether a handler may raise here, KeyboardInterrupt for example."""
    return current() is None and threading.get_ident() == threading.main_thread().ident


_NOTHING: Any = object()


class Told:
    """Something that somebody else tells, once, by calling this.

    It stays here, and `came` tells of it: a signal that comes as it is received cannot take it along.
    """

    __slots__ = ("came", "said")

    def __init__(self) -> None:
        self.came: chan[None] = chan(1)
        self.said = _NOTHING

    def __call__(self, said: Any) -> None:
        self.said = said
        self.came.try_send(None)


def shielded(told: Told) -> Any:
    """Waits, whatever is raised meanwhile; a cancellation comes again at the next wait, anything else then."""
    late: BaseException | None = None
    while told.said is _NOTHING:
        try:
            _recv_outside(told.came)
        except BaseException as error:
            late = error
    if late is not None:
        try:
            again(late)
        finally:
            del late  # its traceback refers to this frame
    return told.said


def again(error: BaseException) -> None:
    """An exception that came while something had to be finished: a cancellation is asked for again, others raised."""
    goroutine = current()
    try:
        if isinstance(error, Cancelled) and goroutine is not None:
            goroutine.cancel(*error.args)
        else:
            raise error
    finally:
        del error  # its traceback refers to this frame


def whole[**P, T](fn: Callable[P, T]) -> Callable[P, T]:
    """`fn`, which never blocks; where a signal could stop it in the middle, a goroutine carries it out.

    `with lock` is no help: since 3.14 a handler may raise between the call that locks and the block.
    """

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if not is_interruptible():
            return fn(*args, **kwargs)
        ended: list[tuple[Any, BaseException | None]] = []
        came = chan[None](1)

        def run() -> None:
            try:
                ended.append((fn(*args, **kwargs), None))
            except BaseException as error:
                ended.append((None, error))
            came.try_send(None)

        go(run)
        late: BaseException | None = None
        while not ended:
            try:
                _recv_outside(came)
            except BaseException as error:
                late = error
        result: T
        result, failure = ended.pop()
        try:
            if late is not None:
                raise late
            if failure is not None:
                raise failure
        finally:
            del late, failure  # their tracebacks refer to this frame
        return result

    return call
