"""concurrent.futures: executors of threads and futures are made of `threading` and `queue`, and follow those."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from goslings._patch import _locks
from goslings._patch._change import Unit

__all__ = ["unit"]


def _finish() -> list[str]:
    """The module may be there already, with a lock, and with threads of executors."""
    module: Any = sys.modules.get("concurrent.futures.thread")
    if module is None:
        return []
    new: Any = threading.Lock()
    if not _locks.is_real(new) and _locks.is_real(module._global_shutdown_lock):
        with module._global_shutdown_lock:
            module._global_shutdown_lock = new
        os.register_at_fork(before=new.acquire, after_in_child=new._at_fork_reinit, after_in_parent=new.release)
    count = len(module._threads_queues)
    return [f"{count} threads of executors that were at work before"] if count else []


def unit() -> Unit:
    return Unit(
        "concurrent.futures",
        [],
        follows=["concurrent.futures.ThreadPoolExecutor", "concurrent.futures.Future", "concurrent.futures.wait"],
        cannot={"concurrent.futures.ProcessPoolExecutor": "processes are no goroutines; waiting for its futures parks"},
        finish=_finish,
    )
