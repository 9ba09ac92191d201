"""What a running node tells its owner: one line now and then, and a file others may read.

The file is replaced as a whole, so a reader never sees half of it; it holds no secret.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from assay_node.config import Settings
from assay_node.core.node import Node
from assay_node.last_error import LastError
from assay_node.machine import Machine
from assay_protocol.errors import AssayError

STATUS_FILE: Final = "status.json"
MICRO: Final = 1_000_000
STALE_SECONDS: Final = 30  # older than this, the node that wrote it is not well
_LIMITS: Final = (
    *("hours", "time_zone", "idle_minutes", "max_celsius", "daily_upload_mib", "clients"),
    *("min_price_in", "min_price_out", "memory_gib", "models_quota_gib", "share_mib_s"),
)


@dataclass(frozen=True, slots=True)
class Status:
    """One moment of one node. Money in micro-credits, `at` in microseconds since the epoch."""

    at: int
    pid: int
    node: str
    addresses: tuple[str, ...]
    engine: str
    device: str
    model: str
    phase: str  # connecting, serving, paused, draining or drained
    paused: str  # by which of the owner's limits: hours, in_use, hot, sent, unseen; or empty
    state: str  # the coordinator's word
    reason: str
    connected: bool
    running: int
    slots: int
    queued: int
    jobs_done: int
    jobs_failed: int
    jobs_refused: int
    tokens: int
    tokens_per_second: float
    audits_done: int
    audits_passed: int
    audits_failed: int
    earned: int
    escrow: int
    receipts_owed: int
    receipts_booked: int
    receipts_refused: int
    engine_restarts: int
    clock_skew_ms: int
    rules: int  # the version of governance's that is in force here; -1: none
    denied: int  # models of this node that they do not allow
    models: tuple[dict[str, Any], ...]  # of several: model, state (core/residency.py) and jobs
    name: str  # of the first model, as its card says; empty without a card
    class_id: str  # in which it is computed
    metrics: str  # URL of the pages about this node; empty: none are served
    limits: dict[str, Any]  # that the owner set, by the settings' names; of `clients` how many
    machine: Machine
    last_error: str  # a code of docs/errors.md; empty: nothing went wrong since the start
    last_error_at: int

    def line(self) -> str:
        """For people."""
        parts = [
            f"{self.phase}/{self.state}",
            f"jobs {self.jobs_done} done {self.running} running {self.queued} queued",
            f"{self.tokens_per_second:.1f} tok/s",
            f"audits {self.audits_passed} passed {self.audits_failed} failed",
            f"credit {_credits(self.earned)} earned {_credits(self.escrow)} escrow",
        ]
        if self.paused:
            parts[0] += f" ({self.paused})"
        if self.models:
            loaded = sum(one["state"] == "resident" for one in self.models)
            parts.append(f"{loaded} of {len(self.models)} models loaded")
        if self.denied:
            parts.append(f"{self.denied} models denied by rules {self.rules}")
        if self.receipts_owed:
            parts.append(f"{self.receipts_owed} receipts to deliver")
        if self.engine_restarts:
            parts.append(f"engine restarted {self.engine_restarts}x")
        return " | ".join(parts)

    def model_lines(self) -> list[str]:
        """For people: a line for each of several models."""
        return [f"{one['model']} {one['state']} {one['jobs']} jobs" for one in self.models]

    def json(self) -> str:
        """For machines: one line."""
        return json.dumps(asdict(self), separators=(",", ":"))


class Meter:
    """Tokens per second between two looks."""

    def __init__(self, now: int) -> None:
        self._at, self._tokens = now, 0

    def rate(self, now: int, tokens: int) -> float:
        """The rate since the last call; `tokens` counts all since the start."""
        elapsed = now - self._at
        rate = (tokens - self._tokens) * MICRO / elapsed if elapsed > 0 else 0.0
        self._at, self._tokens = now, tokens
        return rate


@dataclass(frozen=True, slots=True)
class Home:
    """What stays of a node as long as its process lives. `names` are of models, by digest."""

    key: bytes
    engine: str
    limits: dict[str, Any] = field(default_factory=dict)
    names: Mapping[bytes, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen around the core at one moment."""

    addresses: tuple[str, ...]
    connected: bool
    restarts: int
    metrics: str
    machine: Machine
    error: LastError


def limits_told(settings: Settings) -> dict[str, Any]:
    """The owner's limits that are set. Keys of clients stay unsaid: only how many there are."""
    values = {name: getattr(settings, name) for name in _LIMITS}
    values["clients"] = len(values["clients"])
    return {name: value for name, value in values.items() if value}


def snapshot(node: Node, home: Home, seen: Seen, *, now: int, rate: float) -> Status:
    """The status of `node` now."""
    tally, repute, slots = node.tally, node.repute, node.slots
    first, served = next(iter(node.served.items()))
    if node.draining:
        phase = "drained" if node.drained else "draining"
    elif node.paused:
        phase = "paused"
    else:
        phase = "serving" if node.registered else "connecting"
    return Status(
        at=now,
        pid=os.getpid(),
        node=home.key.hex(),
        addresses=seen.addresses,
        engine=home.engine,
        device=node.device,
        model=first.hex(),
        phase=phase,
        paused=node.paused,
        state=repute.state,
        reason=repute.reason,
        connected=seen.connected,
        running=min(node.running, slots),
        slots=slots,
        queued=max(0, node.running - slots),
        jobs_done=tally.jobs_done,
        jobs_failed=tally.jobs_failed,
        jobs_refused=tally.jobs_refused,
        tokens=tally.tokens,
        tokens_per_second=round(rate, 2),
        audits_done=tally.audits_done,
        audits_passed=repute.audits_passed,
        audits_failed=repute.audits_failed,
        earned=repute.earned,
        escrow=repute.escrow,
        receipts_owed=node.receipts_owed,
        receipts_booked=tally.receipts_booked,
        receipts_refused=tally.receipts_refused,
        engine_restarts=seen.restarts,
        clock_skew_ms=repute.clock_skew_us // 1000,
        rules=node.rules.version,
        denied=sum(not node.rules.allows(model) for model in node.served),
        models=_models(node),
        name=home.names.get(first, ""),
        class_id=served.class_id,
        metrics=seen.metrics,
        limits=home.limits,
        machine=seen.machine,
        last_error=seen.error.code,
        last_error_at=seen.error.at,
    )


def _models(node: Node) -> tuple[dict[str, Any], ...]:
    if len(node.served) == 1:
        return ()
    jobs = node.jobs_by_model()
    return tuple(
        {"model": key.hex(), "state": node.residency.state(one.engine), "jobs": jobs[key]}
        for key, one in node.served.items()
    )


def write_status(directory: Path, status: Status) -> None:
    """Replace the status file. Raises OSError."""
    draft = directory / f".{STATUS_FILE}.{os.getpid()}"
    draft.write_text(status.json() + "\n")
    draft.replace(directory / STATUS_FILE)


def read_status(directory: Path) -> dict[str, Any]:
    """What the running node last wrote; raises AssayError("config_invalid") if there is none."""
    path = directory / STATUS_FILE
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise AssayError("config_invalid", f"no node has written {path}") from error
    if not isinstance(value, dict):
        raise AssayError("config_invalid", f"{path} is not a status file")
    return value


def notify_systemd(state: str) -> None:
    """Tell systemd (READY=1, STOPPING=1) if it asked; see sd_notify(3). Never fails."""
    name = os.environ.get("NOTIFY_SOCKET")
    if not name:
        return
    address = "\0" + name[1:] if name.startswith("@") else name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.sendto(state.encode(), address)
    except OSError:
        return  # the service manager is not ours to mend


def _credits(micro: int) -> str:
    return f"{micro / MICRO:.6f}"
