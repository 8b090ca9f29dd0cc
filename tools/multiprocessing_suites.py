#!/usr/bin/env python3
"""Run CPython's own tests of multiprocessing against goslings.compat.multiprocessing; write
docs/multiprocessing-suite.md.

As tools/suites.py, whose machinery this uses: each case runs with the standard library and with ours in its place, in
child processes with a time limit; what passes with the library and not with ours is run again on its own before it
counts. The results are kept in tests/suites/multiprocessing/, a file for each suite, start method and interpreter, as
they come, and each difference needs a reason in tests/suites/multiprocessing.toml. `--page` writes the page from the
results, `--check` says whether it is up to date.

All of it takes about half an hour for each interpreter, most of which the cases sleep: several interpreters or methods
may run at the same time, as `--only 3.13 --methods fork`. To begin anew, remove the results; after an interruption,
`--left` goes on with what has none. An interpreter that was built without its `test` package finds it in a folder on
PYTHONPATH that holds just `test`, the Lib/test of its source.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import tomllib

import suites

SUITES = ("test_processes", "test_misc", "test_manager", "test_threads")
METHODS = ("spawn", "forkserver", "fork")
RESULTS = suites.SUITES / "multiprocessing"
REASONS = suites.SUITES / "multiprocessing.toml"
PAGE = suites.ROOT / "docs" / "multiprocessing-suite.md"
SHARE = 0.9

INTRODUCTION = """\
# CPython's own tests of multiprocessing, and goslings.compat.multiprocessing

Written by `tools/multiprocessing_suites.py` from what it found, and `tests/suites/multiprocessing.toml`; do not edit.

Each case of the interpreter's `test.test_multiprocessing_spawn`, `_forkserver` and `_fork` ran twice: with the standard
library, and with the names of `multiprocessing` standing for ours, in the processes that a case starts as well. *Cases*
are those that pass with the library; what is skipped or fails there is not counted. Shared memory, shared ctypes and
`multiprocessing.dummy` (which test_threads is about) are the library's own here (see multiprocessing.md), so their cases
show that they bear with our processes, queues and locks. Below the table is each case that passes with the library only,
and why.
"""


def page() -> tuple[str, list[str]]:
    """The page, and what is wrong with it."""
    problems: list[str] = []
    with open(REASONS, "rb") as file:
        known: dict[str, dict[str, str]] = tomllib.load(file)["reasons"]
    found = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    lines = [
        INTRODUCTION,
        "| interpreter | started by | suite | cases | pass with ours | |",
        "|---|---|---|---|---|---|",
    ]
    for tag in suites.TAGS:
        all_of_them = [0, 0]
        version = tag
        for method in METHODS:
            for suite in SUITES:
                what = found.get(f"{suite}-{method}-{tag}")
                if what is None:
                    continue
                version = what["python"]
                lines.append(
                    f"| {version} | {method} | {suite} | {_row(what['passed_plain'], what['passed_patched'])} |"
                )
                all_of_them[0] += what["passed_plain"]
                all_of_them[1] += what["passed_patched"]
        cases, passed = all_of_them
        if cases:
            lines.append(f"| {version} | | all of them | {_row(cases, passed)} |")
            if passed < SHARE * cases:
                problems.append(f"{tag}: only {100 * passed / cases:.1f} % pass")
    lines += [""]
    for tag in suites.TAGS:
        absent = [
            f"{suite}-{method}"
            for method in METHODS
            for suite in SUITES
            if f"{suite}-{method}-{tag}" not in found
        ]
        if len(absent) == len(METHODS) * len(SUITES):
            lines.append(f"Nothing was run on {tag}.")
        elif absent:
            lines.append(f"Not run on {tag}: {', '.join(absent)}.")
    for suite in SUITES:
        lines += ["", f"## {suite}", ""]
        by_reason: dict[str, list[str]] = {}
        where: dict[str, list[str]] = {}
        for tag in suites.TAGS:
            for method in METHODS:
                for name, outcome in _different(found, suite, method, tag).items():
                    where.setdefault(name, []).append(f"{method} on {tag}: {outcome}")
        for name in sorted(where):
            reason = suites.reason_for(known, suite, name)
            if reason is None:
                problems.append(f"{suite}: no reason for {name}")
            by_reason.setdefault(reason or "?", []).append(f"  * `{name}` ({', '.join(where[name])})")
        lines += [] if where else ["Every case that passes with the library passes with ours."]
        for reason, names in by_reason.items():
            lines += [f"* {reason}", *names]
    return "\n".join(lines).rstrip() + "\n", problems


def _different(found: dict[str, Any], suite: str, method: str, tag: str) -> dict[str, str]:
    different: dict[str, str] = found.get(f"{suite}-{method}-{tag}", {}).get("different", {})
    return different


def _row(cases: int, passed: int) -> str:
    return f"{cases} | {passed} | {100 * passed / max(1, cases):.1f} %"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="*", default=SUITES)
    parser.add_argument("--methods", default=",".join(METHODS), help="how processes are started: spawn,fork")
    parser.add_argument("--only", default=",".join(suites.TAGS), help="interpreters: 3.14t,3.13")
    parser.add_argument("--seconds", type=float, default=suites.CASE_SECONDS, help="limit of one case")
    parser.add_argument(
        "--again", action="store_true", help="only the cases that differed or failed the last time"
    )
    parser.add_argument("--left", action="store_true", help="only the suites of which there is no result")
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--check", action="store_true", help="only say whether the page is up to date")
    options = parser.parse_args()
    suites.LAYER = "multiprocessing"
    suites.RESULTS = RESULTS
    places = [str(suites.SUITES / "children"), *filter(None, [os.environ.get("PYTHONPATH")])]
    suites.ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(places)}
    if not (options.page or options.check):
        for tag in options.only.split(","):
            python = suites.ROOT / ".venvs" / tag / "bin" / "python"
            if not python.exists():
                print(f"{tag}: no environment; `make dev PYTHONS={tag}` makes one")
                continue
            for method in options.methods.split(","):
                for suite in options.suites:
                    one(str(python), tag, method, suite, options)
    text, problems = page()
    if options.check:
        if not PAGE.exists() or PAGE.read_text() != text:
            problems.append(f"{PAGE.name} is not what `tools/multiprocessing_suites.py --page` writes")
    else:
        PAGE.write_text(text)
    print("\n".join(problems) or f"{PAGE.name}: all differences have reasons")
    return 1 if problems else 0


def one(python: str, tag: str, method: str, suite: str, options: argparse.Namespace) -> None:
    """Runs one suite on one interpreter, and stores what came of it."""
    module = f"test_multiprocessing_{method}.{suite}"
    stored = RESULTS / f"{suite}-{method}-{tag}.json"
    if options.again:
        if stored.exists():
            again(python, module, stored, options.seconds)
        return
    if options.left and stored.exists():
        return
    cases = suites.cases_of(python, f"test.{module}")
    if not cases:
        print(f"{module} on {tag}: no such cases")
        return
    found = suites.compare(python, module, cases, options.seconds)
    print(
        f"{module} on {tag}: {found['passed_patched']} of {found['passed_plain']} pass, {found['seconds']} s",
        flush=True,
    )
    for name, what in found["different"].items():
        print(f"  {what['outcome']:5} {name}\n      " + what["detail"].replace("\n", "\n      "))
    suites.store(f"{suite}-{method}", tag, suites.version_of(python, tag), found)


def again(python: str, module: str, stored: Path, seconds: float) -> None:
    """Runs the cases of a stored result that differed, or failed with the library."""
    kept = json.loads(stored.read_text())
    found = suites.compare(python, module, sorted({*kept["different"], *kept["failed_plain"]}), seconds)
    kept["passed_plain"] += found["passed_plain"] - len(kept["different"])
    kept["skipped"] += found["skipped"]
    kept["failed_plain"] = found["failed_plain"]
    kept["different"] = {name: what["outcome"] for name, what in sorted(found["different"].items())}
    kept["passed_patched"] = kept["passed_plain"] - len(kept["different"])
    stored.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"{stored.stem}: {kept['passed_patched']} of {kept['passed_plain']} pass now", flush=True)


if __name__ == "__main__":
    sys.exit(main())
