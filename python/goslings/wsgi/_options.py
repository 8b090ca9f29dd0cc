"""What a server may be told: addresses, limits and times. One dataclass, for programs and for the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

__all__ = ["Options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of a `Server`. Sizes in bytes, times in seconds. Raises ValueError for what makes no sense."""

    bind: tuple[str, ...] = ("127.0.0.1:8000",)
    """Where to listen: "host:port", "[ipv6]:port", ":port" for all interfaces, "unix:path". Port 0: any free one."""
    backlog: int = 1024
    """Connections that the kernel keeps for us."""
    max_connections: int = 10_000
    """Connections at a time; further ones wait in the backlog."""
    header_limit: int = 64 * 1024
    """Of a request's line and headers together, and of the trailers of a chunked body. More: 431."""
    line_limit: int = 8 * 1024
    """Of a request's line. More: 414."""
    header_count: int = 100
    """Headers of a request. More: 431."""
    body_limit: int = 64 * 1024 * 1024
    """Of a request's body. More: 413. Bodies are passed on as they come and take no memory here."""
    header_timeout: float = 10.0
    """From a request's first byte (of a new connection: from its beginning) to the end of its headers. Later: 408."""
    body_timeout: float = 30.0
    """Without a byte of the body. Later: 408."""
    keep_alive: float = 15.0
    """Between two requests of a connection. 0: one request a connection."""
    write_timeout: float = 30.0
    """Without the client taking a byte of the answer. Later: the connection is cut."""
    grace: float = 30.0
    """After `stop`: for requests in flight. Later: their connections are cut."""
    access_log: str | None = None
    """A file for a line in the combined format for each request; "-": stdout; None: no log."""
    certfile: str | None = None
    """TLS: the certificate with its chain, PEM."""
    keyfile: str | None = None
    """TLS: the key, if it is not in `certfile`."""

    def __post_init__(self) -> None:
        if isinstance(self.bind, str) or not self.bind:
            raise ValueError("bind must be a tuple of addresses")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{field.name} must be a positive whole number, not {value!r}")
            if field.type == "float" and not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise ValueError(f"{field.name} must be a number of seconds, not {value!r}")
        if self.keyfile is not None and self.certfile is None:
            raise ValueError("keyfile without certfile")
