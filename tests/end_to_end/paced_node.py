"""A real node whose scripted engine takes its time, and whose patience with readers can be short.

python paced_node.py SECONDS_PER_TOKEN SLOW_READER_SECONDS KEY=VALUE ...
"""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager
from functools import partial

import trio

from assay_network.logs import configure_logs
from assay_node.app import run_node
from assay_node.config import ENVIRONMENT_PREFIX, Settings, load_settings
from assay_node.core.parameters import SECOND_US, Parameters
from assay_node.engine.interface import Engine
from assay_node.engine.scripted import Script, open_scripted_engine
from assay_node.loading import Prepared


def main(pace: str, patience: str, *flags: str) -> int:
    given = dict(flag.split("=", 1) for flag in flags)
    settings = load_settings(
        None, {ENVIRONMENT_PREFIX + k.upper(): v for k, v in given.items()}, {}
    )

    def engine(settings: Settings, prepared: Prepared) -> AbstractAsyncContextManager[Engine]:
        script = Script(seconds_per_token=float(pace), end_bias=-100.0, grammars=True)
        return open_scripted_engine(script, slots=settings.slots, context=settings.context)

    configure_logs()
    bounds = Parameters(
        slow_reader_us=round(float(patience) * SECOND_US),
        drain_us=20 * SECOND_US,
        final_ack_us=SECOND_US // 2,
    )
    return trio.run(partial(run_node, settings, engine_factory=engine, parameters=bounds))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
