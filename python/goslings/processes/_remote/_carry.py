"""What travels between the two sides of a connection: pickle 5, and references to what stays where it is.

Channels, objects wrapped in `Shared`, and proxies are not copied: a message holds their number, at whichever side has
them. A message lists the numbers beside its pickle, so that the reader can hold on to what it names until it is
unpickled, and give back what nobody will unpickle.

Most messages hold none. They are pickled by `pickle.dumps` and unpickled by `pickle.loads`. Those that do, and
functions and classes that only cloudpickle can take, go through the pickler of pools (`processes/_pickle.py`).
"""

from __future__ import annotations

import io
import pickle
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from goslings.processes._remote._shared import to_be_lent

if TYPE_CHECKING:
    from goslings.processes._remote._session import Session

__all__ = ["Message", "decode", "encode", "numbers"]

_COUNTS = struct.Struct(">HH")
_PROTOCOL = 5


class Message(NamedTuple):
    """A message to be sent: its bytes, and the numbers of ours that it takes along, to take back if it is not sent."""

    body: bytes
    lent: tuple[int, ...]


def _of_theirs(number: int, description: Any) -> Any:
    """Stands in a pickle for an object that the sender has. Only an unpickler of a session knows what to do with it."""
    raise pickle.UnpicklingError("a reference outside of its connection")


def _of_yours(number: int, view: int) -> Any:
    """Stands in a pickle for an object that the receiver has; `view`: 1, 2 for an end of a channel lent whole."""
    raise pickle.UnpicklingError("a reference outside of its connection")


class _Unpickler(pickle.Unpickler):
    """Unpickles for one session."""

    def __init__(self, file: io.BytesIO, session: Session, own: dict[int, Any]) -> None:
        super().__init__(file)
        self._session, self._own = session, own

    def find_class(self, module: str, name: str, /) -> Any:
        if module == __name__:
            if name == _of_theirs.__name__:
                return self._session.borrow
            if name == _of_yours.__name__:
                return self._yours
        return super().find_class(module, name)

    def _yours(self, number: int, view: int) -> Any:
        found = self._own[number]
        return (found, found.sender, found.receiver)[view]() if view else found


def encode(value: object, session: Session, named: list[tuple[str, Any]] | None = None) -> Message:
    """The bytes of a message, without its head. Raises what pickling raises, naming the part of `named` that it is
    about.
    """
    try:
        return Message(bytes(_COUNTS.size) + pickle.dumps(value, _PROTOCOL), ())
    except (TypeError, AttributeError, pickle.PicklingError):
        pass  # it holds something that stays here, or that cannot be pickled: then this says so
    lent: list[int] = []
    theirs: list[int] = []

    def reduce(obj: Any) -> Any:
        if (yours := session.number_of(obj)) is not None:
            theirs.append(yours[0])
            return _of_yours, yours
        if (shared := to_be_lent(obj)) is not None:
            number = session.lend(shared)
            lent.append(number)
            return _of_theirs, (number, shared.description)
        return None

    from goslings.processes import _pickle

    try:
        body = _pickle.dumps_whole(value, reduce, [("value", value)] if named is None else named)
        if max(len(lent), len(theirs)) > 0xFFFF:
            raise ValueError("more than 65535 references in one message")
    except BaseException:
        session.references.take_back(lent)
        raise
    head = _COUNTS.pack(len(lent), len(theirs)) + struct.pack(f">{len(lent) + len(theirs)}Q", *lent, *theirs)
    return Message(head + body, tuple(lent))


def numbers(body: bytes, start: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """What a message names: numbers of the sender, numbers of the receiver; and where its pickle begins."""
    lent, yours = _COUNTS.unpack_from(body, start)
    start += _COUNTS.size
    if not lent and not yours:
        return (), (), start
    named = struct.unpack_from(f">{lent + yours}Q", body, start)
    return named[:lent], named[lent:], start + 8 * len(named)


def decode(body: bytes, start: int, session: Session, own: dict[int, Any] | None) -> Any:
    """What a message says; `own`: the objects of this side that it names. Raises whatever unpickling raises.

    What it names is settled then, however that ends: it may not be refused any more.
    """
    lent, yours, start = numbers(body, start)
    rest = memoryview(body)[start:]
    if not lent and not yours:
        return pickle.loads(rest)
    if not lent:
        return _Unpickler(io.BytesIO(rest), session, own or {}).load()
    try:
        session.references.arrived(lent)
        return _Unpickler(io.BytesIO(rest), session, own or {}).load()
    finally:
        session.references.settle(lent)
