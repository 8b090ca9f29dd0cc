"""KeyboardInterrupt between any two instructions of goslings.processes on the main thread, for tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterator
from types import FrameType
from typing import Any


class Interrupt:
    """Raises KeyboardInterrupt at the `at`th instruction of goslings.processes, on this thread."""

    def __init__(self, at: int, spared: Container[str] = ()) -> None:
        """`spared`: names of functions that are not cut."""
        self.left = at
        self.spared = spared

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if "/goslings/processes/" not in frame.f_code.co_filename or frame.f_code.co_name in self.spared:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def interrupted(at: int, what: Any, spared: Container[str] = ()) -> tuple[bool, Any]:
    """Whether `what` was interrupted there, and what it returned if not."""
    before = sys.gettrace()
    interrupt = Interrupt(at, spared)
    sys.settrace(interrupt)
    try:
        return interrupt.left <= 0, what()
    except KeyboardInterrupt:
        return True, None
    finally:
        sys.settrace(before)


def everywhere(what: Callable[[], Any], spared: Container[str] = ()) -> Iterator[Any]:
    """Interrupts `what` at one instruction after another, more sparsely the later; yields what it returned, or None."""
    at, cut = 1, True
    while cut:
        cut, value = interrupted(at, what, spared)
        yield value
        at += 1 + at // 24
