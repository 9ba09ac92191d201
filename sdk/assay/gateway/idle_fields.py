"""Fields of OpenAI's that change nothing here, and are of the right type all the same.

What they ask for is told in `x-assay-ignored` where it would have mattered (sampling_fields.py). A
value that OpenAI would refuse is refused: a program that is wrong hears of it here, too.
"""

from __future__ import annotations

from typing import Final

from assay.gateway.fields import Fields
from assay.gateway.refusal import invalid, missing

METADATA_MAX: Final = 16
LABEL_CHARACTERS_MAX: Final = 1_024
PARTS_MAX: Final = 1_024
_VERBOSITIES: Final = ("low", "medium", "high")
_SUMMARIES: Final = ("auto", "concise", "detailed")
_TIERS: Final = ("auto", "default", "flex", "scale", "priority")
_RETENTIONS: Final = ("in-memory", "in_memory", "24h")
_TOOL_CALLS_MAX: Final = 1 << 31


def check_idle_fields(fields: Fields) -> None:
    """Every field of a request that is only taken; Refusal names the one that is wrong."""
    for label in ("user", "safety_identifier", "prompt_cache_key"):
        fields.text(label, None, LABEL_CHARACTERS_MAX)
    fields.choice("verbosity", _VERBOSITIES)
    fields.choice("service_tier", _TIERS)
    fields.choice("prompt_cache_retention", _RETENTIONS)
    fields.flag("parallel_tool_calls")
    fields.flag("store")
    fields.integer("max_tool_calls", 0, _TOOL_CALLS_MAX)
    _check_metadata(fields)
    if (reasoning := fields.object("reasoning")) is not None:
        reasoning.choice("summary", _SUMMARIES)
        reasoning.choice("generate_summary", _SUMMARIES)
    if (text := fields.object("text")) is not None:
        text.choice("verbosity", _VERBOSITIES)
    if (prediction := fields.object("prediction")) is not None:
        _check_prediction(prediction)


def _check_metadata(fields: Fields) -> None:
    metadata = fields.object("metadata")
    if metadata is not None and (
        len(metadata.body) > METADATA_MAX
        or not all(isinstance(value, str) for value in metadata.body.values())
    ):
        raise invalid("metadata", f"metadata has at most {METADATA_MAX} texts")


def _check_prediction(prediction: Fields) -> None:
    if prediction.required_text("type") != "content":
        raise invalid(prediction.at("type"), "a prediction is of the type content")
    if not prediction.has("content"):
        raise missing(prediction.at("content"))
    if not isinstance(prediction.raw("content"), str):
        for index, one in enumerate(prediction.items("content", PARTS_MAX, 1)):
            part = Fields.of(one, f"{prediction.at('content')}[{index}]")
            part.required_text("type")
            part.choice("type", ("text",))
            part.required_text("text")
