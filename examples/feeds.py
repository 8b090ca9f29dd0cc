"""A feed reader in a page: goroutines, two channels, one store.

    pip install goslings feedparser
    python examples/feeds.py news.db https://example.org/feed.xml https://example.com/rss

Run it again: only what is new since then is added. `goslings demo feeds` is the grown-up version,
with a web of broken feeds to try it on and a table that compares it with threads and processes.
"""

from __future__ import annotations

import io
import sqlite3
import sys
from contextlib import closing
from urllib.request import Request, urlopen

import feedparser
from goslings import Goroutine, WaitGroup, blocking, chan, go

READERS = 64


def parse(url: str, page: bytes) -> list[tuple[str, str, str]]:
    """One row per item: the feed, what tells the item from others, its title."""
    entries = feedparser.parse(io.BytesIO(page)).entries
    return [(url, e.get("id") or e.get("link") or e.title, e.get("title", "")) for e in entries]


def fetch_then_parse(url: str) -> Goroutine[list[tuple[str, str, str]]]:
    """Runs on a thread of its own, since urlopen blocks. Any free worker takes the parse."""
    request = Request(url, headers={"User-Agent": "goslings-example"})
    with urlopen(request, timeout=10) as response:
        return go(parse, url, response.read())


def reader(jobs: chan[str], results: chan[list[tuple[str, str, str]]]) -> None:
    """Takes one feed after the other. A broken one is a line on stderr and stops nothing."""
    for url in jobs:
        try:
            results.send(blocking(fetch_then_parse, url).result())
        except Exception as error:  # noqa: BLE001 - whatever one feed does
            print(f"{url}: {error}", file=sys.stderr)


def keeper(path: str, jobs: chan[str], results: chan[list[tuple[str, str, str]]]) -> int:
    """The only goroutine that touches the store. Returns how many items were new."""
    # Leaving closes both channels: should the store fail, everyone else stops as well.
    with jobs, results, closing(sqlite3.connect(path)) as store, store:
        store.execute("CREATE TABLE IF NOT EXISTS items (feed, key, title, UNIQUE (feed, key))")
        before = store.total_changes
        for rows in results:
            store.executemany("INSERT OR IGNORE INTO items VALUES (?, ?, ?)", rows)
        return store.total_changes - before


def main(path: str, urls: list[str]) -> None:
    jobs: chan[str] = chan()
    results: chan[list[tuple[str, str, str]]] = chan(READERS)
    readers = WaitGroup()
    kept = go(keeper, path, jobs, results)
    for _ in range(min(READERS, len(urls))):
        readers.go(reader, jobs, results)
    with results:
        with jobs:
            for url in urls:
                jobs.send(url)
        readers.wait()
    print(f"{kept.result()} new items in {path}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: feeds.py STORE URL…   e.g.  feeds.py news.db https://example.org/feed.xml")
    main(sys.argv[1], sys.argv[2:])
