"""A WSGI server: Flask, Django and whatever else speaks WSGI, in goroutines on all cores.

    from goslings.wsgi import serve
    serve(app, bind=("127.0.0.1:8000",))

`goslings serve module:app` is the same as a command. Call `goslings.patch()` first, so that blocking calls of the
application park its goroutine and hold nobody up; the command does that itself.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any
from wsgiref.types import WSGIApplication

from goslings import Event

from ._options import Options as Options
from ._server import Server as Server

__all__ = ["Options", "Server", "serve"]


def serve(app: WSGIApplication, **options: Any) -> bool:
    """Serves `app` until SIGTERM or SIGINT, then stops gracefully; the second such signal cuts what is left.

    Blocks. Options are those of `Options`. Returns whether all requests in flight were answered. Only the main thread
    gets signals: on another it serves until the process ends. Raises ValueError and OSError as `Server` does.
    """
    with_signals = threading.current_thread() is threading.main_thread()
    server = Server(app, **options)
    signalled, hurry = Event(), Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        (hurry if signalled.is_set() else signalled).set()

    before = {}
    if with_signals:
        before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.start()
        for address in server.addresses:
            print(f"goslings: serving on {address}", file=sys.stderr, flush=True)
        signalled.wait()
        return server.stop(hurry=hurry)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
