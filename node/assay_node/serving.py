"""What a node serves: each model's file checked, its engine opened once, its rates measured.

At the start every model is loaded, the first one last; where memory does not hold all, those
loaded first make room. So whatever is offered was seen to work here. Of several models, one whose
file is missing or broken, or whose engine does not start, is left out with a warning and the
others are served; one alone prevents the start.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import trio

from assay_network.logs import get_logger
from assay_node.config import Settings
from assay_node.core.parameters import SECOND_US, Served
from assay_node.engine.interface import Engine
from assay_node.engines import Engines, Opener
from assay_node.hardware import free_memory
from assay_node.loading import (
    EngineFactory,
    Prepared,
    PrepareModel,
    fitted_settings,
    measured_rates,
)
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError

_NEVER_LEFT_OUT: Final = ("config_invalid", "card_invalid")  # the owner's to mend

log = get_logger("node")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be served: the settings for it alone, and its checked file."""

    settings: Settings
    card: ModelCard | None
    prepared: Prepared
    need_bytes: int  # estimated; 0 for the only one


@dataclass(frozen=True, slots=True)
class Stock:
    """What was seen to work: served models, and which of them are loaded, the first one last."""

    served: tuple[Served, ...]
    resident: tuple[bytes, ...]
    device: str


MeasureNeed = Callable[[Settings, Prepared], int]


def need_bytes(settings: Settings, prepared: Prepared) -> int:
    """The estimate of the engine's memory; 0 for an engine that loads no file."""
    if prepared.path is None:
        return 0
    from assay_node.models.fit import estimate
    from assay_node.models.gguf import read_header

    header = read_header(prepared.path)
    return estimate(header, slots=settings.slots, context=settings.context).total


def memory_budget(settings: Settings) -> int:
    """Bytes all engines together may take: what the owner says, or most of what is free now."""
    from assay_node.models.fit import usable

    return settings.memory_bytes or usable(sum(free_memory()))


async def find_candidates(
    settings: Settings,
    cards: Sequence[ModelCard | None],
    prepare: PrepareModel,
    measure: MeasureNeed = need_bytes,
) -> list[Candidate]:
    """The models of `settings.each()`, with their cards in the same order.

    Raises AssayError: of prepare_model and fitted_settings where no model is left.
    """
    found: list[Candidate] = []
    several = len(cards) > 1
    if several and len({card.digest for card in cards if card is not None}) < len(cards):
        raise AssayError("config_invalid", "models: each needs a card, and no two the same model")
    failures: list[AssayError] = []
    for one, card in zip(settings.each(), cards, strict=True):
        try:
            prepared = await trio.to_thread.run_sync(prepare, one, card)
            if several and prepared.path is not None:
                one = await trio.to_thread.run_sync(_fixed, one, prepared.path)
            need = await trio.to_thread.run_sync(measure, one, prepared) if several else 0
        except AssayError as error:
            if error.code in _NEVER_LEFT_OUT:
                raise
            failures.append(error)
            _leave_out(card, error)
        else:
            found.append(Candidate(one, card, prepared, need))
    if not found:
        raise failures[0]
    return found


def _fixed(settings: Settings, path: Path) -> Settings:
    """Slots and context fitted once, before anything is loaded: they are offered, and must be the
    same whenever the model is loaded again."""
    fitted = fitted_settings(settings, path)
    again = "off" if settings.fit == "off" else "refuse"
    return replace(settings, slots=fitted.slots, context=fitted.context, fit=again)


async def stock(
    engines: Engines,
    candidates: Sequence[Candidate],
    *,
    budget_bytes: int,
    directory: Path,
    prepare: PrepareModel,
    factory: EngineFactory,
) -> Stock:
    """Open and measure each once. Raises AssayError where none can be served."""
    served: list[Served] = []
    resident: dict[bytes, int] = {}
    device, failures = "", []
    for one in reversed(candidates):
        need = min(one.need_bytes, budget_bytes)
        while resident and sum(resident.values()) + need > budget_bytes:
            oldest = next(iter(resident))
            del resident[oldest]
            await engines.close(oldest)
        began = trio.current_time()
        try:
            engine = await engines.add(_opener(one, prepare, factory))
            load_us = round((trio.current_time() - began) * SECOND_US)
            made = await _measured(one, engines, engine, directory)
        except AssayError as error:
            failures.append(error)
            _leave_out(one.card, error)
            continue
        served.insert(0, replace(made, need_bytes=need, load_us=load_us))
        resident[made.model], device = need, engine.info.device
    if not served:
        raise failures[-1]
    return Stock(tuple(served), tuple(resident), device)


def _opener(one: Candidate, prepare: PrepareModel, factory: EngineFactory) -> Opener:
    """The file is checked again each time, which costs little while it did not change."""

    @asynccontextmanager
    async def open_checked() -> AsyncIterator[Engine]:
        prepared = await trio.to_thread.run_sync(prepare, one.settings, one.card)
        async with factory(one.settings, prepared) as engine:
            yield engine

    return open_checked


def _leave_out(card: ModelCard | None, error: AssayError) -> None:
    model = "" if card is None else card.digest.hex()
    log.warning("model_left_out", model=model, code=error.code, reason=error.message)


async def _measured(one: Candidate, engines: Engines, engine: Engine, directory: Path) -> Served:
    """What the engine offers, with rates measured now or remembered; closed if that fails."""
    info = engine.info
    try:
        prefill, decode = await measured_rates(one.settings, engine, info.model, directory)
    except AssayError:
        await engines.close(info.model)
        raise
    return Served(
        model=info.model,
        class_id=info.class_id,
        slots=info.slots,
        context=info.context,
        n_vocab=info.n_vocab,
        eog=info.eog,
        prefill_rate=prefill,
        decode_rate=decode,
        grammar=info.grammar,
    )
