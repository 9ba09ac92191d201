"""One node process from start to end: key, models, engines, rates, network, then serve until told.

Each step is checked before the next and fails with one stable code. A model file is verified
against its card by `prepare_model`, a step of its own before `engine_factory` is called; both can
be given by the caller, as tests and simulations do. First signal: drain, exit 0; second: exit 130.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from assay_network.descriptors import raise_descriptor_limit
from assay_network.host import Host, open_host
from assay_network.http_guard import Guard
from assay_network.keystore import load_or_create_key
from assay_network.logs import get_logger
from assay_network.scopes import single_errors
from assay_network.tracing import exporter
from assay_node.config import Settings
from assay_node.coordinator import Coordinator, fetch_card, parse_coordinator
from assay_node.core import effects as do
from assay_node.core import events as on
from assay_node.core.node import Node, Profile
from assay_node.core.parameters import SECOND_US, Parameters
from assay_node.engines import Engines, open_engines
from assay_node.following import ChainFollower, follow_command
from assay_node.gpu_power import power_limit
from assay_node.last_error import LastError
from assay_node.loading import EngineFactory, PrepareModel, open_engine, prepare_model, read_card
from assay_node.machine import Machine, MachineWatch
from assay_node.owner_limits import OwnerWatch, require_kept, terms_of
from assay_node.rules_file import Compare, keeping, load_rules
from assay_node.running import only_node
from assay_node.runtime import NodeRuntime, Observe
from assay_node.serving import (
    Candidate,
    MeasureNeed,
    find_candidates,
    memory_budget,
    need_bytes,
    stock,
)
from assay_node.start_checks import require_disk, skew_seconds
from assay_node.status import (
    Home,
    Meter,
    Seen,
    Status,
    limits_told,
    notify_systemd,
    snapshot,
    write_status,
)
from assay_node.store import ReceiptStore
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError
from assay_protocol.links import BLOCKS
from assay_protocol.signing import Identity

if TYPE_CHECKING:
    from assay_node.metrics import NodeMetrics

SOFTWARE: Final = "assay-node/0.1"
KEY_FILE: Final = "node.key"
RECEIPTS_FILE: Final = "receipts.sqlite"
MIB: Final = 1 << 20
EXIT_DRAINED: Final = 0
EXIT_CANCELLED: Final = 130

log = get_logger("node")

OpenHost = Callable[[bytes, tuple[str, ...]], AbstractAsyncContextManager[Host]]
Report = Callable[[Status], None]


async def run_node(
    settings: Settings,
    *,
    prepare: PrepareModel = prepare_model,
    engine_factory: EngineFactory = open_engine,
    measure: MeasureNeed = need_bytes,
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
    directory = await trio.to_thread.run_sync(_prepare_directory, settings.directory)
    raise_descriptor_limit()
    pages, errors = _pages(settings), LastError()
    identity = Identity(load_or_create_key(directory / KEY_FILE))
    async with AsyncExitStack() as stack:
        stack.enter_context(only_node(directory))
        host = await stack.enter_async_context(host_factory(identity.seed, settings.listen))
        cards = await _cards(settings, host, coordinator)
        budget_bytes = await trio.to_thread.run_sync(memory_budget, settings)
        candidates = await find_candidates(settings, cards, prepare, measure)
        _hold(stack, settings, candidates)
        engines = await stack.enter_async_context(open_engines())
        stocked = await stock(
            engines,
            candidates,
            budget_bytes=budget_bytes,
            directory=directory,
            prepare=prepare,
            factory=engine_factory,
        )
        store = await trio.to_thread.run_sync(ReceiptStore, directory / RECEIPTS_FILE)
        stack.callback(store.close)
        bounds = parameters or Parameters(drain_us=settings.drain_timeout * SECOND_US)
        node = Node(
            signer=identity,
            coordinator=coordinator.key,
            served=stocked.served,
            profile=_profile(settings, host, stocked.device),
            seed=os.urandom(32),
            parameters=bounds,
            owed=store.owed(),
            used=store.used_tickets(clock()),
            budget_bytes=budget_bytes,
            resident=stocked.resident,
            rules=await trio.to_thread.run_sync(load_rules, settings),
            terms=terms_of(settings),
        )
        runtime = NodeRuntime(
            node,
            host=host,
            engines=engines,
            store=store,
            coordinator=coordinator,
            clock=clock,
            tick_seconds=bounds.tick_us / SECOND_US,
            keep_rules=keeping(directory, await _comparing(stack, settings)),
            observe=_observers(settings, pages, errors, stack),
        )
        await _share(settings, candidates, host, lambda: runtime.node.away)
        follower = _follower(settings, coordinator, directory, identity, runtime)
        watch = _Watch(settings, runtime, host, engines, clock, report, pages, errors, cards)
        return await _serve(runtime, watch, _owner(settings, runtime, host, clock), stop, follower)


@dataclass(frozen=True, slots=True)
class _Pages:
    """What the node serves over HTTP, where, and to whom."""

    address: tuple[str, int]
    metrics: NodeMetrics
    guard: Guard


class _Watch:
    """Looks at the node now and then and tells the owner."""

    def __init__(
        self,
        settings: Settings,
        runtime: NodeRuntime,
        host: Host,
        engines: Engines,
        clock: Callable[[], int],
        report: Report | None,
        pages: _Pages | None,
        errors: LastError,
        cards: Sequence[ModelCard | None],
    ) -> None:
        self._settings, self._runtime, self._host = settings, runtime, host
        self._engines, self._clock, self._report = engines, clock, report
        self._directory, self._meter = settings.directory, Meter(clock())
        self._restarts, self._pages = 0, pages
        names = {card.model: card.name for card in cards if card is not None}
        self._home = Home(host.public_key, settings.engine, limits_told(settings), names)
        self._errors = errors
        self._machine, self._url, self._rate = Machine(), "", 0.0
        self._skewed = False

    async def run(self) -> None:
        machine = MachineWatch()
        while True:
            self._machine = await trio.to_thread.run_sync(machine.look)
            self.look()
            await trio.sleep(self._settings.status_interval)

    def look(self) -> None:
        """Write and report one status; a full disk must not stop the node."""
        now = self._clock()
        self._rate = self._meter.rate(now, self._runtime.node.tally.tokens)
        status = self._status()
        if status.engine_restarts > self._restarts:
            log.warning("engine_restarted", restarts=status.engine_restarts)
            self._restarts = status.engine_restarts
        wrong = skew_seconds(self._runtime.node.repute.clock_skew_us)
        if wrong is not None and not self._skewed:
            log.warning("clock_skew", seconds=round(wrong))
        self._skewed = wrong is not None
        try:
            write_status(self._directory, status)
        except OSError as error:
            log.warning("status_not_written", reason=error.strerror)
        if self._report is not None:
            self._report(status)

    async def show(self, nursery: trio.Nursery) -> None:
        """Serve the metrics, if the owner wants them. Raises AssayError("port_in_use")."""
        served = self._pages
        if served is None:
            return
        from assay_network.monitor import Monitored, json_page, run_monitor

        served.metrics.follow(self._status)
        monitored = Monitored(metrics=served.metrics.text, faults=self._faults)
        pages = [json_page("/status", lambda: self._status().json())]
        serve = partial(run_monitor, guard=served.guard)
        self._url = await nursery.start(serve, monitored, served.address, pages)
        log.info("monitor_served", url=self._url)

    def _faults(self) -> list[str]:
        """Why nobody would be sent here, or why a job that comes would be refused."""
        runtime = self._runtime
        closed = runtime.node.closed(self._clock())
        faults = [] if closed is None else [closed]
        if not runtime.connected:
            faults.append("no_session")
        if not any(map(runtime.node.rules.allows, runtime.node.served)):
            faults.append("model_denied")
        return faults

    def _status(self) -> Status:
        seen = Seen(
            addresses=self._host.addresses,
            connected=self._runtime.connected,
            restarts=self._engines.restarts,
            metrics=self._url,
            machine=self._machine,
            error=self._errors,
        )
        now, node = self._clock(), self._runtime.node
        return snapshot(node, self._home, seen, now=now, rate=self._rate)


async def _serve(
    runtime: NodeRuntime,
    watch: _Watch,
    owner: OwnerWatch,
    stop: trio.Event | None,
    follower: ChainFollower | None,
) -> int:
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

    async def heed() -> None:
        await runtime.started.wait()
        await owner.run()

    with single_errors():
        async with trio.open_nursery() as nursery:
            await watch.show(nursery)
            nursery.start_soon(until_told)
            nursery.start_soon(heed)
            nursery.start_soon(watch.run)
            if follower is not None:
                nursery.start_soon(follower.run)
            notify_systemd("READY=1")
            await runtime.run()
            watch.look()
            nursery.cancel_scope.cancel()
    return EXIT_CANCELLED if cancelled else EXIT_DRAINED


def _owner(
    settings: Settings, runtime: NodeRuntime, host: Host, clock: Callable[[], int]
) -> OwnerWatch:
    def tell(reason: str) -> None:
        runtime.post(on.Pause(reason))

    return OwnerWatch(settings, clock, lambda: host.bytes_sent, tell)


def _observers(
    settings: Settings, pages: _Pages | None, errors: LastError, stack: AsyncExitStack
) -> Observe:
    """Everybody who is told what the node does."""
    told = [errors.observe] if pages is None else [errors.observe, pages.metrics.observe]
    if settings.otlp:
        from assay_node.tracing import NodeTraces

        told.append(NodeTraces(stack.enter_context(exporter(settings.otlp, "assay-node"))).observe)

    def observe(now: int, event: on.Event, effects: Sequence[do.Effect]) -> None:
        for one in told:
            one(now, event, effects)

    return observe


def _pages(settings: Settings) -> _Pages | None:
    """Raises what `Settings.metrics_guard` does, before anything is opened."""
    if (address := settings.metrics_address) is None:
        return None
    from assay_node.metrics import NodeMetrics

    return _Pages(address, NodeMetrics(), settings.metrics_guard())


def _follower(
    settings: Settings,
    coordinator: Coordinator,
    directory: Path,
    signer: Identity,
    runtime: NodeRuntime,
) -> ChainFollower | None:
    if not settings.follow:
        return None
    command = follow_command(settings.follow, directory, coordinator.key)
    node = runtime.node
    return ChainFollower(command, directory, signer, runtime.ask, lambda: node.block_to_vote)


def _profile(settings: Settings, host: Host, device: str) -> Profile:
    operator = bytes.fromhex(settings.operator) or host.public_key
    addresses = settings.announce or host.addresses
    return Profile(operator, addresses, SOFTWARE, device, settings.region)


async def _cards(
    settings: Settings, host: Host, coordinator: Coordinator
) -> list[ModelCard | None]:
    """Of each model; the owner's limits are held against machine and prices before any loads."""
    cards = [await _card(one, host, coordinator) for one in settings.each()]
    await trio.to_thread.run_sync(require_kept, settings, cards)
    return cards


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


async def _comparing(stack: AsyncExitStack, settings: Settings) -> Compare | None:
    """What holds rules against the chain that the owner named, if any."""
    if not settings.chain:
        return None
    from assay_contracts.adapters.rpc_chain import RpcChain
    from assay_contracts.govern.model_registry import compare_rules

    chain = RpcChain(settings.chain)
    stack.push_async_callback(chain.aclose)
    return partial(compare_rules, chain)


async def _share(
    settings: Settings, candidates: Sequence[Candidate], host: Host, is_away: Callable[[], bool]
) -> None:
    """Serve blocks of the models' files, as far as the owner and the licences allow it."""
    if not settings.share_mib_s:
        return
    from assay_node.models.sharing import BlockServer, Shared, share

    found: list[Shared] = []
    for one in candidates:
        card, path = one.prepared.card, one.prepared.path
        if card is None or path is None:
            continue
        try:
            found.append(await trio.to_thread.run_sync(share, card, path))
        except AssayError as error:
            log.warning("model_not_shared", code=error.code, reason=error.message)
    if found:
        host.serve(BLOCKS, BlockServer(found, settings.share_mib_s * MIB, is_away).handle)
        log.info("model_shared", mib_s=settings.share_mib_s, models=len(found))


def _hold(stack: AsyncExitStack, settings: Settings, candidates: Sequence[Candidate]) -> None:
    """Hold GPUs to their power, and keep files that are offered, loaded or not, from eviction."""
    from assay_node.models.library import holding

    stack.enter_context(power_limit(settings.max_watts))
    for one in candidates:
        for path in one.files:
            stack.enter_context(holding(path))


def _prepare_directory(directory: Path) -> Path:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise AssayError("config_invalid", f"data_dir: {error.strerror}") from error
    require_disk(directory)
    return directory
