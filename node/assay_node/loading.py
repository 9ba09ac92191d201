"""From settings to one loaded model: its file found and checked, fitted, its engine, its rates.

Everything here is of one model; serving.py does it for each of several. A file's sha256 is checked
against its card by `prepare_model`, a step of its own before `open_engine` is called; both can be
replaced by the caller of run_node, as tests and simulations do.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from assay_network.logs import get_logger
from assay_node.config import Settings
from assay_node.engine.interface import Engine
from assay_node.hardware import free_memory
from assay_protocol.cards import ModelCard, decode_card
from assay_protocol.errors import AssayError

if TYPE_CHECKING:
    from assay_node.models.fit import Fit
    from assay_node.models.store import ModelStore

MODELS_FOLDER: Final = "models"
BENCHMARK_FILE: Final = "benchmark.json"
BENCHMARK_SECONDS_MAX: Final = 120.0

log = get_logger("node")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What to load: the card the node serves under and its checked file; neither if scripted.

    Of a card with an adapter `path` is the adapter's file: it is loaded with the model's, whose
    own Prepared then names it among `adapters`, by file and sha256. `projector` is what reads
    images for the model, if it does.
    """

    card: ModelCard | None
    path: Path | None
    adapters: tuple[tuple[Path, bytes], ...] = ()
    projector: Path | None = None

    @property
    def digest(self) -> bytes:
        """sha256 of the model's file."""
        assert self.card is not None, "only the scripted engine has no card"
        return self.card.digest

    @property
    def named_projector(self) -> tuple[Path, bytes] | None:
        """The projector's file and sha256."""
        sees = None if self.card is None else self.card.vision
        return None if sees is None or self.projector is None else (self.projector, sees.projector)

    @property
    def engine_model(self) -> bytes:
        """The name of what its engine serves where no adapter is asked for."""
        assert self.card is not None, "only the scripted engine has no card"
        return replace(self.card, adapter=None).model


PrepareModel = Callable[[Settings, ModelCard | None], Prepared]
EngineFactory = Callable[[Settings, Prepared], AbstractAsyncContextManager[Engine]]


def prepare_model(settings: Settings, card: ModelCard | None) -> Prepared:
    """Find or fetch the card's file, check its sha256 and its header. Blocks on disk and network.

    Raises AssayError config_invalid, card_invalid, model_missing, model_corrupt, gguf_invalid or
    disk_full.
    """
    if settings.engine == "scripted":
        return Prepared(None, None)
    if card is None:
        raise AssayError("config_invalid", "a model card is needed: card, or fetch_card")
    if settings.engine == "openai":
        if card.vision is not None:
            raise AssayError("config_invalid", f"an engine openai reads no images: {card.name}")
        return Prepared(card, None)  # the file is the other server's
    from assay_node.models.gguf import read_header
    from assay_node.models.obtain import obtain
    from assay_node.models.peers import block_peers
    from assay_node.models.store import ModelStore

    folder = settings.directory / MODELS_FOLDER
    if card.adapter is not None:
        return Prepared(card, _adapter_file(settings, card, card.adapter, ModelStore(folder)))
    if settings.model:
        path = ModelStore(folder).find(card, Path(settings.model))
    else:
        peers = block_peers(settings.model_peers)
        path = obtain(card, folder, settings.models_quota_bytes, peers=peers)
    read_header(path)  # llama.cpp gets to see only what a careful reader has seen before
    return Prepared(card, path, projector=projector_file(settings, card, path))


def projector_file(settings: Settings, card: ModelCard, model: Path) -> Path | None:
    """The checked projector of the card, whose model's file is `model`; None if it names none.

    Raises AssayError config_invalid, model_missing, model_corrupt or gguf_invalid.
    """
    from assay_node.models.gguf import read_header
    from assay_node.models.projectors import check_projector
    from assay_node.models.store import ModelStore

    sees = card.vision
    if sees is None:
        if settings.projector:
            raise AssayError("config_invalid", f"{card.name}: the card names no projector")
        return None
    store = ModelStore(settings.directory / MODELS_FOLDER)
    if settings.projector:
        path = Path(settings.projector)
        store.require(path, sees.projector)
    else:
        path = store.holding(sees.projector, sees.size_bytes, f"the projector of {card.name}")
    header = read_header(model)
    if header.embeds:
        raise AssayError("config_invalid", f"{card.name}: a model that embeds reads no images")
    found = check_projector(path, header)
    if (found.tokens, found.side) != (sees.tokens, sees.side):
        raise AssayError("card_invalid", f"{card.name}: {path} makes other images than it says")
    return path


def _adapter_file(settings: Settings, card: ModelCard, sha256: bytes, store: ModelStore) -> Path:
    from assay_node.models.adapters import check_adapter

    if not settings.model:
        raise AssayError("config_invalid", f"{card.name}: an adapter's file must be named")
    path = Path(settings.model)
    store.require(path, sha256)
    check_adapter(path, card.architecture)
    return path


def open_engine(settings: Settings, prepared: Prepared) -> AbstractAsyncContextManager[Engine]:
    """The engine the settings name. "scripted" is simulated and says so in its device and class."""
    if settings.engine == "scripted":
        from assay_node.engine.scripted import open_scripted_engine

        return open_scripted_engine(slots=settings.slots, context=settings.context)
    if settings.engine == "openai":
        return _open_served(settings, prepared)
    return _open_llama(settings, prepared)


@asynccontextmanager
async def _open_served(settings: Settings, prepared: Prepared) -> AsyncIterator[Engine]:
    """Another server, which the settings name; its key is read once."""
    from assay_node.engine.openai import ServerSettings, open_served_engine, read_key

    assert prepared.card is not None, "prepare_model asked for it"
    server = ServerSettings(
        url=settings.engine_url,
        key=read_key(settings.engine_key_file),
        model=settings.engine_model,
        slots=settings.slots,
        context=settings.context,
    )
    async with open_served_engine(prepared.card, server) as engine:
        yield engine


@asynccontextmanager
async def _open_llama(settings: Settings, prepared: Prepared) -> AsyncIterator[Engine]:
    """llama.cpp, computing as the profile named does here; the first time that is tried out.

    A model that embeds is tried at each opening: that takes about a second.
    """
    from assay_node.engine.library import engines
    from assay_node.engine.supervisor import open_llama_engine
    from assay_node.engine.texts_engine import open_texts_engine
    from assay_node.engine.trials import choose
    from assay_node.models.gguf import read_header
    from assay_node.models.library import holding

    assert prepared.path is not None, "a llama engine needs a file"
    card = prepared.card
    assert card is not None, "only the scripted engine has no card"
    fitted = await trio.to_thread.run_sync(
        fitted_settings, settings, prepared.path, prepared.projector
    )
    if (await trio.to_thread.run_sync(read_header, prepared.path)).embeds:
        with holding(prepared.path):
            async with open_texts_engine(
                prepared.path,
                prepared.digest,
                slots=fitted.slots,
                context=fitted.context,
                threads=settings.engine_threads,
                exact=settings.profile != "fast",
            ) as embedder:
                yield embedder
        return
    profile = await trio.to_thread.run_sync(
        lambda: choose(
            prepared.path,
            prepared.digest,
            settings.profile,
            threads=settings.engine_threads,
            directory=engines(),
            adapters=prepared.adapters,
            projector=prepared.named_projector,
        )
    )
    with holding(prepared.path):
        async with open_llama_engine(
            prepared.path,
            prepared.engine_model,
            slots=fitted.slots,
            context=fitted.context,
            threads=settings.engine_threads,
            profile=profile,
            gpu_layers=-1 if fitted.gpu_layers is None else fitted.gpu_layers,
            adapters=prepared.adapters,
            projector=prepared.projector,
        ) as engine:
            makes = engine.info.image_tokens
            if card.vision is not None and makes != card.vision.tokens:
                told = f"an image takes {makes} positions, {card.name} says {card.vision.tokens}"
                raise AssayError("engine_failed", told)
            yield engine


def images_bytes(model: Path, projector: Path | None) -> int:
    """What reading images takes beside the model: the projector, embedded images, and buffers for
    decodes that hold a whole one."""
    if projector is None:
        return 0
    from assay_node.engine.gallery import KEPT_BYTES_MAX
    from assay_node.models.fit import larger_decodes
    from assay_node.models.gguf import read_header
    from assay_node.models.projectors import read_projector

    found = read_projector(projector)
    larger = larger_decodes(read_header(model), found.tokens) if found.whole else 0
    return found.memory_bytes + KEPT_BYTES_MAX + larger


def fitted_settings(settings: Settings, path: Path, projector: Path | None = None) -> Fit:
    """Slots and context that memory has room for, and layers for the GPU.

    The room is what is free, or `memory_gib` if that is less, without what images take.

    Raises AssayError("model_too_large") before anything is loaded.
    """
    from assay_node.models.fit import SPARE_PERCENT, Fit, fit, gpu_layers
    from assay_node.models.gguf import read_header

    asked = Fit(settings.slots, settings.context)
    if settings.fit == "off":
        return asked
    header = read_header(path)
    ram, vram = free_memory()
    free = ram + vram
    if settings.memory_bytes:
        free = min(free, -(-settings.memory_bytes * 100 // (100 - SPARE_PERCENT)))
    free = max(0, free - images_bytes(path, projector))
    found = fit(
        header,
        free,
        slots=asked.slots,
        context=asked.context,
        shrink=settings.fit == "shrink",
    )
    if vram:
        layers = gpu_layers(header, vram, slots=found.slots, context=found.context)
        found = replace(found, gpu_layers=layers)
    if found != asked:
        log.info("fitted", slots=found.slots, context=found.context, gpu_layers=found.gpu_layers)
    return found


def read_card(settings: Settings) -> ModelCard | None:
    """The card the settings name; raises AssayError("card_invalid") if it cannot be read."""
    if not settings.card:
        return None
    try:
        return decode_card(Path(settings.card).read_bytes())
    except OSError as error:
        raise AssayError("card_invalid", f"cannot read {settings.card}") from error


async def measured_rates(
    settings: Settings, engine: Engine, model: bytes, directory: Path, *, fresh: bool = False
) -> tuple[int, int]:
    """Prefill and decode rates in thousandths of tokens/s, measured once per model and device."""
    info = engine.info
    name = f"{model.hex()} {info.class_id} {info.device} {info.slots} {settings.engine_threads}"
    file = directory / BENCHMARK_FILE
    try:
        known = json.loads(file.read_text())
        prefill, decode = known[name]
        if not fresh and type(prefill) is int and type(decode) is int:
            return prefill, decode
    except (OSError, ValueError, KeyError, TypeError):
        known = {}
    with trio.move_on_after(BENCHMARK_SECONDS_MAX) as scope:
        result = await engine.benchmark()
    if scope.cancelled_caught:
        raise AssayError("engine_failed", "the benchmark did not end in time")
    rates = (round(result.prefill_tps * 1000), round(result.decode_tps * 1000))
    log.info("benchmark", prefill_tps=result.prefill_tps, decode_tps=result.decode_tps)
    known[name] = rates
    try:
        file.write_text(json.dumps(known))
    except OSError as error:
        log.warning("benchmark_not_kept", reason=error.strerror)
    return rates
