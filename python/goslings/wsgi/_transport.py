"""What a connection is to the server: bytes in, bytes out, each within so many seconds. Plain and with TLS.

Every wait parks the goroutine. `TimeoutError` means that nothing moved for that long.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from goslings._goslings import wait_fd
from goslings.net import Conn, TlsConn

__all__ = ["Tls", "Transport"]

_LINGER_SECONDS = 2.0
_LINGER_PART = 64 * 1024
_SEND_MOST = 1 << 20
_FILE_PART = 256 * 1024


class Transport:
    """A connection, as the server sees it."""

    __slots__ = ("_conn", "close", "fileno", "recv", "sendall")

    def __init__(self, conn: Conn) -> None:
        self._conn = conn
        self.fileno = conn.fileno
        self.recv: Callable[[int, float], bytes] = conn.recv
        """Bytes as they come, at most so many, within so many seconds; b"" at the end."""
        self.sendall = conn._send_parts
        """Sends everything; so many seconds for each part that the client takes."""
        self.close = conn.close

    def sendfile(self, fd: int, offset: int, count: int, seconds: float) -> bool:
        """Sends a part of a file without reading it here. Returns False if it is shorter than that."""
        out = self.fileno()
        while count:
            try:
                sent = os.sendfile(out, fd, offset, min(count, _SEND_MOST))
            except BlockingIOError:
                if not wait_fd(out, True, seconds):
                    raise TimeoutError("the client does not read") from None
                continue
            if not sent:
                return False
            offset, count = offset + sent, count - sent
        return True

    def end_reads(self) -> None:
        """What has come can still be received; then comes the end. Wakes who waits for more."""
        with suppress(OSError):
            self._conn._shutdown(socket.SHUT_RD)

    def cut(self) -> None:
        """Both directions end; wakes who waits."""
        with suppress(OSError):
            self._conn._shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Makes `close` forget what was not sent yet."""
        with suppress(OSError):
            self._conn._reset()

    def linger(self) -> None:
        """Takes leave of a client that may still send, so that it gets to read the answer before its line breaks.

        What it sends is thrown away, however much it is; after two seconds the line breaks.
        """
        with suppress(OSError):
            self._conn.close_write()
            end = monotonic() + _LINGER_SECONDS
            while (left := end - monotonic()) > 0 and Conn.recv(self._conn, _LINGER_PART, left):
                pass


class Tls(Transport):
    """The same with TLS. The handshake is made by the first `recv`. Clients that end without a farewell are many: HTTP
    says itself where things end."""

    __slots__ = ("_tls",)

    def __init__(self, conn: TlsConn) -> None:
        super().__init__(conn)
        self._tls = conn
        self.recv = self._recv

    def _recv(self, most: int, seconds: float) -> bytes:
        try:
            return self._tls.recv(most, seconds)
        except ssl.SSLEOFError:
            return b""

    def sendfile(self, fd: int, offset: int, count: int, seconds: float) -> bool:
        """Sends a part of a file. Returns False if it is shorter than that."""
        while count:
            data = os.pread(fd, min(count, _FILE_PART), offset)
            if not data:
                return False
            self.sendall(data, seconds)
            offset, count = offset + len(data), count - len(data)
        return True
