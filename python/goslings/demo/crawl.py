"""`goslings demo crawl`: a crawler with `requests`, which knows nothing of goroutines, in 500 of them.

`crawl_modes.with_goroutines` is what to read. `crawl_fetch` is what is done with one page, `crawl_site` the site that
is visited, `crawl_child` a crawl in a process of its own. Here they are put together, and what came out is shown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .crawl_site import Site
from .feed_options import positive, seconds
from .feed_page import FeedError
from .feed_report import interpreter

_PAGES, _MOST = 3000, 500

_DESCRIPTION = """\
A polite crawler. It fetches with `requests`, whose sockets park under goslings.patch(): 500 goroutines on two workers.
Visited is a site of some thousand generated pages, served by goslings in another process; the same crawl on a pool of
threads is shown beside it. Each address is visited once, robots.txt is respected, and no other host is.
"""

_EPILOG = """\
examples:
  goslings demo crawl                              the generated site, twice
  goslings demo crawl --pages 500 --goroutines 100
  goslings demo crawl --url https://example.org/ --most 50
                                                   a real site: two at once, a second between requests

A real site is crawled by goslings only. Its robots.txt says what is allowed, and Crawl-delay how fast; --delay and
--goroutines can make that slower, and --delay 0 is for sites of your own.
"""


def main(argv: Sequence[str]) -> int:
    """The command. Returns the exit status."""
    options = _options(argv)
    try:
        rows = _crawl(options)
    except FeedError as error:
        print(f"goslings demo crawl: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("goslings demo crawl: interrupted", file=sys.stderr)
        return 130
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps({"python": interpreter(), "crawls": rows}, indent=1) + "\n")
    if len({row["digest"] for row in rows.values()}) > 1:
        print("THE CRAWLS HAVE FOUND DIFFERENT PAGES")
        return 1
    return 0


def _crawl(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    with ExitStack() as stack:
        if options.url:
            from .crawl_fetch import normal

            url = normal(options.url)
            if url is None:
                raise FeedError(f"not an http address: {options.url}")
            print(f"{url}; {interpreter()}", flush=True)
            return {"goslings": _run(options, "goslings", url, options.goroutines)}
        site = stack.enter_context(Site(options.pages))
        print(f"{options.pages:,} pages on a local server; {interpreter()}", flush=True)
        widths = {"threads": options.threads, "goslings": options.goroutines}
        return {mode: _run(options, mode, site.url, width) for mode, width in widths.items()}


def _run(options: argparse.Namespace, mode: str, url: str, width: int) -> dict[str, Any]:
    task = {
        "mode": mode,
        "url": url,
        "width": width,
        "workers": options.workers,
        "delay": options.delay,
        "timeout": options.timeout,
        "most": options.most,
    }
    child = [sys.executable, "-m", "goslings.demo.crawl_child"]
    done = subprocess.run(child, input=json.dumps(task), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise FeedError(f"{mode}: the crawl ended with status {done.returncode}; its error is above")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "error" in answer:
        raise FeedError(answer["error"])
    return {"width": width, **answer}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A line for each crawl, and what else there was to see."""
    lines = [
        f"{'':10} {'at once':>8} {'requests':>9} {'pages':>7} {'errors':>7} {'duplicates':>11} {'wall':>9} "
        f"{'requests/s':>11} {'memory':>10}"
    ]
    for mode, row in rows.items():
        lines.append(
            f"{mode:10} {row['width']:8} {row['requests']:9,} {row['pages']:7,} {sum(row['errors'].values()):7,} "
            f"{row['duplicates']:11,} {row['seconds']:7.2f} s {row['requests'] / row['seconds']:11,.0f} "
            f"{row['memory'] / 2**20:6,.0f} MiB"
        )
    last = list(rows.values())[-1]
    errors = ", ".join(f"{count} {name}" for name, count in sorted(last["errors"].items())) or "none"
    lines.append(f"errors: {errors}")
    lines.append(f"left out: {last['forbidden']:,} that robots.txt forbids, {last['elsewhere']:,} links to other hosts")
    return "\n".join(lines)


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="goslings demo crawl",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--url", help="crawl a real site from there")
    add("--pages", type=positive(1_000_000), metavar="N", help=f"of the generated site (default {_PAGES})")
    add("--most", type=positive(10_000_000), metavar="N", help=f"requests at most (default with --url: {_MOST})")
    add("--goroutines", type=positive(100_000), metavar="N", help="at once (default 500; with --url: 2)")
    add("--workers", type=positive(256), default=2, metavar="N", help="that run goroutines (default 2)")
    add("--threads", type=positive(10_000), metavar="N", help="of the pool beside it (default 32)")
    add("--delay", type=_delay, metavar="S", help="between two requests (default with --url: 1)")
    add("--timeout", type=seconds, default=30.0, metavar="S", help="of one request (default 30)")
    add("--json", type=Path, metavar="FILE", help="write all figures")
    options = parser.parse_args(argv)
    if options.url and (options.pages or options.threads):
        parser.error("--pages and --threads are for the generated site, not for --url")
    options.pages = options.pages or _PAGES
    options.threads = options.threads or 32
    options.goroutines = options.goroutines or (2 if options.url else 500)
    options.most = options.most or (_MOST if options.url else 10_000_000)
    options.delay = options.delay if options.delay is not None else (1.0 if options.url else 0.0)
    return options


def _delay(text: str) -> float:
    return 0.0 if text == "0" else seconds(text)
