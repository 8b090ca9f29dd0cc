"""Connections between processes: the standard library's, whose calls park goroutines; and those that keep messages
whole.

`Connection` speaks the same bytes as `multiprocessing.connection.Connection`, so that either end may be of either kind.
In a goroutine it waits parked; on a plain thread it does what the standard library does.

`Messages` is one end of a Unix socket of the kind SEQPACKET: the system keeps messages whole and in order however many
processes write and read at one time. So queues need no locks between processes, and a process that is killed in the
middle of `put` or `get` leaves neither half a message nor a lock that nobody opens. What is too large for a packet goes
into a memory file, whose descriptor travels instead.
"""

from __future__ import annotations

import _socket
import array
import io
import mmap
import os
import select
import socket
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

from goslings._goslings import _can_park, closing_fd, read_fd, wait_fd, write_fd
from goslings.compat.multiprocessing._ready import ready

__all__ = ["Client", "Connection", "Listener", "Pipe", "wait"]


class Connection(_std.Connection):
    """As `multiprocessing.connection.Connection`."""

    _handle: Any

    def _close(self) -> None:
        closing_fd(self._handle)
        os.close(self._handle)

    def _send(self, buf: Any, write: Any = os.write) -> None:
        if not _can_park():
            super()._send(buf)  # type: ignore[misc]  # private: no stub
            return
        view = memoryview(buf)
        while view:
            view = view[write_fd(self._handle, view) :]

    def _recv(self, size: int, read: Any = os.read) -> io.BytesIO:
        if not _can_park():
            found: io.BytesIO = super()._recv(size)  # type: ignore[misc]  # private: no stub
            return found
        buf = io.BytesIO()
        while buf.tell() < size:
            chunk = read_fd(self._handle, min(size - buf.tell(), 1 << 20))
            if not chunk:
                if buf.tell():
                    raise OSError("got end of file during message")
                raise EOFError
            buf.write(chunk)
        return buf

    def _poll(self, timeout: float | None) -> bool:
        return bool(wait([self], timeout))


_PACKET = 32 * 1024
"""What is longer goes into a memory file."""
_SPACE = socket.CMSG_SPACE(4)
_SEND = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_RECV = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_INLINE, _FILE = b"\0", b"\1"


class Messages(Connection):
    """One end of a socket that keeps messages whole. Any number of processes may use each end at a time."""

    def __init__(self, handle: int, readable: bool = True, writable: bool = True) -> None:
        super().__init__(handle, readable, writable)
        self._socket: Any = _socket.socket(fileno=self._handle)
        self._socket.setblocking(True)  # whatever the default timeout of sockets is: each call says what it wants

    def _close(self) -> None:
        closing_fd(self._handle)
        self._socket.close()

    def __del__(self) -> None:
        if self._handle is not None:
            self._socket.close()
            self._handle = None

    def try_send_bytes(self, data: Any) -> bool:
        """Sends a message if there is room; returns whether there was. Never blocks."""
        try:
            if len(data) <= _PACKET:
                self._socket.sendmsg([_INLINE, data], (), _SEND)
                return True
            return self._try_send_file(data)
        except BlockingIOError:
            return False

    def _try_send_file(self, data: Any) -> bool:
        if self._full():
            return False
        fd = os.memfd_create("message", os.MFD_CLOEXEC)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
            self._socket.sendmsg([_FILE], rights, _SEND)
            return True
        finally:
            os.close(fd)

    def _full(self) -> bool:
        poll = select.poll()
        poll.register(self._handle, select.POLLOUT)
        return not poll.poll(0)

    def _send_bytes(self, buf: Any) -> None:
        while not self.try_send_bytes(buf):
            ready(self._handle, True, None)

    def try_recv_bytes(self) -> Any:
        """The next message, as bytes or a mapping of them; None if there is none yet. Never blocks. Raises EOFError."""
        try:
            data, rights, _, _ = self._socket.recvmsg(_PACKET + 1, _SPACE, _RECV)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            raise EOFError from None
        if not data:
            raise EOFError
        if not rights:
            return memoryview(data)[1:]
        fd = array.array("i", rights[0][2])[0]
        try:
            return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)

    def next_bytes(self, timeout: float | None = None) -> Any:
        """The next message; None if there was none for `timeout` seconds. Parks the goroutine, or blocks the thread."""
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
