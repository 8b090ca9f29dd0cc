"""Connections over TCP and Unix sockets, for goroutines: `listen`, `dial`, `serve`.

>>> from goslings import go, net
>>> with net.listen("localhost:0") as listener:
...     def echo():
...         with listener.accept() as conn:
...             while data := conn.recv():
...                 conn.send(data)
...     _ = go(echo)
...     with net.dial(listener.address) as conn:
...         conn.send(b"hello")
...         conn.recv()
b'hello'

An address is a pair (host, port), a text "host:port" or "[host]:port", or "unix:/path". A host "" is every address of
this machine when listening, and this machine when dialling. Calls wait as everything in goslings does: a goroutine
parks, a plain thread blocks. Each takes a `timeout` in seconds, and a connection can have a deadline. Errors are
OSError by their numbers.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from goslings import _goslings
from goslings._blocking import blocking
from goslings._goslings import Conn as Conn
from goslings._goslings import Event, Goroutine, Mutex, Semaphore, WaitGroup, current, go, sleep, wait_fd
from goslings._goslings import Listener as Listener

__all__ = ["Address", "Conn", "Listener", "Server", "dial", "listen", "serve"]

type Address = str | tuple[Any, ...]
"""Where to listen or dial: ("host", port), "host:port", "[host]:port" or "unix:/path"."""

_BACKOFF = (0.005, 1.0)
"""How long a server waits when it cannot accept a connection: first, and at most. Go's HTTP server does the same."""
_MOMENT = 0.5
"""How long handlers have after their connections were closed, and again after they were cancelled."""


def _split(address: Address) -> tuple[str, int] | str:
    """Host and port, or a path."""
    if isinstance(address, tuple):
        if len(address) < 2 or not isinstance(address[0], str) or not isinstance(address[1], int):
            raise ValueError(f"an address is a host and a port, not {address!r}")
        return address[0], address[1]
    if not isinstance(address, str):
        raise TypeError(f"an address is a str or a tuple, not {type(address).__name__}")
    if address.startswith("unix:"):
        return address.removeprefix("unix:")
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'an address is "host:port" or "unix:/path", not {address!r}')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"brackets belong around a host with colons: {address!r}")
    return host, int(port)


def _resolve(host: str, port: int, flags: int) -> list[tuple[Any, ...]]:
    """What a host and a port stand for. Names are looked up on a thread of their own."""
    kind = socket.SOCK_STREAM
    try:
        return socket.getaddrinfo(host or None, port, type=kind, flags=flags | socket.AI_NUMERICHOST)
    except socket.gaierror:
        return blocking(socket.getaddrinfo, host, port, type=kind, flags=flags)


def listen(address: Address, *, backlog: int = 1024, reuse_port: bool = False) -> Listener:
    """Listens for connections at `address`; port 0 is any that is free.

    `backlog`: how many connections the system keeps until they are accepted. `reuse_port`: others, of this process or
    of another, may listen there too, and share the connections. The file of a Unix socket that nobody listens on any
    more is replaced. Blocks while a name is looked up. Raises OSError. Go: `net.Listen`.
    """
    where = _split(address)
    if isinstance(where, str):
        _remove_stale(where)
        return _listen_on(socket.AF_UNIX, where, backlog, False)
    found = _resolve(*where, socket.AI_PASSIVE)
    if not where[0]:
        # Every address: one socket for both families, where the system has that.
        found.sort(key=lambda entry: entry[0] != socket.AF_INET6 if socket.has_dualstack_ipv6() else entry[0])
    family, _, _, _, bound = found[0]
    return _listen_on(family, bound, backlog, reuse_port, dual=not where[0] and socket.has_dualstack_ipv6())


def _listen_on(family: int, where: Any, backlog: int, reuse_port: bool, *, dual: bool = False) -> Listener:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        sock.bind(where)
        sock.listen(backlog)
        listener = Listener(sock.fileno())
        sock.detach()
        return listener


def _remove_stale(path: str) -> None:
    """Removes the file of a Unix socket that nobody listens on."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)


def dial(address: Address, *, timeout: float | None = None) -> Conn:
    """Connects to `address`.

    A name that stands for several addresses has them tried in turn. Blocks until it is connected, at most `timeout`
    seconds in all: then TimeoutError. Raises OSError; of several, the last. Go: `net.Dial`.
    """
    end = None if timeout is None else time.monotonic() + timeout
    where = _split(address)
    if isinstance(where, str):
        return _connect(socket.AF_UNIX, where, end)
    last: OSError | None = None
    for family, _, _, _, peer in _resolve(*where, 0):
        try:
            return _connect(family, peer, end)
        except TimeoutError:
            raise
        except OSError as error:
            last = error
    raise last or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))


def _connect(family: int, peer: Any, end: float | None) -> Conn:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = sock.connect_ex(peer)
        while number == errno.EAGAIN and family == socket.AF_UNIX:
            # The listener's queue is full, and the system has no way of waiting for that without blocking.
            if end is not None and time.monotonic() >= end:
                raise TimeoutError("timed out")
            sleep(0.001)
            number = sock.connect_ex(peer)
        if number == errno.EINPROGRESS:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not wait_fd(sock.fileno(), True, left):
                raise TimeoutError("timed out")
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
        conn = Conn(sock.fileno())
        sock.detach()
        return conn
    except BaseException:
        # Whatever is written elsewhere of this number is of a file that is gone.
        _goslings.closing_fd(sock.fileno())
        sock.close()
        raise


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
        # Changed by single operations only, which need no lock; what follows a cancellation must not wait for one.
        self._live: dict[Conn, Goroutine[Any] | None] = {}
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
            self._live[conn] = None
            go(self._run, conn)

    def _run(self, conn: Conn) -> None:
        try:
            self._live[conn] = current()
            with conn:
                self._handler(conn)
        except OSError:
            # Of calls on a connection that was taken away from its handler.
            if not self._forced:
                raise
        finally:
            del self._live[conn]
            if self._room is not None:
                self._room.release()
            self._group.done()

    @property
    def address(self) -> Any:
        """Where it listens, as `socket.getsockname` gives it."""
        return self._address

    @property
    def connections(self) -> int:
        """How many connections are being served."""
        return len(self._live)

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
                for conn in list(self._live):
                    conn.close()
                if not self._group.wait(_MOMENT):
                    for goroutine in list(self._live.values()):
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
        state = "ended" if self._ended.is_set() else "stopping" if self._stopping else f"{len(self._live)} connections"
        return f"<goslings.net.Server {self._address!r}, {state}>"


def serve(
    handler: Callable[[Conn], object],
    address: Address | Listener,
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    connections: int | None = None,
    grace: float = 10.0,
) -> Server:
    """Starts serving connections at `address`: `handler(conn)` in a goroutine for each. Returns at once.

    When the handler returns, the connection is closed. An exception of a handler ends that connection only, and goes to
    `goslings.excepthook`. `connections`: no more than so many are served at a time; the others wait in the backlog.
    Without descriptors left it waits for some, and goes on. `grace`: see `Server.shutdown`. `backlog`, `reuse_port`:
    see `listen`.
    """
    if connections is not None and connections < 1:
        raise ValueError("a server needs room for a connection")
    if not callable(handler):
        raise TypeError("a handler is called with each connection")
    listener = address if isinstance(address, Listener) else listen(address, backlog=backlog, reuse_port=reuse_port)
    return Server(handler, listener, connections, grace)
