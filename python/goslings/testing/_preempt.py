"""Steps of an explored run that are no operations of goslings: lines and instructions of the program's own code.

The interpreter's `sys.monitoring` tells of each line, or instruction, before it is executed.
"""

from __future__ import annotations

import dis
import os
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any, Literal

from goslings._goslings import _step
from goslings.testing._bubbles import FOLDER

__all__ = ["Preempt", "preempting"]

Preempt = Literal["lines", "instructions"] | None

_SHARED = {
    dis.opmap[name]: name
    for name in (
        *("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "STORE_NAME", "DELETE_NAME"),
        *("LOAD_DEREF", "STORE_DEREF", "DELETE_DEREF", "LOAD_ATTR", "STORE_ATTR", "DELETE_ATTR"),
        *("BINARY_SUBSCR", "STORE_SUBSCR", "DELETE_SUBSCR", "CONTAINS_OP", "BINARY_OP"),
    )
    if name in dis.opmap
}
"""Instructions that read or write what another goroutine may see."""


def _foreign() -> tuple[str, ...]:
    """Folders whose code is not the program's own: the standard library, installed packages, goslings itself."""
    paths = {FOLDER, *(sysconfig.get_paths().get(name, "") for name in ("stdlib", "platstdlib", "purelib", "platlib"))}
    paths.update(getattr(site, "getsitepackages", list)())
    return tuple(os.path.join(path, "") for path in paths if path)


class _OwnCode:
    """Knows which files are the program's own."""

    def __init__(self) -> None:
        self._foreign = _foreign()
        self._known: dict[str, bool] = {}

    def __contains__(self, code: CodeType) -> bool:
        file = code.co_filename
        own = self._known.get(file)
        if own is None:
            own = not file.startswith(("<frozen", self._foreign[0])) and not file.startswith(self._foreign)
            self._known[file] = own
        return own


def _tool() -> int:
    """A number of `sys.monitoring` that nobody uses. Raises RuntimeError if there is none."""
    for number in 4, 3, 2, 1, 0:
        if sys.monitoring.get_tool(number) is None:
            sys.monitoring.use_tool_id(number, "goslings.testing")
            return number
    raise RuntimeError("preempt needs one of the tools of sys.monitoring, and all are in use")


@contextmanager
def preempting(preempt: Preempt) -> Iterator[None]:
    """Every line, or instruction, of the program's own code is a step of the run that it belongs to."""
    if preempt is None:
        yield
        return
    own = _OwnCode()
    disable = sys.monitoring.DISABLE
    events = sys.monitoring.events

    def line(code: CodeType, _line: int) -> Any:
        if code not in own:
            return disable
        _step("line")
        return None

    def instruction(code: CodeType, offset: int) -> Any:
        name = _SHARED.get(code.co_code[offset]) if code in own else None
        if name is None:
            return disable
        _step(name)
        return None

    kinds: dict[str, tuple[int, Callable[[CodeType, int], Any]]] = {
        "lines": (events.LINE, line),
        "instructions": (events.INSTRUCTION, instruction),
    }
    if preempt not in kinds:
        raise ValueError(f"preempt must be None, 'lines' or 'instructions', not {preempt!r}")
    event, callback = kinds[preempt]
    tool = _tool()
    try:
        sys.monitoring.register_callback(tool, event, callback)
        sys.monitoring.set_events(tool, event)
        sys.monitoring.restart_events()
        yield
    finally:
        sys.monitoring.set_events(tool, 0)
        sys.monitoring.register_callback(tool, event, None)
        sys.monitoring.free_tool_id(tool)
