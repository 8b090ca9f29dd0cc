"""Real servers for tests, each in a process of its own, and certificates. tools/servers.py says where they are."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

TOOLS = str(Path(__file__).resolve().parent.parent / "tools")
sys.path.insert(0, TOOLS)
try:
    import servers
finally:  # there is a `test` there that is not the interpreter's
    sys.path[:] = [path for path in sys.path if path != TOOLS]

SECONDS = 60.0
"""How long a server may take to answer."""


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    port: int
    pid: int

    @property
    def env(self) -> dict[str, str]:
        """What a child needs to know of it."""
        return {"PORT": str(self.port), "SERVER_PID": str(self.pid)}


def program(name: str) -> servers.Program:
    """A program, or the test is skipped, with the reason."""
    try:
        return servers.program(name)
    except (servers.ServerError, OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"{name} cannot be had here: {error}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder that other users may enter."""
    path = Path(tempfile.mkdtemp(prefix="goslings-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def started(
    found: servers.Program, arguments: list[str], port: int, log: Path, user: str | None = None
) -> Iterator[Server]:
    """Starts a server, waits until its port answers, and kills it in the end, whatever was done to it."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [found.path, *arguments],
            env={**os.environ, **found.env},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            start_new_session=True,
            **as_user(user),  # type: ignore[call-overload]
        )
    try:
        deadline = time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{found.path} does not answer:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.02)
        yield Server(port, process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def as_user(name: str | None) -> dict[str, object]:
    """Arguments of Popen that start a process as another user, if we are root."""
    if name is None or os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(name)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def redis() -> Iterator[Server]:
    """A Redis server that keeps nothing."""
    found, port = program("redis-server"), free_port()
    with folder() as place:
        arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with started(found, [*arguments, "--dir", str(place)], port, place / "log") as server:
            yield server


@contextlib.contextmanager
def database() -> Iterator[Path]:
    """The folder of a new PostgreSQL database, whose superuser is `goslings`, without a password."""
    found = program("initdb")
    with folder() as place:
        if os.geteuid() == 0:
            os.chown(place, pwd.getpwnam("nobody").pw_uid, -1)
        done = subprocess.run(
            [found.path, "-D", str(place / "data"), "-U", "goslings", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"],
            env={**os.environ, **found.env},
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **as_user("nobody"),  # type: ignore[call-overload]
        )
        assert done.returncode == 0, done.stdout
        yield place


@contextlib.contextmanager
def postgres(place: Path) -> Iterator[Server]:
    """A PostgreSQL server for that folder; one at a time."""
    found, port = program("postgres"), free_port()
    (place / "data" / "postmaster.pid").unlink(missing_ok=True)
    settings = {
        "max_connections": "230",
        "shared_buffers": "16MB",
        "fsync": "off",
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "autovacuum": "off",
    }
    arguments = ["-D", str(place / "data"), "-p", str(port)]
    for name, value in settings.items():
        arguments += ["-c", f"{name}={value}"]
    with started(found, arguments, port, place.parent / f"{place.name}.log", "nobody") as server:
        yield server


@contextlib.contextmanager
def dns(hosts: dict[str, str]) -> Iterator[Server]:
    """A name server that knows these hosts, and says of others that there is no such name."""
    found, port = program("dnsmasq"), free_port()
    with folder() as place:
        conf = place / "conf"
        conf.write_text("".join(f"host-record={name},{address}\n" for name, address in hosts.items()))
        arguments = ["--no-daemon", f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv"]
        arguments += ["--no-hosts", "--local=/test/", f"--conf-file={conf}", f"--pid-file={place / 'pid'}"]
        arguments += [
            f"--user={pwd.getpwuid(os.geteuid()).pw_name}",
            "--dns-forward-max=1000",
            "--max-tcp-connections=200",
        ]
        with started(found, arguments, port, place / "log") as server:
            yield server


@contextlib.contextmanager
def certificates() -> Iterator[dict[str, str]]:
    """A certificate authority of our own, and a server's certificate for localhost: CA, CERT and KEY are files."""
    found = program("openssl")
    with folder() as place:

        def openssl(*arguments: str) -> None:
            done = subprocess.run(
                [found.path, *arguments],
                env={**os.environ, **found.env},
                cwd=place,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert done.returncode == 0, done.stdout

        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
        (place / "conf").write_text(
            "[req]\ndistinguished_name = name\n[name]\n"
            "[ca]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign, cRLSign\n"
            "subjectKeyIdentifier = hash\n"
            "[server]\nsubjectAltName = DNS:localhost, IP:127.0.0.1\nbasicConstraints = critical, CA:FALSE\n"
            "subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n"
        )
        conf = ["-config", "conf", "-days", "30"]
        authority = ["-subj", "/CN=goslings test CA", "-extensions", "ca"]
        openssl("req", "-x509", *key, *conf, *authority, "-keyout", "ca.key", "-out", "ca.pem")
        openssl("req", *key, "-config", "conf", "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "request.pem")
        issuer = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
        extensions = ["-extfile", "conf", "-extensions", "server"]
        openssl("x509", "-req", "-in", "request.pem", *issuer, "-days", "30", *extensions, "-out", "cert.pem")
        yield {name: str(place / file) for name, file in (("CA", "ca.pem"), ("CERT", "cert.pem"), ("KEY", "key.pem"))}
