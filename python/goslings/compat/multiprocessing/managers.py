"""Managers: the library's objects and proxies, on `serve` and `connect`.

What a manager does with requests, and what a proxy is, is the library's code. What carries the requests is ours
(`_lanes.py`): one authenticated and sealed connection for each process that uses a manager, in place of one for each
thread; calls of many goroutines at once, which park; and nothing is unpickled before both sides have proved that they
know the key. So both sides must be of this kind: a proxy of the library's cannot talk to a manager of ours.
"""

from __future__ import annotations

from multiprocessing import managers as _std
from multiprocessing.managers import AcquirerProxy as AcquirerProxy  # type: ignore[attr-defined]  # no stub
from multiprocessing.managers import BaseProxy as BaseProxy
from multiprocessing.managers import Namespace as Namespace
from multiprocessing.managers import Token as Token
from traceback import format_exc
from typing import Any

from goslings.compat.multiprocessing import _lanes

__all__ = ["BaseManager", "BaseProxy", "SharedMemoryManager", "SyncManager", "Token"]


class Server(_std.Server):
    """As `multiprocessing.managers.Server`."""

    listener: _lanes.Listener

    def __init__(self, registry: Any, address: Any, authkey: bytes, serializer: str) -> None:
        if not isinstance(authkey, bytes):
            raise TypeError(f"Authkey {authkey!r} is type {type(authkey)!s}, not bytes")
        with _lanes.key(authkey):
            super().__init__(registry, address, authkey, _lanes.serializer(serializer))
        handle: Any = self.handle_request
        self.listener.handle = handle

    def serve_forever(self) -> None:
        """Serves until it is told to shut down; ends the process then."""
        try:
            super().serve_forever()
        finally:
            self.listener.close()

    def _handle_request(self, c: Any) -> None:
        """One request, or all of a lane's. Whoever sent it is known: it has come through `serve`."""
        try:
            _, name, args, kwds = c.recv()
            if name not in self.public:
                raise ValueError(f"{name!r} unrecognized")
            answer = ("#RETURN", getattr(self, name)(c, *args, **kwds))
        except EOFError:
            return
        except Exception:
            answer = ("#TRACEBACK", format_exc())
        try:
            c.send(answer)
        except Exception:
            c.send(("#TRACEBACK", format_exc()))


class BaseManager(_std.BaseManager):
    """As `multiprocessing.managers.BaseManager`."""

    _Server: Any = Server

    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: Any = None,
        *,
        shutdown_timeout: float = 1.0,
    ) -> None:
        if ctx is None:
            from goslings.compat.multiprocessing.context import default_context

            ctx = default_context.get_context()
        ours: Any = _lanes.serializer(serializer)
        super().__init__(address, authkey, ours, ctx, shutdown_timeout=shutdown_timeout)

    def get_server(self) -> Any:
        """The server, for this process to run: `get_server().serve_forever()`."""
        mine: Any = self
        if mine._state.value != _std.State.INITIAL:  # type: ignore[attr-defined]  # no stub
            return super().get_server()  # which says what is wrong
        return self._Server(mine._registry, mine._address, mine._authkey, mine._serializer)


class SyncManager(BaseManager, _std.SyncManager):
    """As `multiprocessing.managers.SyncManager`."""

    _registry = _std.SyncManager._registry.copy()  # type: ignore[attr-defined]  # private: no stub


class SharedMemoryServer(Server, _std.SharedMemoryServer):
    """As `multiprocessing.managers.SharedMemoryServer`."""


class SharedMemoryManager(BaseManager, _std.SharedMemoryManager):
    """As `multiprocessing.managers.SharedMemoryManager`."""

    _Server = SharedMemoryServer


def __getattr__(name: str) -> Any:
    return getattr(_std, name)
