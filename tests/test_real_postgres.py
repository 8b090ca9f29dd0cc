"""PostgreSQL with psycopg (in Python, and compiled where it can be had) and pg8000: 200 goroutines at once on two
workers, and each answer and each error is accounted for."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import real
import servers
from helpers import check_child

BEGIN = """
import os, signal, warnings
import goslings
from goslings import go

N = 200
port, pid, driver = int(os.environ["PORT"]), int(os.environ["SERVER_PID"]), os.environ["DRIVER"]
if driver == "pg8000":
    goslings.patch()
    import pg8000.dbapi
    warnings.simplefilter("ignore", ResourceWarning)  # it does not close all of a connection that is broken
    def connect():
        made = pg8000.dbapi.connect(user="goslings", host="127.0.0.1", port=port, database="postgres")
        made.autocommit = True
        return made
elif driver == "psycopg, imported before":
    import psycopg
    assert psycopg.pq.__impl__ == os.environ["PSYCOPG_IMPL"]
    goslings.patch()
else:
    goslings.patch()
    import psycopg
    assert psycopg.pq.__impl__ == os.environ["PSYCOPG_IMPL"]
if driver != "pg8000":
    def connect():
        return psycopg.connect(user="goslings", host="127.0.0.1", port=port, dbname="postgres", autocommit=True)

goslings.gomaxprocs(2)

def ask(connection, query):
    cursor = connection.cursor()
    cursor.execute(query)
    return cursor.fetchall() if cursor.description else None

def outcomes(goroutines):
    counts = {}
    for goroutine in goroutines:
        try:
            what = goroutine.result(90)
        except Exception as error:
            what = type(error).__name__
        counts[what] = counts.get(what, 0) + 1
    return counts

def close(connection):
    try:
        connection.close()
    except Exception:
        pass  # it is broken

def all_wait_for_the_lock(watch):
    while ask(watch, "select count(*) from pg_locks where locktype = 'advisory' and not granted")[0][0] != N:
        goslings.sleep(0.02)
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with real.database() as place:
        yield place


@pytest.fixture(
    params=["pg8000", "psycopg", "psycopg, imported before", "psycopg compiled", "psycopg compiled, imported before"]
)
def driver(request: pytest.FixtureRequest) -> dict[str, str]:
    """What tells the child which driver to use."""
    name = request.param.split(",")[0]
    if importlib.util.find_spec(name.split()[0]) is None:
        pytest.skip(f"{name} is not installed here")
    if name == "psycopg compiled" and importlib.util.find_spec("psycopg_binary") is None:
        pytest.skip("psycopg-binary is not to be had for this interpreter")
    env = {"DRIVER": request.param.replace(" compiled", ""), "PSYCOPG_IMPL": "binary" if "comp" in name else "python"}
    if name == "psycopg":
        try:
            library = servers.library("libpq.so.5")
        except servers.ServerError as error:
            pytest.skip(f"psycopg needs libpq: {error}")
        if "/" in library:
            env["LD_LIBRARY_PATH"] = str(Path(library).parent)
    return env


def test_real_postgres_answers_200_goroutines(place: Path, driver: dict[str, str]) -> None:
    with real.postgres(place) as server:
        check_child(
            BEGIN
            + """
first = connect()
ask(first, "drop table if exists numbers")
ask(first, "create table numbers (i int, n int)")

def work(i):
    mine = connect()
    try:
        for n in range(5):
            ask(mine, f"insert into numbers values ({i}, {n})")
        if i % 2:
            try:
                ask(mine, "select 1 / 0")
            except Exception as error:
                assert "division by zero" in str(error), error
            else:
                raise AssertionError("no error")
        return ask(mine, f"select sum(n) from numbers where i = {i}")[0][0]
    finally:
        close(mine)

assert outcomes([go(work, i) for i in range(N)]) == {10: N}
assert list(ask(first, "select count(*), count(distinct i), sum(n) from numbers")[0]) == [5 * N, N, 10 * N]
close(first)
""",
            env=server.env | driver,
            seconds=120,
        )


def test_real_postgres_200_goroutines_wait_at_once_and_then_it_dies(place: Path, driver: dict[str, str]) -> None:
    with real.postgres(place) as server:
        check_child(
            BEGIN
            + """
first = connect()
ask(first, "select pg_advisory_lock(1)")
waiting = goslings.WaitGroup()
waiting.add(N)

def work(i):
    mine = connect()
    try:
        ask(mine, "select pg_advisory_lock_shared(1)")
        ask(mine, "select pg_advisory_unlock_shared(1)")
        waiting.done()
        if i % 2:
            ask(mine, "set statement_timeout = 300")
            try:
                ask(mine, "select pg_sleep(300)")
            except Exception as error:
                assert "statement timeout" in str(error), error
            else:
                raise AssertionError("it did not take too long")
            ask(mine, "set statement_timeout = 0")
        ask(mine, "select pg_advisory_lock_shared(2)")
        return "was not interrupted"
    finally:
        close(mine)

workers = [go(work, i) for i in range(N)]
all_wait_for_the_lock(first)
ask(first, "select pg_advisory_lock(2)")
ask(first, "select pg_advisory_unlock(1)")
waiting.wait()
all_wait_for_the_lock(first)
os.kill(pid, signal.SIGQUIT)  # all its processes stop, whatever they do
ended = outcomes(workers)
allowed = {"OperationalError", "AdminShutdown", "InterfaceError", "ProgrammingError", "DatabaseError"}
assert sum(ended.values()) == N and set(ended) <= allowed, ended
close(first)
""",
            env=server.env | driver,
            seconds=120,
        )


def test_real_postgres_that_is_not_there(driver: dict[str, str]) -> None:
    check_child(
        BEGIN
        + """
expected = "InterfaceError" if driver == "pg8000" else "OperationalError"
assert outcomes([go(connect) for _ in range(N)]) == {expected: N}
""",
        env={"PORT": str(real.free_port()), "SERVER_PID": "0"} | driver,
    )
