"""`serve`: an object for others; `connect`: the way to it."""

from __future__ import annotations

import contextlib
import os
import ssl as tls
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from goslings import net
from goslings._goslings import AtomicInt, Conn, Event, Mutex, _may_block, go
from goslings.processes._remote._auth import Keys, answer, challenge, check_key
from goslings.processes._remote._errors import Disconnected
from goslings.processes._remote._frames import Frames
from goslings.processes._remote._held import held
from goslings.processes._remote._proxy import make_proxy
from goslings.processes._remote._session import Session
from goslings.processes._remote._shared import check_limit, expose_all
from goslings.processes._remote._wire import keep_alive

__all__ = ["Server", "aconnect", "connect", "serve"]

type Address = str | os.PathLike[str] | tuple[str, int]
"""("host", port), "host:port", or the path of a Unix socket: "/path", "unix:/path" or a Path."""

_LIMIT = 64 * 1024 * 1024
_FOREVER = 1e9
_STRANGERS = 128
"""So many connections may be without authentication at a time; one more takes the place of the oldest."""


def _where(address: Any) -> Any:
    """An address as `goslings.net` has it."""
    if isinstance(address, os.PathLike):
        return f"unix:{os.fspath(address)}"
    if isinstance(address, str) and "/" in address and not address.startswith("unix:"):
        return f"unix:{address}"
    if isinstance(address, list):
        return tuple(address)
    return address


def _host(where: str) -> str | None:
    """Whom a certificate is to name; a path names nobody."""
    return None if where.startswith("unix:") else where.rpartition(":")[0].strip("[]")


class Server:
    """Serves an object to others. Made by `serve`; as a context manager it shuts down at the end."""

    def __init__(
        self,
        obj: Any,
        address: Any,
        authkey: bytes,
        *,
        expose: Iterable[str] | None,
        ssl: tls.SSLContext | None,
        limit: int,
        connections: int,
        calls: int,
        handshake: float,
        grace: float,
        backlog: int,
    ) -> None:
        self._key = check_key(authkey)
        self._root = expose_all(obj, expose)
        self._ssl, self._limit = ssl, check_limit(limit)
        if connections < 1 or calls < 1:
            raise ValueError("a server needs room for a connection, and a call")
        self._connections, self._calls, self._handshake, self._grace = connections, calls, handshake, grace
        self._sessions: dict[Session, None] = {}
        """Changed by single operations."""
        self._strangers: dict[Conn, None] = {}
        self._seats = 0
        """Of clients that have proved themselves. Both under the lock."""
        self._lock, self._shutting = Mutex(), Mutex()
        self._refused = AtomicInt()
        self._ended = Event()
        self._stopping = False
        where = _where(address)
        self._path = where.removeprefix("unix:") if isinstance(where, str) and where.startswith("unix:") else None
        self._server = net.serve(self._handle, where, backlog=backlog)
        self._made = os.stat(self._path).st_ino if self._path else 0

    def _handle(self, conn: Conn) -> None:
        """One connection, from its first byte to its end. What a stranger does wrong is no error of ours."""
        with held(self._lock):
            self._strangers[conn] = None
            oldest = next(iter(self._strangers)) if len(self._strangers) > _STRANGERS else None
            if oldest is not None:
                del self._strangers[oldest]
        if oldest is not None:
            oldest.close()
        entered: list[None] = []
        try:
            session = self._admit(conn, entered)
            if session is not None:
                self._serve(session)
        except (OSError, EOFError, ValueError):
            self._refused.add(1)
        finally:
            with held(self._lock):
                self._strangers.pop(conn, None)
                self._seats -= len(entered)

    def _serve(self, session: Session) -> None:
        """Who was admitted, to the end."""
        try:
            session.read_all()
        finally:
            session.end(Disconnected("the server shuts down"))
            self._sessions.pop(session, None)

    def _enter(self, conn: Conn, entered: list[None]) -> bool:
        """Gives a client that has proved itself a seat, if there is one, and notes that in `entered`."""
        with held(self._lock):
            self._strangers.pop(conn, None)
            if self._stopping or self._seats >= self._connections:
                return False
            self._seats += 1
            entered.append(None)
            return True

    def _admit(self, conn: Conn, entered: list[None]) -> Session | None:
        """Who knows the key gets a session, if there is room."""
        end = time.monotonic() + self._handshake
        keep_alive(conn)
        wire = conn
        if self._ssl is not None:
            wire = net.TlsConn(conn, self._ssl, server_side=True, handshake_timeout=self._handshake)
        seconds = max(0.001, end - time.monotonic())
        keys = challenge(wire, self._key, seconds, lambda: self._enter(conn, entered))
        if keys is None:
            return None
        wire.set_deadline(self._handshake)
        session = self._session(wire, keys)
        session.greet()
        session.be_greeted()
        wire.set_deadline(None)
        self._sessions[session] = None
        if self._stopping:
            session.end(Disconnected("the server shuts down"))
        return session

    def _session(self, wire: Conn, keys: Keys) -> Session:
        frames = Frames(wire, keys.to_client, keys.to_server, self._limit, impatient=True)
        peer = f"client {wire.peer_address or self.address!r}"
        return Session(frames, make_proxy, root=self._root, peer=peer, limit=self._limit, calls=self._calls)

    @property
    def address(self) -> Any:
        """Where it listens: what `connect` takes. With port 0 it is this that tells which was free."""
        return self._path or self._server.address

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._sessions)

    @property
    def refused(self) -> int:
        """How many connections have ended without having been let in: wrong keys, garbage, silence."""
        return self._refused.load()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it has shut down; returns whether that came within `timeout` seconds."""
        return self._ended.wait(timeout)

    def shutdown(self, grace: float | None = None) -> bool:
        """Stops accepting, waits for calls that are being carried out, and disconnects the clients.

        Returns whether all calls came to their end within `grace` seconds (None: what `serve` was given); those that
        are left are cancelled. Operations on channels are not waited for. Blocks. To call it again waits for the first
        call.
        """
        with self._shutting:
            if self._ended.is_set():
                return True
            self._stopping = True
            end = time.monotonic() + (self._grace if grace is None else grace)
            closing = go(self._server.shutdown, max(0.0, end - time.monotonic()) + 1.0)
            finished = True
            for session in list(self._sessions):
                finished = session.wait_idle(max(0.0, end - time.monotonic())) and finished
                session.end(Disconnected("the server has shut down"))
                session.finished.wait()
            for conn in list(self._strangers):
                conn.close()
            closing.result()
            self._remove_path()
            self._ended.set()
            return finished

    def _remove_path(self) -> None:
        """The file of a Unix socket, if it is still ours."""
        if self._path:
            with contextlib.suppress(OSError):
                if os.stat(self._path).st_ino == self._made:
                    os.unlink(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        state = "ended" if self._ended.is_set() else f"{len(self._sessions)} clients"
        return f"<goslings.processes.Server of a {self._root.description.name} at {self.address!r}, {state}>"


Server.__module__ = "goslings.processes"


def serve(
    obj: Any,
    address: Address,
    authkey: bytes,
    *,
    expose: Iterable[str] | None = None,
    ssl: tls.SSLContext | None = None,
    limit: int = _LIMIT,
    connections: int = 1000,
    calls: int = 10_000,
    handshake: float = 10.0,
    grace: float = 5.0,
    backlog: int = 1024,
) -> Server:
    """Serves `obj` to other processes and machines, who reach it by `connect`. Returns at once.

    Each call runs in a goroutine of its own, many at a time: `obj` must bear that, as anything that goroutines share.
    Methods of `async def` are awaited. A channel can be served, too.

    `address`: ("host", port), "host:port", or the path of a Unix socket. `authkey`: random bytes that both sides know;
    whoever knows them can run any code here, since arguments are unpickled. Others are not listened to. `expose`: the
    names of methods and attributes that clients may use; by default the public methods of the object's class. Python's
    own, as `__getitem__`, `__len__`, `__contains__`, must be named. `ssl`: a context for TLS; without it everybody on
    the way can read, though not change, what is sent. `limit`: bytes of one message, here and to clients.
    `connections`, `calls`: clients at a time, and calls of one client at a time. `handshake`: seconds in which a
    client must have proved that it knows the key. `grace`: see `Server.shutdown`. Raises OSError; TypeError,
    ValueError or AttributeError for names that cannot be exposed.
    """
    return Server(
        obj,
        address,
        authkey,
        expose=expose,
        ssl=ssl,
        limit=limit,
        connections=connections,
        calls=calls,
        handshake=handshake,
        grace=grace,
        backlog=backlog,
    )


def connect(
    address: Address,
    authkey: bytes,
    *,
    timeout: float | None = 10.0,
    ssl: tls.SSLContext | None = None,
    server_hostname: str | None = None,
    limit: int = _LIMIT,
    calls: int = 10_000,
) -> Any:
    """Connects to an object that somebody serves with `serve`; returns its proxy, or the channel.

    Blocks, at most `timeout` seconds. Raises AuthenticationError if the two sides do not have the same key,
    ConnectionRefusedError if nobody is there or the server is full, TimeoutError, other kinds of OSError. `ssl`: a
    context for TLS; `server_hostname`: the name in the certificate, if it is not the host of the address. `limit`:
    bytes of one message. `calls`: how many calls of the server, on objects that it was given, are carried out here at
    a time.
    """
    _may_block("aconnect()")
    key = check_key(authkey)
    where = _where(address)
    end = None if timeout is None else time.monotonic() + timeout
    conn = net.dial(where, timeout=timeout)
    try:
        keep_alive(conn)
        left = None if end is None else max(0.001, end - time.monotonic())
        wire = conn
        if ssl is not None:
            name = server_hostname or (where[0] if isinstance(where, tuple) else _host(where))
            wire = tls_conn = net.TlsConn(conn, ssl, server_hostname=name, handshake_timeout=left or _FOREVER)
            tls_conn.handshake()
            left = None if end is None else max(0.001, end - time.monotonic())
        keys = answer(wire, key, left)
        wire.set_deadline(left)
        frames = Frames(wire, keys.to_server, keys.to_client, check_limit(limit), impatient=False)
        session = Session(frames, make_proxy, root=None, peer=str(address), limit=limit, calls=calls)
        session.greet()
        description = session.be_greeted()
        wire.set_deadline(None)
    except EOFError:
        conn.close()
        raise ConnectionError("the server closed the connection") from None
    except BaseException:
        conn.close()
        raise
    session.start_reading()
    return make_proxy(session, 0, description) if description is not None else None


async def aconnect(address: Address, authkey: bytes, **options: Any) -> Any:
    """aconnect(address, authkey, ...): as `connect`, awaited."""
    return await go(connect, address, authkey, **options)
