"""Fields that several APIs share: how an answer is drawn, checked and routed.

What is not said is left to the SDK's own defaults. `seed` is taken and has no effect: the noise of
a draw comes from a nonce and a ticket, so that nobody can steer it (docs/decisions/0026).
"""

from __future__ import annotations

from typing import Any, Final

from assay.gateway.fields import Fields
from assay.gateway.refusal import invalid
from assay.gateway.settings import Settings
from assay.stop_text import STOP_CHARACTERS_MAX, STOP_STRINGS_MAX
from assay_protocol.limits import (
    LOGIT_BIAS_ENTRIES_MAX,
    LOGIT_BIAS_MAX,
    PENALTY_MAX,
    REPETITION_PENALTY_MAX,
    REPETITION_PENALTY_MIN,
    TOP_K_MAX,
)
from assay_protocol.messages import VERIFY_LEVELS
from assay_protocol.regions import REGIONS_MAX, is_region

SAMPLING: Final = frozenset(
    {
        "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty",
        "frequency_penalty", "logit_bias", "seed",
    }
)  # fmt: skip
NETWORK: Final = frozenset({"verify", "node", "license", "region"})
SEED_MAX: Final = (1 << 63) - 1
NODES_MAX: Final = 16
TEMPERATURE_MAX: Final = 2.0  # OpenAI's; the network would take 4
TOP_P_LEAST: Final = 1e-6  # 0 asks for the likeliest token alone, and so does this
ANSWER_TOKENS_MAX: Final = 1 << 31  # what may be asked for; less is given (generation.py)


def sampling_options(fields: Fields) -> dict[str, Any]:
    """Options of `make_sampler` for what the body says."""
    top_p = fields.number("top_p", 0.0, 1.0)
    top_k = fields.integer("top_k", -1, TOP_K_MAX)
    options: dict[str, Any] = {
        "temperature": fields.number("temperature", 0.0, TEMPERATURE_MAX),
        "top_p": None if top_p is None else max(top_p, TOP_P_LEAST),
        "top_k": None if top_k is None else max(top_k, 0),
        "min_p": fields.number("min_p", 0.0, 1.0),
        "repetition_penalty": fields.number(
            "repetition_penalty", REPETITION_PENALTY_MIN, REPETITION_PENALTY_MAX
        ),
        "presence_penalty": fields.number("presence_penalty", -PENALTY_MAX, PENALTY_MAX),
        "frequency_penalty": fields.number("frequency_penalty", -PENALTY_MAX, PENALTY_MAX),
        "logit_bias": _logit_bias(fields),
    }
    fields.integer("seed", -SEED_MAX - 1, SEED_MAX)
    return {name: value for name, value in options.items() if value is not None}


def network_options(fields: Fields, settings: Settings) -> dict[str, Any]:
    """`verify`, `nodes` and `regions`, the extensions."""
    options: dict[str, Any] = {"verify": fields.choice("verify", VERIFY_LEVELS, settings.verify)}
    if nodes := fields.texts("node", NODES_MAX):
        options["nodes"] = tuple(_node(fields.at("node"), one) for one in nodes)
    if regions := fields.texts("region", REGIONS_MAX):
        if not all(map(is_region, regions)):
            raise invalid(fields.at("region"), 'a region is words with hyphens between: "eu-de"')
        options["regions"] = regions
    return options


def stop_strings(fields: Fields, name: str) -> tuple[str, ...]:
    """Up to four, as the SDK takes them."""
    stops = tuple(dict.fromkeys(fields.texts(name, STOP_STRINGS_MAX, 1)))
    if not all(0 < len(one) <= STOP_CHARACTERS_MAX for one in stops):
        raise invalid(fields.at(name), f"a stop string has 1 to {STOP_CHARACTERS_MAX} characters")
    return stops


def ignored_fields(fields: Fields, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `names` that were given and change nothing, for the header that says so."""
    idle = (None, False, "auto", "default")
    return tuple(name for name in names if fields.raw(name) not in idle)


def _logit_bias(fields: Fields) -> dict[int, float] | None:
    given = fields.object("logit_bias")
    if given is None or not given.body:
        return None
    if len(given.body) > LOGIT_BIAS_ENTRIES_MAX:
        raise invalid(given.path, f"at most {LOGIT_BIAS_ENTRIES_MAX} tokens")
    found: dict[int, float] = {}
    for name in given.body:
        if not (name.isascii() and name.isdecimal() and len(name) < 10):
            raise invalid(given.path, "its keys are token ids")
        value = given.number(name, -LOGIT_BIAS_MAX, LOGIT_BIAS_MAX)
        if value is not None:
            found[int(name)] = value
    return found


def _node(path: str, text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise invalid(path, "a node is named by its key, 64 hexadecimal digits")
    return key
