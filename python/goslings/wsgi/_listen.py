"""Where a server listens: TCP addresses and Unix sockets."""

from __future__ import annotations

import os
from contextlib import suppress

from goslings import net
from goslings.net._address import parse
from goslings.net._listen import listen_each

__all__ = ["Listener", "listeners"]


class Listener:
    """A listening socket. `name` is what it is called: "http://127.0.0.1:8000" without the scheme, or "unix:path"."""

    def __init__(self, below: net.Listener, path: str | None = None) -> None:
        self.below = below
        self.path = path
        address = below.address
        if path is not None:
            self.name, self.host, self.port = f"unix:{path}", "localhost", 0
        else:
            self.host, self.port = address[0], address[1]
            self.name = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        self._node = os.stat(path) if path is not None else None

    def close(self) -> None:
        """Closes it; removes a Unix socket's file if it is still that."""
        self.below.close()
        if self.path is not None and self._node is not None:
            with suppress(OSError):
                if os.path.samestat(os.stat(self.path), self._node):
                    os.unlink(self.path)


def listeners(bind: tuple[str, ...], backlog: int) -> list[Listener]:
    """Listens on all of these addresses, or none. Raises ValueError for what is no address, and OSError."""
    made: list[Listener] = []
    try:
        for text in bind:
            where = parse(text)
            try:
                made += [
                    Listener(each, where if isinstance(where, str) else None) for each in listen_each(text, backlog)
                ]
            except OSError as error:
                raise OSError(error.errno, f"cannot listen on {text}: {error.strerror}") from None
    except BaseException:
        for listener in made:
            listener.close()
        raise
    return made
