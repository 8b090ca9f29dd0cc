"""The user's own feeds, checked before anything is fetched."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from .feed_page import FeedError, check_url


def read_feeds(urls: Iterable[str], outlines: Iterable[Path]) -> list[str]:
    """The addresses given and those in OPML files, each once, in order."""
    found = list(urls)
    for url in found:
        check_url(url)
    for path in outlines:
        found += _read_opml(path)
    return list(dict.fromkeys(found))


def _read_opml(path: Path) -> list[str]:
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise FeedError(f"cannot read {path}: {error.strerror}") from None
    except ElementTree.ParseError as error:
        raise FeedError(f"{path} is not well-formed XML, so not OPML: {error}") from None
    found = [
        value.strip()
        for outline in root.iter("outline")
        for name, value in outline.attrib.items()
        if name.lower() == "xmlurl" and value.strip()
    ]
    if not found:
        raise FeedError(f'{path} has no feeds: it should be OPML, with <outline xmlUrl="https://…"/> elements')
    for url in found:
        try:
            check_url(url)
        except FeedError as error:
            raise FeedError(f"{path}: {error}") from None
    return found
