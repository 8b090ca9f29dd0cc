"""goslings.patch and `ssl`: TLS sockets park, keep their timeouts, and behave on plain threads as before."""

from __future__ import annotations

from helpers import check_child

BEGIN = """
import errno, os, socket, ssl, threading, time, warnings
import goslings
from goslings import go
warnings.simplefilter("ignore", ResourceWarning)  # what is open at the end

client_side = ssl.create_default_context(cafile=os.environ["CA"])
server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
server_side.load_cert_chain(os.environ["CERT"], os.environ["KEY"])

def pair():
    '''A TLS connection: client, server.'''
    a, b = socket.socketpair()
    made = []
    shaking = threading.Thread(target=lambda: made.append(server_side.wrap_socket(b, server_side=True)))
    shaking.start()
    client = client_side.wrap_socket(a, server_hostname="localhost")
    shaking.join()
    return client, made[0]

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

old_client, old_server = pair()
old_server.settimeout(60)
goslings.patch()
goslings.gomaxprocs(1)
"""


def test_tls_between_goroutines_of_one_worker(certificates: dict[str, str]) -> None:
    check_child(
        BEGIN
        + """
listener = socket.create_server(("127.0.0.1", 0), backlog=100)
secure = server_side.wrap_socket(listener, server_side=True, do_handshake_on_connect=False)

def serve():
    while True:
        go(echo, secure.accept()[0])

def echo(connection):
    with connection:
        connection.do_handshake()
        while part := connection.recv(50_000):
            connection.sendall(part)
        connection.unwrap().close()

def client(i):
    with socket.create_connection(secure.getsockname(), timeout=60 if i % 2 else None) as plain:
        with client_side.wrap_socket(plain, server_hostname="localhost") as connection:
            assert connection.gettimeout() == connection.timeout == (60.0 if i % 2 else None)
            assert connection.getblocking()
            data = bytes([i]) * 300_000
            def write():
                connection.sendall(data)
            writer = go(write)  # while another goroutine reads
            got = b""
            while len(got) < len(data):
                got += connection.recv(100_000)
            writer.result(60)
            assert got == data
            with connection.unwrap() as plain:
                assert plain.recv(1) == b""

server = go(serve)
for waiter in [go(client, i) for i in range(30)]:
    waiter.result(60)
""",
        env=certificates,
    )


def test_tls_sockets_from_before_the_patch_follow(certificates: dict[str, str]) -> None:
    check_child(
        BEGIN
        + """
old_client.sendall(b"from a thread")
assert old_server.recv(100) == b"from a thread"
waiter = go(old_server.recv, 100)
assert go(lambda: "others run").result(60) == "others run"
go(old_client.sendall, b"hello").result(60)
assert waiter.result(60) == b"hello"
assert old_server.gettimeout() == 60.0 and old_client.gettimeout() is None
old_client.sendall(b"again")
assert old_server.recv(100) == b"again"
""",
        env=certificates,
    )


def test_tls_timeouts(certificates: dict[str, str]) -> None:
    check_child(
        BEGIN
        + """
def check():
    client, server = pair()
    with client, server:
        client.settimeout(0.05)
        started = time.monotonic()
        assert raises(TimeoutError, client.recv, 1).args == ("The read operation timed out",)
        assert time.monotonic() - started >= 0.04
        raises(TimeoutError, client.recv_into, bytearray(5))
        with client.makefile("rb") as file:
            raises(TimeoutError, file.read, 1)
        client.settimeout(0.3)
        assert raises(TimeoutError, client.sendall, bytes(20_000_000)).args == ("The write operation timed out",)
        client.setblocking(False)
        assert client.gettimeout() == client.timeout == 0.0 and not client.getblocking()
        raises(ssl.SSLWantReadError, client.recv, 1)
        client.setblocking(True)
        assert client.gettimeout() is None and client.getblocking()
        raises(ValueError, client.settimeout, -1)
        raises(TypeError, client.settimeout, "x")
        assert client.gettimeout() is None
    a, b = socket.socketpair()
    with a, b:
        a.settimeout(0.1)
        error = raises(TimeoutError, lambda: client_side.wrap_socket(a, server_hostname="localhost"))
        assert "handshake operation timed out" in str(error)
    raises(OSError, client.recv, 1)

places(check)
""",
        env=certificates,
    )


def test_tls_errors(certificates: dict[str, str]) -> None:
    check_child(
        BEGIN
        + """
def check():
    client, server = pair()
    waiter = go(server.recv, 10)
    while "(net read)" not in repr(waiter):
        goslings.sleep(0.001)
    server.close()
    assert raises(OSError, waiter.result, 60).errno == errno.EBADF
    client.close()

    client, server = pair()
    with client, server:
        waiter = go(server.recv, 10)
        client.shutdown(socket.SHUT_RDWR)
        assert waiter.result(60) == b"", "a ragged end"

    client, server = pair()
    with client, server:
        waiter = go(server.unwrap)
        assert client.recv(1) == b""
        client.unwrap().close()
        waiter.result(60).close()
        raises(ValueError, server.unwrap)

    a, b = socket.socketpair()
    with b:
        strangers = ssl.create_default_context()
        other = go(lambda: raises(ssl.SSLError, lambda: server_side.wrap_socket(b, server_side=True)))
        raises(ssl.SSLCertVerificationError, lambda: strangers.wrap_socket(a, server_hostname="localhost"))
        other.result(60)

    a, b = socket.socketpair()
    with b:
        b.sendall(b"this is no TLS at all")
        raises(ssl.SSLError, lambda: client_side.wrap_socket(a, server_hostname="localhost"))

go(check).result(100)
""",
        env=certificates,
    )


def test_tls_on_threads_and_goroutines_at_once(certificates: dict[str, str]) -> None:
    check_child(
        BEGIN
        + """
goslings.gomaxprocs(2)

def talk(client, server, n):
    def write():
        for i in range(n):
            client.sendall(f"{i:06}".encode())
    def read():
        got = b""
        while len(got) < 6 * n:
            got += server.recv(1000)
        assert got == b"".join(f"{i:06}".encode() for i in range(n))
    return write, read

pairs = [pair() for _ in range(10)]
work = [f for client, server in pairs for way in ((client, server), (server, client)) for f in talk(*way, 200)]
goroutines = [go(f) for f in work[::2]]
goroutines += [go(f) for f in work[1::2]]
for g in goroutines:
    g.result(60)
""",
        env=certificates,
    )
