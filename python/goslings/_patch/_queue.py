"""queue: `SimpleQueue` parks. The other queues are made of locks of `threading` and follow those."""

from __future__ import annotations

import _queue
import queue
import types
from typing import Any

from goslings._errors import WouldBlock
from goslings._goslings import _recv_outside, chan
from goslings._patch._change import Unit, swap

__all__ = ["unit"]

_ROOM = 2**62
"""More than there can be."""


class SimpleQueue[T]:
    """Simple, unbounded, reentrant FIFO queue: `queue.SimpleQueue`, in goroutines, too."""

    __slots__ = ("__weakref__", "_items")

    def __init__(self) -> None:
        self._items: chan[T] = chan(_ROOM)

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Puts the item on the queue. Never blocks; the other arguments are those of Queue, and ignored."""
        self._items.try_send(item)

    def put_nowait(self, item: T) -> None:
        """As `put(item)`."""
        self._items.try_send(item)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Removes and returns an item.

        Blocks until there is one if `block` is true, at most `timeout` seconds; then raises queue.Empty.
        """
        if not block:
            return self.get_nowait()
        if timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        try:
            return _recv_outside(self._items, timeout)
        except TimeoutError:
            raise queue.Empty from None

    def get_nowait(self) -> T:
        """Removes and returns an item; raises queue.Empty if there is none. Never blocks."""
        try:
            return self._items.try_recv()
        except WouldBlock:
            raise queue.Empty from None

    def empty(self) -> bool:
        """Whether there is nothing in it, a moment ago."""
        return len(self._items) == 0

    def qsize(self) -> int:
        """How many items there are, a moment ago."""
        return len(self._items)

    def __class_getitem__(cls, item: Any) -> types.GenericAlias:
        return types.GenericAlias(cls, item)


SimpleQueue.__module__ = "_queue"
SimpleQueue.__qualname__ = "SimpleQueue"


def unit() -> Unit:
    return Unit(
        "queue",
        [swap(_queue, "SimpleQueue", SimpleQueue), swap(queue, "SimpleQueue", SimpleQueue)],
        follows=["queue.Queue", "queue.LifoQueue", "queue.PriorityQueue"],
    )
