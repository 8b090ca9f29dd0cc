"""os: reading and writing pipes, and waiting for child processes.

A child is waited for by a descriptor of its own (pidfd); where there is none, and for `wait` and `system`, the call
is made on a thread of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from goslings._blocking import offload
from goslings._goslings import _wait_fd_here, closing_fd
from goslings._patch import _pipes
from goslings._patch._change import Change, Unit, call, everywhere

__all__ = ["child_ended", "unit"]

_read = os.read
_readv = os.readv
_readinto = getattr(os, "readinto", None)  # 3.14
_write = os.write
_writev = os.writev
_close = os.close
_waitpid = os.waitpid
_wait3 = os.wait3
_wait4 = os.wait4
_waitid = os.waitid


def read(fd: int, length: int, /) -> bytes:
    """As `os.read`."""
    if length > 0 and _pipes.waits(fd):
        buffer = bytearray(length)
        count = _pipes.read_ready(fd, [buffer])
        if count is not None:
            return bytes(memoryview(buffer)[:count])
    return _read(fd, length)


def readv(fd: int, buffers: Any, /) -> int:
    """As `os.readv`."""
    if _pipes.waits(fd):
        count = _pipes.read_ready(fd, buffers)
        if count is not None:
            return count
    return _readv(fd, buffers)


def readinto(fd: int, buffer: Any, /) -> int:
    """As `os.readinto`."""
    assert _readinto is not None, "there is one to be patched"
    if _pipes.waits(fd):
        count = _pipes.read_ready(fd, [buffer])
        if count is not None:
            return count
    result: int = _readinto(fd, buffer)
    return result


def write(fd: int, data: Any, /) -> int:
    """As `os.write`."""
    if _pipes.waits(fd):
        with memoryview(data) as view, view.cast("B") as octets:
            return _pipes.write_all(fd, octets)
    return _write(fd, data)


def writev(fd: int, buffers: Any, /) -> int:
    """As `os.writev`."""
    if _pipes.waits(fd):
        return write(fd, b"".join(buffers))
    return _writev(fd, buffers)


def close(fd: int) -> None:
    """As `os.close`; who waits for the descriptor is told."""
    if type(fd) is int and 0 <= fd < 2**31:
        closing_fd(fd)
    _close(fd)


def child_ended(pid: int, timeout: float | None = None) -> bool | None:
    """Waits until this child has ended; False: the time is up. None: that cannot be waited for without a thread."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        return _wait_fd_here(fd, False, timeout)
    finally:
        _close(fd)


def _wait_for(pid: int, options: int, try_once: Callable[[int], Any], original: Callable[[], Any]) -> Any:
    """Waits for a child as one of the functions below."""
    if options & os.WNOHANG:
        return original()
    if pid > 0 and not options & (os.WUNTRACED | os.WCONTINUED):
        result = try_once(options | os.WNOHANG)
        while result[0] == 0:
            if child_ended(pid) is None:
                return offload(original)
            result = try_once(options | os.WNOHANG)
        return result
    return offload(original)


def waitpid(pid: int, options: int, /) -> tuple[int, int]:
    """As `os.waitpid`."""
    result: tuple[int, int] = _wait_for(pid, options, lambda how: _waitpid(pid, how), lambda: _waitpid(pid, options))
    return result


def wait4(pid: int, options: int) -> tuple[int, int, Any]:
    """As `os.wait4`."""
    result: tuple[int, int, Any] = _wait_for(pid, options, lambda how: _wait4(pid, how), lambda: _wait4(pid, options))
    return result


def wait3(options: int) -> tuple[int, int, Any]:
    """As `os.wait3`."""
    return _wait3(options) if options & os.WNOHANG else offload(_wait3, options)


def waitid(idtype: int, ident: int, options: int, /) -> Any:
    """As `os.waitid`."""
    if options & os.WNOHANG:
        return _waitid(idtype, ident, options)
    if idtype == os.P_PID and options & os.WEXITED and not options & (os.WSTOPPED | os.WCONTINUED):
        result = _waitid(idtype, ident, options | os.WNOHANG)
        while result is None:
            if child_ended(ident) is None:
                return offload(_waitid, idtype, ident, options)
            result = _waitid(idtype, ident, options | os.WNOHANG)
        return result
    return offload(_waitid, idtype, ident, options)


def _off(name: str) -> Change:
    """A function that is called on a thread of its own."""
    original = getattr(os, name)
    return call(os, name, lambda *args, **kwargs: offload(original, *args, **kwargs))


def unit() -> Unit:
    """What is patched of `os`."""
    changes = [
        call(os, "read", read),
        call(os, "readv", readv),
        call(os, "write", write),
        call(os, "writev", writev),
        call(os, "waitpid", waitpid),
        call(os, "wait3", wait3),
        call(os, "wait4", wait4),
        call(os, "waitid", waitid),
        everywhere(os, "close", close),
        _off("wait"),
        _off("system"),
    ]
    if _readinto is not None:
        changes.append(call(os, "readinto", readinto))
    return Unit(
        "os",
        changes,
        follows=["os.popen"],
        cannot={
            "open, input, sys.stdin and files that were opened before": "what `io` reads and writes holds the worker; "
            "on a disk that is not for long, else use goslings.blocking",
            "fcntl.flock, fcntl.lockf, os.lockf": "use goslings.blocking",
        },
    )
