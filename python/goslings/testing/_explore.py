"""explore: runs a function under one schedule after the other, and tells the first that fails. replay repeats it."""

from __future__ import annotations

import gc
import io
import random
import re
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import goslings
from goslings import Map, _threads
from goslings._errors import Deadlock
from goslings._goslings import Goroutine, _Bubble, _bubble, _step
from goslings._runtime import setting
from goslings.testing._bubbles import FOLDER, blocked, clear_away, names, patched_time
from goslings.testing._preempt import Preempt, preempting
from goslings.testing._trace import ScheduleFailure, TraceStep, read

__all__ = ["Exploration", "explore", "replay"]

Strategy = Literal["pct", "random"]
Timers = Literal["idle", "any"]

_DEPTH = 3
"""The strategy "pct" looks for bugs that need so many events in a certain order."""
_STEPS = 20_000
"""A run of more steps is taken for one that never ends."""
_STALL_SECONDS = 20.0
"""A run that takes no step for so long hangs in something that is not ours."""
_COLLECT = 200
"""After so many schedules garbage is collected; never during one, since finalizers would come at any time."""


@dataclass(frozen=True)
class Exploration:
    """What `explore` found out about a function that did not fail."""

    schedules: int
    """How many schedules were tried."""
    seed: int
    """The seed they came from."""
    steps: int
    """How many steps the longest had."""
    seconds: float
    """How long all took."""


@dataclass(frozen=True)
class _Schedule:
    """Everything that decides what happens in a run; its text is the seed that users see."""

    order: str
    span: int
    preempt: Preempt
    timers: Timers
    number: int

    def __str__(self) -> str:
        span = f"{_DEPTH}.{self.span}" if self.order == "pct" else ""
        return f"{self.order}{span}-{self.preempt or 'operations'}-{self.timers}-{self.number:x}"

    @staticmethod
    def parse(text: str) -> _Schedule:
        found = re.fullmatch(
            rf"(fifo|random|pct{_DEPTH}\.(\d+))-(operations|lines|instructions)-(idle|any)-([0-9a-f]+)", text
        )
        if found is None:
            raise ValueError(f"not a seed that a ScheduleFailure has shown: {text!r}")
        order, span, preempt, timers, number = found.groups()
        return _Schedule(
            order="pct" if span else order,
            span=int(span or 0),
            preempt=cast(Preempt, None if preempt == "operations" else preempt),
            timers=cast(Timers, timers),
            number=int(number, 16),
        )

    def bubble(self, steps: int) -> _Bubble:
        return _Bubble(
            explores=True,
            order=self.order,
            depth=_DEPTH,
            span=self.span,
            seed=self.number,
            early=self.timers == "any",
            steps=steps,
            folder=FOLDER,
        )


@dataclass
class _Outcome:
    """How one run went."""

    steps: int
    reason: str = ""
    """Why it failed; empty if it did not."""
    cause: BaseException | None = None
    trace: list[TraceStep] | None = None
    note: str = ""


def explore(
    fn: Callable[[], object],
    schedules: int = 1000,
    seed: int | None = None,
    strategy: Strategy = "pct",
    *,
    preempt: Preempt = None,
    timers: Timers = "idle",
    leaks: bool = False,
    steps: int = _STEPS,
) -> Exploration:
    """Calls `fn()` under up to `schedules` schedules, each afresh, and raises ScheduleFailure for the first that fails.

    In a run one goroutine goes on at a time. Who it is, is chosen at every wait, every wake and before every operation
    on an object of goslings; with `preempt="lines"` also before every line of the program's own code, with
    `preempt="instructions"` before every instruction of it that touches what others may see. Time is virtual: a sleep
    takes none, and the clock moves when all are blocked; with `timers="any"` timers may also fire early, as if whoever
    could run were slow.

    A schedule fails if `fn` or a goroutine raises and nobody reads that, if all are blocked for ever, if it takes more
    than `steps` steps, and, with `leaks`, if goroutines are left when `fn` has returned. All choices come from `seed`
    (an int; None: GOSLINGS_SEED, or another one each time). `strategy` is "pct" (random priorities, few changes: finds
    bugs that need few events in a rare order) or "random" (anybody, at every step).

    Blocks for as long as it takes. `fn` must do the same each time, apart from the schedule: threads and `blocking` are
    errors in it. What it uses must be made in it. Raises RuntimeError inside another run.
    """
    __tracebackhide__ = True
    if not callable(fn):
        raise TypeError(f"explore needs a callable, not {type(fn).__name__}")
    if strategy not in ("pct", "random"):
        raise ValueError(f"strategy must be 'pct' or 'random', not {strategy!r}")
    if timers not in ("idle", "any"):
        raise ValueError(f"timers must be 'idle' or 'any', not {timers!r}")
    if seed is None:
        seed = setting("GOSLINGS_SEED", 0, 2**64 - 1)
    if seed is None:
        seed = random.SystemRandom().randrange(2**32)
    source = random.Random(seed)
    started = time.monotonic()
    longest = 0
    # In the order of starting, first: it warms up what happens once only, and tells how long a run is.
    schedule = _Schedule("fifo", 0, preempt, timers, seed & (2**64 - 1))
    with _undisturbed(), preempting(preempt):
        for number in range(1, schedules + 1):
            outcome = _run(fn, schedule, leaks=leaks, steps=steps)
            if outcome.reason:
                _fail(outcome, schedule, number)
            longest = max(longest, outcome.steps)
            span = 1 << max(longest - 1, 1).bit_length()
            schedule = _Schedule(strategy, span if strategy == "pct" else 0, preempt, timers, source.getrandbits(64))
            if number % _COLLECT == 0:
                gc.collect()
    return Exploration(schedules, seed, longest, time.monotonic() - started)


def replay(fn: Callable[[], object], seed: str, *, leaks: bool = False, steps: int = _STEPS) -> None:
    """Calls `fn()` under the schedule that a ScheduleFailure has shown; raises the same failure, if it still fails.

    `leaks` and `steps` must be what they were. Blocks as `explore`. Raises ValueError for what is no such seed.
    """
    __tracebackhide__ = True
    schedule = _Schedule.parse(seed)
    with _undisturbed(), preempting(schedule.preempt):
        outcome = _run(fn, schedule, leaks=leaks, steps=steps)
    if outcome.reason:
        _fail(outcome, schedule, 1)


def _fail(outcome: _Outcome, schedule: _Schedule, number: int) -> None:
    __tracebackhide__ = True
    failure = ScheduleFailure(outcome.reason, str(schedule), number, outcome.trace or [], outcome.note)
    try:
        raise failure from outcome.cause
    finally:
        del failure, outcome  # else the traceback refers to this frame, and this frame to the traceback


def _run(fn: Callable[[], object], schedule: _Schedule, *, leaks: bool, steps: int) -> _Outcome:
    """One run."""
    state = random.getstate()
    random.seed(schedule.number)  # for programs that throw dice
    bubble = schedule.bubble(steps)
    try:
        root = bubble.go(fn)
        _settle(bubble)
        return _judge(bubble, root, leaks)
    finally:
        random.setstate(state)
        if bubble.live or bubble.status != "ended":
            clear_away(bubble)
        else:
            bubble.close()


def _settle(bubble: _Bubble) -> None:
    """Waits until nothing more happens in `bubble`."""
    before, since = -1, time.monotonic()
    while not bubble.settle(1.0):
        if bubble.steps != before:
            before, since = bubble.steps, time.monotonic()
        elif time.monotonic() - since > _STALL_SECONDS:
            dump = io.StringIO()
            goslings.dump(dump)
            raise RuntimeError(
                f"the schedule has not taken a step for {_STALL_SECONDS:g} s: a goroutine computes without end, or "
                f"waits for something that is not of goslings (a threading.Lock that another one holds?)\n"
                f"{dump.getvalue()}"
            )


def _judge(bubble: _Bubble, root: Goroutine[Any], leaks: bool) -> _Outcome:
    """Whether the run that has settled failed, and how."""
    status, outcome = bubble.status, _Outcome(bubble.steps)
    unread = bubble.unread()
    if unread:
        number, outcome.cause = unread[0]
        if number == 0 and type(outcome.cause).__name__ in ("Skipped", "Exit"):
            raise outcome.cause  # pytest's: not for us to judge
        text = str(outcome.cause).partition("\n")[0]
        outcome.reason = f"{type(outcome.cause).__name__} in {names(bubble).get(number, number)}: {text}".rstrip(": ")
        if len(unread) > 1:
            others = ", ".join(f"{type(error).__name__} in {names(bubble).get(n, n)}" for n, error in unread[1:])
            outcome.note = f"besides: {others}"
    elif status == "too long":
        outcome.reason = f"no end after {bubble.steps} steps: a livelock?"
        outcome.note = blocked(bubble)
    elif status == "deadlock":
        outcome.reason = "all goroutines are blocked for ever"
        outcome.cause = Deadlock(f"deadlock: all goroutines in bubble are blocked\n{blocked(bubble)}")
    elif leaks and status == "left":
        outcome.reason = f"{bubble.live} left behind when the function had returned"
        outcome.cause = AssertionError(f"goroutines left behind:\n{blocked(bubble)}")
    elif root.cancelled():
        outcome.reason = "the function was cancelled"
    if outcome.reason:
        outcome.trace = read(bubble.trace(), names(bubble))
    return outcome


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Nothing comes from elsewhere in here: no collection of garbage, no thread, no true time."""
    if _bubble() is not None:
        raise RuntimeError("explore inside a bubble: runs cannot be nested")
    with ExitStack() as stack:
        stack.enter_context(patched_time())
        stack.enter_context(_patched(threading.Thread, "start", _no_thread))
        for method in "load", "__contains__", "__len__":
            stack.enter_context(_patched(Map, method, _stepping))
        if gc.isenabled():
            gc.disable()
            stack.callback(gc.enable)
        yield


_patches = _threads.lock()
_users: dict[tuple[type, str], tuple[int, Any]] = {}


@contextmanager
def _patched(owner: type, name: str, change: Callable[[Any], Any]) -> Iterator[None]:
    """`owner.name` is what `change` makes of it, as long as anybody is in here."""
    key = owner, name
    with _patches:
        users, real = _users.get(key, (0, getattr(owner, name)))
        _users[key] = users + 1, real
        if users == 0:
            setattr(owner, name, change(real))
    try:
        yield
    finally:
        with _patches:
            users, real = _users[key]
            _users[key] = users - 1, real
            if users == 1:
                setattr(owner, name, real)
                del _users[key]


def _no_thread(real: Any) -> Any:
    def start(self: threading.Thread) -> None:
        bubble = _bubble()
        if bubble is not None and bubble.explores:
            raise RuntimeError("a thread in an explored function: its steps cannot be chosen; use a goroutine")
        real(self)

    return start


def _stepping(real: types.FunctionType) -> Any:
    def method(self: Map[Any, Any], *args: Any) -> Any:
        _step("Map.load")
        return real(self, *args)

    return method
