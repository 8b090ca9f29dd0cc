"""Processes: messages, arrays and calls, beside multiprocessing, in turns in one run.

python bench/processes.py [small|single|queues|managers|pools|array|cpu|calls] [--rounds N]
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from goslings import chan, go, recv, select
from goslings.processes import Processes

MESSAGE = b"x" * 100


def timed(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


# Small messages: one producer in a worker, one consumer here; and the other way round.


def queue_producer(queue: Any, gate: Any, rounds: int, number: int) -> None:
    for _ in range(rounds):
        gate.recv()
        for _ in range(number):
            queue.put(MESSAGE)


def pipe_producer(pipe: Any, rounds: int, number: int) -> None:
    for _ in range(rounds):
        pipe.recv()
        for _ in range(number):
            pipe.send(MESSAGE)


def small(rounds: int) -> None:
    """100 bytes from one producer to one consumer: microseconds an item."""
    number = 20_000
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    gate, far_gate = context.Pipe()
    pipe, far_pipe = context.Pipe()
    producers = [
        context.Process(target=queue_producer, args=(queue, far_gate, rounds, number)),
        context.Process(target=pipe_producer, args=(far_pipe, rounds, number)),
    ]
    for producer in producers:
        producer.start()
    found: dict[str, list[float]] = {"queue": [], "pipe": [], "from a worker": [], "to a worker": []}
    with Processes(1) as workers:
        values, back, start = chan[bytes](1024), chan[bytes](1024), chan[int]()

        def produce() -> None:
            for count in start:
                for _ in range(count):
                    values.send(MESSAGE)

        def consume(number: int) -> float:
            back.recv()
            begin = time.perf_counter()
            for _ in range(number - 1):
                back.recv()
            return time.perf_counter() - begin

        running = workers.go(produce)
        for _ in range(rounds):

            def from_queue() -> None:
                gate.send(1)
                for _ in range(number):
                    queue.get()

            def from_pipe() -> None:
                pipe.send(1)
                for _ in range(number):
                    pipe.recv()

            def from_worker() -> None:
                start.send(number)

                def take() -> None:
                    for _ in range(number):
                        values.recv()

                go(take).result()

            found["queue"].append(timed(from_queue) / number)
            found["pipe"].append(timed(from_pipe) / number)
            found["from a worker"].append(timed(from_worker) / number)
            consumer = workers.go(consume, number)
            go(lambda: [back.send(MESSAGE) for _ in range(number)]).result()
            found["to a worker"].append(consumer.result() / number)
        start.close()
        running.result()
    for producer in producers:
        producer.join()
    for name, times in found.items():
        print(f"small {name:15} {statistics.median(times) * 1e6:8.2f} us an item, best {min(times) * 1e6:8.2f}")
    for name in ("from a worker", "to a worker"):
        for rival in ("queue", "pipe"):
            ratio = statistics.median(found[rival]) / statistics.median(found[name])
            print(f"small {name}: {ratio:.1f} times the rate of multiprocessing's {rival}")


# Single operations: channels without a buffer or with a small one, from worker to worker, requests, select


def queue_echo(inbox: Any, outbox: Any) -> None:
    while (item := inbox.get()) is not None:
        outbox.put(item)


def pipe_echo(pipe: Any) -> None:
    while item := pipe.recv():
        pipe.send(item)


def send_many(values: Any, number: int) -> None:
    for _ in range(number):
        values.send(MESSAGE)


def recv_many(values: Any, number: int) -> None:
    for _ in range(number):
        values.recv()


def recv_either(one: Any, other: Any, number: int) -> None:
    for _ in range(number):
        select(recv(one), recv(other))


def send_both(one: Any, other: Any, number: int) -> None:
    for count in range(number):
        (other if count % 2 else one).send(MESSAGE)


def answer_many(requests: Any, answers: Any, number: int) -> None:
    for _ in range(number):
        answers.send(requests.recv())


def ask_many(requests: Any, answers: Any, number: int) -> None:
    for _ in range(number):
        requests.send(MESSAGE)
        answers.recv()


Job = tuple[Callable[..., None], tuple[Any, ...]]


def run_jobs(jobs: Any, done: Any) -> None:
    for function, args in jobs:
        function(*args)
        done.send(None)


def new_channel(channels: Any, capacity: int) -> None:
    channels.send(chan(capacity))


def single(rounds: int) -> None:
    """Where no stream or lease carries it: microseconds an item, or there and back. `A` and `B` are workers."""
    number = 1000
    context = multiprocessing.get_context("spawn")
    there, back = context.Queue(), context.Queue()
    pipe, far_pipe = context.Pipe()
    rivals = [
        context.Process(target=queue_echo, args=(there, back)),
        context.Process(target=pipe_echo, args=(far_pipe,)),
    ]
    for rival in rivals:
        rival.start()

    def by_queue() -> None:
        for _ in range(number):
            there.put(MESSAGE)
            back.get()

    def by_pipe() -> None:
        for _ in range(number):
            pipe.send(MESSAGE)
            pipe.recv()

    def queue_stream() -> None:
        for _ in range(number):
            there.put(MESSAGE)
        for _ in range(number):
            back.get()

    found: dict[str, list[float]] = {}
    with Processes(2) as workers:
        # Each worker carries out what it is sent: so everything runs where it is meant to.
        places = [(chan[Job](), chan[None]()) for _ in range(2)]
        running = [workers.go(run_jobs, jobs, done) for jobs, done in places]

        def together(here: Job | None, in_a: Job | None = None, in_b: Job | None = None) -> None:
            def run() -> None:
                jobs = [(place, job) for place, job in zip(places, (in_a, in_b), strict=True) if job is not None]
                for (inbox, _), job in jobs:
                    inbox.send(job)
                if here is not None:
                    here[0](*here[1])
                for (_, done), _ in jobs:
                    done.recv()

            go(run).result()

        ways: dict[str, Callable[[], None]] = {
            "Queue, item": queue_stream, "Queue, trip": by_queue, "Pipe, trip": by_pipe,
        }  # fmt: skip

        def way(name: str, here: Job | None, in_a: Job | None = None, in_b: Job | None = None) -> None:
            ways[name] = lambda: together(here, in_a, in_b)

        for capacity in (0, 1, 8, 64):
            ch = chan[bytes](capacity)
            way(f"chan({capacity}) to A", (send_many, (ch, number)), (recv_many, (ch, number)))
            way(f"chan({capacity}) from A", (recv_many, (ch, number)), (send_many, (ch, number)))
        for capacity in (0, 1024):
            ch = chan[bytes](capacity)
            way(f"chan({capacity}) A to B", None, (send_many, (ch, number)), (recv_many, (ch, number)))
        for capacity in (0, 1024):
            channels = chan[Any]()
            places[0][0].send((new_channel, (channels, capacity)))
            ch = channels.recv()
            places[0][1].recv()
            way(f"chan({capacity}) of A, to here", (recv_many, (ch, number)), (send_many, (ch, number)))
            way(f"chan({capacity}) of A, to B", None, (send_many, (ch, number)), (recv_many, (ch, number)))
        for capacity in (0, 1):
            ask, answers = chan[bytes](capacity), chan[bytes](capacity)
            way(
                f"request, chan({capacity})",
                (ask_many, (ask, answers, number)),
                (answer_many, (ask, answers, number)),
            )
            one, other = chan[bytes](capacity), chan[bytes](capacity)
            way(
                f"select in A, chan({capacity})",
                (send_both, (one, other, number)),
                (recv_either, (one, other, number)),
            )
        for function in ways.values():
            function()
        for _ in range(rounds):
            for name, function in ways.items():
                found.setdefault(name, []).append(timed(function) / number)
        for jobs, _ in places:
            jobs.close()
        for goroutine in running:
            goroutine.result()
    there.put(None)
    pipe.send(None)
    for rival in rivals:
        rival.join()
    for name, times in found.items():
        print(f"single {name:22} {statistics.median(times) * 1e6:8.2f} us, best {min(times) * 1e6:8.2f}")


# The drop-in's queues


def put_many(queue: Any, gate: Any, rounds: int, number: int) -> None:
    for _ in range(rounds):
        gate.recv()
        for _ in range(number):
            queue.put(MESSAGE)


def take_many(queue: Any, gate: Any, rounds: int, number: int) -> None:
    for _ in range(rounds):
        for _ in range(number):
            queue.get()
        gate.send(1)


def queues(rounds: int) -> None:
    """Plain threads and processes, 100 bytes an item: queues of compat.multiprocessing beside the library's."""
    from goslings.compat import multiprocessing as ours

    number = 5_000
    for kind in ("Queue", "SimpleQueue", "JoinableQueue"):
        found: dict[str, dict[str, float]] = {}
        measures: dict[str, list[Callable[[], None]]] = {}
        ends: list[Callable[[], None]] = []
        for name, module in (("library", multiprocessing), ("ours", ours)):
            context: Any = module.get_context("spawn")
            inside, there, back = (getattr(context, kind)() for _ in range(3))
            go_on, far_go_on = context.Pipe()
            came, far_came = context.Pipe()
            children = [
                context.Process(target=put_many, args=(back, far_go_on, rounds, number)),
                context.Process(target=take_many, args=(there, far_came, rounds, number)),
            ]
            for child in children:
                child.start()

            def one_thread(queue: Any = inside) -> None:
                for _ in range(number):
                    queue.put(MESSAGE)
                    queue.get()

            def two_threads(queue: Any = inside) -> None:
                thread = threading.Thread(target=lambda: [queue.put(MESSAGE) for _ in range(number)])
                thread.start()
                for _ in range(number):
                    queue.get()
                thread.join()

            def from_child(queue: Any = back, gate: Any = go_on) -> None:
                gate.send(1)
                for _ in range(number):
                    queue.get()

            def to_child(queue: Any = there, gate: Any = came) -> None:
                for _ in range(number):
                    queue.put(MESSAGE)
                gate.recv()

            measures[name] = [one_thread, two_threads, from_child, to_child]
            ends += [child.join for child in children]
        for _ in range(rounds):
            for name, functions in measures.items():
                for function in functions:
                    took = timed(function) / number
                    rates = found.setdefault(function.__name__, {})
                    rates[name] = min(took, rates.get(name, took))
        for end in ends:
            end()
        for what, rates in found.items():
            ratio = rates["library"] / rates["ours"]
            print(
                f"queues {kind:14} {what:12} {rates['ours'] * 1e6:8.2f} us an item, library"
                f" {rates['library'] * 1e6:8.2f}: {ratio:.2f} times its rate"
            )


# The drop-in's managers and pools


def in_turn(title: str, rounds: int, number: int, measures: dict[str, dict[str, Callable[[], None]]]) -> None:
    """Runs each function for ours and for the library's, in turn; microseconds of the best of each, and a ratio."""
    best: dict[str, dict[str, float]] = {what: {} for what in measures}
    for _ in range(rounds):
        for what, functions in measures.items():
            for name, function in functions.items():
                took = timed(function) / number
                best[what][name] = min(took, best[what].get(name, took))
    for what, rates in best.items():
        ratio = rates["library"] / rates["ours"]
        print(
            f"{title} {what:34} {rates['ours'] * 1e6:8.1f} us, library {rates['library'] * 1e6:8.1f}:"
            f" {ratio:.2f} times its rate"
        )


def managers(rounds: int) -> None:
    """Calls of a dict of a manager, half of them to set an item and half to get it: microseconds a call."""
    from goslings.compat import multiprocessing as ours

    number = 2_000
    made: dict[str, Any] = {name: library.get_context("spawn").Manager() for name, library in libraries(ours)}

    def calls(known: Any, count: int) -> None:
        for value in range(count // 2):
            known["key"] = value
            known["key"]

    def by_threads(known: Any) -> None:
        threads = [threading.Thread(target=calls, args=(known, number // 8)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    dicts = {name: manager.dict() for name, manager in made.items()}
    goroutines = lambda: [each.result() for each in [go(calls, dicts["ours"], number // 8) for _ in range(8)]]  # noqa: E731
    in_turn("managers", rounds, number, {
        "one thread": {name: lambda known=known: calls(known, number) for name, known in dicts.items()},
        "one goroutine; a thread": {
            "ours": lambda: go(calls, dicts["ours"], number).result(),
            "library": lambda: calls(dicts["library"], number),
        },
        "8 threads": {name: lambda known=known: by_threads(known) for name, known in dicts.items()},
        "8 goroutines; 8 threads": {"ours": goroutines, "library": lambda: by_threads(dicts["library"])},
    })  # fmt: skip
    for manager in made.values():
        manager.shutdown()


def libraries(ours: Any) -> list[tuple[str, Any]]:
    return [("library", multiprocessing), ("ours", ours)]


def same(value: Any) -> Any:
    return value


def pools(rounds: int) -> None:
    """Tasks that do nothing, in a pool of two processes: microseconds a task."""
    from goslings.compat import multiprocessing as ours

    number = 1_000
    made = {name: library.get_context("spawn").Pool(2) for name, library in libraries(ours)}
    for pool in made.values():
        pool.map(same, range(100))

    def each_waits(pool: Any) -> None:
        for value in range(number):
            pool.apply(same, (value,))

    def many_threads(pool: Any) -> None:
        threads = [threading.Thread(target=pool.apply, args=(same, (value,))) for value in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def many_goroutines(pool: Any) -> None:
        for each in [go(pool.apply, same, (value,)) for value in range(number)]:
            each.result()

    def taken_together(pool: Any) -> None:
        for result in [pool.apply_async(same, (value,)) for value in range(number)]:
            result.get()

    each: dict[str, Callable[[Any], Any]] = {
        "apply, one after the other": each_waits,
        "apply_async, all, then get": taken_together,
        "map, a task each": lambda pool: pool.map(same, range(number), 1),
        "map, 50 a task": lambda pool: pool.map(same, range(number), 50),
        "imap": lambda pool: list(pool.imap(same, range(number))),
        "imap_unordered": lambda pool: list(pool.imap_unordered(same, range(number))),
    }
    measures: dict[str, dict[str, Callable[[], None]]] = {
        what: {name: lambda pool=pool, call=call: call(pool) for name, pool in made.items()}
        for what, call in each.items()
    }
    measures[f"apply, {number} goroutines; threads"] = {
        "ours": lambda: many_goroutines(made["ours"]),
        "library": lambda: many_threads(made["library"]),
    }
    in_turn("pools", rounds, number, measures)
    for pool in made.values():
        pool.terminate()
        pool.join()


# 64 MiB there and back


def echo(inbox: Any, outbox: Any) -> None:
    while (array := inbox.get()) is not None:
        outbox.put(array)


def last(array: Any) -> Any:
    return array[-1]


def array(rounds: int) -> None:
    """64 MiB of float64 there and back: milliseconds, from the fourth round on, and in the first one."""
    import numpy
    from goslings.processes import shared_array

    data = numpy.arange(8 * 1024 * 1024, dtype="f8")
    context = multiprocessing.get_context("spawn")
    there, back = context.Queue(), context.Queue()
    process = context.Process(target=echo, args=(there, back))
    process.start()
    with Processes(1) as workers:
        out, home = chan[Any](), chan[Any]()
        shared = shared_array(data.shape)
        shared[:] = data

        def serve() -> None:
            for item in out:
                home.send(item)

        running = workers.go(serve)

        def by_queue() -> None:
            there.put(data)
            assert back.get()[-1] == data[-1]

        def by_channels() -> None:
            out.send(data)
            assert home.recv()[-1] == data[-1]

        def by_call() -> None:
            assert workers.go(lambda a: a, data).result()[-1] == data[-1]

        def one_way() -> None:
            assert workers.go(last, data).result() == data[-1]

        def by_reference() -> None:
            assert workers.go(last, shared).result() == data[-1]

        back.put(None)  # both processes have started, with all that they import
        assert back.get() is None and workers.go(lambda: numpy.e).result() == numpy.e
        ways = {
            "queue": by_queue, "channels": by_channels, "call": by_call, "there only": one_way, "shared": by_reference,
        }  # fmt: skip
        first = {name: timed(function) for name, function in ways.items()}
        for function in ways.values():
            for _ in range(3):
                function()
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, function in ways.items():
                # In a row: the memory of a message is kept for a second, to be used again.
                found[name] += [timed(function) for _ in range(3)]
        out.close()
        running.result()
    there.put(None)
    process.join()
    for name, times in found.items():
        middle, best = statistics.median(times) * 1e3, min(times) * 1e3
        print(f"array {name:10} {middle:8.2f} ms, best {best:8.2f}, the first {first[name] * 1e3:8.2f}")
    for name in ("channels", "call"):
        print(f"array by {name}: {statistics.median(found['queue']) / statistics.median(found[name]):.1f} times faster")


# Two tasks that compute


def work(number: int) -> int:
    total = 0
    for value in range(number):
        total += value * value % 7
    return total


def cpu(rounds: int) -> None:
    """Two tasks on two workers, as a share of what two processes reach."""
    number = 3_000_000
    context = multiprocessing.get_context("spawn")
    shares = []
    with Processes(2) as workers, context.Pool(2) as pool:
        for place in [workers.go(work, 1), workers.go(work, 1)]:
            place.result()
        pool.map(work, [1, 1], 1)
        for _ in range(rounds):
            ceiling = timed(lambda: pool.map(work, [number, number], 1))
            ours = timed(lambda: [g.result() for g in [workers.go(work, number), workers.go(work, number)]])
            shares.append(ceiling / ours)
    print(f"cpu {statistics.median(shares):.1%} of two processes of multiprocessing (from {min(shares):.1%})")


def calls(rounds: int) -> None:
    """A call and its result, one after another: microseconds."""
    from concurrent.futures import ProcessPoolExecutor

    number = 500
    found: dict[str, list[float]] = {"goslings": [], "concurrent.futures": []}
    context = multiprocessing.get_context("spawn")
    with Processes(1) as workers, ProcessPoolExecutor(1, context) as pool:
        workers.go(abs, 1).result()
        pool.submit(abs, 1).result()
        for _ in range(rounds):
            found["goslings"].append(timed(lambda: [workers.go(abs, 1).result() for _ in range(number)]) / number)
            found["concurrent.futures"].append(
                timed(lambda: [pool.submit(abs, 1).result() for _ in range(number)]) / number
            )
    for name, times in found.items():
        print(f"calls {name:19} {statistics.median(times) * 1e6:8.1f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "what", nargs="*", choices=["small", "single", "queues", "managers", "pools", "array", "cpu", "calls"]
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, GIL {'on' if sys._is_gil_enabled() else 'off'}")
    for what in options.what or ["small", "single", "queues", "managers", "pools", "array", "cpu", "calls"]:
        globals()[what](options.rounds)


if __name__ == "__main__":
    main()
