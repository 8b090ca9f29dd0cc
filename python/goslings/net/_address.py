"""Addresses: what a text or a tuple stands for."""

from __future__ import annotations

import socket
from typing import Any

from goslings._blocking import blocking

__all__ = ["Address", "parse", "resolve"]

type Address = str | tuple[Any, ...]
"""Where to listen or dial: ("host", port), "host:port", "[host]:port" or "unix:/path"."""


def parse(address: Address) -> tuple[str, int] | str:
    """Host and port, or a path."""
    if isinstance(address, tuple):
        if len(address) < 2 or not isinstance(address[0], str) or not isinstance(address[1], int):
            raise ValueError(f"an address is a host and a port, not {address!r}")
        return address[0], address[1]
    if not isinstance(address, str):
        raise TypeError(f"an address is a str or a tuple, not {type(address).__name__}")
    if address.startswith("unix:"):
        if address == "unix:":
            raise ValueError("unix: needs a path")
        return address.removeprefix("unix:")
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'an address is "host:port" or "unix:/path", not {address!r}')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"brackets belong around a host with colons: {address!r}")
    return host, int(port)


def resolve(host: str, port: int, flags: int) -> list[tuple[Any, ...]]:
    """What a host and a port stand for. Names are looked up on a thread of their own."""
    kind = socket.SOCK_STREAM
    try:
        return socket.getaddrinfo(host or None, port, type=kind, flags=flags | socket.AI_NUMERICHOST)
    except socket.gaierror:
        return blocking(socket.getaddrinfo, host, port, type=kind, flags=flags)
