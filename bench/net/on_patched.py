"""The echo server on the standard library's sockets, patched: `on_patched.py PORT`."""

from __future__ import annotations

import sys

import goslings

goslings.patch()

import socket  # noqa: E402
import threading  # noqa: E402


def echo(sock: socket.socket) -> None:
    try:
        while data := sock.recv(4096):
            sock.sendall(data)
    except ConnectionError:
        pass
    finally:
        sock.close()


def serve() -> None:
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096, reuse_port=True) as listener:
        print("ready", flush=True)
        while True:
            goslings.go(echo, listener.accept()[0])


goslings.go(serve).result()
threading.Event().wait()
