"""Carries changes out, and looks for what refers to the originals elsewhere."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

from goslings import _threads as threads
from goslings._goslings import Mutex
from goslings._patch import _units
from goslings._patch._change import Change, Unit
from goslings._patch._report import PatchReport

__all__ = ["patch", "state"]

_OURS = ("goslings", "importlib", "_frozen_importlib", "_frozen_importlib_external")
"""Modules that keep the originals: the runtime needs real threads and locks, and imports have locks of their own."""

_HARMLESS = {"subprocess._del_safe"}
"""What keeps originals, and does not wait."""

_lock = Mutex()
_done: dict[str, Unit] = {}
_followed: list[str] = []
_early: list[str] = []


def patch(
    only: Iterable[str] | None = None, exclude: Iterable[str] | None = None, *, everywhere: bool = False
) -> PatchReport:
    """Makes the standard library's calls that wait park the goroutine that makes them; returns what came of it.

    `only` names the parts to patch ("time", "threading", "socket" …), `exclude` those to leave; other names are a
    ValueError. What is patched stays patched; a second call patches what is left. On plain threads the calls do what
    they did before: in particular, a `threading.Thread` that is started there is a thread. `everywhere` makes it a
    goroutine there, too, which is what `goslings run --patch` does. Call it early: what was imported before is made to
    follow where that is possible, and listed where it is not. Never blocks for long.
    """
    wanted = _choose(only, exclude)
    if everywhere:
        threads.everywhere()
    with _lock:
        units = [_units.load(name) for name in wanted if name not in _done]  # all of them see the originals
        for unit in units:
            for change in unit.changes:
                change.apply()
            _done[unit.name] = unit
        _follow([change for unit in units for change in unit.changes if change.rebind])
        for unit in units:
            if unit.finish is not None:
                _early.extend(unit.finish())
        return _report(wanted)


def state() -> PatchReport:
    """What is patched now."""
    with _lock:
        return _report(_units.NAMES)


def _choose(only: Iterable[str] | None, exclude: Iterable[str] | None) -> list[str]:
    """The names of the units that are asked for, in the order in which they are patched."""
    chosen = {}
    for argument, names, default in (("only", only, _units.NAMES), ("exclude", exclude, ())):
        if isinstance(names, str):
            raise TypeError(f"patch({argument}=…) takes a list of names, not one: [{names!r}]")
        chosen[argument] = set(default if names is None else names)
        for name in chosen[argument]:
            if name not in _units.NAMES:
                raise ValueError(f"patch({argument}=…) knows no {name!r}; there is: {', '.join(_units.NAMES)}")
    return [name for name in _units.NAMES if name in chosen["only"] and name not in chosen["exclude"]]


def _modules() -> Iterator[tuple[str, types.ModuleType]]:
    """The modules that may follow."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, types.ModuleType) and name.partition(".")[0] not in _OURS:
            yield name, module


def _follow(changes: list[Change]) -> None:
    """Makes names of other modules follow, and notes what cannot."""
    by_id = {id(change.original): change for change in changes}
    names: dict[int, set[str]] = {}
    for change in changes:
        names.setdefault(id(change.original), set()).add(change.name.lstrip("_"))
    owners = {(id(change.owner), change.name) for change in changes}
    for module_name, module in _modules():
        for name, value in list(vars(module).items()):
            if f"{module_name}.{name}" in _HARMLESS:
                continue
            if id(value) in by_id:
                change = by_id[id(value)]
                if (id(module), name) in owners:
                    continue
                if name.lstrip("_") in names[id(value)]:
                    setattr(module, name, change.new)
                    if module_name not in sys.builtin_module_names:  # which have the same functions under names in C
                        _followed.append(f"{module_name}.{name}")
                else:  # under a name of its own: perhaps somebody wants to keep it
                    _early.append(f"{module_name}.{name} is {change.label}")
            elif isinstance(value, type) and value.__module__ == module_name:
                _early.extend(_in_class(value, by_id))
            elif isinstance(value, types.FunctionType) and value.__module__ == module_name:
                _early.extend(_in_function(f"{module_name}.{value.__qualname__}", value, by_id))


def _in_class(owner: type, by_id: dict[int, Change]) -> Iterator[str]:
    """What of a class refers to originals."""
    for name, value in list(vars(owner).items()):
        where = f"{owner.__module__}.{owner.__qualname__}.{name}"
        inner = value.__func__ if isinstance(value, staticmethod | classmethod) else value
        if id(inner) in by_id:
            yield f"{where} is {by_id[id(inner)].label}"
        elif isinstance(inner, types.FunctionType):
            yield from _in_function(where, inner, by_id)


def _in_function(where: str, function: types.FunctionType, by_id: dict[int, Change]) -> Iterator[str]:
    """What of a function's defaults and closure refers to originals."""
    held: list[Any] = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for cell in function.__closure__ or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:
            continue  # empty
    for value in held:
        if id(value) in by_id:
            yield f"{where} keeps {by_id[id(value)].label}"


def _report(wanted: Iterable[str]) -> PatchReport:
    report = PatchReport(followed=list(_followed), too_early=list(_early))
    for name in _units.NAMES:
        unit = _done.get(name)
        if unit is None:
            report.excluded.append(name)
            continue
        done = [change.label for change in unit.changes if change.is_public and change.is_done()]
        report.patched[name] = done + unit.follows
        report.not_patched.update(unit.cannot)
        for change in unit.changes:
            if not change.is_done():
                report.not_patched[change.label] = "somebody has put something else in its place since"
    return report
