"""`goslings.processes.serve` and `connect`: objects of other processes and machines."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import goslings
import pytest
from goslings import Closed, WouldBlock, chan, go, processes
from goslings.processes import (
    AuthenticationError,
    Disconnected,
    RemoteError,
    RemoteTraceback,
    Server,
    Shared,
    disconnect,
)
from helpers import SECONDS, check_child, count, kill_all, results, start_child, until

DOCS = Path(__file__).resolve().parent.parent / "docs" / "remote.md"
# Only a failure takes so long, however busy the machine is.
connect = functools.partial(processes.connect, timeout=60)
aconnect = functools.partial(processes.aconnect, timeout=60)
serve = functools.partial(processes.serve, handshake=60)
KEY = b"a key that both sides know"
HERE = ("127.0.0.1", 0)
Start = Callable[[Callable[[], Any]], Callable[[], Any]]
Run = Callable[[Any], Any]


class NotToBePickled(Exception):
    """Can be written and not be read."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("what a pity")


class Store:
    """What the tests serve."""

    def __init__(self) -> None:
        self.data: dict[Any, Any] = {}
        self.version = 7
        self.gate: chan[Any] = chan()
        self.cancelled = goslings.Event()
        self.entered: chan[None] = chan(10_000)

    def get(self, key: Any, default: Any = None) -> Any:
        return self.data.get(key, default)

    def put(self, key: Any, value: Any) -> None:
        self.data[key] = value

    def echo(self, *args: Any, **kwargs: Any) -> Any:
        return (args, kwargs) if kwargs else args[0]

    def fail(self) -> None:
        raise LookupError("not there")

    def fail_oddly(self) -> None:
        raise NotToBePickled(1, 2)

    def leave(self) -> None:
        raise SystemExit(3)

    def end_goroutine(self) -> None:
        goslings.goexit()

    def unpicklable(self) -> Any:
        return threading.Lock()

    def wait(self) -> Any:
        self.entered.send(None)
        try:
            return self.gate.recv()
        except goslings.Cancelled:
            self.cancelled.set()
            raise

    async def later(self, value: Any) -> Any:
        await goslings.asleep(0)
        return value

    def many(self, n: int) -> bytes:
        return bytes(n)

    def new_chan(self, capacity: int) -> Any:
        return chan(capacity)

    def receiver(self) -> Any:
        self.kept: chan[int] = chan(3)
        return self.kept.receiver()

    def total(self, numbers: Any) -> int:
        return sum(numbers)

    def same(self, one: Any, other: Any) -> bool:
        return one is other

    def call_back(self, thing: Any, value: Any) -> Any:
        return thing.double(value)

    def child(self) -> Any:
        self.made = Store()
        return Shared(self.made, ["get", "put"])

    def __getitem__(self, key: Any) -> Any:
        return self.data[key]

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.data)

    def _private(self) -> None:
        raise AssertionError("not to be reached")


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture(params=["tcp", "unix"])
def server(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Iterator[Server]:
    where = HERE if request.param == "tcp" else tmp_path / "socket"
    with serve(store, where, KEY, grace=0.1) as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Any]:
    proxy = connect(server.address, KEY)
    yield proxy
    disconnect(proxy)


@contextlib.contextmanager
def served(obj: Any, **options: Any) -> Iterator[Any]:
    with serve(obj, HERE, KEY, grace=0.1, **options) as server, connect(server.address, KEY) as proxy:
        yield proxy


# Calls


def test_methods_are_called_there(start: Start, store: Store, proxy: Any) -> None:
    start(lambda: proxy.put("a", [1, 2]))()
    assert store.data == {"a": [1, 2]}
    assert start(lambda: proxy.get("a"))() == [1, 2]
    assert proxy.get("b", default="none") == "none"
    assert proxy.echo(1, two=2) == ((1,), {"two": 2})
    assert proxy.echo(b"x" * 3_000_000) == b"x" * 3_000_000


def test_async_methods_are_awaited_there(proxy: Any) -> None:
    assert proxy.later([3]) == [3]


def test_tasks_await_calls(run: Run, server: Server, store: Store) -> None:
    async def main() -> Any:
        proxy = await aconnect(server.address, KEY)
        with pytest.raises(RuntimeError, match=r"acall\(\)"):
            proxy.get("a")
        answers = await asyncio.gather(*(proxy.echo.acall(n) for n in range(20)))
        with pytest.raises(LookupError):
            await proxy.fail.acall()
        disconnect(proxy)
        return answers

    assert run(main()) == list(range(20))


def test_async_goroutines_await_calls(proxy: Any) -> None:
    async def ask(n: int) -> Any:
        return await proxy.echo.acall(n)

    assert results(go(ask, n) for n in range(20)) == list(range(20))


def test_many_call_at_once_over_one_connection(server: Server, proxy: Any) -> None:
    def ask(n: int) -> bool:
        return all(proxy.echo((n, i)) == (n, i) for i in range(20))

    threads = []
    told: list[bool] = []
    for n in range(5):
        threads.append(threading.Thread(target=lambda n=n: told.append(ask(-1 - n))))
        threads[-1].start()
    assert all(results(go(ask, n) for n in range(count(50))))
    for thread in threads:
        thread.join(SECONDS)
    assert told == [True] * 5
    assert server.connections == 1


def test_a_slow_call_holds_up_nobody(store: Store, proxy: Any) -> None:
    slow = [go(proxy.wait) for _ in range(10)]
    for _ in slow:
        store.entered.recv(SECONDS)
    assert proxy.echo(1) == 1
    for n in range(10):
        store.gate.send(n, SECONDS)
    assert sorted(results(slow)) == list(range(10))


def test_answers_come_in_any_order(store: Store, proxy: Any) -> None:
    first = go(proxy.wait)
    store.entered.recv(SECONDS)
    assert [proxy.echo(n) for n in range(5)] == list(range(5))
    assert not first.done()
    store.gate.send("last")
    assert first.result(SECONDS) == "last"


# Exceptions


def test_exceptions_come_back_with_the_traceback_of_there(proxy: Any) -> None:
    with pytest.raises(LookupError, match="not there") as caught:
        proxy.fail()
    cause = caught.value.__cause__
    assert isinstance(cause, RemoteTraceback)
    assert 'raise LookupError("not there")' in str(cause) and "_session.py" not in str(cause)


def test_exceptions_that_cannot_travel_are_told_as_text(proxy: Any) -> None:
    with pytest.raises(RemoteError, match="NotToBePickled: what a pity"):
        proxy.fail_oddly()


@pytest.mark.parametrize(("method", "text"), [("leave", "SystemExit: 3"), ("end_goroutine", "ended its goroutine")])
def test_a_call_that_leaves_is_answered(proxy: Any, method: str, text: str) -> None:
    with pytest.raises((RemoteError, RuntimeError), match=text):
        getattr(proxy, method)()
    assert proxy.echo(1) == 1


def test_what_cannot_be_pickled_is_an_error_of_the_call(proxy: Any) -> None:
    with pytest.raises(TypeError, match="lock"):
        proxy.unpicklable()
    with pytest.raises(TypeError, match="lock"):
        proxy.echo(threading.Lock())
    assert proxy.echo(1) == 1


# What is exposed


def test_public_methods_are_exposed_and_nothing_else(proxy: Any) -> None:
    assert "get" in dir(proxy) and "_private" not in dir(proxy)
    for name in ("_private", "data", "version", "nothing"):
        with pytest.raises(AttributeError, match=name):
            getattr(proxy, name)
    with pytest.raises(TypeError, match="len"):
        len(proxy)
    with pytest.raises(TypeError, match="subscript"):
        proxy["a"]
    with pytest.raises(AttributeError, match="cannot be set"):
        proxy.version = 8


@pytest.mark.parametrize("name", ["_private", "data", "__class__", "__reduce__", "__init__", "get.__globals__"])
def test_the_server_itself_refuses_what_is_not_exposed(proxy: Any, name: str) -> None:
    session, number, _ = type(proxy)._goslings_remote(proxy)
    for args in ((), None):
        with pytest.raises(AttributeError, match="does not expose"):
            session.call(number, name, args)


def test_a_list_exposes_attributes_and_python_s_own_methods(store: Store) -> None:
    store.data.update(a=1, b=2)
    names = ["version", "get", "__getitem__", "__len__", "__iter__"]
    with served(store, expose=names) as proxy:
        assert (proxy.version, proxy["a"], len(proxy), list(proxy), proxy.get("b")) == (7, 1, 2, ["a", "b"], 2)
        with pytest.raises(KeyError):
            proxy["c"]
        with pytest.raises(AttributeError):
            proxy.put("a", 1)
        store.version = 8
        assert proxy.version == 8


@pytest.mark.parametrize(
    ("expose", "error"),
    [
        (["_private"], ValueError),
        (["__class__"], ValueError),
        (["__reduce__"], ValueError),
        (["missing"], AttributeError),
        ("get", TypeError),
        ([1], TypeError),
    ],
)
def test_what_cannot_be_exposed_is_refused_at_once(store: Store, expose: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        serve(store, HERE, KEY, expose=expose)


def test_objects_go_by_reference_if_shared(store: Store, proxy: Any) -> None:
    child = proxy.child()
    child.put("x", 1)
    assert store.made.data == {"x": 1}
    with pytest.raises(AttributeError):
        child.echo(1)
    assert proxy.same(child, child)
    assert "Store" in repr(child)


def test_the_server_calls_objects_of_the_client(proxy: Any) -> None:
    class Doubling:
        def double(self, value: int) -> int:
            return 2 * value

    assert proxy.call_back(Shared(Doubling()), 21) == 42


def test_objects_are_let_go_with_their_last_proxy(store: Store, proxy: Any) -> None:
    session, *_ = type(proxy)._goslings_remote(proxy)
    child = proxy.child()
    assert len(session.references._borrowed) == 1
    del child
    gc.collect()
    until(lambda: not session.references._borrow_count)
    again = proxy.child()
    again.put("y", 2)
    assert store.made.data == {"y": 2}


def test_proxies_stay_in_their_connection(server: Server, proxy: Any) -> None:
    import copy
    import pickle

    with pytest.raises(TypeError, match="connect again"):
        pickle.dumps(proxy)
    with pytest.raises(TypeError, match="copied"):
        copy.copy(proxy)
    with connect(server.address, KEY) as other, pytest.raises(pickle.PicklingError, match="through no other"):
        other.echo(proxy)


# Channels


def test_a_channel_of_the_server_is_used_here(proxy: Any) -> None:
    ch = proxy.new_chan(2)
    ch.send(1)
    assert ch.try_send(2) and not ch.try_send(3)
    assert (len(ch), ch.capacity, ch.closed, bool(ch)) == (2, 2, False, True)
    with pytest.raises(TimeoutError):
        ch.send(3, timeout=0.01)
    assert (ch.recv(), ch.recv_ok()) == (1, (2, True))
    with pytest.raises(TimeoutError):
        ch.recv(0.01)
    with pytest.raises(WouldBlock):
        ch.try_recv()
    assert ch.try_recv(None) is None
    ch.send(4)
    ch.close()
    assert ch.closed and list(ch) == [4]
    with pytest.raises(Closed):
        ch.recv()
    with pytest.raises(Closed):
        ch.send(5)
    with pytest.raises(Closed):
        ch.close()


def test_a_channel_of_the_client_is_used_there(proxy: Any) -> None:
    numbers: chan[int] = chan()
    total = go(proxy.total, numbers)
    for n in range(10):
        numbers.send(n, SECONDS)
    numbers.close()
    assert total.result(SECONDS) == 45
    assert proxy.echo(numbers) is numbers


def test_a_channel_is_served_itself() -> None:
    jobs: chan[Any] = chan(10)
    with serve(jobs, HERE, KEY) as server:
        one, other = connect(server.address, KEY), connect(server.address, KEY)
        one.send("job")
        assert other.recv(SECONDS) == "job"
        waiting = go(other.recv)
        until(lambda: len(jobs) == 0)
        jobs.send("mine")
        assert waiting.result(SECONDS) == "mine"
        disconnect(one)
        disconnect(other)


def test_views_of_channels_have_one_direction(store: Store, proxy: Any) -> None:
    numbers = proxy.receiver()
    store.kept.send(3)
    assert numbers.recv() == 3
    assert not hasattr(numbers, "send")
    session, number, _ = type(numbers)._goslings_remote(numbers)
    with pytest.raises(AttributeError, match="does not expose"):
        session.call(number, "send", (1,))


def test_coroutines_are_told_what_they_can_await_instead(run: Run, server: Server) -> None:
    async def main() -> None:
        proxy = await aconnect(server.address, KEY)
        channel = await proxy.new_chan.acall(3)
        for blocks, twin in (
            (lambda: proxy.echo(1), r"echo\.acall\(\)"),
            (channel.close, r"go\(ch\.close\)"),
            (lambda: len(channel), r"go\(len, ch\)"),
            (lambda: channel.closed, r"go\(getattr, ch, 'closed'\)"),
        ):
            with pytest.raises(RuntimeError, match=f"await {twin}"):
                blocks()
        await channel.asend(1)
        assert (await go(len, channel), await go(getattr, channel, "capacity")) == (1, 3)
        if goslings.current() is not None:
            with pytest.raises(RuntimeError, match=r"arecv\(0\)"):
                channel.try_recv()
            with pytest.raises(RuntimeError, match=r"asend\(value, 0\)"):
                channel.try_send(2)
        await go(channel.close)
        assert (await channel.arecv(), await channel.arecv_ok()) == (1, (None, False))
        disconnect(proxy)

    run(main())


@pytest.mark.parametrize("comes", ["before", "after"])
def test_a_coroutine_that_is_closed_while_it_receives_loses_nothing(comes: str, store: Store, proxy: Any) -> None:
    """As those are that are left when their event loop ends; the value comes before or after that."""
    channel = proxy.receiver()

    async def main() -> None:
        receiving = channel.arecv()
        receiving.send(None)
        if comes == "before":
            store.kept.try_send(5)
            while len(store.kept):
                await asyncio.sleep(0.001)
        receiving.close()

    asyncio.run(asyncio.wait_for(main(), 60))
    if comes == "after":
        store.kept.try_send(5)
    until(lambda: len(store.kept) == 1)
    assert channel.recv() == 5


def test_rendezvous_and_order_are_the_channel_s(proxy: Any) -> None:
    ch = proxy.new_chan(0)
    sending = [go(ch.send, n) for n in range(20)]
    got = sorted(ch.recv(SECONDS) for _ in range(20))
    assert got == list(range(20))
    assert results(sending) == [None] * 20


def test_tasks_use_remote_channels(run: Run, server: Server) -> None:
    async def main() -> list[int]:
        proxy = await aconnect(server.address, KEY)
        ch = await proxy.new_chan.acall(3)
        for n in range(3):
            await ch.asend(n)
        with pytest.raises(TimeoutError):
            await ch.asend(3, timeout=0.01)
        await go(ch.close)
        found = [n async for n in ch]
        disconnect(proxy)
        return found

    assert run(main()) == [0, 1, 2]


def test_a_receive_that_is_cancelled_loses_nothing(proxy: Any) -> None:
    ch = proxy.new_chan(100)
    taken: list[int] = []

    def receive() -> None:
        taken.append(ch.recv())

    sent = count(40)
    for n in range(sent):
        receiving = go(receive)
        if n % 2:
            goslings.gosched()
        sending = go(ch.send, n)
        receiving.cancel()
        receiving.join(SECONDS)
        sending.result(SECONDS)
    while len(taken) < sent:
        taken.append(ch.recv(SECONDS))
    assert sorted(taken) == list(range(sent))


def test_a_receiver_that_disappears_loses_nothing() -> None:
    jobs: chan[int] = chan(100)
    with serve(jobs, HERE, KEY) as server:
        for n in range(20):
            jobs.send(n)
        got = 0
        for _ in range(10):
            client = connect(server.address, KEY)
            receiving = [go(client.recv) for _ in range(3)]
            disconnect(client)
            got += sum(each.exception(SECONDS) is None for each in receiving)
        with contextlib.suppress(TimeoutError):
            while True:
                jobs.recv(0.5)
                got += 1
        # What had been handed to a receiver is with it; whatever had not is here, and what it could not tell any more.
        assert got >= 20


def test_sends_that_are_cancelled_are_carried_out_or_not(proxy: Any) -> None:
    ch = proxy.new_chan(1000)
    done = 0
    for n in range(count(40)):
        sending = go(ch.send, n)
        if n % 2:
            goslings.gosched()
        sending.cancel()
        sending.join(SECONDS)
        done += not sending.cancelled()
    assert len(ch) == done


# Cancelling, and limits of time


def test_a_call_that_is_cancelled_is_cancelled_there(store: Store, proxy: Any) -> None:
    waiting = go(proxy.wait)
    store.entered.recv(SECONDS)
    waiting.cancel()
    with pytest.raises(CancelledError):
        waiting.result(SECONDS)
    assert store.cancelled.wait(SECONDS)
    assert proxy.echo(1) == 1


def test_a_call_can_have_a_time_limit(store: Store, proxy: Any) -> None:
    with pytest.raises(TimeoutError):
        proxy.wait.within(0.01)()
    assert store.cancelled.wait(SECONDS)
    assert proxy.echo.within(SECONDS)(1) == 1


# The end


def test_the_calls_of_a_client_that_disconnects_are_cancelled(store: Store, server: Server) -> None:
    client = connect(server.address, KEY)
    waiting = go(client.wait)
    store.entered.recv(SECONDS)
    disconnect(client)
    with pytest.raises(Disconnected, match="closed here"):
        waiting.result(SECONDS)
    assert store.cancelled.wait(SECONDS)
    until(lambda: server.connections == 0)
    with pytest.raises(Disconnected):
        client.echo(1)


def test_a_server_that_shuts_down_tells_those_who_wait(store: Store, server: Server) -> None:
    client = connect(server.address, KEY)
    waiting = go(client.wait)
    store.entered.recv(SECONDS)
    assert not server.shutdown(0.01)
    with pytest.raises(Disconnected, match="ended"):
        waiting.result(SECONDS)
    with pytest.raises(Disconnected):
        client.echo(1)
    with pytest.raises(OSError):
        connect(server.address, KEY)


def test_shutting_down_waits_for_calls(store: Store, server: Server) -> None:
    client = connect(server.address, KEY)
    waiting = go(client.wait)
    store.entered.recv(SECONDS)
    down = go(server.shutdown, SECONDS)
    store.gate.send("done")
    assert down.result(SECONDS)
    assert waiting.result(SECONDS) == "done"


def test_the_file_of_a_socket_is_removed(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serve(store, path, KEY) as server:
        assert path.exists()
        assert connect(str(path), KEY).echo(1) == connect(f"unix:{path}", KEY).echo(1) == 1
        assert server.address == str(path)
    assert not path.exists()


def test_a_connection_is_closed_when_nothing_refers_to_it(server: Server) -> None:
    client = connect(server.address, KEY)
    assert client.echo(1) == 1
    del client
    gc.collect()
    until(lambda: server.connections == 0)


SERVING = """
    import sys
    from goslings import chan, sleep
    from goslings.processes import serve
    class Thing:
        def wait(self): chan().recv()
        def ping(self): return "pong"
    server = serve(Thing(), ("127.0.0.1", 0), b"key")
    print(server.address[1], flush=True)
    server.wait()
"""


def test_a_server_that_is_killed_leaves_nobody_waiting() -> None:
    child = start_child(SERVING)
    try:
        assert child.stdout is not None
        client = connect(("127.0.0.1", int(child.stdout.readline())), b"key")
        assert client.ping() == "pong"
        waiting = [go(client.wait) for _ in range(5)]
        client.ping()
        child.kill()
        for each in waiting:
            with pytest.raises(Disconnected, match="ended"):
                each.result(SECONDS)
        with pytest.raises(Disconnected):
            client.ping()
    finally:
        kill_all(child)
        child.communicate()


def test_a_client_that_is_killed_ends_its_calls(store: Store) -> None:
    with serve(store, HERE, KEY) as server:
        child = start_child(f"""
            from goslings.processes import connect
            connect({server.address!r}, {KEY!r}).wait()
        """)
        try:
            store.entered.recv(SECONDS)
            child.kill()
            assert store.cancelled.wait(SECONDS)
            until(lambda: server.connections == 0)
        finally:
            kill_all(child)
            child.communicate()


def test_a_forked_child_may_not_use_its_parent_s_connections(store: Store) -> None:
    with serve(store, HERE, KEY) as server:
        said = check_child(f"""
            import os, warnings
            warnings.simplefilter("ignore")
            from goslings.processes import connect, Disconnected
            client = connect({server.address!r}, {KEY!r})
            client.put("a", 1)
            if (pid := os.fork()) == 0:
                try:
                    client.get("a")
                except Disconnected as error:
                    print("forked" in str(error), connect({server.address!r}, {KEY!r}).get("a"), flush=True)
                os._exit(0)
            os.waitpid(pid, 0)
            print(client.get("a"))
        """)
    assert said == "True 1\n1\n"


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, with its key."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl command here to make a certificate with")
    return folder


def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    of_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    of_server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return of_server, ssl.create_default_context(cafile=str(folder / "cert.pem"))


def test_tls_carries_calls(certificate: Path, store: Store) -> None:
    of_server, of_client = contexts(certificate)
    with serve(store, HERE, KEY, ssl=of_server) as server:
        with connect(server.address, KEY, ssl=of_client) as proxy:
            assert results(go(proxy.echo, n) for n in range(50)) == list(range(50))
            big = b"x" * 2_000_000
            assert results(go(proxy.echo, big) for _ in range(4)) == [big] * 4
        with pytest.raises(AuthenticationError):
            connect(server.address, b"wrong", ssl=of_client)
        with pytest.raises(ssl.SSLError):
            connect(server.address, KEY, ssl=ssl.create_default_context())
        with pytest.raises((AuthenticationError, TimeoutError)):
            connect(server.address, KEY, timeout=1)


# The documentation


def test_the_examples_of_the_documentation_are_true() -> None:
    import re

    text = DOCS.read_text()
    examples = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 2 == text.count("```python")
    for code, said in examples:
        assert check_child(code) == said
