"""Channels: Go's behaviours, rows C01 to C24 of the table of semantics, and what Python adds."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from collections import Counter
from typing import Any

import pytest
from goslings import Closed, RecvChan, SendChan, WouldBlock, after, chan, go, recv, select, send, sleep
from helpers import SECONDS, count, park_one_by_one, parked, results, state


def test_c01_an_unbuffered_send_ends_together_with_its_receive() -> None:
    ch, sent = chan(), []

    def sender() -> None:
        ch.send("x")
        sent.append(True)

    g = go(sender)
    parked(g)
    assert not sent and state(g) == "chan send"
    assert ch.recv() == "x"
    g.result(SECONDS)
    assert sent


def test_c01_a_receiver_waits_for_the_sender() -> None:
    ch = chan()
    g = go(ch.recv)
    parked(g)
    assert not g.done()
    ch.send("x")
    assert g.result(SECONDS) == "x"


def test_c02_a_buffered_send_waits_only_when_full_and_each_receive_admits_one() -> None:
    ch = chan(1)
    ch.send(0, timeout=0)
    assert ch.recv(timeout=0) == 0
    ch.send(0)
    senders = park_one_by_one(lambda i=i: ch.send(i) for i in (1, 2, 3))
    assert ch.recv() == 0
    assert senders[0].join(SECONDS)
    assert [g.done() for g in senders] == [True, False, False]
    assert [ch.recv() for _ in range(3)] == [1, 2, 3]
    results(senders)


@pytest.mark.parametrize("capacity", [0, 1, 7, 128])
def test_c03_values_of_one_sender_arrive_in_order(capacity: int) -> None:
    ch, n = chan(capacity), count(20_000)

    def sender() -> None:
        for i in range(n):
            ch.send(i)
        ch.close()

    g = go(sender)
    reader = go(lambda: list(ch))
    assert reader.result(SECONDS) == list(range(n))
    g.result(SECONDS)


def test_c04_receivers_are_served_in_the_order_they_came() -> None:
    ch, n = chan(), count(300)
    receivers = park_one_by_one(ch.recv for _ in range(n))
    for i in range(n):
        ch.send(i)
    assert results(receivers) == list(range(n))


def test_c05_senders_are_admitted_in_the_order_they_came() -> None:
    ch, n = chan(), count(300)
    senders = park_one_by_one(lambda i=i: ch.send(i) for i in range(n))
    assert [ch.recv() for _ in range(n)] == list(range(n))
    results(senders)


def test_c04_threads_and_goroutines_stand_in_one_queue() -> None:
    ch: Any = chan()
    got: dict[int, int] = {}

    def receive(i: int) -> None:
        got[i] = ch.recv()

    threads, goroutines = [], []
    for i in range(10):
        if i % 2:
            goroutines.append(go(receive, i))
            parked(goroutines[-1])
        else:
            # A thread's wait cannot be seen from outside: a goroutine behind it would be served first if it
            # were not in the queue, so give it time and accept its absence as a failure only if persistent.
            thread = threading.Thread(target=receive, args=(i,))
            thread.start()
            threads.append(thread)
            time.sleep(0.02)
    for i in range(10):
        ch.send(i)
    results(goroutines)
    for thread in threads:
        thread.join(SECONDS)
    assert got == {i: i for i in range(10)}


@pytest.mark.parametrize("capacity", [1, 3])
def test_c06_a_receive_from_a_full_channel_moves_the_oldest_sender_in(capacity: int) -> None:
    ch, waiting = chan(capacity), 4
    for i in range(capacity):
        ch.send(i)
    senders = park_one_by_one(lambda i=i: ch.send(i) for i in range(capacity, capacity + waiting))
    lengths = []
    for i in range(capacity + waiting):
        assert ch.recv() == i
        lengths.append(len(ch))
    assert lengths == [capacity] * waiting + list(range(capacity - 1, -1, -1))
    results(senders)


def test_c07_a_value_handed_over_cannot_be_stolen() -> None:
    ch = chan()
    for i in range(count(500)):
        g = go(ch.recv)
        parked(g)
        ch.send(i)
        assert ch.try_recv("nothing") == "nothing"
        assert g.result(SECONDS) == i


def test_c08_len_counts_what_is_buffered_and_survives_close() -> None:
    ch, rendezvous = chan(3), chan()
    assert (len(ch), ch.capacity, len(rendezvous), rendezvous.capacity) == (0, 3, 0, 0)
    ch.send(1)
    ch.send(2)
    senders = park_one_by_one([lambda: rendezvous.send(1)])
    assert (len(ch), len(rendezvous)) == (2, 0)
    ch.close()
    assert (len(ch), ch.capacity) == (2, 3)
    ch.recv()
    assert (len(ch), ch.capacity, ch.closed) == (1, 3, True)
    rendezvous.recv()
    results(senders)


def test_c09_a_closed_channel_yields_what_it_holds_then_closed_for_ever() -> None:
    ch = chan(2)
    ch.send(7)
    ch.send(8)
    ch.close()
    assert [ch.recv_ok() for _ in range(4)] == [(7, True), (8, True), (None, False), (None, False)]
    for receive in (ch.recv, ch.try_recv, lambda: ch.recv(timeout=0), lambda: ch.try_recv("default")):
        with pytest.raises(Closed, match="^receive on closed channel$"):
            receive()


@pytest.mark.parametrize("fill", ["unbuffered", "room", "full"])
def test_c10_a_send_on_a_closed_channel_is_an_error_never_would_block(fill: str) -> None:
    ch = chan(0 if fill == "unbuffered" else 1)
    if fill == "full":
        ch.send(1)
    ch.close()
    for attempt in (lambda: ch.send(2), lambda: ch.send(2, timeout=0), lambda: ch.try_send(2)):
        with pytest.raises(Closed, match="^send on closed channel$"):
            attempt()
    with pytest.raises(Closed, match="send on closed channel"):
        select(send(ch, 2), timeout=0)


def test_c11_closing_twice_is_an_error() -> None:
    ch = chan()
    ch.close()
    with pytest.raises(Closed, match="^close of closed channel$"):
        ch.close()
    with pytest.raises(Closed, match="^close of closed channel$"):
        ch.sender().close()


def test_c12_close_wakes_every_receiver() -> None:
    ch = chan()
    receivers = [go(ch.recv_ok) for _ in range(count(300))]
    raising = [go(ch.recv) for _ in range(3)]
    iterating = [go(list, ch) for _ in range(3)]
    parked(*receivers, *raising, *iterating)
    ch.close()
    assert set(results(receivers)) == {(None, False)}
    assert all(isinstance(g.exception(SECONDS), Closed) for g in raising)
    assert results(iterating) == [[], [], []]


@pytest.mark.parametrize("capacity", [0, 2])
def test_c13_close_wakes_every_sender_with_an_error_and_delivers_nothing_of_theirs(capacity: int) -> None:
    ch, other = chan(capacity), chan(10)
    for i in range(capacity):
        ch.send(i)

    def sender(i: int) -> None:
        with pytest.raises(Closed, match="^send on closed channel$"):
            ch.send(f"lost {i}")
        other.send(i)

    senders = [go(sender, i) for i in range(10)]
    parked(*senders)
    ch.close()
    results(senders)
    assert list(ch) == list(range(capacity))
    assert sorted(other.recv() for _ in range(10)) == list(range(10))


def test_c14_a_case_on_no_channel_is_never_ready() -> None:
    assert select(recv(None), send(None, 1), timeout=0) is None
    g = go(select, recv(None))
    parked(g)
    assert g.cancel()
    assert g.join(SECONDS) and g.cancelled()


def test_c15_iterating_ends_when_closed_and_drained() -> None:
    ch = chan(3)
    for i in range(3):
        ch.send(i)
    ch.close()
    assert list(ch) == [0, 1, 2]
    assert list(ch) == []


def test_c15_leaving_a_loop_early_takes_nothing_more() -> None:
    ch = chan(3)
    for i in range(3):
        ch.send(i)
    for value in ch:
        assert value == 0
        break
    assert ch.recv() == 1
    assert next(ch) == 2


def test_c16_a_negative_capacity_is_an_error_and_zero_is_a_rendezvous() -> None:
    with pytest.raises(ValueError, match="negative"):
        chan(-1)
    with pytest.raises(ValueError, match="negative"):
        chan(-(10**30))
    with pytest.raises(ValueError, match="too large"):
        chan(10**30)
    ch = chan(0)
    assert not ch.try_send(1)
    g = go(ch.send, 1)
    parked(g)
    assert ch.recv() == 1
    g.result(SECONDS)


def test_c17_channels_are_references() -> None:
    a, b = chan(), chan()
    assert a == a and a != b and a != "a"
    names = {a: "a", b: "b"}
    assert (names[a], names[b]) == ("a", "b")
    requests = chan()

    def server() -> None:
        for number, reply in requests:
            reply.send(number * number)

    g = go(server)
    for i in range(10):
        reply = chan()
        requests.send((i, reply))
        assert reply.recv() == i * i
    requests.close()
    g.result(SECONDS)


def test_c18_views_do_one_half_and_equal_their_channel() -> None:
    ch = chan(2)
    sender, receiver = ch.sender(), ch.receiver()
    assert isinstance(sender, SendChan) and isinstance(receiver, RecvChan)
    assert sender == ch == receiver and ch == sender and receiver == sender
    assert hash(sender) == hash(ch) == hash(receiver)
    assert sender != chan().sender()
    sender.send(1)
    assert sender.try_send(2) and not sender.try_send(3)
    assert (len(receiver), receiver.capacity, len(sender), sender.capacity) == (2, 2, 2, 2)
    assert receiver.recv() == 1
    assert receiver.try_recv() == 2
    for view, missing in ((sender, "recv"), (sender, "try_recv"), (receiver, "send"), (receiver, "close")):
        assert not hasattr(view, missing)
    with pytest.raises(TypeError):
        iter(sender)
    sender.close()
    assert receiver.closed and list(receiver) == [] and receiver.recv_ok() == (None, False)


def test_c18_the_wrong_direction_in_a_select_is_a_type_error() -> None:
    ch = chan()
    with pytest.raises(TypeError, match="SendChan"):
        recv(ch.sender())
    with pytest.raises(TypeError, match="RecvChan"):
        send(ch.receiver(), 1)


def test_c19_none_can_be_sent_and_is_not_closed() -> None:
    ch = chan(3)
    for value in (None, 1, None):
        ch.send(value)
    assert ch.recv_ok() == (None, True)
    ch.close()
    assert list(ch) == [1, None]


def test_c20_a_huge_capacity_costs_nothing_until_used() -> None:
    semaphore = chan(2**60)
    for _ in range(1000):
        semaphore.send(None)
    assert len(semaphore) == 1000 and semaphore.capacity == 2**60
    assert all(semaphore.recv() is None for _ in range(1000))


@pytest.mark.parametrize("capacity", [0, 1, 4])
def test_c22_what_was_written_before_a_send_is_seen_after_the_receive(two_workers: None, capacity: int) -> None:
    class Box:
        value = 0

    ch, n = chan(capacity), count(3000)

    def writer() -> None:
        for i in range(1, n):
            box = Box()
            box.value = i
            ch.send(box)
        ch.close()

    def reader() -> int:
        return sum(box.value == i for i, box in enumerate(ch, 1))

    w, r = go(writer), go(reader)
    assert r.result(SECONDS) == n - 1
    w.result(SECONDS)


def test_c22_what_was_written_before_a_close_is_seen_by_who_hears_of_it(two_workers: None) -> None:
    for i in range(count(500)):
        ch, box = chan(), []

        def closer(i: int = i, ch: Any = ch, box: list[int] = box) -> None:
            box.append(i)
            ch.close()

        def hears(ch: Any = ch, box: list[int] = box) -> int:
            assert ch.recv_ok() == (None, False)
            return box[0]

        h, c = go(hears), go(closer)
        assert h.result(SECONDS) == i
        c.result(SECONDS)


def test_c22_what_was_written_before_an_unbuffered_receive_is_seen_after_the_send(two_workers: None) -> None:
    for i in range(count(500)):
        ch, box = chan(), []

        def receiver(i: int = i, ch: Any = ch, box: list[int] = box) -> None:
            box.append(i)
            ch.recv()

        def sender(ch: Any = ch, box: list[int] = box) -> int:
            ch.send(None)
            return box[0]

        s, r = go(sender), go(receiver)
        assert s.result(SECONDS) == i
        r.result(SECONDS)


def test_c22_a_receive_makes_room_after_what_came_before_it(two_workers: None) -> None:
    # The k-th receive happens before the (k+C)-th send ends: a channel of capacity C is a semaphore.
    semaphore, inside, most = chan(3), set(), []

    def worker(name: int) -> None:
        for _ in range(count(100)):
            semaphore.send(name)
            inside.add(name)
            most.append(len(inside))
            inside.discard(name)
            semaphore.recv()

    results([go(worker, i) for i in range(8)])
    assert max(most) <= 3


@pytest.mark.parametrize("capacity", [0, 1, 128])
def test_c23_nothing_is_lost_or_doubled(two_workers: None, capacity: int) -> None:
    ch, per_sender = chan(capacity), count(1000)

    def sender(name: int) -> None:
        for i in range(per_sender):
            ch.send((name, i))

    senders = [go(sender, name) for name in range(8)]
    receivers = [go(list, ch) for _ in range(8)]
    results(senders)
    ch.close()
    lists = results(receivers)
    assert Counter(value for values in lists for value in values) == Counter(
        (name, i) for name in range(8) for i in range(per_sender)
    )
    for values in lists:  # and in the order of each sender
        for name in range(8):
            mine = [i for sender_name, i in values if sender_name == name]
            assert mine == sorted(mine)


@pytest.mark.parametrize("capacity", [0, 1, 128])
def test_c23_threads_and_goroutines_mix(fast_switching: None, capacity: int) -> None:
    ch, n = chan(capacity), count(300)
    got: list[list[int]] = []

    def sender(name: int) -> None:
        for i in range(n):
            ch.send(name * n + i)

    def receiver() -> None:
        got.append(list(ch))

    senders = [threading.Thread(target=sender, args=(name,)) for name in range(2)]
    receivers = [threading.Thread(target=receiver) for _ in range(2)]
    for thread in senders + receivers:
        thread.start()
    goroutines = [go(sender, name) for name in (2, 3)]
    takers = [go(receiver) for _ in range(2)]
    results(goroutines)
    for thread in senders:
        thread.join(SECONDS)
    ch.close()
    results(takers)
    for thread in receivers:
        thread.join(SECONDS)
    assert sorted(value for values in got for value in values) == list(range(4 * n))


def test_c24_a_send_that_timed_out_had_no_effect_and_one_that_did_not_was_received(two_workers: None) -> None:
    ch, n, sent, stop = chan(), count(2000), [], chan()

    def sender() -> None:
        for i in range(n):
            try:
                ch.send(i, timeout=1e-6 * (i % 50))
            except TimeoutError:
                continue
            sent.append(i)
        ch.close()

    def receiver() -> list[int]:
        received = []
        while True:
            try:
                received.append(ch.recv(timeout=1e-5))
            except TimeoutError:
                continue
            except Closed:
                return received

    s, r = go(sender), go(receiver)
    s.result(SECONDS)
    assert r.result(SECONDS) == sent
    stop.close()


def test_c24_a_select_with_a_timer_is_a_timeout() -> None:
    ch = chan()
    chosen = select(send(ch, 1), recv(after(0.01)))
    assert chosen is not None and chosen.index == 1
    assert ch.try_recv("nothing") == "nothing"


@pytest.mark.parametrize("capacity", [0, 1])
def test_c24_a_send_that_lost_to_its_timer_had_no_effect(two_workers: None, capacity: int) -> None:
    ch, n = chan(capacity), count(2000)

    def sender() -> list[int]:
        sent = []
        for i in range(n):
            selected = select(send(ch, i), recv(after(1e-6 * (i % 40))))
            assert selected is not None
            if selected.index == 0:
                sent.append(i)
        ch.close()
        return sent

    def receiver() -> list[int]:
        received = []
        for value in ch:
            received.append(value)
            if value % 3 == 0:
                sleep(2e-5)
        return received

    s, r = go(sender), go(receiver)
    assert s.result(SECONDS) == r.result(SECONDS)


def test_c24_timeouts() -> None:
    ch = chan()
    started = time.monotonic()
    for attempt in (
        lambda: ch.recv(timeout=0.02),
        lambda: ch.recv_ok(0.02),
        lambda: ch.send(1, timeout=0.02),
        lambda: ch.send(1, 0.02),
    ):
        with pytest.raises(TimeoutError, match="timed out"):
            attempt()
    assert time.monotonic() - started >= 0.08
    for zero in (0, 0.0, -1, -1e300, float("-inf"), False):
        with pytest.raises(TimeoutError):
            ch.recv(timeout=zero)
    ch = chan(1)
    ch.send(1, timeout=0)
    assert ch.recv(timeout=0) == 1


def test_a_timeout_that_is_never_up() -> None:
    ch = chan()
    goroutines = [go(ch.recv, timeout=far) for far in (None, float("inf"), 1e300, 10**400)]
    parked(*goroutines)
    for i in range(4):
        ch.send(i)
    assert sorted(results(goroutines)) == [0, 1, 2, 3]


def test_try_recv() -> None:
    ch = chan(1)
    with pytest.raises(WouldBlock):
        ch.try_recv()
    marker = object()
    assert ch.try_recv(marker) is marker
    ch.send(None)
    assert ch.try_recv(marker) is None
    assert ch.try_recv(None) is None  # a default of None is a default


def test_try_recv_takes_its_default_by_name() -> None:
    assert chan().try_recv(default=1) == 1


def test_s16_try_send_and_try_recv_meet_who_waits() -> None:
    ch = chan()
    assert not ch.try_send(1)
    r = go(ch.recv)
    parked(r)
    assert ch.try_send(1)
    assert r.result(SECONDS) == 1
    s = go(ch.send, 2)
    parked(s)
    assert ch.try_recv() == 2
    s.result(SECONDS)


def test_a_with_block_closes_once() -> None:
    with chan() as ch:
        assert not ch.closed
    assert ch.closed
    with chan() as ch:
        ch.close()
    with pytest.raises(KeyError), chan() as ch:
        raise KeyError
    assert ch.closed
    with (ch := chan()).sender() as sender:
        assert sender == ch
    assert ch.closed


def test_a_channel_is_always_true() -> None:
    ch = chan()
    assert bool(ch) and bool(ch.sender()) and bool(ch.receiver()) and len(ch) == 0


def test_chan_can_be_subscripted() -> None:
    ch = chan[int](2)
    ch.send(1)
    assert ch.recv() == 1
    assert SendChan[int] and RecvChan[int]
    assert isinstance(ch, chan)


def test_repr_tells_the_state() -> None:
    ch = chan(3)
    ch.send(1)
    assert "1 of 3 buffered" in repr(ch) and "closed" not in repr(ch)
    ch.close()
    assert "closed" in repr(ch)
    assert "SendChan" in repr(ch.sender()) and "RecvChan" in repr(ch.receiver())


@pytest.mark.parametrize("what", ["chan", "SendChan", "RecvChan"])
def test_no_copies_and_no_pickles(what: str) -> None:
    ch = {"chan": chan(), "SendChan": chan().sender(), "RecvChan": chan().receiver()}[what]
    for refuse in (copy.copy, copy.deepcopy, pickle.dumps, lambda ch: copy.deepcopy([ch])):
        with pytest.raises(TypeError, match=what):
            refuse(ch)


def test_capacity_may_be_anything_like_an_int() -> None:
    class Two:
        def __index__(self) -> int:
            return 2

    assert chan(Two()).capacity == 2
    assert chan(capacity=3).capacity == 3
