#!/usr/bin/env python3
"""Build CPython 3.13 from Debian's source package, once, into the user's cache.

Used by tools/interpreters.py when a machine has no free-threaded (or no GIL) interpreter that
goslings supports. The tarball is CPython's own release, which Debian ships unchanged; apt checks
its signature and checksum. A private apt configuration is used, so that this works for any user
and changes nothing of the machine's.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

SUITE = "trixie"  # Debian 13: the release whose Python is 3.13
PACKAGE = "python3.13"
FALLBACK_MIRROR = "http://deb.debian.org/debian"  # signed by the keyring, so http will do
KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
)
BUILDABLE = ("3.13t", "3.13")

# (header, Debian package, must the finished interpreter have it?)
HEADERS = (
    ("zlib.h", "zlib1g-dev", True),
    ("openssl/ssl.h", "libssl-dev", True),
    ("sqlite3.h", "libsqlite3-dev", True),
    ("ffi.h", "libffi-dev", True),
    ("bzlib.h", "libbz2-dev", False),
    ("lzma.h", "liblzma-dev", False),
)
REQUIRED_MODULES = "zlib, ssl, sqlite3, ctypes"
NO_WAY_OUT = (
    "install a free-threaded and a GIL build of CPython 3.13 or 3.14 yourself (python.org, pyenv "
    "or uv have them) and name them: GOSLINGS_PYTHONS=/path/python3.14t:/path/python3.14 make test"
)


class BuildError(Exception):
    """The interpreter could not be built; the message says what to do."""


def cache_dir() -> Path:
    """Where built interpreters live."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "goslings" / "pythons"


def cached(tag: str) -> list[Path]:
    """Interpreters built earlier for this tag, newest first."""

    def version(path: Path) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", path.parent.parent.name.split("-", 1)[1])]

    return sorted(cache_dir().glob(f"{tag}-*/bin/python{tag}"), key=version, reverse=True)


def build(tag: str) -> Path:
    """Return the cached interpreter for `tag`, building it first if need be."""
    if tag not in BUILDABLE:
        raise BuildError(f"{tag} cannot be built here (only {' and '.join(BUILDABLE)} can): {NO_WAY_OUT}")
    root = cache_dir()
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / f".{tag}.lock", tag):
        ready = cached(tag)  # another make may have built it while we waited
        if ready:
            return ready[0]
        for stale in root.glob(f".build-{tag}-*"):  # ours alone: we hold the lock
            shutil.rmtree(stale, ignore_errors=True)
        check_tools()
        work = Path(tempfile.mkdtemp(prefix=f".build-{tag}-", dir=str(root)))
        log = root / f"build-{tag}.log"
        try:
            with Progress(f"building CPython {tag}", log) as progress:
                return build_in(work, tag, progress)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def build_in(work: Path, tag: str, progress: Progress) -> Path:
    """Fetch, compile and install inside `work`; the last step is one rename into the cache."""
    progress.stage("fetching the source")
    tarball = fetch_source(work, progress)
    found = re.search(r"_([0-9.]+)\.orig", tarball.name)
    if not found:
        raise BuildError(f"unexpected source file {tarball.name}")
    version = found.group(1)
    final = cache_dir() / f"{tag}-{version}"

    progress.stage(f"unpacking {version}")
    with tarfile.open(str(tarball)) as archive:
        if hasattr(tarfile, "data_filter"):  # Python 3.12, and security releases of older ones
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(str(work / "src"))
    (source,) = (path for path in (work / "src").iterdir() if path.is_dir())

    # MAKEFLAGS and friends come from the make that called us and would leak its jobs and options.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "PYTHON", "DESTDIR"))}
    # configure would otherwise take the first `python3.13` on PATH, which may be a dead shim.
    env.update(LC_ALL="C.UTF-8", PYTHON_FOR_REGEN=sys.executable)
    configure = ["./configure", f"--prefix={final}", "--without-ensurepip", "--disable-test-modules"]
    if tag.endswith("t"):
        configure.append("--disable-gil")
    progress.stage("configuring")
    progress.run(configure, cwd=source, env=env)

    plan = subprocess.run(
        ["make", "-n"], cwd=str(source), env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    progress.stage("compiling", plan.stdout.count(b".c\n"))
    progress.run(["make", f"-j{os.cpu_count() or 1}"], cwd=source, env=env)
    progress.stage("installing")
    progress.run(["make", "altinstall", f"DESTDIR={work / 'root'}"], cwd=source, env=env)

    staged = work / "root" / final.relative_to("/")
    check = subprocess.run(
        [str(staged / "bin" / f"python{tag}"), "-I", "-c", f"import {REQUIRED_MODULES}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if check.returncode != 0:
        raise BuildError(
            f"the new interpreter lacks a module:\n{check.stdout}install the headers first: apt-get install "
            + " ".join(package for _, package, _ in HEADERS)
        )
    libraries = list(staged.rglob("libpython*.a"))  # 75 MB each, and the same file twice
    for copy in libraries[1:]:
        copy.unlink()
        os.link(str(libraries[0]), str(copy))
    os.rename(str(staged), str(final))
    progress.done(f"{final}")
    return final / "bin" / f"python{tag}"


def check_tools() -> None:
    """Refuse early, with the command that helps, rather than after minutes of compiling."""
    if not shutil.which("apt-get"):
        raise BuildError(
            "this machine has no apt-get, so CPython's source cannot be had this way: " + NO_WAY_OUT
        )
    missing = []
    if not compiler():
        missing.append("gcc")
    if not shutil.which("make"):
        missing.append("make")
    required = list(missing)
    for header, package, needed in HEADERS:
        if not compiler() or not has_header(header):
            missing.append(package)
            if needed:
                required.append(package)
    keyring = any(os.path.exists(path) for path in KEYRINGS)
    if not keyring:
        missing.append("debian-archive-keyring")
        required.append("debian-archive-keyring")
    if not missing:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() == 0:
        say("installing what the build needs: " + " ".join(command))
        env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        subprocess.run(["apt-get", "update", "-q"], env=env, check=False, **quiet)  # type: ignore[call-overload]
        if subprocess.run(command, env=env, check=False, **quiet).returncode == 0:  # type: ignore[call-overload]
            return
    if required:
        raise BuildError(
            f"building CPython needs {' '.join(required)}: run `sudo {' '.join(command)}`, or " + NO_WAY_OUT
        )
    say(f"building without {' '.join(missing)} (some modules of the standard library will be missing)")


def compiler() -> str | None:
    return os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def has_header(header: str) -> bool:
    done = subprocess.run(
        [*(compiler() or "cc").split(), "-E", "-x", "c", "-"],
        input=f"#include <{header}>\n".encode(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return done.returncode == 0


def mirrors() -> list[str]:
    """The Debian mirrors of the machine's own apt configuration, then the general one."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ).stdout.split()
    own = [site.rstrip("/") for site in listed if site.rstrip("/").endswith("/debian")]
    return list(dict.fromkeys([*own, FALLBACK_MIRROR]))


def fetch_source(work: Path, progress: Progress) -> Path:
    """Download CPython's tarball with a private apt configuration; return its path."""
    keyring = next((path for path in KEYRINGS if os.path.exists(path)), None)
    apt = work / "apt"
    for folder in ("parts", "lists/partial", "cache/archives/partial", "download"):
        (apt / folder).mkdir(parents=True)
    command = ["apt-get"]
    for option in (
        f"Dir::Etc::sourcelist={apt / 'sources.list'}",
        f"Dir::Etc::sourceparts={apt / 'parts'}",
        f"Dir::State::lists={apt / 'lists'}",
        f"Dir::Cache={apt / 'cache'}",
        "APT::Sandbox::User=root",  # the folders are ours, and _apt could not enter them
        "Acquire::Languages=none",
        "Acquire::Retries=3",
        "Acquire::http::Timeout=30",
    ):
        command += ["-o", option]
    last: BuildError | None = None
    for mirror in mirrors():
        (apt / "sources.list").write_text(f"deb-src [signed-by={keyring}] {mirror} {SUITE} main\n")
        try:
            # Error-Mode=any: without it a mirror that cannot be reached is only a warning.
            progress.run([*command, "update", "-o", "APT::Update::Error-Mode=any"], cwd=apt)
            progress.run([*command, "source", "--download-only", PACKAGE], cwd=apt / "download")
        except BuildError as error:
            last = error
            continue
        tarballs = [p for p in (apt / "download").glob("*.orig.tar.*") if p.suffix != ".asc"]
        if tarballs:
            return tarballs[0]
    raise BuildError(
        f"could not download the source package {PACKAGE} of Debian {SUITE}; {NO_WAY_OUT}\n{last or ''}"
    )


class Progress:
    """A live line on a terminal, else a line now and then; everything else goes to the log."""

    QUIET_SECONDS = 30.0

    def __init__(self, title: str, log: Path) -> None:
        self.title = title
        self.path = log
        self.live = sys.stderr.isatty()
        self.started = self.printed = time.monotonic()
        self.what = ""
        self.total = self.count = 0

    def __enter__(self) -> Progress:
        self.log = self.path.open("w", errors="replace")
        say(f"{self.title}: once, a few minutes; log in {self.path}")
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close()
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def stage(self, what: str, total: int = 0) -> None:
        self.what, self.total, self.count = what, total, 0
        self.show(force=True)

    def show(self, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self.printed < (0.1 if self.live else self.QUIET_SECONDS):
            return
        self.printed = now
        share = f" {min(99, 100 * self.count // self.total)} %" if self.total and self.count else ""
        minutes, seconds = divmod(int(now - self.started), 60)
        line = f"{self.title}: {self.what}{share} ({minutes}:{seconds:02d})"
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{line[:width]}", end="", file=sys.stderr, flush=True)
        else:
            say(line)

    def run(self, command: list[str], cwd: Path, env: dict[str, str] | None = None) -> None:
        """Run to the end; on failure raise with the last lines of the output."""
        tail: list[str] = []
        with subprocess.Popen(
            command,
            cwd=str(cwd),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                self.log.write(line)
                tail = [*tail[-14:], line]
                self.count += line.endswith(".c\n")
                self.show()
        self.log.flush()
        if process.returncode != 0:
            raise BuildError(f"`{command[0]}` failed while {self.what}; log in {self.path}\n{''.join(tail)}")

    def done(self, what: str) -> None:
        self.stage("done")
        if self.live:
            print(file=sys.stderr)
        say(what)


@contextlib.contextmanager
def locked(path: Path, tag: str) -> Iterator[None]:
    """Hold the lock file; two makes at once then build one after the other, the second for free."""
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is building CPython {tag}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fail(text: str) -> NoReturn:
    say(f"error: {text}")
    raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tag", choices=BUILDABLE, help="3.13t is the free-threaded build")
    tag = parser.parse_args().tag
    try:
        print(build(tag))
    except BuildError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; nothing was left behind")


if __name__ == "__main__":
    main()
