#!/usr/bin/env python3
"""Find the servers and programs that tests of real software need, or fetch them from Debian.

A program is looked for on PATH and where Debian keeps it. If it is not there, its packages are downloaded with
`apt-get download`, from the mirrors that this machine trusts, and unpacked into a cache folder; nothing is installed,
and no other user is needed. This is done once. `python tools/servers.py` brings everything into the cache and says
where it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from build_cpython import say


class Program(NamedTuple):
    """A program that can be started."""

    path: str
    env: dict[str, str]
    """What its environment needs beyond ours."""


class ServerError(Exception):
    """A program cannot be had; the message says why."""


# program: (Debian package, where else to look; the newest last)
PROGRAMS = {
    "redis-server": ("redis-server", ()),
    "postgres": ("postgresql", ("usr/lib/postgresql/*/bin",)),
    "initdb": ("postgresql", ("usr/lib/postgresql/*/bin",)),
    "dnsmasq": ("dnsmasq-base", ("usr/sbin",)),
    "openssl": ("openssl", ()),
}
LIBRARIES = {"libpq.so.5": "libpq5"}

# Whatever else differs, the loader and the C library belong together.
NEVER_UNPACKED = {"libc6", "libc-bin", "base-files"}


def cache_dir() -> Path:
    """Where unpacked packages live. PostgreSQL does not run as root, and others cannot enter root's home."""
    if os.geteuid() == 0:
        return Path("/var/cache/goslings/servers")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "goslings" / "servers"


def program(name: str) -> Program:
    """A program by its name. Raises ServerError if it cannot be had."""
    package, places = PROGRAMS[name]
    found = look(name, places, Path("/"))
    if found:
        return Program(found, {})
    root = unpacked(package)
    found = look(name, (*places, "usr/bin", "usr/sbin"), root)
    if not found:
        raise ServerError(f"the Debian package {package} has no {name}")
    folders = library_folders(root)
    return Program(found, {"LD_LIBRARY_PATH": ":".join(folders)} if folders else {})


def library(name: str) -> str:
    """The path of a shared library, or just its name if the loader finds it. Raises ServerError."""
    listed = subprocess.run(
        ["/sbin/ldconfig", "-p"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    if name in listed.stdout:
        return name
    for folder in library_folders(unpacked(LIBRARIES[name])):
        if os.path.exists(os.path.join(folder, name)):
            return os.path.join(folder, name)
    raise ServerError(f"the Debian package {LIBRARIES[name]} has no {name}")


def look(name: str, places: tuple[str, ...], root: Path) -> str | None:
    """A program on PATH, if `root` is the machine's, or in `places` below it."""
    if root == Path("/"):
        on_path = shutil.which(name)
        if on_path:
            return on_path

    def version(path: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", path[len(str(root)) :])]

    for place in places:
        paths = sorted(glob.glob(str(root / place / name)), key=version)
        if paths:
            return paths[-1]
    return None


def library_folders(root: Path) -> list[str]:
    """The folders below `root` that have shared libraries."""
    return sorted(
        {os.path.dirname(path) for path in glob.glob(str(root / "**/lib/**/*.so*"), recursive=True)}
    )


def unpacked(package: str) -> Path:
    """The folder of an unpacked package and of what it needs, fetched first if need be."""
    cache = cache_dir()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServerError(f"there is no {package} here, and no room for it: {error}") from None
    root = cache / package
    if root.is_dir():
        return root
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise ServerError(f"there is no {package} here, and no {tool} to fetch it with")
    with locked(cache / f".{package}.lock"):
        if root.is_dir():
            return root
        say(f"fetching {package} from Debian into {root}: once")
        work = Path(tempfile.mkdtemp(prefix=".work-", dir=str(cache)))
        try:
            fetch(package, work)
            (work / "root").chmod(0o755)
            (work / "root").rename(root)
        finally:
            shutil.rmtree(str(work), ignore_errors=True)
        say(f"fetched {package}")
        return root


def fetch(package: str, work: Path) -> None:
    """Unpacks a package and what it needs into `work`/root; with the machine's lists, else with new ones."""
    try:
        return fetch_with(["apt-get"], package, work)
    except ServerError:
        pass  # no lists, or old ones
    apt = work / "apt"
    for folder in ("lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True)
    command = ["apt-get"]
    for option in (
        f"Dir::State::lists={apt / 'lists'}",
        f"Dir::Cache={apt / 'cache'}",
        "APT::Sandbox::User=root",  # the folders are ours, and _apt could not enter them
        "Acquire::Languages=none",
        "Acquire::Retries=3",
        "Acquire::http::Timeout=30",
    ):
        command += ["-o", option]
    run([*command, "update", "-o", "APT::Update::Error-Mode=any"], work)
    return fetch_with(command, package, work)


def fetch_with(apt: list[str], package: str, work: Path) -> None:
    shutil.rmtree(str(work / "debs"), ignore_errors=True)
    shutil.rmtree(str(work / "root"), ignore_errors=True)
    (work / "debs").mkdir()
    (work / "root").mkdir()
    plan = run([*apt, "install", "--simulate", "--no-install-recommends", package], work)
    wanted = []
    # Inst NAME [the version that is there] (VERSION where from)
    for name, there, version in re.findall(r"^Inst (\S+) (\[[^]]+\] )?\((\S+)", plan, re.MULTILINE):
        if name not in NEVER_UNPACKED and (not there or name == package):
            wanted.append(f"{name}={version}")
    if not wanted:
        raise ServerError(f"{package} seems to be installed, but it was not found")
    run([*apt, "download", "-o", "APT::Sandbox::User=root", *wanted], work / "debs")
    for deb in sorted((work / "debs").glob("*.deb")):
        run(["dpkg-deb", "-x", str(deb), str(work / "root")], work)


def run(command: list[str], cwd: Path) -> str:
    done = subprocess.run(
        command,
        cwd=str(cwd),
        env=dict(os.environ, LC_ALL="C.UTF-8"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        timeout=300,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ServerError(f"`{command[0]}` failed: {last[0]}")
    return done.stdout


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Two runs at once fetch a package once."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def ensure_all() -> bool:
    """Brings everything here, and says what is not to be had; tests that need it will be skipped."""
    complete = True
    for name in (*PROGRAMS, *LIBRARIES):
        try:
            where = library(name) if name in LIBRARIES else program(name).path
        except (ServerError, OSError, subprocess.SubprocessError) as error:
            where, complete = f"not here: {error}", False
        print(f"{name:14} {where}", flush=True)
    return complete


if __name__ == "__main__":
    sys.exit(0 if ensure_all() else 1)
