"""The demo's web: a server on the loopback interface that plays every feed's site.

Readers reach it as their HTTP proxy, so that addresses look real, and stay the same from run to
run though the port does not. It is a process of its own: what it computes is not charged to the
reader that is measured. `with Site(documents…) as site:` starts and stops it; it also stops when
its parent vanishes, because then its standard input ends.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from .feed_document import Document, documents
from .feed_page import FeedError


class Site:
    """The running server; `proxy` is where it listens, `feeds` the addresses it plays."""

    def __init__(self, count: int, seed: int, slow: int) -> None:
        command = [sys.executable, "-m", __name__, str(count), str(seed), str(slow)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise FeedError("the demo's feed server did not start; its error is printed above")
        started = json.loads(line)
        self.proxy = f"http://127.0.0.1:{started['port']}"
        self.feeds: list[str] = started["feeds"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # The default of 5 drops connections of a burst; the client's kernel retries after a second.
    request_queue_size = 1024

    def __init__(self, served: Sequence[Document]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages = {document.url: document for document in served}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that hung up is its own affair; anything else is a bug worth a traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        document = self.server.pages.get(self.path)
        if document is None:
            self.send_error(404, "No such site in the demo's web")
        elif document.reset:
            self._reset()
        elif document.etag and document.etag == self.headers.get("If-None-Match"):
            self.send_response(304)
            self.end_headers()
        else:
            self._deliver(document)

    def _deliver(self, document: Document) -> None:
        time.sleep(document.delay)
        self.send_response(document.status)
        self.send_header("Content-Type", document.content_type)
        self.send_header("Content-Length", str(len(document.body) + document.missing))
        if document.gzipped:
            self.send_header("Content-Encoding", "gzip")
        if document.etag:
            self.send_header("ETag", document.etag)
        self.end_headers()
        size = max(1, -(-len(document.body) // document.pieces))
        for start in range(0, len(document.body), size):
            self.wfile.write(document.body[start : start + size])
            if document.pieces > 1:
                time.sleep(document.delay / document.pieces)

    def _reset(self) -> None:
        # Closing with a linger time of zero sends RST instead of FIN.
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        pass


def _serve(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Serves the demo's feeds until stdin ends.")
    for name in ("count", "seed", "slow"):
        parser.add_argument(name, type=int)
    options = parser.parse_args(argv)
    # Ctrl-C reaches the whole process group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with _Server(documents(options.count, options.seed, options.slow)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(json.dumps({"port": server.server_address[1], "feeds": list(server.pages)}), flush=True)
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    _serve()
