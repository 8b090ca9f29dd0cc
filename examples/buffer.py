"""A bounded buffer in ten lines of transactions, with producers and consumers.

    python examples/buffer.py [ITEMS]

`goslings.stm.TQueue` is the grown-up version, whose two ends do not conflict.
"""

from __future__ import annotations

import sys

from goslings import Group
from goslings.stm import TVar, atomic, check


class Buffer[T]:
    """At most `size` items, first in, first out."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.items: TVar[tuple[T, ...]] = TVar(())

    @atomic
    def put(self, item: T) -> None:
        """Waits for room."""
        items = self.items.get()
        check(len(items) < self.size)
        self.items.set((*items, item))

    @atomic
    def get(self) -> T:
        """Waits for an item."""
        items = self.items.get()
        check(items)
        self.items.set(items[1:])
        return items[0]


def pass_on(count: int) -> list[int]:
    """What three consumers got of what three producers made."""
    buffer, got = Buffer[int](4), list[int]()

    def produce(part: int) -> None:
        for item in range(part, count, 3):
            buffer.put(item)

    def consume(part: int) -> None:
        for _ in range(part, count, 3):
            got.append(buffer.get())

    with Group() as group:
        for part in range(3):
            group.go(produce, part)
            group.go(consume, part)
    return got


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    assert sorted(pass_on(count)) == list(range(count))
    print(f"{count} items have passed through a buffer of 4")
