"""The store: feeds and items in SQLite. One goroutine, thread or process owns the connection."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from .feed_item import Known, Library, Refreshed
from .feed_page import FeedError

_SCHEMA = """
CREATE TABLE feeds (
    url TEXT PRIMARY KEY, title TEXT, format TEXT, failed TEXT, etag TEXT, modified TEXT
) WITHOUT ROWID;
CREATE TABLE items (
    feed TEXT NOT NULL, key TEXT NOT NULL, title TEXT, link TEXT, published TEXT, html TEXT,
    PRIMARY KEY (feed, key)
);
"""
_APPLICATION_ID = 0x676F7366  # "gosf": tells our files from other SQLite databases
_FEEDS_PER_COMMIT = 32


class Store:
    """Feeds and their items in one file. To be used only on the thread that opened it."""

    def __init__(self, path: Path) -> None:
        self.added = 0
        self._uncommitted = 0
        self._path = path
        with ExitStack() as on_failure:
            try:
                self._db = sqlite3.connect(path)
                on_failure.callback(self._db.close)
                self._open()
            except sqlite3.Error as error:
                raise FeedError(f"cannot use {path} as the store: {error}") from None
            on_failure.pop_all()

    def _open(self) -> None:
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != _APPLICATION_ID:
            raise FeedError(f"{self._path} is a database of another program; name another file with --store")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        if not tables:
            self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            self._db.executescript(_SCHEMA)

    def library(self, urls: Iterable[str]) -> Library:
        """What is known of each of these feeds."""
        keys: dict[str, set[str]] = {url: set() for url in urls}
        for url, key in self._db.execute("SELECT feed, key FROM items"):
            if url in keys:
                keys[url].add(key)
        versions = {
            url: (etag, modified) for url, etag, modified in self._db.execute("SELECT url, etag, modified FROM feeds")
        }
        return {url: Known(frozenset(known), *versions.get(url, ("", ""))) for url, known in keys.items()}

    def add(self, refreshed: Refreshed) -> None:
        """Appends a feed's new items. A failed feed keeps what it had."""
        url = refreshed.url
        match refreshed.state:
            case "failed":
                self._db.execute(
                    "INSERT INTO feeds (url, failed, etag, modified) VALUES (?, ?, '', '') "
                    "ON CONFLICT (url) DO UPDATE SET failed = excluded.failed",
                    (url, refreshed.note),
                )
            case "unchanged":
                self._db.execute("UPDATE feeds SET failed = NULL WHERE url = ?", (url,))
            case "read":
                self._db.execute(
                    "INSERT OR REPLACE INTO feeds VALUES (?, ?, ?, NULL, ?, ?)",
                    (url, refreshed.title, refreshed.format, refreshed.etag, refreshed.modified),
                )
        cursor = self._db.executemany(
            "INSERT OR IGNORE INTO items VALUES (?, ?, ?, ?, ?, ?)",
            ((url, item.key, item.title, item.link, item.published, item.html) for item in refreshed.items),
        )
        self.added += max(0, cursor.rowcount)
        self._uncommitted += 1
        if self._uncommitted >= _FEEDS_PER_COMMIT:
            self.commit()

    def commit(self) -> None:
        self._db.commit()
        self._uncommitted = 0

    def digest(self) -> str:
        """A fingerprint of all that readers could get wrong: the same rows, the same digest."""
        self.commit()
        digest = hashlib.sha256()
        for query in (
            "SELECT feed, key, title, link, published, html FROM items ORDER BY feed, key",
            "SELECT url, title, format, failed IS NULL, etag FROM feeds ORDER BY url",
        ):
            for row in self._db.execute(query):
                digest.update(repr(row).encode())
        return digest.hexdigest()

    def close(self) -> None:
        self.commit()
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
