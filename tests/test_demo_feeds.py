"""The feed demo: its pieces, and whole runs of the command against its own web."""

from __future__ import annotations

import gzip
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from goslings.demo import feed_modes, feeds
from goslings.demo.feed_document import documents
from goslings.demo.feed_input import read_feeds
from goslings.demo.feed_item import Item, Known, Refreshed, parse_page, prepare, refresh_feed
from goslings.demo.feed_memory import MemoryPeak
from goslings.demo.feed_options import feed_options, gil
from goslings.demo.feed_page import FeedError, Page, Web
from goslings.demo.feed_run import Run
from goslings.demo.feed_site import Site
from goslings.demo.feed_store import Store

RSS = b"""<rss version="2.0"><channel><title>T</title>
<item><guid>1</guid><title>one</title></item><item><guid>2</guid><title>two</title></item>
</channel></rss>"""


def page(body: bytes, content_type: str = "application/rss+xml") -> Page:
    return Page("http://a.example/feed", body, content_type, etag="", modified="")


def keys(refreshed: Refreshed) -> list[str]:
    return [item.key for item in refreshed.items]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What listens on this machine is reached directly, also where the environment has a proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    prepare()
    with Site(30, seed=7, slow=4) as running:
        yield running


# The demo's web.


def test_the_same_seed_gives_the_same_web() -> None:
    assert documents(40, 3) == documents(40, 3)
    assert documents(40, 3) != documents(40, 4)


def test_every_feed_has_an_address_of_its_own() -> None:
    assert len({document.url for document in documents(500, 1)}) == 500


def test_a_few_hundred_feeds_have_all_formats_and_all_faults() -> None:
    kinds = Counter(document.kind for document in documents(300, 1))
    formats = {"rss-0.91", "rss-0.92", "rss-1.0", "rss-2.0", "atom-0.3", "atom-1.0"}
    faults = {"truncated XML", "web page", "gone", "down", "reset", "broken off", "empty"}
    assert set(kinds) == formats | faults | {"huge", "slow", "wrongly encoded", "test-suite"}
    assert all(kinds[name] >= 20 for name in formats)


def test_no_feed_is_slow_if_none_is_asked_for() -> None:
    assert all(not document.delay for document in documents(100, 1, slow=0))


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("rss-0.91", "rss091n"),
        ("rss-0.92", "rss092"),
        ("rss-1.0", "rss10"),
        ("rss-2.0", "rss20"),
        ("atom-0.3", "atom03"),
        ("atom-1.0", "atom10"),
    ],
)
def test_generated_feeds_are_what_they_say(name: str, version: str) -> None:
    document = next(d for d in documents(60, 1) if d.kind == name)
    body = gzip.decompress(document.body) if document.gzipped else document.body
    refreshed = parse_page(document.url, page(body, document.content_type), Known())
    assert refreshed.format == version
    assert refreshed.note == ""
    assert len(refreshed.items) >= 12
    assert all(len(item.html) > 100 and "<script" not in item.html for item in refreshed.items)


# One feed.


def test_only_new_items_are_brought() -> None:
    assert keys(parse_page("u", page(RSS), Known())) == ["1", "2"]
    again = parse_page("u", page(RSS), Known(frozenset({"1"})))
    assert (keys(again), again.found) == (["2"], 2)


def test_an_item_that_comes_twice_counts_once() -> None:
    double = RSS.replace(b"<guid>2", b"<guid>1")
    assert keys(parse_page("u", page(double), Known())) == ["1"]


def test_items_without_id_and_link_are_told_apart_by_their_text() -> None:
    nameless = re.sub(rb"<guid>.</guid>", b"", RSS)
    first, second = (parse_page("u", page(nameless), Known()) for _ in range(2))
    assert len(set(keys(first))) == 2
    assert keys(first) == keys(second)


def test_a_truncated_feed_gives_what_it_has() -> None:
    refreshed = parse_page("u", page(RSS[: RSS.index(b"two")]), Known())
    assert keys(refreshed)[:1] == ["1"]
    assert refreshed.note


@pytest.mark.parametrize(("body", "reason"), [(b" \n", "empty document"), (b"<html><p>Hi</html>", "not a feed")])
def test_what_is_not_a_feed_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(FeedError, match=reason):
        parse_page("u", page(body), Known())


def test_a_document_that_feedparser_trips_over_is_one_failed_feed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import feedparser

    def trip(*args: object, **kwargs: object) -> None:
        raise AssertionError("tripped")

    monkeypatch.setattr(feedparser, "parse", trip)
    with pytest.raises(FeedError, match="AssertionError: tripped"):
        parse_page("u", page(RSS), Known())


def test_every_fault_of_the_web_is_a_failed_feed_with_its_reason(site: Site) -> None:
    web = Web(5, site.proxy)
    kinds = {d.url: d.kind for d in documents(30, seed=7, slow=4)}
    notes = {kinds[url]: refresh_feed(web, url, Known()).note for url in site.feeds}
    assert re.match("HTTP 4(04|10) ", notes["gone"])
    assert re.match("HTTP 50[03] ", notes["down"])
    assert notes["reset"] == "connection reset"
    assert notes["broken off"].startswith("broken off after ")
    assert notes["empty"] == "empty document"
    assert notes["web page"].startswith("not a feed (text/html")
    assert notes["slow"] == notes["huge"] == ""


def test_a_page_that_has_not_changed_is_not_fetched_again(site: Site) -> None:
    web = Web(5, site.proxy)
    url = next(d.url for d in documents(30, seed=7, slow=4) if d.etag)
    first = refresh_feed(web, url, Known())
    assert refresh_feed(web, url, Known(etag=first.etag)).state == "unchanged"


class _Awkward(http.server.BaseHTTPRequestHandler):
    """Answers with what a reader must not fall for."""

    def do_GET(self) -> None:
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/feed")
            self.end_headers()
            return
        self.send_response(200)
        if self.path == "/gzip":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if self.path == "/trickle":
            for _ in range(100):
                self.wfile.write(b" ")
                time.sleep(0.05)
        elif self.path == "/endless":
            while True:
                self.wfile.write(bytes(1 << 20))
        else:
            self.wfile.write(b"not gzip")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def awkward() -> Iterator[str]:
    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass

    with Server(("127.0.0.1", 0), _Awkward) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/trickle", r"no answer within 0\.5 s"),
        ("/endless", "larger than 32 MiB"),
        ("/gzip", "broken gzip"),
        ("/elsewhere", "ftp"),
    ],
)
def test_awkward_servers_are_given_up(awkward: str, path: str, reason: str) -> None:
    timeout = 30 if path == "/endless" else 0.5
    with pytest.raises(FeedError, match=reason):
        Web(timeout).fetch(awkward + path)


def test_a_port_where_nobody_listens_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(FeedError, match="connection refused"):
        Web(5).fetch(f"http://127.0.0.1:{port}/")


# The store.


def items(*names: str) -> list[Item]:
    return [Item(name, f"title {name}", "", "", "") for name in names]


def test_a_store_remembers_and_adds_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with Store(path) as store:
        store.add(Refreshed("u", "read", items=items("a", "b"), etag="e"))
    with Store(path) as store:
        assert store.library(["u", "v"]) == {"u": Known(frozenset("ab"), "e", ""), "v": Known()}
        before = store.digest()
        store.add(Refreshed("u", "read", items=items("b"), etag="e"))
        assert (store.added, store.digest()) == (0, before)


def test_a_failed_feed_keeps_its_items_and_its_etag(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        store.add(Refreshed("u", "read", items=items("a"), etag="e"))
        store.add(Refreshed("u", "failed", note="HTTP 500"))
        assert store.library(["u"]) == {"u": Known(frozenset("a"), "e", "")}


def test_the_digest_sees_one_changed_letter(tmp_path: Path) -> None:
    digests = set()
    for title in ("x", "y"):
        with Store(tmp_path / title) as store:
            store.add(Refreshed("u", "read", items=[Item("k", title, "", "", "")]))
            digests.add(store.digest())
    assert len(digests) == 2


def test_other_files_are_not_taken_for_a_store(tmp_path: Path) -> None:
    import sqlite3

    other = tmp_path / "other.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    with pytest.raises(FeedError, match="another program"):
        Store(other)
    text = tmp_path / "text"
    text.write_text("no database at all, " * 100)
    with pytest.raises(FeedError, match=r"cannot use .*text as the store"):
        Store(text)
    with pytest.raises(FeedError, match="cannot use"):
        Store(tmp_path / "missing" / "s.db")


# The user's input.


def test_opml_feeds_are_taken_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "my.opml"
    path.write_text(
        '<opml><body><outline text="x"><outline xmlUrl="http://b.example/"/></outline>'
        '<outline xmlurl=" http://a.example/ "/><outline xmlUrl="http://b.example/"/></body></opml>'
    )
    assert read_feeds(["https://c.example"], [path]) == [
        "https://c.example",
        "http://b.example/",
        "http://a.example/",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<opml>", "not well-formed"),
        ("<opml/>", "no feeds"),
        ('<o><outline xmlUrl="file:///etc/passwd"/></o>', "not an http"),
    ],
)
def test_bad_opml_says_what_is_wrong(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "my.opml"
    path.write_text(content)
    with pytest.raises(FeedError, match=reason):
        read_feeds([], [path])
    with pytest.raises(FeedError, match="cannot read"):
        read_feeds([], [tmp_path / "missing"])


@pytest.mark.parametrize("url", ["file:///etc/passwd", "example.org", "http://", "http://[", "ftp://a/"])
def test_only_web_addresses_are_fetched(url: str) -> None:
    with pytest.raises(FeedError, match="not an http"):
        read_feeds([url], [])
    with pytest.raises(FeedError, match="not an http"):
        Web().fetch(url)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--feeds", "0"], "whole number from 1"),
        (["--goroutines", "many"], "whole number from 1"),
        (["--timeout", "nan"], "seconds above 0"),
        (["--slow", "101"], "from 0 to 100"),
        (["--only", "threads"], "'threads' is not one of sequential, threading"),
        (["--url", "http://a.example", "--quick"], "for the local server"),
        (["--url", "http://a.example", "--only", "goslings", "--store", "s"], "temporary stores"),
    ],
)
def test_wrong_options_say_what_is_right(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        feed_options(argv)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


# Ways of reading.


# The pool of processes takes part in the command's test below: forking this process, with its
# threads, would be asking for trouble.
@pytest.mark.parametrize("refresh", [feed_modes.threaded, feeds.refresh, feeds.refresh_in_processes])
def test_every_way_of_reading_leaves_the_sequential_store(
    refresh: feed_modes.Refresh, site: Site, tmp_path: Path
) -> None:
    web = Web(10, site.proxy)
    digests = []
    for name, way, width in (("sequential", feed_modes.sequential, 1), ("other", refresh, 8)):
        told: list[Refreshed] = []
        with Store(tmp_path / name) as store:
            library = store.library(site.feeds)
        way(library, web, tmp_path / name, width, told.append)
        assert sorted(refreshed.url for refreshed in told) == sorted(site.feeds)
        with Store(tmp_path / name) as store:
            digests.append(store.digest())
    assert digests[0] == digests[1]


@pytest.mark.parametrize("width", [1, 3, 200])
def test_goroutines_read_with_any_width_and_a_second_time_add_nothing(width: int, site: Site, tmp_path: Path) -> None:
    web, path, added = Web(10, site.proxy), tmp_path / "s.db", []
    for _ in range(2):
        with Store(path) as store:
            library = store.library(site.feeds)
        told: list[Refreshed] = []
        feeds.refresh(library, web, path, width, told.append)
        added.append(sum(len(refreshed.items) for refreshed in told))
    assert added[0] > 300
    assert added[1] == 0


@pytest.mark.parametrize("refresh", [feeds.refresh, feeds.refresh_in_processes])
def test_a_failing_store_ends_the_refresh_with_its_error(
    refresh: feed_modes.Refresh, site: Site, tmp_path: Path
) -> None:
    library = dict.fromkeys(site.feeds, Known())

    def full(refreshed: Refreshed) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        refresh(library, Web(10, site.proxy), tmp_path / "s.db", 4, full)
    with pytest.raises(FeedError, match="cannot use"):
        refresh(library, Web(10, site.proxy), tmp_path / "no" / "s.db", 4, full)


def test_speedups_are_the_median_of_the_rounds_ratios() -> None:
    sequential = Run("sequential", 1, walls=[10.0, 20.0, 30.0])
    assert Run("x", 1, walls=[5.0, 5.0, 10.0]).speedup(sequential) == 3.0


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_the_memory_of_descendants_counts() -> None:
    hoard = "x = bytearray(64 << 20); print(flush=True); import time; time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hoard!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout
        process.stdout.readline()
        with MemoryPeak(process.pid) as memory:
            pass
        os.killpg(process.pid, signal.SIGKILL)
    assert memory.bytes
    assert memory.bytes > 64 << 20


# The command.

COMMAND = [
    sys.executable,
    "-c",
    "import sys; from goslings.demo import feeds; sys.exit(feeds.main(sys.argv[1:]))",
]


def command(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *argv], capture_output=True, text=True, timeout=300, check=False)


def test_the_command_compares_and_proves_the_second_refresh_empty(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = command("--feeds", "24", "--json", str(out), "--store", str(tmp_path / "s.db"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "same store after each run" in done.stdout
    assert re.search(r"once more: 0 new", done.stdout)
    report = json.loads(out.read_text())
    assert [run["mode"] for run in report["runs"]] == [
        "sequential",
        "threading",
        "multiprocessing",
        "goslings",
        *(["processes"] if gil() else []),
    ]
    assert all(len(run["feeds"]) == 24 for run in report["runs"])
    with Store(tmp_path / "s.db") as store:
        assert store.digest() == report["runs"][0]["digest"]


def test_the_command_parses_in_processes_on_any_build(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = command("--feeds", "12", "--slow", "0", "--only", "sequential,processes", "--json", str(out))
    assert (done.returncode, done.stderr) == (0, "")
    assert "same store after each run" in done.stdout
    assert "goroutines in worker processes that parse" in done.stdout
    runs = json.loads(out.read_text())["runs"]
    assert [run["mode"] for run in runs] == ["sequential", "processes"]
    assert runs[1]["width"] == 64


def test_where_goslings_parses_is_said_or_chosen_by_the_build() -> None:
    default = feed_options([])
    assert ("processes" in default.modes) == gil()
    assert default.reader == "goslings"
    threads = feed_options(["--places", "threads"])
    assert "processes" not in threads.modes
    processes = feed_options(["--places", "processes"])
    assert processes.modes[-2:] == ["goslings", "processes"]
    assert processes.reader == "processes"
    assert feed_options(["--only", "goslings", "--places", "processes"]).modes == ["goslings"]


def test_own_feeds_are_read_into_a_store_that_is_kept(awkward: str, tmp_path: Path) -> None:
    done = command("--url", f"{awkward}/gzip", "--store", str(tmp_path / "s.db"), "--timeout", "2")
    assert done.returncode == 0
    assert f"failed  {awkward}/gzip  broken gzip" in done.stdout


@pytest.mark.parametrize(
    ("module", "hint"),
    [("feedparser", "pip install 'goslings[demo]'"), ("matplotlib", "pip install matplotlib")],
)
def test_missing_packages_are_named_with_the_command_to_install_them(module: str, hint: str, tmp_path: Path) -> None:
    block = f"import sys; sys.modules[{module!r}] = None; "
    argv = ["--feeds", "2", "--plot", str(tmp_path / "p.png")]
    done = subprocess.run(
        [*COMMAND[:2], block + COMMAND[2], *argv], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="sends a signal to a process group")
def test_ctrl_c_leaves_no_process_behind() -> None:
    process = subprocess.Popen(
        [*COMMAND, "--feeds", "200"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    process.stdout.readline()  # the site runs, the first reader starts
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "goslings demo feeds: interrupted\n"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
