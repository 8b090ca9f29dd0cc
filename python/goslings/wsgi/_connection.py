"""One connection: its requests in order, each with its answer, until one of the two has enough.

**Invariants**

* One goroutine at a time reads, calls the application and writes. What the server does from outside is `cut` and
  `end_reads`.
* `idle` is True only while nothing of a request has come: then `end_reads` loses nothing.
* A goroutine with a stack stays on its worker. So when nothing comes for a moment, and now and then in any case, it
  ends, and one without a stack waits for the next request: what that starts goes to whichever worker is free. Else
  connections would be for ever where they began, however busy that worker is.
* After an error in what was received the connection is closed: nobody knows where the next request begins.
"""

from __future__ import annotations

import logging
from io import BytesIO
from time import monotonic
from typing import TYPE_CHECKING, Any

from goslings import Goroutine, go
from goslings._goslings import _HttpReader, await_fd

from ._body import Body, Refused
from ._response import Response, plain
from ._transport import Transport

if TYPE_CHECKING:
    from ._server import Server

__all__ = ["Connection"]

_log = logging.getLogger("goslings.wsgi")

_RECEIVE = 16 * 1024
_STAY_SECONDS = 0.05
"""So long a goroutine with a stack waits for the next request."""
_STAY_REQUESTS = 32
"""After so many requests it goes to whichever worker is free."""
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


class _Nothing(Exception):
    """Nothing of the next request has come."""


class Connection:
    """Serves one client."""

    __slots__ = (
        *("_app", "_base", "_fd", "_log", "_options", "_reader", "_seconds", "_server", "_transport"),
        *("cut", "end_reads", "goroutine", "idle"),
    )

    def __init__(self, server: Server, transport: Transport, base: dict[str, Any]) -> None:
        options = server.options
        self._server = server
        self._app = server.app
        self._log = server.log
        self._options = options
        self._transport = transport
        self._fd = transport.fileno()
        self._seconds = options.header_timeout  # until something of the next request comes
        self._base = base  # of every request's environ
        self._reader = _HttpReader(options.header_limit, options.line_limit, options.header_count, options.body_limit)
        self.cut = transport.cut
        self.end_reads = transport.end_reads
        self.idle = False
        self.goroutine: Goroutine[None] | None = None

    def serve(self) -> None:
        """Serves until there is nothing to read, or the connection is at its end, and closed."""
        transport, turn, stay = self._transport, 0, 0.0
        waits = False
        try:
            while (head := self._next(stay)) is not None:
                if not self._answer(*head):
                    if not self._reader.ended or self._reader.pending:
                        transport.linger()
                    break
                self._seconds = self._options.keep_alive
                turn += 1
                stay = min(_STAY_SECONDS, self._seconds) if turn % _STAY_REQUESTS else 0.0
        except _Nothing:
            waits = True
        except Refused as refused:
            self._refuse(refused)
        except TimeoutError:
            transport.reset()  # it does not read: what it was sent need not be kept for it
        except OSError:
            pass  # it has gone: there is nobody to tell
        except Exception:
            _log.exception("a connection failed: please report this")
        finally:
            if not waits:
                self.end()
        if waits:
            self.goroutine = go(self._wait)

    def end(self) -> None:
        """Closes it."""
        self.idle = False
        self._transport.close()
        self._server.ended(self)

    async def _wait(self) -> None:
        """Waits for the next request, or for the first."""
        ready = False
        try:
            ready = await await_fd(self._fd, False, self._seconds)
        except OSError:
            pass  # was closed
        finally:
            if not ready:
                self.end()
        if ready:
            self.goroutine = go(self.serve)

    def _next(self, stay: float) -> Head | None:
        """The next request; None if there is none. Raises _Nothing if nothing of it comes within `stay` seconds."""
        reader, transport = self._reader, self._transport
        try:
            if reader.pending:
                head = reader.head(self._base)
            else:
                self.idle = True
                if self._server.stopping:
                    transport.end_reads()
                try:
                    data = transport.recv(_RECEIVE, stay)
                except TimeoutError:
                    raise _Nothing from None
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
