"""The units of `goslings.patch`, in the order in which they are patched, and the file of each."""

from __future__ import annotations

import functools
import importlib

from goslings._patch._change import Unit

__all__ = ["NAMES", "load"]

_FILES = {
    "threading": "_threading",
    "queue": "_queue",
    "concurrent.futures": "_futures",
    "time": "_time",
    "os": "_os",
    "signal": "_signal",
    "subprocess": "_subprocess",
    "select": "_select",
    "selectors": "_selectors",
    "socket": "_socket",
    "ssl": "_ssl",
    "psycopg": "_psycopg",
}
"""Name for users: the module whose `unit()` it is."""

NAMES = tuple(_FILES)


@functools.cache
def load(name: str) -> Unit:
    """The unit of this name, made once: it has seen the originals."""
    unit: Unit = importlib.import_module(f"goslings._patch.{_FILES[name]}").unit()
    return unit
