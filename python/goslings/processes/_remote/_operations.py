"""Selects among channels of the other side of a connection, and those of the other side among ours.

What is sent is pickled when the select begins, so that errors are at the culprit, and may be sent several times, in
rounds of a select whose cases are at several places (`processes/_select.py`); what it lends is counted for each.

    CHOICE   of the operation   whether it waits, the cases, and the message of each that sends
    CHOSEN   of the operation   index, ok, whether there is a value, the value's message

CANCEL, TAKEN, REFUSED and FAILED are those of calls (`_session.py`), as are the numbers.

* Each operation is answered once: by who takes it out of `_begun`.
* A select that only receives is over for who cancels it as soon as that is told: an answer on its way is refused, and
  the value goes back. One that sends has to hear whether it was carried out, for at most some seconds.
* The reader never runs code of users: values of plain types apart, they are unpickled and pickled by goroutines.
"""

from __future__ import annotations

import struct
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from goslings._goslings import after_func, go
from goslings.processes import _messages, _select
from goslings.processes._pickle import PLAIN
from goslings.processes._remote._carry import Message, decode, encode, numbers
from goslings.processes._remote._errors import Disconnected
from goslings.processes._remote._shared import Exposed

if TYPE_CHECKING:
    from goslings.processes._remote._session import Session

__all__ = ["Operations", "Packed"]

_CASES = struct.Struct(">BH")
_CASE = struct.Struct(">QI")
_RECEIVES = 0xFFFF_FFFF
"""In place of the length of what a case sends."""
_CHOSEN = struct.Struct(">iBB")
_NO_VALUE, _PLAIN, _ANY = range(3)
_OK = (False, True, None)
_GOODBYE = 5.0
"""How long who cancels a send waits to hear whether it was carried out, in seconds."""


class Packed(NamedTuple):
    """A value that is sent, perhaps several times."""

    body: bytes
    lent: tuple[tuple[int, Exposed], ...]
    value: Any
    """Itself, for the proxies in it: they live until the operation is over."""


class _Begun:
    """A select of ours."""

    __slots__ = ("operation", "packed", "sends")

    def __init__(self, operation: Any, packed: list[Packed]) -> None:
        self.operation, self.packed = operation, packed
        self.sends = bool(packed)


class _Served:
    """A select of the other side."""

    __slots__ = ("handle", "unwanted")

    def __init__(self) -> None:
        self.handle: Any = None
        self.unwanted = False

    def start(self, cases: Any, waits: bool, done: Callable[[_select.Outcome], None]) -> None:
        self.handle = _select.start(cases, waits, done)
        # Whoever cancels says so first, and looks for the handle then: one of the two sees the other.
        if self.unwanted:
            self.handle.cancel()

    def cancel(self) -> None:
        self.unwanted = True
        if self.handle is not None:
            self.handle.cancel()


class Operations:
    """The selects of a session, in both directions."""

    def __init__(self, session: Session) -> None:
        # Weakly: a session that nobody refers to ends, whatever the other side waits for.
        self._ref = weakref.ref(session)
        self._begun: dict[int, _Begun] = {}
        self._served: dict[int, _Served] = {}

    @property
    def _session(self) -> Session:
        """For calls of the session itself."""
        session = self._ref()
        assert session is not None
        return session

    # Ours

    def pack(self, value: Any) -> Packed:
        """Pickles what is to be sent. Raises what says why it cannot be."""
        session = self._session
        message = encode(value, session)
        session.check_size(message, _CASES.size + _CASE.size)
        lent = session.references.exposed(message.lent)
        session.references.take_back(message.lent)
        return Packed(message.body, lent, value)

    def begin(self, operation: Any, waits: bool, cases: Any) -> None:
        """Sends a select; its answer comes to `operation.answered`, perhaps at once. Never blocks."""
        session = self._session
        number = operation.number = session.number()
        values: list[Packed] = [value for _, sends, value in cases if sends]
        self._begun[number] = _Begun(operation, values)
        parts = [_CASES.pack(waits, len(cases))]
        parts += [_CASE.pack(channel, len(value.body) if sends else _RECEIVES) for channel, sends, value in cases]
        parts += [value.body for value in values]
        body = b"".join(parts)
        try:
            session.check_size(Message(body, ()), 0)
        except ValueError as error:
            self._answer(number, _select.Outcome(error=error))
            return
        for value in values:
            session.references.lend_again(value.lent)
        session.tell_choice(number, body)
        if session.over is not None:
            self._answer(number, _select.Outcome(error=session.death()))

    def _answer(self, number: int, outcome: _select.Outcome) -> bool:
        begun = self._begun.pop(number, None)
        if begun is not None:
            begun.operation.answered(outcome)
        return begun is not None

    def cancel(self, number: int) -> None:
        """Nobody waits for the outcome any more."""
        begun = self._begun.get(number)
        if begun is None:
            return
        self._session.tell_cancel(number)
        if begun.sends:
            gone = Disconnected("the other side does not say whether it was sent")
            after_func(_GOODBYE, lambda: self._answer(number, _select.Outcome(error=gone)))
        else:
            self._answer(number, _select.Outcome())

    def take_chosen(self, number: int, body: bytes, start: int) -> tuple[int, ...] | None:
        """The answer to one of ours. If nobody waits for it any more: what it lends, to be given back."""
        index, ok, kind = _CHOSEN.unpack_from(body, start)
        start += _CHOSEN.size
        lent, yours, _ = ((), (), 0) if kind == _NO_VALUE else numbers(body, start)
        pins = {each: self._session.references.own(each) for each in yours}
        begun = self._begun.pop(number, None)
        if begun is None:
            return lent
        outcome = _select.Outcome(index, None, _OK[ok])
        if kind == _NO_VALUE:
            begun.operation.answered(outcome)
            return None
        session = self._session
        outcome.receipt = _select.Owed(session, number)
        if kind == _PLAIN and not pins:
            _bring(session, begun, outcome, body, start, pins)
        else:
            go(_bring, session, begun, outcome, body, start, pins)
        return None

    def take_failed(self, number: int, body: bytes) -> bool:
        """One of ours has failed; whether somebody waits for it. By the reader."""
        begun = self._begun.pop(number, None)
        if begun is None:
            return False
        go(_tell_failure, self._session, begun, body)
        return True

    # Theirs

    def __len__(self) -> int:
        return len(self._served)

    @staticmethod
    def lent(body: bytes, start: int) -> tuple[int, ...]:
        """What the values of a select name of the other side's."""
        _, heads, at = _heads(body, start)
        lent: tuple[int, ...] = ()
        for _, size in heads:
            if size != _RECEIVES:
                lent += numbers(body, at)[0]
                at += size
        return lent

    def take_choice(self, number: int, body: bytes, start: int) -> None:
        """A select of the other side. By the reader."""
        session = self._session
        waits, heads, at = _heads(body, start)
        cases: list[tuple[Any, int | None]] = []
        pins: dict[int, Any] = {}
        for channel, size in heads:
            exposed = session.references.entry(channel)
            if exposed is None or exposed.description.kind == "object":
                raise ValueError("a select among what is no channel")
            sends = size != _RECEIVES
            if ("send" if sends else "recv") not in exposed.allowed:
                raise ValueError("a select in a direction that the channel does not have")
            cases.append((exposed.obj, at if sends else None))
            if sends:
                for each in numbers(body, at)[1]:
                    pins[each] = session.references.own(each)
                at += size
        if not cases or at != len(body):
            raise ValueError("a select that is not as long as it says")
        served = self._served[number] = _Served()
        if any(place is not None for _, place in cases) or session.is_behind():
            go(self._serve, session, served, number, waits, cases, body, pins)
        else:
            served.start([(channel, False, None) for channel, _ in cases], waits, self._done(number))

    def _serve(
        self,
        session: Session,
        served: _Served,
        number: int,
        waits: bool,
        cases: list[tuple[Any, int | None]],
        body: bytes,
        pins: dict[int, Any],
    ) -> None:
        unread = [place for _, place in cases if place is not None]
        ready: list[tuple[Any, bool, Any]] = []
        try:
            session.wait_for_room()
            for channel, place in cases:
                if place is None:
                    ready.append((channel, False, None))
                else:
                    unread.pop(0)
                    ready.append((channel, True, decode(body, place, session, pins)))
            served.start(ready, waits, self._done(number))
        except BaseException as error:
            self._served.pop(number, None)
            session.tell_failed(number, error)
            for place in unread:
                session.references.refuse(numbers(body, place)[0])

    def _done(self, number: int) -> Callable[[_select.Outcome], None]:
        def done(outcome: _select.Outcome) -> None:
            self._served.pop(number, None)
            session = self._ref()
            if session is None:
                if outcome.receipt is not None:
                    outcome.receipt.undo()
            elif outcome.error is not None:
                session.tell_failed(number, outcome.error)
            elif outcome.receipt is None:
                session.tell_chosen(number, _CHOSEN.pack(outcome.index, _OK.index(outcome.ok), _NO_VALUE))
            elif type(outcome.value) in PLAIN:
                _send(session, number, outcome, _PLAIN)
            else:
                go(_send, session, number, outcome, _ANY)

        return done

    def give_up(self, number: int) -> bool:
        """The other side cancels one of its selects; whether it was one. By the reader."""
        served = self._served.get(number)
        if served is not None:
            served.cancel()
        return served is not None

    # The end

    def withdraw(self) -> None:
        """The other side is gone, and so are its selects."""
        for served in list(self._served.values()):
            served.cancel()

    def end(self) -> None:
        """The connection is over."""
        self.withdraw()
        for number in list(self._begun):
            self._answer(number, _select.Outcome(error=self._session.death()))


def _heads(body: bytes, start: int) -> tuple[bool, list[tuple[int, int]], int]:
    """Of a select: whether it waits; the channel of each case, and how long what it sends is; where that begins."""
    waits, count = _CASES.unpack_from(body, start)
    start += _CASES.size
    heads = [_CASE.unpack_from(body, start + at * _CASE.size) for at in range(count)]
    return bool(waits), heads, start + count * _CASE.size


def _bring(
    session: Session, begun: _Begun, outcome: _select.Outcome, body: bytes, start: int, pins: dict[int, Any]
) -> None:
    """Hands a value on to who waits for it."""
    try:
        outcome.value = decode(body, start, session, pins)
    except BaseException as error:
        # It cannot be rebuilt here: whoever wanted it hears that, and nobody else would fare better.
        outcome.receipt.taken()
        outcome = _select.Outcome(error=error)
    begun.operation.answered(outcome)


def _tell_failure(session: Session, begun: _Begun, body: bytes) -> None:
    begun.operation.answered(_select.Outcome(error=session.failure(body)))


def _send(session: Session, number: int, outcome: _select.Outcome, kind: int) -> None:
    """A value that was received for the other side, which keeps or refuses it."""
    try:
        message = encode(outcome.value, session)
        session.check_size(message, _CHOSEN.size)
    except BaseException as error:
        outcome.receipt.undo()  # what cannot be sent is not received
        session.tell_failed(number, error)
        return
    session.keep(number, outcome.receipt)
    session.tell_chosen(number, _CHOSEN.pack(outcome.index, _OK.index(outcome.ok), kind) + message.body)


CANCEL, TAKEN, UNDO = _messages.CANCEL, _messages.TAKEN, _messages.UNDO
"""What `_select` posts to a peer about an operation."""
