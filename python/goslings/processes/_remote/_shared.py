"""What of an object the other side may use: the allow-list, and how it is described there.

Invariant: what is not in the list of an object's own side is refused there, whatever the other side believes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, NamedTuple

from goslings._goslings import RecvChan, SendChan, chan

__all__ = ["ASKED", "CHANNEL", "SPECIAL", "Description", "Exposed", "Shared", "check_limit", "expose_all", "to_be_lent"]

SPECIAL = frozenset({
    *("__call__", "__contains__", "__delitem__", "__getitem__", "__iter__", "__len__", "__next__", "__reversed__"),
    *("__setitem__", "__enter__", "__exit__", "__str__", "__add__", "__mul__", "__rmul__", "__iadd__", "__imul__"),
    *("__or__", "__ior__", "__ror__"),
})  # fmt: skip
"""The names with underscores that can be exposed, if they are asked for."""

_SEND = ("send", "close", "closed", "capacity", "__len__")
_RECV = ("recv", "closed", "capacity", "__len__")
CHANNEL: dict[type, tuple[str, ...]] = {chan: tuple({*_SEND, *_RECV}), SendChan: _SEND, RecvChan: _RECV}
ASKED = frozenset({"close", "closed", "capacity", "__len__"})
"""What of a channel is a call; to send and to receive is an operation (`_operations.py`)."""
_KINDS = frozenset({"object", "chan", "SendChan", "RecvChan"})
_VIEWS = (chan, SendChan, RecvChan)
"""What a channel of another process, or of another connection, is like here: by its `_goslings_view`."""


class Description(NamedTuple):
    """What the other side learns of an object."""

    kind: str
    """ "object", "chan", "SendChan" or "RecvChan". """
    name: str
    """The name of its type, for people."""
    methods: tuple[str, ...]
    attributes: tuple[str, ...]

    @classmethod
    def checked(cls, kind: Any, name: Any, methods: Any, attributes: Any) -> Description:
        """What the other side says, if it can be. Raises ValueError."""
        names = (name, *methods, *attributes)
        special = {each for each in (*methods, *attributes) if isinstance(each, str) and each.startswith("_")}
        if kind not in _KINDS or not all(isinstance(each, str) for each in names) or special - SPECIAL:
            raise ValueError("a description that is none")
        return cls(kind, name, tuple(methods), tuple(attributes))


class Exposed:
    """An object that the other side may use, and how."""

    __slots__ = ("allowed", "description", "key", "obj")

    def __init__(self, obj: Any, description: Description, key: Any) -> None:
        self.obj, self.description, self.key = obj, description, key
        self.allowed = frozenset((*description.methods, *description.attributes))


def check_limit(limit: int) -> int:
    """How many bytes a message may have. Raises ValueError."""
    if not 1024 <= limit <= 0xFFFF_FFFF:
        raise ValueError("the limit of a message is between 1 KiB and 4 GiB")
    return limit


class Shared:
    """Shared(obj, expose=None): `obj` by reference, as an argument or a result of a call between `connect` and `serve`.

    The other side gets a proxy; the object stays here, as long as a proxy refers to it. `expose`: as `serve` has it.
    """

    __slots__ = ("_exposed",)

    def __init__(self, obj: Any, expose: Iterable[str] | None = None) -> None:
        self._exposed = expose_all(obj, expose)

    def __repr__(self) -> str:
        return f"Shared({self._exposed.obj!r})"

    def __reduce__(self) -> Any:
        raise TypeError("a Shared object stays in its process: it goes through calls between serve and connect only")


Shared.__module__ = "goslings.processes"


def expose_all(obj: Any, expose: Iterable[str] | None) -> Exposed:
    """The allow-list of an object. Raises TypeError, ValueError, AttributeError for one that cannot be."""
    if isinstance(obj, Shared):
        if expose is not None:
            raise TypeError("a Shared object says itself what it exposes")
        return obj._exposed
    view = getattr(type(obj), "_goslings_view", None)
    like = type(obj) if view is None else _VIEWS[view]
    if (names := CHANNEL.get(like)) is not None:
        if expose is not None:
            raise TypeError("a channel is served with all that it has")
        return Exposed(obj, Description(like.__name__, like.__name__, names, ()), (type(obj), obj))
    if isinstance(expose, str):
        raise TypeError("expose is a list of names, not one name")
    cls = obj if isinstance(obj, type) else type(obj)
    if expose is None:
        names = tuple(name for name in dir(cls) if not name.startswith("_") and _is_method(obj, name))
    else:
        names = tuple(dict.fromkeys(expose))
    methods: list[str] = []
    attributes: list[str] = []
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"expose is a list of names, and {name!r} is none")
        if name.startswith("_") and name not in SPECIAL:
            raise ValueError(f"{name} cannot be exposed: it is private, or one of Python's own")
        (methods if _is_method(obj, name) else attributes).append(name)
    return Exposed(obj, Description("object", cls.__name__, tuple(methods), tuple(attributes)), id(obj))


def _is_method(obj: Any, name: str) -> bool:
    """Whether it is called, rather than looked at. Properties are not evaluated for that."""
    try:
        static = inspect.getattr_static(obj, name)
    except AttributeError:
        # Made as it is asked for, or not there yet.
        return name in SPECIAL or callable(getattr(obj, name))
    if inspect.isdatadescriptor(static):
        return False
    return callable(static) or callable(getattr(obj, name))


def to_be_lent(obj: Any) -> Exposed | None:
    """Whether an object in a message stays here, so that the other side gets a reference."""
    if isinstance(obj, Shared):
        return obj._exposed
    if type(obj) in CHANNEL or getattr(type(obj), "_goslings_view", None) is not None:
        return expose_all(obj, None)
    return None
