"""Channels of the other side: the same methods, carried out where the channel lives.

To send and to receive is a select with one case (`processes/_select.py`), done there by a wait in the stead of who
waits here; so rendezvous, order, `len` and `close` are those of the channel, and `goslings.select` takes these channels
together with any others. A value that was received for somebody who was cancelled, or who is gone, goes back to the
front. A send that is cancelled is asked for: either it was not carried out, or it returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NoReturn, Self

from goslings._errors import Closed, WouldBlock
from goslings._goslings import _may_block
from goslings.processes import _select
from goslings.processes._chan import _checked_timeout
from goslings.processes._remote._session import Session
from goslings.processes._remote._shared import Description

__all__ = ["CHANNELS", "RemoteChan", "RemoteRecvChan", "RemoteSendChan"]

_NOTHING: Any = object()


class _Remote:
    """What all three have."""

    __slots__ = ("__weakref__", "_description", "_goslings_home", "_number", "_session", "_whole")
    _goslings_directions = 0
    _goslings_view = 0

    def __init__(self, session: Session, number: int, description: Description, whole: Any = None) -> None:
        self._session, self._number, self._description = session, number, description
        self._goslings_home = session, number
        self._whole = whole
        """The channel that this is an end of, if the other side has lent it whole."""

    def _goslings_remote(self) -> tuple[Session, int, int]:
        return self._session, self._number, 0 if self._whole is None else self._goslings_view

    @property
    def closed(self) -> bool:
        """Whether it was closed. Asks the other side."""
        answer: bool = self._session.call(self._number, "closed", None, twin="go(getattr, ch, 'closed')")
        return answer

    @property
    def capacity(self) -> int:
        """How many values it can buffer. Asks the other side."""
        answer: int = self._session.call(self._number, "capacity", None, twin="go(getattr, ch, 'capacity')")
        return answer

    def __len__(self) -> int:
        answer: int = self._session.call(self._number, "__len__", (), twin="go(len, ch)")
        return answer

    def __bool__(self) -> Literal[True]:
        return True

    def __eq__(self, other: object) -> bool:
        return self._goslings_home == other._goslings_home if isinstance(other, _Remote) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._goslings_home)

    def __repr__(self) -> str:
        return f"<{self._description.kind} at {self._session.peer}>"

    def __copy__(self) -> NoReturn:
        raise TypeError("a channel cannot be copied")

    def __deepcopy__(self, _memo: object) -> NoReturn:
        raise TypeError("a channel cannot be copied")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a channel of the other side goes to processes of a pool, and through connections, only")


class _Sends[T](_Remote):
    __slots__ = ()

    def send(self, value: T, timeout: float | None = None) -> None:
        """As `chan.send`. Raises Disconnected, too: then nobody knows whether the value was delivered."""
        _may_block("ch.asend(value)")
        _sent(_select.wait([(self, True, value)], _checked_timeout(timeout)))

    def try_send(self, value: T) -> bool:
        """As `chan.try_send`; waits for the other side's answer."""
        outcome = _select.now([(self, True, value)])
        if outcome.index >= 0 and outcome.ok is None:
            raise Closed("send on closed channel")
        return outcome.index >= 0

    async def asend(self, value: T, timeout: float | None = None) -> None:
        """As `send`, awaited."""
        _sent(await _select.await_([(self, True, value)], _checked_timeout(timeout)))

    def close(self) -> None:
        """As `chan.close`."""
        self._session.call(self._number, "close", (), twin="go(ch.close)")


def _sent(outcome: _select.Outcome) -> None:
    if outcome.index < 0:
        raise TimeoutError("send timed out")
    if outcome.ok is None:
        raise Closed("send on closed channel")


class _Receives[T](_Remote):
    __slots__ = ()

    def recv_ok(self, timeout: float | None = None) -> tuple[T, Literal[True]] | tuple[None, Literal[False]]:
        """As `chan.recv_ok`. Raises Disconnected, too; the channel keeps its values then."""
        _may_block("ch.arecv_ok()")
        answer: tuple[T, Literal[True]] | tuple[None, Literal[False]]
        answer = _received(_select.wait([(self, False, None)], _checked_timeout(timeout)))
        return answer

    def recv(self, timeout: float | None = None) -> T:
        """As `chan.recv`. Raises Disconnected, too."""
        _may_block("ch.arecv()")
        value: T = _value(_received(_select.wait([(self, False, None)], _checked_timeout(timeout))))
        return value

    def try_recv(self, default: Any = _NOTHING) -> T:
        """As `chan.try_recv`; waits for the other side's answer."""
        outcome = _select.now([(self, False, None)])
        if outcome.index >= 0:
            value: T = _value(_received(outcome))
            return value
        if default is _NOTHING:
            raise WouldBlock("nothing to receive")
        given: T = default
        return given

    async def arecv_ok(self, timeout: float | None = None) -> tuple[T, Literal[True]] | tuple[None, Literal[False]]:
        """As `recv_ok`, awaited."""
        answer: tuple[T, Literal[True]] | tuple[None, Literal[False]]
        answer = _received(await _select.await_([(self, False, None)], _checked_timeout(timeout)))
        return answer

    async def arecv(self, timeout: float | None = None) -> T:
        """As `recv`, awaited."""
        value: T = _value(await self.arecv_ok(timeout))
        return value

    def __iter__(self) -> Iterator[T]:
        while True:
            answer = self.recv_ok()
            if not answer[1]:
                return
            yield answer[0]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        answer = await self.arecv_ok()
        if not answer[1]:
            raise StopAsyncIteration
        return answer[0]


def _received(outcome: _select.Outcome) -> Any:
    if outcome.index < 0:
        raise TimeoutError("recv timed out")
    return outcome.value, bool(outcome.ok)


def _value(answer: tuple[Any, bool]) -> Any:
    value, ok = answer
    if not ok:
        raise Closed("receive on closed channel")
    return value


class RemoteSendChan[T](_Sends[T]):
    """The sending end of a channel of the other side: as `SendChan`."""

    __slots__ = ()
    _goslings_directions = 2
    _goslings_view = 1


class RemoteRecvChan[T](_Receives[T]):
    """The receiving end of a channel of the other side: as `RecvChan`."""

    __slots__ = ()
    _goslings_directions = 1
    _goslings_view = 2


class RemoteChan[T](_Sends[T], _Receives[T]):
    """A channel of the other side: as `chan`."""

    __slots__ = ()
    _goslings_directions = 3

    def sender(self) -> RemoteSendChan[T]:
        """A view that only sends."""
        return RemoteSendChan(self._session, self._number, self._description._replace(kind="SendChan"), self)

    def receiver(self) -> RemoteRecvChan[T]:
        """A view that only receives."""
        return RemoteRecvChan(self._session, self._number, self._description._replace(kind="RecvChan"), self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.close()
        except Closed:
            pass


CHANNELS: dict[str, type[_Remote]] = {"chan": RemoteChan, "SendChan": RemoteSendChan, "RecvChan": RemoteRecvChan}
"""By the kind in a description."""
