"""goslings.patch and `select`, `selectors`, and what stands on them: asyncio and socketserver in goroutines."""

from __future__ import annotations

from helpers import check_child

BEGIN = """
import os, select, selectors, socket, tempfile, threading, time, warnings
import goslings
from goslings import go
warnings.simplefilter("ignore", ResourceWarning)  # what is open at the end
old = selectors.EpollSelector(), selectors.PollSelector(), selectors.SelectSelector()
old_epoll = select.epoll()
goslings.patch()
goslings.gomaxprocs(1)

def raises(kind, function, *args):
    try:
        function(*args)
    except BaseException as error:
        assert type(error) is kind, repr(error)
        return error
    raise AssertionError(f"{function} did not raise")

def places(function):
    '''In a goroutine, and on a plain thread.'''
    go(function).result(60)
    function()

def waits(goroutine):
    while "(net read)" not in repr(goroutine):
        goslings.sleep(0.001)
"""


def test_select_parks() -> None:
    check_child(
        BEGIN
        + """
a, b = socket.socketpair()
c, d = socket.socketpair()
for asked in ([a], [], []), ([a, c], [], []), ([c, a], [], [a, c]), ((a, c), (), ()), ([a.fileno()], [], []):
    waiter = go(select.select, *asked)
    waits(waiter)
    go(b.send, b"x").result(60)
    assert waiter.result(60) == ([asked[0][-1] if asked[0][0] == c else asked[0][0]], [], []), waiter.result(60)
    a.recv(1)

def check():
    started = time.monotonic()
    assert select.select([a], [], [], 0.05) == ([], [], [])
    assert select.select([], [], [], 0.05) == ([], [], [])
    assert time.monotonic() - started >= 0.09
    assert select.select([a], [], [], 0) == ([], [], [])
    assert select.select([a], [b, a], []) == ([], [b, a], [])
    with tempfile.TemporaryFile() as file:
        assert select.select([file, a], [], []) == ([file], [], [])
    raises(ValueError, select.select, [a], [], [], -1)
    raises(ValueError, select.select, [-1], [], [])
    raises(TypeError, select.select, [a], [], [], "x")
    raises(TypeError, select.select, 5, [], [])
    raises(TypeError, select.select, [object()], [], [])
    raises(TypeError, select.select)

places(check)

# What was urgent is told apart.
with socket.create_server(("127.0.0.1", 0)) as listener:
    e = socket.create_connection(listener.getsockname())
    f, _ = listener.accept()
    waiter = go(select.select, [], [], [f])
    waits(waiter)
    e.send(b"!", socket.MSG_OOB)
    assert waiter.result(60) == ([], [], [f])
"""
    )


def test_poll_and_epoll_park() -> None:
    check_child(
        BEGIN
        + """
a, b = socket.socketpair()
c, d = socket.socketpair()

def polls():
    both = select.poll()
    both.register(a, select.POLLIN)
    both.register(c.fileno(), select.POLLIN)
    yield both, 1
    one = select.poll()
    one.register(a, select.POLLIN | select.POLLPRI)
    one.register(c)
    one.modify(c, 0)
    yield one, 1
    epoll = select.epoll()
    epoll.register(a, select.EPOLLIN)
    epoll.register(c, select.EPOLLIN)
    yield epoll, 0.001
    epoll = select.epoll()
    epoll.register(a, select.EPOLLIN)
    epoll.register(c, select.EPOLLIN)
    again = select.epoll.fromfd(os.dup(epoll.fileno()))
    epoll.close()
    yield again, 0.001

for made, unit in polls():
    for forever in (), (None,), (-1,), (60_000 * unit,):
        waiter = go(made.poll, *forever)
        waits(waiter)
        go(b.send, b"x").result(60)
        assert waiter.result(60) == [(a.fileno(), select.POLLIN)]
        a.recv(1)
    def check():
        started = time.monotonic()
        assert made.poll(50 * unit) == []
        assert time.monotonic() - started >= 0.045
        assert made.poll(0) == []
        raises(TypeError, made.poll, "x")
        raises(FileNotFoundError, made.modify, d, 1) if unit == 1 else raises(FileNotFoundError, made.unregister, d)
    places(check)
    made.unregister(a)
    if unit < 1:
        waiter = go(made.poll)
        waits(waiter)
        made.close()
        raises(OSError, waiter.result, 60)
        assert made.closed
        raises(ValueError, made.fileno)

made = select.poll()
made.register(a, select.POLLIN)
waiter = go(made.poll)
waits(waiter)
assert "concurrent" in str(raises(RuntimeError, go(made.poll).result, 60))
b.send(b"x")
assert waiter.result(60) == [(a.fileno(), select.POLLIN)]

with select.epoll() as closed:
    pass
assert closed.closed
"""
    )


def test_selectors_park_also_those_from_before() -> None:
    check_child(
        BEGIN
        + """
new = selectors.EpollSelector(), selectors.PollSelector(), selectors.SelectSelector(), selectors.DefaultSelector()
for selector in (*old, *new):
    a, b = socket.socketpair()
    with a, b, selector:
        key = selector.register(a, selectors.EVENT_READ, "data")
        other = selector.register(b, selectors.EVENT_READ)
        waiter = go(selector.select)
        waits(waiter)
        go(b.send, b"x").result(60)
        assert waiter.result(60) == [(key, selectors.EVENT_READ)]
        assert go(selector.select).result(60) == [(key, selectors.EVENT_READ)], "as long as there is something to read"
        a.recv(1)
        def check():
            started = time.monotonic()
            assert selector.select(0.05) == []
            assert time.monotonic() - started >= 0.045
            assert selector.select(0) == selector.select(-1) == []
        places(check)
"""
    )


def test_asyncio_runs_on_goroutines() -> None:
    check_child(
        BEGIN
        + """
import asyncio

async def echo(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()

async def talk(port, i):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for n in range(5):
        writer.write(f"{i} says {n}\\n".encode())
        assert await reader.readline() == f"{i} SAYS {n}\\n".encode()
        await asyncio.sleep(0.001)
    writer.close()
    await writer.wait_closed()
    return i

async def main(port):
    return sum(await asyncio.gather(*(talk(port, i) for i in range(20))))

async def serve():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    stop = asyncio.Event()
    address[:] = [server.sockets[0].getsockname()[1], asyncio.get_running_loop(), stop]
    ready.set()
    await stop.wait()
    server.close()

address, ready = [], goslings.Event()
server = go(asyncio.run, serve())  # several loops on one worker
ready.wait()
clients = [go(asyncio.run, main(address[0])) for _ in range(5)]
assert [client.result(60) for client in clients] == [190] * 5
address[1].call_soon_threadsafe(address[2].set)
server.result(60)
"""
    )


def test_socketserver_serves_from_a_goroutine() -> None:
    check_child(
        BEGIN
        + """
import socketserver

class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())

with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
    serving = go(server.serve_forever, 0.05)
    def client(i):
        with socket.create_connection(server.server_address) as s, s.makefile("rwb") as file:
            for n in range(5):
                file.write(f"{i} says {n}\\n".encode())
                file.flush()
                assert file.readline() == f"{i} SAYS {n}\\n".encode()
    for waiter in [go(client, i) for i in range(50)]:
        waiter.result(60)
    go(server.shutdown).result(60)
    serving.result(60)
"""
    )
