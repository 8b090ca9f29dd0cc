"""What a crawler does with one address: may it, then fetch it with `requests`, and find the links in it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urldefrag, urljoin, urlsplit, urlunsplit
from urllib.robotparser import RobotFileParser

import requests

from .feed_page import FeedError

__all__ = ["AGENT", "Fetched", "Fetcher", "Rules", "normal"]

AGENT = "goslings-demo-crawl"
_MOST_BYTES = 4 << 20


@dataclass(slots=True)
class Fetched:
    """What came of one address. `error` is "" if it is a page."""

    url: str
    links: list[str] = field(default_factory=list)
    error: str = ""
    bytes: int = 0


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.base = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("a", "base"):
            for name, value in attrs:
                if name == "href" and value:
                    if tag == "base":
                        self.base = value
                    else:
                        self.found.append(value)


def normal(url: str) -> str | None:
    """The one spelling of an address, without its fragment; None if it is not of the web."""
    try:
        parts = urlsplit(urldefrag(url).url)
        port = (
            f":{parts.port}" if parts.port and (parts.scheme, parts.port) not in (("http", 80), ("https", 443)) else ""
        )
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return urlunsplit((parts.scheme, host + port, parts.path or "/", parts.query, ""))


class Rules:
    """Where the crawler may go: one host, what its robots.txt allows, and so many pages a second.

    Raises FeedError if the robots.txt cannot be had: then nobody knows what is allowed.
    """

    def __init__(self, start: str, delay: float | None, timeout: float) -> None:
        parts = urlsplit(start)
        self._origin = (parts.scheme, parts.netloc)
        self._robots = RobotFileParser()
        url = urlunsplit((*self._origin, "/robots.txt", "", ""))
        try:
            with requests.get(url, headers={"User-Agent": AGENT}, timeout=timeout) as answer:
                if answer.status_code < 400:
                    self._robots.parse(answer.text.splitlines())
                elif answer.status_code < 500:
                    self._robots.parse([])  # there is none: all is allowed
                else:
                    raise FeedError(f"{url} answers {answer.status_code}: it may forbid everything")
        except requests.RequestException as error:
            raise FeedError(f"cannot read {url}: {error}") from None
        asked = self._robots.crawl_delay(AGENT)
        self._delay = max(float(asked or 0), 0.0 if delay is None else delay)
        self._lock = threading.Lock()
        self._next = 0.0

    def here(self, url: str) -> bool:
        """Whether it is of the same site."""
        parts = urlsplit(url)
        return (parts.scheme, parts.netloc) == self._origin

    def allows(self, url: str) -> bool:
        """Whether robots.txt does."""
        return self._robots.can_fetch(AGENT, url)

    def wait(self) -> None:
        """Waits for its turn, if there is a delay between two requests."""
        if self._delay:
            with self._lock:
                now = time.monotonic()
                turn = max(now, self._next)
                self._next = turn + self._delay
            time.sleep(turn - now)


class Fetcher:
    """Fetches pages, one after another, on a connection that is kept."""

    def __init__(self, rules: Rules, timeout: float) -> None:
        self._rules = rules
        self._timeout = timeout
        self._session = requests.Session()
        self._session.headers["User-Agent"] = AGENT
        self._session.trust_env = False

    def fetch(self, url: str) -> Fetched:
        """The page and its links, or why there is none. Redirections are links."""
        self._rules.wait()
        try:
            with self._session.get(url, timeout=self._timeout, allow_redirects=False, stream=True) as answer:
                if answer.is_redirect:
                    link = normal(urljoin(url, answer.headers["Location"]))
                    return Fetched(url, [link] if link else [], f"moved ({answer.status_code})")
                if answer.status_code != 200:
                    return Fetched(url, error=f"{answer.status_code} {answer.reason}")
                if "html" not in answer.headers.get("Content-Type", ""):
                    return Fetched(url, error="no HTML")
                body = answer.raw.read(_MOST_BYTES, decode_content=True)
                text = body.decode(answer.encoding or "utf-8", "replace")
        except (requests.RequestException, OSError, LookupError) as error:
            return Fetched(url, error=type(error).__name__)
        parser = _Links()
        parser.feed(text)
        base = urljoin(url, parser.base) if parser.base else url
        links = [link for href in parser.found if (link := _joined(base, href))]
        return Fetched(url, links, bytes=len(body))


def _joined(base: str, href: str) -> str | None:
    try:
        return normal(urljoin(base, href.strip()))
    except ValueError:
        return None
