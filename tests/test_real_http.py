"""requests, urllib3, httpx and urllib with http.server, in the clear and over TLS with a certificate authority of our
own: 200 goroutines at once on two workers, server and clients in one process, and each answer and each error is
accounted for."""

from __future__ import annotations

import importlib.util

import pytest
from helpers import check_child

BEGIN = """
import http.server, os, socket, socketserver, ssl, struct
import goslings
from goslings import go
goslings.patch()
goslings.gomaxprocs(2)

N = 200
library = os.environ["LIBRARY"]
secure = os.environ["SECURE"] == "yes"
trusted = os.environ["CA"] if secure else None


class Meeting:
    '''Lets go when N are there: so all were there at once.'''
    def __init__(self):
        self.number, self.full = goslings.AtomicInt(), goslings.Event()
    def wait(self):
        if self.number.add(1) == N:
            self.full.set()
        assert self.full.wait(60)


meeting, never = Meeting(), goslings.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        kind, _, number = self.path.strip("/").partition("/")
        if kind == "meet":
            meeting.wait()
        elif kind == "never":
            never.wait(60)
        elif kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        elif kind == "error":
            return self.send_error(503)
        body = f"answer {number}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + (10 if kind == "short" else 0)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = kind == "short"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])
    def log_message(self, *args):
        pass


class Server(http.server.HTTPServer):
    request_queue_size = 256
    def process_request(self, request, address):
        go(self.serve, request, address)
    def serve(self, request, address):
        try:
            if secure:  # here, so that who does not shake hands holds up nobody
                request = context.wrap_socket(request, server_side=True)
            self.finish_request(request, address)
        except OSError:
            pass  # clients that went away, or did not trust us
        finally:
            self.shutdown_request(request)


if secure:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(os.environ["CERT"], os.environ["KEY"])
server = Server(("127.0.0.1", 0), Handler)
serving = go(server.serve_forever, 0.05)
base = f"{'https' if secure else 'http'}://localhost:{server.server_address[1]}"

if library == "requests":
    import requests
    def ask(path, body=None, timeout=60, base=base, ca=trusted):
        with requests.Session() as session:
            answer = session.request("POST" if body else "GET", base + path, data=body, timeout=timeout, verify=ca)
            answer.raise_for_status()
            return answer.content
elif library == "urllib3":
    import urllib3
    def ask(path, body=None, timeout=60, base=base, ca=trusted):
        with urllib3.PoolManager(ca_certs=ca, retries=False) as pool:
            answer = pool.request("POST" if body else "GET", base + path, body=body, timeout=timeout)
            if answer.status != 200:
                raise ValueError(answer.status)
            return answer.data
elif library == "httpx":
    import httpx
    def ask(path, body=None, timeout=60, base=base, ca=trusted):
        verify = ssl.create_default_context(cafile=ca) if secure else False
        with httpx.Client(verify=verify, timeout=timeout, trust_env=False) as client:
            answer = client.request("POST" if body else "GET", base + path, content=body)
            answer.raise_for_status()
            return answer.content
else:
    import urllib.error, urllib.request
    def ask(path, body=None, timeout=60, base=base, ca=trusted):
        client = ssl.create_default_context(cafile=ca) if secure else None
        with urllib.request.urlopen(base + path, data=body, timeout=timeout, context=client) as answer:
            return answer.read()


def outcomes(goroutines):
    counts = {}
    for goroutine in goroutines:
        try:
            what = goroutine.result(90)
        except Exception as error:
            what = type(error).__name__
        counts[what] = counts.get(what, 0) + 1
    return counts


def end():
    never.set()
    server.shutdown()
    serving.result(60)
    server.server_close()
"""

LIBRARIES = ["urllib", "requests", "urllib3", "httpx"]


@pytest.fixture(params=[(name, secure) for secure in ("no", "yes") for name in LIBRARIES], ids="-".join)
def env(request: pytest.FixtureRequest) -> dict[str, str]:
    """What tells the child which library to use, and whether over TLS."""
    library, secure = request.param
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed here")
    made = request.getfixturevalue("certificates") if secure == "yes" else {}
    return {"LIBRARY": library, "SECURE": secure, "NO_PROXY": "*", **made}


def test_real_http_200_requests_at_once(env: dict[str, str]) -> None:
    check_child(
        BEGIN
        + """
def work(i):
    assert ask(f"/meet/{i}") == f"answer {i}".encode()
    body = bytes([65 + i % 26]) * 100_000 + str(i).encode()
    assert ask("/", body=body) == body[::-1]
    return "right"

ended = outcomes([go(work, i) for i in range(N)])
assert ended == {"right": N}, ended
end()
""",
        env=env,
        seconds=110,
    )


def test_real_http_errors_and_timeouts(env: dict[str, str]) -> None:
    check_child(
        BEGIN
        + """
names = {
    "urllib": {
        "never": {"TimeoutError", "URLError"},
        "reset": {"ConnectionResetError", "RemoteDisconnected", "SSLEOFError", "URLError"},
        "short": {"IncompleteRead"}, "error": {"HTTPError"}, "refused": {"URLError"}, "distrust": {"URLError"},
    },
    "requests": {
        "never": {"ReadTimeout", "ConnectTimeout"}, "reset": {"ConnectionError", "SSLError"},
        "short": {"ChunkedEncodingError"}, "error": {"HTTPError"}, "refused": {"ConnectionError"},
        "distrust": {"SSLError"},
    },
    "urllib3": {
        "never": {"ReadTimeoutError", "ConnectTimeoutError"}, "reset": {"ProtocolError", "SSLError"},
        "short": {"ProtocolError", "IncompleteRead"},
        "error": {"ValueError"}, "refused": {"NewConnectionError"}, "distrust": {"SSLError"},
    },
    "httpx": {
        "never": {"ReadTimeout", "ConnectTimeout"}, "reset": {"ReadError", "RemoteProtocolError"},
        "short": {"RemoteProtocolError"},
        "error": {"HTTPStatusError"}, "refused": {"ConnectError"}, "distrust": {"ConnectError"},
    },
}[library]

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    free = f"{base[:base.rindex(':')]}:{probe.getsockname()[1]}"  # bound, but nobody listens

def work(i):
    kind = kinds[i % len(kinds)]
    if kind == "right":
        assert ask(f"/plain/{i}") == f"answer {i}".encode()
        return "right"
    options = {"never": dict(timeout=3), "refused": dict(base=free), "distrust": dict(ca=None)}.get(kind, {})
    try:
        ask(f"/{kind}/{i}", **options)
    except Exception as error:
        assert type(error).__name__ in names[kind], (kind, repr(error))
        if kind == "never":  # on a busy machine even the handshake may take too long
            assert "timed out" in str(error), repr(error)
        if library == "urllib" and kind == "error":
            error.close()
        return kind
    raise AssertionError(f"{kind} did not fail")

kinds = ["right", "never", "reset", "short", "error", "refused", *(["distrust"] if secure else [])]
expected = {kind: len(range(place, N, len(kinds))) for place, kind in enumerate(kinds)}
if library == "requests" and secure:
    os.environ["REQUESTS_CA_BUNDLE"] = ""
ended = outcomes([go(work, i) for i in range(N)])
assert ended == expected, (ended, expected)
end()
""",
        env=env,
        seconds=110,
    )
