"""What of the Solidity sources can be covered: statements and branches, found in syntax trees.

The contracts are compiled without the optimizer, so that every instruction still knows its source;
code the optimizer merged would count for places that never ran. A statement is covered once an
instruction that stems from it ran; of an `if`, loop or the like its condition stands for it. A
branch is one outcome of a condition (if, ?:, &&, ||, loops, try, switch cases), so a condition has
two. What the compiler adds by itself (overflow and ABI checks, dispatch) is no branch of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

JUMPI: Final = 0x57
_PUSH1, _PUSH32 = 0x60, 0x7F
_PLAIN: Final = {
    "ExpressionStatement", "VariableDeclarationStatement", "Return", "RevertStatement",
    "EmitStatement", "Break", "Continue", "YulAssignment", "YulVariableDeclaration",
    "YulExpressionStatement", "YulLeave",
}  # fmt: skip
_CONDITION: Final = {
    "IfStatement": "condition", "ForStatement": "condition", "WhileStatement": "condition",
    "DoWhileStatement": "condition", "TryStatement": "externalCall", "YulIf": "condition",
    "YulForLoop": "condition", "YulSwitch": "expression",
}  # fmt: skip
_BRANCHES: Final = (*_CONDITION, "Conditional", "YulCase")

Range = tuple[int, int, int]  # start, length, source id


@dataclass(frozen=True)
class Code:
    """A contract's creation or runtime code: where its instructions stem from."""

    ranges: dict[int, Range]
    jumps: frozenset[int]

    @classmethod
    def of(cls, compiled: dict[str, Any]) -> Code:
        """Of solc's `bytecode` or `deployedBytecode`."""
        code = bytes.fromhex(compiled["object"])
        ranges, jumps = {}, set()
        current = ["0", "0", "-1"]
        for (pc, op), entry in zip(
            _instructions(code), compiled["sourceMap"].split(";"), strict=False
        ):
            given = entry.split(":")[:3]
            current = [new or old for new, old in zip(given, current, strict=False)] + current[
                len(given) :
            ]
            start, length, source = map(int, current)
            ranges[pc] = (start, length, source)
            if op == JUMPI:
                jumps.add(pc)
        return cls(ranges, frozenset(jumps))


@dataclass
class Source:
    """One file: its targets, and what was seen of them."""

    name: str
    text: str
    ident: int
    tree: Any
    reached: set[Range] = field(default_factory=set)  # statements
    outcomes: set[tuple[Range, bool]] = field(default_factory=set)
    # Only what some code was generated for can be covered.
    statements: set[Range] = field(default_factory=set)
    conditions: set[Range] = field(default_factory=set)
    _enclosing: dict[Range, list[Range]] = field(default_factory=dict)

    @cached_property
    def _statements(self) -> list[Range]:
        return [_range(_extent(n)) for n in _nodes(self.tree) if n["nodeType"] in _STATEMENTS]

    @cached_property
    def _conditions(self) -> set[Range]:
        return {_range(node) for node in _nodes(self.tree) if _is_branch(node)}

    def enclosing(self, place: Range) -> list[Range]:
        """The statements that an instruction of `place` stems from."""
        if place not in self._enclosing:
            start, end = place[0], place[0] + place[1]
            self._enclosing[place] = [
                s for s in self._statements if s[0] <= start and end <= s[0] + s[1]
            ]
        return self._enclosing[place]

    def is_condition(self, place: Range) -> bool:
        return place in self._conditions

    def line(self, place: Range) -> int:
        """The line, from 1, that `place` starts on; offsets count bytes."""
        return self.text.encode()[: place[0]].count(b"\n") + 1


_STATEMENTS: Final = frozenset(_PLAIN | _CONDITION.keys())


def _instructions(code: bytes) -> Iterator[tuple[int, int]]:
    pc = 0
    while pc < len(code):
        op = code[pc]
        yield pc, op
        pc += 1 + (op - _PUSH1 + 1 if _PUSH1 <= op <= _PUSH32 else 0)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, list):
        for item in tree:
            yield from _nodes(item)
    elif isinstance(tree, dict):
        if "nodeType" in tree:
            yield tree
        for item in tree.values():
            yield from _nodes(item)


def _is_branch(node: dict[str, Any]) -> bool:
    kind = node["nodeType"]
    return kind in _BRANCHES or (kind == "BinaryOperation" and node["operator"] in ("&&", "||"))


def _extent(node: dict[str, Any]) -> dict[str, Any]:
    return node.get(_CONDITION.get(node["nodeType"], "")) or node


def _range(node: dict[str, Any]) -> Range:
    start, length, source = map(int, node["src"].split(":"))
    return start, length, source
