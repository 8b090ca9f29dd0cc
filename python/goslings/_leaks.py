"""leaks: goroutines that wait for what can never come, since nobody else can reach it."""

from __future__ import annotations

import dis
import gc
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import CodeType
from typing import Any

from goslings import _goslings
from goslings._stacks import GoroutineStack, stacks

__all__ = ["leaks"]


def leaks() -> list[GoroutineStack]:
    """The goroutines that nobody can ever wake: they wait, without a time limit, on what nothing else can reach.

    Collects garbage first (`gc.collect`). Each is as in `stacks`, its state with the mark "(leaked)". What is reported
    is lost for certain, unless somebody cancels it: that a handle is kept does not save a goroutine. Goroutines with a
    stack and async ones are looked at alike. Not every lost one is found: what an extension module, a weak reference or
    the goroutine's own C stack may hold counts as reachable, so does what a plain function waits for that has returned
    a coroutine, and on 3.13 what a `with` or a call with `*` waits on, but not in async goroutines. All
    threads are stopped meanwhile, the longer the more objects there are: meant for tests, and for programs that grow.
    Go: the goroutineleak profile.
    """
    gc.collect()
    depths = dict(_depths()) if sys.version_info < (3, 14) else {}
    objects = gc.get_objects()
    lost = set(_goslings._leaks(objects, depths))
    del objects
    return [replace(one, state=f"{one.state} (leaked)") for one in stacks() if one.id in lost] if lost else []


def _depths() -> Iterator[tuple[int, list[int]]]:
    """How deep the evaluation stacks of the goroutines' frames are, innermost first: 3.13 does not tell.

    -1 if that is not known, or if there may be something on it that is no object any more.
    """
    known: dict[CodeType, dict[int, int]] = {}
    goroutines: list[dict[str, Any]] = _goslings._stacks()[0]
    for one in goroutines:
        depths = []
        for code, offset in one["frames"]:
            if code not in known:
                known[code] = _stack_depths(code)
            depths.append(known[code].get(offset, -1))
        yield one["id"], depths


def _stack_depths(code: CodeType) -> dict[int, int]:
    """The depth of the evaluation stack during each call and each step of a loop, by the instruction's offset."""
    instructions = {one.offset: one for one in dis.get_instructions(code)}
    following = dict(zip(instructions, [*instructions][1:], strict=False))
    # Not public, and so unknown to the types; there in every version that the compiled part accepts.
    handlers: list[Any] = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    depths: dict[int, int] = {}
    calls: dict[int, int] = {}
    todo = [(0, 0), *((one.target, one.depth + 1 + one.lasti) for one in handlers)]
    while todo:
        offset, depth = todo.pop()
        if offset in depths or offset not in instructions:
            continue
        depths[offset] = depth
        one = instructions[offset]
        if one.opname in ("CALL", "CALL_KW", "FOR_ITER"):
            calls[offset] = depth
        elif one.opname == "CALL_FUNCTION_EX":
            # What it makes of the arguments is not on the stack, and what was there may be gone.
            calls[offset] = depth - 1 - ((one.arg or 0) & 1)
        arg = one.arg if one.opcode >= dis.HAVE_ARGUMENT else None
        if one.jump_target is not None:
            todo.append((one.jump_target, depth + dis.stack_effect(one.opcode, arg, jump=True)))
        if one.opname not in _NO_WAY_ON and offset in following:
            todo.append((following[offset], depth + dis.stack_effect(one.opcode, arg, jump=False)))
    return calls


_NO_WAY_ON = {
    *("RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE"),
    *("JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT"),
}
