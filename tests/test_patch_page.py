"""docs/patch-io.md says which libraries run under goslings.patch; each line has a test, and each test of real software
a line."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "patch-io.md"

# A library as the page names it, and how a test imports it.
IMPORTS = {
    "`urllib`": "import urllib.error",
    "`http.client`": "import urllib.error",  # which stands on it
    "`http.server`": "import http.server",
    "requests": "import requests",
    "urllib3": "import urllib3",
    "httpx (sync)": "import httpx",
    "redis-py": "import redis",
    "psycopg 3": "import psycopg",
    "in Python": "import psycopg",
    "compiled": "psycopg compiled",
    "pg8000": "import pg8000",
    "dnspython": "import dns.resolver",
    "`asyncio`": "import asyncio",
    "`socketserver`": "import socketserver",
}


def test_the_page_names_the_libraries_that_are_tested_and_no_other() -> None:
    rows = re.findall(r"^\| (.+?) \| .+? \| (test_\w+\.py) \|$", PAGE.read_text(), re.MULTILINE)
    assert rows
    named = set()
    for libraries, test in rows:
        named.add(test)
        text = (TESTS / test).read_text()
        for library in re.split(r", ", libraries.partition(":")[0]):
            assert IMPORTS[library] in text, f"{library} is not in {test}"
            named.add(library)
    assert named >= set(IMPORTS)
    assert named >= {path.name for path in TESTS.glob("test_real_*.py")}
