#!/usr/bin/env python3
"""Make a virtual environment per interpreter and build goslings into it.

For each interpreter (see tools/interpreters.py) this makes .venvs/TAG, installs maturin and the
dependency groups asked for from pyproject.toml, and builds the extension module in release mode,
installed so that changes of the Python files take effect at once. Nothing is done twice: a run in
which nothing changed takes about a second.

A group named NAME-optional is installed along with NAME, one requirement at a time: those that
cannot be had for an interpreter are named and passed over. Everything else must install.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from build_cpython import fail, say
from interpreters import KINDS, Interpreter, ensure, tags_argument

ROOT = Path(__file__).resolve().parent.parent
VENVS = ROOT / ".venvs"
OPTIONAL_SECONDS = 600  # for one optional requirement, should it have to be compiled

# Run by the new environment's Python, which has tomllib; ours may not.
READ_PYPROJECT = r"""
import json, tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)
groups = project.get("dependency-groups", {})
def requirements(group):
    for entry in groups[group]:
        if isinstance(entry, str):
            yield entry
        else:
            yield from requirements(entry["include-group"])
print(json.dumps({
    "build": project["build-system"]["requires"],
    "groups": {group: list(requirements(group)) for group in groups},
}))
"""


class Venv(NamedTuple):
    """A ready environment."""

    tag: str
    python: str


def venv_python(tag: str) -> Path:
    return VENVS / tag / "bin" / "python"


def prepare(interpreter: Interpreter, groups: list[str]) -> Venv:
    """Bring one environment up to date."""
    folder = VENVS / interpreter.tag
    stamp = Stamp(folder / "goslings.json")
    python = str(venv_python(interpreter.tag))
    identity = f"{interpreter.executable} {interpreter.version}"
    if stamp.get("interpreter") != identity or not os.path.exists(python):
        say(f"{interpreter.tag}: making {folder.relative_to(ROOT)}")
        shutil.rmtree(str(folder), ignore_errors=True)
        run(
            [interpreter.executable, "-m", "venv", str(folder)],
            f"could not make {folder}; is its venv module complete?",
        )
        # pip knows --group from 25.1 on.
        run([python, "-m", "pip", "install", "-q", "--upgrade", "pip>=25.1"], "could not upgrade pip")
        stamp.clear()
        stamp.set("interpreter", identity)
    install_dependencies(interpreter.tag, python, groups, stamp)
    build_extension(interpreter.tag, python, stamp)
    return Venv(interpreter.tag, python)


def install_dependencies(tag: str, python: str, groups: list[str], stamp: Stamp) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    fingerprint = hashlib.sha256(dependency_sections(text).encode()).hexdigest()
    # A changed pyproject.toml makes every group stale, not only the ones asked for now.
    done: set[str] = set(stamp.get("groups", []) if stamp.get("dependencies") == fingerprint else [])
    if stamp.get("dependencies") == fingerprint and done.issuperset(groups):
        return
    groups = [group for group in groups if group not in done]
    facts = json.loads(
        subprocess.run(
            [python, "-c", READ_PYPROJECT], cwd=str(ROOT), stdout=subprocess.PIPE, check=True
        ).stdout
    )
    known = facts["groups"]
    for group in groups:
        if group not in known:
            fail(f"pyproject.toml has no dependency group {group!r}")
    say(f"{tag}: installing {', '.join(['maturin', *groups])}")
    pip = [python, "-m", "pip", "install", "-q", "--prefer-binary", "--disable-pip-version-check"]
    asked = [option for group in groups for option in ("--group", group)]
    run([*pip, *facts["build"], *asked], f"{tag}: could not install the dependencies")
    for group in groups:
        for requirement in known.get(f"{group}-optional", []):
            if not install_optional([*pip, requirement]):
                say(f"{tag}: {requirement} cannot be had here; going on without it")
    stamp.set("dependencies", fingerprint)
    stamp.set("groups", sorted(done.union(groups)))


def dependency_sections(text: str) -> str:
    """The parts of pyproject.toml that say what to install."""
    kept, keep = [], False
    for line in text.splitlines():
        if line.startswith("["):
            keep = line.strip() in (
                "[project]",
                "[dependency-groups]",
                "[build-system]",
                "[project.optional-dependencies]",
            )
        if keep:
            kept.append(line)
    return "\n".join(kept)


def install_optional(command: list[str]) -> bool:
    try:
        done = subprocess.run(
            command,
            cwd=str(ROOT),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=OPTIONAL_SECONDS,
        )
        return done.returncode == 0
    except subprocess.TimeoutExpired:
        return False


def build_extension(tag: str, python: str, stamp: Stamp) -> None:
    """Build and install the extension unless no source changed since the last time."""
    fingerprint = source_fingerprint()
    cache_tag = "cpython-" + tag.replace(".", "")  # as in _goslings.cpython-314t-x86_64-linux-gnu.so
    built = any((ROOT / "python" / "goslings").glob(f"_goslings.{cache_tag}-*"))
    if built and stamp.get("sources") == fingerprint:
        return
    if not shutil.which("cargo"):
        fail("building goslings needs a Rust toolchain: https://rustup.rs, or your system's rustc and cargo")
    say(f"{tag}: building goslings")
    bin_dir = os.path.dirname(python)
    env = dict(
        os.environ,
        VIRTUAL_ENV=str(VENVS / tag),
        PATH=bin_dir + os.pathsep + os.environ.get("PATH", ""),
        PYO3_PYTHON=python,
        # One per interpreter: with a common one each switch of interpreter would rebuild PyO3.
        CARGO_TARGET_DIR=str(ROOT / "target" / f"py-{tag}"),
        PIP_DISABLE_PIP_VERSION_CHECK="1",
    )
    env.pop("CONDA_PREFIX", None)  # maturin refuses to choose between the two
    command = [os.path.join(bin_dir, "maturin"), "develop", "--release"]
    if not sys.stderr.isatty():
        command.append("-q")
    run(command, f"{tag}: the build failed", env=env)
    stamp.set("sources", fingerprint)


def source_fingerprint() -> str:
    """Names, sizes and times of all that the extension is built from."""
    files = [
        ROOT / name
        for name in ("Cargo.toml", "Cargo.lock", "pyproject.toml", "rust-toolchain.toml", "README.md")
    ]
    files += [path for path in (ROOT / "crates").rglob("*") if path.is_file()]
    digest = hashlib.sha256(os.environ.get("RUSTFLAGS", "").encode())
    for path in sorted(files):
        with contextlib.suppress(FileNotFoundError):
            facts = path.stat()
            digest.update(f"{path} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


class Stamp:
    """What was done to an environment, kept in a file inside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.facts = json.loads(path.read_text())
        except (OSError, ValueError):
            self.facts = {}

    def get(self, key: str, default: object = None):  # type: ignore[no-untyped-def]
        return self.facts.get(key, default)

    def set(self, key: str, value: object) -> None:
        self.facts[key] = value
        self.path.write_text(json.dumps(self.facts, indent=1))

    def clear(self) -> None:
        self.facts = {}


def run(command: list[str], complaint: str, env: dict[str, str] | None = None) -> None:
    # Our stdout is for the result alone.
    done = subprocess.run(command, cwd=str(ROOT), env=env, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if done.returncode != 0:
        fail(f"{complaint} (`{' '.join(command)}`)")


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Two makes at once must not change the same environment."""
    VENVS.mkdir(exist_ok=True)
    with (VENVS / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another make to finish with .venvs")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Without ARGS prints `tag<TAB>python` lines on stdout, best first, and all else on stderr.",
    )
    parser.add_argument(
        "--only", type=tags_argument, default=[], metavar="TAGS", help="e.g. 3.14t,3.13: these and no others"
    )
    parser.add_argument(
        "--best", choices=KINDS, help="only one interpreter, the best of this kind that can be had"
    )
    parser.add_argument(
        "--group",
        action="append",
        default=[],
        metavar="NAME",
        help="dependency group to install (repeatable)",
    )
    parser.add_argument(
        "args", nargs="*", metavar="ARGS", help="after --: run each environment's python with these arguments"
    )
    options = parser.parse_args()
    say("interpreters:")
    interpreters = ensure(options.only, options.best)
    with locked():
        venvs = [prepare(interpreter, options.group) for interpreter in interpreters]
    if len(venvs) == 1 and options.args:  # in our place, so that signals and the terminal are its own
        os.execv(venvs[0].python, [venvs[0].python, *options.args])
    failed = False
    for venv in venvs:
        if options.args:
            say(f"{venv.tag}: python {' '.join(options.args)}")
            failed |= subprocess.run([venv.python, *options.args]).returncode != 0
        else:
            print(f"{venv.tag}\t{venv.python}")
    sys.exit(failed)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("interrupted")
