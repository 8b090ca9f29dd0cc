"""The items of a feed: parsed with feedparser, and only those that are new.

`refresh_feed` is what every way of reading (sequential, threads, processes, goroutines) does
with one feed; they differ in who calls it where.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import time
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .feed_page import FeedError, Page, Web


@dataclass(frozen=True, slots=True)
class Item:
    """One article. `key` tells it from the others of its feed, for ever."""

    key: str
    title: str
    link: str
    published: str  # ISO 8601 in UTC, or empty
    html: str  # sanitised


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a feed before its refresh."""

    keys: frozenset[str] = frozenset()
    etag: str = ""
    modified: str = ""


# The dictionary that all is about: feed address to what is known of its items.
Library = dict[str, Known]


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What one refresh of one feed has brought."""

    url: str
    state: Literal["read", "unchanged", "failed"]
    title: str = ""
    format: str = ""
    items: list[Item] = field(default_factory=list)  # only the new ones
    found: int = 0  # how many the feed has now, old and new
    note: str = ""  # why it failed, or what was wrong though it was read
    etag: str = ""
    modified: str = ""
    seconds: float = 0.0


def refresh_feed(web: Web, url: str, known: Known) -> Refreshed:
    """Fetches and parses one feed. Blocks. Whatever is wrong with the feed is in the result."""
    start = time.perf_counter()
    try:
        page = web.fetch(url, known.etag, known.modified)
        refreshed = parse_page(url, page, known)
    except FeedError as error:
        refreshed = Refreshed(url, "failed", note=str(error))
    return replace(refreshed, seconds=time.perf_counter() - start)


def parse_page(url: str, page: Page | None, known: Known) -> Refreshed:
    """The new items of a page (None: it has not changed). Raises FeedError if it is no feed."""
    if page is None:
        return Refreshed(url, "unchanged")
    if not page.body.strip():
        raise FeedError("empty document")
    headers = {"content-type": page.content_type, "content-location": url}
    try:
        parsed = _feedparser().parse(io.BytesIO(page.body), response_headers=headers)
    except Exception as error:
        # A document that feedparser trips over is one feed's misfortune, not the reader's.
        raise FeedError(f"feedparser fails with {type(error).__name__}: {error}") from error
    if not parsed.version and not parsed.entries:
        raise FeedError(f"not a feed ({page.content_type or 'no content type'})")
    items = {item.key: item for item in map(_item, parsed.entries)}
    return Refreshed(
        url,
        "read",
        title=_text(parsed.feed.get("title")),
        format=parsed.version,
        items=[item for key, item in items.items() if key not in known.keys],
        found=len(items),
        note=_complaint(parsed.bozo_exception) if parsed.bozo else "",
        etag=page.etag,
        modified=page.modified,
    )


def prepare() -> None:
    """Imports feedparser and parses once. Raises FeedError if it is not installed.

    feedparser fills a table of namespaces at the first parse without a lock. Two first parses
    at once may see it half-filled, and then miss elements: so the first one is done alone.
    """
    for document in (b"<rss version='2.0'><channel/></rss>", b"<rss><channel><item>"):
        _feedparser().parse(io.BytesIO(document))


def _feedparser() -> Any:
    try:
        return importlib.import_module("feedparser")
    except ModuleNotFoundError as error:
        if error.name != "feedparser":
            raise
        raise FeedError(
            "the demo parses with feedparser, which is not installed; run: pip install 'goslings[demo]'"
        ) from None


def _item(entry: dict[str, Any]) -> Item:
    title, link = _text(entry.get("title")), _text(entry.get("link"))
    html = _text(entry["content"][0].get("value") if entry.get("content") else entry.get("summary"))
    key = _text(entry.get("id")) or link
    if not key:
        key = hashlib.sha256(f"{title}\0{html}".encode()).hexdigest()
    return Item(key, title, link, _date(entry), html)


def _date(entry: dict[str, Any]) -> str:
    # dict.get: feedparser's own get() warns when it falls back from one date to the other.
    date = dict.get(entry, "published_parsed") or dict.get(entry, "updated_parsed")
    if not date:
        return ""
    year, month, day, hour, minute, second = date[:6]
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"


def _text(value: object) -> str:
    """Text that SQLite can store: broken feeds produce lone surrogates."""
    return str(value or "").encode("utf-8", "replace").decode()


def _complaint(error: object) -> str:
    message = error.getMessage() if hasattr(error, "getMessage") else str(error)
    return " ".join(f"{message}".split()) or type(error).__name__
