"""A real node whose model is simulated: it does what it is asked, by rules.

It tells what is the API's in a suite's failures from what is the model's: the same coordinator,
streams, grammars, receipts and gateway, and a model that calls the function it is offered, gives
the JSON it is asked for, tells how many pictures it is shown, and reasons first where its template
asks it to. Like every scripted engine it is arithmetic over bytes, drawn by the same sampler under
the same masks, and says "scripted" in its class.

    python obedient_node.py KEY=VALUE ...        (settings of `node start`)
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import trio

from assay_network.logs import configure_logs
from assay_node.app import run_node
from assay_node.config import ENVIRONMENT_PREFIX, Settings, load_settings
from assay_node.engine.interface import Engine
from assay_node.engine.scripted import END, Script, ScriptedEngine
from assay_node.loading import Prepared
from assay_protocol.adjustments import Logits
from assay_protocol.cards import ModelCard, Vision, encode_card, seeing_model
from assay_protocol.images import IMAGE_TOKEN
from end_to_end.places import scripted_card

NAME: Final = "obedient"
CONTEXT: Final = 8_192
TEMPLATE: Final = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is defined %}"
    "{{ '<think>\n' if enable_thinking else '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
DIGEST: Final = b"obedient model".ljust(32, b".")
SEES: Final = Vision(
    projector=b"obedient eyes".ljust(32, b"."),
    size_bytes=1,
    tokens=16,
    side=512,
    before=tuple(b"<|see|>"),
    after=tuple(b"<|/see|>"),
)
SCRIPT: Final = Script(
    model=seeing_model(DIGEST, SEES.projector), grammars=True, image_tokens=SEES.tokens
)
_SHOWN: Final = "\x1a"  # a picture, in the text as it is read here
_TURN: Final = re.compile(r"<\|(system|user|assistant)\|>")
_BEGUN: Final = re.compile(rb"<\|assistant\|>(<think>\n(\n</think>\n\n)?)?")
_SURE: Final = 50.0  # added to the logit of the byte that is meant
# Where a grammar asks for what was not meant: the shortest that it allows, as strings of nothing.
_CLOSERS: Final = tuple(b'"}],:')


def write_card(folder: Path) -> Path:
    path = folder / f"{NAME}.card"
    path.write_bytes(encode_card(_card()))
    return path


def _card() -> ModelCard:
    about = {"name": NAME, "digest": DIGEST, "context": CONTEXT, "chat_template": TEMPLATE}
    return scripted_card(**about, vision=SEES)


def meant(prompt: str) -> str:
    """What is said after `prompt`: a call of a function, JSON with the keys asked for, or words;
    and before it what is thought, where the prompt has begun to."""
    if prompt.endswith("<think>\n"):
        return "I do as I am asked.\n</think>\n\n" + meant(prompt.removesuffix("<think>\n"))
    *_, asked, _ = ["", "", *_TURN.split(prompt)[2::2]]
    if (tools := _tools(prompt)) and not asked.startswith("<tool_response>"):
        named = [tool for tool in tools if tool["name"] in asked]
        tool = (named or tools)[0]
        arguments = _filled(tool["parameters"], asked)
        return json.dumps({"name": tool["name"], "arguments": arguments}, ensure_ascii=False)
    if "JSON" in asked and (keys := re.findall(r"'(\w+)'", asked)):
        return json.dumps(dict.fromkeys(keys, "as asked"))
    return f"I see {asked.count(_SHOWN)}." if _SHOWN in asked else "As you say."


def _tools(prompt: str) -> list[dict[str, Any]]:
    """The functions the prompt tells of, a JSON object a line."""
    lines = [line for line in _TURN.sub("\n", prompt).splitlines() if line.startswith('{"name"')]
    return [tool for line in lines if "parameters" in (tool := json.loads(line))]


def _filled(schema: dict[str, Any], asked: str) -> Any:
    """A value of `schema`, from the words of the question where it has one of that kind."""
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            named = schema.get("properties", {})
            return {name: _filled(inner, asked) for name, inner in named.items()}
        case "integer" | "number":
            found = re.search(r"-?\d+", asked)
            return int(found[0]) if found else 1
        case "boolean":
            return True
        case "array":
            return []
        case _:
            quoted = re.search(r"'([^']+)'", asked)
            return quoted[1] if quoted else asked[:40]


class ObedientEngine(ScriptedEngine):
    """Its next byte is the next one of what is meant, as long as it may be."""

    def logits(self, text: Sequence[int]) -> Logits:
        logits = super().logits(text)
        said = _read(text)
        begun = max((found.end() for found in _BEGUN.finditer(said)), default=0)
        whole, drawn = _plan(said[:begun]), said[begun:]
        if not whole.startswith(drawn):
            logits[list(_CLOSERS)] += _SURE * np.linspace(1.0, 0.5, len(_CLOSERS))
            return logits
        logits[END if drawn == whole else whole[len(drawn)]] += _SURE
        return logits


def _read(text: Sequence[int]) -> bytes:
    """Bytes, with one in the place of each picture."""
    said = bytearray()
    seen = 0
    for token in text:
        if token < IMAGE_TOKEN:
            said.append(token)
        elif (seen := seen + 1) % SEES.tokens == 0:
            said += _SHOWN.encode()
    return bytes(said)


@lru_cache(maxsize=64)
def _plan(prompt: bytes) -> bytes:
    return meant(prompt.decode(errors="replace")).encode()


@asynccontextmanager
async def _engine(settings: Settings, prepared: Prepared) -> AsyncIterator[Engine]:
    yield ObedientEngine(SCRIPT, slots=settings.slots, context=settings.context, waiting_max=16)


def main(*flags: str) -> int:
    given = dict(flag.split("=", 1) for flag in flags)
    environment = {ENVIRONMENT_PREFIX + key.upper(): value for key, value in given.items()}
    settings = load_settings(None, environment, {})
    configure_logs()
    return trio.run(partial(run_node, settings, engine_factory=_engine))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
