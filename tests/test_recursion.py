"""Deep recursion in a goroutine is a RecursionError, and deep stacks are given back."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from goslings import chan, go
from helpers import SECONDS, Park, check_child, count, parked, results


def python_recursion(park: Park) -> Any:
    def down() -> Any:
        return down()

    return down()


def nested_map(park: Park) -> Any:
    def down(n: Any) -> Any:
        return list(map(down, [n]))

    return down(1)


def nested_sort(park: Park) -> Any:
    def down(n: int) -> int:
        sorted([n], key=down)
        return n

    return down(1)


def nested_repr(park: Park) -> Any:
    class Deep:
        def __repr__(self) -> str:
            return f"<{Deep()!r}>"

    return repr(Deep())


def repr_of_nested_lists(park: Park) -> Any:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    return repr(deep)


def nested_eq(park: Park) -> Any:
    a: Any = []
    b: Any = []
    for _ in range(100_000):
        a, b = [a], [b]
    return a == b


def nested_getattr(park: Park) -> Any:
    class Deep:
        def __getattr__(self, name: str) -> Any:
            return getattr(self, name + "x")

    return Deep().x


def nested_reduce(park: Park) -> Any:
    def down(a: Any, b: Any) -> Any:
        return functools.reduce(down, [a, b])

    return down(1, 2)


def nested_json(park: Park) -> Any:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    return json.dumps(deep)


def json_text(park: Park) -> Any:
    return json.loads("[" * 200_000)


def nested_pickle(park: Park) -> Any:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    return pickle.dumps(deep)


def nested_deepcopy(park: Park) -> Any:
    deep: Any = []
    for _ in range(300_000):
        deep = [deep]
    return copy.deepcopy(deep)


def nested_isinstance(park: Park) -> Any:
    deep: Any = (int,)
    for _ in range(100_000):
        deep = (deep, str)
    return isinstance("", deep)


def nested_init(park: Park) -> Any:
    class Deep:
        def __init__(self) -> None:
            self.inner = Deep()

    return Deep()


def nested_call(park: Park) -> Any:
    class Deep:
        def __call__(self) -> Any:
            return self()

    return Deep()()


def nested_generators(park: Park) -> Any:
    def down() -> Iterator[Any]:
        yield from down()

    return list(down())


def nested_partial(park: Park) -> Any:
    function: Any = int
    for _ in range(100_000):
        function = functools.partial(call, function)
    return function()


def call(function: Callable[[], Any]) -> Any:
    return function()


def nested_exec(park: Park) -> Any:
    return exec("down()", {"down": lambda: nested_exec(park)})


def nested_regex(park: Park) -> Any:
    return re.sub("a", lambda found: nested_regex(park), "a")


def nested_ast(park: Park) -> Any:
    return eval("-" * 100_000 + "1")


RECURSIONS = [
    python_recursion,
    nested_map,
    nested_sort,
    nested_repr,
    repr_of_nested_lists,
    nested_eq,
    nested_getattr,
    nested_reduce,
    nested_json,
    json_text,
    nested_pickle,
    nested_deepcopy,
    nested_isinstance,
    nested_init,
    nested_call,
    nested_generators,
    nested_partial,
    nested_exec,
    nested_regex,
    nested_ast,
]


NEIGHBOURS = """
import sys
sys.path.insert(0, {folder!r})
sys.setrecursionlimit({limit})
from goslings import chan, go, gosched
import test_recursion

ch, ended = chan(), []

def neighbour(n):
    if n:
        return neighbour(n - 1) + 1
    ch.recv_ok()
    return 0

def work(recurse):
    try:
        recurse(None)
    except (RecursionError, MemoryError):
        ended.append(True)
    return neighbour(50)

recursions = [getattr(test_recursion, name) for name in {names!r}]
before = [go(neighbour, 50) for _ in range(3)]
workers = [go(work, recurse) for recurse in recursions for _ in range(2)]
after = [go(neighbour, 50) for _ in range(3)]
while any("chan receive" not in repr(g) for g in workers):
    assert not any(g.done() for g in workers)
    gosched()
ch.close()
print({{g.result() for g in before + workers + after}}, len(ended) == len(workers))
"""


def test_g20_deep_recursion_of_every_kind_is_a_recursion_error() -> None:
    names = [function.__name__ for function in RECURSIONS]
    code = NEIGHBOURS.format(folder=str(Path(__file__).parent), limit=1000, names=names)
    assert check_child(code, seconds=120) == "{50} True\n"


@pytest.mark.parametrize("name", [function.__name__ for function in RECURSIONS])
def test_deep_recursion_under_a_high_limit_is_a_recursion_error_and_the_neighbours_go_on(name: str) -> None:
    """In a process of its own, since what fails here is a crash."""
    code = NEIGHBOURS.format(folder=str(Path(__file__).parent), limit=200_000, names=[name])
    assert check_child(code, seconds=120) == "{50} True\n"


def test_each_goroutine_has_the_whole_recursion_limit() -> None:
    ch = chan()

    def down(n: int) -> int:
        if n == 0:
            ch.recv_ok()
            return 0
        return down(n - 1) + 1

    depth = sys.getrecursionlimit() - 100
    goroutines = [go(down, depth) for _ in range(10)]
    parked(*goroutines)
    ch.close()
    assert results(goroutines) == [depth] * 10


def test_a_goroutine_started_deep_down_starts_at_the_top() -> None:
    def down(n: int) -> int:
        return down(n - 1) if n else go(fresh, sys.getrecursionlimit() - 200).result(SECONDS)

    def fresh(n: int) -> int:
        return fresh(n - 1) if n else 7

    assert down(sys.getrecursionlimit() - 300) == 7


def test_recursion_errors_in_turn(one_worker: None) -> None:
    """A goroutine that has just hit the limit does not take anything away from the next."""

    def down(n: int) -> int:
        return down(n + 1)

    def depth() -> int:
        n = 0

        def count_down() -> None:
            nonlocal n
            n += 1
            count_down()

        with contextlib.suppress(RecursionError):
            count_down()
        return n

    depths = []
    for _ in range(20):
        assert isinstance(go(down, 0).exception(SECONDS), RecursionError)
        depths.append(go(depth).result(SECONDS))
    assert max(depths) - min(depths) <= 2 and min(depths) > sys.getrecursionlimit() - 60


def test_deep_python_stacks_are_given_back() -> None:
    """Each goroutine of a chain of deep ones may use the memory that the one before it used."""

    def down(n: int) -> int:
        return down(n - 1) if n else 0

    for _ in range(count(50)):
        assert results([go(down, 900) for _ in range(4)]) == [0] * 4
