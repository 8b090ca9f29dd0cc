"""A crawler, twice: goroutines and channels, and a pool of threads. Both fetch with the same code.

`Frontier` decides what is still to be visited; whoever runs the crawl owns it, so it needs no lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import local

from .crawl_fetch import Fetched, Fetcher, Rules

__all__ = ["CRAWLERS", "Frontier"]

type Tell = Callable[[Fetched], None]


class Frontier:
    """Each address once, on one site, as robots.txt allows, and no more than `most`."""

    def __init__(self, start: str, rules: Rules, most: int) -> None:
        self._rules = rules
        self._most = most
        self._seen = {start}
        self.todo = deque([start])
        self.duplicates = 0
        self.forbidden = 0
        self.elsewhere = 0

    def add(self, fetched: Fetched) -> None:
        """Takes in the links of a page."""
        for link in fetched.links:
            if link in self._seen:
                self.duplicates += 1
            elif not self._rules.here(link):
                self.elsewhere += 1
            elif not self._rules.allows(link):
                self.forbidden += 1
                self._seen.add(link)
            elif len(self._seen) - self.forbidden < self._most:
                self._seen.add(link)
                self.todo.append(link)


def with_goroutines(frontier: Frontier, rules: Rules, timeout: float, width: int, tell: Tell) -> None:
    """`width` goroutines between two channels. This one owns the frontier, and sends and receives, whichever it can."""
    from goslings import Group, Selected, chan, recv, select, send

    jobs: chan[str] = chan()
    results: chan[Fetched] = chan(width)

    def visit() -> None:
        fetcher = Fetcher(rules, timeout)
        for url in jobs:
            results.send(fetcher.fetch(url))

    with Group() as group, jobs:
        for _ in range(width):
            group.go(visit)
        pending = 0
        while frontier.todo or pending:
            # Without anything to do, the case of the send is never ready.
            job = send(jobs, frontier.todo[0]) if frontier.todo else send(None, "")
            match select(job, recv(results)):
                case Selected(0):
                    frontier.todo.popleft()
                    pending += 1
                case Selected(1, fetched):
                    pending -= 1
                    frontier.add(fetched)
                    tell(fetched)


def with_threads(frontier: Frontier, rules: Rules, timeout: float, width: int, tell: Tell) -> None:
    """A ThreadPoolExecutor. This thread owns the frontier."""
    own = local()

    def visit(url: str) -> Fetched:
        if not hasattr(own, "fetcher"):
            own.fetcher = Fetcher(rules, timeout)
        fetcher: Fetcher = own.fetcher
        return fetcher.fetch(url)

    with ThreadPoolExecutor(width) as pool:
        pending: set[Future[Fetched]] = set()
        while frontier.todo or pending:
            while frontier.todo:
                pending.add(pool.submit(visit, frontier.todo.popleft()))
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                fetched = future.result()
                frontier.add(fetched)
                tell(fetched)


CRAWLERS = {"goslings": with_goroutines, "threads": with_threads}
