"""Feeds in the formats that are out there: RSS 0.91, 0.92, 1.0 (RDF) and 2.0, Atom 0.3 and 1.0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from html import escape
from random import Random

from .feed_words import Writer

_EPOCH = datetime(2026, 1, 1, 6, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Entry:
    """One article, before it is put into a format."""

    title: str
    link: str
    author: str
    topic: str
    written: datetime
    summary: str
    html: str


@dataclass(frozen=True, slots=True)
class Channel:
    """One site's feed, before it is put into a format."""

    title: str
    home: str
    about: str
    entries: tuple[Entry, ...]


def channel(seed: str, home: str, entries: int) -> Channel:
    """The feed of the site `home`: the same for the same seed."""
    writer, random = Writer(seed, home), Random(seed)
    return Channel(
        title=writer.title(),
        home=home,
        about=writer.sentence(),
        entries=tuple(
            Entry(
                title=writer.title(),
                link=f"{home}{number}/",
                author=writer.person(),
                topic=writer.topic(),
                written=_EPOCH - timedelta(hours=7 * number, minutes=random.randrange(300)),
                summary=writer.sentence(),
                html=writer.article(random.randint(4, 9)),
            )
            for number in range(entries)
        ),
    )


def rss091(c: Channel, encoding: str) -> str:
    items = "".join(
        f"<item><title>{escape(e.title)}</title><link>{e.link}</link>"
        f"<description>{escape(e.html)}</description></item>\n"
        for e in c.entries
    )
    doctype = (
        '<!DOCTYPE rss PUBLIC "-//Netscape Communications//DTD RSS 0.91//EN" '
        '"http://my.netscape.com/publish/formats/rss-0.91.dtd">\n'
    )
    return _rss(c, encoding, '<rss version="0.91">', items, doctype)


def rss092(c: Channel, encoding: str) -> str:
    items = "".join(
        f"<item><title>{escape(e.title)}</title><link>{e.link}</link>"
        f'<category domain="{c.home}">{e.topic}</category>'
        f'<enclosure url="{e.link}a.mp3" length="12345" type="audio/mpeg"/>'
        f"<description>{escape(e.html)}</description></item>\n"
        for e in c.entries
    )
    return _rss(c, encoding, '<rss version="0.92">', items)


def rss20(c: Channel, encoding: str) -> str:
    items = "".join(
        f"<item><title>{escape(e.title)}</title><link>{e.link}?utm_source=rss&amp;utm_medium=feed</link>"
        f'<guid isPermaLink="false">{e.link}</guid><dc:creator><![CDATA[{e.author}]]></dc:creator>'
        f"<pubDate>{format_datetime(e.written, usegmt=True)}</pubDate>"
        f"<category>{e.topic}</category>"
        f"<description>{escape(e.summary)}</description>"
        f"<content:encoded><![CDATA[{e.html}]]></content:encoded></item>\n"
        for e in c.entries
    )
    root = (
        '<rss version="2.0" xmlns:content="http://purl.org/rss/1.0/modules/content/" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/">'
    )
    return _rss(c, encoding, root, items)


def _rss(c: Channel, encoding: str, root: str, items: str, doctype: str = "") -> str:
    return (
        f'<?xml version="1.0" encoding="{encoding}"?>\n{doctype}{root}<channel>\n'
        f"<title>{escape(c.title)}</title><link>{c.home}</link>"
        f"<description>{escape(c.about)}</description><language>en</language>\n"
        f"{items}</channel></rss>\n"
    )


def rss10(c: Channel, encoding: str) -> str:
    listed = "".join(f'<rdf:li rdf:resource="{e.link}"/>' for e in c.entries)
    items = "".join(
        f'<item rdf:about="{e.link}"><title>{escape(e.title)}</title><link>{e.link}</link>'
        f"<dc:date>{e.written.isoformat()}</dc:date><dc:creator>{e.author}</dc:creator>"
        f"<dc:subject>{e.topic}</dc:subject><description>{escape(e.html)}</description></item>\n"
        for e in c.entries
    )
    return (
        f'<?xml version="1.0" encoding="{encoding}"?>\n'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
        'xmlns="http://purl.org/rss/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/">\n'
        f'<channel rdf:about="{c.home}"><title>{escape(c.title)}</title><link>{c.home}</link>'
        f"<description>{escape(c.about)}</description>"
        f"<items><rdf:Seq>{listed}</rdf:Seq></items></channel>\n{items}</rdf:RDF>\n"
    )


def atom03(c: Channel, encoding: str) -> str:
    entries = "".join(
        f"<entry><title>{escape(e.title)}</title>"
        f'<link rel="alternate" type="text/html" href="{e.link}"/><id>{e.link}</id>'
        f"<author><name>{e.author}</name></author><issued>{_stamp(e)}</issued>"
        f"<modified>{_stamp(e)}</modified>"
        f'<content type="text/html" mode="escaped">{escape(e.html)}</content></entry>\n'
        for e in c.entries
    )
    return (
        f'<?xml version="1.0" encoding="{encoding}"?>\n'
        '<feed version="0.3" xmlns="http://purl.org/atom/ns#" xml:lang="en">\n'
        f"<title>{escape(c.title)}</title><tagline>{escape(c.about)}</tagline>"
        f'<link rel="alternate" type="text/html" href="{c.home}"/>\n{entries}</feed>\n'
    )


def atom10(c: Channel, encoding: str) -> str:
    entries = "".join(
        f'<entry><title type="text">{escape(e.title)}</title><link href="{e.link}"/>'
        f"<id>{e.link}</id><updated>{_stamp(e)}</updated><published>{_stamp(e)}</published>"
        f'<author><name>{e.author}</name></author><category term="{e.topic}"/>'
        f"<summary>{escape(e.summary)}</summary>"
        '<content type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml">'
        f"{e.html}</div></content></entry>\n"
        for e in c.entries
    )
    return (
        f'<?xml version="1.0" encoding="{encoding}"?>\n'
        f'<feed xmlns="http://www.w3.org/2005/Atom" xml:lang="en" xml:base="{c.home}">\n'
        f"<title>{escape(c.title)}</title><subtitle>{escape(c.about)}</subtitle>"
        f'<link href="{c.home}"/><id>{c.home}</id><updated>{_EPOCH.isoformat()}</updated>\n'
        f"{entries}</feed>\n"
    )


def _stamp(entry: Entry) -> str:
    return entry.written.strftime("%Y-%m-%dT%H:%M:%SZ")


FORMATS: dict[str, Callable[[Channel, str], str]] = {
    "rss-0.91": rss091,
    "rss-0.92": rss092,
    "rss-1.0": rss10,
    "rss-2.0": rss20,
    "atom-0.3": atom03,
    "atom-1.0": atom10,
}
