"""Receiving from a channel of another process without asking: copies that come ahead, and who may claim them."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any

import goslings
import pytest
from goslings import Cancelled, Closed, Selected, WouldBlock, chan, go, recv, select
from goslings._goslings import Link, Segment, _Claims, _Lease
from goslings.processes import Processes, WorkerDied
from helpers import check_child, count, parked, parked_elsewhere, results, until

SECONDS = 60.0


@pytest.fixture(scope="module")
def workers() -> Iterator[Processes]:
    with Processes(2) as pool:
        yield pool


def take_ahead(values: Any, number: int) -> list[Any]:
    """In a worker: receives so many, and then until copies of what comes next are here."""
    got = [values.recv(SECONDS) for _ in range(number)]
    until(lambda: values._origin.claims is not None and len(values._origin.claims) > 0, SECONDS)
    return got


def filled(capacity: int, number: int) -> Any:
    """A channel with so many numbers in it."""
    values = chan[Any](capacity)
    for value in range(number):
        assert values.try_send(value)
    return values


@pytest.mark.parametrize("capacity", [8, 100, 2000])
def test_values_go_there_in_order_and_whole(workers: Processes, capacity: int) -> None:
    values = chan[Any](capacity)

    def consume() -> tuple[list[Any], bool]:
        return list(values), values._origin.claims is not None

    goroutine = workers.go(consume)
    sent: list[Any] = []
    for number in range(1000):
        kind = number % 7
        sent.append(number if kind < 4 else [f"{number}", {"number": number}, (number, b"x" * number)][kind - 4])
        values.send(sent[-1], SECONDS)
    values.close()
    got, leased = goroutine.result(SECONDS)
    assert got == sent and leased


def test_what_is_claimed_needs_no_answer(workers: Processes) -> None:
    values, gate = filled(100, 60), chan[None]()

    def consume() -> tuple[list[int], int, list[int]]:
        got = take_ahead(values, 8)
        asked = values._origin.peer._numbers.load()
        more = [values.recv() for _ in range(30)]
        asked = values._origin.peer._numbers.load() - asked
        gate.recv()
        return got, asked, more

    goroutine = workers.go(consume)
    until(lambda: len(values) == 22, SECONDS)
    gate.send(None, SECONDS)
    got, asked, more = goroutine.result(SECONDS)
    assert got + more == list(range(38)) and asked == 0
    assert [values.recv() for _ in range(22)] == list(range(38, 60)), "what was not claimed is here, in order"


def test_a_buffer_holds_what_nobody_has_claimed(workers: Processes) -> None:
    values, gate = filled(16, 16), chan[None]()

    def consume() -> list[int]:
        got = take_ahead(values, 8)
        gate.send(None)
        gate.recv()
        return got + [values.recv() for _ in range(3)]

    goroutine = workers.go(consume)
    gate.recv(SECONDS)
    assert len(values) == 8 and values.capacity == 16
    assert [values.try_send(number) for number in range(16, 25)] == [True] * 8 + [False]
    gate.send(None, SECONDS)
    assert goroutine.result(SECONDS) == list(range(11))
    assert len(values) == 13
    assert [values.try_send(number) for number in range(24, 28)] == [True] * 3 + [False]
    assert [values.try_recv(None) for _ in range(17)] == [*range(11, 27), None]


def test_who_waits_to_send_goes_on_when_something_is_claimed(workers: Processes) -> None:
    values, gate = filled(16, 16), chan[None]()

    def consume() -> list[int]:
        got = take_ahead(values, 8)
        gate.send(None)
        for _ in range(20):
            gate.recv()
            got.append(values.recv())
        return got

    goroutine = workers.go(consume)
    gate.recv(SECONDS)
    for number in range(16, 24):
        assert values.try_send(number)
    for number in range(24, 44):
        sender = go(values.send, number)
        parked(sender)
        gate.send(None, SECONDS)
        assert sender.join(SECONDS), "one claim, one sender"
    assert goroutine.result(SECONDS) == list(range(28))
    assert [values.recv() for _ in range(16)] == list(range(28, 44))


def test_each_value_goes_to_one_receiver_wherever_they_are(workers: Processes) -> None:
    values, seen, number = chan[int](64), chan[list[int]](8), count(3000)

    def consume() -> None:
        seen.send(list(values))

    def consume_somehow() -> None:
        got: list[int] = []
        never = chan[int]()
        while True:
            match len(got) % 3:
                case 0:
                    value, ok = values.recv_ok()
                case 1:
                    selected = select(recv(values), recv(never))
                    value, ok = selected.value, selected.ok
                case _:
                    try:
                        value, ok = values.try_recv(), True
                    except WouldBlock:
                        value, ok = values.recv_ok(SECONDS)
                    except Closed:
                        ok = False
            if not ok:
                break
            got.append(value)
        seen.send(got)

    goroutines = [workers.go(consume) for _ in range(2)] + [workers.go(consume_somehow) for _ in range(2)]
    goroutines += [go(consume), go(consume_somehow)]
    for value in range(number):
        values.send(value, SECONDS)
    values.close()
    results(goroutines)
    got = [seen.recv() for _ in range(6)]
    assert Counter(value for part in got for value in part) == Counter(range(number))
    assert all(part == sorted(part) for part in got), "first in, first out for each of them"


def test_a_slow_worker_holds_one_job_and_the_others_are_done_elsewhere(workers: Processes) -> None:
    jobs, done, gate = chan[str](300), chan[tuple[int, str]](400), chan[None]()

    def work() -> int:
        for job in jobs:
            if job == "long":
                done.send((os.getpid(), "begun"))
                gate.recv_ok()
            done.send((os.getpid(), job))
        assert jobs._origin.claims is not None, "copies came ahead"
        return os.getpid()

    goroutines = [workers.go(work) for _ in range(2)]
    for _ in range(40):
        # In turns, since both wait: both have received often enough.
        parked_elsewhere(workers, jobs, 2)
        jobs.send("short")
        done.recv(SECONDS)
    for job in ["short"] * 20 + ["long"] + ["short"] * 200:
        assert jobs.try_send(job)
    seen = [done.recv(SECONDS) for _ in range(221)]
    slow = [pid for pid, job in seen if job == "begun"]
    assert len(slow) == 1
    after = seen[seen.index((slow[0], "begun")) + 1 :]
    assert slow[0] not in {pid for pid, _ in after}
    assert len(jobs) == 0, "nothing waits for the slow one"
    gate.close()
    jobs.close()
    assert done.recv(SECONDS) == (slow[0], "long")
    assert len({goroutine.result(SECONDS) for goroutine in goroutines}) == 2


def test_a_worker_that_is_killed_takes_nothing_along_that_it_had_not_received() -> None:
    with Processes(2) as workers:
        for _ in range(count(5)):
            values, told = filled(200, 200), chan[tuple[int, list[int]]](1)

            def consume(values: Any = values, told: Any = told) -> None:
                got = take_ahead(values, 8) + [values.recv() for _ in range(5)]
                told.send((os.getpid(), got))
                chan[None]().recv()

            goroutine = workers.go(consume)
            pid, got = told.recv(SECONDS)
            assert len(values) == 187
            sender = go(lambda values=values: [values.send(number) for number in range(200, 230)])
            parked(sender)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(WorkerDied):
                goroutine.result(SECONDS)
            assert got == list(range(13))
            assert [values.recv(SECONDS) for _ in range(217)] == list(range(13, 230))
            assert sender.join(SECONDS) and len(values) == 0


def test_storms_of_killed_receivers_lose_only_what_they_had_received(rng: random.Random) -> None:
    """At the end each value has come through, or was in the hands of a goroutine that died: at most one each."""
    with Processes(2) as workers:
        source, sink, enough = chan[int](64), chan[int](64), chan[None]()

        def move() -> None:
            for value in source:
                sink.send(value)

        def keep_moving() -> int:
            died = 0
            while True:
                try:
                    workers.go(move).result(SECONDS)
                    return died
                except WorkerDied:
                    died += 1

        def produce() -> int:
            number = 0
            while not enough.closed:
                source.send(number, SECONDS)
                number += 1
            return number

        def leased() -> bool:
            exports = [list(worker.peer._exports.values()) for worker in list(workers._workers)]
            return any(lent.lease is not None and lent.copied > 0 for some in exports for lent in some)

        movers = [go(keep_moving) for _ in range(4)]
        producer = go(produce)
        got: list[int] = []
        consumer = go(lambda: got.extend(sink))
        for _ in range(count(8)):
            until(leased, SECONDS)
            goslings.sleep(rng.random() * 0.02)
            ready = [worker for worker in workers._workers if worker.ready]
            if ready:
                rng.choice(ready).process.kill()
        until(leased, SECONDS)
        enough.close()
        number = producer.result(SECONDS)
        source.close()
        died = sum(mover.result(SECONDS) for mover in movers)
        sink.close()
        consumer.result(SECONDS)
    assert max(Counter(got).values()) == 1, "doubled"
    missing = set(range(number)) - set(got)
    assert len(missing) <= died, (missing, died)


def test_what_was_sent_before_the_end_is_received_before_it(workers: Processes) -> None:
    for _ in range(10):
        values, gate = filled(64, 40), chan[None]()

        def consume(values: Any = values, gate: Any = gate) -> list[int]:
            got = take_ahead(values, 8)
            gate.send(None)
            gate.recv_ok()
            got += list(values)
            with pytest.raises(Closed):
                values.recv()
            with pytest.raises(Closed):
                values.try_recv(None)
            assert values.recv_ok() == (None, False) and values.closed
            return got

        goroutine = workers.go(consume)
        gate.recv(SECONDS)
        values.close()
        gate.close()
        assert goroutine.result(SECONDS) == list(range(40))


def test_timeouts_and_cancellation_take_nothing(workers: Processes) -> None:
    values, gate = filled(64, 12), chan[str]()

    def consume() -> list[Any]:
        got: list[Any] = take_ahead(values, 8)
        got += [values.recv(0.0) for _ in range(4)]
        with pytest.raises(TimeoutError):
            values.recv(0.001)
        with pytest.raises(TypeError):
            values.recv("soon")
        with pytest.raises(WouldBlock):
            values.try_recv()
        gate.send("empty")
        gate.recv()

        def cancelled() -> Any:
            goslings.current().cancel()
            try:
                return values.recv()
            except Cancelled:
                return "cancelled"

        got.append(values.recv())
        until(lambda: len(values._origin.claims) > 0, SECONDS)
        got.append(go(cancelled).result())
        got.append(values.recv())
        return got

    goroutine = workers.go(consume)
    assert gate.recv(SECONDS) == "empty"
    for number in range(12, 20):
        values.send(number)
    gate.send("filled", SECONDS)
    assert goroutine.result(SECONDS) == [*range(13), "cancelled", 13]
    assert [values.recv() for _ in range(6)] == list(range(14, 20))


def test_all_ways_to_receive_keep_the_order(workers: Processes) -> None:
    values, never = filled(300, 208), chan[int]()

    def consume() -> list[Any]:
        got = take_ahead(values, 8)
        near = chan[int]()

        async def awaited() -> list[Any]:
            some = [await values.arecv(), (await values.arecv_ok())[0], await values.arecv(SECONDS)]
            async for value in values:
                return [*some, value]
            return some

        for _ in range(10):
            got.append(values.recv())
            got.append(values.recv_ok()[0])
            got.append(values.try_recv())
            for cases in ([recv(values)], [recv(values), recv(never)], [recv(near), recv(values), recv(never)]):
                match select(*cases, timeout=SECONDS):
                    case Selected(_, value, True):
                        got.append(value)
            got += go(awaited).result(SECONDS)
            got += asyncio.run(awaited())
            for value in values:
                got.append(value)
                break
        return got

    # Three ways, three selects, four values each of two goroutines of two kinds, and an iteration, ten times.
    assert workers.go(consume).result(SECONDS) == list(range(8 + 10 * (3 + 3 + 4 + 4 + 1)))


def test_what_cannot_go_ahead_comes_in_its_turn(workers: Processes) -> None:
    values, inner = chan[Any](100), chan[int](1)

    def consume() -> list[str]:
        seen = []
        while True:
            try:
                value, ok = values.recv_ok()
            except Exception as error:
                seen.append(type(error).__name__)
                continue
            if not ok:
                return seen
            if isinstance(value, bytes):
                seen.append(f"{len(value)} bytes")
            elif isinstance(value, int | str):
                seen.append(str(value)[:20])
            elif isinstance(value, list):
                seen.append(f"list of {len(value)}")
            else:
                value["inner"].send(1)
                seen.append("channel")

    class Unwilling:
        def __reduce__(self) -> Any:
            raise ZeroDivisionError("not today")

    sent: list[Any] = [*range(20), b"x" * 100_000, 1, list(range(20_000)), 2, {"inner": inner}, [3]]
    sent += [Unwilling(), 4, [5]]
    sent += [10**30, "\u00e9" * 5000, True, 7]
    for value in sent:
        values.send(value)
    values.close()
    expected = [*map(str, range(20)), "100000 bytes", "1", "list of 20000", "2", "channel", "list of 1"]
    expected += ["TypeError", "4", "list of 1", str(10**30)[:20], "\u00e9" * 20, "True", "7"]
    assert workers.go(consume).result(SECONDS) == expected
    assert inner.recv(SECONDS) == 1


def test_a_value_that_cannot_be_rebuilt_is_told_to_whoever_received_it(workers: Processes) -> None:
    values = chan[Any](100)

    class Broken:
        def __reduce__(self) -> Any:
            return int, ("no number",)

    for value in [*range(10), Broken(), 10]:
        values.send(value)
    values.close()

    def consume() -> list[Any]:
        got: list[Any] = take_ahead(values, 8)
        while True:
            try:
                got.append(values.recv())
            except ValueError:
                got.append("broken")
            except Closed:
                return got

    assert workers.go(consume).result(SECONDS) == [*range(10), "broken", 10]


def test_what_is_put_back_comes_first_again(workers: Processes) -> None:
    """A receive here that is cancelled at the last moment, while there are copies there."""
    values, gate = filled(64, 40), chan[None]()

    def consume() -> list[int]:
        got = take_ahead(values, 8)
        gate.send(None)
        gate.recv()
        return got + [values.recv() for _ in range(10)]

    goroutine = workers.go(consume)
    gate.recv(SECONDS)
    first = values.recv()
    goslings._goslings._put_back(values, first)
    assert len(values) == 32
    gate.send(None, SECONDS)
    assert goroutine.result(SECONDS) == list(range(18))
    assert [values.recv() for _ in range(22)] == list(range(18, 40))


def test_nothing_stays_behind(workers: Processes) -> None:
    from goslings.processes import _leases

    def run() -> None:
        values = filled(64, 40)
        assert workers.go(take_ahead, values, 20).result(SECONDS) == list(range(20))
        assert [values.recv() for _ in range(20)] == list(range(20, 40))

    run()
    before = len(_leases._leases)

    def collect() -> int:
        for goroutine in [workers.go(gc.collect) for _ in range(4)]:
            goroutine.result(SECONDS)
        gc.collect()
        return len(_leases._leases)

    for _ in range(5):
        run()
    until(lambda: collect() <= before, SECONDS)
    until(lambda: collect() == 0, SECONDS)


def test_a_forked_child_claims_nothing() -> None:
    check_child(
        """
        import os, warnings
        from goslings import chan
        from goslings.processes import Processes

        warnings.simplefilter("ignore", DeprecationWarning)

        def take(values, gate):
            got = [values.recv(60) for _ in range(10)]
            gate.send(None)
            gate.recv()
            return got + [values.recv(60) for _ in range(30)]

        if __name__ == "__main__":
            values, gate = chan(64), chan()
            for number in range(40):
                values.send(number)
            with Processes(1) as workers:
                goroutine = workers.go(take, values, gate)
                gate.recv(60)
                child = os.fork()
                if child == 0:
                    got = [values.try_recv() for _ in range(30)]
                    os._exit(got != list(range(10, 40)) or len(values) != 0)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                gate.send(None, 60)
                assert goroutine.result(60) == list(range(40))
        """
    )


# Frames of copies


class Held:
    """A channel of this process, its lease, and the claims of somebody elsewhere."""

    def __init__(self, capacity: int = 64) -> None:
        a, b = socket.socketpair()
        self.link, self.home = Link(a.detach()), Link(b.detach())
        self.values = chan[Any](capacity)
        self.lease = _Lease(self.values, Segment(4096))
        self.told: list[None] = []
        page = Segment.from_fd(os.dup(self.lease.segment.fileno()))
        self.claims = _Claims(page, self.link, b"more", lambda: self.told.append(None), lambda data: ("loaded", data))
        self.copied = 0

    def copy(self, most: int = 1000) -> bytes | None:
        first, found, frame, values, _ = self.lease.values(7, self.copied, most, False)
        assert (frame is None) == bool(values)
        self.copied = first + found
        return frame

    def close(self) -> None:
        self.lease.end()
        self.claims.close()
        self.link.close()
        self.home.close()


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.close()


def test_plain_values_are_copied_as_they_are(held: Held) -> None:
    plain = [None, True, False, 0, -1, 2**63 - 1, -(2**63), 0.5, b"", b"\0\xff" * 50, "", "na\xefve \U0010ffff"]
    for value in plain:
        assert held.values.try_send(value)
    frame = held.copy()
    assert frame is not None and _Claims.channel_in(frame) == 7
    held.claims.add(frame)
    assert len(held.claims) == len(plain)
    for value in plain:
        got = held.claims.claim()
        assert type(got) is type(value) and got == value
    assert held.claims.claim() is held.claims, "there are no more"
    assert held.values.try_recv(None) is None


def test_what_is_no_plain_value_is_pickled_in_its_place(held: Held) -> None:
    for value in (1, (1, 2), 2**64, "\ud800", b"x"):
        assert held.values.try_send(value)
    assert held.copy() is None
    first, found, _, values, _ = held.lease.values(7, 0, 1000, False)
    assert (first, found, values) == (0, 5, [1, (1, 2), 2**64, "\ud800", b"x"])
    with pytest.raises(TypeError):
        held.lease.frame(7, first, values, [])
    held.claims.add(held.lease.frame(7, first, [1, b"a", b"b", b"c", b"x"], [1, 2, 3]))
    got = [held.claims.claim() for _ in range(5)]
    assert got == [1, ("loaded", b"a"), ("loaded", b"b"), ("loaded", b"c"), b"x"]


def value_in_frame(tag: bytes, body: bytes, length: int | None = None) -> bytes:
    return b"\0" + tag + b"\0\0" + struct.pack("<I", len(body) if length is None else length) + body


def frame_of(*values: bytes, first: int = 0) -> bytes:
    return struct.pack("<QQ", 7 << 16 | 2, first) + b"".join(values)


GARBAGE = {
    "no head": b"\x02",
    "half a head": frame_of()[:15],
    "half a value": frame_of(b"\0b\0"),
    "cut off": frame_of(value_in_frame(b"b", b"abc", 4)),
    "a huge length": frame_of(value_in_frame(b"b", b"abc", 2**32 - 1)),
    "an unknown type": frame_of(value_in_frame(b"?", b"abc")),
    "no UTF-8": frame_of(value_in_frame(b"s", b"\xc3")),
    "a short number": frame_of(value_in_frame(b"i", b"\0" * 7)),
    "no number": frame_of(value_in_frame(b"N", b""), value_in_frame(b"N", b""), first=2**64 - 1),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_frames_that_are_none_are_refused_whole(held: Held, what: str) -> None:
    assert held.values.try_send("here")
    with pytest.raises(ConnectionError, match="does not follow the rules"):
        held.claims.add(GARBAGE[what])
    assert len(held.claims) == 0 and held.claims.claim() is held.claims
    assert held.values.try_recv() == "here"


def test_random_frames_are_values_or_refused(held: Held) -> None:
    dice = random.Random(int(os.environ.get("GOSLINGS_SEED", "7")))
    refused = 0
    for _ in range(count(300)):
        values = [
            value_in_frame(bytes([dice.choice(b"NTFifbsP")]), dice.randbytes(dice.choice([0, 8]))) for _ in range(5)
        ]
        frame = bytearray(frame_of(*values, first=dice.choice([0, 1, 2**63])))
        for _ in range(dice.randrange(3)):
            frame[dice.randrange(len(frame))] = dice.randrange(256)
        try:
            held.claims.add(bytes(frame))
        except ConnectionError:
            refused += 1
        assert _Claims.channel_in(bytes(frame)) is None or frame[0] == 2
    assert refused
    while held.claims.claim() is not held.claims:
        pass


def test_copies_in_any_order_are_claimed_in_theirs(held: Held) -> None:
    for value in range(60):
        assert held.values.try_send(value)
    frames = [held.copy(20) for _ in range(3)]
    for place in (2, 0, 1, 0):
        frame = frames[place]
        assert frame is not None
        held.claims.add(frame)
    assert [held.claims.claim() for _ in range(60)] == list(range(60))
    assert held.claims.claim() is held.claims


def test_a_receiver_that_waits_for_copies_takes_nothing_when_it_is_cancelled(workers: Processes) -> None:
    """Again and again at other moments: each value is received once, by somebody who was not cancelled."""
    values = chan[int](256)

    def consume() -> list[int]:
        got: list[int] = []
        dice = random.Random(1)

        def take() -> None:
            for value in values:
                got.append(value)

        while not values.closed or len(values):
            taker = go(take)
            goslings.sleep(dice.random() * 0.002)
            taker.cancel()
            assert taker.join(SECONDS)
        return got

    goroutine = workers.go(consume)
    for value in range(count(3_000)):
        values.send(value)
    values.close()
    assert goroutine.result(SECONDS) == list(range(count(3_000)))


def test_the_first_value_after_a_pause_comes_at_once(workers: Processes) -> None:
    """A value that nothing follows: whoever receives it sleeps by then, and must not wait for company."""
    values, back = chan[Any](64), chan[Any](64)

    def echo() -> None:
        for value in values:
            back.send(value)

    goroutine = workers.go(echo)
    for turn in range(count(40)):
        for value in range(turn % 3 * 30 + 1):
            values.send((turn, value) if turn % 2 else value)
        for value in range(turn % 3 * 30 + 1):
            assert back.recv(SECONDS) == ((turn, value) if turn % 2 else value)
        goslings.sleep(0.002 * (turn % 4))
    values.close()
    goroutine.result(SECONDS)
