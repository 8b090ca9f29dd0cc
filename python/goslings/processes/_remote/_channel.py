"""Channels of the other side: the same methods, carried out where the channel lives.

An operation is a call like any other, done there by a goroutine that acts for who waits here; so rendezvous, order,
`len` and `close` are those of the channel. A value that was received for somebody who was cancelled, or who is gone,
goes back to the front (`_session.py`, KEEP). A send that is cancelled is asked for: either it was not carried out, or
it returns.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal, NoReturn, Self

from goslings._errors import Closed, WouldBlock
from goslings.processes._remote._session import Session
from goslings.processes._remote._shared import Description

__all__ = ["CHANNELS", "RemoteChan", "RemoteRecvChan", "RemoteSendChan"]

_NOTHING: Any = object()


class _Remote:
    """What all three have."""

    __slots__ = ("__weakref__", "_description", "_number", "_session")

    def __init__(self, session: Session, number: int, description: Description) -> None:
        self._session, self._number, self._description = session, number, description

    def _goslings_remote(self) -> tuple[Session, int]:
        return self._session, self._number

    @property
    def closed(self) -> bool:
        """Whether it was closed. Asks the other side."""
        answer: bool = self._session.call(self._number, "closed", None)
        return answer

    @property
    def capacity(self) -> int:
        """How many values it can buffer. Asks the other side."""
        answer: int = self._session.call(self._number, "capacity", None)
        return answer

    def __len__(self) -> int:
        answer: int = self._session.call(self._number, "__len__", ())
        return answer

    def __bool__(self) -> Literal[True]:
        return True

    def __repr__(self) -> str:
        return f"<{self._description.kind} at {self._session.peer}>"

    def __copy__(self) -> NoReturn:
        raise TypeError("a channel cannot be copied")

    def __deepcopy__(self, _memo: object) -> NoReturn:
        raise TypeError("a channel cannot be copied")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a channel of the other side goes through the connection that it came from only")

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if _is_finalizing():
            return  # what this would call may be gone already
        if self._number:
            self._session.dropped(self._number)


class _Sends[T](_Remote):
    __slots__ = ()

    def send(self, value: T, timeout: float | None = None) -> None:
        """As `chan.send`. Raises Disconnected, too: then nobody knows whether the value was delivered."""
        self._session.call(self._number, "send", (value, timeout), certain=True)

    def try_send(self, value: T) -> bool:
        """As `chan.try_send`; waits for the other side's answer."""
        answer: bool = self._session.call(self._number, "try_send", (value,), certain=True)
        return answer

    async def asend(self, value: T, timeout: float | None = None) -> None:
        """As `send`, awaited. Cancelled, it may have been delivered."""
        await self._session.acall(self._number, "send", (value, timeout))

    def close(self) -> None:
        """As `chan.close`."""
        self._session.call(self._number, "close", ())


class _Receives[T](_Remote):
    __slots__ = ()

    def recv_ok(self, timeout: float | None = None) -> tuple[T, Literal[True]] | tuple[None, Literal[False]]:
        """As `chan.recv_ok`. Raises Disconnected, too; the channel keeps its values then."""
        answer: tuple[T, Literal[True]] | tuple[None, Literal[False]]
        answer = self._session.call(self._number, "recv_ok", (timeout,), keep=True)
        return answer

    def recv(self, timeout: float | None = None) -> T:
        """As `chan.recv`. Raises Disconnected, too."""
        value: T = _value(self.recv_ok(timeout))
        return value

    def try_recv(self, default: Any = _NOTHING) -> T:
        """As `chan.try_recv`; waits for the other side's answer."""
        try:
            return self.recv(0)
        except TimeoutError:
            if default is _NOTHING:
                raise WouldBlock("nothing to receive") from None
            given: T = default
            return given

    async def arecv_ok(self, timeout: float | None = None) -> tuple[T, Literal[True]] | tuple[None, Literal[False]]:
        """As `recv_ok`, awaited."""
        answer: tuple[T, Literal[True]] | tuple[None, Literal[False]]
        answer = await self._session.acall(self._number, "recv_ok", (timeout,), keep=True)
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


def _value(answer: tuple[Any, bool]) -> Any:
    value, ok = answer
    if not ok:
        raise Closed("receive on a closed channel")
    return value


class RemoteSendChan[T](_Sends[T]):
    """The sending end of a channel of the other side: as `SendChan`."""

    __slots__ = ()


class RemoteRecvChan[T](_Receives[T]):
    """The receiving end of a channel of the other side: as `RecvChan`."""

    __slots__ = ()


class RemoteChan[T](_Sends[T], _Receives[T]):
    """A channel of the other side: as `chan`."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.close()
        except Closed:
            pass


CHANNELS: dict[str, type[_Remote]] = {"chan": RemoteChan, "SendChan": RemoteSendChan, "RecvChan": RemoteRecvChan}
"""By the kind in a description."""
