"""Names: the resolver of the C library blocks, so goroutines ask it on a thread of `goslings.blocking`."""

from __future__ import annotations

import _socket
from collections.abc import Callable
from typing import Any

from goslings._blocking import offload as blocking
from goslings._goslings import _Patched

__all__ = ["FUNCTIONS", "resolved"]

_getaddrinfo = _socket.getaddrinfo
_INTERNET = (_socket.AF_INET, _socket.AF_INET6)


def _is_address(host: object) -> bool:
    """Whether nobody has to be asked: an address in figures, or a word for one that C knows itself."""
    if isinstance(host, bytes | bytearray):
        try:
            host = host.decode("ascii")
        except UnicodeDecodeError:
            return False
    if not isinstance(host, str):
        return True  # None, or a mistake
    if host in ("", "<broadcast>"):
        return True
    for family in _INTERNET:
        try:
            _socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return True
    return False


def resolved(sock: _socket.socket, address: Any) -> Any:
    """The address with its host name replaced by what C would take for it: the first answer for the family."""
    family = _socket.socket.family.__get__(sock)
    if family not in _INTERNET or not isinstance(address, tuple) or not address or _is_address(address[0]):
        return address
    answers = blocking(_getaddrinfo, address[0], None, family)
    host, *rest = answers[0][4]
    if family == _socket.AF_INET6 and len(address) < 4 and len(rest) == 3 and rest[2]:
        # A link-local address has a scope, which the caller did not give.
        return (host, *address[1:2], *(address[2:3] or (0,)), rest[2])
    return (host, *address[1:])


def _off_thread(name: str, quick: Callable[..., bool]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    original = getattr(_socket, name)

    def ask(*args: Any, **kwargs: Any) -> Any:
        if quick(*args, **kwargs):
            return original(*args, **kwargs)
        return blocking(original, *args, **kwargs)

    return original, _Patched(original, ask)


def _quick_getaddrinfo(host: Any = None, port: Any = None, *_args: Any, **_kwargs: Any) -> bool:
    return (port is None or isinstance(port, int)) and _is_address(host)


def _quick_host(host: Any = None, *_args: Any) -> bool:
    return _is_address(host)


def _quick_getnameinfo(address: Any = None, *_args: Any) -> bool:
    return not isinstance(address, tuple)  # a mistake


def _slow(*_args: Any, **_kwargs: Any) -> bool:
    return False


FUNCTIONS = {
    "getaddrinfo": _off_thread("getaddrinfo", _quick_getaddrinfo),
    "gethostbyname": _off_thread("gethostbyname", _quick_host),
    "gethostbyname_ex": _off_thread("gethostbyname_ex", _slow),
    "gethostbyaddr": _off_thread("gethostbyaddr", _slow),
    "getnameinfo": _off_thread("getnameinfo", _quick_getnameinfo),
}
"""Functions of `_socket`, where `socket.getaddrinfo` looks for its own, and of `socket`; and what replaces them."""
