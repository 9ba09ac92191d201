"""`node doctor`: would `node start` work here? Each check does the real thing."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from assay_network.host import open_host
from assay_network.keystore import load_key
from assay_node.app import KEY_FILE
from assay_node.config import Settings
from assay_node.coordinator import parse_coordinator
from assay_node.loading import open_engine, prepare_model, read_card
from assay_protocol.errors import AssayError
from assay_protocol.signing import Identity

DISK_BYTES_MIN: Final = 256 << 20
DIAL_SECONDS_MAX: Final = 8.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check; `detail` starts with the error's code if it failed."""

    what: str
    good: bool
    detail: str


def examine(settings: Settings) -> list[Finding]:
    """Every check, each on its own, under keys of the moment: a running node is left alone."""
    found = [_check("key", _key, settings), _check("disk", _disk, settings)]
    found += [_check("model", _model, one) for one in settings.each()]
    found += [_check("port", _port, settings), _check("coordinator", _coordinator, settings)]
    if settings.engine == "openai":
        found.append(_check("engine", _engine, settings))
    return found


def _check(what: str, check: Callable[[Settings], str], settings: Settings) -> Finding:
    try:
        return Finding(what, True, check(settings))
    except AssayError as error:
        return Finding(what, False, str(error))
    except OSError as error:
        return Finding(what, False, f"internal: {error}")


def _key(settings: Settings) -> str:
    try:
        return Identity(load_key(settings.directory / KEY_FILE)).public_key.hex()
    except FileNotFoundError:
        return "none yet; the first start makes one"


def _disk(settings: Settings) -> str:
    directory = settings.directory.absolute()
    present = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(present).free
    if free < DISK_BYTES_MIN:
        raise AssayError("disk_full", f"{free >> 20} MiB free at {present}")
    return f"{free >> 20} MiB free at {present}"


def _model(settings: Settings) -> str:
    if settings.engine == "scripted":
        return "scripted (simulated): no model file"
    if settings.fetch_card and not settings.card:
        return "not checked: the card comes from the coordinator"
    prepared = prepare_model(settings, read_card(settings))
    assert prepared.card is not None, "only the scripted engine has none"
    model = prepared.card.model.hex()
    if prepared.path is None:
        return f"{model}, the file is the other server's"
    return f"{model} at {prepared.path}"


def _engine(settings: Settings) -> str:
    prepared = prepare_model(settings, read_card(settings))

    async def ask() -> str:
        async with open_engine(settings, prepared) as engine:
            return engine.info.class_id

    return trio.run(ask)


def _port(settings: Settings) -> str:
    async def listen() -> str:
        async with open_host(secrets.token_bytes(32), settings.listen) as host:
            return " ".join(host.addresses)

    return trio.run(listen)


def _coordinator(settings: Settings) -> str:
    coordinator = parse_coordinator(settings.coordinator)

    async def dial() -> str:
        async with open_host(secrets.token_bytes(32)) as host:
            await host.dial(coordinator.key, coordinator.addresses, DIAL_SECONDS_MAX)
        return "reached, and it holds its key"

    return trio.run(dial)
