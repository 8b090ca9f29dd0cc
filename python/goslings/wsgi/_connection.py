"""One connection: its requests in order, each with its answer, until one of the two has enough.

**Invariants**

* One goroutine reads, calls the application and writes. What the server does from outside is `cut` and `end_reads`.
* `idle` is True only while nothing of a request has come: then `end_reads` loses nothing.
* After an error in what was received the connection is closed: nobody knows where the next request begins.
"""

from __future__ import annotations

import logging
from io import BytesIO
from time import monotonic
from typing import TYPE_CHECKING, Any

from goslings import Goroutine
from goslings._goslings import _HttpReader

from ._body import Body, Refused
from ._response import Response, plain
from ._transport import Transport

if TYPE_CHECKING:
    from ._server import Server

__all__ = ["Connection"]

_log = logging.getLogger("goslings.wsgi")

_RECEIVE = 16 * 1024
_REASONS = {
    400: "400 Bad Request",
    408: "408 Request Timeout",
    413: "413 Content Too Large",
    414: "414 URI Too Long",
    417: "417 Expectation Failed",
    431: "431 Request Header Fields Too Large",
    501: "501 Not Implemented",
    505: "505 HTTP Version Not Supported",
}

type Head = tuple[dict[str, Any], int, bool, bool]


class Connection:
    """Serves one client."""

    __slots__ = (
        *("_app", "_base", "_log", "_options", "_reader", "_server", "_transport"),
        *("cut", "end_reads", "goroutine", "idle"),
    )

    def __init__(self, server: Server, transport: Transport, base: dict[str, Any]) -> None:
        options = server.options
        self._server = server
        self._app = server.app
        self._log = server.log
        self._options = options
        self._transport = transport
        self._base = base  # of every request's environ
        self._reader = _HttpReader(options.header_limit, options.line_limit, options.header_count, options.body_limit)
        self.cut = transport.cut
        self.end_reads = transport.end_reads
        self.idle = False
        self.goroutine: Goroutine[None] | None = None

    def serve(self) -> None:
        """Serves until the end of the connection, and closes it."""
        transport, seconds = self._transport, self._options.header_timeout
        try:
            while (head := self._next(seconds)) is not None:
                if not self._answer(*head):
                    if not self._reader.ended or self._reader.pending:
                        transport.linger()
                    break
                seconds = self._options.keep_alive
        except Refused as refused:
            self._refuse(refused)
        except TimeoutError:
            transport.reset()  # it does not read: what it was sent need not be kept for it
        except OSError:
            pass  # it has gone: there is nobody to tell
        finally:
            self.idle = False
            transport.close()

    def _next(self, seconds: float) -> Head | None:
        """The next request, whose first byte comes within `seconds`; None if none comes."""
        reader, transport = self._reader, self._transport
        try:
            if reader.pending:
                head = reader.head(self._base)
            else:
                self.idle = True
                if self._server.stopping:
                    transport.end_reads()
                try:
                    data = transport.recv(_RECEIVE, seconds)
                except TimeoutError:
                    return None
                self.idle = False
                if not data:
                    return None
                reader.feed(data)
                head = reader.head(self._base)
            if head is None:
                head = self._rest_of_head(monotonic() + self._options.header_timeout)
            return head
        except ValueError as error:
            raise Refused(*error.args) from None

    def _rest_of_head(self, end: float) -> Head | None:
        reader = self._reader
        head = None
        while head is None:
            try:
                data = self._transport.recv(_RECEIVE, max(0.0, end - monotonic()))
            except TimeoutError:
                raise Refused(408, "the headers did not come in time") from None
            if not data:
                if reader.pending:
                    raise Refused(400, "the request has no end")
                return None
            reader.feed(data)
            head = reader.head(self._base)
        return head

    def _answer(self, environ: dict[str, Any], length: int, keep_alive: bool, expects: bool) -> bool:
        """Calls the application and sends its answer. Returns whether another request may follow."""
        options, transport = self._options, self._transport
        minor = 1 if environ["SERVER_PROTOCOL"] == "HTTP/1.1" else 0
        response = Response(
            transport,
            options.write_timeout,
            minor,
            environ["REQUEST_METHOD"] == "HEAD",
            keep_alive and options.keep_alive > 0 and not self._server.stopping,
        )
        body = None
        if length:
            body = Body(self._reader, transport, options.body_timeout, self._continue if expects else None)
            environ["wsgi.input"] = body
            if expects:
                response.keep_alive = keep_alive
        else:
            environ["wsgi.input"] = BytesIO()
        try:
            result = self._app(environ, response.start)
            try:
                response.send(result)
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        except (Exception, SystemExit) as error:
            self._failed(environ, response, body, error)
        if response.short:
            _log.warning("%s %s: the body is not as long as its Content-Length", *_name(environ))
        if self._log is not None:
            self._log.add(environ, response.status, response.sent)
        if response.broken is not None:
            raise response.broken
        if body is not None and not body.leave(drain=response.keep_alive):
            return False
        return response.keep_alive

    def _continue(self) -> None:
        self._transport.sendall(b"HTTP/1.1 100 Continue\r\n\r\n", self._options.write_timeout)

    def _failed(self, environ: dict[str, Any], response: Response, body: Body | None, error: BaseException) -> None:
        """The application has raised: tells the log, and the client if it has not heard anything yet."""
        if response.broken is not None:
            response.keep_alive = False
            return
        failure = body.failure if body is not None else None
        status, text = "500 Internal Server Error", "The application failed."
        if error is failure:  # it is the client's fault
            if not isinstance(failure, Refused):
                response.keep_alive = False
                response.broken = failure
                return
            status, text = _REASONS[failure.status], failure.reason
        else:
            _log.error("%s %s: the application failed", *_name(environ), exc_info=error)
        if response.begun:
            response.keep_alive = False
            return
        if failure is not None or self._server.stopping:
            response.keep_alive = False
        response.begun = True
        response.status = int(status[:3])
        answer = plain(status, text, response.keep_alive, environ["REQUEST_METHOD"] == "HEAD")
        try:
            self._transport.sendall(answer, self._options.write_timeout)
        except OSError as gone:
            response.broken = gone

    def _refuse(self, refused: Refused) -> None:
        """Answers what is no request, and closes."""
        if self._log is not None:
            self._log.line(self._base["REMOTE_ADDR"], "-", refused.status, 0)
        try:
            answer = plain(_REASONS[refused.status], refused.reason, False)
            self._transport.sendall(answer, self._options.write_timeout)
            self._transport.linger()
        except OSError:
            pass


def _name(environ: dict[str, Any]) -> tuple[str, str]:
    return environ["REQUEST_METHOD"], environ["REQUEST_URI"]
