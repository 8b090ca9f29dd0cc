#!/usr/bin/env python3
"""Find the Python interpreters that goslings is built for and tested on.

Wanted are 3.14t, 3.13t (free-threaded), 3.14 and 3.13. They are looked for in this order, and the
first one that works wins:

  1. GOSLINGS_PYTHONS: paths or names, separated by colons or commas. If set, only these are used.
  2. PATH, looking behind pyenv's shims
  3. the user's cache, where an earlier `ensure` built one
  4. uv (`uv python find`), if it is installed

`ensure` also makes sure that a free-threaded and a GIL interpreter take part: what is missing is
installed with `uv python install`, and where that fails CPython 3.13 is built from Debian's source
package into the cache (once, a few minutes).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from build_cpython import BUILDABLE, BuildError, build, cached, fail, say

TAGS = ("3.14t", "3.13t", "3.14", "3.13")  # best first
UV_INSTALL_SECONDS = 60  # a machine without access must fail soon

# Run by each candidate. Old interpreters must survive it, hence its plainness.
PROBE = r"""
import json, os, sys
import sysconfig
missing = []
for name in ("ssl", "zlib", "sqlite3", "ctypes", "venv", "ensurepip"):
    try:
        __import__(name)
    except ImportError:
        missing.append(name)
include = sysconfig.get_paths()["include"]
headers = [os.path.join(include, "Python.h"), os.path.join(include, "internal", "pycore_tstate.h")]
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": list(sys.version_info[:3]),
    "release": sys.version.split()[0],
    "free": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "executable": getattr(sys, "_base_executable", None) or sys.executable,
    "missing_headers": [path for path in headers if not os.path.exists(path)],
    "missing_modules": missing,
}))
"""


class Interpreter(NamedTuple):
    """A working interpreter; `found` says where it was looked for."""

    tag: str
    version: str
    executable: str
    found: str

    @property
    def free_threaded(self) -> bool:
        return self.tag.endswith("t")


class Rejected(NamedTuple):
    """A candidate that cannot be used, and why."""

    path: str
    why: str


class Search(NamedTuple):
    """What a search brought: the first working interpreter of each tag, best first, and the rest."""

    interpreters: list[Interpreter]
    rejected: list[Rejected]

    def kind(self, free_threaded: bool) -> bool:
        return any(found.free_threaded == free_threaded for found in self.interpreters)


def probe(path: str, found: str) -> Interpreter | Rejected | None:
    """Run a candidate. None: a healthy Python of a version that goslings does not support."""
    env = {
        k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__")
    }
    try:
        run = subprocess.run(
            [path, "-I", "-c", PROBE],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            env=env,
        )
        facts = json.loads(run.stdout) if run.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return Rejected(path, f"does not run ({error})")
    if facts is None:
        lines = (run.stderr or run.stdout).strip().splitlines()
        return Rejected(path, f"does not run ({lines[0] if lines else f'exit code {run.returncode}'})")
    name = "{}.{}".format(*facts["version"][:2])
    tag = name + ("t" if facts["free"] else "")
    if facts["implementation"] != "cpython" or tag not in TAGS:
        return None
    if facts["missing_headers"]:
        return Rejected(
            path, f"no {facts['missing_headers'][0]} (on Debian and Ubuntu: apt-get install python{name}-dev)"
        )
    if facts["missing_modules"]:
        hint = (
            f" (on Debian and Ubuntu: apt-get install python{name}-venv)"
            if "ensurepip" in facts["missing_modules"]
            else ""
        )
        return Rejected(path, f"its standard library lacks {', '.join(facts['missing_modules'])}{hint}")
    executable = os.path.realpath(facts["executable"])
    return Interpreter(tag, facts["release"], executable, found)


def behind_shims(folder: Path, name: str) -> Iterator[str]:
    """pyenv's shim runs only the versions that are switched on: look at all that are installed."""

    def version(path: Path) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", path.parent.parent.name)]

    if folder.name == "shims":
        yield from map(str, sorted(folder.parent.glob(f"versions/*/bin/{name}"), key=version, reverse=True))


def candidates() -> Iterator[tuple[str, str]]:
    """Everything worth asking outside GOSLINGS_PYTHONS and uv: (path, where)."""
    folders = list(dict.fromkeys(filter(None, os.environ.get("PATH", "").split(os.pathsep))))
    for name in [f"python{tag}" for tag in TAGS] + ["python3", "python"]:
        for folder in map(Path, folders):
            if not os.access(str(folder / name), os.X_OK):
                continue
            behind = list(behind_shims(folder, name)) if "." in name else []
            if behind:
                yield from ((path, "pyenv") for path in behind)
            else:
                yield str(folder / name), "PATH"
    for tag in TAGS:
        yield from ((str(path), "cache") for path in cached(tag))


def uv_find(tag: str) -> str | None:
    if not shutil.which("uv"):
        return None
    run = subprocess.run(
        ["uv", "python", "find", "--no-project", tag],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return run.stdout.strip() or None if run.returncode == 0 else None


def named() -> list[str]:
    """The entries of GOSLINGS_PYTHONS."""
    return [
        entry.strip() for entry in re.split(r"[:,]", os.environ.get("GOSLINGS_PYTHONS", "")) if entry.strip()
    ]


def search(only: Iterable[str] = TAGS) -> Search:
    """Look everywhere; never builds or installs."""
    wanted = tuple(only)
    best: dict[str, Interpreter] = {}
    rejected: list[Rejected] = []
    asked: set[str] = set()

    def ask(path: str, found: str) -> Interpreter | Rejected | None:
        real = os.path.realpath(path)
        if real in asked and "shims" not in real:
            return None
        asked.add(real)
        answer = probe(path, found)
        if isinstance(answer, Rejected):
            rejected.append(answer)
        elif answer and answer.tag in wanted:
            best.setdefault(answer.tag, answer)
        return answer

    if named():
        for entry in named():
            path = shutil.which(os.path.expanduser(entry))
            if not path and re.match(r"3\.\d+t?$", entry):
                path = shutil.which(f"python{entry}")
            if path:
                path = next(behind_shims(Path(path).parent, Path(path).name), path)
            if not path:
                rejected.append(Rejected(entry, "no such program"))
            elif ask(path, "GOSLINGS_PYTHONS") is None:
                rejected.append(
                    Rejected(
                        path,
                        f"a version that is not supported, or named twice (supported: {', '.join(TAGS)})",
                    )
                )
    else:
        for path, found in candidates():
            ask(path, found)
        for tag in wanted:
            uv = uv_find(tag) if tag not in best else None
            if uv:
                ask(uv, "uv")
    return Search([best[tag] for tag in TAGS if tag in best], rejected)


def obtain(tags: Iterable[str]) -> None:
    """Get the first of these tags that can be had: from uv, else by building it."""
    wanted = list(tags)
    if shutil.which("uv"):
        say(f"asking uv for {wanted[0]} (at most {UV_INSTALL_SECONDS} s)")
        try:
            run = subprocess.run(
                ["uv", "python", "install", wanted[0]],
                stdin=subprocess.DEVNULL,
                timeout=UV_INSTALL_SECONDS,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            if run.returncode == 0 and uv_find(wanted[0]):
                return
            why = (run.stderr.strip().splitlines() or ["no reason given"])[0]
        except subprocess.TimeoutExpired:
            why = "no answer in time"
        say(f"uv could not install {wanted[0]}: {why}")
    build(next((tag for tag in wanted if tag in BUILDABLE), wanted[0]))


KINDS = ("free-threaded", "gil")


def ensure(only: Iterable[str] = (), best: str | None = None) -> list[Interpreter]:
    """The interpreters to use, printed as a table on stderr; gets what is missing.

    `only`: these tags, all of them. `best`, one of KINDS: a single one, the best of that kind.
    Otherwise all that are found, and at least one free-threaded and one with a GIL.
    """
    tags = tuple(only)
    result = search(tags or TAGS)
    if named():
        if result.rejected or not result.interpreters:
            report(result)
            fail(
                "GOSLINGS_PYTHONS names an interpreter that cannot be used; change it, or unset it to have them found"
            )
        if not (tags or best or (result.kind(True) and result.kind(False))):
            say(
                f"warning: GOSLINGS_PYTHONS names no {'GIL' if result.kind(True) else 'free-threaded'} interpreter"
            )
    missing = [[tag] for tag in tags if tag not in {found.tag for found in result.interpreters}]
    if not tags and not named():
        missing += [["3.14t", "3.13t"]] if not result.kind(True) and best != "gil" else []
        missing += [["3.14", "3.13"]] if not result.kind(False) and best != "free-threaded" else []
    elif named() and missing:
        fail(f"GOSLINGS_PYTHONS does not name {', '.join(tag for group in missing for tag in group)}")
    if missing:
        report(result)
        for group in missing:
            say(f"no {' or '.join(group)} here: getting one")
            try:
                obtain(group)
            except BuildError as error:
                fail(str(error))
        result = search(tags or TAGS)
        have = {found.tag for found in result.interpreters}
        for group in missing:
            if not have.intersection(group):
                report(result)
                fail(f"still no working {' or '.join(group)}")
    if best:
        of_kind = [found for found in result.interpreters if found.free_threaded == (best == "free-threaded")]
        result = Search((of_kind or result.interpreters)[:1], [])
    report(result, tags or TAGS, quiet=bool(best))
    return result.interpreters


def report(result: Search, wanted: Iterable[str] = TAGS, quiet: bool = False) -> None:
    """Print what takes part, what does not, and what was passed over and why."""
    for found in result.interpreters:
        kind = "free-threaded" if found.free_threaded else "GIL"
        say(f"  {found.tag:6} {found.version:10} {kind:14} {found.executable}  (from {found.found})")
    if quiet:
        return
    have = {found.tag for found in result.interpreters}
    absent = [tag for tag in wanted if tag not in have]
    if absent:
        say(f"  not found: {', '.join(absent)}")
    for path, why in result.rejected:
        say(f"  passed over: {path}: {why}")


def tags_argument(text: str) -> list[str]:
    """Parse `3.14t,3.13` or `3.14t 3.13`."""
    tags = re.split(r"[\s,]+", text.strip()) if text.strip() else []
    for tag in tags:
        if tag not in TAGS:
            raise argparse.ArgumentTypeError(f"{tag!r} is none of {', '.join(TAGS)}")
    return [tag for tag in TAGS if tag in tags]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Both print `tag<TAB>executable` lines on stdout, best first, and all else on stderr.",
    )
    parser.add_argument(
        "command", choices=("list", "ensure"), help="list: only look. ensure: also get what is missing"
    )
    parser.add_argument(
        "--only", type=tags_argument, default=[], metavar="TAGS", help="e.g. 3.14t,3.13: these and no others"
    )
    parser.add_argument(
        "--best", choices=KINDS, help="ensure: a single interpreter, the best of this kind that can be had"
    )
    options = parser.parse_args()
    if options.command == "ensure":
        interpreters = ensure(options.only, options.best)
    else:
        result = search(options.only or TAGS)
        report(result, options.only or TAGS)
        interpreters = result.interpreters
    for found in interpreters:
        print(f"{found.tag}\t{found.executable}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("interrupted; nothing was left behind")
