"""Channels of another process: what a channel is where it does not live.

A channel lives in the process that made it, and there alone is its buffer and are its queues. What others have are
objects with the same methods; each call is an operation at home, where somebody waits in the caller's stead. So a
rendezvous is one, waiters are served in order, `len` and `close` mean what they mean at home.

`Origin` is what a process has of one channel, once; the channel and its two views, as users see them, are small
objects on top of it. They are equal to each other, as local ones are. When the last of them goes, home is told.
"""

from __future__ import annotations

import math
import weakref
from types import GenericAlias
from typing import Any, NoReturn, Self

from goslings._errors import Closed, WouldBlock
from goslings._goslings import _Claims, _Foreign, _may_block
from goslings.processes import _select

__all__ = ["Chan", "RecvChan", "SendChan"]

_MISSING = object()


class Origin:
    """What this process has of a channel of a peer; that it is gone is told by its peer's weak reference."""

    __slots__ = ("__weakref__", "_capacity", "_views", "claims", "number", "outflow", "peer")

    def __init__(self, peer: Any, number: int) -> None:
        self.peer = peer
        self.number = number
        self.outflow = peer.outflow(number)
        """What sends without an answer, if home has promised room."""
        self.claims: _Claims | None = None
        """Values that can be received without asking, if home sends copies ahead."""
        self._capacity: int | None = None
        self._views: dict[int, weakref.ref[Any]] = {}

    def view(self, kind: int) -> Any:
        """The channel (0), its sending (1) or receiving (2) end."""
        ref = self._views.get(kind)
        known = None if ref is None else ref()
        if known is None:
            known = (Chan, SendChan, RecvChan)[kind](self)
            self._views[kind] = weakref.ref(known)
        return known

    @property
    def capacity(self) -> int:
        if self._capacity is None:
            self._capacity = self.peer.ask(self.number, "capacity")
        return self._capacity


class _Common(_Foreign):
    """What the channel and its views share."""

    __slots__ = ("__weakref__", "_goslings_home", "_origin")

    _goslings_directions = 0
    _goslings_view = 0

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._goslings_home = (origin.peer, origin.number)

    @property
    def capacity(self) -> int:
        """As `chan.capacity`."""
        return self._origin.capacity

    def __len__(self) -> int:
        answer: int = self._origin.peer.ask(self._origin.number, "len")
        return answer

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return self._origin is other._origin if isinstance(other, _Common) else NotImplemented

    def __hash__(self) -> int:
        return hash(id(self._origin))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._origin.number} of {self._origin.peer.name}>"

    def __copy__(self) -> NoReturn:
        raise TypeError("a channel cannot be copied: it is a reference already, pass it on as it is")

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.__copy__()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a channel of another process travels between the processes of a pool only")

    def __class_getitem__(cls, key: object) -> GenericAlias:
        return GenericAlias(cls, key)


class _Sends(_Common):
    """What sends."""

    __slots__ = ()

    send = _Foreign._send

    def _send_otherwise(self, value: Any, timeout: float | None, sent: bool | bytes | None) -> None:
        """What `send` has not done in one step; `sent` is what `_Outflow.send` says."""
        if timeout is not None:
            timeout = _checked_timeout(timeout)
        cases = self._case(value, sent)
        if cases is not None:
            peer, number = self._goslings_home
            self._sent(_select.wait_one(peer, number, cases[0][2], timeout))

    async def asend(self, value: Any, timeout: float | None = None) -> None:
        """As `chan.asend`."""
        sent = self._origin.outflow.send(value)
        if sent is True:
            return
        seconds = _checked_timeout(timeout)
        cases = self._case(value, sent)
        if cases is not None:
            self._sent(await _select.await_(cases, seconds, packed=True))

    def _case(self, value: Any, sent: bool | bytes | None) -> list[tuple[Any, bool, Any]] | None:
        """Sends what needs no answer; else what is to be asked of home."""
        origin = self._origin
        if type(sent) is not bytes:
            parcel = origin.peer.parcel()
            payload = origin.peer.pack(value, "value", parcel)
            small = sent is None and not parcel and type(payload[0]) is bytes and not payload[1]
            sent = origin.outflow.send_pickle(payload[0]) if small else False
            if sent is False:
                return [(self, True, (payload, parcel))]
            parcel.sent()
        if type(sent) is bytes:
            origin.peer.post_frame([sent])
        return None

    def _sent(self, outcome: _select.Outcome) -> None:
        if outcome.index < 0:
            raise TimeoutError("send timed out")
        if outcome.ok is None:
            raise Closed("send on closed channel")

    def try_send(self, value: Any) -> bool:
        """As `chan.try_send`; takes as long as a message there and back."""
        outcome = _select.now([(self, True, value)])
        if outcome.index >= 0 and outcome.ok is None:
            raise Closed("send on closed channel")
        return outcome.index >= 0

    def close(self) -> None:
        """As `chan.close`; takes as long as a message there and back."""
        self._origin.peer.ask(self._origin.number, "close")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.close()
        except Closed:
            return


class _Receives(_Common):
    """What receives."""

    __slots__ = ()

    recv = _Foreign._recv

    def _recv_otherwise(self, timeout: float | None) -> Any:
        """What `recv` has not done in one step."""
        if timeout is not None:
            timeout = _checked_timeout(timeout)
            claims = self._origin.claims
            if claims is not None and (value := claims.claim()) is not claims:
                return value
        value, ok = self._received(_select.wait_one(*self._goslings_home, None, timeout))
        if not ok:
            raise Closed("receive on closed channel")
        return value

    async def arecv(self, timeout: float | None = None) -> Any:
        """As `chan.arecv`."""
        value, ok = await self.arecv_ok(timeout)
        if not ok:
            raise Closed("receive on closed channel")
        return value

    def recv_ok(self, timeout: float | None = None) -> tuple[Any, bool]:
        """As `chan.recv_ok`."""
        _may_block("ch.arecv_ok()")
        if timeout is not None:
            timeout = _checked_timeout(timeout)
        claims = self._origin.claims
        if claims is not None and (value := claims.claim()) is not claims:
            return value, True
        return self._received(_select.wait_one(*self._goslings_home, None, timeout))

    async def arecv_ok(self, timeout: float | None = None) -> tuple[Any, bool]:
        """As `chan.arecv_ok`."""
        if timeout is not None:
            timeout = _checked_timeout(timeout)
        claims = self._origin.claims
        if claims is not None and (value := claims.claim()) is not claims:
            return value, True
        return self._received(await _select.await_([(self, False, None)], timeout))

    def _received(self, outcome: _select.Outcome) -> tuple[Any, bool]:
        if outcome.index < 0:
            raise TimeoutError("recv timed out")
        return outcome.value, bool(outcome.ok)

    def try_recv(self, default: Any = _MISSING) -> Any:
        """As `chan.try_recv`; takes as long as a message there and back, unless values have come ahead."""
        claims = self._origin.claims
        if claims is not None and (value := claims.claim()) is not claims:
            return value
        outcome = _select.now([(self, False, None)])
        if outcome.index < 0:
            if default is _MISSING:
                raise WouldBlock("nothing to receive")
            return default
        if not outcome.ok:
            raise Closed("receive on closed channel")
        return outcome.value

    @property
    def closed(self) -> bool:
        """As `chan.closed`."""
        answer: bool = self._origin.peer.ask(self._origin.number, "closed")
        return answer

    def __iter__(self) -> Self:
        return self

    __next__ = _Foreign._next

    def _next_otherwise(self) -> Any:
        """What `next` has not done in one step."""
        value, ok = self._received(_select.wait_one(*self._goslings_home, None, None))
        if not ok:
            raise StopIteration
        return value

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        value, ok = await self.arecv_ok()
        if not ok:
            raise StopAsyncIteration
        return value


class Chan(_Sends, _Receives):
    """A channel of another process."""

    __slots__ = ()
    _goslings_directions = 3
    _goslings_view = 0

    def sender(self) -> SendChan:
        """A view that only sends."""
        view: SendChan = self._origin.view(1)
        return view

    def receiver(self) -> RecvChan:
        """A view that only receives."""
        view: RecvChan = self._origin.view(2)
        return view


class SendChan(_Sends):
    """The sending end of a channel of another process."""

    __slots__ = ()
    _goslings_directions = 2
    _goslings_view = 1

    @property
    def closed(self) -> bool:
        """As `chan.closed`."""
        answer: bool = self._origin.peer.ask(self._origin.number, "closed")
        return answer


class RecvChan(_Receives):
    """The receiving end of a channel of another process."""

    __slots__ = ()
    _goslings_directions = 1
    _goslings_view = 2


def _checked_timeout(timeout: Any) -> float | None:
    """As the runtime checks it: before anything is sent."""
    if timeout is None:
        return None
    if not hasattr(timeout, "__float__"):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
    try:
        seconds = float(timeout)
    except OverflowError:
        return None if timeout > 0 else 0.0
    if math.isnan(seconds):
        raise ValueError("timeout must not be NaN")
    return seconds
