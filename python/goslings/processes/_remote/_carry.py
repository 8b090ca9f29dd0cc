"""What travels between the two sides of a connection: pickle 5, and references to what stays where it is.

Channels, objects wrapped in `Shared`, and proxies are not copied: a message holds their number, at whichever side has
them. A message lists the numbers beside its pickle, so that the reader can hold on to what it names until it is
unpickled, and give back what nobody will unpickle.

Most messages hold none. They are pickled by `pickle.dumps` and unpickled by `pickle.loads`; the classes below are for
those that do, and for functions and classes that only cloudpickle can take.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
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


def _of_yours(number: int) -> Any:
    """Stands in a pickle for an object that the receiver has."""
    raise pickle.UnpicklingError("a reference outside of its connection")


def _make_pickler() -> Any:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        """Pickles for one session."""

        def __init__(self, file: io.BytesIO, session: Session) -> None:
            super().__init__(file, _PROTOCOL)
            self.session = session
            self.lent: list[int] = []
            self.theirs: list[int] = []

        def reducer_override(self, obj: Any) -> Any:
            if (shared := to_be_lent(obj)) is not None:
                number, description = self.session.lend(shared)
                self.lent.append(number)
                return _of_theirs, (number, description)
            if (yours := self.session.number_of(obj)) is not None:
                self.theirs.append(yours)
                return _of_yours, (yours,)
            return super().reducer_override(obj)

    return Pickler


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
                return self._own.__getitem__
        return super().find_class(module, name)


_make: Callable[[io.BytesIO, Any], Any] | None = None


def encode(value: object, session: Session) -> Message:
    """The bytes of a message, without its head. Raises what pickling raises."""
    try:
        return Message(bytes(_COUNTS.size) + pickle.dumps(value, _PROTOCOL), ())
    except (TypeError, AttributeError, pickle.PicklingError):
        pass  # it holds something that stays here, or that cannot be pickled: then this says so
    global _make
    if _make is None:
        _make = _make_pickler()
    file = io.BytesIO()
    pickler = _make(file, session)
    try:
        pickler.dump(value)
        if max(len(pickler.lent), len(pickler.theirs)) > 0xFFFF:
            raise ValueError("more than 65535 references in one message")
    except BaseException:
        session.take_back(pickler.lent)
        raise
    named = [*pickler.lent, *pickler.theirs]
    head = _COUNTS.pack(len(pickler.lent), len(pickler.theirs)) + struct.pack(f">{len(named)}Q", *named)
    return Message(head + file.getvalue(), tuple(pickler.lent))


def numbers(body: bytes, start: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """What a message names: numbers of the sender, numbers of the receiver; and where its pickle begins."""
    lent, yours = _COUNTS.unpack_from(body, start)
    start += _COUNTS.size
    if not lent and not yours:
        return (), (), start
    named = struct.unpack_from(f">{lent + yours}Q", body, start)
    return named[:lent], named[lent:], start + 8 * len(named)


def decode(body: bytes, start: int, session: Session, own: dict[int, Any] | None) -> Any:
    """What a message says; `own`: the objects of this side that it names. Raises whatever unpickling raises."""
    lent, yours, start = numbers(body, start)
    rest = memoryview(body)[start:]
    if not lent and not yours:
        return pickle.loads(rest)
    return _Unpickler(io.BytesIO(rest), session, own or {}).load()
