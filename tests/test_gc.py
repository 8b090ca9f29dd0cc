"""Garbage collection: what parked goroutines hold survives it, what nobody holds does not.

On free-threaded builds the interpreter does not count references from evaluation stacks to functions, code,
modules and types; the collector looks for them in the frames of every thread. The frames of a parked goroutine
are on no thread, so each of these tests parks in a place that only such references keep alive, collects, and
goes on there.
"""

from __future__ import annotations

import functools
import gc
import importlib
import itertools
import operator
import random
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from goslings import after, chan, go, gosched, num_goroutine, recv, select, sleep
from helpers import FREE_THREADED, SECONDS, churn, count, parked, results, until

Park = Callable[[], Any]
WAYS: dict[str, Callable[[Park], Any]] = {}


def way(function: Callable[[Park], Any]) -> Callable[[Park], Any]:
    """One way to wait below something that nobody else refers to. Each returns what `park` returned, plus 1."""
    WAYS[function.__name__] = function
    return function


def define(source: str, name: str, **names: Any) -> Any:
    """Something from a module of its own, which nobody keeps."""
    module = types.ModuleType("gone")
    module.__dict__.update(names)
    exec(source, module.__dict__)
    return module.__dict__.pop(name)


@way
def a_function(park: Park) -> Any:
    return define("def f(park):\n    return park() + one\n", "f", one=1)(park)


@way
def a_recursive_function(park: Park) -> Any:
    f = define("def f(f, park, n):\n    return f(f, park, n - 1) if n else park() + 1\n", "f")
    held = [f]
    del f
    return (lambda f: f(f, park, 5))(held.pop())


@way
def a_lambda_in_a_lambda(park: Park) -> Any:
    return (lambda one: (lambda: (lambda: park() + one)())())(1)


@way
def a_closure(park: Park) -> Any:
    def make() -> Callable[[], Any]:
        one = 1

        def inner() -> Any:
            value = park()
            return value + one

        return inner

    return make()()


@way
def a_method_of_a_temporary(park: Park) -> Any:
    return type("Temporary", (), {"one": 1, "m": lambda self, park: park() + self.one})().m(park)


@way
def a_class_body(park: Park) -> Any:
    class Temporary:
        value = park()
        one = 1

    return Temporary.value + Temporary.one


@way
def a_metaclass(park: Park) -> Any:
    class Meta(type):
        def __call__(cls, *args: Any) -> Any:
            return super().__call__(*args)

    class Temporary(metaclass=Meta):
        def __init__(self) -> None:
            self.value = park()

    return Temporary().value + 1


@way
def an_init(park: Park) -> Any:
    return define("class C:\n    def __init__(self, park):\n        self.value = park() + one\n", "C", one=1)(
        park
    ).value


MODULE_NUMBERS = itertools.count()


@way
def a_module(park: Park) -> Any:
    name = f"goslings_test_gone_{next(MODULE_NUMBERS)}"  # its own: several goroutines do this at once
    sys.modules[name] = module = types.ModuleType(name)
    exec("one = 1\ndef f(park):\n    value = park()\n    return value + one\n", module.__dict__)
    del module
    gone = importlib.import_module(name)

    del sys.modules[name]
    f = gone.f
    del gone
    return f(park)


@way
def a_generator(park: Park) -> Any:
    def generate() -> Iterator[Any]:
        yield park() + 1

    return next(generate())


@way
def a_generator_expression(park: Park) -> Any:
    return sum((lambda n: park() + n)(i) for i in range(1, 2))


@way
def a_list_comprehension(park: Park) -> Any:
    return [(lambda: park() + one)() for one in (1,)][0]


@way
def a_sort_key(park: Park) -> Any:
    values = []
    [1].sort(key=lambda one: values.append(park() + one))
    return values[0]


@way
def a_comparison(park: Park) -> Any:
    values = []

    class Less:
        def __lt__(self, other: Any) -> bool:
            values.append(park())
            return True

    [Less(), Less()].sort()
    return values[0] + 1


@way
def a_comparison_that_is_deleted(park: Park) -> Any:
    class Less:
        def __lt__(self, other: Any) -> bool:
            del Less.__lt__
            return park() + 1

    return Less() < Less()


@way
def a_hash(park: Park) -> Any:
    class Key:
        def __hash__(self) -> int:
            return park()

    return next(iter({Key(): 1}.values())) + park()


@way
def an_equality(park: Park) -> Any:
    values = []

    class Key:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            values.append(park())
            return True

    {Key(): 1}[Key()]
    return values[0] + 1


@way
def an_operator(park: Park) -> Any:
    class Number:
        def __add__(self, other: int) -> int:
            return park() + other

        def __getitem__(self, index: int) -> int:
            return self + index

        def __call__(self) -> int:
            return self[1]

    return Number()()


@way
def an_attribute(park: Park) -> Any:
    class Lazy:
        def __getattr__(self, name: str) -> int:
            return park()

        @property
        def one(self) -> int:
            return self.anything + 1

    return Lazy().one


@way
def a_cached_property(park: Park) -> Any:
    class Lazy:
        @functools.cached_property
        def one(self) -> int:
            return park() + 1

    return Lazy().one


@way
def a_super_call(park: Park) -> Any:
    class Base:
        def m(self) -> int:
            return park()

    class Derived(Base):
        def m(self) -> int:
            return super().m() + 1

    return Derived().m()


@way
def a_partial(park: Park) -> Any:
    return functools.partial(lambda one, park: park() + one, 1)(park)


@way
def a_reduce(park: Park) -> Any:
    return functools.reduce(lambda a, b: a + park(), [1, 1])


@way
def a_map(park: Park) -> Any:
    return next(map(lambda one: park() + one, [1]))


@way
def a_method_caller(park: Park) -> Any:
    return operator.methodcaller("m", 1)(type("T", (), {"m": lambda self, one: park() + one})())


@way
def a_str(park: Park) -> Any:
    class Text:
        def __str__(self) -> str:
            return str(park() + 1)

        def __format__(self, spec: str) -> str:
            return str(self)

    return int(f"{Text()}")


@way
def a_with_block(park: Park) -> Any:
    class Manager:
        def __enter__(self) -> int:
            return park()

        def __exit__(self, *args: object) -> None:
            park()

    with Manager() as value:
        return value + 1


@way
def an_iterator(park: Park) -> Any:
    class Once:
        def __iter__(self) -> Any:
            return self

        def __next__(self) -> int:
            return park()

    for value in Once():
        return value + 1


@way
def a_decorated_function(park: Park) -> Any:
    def plus_one(function: Callable[[], int]) -> Callable[[], int]:
        @functools.wraps(function)
        def wrapper() -> int:
            return function() + 1

        return wrapper

    @plus_one
    def inner() -> int:
        return park()

    call = inner.__call__
    del inner
    return call()


@way
def an_eval(park: Park) -> Any:
    return eval("(lambda: park() + 1)()", {"park": park})


@way
def a_recursion_of_fresh_functions(park: Park) -> Any:
    def descend(depth: int) -> Any:
        if depth == 0:
            return park()
        return define("def f(descend, depth):\n    return descend(depth - 1)\n", "f")(descend, depth)

    return descend(30) + 1


def collect_everywhere() -> None:
    """Collects in this thread, in a goroutine and in another thread, and reuses what was freed."""
    gc.collect()
    go(gc.collect).result(SECONDS)
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join(SECONDS)
    churn()
    gc.collect()


@pytest.mark.parametrize("name", WAYS)
def test_a_goroutine_parked_in_what_nobody_else_refers_to_survives_collection(two_workers: None, name: str) -> None:
    ch = chan()
    # The goroutine holds the outermost function. What it calls is held by its frames alone.
    goroutines = [go(WAYS[name], lambda: ch.recv()) for _ in range(3)]
    parked(*goroutines)
    collect_everywhere()
    while not all(g.done() for g in goroutines):
        ch.try_send(1)
        if random.random() < 0.02:
            gc.collect()
        gosched()
    assert results(goroutines) == [2, 2, 2]


def test_many_parked_in_different_ways_resumed_in_random_order(two_workers: None, rng: random.Random) -> None:
    channels, goroutines = [], []
    for i in range(count(300)):
        ch = chan()
        channels.append(ch)
        goroutines.append(go(list(WAYS.values())[i % len(WAYS)], ch.recv))
    parked(*goroutines)
    collect_everywhere()
    rng.shuffle(channels)
    for i, ch in enumerate(channels):
        while ch.try_send(1):
            pass
        ch_waits = [g for g in goroutines if not g.done()]
        if i % 40 == 0:
            gc.collect()
            churn()
        del ch_waits
    while not all(g.done() for g in goroutines):
        for ch in channels:
            ch.try_send(1)
        gosched()
    assert set(results(goroutines)) == {2}


def test_a_function_lives_as_long_as_a_goroutine_is_parked_in_it(collect: None) -> None:
    ch, refs = chan(), chan(1)

    def outer() -> None:
        function = define("def f(ch):\n    return ch.recv()\n", "f")
        refs.send(weakref.ref(function))
        call, function = [function], None
        call.pop()(ch)

    g = go(outer)
    parked(g)
    ref = refs.recv()
    collect_everywhere()
    assert ref() is not None
    ch.send(1)
    g.result(SECONDS)
    if FREE_THREADED and sys.version_info < (3, 14):
        return  # makes functions immortal as soon as there are threads
    until(lambda: (gc.collect(), ref() is None)[1])


@pytest.mark.parametrize("collector", ["main", "goroutine", "thread"])
def test_collections_while_thousands_park_and_resume(two_workers: None, collector: str) -> None:
    pairs, rounds, stop = 50, count(30), []
    ways = list(WAYS.values())

    def ping(ch: Any, back: Any) -> int:
        for i in range(rounds):
            ch.send(1)
            assert define("def f(back):\n    return back.recv()\n", "f")(back) == 1
            if i % 20 == 0:
                assert ways[i % len(ways)](lambda: (gosched(), 1)[1]) == 2
        ch.close()
        return rounds

    def pong(ch: Any, back: Any) -> int:
        return sum(define("def f(back, n):\n    back.send(n)\n    return n\n", "f")(back, n) for n in ch)

    def collecting() -> None:
        while not stop:
            gc.collect()
            sleep(0.001)

    goroutines = []
    for _ in range(pairs):
        ch, back = chan(), chan()
        goroutines += [go(ping, ch, back), go(pong, ch, back)]
    if collector == "main":
        while not all(g.done() for g in goroutines):
            gc.collect()
            sleep(0.001)
    elif collector == "goroutine":
        g = go(collecting)
        results(goroutines)
        stop.append(True)
        g.result(SECONDS)
    else:
        thread = threading.Thread(target=collecting)
        thread.start()
        results(goroutines)
        stop.append(True)
        thread.join(SECONDS)
    assert set(results(goroutines)) == {rounds}


def test_a_finalizer_that_parks_during_a_collection_in_a_goroutine(two_workers: None) -> None:
    ch, ran = chan(), []

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            ran.append(ch.recv())

    def collecting() -> None:
        Cycle()
        gc.collect()

    g = go(collecting)
    parked(g)
    # The collector runs in g and is not done: another collection must not wait for it.
    assert gc.collect() == 0
    go(gc.collect).result(SECONDS)
    ch.send(1)
    g.result(SECONDS)
    assert ran == [1]


def test_freeze_and_unfreeze_with_parked_goroutines() -> None:
    ch = chan()
    goroutines = [go(function, ch.recv) for function in WAYS.values()]
    parked(*goroutines)
    gc.collect()
    gc.freeze()
    try:
        gc.collect()
        churn()
        while not all(g.done() for g in goroutines):
            ch.try_send(1)
            gosched()
    finally:
        gc.unfreeze()
    gc.collect()
    assert set(results(goroutines)) == {2}


def test_referrers_and_object_lists_with_parked_goroutines() -> None:
    ch = chan()
    goroutines = [go(function, ch.recv) for function in WAYS.values()]
    parked(*goroutines)
    assert gc.get_referrers(ch)
    assert len(gc.get_objects()) > 1000
    while not all(g.done() for g in goroutines):
        ch.try_send(1)
        gosched()
    results(goroutines)


def test_memory_stays_flat(collect: None) -> None:
    """Neither goroutines nor channel operations leave objects behind."""

    def work() -> None:
        ch = chan(1)
        g = go(lambda: [ch.recv(), select(recv(ch), recv(after(0)))])
        ch.send(1)
        g.result(SECONDS)

    def objects() -> int:
        before = num_goroutine()
        for _ in range(200):
            work()
        until(lambda: num_goroutine() <= before)
        gc.collect()
        return len(gc.get_objects())

    objects()
    first = objects()
    objects()
    assert objects() - first < 50
