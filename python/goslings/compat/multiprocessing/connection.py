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

from goslings._goslings import AtomicInt, _can_park, _recv_packet, _send_packet, closing_fd, read_fd, wait_fd, write_fd
from goslings.compat.multiprocessing._ready import ready

__all__ = ["Client", "Connection", "Listener", "Pipe", "wait"]


class Connection(_std.Connection):
    """As `multiprocessing.connection.Connection`."""

    _handle: Any

    def _close(self, _closing: Any = closing_fd, _close: Any = os.close) -> None:
        _closing(self._handle)
        _close(self._handle)

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
_LOOK = 30
"""So many microseconds a thread looks whether something comes before it sleeps."""
_VAIN = 3
"""After so many looks in vain one after another only one in `_PROBE` waits begins with a look."""
_PROBE = 16
_looking = AtomicInt()
"""How many threads may be looking."""
os.register_at_fork(after_in_child=lambda: _looking.store(0))


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
        """The next message, as bytes or a mapping of them; None if there is none yet. Never blocks. Raises EOFError.

        `look`: for how many microseconds to look for one.
        """
        self._check_closed()  # type: ignore[attr-defined]  # private: no stub
        found = _recv_packet(self._handle, look)
        if type(found) is not int:
            return found
        try:
            return mmap.mmap(found, 0, access=mmap.ACCESS_READ)
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
