"""What the demo's web is made of: documents good and bad, the same for the same seed.

Every document says how the server delivers it, so that the server (`feed_site`) only obeys.
The shares below are per hundred feeds; what is left is ordinary feeds of all formats.
"""

from __future__ import annotations

import gzip
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from .feed_format import FORMATS, Channel, channel, rss20

ARCHIVE = Path(__file__).with_name("feedparser_tests.tar.gz")

# Never in the sample: larger than all the others together, so that a run depends on it.
_TOO_LARGE = 100_000


@dataclass(frozen=True, slots=True)
class Document:
    """One address of the demo's web, and how the server answers there."""

    url: str
    kind: str
    body: bytes = b""
    content_type: str = "application/xml"
    status: int = 200
    gzipped: bool = False
    etag: str = ""
    delay: float = 0.0  # seconds before the first byte
    pieces: int = 1  # the body is trickled in so many pieces, over another `delay` seconds
    missing: int = 0  # bytes announced, never sent
    reset: bool = False  # the connection is reset instead of answered


def documents(count: int, seed: int, slow: int = 2) -> list[Document]:
    """So many documents in a random order; `slow` is the share of slow ones in per cent."""
    shares: list[tuple[int, Callable[[int, Random], Document]]] = [
        (12, _from_test_suite(seed)),
        (1, _huge(min(900, max(200, 3 * count)))),
        (slow, _slow),
        (4, _wrongly_encoded),
        (2, _cut_short),
        (1, _web_page),
        (1, _gone),
        (1, _server_error),
        (1, _reset),
        (1, _broken_off),
        (1, _empty),
    ]
    made: list[Document] = []
    for share, make in shares:
        wanted = max(1, count * share // 100) if share else 0
        for _ in range(wanted):
            if len(made) < count:
                made.append(make(len(made), Random(f"{seed}/{len(made)}")))
    while len(made) < count:
        made.append(_ordinary(len(made), Random(f"{seed}/{len(made)}")))
    Random(seed).shuffle(made)
    # The largest come first, as with a reader that remembers sizes: otherwise the luck of the
    # last few decides which way of reading looks better.
    made.sort(key=lambda document: document.kind != "huge")
    return made


def _channel(number: int, random: Random, low: int = 12, high: int = 28) -> Channel:
    home = f"http://site{number:03}.example/"
    return channel(str(random.random()), home, random.randint(low, high))


def _ordinary(number: int, random: Random, name: str = "") -> Document:
    name = name or list(FORMATS)[number % len(FORMATS)]
    site = _channel(number, random)
    encoding = random.choice(("utf-8", "utf-8", "utf-8", "windows-1252", "utf-16"))
    body = FORMATS[name](site, encoding).encode(encoding, "xmlcharrefreplace")
    # A third has no ETag: a second refresh parses those again and must find nothing new.
    etag = f'"{number}-{len(body)}"' if random.random() < 0.67 else ""
    media = "application/atom+xml" if name.startswith("atom") else "application/rss+xml"
    return _packed(Document(f"{site.home}{name}.xml", name, body, media, etag=etag), random)


def _packed(document: Document, random: Random) -> Document:
    if random.random() < 0.5:
        return document
    return replace(document, body=gzip.compress(document.body, mtime=0), gzipped=True)


def _huge(entries: int) -> Callable[[int, Random], Document]:
    """A site that has never dropped an article from its feed: a few megabytes."""

    def make(number: int, random: Random) -> Document:
        site = _channel(number, random, entries * 2 // 3, entries)
        body = rss20(site, "utf-8").encode()
        return _packed(Document(f"{site.home}everything.xml", "huge", body), random)

    return make


def _slow(number: int, random: Random) -> Document:
    document = _ordinary(number, random)
    url = document.url.replace("site", "slow")
    return replace(document, url=url, kind="slow", delay=random.uniform(0.1, 0.3), pieces=8)


def _wrongly_encoded(number: int, random: Random) -> Document:
    site = _channel(number, random)
    url, kind = f"{site.home}feed.xml", "wrongly encoded"
    # Declared and sent encodings differ; what is not in the sent one becomes a reference.
    declared, sent, media = random.choice(
        (
            ("utf-8", "windows-1252", "application/rss+xml"),
            ("utf-8", "iso-8859-1", "application/xml; charset=utf-8"),
            ("iso-8859-1", "utf-8", "text/xml; charset=us-ascii"),
            ("utf-8", "utf-16", "application/rss+xml"),
            ("utf-8", "utf-8-sig", "text/plain"),
            ("x-unheard-of", "utf-8", "application/rss+xml"),
        )
    )
    return Document(url, kind, rss20(site, declared).encode(sent, "xmlcharrefreplace"), media)


def _cut_short(number: int, random: Random) -> Document:
    document = _ordinary(number, random, "rss-2.0")
    body = gzip.decompress(document.body) if document.gzipped else document.body
    end = int(len(body) * random.uniform(0.3, 0.9)) // 2 * 2
    return replace(document, kind="truncated XML", body=body[:end], gzipped=False, etag="")


def _web_page(number: int, random: Random) -> Document:
    site = _channel(number, random, 1, 2)
    body = site.entries[0].html
    page = f"<!DOCTYPE html><html><title>{site.title}</title><body>{body}</body></html>"
    return Document(f"{site.home}feed/", "web page", page.encode(), "text/html; charset=utf-8")


def _gone(number: int, random: Random) -> Document:
    status = random.choice((404, 410))
    page = b"<h1>There was a feed here once.</h1>"
    return Document(f"http://gone{number:03}.example/rss", "gone", page, "text/html", status)


def _server_error(number: int, random: Random) -> Document:
    status = random.choice((500, 503))
    page = b"Traceback (most recent call last):"
    return Document(f"http://down{number:03}.example/rss", "down", page, "text/plain", status)


def _reset(number: int, random: Random) -> Document:
    return Document(f"http://reset{number:03}.example/feed.xml", "reset", reset=True)


def _broken_off(number: int, random: Random) -> Document:
    document = _ordinary(number, random)
    return replace(document, kind="broken off", missing=10_000, etag="")


def _empty(number: int, random: Random) -> Document:
    return Document(f"http://empty{number:03}.example/feed.xml", "empty")


def _from_test_suite(seed: int) -> Callable[[int, Random], Document]:
    """Takes one document of feedparser's test-suite after the other, in an order of the seed."""
    found = list(_test_suite())
    Random(seed).shuffle(found)
    remaining = iter(found * 10)  # only more than 10,000 feeds would use one twice

    def take(number: int, random: Random) -> Document:
        document = next(remaining)
        return replace(document, url=document.url.replace("://", f"://t{number:03}.", 1))

    return take


def _test_suite() -> Iterator[Document]:
    with tarfile.open(ARCHIVE, "r:gz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is None or member.size > _TOO_LARGE:
                continue
            body = file.read()
            # The documents say in a comment with which headers they are meant to come.
            header = re.search(rb"^\s*Header:\s*Content-type:\s*([^\r\n]+)", body, re.IGNORECASE | re.MULTILINE)
            media = header[1].decode("latin-1").strip() if header else "application/xml"
            yield Document(f"http://feedparser.example/{member.name}", "test-suite", body, media)
