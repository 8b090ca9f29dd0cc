"""The interpreter's own state goes with each goroutine: what makes switching between stacks hard."""

from __future__ import annotations

import ast
import collections
import contextlib
import contextvars
import copy
import decimal
import functools
import gc
import io
import itertools
import json
import operator
import pickle
import re
import sys
import threading
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from goslings import Closed, chan, current, go, gosched, recv, select, sleep
from helpers import SECONDS, Park, check_child, count, parked, results, until

# Parking below C code: every goroutine waits in the middle of a call of the interpreter's own functions while
# the others go on with theirs. `park` returns its argument after a wait.


class Key:
    """Waits whenever it is hashed or compared."""

    def __init__(self, n: int, park: Park) -> None:
        self.n, self.park = n, park

    def __hash__(self) -> int:
        return self.park(hash(self.n))

    def __eq__(self, other: Any) -> bool:
        return self.park(self.n == other.n)

    def __lt__(self, other: Any) -> bool:
        return self.park(self.n < other.n)

    def __index__(self) -> int:
        return self.park(self.n)

    def __repr__(self) -> str:
        return self.park(f"Key({self.n})")

    def __bool__(self) -> bool:
        return self.park(bool(self.n))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.park(name)


BELOW_C: dict[str, Callable[[Park], Any]] = {
    "list.sort": lambda park: sorted([3, 1, 2], key=park),
    "list.sort comparing": lambda park: [k.n for k in sorted(Key(n, park) for n in (3, 1, 2))],
    "list.index": lambda park: [Key(1, park), Key(2, park)].index(Key(2, park)),
    "list repr": lambda park: repr([Key(1, park), (Key(2, park), {3: Key(3, park)})]),
    "dict": lambda park: {Key(1, park): 1, Key(2, park): 2, Key(1, park): 3}[Key(1, park)],
    "set": lambda park: sorted(k.n for k in {Key(n % 3, park) for n in range(7)} | {Key(2, park)}),
    "min and max": lambda park: (min([3, 1, 2], key=park), max([3, 1, 2], key=park)),
    "any and all": lambda park: (any(Key(n, park) for n in (0, 0, 1)), all(map(park, (1, 1)))),
    "sum of a map": lambda park: sum(map(park, range(5))),
    "filter and zip": lambda park: list(zip(filter(park, range(4)), map(park, "abc"), strict=True)),
    "reduce": lambda park: functools.reduce(lambda a, b: park(a + b), range(6)),
    "accumulate": lambda park: list(itertools.accumulate(range(5), lambda a, b: park(a + b))),
    "groupby": lambda park: [(k, len(list(g))) for k, g in itertools.groupby("aabbb", park)],
    "re.sub": lambda park: re.sub("[0-9]", lambda found: park(str(int(found[0]) + 1)), "a1b2c3"),
    "str.format": lambda park: "{0.x} {0!r}".format(Key(1, park)),
    "f-string": lambda park: f"{Key(1, park)!r:>8}",
    "range": lambda park: list(range(Key(3, park))),
    "slicing": lambda park: [1, 2, 3, 4][Key(1, park) : Key(3, park)],
    "getattr": lambda park: getattr(Key(1, park), "attr".__add__("ibute")),
    "attrgetter": lambda park: operator.attrgetter("a")(Key(1, park)),
    "eval": lambda park: eval("park(1) + park(2)", {"park": park}),
    "exec": lambda park: exec("x.append(park(1))", {"park": park, "x": (x := [])}) or x,
    "type()": lambda park: type("T", (), {"__init_subclass__": lambda **_: park(None), "x": 1}).x,
    "subclassing": lambda park: type("S", (type("B", (), {"__init_subclass__": classmethod(park)}),), {}).__name__,
    "lru_cache": lambda park: [functools.lru_cache(park)(n) for n in (1, 2, 1)],
    "partial": lambda park: functools.partial(park, 1)(),
    "deque": lambda park: collections.deque([Key(1, park)]).count(Key(1, park)),
    "defaultdict": lambda park: collections.defaultdict(lambda: park(7))["missing"],
    "Counter": lambda park: max(collections.Counter(map(park, "abca")).values()),
    "json": lambda park: json.loads(json.dumps({"a": object()}, default=lambda _: park("x")), object_hook=park),
    "pickle": lambda park: pickle.loads(pickle.dumps([Reduced(park)]), buffers=None)[0],
    "deepcopy": lambda park: copy.deepcopy([Copied(park)])[0],
    "StringIO print": lambda park: printed(park),
    "sorted set of tuples": lambda park: sorted({(n, park(n)) for n in range(3)}),
    "chain": lambda park: list(itertools.chain.from_iterable(map(park, ["ab", "c"]))),
    "dict.update": lambda park: dict(map(park, [(1, 2), (3, 4)]), **{"x": park(5)}),
    "unpacking": lambda park: (lambda *a, **k: (a, k))(*map(park, (1, 2)), **{park("k"): park("v")}),
    "decimal": lambda park: decimal.Decimal(park("1.5")) + decimal.Decimal(park(1)),
    "ast": lambda park: Visitor(park).visit(ast.parse("a + b * c")) or "visited",
    "isinstance": lambda park: isinstance(
        1, type("M", (type,), {"__instancecheck__": lambda c, o: park(True)})("C", (), {})
    ),
    "weakref callback": lambda park: weak(park),
    "property and setattr": lambda park: setting(park),
    "map of sort of map": lambda park: list(map(lambda n: sorted(map(park, range(n)), key=park), range(4))),
}


class Reduced:
    def __init__(self, park: Park) -> None:
        self.park = park

    def __reduce__(self) -> tuple[Any, ...]:
        self.park(None)
        return str, ("unpickled",)


class Copied:
    def __init__(self, park: Park) -> None:
        self.park = park

    def __deepcopy__(self, memo: Any) -> str:
        return self.park("copied")


class Visitor(ast.NodeVisitor):
    def __init__(self, park: Park) -> None:
        self.park = park

    def visit_Name(self, node: ast.Name) -> None:
        self.park(node.id)


def printed(park: Park) -> str:
    file = io.StringIO()
    print(Key(1, park), Key(2, park), file=file)
    return file.getvalue()


def weak(park: Park) -> list[int]:
    called: list[int] = []

    def function() -> None: ...

    ref = weakref.ref(function, lambda ref: called.append(park(1)))
    del function
    assert ref() is None
    return called


def setting(park: Park) -> list[Any]:
    class Watched:
        seen: list[Any] = []  # noqa: RUF012

        @property
        def x(self) -> Any:
            return park(1)

        @x.setter
        def x(self, value: Any) -> None:
            Watched.seen.append(park(value))

        def __del__(self) -> None:
            Watched.seen.append(park("del"))

    watched = Watched()
    watched.x = watched.x + 1
    del watched
    return Watched.seen


@pytest.mark.parametrize("name", BELOW_C)
def test_parking_below_c_code(two_workers: None, name: str) -> None:
    call = BELOW_C[name]
    expected = call(lambda value: value)
    ch = chan()

    def park(value: Any) -> Any:
        ch.recv_ok()
        return value

    goroutines = [go(call, park) for _ in range(5)]
    while not all(g.done() for g in goroutines):
        ch.try_send(None)
        gosched()
    for result in results(goroutines):
        assert result == expected


def test_parking_below_c_code_all_at_once(two_workers: None) -> None:
    ch = chan()

    def park(value: Any) -> Any:
        ch.recv_ok()
        return value

    expected = [call(lambda value: value) for call in BELOW_C.values()]
    goroutines = [go(call, park) for _ in range(count(10)) for call in BELOW_C.values()]
    while not all(g.done() for g in goroutines):
        for _ in range(50):
            ch.try_send(None)
            gosched()
        gc.collect(0)
    found = results(goroutines)
    assert found == expected * (len(goroutines) // len(expected))


# Generators, comprehensions, finalizers


def test_generators_park_and_are_resumed_by_other_goroutines(two_workers: None) -> None:
    ch = chan()

    def numbers() -> Iterator[int]:
        for i in range(10):
            yield i + ch.recv()

    generator = numbers()
    total = 0
    for _ in range(10):  # each step by a goroutine of its own
        g = go(next, generator)
        parked(g)
        ch.send(1)
        total += g.result(SECONDS)
    assert total == sum(range(1, 11))
    with pytest.raises(StopIteration):
        go(next, generator).result(SECONDS)


def test_a_generator_that_is_parked_in_cannot_be_entered_again() -> None:
    ch = chan()

    def one() -> Iterator[Any]:
        yield ch.recv()

    generator = one()
    g = go(next, generator)
    parked(g)
    with pytest.raises(ValueError, match="generator already executing"):
        next(generator)
    ch.send(1)
    assert g.result(SECONDS) == 1


def test_a_generator_that_is_closed_while_a_goroutine_waits_in_its_finally() -> None:
    ch, closed = chan(), []

    def one() -> Iterator[int]:
        try:
            yield 1
        finally:
            closed.append(ch.recv())

    def work() -> None:
        for _ in one():
            break
        gc.collect()

    g = go(work)
    parked(g)
    ch.send("closed")
    g.result(SECONDS)
    assert closed == ["closed"]


def test_yield_from_parks() -> None:
    ch = chan()

    def inner() -> Iterator[int]:
        yield ch.recv()
        yield ch.recv()

    def outer() -> Iterator[int]:
        yield from inner()
        yield ch.recv()

    g = go(list, outer())
    for i in range(3):
        ch.send(i)
    assert g.result(SECONDS) == [0, 1, 2]


def test_comprehensions_park() -> None:
    ch = chan()
    g = go(lambda: ([ch.recv() for _ in range(2)], {ch.recv(): ch.recv()}, {ch.recv() for _ in range(2)}))
    for i in range(6):
        ch.send(i)
    assert g.result(SECONDS) == ([0, 1], {2: 3}, {4, 5})


def test_finalizers_park(two_workers: None) -> None:
    ch, ran = chan(), []

    class Final:
        def __init__(self, name: int) -> None:
            self.name = name

        def __del__(self) -> None:
            ch.recv()
            ran.append(self.name)

    def work(name: int) -> int:
        Final(name)
        holder = [Final(name), Final(name)]
        holder.clear()
        final: Any = Final(name)
        final = None  # noqa: F841
        return name

    goroutines = [go(work, i) for i in range(10)]
    while not all(g.done() for g in goroutines):
        ch.try_send(None)
        gosched()
    assert results(goroutines) == list(range(10))
    assert sorted(ran) == sorted(list(range(10)) * 4)


def test_deep_structures_are_freed_while_others_park(two_workers: None) -> None:
    """The interpreter frees deep structures in turns, which it keeps a list of for each thread."""
    ch = chan()

    class Final:
        def __del__(self) -> None:
            ch.recv()

    def work() -> str:
        deep: Any = Final()
        for i in range(20_000):
            deep = (deep, Final()) if i % 5000 == 0 else [deep]
        del deep
        return "freed"

    goroutines = [go(work) for _ in range(6)]
    while not all(g.done() for g in goroutines):
        ch.try_send(None)
        gosched()
    assert results(goroutines) == ["freed"] * 6


# Exceptions


def test_each_goroutine_has_the_exception_it_handles(two_workers: None) -> None:
    ch = chan()

    def work(name: int) -> None:
        assert sys.exception() is None
        try:
            raise KeyError(name)
        except KeyError as error:
            ch.recv()
            assert sys.exception() is error and error.args == (name,)
            try:
                raise ValueError(name)
            except ValueError as inner:
                ch.recv()
                assert sys.exception() is inner and inner.__context__ is error
            ch.recv()
            assert sys.exception() is error
            with pytest.raises(KeyError) as again:
                ch.recv()
                raise
            assert again.value is error
        ch.recv()
        assert sys.exception() is None

    def starter(name: int) -> None:
        try:
            raise LookupError
        except LookupError:
            ours = sys.exception()
            go(work, name).result()
            assert sys.exception() is ours

    goroutines = [go(starter, i) for i in range(10)]
    while not all(g.done() for g in goroutines):
        ch.try_send(None)
        gosched()
    results(goroutines)
    assert sys.exception() is None


def test_finally_and_with_blocks_park(two_workers: None) -> None:
    ch: Any = chan()
    log: Any = collections.deque()

    @contextlib.contextmanager
    def manager(name: int) -> Iterator[int]:
        ch.recv()
        try:
            yield ch.recv() or name
        except KeyError:
            ch.recv()
            raise ValueError(name) from None
        finally:
            ch.recv()
            log.append(name)

    def work(name: int) -> int:
        try:
            with manager(name) as value, contextlib.suppress(IndexError):
                ch.recv()
                raise KeyError(value)
        except ValueError as error:
            ch.recv()
            return error.args[0]
        return -1

    goroutines = [go(work, i) for i in range(10)]
    while not all(g.done() for g in goroutines):
        ch.try_send(None)
        gosched()
    assert results(goroutines) == list(range(10)) == sorted(log)


def test_an_exception_out_of_a_goroutine_keeps_its_traceback() -> None:
    def inner() -> None:
        raise KeyError("inner")

    def outer() -> None:
        inner()

    g = go(outer)
    with pytest.raises(KeyError) as first:
        g.result(SECONDS)
    with pytest.raises(KeyError) as second:
        g.result(SECONDS)
    assert first.value is second.value is g.exception()
    names = [frame.name for frame in traceback.extract_tb(g.exception().__traceback__)]
    assert names[-2:] == ["outer", "inner"]
    text = "".join(traceback.format_exception(first.value))
    assert "in outer" in text and "in inner" in text


def test_the_exception_being_handled_where_go_is_called_is_no_context_of_the_goroutine() -> None:
    def fail() -> None:
        raise KeyError("in goroutine")

    try:
        raise ValueError("in starter")
    except ValueError:
        g = go(fail)
        error = g.exception(SECONDS)
    assert error is not None and error.__context__ is None


def test_exception_groups_park_in_except_star() -> None:
    ch = chan()

    def work() -> list[str]:
        seen = []
        try:
            raise ExceptionGroup("both", [KeyError(1), ValueError(2)])
        except* KeyError:
            ch.recv()
            seen.append("key")
        except* ValueError:
            ch.recv()
            seen.append("value")
        return seen

    goroutines = [go(work) for _ in range(5)]
    for _ in range(10):
        ch.send(None)
    assert results(goroutines) == [["key", "value"]] * 5


# Context variables

variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


def test_o02_context_variables_are_copied_at_go_and_stay_apart(two_workers: None) -> None:
    ch = chan()

    def work(name: int) -> int:
        assert variable.get() == name  # as it was when `go` was called
        variable.set(name + 100)
        ch.recv()
        assert variable.get() == name + 100
        token = variable.set(name + 200)
        child = go(variable.get)
        ch.recv()
        assert child.result() == name + 200
        variable.reset(token)
        gosched()
        return variable.get()

    goroutines = []
    for i in range(1, 11):
        token = variable.set(i)
        goroutines.append(go(work, i))
        variable.reset(token)
    while not all(g.done() for g in goroutines):
        ch.try_send(None)
        gosched()
    assert results(goroutines) == [i + 100 for i in range(1, 11)]
    assert variable.get() == 0


def test_a_context_that_is_entered_by_a_parked_goroutine_cannot_be_entered_by_another() -> None:
    ch, context = chan(), contextvars.copy_context()
    g = go(context.run, ch.recv)
    parked(g)
    with pytest.raises(RuntimeError, match="already entered"):
        context.run(int)
    ch.send(1)
    assert g.result(SECONDS) == 1
    assert context.run(lambda: 2) == 2


def test_goroutines_without_a_context_do_not_see_their_neighbours(one_worker: None) -> None:
    ch = chan()

    def sets() -> None:
        variable.set(5)
        ch.recv()

    def reads() -> int:
        gosched()
        return variable.get()

    setters = [go(sets) for _ in range(3)]
    parked(*setters)
    assert results([go(reads) for _ in range(10)]) == [0] * 10
    ch.close()
    for g in setters:
        assert isinstance(g.exception(SECONDS), Closed)


def test_decimal_contexts_stay_apart() -> None:
    ch = chan()

    def work(digits: int) -> str:
        with decimal.localcontext() as context:
            context.prec = digits
            ch.recv()
            return str(decimal.Decimal(1) / 3)

    goroutines = [go(work, digits) for digits in (3, 5, 7)]
    for _ in goroutines:
        ch.send(None)
    assert results(goroutines) == ["0.333", "0.33333", "0.3333333"]


def test_warnings_are_errors_here_and_can_be_caught_in_a_goroutine() -> None:
    def warn() -> None:
        warnings.warn("careful", UserWarning, stacklevel=1)

    assert isinstance(go(warn).exception(SECONDS), UserWarning)


# Threads' own things


def test_thread_locals_are_the_workers(one_worker: None) -> None:
    """Without patch() a worker's goroutines share one `threading.local`."""
    local = threading.local()

    def write() -> int:
        local.value = threading.get_ident()
        return threading.get_ident()

    ident = go(write).result(SECONDS)
    same, value = go(lambda: (threading.get_ident() == ident, getattr(local, "value", None))).result(SECONDS)
    assert value == (ident if same else None)
    assert not hasattr(local, "value")
    assert ident != threading.get_ident()


def test_asyncio_runs_inside_a_goroutine_while_others_park(two_workers: None) -> None:
    import asyncio

    ch = chan()

    async def main(name: int) -> int:
        await asyncio.sleep(0.001)
        assert asyncio.current_task() is not None
        return name

    def work(name: int) -> int:
        ch.recv()
        value = asyncio.run(main(name))
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        ch.recv()
        return value

    goroutines = [go(work, i) for i in range(5)]
    while not all(g.done() for g in goroutines):
        ch.try_send(None)
        gosched()
    assert results(goroutines) == list(range(5))


def test_an_event_loop_is_not_seen_by_the_other_goroutines_of_its_worker(one_worker: None) -> None:
    import asyncio

    ch, inside = chan(), chan()

    async def main() -> None:
        inside.close()
        ch.recv()  # blocks the loop, and parks the goroutine

    def other() -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()

    g = go(asyncio.run, main())
    inside.recv_ok()
    error = None
    until(lambda: "chan receive" in repr(g) or g.done())
    if g.done():  # refused: a blocking call inside a running `async def` may be an error
        error = g.exception(SECONDS)
    go(other).result(SECONDS)
    if error is None:
        ch.send(None)
        g.result(SECONDS)


# The rest


def test_current_is_right_at_any_depth_and_after_every_wait(two_workers: None) -> None:
    ch = chan()

    def work() -> bool:
        me = current()
        same = []
        for _ in range(20):
            sorted([2, 1], key=lambda n: same.append(current() is me) or gosched() or n)
            ch.try_send(1)
            select(recv(ch), timeout=0)
            same.append(current() is me)
        return all(same)

    assert all(results([go(work) for _ in range(20)]))
    assert current() is None


def test_a_goroutine_stays_on_its_thread(two_workers: None) -> None:
    def work() -> int:
        seen = set()
        for _ in range(50):
            seen.add(threading.get_native_id())
            sleep(0.0001)
            gosched()
        return len(seen)

    assert set(results([go(work) for _ in range(10)])) == {1}


def test_output_of_many_goroutines_is_whole_lines() -> None:
    out = check_child(
        """
        from goslings import go, gosched
        def talk(n):
            for i in range(50):
                print(f"goroutine {n} line {i}\\n", end="")
                gosched()
        for g in [go(talk, n) for n in range(20)]:
            g.result()
        """
    )
    assert sorted(out.splitlines()) == sorted(f"goroutine {n} line {i}" for n in range(20) for i in range(50))
