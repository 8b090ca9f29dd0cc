"""Garbage collection: what parked goroutines hold survives it, what nobody holds does not.

On free-threaded builds the interpreter does not count references from evaluation stacks to functions, code,
modules and types; the collector looks for them in the frames of every thread. The frames of a parked goroutine
are on no thread, so each of these tests parks in a place that only such references keep alive, collects, and
goes on there.
"""

from __future__ import annotations

import functools
import gc
import heapq
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
from goslings import (
    Case,
    Goroutine,
    RecvChan,
    Selected,
    SendChan,
    Ticker,
    Timer,
    after,
    after_func,
    chan,
    current,
    go,
    gosched,
    num_goroutine,
    recv,
    select,
    send,
    sleep,
)
from helpers import FREE_THREADED, SECONDS, check_child, count, parked, results, until

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


def churn() -> None:
    """Uses memory that was freed too early for something else."""
    for size in range(1, 60):
        for _ in range(20):
            exec("def f():\n    return [f]\n", {})
            bytearray(size * 16)
            type("T", (), {})


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


# C21: what is collected


class Thing:
    """Can be weakly referred to."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def test_c21_a_received_value_is_not_kept(collect: None) -> None:
    ch = chan(2)
    for receive in (
        ch.recv,
        ch.try_recv,
        ch.recv_ok,
        lambda: next(ch),
        lambda: select(recv(ch)),
        lambda: ch.recv(timeout=1),
    ):
        thing = Thing()
        ref = weakref.ref(thing)
        ch.send(thing)
        del thing
        assert ref() is not None
        receive()
        assert ref() is None, receive


def test_c21_a_value_handed_over_is_not_kept(collect: None) -> None:
    ch, done = chan(), chan()

    def receiver() -> None:
        for _ in range(20):
            ch.recv()
            done.send(None)

    g = go(receiver)
    for i in range(20):
        thing = Thing()
        ref = weakref.ref(thing)
        if i % 2:
            select(send(ch, thing))
        else:
            ch.send(thing)
        del thing
        done.recv()
        until(lambda ref=ref: ref() is None)
    g.result(SECONDS)


def test_c21_a_value_that_was_not_sent_is_not_kept(collect: None) -> None:
    ch = chan()
    refs = []
    for attempt in (
        lambda thing: ch.try_send(thing),
        lambda thing: select(send(ch, thing), timeout=0),
        lambda thing: select(send(ch, thing), send(None, thing), timeout=0.001),
        lambda thing: pytest.raises(TimeoutError, ch.send, thing, timeout=0.001),
        lambda thing: pytest.raises(TimeoutError, ch.send, thing, timeout=0),
    ):
        thing = Thing()
        refs.append(weakref.ref(thing))
        attempt(thing)
        del thing
    gc.collect()
    assert [ref() for ref in refs] == [None] * len(refs)


def test_c21_a_channel_that_goes_away_drops_what_it_holds(collect: None) -> None:
    ch, thing = chan(3), Thing()
    ref = weakref.ref(thing)
    ch.send(thing)
    ch.send(thing)
    del thing
    ch.close()
    assert ref() is not None
    del ch
    assert ref() is None


KINDS = (Thing, chan, SendChan, RecvChan, Goroutine, Timer, Ticker, Case, Selected)


def alive() -> int:
    """How many of our objects the collector knows."""
    return sum(isinstance(thing, KINDS) for thing in gc.get_objects())


def cycle_through_its_buffer() -> Any:
    ch = chan(1)
    ch.send(ch)
    return ch


def cycle_through_a_list() -> Any:
    ch = chan(3)
    ch.send([1, {"ch": ch}])
    return ch


def cycle_of_channels() -> Any:
    a, b = chan(1), chan(1)
    a.send(b)
    b.send(a)
    return a


def cycle_through_a_view() -> Any:
    ch = chan(1)
    ch.send(ch.sender())
    return ch


def cycle_of_which_only_a_view_is_left() -> Any:
    ch = chan(1)
    thing = Thing(view=ch.receiver())
    ch.send(thing)
    return thing


def cycle_of_two_views() -> Any:
    ch = chan(1)
    thing = Thing(receiver=ch.receiver(), sender=ch.sender())
    ch.send(thing)
    return thing


def cycle_through_a_case() -> Any:
    ch = chan(1)
    ch.send(send(ch, 1))
    return ch


def cycle_through_the_value_of_a_case() -> Any:
    thing = Thing()
    thing.case = send(chan(), thing)
    return thing


def cycle_through_a_selected() -> Any:
    ch, thing = chan(1), Thing()
    ch.send(thing)
    thing.selected = select(recv(ch))
    return thing


def cycle_through_a_result() -> Any:
    thing = Thing()
    thing.goroutine = go(lambda: thing)
    thing.goroutine.result(SECONDS)
    return thing


def cycle_of_a_goroutine_that_returned_itself() -> Any:
    g = go(current)
    assert g.result(SECONDS) is g
    return g


def cycle_through_a_tuple_result() -> Any:
    g = go(lambda: (current(),))
    assert g.result(SECONDS) == (g,)
    return g


def cycle_through_an_exception() -> Any:
    def fail() -> None:
        me = current()
        raise KeyError(me)

    g = go(fail)
    g.exception(SECONDS)
    return g


def cycle_through_a_cancel_message() -> Any:
    thing, ch = Thing(), chan()
    thing.goroutine = go(ch.recv)
    thing.goroutine.cancel(thing)
    thing.goroutine.join(SECONDS)
    return thing


def cycle_through_finished() -> Any:
    thing = Thing()
    thing.goroutine = go(lambda: thing)
    thing.finished = thing.goroutine.finished
    thing.finished.recv_ok()
    return thing


def cycle_through_a_timer() -> Any:
    thing = Thing()
    thing.timer = after_func(3600, lambda: thing)
    thing.timer.stop()
    return thing


def cycle_through_a_timer_that_ran() -> Any:
    thing, ran = Thing(), chan(1)
    thing.timer = after_func(0, lambda: (thing, ran.send(1)))
    ran.recv()
    return thing


def cycle_through_a_timers_channel() -> Any:
    thing = Thing()
    thing.timer = Timer(3600)
    thing.channel = thing.timer.c
    thing.me = thing
    return thing


def cycle_through_a_ticker() -> Any:
    thing = Thing(ticker=Ticker(3600))
    thing.me = [thing, thing.ticker.c, iter(thing.ticker)]
    return thing


def cycle_through_a_done_callback_that_ran() -> Any:
    thing = Thing()
    thing.goroutine = go(int)
    thing.goroutine.add_done_callback(lambda g: thing)
    thing.goroutine.result(SECONDS)
    return thing


CYCLES = [function for name, function in list(globals().items()) if name.startswith("cycle_")]


@pytest.mark.parametrize("make", CYCLES, ids=[make.__name__ for make in CYCLES])
def test_c21_a_cycle_is_collected(collect: None, make: Callable[[], Any]) -> None:
    before = alive()
    root = make()
    ref = weakref.ref(root)
    del root

    def gone() -> bool:
        gc.collect()
        # A weak reference goes when the cycle is found; the objects only if it can be broken.
        return ref() is None and alive() <= before

    # The worker may hold on to the goroutine that has just ended for a moment.
    until(gone, 2)


def test_c21_a_cycle_that_is_still_used_is_not_collected(collect: None) -> None:
    roots = [make() for make in CYCLES]
    gc.collect()
    churn()
    gc.collect()
    for root in roots:
        if isinstance(root, chan):
            assert root.recv() is not None
        elif isinstance(root, Goroutine):
            assert root.done()
        else:
            assert root.__dict__


def test_c21_a_goroutine_parked_on_an_unreachable_channel_stays() -> None:
    assert "1\n" == check_child(
        """
        import gc
        from goslings import chan, go, num_goroutine, sleep
        g = go(lambda: chan().recv())
        while "chan receive" not in repr(g):
            sleep(0.001)
        del g
        gc.collect()
        print(num_goroutine())
        """
    )


def test_c21_a_handle_that_nobody_holds_does_not_outlive_its_goroutine(collect: None) -> None:
    ch = chan()
    g = go(ch.recv)
    ref = weakref.ref(g)
    del g
    gc.collect()
    assert ref() is not None  # it runs
    ch.send(1)
    until(lambda: ref() is None)


def test_arguments_and_results_are_released(collect: None) -> None:
    thing = Thing()
    ref = weakref.ref(thing)
    g = go(lambda argument, *, keyword: None, thing, keyword=thing)
    del thing
    g.result(SECONDS)
    until(lambda: ref() is None)
    g = go(Thing)
    ref = weakref.ref(g.result(SECONDS))
    assert ref() is not None
    del g
    until(lambda: (gc.collect(), ref() is None)[1])


def test_timers_that_nobody_holds_are_released(collect: None) -> None:
    # T07: no Stop is needed.
    channels = [after(3600) for _ in range(100)]
    refs = [weakref.ref(ch) for ch in channels]
    del channels
    assert all(ref() is None for ref in refs)


def test_values_of_every_kind_are_dropped_once(two_workers: None) -> None:
    """Each value is finalized exactly once, however its way ended."""
    made, dropped = 0, []

    class Counted:
        def __init__(self) -> None:
            nonlocal made
            made += 1

        def __del__(self) -> None:
            dropped.append(1)

    def work() -> None:
        ch, full = chan(2), chan(1)
        full.send(Counted())
        for _ in range(10):
            ch.try_send(Counted())
            select(send(full, Counted()), timeout=0)
        with pytest.raises(TimeoutError):
            full.send(Counted(), timeout=0.001)
        g = go(full.send, Counted())
        g.cancel()
        g.join()
        ch.close()
        go(lambda: Counted()).join()

    results([go(work) for _ in range(4)])
    # The workers let go of a goroutine shortly after its end.
    until(lambda: (gc.collect(), len(dropped) == 4 * 24)[1])


# Critical sections: locks of the free-threaded interpreter that a parked stack must not keep locked.


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
        def __init__(self, n: int, park: Park) -> None:
            self.n, self.park = n, park

        def __lt__(self, other: Less) -> bool:
            self.park()
            return self.n < other.n

    def work(park: Park) -> list[int]:
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
