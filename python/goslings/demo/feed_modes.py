"""The other ways to refresh the same feeds, for comparison: one by one, threads, processes.

Each is written as one would without goslings, and takes the same arguments as `feeds.refresh`:
what is known, the way to the pages, the store's file, how many at once, and whom to tell.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from .feed_item import Known, Library, Refreshed, prepare, refresh_feed
from .feed_page import Web
from .feed_store import Store

Tell = Callable[[Refreshed], None]
Refresh = Callable[[Library, Web, Path, int, Tell], None]


def sequential(library: Library, web: Web, path: Path, width: int, tell: Tell) -> None:
    with Store(path) as store:
        for url, known in library.items():
            refreshed = refresh_feed(web, url, known)
            store.add(refreshed)
            tell(refreshed)


def threaded(library: Library, web: Web, path: Path, width: int, tell: Tell) -> None:
    """`width` threads between two queues; this thread stores."""
    jobs: queue.SimpleQueue[tuple[str, Known] | None] = queue.SimpleQueue()
    results: queue.Queue[Refreshed | BaseException] = queue.Queue(width)

    def work() -> None:
        try:
            while (job := jobs.get()) is not None:
                results.put(refresh_feed(web, *job))
        except BaseException as error:  # noqa: BLE001 - raised where the results are taken
            results.put(error)

    for job in library.items():
        jobs.put(job)
    for _ in range(width):
        jobs.put(None)
        threading.Thread(target=work, daemon=True).start()
    with Store(path) as store:
        for _ in library:
            refreshed = results.get()
            if isinstance(refreshed, BaseException):
                raise refreshed
            store.add(refreshed)
            tell(refreshed)


def pooled(library: Library, web: Web, path: Path, width: int, tell: Tell) -> None:
    """A pool of `width` processes; items come back pickled, this process stores."""
    # Forked children have feedparser imported already; where there is no fork, they start fresh.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    jobs = [(web, url, known) for url, known in library.items()]
    with context.Pool(width, _start_process, (web,)) as pool, Store(path) as store:
        for refreshed in pool.imap_unordered(_refresh, jobs):
            store.add(refreshed)
            tell(refreshed)


def _start_process(web: Web) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent ends the pool
    prepare()
    web.prepare()


def _refresh(job: tuple[Web, str, Known]) -> Refreshed:
    return refresh_feed(*job)
