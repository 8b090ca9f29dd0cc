"""`goslings doctor`: what goslings finds on this machine, and whether it works."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import resource
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from importlib.machinery import ExtensionFileLoader
from typing import Any, NamedTuple

import goslings
from goslings import _goslings, _runtime, chan, go, gomaxprocs

__all__ = ["main"]

PACKAGES = ("numpy", "pandas", "scikit-learn", "joblib", "gevent", "greenlet", "uvloop", "ipykernel")
"""Their versions matter when something is reported; they are looked up, not imported."""

VARIABLES = (
    "GOSLINGS_PROCS",
    "GOSLINGS_SLICE_MS",
    "GOSLINGS_WARN_BLOCKING",
    "GOSLINGS_STACK_KB",
    "GOSLINGS_BLOCKING",
    "GOSLINGS_PANIC",
    "PYTHON_GIL",
)
GOROUTINES = 1000
ROUNDS = 3000
TIMES = 7
SELF_TEST_SECONDS = 30.0
IMPORT_SECONDS = 120.0

ENABLED_FOR = re.compile(r"global interpreter lock \(GIL\) has been enabled to load module '([^']+)'")
"""The interpreter's own warning: 'The global interpreter lock (GIL) has been enabled to load module …'."""

IMPORT_ONE_BY_ONE = """\
import importlib, json, os, sys, warnings
pipe, path, names = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
sys.path[:] = path
enabled_by = failure = None
with warnings.catch_warnings(record=True) as caught:
    for name in names:
        before = sys._is_gil_enabled()
        warnings.simplefilter("always")
        try:
            importlib.import_module(name)
        except BaseException as error:
            failure = f"{type(error).__name__}: {error}"
        if sys._is_gil_enabled() and not before:
            enabled_by = name
        if enabled_by or failure:
            break
said = [str(warning.message) for warning in caught]
os.write(pipe, json.dumps([sys._is_gil_enabled(), enabled_by, failure, said]).encode())
os._exit(0)
"""
"""Run by an interpreter of its own."""


class Problem(NamedTuple):
    """Something that is not well."""

    what: str
    do: str


def main(modules: Sequence[str] = (), *, as_json: bool = False) -> int:
    """Prints the findings. Returns the exit status: 0 if all is well, else 1."""
    problems: list[Problem] = []
    findings: dict[str, Any] = {
        "goslings": {"version": goslings.__version__, "module": _goslings.__file__},
        "python": _python(problems),
        "workers": _workers(),
        "self_test": _self_test(problems),  # before the kernel's facts: guard pages come with the first stack
        "kernel": _kernel(),
        "packages": _packages(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "imports": [_imported(module, problems) for module in modules],
    }
    healthy = [imported["module"] for imported in findings["imports"] if imported["failure"] is None]
    findings["patch"] = _patch(healthy, problems)
    findings["problems"] = [problem._asdict() for problem in problems]
    print(json.dumps(findings, indent=2) if as_json else _text(findings))
    return 1 if problems else 0


def _free_threaded_build() -> bool:
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def _python(problems: list[Problem]) -> dict[str, Any]:
    gil, build = not _runtime.free_threaded(), _free_threaded_build()
    why = "this build always has it"
    if build and not gil:
        why = "forced by PYTHON_GIL=0 or -X gil=0" if sys.flags.gil == 0 else "free-threaded build"
    elif build and sys.flags.gil == 1:
        why = "asked for by PYTHON_GIL=1 or -X gil=1"
        problems.append(Problem(f"the GIL is on, {why}", "unset PYTHON_GIL and leave -X gil out"))
    elif build:
        module = _enabled_by()
        why = f"turned on by the module {module}" if module else "turned on by a module"
        problems.append(_gil_problem(module or "a module that was imported"))
    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "free_threaded_build": build,
        "gil": gil,
        "gil_why": why,
    }


def _gil_problem(module: str) -> Problem:
    return Problem(
        f"importing {module} turns the GIL on: Python code then runs on one core",
        f"upgrade {module} to a version that supports free-threaded Python, or leave it out; "
        "PYTHON_GIL=0 keeps the GIL off at your own risk",
    )


class _Import(NamedTuple):
    gil: bool
    enabled_by: str | None
    failure: str | None


def _import_elsewhere(modules: Sequence[str], *, site: bool) -> _Import:
    """Imports the modules one by one in a process of their own, until one turns the GIL on.

    Without `site`, what is imported at every start (sitecustomize, .pth files) is left out.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    options = [] if site else ["-S"]
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe:
        command = [sys.executable, *options, "-c", IMPORT_ONE_BY_ONE, str(writing)]
        try:
            done = subprocess.run(
                [*command, json.dumps(["", *sys.path]), *modules],
                env=environment,
                pass_fds=[writing],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=IMPORT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _Import(False, None, f"no end after {IMPORT_SECONDS:.0f} s")
        finally:
            os.close(writing)
        answer = pipe.read()
    if not answer:
        return _Import(False, None, f"the interpreter ended with status {done.returncode}")
    gil, enabled_by, failure, said = json.loads(answer)
    for text in said:
        if enabled_by and (found := ENABLED_FOR.search(text)):
            enabled_by = found[1]
    return _Import(gil, enabled_by, failure)


def _enabled_by() -> str | None:
    """The module that turned the GIL of this process on: one that is loaded, maybe since the start."""
    loaded = [
        name
        for name, module in list(sys.modules.items())
        if isinstance(getattr(module, "__loader__", None), ExtensionFileLoader)
        and name.partition(".")[0] not in sys.stdlib_module_names
    ]
    return _import_elsewhere(loaded, site=False).enabled_by


def _imported(module: str, problems: list[Problem]) -> dict[str, Any]:
    # If the GIL is on from the start, an import can turn it on only where the start is left out.
    outcome = _import_elsewhere([module], site=_runtime.free_threaded() or not _free_threaded_build())
    if outcome.failure is not None:
        problems.append(Problem(f"{module} cannot be imported: {outcome.failure}", f"install or repair {module}"))
    elif outcome.enabled_by is not None:
        problems.append(_gil_problem(outcome.enabled_by))
    return {"module": module, **outcome._asdict()}


PATCH_AFTER_IMPORTS = """\
import dataclasses, importlib, json, os, sys
pipe, path, names = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
sys.path[:] = path
for name in names:
    try:
        importlib.import_module(name)
    except BaseException:
        pass
import goslings
os.write(pipe, json.dumps(dataclasses.asdict(goslings.patch())).encode())
os._exit(0)
"""
"""Run by an interpreter of its own."""


def _patch(modules: Sequence[str], problems: list[Problem]) -> dict[str, Any]:
    """What `goslings.patch` would do, called after these modules were imported."""
    report = _run_child(PATCH_AFTER_IMPORTS, modules)
    if report is None:
        problems.append(Problem("goslings.patch() fails in a fresh interpreter", "please report this"))
        return {"patched": {}, "too_early": [], "not_patched": {}}
    found: dict[str, Any] = {key: report[key] for key in ("patched", "too_early", "not_patched")}
    return found


def _run_child(code: str, modules: Sequence[str]) -> Any:
    """What this program writes into the pipe that it is given, from JSON; None if that is nothing."""
    reading, writing = os.pipe()
    with open(reading, "rb") as answers:
        try:
            subprocess.run(
                [sys.executable, "-c", code, str(writing), json.dumps(sys.path), *modules],
                pass_fds=[writing],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=IMPORT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
        finally:
            os.close(writing)
        said = answers.read()
    return json.loads(said) if said else None


def _workers() -> dict[str, Any]:
    """How many workers, and why so many."""
    usable, quota = os.process_cpu_count() or 1, _runtime.cpu_quota()
    if os.environ.get("GOSLINGS_PROCS"):
        why = "GOSLINGS_PROCS says so"
    elif not _runtime.free_threaded():
        why = "with the GIL one goroutine runs at a time"
    elif quota is not None and quota < usable:
        why = "the container's CPU quota"
    else:
        why = "the CPUs that this process may use"
    return {"procs": gomaxprocs(), "why": why, "cpus": os.cpu_count(), "usable_cpus": usable, "quota": quota}


def _setting(name: str) -> int | None:
    try:
        with open(f"/proc/sys/vm/{name}", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _kernel() -> dict[str, Any]:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return {
        "system": platform.system(),
        "release": platform.release(),
        **_goslings._kernel(),
        "preemption": _goslings._can_preempt(),
        "max_map_count": _setting("max_map_count"),
        "overcommit_memory": _setting("overcommit_memory"),
        "address_space_limit": None if limit == resource.RLIM_INFINITY else limit,
    }


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _self_test(problems: list[Problem]) -> dict[str, Any]:
    """Starts a thousand goroutines, then measures a round trip between two."""
    try:
        started = time.perf_counter()
        sums = [go(sum, range(n)) for n in range(GOROUTINES)]
        right = all(goroutine.result(SELF_TEST_SECONDS) == n * (n - 1) // 2 for n, goroutine in enumerate(sums))
        spawned = time.perf_counter() - started
        if not right:
            raise AssertionError("a goroutine gave a wrong result")
        # The fastest of some: the two may meet on one worker, or have to wake another each time.
        round_trip = min(go(_ping, ROUNDS).result(SELF_TEST_SECONDS) for _ in range(TIMES))
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
        problems.append(Problem(f"the self-test failed: {failure}", "please report this, with all of the above"))
        return {"passed": False, "failure": failure}
    return {
        "passed": True,
        "goroutines": GOROUTINES,
        "goroutines_ms": round(1e3 * spawned, 3),
        "round_trip_ns": round(1e9 * round_trip),
    }


def _ping(rounds: int) -> float:
    """The seconds of a round trip over two unbuffered channels."""
    there: chan[int] = chan()
    back: chan[int] = chan()

    def pong() -> None:
        for value in there:
            back.send(value)

    go(pong)
    with there:
        started = time.perf_counter()
        for value in range(rounds):
            there.send(value)
            if back.recv() != value:
                raise AssertionError("a value came back changed")
        return (time.perf_counter() - started) / rounds


def _text(findings: dict[str, Any]) -> str:
    python, workers, kernel, test = (findings[key] for key in ("python", "workers", "kernel", "self_test"))
    kind = "free-threaded" if python["free_threaded_build"] else "GIL"
    quota = "no quota" if workers["quota"] is None else f"quota {workers['quota']:g}"
    rows = [
        ("goslings", f"{findings['goslings']['version']}, {findings['goslings']['module']}"),
        ("python", f"{python['implementation']} {python['version']}, {kind} build, {python['executable']}"),
        ("GIL", f"{'on' if python['gil'] else 'off'}: {python['gil_why']}"),
        ("workers", f"{workers['procs']}: {workers['why']}"),
        ("CPUs", f"{workers['cpus']}, of which usable {workers['usable_cpus']}, {quota}"),
        ("stacks", _stacks(kernel)),
        ("kernel", _kernel_text(kernel)),
    ]
    packages = ", ".join(f"{name} {version}" for name, version in findings["packages"].items())
    rows.append(("packages", packages or f"none of {', '.join(PACKAGES)}"))
    variables = ", ".join(f"{name}={value}" for name, value in findings["environment"].items())
    rows.append(("environment", variables or f"none of {', '.join(VARIABLES)}"))
    rows += [("import", _import_text(imported)) for imported in findings["imports"]]
    rows += _patch_rows(findings["patch"])
    if test["passed"]:
        rows.append(("self-test", f"{test['goroutines']} goroutines in {test['goroutines_ms']:.1f} ms"))
        rows.append(("", f"{test['round_trip_ns']} ns for a round trip over two unbuffered channels"))
    else:
        rows.append(("self-test", f"failed: {test['failure']}"))
    lines = [f"{name:12} {text}".rstrip() for name, text in rows]
    for problem in findings["problems"]:
        lines += ["", f"problem: {problem['what']}", f"what to do: {problem['do']}"]
    if not findings["problems"]:
        lines += ["", "all is well"]
        if not python["free_threaded_build"]:
            lines[-1] += "; goroutines take turns on one core: a free-threaded build (python3.14t) runs them on all"
    return "\n".join(lines)


def _patch_rows(patch: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("patch()", f"changes {', '.join(patch['patched']) or 'nothing'}; `goslings run --patch` calls it")]
    rows += [("", f"would come too early: {what}") for what in patch["too_early"]]
    return rows


def _stacks(kernel: dict[str, Any]) -> str:
    text = f"{kernel['stack_bytes'] // 1024} KiB of address space for each goroutine"
    if kernel["guard_by_advice"]:
        return f"{text}, guarded by MADV_GUARD_INSTALL"
    if kernel["guard_by_advice"] is None:
        return text
    most = kernel["max_map_count"]
    limit = f"; vm.max_map_count allows about {most // 2} of them" if most else ""
    return f"{text}, guarded by mprotect{limit}"


def _kernel_text(kernel: dict[str, Any]) -> str:
    text = f"{kernel['system']} {kernel['release']}"
    for setting in ("max_map_count", "overcommit_memory"):
        if kernel[setting] is not None:
            text += f", vm.{setting} {kernel[setting]}"
    if kernel["address_space_limit"] is not None:
        text += f", at most {kernel['address_space_limit'] // 2**20} MiB of address space (ulimit -v)"
    if not kernel["preemption"]:
        text += "; no preemption: other tools have the numbers 3 and 4 of sys.monitoring"
    return text


def _import_text(imported: dict[str, Any]) -> str:
    if imported["failure"] is not None:
        return f"{imported['module']}: cannot be imported"
    if not _free_threaded_build():
        return f"{imported['module']}: can be imported; this build has the GIL in any case"
    if imported["enabled_by"] is None:
        return f"{imported['module']}: leaves the GIL off"
    return f"{imported['module']}: turns the GIL on, by {imported['enabled_by']}"
