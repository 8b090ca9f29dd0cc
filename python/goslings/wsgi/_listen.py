"""Where a server listens: TCP addresses and Unix sockets."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress

__all__ = ["Listener", "listeners"]


class Listener:
    """A listening socket. `name` is what it is called: "http://127.0.0.1:8000" without the scheme, or "unix:path"."""

    def __init__(self, sock: socket.socket, path: str | None = None) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self.path = path
        address = sock.getsockname()
        if path is not None:
            self.name, self.host, self.port = f"unix:{path}", "localhost", 0
        else:
            self.host, self.port = address[0], address[1]
            self.name = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        self._node = os.stat(path) if path is not None else None

    def accepted(self, fd: int) -> socket.socket:
        """The descriptor of a connection as a socket."""
        return socket.socket(self.sock.family, self.sock.type, self.sock.proto, fileno=fd)

    def close(self) -> None:
        """Closes it; removes a Unix socket's file if it is still that."""
        self.sock.close()
        if self.path is not None and self._node is not None:
            with suppress(OSError):
                if os.path.samestat(os.stat(self.path), self._node):
                    os.unlink(self.path)


def listeners(bind: tuple[str, ...], backlog: int) -> list[Listener]:
    """Listens on all of these addresses, or none. Raises ValueError for what is no address, and OSError."""
    made: list[Listener] = []
    try:
        for text in bind:
            made += _unix(text[5:], backlog) if text.startswith("unix:") else _tcp(text, backlog)
    except BaseException:
        for listener in made:
            listener.close()
        raise
    return made


def _tcp(text: str, backlog: int) -> list[Listener]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"not an address: {text!r}; it must be host:port, :port or unix:path")
    flags = socket.AI_PASSIVE
    try:
        found = socket.getaddrinfo(host or None, int(port), type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as error:
        raise OSError(f"cannot listen on {text}: {error.strerror}") from None
    if not host and int(port) == 0:
        found = found[:1]  # each would get a port of its own
    made: list[Listener] = []
    try:
        for family, kind, protocol, _, address in found:
            made.append(Listener(_listening(family, kind, protocol, address, backlog)))
    except OSError as error:
        # A machine may have no IPv6 although names have such addresses.
        if not made:
            raise OSError(error.errno, f"cannot listen on {text}: {error.strerror}") from None
    return made


def _listening(family: int, kind: int, protocol: int, address: object, backlog: int) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)  # type: ignore[arg-type]
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _unix(path: str, backlog: int) -> list[Listener]:
    if not path:
        raise ValueError("unix: needs a path")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(path)
        sock.listen(backlog)
        return [Listener(sock, path)]
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on unix:{path}: {error.strerror}") from None


def _remove_stale(path: str) -> None:
    """Removes a socket on which nobody listens any more."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass
