"""Streams between processes: values that are sent on credit, as records of the link."""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

import goslings
import pytest
from goslings import Cancelled, Closed, chan, go
from goslings._goslings import Link, Segment, _Credit, _Outflow, _Streams
from goslings.processes import Processes, WorkerDied
from helpers import count, parked, parked_elsewhere, results, state, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="links are made of Linux's memory files")

SECONDS = 60.0
PLAIN = [
    None,
    True,
    False,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    0.0,
    -0.0,
    1.5,
    math.inf,
    b"",
    b"\0\xff",
    "",
    "a",
    "naïve \U0010ffff",
]
"""Values that are written without pickle."""
OTHERS = [2**63, -(2**63) - 1, 10**40, "\ud800", ("a", 1), [1, [2]], {"a": b"b"}, {1}, 1j, bytearray(b"x")]


class Ends:
    """A stream between two ends of a link, both in this process, and what its reader says."""

    def __init__(self, capacity: int = 64, target: int = 64) -> None:
        a, b = socket.socketpair()
        self.home, self.away = Link(a.detach()), Link(b.detach())
        self.values = chan[Any](capacity)
        self.page = Segment(4096)
        self.failures: list[Exception] = []
        self.credit = _Credit(self.values, self.page, target)
        self.streams = _Streams(_loads, self.failures.append)
        self.streams.add(5, self.credit)
        self.outflow = _Outflow(self.away, 5)
        self.outflow.allow(Segment.from_fd(os.dup(self.page.fileno())))
        self.readers: list[goslings.Goroutine[Any]] = []
        self.credit.more()

    def reader(self) -> goslings.Goroutine[Any]:
        """Reads what is not of a stream, once."""
        self.readers.append(go(self.home._recv, self.streams))
        return self.readers[-1]

    def close(self) -> None:
        self.credit.end()
        self.home.close()
        self.away.close()
        for reader in self.readers:
            with contextlib.suppress(OSError, EOFError):
                reader.result(SECONDS)


def _loads(data: bytes) -> Any:
    if data == b"bad":
        raise ValueError("bad")
    return ("loaded", data)


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.close()


def record(body: bytes, tag: bytes = b"b", number: int = 5) -> bytes:
    return struct.pack("<Q", number << 16 | ord(tag) << 8 | 1) + body


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and repr(one) == repr(other)


def test_plain_values_come_as_they_were(ends: Ends) -> None:
    reader = ends.reader()
    for value in PLAIN:
        assert ends.outflow.send(value) is True
        assert same(ends.values.recv(SECONDS), value)
    assert ends.outflow.send(math.nan) is True
    assert math.isnan(ends.values.recv(SECONDS))
    ends.away.send([b"\x80 a frame"])
    assert reader.result(SECONDS) == (b"\x80 a frame", [])


def test_other_values_are_to_be_pickled(ends: Ends) -> None:
    class Text(str):
        pass

    for value in [*OTHERS, Text("a"), object()]:
        assert ends.outflow.send(value) is None
    ends.reader()
    assert ends.outflow.send_pickle(b"abc") is True
    assert ends.outflow.send_pickle(b"bad") is True
    assert ends.outflow.send(1) is True
    assert ends.values.recv(SECONDS) == ("loaded", b"abc")
    assert ends.values.recv(SECONDS) == 1, "what cannot be rebuilt is left out, and said"
    assert [str(error) for error in ends.failures] == ["bad"]


def test_without_credit_nothing_is_sent(ends: Ends) -> None:
    # Nobody reads: what is sent is in the link.
    assert [ends.outflow.send(number) for number in range(65)] == [True] * 64 + [False]
    assert _Outflow(ends.away, 5).send(1) is False, "no page"
    reader = ends.reader()
    assert [ends.values.recv(SECONDS) for _ in range(64)] == list(range(64))
    until(lambda: ends.outflow.send(64) is True, SECONDS)
    assert ends.values.recv(SECONDS) == 64
    ends.away.close()
    with pytest.raises(EOFError):
        reader.result(SECONDS)


def test_large_values_are_asked_for(ends: Ends) -> None:
    assert ends.outflow.send(b"x" * 4095) is True
    assert ends.outflow.send(b"x" * 4096) is False
    assert ends.outflow.send("é" * 2048) is False


def test_a_value_queues_behind_messages_that_wait(ends: Ends) -> None:
    ends.away._hold(True)
    queued = ends.outflow.send(b"later")
    assert queued == record(b"later")
    ends.away._hold(False)
    assert ends.away._post([queued], []) is True
    ends.reader()
    assert ends.values.recv(SECONDS) == b"later"


def test_a_full_link_gives_the_record_back() -> None:
    ends = Ends(4096, 4096)
    sent = 0
    while (told := ends.outflow.send(b"x" * 4000)) is True:
        sent += 1
    assert told == record(b"x" * 4000) and sent > 10
    reader = ends.reader()
    until(lambda: len(ends.values) == sent, SECONDS)
    assert ends.away._post([told], []) is True
    until(lambda: len(ends.values) == sent + 1, SECONDS)
    ends.away.close()
    with pytest.raises(EOFError):
        reader.result(SECONDS)
    ends.close()


def test_a_link_that_has_ended_is_asked(ends: Ends) -> None:
    ends.home.close()
    assert ends.outflow.send(1) is False
    ends.away.close()
    assert ends.outflow.send(1) is False


def test_what_came_before_the_end_is_received(ends: Ends) -> None:
    for number in range(50):
        assert ends.outflow.send(number) is True
    ends.away.close()
    with pytest.raises(EOFError):
        ends.home._recv(ends.streams)
    assert [ends.values.try_recv() for _ in range(50)] == list(range(50))


def test_values_are_in_their_channel_before_the_message_behind_them(ends: Ends) -> None:
    for turn in range(20):
        for number in range(turn):
            assert ends.outflow.send(number) is True
        ends.away.send([b"\x80"])
        assert ends.home._recv(ends.streams)[0] == b"\x80"
        assert [ends.values.try_recv() for _ in range(turn)] == list(range(turn))


def test_a_value_that_nothing_follows_wakes_a_reader_that_sleeps(ends: Ends) -> None:
    reader = ends.reader()
    for number in range(count(100)):
        until(lambda: state(reader) == "net read", SECONDS)
        assert ends.outflow.send(number) is True
        assert ends.values.recv(SECONDS) == number
    ends.away.close()
    with pytest.raises(EOFError):
        reader.result(SECONDS)


def test_values_and_messages_with_descriptors_share_the_room(ends: Ends) -> None:
    """Whoever sends a descriptor finds room first, then sends it, then writes: nobody else takes the room."""
    total = count(300)
    came: list[Any] = []

    def read() -> None:
        with contextlib.suppress(EOFError):
            while True:
                frame, fds = ends.home._recv(ends.streams)
                came.append(bytes(frame))
                for fd in fds:
                    os.close(fd)

    def send_values() -> None:
        for number in range(total):
            while (sent := ends.outflow.send(number)) is not True:
                if type(sent) is bytes:
                    ends.away.send([sent])
                    break
                goslings.gosched()

    def send_messages() -> None:
        for _ in range(total // 3):
            ends.away.send([b"\x80" + b"x" * 50_000], [0])

    reader, taker = go(read), go(lambda: [ends.values.recv(SECONDS) for _ in range(total)])
    results([go(send_values), go(send_messages), go(send_messages)])
    assert taker.result(SECONDS) == list(range(total))
    ends.away.close()
    reader.result(SECONDS)
    assert [len(frame) for frame in came] == [50_001] * (total // 3 * 2)


GARBAGE = {
    "cut off": b"\x01",
    "without a head": b"\x01b\0\0\0\0\0",
    "an unknown type": record(b"x", b"?"),
    "no UTF-8": record(b"\xc3", b"s"),
    "a surrogate": record(b"\xed\xa0\x80", b"s"),
    "a short number": record(b"\0" * 7, b"i"),
    "a long number": record(b"\0" * 9, b"f"),
    "None and more": record(b"\0", b"N"),
    "an unknown channel": record(b"x", number=6),
    "a huge number": record(b"x", number=2**48 - 1),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_ends_the_link_after_what_came_before_it(ends: Ends, what: str) -> None:
    assert ends.outflow.send("before") is True
    ends.away.send([GARBAGE[what]])
    with pytest.raises(ConnectionError, match="does not follow the rules"):
        ends.home._recv(ends.streams)
    assert ends.values.try_recv() == "before"
    with pytest.raises(BrokenPipeError):
        ends.home.send([b"x"])


def test_more_values_than_were_promised_are_garbage() -> None:
    ends = Ends(4, 4)
    for number in range(5):
        ends.away.send([record(struct.pack("<q", number), b"i")])
    with pytest.raises(ConnectionError, match="more values than were promised"):
        ends.home._recv(ends.streams)
    assert [ends.values.try_recv() for _ in range(4)] == [0, 1, 2, 3]
    ends.close()


def test_values_for_a_channel_that_is_not_lent_any_more_are_garbage(ends: Ends) -> None:
    ends.streams.remove(5)
    assert ends.outflow.send(1) is True
    with pytest.raises(ConnectionError, match="without credit"):
        ends.home._recv(ends.streams)


def test_random_records_are_values_or_garbage() -> None:
    dice = random.Random(int(os.environ.get("GOSLINGS_SEED", "5")))
    refused = 0
    for _ in range(count(200)):
        ends = Ends()
        try:
            for _ in range(20):
                tag = dice.choice([b"N", b"T", b"F", b"i", b"f", b"b", b"s", b"P", bytes([dice.randrange(256)])])
                body = dice.randbytes(dice.choice([0, 1, 7, 8, 9, 100]))
                frame = bytearray(record(body, tag, dice.choice([5, 5, 5, dice.randrange(2**48)])))
                del frame[dice.choice([len(frame), len(frame), dice.randrange(1, len(frame) + 1)]) :]
                ends.away.send([frame])
            ends.away.send([b"\x80 end"])
            assert ends.home._recv(ends.streams)[0] == b"\x80 end"
        except ConnectionError:
            refused += 1
        while ends.values.try_recv(ends) is not ends:
            pass
        ends.close()
    assert refused


# With worker processes


@pytest.fixture(scope="module")
def workers() -> Iterator[Processes]:
    with Processes(2) as pool:
        yield pool


def mixed(number: int) -> Any:
    """Plain, pickled, large, in turns; each says its number."""
    kinds = [
        number,
        str(number),
        b"%d" % number,
        float(number),
        (number, "tuple"),
        f"{number}:" + "x" * 5000,
        b"%d:" % number + b"x" * 100_000,
        [number, b"y" * 70_000],
    ]
    return kinds[number * 7 % 8]


@pytest.mark.parametrize("capacity", [8, 33, 512])
def test_values_of_all_kinds_stay_in_order(workers: Processes, capacity: int) -> None:
    values, total = chan[Any](capacity), count(400)

    def produce() -> None:
        for number in range(total):
            values.send(mixed(number))
        values.close()

    goroutine = workers.go(produce)
    for number, value in enumerate(values):
        assert value == mixed(number) and type(value) is type(mixed(number))
    goroutine.result(SECONDS)
    assert number == total - 1


def test_senders_of_a_process_each_stay_in_order(workers: Processes) -> None:
    """Many at once write to one link, with messages that have to wait for room in between."""
    values, total = chan[Any](64), count(300)

    def produce() -> None:
        def send_all(who: int) -> None:
            for number in range(total):
                values.send((who, number, b"x" * 20_000) if number % 50 == 49 else who * 1000 + number)

        for goroutine in [go(send_all, who) for who in range(4)]:
            goroutine.result()
        values.close()

    goroutine = workers.go(produce)
    seen: dict[int, list[int]] = {who: [] for who in range(4)}
    for value in values:
        who, number = value[:2] if isinstance(value, tuple) else divmod(value, 1000)
        seen[who].append(number)
    goroutine.result(SECONDS)
    assert seen == {who: list(range(total)) for who in range(4)}


def test_a_stream_is_awaited_as_well(workers: Processes) -> None:
    values, sent = chan[Any](64), [mixed(number) if number % 10 == 0 else number for number in range(count(500))]

    async def produce() -> None:
        for value in sent:
            await values.asend(value)

    goroutine = workers.go(produce)
    assert [values.recv(SECONDS) for _ in sent] == sent
    goroutine.result(SECONDS)


def test_what_was_sent_is_there_when_the_sender_ends(workers: Processes) -> None:
    for total in (9, 20, 64):
        values = chan[int](64)
        workers.go(lambda values=values, total=total: [values.send(number) for number in range(total)]).result(SECONDS)
        assert len(values) == total
        assert [values.try_recv() for _ in range(total)] == list(range(total))


def test_a_sender_that_waits_is_cancelled(workers: Processes) -> None:
    """Its value does not come; those before it do."""
    values, told = chan[int](16), chan[str](1)

    def produce() -> None:
        try:
            for number in range(100):
                values.send(number)
        except Cancelled:
            told.send("cancelled")
            raise

    goroutine = workers.go(produce)
    until(lambda: len(values) == 16, SECONDS)
    parked_elsewhere(workers, values)
    goroutine.cancel()
    assert told.recv(SECONDS) == "cancelled"
    assert goroutine.join(SECONDS)
    assert [values.try_recv() for _ in range(16)] == list(range(16))
    assert values.try_recv(None) is None


def test_a_cancelled_sender_hears_of_it_with_credit_left(workers: Processes) -> None:
    values, told = chan[int](1024), chan[int](1)

    def produce() -> None:
        number = 0
        try:
            while True:
                values.send(number)
                number += 1
        finally:
            told.send(number)

    goroutine = workers.go(produce)
    taker = go(lambda: list(values))
    goslings.sleep(0.05)
    goroutine.cancel()
    sent = told.recv(SECONDS)
    assert goroutine.join(SECONDS)
    values.close()
    assert taker.result(SECONDS) == list(range(sent))


def test_receivers_that_wait_get_what_comes_in_turn(workers: Processes) -> None:
    values, got = chan[int](32), chan[int](200)

    def take() -> None:
        for value in values:
            got.send(value)

    takers = [go(take) for _ in range(5)]
    parked(*takers)

    def produce() -> None:
        for number in range(200):
            values.send(number)
        values.close()

    workers.go(produce).result(SECONDS)
    results(takers)
    assert sorted(got.recv() for _ in range(200)) == list(range(200))


def test_a_producer_that_is_killed_in_the_middle_loses_nothing_that_it_had_sent() -> None:
    """It counts what it has sent in shared memory; at most the value that it was about to send is uncertain."""
    for turn in range(count(5)):
        with Processes(1) as workers:
            values, going = chan[int](256), chan[int](1)
            page = goslings.processes.Value("q", 0, lock=False)

            def produce(values: Any = values, going: Any = going, page: Any = page) -> None:
                number = 0
                while True:
                    values.send(number)
                    number += 1
                    page.value = number
                    if number == 1000:
                        going.send(number)

            goroutine = workers.go(produce)
            got: list[int] = []
            taker = go(lambda got=got, values=values: got.extend(values))
            going.recv(SECONDS)
            time.sleep(turn * 0.003)
            os.kill(workers.pids[0], signal.SIGKILL)
            with pytest.raises(WorkerDied):
                goroutine.result(SECONDS)
            sent = page.value
            values.close()
            taker.result(SECONDS)
            assert got == list(range(len(got)))
            assert sent <= len(got) <= sent + 1, (sent, len(got))


def test_closing_in_the_middle_of_a_stream_keeps_the_books(workers: Processes) -> None:
    for turn in range(count(20)):
        values = chan[int](64)

        def produce(values: Any = values) -> int:
            number = 0
            try:
                while True:
                    values.send(number)
                    number += 1
            except Closed:
                return number

        goroutine = workers.go(produce)
        got = [values.recv(SECONDS) for _ in range(turn * 17)]
        values.close()
        got.extend(values)
        assert got == list(range(goroutine.result(SECONDS)))


def test_a_channel_that_comes_again_is_a_stream_again(workers: Processes) -> None:
    """While one call holds a channel, others bring it to the same process and let go of it again."""
    values, held, gate = chan[int](64), chan[None](), chan[None]()

    def hold(values: Any) -> None:
        held.send(None)
        gate.recv_ok()

    holders = [workers.go(hold, values) for _ in range(2)]
    for _ in holders:
        held.recv(SECONDS)

    def produce(values: Any) -> None:
        for number in range(50):
            values.send(number)

    for _ in range(10):
        goroutine = workers.go(produce, values)
        assert [values.recv(SECONDS) for _ in range(50)] == list(range(50))
        goroutine.result(SECONDS)
    gate.close()
    results(holders)


def test_a_select_and_a_stream_share_a_channel(workers: Processes) -> None:
    values, total = chan[int](32), count(200)

    def produce() -> None:
        for number in range(total):
            if number % 3:
                values.send(number)
            else:
                goslings.select(goslings.send(values, number))
        values.close()

    goroutine = workers.go(produce)
    assert list(values) == list(range(total))
    goroutine.result(SECONDS)
