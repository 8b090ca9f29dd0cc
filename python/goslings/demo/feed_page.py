"""One page of the web, fetched politely: bounded in time and size, and only if it has changed."""

from __future__ import annotations

import functools
import http.client
import socket
import time
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from urllib.parse import urlsplit

_MAX_BYTES = 32 << 20
_CHUNK = 64 << 10
_HEADERS = {
    "User-Agent": "goslings-demo-feeds (feed reader; one request at a time and feed)",
    "Accept": "application/atom+xml, application/rss+xml, application/xml;q=0.9, */*;q=0.1",
    "Accept-Encoding": "gzip",
}


class FeedError(Exception):
    """A feed, or the list of feeds, cannot be used; the text is a line of the report."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a server sent, decompressed."""

    url: str
    body: bytes
    content_type: str
    etag: str
    modified: str


@dataclass(frozen=True, slots=True)
class Web:
    """The way to the pages. `proxy` is for the demo's own site; None means the environment's."""

    timeout: float = 10.0
    proxy: str | None = None

    def prepare(self) -> None:
        """Does what the first fetch would do for all others."""
        _opener(self.proxy)

    def fetch(self, url: str, etag: str = "", modified: str = "") -> Page | None:
        """The page, or None if it is still the one with this `etag` or date. Blocks.

        Raises FeedError, and nothing else, when the page cannot be had.
        """
        headers = dict(_HEADERS)
        if etag:
            headers["If-None-Match"] = etag
        if modified:
            headers["If-Modified-Since"] = modified
        deadline = time.monotonic() + self.timeout
        try:
            check_url(url)
            request = urllib.request.Request(url, headers=headers)
            with _opener(self.proxy).open(request, timeout=self.timeout) as response:
                return _page(url, response, deadline)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 304:
                return None
            raise FeedError(f"HTTP {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            raise FeedError(self._reason(error.reason)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise FeedError(self._reason(error)) from None

    def _reason(self, error: object) -> str:
        match error:
            case TimeoutError():
                return f"no answer within {self.timeout:g} s"
            case ConnectionResetError() | http.client.RemoteDisconnected():
                return "connection reset"
            case ConnectionRefusedError():
                return "connection refused"
            case socket.gaierror():
                return f"host not found ({error.strerror})"
            case Exception():
                return f"{type(error).__name__}: {error}"
            case _:
                return str(error)


@functools.cache
def _opener(proxy: str | None) -> urllib.request.OpenerDirector:
    """One for all fetches, as urlopen has: making one reads all root certificates, a long job."""
    # Not build_opener(): a redirect must not lead to ftp:, file: or data:.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(None if proxy is None else {"http": proxy}),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def check_url(url: str) -> None:
    """Raises FeedError unless this is an address that can be fetched."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise FeedError(f"not an http:// or https:// address: {url!r}")


def _page(url: str, response: http.client.HTTPResponse, deadline: float) -> Page:
    headers = response.headers
    body, announced = _read(response, deadline), headers.get("Content-Length", "")
    if announced.isdecimal() and len(body) < int(announced):
        raise FeedError(f"broken off after {len(body):,} of {int(announced):,} bytes")
    if headers.get("Content-Encoding", "").lower() in ("gzip", "x-gzip"):
        body = _gunzip(body)
    return Page(
        url,
        body,
        content_type=headers.get("Content-Type", ""),
        etag=headers.get("ETag", ""),
        modified=headers.get("Last-Modified", ""),
    )


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """All bytes until the end; the deadline is for the whole, so that trickling does not help."""
    chunks, size = [], 0
    while chunk := response.read1(_CHUNK):
        chunks.append(chunk)
        size += len(chunk)
        if size > _MAX_BYTES:
            raise FeedError(f"larger than {_MAX_BYTES >> 20} MiB")
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(chunks)


def _gunzip(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        body = unpacker.decompress(packed, _MAX_BYTES)
    except zlib.error as error:
        raise FeedError(f"broken gzip: {error}") from None
    if unpacker.unconsumed_tail:
        raise FeedError(f"larger than {_MAX_BYTES >> 20} MiB when unpacked")
    return body
