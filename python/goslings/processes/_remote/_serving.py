"""Calls of the other side, carried out here: each by a goroutine of its own, and each is answered."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any

from goslings._errors import GoExit
from goslings._goslings import Goroutine, WaitGroup, current, go
from goslings.processes._remote._carry import Message, decode, encode, numbers
from goslings.processes._remote._errors import describe, text_of
from goslings.processes._remote._shared import ASKED, Shared

if TYPE_CHECKING:
    from goslings.processes._remote._session import Session

__all__ = ["Serving", "failed", "failed_because"]

_SHORT = 300
"""So many bytes of a failure are told to who takes no more."""


class _Call:
    """A call that is being carried out."""

    __slots__ = ("goroutine", "unwanted")

    def __init__(self) -> None:
        self.goroutine: Goroutine[Any] | None = None
        self.unwanted = False

    def cancel(self, why: str) -> None:
        # Said first, and then looked for: whoever starts does it the other way round, so one of the two sees the other.
        self.unwanted = True
        if self.goroutine is not None:
            self.goroutine.cancel(why)


class Serving:
    """The calls of the other side."""

    def __init__(self, session: Session) -> None:
        # Weakly: a session that nobody refers to ends. Those that are carried out hold it.
        self._ref = weakref.ref(session)
        self._running: dict[int, _Call] = {}
        self.busy = WaitGroup()
        """Calls of methods, until their answers are on their way."""

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, session: Session, number: int, body: bytes, start: int) -> None:
        """Begins one. By the reader."""
        lent, yours, _ = numbers(body, start)
        pins = {each: session.references.own(each) for each in yours} if yours else None
        call = self._running[number] = _Call()
        go(self._serve, session, call, number, body, start, lent, pins)

    def cancel(self, number: int) -> None:
        """The caller has given up. By the reader."""
        call = self._running.get(number)
        if call is not None:
            call.cancel("the caller has given up")

    def end(self) -> None:
        """The connection is over."""
        for call in list(self._running.values()):
            call.cancel("the other side has disconnected")

    def _serve(
        self,
        session: Session,
        call: _Call,
        number: int,
        body: bytes,
        start: int,
        lent: tuple[int, ...],
        pins: dict[int, Any] | None,
    ) -> None:
        """Carries out a call. Whatever happens, it is answered."""
        busy: list[None] = []
        value: Any = None
        told = False
        try:
            call.goroutine = current()
            try:
                session.wait_for_room()  # who takes no answers gets no more of them
                if call.unwanted or session.over is not None:
                    raise CancelledError("nobody waits for it")
                lent = ()  # it is read
                request = decode(body, start, session, pins)
                value = self._carry_out(session, busy, *request)
                del request
                message = _answer(session, value)
            except Exception as error:
                session.tell_failed(number, error)
            else:
                session.tell_answer(number, message)
            told = True
            value = None  # not before: what it names is the other side's, who keeps it as long as there is a proxy here
        except BaseException as error:
            # Cancelled, by who called or by the program; or SystemExit and the like, which are not to end the caller.
            if isinstance(error, GoExit):
                error = RuntimeError("the call ended its goroutine")
            session.tell_failed(number, error)
            told = True
        finally:
            if not told:
                session.tell_failed(number, RuntimeError("the call failed, and how cannot be told"))
            session.references.refuse(lent)
            self._running.pop(number, None)
            if busy:
                self.busy.done()

    def _carry_out(
        self,
        session: Session,
        busy: list[None],
        target: int,
        name: str,
        args: tuple[Any, ...] | None,
        kwargs: dict[str, Any] | None,
    ) -> Any:
        exposed = session.references.entry(target)
        if exposed is None:
            raise RuntimeError("the object is not there any more")
        if name not in exposed.allowed or (exposed.description.kind != "object" and name not in ASKED):
            raise AttributeError(f"{exposed.description.name} does not expose {name!r}")
        if args is None:
            return getattr(exposed.obj, name)
        if exposed.description.kind != "object":
            return getattr(exposed.obj, name)()
        self.busy.add()
        busy.append(None)  # until the answer is on its way
        value = getattr(exposed.obj, name)(*args, **(kwargs or {}))
        if iscoroutine(value):
            value = _await(value)
        if name in ("__iter__", "__reversed__"):
            value = Shared(value, ("__next__", "__iter__"))
        return value


def _await(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Runs what an async method returned, as an async goroutine; cancelled with who waits for it."""

    async def run() -> Any:
        return await coroutine

    goroutine = go(run)
    try:
        return goroutine.result()
    except BaseException:
        goroutine.cancel()
        raise


def _answer(session: Session, value: Any) -> Message:
    message = encode(value, session, [("result", value)])
    if not session.takes(message):
        session.references.take_back(message.lent)
        raise ValueError(f"an answer of {len(message.body)} bytes: the caller takes at most {session.peer_limit}")
    return message


def failed(session: Session, error: BaseException) -> Message:
    """The message that tells of an exception."""
    pickled = None
    if isinstance(error, Exception | CancelledError):
        try:
            pickled = pickle.dumps(error, 5)
            pickle.loads(pickled)  # some can be written and not be read
        except Exception:
            pickled = None
    text, where = text_of(error), describe(error, within=__file__)
    message = encode((pickled, text, where), session)
    if not session.takes(message):
        text = text.encode(errors="replace")[:_SHORT].decode(errors="ignore")
        where = where.encode(errors="replace")[-_SHORT:].decode(errors="ignore")
        message = failed_because(session, text, where)
    return message


def failed_because(session: Session, text: str, where: str = "") -> Message:
    """The same in words."""
    return encode((None, text, where), session)
