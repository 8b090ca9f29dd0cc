"""Critical sections: locks of the free-threaded interpreter that a parked stack must not keep locked."""

from __future__ import annotations

import gc
import heapq
import random
from collections.abc import Callable
from typing import Any

import pytest
from goslings import chan, go, gosched
from helpers import SECONDS, count, parked, results


def test_a_list_is_not_locked_while_its_sort_waits(two_workers: None) -> None:
    ch, items = chan(), [3, 1, 2]

    def key(item: int) -> int:
        ch.recv()
        return item

    sorting = go(items.sort, key=key)
    parked(sorting)
    # While it is sorted a list looks empty; changing it is an error of the sort, not a deadlock.
    for place in (lambda f: f(), lambda f: go(f).result(SECONDS)):
        assert place(lambda: len(items)) == 0
        assert place(lambda: list(items)) == []
    ch.close()
    # The first key gave up with Closed.
    assert type(sorting.exception(SECONDS)).__name__ == "Closed"
    assert sorted(items) == [1, 2, 3]


def test_a_list_changed_while_its_sort_waits_is_an_error_of_the_sort(one_worker: None) -> None:
    ch, items = chan(), [3, 1, 2]

    def key(item: int) -> int:
        ch.recv()
        return item

    sorting = go(items.sort, key=key)
    parked(sorting)
    go(items.append, 4).result(SECONDS)
    items.append(5)
    for _ in range(3):
        ch.send(None)
    with pytest.raises(ValueError, match="modified during sort"):
        sorting.result(SECONDS)


def test_sorts_that_wait_at_once(two_workers: None) -> None:
    ch = chan()

    def key(item: int) -> int:
        ch.recv()
        return -item

    def sort(n: int) -> list[int]:
        items = list(range(n))
        items.sort(key=key)
        return items

    goroutines = [go(sort, n) for n in range(1, 12)]
    while not all(g.done() for g in goroutines):
        ch.try_send(None)
        gc.collect() if random.random() < 0.01 else None
        gosched()
    assert results(goroutines) == [list(reversed(range(n))) for n in range(1, 12)]


def test_a_sort_within_a_sort_within_a_sort_waits(two_workers: None) -> None:
    ch = chan()

    def level(depth: int) -> Callable[[int], int]:
        def key(item: int) -> int:
            if depth == 0:
                return ch.recv() * item
            inner = [2, 1]
            inner.sort(key=level(depth - 1))
            return inner[0] * item

        return key

    def sort() -> list[int]:
        items = [2, 1, 3]
        items.sort(key=level(2))
        return items

    goroutines = [go(sort) for _ in range(5)]
    while not all(g.done() for g in goroutines):
        ch.try_send(1)
        gosched()
    assert results(goroutines) == [[1, 2, 3]] * 5


def test_a_set_and_a_dict_are_usable_while_a_lookup_in_them_waits(two_workers: None) -> None:
    ch: Any = chan()

    class Key:
        def __init__(self, name: int, waits: bool = False) -> None:
            self.name, self.waits = name, waits

        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: Any) -> bool:
            if self.waits or other.waits:
                ch.recv()
            return self.name == other.name

    names, numbers = {Key(1), Key(2)}, {Key(1): 1, Key(2): 2}
    goroutines = [
        go(names.add, Key(3, True)),
        go(lambda: Key(2, True) in names),
        go(names.discard, Key(5, True)),
        go(lambda: numbers[Key(2, True)]),
        go(numbers.setdefault, Key(4, True), 4),
        go(numbers.pop, Key(9, True), None),
    ]
    parked(*goroutines)
    for place in (lambda f: f(), lambda f: go(f).result(SECONDS)):
        place(lambda: names.add(7))
        place(lambda: names.discard(7))
        place(lambda: numbers.update({"x": 1}))
        place(lambda: numbers.pop("x"))
        place(lambda: len(names) + len(numbers))
    while not all(g.done() for g in goroutines):
        ch.try_send(None)
        gosched()
    assert results(goroutines) == [None, True, None, 2, 4, None]


def test_a_heap_is_usable_while_a_push_waits(two_workers: None) -> None:
    ch = chan()

    class Item:
        def __init__(self, n: int) -> None:
            self.n = n

        def __lt__(self, other: Item) -> bool:
            ch.recv()
            return self.n < other.n

    heap = [Item(2)]
    g = go(heapq.heappush, heap, Item(1))
    parked(g)
    assert go(len, heap).result(SECONDS) >= 1
    ch.send(None)
    g.result(SECONDS)
    assert [item.n for item in heap] == [1, 2]


def test_locked_objects_of_many_goroutines_with_collections(two_workers: None, rng: random.Random) -> None:
    """Goroutines wait inside sorts (with critical sections) and comparisons (with references on C stacks), are
    resumed in any order, and collections come in between."""
    channels = [chan() for _ in range(count(60))]

    class Less:
        def __init__(self, n: int, park: Callable[[], Any]) -> None:
            self.n, self.park = n, park

        def __lt__(self, other: Less) -> bool:
            self.park()
            return self.n < other.n

    def work(park: Callable[[], Any]) -> list[int]:
        items = [Less(n, park) for n in (3, 1, 2)]
        items.sort()
        numbers = [3, 1, 2]
        numbers.sort(key=lambda n: (park(), n)[1])
        return [item.n for item in items] + numbers

    goroutines = [go(work, ch.recv) for ch in channels]
    while not all(g.done() for g in goroutines):
        for ch in rng.choices(channels, k=20):
            ch.try_send(None)
        if rng.random() < 0.05:
            gc.collect()
        gosched()
    assert results(goroutines) == [[1, 2, 3, 1, 2, 3]] * len(channels)
