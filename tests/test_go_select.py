"""select under Go's own stress scenarios, written afresh, with exact counts."""

from __future__ import annotations

import gc
import itertools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from goslings import Case, Closed, Selected, aselect, chan, go, recv, select, send
from helpers import SECONDS, check_child, count, parked, results


def some(*cases: Any) -> Any:
    """What `select` takes, without a limit."""
    selected = select(*cases, timeout=SECONDS)
    assert selected is not None
    return selected


@pytest.mark.parametrize("capacity", [0, 10])
def test_s10_two_that_select_to_send_and_receive_end_together(two_workers: None, capacity: int) -> None:
    ch, n = chan(capacity), count(5_000)

    def work(name: int) -> Counter[str]:
        did: Counter[str] = Counter()
        for i in range(n):
            if name == 0 or i % 2 == 0:
                selected = some(send(ch, name), recv(ch))
                sent = selected.index == 0
            else:
                selected = some(recv(ch), send(ch, name))
                sent = selected.index == 1
            did["sent" if sent else "received"] += 1
            if not sent:
                did[f"from {selected.value}"] += 1
        return did

    # Nobody helps: without a buffer each meeting takes one turn of both, with one each finds data or room.
    a, b = results([go(work, 0), go(work, 1)])
    if capacity == 0:
        assert a["from 0"] == b["from 1"] == 0, "received what it had sent"
        assert (a["sent"], b["sent"]) == (b["received"], a["received"])
    assert a["sent"] + b["sent"] == a["received"] + b["received"] + len(ch)
    assert sum(d["sent"] + d["received"] for d in (a, b)) == 2 * n


def test_s15_plain_and_select_operations_on_four_channels_at_once(two_workers: None) -> None:
    channels, n = [chan(0), chan(0), chan(2), chan(3)], count(10_000)

    def sends(k: int) -> None:
        for i in range(n):
            channels[k].send(i)

    def receives(k: int) -> Counter[int]:
        return Counter(channels[k].recv() for _ in range(n))

    def selects_to_send() -> None:
        left: list[Any] = list(channels)
        sent = [0] * 4
        while any(left):
            k = some(*(send(ch, n + i) for ch, i in zip(left, sent, strict=True))).index
            sent[k] += 1
            if sent[k] == n:
                left[k] = None
        assert sent == [n] * 4

    def selects_to_receive() -> list[Counter[int]]:
        left: list[Any] = list(channels)
        got: list[list[int]] = [[] for _ in range(4)]
        while any(left):
            selected = some(*map(recv, left))
            got[selected.index].append(selected.value)
            if len(got[selected.index]) == n:
                left[selected.index] = None
        return [Counter(values) for values in got]

    senders = [go(sends, k) for k in range(4)] + [go(selects_to_send)]
    receivers = [go(receives, k) for k in range(4)]
    selecting = go(selects_to_receive)
    results(senders)
    for plain, selected in zip(results(receivers), selecting.result(SECONDS), strict=True):
        assert plain + selected == Counter(range(2 * n))
    assert [len(ch) for ch in channels] == [0] * 4


def test_s02_two_that_are_ready_get_half_each_within_ten_sigma(two_workers: None) -> None:
    trials = count(10_000)
    ready = [chan(trials + 1) for _ in range(2)]
    for value, ch in enumerate(ready):
        for _ in range(trials + 1):
            ch.send(value)
    never, out, done = [chan(), chan()], chan(), chan()

    def pick() -> None:
        while True:
            value = some(recv(never[0]), recv(never[1]), recv(ready[0]), recv(ready[1])).value
            if some(send(out, value), recv(done)).index == 1:
                return

    g = go(pick)
    counts = Counter(out.recv() for _ in range(trials))
    done.close()
    g.result(SECONDS)
    assert counts.total() == trials
    assert abs(counts[0] - trials / 2) <= 10 * (trials / 4) ** 0.5


def test_s13_a_channel_named_twice_is_withdrawn_twice() -> None:
    for _ in range(count(300)):
        c, d, e = chan(), chan(), chan()

        def first(c: Any = c, d: Any = d, e: Any = e) -> None:
            assert some(recv(c), recv(c), recv(d)).index == 2
            e.send(9)

        g = go(first)
        parked(g)
        behind = go(c.recv)
        parked(behind)
        d.send(7)
        assert e.recv() == 9
        # Both places of the first are gone: the one behind them is served.
        c.send(8)
        assert behind.result(SECONDS) == 8
        g.result(SECONDS)
        assert not c.try_send(0)


def test_s01_a_select_that_sends_on_four_never_sends_twice(two_workers: None) -> None:
    n = count(20_000)
    channels, merged = [chan() for _ in range(4)], chan()

    def sends() -> None:
        for i in range(n):
            some(*(send(ch, i) for ch in channels))
        for ch in channels:
            ch.close()

    def forwards(ch: Any) -> int:
        total = 0
        for value in ch:
            merged.send(value)
            total += 1
        return total

    sending = go(sends)
    forwarding = [go(forwards, ch) for ch in channels]
    ended = go(lambda: (results(forwarding), merged.close()))
    seen = Counter(merged)
    assert seen == Counter(range(n))
    assert sum(g.result(SECONDS) for g in forwarding) == n
    sending.result(SECONDS)
    ended.result(SECONDS)


def closed(*values: Any) -> Any:
    ch = full(*values)
    ch.close()
    return ch


def full(*values: Any) -> Any:
    ch = chan(len(values))
    for value in values:
        ch.send(value)
    return ch


BLOCKS: dict[str, tuple[bool, Callable[[], Any]]] = {
    "receive from nil": (True, lambda: select(recv(None))),
    "send to nil": (True, lambda: select(send(None, 7))),
    "receive from empty, unbuffered": (True, lambda: chan().recv()),
    "send to empty, unbuffered": (True, lambda: chan().send(7)),
    "receive from empty, buffered": (True, lambda: chan(10).recv()),
    "send to empty, buffered": (False, lambda: chan(10).send(7)),
    "receive from full": (False, lambda: full(1).recv()),
    "send to full": (True, lambda: full(1).send(7)),
    "receive from closed": (False, lambda: closed().recv_ok()),
    "receive from closed, buffered": (False, lambda: closed(1).recv_ok()),
    "send to closed": (False, lambda: pytest.raises(Closed, closed().send, 7)),
    "send to closed, full": (False, lambda: pytest.raises(Closed, closed(1).send, 7)),
    "iteration over empty": (True, lambda: list(chan(1))),
    "iteration over closed": (False, lambda: list(closed(1))),
    "select of nothing": (True, lambda: select()),
    "select of nothing, default": (False, lambda: select(timeout=0)),
    "select of nils": (True, lambda: select(recv(None), send(None, 7), recv(None))),
    "select of nils, default": (False, lambda: select(recv(None), send(None, 7), timeout=0)),
    "select of empty and full": (True, lambda: select(recv(chan(1)), send(full(1), 7), recv(chan()))),
    "select of empty and full, default": (False, lambda: select(recv(chan(1)), send(full(1), 7), timeout=0)),
    "select of nil and one with data": (False, lambda: select(recv(None), recv(full(1)))),
    "select of nil and one with room": (False, lambda: select(send(None, 7), send(chan(1), 7))),
    "select of nil and closed": (False, lambda: select(recv(None), recv(closed()))),
    "select to send on closed": (False, lambda: pytest.raises(Closed, select, send(closed(), 7))),
    "select to send on closed, default": (False, lambda: pytest.raises(Closed, select, send(closed(), 7), timeout=0)),
    "select of one's own send and receive": (True, lambda: select(*(lambda ch: (send(ch, 1), recv(ch)))(chan()))),
    "select of the same, one place in the buffer": (
        False,
        lambda: select(*(lambda ch: (send(ch, 1), recv(ch)))(chan(1))),
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_s05_s09_s16_what_blocks_and_what_does_not(name: str) -> None:
    blocks, operation = BLOCKS[name]
    g = go(operation)
    if blocks:
        parked(g)
        assert g.cancel() and g.join(SECONDS) and g.cancelled()
    else:
        g.result(SECONDS)


def test_s13_a_lost_case_between_two_plain_receivers_leaves_the_queue_whole() -> None:
    for _ in range(count(300)):
        a, b, c = chan(), chan(), chan()
        plain = go(a.recv)
        parked(plain)

        def selects(a: Any = a, b: Any = b, c: Any = c) -> int:
            assert some(recv(a), recv(b)).index == 1
            c.send(True)
            return a.recv()

        g = go(selects)
        parked(g)
        last = go(a.recv)
        parked(last)
        b.send(True)
        assert c.recv() is True
        parked(g)
        for i in range(3):
            a.send(i)
        assert results([plain, last, g]) == [0, 1, 2]
        assert not a.try_send(3)


def test_s13_the_cost_of_many_that_wait_on_one_channel_is_linear() -> None:
    # n goroutines wait on a shared channel and one of their own, and are woken by their own, first come first, last
    # come first, and by closing the shared one: withdrawing a case must not look through the others.
    # Goroutines without stacks, whose own cost is the same for few and for many. The processor's time counts: that
    # others use it, too, is nobody's fault.
    async def wait(*cases: Case) -> Selected:
        return await aselect(*cases)

    def run(n: int) -> float:
        started = time.process_time()
        for order in (1, -1):
            shared, own = chan(), [chan(1) for _ in range(n)]
            goroutines = [go(wait, recv(shared), recv(ch)) for ch in own]
            parked(goroutines[-1])
            for ch in own[::order]:
                ch.send(None)
            assert {selected.index for selected in results(goroutines)} == {1}
        shared = chan()
        goroutines = [go(wait, recv(shared), recv(chan())) for _ in range(n)]
        parked(goroutines[-1])
        shared.close()
        assert {selected.ok for selected in results(goroutines)} == {False}
        return time.process_time() - started

    small, factor = 1200, 12
    # Without the collector: it looks through what the tests before have left, once more for every so many objects.
    gc.collect()
    gc.disable()
    try:
        run(small)
        run(small * factor)
        # Linear: 12 times as long, or 20 as caches are. By looking through those that wait: 70 times and more.
        least = min(run(small) for _ in range(5))
        assert min(run(small * factor) for _ in range(3)) < 40 * least
    finally:
        gc.enable()


def test_s13_many_that_wait_on_one_channel_are_woken_by_their_own_or_by_its_end() -> None:
    n = count(1200)
    for order in (1, -1):
        shared, own = chan(), [chan(1) for _ in range(n)]
        goroutines = [go(select, recv(shared), recv(ch)) for ch in own]
        parked(goroutines[-1])
        for ch in own[::order]:
            ch.send(None)
        assert {selected.index for selected in results(goroutines)} == {1}
    shared = chan()
    goroutines = [go(select, recv(shared), recv(chan())) for _ in range(n)]
    parked(goroutines[-1])
    shared.close()
    assert {selected.ok for selected in results(goroutines)} == {False}


def test_s13_many_selects_leave_no_memory_behind() -> None:
    out = check_child(
        f"""
        import gc
        from goslings import chan, go, recv, select, send
        def resident():
            gc.collect()
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * 4096
        n = {count(50_000)}
        def sender(ch, n, silent):
            for i in range(n):
                select(send(ch, i), recv(silent))
        def receiver(ch, silent):
            total = 0
            while True:
                selected = select(recv(ch), recv(silent))
                if not selected.ok:
                    return total
                total += 1
        def run(n):
            ch, silent = chan(), chan()
            r = go(receiver, ch, silent)
            go(sender, ch, n, silent).result()
            ch.close()
            return r.result()
        assert run(n // 4) == n // 4
        before = resident()
        assert run(n) == n
        grown = resident() - before
        print("flat" if grown < 1_500_000 else grown)
        """
    )
    assert out == "flat\n"


def test_s04_s12_every_pair_of_phrasings_meets(two_workers: None) -> None:
    # Each way to send with each way to receive, whoever comes first.
    ways_to_send: list[Callable[[Any, Any], Any]] = [
        lambda ch, v: ch.send(v),
        lambda ch, v: ch.send(v, timeout=SECONDS),
        lambda ch, v: ch.sender().send(v),
        lambda ch, v: select(send(ch, v)),
        lambda ch, v: some(send(ch, v)),
        lambda ch, v: some(recv(chan()), send(ch, v)),
        lambda ch, v: some(send(None, 0), send(chan(), 0), send(ch, v), send(ch, v)),
    ]
    ways_to_receive: list[Callable[[Any], Any]] = [
        lambda ch: ch.recv(),
        lambda ch: ch.recv(timeout=SECONDS),
        lambda ch: ch.recv_ok()[0],
        lambda ch: ch.receiver().recv(),
        lambda ch: next(ch),
        lambda ch: select(recv(ch)).value,
        lambda ch: some(recv(chan()), recv(ch)).value,
        lambda ch: some(recv(ch), send(chan(), 0), recv(ch.receiver()), recv(None)).value,
    ]
    for sends, receives in itertools.product(ways_to_send, ways_to_receive):
        for first in ("sender", "receiver"):
            ch, value = chan(), object()
            if first == "sender":
                g = go(sends, ch, value)
                parked(g)
                assert receives(ch) is value
                g.result(SECONDS)
            else:
                g = go(receives, ch)
                parked(g)
                sends(ch, value)
                assert g.result(SECONDS) is value
            assert not ch.try_send(0) and ch.try_recv(None) is None
