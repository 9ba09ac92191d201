"""The checks of `node doctor` that need the network: port, coordinator, and what it says.

Whether a port is open to the world only the world can say: the coordinator is asked to dial back
(assay_network/reach.py). One that does not offer that leaves clock and reach unchecked.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

from assay_network.host import Host, open_host
from assay_network.reach import ask_reach
from assay_network.session import Session, open_session
from assay_node.config import Settings
from assay_node.coordinator import Coordinator, fetch_card, parse_coordinator
from assay_node.faults import DoctorFault
from assay_node.findings import Findings
from assay_node.running import running_node
from assay_node.start_checks import skew_seconds
from assay_protocol.errors import AssayError, PeerGone
from assay_protocol.links import SESSION
from assay_protocol.messages import Reach

DIAL_SECONDS_MAX: Final = 8.0
_MICRO: Final = 1_000_000


async def check_network(
    settings: Settings, findings: Findings, models: Mapping[str, bytes]
) -> None:
    """All of them, one after the other, under a key of the moment. `models`: by their cards."""
    async with AsyncExitStack() as stack:
        addresses: tuple[str, ...] = ()
        host: Host | None = None
        port = _port_of(settings.listen[0])
        running = running_node(settings.directory)
        if running:
            findings.skipped("port", f"the running node (pid {running}) listens on it")
        else:
            with findings.of("port", port=port):
                opened = open_host(secrets.token_bytes(32), settings.listen)
                host = await stack.enter_async_context(opened)
                findings.good("port", " ".join(host.addresses))
                addresses = settings.announce or host.addresses
        if host is None:
            host = await stack.enter_async_context(open_host(secrets.token_bytes(32)))
        with findings.of("coordinator"):
            coordinator = parse_coordinator(settings.coordinator)
            await _dial(host, coordinator)
            findings.good("coordinator", "reached, and it holds its key")
            await _speak(findings, host, coordinator, addresses, models)
            return
        for check in ("protocol", "clock", "reach", "catalogue"):
            findings.skipped(check, "there is no coordinator to ask")


async def _dial(host: Host, coordinator: Coordinator) -> None:
    try:
        await host.dial(coordinator.key, coordinator.addresses, DIAL_SECONDS_MAX)
    except PeerGone as error:
        where = " ".join(coordinator.addresses)
        raise DoctorFault("no_coordinator", f"{where}: {error.message}") from error


async def _speak(
    findings: Findings,
    host: Host,
    coordinator: Coordinator,
    addresses: Sequence[str],
    models: Mapping[str, bytes],
) -> None:
    with findings.of("protocol"):
        try:
            async with open_session(host, coordinator.key, coordinator.addresses, SESSION, _ignore):
                findings.good("protocol", f"both speak {SESSION}")
        except AssayError as error:
            if error.code != "unsupported_protocol":
                raise
            raise DoctorFault("old_protocol", f"the coordinator does not know {SESSION}") from error
    if findings.has_fault("protocol"):
        for check in ("clock", "reach", "catalogue"):
            findings.skipped(check, "the coordinator cannot be understood")
        return
    await _ask_reach(findings, host, coordinator, addresses)
    if not models:
        findings.skipped("catalogue", "no card is named that could be in it")
    for card, model in models.items():
        with findings.of("catalogue", card=card):
            await fetch_card(host, coordinator, model)
            findings.good("catalogue", f"has {model.hex()}")


async def _ask_reach(
    findings: Findings, host: Host, coordinator: Coordinator, addresses: Sequence[str]
) -> None:
    own = [address.partition("/p2p/")[0] for address in addresses]
    try:
        answer = await ask_reach(host, coordinator.key, coordinator.addresses, own)
    except AssayError as error:
        why = "the coordinator does not offer it"
        if error.code != "unsupported_protocol":
            why = f"the coordinator answered {error}"
        findings.skipped("clock", why)
        findings.skipped("reach", why)
        return
    _clock(findings, answer)
    _reach(findings, own, answer)


def _clock(findings: Findings, answer: Reach) -> None:
    """The answer was under way for less than what counts."""
    skew_us = answer.now_at - time.time_ns() // 1000
    with findings.of("clock"):
        if (wrong := skew_seconds(skew_us)) is not None:
            how = "behind" if wrong > 0 else "ahead of"
            raise DoctorFault("clock_skew", f"{abs(wrong):.0f} s {how} the coordinator's clock")
        findings.good("clock", f"{abs(skew_us) / _MICRO:.1f} s from the coordinator's")


def _reach(findings: Findings, own: Sequence[str], answer: Reach) -> None:
    if not own:
        findings.skipped("reach", "nothing listens, or a running node does")
        return
    reached = [address for address, code in zip(own, answer.results, strict=True) if not code]
    lost = [f"{one} ({code})" for one, code in zip(own, answer.results, strict=True) if code]
    with findings.of("reach", seen=answer.seen or "YOUR.ADDRESS", port=_port_of(own[0])):
        if not reached:
            raise DoctorFault(
                "port_blocked",
                f"the coordinator sees this machine as {answer.seen or 'nothing'} "
                f"and reaches none of {', '.join(lost)}",
            )
        text = f"dialed back at {', '.join(reached)}"
        findings.good("reach", text + (f"; not at {', '.join(lost)}" if lost else ""))


def _port_of(address: str) -> str:
    parts = address.split("/")
    return parts[parts.index("tcp") + 1] if "tcp" in parts[:-1] else "PORT"


def _ignore(_session: Session, _request: int, _body: bytes) -> None:
    """The doctor registers nothing, so nothing is expected of it."""
