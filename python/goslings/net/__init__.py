"""Connections over TCP and Unix sockets, plain and with TLS, for goroutines: `listen`, `dial`, `serve`.

>>> from goslings import go, net
>>> with net.listen("localhost:0") as listener:
...     def echo():
...         with listener.accept() as conn:
...             while data := conn.recv():
...                 conn.send(data)
...     _ = go(echo)
...     with net.dial(listener.address) as conn:
...         conn.send(b"hello")
...         conn.recv()
b'hello'

An address is a pair (host, port), a text "host:port" or "[host]:port", or "unix:/path". A host "" is every address of
this machine when listening, and this machine when dialling. Calls wait as everything in goslings does: a goroutine
parks, a plain thread blocks. Each takes a `timeout` in seconds, and a connection can have a deadline. Errors are
OSError by their numbers.
"""

from __future__ import annotations

from goslings._goslings import Conn as Conn
from goslings._goslings import Listener as Listener
from goslings.net._address import Address as Address
from goslings.net._dial import dial as dial
from goslings.net._listen import listen as listen
from goslings.net._server import Server as Server
from goslings.net._server import serve as serve
from goslings.net._tls import TlsConn as TlsConn
from goslings.net._tls import TlsListener as TlsListener

__all__ = ["Address", "Conn", "Listener", "Server", "TlsConn", "TlsListener", "dial", "listen", "serve"]
