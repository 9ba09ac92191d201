"""pyrevm with its trace read: which instructions of which contract ran, which way they jumped.

pyrevm writes a line of JSON an instruction (EIP-3155) to standard output. Around each call that
descriptor is a file in memory; each line is looked at once and thrown away.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from pyrevm import EVM, CfgEnv, Env

from solidity_coverage.targets import JUMPI

_LINE: Final = re.compile(rb'\{"pc":(\d+),"op":(\d+),')
_DEPTH: Final = re.compile(rb'"depth":(\d+)')
_STACK: Final = re.compile(rb'"stack":\[([^\]]*)\]')
_CALLS: Final = frozenset({0xF1, 0xF2, 0xF4, 0xFA})
_CREATES: Final = frozenset({0xF0, 0xF5})
_STEP_OUT: Final = 1
CODE_BYTES_MAX: Final = 1 << 17

Frame = tuple[str, bool] | None  # contract and whether it is its creation; None: not one of ours


class Seen:
    """Instructions that ran, and outcomes of conditional jumps, by frame."""

    def __init__(self) -> None:
        self.steps: set[tuple[Frame, int]] = set()
        self.jumps: set[tuple[Frame, int, bool]] = set()


class TracedEVM:
    """Stands in for pyrevm.EVM; `identify` names the contract of a code."""

    seen: Seen
    identify: Callable[[bytes, bool], str | None]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # Without the optimizer a contract may be larger than chains take.
        larger = Env(cfg=CfgEnv(limit_contract_code_size=CODE_BYTES_MAX))
        self._evm = EVM(*arguments, **options | {"tracing": True, "env": larger})
        self._frames: dict[str, Frame] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._evm, name)

    def deploy(self, deployer: str, code: bytes, *arguments: Any, **options: Any) -> Any:
        name = type(self).identify(bytes(code), True)
        with self._traced((name, True) if name else None):
            return self._evm.deploy(deployer, code, *arguments, **options)

    def message_call(self, caller: str, to: str, *arguments: Any, **options: Any) -> Any:
        with self._traced(self._frame(to)):
            return self._evm.message_call(caller, to, *arguments, **options)

    def revert(self, *arguments: Any) -> Any:
        self._frames.clear()  # other code may come to an address that is free again
        return self._evm.revert(*arguments)

    def _frame(self, address: str) -> Frame:
        address = address.lower()
        if address not in self._frames:
            code = self._evm.basic(address).code
            name = type(self).identify(bytes(code), False) if code else None
            if name is None:
                return None
            self._frames[address] = (name, False)
        return self._frames[address]

    @contextmanager
    def _traced(self, outermost: Frame) -> Iterator[None]:
        sys.stdout.flush()
        output, kept = os.memfd_create("trace"), os.dup(_STEP_OUT)
        os.dup2(output, _STEP_OUT)
        try:
            yield
        finally:
            os.dup2(kept, _STEP_OUT)
            os.close(kept)
            os.lseek(output, 0, os.SEEK_SET)
            with os.fdopen(output, "rb") as lines:
                self._read(lines, outermost)

    def _read(self, lines: Any, outermost: Frame) -> None:
        frames: list[Frame] = [outermost]
        called: Frame = None
        jump: tuple[Frame, int, int] | None = None  # with the depth it was met at
        for line in lines:
            head = _LINE.match(line)
            if head is None:
                continue
            pc, op = int(head[1]), int(head[2])
            found = _DEPTH.search(line)
            assert found is not None
            depth = int(found[1])
            if depth > len(frames):
                frames.append(called)
            del frames[depth:]
            frame = frames[-1]
            if jump is not None and jump[2] == depth:
                self.seen.jumps.add((jump[0], jump[1], pc != jump[1] + 1))
            jump = (frame, pc, depth) if op == JUMPI else None
            self.seen.steps.add((frame, pc))
            if op in _CALLS:
                called = self._frame(_target(line))
            elif op in _CREATES:
                called = None


def _target(line: bytes) -> str:
    stack = _STACK.search(line)
    assert stack is not None
    word = stack[1].split(b",")[-2].strip(b'" ')
    return f"0x{int(word, 16) & (1 << 160) - 1:040x}"
