"""The command line of `goslings demo feeds`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .feed_run import MODES

_FEEDS, _FEEDS_QUICK = 300, 60

_DESCRIPTION = """\
A feed reader with goroutines and channels. A few dozen goroutines take feed addresses from one
channel, fetch and parse (with feedparser), and put the new items into another channel; one
goroutine keeps them in SQLite. Then the same with plain loops, threads and processes, and a table.

Without --opml or --url the feeds come from a local server that plays a few hundred sites: RSS
0.91 to 2.0, RDF and Atom, and a share of huge, slow, truncated, wrongly encoded and dead ones.
"""

_EPILOG = """\
examples:
  goslings demo feeds                         the whole comparison, under a minute
  goslings demo feeds --quick                 the same with fewer feeds
  goslings demo feeds --slow 0 --rounds 5     for exact figures: parsing only, medians
  goslings demo feeds --places processes      goroutines here fetch, goroutines in worker processes parse
  goslings demo feeds --opml my.opml --store my.db
                                              read your own feeds; run it again: only new items

With a GIL one goroutine parses at a time, so there a row `processes` is added: goslings, parsing in worker
processes. --places says so on any build, --places threads leaves it out.

How to read the table. `speed-up` is against the sequential loop. `of ceiling` compares that with
independent processes that share nothing and read a part each: as fast as this machine gets.
More than 100 % is possible, because waiting for slow servers can be overlapped as well. Memory
is that of all processes of a run together, sampled; the server is not part of it. Each run is a
fresh process with an empty store; imports are not timed; starting threads or processes is.
The exit status is 1 if the stores differ in a single row or a second refresh adds anything.
"""


def feed_options(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the arguments; exits with a message and status 2 if they are wrong."""
    parser = argparse.ArgumentParser(
        prog="goslings demo feeds",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own = parser.add_argument_group("your own feeds (fetched once, by goslings, without --only)")
    own.add_argument(
        "--opml", type=Path, action="append", default=[], metavar="FILE",
        help="the feeds of an OPML file, as feed readers export it; may be repeated",
    )  # fmt: skip
    own.add_argument(
        "--url", action="append", default=[], help="one feed; may be repeated"
    )  # fmt: skip
    site = parser.add_argument_group("the local server's feeds")
    site.add_argument("--feeds", type=positive(10_000), metavar="N", help=f"how many (default {_FEEDS})")
    site.add_argument("--quick", action="store_true", help=f"only {_FEEDS_QUICK} feeds, unless --feeds says else")
    site.add_argument(
        "--slow", type=share, default=2, metavar="PERCENT",
        help="share of feeds that are slow to answer and trickle (default 2; 0 times parsing only)",
    )  # fmt: skip
    site.add_argument("--seed", type=positive(2**31), default=1, metavar="N", help="other feeds (default 1)")
    run = parser.add_argument_group("running")
    run.add_argument(
        "--goroutines", type=positive(100_000), default=64, metavar="N",
        help="feeds refreshed at once by goslings (default 64)",
    )  # fmt: skip
    run.add_argument(
        "--places", choices=["threads", "processes"],
        help="where goslings parses: in the threads of this process, or also in worker processes, a row of their own "
        "(default: processes with a GIL, threads without)",
    )  # fmt: skip
    run.add_argument(
        "--timeout", type=seconds, default=10.0, metavar="SECONDS",
        help="for a whole feed, from connecting to its last byte (default 10)",
    )  # fmt: skip
    run.add_argument(
        "--only", type=modes, metavar="MODE,…", help=f"some of {', '.join(MODES)}"
    )  # fmt: skip
    run.add_argument(
        "--rounds", type=positive(1000), default=1, metavar="N",
        help="measure so often and show medians (default 1)",
    )  # fmt: skip
    out = parser.add_argument_group("results")
    out.add_argument(
        "--store", type=Path, metavar="FILE",
        help="keep the items in this SQLite file (default: a temporary one)",
    )  # fmt: skip
    out.add_argument("--json", type=Path, metavar="FILE", help="write all figures and every feed")
    out.add_argument("--plot", type=Path, metavar="FILE", help="draw the times (PNG, SVG or PDF)")
    options = parser.parse_args(argv)
    if (options.opml or options.url) and (options.feeds or options.quick):
        parser.error("--feeds and --quick are for the local server, not for --opml or --url")
    if options.only and options.store and (options.opml or options.url):
        parser.error("--only compares in temporary stores: leave out --only or --store")
    places = options.places or ("processes" if gil() else "threads")
    options.modes = options.only or [mode for mode in MODES if mode != "processes" or places == "processes"]
    options.reader = "processes" if options.places == "processes" else "goslings"
    options.feeds = options.feeds or (_FEEDS_QUICK if options.quick else _FEEDS)
    return options


def gil() -> bool:
    """Whether one thread at a time runs Python code here (the GIL may have been re-enabled)."""
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def modes(text: str) -> list[str]:
    """An argparse type: names of modes, put into the table's order."""
    names = {name.strip() for name in text.split(",")}
    if unknown := names - set(MODES):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(map(repr, unknown)))} is not one of {', '.join(MODES)}")
    return [mode for mode in MODES if mode in names]


def positive(most: int) -> Callable[[str], int]:
    """An argparse type: a whole number from 1 to `most`."""

    def number(text: str) -> int:
        if text.isdecimal() and 1 <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {most:,}, not {text!r}")

    return number


def share(text: str) -> int:
    """An argparse type: a whole number of per cent."""
    if text.isdecimal() and int(text) <= 100:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 100, not {text!r}")


def seconds(text: str) -> float:
    """An argparse type: a positive time."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if 0 < value <= 3600:
        return value
    raise argparse.ArgumentTypeError(f"must be seconds above 0, at most 3600, not {text!r}")
