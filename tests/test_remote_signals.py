"""KeyboardInterrupt between any two instructions of the main thread: nobody else is held up, and no value is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from goslings import AtomicInt, chan, go, processes, recv, select
from goslings.processes import Disconnected, Server, Shared, _select, disconnect
from helpers import until
from interrupts import everywhere

KEY = b"a key that both sides know"
HERE = ("127.0.0.1", 0)


class Thing:
    def name(self) -> str:
        return "thing"


class Store:
    def __init__(self) -> None:
        self.jobs = chan[int](4)

    def channel(self) -> chan[int]:
        return self.jobs

    def thing(self) -> Shared:
        return Shared(Thing())

    def take(self, value: Any) -> str:
        return str(value.name())


class Client:
    """One who calls, and connects anew if that is needed."""

    def __init__(self, store: Store, server: Server) -> None:
        self.store, self.server = store, server
        self.connect()

    def connect(self) -> None:
        self.proxy = processes.connect(self.server.address, KEY, timeout=60)
        self.channel = self.proxy.channel()

    def leave(self) -> None:
        disconnect(self.proxy)
        until(lambda: self.server.connections == 0, 60)

    def check(self) -> None:
        """Others can call, or are told why not: it was in the middle of sending."""
        try:
            assert go(lambda: self.proxy.thing().name()).result(60) == "thing"
        except Disconnected:
            self.leave()
            self.connect()


@pytest.fixture
def client() -> Iterator[Client]:
    store = Store()
    with processes.serve(store, HERE, KEY, grace=0.1, handshake=60) as server:
        client = Client(store, server)
        yield client
        client.leave()


CALLS: dict[str, Callable[[Client], Any]] = {
    "call": lambda client: client.proxy.channel(),
    "lend": lambda client: client.proxy.take(Shared(Thing())),
    "borrow": lambda client: client.proxy.thing().name(),
    "disconnect": lambda client: disconnect(client.proxy),
}

RECEIVES: dict[str, Callable[[Client], Any]] = {
    "try_recv": lambda client: client.channel.try_recv(None),
    "recv": lambda client: client.channel.recv(60),
    "select": lambda client: select(recv(client.channel), recv(chan[int]()), timeout=60),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # cut in the callback of a weakref
@pytest.mark.parametrize("name", list(CALLS))
def test_an_interrupt_anywhere_holds_up_nobody(name: str, client: Client) -> None:
    for _ in everywhere(lambda: CALLS[name](client)):
        client.check()


@pytest.mark.parametrize("name", list(RECEIVES))
def test_an_interrupt_anywhere_loses_no_value(name: str, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either the receive came to its end, though it may have been cut as it returned, or the value is back."""
    jobs, taken = client.store.jobs, AtomicInt()
    take = _select.Owed.taken
    monkeypatch.setattr(_select.Owed, "taken", lambda owed: (taken.add(1), take(owed)))
    jobs.send(1)
    for value in everywhere(lambda: RECEIVES[name](client)):
        client.check()
        until(lambda: len(jobs) == 1 or taken.load() == 1, 60)
        if value is not None:
            assert taken.load() == 1
        if taken.swap(0):
            jobs.try_recv(None)  # one that was cut before it had told the other side
            jobs.send(1)
