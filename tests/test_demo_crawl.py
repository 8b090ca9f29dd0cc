"""The crawler: where it goes, where it does not, and that it misses nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("requests", reason="requests is not installed")

from goslings.demo.crawl_fetch import Fetched, Fetcher, Rules, normal  # noqa: E402
from goslings.demo.crawl_modes import CRAWLERS, Frontier  # noqa: E402
from goslings.demo.feed_page import FeedError  # noqa: E402

PAGES: dict[str, tuple[int, str, str]] = {
    "/robots.txt": (200, "text/plain", "User-agent: *\nDisallow: /private\n"),
    "/": (200, "text/html", '<a href="/a#x">a</a> <A HREF="a">again</A> <a href="/private/x">no</a> <a name="none">'),
    "/a": (200, "text/html", '<a href="b/../c">c</a><a href="http://other.invalid/">o</a><a href="mailto:x@y">m</a>'),
    "/c": (200, "text/html; charset=latin-1", '<base href="/deep/"><a href="d">d</a><a href="/gone">g</a>'),
    "/deep/d": (301, "/c", ""),
    "/image": (200, "image/png", '<a href="/never">n</a>'),
    "/private/x": (200, "text/html", '<a href="/never">n</a>'),
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        status, kind, text = PAGES.get(self.path, (404, "text/html", '<a href="/never">n</a>'))
        self.send_response(status)
        self.send_header("Location" if status == 301 else "Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    Handler.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("HTTP://Example.ORG:80/a?b#c", "http://example.org/a?b"),
        ("https://example.org:8443", "https://example.org:8443/"),
        ("http://[::1]:80/", "http://[::1]/"),
        ("mailto:a@b", None),
        ("http://", None),
        ("http://a:99999/", None),
        ("http://[", None),
        ("javascript:void(0)", None),
    ],
)
def test_each_address_has_one_spelling(url: str, told: str | None) -> None:
    assert normal(url) == told


def test_each_page_is_visited_once_and_nothing_else_is(site: str) -> None:
    rules = Rules(site, None, 30)
    frontier = Frontier(site, rules, 1000)
    told: list[Fetched] = []
    CRAWLERS["threads"](frontier, rules, 30, 4, told.append)
    assert sorted(Handler.asked) == ["/", "/a", "/c", "/deep/d", "/gone", "/robots.txt"]
    assert (frontier.forbidden, frontier.elsewhere, frontier.duplicates) == (1, 1, 2)
    assert {fetched.url.removeprefix(site): fetched.error for fetched in told} == {
        "": "",
        "a": "",
        "c": "",
        "deep/d": "moved (301)",
        "gone": "404 Not Found",
    }


def test_no_more_than_so_many_are_visited(site: str) -> None:
    rules = Rules(site, None, 30)
    told: list[Fetched] = []
    CRAWLERS["threads"](Frontier(site, rules, 2), rules, 30, 4, told.append)
    assert len(told) == 2


def test_what_is_no_page_has_no_links(site: str) -> None:
    fetcher = Fetcher(Rules(site, None, 30), 30)
    assert fetcher.fetch(f"{site}image") == Fetched(f"{site}image", error="no HTML")
    assert fetcher.fetch(f"{site}nothing").links == []
    refused = fetcher.fetch("http://127.0.0.1:1/")
    assert refused.error == "ConnectionError"


def test_a_robots_txt_that_fails_forbids_all(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PAGES, "/robots.txt", (503, "text/plain", ""))
    with pytest.raises(FeedError, match="503"):
        Rules(site, None, 30)
    monkeypatch.setitem(PAGES, "/robots.txt", (404, "text/plain", ""))
    assert Rules(site, None, 30).allows(f"{site}private/x")
    with pytest.raises(FeedError, match="cannot read"):
        Rules("http://127.0.0.1:1/", None, 5)


def test_a_delay_is_kept_among_all(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longer of the delay that was asked for and of the site's own."""
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    monkeypatch.setitem(PAGES, "/robots.txt", (200, "text/plain", "User-agent: *\nCrawl-delay: 3\n"))
    rules = Rules(site, 1.0, 30)
    for _ in range(3):
        rules.wait()
    assert slept == [0.0, 3.0, 6.0]


def command(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "goslings", "demo", "crawl", *argv],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip


def test_goroutines_and_threads_find_the_same_pages(tmp_path: Path) -> None:
    done = command("--pages", "200", "--goroutines", "100", "--json", str(tmp_path / "out.json"))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    crawls = json.loads((tmp_path / "out.json").read_text())["crawls"]
    assert list(crawls) == ["threads", "goslings"]
    for crawl in crawls.values():
        assert crawl["pages"] == 201, "all that there are, and the first by its other name"
        assert crawl["requests"] == crawl["pages"] + sum(crawl["errors"].values())
        assert crawl["forbidden"] and crawl["elsewhere"] and crawl["duplicates"]
    assert crawls["threads"]["digest"] == crawls["goslings"]["digest"]


def test_a_real_site_is_crawled_politely(site: str) -> None:
    done = command("--url", site, "--delay", "0", "--most", "4")
    assert (done.returncode, done.stderr) == (0, "")
    assert "goslings" in done.stdout and "threads" not in done.stdout
    assert len(Handler.asked) == 5 and "/private/x" not in Handler.asked


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (["--url", "ftp://x/"], 1, "not an http address"),
        (["--url", "http://127.0.0.1:1/"], 1, "cannot read"),
        (["--url", "http://x/", "--pages", "3"], 2, "for the generated site"),
    ],
)
def test_wrong_options_say_what_is_right(argv: list[str], status: int, said: str) -> None:
    done = command(*argv)
    assert done.returncode == status and said in done.stderr and "Traceback" not in done.stderr
