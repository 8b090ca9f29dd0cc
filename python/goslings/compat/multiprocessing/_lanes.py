"""What managers talk through: `serve` and `connect`, dressed as the connections that the library's managers expect.

A manager and its proxies are the library's code. It sends requests over connections of a thread each, and waits for the
answer to each. Here a process has one connection to a manager, which is authenticated and sealed as those of `connect`
are, and *lanes* on it, one for each thread or goroutine that uses proxies: so whoever waits for a lock or an item of
the manager holds up nobody, and parks if it is a goroutine.

* A lane is an object at the manager (`Shared`), which is carried out by a thread of its own there, as the library has
  it: locks of the manager know their holder by its thread. It goes when the last reference to it goes, be it dropped,
  or lost with the connection.
* The lane of a plain thread is a socket of its own, where there is a door to the manager (`_doors.py`): two switches of
  threads for a call, as with the library, in place of six. So are those of the first goroutines; those of many are on
  the connection.
* Requests without a lane (create, count references) are calls of the root, `Manager.once`.
* References are given back without waiting for the answer: that happens in finalizers, which may run anywhere.

Values are pickled by the library's rules (its reducers, or xmlrpclib if that is asked for) to bytes, which is all that
the connection carries. A serializer is named by a `Serializer`, a string that brings its entry of the library's table
with it wherever it is unpickled.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import queue
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from multiprocessing import connection as _connection
from multiprocessing import context as _context
from multiprocessing import managers as _managers
from multiprocessing import reduction as _reduction
from typing import Any

from goslings._blocking import blocking
from goslings._goslings import AtomicInt, _can_park, _recv_outside, chan, current, go
from goslings.compat.multiprocessing._doors import DirectLine, Door, Ended, knock
from goslings.processes._remote import AuthenticationError, Disconnected, Shared, connect, serve
from goslings.processes._remote._proxy import session_of

__all__ = ["Listener", "Serializer", "key", "serializer"]

_LIMIT = 0xFFFF_FFFF
_CONNECTIONS, _CALLS = 100_000, 100_000
_SECONDS = 60.0
"""How long it may take to connect."""
_GRACE = 0.2
"""How long a manager that shuts down waits for answers to be sent."""
_NOTHING = ("#RETURN", None)

_key: ContextVar[bytes] = ContextVar("the key of a listener")
"""The key of a listener that is being made: the library gives it to those who connect only."""


_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
_FEW = 64
"""So many parts are looked at to find out that they are plain."""


def _dump_pickle(obj: Any) -> bytes:
    if _is_plain(obj):
        return pickle.dumps(obj)
    buffer = io.BytesIO()
    _reduction.ForkingPickler(buffer).dump(obj)
    return buffer.getvalue()


def _is_plain(obj: Any) -> bool:
    """Whether a message has only parts for which no reducer is ever asked: pickle alone takes it, five times faster."""
    for part in obj:
        kind = type(part)
        if kind in _PLAIN:
            continue
        if kind not in (tuple, list, dict) or len(part) > _FEW or not _PLAIN.issuperset(map(type, part)):
            return False
        if kind is dict and not _PLAIN.issuperset(map(type, part.values())):
            return False
    return True


def _dump_xml(obj: Any) -> bytes:
    import xmlrpc.client

    return xmlrpc.client.dumps((obj,), None, None, None, True).encode()


def _load_xml(data: Any) -> Any:
    import xmlrpc.client

    (obj,), _ = xmlrpc.client.loads(bytes(data).decode())
    return obj


_PREFIX = "goslings."
_CODECS: dict[str, tuple[Callable[[Any], bytes], Callable[[Any], Any]]] = {
    "pickle": (_dump_pickle, pickle.loads),
    "xmlrpclib": (_dump_xml, _load_xml),
}


class Serializer(str):
    """The name of an entry of the library's table of serializers, which has been made."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        return serializer, (self.removeprefix(_PREFIX),)


def serializer(name: str) -> Serializer:
    """Ours for one of the library's. Raises KeyError."""
    name = name.removeprefix(_PREFIX)
    dump, load = _CODECS[name]
    ours = Serializer(_PREFIX + name)
    table: dict[str, Any] = _managers.listener_client  # type: ignore[attr-defined]  # no stub

    def listen(address: Any = None, backlog: int = 128) -> Listener:
        return Listener(address, dump, load)

    def dial(address: Any, authkey: Any = None) -> Client:
        return Client(address, bytes(authkey), dump, load)

    table.setdefault(ours, (listen, dial))
    return ours


def _where(address: Any, listening: bool) -> Any:
    """An address of the library, as `serve` and `connect` have it."""
    if isinstance(address, tuple):
        host, port = address
        return host or ("0.0.0.0" if listening else "localhost"), port
    if not isinstance(address, str | bytes | os.PathLike):
        raise ValueError(f"address type of {address!r} unrecognized")
    return f"unix:{os.fsdecode(address)}"


# At the manager


class Request:
    """One request to a manager, dressed as the connection that it came by."""

    def __init__(self, data: bytes, dump: Callable[[Any], bytes], load: Callable[[Any], Any]) -> None:
        self._data, self._dump, self._load = data, dump, load
        self.answer: bytes | None = None

    def recv(self) -> Any:
        return self._load(self._data)

    def send(self, obj: Any) -> None:
        self.answer = self._dump(obj)

    def close(self) -> None:
        pass


class _Line:
    """A lane where it ends: what the manager's thread for it reads and answers."""

    def __init__(self, dump: Callable[[Any], bytes], load: Callable[[Any], Any]) -> None:
        self._dump, self._load = dump, load
        self.inbox: queue.SimpleQueue[tuple[bytes, chan[bytes]] | None] = queue.SimpleQueue()
        self._answer: chan[bytes] | None = None

    def recv(self) -> Any:
        request = self.inbox.get()
        if request is None:
            raise EOFError
        data, self._answer = request
        return self._load(data)

    def send(self, obj: Any) -> None:
        data = self._dump(obj)
        if self._answer is not None:
            self._answer.try_send(data)

    def close(self) -> None:
        """The thread ends: who waits for an answer gets none."""
        if self._answer is not None:
            self._answer.try_send(b"")


class _Lane:
    """A lane, as the other side refers to it."""

    def __init__(self, line: _Line) -> None:
        self._line = line
        weakref.finalize(self, line.inbox.put, None).atexit = False

    def call(self, data: bytes) -> bytes:
        """One request, and its answer. Blocks."""
        answer = chan[bytes](2)
        self._line.inbox.put((data, answer))
        return _recv_outside(answer)


class _Root:
    """What is served."""

    def __init__(self, listener: Listener) -> None:
        self._listener = weakref.ref(listener)

    def open(self) -> Shared:
        """A new lane."""
        listener = self._listener()
        if listener is None:
            raise ConnectionError("the manager has ended")
        line = _Line(*listener.codec)
        listener.arrived.put(line)
        return Shared(_Lane(line), ("call",))

    def door(self) -> tuple[bytes, bytes] | None:
        """The name of the door for threads of this machine, and a token for one entry; None if there is no door."""
        listener = self._listener()
        door = None if listener is None else listener.door()
        return None if door is None else (door.name, door.promise())

    def once(self, data: bytes) -> bytes:
        """One request that needs no lane. Blocks, in a thread of its own: it may make any object."""
        listener = self._listener()
        if listener is None or listener.handle is None:
            raise ConnectionError("the manager has ended")
        request = Request(data, *listener.codec)
        blocking(listener.handle, request)
        return request.answer or b""


class Listener:
    """As `multiprocessing.connection.Listener`: what comes are lanes. Nobody is let in without the key."""

    def __init__(self, address: Any, dump: Callable[[Any], bytes], load: Callable[[Any], Any]) -> None:
        self.codec = dump, load
        self.arrived: queue.SimpleQueue[_Line | DirectLine] = queue.SimpleQueue()
        self.handle: Callable[[Request], None] | None = None
        """Carries out a request without a lane; set by the manager."""
        if address is None:
            address = _connection.arbitrary_address("AF_UNIX")  # type: ignore[attr-defined]  # no stub
        self._server = serve(
            _Root(self),
            _where(address, True),
            _key.get(),
            expose=("open", "once", "door"),
            limit=_LIMIT,
            connections=_CONNECTIONS,
            calls=_CALLS,
            grace=_GRACE,
        )
        self.address = self._server.address if isinstance(address, tuple) else address
        if isinstance(self.address, list):
            self.address = tuple(self.address)
        self._door: Door | None = None
        self._lock = threading.Lock()
        self._closed = False

    def accept(self) -> _Line | DirectLine:
        """The next lane. Blocks the thread."""
        return self.arrived.get()

    def door(self) -> Door | None:
        """Where threads of this machine come in; None if there can be none."""
        with self._lock:
            if self._door is None and not self._closed:
                with contextlib.suppress(OSError):
                    self._door = Door(self.arrived.put, self.codec)
            return self._door

    def close(self) -> None:
        """Nobody can connect any more, and who has is disconnected, after what was answered is sent."""
        with self._lock:
            self._closed = True
            door, self._door = self._door, None
        if door is not None:
            door.close()
        self._server.shutdown()


# At those who use it

_lock = threading.RLock()  # a finalizer may come in between
_roots: dict[tuple[int, Any, bytes], Any] = {}
"""The connections of this process: by process, address and key."""
_SOCKETS = 64
"""So many goroutines at a time have sockets of their own."""
_seats = AtomicInt()
"""How many have."""


class _Seat:
    """Counts for one socket of a goroutine as long as it lives."""

    def __init__(self) -> None:
        self.is_free = _seats.add(1) <= _SOCKETS

    def __del__(self) -> None:
        _seats.add(-1)


def _after_fork() -> None:
    """The child makes connections of its own."""
    global _lock
    _lock = threading.RLock()
    _roots.clear()


os.register_at_fork(after_in_child=_after_fork)


def _in_place[T](call: Callable[[], T]) -> T:
    """Makes a call that parks or blocks. A coroutine of asyncio holds up its loop meanwhile, as with the library."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or current() is not None or asyncio._get_running_loop() is None:
        return call()
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((call(), None))
        except BaseException as error:
            done.put((None, error))

    go(run)
    value: T
    value, error = done.get()
    try:
        if error is not None:
            raise error
        return value
    finally:
        del error


def _root(address: Any, key: bytes) -> Any:
    known = os.getpid(), address, key
    root = _roots.get(known)
    if root is not None and session_of(root).over is None:
        return root
    try:
        root = _in_place(lambda: connect(_where(address, False), key, timeout=_SECONDS, limit=_LIMIT))
    except AuthenticationError as error:
        if isinstance(error.__context__, EOFError | ConnectionError):
            raise Ended("the manager has ended") from error
        raise _context.AuthenticationError(str(error)) from error
    with _lock:
        for stale in [each for each, it in _roots.items() if each[0] != known[0] or session_of(it).over is not None]:
            del _roots[stale]
        return _roots.setdefault(known, root)


class _OnConnection:
    """A lane of the shared connection."""

    def __init__(self, lane: Any) -> None:
        self._lane = lane

    def call(self, data: bytes) -> Any:
        return _in_place(lambda: self._lane.call(data))


class Client:
    """As what `multiprocessing.connection.Client` returns: each thread and goroutine has its own lane."""

    def __init__(self, address: Any, key: bytes, dump: Callable[[Any], bytes], load: Callable[[Any], Any]) -> None:
        self._root = _root(address, key)
        self._dump, self._load = dump, load
        self._greeting: bytes | None = None
        """The request that makes a lane of a connection; None: there is none yet."""
        self._here = threading.local()
        self._lanes: weakref.WeakKeyDictionary[Any, _Sending] = weakref.WeakKeyDictionary()
        self._closed = False

    def _mine(self) -> _Sending:
        goroutine = current()
        if goroutine is None:
            mine: _Sending | None = getattr(self._here, "lane", None)
            if mine is None:
                mine = self._here.lane = _Sending()
            return mine
        mine = self._lanes.get(goroutine)
        if mine is None:
            mine = self._lanes[goroutine] = _Sending()
        return mine

    def send(self, obj: Any) -> None:
        """A request. What cannot be pickled raises here."""
        if self._closed:
            raise OSError("handle is closed")
        mine = self._mine()
        mine.data = self._dump(obj)
        mine.name = obj[1] if obj[0] is None else None

    def recv(self) -> Any:
        """Sends it, and waits for the answer. Parks the goroutine, or blocks the thread."""
        mine = self._mine()
        data, mine.data = mine.data, None
        if data is None:
            raise EOFError
        if mine.name == "decref":
            session_of(self._root).cast(0, "once", (data,))
            return _NOTHING
        try:
            if mine.name == "accept_connection":
                self._greeting = data
                mine.lane = None
            elif self._greeting is None:
                return self._answer(_in_place(lambda: self._root.once(data)))
            if mine.lane is None:
                mine.lane = self._new_lane()
                answer = self._answer(mine.lane.call(self._greeting))
                if mine.name == "accept_connection":
                    return answer
            return self._answer(mine.lane.call(data))
        except Disconnected as error:
            raise Ended(str(error)) from error

    def _new_lane(self) -> Any:
        """A lane for who calls. Blocks."""
        seat = _Seat() if current() is not None else None
        if seat is None or (seat.is_free and _can_park()):
            door: tuple[bytes, bytes] | None = _in_place(self._root.door)
            lane = None if door is None else knock(door[0], door[1], seat)
            if lane is not None:
                return lane
        return _OnConnection(_in_place(self._root.open))

    def _answer(self, data: Any) -> Any:
        if not data:
            raise EOFError
        return self._load(data)

    def close(self) -> None:
        """Gives its lanes up."""
        self._closed = True
        self._here = threading.local()
        self._lanes.clear()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Sending:
    """What one thread or goroutine has sent, and its lane."""

    __slots__ = ("data", "lane", "name")

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.name: str | None = None
        self.lane: Any = None


@contextlib.contextmanager
def key(authkey: bytes) -> Iterator[None]:
    """Listeners that are made meanwhile let in who knows this key."""
    token = _key.set(bytes(authkey))
    try:
        yield
    finally:
        _key.reset(token)
