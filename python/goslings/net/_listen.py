"""Listening, for TCP and Unix sockets."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
from typing import Any

from goslings._goslings import Listener
from goslings.net._address import Address, parse, resolve
from goslings.net._tls import HANDSHAKE_SECONDS, TlsListener

__all__ = ["listen", "listen_each"]


def listen(
    address: Address,
    *,
    backlog: int = 1024,
    reuse_port: bool = False,
    tls: ssl.SSLContext | None = None,
    handshake_timeout: float = HANDSHAKE_SECONDS,
) -> Listener:
    """Listens for connections at `address`; port 0 is any that is free.

    `backlog`: how many connections the system keeps until they are accepted. `reuse_port`: others, of this process or
    of another, may listen there too, and share the connections. The file of a Unix socket that nobody listens on any
    more is replaced. `tls`: the context of a server; connections are accepted as `TlsConn`, whose handshake is made by
    their first call and may take `handshake_timeout` seconds. Blocks while a name is looked up. Raises OSError. Go:
    `net.Listen`.
    """
    where = parse(address)
    if isinstance(where, str):
        fd = _listen_at(socket.AF_UNIX, where, backlog)
    else:
        found = resolve(*where, socket.AI_PASSIVE)
        dual = not where[0] and socket.has_dualstack_ipv6()
        if not where[0]:
            # Every address: one socket for both families, where the system has that.
            found.sort(key=lambda entry: entry[0] != socket.AF_INET6 if dual else entry[0])
        fd = _listen_at(found[0][0], found[0][4], backlog, reuse_port=reuse_port, dual=dual)
    return Listener(fd) if tls is None else TlsListener(fd, tls, handshake_timeout=handshake_timeout)


def listen_each(address: Address, backlog: int) -> list[Listener]:
    """Listens at each address that `address` stands for, those of IPv4 and IPv6 apart, as far as the machine has them.

    Raises OSError if there is none. Port 0 of every address is that of one family, since each would have its own.
    """
    where = parse(address)
    if isinstance(where, str):
        return [Listener(_listen_at(socket.AF_UNIX, where, backlog))]
    found = resolve(*where, socket.AI_PASSIVE)
    if where == ("", 0):
        found = found[:1]
    made: list[Listener] = []
    for family, _, _, _, bound in found:
        try:
            made.append(Listener(_listen_at(family, bound, backlog)))
        except OSError:
            # A machine may have no IPv6 although names have such addresses.
            if not made:
                raise
    return made


def _listen_at(family: int, where: Any, backlog: int, *, reuse_port: bool = False, dual: bool = False) -> int:
    """The descriptor of a new socket that listens."""
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        if family == socket.AF_UNIX:
            _remove_stale(where)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        sock.bind(where)
        sock.listen(backlog)
        return sock.detach()


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
