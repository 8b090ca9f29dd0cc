"""What is public: each name once, documented, typed as the stub says, and the examples true."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import goslings
import pytest
from goslings import _goslings, _hooks

ROOT = Path(__file__).resolve().parent.parent
STUB = Path(goslings.__file__).parent / "_goslings.pyi"

PUBLIC = {
    *("AtomicInt", "Barrier", "Cancelled", "Case", "Closed", "Cond", "Context", "Deadlock"),
    *("DeadlineExceeded", "Event"),
    *("ExceptHookArgs", "Goroutine", "GoroutineStack", "GoslingsError", "Group", "Map", "Mutex", "Once"),
    *("PatchReport", "Pool"),
    *("RWMutex", "RecvChan", "Selected", "Semaphore", "SendChan", "SingleFlight", "Stats", "Ticker", "Timer"),
    *(
        "WaitGroup",
        "WouldBlock",
        "after",
        "after_func",
        "agosched",
        "aselect",
        "asleep",
        "background",
        "blocking",
        "chan",
        "current",
        "dump",
    ),
    *("excepthook", "go", "goexit", "gomaxprocs", "gosched", "leaks", "lock_os_thread", "num_goroutine"),
    *("once_value", "parmap", "patch", "recv", "unlock_os_thread"),
    *("select", "send", "sleep", "stacks", "stats"),
}
INTERNAL = {
    "Awaitable": "what the methods to be awaited return",
    "Conn": "public in goslings.net",
    "Link": "messages between processes, for goslings.processes",
    "Listener": "public in goslings.net",
    "GoExit": "raised by goexit, for nobody to name",
    "RLock": "threading.RLock after goslings.patch",
    "lock": "threading.Lock after goslings.patch",
    "LoopPort": "what an event loop knows of goslings",
    "ParMap": "what parmap returns",
    "RWMutexSide": "what RWMutex.read and .write return",
    "Segment": "memory of several processes, for goslings.processes",
    "TVar": "public in goslings.stm",
    "TransactionConflict": "leaves a transaction that cannot commit, for nobody to catch",
    "TransactionRetry": "leaves a transaction that waits, for nobody to catch",
}
"""Names that a private module shows to its neighbours, and that are not for users."""

SPECIAL = {"__copy__", "__deepcopy__", "__reduce__"}


def public_names() -> set[str]:
    return {
        name
        for name, value in vars(goslings).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }


def private_modules() -> Iterator[types.ModuleType]:
    for found in pkgutil.iter_modules(goslings.__path__, "goslings."):
        if found.name.startswith("goslings._") and found.name != "goslings.__main__":
            yield importlib.import_module(found.name)


def test_these_names_are_public() -> None:
    assert public_names() == PUBLIC


def test_each_public_name_comes_from_one_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goslings, "excepthook", _hooks.excepthook)  # which the tests replace
    told = Counter(
        name
        for module in private_modules()
        for name in module.__all__
        if getattr(goslings, name, None) is getattr(module, name)
    )
    assert {name for name in told if not name.startswith("_")} == PUBLIC
    assert set(told.values()) == {1}


def test_what_a_private_module_shows_is_public_or_known_to_be_internal() -> None:
    classes = {
        name
        for module in private_modules()
        for name in module.__all__
        if inspect.isclass(getattr(module, name)) and not name.startswith("_")
    }
    assert classes - PUBLIC == set(INTERNAL)


def test_these_modules_are_public() -> None:
    modules = {found.name for found in pkgutil.iter_modules(goslings.__path__)}
    assert {name for name in modules if not name.startswith("_")} == {
        "aio",
        "compat",
        "demo",
        "net",
        "processes",
        "stm",
        "testing",
        "wsgi",
    }


def members(cls: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(cls).items():
        if not name.startswith("_") and (callable(value) or inspect.isdatadescriptor(value)):
            yield name, value


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_each_public_name_is_documented(name: str) -> None:
    value = getattr(goslings, name)
    # A class without a docstring of its own would show its base's; `inspect` would look further.
    assert value.__doc__ and value.__doc__.strip()[-1] in ".`", name
    if inspect.isclass(value):
        for member, what in members(value):
            if isinstance(what, types.MemberDescriptorType):
                continue  # a field of a dataclass or __slots__
            assert inspect.getdoc(what), f"{name}.{member}"


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_each_public_name_knows_its_signature(name: str) -> None:
    value = getattr(goslings, name)
    made = {"Case", "Goroutine", "RecvChan", "Selected", "SendChan"}  # by calls, not by their users
    if name in made:
        with pytest.raises(TypeError, match="create"):
            value()
    elif not (inspect.isclass(value) and issubclass(value, BaseException)):
        inspect.signature(value)
    if inspect.isclass(value):
        for member, what in members(value):
            if callable(what):
                assert inspect.signature(what), f"{name}.{member}"


def test_errors_are_called_by_their_public_name() -> None:
    for name in PUBLIC:
        value = getattr(goslings, name)
        if inspect.isclass(value) and issubclass(value, BaseException):
            assert (value.__module__, value.__qualname__) == ("goslings", name)


def test_the_errors_form_a_tree() -> None:
    assert issubclass(goslings.Closed, goslings.GoslingsError)
    assert issubclass(goslings.WouldBlock, goslings.GoslingsError)
    assert not issubclass(goslings.Cancelled, Exception)


# The stub


def stub_definitions() -> dict[str, list[ast.FunctionDef | ast.ClassDef]]:
    """Dotted name: its definitions in the stub; several for overloads and properties with a setter."""
    found: dict[str, list[ast.FunctionDef | ast.ClassDef]] = {}
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.setdefault(node.name, []).append(node)
        if isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, ast.FunctionDef):
                    found.setdefault(f"{node.name}.{member.name}", []).append(member)
    return found


def runtime(name: str) -> Any:
    value: Any = _goslings
    for part in name.split("."):
        value = inspect.getattr_static(value, part)
    return value.__func__ if isinstance(value, staticmethod) else value


def test_the_stub_tells_the_documentation_of_the_module() -> None:
    told = {
        name: " ".join(doc.split())
        for name, nodes in stub_definitions().items()
        if (doc := next(filter(None, map(ast.get_docstring, nodes)), None))
    }
    real = {
        name: " ".join((inspect.getdoc(runtime(name)) or "").split())
        for name in stub_definitions()
        if not name.rpartition(".")[2].startswith("__") and inspect.getdoc(runtime(name))
    }
    assert told == real


def test_the_stub_leaves_no_name_out() -> None:
    names = set(stub_definitions())
    assert {name for name in names if "." not in name} == set(_goslings.__all__)
    for name in _goslings.__all__:
        value = getattr(_goslings, name)
        if inspect.isclass(value):
            assert {f"{name}.{member}" for member, _ in members(value)} <= names
            assert {f"{name}.{member}" for member in SPECIAL & set(vars(value))} <= names


# Examples


def examples() -> Iterator[Any]:
    for path in sorted([*ROOT.glob("*.md"), ROOT / "docs" / "places.md", ROOT / "docs" / "stm.md"]):
        text = path.read_text(encoding="utf-8")
        if ">>> " in text:
            yield pytest.param(text, id=path.name)
    yield pytest.param(goslings.__doc__, id="goslings.__doc__")


@pytest.mark.parametrize("text", list(examples()))
def test_the_examples_are_true(text: str) -> None:
    lines = []
    for line in text.splitlines():
        fence = line.strip().startswith("```")
        lines.append("" if fence else line)  # so that the line numbers stay
    found = doctest.DocTestParser().get_doctest("\n".join(lines), {"__name__": "example"}, "examples", None, 0)
    said: list[str] = []
    failed = doctest.DocTestRunner(verbose=False).run(found, out=said.append).failed
    assert found.examples and failed == 0, "".join(said)


@pytest.mark.parametrize("name", ["goslings._map", "goslings._once", "goslings._singleflight", "goslings._errors"])
def test_the_examples_in_modules_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_importing_goslings_starts_no_thread_and_little_else() -> None:
    from helpers import check_child

    assert (
        check_child("""
        import sys, threading
        before = set(sys.modules)
        import goslings
        heavy = {"asyncio", "argparse", "json", "multiprocessing", "numpy", "subprocess", "socket", "ssl", "tqdm"}
        print(sorted((set(sys.modules) - before) & heavy), threading.active_count())
        """)
        == "[] 1\n"
    )
