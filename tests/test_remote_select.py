"""`goslings.select` among channels of `connect`, of pools and of this process: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import goslings
import pytest
from goslings import Closed, Selected, aselect, chan, go, processes, recv, select, send
from goslings.processes import Disconnected, Processes, Shared, disconnect
from helpers import check_child, count, kill_all, parked, results, start_child, until

connect = functools.partial(processes.connect, timeout=60)
SECONDS = 60.0
KEY = b"a key that both sides know"
HERE = ("127.0.0.1", 0)


class Store:
    """What the tests serve: channels."""

    def __init__(self) -> None:
        self.made: list[chan[Any]] = []

    def new_chan(self, capacity: int = 0) -> Any:
        self.made.append(chan(capacity))
        return self.made[-1]

    def select_there(self, one: Any, other: Any) -> Any:
        chosen = select(recv(one), recv(other), timeout=SECONDS)
        return None if chosen is None else (chosen.index, chosen.value)

    def forward(self, source: Any, sink: Any) -> int:
        moved = 0
        for value in source:
            sink.send(value)
            moved += 1
        return moved


@contextlib.contextmanager
def served() -> Iterator[tuple[Store, Any]]:
    store = Store()
    with processes.serve(store, HERE, KEY, grace=0.1, handshake=60) as server:
        proxy = connect(server.address, KEY)
        yield store, proxy
        disconnect(proxy)


@pytest.fixture
def one() -> Iterator[tuple[Store, Any]]:
    with served() as both:
        yield both


@pytest.fixture
def other() -> Iterator[tuple[Store, Any]]:
    with served() as both:
        yield both


def test_what_is_ready_is_chosen_wherever_it_is(one: tuple[Store, Any], other: tuple[Store, Any]) -> None:
    here, there, elsewhere = chan[int](1), one[1].new_chan(1), other[1].new_chan(1)
    cases = recv(here), recv(there), recv(elsewhere)
    assert select(*cases, timeout=0) is None
    assert select(*cases, timeout=0.01) is None
    for index, channel in enumerate((here, there, elsewhere)):
        channel.send(index)
        chosen = select(*cases, timeout=SECONDS)
        assert chosen is not None and (chosen.index, chosen.value, chosen.ok) == (index, index, True)
        assert chosen.chan is channel
    there.close()
    chosen = select(*cases, timeout=SECONDS)
    assert chosen is not None and (chosen.index, chosen.value, chosen.ok) == (1, None, False)


def test_who_waits_is_woken_from_anywhere(one: tuple[Store, Any], other: tuple[Store, Any]) -> None:
    here, there, elsewhere = chan[int](), one[1].new_chan(), other[1].new_chan()
    channels = [here, there, elsewhere]
    for round_ in range(count(10)):
        for channel in channels:
            waiting: Any = go(lambda: select(*map(recv, channels), timeout=SECONDS))
            parked(waiting)
            channel.send(round_, SECONDS)
            assert waiting.result(SECONDS).value == round_


def test_a_send_is_carried_out_once(one: tuple[Store, Any], other: tuple[Store, Any]) -> None:
    """Sends at three places, of which one has a receiver now and then."""
    here, there, elsewhere = chan[int](), one[1].new_chan(), other[1].new_chan()
    channels = [here, there, elsewhere]
    number = count(20)

    def send_all() -> None:
        for value in range(number):
            chosen = select(*(send(channel, value) for channel in channels), timeout=SECONDS)
            assert chosen is not None

    sending = go(send_all)
    got = [random.choice(channels).recv(SECONDS) for _ in range(number)]
    sending.result(SECONDS)
    assert got == list(range(number))
    for channel in channels:
        assert channel.try_recv(None) is None


def test_a_send_on_a_closed_channel_says_which(one: tuple[Store, Any]) -> None:
    here, there = chan[int](), one[1].new_chan()
    there.close()
    with pytest.raises(Closed, match="case 1"):
        select(recv(here), send(there, 1), timeout=SECONDS)


def test_views_choose_in_their_direction(one: tuple[Store, Any]) -> None:
    there = one[1].new_chan(1)
    assert there.sender() == there == there.receiver() and len({there, there.sender()}) == 1
    chosen = select(send(there.sender(), 4), recv(chan[int]()), timeout=SECONDS)
    assert chosen is not None and chosen.index == 0
    chosen = select(recv(there.receiver()), recv(chan[int]()), timeout=SECONDS)
    assert chosen is not None and chosen.value == 4
    with pytest.raises(TypeError):
        send(there.receiver(), 1)
    with pytest.raises(TypeError):
        recv(there.sender())


def test_tasks_choose_too(one: tuple[Store, Any]) -> None:
    here, there = chan[int](1), one[1].new_chan(1)

    async def main() -> list[Any]:
        found = []
        await there.asend(1)
        found.append(await aselect(recv(here), recv(there), timeout=SECONDS))
        await here.asend(2)
        found.append(await aselect(recv(here), recv(there), timeout=SECONDS))
        found.append(await aselect(recv(here), recv(there), timeout=0.01))
        task = asyncio.create_task(_aselect(here, there))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return found

    async def _aselect(*channels: Any) -> Any:
        return await aselect(*map(recv, channels))

    first, second, third = asyncio.run(main())
    assert (first.index, first.value, second.index, second.value, third) == (1, 1, 0, 2, None)


def test_whoever_gives_up_loses_nothing(one: tuple[Store, Any], other: tuple[Store, Any]) -> None:
    """Receivers with short timeouts, and cancelled ones: each value is seen once, in the order of its channel."""
    here, there, elsewhere = chan[Any](), one[1].new_chan(), other[1].new_chan(3)
    channels = [here, there, elsewhere]
    number = count(60)
    got: list[tuple[int, int]] = []
    done = chan[None]()

    def produce(place: int) -> None:
        for n in range(number):
            channels[place].send((place, n), SECONDS)

    def take() -> bool:
        chosen: Selected[Any] | None = select(*map(recv, channels), recv(done), timeout=random.uniform(0, 0.004))
        if chosen is None:
            return True
        if chosen.index == 3:
            return False
        got.append(chosen.value)
        return True

    def consume() -> None:
        while take():
            pass

    def give_up() -> None:
        while not done.closed:
            goroutine = go(take)
            goslings.sleep(random.uniform(0, 0.003))
            goroutine.cancel()
            goroutine.join(SECONDS)

    consumers = [go(consume), go(consume), go(give_up)]
    results([go(produce, place) for place in range(3)])
    until(lambda: len(got) == 3 * number)
    done.close()
    results(consumers)
    assert Counter(got) == Counter((place, n) for place in range(3) for n in range(number))


def test_a_client_that_is_killed_in_a_select_takes_nothing_along() -> None:
    jobs, others = chan[int](10), chan[int](10)
    number = count(200)
    code = """
        import sys
        from goslings import chan, recv, select
        from goslings.processes import connect
        with connect({address!r}, {key!r}, timeout=60) as both:
            jobs, others = both.jobs, both.others
            print("ready", flush=True)
            while True:
                chosen = select(recv(jobs), recv(others), recv(chan()))
                if chosen is not None:
                    print(chosen.value, flush=True)
        """

    class Both:
        def __init__(self) -> None:
            self.jobs, self.others = jobs, others

    with (
        processes.serve(Both(), HERE, KEY, expose=["jobs", "others"], grace=0.1, handshake=60) as server,
        start_child(code.format(address=server.address, key=KEY)) as child,
    ):
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        seen: list[int] = []
        feeding = go(lambda: [(jobs if n % 2 else others).send(n) for n in range(number)])
        while len(seen) < number // 3:
            seen.append(int(child.stdout.readline()))
        kill_all(child)
        seen += [int(line) for line in child.stdout.read().splitlines() if line]
        child.wait()
        until(lambda: server.connections == 0)
        while len(set(seen)) < number:
            chosen = select(recv(jobs), recv(others), timeout=SECONDS)
            assert chosen is not None, f"{number - len(set(seen))} values are lost"
            seen.append(chosen.value)
        feeding.result(SECONDS)
    # Told twice at most: what was printed, and not yet said to be taken, when the child was killed.
    assert sum(n - 1 for n in Counter(seen).values()) <= 2


def test_values_that_cannot_travel_are_told_where_they_belong(one: tuple[Store, Any]) -> None:
    store, proxy = one
    there = proxy.new_chan(2)
    with pytest.raises(TypeError, match=r"value\['lock'\]"):
        there.send({"lock": goslings.Mutex()})
    with pytest.raises(TypeError, match=r"\[0\]"):
        select(send(there, [goslings.Mutex()]), recv(chan[int]()))
    store.made[0].send(goslings.Mutex())
    with pytest.raises((TypeError, processes.RemoteError)):
        there.recv(SECONDS)
    assert len(store.made[0]) == 1, "what cannot be sent is not received"
    with pytest.raises(ValueError, match="at most"):
        there.send(bytes(65 * 1024 * 1024))


def test_what_a_select_lends_is_given_back(one: tuple[Store, Any], other: tuple[Store, Any]) -> None:
    """The value goes to and fro between two deciders before it is taken."""
    there, elsewhere = one[1].new_chan(), other[1].new_chan()

    class Thing:
        def name(self) -> str:
            return "thing"

    thing = Shared(Thing())
    sending: Any = go(lambda: select(send(there, thing), send(elsewhere, thing), timeout=SECONDS))
    goslings.sleep(0.05)
    got = one[0].made[0].recv(SECONDS)
    assert sending.result(SECONDS).index == 0 and got.name() == "thing"
    del got
    for _, proxy in (one, other):
        session = type(proxy)._goslings_remote(proxy)[0]
        until(lambda session=session: gc.collect() >= 0 and not session.references._lent)  # type: ignore[misc]


def test_channels_of_a_connection_go_to_workers_and_those_of_workers_to_a_connection(one: tuple[Store, Any]) -> None:
    _, proxy = one
    there = proxy.new_chan()
    with Processes(1) as workers:
        sending = workers.go(lambda: [there.send(n) for n in range(5)] and there.close())
        assert list(there) == list(range(5))
        sending.result(SECONDS)
        made = workers.go(chan[int]).result(SECONDS)
        back = proxy.new_chan(10)
        forwarding = go(proxy.forward, made, back)
        chosen = 0
        for n in range(5):
            assert select(send(made, n), recv(chan[int]()), timeout=SECONDS) is not None
            chosen += 1
        made.close()
        assert forwarding.result(SECONDS) == chosen == 5
        back.close()
        assert list(back) == list(range(5))


def test_a_channel_is_passed_on_from_one_connection_to_another(
    one: tuple[Store, Any], other: tuple[Store, Any]
) -> None:
    there, elsewhere = one[1].new_chan(), other[1].new_chan()
    moving = go(other[1].forward, there, elsewhere)
    for n in range(10):
        there.send(n, SECONDS)
        assert elsewhere.recv(SECONDS) == n
    there.close()
    assert moving.result(SECONDS) == 10


def test_the_server_chooses_among_channels_of_its_client(one: tuple[Store, Any]) -> None:
    mine, more = chan[int](), chan[int]()
    choosing = go(one[1].select_there, mine, more.receiver())
    more.send(3, SECONDS)
    assert choosing.result(SECONDS) == (1, 3)


def test_the_end_of_a_connection_is_told_to_who_waits_in_a_select(one: tuple[Store, Any]) -> None:
    here, there = chan[int](), one[1].new_chan()
    waiting: Any = go(lambda: select(recv(here), recv(there)))
    parked(waiting)
    until(lambda: bool(one[0].made))
    disconnect(one[1])
    assert isinstance(waiting.exception(SECONDS), Disconnected)
    with pytest.raises(Disconnected):
        select(recv(here), recv(there), timeout=SECONDS)
    with pytest.raises(Disconnected):
        there.send(1)


def test_the_pump_ends_with_the_last_wait() -> None:
    check_child("""
        from goslings import chan, go, recv, select, stacks
        from goslings.processes import connect, serve, _pump
        import time
        jobs = chan()
        with serve(jobs, ("127.0.0.1", 0), b"key", handshake=60) as server:
            with connect(server.address, b"key", timeout=60) as there:
                assert select(recv(there), recv(chan()), timeout=0.01) is None
        end = time.monotonic() + 60
        while _pump._goroutine is not None and time.monotonic() < end:
            time.sleep(0.01)
        assert _pump._goroutine is None and not _pump._waiting
        """)


def test_selects_of_one_client_have_a_limit() -> None:
    jobs = chan[int]()
    with (
        processes.serve(jobs, HERE, KEY, calls=5, grace=0.1, handshake=60) as server,
        connect(server.address, KEY) as there,
    ):
        waiting = [go(there.recv) for _ in range(8)]
        until(lambda: sum(each.done() for each in waiting) == 3)
        failed = [each for each in waiting if each.done()]
        for each in failed:
            assert "more than 5 calls" in str(each.exception())
        for each in waiting:
            if each not in failed:
                jobs.send(1, SECONDS)
        assert [each.result(SECONDS) for each in waiting if each not in failed] == [1] * 5


def test_a_connection_that_nobody_refers_to_ends_though_the_other_side_waits_for_a_channel_of_it() -> None:
    store = Store()
    with processes.serve(store, HERE, KEY, grace=0.1, handshake=60) as server:
        proxy = connect(server.address, KEY)
        mine = chan[int]()
        there = proxy.new_chan()
        calling = go(proxy.forward, mine, there)
        until(lambda: bool(store.made))
        calling.cancel()
        assert calling.join(SECONDS)
        del proxy, there, calling
        until(lambda: gc.collect() >= 0 and server.connections == 0)
        assert not mine.try_send(1), "nobody waits there any more"
