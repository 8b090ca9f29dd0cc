"""TLS above a connection: what OpenSSL reads and writes goes through memory, and the connection below carries it.

What a call does is a generator that yields what it has to wait for, and is told what came of it. One loop waits for
that as everything in goslings does, another awaits it: so `recv` and `arecv` are the same code.

**Invariants**
* OpenSSL's object and its two memories are touched under `_state` alone, by one at a time: OpenSSL lets go of the
  interpreter. Nothing waits under it.
* What comes is received and put into `_in` under `_receiving`, and what goes is taken out of `_out` and sent under
  `_sending`: so bytes keep their order, whoever carries them.
* Who reads may find that OpenSSL has something to say while another sends. It leaves that to the other, who looks again
  after having let go of `_sending`.
* After a send that broke off nobody knows where the next record would have to begin: nothing is sent any more.
"""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Awaitable, Buffer, Callable, Generator
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, Self

from goslings._goslings import Conn, Listener, Mutex, go

__all__ = ["HANDSHAKE_SECONDS", "TlsConn", "TlsListener"]

HANDSHAKE_SECONDS = 10.0
"""How long a handshake may take, if nothing else is said. Go's HTTP transport allows as much."""
_PIECE = 256 * 1024
"""So much is encrypted at a time: it is in memory twice."""
_RECEIVE = 32 * 1024
"""Two records, nearly."""


class _Need(NamedTuple):
    """Something to wait for: a call and its awaited twin, whose last argument is a timeout."""

    call: Callable[..., Any]
    twin: Callable[..., Awaitable[Any]]
    args: tuple[Any, ...] = ()
    end: float | None = None
    """When it must be over in any case."""

    def left(self, end: float | None) -> float | None:
        if self.end is not None and (end is None or self.end < end):
            end = self.end
        return None if end is None else max(0.0, end - monotonic())


type _Steps[T] = Generator[_Need, Any, T]


def _run[T](steps: _Steps[T], timeout: float | None) -> T:
    """Takes the steps, and blocks where they wait: at most so many seconds in all."""
    end = None if timeout is None else monotonic() + timeout
    try:
        need = next(steps)
        while True:
            try:
                answer = need.call(*need.args, need.left(end))
            except BaseException as error:
                need = steps.throw(error)
            else:
                need = steps.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result


async def _await[T](steps: _Steps[T], timeout: float | None) -> T:
    """The same, awaiting."""
    end = None if timeout is None else monotonic() + timeout
    try:
        need = next(steps)
        while True:
            try:
                answer = await need.twin(*need.args, need.left(end))
            except BaseException as error:
                need = steps.throw(error)
            else:
                need = steps.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result


class TlsConn(Conn):
    """A connection that talks TLS. All calls of `Conn` work as there; `recv` gives b"" after the other side's farewell.

    Made by `dial` and `listen` with `tls`. `TlsConn(conn, context)` begins to talk TLS on a connection in use
    (STARTTLS), as its client, or as `server_side`; `server_hostname` is whom the certificate is to name. The handshake
    is made by `handshake`, or else by the first call that receives or sends, and takes at most `handshake_timeout`
    seconds: then TimeoutError.

    Errors of TLS are ssl.SSLError, which is an OSError; an end without a farewell is ssl.SSLEOFError: somebody may have
    cut something off. After a send that failed or timed out all others fail.
    """

    __slots__ = (
        *("_below", "_broken", "_fills", "_greeting", "_in", "_left", "_out", "_patience", "_receiving"),
        *("_sending", "_shaken", "_state", "_taken_leave", "_tls"),
    )
    _below: Conn
    _in: ssl.MemoryBIO
    _out: ssl.MemoryBIO
    _tls: ssl.SSLObject
    _patience: float
    _state: Mutex
    _greeting: Mutex
    _receiving: Mutex
    _sending: Mutex
    _fills: int
    """How often something was put into `_in`; under `_state`."""
    _left: bytes
    """What could not be sent at once, and comes before what is in `_out`; under `_sending`."""
    _shaken: bool
    _broken: bool
    _taken_leave: bool

    def __new__(
        cls,
        conn: Conn,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        handshake_timeout: float = HANDSHAKE_SECONDS,
    ) -> Self:
        self = super().__new__(cls, conn)
        self._below = conn
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side, server_hostname)
        self._patience = handshake_timeout
        self._state, self._greeting = Mutex(), Mutex()
        self._receiving, self._sending = Mutex(), Mutex()
        self._fills, self._left = 0, b""
        self._shaken = self._broken = self._taken_leave = False
        return self

    # What it consists of

    def _lock(self, mutex: Mutex, end: float | None = None) -> _Steps[None]:
        if not mutex.try_lock():
            yield _Need(mutex.lock, mutex.alock, (), end)

    def _doing[T](self, call: Callable[[], T], send: _Need | None, end: float | None = None) -> _Steps[T]:
        """Has OpenSSL do something, as often as it wants to hear more, and sends what it says.

        `send`: how; None: what it says is of no interest to the caller, who does not wait for others to send theirs.
        """
        while True:
            yield from self._lock(self._state, end)
            failure: ssl.SSLError | None = None
            wants = False
            fills = self._fills
            try:
                answer = call()
            except ssl.SSLWantReadError:
                wants = True
            except ssl.SSLError as error:
                failure = error
            finally:
                says = self._out.pending > 0
                self._state.unlock()
            if failure is not None:
                self._flush_now()  # an alert, perhaps
                if self.closed:
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None
                raise failure
            if send is not None or says:
                yield from self._flush(send, end)
            if not wants:
                return answer
            yield from self._fill(fills, end)

    def _flush(self, send: _Need | None, end: float | None) -> _Steps[None]:
        """Sends what OpenSSL has to say."""
        must = send is not None
        call, twin = (send.call, send.twin) if send is not None else (self._below.send, self._below.asend)
        while must or (yield from self._says()):
            if self._broken and not must:
                return
            if not self._sending.try_lock():
                if not must:
                    return
                yield _Need(self._sending.lock, self._sending.alock, (), end)
            must = False
            try:
                if self._broken:
                    raise BrokenPipeError(errno.EPIPE, "an earlier send broke off")
                while True:
                    yield from self._lock(self._state, end)
                    data = self._left + self._out.read()
                    self._state.unlock()
                    if not data:
                        break
                    self._left, self._broken = b"", True
                    yield _Need(call, twin, (data,), end)
                    self._broken = False
            finally:
                self._sending.unlock()

    def _says(self) -> _Steps[bool]:
        """Whether there is something to send."""
        yield from self._lock(self._state)
        pending = self._out.pending > 0
        self._state.unlock()
        return pending

    def _fill(self, fills: int, end: float | None) -> _Steps[None]:
        """Hears more of the other side, unless somebody has meanwhile."""
        yield from self._lock(self._receiving, end)
        try:
            if self._fills != fills:
                return
            data = yield _Need(self._below.recv, self._below.arecv, (_RECEIVE,), end)
            yield from self._lock(self._state)
            if data:
                self._in.write(data)
            else:
                self._in.write_eof()
            self._fills += 1
            self._state.unlock()
        finally:
            self._receiving.unlock()

    def _shake(self) -> _Steps[None]:
        if self._shaken:
            return
        end = monotonic() + self._patience
        try:
            yield from self._lock(self._greeting, end)
            try:
                if not self._shaken:
                    yield from self._doing(self._tls.do_handshake, self._plainly, end)
                    self._shaken = True
            finally:
                self._greeting.unlock()
        except TimeoutError:
            if monotonic() < end:
                raise
            raise TimeoutError(f"the TLS handshake took longer than {self._patience:g} s") from None

    @property
    def _plainly(self) -> _Need:
        return _Need(self._below.send, self._below.asend)

    def _read(self, n: int) -> _Steps[bytes]:
        yield from self._shake()
        try:
            return (yield from self._doing(lambda: self._take_rest(n) or self._tls.read(n), None))
        except ssl.SSLZeroReturnError:
            return b""

    def _write(self, data: Buffer, send: _Need) -> _Steps[None]:
        yield from self._shake()
        if self._taken_leave and not self.closed:
            raise BrokenPipeError(errno.EPIPE, "nothing is sent after close_write")
        with memoryview(data) as view, view.cast("B") as left:
            done = 0
            while done < len(left):
                with left[done : done + _PIECE] as piece:
                    done += yield from self._doing(partial(self._tls.write, piece), send)

    def _flush_now(self) -> bool:
        """Sends what there is room for; whether that was everything. Never blocks."""
        if self._broken or not self._sending.try_lock():
            return False
        try:
            if not self._state.try_lock():
                return False
            data = self._left + self._out.read()
            self._state.unlock()
            with suppress(OSError):
                self._left = data[self._below._try_send(data) :] if data else b""
            return not self._left
        finally:
            self._sending.unlock()

    def _say_goodbye(self) -> bool:
        """Says that nothing more will be sent; whether that is on its way. Never blocks."""
        if not self._shaken or not self._state.try_lock():
            return False
        try:
            with suppress(OSError, ValueError):
                while data := self._tls.read(_RECEIVE):  # else it might be thrown away
                    self._put_rest(self._take_rest(1 << 30) + data)
            self._taken_leave = True
            with suppress(OSError, ValueError):
                self._tls.unwrap()
        finally:
            self._state.unlock()
        return self._flush_now()

    # What `Conn` has

    def handshake(self, timeout: float | None = None) -> None:
        """Makes the handshake, if it was not made yet. Blocks, at most `timeout` seconds. Raises OSError: ssl.SSLError,
        ssl.SSLCertVerificationError, TimeoutError."""
        _run(self._shake(), timeout)

    def ahandshake(self, timeout: float | None = None) -> Awaitable[None]:
        """As `handshake`, awaited."""
        return _await(self._shake(), timeout)

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """What knows of the protocol: `version()`, `cipher()`, `getpeercert()`, `selected_alpn_protocol()`. To read and
        to write there would be a mistake."""
        return self._tls

    def recv(self, n: int = 65536, timeout: float | None = None) -> bytes:
        """As `Conn.recv`."""
        return self._take_rest(n) or _run(self._read(n), timeout)

    def recv_into(self, buffer: Buffer, nbytes: int = 0, timeout: float | None = None) -> int:
        """As `Conn.recv_into`."""
        with memoryview(buffer) as view, view.cast("B") as room:
            if nbytes > len(room):
                raise ValueError("buffer too small for requested bytes")
            data = self.recv(nbytes or len(room), timeout)
            room[: len(data)] = data
            return len(data)

    def send(self, data: Buffer, timeout: float | None = None) -> None:
        """As `Conn.send`."""
        _run(self._write(data, self._plainly), timeout)

    def _send_parts(self, data: Buffer, timeout: float) -> None:
        def call(data: bytes, _: float | None) -> None:
            self._below._send_parts(data, timeout)

        _run(self._write(data, _Need(call, self._below.asend)), None)

    def arecv(self, n: int = 65536, timeout: float | None = None) -> Awaitable[bytes]:
        """As `recv`, awaited."""
        return _await(self._read(n), timeout)

    def asend(self, data: Buffer, timeout: float | None = None) -> Awaitable[None]:
        """As `send`, awaited."""
        return _await(self._write(bytes(data), self._plainly), timeout)

    def close_write(self) -> None:
        """As `Conn.close_write`, with the farewell of TLS. Never blocks."""
        if self._say_goodbye() or self._broken or not self._shaken:
            self._below.close_write()
        else:
            go(self._close_write)

    def _close_write(self) -> None:
        """The end of `close_write`, where the farewell has to wait."""
        with suppress(OSError):
            _run(self._flush(self._plainly, None), None)
            self._below.close_write()

    def close(self) -> None:
        """As `Conn.close`. Says farewell before, if that does not take waiting."""
        if not self.closed:
            self._say_goodbye()
        super().close()

    def __repr__(self) -> str:
        return super().__repr__().replace("Conn", "TlsConn")


class TlsListener(Listener):
    """A listener whose connections talk TLS. `TlsListener(fd, context)` takes over a listening stream socket."""

    __slots__ = ("_context", "_patience")
    _context: ssl.SSLContext
    _patience: float

    def __new__(cls, fd: int, context: ssl.SSLContext, *, handshake_timeout: float = HANDSHAKE_SECONDS) -> Self:
        if not isinstance(context, ssl.SSLContext):
            raise TypeError(f"tls is an ssl.SSLContext, not {context!r}")
        self = super().__new__(cls, fd)
        self._context = context
        self._patience = handshake_timeout
        return self

    def _above(self, conn: Conn) -> TlsConn:
        return TlsConn(conn, self._context, server_side=True, handshake_timeout=self._patience)

    def accept(self, timeout: float | None = None) -> TlsConn:
        """As `Listener.accept`. The first call on the connection makes the handshake."""
        return self._above(super().accept(timeout))

    async def aaccept(self, timeout: float | None = None) -> TlsConn:
        """As `accept`, awaited."""
        return self._above(await super().aaccept(timeout))

    def __next__(self) -> TlsConn:
        return self._above(super().__next__())

    async def __anext__(self) -> TlsConn:
        return self._above(await super().__anext__())

    def __repr__(self) -> str:
        return super().__repr__().replace("Listener", "TlsListener")
