"""References between the two sides of a connection: objects live as long as a proxy does, whatever goes wrong."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import goslings
import pytest
from goslings import AtomicInt, chan, go, processes
from goslings.processes import RemoteError, Shared, disconnect
from goslings.processes._remote._session import Session
from helpers import count, results, until

connect = functools.partial(processes.connect, timeout=60)
KEY = b"a key that both sides know"
HERE = ("127.0.0.1", 0)


class Thing:
    def name(self) -> str:
        return "thing"


def _explode() -> None:
    raise ValueError("it cannot be rebuilt")


class Unreadable:
    """Can be pickled, and not be unpickled."""

    def __reduce__(self) -> Any:
        return _explode, ()


class Store:
    """What is served."""

    def __init__(self) -> None:
        self.things: list[weakref.ref[Thing]] = []
        self.waiting = AtomicInt()

    def thing(self) -> Shared:
        thing = Thing()
        self.things.append(weakref.ref(thing))
        return Shared(thing)

    def unreadable(self) -> list[Any]:
        return [Unreadable(), self.thing()]

    def take(self, *values: Any) -> int:
        return len(values)

    def wait(self) -> None:
        self.waiting.add(1)
        chan[None]().recv()

    def keep(self, channel: Any) -> None:
        self.channel = channel

    def let_go(self) -> None:
        del self.channel


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def proxy(store: Store) -> Iterator[Any]:
    with processes.serve(store, HERE, KEY, grace=0.1, calls=100, handshake=60) as server:
        proxy = connect(server.address, KEY)
        yield proxy
        disconnect(proxy)


def all_go(things: list[weakref.ref[Thing]]) -> None:
    until(lambda: gc.collect() >= 0 and not any(ref() for ref in things))


def test_an_answer_that_cannot_be_read_keeps_nothing(store: Store, proxy: Any) -> None:
    with pytest.raises(ValueError, match="cannot be rebuilt"):
        proxy.unreadable()
    all_go(store.things)


def test_arguments_that_cannot_be_read_keep_nothing(proxy: Any) -> None:
    thing = Thing()
    known = [weakref.ref(thing)]
    with pytest.raises(ValueError, match="cannot be rebuilt"):
        proxy.take(Unreadable(), Shared(thing))
    del thing
    all_go(known)


def test_a_value_that_cannot_be_read_keeps_nothing(store: Store, proxy: Any) -> None:
    """Sent on a channel of the server, in a select with others."""
    channel, thing = chan[Any](), Thing()
    known = [weakref.ref(thing)]
    proxy.keep(channel)
    sending = go(store.channel.send, [Unreadable(), Shared(thing)])
    del thing
    with pytest.raises(ValueError, match="cannot be rebuilt"):
        sending.result(60)
    del sending
    all_go(known)


def test_what_is_refused_because_there_is_too_much_keeps_nothing(store: Store, proxy: Any) -> None:
    waiting = [go(proxy.wait) for _ in range(100)]
    until(lambda: store.waiting.load() == 100)
    thing = Thing()
    known = [weakref.ref(thing)]
    with pytest.raises(RemoteError, match="more than 100"):
        proxy.take(Shared(thing))
    del thing
    all_go(known)
    for each in waiting:
        each.cancel()
    assert all(each.join(60) for each in waiting)


def test_calls_that_are_cancelled_at_any_time_keep_nothing(store: Store, proxy: Any) -> None:
    given: list[weakref.ref[Thing]] = []

    def give(round_: int) -> None:
        thing = Thing()
        given.append(weakref.ref(thing))
        cancel_soon(go(proxy.take, Shared(thing)), round_)

    def cancel_soon(goroutine: Any, round_: int) -> None:
        for _ in range(round_ % 7):
            goslings.gosched()
        goroutine.cancel()
        goroutine.join(60)

    def many() -> None:
        for round_ in range(count(80)):
            cancel_soon(go(proxy.thing), round_)
            give(round_)

    results([go(many) for _ in range(3)])
    all_go(store.things + given)
    assert proxy.take() == 0


def test_proxies_that_die_while_they_come_again_keep_nothing(store: Store, proxy: Any) -> None:
    """The last proxy of an object dies on one worker while the reader, on another, looks whether there is one."""

    def many() -> None:
        for _ in range(count(300)):
            proxy.thing()

    results([go(many) for _ in range(3)])
    all_go(store.things)


def test_a_cast_keeps_no_answer(store: Store, proxy: Any) -> None:
    session = type(proxy)._goslings_remote(proxy)[0]
    session.cast(0, "thing", ())
    until(lambda: len(store.things) == 1)
    all_go(store.things)


def test_values_on_their_way_go_back_when_nobody_refers_to_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has received them, and has not yet said so when the client lets its connection go."""
    store, mine = Store(), chan[int](5)
    with processes.serve(store, HERE, KEY, grace=0.1, handshake=60) as server:
        proxy = connect(server.address, KEY)
        proxy.keep(mine)
        (theirs,) = server._sessions
        post = Session.post
        monkeypatch.setattr(Session, "post", lambda self, message: None if self is theirs else post(self, message))
        for n in range(3):
            mine.send(n)
        assert [store.channel.recv(60) for _ in range(3)] == [0, 1, 2]
        assert len(mine) == 0
        del proxy
        store.let_go()
        until(lambda: gc.collect() >= 0 and server.connections == 0)
        until(lambda: len(mine) == 3)
        assert [mine.recv() for _ in range(3)] == [0, 1, 2]
