"""`ssl`: TLS sockets, whose waits C would make in `_ssl`.

The timeout of such a socket is kept here, in an attribute of it, and C is told 0. So reading, writing, the handshake
and its end never wait in C but raise "want read" or "want write"; then the descriptor is waited for, with one deadline
for the whole call. That holds on plain threads, too. A socket that was made before the patch is left to C until the
first goroutine uses it.

OpenSSL's connection must not be used by two threads at once; older versions of the module do not see to that. So each
socket has a mutex, held for an attempt, never for a wait.

The types that are published of `ssl` leave out what its own methods use and these must use, too (`_sslobj`,
`_check_connected`): hence the silenced errors.
"""

from __future__ import annotations

import _socket
import functools
import socket
import ssl
from collections.abc import Callable
from typing import Any

from goslings._goslings import Mutex, _can_park
from goslings._patch._change import Change, Unit
from goslings._patch._socket import hidden_timeout, hidden_timeouts
from goslings._patch._waiting import Deadline

__all__ = ["unit"]

_C = _socket.socket
_c_timeout: Callable[[Any], float | None] = _C.timeout.__get__
_mutex = "_goslings_mutex"

_SSLSocket: Any = ssl.SSLSocket
_read = _SSLSocket.read
_write = _SSLSocket.write
_send = _SSLSocket.send
_do_handshake = _SSLSocket.do_handshake
_unwrap = _SSLSocket.unwrap


def _hide(sock: ssl.SSLSocket, timeout: float | None) -> None:
    """From now on the timeout is ours, and C's is 0."""
    sock.__dict__.setdefault(_mutex, Mutex())
    sock.__dict__[hidden_timeout] = timeout
    _C.settimeout(sock, 0.0)


def _ours(sock: ssl.SSLSocket) -> bool:
    """Whether to wait here rather than in C."""
    if hidden_timeouts(sock):
        return True
    if not _can_park():
        return False
    _hide(sock, _C.gettimeout(sock))
    return True


def _drive(sock: ssl.SSLSocket, timeout: float | None, what: str | None, call: Callable[[], Any]) -> Any:
    """Makes a call until it need not wait. `what` times out; if it is not given, what it waited for."""
    deadline = None
    mutex = sock.__dict__[_mutex]
    while True:
        mutex._lock_here()
        try:
            return call()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            if timeout == 0:
                raise
            write = isinstance(error, ssl.SSLWantWriteError)
        finally:
            mutex.unlock()
        if deadline is None:
            deadline = Deadline(timeout)
        if not deadline.ready(sock, write):
            raise TimeoutError(f"The {what or ('write' if write else 'read')} operation timed out")


# Timeouts


def settimeout(self: ssl.SSLSocket, value: float | None, /) -> None:
    _C.settimeout(self, value)  # which checks it
    _hide(self, _C.gettimeout(self))


def gettimeout(self: ssl.SSLSocket) -> float | None:
    if hidden_timeout not in self.__dict__:
        return _C.gettimeout(self)
    timeout: float | None = self.__dict__[hidden_timeout]
    return timeout


def setblocking(self: ssl.SSLSocket, flag: bool, /) -> None:
    _C.setblocking(self, flag)
    _hide(self, _C.gettimeout(self))


def getblocking(self: ssl.SSLSocket) -> bool:
    return gettimeout(self) != 0


# Transfers


def read(self: ssl.SSLSocket, len: int = 1024, buffer: Any = None) -> Any:
    if not _ours(self):
        return _read(self, len, buffer)
    return _drive(self, gettimeout(self), "read", lambda: _read(self, len, buffer))


def write(self: ssl.SSLSocket, data: Any) -> int:
    if not _ours(self):
        return _write(self, data)  # type: ignore[no-any-return]
    return _drive(self, gettimeout(self), "write", lambda: _write(self, data))  # type: ignore[no-any-return]


def send(self: ssl.SSLSocket, data: Any, flags: int = 0) -> int:
    if self._sslobj is None or not _ours(self):  # type: ignore[attr-defined]
        return _send(self, data, flags)  # type: ignore[no-any-return]
    return _drive(self, gettimeout(self), "write", lambda: _send(self, data, flags))  # type: ignore[no-any-return]


def do_handshake(self: ssl.SSLSocket, block: bool = False) -> None:
    if not _ours(self):
        return _do_handshake(self, block)  # type: ignore[no-any-return]
    self._check_connected()  # type: ignore[attr-defined]
    timeout = gettimeout(self)
    if timeout == 0 and block:
        timeout = None
    return _drive(self, timeout, "handshake", lambda: self._sslobj.do_handshake())  # type: ignore[attr-defined, no-any-return]


def unwrap(self: ssl.SSLSocket) -> socket.socket:
    if not self._sslobj or not _ours(self):  # type: ignore[attr-defined]
        return _unwrap(self)  # type: ignore[no-any-return]
    return _drive(self, gettimeout(self), None, lambda: _unwrap(self))  # type: ignore[no-any-return]


_METHODS: list[Callable[..., Any]] = [
    *(settimeout, gettimeout, setblocking, getblocking),
    *(read, write, send, do_handshake, unwrap),
]


def _method(method: Callable[..., Any]) -> Change:
    owner, name = ssl.SSLSocket, method.__name__
    original = getattr(owner, name)
    functools.update_wrapper(method, original, ("__name__", "__qualname__", "__doc__"), ())
    return Change(owner, name, original, method, rebind=False)


def unit() -> Unit:
    timeout = property(gettimeout, doc="The timeout in seconds, or None.")
    changes = [*map(_method, _METHODS), Change(ssl.SSLSocket, "timeout", ssl.SSLSocket.timeout, timeout, rebind=False)]
    return Unit("ssl", changes)
