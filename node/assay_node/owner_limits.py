"""The owner's limits on this machine: what is set, whether it can be kept, and what is seen now.

The core decides (core/limits.py); this looks at clock, terminals and GPU and tells it. A limit that
cannot be kept here is refused at the start, never ignored.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import trio

from assay_network.logs import get_logger
from assay_node.activity import idle_seconds
from assay_node.config import Settings
from assay_node.core.limits import Gate, Limits, SentToday, Surroundings, Terms, parse_window
from assay_node.gpu_power import power_fault
from assay_node.hardware import hottest_gpu
from assay_protocol.cards import ModelCard
from assay_protocol.errors import AssayError

LOOK_SECONDS: Final = 5.0
SENT_FILE: Final = "sent.json"
_MICRO: Final = 1_000_000

log = get_logger("node")


def limits_of(settings: Settings) -> Limits:
    """The limits on when the node works."""
    return Limits(
        windows=tuple(parse_window(text) for text in settings.hours),
        idle_seconds=60 * settings.idle_minutes,
        celsius_max=settings.max_celsius,
        sent_bytes_max=settings.daily_upload_mib << 20,
    )


def terms_of(settings: Settings) -> Terms:
    """The limits on what jobs it takes."""
    return Terms(
        clients=frozenset(bytes.fromhex(key) for key in settings.clients),
        refused=frozenset(bytes.fromhex(key) for key in settings.refused_clients),
        price_in_min=settings.min_price_in,
        price_out_min=settings.min_price_out,
    )


def look(settings: Settings, now: int, sent_bytes: int | None = None) -> Surroundings:
    """What is seen now; only what is limited is looked for. `now` in microseconds."""
    zone = ZoneInfo(settings.time_zone) if settings.time_zone else None
    local = datetime.fromtimestamp(now / _MICRO, zone)
    return Surroundings(
        weekday=local.weekday(),
        minute=60 * local.hour + local.minute,
        idle_seconds=idle_seconds(time.time()) if settings.idle_minutes else None,
        celsius=hottest_gpu() if settings.max_celsius else None,
        day=local.toordinal(),
        sent_bytes=sent_bytes,
    )


def unkept(settings: Settings) -> tuple[str, str] | None:
    """A limit that this machine gives no way to keep, and why; None if there is none."""
    seen = look(settings, time.time_ns() // 1000)
    if settings.idle_minutes and seen.idle_seconds is None:
        why = "a desktop session is active, or there is no terminal: nobody's typing can be seen"
        return "idle_minutes", why
    if settings.max_celsius and seen.celsius is None:
        return "max_celsius", "no GPU here tells its temperature (NVML)"
    if settings.max_watts and (why := power_fault(settings.max_watts)):
        return "max_watts", why
    return None


def require_kept(settings: Settings, cards: Iterable[ModelCard | None]) -> None:
    """Raises AssayError("config_invalid") if a limit cannot be kept, or no job could meet it."""
    if (limit := unkept(settings)) is not None:
        raise AssayError("config_invalid", f"{limit[0]} cannot be kept here: {limit[1]}")
    for card in cards:
        if card is None:
            continue
        prices = (("min_price_in", card.price_in), ("min_price_out", card.price_out))
        for name, price in prices:
            if price < getattr(settings, name):
                text = f"{card.name} is priced at {price}: {name} would refuse every job"
                raise AssayError("config_invalid", text)


class OwnerWatch:
    """Looks now and then, and tells the node when the gate opens or closes."""

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], int],
        sent: Callable[[], int | None],
        tell: Callable[[str], None],
    ) -> None:
        """`sent`: bytes since the node started. `tell` gets why the gate is closed, "" if open."""
        self._settings, self._clock, self._sent, self._tell = settings, clock, sent, tell
        self._file = settings.directory / SENT_FILE
        self._gate = Gate(limits_of(settings), read_sent(self._file))

    async def run(self) -> None:
        """For ever; the gate is open until the first look, which is at once."""
        told = ""
        while True:
            reason = await trio.to_thread.run_sync(self._look, self._sent())
            if reason != told:
                self._tell(reason)
                told = reason
            await trio.sleep(LOOK_SECONDS)

    def _look(self, sent_bytes: int | None) -> str:
        before = self._gate.sent
        reason = self._gate.handle(look(self._settings, self._clock(), sent_bytes))
        if self._settings.daily_upload_mib and self._gate.sent != before:
            _keep_sent(self._file, self._gate.sent)
        return reason


def read_sent(file: Path) -> SentToday:
    """What was sent on the last day of an earlier run; nothing if that cannot be read."""
    try:
        raw = json.loads(file.read_text())
        day, sent = raw["day"], raw["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return SentToday()
    return SentToday(day, sent) if type(day) is type(sent) is int else SentToday()


def _keep_sent(file: Path, sent: SentToday) -> None:
    """A full disk must not stop the node: the count then begins anew at the next start."""
    draft = file.with_suffix(".new")
    try:
        draft.write_text(json.dumps({"day": sent.day, "bytes": sent.bytes}))
        draft.replace(file)
    except OSError as error:
        log.warning("sent_not_kept", reason=error.strerror)
