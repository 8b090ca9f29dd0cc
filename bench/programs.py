"""The programs: which file runs a library, in which configurations, on which interpreters.

A library with several configurations (numbers of threads, event loops) is tried in each before the
rounds, per workload, and takes part with the fastest. goslings and Go take part with one processor
and with two, as columns of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Library:
    """A library with a file below impl/."""

    name: str
    file: str
    pace: str = "medium"
    # name of the configuration -> environment variables
    configs: dict[str, dict[str, str]] = field(default_factory=lambda: {"": {}})
    separate: bool = False  # every configuration is a column of its own
    builds: str = "any"  # "free-threaded" where the library asks for it
    env: dict[str, str] = field(default_factory=dict)


_PROCS = {"P=1": {"GOSLINGS_PROCS": "1"}, "P=2": {"GOSLINGS_PROCS": "2"}}

LIBRARIES: dict[str, Library] = {
    lib.name: lib
    for lib in (
        Library("goslings", "on_goslings.py", "fast", _PROCS, separate=True),
        Library("goslings async", "on_goslings_async.py", "fast", _PROCS, separate=True),
        Library("threads", "on_threads.py", "slow"),
        Library("processes", "on_processes.py", "slow"),
        Library("asyncio", "on_asyncio.py", configs={"": {}, "uvloop": {"ASYNCIO_LOOP": "uvloop"}}),
        Library("trio", "on_trio.py"),
        Library("gevent", "on_gevent.py"),
        Library("eventlet", "on_eventlet.py", env={"PYTHONWARNINGS": "ignore"}),
        Library(
            "tonio",
            "on_tonio.py",
            configs={"1 thread": {"TONIO_THREADS": "1"}, "2 threads": {"TONIO_THREADS": "2"}},
            builds="free-threaded",
        ),
        Library(
            "pyroutine-rt",
            "on_pyroutine.py",
            configs={"1 proc": {"PYROUTINE_PROCS": "1"}, "2 procs": {"PYROUTINE_PROCS": "2"}},
            builds="free-threaded",
        ),
        Library("pysync-nogil", "on_pysync.py", "slow", builds="free-threaded"),
    )
}

GO_CONFIGS = {"P=1": {"GOMAXPROCS": "1"}, "P=2": {"GOMAXPROCS": "2"}}


@dataclass(frozen=True)
class Interpreter:
    """A Python to measure on."""

    tag: str
    python: str

    @property
    def free_threaded(self) -> bool:
        return self.tag.endswith("t")


@dataclass(frozen=True)
class Program:
    """Something that can be run: a library in one configuration on one interpreter, or Go."""

    library: str
    config: str
    tag: str  # the interpreter; "go" for Go
    pace: str
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    separate: bool
    version: str
    workloads: frozenset[str]
    gil: bool = True

    @property
    def column(self) -> str:
        """The heading of its column."""
        return f"{self.library} {self.config}" if self.separate else self.library


def environment(extra: dict[str, str]) -> dict[str, str]:
    """The environment of a child: ours, without settings that would change what is measured."""
    dropped = ("PYTHONPATH", "PYTHON_GIL", "PYTHONDEVMODE", "PYTHONMALLOC", "GOMAXPROCS", "GOGC")
    env = {k: v for k, v in os.environ.items() if k not in dropped}
    env = {k: v for k, v in env.items() if not k.startswith("GOSLINGS_")}
    return {**env, "PYTHONHASHSEED": "0", **extra}


def ask(command: list[str], env: dict[str, str]) -> tuple[dict[str, Any] | None, str]:
    """What `command --probe` says, or why it says nothing."""
    try:
        done = subprocess.run(
            [*command, "--probe"],
            env=environment(env),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    if done.returncode or not done.stdout.strip():
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return None, lines[-1]
    return json.loads(done.stdout.splitlines()[-1]), ""


def of_library(library: Library, interpreter: Interpreter) -> tuple[list[Program], list[str]]:
    """The library's programs on this interpreter, and why some are missing."""
    programs, missing = [], []
    if library.builds == "free-threaded" and not interpreter.free_threaded:
        return [], [f"{library.name} is for free-threaded builds only"]
    for config, env in library.configs.items():
        command = [interpreter.python, str(BENCH / "impl" / library.file)]
        found, why = ask(command, {**library.env, **env})
        if found is None:
            missing.append(f"{library.name} {config}: {why}".replace(" :", ":"))
            continue
        programs.append(
            Program(
                library.name,
                config,
                interpreter.tag,
                library.pace,
                tuple(command),
                tuple({**library.env, **env}.items()),
                library.separate,
                found["version"],
                frozenset(found["workloads"]),
                found["gil"],
            )
        )
    return programs, missing


def of_go(binary: Path) -> list[Program]:
    """Go with one processor and with two."""
    programs = []
    for config, env in GO_CONFIGS.items():
        found, why = ask([str(binary)], env)
        if found is None:
            raise SystemExit(f"the Go program was built but does not run: {why}")
        programs.append(
            Program(
                "Go", config, "go", "fast", (str(binary),), tuple(env.items()), True,
                found["version"], frozenset(found["workloads"]),
            )
        )  # fmt: skip
    return programs


def find_interpreters(given: list[str], root: Path) -> list[Interpreter]:
    """Those given as TAG=PATH, else those that make names, else those in .venvs."""
    named = os.environ.get("GOSLINGS_BENCH_PYTHONS", "")
    given = given or [item for item in named.split(":") if item]
    if given:
        found = []
        for item in given:
            tag, _, path = item.partition("=")
            if not path or not os.access(path, os.X_OK):
                raise SystemExit(f"--python wants TAG=PATH of an interpreter, not {item!r}")
            found.append(Interpreter(tag, os.path.abspath(path)))
        return found
    tags = ("3.14t", "3.13t", "3.14", "3.13")
    venvs = [Interpreter(tag, str(root / ".venvs" / tag / "bin" / "python")) for tag in tags]
    return [i for i in venvs if os.access(i.python, os.X_OK)]
