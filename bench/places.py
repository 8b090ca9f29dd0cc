"""What it costs to talk to another process: `python bench/places.py`. Beside a bare futex, and `multiprocessing`.

    round trip   a word set and a process woken, by futex alone, both sides asleep in between; a message there and back
                 over a link, with threads and with goroutines; `multiprocessing.Pipe` and two `Queue`s
    asleep       the same when both sides have slept: one round trip each millisecond
    idle         how much of a processor two processes use that wait for each other and have nothing to say
    rate         messages of 100 bytes from one process to another, one after another
    array        64 MiB of float64 there and back as a message; by reference in a segment; `multiprocessing.Queue`

Rounds take turns; medians, and for round trips minima as well. What is owed is printed beside what was measured. Worth
measuring on a machine with two idle processors only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import goslings
from goslings import go
from goslings._goslings import Link, Segment

MESSAGE = b"x" * 100
END = b"end"
BYTES = 64 << 20

Run = Callable[[Callable[[], Any]], Any]


def plainly(run: Callable[[], Any]) -> Any:
    return run()


def in_goroutine(run: Callable[[], Any]) -> Any:
    return go(run).result()


@contextlib.contextmanager
def other(run: Callable[[], object]) -> Iterator[None]:
    """A forked process that runs `run`."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            run()
            status = 0
        except BaseException as error:
            print(f"the other process: {error!r}", file=sys.stderr)
        finally:
            os._exit(status)
    yield
    if os.waitpid(pid, 0)[1] != 0:
        raise SystemExit("the other process failed")


@contextlib.contextmanager
def linked(run: Callable[[Link], object], start: Run) -> Iterator[Link]:
    """A link to a process that runs `run` with its end."""
    a, b = socket.socketpair()

    def there() -> None:
        a.close()
        with Link(b.detach()) as link:
            start(lambda: run(link))

    with other(there):
        b.close()
        with Link(a.detach()) as link:
            yield link


# Round trips, in seconds each


def futex(rounds: int) -> float:
    segment = Segment(4096)
    with other(lambda: segment._ping_pong(0, rounds, False)):
        begin = time.perf_counter()
        segment._ping_pong(0, rounds, True)
        return (time.perf_counter() - begin) / rounds


def echo(link: Link) -> None:
    with contextlib.suppress(EOFError):
        while True:
            link.send([link.recv()[0]])


def link_trips(start: Run) -> Callable[[int], float]:
    def measure(rounds: int) -> float:
        with linked(echo, start) as link:

            def trips(count: int) -> float:
                begin = time.perf_counter()
                for _ in range(count):
                    link.send([MESSAGE])
                    link.recv()
                return (time.perf_counter() - begin) / count

            start(lambda: trips(100))
            seconds: float = start(lambda: trips(rounds))
            return seconds

    return measure


def pipe(rounds: int) -> float:
    mine, theirs = multiprocessing.Pipe()

    def run() -> None:
        for _ in range(rounds):
            theirs.send_bytes(theirs.recv_bytes())

    with other(run):
        begin = time.perf_counter()
        for _ in range(rounds):
            mine.send_bytes(MESSAGE)
            mine.recv_bytes()
        return (time.perf_counter() - begin) / rounds


# Round trips of those who have slept, in seconds each: medians


def each_millisecond(rounds: int, trip: Callable[[], object]) -> float:
    found = []
    for _ in range(rounds):
        goslings.sleep(0.001)
        begin = time.perf_counter()
        trip()
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def futex_asleep(rounds: int) -> float:
    segment = Segment(4096)
    # A word for each direction: so that who has asked waits for the answer.
    there, back = 0, 128

    def answer() -> None:
        for _ in range(rounds):
            segment._ping_pong(there, 1, False)
            segment._ping_pong(back, 1, True)

    def ask() -> None:
        segment._ping_pong(there, 1, True)
        segment._ping_pong(back, 1, False)

    with other(answer):
        return each_millisecond(rounds, ask)


def link_asleep(start: Run) -> Callable[[int], float]:
    def measure(rounds: int) -> float:
        with linked(echo, start) as link:

            def trip() -> None:
                link.send([MESSAGE])
                link.recv()

            seconds: float = start(lambda: each_millisecond(rounds, trip))
            return seconds

    return measure


def pipe_asleep(rounds: int) -> float:
    mine, theirs = multiprocessing.Pipe()

    def run() -> None:
        for _ in range(rounds):
            theirs.send_bytes(theirs.recv_bytes())

    def trip() -> None:
        mine.send_bytes(MESSAGE)
        mine.recv_bytes()

    with other(run):
        return each_millisecond(rounds, trip)


# What those use who wait, in processors


def link_idle(start: Run) -> Callable[[int], float]:
    def measure(milliseconds: int) -> float:
        def there(link: Link) -> None:
            link.send(link.recv()[:1])
            begin = time.process_time()
            link.recv()
            link.send([repr(time.process_time() - begin).encode()])

        with linked(there, start) as link:

            def wait() -> float:
                link.send([MESSAGE])
                link.recv()
                begin, used = time.perf_counter(), time.process_time()
                with contextlib.suppress(TimeoutError):
                    link.recv(timeout=milliseconds / 1000)
                used, seconds = time.process_time() - used, time.perf_counter() - begin
                link.send([MESSAGE])
                return (used + float(link.recv()[0])) / seconds

            share: float = start(wait)
            return share

    return measure


# Rates, in messages a second


def rate_of(count: int, put: Callable[[bytes], object], answered: Callable[[], object]) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        put(MESSAGE)
    put(END)
    answered()
    return count / (time.perf_counter() - begin)


def link_rate(start: Run) -> Callable[[int], float]:
    def take(link: Link) -> None:
        while link.recv()[0] != END:
            pass
        link.send([END])

    def measure(count: int) -> float:
        with linked(take, start) as link:
            link.send([MESSAGE])
            rate: float = start(lambda: rate_of(count, lambda data: link.send((data,)), link.recv))
            return rate

    return measure


def pipe_rate(count: int) -> float:
    theirs, mine = multiprocessing.Pipe(duplex=False)
    done_theirs, done = multiprocessing.Pipe(duplex=False)

    def take() -> None:
        while theirs.recv() != END:
            pass
        done.send(END)

    with other(take):
        return rate_of(count, mine.send, done_theirs.recv)


def queue_rate(count: int) -> float:
    context = multiprocessing.get_context("fork")
    there, back = context.Queue(), context.Queue()

    def take() -> None:
        while there.get() != END:
            pass
        back.put(END)
        back.close()
        back.join_thread()

    with other(take):
        rate = rate_of(count, there.put, back.get)
        there.close()
        there.join_thread()
        return rate


# Large arrays, in seconds there and back


def link_array(start: Run) -> Callable[[int], float]:
    def measure(rounds: int) -> float:
        data = bytearray(BYTES)
        with linked(echo, start) as link:

            def trips() -> float:
                begin = time.perf_counter()
                for _ in range(rounds):
                    link.send([data])
                    if len(link.recv()[0]) != BYTES:
                        raise SystemExit("some of it is missing")
                return (time.perf_counter() - begin) / rounds

            seconds: float = start(trips)
            return seconds

    return measure


def by_reference(start: Run) -> Callable[[int], float]:
    def give_back(link: Link) -> None:
        with contextlib.suppress(EOFError):
            while True:
                _, (fd,) = link.recv()
                memoryview(Segment.from_fd(fd))[-1] += 1
                link.send([MESSAGE])

    def measure(rounds: int) -> float:
        segment = Segment(BYTES)
        with linked(give_back, start) as link:

            def trips() -> float:
                begin = time.perf_counter()
                for _ in range(rounds):
                    link.send([MESSAGE], [segment.fileno()])
                    link.recv()
                return (time.perf_counter() - begin) / rounds

            seconds: float = start(trips)
        if memoryview(segment)[-1] != rounds % 256:
            raise SystemExit("it was another memory")
        return seconds

    return measure


def queue_array(rounds: int) -> float:
    context = multiprocessing.get_context("fork")
    there, back = context.Queue(), context.Queue()

    def run() -> None:
        for _ in range(rounds):
            back.put(there.get())
        back.close()
        back.join_thread()

    with other(run):
        data = bytearray(BYTES)
        begin = time.perf_counter()
        for _ in range(rounds):
            there.put(data)
            back.get()
        return (time.perf_counter() - begin) / rounds


def compare(what: dict[str, Callable[[int], float]], count: int, rounds: int) -> dict[str, list[float]]:
    """What each gives, in turn, so many times."""
    found: dict[str, list[float]] = {name: [] for name in what}
    for _ in range(rounds):
        for name, measure in what.items():
            found[name].append(measure(count))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the usual work (default 1.0)")
    parser.add_argument("--json", help="a file for what was measured")
    options = parser.parse_args()
    scale = options.scale

    def times(usual: int) -> int:
        return max(2, int(usual * scale))

    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} processors, goslings {goslings.__version__}")
    found: dict[str, dict[str, list[float]]] = {}

    trips = {"futex": futex, "link": link_trips(plainly), "link, goroutines": link_trips(in_goroutine), "Pipe": pipe}
    found["round trip"] = compare(trips, times(4000), options.rounds)
    bare = statistics.median(found["round trip"]["futex"])
    print("\nround trip (owed: a link at most twice a bare futex)")
    for name, values in found["round trip"].items():
        middle = statistics.median(values)
        print(f"  {name:18} {middle * 1e6:8.2f} us, best {min(values) * 1e6:8.2f} us, {middle / bare:6.2f} of a futex")

    asleep = {"futex": futex_asleep, "link": link_asleep(plainly), "link, goroutines": link_asleep(in_goroutine)}
    found["asleep"] = compare({**asleep, "Pipe": pipe_asleep}, times(300), options.rounds)
    bare = statistics.median(found["asleep"]["futex"])
    print("\nround trip, one each millisecond (owed: a link at most twice a bare futex)")
    for name, values in found["asleep"].items():
        middle = statistics.median(values)
        print(f"  {name:18} {middle * 1e6:8.2f} us, best {min(values) * 1e6:8.2f} us, {middle / bare:6.2f} of a futex")

    found["idle"] = compare({"link": link_idle(plainly), "link, goroutines": link_idle(in_goroutine)}, times(500), 2)
    print("\nboth sides wait (owed: no processor)")
    for name, values in found["idle"].items():
        print(f"  {name:18} {max(values):8.2%} of a processor")

    rates = {"link": link_rate(plainly), "link, goroutines": link_rate(in_goroutine), "Pipe": pipe_rate}
    found["rate"] = compare({**rates, "Queue": queue_rate}, times(50_000), options.rounds)
    slow = {name: statistics.median(found["rate"][name]) for name in ("Pipe", "Queue")}
    print("\n100-byte messages a second (owed, with channels: 3 times Pipe, 10 times Queue)")
    for name, values in found["rate"].items():
        middle = statistics.median(values)
        print(
            f"  {name:18} {middle:12,.0f}, {middle / slow['Pipe']:5.1f} of Pipe, {middle / slow['Queue']:5.1f} of Queue"
        )

    arrays = {"link": link_array(plainly), "by reference": by_reference(plainly), "Queue": queue_array}
    found["array"] = compare(arrays, times(3), options.rounds)
    slowest = statistics.median(found["array"]["Queue"])
    print("\n64 MiB there and back (owed: 8 times faster than Queue; by reference below 1 ms)")
    for name, values in found["array"].items():
        middle = statistics.median(values)
        print(f"  {name:18} {middle * 1e3:9.3f} ms, {slowest / middle:8.1f} times Queue")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(found, file)


if __name__ == "__main__":
    main()
