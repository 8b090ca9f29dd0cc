"""The site that `goslings demo crawl` visits: some thousand pages made up from their number, served by goslings.

`with Site(pages) as site:` runs `python -m goslings.demo.crawl_site` in a process of its own in the block. Pages
link to each other, to the same page in several spellings, to pages that are missing, broken, moved or forbidden by
robots.txt, and to another host, where no crawler of one site should go. Each takes some time to answer.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from wsgiref.types import StartResponse, WSGIApplication

from .feed_page import FeedError
from .feed_words import ADJECTIVES, NOUNS, VERBS

__all__ = ["Site"]

_ROBOTS = b"User-agent: *\nDisallow: /private/\n"
_LINKS = 12
_WORDS = NOUNS + VERBS + ADJECTIVES
_SLOW_MS = (20, 80)
_HEADERS = [("Content-Type", "text/html; charset=utf-8")]


def page(number: int, pages: int) -> bytes:
    """The page of that number: the same each time. Links lead to every page from the first."""
    rng = random.Random(number)
    targets = [2 * number + 1, 2 * number + 2, *(rng.randrange(pages) for _ in range(_LINKS))]
    links = [f"/page/{target}" for target in targets if target < pages]
    links += [f"{link}#part-{rng.randrange(9)}" for link in rng.sample(links, min(3, len(links)))]
    links += [f"../page/./{rng.randrange(pages)}", f"/private/{number}", "http://elsewhere.invalid/"]
    odd = {0: "missing", 1: "broken", 2: "moved"}.get(rng.randrange(20))
    links += [f"/{odd}/{number}"] if odd else []
    rng.shuffle(links)
    items = "".join(f'<li><a href="{link}">{rng.choice(_WORDS)}</a></li>\n' for link in links)
    text = " ".join(rng.choices(_WORDS, k=300))
    return f"<!doctype html><title>Page {number}</title><h1>{number}</h1><p>{text}</p><ul>{items}</ul>\n".encode()


def application(pages: int) -> WSGIApplication:
    """The site as a WSGI application."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        kind, _, name = environ["PATH_INFO"].strip("/").partition("/")
        number = int(name) if name.isdecimal() else 0
        if kind == "robots.txt":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [_ROBOTS]
        time.sleep(random.Random(environ["PATH_INFO"]).uniform(*_SLOW_MS) / 1000)
        if kind == "broken":
            start_response("500 Internal Server Error", _HEADERS)
            return [b"broken\n"]
        if kind == "moved":
            start_response("301 Moved Permanently", [*_HEADERS, ("Location", f"/page/{number // 2}")])
            return [b"moved\n"]
        if kind not in ("", "page", "private") or number >= pages:
            start_response("404 Not Found", _HEADERS)
            return [b"missing\n"]
        start_response("200 OK", _HEADERS)
        return [page(number, pages)]

    return app


class Site:
    """The running site; `url` is its first page."""

    def __init__(self, pages: int) -> None:
        command = [sys.executable, "-m", __name__, str(pages)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            self.close()
            raise FeedError("the demo's site did not start; its error is printed above")

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _serve(pages: int) -> None:
    import signal

    import goslings
    from goslings.wsgi import Server

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    goslings.patch()
    with Server(application(pages), bind=("127.0.0.1:0",)) as server:
        print(f"{server.addresses[0]}/", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
