"""virtual_time: a bubble whose clock jumps when all in it are blocked. Go: `testing/synctest`."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, overload

import goslings
from goslings._errors import Deadlock
from goslings._goslings import _Bubble, _bubble
from goslings._runtime import setting
from goslings.testing._bubbles import EPOCH, FOLDER, blocked, clear_away, patched_time

__all__ = ["Clock", "now", "sleep", "virtual_time", "wait"]

_START = datetime.fromtimestamp(EPOCH, UTC)


class Clock:
    """The clock of a bubble, and what is done by it."""

    __slots__ = ("_bubble",)

    def __init__(self, bubble: _Bubble) -> None:
        self._bubble = bubble

    def now(self) -> datetime:
        """The time, in UTC: it starts at 2000-01-01 00:00, and is exact to the microsecond."""
        return _START + timedelta(microseconds=self._bubble.now // 1000)

    def monotonic(self) -> float:
        """Seconds since the bubble began: what `time.monotonic()` says in it."""
        return self._bubble.now / 1e9

    def wait(self) -> None:
        """As `goslings.testing.wait`."""
        self._check()
        wait()

    def sleep(self, seconds: float, /) -> None:
        """As `goslings.testing.sleep`."""
        self._check()
        sleep(seconds)

    def _check(self) -> None:
        if _here().id != self._bubble.id:
            raise RuntimeError("a clock of another bubble")


def _here() -> _Bubble:
    bubble = _bubble()
    if bubble is None:
        raise RuntimeError("not in a bubble: use this in a function that runs in virtual time")
    return bubble


def now() -> datetime:
    """The time of the bubble that this runs in, as `Clock.now`. Raises RuntimeError outside one."""
    return Clock(_here()).now()


def wait() -> None:
    """Waits until all other goroutines of the bubble are blocked for good: until nothing more happens without time.

    Raises RuntimeError outside a bubble, and while another goroutine is in it. Go: `synctest.Wait`.
    """
    if not _here().wait():
        raise RuntimeError("wait already in progress: another goroutine of the bubble is in it")


def sleep(seconds: float, /) -> None:
    """Sleeps, and then waits as `wait`: so that what others do at the same time is done. Go: `synctest.Sleep`."""
    _here()
    goslings.sleep(seconds)
    wait()


class _VirtualTime:
    """What `virtual_time()` returns: a decorator, and a runner of functions."""

    def __init__(self, seed: int | None, patch_time: bool) -> None:
        self._seed = seed
        self._patch_time = patch_time

    def __call__[**P, T](self, fn: Callable[P, T], /) -> Callable[P, T]:
        @functools.wraps(fn)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            return self.run(fn, *args, **kwargs)

        return run

    def run[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Returns `fn(*args, **kwargs)`, called as the first goroutine of a new bubble."""
        __tracebackhide__ = True
        return run_in(new_bubble(self._seed), functools.partial(fn, *args, **kwargs), patch_time=self._patch_time)


def new_bubble(seed: int | None) -> _Bubble:
    """A bubble of virtual time."""
    if seed is None:
        seed = setting("GOSLINGS_SEED", 0, 2**64 - 1)
    if seed is None:
        seed = random.SystemRandom().getrandbits(64)
    return _Bubble(
        explores=False, order="fifo", depth=0, span=0, seed=seed, early=False, steps=2**64 - 1, folder=FOLDER
    )


def run_in[T](bubble: _Bubble, fn: Callable[[], T], *, patch_time: bool) -> T:
    """Runs `fn` as the first goroutine of `bubble`, to the end of all; clears the bubble away."""
    __tracebackhide__ = True
    if _bubble() is not None:
        bubble.close()
        raise RuntimeError("virtual time inside a bubble: bubbles cannot be nested")
    with ExitStack() as stack:
        stack.callback(_end, bubble)
        if patch_time:
            stack.enter_context(patched_time())
        root = bubble.go(fn)
        bubble.settle()
        match bubble.status:
            case "deadlock":
                text = "deadlock: all goroutines in bubble are blocked"
                raise Deadlock(f"{text}\n{blocked(bubble)}")
            case "left" if root.exception(0) is None:
                text = "deadlock: main bubble goroutine has exited but blocked goroutines remain"
                raise Deadlock(f"{text}\n{blocked(bubble)}")
        return root.result(0)


def _end(bubble: _Bubble) -> None:
    if bubble.live:
        clear_away(bubble)
    else:
        bubble.close()


@overload
def virtual_time[**P, T](fn: Callable[P, T], /) -> Callable[P, T]: ...
@overload
def virtual_time(*, seed: int | None = None, patch_time: bool = True) -> _VirtualTime: ...
def virtual_time(fn: Callable[..., Any] | None = None, /, *, seed: int | None = None, patch_time: bool = True) -> Any:
    """Makes a function run in virtual time: as the first goroutine of a bubble with a clock of its own.

    `@virtual_time` or `@virtual_time(seed=…)` on a function; `virtual_time().run(fn, *args)` runs one at once. To the
    bubble belong the goroutines that are started in it, directly or not. Its clock starts at 2000-01-01 00:00 UTC and
    stands while any of them can run; when all are blocked for good, it jumps to the next timer: `sleep`, `after`,
    `Timer`, `Ticker`, timeouts. What is due at the same time happens in random order, from `seed` (None: another one
    each time, or GOSLINGS_SEED).

    Blocked for good is who sleeps, or waits on a channel, WaitGroup, Cond, Event, Semaphore, Barrier or goroutine of
    the bubble; not who waits for a Mutex or RWMutex, for `blocking`, or for anything from outside. One goroutine runs
    at a time. The call returns when all have ended. It raises what the function raised, and Deadlock if all are
    blocked and there is no timer, or if some are left when the function has returned: then the clock stands. Channels,
    timers, WaitGroups and Conds made in the bubble raise RuntimeError when used outside.

    `time.time`, `monotonic`, `perf_counter`, their `_ns` twins and `time.sleep` go by that clock in the bubble, unless
    `patch_time` is False; not under names that they were imported by before, and not `datetime`. Raises RuntimeError
    inside a bubble. Go: `synctest.Test`.
    """
    virtual = _VirtualTime(seed, patch_time)
    return virtual if fn is None else virtual(fn)
