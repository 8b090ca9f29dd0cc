"""`socket`: the methods of the class `socket.socket`, which sockets that exist follow, as do those of TLS.

A method tries without waiting, waits for the descriptor, and tries again, until its timeout is over. What it tries is
the method written in C, so that arguments, answers and errors are its own; `recv`, `recv_into`, `send`, `sendall` and
`accept`, which are called most, have all that in one native call. What waits is given the socket and not its number,
which another goroutine could close before the wait has begun. Three things keep the attempt from waiting:

* MSG_DONTWAIT, which all the calls that transfer data take.
* A twin: to a socket with a timeout, C waits by itself, before it looks. So the call is made on a second socket object
  for the same descriptor, whose timeout is 0 and which is detached afterwards.
* O_NONBLOCK for `accept` and `connect`, which have no such flag. After `connect` it is taken away again. A listening
  socket keeps it, since several may accept at a time; where C would wait nevertheless, so do we.

A timeout of 0 means that nothing here waits. Beside goroutines the loops serve sockets whose timeout C does not know:
those of TLS (see `_ssl.py`).

What the methods of `socket.socket` use and its published types leave out (`_accept`, `_closed`) is behind each silenced
error.
"""

from __future__ import annotations

import _socket
import errno
import functools
import os
import socket
from collections.abc import Callable
from typing import Any

from goslings._blocking import offload as blocking
from goslings._goslings import _can_park, closing_fd, sock_accept, sock_recv, sock_recv_into, sock_send, sock_sendall
from goslings._patch import _dns
from goslings._patch._change import Change, Unit, swap
from goslings._patch._waiting import Deadline

__all__ = ["hidden_timeout", "hidden_timeouts", "unit"]

_C = _socket.socket
_DONTWAIT = _socket.MSG_DONTWAIT
_FAMILIES = (_socket.AF_INET, _socket.AF_INET6, _socket.AF_UNIX)
"""Whose addresses the native `accept` knows."""
_IN_PROGRESS = (errno.EINPROGRESS, errno.EALREADY)

_gettimeout = _C.gettimeout
_fileno = _C.fileno
_family: Callable[[Any], int] = _C.family.__get__
_type: Callable[[Any], int] = _C.type.__get__
_proto: Callable[[Any], int] = _C.proto.__get__
_close = functools.partial(_socket.close)
_sendfile: Any = socket.socket._sendfile_use_sendfile  # type: ignore[attr-defined]


class _NoWait:
    """Says that a call does not wait, or as far as C does: it is left to C."""


_NO_WAIT = _NoWait()

hidden_timeout = "_goslings_timeout"
"""The attribute that has the timeout of a socket which C takes for one that never waits."""


def hidden_timeouts(sock: socket.socket) -> bool:
    """Whether the timeout of this socket is ours to watch."""
    return hidden_timeout in getattr(sock, "__dict__", ())


def _limit(sock: socket.socket, flags: int = 0) -> float | None | _NoWait:
    """How long a call may wait here; or that it is C's affair."""
    if not _can_park() and not hidden_timeouts(sock):
        return _NO_WAIT
    timeout: float | None = sock.gettimeout()
    if timeout == 0 or (timeout is None and flags & _DONTWAIT):
        return _NO_WAIT
    return timeout


def _now(sock: socket.socket, call: Callable[..., Any], *args: Any) -> Any:
    """Makes a call that C must not wait in; its flags have MSG_DONTWAIT where there are any."""
    if not _gettimeout(sock):  # None or 0
        return call(sock, *args)
    fd = _fileno(sock)
    if fd < 0:
        return call(sock, *args)  # says so
    twin = _C(_family(sock), _type(sock) | _socket.SOCK_NONBLOCK, _proto(sock), fd)
    try:
        return call(twin, *args)
    finally:
        twin.detach()


def _retry(sock: socket.socket, write: bool, timeout: float | None, call: Callable[..., Any], *args: Any) -> Any:
    """Makes a call until it need not wait."""
    deadline = None
    while True:
        try:
            return _now(sock, call, *args)
        except BlockingIOError:
            pass
        if deadline is None:
            deadline = Deadline(timeout)
        if not deadline.ready(sock, write):
            raise TimeoutError("timed out")


def _by_c(sock: socket.socket, write: bool, flags: int, call: Callable[..., Any], *args: Any) -> Any:
    """Makes a call that may wait in C. It does not if a goroutine has switched the descriptor over: then we do."""
    try:
        return call(sock, *args)
    except BlockingIOError:
        if flags & _DONTWAIT or _gettimeout(sock) is not None or hidden_timeouts(sock):
            raise
    return _retry(sock, write, None, call, *args)


def _waits_for_all(flags: int, timeout: float | None) -> int:
    """Whether the kernel would wait for as many bytes as there is room for; it does so only for ever."""
    return timeout is None and flags & _socket.MSG_WAITALL


# Receiving


def recv(self: socket.socket, bufsize: int, flags: int = 0, /) -> Any:
    timeout = _limit(self, flags)
    if isinstance(timeout, _NoWait):
        return _by_c(self, False, flags, _C.recv, bufsize, flags)
    if _waits_for_all(flags, timeout):
        return blocking(_C.recv, self, bufsize, flags)
    if not isinstance(bufsize, int) or bufsize <= 0:
        return _C.recv(self, bufsize, flags)  # does not wait
    try:
        return sock_recv(self, bufsize, flags, timeout)
    except RuntimeError:  # it refuses in a coroutine
        return _retry(self, False, timeout, _C.recv, bufsize, flags | _DONTWAIT)


def recv_into(self: socket.socket, buffer: Any, nbytes: int = 0, flags: int = 0) -> Any:
    timeout = _limit(self, flags)
    if isinstance(timeout, _NoWait):
        return _by_c(self, False, flags, _C.recv_into, buffer, nbytes, flags)
    if _waits_for_all(flags, timeout):
        return blocking(_C.recv_into, self, buffer, nbytes, flags)
    if not isinstance(nbytes, int) or nbytes < 0:
        return _C.recv_into(self, buffer, nbytes, flags)  # does not wait
    try:
        return sock_recv_into(self, buffer, nbytes, flags, timeout)
    except RuntimeError:  # it refuses in a coroutine
        return _retry(self, False, timeout, _C.recv_into, buffer, nbytes, flags | _DONTWAIT)


def recvfrom(self: socket.socket, bufsize: int, flags: int = 0, /) -> Any:
    timeout = _limit(self, flags)
    if isinstance(timeout, _NoWait):
        return _by_c(self, False, flags, _C.recvfrom, bufsize, flags)
    if _waits_for_all(flags, timeout):
        return blocking(_C.recvfrom, self, bufsize, flags)
    return _retry(self, False, timeout, _C.recvfrom, bufsize, flags | _DONTWAIT)


def recvfrom_into(self: socket.socket, buffer: Any, nbytes: int = 0, flags: int = 0) -> Any:
    timeout = _limit(self, flags)
    if isinstance(timeout, _NoWait):
        return _by_c(self, False, flags, _C.recvfrom_into, buffer, nbytes, flags)
    if _waits_for_all(flags, timeout):
        return blocking(_C.recvfrom_into, self, buffer, nbytes, flags)
    return _retry(self, False, timeout, _C.recvfrom_into, buffer, nbytes, flags | _DONTWAIT)


def recvmsg(self: socket.socket, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Any:
    timeout = _limit(self, flags)
    if isinstance(timeout, _NoWait):
        return _by_c(self, False, flags, _C.recvmsg, bufsize, ancbufsize, flags)
    if _waits_for_all(flags, timeout):
        return blocking(_C.recvmsg, self, bufsize, ancbufsize, flags)
    return _retry(self, False, timeout, _C.recvmsg, bufsize, ancbufsize, flags | _DONTWAIT)


def recvmsg_into(self: socket.socket, buffers: Any, ancbufsize: int = 0, flags: int = 0, /) -> Any:
    timeout = _limit(self, flags)
    if isinstance(timeout, _NoWait):
        return _by_c(self, False, flags, _C.recvmsg_into, buffers, ancbufsize, flags)
    buffers = list(buffers)
    if _waits_for_all(flags, timeout):
        return blocking(_C.recvmsg_into, self, buffers, ancbufsize, flags)
    return _retry(self, False, timeout, _C.recvmsg_into, buffers, ancbufsize, flags | _DONTWAIT)


# Sending


def send(self: socket.socket, data: Any, flags: int = 0, /) -> Any:
    timeout = _limit(self, flags)
    if isinstance(timeout, _NoWait):
        return _by_c(self, True, flags, _C.send, data, flags)
    try:
        return sock_send(self, data, flags, timeout)
    except RuntimeError:  # it refuses in a coroutine
        return _retry(self, True, timeout, _C.send, data, flags | _DONTWAIT)


def sendall(self: socket.socket, data: Any, flags: int = 0, /) -> None:
    timeout = _limit(self, flags)
    if isinstance(timeout, _NoWait):
        return _C.sendall(self, data, flags)
    try:
        return sock_sendall(self, data, flags, timeout)
    except RuntimeError:  # it refuses in a coroutine
        pass
    deadline = Deadline(timeout)
    with memoryview(data) as view, view.cast("B") as rest:
        sent = 0
        while sent < len(rest):
            with rest[sent:] as part:
                sent += _retry(self, True, deadline.left(), _C.send, part, flags | _DONTWAIT)
    return None


def sendto(self: socket.socket, data: Any, *args: Any) -> Any:
    flags, address = (0, *args) if len(args) == 1 else args if len(args) == 2 else (None, None)
    if not isinstance(flags, int):
        return _C.sendto(self, data, *args)  # says what is wrong
    timeout = _limit(self, flags)
    if isinstance(timeout, _NoWait):
        return _by_c(self, True, flags, _C.sendto, data, *args)
    address = _dns.resolved(self, address)
    return _retry(self, True, timeout, _C.sendto, data, flags | _DONTWAIT, address)


def sendmsg(self: socket.socket, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None, /) -> Any:
    timeout = _limit(self, flags)
    if isinstance(timeout, _NoWait):
        return _by_c(self, True, flags, _C.sendmsg, buffers, ancdata, flags, address)
    if address is not None:
        address = _dns.resolved(self, address)
    buffers, ancdata = list(buffers), list(ancdata)
    return _retry(self, True, timeout, _C.sendmsg, buffers, ancdata, flags | _DONTWAIT, address)


def _sendfile_use_sendfile(self: socket.socket, file: Any, offset: int = 0, count: int | None = None) -> Any:
    # With a timeout the descriptor does not block, and the wait is a selector's, which is patched.
    if _gettimeout(self) is not None or not _can_park():
        return _sendfile(self, file, offset, count)
    fd = _fileno(self)
    if fd < 0:
        return _sendfile(self, file, offset, count)
    os.set_blocking(fd, False)
    try:
        return _sendfile(self, file, offset, count)
    finally:
        if _fileno(self) == fd and _gettimeout(self) is None:
            os.set_blocking(fd, True)


# Connections


def connect(self: socket.socket, address: Any, /) -> None:
    timeout = _limit(self)
    if isinstance(timeout, _NoWait):
        return _C.connect(self, address)
    code = _connect(self, address, timeout)
    if code == errno.EWOULDBLOCK:
        raise TimeoutError("timed out")
    if code:
        raise OSError(code, os.strerror(code))
    return None


def connect_ex(self: socket.socket, address: Any, /) -> Any:
    timeout = _limit(self)
    if isinstance(timeout, _NoWait):
        return _C.connect_ex(self, address)
    return _connect(self, address, timeout)


def _connect(sock: socket.socket, address: Any, timeout: float | None) -> int:
    """Connects; returns what failed. EWOULDBLOCK is the timeout, as for C."""
    address = _dns.resolved(sock, address)
    deadline = Deadline(timeout)
    fd = _fileno(sock)
    if fd < 0 or _gettimeout(sock) is not None:
        code: int = _now(sock, _C.connect_ex, address)
    else:
        os.set_blocking(fd, False)
        try:
            code = _C.connect_ex(sock, address)
        finally:
            os.set_blocking(fd, True)
        if code == errno.EAGAIN:
            # A socket of the Unix family whose peer has no room for another connection. Nobody tells when it has.
            code = blocking(_C.connect_ex, sock, address)
    if code not in _IN_PROGRESS:
        return code
    if not deadline.ready(sock, True):
        return errno.EWOULDBLOCK
    code = _C.getsockopt(sock, _socket.SOL_SOCKET, _socket.SO_ERROR)
    return 0 if code == errno.EISCONN else code


def _accept(self: socket.socket) -> Any:
    timeout = _limit(self)
    if isinstance(timeout, _NoWait):
        return _by_c(self, False, 0, _C._accept)  # type: ignore[attr-defined]
    fd = _fileno(self)
    if fd >= 0 and _gettimeout(self) is None:
        os.set_blocking(fd, False)
    if _family(self) in _FAMILIES:
        try:
            return sock_accept(self, timeout)
        except RuntimeError:  # it refuses in a coroutine
            pass
    return _retry(self, False, timeout, _C._accept)  # type: ignore[attr-defined]


def bind(self: socket.socket, address: Any, /) -> None:
    _C.bind(self, _dns.resolved(self, address) if _can_park() else address)


# The end


def _real_close(
    self: socket.socket,
    _ss: Any = _C,
    _closing: Callable[[int], None] = closing_fd,
    _close: Callable[[int], None] = _close,
) -> None:
    # No globals: sockets are closed when those are gone. The socket gives up its descriptor first, so that whoever is
    # woken finds it closed.
    fd = _ss.detach(self)
    if fd >= 0:
        _closing(fd)
        _close(fd)


def detach(self: socket.socket) -> int:
    self._closed = True  # type: ignore[attr-defined]
    fd = _C.detach(self)
    if fd >= 0:
        closing_fd(fd)
    return fd


def close(fd: int, /) -> None:
    """`socket.close`."""
    if isinstance(fd, int) and fd >= 0:
        closing_fd(fd)
    _close(fd)


_METHODS: list[Callable[..., Any]] = [
    *(recv, recv_into, recvfrom, recvfrom_into, recvmsg, recvmsg_into),
    *(send, sendall, sendto, sendmsg, _sendfile_use_sendfile),
    *(connect, connect_ex, _accept, bind, _real_close, detach),
]


def _method(method: Callable[..., Any]) -> Change:
    """Puts a method into the Python class, over that of the class written in C."""
    owner, name = socket.socket, method.__name__
    original = getattr(owner, name)
    functools.update_wrapper(method, original, ("__name__", "__qualname__", "__doc__"), ())
    return Change(owner, name, original, method, rebind=False)


def unit() -> Unit:
    names = [
        Change(module, name, original, function)
        for module in (_socket, socket)
        for name, (original, function) in _dns.FUNCTIONS.items()
        if vars(module)[name] is original
    ]
    return Unit("socket", [*map(_method, _METHODS), swap(socket, "close", close), *names])
