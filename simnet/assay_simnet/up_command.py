"""`simnet up`: a small network on this machine, used like any other, until it is told to stop.

A coordinator with a chain of its own, nodes that serve a real model, and a gateway: each a process
that a person could start by hand, all on loopback. Nothing here is scripted, and nobody cheats.

Exit codes: 0 ended as told, 1 a process failed (printed as `code: message`, with the end of its
log), 2 wrong usage, 130 stopped before anything ran.
"""

from __future__ import annotations

import argparse
import fcntl
import ipaddress
import json
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from assay_network.http_listener import listening_socket, parse_address
from assay_network.scopes import shielded, single_errors
from assay_protocol.errors import AssayError
from assay_simnet.drivers.real import RealNetwork, real_network
from assay_simnet.drivers.real_model import NAME, RealModel, prepare

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
STOP_SECONDS: Final = 10.0  # for answers and receipts under way; then nodes are told again
FAUCET: Final = 100_000_000  # micro-credits of play money for every new account
MARK: Final = "simnet-up"  # a file of a folder that `up` made, locked while one runs
# Answers are drawn and audited within seconds, so that somebody who looks sees it happen.
POLICY: Final = "audit_alone_us = 5000000\nround_us = 1000000\n"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a network runs: its folder, whether that stays, and the gateway's address."""

    folder: Path
    kept: bool
    listen: str
    as_json: bool


def up_command(args: argparse.Namespace) -> int:
    """Run it; what cannot be run is said before anything is written."""
    try:
        _check_listen(args.listen)
        with _folder(args.keep) as folder:
            place = Place(folder, args.keep is not None, args.listen, args.json)
            _say(place, "the model is fetched and tried out (a minute, the first time)")
            model = prepare(folder, price_in=100, price_out=400)
            trio.run(_serve, place, model, args.nodes)
    except AssayError as error:
        sys.stderr.write(f"simnet up: {error}\n")
        return USAGE if error.code == "config_invalid" else FAILED
    except trio.TooSlowError:
        sys.stderr.write("simnet up: timeout: a process did not start in time\n")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return OK


async def _serve(place: Place, model: RealModel, nodes: int) -> None:
    names = [f"node-{number}" for number in range(1, nodes + 1)]
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        with single_errors():
            async with (
                _stopped_in_order(place, names, signals) as network,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(_until_told, signals, nursery.cancel_scope)
                await _start(network, place, model, names)
                _tell(place, network, names)
                await _first_to_end(network)
    if place.as_json:
        print(json.dumps({"event": "stopped"}), flush=True)


async def _start(network: RealNetwork, place: Place, model: RealModel, names: list[str]) -> None:
    _say(place, f"starting a coordinator, {len(names)} nodes and a gateway")
    await network.start_coordinator(POLICY, model.card_file, FAUCET, ("--http", "127.0.0.1:0"))
    for name in names:
        await network.start_node(name, model.card_file, model.file)
    await network.wait_present(names)
    await network.start_gateway("--listen", place.listen)


async def _until_told(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(signals)
    scope.cancel()


async def _first_to_end(network: RealNetwork) -> None:
    """A network that lost a process is not the one that was promised. Raises AssayError."""
    ended: list[str] = []

    async def watch(name: str) -> None:
        await network.processes[name].wait()
        ended.append(name)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for name in tuple(network.processes):
            nursery.start_soon(watch, name)
    if ended:
        network.check_alive(ended[0])


@asynccontextmanager
async def _stopped_in_order(
    place: Place, names: list[str], signals: AsyncIterator[int]
) -> AsyncIterator[RealNetwork]:
    """Who asks ends first, who keeps the books last, so that receipts find their way. A second
    signal, or what takes too long, ends in `real_network`'s own stop of all."""
    async with real_network(place.folder, apart=True) as network:
        try:
            yield network
        finally:
            with shielded(STOP_SECONDS):
                _say(place, "stopping; a second Ctrl-C does not wait for what is under way")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_until_told, signals, nursery.cancel_scope)
                    await network.end("gateway")
                    async with trio.open_nursery() as ending:
                        for name in names:
                            ending.start_soon(network.end, name)
                    nursery.cancel_scope.cancel()


def _tell(place: Place, network: RealNetwork, names: list[str]) -> None:
    fields: dict[str, Any] = {
        "api": f"{network.gateway}/v1",
        "model": NAME,
        "coordinator": network.address,
        "nodes": names,
        "chain": network.rpc,
        "pages": network.pages,
        "folder": str(place.folder),
        "kept": place.kept,
    }
    if place.as_json:
        print(json.dumps({"event": "ready", **fields}), flush=True)
        return
    fields["nodes"] = f"{', '.join(names)}: {fields.pop('model')}"
    fields["folder"] += "" if fields.pop("kept") else " (removed at the end; --keep keeps one)"
    for name, value in fields.items():
        print(f"{name:12} {value}")
    print(
        f"\nready: OPENAI_BASE_URL={fields['api']} OPENAI_API_KEY=none; Ctrl-C ends it", flush=True
    )


def _check_listen(text: str) -> None:
    """Loopback, and free now. Raises AssayError "config_invalid" or "port_in_use"."""
    host, port = parse_address("listen", text)
    try:
        inside = ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = host == "localhost"
    if not inside:
        what = f"{host} can be reached by others; start your own `assay gateway` for them"
        raise AssayError("config_invalid", f"listen: {what}")
    listening_socket(host, port).close()


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """A temporary one, or `keep` if it is new or was made here, and only ours while we run.

    Raises AssayError("config_invalid").
    """
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="assay-up-") as temporary:
            yield Path(temporary)
        return
    mark = keep / MARK
    if keep.exists() and not mark.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise AssayError("config_invalid", f"{keep} is there already, and not made by simnet up")
    keep.mkdir(parents=True, exist_ok=True)
    with mark.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AssayError("config_invalid", f"a network runs in {keep} already") from None
        yield keep.resolve()


def _say(place: Place, text: str) -> None:
    if not place.as_json:
        print(text, flush=True)
