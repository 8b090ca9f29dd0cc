"""One measured run in a fresh process: `python -m goslings.demo.feed_child`.

It reads what to do as a line of JSON, imports everything, says `{"ready": …}`, waits for another
line, refreshes, and prints what came out. So imports are in nobody's time, and several of these
can start at the same moment.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from . import feed_modes, feeds
from .feed_item import Refreshed, prepare
from .feed_page import FeedError, Web
from .feed_store import Store

_REFRESH: dict[str, feed_modes.Refresh] = {
    "sequential": feed_modes.sequential,
    "threading": feed_modes.threaded,
    "multiprocessing": feed_modes.pooled,
    "goslings": feeds.refresh,
    "processes": feeds.refresh_in_processes,
}


class _Bar(Protocol):
    def update(self) -> object: ...
    def close(self) -> object: ...


class _NoBar:
    def update(self) -> None:
        pass

    def close(self) -> None:
        pass


def _bar(name: str, total: int) -> _Bar:
    """A progress bar on a terminal, if tqdm is installed; else nothing."""
    if not sys.stderr.isatty():
        return _NoBar()
    try:
        import threading

        from tqdm import tqdm
    except ImportError:
        return _NoBar()
    # Its default lock is one between processes, which may start a helper process.
    tqdm.set_lock(threading.RLock())
    tqdm.monitor_interval = 0
    bar: _Bar = tqdm(total=total, desc=f"{name:>15}", unit="feed", leave=False)
    return bar


def _run(task: dict[str, Any], wait: Callable[[], object]) -> dict[str, Any]:
    refresh = _REFRESH[task["mode"]]
    web, path = Web(task["timeout"], task["proxy"]), Path(task["store"])
    prepare()
    web.prepare()
    with Store(path) as store:
        library = store.library(task["feeds"])
    told: list[dict[str, Any]] = []
    wait()
    with closing(_bar(task["mode"], len(library) if task["bar"] else 0)) as bar:

        def tell(refreshed: Refreshed) -> None:
            told.append(
                {
                    "url": refreshed.url,
                    "state": refreshed.state,
                    "note": refreshed.note,
                    "found": refreshed.found,
                    "added": len(refreshed.items),
                    "seconds": refreshed.seconds,
                }
            )
            bar.update()

        start, cpu = time.perf_counter(), _cpu_time()
        refresh(library, web, path, task["width"], tell)
        wall, cpu = time.perf_counter() - start, _cpu_time() - cpu
    with Store(path) as store:
        digest = store.digest()
    if len(told) != len(library):
        raise FeedError(f"only {len(told)} of {len(library)} feeds were reported: please report this")
    return {"wall": wall, "cpu": cpu, "digest": digest, "outcomes": told}


def _cpu_time() -> float:
    """CPU time of this process and of those it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _main() -> int:
    task = json.loads(sys.stdin.readline())

    def wait() -> None:
        print(json.dumps({"ready": True}), flush=True)
        if not sys.stdin.readline():
            raise KeyboardInterrupt  # the parent has gone

    try:
        # Kept waiting by whoever started this, so that it does not strike in an import.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        answer = _run(task, wait)
    except (FeedError, sqlite3.Error) as error:
        answer = {"error": str(error)}
    except KeyboardInterrupt:
        return 130
    print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
