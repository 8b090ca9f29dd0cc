"""Connecting to somebody who listens."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import time
from typing import Any, Literal, overload

from goslings import _goslings
from goslings._goslings import Conn, sleep, wait_fd
from goslings.net._address import Address, parse, resolve
from goslings.net._tls import TlsConn

__all__ = ["dial"]


@overload
def dial(address: Address, *, timeout: float | None = None) -> Conn: ...


@overload
def dial(
    address: Address,
    *,
    timeout: float | None = None,
    tls: ssl.SSLContext | Literal[True],
    server_hostname: str | None = None,
) -> TlsConn: ...


def dial(
    address: Address,
    *,
    timeout: float | None = None,
    tls: ssl.SSLContext | Literal[True] | None = None,
    server_hostname: str | None = None,
) -> Conn:
    """Connects to `address`.

    A name that stands for several addresses has them tried in turn. `tls`: talks TLS, with this context, or with that
    of `ssl.create_default_context` if it is True; the connection is a `TlsConn`, and its handshake made.
    `server_hostname` is whom the certificate is to name; None: the host of the address. Blocks until all that is done,
    at most `timeout` seconds in all: then TimeoutError. Raises OSError, of several addresses' the last; ssl.SSLError is
    one of them. Go: `net.Dial`, `tls.Dial`.
    """
    if tls is None:
        if server_hostname is not None:
            raise ValueError("server_hostname is for TLS")
        return _dial(address, timeout)
    end = None if timeout is None else time.monotonic() + timeout
    context = ssl.create_default_context() if tls is True else tls
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"tls is an ssl.SSLContext or True, not {context!r}")
    where = parse(address)
    if server_hostname is None and not isinstance(where, str):
        server_hostname = where[0] or "localhost"
    if server_hostname is None and context.check_hostname:
        raise ValueError("whom should the certificate name? A path says nothing of that: server_hostname=")
    conn = TlsConn(_dial(address, timeout), context, server_hostname=server_hostname)
    try:
        conn.handshake(None if end is None else max(0.0, end - time.monotonic()))
    except BaseException:
        conn.close()
        raise
    return conn


def _dial(address: Address, timeout: float | None) -> Conn:
    end = None if timeout is None else time.monotonic() + timeout
    where = parse(address)
    if isinstance(where, str):
        return _connect(socket.AF_UNIX, where, end)
    last: OSError | None = None
    for family, _, _, _, peer in resolve(*where, 0):
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
