"""goslings.patch and `socket`: the same timeouts, answers and errors, and other goroutines go on. The programs run in
processes of their own, most of them with one worker, so that whoever blocked it would block all."""

from __future__ import annotations

from helpers import check_child

BEGIN = """
import errno, os, select, socket, sys, threading, time, warnings
warnings.simplefilter("ignore", ResourceWarning)  # what is open at the end
import goslings
from goslings import go
before = socket.socketpair()
from socket import socket as Socket
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

def later(function, *args):
    '''Calls it on a plain thread, after a while in which the caller should have begun to wait.'''
    timer = threading.Timer(0.05, function, args)
    timer.start()
    return timer
"""


def test_goroutines_of_one_worker_talk_to_each_other() -> None:
    check_child(
        BEGIN
        + """
listener = socket.create_server(("127.0.0.1", 0), backlog=200)
address = listener.getsockname()

def serve():
    while True:
        connection, _ = listener.accept()
        go(echo, connection)

def echo(connection):
    with connection, connection.makefile("rwb") as file:
        for line in file:
            file.write(line.upper())
            file.flush()

def client(i):
    with socket.create_connection(address, timeout=60 if i % 2 else None) as connection:
        for n in range(10):
            text = f"client {i} line {n}".encode()
            connection.sendall(text + b"\\n")
            got = b""
            while not got.endswith(b"\\n"):
                got += connection.recv(7)
            assert got == text.upper() + b"\\n"

server = go(serve)
for waiter in [go(client, i) for i in range(100)]:
    waiter.result(60)
listener.close()
assert raises(OSError, server.result, 60).errno == errno.EBADF
"""
    )


def test_sockets_and_names_from_before_the_patch_follow() -> None:
    check_child(
        BEGIN
        + """
a, b = before
waiter = go(a.recv, 10)
assert go(lambda: "others run").result(60) == "others run"
go(b.send, b"x")
assert waiter.result(60) == b"x"
assert Socket is socket.socket and isinstance(a, Socket)
"""
    )


def test_every_call_that_waits_parks() -> None:
    check_child(
        BEGIN
        + """
def pair(kind):
    made = socket.socketpair(type=kind)
    for end in made:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return made

def check(timeout):
    for receive in (
        lambda s: s.recv(100),
        lambda s: s.recvfrom(100)[0],
        lambda s: s.recvmsg(100)[0],
        lambda s: bytes(into := bytearray(5))[:0] + (into[: s.recv_into(into)]),
        lambda s: bytes(into := bytearray(5))[:0] + (into[: s.recvfrom_into(into)[0]]),
        lambda s: bytes(into := bytearray(5))[:0] + (into[: s.recvmsg_into([into])[0]]),
        lambda s: socket.recv_fds(s, 100, 1)[0],
        lambda s: s.makefile("rb", buffering=0).read(100),
    ):
        for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
            a, b = pair(kind)
            with a, b:
                a.settimeout(timeout)
                waiter = go(receive, a)
                go(lambda: b.send(b"hello")).result(60)
                assert waiter.result(60) == b"hello"

    big = bytes(range(256)) * 4096
    for send in (
        lambda s, data: s.send(data),
        lambda s, data: s.sendall(data) or len(data),
        lambda s, data: s.sendmsg([data[:100], data[100:]]),
        lambda s, data: s.makefile("wb", buffering=0).write(data),
    ):
        a, b = pair(socket.SOCK_STREAM)
        with a, b:
            a.settimeout(timeout)
            def sender():
                rest = memoryview(big)
                while rest:
                    rest = rest[send(a, rest):]
                a.shutdown(socket.SHUT_WR)
            def receiver():
                got = bytearray()
                while part := b.recv(5000):
                    got += part
                return bytes(got)
            sending, receiving = go(sender), go(receiver)
            sending.result(60)
            assert receiving.result(60) == big
            # A socket keeps its ways: None is a descriptor that blocks.
            assert os.get_blocking(a.fileno()) is (timeout is None)

for timeout in None, 60.0:
    go(check, timeout).result(100)
"""
    )


def test_timeouts() -> None:
    check_child(
        BEGIN
        + """
full = socket.create_server(("127.0.0.1", 0), backlog=0)
crowd = []

def check():
    a, b = socket.socketpair()
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    u.bind(("127.0.0.1", 0))
    listener = socket.create_server(("127.0.0.1", 0))
    into = bytearray(10)
    with a, b, u, listener:
        receives = [lambda: a.recv(1), lambda: a.recv_into(into), lambda: a.recvmsg(1), lambda: u.recvfrom(1),
                    lambda: u.recvfrom_into(into), lambda: a.recvmsg_into([into]), listener.accept]
        for sock in a, u, listener:
            sock.settimeout(0.02)
        for call in receives:
            started = time.monotonic()
            error = raises(TimeoutError, call)
            assert error.args == ("timed out",) and time.monotonic() - started >= 0.015
        a.settimeout(0.2)
        assert raises(TimeoutError, a.sendall, bytes(10_000_000)).args == ("timed out",)
        while True:
            try:
                a.send(bytes(100_000))
            except TimeoutError as error:
                assert error.args == ("timed out",)
                break
        for sock in a, u, listener:
            sock.setblocking(False)
            assert sock.gettimeout() == 0.0 and not sock.getblocking()
        for call in [*receives, lambda: a.send(bytes(100_000))]:
            raises(BlockingIOError, call)
        file = b.makefile("rb")
        b.settimeout(0.05)
        b.recv(20_000_000)
    # Nobody accepts, and there is no room.
    for _ in range(3):
        s = socket.socket()
        s.settimeout(0.1)
        crowd.append(s)
        code = s.connect_ex(full.getsockname())
        assert code in (0, errno.EAGAIN), code
    with socket.socket() as s:
        s.settimeout(0.1)
        assert raises(TimeoutError, s.connect, full.getsockname()).args == ("timed out",)
    with socket.socket() as s:
        s.setblocking(False)
        raises(BlockingIOError, s.connect, full.getsockname())
    raises(TimeoutError, socket.create_connection, full.getsockname(), 0.1)

places(check)

def default():
    socket.setdefaulttimeout(0.05)
    try:
        a, b = socket.socketpair()
        with a, b:
            raises(TimeoutError, a.recv, 1)
            with a.makefile("rb") as file:
                raises(TimeoutError, file.read, 1)
                assert "timed out object" in str(raises(OSError, file.read, 1))
    finally:
        socket.setdefaulttimeout(None)

places(default)
"""
    )


def test_a_timeout_spans_the_whole_call() -> None:
    check_child(
        BEGIN
        + """
a, b = socket.socketpair()
stop = False

def trickle():
    while not stop:
        goslings.sleep(0.01)
        try:
            b.recv(1000)
        except OSError:
            return

def send():
    a.settimeout(0.3)
    started = time.monotonic()
    raises(TimeoutError, a.sendall, bytes(50_000_000))
    assert time.monotonic() - started < 30
    a.close()

reader = go(trickle)
go(send).result(60)
stop = True
reader.result(60)
"""
    )


def test_closing_wakes_those_who_wait_and_reuse_confuses_nobody() -> None:
    check_child(
        BEGIN
        + """
import gc
def recv_closed(how):
    a, b = socket.socketpair()
    waiter = go(a.recv, 10)
    while "(net read)" not in repr(waiter):
        goslings.sleep(0.001)
    fd = a.fileno()
    if how == "close":
        a.close()
    elif how == "detach":
        assert a.detach() == fd
    elif how == "close(fd)":
        socket.close(fd)
    elif how == "shutdown":
        a.shutdown(socket.SHUT_RD)
        assert waiter.result(60) == b""
        return
    elif how == "peer":
        b.close()
        assert waiter.result(60) == b""
        return
    assert raises(OSError, waiter.result, 60).errno == errno.EBADF
    if how == "detach":
        os.close(fd)
    elif how == "close(fd)":
        a.detach()
    # The number comes back for another socket: who waits there gets what comes there.
    with b:
        c, d = socket.socketpair()
        with c, d:
            another = go(c.recv, 10)
            go(d.send, b"new").result(60)
            assert another.result(60) == b"new"

for how in "close", "detach", "close(fd)", "shutdown", "peer":
    for _ in range(20):
        recv_closed(how)
        go(recv_closed, how).result(60)
"""
    )


def test_connect_refused_reset_and_unix() -> None:
    check_child(
        BEGIN
        + """
import struct, tempfile
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]

    def refused():
        for timeout in None, 10.0:
            with socket.socket() as s:
                s.settimeout(timeout)
                error = raises(ConnectionRefusedError, s.connect, ("127.0.0.1", port))
                assert error.errno == errno.ECONNREFUSED and error.strerror == os.strerror(errno.ECONNREFUSED)
                assert os.get_blocking(s.fileno()) is (timeout is None)
            with socket.socket() as s:
                s.settimeout(timeout)
                assert s.connect_ex(("localhost", port)) == errno.ECONNREFUSED
        raises(ConnectionRefusedError, socket.create_connection, ("localhost", port))
        with socket.socket() as s:
            raises(TypeError, s.connect, "not a pair")
            raises(TypeError, s.connect)
        s = socket.socket()
        s.close()
        assert raises(OSError, s.connect, ("127.0.0.1", port)).errno == errno.EBADF
        assert raises(OSError, s.recv, 1).errno == errno.EBADF
        assert raises(OSError, s.send, b"x").errno == errno.EBADF
        assert raises(OSError, s.accept).errno == errno.EBADF

    places(refused)

def reset():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        waiter = go(client.recv, 10)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()
        raises(ConnectionResetError, waiter.result, 60)

places(reset)

def unix():
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.join(place, "s"))
        listener.listen(1)
        def client():
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(os.path.join(place, "s"))
                s.sendall(b"x")
                return s.recv(10)
        clients = [go(client) for _ in range(8)]  # more than the backlog has room for
        for _ in range(8):
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(10) == b"x"
                connection.sendall(b"y")
        assert [c.result(60) for c in clients] == [b"y"] * 8

places(unix)
"""
    )


def test_a_call_asks_the_socket_for_its_number_when_it_has_begun() -> None:
    """A number that was asked for before could be another file's by the time of the wait."""
    check_child(
        """
        from goslings._goslings import sock_recv, wait_fd

        class Closed:
            def fileno(self):
                asked.append(1)
                return -1  # as one that was closed just now

        asked = []
        one = Closed()
        for call in (lambda: sock_recv(one, 10), lambda: wait_fd(one, False)):
            try:
                call()
            except OSError as error:
                assert error.errno == 9, error
            else:
                raise AssertionError
        assert len(asked) == 2
        """
    )


def test_many_accept_from_one_listener() -> None:
    check_child(
        BEGIN
        + """
goslings.gomaxprocs(2)
listener = socket.create_server(("127.0.0.1", 0), backlog=128)
count = goslings.AtomicInt()

def accept():
    try:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"x")
            count.add(1)
    except OSError as error:
        assert error.errno in (errno.EBADF, errno.EINVAL), error
        return "closed"

acceptors = [go(accept) for _ in range(8)]
plain = threading.Thread(target=accept)
plain.start()

def client():
    with socket.create_connection(listener.getsockname()) as s:
        assert s.recv(10) == b"x"

for c in [go(client) for _ in range(300)]:
    c.result(60)
assert count.load() == 300
listener.shutdown(socket.SHUT_RDWR)
plain.join(60)
assert not plain.is_alive()
listener.close()
assert [a.result(60) for a in acceptors] == ["closed"] * 8
"""
    )


def test_sendfile_and_waitall() -> None:
    check_child(
        BEGIN
        + """
import tempfile
data = bytes(range(256)) * 8000
with tempfile.TemporaryFile() as file:
    file.write(data)
    file.flush()

    def check():
        for timeout in None, 60.0:
            a, b = socket.socketpair()
            with a, b:
                a.settimeout(timeout)
                def read():
                    got = bytearray()
                    while part := b.recv(100_000):
                        got += part
                    return bytes(got)
                reader = go(read)
                file.seek(0)
                assert a.sendfile(file) == len(data)
                assert os.get_blocking(a.fileno()) is (timeout is None)
                a.shutdown(socket.SHUT_WR)
                assert reader.result(60) == data

    go(check).result(100)

def dontwait():
    a, b = socket.socketpair()
    with a, b:
        raises(BlockingIOError, a.recv, 1, socket.MSG_DONTWAIT)
        raises(BlockingIOError, a.recv_into, bytearray(1), 1, socket.MSG_DONTWAIT)
        raises(BlockingIOError, a.recvmsg, 1, 0, socket.MSG_DONTWAIT)
        def fill(send):
            while True:
                send()
        raises(BlockingIOError, fill, lambda: a.send(bytes(9999), socket.MSG_DONTWAIT))
        raises(BlockingIOError, fill, lambda: a.sendmsg([bytes(9999)], [], socket.MSG_DONTWAIT))
        raises(BlockingIOError, a.sendall, bytes(9999), socket.MSG_DONTWAIT)

places(dontwait)

def waitall():
    a, b = socket.socketpair()
    with a, b:
        waiter = go(a.recv, 6, socket.MSG_WAITALL)
        b.send(b"abc")
        goslings.sleep(0.05)
        b.send(b"def")
        assert waiter.result(60) == b"abcdef"

go(waitall).result(60)
"""
    )


def test_names_are_looked_up_off_the_worker() -> None:
    check_child(
        BEGIN
        + """
def check():
    assert socket.getaddrinfo("localhost", 80, socket.AF_INET, socket.SOCK_STREAM)[0][4] == ("127.0.0.1", 80)
    assert socket.getaddrinfo("127.0.0.1", "http")[0][0] is socket.AF_INET
    assert socket.gethostbyname("localhost") == "127.0.0.1"
    assert "127.0.0.1" in socket.gethostbyname_ex("localhost")[2]
    assert socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV) == ("127.0.0.1", "80")
    raises(socket.gaierror, socket.getaddrinfo, "127.0.0.1.", None, 0, 0, 0, socket.AI_NUMERICHOST)
    raises(TypeError, socket.gethostbyname)
    raises(TypeError, socket.getnameinfo, 5, 5)
    with socket.create_server(("localhost", 0)) as listener:
        with socket.socket() as s:
            s.connect(("localhost", listener.getsockname()[1]))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as u, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as v:
        u.bind(("localhost", 0))
        v.sendto(b"x", ("localhost", u.getsockname()[1]))
        v.sendto(b"y", 0, ("localhost", u.getsockname()[1]))
        v.sendmsg([b"z"], [], 0, ("localhost", u.getsockname()[1]))
        assert [u.recvfrom(10)[0] for _ in range(3)] == [b"x", b"y", b"z"]

places(check)
"""
    )


def test_cancelled_and_timed_out_waits_leave_the_socket_usable() -> None:
    check_child(
        BEGIN
        + """
from concurrent.futures import CancelledError
a, b = socket.socketpair()
for _ in range(50):
    waiter = go(a.recv, 10)
    goslings.sleep(0)
    waiter.cancel()
    raises(CancelledError, waiter.result, 60)
    waiter = go(a.recv, 10)
    go(b.send, b"x")
    assert waiter.result(60) == b"x"
"""
    )


def test_plain_threads_and_ctrl_c_behave_as_before() -> None:
    check_child(
        BEGIN
        + """
import signal
a, b = socket.socketpair()
signal.setitimer(signal.ITIMER_REAL, 0.1)
hit = []
signal.signal(signal.SIGALRM, lambda *_: (hit.append(1), b.send(b"woken")))
assert a.recv(10) == b"woken" and hit
class Stop(Exception):
    pass
def stop(*_):
    raise Stop
signal.signal(signal.SIGALRM, stop)
signal.setitimer(signal.ITIMER_REAL, 0.1)
raises(Stop, a.recv, 10)
"""
    )


def test_a_coroutine_blocks_as_ever() -> None:
    check_child(
        BEGIN
        + """
import asyncio
goslings.gomaxprocs(2)
a, b = socket.socketpair()
a.settimeout(60)

async def blocks():
    sender = threading.Thread(target=b.sendall, args=(b"hello",))
    sender.start()
    assert a.recv(100) == b"hello"  # holds up the loop, as it does on a thread
    into = bytearray(10)
    b.send(b"again")
    assert a.recv_into(into) == 5
    a.sendall(b"x")
    assert a.send(b"y") == 1
    assert b.recvfrom(1)[0] == b"x"
    assert select.select([b], [], [], 60) == ([b], [], [])
    assert socket.gethostbyname("localhost") == "127.0.0.1"
    await asyncio.sleep(0.001)
    return "done"

assert go(asyncio.run, blocks()).result(60) == "done"
"""
    )
