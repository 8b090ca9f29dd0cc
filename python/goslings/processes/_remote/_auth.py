"""Who is there: both sides prove that they know the key, and nothing else is read before.

    server -> client   magic, server's nonce
    client -> server   magic, client's nonce, HMAC(key, "client" + both nonces)
    server -> client   verdict, HMAC(key, "server" + both nonces)

All of fixed size, so that a stranger can have nothing allocated. HMAC-SHA256. Invariants:

* A proof binds the role and both nonces: what one side has said can neither be sent back to it (reflection) nor be used
  in another connection (replay), as each side chose 32 of the bytes itself.
* The server says nothing made of the key before the client has proved that it knows it. A false server learns one
  proof, from which a weak key could be guessed: keys are random bytes, as `secrets.token_bytes(32)` makes them.
* The keys of the frames (`_frames.py`) are made of the key and both nonces, one for each direction. Who relays a
  handshake word by word knows neither, so it can change nothing afterwards, inside TLS or not.

Rejected: multiprocessing's exchange, which proves one side first and the other in a second one of its own, with the
same message format for both; and TLS alone, which proves the server by a certificate but not, as mostly used, the
client.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from goslings._goslings import Conn
from goslings.processes._remote._errors import AuthenticationError

__all__ = ["Keys", "answer", "challenge", "check_key"]

_MAGIC = b"gosling\x01"
"""The protocol and its version."""
_NONCE = 32
_PROOF = 32
_WELCOME, _FULL, _REFUSED = b"\x01", b"\x02", b"\x00"


@dataclass(frozen=True)
class Keys:
    """The keys of one connection, by direction."""

    to_server: bytes
    to_client: bytes


def check_key(authkey: object) -> bytes:
    """The key, if it can be one. Raises TypeError or AuthenticationError."""
    if not isinstance(authkey, bytes | bytearray | memoryview):
        if authkey is None:
            raise AuthenticationError("an authkey is needed: bytes that both sides know")
        raise TypeError(f"an authkey is bytes, not {type(authkey).__name__}")
    key = bytes(authkey)
    if not key:
        raise AuthenticationError("an authkey is needed: it is empty")
    return key


def _made(key: bytes, purpose: bytes, nonces: bytes) -> bytes:
    return hmac.digest(key, b"goslings.processes " + purpose + b"\0" + nonces, "sha256")


def _keys(key: bytes, nonces: bytes) -> Keys:
    return Keys(_made(key, b"frames to server", nonces), _made(key, b"frames to client", nonces))


def challenge(wire: Conn, key: bytes, seconds: float, enter: Callable[[], bool]) -> Keys | None:
    """The server's part. Raises AuthenticationError, TimeoutError, OSError, EOFError.

    `seconds`: for all of it. `enter()` is asked once the client has proved itself, whether there is room for one more;
    if not, the client is told, and this returns None.
    """
    wire.set_deadline(seconds)
    mine = secrets.token_bytes(_NONCE)
    wire.send(_MAGIC + mine)
    # Its first bytes tell whether it speaks this at all: nobody waits for the rest of something else.
    if wire.read_exactly(len(_MAGIC)) != _MAGIC:
        raise AuthenticationError("the client does not speak this protocol, or another version of it")
    theirs, proof = wire.read_exactly(_NONCE), wire.read_exactly(_PROOF)
    nonces = mine + theirs
    if not hmac.compare_digest(proof, _made(key, b"client", nonces)):
        wire.send(_REFUSED + bytes(_PROOF))
        raise AuthenticationError("the client does not know the key")
    entered = enter()
    wire.send((_WELCOME if entered else _FULL) + _made(key, b"server", nonces))
    wire.set_deadline(None)
    return _keys(key, nonces) if entered else None


def answer(wire: Conn, key: bytes, seconds: float | None) -> Keys:
    """The client's part. Raises AuthenticationError, ConnectionRefusedError if the server is full, TimeoutError."""
    wire.set_deadline(seconds)
    try:
        if wire.read_exactly(len(_MAGIC)) != _MAGIC:
            raise AuthenticationError("the server does not speak this protocol, or another version of it")
        theirs, mine = wire.read_exactly(_NONCE), secrets.token_bytes(_NONCE)
        nonces = theirs + mine
        wire.send(_MAGIC + mine + _made(key, b"client", nonces))
        verdict, proof = wire.read_exactly(1), wire.read_exactly(_PROOF)
    except (EOFError, ConnectionResetError, BrokenPipeError):
        raise AuthenticationError("the server closed the connection during authentication") from None
    if verdict == _REFUSED:
        raise AuthenticationError("the server refused the authkey: it has another one")
    if not hmac.compare_digest(proof, _made(key, b"server", nonces)):
        raise AuthenticationError("the server does not know the authkey")
    if verdict != _WELCOME:
        raise ConnectionRefusedError("the server has as many connections as it allows, or is shutting down")
    wire.set_deadline(None)
    return _keys(key, nonces)
