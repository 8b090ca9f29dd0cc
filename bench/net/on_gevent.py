"""The echo server on gevent: `on_gevent.py PORT`."""

from __future__ import annotations

import sys
from typing import Any

from gevent.server import StreamServer


def echo(sock: Any, _address: Any) -> None:
    try:
        while data := sock.recv(4096):
            sock.sendall(data)
    except ConnectionError:
        pass


server = StreamServer(("127.0.0.1", int(sys.argv[1])), echo, backlog=4096)
server.start()
print("ready", flush=True)
server.serve_forever()
