"""Lanes that are sockets of their own to a thread of the manager, as the library has it.

On the connection that all share, a request goes through the goroutine that reads it, a goroutine for the call, the
thread of the lane, and back; each is a switch. Thousands that wait need that. A plain thread does not: it can sleep in
a socket of its own, as it has a stack of its own. So a manager opens a *door* (a Unix socket in the abstract namespace,
SEQPACKET), and whoever has come in through `serve`, who knows the key that is, is told its name and a token for one
entry. If nobody can be reached under the name, the manager is on another machine or in another container, and the lane
is one of the shared connection.

* Nothing is unpickled before the token was seen, at the manager; at the other side, before the system has said that the
  listener is of the same user. The name is not secret, and free again when the manager ends.
* Nobody of another user comes in, so that those cannot use up the manager's descriptors. Who knows the key in spite of
  that has the connection.
* A request has a number, which its answer repeats. So whoever was interrupted while it waited skips the answer that
  comes later, or that was received and lost.
* Sockets of Unix carry bytes from process to process within the system: nothing is sealed.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import socket
import struct
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from goslings._goslings import closing_fd, go, sleep, wait_fd
from goslings.compat.multiprocessing.connection import Messages

__all__ = ["Direct", "DirectLine", "Door", "Ended", "knock"]

_NUMBER = struct.Struct(">Q")
_TOKEN = 32
_TOKENS = 1024
"""So many entries may have been promised at a time: one more, and the oldest is forgotten."""
_SECONDS = 10.0
"""Who has come in shows a token within this time."""
_PAUSE = 0.01
"""How long nobody is let in after that has failed."""
_USER = struct.Struct("3i")
"""What the system says of the other side: process, user, group."""


class Ended(ConnectionResetError, EOFError):
    """The manager has ended. The library raises the one or the other, as it happens."""


def _is_ours(sock: socket.socket) -> bool:
    """Whether the other side is of the same user."""
    _, user, _ = _USER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _USER.size))
    return bool(user == os.geteuid())


class DirectLine:
    """A lane where it ends: what the manager's thread for it reads and answers."""

    def __init__(self, messages: Messages, dump: Callable[[Any], bytes], load: Callable[[Any], Any]) -> None:
        self._messages, self._dump, self._load = messages, dump, load
        self._number = b""
        self._closing = threading.Lock()

    def recv(self) -> Any:
        data = memoryview(self._messages.next_bytes())
        self._number = bytes(data[: _NUMBER.size])
        return self._load(data[_NUMBER.size :])

    def send(self, obj: Any) -> None:
        self._messages.send_bytes(self._number + self._dump(obj))

    def end(self) -> None:
        """Whoever reads or writes here is at the end. Never blocks."""
        with self._closing, contextlib.suppress(OSError):
            with socket.socket(fileno=os.dup(self._messages.fileno())) as same:
                same.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._closing:
            self._messages.close()


class Door:
    """Where threads of this machine come in. `arrive` is given the line of each."""

    def __init__(self, arrive: Callable[[DirectLine], None], codec: tuple[Any, Any]) -> None:
        self._arrive, self._codec = arrive, codec
        self._tokens: OrderedDict[bytes, None] = OrderedDict()
        self._lines: weakref.WeakSet[DirectLine] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False
        self.name = b"\0goslings-manager-" + secrets.token_hex(16).encode()
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._listening.setblocking(False)
            self._listening.bind(self.name)
            self._listening.listen(socket.SOMAXCONN)
        except BaseException:
            self._listening.close()
            raise
        go(self._admit_all).name = "door of a manager"

    def promise(self) -> bytes:
        """A token for one entry."""
        token = secrets.token_bytes(_TOKEN)
        with self._lock:
            self._tokens[token] = None
            if len(self._tokens) > _TOKENS:
                self._tokens.popitem(last=False)
        return token

    def _admit_all(self) -> None:
        while not self._closed:
            try:
                wait_fd(self._listening.fileno(), False, None)
                came, _ = self._listening.accept()
            except BlockingIOError:
                continue
            except (OSError, ValueError):
                if self._closed:
                    return
                sleep(_PAUSE)  # no descriptor is left for it: that passes
                continue
            if _is_ours(came):
                go(self._admit, came)
            else:
                came.close()

    def _admit(self, came: socket.socket) -> None:
        messages = Messages(came.detach())
        try:
            shown = messages.next_bytes(_SECONDS)
            if shown is None or not self._redeem(bytes(shown)):
                messages.close()
                return
        except (OSError, EOFError):
            messages.close()
            return
        line = DirectLine(messages, *self._codec)
        self._lines.add(line)
        if self._closed:
            line.close()
            return
        self._arrive(line)

    def _redeem(self, shown: bytes) -> bool:
        with self._lock:
            found = [token for token in self._tokens if hmac.compare_digest(token, shown)]
            for token in found:
                del self._tokens[token]
        return bool(found)

    def close(self) -> None:
        """Nobody comes in any more, and who is in is at the end. Never blocks."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        closing_fd(self._listening.fileno())
        self._listening.close()
        for line in list(self._lines):
            line.end()


def knock(name: bytes, token: bytes, seat: object = None) -> Direct | None:
    """A lane through the door of this name; None if there is no such door on this machine, or no room at it.

    `seat` lives as long as the lane.
    """
    to = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        to.setblocking(False)
        to.connect(name)
        if not _is_ours(to):
            to.close()
            return None
        to.send(token)
    except OSError:
        to.close()
        return None
    return Direct(Messages(to.detach()), seat)


class Direct:
    """A lane, at the thread that uses it."""

    def __init__(self, messages: Messages, seat: object) -> None:
        self._messages, self._seat = messages, seat
        self._number = 0

    def call(self, data: bytes) -> Any:
        """One request, and its answer. Parks the goroutine, or blocks the thread. Raises Ended."""
        self._number += 1
        head = _NUMBER.pack(self._number)
        try:
            self._messages.send_bytes(head + data)
            while True:
                answer = memoryview(self._messages.next_bytes(soon=True))
                if answer[: _NUMBER.size] == head:
                    return answer[_NUMBER.size :]
        except (EOFError, ConnectionError):
            raise Ended("the manager has ended, or has closed the connection") from None
