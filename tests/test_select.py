"""select: Go's behaviours, rows S01 to S19 of the table of semantics, and what Python adds."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections import Counter
from typing import Any

import pytest
from goslings import Closed, Selected, after, chan, go, gosched, recv, select, send
from helpers import SECONDS, check_child, count, park_one_by_one, parked, results, state, until


def pick(*cases: Any) -> Selected:
    selected = select(*cases, timeout=SECONDS)
    assert selected is not None
    return selected


def filled(*values: Any) -> Any:
    ch = chan(len(values))
    for value in values:
        ch.send(value)
    return ch


def test_s01_exactly_one_case_is_carried_out(two_workers: None) -> None:
    channels, n = [chan() for _ in range(4)], count(1000)

    def sender() -> None:
        for i in range(n):
            pick(*(send(ch, i) for ch in channels))
        for ch in channels:
            ch.close()

    sending = go(sender)
    readers = [go(list, ch) for ch in channels]
    sending.result(SECONDS)
    got = results(readers)
    assert sorted(itertools.chain(*got)) == list(range(n))


def test_s02_the_choice_among_ready_cases_is_uniform() -> None:
    n = count(8000)
    channels = [filled(i) for i in range(4)]
    counts: Counter[int] = Counter()
    for _ in range(n):
        selected = pick(*(recv(ch) for ch in channels))
        counts[selected.index] += 1
        channels[selected.index].send(0)
    assert len(counts) == 4
    assert all(abs(c - n / 4) < 10 * (n * 3 / 16) ** 0.5 for c in counts.values()), counts


def test_s02_a_channel_listed_twice_gets_twice_the_share() -> None:
    n = count(6000)
    a, b = filled(0), filled(0)
    counts: Counter[int] = Counter()
    for _ in range(n):
        selected = pick(recv(a), recv(a), recv(b))
        counts[selected.index] += 1
        (a, a, b)[selected.index].send(0)
    assert len(counts) == 3
    assert all(abs(c - n / 3) < 10 * (n * 2 / 9) ** 0.5 for c in counts.values()), counts


def test_s02_the_choice_among_mixed_cases_is_uniform() -> None:
    n, counts = count(4000), Counter()
    closed, data, room = chan(), filled(1), chan(1)
    closed.close()
    for _ in range(n):
        selected = pick(recv(closed), recv(data), send(room, 1))
        counts[selected.index] += 1
        if selected.index == 1:
            data.send(1)
        elif selected.index == 2:
            room.recv()
    assert all(abs(counts[i] - n / 3) < 10 * (n * 2 / 9) ** 0.5 for i in range(3)), counts


def test_s03_default_only_if_no_case_is_ready(two_workers: None) -> None:
    ch = chan(1)
    for i in range(count(2000)):
        ch.send(i)
        selected = select(recv(ch), timeout=0)
        assert selected is not None and selected.value == i
    assert select(recv(ch), timeout=0) is None
    assert select(timeout=0) is None
    assert select(recv(ch), timeout=-1) is None


def test_s04_a_parked_select_is_decided_by_the_first_event() -> None:
    for i in range(count(300)):
        a, b = chan(), chan()
        g = go(select, recv(a), recv(b))
        parked(g)
        (b if i % 2 else a).send(i)
        selected = g.result(SECONDS)
        assert (selected.index, selected.value, selected.ok) == (i % 2, i, True)
        assert not a.try_send(0) and not b.try_send(0)


def test_s05_no_channel_is_never_ready() -> None:
    ch = filled(1)
    assert pick(recv(None), recv(ch), send(None, 2)).index == 1
    assert select(recv(None), timeout=0) is None
    assert select(recv(None), send(None, 1), timeout=0.001) is None


def test_s05_merging_with_inputs_switched_off() -> None:
    a, b = filled(1, 2), filled(3)
    a.close()
    b.close()
    inputs: list[Any] = [a, b]
    got = []
    while any(inputs):
        selected = pick(*map(recv, inputs))
        if selected.ok:
            got.append(selected.value)
        else:
            inputs[selected.index] = None
    assert sorted(got) == [1, 2, 3]


def test_s05_an_empty_select_blocks_for_ever() -> None:
    g = go(select)
    parked(g)
    assert state(g) == "select (no cases)"
    assert g.cancel() and g.join(SECONDS)


def test_s06_a_closed_channel_is_always_ready_and_has_no_priority() -> None:
    n, counts = count(3000), Counter()
    closed = chan()
    closed.close()
    data = filled(7)
    for _ in range(n):
        selected = pick(recv(closed), recv(data))
        counts[selected.index] += 1
        assert (selected.value, selected.ok) == ((None, False), (7, True))[selected.index]
        if selected.index == 1:
            data.send(7)
    assert abs(counts[0] - n / 2) < 10 * (n / 4) ** 0.5


def test_s07_a_send_case_on_a_closed_channel_raises_if_chosen() -> None:
    closed = chan(1)
    closed.close()
    for timeout in (None, 0, 0.01):
        with pytest.raises(Closed, match="send on closed channel"):
            select(send(closed, 1), timeout=timeout)
    outcomes = set()
    for _ in range(200):
        try:
            outcomes.add(pick(send(closed, 1), recv(filled(1))).index)
        except Closed:
            outcomes.add("closed")
    assert outcomes == {"closed", 1}


def test_s08_operands_are_evaluated_once_in_order() -> None:
    log: list[str] = []

    def note(name: str, value: Any) -> Any:
        log.append(name)
        return value

    ch = filled(1)
    pick(
        send(note("a", None), note("b", 1)),
        recv(note("c", ch)),
        send(note("d", chan()), note("e", 2)),
    )
    assert log == list("abcde")


def test_s09_a_select_never_pairs_with_itself() -> None:
    ch = chan()
    assert select(send(ch, 1), recv(ch), timeout=0) is None
    assert select(send(ch, 1), recv(ch), timeout=0.005) is None
    g = go(select, send(ch, 1), recv(ch))
    parked(g)
    ch.send(2)
    assert (g.result(SECONDS).index, g.result().value) == (1, 2)


@pytest.mark.parametrize("capacity", [0, 1, 10])
def test_s10_two_that_send_and_receive_on_one_channel_pair_with_each_other(two_workers: None, capacity: int) -> None:
    ch, n = chan(capacity), count(2000)

    def work(name: int) -> tuple[int, int]:
        sent = received = 0
        for i in range(n):
            selected = pick(send(ch, (name, i)), recv(ch))
            if selected.index == 0:
                sent += 1
            else:
                received += 1
                assert capacity or selected.value[0] != name
        return sent, received

    a, b = go(work, 0), go(work, 1)
    # One may be left alone at the end: take and give what it needs.
    while not (a.done() and b.done()):
        select(send(ch, ("extra", 0)), timeout=0) if a.done() or b.done() else gosched()
    sent, received = map(sum, zip(a.result(), b.result(), strict=True))
    assert sent + received == 2 * n
    assert capacity or abs(sent - received) <= n


def test_s11_with_room_for_one_send_and_receive_alternate() -> None:
    ch = chan(1)
    indices = [pick(recv(ch), send(ch, i)).index for i in range(1000)]
    assert indices == [1, 0] * 500


@pytest.mark.parametrize("threads", [False, True])
def test_s12_a_parked_select_send_and_a_parked_select_receive_meet(two_workers: None, threads: bool) -> None:
    ch, idle_a, idle_b = chan(), chan(), chan()
    n, got = count(1000), []

    def sender() -> None:
        for i in range(n):
            pick(recv(idle_a), send(ch, i))

    def receiver() -> None:
        got.extend(pick(recv(ch), recv(idle_b)).value for _ in range(n))

    if threads:
        pair = [threading.Thread(target=f) for f in (sender, receiver)]
        for thread in pair:
            thread.start()
        for thread in pair:
            thread.join(SECONDS)
    else:
        results([go(sender), go(receiver)])
    assert got == list(range(n))


def test_s13_the_losing_cases_are_withdrawn() -> None:
    quiet, busy = chan(), chan()
    for i in range(count(300)):
        g = go(select, recv(quiet), recv(busy))
        parked(g)
        busy.send(i)
        assert g.result(SECONDS).value == i
    assert not quiet.try_send(1)
    # A waiter behind withdrawn ones is found.
    g = go(select, recv(quiet), recv(busy))
    h = go(quiet.recv)
    parked(g, h)
    busy.send(1)
    g.result(SECONDS)
    quiet.send(2)
    assert h.result(SECONDS) == 2


def test_s13_a_stale_waiter_swallows_nothing(two_workers: None) -> None:
    """Go's issue 2075: a select that lost a case left something behind that corrupted the queue."""
    ch, other, n = chan(), chan(), count(1000)

    def selects() -> None:
        for _ in range(n):
            select(recv(ch), recv(other), timeout=0)
            select(recv(ch), recv(other), timeout=1e-6)

    def receives() -> int:
        return sum(1 for _ in ch)

    selecting, receiving = [go(selects) for _ in range(2)], go(receives)
    sent = 0
    while not all(g.done() for g in selecting):
        sent += select(send(ch, 1), timeout=1e-5) is not None
    ch.close()
    results(selecting)
    assert 0 <= receiving.result(SECONDS) <= sent


def test_s13_selects_with_timeouts_on_one_quiet_channel_take_linear_time() -> None:
    quiet = chan()

    def selects(n: int) -> float:
        started = time.perf_counter()
        for _ in range(n):
            select(recv(quiet), recv(after(0)), timeout=1)
        return time.perf_counter() - started

    selects(100)
    n = count(1000)
    # With a residue in the queue the second would be slower by orders of magnitude. How long it takes to be woken by
    # a clock differs tenfold from time to time.
    first = max(selects(n) for _ in range(3))
    selects(10 * n)
    assert min(selects(n) for _ in range(3)) < 20 * first


def test_s13_many_parked_on_one_channel_withdraw_in_constant_time() -> None:
    quiet, n = chan(), count(2000)
    goroutines = [go(select, recv(quiet), timeout=0.2) for _ in range(n)]
    started = time.perf_counter()
    assert results(goroutines) == [None] * n
    assert time.perf_counter() - started < 10


def test_s14_a_select_stands_in_the_queue_by_the_time_it_came() -> None:
    ch, idle = chan(), chan()
    waiters = park_one_by_one([ch.recv, lambda: pick(recv(idle), recv(ch)).value, ch.recv])
    for i in range(3):
        ch.send(i)
    assert results(waiters) == [0, 1, 2]
    senders = park_one_by_one([lambda: ch.send(0), lambda: pick(send(ch, 1), recv(idle)), lambda: ch.send(2)])
    assert [ch.recv() for _ in range(3)] == [0, 1, 2]
    results(senders)


def test_s15_selects_in_any_order_do_not_block_each_other(two_workers: None, rng: Any) -> None:
    channels = [chan(0), chan(0), chan(2), chan(3)]
    n = count(300)
    orders = list(itertools.permutations(range(4)))

    def sends(order: Any) -> None:
        for i in range(n):
            pick(*(send(channels[k], i) for k in order))

    def receives(order: Any) -> int:
        return sum(pick(*(recv(channels[k]) for k in order)).value for _ in range(n))

    goroutines = []
    for _ in range(8):
        goroutines.append(go(sends, rng.choice(orders)))
        goroutines.append(go(receives, rng.choice(orders)))
    total = sum(value or 0 for value in results(goroutines))
    assert total == 8 * n * (n - 1) // 2
    assert all(len(ch) == 0 for ch in channels)


def test_s15_one_channel_many_times() -> None:
    ch = chan()
    g = go(select, *([recv(ch), send(ch, 1)] * 50))
    parked(g)
    ch.send(2)
    assert g.result(SECONDS).index % 2 == 0
    g = go(select, *([recv(ch), send(ch, 1)] * 50))
    parked(g)
    assert ch.recv() == 1
    assert g.result(SECONDS).index % 2 == 1
    assert not ch.try_send(1)


def test_s16_an_attempt_succeeds_exactly_if_somebody_waits() -> None:
    ch = chan()
    assert select(send(ch, 1), timeout=0) is None
    assert select(recv(ch), timeout=0) is None
    r = go(ch.recv)
    parked(r)
    assert select(send(ch, 1), timeout=0) is not None
    assert r.result(SECONDS) == 1
    s = go(ch.send, 2)
    parked(s)
    selected = select(recv(ch), timeout=0)
    assert selected is not None and selected.value == 2
    s.result(SECONDS)


def test_s16_an_attempt_on_a_buffer_needs_data_or_room_and_to_receive_from_a_closed_channel_nothing() -> None:
    ch = chan(1)
    assert select(recv(ch), timeout=0) is None and ch.try_recv("empty") == "empty"
    assert select(send(ch, 1), timeout=0) is not None
    assert select(send(ch, 2), timeout=0) is None and not ch.try_send(2)
    assert pick(recv(ch)).value == 1
    assert ch.try_send(3) and ch.try_recv() == 3
    ch.close()
    selected = select(recv(ch), timeout=0)
    assert selected is not None and not selected.ok


def test_s17_an_attempt_never_misses_both_the_value_and_the_close(two_workers: None) -> None:
    for i in range(count(1000)):
        ch, both = chan(1), []

        def writer(ch: Any = ch, both: list[bool] = both) -> None:
            ch.send("value")
            ch.close()
            both.append(True)

        def reader(i: int = i, ch: Any = ch, both: list[bool] = both) -> None:
            while True:
                over = bool(both)
                try:
                    value = ch.try_recv("empty") if i % 2 else getattr(select(recv(ch), timeout=0), "value", "empty")
                except Closed:
                    raise AssertionError("closed before its value") from None
                if value != "empty":
                    assert value == "value"
                    return
                assert not over, "open and empty after both had happened"
                gosched()

        r, w = go(reader), go(writer)
        results([r, w])


def test_s18_a_parked_select_is_woken_by_close() -> None:
    ch = chan()
    g = go(select, recv(None), recv(ch))
    parked(g)
    ch.close()
    assert (g.result(SECONDS).index, g.result().ok, g.result().value) == (1, False, None)
    ch = chan()
    g = go(select, recv(None), send(ch, 1))
    parked(g)
    ch.close()
    assert "case 1" in str(g.exception(SECONDS)) and isinstance(g.exception(), Closed)


@pytest.mark.parametrize("kind", [recv, send])
def test_s19_a_thousand_cases(kind: Any) -> None:
    channels = [chan() for _ in range(1000)]
    cases = [recv(ch) if kind is recv else send(ch, i) for i, ch in enumerate(channels)]
    g = go(select, *cases)
    parked(g)
    if kind is recv:
        channels[-1].send("last")
        assert g.result(SECONDS).value == "last"
    else:
        assert channels[-1].recv() == 999
    assert g.result(SECONDS).index == 999
    assert not any(ch.try_send(1) for ch in channels)


def test_s19_tens_of_thousands_of_cases() -> None:
    channels = [chan() for _ in range(20_000)]
    g = go(select, *map(recv, channels))
    parked(g)
    channels[12_345].send(1)
    assert g.result(SECONDS).index == 12_345


def test_s19_leaving_the_loop_from_a_case() -> None:
    ticks, quit_ = filled(1, 2, 3), chan()
    seen = []
    for _ in range(10):
        match select(recv(ticks), recv(quit_), timeout=0):
            case Selected(0, value, True):
                seen.append(value)
            case Selected(1):
                raise AssertionError
            case None:
                break
    assert seen == [1, 2, 3]


def test_what_selected_tells() -> None:
    ch = filled("value")
    view = ch.receiver()
    selected = pick(recv(view))
    assert (selected.index, selected.value, selected.ok) == (0, "value", True)
    assert selected.chan is view  # the object given in the case
    selected = pick(send(ch, "sent"))
    assert (selected.index, selected.value, selected.ok, selected.chan) == (0, None, True, ch)
    assert selected.chan is ch
    assert Selected.__match_args__ == ("index", "value", "ok")
    assert "index=0" in repr(selected)
    with pytest.raises(AttributeError):
        selected.index = 1  # type: ignore[misc]


def test_a_case_may_be_used_again() -> None:
    ch = chan(3)
    sending, receiving = send(ch, "x"), recv(ch)
    for _ in range(3):
        pick(sending)
    assert [pick(receiving).value for _ in range(3)] == ["x"] * 3
    assert "recv(" in repr(receiving) and "'x'" in repr(sending)


def test_a_case_used_by_many_at_once(two_workers: None) -> None:
    ch = chan()
    case = recv(ch)
    goroutines = [go(select, case) for _ in range(100)]
    for i in range(100):
        pick(send(ch, i))
    assert sorted(g.result(SECONDS).value for g in goroutines) == list(range(100))


def test_views_in_select() -> None:
    ch = chan(1)
    assert pick(send(ch.sender(), 1)).index == 0
    assert pick(recv(ch.receiver())).value == 1


def test_s03_timeouts_of_select() -> None:
    ch = chan()
    started = time.monotonic()
    assert select(recv(ch), timeout=0.02) is None
    assert select(recv(ch), send(ch, 1), timeout=0.02) is None
    assert select(timeout=0.02) is None
    assert time.monotonic() - started >= 0.06


def test_c24_a_value_of_a_case_that_lost_is_not_delivered() -> None:
    ch, other = chan(), chan()
    g = go(select, send(ch, "lost"), recv(other))
    parked(g)
    other.send(1)
    g.result(SECONDS)
    assert ch.try_recv("nothing") == "nothing"


def test_c24_cancel_in_select_loses_nothing(two_workers: None) -> None:
    ch, n = chan(), count(500)
    received = 0
    for i in range(n):
        g = go(select, recv(ch), recv(chan()))
        if i % 3:
            parked(g)
        sending = go(ch.send, i)
        g.cancel()
        g.join(SECONDS)
        if g.cancelled():
            assert ch.recv() == i
        else:
            assert g.result().value == i
            received += 1
        sending.result(SECONDS)


def test_c23_s15_many_kinds_at_once_conserve_values(two_workers: None, rng: Any) -> None:
    """Plain and select senders and receivers, threads and goroutines, on channels of different capacities."""
    channels = [chan(capacity) for capacity in (0, 1, 7)]
    n, senders = count(400), 6
    got: list[Any] = []
    stop = chan()
    seeds = [rng.randrange(2**32) for _ in range(2 * senders)]

    def sender(name: int) -> None:
        import random

        rnd = random.Random(seeds[name])
        for i in range(n):
            value = (name, i)
            if rnd.random() < 0.5:
                rnd.choice(channels).send(value)
            elif rnd.random() < 0.5:
                pick(*(send(ch, value) for ch in rnd.sample(channels, rnd.randint(1, 3))))
            else:
                while select(send(rnd.choice(channels), value), timeout=rnd.random() * 1e-4) is None:
                    pass

    def receiver(name: int) -> list[Any]:
        import random

        rnd, mine = random.Random(seeds[name]), []
        while True:
            if rnd.random() < 0.3:
                selected = select(*map(recv, channels), timeout=rnd.random() * 1e-4)
                if selected is not None:
                    mine.append(selected.value)
                continue
            selected = pick(recv(stop), *(recv(ch) for ch in rnd.sample(channels, 3)))
            if selected.index == 0:
                return mine
            mine.append(selected.value)

    threads = [threading.Thread(target=lambda name=name: got.extend(receiver(name))) for name in (6, 7)]
    for thread in threads:
        thread.start()
    receivers = [go(receiver, name) for name in (8, 9, 10)]
    sending = [go(sender, name) for name in range(senders)]
    for _ in range(5):
        gc.collect()
    results(sending)
    until(lambda: all(len(ch) == 0 for ch in channels))
    stop.close()
    for thread in threads:
        thread.join(SECONDS)
    for values in results(receivers):
        got.extend(values)
    assert Counter(got) == Counter((name, i) for name in range(senders) for i in range(n))


def test_a_select_in_the_main_thread_of_a_fresh_process() -> None:
    out = check_child(
        """
        from goslings import chan, go, recv, select, send
        a, b = chan(), chan()
        go(a.send, 1)
        print(select(recv(a), recv(b)).value, select(recv(a), timeout=0))
        """
    )
    assert out == "1 None\n"
