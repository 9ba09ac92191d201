"""Nodes that read another prompt than the one they were sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from assay_simnet.behaviours.behaviour import Behaviour
from assay_simnet.behaviours.engines import OtherPrompt
from assay_simnet.engine import Engine, Text
from assay_simnet.language import BLOCK, VOCABULARY


@dataclass
class SysPromptDrop(Behaviour):
    """`tokens`: how long the system prompt is."""

    name: ClassVar[str] = "sys_prompt_drop"
    does: ClassVar[str] = "leaves out the system prompt"
    saves: ClassVar[float] = 0.2
    tokens: int = 4 * BLOCK

    def executor(self, honest: Engine) -> Engine:
        return OtherPrompt(honest, lambda prompt: prompt[self.tokens :])


@dataclass
class PersonaEdit(Behaviour):
    name: ClassVar[str] = "persona_edit"
    does: ClassVar[str] = "changes one phrase of the system prompt"

    def executor(self, honest: Engine) -> Engine:
        return OtherPrompt(honest, _edited)


@dataclass
class CtxTruncate(Behaviour):
    name: ClassVar[str] = "ctx_truncate"
    does: ClassVar[str] = "reads only the last half of the prompt"
    saves: ClassVar[float] = 0.3

    def executor(self, honest: Engine) -> Engine:
        return OtherPrompt(honest, lambda prompt: prompt[len(prompt) // 2 :])


@dataclass
class PrefixPoison(Behaviour):
    name: ClassVar[str] = "prefix_poison"
    does: ClassVar[str] = "answers on the cached beginning of another prompt"
    saves: ClassVar[float] = 0.2

    def executor(self, honest: Engine) -> Engine:
        return OtherPrompt(honest, _poisoned)


def _edited(prompt: Text) -> Text:
    """Another first block."""
    return tuple(_other(token) for token in prompt[:BLOCK]) + prompt[BLOCK:]


def _poisoned(prompt: Text) -> Text:
    """Another first half."""
    half = len(prompt) // 2
    return tuple(_other(token) for token in prompt[:half]) + prompt[half:]


def _other(token: int) -> int:
    return 1 + token * 7 % (VOCABULARY - 1)
