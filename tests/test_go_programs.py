"""Long-lived networks of goroutines with known answers: power series and sieves, after Go's own test programs."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from math import factorial
from typing import Any

import pytest
from goslings import Goroutine, chan, go, num_goroutine, recv, select, send
from helpers import SECONDS, count, results, until

PRIMES = [n for n in range(2, 2000) if all(n % d for d in range(2, int(n**0.5) + 1))]


class Stream:
    """Coefficients on demand: whoever wants one asks for it, and waits for the answer."""

    def __init__(self) -> None:
        self.ask, self.answer = chan(), chan()

    def get(self) -> Fraction:
        self.ask.send(None, timeout=SECONDS)
        return self.answer.recv(timeout=SECONDS)

    def first(self, n: int) -> list[Fraction]:
        return [self.get() for _ in range(n)]

    def __iter__(self) -> Iterator[Fraction]:
        while True:
            yield self.get()


class Series:
    """Power series, each made by goroutines that do nothing until somebody asks. So one may be defined by itself."""

    def __init__(self) -> None:
        self.goroutines: list[Goroutine[None]] = []

    def make(self, coefficients: Callable[[], Iterator[Any]]) -> Stream:
        stream = Stream()

        def work() -> None:
            stream.ask.recv()  # a series may refer to what is there only when somebody asks for it
            for coefficient in coefficients():
                stream.answer.send(Fraction(coefficient))
                stream.ask.recv()

        self.goroutines.append(go(work))
        return stream

    def of(self, coefficient: Callable[[int], Any]) -> Stream:
        return self.make(lambda: map(coefficient, itertools.count()))

    def split(self, source: Stream) -> tuple[Stream, Stream]:
        """The same series twice; one reader may run ahead of the other."""
        outs, kept, wanted = (Stream(), Stream()), (deque[Fraction](), deque[Fraction]()), [False, False]

        def work() -> None:
            asked = False
            while True:
                asks = [recv(None if wants else out.ask) for out, wants in zip(outs, wanted, strict=True)]
                selected = select(*asks, recv(source.answer if asked else None))
                assert selected is not None
                if selected.index == 2:
                    asked = False
                    for left in kept:
                        left.append(selected.value)
                else:
                    wanted[selected.index] = True
                for i in range(2):
                    if wanted[i] and kept[i]:
                        outs[i].answer.send(kept[i].popleft())
                        wanted[i] = False
                if any(wanted) and not asked:
                    source.ask.send(None)
                    asked = True

        self.goroutines.append(go(work))
        return outs

    def add(self, a: Stream, b: Stream) -> Stream:
        return self.make(lambda: (x + y for x, y in zip(a, b, strict=False)))

    def times(self, number: Fraction, a: Stream) -> Stream:
        return self.make(lambda: (number * x for x in a))

    def multiply(self, a: Stream, b: Stream) -> Stream:
        """(a0 + x A)(b0 + x B) = a0 b0 + x (a0 B + b0 A + x A B)"""

        def product() -> Iterator[Fraction]:
            a0, b0 = a.get(), b.get()
            yield a0 * b0
            (a1, a2), (b1, b2) = self.split(a), self.split(b)
            linear = self.add(self.times(a0, b1), self.times(b0, a1))
            yield linear.get()
            yield from self.add(linear, self.multiply(a2, b2))

        return self.make(product)

    def integrate(self, constant: int, a: Callable[[], Stream]) -> Stream:
        """`a` is a function, as the series may be made of its own integral."""
        return self.make(lambda: itertools.chain([constant], (x / n for n, x in enumerate(a(), 1))))

    def differentiate(self, a: Stream) -> Stream:
        return self.make(lambda: (n * x for n, x in enumerate(a) if n))

    def reciprocal(self, a: Stream) -> Stream:
        """z with a z = 1: z = (1 - x A z) / a0"""

        def coefficients() -> Iterator[Fraction]:
            a0 = a.get()
            yield 1 / a0
            for x in self.multiply(a, again):
                yield -x / a0

        z, again = self.split(self.make(coefficients))
        return z

    def exponential(self, a: Stream) -> Stream:
        """z with z' = a' z and z(0) = 1, for a(0) = 0"""
        z, again = self.split(self.integrate(1, lambda: self.multiply(self.differentiate(a), again)))
        return z

    def end(self) -> None:
        """Nobody asks any more: they all wait."""
        for g in self.goroutines:
            g.cancel()
        for g in self.goroutines:
            assert g.join(SECONDS) and g.cancelled()


@pytest.fixture
def series() -> Iterator[Series]:
    before, made = num_goroutine(), Series()
    yield made
    made.end()
    until(lambda: num_goroutine() <= before)


def test_sums_and_products_of_power_series(series: Series, two_workers: None) -> None:
    def ones() -> Stream:
        return series.of(lambda n: 1)

    assert series.add(ones(), series.of(lambda n: n)).first(10) == list(range(1, 11))
    assert series.multiply(ones(), ones()).first(10) == list(range(1, 11))
    cubed = series.multiply(series.multiply(ones(), ones()), ones())
    assert cubed.first(10) == [(n + 1) * (n + 2) // 2 for n in range(10)]
    a, b = series.split(series.of(lambda n: n * n))
    assert a.first(20) == b.first(20) == [n * n for n in range(20)]
    assert series.differentiate(ones()).first(8) == list(range(1, 9))
    assert series.integrate(0, ones).first(8) == [0] + [Fraction(1, n) for n in range(1, 8)]


def test_a_product_of_many_terms_is_a_network_of_hundreds(series: Series, two_workers: None) -> None:
    before, n = num_goroutine(), 60
    product = series.multiply(series.of(lambda n: 1), series.of(lambda n: 1))
    assert product.first(n) == list(range(1, n + 1))
    # Each second term brings another product: itself, two sums, two factors, two splits.
    assert num_goroutine() - before >= 7 * (n // 2 - 1)


def test_reciprocals_of_power_series(series: Series, two_workers: None) -> None:
    # 1 / (1 + x + x^2 + ...) = 1 - x
    assert series.reciprocal(series.of(lambda n: 1)).first(12) == [1, -1] + [0] * 10
    # 1 / (1 - x - x^2): Fibonacci's numbers
    fibonacci = series.reciprocal(series.of(lambda n: 1 if n == 0 else -1 if n < 3 else 0))
    assert fibonacci.first(12) == [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144]


def test_the_exponential_is_defined_by_itself(series: Series, two_workers: None) -> None:
    exponential = series.exponential(series.of(lambda n: n == 1))
    assert exponential.first(12) == [Fraction(1, factorial(n)) for n in range(12)]
    # exp(x + x^2 / 2): the numbers of involutions over n!
    exponential = series.exponential(series.of(lambda n: [0, 1, Fraction(1, 2)][n] if n < 3 else 0))
    involutions = [1, 1, 2, 4, 10, 26, 76, 232]
    assert exponential.first(8) == [Fraction(i, factorial(n)) for n, i in enumerate(involutions)]


def test_the_tangent_is_defined_by_itself(series: Series, two_workers: None) -> None:
    # tan' = 1 + tan^2
    def derivative() -> Stream:
        return series.add(series.of(lambda n: n == 0), series.multiply(*series.split(again)))

    tangent, again = series.split(series.integrate(0, derivative))
    known = [0, 1, 0, Fraction(1, 3), 0, Fraction(2, 15), 0, Fraction(17, 315), 0, Fraction(62, 2835)]
    assert tangent.first(10) == known


def test_the_sieve(two_workers: None) -> None:
    """One goroutine for each prime, which lets pass what it does not divide."""

    def generate(ch: Any) -> None:
        for i in range(2, PRIMES[-1] + 1):
            ch.send(i)
        ch.close()

    def without(prime: int, source: Any, to: Any) -> None:
        with to:
            for i in source:
                if i % prime:
                    to.send(i)

    ch, goroutines, primes = chan(), [], []
    goroutines.append(go(generate, ch))
    while True:
        prime, ok = ch.recv_ok()
        if not ok:
            break
        primes.append(prime)
        source, ch = ch, chan()
        goroutines.append(go(without, prime, source, ch))
    assert primes == PRIMES
    results(goroutines)


def test_the_sieve_by_merged_multiples(two_workers: None) -> None:
    """One goroutine for each prime, which counts its multiples; one merges them; the gaps are the next primes."""
    n = min(count(150), len(PRIMES))
    stop, fresh, composites, out = chan(), chan(n), chan(50), chan()

    def until_stopped(body: Callable[[], None]) -> Goroutine[None]:
        goroutines.append(go(body))
        return goroutines[-1]

    goroutines: list[Goroutine[None]] = []

    def put(ch: Any, value: int) -> bool:
        selected = select(send(ch, value), recv(stop))
        return selected is not None and selected.index == 0

    def get(ch: Any) -> int | None:
        selected = select(recv(ch), recv(stop))
        return selected.value if selected is not None and selected.index == 0 else None

    def multiples(prime: int) -> Any:
        ch = chan(10)

        def body() -> None:
            multiple = prime * prime
            while put(ch, multiple):
                multiple += prime

        until_stopped(body)
        return ch

    def merge() -> None:
        heads: list[tuple[int, int, Any]] = []
        number, last = 0, 0
        bound: int | None = None
        while True:
            # A prime's multiples begin at its square: nothing beyond that of the next prime may be told before.
            while bound is None or not heads or heads[0][0] >= bound:
                prime = get(fresh)
                if prime is None:
                    return
                ch = multiples(prime)
                head = get(ch)
                if head is None:
                    return
                number += 1
                heapq.heappush(heads, (head, number, ch))
                bound = prime * prime + 1
            head, k, ch = heads[0]
            following = get(ch)
            if following is None:
                return
            heapq.heapreplace(heads, (following, k, ch))
            if head != last and not put(composites, head):
                return
            last = head

    def sieve() -> None:
        if not (put(out, 2) and put(fresh, 2)):
            return
        candidate = 3
        while (composite := get(composites)) is not None:
            while candidate < composite:
                if not (put(out, candidate) and put(fresh, candidate)):
                    return
                candidate += 1
            candidate = composite + 1

    until_stopped(merge)
    until_stopped(sieve)
    assert [out.recv() for _ in range(n)] == PRIMES[:n]
    stop.close()
    results(goroutines)


def test_a_ring_passes_a_token_round_and_round(two_workers: None) -> None:
    n, rounds = 100, count(200)
    links = [chan() for _ in range(n)]

    def link(i: int) -> int:
        passed = 0
        with links[(i + 1) % n] as after:
            for token in links[i]:
                if token == 0:
                    break
                after.send(token - 1)
                passed += 1
        return passed

    goroutines = [go(link, i) for i in range(n)]
    links[0].send(n * rounds)
    assert results(goroutines) == [rounds] * n
