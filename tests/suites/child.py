"""Runs cases of the interpreter's own tests, one after the other, and says how each ended. Started by tools/suites.py.

Reads from stdin a JSON object: `module` ("test.test_queue"), `patched`, and `cases` (names without the module) or null,
which only lists them. Writes JSON lines to the file descriptor that is the first argument: `["start", case]`,
`["end", case, outcome, detail]`, `["cases", [...]]`. If `patched` is true, everything happens in a goroutine after
`goslings.patch()`; if it is "multiprocessing", the tests find `goslings.compat.multiprocessing` under that name, by
`children/sitecustomize.py`, and so do the processes that they start.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import sys
import unittest
from collections.abc import Callable, Iterator
from typing import Any

RESOURCES = ["subprocess", "cpu", "walltime"]
"""What the tests may use: no network but the loopback device, nothing large."""
LOOPBACK = {"test.test_socketserver"}
"""Those who ask for the network, and use the loopback device alone."""


def flat(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


class Outcome(unittest.TestResult):
    """How one case ended: the worst of what is reported."""

    def __init__(self) -> None:
        super().__init__()
        self.outcome, self.detail = "pass", ""

    def _note(self, outcome: str, detail: str) -> None:
        if self.outcome in ("pass", "skip"):
            self.outcome, self.detail = outcome, detail

    def addError(self, test: Any, err: Any) -> None:
        super().addError(test, err)
        self._note("error", self._exc_info_to_string(err, test))

    def addFailure(self, test: Any, err: Any) -> None:
        super().addFailure(test, err)
        self._note("fail", self._exc_info_to_string(err, test))

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note("fail", self._exc_info_to_string(err, test))

    def addSkip(self, test: Any, reason: str) -> None:
        super().addSkip(test, reason)
        self._note("skip", reason)

    def addUnexpectedSuccess(self, test: Any) -> None:
        super().addUnexpectedSuccess(test)
        self._note("fail", "unexpected success")


def main() -> None:
    out = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    os.set_inheritable(out.fileno(), False)
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which may be ignored where the suites were started
    asked = json.load(sys.stdin)
    sys.stdin.close()
    sys.stdin = open(os.devnull)
    if asked["patched"] is True:
        import goslings

        goslings.patch()

    def in_place[**P, T](function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return (
            goslings.go(function, *args, **kwargs).result() if asked["patched"] is True else function(*args, **kwargs)
        )

    support: Any = importlib.import_module("test.support")
    support.use_resources = [*RESOURCES, "network"] if asked["module"] in LOOPBACK else RESOURCES
    support.verbose = 0

    def tell(*what: Any) -> None:
        out.write(json.dumps(what) + "\n")

    def load() -> dict[str, unittest.TestCase]:
        module = asked["module"]
        found = unittest.defaultTestLoader.loadTestsFromName(module)
        return {case.id().removeprefix(f"{module}."): case for case in flat(found)}

    cases = in_place(load)
    if asked["cases"] is None:
        tell("cases", sorted(cases))
        os._exit(0)
    for name in asked["cases"]:
        tell("start", name)
        case = cases.get(name)
        if case is None:
            tell("end", name, "error", "there is no such case under patch")
            continue
        result = Outcome()
        in_place(unittest.TestSuite([case]).run, result)
        tell("end", name, result.outcome, result.detail[-3000:])
        cases[name] = None  # type: ignore[assignment]
    out.flush()
    os._exit(0)  # what a case has left behind must not keep the process


if __name__ == "__main__":
    main()
