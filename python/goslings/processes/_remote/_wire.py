"""What carries the frames: a connection of `goslings.net`, with TLS or without."""

from __future__ import annotations

import contextlib
import os

from goslings._goslings import Conn

__all__ = ["keep_alive"]

_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
"""A machine that has vanished is noticed after a minute: seconds, and for the last milliseconds."""


def keep_alive(conn: Conn) -> None:
    """Has the system find out when the other machine is gone, though nothing is sent."""
    import socket

    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(conn.fileno())) as sock:
        if sock.family == socket.AF_UNIX:
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
