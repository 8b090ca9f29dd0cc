"""Channels between processes: the same channel on the other side."""

from __future__ import annotations

import gc
import random
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import goslings
import pytest
from goslings import Closed, Selected, WouldBlock, chan, go, recv, select, send
from goslings.processes import Processes
from helpers import parked, parked_elsewhere, results, until

SECONDS = 60.0


@pytest.fixture(scope="module")
def workers() -> Iterator[Processes]:
    with Processes(2) as pool:
        yield pool


def test_a_rendezvous_ends_when_the_value_is_taken(workers: Processes) -> None:
    numbers, told = chan[int](), chan[str](2)

    def send_one() -> None:
        numbers.send(1)
        told.send("sent")

    goroutine = workers.go(send_one)
    goslings.sleep(0.02)
    assert told.try_recv(None) is None and len(numbers) == 0
    assert numbers.recv(SECONDS) == 1
    assert told.recv(SECONDS) == "sent"
    goroutine.result(SECONDS)


def test_a_local_send_waits_for_the_receiver_there(workers: Processes) -> None:
    numbers = chan[int]()
    sender = go(numbers.send, 5)
    parked(sender)
    assert workers.go(numbers.recv).result(SECONDS) == 5
    assert sender.join(SECONDS)


@pytest.mark.parametrize("capacity", [0, 1, 7])
def test_values_come_in_order(workers: Processes, capacity: int) -> None:
    numbers = chan[int](capacity)

    def produce() -> None:
        for number in range(100):
            numbers.send(number)
        numbers.close()

    goroutine = workers.go(produce)
    assert list(numbers) == list(range(100))
    goroutine.result(SECONDS)


@pytest.mark.parametrize("capacity", [0, 1, 7])
def test_values_go_there_in_order(workers: Processes, capacity: int) -> None:
    numbers = chan[int](capacity)
    goroutine = workers.go(lambda: list(numbers))
    for number in range(100):
        numbers.send(number, SECONDS)
    numbers.close()
    assert goroutine.result(SECONDS) == list(range(100))


@pytest.mark.parametrize("capacity", [0, 3])
def test_from_worker_to_worker(workers: Processes, capacity: int) -> None:
    numbers = chan[int](capacity)
    ready = chan[None](2)

    def produce() -> None:
        ready.send(None)
        for number in range(100):
            numbers.send(number)
        numbers.close()

    def consume() -> list[int]:
        ready.send(None)
        return list(numbers)

    consumer, producer = workers.go(consume), workers.go(produce)
    for _ in range(2):
        ready.recv(SECONDS)
    assert consumer.result(SECONDS) == list(range(100))
    producer.result(SECONDS)


def test_waiters_are_served_in_order_wherever_they_are(workers: Processes) -> None:
    numbers, told = chan[int](), chan[tuple[str, int]](10)
    here = [go(lambda: told.send(("first", numbers.recv())))]
    parked(*here)
    there = workers.go(lambda: told.send(("second", numbers.recv())))
    # Its wait is in the queue when the parent serves it: seen by what the peer serves.
    parked_elsewhere(workers, numbers)
    here.append(go(lambda: told.send(("third", numbers.recv()))))
    parked(here[-1])
    got = []
    for number in range(3):
        numbers.send(number, SECONDS)
        got.append(told.recv(SECONDS))
    assert got == [("first", 0), ("second", 1), ("third", 2)]
    results([*here, there])


def test_len_and_capacity_and_closed(workers: Processes) -> None:
    numbers = chan[int](5)
    numbers.send(1)

    def look() -> tuple[int, int, bool, bool]:
        numbers.send(2)
        return len(numbers), numbers.capacity, numbers.closed, bool(numbers)

    assert workers.go(look).result(SECONDS) == (2, 5, False, True)
    numbers.close()
    assert workers.go(lambda: numbers.closed).result(SECONDS)


def test_close_there_is_a_close_here(workers: Processes) -> None:
    numbers = chan[int](2)

    def fill() -> None:
        with numbers:
            numbers.send(1)

    workers.go(fill).result(SECONDS)
    assert numbers.closed and list(numbers) == [1]
    with pytest.raises(Closed, match="close of closed channel"):
        workers.go(numbers.close).result(SECONDS)
    with pytest.raises(Closed, match="send on closed channel"):
        workers.go(numbers.send, 1).result(SECONDS)
    with pytest.raises(Closed, match="receive on closed channel"):
        workers.go(numbers.recv).result(SECONDS)
    assert workers.go(numbers.recv_ok).result(SECONDS) == (None, False)


def test_close_wakes_who_waits_there(workers: Processes) -> None:
    numbers = chan[int]()
    receiver, sender = workers.go(numbers.recv_ok), None
    parked_elsewhere(workers, numbers)
    numbers.close()
    assert receiver.result(SECONDS) == (None, False)
    numbers = chan[int]()
    sender = workers.go(numbers.send, 1)
    parked_elsewhere(workers, numbers)
    numbers.close()
    with pytest.raises(Closed):
        sender.result(SECONDS)


def test_the_calls_that_do_not_wait(workers: Processes) -> None:
    numbers = chan[int](1)

    def look() -> list[Any]:
        told: list[Any] = [numbers.try_recv("none")]
        try:
            numbers.try_recv()
        except WouldBlock as error:
            told.append(str(error))
        told += [numbers.try_send(1), numbers.try_send(2), numbers.try_recv()]
        numbers.close()
        for call in (lambda: numbers.try_send(3), numbers.try_recv):
            try:
                call()
            except Closed as error:
                told.append(str(error))
        return told

    assert workers.go(look).result(SECONDS) == [
        *("none", "nothing to receive", True, False, 1),
        *("send on closed channel", "receive on closed channel"),
    ]


def test_timeouts(workers: Processes) -> None:
    numbers = chan[int]()

    def wait() -> list[str]:
        told = []
        for call in (
            lambda: numbers.recv(0.01),
            lambda: numbers.recv(0),
            lambda: numbers.recv_ok(-1),
            lambda: numbers.send(1, 0.01),
            lambda: numbers.send(1, timeout=0),
        ):
            try:
                call()
            except TimeoutError as error:
                told.append(str(error))
        for bad in ("x", float("nan")):
            try:
                numbers.recv(bad)  # type: ignore[arg-type]
            except (TypeError, ValueError) as error:
                told.append(type(error).__name__)
        return told

    assert workers.go(wait).result(SECONDS) == [
        *("recv timed out", "recv timed out", "recv timed out", "send timed out", "send timed out"),
        *("TypeError", "ValueError"),
    ]
    assert numbers.try_recv(None) is None, "what timed out was not delivered"


def test_a_cancelled_wait_takes_nothing(workers: Processes) -> None:
    numbers = chan[int](1)
    goroutine = workers.go(numbers.recv)
    parked_elsewhere(workers, numbers)
    goroutine.cancel()
    assert goroutine.join(SECONDS) and goroutine.cancelled()
    numbers.send(1)
    assert numbers.recv(SECONDS) == 1


def test_async_goroutines_there(workers: Processes) -> None:
    numbers, squares = chan[int](1), chan[int](1)

    async def work() -> list[Any]:
        async for number in numbers:
            await squares.asend(number * number)
        told: list[Any] = [await numbers.arecv_ok()]
        try:
            await numbers.arecv(timeout=0.01)
        except Closed:
            told.append("closed")
        try:
            numbers.recv()
        except RuntimeError as error:
            told.append("ch.arecv()" in str(error))
        try:
            len(numbers)
        except RuntimeError as error:
            told.append("async goroutine" in str(error))
        try:
            await squares.arecv(0.01)
        except TimeoutError as error:
            told.append(str(error))
        return told

    goroutine = workers.go(work)
    for number in range(20):
        numbers.send(number, SECONDS)
        assert squares.recv(SECONDS) == number * number
    numbers.close()
    assert goroutine.result(SECONDS) == [(None, False), "closed", True, True, "recv timed out"]


def test_views_travel_and_keep_their_direction(workers: Processes) -> None:
    numbers = chan[int](1)

    def there(sender: Any, receiver: Any) -> tuple[Any, ...]:
        sender.send(3)
        assert not hasattr(sender, "recv") and not hasattr(receiver, "send") and not hasattr(receiver, "close")
        return sender == receiver, hash(sender) == hash(receiver), receiver.recv(), type(sender).__name__, sender

    same, equal_hash, value, name, back = workers.go(there, numbers.sender(), numbers.receiver()).result(SECONDS)
    assert (same, equal_hash, value, name) == (True, True, 3, "SendChan")
    assert back == numbers and isinstance(back, goslings.SendChan)


def test_a_channel_comes_home_as_itself(workers: Processes) -> None:
    numbers = chan[int]()
    assert workers.go(lambda: numbers).result(SECONDS) is numbers
    assert workers.go(lambda: [numbers, numbers.receiver()]).result(SECONDS) == [numbers, numbers]


def test_it_is_one_object_there(workers: Processes) -> None:
    numbers = chan[int]()
    assert workers.go(lambda a, b: a is b and a == b.sender(), numbers, [numbers][0]).result(SECONDS)


def test_channels_travel_through_channels(workers: Processes) -> None:
    requests = chan[Any]()

    def serve() -> None:
        for number, answer in requests:
            answer.send(number + 1)

    goroutine = workers.go(serve)
    for number in range(10):
        answer = chan[int]()
        requests.send((number, answer), SECONDS)
        assert answer.recv(SECONDS) == number + 1
    requests.close()
    goroutine.result(SECONDS)


def test_a_channel_of_a_worker_is_used_here_and_in_another_worker(workers: Processes) -> None:
    gate = chan[None]()

    def make() -> Any:
        mine = goslings.chan(2)
        goslings.go(lambda: [mine.send(n) for n in range(20)] and mine.close())
        return mine

    made = workers.go(make).result(SECONDS)
    assert made.capacity == 2 and made.recv(SECONDS) == 0

    def consume() -> list[int]:
        gate.recv_ok()
        return list(made)

    consumers = [workers.go(consume) for _ in range(2)]
    gate.close()
    values = [goroutine.result(SECONDS) for goroutine in consumers]
    assert sorted(values[0] + values[1]) == list(range(1, 20))
    assert all(part == sorted(part) for part in values)


def test_goroutine_finished_and_timers_travel(workers: Processes) -> None:
    gate = chan[None]()
    local = go(gate.recv_ok)
    there = workers.go(lambda done: done.recv_ok(), local.finished)
    gate.close()
    assert there.result(SECONDS) == (None, False)
    assert isinstance(workers.go(lambda tick: tick.recv(), goslings.after(0.01)).result(SECONDS), float)


def test_pickling_a_channel_elsewhere_is_an_error(workers: Processes) -> None:
    import pickle

    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(chan())
    numbers = chan[int]()

    def there() -> str:
        import copy
        import pickle

        told = []
        for call in (pickle.dumps, copy.copy, copy.deepcopy):
            try:
                call(numbers)
            except TypeError as error:
                told.append(str(error))
        return " / ".join(told)

    assert "processes of a pool" in workers.go(there).result(SECONDS)


def test_unpicklable_values_are_errors_of_the_sender(workers: Processes) -> None:
    numbers = chan[Any](1)

    def there() -> str:
        try:
            numbers.send({"a": threading.Lock()})
        except TypeError as error:
            return str(error)
        return "sent"

    assert workers.go(there).result(SECONDS).startswith("value['a']: cannot pickle")
    assert len(numbers) == 0


def test_a_local_value_that_cannot_travel_is_told_to_the_receiver(workers: Processes) -> None:
    numbers = chan[Any](1)
    numbers.send([threading.Lock()])
    with pytest.raises(TypeError, match=r"value\[0\]: cannot pickle"):
        workers.go(numbers.recv).result(SECONDS)


# select


def test_select_among_channels_of_the_parent(workers: Processes) -> None:
    a, b, c = chan[int](1), chan[int](1), chan[int](1)
    b.send(7)

    def there() -> list[Any]:
        told: list[Any] = []
        picked = select(recv(a), recv(b), timeout=30)
        assert isinstance(picked, Selected)
        told.append((picked.index, picked.value, picked.ok, picked.chan is b))
        told.append(select(recv(a), recv(b), recv(None), timeout=0))
        told.append(select(recv(a), timeout=0.01))
        picked = select(recv(a), send(c, 3))
        told.append((picked.index, picked.value, picked.ok))
        return told

    assert workers.go(there).result(SECONDS) == [(1, 7, True, True), None, None, (1, None, True)]
    assert c.recv(SECONDS) == 3


def test_select_on_closed_channels_there(workers: Processes) -> None:
    closed = chan[int]()
    closed.close()

    def there() -> list[Any]:
        picked = select(recv(closed), timeout=30)
        told: list[Any] = [(picked.value, picked.ok)]  # type: ignore[union-attr]
        try:
            select(recv(None), send(closed, 1), timeout=30)
        except Closed as error:
            told.append(str(error))
        return told

    assert workers.go(there).result(SECONDS) == [(None, False), "send on closed channel (case 1 of select)"]


def test_wrong_directions_in_select(workers: Processes) -> None:
    numbers = chan[int]()

    def there() -> list[str]:
        told = []
        for case in (lambda: recv(numbers.sender()), lambda: send(numbers.receiver(), 1)):
            try:
                case()
            except TypeError as error:
                told.append(str(error))
        return told

    assert workers.go(there).result(SECONDS) == [
        "cannot receive from a SendChan: it only sends",
        "cannot send to a RecvChan: it only receives",
    ]


def test_select_mixes_local_and_foreign_channels(workers: Processes) -> None:
    foreign, order = chan[str](), chan[str]()

    def there() -> list[Any]:
        local = goslings.chan()
        told = []
        for turn in order:
            if turn == "local":
                goslings.go(local.send, "from here")
            picked = select(recv(local), recv(foreign), timeout=50)
            told.append((picked.index, picked.value))
        return told

    goroutine = workers.go(there)
    for turn in ("local", "foreign", "foreign", "local"):
        order.send(turn, SECONDS)
        if turn == "foreign":
            foreign.send("from there", SECONDS)
    order.close()
    assert goroutine.result(SECONDS) == [(0, "from here"), (1, "from there"), (1, "from there"), (0, "from here")]


def test_aselect_mixes_them_too(workers: Processes) -> None:
    foreign = chan[int](1)

    async def there() -> list[Any]:
        local = goslings.chan(1)
        told = []
        for _ in range(2):
            picked = await goslings.aselect(recv(local), recv(foreign), timeout=50)
            told.append((picked.index, picked.value))  # type: ignore[union-attr]
            await local.asend(2)
        return told

    goroutine = workers.go(there)
    foreign.send(1)
    assert goroutine.result(SECONDS) == [(1, 1), (0, 2)]


def test_mixed_selects_with_sends_at_two_places_meet(workers: Processes) -> None:
    """Each has sends and receives at both places; every value sent is received once."""
    here = chan[int]()
    made = workers.go(lambda: goslings.chan()).result(SECONDS)

    def play(first: int) -> tuple[list[int], list[int]]:
        sent, received = [], []
        for value in range(first, first + 25):
            # Alone at the end: what was put back may be had by who sent it.
            picked = select(send(here, value), send(made, value), recv(here), recv(made), timeout=0.3)
            if picked is not None and picked.index < 2:
                sent.append(value)
            elif picked is not None:
                received.append(picked.value)
        return sent, received

    there, local = workers.go(play, 0), go(play, 1000)
    (sent, received), (more_sent, more_received) = there.result(SECONDS), local.result(SECONDS)
    for channel in (here, made):
        while (value := channel.try_recv(None)) is not None:
            received.append(value)
    assert Counter(sent + more_sent) == Counter(received + more_received)
    assert sent + more_sent


# Exact accounting


@pytest.mark.parametrize("capacity", [0, 5])
def test_storms_of_timeouts_and_cancels_lose_and_double_nothing(
    workers: Processes, capacity: int, rng: random.Random
) -> None:
    values, seeds = chan[int](capacity), [rng.randrange(2**32) for _ in range(8)]

    def produce(first: int, seed: int) -> list[int]:
        rng = random.Random(seed)
        sent = []
        for number in range(first, first + 60):
            try:
                if rng.random() < 0.5:
                    values.send(number, rng.choice([0, 0.0005, 0.005]))
                elif goslings.select(goslings.send(values, number), timeout=rng.choice([0, 0.001])) is None:
                    continue
                sent.append(number)
            except TimeoutError:
                continue
        return sent

    def consume(seed: int, stop: Any) -> list[int]:
        rng = random.Random(seed)
        got = []
        own = goslings.chan(1)
        while True:
            kind = rng.random()
            try:
                if kind < 0.4:
                    got.append(values.recv(rng.choice([0, 0.0005, 0.005])))
                    continue
                picked = goslings.select(
                    goslings.recv(values), goslings.recv(stop), goslings.recv(own), timeout=rng.choice([0.001, 0.02])
                )
            except TimeoutError:
                continue
            if picked is not None and picked.index == 0:
                got.append(picked.value)
            elif picked is not None:
                return got

    stop = chan[None]()
    consumers = [workers.go(consume, seeds[0], stop), workers.go(consume, seeds[1], stop), go(consume, seeds[2], stop)]
    producers = [workers.go(produce, 1000 * k, seeds[3 + k]) for k in range(3)] + [go(produce, 5000, seeds[6])]
    sent = [value for producer in producers for value in producer.result(SECONDS)]
    until(lambda: len(values) == 0, SECONDS)
    stop.close()
    got = [value for consumer in consumers for value in consumer.result(SECONDS)]
    assert Counter(got) == Counter(sent)


def test_cancelled_goroutines_lose_nothing(workers: Processes, rng: random.Random) -> None:
    values, got = chan[int](2), chan[int](1000)

    def consume() -> None:
        while True:
            value = values.recv()
            got.send(value)

    pause = [rng.random() * 0.004 for _ in range(15)]
    sender = go(lambda: [values.send(number) for number in range(60)])
    for seconds in pause:
        goroutine = workers.go(consume)
        goslings.sleep(seconds)
        goroutine.cancel()
        assert goroutine.join(SECONDS)
    last = workers.go(consume)
    sender.result(SECONDS)
    # A consumer may be cancelled in `got.send`, with a value in its hands: those are its own.
    until(lambda: len(values) == 0 and not any(w.peer._receipts for w in workers._workers), SECONDS)
    last.cancel()
    last.join(SECONDS)
    seen = [got.recv() for _ in range(len(got))]
    assert len(seen) == len(set(seen))
    assert len(seen) >= 60 - len(pause) - 1


def test_references_that_are_dropped_are_given_back(workers: Processes) -> None:
    def lent() -> int:
        # In both workers, since each has the other half of the calls.
        for goroutine in [workers.go(gc.collect) for _ in range(4)]:
            goroutine.result(SECONDS)
        return sum(len(worker.peer._exports) for worker in workers._workers)

    before = lent()
    for _ in range(20):
        numbers = chan[int](1)
        workers.go(lambda ch: ch.send(1), numbers).result(SECONDS)
        assert numbers.recv(SECONDS) == 1
    del numbers
    until(lambda: lent() <= before, SECONDS)


# Streams: after a few sends on a channel with a buffer, sends need no answer.


def streaming(workers: Processes) -> bool:
    return any(lent.credit is not None for worker in workers._workers for lent in list(worker.peer._exports.values()))


def test_a_stream_comes_in_order_and_whole(workers: Processes) -> None:
    values, seen = chan[Any](32), []

    def produce() -> None:
        for number in range(500):
            values.send(number if number % 3 else {"number": number})
        values.close()

    goroutine = workers.go(produce)
    seen_streaming = False
    for value in values:
        seen.append(value if isinstance(value, int) else value["number"])
        seen_streaming = seen_streaming or streaming(workers)
    goroutine.result(SECONDS)
    assert seen == list(range(500)) and seen_streaming


def test_a_stream_waits_when_the_buffer_is_full(workers: Processes) -> None:
    values, told = chan[int](16), chan[int](1)

    def produce() -> None:
        for number in range(40):
            values.send(number)
        told.send(1)

    goroutine = workers.go(produce)
    until(lambda: len(values) == 16, SECONDS)
    parked_elsewhere(workers, values)
    assert told.try_recv(None) is None
    assert [values.recv(SECONDS) for _ in range(40)] == list(range(40))
    goroutine.result(SECONDS)


def test_what_a_stream_was_promised_is_free_for_others(workers: Processes) -> None:
    """The buffer is as large as ever for everybody, although a sender elsewhere may fill it without asking."""
    values, gate = chan[int](16), chan[None]()

    def produce() -> bool:
        for number in range(12):
            values.send(number)
        gate.recv_ok()
        try:
            values.send(12, 0.01)
        except TimeoutError:
            return True
        return False

    goroutine = workers.go(produce)
    assert [values.recv(SECONDS) for _ in range(12)] == list(range(12))
    assert streaming(workers)
    assert [values.try_send(number) for number in range(17)] == [True] * 16 + [False]
    assert len(values) == 16
    gate.close()
    assert goroutine.result(SECONDS), "nor may the stream have more"
    assert [values.recv() for _ in range(16)] == list(range(16))


def test_the_last_values_of_a_stream_come_before_the_end(workers: Processes) -> None:
    for _ in range(20):
        values = chan[int](64)

        def produce(values: Any = values) -> int:
            sent = 0
            try:
                while True:
                    values.send(sent)
                    sent += 1
            except Closed:
                return sent

        goroutine = workers.go(produce)
        got = [values.recv(SECONDS) for _ in range(20)]
        values.close()
        got.extend(values)
        assert got == list(range(goroutine.result(SECONDS)))


def test_two_streams_and_a_local_sender_share_a_buffer(workers: Processes) -> None:
    values = chan[int](16)

    def produce(first: int) -> None:
        for number in range(first, first + 300):
            values.send(number)

    goroutines = [workers.go(produce, 0), workers.go(produce, 1000), go(produce, 2000)]
    got = [values.recv(SECONDS) for _ in range(900)]
    results(goroutines)
    for first in (0, 1000, 2000):
        assert [value for value in got if first <= value < first + 1000] == list(range(first, first + 300))
    assert values.try_recv(None) is None
