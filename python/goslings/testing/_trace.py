"""What happened in an explored run, step by step, and the error that shows it."""

from __future__ import annotations

import linecache
from collections.abc import Iterable
from dataclasses import dataclass
from os.path import basename

__all__ = ["ScheduleFailure", "TraceStep"]

_SHOWN = 150
"""So many steps are shown in the message of a failure: the last ones."""


@dataclass(frozen=True)
class TraceStep:
    """One step of an explored run: an operation of one goroutine, or a move of the clock."""

    number: int
    """Counted from 1."""
    who: str
    """Which goroutine: "main", "g1 worker", or the name it was given; "clock" for time that passed."""
    what: str
    """What it began to do: "chan.send", "Mutex.lock", "go", "line" …; "ends"; for the clock, the time."""
    notes: tuple[str, ...]
    """What came of it: "waits (chan send)", "wakes g2 reader", "starts g1 worker"."""
    file: str
    """Where; empty for what is at no place."""
    line: int
    """The line in `file`."""

    @property
    def source(self) -> str:
        """The text of the line, where it can be had."""
        return linecache.getline(self.file, self.line).strip() if self.file else ""

    def __str__(self) -> str:
        where = f"{basename(self.file)}:{self.line}" if self.file else ""
        notes = f" → {', '.join(self.notes)}" if self.notes else ""
        return f"{self.number:4} {self.who:<14} {self.what + notes:<44} {where:<22} {self.source}".rstrip()


class ScheduleFailure(AssertionError):
    """A schedule that fails: raised by `explore` and `replay`, from the exception that made it fail.

    `seed` repeats it: `replay(fn, seed)`. `trace` is what happened, as a list of TraceStep.
    """

    def __init__(self, reason: str, seed: str, schedule: int, trace: list[TraceStep], note: str = "") -> None:
        super().__init__(reason, seed, schedule, trace, note)
        self.reason = reason
        self.seed = seed
        self.schedule = schedule
        self.trace = trace
        self.note = note

    def __str__(self) -> str:
        left_out = len(self.trace) - _SHOWN
        lines = [f"schedule {self.schedule} fails: {self.reason}", f"to repeat it: replay(fn, {self.seed!r})"]
        if self.note:
            lines.append(self.note)
        if self.trace:
            lines.append("what happened:")
        if left_out > 0:
            lines.append(f"     ({left_out} steps before)")
        lines.extend(str(step) for step in self.trace[-_SHOWN:])
        return "\n".join(lines)


def read(raw: Iterable[tuple[int, str, str | int, str, int]], names: dict[int, str]) -> list[TraceStep]:
    """Makes steps of the runtime's events: what comes of an operation is told with it."""
    steps: list[TraceStep] = []
    last: dict[int, int] = {}
    """The place of each goroutine's last step in `steps`."""

    def name(number: int | str) -> str:
        return names.get(int(number), f"g{number}")

    def add(who: int, what: str, file: str = "", line: int = 0) -> None:
        last[who] = len(steps)
        steps.append(TraceStep(len(steps) + 1, "clock" if who < 0 else name(who), what, (), file, line))

    def note(who: int, text: str) -> None:
        if who not in last:
            if who < 0:
                return  # the start of the first goroutine
            add(who, "begins")
        at = last[who]
        step = steps[at]
        steps[at] = TraceStep(step.number, step.who, step.what, (*step.notes, text), step.file, step.line)

    for who, kind, detail, file, line in raw:
        match kind:
            case "does":
                add(who, str(detail), file, line)
            case "goes on":
                before = steps[last[who]]
                note(who, "makes way")
                add(who, before.what, before.file, before.line)
            case "waits":
                note(who, f"waits ({detail})")
            case "wakes":
                note(who, f"wakes {name(detail)}")
            case "starts":
                note(who, f"starts {name(detail)}")
            case "ends":
                note(who, "ends")
            case "time":
                add(who, f"{int(detail) / 1e9:g} s")
    return steps


for _public in (TraceStep, ScheduleFailure):
    _public.__module__ = "goslings.testing"  # as users know them
