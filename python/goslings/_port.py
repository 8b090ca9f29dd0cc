"""Waits of asyncio tasks: a future per wait, set when the runtime says that the wait is over."""

from __future__ import annotations

import asyncio
import weakref

from goslings._goslings import _Port

__all__ = ["LoopPort", "of"]


class LoopPort:
    """What one event loop knows of goslings. Used on the loop's own thread only.

    The loop alone keeps it, as what it calls when the port rings: with the loop it goes away, and so do the futures
    of tasks that wait, and those tasks unless somebody else keeps them.
    """

    __slots__ = ("__weakref__", "_futures", "_loop", "me", "port")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._futures: dict[int, asyncio.Future[None]] = {}
        self.port = _Port()
        self.me = weakref.ref(self)
        loop.add_reader(self.port.fileno(), self._ready)

    def wait(self, key: int) -> asyncio.Future[None]:
        """A future for the wait with this key, ready to be yielded to the loop."""
        future = self._futures.get(key)
        if future is None or future.done():
            loop = self._loop()
            assert loop is not None, "its task runs"
            future = self._futures[key] = loop.create_future()
        future._asyncio_future_blocking = True  # what `await future` does before it yields itself
        return future

    def forget(self, key: int) -> None:
        """The wait was withdrawn."""
        self._futures.pop(key, None)

    def cancel_again(self, error: BaseException) -> bool:
        """The running task was cancelled by `error` after its call had been carried out.

        The call then returns as if nothing had happened, and the cancellation comes at the next await.
        """
        task = asyncio.current_task(self._loop())
        if task is None or not isinstance(error, asyncio.CancelledError):
            return False
        task.uncancel()  # the same request, not one more
        task.cancel(*error.args)
        return True

    def _ready(self) -> None:
        for key in self.port.take():
            future = self._futures.pop(key, None)
            if future is not None and not future.done():
                future.set_result(None)


_ports: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[LoopPort]] = weakref.WeakKeyDictionary()


def of(loop: asyncio.AbstractEventLoop) -> LoopPort:
    """The port of an event loop that runs on this thread."""
    known = _ports.get(loop)
    port = None if known is None else known()
    if port is None:
        port = LoopPort(loop)
        _ports[loop] = port.me
    return port
