"""Connections between processes: the standard library's, whose calls park goroutines; and those that keep messages
whole.

`Connection` speaks the same bytes as `multiprocessing.connection.Connection`, so that either end may be of either kind.
In a goroutine it waits parked; on a plain thread it does what the standard library does. Goroutines are cancelled, so a
call may end in the middle of a message, and the stream must not lose its place: what is left of a message that has
begun to go is kept in the object and goes before the next one; what has come of one is kept for the next who receives.

`Messages` is one end of a Unix socket of the kind SEQPACKET: the system keeps messages whole and in order however many
processes write and read at one time. So queues need no locks between processes, and a process that is killed in the
middle of `put` or `get` leaves neither half a message nor a lock that nobody opens. What is too large for a packet goes
into a memory file, whose descriptor travels instead.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Iterable
from multiprocessing import connection as _std
from multiprocessing import reduction as _reduction
from multiprocessing.connection import AuthenticationError as AuthenticationError  # type: ignore[attr-defined]  # no stub
from multiprocessing.connection import BufferTooShort as BufferTooShort  # type: ignore[attr-defined]  # no stub
from multiprocessing.connection import Client as Client
from multiprocessing.connection import Listener as Listener
from multiprocessing.connection import answer_challenge as answer_challenge
from multiprocessing.connection import deliver_challenge as deliver_challenge
from typing import Any

from goslings._goslings import AtomicInt, _can_park, _recv_packet, _send_packet, closing_fd, read_fd, wait_fd, write_fd
from goslings.compat.multiprocessing._ready import ready

__all__ = ["Client", "Connection", "Listener", "Pipe", "wait"]

_PIECE = select.PIPE_BUF
"""So much goes in one piece wherever there is room at all."""
_CHUNK = 1 << 20
"""The most that is read at a time."""
_TOGETHER = 16 * 1024
"""Up to so many bytes a message goes together with its header, as the library does it."""


class Connection(_std.Connection):
    """As `multiprocessing.connection.Connection`.

    A goroutine that is cancelled in `send` has either sent nothing, or its message goes in full: the rest of it with
    the next `send` on this object. One that is cancelled in `recv` has taken nothing.
    """

    _handle: Any
    _rest: tuple[Any, ...] = ()
    """What is left of a message that has begun to go."""
    _begun: tuple[io.BytesIO, io.BytesIO] | None = None
    """What has come of a message: of its header, and of its body."""

    def _close(self, _closing: Any = closing_fd, _close: Any = os.close) -> None:
        _closing(self._handle)
        _close(self._handle)

    def _send_bytes(self, buf: Any) -> None:
        if self._rest:
            rest, self._rest = self._rest, ()
            self._write(rest, True)
        size = len(buf)
        header = struct.pack("!i", size) if size < 1 << 31 else struct.pack("!iQ", -1, size)
        self._write((header + buf,) if size <= _TOGETHER else (header, buf), False)

    def _write(self, parts: tuple[Any, ...], begun: bool) -> None:
        """Writes all of a message, or of what is left of it; `begun`: a part of it has gone."""
        parks = _can_park()
        left = [memoryview(part) for part in parts]
        try:
            while left:
                # In a goroutine so much at a time as goes in one piece: so it is known what has gone.
                wrote = write_fd(self._handle, left[0][:_PIECE]) if parks else os.write(self._handle, left[0])
                begun = True
                left[0] = left[0][wrote:]
                if not left[0]:
                    del left[0]
        except BaseException:
            if begun:
                self._rest = tuple(bytes(view) for view in left)  # copied: the caller may change it from now on
            raise

    def _recv_bytes(self, maxsize: int | None = None) -> Any:
        head, body = self._begun or (io.BytesIO(), io.BytesIO())
        self._begun = None
        try:
            self._fill(head, 4)
            (size,) = struct.unpack_from("!i", head.getbuffer())
            if size == -1:
                self._fill(head, 12)
                (size,) = struct.unpack_from("!Q", head.getbuffer(), 4)
            if maxsize is not None and size > maxsize:
                return None
            self._fill(body, size)
        except BaseException:
            if head.tell():
                self._begun = head, body
            raise
        return body

    def _fill(self, buf: io.BytesIO, size: int) -> None:
        """Reads until there are `size` bytes in `buf`."""
        parks = _can_park()
        while (missing := size - buf.tell()) > 0:
            chunk = (read_fd if parks else os.read)(self._handle, min(missing, _CHUNK))
            if not chunk:
                if not buf.tell():
                    raise EOFError
                buf.seek(0)
                buf.truncate()
                raise OSError("got end of file during message")
            buf.write(chunk)

    def _poll(self, timeout: float | None) -> bool:
        return bool(wait([self], timeout))


_PACKET = 32 * 1024
"""What is longer goes into a memory file."""
_LOOK = 30
"""So many microseconds a thread looks whether something comes before it sleeps."""
_VAIN = 3
"""After so many looks in vain one after another only one in `_PROBE` waits begins with a look."""
_PROBE = 16
_looking = AtomicInt()
"""How many threads may be looking."""
os.register_at_fork(after_in_child=lambda: _looking.store(0))


class Lost(OSError):
    """A message came and was taken, but its content could not be had: there was no descriptor or memory for it."""


class Messages(Connection):
    """One end of a socket that keeps messages whole. Any number of processes may use each end at a time.

    No message is empty.
    """

    _vain = 0

    def try_send_bytes(self, data: Any) -> bool:
        """Sends a message if there is room; returns whether there was. Never blocks."""
        self._check_closed()  # type: ignore[attr-defined]  # private: no stub
        if len(data) <= _PACKET:
            return _send_packet(self._handle, data)
        return self._try_send_file(data)

    def _try_send_file(self, data: Any) -> bool:
        if self._full():
            return False
        fd = os.memfd_create("message", os.MFD_CLOEXEC)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            return _send_packet(self._handle, b"\0", fd)
        finally:
            os.close(fd)

    def _full(self) -> bool:
        poll = select.poll()
        poll.register(self._handle, select.POLLOUT)
        return not poll.poll(0)

    def _send_bytes(self, buf: Any) -> None:
        while not self.try_send_bytes(buf):
            ready(self._handle, True, None)

    def try_recv_bytes(self, look: int = 0) -> Any:
        """The next message, as bytes or a mapping of them; None if there is none yet. Never blocks. Raises EOFError;
        Lost if one came that could not be had.

        `look`: for how many microseconds to look for one.
        """
        self._check_closed()  # type: ignore[attr-defined]  # private: no stub
        try:
            found = _recv_packet(self._handle, look)
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            raise Lost(*error.args) from None
        if type(found) is not int:
            return found
        try:
            return mmap.mmap(found, 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise Lost(*error.args) from None
        finally:
            os.close(found)

    def next_bytes(self, timeout: float | None = None, *, soon: bool = False) -> Any:
        """The next message; None if there was none for `timeout` seconds. Parks the goroutine, or blocks the thread.

        `soon`: it is an answer, so goroutines, too, look before they park, and hold up their worker for that moment.
        """
        if (soon or not _can_park()) and (self._vain < _VAIN or self._vain % _PROBE == 0):
            # One thread at a time: more would take the processors from those whom they wait for.
            try:
                found = self.try_recv_bytes(_LOOK if _looking.add(1) <= 1 else 0)
            finally:
                _looking.add(-1)
            if found is not None:
                self._vain = 0
                return found
        self._vain += 1
        end = None if timeout is None else time.monotonic() + max(0.0, timeout)
        while (found := self.try_recv_bytes()) is None:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not ready(self._handle, False, left):
                return self.try_recv_bytes()
        return found

    def _recv_bytes(self, maxsize: int | None = None) -> Any:
        data = self.next_bytes()
        if maxsize is not None and len(data) > maxsize:
            return None
        buf = io.BytesIO()
        buf.write(data)
        return buf


def message_pair() -> tuple[Messages, Messages]:
    """A reading and a writing end of a socket that keeps messages whole."""
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader.shutdown(socket.SHUT_WR)
    writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return Messages(reader.detach(), writable=False), Messages(writer.detach(), readable=False)


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """As `multiprocessing.Pipe`: two connections."""
    if duplex:
        one, other = socket.socketpair()
        one.setblocking(True)  # whatever the default timeout of sockets is
        other.setblocking(True)
        return Connection(one.detach()), Connection(other.detach())
    reader, writer = os.pipe()
    return Connection(reader, writable=False), Connection(writer, readable=False)


def wait(object_list: Iterable[Any], timeout: float | None = None) -> list[Any]:
    """As `multiprocessing.connection.wait`: those of the objects that are ready. Parks the goroutine."""
    objects = list(object_list)
    if not _can_park():
        ready: list[Any] = _std.wait(objects, timeout)
        return ready
    by_number: dict[int, list[Any]] = {}
    for each in objects:
        by_number.setdefault(each if isinstance(each, int) else each.fileno(), []).append(each)
    if len(by_number) == 1:
        number = next(iter(by_number))
        return objects if wait_fd(number, False, timeout) else []
    with select.epoll() as together:
        for number in by_number:
            together.register(number, select.EPOLLIN)
        wait_fd(together.fileno(), False, None if timeout is None else max(0.0, timeout))
        numbers = {number for number, _ in together.poll(0)}
    return [each for each in objects if (each if isinstance(each, int) else each.fileno()) in numbers]


def _rebuild(cls: type[Connection], fd: Any, readable: bool, writable: bool) -> Connection:
    return cls(fd.detach(), readable, writable)


def _reduce(conn: Connection) -> Any:
    return _rebuild, (type(conn), _reduction.DupFd(conn.fileno()), conn.readable, conn.writable)


_reduction.register(Connection, _reduce)
_reduction.register(Messages, _reduce)


def __getattr__(name: str) -> Any:
    return getattr(_std, name)
