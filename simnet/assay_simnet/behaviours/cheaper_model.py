"""`quant_down`: serve a cheaper quantization under the honest model's name.

A whole real node; only its engine loads another file than the card names. Run as
`python -m assay_simnet.behaviours.cheaper_model CHEAP.gguf FLAG=VALUE ...`, the flags being keys of
the node's settings.
"""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from assay_node.app import run_node
from assay_node.config import Settings, load_settings
from assay_node.engine.interface import Engine
from assay_node.engine.supervisor import open_llama_engine
from assay_node.engine.texts_engine import open_texts_engine
from assay_node.loading import Prepared
from assay_node.models.gguf import read_header
from assay_protocol.errors import AssayError

_NUMBERS: Final = ("threads", "slots", "context")


def cheap_engine(
    cheap: Path, settings: Settings, prepared: Prepared
) -> AbstractAsyncContextManager[Engine]:
    """The cheap file, said to be the honest one."""
    if read_header(cheap).embeds:
        return open_texts_engine(
            cheap, prepared.digest, slots=settings.slots, threads=settings.engine_threads
        )
    return open_llama_engine(
        cheap,
        prepared.digest,
        slots=settings.slots,
        context=settings.context,
        threads=settings.engine_threads,
    )


def main(argv: list[str]) -> int:
    """Serve until told to stop."""
    cheap, *flags = argv
    given = dict(flag.split("=", 1) for flag in flags)
    numbers: dict[str, object] = {
        key: int(given[key]) for key in ("threads", "slots", "context") if key in given
    }
    values: dict[str, object] = {**given, **numbers, "listen": [given["listen"]]}
    settings = load_settings(None, {}, values)
    try:
        factory = partial(cheap_engine, Path(cheap))
        return trio.run(partial(run_node, settings, engine_factory=factory))
    except AssayError as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
