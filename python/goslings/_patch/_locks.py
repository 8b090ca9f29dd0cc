"""Locks that were made before `goslings.patch`: those that can be exchanged are, the others are listed.

A lock can be exchanged if nobody has it now and one name alone refers to it: then nobody can be left with the old one.
"""

from __future__ import annotations

import _thread
import gc
import sys
import threading
import types
from collections import Counter
from collections.abc import Iterator
from typing import Any

from goslings._goslings import RLock, lock

__all__ = ["exchange_all", "exchange_in_threading"]

_RealLock = _thread.LockType
_RealRLock = _thread.RLock
_OURS = ("goslings", "importlib", "_frozen_importlib", "_frozen_importlib_external", "_py_warnings", "warnings")
"""Modules whose locks stay: no goroutine parks while it has one, or they are no concern of goroutines."""

_ATTRIBUTES_MAX = 64


def new_for(old: Any) -> Any:
    """A lock of the same kind."""
    return lock() if type(old) is _RealLock else RLock()


def is_real(value: object) -> bool:
    """Whether it is a lock of threads alone."""
    return type(value) is _RealLock or type(value) is _RealRLock


def is_free(old: Any) -> bool:
    """Whether nobody has it."""
    if type(old) is _RealLock:
        return not old.locked()
    return not old._is_owned() and "unlocked" in repr(old)


def exchange_in_threading() -> None:
    """The lock of `threading` itself, which is in two places."""
    module: Any = threading
    old = module._active_limbo_lock
    if not is_real(old):
        return
    with old:
        module._active_limbo_lock = RLock()
    deleter = getattr(module, "_DeleteDummyThreadOnDel", None)
    if deleter is not None and deleter.__del__.__defaults__:
        defaults = deleter.__del__.__defaults__
        deleter.__del__.__defaults__ = tuple(module._active_limbo_lock if d is old else d for d in defaults)
    started = module.main_thread()._started
    started._cond.__init__(lock())


def _holders() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """What is called what, the object, and its attributes: modules, classes, and objects that are names of modules."""
    for module_name, module in list(sys.modules.items()):
        if not isinstance(module, types.ModuleType) or module_name.partition(".")[0] in _OURS:
            continue
        names = vars(module)
        yield module_name, module, names
        for name, value in list(names.items()):
            if isinstance(value, types.ModuleType | types.FunctionType) or is_real(value):
                continue
            if isinstance(value, type):
                if value.__module__ == module_name:
                    yield f"{module_name}.{name}", value, dict(vars(value))
                continue
            kind = type(value)
            if "__dict__" in dir(kind) and "__getattr__" not in vars(kind):
                attributes = getattr(value, "__dict__", None)
                if type(attributes) is dict:
                    yield f"{module_name}.{name}", value, attributes


def exchange_all() -> list[str]:
    """Exchanges what can be; returns what cannot."""
    sample = {"a": _RealLock() if _RealLock is not None else None}
    alone = [sys.getrefcount(old) for _, old in list(sample.items())][0]
    left: list[str] = []
    seen: set[int] = set()
    for where, holder, names in _holders():
        for name, old in list(names.items()):
            if not is_real(old):
                continue
            if id(old) not in seen and sys.getrefcount(old) <= alone + isinstance(holder, type) and is_free(old):
                setattr(holder, name, new_for(old))
                continue
            seen.add(id(old))
            why = "others refer to it, too" if is_free(old) else "somebody has it"
            left.append(f"{where}.{name}, a lock of threads alone: {why}")
    left += _in_logging()
    del old
    counts = Counter(_owners_elsewhere(seen))
    left += [f"{count} locks of threads alone in {kind} objects" for kind, count in sorted(counts.items())]
    return left


def _in_logging() -> list[str]:
    """Every handler has a lock."""
    logging = sys.modules.get("logging")
    left = []
    for reference in list(getattr(logging, "_handlerList", ())):
        handler = reference()
        if handler is not None and is_real(handler.lock):
            if is_free(handler.lock):
                handler.lock = RLock()
            else:
                left.append(f"the lock of {handler!r}: somebody has it")
    return left


def _owners_elsewhere(known: set[int]) -> Iterator[str]:
    """The classes of the objects that have real locks among their attributes, one for each such lock."""
    for holder in gc.get_objects():
        kind = type(holder)
        if kind in (dict, list, tuple, set, types.ModuleType, types.FunctionType, types.FrameType, type):
            continue
        module = kind.__module__
        if not isinstance(module, str):
            module = "?"  # a class that describes the attribute in its objects
        if module.partition(".")[0] in _OURS:
            continue
        found = gc.get_referents(holder)
        for part in list(found):
            if type(part) is dict and len(part) <= _ATTRIBUTES_MAX:
                found.extend(list(part.values()))
        for part in found:
            if is_real(part) and id(part) not in known:
                known.add(id(part))
                yield f"{module}.{kind.__qualname__}"
