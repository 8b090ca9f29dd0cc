"""Reading and writing descriptors that may make one wait: pipes, sockets, terminals. Files on a disk never do.

A pipe is tried without waiting, where the kernel can do that whatever the descriptor's own mode (RWF_NOWAIT); else,
and for terminals, one waits first. A descriptor that its owner has made non-blocking stays so: who reads it wants an
error rather than a wait.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from typing import Any

from goslings._goslings import _wait_fd_here

__all__ = ["read_ready", "waits", "write_all"]

_WAITING_KINDS = {stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR}
_CANNOT = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ESPIPE}
"""How kernels say that they cannot do it without waiting, with this kind of descriptor."""
_PIPE_BUF: int = select.PIPE_BUF
_write = os.write


def waits(fd: int) -> bool:
    """Whether reading or writing it may wait. False also if there is no such descriptor."""
    try:
        return stat.S_IFMT(os.fstat(fd).st_mode) in _WAITING_KINDS and os.get_blocking(fd)
    except OSError:
        return False


def _wait(fd: int, write: bool) -> bool:
    """Waits until it is ready; False if it is of a kind that cannot be waited for."""
    try:
        return _wait_fd_here(fd, write)
    except PermissionError:  # as epoll says of /dev/null
        return False


def read_ready(fd: int, buffers: list[Any]) -> int | None:
    """Reads what there is, as `os.readv`, waiting for the first byte; None if the caller has to read by itself now."""
    while True:
        try:
            return os.preadv(fd, buffers, -1, os.RWF_NOWAIT)
        except BlockingIOError:
            if not _wait(fd, False):
                return None
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            _wait(fd, False)
            return None


def write_all(fd: int, data: memoryview) -> int:
    """Writes everything, waiting wherever there is no room: what a write to a blocking pipe does."""
    done = 0
    while done < len(data):
        try:
            done += os.pwritev(fd, [data[done:]], -1, os.RWF_NOWAIT)
            continue
        except BlockingIOError:
            if _wait(fd, True):
                continue
        except OSError as error:
            if error.errno in _CANNOT:
                _wait(fd, True)
            elif done:
                return done
            else:
                raise
        done += _write(fd, data[done : done + _PIPE_BUF])
    return done
