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
    images_bytes,
    measured_rates,
)
from assay_node.models.adapters import base_of, is_base
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError

# Beyond this it was the trial of a first start that took so long; the next load will tell.
LOAD_SECONDS_MAX: Final = 20.0
_NEVER_LEFT_OUT: Final = ("config_invalid", "card_invalid")  # the owner's to mend

log = get_logger("node")


@dataclass(frozen=True, slots=True)
class Adapted:
    """A model with an adapter that may be served: settings whose `model` is the adapter's file."""

    settings: Settings
    card: ModelCard
    path: Path


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be served: the settings for it alone, its checked file, its adapters."""

    settings: Settings
    card: ModelCard | None
    prepared: Prepared
    need_bytes: int  # estimated; 0 for the only one
    adapted: tuple[Adapted, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All that the engine loads."""
        own = (self.prepared.path, self.prepared.projector)
        return (*(file for file in own if file is not None), *(one.path for one in self.adapted))


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
    images = images_bytes(prepared.path, prepared.projector)
    return images + estimate(header, slots=settings.slots, context=settings.context).total


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
    _check_cards(settings, cards)
    several = len(cards) > 1
    found: list[Candidate] = []
    adapted: list[Adapted] = []
    failures: list[AssayError] = []
    for one, card in zip(settings.each(), cards, strict=True):
        try:
            prepared = await trio.to_thread.run_sync(prepare, one, card)
            if card is not None and card.adapter is not None and prepared.path is not None:
                adapted.append(Adapted(one, card, prepared.path))
                continue
            if several and prepared.path is not None:
                one = await trio.to_thread.run_sync(_fixed, one, prepared.path, prepared.projector)
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
    return [_with_adapters(one, adapted) for one in found]


def _check_cards(settings: Settings, cards: Sequence[ModelCard | None]) -> None:
    named = [card for card in cards if card is not None]
    if len(cards) > 1 and len({card.model for card in named}) < len(cards):
        raise AssayError("config_invalid", "models: each needs a card, and no two the same model")
    for card in named:
        if card.adapter is not None and settings.engine != "openai":  # whose files are not here
            base_of(card, named)


def _with_adapters(one: Candidate, adapted: Sequence[Adapted]) -> Candidate:
    """Those of this model's file, and the memory they take beside it."""
    if one.card is None:
        return one
    own = tuple(each for each in adapted if is_base(one.card, each.card))
    more = sum(each.path.stat().st_size for each in own)
    return replace(one, adapted=own, need_bytes=one.need_bytes + more)


def _fixed(settings: Settings, path: Path, projector: Path | None) -> Settings:
    """Slots and context fitted once, before anything is loaded: they are offered, and must be the
    same whenever the model is loaded again."""
    fitted = fitted_settings(settings, path, projector)
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
            one, engine = await _open_first(one, engines, prepare, factory)
            seconds = min(trio.current_time() - began, LOAD_SECONDS_MAX)
            made = await _measured(one, engines, engine, directory)
        except AssayError as error:
            failures.append(error)
            _leave_out(one.card, error)
            continue
        made = replace(made, need_bytes=need, load_us=round(seconds * SECOND_US))
        served[:0] = [made, *(_adapted(made, each.card) for each in one.adapted)]
        resident[made.model], device = need, engine.info.device
    if not served:
        raise failures[-1]
    return Stock(tuple(served), tuple(resident), device)


async def _open_first(
    one: Candidate, engines: Engines, prepare: PrepareModel, factory: EngineFactory
) -> tuple[Candidate, Engine]:
    """With its adapters; without any, if they are what cannot be loaded."""
    if one.adapted:
        try:
            return one, await engines.add(_opener(one, prepare, factory))
        except AssayError as error:
            for each in one.adapted:
                _leave_out(each.card, error)
            one = replace(one, adapted=())
    return one, await engines.add(_opener(one, prepare, factory))


def _opener(one: Candidate, prepare: PrepareModel, factory: EngineFactory) -> Opener:
    """The files are checked again each time, which costs little while they did not change."""

    def check() -> Prepared:
        for each in one.adapted:
            prepare(each.settings, each.card)
        prepared = prepare(one.settings, one.card)
        files = tuple((e.path, e.card.adapter) for e in one.adapted if e.card.adapter is not None)
        return replace(prepared, adapters=files)

    @asynccontextmanager
    async def open_checked() -> AsyncIterator[Engine]:
        prepared = await trio.to_thread.run_sync(check)
        async with factory(one.settings, prepared) as engine:
            yield engine

    return open_checked


def _leave_out(card: ModelCard | None, error: AssayError) -> None:
    model = "" if card is None else card.model.hex()
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
        dims=info.dims,
        tells_prompts=info.tells_prompts,
        image_tokens=info.image_tokens,
        pieces=info.pieces if one.card is None else one.card.pieces,
    )


def _adapted(base: Served, card: ModelCard) -> Served:
    """The same engine under the name of the model with its adapter. Rates are the base model's: an
    adapter's pass costs about as much."""
    return replace(base, model=card.model, base=base.model, adapter=card.adapter)
