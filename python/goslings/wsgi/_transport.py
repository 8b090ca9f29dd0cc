"""What a connection is to the server: bytes in, bytes out, each within so many seconds. Plain sockets and TLS.

Every wait parks the goroutine. `TimeoutError` means that nothing moved for that long.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
from contextlib import suppress
from time import monotonic
from typing import Protocol

from goslings._goslings import closing_fd, sock_recv, sock_send, wait_fd

__all__ = ["Plain", "Tls", "Transport"]

_LINGER_SECONDS = 2.0
_LINGER_PART = 64 * 1024
_SEND_MOST = 1 << 20
_AT_ONCE = 1e-6
"""Instead of a timeout of 0, which raises BlockingIOError."""
_HANDSHAKE = 10.0
"""Seconds for what TLS has to say of itself."""
_RECORD = 16 * 1024


class Transport(Protocol):
    """The seam between the server and the network. `seconds` are positive."""

    def fileno(self) -> int: ...
    def recv(self, most: int, seconds: float) -> bytes: ...
    def sendall(self, data: bytes, seconds: float) -> None: ...
    def sendfile(self, fd: int, offset: int, count: int, seconds: float) -> bool: ...
    def end_reads(self) -> None: ...
    def cut(self) -> None: ...
    def reset(self) -> None: ...
    def linger(self) -> None: ...
    def close(self) -> None: ...


class Plain:
    """A connected socket."""

    __slots__ = ("_fd", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._fd = sock.fileno()

    def fileno(self) -> int:
        return self._fd

    def recv(self, most: int, seconds: float) -> bytes:
        """Bytes as they come; b"" at the end."""
        return sock_recv(self._fd, most, 0, seconds)

    def sendall(self, data: bytes, seconds: float) -> None:
        """Sends everything; `seconds` is for each part that the client takes."""
        sent = sock_send(self._fd, data, 0, seconds or _AT_ONCE)
        if sent < len(data):
            rest = memoryview(data)[sent:]
            while rest:
                rest = rest[sock_send(self._fd, rest[:_SEND_MOST], 0, seconds or _AT_ONCE) :]

    def sendfile(self, fd: int, offset: int, count: int, seconds: float) -> bool:
        """Sends a part of a file without reading it here. Returns False if it is shorter than that."""
        while count:
            try:
                sent = os.sendfile(self._fd, fd, offset, min(count, _SEND_MOST))
            except BlockingIOError:
                if not wait_fd(self._fd, True, seconds):
                    raise TimeoutError("the client does not read") from None
                continue
            if not sent:
                return False
            offset, count = offset + sent, count - sent
        return True

    def end_reads(self) -> None:
        """What has come can still be received; then comes the end. Wakes who waits for more."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)

    def cut(self) -> None:
        """Both directions end; wakes who waits."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Makes `close` forget what was not sent yet."""
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def linger(self) -> None:
        """Takes leave of a client that may still send, so that it gets to read the answer before its line breaks.

        What it sends is thrown away, however much it is; after two seconds the line breaks.
        """
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            end = monotonic() + _LINGER_SECONDS
            while (left := end - monotonic()) > 0 and self.recv(_LINGER_PART, left):
                pass

    def close(self) -> None:
        closing_fd(self._fd)
        self._sock.close()


class Tls:
    """A transport below TLS. The handshake is made by the first `recv`."""

    __slots__ = ("_below", "_in", "_out", "_tls")

    def __init__(self, below: Transport, context: ssl.SSLContext) -> None:
        self._below = below
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)

    def fileno(self) -> int:
        return self._below.fileno()

    def recv(self, most: int, seconds: float) -> bytes:
        """Bytes as they come; b"" at the end."""
        end = monotonic() + seconds
        while True:
            try:
                data = self._tls.read(most)
            except ssl.SSLWantReadError:
                self._flush(seconds or _HANDSHAKE)
                received = self._below.recv(_RECORD, max(_AT_ONCE, end - monotonic()))
                if received:
                    self._in.write(received)
                else:
                    self._in.write_eof()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError:
                with suppress(OSError):
                    self._flush(_HANDSHAKE)  # the alert
                raise
            else:
                self._flush(seconds or _HANDSHAKE)
                return data

    def sendall(self, data: bytes, seconds: float) -> None:
        """Sends everything; `seconds` is for each part that the client takes."""
        view = memoryview(data)
        while view:
            count = self._tls.write(view[: 16 * _RECORD])
            view = view[count:]
            self._flush(seconds)

    def _flush(self, seconds: float) -> None:
        if self._out.pending:
            self._below.sendall(self._out.read(), seconds)

    def sendfile(self, fd: int, offset: int, count: int, seconds: float) -> bool:
        """Sends a part of a file. Returns False if it is shorter than that."""
        while count:
            data = os.pread(fd, min(count, 16 * _RECORD), offset)
            if not data:
                return False
            self.sendall(data, seconds)
            offset, count = offset + len(data), count - len(data)
        return True

    def end_reads(self) -> None:
        """What has come can still be received; then comes the end. Wakes who waits for more."""
        self._below.end_reads()

    def cut(self) -> None:
        """Both directions end; wakes who waits."""
        self._below.cut()

    def reset(self) -> None:
        """Makes `close` forget what was not sent yet."""
        self._below.reset()

    def linger(self) -> None:
        """Takes leave of a client that may still send."""
        self._say_goodbye()
        self._below.linger()

    def close(self) -> None:
        self._say_goodbye()
        self._below.close()

    def _say_goodbye(self) -> None:
        with suppress(OSError, ValueError):
            self._tls.unwrap()
        with suppress(OSError):
            self._flush(0.0)
