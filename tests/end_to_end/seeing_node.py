"""A real node whose scripted engine reads pictures, or says so and looks at a black one instead.

python seeing_node.py honest|blind KEY=VALUE ...
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from assay_network.logs import configure_logs
from assay_node.app import run_node
from assay_node.config import ENVIRONMENT_PREFIX, Settings, load_settings
from assay_node.engine.interface import Engine
from assay_node.engine.scripted import Script, ScriptedEngine
from assay_node.loading import Prepared
from assay_protocol.adjustments import Logits
from assay_protocol.cards import Vision, seeing_model
from assay_protocol.images import IMAGE_TOKEN

SEES: Final = Vision(
    projector=b"scripted eyes".ljust(32, b"."),
    size_bytes=1,
    tokens=12,
    side=256,
    before=(1,),
    after=(2,),
)
SCRIPT: Final = Script(
    model=seeing_model(Script().model, SEES.projector),
    end_bias=-100.0,
    image_tokens=SEES.tokens,
    grammars=True,
)
NAME: Final = "seeing"


class BlindEngine(ScriptedEngine):
    """Its answers are of any picture the same."""

    def logits(self, text: Sequence[int]) -> Logits:
        return super().logits([min(token, IMAGE_TOKEN) for token in text])


def main(sight: str, *flags: str) -> int:
    given = dict(flag.split("=", 1) for flag in flags)
    names = {ENVIRONMENT_PREFIX + key.upper(): value for key, value in given.items()}
    made = {"honest": ScriptedEngine, "blind": BlindEngine}[sight]

    @asynccontextmanager
    async def engine(settings: Settings, prepared: Prepared) -> AsyncIterator[Engine]:
        yield made(SCRIPT, slots=settings.slots, context=settings.context, waiting_max=16)

    configure_logs()
    return trio.run(partial(run_node, load_settings(None, names, {}), engine_factory=engine))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
