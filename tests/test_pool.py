"""Pool: row Y15 of the table of semantics."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from goslings import Pool, go
from helpers import count, results, until


def test_y15_a_pool_gives_back_what_was_put_else_something_new(collect: None) -> None:
    made = iter(range(100))
    pool = Pool(lambda: next(made))
    assert [pool.get(), pool.get()] == [0, 1]
    pool.put(0)
    pool.put(None)
    assert [pool.get(), pool.get()] == [0, 2]
    assert Pool[int]().get() is None


def test_y15_what_is_in_a_pool_survives_one_collection_not_two(collect: None) -> None:
    pool: Pool[object] = Pool()
    item = object()
    pool.put(item)
    gc.collect()
    assert pool.get() is item
    pool.put(item)
    gc.collect()
    gc.collect()
    assert pool.get() is None
    pool.put(item)
    gc.collect()
    pool.put(other := object())
    gc.collect()
    assert pool.get() is other and pool.get() is None


def test_y15_collections_that_nobody_asked_for_empty_a_pool_too() -> None:
    class Item:
        pass

    pool: Pool[Item] = Pool()
    references = [weakref.ref(item) for item in [Item()] if pool.put(item) is None]
    keep: list[Any] = []

    def litter() -> bool:
        for _ in range(20_000):
            cycle: list[Any] = []
            cycle.append(cycle)
            keep.append([cycle])
        pool.put(Item())
        return references[0]() is None

    until(litter)


def test_y15_a_pool_shares_with_goroutines(two_workers: None) -> None:
    pool, n = Pool(object), count(1000)

    def user() -> int:
        inside = 0
        for _ in range(n):
            item = pool.get()
            inside += item is not None
            pool.put(item)
        return inside

    assert results([go(user) for _ in range(4)]) == [n] * 4
