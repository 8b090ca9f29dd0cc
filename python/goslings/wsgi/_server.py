"""The server: accepts connections, starts goroutines for them, and stops without losing a request."""

from __future__ import annotations

import errno
import logging
import ssl
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Any, Self
from wsgiref.types import WSGIApplication

from goslings import Event, Goroutine, go, sleep
from goslings.net import Conn, TlsConn

from ._connection import Connection
from ._listen import Listener, listeners
from ._log import AccessLog
from ._options import Options
from ._response import FileWrapper
from ._transport import Tls, Transport

__all__ = ["Server"]

_log = logging.getLogger("goslings.wsgi")

_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_BACK_OFF_FIRST, _BACK_OFF_MOST = 0.01, 0.5
_LOOK = 0.02
"""While connections end: seconds between two looks."""
_CUT_SECONDS = 1.0
"""For goroutines whose connections were cut."""


class Server:
    """A WSGI server for `app`, which listens when it is made. Options are those of `Options`.

    `with Server(app, bind=("127.0.0.1:0",)) as server:` serves inside the block and stops gracefully at its end.
    Raises ValueError for options that make no sense, and OSError if it cannot listen.
    """

    def __init__(self, app: WSGIApplication, **options: Any) -> None:
        self.app = app
        self.options = Options(**options)
        self.stopping = False
        self._tls = _tls_context(self.options)
        self.log = AccessLog(self.options.access_log) if self.options.access_log else None
        self._listeners = listeners(self.options.bind, self.options.backlog)
        self._connections: dict[Connection, None] = {}  # in order of their beginning
        self._room = Event()
        self._accepting: list[Goroutine[None]] = []
        self._bases = {listener: self._base(listener) for listener in self._listeners}

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as URLs; "unix:path" for Unix sockets."""
        scheme = "https" if self._tls else "http"
        return [each.name if each.path else f"{scheme}://{each.name}" for each in self._listeners]

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    def start(self) -> None:
        """Starts to accept connections. Never blocks."""
        if self._accepting or self.stopping:
            raise RuntimeError("a server is started once")
        for listener in self._listeners:
            self._accepting.append(go(self._accept, listener))

    def stop(self, grace: float | None = None, *, hurry: Event | None = None) -> bool:
        """Stops: accepts no more, closes idle connections, and lets requests in flight end.

        That may take `grace` seconds.
        Connections that are left then are cut. Returns whether there were none. Blocks until all that is done.
        `grace` is the option of that name, if it is None; it ends at once when `hurry` is set.
        """
        self.stopping = True
        self._room.set()
        for listener in self._listeners:
            with suppress(OSError):
                while self._accepting and len(self._connections) < self.options.max_connections:
                    self._begin(listener, listener.below.accept(0))  # who is in the backlog has been promised an answer
            listener.close()
        for goroutine in self._accepting:
            goroutine.result()
        end = monotonic() + (self.options.grace if grace is None else grace)
        while self._connections and monotonic() < end and not (hurry is not None and hurry.is_set()):
            for connection in list(self._connections):
                if connection.idle:
                    connection.end_reads()
            sleep(_LOOK)
        whole = not self._connections
        self._cut()
        if self.log is not None:
            self.log.close()
        return whole

    def _cut(self) -> None:
        """Cuts what connections are left, and waits a moment for their goroutines."""
        begin = monotonic()
        while self._connections and (passed := monotonic() - begin) < _CUT_SECONDS:
            for connection in list(self._connections):
                connection.cut()
                if passed > _CUT_SECONDS / 4 and connection.goroutine is not None:
                    connection.goroutine.cancel("the server stops")
            sleep(_LOOK)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _base(self, listener: Listener) -> dict[str, Any]:
        """What the environs of a listener's requests have in common."""
        return {
            "SCRIPT_NAME": "",
            "SERVER_NAME": listener.host,
            "SERVER_PORT": str(listener.port),
            "SERVER_SOFTWARE": "goslings",
            "REMOTE_ADDR": "",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if self._tls else "http",
            "wsgi.errors": _Errors(),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }

    def _accept(self, listener: Listener) -> None:
        """Accepts connections until the server stops."""
        pause = _BACK_OFF_FIRST
        while not self.stopping:
            try:
                if len(self._connections) >= self.options.max_connections:
                    self._room.clear()
                    if len(self._connections) >= self.options.max_connections and not self.stopping:
                        self._room.wait()
                    continue
                conn = listener.below.accept()
                pause = _BACK_OFF_FIRST
                self._begin(listener, conn)
            except OSError as error:
                if self.stopping:
                    return
                if error.errno in _SCARCE:
                    self._back_off(error, pause)
                    pause = min(2 * pause, _BACK_OFF_MOST)
                # Else the client has gone before we came.

    def _back_off(self, error: OSError, pause: float) -> None:
        """There are no descriptors: closes some connections that do nothing, and waits a moment."""
        if pause == _BACK_OFF_FIRST:
            _log.error("cannot accept connections: %s; waiting for others to end", error.strerror)
        idle = [connection for connection in list(self._connections) if connection.idle]
        for connection in idle[: max(1, len(idle) // 8)]:
            connection.end_reads()
        sleep(pause)

    def _begin(self, listener: Listener, conn: Conn) -> None:
        base = self._bases[listener]
        if listener.path is None:
            host, port, *_ = conn.peer_address
            base = base | {"REMOTE_ADDR": host, "REMOTE_PORT": str(port)}
        if self._tls is None:
            transport = Transport(conn)
        else:
            transport = Tls(TlsConn(conn, self._tls, server_side=True, handshake_timeout=self.options.header_timeout))
        connection = Connection(self, transport, base)
        self._connections[connection] = None
        connection.goroutine = go(connection.serve)

    def ended(self, connection: Connection) -> None:
        """Called by a connection that was closed."""
        del self._connections[connection]
        if not self._room.is_set():
            self._room.set()


class _Errors:
    """`wsgi.errors`: whatever sys.stderr is at the time."""

    def write(self, text: str, /) -> int:
        import sys

        return sys.stderr.write(text) if sys.stderr is not None else len(text)

    def writelines(self, lines: list[str], /) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        import sys

        if sys.stderr is not None:
            sys.stderr.flush()


def _tls_context(options: Options) -> ssl.SSLContext | None:
    if options.certfile is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.certfile, options.keyfile)
    context.set_alpn_protocols(["http/1.1"])
    return context
