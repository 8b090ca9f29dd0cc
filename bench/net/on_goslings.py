"""The echo server on goslings.net: `on_goslings.py PORT`."""

from __future__ import annotations

import sys

from goslings import net


def echo(conn: net.Conn) -> None:
    try:
        while data := conn.recv(4096):
            conn.send(data)
    except ConnectionError:
        pass


server = net.serve(echo, ("127.0.0.1", int(sys.argv[1])), backlog=4096, reuse_port=True)
print("ready", flush=True)
server.wait()
