"""stacks and dump: what every goroutine does, and where."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from types import CodeType, FrameType
from typing import TextIO

from goslings import _goslings
from goslings._errors import Deadlock

__all__ = ["GoroutineStack", "deadlock", "dump", "may_deadlock", "quit_on_signal", "stacks"]


@dataclass(frozen=True)
class GoroutineStack:
    """A goroutine, or a plain thread that waits on an object of goslings, as `stacks` found it."""

    id: int | None
    """The goroutine's number; None for a thread."""
    name: str
    """Its name."""
    state: str
    """What it does, in Go's words: "running", "runnable", "chan receive", "sync.Mutex.Lock" ...; "not started"."""
    waiting: float | None
    """For how many seconds it has waited, about; None if it does not wait."""
    waiting_for: str
    """What it waits for, where that is known: "chan 0x7f... (0 of 0 buffered)", "Mutex held by goroutine 3"."""
    holders: tuple[int, ...]
    """The numbers of the goroutines that it waits for, where that is known: a lock's holder, a result's maker."""
    created_by: str | None
    """Where it was started: "file:line in function"; None for a thread, or if no Python code started it."""
    creator: int | None
    """The number of the goroutine that started it; None if a thread did."""
    worker: int | None
    """The number of the worker that runs it or ran it last, from 0; None for a thread, and if it has not started."""
    locked_to_thread: bool
    """Whether it has called `lock_os_thread`, and not undone that."""
    frames: traceback.StackSummary
    """Its Python traceback, outermost frame first; empty if it has not started."""

    def __str__(self) -> str:
        """The goroutine as `dump` prints it."""
        return _text([self])


def stacks() -> list[GoroutineStack]:
    """Every goroutine that has not ended, the main thread, and every other thread that waits on an object of goslings.

    Threads first, then by number. It is the picture of one instant, for which all threads are stopped; that takes
    longer the more objects there are. Works from everywhere. Go: `runtime.Stack`.
    """
    goroutines, threads = _goslings._stacks()
    now = _goslings._now()
    known: dict[tuple[CodeType, int], traceback.FrameSummary] = {}

    def seconds(since: int | None) -> float | None:
        return None if since is None else max(0, now - since) / 1e9

    def summary(place: tuple[CodeType, int]) -> traceback.FrameSummary:
        frame = known.get(place)
        if frame is None:
            frame = known[place] = _frame(*place)
        return frame

    found = [
        GoroutineStack(
            id=one["id"],
            name=one["name"],
            state=one["state"],
            waiting=seconds(one["since"]),
            waiting_for=one["waiting_for"],
            holders=tuple(one["holders"]),
            created_by=_created_by(one["started_at"]),
            creator=one["creator"] or None,
            worker=one["worker"],
            locked_to_thread=one["locked"],
            frames=traceback.StackSummary.from_list(
                [summary(place) for place in reversed(one["frames"]) if place[0].co_filename != __file__]
            ),
        )
        for one in goroutines
    ]
    found.sort(key=lambda one: one.id or 0)
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    running = sys._current_frames()
    main = threading.main_thread()
    plain = [
        GoroutineStack(
            id=None,
            name=names.get(one["thread"], f"thread {one['thread']}"),
            state=one["state"],
            waiting=seconds(one["since"]),
            waiting_for=one["waiting_for"],
            holders=tuple(one["holders"]),
            created_by=None,
            creator=None,
            worker=None,
            locked_to_thread=False,
            frames=_frames_of(running.get(one["thread"])),
        )
        for one in threads
    ]
    if main.ident is not None and all(one["thread"] != main.ident for one in threads):
        # It waits for nothing of ours: then it is said to run, as a goroutine in a foreign call is.
        frames = _frames_of(running.get(main.ident))
        plain.append(GoroutineStack(None, main.name, "running", None, "", (), None, None, None, False, frames))
    plain.sort(key=lambda one: (one.name != main.name, one.name))
    return plain + found


def dump(file: TextIO | None = None, *, group: bool = False) -> None:
    """Prints what every goroutine does to `file` (default: stderr), as Go prints it.

    With `group`, goroutines that are at the same place in the same state are printed once, with their number. Works
    from everywhere, also while others run.
    """
    out = sys.stderr if file is None else file
    if out is None:
        return
    found = stacks()
    if not group:
        out.write("\n".join(_text([one]) for one in found))
    else:
        out.write("\n".join(_text(same) for same in _grouped(found)))
    out.flush()


_MANY = 100
"""From so many goroutines on, a report of a deadlock groups those at the same place."""

_reporting = False


def may_deadlock() -> bool:
    """Whether no signal could end a deadlock: the program has no handlers but those that the interpreter and we set."""
    usual = {signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, _quit, None}
    return all(signal.getsignal(number) in usual for number in signal.valid_signals())


def deadlock() -> Deadlock:
    """What the main thread raises when nobody can go on. Called by the runtime, in the main thread."""
    global _reporting
    text = "all goroutines are asleep - deadlock!"
    if _reporting:
        return Deadlock(text)  # to make the report, something was needed that a goroutine holds
    _reporting = True
    try:
        found = stacks()
        paragraphs = ["".join(f"{line}\n" for line in [text, *_cycles(found)])]
        paragraphs += [_text(same) for same in (_grouped(found) if len(found) > _MANY else [[one] for one in found])]
        return Deadlock("\n".join(paragraphs).rstrip("\n"))
    finally:
        _reporting = False


def _cycles(found: list[GoroutineStack]) -> list[str]:
    """A line for each circle of goroutines that wait for each other."""
    waits = {one.id: one.holders for one in found if one.id is not None}
    lines, seen = [], set[int]()
    for first in waits:
        path: list[int] = []
        here: int | None = first
        while here is not None and here not in seen:
            seen.add(here)
            path.append(here)
            holders = waits.get(here, ())
            here = holders[0] if len(holders) == 1 else None
        if here in path:
            circle = path[path.index(here) :]
            chain = "".join(f" waits for goroutine {other}," for other in [*circle[1:], here])
            lines.append(f"goroutine {here}{', which'.join(chain.rstrip(',').split(','))}")
    return lines


def quit_on_signal() -> None:
    """From now on SIGQUIT (Ctrl-\\) prints what all goroutines do and ends the process with status 2, as in Go."""
    signal.signal(signal.SIGQUIT, _quit)


def _quit(_number: int, _frame: FrameType | None) -> None:
    try:
        if sys.stderr is not None:
            sys.stderr.write("SIGQUIT: quit\n\n")
            dump()
        if sys.stdout is not None:
            sys.stdout.flush()
    finally:
        os._exit(2)


def _grouped(found: list[GoroutineStack]) -> list[list[GoroutineStack]]:
    """Those that are at the same place in the same state, together."""
    groups: dict[object, list[GoroutineStack]] = {}
    for one in found:
        places = tuple((frame.filename, frame.lineno, frame.name) for frame in one.frames)
        groups.setdefault((one.id is None, one.state, places, one.created_by), []).append(one)
    return list(groups.values())


def _text(same: list[GoroutineStack]) -> str:
    """Goroutines at the same place, as a paragraph: head, traceback, creator."""
    one = same[0]
    minutes = int(min(other.waiting or 0.0 for other in same) // 60)
    state = one.state if minutes < 1 else f"{one.state}, {minutes} minute{'s' if minutes > 1 else ''}"
    if all(other.locked_to_thread for other in same):
        state += ", locked to thread"
    kind = "thread" if one.id is None else "goroutine"
    if len(same) == 1:
        number = one.name if one.id is None else str(one.id)
        named = f" {one.name!r}" if one.id is not None and one.name != f"goroutine-{one.id}" else ""
        head = f"{kind} {number}{named} [{state}]:"
    else:
        head = f"{len(same)} {kind}s [{state}]:"
    lines = [head + "\n"]
    if len(same) == 1 and one.waiting_for:
        lines.append(f"  waits for {one.waiting_for}\n")
    if len(same) == 1 and one.worker is not None:
        lines.append(f"  on worker {one.worker}\n")
    lines += one.frames.format()
    if one.created_by is not None:
        by = f" in goroutine {one.creator}" if one.creator is not None and len(same) == 1 else ""
        lines.append(f"created at {one.created_by}{by}\n")
    return "".join(lines)


def _created_by(place: tuple[CodeType, int] | None) -> str | None:
    if place is None:
        return None
    code, line = place
    return f"{code.co_filename}:{line} in {code.co_qualname}"


def _frame(code: CodeType, offset: int) -> traceback.FrameSummary:
    """The place of one instruction."""
    positions = next(islice(code.co_positions(), offset // 2, None), (None, None, None, None))
    line, end_line, column, end_column = positions
    return traceback.FrameSummary(
        code.co_filename,
        code.co_firstlineno if line is None else line,
        code.co_name,
        lookup_line=False,
        end_lineno=end_line,
        colno=column,
        end_colno=end_column,
    )


def _frames_of(frame: FrameType | None) -> traceback.StackSummary:
    def places(frame: FrameType | None) -> Iterable[traceback.FrameSummary]:
        while frame is not None:
            if frame.f_code.co_filename != __file__:
                yield _frame(frame.f_code, frame.f_lasti)
            frame = frame.f_back

    return traceback.StackSummary.from_list(list(places(frame))[::-1])
