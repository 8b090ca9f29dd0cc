"""The body of a request: `wsgi.input`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from goslings._goslings import _HttpReader

from ._transport import Transport

__all__ = ["Body", "Refused"]

_PIECE = 64 * 1024
_DRAIN_MOST = 256 * 1024


class Refused(OSError):
    """The client has sent what cannot be understood, or too much, or nothing for too long.

    An OSError, since applications take that for a client that has gone.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Body:
    """A stream of bytes that ends where the request does. Reading waits for the client."""

    __slots__ = ("_continue", "_reader", "_rest", "_seconds", "_transport", "failure")

    def __init__(
        self, reader: _HttpReader, transport: Transport, seconds: float, go_on: Callable[[], None] | None
    ) -> None:
        self._reader: _HttpReader | None = reader
        self._transport = transport
        self._seconds = seconds
        self._continue = go_on  # tells a client that waits for it to send its body
        self._rest = b""
        self.failure: OSError | None = None

    def _some(self, most: int) -> bytes:
        """At least a byte, or b"" at the end."""
        if self._rest:
            data, self._rest = self._rest[:most], self._rest[most:]
            return data
        reader = self._reader
        if reader is None:
            return b""
        if self.failure is not None:
            raise self.failure
        try:
            while (data_or_none := reader.body(most)) is None:
                if self._continue is not None:
                    go_on, self._continue = self._continue, None
                    go_on()
                reader.feed(self._received())
            return data_or_none
        except OSError as error:
            self.failure = error
            raise
        except ValueError as error:
            self.failure = Refused(*error.args)
            raise self.failure from None

    def _received(self) -> bytes:
        try:
            data = self._transport.recv(_PIECE, self._seconds)
        except TimeoutError:
            raise Refused(408, "the body did not come in time") from None
        if not data:
            raise ConnectionResetError("the client has gone in the middle of its request")
        return data

    def read(self, size: int | None = -1, /) -> bytes:
        """`size` bytes; fewer at the end; without a size, all that is left."""
        if size is None or size < 0:
            size = -1
        parts = []
        while size:
            data = self._some(_PIECE if size < 0 else min(size, _PIECE))
            if not data:
                break
            parts.append(data)
            if size > 0:
                size -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read1(self, size: int = -1, /) -> bytes:
        """What there is, but at least a byte before the end, and at most `size`."""
        return self._some(_PIECE if size < 0 else size) if size else b""

    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        """As `read1`, into `buffer`; returns how many bytes."""
        view = memoryview(buffer).cast("B")
        data = self.read1(len(view))
        view[: len(data)] = data
        return len(data)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Up to the next line feed and with it, or `size` bytes of that, or what is left."""
        limit = -1 if size is None or size < 0 else size
        parts: list[bytes] = []
        while limit:
            data = self._some(_PIECE if limit < 0 else min(limit, _PIECE))
            if not data:
                break
            end = data.find(b"\n") + 1
            if end:
                self._rest = data[end:] + self._rest
                parts.append(data[:end])
                break
            parts.append(data)
            if limit > 0:
                limit -= len(data)
        return b"".join(parts)

    def readlines(self, hint: int | None = None, /) -> list[bytes]:
        """All lines that are left, or enough of them to have `hint` bytes."""
        lines, total = [], 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def readable(self) -> bool:
        return True

    def leave(self, *, drain: bool) -> bool:
        """Ends the stream, whoever still has it. Returns whether the next request can follow.

        With `drain`, a little that was not read is received and thrown away for that.
        """
        reader, waits = self._reader, self._continue is not None
        try:
            if reader is None or self.failure is not None:
                return False
            # A client that was never told to send may send or not: nobody knows.
            if reader.ended or not drain or waits:
                return reader.ended and drain
            self._rest, left = b"", _DRAIN_MOST
            while left > 0:
                data = self._some(_PIECE)
                if not data:
                    return True
                left -= len(data)
            return reader.ended
        except OSError:
            return False
        finally:
            self._reader, self._rest = None, b""
