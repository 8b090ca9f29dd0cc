"""Map: row Y16 of the table of semantics."""

from __future__ import annotations

import pytest
from goslings import AtomicInt, Map, go
from helpers import count, results


def test_y16_each_operation_of_a_map() -> None:
    m: Map[str, int] = Map()
    assert (m.load("a"), m.load("a", 5), "a" in m, len(m), bool(m)) == (None, 5, False, 0, True)
    m.store("a", 1)
    assert (m.load("a"), m.load("a", 5), "a" in m, len(m)) == (1, 1, True, 1)
    assert m.load_or_store("a", 2) == (1, True)
    assert m.load_or_store("b", 2) == (2, False)
    assert m.swap("b", 3) == (2, True)
    assert m.swap("c", 4) == (None, False)
    assert not m.compare_and_swap("missing", 0, 1)
    assert not m.compare_and_swap("c", 0, 1)
    assert m.compare_and_swap("c", 4, 5)
    assert not m.compare_and_delete("c", 4) and not m.compare_and_delete("missing", 4)
    assert m.compare_and_delete("c", 5)
    assert m.load_and_delete("b") == (3, True)
    assert m.load_and_delete("b") == (None, False)
    m.delete("a")
    m.delete("a")
    assert len(m) == 0
    m.store("x", 1)
    m.clear()
    assert list(m.range()) == []
    with pytest.raises(TypeError, match="unhashable"):
        m.store([], 1)  # type: ignore[arg-type]
    m.store("still", 1)  # nothing stayed locked
    assert dict(m.range()) == {"still": 1}


def test_y16_none_is_a_value() -> None:
    m: Map[int, None] = Map()
    assert m.load_or_store(1, None) == (None, False)
    assert m.load_or_store(1, None) == (None, True)
    assert m.compare_and_swap(1, None, None)
    assert not m.compare_and_swap(2, None, None)


def test_y16_range_sees_no_key_twice_and_allows_changes() -> None:
    m: Map[int, int] = Map()
    for i in range(100):
        m.store(i, i)
    seen = []
    for key, value in m.range():
        seen.append(key)
        assert value == key
        m.delete(key + 1)
        m.store(key + 1000, 0)
    assert seen == list(range(0, 100, 2))


def test_y16_operations_are_atomic(two_workers: None, fast_switching: None) -> None:
    m: Map[str, int] = Map()
    m.store("n", 0)
    winners, n = AtomicInt(), count(300)

    def worker(name: int) -> None:
        for i in range(n):
            while not m.compare_and_swap("n", value := m.load("n", 0), value + 1):
                pass
            winners.add(not m.load_or_store(f"once {i}", name)[1])
            list(m.range())

    results([go(worker, name) for name in range(4)])
    assert (m.load("n"), winners.load()) == (4 * n, n)
