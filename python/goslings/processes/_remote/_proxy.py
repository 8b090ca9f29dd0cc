"""Proxies: what `connect` returns, and what stands for an object of the other side in arguments and results.

A proxy has the methods that its object exposes, and no others; Python's own (`proxy[key]`, `len(proxy)`) must be part
of its class, so there is a class for each set of them. Its own state is in one slot, whose name no exposed method can
have.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn, Self

from goslings.processes._remote._session import Session
from goslings.processes._remote._shared import Description

__all__ = ["Proxy", "RemoteMethod", "disconnect", "make_proxy", "proxy_class", "session_of"]


class RemoteMethod:
    """A method of an object of the other side: `proxy.method`. To call it blocks until the answer is there.

    Raises what the method raised, with the traceback of the other side as its cause; Disconnected if the connection is
    lost. Cancelling the caller cancels the call there, if that waits for something.
    """

    __slots__ = ("_name", "_number", "_proxy", "_session", "_timeout")

    def __init__(self, proxy: Proxy, name: str, timeout: float | None = None) -> None:
        self._proxy = proxy  # as long as this lives, so does the object there
        self._session, self._number, _ = proxy._goslings_state
        self._name, self._timeout = name, timeout

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._session.call(self._number, self._name, args, kwargs, self._timeout)

    async def acall(self, /, *args: Any, **kwargs: Any) -> Any:
        """The same, awaited: in async goroutines and asyncio tasks."""
        return await self._session.acall(self._number, self._name, args, kwargs, self._timeout)

    def within(self, seconds: float | None) -> RemoteMethod:
        """The same method with a time limit: TimeoutError after so many seconds, and the call is cancelled there."""
        return RemoteMethod(self._proxy, self._name, seconds)

    def __repr__(self) -> str:
        return f"<method {self._name} at {self._session.peer}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a method of a remote object cannot be pickled")


class Proxy:
    """Stands for an object in another process or on another machine. Made by `connect`.

    Has the methods and attributes that the object exposes. Any goroutine, task or thread may use it at any time; calls
    do not wait for each other. As a context manager it disconnects at the end, unless the object exposes `__enter__`.
    """

    __slots__ = ("__weakref__", "_goslings_state")
    _goslings_state: tuple[Session, int, Description]

    def __init__(self, session: Session, number: int, description: Description) -> None:
        object.__setattr__(self, "_goslings_state", (session, number, description))

    @staticmethod
    def _goslings_remote(proxy: Proxy) -> tuple[Session, int, int]:
        session, number, _ = proxy._goslings_state
        return session, number, 0

    def __getattr__(self, name: str) -> Any:
        session, number, description = self._goslings_state
        if name in description.methods:
            return RemoteMethod(self, name)
        if name in description.attributes:
            return session.call(number, name, None, twin=f"go(getattr, proxy, {name!r})")
        raise AttributeError(f"the {description.name} at {session.peer} exposes no {name!r}", name=name, obj=self)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("attributes of a remote object cannot be set: expose a method for that")

    def __dir__(self) -> list[str]:
        description = self._goslings_state[2]
        return sorted({*object.__dir__(self), *description.methods, *description.attributes})

    def __repr__(self) -> str:
        session, _, description = self._goslings_state
        return f"<proxy of a {description.name} at {session.peer}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        disconnect(self)

    def __copy__(self) -> NoReturn:
        raise TypeError("a proxy cannot be copied")

    def __deepcopy__(self, _memo: object) -> NoReturn:
        raise TypeError("a proxy cannot be copied")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a proxy goes through the connection that it came from only; elsewhere, connect again")


Proxy.__module__ = "goslings.processes"
RemoteMethod.__module__ = "goslings.processes"


def session_of(proxy: Any) -> Session:
    """The connection of a proxy or a remote channel. Raises TypeError."""
    of = getattr(type(proxy), "_goslings_remote", None)
    if of is None:
        raise TypeError(f"not a proxy: {proxy!r}")
    session: Session = of(proxy)[0]
    return session


def disconnect(proxy: Any) -> None:
    """Closes the connection that a proxy, or a channel of the other side, belongs to: for all that came through it.

    Calls that wait raise Disconnected. Never blocks. Without it, a connection is closed when nothing refers to it.
    """
    session_of(proxy).close()


def _special(name: str) -> Callable[..., Any]:
    def method(self: Proxy, /, *args: Any) -> Any:
        session, number, _ = self._goslings_state
        return session.call(number, name, args, twin=f"go(proxy.{name}, ...)")

    method.__name__ = name
    return method


@cache
def proxy_class(special: frozenset[str]) -> type[Proxy]:
    """The class of proxies whose objects expose these of Python's own methods."""
    return type(
        "Proxy", (Proxy,), {"__slots__": (), "__module__": "goslings.processes"} | {n: _special(n) for n in special}
    )


def make_proxy(session: Session, number: int, description: Description) -> Any:
    """A proxy, or a channel of the other side."""
    from goslings.processes._remote._channel import CHANNELS

    if (cls := CHANNELS.get(description.kind)) is not None:
        return cls(session, number, description)
    special = frozenset(name for name in description.methods if name.startswith("__"))
    return proxy_class(special)(session, number, description)
