#!/usr/bin/env python3
"""Run CPython's own tests of multiprocessing against goslings.compat.multiprocessing; write
docs/multiprocessing-suite.md.

As tools/suites.py, whose machinery this uses: each case runs with the standard library and with ours in its place, in
child processes with a time limit; what passes with the library and not with ours is run again on its own before it
counts. The results are kept in tests/suites/multiprocessing/, a file for each suite and interpreter, and each
difference needs a reason in tests/suites/multiprocessing.toml. `--page` writes the page from the results, `--check`
says whether it is up to date.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import tomllib

import suites

SUITES = ("test_processes", "test_misc", "test_manager")
METHOD = "test_multiprocessing_spawn"
RESULTS = suites.SUITES / "multiprocessing"
REASONS = suites.SUITES / "multiprocessing.toml"
PAGE = suites.ROOT / "docs" / "multiprocessing-suite.md"
SHARE = 0.9

INTRODUCTION = """\
# CPython's own tests of multiprocessing, and goslings.compat.multiprocessing

Written by `tools/multiprocessing_suites.py` from what it found, and `tests/suites/multiprocessing.toml`; do not edit.

Each case of the interpreter's `test.test_multiprocessing_spawn` ran twice: with the standard library, and with the
names of `multiprocessing` standing for ours. *Cases* are those that pass with the library; what is skipped or fails
there is not counted. Managers, shared memory and shared ctypes are the library's own here (see multiprocessing.md), so
their cases show that they bear with our processes, queues and locks. Below the table is each case that passes with the
library only, and why.
"""


def page() -> tuple[str, list[str]]:
    """The page, and what is wrong with it."""
    problems: list[str] = []
    with open(REASONS, "rb") as file:
        known: dict[str, dict[str, str]] = tomllib.load(file)["reasons"]
    found = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    lines = [INTRODUCTION, "| suite | interpreter | cases | pass with ours | |", "|---|---|---|---|---|"]
    for tag in suites.TAGS:
        those = [found[key] for suite in SUITES if (key := f"{suite}-{tag}") in found]
        for what in those:
            lines.append(
                f"| {what['suite']} | {what['python']} | {_row(what['passed_plain'], what['passed_patched'])} |"
            )
        if those:
            cases, passed = (sum(what[key] for what in those) for key in ("passed_plain", "passed_patched"))
            lines.append(f"| all of them | {those[0]['python']} | {_row(cases, passed)} |")
            if passed < SHARE * cases:
                problems.append(f"{tag}: only {100 * passed / cases:.1f} % pass")
    absent = [tag for tag in suites.TAGS if not any(key.endswith(f"-{tag}") for key in found)]
    lines += ["", *(f"Not run on {tag}." for tag in absent)]
    for suite in SUITES:
        lines += ["", f"## {suite}", ""]
        by_reason: dict[str, list[str]] = {}
        names = sorted(
            {name for key, what in found.items() if key.startswith(suite) for name in what["different"]}
        )
        for name in names:
            reason = suites.reason_for(known, suite, name)
            if reason is None:
                problems.append(f"{suite}: no reason for {name}")
            where = [f"{tag}: {what['different'][name]}" for tag in suites.TAGS if name in _different(found, suite, tag)
                     for what in [found[f"{suite}-{tag}"]]]  # fmt: skip
            by_reason.setdefault(reason or "?", []).append(f"  * `{name}` ({', '.join(where)})")
        lines += [] if names else ["Every case that passes with the library passes with ours."]
        for reason, those_names in by_reason.items():
            lines += [f"* {reason}", *those_names]
    return "\n".join(lines).rstrip() + "\n", problems


def _different(found: dict[str, Any], suite: str, tag: str) -> dict[str, str]:
    different: dict[str, str] = found.get(f"{suite}-{tag}", {}).get("different", {})
    return different


def _row(cases: int, passed: int) -> str:
    return f"{cases} | {passed} | {100 * passed / max(1, cases):.1f} %"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="*", default=SUITES)
    parser.add_argument("--only", default=",".join(suites.TAGS), help="interpreters: 3.14t,3.13")
    parser.add_argument("--seconds", type=float, default=suites.CASE_SECONDS, help="limit of one case")
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--check", action="store_true", help="only say whether the page is up to date")
    options = parser.parse_args()
    suites.LAYER = "multiprocessing"
    suites.RESULTS = RESULTS
    if not (options.page or options.check):
        for tag in options.only.split(","):
            python = suites.ROOT / ".venvs" / tag / "bin" / "python"
            if not python.exists():
                print(f"{tag}: no environment; `make dev PYTHONS={tag}` makes one")
                continue
            for suite in options.suites:
                one(str(python), tag, suite, options.seconds)
    text, problems = page()
    if options.check:
        if not PAGE.exists() or PAGE.read_text() != text:
            problems.append(f"{PAGE.name} is not what `tools/multiprocessing_suites.py --page` writes")
    else:
        PAGE.write_text(text)
    print("\n".join(problems) or f"{PAGE.name}: all differences have reasons")
    return 1 if problems else 0


def one(python: str, tag: str, suite: str, seconds: float) -> None:
    """Runs one suite on one interpreter, and stores what came of it."""
    cases = suites.cases_of(python, f"test.{METHOD}.{suite}")
    if not cases:
        print(f"{suite} on {tag}: no such cases")
        return
    found = suites.compare(python, f"{METHOD}.{suite}", cases, seconds)
    print(
        f"{suite} on {tag}: {found['passed_patched']} of {found['passed_plain']} pass, {found['seconds']} s",
        flush=True,
    )
    for name, what in found["different"].items():
        print(f"  {what['outcome']:5} {name}")
    suites.store(suite, tag, suites.version_of(python, tag), found)


if __name__ == "__main__":
    sys.exit(main())
