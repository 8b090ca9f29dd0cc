"""The answer to a request, as PEP 3333 has applications give it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from email.utils import formatdate
from time import time
from types import TracebackType
from typing import Any, BinaryIO

from goslings._goslings import _http_head

from ._transport import Transport

__all__ = ["FileWrapper", "Response", "plain"]

type ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_BLOCK = 64 * 1024
_JOINED_MOST = 64 * 1024
"""Up to this size a body is sent in one piece with its head."""

_date: tuple[int, bytes] = (0, b"")


def _date_and_server() -> bytes:
    """Two headers that change once a second."""
    global _date
    second, text = _date
    now = int(time())
    if now != second:
        text = f"Date: {formatdate(now, usegmt=True)}\r\nServer: goslings\r\n".encode("ascii")
        _date = (now, text)
    return text


class FileWrapper:
    """`wsgi.file_wrapper`: a file to be sent by the kernel, or read in blocks if it is no file on a disk."""

    def __init__(self, filelike: BinaryIO, blksize: int = _BLOCK) -> None:
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        data = self.filelike.read(self.blksize)
        if not data:
            raise StopIteration
        return data

    def span(self) -> tuple[int, int, int] | None:
        """Descriptor, offset and number of bytes left, if it is a file on a disk."""
        try:
            fd = self.filelike.fileno()
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return None
            at = self.filelike.tell()
        except (AttributeError, OSError, ValueError):
            return None
        return fd, at, max(0, status.st_size - at)


class Response:
    """One answer on its way. Nothing is sent before there is a body to send with the head.

    `status` is 0 until the application has called `start`; `sent` counts the bytes of the body. `broken` is the error
    of a connection that failed, `short` whether the body was not as long as its Content-Length.
    """

    __slots__ = (
        *("_chunked", "_close", "_dated", "_head", "_headless", "_left", "_length", "_minor", "_seconds"),
        *("_served", "_transport", "begun", "broken", "keep_alive", "sent", "short", "status"),
    )

    def __init__(self, transport: Transport, seconds: float, minor: int, headless: bool, keep_alive: bool) -> None:
        self._transport = transport
        self._seconds = seconds
        self._minor = minor
        self._headless = headless  # answers to HEAD have no body
        self._head = b""
        self._length = -1
        self._left = -1  # of the Content-Length
        self._chunked = False
        self.keep_alive = keep_alive
        self.begun = False
        self.broken: OSError | None = None
        self.short = False
        self.sent = 0
        self.status = 0

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """`start_response`."""
        if exc_info is not None:
            try:
                if self.begun and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # the frame would refer to itself
        elif self.status:
            raise AssertionError("start_response was called twice, and without exc_info")
        self._head, self._length, self._close, self._dated, self._served = _http_head(status, headers)
        self.status = int(status[:3])
        return self.write

    def send(self, result: Iterable[bytes]) -> None:
        """Sends what the application returned, to the end."""
        # To compare classes is quicker than `isinstance`, and tells the type checker nothing.
        kind = type(result)
        if kind is list or kind is tuple:
            self._send_whole(result)  # type: ignore[arg-type]
            return
        if kind is FileWrapper and self._send_file(result):  # type: ignore[arg-type]
            return
        for block in result:
            if block or self.begun:
                self.write(block)
        self._finish()

    def write(self, data: bytes, /) -> None:
        """Sends a block: what `start_response` returns."""
        if not isinstance(data, bytes):
            raise TypeError(f"the body must be made of bytes, not {type(data).__name__}")
        head = b"" if self.begun else self._begin(-1)
        if self._headless or not data:
            data = b""
        elif self._left >= 0:
            if len(data) > self._left:
                data, self.short = data[: self._left], True
            self._left -= len(data)
        self.sent += len(data)
        if self._chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if head or data:
            self._put(head + data if len(data) <= _JOINED_MOST else head, data)

    def _send_whole(self, blocks: list[bytes] | tuple[bytes, ...]) -> None:
        if self.begun or not self.status:  # write() was used, or nothing was started
            for block in blocks:
                self.write(block)
            self._finish()
            return
        body = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        if type(body) is not bytes:
            raise TypeError(f"the body must be made of bytes, not {type(body).__name__}")
        head = self._begin(len(body))
        if self._headless:
            body = b""
        elif self._left >= 0 and self._left != len(body):
            body, self.short = body[: self._left], True
        self.sent = len(body)
        self._left = -1
        self._put(head + body if len(body) <= _JOINED_MOST else head, body)
        if self.short:
            self.keep_alive = False

    def _send_file(self, wrapper: FileWrapper) -> bool:
        span = wrapper.span()
        if span is None or self.begun or not self.status:
            return False
        fd, offset, size = span
        count = size if self._length < 0 else min(size, self._length)
        self._put(self._begin(count), b"")
        if self._headless:
            return True
        if self._chunked:  # cannot be: the length is known
            raise AssertionError("a file in chunks")
        whole = count == self._left or self._left < 0
        try:
            whole = self._transport.sendfile(fd, offset, count, self._seconds) and whole
        except OSError as error:
            self.broken = error
            raise
        self.sent += count
        if not whole:
            self.short, self.keep_alive = True, False
        return True

    def _begin(self, known: int) -> bytes:
        """The whole head. `known`: how long the body will be, or -1."""
        status = self.status
        if not status:
            raise AssertionError("the application has not called start_response")
        head = self._head
        if not self._dated and not self._served:
            head += _date_and_server()
        elif not self._dated or not self._served:
            date, server, _ = _date_and_server().split(b"\r\n")
            head += (server if self._dated else date) + b"\r\n"
        if self._close:
            self.keep_alive = False
        if status < 200 or status == 204 or status == 304:
            self._headless = True
        elif self._length >= 0:
            self._left = self._length
        elif known >= 0:
            head += b"Content-Length: %d\r\n" % known
        elif self._headless:
            pass
        elif self._minor:
            self._chunked = True
            head += b"Transfer-Encoding: chunked\r\n"
        else:
            self.keep_alive = False  # the end of the connection is the end of the body
        if not self.keep_alive:
            head += b"Connection: close\r\n"
        elif not self._minor:
            head += b"Connection: keep-alive\r\n"
        self.begun = True
        return head + b"\r\n"

    def _put(self, first: bytes, rest: bytes) -> None:
        """Sends `first`, and `rest` if it was too long to be a part of it."""
        try:
            if first:
                self._transport.sendall(first, self._seconds)
            if len(rest) > _JOINED_MOST:
                self._transport.sendall(rest, self._seconds)
        except OSError as error:
            self.broken = error
            raise

    def _finish(self) -> None:
        if not self.begun:
            self._put(self._begin(0), b"")
        if self._chunked:
            self._put(b"0\r\n\r\n", b"")
        if self._left > 0 and not self._headless:
            self.short = True
        if self.short:
            self.keep_alive = False


def plain(status: str, text: str, keep_alive: bool, headless: bool = False) -> bytes:
    """A whole answer of the server's own. `headless`: without its body, for HEAD."""
    body = f"{text}\n".encode()
    fields: list[Any] = [
        f"HTTP/1.1 {status}\r\n".encode("ascii"),
        _date_and_server(),
        b"Content-Type: text/plain; charset=utf-8\r\n",
        b"Content-Length: %d\r\n" % len(body),
        b"" if keep_alive else b"Connection: close\r\n",
        b"\r\n",
        b"" if headless else body,
    ]
    return b"".join(fields)
