"""Assembles a coordinator: key, tables, chain, catalogue, host; runs it until told to stop."""

from __future__ import annotations

import gc
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from assay_contracts.deploy.plan import LOCAL, Parameters
from assay_contracts.rpc.server import rpc_app, serve_rpc
from assay_coordinator.adapters.anchor import Anchor, RemoteChain, local_anchor, remote_anchor
from assay_coordinator.adapters.blocks import Blocks
from assay_coordinator.adapters.credit import Bundles, pricing_document
from assay_coordinator.adapters.draws import job_verdict, round_draws
from assay_coordinator.adapters.governance import RulesFollower
from assay_coordinator.adapters.leaf_files import leaves_document, publish
from assay_coordinator.adapters.store import Store
from assay_coordinator.adapters.verdicts import verdict_record
from assay_coordinator.adapters.void_watch import VoidWatch
from assay_coordinator.core.calibration import Tables, open_table
from assay_coordinator.core.coordinator import Coordinator, Listed
from assay_coordinator.core.economics import deterrence
from assay_coordinator.core.events import Effect, PostEpoch, PostRound
from assay_coordinator.core.policy import Policy
from assay_coordinator.core.rules import SignedPolicy
from assay_coordinator.dashboard.subject import Chain, Subject, card_facts
from assay_coordinator.moderation_command import read_policy_file
from assay_coordinator.runtime import Backends, Observe, Runtime
from assay_network.descriptors import raise_descriptor_limit
from assay_network.host import open_host
from assay_network.http_guard import Guard
from assay_network.keystore import load_or_create_key
from assay_network.logs import get_logger
from assay_network.reach import ReachServer
from assay_network.scopes import single_errors
from assay_network.session import serve_sessions
from assay_network.tracing import exporter
from assay_protocol.cards import card_digest, decode_card
from assay_protocol.errors import AssayError
from assay_protocol.links import REACH, SESSION
from assay_protocol.signing import Identity

if TYPE_CHECKING:
    from assay_coordinator.metrics import CoordinatorMetrics
    from assay_coordinator.tracing import CoordinatorTraces

CARD_FILES: Final = "*.card"
EPOCHS_FOLDER: Final = "epochs"

log = get_logger("coordinator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one coordinator is run. Paths default to places under `data_dir`."""

    data_dir: Path
    listen: tuple[str, ...]
    database: str | None = None
    catalogue: tuple[Path, ...] = ()
    rpc: tuple[str, int] | None = None
    http: tuple[str, int] | None = None  # of metrics, health and the dashboard
    http_guard: Guard = field(default_factory=Guard)
    otlp: str = ""  # URL of a collector of traces; "": none are made
    policy: Policy = field(default_factory=Policy)
    calibrations: tuple[Path, ...] = ()
    chain: RemoteChain | None = None  # None: a local one in the data directory
    moderation: Path | None = None
    contracts: Parameters = LOCAL  # what they are made with at the first start


async def run_coordinator(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. Raises AssayError if it cannot start.

    Prints one JSON line when ready: {"event": "ready", "address": ..., "rpc": ..., "http": ...}.
    """
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    raise_descriptor_limit()
    identity = Identity(load_or_create_key(settings.data_dir / "coordinator.key"))
    cards, listed = read_catalogue(settings.catalogue)
    tables = read_tables(settings.calibrations, settings.policy.operators)
    moderation = read_policy_file(settings.moderation) if settings.moderation else None
    log.info("policy", deterrence=round(deterrence(settings.policy), 2))
    stops = trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT)  # before "ready" is said
    with (
        stops as signals,
        _opened(settings, identity) as (store, anchor),
        _traced(settings) as traces,
    ):
        folder = settings.data_dir / EPOCHS_FOLDER
        metrics = _metrics(settings)
        observe = _observers(metrics, traces)
        runtime = make_runtime(
            settings.policy,
            identity,
            store,
            anchor,
            cards,
            listed,
            folder,
            tables,
            moderation,
            observe,
        )
        async with (
            open_host(identity.seed, settings.listen) as host,
            open_host(secrets.token_bytes(32)) as dialer,
            trio.open_nursery() as nursery,
        ):
            started = trio.Event()
            nursery.start_soon(runtime.run, started)
            nursery.start_soon(anchor.run)
            watch = VoidWatch(
                anchor.chain, anchor.deployment.address, anchor.newest_posted, runtime.tell
            )
            nursery.start_soon(watch.run)
            await started.wait()
            _follow_rules(nursery, anchor, runtime)
            serve_sessions(host, SESSION, runtime.opened, runtime.closed)
            host.serve(REACH, ReachServer(host, dialer, _microseconds).handle)
            rpc = await _start_rpc(nursery, settings, anchor)
            subject = partial(_subject, identity, store, anchor, runtime, cards)
            http = await _start_http(nursery, settings, runtime, metrics, subject)
            _settle_heap()
            _ready(host.addresses, rpc, http, anchor.deployment.contracts)
            log.info("stopping", signal=signal.Signals(await anext(signals)).name)
            nursery.cancel_scope.cancel()
    log.info("stopped")
    return 0


def make_runtime(
    policy: Policy,
    identity: Identity,
    store: Store,
    anchor: Anchor,
    cards: Mapping[bytes, bytes],
    listed: Mapping[bytes, Listed],
    epochs_folder: Path,
    tables: Tables | None = None,
    moderation: SignedPolicy | None = None,
    observe: Observe | None = None,
) -> Runtime:
    """The core with its backends, not yet running."""
    deployment, blocks = anchor.deployment, Blocks(anchor.local)
    final = partial(trio.from_thread.run, anchor.is_final)  # bundles are made in threads
    bundles = Bundles(store, deployment.chain_id, deployment.address, final)

    async def submit(effect: PostEpoch | PostRound) -> None:
        if isinstance(effect, PostEpoch):  # nobody can check a root without its leaves
            await trio.to_thread.run_sync(publish, store, epochs_folder, effect.epoch)
        await anchor.submit(effect)

    return Runtime(
        lambda: Coordinator(
            policy, listed, identity, os.urandom(32), tables=tables, moderation=moderation
        ),
        Backends(
            commit=store.commit,
            load=store.load,
            documents={
                "credit": bundles.bundle,
                "claimable": bundles.claimable,
                "leaves": partial(leaves_document, store),
                "pricing": partial(pricing_document, store),
                "draws": partial(round_draws, store),
                "verdict": partial(verdict_record, store),
                "block": blocks.part,
                "finality": blocks.finality,
            },
            submit=submit,
            settled=anchor.settled,
            verdict=partial(job_verdict, store),
            vote=blocks.vote,
            block=blocks.target,
        ),
        cards,
        _microseconds,
        observe,
    )


def _microseconds() -> int:
    return time.time_ns() // 1000


def read_catalogue(paths: Sequence[Path]) -> tuple[dict[bytes, bytes], dict[bytes, Listed]]:
    """The cards in `paths` (files, or folders of *.card): by model, raw and listed.

    Raises AssayError("card_invalid") naming the file.
    """
    files = [
        file
        for path in paths
        for file in (sorted(path.glob(CARD_FILES)) if path.is_dir() else [path])
    ]
    cards: dict[bytes, bytes] = {}
    listed: dict[bytes, Listed] = {}
    for file in files:
        try:
            raw = file.read_bytes()
            card = decode_card(raw)
        except (OSError, AssayError) as error:
            raise AssayError("card_invalid", f"{file}: {error}") from error
        cards[card.model] = raw
        listed[card.model] = Listed(
            name=card.name,
            model=card.model,
            card=card_digest(raw),
            context=card.context,
            price_in=card.price_in,
            price_out=card.price_out,
            image_tokens=None if card.vision is None else card.vision.tokens,
        )
    return cards, listed


def read_tables(paths: Sequence[Path], operators: Iterable[bytes]) -> Tables:
    """The calibration tables in `paths`.

    Raises AssayError("calibration_invalid") naming the file.
    """
    tables = []
    for path in paths:
        try:
            tables.append(open_table(path.read_bytes(), operators))
        except (OSError, AssayError) as error:
            raise AssayError("calibration_invalid", f"{path}: {error}") from error
    return Tables(tables)


@contextmanager
def _opened(settings: Settings, identity: Identity) -> Iterator[tuple[Store, Anchor]]:
    url = settings.database or f"sqlite:///{settings.data_dir / 'coordinator.db'}"
    store = Store(url)
    try:
        if settings.chain is not None:
            anchor = remote_anchor(settings.chain, identity, store.engine)
        else:
            path = settings.data_dir / "chain.db"
            anchor = local_anchor(path, identity, store.engine, settings.contracts)
        try:
            yield store, anchor
        finally:
            anchor.close()
    finally:
        store.close()


def _follow_rules(nursery: trio.Nursery, anchor: Anchor, runtime: Runtime) -> None:
    """What governance decides, if it is known where."""
    registry = anchor.deployment.contracts.get("ModelRegistry")
    if registry is None:
        log.warning("rules_not_followed", reason="no ModelRegistry is named")
        return
    follower = RulesFollower(
        anchor.chain, registry, runtime.tell, lambda: runtime.core.rules.lacks_policy
    )
    nursery.start_soon(follower.run)


async def _start_rpc(nursery: trio.Nursery, settings: Settings, anchor: Anchor) -> str | None:
    if settings.rpc is None:
        return None
    if anchor.local is None:
        raise AssayError("config_invalid", "only the local chain is served: leave out --rpc")
    try:
        with single_errors():
            binds = await nursery.start(serve_rpc, rpc_app(anchor.local), *settings.rpc)
    except OSError as error:
        raise AssayError("port_in_use", f"cannot serve JSON-RPC on {settings.rpc}") from error
    return str(binds[0])


def _metrics(settings: Settings) -> CoordinatorMetrics | None:
    if settings.http is None:
        return None
    from assay_coordinator.metrics import CoordinatorMetrics

    return CoordinatorMetrics()


@contextmanager
def _traced(settings: Settings) -> Iterator[CoordinatorTraces | None]:
    """What makes spans, if the operator named a collector."""
    if not settings.otlp:
        yield None
        return
    from assay_coordinator.tracing import CoordinatorTraces

    with exporter(settings.otlp, "assay-coordinator") as emit:
        yield CoordinatorTraces(emit, _microseconds)


def _observers(
    metrics: CoordinatorMetrics | None, traces: CoordinatorTraces | None
) -> Observe | None:
    """Everybody who is told what was committed."""
    told = [one.observe for one in (metrics, traces) if one is not None]
    if not told:
        return None

    def observe(batch: Sequence[Effect], rows: int, seconds: float) -> None:
        for one in told:
            one(batch, rows, seconds)

    return observe


async def _start_http(
    nursery: trio.Nursery,
    settings: Settings,
    runtime: Runtime,
    metrics: CoordinatorMetrics | None,
    subject: Callable[[], Subject],
) -> str | None:
    """Metrics, health and the dashboard at one door; its URL."""
    if settings.http is None or metrics is None:
        return None
    from assay_coordinator.dashboard.routes import dashboard_routes
    from assay_network.monitor import Monitored, run_monitor

    metrics.follow(runtime)
    monitored = Monitored(metrics=metrics.text, faults=runtime.faults)
    routes = dashboard_routes(await trio.to_thread.run_sync(subject))
    serve = partial(run_monitor, guard=settings.http_guard)
    url: str = await nursery.start(serve, monitored, settings.http, routes)
    return url


def _subject(
    identity: Identity,
    store: Store,
    anchor: Anchor,
    runtime: Runtime,
    cards: Mapping[bytes, bytes],
) -> Subject:
    """What the dashboard may look at. Takes time: it reads the cards."""
    deployment = anchor.deployment
    return Subject(
        core=lambda: runtime.core,
        engine=store.engine,
        clock=_microseconds,
        faults=runtime.faults,
        bundle=partial(runtime.document, "credit"),
        key=identity.public_key,
        chain=Chain(
            chain_id=deployment.chain_id,
            ledger=deployment.address,
            local=anchor.local is not None,
        ),
        cards=card_facts(cards),
    )


def _settle_heap() -> None:
    """What start-up made lives for ever: keep the collector from walking it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


def _ready(
    addresses: tuple[str, ...],
    rpc: str | None,
    http: str | None,
    contracts: Mapping[str, bytes],
) -> None:
    line = {
        "event": "ready",
        "address": addresses[0],
        "addresses": list(addresses),
        "rpc": rpc,
        "http": http,
        "contracts": {name: f"0x{address.hex()}" for name, address in contracts.items()},
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
