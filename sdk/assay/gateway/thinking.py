"""How much a model shall think, as three APIs say it, and what a model's chat template makes of it.

A template knows variables of its own: a switch, an effort, a budget. What is asked is put into
those it has; what it has no variable for changes nothing, and is told so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from assay.chat_template import Scalar
from assay.gateway.fields import Fields
from assay.gateway.refusal import invalid

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh")
_MESSAGE_EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
BUDGET_LEAST: Final = 1_024  # Anthropic's
BUDGET_MAX: Final = 1 << 31
WORD_CHARACTERS_MAX: Final = 32
_OFF: Final = ("none", "minimal")
# What templates call it: Qwen3, GLM, SmolLM3, Nemotron; DeepSeek-V3.1, Granite.
_SWITCHES: Final = ("enable_thinking", "thinking")
_EFFORT: Final = "reasoning_effort"  # gpt-oss, which has three
_LEVELS: Final = {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}
_BUDGET: Final = "thinking_budget"  # Seed-OSS
# Whether earlier turns keep their reasoning: GLM-4.7, Qwen3.5, Nemotron 3, LFM2.5.
_KEEPS: Final = (
    "clear_thinking", "preserve_thinking", "truncate_history_thinking", "keep_past_thinking",
)  # fmt: skip
_FLAGS: Final = (*_SWITCHES, *_KEEPS)
TEMPLATE_FIELD: Final = "chat_template_kwargs"


@dataclass(frozen=True, slots=True)
class Thinking:
    """What was asked. `asked_by`: the field that says `effort`, `budget_by` that of the budget, in
    tokens. `variables` are the template's own, given by name."""

    effort: str | None = None
    asked_by: str = ""
    budget: int | None = None
    budget_by: str = ""
    variables: Mapping[str, Scalar] = field(default_factory=dict)
    idle: tuple[str, ...] = ()  # fields that no model gives an effect
    shown: bool = True  # the reasoning is told, and not just paid

    def in_template(
        self, known: frozenset[str], *, bound: bool, at_once: bool
    ) -> tuple[dict[str, Scalar], tuple[str, ...]]:
        """Variables for a template that takes those `known`, and the fields without effect.

        `bound`: a grammar binds the answer, so thinking is switched off, where it can be and nobody
        asked for it. `at_once`: it binds from the first token, so there is no place to think in.
        """
        switches = [name for name in _SWITCHES if name in known]
        wanted: dict[str, Scalar] = {}
        idle = list(self.idle)
        if at_once or (bound and self.effort is None and self.budget is None):
            wanted |= dict.fromkeys(switches, False)
        elif self.effort is not None:
            wanted |= dict.fromkeys(switches, self.effort not in _OFF)
            if _EFFORT in known:
                wanted[_EFFORT] = _LEVELS.get(self.effort, self.effort)
        if self.effort is not None and (at_once or not wanted):
            idle.append(self.asked_by)
        if self.budget is not None:
            if _BUDGET in known and not at_once:
                wanted[_BUDGET] = self.budget
            else:
                idle.append(self.budget_by)
        given = {name: value for name, value in self.variables.items() if name in known}
        idle += [f"{TEMPLATE_FIELD}.{name}" for name in self.variables if name not in known]
        return wanted | given, tuple(dict.fromkeys(idle))


def chat_thinking(fields: Fields) -> Thinking:
    """Of /v1/chat/completions: `reasoning_effort`, OpenRouter's `reasoning.effort`, or DeepSeek's
    `thinking.type`; vLLM's `include_reasoning` and `chat_template_kwargs`."""
    effort, asked_by = _effort(fields)
    nested = fields.object("reasoning")
    summed = nested is not None and nested.has("summary")  # only /v1/responses has a place for it
    if (switch := fields.object("thinking")) is not None:
        switch.only(frozenset({"type"}))
        kind = switch.choice("type", ("enabled", "disabled"))
        if kind == "disabled" or (kind is not None and effort is None):
            effort, asked_by = "none" if kind == "disabled" else "medium", "thinking"
    return Thinking(
        effort=effort,
        asked_by=asked_by,
        variables=template_variables(fields),
        idle=("reasoning.summary",) if summed else (),
        shown=fields.flag("include_reasoning", True),
    )


def response_thinking(fields: Fields) -> Thinking:
    """Of /v1/responses: `reasoning.effort`."""
    effort, _ = _effort(fields)
    return Thinking(effort=effort, asked_by="reasoning", variables=template_variables(fields))


def message_thinking(fields: Fields, max_tokens: int | None) -> Thinking:
    """Of /v1/messages: `thinking`, and `output_config.effort`. `max_tokens` bounds its budget."""
    config = fields.object("output_config")
    effort = asked_by = None
    if config is not None:
        config.only(frozenset({"effort"}), {"format": "give the form as a tool that is demanded"})
        if effort := config.choice("effort", _MESSAGE_EFFORTS):
            asked_by = config.at("effort")
    thinking = fields.object("thinking")
    if thinking is None:
        return Thinking(effort=effort, asked_by=asked_by or "")
    kind = thinking.required_text("type")
    thinking.choice("type", ("enabled", "disabled", "adaptive"))
    thinking.only(frozenset({"type", "budget_tokens", "display"}))
    display = thinking.choice("display", ("summarized", "omitted"), "summarized")
    if kind == "disabled":
        return Thinking(effort="none", asked_by="thinking", shown=False)
    budget = thinking.integer("budget_tokens", BUDGET_LEAST, BUDGET_MAX)
    if budget is not None and max_tokens is not None and budget >= max_tokens:
        path = thinking.at("budget_tokens")
        raise invalid(path, f"{path} must be less than max_tokens")
    return Thinking(
        effort=effort or "medium",
        asked_by=asked_by or "thinking",
        budget=budget,
        budget_by=thinking.at("budget_tokens"),
        shown=display == "summarized",
    )


def template_variables(fields: Fields) -> dict[str, Scalar]:
    """`chat_template_kwargs`: of a closed list, each of its type; Refusal for any other."""
    given = fields.object(TEMPLATE_FIELD)
    if given is None:
        return {}
    given.only(frozenset({*_FLAGS, _EFFORT, _BUDGET}))
    found: dict[str, Scalar] = {name: given.flag(name) for name in _FLAGS if given.has(name)}
    if (effort := given.text(_EFFORT, None, WORD_CHARACTERS_MAX)) is not None:
        found[_EFFORT] = effort
    if (budget := given.integer(_BUDGET, 0, BUDGET_MAX)) is not None:
        found[_BUDGET] = budget
    return found


def _effort(fields: Fields) -> tuple[str | None, str]:
    nested = fields.object("reasoning")
    effort = fields.choice("reasoning_effort", EFFORTS)
    if effort is None and nested is not None:
        return nested.choice("effort", EFFORTS), "reasoning"
    return effort, "reasoning_effort"
