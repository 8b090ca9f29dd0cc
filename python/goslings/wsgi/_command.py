"""`goslings serve module:app`."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any
from wsgiref.types import WSGIApplication

import goslings

from . import serve
from ._options import Options

__all__ = ["main"]

_DESCRIPTION = """\
Serves a WSGI application: Flask, Django, or any other. Requests are answered by goroutines, on as many workers as there
are CPUs (one, on an interpreter with a GIL). The standard library is patched first, so that a handler that waits for a
database or another server parks, and holds nobody up.

APP is module:name, where the name may have dots; module alone means module:app or module:application, and
`module:create_app()` calls a function for it. The current folder is where modules are looked for first.
"""

_EPILOG = """\
examples:
  goslings serve hello:app                              on http://127.0.0.1:8000
  goslings serve mysite.wsgi --bind :80 --workers 4     Django, for everybody, on four cores
  goslings serve 'shop:create_app()' --bind unix:/run/shop.sock --access-log off
                                                        behind a proxy on the same machine
  goslings serve hello:app --certfile cert.pem --keyfile key.pem --bind :8443

how to stop it:
  SIGTERM or Ctrl-C: no new connections; requests in flight are answered, for --grace seconds at most; then it ends
  with status 0, or 1 if some were cut off. The same signal again: at once. SIGQUIT (Ctrl-\\) prints what every
  goroutine does, and ends it.

what is refused, and how:
  400 what is no HTTP, 408 what does not come in time, 413 a body above --body-limit, 414 and 431 a request line and
  headers above their limits, 417 an unknown Expect, 501 an unknown Transfer-Encoding, 505 an unknown version.

Sizes are bytes, or end in K, M or G. Times are seconds.
"""

_FACTORS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def main(argv: Sequence[str]) -> int:
    """The command. Returns the exit status."""
    options = _parser().parse_args(argv)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        if options.workers is not None:
            if options.workers < 1:
                raise ValueError(f"workers must be a positive whole number, not {options.workers}")
            goslings.gomaxprocs(options.workers)
        settings = _settings(options)
        Options(**settings)
    except ValueError as error:
        return _complain(error)
    if options.patch:
        goslings.patch()
    goslings._stacks.quit_on_signal()
    if not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd())
    try:
        app = find(options.app)
    except LookupError as error:
        return _complain(error)
    try:
        return 0 if serve(app, **settings) else 1
    except (OSError, ValueError) as error:
        return _complain(error)


def find(name: str) -> WSGIApplication:
    """The application of that name. Raises LookupError if there is none; lets errors of its own module pass."""
    module_name, colon, path = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # something that it imports itself
        raise LookupError(f"there is no module {module_name!r} here") from None
    if not colon:
        path = "app" if hasattr(module, "app") else "application"
    call = path.endswith("()")
    found: Any = module
    for part in path.removesuffix("()").split("."):
        if not hasattr(found, part):
            raise LookupError(f"module {module_name!r} has no {path!r}")
        found = getattr(found, part)
    if call:
        found = found()
    if not callable(found):
        raise LookupError(f"{name!r} is no WSGI application: {type(found).__name__} cannot be called")
    app: WSGIApplication = found
    return app


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments as those of `Options`."""
    names = [
        *("backlog", "max_connections", "header_limit", "body_limit", "header_timeout", "body_timeout"),
        *("keep_alive", "write_timeout", "grace", "certfile", "keyfile"),
    ]
    settings = {name: getattr(options, name) for name in names}
    settings["bind"] = tuple(options.bind or Options().bind)
    settings["access_log"] = None if options.access_log == "off" else options.access_log
    return settings


def _complain(error: Exception) -> int:
    print(f"goslings serve: {error}", file=sys.stderr)
    return 2


def _size(text: str) -> int:
    digits, factor = (text[:-1], _FACTORS[text[-1].upper()]) if text[-1:].upper() in _FACTORS else (text, 1)
    if not digits.isdecimal() or not int(digits):
        raise argparse.ArgumentTypeError(f"must be a positive size such as 65536 or 64K, not {text!r}")
    return int(digits) * factor


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="goslings serve",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("app", metavar="APP", help="module:name of the application")

    def add(name: str, kind: Callable[[str], Any], metavar: str, what: str, group: Any = parser) -> None:
        default = getattr(Options(), name)
        shown = "" if default is None else f" ({default:g})" if isinstance(default, float) else f" ({_shown(default)})"
        flag = "--" + name.replace("_", "-")
        group.add_argument(flag, type=kind, default=default, metavar=metavar, help=what + shown)

    parser.add_argument(
        *("-b", "--bind"), action="append", metavar="ADDRESS",
        help="host:port, [ipv6]:port, :port for all interfaces, or unix:path; repeatable (127.0.0.1:8000)",
    )  # fmt: skip
    parser.add_argument(
        *("-w", "--workers"), type=int, metavar="N", help="workers that run goroutines (see goslings.gomaxprocs)"
    )
    parser.add_argument(
        "--access-log", default="-", metavar="FILE", help="combined format; `-`: stdout; `off`: none (-)"
    )
    parser.add_argument(
        "--patch", action=argparse.BooleanOptionalAction, default=True,
        help="make the standard library's blocking calls park their goroutine (on)",
    )  # fmt: skip
    limits = parser.add_argument_group("limits")
    add("max_connections", int, "N", "connections at a time; more wait", limits)
    add("backlog", int, "N", "connections that the kernel keeps waiting", limits)
    add("header_limit", _size, "SIZE", "of a request's line and headers", limits)
    add("body_limit", _size, "SIZE", "of a request's body", limits)
    times = parser.add_argument_group("times")
    add("header_timeout", float, "S", "from a request's first byte to the end of its headers", times)
    add("body_timeout", float, "S", "without a byte of the body", times)
    add("write_timeout", float, "S", "without the client taking a byte of the answer", times)
    add("keep_alive", float, "S", "between two requests of a connection; 0: one request each", times)
    add("grace", float, "S", "for requests in flight when it is stopped", times)
    tls = parser.add_argument_group("TLS")
    add("certfile", str, "FILE", "the certificate with its chain, PEM", tls)
    add("keyfile", str, "FILE", "its key, if it is in a file of its own", tls)
    return parser


def _shown(size: int) -> str:
    for letter, factor in reversed(_FACTORS.items()):
        if size >= factor and size % factor == 0 and size >= 64 * 1024:
            return f"{size // factor}{letter}"
    return str(size)
