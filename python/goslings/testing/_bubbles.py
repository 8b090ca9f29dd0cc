"""What virtual time and exploration share: who is who in a bubble, the end of one, and the clock of `time`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import goslings
from goslings import _threads
from goslings._goslings import _Bubble, _bubble

EPOCH = 946_684_800
"""When the clock of a bubble starts: 2000-01-01 00:00 UTC, in seconds of `time.time()`."""

FOLDER = str(Path(__file__).resolve().parent.parent)
"""Where goslings lies: code in it is never the place where something happened."""

_ROUNDS = 20
"""So often a goroutine that is left over is asked to end."""


def names(bubble: _Bubble) -> dict[int, str]:
    """What the goroutines of `bubble` are called, by number: the first is "main"."""
    found = {0: "main"}
    for number, goroutine, function in bubble.goroutines():
        given = goroutine.name
        if not re.fullmatch(r"goroutine-\d+", given):
            found[number] = given
        elif number:
            found[number] = f"g{number} {function}" if function else f"g{number}"
    return found


def blocked(bubble: _Bubble) -> str:
    """Those that have not ended, a line for each: what it waits for, and where."""
    who = names(bubble)
    lines = []
    for number, state, label, file, line in bubble.members():
        where = f" at {file}:{line}, in {label}" if file else ""
        lines.append(f"  {who.get(number, f'g{number}')}: {state}{where}")
    return "\n".join(lines)


def clear_away(bubble: _Bubble) -> int:
    """Cancels what is left of `bubble`, so that `finally` blocks run; returns how many would not end."""
    for _ in range(_ROUNDS):
        bubble.end()
        if not bubble.live:
            break
        for _number, goroutine, _name in bubble.goroutines():
            if not goroutine.done():
                goroutine.cancel("the run is over")
        bubble.settle(1.0)
    bubble.unread()  # what happened on the way out is nobody's business
    left = bubble.live
    bubble.close()
    return left


def seconds() -> float:
    """The time in the bubble that this code runs in, since its beginning; 0.0 outside."""
    bubble = _bubble()
    return 0.0 if bubble is None else bubble.now / 1e9


class _Patch:
    """Lets the functions of `time` show the time of a bubble to those who run in one, while any is open."""

    def __init__(self) -> None:
        self._lock = _threads.lock()
        self._users = 0
        self._real: dict[str, Callable[..., object]] = {}

    def _functions(self) -> dict[str, Callable[..., object]]:
        def clock(name: str, start: int, unit: int) -> Callable[[], object]:
            real = self._real[name]

            def show() -> object:
                bubble = _bubble()
                if bubble is None:
                    return real()
                since = start * 1_000_000_000 + bubble.now
                return since if unit == 1 else since / unit

            show.__name__ = show.__qualname__ = name
            return show

        real_sleep = self._real["sleep"]

        def sleep(seconds: float, /) -> object:
            if _bubble() is None:
                return real_sleep(seconds)
            if seconds < 0:
                raise ValueError("sleep length must be non-negative")
            goslings.sleep(seconds)
            return None

        functions: dict[str, Callable[..., object]] = {"sleep": sleep}
        for name, start in ("time", EPOCH), ("monotonic", 0), ("perf_counter", 0):
            functions[name] = clock(name, start, 1_000_000_000)
            functions[f"{name}_ns"] = clock(f"{name}_ns", start, 1)
        return functions

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                named = ("time", "monotonic", "perf_counter")
                self._real = {name: getattr(time, name) for name in (*named, *(f"{n}_ns" for n in named), "sleep")}
                vars(time).update(self._functions())

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                vars(time).update(self._real)


_patch = _Patch()


@contextmanager
def patched_time() -> Iterator[None]:
    """`time.time`, `monotonic`, `perf_counter`, their `_ns` twins and `sleep` go by the clock of a bubble inside it."""
    _patch.enter()
    try:
        yield
    finally:
        _patch.leave()
