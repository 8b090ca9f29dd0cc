"""`multiprocessing` on goslings: `from goslings.compat import multiprocessing`.

The same names and signatures. Queues, pipes, locks, pools and processes can be waited for by any number of goroutines,
which park; queues need no feeder threads and no locks between processes. docs/multiprocessing.md says what is whose.
"""

from __future__ import annotations

import multiprocessing as _std
from typing import Any

from goslings.compat.multiprocessing import connection as connection
from goslings.compat.multiprocessing import context as context
from goslings.compat.multiprocessing import managers as managers
from goslings.compat.multiprocessing import pool as pool
from goslings.compat.multiprocessing import queues as queues
from goslings.compat.multiprocessing import synchronize as synchronize
from goslings.compat.multiprocessing.context import default_context as _default

__all__ = [name for name in dir(_default) if not name.startswith("_")]
globals().update((name, getattr(_default, name)) for name in __all__)


def __getattr__(name: str) -> Any:
    """Modules of the standard library that are used as they are: `shared_memory`, `util`, `sharedctypes` …"""
    import importlib

    if name in _REUSED:
        return importlib.import_module(f"multiprocessing.{name}")
    return getattr(_std, name)


_REUSED = frozenset({
    *("dummy", "forkserver", "heap", "popen_fork", "popen_forkserver", "popen_spawn_posix", "process"),
    *("reduction", "resource_sharer", "resource_tracker", "shared_memory", "sharedctypes", "spawn", "util"),
})  # fmt: skip
