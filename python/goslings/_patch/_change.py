"""What a unit of `goslings.patch` consists of: changes, each of one name of one module or class.

**What every change must keep**
* On a plain thread, and in a goroutine without a stack, which cannot park, the call does what it did before.
* In a goroutine with a stack it parks instead of blocking the thread, with the same arguments, results and errors.
* An object may be used by goroutines and threads at once, whoever made it.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from goslings._goslings import _can_park, _Patched

__all__ = ["Change", "Unit", "call", "everywhere", "method", "swap"]

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Change:
    """One name, and what takes its place."""

    owner: types.ModuleType | type
    name: str
    original: Any
    new: Any
    rebind: bool = True
    """Whether other modules that refer to the original shall refer to the new one, too."""

    @property
    def label(self) -> str:
        """As users know it: `time.sleep`, `threading.Thread.start`."""
        if isinstance(self.owner, type):
            return f"{self.owner.__module__}.{self.owner.__qualname__}.{self.name}"
        return f"{self.owner.__name__}.{self.name}"

    @property
    def is_public(self) -> bool:
        """Whether users know it."""
        return not any(part.startswith("_") for part in self.label.split("."))

    def is_done(self) -> bool:
        """Whether the new one is in its place."""
        return vars(self.owner).get(self.name, _ABSENT) is self.new

    def apply(self) -> None:
        """Puts the new one in its place."""
        setattr(self.owner, self.name, self.new)


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of the standard library that is patched as one."""

    name: str
    changes: list[Change]
    follows: list[str] = field(default_factory=list)
    """What is made of that, and so is patched by it."""
    cannot: dict[str, str] = field(default_factory=dict)
    """What stays as it is, and why."""
    finish: Callable[[], list[str]] | None = None
    """Called after the changes; makes objects that exist already follow, and says which cannot ("where: why")."""


def call(owner: types.ModuleType, name: str, parked: Callable[..., Any]) -> Change:
    """A function of a module. In goroutines `parked` is called in its place, elsewhere the original.

    The new one is no Python function, so that it does not become a method in classes that keep it. A `parked` that
    needs the original has taken it before: units are imported before anything is patched.
    """
    original = getattr(owner, name)
    return Change(owner, name, original, _Patched(original, parked))


def everywhere(owner: types.ModuleType, name: str, new: Callable[..., Any]) -> Change:
    """A function of a module, for which `new` is called on threads, too."""
    original = getattr(owner, name)
    patched = _Patched(new, new)
    for attribute in ("__name__", "__qualname__", "__doc__", "__module__"):
        setattr(patched, attribute, getattr(original, attribute))
    vars(patched)["__wrapped__"] = original
    return Change(owner, name, original, patched)


def method(owner: type, name: str, parked: Callable[..., Any]) -> Change:
    """A method of a class written in Python, changed in place: objects that exist follow."""
    original = vars(owner)[name]

    @functools.wraps(original)
    def patched(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        function = parked if _can_park() else original
        return function(self, *args, **kwargs)

    return Change(owner, name, original, patched, rebind=False)


def swap(owner: types.ModuleType | type, name: str, new: Any, *, rebind: bool = True) -> Change:
    """Something whose new one does by itself what is right, on threads and in goroutines."""
    return Change(owner, name, vars(owner)[name], new, rebind)
