"""A server: a goroutine for each connection, limits, an orderly end."""

from __future__ import annotations

import logging
import ssl
from collections import defaultdict
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from goslings._goslings import (
    Conn,
    Event,
    Goroutine,
    Listener,
    Mutex,
    Semaphore,
    WaitGroup,
    _go_at,
    _place,
    _places,
    current,
    go,
    sleep,
)
from goslings.net._address import Address
from goslings.net._listen import listen
from goslings.net._tls import HANDSHAKE_SECONDS, TlsConn

__all__ = ["Server", "serve"]

_log = logging.getLogger("goslings.net")

_BACKOFF = (0.005, 1.0)
"""How long a server waits when it cannot accept a connection: first, and at most. Go's HTTP server does the same."""
_MOMENT = 0.5
"""How long handlers have after their connections were closed, and again after they were cancelled."""


class Server:
    """Serves connections, each with a goroutine of its own. Made by `serve`.

    As a context manager it shuts down at the end.
    """

    def __init__(
        self, handler: Callable[[Conn], object], listener: Listener, connections: int | None, grace: float
    ) -> None:
        self._handler = handler
        self._listener = listener
        self._address = listener.address
        self._grace = grace
        self._room = None if connections is None else Semaphore(connections)
        # The connections of each worker. Changed by single operations only, which need no lock; what follows a
        # cancellation must not wait for one.
        self._live: defaultdict[int, dict[Conn, Goroutine[Any] | None]] = defaultdict(dict)
        self._group = WaitGroup()
        self._accepted = 0
        self._stopping = self._forced = False
        self._shutting = Mutex()
        self._ended = Event()
        self._acceptor = go(self._accept)

    def _accept(self) -> None:
        pause = _BACKOFF[0]
        while not self._stopping:
            if self._room is not None:
                self._room.acquire()
            try:
                conn = self._listener.accept()
            except OSError:
                if self._room is not None:
                    self._room.release()
                if self._listener.closed:
                    return
                # There is no room for one more, or the network has failed: that passes.
                sleep(pause)
                pause = min(2 * pause, _BACKOFF[1])
                continue
            pause = _BACKOFF[0]
            self._accepted += 1
            self._group.add(1)
            # A goroutine stays on its worker. Left to whoever is idle, most would begin, and stay, where they are
            # accepted.
            place = min(_places(), key=lambda place: len(self._live[place]))
            self._live[place][conn] = None
            _go_at(place, self._run, conn, place)

    def _run(self, conn: Conn, place: int) -> None:
        try:
            if (here := _place()) != place:
                # That worker was held up, and another one has come.
                self._live[here][conn] = self._live[place].pop(conn)
                place = here
            self._live[place][conn] = current()
            with conn:
                if not isinstance(conn, TlsConn) or self._greeted(conn):
                    self._handler(conn)
        except OSError:
            # Of calls on a connection that was taken away from its handler.
            if not self._forced:
                raise
        finally:
            del self._live[place][conn]
            if self._room is not None:
                self._room.release()
            self._group.done()

    def _greeted(self, conn: TlsConn) -> bool:
        """Makes the handshake; whether it went well. What is wrong with a client is not the server's failure."""
        try:
            conn.handshake()
        except OSError as error:
            _log.info("no TLS with a client: %s", error)
            return False
        return True

    @property
    def address(self) -> Any:
        """Where it listens, as `socket.getsockname` gives it."""
        return self._address

    @property
    def connections(self) -> int:
        """How many connections are being served."""
        return sum(map(len, self._live.copy().values()))

    @property
    def accepted(self) -> int:
        """How many connections have been accepted so far."""
        return self._accepted

    @property
    def stopping(self) -> bool:
        """Whether it is shutting down, or has: handlers that could serve for ever look here now and then."""
        return self._stopping

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it has shut down; returns whether that came within `timeout` seconds."""
        return self._ended.wait(timeout)

    def shutdown(self, grace: float | None = None) -> bool:
        """Stops accepting, and waits for the connections that are being served; returns whether all came to their end.

        After `grace` seconds (None: what `serve` was given) those that are left are closed; goroutines that do not end
        by that are cancelled. Blocks. To call it again waits for the first call. Go: `http.Server.Shutdown`, then
        `Close`.
        """
        with self._shutting:
            if self._ended.is_set():
                return True
            self._stopping = True
            self._listener.close()
            self._acceptor.cancel()
            self._acceptor.join()
            finished = self._group.wait(self._grace if grace is None else grace)
            if not finished:
                self._forced = True
                for lives in self._live.copy().values():
                    for conn in list(lives):
                        conn.close()
                if not self._group.wait(_MOMENT):
                    for lives in self._live.copy().values():
                        for goroutine in list(lives.values()):
                            if goroutine is not None:
                                goroutine.cancel("the server shuts down")
                    self._group.wait(_MOMENT)
            self._ended.set()
            return finished

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        state = "ended" if self._ended.is_set() else "stopping" if self._stopping else f"{self.connections} connections"
        return f"<goslings.net.Server {self._address!r}, {state}>"


def serve(
    handler: Callable[[Conn], object],
    address: Address | Listener,
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    connections: int | None = None,
    grace: float = 10.0,
    tls: ssl.SSLContext | None = None,
    handshake_timeout: float = HANDSHAKE_SECONDS,
) -> Server:
    """Starts serving connections at `address`: `handler(conn)` in a goroutine for each. Returns at once.

    When the handler returns, the connection is closed. An exception of a handler ends that connection only, and goes to
    `goslings.excepthook`. `connections`: no more than so many are served at a time; the others wait in the backlog.
    Without descriptors left it waits for some, and goes on. `grace`: see `Server.shutdown`. `backlog`, `reuse_port`,
    `tls`, `handshake_timeout`: see `listen`. With TLS the handshake is made before the handler is called; if it fails,
    the connection is closed, and the logger "goslings.net" told at level INFO.
    """
    if connections is not None and connections < 1:
        raise ValueError("a server needs room for a connection")
    if not callable(handler):
        raise TypeError("a handler is called with each connection")
    if isinstance(address, Listener):
        if tls is not None:
            raise ValueError("whether it talks TLS was said to `listen`")
        listener = address
    else:
        listener = listen(address, backlog=backlog, reuse_port=reuse_port, tls=tls, handshake_timeout=handshake_timeout)
    return Server(handler, listener, connections, grace)
