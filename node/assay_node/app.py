"""One node process from start to end: key, model, engine, rates, network, then serve until told.

Each step is checked before the next and fails with one stable code. The model file is verified
against its card by `prepare_model`, a step of its own before `engine_factory` is called; both can
be given by the caller, as tests and simulations do. First signal: drain, exit 0; second: exit 130.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from assay_network.descriptors import raise_descriptor_limit
from assay_network.host import Host, open_host
from assay_network.keystore import load_or_create_key
from assay_network.logs import get_logger
from assay_node.config import Settings
from assay_node.coordinator import Coordinator, fetch_card, parse_coordinator
from assay_node.core import events as on
from assay_node.core.node import Node, Profile
from assay_node.core.parameters import SECOND_US, Parameters, Served
from assay_node.engine.interface import Engine
from assay_node.hardware import free_memory
from assay_node.runtime import NodeRuntime
from assay_node.status import Meter, Status, notify_systemd, snapshot, write_status
from assay_node.store import ReceiptStore
from assay_protocol.cards import ModelCard, decode_card
from assay_protocol.errors import AssayError
from assay_protocol.links import BLOCKS
from assay_protocol.signing import Identity

if TYPE_CHECKING:
    from assay_node.models.fit import Fit

SOFTWARE: Final = "assay-node/0.1"
KEY_FILE: Final = "node.key"
RECEIPTS_FILE: Final = "receipts.sqlite"
MODELS_FOLDER: Final = "models"
BENCHMARK_FILE: Final = "benchmark.json"
MIB: Final = 1 << 20
BENCHMARK_SECONDS_MAX: Final = 120.0
EXIT_DRAINED: Final = 0
EXIT_CANCELLED: Final = 130

log = get_logger("node")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What to load: the card the node serves under and its checked file; neither if scripted."""

    card: ModelCard | None
    path: Path | None

    @property
    def digest(self) -> bytes:
        assert self.card is not None, "only the scripted engine has no card"
        return self.card.digest


PrepareModel = Callable[[Settings, ModelCard | None], Prepared]
EngineFactory = Callable[[Settings, Prepared], AbstractAsyncContextManager[Engine]]
OpenHost = Callable[[bytes, tuple[str, ...]], AbstractAsyncContextManager[Host]]
Report = Callable[[Status], None]


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
        return Prepared(card, None)  # the file is the other server's
    from assay_node.models.gguf import read_header
    from assay_node.models.obtain import obtain
    from assay_node.models.peers import block_peers
    from assay_node.models.store import ModelStore

    folder = settings.directory / MODELS_FOLDER
    if settings.model:
        path = ModelStore(folder).find(card, Path(settings.model))
    else:
        peers = block_peers(settings.model_peers)
        path = obtain(card, folder, settings.models_quota_bytes, peers=peers)
    read_header(path)  # llama.cpp gets to see only what a careful reader has seen before
    return Prepared(card, path)


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
    """llama.cpp, computing as the profile named does here; the first time that is tried out."""
    from assay_node.engine.library import engines
    from assay_node.engine.supervisor import open_llama_engine
    from assay_node.engine.trials import choose
    from assay_node.models.library import holding

    assert prepared.path is not None, "a llama engine needs a file"
    fitted = await trio.to_thread.run_sync(fitted_settings, settings, prepared.path)
    profile = await trio.to_thread.run_sync(
        lambda: choose(
            prepared.path,
            prepared.digest,
            settings.profile,
            threads=settings.engine_threads,
            directory=engines(),
        )
    )
    with holding(prepared.path):
        async with open_llama_engine(
            prepared.path,
            prepared.digest,
            slots=fitted.slots,
            context=fitted.context,
            threads=settings.engine_threads,
            profile=profile,
            gpu_layers=-1 if fitted.gpu_layers is None else fitted.gpu_layers,
        ) as engine:
            yield engine


def fitted_settings(settings: Settings, path: Path) -> Fit:
    """Slots and context that memory has room for, and layers for the GPU.

    Raises AssayError("model_too_large") before anything is loaded.
    """
    from assay_node.models.fit import Fit, fit, gpu_layers
    from assay_node.models.gguf import read_header

    asked = Fit(settings.slots, settings.context)
    if settings.fit == "off":
        return asked
    header = read_header(path)
    ram, vram = free_memory()
    found = fit(
        header,
        ram + vram,
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


async def run_node(
    settings: Settings,
    *,
    prepare: PrepareModel = prepare_model,
    engine_factory: EngineFactory = open_engine,
    host_factory: OpenHost = open_host,
    report: Report | None = None,
    clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    parameters: Parameters | None = None,
    stop: trio.Event | None = None,
) -> int:
    """Serve until drained; the exit code. `report` gets a Status every status_interval.

    `stop` drains like a first signal; where it is given, no signal handler is installed. Raises
    AssayError for everything that prevents a start.
    """
    coordinator = parse_coordinator(settings.coordinator)
    directory = _prepare_directory(settings.directory)
    raise_descriptor_limit()
    identity = Identity(load_or_create_key(directory / KEY_FILE))
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(host_factory(identity.seed, settings.listen))
        card = await _card(settings, host, coordinator)
        prepared = await trio.to_thread.run_sync(prepare, settings, card)
        engine = await stack.enter_async_context(engine_factory(settings, prepared))
        served = await _served(settings, prepared, engine, directory)
        store = await trio.to_thread.run_sync(ReceiptStore, directory / RECEIPTS_FILE)
        stack.callback(store.close)
        bounds = parameters or Parameters(drain_us=settings.drain_timeout * SECOND_US)
        operator = bytes.fromhex(settings.operator) or identity.public_key
        node = Node(
            signer=identity,
            coordinator=coordinator.key,
            served=served,
            profile=Profile(
                operator, settings.announce or host.addresses, SOFTWARE, engine.info.device
            ),
            seed=os.urandom(32),
            parameters=bounds,
            owed=store.owed(),
            used=store.used_tickets(clock()),
        )
        runtime = NodeRuntime(
            node,
            host=host,
            engine=engine,
            store=store,
            coordinator=coordinator,
            clock=clock,
            tick_seconds=bounds.tick_us / SECOND_US,
        )
        await _share(settings, prepared, host)
        watch = _Watch(settings, runtime, host, engine, clock, report, directory)
        return await _serve(runtime, watch, stop)


class _Watch:
    """Looks at the node now and then and tells the owner."""

    def __init__(
        self,
        settings: Settings,
        runtime: NodeRuntime,
        host: Host,
        engine: Engine,
        clock: Callable[[], int],
        report: Report | None,
        directory: Path,
    ) -> None:
        self._settings, self._runtime, self._host = settings, runtime, host
        self._engine, self._clock, self._report = engine, clock, report
        self._directory, self._meter = directory, Meter(clock())
        self._restarts = 0

    async def run(self) -> None:
        while True:
            self.look()
            await trio.sleep(self._settings.status_interval)

    def look(self) -> None:
        """Write and report one status; a full disk must not stop the node."""
        now, runtime = self._clock(), self._runtime
        load = self._engine.load
        status = snapshot(
            runtime.node,
            load,
            now=now,
            rate=self._meter.rate(now, runtime.node.tally.tokens),
            key=self._host.public_key,
            addresses=self._host.addresses,
            engine=self._settings.engine,
            device=self._engine.info.device,
            connected=runtime.connected,
        )
        if load.restarts > self._restarts:
            log.warning("engine_restarted", restarts=load.restarts)
            self._restarts = load.restarts
        try:
            write_status(self._directory, status)
        except OSError as error:
            log.warning("status_not_written", reason=error.strerror)
        if self._report is not None:
            self._report(status)


async def _serve(runtime: NodeRuntime, watch: _Watch, stop: trio.Event | None) -> int:
    cancelled = False

    async def until_told() -> None:
        nonlocal cancelled
        await runtime.started.wait()
        if stop is not None:
            await stop.wait()
            runtime.post(on.Drain())
            return
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                if runtime.node.draining:
                    cancelled = True
                    nursery.cancel_scope.cancel()
                    return
                log.info("draining")
                notify_systemd("STOPPING=1")
                runtime.post(on.Drain())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(until_told)
        nursery.start_soon(watch.run)
        notify_systemd("READY=1")
        await runtime.run()
        watch.look()
        nursery.cancel_scope.cancel()
    return EXIT_CANCELLED if cancelled else EXIT_DRAINED


async def _card(settings: Settings, host: Host, coordinator: Coordinator) -> ModelCard | None:
    """The card named, or the coordinator's card of the model file."""
    if not settings.fetch_card or settings.card:
        return read_card(settings)
    if not settings.model:
        raise AssayError("config_invalid", "fetch_card needs model, the file to ask for")
    from assay_node.models.card import file_sha256

    try:
        digest = await trio.to_thread.run_sync(file_sha256, Path(settings.model))
    except OSError as error:
        raise AssayError("model_missing", f"cannot read {settings.model}") from error
    card, _ = await fetch_card(host, coordinator, digest)
    return card


async def _share(settings: Settings, prepared: Prepared, host: Host) -> None:
    """Serve blocks of the model's file, if the owner and the licence allow it."""
    card, path = prepared.card, prepared.path
    if card is None or path is None or not settings.share_mib_s:
        return
    from assay_node.models.sharing import BlockServer, share

    try:
        shared = await trio.to_thread.run_sync(share, card, path)
    except AssayError as error:
        log.warning("model_not_shared", code=error.code, reason=error.message)
        return
    host.serve(BLOCKS, BlockServer(shared, settings.share_mib_s * MIB).handle)
    log.info("model_shared", mib_s=settings.share_mib_s)


async def _served(
    settings: Settings, prepared: Prepared, engine: Engine, directory: Path
) -> Served:
    """What the engine offers, with rates measured now or remembered."""
    info = engine.info
    model = info.model if prepared.card is None else prepared.card.digest
    prefill, decode = await measured_rates(settings, engine, model, directory)
    return Served(
        model=model,
        class_id=info.class_id,
        slots=info.slots,
        context=info.context,
        n_vocab=info.n_vocab,
        eog=info.eog,
        prefill_rate=prefill,
        decode_rate=decode,
        grammar=info.grammar,
    )


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


def _prepare_directory(directory: Path) -> Path:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise AssayError("config_invalid", f"data_dir: {error.strerror}") from error
    return directory
