"""`goslings demo feeds`: a feed reader with goroutines and channels, and what it gains.

`refresh` is the reader: a few dozen goroutines take feeds from one channel and put what they
found into another, where one goroutine keeps the store. `main` serves it a web of a few hundred
feeds (or takes your own), runs it beside the other ways to do the same, and prints a table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from . import feed_report
from .feed_input import read_feeds
from .feed_item import Known, Library, Refreshed, parse_page, prepare
from .feed_modes import Tell
from .feed_options import feed_options
from .feed_page import FeedError, Web
from .feed_run import Plan, Run, measure, refresh_once, usable_cpus
from .feed_site import Site
from .feed_store import Store


def refresh(library: Library, web: Web, path: Path, width: int, tell: Tell) -> None:
    """Refreshes all feeds of the library with `width` goroutines, into the store at `path`.

    A goroutine stays on the worker where it started, and fetching blocks a thread. So pages are
    fetched on the threads of `blocking`, and every page is parsed in a goroutine of its own:
    whichever worker is free takes it, and no page waits behind another while a worker is idle.
    """
    from goslings import go

    _refresh(library, web, path, width, tell, go)


def refresh_in_processes(library: Library, web: Web, path: Path, width: int, tell: Tell) -> None:
    """The same, but that pages are parsed in worker processes, one for each CPU: in parallel also with a GIL.

    Nothing else changes. A page travels to a worker as an argument, and its items back as a result.
    """
    from goslings.processes import Processes

    with Processes(usable_cpus(), start="forkserver", initializer=prepare) as workers:
        _refresh(library, web, path, width, tell, workers.go)


def _refresh(library: Library, web: Web, path: Path, width: int, tell: Tell, go_parse: Callable[..., Any]) -> None:
    """`go_parse` is `go`, or that of other places."""
    from goslings import Closed, Goroutine, WaitGroup, blocking, chan, go

    jobs: chan[tuple[str, Known]] = chan()
    results: chan[Refreshed] = chan(width)

    def fetch_then_parse(url: str, known: Known) -> Goroutine[Refreshed]:
        page = web.fetch(url, known.etag, known.modified)
        parsed: Goroutine[Refreshed] = go_parse(parse_page, url, page, known)
        return parsed

    def reader() -> None:
        for url, known in jobs:
            try:
                refreshed = blocking(fetch_then_parse, url, known).result()
            except FeedError as error:
                refreshed = Refreshed(url, "failed", note=str(error))
            with suppress(Closed):  # the keeper has failed; so are the jobs, then
                results.send(refreshed)

    def keeper() -> None:
        # Owns the store. Closing both channels on the way out stops the others if it fails.
        with jobs, results, Store(path) as store:
            for refreshed in results:
                store.add(refreshed)
                tell(refreshed)

    readers = WaitGroup()
    kept = go(keeper)
    for _ in range(min(width, len(library))):
        readers.go(reader)
    with results:
        with suppress(Closed), jobs:
            for job in library.items():
                jobs.send(job)
        readers.wait()
    kept.result()


def main(argv: Sequence[str]) -> int:
    """The command. Returns the exit status."""
    options = feed_options(argv)
    try:
        prepare()
        if options.plot:
            feed_report.matplotlib_pyplot()
        own = read_feeds(options.url, options.opml)
        return _read_own(options, own) if own else _demonstrate(options)
    except FeedError as error:
        print(f"goslings demo feeds: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("goslings demo feeds: interrupted", file=sys.stderr)
        return 130


def _demonstrate(options: argparse.Namespace) -> int:
    """All ways of reading, side by side, on the demo's own web."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="goslings-feeds-")))
        site = stack.enter_context(Site(options.feeds, options.seed, options.slow))
        plan = Plan(site.feeds, Web(options.timeout, site.proxy), options.goroutines, folder)
        print(f"{options.feeds} feeds on a local server; {feed_report.interpreter()}", flush=True)
        runs, ceiling = measure(plan, options.modes, options.rounds)
        print(feed_report.feed_lines(runs[-1].outcomes), feed_report.table(runs, ceiling), sep="\n\n")
        print(feed_report.verdict(runs), flush=True)
        _write(options, runs, ceiling)
        store = options.store or folder / "feeds.db"
        first, second = (refresh_once(plan, options.reader, store) for _ in range(2))
        print(feed_report.refreshes(first, second, options.store))
        if not feed_report.same_store(runs) or feed_report.added(second):
            return 1
    return 0


def _read_own(options: argparse.Namespace, feeds: list[str]) -> int:
    """The user's feeds: fetched once, by goslings, unless a comparison is asked for."""
    with tempfile.TemporaryDirectory(prefix="goslings-feeds-") as name:
        folder = Path(name)
        plan = Plan(feeds, Web(options.timeout), options.goroutines, folder)
        if not options.only:
            run = refresh_once(plan, options.reader, options.store or folder / "feeds.db")
            print(feed_report.feed_lines(run.outcomes), f"{run.wall:.2f} s", sep="\n")
            _write(options, [run], None)
            return 0
        runs, ceiling = measure(plan, options.modes, options.rounds)
        print(feed_report.feed_lines(runs[-1].outcomes), feed_report.table(runs, ceiling), sep="\n\n")
        print(feed_report.verdict(runs))
        _write(options, runs, ceiling)
        # The stores of live feeds may differ because a feed has changed in between.
        return 0


def _write(options: argparse.Namespace, runs: list[Run], ceiling: Run | None) -> None:
    if options.json:
        feed_report.write_json(options.json, runs, ceiling)
    if options.plot:
        feed_report.plot(options.plot, runs, ceiling)
