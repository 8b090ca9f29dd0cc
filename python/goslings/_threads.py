"""Threads and locks of the system, whatever `goslings.patch` has made of `threading`: the runtime needs some."""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["HANDLE", "are_everywhere", "everywhere", "lock", "start"]

HANDLE = "_os_thread_handle" if sys.version_info >= (3, 14) else "_handle"
"""The attribute of Thread that holds its handle."""

lock = _thread.allocate_lock
"""Makes a lock of threads alone: who waits for it holds the worker."""

_Handle = _thread._ThreadHandle

_everywhere = False


def start(target: Callable[..., object], *args: Any, name: str) -> None:
    """Starts a daemon thread of the system."""
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    setattr(thread, HANDLE, _Handle())  # by which a patched `threading` knows it
    thread.start()


def everywhere() -> None:
    """From now on, in a patched `threading`, threads that plain threads start are goroutines, too."""
    global _everywhere
    _everywhere = True


def are_everywhere() -> bool:
    """Whether that was asked for."""
    return _everywhere
